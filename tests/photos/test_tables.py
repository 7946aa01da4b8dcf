"""Photos from names, a CSV or EXIF: the same table from each, and one line for what is wrong."""

import csv
import math
import os
import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pyproj import Geod, Transformer

from vgeo.errors import VgeoError
from vgeo.photos.places import pair_up
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
    kinds = ["object", "float64", "float64", "float32", "int32"]
    assert [str(kind) for kind in table.dtypes] == kinds
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
        ("file;lat,lon\na.jpg;1;2", ["must name the columns"]),
        ("file,lat,lon,heading\na.jpg,37,7186,-122,5", ["line 2", "5 values for 4 columns"]),
        ("file,lat,lon,,\na.jpg,37,7186,-122,5", ["line 2", "5 values for 5 columns"]),
        ("file;utm_east;utm_north\na.jpg;553,000;4173551", ["line 2 (a.jpg)", "thousands"]),
        (
            "file,lat,lon,utm_east,utm_north\na.jpg,-37.7077,-122.4055,552400,4173552",
            ["line 2 (a.jpg)", "is not at lat -37.7077"],
        ),
        ("file,lat,lon,confidence,best_match\na.jpg,1,2,0.5,c.jpg", ["holds answers"]),
        ("file,lat,lon", ["holds no photos"]),
        ("file,lat,lat,lon\na.jpg,1,1,2", ["lat is there twice"]),
        ("file,lat,lon\na.jpg,1", ["line 2", "2 values for 3 columns"]),
        ("file,lat,lon\nb.jpg,1,2", ["line 2 (b.jpg)", "no such file"]),
        ("file,lat,lon\na.jpg,nan,2", ["line 2 (a.jpg)", "lat is 'nan'"]),
        ("file,lat,lon\na.jpg,1,", ["line 2 (a.jpg)", "lon is ''"]),
        ("file,lat,lon\na.jpg,-122.4,37.7", ["line 2 (a.jpg)", "swap"]),
        ("file,lat,lon\na.jpg,1,2\n\na.jpg,1,2", ["line 4 (a.jpg)", "line 2"]),
        ("file,lat,lon\na.jpg,37,-122\nc.jpg,37,122", ["c.jpg", "from most photos"]),
        ("file,utm_east,utm_north\na.jpg,4173551,552400", ["line 2 (a.jpg)", "out of range"]),
        (b"\xff\xfe\x00f", ["UTF-8"]),
    ],
)
def test_bad_lists(tmp_path, refused, content, words):
    for name in ("a.jpg", "c.jpg"):
        (tmp_path / name).touch()
    (tmp_path / "list.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
    refused(lambda: read_photos(tmp_path, "photos"), tmp_path, *words)


SHEET = [(37.7186 + 4e-5 * i, -122.5) for i in range(4)]


@pytest.mark.parametrize(
    "header, line",
    [
        ("file,lat,lon,,", "a{i}.jpg,{lat},{lon},,"),
        ("file;lat;lon", "a{i}.jpg;{lat_comma};{lon_comma}"),
        ("sep=;\nFile;Latitude;Lng", "a{i}.jpg;{lat};{lon}"),
        ("Filename\tGPS Latitude\tGPS Longitude\tCaption", "a{i}.jpg\t{lat}\t{lon}\ta, b"),
        ("Image,Latitude,Longitude,note", 'a{i}.jpg,"{lat_comma}","{lon_comma}","a;b"'),
        ("file,lat,lon", "deep\\a{i}.jpg,{lat},{lon}"),
        ("file,lat,lon,month", "a{i}.jpg,{lat},{lon},2017-04"),
        ("file,lat,lon,date", "a{i}.jpg,{lat},{lon},13/04/2017"),
        ("file;lat;lon;date", "a{i}.jpg;{lat};{lon};05.04.2017 10:00"),
        ("file,lat,lon,month", "a{i}.jpg,{lat},{lon},201704.0"),
        ("file,lat,lon,month", "a{i}.jpg,{lat},{lon},2017:04:13 10:00:00"),
    ],
)
def test_lists_as_spreadsheets_write_them(tmp_path, header, line):
    (tmp_path / "deep").mkdir()
    lines = [header]
    for i, (lat, lon) in enumerate(SHEET):
        (tmp_path / ("deep" if "deep" in line else "") / f"a{i}.jpg").touch()
        comma = {"lat_comma": str(lat).replace(".", ","), "lon_comma": "-122,5"}
        lines.append(line.format(i=i, lat=lat, lon=lon, **comma))
    (tmp_path / "list.csv").write_text("\n".join(lines) + "\n")
    photos = read_photos(tmp_path)
    np.testing.assert_allclose(np.transpose(degrees(photos)), SHEET, rtol=0, atol=1e-7)
    assert set(photos.table["month"]) == ({201704} if "2017" in line else {0})


@pytest.mark.parametrize(
    "column, written, said",
    [
        ("date", "04/05/2017", True),
        ("date", '"May 13, 2017"', True),
        ("date", "in spring", True),
        ("month", "2017", True),
        ("month", "201713", True),
        ("heading", "361", True),
        ("heading", "north", True),
        ("heading", "nan", True),
        ("heading", "", False),
        ("month", "0", False),
        ("date", "0000:00:00 00:00:00", False),
    ],
)
def test_what_nobody_needs_refuses_no_photo_of_a_list(tmp_path, capsys, column, written, said):
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).touch()
    good = "90" if column == "heading" else "201704"
    lines = f"a.jpg,37.7,-122.4,{good}\nb.jpg,37.7,-122.4,{written}\n"
    (tmp_path / "list.csv").write_text(f"file,lat,lon,{column}\n{lines}")
    photos = read_photos(tmp_path)
    expected = [90, math.nan] if column == "heading" else [201704, 0]
    read = photos.table["heading" if column == "heading" else "month"]
    assert read.tolist() == pytest.approx(expected, nan_ok=True)
    words = "1 headings or months are not clear and count as unknown, the first: line 3 (b.jpg), "
    assert (words in capsys.readouterr().out) == said


