"""Every rule of the audit, on an error planted in a record without any, and on the original's."""

import math

import numpy as np
import pandas as pd
import pytest

from vgeo.errors import VgeoError
from vgeo.report.audit import (
    BEFORE,
    COLUMNS,
    CONCLUSIONS,
    MULTI_SCALE,
    NEAREST_FIRST,
    RERANKED,
    RUNS,
    audit,
    run_of,
)
from vgeo.report.original import KEY, logged, printed
from vgeo.report.original import bold as printed_bold

QUERIES = {"sf-xs": 1000, "tokyo-xs": 315, "tokyo-night": 105}
# recalls of the first run of the clean record
LOWEST = {"R@1": 30, "R@5": 50, "R@10": 88, "R@20": 90}


def printable(percent, queries):
    """The nearest recall of that many queries, as it is printed."""
    return math.floor(1000 * round(percent * queries / 100) / queries + 0.5) / 10


@pytest.fixture(scope="module")
def clean():
    """(tables, logs, bold): the rows of the original with invented values that all agree."""
    cells = printed()[KEY]
    rows = list(dict.fromkeys(zip(cells["table"], cells["condition"])))
    values = {}
    for i, run in enumerate(sorted({run_of(*row) for row in rows})):
        for dataset, queries in QUERIES.items():
            values[run, dataset] = {
                metric: printable(low + 0.35 * i, queries) for metric, low in LOWEST.items()
            }
    for (dataset, metric), (value, named) in CONCLUSIONS.items():
        for row in named:
            values[run_of(*row), dataset][metric] = value
    values[(5, "EffV2s"), "sf-xs"]["R@5"] = values[(5, "EffV2s + GeoWarp"), "sf-xs"]["R@5"]
    for dataset in QUERIES:
        for row, plain in RERANKED.items():
            values[row, dataset]["R@5"] = values[run_of(*plain), dataset]["R@5"]
        for table in MULTI_SCALE:
            values[(table, "sum"), dataset] = values[(table, "avg"), dataset]
        values[(6, "Model Soup"), dataset] = max(
            (values[run_of(6, loss), dataset] for loss in ("CosFace", "ArcFace", "SphereFace")),
            key=lambda value: value["R@1"],
        )
        values[(3, "baseline brightness=0.15"), dataset] = values[(1, "CosFace"), dataset]
        values[(3, "GRL brightness=0.15"), dataset] = values[(2, "GRL"), dataset]
    tables = cells.assign(
        value=[values[run_of(t, c), d][m] for t, c, d, m in cells.itertuples(index=False)]
    )
    logs = []
    for (table, condition), dataset in values:
        entry = {
            "table": table,
            "condition": condition,
            "dataset": dataset,
            "queries": QUERIES[dataset],
            "brightness": "0.15" if dataset == "tokyo-night" else "none",
            **values[(table, condition), dataset],
        }
        logs.append(entry)
        # models that are merged by distance gain nothing by re-ranking: merging would undo it
        merged = (table, condition) in NEAREST_FIRST.values()
        if merged or ("GeoWarp" in condition and "GRL" not in condition):
            before = {"condition": condition + BEFORE, "R@1": entry["R@1"] - (0 if merged else 4)}
            logs.append(entry | before)
    half = tables["condition"].str.extract("^(.*) brightness=")[0].fillna("")
    best = tables.groupby(["table", "dataset", "metric", half])["value"].transform("max")
    bold = tables.loc[(tables["value"] == best) & (tables["table"] != 6), KEY]
    return tables, pd.DataFrame(logs), bold


@pytest.fixture
def record(clean):
    return [frame.copy() for frame in clean]


def put(frame, value, column="value", **where):
    """Changes one column of the rows that `where` names, of which there is at least one."""
    rows = np.logical_and.reduce([frame[name] == wanted for name, wanted in where.items()])
    assert rows.any()
    frame.loc[rows, column] = value


def found(findings, rule, table, condition, dataset, metric):
    rows = findings[
        (findings["rule"] == rule)
        & (findings["table"] == table)
        & (findings["condition"] == condition)
        & (findings["dataset"] == dataset)
        & (findings["metric"] == metric)
    ]
    return rows.iloc[0] if len(rows) else None


def test_silent_on_a_clean_record(record):
    findings = audit(*record)
    assert list(findings.columns) == COLUMNS
    assert findings.empty, findings.to_string()


def cell(table, condition, dataset, metric):
    return {"table": table, "condition": condition, "dataset": dataset, "metric": metric}


