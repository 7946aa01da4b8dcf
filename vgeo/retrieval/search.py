"""Nearest neighbours: exact, or among those that a compressed index proposes."""

import math

import faiss
import numpy as np

from vgeo.errors import VgeoError

ROWS = 64  # database rows that are compared at once in float64: they fit a processor's cache


def search(
    database: np.ndarray, queries: np.ndarray, k: int, index=None
) -> tuple[np.ndarray, np.ndarray]:
    """The k database descriptors nearest to each query.

    faiss computes in float32 and in blocks, so that its last digits, and with them the order of
    near ties, depend on which queries come together. Here it proposes more than k neighbours. Their
    distances are computed again in float64, so that a query's answer is the same in every batch.

    Parameters
    ----------
    database, queries : float32 (N, D) and (Q, D); other types are converted, which copies them. The
        database may be a memory map.
    index : of `build_index`, which then proposes. Distances are still exact, but neighbours may be
        missed. None searches exhaustively, which needs no memory beside the descriptors'.

    Returns
    -------
    predictions : int64 (Q, k), rows of the database.
    distances : float32 (Q, k), squared L2, ascending; equal ones in the order of the database.

    Raises
    ------
    VgeoError : k is not in [1, N], the dimensions differ, or a value is not finite.
    """
    database, queries = (np.ascontiguousarray(x, dtype=np.float32) for x in (database, queries))
    if database.ndim != 2 or queries.ndim != 2 or database.shape[1] != queries.shape[1]:
        raise VgeoError(
            f"database {database.shape}, queries {queries.shape}: need (N, D) and (Q, D) of one "
            "model"
        )
    if not 1 <= k <= len(database):
        raise VgeoError(
            f"k = {k} neighbours of a database of {len(database)}: k must be from 1 to its size"
        )
    proposed, bounds = _proposals(database, queries, min(2 * k + 10, len(database)), index)
    predictions = np.empty((len(queries), k), dtype=np.int64)
    distances = np.empty((len(queries), k), dtype=np.float32)
    for i, query in enumerate(queries):
        rows = np.sort(proposed[i][proposed[i] >= 0])  # -1: an index that found fewer
        exact = _distances(database[rows], query)
        order = np.argsort(exact, kind="stable")[:k]
        if len(rows) < k or exact[order[-1]] >= bounds[i]:  # a row left out may be nearer
            rows, starts = np.arange(len(database)), range(0, len(database), ROWS)
            exact = np.concatenate([_distances(database[j : j + ROWS], query) for j in starts])
            order = np.argsort(exact, kind="stable")[:k]
        predictions[i], distances[i] = rows[order], exact[order]
    return predictions, distances


def choose_index(n: int, dim: int, memory: float) -> tuple[str | None, str]:
    """How n descriptors of dim float32 numbers should be searched in `memory` bytes.

    Half of the memory is for the index. One byte a number ("SQ8") lost no neighbour that was
    measured. An inverted file of product-quantised codes ("IVF...,PQ...") loses some.

    Returns
    -------
    The factory string for `build_index`, or None for exhaustive search; and words that say why.

    Raises
    ------
    VgeoError : the memory is too small for any index.
    """
    lists, codes = inverted_lists(n), dim // 8
    sizes = {None: 4 * n * dim, "SQ8": n * dim, f"IVF{lists},PQ{codes}": n * (codes + 8)}
    for factory, size in sizes.items():
        if size <= memory / 2:
            how = f"compressed as {factory}, {size / 1e9:.2f} GB" if factory else "all are compared"
            raw = f"{n:,} descriptors are {4 * n * dim / 1e9:.2f} GB"
            return factory, f"{raw}, {memory / 1e9:.1f} GB of memory: {how}"
    raise VgeoError(
        f"{n:,} descriptors of {dim} numbers need {size / 5e8:.1f} GB of memory even compressed, "
        f"{memory / 1e9:.1f} GB are there: split the database, or use a machine with more"
    )


def inverted_lists(n: int) -> int:
    """How many lists an inverted file of n descriptors has: a power of two near 4 sqrt(n).

    References
    ----------
    faiss, "Guidelines to choose an index".
    """
    return 2 ** round(math.log2(max(4 * math.sqrt(n), 2)))


def build_index(database: np.ndarray, factory: str, block: int = 100_000, seed: int = 0):
    """A faiss index of descriptors, float32 (N, D), trained on up to 64 random rows a list.

    Parameters
    ----------
    database : may be a memory map; `block` rows of it are read at a time.
    factory : as from `choose_index`.
    """
    index = faiss.index_factory(database.shape[1], factory)
    lists = getattr(index, "nlist", 256)
    sample = min(len(database), 64 * lists)
    rows = np.random.default_rng(seed).choice(len(database), sample, replace=False)
    index.train(np.ascontiguousarray(database[np.sort(rows)]))
    for start in range(0, len(database), block):
        index.add(np.ascontiguousarray(database[start : start + block]))
    if hasattr(index, "nprobe"):
        index.nprobe = max(1, lists // 64)
    return index


def _proposals(
    database: np.ndarray, queries: np.ndarray, count: int, index
) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the database (Q, count), -1 for none, and (Q,) bounds.

    Every row that is not proposed is at least as far from the query as its bound. An index gives no
    bound: its infinite ones let the proposals stand.
    """
    lengths, unbounded = _norms(queries, "query"), np.full(len(queries), np.inf)
    if index is not None:
        return index.search(queries, count)[1], unbounded
    farthest, proposed = faiss.knn(queries, database, count)
    longest = _norms(database, "database image").max() + lengths
    if count == len(database):
        return proposed, unbounded
    # faiss computes |x|^2 + |y|^2 - 2 x.y in float32. Its rounding error grows with the root of the
    # number of terms; 8 is the constant for odds of 1e-13 (Higham and Mary, "A new approach to
    # probabilistic rounding error analysis", SIAM J. Sci. Comput. 2019).
    error = 8 * np.sqrt(queries.shape[1]) * 2.0**-24 * longest**2
    return proposed, farthest[:, -1] - error


def _distances(rows: np.ndarray, query: np.ndarray) -> np.ndarray:
    """Squared L2 distances, float32, summed in float64: equal rows are equally far."""
    return np.square(rows.astype(np.float64) - query).sum(axis=1).astype(np.float32)


def _norms(descriptors: np.ndarray, name: str) -> np.ndarray:
    """The L2 norm of each row, (N,). Raises VgeoError for a row that is not finite."""
    with np.errstate(over="ignore", invalid="ignore"):
        norms = np.sqrt(np.einsum("nd,nd->n", descriptors, descriptors))
    bad = np.flatnonzero(~np.isfinite(norms))
    if len(bad):
        raise VgeoError(
            f"the descriptor of {name} {bad[0]} is not finite: check that image and the model's "
            "weights"
        )
    return norms
