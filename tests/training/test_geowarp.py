"""GeoWarp against kornia's and OpenCV's warps, brute force, its own symmetries, and the city's true homographies."""

from types import SimpleNamespace

import cv2
import kornia
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from vgeo import geowarp, paint
from vgeo.city.district import District
from vgeo.city.kernel import Camera
from vgeo.city.light import Light
from vgeo.errors import VgeoError
from vgeo.models.geowarp import (
    GRID,
    IDENTITY,
    Regression,
    correlation,
    local_features,
    symmetric,
    warp,
)
from vgeo.models.network import normalise
from vgeo.photos.images import load_image
from vgeo.retrieval.metrics import first_hit, recall
from vgeo.retrieval.rerank import pair_scores, rerank
from vgeo.training.geowarp import (
    consistency_loss,
    feature_wise_loss,
    mean_corner_error,
    mirror,
    self_supervised_pairs,
    trapezoids,
)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def smooth(batch, size, seed=0):
    """Random images (B, 3, size, size) of coarse waves, so that resampling them twice changes little."""
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


def test_local_features_pool_large_maps_and_stretch_small_ones():
    maps = torch.rand(2, 4, 31, 47, generator=seeded())
    found = local_features(maps)
    for row, col in [(0, 0), (7, 3), (14, 14)]:
        low, high = (
            np.floor(np.array([row * 31, col * 47]) / GRID).astype(int),
            np.ceil(np.array([(row + 1) * 31, (col + 1) * 47]) / GRID),
        )
        cell = maps[:, :, low[0] : int(high[0]), low[1] : int(high[1])].mean((2, 3))
        torch.testing.assert_close(found[:, :, row, col], F.normalize(cell, dim=1))
    for height, width in [(4, 6), (20, 8)]:
        maps = torch.rand(1, 3, height, width, generator=seeded(1))
        expected = torch.stack(
            [
                torch.from_numpy(
                    cv2.resize(m.numpy(), (GRID, GRID), interpolation=cv2.INTER_LINEAR)
                )
                for m in maps[0]
            ]
        )
        torch.testing.assert_close(
            local_features(maps)[0], F.normalize(expected, dim=0), atol=1e-5, rtol=0
        )


def test_correlation_against_a_loop():
    a, b = features(2, seed=1), features(2, seed=2)
    found = correlation(a, b)
    assert found.shape == (2, 225, GRID, GRID)
    for n, row, col in [(0, 0, 0), (1, 3, 11), (0, 14, 2)]:
        products = [
            max(0.0, float(a[n, :, i, j] @ b[n, :, row, col]))
            for i in range(GRID)
            for j in range(GRID)
        ]
        expected = np.array(products) / np.linalg.norm(products)
        np.testing.assert_allclose(found[n, :, row, col], expected, atol=1e-6)


# ---- the regression ----


def test_regression_begins_at_the_identity_with_the_layers_of_the_paper():
    regression = Regression()
    assert torch.equal(
        regression(features(2, seed=1), features(2, seed=2)), IDENTITY.expand(2, 2, 4, 2)
    )
    kernels = [
        tuple(layer.weight.shape)
        for layer in regression.layers
        if isinstance(layer, torch.nn.Conv2d)
    ]
    assert kernels == [(128, 225, 7, 7), (128, 128, 5, 5), (64, 128, 5, 5), *[(64, 64, 5, 5)] * 3]


@pytest.mark.parametrize("training", [False, True])
def test_symmetric_follows_the_order_of_the_images(trained, training):
    a, b = features(2, seed=1), features(2, seed=2)
    one, other = (trained(*pair).detach() for pair in ((a, b), (b, a)))
    assert (one - other.flip(1)).abs().max() > 0.01  # one order alone does not
    torch.testing.assert_close(
        symmetric(trained, a, b), (one + other.flip(1)) / 2, atol=1e-4, rtol=0
    )
    regression = Regression().train(training)
    regression.load_state_dict(trained.state_dict())
    torch.testing.assert_close(
        symmetric(regression, b, a), symmetric(regression, a, b).flip(1), atol=1e-4, rtol=0
    )


