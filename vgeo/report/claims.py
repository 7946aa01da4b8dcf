"""The ledger of claims: each comparison that the original's text makes, tested on our predictions.

`data/claims.csv` holds the claims, a row for each comparison: the section and the sentence that is
quoted, the row that the original calls better (its table and condition, spelled as in
`data/report_tables.csv`), a sign, the rows it is compared with, and the data sets and metrics. The
signs are ">", better than each of them; "=", about the same; "<=", not better. Brightness factors
that the text speaks of and no table prints are rows of Table 3.

Each claim is tested in two families of rows, `rows.FAMILIES`: on the rows that the original
compares, and on those of the second family that stand for them (`rows.counterpart`).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy import stats

from vgeo.errors import VgeoError
from vgeo.report import original, tables
from vgeo.retrieval.metrics import paired_test
from vgeo.study.rows import FAMILIES, counterpart

ALPHA = 0.05
# Points of recall within which two results are "about the same": the original calls 2 points on 105
# queries "not much different". To show that a difference is below 5 points, at most 4 of 105
# queries may differ, or some 60 of 315. A smaller margin could not be shown on so few queries.
MARGIN = 5.0
RATIO_TOLERANCE = 0.25  # of a ratio of times: "about 1.5x" and "almost zero" are no sharper
VERDICTS = ("reproduced", "contradicted", "not decidable", "no data")
# {name: (alpha, margin)}: what the verdicts would be with other constants. Each is a column.
TOLERANCES = {
    "alpha 0.01": (0.01, MARGIN),
    "alpha 0.10": (0.10, MARGIN),
    "margin 3": (ALPHA, 3.0),
    "margin 10": (ALPHA, 10.0),
}
COLUMNS = [
    *("section", "quote", "claim", "family", "dataset", "metric", "queries", "effect", "ci_low"),
    *("ci_high", "p", "mean_effect", "spread", "seeds", "reported", "verdict", "reason"),
    *TOLERANCES,
]
RATIO = "ratio of times"  # the metric of a cost
WORDS = {">": "better than", "=": "about the same as", "<=": "not better than"}

Row = tuple[int, str]  # table and condition


@dataclass(frozen=True)
class Claim:
    """One comparison that a sentence of the original makes; see the module."""

    section: str
    quote: str
    better: Row
    kind: str
    worse: tuple[Row, ...]
    datasets: tuple[str, ...]
    metrics: tuple[str, ...]

    def __str__(self) -> str:
        table, condition = self.better
        rivals = ", ".join(condition for _, condition in self.worse)
        return f"Table {table}: {condition} {WORDS[self.kind]} {rivals}"

    def in_second_family(self) -> "Claim":
        """The same claim about the rows that stand for these; equal where there are none."""
        better, *worse = [
            (table, counterpart(table, condition))
            for table, condition in (self.better, *self.worse)
        ]
        return replace(self, better=better, worse=tuple(worse))


@dataclass(frozen=True)
class Cost:
    """A ratio of times that the original states: with a change over without it.

    Attributes
    ----------
    name : of the measured ratio in the `costs` of `ledger`.
    """

    section: str
    quote: str
    name: str
    ratio: float


def _row(words: str) -> Row:
    table, condition = words.strip().split(" ", 1)
    return int(table), condition


def _read_claims() -> tuple[Claim, ...]:
    lines = pd.read_csv(original.DATA / "claims.csv", dtype=str)
    return tuple(
        Claim(
            *(line.section, line.quote, _row(line.better), line.kind),
            tuple(_row(words) for words in line.worse.split(";")),
            tuple(line.datasets.split()),
            tuple(line.metrics.split()),
        )
        for line in original.rows_of(lines)
    )


CLAIMS = _read_claims()
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
# {family: [(a claim of the original, the claim about the family's rows)]}
TESTED = {
    FAMILIES[0]: [(claim, claim) for claim in CLAIMS],
    FAMILIES[1]: [
        (claim, other) for claim in CLAIMS if (other := claim.in_second_family()) != claim
    ],
}
# {table: the conditions of it that the claims compare, in all families}
_COMPARED = sorted(
    {row for pairs in TESTED.values() for _, claim in pairs for row in (claim.better, *claim.worse)}
)
CONDITIONS = {
    table: tuple(condition for number, condition in _COMPARED if number == table)
    for table in sorted({number for number, _ in _COMPARED})
}


def ledger(
    results: Mapping[int, Mapping],
    costs: Mapping[str, float] | None = None,
    absent: Mapping[str, str] | None = None,
) -> pd.DataFrame:
    """Every claim on every data set and metric, tested on our results in both families of rows.

    Parameters
    ----------
    results : {seed: {table: {condition: {data set: Result}}}}, with the conditions of CONDITIONS.
        A Result has `right(n)` -> bool (Q,), which queries have a right prediction among the first
        n. The first seed's results are tested. A verdict for or against a claim needs all seeds to
        agree.
    costs : {name of a COSTS entry: measured ratio}.
    absent : {data set without results: why}.

    Returns
    -------
    Rows with COLUMNS: in the original's family one for each claim, data set and metric, then one
    for each cost; then in the second family one for each claim whose rows have a counterpart, data
    set and metric. `claim` names the rows that are tested. `effect` is `better` minus `worse` in
    points of recall, with its 95 % interval over queries (`difference_interval`) and the p value of
    the exact paired test. Of several rivals it is the one with the highest recall, and p is Holm's.
    `mean_effect` and `spread` (standard deviation, NaN for one seed) are over seeds. `reported` is
    the effect in the original's tables, in both families, NaN where they have none. For costs
    `effect` and `reported` are ratios. The verdicts:

    - ">": reproduced when better than every rival with p < ALPHA, contradicted when some rival is
      better with p < ALPHA.
    - "=": reproduced when the interval lies within MARGIN points of 0, contradicted when it lies
      wholly beyond.
    - "<=": contradicted when better with p < ALPHA, else reproduced if the interval ends below
      MARGIN.
    - costs: reproduced within RATIO_TOLERANCE of the stated ratio, else contradicted.
    - all others are "not decidable", or "no data" without a result, each with its reason.

    The columns of TOLERANCES hold the verdicts with another ALPHA or MARGIN.

    Raises
    ------
    VgeoError
        Without seeds, and for a cost that is not one of COSTS or not above 0.
    """
    costs, absent = costs or {}, absent or {}
    if not results:
        raise VgeoError("no seeds: the ledger needs the results of at least one training")
    names = [cost.name for cost in COSTS]
    for name, ratio in costs.items():
        if name not in names or not (math.isfinite(ratio) and ratio > 0):
            known = ", ".join(names)
            raise VgeoError(f"cost {name!r}: {ratio}: give a ratio above 0 for one of {known}")
    published = original.printed().set_index(original.KEY)["value"].to_dict()
    of_family = {
        family: [
            _compare(claim, dataset, metric, results, absent)
            | {"family": family, "reported": _reported(stated, dataset, metric, published)}
            for stated, claim in pairs
            for dataset in claim.datasets
            for metric in claim.metrics
        ]
        for family, pairs in TESTED.items()
    }
    first, second = (of_family[family] for family in FAMILIES)
    rows = [*first, *(_cost(cost, costs.get(cost.name)) for cost in COSTS), *second]
    table = pd.DataFrame(rows, columns=COLUMNS).astype({"queries": "Int64", "seeds": "Int64"})
    for name in TOLERANCES:  # of costs and of what has no data
        table[name] = table[name].fillna(table["verdict"])
    return table


def at_tolerances(ledger: pd.DataFrame) -> pd.DataFrame:
    """How many rows of the ledger have which verdict, with the constants here and with others.

    Returns
    -------
    A row for each family and tolerance: family, alpha, margin (points), and a count for each of
    VERDICTS but "no data".
    """
    rows = []
    for family in FAMILIES:
        of_family = ledger[ledger["family"] == family]
        for column, constants in {"verdict": (ALPHA, MARGIN), **TOLERANCES}.items():
            counts = of_family[column].value_counts().reindex(VERDICTS[:3], fill_value=0)
            row: dict = {"family": family} | dict(zip(("alpha", "margin"), constants, strict=True))
            rows.append(row | counts.to_dict())
    return pd.DataFrame(rows)


def verdict_counts(ledger: pd.DataFrame) -> pd.DataFrame:
    """How many rows of the ledger have each of VERDICTS, in that order: a column a family.

    Costs count for the original's family.
    """
    counts = pd.crosstab(ledger["verdict"], ledger["family"])
    return counts.reindex(index=VERDICTS, columns=FAMILIES, fill_value=0)


def by_family(ledger: pd.DataFrame) -> pd.DataFrame:
    """The verdicts of both families side by side.

    Returns
    -------
    A row for each comparison that is tested in both: section, quote, claim (about the original's
    rows), dataset, metric, a column of verdicts for each family, and `same`, whether the two
    verdicts are equal.
    """
    names = {str(claim): str(stated) for stated, claim in TESTED[FAMILIES[1]]}
    comparison = ["claim", "dataset", "metric"]
    first, second = (
        ledger[ledger["family"] == family].rename(columns={"verdict": family})
        for family in FAMILIES
    )
    second = second.assign(claim=second["claim"].map(names))
    pairs = first.merge(second[[*comparison, FAMILIES[1]]], on=comparison)
    pairs = pairs[["section", "quote", *comparison, *FAMILIES]]
    return pairs.assign(same=pairs[FAMILIES[0]] == pairs[FAMILIES[1]])


def readable(ledger: pd.DataFrame) -> pd.DataFrame:
    """The ledger as text to be read: effects with their sign, intervals in one column."""
    rows = original.rows_of(ledger)

    def numbers(column: str) -> list[str]:
        signs = ["" if row.metric == RATIO else "+" for row in rows]
        values = [getattr(row, column) for row in rows]
        texts = [f"{value:{sign}.1f}" for value, sign in zip(values, signs, strict=True)]
        return ["" if text.endswith("nan") else text for text in texts]

    low, high, p = numbers("ci_low"), numbers("ci_high"), ledger["p"]
    return pd.DataFrame(
        {
            "section": ledger["section"],
            "quote": ledger["quote"],
            "claim": ledger["claim"],
            "family": ledger["family"],
            "data set": ledger["dataset"].fillna(""),
            "metric": ledger["metric"],
            "effect, points": numbers("effect"),
            "95 % interval": [f"{a} to {b}" if a else "" for a, b in zip(low, high, strict=True)],
            "p": ["" if pd.isna(each) else tables.p_value(each)[2:].lstrip("= ") for each in p],
            "spread over seeds": [text.lstrip("+") for text in numbers("spread")],
            "in the original": numbers("reported"),
            "verdict": ledger["verdict"],
            "why": ledger["reason"].fillna(""),
        }
    )


def difference_interval(right_a, right_b, level: float = 0.95) -> tuple[float, float]:
    """Interval of the difference of two recalls on the same queries, a minus b.

    The adjusted Wald interval for a paired multinomial, with one query added to each kind of
    discordant pair. Unlike a bootstrap it keeps its coverage with few queries, and a width when no
    query differs.

    Parameters
    ----------
    right_a, right_b : bool (Q,), which queries are right.

    Returns
    -------
    low, high : points, -100 to 100.

    Raises
    ------
    VgeoError
        When there is no query.

    References
    ----------
    .. [1] Bonett and Price, Journal of Educational and Behavioral Statistics 37, 2012.
    """
    right_a, right_b = np.asarray(right_a, dtype=bool), np.asarray(right_b, dtype=bool)
    if len(right_a) == 0:
        raise VgeoError("no queries: a difference of recalls needs at least one")
    only_a, only_b = np.sum(right_a & ~right_b) + 1, np.sum(right_b & ~right_a) + 1
    n = len(right_a) + 2
    difference = (only_a - only_b) / n
    deviation = math.sqrt(((only_a + only_b) / n - difference**2) / n)
    half = stats.norm.ppf((1 + level) / 2) * deviation
    return float(100 * max(difference - half, -1)), float(100 * min(difference + half, 1))


def holm(p) -> np.ndarray:
    """Adjusts M p values so that each is valid for all M tests together.

    References
    ----------
    .. [1] Holm, Scandinavian Journal of Statistics 6, 1979.
    """
    p = np.asarray(p, dtype=float)
    order = np.argsort(p)
    adjusted = np.empty_like(p)
    scaled = p[order] * np.arange(len(p), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(scaled), 1)
    return adjusted


def _compare(claim, dataset, metric, results, absent) -> dict:
    """One row of the ledger, without family and reported: a claim on one data set, one metric."""
    keys = (claim.better, *claim.worse)
    row = {"section": claim.section, "quote": claim.quote, "claim": str(claim), "dataset": dataset}
    row |= {"metric": metric, "seeds": len(results)}
    of_rows = [
        [of_seed[table][condition].get(dataset) for of_seed in results.values()]
        for table, condition in keys
    ]
    if any(result is None for of_seeds in of_rows for result in of_seeds):
        return row | {"verdict": "no data", "reason": absent.get(dataset, "not measured")}
    n = int(metric.removeprefix("R@"))
    ours, *rivals = (
        [np.asarray(result.right(n), dtype=bool) for result in of_seeds] for of_seeds in of_rows
    )
    p = holm([paired_test(ours[0], rival[0]) for rival in rivals])
    effects = np.array(  # (rivals, seeds)
        [
            [100 * (a.mean() - b.mean()) for a, b in zip(ours, rival, strict=True)]
            for rival in rivals
        ]
    )
    strongest = int(effects[:, 0].argmin())
    low, high = difference_interval(ours[0], rivals[strongest][0])

    def judge(alpha: float, margin: float) -> tuple[str, str, int]:
        if claim.kind == ">":
            return _superior(effects, p, alpha)
        ends = difference_interval(ours[0], rivals[0][0], 1 - alpha)
        return *_equivalent(claim.kind, effects[0], p[0], *ends, alpha, margin), 0

    verdict, reason, about = judge(ALPHA, MARGIN)
    if verdict == "not decidable":
        wins = np.sum(ours[0] & ~rivals[about][0])
        losses = np.sum(rivals[about][0] & ~ours[0])
        reason += f": of {len(ours[0])} queries {wins} for and {losses} against"
        reason += f", compared with {claim.worse[about][1]}" if len(rivals) > 1 else ""
    effect = effects[strongest]
    row |= {"queries": len(ours[0]), "effect": effect[0], "ci_low": low, "ci_high": high}
    row |= {"p": p[strongest], "mean_effect": effect.mean()}
    row["spread"] = effect.std(ddof=1) if len(results) > 1 else math.nan
    row |= {name: judge(*constants)[0] for name, constants in TOLERANCES.items()}
    return row | {"verdict": verdict, "reason": reason}


def _superior(effects: np.ndarray, p: np.ndarray, alpha: float) -> tuple[str, str, int]:
    """Verdict of ">", its reason, and the rival that it hangs on; effects (rivals, seeds)."""
    lost = (effects[:, 0] < 0) & (p < alpha)
    if lost.any():
        rival = int(np.where(lost, effects[:, 0], np.inf).argmin())
        if (effects[rival] < 0).all():
            return "contradicted", "", rival
        return "not decidable", "the sign differs between seeds", rival
    undecided = (effects[:, 0] <= 0) | (p >= alpha)
    if undecided.any():
        rival = int(np.where(undecided, p, -1).argmax())
        return "not decidable", f"p is not below {alpha}", rival
    unstable = (effects <= 0).any(axis=1)
    if unstable.any():
        return "not decidable", "the sign differs between seeds", int(unstable.argmax())
    return "reproduced", "", 0


def _equivalent(
    kind: str, effects, p: float, low: float, high: float, alpha: float, margin: float
) -> tuple[str, str]:
    """Verdict of "=" or "<=" and its reason; effects (seeds,), the others of the first seed."""
    if kind == "=":
        within, beyond = low >= -margin and high <= margin, low > margin or high < -margin
        same_sign = (np.sign(effects) == np.sign(effects[0])).all()
        agreed = (np.abs(effects) <= margin).all() if within else same_sign
    else:
        beyond = effects[0] > 0 and p < alpha
        within = high <= margin and not beyond
        agreed = (effects <= margin).all() if within else (effects > 0).all()
    if not within and not beyond:
        return "not decidable", f"the interval crosses {margin:g} points"
    if not agreed:
        return "not decidable", "the seeds disagree"
    return ("reproduced" if within else "contradicted"), ""


def _reported(claim: Claim, dataset: str, metric: str, published: Mapping) -> float:
    """The printed effect against the best rival; NaN where one is not printed."""
    keys = (claim.better, *claim.worse)
    value, *rivals = [published.get((*key, dataset, metric), math.nan) for key in keys]
    return round(value - float(np.max(rivals)), 1)


def _cost(cost: Cost, measured: float | None) -> dict:
    """One row of the ledger: a ratio of times, in the original's family."""
    row: dict = {"section": cost.section, "quote": cost.quote, "family": FAMILIES[0]}
    row |= {"dataset": "", "metric": RATIO}
    row |= {"claim": f"{cost.name} takes {cost.ratio:g} times as long", "reported": cost.ratio}
    if measured is None:
        return row | {"verdict": "no data", "reason": "not measured"}
    close = abs(measured / cost.ratio - 1) <= RATIO_TOLERANCE
    verdict = "reproduced" if close else "contradicted"
    return row | {"effect": measured, "verdict": verdict, "reason": ""}
