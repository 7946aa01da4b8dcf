"""TODO: training.batches."""

import numpy as np
import torch

from vgeo.device import WHOLE
from vgeo.photos.images import load_batches
from vgeo.training.augment import original


def by_class(labels):
    """Rows of a table sorted by label, int (N,), and where each class begins in them, int (C + 1,): class c is members[start[c]:start[c + 1]]."""
    members = np.argsort(labels, kind="stable")
    return members, np.searchsorted(labels[members], np.arange(labels.max() + 2))


def batches(labels, batch_size, first, last, seed):
    """Rows of the training table for iterations first to last - 1: each batch holds different classes, one random image of each.

    labels: int (N,). Classes come in a new random order each pass; what does not fill a batch is left to the next pass. A batch depends on
    the seed and its number alone, so a resumed training sees what an uninterrupted one would.
    """
    members, start = by_class(labels)
    classes = len(start) - 1
    size = min(batch_size, classes)
    a_pass = classes // size
    rows = []
    for iteration in range(first, last):
        number, part = divmod(iteration, a_pass)
        chosen = np.random.default_rng([seed, 0, number]).permutation(classes)[
            part * size : (part + 1) * size
        ]
        pick = np.random.default_rng([seed, 1, iteration]).random(size)
        rows.append(
            members[start[chosen] + (pick * (start[chosen + 1] - start[chosen])).astype(int)]
        )
    return rows


def live_views(model, paths, rows, size, seed, first=0, precision="float32", part=WHOLE):
    """Yields the trunk's output (B, C, h, w) for the images of rows[first], rows[first + 1], ..., each augmented anew.

    paths: array of files; rows: one index array an iteration; precision as in `Recipe`. A view depends on the seed and the iteration's
    number alone. part: of every iteration's images.
    """
    where, rows = next(model.parameters()).device, [part.of(row) for row in rows]
    if first < len(rows):
        for iteration, (_, images) in enumerate(
            load_batches(paths[np.concatenate(rows[first:])], len(rows[0]), size), first
        ):
            generator = torch.Generator().manual_seed(seed * 1_000_003 + iteration)
            images = original(images.to(where), size, generator, part).contiguous(
                memory_format=torch.channels_last
            )
            with (
                torch.no_grad(),
                torch.autocast(where.type, torch.bfloat16, enabled=precision == "bf16"),
            ):
                trunk = model.trunk(images)
            yield trunk
