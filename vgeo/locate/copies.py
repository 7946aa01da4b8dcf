"""Copies of a photo as another light, camera or view would change it."""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


def dark(pixels: Tensor, random: np.random.Generator) -> Tensor:
    """Much darker, the shadows most, and noisy."""
    darker = random.uniform(0.15, 0.6) * pixels ** random.uniform(1.2, 2.2)
    noise = random.normal(0, random.uniform(0.01, 0.05), pixels.shape)
    return darker + torch.from_numpy(noise).float()


def blurred(pixels: Tensor, random: np.random.Generator) -> Tensor:
    """As sharp as a photo with 0.2 to 0.4 of the sides."""
    sides, share = pixels.shape[1:], random.uniform(0.2, 0.4)
    small = [max(1, round(share * side)) for side in sides]
    reduced = F.interpolate(pixels[None], small, mode="bilinear", antialias=True)
    return F.interpolate(reduced, sides, mode="bilinear")[0]


def tinted(pixels: Tensor, random: np.random.Generator) -> Tensor:
    """Each colour brighter or darker by its own factor."""
    return pixels * torch.from_numpy(random.uniform(0.5, 1.2, (3, 1, 1))).float()


def cropped(pixels: Tensor, random: np.random.Generator) -> Tensor:
    """A part of 0.5 to 0.8 of the sides, enlarged."""
    sides = pixels.shape[1:]
    part = [max(1, round(random.uniform(0.5, 0.8) * side)) for side in sides]
    y, x = (random.integers(0, side - own + 1) for side, own in zip(sides, part))
    inside = pixels[None, :, y : y + part[0], x : x + part[1]]
    return F.interpolate(inside, sides, mode="bilinear")[0]


# Every second copy is dark: a night differs most from what an index usually holds.
KINDS: tuple[Callable[[Tensor, np.random.Generator], Tensor], ...] = (
    *(dark, blurred, dark, tinted, dark, cropped),
)


def changed(image: Tensor, random: np.random.Generator) -> Tensor:
    """A copy, of a random kind of KINDS, of an image: RGB, uint8 (3, H, W)."""
    kind = KINDS[random.integers(len(KINDS))]
    return (255 * kind(image.float() / 255, random)).round().clamp(0, 255).to(torch.uint8)
