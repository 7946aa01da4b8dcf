"""Where a table or a figure comes from: its notebook, the commit, and the recipes of its models."""

import os
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vgeo.study.cache import read_journal

SOURCES = ("vgeo", "notebooks", "pyproject.toml", "constraints.txt")  # what results depend on
KINDS = ("data", "models", "soups")  # of the cache's steps: what all others are made from


@dataclass(frozen=True)
class Provenance:
    """What one table or figure was made from.

    Attributes
    ----------
    notebook : path of the notebook in the clone.
    commit : 40 hex digits of the clone's commit; None where git or its repository is missing.
    dirty : whether one of SOURCES differed from the commit; None without a commit.
    recipes : the photos and models that the notebook had used by then, each as
        "kind/key: label". `recipe.json` in that folder of the cache holds the recipe.
    """

    notebook: str
    commit: str | None
    dirty: bool | None
    recipes: tuple[str, ...] = ()

    def __str__(self) -> str:
        commit = f"commit {self.commit[:12]}" if self.commit else "an unknown commit"
        words = f"{self.notebook}, {commit}{' (dirty)' if self.dirty else ''}"
        return f"{words}; recipes: {', '.join(self.recipes)}" if self.recipes else words

    def as_json(self) -> dict[str, Any]:
        """The attributes as JSON values."""
        return asdict(self) | {"recipes": list(self.recipes)}


def commit_of(root: str | os.PathLike) -> dict[str, Any]:
    """The commit of a clone.

    Returns
    -------
    {"commit", "dirty"}, as in `Provenance`. Untracked files among SOURCES make a clone dirty too.
    """
    commit = _git(root, "rev-parse", "HEAD")
    if not commit:
        return {"commit": None, "dirty": None}
    return {"commit": commit, "dirty": bool(_git(root, "status", "--porcelain", "--", *SOURCES))}


def recipes_since(journal: Path, offset: int) -> tuple[str, ...]:
    """The steps of KINDS that a cache's journal has from a byte offset on, by kind and label."""
    lines = [line for line in read_journal(journal, offset)[0] if line["kind"] in KINDS]
    used = sorted({(line["kind"], line["label"], line["key"]) for line in lines})
    return tuple(f"{kind}/{key}: {label}" for kind, label, key in used)


def _git(root: str | os.PathLike, *words: str) -> str | None:
    """What git prints, None where it fails. It takes no lock: the clone may be in use."""
    command = ["git", "--no-optional-locks", "-C", str(root), *words]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
