"""The steps that take long are named on the terminal, once."""

import json
import time

from vgeo.runner.progress import Passed, follow
from vgeo.study.cache import Cache


def test_a_long_step_is_named_once_while_it_lasts(tmp_path, capsys):
    cache, seen = Cache(tmp_path, tmp_path / "journal.jsonl"), []

    def make(folder):
        cache.step("models", "short", {"a": 1}, lambda folder: None)
        deadline = time.monotonic() + 20
        while not seen and time.monotonic() < deadline:
            time.sleep(0.05)
            seen.extend(capsys.readouterr().out.splitlines())
        time.sleep(0.3)

    with follow(cache.journal, patience=0.2, interval=0.02) as lines:
        cache.step("models", "train a\nmodel", {"a": 2}, make)
    assert [line.strip() for line in seen] == ["train a\\nmodel"]
    assert capsys.readouterr().out == ""
    assert [(line["event"], line["label"]) for line in lines] == [
        ("begin", "train a\nmodel"),
        ("begin", "short"),
        ("made", "short"),
        ("made", "train a\nmodel"),
    ]


def test_lines_of_earlier_runs_are_not_read(tmp_path, capsys):
    journal = tmp_path / "journal.jsonl"
    journal.write_text(json.dumps({"event": "begin", "label": "killed"}) + '\n{"event": "be')
    with follow(journal, patience=0, interval=0.02) as lines:
        with open(journal, "a") as file:
            file.write(json.dumps({"event": "found", "label": "new"}) + "\n")
        time.sleep(0.1)
    assert [line["label"] for line in lines] == ["new"] and capsys.readouterr().out == ""


def test_a_run_without_a_journal_is_followed_silently(tmp_path):
    with follow(tmp_path / "none") as lines, follow(None) as others:
        pass
    assert lines == others == []


def test_only_what_errors_say_is_passed_on(capsys):
    Passed().write("epoch 1\nvgeo: x.jpg: not done\n  vgeo: quoted\n")
    assert capsys.readouterr().out == "    vgeo: x.jpg: not done\n"
