"""Executes the numbered notebooks with papermill, and fails where papermill would not."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import papermill
import torch
from jupyter_client.kernelspec import NoSuchKernel
from nbclient.exceptions import DeadKernelError
from papermill.exceptions import PapermillExecutionError
from traitlets.config import Config

from vgeo.errors import VgeoError
from vgeo.report.page import write_page
from vgeo.runner.progress import Passed, watching
from vgeo.runner.unchanged import Kept, notebooks_of, page, parameters_of, say_kept, say_where
from vgeo.study.cache import alone
from vgeo.study.needs import check_room
from vgeo.study.rows import TABLES, TRAININGS
from vgeo.study.study import Study

CONFIG = Config(
    {
        "KernelManager": {
            "transport_encryption": "auto"
        },  # what passes between a kernel and this process
        "NotebookClient": {
            "shutdown_kernel": "immediate"
        },  # Ctrl-C: a kernel that is asked to end goes on for seconds, and says so with a trace
    }
)


def execute(notebook, output, parameters, results):
    """Runs a notebook file with the parameters and stores it executed at `output`.

    Its metadata name what it must leave: `{"vgeo": {"results": ["tables/table_01.csv", ...]}}`, under the folder `results`. Raises VgeoError
    for a parameter the notebook does not have, an error in a cell (the message alone where it is a VgeoError), a kernel that died, a cell
    that never ran and a result that is missing or older than this run.
    """
    notebook, output = Path(notebook), Path(output)
    try:
        known = papermill.inspect_notebook(str(notebook))
    except nbformat.reader.NotJSONError:
        raise VgeoError(f"{notebook}: is damaged, not a notebook: copy it again") from None
    for name in parameters:
        if name not in known:
            raise VgeoError(
                f"{notebook.name}: has no parameter {name!r}, only {', '.join(known) or 'none'}: correct the name"
            )
    output.parent.mkdir(parents=True, exist_ok=True)
    began = time.time()
    try:
        papermill.execute_notebook(
            str(notebook),
            str(output),
            parameters,
            cwd=str(notebook.parent),
            progress_bar=False,
            log_output=False,
            stdout_file=Passed(),
            config=CONFIG,
        )
    except PapermillExecutionError as error:
        if error.ename == "VgeoError":
            raise VgeoError(error.evalue) from None
        value = " ".join(error.evalue.split())
        raise VgeoError(
            f"{notebook.name}: cell {error.exec_count} failed with {error.ename}: {value} (the whole trace is in {output})"
        ) from None
    except NoSuchKernel as error:
        raise VgeoError(
            f"{notebook.name}: wants the kernel {error.name!r}: give it the kernel python3 in JupyterLab"
        ) from None
    except DeadKernelError:
        raise VgeoError(
            f"{notebook.name}: its kernel died, as when memory runs out: close other programs and run it again"
        ) from None
    executed = nbformat.read(output, as_version=4)
    for name in ("input_path", "output_path"):  # folders of one machine say nothing to another
        executed.metadata.get("papermill", {}).pop(name, None)
    nbformat.write(executed, output)
    code = [cell for cell in executed.cells if cell.cell_type == "code" and cell.source.strip()]
    for number, cell in enumerate(code, 1):
        stopped = any(
            out.output_type == "error" for out in cell.outputs
        )  # SystemExit stops a cell, and papermill lets it pass
        if cell.execution_count is None or stopped:
            raise VgeoError(f"{notebook.name}: cell {number} never ran to its end: see {output}")
    for name in executed.metadata.get("vgeo", {}).get("results", []):
        made = Path(results) / name
        if not made.exists() or made.stat().st_mtime < began - 2:
            raise VgeoError(f"{notebook.name}: did not make {made}: see {output}")
    return executed


def ahead(profile, data=None, image_size=None, seeds=None, evaluates=True):
    """Makes every training of a profile and, with `evaluates`, what all tables are computed from; prints a line for each.

    The processes that torchrun starts share every training, and the describing and comparing of images. A run of the notebooks then finds
    all of it made.
    """
    study = Study(profile, data, image_size, seeds)
    check_room(study)
    for seed in study.profile.seeds:
        for name in TRAININGS:
            print(f"{name}, seed {seed}: {study.train(name, seed)}", flush=True)
        for number in TABLES if evaluates else ():
            table, _ = study.table(number, seed)
            print(
                f"table {number}, seed {seed}: {table['value'].notna().sum()} of {len(table)} cells",
                flush=True,
            )


def share(processes, profile, data=None, image_size=None, seeds=None):
    """`ahead` by so many processes of this machine. Raises VgeoError when one of them fails."""
    asked = {"--data": data, "--image-size": image_size, "--seeds": seeds}
    words = [
        word
        for option, value in asked.items()
        if value is not None
        for word in (option, str(value))
    ]
    done = subprocess.run(
        [
            sys.executable,
            "-P",
            "-m",
            "torch.distributed.run",
            "--standalone",
            "--nproc-per-node",
            str(processes),
            "-m",
            "vgeo",
            "evaluate",
            profile,
            *words,
        ]
    )
    if done.returncode:
        raise VgeoError(
            f"one of {processes} processes failed, for the reason above: put that right, and the same command goes on from here"
        )


def run_study(profile, data=None, image_size=None, seeds=None):
    """Every notebook of `notebooks/` in order for a profile, from the first that is not `kept`, and the page of them all; prints a line
    for each and where the results lie. Of two runs for one folder of results the second waits, and then finds what the first made."""
    study, parameters, notebooks = (
        Study(profile, data, image_size, seeds),
        parameters_of(profile, data, image_size, seeds),
        notebooks_of(),
    )
    with alone(
        study.cache,
        f"run-{study.results.name}",
        f"{study.results}: another run writes it; waits for it",
    ):
        try:
            _run(study, parameters, notebooks)
        except OSError as error:
            error.filename = error.filename or str(study.results)  # a full disk names no file
            raise


def _run(study, parameters, notebooks):
    began = time.perf_counter()
    check_room(study)  # which renders the city, where it has to be
    rendered, kept = time.perf_counter() - began, Kept(study.results, parameters)
    first = kept.of([*notebooks, page()])
    say_kept(notebooks[:first])
    if torch.cuda.device_count() > 1 and first < len(notebooks):  # a notebook has one GPU
        share(torch.cuda.device_count(), **parameters)
    for number, notebook in enumerate(notebooks[first:], first):
        start = time.perf_counter()
        print(f"{notebook.stem} ...", flush=True)
        with kept.executing(notebook, number):
            with watching(study.now):
                execute(
                    notebook, study.results / "notebooks" / notebook.name, parameters, study.results
                )
            seconds = time.perf_counter() - start
            add_seconds(study.results / "run.json", notebook.stem, seconds)
            if study.made:
                add_seconds(study.results / "run.json", "before", rendered, study.made)
                study.made.clear()
        print(f"{notebook.stem}: {seconds:.0f} s", flush=True)
    if first <= len(notebooks):
        with kept.executing(page(), len(notebooks)):
            write_page(study.results)
    say_where(study.results, f"done in {(time.perf_counter() - began) / 60:.1f} minutes")


def add_seconds(path, name, seconds, made=None):
    """Puts under "notebooks" of a run.json what a notebook took, and what of that each kind of step that it made, by default as `write_run` left it."""
    record = json.loads(path.read_text())
    made = (
        record.pop("made", {})
        if made is None
        else {step: round(seconds, 2) for step, seconds in made.items()}
    )
    record["notebooks"] = dict(
        sorted(
            (record.get("notebooks", {}) | {name: {"seconds": round(seconds, 2)} | made}).items()
        )
    )
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    temporary.write_text(json.dumps(record, indent=2) + "\n")
    os.replace(temporary, path)
