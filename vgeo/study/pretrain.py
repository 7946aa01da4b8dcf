"""Starting weights: both backbones trained from random weights on rendered daylight streets.

No profile of the study uses these streets. The ResNet18 learns from the places' labels; the
EfficientNetV2-S, which learns nothing from labels in this time, imitates the ResNet18.
"""

import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

from vgeo import files
from vgeo.city.plan import Plan
from vgeo.city.write import write_city, write_pretraining
from vgeo.device import device, numpy_stream, precision, share, torch_stream
from vgeo.errors import VgeoError, say
from vgeo.models.network import DIM, GeoModel, build
from vgeo.models.weights import load_weights, save_weights, weights_hash
from vgeo.photos.images import load_batches
from vgeo.photos.places import Classes, Dataset, cosplace_classes, open_dataset
from vgeo.photos.tables import read_photos
from vgeo.retrieval.describe import describe
from vgeo.retrieval.metrics import first_hit, recall
from vgeo.retrieval.search import search
from vgeo.study.cache import Cache
from vgeo.study.folders import cache_of, clone
from vgeo.training.augment import strong
from vgeo.training.batches import batches, by_class
from vgeo.training.checkpoint import Checkpoint
from vgeo.training.loop import PACE, Pace, Task, run, write_log
from vgeo.training.losses import AngularMarginLoss, Margin

STREETS = Plan(size=96, seed=977, images_per_class=16)  # a seed that no profile uses
QUARTERS = 60  # of 48 classes of 16 images each
# San-Francisco-like streets to validate on, never trained on
CHECK = Plan(
    size=96,
    seed=978,
    train_districts=0,
    test_districts=0,
    test_queries=0,
    tokyo_districts=0,
    tokyo_places=0,
    night_target=0,
    val_queries=300,
)
CHECK_EVERY = 300  # iterations


@dataclass(frozen=True)
class Stage:
    """Iterations at one image size, in pixels.

    AdamW's rate falls from lr to lr_end along a cosine. The augmentation's strength (see
    `augment.strong`) rises from the first to the second of two numbers.
    """

    size: int
    iterations: int
    batch_size: int
    lr: float
    lr_end: float
    strength: tuple[float, float]


# Small images first: an image of 64 pixels costs a quarter of one of 128.
STAGES = {
    "resnet18": (
        Stage(64, 1100, 64, 4e-4, 2e-4, (0.0, 0.6)),
        Stage(96, 200, 64, 2e-4, 1e-5, (0.4, 0.6)),
        Stage(96, 1600, 64, 3e-4, 1e-5, (0.4, 0.8)),
    ),
    "efficientnet_v2_s": (
        Stage(64, 400, 48, 1e-3, 5e-4, (0.0, 0.6)),
        Stage(96, 250, 48, 5e-4, 2e-5, (0.4, 0.7)),
    ),
}
MARGIN = Margin(s=20)  # no margin: a network that knows nothing yet does not get past one
LR_CLASSIFIER = 2.0  # times the model's rate
WARM_UP = 50  # iterations over which the rate rises
TEMPERATURE = 0.1

Checks = dict[str, tuple[Dataset, int]]  # name: what a model is scored on, and the size in pixels


