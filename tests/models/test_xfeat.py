"""XFeat against kornia's own calls, and shared points against loops."""

import kornia.feature as KF
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from vgeo.models import xfeat
from vgeo.models.weights import read_weights
from vgeo.models.xfeat import CHANNELS, POINTS, describe_points, shared_points, similarity


@pytest.fixture(scope="module")
def network():
    return xfeat.open_xfeat()


def test_the_weights_are_those_of_the_network_without_its_last_layers(network):
    """Strict: every tensor of kornia's network is in the file, and the file holds no other."""
    whole = KF.XFeat().net.state_dict()
    names = {name for name in whole if not name.startswith("fine_matcher.")}
    stored = read_weights(xfeat.WEIGHTS)
    assert stored.keys() == names and all(stored[n].shape == whole[n].shape for n in names)
    norms = {name for name in names if name.endswith("running_var")}
    assert norms and all((stored[name] > 0).all() for name in norms)  # trained, not made up
    assert not network.training
    assert all(torch.equal(x, stored[n].to(x.dtype)) for n, x in network.net.state_dict().items())


def test_a_missing_or_damaged_file_is_named(tmp_path, monkeypatch, refused):
    monkeypatch.setattr(xfeat, "WEIGHTS", tmp_path / "none.safetensors")
    refused(xfeat.open_xfeat, "none.safetensors", "no such weights file")
    (tmp_path / "none.safetensors").write_bytes(b"no weights")
    refused(xfeat.open_xfeat, "none.safetensors", "not a whole safetensors file")


def blocks(seed, side=96):
    """An image of random rectangles, uint8 (3, side, side): it has corners."""
    random, image = np.random.default_rng(seed), np.zeros((3, side, side), np.uint8)
    for _ in range(60):
        y, x, height, width = random.integers(1, side, 4)
        image[:, y : y + height // 3, x : x + width // 3] = random.integers(0, 256, (3, 1, 1))
    return torch.from_numpy(image)


def test_points_are_those_that_kornia_finds(network):
    images = torch.stack([blocks(0), blocks(1), torch.zeros(3, 96, 96, dtype=torch.uint8)])
    points = describe_points(network, images, 40)
    assert points.shape == (3, 40, CHANNELS) and points.dtype == torch.int8
    for image, mine in zip(images, points, strict=True):
        (alone,) = network.detectAndCompute(image[None].float() / 255, top_k=40)
        theirs = alone["descriptors"]
        assert (mine[len(theirs) :] == 0).all()
        apart = mine[: len(theirs)] / 127 - theirs
        assert (apart.abs() <= 0.5 / 127 + 1e-3).all()
    assert (points[2] == 0).all() and (points[:2] != 0).any(2).sum() > 40


@pytest.mark.parametrize("side", [32, 64])
def test_tiny_images_are_taken(network, side):
    images = torch.stack([blocks(2, side)] * 2)
    points = describe_points(network, images)
    assert points.shape == (2, POINTS, CHANNELS) and (points != 0).any()
    torch.testing.assert_close(points[0], points[1])


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.integers(1, 12), st.floats(0.1, 0.9))
def test_shared_points_by_loops(seed, one, other, alike):
    random = torch.Generator().manual_seed(seed)
    few = F.normalize(torch.randn(3, CHANNELS, generator=random), dim=1)  # so that some are alike

    def near(count):
        chosen = few[torch.randint(3, (count,), generator=random)]
        noise = 0.1 * torch.randn(count, CHANNELS, generator=random)
        return (127 * F.normalize(chosen + noise, dim=1)).round().to(torch.int8)

    points, others = near(one), torch.stack([near(other), near(other)])
    others[1, -1] = 0  # a point that the photo lacks
    expected = []
    for photo in others.numpy().astype(float):
        cosine = points.numpy().astype(float) @ photo.T / 127**2
        pairs = np.ndindex(cosine.shape)
        best = [cosine[i, j] == cosine[i].max() == cosine[:, j].max() for i, j in pairs]
        expected.append(int((np.array(best) & (cosine.ravel() > alike)).sum()))
    assert shared_points(points, others, alike).tolist() == expected


def test_shared_points_are_kornias_mutual_matches(network):
    points = describe_points(network, torch.stack([blocks(3), blocks(3).flip(2), blocks(4)]), 60)
    for other in points:
        first, second = (x[(x != 0).any(1)].float() / 127 for x in (points[0], other))
        theirs = network._match_mnn(first, second, xfeat.ALIKE)[0]
        assert abs(int(shared_points(points[0], other[None])) - len(theirs)) <= 1  # rounding


def test_similarity_of_equal_photos_is_the_largest():
    alike = similarity(np.array([POINTS, POINTS, 0, 0]), np.array([1.0, 0.0, 1.0, 0.0]))
    assert alike.dtype == np.float32 and alike[0] == 1 and alike[3] == 0
    assert (np.diff(alike) < 0).all()
    most = np.log(1 + POINTS) + xfeat.WEIGHT
    np.testing.assert_allclose(alike[1:3], [np.log(1 + POINTS) / most, xfeat.WEIGHT / most], 1e-6)
