"""The audit of the published record: where the report disagrees with arithmetic, its authors' logs, itself and its text."""

import numpy as np
import pandas as pd

from vgeo.errors import VgeoError
from vgeo.report.original import KEY
from vgeo.report.original import bold as printed_bold

COLUMNS = ["rule", "table", "condition", "dataset", "metric", "printed", "evidence", "finding"]


BEFORE = " (before re-ranking)"  # of a log's condition: the same GeoWarp model without the warp


UNFILTERED = " (no brightness filter)"


# Rows that print a run again -> the row that printed it first. A row that is not here is a run of its own.
RUNS = {
    (2, "baseline"): (
        1,
        "CosFace",
    ),  # section 2: "the model trained [...] with CosFace loss is considered as the baseline"
    (3, "baseline brightness=none"): (1, "CosFace"),
    (3, "GRL brightness=none"): (2, "GRL"),
    (4, "baseline"): (1, "CosFace"),
    (5, "baseline"): (1, "CosFace"),
    (5, "ResNet18 + GeoWarp"): (4, "baseline + GeoWarp"),
    (5, "ResNet18 + GRL"): (2, "GRL"),
    (6, "CosFace"): (1, "CosFace"),
    (6, "ArcFace"): (1, "ArcFace"),
    (6, "SphereFace"): (1, "SphereFace"),
    (7, "GeoWarp"): (5, "EffV2s + GeoWarp"),  # section 7.2.1: both trained with EfficientNetV2s
    (7, "GRL"): (5, "EffV2s + GRL"),
    # section 8: "/" is one scale, so the model that the table's title names
    (8, "/"): (2, "GRL"),
    (9, "/"): (4, "baseline + GeoWarp"),
    (10, "/"): (5, "EffV2s + GRL"),
    (11, "/"): (5, "EffV2s + GeoWarp"),
    (12, "/"): (7, "GeoWarp + GRL (SIF)"),
    (13, "/"): (7, "GeoWarp + GRL (NIF)"),
}


# A re-ranked row -> the row of the report that it is compared with
RERANKED = {(4, "baseline + GeoWarp"): (4, "baseline"), (5, "EffV2s + GeoWarp"): (5, "EffV2s")}


# Tables in which a sum over the query's scales must rank as their average does. Not 13: NIF merges by distance, which a sum changes.
MULTI_SCALE = (8, 9, 10, 11, 12)


# Section 4.1: "From now on, if not specified, when the filter is involved, the brightness factor is fixed to 0.15."
# Below Table 5: "For Tokyo-night, the previously described data augmentation technique is employed with brightness_factor equal to 0.15."
STATED_BRIGHTNESS, FILTERED_TABLE = 0.15, 5


# Section 9's list: data set, metric -> the value, and the rows that it is attributed to
CONCLUSIONS = {
    ("sf-xs", "R@1"): (68.6, [(5, "EffV2s + GeoWarp"), (11, "avg"), (7, "GeoWarp + GRL (SIF)")]),
    ("sf-xs", "R@5"): (76.4, [(5, "EffV2s + GeoWarp")]),  # "with the same model"
    ("tokyo-xs", "R@1"): (86.3, [(7, "GeoWarp + GRL (SIF)")]),
    ("tokyo-xs", "R@5"): (93.3, [(12, "max")]),
    ("tokyo-night", "R@1"): (79.0, [(11, "avg")]),
    ("tokyo-night", "R@5"): (87.6, [(5, "EffV2s"), (12, "avg")]),
}


def audit(tables, logs, bold=None):
    """Every disagreement that the rules below find -> DataFrame of COLUMNS, one row each, by rule and then by table.

    tables: the printed cells, columns table, condition, dataset, metric, value (percent, one decimal). logs: what the authors'
    notebook logged, a row a run and data set, columns table, condition, dataset, queries, brightness, R@1, R@5, R@10, R@20 (percent,
    one decimal). bold: the cells printed in bold, columns table, condition, dataset, metric; the report's when not given. `printed`
    and `evidence` are percent, or a factor where `metric` is brightness; NaN where a finding has no such number. `condition` is empty
    where a whole column is meant. Raises VgeoError when a column is missing.
    """
    bold = printed_bold() if bold is None else bold
    logged = [*KEY[:3], "queries", "brightness", "R@1", "R@5", "R@10", "R@20"]
    for name, frame, needed in (
        ("tables", tables, [*KEY, "value"]),
        ("logs", logs, logged),
        ("bold", bold, KEY),
    ):
        if missing := sorted(set(needed) - set(frame.columns)):
            raise VgeoError(
                f"{name}: no column {', '.join(missing)}: give the frame as it is in vgeo/data"
            )
    logs = logs.set_index(KEY[:3]).to_dict("index")
    cells = _join(tables, logs, bold)
    return pd.DataFrame(
        [finding for rule in RULES for finding in rule(cells, logs)], columns=COLUMNS
    )


