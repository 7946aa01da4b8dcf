"""Shares of the work, named random streams, and one process as the whole."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

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