@pytest.mark.parametrize(
    ("rule", "where", "value", "words"),
    [
        ("count", cell(9, "max", "tokyo-night", "R@1"), 47.7, "50/105, the nearest, is 47.619"),
        ("count", cell(9, "max", "tokyo-xs", "R@1"), 68.2, "215/315, which was cut, is 68.254"),
        ("log", cell(8, "max", "sf-xs", "R@1"), 12.3, "printed 12.3, the log of that run says"),
        ("tables", cell(10, "/", "sf-xs", "R@5"), 12.3, "Table 5 'EffV2s + GRL' prints"),
        ("bold", cell(2, "GRL", "sf-xs", "R@1"), 12.3, "in bold, but 'baseline' prints"),
        (
            "bold",
            cell(5, "baseline", "tokyo-xs", "R@1"),
            86.3,
            "the column's maximum, but not in bold",
        ),
        (
            "re-ranking",
            cell(4, "baseline + GeoWarp", "tokyo-xs", "R@5"),
            51.1,
            "cannot do: the log before re-ranking says",
        ),
        ("sum", cell(12, "sum", "tokyo-night", "R@5"), 49.5, "sum prints 49.5, avg 87.6"),
        (
            "section 9",
            cell(5, "EffV2s + GeoWarp", "sf-xs", "R@5"),
            75.0,
            "the best, 76.4, is Table 5 'EffV2s'",
        ),
        ("soup", cell(6, "Model Soup", "sf-xs", "R@1"), 20.0, "the soup's 20.0 is below"),
    ],
    ids=lambda value: value if isinstance(value, str) and " " not in value else "",
)
def test_planted_in_the_tables(record, rule, where, value, words):
    put(record[0], value, **where)
    finding = found(audit(*record), rule, **where)
    assert finding is not None and words in finding["finding"] and finding["printed"] == value


def test_a_better_cell_than_section_9_names(record):
    put(record[0], 90.5, **cell(9, "min", "tokyo-xs", "R@1"))
    finding = found(audit(*record), "section 9", 7, "GeoWarp + GRL (SIF)", "tokyo-xs", "R@1")
    assert finding["evidence"] == 90.5 and "Table 9 'min' prints 90.5" in finding["finding"]


def test_copied_row(record):
    values = record[0].set_index(KEY)["value"]
    for metric in ("R@1", "R@5"):
        put(record[0], values[9, "min", "sf-xs", metric], **cell(10, "max", "sf-xs", metric))
    findings = audit(*record)
    for metric in ("R@1", "R@5"):
        assert (
            "repeats Table 9 'min'; the log"
            in found(findings, "copy", 10, "max", "sf-xs", metric)["finding"]
        )
        assert (
            "is the log of Table 9 'min'"
            in found(findings, "log", 10, "max", "sf-xs", metric)["finding"]
        )
    assert found(findings, "copy", 9, "min", "sf-xs", "R@1") is None  # its own log agrees


def test_bold_by_the_logs(record):
    tables, logs, bold = record
    top = bold[
        (bold["table"] == 10) & (bold["dataset"] == "sf-xs") & (bold["metric"] == "R@1")
    ].iloc[0]
    table, condition = run_of(10, top["condition"])
    put(logs, 10.0, "R@1", table=table, condition=condition, dataset="sf-xs")
    assert (
        "this row 10.0"
        in found(audit(*record), "bold", 10, top["condition"], "sf-xs", "R@1")["finding"]
    )


def test_tie_with_one_in_bold(record):
    tables, logs, bold = (
        record  # in the clean record sum and avg are equal, and both in bold where they are best
    )
    ties = bold[
        (bold["table"] == 12) & (bold["dataset"] == "tokyo-night") & (bold["metric"] == "R@5")
    ]
    assert set(ties["condition"]) == {"avg", "sum"}
    record[2] = bold.drop(ties.index[ties["condition"] == "sum"])
    finding = found(audit(*record), "bold", 12, "sum", "tokyo-night", "R@5")
    assert finding["finding"] == "not in bold, but equals 'avg', which is"


def test_brightness(record):
    tables, logs, bold = record
    put(logs, "0.2", "brightness", table=5, condition="EffV2s", dataset="tokyo-night")
    put(logs, "0.2", "brightness", table=10, condition="max", dataset="sf-xs")
    put(logs, "as logged", "brightness", table=12, condition="avg", dataset="tokyo-night")
    put(tables, 20.0, **cell(3, "baseline brightness=0.15", "tokyo-night", "R@1"))
    without = logs[
        (logs["table"] == 5) & (logs["condition"] == "EffV2s") & (logs["dataset"] == "tokyo-night")
    ].assign(condition="EffV2s (no brightness filter)", brightness="none")
    without["R@5"] += 1
    findings = audit(tables, pd.concat([logs, without], ignore_index=True), bold)
    assert (
        found(findings, "brightness", 5, "EffV2s", "tokyo-night", "brightness")["evidence"] == 0.2
    )
    assert (
        "only Tokyo-xs"
        in found(findings, "brightness", 10, "max", "sf-xs", "brightness")["finding"]
    )
    assert "0.2 for max" in found(findings, "brightness", 10, "", "sf-xs", "brightness")["finding"]
    assert found(findings, "brightness", 12, "", "tokyo-night", "brightness") is None
    assert (
        "Table 3 prints 20.0"
        in found(findings, "brightness", 5, "baseline", "tokyo-night", "R@1")["finding"]
    )
    assert found(findings, "brightness", 5, "EffV2s", "tokyo-night", "R@1") is None
    assert (
        "which is better"
        in found(findings, "brightness", 5, "EffV2s", "tokyo-night", "R@5")["finding"]
    )


