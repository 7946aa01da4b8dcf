"""What the notebooks compute beside the tables, against closed forms and counting by hand."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from vgeo.models.geowarp import Regression, local_features
from vgeo.photos.places import pair_up
from vgeo.photos.tables import read_photos
from vgeo.report import claims, measures, original
from vgeo.report.page import HEADLINES
from vgeo.report.tables import COLUMNS
from vgeo.retrieval.metrics import interval
from vgeo.study.evaluation import Result


@pytest.fixture
def dataset(tmp_path, make_photos):
    """A database of six photos, 20 m apart, and three queries: one is far from all of them."""
    make_photos(tmp_path / "database", [550_000.0 + 20 * k for k in range(6)])
    make_photos(tmp_path / "queries", [550_000.0, 550_050.0, 551_000.0])
    photos = {name: read_photos(tmp_path / name) for name in ("queries", "database")}
    return pair_up("sf-xs", **photos)


def hits(right, count):
    """A Result of `count` queries of which the first `right` are right at once."""
    first = np.where(np.arange(count) < right, 0, 3)
    return Result(None, np.zeros((count, 5), int), np.zeros((count, 5)), first)


def test_counts_and_chance_of_a_data_set(dataset):
    # within 25 m: 0 and 20 m of the first query, 40 and 60 m (both 10 m away) of the second
    row = measures.dataset_counts({"sf-xs": dataset}).loc["sf-xs"]
    assert row[["queries", "database", "without a positive"]].tolist() == [3, 6, 1]
    assert row["positives per query (median)"] == 2
    assert row["chance R@1, %"] == pytest.approx(100 * (2 / 6 + 2 / 6 + 0) / 3, abs=0.01)


def test_recalls_of_every_condition_data_set_and_rank():
    results = {"a": {"sf-xs": hits(6, 10), "tokyo-xs": hits(1, 4)}, "b": {"sf-xs": hits(0, 10)}}
    table = measures.recalls(results, (1, 5))
    assert table["value"].tolist() == [60, 100, 25, 100, 0, 100]
    assert table["metric"].tolist() == ["R@1", "R@5"] * 3
    ends = interval(np.arange(10) < 6)
    assert table.loc[0, ["ci_low", "ci_high"]].tolist() == pytest.approx(ends, abs=0.005)


def test_every_seed_of_a_row_stands_beside_the_original_s_value():
    results = {
        seed: {
            1: {"CosFace": {"sf-xs": hits(6 + seed, 10), "tokyo-xs": hits(1, 4)}},
            4: {"EffLite0: baseline": {"sf-xs": hits(5, 10)}},
        }
        for seed in (0, 1, 2)
    }
    rows = [("the baseline", 1, "CosFace"), ("ours alone", 4, "EffLite0: baseline")]
    table = measures.over_seeds(results, rows)
    assert len(table) == 3 * 3 and table["row"].unique().tolist() == [row[0] for row in rows]
    baseline = table[(table["row"] == "the baseline") & (table["dataset"] == "sf-xs")]
    assert baseline["seed"].tolist() == [0, 1, 2] and baseline["value"].tolist() == [60, 70, 80]
    printed = original.printed().query("table == 1 and condition == 'CosFace' and metric == 'R@1'")
    known = printed.set_index("dataset")["value"]
    assert set(baseline["published"]) == {known["sf-xs"]}
    assert table.loc[table["row"] == "ours alone", "published"].isna().all()


def test_the_headlines_are_computed_for_every_seed():
    """The notebook evaluates all seeds on the rows of the claims alone."""
    for _, table, condition in HEADLINES:
        assert condition in claims.CONDITIONS[table]


def test_best_rows_name_the_first_of_equals_and_only_what_the_original_has():
    cells = [
        (1, "CosFace", "sf-xs", "R@1", 50.0, 40.0, 60.0, 9, 52.3),
        (1, "ArcFace", "sf-xs", "R@1", 58.0, 40.0, 60.0, 9, 51.9),
        (2, "GRL", "sf-xs", "R@1", 58.0, 40.0, 60.0, 9, 52.3),
        (2, "ours alone", "sf-xs", "R@1", 99.0, 40.0, 60.0, 9, np.nan),
        (1, "CosFace", "tokyo-xs", "R@1", np.nan, np.nan, np.nan, None, 69.5),
    ]
    table = pd.DataFrame(cells, columns=COLUMNS)
    best = measures.best_rows(table).set_index("dataset")
    assert best.loc["sf-xs", "published row"] == "Table 1, CosFace"
    assert best.loc["sf-xs", "our row"] == "Table 1, ArcFace"
    assert best.loc["sf-xs", "ours"] == 58.0
    assert best.loc["tokyo-xs", "published"] == 69.5 and pd.isna(best.loc["tokyo-xs", "ours"])
    (line,) = measures.best_rows_in_words(table[table["table"] == 1])
    assert line.startswith("sf-xs: the best R@1 is 58.0, of ArcFace; ") and "52.3" in line


def test_what_training_adds_to_each_start():
    sets = {"sf-xs": 10, "tokyo-xs": 20}
    rights = {"resnet18": 4, "efficientnet_v2_s": 6, "efficientnet_lite0": 1}
    rights |= {"CosFace": 5, "EffV2s": 6, "EffLite0": 9}
    study = SimpleNamespace(
        data=SimpleNamespace(test_sets={name: name for name in sets}),
        start=lambda backbone: backbone,
        search=lambda model, dataset: hits(rights[model], sets[dataset]),
        evaluate=lambda rows: {
            name: {dataset: hits(rights[row.model], count) for dataset, count in sets.items()}
            for name, row in rows.items()
        },
        trainings=SimpleNamespace(source=lambda backbone: f"source of {backbone}"),
    )
    table = measures.starts(study)
    assert table["backbone"].tolist() == list(np.repeat(list(rights)[:3], 2))
    assert table["weights"].tolist() == [f"source of {name}" for name in table["backbone"]]
    assert table["dataset"].tolist() == list(sets) * 3 and table["queries"].tolist() == [10, 20] * 3
    assert table["start R@1"].tolist() == [40, 20, 60, 30, 10, 5]
    assert table["trained R@1"].tolist() == [50, 25, 60, 30, 90, 45]
    assert table["difference"].tolist() == [10, 5, 0, 0, 80, 40]
    ends = interval(np.arange(10) < 9)
    assert table.loc[4, ["trained ci_low", "trained ci_high"]].tolist() == pytest.approx(
        ends, abs=0.005
    )
    ends = interval(np.arange(20) < 1)
    assert table.loc[5, ["start ci_low", "start ci_high"]].tolist() == pytest.approx(
        ends, abs=0.005
    )
    # of eight queries that differ all are for it; of one, one; of none, none
    assert table["p"].tolist() == pytest.approx([1, 1, 1, 1, 2 / 2**8, 2 / 2**8], abs=1e-6)


def test_domains_are_told_apart_where_they_are_apart():
    random = np.random.default_rng(0)
    night = np.arange(300) % 3 == 2
    x = random.normal(size=(300, 16))
    assert 50 < measures.domains_told_apart(x, night) < 75  # "day" is right for two thirds
    apart = x + 20 * night[:, None]
    assert measures.domains_told_apart(apart, night) == 100


def test_told_apart_counts_held_out_rows_as_a_ridge_solved_by_hand_does():
    random = np.random.default_rng(1)
    night = random.random(90) < 0.4
    x = random.normal(size=(90, 6)) + 0.8 * night[:, None]
    right = []
    for k in range(15):
        held = np.arange(90) % 15 == k
        a, b = x[~held], np.where(night[~held], 1.0, -1.0)
        centre = a - a.mean(0)  # the constant is not shrunk
        w = np.linalg.solve(centre.T @ centre + np.eye(6), centre.T @ (b - b.mean()))
        right += ((x[held] - a.mean(0)) @ w + b.mean() > 0).__eq__(night[held]).tolist()
    assert measures.domains_told_apart(x, night) == pytest.approx(100 * np.mean(right))


def test_mean_brightness_counts_every_photo_once(tmp_path, make_photos):
    for folder, values in (("day", [(8, 200), (40, 100)]), ("night", [(8, 60)])):
        paths = make_photos(
            tmp_path / folder, [550_000.0 + k for k in range(len(values))], suffix=".png"
        )
        for path, (side, value) in zip(paths, values, strict=True):
            Image.new("RGB", (side, side), (value, value, value)).save(path)
    table = measures.mean_brightness({f: read_photos(tmp_path / f) for f in ("day", "night")})
    assert table["mean pixel value"].tolist() == [150, 60]
    assert table["of the database's"].tolist() == pytest.approx([1, 0.4])
    assert len(measures.mean_brightness({})) == 0


def test_by_domain_averages_the_shifted_sets():
    results = {"sf-xs": hits(5, 10), "tokyo-xs": hits(4, 8), "tokyo-night": hits(1, 4)}
    rows = measures.by_domain(results)
    assert rows["value"].to_dict() == {"sf-xs": 50, "shifted": (50 + 25) / 2}
    low = [interval(results[name].right(1))[0] for name in ("tokyo-xs", "tokyo-night")]
    assert rows.loc["shifted", "ci_low"] == pytest.approx(np.mean(low))
    assert measures.by_domain({"tokyo-xs": hits(4, 8)}).loc["sf-xs"].isna().all()
    assert measures.by_domain({"sf-xs": hits(4, 8)}).loc["shifted"].isna().all()


def test_soup_paths_run_from_one_training_to_the_other():
    rights = {"a": 2, "b": 8, ("a", "b", 0.5, 0.5): 6, "c": 3}
    rights |= {("a", "c", 0.5, 0.5): 4, ("b", "c", 0.5, 0.5): 5}
    datasets = {name: SimpleNamespace(name=name) for name in ("sf-xs", "tokyo-xs")}
    study = SimpleNamespace(
        data=SimpleNamespace(test_sets=datasets),
        train=lambda name: name,
        soup=lambda names, shares: (*names, *shares),
        search=lambda model, dataset: hits(rights[model], 10 if dataset.name == "sf-xs" else 20),
    )
    table = measures.soup_paths(study, ["a", "b", "c"], (0.5,))
    assert table["share"].tolist() == [0, 0.5, 1] * 3
    assert table["sf-xs"].tolist() == [20, 60, 80, 20, 40, 30, 80, 50, 30]
    assert table["shifted"].tolist() == (table["sf-xs"] / 2).tolist()


def test_a_regression_that_was_not_trained_has_the_error_of_the_identity(dataset):
    maps = torch.nn.Conv2d(3, 8, 3, stride=4)
    warp = SimpleNamespace(
        local=lambda images: local_features(maps(images)), regression=Regression().eval()
    )
    profile = SimpleNamespace(image_size=64, geowarp=SimpleNamespace(k=0.6))
    study = SimpleNamespace(
        profile=profile,
        data=SimpleNamespace(val=dataset),
        train=lambda name: name,
        load_warp=lambda name: warp,
    )
    table = measures.corner_errors(study, ["GeoWarp"], count=4)
    assert len(table) == 3 and table["pairs"].tolist() == [4, 4, 4]
    assert table["mean corner error"].nunique() == 1 and table["mean corner error"][0] > 0.05


def test_margins_lower_the_cosine_of_the_true_class():
    scores = measures.margin_scores(["CosFace", "ArcFace"], range(0, 121, 30))
    cosines = np.cos(np.radians(scores.index))
    np.testing.assert_allclose(scores["CosFace"], cosines - 0.4)
    np.testing.assert_allclose(scores["ArcFace"], np.cos(np.radians(scores.index) + 0.5))
