"""The files that `vgeo locate` writes are valid, complete, and harmless with any photo's name."""

import json
import os
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from pyproj import Transformer

from vgeo.locate.confidence import Calibration
from vgeo.locate.index import Index
from vgeo.locate.output import CERTAIN, THUMBNAIL, locations, thumbnail, write_locations, write_map
from vgeo.photos.tables import read_photos

HOSTILE = [
    '"><script>alert(1)<_script>.jpg',
    "<\u2215script><img src=x onerror=alert(2)>.jpg",
    "{{ 7 * 7 }} & 'a' <b>.jpg",
    "a\nb\x1b[31m.jpg",
]
EXPLANATION = "Fitted to <i>nothing</i>."


class Page(HTMLParser):
    """The tags of a page, [(tag, {attribute: value})]."""

    def __init__(self, text):
        super().__init__()
        self.tags = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def all(self, name):
        return [attributes for tag, attributes in self.tags if tag == name]


@pytest.fixture(scope="module")
def located(tmp_path_factory, make_street, model):
    """(folder of the files, index, answers, table) of photos and queries with hostile names."""
    top = tmp_path_factory.mktemp("located")
    photos, queries = make_street(top / "photos", range(6)), make_street(top / "queries", range(4))
    os.rename(photos / "002.jpg", photos / HOSTILE[0])
    paths = [str(queries / name) for name in HOSTILE]
    for old, new in zip(sorted(queries.iterdir()), paths, strict=True):
        os.rename(old, new)
    index = Index(read_photos(photos), model, 64, top / "cache")
    answers = index.locate(paths)
    others = (0.0,) * (answers.features.shape[1] - 1)  # the first feature alone counts
    steep = Calibration((0.5, *others), (1.0, *(1.0 for _ in others)), (40.0, *others), -18.0)
    table = locations(index, paths, answers, steep)
    table.loc[:2, "confidence"] = 0.9904, 0.0096, np.nan  # rounded first, these were 99 % and 1 %
    write_locations(top / "out", table)
    write_map(top / "out" / "map.html", index, table, answers, EXPLANATION)
    return top / "out", index, answers, table


def test_locations_are_the_answers(located):
    _, index, answers, table = located
    back = Transformer.from_crs("EPSG:4326", "EPSG:32610").transform(table["lat"], table["lon"])
    np.testing.assert_allclose(np.transpose(back), answers.xy, rtol=0, atol=0.1)
    names = [index.photos.names[row] for row in answers.predictions[:, 0]]
    assert list(table["best_match"]) == names and HOSTILE[0] in names
    assert CERTAIN <= table["confidence"][3] <= 1 - CERTAIN
    zeros = (0.0,) * answers.features.shape[1]
    for bias, confidence in ((-100.0, CERTAIN), (100.0, 1 - CERTAIN)):  # no answer is certain
        sure = Calibration(zeros, (1.0,) * len(zeros), zeros, bias)
        found = locations(index, list(table["file"]), answers, sure)["confidence"]
        assert found.tolist() == [confidence] * len(table)
    unknown = locations(index, list(table["file"]), answers, None)
    assert unknown["confidence"].isna().all() and (unknown["lat"] == table["lat"]).all()


def test_the_table_and_the_points_agree(located):
    folder, _, _, table = located
    written = pd.read_csv(folder / "locations.csv")
    points = json.loads((folder / "locations.geojson").read_text(), parse_constant=pytest.fail)
    assert list(written) == ["file", "lat", "lon", "confidence", "best_match"]
    assert points["type"] == "FeatureCollection" and len(points["features"]) == len(written) == 4
    rows = zip(points["features"], written.to_dict("records"), table["file"], strict=True)
    for point, row, file in rows:
        place = {"type": "Point", "coordinates": [row.pop("lon"), row.pop("lat")]}
        assert point["type"] == "Feature" and point["geometry"] == place
        assert -123 < place["coordinates"][0] < -122 and 37 < place["coordinates"][1] < 38
        assert row["file"].isprintable() and len(row["file"]) >= len(file)
        row["confidence"] = None if np.isnan(row["confidence"]) else row["confidence"]
        assert point["properties"] == row
    assert [point["properties"]["confidence"] for point in points["features"]][:3] == [
        *(0.9904, 0.0096, None)
    ]


