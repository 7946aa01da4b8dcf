"""The training loop: what it trains, what it leaves, and trainings that are stopped and go on."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from vgeo.models.network import build, freeze
from vgeo.models.weights import load_weights
from vgeo.photos.places import Classes, open_dataset
from vgeo.photos.tables import read_photos
from vgeo.retrieval.describe import describe
from vgeo.retrieval.metrics import first_hit, recall
from vgeo.retrieval.search import search
from vgeo.training import augment
from vgeo.training.batches import batches, live_views
from vgeo.training.loop import Pace, Recipe, Task, run, train_extractor
from vgeo.training.losses import MARGINS, AngularMarginLoss

SIDE, CLASSES = 32, 4
EVERY = Pace(log_every=3, checkpoint_seconds=0)
CENTRES = np.random.default_rng(8).normal(size=(CLASSES, 512)).astype(np.float32)
SETTINGS = pytest.mark.parametrize("setting", [False, True])


class Killed(BaseException):
    pass


# Any task


class Walk(torch.nn.Module):
    """Follows random targets; stops at an iteration as a killed process would."""

    def __init__(self, stop=None):
        super().__init__()
        self.place, self.stop = torch.nn.Parameter(torch.zeros(3)), stop

    def forward(self, iteration, target):
        if iteration == self.stop:
            raise Killed
        loss = (self.place - target - torch.rand(3)).square().sum()
        return loss, {"loss": loss.detach(), "iteration seen": torch.tensor(float(iteration))}


def walk(folder, stop=None, iterations=10, momentum=0.9):
    """The place after a walk, its log, and what its evaluations kept."""
    step = Walk(stop)

    def evaluate(iteration, kept):
        kept.setdefault("places", []).append(step.place.tolist())
        return {"at": iteration}

    def targets(first):
        return ((torch.full((3,), float(i)),) for i in range(first, iterations))

    task = Task(
        step,
        [torch.optim.SGD(step.parameters(), lr=0.1, momentum=momentum)],
        targets,
        iterations,
        epoch=4,
        precision="float32",
        advice="walk slowly",
        seed=7,
        rate=lambda iteration: 1 / (1 + iteration),
        evaluate=evaluate,
    )
    log, kept = run(task, folder / "checkpoint.pt", "walk", EVERY)
    return step.place.detach(), log, kept


def test_a_walk_by_hand(tmp_path):
    """Each step is its rate times the gradient; rows are means of what lies between them."""
    place, log, kept = walk(tmp_path, momentum=0.0)
    expected, losses, places = np.zeros(3), [], [[0.0, 0.0, 0.0]]
    for i in range(10):
        torch.manual_seed(7 * 1_000_003 + i)
        apart = expected - i - torch.rand(3).numpy()
        losses.append((apart**2).sum())
        expected = expected - 0.1 / (1 + i) * 2 * apart
        places += [expected.tolist()] if i in (3, 7, 9) else []
    np.testing.assert_allclose(place, expected, rtol=1e-5)
    np.testing.assert_allclose(kept["places"], places, rtol=1e-5)
    assert [row["iteration"] for row in log] == [0, 3, 4, 6, 8, 9, 10]
    assert [row.get("at") for row in log] == [0, None, 4, None, 8, None, 10]
    assert log[0] == {"iteration": 0, "at": 0}
    for (first, last), row in zip([(0, 3), (3, 4), (4, 6), (6, 8), (8, 9)], log[1:], strict=False):
        assert row["loss"] == pytest.approx(np.mean(losses[first:last]), rel=1e-5)
        assert row["iteration seen"] == pytest.approx(np.mean(range(first, last)), abs=1e-5)
        assert row["seconds"] >= 0


@pytest.mark.parametrize("stops", [[0], [2], [3], [4], [9], [1, 5, 8]], ids=str)
def test_a_walk_that_was_stopped_ends_the_same(tmp_path, stops):
    (tmp_path / "whole").mkdir()
    place, log, kept = walk(tmp_path / "whole")
    for stop in stops:
        with pytest.raises(Killed):
            walk(tmp_path, stop)
    again, other_log, other_kept = walk(tmp_path)
    assert torch.equal(again, place) and other_kept == kept
    for row in (*log, *other_log):
        row.pop("seconds", None)
    assert other_log == log


def test_a_finished_walk_does_not_walk_again(tmp_path):
    place, log, _ = walk(tmp_path)
    again, other_log, _ = walk(tmp_path, stop=0)
    assert torch.equal(again, place) and other_log == log


# An extractor


def recipe(**change):
    values = {
        "backbone": "resnet18",
        "weights": "start",
        "margin": "CosFace",
        "image_size": SIDE,
        "epochs": 2,
        "iterations": 5,
        "batch_size": 3,
        "lr_model": 1e-3,
        "lr_classifier": 0.01,
        "seed": 1,
        "precision": "float32",
    }
    return Recipe(**values | change)


def recall_of(val):
    def validate(model):
        found = [describe(model, photos.paths, SIDE) for photos in (val.database, val.queries)]
        return recall(first_hit(search(*found, 1)[0], val.positives), 1)

    return validate


def train(one, streets, folder, validate=None, stop=None, **options):
    """`train_extractor`, decoded and augmented as it goes; returns the iterations it saw.

    stop: the views end in a Killed at this iteration.
    """
    folder.mkdir(exist_ok=True)
    seen, classes = [], streets.classes
    if one.class_means:
        options = {"centres": CENTRES} | options
    total = one.epochs * one.iterations
    rows = batches(classes.labels, one.batch_size, 0, total, one.seed)
    paths = np.array(classes.photos.paths)

    def views(model, first):
        each = live_views(model, paths, rows, SIDE, one.seed, first, one.precision)
        for iteration, view in enumerate(each, first):
            if iteration == stop:
                raise Killed
            seen.append(iteration)
            yield view

    validate, options = validate or recall_of(streets.val), {"pace": EVERY} | options
    try:
        train_extractor(one, streets.start, classes, validate, folder, views, **options)
    except Killed:
        return seen
    assert stop is None
    return seen


@pytest.fixture(scope="module")
def uninterrupted(streets, tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted")
    assert train(recipe(), streets, folder, pace=Pace(3)) == list(range(10))
    return folder


def test_a_training_leaves_weights_a_recipe_and_a_log(streets, uninterrupted):
    names = sorted(path.name for path in uninterrupted.iterdir())
    assert names == ["log.csv", "model.json", "model.safetensors"]
    log = pd.read_csv(uninterrupted / "log.csv")
    columns = ["iteration", "loss", "images_per_second", "seconds", "val_R@1"]
    assert list(log.columns) == columns
    assert list(log["iteration"]) == [0, 3, 5, 6, 9, 10]  # every 3, and at an epoch's end
    assert list(log["val_R@1"].isna()) == [False, True, False, True, True, False]
    assert log.loc[0, columns[1:4]].isna().all()
    assert log["loss"][1:].between(0, 30).all() and log["images_per_second"][1:].gt(0).all()
    assert log["val_R@1"].dropna().isin(np.arange(CLASSES + 1) * 100 / CLASSES).all()
    start = recall_of(streets.val)(load_weights(build("resnet18"), streets.start))
    assert log["val_R@1"][0] == start
    saved, best = json.loads((uninterrupted / "model.json").read_text()), log["val_R@1"].idxmax()
    kept = {"val_R@1": log["val_R@1"][best], "iteration": log["iteration"][best]}
    assert saved == recipe().as_dict() | kept


def same(folder, other):
    ours, theirs = (load_file(each / "model.safetensors") for each in (folder, other))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert (folder / "model.json").read_text() == (other / "model.json").read_text()
    columns = ["iteration", "loss", "val_R@1"]
    logs = [pd.read_csv(each / "log.csv")[columns] for each in (folder, other)]
    pd.testing.assert_frame_equal(*logs)
    assert not list(folder.glob("*checkpoint*"))


def killed_at(call, real):
    """A validation that is killed in its `call`-th call."""
    calls = []

    def validate(model):
        calls.append(1)
        if len(calls) == call:
            raise Killed
        return real(model)

    return validate


@pytest.mark.slow
def test_a_stopped_training_goes_on_to_the_same_weights(streets, uninterrupted, tmp_path):
    """Stopped before its first checkpoint, between two, at an epoch's end and after its last."""
    folder, validate = tmp_path / "stopped", recall_of(streets.val)
    assert train(recipe(), streets, folder, killed_at(1, validate)) == []
    assert train(recipe(), streets, folder, stop=2) == [0, 1]
    assert train(recipe(), streets, folder, stop=4) == [0, 1, 2, 3]  # nothing was saved; now row 3
    assert train(recipe(), streets, folder, killed_at(1, validate)) == [3, 4]
    assert train(recipe(), streets, folder, stop=7) == [3, 4, 5, 6]  # saved at 5 and 6
    (folder / "model.safetensors").mkdir()  # the weights can't be written
    with pytest.raises(OSError):
        train(recipe(), streets, folder)
    (folder / "model.safetensors").rmdir()
    assert train(recipe(), streets, folder) == []  # nothing is left to train
    same(folder, uninterrupted)


