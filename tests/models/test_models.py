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
from vgeo.models.network import BACKBONES, build, freeze, normalise, trunk_hash
from vgeo.models.weights import load_weights, save_weights, weights_hash

TORCHVISION = {
    "resnet18": torchvision.models.resnet18,
    "efficientnet_v2_s": torchvision.models.efficientnet_v2_s,
}
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
    head = {
        name: tensor.double().numpy() for name, tensor in model.aggregation.state_dict().items()
    }
    x = x / np.linalg.norm(x, axis=1, keepdims=True)
    x = (np.maximum(x, 1e-6) ** 3).mean(axis=(2, 3)) ** (1 / 3)
    x = x @ head["3.weight"].T + head["3.bias"]
    np.testing.assert_allclose(
        model(batch), x / np.linalg.norm(x, axis=1, keepdims=True), atol=1e-5
    )


def test_names_and_counts(model):
    """The names of the public CosPlace code's checkpoints, and torchvision's parameters less its classifier's."""
    names = list(model.state_dict())
    first = {"resnet18": "backbone.0.weight", "efficientnet_v2_s": "backbone.0.0.0.weight"}[
        model.backbone_name
    ]
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
    ("name", "trained"),
    [("resnet18", ("layer3.", "layer4.")), ("efficientnet_v2_s", ("features.6.", "features.7."))],
)
def test_freezing(name, trained):
    model, net = build(name), TORCHVISION[name]()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    freeze(model)
    expected = sum(p.numel() for key, p in net.named_parameters() if key.startswith(trained))
    assert sum(p.numel() for p in model.backbone.parameters() if p.requires_grad) == expected
    assert all(p.requires_grad for p in model.aggregation.parameters())
    model.train()(normalise(images(32)))
    changed = [
        key for key, value in model.state_dict().items() if not torch.equal(value, before[key])
    ]
    assert {key.rsplit(".", 1)[1] for key in changed} == {
        "running_mean",
        "running_var",
        "num_batches_tracked",
    }
    numbers = {int(key.split(".")[1 if name == "resnet18" else 2]) for key in changed}
    assert numbers == {6, 7}  # of the stages: the trunk's statistics stay as they were


def test_a_model_is_its_trunk_its_upper_stages_and_its_head(model):
    batch = normalise(images())
    with torch.no_grad():
        assert torch.equal(model.head(model.upper(model.trunk(batch))), model(batch))
        assert torch.equal(model.upper(model.trunk(batch)), model.features(batch))
        strides = {"resnet18": (8, 128), "efficientnet_v2_s": (16, 160)}
        stride, channels = strides[model.backbone_name]
        assert model.trunk(torch.zeros(1, 3, 64, 96)).shape == (
            1,
            channels,
            64 // stride,
            96 // stride,
        )


def test_models_that_share_a_trunk_have_one_hash(model):
    other = build(model.backbone_name)
    assert trunk_hash(other) != trunk_hash(model)
    other.load_state_dict(model.state_dict())
    with torch.no_grad():
        other.aggregation[3].weight.add_(1)
        other.stages[7][0].weight.add_(1) if model.backbone_name != "resnet18" else other.stages[7][
            0
        ].conv1.weight.add_(1)
    assert trunk_hash(other) == trunk_hash(model)
    with torch.no_grad():
        next(other.stages[0].parameters()).add_(1)
    assert trunk_hash(other) != trunk_hash(model)


def test_normalise():
    batch = images(8)
    expected = torchvision.transforms.functional.normalize(
        batch / 255, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    )
    torch.testing.assert_close(normalise(batch), expected, atol=1e-6, rtol=1e-5)
    with pytest.raises(VgeoError, match="float32, not uint8"):
        normalise(expected)


def test_unknown_backbone():
    with pytest.raises(
        VgeoError, match="^unknown backbone 'vgg16': use one of resnet18, efficientnet_v2_s$"
    ):
        build("vgg16")


@pytest.mark.parametrize("backbone", BACKBONES)
def test_round_trip(backbone, tmp_path):
    recipe = {"loss": "CosFace", "seed": 0, "iterations": [1, 2]}
    model = build(backbone, dim=8).to(memory_format=torch.channels_last)
    save_weights(model, tmp_path / "new" / "model.safetensors", recipe)
    again = build(backbone, tmp_path / "new" / "model.safetensors", dim=8)
    assert_equal(again.state_dict(), model.state_dict())
    assert json.loads((tmp_path / "new" / "model.json").read_text()) == recipe
    assert sorted(os.listdir(tmp_path / "new")) == ["model.json", "model.safetensors"]
    file_hash = weights_hash(tmp_path / "new" / "model.safetensors")
    assert file_hash == weights_hash(model) == weights_hash(model.state_dict())


def test_city_weights_are_stored_in_half_precision(tmp_path, monkeypatch):
    monkeypatch.setattr(models, "CITY_WEIGHTS", tmp_path)
    model = build("resnet18")
    model.backbone[1].num_batches_tracked.fill_(
        100_001
    )  # an integer that half precision cannot hold
    save_weights(model, tmp_path / "resnet18.safetensors", {}, dtype=torch.float16)
    values = sum(x.numel() for x in model.state_dict().values())
    assert (tmp_path / "resnet18.safetensors").stat().st_size < 2.1 * values
    expected = {
        name: x.half().float() if x.is_floating_point() else x
        for name, x in model.state_dict().items()
    }
    assert_equal(build("resnet18", "city").state_dict(), expected)
    assert "efficientnet_v2_s.safetensors" in fails(tmp_path, build, "efficientnet_v2_s", "city")


