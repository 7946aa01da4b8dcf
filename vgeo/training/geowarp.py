"""What is trained along with the extractor, each beside CosPlace's own loss: the domain discriminator, or GeoWarp's regression."""

import numpy as np
import torch
import torch.nn.functional as F
from kornia.geometry.linalg import transform_points
from kornia.geometry.transform import get_perspective_transform
from torch import nn

from vgeo.device import WHOLE, part
from vgeo.errors import VgeoError
from vgeo.models.geowarp import IDENTITY, Regression, local_features, symmetric, warp
from vgeo.models.network import normalise
from vgeo.photos.images import load_batches
from vgeo.retrieval.describe import describe
from vgeo.training.augment import recoloured
from vgeo.training.batches import by_class


def trapezoids(batch, generator, k=0.6, part=WHOLE):
    """Two random trapezoids with vertical sides for each of `batch` images, and what both show -> three float32 (batch, 4, 2).

    As in the paper's code each of the two sides and four corner heights lies uniformly between 1 - k and 1 from the middle of the image,
    on its own side of it; so all contain the rectangle of +-(1 - k) and any two intersect. generator: on the CPU. part: as in `augment`.

    The third is the intersection's quadrilateral: it reaches from the inner of the left to the inner of the right sides, and its corners
    there are the inner ones of the two trapezoids' edges. Where edges cross between, the intersection has more corners, and this is a
    part of it: an edge between two points of a convex shape stays inside. Raises VgeoError when k is not in [0, 1).
    """
    if not 0 <= k < 1:
        raise VgeoError(
            f"trapezoids of k = {k}: k must be at least 0 and below 1, or they may miss each other"
        )
    extents = 1 - k * part.rand(2, batch, 6, generator=generator)
    sides = extents[..., [0, 1, 1, 0]]  # left, right, right, left
    both = IDENTITY * torch.stack([sides, extents[..., 2:]], dim=-1)  # (2, batch, 4, 2)

    left, right = both[..., 0, 0].amax(0), both[..., 1, 0].amin(0)
    x = torch.stack([left, right, right, left], dim=-1)
    start, end = (
        both[..., [0, 0, 3, 3], :],
        both[..., [1, 1, 2, 2], :],
    )  # of the edge, top or bottom, that each corner lies on
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
        regression(b, a).flip(1),
        mirror(regression(flipped_a, flipped_b)),
        mirror(regression(flipped_b, flipped_a)).flip(1),
    ]
    return torch.stack([F.mse_loss(prediction, label) for prediction in again]).mean()


def mean_corner_error(predicted, targets):
    """Mean Euclidean distance of the corners, (B, ..., 4, 2) both -> (B,), in units of half an image side."""
    return torch.linalg.vector_norm(predicted - targets, dim=-1).flatten(1).mean(1)


class Warp(nn.Module):
    """The report's section 5.1: the warping regression, from self-supervised pairs and mined query-positive pairs.

    paths: training images; pairs: int (P, 2), rows of it that show one place (`mine_pairs`). numbers: the profile's `geowarp`.
    """

    def __init__(self, paths, pairs, size, stages, numbers, seed):
        super().__init__()
        self.regression = Regression()
        self.paths, self.pairs, self.size, self.stages, self.numbers, self.seed = (
            paths,
            pairs,
            size,
            stages,
            numbers,
            seed,
        )

    def loss(self, model, source, target, iteration):
        """The weighted sum of the three losses on this process's part of the iteration's images, drawn from the seed and its number."""
        n, weights, share = self.numbers, self.numbers["weights"], part()
        mined = n["mined"] if weights["feature_wise"] or weights["consistency"] else 0
        rng = np.random.default_rng([self.seed, 3, iteration])
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + iteration)
        for name in ("self_supervised", "mined"):
            share.check(n[name], f"GeoWarp's {name} pairs,")
        alone = share.of(rng.integers(len(self.paths), size=n["self_supervised"]))
        pairs = share.of(self.pairs[rng.integers(len(self.pairs), size=mined)])
        images = self._load([*alone, *pairs[:, 0], *pairs[:, 1]], next(model.parameters()).device)
        single, query, positive = images.split([len(alone), len(pairs), len(pairs)])

        def local(x):
            return local_features(
                model.features(x.contiguous(memory_format=torch.channels_last), self.stages)
            )

        # two views of one photo have one light: the jitter of training stands in for the years between a query and its positive
        one, other, targets = self_supervised_pairs(single.float() / 255, generator, n["k"], share)
        one, other = (recoloured(views, generator, share) for views in (one, other))
        # times 4: the paper's code, to which the weights belong, adds up the mean errors of both quadrilaterals in both orders
        one, other = local(torch.cat([one, other])).chunk(2)
        losses = {
            "self_supervised": 4 * nn.functional.mse_loss(self.regression(one, other), targets)
        }
        if mined:
            query, positive = normalise(query), normalise(positive)
            a, b = local(torch.cat([query, positive])).chunk(2)
        if weights["feature_wise"]:
            warped = warp(
                torch.cat([query, positive]),
                symmetric(self.regression, a, b).transpose(0, 1).flatten(0, 1),
            )
            losses["feature_wise"] = feature_wise_loss(*local(warped).chunk(2))
        if weights["consistency"]:
            flipped_a, flipped_b = local(torch.cat([query, positive]).flip(-1)).chunk(2)
            losses["consistency"] = consistency_loss(self.regression, a, b, flipped_a, flipped_b)
        return sum(weights[name] * loss for name, loss in losses.items()), {
            name: loss.detach() for name, loss in losses.items()
        }

    def _load(self, rows, where):
        ((_, images),) = load_batches(self.paths[np.array(rows)], len(rows), self.size)
        return images.to(where)


def mine_pairs(model, table, count, size, seed, threshold=1.2):
    """Query-positive pairs int (P, 2), rows of a table with CosPlace labels: two images of one class, nearer than `threshold` (L2).

    `count` pairs are drawn, a class at a time in random order; the model's descriptors decide which are kept. Raises VgeoError when none is.
    """
    members, start = by_class(table["label"].to_numpy())
    rng = np.random.default_rng([seed, 4])
    classes = np.concatenate(
        [rng.permutation(len(start) - 1) for _ in range(-(-count // (len(start) - 1)))]
    )[:count]
    pairs = np.array(
        [
            rng.choice(members[start[c] : start[c + 1]], 2, replace=False)
            for c in classes
            if start[c + 1] - start[c] > 1
        ]
    )
    images, places = np.unique(pairs, return_inverse=True)
    found = describe(model, table["path"].to_numpy()[images], size)[places.reshape(pairs.shape)]
    near = np.linalg.norm(found[:, 0] - found[:, 1], axis=1) < threshold
    if not near.any():
        raise VgeoError(
            f"none of {len(pairs)} pairs of one class is nearer than {threshold} in descriptors: train the extractor longer first"
        )
    return pairs[near]
