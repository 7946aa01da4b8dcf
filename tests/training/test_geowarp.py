"""GeoWarp's training: trapezoids, losses, mined pairs, and the city's true homographies."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from vgeo.models.geowarp import GRID, IDENTITY, Regression, local_features, warp
from vgeo.models.network import build, freeze
from vgeo.models.weights import load_weights
from vgeo.training.geowarp import (
    VARIANTS,
    GeoWarp,
    Settings,
    consistency_loss,
    feature_wise_loss,
    mean_corner_error,
    mine_pairs,
    mirror,
    self_supervised_pairs,
    trapezoids,
)
from vgeo.training.loop import Pace, train_beside

SIDE, EVERY = 32, Pace(2, 0)
SETTINGS = Settings(
    k=0.6,
    self_supervised=3,
    mined=2,
    self_supervised_weight=1.0,
    feature_wise_weight=10.0,
    consistency_weight=0.1,
    candidates=40,
    near=1.2,
    stages={"resnet18": 6, "efficientnet_v2_s": 8},
    learning_rate=1e-3,
    alone=4,
)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def smooth(batch, size, seed=0):
    """Random images (B, 3, size, size) of coarse waves, so that resampling changes little."""
    coarse = torch.randn(batch, 3, 5, 5, generator=seeded(seed))
    return F.interpolate(coarse, size=(size, size), mode="bicubic", align_corners=True)


def features(batch, channels=6, seed=0):
    return F.normalize(torch.randn(batch, channels, GRID, GRID, generator=seeded(seed)), dim=1)


@pytest.mark.slow
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


def random_quadrilaterals(batch, seed=0):
    return IDENTITY * (0.5 + 0.6 * torch.rand(batch, 4, 2, generator=seeded(seed)))


# ---- pairs cut from one image ----


def inside(points, trapezoid):
    """Signed distance, positive within, of points (n, 2) to the nearest side of a trapezoid."""
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


def test_trapezoids_come_from_their_generator(refused):
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
    refused(lambda: trapezoids(2, seeded(), k=1), "k = 1")


def test_pairs_stay_in_float32_under_autocast():
    images = smooth(1, 16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = self_supervised_pairs(images, seeded())
    torch.testing.assert_close(found, self_supervised_pairs(images, seeded()))


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
    """A quadrilateral that moves with an image's content: shifted to its centre of mass."""
    weight = images.mean(1).exp()
    weight = weight / weight.sum((1, 2), keepdim=True)
    height, width = weight.shape[1:]
    x, y = (
        (weight.sum(1) * torch.linspace(-1, 1, width)).sum(1),
        (weight.sum(2) * torch.linspace(-1, 1, height)).sum(1),
    )
    return IDENTITY + torch.stack([x, y], dim=-1)[:, None]


def consistency(predict, a, b, names=tuple(VARIANTS)):
    """The consistency loss of a predictor on some variants of pairs of images."""
    pairs = {
        "swapped": (b, a),
        "flipped": (a.flip(-1), b.flip(-1)),
        "both": (b.flip(-1), a.flip(-1)),
    }
    return consistency_loss(predict(a, b), {name: predict(*pairs[name]) for name in names})


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
    loss = {name: consistency(predict, a, b).item() for name, predict in predictors.items()}
    assert loss["identity"] == 0 and loss["equivariant"] < 1e-10
    assert (marked(a) - IDENTITY).abs().max() > 0.01
    # each coordinate is 0.5 off in two of three comparisons; x alone is 0.2 off in two of three
    assert loss["not to the swap"] == pytest.approx(0.25 * 2 / 3, rel=1e-5)
    assert loss["not to the flip"] == pytest.approx(0.2**2 / 2 * 2 / 3, rel=1e-5)
    for name, predict in predictors.items():  # one variant at random: the same expectation
        each = [consistency(predict, a, b, [variant]).item() for variant in VARIANTS]
        assert np.mean(each) == pytest.approx(loss[name], rel=1e-5, abs=1e-12)


