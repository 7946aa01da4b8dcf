"""Published models of others, by name: where they come from and what images they take.

CosPlace and EigenPlaces are weights files for a network of ours, and no foreign code runs. The
others are repositories with code, which torch.hub gets at a pinned commit and runs.

References
----------
Berton, Trivigno, Caputo, Masone, "EigenPlaces: Training viewpoint robust models for visual place
recognition", ICCV 2023. Berton, Masone, "MegaLoc: One retrieval to place them all", CVPR workshops
2025. Ali-bey, Chaib-draa, Giguère, "BoQ: A place is worth a bag of learnable queries", CVPR 2024.
Lu et al., "SelaVPR++: Towards seamless adaptation of foundation models for efficient place
recognition", PAMI 2026.
"""

import http.client
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vgeo.errors import VgeoError
from vgeo.models.convert import NUMPY, read_state
from vgeo.models.network import build, normalise
from vgeo.models.weights import impatient, load_state, weights_hash

ALIKE = 0.01  # the most that a descriptor, of length 1, may change with the photos beside it
HUGGING_FACE = "https://huggingface.co/"
TRUSTED = {"trust_repo": True, "skip_validation": True, "verbose": False}


@dataclass(frozen=True)
class Release:
    """A weights file for a network of ours.

    Attributes
    ----------
    size : pixels, the side of the images that the weights were trained on.
    """

    backbone: str
    dim: int
    url: str
    size: int = 512


@dataclass(frozen=True)
class Repository:
    """A model that torch.hub makes with the code of a repository.

    Attributes
    ----------
    repository, commit : owner/name on GitHub, and 40 hex digits.
    entry, arguments : the function of its hubconf.py, and what it is called with.
    weights : the URL of the file that the code downloads.
    loads : other repositories whose code it loads: {owner/name: (commit, arguments)}.
    """

    repository: str
    commit: str
    entry: str
    weights: str
    dim: int
    size: int = 322
    arguments: dict[str, Any] = field(default_factory=dict)
    loads: dict[str, tuple[str, dict[str, Any]]] = field(default_factory=dict)


PEERS: dict[str, Release | Repository] = {
    f"{method.lower()}-r{depth}-{dim}": Release(
        f"resnet{depth}",
        dim,
        f"https://github.com/gmberton/{method}/releases/download/v1.0/"
        f"ResNet{depth}_{dim}_{method.lower()}.pth",
    )
    for method in ("CosPlace", "EigenPlaces")
    for depth, dim in ((18, 512), (50, 2048))
}
PEERS |= {
    "megaloc": Repository(
        "gmberton/MegaLoc",
        "1af071c68fc3ab6c6018c5c868391763516e50f7",  # of 29 March 2026
        "get_trained_model",
        "https://huggingface.co/gberton/MegaLoc/resolve/main/model.safetensors",
        dim=8448,
    ),
    "boq-dinov2": Repository(
        "amaralibey/Bag-of-Queries",
        "1a4965ea7dfd9bd0dd846adf7a0e430f68101d12",  # of 16 March 2025
        "get_trained_boq",
        "https://github.com/amaralibey/Bag-of-Queries/releases/download/v1.0/dinov2_12288.pth",
        dim=12288,
        arguments={"backbone_name": "dinov2", "output_dim": 12288},
        # of 14 August 2025; its own weights are replaced by those of Bag-of-Queries
        loads={
            "facebookresearch/dinov2": (
                "b8931f7bf91576930313be2c6d6af376033b35f0",
                {"pretrained": False},
            )
        },
    ),
    "selavpr++": Repository(
        "Lu-Feng/SelaVPRplusplus",
        "56bd921cbd3d53e9c5f91d0aafff147f95fb362a",  # of 8 February 2026
        "SelaVPRplusplus",
        "https://github.com/Lu-Feng/SelaVPRplusplus/releases/download/SelaVPR%2B%2B/"
        "SelaVPRplusplus_base.pth",
        dim=2048,
        arguments={
            "backbone": "dinov2-base",
            "aggregation": "gem",
            "hashing": False,
            "rerank": False,
        },
    ),
}
DEPENDS = (
    "a photo's descriptor depends on the other photos of its batch, and an index would be wrong"
)
REFUSED = {"cricavpr": DEPENDS}


