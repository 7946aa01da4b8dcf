"""GeoWarp: two photos of one place, each warped to the part that both show, are compared by their local features.

Berton et al., "Viewpoint invariant dense matching for visual geolocalization", ICCV 2021, and its public code; "the paper" below. Images
are `normalise`d float (B, 3, H, W). A quadrilateral is float (B, 4, 2): the corners (x, y) that become the top left, top right, bottom
right and bottom left of the warped image, in -1..1, where -1 and 1 are the centres of the border pixels (align_corners=True).
"""

import numpy as np
import torch
import torch.nn.functional as F
from kornia.geometry.linalg import transform_points
from kornia.geometry.transform import get_perspective_transform, homography_warp
from torch import nn
from tqdm.auto import tqdm

from vgeo.datasets import load_batches
from vgeo.describe import darken
from vgeo.errors import VgeoError
from vgeo.models import normalise
from vgeo.parallel import WHOLE, gathered, part

GRID = 15  # local features a side
IDENTITY = torch.tensor([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]])  # the quadrilateral that leaves an image as it is
BATCH = 32  # images at once through the network
CHUNK = 160  # pairs whose images lie in memory together


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
            layers += [nn.Conv2d(inputs, outputs, kernel, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Flatten())
        self.linear = nn.Linear(channels[-1], 16)
        nn.init.zeros_(self.linear.weight)
        self.linear.bias.data = IDENTITY.repeat(2, 1).flatten()

    def forward(self, a, b):
        """Local features, (B, C, GRID, GRID) each -> (B, 2, 4, 2): the quadrilateral in image a and the one in image b."""
        found = self.layers(correlation(a, b))
        with torch.autocast(found.device.type, enabled=False):  # bfloat16 knows a corner to 1/256, a pixel of 512
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
        matrix = get_perspective_transform(whole, quadrilaterals.to(images))  # from the warped frame to the image: where to sample
        return homography_warp(images, matrix, images.shape[2:], padding_mode="zeros", align_corners=True)


def trapezoids(batch, generator, k=0.6, part=WHOLE):
    """Two random trapezoids with vertical sides for each of `batch` images, and what both show -> three float32 (batch, 4, 2).

    As in the paper's code each of the two sides and four corner heights lies uniformly between 1 - k and 1 from the middle of the image,
    on its own side of it; so all contain the rectangle of +-(1 - k) and any two intersect. generator: on the CPU. part: as in `augment`.

    The third is the intersection's quadrilateral: it reaches from the inner of the left to the inner of the right sides, and its corners
    there are the inner ones of the two trapezoids' edges. Where edges cross between, the intersection has more corners, and this is a
    part of it: an edge between two points of a convex shape stays inside. Raises VgeoError when k is not in [0, 1).
    """
    if not 0 <= k < 1:
        raise VgeoError(f"trapezoids of k = {k}: k must be at least 0 and below 1, or they may miss each other")
    extents = 1 - k * part.rand(2, batch, 6, generator=generator)
    sides = extents[..., [0, 1, 1, 0]]  # left, right, right, left
    both = IDENTITY * torch.stack([sides, extents[..., 2:]], dim=-1)  # (2, batch, 4, 2)

    left, right = both[..., 0, 0].amax(0), both[..., 1, 0].amin(0)
    x = torch.stack([left, right, right, left], dim=-1)
    start, end = both[..., [0, 0, 3, 3], :], both[..., [1, 1, 2, 2], :]  # of the edge, top or bottom, that each corner lies on
    share = (x - start[..., 0]) / (end[..., 0] - start[..., 0])
    y = start[..., 1] + share * (end[..., 1] - start[..., 1])
    y = torch.cat([y[..., :2].amax(0), y[..., 2:].amin(0)], dim=-1)  # y points down
    return both[0], both[1], torch.stack([x, y], dim=-1)


def self_supervised_pairs(images, generator, k=0.6, part=WHOLE):
    """Two views of each image and where they overlap -> (views a, views b, targets (B, 2, 4, 2)).

    Each view is the `warp` of one of `trapezoids`; targets are their intersection's corners as view a and view b see them.
    """
    *cuts, shared = (points.to(images) for points in trapezoids(len(images), generator, k, part))
    whole = IDENTITY.to(images).expand_as(shared)
    with torch.autocast(images.device.type, enabled=False):
        targets = [transform_points(get_perspective_transform(cut, whole), shared) for cut in cuts]
    return warp(images, cuts[0]), warp(images, cuts[1]), torch.stack(targets, dim=1)


def feature_wise_loss(a, b):
    """Mean squared distance of the local features of two warped images, (B, C, GRID, GRID) each -> scalar.

    The mean is over all numbers, channels too, as in the paper's code, whose weight of 10 belongs to it.
    """
    return F.mse_loss(a, b)


def mirror(quadrilaterals):
    """The same quadrilaterals (..., 4, 2) in horizontally flipped images: left and right corners change names."""
    return quadrilaterals[..., [1, 0, 3, 2], :] * quadrilaterals.new_tensor([-1.0, 1.0])


def consistency_loss(regression, a, b, flipped_a, flipped_b):
    """How far the predictions change with the order of a pair and its horizontal flip -> scalar, mean squared error of coordinates.

    a, b: local features of the pair's images, flipped_a, flipped_b of the flipped images, (B, C, GRID, GRID) each; regression: of two of
    them -> quadrilaterals (B, 2, 4, 2). The pair is given swapped, flipped and both; what is predicted for it, mapped back, is compared
    with the prediction for the pair as it is, a pseudo-label without gradient. (The paper's code adds up the errors to the mean of all
    four.)
    """
    with torch.no_grad():
        label = regression(a, b)
    again = [
        regression(b, a).flip(1), mirror(regression(flipped_a, flipped_b)), mirror(regression(flipped_b, flipped_a)).flip(1)
    ]
    return torch.stack([F.mse_loss(prediction, label) for prediction in again]).mean()


def mean_corner_error(predicted, targets):
    """Mean Euclidean distance of the corners, (B, ..., 4, 2) both -> (B,), in units of half an image side."""
    return torch.linalg.vector_norm(predicted - targets, dim=-1).flatten(1).mean(1)


@torch.inference_mode()
def pair_scores(local, regression, query_paths, database_paths, pairs, size, brightness=1.0, warped=True, precision="float32", progress=None):
    """Similarity of query and database images -> float32 (P,): the mean inner product of their warped images' local features, -1 to 1.

    local: a callable from normalised images on the regression's device to local features (B, C, GRID, GRID); it and `regression` must
    be in evaluation mode. pairs: int (P, 2), rows (query, database) of the two lists of paths; pairs with shared images are best given
    one after the other, since images are read once a CHUNK. size, in pixels, both sides. brightness: multiplies the database images' pixel
    values, as in `describe`. warped: False compares the images as they are. precision: as in `train.Recipe`, of the convolutions.
    progress: words before a bar, or None for no bar. Several processes share the chunks, and each returns all scores. Raises VgeoError for a pair outside the lists and `load_image`'s errors.
    """
    if ((pairs < 0) | (pairs >= [len(query_paths), len(database_paths)])).any():
        raise VgeoError(f"a pair lies outside the {len(query_paths)} queries and {len(database_paths)} database images: give pairs as rows "
                        "(query, database) of these lists")
    where = next(regression.parameters()).device
    scores, mine = np.empty(len(pairs), np.float32), part().of(range(0, len(pairs), CHUNK))
    with (torch.autocast(where.type, torch.bfloat16, enabled=precision == "bf16"),
          tqdm(total=len(pairs), desc=progress, unit=" pairs", disable=progress is None, leave=False) as bar):
        for start in mine:
            queries, a = np.unique(pairs[start:start + CHUNK, 0], return_inverse=True)
            others, b = np.unique(pairs[start:start + CHUNK, 1], return_inverse=True)
            paths = [query_paths[i] for i in queries] + [database_paths[i] for i in others]
            images, features = [], []
            for indices, batch in load_batches(paths, BATCH, size):
                bright = torch.from_numpy(indices >= len(queries)).to(where)
                batch = batch.to(where)
                batch[bright] = darken(batch[bright], brightness)
                images.append(batch)  # kept as bytes: a quarter of the memory
                features.append(local(normalise(batch)))
            images, features = torch.cat(images), torch.cat(features)
            a, b = torch.from_numpy(a).to(where), torch.from_numpy(b + len(queries)).to(where)
            for first in range(0, len(a), BATCH // 2):
                i, j = a[first:first + BATCH // 2], b[first:first + BATCH // 2]
                one, other = features[i], features[j]
                if warped:
                    quadrilaterals = symmetric(regression, one, other).transpose(0, 1).flatten(0, 1)
                    one, other = local(warp(normalise(images[torch.cat([i, j])]), quadrilaterals)).chunk(2)
                at = start + first
                scores[at:at + len(i)] = (one * other).sum(1).mean((1, 2)).cpu().numpy()
                bar.update(len(i))
    for start, found in gathered([(start, scores[start:start + CHUNK]) for start in mine]):
        scores[start:start + CHUNK] = found
    return scores


def rerank(predictions, scores, k):
    """The first k predictions of each query by falling score, equal ones as they were; the others stay -> (predictions, order).

    predictions: int (Q, K), scores: (Q, k), of the first k. order: int64 (Q, k), the place that each of the new first k had. No R@N
    with N >= k changes. Raises VgeoError when the shapes do not fit or a score is not finite.
    """
    predictions, scores = np.asarray(predictions), np.asarray(scores)
    if scores.shape != (len(predictions), k) or k > predictions.shape[1]:
        raise VgeoError(f"scores {scores.shape} for the first {k} of predictions {predictions.shape}: need one score for each of them")
    if not np.isfinite(scores).all():
        row = int(np.flatnonzero(~np.isfinite(scores).all(axis=1))[0])
        raise VgeoError(f"a score of query {row} is not finite: check the weights of the regression and of the features")
    order = np.argsort(-scores, axis=1, kind="stable")
    reranked = predictions.copy()
    reranked[:, :k] = np.take_along_axis(predictions[:, :k], order, axis=1)
    return reranked, order
