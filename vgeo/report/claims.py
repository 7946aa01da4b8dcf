"""The claims ledger: what the report says, as data, and what our stored predictions say about it."""

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
import pandas as pd
from scipy import stats

from vgeo.errors import VgeoError
from vgeo.report.original import KEY, printed
from vgeo.retrieval.metrics import paired_test

ALL = ("sf-xs", "tokyo-xs", "tokyo-night")


BOTH = ("R@1", "R@5")


ALPHA = 0.05


# Points of recall within which two results are "about the same": the report calls 2 points on 105 queries "not much different". To show a
# difference below 5, at most 4 of 105 queries may differ, or some 60 of 315. A smaller margin could not be shown on so few.
MARGIN = 5.0


TOLERANCE = 0.25  # of a ratio of times: "about 1.5x" and "almost zero" are no sharper


VERDICTS = ("reproduced", "contradicted", "not decidable", "no data")


COLUMNS = [
    "section",
    "quote",
    "claim",
    "dataset",
    "metric",
    "queries",
    "effect",
    "ci_low",
    "ci_high",
    "p",
    "mean_effect",
    "spread",
    "seeds",
    "reported",
    "verdict",
    "reason",
]


@dataclass(frozen=True)
class Claim:
    """One comparison that a sentence of the report makes, on each of `datasets` and in each of `metrics`.

    better: a (table, condition), spelled as in report_tables.csv; worse: one or more of them, what it is compared with. kind: ">", better
    than every one of `worse`; "=", about the same; "<=", not better. Conditions outside the published tables (brightness 0.05, 0.6, 0.8)
    are keyed by the table that they would be in.
    """

    section: str
    quote: str
    better: tuple
    worse: tuple
    datasets: tuple = ALL
    metrics: tuple = BOTH
    kind: str = ">"

    def __str__(self):
        sign = {">": "better than", "=": "about the same as", "<=": "not better than"}[self.kind]
        return f"Table {self.better[0]}: {self.better[1]} {sign} {', '.join(condition for _, condition in self.worse)}"


@dataclass(frozen=True)
class Cost:
    """A ratio of times that the report states. name: its key in the `costs` of `ledger`; ratio: with the change over without it."""

    section: str
    quote: str
    name: str
    ratio: float


# Section 8's sentences, on each of its tables: quote, better, worse. Section 8.1: "the same final considerations [...] are valid".
SCALES = (
    ("the best logic is the one that averages the descriptors", "avg", ("sum", "max", "min")),
    ("it leads the model to generalize better", "avg", ("/",)),
    ("sum’s logic performs poorly", "/", ("sum",)),
)


SAME = "the same final considerations of the section (8) are valid"


def _brightness(model, factor):
    return 3, f"{model} brightness={factor}"


