"""The starting weights: both backbones trained from random weights on daylight streets of quarters that the study never sees."""

import csv
import json
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
import torchvision
from tqdm.auto import tqdm

from vgeo.city.plan import VERSION, Plan
from vgeo.city.write import write_city, write_pretraining
from vgeo.device import device, precision
from vgeo.models.network import DIM, build
from vgeo.models.weights import CITY_WEIGHTS, load_weights, save_weights, weights_hash
from vgeo.photos.images import load_batches
from vgeo.photos.places import cosplace_classes, open_retrieval_set
from vgeo.photos.tables import read_images
from vgeo.retrieval.describe import describe
from vgeo.retrieval.metrics import first_hit, recall
from vgeo.retrieval.search import search
from vgeo.study.cache import artefact
from vgeo.training.augment import strong
from vgeo.training.batches import batches, by_class
from vgeo.training.checkpoint import Checkpoint
from vgeo.training.losses import AngularMarginLoss, Margin

STREETS = Plan(size=96, seed=977, images_per_class=16)  # a seed that no profile uses


QUARTERS = 60  # 48 classes of 16 images each


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
)  # streets to validate on, San-Francisco-like, never trained on


CHECK_EVERY = 300  # iterations


@dataclass(frozen=True)
class Stage:
    """Iterations at one image size, in pixels; AdamW's rate falls from lr to lr_end along a cosine, the augmentation's strength rises."""

    size: int
    iterations: int
    batch_size: int
    lr: float
    lr_end: float
    strength: tuple  # of `strong`, at the stage's start and end


# Small images first: an image of 64 pixels costs a quarter of one of 128. Sized for some tens of minutes on two cores each.
STAGES = {
    "resnet18": (
        Stage(64, 1100, 64, 4e-4, 2e-4, (0.0, 0.6)),
        Stage(96, 200, 64, 2e-4, 1e-5, (0.4, 0.6)),
        Stage(96, 1600, 64, 3e-4, 1e-5, (0.4, 0.8)),
    ),
    # from labels alone EfficientNetV2-S learns nothing in this time: it imitates the ResNet18
    "efficientnet_v2_s": (
        Stage(64, 400, 48, 1e-3, 5e-4, (0.0, 0.6)),
        Stage(96, 250, 48, 5e-4, 2e-5, (0.4, 0.7)),
    ),
}


MARGIN = Margin(s=20)  # no margin: a network that knows nothing yet does not get past one


LR_CLASSIFIER = 2.0  # times the model's rate


TEMPERATURE = 0.1


