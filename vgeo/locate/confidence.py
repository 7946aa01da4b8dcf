"""How sure an answer is: the probability that it is right, fitted to answers that are known, and how well such probabilities hold."""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit
from scipy.stats import binomtest

from vgeo.errors import VgeoError


@dataclass(frozen=True)
class Calibration:
    """A logistic regression: probability = 1 / (1 + exp(-(intercept + (features - mean) / spread @ slopes)))."""

    mean: tuple
    spread: tuple
    slopes: tuple
    intercept: float

    def __call__(self, features):
        """Probabilities, float64 (Q,), of features (Q, F)."""
        return expit(
            self.intercept
            + (np.asarray(features) - self.mean) / self.spread @ np.asarray(self.slopes)
        )


def fit(features, right):
    """The Calibration of known answers: features (Q, F), right bool (Q,).

    Maximum likelihood with a normal prior of deviation 1 on the slopes of the standardised features: they stay finite where a feature tells all
    right answers from all wrong ones. Raises VgeoError where there is no answer.
    """
    features, right = np.asarray(features, float), np.asarray(right, bool)
    if not len(right):
        raise VgeoError("no known answer to calibrate the confidence with: add photos")
    mean, spread = features.mean(0), features.std(0)
    spread[spread == 0] = 1.0
    x, sign = (features - mean) / spread, np.where(right, 1.0, -1.0)

    def cost(w):
        z = sign * (w[0] + x @ w[1:])
        slope = -sign * expit(-z)
        return np.logaddexp(0, -z).sum() + (w[1:] ** 2).sum() / 2, np.r_[
            slope.sum(), slope @ x + w[1:]
        ]

    found = minimize(cost, np.zeros(1 + x.shape[1]), jac=True).x
    return Calibration(
        tuple(mean.tolist()), tuple(spread.tolist()), tuple(found[1:].tolist()), float(found[0])
    )


def cross_fitted(features, right, groups, folds=10):
    """Probability of each known answer from a `fit` to the others, float64 (Q,); groups, int (Q,): what has the same one is held out together."""
    features, right = np.asarray(features, float), np.asarray(right, bool)
    fold = np.random.default_rng(0).permutation(np.max(groups) + 1)[groups] % folds
    found = np.empty(len(right))
    for k in np.unique(fold):
        held = fold == k
        found[held] = fit(features[~held], right[~held])(features[held])
    return found


def brier(probability, right):
    """Mean squared difference of probability and outcome, 0 to 1, lower is better (Brier, 1950)."""
    return float(np.mean((np.asarray(probability) - right) ** 2))


def reliability(probability, right, bins=10):
    """Rows {"answers", "promised", "right", "low", "high"} of bins of about equally many answers, by rising probability; equal ones share a bin.

    promised: mean probability; right: share of right answers, and its 95 % Wilson interval; all 0 to 1.
    """
    probability, right, rows = np.asarray(probability), np.asarray(right, bool), []
    number = np.searchsorted(
        np.quantile(probability, np.arange(1, bins) / bins), probability, side="right"
    )
    for k in np.unique(number):
        hits, count = int(right[number == k].sum()), int((number == k).sum())
        interval = binomtest(hits, count).proportion_ci(method="wilson")
        rows.append(
            {
                "answers": count,
                "promised": float(probability[number == k].mean()),
                "right": hits / count,
                "low": interval.low,
                "high": interval.high,
            }
        )
    return rows


def calibration_error(probability, right, bins=10):
    """Expected calibration error, 0 to 1: the mean, over answers, of |promised - right| of their bin in `reliability` (Naeini et al., 2015, with equally full bins)."""
    rows = reliability(probability, right, bins)
    return sum(row["answers"] * abs(row["promised"] - row["right"]) for row in rows) / sum(
        row["answers"] for row in rows
    )
