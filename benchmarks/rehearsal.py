"""A rehearsal of the paper profile at its true shape: how fast this machine does each kind of its work, and the hours that the whole then takes.

    .venv/bin/python tests/benchmarks/rehearsal.py [WORKS, such as search or 'train resnet18'; default all] -> results/benchmarks/rehearsal.csv

Photos of the rendered city at the original's 512 x 512, the profile's own trainings, batches, scales and pairs, but few of each: what is counted
are images, pairs and queries a second. How many of them the whole profile needs follows from its table rows and the published sizes of the data
sets. Each work is also done on tensors in memory, and photos are also decoded alone: what the longer of the two leaves is waiting. The weights
are the package's instead of ImageNet's, which makes no difference to the time.
"""

import json
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
from bare import city_model, seconds, training_step

from vgeo import city, geowarp, needs
from vgeo.photos.places import cosplace_classes
from vgeo.photos.images import load_batches
from vgeo.photos.tables import read_photos
from vgeo.retrieval.describe import describe
from vgeo.training.grl import Domain
from vgeo.training.geowarp import Warp
from vgeo.models.network import BACKBONES
from vgeo.device import device
from vgeo.study.profiles import PAPER_COUNTS, ROOT, profile
from vgeo.retrieval.search import search
from vgeo.study.rows import DATASETS, TRAININGS, backbone_of
from vgeo.study.study import Study
from vgeo.training.loop import Recipe, train
from vgeo.training.batches import batches, live_views
from vgeo.device import precision

PAPER = profile("paper")
GPU = torch.cuda.is_available()
ITERATIONS = 60 if GPU else 3  # of each training; the first two warm up
IMAGES = 1024 if GPU else 16  # described at each scale
PAIRS = 1600 if GPU else 40
JOINT = {
    "efficientnet_v2_s": 26e9,
    "resnet18": 0,
}  # bytes: GeoWarp's joint training of the larger network was killed on a machine with 24 GiB (25.8e9)
TARGET = ROOT / "results" / "benchmarks" / "rehearsal.csv"