CLAIMS = (
    # 1.3, Table 1
    Claim(
        "1.3",
        "CosFace leads to better R@1",
        (1, "CosFace"),
        ((1, "SphereFace"), (1, "ArcFace")),
        metrics=("R@1",),
    ),
    *(
        Claim(
            "1.3",
            "SphereFace and ArcFace provided slightly worse results",
            (1, "CosFace"),
            ((1, loss),),
            metrics=("R@1",),
        )
        for loss in ("SphereFace", "ArcFace")
    ),
    # 3, Table 2
    Claim(
        "3",
        "GRL alone leads to a significant improvement in terms of recalls in all cases",
        (2, "GRL"),
        ((2, "baseline"),),
    ),
    # 4.1, Table 3: the factor on the database of tokyo-night
    *(
        Claim(
            "4.1",
            "a brightness filter with a factor between 0.1 and 0.2 improves the results",
            _brightness(model, factor),
            (_brightness(model, "none"),),
            ("tokyo-night",),
        )
        for model in ("baseline", "GRL")
        for factor in (0.1, 0.15, 0.2)
    ),
    *(
        Claim(
            "4.1",
            "when the brightness factor is too low, the feature extractor will not be able to extract properly the features",
            _brightness(model, "none"),
            (_brightness(model, 0.05),),
            ("tokyo-night",),
        )
        for model in ("baseline", "GRL")
    ),
    *(
        Claim(
            "4.1",
            "For brightness factor greater than 0.4, the extracted features will not be much different from the case where "
            "the filter is disabled",
            _brightness(model, factor),
            (_brightness(model, "none"),),
            ("tokyo-night",),
            kind="=",
        )
        for model in ("baseline", "GRL")
        for factor in (0.6, 0.8)
    ),
    # 5.2, Table 4
    Claim(
        "5.2",
        "GeoWarp significantly improves the R@1 in all the three datasets",
        (4, "baseline + GeoWarp"),
        ((4, "baseline"),),
        metrics=("R@1",),
    ),
    Claim(
        "5.2",
        "it slightly worsens R@5 in all three datasets",
        (4, "baseline"),
        ((4, "baseline + GeoWarp"),),
        metrics=("R@5",),
    ),
    Claim(
        "5.2",
        "GeoWarp can achieve even better results using a different backbone network",
        (5, "EffV2s + GeoWarp"),
        ((5, "ResNet18 + GeoWarp"),),
    ),
    # 6.1, Table 5
    Claim(
        "6.1",
        "EfficientNetV2s (EffV2s) outperforms the model trained with ResNet18",
        (5, "EffV2s"),
        ((5, "baseline"),),
    ),
    Claim(
        "6.1",
        "the best model is the one that combines GeoWarp and EffV2s for the Recall@1",
        (5, "EffV2s + GeoWarp"),
        tuple(
            (5, row)
            for row in (
                "baseline",
                "ResNet18 + GeoWarp",
                "ResNet18 + GRL",
                "EffV2s",
                "EffV2s + GRL",
            )
        ),
        metrics=("R@1",),
    ),
    Claim(
        "6.1",
        "EffV2s and GRL model performs better in sf-xs and Tokyo-xs on the Recall@5",
        (5, "EffV2s + GRL"),
        tuple(
            (5, row)
            for row in (
                "baseline",
                "ResNet18 + GeoWarp",
                "ResNet18 + GRL",
                "EffV2s",
                "EffV2s + GeoWarp",
            )
        ),
        ("sf-xs", "tokyo-xs"),
        ("R@5",),
    ),
    Claim(
        "6.1",
        "Tokyo-night the best Recall@5 is achieved using only EffV2s",
        (5, "EffV2s"),
        tuple(
            (5, row)
            for row in (
                "baseline",
                "ResNet18 + GeoWarp",
                "ResNet18 + GRL",
                "EffV2s + GeoWarp",
                "EffV2s + GRL",
            )
        ),
        ("tokyo-night",),
        ("R@5",),
    ),
    # 7.1.3, Table 6
    Claim(
        "7.1.3",
        "Results are not very encouraging",
        (6, "Model Soup"),
        ((6, "CosFace"),),
        metrics=("R@1",),
        kind="<=",
    ),
    # 7.2.1, Table 7
    Claim(
        "7.2.1",
        "GeoWarp performs slightly better than the GRL model",
        (7, "GeoWarp"),
        ((7, "GRL"),),
        metrics=("R@1",),
    ),
    Claim(
        "7.2.1",
        "NIF effectively improves the R@1",
        (7, "GeoWarp + GRL (NIF)"),
        ((7, "GeoWarp"), (7, "GRL")),
        ("tokyo-night",),
        ("R@1",),
    ),
    Claim(
        "7.2.1",
        "for sf-xs and Tokyo-xs, the best results (in terms of R@1) are obtained with SIF",
        (7, "GeoWarp + GRL (SIF)"),
        ((7, "GeoWarp"), (7, "GRL"), (7, "GeoWarp + GRL (NIF)")),
        ("sf-xs", "tokyo-xs"),
        ("R@1",),
    ),
    # 8 and 8.1, Tables 8 to 13
    *(
        Claim("8", quote, (table, better), tuple((table, row) for row in worse))
        for table in (8, 9, 10, 11)
        for quote, better, worse in SCALES
    ),
    *(
        Claim("8.1", SAME, (table, better), tuple((table, row) for row in worse))
        for table in (12, 13)
        for _, better, worse in SCALES
    ),
    # 9
    *(
        Claim(
            "9",
            "same result obtained with avg method for multiscale and SIF",
            row,
            ((5, "EffV2s + GeoWarp"),),
            ("sf-xs",),
            ("R@1",),
            "=",
        )
        for row in ((11, "avg"), (7, "GeoWarp + GRL (SIF)"))
    ),
)


COSTS = (
    Cost(
        "3",
        "at a cost of an higher training time (1.5x the time required by the baseline)",
        "GRL training",
        1.5,
    ),
    Cost("4.1", "with almost zero additional computational costs", "brightness testing", 1.0),
    Cost(
        "5.2",
        "it is employed without adding a significant computational cost at testing time",
        "GeoWarp testing",
        1.0,
    ),
    Cost("6.1", "Effv2s requires about 1.5x more time", "EffV2s training", 1.5),
)


