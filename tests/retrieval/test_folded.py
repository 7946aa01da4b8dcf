"""Networks with folded BatchNorms against the networks themselves."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from vgeo.models.geowarp import GRID, Regression
from vgeo.models.network import BACKBONES, build, folded
from vgeo.models.weights import weights_hash
from vgeo.retrieval.describe import describe, describe_stored, store_trunk


def settled(model, *inputs):
    """The model in evaluation mode, with random BatchNorm weights, and with statistics that lie at
    random around those of the inputs, so that its answers depend on what it is given.
    """
    layers = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in layers:
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias, std=0.3)
        norm.momentum = None  # takes the statistics of what it sees next
    with torch.no_grad():
        model.train()(*inputs)
        for norm in layers:
            norm.running_mean += 0.1 * norm.running_var.sqrt() * torch.randn(norm.num_features)
            norm.running_var *= torch.empty(norm.num_features).uniform_(0.8, 1.25)
    return model.eval()


def norms(model):
    return sum(isinstance(module, nn.BatchNorm2d) for module in model.modules())


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return settled(build("efficientnet_lite0"), torch.randn(4, 3, 64, 48))


@torch.no_grad()
@pytest.mark.parametrize("backbone", list(BACKBONES))
def test_folding_is_exact_but_for_rounding(backbone):
    # In float64, because a random network magnifies rounding, EfficientNetV2-S a million times. A
    # wrong folding changes the maps by about their own size.
    torch.manual_seed(0)
    images = torch.randn(4, 3, 64, 48)
    model = settled(build(backbone), images).double()
    before, images = weights_hash(model), images.double()
    assert norms(model) > 19 and norms(folded(model)) == 0
    expected = model.features(images)
    size = expected.std().item()
    assert (expected[0] - expected[1]).abs().max() > 0.1 * size  # maps depend on the images
    found = folded(model).features(images)
    torch.testing.assert_close(found, expected, atol=1e-6 * size, rtol=0)
    assert weights_hash(model) == before and not model.training


@torch.no_grad()
@pytest.mark.parametrize(
    "backbone, weights",
    [("resnet18", "city"), ("efficientnet_v2_s", "city"), ("efficientnet_lite0", "imagenet")],
)
def test_descriptors_by_trained_weights_change_by_rounding_alone(backbone, weights):
    torch.manual_seed(0)
    model, images = build(backbone, weights).eval(), torch.randn(3, 3, 64, 48)
    torch.testing.assert_close(folded(model)(images), model(images), atol=1e-5, rtol=0)


def test_a_model_in_training_stays_in_training(model):
    trained = copy.deepcopy(model).train()
    assert not any(module.training for module in folded(trained).modules())
    once = folded(trained)
    assert folded(once) is once and folded(trained) is not once
    assert all(module.training for module in trained.modules())


@torch.no_grad()
def test_a_folded_regression_gives_the_same_quadrilaterals():
    torch.manual_seed(0)
    a, b = nn.functional.normalize(torch.randn(2, 4, 6, GRID, GRID), dim=2)
    regression = settled(Regression(), a, b)
    nn.init.normal_(regression.linear.weight, std=0.03)
    expected = regression(a, b)
    assert norms(folded(regression)) == 0 and (expected[0] - expected[1]).abs().max() > 1e-3
    torch.testing.assert_close(folded(regression)(a, b), expected, atol=1e-5, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("kind", [nn.Module, nn.Sequential])
def test_a_block_that_may_run_in_another_order_is_left_as_it_is(kind):
    class Crossed(kind):
        """Its BatchNorm is listed after the convolution and runs before it."""

        def __init__(self):
            super().__init__()
            self.layer, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

        def forward(self, images):
            return self.layer(self.norm(images))

    images = torch.randn(2, 3, 4, 4)
    model = settled(nn.Sequential(Crossed()), images)
    torch.testing.assert_close(folded(model)(images), model(images))


def test_descriptions_come_from_folded_networks(model, make_photos, tmp_path, monkeypatch):
    paths = [str(path) for path in make_photos(tmp_path, [552_000.0, 552_001.0])]

    def refuse(*_, **__):
        raise AssertionError("a BatchNorm has run")

    monkeypatch.setattr(nn.functional, "batch_norm", refuse)
    found = describe(model, paths, 48)
    store_trunk(model, paths, tmp_path / "trunk.npy", 48)
    stored = describe_stored(model, np.load(tmp_path / "trunk.npy"))
    assert np.abs(stored - found).max() < 1e-2
