"""The audit of the original's record: where its tables disagree with arithmetic, with its authors'
logs, with each other and with its text.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import pandas as pd

from vgeo.errors import VgeoError
from vgeo.report import original
from vgeo.report.original import KEY

COLUMNS = ["rule", *KEY, "printed", "evidence", "finding"]
BEFORE = " (before re-ranking)"  # of a log's condition: the same GeoWarp model without the warp
UNFILTERED = " (no brightness filter)"

Row = tuple[int, str]  # table and condition
Logs = Mapping[tuple[int, str, str], Mapping]  # by table, condition and data set

# Rows that print a run again -> the row that printed it first. A row that is not here is a run of
# its own.
RUNS: dict[Row, Row] = {
    # section 2: "the model trained [...] with CosFace loss is considered as the baseline"
    (2, "baseline"): (1, "CosFace"),
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

# A re-ranked row -> the row that the original compares it with
RERANKED: dict[Row, Row] = {
    (4, "baseline + GeoWarp"): (4, "baseline"),
    (5, "EffV2s + GeoWarp"): (5, "EffV2s"),
}

# Rows merged by distance -> the re-ranked row that is merged with one of GRL
NEAREST_FIRST: dict[Row, Row] = {(7, "GeoWarp + GRL (NIF)"): (5, "EffV2s + GeoWarp")}
NEAREST_FIRST |= {(13, scales): (11, scales) for scales in ("avg", "sum", "max", "min")}

# Tables in which a sum over the query's scales must rank as their average does. Table 13 is none of
# them: NIF merges by distance, which a sum changes.
MULTI_SCALE = (8, 9, 10, 11, 12)

# Section 4.1: "From now on, if not specified, when the filter is involved, the brightness factor is
# fixed to 0.15." Below Table 5: "For Tokyo-night, the previously described data augmentation
# technique is employed with brightness_factor equal to 0.15."
STATED_BRIGHTNESS, FILTERED_TABLE = 0.15, 5

# Section 9's list: data set, metric -> the value, and the rows that it is attributed to
CONCLUSIONS: dict[tuple[str, str], tuple[float, list[Row]]] = {
    ("sf-xs", "R@1"): (68.6, [(5, "EffV2s + GeoWarp"), (11, "avg"), (7, "GeoWarp + GRL (SIF)")]),
    ("sf-xs", "R@5"): (76.4, [(5, "EffV2s + GeoWarp")]),  # "with the same model"
    ("tokyo-xs", "R@1"): (86.3, [(7, "GeoWarp + GRL (SIF)")]),
    ("tokyo-xs", "R@5"): (93.3, [(12, "max")]),
    ("tokyo-night", "R@1"): (79.0, [(11, "avg")]),
    ("tokyo-night", "R@5"): (87.6, [(5, "EffV2s"), (12, "avg")]),
}


@dataclass(frozen=True)
class Cell:
    """A printed cell, with what the log of its run says.

    Attributes
    ----------
    value, logged : percent; `logged` is NaN without a log.
    run : the row that printed the same run first.
    brightness : as logged, such as "0.15" or "none"; None without a log.
    queries : of the data set; None where no log tells.
    bold : whether it is printed in bold.
    """

    table: int
    condition: str
    dataset: str
    metric: str
    value: float
    run: Row
    logged: float
    brightness: str | None
    queries: int | None
    bold: bool

    @property
    def row(self) -> Row:
        """The table and condition."""
        return self.table, self.condition

    @property
    def unlike_log(self) -> bool:
        """Whether there is a log and it says something else."""
        return not math.isnan(self.logged) and self.value != self.logged

    def finding(self, rule: str, evidence: float, text: str, **changed) -> dict:
        """A row of the audit about this cell."""
        values = {column: getattr(self, column) for column in KEY} | {"printed": self.value}
        return {"rule": rule, **values, "evidence": evidence, "finding": text} | changed


def audit(
    tables: pd.DataFrame, logs: pd.DataFrame, bold: pd.DataFrame | None = None
) -> pd.DataFrame:
    """Every disagreement that RULES find, a row each, by rule and then by table.

    Parameters
    ----------
    tables, logs, bold : in the form of `original.printed`, `original.logged` and `original.bold`;
        `bold` is the original's when not given.

    Returns
    -------
    A DataFrame of COLUMNS. `printed` and `evidence` are percent, or a factor where `metric` is
    brightness; NaN where a finding has no such number. `condition` is empty where a whole column is
    meant.

    Raises
    ------
    VgeoError
        When a column is missing.
    """
    bold = original.bold() if bold is None else bold
    of_logs = [*KEY[:3], "queries", "brightness", "R@1", "R@5", "R@10", "R@20"]
    for name, frame, needed in (
        ("tables", tables, [*KEY, "value"]),
        ("logs", logs, of_logs),
        ("bold", bold, KEY),
    ):
        if missing := sorted(set(needed) - set(frame.columns)):
            words = ", ".join(missing)
            raise VgeoError(f"{name}: no column {words}: give the frame as it is in report/data")
    by_run: dict = logs.set_index(KEY[:3]).to_dict("index")
    cells = _join(tables, by_run, bold)
    findings = [finding for rule in RULES for finding in rule(cells, by_run)]
    return pd.DataFrame(findings, columns=COLUMNS)


def run_of(table: int, condition: str) -> Row:
    """The row that printed that row's run first."""
    return RUNS.get((table, condition), (table, condition))


