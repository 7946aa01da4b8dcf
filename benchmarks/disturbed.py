"""How much slower each kind of step is beside another busy program, by OpenMP's wait policy.

    python benchmarks/disturbed.py [STEPS, default all: "resnet18, forward;search"]

STEPS are the beginnings of names of `steps`. The other program is one single-threaded loop, at the
lowest priority (nice 19) and at the normal one (nice 0), in a session of its own.

A policy is a set of environment variables of a process, because OpenMP reads them when it is
loaded. The processes of all policies take turns: each times a step alone, then beside the other
program. Of all turns the half counts in which programs that are no part of the measurement had
least of the processors. Another machine's instructions are compared where the environment says so:
DNNL_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2 MKL_ENABLE_INSTRUCTIONS=AVX2.

Puts the steps' rows into benchmarks/results/disturbed.csv: `seconds` of a step alone; `alone`,
`nice 19` and `nice 0`, the ratio of the seconds alone and beside the other program to those of the
policy "none" (OpenMP as it is) alone; `other load`, the largest share of all processors that
programs outside the measurement had in the turns that count. Where that load is not near 0, the
machine was not quiet, and a ratio may be too large or too small.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import psutil

TARGET = Path(__file__).resolve().parent / "results" / "disturbed.csv"
DEFAULT = "300000"  # libgomp's spin count where nothing is set
POLICIES = {
    "none": {"GOMP_SPINCOUNT": DEFAULT},
    **{f"spin {n}": {"GOMP_SPINCOUNT": str(n)} for n in (0, 100, 1000, 10_000, 100_000)},
    "bound": {"GOMP_SPINCOUNT": DEFAULT, "OMP_PROC_BIND": "true"},
    "one thread": {"GOMP_SPINCOUNT": DEFAULT, "OMP_NUM_THREADS": "1"},
}
OURS = {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "OMP_PROC_BIND", "OMP_NUM_THREADS"}
BATCH = 32
SPELL = 0.5  # seconds that a step is repeated for at least, each time it is measured
TURNS = 3  # of each policy, alone and beside the other program
NICE = (None, 19, 0)  # the priority of the other program; None: there is none


# ---- in the process of a policy ----


def steps(folder):
    """(name, function without arguments) of each kind of step that a run consists of."""
    import torch
    from bare import city_model, recipe_of, training_step
    from PIL import Image
    from torch.nn.functional import mse_loss

    from vgeo.city.plan import Plan
    from vgeo.city.write import write_pretraining
    from vgeo.models.geowarp import GRID, IDENTITY, Regression
    from vgeo.models.whitening import whitening
    from vgeo.photos.images import load_batches
    from vgeo.retrieval.search import search
    from vgeo.study.profiles import profile

    random = np.random.default_rng(0)
    images = torch.rand(BATCH, 3, 96, 96).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(0, 500, (BATCH,))
    for backbone in ("resnet18", "efficientnet_lite0"):
        model = city_model(backbone)
        yield f"{backbone}, forward", torch.inference_mode()(lambda: model(images))

    train = training_step(recipe_of(profile("city"), "CosFace", "float32"), 500)
    yield "resnet18, training step", lambda: train(images, labels, True)

    regression = Regression()
    optimizer = torch.optim.Adam(regression.parameters(), 1e-3)
    one, two = (torch.rand(16, 128, GRID, GRID) for _ in range(2))

    def warp_step():
        optimizer.zero_grad()
        mse_loss(regression(one, two), IDENTITY.expand(16, 2, 4, 2)).backward()
        optimizer.step()

    yield "GeoWarp's regression, training step", warp_step

    database = random.standard_normal((100_000, 512), np.float32)
    yield "search, 100 of 100,000", lambda: search(database, database[:100], 20)

    features = torch.from_numpy(database[:2_000])
    yield "whitening of 2,000 features", lambda: whitening(features, 256)

    paths = [folder / f"{number}.jpg" for number in range(64)]
    for path in paths:
        coarse = Image.fromarray(random.integers(0, 256, (12, 16, 3), np.uint8))
        coarse.resize((640, 480), Image.Resampling.BICUBIC).save(path)
    yield "decoding and resizing of 64 photos", lambda: list(load_batches(paths, BATCH, 96))

    plan = Plan(images_per_class=1)
    rendered = folder / "rendered"
    yield "rendering by two processes", lambda: write_pretraining(plan, rendered, 2, False, 2)


def worker(asked):
    """Prepares each step that is asked for and says so. For each line with the other program's
    number, 0 without one, it then times a spell, and goes on to the next step at an empty line.
    """
    with tempfile.TemporaryDirectory() as folder:
        for step, work in steps(Path(folder)):
            if not step.startswith(asked):
                continue
            work()
            print(step, flush=True)
            while number := sys.stdin.readline().strip():
                print(json.dumps(spell(work, int(number))), flush=True)


def spell(work, other):
    """The mean seconds of the calls of work() that follow each other for a spell, and the share of
    all processors that programs had which are neither this one nor process number `other`.
    """
    calls, before, began = 0, foreign(other), time.perf_counter()
    while not calls or time.perf_counter() - began < SPELL:
        work()
        calls += 1
    passed = time.perf_counter() - began
    share = (foreign(other) - before) / passed / os.cpu_count()
    return {"seconds": passed / calls, "others": share}


def foreign(other):
    """Processor seconds so far of all programs but process number `other` and this one with its
    finished children.
    """
    times, own = psutil.cpu_times(), os.times()
    busy = sum(times[:8]) - times.idle - times.iowait  # guests' times are in these eight
    return busy - sum(own[:4]) - (sum(psutil.Process(other).cpu_times()[:2]) if other else 0)


# ---- in the first process ----


@contextmanager
def other_program(nice):
    """The number of a single-threaded program that computes while this is open; 0 for nice None."""
    if nice is None:
        yield 0
        return
    # it ends with this process, however that ends
    loop = "import os; parent = os.getppid()\nwhile os.getppid() == parent: sum(range(10_000))"
    command = ["nice", "-n", str(nice), sys.executable, "-S", "-c", loop]
    with subprocess.Popen(command, start_new_session=True) as process:
        try:
            time.sleep(0.2)
            yield process.pid
        finally:
            process.kill()


def name_of(nice):
    return "alone" if nice is None else f"nice {nice}"


def start(policy, asked):
    """A process whose environment has the policy, see `worker`."""
    clean = {name: value for name, value in os.environ.items() if name not in OURS}
    command = [sys.executable, __file__, "worker", *asked]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, env=clean | POLICIES[policy], **pipes)


def answer(process, line):
    process.stdin.write(f"{line}\n")
    process.stdin.flush()
    return process.stdout.readline().strip()


def quietest(spells):
    """The median seconds of the half of the spells with the least of `others`, and its maximum."""
    half = spells.nsmallest(-(-len(spells) // 2), "others")
    return pd.Series({"seconds": half["seconds"].median(), "others": half["others"].max()})


def summary(spells):
    """Rows of disturbed.csv, from one row for each spell."""
    half = spells.groupby(["step", "policy", "nice"], sort=False)[["seconds", "others"]]
    table = half.apply(quietest).unstack("nice")
    before = table["seconds"]["alone"].xs("none", level="policy")
    columns = {"seconds": table["seconds"]["alone"]}
    for kind in map(name_of, NICE):
        columns[kind] = table["seconds"][kind] / before
    columns["other load"] = table["others"].max(axis=1)
    return pd.DataFrame(columns).round(4).reset_index()


def main(asked):
    workers = {policy: start(policy, asked) for policy in POLICIES}
    spells = []
    while all(names := [each.stdout.readline().strip() for each in workers.values()]):
        for turn in range(TURNS):
            for nice in NICE:
                with other_program(nice) as other:
                    for policy in np.roll([*workers], turn):
                        said = json.loads(answer(workers[policy], other))
                        row = {"step": names[0], "policy": policy, "nice": name_of(nice)}
                        spells.append(row | said)
        for process in workers.values():
            process.stdin.write("\n")
            process.stdin.flush()
        print(names[0], flush=True)
        table = summary(pd.DataFrame(spells))
        known = pd.read_csv(TARGET) if TARGET.exists() else table.iloc[:0]
        table = pd.concat([known[~known["step"].isin(table["step"])], table])
        table.to_csv(TARGET, index=False)
    for policy, process in workers.items():
        process.stdin.close()
        if process.wait():
            sys.exit(f"the process of policy {policy!r} failed, for the reason above")
    if not spells:
        sys.exit(f"no step begins with {' or '.join(asked)}: use names of STEPS")


if __name__ == "__main__":
    if sys.argv[1:2] == ["worker"]:
        worker(tuple(sys.argv[2:]) or "")
    else:
        main(sys.argv[1].split(";") if sys.argv[1:] else [])