def test_eastings_beside_degrees_may_be_of_a_national_grid(tmp_path):
    """Trafalgar Square on the British grid; alone, eastings are metres of an unknown zone."""
    (tmp_path / "a.jpg").touch()
    path = tmp_path / "list.csv"
    path.write_text("file,Latitude,Longitude,Easting,Northing\na.jpg,51.508,-0.128,530000,180400\n")
    np.testing.assert_allclose(degrees(read_photos(path)), [[51.508], [-0.128]], atol=1e-7)
    path.write_text("file,Easting,Northing\na.jpg,530000,180400\n")
    assert read_photos(path).xy.tolist() == [[530_000, 180_400]] and read_photos(path).zone is None


def test_lines_that_are_cut_or_repeated_are_skipped(tmp_path, refused):
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).touch()
    path = tmp_path / "list.csv"
    path.write_text("file,lat,lon\na.jpg,37.7,-122.4\nb.jpg,37\n./a.jpg,37.7,-122.4\n")
    photos = read_photos(path, strict=False)
    assert photos.names == ["a.jpg"] and photos.skipped == {
        f"{path} line 3": "2 values for 3 columns: correct the line",
        f"{path} line 4 (./a.jpg)": "the file is also on line 2: remove one",
    }
    refused(lambda: read_photos(path), "line 3: 2 values", "2 of 3 photos can't be used")


@pytest.mark.parametrize("strict", [True, False])
def test_photos_within_6_degrees_of_their_mean_are_kept(tmp_path, make_photos, strict):
    """Across two zones of which the fuller one's own mean is farther than that from some."""
    make_photos(tmp_path, [(51.5, lon) for lon in np.linspace(-5, 5, 21).tolist()], kind="exif")
    photos = read_photos(tmp_path, strict=strict)
    assert len(photos) == 21 and photos.zone == 31 and not photos.skipped
    np.testing.assert_allclose(degrees(photos)[1], np.linspace(-5, 5, 21), rtol=0, atol=1e-7)


