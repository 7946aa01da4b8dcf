"""The time left of a run, from what an earlier run of the same results took.

The record of a released run, `results/city/run.json` of the clone, says what each notebook and its
steps took. For a run that is not released, `python -m vgeo.runner.expected runs/smoke` writes that
into `results/expected.json`. Both lie outside the package: a changed file of the package makes
every notebook be executed again.
"""

import argparse
import json
import os
import re
from collections.abc import Iterable
from pathlib import Path

from vgeo import files
from vgeo.errors import VgeoError
from vgeo.report.section import SEEDS_IN
from vgeo.runner.record import BEFORE, read
from vgeo.study.folders import clone
from vgeo.study.study import Study

Parts = dict[str, dict[str, list]]  # {notebook or BEFORE: {name: [how many steps, seconds of all]}}

EXPECTED = "expected.json"
OTHER = "other"  # stands for what a notebook does outside its steps
MATERIAL = 0.05  # the share of a run's expected seconds below which nothing can be said
# Kinds of steps, and beginnings of models' labels, that are made anew for every seed.
SEEDED = ("views", "mined", "soups", "descriptors", "predictions", "pairs", "train ", "soup of ")


def name_of(step: dict) -> str:
    """The name under which the seconds of a step are added up.

    It is the label of a model, without its seed. Of other steps it is the kind, because their
    labels hold hashes and counts that differ between runs.
    """
    return re.sub(r", seed \d+$", "", step["label"]) if step["kind"] == "models" else step["kind"]


def parts_of(content: dict) -> Parts:
    """What each part of a run took, from its `run.json`.

    A step belongs to the first notebook that used it. Its seconds contain those of the steps inside
    it. They are scaled to what the notebook's steps of that kind took without the steps inside
    them. Of a step that the run found in the cache the seconds stay as they are.
    """
    parts: Parts = {}
    for part, times in content["notebooks"].items():
        own = {kind: seconds for kind, seconds in times.items() if kind != "seconds"}
        names: dict[str, list] = {OTHER: [1, max(times["seconds"] - sum(own.values()), 0.0)]}
        steps = [step for step in content["steps"].values() if _maker(step) == part]
        whole: dict[str, float] = {}
        for step in steps:
            whole[step["kind"]] = whole.get(step["kind"], 0.0) + step["seconds"]
        for step in steps:
            kind, entry = step["kind"], names.setdefault(name_of(step), [0, 0.0])
            scale = own[kind] / whole[kind] if kind in own and whole[kind] else 1.0
            entry[0] += 1
            entry[1] += step["seconds"] * scale
        parts[part] = {name: [n, round(seconds, 2)] for name, (n, seconds) in names.items()}
    return parts


def _maker(step: dict) -> str:
    """The first part of a run that used a step."""
    return BEFORE if BEFORE in step["notebooks"] else min(step["notebooks"])


def write(run: str | os.PathLike, results: Path | None = None) -> None:
    """Writes what a run took into `results/expected.json`, under the name of the run's folder.

    Raises VgeoError where the folder has no record of a run, or where the run found steps in the
    cache, because the seconds of those contain others'.
    """
    path, content = (results or clone() / "results") / EXPECTED, read(Path(run) / "run.json")
    for step in content["steps"].values():
        if step["kind"] not in content["notebooks"][_maker(step)]:
            raise VgeoError(
                f"{run}: found {step['label']!r} in the cache: give a run that began with an empty "
                "cache"
            )
    new = {Path(run).resolve().name: _entry(content)}
    files.write(path, json.dumps(dict(sorted((_read(path) | new).items())), indent=1) + "\n")


def expected(study: Study, results: Path | None = None) -> Parts:
    """What each part of a study's run is expected to take, on the machine of the earlier run.

    Empty where no run of these results with this image size is known. `Remaining` learns this
    machine's speed. The notebook SEEDS_IN makes the steps of SEEDED anew for each further seed.

    Parameters
    ----------
    results : the folder of released runs and of `expected.json`, by default the clone's.
    """
    results, name = results or clone() / "results", study.results.name
    released = results / name / "run.json"
    entry = _entry(read(released)) if released.exists() else _read(results / EXPECTED).get(name, {})
    if entry.get("image_size") != study.profile.image_size:
        return {}
    seeds, known, parts = len(study.profile.seeds), entry["seeds"], entry["parts"]
    if seeds == known:
        return parts
    further = parts.setdefault(SEEDS_IN, {})
    of_one: dict[str, list] = {}  # what one further seed takes, or the first where there was none
    for part in [further] if known > 1 else list(parts.values()):
        for name in [name for name in part if name.startswith(SEEDED)]:
            count, seconds = of_one.get(name, (0, 0.0))
            share = max(known - 1, 1)
            of_one[name] = [count + part[name][0] / share, seconds + part[name][1] / share]
    for name, (count, seconds) in of_one.items():
        found = further.pop(name, [0, 0.0])
        first = found if known == 1 else [0, 0.0]
        number = first[0] + round(count * (seeds - 1))
        if number:
            further[name] = [number, first[1] + seconds * (seeds - 1)]
    return parts


