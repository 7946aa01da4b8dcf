"""Runs the study: every notebook in order and the page of them all, or only the computing."""

import shutil
import subprocess
import sys
import time
from pathlib import Path

import torch

from vgeo.device import is_first
from vgeo.errors import VgeoError
from vgeo.report.page import write_page
from vgeo.runner.execute import execute
from vgeo.runner.expected import expected
from vgeo.runner.progress import Progress
from vgeo.runner.record import BEFORE, Record, backbones
from vgeo.runner.unchanged import (
    PAGE,
    Unchanged,
    notebooks_of,
    parameters_of,
    print_end,
    print_skipped,
)
from vgeo.study.cache import lock
from vgeo.study.rows import TABLES, TRAININGS
from vgeo.study.study import Study


def run_study(profile: str, data=None, image_size=None, seeds=None, start=None) -> None:
    """Executes every notebook of the study that is not unchanged, then writes the page of them all.

    Prints a line for each notebook and where the results are. Of two runs that write the same
    folder the second waits, and then skips what the first made.

    Parameters
    ----------
    profile, data, image_size, seeds, start : as `study.study.Study` takes them.

    Raises
    ------
    VgeoError : see `execute`; or the disk has no room, or a backbone has no starting weights.
    """
    study = Study(profile, data, image_size, seeds, start)
    parameters = parameters_of(profile, data, image_size, seeds, start)
    run_notebooks(study, parameters, notebooks_of())


def run_notebooks(study: Study, parameters: dict, notebooks: list[Path]) -> None:
    """`run_study` for a study and a list of notebooks."""
    results = study.results
    words = f"{results}: another run writes it; waits for it"
    try:
        with lock(study.cache.root, f"run-{results.name}", words):
            _run(study, parameters, notebooks)
    except OSError as error:
        error.filename = error.filename or str(results)  # a full disk names no file
        raise


def _run(study: Study, parameters: dict, notebooks: list[Path]) -> None:
    began, results = time.perf_counter(), study.results
    unchanged = Unchanged(results, parameters)
    first = unchanged.count([*notebooks, PAGE])
    print_skipped(notebooks[:first])
    if first < len(notebooks):
        check_room(study)
        skipped = [BEFORE, *(path.stem for path in notebooks[:first])] if first else []
        record = Record(results / "run.json", skipped)
        stems = [path.stem for path in notebooks]
        executed = {BEFORE, *stems} - set(skipped)
        parts = {name: part for name, part in expected(study).items() if name in executed}
        progress = Progress(study.cache.journal, stems, parts, record.content["steps"])
        _prepare(study, parameters, record, progress)
        for number, notebook in enumerate(notebooks[first:], first):
            start, output = time.perf_counter(), results / "notebooks" / notebook.name
            with progress.part(notebook.stem) as lines:
                made = execute(notebook, output, parameters, results)
            seconds = time.perf_counter() - start
            record.add(notebook.stem, seconds, lines)
            unchanged.add(notebook, number, [*made, f"notebooks/{notebook.name}"])
            print(f"{notebook.stem}: {seconds:.0f} s", flush=True)
    if first <= len(notebooks):
        write_page(results)
        unchanged.add(PAGE, len(notebooks), [PAGE.name])
    print_end(results, f"done in {(time.perf_counter() - began) / 60:.1f} minutes")


def _prepare(study: Study, parameters: dict, record: Record, progress: Progress) -> None:
    """Makes what comes before the notebooks: the backbones' starts, the rendered city, and on
    several GPUs everything that the notebooks compute, because a notebook has one GPU.
    """
    start = time.perf_counter()
    with progress.part(BEFORE) as lines:
        check_starts(study)
        record.describe(study)
        if torch.cuda.device_count() > 1:
            share(torch.cuda.device_count(), **parameters)
    if any(line["event"] == "made" for line in lines):
        record.add(BEFORE, time.perf_counter() - start, lines)


def check_room(study: Study) -> None:
    """Raises VgeoError where the disk's free space, beside what the cache holds, is too little.

    A further seed takes about half as much space as the first.
    """
    root, gigabyte = study.cache.root, 1e9
    needed = study.profile.disk_gb * (1 + len(study.profile.seeds)) / 2
    held = sum(path.stat().st_size for path in root.rglob("*") if path.is_file()) / gigabyte
    place = next(folder for folder in (root, *root.parents) if folder.exists())
    free = shutil.disk_usage(place).free / gigabyte
    if needed - held > free:
        raise VgeoError(
            f"{root}: the run needs {needed:.1f} GB of disk, of which {held:.1f} GB are there and "
            f"{free:.1f} GB are free: free some space, or clone where there is more"
        )


def check_starts(study: Study) -> None:
    """Finds or downloads the starting weights of every backbone, before anything takes long.

    Raises VgeoError where that fails.
    """
    for backbone in backbones():
        study.descriptions.hash(study.trainings.given(backbone))


def compute(
    profile: str, data=None, image_size=None, seeds=None, start=None, evaluates: bool = True
) -> None:
    """Makes every training of a profile and prints a line for each.

    The processes that torchrun starts share the work of each training, and of describing and
    re-ranking. A later run of the notebooks finds all of it in the cache.

    Parameters
    ----------
    profile, data, image_size, seeds, start : as `study.study.Study` takes them.
    evaluates : also makes the predictions that all tables are computed from.
    """
    study = Study(profile, data, image_size, seeds, start)
    if is_first():
        check_room(study)
    check_starts(study)
    for seed in study.profile.seeds:
        for name in TRAININGS:
            print(f"{name}, seed {seed}: {study.train(name, seed).weights}", flush=True)
        for number, rows in TABLES.items() if evaluates else ():
            results = study.evaluate(rows, seed)
            count = sum(len(by_dataset) for by_dataset in results.values())
            print(f"table {number}, seed {seed}: {count} rows on data sets", flush=True)


def share(processes: int, profile: str, **options) -> None:
    """Calls `compute` in so many processes of this machine. Raises VgeoError when one of them
    fails.
    """
    named = {f"--{name.replace('_', '-')}": value for name, value in options.items()}
    words = [str(w) for pair in named.items() if pair[1] is not None for w in pair]
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    command = [sys.executable, "-P", *torchrun, "-m", "vgeo", "evaluate", profile, *words]
    if subprocess.run(command).returncode:
        raise VgeoError(
            f"one of {processes} processes failed, for the reason above: correct that, and the "
            "same command goes on from here"
        )
