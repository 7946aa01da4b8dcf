"""Facts of the original against its own text and tables."""

from pathlib import Path

import pandas as pd
import pytest

from vgeo.report import original


def test_the_original_is_that_of_the_citation_file():
    path = Path(__file__).parents[2] / "CITATION.cff"
    text = path.read_text(encoding="utf-8")
    assert original.TITLE in text and original.URL in text
    assert all(name in text for name in ("Carachino", "Di Gangi"))
    assert original.AUTHORS == "Alessio Carachino and Francesco Di Gangi"


def test_every_table_has_a_title():
    assert set(original.printed()["table"]) == set(original.TABLE_TITLES) == set(range(1, 14))


@pytest.mark.parametrize(
    ("cell", "value"),
    [
        ((2, "GRL", "tokyo-night"), 58.1),
        ((1, "CosFace", "tokyo-night"), 49.5),
        ((7, "GeoWarp + GRL (SIF)", "tokyo-xs"), 86.3),
        ((12, "max", "tokyo-xs", "R@5"), 93.3),
    ],
)
def test_a_printed_value(cell, value):
    assert original.value(*cell) == value


def test_a_value_that_is_not_printed():
    with pytest.raises(KeyError):
        original.value(6, "uniform soup", "sf-xs")


@pytest.mark.parametrize("table", original.TABLE_TITLES)
def test_best_is_a_maximum(table):
    cells = original.cells_of(table)
    for (dataset, metric), column in cells.groupby(["dataset", "metric"]):
        condition, value = original.best(table, dataset, metric)
        assert value == column["value"].max() == original.value(table, condition, dataset, metric)


def test_the_text_s_gains():
    """Section 5.2: R@1 gains by 6.7 to 10.5 points; section 3: by night 49.5 to 58.1."""
    gains = original.gain(4, "baseline + GeoWarp", "baseline")
    assert (gains.min(), gains.max()) == (6.7, 10.5)
    assert original.gain(2, "GRL", "baseline")["tokyo-night"] == 8.6
    assert (original.gain(4, "baseline + GeoWarp", "baseline", metric="R@5") < 0).all()


def test_a_gain_is_over_the_best_of_the_rivals():
    both = original.gain(1, "CosFace", "SphereFace", "ArcFace")
    each = [original.gain(1, "CosFace", rival) for rival in ("SphereFace", "ArcFace")]
    pd.testing.assert_series_equal(both, pd.concat(each, axis=1).min(axis=1), check_names=False)
