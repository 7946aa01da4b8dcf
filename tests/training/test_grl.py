"""Gradient reversal as a technique: what it adds to a step, and a stopped joint training."""

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from vgeo.models.network import build, freeze
from vgeo.models.weights import load_weights
from vgeo.training.batches import batches, live_views
from vgeo.training.grl import GradientReversal, Settings
from vgeo.training.loop import Pace, Recipe, train_extractor

SIDE = 32


def prepared(streets, seed=2):
    """A frozen-trunk model and the discriminator beside it."""
    model = load_weights(build("resnet18"), streets.start)
    freeze(model)
    technique = GradientReversal(Settings(weight=0.3, learning_rate=1e-3), streets.night)
    return model, technique.prepare(model, streets.classes, SIDE, seed, step=None)


def test_the_loss_reaches_the_trained_stages_reversed(streets):
    """The extractor's gradient is minus that of the weighted cross-entropy."""
    model, extra = prepared(streets)
    maps = model.upper(torch.randn(4, 128, 4, 4, generator=torch.Generator().manual_seed(5)))
    loss, shown = extra.loss(model, maps[:2], maps[2:], iteration=7)
    loss.backward(retain_graph=True)
    assert loss.item() == pytest.approx(0.3 * shown["domain_loss"].item())
    assert 0 <= shown["domain_accuracy"].item() <= 1
    for parameter in extra.parameters():
        assert parameter.grad.isfinite().all() and parameter.grad.abs().max() > 0
    assert all(parameter.grad is None for parameter in model.stages[:6].parameters())
    reversed_gradient = model.stages[7][0].conv1.weight.grad.clone()
    model.zero_grad()
    logits = extra.discriminator.layers(maps.mean((2, 3)))
    (0.3 * torch.nn.functional.cross_entropy(logits, torch.tensor([0, 0, 1, 1]))).backward()
    forward = model.stages[7][0].conv1.weight.grad
    torch.testing.assert_close(reversed_gradient, -forward)


def test_the_start_comes_from_the_seed(streets):
    states = [prepared(streets, seed)[1].state_dict() for seed in (2, 2, 3)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert not torch.equal(*(states[i]["discriminator.layers.0.weight"] for i in (0, 2)))


def test_what_the_technique_says_of_itself(streets):
    technique = GradientReversal(Settings(weight=0.5, learning_rate=2e-3), streets.night)
    assert technique.learning_rate == 2e-3 and technique.target is streets.night
    assert technique.alone("resnet18") is None
    assert technique.recipe() == {
        "weight": 0.5,
        "learning_rate": 2e-3,
        "night": streets.night.fingerprint,
    }


class Killed(BaseException):
    pass


@pytest.mark.slow
def test_a_joint_training_that_was_stopped_ends_the_same(streets, tmp_path):
    classes, scores = streets.classes, {0: 50.0, 2: 60.0, 4: 55.0}
    values = [2, 2, 3, 1e-3, 0.01, 1, "float32"]
    recipe = Recipe("resnet18", "start", "CosFace", SIDE, *values)
    rows = batches(classes.labels, 3, 0, 4, 1)
    nights = [np.arange(3) for _ in rows]

    def run(folder, stop=None):
        folder.mkdir(exist_ok=True)
        at = []

        def views(photos, rows):
            def of(model, first):
                at[:] = [first]
                paths = np.array(photos.paths)
                for view in live_views(model, paths, rows, SIDE, 1, first):
                    if stop == at[0]:
                        raise Killed
                    yield view
                    at[0] += photos is streets.night  # the last of an iteration's

            return of

        def validate(model):
            return scores[at[0] + 1 if at else 0]

        extra = prepared(streets)[1]
        train_extractor(
            recipe,
            streets.start,
            classes,
            validate,
            folder,
            views(classes.photos, rows),
            views(streets.night, nights),
            extra,
            1e-3,
            pace=Pace(2, 0),
        )

    run(tmp_path / "whole")
    with pytest.raises(Killed):
        run(tmp_path / "stopped", stop=3)
    run(tmp_path / "stopped")
    start = prepared(streets)[1].state_dict()
    for name in ("model.safetensors", "extra.safetensors"):
        one, other = (load_file(tmp_path / folder / name) for folder in ("whole", "stopped"))
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one)
    assert any(not torch.equal(start[name], one[name]) for name in one)
    log = pd.read_csv(tmp_path / "whole/log.csv")
    names = ["domain_loss", "domain_accuracy"]
    timed = ["images_per_second", "seconds"]
    assert list(log.columns) == ["iteration", "loss", *names, *timed, "val_R@1"]
    assert log[names][1:].notna().all(axis=None) and log["val_R@1"].tolist() == [50, 60, 55]