def test_sum_may_differ_by_brightness(record):
    put(record[0], 49.5, **cell(12, "sum", "tokyo-night", "R@5"))
    put(record[1], "0.2", "brightness", table=12, condition="sum", dataset="tokyo-night")
    assert (
        "also differ in brightness, 0.2 and 0.15"
        in found(audit(*record), "sum", 12, "sum", "tokyo-night", "R@5")["finding"]
    )


def test_reranking_in_the_logs(record):
    put(record[1], 99.0, "R@10", table=5, condition="EffV2s + GeoWarp", dataset="sf-xs")
    finding = found(audit(*record), "re-ranking", 5, "EffV2s + GeoWarp", "sf-xs", "R@10")
    assert finding["evidence"] == 99.0 and "after re-ranking" in finding["finding"]


@pytest.mark.parametrize(
    ("warped", "merged"),
    [((5, "EffV2s + GeoWarp"), (7, "GeoWarp + GRL (NIF)")), ((11, "min"), (13, "min"))],
)
def test_merging_by_distance_undoes_reranking(record, warped, merged):
    table, condition = warped
    put(record[1], 11.1, "R@1", table=table, condition=condition + BEFORE, dataset="sf-xs")
    findings = audit(*record)
    finding = found(findings, "NIF", *merged, "sf-xs", "R@1")
    assert finding["evidence"] == 11.1 and "before re-ranking" in finding["finding"]
    assert len(findings) == 1  # the row that prints the same run again says nothing new


def test_a_missing_column(record):
    with pytest.raises(VgeoError, match="logs: no column R@20, queries"):
        audit(record[0], record[1].drop(columns=["queries", "R@20"]), record[2])


# The original's record


@pytest.fixture(scope="module")
def published():
    return audit(printed(), logged(), printed_bold())


def known(rule, table, condition, pairs):
    """Cells as (rule, table, condition, dataset, metric, printed, evidence).

    pairs: {dataset: {metric: (printed, evidence)}}.
    """
    return [
        (rule, table, condition, dataset, metric, *numbers)
        for dataset, cells in pairs.items()
        for metric, numbers in cells.items()
    ]


SIF_FOR_NIF = {
    "sf-xs": {"R@1": (68.6, 67.4), "R@5": (75.0, 76.0)},
    "tokyo-xs": {"R@1": (86.3, 83.8), "R@5": (92.7, 93.0)},
    "tokyo-night": {"R@1": (74.3, 76.2), "R@5": (84.8, 86.7)},
}


