"""The record of a run, `run.json`: what its results were made of, and what each step took."""

import json
import platform
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path

import vgeo
from vgeo import files
from vgeo.errors import VgeoError
from vgeo.models.weights import weights_hash
from vgeo.report.findings import START
from vgeo.report.provenance import commit_of
from vgeo.study.costs import machine
from vgeo.study.folders import clone
from vgeo.study.rows import TRAININGS
from vgeo.study.study import Study

BEFORE = "before"  # stands for what is made before the first notebook
PACKAGES = (
    "torch",
    "torchvision",
    "faiss-cpu",
    "numpy",
    "scipy",
    "pandas",
    "opencv-python-headless",
    "pillow",
    "numba",
    "kornia",
    "scikit-learn",
)


class Record:
    """The content of a `run.json`. Every change is written at once, as a whole file.

    - "notebooks": {notebook: {"seconds": wall time, kind of step: seconds of those it made}}.
      BEFORE stands for what was made before the first notebook.
    - "steps": {key: {"kind", "label", "seconds", "notebooks": which of them used it, "weights":
      {file: hash of its weights} where it holds a model}}.
    - every other entry describes the whole run.

    Parameters
    ----------
    path : the file. A damaged one is written anew.
    keep : the entries of "notebooks" that are still right. All others are forgotten.
    """

    def __init__(self, path: Path, keep: Iterable[str] = ()):
        self.path, kept = path, set(keep)
        try:
            before = read(path) if path.exists() else {}
        except VgeoError:
            before = {}
        notebooks = before.get("notebooks", {}).items()
        self.content: dict = {
            "notebooks": {name: times for name, times in notebooks if name in kept},
            "steps": before.get("steps", {}),
        }
        for name in {name for step in self.content["steps"].values() for name in step["notebooks"]}:
            if name not in kept:
                self._forget(name)

    def describe(self, study: Study) -> None:
        """Records the run's profile, commit, data, starting weights, versions and machine.

        The commit is the one at the beginning of the last call of `vgeo run` that executed a
        notebook. Notebooks that it skipped may be of another: `sections/*.json` have each one's.
        """
        p, classes = study.profile, study.data.classes
        train = f"{len(classes.photos)} images, {classes.count} classes, group {classes.group}"
        starts = {name: weights_hash(study.start(name).weights) for name in backbones()}
        versions = {name: version(name) for name in PACKAGES}
        header = {
            "profile": p.name,
            **commit_of(clone()),
            "image_size": p.image_size,
            "test_size": p.test_size or "their own",
            "seeds": list(p.seeds),
            "start": start_of(study),
            "data": study.data.identities() | {"train": train},
            "starting_weights": starts,
            "versions": {"vgeo": vgeo.__version__, "python": platform.python_version()} | versions,
            "machine": {name: value for name, value in machine().items() if name != "name"},
        }
        self.content = header | {name: self.content[name] for name in ("notebooks", "steps")}
        self._save()

    def add(self, notebook: str, seconds: float, lines: list[dict]) -> None:
        """Records a notebook that has been executed.

        Parameters
        ----------
        seconds : wall time.
        lines : what the notebook added to the cache's journal.
        """
        self._forget(notebook)
        times = {"seconds": round(seconds, 2)}
        for line in lines:
            if line["event"] == "made":
                own = times.get(line["kind"], 0.0) + line["own"]
                times[line["kind"]] = round(own, 2)
            if line["event"] != "begin":
                self._add_step(notebook, line)
        notebooks = self.content["notebooks"] | {notebook: times}
        order = sorted(notebooks, key=lambda name: (name != BEFORE, name))
        self.content["notebooks"] = {name: notebooks[name] for name in order}
        self._save()

    def _add_step(self, notebook: str, line: dict) -> None:
        step = {"kind": line["kind"], "label": line["label"], "seconds": line["seconds"]}
        weights = sorted(Path(line["folder"]).glob("*.safetensors"))
        if weights:
            step["weights"] = {path.stem: weights_hash(path) for path in weights}
        users = self.content["steps"].get(line["key"], {}).get("notebooks", [])
        step["notebooks"] = sorted({*users, notebook})
        self.content["steps"][line["key"]] = step

    def _forget(self, notebook: str) -> None:
        """Removes a notebook, and the steps that no other notebook uses."""
        self.content["notebooks"].pop(notebook, None)
        for key, step in list(self.content["steps"].items()):
            step["notebooks"] = [name for name in step["notebooks"] if name != notebook]
            if not step["notebooks"]:
                del self.content["steps"][key]

    def _save(self) -> None:
        files.write(self.path, json.dumps(self.content, indent=2) + "\n")


def backbones() -> list[str]:
    """The backbones of the study's trainings."""
    return sorted({row.backbone for row in TRAININGS.values()})


def start_of(study: Study) -> str:
    """What the trainings start from, in words."""
    by_source: dict[str, list[str]] = {}
    for name in backbones():
        by_source.setdefault(study.trainings.source(name), []).append(name)
    words = "; ".join(
        f"{START[source]} ({', '.join(names)})" for source, names in by_source.items()
    )
    return words + ("; head whitened on training photos" if study.profile.whitens_head else "")


def read(path: Path) -> dict:
    """The content of a `run.json`.

    Raises
    ------
    VgeoError : it is not there, damaged, or not a record of a run.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise VgeoError(f"{path}: is no record of a run ({error}): run the study again") from None
    if not isinstance(content, dict) or not {"notebooks", "steps"} <= content.keys():
        raise VgeoError(f"{path}: is no record of a run: run the study again")
    return content
