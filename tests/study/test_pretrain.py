"""Pre-training: labels, lessons of teachers, tiny trainings, the card of the packaged weights."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from vgeo.device import numpy_stream
from vgeo.errors import VgeoError
from vgeo.models.network import build, normalise
from vgeo.models.weights import CITY_WEIGHTS, load_weights
from vgeo.models.whitening import SHRINKAGE
from vgeo.photos.images import load_image
from vgeo.photos.places import open_dataset
from vgeo.study import classify, imitate, pretrain
from vgeo.study.classify import Stage, pairs, rate_of, stage_of
from vgeo.study.imitate import Teacher
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
        return rate_of(STAGES, iteration)

    assert rate(0) == pytest.approx(1e-3 / 50)  # the rate rises over 50 iterations
    assert rate(3) == pytest.approx(5e-4 * 4 / 50)
    assert rate(4) == pytest.approx((5e-4 + 1e-5) / 2 * 5 / 50)
    assert rate(5) == pytest.approx(1e-5 * 6 / 50)  # after the last iteration
    assert stage_of(STAGES, 2) == (STAGES[0], 2 / 3)
    assert stage_of(STAGES, 3) == (STAGES[1], 0)


@pytest.fixture(scope="module")
def streets(tmp_path_factory, make_classes, make_photos):
    """Classes to train on, and what to check on."""
    top, easts = tmp_path_factory.mktemp("streets"), [553_000.0 + 60 * i for i in range(4)]
    for name in ("queries", "database"):
        make_photos(top / name, easts, noise=10.0, seed=len(name))
    val = open_dataset("city", top / "queries", top / "database")
    return make_classes(top / "train", 4, 3), {"city": (val, 32)}


@pytest.fixture
def small(monkeypatch):
    """Lessons of few and small numbers."""
    for name, value in {"VIEW": SIDE, "AXES": 6, "BATCH": 4}.items():
        monkeypatch.setattr(imitate, name, value)
    monkeypatch.setattr(imitate, "precision", lambda: "float32")


@pytest.fixture
def lessons(streets, small, tmp_path):
    """The folder of 16 lessons of two teachers, and the teachers."""
    teachers = [Teacher(build("resnet18", "city").eval(), size) for size in (SIDE, 64)]
    folder = tmp_path / "lessons"
    folder.mkdir()
    imitate.write_lessons(teachers, list(streets[0].photos.paths), 16, 5, folder)
    return folder, teachers


def test_lessons_are_what_the_teachers_see_in_the_views(lessons):
    folder, teachers = lessons
    views, targets = np.load(folder / "views.npy"), np.load(folder / "targets.npy")
    assert views.shape == (16, 3, SIDE, SIDE) and views.dtype == np.uint8
    assert targets.shape == (16, 2, 5, 6) and targets.dtype == np.float16
    assert np.allclose(np.linalg.norm(targets.astype(float), axis=-1), 1, atol=2e-3)
    for number, teacher in enumerate(teachers):
        images = F.interpolate(torch.from_numpy(views).float(), size=teacher.size, mode="bilinear")
        with torch.inference_mode():
            maps = F.normalize(teacher.model.features(normalise(images.round().byte())), dim=1)
        whole = maps.clamp(min=1e-6).pow(3).mean((2, 3)).pow(1 / 3).double().numpy()
        # the cosines of lessons, which do not depend on the signs of the axes
        centred = whole - whole.mean(0)
        variance, axes = np.linalg.eigh(np.cov(centred.T))
        variance, axes = variance[-6:], axes[:, -6:]
        seen = centred @ axes / np.sqrt(variance + SHRINKAGE * variance.mean())
        seen /= np.linalg.norm(seen, axis=1, keepdims=True)
        ours = targets[:, number, -1].astype(float)
        assert np.allclose(ours @ ours.T, seen @ seen.T, atol=0.05)


def test_every_photo_gives_a_lesson_before_one_gives_two(streets, small, tmp_path, monkeypatch):
    asked = []

    def loaded(paths, batch_size, size):
        asked.extend(paths)
        for first in range(0, len(paths), batch_size):
            rows = np.arange(first, min(first + batch_size, len(paths)))
            yield rows, torch.stack([load_image(paths[row], size) for row in rows])

    monkeypatch.setattr(imitate, "load_batches", loaded)
    paths = list(streets[0].photos.paths)
    imitate.write_lessons([Teacher(build("resnet18").eval(), SIDE)], paths, 18, 5, tmp_path)
    assert sorted(asked[:12]) == sorted(paths) and len(set(asked[12:])) == 6


def test_a_turn_shows_each_lesson_once(small):
    views = np.arange(10, dtype=np.uint8)[:, None, None, None].repeat(3, 1)
    views = np.broadcast_to(views, (10, 3, 8, 8)).copy()
    targets = np.arange(10, dtype=np.float16)[:, None, None, None]
    batches = list(imitate._batches(views, targets, 4, 0, 5, seed=3))
    shown = [target.flatten().tolist() for _, target in batches]
    for turn, batches_of_turn in enumerate((shown[:2], shown[2:4])):
        order = numpy_stream(3, "order of lessons", turn).permutation(10)[:8]
        assert sorted(sum(batches_of_turn, [])) == sorted(order.tolist())
    for images, target in batches:
        wanted = normalise(torch.full((4, 3, 4, 4), 0, dtype=torch.uint8))
        wanted = wanted + target[:, :, :, 0, None] / 255 / torch.tensor([0.229, 0.224, 0.225]).view(
            3, 1, 1
        )
        torch.testing.assert_close(images, wanted.expand_as(images), atol=1e-4, rtol=1e-4)
    again = list(imitate._batches(views, targets, 4, 3, 5, seed=3))
    assert [target.flatten().tolist() for _, target in again] == shown[3:]


class Killed(BaseException):
    pass


def trainings(streets, lessons):
    """The two ways, each as `pretrain.train` takes them, with numbers for a test."""
    classes, folder = streets[0], lessons[0]

    def labels(evaluate, checkpoint):
        how = classes, SIDE, 0, evaluate, checkpoint, 2, Pace(1, 0)
        return classify.classify("resnet18", STAGES, *how)

    def teachers(evaluate, checkpoint):
        how = folder, 32, 5, 0, evaluate, checkpoint, 2, Pace(1, 0)
        return imitate.imitate("resnet18", *how)

    return {"labels": labels, "teachers": teachers}


@pytest.mark.slow
@pytest.mark.parametrize("way", ["labels", "teachers"])
def test_a_stopped_pre_training_ends_the_same(way, streets, lessons, tmp_path, monkeypatch):
    (classes, checks), make = streets, trainings(streets, lessons)[way]
    photos = list(classes.photos.paths)

    def go(name):
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        pretrain.train(make, photos, checks, {"in_words": ["two ways"]}, folder)
        return folder

    whole = go("whole")
    log = pd.read_csv(whole / "log.csv")
    assert list(log["iteration"]) == list(range(6))
    assert log["city"].notna().tolist() == [True, False, True, False, True, True]
    assert log["loss"].isna().tolist() == [True] + [False] * 5
    assert sorted(path.suffix for path in whole.iterdir()) == [".csv", ".json", ".safetensors"]
    recipe = json.loads((whole / "model.json").read_text())
    assert recipe["score"]["iteration"] == 5 and recipe["in_words"][0] == "two ways"
    assert recipe["checks"]["city"] == {"queries": 4, "database": 4, "size": 32}
    load_weights(build("resnet18"), whole / "model.safetensors")
    real, calls = pretrain.score, []

    def stopping(model, checks):
        calls.append(1)
        if len(calls) == 3:
            raise Killed
        return real(model, checks)

    monkeypatch.setattr(pretrain, "score", stopping)
    with pytest.raises(Killed):
        go("stopped")
    monkeypatch.setattr(pretrain, "score", real)
    go("stopped")
    ours, theirs = ((tmp_path / n / "model.safetensors").read_bytes() for n in ("whole", "stopped"))
    assert ours == theirs


@pytest.mark.slow
def test_a_pupil_comes_to_see_what_its_teachers_see(lessons, tmp_path, monkeypatch):
    monkeypatch.setattr(imitate, "WARM_UP", 5)
    how = lessons[0], 32, 40, 0, lambda model: {}, tmp_path / "checkpoint.pt", 40, Pace(5, 1000)
    _, log = imitate.imitate("resnet18", *how)
    cosines = [row["cosine"] for row in log if "cosine" in row]
    assert cosines[0] < 0.3 and cosines[-1] > 0.6


def test_an_unknown_backbone_is_named(tmp_path):
    with pytest.raises(VgeoError, match="'vgg16': use one of resnet18, efficientnet_v2_s"):
        pretrain.pretrain(("vgg16",), tmp_path)


def test_the_committed_card_is_what_is_written(tmp_path):
    for path in CITY_WEIGHTS.iterdir():
        shutil.copy(path, tmp_path)
    (tmp_path / "README.md").write_text("old")
    pretrain.write_card(tmp_path)
    assert (tmp_path / "README.md").read_text() == (CITY_WEIGHTS / "README.md").read_text()
