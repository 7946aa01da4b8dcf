"""Published models by name, with made-up weights and repositories that lie in torch.hub's folder.

Networks of CosPlace are rebuilt here from torchvision alone. The code of the repositories is made
up: it calls torch.hub and the Hugging Face Hub as the real code does, on a tiny network.
"""

import pickle
import sys
from unittest.mock import Mock
from urllib.error import URLError

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision
from safetensors.torch import save_file
from torch import nn

from vgeo.models.network import IMAGENET_MEAN, IMAGENET_STD
from vgeo.models.peers import PEERS, Release, Repository, open_peer

HUBS = [name for name, source in PEERS.items() if isinstance(source, Repository)]
FILES = [name for name, source in PEERS.items() if isinstance(source, Release)]
TINY = """
import torch
from torch import nn

class Tiny(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.fc = nn.Linear(3, dim)

    def forward(self, x):
        return self.fc(x.mean((2, 3)))
"""
CODE = {
    "megaloc": """
dependencies = ["torch", "huggingface_hub"]

def get_trained_model():
    from huggingface_hub import hf_hub_download
    from safetensors.torch import load_file
    net = Tiny(8448)
    path = hf_hub_download(repo_id="gberton/MegaLoc", filename="model.safetensors")
    net.load_state_dict(load_file(path))
    return net
""",
    "boq-dinov2": """
class Both(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.backbone, self.fc = net, nn.Linear(5, 12288)

    def forward(self, x):
        return self.fc(self.backbone(x)), [x]

def get_trained_boq(backbone_name="resnet50", output_dim=16384):
    assert (backbone_name, output_dim) == ("dinov2", 12288)
    net = Both(torch.hub.load("facebookresearch/dinov2", "dinov2_vitb14"))
    url = "https://github.com/amaralibey/Bag-of-Queries/releases/download/v1.0/dinov2_12288.pth"
    net.load_state_dict(torch.hub.load_state_dict_from_url(url, map_location="cpu"))
    return net
""",
    "selavpr++": """
def SelaVPRplusplus(**options):
    assert options.pop("backbone") == "dinov2-base" and options.pop("aggregation") == "gem"
    assert options == {"hashing": False, "rerank": False}
    print("foreign words")
    net = nn.DataParallel(Tiny(2048))
    release = "https://github.com/Lu-Feng/SelaVPRplusplus/releases/download/SelaVPR%2B%2B/"
    content = torch.hub.load_state_dict_from_url(f"{release}SelaVPRplusplus_base.pth")
    net.load_state_dict(content["model_state_dict"])
    return net
""",
}
DINOV2 = """
def dinov2_vitb14(*, pretrained=True):
    assert not pretrained  # no second download
    return Tiny(5)
"""
WEIGHTS = {
    "megaloc": "gberton_MegaLoc_model.safetensors",
    "boq-dinov2": "dinov2_12288.pth",
    "selavpr++": "SelaVPRplusplus_base.pth",
}
STATES = {"megaloc": [("", 3, 8448)], "selavpr++": [("module.", 3, 2048)]}
STATES["boq-dinov2"] = [("backbone.", 3, 5), ("", 5, 12288)]


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path):
    """torch.hub's folder is empty, the Hugging Face Hub's too, and no server can be reached."""

    def unreachable(*args, **kwargs):
        raise URLError("no network")

    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *names: None)
    monkeypatch.setattr(torch.hub, "download_url_to_file", unreachable)
    monkeypatch.setattr(torch.hub, "urlopen", unreachable)


def install(name, folder, code=None, content=None):
    """Puts made-up code and weights where torch.hub looks for them; returns the state dict."""
    torch.manual_seed(8)
    state = {}
    for prefix, inputs, outputs in STATES[name]:
        state[f"{prefix}fc.weight"] = torch.randn(outputs, inputs)
        state[f"{prefix}fc.bias"] = torch.randn(outputs)
    source = PEERS[name]
    repositories = {source.repository: (source.commit, code or CODE[name])}
    repositories |= {other: (commit, DINOV2) for other, (commit, _) in source.loads.items()}
    for repository, (commit, text) in repositories.items():
        home = folder / f"{repository.replace('/', '_')}_{commit}"
        home.mkdir(exist_ok=True)
        (home / "hubconf.py").write_text(TINY + text)
    file = folder / "checkpoints" / WEIGHTS[name]
    file.parent.mkdir(exist_ok=True)
    if file.suffix == ".safetensors":
        save_file(state, file)
    else:
        nested = {"model_state_dict": state, "recalls": np.array([61.5]), "best": np.float64(1)}
        torch.save(content or (nested if name == "selavpr++" else state), file)
    return state


