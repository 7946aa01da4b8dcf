"""Weights files: safetensors, each with its recipe beside it as .json."""

import hashlib
import http.client
import json
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import TypeVar

import safetensors.torch
import torch
from torch import Tensor, nn

from vgeo.errors import VgeoError
from vgeo.files import write

CITY_WEIGHTS = Path(__file__).parent / "pretrained"
SCALE = ".scale8"  # ends the name of a scale: below a tensor's name no module has another tensor
DOWNLOAD_SECONDS = 20  # torch.hub sets no limit and would wait for minutes behind a firewall

Model = TypeVar("Model", bound=nn.Module)
State = dict[str, Tensor]


def save_weights(
    model_or_state: nn.Module | State,
    path: str | PathLike,
    recipe: dict,
    dtype: torch.dtype | None = None,
    in_bytes: bool = False,
) -> None:
    """Writes the tensors to `path` (.safetensors) and the recipe, JSON values, beside it (.json).

    The recipe is written first, and each file appears whole: weights that exist have a recipe.

    Parameters
    ----------
    dtype : the type in which floating-point tensors are stored, for example torch.float16; None
        keeps their own.
    in_bytes : whether every floating-point tensor of two or more dimensions is stored in int8, with
        a float32 scale for each of its output channels, which are dimension 0. Vectors are stored
        as without it: BatchNorm's statistics need their range.

    Raises
    ------
    VgeoError : a value is not finite, in the model or as `dtype`.
    """
    path, state = Path(path), {}
    for name, tensor in _state(model_or_state).items():
        scaled = in_bytes and tensor.is_floating_point() and tensor.dim() > 1
        if tensor.is_floating_point():
            tensor = tensor.to(torch.float32 if scaled else dtype or tensor.dtype)
        if not tensor.isfinite().all():
            raise VgeoError(
                f"{path}: not saved: {name} has values that are not finite as {tensor.dtype}"
            )
        if scaled:
            tensor, state[name + SCALE] = _in_bytes(tensor)
        state[name] = tensor.contiguous()  # safetensors refuses layouts such as channels_last
    write(path.with_suffix(".json"), json.dumps(recipe, indent=2) + "\n")
    write(path, safetensors.torch.save(state))


def load_weights(model: Model, path: str | PathLike) -> Model:
    """Loads a file of `save_weights` into the model, in its dtype and on its device; returns it.

    Raises
    ------
    VgeoError : the file is missing, damaged or of another format, or does not fit (`load_state`).
    """
    return load_state(model, read_weights(path), path)


def load_state(model: Model, state: State, path: str | PathLike) -> Model:
    """Loads a state dict into the model and returns the model; `path` names it in messages.

    Raises
    ------
    VgeoError : names or shapes are not exactly the model's, or a value is not finite. The model is
        then unchanged.
    """
    own = model.state_dict()
    faults = {
        "missing": own.keys() - state.keys(),
        "unexpected": state.keys() - own.keys(),
        "another shape": {
            f"{name} {tuple(state[name].shape)}, not {tuple(own[name].shape)}"
            for name in own.keys() & state.keys()
            if state[name].shape != own[name].shape
        },
        "not finite": {name for name, tensor in state.items() if not tensor.isfinite().all()},
    }
    if any(faults.values()):
        words = "; ".join(f"{fault}: {some(names)}" for fault, names in faults.items() if names)
        name = getattr(model, "backbone_name", type(model).__name__)
        raise VgeoError(
            f"{path}: not weights of this {name} ({words}): build the model that they were saved "
            "from"
        )
    model.load_state_dict(state)
    return model


def read_weights(path: str | PathLike) -> State:
    """The tensors of a weights file by name; those that it holds in int8 are float32 again.

    Raises
    ------
    VgeoError : the file is missing or damaged.
    """
    try:
        stored = safetensors.torch.load_file(path)
    except FileNotFoundError:
        raise VgeoError(
            f"{path}: no such weights file: check the path, or train these weights first"
        ) from None
    except (safetensors.SafetensorError, OSError) as error:
        raise VgeoError(
            f"{path}: not a whole safetensors file ({error}): save it again, or fetch it again"
        ) from None
    scales = {n.removesuffix(SCALE): stored.pop(n) for n in sorted(stored) if n.endswith(SCALE)}
    in_bytes = {name for name, tensor in stored.items() if tensor.dtype == torch.int8}
    if unpaired := in_bytes ^ scales.keys():
        raise VgeoError(
            f"{path}: damaged weights (in int8 without a scale, or a scale without int8: "
            f"{some(unpaired)}): save it again, or fetch it again"
        )
    for name, scale in scales.items():
        if scale.shape != stored[name].shape[:1]:
            raise VgeoError(
                f"{path}: damaged weights ({len(stored[name])} channels of {name} have scales "
                f"{tuple(scale.shape)}): save it again, or fetch it again"
            )
        stored[name] = (stored[name].flatten(1) * scale[:, None]).view_as(stored[name])
    return stored


def weights_hash(source: nn.Module | State | str | PathLike) -> str:
    """SHA-256 (64 hex digits) of the names, dtypes, shapes and values of a model, state or file."""
    state = read_weights(source) if isinstance(source, str | PathLike) else _state(source)
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def imagenet_state(url: str) -> State:
    """The state dict of torchvision at `url`, from torch.hub's folder or else from the server.

    Raises
    ------
    VgeoError : the server can't be reached, or the file is damaged.
    """
    file = Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[1]
    try:
        with impatient():
            return torch.hub.load_state_dict_from_url(
                url, map_location="cpu", check_hash=True, weights_only=True
            )
    except (OSError, http.client.HTTPException) as error:
        raise VgeoError(
            f"ImageNet weights not reached ({error}): download {url} on a machine with a network "
            f"and put it here as {file} (the environment variable TORCH_HOME moves that folder)"
        ) from None
    except Exception as error:  # torch.load raises almost anything on a damaged file
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise VgeoError(
            f"{file}: damaged ImageNet weights ({reason}): delete it, or put {url} in its place"
        ) from None


@contextmanager
def impatient() -> Iterator[None]:
    """A server that does not answer is given up after DOWNLOAD_SECONDS."""
    timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(DOWNLOAD_SECONDS)
    try:
        yield
    finally:
        socket.setdefaulttimeout(timeout)


def some(names: Iterable[str]) -> str:
    """The first three names in order, and how many more there are."""
    names = sorted(names)
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _in_bytes(tensor: Tensor) -> tuple[Tensor, Tensor]:
    """A float32 tensor in int8, and its channels' scales: the tensor is nearly int8 * scale.

    A scale is the channel's largest absolute value over 127. That of the product is the same again,
    so that what was read is stored again without a change.
    """
    channels = tensor.flatten(1)
    scale = channels.abs().amax(1) / 127
    scale = scale.clamp(min=torch.finfo(torch.float32).tiny)  # a channel of zeros: no 0 / 0
    # rounded up, the scale of float32's largest value would give infinity back
    scale = torch.where((127 * scale).isinf(), scale.nextafter(torch.zeros_like(scale)), scale)
    return (channels / scale[:, None]).round().to(torch.int8).view_as(tensor), scale


def _state(model_or_state: nn.Module | State) -> State:
    """The tensors by name, on the CPU and without gradients."""
    state = model_or_state.state_dict() if isinstance(model_or_state, nn.Module) else model_or_state
    return {name: tensor.detach().cpu() for name, tensor in state.items()}
