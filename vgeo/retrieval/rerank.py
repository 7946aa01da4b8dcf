"""GeoWarp's re-ranking: the first predictions of a query are ordered by their warped images."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from vgeo.bars import bar
from vgeo.device import autocast, gathered, share
from vgeo.errors import VgeoError
from vgeo.models.geowarp import symmetric, warp
from vgeo.models.network import folded, normalise
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

    It is the mean inner product of the local features of the two warped images. The local features
    of the images as they are take 2 C GRID^2 bytes of memory an image, in float16. Each image is
    encoded once for them. Several processes share the chunks of pairs, and each returns all scores.

    Parameters
    ----------
    local : normalised images (B, 3, H, W) on the regression's device -> their local features
        (B, C, GRID, GRID). It and `regression` must be in evaluation mode.
    pairs : int (P, 2), rows (query, database) of the two lists of paths. Pairs that share an image
        are best given one after the other, because they then share its decoding.
    size : both sides in pixels that images are resized to.
    brightness : multiplies the database images' pixel values, as in `describe`.
    warped : False compares the images as they are.
    precision : of the convolutions, "float32" or "bf16".
    progress : words before a progress bar; None for no bar.
    chunk : pairs whose images lie in memory together; within a chunk an image is decoded once.
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
    regression, device = folded(regression), next(regression.parameters()).device
    paths, first = [*query_paths, *database_paths], len(query_paths)  # of the database in `paths`
    starts = list(share().of(range(0, len(pairs), chunk)))
    chunks = [pairs[start : start + chunk] + [0, first] for start in starts]

    def load(images: np.ndarray) -> Iterator[Tensor]:
        """Batches of images, rows of `paths`, uint8, on the device."""
        for rows, batch in load_batches([paths[i] for i in images], batch_size, size):
            batch, bright = batch.to(device), torch.from_numpy(images[rows] >= first).to(device)
            batch[bright] = darken(batch[bright], brightness)
            yield batch

    used = np.unique(np.concatenate([np.empty((0, 2), int), *chunks]))
    encoded, mine = [], []
    with autocast(device, precision):
        with bar(progress and f"{progress}, encoding", len(used), "images") as counter:
            for batch in load(used):
                encoded.append(local(normalise(batch)).half().cpu().numpy())
                counter.update(len(batch))
        features = np.concatenate(encoded) if encoded else np.empty(0)
        with bar(progress, sum(map(len, chunks)), "pairs") as counter:
            for start, part in zip(starts, chunks):
                near, rows = np.unique(part, return_inverse=True)
                images = torch.cat(list(load(near))) if warped else None
                places = np.searchsorted(used, near)
                for some in torch.from_numpy(rows.reshape(part.shape).T).split(batch_size // 2, 1):
                    known = features[places[some]]
                    a, b = torch.from_numpy(known).to(device).float()
                    if images is not None:
                        corners = symmetric(regression, a, b).transpose(0, 1).flatten(0, 1)
                        both = normalise(images[some.flatten().to(device)])
                        a, b = local(warp(both, corners)).chunk(2)
                    scores = (a * b).sum(1).mean((1, 2)).cpu().numpy()
                    mine.append((start, scores))
                    start += len(scores)
                    counter.update(len(scores))
    scores = np.empty(len(pairs), np.float32)
    for start, some in gathered(mine):
        scores[start : start + len(some)] = some
    return scores


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