def test_the_map_needs_no_network_and_runs_no_name(located):
    text = (located[0] / "map.html").read_text()
    page = Page(text)
    assert len(page.all("script")) == 1
    assert not {"img", "iframe", "b", "object"} & {tag for tag, _ in page.tags}
    for _, attributes in page.tags:
        for name, value in attributes.items():
            assert not name.startswith("on")
            if name in ("src", "href", "xlink:href", "action"):
                assert value.startswith(("data:", "#"))
    assert "://" not in text and "url(" not in text and "@import" not in text
    assert "&lt;script&gt;alert(1)" in text and "{{ 7 * 7 }}" in text
    assert "Fitted to &lt;i&gt;nothing&lt;/i&gt;." in text and "\x1b" not in text


def test_the_map_shows_every_answer_with_its_matches(located):
    folder, index, answers, table = located
    text = (folder / "map.html").read_text()
    page = Page(text)
    pictures = [tag for tag in page.all("svg") if tag.get("role") == "img"]
    assert len(pictures) == 4 * (1 + 5) + 1 and all(each["aria-label"] for each in pictures)
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids)) and len(page.all("image")) == 4 + 6
    assert all(tag["href"][1:] in ids for name in ("a", "use") for tag in page.all(name))
    assert all(f"{row.lat:.6f}, {row.lon:.6f}" in text for row in table.itertuples())
    assert [tag["class"] for tag in page.all("strong") if "class" in tag] == [
        "sure" if chance >= 0.5 else "unsure" for chance in table["confidence"]
    ]
    assert [text.count(words) for words in (">&gt; 99 %<", ">&lt; 1 %<", ">unknown<")] == [1] * 3
    assert "within 25 m: &gt; 99 %" in text and "confidence unknown" in text
    # Distances on the map are the metres between the positions, north up.
    for place, match_rows, xy in zip(page.all("article"), answers.predictions, answers.xy):
        at = np.array([float(place["data-x"]), float(place["data-y"])])
        ends = np.array(place["data-matches"].split(), float).reshape(-1, 2)
        np.testing.assert_allclose((ends - at) * [1, -1], index.xy[match_rows[:5]] - xy, atol=0.11)
        size = np.array(page.all("svg")[1]["viewbox"].split()[2:], float)
        assert (ends >= 0).all() and (ends <= size).all() and size[0] / 2 <= size[1] + 0.01


def test_a_map_of_some_of_the_answers(located, tmp_path):
    _, index, answers, table = located
    write_map(tmp_path / "map.html", index, table.head(1), answers, EXPLANATION)
    text = (tmp_path / "map.html").read_text()
    assert len(Page(text).all("article")) == 1 and "1 located photo among" in text


def test_a_photo_that_can_not_be_opened_any_more_keeps_no_answer_back(located, tmp_path):
    _, index, answers, table = located
    (tmp_path / "gone.jpg").touch()
    table = table.assign(file=str(tmp_path / "gone.jpg"))
    write_map(tmp_path / "map.html", index, table, answers, EXPLANATION)
    text = (tmp_path / "map.html").read_text()
    assert len(Page(text).all("article")) == 4 and text.count("data:image/gif") == 1


def test_a_thumbnail_keeps_the_proportions(tmp_path, make_photos):
    paths = make_photos(
        tmp_path, [552_000.0, 552_010.0, 552_020.0], size=[(320, 200), (40, 36), (900, 2)]
    )
    sides = [(made["width"], made["height"]) for made in map(thumbnail, paths)]
    assert sides == [(THUMBNAIL, 100), (40, 36), (160, 1)]
    assert thumbnail(paths[0])["data"].startswith("data:image/jpeg;base64,")
