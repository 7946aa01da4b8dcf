"""Where data sets lie, and the check of what is there."""

import shutil
from types import SimpleNamespace

import pytest

from vgeo.photos.layout import PARTS, check, find
from vgeo.photos.names import format_name

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
CLASSES = SimpleNamespace(cell=10.0, angle=30.0, n=5, l=2, min_images=3)


def named(east, pano="p"):
    return format_name(east, 4_173_555.0, 10, "S", pano, 0.0, 201704)


@pytest.fixture
def complete_copy(tmp_path):
    """Empty files with the names of a complete small copy: the check opens none of them."""
    top = tmp_path / "sets"

    def fill(folder, count, east=550_000.0):
        folder.mkdir(parents=True)
        for i in range(count):
            (folder / named(east + i)).touch()

    fill(top / "sf-xs/train/a", 3, 550_001.0)
    fill(top / "sf-xs/train/b", 3, 550_051.0)
    for key, count in COUNTS.items():
        if key != "classes":
            fill(top.joinpath(*key), count)
    fill(top / "night_target", 2)
    return top


def test_a_complete_copy(complete_copy):
    lines, complete = check(complete_copy, COUNTS, CLASSES)
    assert complete and len(lines) == len(PARTS) + 1
    assert lines[0].startswith("sf-xs train: 6 images, 2 classes as published, in ")
    assert lines[2].startswith("sf-xs val queries: 2 images as published, in ")
    assert "tokyo-night test database: that of tokyo-xs" in lines
    assert lines[-1].startswith("night_target: 2 images, in ")


@pytest.mark.parametrize(
    "old, new",
    [
        ("sf-xs", "small"),
        ("sf-xs", "sf_xs"),
        ("sf-xs/test/queries", "sf-xs/test/queries_v1"),
        ("tokyo-xs", "tokyo_xs"),
    ],
)
def test_other_names(complete_copy, old, new):
    shutil.move(complete_copy / old, complete_copy / new)
    assert check(complete_copy, COUNTS, CLASSES)[1]


def test_the_downloaders_layout(complete_copy):
    for name in ("tokyo-xs", "tokyo-night"):
        (complete_copy / name / "images").mkdir()
        shutil.move(complete_copy / name / "test", complete_copy / name / "images/test")
    assert check(complete_copy, COUNTS, CLASSES)[1]
    expected = complete_copy / "tokyo-xs/images/test/queries"
    assert find(complete_copy, "tokyo-xs", "test", "queries") == expected
    assert find(complete_copy, "sf-xs", "train") == complete_copy / "sf-xs/train"
    assert find(complete_copy / "sf-xs", "sf-xs", "train") is None


@pytest.mark.parametrize(
    "gone, line",
    [
        ("tokyo-xs/test/database", "tokyo-xs test database: missing: put it in "),
        ("night_target", "night_target: missing"),
        ("sf-xs/train", "sf-xs train: missing"),
        ("tokyo-night", "tokyo-night test queries: missing"),
    ],
)
def test_a_part_that_is_missing(complete_copy, gone, line):
    shutil.rmtree(complete_copy / gone)
    lines, complete = check(complete_copy, COUNTS, CLASSES)
    assert not complete and sum(line in text for text in lines) == 1
    assert sum(": missing: " in text for text in lines) == 1


def test_sources_are_named_for_what_is_missing(tmp_path):
    lines, complete = check(tmp_path, COUNTS, CLASSES)
    assert not complete and len(lines) == len(PARTS) + 1
    assert "github.com/gmberton/CosPlace" in lines[0]


def test_counts_that_differ_and_names_that_are_wrong(complete_copy):
    extra = complete_copy / "sf-xs/val/database" / named(550_020.0, "x")
    extra.touch()
    lines, complete = check(complete_copy, COUNTS, CLASSES)
    assert not complete
    assert any("sf-xs val database: 4 images where 3 are published" in line for line in lines)
    lines, complete = check(complete_copy, None, CLASSES)
    assert complete and not any("published" in line for line in lines)
    lines, complete = check(complete_copy, COUNTS | {"classes": 3}, CLASSES)
    assert "2 classes where 3 are published" in lines[0]
    # One wrong name hides no other line.
    (complete_copy / "night_target/party.jpg").touch()
    extra.rename(extra.with_name("holiday.jpg"))
    lines, complete = check(complete_copy, COUNTS, CLASSES)
    assert not complete and len(lines) == len(PARTS) + 1 and "party.jpg" in lines[-1]
    assert any("sf-xs val database: " in line and "holiday.jpg" in line for line in lines)
