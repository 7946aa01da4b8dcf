"""The store keeps what it was given, and knows a photo by its content's size, time and path."""

import os
import sqlite3

import numpy as np
import pytest

from vgeo.locate.store import Store, open_store, photo_key, user_cache
from vgeo.models.xfeat import CHANNELS, POINTS

LIGHT = [25.5 * number for number in range(100)]


def numbers(count, seed=0):
    random = np.random.default_rng(seed)
    descriptors = random.standard_normal((count, 8)).astype(np.float32)
    return descriptors, random.integers(-127, 128, (count, 5, CHANNELS)).astype(np.int8)


def test_what_is_put_is_got_by_another_store(tmp_path):
    descriptors, points = numbers(5)
    keys = [bytes([row]) * 32 for row in range(5)]
    store = Store(tmp_path / "new" / "folder" / "a.sqlite")
    assert keys[0] not in store
    store.put(keys[:3], descriptors[:3], points[:3], LIGHT)
    store.put(keys[2:], descriptors[2:], points[2:], LIGHT)  # the third once more
    again = Store(store.path)
    assert all(key in again for key in keys) and bytes(32 * [9]) not in again
    order = [3, 0, 0, 4]
    chosen = [keys[row] for row in order]
    np.testing.assert_array_equal(again.descriptors(chosen), descriptors[order])
    np.testing.assert_array_equal(again.points(chosen), points[order])
    np.testing.assert_array_equal(again.brightness(chosen), [LIGHT[1], 0, 0, LIGHT[2]])
    assert again.descriptors(chosen).dtype == np.float32 and again.points(chosen).dtype == np.int8


def test_a_failed_put_leaves_nothing(tmp_path):
    store, (descriptors, points) = Store(tmp_path / "a.sqlite"), numbers(2)
    with pytest.raises(AttributeError):
        store.put([b"a", b"b"], [descriptors[0], None], points, LIGHT)
    assert b"a" not in store


def test_a_photo_takes_few_bytes(tmp_path):
    """Of the default model: 1280 numbers and all points that a photo may have."""
    store, count = Store(tmp_path / "a.sqlite"), 100
    descriptors = np.ones((count, 1280), np.float32)
    points = np.ones((count, POINTS, CHANNELS), np.int8)
    store.put([bytes([row]) * 32 for row in range(count)], descriptors, points, LIGHT)
    assert store.path.stat().st_size < 60_000 * count


def test_a_published_models_photos_have_no_points(tmp_path):
    store = Store(tmp_path / "a.sqlite")
    store.put([b"a", b"b"], numbers(2)[0], np.empty((2, 0, CHANNELS), np.int8), LIGHT)
    assert store.points([b"a", b"b", b"a"]).shape == (3, 0, CHANNELS)


def test_notes_are_kept_and_replaced(tmp_path):
    store = Store(tmp_path / "a.sqlite")
    assert store.note(b"a") is None and store.note(b"a", "first") == "first"
    assert Store(store.path).note(b"a") == "first" and store.note(b"b") is None
    assert store.note(b"a", "second") == Store(store.path).note(b"a") == "second"
    assert b"a" not in store  # a note is no photo