def test_consistency_label_has_no_gradient():
    """Moving all predictions moves the label as well; the gradient knows only the flipped ones."""
    shift = torch.tensor(0.1, requires_grad=True)

    def predict(a, b):
        return IDENTITY + shift * torch.tensor([1.0, 0.0]) + torch.zeros(1, 2, 4, 2)

    consistency(predict, *[smooth(1, 8)] * 2).backward()
    # with the label's own gradient it would be twice that
    assert shift.grad.item() == pytest.approx(2 / 3 * 0.5 * 2 * 0.2, rel=1e-5)


def test_mirror_shows_the_mirror_image():
    images, quadrilaterals = smooth(2, 17), random_quadrilaterals(2)
    torch.testing.assert_close(
        warp(images.flip(-1), mirror(quadrilaterals)),
        warp(images, quadrilaterals).flip(-1),
        atol=1e-4,
        rtol=1e-4,
    )


# ---- the technique ----


def step_into(folder, told=None):
    """A `Step` that makes everything anew in a folder."""

    def step(kind, label, recipe, make, code, together):
        (told if told is not None else []).append((kind, label, recipe, code, together))
        folder.mkdir(exist_ok=True)
        make(folder)
        return folder

    return step


def prepared(streets, folder, settings=SETTINGS, seed=2, told=None):
    model = load_weights(build("resnet18"), streets.start)
    freeze(model)
    technique = GeoWarp(settings)
    step = step_into(folder / "mined", told)
    return model, technique.prepare(model, streets.classes, SIDE, seed, step)


@pytest.mark.parametrize("stages", [6, 8])
def test_the_losses_reach_what_they_should_and_repeat(streets, tmp_path, stages):
    settings, values = replace(SETTINGS, stages={"resnet18": stages}), []
    for _ in range(2):
        model, extra = prepared(streets, tmp_path, settings)
        loss, shown = extra.loss(model, None, None, iteration=7)
        loss.backward()
        values.append((loss.item(), {name: value.item() for name, value in shown.items()}))
        assert all(p.grad is not None and p.grad.isfinite().all() for p in extra.parameters())
        assert all(parameter.grad is None for parameter in model.stages[:6].parameters())
        # local features of the trunk leave the extractor as it is
        assert (model.stages[7][0].conv1.weight.grad is not None) == (stages == 8)
    (loss, shown), again = values
    assert (loss, shown) == again
    weights = {"self_supervised": 1.0, "feature_wise": 10.0, "consistency": 0.1}
    assert loss == pytest.approx(sum(w * shown[name] for name, w in weights.items()), rel=1e-5)
    other, _ = extra.loss(model, None, None, iteration=8)
    assert other.item() != loss  # other images, other trapezoids


def test_a_loss_of_weight_0_is_left_out(streets, tmp_path):
    """What is left has the same random numbers as with all losses; without mined losses no pair is
    mined.
    """
    model, whole = prepared(streets, tmp_path)
    _, every = whole.loss(model, None, None, 3)
    assert set(every) == {"self_supervised", "feature_wise", "consistency"}
    less, told = replace(SETTINGS, consistency_weight=0.0), []
    model, extra = prepared(streets, tmp_path, less, told=told)
    _, some = extra.loss(model, None, None, 3)
    assert some == {name: every[name] for name in ("self_supervised", "feature_wise")}
    assert len(told) == 1
    model, extra = prepared(streets, tmp_path, replace(less, feature_wise_weight=0.0), told=told)
    total, one = extra.loss(model, None, None, 3)
    assert set(one) == {"self_supervised"} and len(told) == 1
    # fewer images in a batch of the network: rounding
    torch.testing.assert_close(one["self_supervised"], every["self_supervised"], rtol=1e-4, atol=0)
    torch.testing.assert_close(total.detach(), one["self_supervised"])


