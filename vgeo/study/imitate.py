"""Starting weights by imitation: a backbone learns the features that two teachers see in images.

The teachers are EfficientNet-Lite0 with ImageNet's weights, which knows images, and the ResNet18 of
`study.pretrain`, which knows streets. Lessons are views of rendered streets with what the teachers
see in them. They are made once and stored. No lesson has a place label.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vgeo.bars import bar
from vgeo.device import autocast, device, numpy_stream, precision, torch_stream
from vgeo.models.network import BACKBONES, GeoModel, build, normalise
from vgeo.models.whitening import whitening
from vgeo.photos.images import load_batches
from vgeo.study.classify import DECAY, Evaluate, clipping, without_drops
from vgeo.training.loop import PACE, Pace, Task, annealed, run
from vgeo.training.losses import tell_apart
from vgeo.training.views import varied

VIEW = 128  # pixels of a stored view
CELLS = 2  # a map is imitated on a grid of 2 x 2 cells, and as a whole
AXES = 256  # numbers of each teacher that a cell and a whole image have, whitened
SAMPLE = 20_000  # cells, or whole views, at most, that a teacher's features are whitened on
BATCH = 64  # images of an iteration, and views of a batch of lessons
RATE, WARM_UP = 1e-3, 100  # AdamW's highest rate, and the iterations up to it


@dataclass(frozen=True)
class Teacher:
    """A model to imitate, and the side in pixels to which it gets the views enlarged."""

    model: GeoModel
    size: int


def write_lessons(
    teachers: list[Teacher], paths: list[str], count: int, seed: int, folder: Path
) -> None:
    """Writes `count` views of photos and what the teachers see in them.

    Leaves `views.npy`, uint8 (count, 3, VIEW, VIEW), and `targets.npy`, float16 (count, teachers,
    CELLS^2 + 1, AXES): of each teacher the whitened features of the cells and, last, of the whole
    view (its model's GeM), each of unit length.
    """
    rows = np.concatenate(
        [
            numpy_stream(seed, "photos of lessons", turn).permutation(len(paths))
            for turn in range(math.ceil(count / len(paths)))
        ]
    )[:count]
    views = np.lib.format.open_memmap(folder / "views.npy", "w+", np.uint8, (count, 3, VIEW, VIEW))
    seen = [
        np.empty((count, CELLS**2 + 1, BACKBONES[t.model.backbone_name].channels), np.float16)
        for t in teachers
    ]
    loaded = load_batches(np.array(paths)[rows], BATCH, VIEW)
    with bar("lessons", count, "views") as counter:
        for number, (places, images) in enumerate(loaded):
            made = varied(images, VIEW, torch_stream(seed, number))
            views[places] = made.numpy()
            for teacher, stored in zip(teachers, seen, strict=True):
                stored[places] = _features(teacher, made).half().numpy()
            counter.update(len(places))
    views.flush()
    targets = [_whitened(torch.from_numpy(each)) for each in seen]
    np.save(folder / "targets.npy", torch.stack(targets, 1).half().numpy())


def imitate(
    backbone: str,
    lessons: Path,
    size: int,
    iterations: int,
    seed: int,
    evaluate: Evaluate,
    checkpoint: Path,
    every: int,
    pace: Pace = PACE,
) -> tuple[GeoModel, list[dict]]:
    """Trains a backbone from random weights on lessons; returns the model and the log.

    AdamW's rate rises over WARM_UP iterations and falls to 0 along a cosine. The model's linear
    layer is not trained.

    Parameters
    ----------
    lessons : a folder of `write_lessons`.
    size : pixels, both sides, of the views that the pupil sees.
    evaluate : called every `every` iterations, at the start and at the end.
    checkpoint : a file that the caller removes when the model is stored.
    """
    where = device()
    torch.manual_seed(seed)
    views = np.load(lessons / "views.npy", mmap_mode="r")
    targets = np.load(lessons / "targets.npy")
    model = build(backbone)
    without_drops(model)
    step = _Pupil(model, targets.shape[1]).to(where)
    step.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(step.parameters(), lr=RATE, weight_decay=DECAY, fused=True)
    clipping(optimizer, step.parameters())

    def rate(iteration: int) -> float:
        return annealed(iteration / iterations) * min(1, (iteration + 1) / WARM_UP)

    task = Task(
        step,
        [optimizer],
        lambda first: _batches(views, targets, size, first, iterations, seed),
        iterations,
        epoch=every,
        precision=precision(),
        advice=f"lower RATE ({RATE:g})",
        rate=rate,
        evaluate=lambda iteration, kept: evaluate(model),
    )
    log, _ = run(task, checkpoint, f"imitate with {backbone}", pace)
    return model, log


class _Pupil(nn.Module):
    """A step: from the views to what each teacher saw in them, in every cell and as a whole."""

    def __init__(self, model: GeoModel, teachers: int):
        super().__init__()
        self.model, self.teachers = model, teachers
        channels = BACKBONES[model.backbone_name].channels
        # BatchNorm: random weights see all images nearly alike, and it spreads the features
        self.cells, self.whole = (
            nn.Sequential(nn.BatchNorm1d(channels), nn.Linear(channels, teachers * AXES))
            for _ in range(2)
        )

    def forward(self, iteration: int, views: Tensor, targets: Tensor):
        maps = self.model.features(views)
        with torch.autocast(maps.device.type, enabled=False):
            pooled = _pooled(self.model, maps.float())
            shape = len(views), -1, self.teachers, AXES
            of_cells = self.cells(pooled[:, :-1].flatten(0, 1))
            of_whole = self.whole(pooled[:, -1])
            seen = torch.cat([of_cells.view(shape), of_whole.view(shape)], 1)
            seen = F.normalize(seen, dim=-1).transpose(1, 2)  # (B, teachers, cells and whole, AXES)
            away = 1 - (seen * targets).sum(-1)  # (B, teachers, cells and whole)
            loss = away.mean() + away[..., -1].mean()
            for teacher in range(self.teachers):
                whole = seen[:, teacher, -1], targets[:, teacher, -1]
                loss = loss + 0.5 / self.teachers * tell_apart(*whole)
        return loss, {"loss": loss.detach(), "cosine": 1 - away[..., -1].mean().detach()}


def _batches(
    views: np.ndarray, targets: np.ndarray, size: int, first: int, last: int, seed: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Iterations first to last - 1: a turn goes through all lessons in a random order."""
    where, in_a_turn = device(), len(views) // BATCH
    for iteration in range(first, last):
        turn, place = divmod(iteration, in_a_turn)
        if place == 0 or iteration == first:
            order = numpy_stream(seed, "order of lessons", turn).permutation(len(views))
        rows = np.sort(order[place * BATCH : (place + 1) * BATCH])
        images = torch.from_numpy(views[rows]).to(where)
        images = F.interpolate(images.float(), size=(size, size), mode="area").round()
        images = normalise(images.to(torch.uint8)).contiguous(memory_format=torch.channels_last)
        yield images, torch.from_numpy(targets[rows]).to(where).float()


@torch.inference_mode()
def _features(teacher: Teacher, views: Tensor) -> Tensor:
    """(B, CELLS^2 + 1, C): the means of the cells and the GeM of the whole, on the CPU."""
    where, model = device(), teacher.model
    images = views.to(where)
    if teacher.size != images.shape[-1]:
        side = (teacher.size, teacher.size)
        images = F.interpolate(images.float(), size=side, mode="bilinear").round().to(torch.uint8)
    images = normalise(images).contiguous(memory_format=torch.channels_last)
    with autocast(where, precision()):
        maps = model.features(images)
    return _pooled(model, maps.float()).cpu()


def _pooled(model: GeoModel, maps: Tensor) -> Tensor:
    """(B, C, h, w) -> (B, CELLS^2 + 1, C): the cells' means and, last, the whole's GeM."""
    normalised, pool = model.aggregation[0], model.aggregation[1]
    maps = normalised(maps)
    cells = F.adaptive_avg_pool2d(maps, CELLS).flatten(2).transpose(1, 2)
    return torch.cat([cells, pool(maps).flatten(1)[:, None]], 1)


def _whitened(features: Tensor) -> Tensor:
    """(N, CELLS^2 + 1, C) -> (N, CELLS^2 + 1, AXES) of unit length; cells share one whitening."""
    result = torch.empty(*features.shape[:2], AXES)
    for part in (slice(0, -1), slice(-1, None)):
        each = features[:, part]
        known = each.flatten(0, 1)
        known = known[:: math.ceil(len(known) / SAMPLE)]
        weight, bias = whitening(known.float(), AXES)
        for rows in torch.arange(len(features)).split(4096):
            result[rows, part] = F.normalize(each[rows].float() @ weight.T + bias, dim=-1)
    return result
