"""A tiny study that kills itself: `python killed_study.py PHOTOS WEIGHTS RESULTS POINT...` stops at each point in turn, then runs to its end.

A point is a place in the order of all that the study writes (`write:3`: its third write of any kind), before or after the write itself.
Each attempt is a fork of this process, which has imported everything and computed nothing.
"""

import dataclasses
import os
import signal
import sys
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from bad_input import TINY

from vgeo import profiles, report, study

GEOWARP = profiles.CITY_GEOWARP | {
    "self_supervised": 2,
    "mined": 2,
    "candidates": 6,
    "alone": 3,
    "stages": {"resnet18": 6},
}
NUMBERS = {
    "epochs": 2,
    "store_trunk": 64,
    "rerank": 3,
    "geowarp": GEOWARP,
    "lr_regression": 1e-3,
    "lr_discriminator": 1e-3,
}
TABLES = (2, 4)  # trainings with and without something trained along, re-ranking


def run(photos, weights, results):
    """Tables of the study, written to the folder `results`; its cache lies there too."""
    with (
        mock.patch("vgeo.study.ROOT", Path(results)),
        mock.patch("vgeo.study.CITY_WEIGHTS", Path(weights).parent),
        mock.patch("vgeo.models.CITY_WEIGHTS", Path(weights).parent),
        mock.patch("torch.cuda.is_available", lambda: False),
        mock.patch.dict(profiles.PROFILES, {"tiny": dataclasses.replace(TINY, **NUMBERS)}),
    ):
        ours = study.Study("tiny", photos)
        for number in TABLES:
            report.write_table(ours.results / "tables", ours.table(number)[0])


def writes(at, then):
    """Patches all that the package writes with: calls then(what) at the at-th write, before it where `at` is even, after it where it is odd."""
    count = 0

    def patched(module, name):
        real = getattr(module, name)

        def write(*arguments, **options):
            nonlocal count
            count += 1
            mine = count
            if mine == at and at % 2 == 0:
                then(f"before {name}")
            found = real(*arguments, **options)
            if mine == at:
                then(f"after {name}")
            return found

        setattr(module, name, write)

    for module, name in (
        (os, "replace"),
        (np, "save"),
        (torch, "save"),
        (np.lib.format, "open_memmap"),
        (Path, "write_text"),
    ):
        patched(module, name)
    return lambda: count


def attempt(arguments, at=0):
    """Runs in a fork -> the signal or exit code that it ended with, 0 for a whole run."""
    child = os.fork()
    if not child:
        code = 1
        try:

            def kill(what):
                print(f"{at}: {what}", flush=True)
                os.kill(os.getpid(), signal.SIGKILL)

            count = writes(at, kill)
            run(*arguments)
            print(f"writes: {count()}", flush=True)
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


if __name__ == "__main__":
    place, points = sys.argv[1:4], [int(point) for point in sys.argv[4:]]
    for point in points:
        if (code := attempt(place, point)) != -signal.SIGKILL:
            sys.exit(f"point {point}: ended with {code}")
    sys.exit(attempt(place))
