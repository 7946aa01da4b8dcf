"""Makes the released results, `results/<profile>`, from a finished run."""

import json
import os
import shutil
from pathlib import Path

from vgeo.errors import VgeoError
from vgeo.report.section import files_of
from vgeo.runner.record import read
from vgeo.runner.unchanged import PAGE, notebooks_of
from vgeo.study.folders import clone


def release(
    run: str | os.PathLike,
    out: str | os.PathLike | None = None,
    notebooks: list[Path] | None = None,
) -> Path:
    """Replaces a released run, as a whole, by a copy of a finished one.

    Parameters
    ----------
    run : the folder that `vgeo run` wrote.
    out : the released folder; by default results/<name of run> of the clone.
    notebooks : those that the run must have executed; by default the study's.

    Returns
    -------
    The released folder.

    Raises
    ------
    VgeoError : the run is not finished, or `out` holds something that is not a released run.
    """
    run = Path(run)
    out = Path(out) if out else clone() / "results" / run.resolve().name
    names = _files(run, notebooks_of() if notebooks is None else notebooks)
    if run.resolve() == out.resolve():
        raise VgeoError(f"{out}: is the run itself: name another folder")
    if out.exists() and not (out / "run.json").is_file():
        raise VgeoError(f"{out}: is not a released run and is left alone: name another folder")
    new, old = (out.with_name(f".{out.name}.{kind}") for kind in ("new", "old"))
    for folder in (new, old):
        shutil.rmtree(folder, ignore_errors=True)
    for name in names:
        (new / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(run / name, new / name)
    if out.exists():
        os.replace(out, old)
    os.replace(new, out)
    shutil.rmtree(old, ignore_errors=True)
    return out


def _files(run: Path, notebooks: list[Path]) -> list[str]:
    """The files of a finished run, relative to its folder. Raises VgeoError where it lacks one."""
    if not run.is_dir():
        raise VgeoError(f"{run}: no such folder: name the folder of a run, such as runs/city")
    executed = read(run / "run.json")["notebooks"] if (run / "run.json").exists() else {}
    names = ["run.json", PAGE.name]
    for notebook in notebooks:
        section = f"sections/{notebook.stem}.json"
        names += [f"notebooks/{notebook.name}", section]
        if (run / section).exists():
            names += files_of(json.loads((run / section).read_text(encoding="utf-8")))
    missing = [name for name in names if not (run / name).is_file()]
    missing += [f"{path.stem} in run.json" for path in notebooks if path.stem not in executed]
    if missing:
        raise VgeoError(
            f"{run}: is not a finished run, it lacks {', '.join(missing[:3])}"
            f"{' and more' if len(missing) > 3 else ''}: call 'vgeo run' again"
        )
    return names
