"""How much slower each kind of step is beside another busy program, by OpenMP's wait policy.

    python benchmarks/disturbed.py [ROUNDS, default 3] [POLICIES, default all, as in none,spin 0]

The other program is one single-threaded loop at the lowest priority (nice 19). Each policy of
POLICIES is a set of environment variables for a fresh process, because OpenMP reads them when it is
loaded. In that process each step is timed without and with the other program, in turns. The
policies take turns too. Of each kind of time the median over all rounds counts.

Writes benchmarks/results/disturbed.csv. Policies that are not asked for keep their rows. There the
columns `seconds` and `seconds beside` are those of a step, `beside / alone` is their ratio, and
`alone / none's` compares with the policy "none", OpenMP as it is, which every call measures.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd

TARGET = Path(__file__).resolve().parent / "results" / "disturbed.csv"
DEFAULT = "300000"  # libgomp's spin count where nothing is set
POLICIES = {
    "none": {"GOMP_SPINCOUNT": DEFAULT},
    **{f"spin {n}": {"GOMP_SPINCOUNT": str(n)} for n in (0, 100, 1000, 10_000, 100_000)},
    "passive": {"OMP_WAIT_POLICY": "passive"},
    "bound": {"GOMP_SPINCOUNT": DEFAULT, "OMP_PROC_BIND": "true"},
    "one thread": {"GOMP_SPINCOUNT": DEFAULT, "OMP_NUM_THREADS": "1"},
}
OURS = {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "OMP_PROC_BIND", "OMP_NUM_THREADS"}
BATCH = 32
SPELL = 1.0  # seconds that a step is repeated for at least, each time it is measured
TURNS = 2  # of a step without and with the other program, in one process


@contextmanager
def other_program():
    """A single-threaded program at the lowest priority, which computes while this is open."""
    loop = [sys.executable, "-S", "-c", "while True: pass"]
    with subprocess.Popen(loop, preexec_fn=lambda: os.nice(19)) as process:
        try:
            time.sleep(0.1)
            yield
        finally:
            process.send_signal(signal.SIGKILL)


def seconds(work):
    """The mean time of the calls of work() that follow each other for a spell."""
    calls, began = 0, time.perf_counter()
    while not calls or time.perf_counter() - began < SPELL:
        work()
        calls += 1
    return (time.perf_counter() - began) / calls


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


def worker():
    """Times every step of `steps`, and prints a line of JSON for each."""
    with tempfile.TemporaryDirectory() as folder:
        for name, work in steps(Path(folder)):
            work()
            for _ in range(TURNS):
                alone = seconds(work)
                with other_program():
                    beside = seconds(work)
                print(json.dumps({"step": name, "alone": alone, "beside": beside}), flush=True)


def measured(policy):
    """The lines of a fresh `worker` process whose environment has a policy."""
    clean = {name: value for name, value in os.environ.items() if name not in OURS}
    command = [sys.executable, __file__, "worker"]
    environment = clean | POLICIES[policy]
    out = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    return [json.loads(line) | {"policy": policy} for line in out.stdout.splitlines()]


def main(rounds=3, policies=tuple(POLICIES)):
    lines = []
    for _ in range(rounds):
        for policy in dict.fromkeys(["none", *policies]):
            lines += measured(policy)
            print(policy, flush=True)
    table = pd.DataFrame(lines).groupby(["step", "policy"], sort=False).median().reset_index()
    before = table[table["policy"] == "none"].set_index("step")["alone"]
    table["beside / alone"] = table["beside"] / table["alone"]
    table["alone / none's"] = table["alone"] / table["step"].map(before)
    table = table.rename(columns={"alone": "seconds", "beside": "seconds beside"})
    known = pd.read_csv(TARGET) if TARGET.exists() else table.iloc[:0]
    table = pd.concat([known[~known["policy"].isin(table["policy"])], table.round(4)])
    table.sort_values("step", kind="stable").to_csv(TARGET, index=False)


if __name__ == "__main__":
    if sys.argv[1:] == ["worker"]:
        worker()
    else:
        asked = sys.argv[2].split(",") if len(sys.argv) > 2 else POLICIES
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 3, tuple(asked))
