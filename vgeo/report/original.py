"""The published record that comes with the package: what the report prints, what its authors logged, what it sets in bold."""

from pathlib import Path

import pandas as pd

DATA = Path(__file__).parent / "data"


KEY = ["table", "condition", "dataset", "metric"]


def printed():
    """The report's 318 cells: columns KEY and value, percent with one decimal."""
    return pd.read_csv(DATA / "report_tables.csv")


def logged():
    """A row a run and data set: columns table, condition, dataset, queries, brightness, R@1, R@5, R@10, R@20, percent with one decimal."""
    return pd.read_csv(DATA / "author_logs.csv")


def bold():
    """The cells that the report prints in bold: columns KEY."""
    return pd.read_csv(DATA / "report_bold.csv")