class Peer(nn.Module):
    """A published model, in evaluation mode.

    Attributes
    ----------
    size : pixels, both sides, that its images are resized to.
    dim : numbers in a descriptor.
    identity : JSON values that differ where descriptors can: a part of a cache's key.
    """

    def __init__(self, net: nn.Module, size: int, dim: int, identity: dict[str, Any]):
        super().__init__()
        self.net, self.size, self.dim = net, size, dim
        self.identity = identity | {"size": size, "weights": weights_hash(net)}
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, 3, size, size) -> descriptors, float32 (B, dim) of unit length.

        Parameters
        ----------
        images : RGB, uint8, 0 to 255; or float32, normalised already.
        """
        found = self.net(normalise(images) if images.dtype == torch.uint8 else images)
        found = found[0] if isinstance(found, tuple) else found  # without the attentions
        return F.normalize(found.float(), dim=1)


def open_peer(name: str, yes: bool = False) -> Peer:
    """The published model of that name, on the CPU; it is downloaded where it is not there yet.

    A model that is foreign code is checked with two images before it is returned.

    Parameters
    ----------
    name : of PEERS.
    yes : whether foreign code may run. False: the person at the terminal is asked.

    Raises
    ------
    VgeoError : no such name; no consent; the model can't be downloaded, or its weights do not fit;
        its descriptors have another length than they should, or depend on the batch.
    """
    if name in REFUSED:
        raise VgeoError(f"{name}: not used: {REFUSED[name]}: use one of {', '.join(PEERS)}")
    if name not in PEERS:
        raise VgeoError(f"no model {name!r}: use one of {', '.join(PEERS)}")
    source = PEERS[name]
    if isinstance(source, Release):
        file = _downloaded(name, source.url)
        empty = build(source.backbone, dim=source.dim)
        net: nn.Module = load_state(empty, read_state(file), file)
        return Peer(net, source.size, source.dim, {"model": name, "url": source.url})
    _consent(name, source, yes)
    identity = {
        "repository": source.repository,
        "commit": source.commit,
        "entry": source.entry,
        "arguments": source.arguments,
        "loads": source.loads,
    }
    peer = Peer(_from_hub(name, source), source.size, source.dim, identity)
    _check(name, peer)
    return peer


def _downloaded(name: str, url: str) -> Path:
    """The file of a URL in torch.hub's folder, where the authors' own code puts it too."""
    file = _checkpoint(url)
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            with impatient():
                torch.hub.download_url_to_file(url, str(file))
        except (OSError, http.client.HTTPException) as error:
            raise _not_downloaded(name, error, [f"{url} as {file}"]) from None
    return file


def _from_hub(name: str, source: Repository) -> nn.Module:
    """The network that the repository's code makes, with its weights."""
    try:
        with (
            _careful(name, source) as load,
            impatient(),
            redirect_stdout(sys.stderr),  # it may print, and our own output may be JSON
            warnings.catch_warnings(action="ignore"),
        ):
            place = f"{source.repository}:{source.commit}"
            net = load(place, source.entry, **TRUSTED, **source.arguments)
    except VgeoError:
        raise
    except ModuleNotFoundError as error:
        raise VgeoError(f"{name} needs {error.name}: pip install {error.name}") from None
    except Exception as error:  # foreign code raises anything
        if missing := _missing(source):
            raise _not_downloaded(name, error, missing) from None
        raise VgeoError(
            f"{name}: the code of {source.repository} failed ({type(error).__name__}: {error}): "
            f"if {_checkpoint(source.weights)} is damaged, delete it; else use another model"
        ) from None
    return net.module if isinstance(net, nn.DataParallel) else net


def _missing(source: Repository) -> list[str]:
    """For each download of the model that is not there: what to get, and as what file or folder."""
    lines, home = [], Path(torch.hub.get_dir())
    commits = {source.repository: source.commit}
    commits |= {repository: commit for repository, (commit, _) in source.loads.items()}
    for repository, commit in commits.items():
        folder = home / f"{repository.replace('/', '_')}_{commit}"
        if not folder.exists():
            archive = f"https://github.com/{repository}/archive/{commit}.zip"
            lines.append(f"the content of {archive} as {folder}")
    if not (file := _checkpoint(source.weights)).exists():
        lines.append(f"{source.weights} as {file}")
    return lines


