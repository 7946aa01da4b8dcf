"""The confidence against known probabilities, the minimum of its cost, and numbers by hand."""

import json
from dataclasses import asdict

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit
from scipy.stats import binomtest

from vgeo.locate.confidence import (
    Calibration,
    calibration_error,
    cross_fitted,
    fit,
    precision_areas,
    reliability,
    risk_coverage,
    scores,
    sureness,
)


def known(count, seed=0):
    """Features, the probability that each answer is right, and whether it is."""
    random = np.random.default_rng(seed)
    features = random.standard_normal((count, 3)) * [1, 10, 0.1] + [0, 5, 1]
    probability = expit(0.3 + (features - [0, 5, 1]) @ [1.0, -0.2, 4.0])
    return features, probability, random.random(count) < probability


def test_a_fit_finds_known_probabilities():
    features, probability, right = known(20_000)
    others, truth, outcome = known(5_000, seed=1)
    found = fit(features, right)(others)
    assert np.abs(found - truth).max() < 0.06
    assert calibration_error(found, outcome) < 0.03 < calibration_error(found**2, outcome)
    row = scores(found, outcome)
    assert abs(row["Brier"] - np.mean(truth * (1 - truth))) < 0.01
    assert row["Brier"] < row["Brier of the constant share"] - 0.01
    held = cross_fitted(features, right, np.arange(len(right)) // 4)
    assert np.abs(held - probability).max() < 0.08
    assert (held != fit(features, right)(features)).all()


@pytest.mark.parametrize("count", [12, 50, 400])
def test_a_fit_is_the_minimum_of_the_penalised_likelihood(count):
    features, _, right = known(count, seed=count)
    x = (features - features.mean(0)) / features.std(0)
    sign = np.where(right, 1, -1)

    def cost(w):  # the weights have a prior of deviation 1, the bias has none
        return np.logaddexp(0, -sign * (w[0] + x @ w[1:])).sum() + (w[1:] ** 2).sum() / 2

    best = minimize(cost, np.zeros(4), tol=1e-12).x
    expected = expit(best[0] + x @ best[1:])
    np.testing.assert_allclose(fit(features, right)(features), expected, rtol=0, atol=1e-4)


def test_a_fit_to_separable_answers_stays_finite():
    features = np.repeat([[0.0, 1.0, 5.0], [1.0, 1.0, 5.0]], 30, axis=0)
    found = fit(features, np.arange(60) >= 30)(features)
    assert (found[:30] < 0.1).all() and (found[30:] > 0.9).all() and np.isfinite(found).all()


def test_a_fit_to_answers_of_one_kind_is_the_rule_of_succession(refused):
    features = np.random.default_rng(0).standard_normal((8, 3))
    np.testing.assert_allclose(fit(features, np.ones(8, bool))(features), 9 / 10)
    np.testing.assert_allclose(fit(features, np.zeros(8, bool))(features), 1 / 10)
    refused(lambda: fit(np.empty((0, 3)), []), "no known answer", "add photos")


def test_a_calibration_is_its_formula():
    calibration = Calibration((1.0, 2.0), (0.5, 4.0), (3.0, -1.0), 0.25)
    expected = 1 / (1 + np.exp(-(0.25 + 3 * (2 - 1) / 0.5 - (6 - 2) / 4)))
    np.testing.assert_allclose(calibration([[2, 6], [1, 2]]), [expected, expit(0.25)])


def test_a_group_is_held_out_together():
    # group 3 looks like no other and is always right, which only a fit that saw it can know
    random = np.random.default_rng(0)
    features, right = random.standard_normal((200, 2)), random.random(200) < 0.5
    groups = np.arange(200) // 20
    features[groups == 3] += [20, 0]
    right[groups == 3], right[groups != 3] = True, random.random(180) < 0.2
    together = cross_fitted(features, right, groups)
    apart = cross_fitted(features, right, np.arange(200))
    assert together[groups == 3].max() < 0.9 < apart[groups == 3].min()
    halves = cross_fitted(features, right, groups % 2)  # fewer groups than folds
    expected = fit(features[groups % 2 == 1], right[groups % 2 == 1])(features[groups % 2 == 0])
    np.testing.assert_allclose(halves[groups % 2 == 0], expected)


def test_a_cross_fit_copes_with_a_fold_of_one_kind(refused):
    features, groups = np.arange(12.0)[:, None], np.repeat([0, 1], 6)
    found = cross_fitted(features, groups == 1, groups)
    np.testing.assert_allclose(found, [7 / 8] * 6 + [1 / 8] * 6)
    refused(lambda: cross_fitted(features, groups == 1, groups * 0), "add photos of other places")


def test_scores_by_hand():
    right = np.array([True, False, True, True])
    row = scores([1, 0, 1, 1], right)
    assert row["Brier"] == 0 and row["calibration error"] == 0 and row["count"] == 4
    assert row["within 25 m, %"] == row["mean confidence, %"] == 75
    assert row["Brier of the constant share"] == 0.75 * 0.25 == scores([0.75] * 4, right)["Brier"]
    assert scores([0.5] * 4, right)["Brier"] == 0.25
    assert scores([0.25] * 2, [True, True])["Brier"] == 0.75**2  # all right
    assert calibration_error([0.5] * 4, right) == 0.25 and calibration_error([0.75] * 4, right) == 0


def test_reliability_by_hand():
    rows = reliability([0.9, 0.1, 0.8, 0.2], [True, False, False, True], bins=2)
    assert [(row["answers"], row["right"]) for row in rows] == [(2, 0.5), (2, 0.5)]
    np.testing.assert_allclose([row["confidence"] for row in rows], [0.15, 0.85])
    interval = binomtest(1, 2).proportion_ci(method="wilson")
    assert all((row["low"], row["high"]) == (interval.low, interval.high) for row in rows)
    assert len(reliability([0.3] * 50, [True] * 50)) == 1  # equal ones share a bin
    _, probability, right = known(1000)
    counts = [row["answers"] for row in reliability(probability, right)]
    assert counts == [100] * 10


def test_risk_and_coverage_by_hand():
    coverage, risk = risk_coverage([0.9, 0.1, 0.8, 0.5], [True, False, False, True])
    np.testing.assert_allclose(coverage, [0.25, 0.5, 0.75, 1])
    np.testing.assert_allclose(risk, [0, 1 / 2, 1 / 3, 1 / 2])
    equal = risk_coverage([1, 1, 1, 0], [True, False, True, False])[1]
    np.testing.assert_allclose(equal, [1 / 3, 1 / 3, 1 / 3, 1 / 2])  # whatever their order


def test_areas_under_precision_and_recall_by_hand():
    distances, shared = [[0.1, 0.2], [0.5, 0.6], [0.3, 0.3]], [[9, 1], [3, 2], [4, 4]]
    right, nearest = [True, True, False], [False, True, True]
    ways = sureness([0.9, 0.2, 0.5], shared, right, distances, right)
    np.testing.assert_allclose(ways["ratio of distances"][0], [-0.5, -5 / 6, -1], rtol=1e-6)
    assert ways["number of matches"][0].tolist() == [9, 3, 4]
    areas = precision_areas(ways)["AUPRC"]
    # the right ones come first and third, or first and second
    assert areas["confidence"] == areas["distance"] == pytest.approx((1 + 2 / 3) / 2)
    assert areas["ratio of distances"] == 1
    # the nearest photo may be another answer than the first match
    other = precision_areas(sureness([0.9, 0.2, 0.5], shared, right, distances, nearest))
    assert other.loc["distance", "AUPRC"] == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert other.loc["confidence", "AUPRC"] == areas["confidence"]
    equal = sureness([0, 0], [[0], [0]], [True, False], [[0, 0], [0, 0]], [True, False])
    assert all(np.isfinite(score).all() for score, _ in equal.values())


def test_a_calibration_survives_json():
    features, _, right = known(50)
    calibration = fit(features, right)
    assert Calibration.of(json.loads(json.dumps(asdict(calibration)))) == calibration
