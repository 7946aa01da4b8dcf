"""Views: how many of each kind, and what a mixture is made of."""

import pytest
import torch

from vgeo.training import views
from vgeo.training.augment import distorted
from vgeo.training.views import varied

COUNT, SIDE = 4000, 8
MARK = 120  # what a close-up adds to its photo here


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def seen():
    """The photos' grey values, whether each is a close-up, and the views: with nothing distorted.

    Photos of one grey stand for photos, and a close-up is a lighter grey. What is mixed differs by
    30 at least.
    """
    areas, closer = [], torch.zeros(COUNT, dtype=torch.bool)

    def resized_crop(images, size, generator, area):
        areas.append(area)
        return images + MARK

    def undistorted(images, size, generator, strength):
        assert images.dtype == torch.uint8 and 0 <= strength <= 1
        closer.copy_(images[:, 0, 0, 0] >= MARK)
        return images.float() / 255

    greys = torch.randint(0, 31, (COUNT,), generator=generator(1), dtype=torch.uint8)
    greys[1::2] += 60
    photos = greys[:, None, None, None].expand(COUNT, 3, SIDE, SIDE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(views, "resized_crop", resized_crop)
        patch.setattr(views, "distorted", undistorted)
        made = varied(photos, SIDE, generator(2))
    assert areas == [views.CLOSE]
    assert (made == made[:, :1]).all()
    return greys.float() + MARK * closer, closer, made[:, 0].float()


def test_shares_of_the_kinds_and_what_a_mixture_is_made_of(seen):
    own, closer, made = seen
    other = own.roll(1)
    even = made.flatten(1).amax(1) == made.flatten(1).amin(1)
    whole = even & (made[:, 0, 0] == own)
    blend, collage = even & ~whole, ~even
    assert not (closer & ~whole).any()  # a close-up is never mixed
    shares = {"close": closer, "blend": blend, "collage": collage, "whole": whole & ~closer}
    expected = {"close": 0.2, "blend": 0.1, "collage": 0.1, "whole": 0.6}
    for name, rows in shares.items():
        assert rows.float().mean() == pytest.approx(expected[name], abs=0.02), name

    part = ((made[:, 0, 0] - other) / (own - other))[blend]  # of the photo itself
    assert 0.23 < part.min() < 0.29 and 0.71 < part.max() < 0.77  # of numbers that are rounded
    assert part.mean() == pytest.approx(0.5, abs=0.03) and part.std() > 0.1

    mine = made[collage] == own[collage, None, None]
    theirs = made[collage] == other[collage, None, None]
    assert (mine ^ theirs).all()
    columns = (theirs == theirs[:, :1]).flatten(1).all(1)
    rows = (theirs == theirs[:, :, :1]).flatten(1).all(1)
    assert (columns ^ rows).all()
    assert columns.float().mean() == pytest.approx(0.5, abs=0.1)
    lines = torch.where(columns[:, None], theirs[:, 0], theirs[:, :, 0])
    assert (lines[:, :-1] >= lines[:, 1:]).all()  # the other photo's side is one
    assert set(lines.sum(1).tolist()) == {3, 4, 5, 6}  # of 8 lines


def photos(count=12, side=24):
    images = 255 * torch.rand(count, 3, side, side, generator=generator(1))
    return images.to(torch.uint8)


def test_views_are_bytes_that_depend_on_the_generator_alone():
    images = photos()
    before, state = images.clone(), torch.get_rng_state()
    made = varied(images, 16, generator(3))
    assert made.dtype == torch.uint8 and made.shape == (12, 3, 16, 16)
    assert made.float().std() > 20
    assert torch.equal(images, before) and torch.equal(torch.get_rng_state(), state)
    assert torch.equal(varied(images, 16, generator(3)), made)
    assert not torch.equal(varied(images, 16, generator(4)), made)


def test_whole_photos_are_distorted_ones(monkeypatch):
    """With no other kind: the photos, distorted with the strength that was drawn."""
    for name in ("CLOSE_UPS", "BLENDS", "COLLAGES"):
        monkeypatch.setattr(views, name, 0.0)
    drawn = []

    def recorded(images, size, source, strength):
        drawn.append((images, strength, distorted(images, size, source, strength)))
        return drawn[-1][2]

    monkeypatch.setattr(views, "distorted", recorded)
    images = photos()
    for seed in range(8):
        made = varied(images, 16, generator(seed))
        given, strength, expected = drawn[-1]
        assert torch.equal(given, images) and 0 <= strength <= 1
        assert torch.equal(made, (expected * 255).round().to(torch.uint8))
    assert max(strength for _, strength, _ in drawn) > 0.6
    assert min(strength for _, strength, _ in drawn) < 0.4
