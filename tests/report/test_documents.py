"""The generated parts of the documents and the records for archives: fresh, and of their format."""

import json
import re
import shutil
import tomllib
from pathlib import Path

import pandas as pd
import pytest
import yaml

from vgeo.errors import VgeoError
from vgeo.report import machines, original
from vgeo.report.documents import (
    BLOCKS,
    MECHANISMS,
    PASSES,
    RELEASED,
    TOLD,
    YARDSTICK,
    documents,
    update,
)

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
# https://developers.zenodo.org/#representation, what a deposit of software needs or may have
ZENODO = {"title", "description", "creators", "version", "license", "upload_type", "access_right"}
ZENODO |= {"language", "keywords", "related_identifiers"}


def test_what_is_generated_is_what_the_released_run_holds():
    for path, text in documents(ROOT).items():
        assert path.read_text(encoding="utf-8") == text, (
            f"{path.name}: call python -P -m vgeo.report.documents"
        )


@pytest.fixture
def clone(tmp_path):
    """What `documents` reads, in a folder of its own, without what compares machines."""
    for name in (*BLOCKS, "pyproject.toml", "CITATION.cff"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    for part in ("tables", "sections"):
        shutil.copytree(ROOT / RELEASED / part, tmp_path / RELEASED / part)
    shutil.copy(ROOT / RELEASED / "run.json", tmp_path / RELEASED)
    return tmp_path


def test_an_update_changes_only_what_is_between_the_markers(clone):
    update(clone)
    before = documents(clone)
    readme = clone / "README.md"
    readme.write_text(re.sub(r"(<!-- findings -->\n)- Of", r"\1old\n- Of", readme.read_text()))
    assert "\nold\n" in readme.read_text() and before == documents(clone)
    update(clone)
    assert readme.read_text() == before[readme]


def test_another_ledger_gives_other_findings(clone):
    path = clone / RELEASED / "tables" / "claims.csv"
    pd.read_csv(path).assign(verdict="contradicted").to_csv(path, index=False)
    text = documents(clone)[clone / "README.md"]
    assert re.search(r"- Of the original's comparisons and costs: \d+ contradicted with", text)


def test_the_time_of_each_machine_is_shown_where_it_is_known(clone):
    run_file = clone / RELEASED / "run.json"
    run = json.loads(run_file.read_text()) | {"commit": "a" * 40}
    run["notebooks"] = {
        "00_data": {"seconds": 600.0},
        "01_losses": {"seconds": 660.0},
        "08_conclusions": {"seconds": 1800.0},
    }
    run["machine"]["precision"] = "bf16"
    run_file.write_text(json.dumps(run))
    row = {"processor": "slow", "precision": "float32", "minutes": 44.4, "claims": 9}
    row |= {"commit": "a" * 40, "seeds": 1}
    verdicts = pd.DataFrame([dict.fromkeys(machines.ROW, "x")] * 2)
    tables = pd.DataFrame([{"table": "1", "largest": 3.8}])
    update(clone)
    assert rows_between(clone, "README.md", "results")[2][2:] == ["21 min", ""]
    machines.Comparison(tables, verdicts, pd.DataFrame([row])).write(clone / RELEASED)
    update(clone)
    first, more = rows_between(clone, "README.md", "results")[2:]
    assert (first[0], *first[2:]) == ("`./run_all.sh`", "21 min", "44 min")
    assert (more[0], *more[2:]) == ("`./run_all.sh city --seeds 3`", "51 min", "")
    table = pd.read_csv(clone / RELEASED / "tables" / "table_01.csv")
    chosen = table[(table["condition"] == "CosFace") & (table["metric"] == "R@1")]
    assert all(f"{value:.1f}" in first[1] for value in chosen["value"]) and len(chosen) == 3
    page = (clone / "docs/results.md").read_text()
    assert "slow (without bfloat16); commit aaaaaaaaaaaa;" in page
    assert "one seed. Of 9 verdicts 2 differ." in page


def rows_between(clone, page, word):
    """The rows of the last table between two markers, as lists of cells."""
    text = documents(clone)[clone / page].split(f"<!-- {word} -->")[1].split("<!-- /")[0]
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


@pytest.mark.parametrize("seeds", [1, 3])
def test_minutes_by_kind_of_step_add_up_to_those_of_the_notebooks(clone, seeds):
    path = clone / RELEASED / "run.json"
    run = json.loads(path.read_text()) | {"seeds": list(range(seeds))}
    run["notebooks"] = {
        "before": {"seconds": 60.0, "data": 48.0},
        "01_losses": {"seconds": 600.0, "models": 480.0, "centres": 30.0},
        "08_conclusions": {"seconds": 1200.0, "models": 1140.0},
    }
    path.write_text(json.dumps(run))
    header, *rows = rows_between(clone, "docs/performance.md", "times")
    cells = {row[0]: [float(cell) for cell in row[1:]] for row in rows if row[1] != "---"}
    assert cells["rendering"][0] == 0.8
    if seeds == 1:
        assert header == ["minutes", "the first seed"]
        assert cells["training, with validation"] == [27.0] and cells["whole run"] == [31.0]
        assert cells["all else"] == [3.2]  # 12 + 120 + 60 s
    else:
        assert header[2] == "2 further seeds" and cells["whole run"] == [11.0, 20.0]
        assert cells["training, with validation"] == [8.0, 19.0]
    command = rows_between(clone, "README.md", "results")[-1][0]
    assert command == ("`./run_all.sh`" if seeds == 1 else "`./run_all.sh city --seeds 3`")


def test_a_run_is_told_in_bare_forward_passes_for_each_kind_of_machine(clone):
    path = clone / RELEASED / "run.json"
    run = json.loads(path.read_text()) | {"seeds": [0, 1]}
    run["notebooks"] = {"01_losses": {"seconds": 600.0}, "08_conclusions": {"seconds": 900.0}}
    run["machine"]["precision"] = "bf16"
    path.write_text(json.dumps(run))
    run["machine"]["processor"] = "x"
    path.write_text(json.dumps(run))
    row = {"processor": "x", "cores": 2, "precision": "bf16", PASSES: 100.0, "s a query": 0.1234}
    (clone / YARDSTICK).parent.mkdir(parents=True)
    rows = [row, row | {"precision": "float32", PASSES: 50.4, "s a query": 0.2}]
    rows.append(row | {"processor": "another", PASSES: 999.0})
    pd.DataFrame(rows).to_csv(clone / YARDSTICK, index=False)
    header, _, *found = rows_between(clone, "docs/performance.md", "kinds")
    assert header == ["", "2 cores with bfloat16", "2 cores without bfloat16"]
    assert found == [
        [PASSES, "100", "50"],
        ["`./run_all.sh`, minutes", "10", ""],
        ["the same in bare ResNet18 images, thousands", "60", ""],
        ["`vgeo locate`, s a query", "0.12", "0.2"],
    ]


def test_variants_are_shown_beside_their_difference_to_the_first(clone):
    base = {"question": "reversal", "against": "without", "dataset": "sf-xs", TOLD: 95.2}
    rows = [
        base | {"condition": "without", "value": 50.04},
        base | {"condition": "with", "value": 52.0, "difference": 1.96, "p": 0.04},
        base | {"condition": "more", "value": 49.0, "difference": -1.04, "p": 0.4},
    ]
    (clone / MECHANISMS).parent.mkdir(parents=True)
    pd.DataFrame(rows).to_csv(clone / MECHANISMS, index=False)
    found = rows_between(clone, "docs/results.md", "reversal")
    assert found[0] == ["condition", "sf-xs", TOLD]
    assert found[2:] == [
        ["without", "50.0", "95"],
        ["with", "52.0 (+2.0*)", "95"],
        ["more", "49.0 (-1.0)", "95"],
    ]


def test_the_filter_s_factors_fall_and_have_the_tests_differences(clone):
    found = rows_between(clone, "docs/results.md", "filter")
    factors = [float(row[0]) for row in found[2:]]
    assert factors == sorted(factors, reverse=True)
    tests = pd.read_csv(clone / RELEASED / "tables" / "paired_brightness.csv")
    tests = tests[(tests["metric"] == "R@1") & tests["condition"].str.startswith("baseline ")]
    told = dict(zip(tests["condition"].str.split("=").str[1], tests["difference"], strict=True))
    column = found[0].index("baseline")
    for row in found[2:]:
        assert float(row[column].strip("*")) == pytest.approx(told[row[0]], abs=0.05)


def test_the_kinds_of_machines_are_the_precisions_of_a_run():
    run = json.loads((ROOT / RELEASED / "run.json").read_text())
    assert run["machine"]["precision"] in machines.KINDS


def test_a_document_without_markers_and_a_clone_without_a_ledger_are_refused(clone):
    (clone / "docs/city.md").write_text("# The city\n")
    with pytest.raises(VgeoError, match="city.md: write the lines <!-- sets -->"):
        documents(clone)
    (clone / RELEASED / "tables" / "claims.csv").unlink()
    with pytest.raises(VgeoError, match="run the study and release it first"):
        documents(clone)


def test_zenodo_gets_what_the_citation_says():
    record = json.loads((ROOT / ".zenodo.json").read_text(encoding="utf-8"))
    assert set(record) == ZENODO and all(record.values())
    assert record["title"] == CITATION["title"] and record["version"] == CITATION["version"]
    assert [each["name"] for each in record["creators"]] == [a["name"] for a in CITATION["authors"]]
    assert record["license"] == CITATION["license"].lower()
    assert record["upload_type"] == CITATION["type"] == "software"
    assert set(record["keywords"]) <= set(CITATION["keywords"])
    theirs = CITATION["references"][0]
    assert record["related_identifiers"][0]["identifier"] == theirs["url"] == original.URL
    assert record["related_identifiers"][0]["relation"] == "references"


def test_codecheck_gets_the_tables_and_figures_of_the_original():
    """By the rules of the configuration 1.0 that authors can keep before a check."""
    text = (ROOT / "codecheck.yml").read_text(encoding="utf-8")
    record = yaml.safe_load(text)
    assert text.startswith("---\n") and set(record) == {"version", "paper", "manifest"}
    assert record["version"] == "https://codecheck.org.uk/spec/config/1.0/"
    paper, theirs = record["paper"], CITATION["references"][0]
    assert paper["title"] == theirs["title"] and paper["reference"].startswith("https://")
    names = [f"{each['given-names']} {each['family-names']}" for each in theirs["authors"]]
    assert [each["name"] for each in paper["authors"]] == names
    files = [each["file"] for each in record["manifest"]]
    assert all((ROOT / file).is_file() and not Path(file).is_absolute() for file in files)
    assert all(each["comment"] for each in record["manifest"])
    assert len(set(files)) == len(files)
    wanted = {f"tables/table_{number:02d}.csv" for number in original.TABLE_TITLES}
    wanted |= {f"figures/figure_{number:02d}.png" for number in range(1, 5)}
    assert {f"{RELEASED}/{name}" for name in wanted} <= set(files)
    assert not re.search("FIXME|TODO|XXX", text)
