"""Each case of benchmarks/bad_input.py is answered in one line that names culprit and remedy.

What was computed before stays.
"""

import os

import pytest
from bad_input import CASES, OWNED, Bench, starting_weights

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def whole(tmp_path_factory, make_data):
    top = tmp_path_factory.mktemp("whole")
    return make_data(top / "data"), starting_weights(top / "weights")


@pytest.mark.parametrize("name", CASES)
def test_bad_input_is_answered_in_one_line(whole, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)  # a name that reached a shell would leave its file here
    case, bench = CASES[name], Bench(tmp_path / "bench", *whole)
    answer, code = bench.answer(case)
    if case.words:
        assert code in (1, 2) and answer.isprintable() and answer.startswith("vgeo")
        assert all(words in answer for words in case.words), answer
        assert "Traceback" not in answer and len(answer) < 1000
    else:
        assert answer == "", answer
    assert (bench.kept / "hours").read_text() == "of work" and (bench.kept / "sums.json").exists()
    assert not OWNED.exists() and os.listdir(tmp_path) == ["bench"]


def test_there_are_many():
    assert sum(bool(case.words) for case in CASES.values()) >= 110
