"""Two ranked lists into one: the report's NIF and SIF, and reciprocal rank fusion."""

import numpy as np


def nearest_first(predictions, distances, other_predictions, other_distances):
    """NIF: both lists merged by distance, the first occurrence of an image kept.

    predictions int, distances float, (Q, K) each. A list that was re-ranked keeps its distances in ascending order: its first image counts
    as its nearest. Ties go to the first list. Returns predictions and distances (Q, K).
    """
    k = predictions.shape[1]
    found, far = np.empty_like(predictions), np.empty_like(distances)
    for q in range(len(predictions)):
        both, gaps = (
            np.concatenate([predictions[q], other_predictions[q]]),
            np.concatenate([distances[q], other_distances[q]]),
        )
        order = np.argsort(gaps, kind="stable")
        first = np.sort(np.unique(both[order], return_index=True)[1])[:k]
        found[q], far[q] = both[order][first], gaps[order][first]
    return found, far


def shared_first(predictions, other):
    """SIF: what both lists hold in the first one's order, then the first list's others, then the second's. int (Q, K) each -> (Q, K)."""
    found = np.empty_like(predictions)
    for q, (mine, theirs) in enumerate(zip(predictions, other)):
        shared = np.isin(mine, theirs)
        found[q] = np.concatenate([mine[shared], mine[~shared], theirs[~np.isin(theirs, mine)]])[
            : len(mine)
        ]
    return found


def reciprocal_ranks(predictions, other, c=60):
    """RRF: images by the sum of 1 / (c + rank), ranks from 1 (Cormack et al., SIGIR 2009). int (Q, K) each -> (Q, K). Ties: first list's order."""
    k, found = predictions.shape[1], np.empty_like(predictions)
    for q, lists in enumerate(zip(predictions, other)):
        scores = {}
        for ranked in lists:
            for rank, image in enumerate(ranked.tolist(), 1):
                scores[image] = scores.get(image, 0.0) + 1 / (c + rank)
        found[q] = sorted(scores, key=lambda image: -scores[image])[:k]
    return found
