"""The models against torchvision and closed formulas; the weights files, whole, damaged and of other models."""

import http.client
import json
import os
import pickle
import urllib.error
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

from vgeo import models
from vgeo.errors import VgeoError
from vgeo.models import BACKBONES, build, freeze, load_weights, normalise, save_weights, trunk_hash, weights_hash

TORCHVISION = {"resnet18": torchvision.models.resnet18, "efficientnet_v2_s": torchvision.models.efficientnet_v2_s}
CLASSIFIER = {"resnet18": 512 * 1000 + 1000, "efficientnet_v2_s": 1280 * 1000 + 1000}


@pytest.fixture(scope="module", params=list(BACKBONES))
def model(request):
    """For the tests that change nothing in it."""
    torch.manual_seed(0)
    return build(request.param).eval()


@pytest.fixture
def small():
    """A module for the tests of files, in which nothing depends on the network."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))


def images(size=64, batch=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (batch, 3, size, size), generator=generator, dtype=torch.uint8)


def assert_equal(state, other):
    assert state.keys() == other.keys()
    for name, tensor in state.items():
        assert tensor.dtype == other[name].dtype and torch.equal(tensor, other[name]), name


def fails(path, function, *args):
    """The message of the VgeoError: one line that names the file."""
    with pytest.raises(VgeoError) as error:
        function(*args)
    message = str(error.value)
    assert str(path) in message and "\n" not in message
    return message


@torch.no_grad()
def test_descriptors(model):
    for height, width, batch in [(64, 64, 3), (48, 100, 1)]:
        descriptors = model(torch.randn(batch, 3, height, width))
        assert descriptors.shape == (batch, 512) and descriptors.dtype == torch.float32
        torch.testing.assert_close(descriptors.norm(dim=1), torch.ones(batch))


@torch.no_grad()
def test_features_are_torchvisions(model):
    net = TORCHVISION[model.backbone_name]().eval()
    ours = list(model.backbone.state_dict().values())
    names = [name for name in net.state_dict() if not name.startswith(("fc", "classifier"))]
    assert len(names) == len(ours)
    net.load_state_dict(dict(zip(names, ours)), strict=False)
    seen = []
    net.avgpool.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    batch = normalise(images())
    net(batch)
    assert torch.equal(model.features(batch), seen[0])


@torch.no_grad()
def test_head_is_the_formula(model):
    batch = normalise(images())
    x = model.features(batch).double().numpy()
    head = {name: tensor.double().numpy() for name, tensor in model.aggregation.state_dict().items()}
    x = x / np.linalg.norm(x, axis=1, keepdims=True)
    x = (np.maximum(x, 1e-6) ** 3).mean(axis=(2, 3)) ** (1 / 3)
    x = x @ head["3.weight"].T + head["3.bias"]
    np.testing.assert_allclose(model(batch), x / np.linalg.norm(x, axis=1, keepdims=True), atol=1e-5)


def test_names_and_counts(model):
    """The names of the public CosPlace code's checkpoints, and torchvision's parameters less its classifier's."""
    names = list(model.state_dict())
    first = {"resnet18": "backbone.0.weight", "efficientnet_v2_s": "backbone.0.0.0.weight"}[model.backbone_name]
    assert names[0] == first
    head = ["aggregation.1.p", "aggregation.3.weight", "aggregation.3.bias"]
    assert [name for name in names if not name.startswith("backbone.")] == head
    net = TORCHVISION[model.backbone_name]()
    count = sum(p.numel() for p in model.backbone.parameters())
    assert count == sum(p.numel() for p in net.parameters()) - CLASSIFIER[model.backbone_name]


@torch.no_grad()
def test_autocast(model):
    batch = normalise(images())
    expected = model(batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert model.features(batch).dtype == torch.bfloat16
        descriptors = model(batch)
    assert descriptors.dtype == torch.float32
    torch.testing.assert_close(descriptors.norm(dim=1), torch.ones(2), atol=1e-6, rtol=0)
    assert F.cosine_similarity(descriptors, expected).min() > 0.99


def test_gradients_reach_everything_that_is_trained():
    for name in BACKBONES:
        model = build(name)
        freeze(model)
        (model(normalise(images(32))) * torch.randn(2, 512)).sum().backward()
        for parameter, tensor in model.named_parameters():
            assert (tensor.grad is not None) == tensor.requires_grad, parameter
            assert tensor.grad is None or tensor.grad.isfinite().all(), parameter


@pytest.mark.parametrize(
    ("name", "trained"), [("resnet18", ("layer3.", "layer4.")), ("efficientnet_v2_s", ("features.6.", "features.7."))]
)
def test_freezing(name, trained):
    model, net = build(name), TORCHVISION[name]()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    freeze(model)
    expected = sum(p.numel() for key, p in net.named_parameters() if key.startswith(trained))
    assert sum(p.numel() for p in model.backbone.parameters() if p.requires_grad) == expected
    assert all(p.requires_grad for p in model.aggregation.parameters())
    model.train()(normalise(images(32)))
    changed = [key for key, value in model.state_dict().items() if not torch.equal(value, before[key])]
    assert {key.rsplit(".", 1)[1] for key in changed} == {"running_mean", "running_var", "num_batches_tracked"}
    numbers = {int(key.split(".")[1 if name == "resnet18" else 2]) for key in changed}
    assert numbers == {6, 7}  # of the stages: the trunk's statistics stay as they were


def test_a_model_is_its_trunk_its_upper_stages_and_its_head(model):
    batch = normalise(images())
    with torch.no_grad():
        assert torch.equal(model.head(model.upper(model.trunk(batch))), model(batch))
        assert torch.equal(model.upper(model.trunk(batch)), model.features(batch))
        strides = {"resnet18": (8, 128), "efficientnet_v2_s": (16, 160)}
        stride, channels = strides[model.backbone_name]
        assert model.trunk(torch.zeros(1, 3, 64, 96)).shape == (1, channels, 64 // stride, 96 // stride)


def test_models_that_share_a_trunk_have_one_hash(model):
    other = build(model.backbone_name)
    assert trunk_hash(other) != trunk_hash(model)
    other.load_state_dict(model.state_dict())
    with torch.no_grad():
        other.aggregation[3].weight.add_(1)
        other.stages[7][0].weight.add_(1) if model.backbone_name != "resnet18" else other.stages[7][0].conv1.weight.add_(1)
    assert trunk_hash(other) == trunk_hash(model)
    with torch.no_grad():
        next(other.stages[0].parameters()).add_(1)
    assert trunk_hash(other) != trunk_hash(model)
