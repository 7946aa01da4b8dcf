"""Reads and writes .pth checkpoints of CosPlace's authors and of the original's authors.

In their files the model lies below `backbone.` and `aggregation.`; in a GeoWarp checkpoint it lies
below `features_extractor.`, beside `homography_regression.`. A discriminator lies below
`domain_discriminator.` or `discriminator.`. All names may stand below `module.`, which DataParallel
puts before them.
"""

import json
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import torch
from torch import Tensor, nn

from vgeo.errors import VgeoError
from vgeo.files import sha256
from vgeo.models.discriminator import Discriminator
from vgeo.models.geowarp import GRID, Regression
from vgeo.models.network import BACKBONES, GeoModel, build
from vgeo.models.weights import State, load_state, read_weights, save_weights, some

# Each backbone by a name that only its state has.
KNOWN_BY = {
    "resnet18": "backbone.4.0.conv1.weight",
    "efficientnet_v2_s": "backbone.0.1.0.block.0.0.weight",
    "efficientnet_lite0": "backbone.0.1.0.conv_dw.weight",
}
EXTRACTOR = "features_extractor."
MODEL = ("backbone.", "aggregation.", f"{EXTRACTOR}backbone.", f"{EXTRACTOR}aggregation.")
REGRESSION = ("homography_regression.",)
DISCRIMINATOR = ("domain_discriminator.", "discriminator.")
# Their names of a part's layers: ours. The discriminator's layer 0, the reversal, has no weights.
REGRESSION_LAYERS = {"conv.": "layers."}
DISCRIMINATOR_LAYERS = {"1.": "layers.0.", "3.": "layers.2.", "5.": "layers.4."}


@dataclass(frozen=True)
class PthFile:
    """The parts of a .pth checkpoint, in evaluation mode on the CPU; None for a part it lacks.

    Attributes
    ----------
    unknown : the names of tensors that belong to no part.
    """

    model: GeoModel
    regression: Regression | None
    discriminator: Discriminator | None
    unknown: list[str]


def read_pth(path: str | PathLike) -> PthFile:
    """Reads a .pth checkpoint of CosPlace's or of the original's authors.

    Of a training checkpoint the `model_state_dict` is read. Only tensors and plain values are
    unpickled, so that no code runs.

    Raises
    ------
    VgeoError : the file is missing, damaged, holds anything else, or does not fit a model of ours.
    """
    state = {name.removeprefix("module."): tensor for name, tensor in _unpickled(path).items()}
    named = {
        name.removeprefix(EXTRACTOR): tensor
        for name, tensor in state.items()
        if name.startswith(MODEL)
    }
    if "backbone.1.0.block.0.0.weight" in named:  # ours numbers EfficientNetV2-S one level deeper
        named = {name.replace("backbone.", "backbone.0.", 1): named[name] for name in named}
    model = _model(named, path, state)
    regression = discriminator = None
    if layers := _below(state, REGRESSION, REGRESSION_LAYERS):
        layers["layers.0.weight"] = _transposed_positions(layers.get("layers.0.weight"), path)
        regression = load_state(Regression(), layers, path).eval()
    if layers := _below(state, DISCRIMINATOR, DISCRIMINATOR_LAYERS):
        domains = len(layers.get("layers.4.bias", ())) or 2
        empty = Discriminator(BACKBONES[model.backbone_name].channels, domains)
        discriminator = load_state(empty, layers, path).eval()
    known = MODEL + REGRESSION + DISCRIMINATOR
    unknown = [name for name in state if not name.startswith(known)]
    return PthFile(model, regression, discriminator, unknown)


def open_model(path: str | PathLike) -> tuple[GeoModel, int | None]:
    """The model of a weights file, in evaluation mode on the CPU, and its image size.

    Parameters
    ----------
    path : a .pth as `read_pth` takes it, or a .safetensors of ours.

    Returns
    -------
    The model, and the image side in pixels that the recipe beside a .safetensors names, or None.

    Raises
    ------
    VgeoError : the file is missing, damaged, or holds no model of ours.
    """
    path = Path(path)
    if path.suffix == ".pth":
        return read_pth(path).model, None
    state, recipe = read_weights(path), path.with_suffix(".json")
    size = json.loads(recipe.read_text()).get("image_size") if recipe.exists() else None
    return _model(state, path, state), size


