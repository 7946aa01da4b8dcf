"""A step is made once for a recipe and its code, found whole or made again, and told."""

import json
import time

import pytest

from vgeo.errors import VgeoError
from vgeo.study.cache import Cache, read_journal

CODE = ("vgeo.retrieval.fuse",)


def put(cache, recipe=None, text="one", kind="models", label="train X", **options):
    def make(folder):
        (folder / "file").write_text(text)

    return cache.step(kind, label, recipe or {"a": 1}, make, CODE, **options)


def test_a_step_is_found_by_its_recipe(tmp_path):
    cache = Cache(tmp_path)
    first = put(cache)
    assert put(cache, text="two") == first and (first / "file").read_text() == "one"
    assert put(Cache(tmp_path), text="two") == first  # in another process too
    other = put(cache, {"a": 2}, "two")
    assert other != first and (other / "file").read_text() == "two"


def test_other_code_makes_another_step(tmp_path, monkeypatch):
    first = put(Cache(tmp_path))
    monkeypatch.setattr("vgeo.files.code_hash", lambda *modules: f"changed {modules}")
    assert put(Cache(tmp_path)) != first


def test_two_steps_of_one_label_are_both_told(tmp_path):
    cache = Cache(tmp_path / "cache", tmp_path / "journal.jsonl")
    folders = {put(cache, {"regression": n}, label="compare 15 pairs sf-xs").name for n in range(3)}
    lines, end = read_journal(cache.journal)
    assert {line["key"] for line in lines if line["event"] == "made"} == folders
    assert len(folders) == 3 and end == cache.journal.stat().st_size
    put(cache, {"regression": 0})  # told before, by this process
    assert read_journal(cache.journal, end) == ([], end)
    put(Cache(cache.root, cache.journal), {"regression": 0})
    (line,), _ = read_journal(cache.journal, end)
    assert (line["event"], line["kind"], line["label"]) == ("found", "models", "train X")


def test_seconds_of_inner_steps_are_not_counted_twice(tmp_path):
    cache = Cache(tmp_path, tmp_path / "journal.jsonl")

    def inner(folder):
        time.sleep(0.2)

    def outer(folder):
        cache.step("views", "inner", {}, inner)
        time.sleep(0.1)

    cache.step("models", "outer", {}, outer)
    lines = read_journal(cache.journal)[0]
    assert [line["event"] for line in lines] == ["begin", "begin", "made", "made"]
    made = {line["label"]: line for line in lines if line["event"] == "made"}
    assert made["outer"]["seconds"] >= 0.3
    total = made["inner"]["own"] + made["outer"]["own"]
    assert made["inner"]["own"] >= 0.2 and abs(total - made["outer"]["seconds"]) < 0.05


def test_a_journal_that_is_being_written_has_whole_lines_only(tmp_path):
    path = tmp_path / "journal.jsonl"
    assert read_journal(path) == ([], 0)
    path.write_text('{"event": "made"}\n{"eve')
    lines, offset = read_journal(path)
    assert lines == [{"event": "made"}] and offset == len('{"event": "made"}\n')


@pytest.mark.parametrize("damage", ["byte", "cut", "gone", "recipe", "sums", "no sums"])
def test_a_damaged_folder_is_named_and_made_again(tmp_path, capsys, damage):
    folder = put(Cache(tmp_path), text="whole content")
    file = folder / "file"
    if damage == "byte":
        file.write_text("whole c0ntent")
    elif damage == "cut":
        file.write_text("whole")
    elif damage == "gone":
        file.unlink()
    elif damage == "recipe":
        (folder / "recipe.json").write_text('{"a": 2}')
    elif damage == "sums":
        (folder / "sums.json").write_text("[")
    else:
        (folder / "sums.json").unlink()
    assert put(Cache(tmp_path), text="whole content") == folder
    assert file.read_text() == "whole content"
    said = capsys.readouterr().out
    assert str(folder) in said and "makes it again" in said and said.count("\n") == 1


@pytest.mark.parametrize("resumes", [False, True])
def test_what_stopped_goes_on_or_begins_anew(tmp_path, resumes):
    cache, seen = Cache(tmp_path), []

    def stopped(folder):
        (folder / "half").write_text("half")
        raise KeyboardInterrupt

    def again(folder):
        seen.extend(path.name for path in folder.iterdir())

    with pytest.raises(KeyboardInterrupt):
        cache.step("models", "x", {}, stopped, resumes=resumes)
    cache.step("models", "x", {}, again, resumes=resumes)
    assert seen == (["half"] if resumes else [])


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "models").write_text("a file where a folder should be")
    with pytest.raises(VgeoError, match="can't be written.*make the folder writable") as caught:
        put(Cache(tmp_path))
    assert "\n" not in str(caught.value)


def test_the_recipe_lies_beside_the_content(tmp_path):
    folder = put(Cache(tmp_path), {"b": [1, 2]})
    assert json.loads((folder / "recipe.json").read_text())["b"] == [1, 2]
