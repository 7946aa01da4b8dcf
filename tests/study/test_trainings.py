"""Trainings: each is made once, its recipe names all that it depends on, soups are averages."""

import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from sklearn.decomposition import PCA

from vgeo.models.network import build, trunk_hash
from vgeo.models.weights import load_weights, save_weights, weights_hash
from vgeo.models.whitening import Pooled
from vgeo.retrieval.describe import describe
from vgeo.study import trainings
from vgeo.study.rows import ABLATIONS, LITE, LOSSES, SECOND, SOUPS, TRAININGS, UNIFORM
from vgeo.study.trainings import TrainedModel


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


def test_soups_of_the_second_family_have_its_backbone(study, tmp_path):
    tiny, names = study(), SOUPS[SECOND[UNIFORM]].ingredients
    for seed, name in enumerate(names):
        torch.manual_seed(seed)
        path = tmp_path / f"{seed}.safetensors"
        save_weights(build(LITE), path, {})
        # in place of a training, which takes long
        tiny.trainings._models[name, 0] = TrainedModel(name, 0, LITE, path)
    soup = tiny.train(SECOND[UNIFORM])
    assert soup.backbone == LITE and soup.name == "EffLite0 uniform soup"
    tensor = "aggregation.3.weight"
    states = [load_file(tiny.train(name).weights)[tensor].double().numpy() for name in names]
    mixed = load_file(soup.weights)[tensor].numpy()
    np.testing.assert_allclose(mixed, np.mean(states, axis=0), rtol=1e-6, atol=1e-8)
    recalls = {name: tiny.descriptions.validate(tiny.load(tiny.train(name))) for name in names}
    chosen = tiny.trainings.greedy(names)
    assert set(chosen) <= set(names) and recalls[chosen[0]] == max(recalls.values())
    greedy = tiny.train("EffLite0 Model Soup")
    assert greedy.weights == tiny.soup(chosen).weights and greedy.backbone == LITE
    assert tiny.descriptions.validate(tiny.load(greedy)) >= max(recalls.values())


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
    for name, row in (TRAININGS | ABLATIONS).items():
        if row.base:
            base = TRAININGS[row.base]
            assert base.technique is None and base.backbone == row.backbone, name


# Where a training starts


def test_a_start_is_whitened_as_by_sklearn(study):
    """The numbers before normalisation, up to the axes' order and direction."""
    tiny = study(whitens_head=True)
    before = build("resnet18", tiny.trainings.given("resnet18"))
    after = tiny.load(tiny.start("resnet18"))
    features = describe(Pooled(before), tiny.data.classes.photos.paths, 32)
    pca = PCA(len(features) - 1, svd_solver="full").fit(features.astype(float))
    variance = pca.explained_variance_
    scores = pca.transform(features) / np.sqrt(variance + 0.1 * variance.sum() / 512)
    with torch.no_grad():
        ours = after.aggregation[3](torch.tensor(features)).numpy()
    np.testing.assert_allclose(ours @ ours.T, scores @ scores.T, atol=2e-4 * (scores**2).sum())
    states = before.state_dict(), after.state_dict()
    changed = {name for name in states[0] if not torch.equal(*(state[name] for state in states))}
    assert changed == {"aggregation.3.weight", "aggregation.3.bias"}
    assert trunk_hash(before) == trunk_hash(after)


def test_one_pass_over_few_evenly_spaced_photos_starts_a_training(study, monkeypatch):
    """Of 4 photos of each of 3 classes: 3, or all where that gives too few to whiten on."""
    tiny, seen = study(whitens_head=True), []

    def describes(model, paths, size, progress):
        seen.append(paths)
        return describe(model, paths, size)

    monkeypatch.setattr(trainings, "describe", describes)
    all_photos = tiny.start("resnet18").weights
    monkeypatch.setattr(trainings, "SAMPLE", 7)
    monkeypatch.setattr(trainings, "IN_A_MEAN", 2)
    assert tiny.start("resnet18").weights != all_photos
    tiny.trainings.centres("resnet18")
    study().trainings.centres("resnet18")  # without a whitened head: the same photos
    paths, labels = tiny.data.classes.photos.paths, tiny.data.classes.labels
    of_classes = [[paths[row] for row in np.flatnonzero(labels == label)] for label in range(3)]
    some = [[each[number] for number in (0, 1, 3)] for each in of_classes]
    assert seen == [sum(of_classes, []), sum(some, [])]


@pytest.mark.parametrize("whitens_head", [False, True])
def test_class_means_by_hand(study, monkeypatch, whitens_head):
    """Descriptors of the start, photo by photo: three of the four of each of three classes."""
    monkeypatch.setattr(trainings, "SAMPLE", 7)
    monkeypatch.setattr(trainings, "IN_A_MEAN", 2)
    tiny = study(whitens_head=whitens_head)
    classes, start = tiny.data.classes, tiny.load(tiny.start("resnet18"))
    found = np.load(tiny.trainings.centres("resnet18"))
    assert found.dtype == np.float32 and found.shape == (3, 512)
    for label, centre in enumerate(found):
        paths = [classes.photos.paths[row] for row in np.flatnonzero(classes.labels == label)]
        expected = sum(describe(start, [paths[number]], 32)[0] for number in (0, 1, 3)) / 3
        np.testing.assert_allclose(centre, expected, atol=1e-5)


def test_each_setting_makes_another_training(study, monkeypatch):
    """The settings reach the training, and the folder's key."""
    seen = []

    def fake(recipe, start, classes, validate, folder, views, target, extra, rate, centres, label):
        seen.append((recipe, start, centres))
        shutil.copy(start, folder / "model.safetensors")
        (folder / "log.csv").write_text("iteration,seconds\n0,1\n")

    monkeypatch.setattr(trainings, "train_extractor", fake)
    plain = study().profile.training
    changes = [
        {},
        {"whitens_head": True},
        {"training": replace(plain, class_means=True)},
        {"training": replace(plain, keeps_statistics=True)},
    ]
    studies = [study(**change) for change in changes]
    assert len({each.train("CosFace").weights for each in studies}) == len(seen) == 4
    assert [start for _, start, _ in seen] == [each.start("resnet18").weights for each in studies]
    means = np.load(studies[2].trainings.centres("resnet18"))
    np.testing.assert_array_equal(seen[2][2], means)
    assert [centres is None for _, _, centres in seen] == [True, True, False, True]
    assert [recipe.keeps_statistics for recipe, _, _ in seen] == [False, False, False, True]


def test_efficientnet_lite0_starts_from_imagenet(study):
    tiny = study()
    start = tiny.start("efficientnet_lite0")
    ours, theirs = load_file(start.weights), build("efficientnet_lite0", "imagenet").state_dict()
    other = {name for name in theirs if not torch.equal(ours[name], theirs[name])}
    assert other == {"aggregation.3.weight", "aggregation.3.bias"}  # a random head
    assert study(weights="imagenet").start("efficientnet_lite0").weights == start.weights
    assert tiny.start("resnet18").weights == tiny.trainings.start_folder / "resnet18.safetensors"
