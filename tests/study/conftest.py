"""A tiny study: a few photos, a ResNet18 with made-up weights, two iterations of training."""

from dataclasses import replace

import pytest
import torch

from vgeo.models.network import build, normalise
from vgeo.models.weights import save_weights
from vgeo.study.profiles import CITY_GEOWARP, ClassSizes, Profile, Testing, Training
from vgeo.study.study import Study

SIDE = 32  # pixels
TINY = Profile(
    "tiny",
    weights="city",
    image_size=SIDE,
    test_size=SIDE,
    classes=ClassSizes(n=1, l=1, min_images=3),
    training=Training(epochs=1, iterations=2, batch_size=2, lr_model=1e-4),
    geowarp=replace(CITY_GEOWARP, self_supervised=2, mined=2, candidates=6, alone=3),
    testing=Testing(predictions=4, rerank=3),
)


@pytest.fixture(scope="session")
def tiny():
    """The profile of the tiny study."""
    return TINY


@pytest.fixture(scope="session")
def photos(tmp_path_factory, make_data):
    """The folder of the tiny data sets."""
    return make_data(tmp_path_factory.mktemp("photos"))


@pytest.fixture(scope="session")
def weights(tmp_path_factory):
    """A folder with resnet18.safetensors, whose descriptors of different photos lie apart."""
    torch.manual_seed(4)
    model = build("resnet18").train()
    with torch.no_grad():  # for BatchNorm's statistics
        for _ in range(3):
            model(normalise(torch.randint(0, 256, (8, 3, SIDE, SIDE), dtype=torch.uint8)))
    folder = tmp_path_factory.mktemp("weights")
    save_weights(model, folder / "resnet18.safetensors", {})
    return folder


@pytest.fixture
def study(photos, weights, tmp_path):
    """Makes a tiny Study; of one test all have the same cache. Keywords change the profile."""

    def make(data=photos, image_size=None, seeds=None, **changes):
        return Study(
            replace(TINY, **changes),
            data,
            image_size,
            seeds,
            results=tmp_path / "results",
            cache=tmp_path / "cache",
            weights=weights,
        )

    return make
