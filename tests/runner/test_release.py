"""The released run is a whole copy of a finished run, or stays as it was."""

import json

import pytest

from vgeo.runner.release import release


@pytest.fixture
def notebooks(tmp_path):
    return [tmp_path / f"notebooks/{stem}.ipynb" for stem in ("00_data", "01_losses")]


@pytest.fixture
def run(tmp_path, notebooks):
    """A finished run of two notebooks."""
    folder = tmp_path / "runs/city"
    record = {"notebooks": {path.stem: {"seconds": 1.0} for path in notebooks}, "steps": {}}
    texts = {"run.json": json.dumps(record), "report.html": "page", "tables/stale.csv": "old"}
    for path in notebooks:
        files = [f"tables/{path.stem}.csv", f"figures/{path.stem}.png"]
        section = {"tables": [{"name": "x", "files": files}], "figures": [], "other": []}
        texts |= dict.fromkeys(files, path.stem)
        texts |= {f"sections/{path.stem}.json": json.dumps(section)}
        texts |= {f"notebooks/{path.name}": "executed"}
    for name, text in texts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def content(folder):
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_text() for path in paths}


def test_a_finished_run_is_released_with_what_its_notebooks_name(run, notebooks, tmp_path):
    wanted = content(run)
    del wanted["tables/stale.csv"]  # of an earlier run: no notebook names it any more
    out = tmp_path / "results/city"
    assert release(run, out, notebooks) == out and content(out) == wanted


def test_the_released_folder_is_replaced_as_a_whole(run, notebooks, tmp_path):
    out = tmp_path / "results/city"
    release(run, out, notebooks)
    (out / "tables/of_an_older_release.csv").write_text("1")
    (run / "tables/00_data.csv").write_text("new")
    release(run, out, notebooks)
    assert not (out / "tables/of_an_older_release.csv").exists()
    assert (out / "tables/00_data.csv").read_text() == "new"
    assert [path.name for path in out.parent.iterdir()] == ["city"]


@pytest.mark.parametrize(
    "name",
    [
        "run.json",
        "report.html",
        "notebooks/01_losses.ipynb",
        "sections/01_losses.json",
        "tables/00_data.csv",
        "figures/01_losses.png",
    ],
)
def test_an_unfinished_run_is_refused_and_the_release_stays(
    run, notebooks, tmp_path, refused, name
):
    out = tmp_path / "results/city"
    release(run, out, notebooks)
    before = content(out)
    (run / name).unlink()
    refused(lambda: release(run, out, notebooks), run, "not a finished run", name, "vgeo run")
    assert content(out) == before


def test_a_run_that_was_stopped_before_a_notebook_is_refused(run, notebooks, tmp_path, refused):
    (run / "run.json").write_text('{"notebooks": {"00_data": {}}, "steps": {}}')
    refused(lambda: release(run, tmp_path / "out", notebooks), "lacks 01_losses in run.json")
    (run / "run.json").write_text("{")
    refused(lambda: release(run, tmp_path / "out", notebooks), "run.json: is no record of a run")
    refused(lambda: release(tmp_path / "none", tmp_path / "out", notebooks), "no such folder")
    assert not (tmp_path / "out").exists()


def test_nothing_but_a_released_run_is_replaced(run, notebooks, tmp_path, refused):
    home = tmp_path / "home"
    home.mkdir()
    (home / "thesis.tex").write_text("mine")
    refused(lambda: release(run, home, notebooks), "is not a released run and is left alone")
    refused(lambda: release(run, run, notebooks), "is the run itself")
    assert content(home) == {"thesis.tex": "mine"}
