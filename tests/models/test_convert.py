"""Checkpoints with the names of others' code: structures rebuilt here from torchvision alone, compared by what they compute."""

import pickle
from collections import OrderedDict

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

from vgeo.__main__ import main
from vgeo.models.convert import export, read_pth
from vgeo.errors import VgeoError
from vgeo.models.geowarp import GRID, Regression
from vgeo.models.network import build
from vgeo.models.weights import load_weights, weights_hash

CHANNELS = {"resnet18": 512, "efficientnet_v2_s": 1280}


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
    """The published network's structure and names: EfficientNetV2-S by its list of feature blocks."""

    def __init__(self, backbone, dim=512, discriminator=None):
        super().__init__()
        net = getattr(torchvision.models, backbone)()
        self.backbone = nn.Sequential(
            *(list(net.children())[:-2] if backbone == "resnet18" else net.features.children())
        )
        self.aggregation = nn.Sequential(
            Unit(), Power(), nn.Flatten(), nn.Linear(CHANNELS[backbone], dim), Unit()
        )
        if discriminator:
            setattr(
                self,
                discriminator,
                nn.Sequential(
                    nn.Identity(),
                    nn.Linear(CHANNELS[backbone], 50),
                    nn.ReLU(),
                    nn.Linear(50, 20),
                    nn.ReLU(),
                    nn.Linear(20, 3),
                ),
            )

    def forward(self, x):
        return self.aggregation(self.backbone(x))


class Homography(nn.Module):
    """Correlation with the positions in image a column by column, six convolutions, a linear layer, as the published code has them."""

    def __init__(self):
        super().__init__()
        sizes, kernels = (225, 128, 128, 64, 64, 64, 64), (7, 5, 5, 5, 5, 5)
        self.conv = nn.Sequential(
            *(
                layer
                for i, o, k in zip(sizes, sizes[1:], kernels)
                for layer in (nn.Conv2d(i, o, k, padding=1), nn.BatchNorm2d(o), nn.ReLU())
            )
        )
        self.linear = nn.Linear(64, 16)

    def forward(self, a, b):
        columns = [(a[:, :, y, x, None, None] * b).sum(1) for x in range(GRID) for y in range(GRID)]
        return self.linear(
            self.conv(F.normalize(F.relu(torch.stack(columns, 1)), dim=1)).flatten(1)
        ).unflatten(1, (2, 4, 2))


@pytest.fixture(params=["resnet18", "efficientnet_v2_s"])
def theirs(request):
    torch.manual_seed(3)
    return request.param, Theirs(request.param).eval()


