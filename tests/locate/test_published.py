"""Published models by name in `vgeo locate`, with a made-up one that lies in torch.hub's folder."""

import re
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from vgeo.__main__ import main
from vgeo.locate.command import locate
from vgeo.locate.index import SHORTLIST, open_index
from vgeo.models.network import IMAGENET_MEAN, IMAGENET_STD
from vgeo.models.peers import PEERS, Repository
from vgeo.photos.images import load_image

SIZE, DIM = 32, 16
TINY = Repository("somebody/tiny", "7" * 40, "tiny", "https://nowhere/tiny.pth", DIM, SIZE)
CODE = """
import torch
from torch import nn

def tiny():
    layers = nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(48, 16)
    net = nn.Sequential(*layers)
    net.load_state_dict(torch.hub.load_state_dict_from_url("https://nowhere/tiny.pth"))
    return net
"""


@pytest.fixture(autouse=True)
def state(monkeypatch, tmp_path):
    """The weights of a published model named tiny, which is downloaded already."""
    hub = tmp_path / "hub"
    monkeypatch.setattr(torch.hub, "_hub_dir", str(hub))
    monkeypatch.setitem(PEERS, "tiny", TINY)
    code = hub / f"somebody_tiny_{TINY.commit}"
    code.mkdir(parents=True)
    (code / "hubconf.py").write_text(CODE)
    torch.manual_seed(3)
    weights = {"2.weight": torch.randn(DIM, 48), "2.bias": torch.randn(DIM)}
    return save(weights, hub)


def save(weights, hub):
    (hub / "checkpoints").mkdir(exist_ok=True)
    torch.save(weights, hub / "checkpoints" / "tiny.pth")
    return weights


def described(path, state):
    """The descriptor of a photo by the model's formula."""
    mean, std = (torch.tensor(x).view(3, 1, 1) for x in (IMAGENET_MEAN, IMAGENET_STD))
    cells = ((load_image(path, SIZE) / 255 - mean) / std).view(3, 4, 8, 4, 8).mean((2, 4))
    numbers = F.linear(cells.flatten(), state["2.weight"], state["2.bias"])
    return F.normalize(numbers, dim=0).numpy()


def test_the_order_is_that_of_the_inner_products(tmp_path, make_street, state):
    index = open_index(make_street(tmp_path / "street", step=10.0), model="tiny", yes=True)
    queries = make_street(tmp_path / "queries", [17, 3, 9], noise=20.0)
    paths = sorted(map(str, queries.iterdir()))
    answers = index.locate(paths)
    known = np.stack([described(path, state) for path in index.photos.paths])
    assert index.size == SIZE and index.descriptors.shape == (24, DIM)
    for path, rows, alike, features, xy in zip(
        paths, answers.predictions, answers.similarity, answers.features, answers.xy, strict=True
    ):
        products = known @ described(path, state)
        assert rows.tolist() == np.argsort(-products)[:SHORTLIST].tolist()
        np.testing.assert_allclose(alike, products[rows], rtol=0, atol=1e-5)
        metres = np.hypot(*(index.xy[rows] - index.xy[rows[0]]).T)
        assert (xy == index.xy[rows[0]]).all()
        expected = [alike[0], alike[0] - alike[metres > 25].max(), (metres[:5] <= 25).mean()]
        np.testing.assert_allclose(features[:3], expected, rtol=1e-6)
    assert [path[-7:] for path in paths] == [
        index.photos.paths[row][-7:] for row in answers.predictions[:, 0]
    ]


def test_descriptions_are_kept_for_each_model(tmp_path, make_street, state):
    folder = make_street(tmp_path / "street", range(3))

    def newly(**model):
        return open_index(folder, cache=tmp_path / "cache", **model).described

    tiny = {"model": "tiny", "yes": True}
    assert [newly(), newly(**tiny), newly(), newly(**tiny)] == [3, 3, 0, 0]
    save(state | {"2.bias": state["2.bias"] + 1}, tmp_path / "hub")
    assert [newly(**tiny), newly(**tiny)] == [3, 0]


def test_the_command_names_the_model(tmp_path, make_street, capsys):
    photos = make_street(tmp_path / "photos", range(3))
    words = ["locate", str(photos), str(photos / "001.jpg"), "--out", str(tmp_path / "out")]
    main([*words, "--model", "tiny", "--yes"])
    first, second, answer, *_ = capsys.readouterr().out.splitlines()
    assert "index of 3 photos, tiny 32 px, 16 numbers a photo, 3 newly described" in first
    assert "fitted to 3 of your photos" in second and "doubtful" in second
    assert re.search(r"within 25 m: \d+ %  001\.jpg", answer)
    main(words)
    first = capsys.readouterr().out.splitlines()[0]
    assert "index of 3 photos, efficientnet_lite0 224 px, 2 numbers a photo" in first
    assert "3 newly described" in first
    one = make_street(tmp_path / "one", range(1))  # nothing to fit the confidence to
    main(["locate", str(one), str(photos / "001.jpg"), "--out", str(tmp_path / "alone")])
    second, answer = capsys.readouterr().out.splitlines()[1:3]
    assert "no confidence" in second and "within 25 m: unknown  000.jpg" in answer


def test_one_model_and_consent_come_before_photos(tmp_path, refused, monkeypatch):
    none, file = tmp_path / "none", str(tmp_path / "mine.safetensors")
    both = {"model": "tiny", "weights": file, "yes": True}
    refused(lambda: locate(none, [none], **both), "tiny", file, "give one")
    refused(lambda: open_index(none, **both), "tiny", file, "give one")
    monkeypatch.setattr(sys.stdin, "isatty", lambda: False, raising=False)
    refused(lambda: locate(none, [none], model="tiny"), "somebody/tiny", "--yes")
    refused(lambda: open_index(none, model="tiny"), "somebody/tiny", "--yes")
    refused(lambda: locate(none, [f"{none}.jpg"], model="tiny", yes=True), "no such image")
    refused(lambda: open_index(none, model="tiny", yes=True), "no such folder")
    refused(lambda: locate(none, [none], model="tinny"), "no model 'tinny'")
