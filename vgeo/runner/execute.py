"""Executes one notebook with papermill, and fails where papermill would not."""

import json
import time
from pathlib import Path

import nbformat
import papermill
from jupyter_client.kernelspec import NoSuchKernel
from nbclient.exceptions import DeadKernelError
from papermill.exceptions import PapermillExecutionError
from traitlets.config import Config

from vgeo.errors import VgeoError
from vgeo.report.section import files_of
from vgeo.runner.progress import Passed

CONFIG = Config(
    {
        # encrypts what passes between a kernel and this process
        "KernelManager": {"transport_encryption": "auto"},
        # On Ctrl-C a kernel that is asked to end goes on for seconds and prints a trace.
        "NotebookClient": {"shutdown_kernel": "immediate"},
    }
)


def execute(notebook: Path, output: Path, parameters: dict, results: Path) -> list[str]:
    """Runs a notebook with parameters and stores it executed.

    Parameters
    ----------
    notebook, output : the file that is run, and the one that is written.
    results : the folder where the notebook leaves its results. `sections/<stem>.json` there, which
        the notebook writes too, names them all.

    Returns
    -------
    The files that the notebook left, relative to `results`.

    Raises
    ------
    VgeoError : a parameter that the notebook does not have, an error in a cell (the message alone
        where it is a VgeoError), a kernel that died, a cell that did not run to its end, a result
        that is missing or older than this run.
    """
    _check(notebook, parameters)
    output.parent.mkdir(parents=True, exist_ok=True)
    began = time.time()
    _run(notebook, output, parameters)
    executed = nbformat.read(output, as_version=4)
    for name in ("input_path", "output_path"):  # folders of this machine
        executed.metadata.get("papermill", {}).pop(name, None)
    nbformat.write(executed, output)
    code = [cell for cell in executed.cells if cell.cell_type == "code" and cell.source.strip()]
    for number, cell in enumerate(code, 1):
        failed = any(each.output_type == "error" for each in cell.outputs)  # such as SystemExit
        if cell.execution_count is None or failed:
            raise VgeoError(f"{notebook.name}: cell {number} did not run to its end: see {output}")
    section = f"sections/{notebook.stem}.json"
    _check_made(results / section, began, output)
    made = [section, *files_of(json.loads((results / section).read_text(encoding="utf-8")))]
    for name in made:
        _check_made(results / name, began, output)
    return made


def _check(notebook: Path, parameters: dict) -> None:
    """Raises VgeoError unless the file is a notebook that has these parameters."""
    try:
        known = papermill.inspect_notebook(str(notebook))
    except nbformat.reader.NotJSONError:
        raise VgeoError(f"{notebook}: is damaged, not a notebook: copy it again") from None
    for name in parameters:
        if name not in known:
            raise VgeoError(
                f"{notebook.name}: has no parameter {name!r}, only {', '.join(known) or 'none'}: "
                "correct the name"
            )


def _run(notebook: Path, output: Path, parameters: dict) -> None:
    """Runs papermill. Raises VgeoError for what stopped it."""
    name = notebook.name
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
            f"{name}: cell {error.exec_count} failed with {error.ename}: {value} (the whole trace "
            f"is in {output})"
        ) from None
    except NoSuchKernel as error:
        raise VgeoError(
            f"{name}: wants the kernel {error.name!r}: give it the kernel python3 in JupyterLab"
        ) from None
    except DeadKernelError:
        raise VgeoError(
            f"{name}: its kernel died, as when memory runs out: close other programs and run it "
            "again"
        ) from None


def _check_made(path: Path, began: float, output: Path) -> None:
    """Raises VgeoError unless the file was written after the time `began`, in seconds.

    File systems round times, some of them to two seconds.
    """
    if not path.exists() or path.stat().st_mtime < began - 2:
        raise VgeoError(f"{output.name}: did not make {path}: see {output}")