def test_degrees_say_the_zone_of_metres_beside_them(tmp_path):
    """Also across a zone's border, where a list may go on in the metres of the first zone."""
    lines, places = ["file,lat,lon,utm_east,utm_north"], [(51.4779, -0.0001), (51.4779, 0.0001)]
    for i, (lat, lon) in enumerate(places):
        (tmp_path / f"{i}.jpg").touch()
        east, north = Transformer.from_crs("EPSG:4326", "EPSG:32630").transform(lat, lon)
        lines.append(f"{i}.jpg,{lat},{lon},{east},{north}")
    (tmp_path / "list.csv").write_text("\n".join(lines))
    photos = read_photos(tmp_path)
    np.testing.assert_allclose(np.transpose(degrees(photos)), places, rtol=0, atol=1e-7)


def test_two_zones_whose_names_hold_degrees_become_one(tmp_path):
    names = [
        "@0708310.69@5707239.64@30@U@051.47790@-000.00010@p0@@@@@@@@.jpg",
        "@0291689.31@5707239.64@31@U@051.47790@0000.00010@p1@@@@@@@@.jpg",
    ]
    for folder, name in zip("ab", names):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / name).touch()
    photos = read_photos(tmp_path)
    expected = [[51.4779, 51.4779], [-0.0001, 0.0001]]
    np.testing.assert_allclose(degrees(photos), expected, rtol=0, atol=1e-6)
    apart = Geod(ellps="WGS84").inv(-0.0001, 51.4779, 0.0001, 51.4779)[2]
    assert np.hypot(*(photos.xy[0] - photos.xy[1])) == pytest.approx(apart, rel=1e-3)
    # A data set whose queries lie in the next zone.
    west, east = read_photos(tmp_path / "a"), read_photos(tmp_path / "b")
    pair = pair_up("london", east, west)
    assert (west.zone, east.zone) == (30, 31) and pair.positives[0].tolist() == [0]
    moved = np.hypot(*(pair.queries.xy[0] - west.xy[0]))
    assert moved == pytest.approx(apart, rel=2e-3)


def test_one_name_that_can_not_be_compared_is_left_out_alone(tmp_path, make_photos, refused):
    paths = make_photos(tmp_path, 552_000.0 + 10 * np.arange(3))
    whole = read_photos(tmp_path)
    for odd, words in (
        (
            "@0552000.00@4173551.00@.jpg",
            "is in an unknown UTM zone, most photos are in UTM zone 10",
        ),
        ("@0552000.00@4173551.00@10@@@@@@@@@@@@.jpg", "is in an unknown UTM zone"),
        ("@0552000.00@4173551.00@11@S@@@@@@@@@@@.jpg", "is in UTM zone 11 north, most photos"),
    ):
        (tmp_path / odd).touch()
        photos = read_photos(tmp_path, strict=False)
        pd.testing.assert_frame_equal(photos.table, whole.table)
        assert (photos.zone, list(photos.skipped)) == (10, [str(tmp_path / odd)])
        assert words in photos.skipped[str(tmp_path / odd)]
        refused(lambda: read_photos(tmp_path), tmp_path / odd, "1 of 4 photos can't be used")
        (tmp_path / odd).unlink()
    # Most names hold metres alone: those with a zone are the ones left out.
    for path in paths[1:]:
        path.rename(tmp_path / ("@".join(path.name.split("@")[:3]) + "@.jpg"))
    photos = read_photos(tmp_path, strict=False)
    assert (photos.zone, len(photos), list(photos.skipped)) == (None, 2, [str(paths[0])])


def test_a_zone_without_a_hemisphere_is_unknown(tmp_path):
    """Sydney's metres in zone 56, which north of the equator would be those of Siberia."""
    (tmp_path / "@0333455.00@6253009.00@56@@@@p@@@@@@@@.jpg").touch()
    photos = read_photos(tmp_path)
    assert photos.zone is None and photos.xy.tolist() == [[333_455, 6_253_009]]


def test_photos_without_positions_beside_a_table_say_so_too(tmp_path, make_photos, refused):
    (path,) = make_photos(tmp_path, [(1, 2)], kind="exif", gps=dict.fromkeys((1, 2, 3, 4)))
    (tmp_path / "track.csv").write_text("time,lat,lon\n1,2,3\n")
    words = "track.csv: the first line is 'time,lat,lon'", f"{path}: its EXIF has no GPS position"
    refused(lambda: read_photos(tmp_path, strict=False), *words)