def main(folder):
    """What the test below kills: the second checkpoint is never renamed."""
    real, calls = torch.save, []

    def save(what, path):
        real(what, path)
        calls.append(path)
        if len(calls) == 2:
            os.kill(os.getpid(), signal.SIGKILL)

    torch.save = save
    photos = read_photos(folder / "train")
    streets = type("Streets", (), {})()
    streets.classes = Classes(photos, np.repeat(np.arange(CLASSES), 3), (0, 0, 0))
    streets.val = open_dataset("val", folder / "queries", folder / "database")
    streets.start = folder / "start.safetensors"
    train(recipe(), streets, Path(sys.argv[2]))


@pytest.mark.slow
def test_a_training_killed_while_it_writes_goes_on(streets, uninterrupted, tmp_path):
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, __file__, str(streets.start.parent), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == -signal.SIGKILL, done.stderr
    names = sorted(path.name for path in tmp_path.iterdir())
    assert len(names) == 2 and names[0].endswith(".tmp") and names[1] == "checkpoint.pt"
    assert train(recipe(), streets, tmp_path) == list(range(3, 10))
    same(tmp_path, uninterrupted)


@pytest.mark.parametrize(
    "scores, best",
    [([40, 70, 70], 1), ([80, 70, 80], 0), ([50, 50, 50], 0)],
    ids=["an epoch", "the start", "all equal"],
)
def test_what_validates_best_is_kept(streets, tmp_path, scores, best):
    """The start is a candidate; of equals, the earlier is kept."""
    states = []

    def validate(model):
        states.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
        return scores[len(states) - 1]

    train(recipe(epochs=2, iterations=1), streets, tmp_path, validate)
    assert list(pd.read_csv(tmp_path / "log.csv")["val_R@1"]) == scores
    kept = load_file(tmp_path / "model.safetensors")
    equal = [all(torch.equal(kept[name], state[name]) for name in kept) for state in states]
    assert equal == [number == best for number in range(3)]
    saved = json.loads((tmp_path / "model.json").read_text())
    assert saved["val_R@1"] == scores[best] and saved["iteration"] == best


