"""What the tests of training share: streets to train on, and a start."""

from types import SimpleNamespace

import pytest
import torch

from vgeo.models.network import build
from vgeo.models.weights import save_weights
from vgeo.photos.places import open_dataset

SIDE, CLASSES = 32, 4


@pytest.fixture(scope="session")
def streets(tmp_path_factory, make_classes, make_photos):
    """`classes` of three photos each, `night` photos, `val`, and the weights of a `start`."""
    folder = tmp_path_factory.mktemp("streets")
    easts = [553_000.0 + 60 * place for place in range(CLASSES)]
    for name in ("queries", "database"):
        make_photos(folder / name, easts, size=40, noise=12.0, seed=len(name))
    make_photos(folder / "night", easts, [91, 92, 93, 94], size=40, brightness=0.4)
    torch.manual_seed(3)
    save_weights(build("resnet18"), folder / "start.safetensors", {})
    return SimpleNamespace(
        classes=make_classes(folder / "train", CLASSES, 3, noise=12.0),
        night=open_dataset("night", folder / "night", folder / "night").queries,
        val=open_dataset("val", folder / "queries", folder / "database"),
        start=folder / "start.safetensors",
    )
