"""Exact nearest neighbours: the k database descriptors nearest to each query."""

import faiss
import numpy as np

from vgeo.errors import VgeoError

ROWS = 64  # database rows compared at once in float64: they stay in the processor's cache


def search(database, queries, k):
    """The k nearest database descriptors of each query, by exhaustive search with faiss.

    database: (N, D), queries: (Q, D), both float32 (other types are converted, which copies them; the database may
    be a memory map). Returns predictions, int64 (Q, k), database indices, and distances, float32 (Q, k), squared
    L2, ascending; equal distances are in the order of the database. Raises VgeoError when k is not in [1, N], the
    dimensions differ or a value is not finite.

    faiss works in float32 and in blocks, so its last digits, and with them the order of near ties, depend on which
    queries come together. It therefore proposes somewhat more than k, and the distances of those are computed again
    in float64, one query at a time: a query's answer is the same in every batch. Needs memory for the candidates
    only, no index.
    """
    database, queries = (np.ascontiguousarray(x, dtype=np.float32) for x in (database, queries))
    if database.ndim != 2 or queries.ndim != 2 or database.shape[1] != queries.shape[1]:
        raise VgeoError(f"database {database.shape}, queries {queries.shape}: need (N, D) and (Q, D) of one model")
    if not 1 <= k <= len(database):
        raise VgeoError(f"k = {k} neighbours of a database of {len(database)}: k must be from 1 to its size")
    reach = _norms(database, "database image").max() + _norms(queries, "query")
    proposals = min(2 * k + 10, len(database))
    proposed_distances, proposed = faiss.knn(queries, database, proposals)
    # Of float32's |x|^2 + |y|^2 - 2 x.y, which is what faiss computes for many queries. Rounding errors grow with the
    # root of the number of terms (Higham and Mary, SIAM J. Sci. Comput. 2019); 8 is their constant for odds of 1e-13.
    error = 8 * np.sqrt(queries.shape[1]) * 2.0**-24 * reach**2

    predictions = np.empty((len(queries), k), dtype=np.int64)
    distances = np.empty((len(queries), k), dtype=np.float32)
    for i, query in enumerate(queries):
        rows = np.sort(proposed[i])
        exact = _distances(database[rows], query)
        order = np.argsort(exact, kind="stable")[:k]
        # What faiss left out is at least as far as its last; if that is not clearly beyond the k-th, look at all.
        if proposals < len(database) and exact[order[-1]] >= proposed_distances[i, -1] - error[i]:
            rows = np.arange(len(database))
            exact = np.concatenate([_distances(database[j:j + ROWS], query) for j in range(0, len(database), ROWS)])
            order = np.argsort(exact, kind="stable")[:k]
        predictions[i], distances[i] = rows[order], exact[order]
    return predictions, distances


def _distances(rows, query):
    """Squared L2 distances, summed in float64 and rounded to float32: equal rows are equally far."""
    return np.square(rows.astype(np.float64) - query).sum(axis=1).astype(np.float32)


def _norms(descriptors, name):
    """L2 norm of each row, (N,)."""
    with np.errstate(over="ignore", invalid="ignore"):
        norms = np.sqrt(np.einsum("nd,nd->n", descriptors, descriptors))
    if not np.isfinite(norms).all():
        row = int(np.flatnonzero(~np.isfinite(norms))[0])
        raise VgeoError(f"the descriptor of {name} {row} is not finite: check that image and the model's weights")
    return norms
