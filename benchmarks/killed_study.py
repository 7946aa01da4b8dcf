"""A tiny study that kills itself: `python killed_study.py PHOTOS WEIGHTS FOLDER POINT...`.

It is killed at each point in turn and started again, then runs to its end. A point is a place in
the order of all that the study writes: point 2n lies before its n-th write of any kind, point
2n + 1 after it. Each attempt is a fork of this process, which has imported everything and computed
nothing. WEIGHTS is the folder of the starting weights; the tables go to FOLDER/tables.
"""

import os
import signal
import sys
import traceback
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))
from study.conftest import TINY  # noqa: E402

from vgeo import files  # noqa: E402
from vgeo.report.tables import beside_published  # noqa: E402
from vgeo.study.rows import TABLES  # noqa: E402
from vgeo.study.study import Study  # noqa: E402

NUMBERS = (2, 4)  # tables of trainings with and without a technique, and of re-ranking
# with all that smoke and city do at the start
TRAINING = replace(TINY.training, epochs=2, class_means=True, keeps_statistics=True)
# a head whitened on 12 photos puts them all at the same distance, sqrt(2): all pairs are near
WARP = replace(TINY.geowarp, near=2.0)
PROFILE = replace(TINY, store_trunk=64, whitens_head=True, training=TRAINING, geowarp=WARP)


def run(photos: str, weights: str, folder: str) -> None:
    """Writes the tables of a tiny study. Its cache lies in the folder too."""
    places = {"results": Path(folder), "cache": Path(folder, "cache"), "weights": Path(weights)}
    study = Study(PROFILE, photos, **places)
    for number in NUMBERS:
        table = beside_published(number, study.evaluate(TABLES[number]), study.data.absent)
        files.write(study.results / "tables" / f"table_{number:02}.csv", table.to_csv(index=False))


def kill_at(point: int):
    """Wraps all that the package writes with, so that this process is killed at a point.

    Returns
    -------
    A function that returns how many writes there have been.
    """
    count = 0

    def wrap(module, name):
        real = getattr(module, name)

        def write(*arguments, **options):
            nonlocal count
            count += 1
            here = 2 * count
            stop(here, f"before {name}")
            result = real(*arguments, **options)
            stop(here + 1, f"after {name}")
            return result

        setattr(module, name, write)

    def stop(here, what):
        if here == point:
            print(f"{point}: {what}", flush=True)
            os.kill(os.getpid(), signal.SIGKILL)

    wrap(os, "replace")
    wrap(np, "save")
    wrap(torch, "save")
    wrap(np.lib.format, "open_memmap")
    wrap(Path, "write_text")
    wrap(Path, "write_bytes")
    return lambda: count


def attempt(arguments: list[str], point: int = 0) -> int:
    """Runs in a fork; the signal or exit code that it ended with, 0 for a whole run."""
    child = os.fork()
    if not child:
        code = 1
        try:
            count = kill_at(point)
            run(*arguments)
            print(f"writes: {count()}", flush=True)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


if __name__ == "__main__":
    place, points = sys.argv[1:4], [int(point) for point in sys.argv[4:]]
    for point in points:
        if (code := attempt(place, point)) != -signal.SIGKILL:
            sys.exit(f"point {point}: ended with {code}")
    sys.exit(attempt(place))