def pairs(labels, batch_size, first, last, seed):
    """Rows of iterations first to last - 1: two images each of batch_size / 2 classes, the second ones in the second half."""
    members, start = by_class(labels)
    rows = []
    for iteration, row in enumerate(batches(labels, batch_size // 2, first, last, seed), first):
        pick = np.random.default_rng([seed, 2, iteration]).random(len(row))
        rows.append(
            np.concatenate(
                [
                    row,
                    members[start[labels[row]] + (pick * np.diff(start)[labels[row]]).astype(int)],
                ]
            )
        )
    return rows


def tell_apart(descriptors, others):
    """InfoNCE: each descriptor should be nearest to its own counterpart among the batch's (van den Oord et al., 2018, eq. 4)."""
    return F.cross_entropy(
        descriptors @ others.T / TEMPERATURE,
        torch.arange(len(descriptors), device=descriptors.device),
    )


def add_neck(model):
    """Puts a BatchNorm before the head's linear layer: random weights describe all images nearly alike, and it spreads them."""
    head = model.aggregation
    model.aggregation = torch.nn.Sequential(
        *head[:3], torch.nn.BatchNorm1d(head[3].in_features), *head[3:]
    ).to(head[3].weight.device)


def fold_neck(model):
    """Takes the BatchNorm out again and into the linear layer: in evaluation mode the same function, with CosPlace's own head."""
    head = model.aggregation
    neck, linear = head[3], head[4]
    with torch.no_grad():
        scale = neck.weight / torch.sqrt(neck.running_var + neck.eps)
        linear.bias += linear.weight @ (neck.bias - scale * neck.running_mean)
        linear.weight *= scale
    model.aggregation = torch.nn.Sequential(*head[:3], *head[4:])


def pretrain(cache, real=None):
    """Renders, trains both backbones and writes `weights/<backbone>.safetensors` (fp16), its recipe and `log` beside it.

    cache: folder of the rendered streets and checkpoints. real: a folder with `database` and `queries_v1` of photographs to score beside
    the city's streets, never trained on.
    """
    streets = artefact(
        cache,
        "data",
        {"pretraining": STREETS.__dict__, "quarters": QUARTERS, "version": VERSION},
        lambda folder: write_pretraining(STREETS, folder, QUARTERS),
    )
    check = artefact(
        cache,
        "data",
        {"plan": CHECK.__dict__, "version": VERSION},
        lambda folder: write_city(CHECK, folder),
    )
    checks = {
        "city": (
            open_retrieval_set("city", check / "sf-xs/val/queries", check / "sf-xs/val/database"),
            96,
        )
    }
    if real:
        checks["real"] = (
            open_retrieval_set("real", Path(real) / "queries_v1", Path(real) / "database"),
            128,
        )
    # all groups of one cell size: cells lie 50 m apart as rendered
    table = cosplace_classes(read_images(streets, "pre-training images"))
    teacher = None
    for backbone, stages in STAGES.items():
        folder = Path(cache) / "pretraining" / backbone
        folder.mkdir(parents=True, exist_ok=True)
        _pretrain(backbone, stages, table, teacher, checks, folder)
        teacher = (
            load_weights(build(backbone), CITY_WEIGHTS / f"{backbone}.safetensors")
            .to(device(), memory_format=torch.channels_last)
            .eval()
        )
    write_card()


def write_card():
    """Writes `weights/README.md` from the recipes that lie beside the weights."""
    lines = [
        "# Starting weights",
        "",
        "Made by `python -m vgeo pretrain` on daylight streets of invented quarters that no profile uses; no real photograph was trained on.",
        "R@1 in percent, on streets never trained on: `city` San-Francisco-like ones of another seed, `real` photographs of San Francisco. The curve is in",
        "the `.csv`, the recipe in the `.json`.",
        "",
    ]
    for path in sorted(CITY_WEIGHTS.glob("*.json")):
        recipe = json.loads(path.read_text())
        last, checks = recipe["score"], recipe["checks"]
        steps = "; ".join(
            f"{s['iterations']} iterations of {s['batch_size']} at {s['size']} pixels, rate {s['lr']:g} to {s['lr_end']:g}"
            for s in recipe["stages"]
        )
        scores = (
            f"{name} {last[name]} ({c['queries']} queries, {c['database']} database photos, {c['size']} pixels)"
            for name, c in checks.items()
        )
        lines += [
            f"## {path.stem}",
            "",
            f"- score: {', '.join(scores)}",
            f"- training: {steps}; {recipe['images']} images, {recipe['classes']} classes, {recipe['quarters']} quarters of seed {recipe['streets']['seed']}",
            f"- time: {last['seconds'] / 60:.0f} minutes; file: fp16 safetensors, SHA-256 of the tensors {weights_hash(path.with_suffix('.safetensors'))}",
            *([f"- {recipe['note']}"] if "note" in recipe else []),
            "",
        ]
    (CITY_WEIGHTS / "README.md").write_text("\n".join(lines))


def score(model, checks):
    """R@1 in percent on each of the sets, {name: (RetrievalSet, image size)}."""
    result = {}
    for name, (data, size) in checks.items():
        found = [
            describe(model, list(part["path"]), size) for part in (data.database, data.queries)
        ]
        result[name] = round(recall(first_hit(search(*found, 1)[0], data.positives), 1), 1)
    return result


def _pretrain(backbone, stages, table, teacher, checks, folder):
    where = device()
    torch.manual_seed(STREETS.seed)
    model = build(backbone).to(where, memory_format=torch.channels_last)
    for module in model.modules():
        if isinstance(module, torchvision.ops.StochasticDepth):
            module.p = 0.0  # a network that has learned nothing yet loses too much by it
    labels, paths = table["label"].to_numpy(), table["path"].to_numpy()
    criterion = AngularMarginLoss(DIM, int(labels.max()) + 1, MARGIN).to(where)
    add_neck(model)
    optimizer = torch.optim.AdamW(
        [
            {"params": model.parameters(), "weight_decay": 0.02},
            {"params": criterion.parameters(), "weight_decay": 0.0},
        ]
    )
    checkpoint = Checkpoint(
        folder / "checkpoint.pt", model=model, criterion=criterion, optimizer=optimizer
    )
    state = checkpoint.load()
    if not state:
        untrained = {
            "iteration": 0,
            "size": stages[0].size,
            "seconds": 0,
            "loss": None,
            **score(model, checks),
        }
        state = {"iteration": 0, "log": [untrained], "seconds": 0.0}
    total = sum(stage.iterations for stage in stages)
    began, first, losses = time.perf_counter() - state["seconds"], 0, []
    with tqdm(
        total=total, initial=state["iteration"], desc=f"pre-training {backbone}", unit=" iterations"
    ) as bar:
        for stage in stages:
            start, last = max(state["iteration"], first), first + stage.iterations
            rows = (
                pairs(labels, stage.batch_size, start, last, STREETS.seed) if start < last else []
            )
            for row, (_, images) in zip(
                rows,
                load_batches(
                    paths[np.concatenate(rows)] if rows else [], stage.batch_size, STREETS.size
                ),
            ):
                done = (state["iteration"] - first) / stage.iterations
                rate = stage.lr_end + (stage.lr - stage.lr_end) * 0.5 * (1 + np.cos(np.pi * done))
                rate = float(
                    rate * min(1, (state["iteration"] + 1) / 50)
                )  # a plain float: checkpoints hold nothing else
                optimizer.param_groups[0]["lr"], optimizer.param_groups[1]["lr"] = (
                    rate,
                    LR_CLASSIFIER * rate,
                )
                generator = torch.Generator().manual_seed(
                    STREETS.seed * 1_000_003 + state["iteration"]
                )
                strength = stage.strength[0] + (stage.strength[1] - stage.strength[0]) * done
                views = strong(images.to(where), stage.size, generator, strength).contiguous(
                    memory_format=torch.channels_last
                )
                model.train()
                with torch.autocast(where.type, torch.bfloat16, enabled=precision() == "bf16"):
                    descriptors = model(views)
                    if teacher:
                        with torch.no_grad():
                            wanted = teacher(views)
                if teacher:
                    # the direction itself, and telling the batch's images apart as the teacher would
                    loss = (1 - (descriptors * wanted).sum(1)).mean() + 0.5 * tell_apart(
                        descriptors, wanted
                    )
                else:
                    one, two = descriptors.chunk(2)
                    loss = 0.5 * criterion(
                        descriptors, torch.from_numpy(labels[row]).to(where)
                    ) + tell_apart(one, two)
                losses.append(loss.item())
                optimizer.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
                optimizer.step()
                state["iteration"] += 1
                state["seconds"] = time.perf_counter() - began
                bar.update()
                if state["iteration"] % CHECK_EVERY == 0 or state["iteration"] == total:
                    state["log"].append(
                        {
                            "iteration": state["iteration"],
                            "size": stage.size,
                            "seconds": round(state["seconds"]),
                            "loss": round(float(np.mean(losses)), 3),
                            **score(model, checks),
                        }
                    )
                    losses = []
                    checkpoint.save(**state)
                    tqdm.write(json.dumps(state["log"][-1]))
            first = last
    fold_neck(model)
    CITY_WEIGHTS.mkdir(exist_ok=True)
    recipe = {
        "backbone": backbone,
        "stages": [stage.__dict__ for stage in stages],
        "margin": MARGIN.__dict__,
        "streets": STREETS.__dict__,
        "quarters": QUARTERS,
        "images": len(table),
        "classes": table.attrs["classes"],
        "iterations": total,
        "score": state["log"][-1],
        "checks": {
            name: {"queries": len(data.queries), "database": len(data.database), "size": size}
            for name, (data, size) in checks.items()
        },
    }
    save_weights(model, CITY_WEIGHTS / f"{backbone}.safetensors", recipe, torch.float16)
    with open(CITY_WEIGHTS / f"{backbone}.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, state["log"][0])
        writer.writeheader()
        writer.writerows(state["log"])
    print(
        f"{backbone}: {state['log'][-1]}, weights {weights_hash(CITY_WEIGHTS / f'{backbone}.safetensors')[:16]}"
    )
