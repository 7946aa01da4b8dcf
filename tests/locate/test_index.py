"""The index describes each photo once, answers by brute force's rules, and says how sure it is."""

import json
import math
import os
import tomllib
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pyproj import Geod

import vgeo
from vgeo.errors import VgeoError
from vgeo.files import code_hash, key
from vgeo.locate.confidence import fit
from vgeo.locate.index import (
    BATCH,
    ENOUGH,
    RADIUS,
    SHIPPED,
    SHORTLIST,
    Index,
    _stages_for_local_features,
    open_index,
    similarity,
)
from vgeo.locate.store import Store, photo_key
from vgeo.models.geowarp import GRID
from vgeo.models.network import build
from vgeo.models.weights import CITY_WEIGHTS, save_weights, weights_hash
from vgeo.photos.images import load_image
from vgeo.photos.tables import read_photos
from vgeo.retrieval.describe import describe

LAT, LON = 37.77, -122.42


def names(index, rows):
    return [os.path.basename(index.photos.paths[row])[:3] for row in rows]


def test_added_and_changed_photos_alone_are_described(tmp_path, make_street, model):
    def opened():
        return Index(read_photos(tmp_path / "street"), model, 64)

    make_street(tmp_path / "street", range(5))
    index = opened()
    before = index.descriptors
    assert index.described == 5 and opened().described == 0
    make_street(tmp_path / "street", range(5, 8))
    assert not any(photo_key(path) in index.store for path in sorted(tmp_path.glob("*/*"))[5:])
    index = opened()
    assert index.described == 3
    np.testing.assert_array_equal(index.descriptors[:5], before)
    (tmp_path / "street" / "006.jpg").replace(tmp_path / "street" / "002.jpg")
    os.utime(tmp_path / "street" / "002.jpg")  # another photo under an old name
    index = opened()
    assert index.described == 1 and len(index.photos) == 7


def test_descriptors_are_the_models(tmp_path, make_street, model):
    photos = read_photos(make_street(tmp_path / "street", range(3)))
    index = Index(photos, model, 64, tmp_path / "cache")
    np.testing.assert_allclose(index.descriptors, describe(model, photos.paths, 64), atol=1e-5)
    assert Index(photos, model, 96, tmp_path / "cache").described == 3  # of another size
    other = build("resnet18", "city")
    with torch.no_grad():
        other.aggregation[3].bias += 0.1
    assert Index(photos, other, 64, tmp_path / "cache").described == 3  # of other weights
    assert Index(photos, model, 64, tmp_path / "cache").described == 0


def test_the_store_is_of_the_code_that_describes(tmp_path, make_street, model):
    """Descriptions by other code than today's are never read: the store's name holds its hash."""
    index = Index(read_photos(make_street(tmp_path / "street", range(1))), model, 64)
    code = code_hash("vgeo.models.network", "vgeo.models.geowarp", "vgeo.photos.images")
    recipe = {"weights": weights_hash(model), "size": 64, "stages": index.stages, "code": code}
    assert index.store.path.stem == key(recipe)


def test_local_features_come_from_the_map_that_fits_the_grid():
    model = build("resnet18")  # strides by stage: 2 2 4 4, then 4 8 16 32 for layer1 to layer4
    strides = [2, 2, 2, 4, 4, 8, 16, 32]
    for size, stride in ((64, 4), (128, 8), (256, 16), (512, 32)):
        assert strides[_stages_for_local_features(model, size) - 1] == stride
        assert _stages_for_local_features(model, size) == len(strides) - strides[::-1].index(stride)


