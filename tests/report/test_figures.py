"""Figures: artists hold the numbers of the data, panels are full, words do not overlap."""

from itertools import combinations, product

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.text import Text

from vgeo.models.geowarp import IDENTITY, Regression, local_features
from vgeo.models.network import build
from vgeo.photos.places import pair_up
from vgeo.photos.tables import read_photos
from vgeo.report import figures
from vgeo.report.section import Drawing
from vgeo.report.tables import COLUMNS
from vgeo.retrieval.metrics import interval
from vgeo.study.evaluation import Result
from vgeo.study.rows import FAMILIES, TABLES, conditions_of
from vgeo.training.losses import MARGINS

SETS = {"sf-xs": 40, "tokyo-xs": 60, "tokyo-night": 20}


def random_table(number, conditions, datasets=SETS, metrics=("R@1", "R@5"), seed=0):
    """A table in long form with random recalls; the last condition is not in the original."""
    random, rows = np.random.default_rng(seed), []
    for condition in conditions:
        for dataset in datasets:
            for metric in metrics:
                right = random.random(SETS[dataset]) < random.random()
                low, high = interval(right)
                published = np.nan if condition == conditions[-1] else 100 * random.random()
                cells = [100 * right.mean(), low, high, len(right), published]
                rows.append([number, condition, dataset, metric, *cells])
    return pd.DataFrame(rows, columns=COLUMNS).astype({"queries": "Int64"})


@pytest.fixture
def dataset(tmp_path, make_photos):
    """Twelve database photos on a curved street, and four queries near some of them."""
    street = [(550_000.0 + 20 * k, 4_173_551.0 + 2 * k * k) for k in range(12)]
    make_photos(tmp_path / "database", street)
    make_photos(tmp_path / "queries", [street[k] for k in (0, 2, 6, 10)], [0, 2, 6, 3])
    photos = {name: read_photos(tmp_path / name) for name in ("queries", "database")}
    return pair_up("sf-xs", **photos)


@pytest.fixture
def result(dataset):
    """The first predictions of queries 0 and 2 are right, those of 1 and 3 wrong."""
    predictions = np.array([[0, 5, 6, 7, 8, 9], [9, 2, 0, 4, 5, 6]] * 2)
    predictions[2, 0], predictions[2, 2], predictions[3, 0] = 6, 3, 1
    distances = np.linspace(0.1, 1.2, 24, dtype=np.float32).reshape(4, 6)
    return Result.of(dataset, predictions, distances)


def words_of(figure):
    """All texts that are drawn, with their boxes in pixels."""
    figure.draw_without_rendering()
    hidden = set()
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks()):
                if not low <= tick.get_loc() <= high or not axis.get_visible() or not axes.axison:
                    hidden |= {tick.label1, tick.label2}
    texts = [text for text in figure.findobj(Text) if text not in hidden and text.get_visible()]
    return [(t.get_text(), t.get_window_extent()) for t in texts if t.get_text().strip()]


def check(drawing, panels, photos=False):
    """What holds for all figures; returns the panels' axes."""
    assert isinstance(drawing, Drawing)
    assert len(drawing.caption) > 5 and len(drawing.alt) > 60 and drawing.alt.endswith(".")
    assert drawing.photos == photos and not any(c.isspace() for c in drawing.name)
    figure = drawing.figure
    assert len(figure.axes) == panels
    for axes in figure.axes:
        full = axes.lines or axes.collections or axes.images or axes.patches or axes.texts
        assert full, f"an empty panel: {axes.get_title()}"
    for (one, a), (other, b) in combinations(words_of(figure), 2):
        assert not a.padded(-1).overlaps(b.padded(-1)), f"{one!r} overlaps {other!r}"
    for legend in figure.legends:
        box = legend.get_window_extent()
        assert not any(box.overlaps(axes.get_window_extent()) for axes in figure.axes)
    return figure.axes


def points(axes, label, upright=False):
    """The x or y of the points of a label, with the ends of their error bars."""
    handles, labels = axes.get_legend_handles_labels()
    (handle,) = (h for h, text in zip(handles, labels, strict=True) if text == label)
    if not hasattr(handle, "has_yerr"):
        return handle.get_data()[int(upright)]
    line, _, (bars,) = handle
    ends = np.array(bars.get_segments())[:, :, int(upright)]
    return line.get_data()[int(upright)], ends[:, 0], ends[:, 1]


