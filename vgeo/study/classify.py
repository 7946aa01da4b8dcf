"""Starting weights by classification: a backbone learns to tell places apart from their labels."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torchvision
from torch import nn

from vgeo.device import device, numpy_stream, precision, torch_stream
from vgeo.models.network import DIM, GeoModel, build
from vgeo.photos.images import load_batches
from vgeo.photos.places import Classes
from vgeo.training.augment import strong
from vgeo.training.batches import batches, by_class
from vgeo.training.loop import PACE, Pace, Task, annealed, run
from vgeo.training.losses import AngularMarginLoss, Margin, tell_apart

MARGIN = Margin(s=20)  # no margin: a network that knows nothing yet does not get past one
LR_CLASSIFIER = 2.0  # times the model's rate
WARM_UP = 50  # iterations over which the rate rises
DECAY, CLIP = 0.02, 5.0  # AdamW's weight decay, and the largest norm of a step's gradient

Evaluate = Callable[[GeoModel], dict[str, float]]  # {check: R@1 in percent}


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


def classify(
    backbone: str,
    stages: tuple[Stage, ...],
    classes: Classes,
    size: int,
    seed: int,
    evaluate: Evaluate,
    checkpoint: Path,
    every: int,
    pace: Pace = PACE,
) -> tuple[GeoModel, list[dict]]:
    """Trains a backbone from random weights on classes of places; returns the model and the log.

    The model's linear layer is of no use afterwards: a BatchNorm stands before it in training.

    Parameters
    ----------
    size : pixels of the photos, both sides.
    evaluate : called every `every` iterations, at the start and at the end.
    checkpoint : a file that the caller removes when the model is stored.
    """
    where = device()
    torch.manual_seed(seed)
    model = build(backbone).to(where)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    without_drops(model)
    classifier = AngularMarginLoss(DIM, classes.count, MARGIN).to(where)
    step = _Step(model, classifier).to(where)
    trained = [*model.parameters(), *step.neck.parameters()]
    groups = [
        {"params": trained, "lr": 1.0, "weight_decay": DECAY},
        {"params": classifier.parameters(), "lr": LR_CLASSIFIER, "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups)
    clipping(optimizer, trained)

    def evaluated(iteration: int, kept: dict) -> dict:
        stage, _ = stage_of(stages, max(iteration - 1, 0))
        return {"size": stage.size, **evaluate(model)}

    task = Task(
        step,
        [optimizer],
        lambda first: _views(classes, stages, first, size, seed),
        sum(stage.iterations for stage in stages),
        epoch=every,
        precision=precision(),
        advice="lower the stages' rates",
        rate=lambda iteration: rate_of(stages, iteration),
        evaluate=evaluated,
    )
    log, _ = run(task, checkpoint, f"pre-train {backbone}", pace)
    return model, log


def clipping(optimizer: torch.optim.Optimizer, parameters: Iterable[nn.Parameter]) -> None:
    """Shortens the parameters' gradient to CLIP, as one vector, before each of the steps."""
    parameters = list(parameters)

    def clip(*_):
        nn.utils.clip_grad_norm_(parameters, CLIP)

    optimizer.register_step_pre_hook(clip)


def without_drops(model: nn.Module) -> None:
    """Drops no block at random: a network that has learned nothing yet loses too much by it."""
    for module in model.modules():
        if isinstance(module, torchvision.ops.StochasticDepth):
            module.p = 0.0


class _Step(nn.Module):
    """A step: the places' labels, and telling the batch's images apart."""

    def __init__(self, model, classifier):
        super().__init__()
        self.model, self.classifier = model, classifier
        # random weights describe all images nearly alike, and BatchNorm spreads the descriptors
        self.neck = nn.BatchNorm1d(model.aggregation[3].in_features)

    def forward(self, iteration, labels, views):
        maps, head = self.model.features(views), self.model.aggregation
        with torch.autocast(maps.device.type, enabled=False):
            descriptors = head[3:](self.neck(head[:3](maps.float())))
        first, second = descriptors.chunk(2)
        loss = 0.5 * self.classifier(descriptors, labels) + tell_apart(first, second)
        return loss, {"loss": loss.detach()}


def stage_of(stages: tuple[Stage, ...], iteration: int) -> tuple[Stage, float]:
    """The stage of an iteration, and the share of the stage that was done before it."""
    for stage in stages:
        if iteration < stage.iterations:
            return stage, iteration / stage.iterations
        iteration -= stage.iterations
    return stages[-1], 1.0


def rate_of(stages: tuple[Stage, ...], iteration: int) -> float:
    """The model's rate at an iteration."""
    stage, done = stage_of(stages, iteration)
    rate = stage.lr_end + (stage.lr - stage.lr_end) * annealed(done)
    return rate * min(1, (iteration + 1) / WARM_UP)


def _views(
    classes: Classes, stages: tuple[Stage, ...], first: int, size: int, seed: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """The labels and augmented images of each iteration from `first` on."""
    paths, where, begin = np.array(classes.photos.paths), device(), 0
    for stage in stages:
        start, end = max(first, begin), begin + stage.iterations
        if start < end:
            rows = pairs(classes.labels, stage.batch_size, start, end, seed)
            loaded = load_batches(paths[np.concatenate(rows)], len(rows[0]), size)
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
