"""Decides which notebooks of a run can be skipped.

A notebook is skipped when its inputs and its outputs are unchanged since it was executed, and all
notebooks before it are skipped too, because it may read what they wrote. Inputs are the notebook,
its parameters, the code of the package, the installed packages, the machine and the photos. This
module imports nothing that takes long, so that an unchanged run ends within a second.
"""

import json
import os
import platform
import sys
from pathlib import Path

from vgeo import files
from vgeo.study.folders import clone, results_of

MEMORY = ".executed.json"  # in the results folder
PAGE = Path("report.html")  # is made after all notebooks, as if it were the last of them


class Unchanged:
    """The record of a run's executed notebooks.

    Parameters
    ----------
    results : the folder of the run's results.
    parameters : of the notebooks; "data" is the folder of photos or None.
    package : the folder of the package's code.
    """

    def __init__(
        self,
        results: str | os.PathLike,
        parameters: dict,
        package: str | os.PathLike = files.PACKAGE,
    ):
        self.results = Path(results)
        self.inputs = _inputs(parameters, Path(package))
        self.executed: list[dict] = []  # {"name", "source", "files"} of each notebook, in order
        try:
            memory = json.loads((self.results / MEMORY).read_text())
            same = {"inputs": self.inputs, "run": _sum(self.results / "run.json")}
            if same == {name: memory[name] for name in same}:
                self.executed = memory["executed"]
        except (OSError, ValueError, LookupError, TypeError):  # none, or damaged: all is executed
            pass

    def count(self, notebooks: list[Path]) -> int:
        """How many of the notebooks can be skipped: the first so many."""
        for number, (notebook, before) in enumerate(zip(notebooks, self.executed)):
            if before != self._entry(notebook, before["files"]):
                return number
        return min(len(notebooks), len(self.executed))

    def add(self, notebook: Path, number: int, outputs: list[str]) -> None:
        """Records that a notebook, the one with the number, has just been executed.

        Parameters
        ----------
        outputs : the files that it left, relative to the results folder. `run.json` is recorded
            as well.
        """
        self.executed[number:] = [self._entry(notebook, outputs)]
        run = _sum(self.results / "run.json")
        memory = {"inputs": self.inputs, "run": run, "executed": self.executed}
        files.write(self.results / MEMORY, json.dumps(memory, indent=1) + "\n")

    def _entry(self, notebook: Path, outputs: list[str] | dict[str, str]) -> dict:
        sums = {name: _sum(self.results / name) for name in sorted(outputs)}
        source = None if notebook == PAGE else _sum(notebook)
        return {"name": notebook.name, "source": source, "files": sums}


def notebooks_of(root: Path | None = None) -> list[Path]:
    """The study's notebooks, in their order."""
    return sorted(((root or clone()) / "notebooks").glob("[0-9]*.ipynb"))


def parameters_of(profile: str, data=None, image_size=None, seeds=None, start=None) -> dict:
    """The parameters of the study's notebooks; `start` is None where it is the profile's own."""
    data = str(Path(data).resolve()) if data else None
    if start is not None:  # the profiles import torch
        from vgeo.study.profiles import profile as named

        start = start if start != named(profile).weights else None
    numbers = {"image_size": image_size, "seeds": seeds}
    return {"profile": profile, "data": data, **numbers, "start": start}


def nothing_new(profile: str, data=None, image_size=None, seeds=None, start=None) -> bool:
    """Whether a whole run can be skipped. Prints so."""
    parameters, notebooks = parameters_of(profile, data, image_size, seeds, start), notebooks_of()
    results = results_of(profile, data, parameters["start"])
    unchanged = Unchanged(results, parameters)
    if unchanged.count([*notebooks, PAGE]) <= len(notebooks):
        return False
    print_skipped(notebooks)
    print_end(results, "nothing to do")
    return True


def print_skipped(notebooks: list[Path]) -> None:
    """Prints a line for each notebook that is skipped."""
    for notebook in notebooks:
        print(f"{notebook.stem}: unchanged, skipped", flush=True)


def print_end(results: Path, what: str) -> None:
    """Prints Table 1 and where the results are."""
    print("\n" + (results / "tables" / "table_01.md").read_text())
    print(
        f"{what}; the report is {results / PAGE}, with its tables, figures and notebooks beside it"
    )


def _inputs(parameters: dict, package: Path) -> str:
    """SHA-256 of everything but the notebook itself that a notebook's results depend on."""
    paths = [path for path in sorted(package.rglob("*")) if "__pycache__" not in path.parts]
    names = [path.relative_to(package.parent).with_suffix("") for path in paths]
    modules = [".".join(name.parts) for path, name in zip(paths, names) if path.suffix == ".py"]
    inputs = {
        "parameters": parameters,
        "code": files.code_hash(*modules, package=package),
        "other": {str(p): _sum(p) for p in paths if p.is_file() and p.suffix != ".py"},
        "python": sys.version,
        "packages": sorted(p.name for place in sys.path for p in Path(place).glob("*.dist-info")),
        "machine": [platform.node(), platform.machine(), os.cpu_count(), _processor()],
        "gpus": [
            os.environ.get("CUDA_VISIBLE_DEVICES"),
            *sorted(map(str, Path("/dev").glob("nvidia*"))),
        ],
        "photos": _times(parameters["data"]) if parameters["data"] else None,
    }
    return files.key(inputs)


def _processor() -> str:
    """The instruction sets of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith("flags")), "")


def _sum(path: Path) -> str | None:
    """SHA-256 of a file, None where there is none."""
    try:
        return files.sha256(path)
    except OSError:
        return None


def _times(folder: str) -> dict[str, list[int] | None]:
    """{file below the folder: [bytes, time of its last change]}; None for a link to nowhere."""
    found: dict[str, list[int] | None] = {}
    for place, _, names in os.walk(folder, followlinks=True):
        for name in names:
            path = os.path.join(place, name)
            try:
                status = os.stat(path)
                found[os.path.relpath(path, folder)] = [status.st_size, status.st_mtime_ns]
            except FileNotFoundError:
                found[os.path.relpath(path, folder)] = None
    return found