def test_answers_and_tables_of_other_programs_are_no_lists(tmp_path, make_photos, refused):
    make_photos(tmp_path, [(37.77, -122.42), (37.7701, -122.42)], kind="exif")
    whole = read_photos(tmp_path)
    (tmp_path / "locations.csv").write_text(
        "file,lat,lon,confidence,best_match\n000.jpg,1,2,0.5,001.jpg\n"
    )
    (tmp_path / "skipped.csv").write_text("file,reason\n000.jpg,none\n")
    (tmp_path / "track.csv").write_text("time,lat,lon\n1,2,3\n")
    again = read_photos(tmp_path)
    pd.testing.assert_frame_equal(again.table, whole.table)
    refused(lambda: read_photos(tmp_path / "locations.csv"), "holds answers of vgeo locate")
    (tmp_path / "mine.csv").write_text("file,lat,lon\np000.jpg,37.8,-122.4\n")
    assert len(read_photos(tmp_path)) == 1


@pytest.mark.parametrize(
    "content",
    ["Stra\xdfe;lat;lon\n1;2;3\n".encode("cp1252"), b"Date,Text,Amount,Date\n1,2,3,4\n", None],
)
def test_any_table_of_another_program_leaves_the_photos_alone(tmp_path, make_photos, content):
    make_photos(tmp_path, [(37.77, -122.42)] * 2, kind="exif")
    table = tmp_path / "Ausgaben.csv"
    table.write_bytes(content) if content else table.mkdir()
    assert len(read_photos(tmp_path)) == 2


def test_exiftool_writes_paths_and_bare_names(tmp_path):
    """The path counts. Where it is of another folder, the name does."""
    for name in ("deep/a.jpg", "a.jpg", "b.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "list.csv").write_text(
        "SourceFile,FileName,GPSLatitude,GPSLongitude\n"
        "./deep/a.jpg,a.jpg,37.77,-122.42\nalbum/b.jpg,b.jpg,37.77,-122.42\n"
    )
    found = {os.path.relpath(path, tmp_path) for path in read_photos(tmp_path).paths}
    assert found == {"b.jpg", "deep/a.jpg"}


@pytest.mark.parametrize(
    "line, expected",
    [
        ("a.jpg,S,33.85,W,70.5", (-33.85, -70.5)),
        ("a.jpg,South,-33.85,West,-70.5", (-33.85, -70.5)),
        ("a.jpg,N,33.85,E,151.2", (33.85, 151.2)),
        ("a.jpg,,-33.85,,151.2", (-33.85, 151.2)),
        ("a.jpg,N,-33.85,E,151.2", "-33.85 is not 'N'"),
        ("a.jpg,N,33.85,S,151.2", "151.2 is not 'S'"),
    ],
)
def test_exiftool_may_write_signs_apart(tmp_path, line, expected):
    (tmp_path / "a.jpg").touch()
    columns = "SourceFile,GPSLatitudeRef,GPSLatitude,GPSLongitudeRef,GPSLongitude"
    (tmp_path / "list.csv").write_text(f"{columns}\n{line}\n")
    if isinstance(expected, str):
        with pytest.raises(VgeoError, match=re.escape(expected)):
            read_photos(tmp_path)
    else:
        found = np.transpose(degrees(read_photos(tmp_path)))
        np.testing.assert_allclose(found, [expected], atol=1e-7)


def test_metres_of_two_zones_in_a_list_do_not_compare(tmp_path, refused):
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).touch()
    lines = ["a.jpg,708310.69,5707239.64,30,51.4779,-0.0001"]
    lines += ["b.jpg,291689.31,5707239.64,31,51.4779,0.0001"]
    path = tmp_path / "list.csv"
    path.write_text("\n".join(["file,utm_east,utm_north,zone,lat,lon", *lines]))
    np.testing.assert_allclose(degrees(read_photos(path))[1], [-1e-4, 1e-4], atol=1e-6)
    without = [line.rsplit(",", 2)[0] for line in lines]
    path.write_text("\n".join(["file,utm_east,utm_north,zone", *without]))
    refused(
        lambda: read_photos(path, strict=False), "line 3 (b.jpg): is in UTM zone 31, lines before"
    )
    bands = ["a.jpg,552000,4173000,10S", "b.jpg,552010,4173000,10T"]
    path.write_text("\n".join(["file,utm_east,utm_north,zone", *bands]))
    assert len(read_photos(path)) == 2
    path.write_text("\n".join(["file,utm_east,utm_north,zone", without[0]]))
    assert len(read_photos(path)) == 1


