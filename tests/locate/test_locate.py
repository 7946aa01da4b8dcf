"""Locating photos: positions from EXIF, an index that describes once, answers, their confidence, and what is written."""

import json
import math
import os
import re
import tomllib
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import ExifTags, Image
from pyproj import Geod, Transformer
from scipy.special import expit

from vgeo import locate
from vgeo.__main__ import main
from vgeo.locate.confidence import brier, calibration_error, cross_fitted, fit, reliability
from vgeo.photos.tables import read_photos
from vgeo.retrieval.describe import describe
from vgeo.errors import VgeoError
from vgeo.models.geowarp import GRID
from vgeo.models.network import build
from vgeo.models.weights import save_weights

LAT, LON = 37.77, -122.42
PLACES = 24


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(scope="module")
def model():
    return build("resnet18", "city").eval()


def degrees(value):
    """Degrees, minutes and seconds as cameras write them, to 1e-4 seconds: 3 mm."""
    whole, rest = divmod(round(abs(value) * 36_000_000), 36_000_000)
    minutes, seconds = divmod(rest, 600_000)
    return (float(whole), float(minutes), seconds / 10_000)


def photo(path, lat=None, lon=None, heading=None, taken=None, seed=0, gps=None, brightness=1.0):
    """A random photo with EXIF. gps: tags instead of those of lat and lon."""
    small = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    image, exif = (
        Image.fromarray(small)
        .resize((160, 120), Image.Resampling.BICUBIC)
        .point(lambda v: v * brightness),
        Image.Exif(),
    )
    if lat is not None:
        gps = {1: "NS"[lat < 0], 2: degrees(lat), 3: "EW"[lon < 0], 4: degrees(lon)} | (
            {16: "T", 17: heading} if heading is not None else {}
        )
    if gps:
        exif.get_ifd(ExifTags.IFD.GPSInfo).update(gps)
    if taken:
        exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] = taken
    path.parent.mkdir(exist_ok=True, parents=True)
    image.save(path, exif=exif.tobytes())
    return path


def street(folder, rows=range(PLACES), step=40.0):
    """Photos of different places in a line, `step` metres apart."""
    for i in rows:
        lon, lat, _ = Geod(ellps="WGS84").fwd(LON, LAT, 90, step * i)
        photo(folder / f"{i:03d}.jpg", lat, lon, taken=f"2019:{i % 12 + 1:02d}:03 10:00:00", seed=i)
    return folder


def refused(call, *words):
    with pytest.raises(VgeoError) as caught:
        call()
    assert "\n" not in str(caught.value)
    for word in words:
        assert str(word) in str(caught.value)


# EXIF


@pytest.mark.parametrize(
    "lat, lon",
    [
        (LAT, LON),
        (35.65994, 139.69546),
        (-33.8568, 151.2153),
        (-22.9519, -43.2105),
        (0.0001, -0.0002),
    ],
)
def test_positions_from_exif(tmp_path, lat, lon):
    photo(tmp_path / "a.jpg", lat, lon, heading=271.5, taken="2021:07:31 23:59:59")
    photo(tmp_path / "deep" / "b.PNG", lat, lon)
    table = read_photos(tmp_path)
    epsg = (32700 if table.attrs["south"] else 32600) + table.attrs["zone"]
    back = Transformer.from_crs(f"EPSG:{epsg}", "EPSG:4326").transform(
        table["utm_east"], table["utm_north"]
    )
    np.testing.assert_allclose(back, [[lat] * 2, [lon] * 2], rtol=0, atol=3e-8)
    assert table["heading"].iloc[0] == 271.5 and math.isnan(table["heading"].iloc[1])
    assert list(table["month"]) == [202107, 0] and table.attrs["south"] == (lat < 0)


