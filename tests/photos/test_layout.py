"""Where data sets lie, and the check of what is there."""

import shutil

import pytest

from vgeo.__main__ import main
from vgeo.photos.names import format_name
from vgeo.photos.layout import PARTS, check, find
from vgeo.study.profiles import PROFILES, Profile
from vgeo.report.original import logged

COUNTS = {
    "classes": 2,
    ("sf-xs", "val", "database"): 3,
    ("sf-xs", "val", "queries"): 2,
    ("sf-xs", "test", "database"): 4,
    ("sf-xs", "test", "queries"): 2,
    ("tokyo-xs", "test", "database"): 3,
    ("tokyo-xs", "test", "queries"): 3,
    ("tokyo-night", "test", "queries"): 1,
}


@pytest.fixture
def whole(tmp_path):
    """Empty files with the names of a complete small copy: the check opens none of them."""
    top = tmp_path / "sets"

    def fill(folder, count, east=550_000.0):
        folder.mkdir(parents=True)
        for i in range(count):
            (folder / format_name(east + i, 4_173_555.0, 10, "S", f"p{i}", 0.0, 201704)).touch()

    fill(top / "sf-xs/train/a", 3, 550_001.0)
    fill(top / "sf-xs/train/b", 3, 550_051.0)
    for (dataset, split, kind), count in [item for item in COUNTS.items() if item[0] != "classes"]:
        fill(top / dataset / split / kind, count)
    fill(top / "night_target", 2)
    return top


def tiny(**fields):
    return Profile("tiny", min_images=3, n=5, l=2, **fields)


def test_a_complete_copy(whole):
    lines, complete = check(whole, tiny(counts=COUNTS))
    assert complete and len(lines) == len(PARTS) + 1
    assert lines[0].startswith("sf-xs train: 6 images, 2 classes as published, in ")
    assert (
        lines[2].startswith("sf-xs val queries: 2 images as published, in ")
        and "tokyo-night test database: that of tokyo-xs" in lines
    )


@pytest.mark.parametrize(
    "old, new",
    [
        ("sf-xs", "small"),
        ("sf-xs", "sf_xs"),
        ("sf-xs/test/queries", "sf-xs/test/queries_v1"),
        ("tokyo-xs", "tokyo_xs"),
    ],
)
def test_other_names(whole, old, new):
    shutil.move(whole / old, whole / new)
    assert check(whole, tiny(counts=COUNTS))[1]


def test_the_downloaders_layout(whole):
    for name in ("tokyo-xs", "tokyo-night"):
        (whole / name / "images").mkdir()
        shutil.move(whole / name / "test", whole / name / "images/test")
    assert check(whole, tiny(counts=COUNTS))[1]
    assert find(whole, "tokyo-xs", "test", "queries") == whole / "tokyo-xs/images/test/queries"


@pytest.mark.parametrize(
    "gone, line",
    [
        ("tokyo-xs/test/database", "tokyo-xs test database: missing: put it in "),
        ("night_target", "night_target: missing"),
        ("sf-xs/train", "sf-xs train: missing"),
        ("tokyo-night", "tokyo-night test queries: missing"),
    ],
)
def test_a_part_that_is_missing(whole, gone, line):
    shutil.rmtree(whole / gone)
    lines, complete = check(whole, tiny(counts=COUNTS))
    assert (
        not complete
        and sum(line in text for text in lines) == 1
        and sum(": missing: " in text for text in lines) == 1
    )


def test_counts_that_differ_and_names_that_are_wrong(whole):
    extra = (
        whole
        / "sf-xs/val/database"
        / format_name(550_020.0, 4_173_555.0, 10, "S", "x", 0.0, 201704)
    )
    extra.touch()
    lines, complete = check(whole, tiny(counts=COUNTS))
    assert not complete and any(
        "sf-xs val database: 4 images where 3 are published" in line for line in lines
    )
    assert check(whole, tiny())[1]  # a profile without published counts takes any
    (whole / "night_target/party.jpg").touch()  # one wrong name hides no other line
    extra.rename(extra.with_name("holiday.jpg"))
    lines, complete = check(whole, tiny(counts=COUNTS))
    assert not complete and any(
        "sf-xs val database: " in line and "holiday.jpg" in line for line in lines
    )
    assert len(lines) == len(PARTS) + 1 and "party.jpg" in lines[-1]


def test_the_command(whole, monkeypatch, capsys):
    monkeypatch.setitem(PROFILES, "tiny", tiny(counts=COUNTS))
    for folder, code in ((whole, 0), (whole.parent, 1)):
        with pytest.raises(SystemExit) as stop:
            main(["data", "--check", "--profile", "tiny", "--data", str(folder)])
        assert (stop.value.code or 0) == code
    out = capsys.readouterr().out
    assert "as published" in out and "github.com/gmberton/CosPlace" in out


def test_the_papers_counts():
    counts = PROFILES["paper"].counts
    for row in logged().itertuples():  # what the authors' own runs counted
        assert counts[row.dataset, "test", "queries"] == row.queries
        assert (
            counts["sf-xs" if row.dataset == "sf-xs" else "tokyo-xs", "test", "database"]
            == row.database
        )
    assert counts["classes"] == 5965 and counts["sf-xs", "val", "database"] == 8015
