"""GeoWarp: two photos of one place, each warped to the part that both show, are compared by their local features.

Berton et al., "Viewpoint invariant dense matching for visual geolocalization", ICCV 2021, and its public code; "the paper" below. Images
are `normalise`d float (B, 3, H, W). A quadrilateral is float (B, 4, 2): the corners (x, y) that become the top left, top right, bottom
right and bottom left of the warped image, in -1..1, where -1 and 1 are the centres of the border pixels (align_corners=True).
"""

import torch
import torch.nn.functional as F
from kornia.geometry.transform import get_perspective_transform, homography_warp
from torch import nn

GRID = 15  # local features a side


IDENTITY = torch.tensor(
    [[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]]
)  # the quadrilateral that leaves an image as it is


def local_features(maps):
    """Feature maps (B, C, h, w) of any size -> float32 (B, C, GRID, GRID), of unit length over the channels.

    Average-pooled as in the paper; maps with a side below GRID, from images smaller than its, are interpolated bilinearly.
    """
    maps = maps.float()
    if min(maps.shape[2:]) >= GRID:
        maps = F.adaptive_avg_pool2d(maps, GRID)
    else:
        maps = F.interpolate(maps, size=(GRID, GRID), mode="bilinear", align_corners=False)
    return F.normalize(maps, dim=1)


def correlation(a, b):
    """Inner products of all local features of a with all of b, both (B, C, GRID, GRID) -> (B, GRID * GRID, GRID, GRID).

    The last two dimensions are the position in b; there the channels are the positions in a, row by row, with negative products set
    to 0 and the whole of unit length (after Rocco et al., CVPR 2017).
    """
    products = torch.einsum("bcn,bcm->bnm", a.flatten(2), b.flatten(2))
    return F.normalize(F.relu(products), dim=1).unflatten(2, (GRID, GRID))


class Regression(nn.Module):
    """From the local features of two images to the quadrilaterals that show the same part; starts at the identity.

    The paper's layers: the six convolutions shrink the 15 x 15 positions to one. In training mode the last BatchNorm needs two pairs.
    """

    def __init__(self):
        super().__init__()
        channels = (GRID * GRID, 128, 128, 64, 64, 64, 64)
        layers = []
        for inputs, outputs, kernel in zip(channels, channels[1:], (7, 5, 5, 5, 5, 5)):
            layers += [
                nn.Conv2d(inputs, outputs, kernel, padding=1),
                nn.BatchNorm2d(outputs),
                nn.ReLU(),
            ]
        self.layers = nn.Sequential(*layers, nn.Flatten())
        self.linear = nn.Linear(channels[-1], 16)
        nn.init.zeros_(self.linear.weight)
        self.linear.bias.data = IDENTITY.repeat(2, 1).flatten()

    def forward(self, a, b):
        """Local features, (B, C, GRID, GRID) each -> (B, 2, 4, 2): the quadrilateral in image a and the one in image b."""
        found = self.layers(correlation(a, b))
        with torch.autocast(
            found.device.type, enabled=False
        ):  # bfloat16 knows a corner to 1/256, a pixel of 512
            return self.linear(found.float()).unflatten(1, (2, 4, 2))


def symmetric(regression, a, b):
    """`Regression` in both orders, averaged -> (B, 2, 4, 2): the same quadrilaterals whichever image comes first."""
    one, other = regression(torch.cat([a, b]), torch.cat([b, a])).chunk(2)
    return (one + other.flip(1)) / 2


def warp(images, quadrilaterals):
    """The part of each image (B, C, H, W) inside its quadrilateral (B, 4, 2), stretched to the whole frame -> (B, C, H, W).

    Bilinear, differentiable in both. What lies outside the image is 0, the mean colour of normalised ones.
    """
    whole = IDENTITY.to(images).expand_as(quadrilaterals)
    with torch.autocast(images.device.type, enabled=False):
        matrix = get_perspective_transform(
            whole, quadrilaterals.to(images)
        )  # from the warped frame to the image: where to sample
        return homography_warp(
            images, matrix, images.shape[2:], padding_mode="zeros", align_corners=True
        )
