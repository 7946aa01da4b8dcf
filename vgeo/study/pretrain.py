"""Starting weights for those who have no network: `vgeo pretrain`.

No profile of the study uses the rendered streets that they are trained on. The ResNet18 learns from
the places' labels (`classify`). The EfficientNetV2-S learns nothing from labels in this time, and
imitates two teachers (`imitate`). At the end each head's linear layer becomes the whitening of
street photos' features, and the weights are stored in 8 bits a number.
"""

import json
from collections.abc import Callable
from copy import deepcopy
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from vgeo import files
from vgeo.city.plan import Plan
from vgeo.city.write import write_city, write_pretraining
from vgeo.device import device, precision, share
from vgeo.errors import VgeoError, say
from vgeo.models.network import GeoModel, build
from vgeo.models.weights import CITY_WEIGHTS, load_weights, save_weights, weights_hash
from vgeo.models.whitening import SHRINKAGE, Pooled, whiten_head
from vgeo.photos.places import Dataset, cosplace_classes, open_dataset
from vgeo.photos.tables import read_photos
from vgeo.retrieval.describe import describe
from vgeo.retrieval.metrics import first_hit, interval, recall
from vgeo.retrieval.search import search
from vgeo.study.cache import Cache
from vgeo.study.classify import MARGIN, Evaluate, Stage, classify
from vgeo.study.folders import cache_of, clone
from vgeo.study.imitate import AXES, BATCH, CELLS, RATE, VIEW, Teacher, imitate, write_lessons
from vgeo.training.checkpoint import Checkpoint
from vgeo.training.loop import write_log

MADE = ("resnet18", "efficientnet_v2_s")  # in this order: the first teaches the second
# Seeds that no profile uses.
PLACES = Plan(size=96, seed=977, images_per_class=16)  # photos with labels
PLACES_QUARTERS = 60  # of 48 classes of 16 images each
TEACHING = Plan(size=VIEW, seed=979, images_per_class=4)  # photos that lessons are made of
TEACHING_QUARTERS = 120  # of 48 classes of 4 images each: many styles, few photos of each
# San-Francisco-like streets to validate on, never trained on
CHECK = Plan(
    size=96,
    seed=978,
    train_districts=0,
    val_blocks=1,
    val_queries=300,
    test_blocks=0,
    tokyo_blocks=0,
    night_target=0,
    panorama_step=10.0,
    heading_step=30,
)
# Small images first: an image of 64 pixels costs a quarter of one of 128.
STAGES = (
    Stage(64, 1100, 64, 4e-4, 2e-4, (0.0, 0.6)),
    Stage(96, 200, 64, 2e-4, 1e-5, (0.4, 0.6)),
    Stage(96, 1600, 64, 3e-4, 1e-5, (0.4, 0.8)),
)
LESSONS = 30_000
# Views of 96 pixels at the end were tried: R@1 on real photographs fell from 66.0 to 57.9.
PUPIL_SIZE, PUPIL_ITERATIONS = 64, 2200
TEACHER_SIZES = {"efficientnet_lite0": 224, "resnet18": 128}  # pixels: where each is at its best
CHECK_EVERY = {"resnet18": 300, "efficientnet_v2_s": 600}  # iterations
WHITENED_ON, WHITENED_SIZE = 2000, 96  # photos of TEACHING, and pixels

Checks = dict[str, tuple[Dataset, int]]  # name: what a model is scored on, and the size in pixels
Make = Callable[[Evaluate, Path], tuple[GeoModel, list[dict]]]


def pretrain(
    backbones: tuple[str, ...] = MADE,
    out: Path | None = None,
    real: Path | None = None,
    cache: Cache | None = None,
) -> None:
    """Renders the streets, trains backbones and writes their weights to a folder.

    The folder gets `<backbone>.safetensors` (8 bits a number) with its recipe (.json) and log
    (.csv), and a card, `README.md`. A stopped call goes on where it was.

    Parameters
    ----------
    backbones : names of MADE. The teacher of an EfficientNetV2-S is the ResNet18 in `out` where
        there is one, else the packaged one.
    out : the folder, by default runs/pretrained of the clone.
    real : a folder with `database` and `queries_v1`, photographs to score beside the streets. They
        are never trained on.
    cache : of the streets and the trainings, by default the study's.

    Raises
    ------
    VgeoError : another backbone is asked for, or the call is one of several processes: InfoNCE
        compares the images of a whole batch.
    """
    for name in backbones:
        if name not in MADE:
            raise VgeoError(f"no pre-training of {name!r}: use one of {', '.join(MADE)}")
    if share().count > 1:
        raise VgeoError("pretrain trains in one process: start it without torchrun")
    out = Path(out) if out else clone() / "runs" / "pretrained"
    cache = cache or Cache(cache_of())
    teaching = _streets(cache, "teach with", TEACHING, TEACHING_QUARTERS)
    paths = read_photos(teaching, "teaching photos").paths
    check = _streets(cache, "validate on", CHECK, 0) / "sf-xs/val"
    checks: Checks = {"city": (open_dataset("city", check / "queries", check / "database"), 96)}
    if real:
        real = Path(real)
        checks["real"] = (open_dataset("real", real / "queries_v1", real / "database"), 128)
    for backbone in (name for name in MADE if name in backbones):
        made_of, make = (
            _from_labels(cache) if backbone == "resnet18" else _from_teachers(cache, paths, out)
        )
        photos = {
            name: [data.queries.fingerprint, data.database.fingerprint]
            for name, (data, _) in checks.items()
        }
        recipe = {"backbone": backbone, **made_of, "checks": photos}

        def write(folder: Path, recipe=recipe, make=make) -> None:
            train(make, paths, checks, recipe, folder)

        code = ("vgeo.study.pretrain",)
        label = f"pre-train {backbone}"
        folder = cache.step("pretrained", label, recipe, write, code, resumes=True)
        for source, suffix in (("model", "safetensors"), ("model", "json"), ("log", "csv")):
            content = (folder / f"{source}.{suffix}").read_bytes()
            files.write(out / f"{backbone}.{suffix}", content)
        last = json.loads((folder / "model.json").read_text())["score"]
        say(f"{out / backbone}.safetensors: {last}")
    write_card(out)