def pretrain(out: Path | None = None, real: Path | None = None, cache: Cache | None = None) -> None:
    """Renders the streets, trains both backbones and writes their weights to a folder.

    The folder gets `<backbone>.safetensors` (float16) with its recipe (.json) and log (.csv), and a
    card, `README.md`. A stopped call goes on where it was.

    Parameters
    ----------
    out : the folder, by default runs/pretrained of the clone.
    real : a folder with `database` and `queries_v1`, photographs to score beside the streets. They
        are never trained on.
    cache : of the streets and the trainings, by default the study's.

    Raises
    ------
    VgeoError : called in one of several processes: InfoNCE compares the images of a whole batch.
    """
    if share().count > 1:
        raise VgeoError("pretrain trains in one process: start it without torchrun")
    out = Path(out) if out else clone() / "runs" / "pretrained"
    cache = cache or Cache(cache_of())

    def render(what: str, plan: Plan, quarters: int) -> Path:
        def make(folder: Path) -> None:
            if quarters:
                write_pretraining(plan, folder, quarters)
            else:
                write_city(plan, folder)

        recipe = {"plan": asdict(plan), "quarters": quarters}
        return cache.step("data", f"render streets to {what}", recipe, make, ("vgeo.city.write",))

    streets = render("pre-train on", STREETS, QUARTERS)
    check = render("validate on", CHECK, 0)
    val = check / "sf-xs/val"
    checks: Checks = {"city": (open_dataset("city", val / "queries", val / "database"), 96)}
    if real:
        real = Path(real)
        checks["real"] = (open_dataset("real", real / "queries_v1", real / "database"), 128)
    # all groups of one cell size: the cells lie 50 m apart as rendered
    classes = cosplace_classes(read_photos(streets, "pre-training images"))
    teacher = None
    for backbone, stages in STAGES.items():
        folder = _trained(cache, backbone, stages, classes, teacher, checks)
        for source, suffix in (("model", "safetensors"), ("model", "json"), ("log", "csv")):
            content = (folder / f"{source}.{suffix}").read_bytes()
            files.write(out / f"{backbone}.{suffix}", content)
        teacher = load_weights(build(backbone), folder / "model.safetensors")
        teacher = teacher.to(device()).to(memory_format=torch.channels_last).eval()
        last = json.loads((folder / "model.json").read_text())["score"]
        say(f"{out / backbone}.safetensors: {last}")
    write_card(out)


def write_card(folder: Path) -> None:
    """Writes `README.md` from the recipes that lie beside the weights in a folder."""
    lines = [
        "# Starting weights",
        "",
        "Made by `vgeo pretrain` on rendered daylight streets that no profile uses. No real",
        "photograph was trained on. Scores are R@1 in percent on streets never trained on: `city`",
        "are rendered San-Francisco-like ones, `real` are photographs of San Francisco. The `.csv`",
        "has the curve, the `.json` the recipe. Files are safetensors of float16.",
    ]
    for path in sorted(Path(folder).glob("*.json")):
        recipe = json.loads(path.read_text())
        last = recipe["score"]
        lines += ["", f"## {path.stem}", ""]
        for name, check in recipe["checks"].items():
            counts = f"{check['queries']} queries, {check['database']} database photos"
            lines.append(f"- {name} {last[name]}: {counts}, {check['size']} pixels")
        lines.append(
            f"- trained on {recipe['images']} images of {recipe['classes']} classes in "
            f"{recipe['quarters']} quarters of seed {recipe['streets']['seed']}"
        )
        for stage in recipe["stages"]:
            batch = f"{stage['iterations']} iterations of {stage['batch_size']}"
            rates = f"rate {stage['lr']:g} to {stage['lr_end']:g}"
            lines.append(f"- {batch} images at {stage['size']} pixels, {rates}")
        lines.append(f"- {last['seconds'] / 60:.0f} minutes of training")
        lines.append(f"- SHA-256 of the tensors {weights_hash(path.with_suffix('.safetensors'))}")
        lines += [f"- {recipe['note']}"] if "note" in recipe else []
    files.write(Path(folder) / "README.md", "\n".join([*lines, ""]))


def _trained(
    cache: Cache,
    backbone: str,
    stages: tuple[Stage, ...],
    classes: Classes,
    teacher: GeoModel | None,
    checks: Checks,
) -> Path:
    """The folder of a backbone's finished training, see `train`."""
    photos = [classes.photos]
    for data, _ in checks.values():
        photos += [data.queries, data.database]
    recipe = {
        "backbone": backbone,
        "stages": [asdict(stage) for stage in stages],
        "photos": [each.fingerprint for each in photos],
        "teacher": weights_hash(teacher) if teacher else None,
        "precision": precision(),
        "device": device().type,
    }

    def make(folder: Path) -> None:
        train(backbone, stages, classes, teacher, checks, folder)

    code = ("vgeo.study.pretrain",)
    return cache.step("pretrained", f"pre-train {backbone}", recipe, make, code, resumes=True)


