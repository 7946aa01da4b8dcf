"""Search at scale: time, memory and recall loss of exact and compressed search.

    .venv/bin/python benchmarks/search.py [SIZES, default 10000,100000,1000000,2800000]

Writes benchmarks/results/search.csv and figures/search.png. Sizes that are not asked for keep their
rows. Descriptors are drawn with the spectrum of the city's: a Gaussian with their covariance, ten
images a place, made unit length. They lie in a memory map on disk, as a study's do. Each setting
runs in a process of its own, whose peak memory above its start is what is stated.
"""

import multiprocessing
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

DIM, QUERIES, K = 512, 200, 20
RESULTS = Path(__file__).resolve().parent / "results"
TARGET = RESULTS / "search.csv"
SETTINGS = ("exact", "Flat", "SQ8", "IVF,SQ8", "IVF,PQ64")
SHOWN = ("ms a query", "memory over the descriptors'", "first 20 found, %")


def draw(path, n, seed=0):
    """Writes n unit descriptors to a .npy and returns queries (QUERIES, DIM): other images of some
    of the places.
    """
    from vgeo.study.study import Study

    study = Study("city")
    known = study.describe(study.start("resnet18"), study.data.val.database)
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
        places = rng.standard_normal((-(-count // 10), DIM), np.float32)
        places = np.repeat(places, 10, axis=0)[:count]
        first = places if first is None else first
        database[start : start + count] = images(places, 0.7)
    database.flush()
    return images(first[rng.choice(len(first), QUERIES, replace=False)], 1.0)


def peak_memory():
    """Bytes that this process has had in memory at most, pages of memory maps included."""
    lines = Path("/proc/self/status").read_text().splitlines()
    line = next(line for line in lines if line.startswith("VmHWM"))
    return 1024 * int(line.split()[1])


def measure(setting, path, queries, answer):
    """In a fresh process: seconds to build and search, peak memory above the start, predictions."""
    from vgeo.retrieval.search import build_index, inverted_lists, search

    database = np.load(path, mmap_mode="r")
    # the peak from here on, not that of the imports (Linux)
    Path("/proc/self/clear_refs").write_text("5")
    before = peak_memory()
    began = time.perf_counter()
    factory = setting.replace("IVF", f"IVF{inverted_lists(len(database))}")
    index = None if setting == "exact" else build_index(database, factory)
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
                pairs = zip(predictions, truth)
                shared = np.mean([len(np.intersect1d(a, b)) / K for a, b in pairs])
                row = {
                    "descriptors": n,
                    "search": setting,
                    "seconds to build": round(built, 2),
                    "ms a query": round(1000 * searched / QUERIES, 2),
                    "memory over the descriptors'": round(memory / (4 * n * DIM), 3),
                    "first found, %": round(100 * (predictions[:, 0] == truth[:, 0]).mean(), 1),
                    "first 20 found, %": round(100 * shared, 1),
                }
                rows.append(row)
                print(row, flush=True)
            known = pd.read_csv(TARGET) if TARGET.exists() else pd.DataFrame(columns=rows[0])
            measured = [row["descriptors"] for row in rows]
            others = known[~known["descriptors"].isin(measured)]
            write(pd.concat([others, pd.DataFrame(rows)]))


def write(table):
    import matplotlib.pyplot as plt

    from vgeo.report.figures import style

    table = table.sort_values("descriptors", kind="stable", ignore_index=True)
    RESULTS.mkdir(exist_ok=True)
    table.to_csv(TARGET, index=False)
    with style():
        figure, axes = plt.subplots(1, 3, figsize=(13, 3.6), layout="constrained")
        for axis, column in zip(axes, SHOWN):
            for setting, part in table.groupby("search", sort=False):
                kind = SETTINGS.index(setting)
                look = {"marker": "os^Dv"[kind], "linestyle": "-", "label": setting}
                axis.plot(part["descriptors"], part[column], **look)
            axis.set(xscale="log", xlabel="descriptors of 512 numbers", title=column)
        axes[0].set_yscale("log")
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=len(SETTINGS))
        for suffix in ("png", "svg"):
            figure.savefig(RESULTS / f"figures/search.{suffix}", dpi=150)
    plt.close(figure)


if __name__ == "__main__":
    words = sys.argv[1] if len(sys.argv) > 1 else "10000,100000,1000000,2800000"
    main([int(size) for size in words.split(",")])