class Normed(torch.nn.Module):
    """A technique with a BatchNorm of its own."""

    def __init__(self):
        super().__init__()
        self.norm = torch.nn.BatchNorm2d(512)

    def loss(self, model, source, target, iteration):
        return self.norm(source).square().mean(), {}


@SETTINGS
def test_early_layers_stay_and_late_ones_learn(streets, tmp_path, setting):
    """BatchNorm's statistics of the trained stages stay as well, if the recipe says so."""
    scores, extra = iter([0, 1]), Normed()
    one = recipe(epochs=1, iterations=2, keeps_statistics=setting)
    options = {"extra": extra, "extra_rate": 1e-3}
    train(one, streets, tmp_path, lambda model: next(scores), **options)
    before, after = load_file(streets.start), load_file(tmp_path / "model.safetensors")
    model = build("resnet18")
    freeze(model)
    trained = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    assert set(trained.values()) == {True, False}
    for name, learns in trained.items():
        assert torch.equal(before[name], after[name]) != learns, name
    frozen, free = "backbone.1.running_mean", "backbone.6.0.bn1.running_mean"
    assert torch.equal(before[frozen], after[frozen])
    assert torch.equal(before[free], after[free]) == setting
    own = load_file(tmp_path / "extra.safetensors")
    assert own["norm.running_mean"].abs().max() > 0  # a technique's statistics move


def test_batchnorm_shared_by_gpus_keeps_the_model():
    """What GPUs train instead has the names, parameters, modes and values of the model."""
    torch.manual_seed(0)
    model, images = build("resnet18"), torch.randn(2, 3, SIDE, SIDE)
    freeze(model)
    before = model.state_dict()
    modes = [module.training for module in model.modules()]
    parameters, expected = list(model.parameters()), model.eval()(images)
    model.train()
    shared = torch.nn.SyncBatchNorm.convert_sync_batchnorm(model)
    assert shared is model and list(model.state_dict()) == list(before)
    kinds = {type(module) for module in model.modules()}
    assert torch.nn.SyncBatchNorm in kinds and torch.nn.BatchNorm2d not in kinds
    assert [module.training for module in model.modules()] == modes
    assert all(a is b for a, b in zip(model.parameters(), parameters, strict=True))
    torch.testing.assert_close(model.eval()(images), expected)