def _checkpoint(url: str) -> Path:
    """Where torch.hub keeps the file of a URL. Of model.safetensors the name says whose it is."""
    name = url.rsplit("/", 1)[1]
    if url.startswith(HUGGING_FACE):
        name = "_".join([*url.removeprefix(HUGGING_FACE).split("/")[:2], name])
    return Path(torch.hub.get_dir()) / "checkpoints" / name


def _not_downloaded(name: str, error: Exception, missing: list[str]) -> VgeoError:
    return VgeoError(
        f"{name}: not downloaded ({' '.join(str(error).split())[:200]}): on a machine with a "
        f"network, get {', and '.join(missing)}, and copy it to the same place here (the "
        "environment variable TORCH_HOME moves these folders)"
    )


def _consent(name: str, source: Repository, yes: bool) -> None:
    """Raises VgeoError unless the person lets the repository's code run."""
    if yes:
        return
    repositories = " and ".join((source.repository, *source.loads))
    what = f"{name} runs code of github.com/{repositories}, which may do whatever you may do here"
    if not sys.stdin.isatty():
        raise VgeoError(f"{what}: say --yes to let it run")
    print(f"vgeo: {what} (commit {source.commit}).", file=sys.stderr)
    try:
        answer = input("Run it? [y/N] ")
    except EOFError:
        answer = ""
    if answer.strip().lower() not in ("y", "yes"):
        raise VgeoError(f"{name}: its code was not run: use a model without foreign code")


def _check(name: str, peer: Peer) -> None:
    """Raises VgeoError unless descriptors have their length and do not depend on the batch."""
    generator = torch.Generator().manual_seed(0)
    pair = torch.randint(
        0, 256, (2, 3, peer.size, peer.size), generator=generator, dtype=torch.uint8
    )
    pair[1] //= 4  # a dark one: two that look alike hide what they do to each other
    with torch.inference_mode():
        together = peer(pair)
        alone = torch.cat([peer(pair[:1]), peer(pair[1:])])
    if together.shape != (2, peer.dim) or not together.isfinite().all():
        raise VgeoError(
            f"{name}: its descriptors of two images are {tuple(together.shape)}, not (2, "
            f"{peer.dim}), or not finite: use another model"
        )
    if (together - alone).norm(dim=1).max() > ALIKE:
        raise VgeoError(f"{name}: not used: {DEPENDS}: use another model")


@contextmanager
def _careful(name: str, source: Repository) -> Iterator[Callable[..., Any]]:
    """Yields torch.hub.load; the code that it runs gets pinned repositories and mere tensors.

    Without this, torch.hub takes the newest commit of a repository, asks by input() whether to
    trust it, and runs code that a weights file may hold. The Hugging Face Hub asks its server even
    for a file that is here.
    """
    import huggingface_hub

    hub = torch.hub
    load, from_url, from_hugging_face = (
        hub.load,
        hub.load_state_dict_from_url,
        huggingface_hub.hf_hub_download,
    )

    def pinned(repository: str, entry: str, *args: Any, **kwargs: Any) -> Any:
        if repository not in source.loads:
            raise VgeoError(f"{name}: would run code of {repository} too: use another model")
        commit, arguments = source.loads[repository]
        return load(f"{repository}:{commit}", entry, *args, **kwargs | TRUSTED | arguments)

    def tensors(*args: Any, **kwargs: Any) -> Any:
        with torch.serialization.safe_globals(NUMPY):
            return from_url(*args, **kwargs | {"weights_only": True})

    def kept(repo_id: str, filename: str) -> str:
        cached = huggingface_hub.try_to_load_from_cache(repo_id, filename)
        url = f"{HUGGING_FACE}{repo_id}/resolve/main/{filename}"
        return cached if isinstance(cached, str) else str(_downloaded(name, url))

    hub.load, hub.load_state_dict_from_url = pinned, tensors  # type: ignore[assignment]
    huggingface_hub.hf_hub_download = kept  # type: ignore[assignment]
    try:
        yield load
    finally:
        hub.load, hub.load_state_dict_from_url = load, from_url
        huggingface_hub.hf_hub_download = from_hugging_face
