"""Soups against numpy's weighted mean, and the greedy recipe against its definition."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vgeo.errors import VgeoError
from vgeo.models.network import build
from vgeo.models.soups import average, greedy


@pytest.fixture(scope="module")
def models():
    torch.manual_seed(3)
    return [build("resnet18").state_dict() for _ in range(3)]


def test_a_soup_of_one_model_is_that_model(models):
    for states in ([models[0]], [models[0]] * 2, [models[0]] * 3):
        soup = average(states)
        for name, value in models[0].items():
            assert torch.equal(soup[name], value) and soup[name].dtype == value.dtype


def test_a_soup_is_the_weighted_mean(models):
    shares = [0.5, 0.2, 0.3]
    soup = average(models, shares)
    for name in ("backbone.0.weight", "aggregation.3.bias", "backbone.1.running_var"):
        values = [state[name].double().numpy() for state in models]
        by_hand = np.average(values, axis=0, weights=shares).astype(np.float32)
        np.testing.assert_allclose(soup[name], by_hand, rtol=1e-6)  # float32's rounding
    alone = average(models[:2], [1, 0])
    assert all(torch.equal(alone[name], models[0][name]) for name in soup)


def test_what_is_no_soup(models):
    with pytest.raises(VgeoError, match="different models"):
        average([models[0], {**models[1], "more": torch.zeros(1)}])
    with pytest.raises(VgeoError, match="different models"):
        average([models[0], {**models[1], "aggregation.3.bias": torch.zeros(3)}])
    for shares in ([0.5, 0.6], [1.0], [0.2, 0.2]):
        with pytest.raises(VgeoError, match="share"):
            average(models[:2], shares)


@settings(deadline=None)
@given(st.permutations("abcd"), st.lists(st.integers(0, 20), min_size=15, max_size=15))
def test_greedy_never_ends_below_its_best_ingredient(names, values):
    table = {}

    def score(chosen):
        return table.setdefault(frozenset(chosen), values[len(table)])

    kept = greedy(names, score)
    assert score(kept) >= max(table[frozenset(name)] for name in names)
    assert len(set(kept)) == len(kept) and set(kept) <= set(names)


def test_greedy_by_hand():
    recalls = {"a": 60, "b": 70, "c": 50, "ba": 69, "bc": 71}
    assert greedy(["a", "b", "c"], lambda names: recalls["".join(names)]) == ["b", "c"]
