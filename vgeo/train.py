"""CosPlace training: classify the places of one group with an angular-margin loss, keep the epoch that validates best."""

import csv
import time
from dataclasses import asdict, dataclass

import numpy as np
import torch
from tqdm.auto import tqdm

from vgeo import augment
from vgeo.artefacts import Checkpoint
from vgeo.datasets import load_batches
from vgeo.describe import describe, device
from vgeo.errors import VgeoError
from vgeo.losses import MARGINS, AngularMarginLoss
from vgeo.metrics import first_hit, recall
from vgeo.models import build, freeze, save_weights
from vgeo.retrieve import search

LOG_EVERY = 25  # iterations averaged in a row of the log
CHECKPOINT_SECONDS = 30  # at most this much work, and a row of the log, is lost when a training is killed


@dataclass(frozen=True)
class Recipe:
    """One training. `margin` names a preset of `losses.MARGINS`; rates are Adam's; sizes in pixels."""

    backbone: str
    weights: str  # what it starts from, see `models.build`
    margin: str
    image_size: int
    epochs: int
    iterations: int  # in an epoch
    batch_size: int
    lr_model: float
    lr_classifier: float
    seed: int
    precision: str  # "bf16" or "float32"

    def as_dict(self):
        return asdict(self)


def precision():
    """"bf16" where the processor multiplies bfloat16 matrices in hardware, else "float32": emulated bfloat16 is many times slower."""
    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    able = torch.cpu.get_capabilities()
    return "bf16" if able.get("avx512_bf16") or able.get("amx_bf16") else "float32"


def batches(labels, batch_size, first, last, seed):
    """Rows of the training table for iterations first to last - 1: each batch holds different classes, one random image of each.

    labels: int (N,). Classes come in a new random order each pass; what does not fill a batch is left to the next pass. A batch depends on
    the seed and its number alone, so a resumed training sees what an uninterrupted one would.
    """
    order = np.argsort(labels, kind="stable")
    start = np.searchsorted(labels[order], np.arange(labels.max() + 2))
    classes = len(start) - 1
    size = min(batch_size, classes)
    a_pass = classes // size
    rows = []
    for iteration in range(first, last):
        number, part = divmod(iteration, a_pass)
        chosen = np.random.default_rng([seed, 0, number]).permutation(classes)[part * size:(part + 1) * size]
        pick = np.random.default_rng([seed, 1, iteration]).random(size)
        rows.append(order[start[chosen] + (pick * (start[chosen + 1] - start[chosen])).astype(int)])
    return rows


def validate(model, recipe, val):
    """R@1 in percent of the model on a RetrievalSet."""
    found = [describe(model, list(table["path"]), recipe.image_size) for table in (val.database, val.queries)]
    predictions, _ = search(*found, 1)
    return recall(first_hit(predictions, val.positives), 1)


def train(recipe, table, val, folder, progress="training"):
    """Trains by the recipe and leaves `model.safetensors` (best epoch), its recipe and `log.csv` in the folder.

    table: images with CosPlace labels (`datasets.cosplace_classes`); val: a RetrievalSet. The log has a row each time the loss was averaged
    (iteration, loss, images/s) and, at an epoch's end, the validation R@1 in percent. Killed at any moment, the next call with the same
    folder goes on from its checkpoint and ends with the same weights. Raises VgeoError when the loss is no longer finite.
    """
    where = device()
    torch.manual_seed(recipe.seed)
    model = build(recipe.backbone, recipe.weights).to(where, memory_format=torch.channels_last)
    freeze(model)
    labels = table["label"].to_numpy()
    criterion = AngularMarginLoss(512, int(labels.max()) + 1, MARGINS[recipe.margin]).to(where)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=recipe.lr_model)
    classifier = torch.optim.Adam(criterion.parameters(), lr=recipe.lr_classifier)
    checkpoint = Checkpoint(folder / "checkpoint.pt", model=model, criterion=criterion, optimizer=optimizer, classifier=classifier)
    state = checkpoint.load() or {"iteration": 0, "log": [], "best": -1.0, "weights": {}}
    log, total = state["log"], recipe.epochs * recipe.iterations
    rows = batches(labels, recipe.batch_size, state["iteration"], total, recipe.seed)
    paths = table["path"].to_numpy()
    size = len(rows[0]) if rows else 0
    losses, clock, saved = [], time.perf_counter(), time.perf_counter()
    model.train()
    with tqdm(total=total, initial=state["iteration"], desc=progress, unit=" iterations") as bar:
        for _, images in load_batches(paths[np.concatenate(rows)] if rows else [], size, recipe.image_size):
            iteration = state["iteration"]
            target = torch.from_numpy(labels[rows[iteration - total]]).to(where)
            # every iteration has its own random numbers: a resumed run needs no generator's state
            torch.manual_seed(recipe.seed * 1_000_003 + iteration)
            images = augment.original(images.to(where), recipe.image_size, torch.default_generator)
            with torch.autocast(where.type, torch.bfloat16, enabled=recipe.precision == "bf16"):
                descriptors = model(images.contiguous(memory_format=torch.channels_last))
            loss = criterion(descriptors, target)
            optimizer.zero_grad()
            classifier.zero_grad()
            loss.backward()
            optimizer.step()
            classifier.step()
            losses.append(loss.detach())
            iteration += 1
            ended = iteration % recipe.iterations == 0
            if ended or iteration % LOG_EVERY == 0:
                mean = float(torch.stack(losses).mean())
                if not np.isfinite(mean):
                    raise VgeoError(f"{progress}: the loss is {mean} at iteration {iteration}: lower lr_model ({recipe.lr_model:g})")
                now = time.perf_counter()
                log.append([iteration, round(mean, 5), round(len(losses) * size / (now - clock), 1), None])
                losses, clock = [], now
                bar.set_postfix(loss=f"{mean:.2f}")
            if ended:
                log[-1][3] = round(validate(model, recipe, val), 2)
                bar.set_postfix(loss=f"{mean:.2f}", val_R1=log[-1][3])
                if log[-1][3] > state["best"]:
                    state["best"], state["weights"] = log[-1][3], {k: v.cpu().clone() for k, v in model.state_dict().items()}
                clock = time.perf_counter()
            state["iteration"] = iteration
            # only where a loss row has just been written: the average of a row is never split by a stop
            if not losses and (ended or time.perf_counter() - saved > CHECKPOINT_SECONDS):
                checkpoint.save(**state)
                saved = time.perf_counter()
            bar.update()
    with open(folder / "log.csv", "w", newline="") as file:
        csv.writer(file).writerows([["iteration", "loss", "images_per_second", "val_R@1"], *log])
    save_weights(state["weights"], folder / "model.safetensors", recipe.as_dict() | {"val_R@1": state["best"]})
    checkpoint.path.unlink(missing_ok=True)