def photos(count, size):
    return torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8)


def normalised(images):
    mean, std = (torch.tensor(x).view(3, 1, 1) for x in (IMAGENET_MEAN, IMAGENET_STD))
    return (images / 255 - mean) / std


def their_network(name):
    """The published network, from torchvision's parts."""
    depth, dim = (50, 2048) if "r50" in name else (18, 512)

    class GeM(nn.Module):
        def __init__(self):
            super().__init__()
            self.p = nn.Parameter(torch.ones(1) * 2.5)

        def forward(self, x):
            x = F.normalize(x, dim=1).clamp(min=1e-6).pow(self.p)
            return F.avg_pool2d(x, x.shape[2:]).pow(1 / self.p)

    net = nn.Module()
    resnet = getattr(torchvision.models, f"resnet{depth}")()
    net.backbone = nn.Sequential(*list(resnet.children())[:-2])
    head = nn.Identity(), GeM(), nn.Flatten(), nn.Linear(resnet.fc.in_features, dim)
    net.aggregation = nn.Sequential(*head)
    return net.eval()


@pytest.mark.parametrize("name", ["cosplace-r50-2048", "eigenplaces-r18-512"])
@torch.no_grad()
def test_a_weights_file_describes_as_its_authors_network(name, tmp_path):
    torch.manual_seed(9)
    net, url = their_network(name), PEERS[name].url
    (tmp_path / "checkpoints").mkdir()
    torch.save(net.state_dict(), tmp_path / "checkpoints" / url.rsplit("/", 1)[1])
    peer, images = open_peer(name), photos(2, 96)
    expected = F.normalize(net.aggregation(net.backbone(normalised(images))), dim=1)
    assert peer.size == 512 and not peer.training
    for given in (images, normalised(images)):
        found = peer(given)
        assert found.shape == (2, peer.dim) and found.dtype == torch.float32
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_the_urls_of_the_weights_files():
    start = "https://github.com/gmberton"
    assert {name: PEERS[name].url.removeprefix(start) for name in FILES} == {
        "cosplace-r18-512": "/CosPlace/releases/download/v1.0/ResNet18_512_cosplace.pth",
        "cosplace-r50-2048": "/CosPlace/releases/download/v1.0/ResNet50_2048_cosplace.pth",
        "eigenplaces-r18-512": "/EigenPlaces/releases/download/v1.0/ResNet18_512_eigenplaces.pth",
        "eigenplaces-r50-2048": "/EigenPlaces/releases/download/v1.0/ResNet50_2048_eigenplaces.pth",
    }


def test_a_weights_file_that_does_not_fit(tmp_path, refused):
    file = tmp_path / "checkpoints" / "ResNet18_512_cosplace.pth"
    file.parent.mkdir()
    state = their_network("cosplace-r18-512").state_dict()
    less = {name: x for name, x in state.items() if name != "aggregation.1.p"}
    narrow = state | {"aggregation.3.bias": torch.zeros(256)}
    for words, content in (
        ("missing: aggregation.1.p", less),
        ("another shape: aggregation.3.bias", narrow),
        ("unexpected: more", state | {"more": torch.zeros(1)}),
    ):
        torch.save(content, file)
        refused(lambda: open_peer("cosplace-r18-512"), file, words)


@pytest.mark.parametrize("name", HUBS)
@torch.no_grad()
def test_a_repository_describes_as_its_code_says(name, tmp_path, capsys):
    state = install(name, tmp_path)
    peer, images = open_peer(name, yes=True), photos(3, PEERS[name].size)
    expected = normalised(images).mean((2, 3))
    for prefix, _, _ in STATES[name]:
        expected = F.linear(expected, state[f"{prefix}fc.weight"], state[f"{prefix}fc.bias"])
    assert peer.size == 322 and not peer.training
    torch.testing.assert_close(peer(images), F.normalize(expected, dim=1), atol=1e-5, rtol=0)
    assert capsys.readouterr().out == ""  # what foreign code prints is not our answer


@pytest.mark.parametrize("name", HUBS)
def test_the_identity_knows_code_and_weights(name, tmp_path):
    install(name, tmp_path)
    first = open_peer(name, yes=True).identity
    source = PEERS[name]
    assert first["commit"] == source.commit and len(source.commit) == 40
    assert first["entry"] == source.entry and first["arguments"] == source.arguments
    assert open_peer(name, yes=True).identity == first
    file = tmp_path / "checkpoints" / WEIGHTS[name]
    if file.suffix == ".safetensors":
        save_file({"fc.weight": torch.ones(8448, 3), "fc.bias": torch.ones(8448)}, file)
    else:
        content = torch.load(file, weights_only=False)
        for tensor in content.get("model_state_dict", content).values():
            tensor.add_(1)
        torch.save(content, file)
    other = open_peer(name, yes=True).identity
    assert other["weights"] != first["weights"]
    assert other | {"weights": 0} == first | {"weights": 0}


