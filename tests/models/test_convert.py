"""Checkpoints with the names of others' code, compared by what they compute.

The others' networks are rebuilt here from torchvision alone.
"""

import argparse
import pickle
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision
from safetensors.torch import save_file
from torch import nn
from torch.optim.swa_utils import AveragedModel

from vgeo.errors import VgeoError
from vgeo.models.convert import convert, export, open_model, read_pth
from vgeo.models.geowarp import GRID, Regression
from vgeo.models.network import build
from vgeo.models.weights import load_weights, save_weights, weights_hash

CHANNELS = {"resnet18": 512, "efficientnet_v2_s": 1280}
OTHERS = {"resnet50": 2048, "resnet101": 2048, "vgg16": 512, "efficientnet_b0": 1280}


class Power(nn.Module):
    def __init__(self):
        super().__init__()
        self.p = nn.Parameter(torch.ones(1) * 2.5)

    def forward(self, x):
        return F.avg_pool2d(x.clamp(min=1e-6).pow(self.p), x.shape[2:]).pow(1 / self.p)


class Unit(nn.Module):
    def forward(self, x):
        return F.normalize(x, dim=1)


class Theirs(nn.Module):
    """The published network's names: EfficientNetV2-S is the list of its feature blocks."""

    def __init__(self, backbone, dim=512, discriminator=None):
        super().__init__()
        net = getattr(torchvision.models, backbone)()
        channels = (CHANNELS | OTHERS)[backbone]
        layers = list(net.children() if "resnet" in backbone else net.features.children())
        layers = layers if "efficientnet" in backbone else layers[:-2]
        self.backbone = nn.Sequential(*layers)
        self.aggregation = nn.Sequential(
            Unit(), Power(), nn.Flatten(), nn.Linear(channels, dim), Unit()
        )
        if discriminator:
            first, second, third = nn.Linear(channels, 50), nn.Linear(50, 20), nn.Linear(20, 3)
            layers = nn.Identity(), first, nn.ReLU(), second, nn.ReLU(), third
            setattr(self, discriminator, nn.Sequential(*layers))

    def forward(self, x):
        return self.aggregation(self.backbone(x))


class Homography(nn.Module):
    """The published regression: its correlation has the positions in image a column by column."""

    def __init__(self):
        super().__init__()
        sizes, kernels = (225, 128, 128, 64, 64, 64, 64), (7, 5, 5, 5, 5, 5)
        layers = []
        for inputs, outputs, kernel in zip(sizes, sizes[1:], kernels):
            convolution = nn.Conv2d(inputs, outputs, kernel, padding=1)
            layers += [convolution, nn.BatchNorm2d(outputs), nn.ReLU()]
        self.conv = nn.Sequential(*layers)
        self.linear = nn.Linear(64, 16)

    def forward(self, a, b):
        columns = [(a[:, :, y, x, None, None] * b).sum(1) for x in range(GRID) for y in range(GRID)]
        correlation = F.normalize(F.relu(torch.stack(columns, 1)), dim=1)
        return self.linear(self.conv(correlation).flatten(1)).unflatten(1, (2, 4, 2))


class TheirGeoWarp(nn.Module):
    """The published GeoWarp network, two networks under one name each."""

    def __init__(self, backbone):
        super().__init__()
        self.features_extractor = Theirs(backbone)
        self.homography_regression = Homography()


class Parallel(nn.Module):
    """DataParallel's names, on a machine without GPUs."""

    def __init__(self, module):
        super().__init__()
        self.module = module


def local_pair():
    return (F.normalize(torch.randn(2, 8, GRID, GRID), dim=1) for _ in range(2))


@torch.no_grad()
def awake(regression):
    """The regression, in evaluation mode, with corners that depend on the positions of features."""
    a, b = local_pair()
    for layer in regression.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = None  # takes the statistics of what it sees next
    nn.init.normal_(regression.linear.weight, std=0.1)
    regression.train()(a, b)
    regression.eval()
    assert (regression(a, b) - regression(a.transpose(2, 3), b)).abs().max() > 0.1
    return regression