def test_regression_can_learn_a_few_pairs():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        conv, regression = torch.nn.Conv2d(3, 8, 3, stride=2, padding=1), Regression()
    a, b, targets = self_supervised_pairs(smooth(3, 32), seeded(3))
    optimizer = torch.optim.Adam([*conv.parameters(), *regression.parameters()], 2e-3)
    losses = []
    for _ in range(25):
        loss = F.mse_loss(regression(local_features(conv(a)), local_features(conv(b))), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert conv.weight.grad.abs().max() > 0
    assert losses[-1] < losses[0] / 5, losses


# ---- warps ----


def random_quadrilaterals(batch, seed=0):
    return IDENTITY * (0.5 + 0.6 * torch.rand(batch, 4, 2, generator=seeded(seed)))


def test_identity_changes_nothing():
    images = torch.rand(2, 3, 9, 13, generator=seeded())
    torch.testing.assert_close(warp(images, IDENTITY.expand(2, 4, 2)), images, atol=1e-5, rtol=0)


def test_warp_against_kornia_and_opencv():
    """Both with pixel coordinates and matrices of their own; some corners lie outside the image, which is black."""
    height, width = 24, 40
    images, quadrilaterals = smooth(3, 40)[:, :, :height], random_quadrilaterals(3)
    assert quadrilaterals.abs().max() > 1
    scale = np.array([width - 1, height - 1]) / 2
    pixels, frame = ((points.numpy() + 1) * scale for points in (quadrilaterals, IDENTITY))
    matrices = np.stack(
        [
            cv2.getPerspectiveTransform(p.astype(np.float32), frame.astype(np.float32))
            for p in pixels
        ]
    )
    found = warp(images, quadrilaterals)
    expected = kornia.geometry.transform.warp_perspective(
        images, torch.from_numpy(matrices).float(), (height, width)
    )
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    for image, matrix, ours in zip(images, matrices, found):
        theirs = cv2.warpPerspective(image.permute(1, 2, 0).numpy(), matrix, (width, height))
        assert np.abs(theirs - ours.permute(1, 2, 0).numpy()).mean() < 0.01


def test_warp_puts_the_corners_in_the_corners():
    y, x = torch.meshgrid(torch.linspace(-1, 1, 33), torch.linspace(-1, 1, 33), indexing="ij")
    quadrilaterals = random_quadrilaterals(2).clamp(-1, 1)
    found = warp(
        torch.stack([x, y]).expand(2, 2, 33, 33), quadrilaterals
    )  # images that show where they are
    corners = torch.stack(
        [found[..., 0, 0], found[..., 0, -1], found[..., -1, -1], found[..., -1, 0]], dim=1
    )
    torch.testing.assert_close(corners, quadrilaterals, atol=1e-4, rtol=0)


def test_warp_gradients_against_finite_differences():
    images, quadrilaterals = (
        smooth(1, 6).double()[:, :1],
        random_quadrilaterals(1, seed=3).double().mul(0.7).requires_grad_(),
    )
    assert torch.autograd.gradcheck(lambda points: warp(images, points), quadrilaterals)


def test_warp_is_exact_under_autocast():
    images, quadrilaterals = smooth(1, 16), random_quadrilaterals(1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = warp(images, quadrilaterals), self_supervised_pairs(images, seeded())
    torch.testing.assert_close(
        found, (warp(images, quadrilaterals), self_supervised_pairs(images, seeded()))
    )


# ---- pairs cut from one image ----


def inside(points, trapezoid):
    """Signed distance, at least 0 within, of points (n, 2) to the nearest side of a trapezoid (4, 2) in our order."""
    following = np.roll(trapezoid, -1, axis=0)
    along = (following - trapezoid) / np.linalg.norm(following - trapezoid, axis=1, keepdims=True)
    offset = points[:, None] - trapezoid
    return (along[:, 0] * offset[..., 1] - along[:, 1] * offset[..., 0]).min(1)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**31), st.floats(0, 0.99))
def test_trapezoids_and_their_intersection(seed, k):
    batch = trapezoids(2, seeded(seed), k)
    for a, b, shared in zip(*(points.double().numpy() for points in batch)):
        for points in (a, b, shared):
            assert points[0, 0] == points[3, 0] < points[1, 0] == points[2, 0]  # vertical sides
            assert (points[[0, 1], 1] < points[[3, 2], 1]).all()
        for points in (a, b):
            assert ((1 - k - 1e-6 <= np.abs(points)) & (np.abs(points) <= 1)).all()
            assert (np.sign(points) == IDENTITY.numpy()).all()
        edge = np.linspace(shared, np.roll(shared, -1, axis=0), 7).reshape(-1, 2)
        assert min(inside(edge, a).min(), inside(edge, b).min()) > -1e-6
        assert shared[0, 0] == max(a[0, 0], b[0, 0]) and shared[1, 0] == min(a[1, 0], b[1, 0])
        for top, bottom in (
            shared[[0, 3]],
            shared[[1, 2]],
        ):  # at either side nothing that both show is lost
            line = np.column_stack([np.full(801, top[0]), np.linspace(-1, 1, 801)])
            common = line[(inside(line, a) > -1e-6) & (inside(line, b) > -1e-6), 1]
            assert common.min() == pytest.approx(
                top[1], abs=0.003
            ) and common.max() == pytest.approx(bottom[1], abs=0.003)


