"""A run of nothing new does nothing: which notebooks were executed from exactly what is there now, and left what is there now.

Imports nothing that takes long: to find a study unchanged takes a second, to import what it is made of takes many.
"""

import hashlib
import json
import os
import platform
import sys
from contextlib import contextmanager
from pathlib import Path

import psutil

from vgeo.study.profiles import results_of

ROOT = Path(__file__).resolve().parents[1]  # of the repository


class Kept:
    """The record of a study's executed notebooks, `results/cache/kept-<results>.json`; it goes with the cache, so a fresh clone keeps nothing.

    A notebook is kept where its file, the parameters, every file of the package, the installed packages, the machine, the photos and the
    artefacts in the cache are those it was executed with; all that it wrote is there with the same content, `run.json` too; and all notebooks
    before it are kept, since it may read what they wrote. Photos and artefacts are compared by their names, sizes and times, the rest by content.
    """

    def __init__(self, results, parameters, root=ROOT):
        """results: the study's folder; parameters: those of its notebooks, `data` the folder of photos or None."""
        self.root, self.results, self.parameters = root, Path(results), parameters
        self.cache = root / "results" / "cache"
        self.file = self.cache / f"kept-{self.results.name}.json"
        self.made_of = self._made_of()
        self.executed = []  # {"name", "source", "files"} of each notebook, in order
        try:
            record = json.loads(self.file.read_text())
            if (record["made_of"], record["run"], record["artefacts"]) == (
                self.made_of,
                _sum(self.results / "run.json"),
                self._artefacts(),
            ):
                self.executed = record["executed"]
        except (
            OSError,
            ValueError,
            KeyError,
            TypeError,
        ):  # none yet, or a damaged one: nothing is kept
            pass

    def of(self, notebooks):
        """How many of the notebooks, a list of paths, are kept: the first so many."""
        for number, (notebook, record) in enumerate(zip(notebooks, self.executed)):
            as_it_was = {
                "name": notebook.name,
                "source": _sum(notebook),
                "files": {name: _sum(self.results / name) for name in record["files"]},
            }
            if record != as_it_was:
                return number
        return min(len(notebooks), len(self.executed))

    @contextmanager
    def executing(self, notebook, number):
        """Records what the notebook, the number-th from 0, leaves in the results while the block runs; nothing where something changed meanwhile."""
        source, before = _sum(notebook), _times(self.results)
        yield
        if (source, self.made_of) != (_sum(notebook), self._made_of()):
            self.made_of = None  # of this run nothing more is kept
        if self.made_of:
            wrote = sorted(
                name
                for name, time in _times(self.results).items()
                if before.get(name) != time and name != "run.json"
            )
            self.executed[number:] = [
                {
                    "name": notebook.name,
                    "source": source,
                    "files": {name: _sum(self.results / name) for name in wrote},
                }
            ]
            temporary = self.file.with_suffix(f".{os.getpid()}.tmp")
            temporary.write_text(
                json.dumps(
                    {
                        "made_of": self.made_of,
                        "run": _sum(self.results / "run.json"),
                        "artefacts": self._artefacts(),
                        "executed": self.executed,
                    },
                    indent=1,
                )
                + "\n"
            )
            os.replace(temporary, self.file)

    def _made_of(self):
        """SHA-256 of all that every notebook is made of."""
        package, data = Path(__file__).parents[1], self.parameters["data"]
        code = {
            str(path.relative_to(package)): _sum(path)
            for path in sorted(package.rglob("*"))
            if path.is_file() and "__pycache__" not in path.parts
        }
        installed = sorted(
            path.name for place in sys.path for path in Path(place).glob("*.dist-info")
        )
        flags = next((line for line in _lines("/proc/cpuinfo") if line.startswith("flags")), "")
        machine = [
            platform.node(),
            platform.machine(),
            os.cpu_count(),
            psutil.virtual_memory().total,
            flags,
            os.environ.get("CUDA_VISIBLE_DEVICES"),
            sorted(map(str, Path("/dev").glob("nvidia*"))),
        ]
        found = [
            self.parameters,
            code,
            sys.version,
            installed,
            machine,
            _times(data) if data else None,
        ]
        return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()

    def _artefacts(self):
        """SHA-256 of names, sizes and times of the files of all artefacts that run.json names."""
        steps = json.loads((self.results / "run.json").read_text())["steps"]
        folders = sorted(
            {folder for step in steps.values() for folder in self.cache.glob(f"*/{step['key']}")}
        )
        return hashlib.sha256(
            json.dumps([[str(folder), _times(folder)] for folder in folders]).encode()
        ).hexdigest()


def parameters_of(profile, data=None, image_size=None, seeds=None):
    """The parameters of a study's notebooks."""
    return {
        "profile": profile,
        "data": str(Path(data).resolve()) if data else None,
        "image_size": image_size,
        "seeds": seeds,
    }


def notebooks_of(root=ROOT):
    """The study's notebooks, in order."""
    return sorted((root / "notebooks").glob("[0-9]*.ipynb"))


def page():
    """What makes the page of all notebooks: recorded after them, as if it were the last."""
    return Path(__file__).parents[1] / "report" / "page.py"


def nothing_new(profile, data=None, image_size=None, seeds=None, root=ROOT):
    """Whether every notebook of a study is kept, and the page of them there; says so."""
    results, notebooks = results_of(profile, data, root), notebooks_of(root)
    steps = [*notebooks, page()]
    if Kept(results, parameters_of(profile, data, image_size, seeds), root).of(steps) < len(steps):
        return False
    say_kept(notebooks)
    say_where(results, "nothing to do")
    return True


def say_kept(notebooks):
    for notebook in notebooks:
        print(f"{notebook.stem}: unchanged, kept", flush=True)


def say_where(results, what):
    """Table 1, and where everything is."""
    print("\n" + (results / "tables" / "table_01.md").read_text())
    print(
        f"{what}; the whole report is {results / 'report.html'}; its tables, figures and notebooks lie beside it"
    )


def _sum(path):
    """SHA-256 of a file, None where there is none."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return None


def _times(folder):
    """{file below the folder: [bytes, time of its last change]}."""
    found = {}
    for where, _, names in os.walk(folder, followlinks=True):
        for name in sorted(names):
            path = os.path.join(where, name)
            try:
                status = os.stat(path)
                found[os.path.relpath(path, folder)] = [status.st_size, status.st_mtime_ns]
            except FileNotFoundError:  # a link to nowhere
                found[os.path.relpath(path, folder)] = None
    return found


def _lines(path):
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []
