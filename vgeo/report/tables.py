"""Our tables: each cell beside the original's, with its 95 % interval, and paired tests."""

import re
from collections.abc import Collection, Mapping

import numpy as np
import pandas as pd

from vgeo.report import original
from vgeo.retrieval.metrics import interval, paired_test, recall
from vgeo.study.rows import FAMILIES, conditions_of, counterpart

COLUMNS = [*original.KEY, "value", "ci_low", "ci_high", "queries", "published"]
NOTE = (
    "Ours in percent (95 % interval) / published in the original; the best of each column in bold; "
    "n queries. Rows without a published value are ours alone."
)


def title(number: int) -> str:
    """A numbered table's caption: the original's."""
    return f"Table {number}. {original.TABLE_TITLES[number]}"


def beside_published(number: int, results: Mapping, absent: Collection[str] = ()) -> pd.DataFrame:
    """One of the original's tables with our recalls, in long form.

    Parameters
    ----------
    number : of the table, 1 to 13; it has the data sets and metrics that the original prints there.
    results : {condition: {data set: `study.evaluation.Result`}}, rows in this order.
    absent : names of data sets that have no result; their cells hold the published value alone.

    Returns
    -------
    A row for each condition, data set and metric, with COLUMNS: value, ci_low, ci_high and
    published in percent, NaN where there is none.
    """
    known = original.cells_of(number)
    published = known.set_index(["condition", "dataset", "metric"])["value"]
    rows = []
    for condition, of_datasets in results.items():
        for dataset in known["dataset"].unique():
            if dataset not in of_datasets and dataset not in absent:
                continue
            for metric in known["metric"].unique():
                row = {"table": number, "condition": condition, "dataset": dataset}
                row |= {"metric": metric, "published": published.get((condition, dataset, metric))}
                if dataset in of_datasets:
                    row |= measured(of_datasets[dataset], int(metric.removeprefix("R@")))
                rows.append(row)
    return pd.DataFrame(rows, columns=COLUMNS).astype({"queries": "Int64"})


def measured(result, n: int) -> dict[str, float]:
    """R@n of a result with its 95 % interval, in percent, and the number of queries."""
    low, high = interval(result.right(n))
    count = len(result.first_hit)
    value = recall(result.first_hit, n)
    return {"value": value, "ci_low": low, "ci_high": high, "queries": count}


def paired_tests(
    results: Mapping, against: str, others: Collection[str] | None = None, n: int = 1
) -> pd.DataFrame:
    """Conditions compared with one of them on the same queries, by the exact paired test (McNemar).

    Parameters
    ----------
    results : {condition: {data set: Result}}.
    against : the condition that the others are compared with.
    others : the conditions to compare; all the others when not given.
    n : R@n is compared.

    Returns
    -------
    A row for each condition and data set. The difference is in points of recall, above 0 where
    `condition` is better.
    """
    rows = []
    for condition in [name for name in results if name != against] if others is None else others:
        for dataset, result in results[condition].items():
            if dataset not in results[against]:
                continue
            one, two = result.right(n), results[against][dataset].right(n)
            row = {"condition": condition, "against": against, "dataset": dataset}
            row |= {"metric": f"R@{n}", "difference": 100 * (one.mean() - two.mean())}
            row |= {"only it is right": int((one & ~two).sum())}
            row |= {"only the other is right": int((two & ~one).sum()), "p": paired_test(one, two)}
            rows.append(row)
    columns = ["condition", "against", "dataset", "metric", "difference"]
    columns += ["only it is right", "only the other is right", "p"]
    return pd.DataFrame(rows, columns=columns).round({"difference": 4, "p": 6})


def paired_in_families(
    number: int, results: Mapping, against: str, others: Collection[str] | None = None, n: int = 1
) -> pd.DataFrame:
    """`paired_tests` of one of the original's tables, within each family of rows.

    Parameters
    ----------
    number : of the table.
    against, others : conditions of the original's family. In the second family the conditions that
        stand for them are compared (`rows.counterpart`).
    """
    first = conditions_of(number, FAMILIES[0])
    others = [name for name in first if name != against] if others is None else others
    second = [other for name in others if (other := counterpart(number, name)) != name]
    tests = [
        paired_tests(results, against, others, n),
        paired_tests(results, counterpart(number, against), second, n),
    ]
    return pd.concat(tests, ignore_index=True)