def run_of(table, condition):
    """The row that printed that row's run first, a (table, condition)."""
    return RUNS.get((table, condition), (table, condition))


def _join(tables, logs, bold):
    """The printed cells by table, with the log of their run: columns run, logged, brightness (None without a log), queries, bold."""
    cells = tables.sort_values("table", kind="stable").reset_index(drop=True)
    keys = list(cells[KEY].itertuples(index=False, name=None))
    found = [
        logs.get((*run_of(table, condition), dataset), {}) for table, condition, dataset, _ in keys
    ]
    queries = {dataset: log["queries"] for (_, _, dataset), log in logs.items()}
    marked = set(bold[KEY].itertuples(index=False, name=None))
    cells["run"] = [run_of(table, condition) for table, condition, _, _ in keys]
    cells["logged"] = [log.get(metric, np.nan) for log, (*_, metric) in zip(found, keys)]
    cells["brightness"] = pd.Series([log.get("brightness") for log in found], dtype=object)
    cells["queries"] = cells["dataset"].map(queries)
    cells["bold"] = [key in marked for key in keys]
    return cells


def impossible_counts(cells, logs):
    """No k of the N queries gives the printed percentage, rounded half up to one decimal."""
    for cell in cells[cells["queries"].notna()].itertuples():
        n, printed = int(cell.queries), _tenths(cell.value)
        nearest = round(printed * n / 1000)
        near = [k for k in range(nearest - 1, nearest + 2) if 0 <= k <= n]
        if any(
            (2000 * k + n) // (2 * n) == printed for k in near
        ):  # whole numbers: no rounding of our own
            continue
        best = min(near, key=lambda k: abs(1000 * k / n - printed))
        why = "which was cut" if 1000 * best // n == printed else "the nearest"
        text = f"no count of {n} queries rounds to {cell.value}: {best}/{n}, {why}, is {100 * best / n:.3f}"
        yield _finding("count", cell, 100 * best / n, text)


def unlike_the_log(cells, logs):
    """The printed value is not the one in the log of that run; another run's log that holds the printed pair is named."""
    pairs = _pairs(cells)
    for cell in cells[_differ(cells["value"], cells["logged"])].itertuples():
        text = f"printed {cell.value}, the log of that run says {cell.logged}"
        pair = pairs.get((cell.table, cell.condition, cell.dataset))
        others = [
            key[:2]
            for key, log in logs.items()
            if key[2] == cell.dataset and (log["R@1"], log["R@5"]) == pair
        ]
        if others:
            text += f"; {pair[0]} / {pair[1]} is the log of {_names(others)}"
        yield _finding("log", cell, cell.logged, text)


def tables_disagree(cells, logs):
    """A run printed again with another value than where it was printed first."""
    first = {}
    for cell in cells.itertuples():
        other = first.setdefault((cell.run, cell.dataset, cell.metric), cell)
        if cell.value != other.value:
            log = "" if pd.isna(cell.logged) else f"; the log says {cell.logged}"
            text = f"{_names([(other.table, other.condition)])} prints {other.value} for the same run{log}"
            yield _finding("tables", cell, other.value, text)


def copied_rows(cells, logs):
    """Both values of a row are those of another run's row, and not those of its own log."""
    pairs = _pairs(cells)
    for cell in cells[_differ(cells["value"], cells["logged"])].itertuples():
        own = pairs.get((cell.table, cell.condition, cell.dataset))
        others = [
            key[:2]
            for key, pair in pairs.items()
            if pair == own and key[2] == cell.dataset and run_of(*key[:2]) != cell.run
        ]
        if others:
            text = f"{own[0]} / {own[1]} repeats {_names(others)}; the log of this row's run says {cell.logged}"
            yield _finding("copy", cell, cell.logged, text)


def bold_maxima(cells, logs):
    """Bold that is not its column's maximum, printed or logged; a maximum that is not bold. Only tables that print bold at all."""
    with_bold = cells[cells["table"].isin(cells.loc[cells["bold"], "table"])]
    half = (
        with_bold["condition"].str.extract("^(.*) brightness=")[0].fillna("")
    )  # Table 3's columns: baseline and GRL
    for _, column in with_bold.groupby(["table", "dataset", "metric", half], sort=False):
        best = column["value"].max()
        column = list(column.itertuples())
        holders = [cell for cell in column if cell.value == best]
        marked = " and ".join(repr(cell.condition) for cell in holders if cell.bold)
        logged = [cell for cell in column if not pd.isna(cell.logged)]
        for cell in column:
            if cell.bold and cell.value < best:
                yield _finding(
                    "bold", cell, best, f"in bold, but {holders[0].condition!r} prints {best}"
                )
            elif cell.value == best and not cell.bold:
                text = (
                    f"not in bold, but equals {marked}, which is"
                    if marked
                    else "the column's maximum, but not in bold"
                )
                yield _finding("bold", cell, best, text)
            elif cell.bold and cell in logged:
                top = max(logged, key=lambda other: other.logged)
                if top.logged > cell.logged:
                    text = f"in bold, but by the logs {top.condition!r} has {top.logged} and this row {cell.logged}"
                    yield _finding("bold", cell, top.logged, text)