def test_one_variant_an_iteration_stands_for_all_three(streets, tmp_path, refused):
    """Each is drawn a third of the time; the mean of their losses is the loss of all three."""
    model, extra = prepared(streets, tmp_path)
    extra.eval()  # BatchNorm doesn't know which pairs share a batch
    torch.nn.init.normal_(extra.regression.linear.weight, std=0.03)
    one, seen = replace(SETTINGS, consistency_variants=1), {}
    mined, drawn = extra._mined_losses, []

    def every(local, query, positive, variants):
        drawn.append(tuple(variants))
        for name in VARIANTS:
            seen[name] = mined(local, query, positive, [name])["consistency"].item()
        return mined(local, query, positive, variants)

    with torch.no_grad():
        extra._mined_losses = every
        _, shown = extra.loss(model, None, None, 0)
        assert sorted(drawn.pop()) == sorted(VARIANTS) and len(set(seen.values())) == 3
        assert shown["consistency"].item() == pytest.approx(np.mean(list(seen.values())), rel=1e-4)
        extra.settings = one
        _, shown = extra.loss(model, None, None, 0)
        assert shown["consistency"].item() == pytest.approx(seen[drawn.pop()[0]], rel=1e-4)
        extra._mined_losses = lambda *images: drawn.append(images[-1][0]) or {}
        extra.settings = replace(one, self_supervised=1, mined=1)
        for iteration in range(24):
            extra.loss(model, None, None, iteration)
    assert all(4 <= drawn.count(name) <= 12 for name in VARIANTS)
    for number in (0, 4):
        refused(lambda n=number: replace(one, consistency_variants=n), f"is {number}", "1, 2 or 3")


def test_what_the_technique_says_of_itself(streets, tmp_path, refused):
    technique, told = GeoWarp(SETTINGS), []
    assert technique.learning_rate == 1e-3 and technique.target is None
    assert technique.alone("resnet18") == 4 and technique.alone("efficientnet_v2_s") is None
    assert technique.recipe()["stages"] == SETTINGS.stages and technique.recipe()["near"] == 1.2
    prepared(streets, tmp_path, told=told)
    [(kind, label, recipe, code, together)] = told
    assert (kind, label) == ("mined", "mine pairs resnet18, seed 2")
    assert code == ("vgeo.training.geowarp",) and together
    assert recipe["photos"] == streets.classes.photos.fingerprint and recipe["seed"] == 2
    refused(lambda: replace(SETTINGS, alone=None), "frozen trunk of resnet18", "alone")
    assert replace(SETTINGS, alone=None, stages={"resnet18": 8}).alone is None


def test_mined_pairs_show_one_place_and_lie_near(streets, refused):
    model, classes = load_weights(build("resnet18"), streets.start).eval(), streets.classes
    pairs = mine_pairs(model, classes, 40, SIDE, seed=3, near=1.2)
    labels = classes.labels
    assert pairs.shape[1] == 2 and len(pairs) and (pairs[:, 0] != pairs[:, 1]).all()
    assert (labels[pairs[:, 0]] == labels[pairs[:, 1]]).all()
    assert set(labels[pairs[:, 0]]) == {0, 1, 2, 3}
    refused(lambda: mine_pairs(model, classes, 40, SIDE, 3, 1e-9), "none of 40 pairs", "1e-09")


def test_a_fresh_regression_warps_nothing(streets, tmp_path):
    """At the start both images of a pair stay whole: re-ranking compares them as they are."""
    extra = prepared(streets, tmp_path)[1].eval()
    maps = local_features(torch.randn(2, 128, 4, 4))
    assert torch.equal(extra.regression(maps[:1], maps[1:]), IDENTITY.expand(1, 2, 4, 2))


class Killed(BaseException):
    pass


def beside(streets, folder, iterations=4, stop=None, only=None, pace=EVERY):
    """Trains a regression beside the start, stopped at an iteration, or always on iteration `only`;
    returns its weights, its log and the model.
    """
    folder.mkdir(exist_ok=True)
    model, extra = prepared(streets, folder)
    loss = extra.loss

    def watched(model, source, target, iteration):
        if iteration == stop:
            raise Killed
        return loss(model, source, target, iteration if only is None else only)

    extra.loss = watched
    train_beside(extra, model, iterations, 1e-3, "float32", folder, pace=pace)
    return load_file(folder / "extra.safetensors"), pd.read_csv(folder / "log.csv"), model