def test_map_has_every_photo_in_metres(dataset):
    (axes,) = check(figures.data_map(dataset), 1)
    database, queries = axes.collections[:2]
    offsets = np.asarray(database.get_offsets())
    assert offsets == pytest.approx(dataset.database.xy - dataset.database.xy.min(0))
    assert len(queries.get_offsets()) == 4 and axes.get_aspect() == 1
    scale = [words for words, _ in words_of(axes.figure) if words.endswith(" m")]
    assert len(scale) == 1 and "N" in [words for words, _ in words_of(axes.figure)]


def test_scale_bar_is_as_long_as_it_says(dataset):
    axes = figures.data_map(dataset).figure.axes[0]
    (bar,) = (artist for artist in axes.artists if hasattr(artist, "size_bar"))
    metres = float(bar.txt_label.get_text().removesuffix(" m"))
    line = bar.size_bar.get_children()[0]
    assert np.ptp(line.get_path().get_extents().intervalx) == 1  # of the rectangle's width
    assert line.get_width() == metres


def test_samples_show_evenly_spread_photos(dataset):
    photos = {"sf-xs\ndatabase": dataset.database, "sf-xs\nqueries": dataset.queries}
    axes = check(figures.samples(photos, 4), 8, photos=True)
    assert axes[0].get_ylabel() == "sf-xs\ndatabase" and axes[4].get_ylabel() == "sf-xs\nqueries"
    images = [np.array(each.images[0].get_array()) for each in axes]
    first, last = dataset.database.paths[0], dataset.database.paths[-1]
    assert (images[0] == figures.load_image(first).permute(1, 2, 0).numpy()).all()
    assert (images[3] == figures.load_image(last).permute(1, 2, 0).numpy()).all()


def test_positives_count_every_query(dataset):
    axes = check(figures.positives({"sf-xs val": dataset, "sf-xs": dataset}), 2)
    for each in axes:
        assert sum(bar.get_height() for bar in each.patches) == len(dataset.queries)


def test_margins_are_those_of_the_losses():
    (axes,) = check(figures.loss_margins(list(MARGINS)), 1)
    lines = {line.get_label(): line.get_data() for line in axes.lines}
    degrees, plain = lines["no margin"]
    assert plain == pytest.approx(np.cos(np.deg2rad(degrees)), abs=1e-6)
    assert lines["CosFace"][1] == pytest.approx(plain - 0.4, abs=1e-6)
    assert all((lines[name][1] < plain + 1e-6).all() for name in ("CosFace", "SphereFace"))


def test_learning_curves_show_losses_and_the_intervals_of_the_epochs():
    log = pd.DataFrame({"iteration": [0, 10, 20, 30], "loss": [np.nan, 9.0, 7.0, 6.5]})
    log["val_R@1"] = [50.0, np.nan, 75.0, np.nan]
    logs = {"CosFace": log, "GRL": log.assign(loss=log["loss"] + 1), "EffV2s": log}
    left, right = check(figures.learning_curves("name", "Training", logs, 40), 2)
    assert [line.get_ydata().tolist() for line in left.lines] == [
        [9, 7, 6.5],
        [10, 8, 7.5],
        [9, 7, 6.5],
    ]
    assert len(right.containers) == 3
    for k, (line, _, (bars,)) in enumerate(right.containers):
        assert line.get_ydata().tolist() == [50, 75]
        assert line.get_xdata() == pytest.approx([0, 20], abs=0.5)
        ends = np.array(bars.get_segments())[:, :, 1]
        assert ends[0] == pytest.approx(interval(np.arange(40) < 20)), k
        assert ends[1] == pytest.approx(interval(np.arange(40) < 30))
    xs = [container[0].get_xdata()[0] for container in right.containers]
    assert len(set(xs)) == 3, "bars lie on each other"


