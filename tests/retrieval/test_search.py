"""Search against brute force in float64, and indexes against their sizes."""

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vgeo.errors import VgeoError
from vgeo.retrieval.search import build_index, choose_index, search


def brute_force(database, queries, k):
    """In float64, equal distances in the order of the database."""
    squared = np.array(
        [((database - query.astype(np.float64)) ** 2).sum(axis=1) for query in queries]
    )
    squared = squared.reshape(len(queries), len(database)).astype(np.float32)
    order = np.argsort(squared, axis=1, kind="stable")[:, :k]
    return order, np.take_along_axis(squared, order, axis=1)


def unit(rng, *shape):
    x = rng.standard_normal(shape)
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)


def assert_same(found, expected):
    for x, y in zip(found, expected, strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("size", [(500, 40, 64), (30, 3, 512), (1, 5, 8)], ids=str)
def test_brute_force(size):
    n, q, dim = size
    rng = np.random.default_rng(0)
    database, queries = unit(rng, n, dim), unit(rng, q, dim)
    for k in {1, min(20, n), n}:
        predictions, distances = search(database, queries, k)
        assert (predictions.dtype, distances.dtype) == (np.int64, np.float32)
        assert_same((predictions, distances), brute_force(database, queries, k))


@settings(deadline=None)
@given(
    st.integers(1, 200),
    st.integers(0, 25),
    st.integers(1, 4),
    st.integers(1, 30),
    st.integers(0, 2**32 - 1),
)
def test_ties(n, q, dim, k, seed):
    """Points of a small grid: most distances equal many others, and many points are the same."""
    rng = np.random.default_rng(seed)
    database = rng.integers(0, 3, (n, dim)).astype(np.float32)
    queries = rng.integers(0, 3, (q, dim)).astype(np.float32)
    k = min(k, n)
    assert_same(search(database, queries, k), brute_force(database, queries, k))


def test_a_collapsed_model():
    """All descriptors are equal, more of them than faiss is asked for: the first, in order."""
    database = np.repeat(unit(np.random.default_rng(0), 1, 32), 1000, axis=0)
    predictions, distances = search(database, database[:30], 5)
    assert (predictions == np.arange(5)).all() and (distances == 0).all()


def test_batches_do_not_matter():
    """Near ties, closer than float32's |x|^2 + |y|^2 - 2 x.y can tell: right in any batch."""
    rng = np.random.default_rng(0)
    database = np.repeat(unit(rng, 20, 512), 20, axis=0)
    database += rng.normal(0, 1e-5, database.shape).astype(np.float32)
    queries = database[:300] + rng.normal(0, 1e-5, (300, 512)).astype(np.float32)
    expected = brute_force(database, queries, 10)
    together = search(database, queries, 10)
    assert_same(together, expected)
    for size in [1, 70]:
        parts = [search(database, queries[i : i + size], 10) for i in range(0, len(queries), size)]
        assert_same(together, [np.concatenate(x) for x in zip(*parts)])


@pytest.mark.parametrize("n", [30, 300])  # all of them proposed by faiss, or a part of them
def test_ties_that_float32_breaks(n):
    """Permutations of one vector are equally far from a constant one, but for rounding."""
    rng = np.random.default_rng(0)
    database = rng.permuted(np.repeat(unit(rng, 1, 512), n, axis=0), axis=1)
    queries = np.linspace(0.01, 0.1, 300, dtype=np.float32)[:, None].repeat(512, axis=1)
    found = search(database, queries, 10)
    assert_same(found, brute_force(database, queries, 10))
    # not all: float64's own last digits may cross a float32 rounding
    assert (found[0] == np.arange(10)).mean() > 0.9


def test_fewer_neighbours_are_the_first_of_more():
    rng = np.random.default_rng(0)
    database, queries = unit(rng, 300, 16), unit(rng, 30, 16)
    predictions, distances = search(database, queries, 50)
    assert_same(search(database, queries, 7), (predictions[:, :7], distances[:, :7]))
    assert (np.diff(distances, axis=1) >= 0).all()


def test_memory_maps_and_half_precision(tmp_path):
    rng = np.random.default_rng(0)
    database, queries = unit(rng, 50, 8), unit(rng, 4, 8)
    np.save(tmp_path / "database.npy", database)
    mapped = np.load(tmp_path / "database.npy", mmap_mode="r")
    assert_same(search(mapped, queries, 5), brute_force(database, queries, 5))
    half = database.astype(np.float16)
    assert_same(search(half, queries, 5), brute_force(half.astype(np.float32), queries, 5))


def test_search_mistakes():
    rng = np.random.default_rng(0)
    database, queries = unit(rng, 10, 8), unit(rng, 4, 8)
    for k in [0, 11]:
        with pytest.raises(VgeoError, match=f"^k = {k} neighbours of a database of 10[^\n]*$"):
            search(database, queries, k)
    with pytest.raises(VgeoError, match=r"^database \(10, 8\), queries \(4, 7\)[^\n]*$"):
        search(database, queries[:, :7], 3)
    with pytest.raises(VgeoError, match="need"):
        search(database, queries[0], 3)
    for value in [np.nan, np.inf, -np.inf]:
        spoilt = queries.copy()
        spoilt[2, 5] = value
        with pytest.raises(VgeoError, match="^the descriptor of query 2 is not finite[^\n]*$"):
            search(database, spoilt, 3)
        with pytest.raises(VgeoError, match="^the descriptor of database image 2 is not finite"):
            search(spoilt, queries, 3)


def test_an_index_that_proposes_everything_is_exact():
    rng = np.random.default_rng(0)
    database, queries = unit(rng, 3000, 32), unit(rng, 20, 32)
    index = build_index(database, "IVF16,SQ8", block=700)
    assert index.ntotal == 3000
    index.nprobe = 16
    assert_same(search(database, queries, 10, index), brute_force(database, queries, 10))
    index.nprobe = 1  # one list of sixteen: neighbours are missed, distances are exact all the same
    predictions, distances = search(database, queries, 10, index)
    by_hand = np.square(database[predictions] - queries[:, None]).sum(2)
    np.testing.assert_allclose(distances, by_hand, rtol=1e-5)
    exact = search(database, queries, 10)[0]
    shares = [len(np.intersect1d(a, b)) / 10 for a, b in zip(predictions, exact)]
    assert 0.05 < np.mean(shares) < 0.95


def test_an_index_that_finds_too_few_gives_way_to_exact_search():
    rng = np.random.default_rng(1)
    database, queries = unit(rng, 300, 8), unit(rng, 5, 8)
    index = build_index(database, "IVF64,Flat")
    index.nprobe = 1
    assert_same(search(database, queries, 100, index), brute_force(database, queries, 100))


def test_the_index_is_chosen_by_size():
    gigabytes = 1e9
    assert choose_index(27_191, 512, 24 * gigabytes)[0] is None
    assert choose_index(2_800_000, 512, 24 * gigabytes)[0] is None
    assert choose_index(2_800_000, 512, 8 * gigabytes)[0] == "SQ8"
    factory, why = choose_index(100_000_000, 512, 24 * gigabytes)
    assert factory == "IVF32768,PQ64" and "204.80 GB" in why and "24.0 GB of memory" in why
    with pytest.raises(VgeoError, match="even compressed.*split the database"):
        choose_index(10**9, 512, 24 * gigabytes)
    for n, memory in ((100_000, 0.15), (100_000, 0.03)):  # as large as it says
        factory, _ = choose_index(n, 512, memory * gigabytes)
        index = faiss.index_factory(512, factory)
        assert index.code_size + 8 * ("IVF" in factory) <= memory * gigabytes / 2 / n
