"""Pre-training: its batches, its head, a tiny training, and the card of the committed weights."""

import json
import shutil
from dataclasses import asdict

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vgeo.models.network import build
from vgeo.models.weights import CITY_WEIGHTS, load_weights
from vgeo.photos.places import open_dataset
from vgeo.study import pretrain
from vgeo.study.pretrain import Stage, add_neck, fold_neck, pairs, tell_apart, train, write_card
from vgeo.training.loop import Pace

SIDE = 48
STAGES = (Stage(32, 3, 4, 1e-3, 5e-4, (0.0, 0.6)), Stage(SIDE, 2, 4, 5e-4, 1e-5, (0.4, 0.8)))


@given(st.integers(2, 4), st.integers(1, 4), st.integers(0, 9))
def test_a_batch_has_two_images_of_each_class(classes, images, seed):
    labels = np.repeat(np.arange(classes), images)
    for row in pairs(labels, 4, 0, 5, seed):
        first, second = np.split(labels[row], 2)
        assert first.tolist() == second.tolist() and len(set(first)) == 2
    tail = pairs(labels, 4, 2, 5, seed)
    assert np.array_equal(tail, pairs(labels, 4, 0, 5, seed)[2:])


def test_rates_and_stages_by_hand():
    def rate(iteration):
        return pretrain._rate(STAGES, iteration)

    assert rate(0) == pytest.approx(1e-3 / 50)  # the rate rises over 50 iterations
    assert rate(3) == pytest.approx(5e-4 * 4 / 50)
    assert rate(4) == pytest.approx((5e-4 + 1e-5) / 2 * 5 / 50)
    assert rate(5) == pytest.approx(1e-5 * 6 / 50)  # after the last iteration
    assert pretrain._stage(STAGES, 2) == (STAGES[0], 2 / 3)
    assert pretrain._stage(STAGES, 3) == (STAGES[1], 0)


def test_a_folded_neck_changes_nothing():
    torch.manual_seed(0)
    model, images = build("resnet18"), torch.randn(6, 3, SIDE, SIDE)
    names = list(model.state_dict())
    add_neck(model)
    with torch.no_grad():
        neck = model.aggregation[3]
        neck.weight.uniform_(0.5, 2)
        neck.bias.uniform_(-1, 1)
        model(images)  # for the running statistics
        before = model.eval()(images)
        fold_neck(model)
        torch.testing.assert_close(model(images), before, atol=1e-5, rtol=0)
    assert list(model.state_dict()) == names


def test_infonce_by_hand():
    a, b = torch.eye(3), torch.eye(3)[[0, 2, 1]]
    logits = (a @ b.T / 0.1).double().numpy()
    expected = np.mean([np.logaddexp.reduce(row) - row[i] for i, row in enumerate(logits)])
    assert tell_apart(a, b).item() == pytest.approx(expected, rel=1e-5)


@pytest.fixture(scope="module")
def streets(tmp_path_factory, make_classes, make_photos):
    """Classes to train on, and what to check on."""
    top, easts = tmp_path_factory.mktemp("streets"), [553_000.0 + 60 * i for i in range(4)]
    for name in ("queries", "database"):
        make_photos(top / name, easts, noise=10.0, seed=len(name))
    val = open_dataset("city", top / "queries", top / "database")
    return make_classes(top / "train", 4, 3), {"city": (val, 32)}


class Killed(BaseException):
    pass


@pytest.mark.slow
def test_a_stopped_pre_training_ends_the_same(streets, tmp_path):
    """A pupil of a teacher too; the log has the start's score, and the rates of all stages."""
    classes, checks = streets
    torch.manual_seed(1)
    teacher = build("resnet18").eval()

    def stopping(images):
        calls.append(1)
        if len(calls) == 5:
            raise Killed
        return teacher(images)

    def go(name, teacher):
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        train("resnet18", STAGES, classes, teacher, checks, folder, every=2, pace=Pace(1, 0))
        return folder

    for folder in (go("labels", None), go("whole", teacher)):
        log = pd.read_csv(folder / "log.csv")
        assert list(log.columns) == ["iteration", "loss", "seconds", "size", "city"]
        assert list(log["iteration"]) == list(range(6))
        assert list(log["size"].dropna()) == [32, 32, SIDE, SIDE]
        assert log["loss"].isna().tolist() == [True] + [False] * 5
        assert sorted(path.suffix for path in folder.iterdir()) == [".csv", ".json", ".safetensors"]
        recipe = json.loads((folder / "model.json").read_text())
        assert recipe["stages"][0] == asdict(STAGES[0]) | {"strength": [0.0, 0.6]}
        assert recipe["score"]["iteration"] == recipe["iterations"] == 5
        assert recipe["checks"]["city"] == {"queries": 4, "database": 4, "size": 32}
        load_weights(build("resnet18"), folder / "model.safetensors")
    calls = []
    with pytest.raises(Killed):
        go("stopped", stopping)
    go("stopped", teacher)
    ours, theirs = ((tmp_path / n / "model.safetensors").read_bytes() for n in ("whole", "stopped"))
    assert ours == theirs


def test_the_committed_card_is_what_is_written(tmp_path):
    for path in CITY_WEIGHTS.iterdir():
        shutil.copy(path, tmp_path)
    (tmp_path / "README.md").write_text("old")
    write_card(tmp_path)
    assert (tmp_path / "README.md").read_text() == (CITY_WEIGHTS / "README.md").read_text()
