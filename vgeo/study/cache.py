"""Results on disk, keyed by everything that made them: a changed recipe or changed code never finds
an old result.

A finished folder is sealed: `sums.json` holds the size and CRC-32 of each of its files. Each
process compares them once, before it uses the folder. CRC-32 sees every change of up to four bytes
in a row and misses one in 4 billion of the others. It is in the standard library and three times as
fast as SHA-256.
"""

import json
import os
import shutil
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from filelock import FileLock, Timeout

from vgeo import files
from vgeo.device import from_first, is_first, share, wait_for_all
from vgeo.errors import VgeoError, say

SUMS = "sums.json"


class Cache:
    """The folder of all results that can be made again.

    Parameters
    ----------
    root : the folder. Several processes and several runs may use it at the same time.
    journal : a file that gets one JSON line for every step that begins, is made, or is found; None
        for no journal. The line holds event ("begin", "made", "found"), key, kind, label, folder,
        seconds (wall time of making it) and own (seconds without the steps inside it).
    """

    def __init__(self, root: str | os.PathLike, journal: str | os.PathLike | None = None):
        self.root = Path(root)
        self.journal = Path(journal) if journal else None
        self._whole: set[Path] = set()  # folders that this process has compared with their sums
        self._told: set[Path] = set()  # folders that are in the journal
        self._inner = 0.0  # seconds of the steps made inside the one that is being made

    def step(
        self,
        kind: str,
        label: str,
        recipe: dict,
        make: Callable[[Path], object],
        code: tuple[str, ...] = (),
        resumes: bool = False,
        together: bool = False,
    ) -> Path:
        """The folder `root/kind/<key>` that `make(folder)` fills, made now or found.

        `make` works in a folder beside the final one, which is renamed when it returns. Of two runs
        that want the same folder one makes it and the other waits. A damaged folder is named and
        made again. Of several processes that work as one (`device`) the first makes the folder
        while the others wait.

        Parameters
        ----------
        label : words for people. The recipe alone decides the key.
        recipe : JSON values that name everything the content depends on. Stored inside as
            `recipe.json`.
        code : names of the modules that make the content. The hash of their source is a part of the
            key.
        resumes : a stopped `make` finds what it had written. Otherwise it starts with an empty
            folder.
        together : all processes call `make`, to share its work, each with a folder of its own. The
            first one's is kept.

        Raises
        ------
        VgeoError : the folder can't be written.
        """
        recipe = {**recipe, "code": files.code_hash(*code)}
        final = self.root / kind / files.key(recipe)
        work = final.with_name(final.name + ".partial")
        try:
            if from_first(is_first() and self._usable(final, recipe)):
                self._tell("found", kind, label, final)
                return final
            with self._locked(final) if is_first() else nullcontext():
                if from_first(is_first() and self._usable(final, recipe)):
                    self._tell("found", kind, label, final)
                else:
                    self._make(kind, label, final, work, recipe, make, resumes, together)
            wait_for_all()
        except OSError as error:
            if error.filename is None and error.errno is None:
                raise
            raise VgeoError(
                f"{work}: can't be written ({error.strerror}): free some space, or make the folder "
                "writable"
            ) from error
        if not final.exists():
            raise VgeoError(
                f"{final}: made by the first process, but not seen by process {share().index}: "
                "give all machines the same folder"
            )
        return final

    def _make(self, kind, label, final, work, recipe, make, resumes, together) -> None:
        """Fills `work`, in all processes or in the first alone, and renames it to `final`."""
        if not is_first():
            wait_for_all()
            if together:
                with tempfile.TemporaryDirectory() as folder:
                    own = Path(shutil.copytree(work, Path(folder, "own")))
                    wait_for_all()
                    make(own)
            return
        _discard(final, work, recipe)
        if work.exists() and not resumes:
            shutil.rmtree(work)
        work.mkdir(parents=True, exist_ok=True)
        wait_for_all()
        if together:
            wait_for_all()  # the other processes copy the folder before it changes
        self._tell("begin", kind, label, final)
        before, self._inner = self._inner, 0.0
        start = time.perf_counter()
        make(work)
        seconds = time.perf_counter() - start
        own_seconds, self._inner = seconds - self._inner, before + seconds
        (work / "recipe.json").write_text(json.dumps(recipe, indent=2, sort_keys=True) + "\n")
        (work / "seconds").write_text(f"{seconds:.2f}\n")
        seal(work)
        os.replace(work, final)
        self._whole.add(final)
        self._tell("made", kind, label, final, own_seconds)

    def _locked(self, final: Path):
        words = f"{final}: another run is making it; waits for it"
        return lock(self.root, f"{final.parent.name}-{final.name}", words)

    def _usable(self, final: Path, recipe: dict) -> bool:
        """Whether the folder exists and is as it was made."""
        if final not in self._whole and final.exists() and not damage(final, recipe):
            self._whole.add(final)
        return final in self._whole and final.exists()

    def _tell(self, event: str, kind: str, label: str, folder: Path, own: float = 0.0) -> None:
        """Adds a line to the journal; a step that is found again is told once."""
        if not self.journal or not is_first() or (event == "found" and folder in self._told):
            return
        if event != "begin":
            self._told.add(folder)
        line = {
            "event": event,
            "key": folder.name,
            "kind": kind,
            "label": label,
            "folder": str(folder),
            "seconds": seconds_of(folder) if event != "begin" else 0.0,
            "own": round(own, 2),
        }
        self.journal.parent.mkdir(parents=True, exist_ok=True)
        with open(self.journal, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def read_journal(path: str | os.PathLike, offset: int = 0) -> tuple[list[dict], int]:
    """The journal's whole lines from a byte offset on, and the offset behind them; ([], offset)
    without a journal.
    """
    try:
        with open(path, "rb") as file:
            file.seek(offset)
            text = file.read()
    except FileNotFoundError:
        return [], offset
    text = text[: text.rfind(b"\n") + 1]
    return [json.loads(line) for line in text.splitlines()], offset + len(text)


@contextmanager
def lock(root: str | os.PathLike, name: str, words: str) -> Iterator[None]:
    """Holds the lock of a name below `root`; says the words before it waits for another process.

    The system frees the lock of a process that is killed.
    """
    folder = Path(root) / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    held = FileLock(folder / name)
    try:
        held.acquire(timeout=0)
    except Timeout:
        say(words)
        held.acquire()
    try:
        yield
    finally:
        held.release()


def seconds_of(folder: Path) -> float:
    """Wall time of the last, uninterrupted stretch of making a folder."""
    return float((folder / "seconds").read_text())


def damage(folder: Path, recipe: dict) -> str | None:
    """What is wrong with a finished folder, in words, or None."""
    try:
        if json.loads((folder / "recipe.json").read_text()) != json.loads(json.dumps(recipe)):
            return "its recipe.json is another's"
        sums = json.loads((folder / SUMS).read_text())
        for name, known in sums.items():
            if _sum(folder / name, known[0]) != known:
                return f"{name} is damaged"
    except FileNotFoundError as error:
        return f"{os.path.relpath(error.filename, folder)} is gone"
    except (ValueError, AttributeError, TypeError, IndexError):  # not JSON, or not of our shape
        return f"its recipe.json or {SUMS} is damaged"
    return None


def seal(folder: Path) -> None:
    """Writes `sums.json`, {file below the folder: [bytes, CRC-32]}."""
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != SUMS)
    sums = {path.relative_to(folder).as_posix(): _sum(path) for path in paths}
    files.write(folder / SUMS, json.dumps(sums) + "\n")


def _discard(final: Path, work: Path, recipe: dict) -> None:
    """Deletes a damaged folder. It is renamed first: a stopped deletion is never mistaken for a
    finished folder.
    """
    if final.exists():
        say(f"{final}: {damage(final, recipe)}: makes it again")
        shutil.rmtree(work, ignore_errors=True)
        os.replace(final, work)
        shutil.rmtree(work)


def _sum(path: Path, size: int | None = None) -> list:
    """[bytes, CRC-32] of a file; [bytes, None] where the size is not the given one."""
    length, total = os.path.getsize(path), 0
    if size not in (None, length):
        return [length, None]
    buffer = memoryview(bytearray(min(length, 1 << 20) + 1))
    with open(path, "rb", buffering=0) as file:
        while read := file.readinto(buffer):
            total = zlib.crc32(buffer[:read], total)
    return [length, total]
