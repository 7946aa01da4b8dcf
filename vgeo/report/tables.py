"""Tables and figures: ours beside the published value, with a 95 % interval and the number of queries."""

import re
from pathlib import Path

import numpy as np
import pandas as pd

from vgeo.report.original import printed
from vgeo.retrieval.metrics import interval, paired_test, recall

COLUMNS = [
    "table",
    "condition",
    "dataset",
    "metric",
    "value",
    "ci_low",
    "ci_high",
    "queries",
    "published",
]


TITLES = {  # the report's captions
    1: "Results obtained with different loss functions",
    2: "baseline and GRL improvements",
    3: "Results on tokyo-night with different brightness factors",
    4: "Results with GeoWarp respect to baseline",
    5: "Results of different models and comparison between ResNet18 and EfficientNetV2s",
    6: "Results of the model soup with CosFace + ArcFace + SphereFace",
    7: "Results of the two techniques and comparison",
    8: "Results of the multi-scale testing for GRL + ResNet18",
    9: "Results of the multi-scale testing for GeoWarp + ResNet18",
    10: "Results of the multi-scale testing for GRL + EfficientNetV2s",
    11: "Results of the multi-scale testing for GeoWarp + EfficientNetV2s",
    12: "Results obtained combining SIF and different multi-scale approaches (EffV2s as backbone)",
    13: "Results obtained combining NIF and different multi-scale approaches (EffV2s as backbone)",
}


def published(table):
    """The report's cells of one table: condition, dataset, metric, value in percent."""
    cells = printed()
    return cells[cells["table"] == table].drop(columns="table").reset_index(drop=True)


def best_published(table, dataset, metric="R@1"):
    """The report's best row of a column, in words."""
    known = published(table)
    row = (
        known[(known["dataset"] == dataset) & (known["metric"] == metric)]
        .sort_values("value")
        .iloc[-1]
    )
    return f"the report's is {row['condition']}'s, {row['value']:.1f}."


def cells(table, condition, dataset, result, recalls=(1, 5)):
    """Long-form rows (COLUMNS) of one model on one data set; an absent data set, a str for a result, has no values."""
    rows = []
    known = published(table).set_index(["condition", "dataset", "metric"])["value"]
    for n in recalls:
        row = {
            "table": table,
            "condition": condition,
            "dataset": dataset,
            "metric": f"R@{n}",
            "published": known.get((condition, dataset, f"R@{n}")),
        }
        if not isinstance(result, str):
            low, high = interval(result.right(n))
            row |= {
                "value": recall(result.first_hit, n),
                "ci_low": low,
                "ci_high": high,
                "queries": len(result.first_hit),
            }
        rows.append(row)
    return pd.DataFrame(rows, columns=COLUMNS).astype({"queries": "Int64"})


def wide(table, reasons=None):
    """A long table as one reads it: a row per condition, a column per data set and metric, `ours (interval) / published`, best in bold.

    reasons: {data set: why it is absent}, shown in its column.
    """
    grid = {}
    best = table.groupby(["dataset", "metric"])["value"].max()
    for row in table.itertuples():
        name = f"{row.dataset} {row.metric}" + (
            f" (n = {row.queries})" if pd.notna(row.queries) else ""
        )
        if pd.isna(row.value):
            text = (reasons or {}).get(row.dataset, "no data")
        else:
            text = f"{row.value:.1f}"
            text = f"**{text}**" if np.isclose(row.value, best[row.dataset, row.metric]) else text
            text += f" ({row.ci_low:.1f}–{row.ci_high:.1f})"
        if pd.notna(row.published):
            text += f" / {row.published:.1f}"
        grid.setdefault(name, {})[row.condition] = text
    return pd.DataFrame(grid)


