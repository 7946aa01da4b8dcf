"""Descriptions of photos in one SQLite file, so that a photo is described once and never again."""

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

import numpy as np

from vgeo.errors import VgeoError, say
from vgeo.models.geowarp import GRID


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

    Where it can't be written, a line says so, and the store is a temporary one.
    """
    where = folder or "the user's cache folder"
    try:
        where = Path(folder or user_cache())
        where.mkdir(parents=True, exist_ok=True)
        if not os.access(where, os.W_OK):
            raise PermissionError("it is read-only")
        store = Store(where / name)
        store.connection.execute("BEGIN IMMEDIATE")  # fails where the file is read-only
        store.connection.rollback()
        return store
    except (OSError, RuntimeError, sqlite3.OperationalError) as error:
        say(
            f"{where}: can't be written ({error}), so the descriptions of the photos are not kept: "
            "set the variable XDG_CACHE_HOME to a folder that can be written"
        )
        return Store(None)


def photo_key(path: str | os.PathLike) -> bytes:
    """The key of a photo in a store. It changes with the photo's path, size and time of change."""
    status = os.stat(path)
    version = f"\0{status.st_size}\0{status.st_mtime_ns}".encode()
    return sha256(os.fsencode(os.path.realpath(path)) + version).digest()


class Store:
    """Descriptors, float32 (D,), and local features, float16 (C, GRID, GRID), of photos by key.

    What was put into the store stays there when the process is killed. Every method raises
    VgeoError, which names the file, where SQLite can't use it.

    Parameters
    ----------
    path : the file. None for one in the folder of temporary files, which goes with the process.
    """

    def __init__(self, path: str | os.PathLike | None):
        self.path = None if path is None else Path(path)
        columns = "key BLOB PRIMARY KEY, descriptor BLOB, local BLOB"
        with self._explained():
            if self.path:
                self.path.parent.mkdir(parents=True, exist_ok=True)
            self.connection = sqlite3.connect(self.path or "", timeout=60)
            self.connection.execute(f"CREATE TABLE IF NOT EXISTS photos ({columns})")

    def __contains__(self, key: bytes) -> bool:
        return self._select("1", key) is not None

    def put(self, keys: Sequence[bytes], descriptors: np.ndarray, local: np.ndarray) -> None:
        """Adds photos: descriptors float32 (N, D), local features float16 (N, C, GRID, GRID)."""
        rows = [(k, d.tobytes(), x.tobytes()) for k, d, x in zip(keys, descriptors, local)]
        with self._explained(), self.connection:
            self.connection.executemany("INSERT OR REPLACE INTO photos VALUES (?, ?, ?)", rows)

    def descriptors(self, keys: Sequence[bytes]) -> np.ndarray:
        """The descriptors of photos in the store, float32 (N, D)."""
        return np.stack([np.frombuffer(self._select("descriptor", k), np.float32) for k in keys])

    def local(self, keys: Sequence[bytes]) -> np.ndarray:
        """The local features of photos in the store, float16 (N, C, GRID, GRID)."""
        flat = [np.frombuffer(self._select("local", key), np.float16) for key in keys]
        return np.stack(flat).reshape(len(flat), -1, GRID, GRID)

    def _select(self, column: str, key: bytes):
        """One value of a photo; None where the store does not hold the photo."""
        query = f"SELECT {column} FROM photos WHERE key = ?"
        with self._explained():
            row = self.connection.execute(query, (key,)).fetchone()
        return row and row[0]

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise VgeoError(
                f"{self.path or 'temporary files'}: can't be used ({error}): free some space, make "
                "its folder writable, set XDG_CACHE_HOME to another one, or remove the file to "
                "describe all photos again"
            ) from error
