"""The study's arguments, its folders, and its profiles."""

import json
import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from vgeo.errors import VgeoError
from vgeo.models import network
from vgeo.photos import layout
from vgeo.report.original import logged, printed
from vgeo.retrieval.describe import describe
from vgeo.study import costs, descriptions, folders, profiles
from vgeo.study.profiles import PROFILES, ClassSizes, Profile, Training, profile
from vgeo.study.rows import (
    ABLATIONS,
    FAMILIES,
    SECOND,
    SOUPS,
    TABLES,
    TRAININGS,
    Evaluation,
    Fusion,
    backbone_of,
    conditions_of,
    counterpart,
)
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
        ({"start": "coco"}, "unknown start 'coco': use imagenet, or leave it out"),
        ({"start": 7}, "unknown start 7"),
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
    assert Study("city", start="imagenet").profile == replace(PROFILES["city"], weights="imagenet")
    assert Study("city").profile == PROFILES["city"]


def test_nothing_is_written_outside_the_given_folders(study, tmp_path):
    tiny = study()
    tiny.describe(tiny.start("resnet18"), tiny.data.night)
    assert {path.name for path in tmp_path.iterdir()} == {"cache"}
    assert tiny.cache.journal == tmp_path / "cache/journals/results.jsonl"


@pytest.mark.parametrize("store", [0, 64])
def test_a_model_is_folded_once_for_all_photos(study, monkeypatch, store):
    tiny, copies = study(store_trunk=store), []
    start = tiny.start("resnet18")

    def refuse(*_, **__):
        raise AssertionError("a BatchNorm has run")

    def counted(model):
        copies.append(model)
        return network.folded(model)

    monkeypatch.setattr(torch.nn.functional, "batch_norm", refuse)
    monkeypatch.setattr(descriptions, "folded", counted)
    for photos in (tiny.data.night, tiny.data.val.queries):
        assert len(tiny.describe(start, photos)) == len(photos)
    assert len(copies) == 1
    tiny.descriptions.validate(tiny.load(start))
    assert len(copies) == 2


@pytest.mark.parametrize("store", [0, 64])
def test_photos_are_described_in_the_hardware_s_precision(study, monkeypatch, store):
    tiny = study(store_trunk=store)
    start, photos = tiny.start("resnet18"), tiny.data.night
    expected = {
        name: describe(tiny.load(start), photos.paths, 32, precision=name)
        for name in ("float32", "bf16")
    }
    apart = np.linalg.norm(expected["bf16"] - expected["float32"], axis=1).min()
    for name, whole in expected.items():
        monkeypatch.setattr(descriptions, "precision", lambda name=name: name)
        found = tiny.describe(start, photos)
        assert np.linalg.norm(found - whole, axis=1).max() < apart / 4
        assert tiny.descriptions.validation()["val_precision"] == name


def test_a_run_has_a_folder_of_its_own(tmp_path):
    runs = folders.clone() / "runs"
    assert (folders.clone() / "run_all.sh").exists()
    assert folders.results_of("city") == runs / "city"
    assert folders.results_of("city", tmp_path / "photos") == runs / "city-photos"
    assert Study("city", start="imagenet").results == runs / "city-imagenet"
    assert Study("paper", tmp_path, start="imagenet").results == runs / f"paper-{tmp_path.name}"
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
    settings = paper.whitens_head, paper.training.class_means, paper.training.keeps_statistics
    assert settings == (False, False, False)
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


def parts_of(row):
    return (row.first, row.second) if isinstance(row, Fusion) else (row,)


def test_rows_name_models_that_exist():
    every = [part for rows in TABLES.values() for each in rows.values() for part in parts_of(each)]
    for row in every:
        assert isinstance(row, Evaluation) and row.model in (TRAININGS.keys() | SOUPS.keys())
        if row.rerank:
            assert TRAININGS[row.model].technique is not None
        assert row.brightness("sf-xs") == 1.0 and row.brightness("tokyo-night") == row.night


def test_rows_of_the_second_family_differ_from_the_original_s_in_their_models_alone():
    single = []
    for number, rows in TABLES.items():
        first, second = (conditions_of(number, family) for family in FAMILIES)
        assert list(rows) == first + second and len(set(rows)) == len(rows)
        pairs = [(condition, counterpart(number, condition)) for condition in first]
        assert [other for condition, other in pairs if other != condition] == second
        single += [(number, condition) for condition, other in pairs if other == condition]
        for one, two in [(rows[name], rows[other]) for name, other in pairs if other != name]:
            assert type(one) is type(two)
            assert getattr(one, "method", None) == getattr(two, "method", None)
            for ours, theirs in zip(parts_of(one), parts_of(two), strict=True):
                assert theirs.model == SECOND[ours.model]
                assert replace(theirs, model=ours.model) == ours
                assert backbone_of(theirs.model) == "efficientnet_lite0" != backbone_of(ours.model)
    assert single == [(5, "baseline"), (5, "ResNet18 + GeoWarp"), (5, "ResNet18 + GRL")]


