"""What is trained along with the extractor: the domain discriminator and GeoWarp's regression."""

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from vgeo import geowarp
from vgeo import joint
from vgeo import train as training
from vgeo.training.checkpoint import Checkpoint
from vgeo.errors import VgeoError
from vgeo.training.grl import Domain
from vgeo.training.geowarp import Warp, mine_pairs
from vgeo.training.loop import train_alone
from vgeo.models.network import build, freeze
from vgeo.models.weights import save_weights
from vgeo.study.profiles import CITY_GEOWARP
from vgeo.training.loop import Recipe
from vgeo.training.batches import batches, live_views

SIDE = 32
NUMBERS = CITY_GEOWARP | {"self_supervised": 3, "mined": 2}


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Four places of three photos each, as a table with labels; and starting weights."""
    folder, random, rows = tmp_path_factory.mktemp("photos"), np.random.default_rng(0), []
    for place in range(4):
        picture = Image.fromarray(random.integers(0, 256, (6, 6, 3), np.uint8)).resize(
            (SIDE, SIDE), Image.Resampling.BICUBIC
        )
        for i in range(3):
            pixels = (
                (np.asarray(picture) + random.normal(0, 8, (SIDE, SIDE, 3)))
                .clip(0, 255)
                .astype(np.uint8)
            )
            Image.fromarray(pixels).save(folder / f"{place}_{i}.png")
            rows.append((str(folder / f"{place}_{i}.png"), place))
    torch.manual_seed(1)
    save_weights(build("resnet18"), folder / "start.safetensors", {})
    return pd.DataFrame(rows, columns=["path", "label"]), folder / "start.safetensors"


def extra_of(method, table):
    torch.manual_seed(2)
    if method == "GRL":
        return Domain("resnet18", 0.3)
    return Warp(table["path"].to_numpy(), np.array([[0, 1], [3, 5], [6, 8]]), SIDE, 6, NUMBERS, 0)


@pytest.mark.parametrize("method", ["GRL", "GeoWarp"])
def test_the_losses_reach_what_they_should_and_repeat(photos, method):
    table, start = photos
    model = build("resnet18", start)
    freeze(model)
    found = []
    for _ in range(2):
        extra = extra_of(method, table)
        maps = model.upper(torch.randn(4, 128, 4, 4, generator=torch.Generator().manual_seed(5)))
        model.zero_grad()
        loss, shown = extra.loss(model, maps[:2], maps[2:], iteration=7)
        loss.backward()
        found.append((loss.item(), {name: value.item() for name, value in shown.items()}))
        assert all(p.grad is not None and p.grad.isfinite().all() for p in extra.parameters())
        frozen = [p.grad for p in model.stages[:6].parameters()]
        assert all(gradient is None for gradient in frozen)
        # the city's local features are the trunk's: only the discriminator's gradient reaches the trained stages
        assert (model.stages[7][0].conv1.weight.grad is not None) == (method == "GRL")
    assert found[0] == found[1]
    if method == "GRL":
        assert found[0][0] == pytest.approx(0.3 * found[0][1]["domain_loss"])
    else:
        by_hand = sum(NUMBERS["weights"][name] * value for name, value in found[0][1].items())
        assert found[0][0] == pytest.approx(by_hand, rel=1e-5)
        other = extra_of(method, table).loss(model, None, None, iteration=8)[0]
        assert other.item() != found[0][0]  # other images, other trapezoids


@pytest.mark.parametrize("method", ["GRL", "GeoWarp"])
def test_a_joint_training_that_was_stopped_ends_the_same(photos, tmp_path, monkeypatch, method):
    table, start = photos
    recipe = Recipe(
        backbone="resnet18",
        weights=str(start),
        margin="CosFace",
        image_size=SIDE,
        epochs=1,
        iterations=4,
        batch_size=3,
        lr_model=1e-3,
        lr_classifier=0.01,
        seed=1,
        precision="float32",
        method=method,
        lr_extra=1e-3,
    )
    monkeypatch.setattr(training, "LOG_EVERY", 2)
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0)
    paths, rows = table["path"].to_numpy(), batches(table["label"].to_numpy(), 3, 0, 4, 1)

    def run(folder):
        folder.mkdir(exist_ok=True)

        def views(model, first):
            return live_views(model, paths, rows, SIDE, 1, first)

        training.train(
            recipe,
            table,
            lambda model: 50.0,
            folder,
            views,
            views if method == "GRL" else None,
            extra_of(method, table),
        )

    run(tmp_path / "whole")
    saves, real = [], Checkpoint.save
    with monkeypatch.context() as patch:

        def stop(self, **values):
            real(self, **values)
            saves.append(1)
            raise KeyboardInterrupt

        patch.setattr(Checkpoint, "save", stop)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "stopped")
    run(tmp_path / "stopped")
    for name in ("model.safetensors", "extra.safetensors"):
        one, other = (load_file(tmp_path / folder / name) for folder in ("whole", "stopped"))
        assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)
    log = pd.read_csv(tmp_path / "whole/log.csv")
    names = {
        "GRL": ["domain_loss", "domain_accuracy"],
        "GeoWarp": ["self_supervised", "feature_wise", "consistency"],
    }[method]
    assert list(log.columns) == [
        "iteration",
        "loss",
        *names,
        "images_per_second",
        "val_R@1",
    ] and log[names].notna().all(axis=None)
    start_state, trained = (
        extra_of(method, table).state_dict(),
        load_file(tmp_path / "whole/extra.safetensors"),
    )
    assert any(not torch.equal(start_state[name], trained[name]) for name in trained)


def test_a_regression_trained_alone(photos, tmp_path, monkeypatch):
    """Stopped or not it ends the same; the model beside it stays as it is; it learns what it is shown."""
    table, start = photos
    monkeypatch.setattr(joint, "LOG_EVERY", 2)
    monkeypatch.setattr(joint, "CHECKPOINT_SECONDS", 0)
    model = build("resnet18", start)
    before = {name: value.clone() for name, value in model.state_dict().items()}

    def run(folder, iterations=4):
        folder.mkdir(exist_ok=True)
        train_alone(extra_of("GeoWarp", table), model, iterations, 1e-3, "float32", folder)
        return load_file(folder / "extra.safetensors"), pd.read_csv(folder / "log.csv")

    whole, log = run(tmp_path / "whole")
    assert list(log.columns) == [
        "iteration",
        "loss",
        "self_supervised",
        "feature_wise",
        "consistency",
        "seconds",
    ] and list(log["iteration"]) == [2, 4]
    real = Checkpoint.save
    with monkeypatch.context() as patch:

        def stop(self, **values):
            real(self, **values)
            raise KeyboardInterrupt

        patch.setattr(Checkpoint, "save", stop)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "stopped")
    resumed, _ = run(tmp_path / "stopped")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    real_loss = Warp.loss  # the same few pairs again and again are learnt by heart
    monkeypatch.setattr(
        Warp,
        "loss",
        lambda self, model, source, target, iteration: real_loss(self, model, source, target, 0),
    )
    _, log = run(tmp_path / "longer", 80)
    assert log["self_supervised"].iloc[-1] < 0.3 * log["self_supervised"].iloc[0]


def test_mined_pairs_show_one_place_and_lie_near(photos):
    table, start = photos
    model = build("resnet18", start).eval()
    pairs = mine_pairs(model, table, 40, SIDE, seed=3, threshold=1.2)
    labels = table["label"].to_numpy()
    assert (
        pairs.shape[1] == 2
        and len(pairs)
        and (labels[pairs[:, 0]] == labels[pairs[:, 1]]).all()
        and (pairs[:, 0] != pairs[:, 1]).all()
    )
    assert set(labels[pairs[:, 0]]) == {0, 1, 2, 3}
    with pytest.raises(VgeoError, match="none of 40 pairs"):
        mine_pairs(model, table, 40, SIDE, seed=3, threshold=1e-9)


def test_a_fresh_regression_warps_nothing(photos):
    """At the start of training both images of a pair stay whole, so re-ranking compares them as they are."""
    extra = extra_of("GeoWarp", photos[0]).eval()
    features = geowarp.local_features(torch.randn(2, 128, 4, 4))
    assert torch.equal(
        extra.regression(features[:1], features[1:]), geowarp.IDENTITY.expand(1, 2, 4, 2)
    )
