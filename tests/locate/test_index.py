"""The index describes each photo once, answers by brute force's rules, and says how sure it is."""

import math
import os
import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pyproj import Geod

import vgeo
from vgeo.errors import VgeoError
from vgeo.files import code_hash, key
from vgeo.locate.confidence import Calibration, fit
from vgeo.locate.exported import ExportedIndex, export
from vgeo.locate.index import (
    BATCH,
    DESCRIBING,
    DIM,
    ENOUGH,
    LIGHT,
    RADIUS,
    SHORTLIST,
    SHRINKAGE,
    SIZE,
    Index,
    open_describer,
    open_index,
)
from vgeo.locate.store import Store, photo_key
from vgeo.models import xfeat
from vgeo.models.network import build, normalise
from vgeo.models.weights import save_weights, weights_hash
from vgeo.models.xfeat import describe_points, open_xfeat, shared_points, similarity
from vgeo.photos.images import load_image
from vgeo.photos.tables import read_photos
from vgeo.retrieval.describe import describe

LAT, LON = 37.77, -122.42
SIDE = 96


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Few points are looked for in small images, which is faster."""
    monkeypatch.setattr(xfeat, "SIDE", SIDE)
    monkeypatch.setattr(xfeat, "POINTS", 100)


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


def test_descriptors_are_the_models(tmp_path, make_street, model, monkeypatch):
    photos = read_photos(make_street(tmp_path / "street", range(3)))
    index = Index(photos, model, SIDE, tmp_path / "cache")
    np.testing.assert_allclose(index.descriptors, describe(model, photos.paths, SIDE), atol=1e-5)
    assert Index(photos, model, 64, tmp_path / "cache").described == 3  # of another size
    other = build("resnet18", "city")
    with torch.no_grad():
        other.aggregation[3].bias += 0.1
    assert Index(photos, other, 64, tmp_path / "cache").described == 3  # of other weights
    assert Index(photos, model, 64, tmp_path / "cache").described == 0
    monkeypatch.setattr(xfeat, "POINTS", 20)
    assert Index(photos, model, 64, tmp_path / "cache").described == 3  # of other points


def test_the_store_is_of_the_code_that_describes(tmp_path, make_street, model):
    """Descriptions by other code than today's are never read: the store's name holds its hash."""
    index = Index(read_photos(make_street(tmp_path / "street", range(1))), model, 64)
    assert {"vgeo.models.network", "vgeo.models.xfeat", "vgeo.photos.images"} <= set(DESCRIBING)
    recipe = {"weights": weights_hash(model), "size": 64, "code": code_hash(*DESCRIBING)}
    recipe |= {"xfeat": weights_hash(open_xfeat()), "side": SIDE, "points": xfeat.POINTS}
    assert index.store.path.stem == key(recipe)


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


def test_a_photo_that_changes_while_others_are_described(tmp_path, make_street, model, monkeypatch):
    """Its description is that of the file as it was. What is gone by then answers all the same."""
    photos, describe_all = make_street(tmp_path / "photos", range(3)), Index._describe

    def change(index, *arguments):
        describe_all(index, *arguments)
        os.utime(photos / "001.jpg", (1, 1))
        (photos / "002.jpg").unlink()

    whole = read_photos(photos)
    before = Index(whole, model, 64, tmp_path / "other")
    monkeypatch.setattr(Index, "_describe", change)
    index = Index(whole, model, 64, tmp_path / "cache")
    np.testing.assert_array_equal(index.descriptors, before.descriptors)


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
    expected = np.stack([first, first - second, [0.2] * 2], 1)
    np.testing.assert_allclose(answers.features[:, :3], expected)


def test_features_by_brute_force(tmp_path, make_street, model):
    """With 10 m between places, several matches agree and the lead is over the best other place."""
    index = Index(read_photos(make_street(tmp_path / "street", step=10.0)), model, 64, shortlist=12)
    answers = index.locate(index.photos.paths)
    assert answers.predictions.shape == (24, 12)
    pixels = [load_image(path, SIDE).numpy().mean() for path in index.photos.paths]
    light = np.abs(np.log1p(pixels) - np.median(np.log1p(pixels)))
    assert light.max() > 0.02
    for rows, alike, features, xy, far in zip(
        answers.predictions, answers.similarity, answers.features, answers.xy, light, strict=True
    ):
        metres = np.hypot(*(index.xy[rows] - index.xy[rows[0]]).T)
        assert (xy == index.xy[rows[0]]).all() and (metres > RADIUS).any()
        expected = [alike[0], alike[0] - alike[metres > RADIUS].max(), (metres[:5] <= 25).mean()]
        np.testing.assert_allclose(features, [*expected, far], rtol=1e-5, atol=1e-6)


def test_the_order_is_that_of_points_and_descriptors(tmp_path, make_street):
    """By hand: whitening in closed form, the points of each pair, and their sum."""
    model, size = open_describer()
    index = Index(read_photos(make_street(tmp_path / "street", range(8))), model, 64, shortlist=5)
    assert size == SIZE and model.backbone_name == "efficientnet_lite0"
    paths = index.photos.paths
    large = torch.stack([load_image(path, SIDE) for path in paths])
    batch = torch.nn.functional.interpolate(large, (64, 64), mode="bilinear", antialias=True)
    with torch.no_grad():
        features = model(normalise(batch)).numpy().astype(float)
    assert features.shape == (8, 1280)
    centred = features - features.mean(0)
    axes, spread, _ = np.linalg.svd(centred / np.sqrt(7), full_matrices=False)[::-1]
    variance = spread[:7] ** 2  # eight photos have seven axes
    whitened = centred @ axes[:7].T / np.sqrt(variance + SHRINKAGE * variance.mean())
    whitened /= np.linalg.norm(whitened, axis=1, keepdims=True)
    assert index.descriptors.shape == (8, min(DIM, 7))
    cosines = whitened @ whitened.T
    np.testing.assert_allclose(index.descriptors @ index.descriptors.T, cosines, atol=1e-3)
    points, answers = describe_points(open_xfeat(), large, 100), index.locate(paths)
    for row, (chosen, alike) in enumerate(zip(answers.predictions, answers.similarity)):
        nearest = np.argsort(-cosines[row])[:5]
        shared = shared_points(points[row], points[nearest]).numpy()
        expected = similarity(shared, cosines[row][nearest])
        assert set(chosen) == set(nearest) and chosen[0] == row
        np.testing.assert_allclose(alike, np.sort(expected)[::-1], atol=1e-3)


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
    assert held.rows.tolist() == [*range(27)]
    label = names(index, range(27))
    found = [names(index, rows) for rows in held.apart.predictions]
    assert len(found) == 54  # the photos, and a copy of each
    for matches in found[:27], found[27:]:
        matches = dict(zip(label, matches))
        assert not any(name in rows for name, rows in matches.items())
        assert "a00" not in matches["000"] and "000" not in matches["a00"]
    photos = dict(zip(label, found[:27]))
    assert photos["b00"][0] == "c00" and photos["c00"][0] == "b00"
    own = [name in names(index, rows) for name, rows in zip(label, held.near.predictions)]
    assert len(own) == 27 and sum(own) > 20 and 0.5 < np.median(held.near.similarity[:, 0]) < 0.99
    light = held.features[:, LIGHT]
    assert light[27:54].max() > 1 > 0.4 > light[:27].max()  # some copies are dark
    np.testing.assert_array_equal(light[54:], light[27:54])
    answers = np.concatenate([held.apart.predictions[:, 0], held.near.predictions[:, 0]])
    away = index.xy[answers] - np.tile(held.xy, (3, 1))
    np.testing.assert_array_equal(held.right, np.hypot(*away.T) <= RADIUS)
    np.testing.assert_array_equal(held.xy, index.xy[held.rows])
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
    photos = held.right[: 3 * ENOUGH]
    assert photos.sum() == 2 * ENOUGH and (~photos).sum() == ENOUGH
    features = held.features
    if fit(features, held.right).weights[LIGHT] > 0:
        features[:, LIGHT] = 0
    assert calibration == fit(features, held.right)
    # A square's own photos have no say in their confidence: changing their outcome changes nothing.
    inside = (held.xy[:, 0] // 500) == (held.xy[0, 0] // 500)
    assert 0 < inside.sum() < len(inside)
    inside = np.tile(inside, 3)
    other = replace(held, right=held.right ^ inside)
    np.testing.assert_array_equal(held.confidence(500)[inside], other.confidence(500)[inside])
    assert (held.confidence(500)[~inside] != other.confidence(500)[~inside]).all()
    share = 100 * held.right[: 6 * ENOUGH].mean()
    assert f"fitted to {3 * ENOUGH} of your photos and a copy of each" in words
    assert f"{share:.0f} % of the answers were within 25 m" in words and "doubtful" not in words


def test_a_fit_is_kept_until_the_photos_change(tmp_path, make_street, model, monkeypatch):
    folder, fitted = make_street(tmp_path / "street", range(6)), []
    original = Index._fitted

    def count(index):
        fitted.append(index)
        return original(index)

    monkeypatch.setattr(Index, "_fitted", count)

    def calibrate():
        return Index(read_photos(folder), model, 64).calibrate()

    assert calibrate() == calibrate() and len(fitted) == 1
    make_street(folder, [6])
    calibrate()
    assert len(fitted) == 2


def test_the_confidence_of_few_photos_is_doubtful(tmp_path, make_street, model):
    index = Index(read_photos(make_street(tmp_path / "street", range(3))), model, 64)
    held, (calibration, words) = index.held_out, index.calibrate()
    assert not held.right[:6].any()  # each photo is of another place
    assert "doubtful: only 0 answers were right" in words
    assert held.apart.predictions.shape == (6, 2) and held.near.predictions.shape == (3, 3)
    assert calibration.weights[LIGHT] <= 0
    copies = calibration(held.features)
    assert copies[6:][held.right[6:]].min() > copies[:6].max()


def test_other_light_never_makes_an_answer_surer(tmp_path, make_street, model, monkeypatch):
    index = Index(read_photos(make_street(tmp_path / "street", range(6))), model, 64)
    held, random = index.held_out, np.random.default_rng(0)
    for sign in (1, -1):  # right answers are of other light, or of the same
        light = sign * (held.right - 0.5) + random.normal(0, 0.2, len(held.right))
        features = np.column_stack([held.features[:, :LIGHT], light])
        assert fit(features, held.right).weights[LIGHT] * sign > 0.1
        monkeypatch.setattr(type(held), "features", features)
        calibration = Calibration.of(index._fitted()[0])
        assert calibration.weights[LIGHT] == 0 if sign == 1 else calibration.weights[LIGHT] < -0.1


def test_photos_of_one_place_tell_no_wrong_answer(tmp_path, make_photos, model):
    places = [(LAT, LON + metres / 88_124) for metres in (0, 5, 10)]
    options = {"kind": "exif", "headings": math.nan, "months": 201901, "size": (40, 32)}
    make_photos(tmp_path / "near", places, [0, 1, 2], **options)
    calibration, words = Index(read_photos(tmp_path / "near"), model, 64).calibrate()
    assert calibration is None and "all answered within 25 m" in words
    spot = [(LAT, LON + metres / 88_124) for metres in (0, 1.5)]
    make_photos(tmp_path / "spot", spot, [0, 1], **options)
    calibration, words = Index(read_photos(tmp_path / "spot"), model, 64).calibrate()
    assert calibration is None and "more than 2 m apart or of different months" in words


def test_an_index_of_one_photo(tmp_path, make_street, model):
    index = Index(read_photos(make_street(tmp_path / "street", range(1))), model, 64)
    assert index.held_out is None
    answers = index.locate(index.photos.paths)
    assert answers.predictions.tolist() == [[0]] and np.isfinite(answers.features).all()
    calibration, words = index.calibrate()
    assert calibration is None and "no confidence" in words
    export(index, tmp_path / "one.vgeo", "resnet18 64 px")
    assert ExportedIndex(tmp_path / "one.vgeo", model, 64).calibrate() == (None, words)


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
    licence = xfeat.WEIGHTS.with_suffix(".LICENSE")
    assert {xfeat.WEIGHTS, licence, template} <= held
