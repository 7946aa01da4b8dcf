"""What a photo of the profile city costs one core: its district, rays, exposure and noise, JPEG.

    python benchmarks/render.py

NUMBA_CPU_NAME=haswell measures what a processor with AVX2 and no more would run. Times are those of
the processor, not of the clock. Results are added to benchmarks/results/render.csv; rows of the
same machine and instructions are replaced.
"""

import os
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import cv2
import numpy as np
import pandas as pd

from vgeo.city import district, write
from vgeo.city.light import LIGHTS
from vgeo.study.costs import machine
from vgeo.study.profiles import PROFILES

OUT = Path(__file__).parent / "results" / "render.csv"
ROUNDS = 3  # of which the median is taken
# What a new worker process does before its first photo, in seconds of the processor.
FIRST = """
import time
began = time.process_time()
from vgeo.city import write
from vgeo.city.plan import Plan
print(time.process_time() - began)
photos = write.query_photos(Plan(), "target", 0, 1, 1, ("night",))
write._district(Plan(), "target", 0)
began = time.process_time()
next(photos)
print(time.process_time() - began)
"""


def first_photo():
    """Seconds that a process needs to import, and to compile where nothing is stored."""
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"NUMBA_CACHE_DIR": folder}
        command = [sys.executable, "-c", FIRST]
        done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return [float(line) for line in done.stdout.split()]


@contextmanager
def timed(module, name, spent):
    """Adds the processor's seconds that the calls of a function take to spent[name]."""
    function = getattr(module, name)

    def call(*arguments):
        began = time.process_time()
        try:
            return function(*arguments)
        finally:
            spent[name] = spent.get(name, 0.0) + time.process_time() - began

    with patch.object(module, name, call):
        yield


def milliseconds(folder, plan, photos, part, *more):
    """A district's number of photos, a photo's ms, and those of its rays, developing and JPEG.

    The district is made before.
    """
    write._district(plan, part, 0)
    rounds = []
    for _ in range(ROUNDS):
        spent, began = {}, time.process_time()
        with (
            timed(district, "render", spent),
            timed(district, "develop", spent),
            timed(cv2, "imencode", spent),
        ):
            count = write.write_part(photos, folder, plan, part, 0, *more)
        rounds.append([1000 * (time.process_time() - began) / count])
        rounds[-1] += [1000 * spent[name] / count for name in ("render", "develop", "imencode")]
    return count, *np.median(rounds, axis=0)


def main():
    plan, rows = PROFILES["city"].city, []
    here = machine()
    instructions = os.environ.get("NUMBA_CPU_NAME", "all of the processor's")
    where = {"machine": f"{here['processor']}, {here['cores']} cores", "instructions": instructions}

    def add(what, count, ms, rays=None, exposure=None, jpeg=None):
        each = {"what": what, "count in the plan": count, "ms of a core": ms, "rays": rays}
        rows.append(where | each | {"exposure, noise": exposure, "JPEG": jpeg})
        print(f"{what}: {ms:.2f} ms", flush=True)

    imported, compiled = first_photo()
    add("importing, a process", 1, 1000 * imported)
    add("compiling, a process of a fresh clone", 1, 1000 * compiled)
    places, lit = plan.tokyo_places, tuple(LIGHTS)
    targets = min(2, plan.night_target)  # districts, as in `write_city`
    kinds = (  # name, how many districts or times, photos, their arguments
        ("training", plan.train_districts, write.training_photos, ("train",)),
        ("database, sf-xs val", 1, write.database_photos, ("val",)),
        ("database, sf-xs", 1, write.database_photos, ("test",)),
        ("database, tokyo-xs", 1, write.database_photos, ("tokyo",)),
        (
            "queries by day, sf-xs val",
            1,
            write.query_photos,
            ("val", plan.val_queries, 1, ("day",)),
        ),
        ("queries by day, sf-xs", 1, write.query_photos, ("test", plan.test_queries, 1, ("day",))),
        ("queries of tokyo-xs, in its lights", 1, write.query_photos, ("tokyo", places, 1, lit)),
        ("night target", targets, write.query_photos, ("target", plan.night_target, 2, ("night",))),
    )
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        write.write_part(write.query_photos, folder, plan, "target", 0, 1, 1, ("night",))
        for what, times, photos, arguments in kinds:
            count, *each = milliseconds(folder, plan, photos, *arguments)
            add(what, count * times, *each)
    photos = sum(row["count in the plan"] for row in rows[2:])
    for words, part, count, rounds in (
        ("a district for training", "train", plan.train_districts + targets, 2 * ROUNDS),
        ("the district of sf-xs val", "val", 1, 1),
        ("the district of sf-xs", "test", 1, 1),
        ("the district of tokyo-xs", "tokyo", 1, 1),
    ):
        built = []
        for number in range(rounds):
            began = time.process_time()
            write._district.__wrapped__(plan, part, number)
            built.append(1000 * (time.process_time() - began))
        add(f"building {words}", count, float(np.median(built)))
    spent = sum(row["count in the plan"] * row["ms of a core"] for row in rows[2:])
    add("a photo of the plan with its share of a district", photos, spent / photos)
    table = pd.DataFrame(rows).round(2)
    if OUT.exists():
        old = pd.read_csv(OUT)
        same = (old[list(where)] == pd.Series(where)).all(axis=1)
        table = pd.concat([old[~same], table])
    table.to_csv(OUT, index=False)


if __name__ == "__main__":
    main()
