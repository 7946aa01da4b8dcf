"""Which photos each training iteration sees, and their augmented views."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from vgeo.device import WHOLE, Share, autocast, numpy_stream, torch_stream
from vgeo.photos.images import load_batches
from vgeo.training import augment


def by_class(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows sorted by label, and where each class begins among them.

    Parameters
    ----------
    labels : int (N,), 0 to C - 1.

    Returns
    -------
    members, start : int (N,) and int (C + 1,). Class c has the rows members[start[c] : start[c +
        1]].
    """
    members = np.argsort(labels, kind="stable")
    return members, np.searchsorted(labels[members], np.arange(labels.max() + 2))


def batches(
    labels: np.ndarray, batch_size: int, first: int, last: int, seed: int
) -> list[np.ndarray]:
    """The rows of iterations first to last - 1: one random image of each of a batch's classes.

    A pass goes through the classes in a random order; the classes that do not fill a batch are left
    out of it. A batch depends on the seed and its number alone, so that a resumed training sees the
    batches of an uninterrupted one.

    Parameters
    ----------
    labels : int (N,).

    Returns
    -------
    list : int (B,) for each iteration, B the smaller of `batch_size` and the number of classes.
    """
    members, start = by_class(labels)
    classes = len(start) - 1
    size = min(batch_size, classes)
    in_a_pass = classes // size
    rows = []
    for iteration in range(first, last):
        number, place = divmod(iteration, in_a_pass)
        order = numpy_stream(seed, "class order", number).permutation(classes)
        chosen = order[place * size : (place + 1) * size]
        pick = numpy_stream(seed, "image of a class", iteration).random(size)
        rows.append(
            members[start[chosen] + (pick * (start[chosen + 1] - start[chosen])).astype(int)]
        )
    return rows


def live_views(
    model,
    paths: np.ndarray,
    rows: Sequence[np.ndarray],
    size: int,
    seed: int,
    first: int = 0,
    precision: str = "float32",
    share: Share = WHOLE,
) -> Iterator[torch.Tensor]:
    """Yields the trunk's output (B, C, h, w) for the images of rows[first], rows[first + 1], ...

    Every image is decoded and augmented anew. A view depends on the seed and its iteration alone.

    Parameters
    ----------
    model : a GeoModel, on its device.
    paths : the files, an array of str.
    rows : for each iteration an int array into `paths`, all of one length.
    size : pixels of a view, both sides.
    precision : "bf16" or "float32", of the trunk.
    share : this process's share of every iteration's images.
    """
    where, rows = next(model.parameters()).device, [share.of(row) for row in rows]
    if first >= len(rows):
        return
    loaded = load_batches(paths[np.concatenate(rows[first:])], len(rows[0]), size)
    for iteration, (_, images) in enumerate(loaded, first):
        images = augment.original(images.to(where), size, torch_stream(seed, iteration), share)
        images = images.contiguous(memory_format=torch.channels_last)
        with torch.no_grad(), autocast(where, precision):
            trunk = model.trunk(images)
        yield trunk
