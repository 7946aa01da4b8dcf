"""The confidence of an answer: the probability that it is right. And how well such numbers hold.

The probability comes from a logistic regression that is fitted to answers whose right place is
known.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import expit
from scipy.stats import binomtest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, brier_score_loss
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from vgeo.errors import VgeoError

# How sure answers are, float (Q,), higher for surer ones, and which of them are right, bool (Q,).
Way = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Calibration:
    """A fitted logistic regression on F standardised features.

    Attributes
    ----------
    mean, spread : mean and standard deviation of each feature in the answers it was fitted to.
    weights : the weight of each standardised feature, in log odds.
    bias : the log odds of an answer whose features are all average.
    """

    mean: tuple[float, ...]
    spread: tuple[float, ...]
    weights: tuple[float, ...]
    bias: float

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "Calibration":
        """The Calibration of what `dataclasses.asdict` and JSON made of one."""
        mean, spread, weights = (tuple(values[name]) for name in ("mean", "spread", "weights"))
        return cls(mean, spread, weights, values["bias"])

    def __call__(self, features) -> np.ndarray:
        """Probabilities that answers are right, float64 (Q,), from their features (Q, F)."""
        standardised = (np.asarray(features, float) - self.mean) / self.spread
        return expit(self.bias + standardised @ np.asarray(self.weights))


def percent(confidence: float) -> str:
    """A confidence for people: "83 %", at the ends "> 99 %" and "< 1 %", "unknown" for NaN.

    No answer is certain, so that none is given 100 % or 0 %.
    """
    if math.isnan(confidence):
        return "unknown"
    if confidence > 0.99:
        return "> 99 %"
    return f"{100 * confidence:.0f} %" if confidence >= 0.01 else "< 1 %"


def fit(features, right) -> Calibration:
    """Fits a Calibration to answers that are known to be right or wrong.

    The weights have a normal prior of deviation 1 (C = 1). They therefore stay finite where a
    feature separates the right answers from the wrong ones. The bias has no prior.

    Parameters
    ----------
    features : float (Q, F).
    right : bool (Q,).

    Raises
    ------
    VgeoError : there is no answer.
    """
    features, right = np.asarray(features, float), np.asarray(right, bool)
    if not len(right):
        raise VgeoError("no known answer to fit the confidence to: add photos to the index")
    if right.all() or not right.any():  # no weight can be told: Laplace's rule of succession
        hits, none = int(right.sum()), (0.0,) * features.shape[1]
        bias = math.log((hits + 1) / (len(right) - hits + 1))
        return Calibration(none, tuple(1.0 for _ in none), none, bias)
    regression = LogisticRegression(C=1, solver="newton-cholesky", tol=1e-8)
    scaler, regression = make_pipeline(StandardScaler(), regression).fit(features, right)
    mean, spread, weights = map(tuple, (scaler.mean_, scaler.scale_, regression.coef_[0]))
    return Calibration(mean, spread, weights, regression.intercept_[0])


def cross_fitted(features, right, groups, folds: int = 10) -> np.ndarray:
    """The probability of each known answer, from a `fit` to answers of other groups alone.

    Parameters
    ----------
    features : float (Q, F).
    right : bool (Q,).
    groups : int (Q,). Answers of one group are held out together.

    Returns
    -------
    float64 (Q,).

    Raises
    ------
    VgeoError : all answers are of one group.
    """
    features, right = np.asarray(features, float), np.asarray(right, bool)
    folds = min(folds, len(np.unique(groups)))
    if folds < 2:
        raise VgeoError("all known answers are of one place: add photos of other places")
    probability = np.empty(len(right))
    for others, held in GroupKFold(folds).split(features, right, groups):
        probability[held] = fit(features[others], right[others])(features[held])
    return probability


def reliability(probability, right, bins: int = 10) -> list[dict[str, float]]:
    """How often answers are right, in bins of about equally many answers by rising probability.

    Answers of equal probability share a bin.

    Returns
    -------
    A dict a bin: answers (their number), confidence (their mean probability), right (the share that
    is right), low and high (the 95 % Wilson interval of that share). Shares are 0 to 1.
    """
    probability, right = np.asarray(probability, float), np.asarray(right, bool)
    edges = np.quantile(probability, np.arange(1, bins) / bins)
    bin_of = np.searchsorted(edges, probability, side="right")
    rows = []
    for number in np.unique(bin_of):
        inside = bin_of == number
        hits, count = int(right[inside].sum()), int(inside.sum())
        interval = binomtest(hits, count).proportion_ci(method="wilson")
        row = {"answers": count, "confidence": float(probability[inside].mean())}
        rows.append(row | {"right": hits / count, "low": interval.low, "high": interval.high})
    return rows


def calibration_error(probability, right, bins: int = 10) -> float:
    """Expected calibration error, 0 to 1.

    It is the mean, over the answers, of |confidence - right| of their bin in `reliability`.

    References
    ----------
    Naeini et al., Obtaining Well Calibrated Probabilities Using Bayesian Binning, AAAI 2015; there
    with bins of equal width.
    """
    rows = reliability(probability, right, bins)
    gaps = [abs(row["confidence"] - row["right"]) for row in rows]
    return float(np.average(gaps, weights=[row["answers"] for row in rows]))


def risk_coverage(score, right) -> tuple[np.ndarray, np.ndarray]:
    """How often answers are wrong where the least sure ones are not given.

    Parameters
    ----------
    score : (Q,), higher for surer answers.
    right : bool (Q,).

    Returns
    -------
    coverage : float64 (Q,), the share of the answers that is given: 1/Q to 1.
    risk : float64 (Q,), the share of these that is wrong. Answers of equal score are given
        together: they have the risk of all of them.

    References
    ----------
    El-Yaniv, Wiener, "On the foundations of noise-free selective classification", JMLR 2010.
    """
    score, right = np.asarray(score, float), np.asarray(right, bool)
    order = np.argsort(-score, kind="stable")
    given = np.arange(1, len(right) + 1)
    risk = np.cumsum(~right[order]) / given
    last = np.searchsorted(-score[order], -score[order], side="right") - 1
    return given / len(right), risk[last]


def risks(ways: Mapping[str, Way]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The `risk_coverage` of each of several ways."""
    return {name: risk_coverage(*way) for name, way in ways.items()}


