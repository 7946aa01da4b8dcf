"""Trainings: each is made once, its recipe names all that it depends on, soups are averages."""

import shutil

import numpy as np
import pandas as pd
import pytest
from safetensors.torch import load_file

from vgeo.models.network import build
from vgeo.models.weights import load_weights, save_weights, weights_hash
from vgeo.study.rows import LOSSES, TRAININGS, UNIFORM


def models_in(study):
    return sorted(path.parent.name for path in study.cache.root.glob("models/*/model.safetensors"))


@pytest.mark.slow
def test_a_training_is_made_once(study):
    tiny = study()
    model = tiny.train("CosFace")
    assert tiny.train("CosFace") is model
    assert study().train("CosFace").weights == model.weights and len(models_in(tiny)) == 1
    assert (model.backbone, model.seed, model.extra) == ("resnet18", 0, None)
    assert weights_hash(model.weights) in (
        weights_hash(tiny.start("resnet18").weights),  # where no epoch validates better
        weights_hash(tiny.load(model)),
    )
    assert study().train("CosFace", seed=1).weights != model.weights


def test_a_log_begins_with_the_start(study):
    tiny = study()
    log = tiny.train("CosFace").log
    assert list(log["iteration"]) == [0, 2]
    start = load_weights(build("resnet18"), tiny.start("resnet18").weights)
    assert log["val_R@1"][0] == round(tiny.descriptions.validate(start), 2)


def test_the_best_of_start_and_epochs_is_kept(study):
    tiny = study()
    model = tiny.train("ArcFace")
    best = tiny.descriptions.validate(tiny.load(model))
    assert round(best, 2) == model.log["val_R@1"].max()


def test_retrained_weights_are_described_anew(study, weights, tmp_path):
    tiny, path = study(), tmp_path / "mine.safetensors"
    shutil.copy(weights / "resnet18.safetensors", path)
    photos = tiny.data.test_sets["sf-xs"].queries
    before = tiny.descriptions.folder(path, "resnet18", photos)
    assert tiny.descriptions.folder(path, "resnet18", photos) == before
    save_weights(build("resnet18"), path, {})
    assert tiny.descriptions.folder(path, "resnet18", photos) != before


@pytest.mark.slow
def test_soups_are_averages(study):
    tiny = study()
    ingredients = [load_file(tiny.train(name).weights) for name in LOSSES]
    name = "backbone.7.1.conv2.weight"
    tensors = np.stack([state[name].double().numpy() for state in ingredients])
    uniform = load_file(tiny.train(UNIFORM).weights)[name].numpy()
    np.testing.assert_allclose(uniform, tensors.mean(0), rtol=1e-6, atol=1e-8)
    between = tiny.soup(LOSSES[:2], shares=(0.25, 0.75))
    expected = 0.25 * tensors[0] + 0.75 * tensors[1]
    np.testing.assert_allclose(load_file(between.weights)[name], expected, rtol=1e-6, atol=1e-8)
    chosen = tiny.trainings.greedy()
    assert chosen and set(chosen) <= set(LOSSES) and len(set(chosen)) == len(chosen)


@pytest.mark.slow
def test_stored_trunk_and_views_change_nothing_but_rounding(study):
    plain, stored = study(), study(store_trunk=64)
    logs = [each.train("GRL").log for each in (plain, stored)]
    assert plain.train("GRL").weights != stored.train("GRL").weights or len(models_in(plain)) == 1
    pd.testing.assert_series_equal(logs[0]["iteration"], logs[1]["iteration"])
    # float16 keeps 11 bits of the trunk's maps
    np.testing.assert_allclose(logs[0]["loss"].dropna(), logs[1]["loss"].dropna(), rtol=2e-2)
    dataset = plain.data.test_sets["tokyo-xs"]
    one, two = (each.search(each.start("resnet18"), dataset, 0.4) for each in (plain, stored))
    np.testing.assert_allclose(one.distances, two.distances, atol=5e-3 * one.distances.max())


@pytest.mark.slow
def test_trainings_that_share_views_describe_them_once(study):
    tiny = study(store_trunk=64)
    tiny.train("CosFace")
    tiny.train("ArcFace")
    assert len(list(tiny.cache.root.glob("views/*/trunk.npy"))) == 1


def test_bases_train_without_a_technique():
    for name, row in TRAININGS.items():
        if row.base:
            base = TRAININGS[row.base]
            assert base.technique is None and base.backbone == row.backbone, name
