"""GeoWarp's re-ranking: the first predictions of a query are ordered by their warped images."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from vgeo.device import autocast, gathered, share
from vgeo.errors import VgeoError
from vgeo.models.geowarp import symmetric, warp
from vgeo.models.network import normalise
from vgeo.photos.images import load_batches
from vgeo.retrieval.describe import darken


@torch.inference_mode()
def pair_scores(
    local: Callable[[Tensor], Tensor],
    regression: nn.Module,
    query_paths: Sequence[str],
    database_paths: Sequence[str],
    pairs: np.ndarray,
    size: int,
    brightness: float = 1.0,
    warped: bool = True,
    precision: str = "float32",
    progress: str | None = None,
    *,
    chunk: int = 160,
    batch_size: int = 32,
) -> np.ndarray:
    """The similarity of pairs of images, float32 (P,), -1 to 1.

    It is the mean inner product of the local features of the two warped images. Several processes
    share the chunks of pairs, and each returns all scores.

    Parameters
    ----------
    local : normalised images (B, 3, H, W) on the regression's device -> their local features
        (B, C, GRID, GRID). It and `regression` must be in evaluation mode.
    pairs : int (P, 2), rows (query, database) of the two lists of paths. Pairs that share an image
        are best given one after the other.
    size : both sides in pixels that images are resized to.
    brightness : multiplies the database images' pixel values, as in `describe`.
    warped : False compares the images as they are.
    precision : of the convolutions, "float32" or "bf16".
    progress : words before a progress bar; None for no bar.
    chunk : pairs whose images lie in memory together; within a chunk an image is read once.
    batch_size : images that go through the network together.

    Raises
    ------
    VgeoError : a pair lies outside the lists, or an image can't be read.
    """
    if ((pairs < 0) | (pairs >= [len(query_paths), len(database_paths)])).any():
        raise VgeoError(
            f"a pair lies outside the {len(query_paths)} queries and {len(database_paths)} "
            "database images: give pairs as rows (query, database) of these lists"
        )
    device = next(regression.parameters()).device
    starts = share().of(range(0, len(pairs), chunk))
    bar = tqdm(
        total=len(pairs), desc=progress, unit=" pairs", disable=progress is None, leave=False
    )
    mine = []
    with autocast(device, precision), bar:
        for start in starts:
            queries, a = np.unique(pairs[start : start + chunk, 0], return_inverse=True)
            others, b = np.unique(pairs[start : start + chunk, 1], return_inverse=True)
            paths = [query_paths[i] for i in queries] + [database_paths[i] for i in others]
            images, features = [], []
            for rows, batch in load_batches(paths, batch_size, size):
                batch, bright = batch.to(device), torch.from_numpy(rows >= len(queries)).to(device)
                batch[bright] = darken(batch[bright], brightness)
                images.append(batch)  # kept as bytes, a quarter of the memory
                features.append(local(normalise(batch)))
            known = torch.cat(images), torch.cat(features)
            both = torch.from_numpy(np.stack([a, b + len(queries)])).to(device)
            for some in both.split(batch_size // 2, dim=1):
                scores = _similarity(local, regression, *known, some, warped).cpu().numpy()
                mine.append((start, scores))
                start += len(scores)
                bar.update(len(scores))
    scores = np.empty(len(pairs), np.float32)
    for start, some in gathered(mine):
        scores[start : start + len(some)] = some
    return scores


def _similarity(
    local: Callable[[Tensor], Tensor],
    regression: nn.Module,
    images: Tensor,
    features: Tensor,
    pairs: Tensor,
    warped: bool,
) -> Tensor:
    """Scores (P,) of pairs, int64 (2, P), rows of the images, uint8, and of their features."""
    a, b = features[pairs[0]], features[pairs[1]]
    if warped:
        quadrilaterals = symmetric(regression, a, b).transpose(0, 1).flatten(0, 1)
        a, b = local(warp(normalise(images[pairs.flatten()]), quadrilaterals)).chunk(2)
    return (a * b).sum(1).mean((1, 2))


def rerank(predictions: np.ndarray, scores: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Orders the first k predictions of each query by falling score, equal ones as they were.

    No R@N with N >= k changes.

    Parameters
    ----------
    predictions : int (Q, K).
    scores : (Q, k), of the first k predictions.

    Returns
    -------
    The predictions, and int64 (Q, k), the place that each of the new first k had before.

    Raises
    ------
    VgeoError : the shapes do not fit, or a score is not finite.
    """
    predictions, scores = np.asarray(predictions), np.asarray(scores)
    if scores.shape != (len(predictions), k) or k > predictions.shape[1]:
        raise VgeoError(
            f"scores {scores.shape} for the first {k} of predictions {predictions.shape}: need one "
            "score for each of them"
        )
    bad = np.flatnonzero(~np.isfinite(scores).all(axis=1))
    if len(bad):
        raise VgeoError(
            f"a score of query {bad[0]} is not finite: check the weights of the regression and of "
            "the features"
        )
    order = np.argsort(-scores, axis=1, kind="stable")
    reranked = predictions.copy()
    reranked[:, :k] = np.take_along_axis(predictions[:, :k], order, axis=1)
    return reranked, order
