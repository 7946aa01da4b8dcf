"""What a second run keeps: nothing that comes from, or left, anything that has changed."""

import json
import os

import pytest

from vgeo import kept
from vgeo.runner.unchanged import Kept, notebooks_of, nothing_new, parameters_of
from vgeo.study.profiles import results_of
from vgeo.runner.execute import add_seconds


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A study of three notebooks, executed: each left a table and its own copy, and all of them one run.json with an artefact."""
    package = tmp_path / "package"
    for name, text in {
        "package/kept.py": "",
        "package/page.py": "",
        "package/data/record.csv": "1",
        "photos/a.jpg": "a",
        "results/cache/models/0a/model.safetensors": "w",
        **{f"notebooks/0{n}_book.ipynb": f"book {n}" for n in range(3)},
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(kept, "__file__", str(package / "kept.py"))
    execute(tmp_path)
    return tmp_path


def study(root, **parameters):
    parameters = parameters_of("tiny", root / "photos", **parameters)
    return Kept(results_of("tiny", root / "photos", root), parameters, root)


def execute(root, **parameters):
    """As `run.run_study` does: executes what is not kept; returns how many that were."""
    now = study(root, **parameters)
    books = notebooks_of(root)
    first = now.of(books)
    for number, book in enumerate(books[first:], first):
        with now.executing(book, number):
            leave(now.results, book.stem, number)
    if now.of([*books, kept.page()]) <= len(books):
        with now.executing(kept.page(), len(books)):
            (now.results / "report.html").write_text("page")
    return len(books) - first


def leave(results, stem, number):
    for name, text in {
        f"tables/{stem}.csv": "1.5",
        f"notebooks/{stem}.ipynb": "out",
        "tables/table_01.md": "# Table 1",
    }.items():
        if number == 0 or name != "tables/table_01.md":
            (results / name).parent.mkdir(parents=True, exist_ok=True)
            (results / name).write_text(text)
    path = results / "run.json"
    before = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(
        json.dumps(before | {"steps": {"train": {"key": "0a"}}, "made": {"models": 2.0}})
    )
    add_seconds(path, stem, 5.0)


def test_nothing_new_keeps_all(root, capsys):
    results = results_of("tiny", root / "photos", root)
    before = {path: path.stat().st_mtime_ns for path in results.rglob("*")}
    assert study(root).of(notebooks_of(root)) == 3 and execute(root) == 0
    assert nothing_new("tiny", root / "photos", root=root)
    assert capsys.readouterr().out.splitlines()[:3] == [
        "00_book: unchanged, kept",
        "01_book: unchanged, kept",
        "02_book: unchanged, kept",
    ]
    assert {path: path.stat().st_mtime_ns for path in results.rglob("*")} == before


def write(name, text="other"):
    def change(root):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    return change


RESULTS = "results/tiny-photos"


@pytest.mark.parametrize(
    "change, again",
    [
        (write("package/city.py"), 3),
        (write("package/data/record.csv", "2"), 3),
        (write("photos/a.jpg", "b"), 3),  # as long as it was
        (write("photos/b.jpg"), 3),
        (write("results/cache/models/0a/model.safetensors", "x"), 3),
        (lambda root: (root / "results/cache/models/0a/model.safetensors").unlink(), 3),
        (lambda root: (root / "results/cache/kept-tiny-photos.json").unlink(), 3),
        (write("results/cache/kept-tiny-photos.json", '{"made_of": 3'), 3),
        (write("results/cache/kept-tiny-photos.json", "[]"), 3),
        (write(f"{RESULTS}/run.json", '{"steps": {}}'), 3),
        (lambda root: (root / f"{RESULTS}/run.json").unlink(), 3),
        (write("notebooks/01_book.ipynb"), 2),
        (write(f"{RESULTS}/tables/01_book.csv", "1.6"), 2),
        (write(f"{RESULTS}/notebooks/02_book.ipynb", "uot"), 1),
        (lambda root: (root / f"{RESULTS}/tables/00_book.csv").unlink(), 3),
        (
            lambda root: (root / "notebooks/00_book.ipynb").unlink(),
            2,
        ),  # the later ones may have read what it wrote
        (write("notebooks/01_new.ipynb"), 2),  # between 01_book and 02_book
        (write("notebooks/03_new.ipynb"), 1),
        (write("package/__pycache__/city.pyc"), 0),
        (write("results/cache/models/0b/model.safetensors"), 0),  # another study's
    ],
)
def test_what_a_change_executes_again(root, change, again):
    change(root)
    assert execute(root) == again
    assert execute(root) == 0


def test_other_parameters_packages_and_machines(root, monkeypatch):
    assert (
        study(root, seeds=2).of(notebooks_of(root)) == 0
        and study(root, image_size=64).of(notebooks_of(root)) == 0
    )
    other = root / "site" / "torch-9.9.dist-info"
    other.mkdir(parents=True)
    with monkeypatch.context() as patch:
        patch.syspath_prepend(root / "site")
        assert study(root).of(notebooks_of(root)) == 0
    assert study(root).of(notebooks_of(root)) == 3
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert study(root).of(notebooks_of(root)) == 0


def test_a_file_that_is_as_it_was_is_kept_whatever_its_time(root):
    for path in (
        *(root / RESULTS).rglob("*.csv"),
        *(root / "package").rglob("*.csv"),
        *(root / "notebooks").iterdir(),
    ):
        os.utime(path, (1, 1))
    assert execute(root) == 0


def test_a_stopped_run_keeps_what_it_finished(root):
    write("notebooks/00_book.ipynb")(root)
    now, books = study(root), notebooks_of(root)
    for number, book in enumerate(books[:2]):
        with now.executing(book, number):
            leave(now.results, book.stem, number)
    with pytest.raises(KeyboardInterrupt), now.executing(books[2], 2):
        raise KeyboardInterrupt
    assert execute(root) == 1


@pytest.mark.parametrize("name", ["package/city.py", "notebooks/01_book.ipynb", "photos/a.jpg"])
def test_what_changes_while_a_notebook_runs_is_not_kept(root, name):
    write("notebooks/01_book.ipynb", "new")(root)
    now, books = study(root), notebooks_of(root)
    with now.executing(books[1], 1):
        leave(now.results, books[1].stem, 1)
        write(name, "changed meanwhile")(root)
    with now.executing(books[2], 2):
        leave(now.results, books[2].stem, 2)
    assert execute(root) >= 2


def test_seconds_of_notebooks(root):
    record = json.loads((root / RESULTS / "run.json").read_text())
    assert (
        record["notebooks"] == {f"0{n}_book": {"seconds": 5.0, "models": 2.0} for n in range(3)}
        and "made" not in record
    )


@pytest.mark.parametrize(
    "change",
    [
        lambda root: (root / RESULTS / "report.html").unlink(),
        write(f"{RESULTS}/report.html", "egap"),
    ],
)
def test_a_page_that_is_gone_or_another_is_written_again(root, change):
    change(root)
    assert not nothing_new("tiny", root / "photos", root=root)
    assert execute(root) == 0 and nothing_new("tiny", root / "photos", root=root)


def test_a_run_that_was_stopped_before_the_page_is_not_whole(root):
    write("notebooks/02_book.ipynb")(root)
    now, books = study(root), notebooks_of(root)
    with now.executing(books[2], 2):
        leave(now.results, books[2].stem, 2)
    assert (root / RESULTS / "report.html").exists() and not nothing_new(
        "tiny", root / "photos", root=root
    )
