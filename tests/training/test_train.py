"""Batches, training that is killed and goes on, descriptors, and artefacts."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file

from vgeo import artefacts, augment
from vgeo import train as training
from vgeo.training.checkpoint import Checkpoint
from vgeo.study.cache import artefact
from vgeo.files import key
from vgeo.photos.places import Dataset
from vgeo.retrieval.describe import describe
from vgeo.errors import VgeoError
from vgeo.training.losses import MARGINS, AngularMarginLoss
from vgeo.retrieval.metrics import first_hit, recall
from vgeo.models.network import build, freeze, normalise
from vgeo.models.weights import save_weights
from vgeo.retrieval.search import search
from vgeo.training.loop import Recipe
from vgeo.training.batches import batches, live_views


@pytest.fixture(autouse=True, scope="module")
def small_and_on_the_cpu():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "is_available", lambda: False)
        patch.setattr(training, "LOG_EVERY", 3)
        yield


# Batches

labellings = (
    st.lists(st.integers(1, 4), min_size=1, max_size=9)
    .flatmap(  # images of each class, shuffled
        lambda sizes: st.permutations([label for label, n in enumerate(sizes) for _ in range(n)])
    )
    .map(np.array)
)


@settings(deadline=None, max_examples=60)
@given(labellings, st.integers(1, 5), st.integers(0, 30), st.integers(0, 9))
def test_batches(labels, batch_size, first, seed):
    classes, last = labels.max() + 1, 40
    rows = batches(labels, batch_size, 0, last, seed)
    assert len(rows) == last
    size = min(batch_size, classes)
    for batch in rows:
        assert len(batch) == size == len(set(labels[batch]))
    a_pass = classes // size
    for start in range(0, last - a_pass + 1, a_pass):
        seen = labels[np.concatenate(rows[start : start + a_pass])]
        assert len(set(seen)) == len(seen) == a_pass * size
    tail = batches(labels, batch_size, first, last, seed)
    assert all(np.array_equal(one, other) for one, other in zip(tail, rows[first:], strict=True))


def test_batches_choose_every_image_and_every_class_alike():
    labels = np.array([0, 1, 1, 2, 2, 2, 3, 3, 3, 3, 4])
    rows = np.concatenate(batches(labels, 2, 0, 4000, seed=1))
    share = np.bincount(rows, minlength=len(labels)) / len(rows)
    assert share == pytest.approx(
        1 / 5 / np.bincount(labels)[labels], rel=0.2
    )  # 5 classes, alike; their images, alike
    assert not np.array_equal(rows, np.concatenate(batches(labels, 2, 0, 4000, seed=2)))


# Training

SIDE, CLASSES, IMAGES = 32, 4, 3


@pytest.fixture(scope="module")
def streets(tmp_path_factory):
    """Training photos, a RetrievalSet and starting weights: each class is one random picture with noise."""
    folder, random = tmp_path_factory.mktemp("streets"), np.random.default_rng(0)
    places = random.integers(0, 256, (CLASSES, 6, 6, 3), np.uint8)

    def photo(name, place):
        picture = Image.fromarray(places[place]).resize(
            (SIDE + 8, SIDE + 8), Image.Resampling.BICUBIC
        )
        pixels = (
            (picture + random.normal(0, 12, (SIDE + 8, SIDE + 8, 3))).clip(0, 255).astype(np.uint8)
        )
        path = folder / f"{name}{place}.jpg"
        Image.fromarray(pixels).save(path, quality=95)
        return str(path)

    rows = [(photo(f"train{i}_", place), place) for place in range(CLASSES) for i in range(IMAGES)]
    table = pd.DataFrame(rows, columns=["path", "label"])
    database = pd.DataFrame({"path": [photo("database", place) for place in range(CLASSES)]})
    queries = pd.DataFrame({"path": [photo("query", place) for place in range(CLASSES)]})
    val = Dataset("val", queries, database, [np.array([i]) for i in range(CLASSES)])
    torch.manual_seed(3)
    save_weights(build("resnet18"), folder / "start.safetensors", {})
    return table, val, folder / "start.safetensors"


def recipe(start, **change):
    values = dict(
        backbone="resnet18",
        weights=str(start),
        margin="CosFace",
        image_size=SIDE,
        epochs=2,
        iterations=5,
        batch_size=3,
        lr_model=1e-3,
        lr_classifier=0.01,
        seed=1,
        precision="float32",
    )
    return Recipe(**values | change)


def validate(model, val):
    found = [describe(model, list(part["path"]), SIDE) for part in (val.database, val.queries)]
    return recall(first_hit(search(*found, 1)[0], val.positives), 1)


def train(one, table, val, folder, **options):
    """`vgeo.train.train` on the photos, decoded and augmented as it goes."""
    rows = batches(
        table["label"].to_numpy(), one.batch_size, 0, one.epochs * one.iterations, one.seed
    )
    paths = table["path"].to_numpy()

    def views(model, first):
        return live_views(model, paths, rows, SIDE, one.seed, first)

    training.train(one, table, lambda model: validate(model, val), folder, views, **options)


def log_of(folder):
    log = pd.read_csv(folder / "log.csv")
    assert list(log.columns) == ["iteration", "loss", "images_per_second", "val_R@1"]
    return log


@pytest.fixture(scope="module")
def uninterrupted(streets, tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted")
    train(recipe(streets[2]), *streets[:2], folder)
    return folder


def test_a_training_leaves_weights_a_recipe_and_a_log(streets, uninterrupted):
    assert sorted(path.name for path in uninterrupted.iterdir()) == [
        "log.csv",
        "model.json",
        "model.safetensors",
    ]
    log = log_of(uninterrupted)
    assert list(log["iteration"]) == [
        3,
        5,
        6,
        9,
        10,
    ]  # every 3, as set above, and at an epoch's end
    assert list(log["val_R@1"].isna()) == [True, False, True, True, False]
    assert log["loss"].between(0, 30).all() and log["images_per_second"].gt(0).all()
    saved = json.loads((uninterrupted / "model.json").read_text())
    assert saved == recipe(streets[2]).as_dict() | {"val_R@1": log["val_R@1"].max()}
    assert log["val_R@1"].dropna().isin(np.arange(CLASSES + 1) * 100 / CLASSES).all()


class Killed(BaseException):
    pass


def same(folder, other):
    ours, theirs = (load_file(each / "model.safetensors") for each in (folder, other))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert (folder / "model.json").read_text() == (other / "model.json").read_text()
    columns = ["iteration", "loss", "val_R@1"]
    pd.testing.assert_frame_equal(log_of(folder)[columns], log_of(other)[columns])
    assert not (folder / "checkpoint.pt").exists()


def test_a_stopped_training_goes_on_to_the_same_weights(
    streets, uninterrupted, tmp_path, monkeypatch
):
    """Stopped before its first checkpoint, between two, at an epoch's end, while it is saved and after its last."""
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0)
    seen = []

    def stop(owner, name, at):
        """Replaces a function by one that is killed in its `at`-th call."""
        real, calls = getattr(owner, name), []

        def call(*arguments, **values):
            calls.append(1)
            if len(calls) == at:
                raise Killed
            return real(*arguments, **values)

        return monkeypatch.context(), owner, name, call

    def run(where, at):
        seen.clear()
        context, owner, name, call = stop(*where, at)
        with context as patch:
            seeds = torch.manual_seed
            patch.setattr(torch, "manual_seed", lambda seed: seen.append(seed) or seeds(seed))
            patch.setattr(owner, name, call)
            with pytest.raises(Killed):
                train(recipe(streets[2]), *streets[:2], tmp_path)
        return [
            seed - 1_000_003 for seed in seen[1:]
        ]  # the iterations it went through; the first seed is the model's

    crop, save, valid = (
        (augment, "original"),
        (Checkpoint, "save"),
        (sys.modules[__name__], "validate"),
    )
    assert run(crop, 3) == [0, 1]
    assert run(crop, 5) == [0, 1, 2, 3]  # nothing had been saved; now the row at 3 was
    assert run(valid, 1) == [3, 4]
    assert run(save, 1) == [3, 4]
    assert run(crop, 4) == [3, 4, 5]  # saved at 5 and 6
    assert run(crop, 2) == [6]
    assert run((training, "save_weights"), 1) == [6, 7, 8, 9]
    assert run((training, "save_weights"), 1) == []  # nothing is left to train
    train(recipe(streets[2]), *streets[:2], tmp_path)
    same(tmp_path, uninterrupted)


