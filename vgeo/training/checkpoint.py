"""The file that a stopped training goes on from."""

import zipfile
from copy import deepcopy
from pathlib import Path

import torch

from vgeo.errors import say
from vgeo.files import replacing


class Checkpoint:
    """The states of modules and optimizers and a few plain values, in one file replaced whole.

    Parameters
    ----------
    path : the file.
    parts : modules and optimizers by name.
    """

    def __init__(self, path: Path, **parts):
        self.path, self.parts = Path(path), parts

    def load(self) -> dict:
        """Puts the parts' states back and returns the values that were saved with them.

        Returns {} where there is no checkpoint. A file that can't be used is named and removed, the
        parts keep the states they had, and {} is returned.
        """
        if not self.path.exists():
            return {}
        before = {name: deepcopy(part.state_dict()) for name, part in self.parts.items()}
        try:
            with zipfile.ZipFile(
                self.path
            ) as file:  # torch.save stores checksums, torch.load compares none
                if name := file.testzip():
                    raise ValueError(f"{name} is damaged")
            saved = torch.load(self.path, map_location="cpu", weights_only=True)
            for name, part in self.parts.items():
                part.load_state_dict(saved["parts"][name])
            return saved["values"]
        except Exception as error:  # neither names types for what it can't take
            say(f"{self.path}: can't be used ({type(error).__name__}): starts this training again")
            self.path.unlink()
            for name, part in self.parts.items():
                part.load_state_dict(before[name])
            return {}

    def save(self, **values) -> None:
        """Writes the parts' states and values: numbers, str, tensors, lists and dicts of them."""
        parts = {name: part.state_dict() for name, part in self.parts.items()}
        with replacing(self.path) as temporary:
            torch.save({"parts": parts, "values": values}, temporary)

    def remove(self) -> None:
        """Removes the file, and what a process killed while it saved has left beside it."""
        for path in (self.path, *self.path.parent.glob(f".{self.path.name}.*.tmp")):
            path.unlink(missing_ok=True)
