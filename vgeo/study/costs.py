"""The stopwatch: how much longer a change takes, in training and in answering queries."""

import json
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from vgeo.device import device, precision
from vgeo.models.network import DIM
from vgeo.retrieval.describe import describe
from vgeo.retrieval.rerank import describe_points, pair_scores, point_scores
from vgeo.retrieval.search import search
from vgeo.study.cache import Cache
from vgeo.study.descriptions import load
from vgeo.study.evaluation import Evaluations, points_side
from vgeo.study.rows import NIGHT_BRIGHTNESS

QUERIES = 64  # at most, that are answered
ROUNDS = 3  # of which the fastest counts


def machine() -> dict[str, str | int | None]:
    """What times depend on: the machine's name, processor, cores and GPU."""
    lines = (
        Path("/proc/cpuinfo").read_text().splitlines() if os.path.exists("/proc/cpuinfo") else []
    )
    model = next(
        (line.split(":")[1].strip() for line in lines if line.startswith("model name")), ""
    )
    return {
        "name": platform.node(),
        "system": f"{platform.system()} {platform.machine()}",
        "processor": model or platform.processor(),
        "cores": os.cpu_count(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "device": str(device()),
        "precision": precision(),
    }


def measure_costs(evaluations: Evaluations, cache: Cache) -> dict[str, float]:
    """Ratios of times, with a change over without it, on this machine.

    Returns
    -------
    {"GRL training", "EffV2s training", "GeoWarp testing", "XFeat testing", "brightness testing":
    ratio}. For XFeat the database's points are known before, as its descriptors are.
    """
    profile, trainings = evaluations.profile, evaluations.trainings
    dataset = next(iter(evaluations.data.test_sets.values()))
    models = {name: trainings.train(name) for name in ("CosFace", "GRL", "EffV2s", "GeoWarp")}
    paths, size = dataset.queries.paths[:QUERIES], profile.test_size
    k = min(profile.testing.rerank, len(dataset.database))

    def make(folder: Path) -> None:
        base = models["CosFace"].seconds
        ratios = {f"{name} training": models[name].seconds / base for name in ("GRL", "EffV2s")}
        model = load(models["GeoWarp"].weights, models["GeoWarp"].backbone)
        warp = trainings.load_warp(models["GeoWarp"])
        first = evaluations.search(models["GeoWarp"], dataset).predictions[: len(paths), :k]
        pairs = np.array([(query, row) for query, rows in enumerate(first) for row in rows])
        database = np.zeros((len(dataset.database), DIM), np.float32)

        def compare() -> None:
            pair_scores(
                warp.local,
                warp.regression,
                paths,
                dataset.database.paths,
                pairs,
                profile.image_size,
                precision=precision(),
            )

        side = points_side(profile.image_size)
        rows, places = np.unique(first, return_inverse=True)
        known = describe_points([dataset.database.paths[row] for row in rows], side)

        def compare_points() -> None:
            found, far = describe_points(paths, side), np.zeros(first.shape, np.float32)
            point_scores(found, known, places.reshape(first.shape), far)

        def described(brightness: float = 1.0) -> np.ndarray:
            return describe(model, paths, size, brightness=brightness, precision=precision())

        described()  # warms up
        plain = _seconds(described)
        dark = _seconds(lambda: described(NIGHT_BRIGHTNESS))
        searched = _seconds(lambda: search(database, database[: len(paths)], k))
        answered = plain + searched
        ratios["GeoWarp testing"] = (answered + _seconds(compare)) / answered
        ratios["XFeat testing"] = (answered + _seconds(compare_points)) / answered
        ratios["brightness testing"] = dark / plain
        (folder / "costs.json").write_text(json.dumps(ratios))

    hashes = [evaluations.descriptions.hash(model.weights) for model in models.values()]
    recipe = {
        "models": hashes,
        "photos": [dataset.queries.fingerprint, dataset.database.fingerprint],
        "sizes": [profile.image_size, size],
        "machine": machine(),
    }
    code = ("vgeo.retrieval.rerank", "vgeo.retrieval.search")
    folder = cache.step("costs", "measure costs", recipe, make, code, together=True)
    return json.loads((folder / "costs.json").read_text())


def _seconds(work: Callable[[], object]) -> float:
    """The fastest of ROUNDS rounds."""
    times = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return min(times)