def test_hash_sees_every_difference(small):
    state = small.state_dict()
    expected = weights_hash(state)
    assert expected == weights_hash(dict(reversed(state.items()))) and len(expected) == 64
    others = [
        {**state, "0.bias": state["0.bias"] + 1e-6},
        {**state, "0.bias": state["0.bias"].view(torch.int32)},
        {**state, "0.weight": state["0.weight"].reshape(3, 4, 3, 3)},
        {("1.b" if name == "0.bias" else name): tensor for name, tensor in state.items()},
    ]
    assert len({expected, *map(weights_hash, others)}) == 5


def test_values_that_cannot_be_stored(small, tmp_path):
    small[1].running_var[2] = 1e6
    path = tmp_path / "w.safetensors"
    assert "1.running_var" in fails(path, save_weights, small, path, {}, torch.float16)
    assert not os.listdir(tmp_path)
    save_weights(small, path, {})
    small[0].weight.data[0, 0, 0, 0] = torch.nan
    assert "0.weight" in fails(path, save_weights, small, path, {})


def test_a_killed_save_leaves_the_old_file(small, tmp_path, monkeypatch):
    path = tmp_path / "w.safetensors"
    save_weights(small, path, {"seed": 0})
    expected = weights_hash(path)

    def killed(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(models.os, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            save_weights(build("resnet18"), path, {"seed": 1})
    assert weights_hash(path) == expected and sorted(os.listdir(tmp_path)) == [
        "w.json",
        "w.safetensors",
    ]


def test_weights_of_another_model(small, tmp_path):
    path, state = tmp_path / "w.safetensors", small.state_dict()
    before = weights_hash(state)
    cases = {
        "missing: 0.bias)": {name: x for name, x in state.items() if name != "0.bias"},
        "unexpected: extra)": {**state, "extra": torch.zeros(2)},
        "another shape: 0.bias (5,), not (4,))": {**state, "0.bias": torch.zeros(5)},
        "missing: 0.bias, 0.weight, 1.bias and 4 more; unexpected: x": {"x": torch.zeros(1)},
    }
    for expected, other in cases.items():
        save_weights(other, path, {})
        assert expected in fails(path, load_weights, small, path)
    safetensors_with_nan = {**state, "0.bias": torch.full((4,), torch.nan)}
    models.safetensors.torch.save_file(safetensors_with_nan, path)
    assert "not finite: 0.bias" in fails(path, load_weights, small, path)
    assert weights_hash(small) == before

    save_weights(build("resnet18", dim=8), path, {})
    assert "aggregation.3.weight (8, 512), not (512, 512)" in fails(path, build, "resnet18", path)
    assert "efficientnet_v2_s (missing" in fails(path, build, "efficientnet_v2_s", path)


def test_damaged_files(small, tmp_path):
    path = tmp_path / "w.safetensors"
    assert "no such weights file" in fails(path, load_weights, small, path)
    save_weights(small, path, {})
    whole = path.read_bytes()
    for content in [
        b"",
        whole[:4],
        whole[:60],
        whole[:-1],
        b"\xff" * 100,
        pickle.dumps({"a": 1}),
        b"<html></html>",
    ]:
        path.write_bytes(content)
        assert "not a whole safetensors file" in fails(path, load_weights, small, path)
    assert "not a whole safetensors file" in fails(tmp_path, load_weights, small, tmp_path)


@pytest.mark.parametrize(
    "error",
    [
        urllib.error.URLError("no network"),
        TimeoutError("timed out"),
        http.client.IncompleteRead(b""),
    ],
)
def test_imagenet_without_a_network(error, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    def unreachable(url, file, hash_prefix, **kwargs):
        assert hash_prefix in url  # what arrives is to be checked
        raise error

    monkeypatch.setattr(torch.hub, "download_url_to_file", unreachable)
    files = {
        "resnet18": "resnet18-f37072fd.pth",
        "efficientnet_v2_s": "efficientnet_v2_s-dd5fe13b.pth",
    }
    for backbone, file in files.items():
        message = fails(tmp_path / "hub" / "checkpoints" / file, build, backbone, "imagenet")
        for part in [f"https://download.pytorch.org/models/{file}", "TORCH_HOME", str(error)]:
            assert part in message


@pytest.mark.parametrize("backbone", BACKBONES)
def test_imagenet_from_torchvisions_folder(backbone, tmp_path, monkeypatch):
    """A file fetched by hand is used: the backbone is torchvision's, the head is not touched."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    net = TORCHVISION[backbone]()
    file = tmp_path / "hub" / "checkpoints" / Path(BACKBONES[backbone][1].url).name
    file.parent.mkdir(parents=True)
    torch.save(net.state_dict(), file)
    loaded, pretrained = build(backbone, "imagenet").backbone.state_dict(), net.state_dict()
    for ours, theirs in zip(
        loaded.values(), pretrained.values()
    ):  # theirs goes on with the classifier
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize(
    "content", [b"", b"PK\x03\x04" + bytes(1000), b"<html></html>", pickle.dumps({"a": 1})]
)
def test_damaged_imagenet_file(content, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    file = tmp_path / "hub" / "checkpoints" / "resnet18-f37072fd.pth"
    file.parent.mkdir(parents=True)
    file.write_bytes(content)
    assert "damaged" in fails(file, build, "resnet18", "imagenet")
    torch.save(Path("code"), file)  # an object, which unpickling would run code for
    assert "damaged" in fails(file, build, "resnet18", "imagenet")
