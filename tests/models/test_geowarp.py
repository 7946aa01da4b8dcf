"""GeoWarp's layers against loops, kornia's and OpenCV's warps, and their own symmetries."""

import cv2
import kornia
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from vgeo.models import geowarp
from vgeo.models.geowarp import (
    GRID,
    IDENTITY,
    FourierConv2d,
    Regression,
    correlation,
    local_features,
    symmetric,
    warp,
)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def smooth(batch, size, seed=0):
    """Random images (B, 3, size, size) of coarse waves, so that resampling them changes little."""
    coarse = torch.randn(batch, 3, 5, 5, generator=seeded(seed))
    return F.interpolate(coarse, size=(size, size), mode="bicubic", align_corners=True)


def features(batch, channels=6, seed=0):
    return F.normalize(torch.randn(batch, channels, GRID, GRID, generator=seeded(seed)), dim=1)


@pytest.fixture(scope="module")
def trained():
    """A regression whose answers depend on its input, in evaluation mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        regression = Regression()
        torch.nn.init.normal_(regression.linear.weight, std=0.03)
    for layer in regression.layers:
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = None  # takes the statistics of what it sees next
    with torch.no_grad():
        regression(features(4, seed=8), features(4, seed=9))
    return regression.eval()


# ---- local features and their correlation ----


def test_local_features_pool_large_maps():
    maps = torch.rand(2, 4, 31, 47, generator=seeded())
    found = local_features(maps)
    for row, col in [(0, 0), (7, 3), (14, 14)]:
        top, left = row * 31 // GRID, col * 47 // GRID
        bottom, right = -(-(row + 1) * 31 // GRID), -(-(col + 1) * 47 // GRID)
        cell = maps[:, :, top:bottom, left:right].mean((2, 3))
        torch.testing.assert_close(found[:, :, row, col], F.normalize(cell, dim=1))


@pytest.mark.parametrize("height, width", [(4, 6), (20, 8)])
def test_local_features_stretch_small_maps(height, width):
    maps = torch.rand(1, 3, height, width, generator=seeded(1))
    stretched = [
        cv2.resize(m.numpy(), (GRID, GRID), interpolation=cv2.INTER_LINEAR) for m in maps[0]
    ]
    expected = F.normalize(torch.from_numpy(np.stack(stretched)), dim=0)
    torch.testing.assert_close(local_features(maps)[0], expected, atol=1e-4, rtol=0)


def test_correlation_against_a_loop():
    a, b = features(2, seed=1), features(2, seed=2)
    found = correlation(a, b)
    assert found.shape == (2, 225, GRID, GRID)
    positions = [(i, j) for i in range(GRID) for j in range(GRID)]
    for n, row, col in [(0, 0, 0), (1, 3, 11), (0, 14, 2)]:
        products = [max(0.0, float(a[n, :, i, j] @ b[n, :, row, col])) for i, j in positions]
        expected = np.array(products) / np.linalg.norm(products)
        np.testing.assert_allclose(found[n, :, row, col], expected, atol=1e-5)


# ---- the regression ----


@pytest.mark.parametrize("side, kernel, padding", [(15, 7, 1), (11, 5, 1), (8, 3, 0), (6, 5, 2)])
def test_products_of_spectra_are_a_convolution(side, kernel, padding):
    """Values and all gradients, of even and odd periods, against torch's convolution."""
    layer = FourierConv2d(5, 4, kernel, padding=padding)
    maps = torch.randn(3, 5, side, side, generator=seeded(1))
    found = []
    for convolve in (layer.forward, super(FourierConv2d, layer).forward):
        x = maps.clone().requires_grad_()
        result = convolve(x)
        weights = torch.randn(result.shape, generator=seeded(2))
        grads = torch.autograd.grad((result * weights).sum(), [x, *layer.parameters()])
        found.append([result, *grads])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert layer(maps).dtype == torch.bfloat16


def test_a_regression_that_has_ranked_can_be_trained():
    """What was computed once for inference serves the gradient too."""
    geowarp._waves.cache_clear()
    regression, (a, b) = Regression(), (features(2, seed=seed) for seed in range(2))
    with torch.inference_mode():
        regression(a, b)
    regression(a, b).sum().backward()
    assert all(parameter.grad is not None for parameter in regression.parameters())


