"""The study on a folder of tiny photos, its tables beside the published ones, notebooks, the command line."""

import dataclasses
import json
import math
import os
import shutil
import time
from types import SimpleNamespace

import nbformat
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from safetensors.torch import load_file

from vgeo import fuse, geowarp, needs, profiles, report, study
from vgeo.__main__ import main
from vgeo.photos.places import Dataset
from vgeo.photos.names import format_name
from vgeo.retrieval.describe import describe
from vgeo.errors import VgeoError
from vgeo.retrieval.metrics import interval
from vgeo.models.network import build, normalise
from vgeo.models.weights import load_weights, save_weights, weights_hash
from vgeo.study.profiles import PROFILES, Profile
from vgeo.runner.execute import execute
from vgeo.runner.progress import watching
from vgeo.study.rows import DATASETS, LOSSES, TABLES, TRAININGS, Evaluation, Fusion
from vgeo.study.study import Study
from vgeo.device import precision

SIDE = 32
TINY = Profile(
    "tiny",
    weights="city",
    image_size=SIDE,
    test_size=SIDE,
    n=1,
    l=1,
    min_images=3,
    epochs=1,
    iterations=2,
    batch_size=2,
    predictions=4,
)


# A folder laid out as the originals


def write_photo(folder, random, place, east, pano, zone=10, heading=0.0, look=0.0):
    """A photo of a place: its own random picture, with noise; `look` mixes in another one."""
    folder.mkdir(parents=True, exist_ok=True)
    own, other = (
        np.random.default_rng([5, place]).integers(0, 256, (5, 5, 3)),
        random.integers(0, 256, (5, 5, 3)),
    )
    picture = Image.fromarray((own * (1 - look) + other * look).astype(np.uint8))
    pixels = picture.resize((40, 36), Image.Resampling.BICUBIC) + random.normal(0, 10, (36, 40, 3))
    pixels = pixels.clip(0, 255).astype(np.uint8)
    path = folder / format_name(east, 4_173_551.0, zone, "S", pano, heading, 201704)
    Image.fromarray(pixels).save(path, quality=95)
    return path


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """sf-xs, tokyo-xs and tokyo-night of a few photos each, a place every 20 m; two night queries, of tokyo-xs's."""
    top, random = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for place in range(3):
        for i in range(4):
            write_photo(top / "sf-xs/train", random, place, 552_005.0 + 50 * place + i, f"t{i}")
    for part, zone, first in (
        ("sf-xs/val", 10, 10),
        ("sf-xs/test", 10, 20),
        ("tokyo-xs/test", 54, 30),
    ):
        queries = "queries_v1" if part == "sf-xs/test" else "queries"
        for place in range(7):
            write_photo(
                top / part / "database",
                random,
                first + place,
                553_000.0 + 20 * place,
                f"d{place}",
                zone,
            )
        for place in range(5):
            east = 553_003.0 + 30 * place
            path = write_photo(
                top / part / queries, random, first + place, east, f"q{place}", zone, look=0.3
            )
            if zone == 54 and place in (1, 3):
                (top / "tokyo-night/test/queries").mkdir(parents=True, exist_ok=True)
                shutil.copy(path, top / "tokyo-night/test/queries")
    return top


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(4)
    model = build("resnet18")
    model.train()
    with torch.no_grad():  # BatchNorm's statistics of something, so that descriptors lie apart
        for _ in range(3):
            model(normalise(torch.randint(0, 256, (8, 3, SIDE, SIDE), dtype=torch.uint8)))
    save_weights(model, folder / "resnet18.safetensors", {})
    return folder / "resnet18.safetensors"


@pytest.fixture(autouse=True)
def nothing_of_this_machine(monkeypatch, tmp_path, weights):
    """Results go to tmp_path, the city's weights are made here, and there is no accelerator."""
    monkeypatch.setattr(study, "ROOT", tmp_path)
    monkeypatch.setattr("vgeo.study.CITY_WEIGHTS", weights.parent)
    monkeypatch.setattr("vgeo.models.CITY_WEIGHTS", weights.parent)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setitem(PROFILES, "tiny", TINY)


@pytest.fixture
def described(monkeypatch):
    """The paths that are described from here on, in order."""
    paths, real = [], study.describe

    def describe(model, names, *arguments, **options):
        paths.extend(names)
        return real(model, names, *arguments, **options)

    monkeypatch.setattr(study, "describe", describe)
    return paths


def own_descriptors(weights, folder, brightness=1.0):
    """Names and float64 descriptors of a folder's photos, one by one."""
    model = build("resnet18")
    load_weights(model, weights)
    model.eval()
    names, found = sorted(path.name for path in folder.iterdir()), []
    for name in names:
        image = Image.open(folder / name)
        image.draft("RGB", (2 * SIDE, 2 * SIDE))
        pixels = np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BILINEAR))
        pixels = np.rint(pixels * brightness).clip(0, 255).astype(np.uint8)
        with torch.no_grad():
            found.append(
                model(normalise(torch.tensor(pixels).permute(2, 0, 1)[None]))[0]
                .numpy()
                .astype(float)
            )
    return names, np.stack(found)