def test_figure_1_states_the_shapes_that_the_modules_make():
    (axes,) = check(figures.reversal_pipeline(96, 0.25), 1)
    text = "\n".join(words for words, _ in words_of(axes.figure))
    assert "3 x 96 x 96" in text and "128 x 12 x 12" in text and "512 x 3 x 3" in text
    assert "GeM" in text and "Discriminator 50-20-2" in text and "cross-entropy × 0.25" in text
    boxes = [
        each.get_bbox_patch().get_window_extent() for each in axes.texts if each.get_bbox_patch()
    ]
    assert len(boxes) == 7 and not any(a.overlaps(b) for a, b in combinations(boxes, 2))
    frame = axes.get_window_extent()
    assert all(frame.x0 <= box.x0 and box.x1 <= frame.x1 for box in boxes), "a box is cut off"


def test_discriminator_accuracy_is_in_percent():
    log = pd.DataFrame({"iteration": [0, 10, 20], "domain_accuracy": [np.nan, 0.5, 0.75]})
    logs = {"GRL": log, "EffLite0 + GRL": log.assign(domain_accuracy=[np.nan, 1, 0.25])}
    (axes,) = check(figures.discriminator_accuracy(logs), 1)
    drawn = {line.get_label(): list(line.get_ydata()) for line in axes.lines}
    assert drawn == {"GRL": [50, 75], "EffLite0 + GRL": [100, 25], "chance": [50, 50]}


def test_geowarp_training_has_a_panel_for_each_loss_that_was_used():
    log = pd.DataFrame({"iteration": [10, 20], "self_supervised": [1, 0.5], "feature_wise": [2, 1]})
    drawing = figures.geowarp_training("geowarp_training", "GeoWarp", log)
    assert drawing.name == "geowarp_training" and "GeoWarp" in drawing.alt
    axes = check(drawing, 2)
    assert [each.lines[0].get_ydata().tolist() for each in axes] == [[1, 0.5], [2, 1]]
    assert axes[1].get_title() == "feature-wise loss"


def test_recalls_and_published_values_are_where_the_table_says():
    conditions = list(TABLES[5])
    table = random_table(5, conditions)
    axes = check(figures.compare_recalls(table, "three backbones"), 3)
    assert [label.get_text() for label in axes[0].get_yticklabels()] == conditions
    for each, dataset in zip(axes, SETS, strict=True):
        assert each.get_title() == f"{dataset} (n = {SETS[dataset]})"
        for metric in ("R@1", "R@5"):
            cells = table[(table["dataset"] == dataset) & (table["metric"] == metric)]
            values, low, high = points(each, f"{metric}, ours")
            assert values == pytest.approx(cells["value"])
            assert low == pytest.approx(cells["ci_low"]) and high == pytest.approx(cells["ci_high"])
            published = points(each, f"{metric}, published")
            assert published == pytest.approx(cells["published"], nan_ok=True)
            rows = points(each, f"{metric}, ours", upright=True)[0]
            assert rows.round().tolist() == list(range(len(conditions)))
        divider = each.lines[-1].get_ydata()
        assert list(divider) == [len(conditions_of(5, FAMILIES[0])) - 0.5] * 2


@pytest.mark.parametrize("number", [7, 8])
def test_the_words_of_every_table_s_chart_keep_apart(number):
    table = random_table(number, list(TABLES[number]), seed=number)
    check(figures.compare_recalls(table, "both families"), 3)
    alone = random_table(number, conditions_of(number, FAMILIES[1]), seed=number)
    check(figures.compare_recalls(alone, "one family"), 3)


def test_an_absent_data_set_has_no_panel_and_none_at_all_no_figure():
    table = random_table(2, ["baseline", "GRL"])
    table.loc[table["dataset"] == "tokyo-xs", ["value", "ci_low", "ci_high"]] = np.nan
    assert [axes.get_title() for axes in check(figures.compare_recalls(table, "GRL"), 2)] == [
        "sf-xs (n = 40)",
        "tokyo-night (n = 20)",
    ]
    nothing = table.assign(value=np.nan)
    assert figures.compare_recalls(nothing, "GRL") is None
    assert figures.multiscale({8: nothing}, {8: "GRL"}, FAMILIES[0]) is None
    none = random_table(3, list(TABLES[3]))[:0]
    assert figures.brightness_curve(none, TABLES[3], FAMILIES[0]) is None
    assert figures.claims_chart("claims", "Claims", claims_ledger()[:0], FAMILIES[0]) is None


