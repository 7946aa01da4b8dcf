"""Shares of the work, named random streams, one process as the whole, and how threads wait."""

import os
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from jupyter_client.manager import run_kernel

from vgeo import device
from vgeo.device import STREAMS, WHOLE, Share, iteration_seed, numpy_stream, torch_stream

counts = st.integers(1, 7)


@given(st.lists(st.integers()), counts)
def test_shares_interleaved_are_the_whole(rows, count):
    whole = [None] * len(rows)
    for index in range(count):
        whole[index::count] = Share(index, count).of(rows)
    assert whole == rows and WHOLE.of(rows) == rows
    sizes = [len(Share(index, count).of(rows)) for index in range(count)]
    assert max(sizes) - min(sizes) <= 1


@given(st.integers(1, 4), st.integers(0, 5), st.integers(1, 3), counts, st.integers(0, 2**31))
def test_random_numbers_of_the_shares_interleaved_are_those_of_the_whole(a, b, c, count, seed):
    def generator():
        return torch.Generator().manual_seed(seed)

    whole = torch.rand(a, b * count, c, generator=generator())
    joined = torch.empty_like(whole)
    for index in range(count):
        share = Share(index, count).rand(a, b, c, generator=generator())
        assert share.shape == (a, b, c)
        joined[:, index::count] = share
    assert torch.equal(joined, whole)
    assert torch.equal(WHOLE.rand(a, b * count, c, generator=generator()), whole)


@given(st.integers(1, 100), counts)
def test_a_batch_without_equal_shares_is_refused(size, count):
    equal = len({len(Share(index, count).of(range(size))) for index in range(count)}) == 1
    if equal:
        Share(0, count).check(size, "batch size")
    else:
        with pytest.raises(device.VgeoError, match=f"batch size {size}: {count} processes"):
            Share(0, count).check(size, "batch size")


@given(st.integers(0, 2**31), st.lists(st.integers(0, 2**31), max_size=2))
def test_streams_are_numpys_and_torchs(seed, numbers):
    for purpose, number in STREAMS.items():
        expected = np.random.default_rng([seed, number, *numbers]).random(4)
        np.testing.assert_array_equal(numpy_stream(seed, purpose, *numbers).random(4), expected)
    iteration = numbers[0] if numbers else 0
    expected = torch.rand(
        4, generator=torch.Generator().manual_seed(iteration_seed(seed, iteration))
    )
    assert torch.equal(torch.rand(4, generator=torch_stream(seed, iteration)), expected)


def test_purposes_and_iterations_have_streams_of_their_own():
    # Released results were made with these numbers.
    numbers = ("class order", "image of a class", "second image of a class", "GeoWarp's photos")
    numbers += ("candidate pairs", "night photos")
    assert [STREAMS[purpose] for purpose in numbers] == list(range(6))
    assert list(STREAMS.values()) == list(range(len(STREAMS)))
    assert iteration_seed(2, 3) == 2_000_009
    draws = {numpy_stream(0, purpose, i).random() for purpose in STREAMS for i in range(9)}
    draws |= {
        torch.rand(1, generator=torch_stream(s, i)).item() for s in range(3) for i in range(9)
    }
    assert len(draws) == 9 * len(STREAMS) + 27


def test_a_process_alone_is_the_first_and_has_all():
    assert device.share() == WHOLE and device.is_first()
    device.wait_for_all()
    assert device.from_first({"a": 1}) == {"a": 1} and device.gathered([1, 2]) == [1, 2]
    assert device.device().type == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize("name, dtype", [("bf16", torch.bfloat16), ("float32", torch.float32)])
def test_autocast(name, dtype):
    matrix = torch.eye(2)
    with device.autocast(torch.device("cpu"), name):
        assert (matrix @ matrix).dtype == dtype
    assert device.precision() in ("bf16", "float32")


# How OpenMP's threads wait: libgomp itself says what it read when it was loaded.

needs_libgomp = pytest.mark.skipif(sys.platform != "linux", reason="PyTorch has another OpenMP")


def without_policy(**variables):
    """This process's environment with `variables` as the only ones that say how threads wait."""
    names = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
    kept = {name: value for name, value in os.environ.items() if name not in names}
    return kept | {"OMP_DISPLAY_ENV": "verbose"} | variables


def spin_counts(text):
    return {int(count) for count in re.findall("GOMP_SPINCOUNT = '([0-9]+)'", text)}


def spin_counts_after(code, **variables):
    command = [sys.executable, "-c", code]
    environment = without_policy(**variables)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return spin_counts(done.stderr)


@needs_libgomp
@pytest.mark.parametrize("code", ["import vgeo.device", "import vgeo.retrieval.search"])
def test_threads_stop_spinning_soon_wherever_vgeo_is_imported_first(code):
    assert spin_counts_after(code) == {10_000}


@needs_libgomp
def test_what_a_person_says_about_waiting_threads_holds():
    code = "import vgeo.retrieval.search"
    assert spin_counts_after(code, GOMP_SPINCOUNT="77") == {77}
    assert spin_counts_after(code, OMP_WAIT_POLICY="passive") == {0}
    assert min(spin_counts_after(code, OMP_WAIT_POLICY="active")) > 300_000


@needs_libgomp
def test_threads_of_a_notebooks_kernel_stop_spinning_soon(tmp_path):
    with (
        open(tmp_path / "stderr", "w") as stderr,
        run_kernel(stderr=stderr, env=without_policy()) as client,
    ):
        code = "import pandas; import vgeo.retrieval.search"
        answer = client.execute_interactive(code, timeout=60)["content"]
        assert answer["status"] == "ok", answer
    assert spin_counts((tmp_path / "stderr").read_text()) == {10_000}


def test_pytest_imports_vgeo_before_torch():
    modules = list(sys.modules)  # in the order of their imports
    assert modules.index("vgeo") < modules.index("torch")
