"""A second run skips what was made from the same inputs and is as it was, and nothing else."""

import os
import sys

import pytest

from vgeo import files
from vgeo.runner import unchanged as module
from vgeo.runner.unchanged import MEMORY, PAGE, Unchanged, notebooks_of, nothing_new, parameters_of


@pytest.fixture
def root(tmp_path):
    """A package, photos and three notebooks, executed: each left a table and its own copy."""
    write("package/city.py", "side = 1\n")(tmp_path)
    write("package/record.csv", "1")(tmp_path)
    write("photos/a.jpg", "a")(tmp_path)
    for number in range(3):
        write(f"notebooks/0{number}_book.ipynb", f"book {number}")(tmp_path)
    execute(tmp_path)
    return tmp_path


def write(name, text="other"):
    def change(root):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    return change


def remove(name):
    return lambda root: (root / name).unlink()


def unchanged(root, **parameters):
    files.code_hash.cache_clear()  # as in another process
    parameters = parameters_of("tiny", root / "photos", **parameters)
    return Unchanged(root / "runs/tiny", parameters, root / "package")


def leave(root, now, number, notebook):
    """What executing a notebook leaves."""
    names = [f"tables/{notebook.stem}.csv", f"notebooks/{notebook.name}"]
    for name in names:
        write(f"runs/tiny/{name}", f"1.{number}")(root)
    write("runs/tiny/run.json", f"up to {number}")(root)
    now.add(notebook, number, names)


def execute(root):
    """Executes what can't be skipped, as `run.run_notebooks` does; returns how many that were."""
    now, books = unchanged(root), notebooks_of(root)
    first = now.count([*books, PAGE])
    for number, book in enumerate(books[first:], first):
        leave(root, now, number, book)
    if first <= len(books):
        write(f"runs/tiny/{PAGE}", "page")(root)
        now.add(PAGE, len(books), [PAGE.name])
    return len(books) + 1 - first


def test_nothing_is_executed_or_written_again(root):
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    assert execute(root) == 0
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before


@pytest.mark.parametrize(
    "change, again",
    [
        (write("package/city.py", "side = 2\n"), 4),
        (write("package/new.py", ""), 4),
        (write("package/record.csv", "2"), 4),
        (write("photos/a.jpg", "b"), 4),  # as long as it was
        (write("photos/b.jpg"), 4),
        (remove(f"runs/tiny/{MEMORY}"), 4),
        (write(f"runs/tiny/{MEMORY}", '{"inputs": 3'), 4),
        (write(f"runs/tiny/{MEMORY}", "[]"), 4),
        (write("runs/tiny/run.json", "{}"), 4),
        (remove("runs/tiny/run.json"), 4),
        (write("notebooks/01_book.ipynb"), 3),
        (write("runs/tiny/tables/01_book.csv", "1.6"), 3),
        (remove("runs/tiny/tables/00_book.csv"), 4),
        (write("runs/tiny/notebooks/02_book.ipynb", "tuo"), 2),
        (remove("notebooks/00_book.ipynb"), 3),  # the later ones may have read what it wrote
        (write("notebooks/01_new.ipynb"), 3),  # comes between 01_book and 02_book
        (write("notebooks/03_new.ipynb"), 2),
        (write(f"runs/tiny/{PAGE}", "egap"), 1),
        (remove(f"runs/tiny/{PAGE}"), 1),
        (write("package/city.py", '"""What it is."""\n\nside = 1  # metre\n'), 0),
        (write("package/__pycache__/city.pyc"), 0),
        (write("runs/tiny/notes.txt"), 0),  # of the user's own
    ],
)
def test_what_a_change_executes_again(root, change, again):
    change(root)
    assert execute(root) == again
    assert execute(root) == 0


def test_other_parameters_packages_and_machines(root, monkeypatch):
    books = notebooks_of(root)
    assert unchanged(root, seeds=2).count(books) == unchanged(root, image_size=64).count(books) == 0
    (root / "site/torch-9.9.dist-info").mkdir(parents=True)
    monkeypatch.setattr(sys, "path", [*sys.path, str(root / "site")])
    assert unchanged(root).count(books) == 0
    monkeypatch.undo()
    assert unchanged(root).count(books) == 3
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert unchanged(root).count(books) == 0


def test_another_start_is_another_run(root, monkeypatch):
    books, start = notebooks_of(root), parameters_of("city", start="imagenet")
    assert start == parameters_of("city") | {"start": "imagenet"}
    assert parameters_of("paper", start="imagenet") == parameters_of("paper")
    own = parameters_of("tiny", root / "photos")
    now = Unchanged(root / "runs/tiny", own | {"start": "imagenet"}, root / "package")
    assert now.count(books) == 0
    asked = []
    monkeypatch.setattr(module, "results_of", lambda *words: asked.append(words) or root / "none")
    assert not nothing_new("city", start="imagenet") and asked == [("city", None, "imagenet")]


def test_the_time_of_a_file_does_not_matter(root):
    for path in (*root.glob("runs/**/*.csv"), *root.glob("package/*"), *root.glob("notebooks/*")):
        os.utime(path, (1, 1))
    assert execute(root) == 0


def test_a_stopped_run_keeps_what_it_finished(root):
    write("notebooks/00_book.ipynb")(root)
    now, books = unchanged(root), notebooks_of(root)
    for number, book in enumerate(books[:2]):
        leave(root, now, number, book)
    write("runs/tiny/tables/02_book.csv", "half of it")(root)
    assert execute(root) == 2  # the third and the page


def test_code_that_changes_while_a_notebook_runs_is_not_taken_for_the_notebook_s(root):
    write("notebooks/01_book.ipynb")(root)
    now, books = unchanged(root), notebooks_of(root)
    write("package/city.py", "side = 3\n")(root)
    for number in (1, 2):
        leave(root, now, number, books[number])
    assert execute(root) == 4
