"""The figures of notebook 09 show what they are given, and say so in words."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from vgeo.locate.confidence import percent, reliability
from vgeo.photos.places import open_dataset
from vgeo.report import locate_figures

EAST = 552_000.0


@pytest.fixture(scope="module")
def dataset(tmp_path_factory, make_photos):
    """Four database photos 40 m apart; a query 3 m east of each."""
    top = tmp_path_factory.mktemp("photos")
    for name, shift in (("database", 0), ("queries", 3)):
        make_photos(top / name, EAST + shift + 40 * np.arange(4))
    return open_dataset("sf-xs", top / "queries", top / "database")


def words(figure):
    return [axis.get_xlabel() for axis in figure.axes]


def test_the_gallery_shows_the_surest_and_the_least_sure(dataset):
    predictions = np.array([[0, 1, 2], [2, 1, 0], [2, 3, 0], [0, 2, 1]])
    similarity = np.array([[0.9, 0.8, 0.7]] * 4)
    answers = SimpleNamespace(predictions=predictions, similarity=similarity)
    confidence = np.array([0.2, 0.9, 0.6, 0.1])
    drawing = locate_figures.gallery_with_confidence(
        dataset, answers, confidence, percent, count=1, n=3
    )
    surest, least = words(drawing.figure)[:4], words(drawing.figure)[4:]
    assert surest == ["confidence 90 %", "0.90 wrong", "0.80 right", "0.70 wrong"]
    assert least == ["confidence 10 %", "0.90 wrong", "0.80 wrong", "0.70 wrong"]
    right = drawing.figure.axes[2].spines["left"]
    assert right.get_edgecolor()[:3] == pytest.approx((0, 0x72 / 255, 0xB2 / 255))
    assert drawing.photos and "first 1 queries" in drawing.alt and len(drawing.caption) > 10


def test_a_gallery_of_few_queries_and_matches(dataset):
    answers = SimpleNamespace(predictions=np.array([[0]] * 4), similarity=np.ones((4, 1)))
    drawing = locate_figures.gallery_with_confidence(dataset, answers, np.ones(4), percent, count=3)
    assert len(drawing.figure.axes) == 4 * 6  # all four queries, none twice
    assert words(drawing.figure)[0] == "confidence > 99 %"
    assert [len(axis.images) for axis in drawing.figure.axes[:6]] == [1, 1, 0, 0, 0, 0]


def test_the_calibration_shows_each_bin(dataset):
    random = np.random.default_rng(0)
    probability = random.random(200)
    rows = pd.DataFrame(reliability(probability, random.random(200) < probability))
    drawing = locate_figures.calibration({"held-out photos": rows, "queries": rows.head(3)})
    first, second = drawing.figure.axes
    assert first.get_title() == "held-out photos (200, about 20 a dot)"
    assert second.get_title() == "queries (60, about 20 a dot)"
    dots = first.containers[0].lines[0].get_xydata()
    np.testing.assert_allclose(dots, 100 * rows[["confidence", "right"]])
    bars = first.containers[0].lines[2][0].get_segments()
    np.testing.assert_allclose([bar[:, 1] for bar in bars], 100 * rows[["low", "high"]])
    assert "held-out photos and queries" in drawing.alt


@pytest.mark.parametrize("right", [[True, False, True, True], [True] * 4])
def test_the_map_leads_from_answers_to_the_truth(dataset, right):
    right = np.array(right)
    xy = dataset.database.xy + np.where(right, 0, 60)[:, None]
    drawing = locate_figures.located_map(dataset, xy, right)
    axis = drawing.figure.axes[0]
    lines = [line.get_xydata() for line in axis.lines]
    shifts = dataset.queries.xy - xy
    expected = np.concatenate([shifts[right], shifts[~right]])
    np.testing.assert_allclose([line[1] - line[0] for line in lines], expected)
    assert len(axis.collections[0].get_offsets()) == 4
    assert f"{right.sum()} answers within 25 m" in drawing.alt
    assert f"{(~right).sum()} farther" in drawing.alt
    labels = [text.get_text() for text in drawing.figure.legends[0].get_texts()]
    assert f"answer within 25 m ({right.sum()})" in labels and "database (4 photos)" in labels


def test_the_risk_curves_are_drawn_in_percent():
    curves = {"one": (np.array([0.5, 1]), np.array([0, 0.5])), "two": (np.ones(1), np.zeros(1))}
    axis = locate_figures.risk(curves).figure.axes[0]
    assert [line.get_label() for line in axis.lines] == ["one", "two"]
    np.testing.assert_allclose(axis.lines[0].get_xydata(), [[50, 0], [100, 50]])
