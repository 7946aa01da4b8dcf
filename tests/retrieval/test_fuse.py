"""Fusions by hand, against loops like the original's, and what holds for every pair of lists."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from vgeo.retrieval.fuse import nearest_first, nearest_first_by_rank, reciprocal_ranks, shared_first
from vgeo.retrieval.rerank import rerank

FIRST, NEAR = np.array([[7, 3, 9, 1]]), np.array([[0.1, 0.2, 0.5, 0.6]], np.float32)
OTHER, FAR = np.array([[3, 4, 7, 8]]), np.array([[0.15, 0.3, 0.4, 0.9]], np.float32)


def test_nearest_first_by_hand():
    for merge in (nearest_first, nearest_first_by_rank):
        predictions, distances = merge(FIRST, NEAR, OTHER, FAR)
        assert predictions.tolist() == [[7, 3, 4, 9]]
        np.testing.assert_array_equal(distances, np.float32([[0.1, 0.15, 0.3, 0.5]]))
        assert predictions.dtype == FIRST.dtype and distances.dtype == np.float32


def test_a_reranked_first_image_by_hand():
    """9 is re-ranked to the first place: its distance stays 0.5, or it counts as the nearest."""
    reranked, moved = np.array([[9, 7, 3, 1]]), np.float32([[0.5, 0.1, 0.2, 0.6]])
    predictions, distances = nearest_first(reranked, moved, OTHER, FAR)
    assert predictions.tolist() == [[7, 3, 4, 9]]
    np.testing.assert_array_equal(distances, np.float32([[0.1, 0.15, 0.3, 0.5]]))
    predictions, distances = nearest_first_by_rank(reranked, moved, OTHER, FAR)
    assert predictions.tolist() == [[9, 3, 7, 4]]
    np.testing.assert_array_equal(distances, np.float32([[0.1, 0.15, 0.2, 0.3]]))


def test_shared_first_by_hand():
    assert shared_first(FIRST, OTHER).tolist() == [[7, 3, 9, 1]]
    assert shared_first(OTHER, FIRST).tolist() == [[3, 7, 4, 8]]
    assert shared_first(np.array([[1, 2]]), np.array([[5, 2]])).tolist() == [[2, 1]]


def test_reciprocal_ranks_by_hand():
    # 3: 1/62 + 1/61, 7: 1/61 + 1/63, then 4 (1/62), 9 (1/63)
    assert reciprocal_ranks(FIRST, OTHER).tolist() == [[3, 7, 4, 9]]


@st.composite
def lists(draw):
    """Predictions and ascending distances, many of them equal, of two models for some queries."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    queries, k = draw(st.integers(1, 4)), draw(st.integers(1, 8))
    both = []
    for _ in range(2):
        images = np.array([rng.permutation(10)[:k] for _ in range(queries)])
        far = np.sort(rng.integers(0, 8, images.shape), axis=1).astype(np.float32)
        order = np.lexsort((images, far), axis=1)  # as `search`: equal ones in database order
        both += [np.take_along_axis(images, order, 1), far]
    return both


@settings(deadline=None)
@given(lists(), st.integers(0, 2**32 - 1))
def test_re_ranking_has_no_effect_on_nearest_first(both, seed):
    """Distances move with their images, whichever list was re-ranked."""
    expected = nearest_first(*both)
    rng, moved = np.random.default_rng(seed), []
    for predictions, distances in (both[:2], both[2:]):
        k = rng.integers(1, predictions.shape[1] + 1)
        images, order = rerank(predictions, rng.random((len(predictions), k)), k)
        far = distances.copy()
        far[:, :k] = np.take_along_axis(distances, order, 1)
        moved += [images, far]
    for found in (
        nearest_first(*moved),
        nearest_first(*moved[:2], *both[2:]),
        nearest_first(*both[:2], *moved[2:]),
    ):
        np.testing.assert_array_equal(found, expected)


@settings(deadline=None)
@given(lists())
def test_fusions_against_loops(both):
    predictions, distances, other, other_distances = both
    k, merged = predictions.shape[1], nearest_first(*both)
    np.testing.assert_array_equal(nearest_first_by_rank(*both), merged)
    for q, (first, second) in enumerate(zip(predictions.tolist(), other.tolist())):
        far = distances[q].tolist() + other_distances[q].tolist()
        nearest = sorted(zip(far, first + second), key=lambda pair: pair[0])
        once = list(dict.fromkeys(image for _, image in nearest))[:k]
        assert merged[0][q].tolist() == once
        assert merged[1][q].tolist() == [min(d for d, i in nearest if i == image) for image in once]

        shared = [image for image in first if image in second]
        ours = shared + [image for image in first if image not in second]
        ours += [image for image in second if image not in first]
        assert shared_first(predictions, other)[q].tolist() == ours[:k]

        sums = {}
        for ranked in (first, second):
            for rank, image in enumerate(ranked, 1):
                sums[image] = sums.get(image, 0) + 1 / (60 + rank)
        best = sorted(sums, key=lambda image: -sums[image])[:k]
        assert reciprocal_ranks(predictions, other)[q].tolist() == best


@settings(deadline=None)
@given(lists())
def test_fusions_hold_each_image_once_and_keep_a_list_that_is_merged_with_itself(both):
    first, near, other, far = both
    for fused in (
        nearest_first(*both)[0],
        nearest_first_by_rank(*both)[0],
        shared_first(first, other),
        reciprocal_ranks(first, other),
    ):
        assert fused.shape == first.shape
        for row, one, two in zip(fused, first, other):
            assert len(set(row)) == len(row) and set(row) <= set(one) | set(two)
    for same in (
        nearest_first(first, near, first, near)[0],
        nearest_first_by_rank(first, near, first, near)[0],
        shared_first(first, first),
        reciprocal_ranks(first, first),
    ):
        assert (same == first).all()