@torch.no_grad()
@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_released_network_describes_as_it_did(theirs, tmp_path, prefix):
    name, net = theirs
    torch.save(
        OrderedDict((prefix + key, value) for key, value in net.state_dict().items()),
        tmp_path / "a.pth",
    )
    found, model, parts, unknown = read_pth(tmp_path / "a.pth")
    images = torch.randn(2, 3, 64, 64)
    assert found == name and not parts and not unknown
    torch.testing.assert_close(model(images), net(images), atol=1e-5, rtol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("name", ["discriminator", "domain_discriminator"])
def test_a_network_with_a_discriminator(tmp_path, name):
    net = Theirs("resnet18", 64, name).eval()
    torch.save(
        {"epoch_num": 3, "model_state_dict": net.state_dict(), "best_val_recall1": 50.0},
        tmp_path / "last_checkpoint.pth",
    )
    _, model, parts, unknown = read_pth(tmp_path / "last_checkpoint.pth")
    maps = torch.randn(2, 512, 3, 3)
    torch.testing.assert_close(parts["discriminator"](maps), getattr(net, name)(maps.mean((2, 3))))
    assert model.aggregation[3].out_features == 64 and not unknown


@torch.no_grad()
def test_a_geowarp_checkpoint(tmp_path, capsys):
    torch.manual_seed(4)
    net, warp = Theirs("resnet18").eval(), Homography().eval()
    state = {f"module.features_extractor.{key}": value for key, value in net.state_dict().items()}
    state |= {
        f"module.homography_regression.{key}": value for key, value in warp.state_dict().items()
    }
    torch.save(state | {"module.extra.weight": torch.zeros(1)}, tmp_path / "a.pth")
    _, model, parts, unknown = read_pth(tmp_path / "a.pth")
    a, b = (F.normalize(torch.randn(2, 8, GRID, GRID), dim=1) for _ in range(2))
    torch.testing.assert_close(parts["regression"](a, b), warp(a, b), atol=1e-5, rtol=1e-4)
    assert unknown == ["extra.weight"]

    main(["convert", str(tmp_path / "a.pth"), str(tmp_path / "ours")])
    out = capsys.readouterr().out
    assert (
        "model.safetensors" in out
        and "regression.safetensors" in out
        and "left out: extra.weight" in out
    )
    assert weights_hash(
        load_weights(build("resnet18"), tmp_path / "ours/model.safetensors")
    ) == weights_hash(model)
    assert weights_hash(
        load_weights(Regression(), tmp_path / "ours/regression.safetensors")
    ) == weights_hash(parts["regression"])


def test_ours_load_there(theirs, tmp_path):
    name, net = theirs
    torch.manual_seed(5)
    model, regression = build(name).eval(), Regression().eval()
    export(model, tmp_path / "model.pth")
    net.load_state_dict(torch.load(tmp_path / "model.pth", weights_only=True))  # strict
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(net(images), model(images), atol=1e-5, rtol=1e-4)
    export(model, tmp_path / "warp.pth", regression)
    _, again, parts, unknown = read_pth(tmp_path / "warp.pth")
    assert (
        not unknown
        and weights_hash(again) == weights_hash(model)
        and weights_hash(parts["regression"]) == weights_hash(regression)
    )


def test_what_is_not_a_checkpoint(tmp_path):
    path, good = tmp_path / "x.pth", Theirs("resnet18", 8).state_dict()
    cases = {
        "no such checkpoint": None,
        "not a checkpoint of tensors alone": b"PK and nothing",
        "holds no state_dict": {"lr": 0.1},
        "is not a CosPlace network": torchvision.models.resnet18().state_dict(),
        "missing: backbone.0.weight": {
            key: value for key, value in good.items() if key != "backbone.0.weight"
        },
        "another shape: backbone.7.1.conv2.weight": good
        | {"backbone.7.1.conv2.weight": torch.zeros(3)},
        "unexpected: aggregation.9": good | {"aggregation.9": torch.zeros(1)},
        "not finite: aggregation.3.bias": good
        | {"aggregation.3.bias": torch.full((8,), torch.nan)},
        "does not start from a 15 x 15 grid": good
        | {"homography_regression.conv.0.weight": torch.zeros(4, 100, 7, 7)},
    }
    for words, content in cases.items():
        path.unlink(missing_ok=True)
        if isinstance(content, bytes):
            path.write_bytes(content)
        elif content is not None:
            torch.save(content, path)
        with pytest.raises(VgeoError, match=words) as error:
            read_pth(path)
        assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_no_code_is_run(tmp_path):
    class Hostile:
        def __reduce__(self):
            return (open, (str(tmp_path / "made"), "w"))

    for write in (
        lambda path: torch.save({"a": Hostile()}, path),
        lambda path: path.write_bytes(pickle.dumps(Hostile())),
    ):
        write(tmp_path / "x.pth")
        with pytest.raises(VgeoError, match="tensors alone"):
            read_pth(tmp_path / "x.pth")
    assert not (tmp_path / "made").exists()


def test_torch_hub(tmp_path):
    from vgeo.profiles import ROOT

    model = torch.hub.load(str(ROOT), "resnet18", source="local")
    assert weights_hash(model) == weights_hash(build("resnet18", "city")) and not model.training
    export(model, tmp_path / "m.pth")
    assert weights_hash(
        torch.hub.load(str(ROOT), "resnet18", source="local", weights=str(tmp_path / "m.pth"))
    ) == weights_hash(model)
    with pytest.raises(VgeoError, match="is of a resnet18"):
        torch.hub.load(
            str(ROOT), "efficientnet_v2_s", source="local", weights=str(tmp_path / "m.pth")
        )
