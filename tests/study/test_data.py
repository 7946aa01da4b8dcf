"""What is there, what is absent and why; tokyo-night as a part of tokyo-xs."""

import os
import shutil

import numpy as np
import pytest

from vgeo.study.data import DATASETS


def test_complete_data(study):
    data = study().data
    assert tuple(data.test_sets) == DATASETS and data.absent == {}
    assert data.classes.count == 3 and len(data.classes.photos) == 12
    assert str(data.classes).startswith("12 images, 3 classes, group")
    assert data.identities()["sf-xs val"].startswith("sf-xs val: 5 queries, 7 database images")
    assert len(data.night) == 2


def test_the_night_is_a_part_of_tokyo(study, photos, tmp_path, make_photos, refused):
    sets = study().data.test_sets
    night, day = sets["tokyo-night"], sets["tokyo-xs"]
    assert night.whole is day and night.database is day.database
    asked = [os.path.basename(path) for path in night.queries.paths]
    assert asked == [os.path.basename(day.queries.paths[row]) for row in night.rows]
    for row, right in zip(night.rows, night.positives, strict=True):
        np.testing.assert_array_equal(right, day.positives[row])

    other = shutil.copytree(photos, tmp_path / "other")
    make_photos(other / "tokyo-night/test/queries", [553_111.0], [36], zone=54, stem="dark")
    alone = study(other).data.test_sets["tokyo-night"]
    assert alone.whole is None and len(alone.queries) == 3
    assert all("tokyo-xs" in path for path in alone.database.paths)
    shutil.copytree(other / "sf-xs/test/database", other / "tokyo-night/test/database")
    refused(lambda: study(other).data.test_sets, "tokyo-night", "54 north", "10 north")


def test_absent_data_sets(study, photos, tmp_path):
    some = tmp_path / "some"
    shutil.copytree(photos / "sf-xs", some / "sf_xs")  # another of the names it goes by
    data = study(some).data
    assert list(data.test_sets) == ["sf-xs"]
    assert data.absent == {
        "tokyo-xs": "no tokyo-xs/test queries and database in some",
        "tokyo-night": "no tokyo-night/test queries and database in some",
    }
    assert data.identities()["tokyo-xs"] == data.absent["tokyo-xs"]
    shutil.copytree(photos / "tokyo-night", some / "tokyo-night")
    assert study(some).data.absent["tokyo-night"] == "no tokyo-night/test database in some"


@pytest.mark.parametrize(
    "gone, wanted, words",
    [
        ("sf-xs/val/queries", "val", "has no sf-xs/val"),
        ("sf-xs/train", "classes", "has no sf-xs/train"),
        ("night_target", "night", "has no night_target"),
    ],
)
def test_what_is_needed_and_missing(study, photos, tmp_path, refused, gone, wanted, words):
    some = shutil.copytree(photos, tmp_path / "some")
    shutil.rmtree(some / gone)
    refused(lambda: getattr(study(some).data, wanted), some, words)
