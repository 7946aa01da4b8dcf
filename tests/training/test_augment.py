"""Augmentation: colours against torchvision, crops of a picture of its own coordinates."""

import math

import pytest
import torch
from torchvision.transforms.v2 import functional as reference

from vgeo.device import Share
from vgeo.models.network import IMAGENET_MEAN, IMAGENET_STD
from vgeo.training import augment


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def pale(b=4, side=16):
    """Float images far from 0 and 1, so that nothing clamps.

    They are of blocks of 4 x 4 pixels, so that every fourth pixel has the mean of all.
    """
    small = 0.4 + 0.2 * torch.rand(b, 3, side // 4, side // 4, generator=generator(1))
    return small.repeat_interleave(4, 2).repeat_interleave(4, 3)


def apply(images, **change):
    """`colour_matrices` on images, with what is not changed left as it is."""
    b = len(images)
    luma = torch.einsum("bchw,c->b", images, torch.tensor(augment.LUMA)) / images[0, 0].numel()
    values = {"brightness": 1.0, "contrast": 1.0, "saturation": 1.0, "hue": 0.0} | change
    factors = (torch.as_tensor(value, dtype=torch.float32).expand(b) for value in values.values())
    matrix, bias = augment.colour_matrices(*factors, luma)
    assert matrix.shape == (b, 3, 3) and bias.shape == (b, 3)
    return torch.einsum("bij,bjhw->bihw", matrix, images) + bias[:, :, None, None]


def close(found, expected, atol):
    torch.testing.assert_close(found, expected, atol=atol, rtol=0)


# torchvision's luma has 0.2989 for red where ours has 0.299
@pytest.mark.parametrize(
    "name, atol", [("brightness", 1e-6), ("contrast", 2e-4), ("saturation", 2e-4)]
)
def test_one_change_is_torchvisions(name, atol):
    images = pale()
    factors = torch.tensor([0.3, 0.8, 1.2, 1.6])
    expected = [
        getattr(reference, f"adjust_{name}")(image, float(factor))
        for image, factor in zip(images, factors)
    ]
    expected = torch.stack(expected)
    assert expected.min() > 0 and expected.max() < 1 and (expected - images).abs().mean() > 0.01
    close(apply(images, **{name: factors}), expected, atol)


# What no change of contrast or hue leaves as it is: two greys, and two colours of one luma and mean
LEVEL, STEP = 0.1, 0.01
COLOUR = torch.linalg.cross(torch.ones(3), torch.tensor(augment.LUMA))
COLOUR = STEP * COLOUR / COLOUR.norm()


def cards(b):
    """Images (b, 3, 8, 8) of four blocks, whose mean luma is LEVEL."""
    grey = torch.ones(3)
    blocks = [grey * (LEVEL - STEP), grey * (LEVEL + STEP), LEVEL + COLOUR, LEVEL - COLOUR]
    card = torch.stack(blocks, 1).view(3, 2, 2).repeat_interleave(4, 1).repeat_interleave(4, 2)
    return card.repeat(b, 1, 1, 1)


def measured(images):
    """What jitter did to `cards`: brightness, contrast, saturation, turns of hue, (b,) each."""
    dark, light, one, other = images[:, :, ::4, ::4].flatten(2).unbind(2)
    brightness = (dark + light).mean(1) / 2 / LEVEL
    contrast = (light - dark).mean(1) / 2 / STEP / brightness
    turned, axis = (one - other) / 2, torch.ones(3) / math.sqrt(3)
    saturation = turned.norm(dim=1) / STEP / brightness / contrast
    along = turned @ COLOUR
    across = turned @ torch.linalg.cross(axis, COLOUR)
    return brightness, contrast, saturation, torch.atan2(across, along) / (2 * math.pi)


def test_jitter_is_torchvisions_changes_in_turn():
    images = pale()
    found = augment.jitter(images, generator(), 0.3, 0.0)
    *factors, hue = measured(augment.jitter(cards(len(images)), generator(), 0.3, 0.0))
    close(hue, torch.zeros(len(images)), 1e-4)
    for image, result, b, c, s in zip(
        images, found, *map(torch.Tensor.tolist, factors), strict=True
    ):
        expected = reference.adjust_contrast(reference.adjust_brightness(image, b), c)
        expected = reference.adjust_saturation(expected, s)
        assert expected.min() > 0 and expected.max() < 1
        close(result, expected, 5e-4)


def test_jitter_stays_in_its_bounds_and_clamps_its_end():
    *factors, turns = measured(augment.jitter(cards(2000), generator(), 0.7, 0.5))
    for factor in factors:
        assert factor.min() >= 0.3 - 1e-3 and factor.max() <= 1.7 + 1e-3
        assert factor.min() < 0.32 and factor.max() > 1.68 and abs(factor.mean() - 1) < 0.05
    assert -0.501 <= turns.min() < -0.49 and 0.49 < turns.max() <= 0.501
    images = torch.rand(2000, 3, 4, 4, generator=generator(1))
    found = augment.jitter(images, generator(), 0.7, 0.5)
    assert found.min() == 0 and found.max() == 1
    close(augment.jitter(images, generator(), 0.0, 0.0), images, 1e-6)


def test_shares_get_the_random_numbers_that_they_have_in_the_whole():
    images = (255 * pale(6, 32)).to(torch.uint8)
    whole = augment.original(images, 24, generator(2))
    plain = augment.recoloured(images / 255, generator(2))
    for index in range(3):
        share = Share(index, 3)
        part = augment.original(share.of(images), 24, generator(2), share)
        # one pixel value, where rounding decides it
        close(part, share.of(whole), 1.01 / 255 / min(IMAGENET_STD))
        part = augment.recoloured(share.of(images) / 255, generator(2), share)
        close(part, share.of(plain), 1.01 / 255 / min(IMAGENET_STD))


def test_a_hue_turn_is_about_the_grey_axis():
    images = pale()
    turns = torch.tensor([-0.5, -0.1, 0.25, 0.4])
    turned = apply(images, hue=turns)
    close(turned.sum(1), images.sum(1), 1e-6)
    close(turned.std(1), images.std(1), 1e-6)  # as far from grey as before
    assert (turned - images).abs().amax((1, 2, 3)).min() > 0.01
    grey = images.mean(1, keepdim=True).expand_as(images)
    close(apply(grey, hue=turns), grey, 1e-6)
    close(apply(images, hue=1.0), images, 1e-6)
    third = apply(images, hue=1 / 3)
    close(third, images.roll(1, 1), 1e-6)  # red becomes green, green blue, as in HSV
    close(third, reference.adjust_hue(images, 1 / 3), 1e-5)


# Crops


def coordinates(b, side=32):
    """Images of their own coordinates: x, from -1 to 1 at the borders, in red, y in green."""
    line = (2 * torch.arange(side) + 1) / side - 1
    x, y = line.expand(side, side), line[:, None].expand(side, side)
    return torch.stack([x, y, torch.zeros(side, side)]).expand(b, 3, side, side)


def test_the_whole_crop_is_the_image():
    images = torch.rand(3, 3, 24, 24, generator=generator(1))
    close(augment.resized_crop(images, 24, generator(), area=1, ratio=(1, 1)), images, 1e-5)
    half = augment.resized_crop(images, 12, generator(), area=1, ratio=(1, 1))
    close(
        half,
        torch.nn.functional.interpolate(images, (12, 12), mode="bilinear", align_corners=False),
        1e-5,
    )


@pytest.mark.parametrize("area, ratio", [(0.5, (3 / 4, 4 / 3)), (0.2, (1 / 2, 1))])
def test_crops_keep_to_their_bounds(area, ratio):
    b, size = 3000, 16
    found = augment.resized_crop(coordinates(b), size, generator(), area, ratio)
    red, green = found[:, 0], found[:, 1]
    close(red, red[:, :1].expand_as(red), 1e-5)  # no tilt: x depends on the column alone
    close(green, green[:, :, :1].expand_as(green), 1e-5)
    inner = slice(4, 12)  # away from the borders, where the picture of coordinates ends
    width, x = red[:, 0, inner].diff().mean(1) * size / 2, red[:, 0, inner].mean(1)
    height, y = green[:, inner, 0].diff().mean(1) * size / 2, green[:, inner, 0].mean(1)
    assert (x.abs() + width).max() <= 1 + 1e-4 and (
        y.abs() + height
    ).max() <= 1 + 1e-4  # within the image
    part, aspect = width * height, width / height
    assert area - 1e-4 <= part.min() < area + 0.02 and 0.97 < part.max() <= 1 + 1e-4
    assert (
        ratio[0] - 1e-3 <= aspect.min() < ratio[0] + 0.02
        and ratio[1] - 0.02 < aspect.max() <= ratio[1] + 1e-3
    )
    assert abs(x.mean()) < 0.02 and abs(y.mean()) < 0.02 and x.std() > 0.05 and y.std() > 0.05
    free = (width < 0.98) & (height < 0.98)
    for place, side in ((x, width), (y, height)):  # uniform over what the crop leaves free
        quarters = (place[free] / (1 - side[free])).quantile(torch.tensor([0.25, 0.75]))
        close(quarters, torch.tensor([-0.5, 0.5]), 0.08)


def test_a_tilted_crop_is_turned_by_no_more_than_its_tilt():
    tilt = 0.12
    found = augment.resized_crop(
        coordinates(500), 16, generator(), area=0.5, ratio=(1, 1), tilt=tilt
    )[:, :, 6:10, 6:10]
    right = found.diff(dim=3).mean((2, 3))  # how x and y change to the right
    angle = torch.atan2(right[:, 1], right[:, 0])
    assert -tilt - 1e-3 <= angle.min() < -0.9 * tilt and 0.9 * tilt < angle.max() <= tilt + 1e-3
    down = found.diff(dim=2).mean((2, 3))
    close(torch.atan2(-down[:, 0], down[:, 1]), angle, 2e-3)


# Whole augmentations


@pytest.mark.parametrize("change", [augment.original, augment.strong])
def test_augmentations(change):
    small = 255 * torch.rand(1, 3, 5, 5, generator=generator(1))
    photo = torch.nn.functional.interpolate(small, (40, 40), mode="bicubic")
    images = photo.clamp(0, 255).to(torch.uint8).repeat(8, 1, 1, 1)
    before = images.clone()
    found = change(images, 32, generator(5))
    assert torch.equal(images, before)
    assert found.shape == (8, 3, 32, 32) and found.dtype == torch.float32
    values = found * torch.tensor(IMAGENET_STD).view(3, 1, 1) + torch.tensor(IMAGENET_MEAN).view(
        3, 1, 1
    )
    assert values.min() >= -1e-5 and values.max() <= 1 + 1e-5
    close(
        values * 255, (values * 255).round(), 1e-2
    )  # normalised from whole numbers, as photos are
    for i in range(8):
        for j in range(i):
            assert (values[i] - values[j]).abs().mean() > 0.01
    assert torch.equal(change(images, 32, generator(5)), found)
    assert not torch.equal(change(images, 32, generator(6)), found)
    state = torch.get_rng_state()
    change(images, 32, generator(5))
    assert torch.equal(torch.get_rng_state(), state)  # nothing random but the generator's


def test_strong_is_distorted_normalised_from_whole_numbers():
    images = (255 * torch.rand(6, 3, 24, 24, generator=generator(1))).to(torch.uint8)
    for strength in (0.0, 0.5, 1.0):
        views = augment.distorted(images, 20, generator(3), strength)
        assert views.dtype == torch.float32 and views.shape == (6, 3, 20, 20)
        assert views.min() >= 0 and views.max() <= 1
        mean, std = (torch.tensor(x).view(3, 1, 1) for x in (IMAGENET_MEAN, IMAGENET_STD))
        found = augment.strong(images, 20, generator(3), strength) * std + mean
        close(found, (views * 255).round() / 255, 1e-5)


def test_distortion_grows_with_its_strength():
    """At 0: a crop, a tilt and a slight jitter of a grey photo, which leave it nearly even."""
    images = torch.full((400, 3, 16, 16), 128, dtype=torch.uint8)
    spread = [
        augment.distorted(images, 16, generator(3), strength).std((2, 3)).mean()
        for strength in (0.0, 0.5, 1.0)
    ]
    assert spread[0] < 1e-6 and 0.02 < spread[1] < 0.8 * spread[2]


def test_the_original_is_a_jitter_then_a_crop():
    """The numbers of CosPlace: a jitter of 0.7, a hue of 0.5, crops from 0.5 of the area."""
    images = (255 * pale(side=32)).to(torch.uint8)
    source = generator(3)
    expected = augment.resized_crop(
        augment.jitter(images / 255, source, 0.7, 0.5), 24, source, 0.5, (3 / 4, 4 / 3)
    )
    std = torch.tensor(IMAGENET_STD).view(3, 1, 1)
    found = augment.original(images, 24, generator(3)) * std + torch.tensor(IMAGENET_MEAN).view(
        3, 1, 1
    )
    close(found, expected, 0.51 / 255)
    assert math.isclose(float(sum(augment.LUMA)), 1)
