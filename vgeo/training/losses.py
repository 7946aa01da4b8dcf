"""One angular-margin loss; CosFace, ArcFace and SphereFace are three settings of it."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from vgeo.errors import VgeoError


@dataclass(frozen=True)
class Margin:
    """The true class's logit is s (cos(m1 theta + m2) - m3), any other's s cos(theta); m2 in radians.

    The combined margin of ArcFace (Deng et al., CVPR 2019, eq. 4).
    """

    s: float
    m1: float = 1.0
    m2: float = 0.0
    m3: float = 0.0

    def __post_init__(self):
        if (
            not all(math.isfinite(value) for value in (self.s, self.m1, self.m2, self.m3))
            or min(self.s, self.m1) <= 0
        ):
            raise VgeoError(
                f"{self}: the scale s and the factor m1 must be above 0, and all four finite"
            )


MARGINS = {
    "CosFace": Margin(s=30, m3=0.40),  # Wang et al., CVPR 2018
    "ArcFace": Margin(s=64, m2=0.5),  # Deng et al., CVPR 2019
    "SphereFace": Margin(s=30, m1=1.5),  # Liu et al., CVPR 2017
}


def angle(a, b):
    """Angle in [0, pi] between unit vectors a and b, (..., D) each -> (...).

    2 atan2(|a - b|, |a + b|) (Kahan, "How futile are mindless assessments of roundoff", section 12): unlike the
    acos of their product it loses no digits near 0 and pi, and its gradient is finite there.
    """
    return 2 * torch.atan2(
        torch.linalg.vector_norm(a - b, dim=-1), torch.linalg.vector_norm(a + b, dim=-1)
    )


def psi(theta, margin):
    """The true class's score for an angle in [0, pi] (any shape): cos(m1 theta + m2) - m3, made monotonic beyond pi.

    The extension is (-1)^k cos(phi) - 2k with k = floor(phi / pi), phi = m1 theta + m2 (SphereFace, eq. 7): without
    it the score rises again once phi passes pi, and a descriptor opposite to its class is pushed further away.
    """
    phi = margin.m1 * theta + margin.m2
    k = torch.floor(phi.detach() / math.pi)
    return (1 - 2 * (k % 2)) * torch.cos(phi) - 2 * k - margin.m3


class AngularMarginLoss(nn.Module):
    """Softmax cross-entropy over cosines to one learned vector a class, with an angular margin on the true class.

    `weight` is (classes, dim). It is the classifier of the training: it has its own optimiser and is dropped
    afterwards.
    """

    def __init__(self, dim, classes, margin):
        super().__init__()
        self.margin = margin
        self.weight = nn.Parameter(torch.empty(classes, dim))
        nn.init.xavier_uniform_(self.weight)

    def forward(self, descriptors, labels):
        """Descriptors (B, dim) of any floating type, labels (B,) int64 in [0, classes) -> scalar, the batch's mean.

        Computed in float32, or in float64 when given float64, whatever autocast says: bfloat16
        knows a logit near 64 only to 0.25.
        """
        with torch.autocast(descriptors.device.type, enabled=False):
            dtype = torch.promote_types(descriptors.dtype, torch.float32)
            descriptors = F.normalize(descriptors.to(dtype))
            weight = F.normalize(self.weight.to(dtype))
            cosines = descriptors @ weight.T
            true = labels[:, None]
            if self.margin.m1 == 1 and self.margin.m2 == 0:
                score = (
                    cosines.gather(1, true) - self.margin.m3
                )  # no angle needed: theta never passes pi
            else:
                score = psi(angle(descriptors, weight[labels]), self.margin)[:, None]
            return F.cross_entropy(self.margin.s * cosines.scatter(1, true, score), labels)
