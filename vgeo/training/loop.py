"""The training loop, and two trainings: an extractor, or layers beside a frozen one.

`run` trains any `Task`: the study's pre-training of starting weights is a third user. torchrun
starts several processes; each takes its `device.share()` of every batch, and
DistributedDataParallel averages their gradients.
"""

import csv
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import repeat
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import reduce
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from vgeo.bars import bar
from vgeo.device import autocast, device, is_first, iteration_seed, share
from vgeo.errors import VgeoError
from vgeo.models.network import DIM, GeoModel, build, folded, freeze
from vgeo.models.weights import load_weights, save_weights
from vgeo.photos.places import Classes
from vgeo.training.batches import batches
from vgeo.training.checkpoint import Checkpoint
from vgeo.training.losses import MARGINS, AngularMarginLoss


@dataclass(frozen=True)
class Recipe:
    """One training of an extractor.

    Attributes
    ----------
    weights : names what the training starts from; kept beside the trained weights.
    margin : a name of `losses.MARGINS`.
    image_size : pixels of the training images, both sides.
    iterations : in an epoch.
    lr_model, lr_classifier : rates of Adam.
    precision : "bf16" or "float32", of the convolutions.
    class_means : whether the classes begin at their photos' mean descriptors, at random otherwise.
    keeps_statistics : whether BatchNorm keeps the start's statistics in the trained stages too.
    """

    backbone: str
    weights: str
    margin: str
    image_size: int
    epochs: int
    iterations: int
    batch_size: int
    lr_model: float
    lr_classifier: float
    seed: int
    precision: str
    class_means: bool = False
    keeps_statistics: bool = False

    def as_dict(self) -> dict:
        """The fields as JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class Pace:
    """How often a training reports: iterations in a row of the log, seconds between checkpoints.

    A checkpoint is written after a row only, so that no average is split by a stop.
    """

    log_every: int = 25
    checkpoint_seconds: float = 30.0


PACE = Pace()


def annealed(done: float) -> float:
    """The factor of a rate that falls from 1 to 0 along half a cosine, where `done` is 0 to 1."""
    return (1 + math.cos(math.pi * done)) / 2


def _adam(parameters: Iterable[nn.Parameter], rate: float) -> torch.optim.Optimizer:
    """Adam in one pass over the memory, not in one for each operation of its formula."""
    return torch.optim.Adam(parameters, lr=rate, fused=True)


@dataclass
class Task:
    """What `run` trains.

    Attributes
    ----------
    step : a module, on its device, that holds everything trained. step(iteration, *batch) returns
        the loss of this process's share and {name: scalar tensor} for the log, with "loss" among
        the names.
    optimizers : their parameters lie in `step`.
    batches : batches(first) iterates over the batches from iteration `first` on.
    iterations : in all.
    epoch : iterations between two evaluations; the last iteration ends an epoch too.
    precision : "bf16" or "float32", of the convolutions.
    advice : what to do when the loss is not finite.
    seed : of the random numbers that the step draws from torch.
    rate : rate(iteration) is a factor of the optimizers' rates.
    evaluate : evaluate(iteration, kept) is called at the start and at each epoch's end. It returns
        columns for the log. What it puts into the dict `kept` survives a stop.
    images : of an iteration, in all processes; the log then has the column images_per_second.
    """

    step: nn.Module
    optimizers: Sequence[torch.optim.Optimizer]
    batches: Callable[[int], Iterable[tuple]]
    iterations: int
    epoch: int
    precision: str
    advice: str
    seed: int = 0
    rate: Callable[[int], float] = lambda iteration: 1.0
    evaluate: Callable[[int, dict], dict] | None = None
    images: int = 0


def run(task: Task, checkpoint: Path, label: str, pace: Pace = PACE) -> tuple[list[dict], dict]:
    """Trains a task and returns its log and what its evaluations kept.

    Killed at any moment, the next call with the same checkpoint ends with the same weights. The log
    has a row for the start where the task is evaluated, then one for each mean loss: iteration, the
    step's numbers, seconds (without evaluations), and what `evaluate` returns at an epoch's end.

    Several processes: torch's DistributedDataParallel, prepared by Accelerate, averages the
    gradients. On GPUs BatchNorm takes its statistics from all of a batch (SyncBatchNorm, which
    torch has for GPUs only); on CPUs from this process's share of it, and evaluations see the first
    process's running statistics. A process alone runs the bare module.

    Parameters
    ----------
    checkpoint : a file. The caller removes it by `Checkpoint.remove` once its results are written.
    label : words before the progress bar and in errors.

    Raises
    ------
    VgeoError : a mean of a number is not finite.
    """
    states = {f"optimizer {i}": optimizer for i, optimizer in enumerate(task.optimizers)}
    stored = Checkpoint(checkpoint, step=task.step, **states)
    state = stored.load()
    if not state:
        state = {"iteration": 0, "log": [], "kept": {}}
        if task.evaluate:
            state["log"].append({"iteration": 0, **task.evaluate(0, state["kept"])})
    log, kept, first = state["log"], state["kept"], state["iteration"]
    step, seed = _connected(task.step), task.seed + 1_000 * share().index
    schedules = [LambdaLR(optimizer, task.rate, first - 1) for optimizer in task.optimizers]
    numbers, clock, saved = [], time.perf_counter(), time.perf_counter()
    words = label if is_first() else None
    with bar(words, task.iterations, "iterations", first, leave=True) as counter:
        numbered = zip(range(first, task.iterations), task.batches(first), strict=False)
        for iteration, batch in numbered:
            # each iteration has random numbers of its own: a resumed run needs no generator's state
            torch.manual_seed(iteration_seed(seed, iteration))
            with autocast(device(), task.precision):
                loss, shown = step(iteration, *batch)
            for optimizer in task.optimizers:
                optimizer.zero_grad()
            loss.backward()
            for optimizer, schedule in zip(task.optimizers, schedules, strict=True):
                optimizer.step()
                schedule.step()
            numbers.append(shown)
            done = iteration + 1
            ended = done % task.epoch == 0 or done == task.iterations
            if ended or done % pace.log_every == 0:
                row = {"iteration": done, **_means(numbers)}
                if not all(map(math.isfinite, row.values())):
                    raise VgeoError(f"{label}: a number is not finite, {row}: {task.advice}")
                seconds = time.perf_counter() - clock
                if task.images:
                    row["images_per_second"] = round(len(numbers) * task.images / seconds, 1)
                row["seconds"] = round(seconds, 3)
                log.append(row)
                score = {}
                if ended and task.evaluate:
                    _share_buffers(task.step)
                    score = task.evaluate(done, kept)
                row |= score
                counter.set_postfix(loss=f"{row['loss']:.2f}", **score)
                if ended or time.perf_counter() - saved > pace.checkpoint_seconds:
                    stored.save(iteration=done, log=log, kept=kept)
                    saved = time.perf_counter()
                numbers, clock = [], time.perf_counter()
            counter.update()
    return log, kept


def write_log(log: list[dict], path: Path) -> None:
    """Writes a log as CSV with the columns of its last row, which are all there are."""
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, list(log[-1]))
        writer.writeheader()
        writer.writerows(log)


def _connected(step: nn.Module) -> nn.Module:
    """The step as several processes train it together; the step itself in a process alone."""
    if share().count == 1:
        return step
    on_cpu = device().type == "cpu"
    if not on_cpu:
        step = nn.SyncBatchNorm.convert_sync_batchnorm(step)
    return Accelerator(cpu=on_cpu, mixed_precision="no").prepare(step)


def _share_buffers(step: nn.Module) -> None:
    """Gives all processes the first one's buffers, such as BatchNorm's running statistics."""
    if share().count > 1:
        for buffer in step.buffers():
            torch.distributed.broadcast(buffer, 0)


def _means(numbers: list[dict]) -> dict:
    """The mean of each number over iterations and processes, rounded to 5 decimals."""
    means = {}
    for name in numbers[0]:
        mean = torch.stack([each[name] for each in numbers]).mean()
        means[name] = round(float(reduce(mean, "mean") if share().count > 1 else mean), 5)
    return means


class _Extraction(nn.Module):
    """A step of CosPlace: the loss of a batch's classification, and a technique's if any."""

    def __init__(self, model, classifier, extra):
        super().__init__()
        self.model, self.classifier, self.extra = model, classifier, extra

    def forward(self, iteration, labels, trunk, target):
        # one batch: BatchNorm then sees in training the mixture that its statistics describe
        maps = self.model.upper(trunk if target is None else torch.cat([trunk, target]))
        count = len(trunk)
        loss = self.classifier(self.model.head(maps[:count]), labels)
        numbers = {"loss": loss.detach()}
        if self.extra is not None:
            # lower-precision copies of weights of its own: both gradients add up in float32
            torch.clear_autocast_cache()
            added, shown = self.extra.loss(self.model, maps[:count], maps[count:], iteration)
            loss, numbers = loss + added, numbers | shown
        return loss, numbers


def train_extractor(
    recipe: Recipe,
    start: Path,
    classes: Classes,
    validate: Callable[[GeoModel], float],
    folder: Path,
    views: Callable[[GeoModel, int], Iterator[torch.Tensor]],
    target_views: Callable[[GeoModel, int], Iterator[torch.Tensor]] | None = None,
    extra: nn.Module | None = None,
    extra_rate: float | None = None,
    centres: np.ndarray | None = None,
    label: str = "training",
    pace: Pace = PACE,
) -> None:
    """Trains by CosPlace and leaves the weights of the epoch that validates best, and `log.csv`.

    The folder gets `model.safetensors` with its recipe and, where an `extra` was trained,
    `extra.safetensors` of the same epoch. The start is validated first and is kept if no epoch is
    better; of equal epochs the earlier is kept. The log's row of iteration 0 holds the start's
    val_R@1, in percent, and no loss.

    Parameters
    ----------
    start : safetensors of the backbone.
    classes : the training photos and their classes; `batches` says which of them an iteration sees.
    validate : R@1 in percent of a model.
    views : views(model, first) iterates, from iteration `first` on, over the trunk's output for
        this process's share of an iteration's images.
    target_views : likewise for as many images of a second domain, which pass in the same batch.
    extra : a technique's layers (`technique.Technique.prepare`), trained by Adam at `extra_rate`.
        BatchNorms among them take the statistics of each batch.
    centres : float32 (classes, DIM), the mean descriptors where the classes begin. Needed where the
        recipe has `class_means`, not used elsewhere.

    Raises
    ------
    VgeoError : the loss is no longer finite, or the batches have no equal shares for all processes.

    References
    ----------
    Qi, Brown, Lowe, "Low-shot learning with imprinted weights", CVPR 2018: class means as weights.
    """
    own, where = share(), device()
    torch.manual_seed(recipe.seed)
    model = load_weights(build(recipe.backbone), start)
    model = model.to(where).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    freeze(model, recipe.keeps_statistics)
    labels, iterations = classes.labels, recipe.epochs * recipe.iterations
    classifier = AngularMarginLoss(DIM, classes.count, MARGINS[recipe.margin])
    if recipe.class_means:
        assert centres is not None
        with torch.no_grad():
            classifier.weight.copy_(torch.from_numpy(centres))
    step = _Extraction(model, classifier, extra).to(where)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizers = [
        _adam(trained, recipe.lr_model),
        _adam(classifier.parameters(), recipe.lr_classifier),
    ]
    if extra is not None:
        assert extra_rate is not None
        optimizers.append(_adam(extra.parameters(), extra_rate))
    rows = batches(labels, recipe.batch_size, 0, iterations, recipe.seed)
    own.check(len(rows[0]), "batches of")

    def batches_from(first):
        targets = target_views(model, first) if target_views else repeat(None)
        for row, trunk, target in zip(rows[first:], views(model, first), targets, strict=False):
            yield torch.from_numpy(labels[own.of(row)]).to(where), trunk, target

    def evaluate(iteration, kept):
        score = round(validate(model), 2)
        if score > kept.get("val_R@1", -math.inf):
            kept["val_R@1"], kept["iteration"] = score, iteration
            kept["model"], kept["extra"] = _copy(model), _copy(extra)
        return {"val_R@1": score}

    task = Task(
        step,
        optimizers,
        batches_from,
        iterations,
        epoch=recipe.iterations,
        precision=recipe.precision,
        advice=f"lower lr_model ({recipe.lr_model:g})",
        seed=recipe.seed,
        evaluate=evaluate,
        images=len(rows[0]),
    )
    checkpoint = folder / "checkpoint.pt"
    log, kept = run(task, checkpoint, label, pace)
    write_log(log, folder / "log.csv")
    made_of = recipe.as_dict() | {"val_R@1": kept["val_R@1"], "iteration": kept["iteration"]}
    if extra is not None:
        save_weights(kept["extra"], folder / "extra.safetensors", made_of)
    save_weights(kept["model"], folder / "model.safetensors", made_of)
    Checkpoint(checkpoint).remove()


def _copy(module: nn.Module | None) -> dict:
    """The module's state on the CPU, of which training changes nothing any more."""
    state = module.state_dict() if module is not None else {}
    return {name: tensor.cpu().clone() for name, tensor in state.items()}


