"""Photos from names, a CSV or EXIF: the same table from each, and one line for what is wrong."""

import csv
import math
import os

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pyproj import Transformer

from vgeo.errors import VgeoError
from vgeo.photos.tables import read_photos

METRES = ["utm_east", "utm_north"]


def degrees(photos):
    """(2, N) latitudes and longitudes of photos, by EPSG's definition of their zone."""
    epsg = (32700 if photos.south else 32600) + photos.zone
    return Transformer.from_crs(f"EPSG:{epsg}", "EPSG:4326").transform(*photos.xy.T)


# Names and lists


def test_csv_forms_equal_the_names(tmp_path, make_photos):
    xy = np.random.default_rng(0).uniform([551_000, 4_170_000], [553_000, 4_172_000], (30, 2))
    headings = 12.25 * np.arange(30)
    for half, folder in enumerate("ab"):
        make_photos(tmp_path / "names" / folder, xy[half::2], headings=headings[half::2])
    (tmp_path / "names" / "a" / "._x.jpg").touch()
    (tmp_path / "names" / "readme.txt").touch()
    photos = read_photos(tmp_path / "names")
    table = photos.table
    assert list(table.columns) == ["path", "utm_east", "utm_north", "heading", "month"]
    assert [str(kind) for kind in table.dtypes] == ["str", "float64", "float64", "float32", "int32"]
    assert len(photos) == 30 and (table["month"] == 201704).all()
    assert photos.paths == sorted(photos.paths)
    assert (photos.root, photos.zone, photos.south) == (str(tmp_path / "names"), 10, False)
    np.testing.assert_allclose(np.sort(photos.xy, 0), np.sort(xy, 0), rtol=0, atol=0.0051)

    rows = table.assign(file=["names/" + name for name in photos.names]).sample(frac=1)
    rows["lat"], rows["lon"] = degrees(photos.take(rows.index))
    listed = ["file", *METRES, "heading", "month"]
    rows[listed].to_csv(tmp_path / "list.csv", index=False)
    again = read_photos(tmp_path)
    pd.testing.assert_frame_equal(again.table, table, check_exact=False, rtol=1e-12)
    assert (again.root, again.zone) == (str(tmp_path), None)
    rows[["file", "lat", "lon"]].to_csv(tmp_path / "list.csv", index=False, encoding="utf-8-sig")
    from_degrees = read_photos(tmp_path / "list.csv")
    assert from_degrees.zone == 10 and from_degrees.paths == photos.paths
    assert from_degrees.table["heading"].isna().all() and (from_degrees.table["month"] == 0).all()
    np.testing.assert_allclose(from_degrees.xy, photos.xy, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    "lons, zone",
    [([5.9, 6.2], 32), ([5.7, 6.2], 31), ([179.9, -179.8], 1), ([-180.0], 1), ([180.0], 1)],
)
def test_one_zone_for_a_list_across_its_border(tmp_path, lons, zone):
    for i in range(len(lons)):
        (tmp_path / f"{i}.jpg").touch()
    lines = [f"{i}.jpg,-45,{lon}" for i, lon in enumerate(lons)]
    (tmp_path / "list.csv").write_text("\n".join(["file,lat,lon", *lines]))
    photos = read_photos(tmp_path)
    assert (photos.zone, photos.south) == (zone, True)
    project = Transformer.from_crs("EPSG:4326", f"EPSG:{32700 + zone}").transform
    expected = np.stack(project([-45] * len(lons), lons), 1)
    np.testing.assert_allclose(photos.xy, expected, atol=1e-3)


@pytest.mark.parametrize("kind", ["names", "csv", "exif"])
def test_headings_and_months_of_every_kind(tmp_path, make_photos, kind):
    positions = [552_000.0, 552_010.0] if kind == "names" else [(37.77, -122.42), (37.78, -122.42)]
    known = {"headings": [271.5, math.nan], "months": [202107, 0]}
    paths = make_photos(tmp_path, positions, kind=kind, **known)
    photos = read_photos(tmp_path)
    assert photos.paths == list(map(str, paths)) and photos.zone == 10
    assert photos.table["heading"].tolist() == pytest.approx([271.5, math.nan], nan_ok=True)
    assert photos.table["month"].tolist() == [202107, 0]