def brightness(cells, logs):
    """Brightness factors in the logs that are not those of the text, or that differ within a column."""
    rows = cells[
        (cells["table"] >= FILTERED_TABLE)
        & cells["brightness"].notna()
        & (cells["brightness"] != "as logged")
    ]
    rows = rows.drop_duplicates(["table", "condition", "dataset"])
    for cell in rows.itertuples():
        factor = 1.0 if cell.brightness == "none" else float(cell.brightness)
        filtered_here = factor != 1 and cell.run == (
            cell.table,
            cell.condition,
        )  # a run printed again says nothing new
        night = cell.dataset == "tokyo-night" and (filtered_here or cell.table == FILTERED_TABLE)
        if night and factor != STATED_BRIGHTNESS:
            text = f"the text says brightness {STATED_BRIGHTNESS}, the log of that run {cell.brightness}"
            yield _finding(
                "brightness", cell, factor, text, metric="brightness", printed=STATED_BRIGHTNESS
            )
        if cell.dataset == "sf-xs" and filtered_here:
            text = f"the log of that run has brightness {cell.brightness}; section 4.1 says that only Tokyo-xs is filtered"
            yield _finding("brightness", cell, factor, text, metric="brightness", printed=np.nan)
    for _, column in rows.groupby(["table", "dataset"], sort=False):
        factors = column.groupby("brightness", sort=False)["condition"].agg(", ".join)
        if len(factors) > 1:
            mixed = "; ".join(
                f"{factor} for {conditions}" for factor, conditions in factors.items()
            )
            text = f"the logs of one column have different brightness: {mixed}"
            yield _finding(
                "brightness",
                next(column.itertuples()),
                np.nan,
                text,
                condition="",
                metric="brightness",
                printed=np.nan,
            )


def unfiltered_night(cells, logs):
    """Night rows where the text says that the filter is on: printed without it, or better without it."""
    printed = {
        (cell.condition, cell.metric): cell.value
        for cell in cells[cells["table"] == 3].itertuples()
    }
    for cell in cells[
        (cells["table"] == FILTERED_TABLE) & (cells["dataset"] == "tokyo-night")
    ].itertuples():
        for model in ("baseline", "GRL"):
            stated = printed.get((f"{model} brightness={STATED_BRIGHTNESS}", cell.metric))
            if cell.run == run_of(3, f"{model} brightness=none") and stated not in (
                None,
                cell.value,
            ):
                text = f"the text says brightness {STATED_BRIGHTNESS}, for which Table 3 prints {stated}; this is without the filter"
                yield _finding("brightness", cell, stated, text)
        without = logs.get((cell.table, cell.condition + UNFILTERED, cell.dataset), {}).get(
            cell.metric, np.nan
        )
        if without > cell.value:
            text = f"printed {cell.value} with the filter; without it the log says {without}, which is better"
            yield _finding("brightness", cell, without, text)


def impossible_reranking(cells, logs):
    """Re-ranking the first 5 leaves R@5 and beyond as they are: a change has another cause."""
    for row, plain in RERANKED.items():
        for cell in _of(cells, row, metric="R@5").itertuples():
            for other in _of(cells, plain, cell.dataset, "R@5").itertuples():
                if other.value == cell.value:
                    continue
                before = logs.get((row[0], row[1] + BEFORE, cell.dataset), {}).get("R@5")
                why = f": the log before re-ranking says {before}"
                why += (
                    " already, so the jointly trained extractor changed it, not the warp"
                    if before == cell.value
                    else ""
                )
                text = (
                    f"R@5 goes from {other.value} to {cell.value}, which re-ranking the first 5 cannot do"
                    + (why if before else "")
                )
                yield _finding("re-ranking", cell, other.value, text)
    for (table, condition, dataset), before in logs.items():
        if not condition.endswith(BEFORE):
            continue
        condition = condition.removesuffix(BEFORE)
        after = logs.get((table, condition, dataset), before)
        for metric in ("R@5", "R@10", "R@20"):
            if after[metric] != before[metric]:
                text = f"logged {before[metric]} before and {after[metric]} after re-ranking the first 5, which cannot change {metric}"
                yield dict(
                    zip(
                        COLUMNS,
                        (
                            "re-ranking",
                            table,
                            condition,
                            dataset,
                            metric,
                            np.nan,
                            after[metric],
                            text,
                        ),
                    )
                )


