"""Two processes, connected by gloo as two machines would be, train what one does."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

TWO = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
CASE = Path(__file__).with_name("process_case.py")
NUMBERS = {
    "CosPlace": ["loss"],
    "city": ["loss"],  # which keeps the start's statistics by itself
    "GRL": ["loss", "domain_loss", "domain_accuracy"],
    "GeoWarp": ["loss", "self_supervised", "feature_wise", "consistency"],
    "alone": ["loss", "self_supervised", "feature_wise", "consistency"],
}
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def runs(streets, tmp_path_factory):
    """What one process has left, and what each of two has."""
    top = tmp_path_factory.mktemp("processes")
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    for name, how in (("one", ()), ("two", TWO)):
        command = [sys.executable, *how, str(CASE), str(streets.start.parent), str(top / name)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]
    return top / "one/0", top / "two/0", top / "two/1"


def test_descriptors_are_the_same_numbers(runs):
    one, *others = (np.load(folder / "descriptors.npz") for folder in runs)
    for other in others:
        for name in one:
            np.testing.assert_array_equal(one[name], other[name])


@pytest.mark.parametrize("method", NUMBERS)
def test_losses_are_the_same_within_rounding(runs, method):
    """With BatchNorm's statistics frozen nothing but the order of sums differs.

    float32 sums of some thousand numbers agree to 1e-4 at the very least. After a step the weights
    differ where a gradient is a rounding error, which is where the loss does not depend on them.
    The log has 5 digits after the point.
    """
    one, *others = (pd.read_csv(folder / method / "log.csv") for folder in runs)
    assert one["iteration"].max() == 3 and set(NUMBERS[method]) <= set(one.columns)
    for other in others:
        for name in NUMBERS[method]:
            np.testing.assert_allclose(one[name], other[name], rtol=1e-4, atol=1.1e-5)


@pytest.mark.parametrize("method", ["CosPlace", "city", "GRL", "GeoWarp", "statistics"])
def test_processes_validate_the_same_model(runs, method):
    """With BatchNorm's statistics of each process's share too; they change what is trained."""
    one, first, second = ((folder / method / "validated").read_text() for folder in runs)
    assert first == second
    assert one != first or method != "statistics"


def test_batches_without_equal_shares_are_refused(runs):
    one, first, second = (folder / "odd/refused" for folder in runs)
    assert not one.exists()
    assert first.read_text() == second.read_text()
    assert "batches of 3: 2 processes can't have equal shares" in first.read_text()