def write_table(folder, table, reasons=None):
    """Writes one table of the report, in long form (COLUMNS), as `tables/table_NN.csv`, and as read, `.md` and `.tex`, under the results folder.

    reasons: {data set: why it is absent}. Returns the Markdown, its title two levels lower: in a notebook's outline it then lies within its section.
    """
    folder, number = Path(folder) / "tables", int(table["table"].iloc[0])
    folder.mkdir(parents=True, exist_ok=True)
    name, title = f"table_{number:02d}", f"Table {number}. {TITLES[number]}"
    table.round({"value": 2, "ci_low": 2, "ci_high": 2}).to_csv(folder / f"{name}.csv", index=False)
    view = wide(table, reasons)
    text = f"# {title}\n\n{markdown(view.reset_index(names=''))}\n\n{NOTE}\n"
    (folder / f"{name}.md").write_text(text)
    (folder / f"{name}.tex").write_text(_latex(view, title))
    return f"##{text}"


def markdown(table):
    """A table as Markdown, a line a row; the index is not shown."""
    lines = [list(table.columns), ["---"] * table.shape[1], *table.to_numpy().tolist()]
    return "\n".join(
        "| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines
    )


NOTE = "Ours in percent (95 % interval) / published; best of each column in bold; n queries. Rows without a published value are ours alone."


def _latex(view, title):
    """A booktabs table of a `wide` one; needs the packages booktabs and graphicx."""

    def plain(text):
        text = re.sub(r"([%&_#])", r"\\\1", str(text)).replace("–", "--")
        return re.sub(r"\*\*(.+?)\*\*", r"\\textbf{\1}", text)

    rows = [
        " & ".join([plain(condition), *map(plain, row)]) + r" \\"
        for condition, row in zip(view.index, view.to_numpy())
    ]
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            r"\resizebox{\linewidth}{!}{%",
            r"\begin{tabular}{l" + "c" * view.shape[1] + "}",
            r"\toprule",
            " & ".join(["", *map(plain, view.columns)]) + r" \\",
            r"\midrule",
            *rows,
            r"\bottomrule",
            r"\end{tabular}}",
            rf"\caption{{{plain(title)}. {plain(NOTE)}}}",
            r"\end{table}",
            "",
        ]
    )


def compare(results, base, others, n=1):
    """Each of the conditions `others` against `base` on the same queries, R@n: a row per data set with the exact paired test (McNemar).

    results: {condition: {data set: Result, or a str where it is absent}}. The difference is in points, positive where `condition` is better.
    """
    rows = []
    for condition in others:
        for dataset, result in results[condition].items():
            if isinstance(result, str):
                continue
            one, two = result.right(n), results[base][dataset].right(n)
            rows.append(
                (
                    condition,
                    base,
                    dataset,
                    f"R@{n}",
                    100 * (one.mean() - two.mean()),
                    int((one & ~two).sum()),
                    int((two & ~one).sum()),
                    paired_test(one, two),
                )
            )
    return pd.DataFrame(
        rows,
        columns=[
            "condition",
            "against",
            "dataset",
            "metric",
            "difference",
            "only it is right",
            "only the other is right",
            "p",
        ],
    ).round({"difference": 4, "p": 6})


def in_words(p):
    """ "= 0.012", or "< 0.001": a p value of three decimals."""
    return "< 0.001" if p < 0.001 else f"= {p:.3f}"


def say(comparison, level=0.05):
    """A `compare` table in words, Markdown: what differs by more than chance, or that nothing does."""
    clear = comparison[comparison["p"] < level]
    lines = [
        f"- {row['condition']}, {row['dataset']} {row['metric']}: {row['difference']:+.1f} points against {row['against']} (p {in_words(row['p'])})."
        for _, row in clear.iterrows()
    ]
    rest = len(comparison) - len(clear)
    if rest:
        lines.append(
            f"- {'None' if clear.empty else f'The other {rest}'} of the {len(comparison)} differences {'is' if clear.empty else 'are not'} more than these queries leave to chance (p < {level})."
        )
    return "\n".join(lines)
