"""Two ranked lists become one: the original's NIF and SIF, and reciprocal rank fusion.

Predictions are int (Q, K), the database images of Q queries, each image once in a list. Distances
are float (Q, K), those of the predictions.
"""

import numpy as np


def nearest_first(
    predictions: np.ndarray,
    distances: np.ndarray,
    other_predictions: np.ndarray,
    other_distances: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """NIF, nearest images first: both lists by distance, each image at the smaller of its two.

    Distances need not ascend: those of a re-ranked list move with their images. Re-ranking has
    therefore no effect here, as in the original's code. Of equal distances the first list's image
    comes first, and within a list the image with the smaller number.

    Returns
    -------
    The K nearest images of both lists, and their distances.
    """
    order, other_order = (
        np.lexsort(keys, axis=1)
        for keys in ((predictions, distances), (other_predictions, other_distances))
    )
    return nearest_first_by_rank(
        np.take_along_axis(predictions, order, 1),
        distances,
        np.take_along_axis(other_predictions, other_order, 1),
        other_distances,
    )


def nearest_first_by_rank(
    predictions: np.ndarray,
    distances: np.ndarray,
    other_predictions: np.ndarray,
    other_distances: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """NIF with distances by place: a list's n-th image counts with its n-th smallest distance.

    The first image of a re-ranked list counts as the list's nearest. The original has no such row.
    Otherwise as `nearest_first`.
    """
    far, other_far = np.sort(distances, axis=1), np.sort(other_distances, axis=1)
    same = predictions[:, :, None] == other_predictions[:, None, :]  # (Q, K, K)
    behind = far[:, :, None] > other_far[:, None, :]
    repeated = np.hstack([(same & behind).any(2), (same & ~behind).any(1)])
    images, far = np.hstack([predictions, other_predictions]), np.hstack([far, other_far])
    order = np.argsort(np.where(repeated, np.inf, far), axis=1, kind="stable")
    nearest = order[:, : predictions.shape[1]]
    return np.take_along_axis(images, nearest, 1), np.take_along_axis(far, nearest, 1)


def shared_first(predictions: np.ndarray, other: np.ndarray) -> np.ndarray:
    """SIF, shared images first: those in both lists, the first list's others, the second's.

    Within each of the three the images keep the order of their list, the shared ones the first's.
    """
    same = predictions[:, :, None] == other[:, None, :]  # (Q, K, K)
    places = np.hstack([np.where(same.any(2), 0, 1), np.where(same.any(1), 3, 2)])
    return _first_k(predictions, other, places)


def reciprocal_ranks(predictions: np.ndarray, other: np.ndarray, c: float = 60) -> np.ndarray:
    """RRF: images by falling sum of 1 / (c + rank), ranks from 1; equal sums in the first's order.

    References
    ----------
    Cormack, Clarke, Buettcher, "Reciprocal rank fusion outperforms Condorcet and individual rank
    learning methods", SIGIR 2009.
    """
    same = predictions[:, :, None] == other[:, None, :]  # (Q, K, K)
    scores = 1 / (c + np.arange(1, predictions.shape[1] + 1))
    repeated = same.any(1)  # counted with the first list
    sums = np.hstack([scores + same @ scores, np.where(repeated, 0, scores)])
    return _first_k(predictions, other, -sums)


def _first_k(predictions: np.ndarray, other: np.ndarray, key: np.ndarray) -> np.ndarray:
    """The K images of both lists with the smallest keys (Q, 2 K), equal ones as they come."""
    order = np.argsort(key, axis=1, kind="stable")[:, : predictions.shape[1]]
    return np.take_along_axis(np.hstack([predictions, other]), order, 1)