@SETTINGS
def test_one_step_is_adams_on_the_loss_of_that_batch(streets, tmp_path, setting):
    """The first iteration, written out: as in the original, and with both settings of the city."""
    settings = {"class_means": setting, "keeps_statistics": setting}
    one = recipe(epochs=1, iterations=1, batch_size=CLASSES, **settings)
    classes = streets.classes
    scores = iter([0, 1])
    train(one, streets, tmp_path, lambda model: next(scores))
    torch.manual_seed(one.seed)
    model = load_weights(build("resnet18"), streets.start)
    freeze(model)
    criterion = AngularMarginLoss(512, CLASSES, MARGINS["CosFace"])
    if setting:
        criterion.weight.data = torch.tensor(CENTRES)
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.eval()
    [rows] = batches(classes.labels, CLASSES, 0, 1, one.seed)
    opened = [Image.open(classes.photos.paths[row]) for row in rows]
    photos = [photo.resize((SIDE, SIDE), Image.Resampling.BILINEAR) for photo in opened]
    pixels = torch.tensor(np.stack([np.asarray(photo) for photo in photos])).permute(0, 3, 1, 2)
    generator = torch.Generator().manual_seed(one.seed * 1_000_003)
    images = augment.original(pixels, SIDE, generator)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    loss = criterion(model(images), torch.tensor(classes.labels[rows]))
    loss.backward()
    log = pd.read_csv(tmp_path / "log.csv")
    assert log["loss"][1] == pytest.approx(loss.item(), rel=1e-4)
    name, after = "aggregation.3.weight", load_file(tmp_path / "model.safetensors")
    gradient = dict(model.named_parameters())[name].grad
    large = gradient.abs() > 1e-4  # Adam's first step is the rate times the gradient's sign
    assert large.float().mean() > 0.1
    step = (after[name] - before[name])[large]
    torch.testing.assert_close(step, -one.lr_model * gradient.sign()[large], atol=2e-6, rtol=0)


def furthest(steps):
    """How many rates a weight moves at most in so many steps of Adam, by Cauchy and Schwarz."""
    total, beta1, beta2 = 0.0, 0.9, 0.999
    for t in range(1, steps + 1):
        ages = np.arange(t)
        first = (1 - beta1) * beta1**ages / (1 - beta1**t)
        second = (1 - beta2) * beta2**ages / (1 - beta2**t)
        total += np.sqrt((first**2 / second).sum())
    return total


@pytest.mark.slow
def test_the_number_of_threads_changes_rounding_alone(streets, tmp_path):
    """The first loss is the same within rounding.

    Adam makes a step of the rate's size out of a gradient that is nothing but a rounding error, so
    that weights may differ by as much as Adam can move them.
    """
    one, threads, scores = recipe(epochs=1, iterations=3), torch.get_num_threads(), []
    try:
        for number in (1, 2):
            torch.set_num_threads(number)
            values = iter([0, 1])
            train(
                one, streets, tmp_path / str(number), lambda model, v=values: next(v), pace=Pace(1)
            )
            scores.append(pd.read_csv(tmp_path / str(number) / "log.csv")["loss"][1])
    finally:
        torch.set_num_threads(threads)
    assert scores[0] == pytest.approx(scores[1], rel=1e-4)
    ours, theirs = (load_file(tmp_path / number / "model.safetensors") for number in ("1", "2"))
    model = build("resnet18")
    for name, _ in model.named_parameters():
        apart = (ours[name] - theirs[name]).abs().max()
        assert apart <= 2 * one.lr_model * furthest(3) + 1e-6, name


def test_a_diverging_training_names_its_rate(streets, tmp_path, refused):
    one = recipe(lr_model=1e30)
    refused(
        lambda: train(one, streets, tmp_path, lambda model: 0.0, label="train ArcFace"),
        "train ArcFace",
        "not finite",
        "lower lr_model (1e+30)",
    )
    assert not (tmp_path / "model.safetensors").exists()


@pytest.mark.slow
def test_bfloat16_is_used_where_the_recipe_says(streets, tmp_path):
    losses = []
    for precision in ("float32", "bf16"):
        one, folder = recipe(epochs=1, iterations=1, precision=precision), tmp_path / precision
        train(one, streets, folder, lambda model: 0.0)
        losses.append(pd.read_csv(folder / "log.csv")["loss"][1])
    assert losses[0] != losses[1] and losses[1] == pytest.approx(losses[0], rel=0.1)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
