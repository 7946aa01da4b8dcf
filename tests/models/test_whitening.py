"""Whitening against scikit-learn's, its definition, and the head's formula."""

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from vgeo.models.network import build, normalise
from vgeo.models.whitening import SHRINKAGE, Pooled, describe_pooled, whiten_head, whitening


def features(count=200, channels=12, seed=0):
    """Correlated features with a mean, float32 (count, channels)."""
    random = np.random.default_rng(seed)
    mixing = random.normal(size=(channels, channels)) * np.geomspace(3, 0.1, channels)[:, None]
    values = random.normal(size=(count, channels)) @ mixing + random.normal(size=channels)
    return torch.from_numpy(values.astype(np.float32))


@pytest.mark.parametrize("dim", [12, 5])
def test_whitening_is_scikit_learns(dim):
    known = features()
    weight, bias = whitening(known, dim, shrinkage=0.0)
    assert weight.dtype == bias.dtype == torch.float32
    assert weight.shape == (dim, 12) and bias.shape == (dim,)
    theirs = PCA(dim, whiten=True, svd_solver="full").fit(known.double().numpy())
    for each in (known, features(seed=1)):  # what it was made of, and others
        found, expected = each @ weight.T + bias, theirs.transform(each.double().numpy())
        signs = np.sign((found.numpy() * expected).sum(0))  # an axis has two directions
        np.testing.assert_allclose(found, expected * signs, atol=2e-3)


def test_whitened_features_have_mean_0_and_covariance_1():
    known = features()
    weight, bias = whitening(known, 6, shrinkage=0.0)
    found = known @ weight.T + bias
    torch.testing.assert_close(found.mean(0), torch.zeros(6), atol=1e-4, rtol=0)
    torch.testing.assert_close(torch.cov(found.T), torch.eye(6), atol=1e-4, rtol=0)


def test_shrinkage_by_its_formula():
    known, shrinkage = features(), 0.3
    plain = whitening(known, 6, shrinkage=0.0)[0].double()
    variance = 1 / plain.pow(2).sum(1)  # a row is a unit vector over the deviation
    found = whitening(known, 6, shrinkage)[0].double()
    expected = plain * (variance / (variance + shrinkage * variance.mean())).sqrt()[:, None]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_axes_point_to_their_largest_number():
    weight = whitening(features(), 12, 0.1)[0]
    assert (weight.gather(1, weight.abs().argmax(1, keepdim=True)) > 0).all()
    known = features()
    mirrored = whitening(2 * known.mean(0) - known, 12, 0.1)[0]
    torch.testing.assert_close(weight, mirrored, atol=1e-3, rtol=1e-3)


def test_fewer_photos_than_axes_give_finite_numbers():
    """Along axes without any variance the shrinkage alone divides."""
    known = features(count=4)
    weight, bias = whitening(known, 8, 0.1)
    assert weight.isfinite().all() and bias.isfinite().all()
    found = known @ weight.T + bias
    assert found[:, 3:].abs().max() < 1e-2 < found[:, :3].abs().max()


def test_what_cannot_be_whitened(refused):
    refused(lambda: whitening(features(), 13, 0.1), "200 photos of 12 features", "13 numbers")
    refused(lambda: whitening(features(count=1), 5, 0.1), "1 photos", "at least 2")


@torch.no_grad()
@pytest.mark.parametrize("backbone", ["resnet18", "efficientnet_lite0"])
def test_pooled_features_and_a_whitened_head(backbone):
    torch.manual_seed(0)
    model = build(backbone, dim=8).eval()
    model.aggregation[1].p.fill_(2.5)
    images = torch.randint(0, 256, (12, 3, 48, 48), generator=torch.Generator().manual_seed(0))
    images = normalise(images.to(torch.uint8))
    maps = model.features(images).double().numpy()
    maps = maps / np.linalg.norm(maps, axis=1, keepdims=True)
    expected = (np.maximum(maps, 1e-6) ** 2.5).mean(axis=(2, 3)) ** (1 / 2.5)
    pooled = Pooled(model)(images)
    assert pooled.dtype == torch.float32
    np.testing.assert_allclose(pooled, expected, rtol=1e-4, atol=1e-6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert Pooled(model)(images).dtype == torch.float32

    whiten_head(model, pooled)
    weight, bias = whitening(pooled, 8, SHRINKAGE)
    found = (expected @ weight.double().numpy().T) + bias.double().numpy()
    found /= np.linalg.norm(found, axis=1, keepdims=True)
    np.testing.assert_allclose(model(images), found, atol=1e-3)
    torch.testing.assert_close(describe_pooled(model, pooled), model(images), atol=1e-5, rtol=0)
    assert all(parameter.requires_grad for parameter in model.aggregation.parameters())
