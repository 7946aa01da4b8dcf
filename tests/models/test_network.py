"""The network against torchvision, timm and closed formulas."""

import copy
import json
from functools import partial

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

from vgeo.errors import VgeoError
from vgeo.models.network import BACKBONES, Depthwise, build, freeze, normalise, trunk_hash
from vgeo.models.weights import CITY_WEIGHTS, read_weights

THEIRS = {
    "resnet18": torchvision.models.resnet18,
    "resnet50": torchvision.models.resnet50,
    "efficientnet_v2_s": torchvision.models.efficientnet_v2_s,
    "efficientnet_lite0": partial(timm.create_model, "tf_efficientnet_lite0"),
}
CLASSIFIER = {
    "resnet18": 512 * 1000 + 1000,
    "resnet50": 2048 * 1000 + 1000,
    "efficientnet_v2_s": 1280 * 1000 + 1000,
    "efficientnet_lite0": 1280 * 1000 + 1000,
}


@pytest.fixture(scope="module", params=list(BACKBONES))
def model(request):
    """For the tests that change nothing in it."""
    torch.manual_seed(0)
    return build(request.param).eval()


def images(size=64, batch=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (batch, 3, size, size), generator=generator, dtype=torch.uint8)


@torch.no_grad()
def test_descriptors_are_float32_of_unit_length(model):
    for height, width, batch in [(64, 64, 3), (48, 100, 1)]:
        descriptors = model(torch.randn(batch, 3, height, width))
        assert descriptors.shape == (batch, 512) and descriptors.dtype == torch.float32
        torch.testing.assert_close(descriptors.norm(dim=1), torch.ones(batch))


@torch.no_grad()
def test_features_are_torchvisions_or_timms(model):
    net = THEIRS[model.backbone_name]().eval()
    ours = list(model.backbone.state_dict().values())
    names = [name for name in net.state_dict() if not name.startswith(("fc", "classifier"))]
    net.load_state_dict(dict(zip(names, ours, strict=True)), strict=False)
    seen = []
    lite0 = model.backbone_name == "efficientnet_lite0"
    pool = net.global_pool if lite0 else net.avgpool
    pool.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    batch = images()
    net((batch.float() - 127) / 128 if lite0 else normalise(batch))
    torch.testing.assert_close(model.features(normalise(batch)), seen[0])


@torch.no_grad()
def test_the_head_is_its_formula(model):
    batch = normalise(images())
    x = model.features(batch).double().numpy()
    head = {name: value.double().numpy() for name, value in model.aggregation.state_dict().items()}
    x = x / np.linalg.norm(x, axis=1, keepdims=True)
    x = (np.maximum(x, 1e-6) ** 3).mean(axis=(2, 3)) ** (1 / 3)
    x = x @ head["3.weight"].T + head["3.bias"]
    expected = x / np.linalg.norm(x, axis=1, keepdims=True)
    np.testing.assert_allclose(model(batch), expected, atol=1e-4)


def test_names_and_counts(model):
    """The names of the public CosPlace code, and others' parameters less their classifier's."""
    names = list(model.state_dict())
    first = {
        "resnet18": "backbone.0.weight",
        "resnet50": "backbone.0.weight",
        "efficientnet_v2_s": "backbone.0.0.0.weight",
        "efficientnet_lite0": "backbone.0.0.1.weight",
    }
    assert names[0] == first[model.backbone_name]
    head = ["aggregation.1.p", "aggregation.3.weight", "aggregation.3.bias"]
    assert [name for name in names if not name.startswith("backbone.")] == head
    net = THEIRS[model.backbone_name]()
    count = sum(p.numel() for p in model.backbone.parameters())
    assert count == sum(p.numel() for p in net.parameters()) - CLASSIFIER[model.backbone_name]