KILLED = """
import json, os, signal, sys
from pathlib import Path
import pandas as pd, torch
from vgeo import train as training
from vgeo.datasets import RetrievalSet

training.CHECKPOINT_SECONDS, training.LOG_EVERY = 0, 3
folder = Path(sys.argv[1])
table, queries, database = (pd.read_json(folder / f"{name}.json") for name in ("table", "queries", "database"))
real, calls = torch.save, []

def save(what, path):
    real(what, path)
    calls.append(path)
    if len(calls) == 2:  # between the second checkpoint's writing and its renaming
        os.kill(os.getpid(), signal.SIGKILL)

torch.save = save
import test_train
val = Dataset("val", queries, database, [[i] for i in range(len(queries))])
test_train.train(training.Recipe(**json.loads((folder / "recipe.json").read_text())), table, val, folder)
"""


def test_a_training_killed_while_it_writes_goes_on(streets, uninterrupted, tmp_path, monkeypatch):
    table, val, start = streets
    for name, each in {"table": table, "queries": val.queries, "database": val.database}.items():
        each.to_json(tmp_path / f"{name}.json")
    (tmp_path / "recipe.json").write_text(json.dumps(recipe(start).as_dict()))
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": os.path.dirname(__file__)}
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert (tmp_path / "checkpoint.pt").exists() and (tmp_path / "checkpoint.tmp").exists()
    calls, real = [], augment.original
    monkeypatch.setattr(augment, "original", lambda *arguments: calls.append(1) or real(*arguments))
    train(recipe(start), table, val, tmp_path)
    assert len(calls) == 10 - 3
    same(tmp_path, uninterrupted)


