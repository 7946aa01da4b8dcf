"""One angular-margin loss; CosFace, ArcFace and SphereFace are three settings of it."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from vgeo.errors import VgeoError


@dataclass(frozen=True)
class Margin:
    """The true class's logit is s (cos(m1 theta + m2) - m3), others' s cos(theta); m2 in radians.

    References
    ----------
    Deng et al., ArcFace, CVPR 2019, eq. 4: the combined margin.
    """

    s: float
    m1: float = 1.0
    m2: float = 0.0
    m3: float = 0.0

    def __post_init__(self):
        values = (self.s, self.m1, self.m2, self.m3)
        if not all(map(math.isfinite, values)) or min(self.s, self.m1) <= 0:
            raise VgeoError(
                f"{self}: the scale s and the factor m1 must be above 0, and all four finite"
            )


MARGINS = {
    "CosFace": Margin(s=30, m3=0.40),  # Wang et al., CVPR 2018
    "ArcFace": Margin(s=64, m2=0.5),  # Deng et al., CVPR 2019
    "SphereFace": Margin(s=30, m1=1.5),  # Liu et al., CVPR 2017
}


def angle(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Angle in [0, pi] between unit vectors a and b, (..., D) each -> (...).

    Computed as 2 atan2(|a - b|, |a + b|). Unlike the acos of their product this loses no digits
    near 0 and pi, and its gradient is finite there.

    References
    ----------
    Kahan, How Futile are Mindless Assessments of Roundoff in Floating-Point Computation?,
    section 12.
    """
    apart, along = (torch.linalg.vector_norm(each, dim=-1) for each in (a - b, a + b))
    return 2 * torch.atan2(apart, along)


def psi(theta: torch.Tensor, margin: Margin) -> torch.Tensor:
    """The true class's score for angles in [0, pi]: cos(m1 theta + m2) - m3, made monotonic.

    The extension is (-1)^k cos(phi) - 2k with k = floor(phi / pi), phi = m1 theta + m2. Without it
    the score rises again once phi passes pi, and a descriptor opposite to its class is pushed
    further away.

    References
    ----------
    Liu et al., SphereFace, CVPR 2017, eq. 7.
    """
    phi = margin.m1 * theta + margin.m2
    k = torch.floor(phi.detach() / math.pi)
    return (1 - 2 * (k % 2)) * torch.cos(phi) - 2 * k - margin.m3


class AngularMarginLoss(nn.Module):
    """Softmax cross-entropy over cosines to one vector a class, with a margin on the true class.

    `weight`, (classes, dim), is the classifier of the training. It has its own optimizer and is
    dropped after the training.

    Parameters
    ----------
    detached : compute the margin without gradient, as the original does ("characteristic gradient
        detachment"): the loss has the margin's value, and on the way back the true class's logit is
        s cos(theta). False: the gradient of the whole expression. For CosFace the two are the same.

    References
    ----------
    Liu et al., SphereFace Revived: Unifying Hyperspherical Face Recognition, TPAMI 2022.
    """

    def __init__(self, dim: int, classes: int, margin: Margin, detached: bool = True):
        super().__init__()
        self.margin, self.detached = margin, detached
        self.weight = nn.Parameter(torch.empty(classes, dim))
        nn.init.xavier_uniform_(self.weight)

    def forward(self, descriptors: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Descriptors (B, dim) of any floating type, labels (B,) int64 -> scalar mean.

        Computed in float32, or in float64 when given float64, whatever autocast says: bfloat16
        knows a logit near 64 only to 0.25.
        """
        with torch.autocast(descriptors.device.type, enabled=False):
            dtype = torch.promote_types(descriptors.dtype, torch.float32)
            descriptors = F.normalize(descriptors.to(dtype))
            weight = F.normalize(self.weight.to(dtype))
            cosines = descriptors @ weight.T
            true = labels[:, None]
            cosine = cosines.gather(1, true)
            if self.margin.m1 == 1 and self.margin.m2 == 0:
                score = cosine - self.margin.m3  # no angle is needed: theta never passes pi
            else:
                score = psi(angle(descriptors, weight[labels]), self.margin)[:, None]
                if self.detached:
                    score = cosine + (score - cosine).detach()
            return F.cross_entropy(self.margin.s * cosines.scatter(1, true, score), labels)


def tell_apart(
    descriptors: torch.Tensor, others: torch.Tensor, temperature: float = 0.1
) -> torch.Tensor:
    """InfoNCE: each descriptor should be nearest to its own counterpart among the batch's.

    References
    ----------
    van den Oord et al., Representation Learning with Contrastive Predictive Coding, 2018, eq. 4.
    """
    own = torch.arange(len(descriptors), device=descriptors.device)
    with torch.autocast(descriptors.device.type, enabled=False):
        return F.cross_entropy(descriptors @ others.T / temperature, own)