def findings(comparison: pd.DataFrame, level: float = 0.05) -> str:
    """A `paired_tests` table in Markdown: each difference with p < level, and how many others."""
    clear = comparison[comparison["p"] < level]
    lines = [
        f"- {row.condition}, {row.dataset} {row.metric}: {row.difference:+.1f} points "
        f"against {row.against} ({p_value(row.p)})."
        for row in original.rows_of(clear)
    ]
    rest, chance = len(comparison) - len(clear), f"more than chance on these queries (p < {level})"
    if rest and clear.empty:
        lines.append(f"- None of the differences, {rest} in number, is {chance}.")
    elif rest:
        lines.append(f"- {rest} of the {len(comparison)} differences are not {chance}.")
    return "\n".join(lines)


def published_gain(
    number: int, condition: str, against: str | Collection[str], metric: str = "R@1"
) -> str:
    """A sentence about the original's own table: a condition against the best of some others."""
    rivals = [against] if isinstance(against, str) else list(against)
    gains = original.gain(number, condition, *rivals, metric=metric)
    others = f"the best of {' and '.join(rivals)}" if len(rivals) > 1 else f"that of {rivals[0]}"
    each = ", ".join(f"{dataset} {points:+.1f}" for dataset, points in gains.items())
    return (
        f"In the original, the {metric} of {condition} is higher than {others} on "
        f"{(gains > 0).sum()} of {len(gains)} data sets ({each} points)."
    )


def best_published(number: int, dataset: str, metric: str = "R@1") -> str:
    """The original's best row of a column, in words."""
    condition, value = original.best(number, dataset, metric)
    return f"the original's is {value:.1f}, of {condition}"


def p_value(p: float) -> str:
    """A p value in three decimals: "p = 0.012" or "p < 0.001"."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def wide(table: pd.DataFrame, reasons: Mapping[str, str] | None = None) -> pd.DataFrame:
    """A long table (COLUMNS) as it is read: a row a condition, a column a data set and metric.

    A cell is `ours (interval) / published`, the best of its column in **bold**.

    Parameters
    ----------
    reasons : {data set: why it is absent}, shown in its cells.
    """
    grid: dict[str, dict[str, str]] = {}
    best = table.groupby(["dataset", "metric"])["value"].max()
    for row in original.rows_of(table):
        queries = "" if pd.isna(row.queries) else f" (n = {row.queries})"
        if pd.isna(row.value):
            text = (reasons or {}).get(row.dataset, "no data")
        else:
            text = f"{row.value:.1f}"
            text = f"**{text}**" if np.isclose(row.value, best[row.dataset, row.metric]) else text
            text += f" ({row.ci_low:.1f}–{row.ci_high:.1f})"
        if pd.notna(row.published):
            text += f" / {row.published:.1f}"
        grid.setdefault(f"{row.dataset} {row.metric}{queries}", {})[row.condition] = text
    return pd.DataFrame(grid)


def markdown(table: pd.DataFrame) -> str:
    """A table as Markdown, without its index; floats to three decimals, missing values empty."""
    rows = [[_text(cell) for cell in row] for row in original.rows_of(table)]
    lines = [list(table.columns), ["---"] * table.shape[1], *rows]
    return "\n".join(
        "| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines
    )


def latex(view: pd.DataFrame, caption: str) -> str:
    """A `wide` table as a LaTeX table; the document needs the packages booktabs and graphicx."""
    body = view.to_latex(escape=True, column_format="l" + "c" * view.shape[1])
    body = re.sub(r"\*\*(.+?)\*\*", r"\\textbf{\1}", body).replace("–", "--")
    note = f"{caption}. {NOTE}".replace("%", r"\%").replace("_", r"\_")
    return (
        "\\begin{table}\n\\centering\n\\resizebox{\\linewidth}{!}{%\n"
        f"{body.rstrip()}}}\n\\caption{{{note}}}\n\\end{{table}}\n"
    )


def _text(cell) -> str:
    if isinstance(cell, float | np.floating):
        return "" if np.isnan(cell) else f"{cell:.3f}".rstrip("0").rstrip(".")
    return "" if pd.isna(cell) else str(cell)
