"""Descriptors of files against PIL and the network alone; the trunk's stored output."""

import numpy as np
import pytest
import torch
from PIL import Image

from vgeo.errors import VgeoError
from vgeo.models.network import build, normalise
from vgeo.retrieval.describe import darken, describe, describe_stored, store_trunk, stored_batch


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return build("resnet18").eval()


@pytest.fixture(scope="module")
def photos(tmp_path_factory, make_photos):
    sizes = [(40, 36), (40, 36), (33, 48), (40, 36), (64, 40), (33, 48), (36, 36)]
    folder = tmp_path_factory.mktemp("photos")
    return [
        str(path)
        for path in make_photos(folder, 552_000.0 + np.arange(7), size=sizes, suffix=".png")
    ]


def one_by_one(model, paths, side, brightness=1.0):
    """Descriptors from PIL and numpy alone, but for the network and `normalise`."""
    found = []
    for path in paths:
        image = Image.open(path).convert("RGB")
        image = image.resize((side, side), Image.Resampling.BILINEAR) if side else image
        pixels = np.asarray(image).astype(np.float64)
        pixels = np.clip(np.rint(pixels * brightness), 0, 255).astype(np.uint8)
        with torch.no_grad():
            found.append(model(normalise(torch.tensor(pixels).permute(2, 0, 1)[None]))[0].numpy())
    return np.stack(found)


def assert_same(found, expected):
    """Nearer to its own expected descriptor than a twentieth of the way to any other image's."""
    apart = np.linalg.norm(expected[:, None] - expected[None], axis=2)
    apart = apart[~np.eye(len(expected), dtype=bool)].min()
    assert found.dtype == np.float32 and found.shape == (len(expected), 512)
    assert np.linalg.norm(found - expected, axis=1).max() < apart / 20


@pytest.mark.parametrize(
    "how, side",
    [
        ({"size": 32}, 32),
        ({"size": 32, "scale": 1.4}, 45),
        ({"size": 32, "brightness": 0.31}, 32),
        ({"size": 32, "brightness": 1.7}, 32),
        ({"size": None}, None),
        ({"size": None, "brightness": 0.31}, None),
    ],
)
def test_descriptors_against_one_by_one(model, photos, how, side):
    expected = one_by_one(model, photos, side, how.get("brightness", 1.0))
    for batch_size in (1, 3, None):
        assert_same(describe(model, photos, batch_size=batch_size, **how), expected)
    order = [4, 0, 6, 5, 2]
    mixed = describe(model, [photos[i] for i in order], batch_size=2, **how)
    assert_same(mixed, expected[order])


@pytest.mark.parametrize("how", [{}, {"scale": 1.4, "brightness": 0.31}])
def test_descriptors_from_the_stored_trunk(model, photos, tmp_path, how):
    path = tmp_path / "trunk.npy"
    store_trunk(model, photos, path, 48, batch_size=3, **how)
    maps = np.load(path, mmap_mode="r")
    side = -(-round(48 * how.get("scale", 1)) // 8)
    assert maps.shape == (7, 128, side, side) and maps.dtype == np.float16
    expected = describe(model, photos, 48, **how)
    assert_same(describe_stored(model, maps, batch_size=2), expected)
    batch = stored_batch(maps[2:4], torch.device("cpu"))
    assert batch.dtype == torch.float32
    assert batch.is_contiguous(memory_format=torch.channels_last)
    np.testing.assert_array_equal(batch.numpy(), maps[2:4])


def test_bfloat16_in_the_convolutions_alone(model, photos, tmp_path):
    whole, rough = (describe(model, photos, 48, precision=name) for name in ("float32", "bf16"))
    store_trunk(model, photos, tmp_path / "trunk.npy", 48, precision="bf16")
    maps = np.load(tmp_path / "trunk.npy")
    stored = describe_stored(model, maps, precision="bf16")
    assert rough.dtype == stored.dtype == np.float32
    for found in (rough, stored):
        off = np.linalg.norm(found - whole, axis=1)
        assert (off > 1e-4).all() and (off < 0.05).all()
        # a head in bfloat16 would leave norms that are off by some 1/256
        np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)
    # the trunk's maps are bfloat16's values, the upper stages have made other ones of them
    assert (torch.from_numpy(maps).bfloat16().half().numpy() == maps).mean() > 0.999
    assert not np.array_equal(stored, describe_stored(model, maps))


def test_the_model_is_left_as_it_was(model, photos, tmp_path):
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for mode in (True, False):
        model.train(mode)
        describe(model, photos[:2], 32)
        assert model.training == mode
    model.train()
    store_trunk(model, photos[:2], tmp_path / "trunk.npy", 32)
    describe_stored(model, np.load(tmp_path / "trunk.npy"))
    assert model.training
    with pytest.raises(VgeoError, match="none: there is no such image"):
        describe(model, [*photos[:2], photos[0] + ".none"], 32)
    assert model.training and not torch.is_inference_mode_enabled()
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    model.eval()


def test_no_photos(model):
    assert describe(model, [], 32).shape == (0, 0)


def test_darken_rounds_and_clips():
    values = torch.arange(256, dtype=torch.uint8)
    for brightness in (0.0, 0.31, 1.0, 1.7):
        found, exact = darken(values, brightness), np.arange(256) * brightness
        assert found.dtype == torch.uint8
        np.testing.assert_allclose(found, np.clip(exact, 0, 255), atol=0.5 + 1e-3, rtol=0)
    assert darken(torch.tensor([2, 6, 200], dtype=torch.uint8), 1.25).tolist() == [2, 8, 250]