def close(ours, theirs):
    """Equal but for the order of additions."""
    torch.testing.assert_close(ours, theirs, atol=1e-3 * float(theirs.abs().max()), rtol=0)


@torch.no_grad()
@pytest.mark.parametrize(
    "name, prefix",
    [("resnet18", ""), ("resnet18", "module."), ("efficientnet_v2_s", ""), ("resnet50", "")],
)
def test_a_released_network_describes_as_it_did(name, prefix, tmp_path):
    torch.manual_seed(3)
    net = Theirs(name).eval()
    state = OrderedDict((prefix + key, value) for key, value in net.state_dict().items())
    torch.save(state, tmp_path / "a.pth")
    content, images = read_pth(tmp_path / "a.pth"), torch.randn(2, 3, 64, 64)
    assert content.model.backbone_name == name and not content.model.training
    assert content.regression is None and content.discriminator is None and not content.unknown
    close(content.model(images), net(images))
    assert (content.model(images) - build(name).eval()(images)).abs().max() > 0.02


@torch.no_grad()
@pytest.mark.parametrize("name", ["discriminator", "domain_discriminator"])
def test_a_network_with_a_discriminator(tmp_path, name):
    net, path = Theirs("resnet18", 64, name).eval(), tmp_path / "last_checkpoint.pth"
    torch.save({"epoch_num": 3, "model_state_dict": net.state_dict(), "best": 50.0}, path)
    content, maps = read_pth(path), torch.randn(2, 512, 3, 3)
    close(content.discriminator(maps), getattr(net, name)(maps.mean((2, 3))))
    assert content.model.aggregation[3].out_features == 64 and not content.unknown


@torch.no_grad()
def test_a_geowarp_checkpoint(tmp_path):
    torch.manual_seed(4)
    net, path = Parallel(TheirGeoWarp("resnet18")).eval(), tmp_path / "a.pth"
    awake(net.module.homography_regression)
    torch.save(net.state_dict() | {"module.extra.weight": torch.zeros(1)}, path)
    content, (a, b) = read_pth(path), local_pair()
    close(content.regression(a, b), net.module.homography_regression(a, b))
    assert content.unknown == ["extra.weight"]

    lines = convert(path, tmp_path / "ours")
    assert len(lines) == 3 and lines[2] == "left out: extra.weight"
    for name, line, empty in zip(
        ("model", "regression"), lines, (build("resnet18"), Regression()), strict=False
    ):
        file = tmp_path / "ours" / f"{name}.safetensors"
        assert line.startswith(f"{file}: {name}, resnet18, ")
        assert weights_hash(load_weights(empty, file)) == weights_hash(getattr(content, name))


@pytest.mark.parametrize("name", CHANNELS)
def test_our_models_load_in_the_published_code(name, tmp_path):
    net, model, images = Theirs(name).eval(), build(name).eval(), torch.randn(1, 3, 64, 64)
    export(model, tmp_path / "model.pth")
    net.load_state_dict(torch.load(tmp_path / "model.pth", weights_only=True))  # strict
    with torch.no_grad():
        close(net(images), model(images))


@pytest.mark.parametrize(
    "name", ["resnet18", pytest.param("efficientnet_v2_s", marks=pytest.mark.slow)]
)
def test_our_geowarp_loads_in_the_authors_code(name, tmp_path):
    """Their evalGeowarp.py wraps the network in DataParallel before it loads, strictly."""
    torch.manual_seed(5)
    model, regression, path = build(name).eval(), awake(Regression()), tmp_path / "warp.pth"
    export(model, path, regression)
    net, (a, b) = Parallel(TheirGeoWarp(name)).eval(), local_pair()
    net.load_state_dict(torch.load(path, weights_only=True))  # strict
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        close(net.module.features_extractor(images), model(images))
        close(net.module.homography_regression(a, b), regression(a, b))
    again = read_pth(path)
    assert weights_hash(again.model) == weights_hash(model) and not again.unknown
    assert weights_hash(again.regression) == weights_hash(regression)


