"""Descriptors of one image at several sizes become one (section 8 of the original)."""

from collections.abc import Callable

import numpy as np

SCALES = (0.526, 0.588, 1.0, 1.7, 1.9)  # factors of the image's side
# In the order of the original's tables.
METHODS: dict[str, Callable] = {"avg": np.mean, "sum": np.sum, "max": np.max, "min": np.min}


def aggregate(descriptors: np.ndarray, method: str) -> np.ndarray:
    """Aggregates descriptors, float32 (S, N, D) of S scales, to (N, D) by a method of METHODS.

    As in the original's code, the result is not normalised again.
    """
    return METHODS[method](np.asarray(descriptors, np.float32), axis=0).astype(np.float32)