@pytest.mark.parametrize("options", [{"stride": 2}, {"dilation": 2}, {"groups": 2}, {}])
def test_what_spectra_are_not_made_for_is_torch_s_convolution(options):
    layer = FourierConv2d(4, 4, 3, padding=1, **options)
    maps = torch.randn(2, 4, 8, 6 if not options else 8, generator=seeded())
    torch.testing.assert_close(layer(maps), super(FourierConv2d, layer).forward(maps))
    assert layer.double()(maps.double()).dtype == torch.float64


def test_regression_begins_at_the_identity_with_the_layers_of_the_paper():
    regression = Regression()
    start = regression(features(2, seed=1), features(2, seed=2))
    assert torch.equal(start, IDENTITY.expand(2, 2, 4, 2))
    convolutions = [layer for layer in regression.layers if isinstance(layer, torch.nn.Conv2d)]
    kernels = [tuple(layer.weight.shape) for layer in convolutions]
    assert kernels == [(128, 225, 7, 7), (128, 128, 5, 5), (64, 128, 5, 5), *[(64, 64, 5, 5)] * 3]


def test_corners_stay_in_float32_under_autocast(trained):
    a, b = features(2, seed=1), features(2, seed=2)
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
        corners = trained(a, b)
    assert corners.dtype == torch.float32
    assert not torch.equal(corners, corners.bfloat16().float())


@pytest.mark.parametrize("training", [False, True])
def test_symmetric_follows_the_order_of_the_images(trained, training):
    a, b = features(2, seed=1), features(2, seed=2)
    one, other = (trained(*pair).detach() for pair in ((a, b), (b, a)))
    assert (one - other.flip(1)).abs().max() > 0.01  # one order alone does not
    mean = (one + other.flip(1)) / 2
    torch.testing.assert_close(symmetric(trained, a, b), mean, atol=1e-3, rtol=0)
    regression = Regression().train(training)
    regression.load_state_dict(trained.state_dict())
    there = symmetric(regression, a, b)
    torch.testing.assert_close(symmetric(regression, b, a), there.flip(1), atol=1e-3, rtol=0)


# ---- warps ----


def random_quadrilaterals(batch, seed=0):
    return IDENTITY * (0.5 + 0.6 * torch.rand(batch, 4, 2, generator=seeded(seed)))


def test_the_identity_changes_nothing():
    images = torch.rand(2, 3, 9, 13, generator=seeded())
    torch.testing.assert_close(warp(images, IDENTITY.expand(2, 4, 2)), images, atol=1e-4, rtol=0)


def test_warp_against_kornia_and_opencv():
    """Both use pixel coordinates and own matrices; some corners lie outside the image, in black."""
    height, width = 24, 40
    images, quadrilaterals = smooth(3, 40)[:, :, :height], random_quadrilaterals(3)
    assert quadrilaterals.abs().max() > 1
    scale = np.array([width - 1, height - 1]) / 2
    pixels, frame = (
        ((points.numpy() + 1) * scale).astype(np.float32) for points in (quadrilaterals, IDENTITY)
    )
    matrices = np.stack([cv2.getPerspectiveTransform(points, frame) for points in pixels])
    found = warp(images, quadrilaterals)
    expected = kornia.geometry.transform.warp_perspective(
        images, torch.from_numpy(matrices).float(), (height, width)
    )
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-3)
    for image, matrix, ours in zip(images, matrices, found):
        theirs = cv2.warpPerspective(image.permute(1, 2, 0).numpy(), matrix, (width, height))
        assert np.abs(theirs - ours.permute(1, 2, 0).numpy()).mean() < 0.01


def test_warp_puts_the_corners_in_the_corners():
    axis = torch.linspace(-1, 1, 33)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    quadrilaterals = random_quadrilaterals(2).clamp(-1, 1)
    # images whose colours are their own coordinates
    found = warp(torch.stack([x, y]).expand(2, 2, 33, 33), quadrilaterals)
    places = [(0, 0), (0, -1), (-1, -1), (-1, 0)]
    corners = torch.stack([found[..., row, col] for row, col in places], dim=1)
    torch.testing.assert_close(corners, quadrilaterals, atol=1e-3, rtol=0)


def test_warp_gradients_against_finite_differences():
    images = smooth(1, 6).double()[:, :1]
    quadrilaterals = random_quadrilaterals(1, seed=3).double().mul(0.7).requires_grad_()
    assert torch.autograd.gradcheck(lambda points: warp(images, points), quadrilaterals)


def test_warp_stays_in_float32_under_autocast():
    images, quadrilaterals = smooth(1, 16), random_quadrilaterals(1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = warp(images, quadrilaterals)
    torch.testing.assert_close(found, warp(images, quadrilaterals))
