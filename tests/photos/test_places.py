"""Classes and positives against brute force; data sets and their parts."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vgeo.photos.places import cosplace_classes, open_dataset, positives
from vgeo.photos.tables import Photos

# A few streets, so that classes are large enough to be kept, and exact borders.
spots = st.one_of(st.integers(0, 12).map(lambda i: 500_000.0 + 10 * i), st.floats(500_000, 500_120))
views = st.one_of(st.integers(0, 11).map(lambda i: 30.0 * i), st.floats(0, 359.9))
images = st.lists(st.tuples(spots, spots, views), min_size=1, max_size=40)


def as_photos(rows):
    """Photos 0.jpg, 1.jpg, ... of (east, north, heading)."""
    table = pd.DataFrame(rows, columns=["utm_east", "utm_north", "heading"])
    table["path"] = [f"{i}.jpg" for i in range(len(rows))]
    return Photos(table.astype({"heading": "f4"}), "")


def naive_classes(rows, cell, angle, n, l, min_images):  # noqa: E741
    """CosPlace section 3 with dicts: the largest group and the members of each of its classes."""
    classes = {}
    for i, (east, north, heading) in enumerate(rows):
        turned = math.floor(float(np.float32(heading)) / angle)
        classes.setdefault((math.floor(east / cell), math.floor(north / cell), turned), set()).add(
            i
        )
    groups = {}
    for (east, north, turned), members in classes.items():
        if len(members) >= min_images:
            groups.setdefault((east % n, north % n, turned % l), []).append(members)
    if not groups:
        return None, []
    best = min(groups, key=lambda group: (-len(groups[group]), group))
    return best, groups[best]


def members_of(classes):
    """{label: names of the photos}."""
    names = {}
    for label, name in zip(classes.labels, classes.photos.paths, strict=True):
        names.setdefault(int(label), set()).add(name)
    return names


sizes = st.fixed_dictionaries(
    {
        "cell": st.just(10.0),
        "angle": st.just(30.0),
        "n": st.sampled_from([1, 2, 5]),
        "l": st.sampled_from([1, 2, 3]),
        "min_images": st.integers(1, 3),
    }
)


@settings(deadline=None, max_examples=60)
@given(images, sizes, st.randoms())
def test_classes_and_groups(refused, rows, sizes, random):
    group, members = naive_classes(rows, **sizes)
    if group is None:
        refused(lambda: cosplace_classes(as_photos(rows), **sizes), "lower min_images")
        return
    classes = cosplace_classes(as_photos(rows), **sizes)
    names = members_of(classes)
    assert classes.group == group and classes.count == len(members) == len(names)
    assert sorted(names) == list(range(classes.count)) and classes.labels.dtype == np.int64
    expected = [sorted(f"{i}.jpg" for i in each) for each in members]
    assert sorted(map(sorted, names.values())) == sorted(expected)
    assert str(classes).startswith(f"{len(classes.labels)} images, {classes.count} classes")
    _check_distances(classes, sizes["n"], sizes["l"])

    mixed = list(range(len(rows)))
    random.shuffle(mixed)
    again = cosplace_classes(as_photos(rows).take(mixed), **sizes)
    assert members_of(again) == names
    kept = [f"{i}.jpg" for i in mixed if any(f"{i}.jpg" in each for each in names.values())]
    assert again.photos.paths == kept  # in the photos' order


def _check_distances(classes, n, l):  # noqa: E741
    """CosPlace's groups: photos of a class are near, those of two classes far apart."""
    rows = [*zip(classes.photos.xy, classes.photos.table["heading"], classes.labels, strict=True)]
    for (a, turned_a, label_a), (b, turned_b, label_b) in itertools.combinations(rows, 2):
        apart, turn = np.abs(a - b).max(), abs((turned_a - turned_b + 180) % 360 - 180)
        if label_a == label_b:
            assert apart < 10 and abs(turned_a - turned_b) < 30
        elif (a // 10 == b // 10).all():
            assert turn >= (l - 1) * 30 - 1e-3
        else:
            assert apart >= (n - 1) * 10 - 1e-6


def test_classes_need_headings_and_sense(refused):
    photos = as_photos([(5e5, 5e5, math.nan), (5e5, 5e5, 0)])
    refused(lambda: cosplace_classes(photos), "0.jpg", "has no heading", "0 others of 2")
    refused(lambda: cosplace_classes(photos, cell=0), "cell 0", "must be positive")


@settings(deadline=None, max_examples=60)
@given(images, images, st.floats(0, 60))
def test_positives_against_brute_force(queries, database, radius):
    queries, database = as_photos(queries), as_photos(database)
    squares = ((queries.xy[:, None] - database.xy[None]) ** 2).sum(-1)
    for rows, square in zip(positives(queries, database, radius), squares, strict=True):
        assert rows.dtype == np.int64
        assert rows.tolist() == np.flatnonzero(square <= radius**2).tolist()


def test_the_radius_is_included():
    database = [(500_015, 20, 0), (500_025.01, 0, 0), (499_975, 0, 0)]
    (rows,) = positives(as_photos([(500_000, 0, 0)]), as_photos(database))
    assert rows.tolist() == [0, 2]


@pytest.fixture(scope="module")
def streets(tmp_path_factory, make_photos):
    """Two equal folders of a database and queries: two queries on the street, one far from it."""
    top = tmp_path_factory.mktemp("streets")
    for street in ("one", "two"):
        make_photos(top / street / "database", 552_000.0 + 30 * np.arange(4))
        make_photos(top / street / "queries", [552_010.0, 552_070.0, 552_600.0])
    return top


def opened(folder):
    return open_dataset("toy", folder / "queries", folder / "database")


def test_a_data_set(streets, make_photos):
    one, two = opened(streets / "one"), opened(streets / "two")
    assert [rows.tolist() for rows in one.positives] == [[0, 1], [2, 3], []]
    assert one.whole is None and one.rows is None
    words = "toy: 3 queries, 4 database images, 1 queries without a positive, file list "
    assert str(one.identity).startswith(words)
    assert one.identity == two.identity  # the same files elsewhere
    make_photos(streets / "two" / "database", [553_000.0])
    assert opened(streets / "two").identity.files != one.identity.files


def test_a_part_of_a_data_set(streets):
    whole = opened(streets / "one")
    rows = np.array([2, 1])
    part = whole.part("some", rows)
    assert part.name == "some" and part.whole is whole and (part.rows == rows).all()
    assert part.queries.names == [whole.queries.names[row] for row in rows]
    assert part.database is whole.database
    assert [each.tolist() for each in part.positives] == [[], [2, 3]]
    assert part.identity.queries == 2 and part.identity.files != whole.identity.files


def test_queries_that_lie_elsewhere(streets, tmp_path, make_photos, refused):
    database = streets / "one" / "database"
    far, tokyo = tmp_path / "far", tmp_path / "tokyo"
    make_photos(far, [(552_000.0, 4_174_551.0)])
    make_photos(tokyo, [552_000.0], zone=54)
    refused(lambda: open_dataset("toy", far, database), "no query in", far, "1000 m away")
    refused(lambda: open_dataset("toy", tokyo, database), tokyo, "54 north")
