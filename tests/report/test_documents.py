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
from vgeo.report import original
from vgeo.report.documents import BLOCKS, KINDS, MACHINES, RELEASED, RUNS, documents, update

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


@pytest.mark.parametrize("same", [True, False])
def test_the_other_machine_s_time_is_shown_where_it_ran_the_same_commit(clone, same):
    run_file = clone / RELEASED / "run.json"
    run = json.loads(run_file.read_text()) | {"commit": "a" * 40}
    run["notebooks"] = {"00_data": {"seconds": 600.0}, "01_losses": {"seconds": 660.0}}
    run["machine"]["precision"] = "bf16"
    run_file.write_text(json.dumps(run))
    row = {"profile": "city", "processor": "slow", "precision": "fp32", "minutes": 44.4}
    row["commit"] = ("a" if same else "b") * 40
    (clone / RUNS).parent.mkdir(parents=True)
    pd.DataFrame([row]).to_csv(clone / RUNS, index=False)
    pd.DataFrame([{"table": "1", "largest": 3.8}]).to_csv(clone / MACHINES, index=False)
    update(clone)
    line = next(
        line for line in (clone / "README.md").read_text().splitlines() if "| `./run_all" in line
    )
    assert line.endswith("| 21 min | 44 min |" if same else "| 21 min |  |")
    table = pd.read_csv(clone / RELEASED / "tables" / "table_01.csv")
    chosen = table[(table["condition"] == "CosFace") & (table["metric"] == "R@1")]
    assert all(f"{value:.1f}" in line for value in chosen["value"]) and len(chosen) == 3
    assert "slow (fp32); commit" in (clone / "docs/results.md").read_text()


def test_the_kinds_of_machines_are_the_precisions_of_a_run():
    assert json.loads((ROOT / RELEASED / "run.json").read_text())["machine"]["precision"] in KINDS


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