@pytest.mark.parametrize(
    ("family", "name", "models"),
    [
        (FAMILIES[0], "brightness_curve", {"baseline": "CosFace", "GRL": "GRL"}),
        (
            FAMILIES[1],
            "brightness_curve_efflite0",
            {"EffLite0: baseline": "EffLite0", "EffLite0: GRL": "EffLite0 + GRL"},
        ),
    ],
)
def test_brightness_curves_follow_the_factors(family, name, models):
    table = random_table(3, list(TABLES[3]), ["tokyo-night"])
    drawing = figures.brightness_curve(table, TABLES[3], family)
    axes = check(drawing, 2)
    assert drawing.name == name and family in drawing.caption
    factors = sorted({row.night for row in TABLES[3].values()})
    for each, metric in zip(axes, ("R@1", "R@5"), strict=True):
        assert len([text for text in each.get_legend_handles_labels()[1] if "ours" in text]) == 2
        for model, words in models.items():
            label = f"{words}, ours"
            cells = table[table["metric"] == metric].set_index("condition")
            order = [
                f"{model} brightness={f:g}" if f < 1 else f"{model} brightness=none"
                for f in factors
            ]
            values, low, high = points(each, label, upright=True)
            assert values == pytest.approx(cells.loc[order, "value"])
            assert low == pytest.approx(cells.loc[order, "ci_low"])
            handles, labels = each.get_legend_handles_labels()
            line = handles[labels.index(label)][0]
            assert line.get_xdata() == pytest.approx(factors, rel=0.05)


def test_multiscale_grid_has_a_row_a_data_set_and_a_column_a_table():
    models = {8: "ResNet18 + GRL", 9: "ResNet18 + GeoWarp", 12: "SIF"}
    long = {n: random_table(n, list(TABLES[n]), ["sf-xs", "tokyo-night"], seed=n) for n in models}
    axes = check(figures.multiscale(long, models, FAMILIES[0]), 6)
    cells = long[9].query("dataset == 'tokyo-night' and metric == 'R@1'").set_index("condition")
    methods = ["/", "avg", "sum", "max", "min"]
    values, low, high = points(axes[4], "ours", upright=True)
    assert values == pytest.approx(cells.loc[methods, "value"])
    assert high == pytest.approx(cells.loc[methods, "ci_high"])
    assert points(axes[4], "published", upright=True) == pytest.approx(
        cells.loc[methods, "published"]
    )
    long[9] = long[9].assign(published=np.nan)
    again = figures.multiscale(long, models, FAMILIES[1])
    axes = check(again, 6)
    assert again.name == "multiscale_efflite0"
    values, low, high = points(axes[4], "ours", upright=True)
    assert values == pytest.approx(cells.loc[[f"EffLite0: {each}" for each in methods], "value"])
    assert axes[4].get_legend_handles_labels()[1] == ["ours"], "published values that are not"


def hits(dataset, right, count):
    """A Result of `count` queries of which the first `right` are right."""
    first = np.where(np.arange(count) < right, 0, 5)
    return Result(dataset, np.zeros((count, 5), int), np.zeros((count, 5)), first)


def test_soups_lie_at_their_recalls():
    rights = {"CosFace": (20, 30, 8), "ArcFace": (22, 24, 6), "SphereFace": (10, 12, 4)}
    rights |= {"Model Soup": (25, 33, 9), "uniform soup": (24, 36, 7)}
    results = {
        name: {s: hits(None, n, count) for n, (s, count) in zip(right, SETS.items(), strict=True)}
        for name, right in rights.items()
    }
    paths = pd.DataFrame(
        [["CosFace", "ArcFace", share, 50 + 5 * share, 45 - 10 * share] for share in (0, 0.5, 1)],
        columns=["from", "to", "share", "sf-xs", "shifted"],
    )
    (axes,) = check(figures.soups(paths, results, FAMILIES[0]), 1)
    dots = {each.get_label(): each.get_offsets().tolist() for each in axes.collections}
    assert dots["between two"] == [[52.5, 40]]
    for name, (a, b, c) in rights.items():
        assert dots[name] == [pytest.approx([100 * a / 40, 50 * (b / 60 + c / 20)])]
    assert axes.lines[0].get_xdata().tolist() == [50, 52.5, 55]
    assert figures.soups(paths, {"CosFace": {"sf-xs": hits(None, 3, 40)}}, FAMILIES[0]) is None
    again = {f"EffLite0: {name}": of_sets for name, of_sets in results.items()}
    drawings = [
        figures.soups(paths, each, family)
        for each, family in zip((results, again), FAMILIES, strict=True)
    ]
    assert [drawing.name for drawing in drawings] == ["figure_04", "figure_04_efflite0"]
    check(drawings[1], 1)


