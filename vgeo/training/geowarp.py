"""GeoWarp's training: two views of one photo, two photos of one place, and three losses.

Berton et al., Viewpoint Invariant Dense Matching for Visual Geolocalization, ICCV 2021, and its
public code; "the paper" below. Quadrilaterals are as in `vgeo.models.geowarp`.
"""

import hashlib
from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np
import torch
import torch.nn.functional as F
from kornia.geometry.linalg import transform_points
from kornia.geometry.transform import get_perspective_transform
from torch import nn

from vgeo.device import WHOLE, Share, device, numpy_stream, share, torch_stream
from vgeo.errors import VgeoError
from vgeo.models.geowarp import IDENTITY, Regression, local_features, mean_of_orders, warp
from vgeo.models.network import BACKBONES, GeoModel, normalise
from vgeo.models.weights import weights_hash
from vgeo.photos.images import load_batches
from vgeo.photos.places import Classes
from vgeo.retrieval.describe import describe
from vgeo.training import augment
from vgeo.training.batches import by_class
from vgeo.training.technique import Step


@dataclass(frozen=True)
class Settings:
    """The numbers of a training.

    Attributes
    ----------
    k : of the trapezoids, see `trapezoids`.
    self_supervised, mined : pairs in an iteration.
    self_supervised_weight, feature_wise_weight, consistency_weight : of the losses. A loss of
        weight 0 is left out, but for the self-supervised one, which the log always shows.
    candidates, near : how many pairs are drawn, and how near their descriptors must be (L2), see
        `mine_pairs`.
    stages : for each backbone the number of its stages whose output are the local features.
    learning_rate : Adam's, of the regression.
    alone : iterations of training beside a finished extractor, for backbones whose stages are
        frozen.
    consistency_variants : how many of the three VARIANTS of a pair an iteration's consistency loss
        compares, drawn at random. The paper's code compares all three. Fewer cost less and have the
        same expectation.
    """

    k: float
    self_supervised: int
    mined: int
    self_supervised_weight: float
    feature_wise_weight: float
    consistency_weight: float
    candidates: int
    near: float
    stages: dict[str, int]
    learning_rate: float
    alone: int | None = None
    consistency_variants: int = 3

    def __post_init__(self):
        if self.consistency_variants not in range(1, len(VARIANTS) + 1):
            raise VgeoError(
                f"consistency_variants is {self.consistency_variants}: make it 1, 2 or 3"
            )
        frozen = sorted(name for name in self.stages if self.in_trunk(name))
        if frozen and not self.alone:
            raise VgeoError(
                f"GeoWarp's local features lie in the frozen trunk of {', '.join(frozen)}: set "
                "`alone`, the iterations of its own training, or more stages than the trunk has"
            )

    def in_trunk(self, backbone: str) -> bool:
        """Whether the local features of a backbone come from its frozen trunk."""
        return self.stages[backbone] <= BACKBONES[backbone].trunk


