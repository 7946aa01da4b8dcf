"""What test_parallel.py runs alone and by two processes: `parallel_case.py PHOTOS OUT` describes, compares pairs and trains all three methods."""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from vgeo import joint, parallel, train
from vgeo.study.cache import artefact
from vgeo.retrieval.describe import describe
from vgeo.models.geowarp import Regression, local_features
from vgeo.retrieval.rerank import pair_scores
from vgeo.training.grl import Domain
from vgeo.training.geowarp import Warp
from vgeo.training.loop import train_alone
from vgeo.models.network import build
from vgeo.training.loop import Recipe
from vgeo.training.batches import batches, live_views

SIDE, NUMBERS = (
    64,
    {
        "k": 0.6,
        "self_supervised": 4,
        "mined": 4,
        "weights": {"self_supervised": 1.0, "feature_wise": 10.0, "consistency": 0.1},
    },
)


def main(photos, out):
    train.LOG_EVERY = joint.LOG_EVERY = 1
    paths = np.array(sorted(map(str, Path(photos).iterdir())))
    torch.manual_seed(0)
    model, regression = build("resnet18").eval(), Regression().eval()
    found = {
        "own sizes": describe(model, list(paths), None, batch_size=3),
        "one size": describe(model, list(paths), SIDE, batch_size=5),
        "one batch": describe(model, list(paths[:2]), SIDE),
    }
    pairs = np.array([(q, i) for q in range(6) for i in range(len(paths))])
    found["pairs"] = pair_scores(
        lambda x: local_features(model.features(x, 6)),
        regression,
        list(paths[:6]),
        list(paths),
        pairs,
        SIDE,
    )
    artefact(out, "found", {}, lambda folder: np.savez(folder / "found.npz", **found))

    table = pd.DataFrame({"path": paths, "label": np.arange(len(paths)) // 3})
    warp = {"size": SIDE, "stages": 6, "numbers": NUMBERS, "seed": 1}
    for method, extra in (
        ("CosPlace", None),
        ("GRL", Domain("resnet18", 0.3)),
        ("GeoWarp", Warp(paths, np.array([[0, 1], [3, 4], [6, 7]]), **warp)),
    ):
        recipe = Recipe(
            "resnet18",
            str(Path(out, "start.safetensors")),
            "ArcFace",
            SIDE,
            1,
            3,
            4,
            1e-4,
            0.01,
            1,
            "float32",
            method,
            1e-4,
        )
        rows = batches(table["label"].to_numpy(), 4, 0, 3, 1)

        def views(model, first):
            return live_views(model, paths, rows, SIDE, 1, first, part=parallel.part())

        def make(folder):
            torch.manual_seed(2)
            train.train(
                recipe,
                table,
                lambda model: float(describe(model, list(paths[:4]), SIDE).std()),
                folder,
                views,
                views if method == "GRL" else None,
                extra,
            )

        artefact(out, method, {}, make, resumes=True, together=True)

    def alone(folder):
        torch.manual_seed(3)
        train_alone(
            Warp(paths, np.array([[0, 1], [3, 4], [6, 7]]), **warp),
            build("resnet18"),
            3,
            1e-4,
            "float32",
            folder,
        )

    artefact(out, "alone", {}, alone, resumes=True, together=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
