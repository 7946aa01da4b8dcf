"""Descriptors of one image at several sizes, aggregated into one (the report, section 8)."""

import numpy as np

SCALES = (0.526, 0.588, 1.0, 1.7, 1.9)  # of the image's side (the report, section 8)


METHODS = {
    "avg": np.mean,
    "sum": np.sum,
    "max": np.max,
    "min": np.min,
}  # in the order of its tables


def aggregate(descriptors, method):
    """float32 (S, N, D), one descriptor a scale -> (N, D), by an entry of METHODS; not normalised again, as in the report's code."""
    return METHODS[method](np.asarray(descriptors, np.float32), axis=0).astype(np.float32)