@pytest.mark.slow
def test_a_regression_trained_beside_a_model(streets, tmp_path):
    """Stopped or not it ends the same, and the model beside it stays as it is."""
    whole, log, model = beside(streets, tmp_path / "whole")
    names = ["loss", "self_supervised", "feature_wise", "consistency"]
    assert list(log.columns) == ["iteration", *names, "seconds"]
    assert list(log["iteration"]) == [2, 4] and log["seconds"].gt(0).all()
    with pytest.raises(Killed):
        beside(streets, tmp_path / "stopped", stop=3)
    resumed, _, _ = beside(streets, tmp_path / "stopped")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    before, after = load_file(streets.start), model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.slow
def test_a_regression_learns_the_same_few_pairs_by_heart(streets, tmp_path):
    _, log, _ = beside(streets, tmp_path, iterations=80, only=0, pace=Pace(4))
    assert log["self_supervised"].iloc[-1] < 0.3 * log["self_supervised"].iloc[0]


# ---- the city ----


def photographed_facades():
    """Photos of facades of an empty street from two places each, and the facades' corners in both.

    Yields uint8 (2, H, W, 3) and the true corners, (2, 4, 2).
    """
    from vgeo.city import paint
    from vgeo.city.cameras import Camera
    from vgeo.city.district import District
    from vgeo.city.light import Light

    district = District(3, paint.SAN_FRANCISCO, 1, 12)
    furniture = (district.furniture, district.signs, district.slots)
    district.furniture, district.signs, district.slots = (rows[:0] for rows in furniture)
    up = (0.0, 0.0, 1.0)
    light = Light((1.0, 1.0, 1.0), (0.0, 0.0, 0.0), up, up, up, 0.0, cloud=0.0, noise=0.0)
    size = 96
    for wall in district.scene.walls[::3]:  # a front and two sides for each house
        start, end, height = wall["left"], wall["right"], min(wall["height"], 7.0)
        middle, along = (start + end) / 2, (end - start) / np.hypot(*(end - start))
        if not (middle.min() > 5 and middle.max() < 95 and abs(middle - 50).min() < 30):
            continue  # across the street, or at a corner
        outward = np.array([along[1], -along[0]])
        heading = np.degrees(np.arctan2(*-outward))
        cameras = []
        for shift, turn, roll in ((-4.0, 14.0, 2.0), (5.0, -14.0, -3.0)):
            place = middle + 14 * outward + shift * along
            cameras.append(Camera(*place, 2.5, (heading + turn) % 360, 10.0, roll, 62.0, size))
        corners = np.array([(*start, height), (*end, height), (*end, 0.5), (*start, 0.5)])
        # the first pixel's centre is 0
        pixels = np.stack([camera.project(corners) for camera in cameras]) - 0.5
        rng = np.random.default_rng
        photos = [district.photo(camera, light, 201506, rng(0), crowd=0) for camera in cameras]
        yield np.stack(photos), 2 * pixels / (size - 1) - 1


@pytest.mark.slow
def test_true_quadrilaterals_make_two_photos_of_a_facade_alike():
    photos, corners = map(np.stack, zip(*photographed_facades(), strict=True))
    photos = torch.from_numpy(photos).permute(1, 0, 4, 2, 3).float() / 255
    corners = torch.from_numpy(corners).float().transpose(0, 1)
    seen = torch.ones_like(photos[0, :, :1])

    def difference(points_a, points_b):
        """Mean absolute difference of grey values, of equal contrast, where both see the facade."""
        mask = (warp(seen, points_a) > 0.99) & (warp(seen, points_b) > 0.99)
        pairs = zip(photos, (points_a, points_b), strict=True)
        grey = [warp(image, points).mean(1, keepdim=True) for image, points in pairs]
        out = []
        for a, b, m in zip(*grey, mask, strict=True):
            a, b = (x[m].sub(x[m].mean()).div(x[m].std()) for x in (a, b))
            out.append((a - b).abs().mean().item())
        return np.array(out)

    true, unwarped = difference(*corners), difference(corners[0], corners[0])
    shifted = difference(corners[0], corners[1] + torch.tensor([0.1, 0.0]))
    assert len(true) >= 8
    assert np.median(true) < 0.4 * np.median(unwarped)
    assert np.median(true) < 0.6 * np.median(shifted)
    assert (true < unwarped).all()
