"""What test_processes.py runs alone and by two processes: `process_case.py STREETS OUT`.

Each process describes photos and trains with all techniques, into a folder of its own below OUT.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from torch.nn.modules.batchnorm import _BatchNorm

from vgeo.device import share
from vgeo.errors import VgeoError
from vgeo.models.network import DIM, build
from vgeo.models.weights import load_weights, weights_hash
from vgeo.photos.places import Classes
from vgeo.photos.tables import read_photos
from vgeo.retrieval.describe import describe
from vgeo.training.batches import batches, live_views
from vgeo.training.geowarp import Settings as WarpSettings
from vgeo.training.geowarp import WarpLoss
from vgeo.training.grl import GradientReversal
from vgeo.training.grl import Settings as DomainSettings
from vgeo.training.loop import Pace, Recipe, train_beside, train_extractor

SIDE, ITERATIONS = 64, 3
WARP = WarpSettings(
    k=0.6,
    self_supervised=4,
    mined=4,
    self_supervised_weight=1.0,
    feature_wise_weight=10.0,
    consistency_weight=0.1,
    candidates=40,
    near=1.2,
    stages={"resnet18": 6},
    learning_rate=1e-4,
    alone=ITERATIONS,
)


def frozen(module):
    """The module with its BatchNorms in evaluation mode."""
    for layer in module.modules():
        if isinstance(layer, _BatchNorm):
            layer.eval()
    return module


def main(streets, out):
    out = out / str(share().index)
    out.mkdir(parents=True)
    photos = read_photos(streets / "train")
    classes = Classes(photos, np.repeat(np.arange(4), 3), (0, 0, 0))
    night, paths = read_photos(streets / "night"), np.array(photos.paths)
    torch.manual_seed(0)
    model = build("resnet18").eval()
    found = {
        "own sizes": describe(model, photos.paths, None, batch_size=5),
        "one size": describe(model, photos.paths, SIDE, batch_size=3),
        "one batch": describe(model, photos.paths[:2], SIDE),
    }
    np.savez(out / "descriptors.npz", **found)

    start = streets / "start.safetensors"
    pairs = np.array([[0, 1], [3, 4], [6, 7]])
    nights = [np.arange(4)] * ITERATIONS

    def views(paths, rows):
        return lambda model, first: live_views(model, paths, rows, SIDE, 1, first, share=share())

    def train(name, extra=None, target=None, batch_size=4, statistics=False, centres=None):
        """Leaves the log, and the hash of the model that each process validates at the end."""
        folder = out / name
        folder.mkdir()
        recipe = Recipe(
            "resnet18",
            "start",
            "ArcFace",
            SIDE,
            epochs=1,
            iterations=ITERATIONS,
            batch_size=batch_size,
            lr_model=1e-4,
            lr_classifier=0.01,
            seed=1,
            precision="float32",
            class_means=centres is not None,
            keeps_statistics=centres is not None,
        )

        def validate(model):
            if not statistics:
                frozen(model)
            (folder / "validated").write_text(weights_hash(model))
            return 0.0

        targets = views(np.array(target.paths), nights) if target is not None else None
        own, rate = views(paths, batches(classes.labels, batch_size, 0, ITERATIONS, 1)), 1e-4
        beside, pace = (targets, extra, rate, centres), Pace(log_every=1)
        train_extractor(recipe, start, classes, validate, folder, own, *beside, pace=pace)

    def warp(stages):
        torch.manual_seed(2)
        return frozen(WarpLoss(WARP, paths, pairs, SIDE, stages, seed=1))

    technique = GradientReversal(DomainSettings(0.3, 1e-4), night)
    domains = technique.prepare(model, classes, SIDE, 1, step=None)
    train("CosPlace")
    train("GRL", domains, night)
    train("GeoWarp", warp(8))
    train("statistics", statistics=True)
    centres = np.random.default_rng(0).normal(size=(classes.count, DIM)).astype(np.float32)
    train("city", statistics=True, centres=centres)
    (out / "alone").mkdir()
    beside = load_weights(build("resnet18"), start)
    train_beside(warp(6), beside, ITERATIONS, 1e-4, "float32", out / "alone", pace=Pace(1))
    try:
        train("odd", batch_size=3)
    except VgeoError as error:
        (out / "odd" / "refused").write_text(str(error))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