@torch.no_grad()
def test_the_head_stays_in_float32_under_autocast(model):
    batch = normalise(images())
    expected = model(batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert model.features(batch).dtype == torch.bfloat16
        descriptors = model(batch)
    assert descriptors.dtype == torch.float32
    torch.testing.assert_close(descriptors.norm(dim=1), torch.ones(2))  # bfloat16: 4e-3 off
    assert F.cosine_similarity(descriptors, expected).min() > 0.98


@pytest.mark.parametrize("name", BACKBONES)
def test_gradients_reach_everything_that_is_trained(name):
    model = build(name)
    freeze(model)
    (model(normalise(images(32))) * torch.randn(2, 512)).sum().backward()
    for parameter, tensor in model.named_parameters():
        assert (tensor.grad is not None) == tensor.requires_grad, parameter
        assert tensor.grad is None or tensor.grad.isfinite().all(), parameter


TRAINED = {
    "resnet18": ("layer3.", "layer4."),
    "resnet50": ("layer3.", "layer4."),
    "efficientnet_v2_s": ("features.6.", "features.7."),
    "efficientnet_lite0": ("blocks.4.", "blocks.5.", "blocks.6.", "conv_head.", "bn2."),
}


@pytest.mark.parametrize(("name", "trained"), TRAINED.items())
def test_freezing(name, trained):
    model, net = build(name), THEIRS[name]()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    freeze(model)
    expected = sum(p.numel() for key, p in net.named_parameters() if key.startswith(trained))
    assert sum(p.numel() for p in model.backbone.parameters() if p.requires_grad) == expected
    assert all(p.requires_grad for p in model.aggregation.parameters())
    model.train()(normalise(images(32)))
    after = model.state_dict()
    changed = [key for key in after if not torch.equal(after[key], before[key])]
    statistics = {"running_mean", "running_var", "num_batches_tracked"}
    assert {key.rsplit(".", 1)[1] for key in changed} == statistics
    numbers = {int(key.split(".")[1 if name in ("resnet18", "resnet50") else 2]) for key in changed}
    # of the stages: the trunk's statistics stay as they were
    assert numbers == ({5, 6, 7} if name == "efficientnet_lite0" else {6, 7})


@pytest.mark.parametrize("name", BACKBONES)
def test_kept_statistics_stay_and_the_weights_beside_them_train(name):
    plain, model = build(name), build(name)
    model.load_state_dict(plain.state_dict())
    freeze(plain)
    freeze(model, keep_statistics=True)
    trained = [[p.requires_grad for p in each.parameters()] for each in (plain, model)]
    assert trained[0] == trained[1] and any(trained[0])
    before = copy.deepcopy(model.state_dict())
    model.train()(normalise(images(32))).sum().backward()
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    assert not any(module.training for module in norms) and model.aggregation.training
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.requires_grad)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("under_autocast", [False, True])
def test_a_depthwise_convolution_is_a_convolution(stride, under_autocast):
    torch.manual_seed(0)
    options = {"stride": stride, "padding": 1, "groups": 6, "bias": False}
    plain, ours = nn.Conv2d(6, 6, 3, **options), Depthwise(6, 6, 3, **options)
    ours.load_state_dict(plain.state_dict())
    seen = []
    for layer in (plain, ours):
        maps = torch.randn(2, 6, 9, 11, generator=torch.Generator().manual_seed(1))
        maps = maps.to(memory_format=torch.channels_last).requires_grad_()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=under_autocast and layer is ours):
            found = layer(maps)
        assert found.dtype == torch.float32
        (found * torch.arange(11 // stride + stride - 1).float()).sum().backward()
        seen.append((found, maps.grad, layer.weight.grad))
    for theirs, mine in zip(*seen, strict=True):
        torch.testing.assert_close(mine, theirs)
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
        described = ours(maps)
    assert described.dtype == torch.bfloat16
    ours.requires_grad_(False)  # a frozen layer of an image makes no gradient either
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert ours(maps.detach()).dtype == torch.bfloat16
        assert ours(maps).dtype == torch.float32  # but the way back to a warped image does
    torch.testing.assert_close(described.float(), seen[0][0], atol=0.02, rtol=0.02)


def test_which_convolutions_are_depthwise(model):
    """All convolutions of one filter a channel, but timm's that pad to the stride themselves."""
    convolutions = [each for each in model.modules() if isinstance(each, nn.Conv2d)]
    ours = [each for each in convolutions if type(each) is Depthwise]
    assert all(each.groups == each.in_channels for each in ours)
    others = [each for each in convolutions if each.groups > 1 and each not in ours]
    assert {type(each).__name__ for each in others} <= {"Conv2dSame"}
    counts = {"resnet18": 0, "resnet50": 0, "efficientnet_v2_s": 30, "efficientnet_lite0": 12}
    assert len(ours) == counts[model.backbone_name]


@torch.no_grad()
def test_a_model_is_its_trunk_its_upper_stages_and_its_head(model):
    batch = normalise(images())
    assert torch.equal(model.head(model.upper(model.trunk(batch))), model(batch))
    assert torch.equal(model.upper(model.trunk(batch)), model.features(batch))
    stride, channels = {
        "resnet18": (8, 128),
        "resnet50": (8, 512),
        "efficientnet_v2_s": (16, 160),
        "efficientnet_lite0": (16, 80),
    }[model.backbone_name]
    maps = model.trunk(torch.zeros(1, 3, 64, 96))
    assert maps.shape == (1, channels, 64 // stride, 96 // stride)
    assert model.upper(maps).shape == (1, BACKBONES[model.backbone_name].channels, 2, 3)


def test_models_that_share_a_trunk_have_one_hash(model):
    other = build(model.backbone_name)
    assert trunk_hash(other) != trunk_hash(model)
    other.load_state_dict(model.state_dict())
    with torch.no_grad():
        other.aggregation[3].weight.add_(1)
        next(other.stages[6].parameters()).add_(1)
    assert trunk_hash(other) == trunk_hash(model)
    with torch.no_grad():
        next(other.stages[0].parameters()).add_(1)
    assert trunk_hash(other) != trunk_hash(model)


def test_normalise():
    batch = images(8)
    expected = torchvision.transforms.functional.normalize(
        batch / 255, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    )
    torch.testing.assert_close(normalise(batch), expected, atol=1e-5, rtol=1e-5)
    with pytest.raises(VgeoError, match="float32, not uint8"):
        normalise(expected)


def test_an_unknown_backbone():
    message = f"^unknown backbone 'vgg16': use one of {', '.join(BACKBONES)}$"
    with pytest.raises(VgeoError, match=message):
        build("vgg16")


def test_a_backbone_without_city_weights(refused):
    words = "efficientnet_lite0 has no", "resnet18 and efficientnet_v2_s have", '"imagenet"'
    refused(lambda: build("efficientnet_lite0", "city"), *words)


@pytest.mark.parametrize("backbone", ["resnet18", "efficientnet_v2_s"])
def test_city_weights_are_the_packaged_file_and_its_recipe(backbone):
    path = CITY_WEIGHTS / f"{backbone}.safetensors"
    stored, state = read_weights(path), build(backbone, "city").state_dict()
    assert stored.keys() == state.keys()
    for name, value in state.items():
        assert torch.equal(value, stored[name].to(value.dtype)), name
    assert json.loads(path.with_suffix(".json").read_text())["backbone"] == backbone
