"""A run says where it is: in a line that is rewritten in a terminal, in lines in a file."""

import contextlib
import fcntl
import json
import os
import re
import struct
import sys
import termios
import threading
import time

import pytest
from tqdm.utils import disp_len

from vgeo.runner import progress as progress_module
from vgeo.runner.progress import Passed, Progress
from vgeo.runner.record import BEFORE
from vgeo.study.cache import Cache, read_journal

NOTEBOOKS = ["00_data", "01_losses"]
PARTS = {
    "00_data": {"other": [1, 0.0], "train a": [1, 60.0]},
    "01_losses": {"other": [1, 0.0], "train b": [1, 600.0], "pairs": [3, 60.0]},
}


class Clock:
    """A clock that stands still until it is set."""

    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def journal(tmp_path):
    """A journal, and a function that adds a line to it."""
    path = tmp_path / "journal.jsonl"

    def add(event, label, kind="models", own=0.0):
        line = {"event": event, "key": label, "kind": kind, "label": label, "own": own}
        with open(path, "a") as file:
            file.write(json.dumps(line) + "\n")

    return path, add


@pytest.fixture
def terminal(monkeypatch):
    """Makes sys.stdout a terminal of some columns; returns a function that ends it and returns all
    that was written to it.
    """

    def start(columns, encoding="utf-8", rows=24):
        ours, theirs = os.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        stdout, written = os.fdopen(theirs, "w", encoding=encoding), []

        def keep_reading():
            with contextlib.suppress(OSError):  # the other end was closed
                while read := os.read(ours, 1024):
                    written.append(read)
            os.close(ours)

        thread = threading.Thread(target=keep_reading, daemon=True)
        thread.start()
        before = sys.stdout
        monkeypatch.setattr(sys, "stdout", stdout)

        def end():
            monkeypatch.setattr(sys, "stdout", before)
            stdout.close()
            thread.join()
            return b"".join(written).decode(encoding)

        return end

    return start


def screen(text):
    """The lines that a terminal shows in the end."""
    lines = []
    for line in text.replace("\r\n", "\n").split("\n"):
        cells = ""
        for over in line.split("\r"):
            cells = over + cells[len(over) :]
        lines.append(cells.rstrip())
    return lines


@pytest.fixture
def settle(monkeypatch):
    """Waits until a Progress has looked at what is there now, and shown it."""
    looks = []

    def look(*words):
        looks.append(words)
        return read_journal(*words)

    def wait():
        before, deadline = len(looks), time.monotonic() + 20
        while len(looks) < before + 2:  # the second look begins after the first was shown
            assert time.monotonic() < deadline
            time.sleep(0.01)

    monkeypatch.setattr(progress_module, "read_journal", look)
    return wait


def test_a_long_step_gets_one_line_in_a_file(tmp_path, capsys, settle):
    cache, seen = Cache(tmp_path, tmp_path / "journal.jsonl"), []
    clock = Clock()

    def make(folder):
        cache.step("models", "short", {"a": 1}, lambda folder: None)
        settle()
        clock.now = 1.0
        deadline = time.monotonic() + 20
        while len(seen) < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
            seen.extend(capsys.readouterr().out.splitlines())
        settle()

    progress = Progress(cache.journal, NOTEBOOKS, {}, patience=0.5, interval=0.01, clock=clock)
    with progress.part("01_losses") as lines:
        cache.step("models", "train a\nmodel", {"a": 2}, make)
    assert seen == [
        "notebook 2 of 2, 01_losses, 0.0 min",
        r"notebook 2 of 2, 01_losses: train a\nmodel, step 2, 0.0 min",
    ]
    assert capsys.readouterr().out == ""
    assert [(line["event"], line["label"]) for line in lines] == [
        ("begin", "train a\nmodel"),
        ("begin", "short"),
        ("made", "short"),
        ("made", "train a\nmodel"),
    ]


def test_a_file_gets_the_facts_without_a_carriage_return(journal, capsys, settle):
    path, add = journal
    clock = Clock()
    progress = Progress(path, NOTEBOOKS, PARTS, patience=5, interval=0.01, clock=clock)
    with progress.part(BEFORE):
        add("begin", "render the city", "data")
        settle()
        clock.now = 6.0
        settle()
        add("made", "render the city", "data", 6.0)
    with progress.part("00_data"):
        add("begin", "train a")
        settle()
        add("made", "train a", own=120.0)
        clock.now = 126.0
    with progress.part("01_losses"):
        add("begin", "train b")
        settle()
        clock.now = 136.0
        settle()
        add("made", "train b", own=10.0)
    out = capsys.readouterr().out
    # twice as slow as expected: of 660 s to come, 1320 s, ten of them gone
    assert out.splitlines() == [
        "before notebook 1 of 2: render the city, step 1, 0.1 min",
        "notebook 1 of 2, 00_data, 0.1 min",
        "notebook 2 of 2, 01_losses, 2.1 min, about 22 min left",
        "notebook 2 of 2, 01_losses: train b, step 1 of 4, 2.3 min, about 22 min left",
    ]
    assert "\r" not in out