def _join(tables: pd.DataFrame, logs: Logs, bold: pd.DataFrame) -> list[Cell]:
    """The printed cells, by table, with the log of their run."""
    queries = {dataset: int(log["queries"]) for (_, _, dataset), log in logs.items()}
    marked = set(bold[KEY].itertuples(index=False, name=None))
    cells = []
    for row in original.rows_of(tables.sort_values("table", kind="stable")):
        run, key = run_of(row.table, row.condition), (row.table, row.condition, row.dataset)
        log = logs.get((*run, row.dataset), {})
        logged, brightness = log.get(row.metric, math.nan), log.get("brightness")
        known = queries.get(row.dataset), (*key, row.metric) in marked
        cells.append(Cell(*key, row.metric, row.value, run, logged, brightness, *known))
    return cells


# Rules: each takes the joined cells and the logs, and yields findings.


def impossible_counts(cells: list[Cell], logs: Logs) -> Iterator[dict]:
    """No k of the N queries gives the printed percentage, rounded half up to one decimal."""
    for cell in cells:
        if cell.queries is None:
            continue
        n, tenths = cell.queries, round(10 * cell.value)
        nearest = round(tenths * n / 1000)
        near = [k for k in range(nearest - 1, nearest + 2) if 0 <= k <= n]
        if any((2000 * k + n) // (2 * n) == tenths for k in near):  # exact: whole numbers alone
            continue
        best = min(near, key=lambda k: abs(1000 * k / n - tenths))
        why = "which was cut" if 1000 * best // n == tenths else "the nearest"
        share = 100 * best / n
        text = f"no count of {n} queries rounds to {cell.value}: {best}/{n}, {why}, is {share:.3f}"
        yield cell.finding("count", share, text)


def unlike_the_log(cells: list[Cell], logs: Logs) -> Iterator[dict]:
    """The printed value is not the one in the log of that run.

    Another run's log that holds the printed pair is named.
    """
    pairs = _pairs(cells)
    for cell in cells:
        if not cell.unlike_log:
            continue
        text = f"printed {cell.value}, the log of that run says {cell.logged}"
        pair = pairs.get((*cell.row, cell.dataset))
        others = [
            key[:2]
            for key, log in logs.items()
            if key[2] == cell.dataset and (log["R@1"], log["R@5"]) == pair
        ]
        if others and pair:
            text += f"; {pair[0]} / {pair[1]} is the log of {_names(others)}"
        yield cell.finding("log", cell.logged, text)


def tables_disagree(cells: list[Cell], logs: Logs) -> Iterator[dict]:
    """A run printed again with another value than where it was printed first."""
    first: dict[tuple, Cell] = {}
    for cell in cells:
        other = first.setdefault((cell.run, cell.dataset, cell.metric), cell)
        if cell.value != other.value:
            log = "" if math.isnan(cell.logged) else f"; the log says {cell.logged}"
            text = f"{_names([other.row])} prints {other.value} for the same run{log}"
            yield cell.finding("tables", other.value, text)


def copied_rows(cells: list[Cell], logs: Logs) -> Iterator[dict]:
    """Both values of a row are those of another run's row, and not those of its own log."""
    pairs = _pairs(cells)
    for cell in cells:
        own = pairs.get((*cell.row, cell.dataset))
        if own is None or not cell.unlike_log:
            continue
        others = [
            key[:2]
            for key, pair in pairs.items()
            if pair == own and key[2] == cell.dataset and run_of(*key[:2]) != cell.run
        ]
        if others:
            text = f"{own[0]} / {own[1]} repeats {_names(others)}"
            text += f"; the log of this row's run says {cell.logged}"
            yield cell.finding("copy", cell.logged, text)


def bold_maxima(cells: list[Cell], logs: Logs) -> Iterator[dict]:
    """Bold that is not its column's maximum, printed or logged; a maximum that is not bold.

    Only tables that print bold at all are looked at.
    """
    with_bold = {cell.table for cell in cells if cell.bold}
    columns: dict[tuple, list[Cell]] = {}
    for cell in cells:
        if cell.table in with_bold:
            # Table 3 has columns for the baseline and for GRL
            half = (
                cell.condition.split(" brightness=")[0] if "brightness=" in cell.condition else ""
            )
            columns.setdefault((cell.table, cell.dataset, cell.metric, half), []).append(cell)
    for column in columns.values():
        best = max(cell.value for cell in column)
        holders = [cell for cell in column if cell.value == best]
        marked = " and ".join(repr(cell.condition) for cell in holders if cell.bold)
        logged = [cell for cell in column if not math.isnan(cell.logged)]
        for cell in column:
            if cell.bold and cell.value < best:
                text = f"in bold, but {holders[0].condition!r} prints {best}"
                yield cell.finding("bold", best, text)
            elif cell.value == best and not cell.bold:
                text = f"not in bold, but equals {marked}, which is"
                text = text if marked else "the column's maximum, but not in bold"
                yield cell.finding("bold", best, text)
            elif cell.bold and cell in logged:
                top = max(logged, key=lambda other: other.logged)
                if top.logged > cell.logged:
                    text = f"in bold, but by the logs {top.condition!r} has {top.logged}"
                    text += f" and this row {cell.logged}"
                    yield cell.finding("bold", top.logged, text)


def brightness(cells: list[Cell], logs: Logs) -> Iterator[dict]:
    """Logged brightness factors that are not those of the text, or differ within a column."""
    rows: dict[tuple, Cell] = {}
    columns: dict[tuple, list[Cell]] = {}
    for cell in cells:
        if cell.table >= FILTERED_TABLE and cell.brightness not in (None, "as logged"):
            about = replace(cell, metric="brightness", value=math.nan)
            rows.setdefault((cell.row, cell.dataset), about)
    for cell in rows.values():
        columns.setdefault((cell.table, cell.dataset), []).append(cell)
        factor = 1.0 if cell.brightness == "none" else float(cell.brightness or "nan")
        # a run that is printed again says nothing new
        filtered_here = factor != 1 and cell.run == cell.row
        filtered = filtered_here or cell.table == FILTERED_TABLE
        if cell.dataset == "tokyo-night" and filtered and factor != STATED_BRIGHTNESS:
            text = f"the text says brightness {STATED_BRIGHTNESS}"
            text += f", the log of that run {cell.brightness}"
            yield cell.finding("brightness", factor, text, printed=STATED_BRIGHTNESS)
        if cell.dataset == "sf-xs" and filtered_here:
            text = f"the log of that run has brightness {cell.brightness}"
            text += "; section 4.1 says that only Tokyo-xs is filtered"
            yield cell.finding("brightness", factor, text)
    for column in columns.values():
        factors: dict[str | None, list[str]] = {}
        for cell in column:
            factors.setdefault(cell.brightness, []).append(cell.condition)
        if len(factors) > 1:
            mixed = "; ".join(f"{factor} for {', '.join(rows)}" for factor, rows in factors.items())
            text = f"the logs of one column have different brightness: {mixed}"
            yield column[0].finding("brightness", math.nan, text, condition="")


def unfiltered_night(cells: list[Cell], logs: Logs) -> Iterator[dict]:
    """Night rows where the text says that the filter is on.

    They are printed without it, or are better without it.
    """
    by_row = {(cell.row, cell.metric): cell.value for cell in cells if cell.table == 3}
    for cell in cells:
        if cell.table != FILTERED_TABLE or cell.dataset != "tokyo-night":
            continue
        for model in ("baseline", "GRL"):
            row = (3, f"{model} brightness={STATED_BRIGHTNESS}")
            stated = by_row.get((row, cell.metric))
            without = cell.run == run_of(3, f"{model} brightness=none")
            if without and stated is not None and stated != cell.value:
                text = f"the text says brightness {STATED_BRIGHTNESS}, for which Table 3 prints "
                text += f"{stated}; this is without the filter"
                yield cell.finding("brightness", stated, text)
        log = logs.get((cell.table, cell.condition + UNFILTERED, cell.dataset), {})
        unfiltered = log.get(cell.metric, math.nan)
        if unfiltered > cell.value:
            text = f"printed {cell.value} with the filter; without it the log says {unfiltered}"
            yield cell.finding("brightness", unfiltered, f"{text}, which is better")


def impossible_reranking(cells: list[Cell], logs: Logs) -> Iterator[dict]:
    """Re-ranking the first 5 leaves R@5 and beyond as they are: a change has another cause."""
    for row, plain in RERANKED.items():
        for cell in _of(cells, row, metric="R@5"):
            for other in _of(cells, plain, cell.dataset, "R@5"):
                if other.value == cell.value:
                    continue
                text = f"R@5 goes from {other.value} to {cell.value}"
                text += ", which re-ranking the first 5 cannot do"
                before = logs.get((*_before(row), cell.dataset), {}).get("R@5")
                if before is not None:
                    text += f": the log before re-ranking says {before}"
                if before == cell.value:
                    text += " already, so the jointly trained extractor changed it, not the warp"
                yield cell.finding("re-ranking", other.value, text)
    for (table, condition, dataset), before in logs.items():
        if not condition.endswith(BEFORE):
            continue
        condition = condition.removesuffix(BEFORE)
        after = logs.get((table, condition, dataset), before)
        for metric in ("R@5", "R@10", "R@20"):
            if after[metric] != before[metric]:
                text = f"logged {before[metric]} before and {after[metric]} after re-ranking the "
                text += f"first 5, which cannot change {metric}"
                where = (table, condition, dataset, metric)
                values = ("re-ranking", *where, math.nan, after[metric], text)
                yield dict(zip(COLUMNS, values, strict=True))


def nearest_first_without_reranking(cells: list[Cell], logs: Logs) -> Iterator[dict]:
    """NIF merges by distance, and the original's re-ranking moves each distance with its image.

    NIF therefore sorts GeoWarp's re-ranked predictions back: its rows merge the lists as they were
    before re-ranking, and their R@1 and R@5 are those of GeoWarp's model without the warp, merged.
    They can't be compared with re-ranked rows, such as those merged by SIF, to tell how good the
    merging is.
    """
    for row, warped in NEAREST_FIRST.items():
        for cell in _of(cells, row, metric="R@1"):
            before = logs.get((*_before(warped), cell.dataset), {}).get("R@1", math.nan)
            after = logs.get((*warped, cell.dataset), {}).get("R@1", math.nan)
            if math.isnan(before + after) or before == after:
                continue
            text = f"merged by distance, which undoes re-ranking: it merges {_names([warped])} as "
            text += f"it was before re-ranking, whose log says {before}, not {after}"
            yield cell.finding("NIF", before, text)


def sum_unlike_avg(cells: list[Cell], logs: Logs) -> Iterator[dict]:
    """Section 8 aggregates the query's descriptors over scales.

    With database descriptors of unit length the sum then ranks exactly as the average does.
    """
    for cell in cells:
        if cell.table not in MULTI_SCALE or cell.condition != "sum":
            continue
        for avg in _of(cells, (cell.table, "avg"), cell.dataset, cell.metric):
            if avg.value == cell.value:
                continue
            why = "so the database's descriptors were aggregated"
            if None not in (cell.brightness, avg.brightness) and cell.brightness != avg.brightness:
                why = f"but the logs also differ in brightness, {cell.brightness} and "
                why += f"{avg.brightness}"
            text = f"sum prints {cell.value}, avg {avg.value}: over a query's scales (section 8) "
            yield cell.finding("sum", avg.value, f"{text}both rank alike, {why}")


def conclusions(cells: list[Cell], logs: Logs) -> Iterator[dict]:
    """Section 9's best values, and the rows that it names, against the tables and the logs."""
    for (dataset, metric), (value, named) in CONCLUSIONS.items():
        column = [cell for cell in cells if (cell.dataset, cell.metric) == (dataset, metric)]
        best = max(cell.value for cell in column)
        holders = _names(list(dict.fromkeys(cell.run for cell in column if cell.value == best)))
        for cell in (cell for row in named for cell in _of(column, row)):
            if cell.value != value:
                text = f"section 9 gives {value} to this row, which prints {cell.value}; the best, "
                yield cell.finding("section 9", best, f"{text}{best}, is {holders}")
            elif best > value:
                text = f"section 9 calls {value} the best, but {holders} prints {best}"
                yield cell.finding("section 9", best, text)
            elif cell.logged < value:
                text = f"section 9 gives {value} to this row, whose log says {cell.logged}"
                yield cell.finding("section 9", cell.logged, text)


def soup_below_ingredient(cells: list[Cell], logs: Logs) -> Iterator[dict]:
    """A greedy soup starts as its best ingredient and keeps what improves.

    On the queries that it was chosen on it cannot end lower.
    """
    for cell in cells:
        if cell.condition != "Model Soup":
            continue
        column = [c for c in cells if (c.table, c.dataset, c.metric) == (6, cell.dataset, "R@1")]
        best = max(column, key=lambda other: other.value)
        if best.value > cell.value:
            text = f"the soup's {cell.value} is below {best.condition}'s {best.value}: not a greedy"
            text += " soup (section 7.1.1) chosen on these queries from these ingredients"
            yield cell.finding("soup", best.value, text)


RULES = (
    impossible_counts,
    unlike_the_log,
    tables_disagree,
    copied_rows,
    bold_maxima,
    brightness,
    unfiltered_night,
    impossible_reranking,
    nearest_first_without_reranking,
    sum_unlike_avg,
    conclusions,
    soup_below_ingredient,
)


def _of(
    cells: list[Cell], row: Row, dataset: str | None = None, metric: str | None = None
) -> list[Cell]:
    """The cells of a row, all of them or of one data set or metric."""
    return [
        cell
        for cell in cells
        if cell.row == row and dataset in (None, cell.dataset) and metric in (None, cell.metric)
    ]


def _before(row: Row) -> Row:
    """The condition under which the run of a row was logged before re-ranking."""
    return row[0], row[1] + BEFORE


def _pairs(cells: list[Cell]) -> dict[tuple, tuple[float, float]]:
    """R@1 and R@5 by table, condition and data set, of the rows that print both.

    One number alone may agree with another by chance.
    """
    values: dict[tuple, dict[str, float]] = {}
    for cell in cells:
        values.setdefault((*cell.row, cell.dataset), {})[cell.metric] = cell.value
    return {
        key: (row["R@1"], row["R@5"]) for key, row in values.items() if {"R@1", "R@5"} <= set(row)
    }


def _names(rows: list[Row]) -> str:
    return " and ".join(f"Table {table} {condition!r}" for table, condition in rows)
