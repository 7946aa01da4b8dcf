"""Augmentation of a whole batch at once, on its device; every image has random numbers of its own.

Where a function takes a `share`, `images` are that share of a batch and get the random numbers that
they have in the whole. Generators are on the CPU.
"""

import math

import torch
import torch.nn.functional as F

from vgeo.device import WHOLE, Share
from vgeo.models.network import normalise

LUMA = (0.299, 0.587, 0.114)


def colour_matrices(
    brightness: torch.Tensor,
    contrast: torch.Tensor,
    saturation: torch.Tensor,
    hue: torch.Tensor,
    mean_luma: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The jitter of each image as one affine map of its colours.

    Brightness, contrast and saturation are torchvision's `ColorJitter` without its clamping in
    between. Its hue shift in HSV is here a rotation about the grey axis, which keeps the steps
    linear, so that all cost one matrix product.

    Parameters
    ----------
    brightness, contrast, saturation : factors (B,).
    hue : turns in -0.5..0.5 (B,).
    mean_luma : (B,), the grey values that contrast leaves as they are.

    Returns
    -------
    matrix, bias : float32 (B, 3, 3) and (B, 3).
    """
    eye, one = torch.eye(3), torch.ones(3)
    luma = torch.tensor(LUMA)
    grey = one[:, None] * luma[None]
    colour = grey + saturation[:, None, None] * (eye - grey)
    turns = 2 * math.pi * hue[:, None, None]
    axis = torch.full((3, 3), 1 / 3)
    cross = torch.tensor([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]]) / math.sqrt(3)
    turn = axis + torch.cos(turns) * (eye - axis) + torch.sin(turns) * cross  # Rodrigues' rotation
    matrix = (contrast * brightness)[:, None, None] * turn @ colour
    bias = ((1 - contrast) * brightness * mean_luma)[:, None].expand(-1, 3)
    return matrix, bias


def jitter(
    images: torch.Tensor,
    generator: torch.Generator,
    amount: float,
    hue: float,
    share: Share = WHOLE,
) -> torch.Tensor:
    """Random brightness, contrast and saturation in 1 +- amount and hue in +- hue turns.

    Parameters
    ----------
    images : float (B, 3, H, W) in 0..1, and so the result.
    """
    b, sample = len(images), images[:, :, ::4, ::4]
    light, contrast, colour = 1 + amount * (2 * share.rand(3, b, generator=generator) - 1)
    turn = hue * (2 * share.rand(1, b, generator=generator)[0] - 1)
    luma = torch.einsum("bchw,c->b", sample, torch.tensor(LUMA, device=images.device))
    luma = luma / sample[0, 0].numel()
    matrix, bias = colour_matrices(light, contrast, colour, turn, luma.cpu())
    matrix, bias = matrix.to(images.device), bias[:, :, None].to(images.device)
    return torch.baddbmm(bias, matrix, images.flatten(2)).view_as(images).clamp_(0, 1)


def resized_crop(
    images: torch.Tensor,
    size: int,
    generator: torch.Generator,
    area: float = 0.5,
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
    tilt: float = 0.0,
    share: Share = WHOLE,
) -> torch.Tensor:
    """A random crop of each image, resized to size x size pixels.

    Parameters
    ----------
    images : float (B, C, H, W).
    area : the crop has a share of the image's area between this and 1.
    ratio : bounds of its aspect ratio.
    tilt : bound of its rotation, radians.
    """
    b = len(images)
    rand = share.rand(5, b, generator=generator)
    cropped = area + (1 - area) * rand[0]
    low, high = map(math.log, ratio)
    aspect = torch.exp(low + (high - low) * rand[1])
    sx, sy = (cropped * aspect).sqrt().clamp(max=1), (cropped / aspect).sqrt().clamp(max=1)
    cx, cy = (2 * rand[2] - 1) * (1 - sx), (2 * rand[3] - 1) * (1 - sy)
    angle = tilt * (2 * rand[4] - 1)
    rows = [[sx * angle.cos(), -sy * angle.sin(), cx], [sx * angle.sin(), sy * angle.cos(), cy]]
    theta = torch.stack([torch.stack(row, 1) for row in rows], 1).to(images.device)
    grid = F.affine_grid(theta, [b, 3, size, size], align_corners=False)
    return F.grid_sample(
        images, grid, mode="bilinear", padding_mode="reflection", align_corners=False
    )


def original(
    images: torch.Tensor, size: int, generator: torch.Generator, share: Share = WHOLE
) -> torch.Tensor:
    """CosPlace's augmentation: jitter of 0.7, hue of 0.5, a crop from 0.5 of the area.

    Parameters
    ----------
    images : uint8 (B, 3, H, W).

    Returns
    -------
    views : normalised float32 (B, 3, size, size).
    """
    images = jitter(images.float().div_(255), generator, 0.7, 0.5, share)
    return _normalised(resized_crop(images, size, generator, share=share))


def recoloured(
    images: torch.Tensor, generator: torch.Generator, share: Share = WHOLE
) -> torch.Tensor:
    """The jitter of `original` alone: float (B, 3, H, W) in 0..1 -> normalised float32."""
    return _normalised(jitter(images, generator, 0.7, 0.5, share))


def strong(
    images: torch.Tensor, size: int, generator: torch.Generator, strength: float = 1.0
) -> torch.Tensor:
    """`distorted` photos as a network takes them: normalised float32 (B, 3, size, size)."""
    return _normalised(distorted(images, size, generator, strength))


def distorted(
    images: torch.Tensor, size: int, generator: torch.Generator, strength: float = 1.0
) -> torch.Tensor:
    """The augmentation for starting weights.

    Beyond `original` it has gamma, grey, lost resolution, sensor noise, occluders and a tilt.

    Parameters
    ----------
    images : uint8 (B, 3, H, W).
    strength : 0 is a small crop and a slight jitter, 1 is everything.

    Returns
    -------
    views : float32 (B, 3, size, size) in 0..1.
    """
    b, device = len(images), images.device

    def uniform(low, high, *shape):
        return (low + (high - low) * torch.rand(b, *shape, generator=generator)).to(device)

    def some(chance):
        return (torch.rand(b, generator=generator) < chance * strength).to(device)

    def mixed(chance, changed):
        return torch.where(some(chance)[:, None, None, None], changed, images)

    images, area, tilt = images.float().div_(255), 0.75 - 0.45 * strength, 0.04 + 0.08 * strength
    images = resized_crop(images, size, generator, area=area, tilt=tilt)
    gamma = torch.exp(uniform(-0.8, 0.9, 1, 1, 1))
    images = mixed(0.5, images.clamp(1e-3, 1) ** gamma)
    images = jitter(images, generator, 0.25 + 0.45 * strength, 0.03 + 0.47 * strength**2)
    images = mixed(0.25, images.mean(1, keepdim=True).expand_as(images))
    factor = float(0.35 + 0.4 * torch.rand((), generator=generator))
    coarse = F.interpolate(images, scale_factor=factor, mode="area")
    images = mixed(0.25, F.interpolate(coarse, size=(size, size), mode="bilinear"))
    y, x = torch.arange(size, device=device)[:, None], torch.arange(size, device=device)[None]
    for chance in (0.5, 0.3):  # occluders: boxes of one colour
        width, height = (size * uniform(0.1, 0.45, 2)).T[..., None, None]
        x0, y0 = (size * uniform(-0.1, 0.95)[:, None, None] for _ in range(2))
        box = (x >= x0) & (x < x0 + width) & (y >= y0) & (y < y0 + height)
        hidden = (box & some(chance)[:, None, None])[:, None]
        images = torch.where(hidden, uniform(0, 1, 3)[:, :, None, None], images)
    noise = torch.randn(images.shape, generator=generator).to(device)
    images = images + noise * (some(0.6) * uniform(0, 0.09))[:, None, None, None]
    return images.clamp(0, 1)


def _normalised(images):
    return normalise(images.mul(255).add_(0.5).to(torch.uint8))
