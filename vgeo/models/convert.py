"""Reads and writes checkpoints of CosPlace's authors and of the original's authors.

In their files the model lies below `backbone.` and `aggregation.`; in a GeoWarp checkpoint it lies
below `features_extractor.`, beside `homography_regression.`. A discriminator lies below
`domain_discriminator.` or `discriminator.`. `read_state` says which files and names are taken.
"""

import json
import re
from dataclasses import dataclass
from functools import cache
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision.models as zoo
from torch import Tensor, nn

from vgeo.errors import VgeoError
from vgeo.files import sha256
from vgeo.models.discriminator import Discriminator
from vgeo.models.geowarp import GRID, Regression
from vgeo.models.network import BACKBONES, GeoModel, build
from vgeo.models.weights import State, load_state, read_weights, save_weights, some

# Each backbone by a name that its state has and those after it have not.
KNOWN_BY = {
    "resnet50": "backbone.4.0.conv3.weight",
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
# Where a training checkpoint keeps the state dict, beside what else it holds.
STATE_DICTS = ("model_state_dict", "state_dict", "model")
# Parts of names that DataParallel, torch.compile and, in front alone, Lightning add.
WRAPPERS = re.compile(r"^(?:(?:model|module|_orig_mod)\.)+|(?<=\.)(?:module|_orig_mod)\.")
# What NumPy's scalars and arrays are pickled with. Nothing of it runs code of the file.
NUMPY: list[Any] = [np.dtype, np.ndarray, *(type(np.dtype(x)) for x in "?bBhHiIlLqQefdSU")]
for made in np.float64(0), np.zeros(0):
    function: Any = made.__reduce__()[0]
    for core in "core", "_core":  # NumPy 1, NumPy 2
        NUMPY.append((function, f"numpy.{core}.multiarray.{function.__name__}"))
# Networks that are not ours, by a part of a name that their state has.
OTHERS = {
    "aggregator.agg.dust_bin": "MegaLoc",
    "aggregator.dust_bin": "SALAD",
    "boqs.0.queries": "Bag-of-Queries",
    "aggregator.mix.0.mix.": "MixVPR",
    "centroids": "NetVLAD",
    "cls_token": "a vision transformer, such as DINOv2",
}
FAMILIES = ("resnet", "vgg", "efficientnet")  # of torchvision, that CosPlace is trained with


@dataclass(frozen=True)
class PthFile:
    """The parts of a checkpoint, in evaluation mode on the CPU; None for a part it lacks.

    Attributes
    ----------
    unknown : the names of tensors that belong to no part.
    """

    model: GeoModel
    regression: Regression | None
    discriminator: Discriminator | None
    unknown: list[str]


def read_pth(path: str | PathLike) -> PthFile:
    """Reads a checkpoint of CosPlace's or of the original's authors.

    Raises
    ------
    VgeoError : as `read_state`, or the tensors do not fit a model of ours.
    """
    state = read_state(path)
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
    path : a checkpoint as `read_pth` takes it, or a .safetensors of ours.

    Returns
    -------
    The model, and the image side in pixels that the recipe beside a .safetensors names, or None.

    Raises
    ------
    VgeoError : the file is missing, damaged, or holds no model of ours.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        return read_pth(path).model, None
    state, beside = read_weights(path), path.with_suffix(".json")
    return _model(state, path, state), _image_size(beside) if beside.exists() else None


def _image_size(recipe: Path) -> int | None:
    """The image side that a recipe names. Raises VgeoError where it can't be one."""
    try:
        size = json.loads(recipe.read_text(encoding="utf-8")).get("image_size")
    except (ValueError, AttributeError) as error:  # no JSON, or no object
        raise VgeoError(f"{recipe}: is damaged: copy it again or remove it") from error
    if size is not None and (type(size) is not int or size < 1):
        raise VgeoError(f"{recipe}: image_size is {size!r}: give a whole number of pixels")
    return size


def convert(path: str | PathLike, folder: str | PathLike) -> list[str]:
    """Writes each part of a checkpoint into the folder, as model.safetensors and so on.

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


def read_state(path: str | PathLike) -> State:
    """The tensors by name of a checkpoint that torch.save wrote, whatever its file's ending.

    Of a training checkpoint the state dict of STATE_DICTS is read. The parts of names that wrappers
    of a network add (WRAPPERS) are left out. Only tensors, plain values and NumPy's numbers are
    unpickled, so that no code runs.

    Raises
    ------
    VgeoError : the file is missing or damaged, or holds anything else.
    """
    try:
        with torch.serialization.safe_globals(NUMPY):
            state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise VgeoError(f"{path}: no such checkpoint: check the path") from None
    except Exception as error:  # torch.load names no type for what it can't read
        raise VgeoError(
            f"{path}: not a checkpoint of tensors alone ({_held(path) or type(error).__name__}): "
            "save its state_dict again with torch.save"
        ) from None
    for _ in range(2):
        inside = [state[name] for name in STATE_DICTS if name in state] if _is_dict(state) else []
        state = next(filter(_is_dict, inside), state)
    if not (_is_dict(state) and state and all(isinstance(x, Tensor) for x in state.values())):
        raise VgeoError(
            f"{path}: holds no state_dict: save the model's, torch.save(model.state_dict(), path)"
        )
    plain = {WRAPPERS.sub("", name): tensor for name, tensor in state.items()}
    if len(plain) < len(state):
        raise VgeoError(
            f"{path}: holds several networks ({some(state)}): save one network's state_dict"
        )
    return plain


def _held(path: str | PathLike) -> str:
    """Which classes a checkpoint holds that are not read; "" where that can't be seen."""
    try:
        with torch.serialization.safe_globals(NUMPY):
            names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:  # torch.load raises almost anything on a damaged or old file
        return ""
    return f"it holds {some(names)}" if names else ""


def _is_dict(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(name, str) for name in value)


def _model(named: State, path: str | PathLike, state: State) -> GeoModel:
    """The model of a state dict with our names; `state` is the whole file's, for the message."""
    backbone = next((backbone for backbone, name in KNOWN_BY.items() if name in named), None)
    has_head = "aggregation.3.weight" in named
    try:
        if backbone and has_head:
            dim = len(named["aggregation.3.weight"])
            return load_state(build(backbone, dim=dim), named, path).eval()
    except VgeoError:
        if _network(named, state) in (None, backbone):
            raise
    held = _network(named or state, state)
    what = f"{held} with{'' if has_head else 'out'} CosPlace's head"
    if held is None:
        what = f"no model known here, its first names are {', '.join(list(state)[:3])}"
    raise VgeoError(
        f"{path}: is not a CosPlace network with {' or '.join(BACKBONES)}: it holds {what}: give "
        "a checkpoint or a model.safetensors of such a network"
    )


def _network(named: State, state: State) -> str | None:
    """The name of the network in a file, of OTHERS or of torchvision; None where it is unknown.

    A network of torchvision is known by the shapes of its tensors in their order, whatever their
    names, and without its last ones: CosPlace has another head in their place.

    Parameters
    ----------
    named : the tensors of the model; state : all tensors of the file.
    """
    for part, network in OTHERS.items():
        if any(part in name for name in state):
            return network
    found = _shapes({name: x for name, x in named.items() if not name.startswith("aggregation.")})
    for network, theirs in _torchvision_shapes().items():
        if len(found) > len(theirs) / 2 and found == theirs[: len(found)]:
            return network
    return None


@cache
def _torchvision_shapes() -> dict[str, list[torch.Size]]:
    names = [name for name in zoo.list_models(module=zoo) if name.startswith(FAMILIES)]
    with torch.device("meta"):  # no memory, no numbers
        return {name: _shapes(zoo.get_model(name, weights=None).state_dict()) for name in names}


def _shapes(state: State) -> list[torch.Size]:
    return [x.shape for name, x in state.items() if not name.endswith("num_batches_tracked")]


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