def test_photos_without_a_position_are_counted(tmp_path):
    photo(tmp_path / "a.jpg", LAT, LON)
    for name, gps in {
        "b": None,
        "c": {1: "N", 2: (0.0, 0.0, 0.0), 3: "E", 4: (0.0, 0.0, 0.0)},
        "d": {2: (37.0, 0.0, 0.0), 4: (122.0, 0.0, 0.0)},
        "e": {1: "N", 3: "W"},
    }.items():
        photo(tmp_path / f"{name}.jpg", gps=gps)
    refused(lambda: read_photos(tmp_path), tmp_path / "b.jpg", "no GPS position", "4 of 5")
    (tmp_path / "0.jpg").write_bytes(b"not a photo")
    refused(lambda: read_photos(tmp_path), tmp_path / "0.jpg", "is not an image")


def test_what_cameras_write_for_unknown(tmp_path):
    photo(
        tmp_path / "a.jpg",
        gps={1: "N", 2: (37.0, 46.2, 0.0), 3: "W", 4: (122.0, 25.2, 0.0), 16: "M", 17: 90.0},
        taken="0000:00:00 00:00:00",
    )
    table = read_photos(tmp_path)
    assert math.isnan(table["heading"][0]) and table["month"][0] == 0
    back = Transformer.from_crs("EPSG:32610", "EPSG:4326").transform(
        table["utm_east"][0], table["utm_north"][0]
    )
    np.testing.assert_allclose(back, (37.77, -122.42), rtol=0, atol=1e-8)


# The index


@pytest.fixture
def described(monkeypatch):
    """The names of all photos that are described from here on."""
    names, batches = [], locate.load_batches

    def counted(paths, *rest):
        names.extend(os.path.basename(path) for path in paths)
        return batches(paths, *rest)

    monkeypatch.setattr(locate, "load_batches", counted)
    return names


def test_added_photos_alone_are_described(tmp_path, described):
    street(tmp_path, range(5))
    index = locate.open_index(tmp_path)
    assert len(described) == index.described == 5
    before = index.descriptors.copy()
    described.clear()
    street(tmp_path, range(5, 8))
    index = locate.open_index(tmp_path)
    assert sorted(described) == ["005.jpg", "006.jpg", "007.jpg"] and index.described == 3
    assert (index.descriptors[:5] == before).all()
    described.clear()
    photo(tmp_path / "002.jpg", LAT, LON, seed=99)  # another photo under an old name
    assert locate.open_index(tmp_path).described == 1 and described == ["002.jpg"]


def test_descriptors_are_the_models(tmp_path, model):
    table = read_photos(street(tmp_path, range(3)))
    index = locate.Index(table, model, 64, tmp_path / "cache")
    np.testing.assert_allclose(
        index.descriptors, describe(model, list(table["path"]), 64), atol=1e-5
    )
    assert (
        locate.Index(table, model, 96, tmp_path / "cache").described == 3
    )  # another size is another description


def test_a_killed_run_keeps_what_it_described(tmp_path, monkeypatch, model):
    table, batches = (
        read_photos(street(tmp_path / "photos", range(40), step=5)),
        locate.load_batches,
    )

    def killed(*arguments):
        yield next(iter(batches(*arguments)))
        raise KeyboardInterrupt

    monkeypatch.setattr(locate, "load_batches", killed)
    with pytest.raises(KeyboardInterrupt):
        locate.Index(table, model, 64, tmp_path / "cache")
    monkeypatch.setattr(locate, "load_batches", batches)
    assert locate.Index(table, model, 64, tmp_path / "cache").described == 40 - 32


def test_a_damaged_cache_is_said(tmp_path, model):
    table = read_photos(street(tmp_path / "photos", range(2)))
    store = locate.Index(table, model, 64, tmp_path / "cache").store
    store.file.close()
    store.path.write_bytes(b"no database" * 1000)
    refused(
        lambda: locate.Index(table, model, 64, tmp_path / "cache"), store.path, "remove the file"
    )


