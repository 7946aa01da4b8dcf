"""What is said to people is one line; what hangs is named."""

from concurrent.futures import Future
from threading import Timer

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vgeo.errors import VgeoError, printable, result, say


@given(st.text(st.characters(exclude_categories=[])))
def test_what_is_said_is_one_line(text):
    assert printable(text).isprintable() and len(printable(text)) >= len(text)
    assert str(VgeoError(text)) == printable(text)
    if text.isprintable():
        assert printable(text) == text


def test_lines_for_people(capsys):
    say("a\nb\x1b[31m \udcff")
    assert capsys.readouterr().out == "vgeo: a\\nb\\x1b[31m \\udcff\n"


def test_a_terminal_that_cannot_show_a_name(tmp_path, monkeypatch):
    with open(tmp_path / "terminal", "w", encoding="ascii") as terminal:
        monkeypatch.setattr("sys.stdout", terminal)
        say("東 é a")
    assert (tmp_path / "terminal").read_text() == "vgeo: \\u6771 \\xe9 a\n"


def test_what_takes_long_is_named_until_it_is_done(capsys):
    future = Future()
    timer = Timer(0.3, future.set_result, [7])
    timer.start()
    assert result(future, "a.jpg", seconds=0.05) == 7
    out = capsys.readouterr().out
    assert out.count("\n") == out.count("vgeo: a.jpg: not done within 0.05 s") >= 1
    assert result(future, "a.jpg") == 7 and capsys.readouterr().out == ""
    failed = Future()
    failed.set_exception(ValueError("no"))
    with pytest.raises(ValueError, match="no"):
        result(failed, "b.jpg")
