"""TODO: training.checkpoint."""

import os
import zipfile
from copy import deepcopy
from pathlib import Path

import torch

from vgeo.errors import say


class Checkpoint:
    """What a stopped training goes on from: the parts' states and a few plain values, in one file that is replaced whole."""

    def __init__(self, path, **parts):
        self.path, self.parts = Path(path), parts

    def load(self):
        """Puts the parts back and returns the values that were saved, or {} when there is no checkpoint, or, which is said, none that can be used."""
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
        except (
            Exception
        ) as error:  # neither torch.load nor load_state_dict names types for what it can't take
            say(f"{self.path}: can't be used ({type(error).__name__}): starts this training again")
            self.path.unlink()
            for name, part in self.parts.items():
                part.load_state_dict(before[name])
            return {}

    def save(self, **values):
        """values: numbers, strings, lists and dicts of them, tensors."""
        temporary = self.path.with_suffix(".tmp")
        torch.save(
            {
                "parts": {name: part.state_dict() for name, part in self.parts.items()},
                "values": values,
            },
            temporary,
        )
        os.replace(temporary, self.path)
