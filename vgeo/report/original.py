"""The original that is reproduced: its authors, the cells of its tables, and its authors' logs.

References
----------
.. [1] Alessio Carachino and Francesco Di Gangi, "Visual Geo-localization: mapping images to GPS",
   Politecnico di Torino. https://github.com/CarachinoAlessio/VisualGeolocalization
"""

from pathlib import Path
from typing import Any

import pandas as pd

AUTHORS = "Alessio Carachino and Francesco Di Gangi"
TITLE = "Visual Geo-localization: mapping images to GPS"
INSTITUTION = "Politecnico di Torino"
URL = "https://github.com/CarachinoAlessio/VisualGeolocalization"

TABLE_TITLES = {  # as the original prints them
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

DATA = Path(__file__).parent / "data"
KEY = ["table", "condition", "dataset", "metric"]


def printed() -> pd.DataFrame:
    """The 318 cells of the original's tables: columns KEY and value, percent with one decimal."""
    return pd.read_csv(DATA / "report_tables.csv")


def logged() -> pd.DataFrame:
    """What the authors' notebook logged, a row for each run and data set.

    Returns
    -------
    Columns table, condition, dataset, queries, database, brightness, R@1, R@5, R@10, R@20; the
    recalls are percent with one decimal.
    """
    return pd.read_csv(DATA / "author_logs.csv")


def bold() -> pd.DataFrame:
    """The cells that the original prints in bold: columns KEY."""
    return pd.read_csv(DATA / "report_bold.csv")


def cells_of(table: int) -> pd.DataFrame:
    """The cells of one of the original's tables: condition, dataset, metric, value in percent."""
    cells = printed()
    return cells[cells["table"] == table].drop(columns="table").reset_index(drop=True)


def value(table: int, condition: str, dataset: str, metric: str = "R@1") -> float:
    """One printed cell, percent. Raises KeyError where the original does not print it."""
    cells = cells_of(table).set_index(["condition", "dataset", "metric"])["value"]
    return float(cells[condition, dataset, metric])


def best(table: int, dataset: str, metric: str = "R@1") -> tuple[str, float]:
    """The condition and the value, percent, that the original prints as the highest of a column."""
    cells = cells_of(table)
    column = cells[(cells["dataset"] == dataset) & (cells["metric"] == metric)]
    row = rows_of(column[column["value"] == column["value"].max()])[0]
    return row.condition, row.value


def gain(table: int, condition: str, *against: str, metric: str = "R@1") -> pd.Series:
    """By how many points a printed row is above the best of the rows `against`, by data set."""
    cells = cells_of(table)
    values = cells[cells["metric"] == metric].pivot(
        index="dataset", columns="condition", values="value"
    )
    rivals = values[list(against)].max(axis=1)
    return (values[condition] - rivals).dropna().round(1)


def rows_of(table: pd.DataFrame) -> list[Any]:
    """A table's rows as named tuples."""
    return list(table.itertuples(index=False))
