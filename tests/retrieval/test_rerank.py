"""Scores of pairs against one pair at a time; re-ranking against sorting."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from vgeo.errors import VgeoError
from vgeo.models.geowarp import GRID, Regression, local_features, symmetric, warp
from vgeo.models.network import normalise
from vgeo.photos.images import load_image
from vgeo.retrieval.metrics import first_hit, recall
from vgeo.retrieval.rerank import pair_scores, rerank


@pytest.fixture(scope="module")
def regression():
    """A regression whose answers depend on its input, in evaluation mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        regression = Regression()
        torch.nn.init.normal_(regression.linear.weight, std=0.03)
        a, b = F.normalize(torch.randn(2, 4, 6, GRID, GRID), dim=2)
    for layer in regression.layers:
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = None  # takes the statistics of what it sees next
    with torch.no_grad():
        regression(a, b)
    return regression.eval()


@pytest.fixture(scope="module")
def album(tmp_path_factory, make_photos):
    """Paths of 4 queries and 5 database images, and a stand-in for the network's local features.

    `seen` counts the images that went through `local`, a batch an entry.
    """
    paths = make_photos(tmp_path_factory.mktemp("album"), 552_000.0 + np.arange(9), suffix=".png")
    paths, seen = [str(path) for path in paths], []
    mixing = torch.randn(5, 3, 3, 3, generator=torch.Generator().manual_seed(0))

    def local(images):
        seen.append(len(images))
        return local_features(F.conv2d(images, mixing, stride=2))

    return SimpleNamespace(queries=paths[:4], database=paths[4:], local=local, seen=seen)


PAIRS = np.array([(0, 4), (0, 1), (2, 4), (2, 2), (0, 0), (3, 1), (1, 1), (1, 0)])


@torch.no_grad()
def score(album, regression, pair, brightness, warped):
    """The score of one pair, with images brightened by numpy."""
    one = load_image(album.queries[pair[0]], 32)[None]
    two = load_image(album.database[pair[1]], 32)[None]
    if brightness != 1:
        bright = np.clip(np.rint(two.numpy() * np.float32(brightness)), 0, 255)
        two = torch.from_numpy(bright.astype(np.uint8))
    one, two = normalise(one), normalise(two)
    a, b = album.local(one), album.local(two)
    if warped:
        points = symmetric(regression, a, b)
        a, b = album.local(warp(one, points[:, 0])), album.local(warp(two, points[:, 1]))
    return (a * b).sum().item() / GRID**2


@pytest.mark.parametrize("brightness", [1.0, 1.7])
@pytest.mark.parametrize("warped", [True, False])
def test_pair_scores_against_one_pair_at_a_time(album, regression, brightness, warped):
    album.seen.clear()
    arguments = album.local, regression, album.queries, album.database, PAIRS, 32
    found = pair_scores(*arguments, brightness, warped, chunk=5, batch_size=4)
    assert max(album.seen) <= 4 and found.dtype == np.float32
    # each image is encoded once, 4 queries and 4 database images, and once more for each warp
    assert sum(album.seen) == (4 + 4) + (2 * len(PAIRS) if warped else 0)
    expected = [score(album, regression, pair, brightness, warped) for pair in PAIRS]
    assert np.ptp(expected) > 0.02
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_pair_scores_in_bfloat16(album, regression):
    arguments = album.local, regression, album.queries, album.database, PAIRS, 32
    whole, rough = (pair_scores(*arguments, precision=name) for name in ("float32", "bf16"))
    assert not np.array_equal(rough, whole)
    np.testing.assert_allclose(rough, whole, atol=0.1)


def test_pair_scores_at_the_edges(album):
    arguments = album.local, Regression().eval(), album.queries, album.queries
    same = pair_scores(*arguments, np.array([(0, 0), (3, 3)]), 32)
    np.testing.assert_allclose(same, 1, atol=1e-4)  # an image is like itself
    assert pair_scores(*arguments, np.empty((0, 2), int), 32).shape == (0,)
    for pair in [(0, 4), (4, 0), (-1, 0)]:
        with pytest.raises(VgeoError, match="outside the 4 queries and 4 database images"):
            pair_scores(*arguments, np.array([pair]), 32)


@settings(deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 8))
def test_rerank_sorts_the_first_k_alone(seed, k):
    rng = np.random.default_rng(seed)
    predictions = np.array([rng.permutation(20)[:8] for _ in range(5)])
    scores = rng.integers(0, 3, (5, k)).astype(np.float32)  # many ties
    kept = predictions.copy()
    found, order = rerank(predictions, scores, k)
    assert np.array_equal(predictions, kept)
    for row, before, score, places in zip(found, predictions, scores, order):
        expected = sorted(range(k), key=lambda i: (-score[i], i))
        assert places.tolist() == expected
        assert row.tolist() == [before[i] for i in expected] + before[k:].tolist()
    positives = [rng.permutation(20)[: rng.integers(4)] for _ in range(5)]
    before, after = first_hit(predictions, positives), first_hit(found, positives)
    assert all(recall(before, n) == recall(after, n) for n in range(k, 9))


def test_rerank_names_what_is_wrong():
    predictions = np.arange(12).reshape(3, 4)
    for scores, k in [(np.zeros((3, 2)), 3), (np.zeros((2, 3)), 3), (np.zeros((3, 5)), 5)]:
        with pytest.raises(VgeoError, match="one score for each"):
            rerank(predictions, scores, k)
    with pytest.raises(VgeoError, match="score of query 1 is not finite"):
        rerank(predictions, np.array([[0.0], [np.nan], [0.0]]), 1)
