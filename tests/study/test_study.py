"""The study's arguments, its folders, and its profiles."""

import json
import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from vgeo.errors import VgeoError
from vgeo.photos import layout
from vgeo.report.original import logged, printed
from vgeo.study import costs, folders, profiles
from vgeo.study.profiles import PROFILES, ClassSizes, Profile, Training, profile
from vgeo.study.rows import TABLES, TRAININGS, Evaluation, Fusion, backbone_of
from vgeo.study.study import Study


@pytest.mark.parametrize(
    "options, words",
    [
        ({"name": "town"}, "unknown profile 'town': use one of smoke, city, paper"),
        ({"name": None}, "unknown profile None"),
        ({"name": "paper"}, "profile paper needs real data: add --data FOLDER"),
        ({"data": "/no/where"}, "/no/where: no such folder"),
        ({"data": ""}, "no such folder"),
        ({"data": 7}, "7: no such folder"),
        ({"image_size": 31}, "image size 31: a whole number from 32 to 4096"),
        ({"image_size": 64.0}, "image size 64.0"),
        ({"image_size": True}, "image size True"),
        ({"seeds": 0}, "seeds 0: a whole number from 1 to 100"),
        ({"seeds": "3"}, "seeds '3'"),
    ],
)
def test_mistakes_are_answered_in_one_line(options, words):
    with pytest.raises(VgeoError) as caught:
        Study(**{"name": "smoke"} | options)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_arguments_change_the_profile(study):
    tiny = study(image_size=48, seeds=3)
    assert (tiny.profile.image_size, tiny.profile.test_size) == (48, 48)
    assert tiny.profile.seeds == (0, 1, 2)


def test_nothing_is_written_outside_the_given_folders(study, tmp_path):
    tiny = study()
    tiny.describe(tiny.start("resnet18"), tiny.data.night)
    assert {path.name for path in tmp_path.iterdir()} == {"cache"}
    assert tiny.cache.journal == tmp_path / "cache/journals/results.jsonl"


def test_a_run_has_a_folder_of_its_own(tmp_path):
    runs = folders.clone() / "runs"
    assert (folders.clone() / "run_all.sh").exists()
    assert folders.results_of("city") == runs / "city"
    assert folders.results_of("city", tmp_path / "photos") == runs / "city-photos"
    assert folders.cache_of() == runs / "cache"


def test_outside_a_clone_the_study_says_what_it_needs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    module = tmp_path / "site-packages/vgeo/study/folders.py"
    monkeypatch.setattr(folders, "__file__", str(module))
    with pytest.raises(VgeoError, match="not in a clone of vgeo.*run_all.sh"):
        folders.clone()


@pytest.mark.parametrize(
    "part, name, value",
    [
        (Training, "epochs", 0),
        (Training, "iterations", 1.5),
        (Training, "lr_model", math.nan),
        (profiles.Testing, "radius", math.inf),
        (ClassSizes, "cell", -10.0),
        (Profile, "image_size", 0),
    ],
)
def test_a_profile_refuses_numbers_nothing_can_be_computed_with(part, name, value):
    fields = {Training: "training", profiles.Testing: "testing", ClassSizes: "classes"}
    changes = {name: value} if part is Profile else {fields[part]: part(**{name: value})}
    with pytest.raises(VgeoError, match=f"profile x: {name} is"):
        Profile("x", **changes)


def test_the_paper_profile_holds_the_facts_of_the_original():
    paper = profile("paper")
    assert paper.weights == "imagenet" and paper.image_size == 512 and paper.test_size is None
    assert paper.classes == ClassSizes(10.0, 30.0, 5, 2, 10)
    assert paper.training == Training(3, 10_000, 32, 1e-5, 0.01)
    assert (paper.testing.radius, paper.testing.rerank) == (25.0, 5)
    assert paper.grl.weight == 0.3
    warp = paper.geowarp
    assert (warp.k, warp.near, warp.alone) == (0.6, 1.2, None)
    losses = (warp.self_supervised_weight, warp.feature_wise_weight, warp.consistency_weight)
    assert losses == (1.0, 10.0, 0.1)
    assert paper.counts["classes"] == 5_965


def test_counts_of_the_original_are_those_of_its_logs():
    counts = profile("paper").counts
    for row in logged().itertuples():
        assert counts[row.dataset, "test", "queries"] == row.queries


def test_every_cell_of_the_original_has_a_row():
    cells = printed()
    for number, rows in TABLES.items():
        known = cells[cells["table"] == number]["condition"].unique()
        assert [condition for condition in rows if condition in set(known)] == list(known)


def test_rows_name_models_that_exist():
    every = [row for rows in TABLES.values() for row in rows.values()]
    parts = [each for row in every if isinstance(row, Fusion) for each in (row.first, row.second)]
    for row in [row for row in every if isinstance(row, Evaluation)] + parts:
        assert backbone_of(row.model) in ("resnet18", "efficientnet_v2_s")
        if row.rerank:
            assert TRAININGS[row.model].technique is not None
        assert row.brightness("sf-xs") == 1.0 and row.brightness("tokyo-night") == row.night


def test_costs_belong_to_a_machine(monkeypatch, tmp_path):
    recipes = []

    def step(kind, label, recipe, make, code, together):
        recipes.append(json.loads(json.dumps(recipe)))
        (tmp_path / "costs.json").write_text('{"GRL training": 1.5}')
        return tmp_path

    dataset = SimpleNamespace(name="x", queries=SimpleNamespace(paths=[]), database=[0])
    evaluations = SimpleNamespace(
        profile=profile("smoke"),
        trainings=SimpleNamespace(train=lambda name: SimpleNamespace(weights=name)),
        data=SimpleNamespace(test_sets={"x": dataset}),
        descriptions=SimpleNamespace(hash=lambda path: path),
    )
    cache = SimpleNamespace(step=step)
    assert costs.measure_costs(evaluations, cache) == {"GRL training": 1.5}
    costs.measure_costs(evaluations, cache)
    assert recipes[0] == recipes[1] and {"name", "processor", "cores"} <= set(recipes[0]["machine"])
    monkeypatch.setattr("platform.node", lambda: "another")
    costs.measure_costs(evaluations, cache)
    assert recipes[2] != recipes[0]


def test_a_name_that_no_training_has(study, refused):
    refused(lambda: study().train("CosFaces"), "'CosFaces'", "CosFace, SphereFace")


def test_a_model_without_a_regression_cannot_rerank(study, refused):
    tiny = study()
    start = tiny.start("resnet18")
    result = tiny.search(start, tiny.data.test_sets["sf-xs"])
    refused(lambda: tiny.rerank(start, result), "start of resnet18", "GeoWarp")
    refused(lambda: tiny.load_warp(start), "start of resnet18", "GeoWarp")


def test_smoke_and_city_differ_from_the_paper_where_they_say(tmp_path):
    for name in ("smoke", "city"):
        small = PROFILES[name]
        assert small.stores_trunk and small.city.size == small.image_size
        assert replace(small, image_size=512).stores_trunk is False
    assert not PROFILES["paper"].stores_trunk
    lines, complete = layout.check(tmp_path, PROFILES["paper"].counts, PROFILES["paper"].classes)
    assert not complete and any("sf-xs train: missing" in line for line in lines)
    assert np.isfinite(PROFILES["paper"].disk_gb)
