"""The comparison of two machines' results: differences, flips and times counted by hand."""

import json
import shutil

import machines
import pandas as pd
import pytest
from report.report_case import CITY

RELEASED = CITY.parent


@pytest.fixture
def both(tmp_path):
    """Two copies of the released run, and a folder for what is written."""
    for name in ("a", "b"):
        (tmp_path / name / "tables").mkdir(parents=True)
        for path in [*CITY.glob("table_??.csv"), CITY / "claims.csv"]:
            shutil.copy(path, tmp_path / name / "tables")
        shutil.copy(RELEASED / "run.json", tmp_path / name)
    (tmp_path / "out").mkdir()
    return tmp_path


def edit(path, change):
    table = pd.read_csv(path)
    table = change(table)
    table.to_csv(path, index=False)


def compare(folder):
    machines.main(folder / "a", folder / "b", folder / "out")
    names = ("machines", "machine_verdicts", "machine_runs")
    return [pd.read_csv(folder / "out" / f"{name}.csv") for name in names]


def test_equal_results_do_not_differ(both):
    table, flips, runs = compare(both)
    assert table["table"].tolist() == list(range(1, 14)) and flips.empty
    assert (table[["differ", "mean difference", "largest difference"]] == 0).all(axis=None)
    run = json.loads((RELEASED / "run.json").read_text())
    seconds = sum(each["seconds"] for each in run["notebooks"].values())
    assert runs["minutes"].tolist() == pytest.approx([seconds / 60] * 2, abs=0.06)


def test_differences_are_in_points_whatever_the_order_of_the_rows(both):
    def change(table):
        table.loc[0, "value"] += 1.5
        table.loc[1, "value"] -= 3.75
        return table.iloc[::-1]

    edit(both / "b/tables/table_03.csv", change)
    first = pd.read_csv(both / "a/tables/table_03.csv")
    rows = compare(both)[0].set_index("table")
    row = rows.loc[3]
    assert row["differ"] == 2 and row["largest difference"] == 3.75
    assert row["mean difference"] == pytest.approx(5.25 / len(first), abs=0.005)
    assert row["where"].startswith(first.loc[1, "condition"])
    assert rows.drop(index=3)["differ"].eq(0).all()


def test_flips_are_the_decided_verdicts_that_differ(both):
    def change(table):
        decided = table.index[table["verdict"] == "reproduced"]
        table.loc[decided[:2], "verdict"] = "not decidable"
        table.loc[decided[2], "verdict"] = "contradicted"
        return table.iloc[::-1]

    edit(both / "b/tables/claims.csv", change)
    flips = compare(both)[1]
    assert flips["verdict a"].tolist() == ["reproduced"] * 3
    assert flips["verdict b"].tolist() == ["not decidable"] * 2 + ["contradicted"]


@pytest.mark.parametrize("what", ["commit", "seeds", "data"])
def test_other_studies_are_not_compared(both, refused, what):
    path = both / "b" / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {what: "another"}))
    refused(lambda: compare(both), f"another {what}: compare runs of one study")
    assert not [*(both / "out").iterdir()]
