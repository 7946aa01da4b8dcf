"""CosPlace training: classify the places of one group with an angular-margin loss, keep the epoch that validates best."""

import csv
import math
import time
from dataclasses import asdict, dataclass
from itertools import repeat

import numpy as np
import torch
from tqdm.auto import tqdm

from vgeo.device import average_gradients, device, mean, part, share_statistics
from vgeo.errors import VgeoError
from vgeo.models.network import DIM, build, freeze
from vgeo.models.weights import save_weights
from vgeo.training.batches import batches
from vgeo.training.checkpoint import Checkpoint
from vgeo.training.losses import MARGINS, AngularMarginLoss


def train_alone(extra, model, iterations, lr, precision, folder, progress="training"):
    """Trains `extra` by its own loss beside a model that stays as it is; leaves `extra.safetensors` (the last iteration's) and `log.csv`.

    This is GeoWarp's training where the local features are the frozen trunk's: neither half of the joint training then touches the other.
    lr: Adam's rate, falling to 0 along a cosine; precision: as in `train.Recipe`. Killed at any moment, the next call goes on from the
    checkpoint to the same weights.
    """
    where = device()
    model.to(where).eval().requires_grad_(False)
    share_statistics(extra).to(where).train()
    optimizer = torch.optim.Adam(extra.parameters(), lr=lr)
    checkpoint = Checkpoint(folder / "checkpoint.pt", extra=extra, optimizer=optimizer)
    state = checkpoint.load() or {"iteration": 0, "log": []}
    values, clock, saved = [], time.perf_counter(), time.perf_counter()
    for iteration in tqdm(
        range(state["iteration"], iterations),
        progress,
        iterations,
        initial=state["iteration"],
        unit=" iterations",
    ):
        optimizer.param_groups[0]["lr"] = lr * (1 + math.cos(math.pi * iteration / iterations)) / 2
        with torch.autocast(where.type, torch.bfloat16, enabled=precision == "bf16"):
            loss, shown = extra.loss(model, None, None, iteration)
        optimizer.zero_grad()
        loss.backward()
        average_gradients([optimizer])
        optimizer.step()
        values.append({"loss": loss.detach(), **shown})
        if (iteration + 1) % LOG_EVERY == 0 or iteration + 1 == iterations:
            seconds = time.perf_counter() - clock
            state["log"].append(
                {
                    "iteration": iteration + 1,
                    **means(values, progress, iteration + 1, f"lr_regression ({lr:g})"),
                    "seconds": round(seconds, 2),
                }
            )
            values, clock = [], time.perf_counter()
            if time.perf_counter() - saved > CHECKPOINT_SECONDS:
                checkpoint.save(**state | {"iteration": iteration + 1})
                saved = time.perf_counter()
    write_log(folder, state["log"])
    save_weights(extra, folder / "extra.safetensors", {"iterations": iterations, "lr": lr})
    checkpoint.path.unlink(missing_ok=True)


LOG_EVERY = 25  # iterations averaged in a row of the log


CHECKPOINT_SECONDS = (
    30  # at most this much work, and a row of the log, is lost when a training is killed
)


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
    method: str = "CosPlace"  # or "GRL", "GeoWarp": what is trained along
    lr_extra: float | None = None  # of what is trained along
    without: tuple = ()  # losses of GeoWarp's that are left out

    def as_dict(self):
        return asdict(self) | {"without": list(self.without)}  # as JSON gives it back


def means(values, progress, iteration, rate):
    """The mean of each number over [{name: scalar tensor}, ...] and all processes; raises VgeoError, with the rate's name and value, when one is
    not finite."""
    found = {
        name: round(float(mean(torch.stack([v[name] for v in values]).mean())), 5)
        for name in values[0]
    }
    if not np.isfinite(list(found.values())).all():
        raise VgeoError(f"{progress}: the loss is {found} at iteration {iteration}: lower {rate}")
    return found


