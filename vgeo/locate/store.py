"""Descriptions of photos in one SQLite file, so that a photo is described once and never again."""

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path

import numpy as np

from vgeo.errors import VgeoError, say
from vgeo.models.xfeat import CHANNELS

# SQLite's codes for a file that can't be written.
UNWRITABLE = {
    *(sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_FULL)
}


def user_cache() -> Path:
    """The folder for descriptions: $XDG_CACHE_HOME/vgeo/described, or ~/.cache/vgeo/described.

    It is not the photos' own folder, which may be read-only.

    Raises
    ------
    RuntimeError : $XDG_CACHE_HOME is not set and nothing says what the home folder is.
    """
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vgeo" / "described"


def open_store(name: str, folder: str | os.PathLike | None = None) -> "Store":
    """The Store of a name in a folder, by default `user_cache()`.

    Where it can't be written, a line says so, and what is new goes to temporary files.
    """
    advice = "set the variable XDG_CACHE_HOME to a folder that can be written"
    try:
        where = Path(folder or user_cache())
    except RuntimeError as error:
        say(f"the descriptions of the photos are not kept ({error}): {advice}")
        return Store(None)
    return Store(where / name, "give another cache folder" if folder else advice)


def photo_key(path: str | os.PathLike) -> bytes:
    """The key of a photo in a store. It changes with the photo's path, size and time of change."""
    status = os.stat(path)
    version = f"\0{status.st_size}\0{status.st_mtime_ns}".encode()
    return sha256(os.fsencode(os.path.realpath(path)) + version).digest()


class Store:
    """Descriptors, float32 (D,), points, int8 (P, CHANNELS), and brightness of photos by key.

    What was put into the store stays there when the process is killed. Every method raises
    VgeoError, which names the file, where SQLite can't use it.

    Parameters
    ----------
    path : the file. None for one in the folder of temporary files, which goes with the process.
    advice : what to do where the file can't be written. A line then says so, what is in the file is
        still read, and what is new goes to temporary files. None: such a file is refused.
    """

    def __init__(self, path: str | os.PathLike | None, advice: str | None = None):
        self.path = None if path is None else Path(path)
        self.advice = advice
        with self._explained():
            try:
                if self.path:
                    self.path.parent.mkdir(parents=True, exist_ok=True)
                self._connect(self.path or "")
            except (sqlite3.Error, OSError) as error:
                self._write_elsewhere(error)

    def _connect(self, file: str | Path) -> None:
        columns = "key BLOB PRIMARY KEY, descriptor BLOB, points BLOB, brightness REAL"
        self.connection = sqlite3.connect(file, timeout=60, uri=file == "")
        self.connection.execute(f"CREATE TABLE IF NOT EXISTS main.photos ({columns})")
        self.connection.execute(
            "CREATE TABLE IF NOT EXISTS main.notes (key BLOB PRIMARY KEY, text)"
        )

    def _write_elsewhere(self, error: sqlite3.Error | OSError) -> None:
        """Goes on in temporary files, beside what can be read; raises other errors again."""
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CANTOPEN) & 255
        if self.path is None or self.advice is None or code not in UNWRITABLE:
            raise error
        say(
            f"{self.path}: can't be written ({error}), so descriptions of new photos are not kept: "
            f"{self.advice}"
        )
        kept, self.path = self.path, None
        self._connect("")
        with suppress(sqlite3.Error):  # there is no such file, or nothing in it
            self.read_also(kept)

    def read_also(self, path: Path) -> None:
        """Lets a store of temporary files read another one's file as `kept`. It is not written."""
        self.connection.execute("ATTACH ? AS kept", (f"{path.absolute().as_uri()}?mode=ro",))
        self.connection.execute("SELECT 1 FROM kept.photos LIMIT 1").fetchall()
        both = "SELECT * FROM main.photos UNION ALL SELECT * FROM kept.photos"
        self.connection.execute(f"CREATE TEMP VIEW photos AS {both}")

    def __contains__(self, key: bytes) -> bool:
        return self._select("1", key) is not None

    def put(
        self,
        keys: Sequence[bytes],
        descriptors: np.ndarray,
        points: np.ndarray,
        brightness: Sequence[float],
    ) -> None:
        """Adds photos: descriptors float32 (N, D), points int8 (N, P, CHANNELS), brightness."""
        columns = zip(keys, descriptors, points, brightness)
        rows = [(key, d.tobytes(), x.tobytes(), float(b)) for key, d, x, b in columns]
        self._insert("photos VALUES (?, ?, ?, ?)", rows)

    def note(self, key: bytes, text: str | None = None) -> str | None:
        """The text that is kept under a key, None where there is none. A given text is kept."""
        if text is not None:
            self._insert("notes VALUES (?, ?)", [(key, text)])
        return self._select("text", key, "main.notes")

    def _insert(self, values: str, rows: list[tuple]) -> None:
        def insert() -> None:
            with self.connection:
                self.connection.executemany(f"INSERT OR REPLACE INTO main.{values}", rows)

        with self._explained():
            try:
                insert()
            except sqlite3.Error as error:
                self._write_elsewhere(error)
                insert()

    def descriptors(self, keys: Sequence[bytes]) -> np.ndarray:
        """The descriptors of photos in the store, float32 (N, D)."""
        return np.stack([np.frombuffer(self._select("descriptor", k), np.float32) for k in keys])

    def points(self, keys: Sequence[bytes]) -> np.ndarray:
        """The points of photos in the store, int8 (N, P, CHANNELS)."""
        flat = np.stack([np.frombuffer(self._select("points", key), np.int8) for key in keys])
        return flat.reshape(len(flat), flat.shape[1] // CHANNELS, CHANNELS)

    def brightness(self, keys: Sequence[bytes]) -> np.ndarray:
        """The brightness of photos in the store, float64 (N,)."""
        return np.array([self._select("brightness", key) for key in keys])

    def _select(self, column: str, key: bytes, table: str = "photos"):
        """One value of a key's row; None where the table has no such row."""
        query = f"SELECT {column} FROM {table} WHERE key = ?"
        with self._explained():
            row = self.connection.execute(query, (key,)).fetchone()
        return row and row[0]

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            what = f"{self.path or 'temporary files'}: can't be used ({error})"
            if getattr(error, "sqlite_errorcode", 0) & 255 == sqlite3.SQLITE_BUSY:
                raise VgeoError(f"{what}: wait until the other process is done") from error
            raise VgeoError(
                f"{what}: free some space, make its folder writable, "
                f"{self.advice or 'give another one'}, or remove the file to describe all photos "
                "again"
            ) from error