def test_open_model(tmp_path, refused):
    model = build("resnet18", dim=16)
    export(model, tmp_path / "a.pth")
    save_weights(model, tmp_path / "b.safetensors", {"image_size": 96})
    save_file(model.state_dict(), tmp_path / "c.safetensors")  # without a recipe
    for name, size in (("a.pth", None), ("b.safetensors", 96), ("c.safetensors", None)):
        opened, found = open_model(tmp_path / name)
        assert weights_hash(opened) == weights_hash(model) and found == size
        assert not opened.training
    save_weights(Regression(), tmp_path / "d.safetensors", {})
    refused(lambda: open_model(tmp_path / "d.safetensors"), "d.safetensors", "holds no model known")
    for text, words in (("[]", "damaged"), ('{"a', "damaged"), ('{"image_size": "9"}', "is '9'")):
        (tmp_path / "b.json").write_text(text)
        refused(lambda: open_model(tmp_path / "b.safetensors"), "b.json: ", words)


def test_a_backbone_that_others_do_not_have(tmp_path):
    model = build("efficientnet_lite0", dim=16)
    export(model, tmp_path / "a.pth")
    save_weights(model, tmp_path / "b.safetensors", {})
    for name in ("a.pth", "b.safetensors"):
        opened = open_model(tmp_path / name)[0]
        assert opened.backbone_name == "efficientnet_lite0"
        assert weights_hash(opened) == weights_hash(model)
    lines = convert(tmp_path / "a.pth", tmp_path / "ours")
    assert len(lines) == 1 and "efficientnet_lite0, " in lines[0]


def wrapped(net, how):
    """The net's state dict with the names that a library gives it."""
    if how == "compiled inside":
        net.backbone = torch.compile(net.backbone)
        return net.state_dict()
    if how == "lightning":
        return {f"model.{name}": x for name, x in net.state_dict().items()}
    wrap = {"parallel": nn.DataParallel, "compiled": torch.compile, "averaged": AveragedModel}
    for each in how.split(" in "):
        net = wrap[each](net)
    return net.state_dict()


@pytest.mark.parametrize(
    "how, left_out",
    [
        ("parallel", []),
        ("compiled", []),
        ("parallel in compiled", []),
        ("compiled in parallel", []),
        ("compiled inside", []),
        ("averaged", ["n_averaged"]),
        ("lightning", []),
    ],
)
def test_the_names_that_wrappers_add(how, left_out, tmp_path):
    net = Theirs("resnet18", 8)
    expected = {name: x.clone() for name, x in net.state_dict().items()}
    state = wrapped(net, how)
    assert not state.keys() & {"backbone.0.weight"}
    torch.save(state, tmp_path / "a.pth")
    content = read_pth(tmp_path / "a.pth")
    assert weights_hash(content.model) == weights_hash(expected) and content.unknown == left_out


BESIDE = {
    "epoch_num": 1,
    "best_val_recall1": np.float64(61.5),
    "counts": [np.int64(3), np.float32(0.5), np.bool_(True), np.str_("x")],
    "recalls": np.array([50.0, 61.5]),
    "optimizer": {"state": {}, "param_groups": [{"lr": np.float64(1e-5)}]},
}


@pytest.mark.parametrize(
    "ending, content",
    [
        (".pt", lambda state: state),
        (".ckpt", lambda state: BESIDE | {"state_dict": state}),
        (".pth.tar", lambda state: BESIDE | {"model_state_dict": state}),
        (".bin", lambda state: BESIDE | {"model": {"state_dict": state}}),
    ],
)
def test_where_training_loops_put_the_state(ending, content, tmp_path):
    model, path = build("resnet18", dim=8), tmp_path / f"a{ending}"
    zipped = ending != ".pth.tar"  # as before PyTorch 1.6
    torch.save(content(model.state_dict()), path, _use_new_zipfile_serialization=zipped)
    opened, size = open_model(path)
    assert weights_hash(opened) == weights_hash(model) and size is None
    convert(path, tmp_path / "ours")
    converted = load_weights(build("resnet18", dim=8), tmp_path / "ours" / "model.safetensors")
    assert weights_hash(converted) == weights_hash(model)


