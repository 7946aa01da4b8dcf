"""What was found, on one screen: a row for each change that the original studies, and the limits.

The table and the limits are computed from a results folder; the page and the README show them.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from vgeo.errors import VgeoError
from vgeo.files import write
from vgeo.report import original, tables
from vgeo.report.claims import ALPHA, TESTED, VERDICTS, by_family, verdict_counts
from vgeo.report.measures import NAMES
from vgeo.study.rows import DATASETS, FAMILIES

DECIDED = VERDICTS[:3]  # all but "no data"
BEGIN, END = "<!-- findings -->", "<!-- /findings -->"
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
    Change("backbone", ("6.1",), {"": "Table 5: EffV2s better than baseline"}),
    Change(
        "soups and ensembles",
        ("7.1.3", "7.2.1"),
        {"soup: ": "Table 6: Model Soup not better than CosFace", "SIF: ": _SIF},
    ),
    Change("several scales", ("8", "8.1", "9"), {"": "Table 8: avg better than /"}),
)


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

    They state the number of queries, the share of the database that is right by chance, what the
    trainings start from, and how far training moves the start's R@1.
    """
    folder, lines = Path(results), []
    if (table := _read(folder, "table_01")) is not None:
        shown = original.rows_of(table[_is(table, condition="CosFace", metric="R@1")].dropna())
        queries = _listed([f"{int(row.queries)} on {row.dataset}" for row in shown])
        widths = _listed([f"{(row.ci_high - row.ci_low) / 2:.0f}" for row in shown])
        lines.append(f"Queries: {queries}. The 95 % interval of R@1 is ± {widths} points there.")
    if (table := _read(folder, "data_sets")) is not None:
        column = "positives per query (median)"
        tests = table[~table["dataset"].str.endswith(" val")]
        words = tests["database"].map("{:,} photos".format)
        words += (100 * tests[column] / tests["database"]).map(
            ", of which {:.1f} % are right for a query".format
        )
        each = tests["dataset"].groupby(words, sort=False).agg(lambda names: _listed(list(names)))
        lines.append(f"Databases: {'; '.join(f'{text} ({on})' for text, on in each.items())}.")
    if (starts := _read(folder, "starts")) is not None:
        lines.append(_training(starts))
    return lines


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
    return text


def training_moves(starts: pd.DataFrame) -> str:
    """How far training moves the R@1 of each backbone's start, in a sentence.

    Parameters
    ----------
    starts : rows of `measures.starts`.
    """
    of_backbones = []
    for name, rows in starts.groupby("backbone", sort=False):
        moves = zip(rows["difference"], rows["p"].map(tables.p_value), strict=True)
        points = _listed([f"{difference:+.1f} ({p})" for difference, p in moves])
        of_backbones.append(f"{NAMES[str(name)]}'s by {points} points")
    where = _listed(list(starts["dataset"].unique()))
    return f"Training by CosFace moves R@1 on {where}: {'; '.join(of_backbones)}."


def findings_table(
    claims: str | os.PathLike, limits: list[str] | None = None, note: str = NOTE
) -> str:
    """The findings in Markdown: the limits, the counts of all verdicts, and a row for each change.

    Parameters
    ----------
    claims : the ledger's `claims.csv`.
    limits : sentences for the first lines, from `limits`.
    """
    ledger = pd.read_csv(claims)
    lines = [f"- {line}" for line in (limits or [])]
    # the ledger and the page have the quotes
    table = changes(ledger).drop(columns=QUOTED).map(lambda text: text.replace("\n", "<br>"))
    return "\n".join([*lines, f"- {summary(ledger)}", "", tables.markdown(table), "", note])


def summary(ledger: pd.DataFrame) -> str:
    """The counts of all verdicts by family, and in how many comparisons the families agree."""
    of_families = [
        _listed([f"{count} {verdict}" for verdict, count in counts.items() if count])
        + f" with {family}"
        for family, counts in verdict_counts(ledger).items()
    ]
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


def update_readme(readme: str | os.PathLike, results: str | os.PathLike) -> None:
    """Writes the findings of a results folder between the README's two markers.

    Raises
    ------
    VgeoError
        When the README lacks a marker, or the folder its ledger.
    """
    path, ledger = Path(readme), Path(results) / "tables" / "claims.csv"
    text = path.read_text(encoding="utf-8")
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise VgeoError(f"{path}: write the lines {BEGIN} and {END} where the findings belong")
    if not ledger.exists():
        raise VgeoError(f"{ledger}: is not there: run the study first")
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    findings = findings_table(ledger, limits(results))
    write(path, f"{before}{BEGIN}\n{findings}\n{END}{after}")


def _read(folder: Path, name: str) -> pd.DataFrame | None:
    path = folder / "tables" / f"{name}.csv"
    return pd.read_csv(path) if path.exists() else None


def _is(table: pd.DataFrame, **values: str) -> pd.Series:
    """Which rows have these values."""
    return (table[list(values)] == pd.Series(values)).all(axis=1)


def _listed(words: list[str]) -> str:
    """The words in a row: "a, b and c"."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
