"""Recall, its interval and a paired test, all from the predictions of a search."""

from collections.abc import Sequence

import numpy as np
from scipy import stats

from vgeo.errors import VgeoError


def first_hit(predictions: np.ndarray, positives: Sequence[np.ndarray]) -> np.ndarray:
    """The rank of each query's first right prediction, int64 (Q,), from 0; K where none is right.

    Parameters
    ----------
    predictions : int (Q, K), database images, nearest first.
    positives : for each query the database images that are right, int, possibly none.

    Raises
    ------
    VgeoError : their lengths differ.
    """
    if len(predictions) != len(positives):
        raise VgeoError(
            f"predictions of {len(predictions)} queries, positives of {len(positives)}: use the "
            "same ones"
        )
    right = np.zeros_like(predictions, bool)
    for query, images in enumerate(positives):
        right[query] = np.isin(predictions[query], images)
    return np.where(right.any(axis=1), right.argmax(axis=1), right.shape[1])


def recall(first_hit: np.ndarray, n: int) -> float:
    """R@n in percent: the share of the queries whose `first_hit` is below n.

    A query without any positive counts as wrong, as in CosPlace.

    Parameters
    ----------
    n : at most the K of the predictions.

    Raises
    ------
    VgeoError : there is no query.
    """
    _some_queries(first_hit)
    return float(100 * np.mean(np.asarray(first_hit) < n))


def interval(right: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """Wilson's interval of a recall over its queries, (low, high) in percent.

    Parameters
    ----------
    right : bool (Q,), whether each query is right.

    Raises
    ------
    VgeoError : there is no query.

    References
    ----------
    Wilson, "Probable inference, the law of succession, and statistical inference", JASA 1927.
    """
    _some_queries(right)
    share = stats.binomtest(int(np.sum(right)), len(right)).proportion_ci(level, method="wilson")
    return float(100 * share.low), float(100 * share.high)


def paired_test(right_a: np.ndarray, right_b: np.ndarray) -> float:
    """McNemar's exact test of two results on the same queries: the two-sided p value.

    The hypothesis is that a query which one result alone gets right is as likely to be either
    result's. The p value is 1 where there is no such query.

    Parameters
    ----------
    right_a, right_b : bool (Q,), whether each query is right.

    Raises
    ------
    VgeoError : the lengths differ.
    """
    right_a, right_b = np.asarray(right_a, dtype=bool), np.asarray(right_b, dtype=bool)
    if right_a.shape != right_b.shape:
        raise VgeoError(
            f"results on {len(right_a)} and {len(right_b)} queries: a paired test needs the same "
            "queries"
        )
    only_a, only_b = int(np.sum(right_a & ~right_b)), int(np.sum(right_b & ~right_a))
    return float(stats.binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0


def _some_queries(values) -> None:
    if len(values) == 0:
        raise VgeoError("no queries: a recall needs at least one")
