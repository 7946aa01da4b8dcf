"""Rows of tables against brute force: photo by photo, pair by pair, with numpy and Pillow."""

import math
import os
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from vgeo.models.network import build, normalise
from vgeo.models.weights import load_weights
from vgeo.models.xfeat import describe_points, open_xfeat, shared_points
from vgeo.photos.images import load_image
from vgeo.retrieval import fuse
from vgeo.study import descriptions
from vgeo.study.evaluation import points_side
from vgeo.study.rows import TABLES, Evaluation, Fusion

SIDE = 32  # pixels, of the tiny profile
FOLDERS = {
    "sf-xs": ("sf-xs/test/queries_v1", "sf-xs/test/database"),
    "tokyo-xs": ("tokyo-xs/test/queries", "tokyo-xs/test/database"),
    "tokyo-night": ("tokyo-night/test/queries", "tokyo-xs/test/database"),
}
SCALES = (0.526, 0.588, 1.0, 1.7, 1.9)
METHODS = {"avg": np.mean, "sum": np.sum, "max": np.max, "min": np.min}


def described_alone(weights, folder, brightness=1.0, scales=(1.0,)):
    """Names of a folder's photos and their descriptors, float64 (S, N, D), each photo by itself."""
    model = load_weights(build("resnet18"), weights).eval()
    names, rows = sorted(os.listdir(folder)), []
    for scale in scales:
        for name in names:
            image, side = Image.open(folder / name), round(SIDE * scale)
            image.draft("RGB", (2 * side, 2 * side))
            image = image.resize((side, side), Image.Resampling.BILINEAR, reducing_gap=2.0)
            pixels = np.rint(np.asarray(image) * brightness).clip(0, 255).astype(np.uint8)
            with torch.no_grad():
                batch = normalise(torch.tensor(pixels).permute(2, 0, 1)[None])
                rows.append(model(batch)[0].numpy().astype(float))
    return names, np.stack(rows).reshape(len(scales), len(names), -1)


@pytest.fixture
def in_float32(monkeypatch):
    """Photos are described as brute force does it, also where the hardware has bfloat16."""
    monkeypatch.setattr(descriptions, "precision", lambda: "float32")


def place_of(name):
    return [float(part) for part in name.split("@")[1:3]]


@pytest.mark.usefixtures("in_float32")
@pytest.mark.parametrize("brightness", [0.31, pytest.param(1.0, marks=pytest.mark.slow)])
def test_search_against_brute_force(study, photos, brightness):
    tiny, ranks = study(), set()
    model = tiny.start("resnet18")
    for name, (queries, database) in FOLDERS.items():
        result = tiny.search(model, tiny.data.test_sets[name], brightness)
        query_names, (query,) = described_alone(model.weights, photos / queries)
        names, (base,) = described_alone(model.weights, photos / database, brightness)
        assert [os.path.basename(path) for path in result.dataset.queries.paths] == query_names
        assert [os.path.basename(path) for path in result.dataset.database.paths] == names
        squares = ((query[:, None] - base[None]) ** 2).sum(2)
        assert np.diff(np.sort(squares, axis=1), axis=1).min() > 1e-6  # no near ties
        nearest = np.argsort(squares, axis=1)[:, : tiny.profile.testing.predictions]
        assert result.predictions.dtype == np.int64
        np.testing.assert_array_equal(result.predictions, nearest)
        expected = np.take_along_axis(squares, nearest, 1)
        np.testing.assert_allclose(result.distances, expected, atol=1e-5)
        for asked, row, rank in zip(query_names, nearest, result.first_hit, strict=True):
            right = [math.dist(place_of(asked), place_of(names[i])) <= 25 for i in row]
            assert rank == (right.index(True) if any(right) else len(row))
        np.testing.assert_array_equal(result.right(2), result.first_hit < 2)
        ranks |= set(result.first_hit.tolist())
    assert len(ranks) > 1  # there are right and wrong predictions


