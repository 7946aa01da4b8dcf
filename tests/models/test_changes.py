"""Gradient reversal, soups, fusions and multi-scale aggregation."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import approx_fprime

from vgeo.errors import VgeoError
from vgeo.retrieval.fuse import nearest_first, reciprocal_ranks, shared_first
from vgeo.models.discriminator import Discriminator, domain_loss, reverse_gradient
from vgeo.models.network import build
from vgeo.retrieval.multiscale import METHODS, SCALES, aggregate
from vgeo.models.soups import average, greedy


# Gradient reversal


def test_the_reversed_gradient_is_minus_the_finite_differences():
    torch.manual_seed(0)
    discriminator = Discriminator(6).double()
    source, target = (
        torch.randn(3, 6, 2, 2, dtype=torch.float64),
        torch.randn(2, 6, 2, 2, dtype=torch.float64),
    )

    def loss_of(flat):
        maps = torch.from_numpy(np.array(flat)).view_as(source)
        logits = discriminator.layers(torch.cat([maps, target]).mean((2, 3)))
        return torch.nn.functional.cross_entropy(logits, torch.tensor([0, 0, 0, 1, 1])).item()

    leaf = source.clone().requires_grad_(True)
    # domain_loss works in float32; the same computed in float64 is what finite differences need
    logits = discriminator(torch.cat([leaf, target]))
    torch.nn.functional.cross_entropy(logits, torch.tensor([0, 0, 0, 1, 1])).backward()
    numeric = approx_fprime(source.flatten().numpy(), loss_of, 1e-7)
    np.testing.assert_allclose(leaf.grad.flatten().numpy(), -numeric, atol=1e-6)
    assert np.abs(numeric).max() > 1e-3


def test_the_discriminator_itself_learns():
    torch.manual_seed(1)
    discriminator = Discriminator(8)
    source, target = torch.randn(16, 8, 3, 3) + 1, torch.randn(16, 8, 3, 3) - 1
    optimizer = torch.optim.Adam(discriminator.parameters(), lr=0.01)
    first, right = domain_loss(discriminator, source, target)
    for _ in range(60):
        optimizer.zero_grad()
        loss, right = domain_loss(discriminator, source, target)
        loss.backward()
        optimizer.step()
    assert loss < 0.2 * first and right > 0.9
    widths = [
        layer.out_features for layer in discriminator.layers if hasattr(layer, "out_features")
    ]
    assert widths == [50, 20, 2]  # the report's


def test_features_that_follow_the_reversed_gradient_lose_their_domain():
    """Descending the total loss on the features makes the domains harder to tell, not easier."""
    torch.manual_seed(2)
    discriminator = Discriminator(4)
    maps = torch.cat([torch.randn(32, 4, 1, 1) + 0.4, torch.randn(32, 4, 1, 1) - 0.4])
    optimizer = torch.optim.Adam(discriminator.parameters(), lr=0.02)
    for _ in range(30):
        optimizer.zero_grad()
        domain_loss(discriminator, maps[:32], maps[32:])[0].backward()
        optimizer.step()
    features = maps.clone().requires_grad_(True)
    before, _ = domain_loss(discriminator, features[:32], features[32:])
    before.backward()
    after, _ = domain_loss(discriminator, *(features - 5 * features.grad).detach().split(32))
    assert after > before + 0.01
    assert torch.equal(reverse_gradient(maps), maps)


# Soups


@pytest.fixture(scope="module")
def models():
    torch.manual_seed(3)
    return [build("resnet18").state_dict() for _ in range(3)]


def test_a_soup_of_one_model_is_that_model(models):
    for states in ([models[0]], [models[0]] * 2, [models[0]] * 3):
        soup = average(states)
        assert all(
            torch.equal(soup[name], models[0][name]) and soup[name].dtype == models[0][name].dtype
            for name in models[0]
        )


def test_a_soup_is_the_weighted_mean(models):
    soup = average(models, [0.5, 0.2, 0.3])
    for name in ("backbone.0.weight", "aggregation.3.bias", "backbone.1.running_var"):
        by_hand = np.average(
            [state[name].numpy() for state in models], axis=0, weights=[0.5, 0.2, 0.3]
        )
        np.testing.assert_allclose(soup[name], by_hand, atol=1e-7)
    assert all(torch.equal(average(models[:2], [1, 0])[name], models[0][name]) for name in soup)


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
    table, asked = {}, []

    def score(chosen):
        asked.append(tuple(chosen))
        return table.setdefault(frozenset(chosen), values[len(table)])

    kept = greedy(names, score)
    assert score(kept) >= max(table[frozenset(name)] for name in names)
    assert len(set(kept)) == len(kept) and set(kept) <= set(names)


def test_greedy_by_hand():
    recalls = {"a": 60, "b": 70, "c": 50, "ba": 69, "bc": 71}
    assert greedy(["a", "b", "c"], lambda names: recalls["".join(names)]) == ["b", "c"]


# Fusions

FIRST, NEAR = np.array([[7, 3, 9, 1]]), np.array([[0.1, 0.2, 0.5, 0.6]], np.float32)
OTHER, FAR = np.array([[3, 4, 7, 8]]), np.array([[0.15, 0.3, 0.4, 0.9]], np.float32)


def test_nearest_first_by_hand():
    predictions, distances = nearest_first(FIRST, NEAR, OTHER, FAR)
    assert predictions.tolist() == [[7, 3, 4, 9]]
    np.testing.assert_allclose(distances, [[0.1, 0.15, 0.3, 0.5]])


def test_shared_first_by_hand():
    assert shared_first(FIRST, OTHER).tolist() == [[7, 3, 9, 1]]
    assert shared_first(OTHER, FIRST).tolist() == [[3, 7, 4, 8]]
    assert shared_first(np.array([[1, 2]]), np.array([[5, 2]])).tolist() == [[2, 1]]


def test_reciprocal_ranks_by_hand():
    # 3: 1/62 + 1/61, 7: 1/61 + 1/63, then 4 (1/62), 9 (1/63)
    assert reciprocal_ranks(FIRST, OTHER).tolist() == [[3, 7, 4, 9]]


lists = st.integers(1, 6).flatmap(
    lambda k: st.tuples(
        *[st.permutations(range(8)).map(lambda order, k=k: np.array([order[:k]]))] * 2
    )
)


@settings(deadline=None)
@given(lists)
def test_fusions_hold_each_image_once_and_keep_a_list_that_is_merged_with_itself(both):
    first, other = both
    near = np.arange(first.shape[1], dtype=np.float32)[None]
    for fused in (
        nearest_first(first, near, other, near + 0.5)[0],
        shared_first(first, other),
        reciprocal_ranks(first, other),
    ):
        assert fused.shape == first.shape and len(set(fused[0])) == fused.shape[1]
        assert set(fused[0]) <= set(first[0]) | set(other[0])
    for same in (
        nearest_first(first, near, first, near)[0],
        shared_first(first, first),
        reciprocal_ranks(first, first),
    ):
        assert (same == first).all()


# Multi-scale


def test_aggregation_by_hand():
    descriptors = np.array([[[1, 4]], [[2, -2]], [[6, 1]]], np.float32)
    found = {method: aggregate(descriptors, method).tolist() for method in METHODS}
    assert found == {"avg": [[3, 1]], "sum": [[9, 3]], "max": [[6, 4]], "min": [[1, -2]]}
    assert aggregate(descriptors, "avg").dtype == np.float32
    assert SCALES == (0.526, 0.588, 1.0, 1.7, 1.9)  # the report's, section 8
