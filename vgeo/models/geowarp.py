"""GeoWarp's layers: two photos of one place are warped to the part that both show, then compared.

Images are `normalise`d, float (B, 3, H, W). A quadrilateral is float (B, 4, 2): the points (x, y)
of the image that become the top left, top right, bottom right and bottom left corner of the warped
image. Coordinates run from -1 to 1, the centres of the border pixels (align_corners=True).

References
----------
Berton, Masone, Paolicelli, Caputo, "Viewpoint invariant dense matching for visual geolocalization",
ICCV 2021, called "the paper" here, and its public code.
"""

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

GRID = 15  # local features along each side of an image
# The quadrilateral that leaves an image as it is.
IDENTITY = torch.tensor([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]])


def local_features(maps: Tensor) -> Tensor:
    """Feature maps (B, C, h, w) -> float32 (B, C, GRID, GRID), of unit length over the channels.

    Maps are average-pooled as in the paper. A map with a side below GRID, of an image smaller than
    the paper's, is interpolated bilinearly.
    """
    maps = maps.float()
    if min(maps.shape[2:]) >= GRID:
        maps = F.adaptive_avg_pool2d(maps, GRID)
    else:
        maps = F.interpolate(maps, size=(GRID, GRID), mode="bilinear", align_corners=False)
    return F.normalize(maps, dim=1)


def correlation(a: Tensor, b: Tensor) -> Tensor:
    """Inner products of all local features of a with all of b, negative ones set to 0.

    Parameters
    ----------
    a, b : local features (B, C, GRID, GRID).

    Returns
    -------
    (B, GRID * GRID, GRID, GRID) of unit length over the channels. The channels are the positions in
    a, row by row; the last two dimensions are the position in b.

    References
    ----------
    Rocco, Arandjelovic, Sivic, "Convolutional neural network architecture for geometric matching",
    CVPR 2017.
    """
    products = torch.einsum("bcn,bcm->bnm", a.flatten(2), b.flatten(2))
    return F.normalize(F.relu(products), dim=1).unflatten(2, (GRID, GRID))