@pytest.mark.usefixtures("in_float32")
@pytest.mark.parametrize("store", [0, pytest.param(64, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "method, side",
    [
        ("avg", "database"),
        ("max", "query"),
        ("min", "both"),
        pytest.param("sum", "both", marks=pytest.mark.slow),
    ],
)
def test_multiscale_against_brute_force(study, photos, method, side, store):
    tiny = study(store_trunk=store)
    model, dataset = tiny.start("resnet18"), tiny.data.test_sets["sf-xs"]
    result = tiny.search(model, dataset, multiscale=method, side=side)
    sides = []
    for folder, kind in zip(FOLDERS["sf-xs"], ("query", "database"), strict=True):
        scales = SCALES if side in (kind, "both") else (1.0,)
        descriptors = described_alone(model.weights, photos / folder, scales=scales)[1]
        sides.append(METHODS[method](descriptors, axis=0) if len(scales) > 1 else descriptors[0])
    squares = ((sides[0][:, None] - sides[1][None]) ** 2).sum(2)
    # A stored trunk is float16: it has 11 bits, and a sum over the scales is five times as long.
    tolerance = 5e-3 * squares.max() if store else 1e-4 * squares.max()
    np.testing.assert_allclose(result.distances, np.sort(squares, 1)[:, :4], atol=tolerance)
    ranked = np.take_along_axis(squares, result.predictions, 1)
    assert (np.diff(ranked, axis=1) > -2 * tolerance).all()


def test_one_scale_is_another_image_size(study):
    one, other = study(), study(image_size=round(SIDE * 1.7))
    scaled = one.search(one.start("resnet18"), one.data.test_sets["sf-xs"], scale=1.7)
    sized = other.search(other.start("resnet18"), other.data.test_sets["sf-xs"])
    np.testing.assert_array_equal(scaled.distances, sized.distances)


def test_each_photo_is_described_once(study):
    tiny = study()
    model, sets = tiny.start("resnet18"), tiny.data.test_sets

    def described():
        return len(list(tiny.cache.root.glob("descriptors/*/descriptors.npy")))

    tiny.search(model, sets["tokyo-xs"])
    assert described() == 2  # queries and database
    tiny.search(model, sets["tokyo-night"])
    assert described() == 2  # some of tokyo-xs's queries, its database
    tiny.search(model, sets["tokyo-night"], 0.5)
    assert described() == 3  # the database at another brightness
    again = study()
    again.search(again.start("resnet18"), again.data.test_sets["tokyo-night"], 0.5)
    assert described() == 3


def test_night_rows_are_rows_of_the_whole(study):
    tiny = study()
    model, sets = tiny.start("resnet18"), tiny.data.test_sets
    day, night = tiny.search(model, sets["tokyo-xs"]), tiny.search(model, sets["tokyo-night"])
    assert night.dataset is sets["tokyo-night"] and len(night.predictions) == 2
    names = [os.path.basename(path) for path in day.dataset.queries.paths]
    for row, path in enumerate(night.dataset.queries.paths):
        whole = names.index(os.path.basename(path))
        np.testing.assert_array_equal(night.predictions[row], day.predictions[whole])
        assert night.first_hit[row] == day.first_hit[whole]


@pytest.mark.slow
@pytest.mark.parametrize("stages", [6, 8])
def test_reranking_and_fusions(study, tiny, stages):
    geowarp = replace(tiny.geowarp, stages={"resnet18": stages}, alone=3)
    tiny = study(store_trunk=64, geowarp=geowarp)
    model = tiny.train("GeoWarp")
    # local features of the frozen trunk: the regression is trained beside the baseline's extractor
    assert (model.weights == tiny.train("CosFace").weights) == (stages == 6)
    assert model.seconds > 0
    warp = Evaluation("GeoWarp", rerank=True)
    for name in ("tokyo-night", "sf-xs"):
        dataset = tiny.data.test_sets[name]
        before = tiny.search(model, dataset)
        after = tiny.evaluate({"warp": warp})["warp"][name]
        assert after.dataset is dataset
        for old, new in zip(before.predictions, after.predictions, strict=True):
            assert sorted(old[:3]) == sorted(new[:3]) and old[3] == new[3]
        # the distance of an image moves with it
        for q, row in enumerate(after.predictions):
            known = dict(zip(before.predictions[q], before.distances[q], strict=True))
            np.testing.assert_array_equal(after.distances[q], [known[image] for image in row])
    grl = Evaluation("CosFace")
    other = tiny.evaluations.result(grl, dataset)
    fused = {
        name: tiny.evaluations.result(Fusion(name, warp, grl), dataset)
        for name in ("NIF", "NIF by rank", "SIF", "RRF")
    }
    lists = (after.predictions, other.predictions)
    np.testing.assert_array_equal(fused["SIF"].predictions, fuse.shared_first(*lists))
    np.testing.assert_array_equal(fused["RRF"].predictions, fuse.reciprocal_ranks(*lists))
    plain = tiny.evaluations.result(Fusion("NIF", replace(warp, rerank=False), grl), dataset)
    np.testing.assert_array_equal(fused["NIF"].predictions, plain.predictions)
    np.testing.assert_array_equal(
        fused["NIF by rank"].predictions[:, 0],
        np.where(
            np.sort(after.distances, 1)[:, 0] <= other.distances[:, 0],
            after.predictions[:, 0],
            other.predictions[:, 0],
        ),
    )


def test_reranking_by_points(study):
    """The first three are ordered by the points of each pair; the database may be darkened."""
    tiny, network = study(), open_xfeat()
    start, dataset = tiny.start("resnet18"), tiny.data.test_sets["tokyo-night"]
    for brightness in (1.0, 0.4):
        before = tiny.search(start, dataset, brightness)
        after = tiny.evaluations.rerank_by_points(before)
        queries, database = dataset.queries.paths, dataset.database.paths
        for q, (old, new) in enumerate(zip(before.predictions, after.predictions, strict=True)):
            alike = []
            for row, square in zip(old[:3], before.distances[q]):
                photo = load_image(database[row], 2 * SIDE)
                photo = (photo.float() * brightness).round().to(torch.uint8)
                both = torch.stack([load_image(queries[q], 2 * SIDE), photo])
                points = describe_points(network, both)
                shared = shared_points(points[0], points[1:]).item()
                alike.append(math.log(1 + shared) + 2 * (1 - square / 2))
            assert new.tolist() == [*old[np.argsort(-np.array(alike), kind="stable")], old[3]]
    found = list(tiny.cache.root.glob("points/*/points.npy"))
    assert len(found) == 3  # queries, the database as it is, and darkened


def test_a_row_with_points_is_made_of_the_rows_model(study, monkeypatch):
    tiny = study()
    monkeypatch.setattr(tiny.trainings, "train", lambda name, seed: tiny.start("resnet18"))
    dataset = tiny.data.test_sets["sf-xs"]
    row, plain = TABLES[4]["baseline + XFeat"], TABLES[4]["baseline"]
    assert row == replace(plain, points=True)
    assert TABLES[4]["EffLite0: baseline + XFeat"] == replace(row, model="EffLite0")
    result = tiny.evaluations.result(row, dataset)
    expected = tiny.evaluations.rerank_by_points(tiny.evaluations.result(plain, dataset))
    np.testing.assert_array_equal(result.predictions, expected.predictions)
    assert [points_side(size) for size in (32, 96, 512)] == [64, 192, 384]


@pytest.mark.slow
@pytest.mark.parametrize("model", ["GeoWarp", "EffLite0 + GeoWarp"])
def test_pairs_of_all_scales_are_compared_once(study, model):
    tiny, pairs = study(store_trunk=64), set()
    dataset = tiny.data.test_sets["sf-xs"]
    for method in (None, "avg", "sum", "max", "min"):
        row = Evaluation(model, multiscale=method, rerank=True)
        plain = tiny.evaluations.result(replace(row, rerank=False), dataset)
        ranked = tiny.evaluations.result(row, dataset)
        for old, new in zip(plain.predictions, ranked.predictions, strict=True):
            assert sorted(old[:3]) == sorted(new[:3])
        pairs |= {(q, i) for q, some in enumerate(plain.predictions) for i in some[:3]}
    compared = [np.load(path) for path in tiny.cache.root.glob("pairs/*/scores.npy")]
    assert len(compared) <= 2  # the pairs of one scale, and those that only several scales find
    assert sum(map(len, compared)) == len(pairs)


def test_a_database_beyond_the_memory_is_searched_compressed(study, monkeypatch, capsys):
    exact, close = study(), study()
    one = exact.search(exact.start("resnet18"), exact.data.test_sets["sf-xs"])
    # No argument makes seven photos too many for a machine's memory.
    monkeypatch.setattr(
        "vgeo.study.evaluation.choose_index", lambda n, dim, memory: ("SQ8", "seven are too many")
    )
    two = close.search(close.start("resnet18"), close.data.test_sets["sf-xs"])
    assert "seven are too many" in capsys.readouterr().out
    np.testing.assert_array_equal(one.predictions[:, 0], two.predictions[:, 0])