def test_a_stopped_process_keeps_what_it_described(tmp_path, make_street):
    photos, model = read_photos(make_street(tmp_path / "street", range(40))), build("resnet18")
    batches = []

    def stop_at_the_second(*_):
        batches.append(len(batches))
        if len(batches) == 2:
            raise KeyboardInterrupt

    stopping = model.aggregation.register_forward_pre_hook(stop_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        Index(photos, model, 32)
    stopping.remove()
    assert Index(photos, model, 32).described == 40 - 32


def test_a_damaged_photo_is_named_before_any_is_described(tmp_path, make_street, model, refused):
    folder = make_street(tmp_path / "street", range(3))
    photos = read_photos(folder)
    (folder / "001.jpg").write_bytes(b"\xff\xd8\xff no more")
    refused(lambda: Index(photos, model, 64, tmp_path / "cache"), "001.jpg", "1 of 3")
    (folder / "001.jpg").unlink()
    assert Index(read_photos(folder), model, 64, tmp_path / "cache").described == 2


def test_damaged_photos_are_looked_for_in_their_own_batch(tmp_path, make_street, monkeypatch):
    """Two of 70: all others are described, and those of the other batches are decoded once."""
    folder = make_street(tmp_path / "street", range(70))
    for name in ("003", "068"):
        whole = (folder / f"{name}.jpg").read_bytes()
        (folder / f"{name}.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "040.jpg").unlink()
    (folder / "040.jpg").symlink_to("003.jpg")  # the damaged file by another name
    looked_at = []

    def load(path, size):
        looked_at.append(os.path.basename(path))
        return load_image(path, size)

    monkeypatch.setattr("vgeo.locate.index.load_image", load)
    index = Index(read_photos(folder), build("resnet18"), 32, strict=False)
    bad = ["003.jpg", "040.jpg", "068.jpg"]
    assert sorted(os.path.basename(path) for path in index.skipped) == bad
    assert len(index.photos) == index.described == 67
    # The first batch and the link, then the four photos of the last one.
    expected = [f"{place:03}.jpg" for place in (*range(BATCH), 40, *range(66, 70))]
    assert sorted(looked_at) == expected


def test_what_stops_the_store_is_no_damaged_photo(tmp_path, make_street, model, monkeypatch):
    def full(*_):
        raise VgeoError("the disk is full")

    monkeypatch.setattr(Store, "put", full)
    with pytest.raises(VgeoError, match="the disk is full"):
        Index(read_photos(make_street(tmp_path, range(2))), model, 64, strict=False)


@pytest.mark.parametrize("strict, times", [(False, 1), (True, 2)])
def test_other_files_than_jpeg_are_decoded_for_their_description(
    tmp_path, make_street, model, monkeypatch, strict, times
):
    """Strict also decodes them before anything is described: their end says nothing."""
    folder, decoded = make_street(tmp_path, range(2)), []
    for path in list(folder.iterdir()):
        with Image.open(path) as image:
            image.save(path.with_suffix(".heic"), exif=image.getexif().tobytes())
        path.unlink()
    photos = read_photos(folder)

    def load(path, size):
        decoded.append(os.fspath(path))
        return load_image(path, size)

    monkeypatch.setattr("vgeo.photos.images.load_image", load)
    Index(photos, model, 64, strict=strict)
    assert sorted(decoded) == sorted(photos.paths * times)


def test_metres_without_a_zone_have_no_degrees(tmp_path, make_street, model):
    photos = replace(read_photos(make_street(tmp_path / "street", range(2))), zone=None)
    index = Index(photos, model, 64)
    answers = index.locate(photos.paths[:1])
    assert (answers.xy == photos.xy[:1]).all() and np.isnan(index.degrees(answers.xy)).all()


def test_similarity_by_brute_force():
    random = np.random.default_rng(0)
    both = random.standard_normal((2, 5, GRID, GRID)).astype(np.float32)
    query, match = both / np.linalg.norm(both, axis=1, keepdims=True)
    for reach in (0, 2):
        best = []
        for y, x in np.ndindex(GRID, GRID):
            rows, columns = (slice(max(0, z - reach), z + reach + 1) for z in (y, x))
            best.append(np.tensordot(query[:, y, x], match[:, rows, columns], 1).max())
        alike = similarity(query, np.stack([match, query]), reach)
        np.testing.assert_allclose(alike, [np.mean(best), 1], rtol=0, atol=1e-5)


def test_photos_are_found_where_they_were_taken(tmp_path, make_street, model):
    index = Index(read_photos(make_street(tmp_path / "street")), model, 128)
    queries = make_street(tmp_path / "queries", [17, 3], brightness=0.8)
    answers = index.locate([str(queries / "017.jpg"), str(queries / "003.jpg")])
    assert names(index, answers.predictions[:, 0]) == ["017", "003"]
    lat, lon = index.degrees(answers.xy)
    for place, y, x in zip((17, 3), lat, lon, strict=True):
        assert abs(Geod(ellps="WGS84").inv(LON, LAT, x, y)[2] - 40 * place) < 0.02
    assert answers.similarity.shape == answers.predictions.shape == (2, SHORTLIST)
    assert (np.diff(answers.similarity, axis=1) <= 0).all()
    # Places are 40 m apart: a match leads by what the second has less, and one of five is there.
    first, second = answers.similarity[:, 0], answers.similarity[:, 1]
    np.testing.assert_allclose(answers.features, np.stack([first, first - second, [0.2] * 2], 1))


def test_features_by_brute_force(tmp_path, make_street, model):
    """With 10 m between places, several matches agree and the lead is over the best other place."""
    index = Index(read_photos(make_street(tmp_path / "street", step=10.0)), model, 64, shortlist=12)
    answers = index.locate(index.photos.paths)
    assert answers.predictions.shape == (24, 12)
    for rows, alike, features, xy in zip(
        answers.predictions, answers.similarity, answers.features, answers.xy, strict=True
    ):
        metres = np.hypot(*(index.xy[rows] - index.xy[rows[0]]).T)
        assert (xy == index.xy[rows[0]]).all() and (metres > RADIUS).any()
        expected = [alike[0], alike[0] - alike[metres > RADIUS].max(), (metres[:5] <= 25).mean()]
        np.testing.assert_allclose(features, expected, rtol=1e-6)


def test_held_out_photos_are_not_answered_by_their_own_moment(
    tmp_path, make_street, make_photos, model
):
    folder = make_street(tmp_path / "street")
    lon, lat, _ = Geod(ellps="WGS84").fwd(LON, LAT, 0, 1.0)
    # All three 1 m from 000.jpg: one of its month, and two that look alike, of two other months.
    for stem, month, place in (("a", 201901, 0), ("b", 202001, 50), ("c", 202002, 50)):
        options = {"kind": "exif", "headings": math.nan, "months": month, "size": (80, 60)}
        make_photos(folder, [(lat, lon)], [place], stem=stem, **options)
    index = Index(read_photos(folder), model, 64)
    held = index.held_out
    assert len(held.rows) == 27 and (np.diff(held.rows) > 0).all()
    label = names(index, range(27))
    matches = {label[row]: names(index, m) for row, m in zip(held.rows, held.answers.predictions)}
    assert not any(name in rows for name, rows in matches.items())
    assert "a00" not in matches["000"] and "000" not in matches["a00"]
    assert matches["b00"][0] == "c00" and matches["c00"][0] == "b00"
    away = np.hypot(*(index.xy[held.answers.predictions[:, 0]] - index.xy[held.rows]).T)
    np.testing.assert_array_equal(held.right, away <= RADIUS)
    assert held.right.sum() >= 2
    assert held.nearest[label.index("b00")] == pytest.approx(0, abs=0.01)
    assert held.nearest[label.index("005")] == pytest.approx(40, abs=0.1)


def test_the_confidence_is_fitted_to_enough_held_out_photos(tmp_path, make_photos, model):
    """Half of the places were photographed twice; the photos of the other half have no match."""
    step = 60 / 88_124
    photographed = [*range(2 * ENOUGH), *range(ENOUGH)]
    places = [(LAT, LON + step * place) for place in photographed]
    months = [201901] * (2 * ENOUGH) + [202001] * ENOUGH
    options = {"kind": "exif", "headings": math.nan, "months": months, "size": (40, 32)}
    make_photos(tmp_path / "street", places, photographed, **options)
    index = Index(read_photos(tmp_path / "street"), model, 64)
    held, (calibration, words) = index.held_out, index.calibrate()
    assert held.right.sum() == 2 * ENOUGH and (~held.right).sum() == ENOUGH
    assert calibration == fit(held.answers.features, held.right)
    # A square's own photos have no say in their confidence: changing their outcome changes nothing.
    inside = (held.xy[:, 0] // 500) == (held.xy[0, 0] // 500)
    assert 0 < inside.sum() < 60
    other = replace(held, right=held.right ^ inside)
    np.testing.assert_array_equal(held.confidence(500)[inside], other.confidence(500)[inside])
    assert (held.confidence(500)[~inside] != other.confidence(500)[~inside]).all()
    assert (
        "fitted to 60 of your photos" in words and "67 % of the answers were within 25 m" in words
    )


def test_too_few_photos_take_the_shipped_calibration(tmp_path, make_street, model):
    few = make_street(tmp_path / "street", range(3))
    calibration, words = open_index(few).calibrate()
    assert "San Francisco" in words and "0 right and 3 wrong" in words and "may not hold" in words
    assert 1 > calibration([[0.9, 0.1, 1.0]]) > calibration([[0.8, 0.0, 0.2]]) > 0
    calibration, words = Index(read_photos(few), model, 64).calibrate()  # of another image size
    assert calibration is None and "no confidence for these weights" in words


def test_the_shipped_calibration_is_of_the_packaged_weights(model):
    shipped = json.loads(SHIPPED.read_text())
    assert shipped["weights_hash"] == weights_hash(model) and shipped["size"] == 192
    calibration = fit(np.eye(3), [True, False, True])
    assert shipped["calibration"].keys() == asdict(calibration).keys()


def test_an_index_of_one_photo(tmp_path, make_street, model):
    index = Index(read_photos(make_street(tmp_path / "street", range(1))), model, 64)
    assert index.held_out is None
    answers = index.locate(index.photos.paths)
    assert answers.predictions.tolist() == [[0]] and np.isfinite(answers.features).all()
    calibration, words = index.calibrate()
    assert calibration is None and "0 right and 0 wrong" in words


def test_own_weights_bring_their_image_size(tmp_path, make_street, model):
    save_weights(model, tmp_path / "mine.safetensors", {"image_size": 64})
    folder = make_street(tmp_path / "street", range(2))
    index = open_index(folder, tmp_path / "mine.safetensors")
    assert index.size == 64 and index.described == 2
    torch.save(model.state_dict(), tmp_path / "theirs.pth")
    assert open_index(folder, tmp_path / "theirs.pth", tmp_path / "cache").size == 512
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_the_package_holds_what_locate_needs():
    package = Path(vgeo.__file__).parent
    project = tomllib.loads((package.parent / "pyproject.toml").read_text())
    patterns = project["tool"]["setuptools"]["package-data"]["vgeo"]
    held = {path for pattern in patterns for path in package.glob(pattern)}
    template = package / "locate" / "templates" / "map.html"
    assert {CITY_WEIGHTS / "resnet18.safetensors", SHIPPED, template} <= held
