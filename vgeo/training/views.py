"""Views of photos that are not whole photos alone, for learning from a teacher.

A teacher describes any image, so the views need no label. Close-ups and mixtures of two photos show
a pupil more of what the teacher knows than streets do.
"""

import torch

from vgeo.training.augment import distorted, resized_crop

CLOSE_UPS, BLENDS, COLLAGES = 0.2, 0.1, 0.1  # shares of the views; the others are whole photos
CLOSE = 0.02  # the smallest share of a photo's area that a close-up shows


def varied(images: torch.Tensor, size: int, generator: torch.Generator) -> torch.Tensor:
    """A view of each photo, augmented by `augment.distorted`.

    Some views are close-ups. Some are mixed with the view before them in the batch: a blend is the
    weighted mean of both, a collage shows the other view on one side of a line.

    Parameters
    ----------
    images : uint8 (B, 3, H, H), on the CPU.
    size : pixels of a view, both sides.
    generator : on the CPU.

    Returns
    -------
    views : uint8 (B, 3, size, size).
    """
    count, side = len(images), images.shape[-1]
    kind = torch.rand(count, 1, 1, 1, generator=generator)
    blends, collages = CLOSE_UPS + BLENDS, CLOSE_UPS + BLENDS + COLLAGES
    close = resized_crop(images.float(), side, generator, area=CLOSE)
    photos = torch.where(kind < CLOSE_UPS, close, images.float()).round().clamp(0, 255)
    strength = float(torch.rand((), generator=generator))
    views = distorted(photos.to(torch.uint8), size, generator, strength)
    others = views.roll(1, 0)
    share = 0.25 + 0.5 * torch.rand(count, 1, 1, 1, generator=generator)
    blend = share * views + (1 - share) * others
    column = torch.arange(size).expand(count, 1, size, size) < share * size
    upright = torch.rand(count, 1, 1, 1, generator=generator) < 0.5
    beyond = torch.where(upright, column, column.transpose(2, 3))
    mixed = torch.where((kind >= CLOSE_UPS) & (kind < blends), blend, views)
    mixed = torch.where((kind >= blends) & (kind < collages) & beyond, others, mixed)
    return mixed.mul(255).round().to(torch.uint8)