@pytest.mark.parametrize("columns", [20, 90, 200])
def test_the_line_of_a_terminal_is_rewritten_and_fits(journal, terminal, columns, settle):
    path, add = journal
    clock, end = Clock(), terminal(columns)
    progress = Progress(path, NOTEBOOKS, PARTS, interval=0.01, clock=clock)
    with progress.part("00_data"):
        add("begin", "train a")
        settle()
        clock.now = 60.0
        add("made", "train a", own=60.0)
    with progress.part("01_losses"):
        add("begin", "train b that has a name of many words, " + "which goes on, " * 3)
        settle()
        Passed().write("vgeo: x.jpg: not done\n")
        settle()
    print("01_losses: 60 s")
    text = end()
    assert screen(text) == ["    vgeo: x.jpg: not done", "01_losses: 60 s", ""]
    lines = [line for line in re.split("[\r\n]+", text) if line.startswith("notebook 2")]
    assert len(lines) > 2 and max(map(len, lines)) < columns
    if columns > 20:
        assert lines[-1].endswith(", step 1 of 4, 1.0 min, about 11 min left")
        assert lines[-1].startswith("notebook 2 of 2, 01_losses: train b that")
        assert ("..." in lines[-1], "which goes on, , step" in lines[-1]) == (
            columns == 90,
            columns == 200,
        )


def test_a_terminal_that_does_not_say_its_size_has_80_columns(journal, terminal, settle):
    path, add = journal
    end = terminal(0, rows=0)
    with Progress(path, NOTEBOOKS, {}, interval=0.01).part("00_data"):
        add("begin", "train " + "町" * 60)  # each takes two columns
        settle()
    assert max(map(disp_len, end().split("\r"))) in (78, 79)


def test_letters_that_a_terminal_cannot_show_are_escaped(journal, terminal, settle):
    path, add = journal
    end = terminal(100, "ascii")
    with Progress(path, NOTEBOOKS, {}, interval=0.01).part("00_data"):
        add("begin", "describe Zürich\n\x1b[2J")
        settle()
        Passed().write("vgeo: Zürich: not done\n")
    text = end()
    assert r"notebook 1 of 2, 00_data: describe Z\xfcrich\n\x1b[2J, step 1, 0.0 min" in text
    assert screen(text) == [r"    vgeo: Z\xfcrich: not done", ""]


def test_a_notebook_that_is_stopped_leaves_the_terminal_clean(journal, terminal, settle):
    path, add = journal
    end = terminal(80)
    with (
        pytest.raises(KeyboardInterrupt),
        Progress(path, NOTEBOOKS, {}, interval=0.01).part("00_data"),
    ):
        add("begin", "train a")
        settle()
        raise KeyboardInterrupt
    text = end()
    assert "train a, step 1" in text and screen(text) == [""] and text.endswith("\r")


def test_lines_of_earlier_runs_are_not_read(tmp_path, capsys, settle):
    journal = tmp_path / "journal.jsonl"
    words = {"key": "k", "kind": "models", "own": 0.0}
    journal.write_text(
        json.dumps({"event": "begin", "label": "killed"} | words) + '\n{"event": "be'
    )
    with Progress(journal, NOTEBOOKS, {}, patience=0, interval=0.01).part(BEFORE) as lines:
        with open(journal, "a") as file:
            file.write(json.dumps({"event": "found", "label": "new"} | words) + "\n")
        settle()
    assert [line["label"] for line in lines] == ["new"] and capsys.readouterr().out == ""


def test_a_run_without_a_journal_says_its_notebooks(tmp_path, capsys):
    for journal in (tmp_path / "none", None):
        with Progress(journal, NOTEBOOKS, {}).part("00_data") as lines:
            pass
        assert lines == [] and capsys.readouterr().out == "notebook 1 of 2, 00_data, 0.0 min\n"


def test_only_what_errors_say_is_passed_on(capsys):
    Passed().write("epoch 1\nvgeo: x.jpg: not done\n  vgeo: quoted\n")
    assert capsys.readouterr().out == "    vgeo: x.jpg: not done\n"
