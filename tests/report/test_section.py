"""What a section writes, records and shows."""

import json
import subprocess
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from PIL import Image
from report.report_case import CITY, drawing

from vgeo.report import section as section_module
from vgeo.report.provenance import Provenance, commit_of
from vgeo.report.section import Section, files_of, read_sections
from vgeo.study.cache import Cache


@pytest.fixture
def shown(monkeypatch):
    """What `display` was handed, in order."""
    seen = []
    monkeypatch.setattr(section_module, "display", seen.append)
    return seen


@pytest.fixture
def section(tmp_path, shown):
    return Section(tmp_path, "02_grl")


def table():
    return pd.read_csv(CITY / "table_02.csv").astype({"queries": "Int64"})


def test_a_numbered_table_is_written_three_times_and_shown(section, tmp_path, shown):
    section.table(2, table())
    pd.testing.assert_frame_equal(
        pd.read_csv(tmp_path / "tables/table_02.csv"), table(), check_dtype=False
    )
    markdown = (tmp_path / "tables/table_02.md").read_text()
    assert markdown.startswith("# Table 2. baseline and GRL improvements\n\n| ")
    assert (tmp_path / "tables/table_02.tex").read_text().startswith("\\begin{table}")
    text = shown[0].data
    assert (
        text.startswith("**Table 2. baseline and GRL improvements**\n\n| ") and "\n# " not in text
    )
    assert markdown.split("\n\n", 1)[1].strip() == text.split("\n\n", 1)[1]


def test_why_a_data_set_is_absent_is_shown_in_its_column(section, shown):
    absent = table()
    absent.loc[absent["dataset"] == "tokyo-xs", ["value", "ci_low", "ci_high", "queries"]] = pd.NA
    section.table(2, absent, reasons={"tokyo-xs": "no queries in photos"})
    assert shown[0].data.count("no queries in photos") == 8  # four rows, two metrics
    assert section.record["tables"][0]["reasons"] == {"tokyo-xs": "no queries in photos"}


def test_a_plain_table_keeps_a_named_index_and_drops_another(section, tmp_path, shown):
    counts = pd.DataFrame({"queries": [3]}, index=pd.Index(["sf-xs"], name="dataset"))
    section.table("data_sets", counts, "The data sets")
    section.table("plain", pd.DataFrame({"a": [0.12345, np.nan]}), shown=pd.DataFrame({"b": [1]}))
    assert (tmp_path / "tables/data_sets.csv").read_text() == "dataset,queries\nsf-xs,3\n"
    assert (tmp_path / "tables/plain.csv").read_text().splitlines() == ["a", "0.12345", '""']
    assert "| sf-xs | 3 |" in shown[0].data
    assert shown[1].data == "**plain**\n\n| b |\n| --- |\n| 1 |"


def test_a_figure_is_written_recorded_shown_and_closed(section, tmp_path, shown):
    section.figure(drawing())
    section.figure(drawing("photo", photos=True))
    assert not plt.get_fignums()
    for name, dpi in (("curve", 150), ("photo", 90)):
        with Image.open(tmp_path / f"figures/{name}.png") as image:
            assert image.mode == "P" and image.info["dpi"][0] == pytest.approx(dpi, abs=0.1)
            assert "Software" not in image.info
    assert (tmp_path / "figures/curve.svg").exists()
    assert not (tmp_path / "figures/photo.svg").exists()
    assert shown[0].alt.startswith("A curve. One straight line")
    with Image.open(tmp_path / "figures/curve.png") as image:
        assert shown[0].width == round(image.width * 96 / 150)


def test_a_figure_s_colours_stay(section, tmp_path):
    curve = drawing()
    curve.figure.axes[0].set_facecolor("#0072B2")
    section.figure(curve)
    with Image.open(tmp_path / "figures/curve.png") as image:
        colours = [colour for _, colour in image.convert("RGB").getcolors()]
    assert (255, 255, 255) in colours and (0, 0x72, 0xB2) in colours


def test_the_same_figure_gives_the_same_files(tmp_path, shown):
    files = []
    for name in ("one", "two"):
        Section(tmp_path / name, "x").figure(drawing())
        files.append(
            [(tmp_path / name / f"figures/curve.{s}").read_bytes() for s in ("png", "svg")]
        )
    assert files[0] == files[1]
    assert b"<dc:date>" not in files[0][1]


def test_no_drawing_is_no_figure(section, shown):
    section.figure(None)
    assert not shown and section.record["figures"] == []


def test_conclusions_are_points_of_a_list(section, shown):
    section.says("One.", "- Two.\n- Three.", "")
    assert shown[0].data == section.record["says"] == "- One.\n- Two.\n- Three."


