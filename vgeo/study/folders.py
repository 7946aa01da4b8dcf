"""Where the study reads and writes: the clone of the repository, a run's results, the cache."""

import os
from pathlib import Path

from vgeo.errors import VgeoError


def clone() -> Path:
    """The root of the repository: the folder that holds notebooks/ and the package.

    Raises
    ------
    VgeoError : the package was installed without its repository, and the current folder is not in a
        clone either.
    """
    package = Path(__file__).resolve().parents[2]
    for folder in (package, *(Path.cwd() / "x").parents):
        if (folder / "notebooks").is_dir() and (folder / "vgeo" / "study").is_dir():
            return folder
    raise VgeoError(
        f"{Path.cwd()}: is not in a clone of vgeo, whose notebooks the study needs: clone the "
        "repository and call ./run_all.sh there"
    )


def results_of(
    profile: str, data: str | os.PathLike | None = None, start: str | None = None
) -> Path:
    """The folder of a run's results: runs/<profile>[-<data folder>][-<start>].

    `start` is given where it is not the profile's own.
    """
    folder = [] if data is None else [Path(str(data)).resolve().name]
    return clone() / "runs" / "-".join([profile, *folder, *([start] if start else [])])


def cache_of() -> Path:
    """The folder of what can be made again, shared by all runs: images, models, descriptors,
    predictions.
    """
    return clone() / "runs" / "cache"