def write_log(folder, log):
    """Writes `log.csv`, one row for each dict."""
    with open(folder / "log.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, log[0])
        writer.writeheader()
        writer.writerows(log)


def train(
    recipe, table, validate, folder, views, target_views=None, extra=None, progress="training"
):
    """Trains by the recipe and leaves `model.safetensors` (best epoch), its recipe and `log.csv` in the folder.

    table: images with CosPlace labels (`datasets.cosplace_classes`), trained in the order of `batches`. validate(model): R@1 in percent.
    views(model, first): iterator over the trunk's output for each iteration's images from `first` on; target_views: likewise for as many
    images of another domain, which go through the network in the same batch. extra: a module with `loss(model, source maps, target maps,
    iteration) -> (scalar to add, {name: number for the log})`, trained along and saved as `extra.safetensors`.

    Several processes train one model: `views` give each its part of every batch, gradients and BatchNorm's statistics are averaged over all,
    and the losses are those of one process within rounding (networks with random depths draw them for each process anew).

    The log has a row each time the loss was averaged (iteration, loss, images/s, the extra's numbers) and, at an epoch's end, the validation
    R@1 in percent. Killed at any moment, the next call with the same folder goes on from its checkpoint and ends with the same weights.
    Raises VgeoError when the loss is no longer finite, or a batch can't be shared equally.
    """
    where, share = device(), part()
    torch.manual_seed(recipe.seed)
    model = build(recipe.backbone, recipe.weights).to(where, memory_format=torch.channels_last)
    freeze(share_statistics(model))
    labels = table["label"].to_numpy()
    criterion = AngularMarginLoss(DIM, int(labels.max()) + 1, MARGINS[recipe.margin]).to(where)
    parts = {
        "model": model,
        "criterion": criterion,
        "optimizer": torch.optim.Adam(
            [p for p in model.parameters() if p.requires_grad], lr=recipe.lr_model
        ),
        "classifier": torch.optim.Adam(criterion.parameters(), lr=recipe.lr_classifier),
    }
    if extra:
        parts |= {
            "extra": share_statistics(extra).to(where),
            "extra_optimizer": torch.optim.Adam(extra.parameters(), lr=recipe.lr_extra),
        }
    optimizers = [part for part in parts.values() if isinstance(part, torch.optim.Optimizer)]
    checkpoint = Checkpoint(folder / "checkpoint.pt", **parts)
    state = checkpoint.load() or {
        "iteration": 0,
        "log": [],
        "best": -1.0,
        "weights": {},
        "extra": {},
    }
    log, first, total = state["log"], state["iteration"], recipe.epochs * recipe.iterations
    rows = batches(labels, recipe.batch_size, 0, total, recipe.seed)
    share.check(len(rows[0]), "batches of")
    sums, clock, saved = [], time.perf_counter(), time.perf_counter()
    model.train()
    with tqdm(total=total, initial=first, desc=progress, unit=" iterations") as bar:
        targets = target_views(model, first) if target_views else repeat(None)
        for row, trunk, target in zip(rows[first:], views(model, first), targets):
            iteration = state["iteration"]
            # every iteration has its own random numbers: a resumed run needs no generator's state
            torch.manual_seed((recipe.seed + 1_000 * share.index) * 1_000_003 + iteration)
            size = len(trunk)
            with torch.autocast(where.type, torch.bfloat16, enabled=recipe.precision == "bf16"):
                # one batch: BatchNorm then sees in training the mixture that its statistics describe
                maps = model.upper(trunk if target is None else torch.cat([trunk, target]))
            loss = criterion(
                model.head(maps[:size]), torch.from_numpy(labels[share.of(row)]).to(where)
            )
            values = {"loss": loss.detach()}
            if extra:
                with torch.autocast(where.type, torch.bfloat16, enabled=recipe.precision == "bf16"):
                    added, parts_of_it = extra.loss(model, maps[:size], maps[size:], iteration)
                loss, values = loss + added, values | parts_of_it
            for optimizer in optimizers:
                optimizer.zero_grad()
            loss.backward()
            average_gradients(optimizers)
            for optimizer in optimizers:
                optimizer.step()
            sums.append(values)
            iteration += 1
            ended = iteration % recipe.iterations == 0
            if ended or iteration % LOG_EVERY == 0:
                shown = means(sums, progress, iteration, f"lr_model ({recipe.lr_model:g})")
                speed = len(sums) * size * share.count / (time.perf_counter() - clock)
                log.append(
                    {
                        "iteration": iteration,
                        **shown,
                        "images_per_second": round(speed, 1),
                        "val_R@1": None,
                    }
                )
                sums, clock = [], time.perf_counter()
                bar.set_postfix(loss=f"{shown['loss']:.2f}")
            if ended:
                log[-1]["val_R@1"] = round(validate(model), 2)
                bar.set_postfix(loss=f"{shown['loss']:.2f}", val_R1=log[-1]["val_R@1"])
                if log[-1]["val_R@1"] > state["best"]:
                    state["best"] = log[-1]["val_R@1"]
                    state["weights"] = {k: v.cpu().clone() for k, v in model.state_dict().items()}
                    state["extra"] = (
                        {k: v.cpu().clone() for k, v in extra.state_dict().items()} if extra else {}
                    )
                clock = time.perf_counter()
            state["iteration"] = iteration
            # only where a loss row has just been written: the average of a row is never split by a stop
            if not sums and (ended or time.perf_counter() - saved > CHECKPOINT_SECONDS):
                checkpoint.save(**state)
                saved = time.perf_counter()
            bar.update()
    write_log(folder, log)
    made_of = recipe.as_dict() | {"val_R@1": state["best"]}
    if extra:
        save_weights(state["extra"], folder / "extra.safetensors", made_of)
    save_weights(state["weights"], folder / "model.safetensors", made_of)
    checkpoint.path.unlink(missing_ok=True)
