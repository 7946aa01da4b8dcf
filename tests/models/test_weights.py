"""Weights files, whole, damaged and of other models; ImageNet's with and without a network."""

import http.client
import json
import os
import pickle
import subprocess
import sys
import urllib.error
from pathlib import Path

import pytest
import safetensors.torch
import torch
import torchvision
from torch import nn

from vgeo.models.network import BACKBONES, build
from vgeo.models.weights import load_state, load_weights, save_weights, weights_hash


@pytest.fixture
def small():
    """A module for the tests of files, in which nothing depends on the network."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))


def assert_equal(state, other):
    assert state.keys() == other.keys()
    for name, tensor in state.items():
        assert tensor.dtype == other[name].dtype and torch.equal(tensor, other[name]), name


@pytest.mark.parametrize("backbone", BACKBONES)
def test_round_trip(backbone, tmp_path):
    recipe = {"loss": "CosFace", "seed": 0, "iterations": [1, 2]}
    model = build(backbone, dim=8).to(memory_format=torch.channels_last)
    path = tmp_path / "new" / "model.safetensors"
    save_weights(model, path, recipe)
    again = build(backbone, path, dim=8)
    assert_equal(again.state_dict(), model.state_dict())
    assert json.loads(path.with_suffix(".json").read_text()) == recipe
    assert sorted(os.listdir(path.parent)) == ["model.json", "model.safetensors"]
    assert weights_hash(path) == weights_hash(str(path)) == weights_hash(model)
    assert weights_hash(path) == weights_hash(model.state_dict())


def test_half_precision_halves_the_file_and_keeps_integers(small, tmp_path):
    path = tmp_path / "w.safetensors"
    wide = nn.Sequential(nn.Linear(100, 100), *small)
    wide[2].num_batches_tracked.fill_(100_001)  # an integer that half precision can't hold
    save_weights(wide, path, {}, dtype=torch.float16)
    state = wide.state_dict()
    assert path.stat().st_size < 2 * sum(x.numel() for x in state.values()) + 2000
    expected = {name: x.half().float() if x.is_floating_point() else x for name, x in state.items()}
    assert_equal(load_weights(wide, path).state_dict(), expected)


def test_the_hash_sees_every_difference(small):
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


def test_values_that_cannot_be_stored(small, tmp_path, refused):
    small[1].running_var[2] = 1e6  # more than half precision holds
    path = tmp_path / "w.safetensors"
    refused(lambda: save_weights(small, path, {}, torch.float16), path, "1.running_var")
    assert not os.listdir(tmp_path)
    save_weights(small, path, {})
    small[0].weight.data[0, 0, 0, 0] = torch.nan
    refused(lambda: save_weights(small, path, {}), path, "0.weight")


KILLED = """
import os, signal, sys, torch
from vgeo.models.weights import save_weights
def stop(*args):
    os.kill(os.getpid(), signal.SIGKILL)
replace = os.replace
os.replace = lambda a, b: stop() if str(b).endswith(".safetensors") else replace(a, b)
save_weights({"a": torch.ones(3)}, sys.argv[1], {"seed": 1})
"""


@pytest.mark.faults
def test_a_killed_save_leaves_the_old_file(tmp_path):
    path = tmp_path / "w.safetensors"
    save_weights({"a": torch.zeros(3)}, path, {"seed": 0})
    expected = path.read_bytes()
    killed = subprocess.run([sys.executable, "-P", "-c", KILLED, str(path)])
    assert killed.returncode == -9 and path.read_bytes() == expected
    assert json.loads(path.with_suffix(".json").read_text())  # whole


def test_weights_of_another_model(small, tmp_path, refused):
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
        refused(lambda: load_weights(small, path), path, expected)
        refused(lambda other=other: load_state(small, other, "memory"), "memory", expected)
    damaged = {**state, "0.bias": torch.full((4,), torch.nan)}
    safetensors.torch.save_file(damaged, path)
    refused(lambda: load_weights(small, path), path, "not finite: 0.bias")
    assert weights_hash(small) == before

    save_weights(build("resnet18", dim=8), path, {})
    shapes = "aggregation.3.weight (8, 512), not (512, 512)"
    refused(lambda: build("resnet18", path), path, shapes)
    refused(lambda: build("efficientnet_v2_s", path), path, "efficientnet_v2_s (missing")


def test_damaged_files(small, tmp_path, refused):
    path = tmp_path / "w.safetensors"
    refused(lambda: load_weights(small, path), path, "no such weights file")
    save_weights(small, path, {})
    whole, words = path.read_bytes(), "not a whole safetensors file"
    others = [b"\xff" * 100, pickle.dumps({"a": 1}, 2), b"<html></html>"]
    for content in [b"", whole[:4], whole[:60], whole[:-1], *others]:
        path.write_bytes(content)
        refused(lambda: load_weights(small, path), path, words)
    refused(lambda: load_weights(small, tmp_path), tmp_path, words)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """The folder, still to be made, where torch.hub looks for weights."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    return tmp_path / "hub" / "checkpoints"


FILES = {"resnet18": "resnet18-f37072fd.pth", "efficientnet_v2_s": "efficientnet_v2_s-dd5fe13b.pth"}


@pytest.mark.parametrize(
    "error",
    [
        urllib.error.URLError("no network"),
        TimeoutError("timed out"),
        http.client.IncompleteRead(b""),
    ],
)
def test_imagenet_without_a_network(error, hub, monkeypatch, refused):
    def unreachable(url, file, hash_prefix, **kwargs):
        assert hash_prefix in url  # what arrives is to be checked
        raise error

    monkeypatch.setattr(torch.hub, "download_url_to_file", unreachable)
    for backbone, file in FILES.items():
        url = f"https://download.pytorch.org/models/{file}"
        refused(
            lambda backbone=backbone: build(backbone, "imagenet"),
            *(hub / file, url, "TORCH_HOME", error),
        )


@pytest.mark.parametrize("backbone", BACKBONES)
def test_imagenet_from_the_folder(backbone, hub):
    """A file fetched by hand is used: the backbone is torchvision's, the head is not touched."""
    net = getattr(torchvision.models, backbone)()
    hub.mkdir(parents=True)
    torch.save(net.state_dict(), hub / FILES[backbone])
    loaded, pretrained = build(backbone, "imagenet").backbone.state_dict(), net.state_dict()
    for ours, theirs in zip(loaded.values(), pretrained.values()):
        assert torch.equal(ours, theirs)  # theirs goes on with the classifier


@pytest.mark.parametrize(
    "content", [b"", b"PK\x03\x04" + bytes(1000), b"<html></html>", pickle.dumps({"a": 1}, 2)]
)
def test_a_damaged_imagenet_file(content, hub, refused):
    hub.mkdir(parents=True)
    file = hub / FILES["resnet18"]
    file.write_bytes(content)
    refused(lambda: build("resnet18", "imagenet"), file, "damaged")
    torch.save(Path("code"), file)  # an object, which unpickling would run code for
    refused(lambda: build("resnet18", "imagenet"), file, "damaged")
