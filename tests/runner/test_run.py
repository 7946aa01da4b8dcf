"""A run executes the notebooks that changed, records them, writes the page, and needs room."""

import subprocess
import sys
import threading
import time
from dataclasses import replace

import pytest

from vgeo.errors import VgeoError
from vgeo.models import network
from vgeo.runner import record
from vgeo.runner import run as runner
from vgeo.runner.run import check_room, compute, run_notebooks, share
from vgeo.runner.unchanged import parameters_of
from vgeo.study.study import Study

PARAMETERS = "profile = None\ndata = None\nimage_size = None\nseeds = None\nstart = None"
CELL = """
import json, pathlib
from vgeo import files
from vgeo.study.cache import Cache

cache = Cache({cache!r}, {journal!r})
for regression in range(3):
    cache.step("pairs", "compare 15 pairs sf-xs", {{"regression": regression}}, lambda folder: None)
for name, text in (("counts.csv", "name,value\\na,1\\n"), ("table_01.md", "# Table 1")):
    files.write(pathlib.Path({results!r}, "tables", name), text)
entry = {{"name": "counts", "caption": "", "reasons": {{}}, "files": ["tables/counts.csv"]}}
section = {{"tables": [entry], "figures": [], "other": [], "says": ""}}
files.write(pathlib.Path({results!r}, "sections", "{stem}.json"), json.dumps(section))
"""


@pytest.fixture
def notebooks(whole_study, tmp_path, write_notebook):
    """Two notebooks that use the same three steps."""
    study, paths = whole_study, []
    for stem in ("00_data", "01_losses"):
        places = {"cache": str(study.cache.root), "journal": str(study.cache.journal)}
        cell = CELL.format(**places, results=str(study.results), stem=stem)
        paths.append(write_notebook(tmp_path / f"notebooks/{stem}.ipynb", PARAMETERS, cell))
    return paths


@pytest.fixture
def run(whole_study, notebooks, capsys):
    """Runs the notebooks; returns the names in the lines that say what was done."""

    def run():
        parameters = parameters_of("tiny", whole_study.data.folder)
        run_notebooks(whole_study, parameters, notebooks)
        lines = capsys.readouterr().out.splitlines()
        return [line.split(":")[0] for line in lines if line.startswith("0")]

    return run


@pytest.mark.slow
def test_a_run_executes_what_changed_and_records_it(run, whole_study, notebooks, write_notebook):
    results = whole_study.results
    assert run() == ["00_data", "01_losses"]
    content = record.read(results / "run.json")
    pairs = [step for step in content["steps"].values() if step["kind"] == "pairs"]
    assert len(pairs) == 3 and {step["label"] for step in pairs} == {"compare 15 pairs sf-xs"}
    assert all(step["notebooks"] == ["00_data", "01_losses"] for step in pairs)
    made = {name for name, times in content["notebooks"].items() if "pairs" in times}
    assert made == {"00_data"}
    assert content["notebooks"].keys() == {record.BEFORE, "00_data", "01_losses"}
    starts = [step for step in content["steps"].values() if record.BEFORE in step["notebooks"]]
    assert [step["label"] for step in starts] == ["start efficientnet_lite0"]
    assert (results / "report.html").exists() and (results / "notebooks/00_data.ipynb").exists()

    times = {path: path.stat().st_mtime_ns for path in results.rglob("*.*")}
    run()
    assert {path: path.stat().st_mtime_ns for path in results.rglob("*.*")} == times

    write_notebook(notebooks[1], PARAMETERS, 'raise ValueError("stop")')
    with pytest.raises(Exception, match="01_losses.ipynb: cell 3 failed with ValueError: stop"):
        run()
    assert record.read(results / "run.json")["notebooks"].keys() == {record.BEFORE, "00_data"}


@pytest.mark.slow
def test_a_run_waits_for_another_of_the_same_results(whole_study, capsys):
    """It begins when another process lets go of the lock of its results."""
    results = whole_study.results
    code = f"""
from vgeo.study.cache import lock
with lock({str(whole_study.cache.root)!r}, "run-{results.name}", ""):
    print("in", flush=True)
    input()
"""
    command, ended = [sys.executable, "-P", "-c", code], []

    def other_run():
        parameters = parameters_of("tiny", whole_study.data.folder)
        try:
            run_notebooks(whole_study, parameters, [results / "none.ipynb"])
        except Exception:  # there is no such notebook
            ended.append(time.monotonic())

    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout.readline() == "in\n"
        thread = threading.Thread(target=other_run)
        thread.start()
        time.sleep(0.5)
        let_go = time.monotonic()
        assert not ended
        other.communicate("\n")
        thread.join(60)
    assert ended and ended[0] >= let_go
    assert f"vgeo: {results}: another run writes it; waits for it" in capsys.readouterr().out


def test_a_disk_without_room_is_said_before_anything_starts(whole_study, refused):
    check_room(whole_study)
    study = Study(replace(whole_study.profile, disk_gb=1e6), whole_study.data.folder)
    study.cache = whole_study.cache
    refused(lambda: check_room(study), "needs 1000000.0 GB of disk", "are free: free some space")
    study.profile = replace(study.profile, seeds=(0, 1, 2))
    refused(lambda: check_room(study), "needs 2000000.0 GB of disk")


@pytest.mark.slow
def test_a_shared_run_that_fails_is_said(refused, capfd):
    refused(lambda: share(1, "nope", image_size=None), "one of 1 processes failed")
    assert "unknown profile 'nope'" in capfd.readouterr().err


def test_processes_that_share_a_run_get_its_arguments(monkeypatch):
    commands = []

    def called(command):
        commands.append(command)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(runner.subprocess, "run", called)
    share(2, **parameters_of("city", seeds=3, start="imagenet"))
    words = ["evaluate", "city", "--seeds", "3", "--start", "imagenet"]
    assert commands[0][-len(words) :] == words


def test_weights_that_cannot_be_had_end_a_run_before_anything_long(tmp_path, monkeypatch, refused):
    """Before the city is rendered."""

    def unreachable(url):
        raise VgeoError(f"ImageNet weights not reached: download {url}")

    monkeypatch.setattr(network, "imagenet_state", unreachable)
    places = {"results": tmp_path / "results", "cache": tmp_path / "cache"}
    study = Study("smoke", start="imagenet", **places)
    parameters = parameters_of("smoke", start="imagenet")
    file = "efficientnet_v2_s-dd5fe13b.pth"  # the first backbone by name that has to be downloaded
    refused(lambda: run_notebooks(study, parameters, [tmp_path / "none.ipynb"]), "download", file)
    assert not (tmp_path / "cache/data").exists() and not (tmp_path / "results").exists()
    monkeypatch.setattr(runner, "Study", lambda *words: Study(*words, **places))
    refused(lambda: compute("smoke", start="imagenet"), "download", file)
    assert not (tmp_path / "cache/data").exists()


def test_computing_refuses_what_a_study_refuses(refused):
    refused(lambda: compute("smoke", seeds=0), "seeds 0: a whole number from 1 to 100")