def test_a_key_changes_with_the_photo(tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(b"one")
    os.utime(path, ns=(1, 1))
    key = photo_key(path)
    os.symlink(path, tmp_path / "link.jpg")
    assert photo_key(str(path)) == photo_key(tmp_path / "link.jpg") == key and len(key) == 32
    os.utime(path, ns=(1, 2))
    later = photo_key(path)
    path.write_bytes(b"longer")
    os.utime(path, ns=(1, 1))
    (tmp_path / "b.jpg").write_bytes(b"one")
    os.utime(tmp_path / "b.jpg", ns=(1, 1))
    assert len({key, later, photo_key(path), photo_key(tmp_path / "b.jpg")}) == 4


def test_a_damaged_file_is_named(tmp_path, refused):
    path = tmp_path / "a.sqlite"
    path.write_bytes(b"no database" * 1000)
    refused(lambda: Store(path), path, "remove the file to describe all photos again")
    (tmp_path / "file").write_text("")
    refused(lambda: Store(tmp_path / "file" / "a.sqlite"), "make its folder writable")


def test_the_cache_folder(cache_home, monkeypatch):
    assert user_cache() == cache_home / "vgeo" / "described"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/somebody")
    assert str(user_cache()) == "/home/somebody/.cache/vgeo/described"


def test_a_cache_that_cannot_be_made_is_replaced_for_this_call(tmp_path, capsys, monkeypatch):
    descriptors, points = numbers(2)
    (tmp_path / "file").touch()
    kept = open_store("a.sqlite", tmp_path / "open")
    kept.put([b"a"], descriptors[:1], points[:1], LIGHT)
    assert b"a" in open_store("a.sqlite", tmp_path / "open") and capsys.readouterr().out == ""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    for folder, advice in (
        (None, "set the variable XDG_CACHE_HOME to a folder that can be written\n"),
        (tmp_path / "file", "give another cache folder\n"),
    ):
        store = open_store("a.sqlite", folder)
        said = capsys.readouterr().out
        assert str(tmp_path / "file") in said and said.endswith(advice) and said.count("\n") == 1
        store.put([b"b"], descriptors[1:], points[1:], LIGHT)
        np.testing.assert_array_equal(store.descriptors([b"b"]), descriptors[1:])


def read_only(monkeypatch):
    """Opens files as where nobody may write them; the tests may run as root, who always may."""
    connect = sqlite3.connect

    def connect_read_only(file, **options):
        if file:
            file, options = f"{file.as_uri()}?mode=ro", options | {"uri": True}
        return connect(file, **options)

    monkeypatch.setattr("vgeo.locate.store.sqlite3.connect", connect_read_only)


def no_space(store):
    pages = store.connection.execute("PRAGMA page_count").fetchone()[0]
    store.connection.execute(f"PRAGMA max_page_count = {pages}")


@pytest.mark.parametrize("cause", ["read-only", "no space"])
def test_a_cache_that_cannot_be_written_is_still_read(tmp_path, capsys, monkeypatch, cause):
    descriptors, points = numbers(30)
    keys = [bytes([row]) for row in range(30)]
    open_store("a.sqlite", tmp_path).put(keys[:2], descriptors[:2], points[:2], LIGHT)
    before = (tmp_path / "a.sqlite").read_bytes()
    if cause == "read-only":
        read_only(monkeypatch)
    store = open_store("a.sqlite", tmp_path)
    if cause == "no space":
        no_space(store)
    np.testing.assert_array_equal(store.descriptors(keys[:2]), descriptors[:2])
    assert capsys.readouterr().out == ""  # nothing was to be written
    store.put(keys[2:], descriptors[2:], points[2:], LIGHT)
    said = capsys.readouterr().out
    assert f"{tmp_path / 'a.sqlite'}: can't be written" in said and said.count("\n") == 1
    np.testing.assert_array_equal(store.descriptors(keys), descriptors)
    np.testing.assert_array_equal(store.points(keys), points)
    assert (tmp_path / "a.sqlite").read_bytes() == before and list(tmp_path.iterdir()) == [
        tmp_path / "a.sqlite"
    ]


def test_a_cache_that_another_process_writes_is_waited_for(tmp_path, capsys, refused):
    descriptors, points = numbers(1)
    store = open_store("a.sqlite", tmp_path)
    other = sqlite3.connect(store.path)
    other.execute("BEGIN IMMEDIATE")
    store.connection.execute("PRAGMA busy_timeout = 10")
    refused(
        lambda: store.put([b"a"], descriptors, points, LIGHT), store.path, "locked", "wait until"
    )
    other.rollback()
    store.put([b"a"], descriptors, points, LIGHT)
    assert b"a" in open_store("a.sqlite", tmp_path) and capsys.readouterr().out == ""
