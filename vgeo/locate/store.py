"""TODO: locate.store."""

import os
import sqlite3
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

import numpy as np

from vgeo.errors import VgeoError
from vgeo.models.geowarp import GRID


def user_cache():
    """Where descriptions are kept: not beside the photos, whose folder may be read-only, nor beside the results, which come and go."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vgeo" / "described"


def photo_key(path):
    """A photo's key in a store, bytes: it changes with its path, its size and the time of its last change."""
    status = os.stat(path)
    return sha256(
        os.fsencode(os.path.realpath(path)) + f"\0{status.st_size}\0{status.st_mtime_ns}".encode()
    ).digest()


class Store:
    """Descriptors, float32 (D,), and local features, float16 (C, GRID, GRID), of photos in one SQLite file; what was put stays when a run is killed."""

    def __init__(self, path):
        self.path = Path(path)
        with self._said():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.file = sqlite3.connect(self.path, timeout=60)
            self.file.execute(
                "CREATE TABLE IF NOT EXISTS photos (key BLOB PRIMARY KEY, descriptor BLOB, local BLOB)"
            )

    def has(self, name):
        with self._said():
            return (
                self.file.execute("SELECT 1 FROM photos WHERE key = ?", (name,)).fetchone()
                is not None
            )

    def put(self, names, descriptors, local):
        with self._said(), self.file:
            self.file.executemany(
                "INSERT OR REPLACE INTO photos VALUES (?, ?, ?)",
                [(n, d.tobytes(), x.tobytes()) for n, d, x in zip(names, descriptors, local)],
            )

    def descriptors(self, names):
        """float32 (N, D) of the photos with these keys."""
        return np.stack(
            [np.frombuffer(self._get("descriptor", name), np.float32) for name in names]
        )

    def local(self, names):
        """float16 (N, C, GRID, GRID)."""
        return np.stack(
            [
                np.frombuffer(self._get("local", name), np.float16).reshape(-1, GRID, GRID)
                for name in names
            ]
        )

    def _get(self, column, name):
        with self._said():
            return self.file.execute(
                f"SELECT {column} FROM photos WHERE key = ?", (name,)
            ).fetchone()[0]

    @contextmanager
    def _said(self):
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise VgeoError(
                f"{self.path}: can't be used ({error}): free some space, make its folder writable, or remove the file to describe all again"
            ) from error