def place_of(name):
    return np.array([float(part) for part in name.split("@")[1:3]])


FOLDERS = {
    "sf-xs": ("sf-xs/test/queries_v1", "sf-xs/test/database"),
    "tokyo-xs": ("tokyo-xs/test/queries", "tokyo-xs/test/database"),
    "tokyo-night": ("tokyo-night/test/queries", "tokyo-xs/test/database"),
}


@pytest.mark.parametrize("brightness", [1.0, 0.31])
def test_evaluation_against_brute_force(photos, weights, described, brightness):
    ours, kept = Study("tiny", photos), {}
    for dataset, (queries, database) in FOLDERS.items():
        result = kept[dataset] = ours.evaluate(weights, dataset, brightness)
        query_names, query = own_descriptors(weights, photos / queries)
        names, base = own_descriptors(weights, photos / database, brightness)
        assert [os.path.basename(path) for path in result.data.queries["path"]] == query_names
        assert [os.path.basename(path) for path in result.data.database["path"]] == names
        squares = ((query[:, None] - base[None]) ** 2).sum(2)
        nearest = np.argsort(squares, axis=1)[:, : TINY.predictions]
        assert (
            np.diff(np.sort(squares, axis=1), axis=1).min() > 1e-6
        )  # no near ties in these photos
        assert result.predictions.dtype == np.int64 and (result.predictions == nearest).all()
        np.testing.assert_allclose(
            result.distances, np.take_along_axis(squares, nearest, 1), atol=2e-6
        )
        for name, row, rank in zip(query_names, nearest, result.first_hit, strict=True):
            right = [math.dist(place_of(name), place_of(names[i])) <= 25 for i in row]
            assert rank == (right.index(True) if any(right) else TINY.predictions)
        for n in (1, 2, 4):
            assert (result.right(n) == (result.first_hit < n)).all()
    assert (
        len({rank for result in kept.values() for rank in result.first_hit.tolist()}) > 1
    )  # right and wrong ones

    # every photo once: tokyo-night's queries are taken from tokyo-xs's, of either brightness the database
    assert len(described) == len(set(described)) == 2 * (5 + 7)
    assert not any("tokyo-night" in path for path in described)
    again = Study("tiny", photos)
    for each in (ours, again):
        for dataset in FOLDERS:
            assert (
                each.evaluate(weights, dataset, brightness).first_hit == kept[dataset].first_hit
            ).all()
    assert len(described) == 24


def test_what_is_described_anew(photos, weights, described, tmp_path):
    def count(of, *arguments):
        before = len(described)
        of.evaluate(*arguments)
        return len(described) - before

    ours = Study("tiny", photos)
    assert count(ours, weights, "tokyo-xs") == 12
    assert count(ours, weights, "tokyo-night") == 0
    assert count(ours, weights, "tokyo-night", 0.5) == 7  # another brightness: the database alone
    assert count(Study("tiny", photos, image_size=48), weights, "tokyo-xs") == 12
    state = build("resnet18")
    save_weights(state, tmp_path / "other.safetensors", {})
    assert count(ours, tmp_path / "other.safetensors", "tokyo-xs") == 12
    shutil.copy(weights, tmp_path / "copy.safetensors")
    assert count(ours, tmp_path / "copy.safetensors", "tokyo-xs") == 0  # the same weights
    moved = tmp_path / "moved"
    shutil.copytree(photos, moved)
    assert count(Study("tiny", moved), weights, "tokyo-xs") == 0  # the same photos
    image = next((moved / "tokyo-xs/test/database").iterdir())
    Image.new("RGB", (40, 36)).save(image)
    assert count(Study("tiny", moved), weights, "tokyo-xs") == 7
    assert count(Study("tiny", moved), weights, "sf-xs") == 12
    assert (tmp_path / "results/cache/descriptors").is_dir() and set(
        os.listdir(tmp_path / "results")
    ) == {"cache"}


def test_night_queries_that_are_not_tokyo_xs_own(photos, weights, described, tmp_path):
    shutil.copytree(photos, tmp_path / "other")
    night = tmp_path / "other/tokyo-night/test"
    write_photo(night / "queries", np.random.default_rng(1), 36, 553_111.0, "dark", 54)
    result = Study("tiny", tmp_path / "other").evaluate(weights, "tokyo-night")
    assert len(result.first_hit) == 3 and sum("tokyo-night" in path for path in described) == 3
    assert all("tokyo-xs" in path for path in result.data.database["path"])
    shutil.copytree(tmp_path / "other/sf-xs/test/database", night / "database")
    with pytest.raises(
        VgeoError, match="tokyo-night.*54 north"
    ):  # its own database, which is not in its zone
        Study("tiny", tmp_path / "other").sets