def test_a_few_odd_names_do_not_make_an_album_one_of_names(tmp_path, make_photos):
    paths = make_photos(tmp_path, [(37.77, -122.42)] * 3, kind="exif")
    paths[0].rename(tmp_path / "@anna@ben@.jpg")
    assert len(read_photos(tmp_path)) == 3
    (there,) = make_photos(tmp_path, [552_000.0], stem="odd")
    photos = read_photos(tmp_path, strict=False)
    assert len(photos) == 3 and list(photos.skipped) == [str(there)]


def test_one_odd_photo_among_good_ones_is_skipped(tmp_path, make_photos, refused):
    make_photos(tmp_path / "exif", [(37.77, -122.42)] * 3, kind="exif")
    (far,) = make_photos(tmp_path / "exif", [(37.77, 122.42)], kind="exif", stem="far")
    make_photos(tmp_path / "names", 552_000.0 + 10 * np.arange(3))
    party = tmp_path / "names" / "party.jpg"
    party.touch()
    make_photos(tmp_path / "csv", [(37.77, -122.42)] * 3, kind="csv")
    with open(tmp_path / "csv" / "list.csv", "a") as file:
        file.write("\ngone.jpg,37.77,-122.42,,\n")
    for folder, odd, words in (
        ("exif", str(far), "degrees from most photos"),
        ("names", str(party), "the name is not"),
        ("csv", f"{tmp_path / 'csv' / 'list.csv'} line 5 (gone.jpg)", "no such file"),
    ):
        some = read_photos(tmp_path / folder, strict=False)
        assert len(some) == 3 and list(some.skipped) == [odd] and words in some.skipped[odd]
        refused(lambda f=folder: read_photos(tmp_path / f))
    refused(lambda: read_photos(tmp_path / "names"), party, "1 of 4 photos can't be used")


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
    refused(lambda: read_photos(tmp_path), tokyo, "degrees from most photos")
    for path in (here, tokyo):  # without degrees, nothing says that the zones are meant
        path.rename(tmp_path / re.sub(r"@S@[^@]*@[^@]*@", "@S@@@", path.name))
    refused(lambda: read_photos(tmp_path), "zone 54 north", "keep to one zone")
    for name in ("a.csv", "b.csv"):
        (tmp_path / name).write_text("file,lat,lon\n")
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
    some = read_photos(tmp_path, strict=False)
    assert some.paths == [str(good)] and sorted(some.skipped) == list(map(str, lost))
    assert all("no GPS position" in reason for reason in some.skipped.values())
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


def test_photos_within_a_radius(tmp_path, make_photos, refused):
    """Distances on the ellipsoid, by another library's function than UTM's."""
    geod = Geod(ellps="WGS84")
    places = [geod.fwd(151.2, -33.8, 70 * i, 40.0 * i)[1::-1] for i in range(6)]
    make_photos(tmp_path / "a", places, kind="exif")
    photos = read_photos(tmp_path / "a")
    for radius in (1.0, 41.0, 130.0, 1000.0):
        there = [40 * i < radius for i in range(6)]
        assert photos.within(-33.8, 151.2, radius).paths == photos.take(there).paths
    refused(
        lambda: photos.within(-33.8, 151.3, 50), "near -33.8,151.3", "none of 6", "92", "m away"
    )
    refused(lambda: photos.within(151.2, -33.8, 50), "near 151.2,-33.8", "swap")
    make_photos(tmp_path / "b", [552_000.0])[0].rename(tmp_path / "b" / "@552000@4173551@.jpg")
    refused(lambda: read_photos(tmp_path / "b").within(37.7, -122.4, 50), "without a UTM zone")
