"""Tables beside the original's, and what is said of a comparison."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest

from vgeo.report import original, tables
from vgeo.report.tables import beside_published, findings, paired_tests, wide
from vgeo.study.rows import SECOND, TABLES


@dataclass
class Ranks:
    """A result that is known by its first hits."""

    first_hit: np.ndarray

    def right(self, n):
        return self.first_hit < n


def ranks(*first, queries=40):
    """The first queries have these ranks, all others no right prediction."""
    return Ranks(np.array([*first, *[20] * (queries - len(first))]))


def test_our_recalls_stand_beside_the_published():
    results = {
        "baseline": {"sf-xs": ranks(0, 0, 3), "tokyo-night": ranks(0)},
        "new": {"sf-xs": ranks(0, 4), "tokyo-night": ranks()},
    }
    table = beside_published(2, results, {"tokyo-xs": "no photos"})
    assert list(table.columns) == tables.COLUMNS and len(table) == 2 * 3 * 2
    assert list(table["dataset"].unique()) == ["sf-xs", "tokyo-xs", "tokyo-night"]
    cells = table.set_index(["condition", "dataset", "metric"]).sort_index()
    assert cells.loc[("baseline", "sf-xs", "R@1"), "value"] == 5.0
    assert cells.loc[("baseline", "sf-xs", "R@5"), "value"] == 7.5
    assert cells.loc[("baseline", "sf-xs", "R@1"), "published"] == original.value(
        2, "baseline", "sf-xs"
    )
    assert cells.loc["new", "published"].isna().all()
    assert cells.loc[("baseline", "tokyo-xs"), "value"].isna().all()
    assert cells.loc[("baseline", "tokyo-xs"), "published"].notna().all()
    assert (table["queries"].dropna() == 40).all()
    wilson = binomtest(2, 40).proportion_ci(method="wilson")
    low, high = cells.loc[("baseline", "sf-xs", "R@1"), ["ci_low", "ci_high"]]
    assert (low, high) == pytest.approx((100 * wilson.low, 100 * wilson.high))


def test_a_table_has_the_data_sets_and_metrics_of_the_original():
    results = {"baseline brightness=none": dict.fromkeys(("sf-xs", "tokyo-night"), ranks(0))}
    assert set(beside_published(3, results)["dataset"]) == {"tokyo-night"}
    soup = {"Model Soup": {"sf-xs": ranks(0)}}
    assert list(beside_published(6, soup)["metric"]) == ["R@1"]


def test_wide_marks_the_best_and_says_why_there_is_none():
    results = {"baseline": {"sf-xs": ranks(0, 0)}, "GRL": {"sf-xs": ranks(0)}}
    table = beside_published(2, results, ["tokyo-xs"])
    view = wide(table, {"tokyo-xs": "no photos"})
    assert list(view.index) == ["baseline", "GRL"]
    assert view.loc["baseline", "sf-xs R@1 (n = 40)"].startswith("**5.0** (")
    assert view.loc["GRL", "sf-xs R@1 (n = 40)"].startswith("2.5 (")
    assert view.loc["GRL", "sf-xs R@1 (n = 40)"].endswith(") / 54.7")
    assert view.loc["GRL", "tokyo-xs R@1"] == "no photos / 73.0"
    assert view.loc["GRL", "sf-xs R@5 (n = 40)"].startswith("2.5")


def test_markdown_escapes_bars_and_shows_no_nan():
    frame = pd.DataFrame({"a|b": ["x|y"], "n": pd.array([pd.NA], "Int64"), "v": [0.12345]})
    frame["gone"] = np.nan
    lines = tables.markdown(frame).splitlines()
    assert lines[0] == "| a\\|b | n | v | gone |" and lines[2] == "| x\\|y |  | 0.123 |  |"


def test_latex_escapes_what_latex_would_read():
    view = pd.DataFrame({"a_b %": ["**5.0** (1.0–9.0) & 3"]}, index=["x_y"])
    text = tables.latex(view, "100 % of x_y")
    assert "a\\_b \\%" in text and "\\textbf{5.0} (1.0--9.0) \\& 3" in text
    assert "\\caption{100 \\% of x\\_y." in text and text.count("{") == text.count("}")


def test_paired_tests_are_mcnemar_s():
    a, b = ranks(0, 0, 0, 0, 0, 0, 0, 9), ranks(9, 9, 9, 9, 9, 9, 0, 0)
    results = {"new": {"sf-xs": a, "tokyo-xs": a}, "base": {"sf-xs": b}, "other": {"sf-xs": b}}
    rows = paired_tests(results, "base")
    assert list(rows["condition"]) == ["new", "other"] and set(rows["dataset"]) == {"sf-xs"}
    first = rows.iloc[0]
    assert first["only it is right"] == 6 and first["only the other is right"] == 1
    assert first["difference"] == 12.5 and first["p"] == pytest.approx(2 * (1 + 7) / 2**7)
    assert rows.iloc[1]["difference"] == 0 and rows.iloc[1]["p"] == 1
    assert list(paired_tests(results, "base", ["other"])["condition"]) == ["other"]
    at_10 = paired_tests(results, "base", ["new"], n=10)
    assert at_10["metric"].item() == "R@10" and at_10["difference"].item() == 0


def test_a_comparison_is_made_again_among_the_rows_of_the_second_family():
    few, many = {"sf-xs": ranks(0)}, {"sf-xs": ranks(*[0] * 9)}
    results = {"baseline": few, "GRL": many, "EffLite0: baseline": many, "EffLite0: GRL": few}
    rows = tables.paired_in_families(2, results, "baseline")
    assert rows[["condition", "against"]].to_numpy().tolist() == [
        ["GRL", "baseline"],
        ["EffLite0: GRL", "EffLite0: baseline"],
    ]
    assert rows["difference"].tolist() == [20, -20] and rows.index.tolist() == [0, 1]


def test_a_row_without_a_counterpart_is_compared_in_its_own_family_alone(monkeypatch):
    monkeypatch.delitem(SECOND, "ArcFace")
    results = {name: {"sf-xs": ranks(0)} for name in TABLES[1]}
    rows = tables.paired_in_families(1, results, "CosFace")
    of = rows[["condition", "against"]].to_numpy().tolist()
    assert ["ArcFace", "CosFace"] in of and ["SphereFace", "CosFace"] in of
    assert of[2:] == [["EffLite0: SphereFace", "EffLite0: CosFace"]]


def test_another_backbone_is_compared_with_the_same_row_in_both_families():
    results = {name: {"sf-xs": ranks(0)} for name in TABLES[5]}
    rows = tables.paired_in_families(5, results, "baseline", ["EffV2s"], n=5)
    assert rows["condition"].tolist() == ["EffV2s", "EffLite0"]
    assert set(rows["against"]) == {"baseline"} and set(rows["metric"]) == {"R@5"}


def comparison(*p):
    rows = [("new", "base", "sf-xs", "R@1", 3.0, 5, 2, each) for each in p]
    columns = paired_tests({"base": {}}, "base").columns
    return pd.DataFrame(rows, columns=columns)


@pytest.mark.parametrize(
    ("p", "lines"),
    [
        ((0.0004,), ["- new, sf-xs R@1: +3.0 points against base (p < 0.001)."]),
        ((0.2, 0.3), ["- None of the differences, 2 in number, is more than chance"]),
        ((0.012, 0.3), ["- new, sf-xs R@1: +3.0 points", "- 1 of the 2 differences"]),
        ((), []),
    ],
)
def test_what_is_said_of_a_comparison(p, lines):
    said = findings(comparison(*p)).splitlines()
    assert len(said) == len(lines)
    assert all(line.startswith(start) for line, start in zip(said, lines, strict=True))


def test_a_fact_of_the_original_is_computed():
    sentence = tables.published_gain(1, "CosFace", ["SphereFace", "ArcFace"])
    assert "on 3 of 3 data sets" in sentence and "sf-xs +0.4" in sentence
    assert "0 of 3" in tables.published_gain(4, "baseline + GeoWarp", "baseline", metric="R@5")
    assert tables.best_published(7, "tokyo-xs") == "the original's is 86.3, of GeoWarp + GRL (SIF)"
