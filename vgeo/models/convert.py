"""Checkpoints of others: CosPlace's and the report's authors' .pth files become our weights files, and ours become theirs.

Their names, after CosPlace's, GeoWarp's and the authors' public code: `backbone.*` and `aggregation.*`, the same below
`features_extractor.` beside `homography_regression.*`, `domain_discriminator.*` or `discriminator.*`, all perhaps below `module.`.
"""

import hashlib
import json
from pathlib import Path

import torch

from vgeo.errors import VgeoError
from vgeo.models.discriminator import Discriminator
from vgeo.models.geowarp import GRID, Regression
from vgeo.models.network import BACKBONES, build
from vgeo.models.weights import fit, read_weights, save_weights

# A name that only this backbone's state has. EfficientNetV2-S is numbered one level deeper here than by the authors.
KNOWN_BY = {
    "resnet18": "backbone.4.0.conv1.weight",
    "efficientnet_v2_s": "backbone.0.1.0.block.0.0.weight",
}


MODEL = (
    "backbone.",
    "aggregation.",
    "features_extractor.backbone.",
    "features_extractor.aggregation.",
)


REGRESSION, DISCRIMINATOR = ("homography_regression.",), ("domain_discriminator.", "discriminator.")


def read_pth(path):
    """The parts of a .pth checkpoint -> (backbone, model, {"regression", "discriminator": those there are}, names that fit nowhere).

    The model and the parts are in evaluation mode, on the CPU. A training checkpoint's `model_state_dict` is taken. Nothing but tensors and plain
    values is unpickled. Raises VgeoError, in one line, for a file that is missing, damaged or holds anything else, and for weights that
    are not exactly a model's of ours.
    """
    path = Path(path)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise VgeoError(f"{path}: no such checkpoint: check the path") from None
    except Exception as error:  # torch.load names no type for what it can't read
        raise VgeoError(
            f"{path}: not a checkpoint of tensors alone ({type(error).__name__}): save its state_dict again with torch.save"
        ) from None
    state = state.get("model_state_dict", state) if isinstance(state, dict) else None
    if not state or not all(
        isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in state.items()
    ):
        raise VgeoError(
            f"{path}: holds no state_dict: save the model's, torch.save(model.state_dict(), path)"
        )

    state = {name.removeprefix("module."): value for name, value in state.items()}
    model = {
        name.removeprefix("features_extractor."): value
        for name, value in state.items()
        if name.startswith(MODEL)
    }
    if "backbone.1.0.block.0.0.weight" in model:
        model = {
            name.replace("backbone.", "backbone.0.", 1): value for name, value in model.items()
        }
    backbone = next((name for name, key in KNOWN_BY.items() if key in model), None)
    if backbone is None or "aggregation.3.weight" not in model:
        raise VgeoError(
            f"{path}: is not a CosPlace network with {' or '.join(BACKBONES)}: its first names are {', '.join(list(state)[:3])}"
        )
    built = fit(build(backbone, dim=len(model["aggregation.3.weight"])), model, path).eval()

    parts = {}
    if warp := _below(state, REGRESSION, {"conv.": "layers."}):
        warp["layers.0.weight"] = _transposed_positions(warp.get("layers.0.weight"), path)
        parts["regression"] = fit(Regression(), warp, path).eval()
    if domain := _below(
        state, DISCRIMINATOR, {"1.": "layers.0.", "3.": "layers.2.", "5.": "layers.4."}
    ):  # the first, the reversal, has no weights
        outputs = len(domain.get("layers.4.bias", ())) or 2
        parts["discriminator"] = fit(
            Discriminator(BACKBONES[backbone][2], outputs), domain, path
        ).eval()
    return (
        backbone,
        built,
        parts,
        [name for name in state if not name.startswith(MODEL + REGRESSION + DISCRIMINATOR)],
    )


def open_model(path):
    """The model of a weights file -> (GeoModel in evaluation mode on the CPU, the image size in pixels that its recipe names, or None).

    path: a .pth as `read_pth` takes it, or a .safetensors of ours with the recipe that lies beside it. Raises VgeoError as they do.
    """
    path = Path(path)
    if path.suffix == ".pth":
        return read_pth(path)[1], None
    state = read_weights(path)
    backbone = next((name for name, key in KNOWN_BY.items() if key in state), None)
    if backbone is None or "aggregation.3.weight" not in state:
        raise VgeoError(
            f"{path}: holds no model with {' or '.join(BACKBONES)}: give a model.safetensors, or a .pth of CosPlace's"
        )
    model = fit(build(backbone, dim=len(state["aggregation.3.weight"])), state, path).eval()
    recipe = path.with_suffix(".json")
    return model, json.loads(recipe.read_text()).get("image_size") if recipe.exists() else None


def _below(state, prefixes, renamed):
    """What lies below one of the prefixes, without it; renamed: {their next part of a name: ours}."""
    found = {
        name[len(prefix) :]: value
        for name, value in state.items()
        for prefix in prefixes
        if name.startswith(prefix)
    }
    return {
        next(
            (new + name[len(old) :] for old, new in renamed.items() if name.startswith(old)), name
        ): value
        for name, value in found.items()
    }


def convert(path, folder):
    """Writes a .pth checkpoint's model, and its regression or discriminator, as `<part>.safetensors` in the folder -> lines that say so."""
    backbone, model, parts, unknown = read_pth(path)
    recipe = {
        "backbone": backbone,
        "source": Path(path).name,
        "sha256": hashlib.sha256(Path(path).read_bytes()).hexdigest(),
    }
    lines = []
    for name, part in {"model": model, **parts}.items():
        target = Path(folder) / f"{name}.safetensors"
        save_weights(part, target, recipe)
        lines.append(
            f"{target}: {name}, {backbone}, {sum(p.numel() for p in part.parameters()):,} parameters"
        )
    if unknown:
        lines.append(
            f"left out: {', '.join(unknown[:3])}"
            + (f" and {len(unknown) - 3} more" if len(unknown) > 3 else "")
        )
    return lines


def export(model, path, regression=None):
    """Writes a model as a .pth that the public CosPlace code loads, or with a warping regression as one that the authors' code does."""
    state = {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}
    if model.backbone_name == "efficientnet_v2_s":
        state = {
            name.replace("backbone.0.", "backbone.", 1): value for name, value in state.items()
        }
    if regression is not None:
        state = {f"features_extractor.{name}": value for name, value in state.items()}
        theirs = {
            name.replace("layers.", "conv.", 1): value.detach().cpu().clone()
            for name, value in regression.state_dict().items()
        }
        theirs["conv.0.weight"] = _transposed_positions(theirs["conv.0.weight"], path)
        state |= {f"homography_regression.{name}": value for name, value in theirs.items()}
    torch.save(state, path)


def _transposed_positions(weight, path):
    """The first convolution's input channels, the positions in image a, read column by column instead of row by row, or the other way."""
    if weight is None or weight.shape[1] != GRID * GRID:
        raise VgeoError(
            f"{path}: its homography regression does not start from a {GRID} x {GRID} grid: no model of ours fits it"
        )
    return weight.unflatten(1, (GRID, GRID)).transpose(1, 2).flatten(1, 2).contiguous()