def trapezoids(
    batch: int, generator: torch.Generator, k: float = 0.6, share: Share = WHOLE
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Two random trapezoids with vertical sides for each image, and what both show.

    As in the paper's code each of the two sides and four corner heights lies uniformly between 1 -
    k and 1 from the middle of the image, on its own side of it. So every trapezoid contains the
    rectangle of +-(1 - k), and any two intersect.

    The intersection's quadrilateral reaches from the inner of the left to the inner of the right
    sides. Its corners there are the inner ones of the two trapezoids' edges. Where edges cross
    between, the intersection has more corners, and the quadrilateral is a part of it.

    Parameters
    ----------
    batch : images in this process's share.
    generator : on the CPU.
    share : of the whole batch, whose random numbers the share takes its own from.

    Returns
    -------
    first, second, intersection : float32 (batch, 4, 2) each.

    Raises
    ------
    VgeoError : k is not in [0, 1).
    """
    if not 0 <= k < 1:
        raise VgeoError(
            f"trapezoids of k = {k}: k must be at least 0 and below 1, or they may miss each other"
        )
    extents = 1 - k * share.rand(2, batch, 6, generator=generator)
    sides = extents[..., [0, 1, 1, 0]]  # left, right, right, left
    both = IDENTITY * torch.stack([sides, extents[..., 2:]], dim=-1)  # (2, batch, 4, 2)

    left, right = both[..., 0, 0].amax(0), both[..., 1, 0].amin(0)
    x = torch.stack([left, right, right, left], dim=-1)
    # the edge, top or bottom, that each corner lies on
    start, end = both[..., [0, 0, 3, 3], :], both[..., [1, 1, 2, 2], :]
    along = (x - start[..., 0]) / (end[..., 0] - start[..., 0])
    y = start[..., 1] + along * (end[..., 1] - start[..., 1])
    y = torch.cat([y[..., :2].amax(0), y[..., 2:].amin(0)], dim=-1)  # y points down
    return both[0], both[1], torch.stack([x, y], dim=-1)


def self_supervised_pairs(
    images: torch.Tensor, generator: torch.Generator, k: float = 0.6, share: Share = WHOLE
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Two views of each image, and where they overlap.

    Parameters
    ----------
    images : float (B, C, H, W).
    generator, k, share : as in `trapezoids`.

    Returns
    -------
    a, b : (B, C, H, W) each, the images warped to two trapezoids.
    targets : (B, 2, 4, 2), the corners of the trapezoids' intersection as view a and view b see
        them.
    """
    *cuts, shared = (points.to(images) for points in trapezoids(len(images), generator, k, share))
    whole = IDENTITY.to(images).expand_as(shared)
    with torch.autocast(images.device.type, enabled=False):
        targets = [transform_points(get_perspective_transform(cut, whole), shared) for cut in cuts]
    return warp(images, cuts[0]), warp(images, cuts[1]), torch.stack(targets, dim=1)


def feature_wise_loss(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Mean squared distance of two warped images' local features, (B, C, GRID, GRID) -> scalar.

    The mean is over all numbers, channels too, as in the paper's code, whose weight of 10 belongs
    to it.
    """
    return F.mse_loss(a, b)


def mirror(quadrilaterals: torch.Tensor) -> torch.Tensor:
    """The same quadrilaterals (..., 4, 2) in horizontally flipped images."""
    return quadrilaterals[..., [1, 0, 3, 2], :] * quadrilaterals.new_tensor([-1.0, 1.0])


# Variants of a pair (a, b): swapped (b, a), flipped horizontally, and both. Each maps the
# quadrilaterals (B, 2, 4, 2) predicted for the variant back to the pair.
VARIANTS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "swapped": lambda corners: corners.flip(1),
    "flipped": mirror,
    "both": lambda corners: mirror(corners).flip(1),
}


def consistency_loss(plain: torch.Tensor, variants: dict[str, torch.Tensor]) -> torch.Tensor:
    """How far the predictions change with the order of a pair and its horizontal flip -> scalar.

    The prediction for each variant, mapped back, is compared with the prediction for the pair as it
    is, a pseudo-label without gradient. The mean squared error of coordinates is returned, averaged
    over the variants. (The paper's code takes all three and adds up the errors to the mean of all
    four.) One variant drawn at random has the loss of all three as its expectation.

    Parameters
    ----------
    plain : the prediction (B, 2, 4, 2) for the pair as it is.
    variants : names of VARIANTS and the predictions (B, 2, 4, 2) for them.
    """
    label = plain.detach()
    mapped = [VARIANTS[name](corners) for name, corners in variants.items()]
    return torch.stack([F.mse_loss(corners, label) for corners in mapped]).mean()


def mean_corner_error(predicted: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Mean Euclidean distance of corners, (B, ..., 4, 2) both -> (B,), in half image sides."""
    return torch.linalg.vector_norm(predicted - targets, dim=-1).flatten(1).mean(1)


def mine_pairs(
    model, classes: Classes, count: int, size: int, seed: int, near: float = 1.2
) -> np.ndarray:
    """Pairs of training photos that show one place -> int (P, 2), rows of `classes`.

    `count` pairs are drawn, two photos of one class each, the classes in a random order. A pair is
    kept where the model's descriptors, at `size` pixels, are nearer than `near` (L2).

    Raises
    ------
    VgeoError : no pair is near enough.
    """
    members, start = by_class(classes.labels)
    rng, total = numpy_stream(seed, "candidate pairs"), len(start) - 1
    order = np.concatenate([rng.permutation(total) for _ in range(-(-count // total))])[:count]
    several = [members[start[c] : start[c + 1]] for c in order if start[c + 1] - start[c] > 1]
    pairs = np.array([rng.choice(rows, 2, replace=False) for rows in several])
    images, places = np.unique(pairs, return_inverse=True)
    paths = np.array(classes.photos.paths)[images]
    ends = describe(model, paths, size)[places.reshape(pairs.shape)]
    kept = np.linalg.norm(ends[:, 0] - ends[:, 1], axis=1) < near
    if not kept.any():
        raise VgeoError(
            f"none of {len(pairs)} pairs of one class is nearer than {near} in descriptors: train "
            "the extractor longer first"
        )
    return pairs[kept]


class WarpLoss(nn.Module):
    """The warping regression and its three losses, on self-supervised and on mined pairs.

    Parameters
    ----------
    paths : the training photos, an array of str.
    pairs : int (P, 2), rows of `paths` that show one place; None where no loss needs them.
    size : pixels of the images, both sides.
    stages : of the backbone, whose output are the local features.
    """

    def __init__(self, settings: Settings, paths, pairs, size: int, stages: int, seed: int):
        super().__init__()
        self.regression = Regression()
        self.settings, self.paths, self.pairs = settings, paths, pairs
        self.size, self.stages, self.seed = size, stages, seed

    def loss(self, model, source, target, iteration):
        """The weighted sum of the losses on this process's share of the iteration's pairs."""
        s, own, rng = self.settings, share(), numpy_stream(self.seed, "GeoWarp's photos", iteration)
        generator = torch_stream(self.seed, iteration)
        own.check(s.self_supervised, "GeoWarp's self-supervised pairs,")
        single = own.of(rng.integers(len(self.paths), size=s.self_supervised))
        pairs = np.empty((0, 2), int)
        if self.pairs is not None:
            own.check(s.mined, "GeoWarp's mined pairs,")
            pairs = own.of(self.pairs[rng.integers(len(self.pairs), size=s.mined)])
        variants = rng.permutation(list(VARIANTS))[: s.consistency_variants]
        rows = np.concatenate([single, *pairs.T])
        [(_, images)] = load_batches(self.paths[rows], len(rows), self.size)
        images = images.to(next(model.parameters()).device)
        photos, query, positive = images.split([len(single), len(pairs), len(pairs)])

        def local(x):
            x = x.contiguous(memory_format=torch.channels_last)
            return local_features(model.features(x, self.stages))

        # two views of one photo have one light: jitter stands in for the years between two photos
        *views, targets = self_supervised_pairs(photos.float() / 255, generator, s.k, own)
        views = [augment.recoloured(view, generator, own) for view in views]
        a, b = local(torch.cat(views)).chunk(2)
        # times 4: the paper's code, to which the weights belong, adds up the mean errors of both
        # quadrilaterals in both orders
        losses = {"self_supervised": 4 * F.mse_loss(self.regression(a, b), targets)}
        if self.pairs is not None:
            losses |= self._mined_losses(local, normalise(query), normalise(positive), variants)
        total = sum(getattr(s, f"{name}_weight") * loss for name, loss in losses.items())
        return total, {name: loss.detach() for name, loss in losses.items()}

    def _mined_losses(self, local, query, positive, variants):
        """The losses, of those with a weight, on pairs of photos, float (B, 3, H, W) each."""
        s, losses, both = self.settings, {}, torch.cat([query, positive])
        variants = variants if s.consistency_weight else ()
        a, b = local(both).chunk(2)
        pairs = {"plain": (a, b)}
        if s.feature_wise_weight or "swapped" in variants:
            pairs["swapped"] = b, a
        if {"flipped", "both"}.intersection(variants):
            a, b = local(both.flip(-1)).chunk(2)
            flips = {"flipped": (a, b), "both": (b, a)}
            pairs |= {name: flips[name] for name in flips if name in variants}
        # one batch: a prediction serves every loss that needs it
        firsts, seconds = map(torch.cat, zip(*pairs.values(), strict=True))
        corners = dict(zip(pairs, self.regression(firsts, seconds).chunk(len(pairs)), strict=True))
        if s.feature_wise_weight:
            mean = mean_of_orders(corners["plain"], corners["swapped"])
            warped = local(warp(both, mean.transpose(0, 1).flatten(0, 1)))
            losses["feature_wise"] = feature_wise_loss(*warped.chunk(2))
        if s.consistency_weight:
            chosen = {name: corners[name] for name in variants}
            losses["consistency"] = consistency_loss(corners["plain"], chosen)
        return losses


@dataclass(frozen=True)
class GeoWarp:
    """The technique: a regression that warps two photos to the part that both show."""

    settings: Settings
    code = ("vgeo.training.geowarp",)
    target = None

    @property
    def learning_rate(self) -> float:
        """Adam's rate for the regression."""
        return self.settings.learning_rate

    def recipe(self) -> dict:
        """The settings."""
        return asdict(self.settings)

    def alone(self, backbone: str) -> int | None:
        """The iterations of its own training where the local features lie in the frozen trunk."""
        return self.settings.alone if self.settings.in_trunk(backbone) else None

    def prepare(
        self, model: GeoModel, classes: Classes, size: int, seed: int, step: Step
    ) -> WarpLoss:
        """A regression at its start, with the pairs that the model's descriptors choose."""
        s, pairs = self.settings, None
        if s.feature_wise_weight or s.consistency_weight:
            recipe = {
                "model": weights_hash(model),
                "photos": classes.photos.fingerprint,
                "labels": hashlib.sha256(classes.labels.tobytes()).hexdigest(),
                "size": size,
                "seed": seed,
                "candidates": s.candidates,
                "near": s.near,
                "device": device().type,
            }

            def make(folder):
                mined = mine_pairs(model, classes, s.candidates, size, seed, s.near)
                np.save(folder / "pairs.npy", mined)

            label = f"mine pairs {model.backbone_name}, seed {seed}"
            folder = step("mined", label, recipe, make, code=self.code, together=True)
            pairs = np.load(folder / "pairs.npy")
        torch.manual_seed(seed)
        stages = s.stages[model.backbone_name]
        return WarpLoss(s, np.array(classes.photos.paths), pairs, size, stages, seed)