def claims_ledger():
    """Eight claims in each family, some of three lines, with effects of every verdict; one without
    results.
    """
    random, rows = np.random.default_rng(3), []
    long = ", ".join(f"ResNet18 + variation {k}" for k in range(6))
    for family, k in product(FAMILIES, range(8)):
        name = "a condition" if family == FAMILIES[0] else f"{family}: a condition"
        claim = f"Table {k + 1}: {name} better than {long if k % 3 == 0 else 'baseline'}"
        for dataset, metric in product(SETS, ("R@1", "R@5")):
            effect = random.normal(0, 8)
            verdict = ["reproduced", "contradicted", "not decidable"][k % 3]
            numbers = [effect, effect - 4, effect + 5, 2.0]
            rows.append([claim, family, dataset, metric, *numbers, verdict])
    cost = ["ratio of times", 1.6, np.nan, np.nan, 1.5, "reproduced"]
    rows.append(["training", FAMILIES[0], "", *cost])
    columns = ["claim", "family", "dataset", "metric", "effect", "ci_low", "ci_high", "reported"]
    return pd.DataFrame(rows, columns=[*columns, "verdict"])


@pytest.mark.parametrize(
    ("family", "name"), list(zip(FAMILIES, ("claims", "claims_efflite0"), strict=True))
)
def test_claims_are_marked_at_their_effects(family, name):
    ledger = claims_ledger()
    drawing = figures.claims_chart("claims", "The claims", ledger, family)
    axes = check(drawing, 3)
    assert drawing.name == name and drawing.caption == f"The claims, with {family}"
    labels = [label.get_text() for label in axes[0].get_yticklabels()]
    assert len(labels) == 8 and all(text.split(": ")[1][:11] == "a condition" for text in labels)
    for each, dataset in zip(axes, SETS, strict=True):
        rows = ledger[(ledger["dataset"] == dataset) & (ledger["family"] == family)]
        for verdict in ("reproduced", "contradicted", "not decidable"):
            expected = rows.loc[rows["verdict"] == verdict, "effect"]
            assert points(each, verdict) == pytest.approx(expected)
        bars = np.concatenate([bars.get_segments() for bars in each.collections])
        assert np.sort(bars[:, 0, 0]) == pytest.approx(np.sort(rows["ci_low"]))
        assert np.sort(bars[:, 1, 0]) == pytest.approx(np.sort(rows["ci_high"]))
        y = points(each, "in the original", upright=True)
        assert (np.diff(y.reshape(-1, 2)) > 0).all(), "R@5 is not below R@1"


@pytest.mark.parametrize("seeds", [1, 3])
def test_the_original_s_point_lies_over_our_seeds(seeds):
    rows = [
        (words, dataset, seed, 40.0 + 5 * k + seed, 30.0, 60.0, SETS[dataset], published)
        for k, (words, published) in enumerate([("the baseline", 52.3), ("ours alone", np.nan)])
        for dataset in SETS
        for seed in range(seeds)
    ]
    columns = ["row", "dataset", "seed", "value", "ci_low", "ci_high", "queries", "published"]
    table = pd.DataFrame(rows, columns=columns)
    for axes, dataset in zip(check(figures.over_seeds(table), 3), SETS, strict=True):
        assert axes.get_title() == f"{dataset} (n = {SETS[dataset]})"
        *ours, original = axes.lines
        assert [line.get_xdata().tolist() for line in ours] == [
            [40.0 + seed, 45.0 + seed] for seed in range(seeds)
        ]
        assert original.get_xdata()[0] == 52.3 and np.isnan(original.get_xdata()[1])
        assert original.get_ydata().tolist() == [0, 1]
        (bars,) = axes.collections
        assert [s[:, 0].tolist() for s in bars.get_segments()] == [[30, 60], [30, 60]]
    assert figures.over_seeds(table.iloc[:0]) is None