def training(name, table, night, folder):
    """Training images a second: from files as the study trains, and, where nothing is trained along, the same iteration on tensors in memory."""
    recipe = Recipe(
        weights="city",
        image_size=PAPER.image_size,
        epochs=1,
        iterations=ITERATIONS,
        batch_size=PAPER.batch_size,
        lr_model=PAPER.lr_model,
        lr_classifier=PAPER.lr_classifier,
        seed=0,
        precision=precision(),
        lr_extra=PAPER.lr_regression,
        **TRAININGS[name],
    )
    rows, clock = batches(table["label"].to_numpy(), recipe.batch_size, 0, ITERATIONS, 0), []
    random = np.random.default_rng(0)

    def views(photos, rows, timed=False):
        def of(model, first):
            for trunk in live_views(
                model,
                photos["path"].to_numpy(),
                rows,
                recipe.image_size,
                0,
                first,
                recipe.precision,
            ):
                if timed:
                    if GPU:
                        torch.cuda.synchronize()
                    clock.append(time.perf_counter())
                yield trunk

        return of

    extra, targets = None, None
    if recipe.method == "GRL":
        extra, targets = (
            Domain(recipe.backbone, PAPER.grl_weight),
            views(night, [random.integers(len(night), size=len(row)) for row in rows]),
        )
    if recipe.method == "GeoWarp":
        pairs = random.integers(len(table), size=(200, 2))
        extra = Warp(
            table["path"].to_numpy(),
            pairs,
            recipe.image_size,
            PAPER.geowarp["stages"][recipe.backbone],
            PAPER.geowarp,
            0,
        )
    with open(os.devnull, "w") as nowhere, redirect_stderr(nowhere):
        train(
            recipe, table, lambda model: 0.0, folder, views(table, rows, timed=True), targets, extra
        )
    from_files = len(rows[0]) * (len(clock) - 2) / (clock[-1] - clock[1])
    if extra:
        return from_files, None

    images = torch.randn(
        len(rows[0]), 3, recipe.image_size, recipe.image_size, device=device()
    ).contiguous(memory_format=torch.channels_last)
    labels, step = (
        torch.arange(len(rows[0]), device=device()),
        training_step(recipe, int(table["label"].max()) + 1),
    )
    step(images, labels, True)
    n = max(2, ITERATIONS // 3)
    return from_files, len(images) * n / seconds(
        lambda: [step(images, labels, True) for _ in range(n)]
    )


def describing(backbone, paths, scale):
    """Images a second from files, and the bare forward pass."""
    model = city_model(backbone)
    describe(model, paths[:4], None, scale)
    from_files = len(paths) / seconds(lambda: describe(model, paths, None, scale))
    side = round(PAPER.image_size * scale)
    images = torch.randn(min(32, len(paths)), 3, side, side, device=device()).contiguous(
        memory_format=torch.channels_last
    )
    with torch.inference_mode():
        return from_files, len(images) / min(seconds(lambda: model(images)) for _ in range(3))


def comparing(backbone, paths):
    """Pairs a second: every query with five photos."""
    model, regression = city_model(backbone), geowarp.Regression().to(device()).eval()
    pairs = np.array(
        [
            (q % len(paths), (q * PAPER.rerank + i) % len(paths))
            for q in range(PAIRS // PAPER.rerank)
            for i in range(PAPER.rerank)
        ]
    )

    def local(images):
        return geowarp.local_features(model.features(images, PAPER.geowarp["stages"][backbone]))

    return len(pairs) / seconds(
        lambda: geowarp.pair_scores(
            local, regression, paths, paths, pairs, PAPER.image_size, precision=precision()
        )
    )


def more_pairs():
    """How many times the pairs of a plain re-ranked row its twelve multi-scale variants add: they share most. From the city's run."""
    steps = pd.Series(
        list(json.loads((ROOT / "results" / "city" / "run.json").read_text())["steps"])
    )
    found = (
        steps.str.extract(r"^compare (?P<pairs>\d+) pairs (?P<dataset>\S+)")
        .dropna()
        .astype({"pairs": int})
    )
    times = found["pairs"] / found.groupby("dataset")["pairs"].transform("min")
    return float(times[times > 1].mean())


def amounts(study):
    """{(work, backbone, detail): how many images, pairs or queries the whole profile has of it}, and how many photos are decoded for all that."""
    found, decoded = Counter(), 0
    for each in TRAININGS.values():
        backbone, method = each["backbone"], each.get("method", "CosPlace")
        images = PAPER.epochs * PAPER.iterations * PAPER.batch_size
        found["train", backbone, method] += images
        of_pairs = (
            PAPER.geowarp["self_supervised"] + 2 * PAPER.geowarp["mined"]
        ) / PAPER.batch_size
        decoded += images * {"CosPlace": 1, "GRL": 2, "GeoWarp": 1 + of_pairs}[method]
        found["describe", backbone, 1.0] += PAPER.epochs * sum(
            PAPER_COUNTS["sf-xs", "val", kind] for kind in ("database", "queries")
        )
    for name, root, scale, _ in {
        (name, *each) for name, roots in needs._described(study) for each in roots
    }:
        found["describe", backbone_of(name), scale] += PAPER_COUNTS[
            root.parts[-3], "test", "queries" if "queries" in root.name else "database"
        ]
    queries = sum(PAPER_COUNTS[dataset, "test", "queries"] for dataset in DATASETS)
    for backbone in BACKBONES:
        rows = sum(
            each["backbone"] == backbone and each.get("method") == "GeoWarp"
            for each in TRAININGS.values()
        )
        found["compare", backbone, "pairs"] = round(PAPER.rerank * queries * (rows + more_pairs()))
    found["search", "", "queries"] = (
        len(TRAININGS) * 13 * queries
    )  # a plain one and twelve variants: more than there are
    return found, decoded + sum(
        n for (work, *_), n in found.items() if work == "describe"
    ) + 2 * sum(n for (work, *_), n in found.items() if work == "compare")


def main(works):
    with tempfile.TemporaryDirectory() as folder:
        city.write_city(
            city.Plan(
                size=PAPER.image_size,
                seed=977,
                train_districts=1,
                val_districts=1,
                val_queries=24,
                test_queries=24,
                tokyo_places=8,
            ),
            folder,
        )
        study = Study("paper", folder)
        table = cosplace_classes(
            read_photos(Path(folder, "sf-xs", "train")),
            PAPER.cell,
            PAPER.angle,
            PAPER.n,
            PAPER.l,
            PAPER.min_images,
        )
        photos = list(study.sets["sf-xs"].database["path"])
        whole, decoded = amounts(study)
        decoding = len(photos) / seconds(
            lambda: [None for _ in load_batches(photos, PAPER.batch_size, None)]
        )
        rng = np.random.default_rng(0)
        database = rng.standard_normal((PAPER_COUNTS["sf-xs", "test", "database"], 512), np.float32)
        for (work, backbone, detail), amount in sorted(whole.items(), key=str):
            if works and not f"{work} {backbone}".startswith(tuple(works)):
                continue
            speed, bare = None, None
            if (
                work == "train"
                and detail == "GeoWarp"
                and not GPU
                and psutil.virtual_memory().total < JOINT[backbone]
            ):
                print(f"{backbone}, GeoWarp: not enough memory to train it here")
            elif work == "train":
                name = next(
                    name
                    for name, each in TRAININGS.items()
                    if (each["backbone"], each.get("method", "CosPlace")) == (backbone, detail)
                )
                Path(folder, f"out {name}").mkdir()
                speed, bare = training(
                    name, table, study._night_target(), Path(folder, f"out {name}")
                )
            elif work == "describe":
                speed, bare = describing(
                    backbone, (photos * (IMAGES // len(photos) + 1))[:IMAGES], detail
                )
            elif work == "compare":
                speed = comparing(backbone, photos)
            else:
                speed = 100 / seconds(lambda: search(database, database[:100], PAPER.predictions))
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
    total = result["hours"].sum()
    summary = {
        "machine": torch.cuda.get_device_name()
        if GPU
        else f"{os.cpu_count()} cores, {precision()}",
        "hours of all that was measured": round(total, 1),
        "not measured": int(result["hours"].isna().sum()),
        "hours of decoding, if it were done alone": round(decoded / decoding / 3600, 1),
        "photos decoded a second": round(decoding),
        "hours of searching": result.loc[result["work"] == "search", "hours"].sum(),
        "peak memory, GB": round(
            resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
            if not GPU
            else torch.cuda.max_memory_allocated() / 1e9,
            1,
        ),
    }
    pd.DataFrame([summary]).to_csv(TARGET.with_name("rehearsal_summary.csv"), index=False)
    print(summary)


def merge(row):
    """Puts a row in the place of the one of the same work: a stopped rehearsal has left what it measured."""
    known = (
        pd.read_csv(TARGET, dtype={"of": str}, keep_default_na=False)
        if TARGET.exists()
        else pd.DataFrame(columns=row)
    )
    same = (
        (known["work"] == row["work"])
        & (known["backbone"] == row["backbone"])
        & (known["of"] == row["of"])
    )
    pd.concat([known[~same], pd.DataFrame([row])]).sort_values(["work", "backbone", "of"]).to_csv(
        TARGET, index=False
    )


if __name__ == "__main__":
    main(sys.argv[1:])