def _entry(content: dict) -> dict:
    """What is kept of a run: what it was of, and what it took, from its `run.json`."""
    of = {"image_size": content["image_size"], "seeds": len(content["seeds"])}
    return of | {"parts": parts_of(content)}


def _read(path: Path) -> dict:
    """The file's entries; none where it is not there or damaged, because a run can do without."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


class Remaining:
    """What is left of a run.

    The speed of this machine is learnt from the steps that the run made, and from the time of its
    notebooks outside steps. A step that is found in the cache leaves the rest and teaches nothing.

    Parameters
    ----------
    parts : what is expected of the parts that are executed, see `expected`.
    seen : keys of the steps that are known to be in the cache.
    begun : keys of the steps that a stopped run had begun. They may take less than expected.
    """

    def __init__(self, parts: Parts, seen: Iterable[str] = (), begun: Iterable[str] = ()):
        self.rest = {part: dict(names) for part, names in parts.items()}
        self.seen, self.begun = set(seen), set(begun)
        self.total = self._seconds()
        self.made = self.found = 0.0  # expected seconds of steps
        self.known = self.spent = 0.0  # expected seconds and those of this machine, for its speed

    def add(self, part: str, line: dict) -> bool:
        """Takes a journal line of a step that was made or found out of the rest.

        False where the run had the step already.
        """
        if line["key"] in self.seen:
            return False
        self.seen.add(line["key"])
        names, name = self._where(part, name_of(line)), name_of(line)
        if names:
            count, seconds = names[name]
            names[name] = [count - 1, seconds * (count - 1) / count]
            if line["event"] == "made" and line["key"] not in self.begun:
                self.made += seconds / count
                self._learn(seconds / count, line["own"])
            else:
                self.found += seconds / count
        return True

    def end(self, part: str, other: float) -> None:
        """Takes a finished part out of the rest.

        Parameters
        ----------
        other : seconds that the part took outside its steps.
        """
        if part in self.rest:
            self._learn(self.rest.pop(part)[OTHER][1], other)

    def steps(self, part: str) -> int:
        """How many steps of a part are expected to come."""
        return sum(count for name, (count, _) in self.rest.get(part, {}).items() if name != OTHER)

    def left(self, part: str, running: list[dict], seconds: float) -> float | None:
        """Seconds left, of the whole run; None while too little was made to know them.

        Parameters
        ----------
        running : journal lines of the steps that are being made.
        seconds : those of the part that belong to no finished step.
        """
        if not self.known or self.made < MATERIAL * self.total:
            return None
        now = self.rest.get(part, {}).get(OTHER, [1, 0.0])[1]
        for line in running:
            names = self._where(part, name_of(line))
            if names:
                count, whole = names[name_of(line)]
                now += whole / count
        speed = self.spent / self.known
        return max(speed * self._seconds() - min(seconds, speed * now), 0.0)

    @property
    def at_most(self) -> bool:
        """Whether so much was found in the cache that more may be."""
        return self.found > MATERIAL * self.total

    def _learn(self, expected: float, seconds: float) -> None:
        self.known += expected
        self.spent += seconds

    def _seconds(self) -> float:
        return sum(seconds for names in self.rest.values() for _, seconds in names.values())

    def _where(self, part: str, name: str) -> dict[str, list] | None:
        """The part that such a step is expected in: this one, or else the first one after it."""
        parts = [self.rest.get(part, {}), *self.rest.values()]
        return next((names for names in parts if names.get(name, [0])[0]), None)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description="Writes what a run took into results/expected.json."
    )
    parser.add_argument("run", help="the folder of the run")
    write(parser.parse_args().run)