def train(
    backbone: str,
    stages: tuple[Stage, ...],
    classes: Classes,
    teacher: GeoModel | None,
    checks: Checks,
    folder: Path,
    every: int = CHECK_EVERY,
    pace: Pace = PACE,
) -> None:
    """Trains a backbone from random weights; leaves `model.safetensors`, `model.json`, `log.csv`.

    Parameters
    ----------
    teacher : a model to imitate, in evaluation mode; None: the labels are learnt.
    every : iterations between two scores on the checks.
    """
    where, seed = device(), STREETS.seed
    torch.manual_seed(seed)
    model = build(backbone).to(where).to(memory_format=torch.channels_last)
    for module in model.modules():
        if isinstance(module, torchvision.ops.StochasticDepth):
            module.p = 0.0  # a network that has learned nothing yet loses too much by it
    classifier = AngularMarginLoss(DIM, classes.count, MARGIN).to(where)
    add_neck(model)
    groups = [
        {"params": model.parameters(), "lr": 1.0, "weight_decay": 0.02},
        {"params": classifier.parameters(), "lr": LR_CLASSIFIER, "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups)

    def clip(*_):
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)

    optimizer.register_step_pre_hook(clip)

    def evaluate(iteration: int, kept: dict) -> dict:
        stage, _ = _stage(stages, max(iteration - 1, 0))
        return {"size": stage.size, **score(model, checks)}

    total = sum(stage.iterations for stage in stages)
    task = Task(
        _Step(model, classifier, teacher),
        [optimizer],
        lambda first: _views(classes, stages, first, seed),
        total,
        epoch=every,
        precision=precision(),
        advice="lower the stages' rates",
        rate=lambda iteration: _rate(stages, iteration),
        evaluate=evaluate,
    )
    checkpoint = folder / "checkpoint.pt"
    log, _ = run(task, checkpoint, f"pre-train {backbone}", pace)
    fold_neck(model)
    seconds = round(sum(row.get("seconds", 0) for row in log))
    sizes = {
        name: {"queries": len(data.queries), "database": len(data.database), "size": size}
        for name, (data, size) in checks.items()
    }
    recipe = {
        "backbone": backbone,
        "stages": [asdict(stage) for stage in stages],
        "margin": asdict(MARGIN),
        "streets": asdict(STREETS),
        "quarters": QUARTERS,
        "images": len(classes.photos),
        "classes": classes.count,
        "iterations": total,
        "score": log[-1] | {"seconds": seconds},
        "checks": sizes,
    }
    write_log(log, folder / "log.csv")
    save_weights(model, folder / "model.safetensors", recipe, torch.float16)
    Checkpoint(checkpoint).remove()


def score(model: nn.Module, checks: Checks) -> dict[str, float]:
    """R@1 in percent on each of the checks."""
    scores = {}
    for name, (data, size) in checks.items():
        database, queries = (
            describe(model, photos.paths, size) for photos in (data.database, data.queries)
        )
        hits = first_hit(search(database, queries, 1)[0], data.positives)
        scores[name] = round(recall(hits, 1), 1)
    return scores


class _Step(nn.Module):
    """A step of pre-training: from labels, or from a teacher's descriptors of the same images."""

    def __init__(self, model, classifier, teacher):
        super().__init__()
        self.model, self.classifier = model, classifier
        self.teacher = (teacher,)  # in a tuple: no part of this module, and so not stored

    def forward(self, iteration, labels, views):
        descriptors = self.model(views)
        [teacher] = self.teacher
        if teacher is None:
            first, second = descriptors.chunk(2)
            loss = 0.5 * self.classifier(descriptors, labels) + tell_apart(first, second)
        else:
            with torch.no_grad():
                wanted = teacher(views)
            # the direction itself, and telling the batch's images apart as the teacher would
            loss = (1 - (descriptors * wanted).sum(1)).mean()
            loss = loss + 0.5 * tell_apart(descriptors, wanted)
        return loss, {"loss": loss.detach()}


def _stage(stages: tuple[Stage, ...], iteration: int) -> tuple[Stage, float]:
    """The stage of an iteration, and the share of the stage that was done before it."""
    for stage in stages:
        if iteration < stage.iterations:
            return stage, iteration / stage.iterations
        iteration -= stage.iterations
    return stages[-1], 1.0


def _rate(stages: tuple[Stage, ...], iteration: int) -> float:
    """The model's rate at an iteration."""
    stage, done = _stage(stages, iteration)
    rate = stage.lr_end + (stage.lr - stage.lr_end) * 0.5 * (1 + math.cos(math.pi * done))
    return rate * min(1, (iteration + 1) / WARM_UP)


def _views(
    classes: Classes, stages: tuple[Stage, ...], first: int, seed: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """The labels and augmented images of each iteration from `first` on."""
    paths, where, begin = np.array(classes.photos.paths), device(), 0
    for stage in stages:
        start, end = max(first, begin), begin + stage.iterations
        if start < end:
            rows = pairs(classes.labels, stage.batch_size, start, end, seed)
            loaded = load_batches(paths[np.concatenate(rows)], len(rows[0]), STREETS.size)
            for iteration, (row, (_, images)) in enumerate(zip(rows, loaded, strict=True), start):
                low, high = stage.strength
                strength = low + (high - low) * (iteration - begin) / stage.iterations
                generator = torch_stream(seed, iteration)
                views = strong(images.to(where), stage.size, generator, strength)
                views = views.contiguous(memory_format=torch.channels_last)
                yield torch.from_numpy(classes.labels[row]).to(where), views
        begin = end


def pairs(
    labels: np.ndarray, batch_size: int, first: int, last: int, seed: int
) -> list[np.ndarray]:
    """The rows of iterations first to last - 1: two images each of batch_size / 2 classes.

    The second images of the classes follow in the second half, in the classes' order.
    """
    members, start = by_class(labels)
    rows = []
    for iteration, row in enumerate(batches(labels, batch_size // 2, first, last, seed), first):
        pick = numpy_stream(seed, "second image of a class", iteration).random(len(row))
        sizes = np.diff(start)[labels[row]]
        second = members[start[labels[row]] + (pick * sizes).astype(int)]
        rows.append(np.concatenate([row, second]))
    return rows


def tell_apart(descriptors: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """InfoNCE: each descriptor should be nearest to its own counterpart among the batch's.

    References
    ----------
    van den Oord et al., Representation Learning with Contrastive Predictive Coding, 2018, eq. 4.
    """
    own = torch.arange(len(descriptors), device=descriptors.device)
    with torch.autocast(descriptors.device.type, enabled=False):
        return F.cross_entropy(descriptors @ others.T / TEMPERATURE, own)


def add_neck(model: GeoModel) -> None:
    """Puts a BatchNorm before the head's linear layer.

    Random weights describe all images nearly alike, and it spreads the descriptors.
    """
    head: Any = model.aggregation
    neck = nn.BatchNorm1d(head[3].in_features).to(head[3].weight.device)
    model.aggregation = nn.Sequential(*head[:3], neck, *head[3:])


def fold_neck(model: GeoModel) -> None:
    """Takes the BatchNorm out again and into the linear layer.

    In evaluation mode the model stays the same function, with CosPlace's own head.
    """
    head: Any = model.aggregation
    neck, linear = head[3], head[4]
    with torch.no_grad():
        scale = neck.weight / torch.sqrt(neck.running_var + neck.eps)
        linear.bias += linear.weight @ (neck.bias - scale * neck.running_mean)
        linear.weight *= scale
    model.aggregation = nn.Sequential(*head[:3], *head[4:])
