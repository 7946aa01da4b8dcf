"""Descriptors of images: one forward pass each, or from the stored output of the trunk that many models share."""

import numpy as np
import torch
from tqdm.auto import tqdm

from vgeo.device import WHOLE, gathered, part
from vgeo.models.network import normalise
from vgeo.photos.images import load_batches


def darken(images, brightness):
    """uint8 images with their values times `brightness`, rounded and clipped to 0..255."""
    return (
        images
        if brightness == 1.0
        else (images.float() * brightness).round().clamp(0, 255).to(torch.uint8)
    )


def describe(model, paths, size, scale=1.0, brightness=1.0, batch_size=32, progress=None):
    """Descriptors, float32 (len(paths), D), of image files in their order; the model runs in evaluation mode where it lies.

    size: images are resized to round(size * scale) pixels, both sides; None: to their own size times the scale, equal ones in one batch.
    brightness multiplies the pixel values (0 to 255, rounded) before they are normalised. progress: words before a bar, or None for no bar.
    Several processes share the batches, and each returns all descriptors.
    """

    def gather(indices, batch):
        batch = batch.cpu().numpy()
        if not found:
            found.append(np.empty((len(paths), batch.shape[1]), np.float32))
        found[0][indices] = batch
        mine.extend(indices)

    found, mine, share = [], [], part()
    _forward(model, model, paths, size, scale, brightness, batch_size, progress, gather, share)
    if share.count > 1:
        for indices, rows in gathered([(mine, found[0][mine])] if found else []):
            gather(indices, torch.from_numpy(rows))
    return found[0] if found else np.empty((0, 0), np.float32)


def store_trunk(model, paths, path, size, scale=1.0, brightness=1.0, batch_size=32, progress=None):
    """Writes the trunk's output for image files to `path`, a .npy of float16 (len(paths), C, h, w); arguments as `describe`'s."""

    def gather(indices, batch):
        if not maps:
            maps.append(
                np.lib.format.open_memmap(path, "w+", np.float16, (len(paths), *batch.shape[1:]))
            )
        maps[0][indices] = batch.half().cpu().numpy()

    maps = []
    _forward(model, model.trunk, paths, size, scale, brightness, batch_size, progress, gather)
    maps[0].flush()


def describe_stored(model, maps, batch_size=64):
    """Descriptors, float32 (N, D), from the trunk's stored output (N, C, h, w); the model runs in evaluation mode where it lies."""
    where, was_training = next(model.parameters()).device, model.training
    model.eval().to(memory_format=torch.channels_last)
    with torch.inference_mode():
        found = [
            model.head(model.upper(stored(maps[i : i + batch_size], where))).cpu().numpy()
            for i in range(0, len(maps), batch_size)
        ]
    model.train(was_training)
    return np.concatenate(found)


def stored(maps, where):
    """Stored float16 maps as the tensor that the upper stages take."""
    return (
        torch.from_numpy(np.array(maps))
        .to(where)
        .float()
        .contiguous(memory_format=torch.channels_last)
    )


def _forward(
    model, function, paths, size, scale, brightness, batch_size, progress, gather, part=WHOLE
):
    """Calls gather(indices, function(images)) for all images, in batches or a part of them, with the model in evaluation mode."""
    where, was_training = next(model.parameters()).device, model.training
    model.eval().to(memory_format=torch.channels_last)
    try:
        with (
            torch.inference_mode(),
            tqdm(
                total=len(paths),
                desc=progress,
                unit=" images",
                disable=progress is None,
                leave=False,
            ) as bar,
        ):
            for indices, images in load_batches(
                paths, batch_size, size and round(size * scale), scale=scale, part=part
            ):
                images = normalise(darken(images.to(where), brightness)).contiguous(
                    memory_format=torch.channels_last
                )
                gather(indices, function(images))
                bar.update(len(indices))
    finally:
        model.train(was_training)