def convert(path: str | PathLike, folder: str | PathLike) -> list[str]:
    """Writes each part of a .pth checkpoint into the folder, as model.safetensors and so on.

    Returns
    -------
    A line about each file that was written, and one about the tensors that were left out.

    Raises
    ------
    VgeoError : as `read_pth`.
    """
    content, lines = read_pth(path), []
    backbone = content.model.backbone_name
    recipe = {"backbone": backbone, "source": Path(path).name, "sha256": sha256(path)}
    for name in ("model", "regression", "discriminator"):
        part: nn.Module | None = getattr(content, name)
        if part is not None:
            target = Path(folder) / f"{name}.safetensors"
            save_weights(part, target, recipe)
            count = sum(parameter.numel() for parameter in part.parameters())
            lines.append(f"{target}: {name}, {backbone}, {count:,} parameters")
    return lines + ([f"left out: {some(content.unknown)}"] if content.unknown else [])


def export(model: GeoModel, path: str | PathLike, regression: Regression | None = None) -> None:
    """Writes a .pth checkpoint for the code of others.

    Without a regression the public CosPlace code loads it, and the authors' eval.py. With one the
    authors' evalGeowarp.py loads it, which wraps its network in DataParallel before. Their code has
    no EfficientNet-Lite0: `read_pth` alone reads its checkpoints.
    """
    state = _copied(model)
    if model.backbone_name == "efficientnet_v2_s":
        state = {name.replace("backbone.0.", "backbone.", 1): state[name] for name in state}
    if regression is not None:
        layers = {name.replace("layers.", "conv.", 1): t for name, t in _copied(regression).items()}
        layers["conv.0.weight"] = _transposed_positions(layers["conv.0.weight"], path)
        state = {f"module.{EXTRACTOR}{name}": tensor for name, tensor in state.items()}
        state |= {f"module.{REGRESSION[0]}{name}": tensor for name, tensor in layers.items()}
    torch.save(state, path)


def _unpickled(path: str | PathLike) -> State:
    """The state dict in a .pth file."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise VgeoError(f"{path}: no such checkpoint: check the path") from None
    except Exception as error:  # torch.load names no type for what it can't read
        raise VgeoError(
            f"{path}: not a checkpoint of tensors alone ({type(error).__name__}): save its "
            "state_dict again with torch.save"
        ) from None
    state = state.get("model_state_dict", state) if isinstance(state, dict) else None
    if not state or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in state.items()
    ):
        raise VgeoError(
            f"{path}: holds no state_dict: save the model's, torch.save(model.state_dict(), path)"
        )
    return state


def _model(named: State, path: str | PathLike, state: State) -> GeoModel:
    """The model of a state dict with our names; `state` is the whole file's, for the message."""
    backbone = next((backbone for backbone, name in KNOWN_BY.items() if name in named), None)
    if backbone is None or "aggregation.3.weight" not in named:
        raise VgeoError(
            f"{path}: is not a CosPlace network with {' or '.join(BACKBONES)}, it holds no model: "
            f"its first names are {', '.join(list(state)[:3])}: give a model.safetensors or a .pth"
        )
    dim = len(named["aggregation.3.weight"])
    return load_state(build(backbone, dim=dim), named, path).eval()


def _below(state: State, prefixes: tuple[str, ...], layers: dict[str, str]) -> State:
    """The tensors below one of the prefixes, with our names; layers: {theirs: ours}."""
    part = {}
    for name, tensor in state.items():
        for prefix in filter(name.startswith, prefixes):
            name = name.removeprefix(prefix)
            theirs = next(filter(name.startswith, layers), "")
            part[layers.get(theirs, "") + name.removeprefix(theirs)] = tensor
    return part


def _copied(model: nn.Module) -> State:
    return {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}


def _transposed_positions(weight: Tensor | None, path: str | PathLike) -> Tensor:
    """The first convolution's weight for positions in image a that are numbered the other way.

    The authors number the positions column by column, we do row by row.
    """
    if weight is None or weight.shape[1] != GRID * GRID:
        raise VgeoError(
            f"{path}: its homography regression does not start from a {GRID} x {GRID} grid: no "
            "model of ours fits it"
        )
    return weight.unflatten(1, (GRID, GRID)).transpose(1, 2).flatten(1, 2).contiguous()