def sum_unlike_avg(cells, logs):
    """Section 8 aggregates the query: with unit-length database descriptors its sum over scales ranks exactly as its average does."""
    for cell in cells[
        cells["table"].isin(MULTI_SCALE) & (cells["condition"] == "sum")
    ].itertuples():
        for avg in _of(cells, (cell.table, "avg"), cell.dataset, cell.metric).itertuples():
            if avg.value == cell.value:
                continue
            one = (
                pd.isna(cell.brightness)
                or pd.isna(avg.brightness)
                or cell.brightness == avg.brightness
            )
            why = (
                "so the database's descriptors were aggregated"
                if one
                else f"but the logs also differ in brightness, {cell.brightness} and {avg.brightness}"
            )
            text = f"sum prints {cell.value}, avg {avg.value}: over a query's scales (section 8) both rank alike, {why}"
            yield _finding("sum", cell, avg.value, text)


def conclusions(cells, logs):
    """Section 9's best values and the rows that it attributes them to, against the tables and the logs."""
    for (dataset, metric), (value, named) in CONCLUSIONS.items():
        column = cells[(cells["dataset"] == dataset) & (cells["metric"] == metric)]
        best = column["value"].max()
        holders = _names(dict.fromkeys(column.loc[column["value"] == best, "run"]))
        for cell in (cell for row in named for cell in _of(column, row).itertuples()):
            if cell.value != value:
                text = f"section 9 gives {value} to this row, which prints {cell.value}; the best, {best}, is {holders}"
                yield _finding("section 9", cell, best, text)
            elif best > value:
                yield _finding(
                    "section 9",
                    cell,
                    best,
                    f"section 9 calls {value} the best, but {holders} prints {best}",
                )
            elif cell.logged < value:
                yield _finding(
                    "section 9",
                    cell,
                    cell.logged,
                    f"section 9 gives {value} to this row, whose log says {cell.logged}",
                )


def soup_below_ingredient(cells, logs):
    """A greedy soup starts as its best ingredient and keeps what improves: on the queries it was chosen on it cannot end lower."""
    soup = cells["condition"] == "Model Soup"
    for cell in cells[soup].itertuples():
        column = cells[
            ~soup
            & (cells["table"] == cell.table)
            & (cells["dataset"] == cell.dataset)
            & (cells["metric"] == cell.metric)
        ]
        best = max(column.itertuples(), key=lambda other: other.value, default=cell)
        if best.value > cell.value:
            text = (
                f"the soup's {cell.value} is below {best.condition}'s {best.value}: "
                "not a greedy soup (section 7.1.1) chosen on these queries from these ingredients"
            )
            yield _finding("soup", cell, best.value, text)


RULES = (
    impossible_counts,
    unlike_the_log,
    tables_disagree,
    copied_rows,
    bold_maxima,
    brightness,
    unfiltered_night,
    impossible_reranking,
    sum_unlike_avg,
    conclusions,
    soup_below_ingredient,
)


def _finding(rule, cell, evidence, text, **changed):
    values = {
        "rule": rule,
        "table": cell.table,
        "condition": cell.condition,
        "dataset": cell.dataset,
        "metric": cell.metric,
        "printed": cell.value,
        "evidence": evidence,
        "finding": text,
    }
    return values | changed


def _tenths(percent):
    return round(10 * percent)


def _differ(values, logged):
    """Where there is a log and it says something else."""
    return logged.notna() & (values != logged)


def _of(cells, row, dataset=None, metric=None):
    """The cells of a (table, condition), all of them or of one data set or metric."""
    wanted = {"table": row[0], "condition": row[1], "dataset": dataset, "metric": metric}
    return cells[
        np.logical_and.reduce(
            [cells[column] == value for column, value in wanted.items() if value is not None]
        )
    ]


def _pairs(cells):
    """{(table, condition, dataset): (R@1, R@5)} of the rows that print both: one number alone may agree by chance."""
    values = {}
    for cell in cells.itertuples():
        values.setdefault((cell.table, cell.condition, cell.dataset), {})[cell.metric] = cell.value
    return {
        key: (row["R@1"], row["R@5"]) for key, row in values.items() if {"R@1", "R@5"} <= set(row)
    }


def _names(rows):
    return " and ".join(f"Table {table} {condition!r}" for table, condition in rows)
