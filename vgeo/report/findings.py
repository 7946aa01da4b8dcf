"""What was found, on one screen: a row for each change that the original studies, and the limits.

The table and the limits are computed from a results folder; the page and the README show them.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from vgeo.report import original, tables
from vgeo.report.claims import (
    ALPHA,
    MARGIN,
    TESTED,
    TOLERANCES,
    VERDICTS,
    at_tolerances,
    by_family,
    verdict_counts,
)
from vgeo.report.machines import Comparison, comparison
from vgeo.report.measures import NAMES
from vgeo.study.data import DATASETS
from vgeo.study.rows import FAMILIES

DECIDED = VERDICTS[:3]  # all but "no data"
CLAIMED, QUOTED = "in the original", "the original says"
COLUMNS = ["change", QUOTED, CLAIMED, *FAMILIES]
NOTE = (
    f"Points of R@1 ({', '.join(DATASETS)}) in the claimed direction (95 % interval; * where the "
    f"exact paired p < {ALPHA}). The last line of a cell counts the comparisons and costs that are "
    f"{' / '.join(DECIDED)}."
)
START = {"city": "the weights of vgeo/models/pretrained", "imagenet": "ImageNet weights"}


@dataclass(frozen=True)
class Change:
    """One of the seven changes of the original.

    Attributes
    ----------
    sections : of the original's text that speak of it.
    shown : the claims of the ledger whose R@1 is shown, {a word in front: the claim}.
    """

    name: str
    sections: tuple[str, ...]
    shown: Mapping[str, str]


_SIF = "Table 7: GeoWarp + GRL (SIF) better than GeoWarp, GRL, GeoWarp + GRL (NIF)"
CHANGES = (
    Change("loss", ("1.3",), {"": "Table 1: CosFace better than SphereFace, ArcFace"}),
    Change("gradient reversal", ("3",), {"": "Table 2: GRL better than baseline"}),
    Change(
        "brightness filter 0.15",
        ("4.1",),
        {"": "Table 3: baseline brightness=0.15 better than baseline brightness=none"},
    ),
    Change(
        "GeoWarp's re-ranking", ("5.2",), {"": "Table 4: baseline + GeoWarp better than baseline"}
    ),
    # by night the original's row has the brightness filter too
    Change(
        "backbone (by night with the filter)",
        ("6.1",),
        {"": "Table 5: EffV2s better than baseline"},
    ),
    Change(
        "soups and ensembles",
        ("7.1.3", "7.2.1"),
        {"soup: ": "Table 6: Model Soup not better than CosFace", "SIF: ": _SIF},
    ),
    Change("several scales", ("8", "8.1", "9"), {"": "Table 8: avg better than /"}),
)


def quotes(ledger: pd.DataFrame) -> list[str]:
    """A sentence for each quote of the original with a comparison that is decided, and a family's
    number of such comparisons.
    """
    lines, asked = [], ledger.groupby(["quote", "family"]).size().to_dict()
    for verdict in ("reproduced", "contradicted"):
        for quote, rows in ledger[ledger["verdict"] == verdict].groupby("quote", sort=False):
            counts = rows["family"].value_counts(sort=False).items()
            each = ", ".join(f"{n} of {asked[quote, family]} with {family}" for family, n in counts)
            lines.append(f"{verdict.capitalize()}: “{quote}” ({each}).")
    return lines


def changes(ledger: pd.DataFrame) -> pd.DataFrame:
    """The ledger in seven rows, one for each change: COLUMNS of text, lines divided by newlines.

    A family's last line holds the counts of DECIDED.
    """
    rows = []
    for change in CHANGES:
        about = ledger[ledger["section"].astype(str).isin(change.sections)]
        row: dict[str, list[str]] = {QUOTED: [], CLAIMED: []}
        for family in FAMILIES:
            of_family = about[about["family"] == family]
            names = {str(stated): str(claim) for stated, claim in TESTED[family]}
            row[family] = []
            for word, claim in change.shown.items():
                chosen = _is(of_family, claim=names[claim], metric="R@1")
                shown = original.rows_of(of_family[chosen])
                where = [each.dataset for each in shown]
                if family == FAMILIES[0]:
                    row[QUOTED] += [f"{word}“{each.quote}”" for each in shown[:1]]
                    printed = [f"{each.reported:+.1f}" for each in shown]
                    row[CLAIMED].append(word + ", ".join(printed))
                place = "" if where == list(DATASETS) else f"{_listed(where)} "
                row[family].append(word + place + ", ".join(map(_effect, shown)))
            counts = of_family["verdict"].value_counts().reindex(DECIDED, fill_value=0)
            row[family].append(" / ".join(map(str, counts)))
        rows.append({"change": change.name} | {name: "\n".join(row[name]) for name in row})
    return pd.DataFrame(rows, columns=COLUMNS)


def _effect(row) -> str:
    if pd.isna(row.effect):
        return "no data"
    clear = "*" if row.p < ALPHA else ""
    return f"{row.effect:+.1f}{clear} ({row.ci_low:.1f} to {row.ci_high:.1f})"


def limits(results: str | os.PathLike) -> list[str]:
    """How far a results folder's data carry its findings, in sentences; those it has numbers for.

    They state the number of queries, the size of the databases with chance recall, what the
    trainings start from, how far training moves the start's R@1, and what another machine decides.
    """
    folder, lines = Path(results), []
    if (table := _read(folder, "table_01")) is not None:
        shown = original.rows_of(table[_is(table, condition="CosFace", metric="R@1")].dropna())
        queries = _listed([f"{int(row.queries)} on {row.dataset}" for row in shown])
        widths = _listed([f"{(row.ci_high - row.ci_low) / 2:.0f}" for row in shown])
        lines.append(
            f"Queries: {queries}. The 95 % interval of the baseline's R@1 is ± {widths} points "
            "there."
        )
    if (table := _read(folder, "data_sets")) is not None:
        tests = table[~table["dataset"].str.endswith(" val")]
        counts = _listed([f"{count:,}" for count in tests["database"]])
        chance = _listed([f"{share:.1f}" for share in tests["chance R@1, %"]])
        where = _listed(list(tests["dataset"]))
        lines.append(f"Databases of {where}: {counts} photos. Chance R@1 is {chance} %.")
    if (starts := _read(folder, "starts")) is not None:
        lines.append(_training(starts))
    found, ledger = comparison(folder), _read(folder, "claims")
    if found is not None and ledger is not None:
        lines.append(_machines(found, ledger))
    return lines


def tolerances(ledger: pd.DataFrame) -> str:
    """The counts of DECIDED with other constants, in a sentence; "" for a ledger without them."""
    if not TOLERANCES.keys() <= set(ledger.columns):
        return ""
    counts = at_tolerances(ledger)
    words = counts[list(DECIDED)].astype(str).agg(" / ".join, axis=1)
    each = [
        f"{name}: {' and '.join(words[(counts['alpha'] == alpha) & (counts['margin'] == margin)])}"
        for name, (alpha, margin) in TOLERANCES.items()
    ]
    return (
        f"These counts are for alpha {ALPHA} and a margin of {MARGIN:g} points. "
        f"{'; '.join(each).capitalize()}."
    )


def _machines(found: Comparison, ledger: pd.DataFrame) -> str:
    """How many verdicts another machine does not share, and the counts with these undecided."""
    counts = found.counts(ledger).loc[list(DECIDED)].astype(str)
    each = _listed([" / ".join(counts[family]) for family in FAMILIES])
    return (
        f"Another machine differs in {len(found.verdicts)} verdicts ({found.trainings}). With these"
        f" as not decidable the counts are {each}."
    )


def _training(starts: pd.DataFrame) -> str:
    """What each backbone starts from, and how far CosFace's training moves its R@1.

    Parameters
    ----------
    starts : of `measures.starts`.
    """
    each = [
        f"{_listed([NAMES[name] for name in backbones])} from {START[str(weights)]}"
        for weights, backbones in starts.groupby("weights", sort=False)["backbone"].unique().items()
    ]
    text = f"Trainings start: {', '.join(each)}. {training_moves(starts)}"
    least = starts.groupby("backbone", sort=False)["p"].min()
    if still := [NAMES[name] for name in least[~(least < ALPHA)].index]:
        text += f" So comparisons of {_listed(still)}'s trainings say little about the techniques."
    if "city" in set(starts["weights"]):
        text += " Comparisons of backbones (Table 5) compare these starts too."
    return text


def training_moves(starts: pd.DataFrame) -> str:
    """How far training moves the R@1 of each backbone's start, in a sentence.

    Parameters
    ----------
    starts : rows of `measures.starts`.
    """
    of_backbones = []
    for name, rows in starts.groupby("backbone", sort=False):
        moves = zip(rows["difference"], rows["p"] < ALPHA, strict=True)
        points = _listed([f"{difference:+.1f}{'*' * clear}" for difference, clear in moves])
        of_backbones.append(f"{NAMES[str(name)]}'s by {points} points")
    where = _listed(list(starts["dataset"].unique()))
    moved = "; ".join(of_backbones)
    return f"Training by CosFace moves R@1 on {where}: {moved} (* where p < {ALPHA})."


def findings_table(
    claims: str | os.PathLike, limits: list[str] | None = None, note: str = NOTE
) -> str:
    """The findings in Markdown: the counts of all verdicts, the limits, a row for each change.

    Parameters
    ----------
    claims : the ledger's `claims.csv`.
    limits : sentences, from `limits`.
    """
    ledger = pd.read_csv(claims)
    lines = [f"- {line}" for line in (summary(ledger), *(limits or []))]
    # the ledger and the page have the quotes
    table = changes(ledger).drop(columns=QUOTED).map(lambda text: text.replace("\n", "<br>"))
    return "\n".join([*lines, "", tables.markdown(table), "", note])


def summary(ledger: pd.DataFrame) -> str:
    """The counts of all verdicts by family with the share of those that are not decidable, and in
    how many comparisons the families agree.
    """
    of_families = []
    for family, counts in verdict_counts(ledger).items():
        share = {"not decidable": f" ({100 * counts['not decidable'] / counts.sum():.0f} %)"}
        each = [f"{n}{share.get(str(verdict), '')} {verdict}" for verdict, n in counts.items() if n]
        of_families.append(f"{_listed(each)} with {family}")
    pairs = by_family(ledger)
    decided = pairs["same"] & pairs[FAMILIES[0]].isin(VERDICTS[:2])
    return (
        f"Of the original's comparisons and costs: {'; '.join(of_families)}. Both families agree "
        f"in {pairs['same'].sum()} of {len(pairs)} comparisons ({decided.sum()} of them decided) "
        f"and are opposite in {_opposite(pairs).sum()}."
    )


def opposites(ledger: pd.DataFrame) -> list[str]:
    """The claims that one family reproduces and the other contradicts, a sentence for each."""
    pairs, sentences = by_family(ledger), []
    chosen = pairs[_opposite(pairs)]
    for (claim, *verdicts), rows in chosen.groupby(["claim", *FAMILIES], sort=False):
        where = _listed([f"{row.dataset} {row.metric}" for row in original.rows_of(rows)])
        each = _listed([f"{v} with {f}" for v, f in zip(verdicts, FAMILIES, strict=True)])
        sentences.append(f"Opposite: “{claim}” is {each} ({where}).")
    return sentences


def _opposite(pairs: pd.DataFrame) -> pd.Series:
    """Which rows of `claims.by_family` are reproduced in one family, contradicted in the other."""
    return pairs[list(FAMILIES)].isin(VERDICTS[:2]).all(axis=1) & ~pairs["same"]


def _read(folder: Path, name: str) -> pd.DataFrame | None:
    path = folder / "tables" / f"{name}.csv"
    return pd.read_csv(path) if path.exists() else None


def _is(table: pd.DataFrame, **values: str) -> pd.Series:
    """Which rows have these values."""
    return (table[list(values)] == pd.Series(values)).all(axis=1)


def _listed(words: list[str]) -> str:
    """The words in a row: "a, b and c"."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
