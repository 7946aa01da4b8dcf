"""Executes the numbered notebooks with papermill, and fails where papermill would not."""

import threading
import time
from contextlib import contextmanager
from pathlib import Path

import nbformat
import papermill
from nbclient.exceptions import DeadKernelError
from papermill.exceptions import PapermillExecutionError
from traitlets.config import Config

from vgeo.errors import VgeoError
from vgeo.needs import check_room
from vgeo.profiles import ROOT
from vgeo.study import Study

ENCRYPTED = Config({"KernelManager": {"transport_encryption": "auto"}})  # what passes between a kernel and this process


def execute(notebook, output, parameters, results):
    """Runs a notebook file with the parameters and stores it executed at `output`.

    Its metadata name what it must leave: `{"vgeo": {"results": ["tables/table_01.csv", ...]}}`, under the folder `results`. Raises VgeoError
    for a parameter the notebook does not have, an error in a cell (the message alone where it is a VgeoError), a kernel that died, a cell
    that never ran and a result that is missing or older than this run.
    """
    notebook, output = Path(notebook), Path(output)
    known = papermill.inspect_notebook(str(notebook))
    for name in parameters:
        if name not in known:
            raise VgeoError(f"{notebook.name}: has no parameter {name!r}, only {', '.join(known) or 'none'}: correct the name")
    output.parent.mkdir(parents=True, exist_ok=True)
    began = time.time()
    try:
        papermill.execute_notebook(str(notebook), str(output), parameters, cwd=str(notebook.parent), progress_bar=False, log_output=False, config=ENCRYPTED)
    except PapermillExecutionError as error:
        if error.ename == "VgeoError":
            raise VgeoError(error.evalue) from None
        value = " ".join(error.evalue.split())
        raise VgeoError(f"{notebook.name}: cell {error.exec_count} failed with {error.ename}: {value} (the whole trace is in {output})") from None
    except DeadKernelError:
        raise VgeoError(f"{notebook.name}: its kernel died, as when memory runs out: close other programs and run it again") from None
    executed = nbformat.read(output, as_version=4)
    for name in ("input_path", "output_path"):  # folders of one machine say nothing to another
        executed.metadata.get("papermill", {}).pop(name, None)
    nbformat.write(executed, output)
    code = [cell for cell in executed.cells if cell.cell_type == "code" and cell.source.strip()]
    for number, cell in enumerate(code, 1):
        stopped = any(out.output_type == "error" for out in cell.outputs)  # SystemExit stops a cell, and papermill lets it pass
        if cell.execution_count is None or stopped:
            raise VgeoError(f"{notebook.name}: cell {number} never ran to its end: see {output}")
    for name in executed.metadata.get("vgeo", {}).get("results", []):
        made = Path(results) / name
        if not made.exists() or made.stat().st_mtime < began - 2:
            raise VgeoError(f"{notebook.name}: did not make {made}: see {output}")
    return executed


@contextmanager
def watching(now, seconds=5, wait=1.0):
    """Prints what the file `now` holds, the step that a notebook is at, each time that it has been the same for some seconds."""
    over, said = threading.Event(), None

    def watch():
        nonlocal said
        last, since = None, time.monotonic()
        while not over.wait(wait):
            label = now.read_text() if now.exists() else ""
            if label != last:
                last, since = label, time.monotonic()
            elif label not in ("", said) and time.monotonic() - since >= seconds:
                said = label
                print(f"    {label}", flush=True)

    now.unlink(missing_ok=True)  # of a run that was killed
    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def run_study(profile, data=None, image_size=None, seeds=None):
    """Every notebook of `notebooks/` in order for a profile; prints a line for each and where the results lie."""
    study = Study(profile, data, image_size, seeds)
    check_room(study)
    parameters = {"profile": profile, "data": str(study.data_folder) if data else None, "image_size": image_size, "seeds": seeds}
    began = time.perf_counter()
    for notebook in sorted((ROOT / "notebooks").glob("[0-9]*.ipynb")):
        start = time.perf_counter()
        print(f"{notebook.stem} ...", flush=True)
        with watching(study.now):
            execute(notebook, study.results / "notebooks" / notebook.name, parameters, study.results)
        print(f"{notebook.stem}: {time.perf_counter() - start:.0f} s", flush=True)
    print("\n" + (study.results / "tables" / "table_01.md").read_text())
    print(f"done in {(time.perf_counter() - began) / 60:.1f} minutes; tables, figures and notebooks are in {study.results}")