def test_similarity_by_brute_force(monkeypatch):
    rng = np.random.default_rng(0)
    query, match = (
        x / np.linalg.norm(x, axis=0)
        for x in rng.standard_normal((2, 5, GRID, GRID)).astype(np.float32)
    )
    for reach in (0, 2):
        monkeypatch.setattr(locate, "REACH", reach)
        best = [
            max(
                float(query[:, y, x] @ match[:, v, u])
                for v in range(max(0, y - reach), min(GRID, y + reach + 1))
                for u in range(max(0, x - reach), min(GRID, x + reach + 1))
            )
            for y in range(GRID)
            for x in range(GRID)
        ]
        assert locate.similarity(query, match[None])[0] == pytest.approx(np.mean(best), abs=1e-5)
    assert locate.similarity(query, query[None])[0] == pytest.approx(1, abs=1e-6)


def test_photos_are_found_where_they_were_taken(tmp_path):
    index = locate.open_index(street(tmp_path / "photos"))
    for i in (3, 17):
        photo(tmp_path / "queries" / f"{i}.jpg", seed=i, brightness=0.8)
    paths = sorted(str(path) for path in (tmp_path / "queries").iterdir())
    answers = index.locate(paths)
    assert [os.path.basename(index.photos["path"][row]) for row in answers.rows[:, 0]] == [
        "017.jpg",
        "003.jpg",
    ]
    lat, lon = index.degrees(answers.xy)
    for i, a, o in zip((17, 3), lat, lon):
        assert abs(Geod(ellps="WGS84").inv(LON, LAT, o, a)[2] - 40 * i) < 0.02
    assert (np.diff(answers.similarity, axis=1) <= 0).all() and answers.similarity.shape == (
        2,
        locate.SHORTLIST,
    )
    # 40 m apart, so every place is one photo: it leads by what the second has less, and of five matches one is there
    np.testing.assert_allclose(
        answers.features,
        np.stack(
            [
                answers.similarity[:, 0],
                answers.similarity[:, 0] - answers.similarity[:, 1],
                [0.2, 0.2],
            ],
            1,
        ),
    )


def test_held_out_photos_are_not_answered_by_their_own_moment(tmp_path, model):
    lon, lat, _ = Geod(ellps="WGS84").fwd(LON, LAT, 0, 1.0)
    street(tmp_path)
    photo(
        tmp_path / "twin.jpg", lat, lon, taken="2019:01:30 18:00:00", seed=0
    )  # of 000.jpg: a metre away, the same month
    photo(tmp_path / "later.jpg", lat, lon, taken="2020:01:30 18:00:00", seed=50)
    photo(
        tmp_path / "again.jpg", lat, lon, taken="2020:02:01 18:00:00", seed=50
    )  # the same place in another month
    index = locate.Index(read_photos(tmp_path), model, 64, tmp_path / "cache")
    held = index.held_out()
    names = [os.path.basename(path) for path in index.photos["path"]]
    best = {names[photo]: names[row] for photo, row in zip(held.photos, held.answers.rows[:, 0])}
    assert len(best) == len(names) and all(
        photo not in rows for photo, rows in zip(held.photos, held.answers.rows)
    )
    for one, other in (("000.jpg", "twin.jpg"), ("twin.jpg", "000.jpg")):
        assert names.index(other) not in held.answers.rows[names.index(one)]
    assert (
        best["later.jpg"] == "again.jpg"
        and best["again.jpg"] == "later.jpg"
        and held.right.sum() >= 2
    )
    assert list(held.right) == [
        np.hypot(*(index.xy[row] - index.xy[photo])) <= 25
        for photo, row in zip(held.photos, held.answers.rows[:, 0])
    ]
    assert held.nearest[names.index("later.jpg")] == pytest.approx(0, abs=0.01) and held.nearest[
        names.index("005.jpg")
    ] == pytest.approx(40, abs=0.1)


def test_too_few_photos_take_the_shipped_calibration(tmp_path, model):
    few = street(tmp_path, range(3))
    calibration, words = locate.open_index(few).calibrate()
    assert "San Francisco" in words and 0 < calibration([[0.9, 0.1, 1.0]])[0] < 1
    assert calibration([[0.9, 0.1, 1.0]]) > calibration([[0.8, 0.0, 0.2]])
    calibration, words = locate.Index(
        read_photos(few), model, 64
    ).calibrate()  # it is of another image size
    assert calibration is None and "no confidence" in words