def ledger(result, seeds, costs=None):
    """Every claim on every data set and metric, measured -> DataFrame of COLUMNS, in the report's order within recalls and within costs.

    result(table, condition, dataset, seed) -> an object with `right(n)` -> bool (Q,), which queries have a right prediction among the
    first n (`study.Result`), or a str that says why there is none. seeds: of the trainings; the first one's results are tested, and a
    verdict on the side of the claim or against it needs all of them to agree. costs: {name of a COSTS entry: measured ratio}.

    `effect` is `better` minus `worse` in points of recall at the first seed, with its 95 % interval over queries (`difference_interval`)
    and the p value of the exact paired test (`metrics.paired_test`); with several rivals it is the one with the highest recall, and p
    is Holm's. `mean_effect` and `spread` (standard deviation, NaN for one seed) are over seeds; `reported` is the effect in the report's
    tables, NaN where they have none. For costs `effect` and `reported` are ratios. Verdicts:

    - ">": reproduced when better than every rival with p < ALPHA, contradicted when some rival is better with p < ALPHA.
    - "=": reproduced when the interval lies within MARGIN points of 0, contradicted when it lies wholly beyond.
    - "<=": contradicted when better with p < ALPHA, reproduced otherwise if the interval ends below MARGIN.
    - costs: reproduced within TOLERANCE of the stated ratio, else contradicted.
    - "not decidable" for the rest, and "no data" without a result, each with its reason.

    Raises VgeoError without seeds, and for a cost that is not one of COSTS or not above 0.
    """
    seeds, costs = list(seeds), costs or {}
    if not seeds:
        raise VgeoError("no seeds: the ledger needs the results of at least one training")
    names = [cost.name for cost in COSTS]
    for name, ratio in costs.items():
        if name not in names or not (math.isfinite(ratio) and ratio > 0):
            raise VgeoError(
                f"cost {name!r}: {ratio}: give a ratio above 0 for one of {', '.join(names)}"
            )
    found = cache(result)
    published = printed().set_index(KEY)["value"].to_dict()
    rows = [
        _compare(claim, dataset, metric, found, seeds, published)
        for claim in CLAIMS
        for dataset in claim.datasets
        for metric in claim.metrics
    ]
    rows += [_cost(cost, costs.get(cost.name)) for cost in COSTS]
    return pd.DataFrame(rows, columns=COLUMNS).astype({"queries": "Int64", "seeds": "Int64"})


def verdict_counts(ledger):
    """How many rows of the ledger have each verdict -> Series, all of VERDICTS, in that order."""
    return ledger["verdict"].value_counts().reindex(VERDICTS, fill_value=0)


def difference_interval(right_a, right_b, level=0.95):
    """Interval of the difference of two recalls on the same queries, a minus b -> (low, high) in points.

    right_a, right_b: bool (Q,). The adjusted Wald interval of Bonett and Price (Journal of Educational and Behavioral Statistics 37,
    2012): the closed form for a paired multinomial, one query added to each kind of discordant pair. Unlike a bootstrap it keeps its
    coverage with few queries, and a width when none differs. Raises VgeoError when there is no query.
    """
    right_a, right_b = np.asarray(right_a, dtype=bool), np.asarray(right_b, dtype=bool)
    if len(right_a) == 0:
        raise VgeoError("no queries: a difference of recalls needs at least one")
    only_a, only_b, n = (
        np.sum(right_a & ~right_b) + 1,
        np.sum(right_b & ~right_a) + 1,
        len(right_a) + 2,
    )
    difference = (only_a - only_b) / n
    half = stats.norm.ppf((1 + level) / 2) * math.sqrt(((only_a + only_b) / n - difference**2) / n)
    return float(100 * max(difference - half, -1)), float(100 * min(difference + half, 1))


def holm(p):
    """Holm's adjusted p values (Scandinavian Journal of Statistics 6, 1979), (M,) -> (M,): each valid for all M tests together."""
    p = np.asarray(p, dtype=float)
    order = np.argsort(p)
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1)
    return adjusted


