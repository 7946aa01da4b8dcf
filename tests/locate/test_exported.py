"""An index that was written to one file answers as the photos' own folder does."""

import json
import os
import shutil
import sqlite3
from contextlib import closing

import numpy as np
import pandas as pd
import pytest

from vgeo.__main__ import main
from vgeo.locate.command import locate
from vgeo.locate.exported import ExportedIndex, export, is_index
from vgeo.locate.index import Index
from vgeo.models.network import build
from vgeo.photos.tables import read_photos


def test_a_file_answers_where_the_photos_are_gone(tmp_path, make_street, capsys):
    photos, query = make_street(tmp_path / "photos", range(6)), make_street(tmp_path / "q", [4])
    locate(photos, [query], out=tmp_path / "before")
    file, out = str(tmp_path / "away" / "street.vgeo"), str(tmp_path / "after")
    main(["locate", str(photos), "--index", file, "--out", out])
    assert f"written: {file}, the index of 6 photos" in capsys.readouterr().out
    shutil.rmtree(photos)
    main(["locate", file, str(query), "--out", out, "--json"])
    printed = capsys.readouterr()
    assert "index of 6 photos, " in printed.err
    before, after = (
        pd.read_csv(tmp_path / folder / "locations.csv") for folder in ("before", "after")
    )
    pd.testing.assert_frame_equal(before, after)
    assert json.loads(printed.out)["answers"][0]["matches"][0]["name"] == "004.jpg"
    text = (tmp_path / "after" / "map.html").read_text()
    assert text.count("data:image/gif") == 5 and text.count("data:image/jpeg") == 1
    # The file has no path, no photo, and at most 60 kB a photo.
    content = (tmp_path / "away" / "street.vgeo").read_bytes()
    assert str(tmp_path).encode() not in content and b"JFIF" not in content
    assert len(content) < 6 * 60_000 + 50_000
    near = ["--near", "37.77,-122.42", "--radius", "50"]
    main(["locate", file, str(query), "--out", out, *near])
    assert "index of 2 photos within 50 m" in capsys.readouterr().out


def test_descriptions_and_confidence_are_those_of_the_index(tmp_path, make_street, model):
    photos = make_street(tmp_path / "photos", range(12), noise=20.0)
    queries = sorted(map(str, make_street(tmp_path / "q", (3, 8, 20), noise=40.0).iterdir()))
    index = Index(read_photos(photos), model, 64)
    export(index, tmp_path / "a", "ours")
    read = ExportedIndex(tmp_path / "a", model, 64)
    np.testing.assert_array_equal(read.descriptors, index.descriptors)
    pd.testing.assert_frame_equal(
        read.photos.table.drop(columns="path"), index.photos.table.drop(columns="path")
    )
    assert read.photos.names == index.photos.names
    assert (read.photos.zone, read.photos.south) == (index.photos.zone, index.photos.south)
    one, other = index.locate(queries), read.locate(queries)
    np.testing.assert_array_equal(one.predictions, other.predictions)
    np.testing.assert_array_equal(one.features, other.features)
    assert index.calibrate() == read.calibrate()
    # Of some photos: descriptors and calibration are still those of all.
    some = ExportedIndex(tmp_path / "a", model, 64, lambda all_photos: all_photos.take([2, 7]))
    np.testing.assert_array_equal(some.descriptors, index.descriptors[[2, 7]])
    assert some.photos.names == ["002.jpg", "007.jpg"] and some.calibrate() == index.calibrate()
    assert {some.photos.names[row] for row in some.locate(queries).predictions[:, 0]} <= {
        *("002.jpg", "007.jpg")
    }
    export(read, tmp_path / "b", "ours")  # a copy of a copy
    again = ExportedIndex(tmp_path / "b", model, 64)
    np.testing.assert_array_equal(again.locate(queries).similarity, one.similarity)


def test_another_model_and_other_files_are_refused(tmp_path, make_street, model, refused):
    index = Index(read_photos(make_street(tmp_path / "photos", range(3))), model, 64)
    export(index, tmp_path / "good", "resnet18 64 px")
    for other, size in ((build("resnet18", "city"), 96), (build("resnet18"), 64)):
        refused(
            lambda m=other, s=size: ExportedIndex(tmp_path / "good", m, s),
            "good: was made with resnet18 64 px",
            "give the --model or --weights",
        )
    assert is_index(tmp_path / "good") and not is_index(tmp_path / "photos" / "001.jpg")
    assert not is_index(tmp_path / "none") and not is_index(tmp_path)
    with closing(sqlite3.connect(tmp_path / "other")) as connection:
        connection.execute("CREATE TABLE photos (x)")
    whole = (tmp_path / "good").read_bytes()
    (tmp_path / "cut").write_bytes(whole[: len(whole) // 2])
    with closing(sqlite3.connect(shutil.copy(tmp_path / "good", tmp_path / "fewer"))) as connection:
        connection.execute("DELETE FROM photos WHERE key = ?", (b"1",))
        connection.commit()
    for name, change in (("short", "points = x'00'"), ("none", "points = NULL")):
        with closing(sqlite3.connect(shutil.copy(tmp_path / "good", tmp_path / name))) as edited:
            edited.execute(f"UPDATE photos SET {change} WHERE key = ?", (b"1",))
            edited.commit()
    with closing(sqlite3.connect(shutil.copy(tmp_path / "good", tmp_path / "zone"))) as edited:
        edited.execute("UPDATE about SET json = json_set(json, '$.zone', 99)")
        edited.commit()
    for name in ("other", "cut", "fewer", "short", "none", "zone"):
        refused(
            lambda n=name: ExportedIndex(tmp_path / n, model, 64),
            f"{name}: is no index of vgeo locate, or is damaged",
            "make it again with --index",
        )


def test_names_are_never_paths_of_this_machine(tmp_path, make_street, model):
    """A file from elsewhere names a photo of ours: it is not opened, so it is on no map."""
    photos = make_street(tmp_path / "photos", range(2))
    os.rename(photos / "001.jpg", os.fsencode(photos) + b"/caf\xe9.jpg")
    export(Index(read_photos(photos), model, 64), tmp_path / "x.vgeo", "resnet18 64 px")
    names = ExportedIndex(tmp_path / "x.vgeo", model, 64).photos.names
    assert names == ["000.jpg", "caf\\udce9.jpg"]
    with closing(sqlite3.connect(tmp_path / "x.vgeo")) as connection:
        connection.execute("UPDATE places SET name = ?", (str(photos / "000.jpg"),))
        connection.commit()
    paths = ExportedIndex(tmp_path / "x.vgeo", model, 64).photos.paths
    assert len(paths) == 2 and not any(map(os.path.exists, paths))


@pytest.mark.parametrize("kind", ["names", "csv"])
def test_positions_of_any_kind(tmp_path, make_photos, model, kind):
    positions = [(-33.8 + i / 1000, 151.2) for i in range(3)]
    if kind == "names":
        positions = [(334_000.0 + 40 * i, 6_250_000.0) for i in range(3)]
    given = {"zone": 56, "letter": "H"} if kind == "names" else {}
    make_photos(tmp_path / "p", positions, kind=kind, headings=np.nan, months=0, **given)
    index = Index(read_photos(tmp_path / "p"), model, 64)
    export(index, tmp_path / "a", "ours")
    read = ExportedIndex(tmp_path / "a", model, 64)
    np.testing.assert_array_equal(read.xy, index.xy)
    assert read.photos.table["heading"].isna().all() and (read.photos.table["month"] == 0).all()
    assert (read.photos.zone, read.photos.south) == (56, True)
