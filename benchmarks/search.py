"""Search at scale: time, memory and recall loss of exact and compressed search -> results/benchmarks/search.csv and figures/search.png.

    .venv/bin/python tests/benchmarks/search.py [SIZES, default 10000,100000,1000000,2800000]

Descriptors are drawn with the spectrum of the city's (a Gaussian with their covariance, ten images a place, made unit length) and lie in a memory
map on disk, as a study's do; sizes that are not asked for keep their rows. Each setting runs in a process of its own, whose peak memory above its start is what is stated.
"""

import multiprocessing
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

DIM, QUERIES, K = 512, 200, 20
TARGET = Path(__file__).parents[2] / "results" / "benchmarks" / "search.csv"
SETTINGS = ("exact", "Flat", "SQ8", "IVF,SQ8", "IVF,PQ64")


def draw(path, n, seed=0):
    """Writes n unit descriptors to a .npy and returns queries (QUERIES, DIM): other images of some of the places."""
    from vgeo.models import CITY_WEIGHTS, build, load_weights
    from vgeo.study import Study

    study = Study("city")
    model = load_weights(build("resnet18"), CITY_WEIGHTS / "resnet18.safetensors")
    known = study._describe(model, study.val.database)
    values, vectors = np.linalg.eigh(np.cov(known.T))
    basis = (vectors * np.sqrt(values.clip(0))).T.astype(np.float32)
    rng = np.random.default_rng(seed)

    def images(places, noise):
        x = (places + noise * rng.standard_normal(places.shape, np.float32)) @ basis + known.mean(0)
        return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)

    database = np.lib.format.open_memmap(path, "w+", np.float32, (n, DIM))
    first = None
    for start in range(0, n, 50_000):
        count = min(50_000, n - start)
        places = np.repeat(rng.standard_normal((-(-count // 10), DIM), np.float32), 10, axis=0)[
            :count
        ]
        first = places if first is None else first
        database[start : start + count] = images(places, 0.7)
    database.flush()
    return images(first[rng.choice(len(first), QUERIES, replace=False)], 1.0)


def peak_memory():
    """Bytes that this process has had in memory at most, pages of memory maps included."""
    line = next(
        line
        for line in Path("/proc/self/status").read_text().splitlines()
        if line.startswith("VmHWM")
    )
    return 1024 * int(line.split()[1])


def measure(setting, path, queries, answer):
    """In a fresh process: seconds to build and to search, peak memory above the start, predictions."""
    from vgeo.retrieve import build_index, inverted_lists, search

    database = np.load(path, mmap_mode="r")
    Path("/proc/self/clear_refs").write_text(
        "5"
    )  # the peak from here on, not that of the imports (Linux)
    before = peak_memory()
    began = time.perf_counter()
    index = (
        None
        if setting == "exact"
        else build_index(database, setting.replace("IVF", f"IVF{inverted_lists(len(database))}"))
    )
    built = time.perf_counter() - began
    began = time.perf_counter()
    predictions, _ = search(database, queries, K, index)
    searched = time.perf_counter() - began
    answer.put((built, searched, peak_memory() - before, predictions))


def main(sizes):
    spawn, rows = multiprocessing.get_context("spawn"), []
    with tempfile.TemporaryDirectory() as folder:
        for n in sizes:
            path = Path(folder, "database.npy")
            queries, truth = draw(path, n), None
            for setting in SETTINGS:
                answer = spawn.Queue()
                process = spawn.Process(target=measure, args=(setting, path, queries, answer))
                process.start()
                built, searched, memory, predictions = answer.get()
                process.join()
                truth = predictions if truth is None else truth
                rows.append(
                    {
                        "descriptors": n,
                        "search": setting,
                        "seconds to build": round(built, 2),
                        "ms a query": round(1000 * searched / QUERIES, 2),
                        "memory over the descriptors'": round(memory / (4 * n * DIM), 3),
                        "first found, %": round(100 * (predictions[:, 0] == truth[:, 0]).mean(), 1),
                        "first 20 found, %": round(
                            100
                            * np.mean(
                                [len(np.intersect1d(a, b)) / K for a, b in zip(predictions, truth)]
                            ),
                            1,
                        ),
                    }
                )
                print(rows[-1], flush=True)
            known = pd.read_csv(TARGET) if TARGET.exists() else pd.DataFrame(columns=rows[0])
            write(
                pd.concat(
                    [
                        known[~known["descriptors"].isin([row["descriptors"] for row in rows])],
                        pd.DataFrame(rows),
                    ]
                )
            )


def write(table):
    import matplotlib.pyplot as plt
    import seaborn as sns

    from vgeo import report

    report.style()
    table = table.sort_values("descriptors", kind="stable", ignore_index=True)
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(TARGET, index=False)
    figure, axes = plt.subplots(1, 3, figsize=(13, 3.6))
    for axis, column in zip(
        axes, ("ms a query", "memory over the descriptors'", "first 20 found, %")
    ):
        for setting, part in table.groupby("search", sort=False):
            kind = SETTINGS.index(setting)
            axis.plot(
                part["descriptors"],
                part[column],
                marker="os^Dv"[kind],
                linestyle="-",
                color=sns.color_palette("colorblind")[kind],
                label=setting,
            )
        axis.set(xscale="log", xlabel="descriptors of 512 numbers", title=column)
    axes[0].set_yscale("log")
    figure.tight_layout()
    report.legend_below(figure)
    report.write_figure(TARGET.parent, "search", figure)


if __name__ == "__main__":
    main(
        [
            int(size)
            for size in (
                sys.argv[1] if len(sys.argv) > 1 else "10000,100000,1000000,2800000"
            ).split(",")
        ]
    )
