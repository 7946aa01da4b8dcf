"""Augmentation of a whole batch at once, on its device, with other random numbers for every image."""

import math

import torch
import torch.nn.functional as F

from vgeo.device import WHOLE
from vgeo.models.network import normalise

LUMA = (0.299, 0.587, 0.114)


def colour_matrices(brightness, contrast, saturation, hue, mean_luma):
    """The jitter of each image as one affine map of its colours: (B, 3, 3) and (B, 3).

    brightness, contrast, saturation: factors (B,); hue: turns in -0.5..0.5 (B,), about the grey axis; mean_luma (B,), the centre of the
    contrast. Brightness, contrast and saturation are torchvision's `ColorJitter` without its clamping in between; its hue shift in HSV
    is here a rotation, which keeps the three steps linear and costs one matrix product.
    """
    eye, one = torch.eye(3), torch.ones(3)
    luma = torch.tensor(LUMA)
    grey = one[:, None] * luma[None]
    colour = grey + saturation[:, None, None] * (eye - grey)
    cos, sin = (
        torch.cos(2 * math.pi * hue)[:, None, None],
        torch.sin(2 * math.pi * hue)[:, None, None],
    )
    axis = torch.full((3, 3), 1 / 3)
    cross = torch.tensor([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]]) / math.sqrt(3)
    turn = axis + cos * (eye - axis) + sin * cross  # Rodrigues' rotation
    matrix = (contrast * brightness)[:, None, None] * turn @ colour
    bias = ((1 - contrast) * brightness * mean_luma)[:, None].expand(-1, 3)
    return matrix, bias


def jitter(images, generator, amount, hue, part=WHOLE):
    """Random brightness, contrast and saturation in 1 +- amount and hue in +- hue; images float (B, 3, H, W) in 0..1, and so the result.

    part: of the batch that the images are, here and below; they then get the numbers that they have in the whole.
    """
    b = len(images)
    factors = 1 + amount * (2 * part.rand(3, b, generator=generator) - 1)
    turn = hue * (2 * part.rand(1, b, generator=generator)[0] - 1)
    luma = (
        torch.einsum("bchw,c->b", images[:, :, ::4, ::4], torch.tensor(LUMA, device=images.device))
        / images[0, 0, ::4, ::4].numel()
    )
    matrix, bias = colour_matrices(*factors, turn, luma.cpu())
    flat = torch.baddbmm(
        bias[:, :, None].to(images.device), matrix.to(images.device), images.flatten(2)
    )
    return flat.view_as(images).clamp_(0, 1)


def resized_crop(images, size, generator, area=0.5, ratio=(3 / 4, 4 / 3), tilt=0.0, part=WHOLE):
    """A random crop of `area` to 1 of each image at the aspect `ratio`, resized to size x size; tilt: random rotation, +- radians."""
    b, _, h, w = images.shape
    rand = part.rand(5, b, generator=generator)
    part = area + (1 - area) * rand[0]
    aspect = torch.exp(math.log(ratio[0]) + (math.log(ratio[1]) - math.log(ratio[0])) * rand[1])
    sx, sy = (part * aspect).sqrt().clamp(max=1), (part / aspect).sqrt().clamp(max=1)
    cx, cy = (2 * rand[2] - 1) * (1 - sx), (2 * rand[3] - 1) * (1 - sy)
    angle = tilt * (2 * rand[4] - 1)
    theta = torch.stack(
        [
            torch.stack([sx * angle.cos(), -sy * angle.sin(), cx], 1),
            torch.stack([sx * angle.sin(), sy * angle.cos(), cy], 1),
        ],
        1,
    )
    grid = F.affine_grid(theta.to(images.device), (b, 3, size, size), align_corners=False)
    return F.grid_sample(
        images, grid, mode="bilinear", padding_mode="reflection", align_corners=False
    )


def original(images, size, generator, part=WHOLE):
    """CosPlace's augmentation: uint8 (B, 3, H, W) to normalised float32 (B, 3, size, size), jitter of 0.7, hue 0.5, crop from 0.5 of the area."""
    images = jitter(images.float().div_(255), generator, 0.7, 0.5, part)
    return _normalised(resized_crop(images, size, generator, part=part))


def recoloured(images, generator, part=WHOLE):
    """The jitter of `original` without its crop: float (B, 3, H, W) in 0..1 to normalised float32."""
    return _normalised(jitter(images, generator, 0.7, 0.5, part))


def strong(images, size, generator, strength=1.0):
    """For the starting weights: beyond `original`, gamma, grey, lost resolution, sensor noise, occluders and a tilt.

    strength in 0..1: 0 is a small crop and a slight jitter, 1 is everything.
    """
    b, device = len(images), images.device

    def uniform(low, high, *shape):
        return (low + (high - low) * torch.rand(b, *shape, generator=generator)).to(device)

    def some(share):
        return (torch.rand(b, generator=generator) < share * strength).to(device)

    images = resized_crop(
        images.float().div_(255),
        size,
        generator,
        area=0.75 - 0.45 * strength,
        tilt=0.04 + 0.08 * strength,
    )
    gamma = torch.exp(uniform(-0.8, 0.9, 1, 1, 1))
    images = torch.where(some(0.5)[:, None, None, None], images.clamp(1e-3, 1) ** gamma, images)
    images = jitter(images, generator, 0.25 + 0.45 * strength, 0.03 + 0.47 * strength**2)
    grey = images.mean(1, keepdim=True).expand_as(images)
    images = torch.where(some(0.25)[:, None, None, None], grey, images)
    coarse = F.interpolate(
        images, scale_factor=float(0.35 + 0.4 * torch.rand((), generator=generator)), mode="area"
    )
    coarse = F.interpolate(coarse, size=(size, size), mode="bilinear")
    images = torch.where(some(0.25)[:, None, None, None], coarse, images)
    y, x = torch.arange(size, device=device)[:, None], torch.arange(size, device=device)[None]
    for share in (0.5, 0.3):  # occluders: boxes of one colour
        side, x0, y0 = (
            uniform(0.1, 0.45, 2) * size,
            uniform(-0.1, 0.95)[:, None, None] * size,
            uniform(-0.1, 0.95)[:, None, None] * size,
        )
        box = (x >= x0) & (x < x0 + side[:, :1, None]) & (y >= y0) & (y < y0 + side[:, 1:, None])
        images = torch.where(
            (box & some(share)[:, None, None])[:, None], uniform(0, 1, 3)[:, :, None, None], images
        )
    noise = torch.randn(images.shape, generator=generator).to(device)
    images = images + noise * (some(0.6) * uniform(0, 0.09))[:, None, None, None]
    return _normalised(images.clamp(0, 1))


def _normalised(images):
    return normalise(images.mul(255).add_(0.5).to(torch.uint8))
