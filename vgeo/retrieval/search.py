"""Nearest neighbours: the k database descriptors nearest to each query, exactly, or among what a compressed index proposes."""

import math

import faiss
import numpy as np

from vgeo.errors import VgeoError

ROWS = 64  # database rows compared at once in float64: they stay in the processor's cache


def search(database, queries, k, index=None):
    """The k nearest database descriptors of each query, by exhaustive search with faiss.

    database: (N, D), queries: (Q, D), both float32 (other types are converted, which copies them; the database may
    be a memory map). Returns predictions, int64 (Q, k), database indices, and distances, float32 (Q, k), squared
    L2, ascending; equal distances are in the order of the database. Raises VgeoError when k is not in [1, N], the
    dimensions differ or a value is not finite.

    faiss works in float32 and in blocks, so its last digits, and with them the order of near ties, depend on which
    queries come together. It therefore proposes somewhat more than k, and the distances of those are computed again
    in float64, one query at a time: a query's answer is the same in every batch. Needs memory for the candidates
    only, no index.

    index: of `build_index`, which then proposes instead: the distances are still exact, a neighbour may be missed.
    """
    database, queries = (np.ascontiguousarray(x, dtype=np.float32) for x in (database, queries))
    if database.ndim != 2 or queries.ndim != 2 or database.shape[1] != queries.shape[1]:
        raise VgeoError(
            f"database {database.shape}, queries {queries.shape}: need (N, D) and (Q, D) of one model"
        )
    if not 1 <= k <= len(database):
        raise VgeoError(
            f"k = {k} neighbours of a database of {len(database)}: k must be from 1 to its size"
        )
    proposals, length = min(2 * k + 10, len(database)), _norms(queries, "query")
    if index is None:
        farthest, proposed = faiss.knn(queries, database, proposals)
        # Of float32's |x|^2 + |y|^2 - 2 x.y, which is what faiss computes for many queries. Rounding errors grow with the
        # root of the number of terms (Higham and Mary, SIAM J. Sci. Comput. 2019); 8 is their constant for odds of 1e-13.
        error = (
            8
            * np.sqrt(queries.shape[1])
            * 2.0**-24
            * (_norms(database, "database image").max() + length) ** 2
        )
        # what was left out is at least this far; all are proposed where there are no more
        beyond = (
            farthest[:, -1] - error if proposals < len(database) else np.full(len(queries), np.inf)
        )
    else:
        proposed, beyond = (
            index.search(queries, proposals)[1],
            np.full(len(queries), np.inf),
        )  # what it leaves out, it leaves out

    predictions = np.empty((len(queries), k), dtype=np.int64)
    distances = np.empty((len(queries), k), dtype=np.float32)
    for i, query in enumerate(queries):
        rows = np.sort(proposed[i][proposed[i] >= 0])  # -1: an index that found fewer
        exact = _distances(database[rows], query)
        order = np.argsort(exact, kind="stable")[:k]
        if len(rows) < k or exact[order[-1]] >= beyond[i]:  # look at all
            rows = np.arange(len(database))
            exact = np.concatenate(
                [_distances(database[j : j + ROWS], query) for j in range(0, len(database), ROWS)]
            )
            order = np.argsort(exact, kind="stable")[:k]
        predictions[i], distances[i] = rows[order], exact[order]
    return predictions, distances


def choose_index(n, dim, memory):
    """How n descriptors of dim float32 numbers should be searched in `memory` bytes -> (a faiss factory string, None for exact; why).

    Half of the memory is for the index. One byte a number loses nothing that was measured; an inverted file of product-quantised codes loses
    some neighbours (results/benchmarks/search.csv).
    """
    sizes = {
        None: 4 * n * dim,
        "SQ8": n * dim,
        f"IVF{inverted_lists(n)},PQ{dim // 8}": n * (dim // 8 + 8),
    }
    for factory, size in sizes.items():
        if size <= memory / 2:
            how = (
                "all are compared"
                if factory is None
                else f"compressed as {factory}, {size / 1e9:.2f} GB"
            )
            return (
                factory,
                f"{n:,} descriptors are {4 * n * dim / 1e9:.2f} GB, {memory / 1e9:.1f} GB of memory: {how}",
            )
    raise VgeoError(
        f"{n:,} descriptors of {dim} numbers need {size / 5e8:.1f} GB of memory even compressed, {memory / 1e9:.1f} GB are there: "
        "split the database, or use a machine with more"
    )


def inverted_lists(n):
    """How many cells an inverted file of n descriptors has: 4 sqrt(n), as faiss's guidelines have it, rounded to a power of two."""
    return 2 ** round(math.log2(max(4 * math.sqrt(n), 2)))


def build_index(database, factory, block=100_000, seed=0):
    """A faiss index of descriptors (N, D) float32 (a memory map is read a block at a time), trained on up to 64 random rows a cell."""
    index = faiss.index_factory(database.shape[1], factory)
    cells = getattr(index, "nlist", 256)
    rows = np.random.default_rng(seed).choice(
        len(database), min(len(database), 64 * cells), replace=False
    )
    index.train(np.ascontiguousarray(database[np.sort(rows)]))
    for start in range(0, len(database), block):
        index.add(np.ascontiguousarray(database[start : start + block]))
    if hasattr(index, "nprobe"):
        index.nprobe = max(1, cells // 64)
    return index


def _distances(rows, query):
    """Squared L2 distances, summed in float64 and rounded to float32: equal rows are equally far."""
    return np.square(rows.astype(np.float64) - query).sum(axis=1).astype(np.float32)


def _norms(descriptors, name):
    """L2 norm of each row, (N,)."""
    with np.errstate(over="ignore", invalid="ignore"):
        norms = np.sqrt(np.einsum("nd,nd->n", descriptors, descriptors))
    if not np.isfinite(norms).all():
        row = int(np.flatnonzero(~np.isfinite(norms))[0])
        raise VgeoError(
            f"the descriptor of {name} {row} is not finite: check that image and the model's weights"
        )
    return norms
