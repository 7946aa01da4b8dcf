"""The comparison of two machines' results: differences, flips and times counted by hand."""

import json
import shutil

import machines
import numpy as np
import pandas as pd
import pytest
from report.report_case import CITY

from vgeo.report.claims import verdict_counts
from vgeo.report.findings import limits
from vgeo.report.machines import comparison
from vgeo.report.page import write_page

RELEASED = CITY.parent


@pytest.fixture
def both(tmp_path):
    """Three copies of the released run: of machine a, of machine b, and the released one."""
    for name in ("a", "b", "released"):
        (tmp_path / name / "tables").mkdir(parents=True)
        for path in [*CITY.glob("table_??.csv"), CITY / "claims.csv"]:
            shutil.copy(path, tmp_path / name / "tables")
        shutil.copy(RELEASED / "run.json", tmp_path / name)
    return tmp_path


def edit(path, change):
    table = pd.read_csv(path)
    table = change(table)
    table.to_csv(path, index=False)


def edit_run(folder, **values):
    path = folder / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def compare(folder):
    machines.main(folder / "a", folder / "b", folder / "released")
    found = comparison(folder / "released")
    return found.tables, found.verdicts, found.runs


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


def test_verdicts_that_differ_count_as_not_decidable(both):
    def change(table):
        rows = table["verdict"].isin(["reproduced", "contradicted"])
        of_tables = table["family"].eq("EffLite0") & table["claim"].str.startswith("Table 4:")
        table.loc[rows & of_tables, "verdict"] = "not decidable"
        costs = table["dataset"].isna() & table["verdict"].eq("reproduced")
        table.loc[table.index[costs][:1], "verdict"] = "contradicted"
        return table

    edit(both / "b/tables/claims.csv", change)
    _, flips, _ = compare(both)
    ledger = pd.read_csv(CITY / "claims.csv")
    before, found = verdict_counts(ledger), comparison(both / "released").counts(ledger)
    lost = before - found
    second = ledger[ledger["family"] == "EffLite0"]
    decided = second["claim"].str.startswith("Table 4:") & second["verdict"].ne("not decidable")
    assert lost["EffLite0"].iloc[:2].sum() == decided.sum() > 0
    assert lost["ResNet18, EffV2s"].tolist()[:3] == [1, 0, -1]
    line = limits(both / "released")[-1]
    assert f" differs in {decided.sum() + 1} verdicts (3 seeds). " in line
    assert line.endswith(f" / {found.loc['not decidable', 'EffLite0']}.")


def test_one_seed_is_beside_the_spread_of_all(both):
    for name in ("a", "b"):
        edit_run(both / name, seeds=[0])
        edit(both / name / "tables/claims.csv", lambda table: table.assign(spread=float("nan")))
    table, _, runs = compare(both)
    ledger = pd.read_csv(CITY / "claims.csv")
    of_first = ledger.loc[ledger["claim"].str.startswith("Table 1:"), "spread"]
    found = table.loc[0, "largest spread of an effect over seeds"]
    assert found == pytest.approx(np.round(of_first.max(), 2)) and found > 0
    assert runs["seeds"].tolist() == [1, 1]


def test_a_run_that_found_its_trainings_in_a_cache_has_no_time(both):
    edit_run(both / "a", notebooks={"01_losses": {"seconds": 60.0, "centres": 1.0}})
    edit_run(both / "b", notebooks={"01_losses": {"seconds": 660.0, "models": 500.0}})
    assert compare(both)[2]["minutes"].tolist() == [pytest.approx(float("nan"), nan_ok=True), 11.0]
    found, seeds = comparison(both / "released"), json.loads((RELEASED / "run.json").read_text())
    assert list(found.minutes(len(seeds["seeds"])).values()) == [11.0]
    assert found.minutes(seeds=1) == {}


def test_the_page_of_the_released_run_shows_the_comparison(both):
    before = write_page(both / "released").read_text()
    assert "The same machine, commit and seeds give the same bits." in before
    assert "Compared:" not in before and comparison(both / "released") is None
    compare(both)
    page = (both / "released" / "report.html").read_text()
    assert "Compared:" in page and "largest difference" in page


@pytest.mark.parametrize("what", ["commit", "seeds", "data"])
def test_other_studies_are_not_compared(both, refused, what):
    edit_run(both / "b", **{what: "another"})
    refused(lambda: compare(both), f"another {what}: compare runs of one study")
    assert comparison(both / "released") is None


def test_runs_of_another_commit_than_the_released_one_are_not_compared(both, refused):
    for name in ("a", "b"):
        edit_run(both / name, commit="another")
    refused(lambda: compare(both), "another commit: compare runs of one study")
