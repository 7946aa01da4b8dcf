"""Results on disk, keyed by everything that made them: a folder that is found is whole, a changed recipe finds no stale file.

A folder is sealed when it is made: `sums.json` holds the size and CRC-32 of each of its files, and each process compares them once, before it
uses the folder. CRC-32 sees every change of up to four bytes in a row and misses one in 4 billion of the others; it is in the standard library
and reads 2.9 GB/s on one core, SHA-256 1.0. Nothing is remembered between processes: a disk that forgets changes no time of a file.
"""

import json
import os
import shutil
import tempfile
import time
import zlib
from contextlib import contextmanager, nullcontext
from pathlib import Path

from filelock import FileLock, Timeout

from vgeo.device import first, part, told, wait
from vgeo.errors import VgeoError, say
from vgeo.files import key

SUMS = "sums.json"


_whole = set()  # folders that this process has compared with their sums


def artefact(root, step, recipe, make, resumes=False, together=False):
    """The folder `root/step/<key>` that `make(folder)` fills, made now or found.

    recipe: a dict of JSON values naming everything the content depends on; it is stored inside as `recipe.json`. `make` works in a folder
    beside the final one, which is renamed when it returns. With `resumes` that folder is kept after a stop, so that `make` finds in it what
    it had written; otherwise it starts empty. A folder that is no longer as it was made is said and made again. Of two processes that want the
    same folder one makes it and the other waits. Raises VgeoError when the place can't be written.

    Of several processes that work as one (`parallel`) the first makes the folder while the others wait. `together`: all call `make`, to share its
    work, each with a folder of its own, of which the first one's is kept.
    """
    final = Path(root) / step / key(recipe)
    work = final.with_name(final.name + ".partial")
    try:
        if told(first() and _found(final, recipe)):
            return final
        with _lock(final) if first() else nullcontext():
            if not told(first() and _found(final, recipe)):
                if first():
                    _put_away(final, work, recipe)
                    _begin(work, resumes)
                wait()
                if first():
                    _make(final, work, recipe, make, together)
                elif together:
                    _help(work, make)
        wait()
    except OSError as error:
        if error.filename is None and error.errno is None:
            raise
        raise VgeoError(
            f"{work}: can't be written ({error.strerror}): free some space, or make the folder writable"
        ) from error
    if not final.exists():
        raise VgeoError(
            f"{final}: made by the first process, but not seen by process {part().index}: give all machines the same folder"
        )
    return final


def _lock(final):
    return alone(
        final.parents[1],
        f"{final.parent.name}-{final.name}",
        f"{final}: another run is making it; waits for it",
    )


@contextmanager
def alone(cache, name, words):
    """Holds the lock of a name; says the words before it waits for another process. The system frees the lock of one that is killed."""
    place = Path(cache) / "locks"
    place.mkdir(parents=True, exist_ok=True)
    lock = FileLock(place / name)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        say(words)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _begin(work, resumes):
    if work.exists() and not resumes:
        shutil.rmtree(work)
    work.mkdir(parents=True, exist_ok=True)


def _help(work, make):
    """Calls `make` with a copy of the first process's folder, to go on from where it does."""
    with tempfile.TemporaryDirectory() as folder:
        own = Path(shutil.copytree(work, Path(folder, "own")))
        wait()
        make(own)


def _make(final, work, recipe, make, together):
    if together:
        wait()  # for the others' copies
    start = time.perf_counter()
    make(work)
    (work / "recipe.json").write_text(json.dumps(recipe, indent=2, sort_keys=True) + "\n")
    (work / "seconds").write_text(f"{time.perf_counter() - start:.2f}\n")
    seal(work)
    os.replace(work, final)
    _whole.add(final)


def _found(final, recipe):
    """Whether the folder is there, as it was made."""
    if final not in _whole and final.exists() and not damage(final, recipe):
        _whole.add(final)
    return final in _whole and final.exists()


def _put_away(final, work, recipe):
    """Removes a folder that can't be used, and says why; by way of a name that no run takes for a finished one, should it be stopped halfway."""
    if final.exists():
        say(f"{final}: {damage(final, recipe)}: makes it again")
        shutil.rmtree(work, ignore_errors=True)
        os.replace(final, work)
        shutil.rmtree(work)


def damage(folder, recipe):
    """What is wrong with an artefact's folder, in words, or None.

    A folder without sums, as version 1.0 made them, is sealed as it is found where its recipe is the right one: that was written last.
    """
    try:
        if json.loads((folder / "recipe.json").read_text()) != json.loads(json.dumps(recipe)):
            return "its recipe.json is another's"
        if not (folder / SUMS).exists():
            seal(folder)
            return None
        sums = json.loads((folder / SUMS).read_text())
        return next(
            (
                f"{name} is damaged"
                for name, known in sums.items()
                if _sum(folder / name, known[0]) != known
            ),
            None,
        )
    except FileNotFoundError as error:
        return f"{os.path.relpath(error.filename, folder)} is gone"
    except (ValueError, AttributeError, TypeError, IndexError):  # not JSON, or not of our shape
        return f"its recipe.json or {SUMS} is damaged"


def seal(folder):
    """Writes `sums.json`, {file below the folder: [bytes, CRC-32]}."""
    sums = {
        path.relative_to(folder).as_posix(): _sum(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith(SUMS)
    }
    temporary = folder / f"{SUMS}.{os.getpid()}.tmp"
    temporary.write_text(json.dumps(sums) + "\n")
    os.replace(temporary, folder / SUMS)


def _sum(path, size=None):
    """[bytes, CRC-32] of a file; the sum is left out, None, where the size is not the given one."""
    found, total = os.path.getsize(path), 0
    if size not in (None, found):
        return [found, None]
    buffer = memoryview(bytearray(min(found, 1 << 20) + 1))
    with open(path, "rb", buffering=0) as file:
        while read := file.readinto(buffer):
            total = zlib.crc32(buffer[:read], total)
    return [found, total]


def seconds(folder):
    """Wall time that an artefact's last, uninterrupted stretch took."""
    return float((folder / "seconds").read_text())