def test_photos_are_taken_by_rows_and_known_by_what_they_are(tmp_path, make_photos):
    easts = 552_000.0 + 10 * np.arange(5)
    for folder in ("one", "two"):
        make_photos(tmp_path / folder, easts)
    photos, other = read_photos(tmp_path / "one"), read_photos(tmp_path / "two")
    assert photos.names == other.names and photos.fingerprint == other.fingerprint
    some = photos.take([3, 1])
    assert some.names == [photos.names[3], photos.names[1]] and (some.xy == photos.xy[[3, 1]]).all()
    assert (some.root, some.zone, some.south) == (photos.root, photos.zone, photos.south)
    mask = np.array([False, True, False, True, False])
    assert photos.take(mask).names == photos.take([1, 3]).names and len(photos.take([])) == 0
    assert some.take([0]).fingerprint != photos.fingerprint
    with open(other.paths[0], "ab") as file:
        file.write(b"more")
    assert read_photos(tmp_path / "two").fingerprint != photos.fingerprint


@pytest.mark.parametrize(
    "content, words",
    [
        ("", ["must name the columns"]),
        ("file,lat\na.jpg,1", ["'file,lat'", "must name the columns"]),
        ("file;lat;lon\na.jpg;1;2", ["must name the columns"]),
        ("file,lat,lon", ["holds no photos"]),
        ("file,lat,lat,lon\na.jpg,1,1,2", ["lat is there twice"]),
        ("file,lat,lon\na.jpg,1", ["line 2", "2 values for 3 columns"]),
        ("file,lat,lon\nb.jpg,1,2", ["line 2 (b.jpg)", "no such file"]),
        ("file,lat,lon\na.jpg,nan,2", ["line 2 (a.jpg)", "lat is 'nan'"]),
        ("file,lat,lon\na.jpg,1,", ["line 2 (a.jpg)", "lon is ''"]),
        ("file,lat,lon\na.jpg,-122.4,37.7", ["line 2 (a.jpg)", "swap"]),
        ("file,lat,lon\na.jpg,1,2\n\na.jpg,1,2", ["line 4 (a.jpg)", "line 2"]),
        ("file,lat,lon\na.jpg,37,-122\nc.jpg,37,122", ["a.jpg", "from the mean"]),
        ("file,utm_east,utm_north\na.jpg,4173551,552400", ["line 2 (a.jpg)", "out of range"]),
        ("file,lat,lon,heading\na.jpg,1,2,400", ["line 2 (a.jpg)", "heading 400"]),
        ("file,lat,lon,heading\na.jpg,1,2,nan", ["line 2 (a.jpg)", "heading is 'nan'"]),
        ("file,lat,lon,month\na.jpg,1,2,2017", ["line 2 (a.jpg)", "month 2017"]),
        (b"\xff\xfe\x00f", ["UTF-8"]),
    ],
)
def test_bad_lists(tmp_path, refused, content, words):
    for name in ("a.jpg", "c.jpg"):
        (tmp_path / name).touch()
    (tmp_path / "list.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
    refused(lambda: read_photos(tmp_path, "photos"), tmp_path, *words)


def test_bad_folders(tmp_path, make_photos, refused):
    none, text, image = (tmp_path / name for name in ("none", "x.txt", "x.PNG"))
    refused(lambda: read_photos(none, "queries"), none, "no such folder of queries")
    refused(lambda: read_photos(tmp_path, "queries"), tmp_path, "holds no queries")
    text.touch()
    refused(lambda: read_photos(text), text, "is a file")
    image.touch()
    refused(lambda: read_photos(tmp_path), image, "is empty")
    image.unlink()
    ((here,), (tokyo,)) = (make_photos(tmp_path, [552_400.0], zone=zone) for zone in (10, 54))
    refused(lambda: read_photos(tmp_path), here, tokyo, "zone 54 north")
    (tmp_path / "a.csv").touch()
    (tmp_path / "b.csv").touch()
    refused(lambda: read_photos(tmp_path), "2 CSV files (a.csv, b.csv)")


# EXIF


@pytest.mark.parametrize(
    "lat, lon",
    [
        (37.77, -122.42),
        (35.65994, 139.69546),
        (-33.8568, 151.2153),
        (-22.9519, -43.2105),
        (0.0001, -0.0002),
    ],
)
def test_positions_from_exif(tmp_path, make_photos, lat, lon):
    make_photos(tmp_path, [(lat, lon)], kind="exif")
    make_photos(tmp_path / "deep", [(lat, lon)], kind="exif", suffix=".PNG")
    photos = read_photos(tmp_path)
    np.testing.assert_allclose(degrees(photos), [[lat] * 2, [lon] * 2], rtol=0, atol=3e-8)
    assert photos.south == (lat < 0)


def test_photos_without_a_position_are_counted(tmp_path, make_photos, refused):
    (good,) = make_photos(tmp_path, [(37.77, -122.42)], kind="exif")
    zero = (0.0, 0.0, 0.0)
    tags = [
        {1: None, 2: None, 3: None, 4: None},
        {1: "N", 2: zero, 3: "E", 4: zero},
        {1: None, 3: None},
        {2: None, 4: None},
    ]
    lost = [
        make_photos(tmp_path, [(37.77, -122.42)], kind="exif", stem=f"q{i}", gps=gps)[0]
        for i, gps in enumerate(tags)
    ]
    refused(lambda: read_photos(tmp_path), lost[0], "no GPS position", "4 of 5")
    (tmp_path / "0.jpg").write_bytes(b"not a photo")
    refused(lambda: read_photos(tmp_path), tmp_path / "0.jpg", "is not an image")


def test_what_cameras_write_for_unknown(tmp_path, make_photos):
    # A heading to magnetic north, minutes with a fraction, no date.
    written = {2: (37.0, 46.2, 0.0), 4: (122.0, 25.2, 0.0), 16: "M", 17: 90.0}
    (path,) = make_photos(tmp_path, [(37.0, -122.0)], kind="exif", gps=written)
    with Image.open(path) as image:
        exif = image.getexif()
        exif.get_ifd(0x8769)[36867] = "0000:00:00 00:00:00"
        image.save(path, exif=exif)
    photos = read_photos(tmp_path)
    assert math.isnan(photos.table["heading"][0]) and photos.table["month"][0] == 0
    np.testing.assert_allclose(degrees(photos), [[37.77], [-122.42]], rtol=0, atol=1e-8)


# Anything at all


@settings(deadline=None, max_examples=200)
@given(
    st.sampled_from(["file,lat,lon", "file,utm_east,utm_north", "lon,file,lat,heading,month"]),
    st.data(),
    st.booleans(),
    st.booleans(),
)
def test_any_list_is_understood_or_refused(
    tmp_path_factory, near_numbers, header, data, quoted, formed
):
    lines = data.draw(st.lists(st.lists(near_numbers, min_size=2, max_size=5), max_size=4))
    folder = tmp_path_factory.getbasetemp() / "fuzz"
    folder.mkdir(exist_ok=True)
    (folder / "a.jpg").touch()
    width, place = header.count(",") + 1, header.split(",").index("file")
    if formed:
        lines = [[*line, *["1"] * 5][:width] for line in lines[:1]]
        for line in lines:
            line[place] = "a.jpg"
    how = {"newline": "", "encoding": "utf-8", "errors": "surrogatepass"}
    with open(folder / "list.csv", "w", **how) as file:
        file.write(header + "\n")
        csv.writer(file, quoting=csv.QUOTE_ALL if quoted else csv.QUOTE_MINIMAL).writerows(lines)
    try:
        photos = read_photos(os.path.join(folder, "list.csv"))
    except VgeoError as error:
        assert "list.csv" in str(error) and str(error).isprintable()
        return
    assert np.isfinite(photos.xy).all() and len(photos) == 1
    headings = photos.table["heading"].to_numpy(float)
    assert (np.isnan(headings) | (headings >= 0) & (headings < 360)).all()


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_of_a_list_are_refused(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "bytes.csv"
    path.write_bytes(content)
    with pytest.raises(VgeoError, match="bytes.csv"):
        read_photos(path)
