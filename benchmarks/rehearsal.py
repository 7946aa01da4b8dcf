"""A rehearsal of the paper profile: how fast this machine does each kind of its work, and the hours
that the whole then takes.

    .venv/bin/python benchmarks/rehearsal.py [WORKS, default all]

Writes rehearsal.csv and rehearsal_summary.csv in benchmarks/results. Photos of the rendered city
have the original's 512 x 512 pixels. Trainings, batches, scales and pairs are the profile's own,
but few of each: what is counted are images, pairs and queries a second. How many of them the whole
profile needs follows from its table rows and the published sizes of the data sets. Each work is
also done on tensors in memory, and photos are also decoded alone: the difference is time spent
waiting. The weights are the package's instead of ImageNet's, which makes no difference to the time.
WORKS are the beginnings of works, such as search or 'train resnet18'.
"""

import os
import resource
import sys
import tempfile
import time
from collections import Counter
from contextlib import redirect_stderr
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import torch
from bare import RESULTS, city_model, recipe_of, seconds, training_step

from vgeo.city.plan import Plan
from vgeo.city.write import write_city
from vgeo.device import device, precision
from vgeo.models.geowarp import Regression, local_features
from vgeo.models.weights import CITY_WEIGHTS
from vgeo.photos.images import load_batches
from vgeo.photos.places import cosplace_classes
from vgeo.photos.tables import read_photos
from vgeo.retrieval.describe import describe
from vgeo.retrieval.multiscale import METHODS, SCALES
from vgeo.retrieval.rerank import pair_scores
from vgeo.retrieval.search import search
from vgeo.runner.record import backbones, read
from vgeo.study.data import DATASETS
from vgeo.study.folders import clone
from vgeo.study.profiles import PAPER_COUNTS, profile
from vgeo.study.rows import TABLES, TRAININGS, Fusion, backbone_of
from vgeo.study.study import Study
from vgeo.training.batches import batches, live_views
from vgeo.training.geowarp import GeoWarp, WarpLoss
from vgeo.training.loop import train_extractor

PAPER = profile("paper")
GPU = torch.cuda.is_available()
ITERATIONS = 60 if GPU else 3  # of each training; the first two warm up
IMAGES = 1024 if GPU else 16  # described at each scale
PAIRS = 1600 if GPU else 40
# Bytes: GeoWarp's joint training of the larger network was killed on a machine with 24 GiB.
JOINT = {"efficientnet_v2_s": 26e9}
TARGET = RESULTS / "rehearsal.csv"
CITY = Plan(
    size=PAPER.image_size,
    seed=977,
    train_districts=1,
    val_blocks=1,
    val_queries=24,
    test_blocks=1,
    test_queries=24,
    tokyo_blocks=1,
    tokyo_places=8,
)


def technique_of(name, data=None):
    """The technique of a training, None for CosPlace alone."""
    row = TRAININGS[name]
    return row.technique(PAPER, data) if row.technique else None