def test_descriptor_space_shows_the_directions_of_most_variance():
    random = np.random.default_rng(0)
    night = np.arange(60) % 3 == 2
    x = random.normal(size=(60, 8)) * [1, 9, 1, 5, 1, 1, 1, 1]
    told = {"CosFace": 81.4, "GRL": 55.0}
    axes = check(figures.descriptor_space({"CosFace": x, "GRL": -x}, night, told), 2)
    day, dark = axes[0].collections
    assert len(day.get_offsets()) == 40 and len(dark.get_offsets()) == 20
    values = np.linalg.svd(x - x.mean(0), compute_uv=False)  # the same variance by another way
    flat = np.concatenate([day.get_offsets(), dark.get_offsets()])
    assert np.linalg.norm(flat, axis=0) == pytest.approx(values[:2])
    assert axes[0].get_title().endswith("81 %") and axes[1].get_title().endswith("55 %")


def test_brightness_strip_darkens_from_left_to_right(dataset):
    photos = dataset.database.take([0, 5])
    axes = check(figures.brightness_strip(photos, (1.0, 0.5, 0.1)), 6, photos=True)
    means = np.array([each.images[0].get_array().mean() for each in axes]).reshape(2, 3)
    assert means[:, 1] == pytest.approx(means[:, 0] * 0.5, abs=1)
    assert means[:, 2] == pytest.approx(means[:, 0] * 0.1, abs=1)


class Warp:
    """A network whose regression estimates the left half of every photo."""

    def __init__(self):
        network = build("resnet18").eval()
        self.local = lambda images: local_features(network.features(images, 4))
        self.regression = Regression().eval()
        half = IDENTITY.clone()
        half[1:3, 0] = 0
        self.regression.linear.bias.data = torch.cat([half, half]).flatten()


def test_figure_3_draws_the_estimate_and_what_it_shows(result):
    axes = check(figures.warped_pairs(Warp(), result, 33, count=2), 8, photos=True)
    for row in (axes[:4], axes[4:]):
        for plain, warped in zip(row[:2], row[2:], strict=True):
            corners = plain.patches[0].get_xy()[:4]
            assert corners == pytest.approx(
                np.array([[0, 0], [16, 0], [16, 32], [0, 32]]), abs=1e-4
            )
            image = np.array(plain.images[0].get_array()) / 255
            stretched = np.array(warped.images[0].get_array())
            # every second column of the stretched photo is a column of the left half
            assert stretched[:, ::2] == pytest.approx(image[:, :17], abs=0.01)
    dataset, answer = result.dataset, result.predictions[2, 0]
    shown = (dataset.queries.paths[2], dataset.database.paths[answer])
    for each, path in zip(axes[4:6], shown, strict=True):
        expected = figures.load_image(path, 33).permute(1, 2, 0).numpy()
        assert (np.array(each.images[0].get_array()) == expected).all()


def test_gallery_marks_right_and_wrong_answers(result):
    drawing = figures.gallery(result, "CosFace")
    axes = np.array(check(drawing, 24, photos=True)).reshape(4, 6)
    for row, query in zip(axes, (0, 2, 1, 3), strict=True):  # right ones first
        for k, each in enumerate(row[1:]):
            right = result.predictions[query, k] in result.dataset.positives[query]
            assert each.get_xlabel().endswith("right" if right else "wrong")
            assert each.get_xlabel().startswith(f"{result.distances[query, k]:.2f} ")
            frame = {spine.get_linestyle() for spine in each.spines.values()}
            assert frame == {"-" if right else "--"}
    assert "2 queries whose first prediction is right, then 2" in drawing.alt


def test_a_figure_leaves_the_style_of_others_alone():
    import matplotlib

    before = dict(matplotlib.rcParams)
    figures.loss_margins(["CosFace"])
    assert dict(matplotlib.rcParams) == before
