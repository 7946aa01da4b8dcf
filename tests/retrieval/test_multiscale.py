"""The aggregation of descriptors of several scales, by hand."""

import numpy as np

from vgeo.retrieval.multiscale import METHODS, SCALES, aggregate


def test_aggregation_by_hand():
    descriptors = np.array([[[1, 4]], [[2, -2]], [[6, 1]]], np.float32)
    found = {method: aggregate(descriptors, method).tolist() for method in METHODS}
    assert found == {"avg": [[3, 1]], "sum": [[9, 3]], "max": [[6, 4]], "min": [[1, -2]]}
    assert aggregate(descriptors, "avg").dtype == np.float32
    assert SCALES == (0.526, 0.588, 1.0, 1.7, 1.9)  # the original's, section 8
