"""What is trained along with the extractor, each beside CosPlace's own loss: the domain discriminator, or GeoWarp's regression."""

import math
import time

import numpy as np
import torch
from torch import nn
from tqdm.auto import tqdm

from vgeo import augment, geowarp
from vgeo.artefacts import Checkpoint
from vgeo.datasets import load_batches
from vgeo.describe import describe
from vgeo.errors import VgeoError
from vgeo.grl import Discriminator, domain_loss
from vgeo.models import BACKBONES, normalise, save_weights
from vgeo.parallel import average_gradients, device, part, share_statistics
from vgeo.train import CHECKPOINT_SECONDS, LOG_EVERY, by_class, means, write_log


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
            return geowarp.local_features(model.features(x.contiguous(memory_format=torch.channels_last), self.stages))

        # two views of one photo have one light: the jitter of training stands in for the years between a query and its positive
        one, other, targets = geowarp.self_supervised_pairs(single.float() / 255, generator, n["k"], share)
        one, other = (augment.recoloured(views, generator, share) for views in (one, other))
        # times 4: the paper's code, to which the weights belong, adds up the mean errors of both quadrilaterals in both orders
        one, other = local(torch.cat([one, other])).chunk(2)
        losses = {"self_supervised": 4 * nn.functional.mse_loss(self.regression(one, other), targets)}
        if mined:
            query, positive = normalise(query), normalise(positive)
            a, b = local(torch.cat([query, positive])).chunk(2)
        if weights["feature_wise"]:
            warped = geowarp.warp(torch.cat([query, positive]), geowarp.symmetric(self.regression, a, b).transpose(0, 1).flatten(0, 1))
            losses["feature_wise"] = geowarp.feature_wise_loss(*local(warped).chunk(2))
        if weights["consistency"]:
            flipped_a, flipped_b = local(torch.cat([query, positive]).flip(-1)).chunk(2)
            losses["consistency"] = geowarp.consistency_loss(self.regression, a, b, flipped_a, flipped_b)
        return sum(weights[name] * loss for name, loss in losses.items()), {name: loss.detach() for name, loss in losses.items()}

    def _load(self, rows, where):
        (_, images), = load_batches(self.paths[np.array(rows)], len(rows), self.size)
        return images.to(where)


def mine_pairs(model, table, count, size, seed, threshold=1.2):
    """Query-positive pairs int (P, 2), rows of a table with CosPlace labels: two images of one class, nearer than `threshold` (L2).

    `count` pairs are drawn, a class at a time in random order; the model's descriptors decide which are kept. Raises VgeoError when none is.
    """
    members, start = by_class(table["label"].to_numpy())
    rng = np.random.default_rng([seed, 4])
    classes = np.concatenate([rng.permutation(len(start) - 1) for _ in range(-(-count // (len(start) - 1)))])[:count]
    pairs = np.array([rng.choice(members[start[c]:start[c + 1]], 2, replace=False) for c in classes if start[c + 1] - start[c] > 1])
    images, places = np.unique(pairs, return_inverse=True)
    found = describe(model, table["path"].to_numpy()[images], size)[places.reshape(pairs.shape)]
    near = np.linalg.norm(found[:, 0] - found[:, 1], axis=1) < threshold
    if not near.any():
        raise VgeoError(f"none of {len(pairs)} pairs of one class is nearer than {threshold} in descriptors: train the extractor longer first")
    return pairs[near]


def train_alone(extra, model, iterations, lr, precision, folder, progress="training"):
    """Trains `extra` by its own loss beside a model that stays as it is; leaves `extra.safetensors` (the last iteration's) and `log.csv`.

    This is GeoWarp's training where the local features are the frozen trunk's: neither half of the joint training then touches the other.
    lr: Adam's rate, falling to 0 along a cosine; precision: as in `train.Recipe`. Killed at any moment, the next call goes on from the
    checkpoint to the same weights.
    """
    where = device()
    model.to(where).eval().requires_grad_(False)
    share_statistics(extra).to(where).train()
    optimizer = torch.optim.Adam(extra.parameters(), lr=lr)
    checkpoint = Checkpoint(folder / "checkpoint.pt", extra=extra, optimizer=optimizer)
    state = checkpoint.load() or {"iteration": 0, "log": []}
    values, clock, saved = [], time.perf_counter(), time.perf_counter()
    for iteration in tqdm(range(state["iteration"], iterations), progress, iterations, initial=state["iteration"], unit=" iterations"):
        optimizer.param_groups[0]["lr"] = lr * (1 + math.cos(math.pi * iteration / iterations)) / 2
        with torch.autocast(where.type, torch.bfloat16, enabled=precision == "bf16"):
            loss, shown = extra.loss(model, None, None, iteration)
        optimizer.zero_grad()
        loss.backward()
        average_gradients([optimizer])
        optimizer.step()
        values.append({"loss": loss.detach(), **shown})
        if (iteration + 1) % LOG_EVERY == 0 or iteration + 1 == iterations:
            seconds = time.perf_counter() - clock
            state["log"].append({"iteration": iteration + 1, **means(values, progress, iteration + 1, f"lr_regression ({lr:g})"), "seconds": round(seconds, 2)})
            values, clock = [], time.perf_counter()
            if time.perf_counter() - saved > CHECKPOINT_SECONDS:
                checkpoint.save(**state | {"iteration": iteration + 1})
                saved = time.perf_counter()
    write_log(folder, state["log"])
    save_weights(extra, folder / "extra.safetensors", {"iterations": iterations, "lr": lr})
    checkpoint.path.unlink(missing_ok=True)