def test_the_epoch_that_validates_best_is_kept(streets, tmp_path, monkeypatch):
    scores, states = [40.0, 70.0, 70.0, 60.0], []

    def validate(model, *_):
        states.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
        return scores[len(states) - 1]

    monkeypatch.setattr(sys.modules[__name__], "validate", validate)
    train(recipe(streets[2], epochs=4, iterations=2), *streets[:2], tmp_path)
    assert list(log_of(tmp_path)["val_R@1"].dropna()) == scores
    kept = load_file(tmp_path / "model.safetensors")
    equal = [all(torch.equal(kept[name], state[name]) for name in kept) for state in states]
    assert equal == [False, True, False, False]  # of equals, the earlier
    assert json.loads((tmp_path / "model.json").read_text())["val_R@1"] == 70


def test_early_layers_stay_and_late_ones_learn(streets, uninterrupted):
    before, after = load_file(streets[2]), load_file(uninterrupted / "model.safetensors")
    model = build("resnet18")
    freeze(model)
    trained = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    assert set(trained.values()) == {True, False}
    for name, learns in trained.items():
        assert torch.equal(before[name], after[name]) != learns, name
    assert torch.equal(before["backbone.1.running_mean"], after["backbone.1.running_mean"])
    assert not torch.equal(
        before["backbone.6.0.bn1.running_mean"], after["backbone.6.0.bn1.running_mean"]
    )


def test_one_step_is_adams_on_the_loss_of_that_batch(streets, tmp_path):
    """The first iteration, written out."""
    table, val, start = streets
    one = recipe(start, epochs=1, iterations=1, batch_size=CLASSES)
    train(one, table, val, tmp_path)
    torch.manual_seed(one.seed)
    model = build("resnet18", start)
    freeze(model)
    criterion = AngularMarginLoss(512, CLASSES, MARGINS["CosFace"])
    rows = batches(table["label"].to_numpy(), CLASSES, 0, 1, one.seed)[0]
    photos = [
        Image.open(table["path"][row]).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
        for row in rows
    ]
    pixels = np.stack([np.asarray(photo) for photo in photos])
    generator = torch.Generator().manual_seed(one.seed * 1_000_003)
    images = augment.original(torch.tensor(pixels).permute(0, 3, 1, 2), SIDE, generator)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    loss = criterion(model(images), torch.tensor(table["label"].to_numpy()[rows]))
    loss.backward()
    assert log_of(tmp_path)["loss"].item() == pytest.approx(loss.item(), abs=1e-4)
    after = load_file(tmp_path / "model.safetensors")
    name = "aggregation.3.weight"
    gradient = dict(model.named_parameters())[name].grad
    large = gradient.abs() > 1e-4  # Adam's first step is the rate times the gradient's sign
    assert large.float().mean() > 0.1
    step = (after[name] - before[name])[large]
    torch.testing.assert_close(step, -one.lr_model * gradient.sign()[large], atol=2e-6, rtol=0)


def test_a_diverging_training_names_its_rate(streets, tmp_path):
    with pytest.raises(VgeoError) as caught:
        train(recipe(streets[2], lr_model=1e30), *streets[:2], tmp_path, progress="train ArcFace")
    message = str(caught.value)
    assert "\n" not in message and "train ArcFace" in message and "lr_model (1e+30)" in message
    assert (
        not (tmp_path / "model.safetensors").exists() and not (tmp_path / "checkpoint.pt").exists()
    )


