"""Which photos each iteration sees."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vgeo.device import Share
from vgeo.models.network import build
from vgeo.training.batches import batches, by_class, live_views

# images of each class, shuffled
labellings = (
    st.lists(st.integers(1, 4), min_size=1, max_size=9)
    .flatmap(lambda sizes: st.permutations(np.repeat(np.arange(len(sizes)), sizes).tolist()))
    .map(np.array)
)


@given(labellings)
def test_rows_by_class(labels):
    members, start = by_class(labels)
    for c in range(labels.max() + 1):
        assert members[start[c] : start[c + 1]].tolist() == np.flatnonzero(labels == c).tolist()


@settings(deadline=None, max_examples=60)
@given(labellings, st.integers(1, 5), st.integers(0, 30), st.integers(0, 9))
def test_batches(labels, batch_size, first, seed):
    classes, last = labels.max() + 1, 40
    rows = batches(labels, batch_size, 0, last, seed)
    assert len(rows) == last
    size = min(batch_size, classes)
    for batch in rows:
        assert len(batch) == size == len(set(labels[batch]))
    in_a_pass = classes // size
    for start in range(0, last - in_a_pass + 1, in_a_pass):
        seen = labels[np.concatenate(rows[start : start + in_a_pass])]
        assert len(set(seen)) == len(seen) == in_a_pass * size
    tail = batches(labels, batch_size, first, last, seed)
    assert all(np.array_equal(one, other) for one, other in zip(tail, rows[first:], strict=True))


def test_batches_choose_every_image_and_every_class_alike():
    labels = np.array([0, 1, 1, 2, 2, 2, 3, 3, 3, 3, 4])
    rows = np.concatenate(batches(labels, 2, 0, 4000, seed=1))
    share = np.bincount(rows, minlength=len(labels)) / len(rows)
    wanted = 1 / 5 / np.bincount(labels)[labels]  # 5 classes, alike; their images, alike
    assert share == pytest.approx(wanted, rel=0.2)
    assert not np.array_equal(rows, np.concatenate(batches(labels, 2, 0, 4000, seed=2)))


def test_views_depend_on_their_iteration_alone(tmp_path, make_classes):
    """A resumed training sees the views of an uninterrupted one; shares see those of the whole."""
    classes = make_classes(tmp_path, 4, 2)
    paths, rows = np.array(classes.photos.paths), batches(classes.labels, 4, 0, 3, seed=1)
    torch.manual_seed(0)
    model = build("resnet18").eval()
    whole = list(live_views(model, paths, rows, 32, seed=1))
    assert len(whole) == 3 and whole[0].shape == (4, 128, 4, 4)
    assert not any(view.requires_grad for view in whole)
    assert (whole[0] - whole[1]).abs().max() > 0.1
    [last] = live_views(model, paths, rows, 32, seed=1, first=2)
    assert torch.equal(last, whole[2])
    assert not list(live_views(model, paths, rows, 32, seed=1, first=3))
    for index in range(2):
        parts = live_views(model, paths, rows, 32, seed=1, share=Share(index, 2))
        for part, view in zip(parts, whole, strict=True):  # rounding may change a pixel by 1
            torch.testing.assert_close(part, view[index::2], atol=0.02, rtol=0)
