"""What is trained along with the extractor, each beside CosPlace's own loss: the domain discriminator, or GeoWarp's regression."""

import numpy as np
import torch
from torch import nn

from vgeo import augment, geowarp
from vgeo.datasets import load_batches
from vgeo.describe import describe
from vgeo.errors import VgeoError
from vgeo.grl import Discriminator, domain_loss
from vgeo.models import BACKBONES, normalise


class Domain(nn.Module):
    """The report's section 3: a discriminator behind a gradient reversal, source the training images, target the night photos."""

    def __init__(self, backbone, weight):
        super().__init__()
        self.discriminator, self.weight = Discriminator(BACKBONES[backbone][2]), weight

    def loss(self, model, source, target, iteration):
        """Weighted cross-entropy of last feature maps (B, C, h, w) each; the share of domains told right goes to the log."""
        loss, right = domain_loss(self.discriminator, source, target)
        return self.weight * loss, {"domain_loss": loss.detach(), "domain_accuracy": right}


class Warp(nn.Module):
    """The report's section 5.1: the warping regression, from self-supervised pairs and mined query-positive pairs.

    paths: training images; pairs: int (P, 2), rows of it that show one place (`mine_pairs`). numbers: the profile's `geowarp`.
    """

    def __init__(self, paths, pairs, size, stages, numbers, seed):
        super().__init__()
        self.regression = geowarp.Regression()
        self.paths, self.pairs, self.size, self.stages, self.numbers, self.seed = paths, pairs, size, stages, numbers, seed

    def loss(self, model, source, target, iteration):
        """The weighted sum of the three losses on this iteration's images, drawn from the seed and its number."""
        n = self.numbers
        rng = np.random.default_rng([self.seed, 3, iteration])
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + iteration)
        alone = rng.integers(len(self.paths), size=n["self_supervised"])
        pairs = self.pairs[rng.integers(len(self.pairs), size=n["mined"])]
        images = self._load([*alone, *pairs[:, 0], *pairs[:, 1]], next(model.parameters()).device)
        single, query, positive = images.split([n["self_supervised"], n["mined"], n["mined"]])
        query, positive = normalise(query), normalise(positive)

        def local(x):
            return geowarp.local_features(model.features(x, self.stages))

        def predict(a, b):
            return self.regression(local(a), local(b))

        # two views of one photo have one light: the jitter of training stands in for the years between a query and its positive
        one, other, targets = geowarp.self_supervised_pairs(single.float() / 255, generator, n["k"])
        one, other = augment.recoloured(one, generator), augment.recoloured(other, generator)
        # times 4: the paper's code, to which the weights belong, adds up the mean errors of both quadrilaterals in both orders
        losses = {"self_supervised": 4 * nn.functional.mse_loss(self.regression(local(one), local(other)), targets)}
        if n["weights"]["feature_wise"]:
            found = geowarp.symmetric(self.regression, local(query), local(positive))
            losses["feature_wise"] = geowarp.feature_wise_loss(local(geowarp.warp(query, found[:, 0])), local(geowarp.warp(positive, found[:, 1])))
        if n["weights"]["consistency"]:
            losses["consistency"] = geowarp.consistency_loss(predict, query, positive)
        return sum(n["weights"][name] * loss for name, loss in losses.items()), {name: loss.detach() for name, loss in losses.items()}

    def _load(self, rows, where):
        (_, images), = load_batches(self.paths[np.array(rows)], len(rows), self.size)
        return images.to(where)


def mine_pairs(model, table, count, size, seed, threshold=1.2):
    """Query-positive pairs int (P, 2), rows of a table with CosPlace labels: two images of one class, nearer than `threshold` (L2).

    `count` pairs are drawn, a class at a time in random order; the model's descriptors decide which are kept. Raises VgeoError when none is.
    """
    labels = table["label"].to_numpy()
    order = np.argsort(labels, kind="stable")
    start = np.searchsorted(labels[order], np.arange(labels.max() + 2))
    rng = np.random.default_rng([seed, 4])
    classes = np.concatenate([rng.permutation(len(start) - 1) for _ in range(-(-count // (len(start) - 1)))])[:count]
    pairs = np.array([rng.choice(order[start[c]:start[c + 1]], 2, replace=False) for c in classes if start[c + 1] - start[c] > 1])
    images, places = np.unique(pairs, return_inverse=True)
    found = describe(model, table["path"].to_numpy()[images], size)[places.reshape(pairs.shape)]
    near = np.linalg.norm(found[:, 0] - found[:, 1], axis=1) < threshold
    if not near.any():
        raise VgeoError(f"none of {len(pairs)} pairs of one class is nearer than {threshold} in descriptors: train the extractor longer first")
    return pairs[near]