def test_the_second_family_s_names():
    assert conditions_of(2, "EffLite0") == ["EffLite0: baseline", "EffLite0: GRL"]
    assert conditions_of(5, "EffLite0") == [
        "EffLite0",
        "EffLite0 + GeoWarp (before re-ranking)",
        "EffLite0 + GeoWarp",
        "EffLite0 + GRL",
        "EffLite0 (no brightness filter)",
    ]
    assert counterpart(10, "avg, both sides") == "EffLite0: avg, both sides"


def test_only_tables_without_reranking_have_rows_of_the_query_side():
    for number in range(8, 14):
        rows = TABLES[number]
        sides = {part.side for row in rows.values() for part in parts_of(row)}
        warps = any(part.rerank for row in rows.values() for part in parts_of(row))
        assert sides == ({"database"} if warps else {"database", "query", "both"})
        assert len(rows) == 2 * (1 + 4 * len(sides))


def test_regressions_with_fewer_losses_are_in_no_table(study):
    """They are trained as GeoWarp is, but for the weights of the losses that they leave out."""
    profile, weights = study().profile, []
    for name in ("GeoWarp, self-supervised", "GeoWarp, no consistency"):
        row, whole = ABLATIONS[name], TRAININGS["GeoWarp"]
        assert replace(row, technique=whole.technique) == whole and name not in TRAININGS
        one, other = (each.technique(profile, None).settings for each in (row, whole))
        weights.append((one.feature_wise_weight, one.consistency_weight))
        changed = {"feature_wise_weight": other.feature_wise_weight}
        assert replace(one, consistency_weight=other.consistency_weight, **changed) == other
    assert weights == [(0, 0), (profile.geowarp.feature_wise_weight, 0)]


def test_models_of_the_second_family_are_trained_as_those_they_stand_for():
    backbones = {"resnet18", "efficientnet_v2_s"}
    originals = {name for name, row in TRAININGS.items() if row.backbone in backbones}
    assert SECOND.keys() == originals | {"Model Soup", "uniform soup"}
    for name in originals:
        one, two = TRAININGS[name], TRAININGS[SECOND[name]]
        assert two.backbone == "efficientnet_lite0"
        assert (two.margin, two.technique) == (one.margin, one.technique)
        assert two.base == (SECOND[one.base] if one.base else None)
    for name in ("Model Soup", "uniform soup"):
        assert SOUPS[name].ingredients == ("CosFace", "ArcFace", "SphereFace")
        assert backbone_of(name) == "resnet18"
        other = SOUPS[SECOND[name]]
        assert other.greedy == SOUPS[name].greedy == (name == "Model Soup")
        assert other.ingredients == ("EffLite0", "EffLite0 ArcFace", "EffLite0 SphereFace")
        assert backbone_of(SECOND[name]) == "efficientnet_lite0"


def test_a_row_whose_model_has_no_counterpart_has_none(monkeypatch):
    for name in ("ArcFace", "EffV2s + GRL"):  # as of a technique that is new in TRAININGS
        monkeypatch.delitem(SECOND, name)
    for place in ((1, "ArcFace"), (7, "GRL"), (7, "GeoWarp + GRL (NIF)"), (5, "EffV2s + GRL")):
        assert counterpart(*place) == place[1]
    assert counterpart(7, "GeoWarp") == "EffLite0: GeoWarp"


def test_costs_belong_to_a_machine(monkeypatch, tmp_path):
    recipes = []

    def step(kind, label, recipe, make, code, together):
        recipes.append(json.loads(json.dumps(recipe)))
        (tmp_path / "costs.json").write_text('{"GRL training": 1.5}')
        return tmp_path

    class Photos(SimpleNamespace):
        def __init__(self, fingerprint):
            super().__init__(fingerprint=fingerprint, paths=[])

        def __len__(self):
            return 1

    dataset = SimpleNamespace(queries=Photos("queries"), database=Photos("database"))
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
    dataset.database = Photos("another")
    costs.measure_costs(evaluations, cache)
    assert recipes[3] != recipes[2]


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
