"""Descriptors of images: one forward pass each, or from the trunk's stored output.

Models that share a start and a frozen trunk differ in the upper stages alone. The trunk's output is
then stored once, and each model describes the images from it.
"""

from collections.abc import Callable, Iterator, Sequence
from os import PathLike

import numpy as np
import torch
from torch import Tensor, nn

from vgeo.bars import bar
from vgeo.device import WHOLE, Share, autocast, gathered, share
from vgeo.models.network import GeoModel, folded, normalise
from vgeo.photos.images import load_batches


def describe(
    model: nn.Module,
    paths: Sequence[str],
    size: int | None,
    scale: float = 1.0,
    brightness: float = 1.0,
    batch_size: int | None = None,
    progress: str | None = None,
    precision: str = "float32",
) -> np.ndarray:
    """Descriptors of image files, float32 (N, D), in their order.

    A `folded` copy of the model runs on the device where the model lies. Several processes share
    the batches, and each returns all descriptors.

    Parameters
    ----------
    size : both sides in pixels that images are resized to, times `scale`. None: each image keeps
        its own size, times `scale`.
    brightness : multiplies the pixel values, 0 to 255, before they are normalised.
    batch_size : images that go through the network together, None for the fastest number.
    progress : words before a progress bar; None for no bar.
    precision : of the convolutions, "float32" or "bf16". A GeoModel's head runs in float32.

    Raises
    ------
    VgeoError : an image can't be read.
    """
    all_rows, process = np.empty((0, 0), np.float32), share()
    mine: list[int] = []
    how = size, scale, brightness, batch_size, progress, precision, process
    model = folded(model)
    for rows, descriptors in _outputs(model, model, paths, *how):
        if not mine:
            all_rows = np.empty((len(paths), descriptors.shape[1]), np.float32)
        all_rows[rows] = descriptors.cpu().numpy()
        mine.extend(rows)
    if process.count == 1:
        return all_rows
    batches = [batch for batch in gathered([(mine, all_rows[mine])]) if batch[0]]
    all_rows = np.empty((len(paths), batches[0][1].shape[1]), np.float32)
    for rows, descriptors in batches:
        all_rows[rows] = descriptors
    return all_rows


def store_trunk(
    model: GeoModel,
    paths: Sequence[str],
    path: str | PathLike,
    size: int,
    scale: float = 1.0,
    brightness: float = 1.0,
    batch_size: int | None = None,
    progress: str | None = None,
    precision: str = "float32",
) -> None:
    """Writes the trunk's output for image files to `path`, a .npy of float16 (N, C, h, w).

    The other parameters are as in `describe`.
    """
    stored, model = None, folded(model)
    how = size, scale, brightness, batch_size, progress, precision
    for rows, maps in _outputs(model, model.trunk, paths, *how):
        if stored is None:
            shape = (len(paths), *maps.shape[1:])
            stored = np.lib.format.open_memmap(path, "w+", np.float16, shape)
        stored[rows] = maps.half().cpu().numpy()
    if stored is not None:
        stored.flush()


@torch.inference_mode()
def describe_stored(
    model: GeoModel, maps: np.ndarray, batch_size: int = 64, precision: str = "float32"
) -> np.ndarray:
    """Descriptors, float32 (N, D), from the output of `store_trunk`, float16 (N, C, h, w).

    `precision` is as in `describe`.
    """
    batches = (maps[first : first + batch_size] for first in range(0, len(maps), batch_size))
    model, device = folded(model), next(model.parameters()).device
    with autocast(device, precision):
        return np.concatenate(
            [model.head(model.upper(stored_batch(b, device))).cpu().numpy() for b in batches]
        )


def stored_batch(maps: np.ndarray, device: torch.device) -> Tensor:
    """Maps that `store_trunk` stored, float16 (B, C, h, w), as the upper stages take them."""
    tensor = torch.from_numpy(np.array(maps)).to(device).float()
    return tensor.contiguous(memory_format=torch.channels_last)


def darken(images: Tensor, brightness: float) -> Tensor:
    """Images, uint8, with their values times `brightness`, rounded and clipped to 0..255."""
    if brightness == 1.0:
        return images
    return (images.float() * brightness).round().clamp(0, 255).to(torch.uint8)


def _fastest_batch(side: int | None, device: torch.device) -> int:
    """How many images of so many pixels a side a processor describes fastest together.

    The maps of 16 large images stay in its caches; small images take longer one by one.
    """
    if side is None or device.type != "cpu" or 64 <= side <= 128:
        return 32
    return 64 if side < 64 else 16


@torch.inference_mode()
def _outputs(
    model: nn.Module,
    function: Callable[[Tensor], Tensor],
    paths: Sequence[str],
    size: int | None,
    scale: float,
    brightness: float,
    batch_size: int | None,
    progress: str | None,
    precision: str,
    process: Share = WHOLE,
) -> Iterator[tuple[np.ndarray, Tensor]]:
    """Yields int64 (B,), rows of `paths`, and function(images) for each batch of images."""
    device, side = next(model.parameters()).device, size and round(size * scale)
    batch_size = batch_size or _fastest_batch(side, device)
    batches = load_batches(paths, batch_size, side, scale=scale, share=process)
    total = len(paths)
    with bar(progress, total, "images") as counter:
        for rows, images in batches:
            images = normalise(darken(images.to(device), brightness))
            with autocast(device, precision):
                outputs = function(images.contiguous(memory_format=torch.channels_last))
            yield rows, outputs
            counter.update(len(rows))
