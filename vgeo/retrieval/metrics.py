"""Recall, its interval and a paired test, all from the stored predictions."""

import numpy as np
from scipy import stats

from vgeo.errors import VgeoError


def first_hit(predictions, positives):
    """Rank, from 0, of each query's first right prediction -> int64 (Q,); K for a query that has none among its K.

    predictions: int (Q, K), database indices, nearest first. positives: one integer array a query, the database
    indices that are right for it; it may be empty. Raises VgeoError when their lengths differ.
    """
    if len(predictions) != len(positives):
        raise VgeoError(
            f"predictions of {len(predictions)} queries, positives of {len(positives)}: use the same ones"
        )
    right = np.array(
        [np.isin(row, right) for row, right in zip(predictions, positives)], dtype=bool
    )
    right = right.reshape(np.shape(predictions))
    return np.where(right.any(axis=1), right.argmax(axis=1), right.shape[1])


def recall(first_hit, n):
    """R@n in percent: the share of all queries whose `first_hit` is below n; n at most the K of the predictions.

    A query without any positive counts as wrong, as in CosPlace. Raises VgeoError when there is no query.
    """
    _some_queries(first_hit)
    return float(100 * np.mean(np.asarray(first_hit) < n))


def interval(right, level=0.95):
    """Percentile bootstrap interval of a recall over its queries -> (low, high) in percent.

    right: bool (Q,), which queries are right. Raises VgeoError when there is no query.

    A resample of Q queries has a binomial number of right ones, Binomial(Q, p) with p the observed share. The bootstrap
    distribution is therefore known, and its quantiles are taken from it exactly: no resampling, no noise, no seed.
    Where all queries are right, or all wrong, the bootstrap has no spread and the interval is that one point.
    """
    _some_queries(right)
    tail = (1 - level) / 2
    low, high = stats.binom.ppf([tail, 1 - tail], len(right), np.mean(right)) / len(right)
    return float(100 * low), float(100 * high)


def paired_test(right_a, right_b):
    """p value, two-sided and exact, that two results on the same queries are equally good (McNemar).

    right_a, right_b: bool (Q,). Of the queries that one result gets right and the other wrong, either is as likely
    to be the better one when the results are equally good; 1.0 when there is no such query. Raises VgeoError when
    the lengths differ.
    """
    right_a, right_b = np.asarray(right_a, dtype=bool), np.asarray(right_b, dtype=bool)
    if right_a.shape != right_b.shape:
        raise VgeoError(
            f"results on {len(right_a)} and {len(right_b)} queries: a paired test needs the same queries"
        )
    only_a, only_b = int(np.sum(right_a & ~right_b)), int(np.sum(right_b & ~right_a))
    return float(stats.binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0


def _some_queries(values):
    if len(values) == 0:
        raise VgeoError("no queries: a recall needs at least one")