def test_trapezoids_come_from_their_generator():
    first, again, other = (trapezoids(3, seeded(seed)) for seed in (1, 1, 2))
    assert all(torch.equal(a, b) for a, b in zip(first, again)) and not torch.equal(
        first[0], other[0]
    )
    assert not torch.equal(first[0], first[1]) and not torch.equal(first[0][0], first[0][1])
    assert all(
        torch.equal(points, IDENTITY.expand(3, 4, 2)) for points in trapezoids(3, seeded(), k=0)
    )
    spread = torch.stack(trapezoids(500, seeded())[:2]).abs()
    assert abs(spread.mean() - 0.7) < 0.01 and spread.min() < 0.41 and spread.max() > 0.99
    with pytest.raises(VgeoError, match="k = 1"):
        trapezoids(2, seeded(), k=1)


def test_both_views_warped_by_their_targets_show_the_same():
    images = smooth(6, 96)
    a, b, targets = self_supervised_pairs(images, seeded(4))
    cut = trapezoids(6, seeded(4))
    one, other = warp(a, targets[:, 0]), warp(b, targets[:, 1])
    unwarped = (a - b).abs().mean()
    assert targets.shape == (6, 2, 4, 2) and (targets.abs() <= 1 + 1e-4).all() and unwarped > 0.1
    assert (one - other).abs().mean() < unwarped / 30
    assert (one - warp(images, cut[2])).abs().mean() < unwarped / 30  # and it is the intersection
    assert (
        warp(a, targets[:, 1]) - warp(b, targets[:, 0])
    ).abs().mean() > unwarped / 3  # the order matters


def test_mean_corner_error_of_known_shifts():
    targets = torch.rand(3, 2, 4, 2, generator=seeded())
    shift = torch.tensor([[0.0, 0.0], [0.3, 0.4], [-1.0, 0.0]])
    torch.testing.assert_close(
        mean_corner_error(targets + shift[:, None, None], targets), torch.tensor([0.0, 0.5, 1.0])
    )
    predicted = targets.clone()
    predicted[0, 1, 2] += torch.tensor([0.0, 0.8])  # one corner of eight
    assert mean_corner_error(predicted, targets)[0].item() == pytest.approx(0.1)


# ---- losses on real pairs ----


def test_feature_wise_loss_is_a_distance():
    a, b = features(2, seed=1), features(2, seed=2)
    assert feature_wise_loss(a, a) == 0
    assert feature_wise_loss(a, b).item() == pytest.approx(
        np.mean((a.numpy() - b.numpy()) ** 2), rel=1e-5
    )
    assert feature_wise_loss(a, b) < feature_wise_loss(
        a, -a
    )  # least for equal features, not for orthogonal ones


def marked(images):
    """A quadrilateral for each image that moves with its content: the identity, shifted to its centre of mass."""
    weight = images.mean(1).exp()
    weight = weight / weight.sum((1, 2), keepdim=True)
    height, width = weight.shape[1:]
    x, y = (
        (weight.sum(1) * torch.linspace(-1, 1, width)).sum(1),
        (weight.sum(2) * torch.linspace(-1, 1, height)).sum(1),
    )
    return IDENTITY + torch.stack([x, y], dim=-1)[:, None]


def test_consistency_loss_of_predictors():
    a, b, shift = smooth(3, 12, seed=1), smooth(3, 12, seed=2), torch.tensor([0.1, 0.0])
    predictors = {
        "identity": lambda a, b: IDENTITY.expand(len(a), 2, 4, 2),
        "equivariant": lambda a, b: torch.stack([marked(a), marked(b)], dim=1),
        "not to the swap": lambda a, b: (
            IDENTITY * torch.tensor([1.0, 0.5])[:, None, None] + torch.zeros(len(a), 1, 1, 1)
        ),
        "not to the flip": lambda a, b: IDENTITY + shift + torch.zeros(len(a), 2, 1, 1),
    }
    loss = {
        name: consistency_loss(predict, a, b, a.flip(-1), b.flip(-1)).item()
        for name, predict in predictors.items()
    }
    assert loss["identity"] == 0 and loss["equivariant"] < 1e-10
    assert (marked(a) - IDENTITY).abs().max() > 0.01
    assert loss["not to the swap"] == pytest.approx(
        0.25 * 2 / 3, rel=1e-5
    )  # each coordinate is 0.5 off in two of three comparisons
    assert loss["not to the flip"] == pytest.approx(
        0.2**2 / 2 * 2 / 3, rel=1e-5
    )  # x alone is 0.2 off in two of three