def test_an_index_of_one_photo(tmp_path):
    index = locate.open_index(street(tmp_path, range(1)))
    assert index.held_out() is None
    answers = index.locate(list(index.photos["path"]))
    assert answers.rows.tolist() == [[0]] and np.isfinite(answers.features).all()


# Confidence


def known(n, seed=0):
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((n, 3)) * [1, 10, 0.1] + [0, 5, 1]
    probability = expit(0.3 + (features - [0, 5, 1]) @ [1.0, -0.2, 4.0])
    return features, probability, rng.random(n) < probability


def test_a_calibration_finds_known_probabilities():
    features, probability, right = known(20_000)
    others, truth, outcome = known(5_000, seed=1)
    found = fit(features, right)(others)
    assert np.abs(found - truth).max() < 0.06
    assert calibration_error(found, outcome) < 0.03 < calibration_error(found**2, outcome)
    assert (
        abs(brier(found, outcome) - np.mean(truth * (1 - truth)))
        < 0.01
        < outcome.mean() * (1 - outcome.mean()) - brier(found, outcome)
    )
    held = cross_fitted(features, right, np.arange(len(right)) // 4)
    assert (
        np.abs(held - probability).max() < 0.08 and (held != fit(features, right)(features)).all()
    )


def test_a_calibration_of_what_is_told_apart_stays_finite():
    features = np.repeat([[0.0, 1.0, 5.0], [1.0, 1.0, 5.0]], 30, axis=0)
    found = fit(features, np.arange(60) >= 30)(features)
    assert (found[:30] < 0.1).all() and (found[30:] > 0.9).all() and np.isfinite(found).all()


def test_scores_by_hand():
    right = np.array([True, False, True, True])
    assert brier([1, 0, 1, 1], right) == 0 and brier([0.5] * 4, right) == 0.25
    assert calibration_error([0.5] * 4, right) == 0.25 and calibration_error([0.75] * 4, right) == 0
    rows = reliability(np.array([0.9, 0.1, 0.8, 0.2]), np.array([True, False, False, True]), bins=2)
    assert [(row["answers"], row["right"]) for row in rows] == [(2, 0.5), (2, 0.5)] and [
        round(row["promised"], 6) for row in rows
    ] == [0.15, 0.85]
    assert all(0 <= row["low"] < row["right"] < row["high"] <= 1 for row in rows)


# What is written

HOSTILE = [
    '"><script>alert(1)</script>.jpg',
    "</script><img src=x onerror=alert(2)>.jpg".replace("/", "\u2215"),
    "{{ 7 * 7 }} & 'a' <b>.jpg",
    "a\nb\x1b[31m.jpg",
]


class Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))


@pytest.fixture
def located(tmp_path, monkeypatch, capsys):
    """The output folder of a command whose photos and queries have hostile names, and what it printed."""
    street(tmp_path / "photos", range(6))
    os.rename(tmp_path / "photos" / "002.jpg", tmp_path / "photos" / HOSTILE[0].replace("/", "_"))
    for i, name in enumerate(HOSTILE):
        photo(tmp_path / "queries" / name.replace("/", "_"), seed=i)
    monkeypatch.chdir(tmp_path)
    main(["locate", "photos", "queries"])
    return tmp_path / "located", capsys.readouterr().out


def test_the_command_writes_three_files(located):
    folder, printed = located
    table, points = (
        pd.read_csv(folder / "locations.csv"),
        json.loads((folder / "locations.geojson").read_text()),
    )
    assert list(table) == ["file", "lat", "lon", "confidence", "best_match"] and len(table) == len(
        HOSTILE
    )
    assert points["type"] == "FeatureCollection" and len(points["features"]) == len(table)
    for point, row in zip(points["features"], table.itertuples()):
        assert point["type"] == "Feature" and point["geometry"] == {
            "type": "Point",
            "coordinates": [row.lon, row.lat],
        }
        assert (
            -123 < point["geometry"]["coordinates"][0] < -122
            and 37 < point["geometry"]["coordinates"][1] < 38
        )
        assert point["properties"]["confidence"] == row.confidence and 0 <= row.confidence <= 1
    lines = [line for line in printed.splitlines() if not line.startswith("vgeo: ")]
    assert len(lines) == len(table) and all(
        re.search(r"37\.\d{6}  -122\.\d{6}  within 25 m: (< |> )?\d+ %  .*\.jpg$", line)
        for line in lines
    )
    assert "\x1b" not in printed