def test_bfloat16_is_used_where_the_recipe_says(streets, tmp_path):
    short = recipe(streets[2], epochs=1, iterations=1)
    for precision in ("float32", "bf16"):
        (tmp_path / precision).mkdir()
        train(replace(short, precision=precision), *streets[:2], tmp_path / precision)
    full, half = (log_of(tmp_path / precision)["loss"].item() for precision in ("float32", "bf16"))
    assert full != half and half == pytest.approx(full, rel=0.02)


# Descriptors


@pytest.fixture(scope="module")
def model(streets):
    return build("resnet18", streets[2])


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder, random = tmp_path_factory.mktemp("photos"), np.random.default_rng(1)
    sides = [(40, 48), (48, 40), (40, 48), (40, 48), (48, 40), (33, 64), (40, 48)]
    paths = [str(folder / f"{i}.png") for i in range(len(sides))]
    for path, (height, width) in zip(paths, sides):
        small = Image.fromarray(random.integers(0, 256, (5, 5, 3), np.uint8))
        small.resize((width, height), Image.Resampling.BICUBIC).save(path)
    return paths


def one_by_one(model, paths, side, brightness=1.0):
    """Descriptors from PIL and numpy alone, but for the network and `normalise`."""
    model.eval()
    found = []
    for path in paths:
        image = Image.open(path).convert("RGB")
        pixels = np.asarray(
            image.resize((side, side), Image.Resampling.BILINEAR) if side else image
        )
        pixels = np.clip(np.rint(pixels.astype(np.float64) * brightness), 0, 255).astype(np.uint8)
        with torch.no_grad():
            found.append(model(normalise(torch.tensor(pixels).permute(2, 0, 1)[None]))[0].numpy())
    return np.stack(found)


@pytest.mark.parametrize(
    "how, side",
    [
        ({"size": 32}, 32),
        ({"size": 32, "scale": 1.4}, 45),
        ({"size": 32, "brightness": 0.31}, 32),
        ({"size": 32, "brightness": 1.7}, 32),
        ({"size": None}, None),
        ({"size": None, "brightness": 0.31}, None),
    ],
)
def test_descriptors_against_one_by_one(model, photos, how, side):
    expected = one_by_one(model, photos, side, how.get("brightness", 1.0))
    apart = np.linalg.norm(expected[:, None] - expected[None], axis=2)[
        ~np.eye(len(photos), dtype=bool)
    ].min()
    for batch_size in (1, 3, 32):
        found = describe(model, photos, batch_size=batch_size, **how)
        assert found.dtype == np.float32 and found.shape == (len(photos), 512)
        assert np.linalg.norm(found - expected, axis=1).max() < min(1e-5, apart / 20)
    order = [4, 0, 6, 5, 2]
    mixed = describe(model, [photos[i] for i in order], batch_size=2, **how)
    assert np.linalg.norm(mixed - expected[order], axis=1).max() < min(1e-5, apart / 20)


def test_describe_leaves_the_model_as_it_was(model, photos):
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for mode in (True, False):
        model.train(mode)
        describe(model, photos[:2], 32)
        assert model.training == mode
    model.train()
    with pytest.raises(VgeoError):
        describe(model, [*photos[:2], photos[0] + ".none"], 32)
    assert model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


# Artefacts

values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats(-2, 2) | st.text("ab", max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("ab", max_size=2), inner, max_size=3)
    ),
    max_leaves=5,
)
recipes = st.dictionaries(st.text("abc", max_size=3), values, max_size=4)


@settings(deadline=None)
@given(recipes, recipes)
def test_keys_are_equal_where_recipes_are(one, other):
    assert (key(one) == key(other)) == (
        json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
    )
    assert key(dict(reversed(one.items()))) == key(one) and len(key(one)) == 16


def test_every_field_of_a_training_changes_its_key():
    first = recipe("start")
    other = {
        "backbone": "efficientnet_v2_s",
        "weights": "city",
        "margin": "ArcFace",
        "precision": "bf16",
        "method": "GRL",
        "lr_extra": 1e-3,
        "without": ("consistency",),
    }
    for field, value in first.as_dict().items():
        changed = replace(
            first, **{field: other.get(field, value + 1 if field not in other else None)}
        )
        assert key(changed.as_dict()) != key(first.as_dict())


