"""A notebook that runs to its end and leaves what it says it leaves; every other one is refused."""

import os

import nbformat
import pytest

from vgeo.runner.execute import execute

pytestmark = pytest.mark.slow  # each test starts a kernel

PARAMETERS = 'what = ""\nresults = ""'
JULIA = {"name": "julia", "display_name": "Julia", "language": "julia"}
FIRST = """
if what == "exit":
    raise SystemExit(0)
if what == "killed":
    import os
    os._exit(9)
if what == "error":
    raise ValueError("seven\\n is odd")
if what == "ours":
    from vgeo.errors import VgeoError
    raise VgeoError("x.jpg: is empty: copy it again")
"""
SECOND = """
import json, os, pathlib
from vgeo.errors import say
folder = pathlib.Path(results, "sections")
folder.mkdir(parents=True, exist_ok=True)
pathlib.Path(results, "made.csv").write_text(what)
tables = [{"name": "made", "files": ["made.csv"]}]
if what == "too few":
    tables.append({"name": "other", "files": ["tables/other.csv"]})
record = {"tables": tables, "figures": [], "other": [], "says": ""}
if what != "no section":
    (folder / "book.json").write_text(json.dumps(record))
if what == "old":
    os.utime(pathlib.Path(results, "made.csv"), (1e9, 1e9))
say("is at it")
print("for the notebook alone")
if what == "late exit":
    raise SystemExit(0)
"""


@pytest.fixture
def run(tmp_path, write_notebook, monkeypatch):
    """Executes the notebook with its parameter `what`."""
    book = write_notebook(tmp_path / "book.ipynb", PARAMETERS, FIRST, "", SECOND)

    def run(what, **more):
        parameters = {"what": what, "results": str(tmp_path / "results")} | more
        return execute(book, tmp_path / "out/book.ipynb", parameters, tmp_path / "results")

    return run


def test_a_good_notebook(run, tmp_path, capsys):
    assert run("fine") == ["sections/book.json", "made.csv"]
    assert (tmp_path / "results/made.csv").read_text() == "fine"
    stored = nbformat.read(tmp_path / "out/book.ipynb", 4)
    assert any("injected-parameters" in cell.metadata.tags for cell in stored.cells)
    assert not {"input_path", "output_path"} & stored.metadata.papermill.keys()
    source = nbformat.read(tmp_path / "book.ipynb", 4)
    assert source.cells[1].execution_count is None  # the source stays as it was
    assert capsys.readouterr().out == "    vgeo: is at it\n"  # said while it ran


@pytest.mark.parametrize(
    "what, words",
    [
        ("exit", ["book.ipynb: cell 3 did not run to its end"]),
        ("late exit", ["book.ipynb: cell 4 did not run to its end"]),
        ("error", ["book.ipynb: cell 3 failed with ValueError: seven is odd"]),
        ("killed", ["book.ipynb: its kernel died"]),
        ("too few", ["book.ipynb: did not make", "results/tables/other.csv"]),
        ("old", ["book.ipynb: did not make", "results/made.csv"]),
        ("no section", ["book.ipynb: did not make", "results/sections/book.json"]),
    ],
)
def test_a_bad_notebook_is_stored_and_refused(run, tmp_path, refused, what, words):
    refused(lambda: run(what), *words)
    assert (tmp_path / "out/book.ipynb").exists()


def test_the_message_of_a_vgeo_error_is_handed_on_as_it_is(run, refused):
    assert refused(lambda: run("ours")) == "x.jpg: is empty: copy it again"


def test_what_an_earlier_run_left_does_not_count(run, tmp_path, refused):
    run("fine")
    for path in (tmp_path / "results").rglob("*.*"):
        os.utime(path, (1e9, 1e9))
    refused(lambda: run("no section"), "did not make", "sections/book.json")


def test_mistakes_are_found_before_anything_runs(run, tmp_path, refused, write_notebook):
    words = "book.ipynb: has no parameter 'who', only what, results: correct the name"
    refused(lambda: run("fine", who=1), words)
    other = write_notebook(tmp_path / "julia.ipynb", "", kernel=JULIA)
    refused(lambda: execute(other, tmp_path / "out/x.ipynb", {}, tmp_path), "the kernel 'julia'")
    other.write_text("{")
    refused(lambda: execute(other, tmp_path / "out/x.ipynb", {}, tmp_path), "not a notebook")
    assert not list((tmp_path / "results").glob("*"))
