"""TODO: retrieval.rerank."""

import numpy as np
import torch
from tqdm.auto import tqdm

from vgeo.device import gathered, part
from vgeo.errors import VgeoError
from vgeo.models.geowarp import symmetric, warp
from vgeo.models.network import normalise
from vgeo.photos.images import load_batches
from vgeo.retrieval.describe import darken

BATCH = 32  # images at once through the network


CHUNK = 160  # pairs whose images lie in memory together


@torch.inference_mode()
def pair_scores(
    local,
    regression,
    query_paths,
    database_paths,
    pairs,
    size,
    brightness=1.0,
    warped=True,
    precision="float32",
    progress=None,
):
    """Similarity of query and database images -> float32 (P,): the mean inner product of their warped images' local features, -1 to 1.

    local: a callable from normalised images on the regression's device to local features (B, C, GRID, GRID); it and `regression` must
    be in evaluation mode. pairs: int (P, 2), rows (query, database) of the two lists of paths; pairs with shared images are best given
    one after the other, since images are read once a CHUNK. size, in pixels, both sides. brightness: multiplies the database images' pixel
    values, as in `describe`. warped: False compares the images as they are. precision: as in `train.Recipe`, of the convolutions.
    progress: words before a bar, or None for no bar. Several processes share the chunks, and each returns all scores. Raises VgeoError for a pair outside the lists and `load_image`'s errors.
    """
    if ((pairs < 0) | (pairs >= [len(query_paths), len(database_paths)])).any():
        raise VgeoError(
            f"a pair lies outside the {len(query_paths)} queries and {len(database_paths)} database images: give pairs as rows "
            "(query, database) of these lists"
        )
    where = next(regression.parameters()).device
    scores, mine = np.empty(len(pairs), np.float32), part().of(range(0, len(pairs), CHUNK))
    with (
        torch.autocast(where.type, torch.bfloat16, enabled=precision == "bf16"),
        tqdm(
            total=len(pairs), desc=progress, unit=" pairs", disable=progress is None, leave=False
        ) as bar,
    ):
        for start in mine:
            queries, a = np.unique(pairs[start : start + CHUNK, 0], return_inverse=True)
            others, b = np.unique(pairs[start : start + CHUNK, 1], return_inverse=True)
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
                i, j = a[first : first + BATCH // 2], b[first : first + BATCH // 2]
                one, other = features[i], features[j]
                if warped:
                    quadrilaterals = symmetric(regression, one, other).transpose(0, 1).flatten(0, 1)
                    one, other = local(
                        warp(normalise(images[torch.cat([i, j])]), quadrilaterals)
                    ).chunk(2)
                at = start + first
                scores[at : at + len(i)] = (one * other).sum(1).mean((1, 2)).cpu().numpy()
                bar.update(len(i))
    for start, found in gathered([(start, scores[start : start + CHUNK]) for start in mine]):
        scores[start : start + CHUNK] = found
    return scores


def rerank(predictions, scores, k):
    """The first k predictions of each query by falling score, equal ones as they were; the others stay -> (predictions, order).

    predictions: int (Q, K), scores: (Q, k), of the first k. order: int64 (Q, k), the place that each of the new first k had. No R@N
    with N >= k changes. Raises VgeoError when the shapes do not fit or a score is not finite.
    """
    predictions, scores = np.asarray(predictions), np.asarray(scores)
    if scores.shape != (len(predictions), k) or k > predictions.shape[1]:
        raise VgeoError(
            f"scores {scores.shape} for the first {k} of predictions {predictions.shape}: need one score for each of them"
        )
    if not np.isfinite(scores).all():
        row = int(np.flatnonzero(~np.isfinite(scores).all(axis=1))[0])
        raise VgeoError(
            f"a score of query {row} is not finite: check the weights of the regression and of the features"
        )
    order = np.argsort(-scores, axis=1, kind="stable")
    reranked = predictions.copy()
    reranked[:, :k] = np.take_along_axis(predictions[:, :k], order, axis=1)
    return reranked, order