@pytest.mark.parametrize("name", HUBS)
def test_consent(name, tmp_path, refused, monkeypatch):
    mark = tmp_path / "ran"
    install(name, tmp_path, f"open({str(mark)!r}, 'w').close()\n{CODE[name]}")
    monkeypatch.setattr(sys.stdin, "isatty", lambda: False, raising=False)
    refused(lambda: open_peer(name), name, PEERS[name].repository, "--yes")
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    for answer in ({"return_value": ""}, {"side_effect": EOFError}):  # Enter, Ctrl-D
        monkeypatch.setattr("builtins.input", Mock(**answer))
        refused(lambda: open_peer(name), name, "was not run")
    assert not mark.exists()
    monkeypatch.setattr("builtins.input", lambda question: "y")
    open_peer(name)
    assert mark.exists()


@pytest.mark.parametrize("name", HUBS)
def test_without_a_network_a_repository_says_what_to_put_where(name, tmp_path, refused):
    source = PEERS[name]
    folders = {
        repository: tmp_path / f"{repository.replace('/', '_')}_{commit}"
        for repository, commit in [(source.repository, source.commit)]
        + [(other, commit) for other, (commit, _) in source.loads.items()]
    }
    file = tmp_path / "checkpoints" / WEIGHTS[name]
    line = refused(lambda: open_peer(name, yes=True), source.weights, file, *folders.values())
    assert all(f"{source_}/archive/" in line for source_ in folders)
    install(name, tmp_path)
    file.unlink()
    line = refused(lambda: open_peer(name, yes=True), f"{source.weights} as {file}")
    assert "archive" not in line


def test_without_a_network_a_weights_file_says_where_it_goes(tmp_path, refused):
    file = tmp_path / "checkpoints" / "ResNet50_2048_eigenplaces.pth"
    url = PEERS["eigenplaces-r50-2048"].url
    refused(lambda: open_peer("eigenplaces-r50-2048"), f"{url} as {file}", "TORCH_HOME")


def test_weights_in_a_hub_of_hugging_face_are_not_downloaded_again(tmp_path, monkeypatch):
    install("megaloc", tmp_path)
    elsewhere = tmp_path / "kept.safetensors"
    (tmp_path / "checkpoints" / WEIGHTS["megaloc"]).rename(elsewhere)
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *names: str(elsewhere))
    assert open_peer("megaloc", yes=True).dim == 8448


def test_a_weights_file_runs_no_code(tmp_path, refused):
    class Hostile:
        def __reduce__(self):
            return (open, (str(tmp_path / "made"), "w"))

    assert pickle.loads(pickle.dumps(Hostile())).name  # it would
    (tmp_path / "made").unlink()
    install("boq-dinov2", tmp_path, content={"fc.weight": Hostile()})
    refused(lambda: open_peer("boq-dinov2", yes=True), "boq-dinov2", "failed", "dinov2_12288.pth")
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    "old, new, words",
    [
        ("return self.fc(x.mean((2, 3)))", "return self.fc((x - x.mean(0)).mean((2, 3)))", "batch"),
        ("return self.fc(x.mean((2, 3)))", "return self.fc(x.mean((2, 3)))[:, 1:]", "(2, 8447)"),
        ("return self.fc(x.mean((2, 3)))", "return self.fc(x.mean((2, 3))) * torch.nan", "finite"),
        ("net = Tiny(8448)", "torch.hub.load('a/b', 'c')", "code of a/b too"),
        ("net = Tiny(8448)", "import nothing_of_that_name", "pip install nothing_of_that_name"),
        ("net = Tiny(8448)", "raise ValueError('odd')", "failed (ValueError: odd)"),
    ],
)
def test_what_a_repository_may_not_do(old, new, words, tmp_path, refused):
    load, from_url = torch.hub.load, torch.hub.load_state_dict_from_url
    code = CODE["megaloc"] + TINY
    assert old in code
    install("megaloc", tmp_path, code.replace(old, new))
    refused(lambda: open_peer("megaloc", yes=True), "megaloc", words)
    assert (torch.hub.load, torch.hub.load_state_dict_from_url) == (load, from_url)


def test_names(refused):
    refused(lambda: open_peer("cricavpr"), "cricavpr", "depends on the other photos")
    refused(lambda: open_peer("megalock"), "'megalock'", *PEERS)
