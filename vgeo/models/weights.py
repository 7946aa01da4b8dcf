"""TODO: models.weights."""

import hashlib
import http.client
import json
import socket
from pathlib import Path

import safetensors.torch
import torch
from torch import nn

from vgeo.errors import VgeoError
from vgeo.files import _write_atomically

CITY_WEIGHTS = Path(__file__).parent / "pretrained"


def save_weights(model_or_state, path, recipe, dtype=None):
    """Write the tensors to `path` (.safetensors) and the recipe, a dict of JSON values, beside it as .json.

    dtype: floating-point tensors are stored as this, for example torch.float16, or as they are. Each file is
    written beside its place and renamed into it, the recipe first: weights that exist are whole and have a recipe.
    Raises VgeoError when a value is not finite, in the model or once stored as `dtype`.
    """
    path, state = Path(path), {}
    for name, tensor in _state(model_or_state).items():
        stored = tensor.to(dtype) if dtype and tensor.is_floating_point() else tensor
        if not stored.isfinite().all():
            raise VgeoError(
                f"{path}: not saved: {name} has values that are not finite as {stored.dtype}"
            )
        state[name] = (
            stored.contiguous()
        )  # safetensors refuses other layouts, such as channels_last
    _write_atomically(path.with_suffix(".json"), (json.dumps(recipe, indent=2) + "\n").encode())
    _write_atomically(path, safetensors.torch.save(state))


def load_weights(model, path):
    """Load a file of `save_weights` into the model, in the model's own dtype and on its device; returns the model.

    Raises VgeoError, in one line, when the file is missing, damaged or of another format, when its names or shapes
    are not exactly the model's, or when it has values that are not finite. The model is then unchanged.
    """
    return fit(model, read_weights(path), path)


def fit(model, state, path):
    """Loads a state dict, the content of `path`, as `load_weights` does a file; returns the model."""
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
        found = "; ".join(f"{fault}: {_some(names)}" for fault, names in faults.items() if names)
        name = getattr(model, "backbone_name", type(model).__name__)
        raise VgeoError(
            f"{path}: not weights of this {name} ({found}): build the model that they were saved from"
        )
    model.load_state_dict(state)
    return model


def weights_hash(source):
    """SHA-256 (hex) of the names, dtypes, shapes and values in a model, a state dict or a weights file."""
    state = read_weights(source) if isinstance(source, (str, Path)) else _state(source)
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def _state(model_or_state):
    """The tensors by name, on the CPU and without gradients."""
    state = model_or_state.state_dict() if isinstance(model_or_state, nn.Module) else model_or_state
    return {name: tensor.detach().cpu() for name, tensor in state.items()}


def read_weights(path):
    """The tensors of a weights file by name; raises VgeoError where it is missing or damaged."""
    try:
        return safetensors.torch.load_file(path)
    except FileNotFoundError:
        raise VgeoError(
            f"{path}: no such weights file: check the path, or train these weights first"
        ) from None
    except (safetensors.SafetensorError, OSError) as error:
        raise VgeoError(
            f"{path}: not a whole safetensors file ({error}): save it again, or fetch it again"
        ) from None


def _some(names):
    """The first three names in order, and how many there are more."""
    names = sorted(names)
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _imagenet_state(url):
    """torchvision's state dict, from its cache or its server."""
    file = Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[1]
    timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(
        20
    )  # seconds; torch.hub sets none, and would wait for minutes behind a firewall
    try:
        return torch.hub.load_state_dict_from_url(
            url, map_location="cpu", check_hash=True, weights_only=True
        )
    except (OSError, http.client.HTTPException) as error:
        raise VgeoError(
            f"ImageNet weights not reached ({error}): download {url} on a machine with a network and put it here as "
            f"{file} (the environment variable TORCH_HOME moves that folder)"
        ) from None
    except Exception as error:  # torch.load names no type for a damaged file: RuntimeError, EOFError, UnpicklingError
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise VgeoError(
            f"{file}: damaged ImageNet weights ({reason}): delete it, or put {url} in its place"
        ) from None
    finally:
        socket.setdefaulttimeout(timeout)