def test_absent_data_sets(photos, weights, tmp_path):
    some = tmp_path / "some"
    shutil.copytree(photos / "sf-xs", some / "sf_xs")  # another of the names it goes by
    ours = Study("tiny", some)
    assert isinstance(ours.sets["sf-xs"], RetrievalSet)
    assert ours.sets["tokyo-xs"] == "no tokyo-xs/test queries and database in some"
    assert ours.sets["tokyo-night"] == "no tokyo-night/test queries and database in some"
    assert ours.identities()["tokyo-xs"] == ours.sets["tokyo-xs"]
    assert ours.identities()["sf-xs val"].startswith("sf-xs val: 5 queries, 7 database images")
    shutil.copytree(photos / "tokyo-night", some / "tokyo-night")
    assert Study("tiny", some).sets["tokyo-night"] == "no tokyo-night/test database in some"
    shutil.rmtree(some / "sf_xs/test")
    assert Study("tiny", some).sets["sf-xs"] == "no sf-xs/test queries and database in some"
    shutil.rmtree(some / "sf_xs/val/queries")
    for part, folder in (("val", some), ("train_table", photos.parent)):
        with pytest.raises(
            VgeoError, match=f"{folder}: has no sf-xs/{part[:5].rstrip('_')}"
        ) as caught:
            getattr(Study("tiny", folder), part)
        assert "\n" not in str(caught.value)