def train(make: Make, paths: list[str], checks: Checks, recipe: dict, folder: Path) -> None:
    """Trains a backbone and leaves `model.safetensors`, `model.json` and `log.csv`.

    Parameters
    ----------
    make : trains, with a score at intervals and a checkpoint file; returns the model and the log.
    paths : street photos whose features whiten the head.
    recipe : what the weights are made of, JSON values, for `model.json`. Its entry "in_words" holds
        lines for the card.
    """
    checkpoint = folder / "checkpoint.pt"
    sample = paths[:: max(1, len(paths) // WHITENED_ON)]

    def evaluate(model: GeoModel) -> dict[str, float]:
        return score(whitened(model, sample), checks)

    words = f"the head whitens the features of {len(sample)} photos, seed {TEACHING.seed}"
    recipe = recipe | {
        "whitened_on": {
            "streets": asdict(TEACHING),
            "quarters": TEACHING_QUARTERS,
            "photos": len(sample),
            "size": WHITENED_SIZE,
            "shrinkage": SHRINKAGE,
        },
        "in_words": [
            *recipe["in_words"],
            words,
            "the curve is of the weights in float32, the scores above are of the stored ones",
        ],
    }
    model, log = make(evaluate, checkpoint)
    scored = whitened(model, sample)
    save_weights(scored, folder / "model.safetensors", recipe, torch.float16, in_bytes=True)
    stored = load_weights(scored, folder / "model.safetensors")
    seconds = round(sum(row.get("seconds", 0) for row in log))
    recipe = recipe | {
        "score": {"iteration": log[-1]["iteration"], "seconds": seconds, **score(stored, checks)},
        "checks": {
            name: {"queries": len(data.queries), "database": len(data.database), "size": size}
            for name, (data, size) in checks.items()
        },
    }
    files.write(folder / "model.json", json.dumps(recipe, indent=2) + "\n")
    write_log(log, folder / "log.csv")
    Checkpoint(checkpoint).remove()


def whitened(model: GeoModel, paths: list[str]) -> GeoModel:
    """A copy of the model, in evaluation mode, whose head whitens the features of photos."""
    model = deepcopy(model).eval()
    features = torch.from_numpy(describe(Pooled(model), paths, WHITENED_SIZE))
    whiten_head(model, features)
    return model


def score(model: GeoModel, checks: Checks) -> dict[str, float]:
    """R@1 in percent on each of the checks."""
    scores = {}
    for name, (data, size) in checks.items():
        database, queries = (
            describe(model, photos.paths, size) for photos in (data.database, data.queries)
        )
        hits = first_hit(search(database, queries, 1)[0], data.positives)
        scores[name] = round(recall(hits, 1), 1)
    return scores


def write_card(folder: Path) -> None:
    """Writes `README.md` from the recipes that lie beside the weights in a folder."""
    lines = [
        "# Starting weights",
        "",
        "Made by `vgeo pretrain` on rendered daylight streets that no profile uses. No real",
        "photograph was trained on. Scores are R@1 in percent, with a 95 % interval over the",
        "queries, on streets never trained on: `city` are rendered San-Francisco-like ones, `real`",
        "are photographs of San Francisco. The `.csv` has the curve, the `.json` the recipe. Files",
        "are safetensors with 8 bits a number.",
    ]
    for path in sorted(Path(folder).glob("*.json")):
        recipe = json.loads(path.read_text())
        weights, last = path.with_suffix(".safetensors"), recipe["score"]
        lines += ["", f"## {path.stem}", ""]
        for name, check in recipe["checks"].items():
            counts = f"{check['queries']} queries, {check['database']} database photos"
            right = round(last[name] * check["queries"] / 100)
            low, high = interval(np.arange(check["queries"]) < right)
            bounds = f"{low:.1f} to {high:.1f}"
            lines.append(f"- {name} {last[name]} ({bounds}): {counts}, {check['size']} pixels")
        lines += [f"- {line}" for line in recipe["in_words"]]
        lines.append(f"- {last['seconds'] / 60:.0f} minutes of training")
        lines.append(f"- {weights.stat().st_size:,} bytes")
        lines.append(f"- SHA-256 of the tensors {weights_hash(weights)}")
    files.write(Path(folder) / "README.md", "\n".join([*lines, ""]))


def _streets(cache: Cache, what: str, plan: Plan, quarters: int) -> Path:
    """The folder of rendered streets: of so many quarters, or, for 0, of a city."""

    def make(folder: Path) -> None:
        if quarters:
            write_pretraining(plan, folder, quarters)
        else:
            write_city(plan, folder)

    recipe = {"plan": asdict(plan), "quarters": quarters}
    return cache.step("data", f"render streets to {what}", recipe, make, ("vgeo.city.write",))


def _from_labels(cache: Cache) -> tuple[dict, Make]:
    """What a ResNet18 is trained from, and its training."""
    streets = _streets(cache, "pre-train on", PLACES, PLACES_QUARTERS)
    # all groups of one cell size: the cells lie 50 m apart as rendered
    classes = cosplace_classes(read_photos(streets, "pre-training photos"))
    words = [
        f"trained on {len(classes.photos)} photos of {classes.count} places in {PLACES_QUARTERS} "
        f"quarters of seed {PLACES.seed}, by the places' labels"
    ]
    for stage in STAGES:
        batch = f"{stage.iterations} iterations of {stage.batch_size}"
        rates = f"rate {stage.lr:g} to {stage.lr_end:g}"
        words.append(f"{batch} images at {stage.size} pixels, {rates}")
    made_of = {
        "streets": asdict(PLACES),
        "quarters": PLACES_QUARTERS,
        "stages": [asdict(stage) for stage in STAGES],
        "margin": asdict(MARGIN),
        "precision": precision(),
        "device": device().type,
        "in_words": words,
    }

    def make(evaluate: Evaluate, checkpoint: Path) -> tuple[GeoModel, list[dict]]:
        places = classes, PLACES.size, PLACES.seed
        every = CHECK_EVERY["resnet18"]
        return classify("resnet18", STAGES, *places, evaluate, checkpoint, every)

    return made_of, make


def _from_teachers(cache: Cache, paths: list[str], out: Path) -> tuple[dict, Make]:
    """What an EfficientNetV2-S is trained from, and its training."""
    weights = out / "resnet18.safetensors"
    weights = weights if weights.exists() else CITY_WEIGHTS / "resnet18.safetensors"
    models = {
        "efficientnet_lite0": build("efficientnet_lite0", "imagenet"),
        "resnet18": build("resnet18", weights),
    }
    turns = PUPIL_ITERATIONS * BATCH
    words = [
        f"imitates EfficientNet-Lite0 (ImageNet) and the ResNet18 on {LESSONS} views of "
        f"{len(paths)} photos in {TEACHING_QUARTERS} quarters of seed {TEACHING.seed}",
        f"{PUPIL_ITERATIONS} iterations of {BATCH} images at {PUPIL_SIZE} pixels "
        f"({turns:,} images), rate {RATE:g} to 0",
    ]
    made_of = {
        "streets": asdict(TEACHING),
        "quarters": TEACHING_QUARTERS,
        "lessons": LESSONS,
        "teachers": {
            name: {"size": TEACHER_SIZES[name], "weights": weights_hash(model)}
            for name, model in models.items()
        },
        "targets": {"axes": AXES, "cells": CELLS**2},
        "size": PUPIL_SIZE,
        "iterations": PUPIL_ITERATIONS,
        "batch_size": BATCH,
        "lr": RATE,
        "precision": precision(),
        "device": device().type,
        "in_words": words,
    }

    def lessons(folder: Path) -> None:
        teachers = []
        for name, model in models.items():
            model.to(device()).to(memory_format=torch.channels_last).eval()  # type: ignore
            teachers.append(Teacher(model, TEACHER_SIZES[name]))
        write_lessons(teachers, paths, LESSONS, TEACHING.seed, folder)

    def make(evaluate: Evaluate, checkpoint: Path) -> tuple[GeoModel, list[dict]]:
        code = ("vgeo.study.imitate", "vgeo.city.write")
        names = ("streets", "quarters", "lessons", "teachers", "precision", "device")
        recipe = {name: made_of[name] for name in names}
        folder = cache.step("lessons", "lessons of two teachers", recipe, lessons, code)
        training = PUPIL_SIZE, PUPIL_ITERATIONS, TEACHING.seed
        every = CHECK_EVERY["efficientnet_v2_s"]
        return imitate("efficientnet_v2_s", folder, *training, evaluate, checkpoint, every)

    return made_of, make