class FourierConv2d(nn.Conv2d):
    """A convolution of square maps that processors do in float32 as a product of spectra.

    The first layer of `Regression` then takes 21 million multiplications for a pair instead of 171
    million, and 142 million for the filters of a whole batch. The discrete Fourier transforms are
    matrix products, because the maps are small.

    References
    ----------
    Mathieu, Henaff, LeCun, "Fast training of convolutional networks through FFTs", ICLR 2014.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, n, n) -> (B, c, m, m)."""
        plain = self.stride == self.dilation == (1, 1) and self.groups == 1
        fits = plain and x.dtype == torch.float32 and x.shape[2] == x.shape[3]
        if x.device.type != "cpu" or not fits or torch.is_autocast_enabled("cpu"):
            return super().forward(x)
        side, kernel, padding = x.shape[2], self.kernel_size[0], int(self.padding[0])
        # the zeros on both sides of a map are the same zeros of a periodic map
        period, size = side + padding, side + 2 * padding - kernel + 1
        # frequencies first; the real parts of x are rows before its imaginary ones
        xs = torch.cat([*_spectrum(x.permute(2, 3, 0, 1), *_waves(period, side, padding))], dim=1)
        ws = _spectrum(self.weight.permute(2, 3, 1, 0), *_waves(period, kernel))
        # the spectrum of x times the conjugate of the filters': a matrix product each frequency
        (rr, ir), (ri, ii) = (product.chunk(2, dim=1) for product in xs @ ws)
        # back: the transposed transforms; a frequency stands for its negative too, but for 0 and
        # the highest of an even period
        down, along = _waves(period, size)
        frequencies = torch.arange(period // 2 + 1)
        counts = torch.where((2 * frequencies) % period == 0, 1.0, 2.0).repeat(2) / period**2
        spectra = torch.cat([rr + ii, ir - ri]).view(2 * period, -1)
        columns = (down.T @ spectra).view(size, len(counts), -1)
        maps = ((along * counts[:, None]).T @ columns).view(size, size, len(x), -1)
        maps = maps.permute(2, 3, 0, 1).contiguous()
        return maps if self.bias is None else maps + self.bias[:, None, None]


def _spectrum(maps: Tensor, down: Tensor, along: Tensor) -> Tensor:
    """Maps (n, n, A, B) -> real and imaginary parts (2, F, A, B) of F frequencies, by `_waves`."""
    rows = along @ maps.reshape(*maps.shape[:2], -1)
    return (down @ rows.reshape(down.shape[1], -1)).view(2, -1, *maps.shape[2:])


@cache
@torch.inference_mode(False)  # what re-ranking makes first serves trainings too
def _waves(period: int, length: int, start: int = 0) -> tuple[Tensor, Tensor]:
    """Discrete Fourier transforms of the places start, start + 1, ... as float32 matrices.

    Returns
    -------
    down : (2 period, 2 length), of complex numbers: all real parts of the frequencies before all
        imaginary ones, and a real part before an imaginary one for each place.
    along : (2 (period // 2 + 1), length), of real numbers: the frequencies up to half a period.
    """
    frequencies = torch.arange(period, dtype=torch.float64)[:, None]
    waves = torch.exp(-2j * torch.pi * frequencies * (torch.arange(length) + start) / period)
    half = waves[: period // 2 + 1]
    parts = torch.stack([waves, 1j * waves], dim=-1).flatten(1)
    down, along = (torch.cat([each.real, each.imag]) for each in (parts, half))
    return down.float(), along.float()


class Regression(nn.Module):
    """Predicts the quadrilaterals of two images that show the same part; starts at the identity.

    The layers are the paper's: six convolutions shrink the 15 x 15 positions to one. In training
    mode the last BatchNorm needs at least two pairs.
    """

    def __init__(self) -> None:
        super().__init__()
        channels = (GRID * GRID, 128, 128, 64, 64, 64, 64)
        layers: list[nn.Module] = []
        for inputs, outputs, kernel in zip(channels, channels[1:], (7, 5, 5, 5, 5, 5)):
            # 94 % of the multiplications are in the first two; the others gain nothing
            kind = FourierConv2d if outputs == 128 else nn.Conv2d
            convolution = kind(inputs, outputs, kernel, padding=1)
            layers += [convolution, nn.BatchNorm2d(outputs), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Flatten())
        self.linear = nn.Linear(channels[-1], 16)
        nn.init.zeros_(self.linear.weight)
        self.linear.bias.data = IDENTITY.repeat(2, 1).flatten()

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Local features (B, C, GRID, GRID) of two images -> their quadrilaterals (B, 2, 4, 2)."""
        code = self.layers(correlation(a, b))  # (B, 64)
        # in float32 under autocast too: bfloat16 knows a corner to 1/256, a pixel of 512
        with torch.autocast(code.device.type, enabled=False):
            return self.linear(code.float()).unflatten(1, (2, 4, 2))


def mean_of_orders(forth: Tensor, back: Tensor) -> Tensor:
    """The mean of the quadrilaterals (B, 2, 4, 2) of pairs (a, b) and of the same pairs (b, a)."""
    return (forth + back.flip(1)) / 2


def symmetric(regression: nn.Module, a: Tensor, b: Tensor) -> Tensor:
    """The mean of `Regression` in both orders of the images, (B, 2, 4, 2)."""
    return mean_of_orders(*regression(torch.cat([a, b]), torch.cat([b, a])).chunk(2))


def warp(images: Tensor, quadrilaterals: Tensor) -> Tensor:
    """The part of each image (B, C, H, W) inside its quadrilateral, stretched to the whole frame.

    Bilinear and differentiable in both arguments. What lies outside an image is 0, the mean colour
    of normalised images.
    """
    # kornia is imported here alone: describing images does not need it
    from kornia.geometry.transform import get_perspective_transform, homography_warp

    height, width = images.shape[2:]
    frame = IDENTITY.to(images).expand_as(quadrilaterals)
    with torch.autocast(images.device.type, enabled=False):
        # from the warped frame to the place in the image where its colour is read
        matrices = get_perspective_transform(frame, quadrilaterals.to(images))
        return homography_warp(
            images, matrices, (height, width), padding_mode="zeros", align_corners=True
        )