def test_a_training_is_done_once_and_recorded(photos, weights, monkeypatch, tmp_path):
    trained, real = [], study.train
    monkeypatch.setattr(
        study, "train", lambda recipe, *rest: trained.append(recipe) or real(recipe, *rest)
    )
    ours = Study("tiny", photos)
    folder = ours.train("CosFace")
    assert (
        ours.train("CosFace") == folder == Study("tiny", photos).train("CosFace")
        and len(trained) == 1
    )
    wanted = {
        "margin": "CosFace",
        "backbone": "resnet18",
        "epochs": 1,
        "iterations": 2,
        "batch_size": 2,
        "seed": 0,
    }
    assert wanted.items() <= trained[0].as_dict().items()
    assert ours.train_table.attrs["classes"] == 3 and len(ours.train_table) == 12
    assert weights_hash(folder / "model.safetensors") != weights_hash(weights)
    ours.evaluate(folder / "model.safetensors", "sf-xs")
    ours.write_run()
    other = Study("tiny", photos)
    other.evaluate(weights, "sf-xs")
    other.write_run()  # of a second notebook: adds to the first's
    written = json.loads((tmp_path / f"results/tiny-{photos.name}/run.json").read_text())
    assert written["models"] == {"CosFace": {"model": weights_hash(folder / "model.safetensors")}}
    assert written["starting_weights"] == {"resnet18": weights_hash(weights)}
    assert (
        written["steps"]["train CosFace"]["key"] == folder.name
        and len(written["steps"]) == 1 + 2 * 3
    )
    assert written["data"]["train"] == "12 images, 3 classes, group (0, 0, 0)"
    assert written["versions"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
    for condition, seed in (("ArcFace", 0), ("CosFace", 1)):
        assert ours.recipe(condition, seed).as_dict() != trained[0].as_dict()


# Rows


def side_of(scale):
    return round(SIDE * scale)


def own_aggregate(weights, folder, method):
    """Names and aggregated descriptors of a folder's photos over the report's five scales, one photo and one scale at a time."""
    model = load_weights(build("resnet18"), weights).eval()
    names, found = sorted(path.name for path in folder.iterdir()), []
    for name in names:
        scales = []
        for scale in (0.526, 0.588, 1.0, 1.7, 1.9):
            image, side = Image.open(folder / name), side_of(scale)
            image.draft("RGB", (2 * side, 2 * side))
            pixels = np.asarray(
                image.resize((side, side), Image.Resampling.BILINEAR, reducing_gap=2.0)
            )
            with torch.no_grad():
                scales.append(
                    model(normalise(torch.tensor(pixels).permute(2, 0, 1)[None]))[0]
                    .numpy()
                    .astype(float)
                )
        found.append(
            {"avg": np.mean, "sum": np.sum, "max": np.max, "min": np.min}[method](scales, axis=0)
        )
    return names, np.stack(found)


@pytest.mark.parametrize("store", [False, True])
@pytest.mark.parametrize(
    "method, side", [("avg", "database"), ("max", "query"), ("min", "both"), ("sum", "both")]
)
def test_multiscale_against_brute_force(photos, weights, monkeypatch, method, side, store):
    monkeypatch.setitem(PROFILES, "tiny", dataclasses.replace(TINY, store_trunk=64 * store))
    queries, database = FOLDERS["sf-xs"]
    result = Study("tiny", photos).evaluate(weights, "sf-xs", multiscale=method, side=side)
    query = (
        own_aggregate(weights, photos / queries, method)
        if side != "database"
        else own_descriptors(weights, photos / queries)
    )[1]
    base = (
        own_aggregate(weights, photos / database, method)
        if side != "query"
        else own_descriptors(weights, photos / database)
    )[1]
    squares = ((query[:, None] - base[None]) ** 2).sum(2)
    # stored trunks are float16: distances agree to its rounding, predictions where they are not near ties
    np.testing.assert_allclose(
        result.distances, np.sort(squares, 1)[:, :4], atol=2e-3 if store else 5e-5
    )
    found = np.take_along_axis(squares, result.predictions, 1)
    assert (np.diff(found, axis=1) > (-4e-3 if store else -1e-4)).all()


def test_stored_trunks_change_nothing_but_their_rounding(photos, weights, monkeypatch):
    plain = Study("tiny", photos).evaluate(weights, "tokyo-xs", 0.4)
    monkeypatch.setitem(PROFILES, "tiny", dataclasses.replace(TINY, store_trunk=64))
    ours = Study("tiny", photos)
    kept = ours.evaluate(weights, "tokyo-xs", 0.4)
    np.testing.assert_allclose(kept.distances, plain.distances, atol=2e-3)
    state = load_weights(build("resnet18"), weights)
    with torch.no_grad():
        state.aggregation[3].bias.add_(0.1)
    save_weights(state, ours.cache / "other.safetensors", {})
    monkeypatch.setattr(
        study, "store_trunk", None
    )  # a model with the same trunk reads what is there
    other = ours.evaluate(ours.cache / "other.safetensors", "tokyo-xs", 0.4)
    assert not np.allclose(other.distances, kept.distances)


@pytest.mark.parametrize("stages", [6, 8])
def test_rows_of_every_kind(photos, monkeypatch, stages):
    """GeoWarp's re-ranking, the fusions and the soups, on the tiny study, against the functions on its stored predictions."""
    numbers = {
        "self_supervised": 2,
        "mined": 2,
        "candidates": 6,
        "alone": 3,
        "stages": {"resnet18": stages},
    }
    tiny = dataclasses.replace(
        TINY,
        store_trunk=64,
        rerank=3,
        geowarp=profiles.CITY_GEOWARP | numbers,
        lr_regression=1e-3,
        lr_discriminator=1e-3,
    )
    monkeypatch.setitem(PROFILES, "tiny", tiny)
    ours = Study("tiny", photos)
    warp, grl = Evaluation("GeoWarp", rerank=True), Evaluation("CosFace")
    # local features of the frozen trunk: the regression beside the baseline's extractor; of later stages: both trained together
    assert (ours.weights("GeoWarp") == ours.weights("CosFace")) == (stages == 6)
    assert ours.training_seconds("GeoWarp") > 0
    local, regression = ours.warp_model("GeoWarp")
    for dataset in ("tokyo-night", "sf-xs"):  # night's are rows of tokyo-xs's
        data, before, after = (
            ours.sets[dataset],
            ours.evaluate(ours.weights("GeoWarp"), dataset),
            ours.result(warp, dataset),
        )
        assert (
            ours.result(Evaluation("GeoWarp"), dataset).predictions == before.predictions
        ).all() and after.data is data
        for query, (old, new) in enumerate(zip(before.predictions, after.predictions)):
            assert sorted(old[:3]) == sorted(new[:3]) and old[3] == new[3]
            scores = geowarp.pair_scores(
                local,
                regression,
                [data.queries["path"].iloc[query]],
                list(data.database["path"].iloc[new[:3]]),
                np.array([[0, 0], [0, 1], [0, 2]]),
                SIDE,
                precision=precision(),
            )
            assert (
                np.diff(scores) <= (1e-5 if precision() == "float32" else 2e-3)
            ).all()  # bfloat16 rounds other batches otherwise
    other = ours.result(grl, "sf-xs")
    fused = {
        name: ours.result(Fusion(name, warp, grl), "sf-xs").predictions
        for name in ("NIF", "SIF", "RRF")
    }
    assert (fused["SIF"] == fuse.shared_first(after.predictions, other.predictions)).all()
    assert (
        fused["NIF"]
        == fuse.nearest_first(
            after.predictions, after.distances, other.predictions, other.distances
        )[0]
    ).all()
    assert (fused["RRF"] == fuse.reciprocal_ranks(after.predictions, other.predictions)).all()
    for method in (
        "avg",
        "min",
    ):  # the multi-scale variants are re-ranked together, each by its own candidates
        row = Evaluation("GeoWarp", multiscale=method, rerank=True)
        plain, ranked = (
            ours.result(dataclasses.replace(row, rerank=False), "sf-xs"),
            ours.result(row, "sf-xs"),
        )
        assert (np.sort(plain.predictions[:, :3]) == np.sort(ranked.predictions[:, :3])).all()
    soup = load_file(ours.weights("uniform soup"))
    three = [load_file(ours.weights(name)) for name in LOSSES]
    np.testing.assert_allclose(
        soup["aggregation.3.weight"],
        np.mean([s["aggregation.3.weight"].numpy() for s in three], 0),
        atol=1e-7,
    )
    assert set(ours.greedy_soup()) <= set(LOSSES) and ours.weights("Model Soup").exists()


def test_one_scale_is_another_image_size(photos, weights):
    scaled = Study("tiny", photos).evaluate(weights, "sf-xs", scale=1.7)
    sized = Study("tiny", photos, image_size=side_of(1.7)).evaluate(weights, "sf-xs")
    np.testing.assert_array_equal(scaled.distances, sized.distances)


@pytest.mark.parametrize("scale", [1.0, 0.526, 1.7])
def test_photos_of_mixed_sizes_are_described_as_one_by_one(tmp_path, weights, scale):
    """As the paper profile tests: 480 x 640 and 512 x 512, here an eighth of it, in one batch where they are equal."""
    random, paths = np.random.default_rng(3), []
    for i, (height, width) in enumerate([(60, 80), (64, 64), (60, 80), (80, 60), (64, 64)]):
        paths.append(str(tmp_path / f"{i}.png"))
        Image.fromarray(random.integers(0, 256, (height, width, 3), np.uint8)).save(paths[-1])
    model = load_weights(build("resnet18"), weights).eval()
    found = describe(model, paths, None, scale, batch_size=2)
    for path, row in zip(paths, found):
        image = Image.open(path)
        sides = [round(scale * side) for side in image.size]
        pixels = np.asarray(
            image.resize(sides, Image.Resampling.BILINEAR, reducing_gap=2.0)
            if scale != 1
            else image
        )
        with torch.no_grad():
            alone = model(normalise(torch.tensor(pixels).permute(2, 0, 1)[None]))[0].numpy()
        np.testing.assert_allclose(row, alone, atol=2e-6)


@pytest.mark.parametrize("store", [0, 64])
def test_what_a_run_needs_is_what_it_leaves(photos, monkeypatch, store):
    rows = {1: {"CosFace": Evaluation("CosFace"), "avg": Evaluation("CosFace", 0.5, "avg", "both")}}
    monkeypatch.setitem(PROFILES, "tiny", dataclasses.replace(TINY, store_trunk=store))
    for name, value in {
        "TABLES": rows,
        "TRAININGS": {"CosFace": TRAININGS["CosFace"]},
        "SOUPS": (),
        "LOSSES": (),
        "BACKBONES": {"resnet18": None},
    }.items():
        monkeypatch.setattr(needs, name, value)
    ours = Study("tiny", photos)
    expected = needs.disk(ours)
    for row in rows[1].values():
        for dataset in DATASETS:
            ours.result(row, dataset)

    def left(*steps):
        files = [file for step in steps for file in (ours.cache / step).rglob("*.np[yz]")] + [
            file for step in steps for file in (ours.cache / step).rglob("*.safetensors")
        ]
        return sum(file.stat().st_size for file in files)

    assert left("descriptors") == pytest.approx(
        expected["descriptors"] + 128 * len(list((ours.cache / "descriptors").iterdir()))
    )
    assert left("models") == pytest.approx(expected["models"], rel=0.01)
    night = (
        TINY.iterations * TINY.batch_size * 2 * 128 * 4 * 4 if store else 0
    )  # no gradient reversal here: no views of the night
    assert left("trunks", "views") == pytest.approx(expected["trunk features"] - night, rel=0.02)


def test_a_database_beyond_the_memory_is_searched_compressed(photos, weights, monkeypatch, capsys):
    exact = Study("tiny", photos).evaluate(weights, "sf-xs")
    assert capsys.readouterr().out == ""
    monkeypatch.setattr(
        study, "choose_index", lambda n, dim, memory: ("SQ8", "7 descriptors are too many")
    )
    ours = Study("tiny", photos)
    close = ours.evaluate(weights, "sf-xs")
    assert (
        "7 descriptors are too many" in capsys.readouterr().out
        and len(list((ours.cache / "predictions").iterdir())) == 2
    )
    assert (
        close.predictions[:, 0] == exact.predictions[:, 0]
    ).all()  # all are proposed, and compared exactly


def test_a_run_that_has_no_room_is_not_started(photos, monkeypatch):
    ours = Study("tiny", photos)
    needed = sum(needs.disk(ours).values())
    free = SimpleNamespace(free=0.9 * needed, available=1e12)
    monkeypatch.setattr(needs.shutil, "disk_usage", lambda place: free)
    monkeypatch.setattr(needs.psutil, "virtual_memory", lambda: free)
    with pytest.raises(VgeoError, match="GB of disk.*free some space"):
        needs.check_room(ours)
    ours.cache.mkdir(parents=True)
    (ours.cache / "model").write_bytes(bytes(int(0.2 * needed)))  # a run that goes on
    needs.check_room(ours)
    free.available = 1e9
    with pytest.raises(VgeoError, match="GB of memory"):
        needs.check_room(ours)


def test_a_log_begins_with_the_start(photos, weights):
    ours = Study("tiny", photos)
    log = ours.log("CosFace")
    assert list(log["iteration"]) == [0, 2] and log["val_R@1"][0] == ours.validate(
        load_weights(build("resnet18"), weights)
    )


# Tables


def test_the_published_tables():
    sizes = {n: len(report.published(n)) for n in range(1, 14)}
    assert sizes == {1: 18, 2: 12, 3: 24, 4: 12, 5: 36, 6: 12, 7: 24} | dict.fromkeys(
        range(8, 14), 30
    )
    assert sum(sizes.values()) == 318
    for n in range(1, 14):
        table = report.published(n)
        assert list(table.columns) == ["condition", "dataset", "metric", "value"]
        assert set(table["dataset"]) <= set(DATASETS) and set(table["metric"]) <= {"R@1", "R@5"}
        assert (
            table["value"].between(0, 100).all()
            and not table.duplicated(["condition", "dataset", "metric"]).any()
        )


@pytest.mark.parametrize("number", TABLES)
def test_conditions_are_spelled_and_ordered_as_published(number):
    known = list(report.published(number)["condition"].unique())
    assert [condition for condition in TABLES[number] if condition in known] == known


def result_of(ranks):
    return study.Result(None, np.empty((len(ranks), 0)), np.empty((len(ranks), 0)), np.array(ranks))


def test_a_table_of_ours_beside_the_published(tmp_path):
    results = {"CosFace": [0, 0, 3, 20], "SphereFace": [0, 7, 9, 20], "ArcFace": [0, 0, 9, 20]}
    why = "no tokyo-xs/test queries in here"
    parts = []
    for condition, ranks in results.items():
        parts += [
            report.cells(1, condition, "sf-xs", result_of(ranks)),
            report.cells(1, condition, "tokyo-xs", why),
        ]
    report.write_table(tmp_path, pd.concat(parts, ignore_index=True), {"tokyo-xs": why})

    long = pd.read_csv(tmp_path / "tables/table_01.csv")
    assert (
        ",".join(long.columns)
        == "table,condition,dataset,metric,value,ci_low,ci_high,queries,published"
    )
    assert len(long) == 3 * 2 * 2 and (long["table"] == 1).all()
    known = report.published(1).set_index(["condition", "dataset", "metric"])["value"]
    for row in long.itertuples():
        assert row.published == known[row.condition, row.dataset, row.metric]
        measured = [row.value, row.ci_low, row.ci_high, row.queries]
        if row.dataset == "tokyo-xs":
            assert np.isnan(measured).all()
        else:
            right = np.array(results[row.condition]) < int(row.metric[2:])
            assert measured == [100 * right.mean(), *np.round(interval(right), 2), 4]

    text = (tmp_path / "tables/table_01.md").read_text().splitlines()
    lines = [line.strip("| ").split(" | ") for line in text if line.startswith("|")]
    assert lines[0] == ["sf-xs R@1 (n = 4)", "sf-xs R@5 (n = 4)", "tokyo-xs R@1", "tokyo-xs R@5"]
    low, high = interval(np.array([True, True, False, False]))
    assert lines[2][0] == "CosFace" and lines[2][1] == f"**50.0** ({low:.1f}–{high:.1f}) / 52.3"
    assert [line[1].startswith("**50.0**") for line in lines[2:]] == [
        True,
        False,
        True,
    ]  # equals are both best
    assert [line[2].startswith("**75.0**") for line in lines[2:]] == [True, False, False]
    assert [line[3] for line in lines[2:]] == [f"{why} / {value}" for value in (69.5, 68.9, 67.3)]


def test_the_views_of_a_table_without_published_values():
    one = report.cells(1, "starting weights", "sf-xs", result_of([0, 1]), recalls=(1, 20))
    assert list(one.columns) == report.COLUMNS and one["published"].isna().all()
    assert list(one["metric"]) == ["R@1", "R@20"]
    view = report.wide(one)
    assert (
        view.shape == (1, 2)
        and "|" not in view.iloc[0, 0]
        and view.iloc[0, 1] == "**100.0** (100.0–100.0)"
    )
    assert report.wide(report.cells(1, "CosFace", "sf-xs", "gone")).iloc[0, 0] == "no data / 52.3"


def test_differences_are_tested_and_said():
    results = {
        "base": {"sf-xs": result_of([5] * 8 + [0] * 4), "tokyo-xs": "absent"},
        "better": {"sf-xs": result_of([0] * 12), "tokyo-xs": "absent"},
        "other": {"sf-xs": result_of([0, 0, 5, 5] * 3), "tokyo-xs": "absent"},
    }
    found = report.compare(results, "base", ["better", "other"])
    first, second = found.to_dict("records")
    assert len(found) == 2 and (
        first["condition"],
        first["against"],
        first["dataset"],
        first["metric"],
    ) == ("better", "base", "sf-xs", "R@1")
    assert first["difference"] == pytest.approx(100 * 8 / 12, abs=1e-4) and first[
        "p"
    ] == pytest.approx(2 * 0.5**8, abs=1e-4)
    assert (first["only it is right"], first["only the other is right"]) == (8, 0)
    assert (second["only it is right"], second["only the other is right"], second["p"]) == (
        4,
        2,
        pytest.approx(2 * (1 + 6 + 15) / 64, abs=1e-4),
    )
    assert (report.in_words(0.0005), report.in_words(0.01234)) == ("< 0.001", "= 0.012")
    text = report.say(found)
    assert (
        "better, sf-xs R@1: +66.7 points against base (p = 0.008)" in text
        and "other" not in text.split("\n")[0]
        and "The other 1 of the 2" in text
    )


def test_markdown_and_latex_survive_odd_names(tmp_path):
    table = pd.DataFrame({"a|b": ["x | y", 1], "": ["50 %", "**2**"]})
    lines = report.markdown(table).splitlines()
    assert (
        lines[0] == r"| a\|b |  |"
        and lines[1] == "| --- | --- |"
        and lines[2] == r"| x \| y | 50 % |"
    )
    parts = [
        report.cells(3, f"baseline brightness={f}", "tokyo-night", result_of([k, 9]))
        for k, f in enumerate(("none", "0.1"))
    ]
    report.write_table(tmp_path, pd.concat(parts, ignore_index=True))
    tex = (tmp_path / "tables/table_03.tex").read_text()
    assert (
        r"\textbf{50.0} (0.0--100.0) / 49.5" in tex
        and "**" not in tex
        and "–" not in tex
        and "Ours in percent (95 \\% interval)" in tex
    )
    assert r"\begin{tabular}{lcc}" in tex and {
        line.count("&") for line in tex.splitlines() if line.endswith(r"\\")
    } == {2}


def test_figures_are_written_alike_each_time(tmp_path):
    parts = [report.cells(1, name, "sf-xs", result_of([0, 3])) for name in TABLES[1]]
    table = pd.concat(
        parts + [report.cells(1, name, "tokyo-xs", "absent") for name in TABLES[1]],
        ignore_index=True,
    )
    report.style()
    for folder in ("one", "two"):
        report.write_figure(tmp_path / folder, "f", report.compare_recalls(table, "title"))
    for name in ("f.png", "f.svg"):
        assert (tmp_path / "one/figures" / name).read_bytes() == (
            tmp_path / "two/figures" / name
        ).read_bytes()


# Notebooks


def notebook(path, *cells, results=()):
    """A notebook with `what` and `where` as its parameters."""
    parameters = nbformat.v4.new_code_cell(
        'what = ""\nwhere = ""', metadata={"tags": ["parameters"]}
    )
    cells = [
        parameters,
        *map(nbformat.v4.new_code_cell, cells),
        nbformat.v4.new_markdown_cell("end"),
    ]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    book = nbformat.v4.new_notebook(
        cells=cells, metadata={"kernelspec": kernel, "vgeo": {"results": list(results)}}
    )
    nbformat.write(book, path)
    return path


@pytest.fixture
def book(tmp_path, monkeypatch):
    monkeypatch.setenv(
        "PYTHONPATH", str(profiles.ROOT)
    )  # for the kernel, also where the package is not installed
    first = """
if what == "exit":
    raise SystemExit(0)
if what == "killed":
    import os
    os._exit(9)
if what == "error":
    raise ValueError("seven\\n is odd")
if what == "ours":
    from vgeo.errors import VgeoError
    raise VgeoError("x.jpg: is empty: copy it again")
"""
    second = """
import pathlib
pathlib.Path(where, "made.csv").write_text(what)
if what == "late exit":
    raise SystemExit(0)
"""
    return notebook(tmp_path / "book.ipynb", first, "", second, results=["made.csv"])


def test_a_long_step_is_named_while_it_lasts(photos, monkeypatch, capsys):
    ours = Study("tiny", photos)
    slow = study.train

    def train(*arguments):
        assert ours.now.read_text() == "train CosFace"
        time.sleep(0.6)
        slow(*arguments)

    monkeypatch.setattr(study, "train", train)
    with watching(ours.now, seconds=0.2, wait=0.05):
        ours.train("CosFace")
        time.sleep(0.3)
    assert capsys.readouterr().out.count("    train CosFace\n") == 1 and ours.now.read_text() == ""


def test_a_good_notebook(book, tmp_path):
    executed = execute(
        book, tmp_path / "out" / "book.ipynb", {"what": "fine", "where": str(tmp_path)}, tmp_path
    )
    assert (tmp_path / "made.csv").read_text() == "fine"
    stored = nbformat.read(tmp_path / "out" / "book.ipynb", 4)
    assert stored.cells == executed.cells and any(
        "injected-parameters" in cell.metadata.tags for cell in stored.cells
    )
    assert nbformat.read(book, 4).cells[1].execution_count is None  # the source stays as it was


@pytest.mark.parametrize(
    "what, message",
    [
        ("exit", "book.ipynb: cell 3 never ran to its end"),
        ("late exit", "book.ipynb: cell 4 never ran to its end"),
        ("error", "book.ipynb: cell 3 failed with ValueError: seven is odd"),
        ("ours", "^x.jpg: is empty: copy it again$"),
        ("killed", "book.ipynb: its kernel died"),
        ("missing", "did not make .*elsewhere/made.csv"),
        ("old", "did not make .*made.csv"),
    ],
)
def test_bad_notebooks(book, tmp_path, monkeypatch, what, message):
    results = tmp_path
    if what == "missing":
        results = tmp_path / "elsewhere"
    if what == "old":
        # as if what it makes were from long before it began
        monkeypatch.setattr("vgeo.run.time", SimpleNamespace(time=lambda: 1e10))
    with pytest.raises(VgeoError, match=message) as caught:
        execute(book, tmp_path / "out.ipynb", {"what": what, "where": str(tmp_path)}, results)
    assert "\n" not in str(caught.value)
    assert (tmp_path / "out.ipynb").exists()
    assert (tmp_path / "made.csv").exists() == (what in ("late exit", "missing", "old"))


def test_an_unknown_parameter_is_refused_before_anything_runs(book, tmp_path):
    with pytest.raises(
        VgeoError, match="book.ipynb: has no parameter 'who', only what, where: correct the name"
    ):
        execute(book, tmp_path / "out.ipynb", {"who": 1}, tmp_path)
    assert not (tmp_path / "out.ipynb").exists()


# Command line


def test_profiles():
    assert set(PROFILES) == {"smoke", "city", "paper", "tiny"} and all(
        PROFILES[name].name == name for name in PROFILES
    )
    paper = profiles.profile("paper")  # DESIGN's facts of the original
    assert (paper.image_size, paper.batch_size, paper.epochs, paper.iterations) == (
        512,
        32,
        3,
        10_000,
    )
    assert (paper.cell, paper.angle, paper.n, paper.l, paper.min_images, paper.radius) == (
        10,
        30,
        5,
        2,
        10,
        25,
    )
    assert (paper.lr_model, paper.lr_classifier) == (1e-5, 0.01)
    assert (paper.weights, paper.recalls) == ("imagenet", (1, 5, 10, 20))


@pytest.mark.parametrize(
    "arguments, words",
    [
        ("run nope", "unknown profile 'nope': use one of smoke, city, paper"),
        ("data --profile nope", "unknown profile 'nope'"),
        ("run paper", "profile paper needs real data: add --data FOLDER"),
        ("data --profile paper", "profile paper needs real data"),
        ("run smoke --data {0}/none", "{0}/none: no such folder"),
        ("data --profile paper --data {0}", "has no sf-xs/val"),
        ("run smoke --data {0} --image-size 16", "image size 16: a whole number of at least 32"),
        ("run smoke --data {0} --image-size 0", "image size 0: a whole number of at least 32"),
    ],
)
def test_mistakes_are_one_line_and_exit_with_1(tmp_path, arguments, words):
    with pytest.raises(SystemExit) as caught:
        main(arguments.format(tmp_path).split())
    message = caught.value.code  # a string: Python prints it to stderr and exits with 1
    assert isinstance(message, str) and message.startswith("vgeo: ") and "\n" not in message
    assert words.format(tmp_path) in message


def test_data_says_what_it_is(photos, capsys):
    main(["data", "--profile", "tiny", "--data", str(photos)])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == [
        "sf-xs val",
        "sf-xs",
        "tokyo-xs",
        "tokyo-night",
    ]
    assert lines[3].startswith("tokyo-night: 2 queries, 7 database images, ")
