"""Damage on disk is detected, redone and never used; stopped work goes on. `tests/faults.py` does the same to a whole study, on demand."""

import ast
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import nbformat
import numpy as np
import psutil
import pytest
import torch
from safetensors.torch import load_file

import bad_input
import killed_study
from faults import ctrl_c_stops
from vgeo import artefacts, city, profiles, report, run, study
from vgeo.training.checkpoint import Checkpoint
from vgeo.study.cache import alone, artefact
from vgeo.photos.images import load_batches
from vgeo.retrieval.describe import describe
from vgeo.errors import VgeoError, result
from vgeo.models.network import build
from vgeo.models.weights import load_weights
from vgeo.study.study import Study

PACKAGE = os.environ | {"PYTHONPATH": str(profiles.ROOT)}  # also where the package is not installed
RECIPE = {"what": [1, 2], "version": 1}


@pytest.fixture
def made(tmp_path, monkeypatch):
    """(the folder of an artefact as a later process finds it, a function that asks for it again and says how often it was made by then)."""
    count = []

    def make(folder):
        count.append(1)
        (folder / "sub").mkdir()
        np.save(folder / "sub" / "a.npy", np.arange(1000))
        (folder / "empty").touch()

    def again():
        monkeypatch.setattr(artefacts, "_whole", set())  # as in another process
        folder = artefact(tmp_path, "step", RECIPE, make)
        assert (
            np.load(folder / "sub" / "a.npy").tolist() == list(range(1000))
            and (folder / "empty").read_bytes() == b""
        )
        return len(count)

    again()
    return tmp_path / "step" / artefacts.key(RECIPE), again


def flip(path, place, bit=1):
    content = bytearray(path.read_bytes())
    content[place] ^= bit
    path.write_bytes(content)


