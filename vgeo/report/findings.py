"""What was found, on one screen: a row for each change that the original studies, and the limits.

The table and the limits are computed from a results folder; the page and the README show them.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from vgeo.errors import VgeoError
from vgeo.files import write
from vgeo.report import original, tables
from vgeo.report.claims import ALPHA, VERDICTS
from vgeo.study.profiles import PROFILES

DECIDED = VERDICTS[:3]  # all but "no data"
BEGIN, END = "<!-- findings -->", "<!-- /findings -->"
COLUMNS = ["change", "the original: claim and effect", "effect here", " / ".join(DECIDED)]
NOTE = (
    "Effects: points of R@1 in the claimed direction (95 % interval; exact paired p). Last column: "
    "verdicts on all that the original's text says about the change."
)
START = {
    "city": "weights trained on rendered streets of other cities",
    "imagenet": "ImageNet weights",
}


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
        "brightness filter, factor 0.15",
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


def changes(claims: pd.DataFrame) -> pd.DataFrame:
    """The ledger in seven rows, one for each change: COLUMNS of text, lines divided by newlines."""
    rows = []
    for change in CHANGES:
        about = claims[claims["section"].astype(str).isin(change.sections)]
        verdicts = [str((about["verdict"] == verdict).sum()) for verdict in DECIDED]
        claimed, measured = [], []
        for word, claim in change.shown.items():
            shown = original.rows_of(about[(about["claim"] == claim) & (about["metric"] == "R@1")])
            printed = [f"{row.reported:+.1f}" for row in shown]
            claimed += [f"{word}“{row.quote}” ({', '.join(printed)})" for row in shown[:1]]
            measured.append(word + "\n".join(map(_effect, shown)))
        cells = [change.name, "\n".join(claimed), "\n".join(measured), " / ".join(verdicts)]
        rows.append(cells)
    return pd.DataFrame(rows, columns=COLUMNS)


def _effect(row) -> str:
    if pd.isna(row.effect):
        return f"{row.dataset}: no data"
    interval = f"{row.ci_low:+.1f} to {row.ci_high:+.1f}"
    return f"{row.dataset} {row.effect:+.1f} ({interval}; {tables.p_value(row.p)})"


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
    if (recalls := _read(folder, "recalls_losses")) is not None:
        lines.append(_training(folder, recalls))
    return lines


def _training(folder: Path, recalls: pd.DataFrame) -> str:
    """What the trainings start from, and how far CosFace's moves the R@1 of the start."""
    path = folder / "run.json"
    run = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    known = PROFILES.get(run.get("profile", ""))
    text = f"Trainings start from {START[known.weights]}. " if known else ""
    of_start, trained = (
        recalls[_is(recalls, condition=condition, metric="R@1")].set_index("dataset")
        for condition in ("starting weights", "CosFace")
    )
    moves = (trained["value"] - of_start["value"]).dropna()
    each = _listed([f"{points:+.1f} points on {dataset}" for dataset, points in moves.items()])
    text += f"CosFace training moves the start's R@1 by {each}; "
    tests = _read(folder, "paired_losses")
    if tests is not None:
        wanted = {"condition": "CosFace", "against": "starting weights", "metric": "R@1"}
        tests = tests[_is(tests, **wanted)]
    if tests is None or tests.empty:
        clear = trained["ci_low"].gt(of_start["ci_high"]) | trained["ci_high"].lt(
            of_start["ci_low"]
        )
        text += f"the 95 % intervals before and after are apart on {clear.sum()}"
    else:
        clear = tests["p"] < ALPHA
        text += f"the exact paired test finds more than chance (p < {ALPHA}) on {clear.sum()}"
    text += f" of {len(moves)} data sets."
    if not clear.any():
        text += " So comparisons of trainings say little about the techniques."
    return text


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
    table = changes(ledger).map(lambda text: text.replace("\n", "<br>"))
    return "\n".join([*lines, f"- {summary(ledger)}", "", tables.markdown(table), "", note])


def summary(ledger: pd.DataFrame) -> str:
    """The counts of all verdicts in a sentence."""
    counts = ledger["verdict"].value_counts()
    each = [f"{counts[verdict]} {verdict}" for verdict in VERDICTS if verdict in counts]
    return f"Of {len(ledger)} comparisons and costs in the original's text: {_listed(each)}."


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