def test_the_map_needs_nothing_and_runs_no_name(located):
    text = (located[0] / "map.html").read_text()
    page = Page(text)
    assert [tag for tag, _ in page.tags].count("script") == 1 and not {
        "img",
        "iframe",
        "b",
        "object",
    } & {tag for tag, _ in page.tags}
    for tag, attributes in page.tags:
        for name, value in attributes.items():
            assert not name.startswith("on")
            if name in ("src", "href", "xlink:href", "action"):
                assert value.startswith(("data:", "#"))
    assert "://" not in text and "url(" not in text and "@import" not in text
    assert "&lt;script&gt;alert(1)" in text and "{{ 7 * 7 }}" in text
    pictures = [
        attributes
        for tag, attributes in page.tags
        if attributes.get("role") == "img" and tag == "svg"
    ]
    assert len(pictures) == len(HOSTILE) * 6 + 1 and all(
        attributes["aria-label"] for attributes in pictures
    )
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids)) and all(
        attributes["href"][1:] in ids for tag, attributes in page.tags if tag in ("a", "use")
    )


def test_errors_are_one_line_before_any_work(tmp_path, monkeypatch, described):
    street(tmp_path / "photos", range(2))
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad.jpg").write_bytes(b"\xff\xd8\xff no more")
    (tmp_path / "metres.csv").write_text("file,utm_east,utm_north\nphotos/000.jpg,500000,4000000\n")
    save_weights({"a": torch.zeros(1)}, tmp_path / "other.safetensors", {})
    photos, query = str(tmp_path / "photos"), str(tmp_path / "photos" / "001.jpg")
    for arguments, words in [
        ([photos, str(tmp_path / "none.jpg")], "no such image"),
        ([photos, str(tmp_path / "empty")], "holds no photos"),
        ([photos, query, str(tmp_path / "bad.jpg")], "bad.jpg"),
        ([str(tmp_path / "none"), query], "no such folder of photos"),
        ([str(tmp_path / "metres.csv"), query], "without a UTM zone"),
        ([photos, query, "--weights", str(tmp_path / "none.safetensors")], "no such weights file"),
        ([photos, query, "--weights", str(tmp_path / "none.pth")], "no such checkpoint"),
        ([photos, query, "--weights", str(tmp_path / "other.safetensors")], "holds no model"),
    ]:
        with pytest.raises(SystemExit) as caught:
            main(["locate", *arguments, "--out", str(tmp_path / "out")])
        assert (
            words in str(caught.value)
            and "\n" not in str(caught.value)
            and str(caught.value).startswith("vgeo: ")
        )
    assert not described and not (tmp_path / "out").exists()


def test_own_weights(tmp_path, model):
    recipe = {"image_size": 64}
    save_weights(model, tmp_path / "mine.safetensors", recipe)
    index = locate.open_index(street(tmp_path / "photos", range(2)), tmp_path / "mine.safetensors")
    assert index.size == 64 and index.described == 2
    torch.save(model.state_dict(), tmp_path / "theirs.pth")
    assert locate.open_index(tmp_path / "photos", tmp_path / "theirs.pth").size == 512


def test_the_package_holds_what_locate_needs():
    package = Path(locate.__file__).parent
    patterns = tomllib.loads((package.parent / "pyproject.toml").read_text())["tool"]["setuptools"][
        "package-data"
    ]["vgeo"]
    held = {path for pattern in patterns for path in package.glob(pattern)}
    assert {
        locate.CITY_WEIGHTS / "resnet18.safetensors",
        locate.SHIPPED,
        package / "templates" / "map.html",
    } <= held
