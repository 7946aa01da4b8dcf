"""Results on disk, keyed by everything that made them: a folder that exists is whole, a changed recipe finds no stale file."""

import hashlib
import json
import os
import shutil
import time
from contextlib import contextmanager
from pathlib import Path

import torch
from filelock import FileLock, Timeout

from vgeo.errors import VgeoError


def key(recipe):
    """16 hex digits of the SHA-256 of a recipe, a dict of JSON values."""
    return hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:16]


def artefact(root, step, recipe, make, resumes=False):
    """The folder `root/step/<key>` that `make(folder)` fills, made now or found.

    recipe: a dict of JSON values naming everything the content depends on; it is stored inside as `recipe.json`. `make` works in a folder
    beside the final one, which is renamed when it returns. With `resumes` that folder is kept after a stop, so that `make` finds in it what
    it had written; otherwise it starts empty. Of two processes that want the same folder one makes it and the other waits. Raises VgeoError
    when the place can't be written.
    """
    final = Path(root) / step / key(recipe)
    if final.exists():
        return final
    work = final.with_name(final.name + ".partial")
    try:
        with _alone(final):
            return final if final.exists() else _make(final, work, recipe, make, resumes)
    except OSError as error:
        if error.filename is None and error.errno is None:
            raise
        raise VgeoError(f"{work}: can't be written ({error.strerror}): free some space, or make the folder writable") from error


@contextmanager
def _alone(final):
    """Holds the lock of a folder; says so before it waits for another process. The system frees the lock of one that is killed."""
    place = final.parents[1] / "locks"
    place.mkdir(parents=True, exist_ok=True)
    lock = FileLock(place / f"{final.parent.name}-{final.name}")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print(f"{final}: another run is making it; waits for it", flush=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _make(final, work, recipe, make, resumes):
    if work.exists() and not resumes:
        shutil.rmtree(work)
    work.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    make(work)
    (work / "recipe.json").write_text(json.dumps(recipe, indent=2, sort_keys=True) + "\n")
    (work / "seconds").write_text(f"{time.perf_counter() - start:.2f}\n")
    os.replace(work, final)
    return final


def seconds(folder):
    """Wall time that an artefact's last, uninterrupted stretch took."""
    return float((folder / "seconds").read_text())


class Checkpoint:
    """What a stopped training goes on from: the parts' states and a few plain values, in one file that is replaced whole."""

    def __init__(self, path, **parts):
        self.path, self.parts = Path(path), parts

    def load(self):
        """Puts the parts back and returns the values that were saved, or {} when there is no checkpoint."""
        if not self.path.exists():
            return {}
        saved = torch.load(self.path, map_location="cpu", weights_only=True)
        for name, part in self.parts.items():
            part.load_state_dict(saved["parts"][name])
        return saved["values"]

    def save(self, **values):
        """values: numbers, strings, lists and dicts of them, tensors."""
        temporary = self.path.with_suffix(".tmp")
        torch.save({"parts": {name: part.state_dict() for name, part in self.parts.items()}, "values": values}, temporary)
        os.replace(temporary, self.path)