def test_consistency_label_has_no_gradient():
    """Moving all predictions to the right moves the label as well; the gradient knows only the flipped ones."""
    shift = torch.tensor(0.1, requires_grad=True)
    images = smooth(1, 8)
    consistency_loss(
        lambda a, b: IDENTITY + shift * torch.tensor([1.0, 0.0]) + torch.zeros(1, 2, 4, 2),
        *[images] * 4,
    ).backward()
    assert shift.grad.item() == pytest.approx(
        2 / 3 * 0.5 * 2 * 0.2, rel=1e-5
    )  # with the label's own gradient it would be twice that


def test_mirror_shows_the_mirror_image():
    images, quadrilaterals = smooth(2, 17), random_quadrilaterals(2)
    torch.testing.assert_close(
        warp(images.flip(-1), mirror(quadrilaterals)),
        warp(images, quadrilaterals).flip(-1),
        atol=1e-4,
        rtol=1e-4,
    )


# ---- scores and their use ----


@pytest.fixture(scope="module")
def album(tmp_path_factory):
    """Paths of 4 queries and 5 database images, and a stand-in for the network's local features."""
    folder, rng = tmp_path_factory.mktemp("album"), np.random.default_rng(0)
    paths = []
    for i in range(9):
        image = cv2.resize(
            rng.integers(0, 256, (6, 6, 3), np.uint8), (40, 30), interpolation=cv2.INTER_CUBIC
        )
        paths.append(str(folder / f"{i}.png"))
        cv2.imwrite(paths[-1], image)
    mixing = torch.randn(5, 3, 3, 3, generator=seeded())
    return SimpleNamespace(
        queries=paths[:4],
        database=paths[4:],
        local=lambda images: local_features(F.conv2d(images, mixing, stride=2)),
    )


@pytest.mark.parametrize("brightness", [1.0, 1.7])
@pytest.mark.parametrize("warped", [True, False])
def test_pair_scores_against_one_pair_at_a_time(album, trained, monkeypatch, brightness, warped):
    monkeypatch.setattr(geowarp, "CHUNK", 5)
    monkeypatch.setattr(geowarp, "BATCH", 4)
    read = []
    load_batches = geowarp.load_batches
    monkeypatch.setattr(
        geowarp,
        "load_batches",
        lambda paths, *rest: read.append(list(paths)) or load_batches(paths, *rest),
    )
    pairs = np.array([(0, 4), (0, 1), (2, 4), (2, 2), (0, 0), (3, 1), (1, 1), (1, 0)])
    found = pair_scores(
        album.local, trained, album.queries, album.database, pairs, 32, brightness, warped
    )
    assert found.dtype == np.float32 and found.shape == (8,) and np.ptp(found) > 0.01
    for (query, other), score in zip(pairs, found):
        one, two = (
            load_image(album.queries[query], 32)[None],
            load_image(album.database[other], 32)[None],
        )
        if brightness != 1:
            two = torch.from_numpy(
                np.clip(
                    np.rint(two.numpy().astype(np.float32) * np.float32(brightness)), 0, 255
                ).astype(np.uint8)
            )
        one, two = normalise(one), normalise(two)
        a, b = album.local(one), album.local(two)
        if warped:
            with torch.no_grad():
                quadrilaterals = symmetric(trained, a, b)
            a, b = (
                album.local(warp(one, quadrilaterals[:, 0])),
                album.local(warp(two, quadrilaterals[:, 1])),
            )
        assert score == pytest.approx((a * b).sum().item() / GRID**2, abs=1e-4)
    assert [len(paths) for paths in read] == [2 + 4, 2 + 2] and all(
        len(set(paths)) == len(paths) for paths in read
    )


def test_pair_scores_at_the_edges(album, trained):
    arguments = album.local, Regression().eval(), album.queries, album.queries
    same = pair_scores(*arguments, np.array([(0, 0), (3, 3)]), 32)
    np.testing.assert_allclose(same, 1, atol=1e-5)  # an image is like itself
    assert pair_scores(*arguments, np.empty((0, 2), int), 32).shape == (0,)
    for pair in [(0, 4), (4, 0), (-1, 0)]:
        with pytest.raises(VgeoError, match="outside the 4 queries and 4 database images"):
            pair_scores(*arguments, np.array([pair]), 32)


