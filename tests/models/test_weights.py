"""Weights files, whole, damaged and of other models; ImageNet's with and without a network."""

import http.client
import json
import os
import pickle
import subprocess
import sys
import urllib.error
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from torch import nn

from vgeo.models.network import BACKBONES, build
from vgeo.models.weights import load_state, load_weights, read_weights, save_weights, weights_hash


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


SHAPES = arrays.array_shapes(min_dims=2, max_dims=4, max_side=5)
VALUES = st.floats(width=32, allow_nan=False, allow_infinity=False)


@settings(deadline=None, max_examples=40)
@given(arrays.arrays(np.float32, SHAPES, elements=VALUES))
def test_8_bits_are_within_half_a_step(tmp_path_factory, values):
    path = tmp_path_factory.mktemp("bits") / "w.safetensors"
    save_weights({"a": torch.from_numpy(values)}, path, {}, in_bytes=True)
    stored, found = safetensors.torch.load_file(path), read_weights(path)["a"].double().numpy()
    assert stored["a"].dtype == torch.int8 and stored["a.scale8"].dtype == torch.float32
    exact, scales = values.astype(float), stored["a.scale8"].double().numpy()
    for channel, read, scale in zip(exact, found, scales, strict=True):
        assert np.abs(channel - read).max() <= scale / 2 * (1 + 1e-6)
        assert scale == pytest.approx(np.abs(channel).max() / 127, rel=1e-6, abs=1.2e-38)
    again = path.with_name("again.safetensors")
    save_weights(read_weights(path), again, {}, in_bytes=True)
    assert again.read_bytes() == path.read_bytes()


@pytest.mark.parametrize("backbone", BACKBONES)
def test_8_bits_read_and_saved_again_are_the_same(backbone, tmp_path):
    torch.manual_seed(0)
    model, path, again = build(backbone), tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    save_weights(model.to(memory_format=torch.channels_last), path, {}, in_bytes=True)
    loaded = load_weights(build(backbone), path)
    save_weights(loaded, again, {}, in_bytes=True)
    assert again.read_bytes() == path.read_bytes()
    assert weights_hash(path) == weights_hash(read_weights(path)) == weights_hash(loaded)
    for (name, ours), theirs in zip(loaded.state_dict().items(), model.state_dict().values()):
        assert ours.dtype == theirs.dtype
        if ours.dim() < 2:
            assert torch.equal(ours, theirs), name
        else:
            assert 0 < (ours - theirs).abs().max() <= 0.005 * theirs.abs().max(), name


def test_8_bits_of_a_few_values_by_hand(tmp_path):
    path = tmp_path / "w.safetensors"
    weight = torch.tensor([[127.0, -126.4, 0.5, 1.5], [0, 0, 0, 0], [-254.0, 3.1, 2.9, 0]])
    state = {"fc.weight": weight.double(), "fc.bias": torch.tensor([1e-30]), "n": torch.tensor(7)}
    save_weights(state, path, {}, in_bytes=True)
    stored, found = safetensors.torch.load_file(path), read_weights(path)
    assert stored["fc.weight"].tolist() == [[127, -126, 0, 2], [0] * 4, [-127, 2, 1, 0]]
    assert stored["fc.weight.scale8"][::2].tolist() == [1, 2]
    assert stored["fc.weight.scale8"][1] > 0  # the channel of zeros is not 0 / 0
    expected = torch.tensor([[127.0, -126, 0, 2], [0, 0, 0, 0], [-254, 4, 2, 0]])
    assert_equal(found, {**state, "fc.weight": expected})


def test_8_bits_take_a_quarter_and_leave_the_vectors_to_dtype(tmp_path):
    layer, norm = nn.Conv2d(64, 64, 3), nn.BatchNorm2d(64)
    norm.num_batches_tracked.fill_(100_001)
    sizes = {}
    for name, options in {"whole": {}, "bits": {"in_bytes": True}}.items():
        save_weights(layer, tmp_path / f"{name}.safetensors", {}, **options)
        sizes[name] = (tmp_path / f"{name}.safetensors").stat().st_size
    assert sizes["bits"] <= 0.27 * sizes["whole"]
    path = tmp_path / "both.safetensors"
    save_weights(nn.Sequential(layer, norm), path, {}, dtype=torch.float16, in_bytes=True)
    dtypes = {name: tensor.dtype for name, tensor in read_weights(path).items()}
    assert dtypes["0.weight"] == torch.float32 and dtypes["1.running_var"] == torch.float16
    assert read_weights(path)["1.num_batches_tracked"] == 100_001


def test_8_bits_that_cannot_be_stored(small, tmp_path, refused):
    path = tmp_path / "w.safetensors"
    for value in (torch.nan, torch.inf):
        small[0].weight.data[0, 0, 0, 0] = value
        refused(
            lambda: save_weights(small, path, {}, in_bytes=True), path, "0.weight", "not finite"
        )
    assert not os.listdir(tmp_path)


def test_damaged_8_bits(small, tmp_path, refused):
    path = tmp_path / "w.safetensors"
    save_weights(small, path, {}, in_bytes=True)
    whole = safetensors.torch.load_file(path)
    scale = whole["0.weight.scale8"]
    cases = {
        "0.weight)": {name: x for name, x in whole.items() if not name.endswith("scale8")},
        "without int8: 0.weight)": {**whole, "0.weight": small[0].weight.detach()},
        "without int8: 0.weig)": {**whole, "0.weig.scale8": scale.clone()},
        "4 channels of 0.weight have scales (3,)": {**whole, "0.weight.scale8": scale[:3].clone()},
    }
    for words, state in cases.items():
        safetensors.torch.save_file(state, path)
        for read in (read_weights, weights_hash, lambda path: load_weights(small, path)):
            refused(lambda read=read: read(path), path, words)
    safetensors.torch.save_file({**whole, "0.weight.scale8": scale / 0}, path)
    refused(lambda: load_weights(small, path), path, "not finite: 0.weight")


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


@pytest.mark.parametrize("backbone", FILES)
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