def training(name, classes, data, folder):
    """Training images a second: from files as the study trains, and, without a technique, the same
    iteration on tensors in memory.
    """
    recipe = recipe_of(PAPER, name, precision(), epochs=1, iterations=ITERATIONS)
    rows, clock = batches(classes.labels, recipe.batch_size, 0, ITERATIONS, 0), []
    random, size = np.random.default_rng(0), recipe.image_size

    def views(photos, rows, timed=False):
        def of(model, first):
            paths = np.array(photos.paths)
            for trunk in live_views(model, paths, rows, size, 0, first, recipe.precision):
                if timed:
                    if GPU:
                        torch.cuda.synchronize()
                    clock.append(time.perf_counter())
                yield trunk

        return of

    technique, extra, targets = technique_of(name, data), None, None
    if isinstance(technique, GeoWarp):  # any pairs take as long as the mined ones
        pairs = random.integers(len(classes.photos), size=(200, 2))
        stages = technique.settings.stages[recipe.backbone]
        paths = np.array(classes.photos.paths)
        extra = WarpLoss(technique.settings, paths, pairs, size, stages, 0)
    elif technique:
        extra = technique.prepare(city_model(recipe.backbone), classes, size, 0, None)
        night = [random.integers(len(technique.target), size=len(row)) for row in rows]
        targets = views(technique.target, night)
    with open(os.devnull, "w") as nowhere, redirect_stderr(nowhere):
        train_extractor(
            recipe,
            CITY_WEIGHTS / f"{recipe.backbone}.safetensors",
            classes,
            lambda model: 0.0,
            folder,
            views(classes.photos, rows, timed=True),
            targets,
            extra,
            technique.learning_rate if technique else None,
        )
    from_files = len(rows[0]) * (len(clock) - 2) / (clock[-1] - clock[1])
    if extra:
        return from_files, None
    images = random_images(len(rows[0]), size)
    labels = torch.arange(len(images), device=device()) % classes.count
    step, count = training_step(recipe, classes.count), max(2, ITERATIONS // 3)
    step(images, labels, True)
    taken = seconds(lambda: [step(images, labels, True) for _ in range(count)])
    return from_files, len(images) * count / taken


def random_images(count, side):
    images = torch.randn(count, 3, side, side, device=device())
    return images.contiguous(memory_format=torch.channels_last)


def describing(backbone, paths, scale):
    """Images a second from files, and the bare forward pass."""
    model = city_model(backbone)
    describe(model, paths[:4], None, scale)
    from_files = len(paths) / seconds(lambda: describe(model, paths, None, scale))
    images = random_images(min(32, len(paths)), round(PAPER.image_size * scale))
    with torch.inference_mode():
        return from_files, len(images) / min(seconds(lambda: model(images)) for _ in range(3))


def comparing(backbone, paths):
    """Pairs a second: every query with as many photos as are re-ranked."""
    model, regression = city_model(backbone), Regression().to(device()).eval()
    stages, k = PAPER.geowarp.stages[backbone], PAPER.testing.rerank
    numbers = np.arange(PAIRS)
    pairs = np.stack([numbers // k % len(paths), numbers % len(paths)], 1)

    def local(images):
        return local_features(model.features(images, stages))

    size, numbers = PAPER.image_size, precision()
    places = (local, regression, paths, paths, pairs, size)
    return len(pairs) / seconds(lambda: pair_scores(*places, precision=numbers))


def more_pairs():
    """How many times the pairs of a plain re-ranked row its twelve multi-scale variants add: they
    share most. From the released run of the city.
    """
    steps = read(clone() / "results" / "city" / "run.json")["steps"]
    labels = pd.Series([step["label"] for step in steps.values()])
    found = labels.str.extract(r"^compare (?P<pairs>\d+) pairs (?P<dataset>\S+)").dropna()
    found = found.astype({"pairs": int})
    times = found["pairs"] / found.groupby("dataset")["pairs"].transform("min")
    return float(times[times > 1].mean())


def described():
    """{(model, data set, kind of photos, scale, brightness)} of every row of every table."""
    found = set()
    rows = [row for table in TABLES.values() for row in table.values()]
    parts = [(r.first, r.second) if isinstance(r, Fusion) else (r,) for r in rows]
    for row in (part for pair in parts for part in pair):
        for dataset in DATASETS:
            for kind, side in (("database", "database"), ("queries", "query")):
                several = row.multiscale and row.side in (side, "both")
                dark = row.brightness(dataset) if kind == "database" else 1.0
                place = dataset.replace("night", "xs")  # tokyo-night's photos are tokyo-xs's
                for scale in SCALES if several else (row.scale,):
                    found.add((row.model, place, kind, scale, dark))
    return found


def amounts():
    """{(work, backbone, detail): how many images, pairs or queries the whole profile has of it},
    and how many photos are decoded for all that.
    """
    found, decoded, warp = Counter(), 0, PAPER.geowarp
    p, more = PAPER.training, more_pairs()
    views = {"CosPlace": 1, "GRL": 2}
    views["GeoWarp"] = 1 + (warp.self_supervised + 2 * warp.mined) / p.batch_size
    for name, row in TRAININGS.items():
        images = p.epochs * p.iterations * p.batch_size
        found["train", row.backbone, kind_of(name)] += images
        decoded += images * views[kind_of(name)]
        val = sum(PAPER_COUNTS["sf-xs", "val", kind] for kind in ("database", "queries"))
        found["describe", row.backbone, 1.0] += p.epochs * val
    for model, dataset, kind, scale, _ in described():
        found["describe", backbone_of(model), scale] += PAPER_COUNTS[dataset, "test", kind]
    queries = sum(PAPER_COUNTS[dataset, "test", "queries"] for dataset in DATASETS)
    for backbone in backbones():
        names = [name for name, row in TRAININGS.items() if row.backbone == backbone]
        rows = sum(kind_of(name) == "GeoWarp" for name in names)
        found["compare", backbone, "pairs"] = round(PAPER.testing.rerank * queries * (rows + more))
    # a plain one and the variants of each: more than there are
    found["search", "", "queries"] = len(TRAININGS) * (1 + 3 * len(METHODS)) * queries
    decoded += sum(n for (work, *_), n in found.items() if work == "describe")
    return found, decoded + 2 * sum(n for (work, *_), n in found.items() if work == "compare")


def kind_of(name):
    """CosPlace, GRL or GeoWarp: the last word of a training's name."""
    last = name.split(" + ")[-1]
    return last if TRAININGS[name].technique else "CosPlace"


def measure(work, backbone, detail, study, classes, folder):
    """(amount a second, the same on tensors in memory), None where it is not measured."""
    photos = study.data.test_sets["sf-xs"].database.paths
    if work == "train":
        memory = psutil.virtual_memory().total
        if detail == "GeoWarp" and not GPU and memory < JOINT.get(backbone, 0):
            print(f"{backbone}, GeoWarp: not enough memory to train it here")
            return None, None
        trainings = TRAININGS.items()
        name = next(n for n, r in trainings if (r.backbone, kind_of(n)) == (backbone, detail))
        out = Path(folder, f"out {name}")
        out.mkdir()
        return training(name, classes, study.data, out)
    if work == "describe":
        return describing(backbone, (photos * (IMAGES // len(photos) + 1))[:IMAGES], detail)
    if work == "compare":
        return comparing(backbone, photos), None
    count = PAPER_COUNTS["sf-xs", "test", "database"]
    database = np.random.default_rng(0).standard_normal((count, 512), np.float32)
    k = PAPER.testing.predictions
    return 100 / seconds(lambda: search(database, database[:100], k)), None


def main(works):
    with tempfile.TemporaryDirectory() as folder:
        write_city(CITY, folder)
        study = Study("paper", folder, results=Path(folder, "run"), cache=Path(folder, "cache"))
        photos = read_photos(Path(folder, "sf-xs", "train"))
        classes = cosplace_classes(photos, **PAPER.classes.__dict__)
        paths = study.data.test_sets["sf-xs"].database.paths
        whole, decoded = amounts()
        batch = PAPER.training.batch_size
        decoding = len(paths) / seconds(lambda: list(load_batches(paths, batch, None)))
        for (work, backbone, detail), amount in sorted(whole.items(), key=str):
            if works and not f"{work} {backbone}".startswith(tuple(works)):
                continue
            speed, bare = measure(work, backbone, detail, study, classes, folder)
            row = {
                "work": work,
                "backbone": backbone,
                "of": str(detail),
                "amount": amount,
                "a second": speed and round(speed, 2),
                "on tensors in memory": bare and round(bare, 2),
                "share of that": bare and round(speed / bare, 2),
                "hours": speed and round(amount / speed / 3600, 2),
            }
            print(row, flush=True)
            merge(row)
    result = pd.read_csv(TARGET)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    summary = {
        "machine": torch.cuda.get_device_name()
        if GPU
        else f"{os.cpu_count()} cores, {precision()}",
        "hours of all that was measured": round(result["hours"].sum(), 1),
        "not measured": int(result["hours"].isna().sum()),
        "hours of decoding, if it were done alone": round(decoded / decoding / 3600, 1),
        "photos decoded a second": round(decoding),
        "hours of searching": result.loc[result["work"] == "search", "hours"].sum(),
        "peak memory, GB": round((torch.cuda.max_memory_allocated() if GPU else peak) / 1e9, 1),
    }
    pd.DataFrame([summary]).to_csv(TARGET.with_name("rehearsal_summary.csv"), index=False)
    print(summary)


def merge(row):
    """Puts a row in the place of the one of the same work: a stopped rehearsal has left what it
    measured.
    """
    keys, known = ["work", "backbone", "of"], pd.DataFrame(columns=row)
    if TARGET.exists():
        known = pd.read_csv(TARGET, dtype={"of": str}, keep_default_na=False)
    same = (known[keys] == [row[key] for key in keys]).all(axis=1)
    table = pd.concat([known[~same], pd.DataFrame([row])]).sort_values(keys)
    table.to_csv(TARGET, index=False)


if __name__ == "__main__":
    main(sys.argv[1:])