def test_an_artefact_is_made_once(tmp_path):
    calls = []

    def make(folder):
        calls.append(folder)
        np.save(folder / "a.npy", np.arange(3))

    recipe = {"what": "three", "version": 1}
    folder = artefact(tmp_path, "step", recipe, make)
    assert (
        artefact(tmp_path, "step", dict(reversed(recipe.items())), make) == folder
        and len(calls) == 1
    )
    assert folder == tmp_path / "step" / key(recipe)
    assert sorted(path.name for path in folder.iterdir()) == [
        "a.npy",
        "recipe.json",
        "seconds",
        "sums.json",
    ]
    assert json.loads((folder / "recipe.json").read_text()) == recipe
    assert np.load(folder / "a.npy").tolist() == [0, 1, 2] and 0 <= artefacts.seconds(folder) < 60
    other = artefact(tmp_path, "step", recipe | {"version": 2}, make)
    assert other != folder and len(calls) == 2
    assert sorted(path.name for path in folder.parent.iterdir()) == sorted(
        [folder.name, other.name]
    )


@pytest.mark.parametrize("resumes", [False, True])
@pytest.mark.parametrize("failure", [Killed, ValueError, VgeoError])
def test_a_failed_artefact_counts_as_nothing(tmp_path, resumes, failure):
    found = []

    def make(folder):
        found.append(sorted(path.name for path in folder.iterdir()))
        (folder / f"part{len(found)}").touch()
        if len(found) < 3:
            raise failure("stop")

    final = tmp_path / "step" / key({})
    for _ in range(2):
        with pytest.raises(failure, match="stop"):
            artefact(tmp_path, "step", {}, make, resumes)
        assert not final.exists()
    assert artefact(tmp_path, "step", {}, make, resumes) == final
    assert found == ([[], ["part1"], ["part1", "part2"]] if resumes else [[], [], []])
    parts = {"part1", "part2", "part3"} if resumes else {"part3"}
    assert {path.name for path in final.iterdir()} == parts | {
        "recipe.json",
        "seconds",
        "sums.json",
    }


def test_two_processes_make_an_artefact_once(tmp_path):
    """The second waits, says so and finds what the first made; one that was killed while it held the lock holds nobody up."""
    code = """
import pathlib, sys, time
from vgeo.artefacts import artefact
def make(folder):
    with open(sys.argv[1] + "/made", "a") as file:
        file.write("x")
    while not pathlib.Path(sys.argv[1], sys.argv[2]).exists():
        time.sleep(0.05)
    (folder / "a").write_text("whole")
print(artefact(pathlib.Path(sys.argv[1]), "step", {}, make), flush=True)
"""

    def start(until):
        return subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path), until], stdout=subprocess.PIPE, text=True
        )

    def makes():
        return (tmp_path / "made").read_text() if (tmp_path / "made").exists() else ""

    killed = start("never")
    while not makes():
        time.sleep(0.05)
    killed.kill()
    killed.wait()
    killed.stdout.close()
    first = start("go")
    while makes() != "xx":
        time.sleep(0.05)
    second = start("go")
    assert "another run is making it; waits for it" in second.stdout.readline()
    (tmp_path / "go").touch()
    one, other = (process.communicate(timeout=60)[0] for process in (first, second))
    assert makes() == "xx" and one == other and one.strip().endswith(key({}))
    assert (tmp_path / "step" / key({}) / "a").read_text() == "whole"


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(VgeoError, match="can't be written.*Not a directory") as caught:
        artefact(tmp_path / "file", "step", {}, lambda folder: None)
    assert str(tmp_path / "file") in str(caught.value) and "\n" not in str(caught.value)
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    if not os.access(closed, os.W_OK):  # not for root
        with pytest.raises(VgeoError, match="can't be written.*Permission denied"):
            artefact(closed, "step", {}, lambda folder: None)


def test_checkpoints_come_back(tmp_path):
    def parts():
        layer = torch.nn.Linear(3, 2)
        return layer, torch.optim.Adam(layer.parameters(), lr=0.1)

    layer, optimizer = parts()
    assert Checkpoint(tmp_path / "c.pt", layer=layer).load() == {}
    layer(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    values = {"iteration": 7, "log": [[1, 0.5, None]], "weights": {"a": torch.ones(2)}}
    Checkpoint(tmp_path / "c.pt", layer=layer, optimizer=optimizer).save(**values)
    again, adam = parts()
    saved = Checkpoint(tmp_path / "c.pt", layer=again, optimizer=adam).load()
    assert torch.equal(saved.pop("weights")["a"], torch.ones(2))
    assert saved == {"iteration": 7, "log": [[1, 0.5, None]]}
    assert torch.equal(again.weight, layer.weight)
    assert torch.equal(
        adam.state[again.weight]["exp_avg"], optimizer.state[layer.weight]["exp_avg"]
    )
    assert [path.name for path in tmp_path.iterdir()] == ["c.pt"]
