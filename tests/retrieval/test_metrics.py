"""Recalls against naive counts, the interval and the paired test against their definitions."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, norm

from vgeo.errors import VgeoError
from vgeo.retrieval.metrics import first_hit, interval, paired_test, recall
from vgeo.retrieval.search import search


@settings(deadline=None)
@given(st.integers(1, 20), st.integers(1, 12), st.integers(0, 2**32 - 1))
def test_recall_is_the_naive_count(q, k, seed):
    """Random predictions, with queries that have no positive."""
    rng = np.random.default_rng(seed)
    predictions = np.array([rng.permutation(15)[:k] for _ in range(q)])
    positives = [np.flatnonzero(rng.random(15) < rng.choice([0, 0.1, 0.5])) for _ in range(q)]
    hits = first_hit(predictions, positives)
    assert hits.dtype == np.int64
    for n in range(1, k + 1):
        rows = zip(predictions[:, :n].tolist(), positives)
        right = sum(any(image in positive for image in row) for row, positive in rows)
        assert recall(hits, n) == pytest.approx(100 * right / q)


def test_recall_with_ties_end_to_end():
    """Of two images equally far the first of the database is predicted, whether right or not."""
    database = np.array([[1, 0], [0, 1], [0, 1]], dtype=np.float32)
    predictions, _ = search(database, np.array([[0, 1]] * 3, dtype=np.float32), 3)
    hits = first_hit(predictions, [np.array([1]), np.array([2]), np.array([], dtype=int)])
    assert hits.tolist() == [0, 1, 3]
    assert [recall(hits, n) for n in (1, 2, 3)] == pytest.approx([100 / 3, 200 / 3, 200 / 3])


def test_mistakes():
    with pytest.raises(VgeoError, match="^predictions of 2 queries, positives of 1"):
        first_hit(np.zeros((2, 3), dtype=int), [np.array([0])])
    with pytest.raises(VgeoError, match="^results on 2 and 1 queries"):
        paired_test([True, False], [True])
    for statistic in [interval, lambda right: recall(right, 1)]:
        with pytest.raises(VgeoError, match="^no queries"):
            statistic(np.array([], dtype=bool))


@settings(deadline=None)
@given(st.integers(1, 400), st.integers(0, 400), st.floats(0.5, 0.999))
def test_interval_solves_wilsons_equation(queries, right, level):
    """Each end is a share p from which the observed one differs by z standard errors of p."""
    right = min(right, queries)
    low, high = interval(np.arange(queries) < right, level)
    z, observed = norm.ppf((1 + level) / 2), right / queries
    for end in (low / 100, high / 100):
        error = z**2 * end * (1 - end) / queries
        assert (observed - end) ** 2 == pytest.approx(error, rel=1e-6, abs=1e-9)
    assert -1e-9 <= low <= 100 * observed + 1e-9 and 100 * observed - 1e-9 <= high <= 100 + 1e-9
    assert high - low > 0  # even where all queries are right, or none


def test_interval_by_hand():
    """The closed form for 8 of 10, z = 1.959964: centre 0.717, half width 0.227."""
    z = 1.959964
    centre, half = (8 + z * z / 2) / (10 + z * z), z * (1.6 + z * z / 4) ** 0.5 / (10 + z * z)
    expected = [100 * (centre - half), 100 * (centre + half)]
    assert interval(np.array([True] * 8 + [False] * 2)) == pytest.approx(expected, rel=1e-5)
    assert interval([True] * 8 + [False] * 2) == pytest.approx([49.016, 94.331], abs=1e-3)


@pytest.mark.parametrize("queries, share", [(105, 0.5), (315, 0.9), (60, 0.05)])
def test_interval_holds_the_true_share_about_as_often_as_it_says(queries, share):
    counts = np.arange(queries + 1)
    ends = np.array([interval(np.arange(queries) < count) for count in counts]) / 100
    holds = (ends[:, 0] <= share) & (share <= ends[:, 1])
    assert 0.92 < binom.pmf(counts, queries, share)[holds].sum() < 0.98


@pytest.mark.parametrize(("only_a", "only_b"), [(0, 0), (0, 1), (5, 5), (2, 9), (9, 2), (0, 10)])
def test_paired_test_is_the_enumeration(only_a, only_b):
    """A query on which the results differ may have gone the other way: all 2^n cases, counted."""
    order = np.random.default_rng(0).permutation(only_a + only_b + 20)
    a = np.array([True] * only_a + [False] * only_b + [True, False] * 10)[order]
    b = np.array([False] * only_a + [True] * only_b + [True, False] * 10)[order]
    flips = np.array(list(itertools.product([1, -1], repeat=only_a + only_b)))
    as_extreme = np.abs(flips.sum(axis=1)) >= abs(only_a - only_b)
    assert paired_test(a, b) == pytest.approx(as_extreme.mean())
