"""The findings: counted from the ledger, limited by the data, and the README's are those."""

import json
from pathlib import Path

import pandas as pd
import pytest
from report.report_case import CITY

from vgeo.errors import VgeoError
from vgeo.report import findings
from vgeo.report.claims import CLAIMS, COSTS
from vgeo.report.findings import (
    BEGIN,
    CHANGES,
    DECIDED,
    END,
    changes,
    findings_table,
    limits,
    update_readme,
)

README = Path(__file__).parents[2] / "README.md"


@pytest.fixture
def ledger():
    return pd.read_csv(CITY / "claims.csv")


def test_every_change_shows_claims_of_the_ledger():
    known = {str(claim): claim for claim in CLAIMS}
    assert len(CHANGES) == 7
    for change in CHANGES:
        for claim in change.shown.values():
            assert known[claim].section in change.sections and "R@1" in known[claim].metrics


def test_every_section_of_the_original_belongs_to_one_change():
    sections = [section for change in CHANGES for section in change.sections]
    assert len(sections) == len(set(sections))
    assert {each.section for each in (*CLAIMS, *COSTS)} == set(sections)


def test_the_verdicts_of_all_rows_add_up_to_the_ledger(ledger):
    counts = [(ledger["verdict"] == verdict).sum() for verdict in DECIDED]
    cells = changes(ledger)[" / ".join(DECIDED)].str.split(" / ", expand=True).astype(int)
    assert cells.sum().tolist() == counts and sum(counts) == len(ledger)
    assert f"Of {len(ledger)} " in findings.summary(ledger)


def test_an_effect_is_the_ledger_s(ledger):
    where = (ledger["claim"] == "Table 2: GRL better than baseline") & (ledger["metric"] == "R@1")
    ledger.loc[where, ["effect", "ci_low", "ci_high", "p"]] = [12.34, 1.26, 23.47, 0.0123]
    row = changes(ledger).set_index("change").loc["gradient reversal"]
    lines = row["effect here"].splitlines()
    assert lines[0] == "sf-xs +12.3 (+1.3 to +23.5; p = 0.012)" and len(lines) == 3
    assert "(+2.4, +3.5, +8.6)" in row.iloc[0]  # what the original prints


def test_a_data_set_without_a_result(ledger):
    gone = ledger["dataset"] == "tokyo-night"
    ledger.loc[gone, ["effect", "ci_low", "ci_high", "p"]] = None
    assert "tokyo-night: no data" in changes(ledger).loc[1, "effect here"]


@pytest.fixture
def measured(tmp_path):
    """A folder whose trainings move the start by +2, -3 and +20 points, the last one clearly."""
    folder = tmp_path / "tables"
    folder.mkdir()
    columns = ["condition", "dataset", "metric", "value", "ci_low", "ci_high", "queries"]
    sets = {"sf-xs": (50, 52), "tokyo-xs": (43, 40), "tokyo-night": (30, 50)}
    rows = [
        (condition, dataset, "R@1", value, value - 5, value + 5, 300)
        for dataset, values in sets.items()
        for condition, value in zip(("starting weights", "CosFace"), values, strict=True)
    ]
    recalls = pd.DataFrame(rows, columns=columns)
    recalls.to_csv(folder / "recalls_losses.csv", index=False)
    recalls[recalls["condition"] == "CosFace"].to_csv(folder / "table_01.csv", index=False)
    counts = {"dataset": ["sf-xs val", "sf-xs", "tokyo-xs"], "database": [9, 2000, 1000]}
    counts |= {"positives per query (median)": [9, 20, 10]}
    pd.DataFrame(counts).to_csv(folder / "data_sets.csv", index=False)
    (tmp_path / "run.json").write_text(json.dumps({"profile": "paper"}))
    return tmp_path


def test_the_limits_are_computed(measured):
    queries, databases, training = limits(measured)
    assert queries == (
        "Queries: 300 on sf-xs, 300 on tokyo-xs and 300 on tokyo-night. "
        "The 95 % interval of R@1 is ± 5, 5 and 5 points there."
    )
    assert databases == (
        "Databases: 2,000 photos, of which 1.0 % are right for a query (sf-xs); "
        "1,000 photos, of which 1.0 % are right for a query (tokyo-xs)."
    )
    moves = "by +2.0 points on sf-xs, -3.0 points on tokyo-xs and +20.0 points on tokyo-night"
    assert moves in training
    assert "apart on 1 of 3 data sets" in training and "ImageNet" in training
    assert "say little" not in training


def test_a_training_that_moves_nothing_is_said_to_tell_little(measured):
    path = measured / "tables" / "recalls_losses.csv"
    recalls = pd.read_csv(path)
    recalls[recalls["dataset"] != "tokyo-night"].to_csv(path, index=False)
    assert "apart on 0 of 2" in limits(measured)[-1] and "say little" in limits(measured)[-1]


@pytest.mark.parametrize(("p", "clear"), [((0.2, 0.3, 0.6), 0), ((0.2, 0.01, 0.04), 2)])
def test_paired_tests_against_the_start_are_used_where_there_are(measured, p, clear):
    rows = [
        ("CosFace", "starting weights", dataset, "R@1", each)
        for dataset, each in zip("abc", p, strict=True)
    ]
    rows += [("ArcFace", "CosFace", "a", "R@1", 0.001)]
    columns = ["condition", "against", "dataset", "metric", "p"]
    path = measured / "tables" / "paired_losses.csv"
    pd.DataFrame(rows, columns=columns).to_csv(path, index=False)
    training = limits(measured)[-1]
    assert f"more than chance (p < 0.05) on {clear} of 3 data sets" in training
    assert ("say little" in training) == (clear == 0)


def test_a_folder_without_tables_has_no_limits(tmp_path):
    assert limits(tmp_path) == []


def test_the_findings_are_written_between_the_markers(tmp_path, results):
    readme = tmp_path / "README.md"
    readme.write_text(f"# Title\n\n{BEGIN}\nold\n{END}\n\nThe rest.\n")
    for _ in range(2):  # again: nothing changes
        update_readme(readme, results)
        text = readme.read_text()
        assert text.startswith(f"# Title\n\n{BEGIN}\n- Queries: ") and "old" not in text
        assert text.endswith(f"\n{END}\n\nThe rest.\n")
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert len(rows) == 2 + 7 and len({line.count(" | ") for line in rows}) == 1
    assert findings_table(results / "tables" / "claims.csv", limits(results)) in text


def test_a_readme_without_markers_or_a_folder_without_ledger_is_refused(tmp_path, results):
    readme = tmp_path / "README.md"
    readme.write_text("# Title\n")
    with pytest.raises(VgeoError, match="findings -->"):
        update_readme(readme, results)
    readme.write_text(f"{BEGIN}\n{END}\n")
    with pytest.raises(VgeoError, match="run the study first"):
        update_readme(readme, tmp_path / "nothing")


def test_the_readme_says_what_the_released_ledger_holds():
    text = README.read_text(encoding="utf-8")
    assert BEGIN in text, "README.md: has no place for the findings, see findings.update_readme"
    found = text.split(BEGIN)[1].split(END)[0].strip()
    assert found == findings_table(CITY / "claims.csv", limits(CITY.parent)).strip(), (
        "README.md: call vgeo.report.findings.update_readme(README.md, results/city)"
    )
