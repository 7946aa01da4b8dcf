"""A start for the head's linear layer: the PCA whitening of pooled features."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vgeo.errors import VgeoError
from vgeo.models.network import GeoModel

# 0.1 and 1 give nearly the same recalls on validation streets: docs/original.md.
SHRINKAGE = 0.1


def whitening(features: Tensor, dim: int, shrinkage: float = SHRINKAGE) -> tuple[Tensor, Tensor]:
    """The linear map that makes the features' strongest components equally strong.

    It is x -> W (x - mean), whose rows are the principal axes, each divided by the square root of
    its variance plus `shrinkage` times the mean variance of the `dim` axes. Without the shrinkage,
    axes that hold noise alone would count as much as the others. N features have variance along
    N - 1 axes at most; the other axes are divided by the shrinkage's part alone.

    Parameters
    ----------
    features : (N, C), N at least 2.
    dim : axes to keep, at most C.

    Returns
    -------
    weight, bias : float32 (dim, C) and (dim,).

    Raises
    ------
    VgeoError : there are fewer than two features, or they have fewer numbers than `dim`.

    References
    ----------
    Jegou and Chum, "Negative evidences and co-occurences in image retrieval: the benefit of PCA and
    whitening", ECCV 2012.
    """
    count, channels = features.shape
    if count < 2 or dim > channels:
        raise VgeoError(
            f"{count} photos of {channels} features can't be whitened to {dim} numbers: give at "
            "least 2 photos, and ask for no more numbers than features"
        )
    features = features.cpu().double()
    mean = features.mean(0)
    # torch.linalg.eigh fails on some processors where there are far fewer features than axes
    found = np.linalg.eigh(torch.cov(features.T).numpy())
    variance, axes = map(torch.from_numpy, found)  # in ascending order
    variance, axes = variance[-dim:].flip(0).clamp(min=0), axes[:, -dim:].flip(1).T
    # an axis has two directions: its largest number is made positive
    axes = axes * axes.gather(1, axes.abs().argmax(1, keepdim=True)).sign()
    # features that are all equal have no variance at all
    divisor = (variance + shrinkage * variance.mean()).clamp(min=torch.finfo(variance.dtype).eps)
    weight = axes / divisor.sqrt()[:, None]
    return weight.float(), (-weight @ mean).float()


def whiten_head(model: GeoModel, features: Tensor) -> None:
    """Sets the head's linear layer to the whitening of pooled features, float (N, C)."""
    head: Any = model.aggregation
    weight, bias = whitening(features, head[3].out_features)
    with torch.no_grad():
        head[3].weight.copy_(weight)
        head[3].bias.copy_(bias)


class Pooled(nn.Module):
    """The features of a model that its head's linear layer takes."""

    def __init__(self, model: GeoModel):
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        """`normalise`d images (B, 3, H, W) -> float32 (B, C)."""
        return self.model.aggregation[:3](self.model.features(images).float())


@torch.inference_mode()
def describe_pooled(model: GeoModel, features: Tensor) -> Tensor:
    """Descriptors, float32 (N, D) of unit length, of what `Pooled` returned, float32 (N, C)."""
    head = model.aggregation[3:]
    return head(features.to(next(head.parameters()).device))
