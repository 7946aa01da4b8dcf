"""Re-ranking: the first predictions of a query are ordered by their images, warped or by points."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from vgeo.bars import bar
from vgeo.device import autocast, device, gathered, share
from vgeo.errors import VgeoError
from vgeo.models import xfeat
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

    known: dict[int, np.ndarray] = {}  # row of `paths`: local features of the image as it is

    def load(wanted: list[int]) -> Iterator[Tensor]:
        """Batches of images, uint8, on the device; those that are not known yet are encoded."""
        for rows, batch in load_batches([paths[i] for i in wanted], batch_size, size):
            numbers = [wanted[row] for row in rows]
            batch, bright = batch.to(device), torch.tensor(numbers, device=device) >= first
            batch[bright] = darken(batch[bright], brightness)
            if new := [k for k, i in enumerate(numbers) if i not in known]:
                found = local(normalise(batch[new])).half().cpu().numpy()
                known.update((numbers[k], each.copy()) for k, each in zip(new, found))
            yield batch

    mine = []
    with autocast(device, precision), bar(progress, sum(map(len, chunks)), "pairs") as counter:
        for start, part in zip(starts, chunks):
            near, rows = np.unique(part, return_inverse=True)
            numbers = near.tolist()
            loaded = list(load(numbers if warped else [i for i in numbers if i not in known]))
            features = torch.from_numpy(np.stack([known[i] for i in numbers])).to(device).float()
            places = torch.from_numpy(rows.reshape(part.shape).T).to(device)
            a, b = features[places]
            if warped:
                images, corners = torch.cat(loaded), symmetric(regression, a, b)
                each = batch_size // 2
                for some, at in zip(places.split(each, 1), corners.split(each)):
                    both = normalise(images[some.flatten()])
                    a, b = local(warp(both, at.transpose(0, 1).flatten(0, 1))).chunk(2)
                    mine.append((start, _alike(a, b)))
                    start += len(at)
                    counter.update(len(at))
            else:
                mine.append((start, _alike(a, b)))
                counter.update(len(part))
    scores = np.empty(len(pairs), np.float32)
    for start, some in gathered(mine):
        scores[start : start + len(some)] = some
    return scores


@torch.inference_mode()
def describe_points(
    paths: Sequence[str], size: int, brightness: float = 1.0, progress: str | None = None
) -> np.ndarray:
    """XFeat's points of image files, int8 (N, P, 64), see `vgeo.models.xfeat.describe_points`.

    The other parameters are as in `describe`.
    """
    network, where = xfeat.open_xfeat().to(device()), device()
    points = np.zeros((len(paths), xfeat.POINTS, xfeat.CHANNELS), np.int8)
    with bar(progress, len(paths), "images") as counter:
        for rows, images in load_batches(paths, 32, size):
            images = darken(images.to(where), brightness)
            points[rows] = xfeat.describe_points(network, images).cpu().numpy()
            counter.update(len(rows))
    return points


def point_scores(
    queries: np.ndarray, database: np.ndarray, predictions: np.ndarray, distances: np.ndarray
) -> np.ndarray:
    """How alike queries and their first k predictions are by XFeat's points, float32 (Q, k).

    Parameters
    ----------
    queries, database : of `describe_points`; may be memory maps.
    predictions : int (Q, k), rows of the database.
    distances : (Q, k), squared L2 distances of descriptors of unit length.
    """
    shared = []
    for query, rows in zip(queries, predictions, strict=True):
        points, others = torch.from_numpy(np.array(query)), torch.from_numpy(database[rows])
        shared.append(xfeat.shared_points(points, others).numpy())
    return xfeat.similarity(np.stack(shared), 1 - np.asarray(distances) / 2)


def _alike(a: Tensor, b: Tensor) -> np.ndarray:
    """The mean inner products, float32 (P,), of local features (P, C, GRID, GRID)."""
    return (a * b).sum(1).mean((1, 2)).cpu().numpy()


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