@pytest.mark.parametrize(
    "item",
    [
        *known("log", 8, "sum", {"tokyo-xs": {"R@1": (72.1, 71.1), "R@5": (77.8, 84.1)}}),
        *known("log", 9, "sum", {"tokyo-xs": {"R@1": (75.6, 72.1), "R@5": (84.1, 77.8)}}),
        *known("count", 9, "avg", {"tokyo-xs": {"R@1": (75.1, 75.238), "R@5": (85.2, 85.079)}}),
        *known("log", 9, "avg", {"tokyo-xs": {"R@1": (75.1, 75.2), "R@5": (85.2, 85.1)}}),
        *known("log", 9, "min", {"sf-xs": {"R@1": (59.9, 59.4)}}),
        *known("log", 11, "avg", {"sf-xs": {"R@1": (68.6, 67.3), "R@5": (74.9, 72.8)}}),
        *known("copy", 11, "avg", {"sf-xs": {"R@1": (68.6, 67.3), "R@5": (74.9, 72.8)}}),
        *known(
            "bold", 11, "avg", {"sf-xs": {"R@1": (68.6, 68.6), "R@5": (74.9, 74.9)}}
        ),  # by the logs "/" is the best
        *known("count", 11, "max", {"tokyo-night": {"R@5": (83.3, 82.857)}}),
        *known("log", 11, "max", {"tokyo-night": {"R@1": (75.2, 76.2), "R@5": (83.3, 81.9)}}),
        *known("NIF", 7, "GeoWarp + GRL (NIF)", {"sf-xs": {"R@1": (67.4, 62.5)}}),
        *known("NIF", 13, "avg", {"tokyo-night": {"R@1": (69.5, 69.5)}}),
        *known("log", 13, "/", SIF_FOR_NIF),
        *known("tables", 13, "/", SIF_FOR_NIF),
        *known("copy", 13, "/", SIF_FOR_NIF),
        *known("count", 13, "max", {"tokyo-night": {"R@1": (69.4, 69.524)}}),
        *known(
            "count",
            6,
            "Model Soup",
            {"tokyo-night": {"R@1": (47.7, 47.619)}, "tokyo-xs": {"R@1": (68.2, 68.254)}},
        ),
        *known(
            "brightness",
            5,
            "EffV2s",
            {"tokyo-night": {"brightness": (0.15, 0.2), "R@1": (73.3, 74.3), "R@5": (87.6, 88.6)}},
        ),
        *known("brightness", 5, "EffV2s + GRL", {"tokyo-night": {"brightness": (0.15, 0.2)}}),
        *known("brightness", 11, "avg", {"tokyo-night": {"brightness": (0.15, 0.2)}}),
        *known("sum", 8, "sum", {"tokyo-night": {"R@1": (57.1, 59.0)}}),
        *known("sum", 11, "sum", {"sf-xs": {"R@1": (67.6, 68.6)}}),
        *known(
            "re-ranking",
            4,
            "baseline + GeoWarp",
            {
                "sf-xs": {"R@5": (66.1, 66.3)},
                "tokyo-xs": {"R@5": (83.2, 84.8)},
                "tokyo-night": {"R@5": (70.5, 73.3)},
            },
        ),
        *known("section 9", 5, "EffV2s + GeoWarp", {"sf-xs": {"R@5": (74.9, 76.4)}}),
        *known("section 9", 11, "avg", {"sf-xs": {"R@1": (68.6, 67.3)}}),
        *known("bold", 1, "SphereFace", {"tokyo-xs": {"R@5": (84.1, 84.8)}}),
        *known("bold", 1, "CosFace", {"tokyo-xs": {"R@5": (84.8, 84.8)}}),
    ],
    ids=lambda item: " ".join(map(str, item[:5])),
)
def test_known_disagreements(published, item):
    finding = found(published, *item[:5])
    assert finding is not None
    assert (finding["printed"], round(finding["evidence"], 3)) == item[5:]


def test_named_sources(published):
    def sentence(*key):
        return found(published, *key)["finding"]

    assert "72.1 / 77.8 is the log of Table 9 'sum'" in sentence("log", 8, "sum", "tokyo-xs", "R@1")
    assert "repeats Table 7 'GeoWarp + GRL (SIF)'" in sentence("copy", 13, "/", "sf-xs", "R@1")
    assert "which was cut" in sentence("count", 6, "Model Soup", "tokyo-xs", "R@1")
    assert "before re-ranking says 83.2 already" in sentence(
        "re-ranking", 4, "baseline + GeoWarp", "tokyo-xs", "R@5"
    )
    assert "is Table 5 'EffV2s + GRL'" in sentence(
        "section 9", 5, "EffV2s + GeoWarp", "sf-xs", "R@5"
    )


def test_rows_merged_by_distance_are_near_those_before_reranking(published):
    """The evidence that the original's NIF undoes re-ranking: its Table 13 follows the logs."""
    logs = logged().set_index(["table", "condition", "dataset"])["R@1"]
    rows = published[(published["rule"] == "NIF") & (published["table"] == 13)]
    assert len(rows) == 12
    for row in rows.itertuples():
        before = logs[11, row.condition + BEFORE, row.dataset]
        after = logs[11, row.condition, row.dataset]
        assert abs(row.printed - before) < 2 and after - row.printed > 4


def test_impossible_counts_by_brute_force(published):
    tables, logs = printed(), logged()
    possible = {
        d: {f"{math.floor(1000 * k / n + 0.5) / 10:.1f}" for k in range(n + 1)}
        for d, n in QUERIES.items()
    }
    wrong = {
        tuple(row)
        for *row, value in tables[[*KEY, "value"]].itertuples(index=False)
        if f"{value:.1f}" not in possible[row[2]]
    }
    assert (
        set(published.loc[published["rule"] == "count", KEY].itertuples(index=False, name=None))
        == wrong
    )
    for metric in ("R@1", "R@5", "R@10", "R@20"):  # the logs themselves are all possible
        assert all(
            f"{value:.1f}" in possible[dataset]
            for dataset, value in zip(logs["dataset"], logs[metric])
        )


def test_the_record_is_whole():
    tables, logs, bold = printed(), logged(), printed_bold()
    assert len(tables) == 318 and len(logs) == 130 and len(bold) == 72
    cells = set(tables[KEY].itertuples(index=False, name=None))
    assert set(bold.itertuples(index=False, name=None)) <= cells and not bold.duplicated().any()
    rows = {key[:2] for key in cells}
    assert set(RUNS) <= rows and set(RUNS.values()) <= rows and not set(RUNS) & set(RUNS.values())