def test_numbers_of_numpy_1(tmp_path):
    """NumPy 1 called the module core that NumPy 2 calls _core."""
    state = build("resnet18", dim=8).state_dict()
    torch.save(BESIDE | {"model_state_dict": state}, tmp_path / "two.pth")
    with (
        zipfile.ZipFile(tmp_path / "two.pth") as two,
        zipfile.ZipFile(tmp_path / "one.pth", "w") as one,
    ):
        pickled = next(name for name in two.namelist() if name.endswith("data.pkl"))
        assert b"numpy._core." in two.read(pickled)
        for name in two.namelist():
            one.writestr(name, two.read(name).replace(b"numpy._core.", b"numpy.core."))
    assert weights_hash(read_pth(tmp_path / "one.pth").model) == weights_hash(state)


def empty(state):
    """Tensors of the same shapes that take no space in a file."""
    return {name: torch.zeros(()).expand(x.shape) for name, x in state.items()}


@pytest.mark.slow
def test_a_network_that_we_do_not_have_is_called_by_its_name(tmp_path, refused):
    cases = {f"{name} with CosPlace's head": Theirs(name) for name in list(OTHERS)[1:]}
    cases["resnet34 without CosPlace's head"] = torchvision.models.resnet34()
    states = {words: empty(net.state_dict()) for words, net in cases.items()}
    states["MegaLoc"] = {"backbone.cls_token": torch.zeros(1), "aggregator.agg.dust_bin": 1}
    states["Bag-of-Queries"] = {"aggregator.boqs.0.queries": 1}
    states["its first names are layer.weight"] = {"layer.weight": 1}
    for words, state in states.items():
        state = {f"module.{name}": torch.as_tensor(x) for name, x in state.items()}
        torch.save(state, tmp_path / "a.pth")
        refused(lambda: read_pth(tmp_path / "a.pth"), "a.pth", words)


def test_two_networks_in_one_state_dict(tmp_path, refused):
    state = build("resnet18", dim=8).state_dict()
    torch.save(state | {f"module.{name}": x for name, x in state.items()}, tmp_path / "a.pth")
    refused(lambda: read_pth(tmp_path / "a.pth"), "a.pth", "several networks")


def test_what_is_not_a_checkpoint(tmp_path, refused):
    path, good = tmp_path / "x.pth", Theirs("resnet18", 8).state_dict()
    less = {key: value for key, value in good.items() if key != "backbone.0.weight"}
    cases = {
        "no such checkpoint": None,
        "not a checkpoint of tensors alone": b"PK and nothing",
        "holds no state_dict": {"lr": 0.1},
        "holds argparse.Namespace": {"args": argparse.Namespace(lr=0.1)},
        "is not a CosPlace network": torchvision.models.resnet18().state_dict(),
        "missing: backbone.0.weight": less,
        "another shape: backbone.7.1.conv2.weight": {"backbone.7.1.conv2.weight": torch.zeros(3)},
        "unexpected: aggregation.9": {"aggregation.9": torch.zeros(1)},
        "not finite: aggregation.3.bias": {"aggregation.3.bias": torch.full((8,), torch.nan)},
        "does not start from a 15 x 15 grid": {
            "homography_regression.conv.0.weight": torch.zeros(4, 100, 7, 7)
        },
    }
    for words, content in cases.items():
        path.unlink(missing_ok=True)
        if isinstance(content, bytes):
            path.write_bytes(content)
        elif content is not None:
            more = isinstance(next(iter(content.values())), torch.Tensor) and len(content) == 1
            torch.save(good | content if more else content, path)
        refused(lambda: read_pth(path), path, words)


def test_no_code_is_run(tmp_path):
    class Hostile:
        def __reduce__(self):
            return (open, (str(tmp_path / "made"), "w"))

    for content in ({"a": Hostile()}, Hostile()):
        torch.save(content, tmp_path / "x.pth")
        with pytest.raises(VgeoError, match="tensors alone"):
            read_pth(tmp_path / "x.pth")
        (tmp_path / "x.pth").write_bytes(pickle.dumps(content, 2))
        with pytest.raises(VgeoError, match="tensors alone"):
            read_pth(tmp_path / "x.pth")
    assert not (tmp_path / "made").exists()