DAMAGE = {
    "a byte flipped at the end": (lambda f: flip(f / "sub/a.npy", -1, 128), "sub/a.npy is damaged"),
    "a byte flipped in the header": (lambda f: flip(f / "sub/a.npy", 5), "sub/a.npy is damaged"),
    "cut short": (
        lambda f: (f / "sub/a.npy").write_bytes((f / "sub/a.npy").read_bytes()[:-1]),
        "sub/a.npy is damaged",
    ),
    "emptied": (lambda f: (f / "sub/a.npy").write_bytes(b""), "sub/a.npy is damaged"),
    "grown": (lambda f: (f / "empty").write_bytes(b"0"), "empty is damaged"),
    "a file removed": (lambda f: (f / "empty").unlink(), "empty is gone"),
    "seconds changed": (lambda f: (f / "seconds").write_text("9.99\n"), "seconds is damaged"),
    "the recipe of another": (
        lambda f: (f / "recipe.json").write_text('{"what": [2, 1], "version": 1}'),
        "its recipe.json is another's",
    ),
    "the recipe cut short": (
        lambda f: (f / "recipe.json").write_text("{"),
        "its recipe.json or sums.json is damaged",
    ),
    "the recipe in other words": (
        lambda f: (f / "recipe.json").write_text(json.dumps(RECIPE)),
        "recipe.json is damaged",
    ),
    "the recipe removed": (lambda f: (f / "recipe.json").unlink(), "recipe.json is gone"),
    "the sums cut short": (
        lambda f: (f / "sums.json").write_bytes((f / "sums.json").read_bytes()[:-9]),
        "its recipe.json or sums.json is damaged",
    ),
    "the sums of another shape": (
        lambda f: (f / "sums.json").write_text('{"empty": 3}'),
        "its recipe.json or sums.json is damaged",
    ),
    "the sums not text": (
        lambda f: (f / "sums.json").write_bytes(b"\xff\xfe"),
        "its recipe.json or sums.json is damaged",
    ),
    "everything removed": (lambda f: [shutil.rmtree(f), f.mkdir()], "recipe.json is gone"),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_a_damaged_artefact_is_said_and_made_again(made, capsys, what):
    folder, again = made
    assert again() == 1 and capsys.readouterr().out == ""
    damage, message = DAMAGE[what]
    damage(folder)
    assert again() == 2
    assert capsys.readouterr().out == f"vgeo: {folder}: {message}: makes it again\n"
    assert again() == 2 and capsys.readouterr().out == ""
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_one_without_sums_is_sealed_as_it_is_found(made, capsys):
    folder, again = made
    (folder / "sums.json").unlink()
    assert again() == 1 and (folder / "sums.json").exists()
    flip(folder / "sub/a.npy", 200)
    assert again() == 2 and "a.npy is damaged" in capsys.readouterr().out
    (folder / "sums.json").unlink()
    (
        folder / "recipe.json"
    ).unlink()  # written last: without it, nothing says that the folder was whole
    assert again() == 3


def test_a_removal_that_was_killed_leaves_nothing_to_be_taken_for_whole(made, monkeypatch):
    folder, again = made
    flip(folder / "sub/a.npy", 200)
    real = shutil.rmtree

    def killed(path, **options):
        if (path / "sums.json").exists():
            (path / "sums.json").unlink()
            raise KeyboardInterrupt
        real(path, **options)

    monkeypatch.setattr(shutil, "rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        again()
    monkeypatch.setattr(shutil, "rmtree", real)
    assert not folder.exists() and again() == 2


# Checkpoints


def parts(seed=0):
    torch.manual_seed(seed)
    layer = torch.nn.Linear(30, 20)
    return {"layer": layer, "optimizer": torch.optim.Adam(layer.parameters(), lr=0.1)}


def other_layer():
    return {"layer": torch.nn.Linear(3, 2), "optimizer": parts()["optimizer"]}


CHECKPOINTS = {
    **{
        f"a byte flipped at {share:.0%}": lambda path, share=share: flip(
            path, int(share * path.stat().st_size)
        )
        for share in (0.1, 0.3, 0.5, 0.7)
    },
    "cut to half": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "without its last byte": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("not a checkpoint"),
    "another model's": lambda path: Checkpoint(path, **other_layer()).save(iteration=3),
    "of fewer parts": lambda path: Checkpoint(path, layer=parts(7)["layer"]).save(iteration=3),
    "of a model that fits and an optimizer that doesn't": lambda path: Checkpoint(
        path,
        **{
            **parts(7),
            "optimizer": torch.optim.Adam(
                [torch.nn.Parameter(torch.ones(1)) for _ in range(3)], lr=0.3
            ),
        },
    ).save(iteration=3),
    "a tensor": lambda path: torch.save(torch.ones(3), path),
}


@pytest.mark.parametrize("what", CHECKPOINTS)
def test_a_checkpoint_that_cannot_be_used_starts_the_training_again(tmp_path, capsys, what):
    path, trained = tmp_path / "checkpoint.pt", parts(5)
    trained["layer"](torch.ones(1, 30)).sum().backward()
    trained["optimizer"].step()
    Checkpoint(path, **trained).save(iteration=2, weights={"a": torch.ones(500)})
    CHECKPOINTS[what](path)
    fresh, same = parts(), parts()
    assert Checkpoint(path, **fresh).load() == {}
    said = capsys.readouterr().out
    assert (
        said.startswith(f"vgeo: {path}: can't be used (")
        and said.endswith("): starts this training again\n")
        and said.count("\n") == 1
    )
    assert (
        torch.equal(fresh["layer"].weight, same["layer"].weight)
        and fresh["optimizer"].state_dict() == same["optimizer"].state_dict()
    )
    assert (
        not path.exists()
        and Checkpoint(path, **fresh).load() == {}
        and capsys.readouterr().out == ""
    )


# A whole tiny study


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """(a folder of photos, a file of starting weights)"""
    top = tmp_path_factory.mktemp("tiny")
    bad_input.copy_of_data(top / "photos")
    for i in range(3):
        bad_input.photo(top / "photos/night_target", 40 + i, 383_000.0 + i, f"n{i}", 54)
    return top / "photos", bad_input.starting_weights(top / "start")


def kill_and_finish(tiny, results, points=()):
    """A tiny study, killed at points -> (its tables, what it printed)."""
    command = [sys.executable, killed_study.__file__, *map(str, (*tiny, results, *points))]
    done = subprocess.run(
        command, capture_output=True, text=True, env=PACKAGE | {"TQDM_DISABLE": "1"}
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return {
        path.name: path.read_bytes() for path in sorted(Path(results).rglob("table_*.csv"))
    }, done.stdout


def test_a_killed_study_ends_as_an_undisturbed_one(tiny, tmp_path):
    """Killed before and after writes of every kind, 8 times in one study; the same seed also gives the same tables twice."""
    wanted, said = kill_and_finish(tiny, tmp_path / "undisturbed")
    writes = int(re.search(r"writes: (\d+)", said)[1])
    # spread over the attempts, each of which has less left to write than the one before
    found, said = kill_and_finish(tiny, tmp_path / "killed", [3, 10, 17, 26, 31, 40, 22, 33])
    assert found == wanted and len(wanted) == len(killed_study.TABLES) and writes > 100
    assert len(re.findall(r"^\d+: (before|after) ", said, re.M)) == 8
    assert not list((tmp_path / "killed").rglob("*.partial")) and "Traceback" not in said

    # one file of each kind of artefact, in the finished study: all of them are noticed, and the tables stay
    for folder in sorted(
        folder
        for kind in (tmp_path / "killed/results/cache").iterdir()
        if kind.is_dir() and kind.name != "locks"
        for folder in kind.iterdir()
    ):
        largest = max(
            (path for path in folder.rglob("*") if path.is_file()),
            key=lambda path: path.stat().st_size,
        )
        flip(largest, largest.stat().st_size // 2)
    shutil.rmtree(tmp_path / "killed/results/tiny-photos")
    found, said = kill_and_finish(tiny, tmp_path / "killed")
    assert found == wanted
    assert {
        line.split("/")[-2] for line in said.splitlines() if line.endswith(": makes it again")
    } == {"descriptors", "mined", "models", "pairs", "predictions", "trunks", "views"}


@pytest.fixture
def here(tiny, tmp_path, monkeypatch):
    """A Study of the tiny photos in this process."""
    monkeypatch.setattr(study, "ROOT", tmp_path)
    monkeypatch.setattr("vgeo.study.CITY_WEIGHTS", tiny[1].parent)
    monkeypatch.setattr("vgeo.models.CITY_WEIGHTS", tiny[1].parent)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setitem(profiles.PROFILES, "tiny", replace(bad_input.TINY, **killed_study.NUMBERS))
    return Study("tiny", tiny[0])


def test_the_number_of_threads_changes_rounding_alone(here, tiny, tmp_path, monkeypatch):
    """Predictions are the same, trained weights within 1e-5 and squared distances within 1e-6 of another number of threads'."""
    found, threads = [], torch.get_num_threads()
    try:
        for number in (1, 2):
            torch.set_num_threads(number)
            monkeypatch.setattr(study, "ROOT", tmp_path / str(number))
            ours = Study("tiny", tiny[0])
            weights = ours.train("CosFace") / "model.safetensors"
            found.append((load_file(weights), ours.evaluate(weights, "sf-xs")))
    finally:
        torch.set_num_threads(threads)
    (one, first), (other, second) = found
    assert max(float((one[name].float() - other[name].float()).abs().max()) for name in one) < 1e-5
    assert (first.predictions == second.predictions).all()
    np.testing.assert_allclose(first.distances, second.distances, atol=1e-6)


def test_the_size_of_a_batch_changes_rounding_alone(tiny):
    model, paths = (
        load_weights(build("resnet18"), tiny[1]),
        sorted(map(str, (tiny[0] / "sf-xs/test/database").iterdir())),
    )
    whole = describe(model, paths, 32)
    for size in (1, 2, 3):
        np.testing.assert_allclose(describe(model, paths, 32, batch_size=size), whole, atol=1e-6)


# Starved


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 1 MB, and a function that makes it read-only."""
    place = tmp_path / "disk"
    place.mkdir()
    try:
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", place],
            check=True,
            capture_output=True,
        )
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("mounting a small disk takes root and Linux")
    yield place, lambda: subprocess.run(["mount", "-o", "remount,ro", place], check=True)
    subprocess.run(["umount", "-l", place], check=True)


def test_a_full_disk_is_said_and_leaves_nothing_half(small_disk):
    place, read_only = small_disk

    def make(folder, size=2_000_000):
        (folder / "large").write_bytes(bytes(size))

    with pytest.raises(
        VgeoError, match="can't be written .No space left on device.: free some space"
    ):
        artefact(place, "step", {}, make)
    assert [path.name for path in (place / "step").iterdir()] == [f"{artefacts.key({})}.partial"]
    whole = artefact(place, "step", {}, lambda folder: make(folder, 1000))
    layer = torch.nn.Linear(900, 900)
    checkpoint = Checkpoint(place / "checkpoint.pt", layer=torch.nn.Linear(2, 2))
    checkpoint.save(iteration=1)
    with pytest.raises((OSError, RuntimeError)):  # torch.save names no type
        Checkpoint(place / "checkpoint.pt", layer=layer).save(iteration=2)
    assert checkpoint.load() == {"iteration": 1}
    (place / "checkpoint.tmp").unlink(missing_ok=True)
    read_only()
    artefacts._whole.clear()
    assert artefact(place, "step", {}, make) == whole  # what is there can be used
    with pytest.raises(VgeoError, match="can't be written .Read-only file system."):
        artefact(place, "step", {"other": 1}, make)


def test_two_runs_of_one_study_take_turns(tmp_path, capsys):
    order, inside = [], threading.Event()

    def second():
        inside.wait(20)
        with alone(tmp_path, "run-smoke", "another run writes it; waits for it"):
            order.append("second")

    thread = threading.Thread(target=second)
    thread.start()
    with alone(tmp_path, "run-smoke", "never said"):
        inside.set()
        time.sleep(0.5)
        order.append("first")
    thread.join(20)
    assert (
        order == ["first", "second"]
        and capsys.readouterr().out == "vgeo: another run writes it; waits for it\n"
    )


def test_a_run_waits_for_another_of_the_same_results(here, tmp_path, monkeypatch, capsys):
    """run_study begins when another process lets go of the lock of its results."""
    code = f"""
from vgeo.artefacts import alone
with alone({str(here.cache)!r}, "run-{here.results.name}", ""):
    print("in", flush=True)
    input()
"""
    began = []
    monkeypatch.setattr(run, "Study", lambda *_: here)
    monkeypatch.setattr(run, "_run", lambda *_: began.append(time.monotonic()))
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=PACKAGE,
    ) as other:
        assert other.stdout.readline() == "in\n"
        thread = threading.Thread(target=run.run_study, args=("tiny", str(here.data)))
        thread.start()
        time.sleep(0.5)
        let_go = time.monotonic()
        assert not began
        other.communicate("\n")
        thread.join(30)
    assert (
        began[0] >= let_go
        and f"vgeo: {here.results}: another run writes it; waits for it" in capsys.readouterr().out
    )


# Watched and stopped

NOTEBOOK = """
import os, time
from pathlib import Path
from vgeo.errors import say
say("is at it")
print("not for the terminal")
Path(folder, "kernel").write_text(str(os.getpid()))
time.sleep(600)
"""
RUN = """
import sys
from pathlib import Path
from unittest import mock
from vgeo import __main__, run
def study(*asked):
    run.execute(sys.argv[1], sys.argv[2] + "/out.ipynb", {"folder": sys.argv[2]}, sys.argv[2])
run.run_study = study
with mock.patch("vgeo.kept.nothing_new", lambda *asked: False):
    __main__.main(["run", "smoke"])
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_a_stopped_run_leaves_no_process(tmp_path, how):
    cells = [
        nbformat.v4.new_code_cell('folder = ""', metadata={"tags": ["parameters"]}),
        nbformat.v4.new_code_cell(NOTEBOOK),
    ]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(
        nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel}),
        tmp_path / "book.ipynb",
    )
    with subprocess.Popen(
        [sys.executable, "-c", RUN, tmp_path / "book.ipynb", tmp_path],
        env=PACKAGE,
        start_new_session=True,
        preexec_fn=ctrl_c_stops,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as process:
        while process.poll() is None and not (tmp_path / "kernel").exists():
            time.sleep(0.1)
        time.sleep(0.5)
        started = psutil.Process(process.pid).children(recursive=True)
        os.killpg(process.pid, how)
        said = process.communicate(timeout=60)[0].strip().splitlines()
    assert started and not psutil.wait_procs(started, timeout=20)[1]
    if how == signal.SIGINT:
        assert process.returncode == 1 and [line.strip() for line in said] == [
            "vgeo: is at it",
            "vgeo: stopped; the same command goes on from here",
        ]
    else:
        assert process.returncode == -how  # its kernel notices within a second, and says so


RENDER = """
import os, signal, sys
from vgeo import city, profiles
def stall(seconds):
    import time
    print("up", flush=True)
    time.sleep(seconds)
    return 1
if __name__ == "__main__":
    from vgeo.__main__ import main
    import vgeo.layout
    vgeo.layout.check = lambda *_: city._run([(stall, 600)] * 3, "rendering", False)
    main(["data", "--check"])
"""


@pytest.mark.parametrize(
    "how, whom, last",
    [
        (signal.SIGINT, "all", "vgeo: stopped; the same command goes on from here"),
        (signal.SIGKILL, "parent", None),
        (
            signal.SIGKILL,
            "worker",
            "vgeo: rendering: a process died, as when memory runs out: close other programs and call again",
        ),
    ],
)
def test_render_workers_end_with_their_parent(tmp_path, how, whom, last):
    (tmp_path / "render.py").write_text(RENDER)
    with subprocess.Popen(
        [sys.executable, tmp_path / "render.py"],
        env=PACKAGE,
        start_new_session=True,
        preexec_fn=ctrl_c_stops,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout.readline() == "up\n"
        workers = psutil.Process(process.pid).children(recursive=True)
        if whom == "all":
            os.killpg(process.pid, how)
        elif whom == "parent":
            process.kill()
        else:
            next(worker for worker in workers if "spawn_main" in " ".join(worker.cmdline())).kill()
        said = process.communicate(timeout=60)[1].strip()
    assert not psutil.wait_procs(workers, timeout=20)[1]
    if last:
        assert process.returncode == 1 and said == last


def test_what_hangs_is_said(capsys, monkeypatch, tmp_path):
    go = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        threading.Timer(0.7, go.set).start()
        assert result(pool.submit(lambda: go.wait(20) and 7), "x.jpg", 0.3) == 7
        said = capsys.readouterr().out.splitlines()
        assert len(said) == 2 and all(
            line.startswith("vgeo: x.jpg: not done within 0.3 s, it may hang") for line in said
        )
        with pytest.raises(TimeoutError, match="its own"):  # is the task's, not that of the waiting
            result(pool.submit(lambda: (_ for _ in ()).throw(TimeoutError("its own"))), "x", 0.3)
    monkeypatch.setattr("vgeo.datasets.result", lambda task, what: result(task, what, 0.2))
    monkeypatch.setattr(
        "vgeo.datasets.load_image",
        lambda path, size: time.sleep(0.5) or torch.zeros(3, 2, 2, dtype=torch.uint8),
    )
    list(load_batches(["slow.jpg"], 1, 2))
    assert "vgeo: slow.jpg: not done" in capsys.readouterr().out


# Security


def test_the_package_runs_nothing_from_outside():
    """No eval or exec, no shell, no pickle, and torch.load for tensors alone."""
    calls = []
    for path in [*Path(profiles.ROOT, "vgeo").rglob("*.py"), Path(profiles.ROOT, "hubconf.py")]:
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
                assert not {"pickle", "dill", "joblib", "shelve", "marshal", "cloudpickle"} & {
                    part for name in names for part in name.split(".")
                }, path
            if isinstance(node, ast.Call):
                name = ast.unparse(node.func)
                options = {option.arg: ast.unparse(option.value) for option in node.keywords}
                assert name not in (
                    "eval",
                    "exec",
                    "compile",
                    "__import__",
                    "os.system",
                    "os.popen",
                    "subprocess.getoutput",
                    "yaml.load",
                ), (path, node.lineno)
                assert (
                    options.get("shell", "False") == "False"
                    and options.get("allow_pickle", "False") == "False"
                ), (path, node.lineno)
                if name in ("torch.load", "torch.hub.load_state_dict_from_url"):
                    assert options.get("weights_only") == "True", (path, node.lineno)
                    calls.append(name)
    assert sorted(calls) == ["torch.hub.load_state_dict_from_url", "torch.load", "torch.load"]
    assert np.load.__kwdefaults__ is None or np.load.__defaults__[1] is False  # numpy's own default


def test_jupyter_is_for_this_machine_alone():
    """Nothing here opens JupyterLab to a network or takes its token away."""
    kept = subprocess.run(["git", "ls-files"], cwd=profiles.ROOT, capture_output=True, text=True)
    names = (
        kept.stdout.split("\n")[:-1]
        if kept.returncode == 0
        else [str(path.relative_to(profiles.ROOT)) for path in profiles.ROOT.glob("*.*")]
    )
    for name in names:
        path = profiles.ROOT / name
        if (
            path.suffix in (".py", ".sh", ".md", ".toml", ".yml", ".ipynb")
            and path.name != Path(__file__).name
            and path.exists()
        ):
            text = path.read_text()
            assert not re.search(
                r"0\.0\.0\.0|--ip\b|allow_origin|token\s*=\s*[\"']{2}|password\s*=\s*[\"']{2}|--no-browser|allow-root",
                text,
            ), name


def test_odd_names_go_through_every_step(here, tiny, tmp_path, monkeypatch):
    """Photos named for a shell, a web page and a terminal are described, searched and put into tables as any other."""
    monkeypatch.chdir(tmp_path)
    odd = tmp_path / "$(touch owned) & <b>-rf"
    shutil.copytree(tiny[0], odd)
    for place, note in (
        ("sf-xs/test/queries_v1", "$(touch owned)"),
        ("sf-xs/test/database", "`touch owned`;touch owned"),
        ("sf-xs/train", "<script>'\"&"),
        ("sf-xs/val/database", "a\nb\x1b[31m"),
    ):
        for path in (odd / place).iterdir():
            path.rename(path.with_name(path.name.replace("@201704@@", f"@201704@{note}@")))
    ours = Study("tiny", odd)
    table, _ = ours.table(4)
    report.write_table(ours.results, table)
    plain = here.table(4)[0]
    assert table["value"].tolist() == plain["value"].tolist()
    figure = report.data_map("sf-xs", ours.sets["sf-xs"])
    report.write_figure(
        ours.results, "map", figure if hasattr(figure, "savefig") else figure.get_figure()
    )
    assert not list(tmp_path.rglob("owned")) and "owned" not in os.listdir()


# Memory

MEMORY = """
import resource, sys
import numpy as np
from vgeo.describe import describe
from vgeo.models import build, load_weights
from vgeo.retrieve import search
paths = [sys.argv[2]] * int(sys.argv[3])
model = load_weights(build("resnet18"), sys.argv[1])
found = describe(model, paths, 64)
search(found, found[:50], 20)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def test_memory_stays_bounded(tiny):
    """Peak memory of describing and searching grows with the descriptors, 2 kB a photo, and by little more: photos come and go."""
    photo = next((tiny[0] / "sf-xs/test/database").iterdir())
    peaks = [
        float(
            subprocess.run(
                [sys.executable, "-c", MEMORY, tiny[1], photo, str(count)],
                capture_output=True,
                text=True,
                check=True,
                env=PACKAGE,
            ).stdout
        )
        for count in (300, 1500)
    ]
    assert peaks[1] - peaks[0] < 60, (
        peaks
    )  # MB; the decoded photos of the larger set alone would be 18 MB as bytes and 74 as numbers