def sureness(probability, shared, right, distances, nearest_right) -> dict[str, Way]:
    """Ways to say how sure answers are, each with the answers that it is about.

    Parameters
    ----------
    probability : (Q,), the confidence.
    shared : (Q, K), points that the query shares with its matches.
    right : bool (Q,), whether the first match is right.
    distances : (Q, K), of the query's descriptor and the nearest ones, ascending, K at least 2.
    nearest_right : bool (Q,), whether the photo with the nearest descriptor is right.
    """
    far, second = np.asarray(distances)[:, :2].T
    right, nearest_right = np.asarray(right, bool), np.asarray(nearest_right, bool)
    ratio = far / second.clip(min=np.finfo(np.float32).tiny)
    return {
        "confidence": (np.asarray(probability), right),
        "distance": (-far, nearest_right),
        "ratio of distances": (-ratio, nearest_right),
        "number of matches": (np.asarray(shared)[:, 0], right),
    }


def precision_areas(ways: Mapping[str, Way]) -> pd.DataFrame:
    """How well each of several ways finds the right answers.

    Returns
    -------
    A row a way: the share of right answers in percent, and AUPRC, 0 to 1, the area under precision
    and recall (average precision).
    """
    rows = {
        name: {"right, %": 100 * right.mean(), "AUPRC": average_precision_score(right, score)}
        for name, (score, right) in ways.items()
    }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("sure by")


def scores(probability, right) -> dict[str, float]:
    """Numbers for a table: count, shares in percent, Brier scores, calibration error.

    The Brier score is the mean squared difference of probability and outcome: 0 to 1, lower is
    better. The Brier score of the constant share is what the share of right answers itself would
    reach as the probability of every answer.

    References
    ----------
    Brier, Verification of Forecasts Expressed in Terms of Probability, Monthly Weather Review 1950.
    """
    probability, right = np.asarray(probability, float), np.asarray(right, bool)
    share = float(right.mean())
    return {
        "count": len(right),
        "within 25 m, %": 100 * share,
        "mean confidence, %": 100 * float(probability.mean()),
        "Brier": float(brier_score_loss(right, probability)),
        "Brier of the constant share": share * (1 - share),
        "calibration error": calibration_error(probability, right),
    }