@given(st.integers(0, 2**31), st.integers(1, 8))
def test_rerank_sorts_the_first_k_alone(seed, k):
    rng = np.random.default_rng(seed)
    predictions = np.array([rng.permutation(20)[:8] for _ in range(5)])
    scores = rng.integers(0, 3, (5, k)).astype(np.float32)  # many ties
    kept = predictions.copy()
    found, order = rerank(predictions, scores, k)
    assert np.array_equal(predictions, kept)
    for row, before, score, places in zip(found, predictions, scores, order):
        expected = sorted(range(k), key=lambda i: (-score[i], i))
        assert places.tolist() == expected
        assert row.tolist() == [before[i] for i in expected] + before[k:].tolist()
    positives = [rng.permutation(20)[: rng.integers(4)] for _ in range(5)]
    before, after = first_hit(predictions, positives), first_hit(found, positives)
    assert all(recall(before, n) == recall(after, n) for n in range(k, 9))


def test_rerank_names_what_is_wrong():
    predictions = np.arange(12).reshape(3, 4)
    for scores, k in [(np.zeros((3, 2)), 3), (np.zeros((2, 3)), 3), (np.zeros((3, 5)), 5)]:
        with pytest.raises(VgeoError, match="one score for each"):
            rerank(predictions, scores, k)
    with pytest.raises(VgeoError, match="score of query 1 is not finite"):
        rerank(predictions, np.array([[0.0], [np.nan], [0.0]]), 1)


# ---- the city ----


def photographed_facades():
    """Photos of facades of an empty street from two places each, and the facade's true corners in both, (2, 4, 2)."""
    district = District(3, paint.SAN_FRANCISCO, 1, 12)
    district._standing = lambda era, glow: np.zeros((0, 10))
    district._traffic = lambda rng, camera, crowd: np.zeros((0, 10))
    light = Light(
        (1.0, 1.0, 1.0),
        (0.0, 0.0, 0.0),
        (0.0, 0.0, 1.0),
        (0.0, 0.0, 1.0),
        (0.0, 0.0, 1.0),
        0.0,
        cloud=0,
        noise=0,
    )
    size = 96
    for wall in district.walls[::3]:  # a front and two sides for each house
        start, end, height = wall[:2], wall[2:4], min(wall[4], 7.0)
        middle, along = (start + end) / 2, (end - start) / np.hypot(*(end - start))
        if not (middle.min() > 5 and middle.max() < 95 and abs(middle - 50).min() < 30):
            continue  # across the street, or at a corner
        outward = np.array([along[1], -along[0]])
        heading = np.degrees(np.arctan2(*-outward))
        cameras = [
            Camera(
                *(middle + 14 * outward + shift * along),
                2.5,
                (heading + turn) % 360,
                10.0,
                roll,
                62.0,
                size,
            )
            for shift, turn, roll in ((-4.0, 14.0, 2.0), (5.0, -14.0, -3.0))
        ]
        corners = np.array([(*start, height), (*end, height), (*end, 0.5), (*start, 0.5)])
        pixels = (
            np.stack([camera.project(corners) for camera in cameras]) - 0.5
        )  # the first pixel's centre is 0
        photos = [
            district.photo(camera, light, 201506, np.random.default_rng(0)) for camera in cameras
        ]
        yield np.stack(photos), 2 * pixels / (size - 1) - 1


def test_true_quadrilaterals_make_two_photos_of_a_facade_alike():
    found = list(photographed_facades())
    photos = (
        torch.from_numpy(np.stack([photos for photos, _ in found])).permute(1, 0, 4, 2, 3).float()
        / 255
    )
    corners = torch.from_numpy(np.stack([corners for _, corners in found])).float().transpose(0, 1)
    seen = torch.ones_like(photos[0, :, :1])

    def difference(points_a, points_b):
        """Mean absolute difference of grey values, contrast and brightness made equal, where both see the facade."""
        mask = (warp(seen, points_a) > 0.99) & (warp(seen, points_b) > 0.99)
        grey = [
            warp(image, points).mean(1, keepdim=True)
            for image, points in zip(photos, (points_a, points_b))
        ]
        out = []
        for a, b, m in zip(*grey, mask):
            a, b = (x[m].sub(x[m].mean()).div(x[m].std()) for x in (a, b))
            out.append((a - b).abs().mean().item())
        return np.array(out)

    true, unwarped = difference(*corners), difference(corners[0], corners[0])
    shifted = difference(corners[0], corners[1] + torch.tensor([0.1, 0.0]))
    assert len(true) >= 8
    assert np.median(true) < 0.4 * np.median(unwarped) and np.median(true) < 0.6 * np.median(
        shifted
    )
    assert (true < unwarped).all()