class _Beside(nn.Module):
    """A step of a technique's layers beside an extractor that stays as it is."""

    def __init__(self, extra, model):
        super().__init__()
        self.extra = extra
        self.frozen = (
            model,
        )  # in a tuple: no part of this module, and so neither trained nor stored

    def forward(self, iteration):
        loss, shown = self.extra.loss(self.frozen[0], None, None, iteration)
        return loss, {"loss": loss.detach(), **shown}


def train_beside(
    extra: nn.Module,
    model: nn.Module,
    iterations: int,
    rate: float,
    precision: str,
    folder: Path,
    label: str = "training",
    pace: Pace = PACE,
) -> None:
    """Trains a technique's layers by their own loss beside an extractor that stays as it is.

    Leaves `extra.safetensors`, of the last iteration, and `log.csv`. Adam's rate falls from `rate`
    to 0 along a cosine. The extractor stays as it is: its copy in evaluation mode is used, with its
    BatchNorms folded, which gets no gradient.

    Raises
    ------
    VgeoError : the loss is no longer finite.
    """
    frozen = folded(model.to(device())).requires_grad_(False)
    task = Task(
        _Beside(extra, frozen).to(device()),
        [_adam(extra.parameters(), rate)],
        lambda first: repeat(()),
        iterations,
        epoch=iterations,
        precision=precision,
        advice=f"lower the technique's learning rate ({rate:g})",
        rate=lambda iteration: annealed(iteration / iterations),
    )
    checkpoint = folder / "checkpoint.pt"
    log, _ = run(task, checkpoint, label, pace)
    write_log(log, folder / "log.csv")
    save_weights(extra, folder / "extra.safetensors", {"iterations": iterations, "lr": rate})
    Checkpoint(checkpoint).remove()