def test_the_record_names_every_file(section, tmp_path):
    section.table(2, table())
    section.table("plain", pd.DataFrame({"a": [1]}))
    section.figure(drawing())
    section.figure(drawing("photo", photos=True))
    path = section.file("located/map.html")
    assert path == tmp_path / "located/map.html"
    path.parent.mkdir()
    path.write_text("")
    written = {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file()}
    assert written == {*files_of(section.record), "sections/02_grl.json"}
    assert read_sections(tmp_path) == {"02_grl": section.record}
    assert json.loads(section.path.read_text()) == section.record


def test_a_cell_that_runs_twice_records_once(section):
    for caption in ("First", "Second"):
        section.table("plain", pd.DataFrame({"a": [1]}), caption)
    assert [entry["caption"] for entry in section.record["tables"]] == ["Second"]


def test_a_new_section_forgets_the_last_run(section, tmp_path):
    section.says("Old.")
    Section(tmp_path, "02_grl")
    assert read_sections(tmp_path)["02_grl"]["says"] == ""


def git(folder, *words):
    who = ["-c", "user.name=x", "-c", "user.email=x@example.org", "-c", "commit.gpgsign=false"]
    command = ["git", "-C", str(folder), *who, *words]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def repository(tmp_path, monkeypatch, shown):
    """A clone with one commit, which sections take for theirs."""
    root = tmp_path / "clone"
    for name in ("vgeo/study/rows.py", "notebooks/02_grl.ipynb", "README.md"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("1\n")
    git(root, "init", "--quiet")
    git(root, "add", ".")
    git(root, "commit", "--quiet", "-m", "one")
    monkeypatch.setattr(section_module, "clone", lambda: root)
    monkeypatch.setattr(section_module, "cache_of", lambda: root / "runs" / "cache")
    return root


@pytest.mark.parametrize(
    "changed, dirty",
    [(None, False), ("README.md", False), ("vgeo/study/rows.py", True), ("vgeo/new.py", True)],
)
def test_the_commit_and_whether_the_code_differs_from_it(repository, changed, dirty):
    if changed:
        (repository / changed).write_text("2\n")
    head = git(repository, "rev-parse", "HEAD")
    assert commit_of(repository) == {"commit": head, "dirty": dirty}


def test_a_folder_without_git_has_no_commit(tmp_path):
    assert commit_of(tmp_path / "nowhere") == {"commit": None, "dirty": None}
    assert "an unknown commit" in str(Provenance("notebooks/x.ipynb", None, None))


def test_everything_written_says_where_it_comes_from(repository, tmp_path):
    (repository / "vgeo/study/rows.py").write_text("2\n")
    results = tmp_path / "run"
    cache = Cache(repository / "runs/cache", repository / "runs/cache/journals/run.jsonl")
    cache.step("models", "train of an earlier notebook", {"n": 0}, lambda folder: None)
    section = Section(results, "02_grl")
    section.table("before", pd.DataFrame({"a": [1]}))
    model = cache.step("models", "train GRL", {"n": 1}, lambda folder: None)
    cache.step("views", "views of GRL", {"n": 1}, lambda folder: None)
    section.table(2, table())
    section.figure(drawing())
    before, after = (each["provenance"] for each in section.record["tables"])
    head, recipe = git(repository, "rev-parse", "HEAD"), f"models/{model.name}: train GRL"
    known = {"notebook": "notebooks/02_grl.ipynb", "commit": head, "dirty": True}
    assert before == known | {"recipes": []} and after == known | {"recipes": [recipe]}
    words = f"notebooks/02_grl.ipynb, commit {head[:12]} (dirty); recipes: {recipe}"
    beside = json.loads((results / "tables/table_02.csv-metadata.json").read_text())
    assert beside["url"] == "table_02.csv" and beside["dc:source"] == words
    assert beside["notes"] == [{"provenance": after}]
    with Image.open(results / "figures/curve.png") as image:
        assert image.info["Source"] == words
    svg = ElementTree.parse(results / "figures/curve.svg")
    assert svg.findtext(".//{http://purl.org/dc/elements/1.1/}source") == words


def test_a_resumed_run_names_the_same_recipes(repository, tmp_path):
    """Models that were made inside another's step and models that are found are named alike."""

    def use():
        root = repository / "runs/cache"
        cache = Cache(root, root / "journals/run.jsonl")
        section = Section(tmp_path / "run", "02_grl")

        def inner(folder=None):
            cache.step("models", "train CosFace", {"n": 1}, lambda folder: None)

        cache.step("models", "train GeoWarp", {"n": 2}, inner)
        inner()
        return section.provenance()

    assert use() == use() and len(use().recipes) == 2