def _compare(claim, dataset, metric, found, seeds, published):
    """One row of the ledger: a claim on one data set in one metric."""
    row = {
        "section": claim.section,
        "quote": claim.quote,
        "claim": str(claim),
        "dataset": dataset,
        "metric": metric,
        "seeds": len(seeds),
        "reported": _reported(claim, dataset, metric, published),
    }
    results = {
        key: [found(*key, dataset, seed) for seed in seeds] for key in (claim.better, *claim.worse)
    }
    for missing in (
        each for of_seeds in results.values() for each in of_seeds if isinstance(each, str)
    ):
        return row | {"verdict": "no data", "reason": missing}
    n = int(metric.removeprefix("R@"))
    ours, *rivals = (
        [np.asarray(each.right(n), dtype=bool) for each in of_seeds]
        for of_seeds in results.values()
    )
    p = holm([paired_test(ours[0], rival[0]) for rival in rivals])
    effects = np.array(
        [[100 * (a.mean() - b.mean()) for a, b in zip(ours, rival)] for rival in rivals]
    )  # rivals x seeds
    strongest = int(effects[:, 0].argmin())
    low, high = difference_interval(ours[0], rivals[strongest][0])
    if claim.kind == ">":
        verdict, why, about = _superior(effects, p)
    else:
        verdict, why, about = *_equivalent(claim.kind, effects[0], p[0], low, high), 0
    if verdict == "not decidable":
        wins, losses = np.sum(ours[0] & ~rivals[about][0]), np.sum(rivals[about][0] & ~ours[0])
        why += f": of {len(ours[0])} queries {wins} for and {losses} against"
        why += f", compared with {claim.worse[about][1]}" if len(rivals) > 1 else ""
    return row | {
        "queries": len(ours[0]),
        "effect": effects[strongest, 0],
        "ci_low": low,
        "ci_high": high,
        "p": p[strongest],
        "mean_effect": effects[strongest].mean(),
        "spread": effects[strongest].std(ddof=1) if len(seeds) > 1 else math.nan,
        "verdict": verdict,
        "reason": why,
    }


def _superior(effects, p):
    """Verdict of ">", why, and the rival that it hangs on. effects: (rivals, seeds), p: (rivals,)."""
    lost = (effects[:, 0] < 0) & (p < ALPHA)
    if lost.any():
        rival = int(np.where(lost, effects[:, 0], np.inf).argmin())
        agreed = (effects[rival] < 0).all()
        return (
            "contradicted" if agreed else "not decidable",
            "" if agreed else "the sign differs between seeds",
            rival,
        )
    open_ = (effects[:, 0] <= 0) | (p >= ALPHA)
    if open_.any():
        return "not decidable", f"p is not below {ALPHA}", int(np.where(open_, p, -1).argmax())
    unstable = (effects <= 0).any(axis=1)
    if unstable.any():
        return "not decidable", "the sign differs between seeds", int(unstable.argmax())
    return "reproduced", "", 0


def _equivalent(kind, effects, p, low, high):
    """Verdict of "=" or "<=" and why. effects: (seeds,); p, low and high of the first seed."""
    if kind == "=":
        within, beyond = low >= -MARGIN and high <= MARGIN, low > MARGIN or high < -MARGIN
        agreed = (
            (np.abs(effects) <= MARGIN).all()
            if within
            else (np.sign(effects) == np.sign(effects[0])).all()
        )
    else:
        beyond = effects[0] > 0 and p < ALPHA
        within = high <= MARGIN and not beyond
        agreed = (effects <= MARGIN).all() if within else (effects > 0).all()
    if not within and not beyond:
        return "not decidable", f"the interval crosses {MARGIN:g} points"
    if not agreed:
        return "not decidable", "the seeds disagree"
    return "reproduced" if within else "contradicted", ""


def _reported(claim, dataset, metric, published):
    """The effect in the report's own tables, against the best rival; NaN where a row is not printed."""
    ours, *rivals = (
        published.get((*key, dataset, metric), math.nan) for key in (claim.better, *claim.worse)
    )
    return round(ours - float(np.max(rivals)), 1)


def _cost(cost, measured):
    row = {
        "section": cost.section,
        "quote": cost.quote,
        "claim": f"{cost.name} takes {cost.ratio:g} times as long",
        "dataset": "",
        "metric": "ratio of times",
        "reported": cost.ratio,
    }
    if measured is None:
        return row | {"verdict": "no data", "reason": "not measured"}
    verdict = "reproduced" if abs(measured / cost.ratio - 1) <= TOLERANCE else "contradicted"
    return row | {"effect": measured, "verdict": verdict, "reason": ""}
