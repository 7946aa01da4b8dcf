"""Damage on disk is noticed, redone and never used. Stopped work goes on.

`benchmarks/faults.py` does the same to a whole study, on demand.
"""

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
from pathlib import Path

import killed_study
import numpy as np
import psutil
import pytest
import torch
from faults import ctrl_c_stops
from safetensors.torch import load_file

from vgeo.errors import VgeoError
from vgeo.files import PACKAGE
from vgeo.models.network import build
from vgeo.models.weights import load_weights
from vgeo.report.figures import data_map
from vgeo.report.section import Section
from vgeo.report.tables import beside_published
from vgeo.retrieval.describe import describe
from vgeo.study.cache import Cache, lock
from vgeo.study.rows import TABLES
from vgeo.training.checkpoint import Checkpoint

RECIPE = {"what": [1, 2]}
CODE = ("vgeo.retrieval.fuse",)


# Results in the cache


@pytest.fixture
def made(tmp_path):
    """(a folder of the cache as a later process finds it, a function that asks for it again and
    says how often it was made by then).
    """
    count = []

    def make(folder):
        count.append(1)
        (folder / "sub").mkdir()
        np.save(folder / "sub/a.npy", np.arange(1000))
        (folder / "empty").touch()

    def again():  # a new Cache has compared nothing with its sums yet, as in another process
        folder = Cache(tmp_path).step("models", "train", RECIPE, make, CODE)
        assert np.load(folder / "sub/a.npy").tolist() == list(range(1000))
        assert (folder / "empty").read_bytes() == b""
        return len(count)

    again()
    (folder,) = (tmp_path / "models").iterdir()
    return folder, again


def flip(path, place, bit=1):
    content = bytearray(path.read_bytes())
    content[place] ^= bit
    path.write_bytes(content)


def cut(path, size):
    path.write_bytes(path.read_bytes()[:size])


def other_recipe(folder):
    recipe = json.loads((folder / "recipe.json").read_text())
    (folder / "recipe.json").write_text(json.dumps(recipe | {"what": [2, 1]}))


def same_recipe_in_other_words(folder):
    recipe = json.loads((folder / "recipe.json").read_text())
    (folder / "recipe.json").write_text(json.dumps(recipe))


NO_JSON = "its recipe.json or sums.json is damaged"
DAMAGE = {
    "a byte flipped at the end": (lambda f: flip(f / "sub/a.npy", -1, 128), "sub/a.npy is damaged"),
    "a byte flipped in the header": (lambda f: flip(f / "sub/a.npy", 5), "sub/a.npy is damaged"),
    "cut short": (lambda f: cut(f / "sub/a.npy", -1), "sub/a.npy is damaged"),
    "emptied": (lambda f: cut(f / "sub/a.npy", 0), "sub/a.npy is damaged"),
    "grown": (lambda f: (f / "empty").write_bytes(b"0"), "empty is damaged"),
    "a file removed": (lambda f: (f / "empty").unlink(), "empty is gone"),
    "seconds changed": (lambda f: (f / "seconds").write_text("9.99\n"), "seconds is damaged"),
    "the recipe of another": (other_recipe, "its recipe.json is another's"),
    "the recipe cut short": (lambda f: (f / "recipe.json").write_text("{"), NO_JSON),
    "the recipe in other words": (same_recipe_in_other_words, "recipe.json is damaged"),
    "the recipe removed": (lambda f: (f / "recipe.json").unlink(), "recipe.json is gone"),
    "the sums removed": (lambda f: (f / "sums.json").unlink(), "sums.json is gone"),
    "the sums cut short": (lambda f: cut(f / "sums.json", -9), NO_JSON),
    "the sums of another shape": (lambda f: (f / "sums.json").write_text('{"empty": 3}'), NO_JSON),
    "the sums not text": (lambda f: (f / "sums.json").write_bytes(b"\xff\xfe"), NO_JSON),
    "everything removed": (lambda f: [shutil.rmtree(f), f.mkdir()], "recipe.json is gone"),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_a_damaged_folder_is_named_and_made_again(made, capsys, what):
    folder, again = made
    assert again() == 1 and capsys.readouterr().out == ""
    damage, message = DAMAGE[what]
    damage(folder)
    assert again() == 2
    assert capsys.readouterr().out == f"vgeo: {folder}: {message}: makes it again\n"
    assert again() == 2 and capsys.readouterr().out == ""
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_a_removal_that_was_killed_leaves_nothing_to_be_taken_for_whole(made, monkeypatch):
    folder, again = made
    flip(folder / "sub/a.npy", 200)
    real = shutil.rmtree

    def killed(path, **options):
        if (path / "sums.json").exists():
            (path / "sums.json").unlink()
            raise KeyboardInterrupt
        real(path, **options)

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            again()
    assert not folder.exists() and again() == 2


# Checkpoints


def parts(seed=0):
    torch.manual_seed(seed)
    layer = torch.nn.Linear(30, 20)
    return {"layer": layer, "optimizer": torch.optim.Adam(layer.parameters(), lr=0.1)}


def other_optimizer():
    parameters = [torch.nn.Parameter(torch.ones(1)) for _ in range(3)]
    return parts(7) | {"optimizer": torch.optim.Adam(parameters, lr=0.3)}


def flip_in(path, tensor):
    """Flips a byte of a tensor that the file holds."""
    flip(path, path.read_bytes().index(tensor.numpy().tobytes()) + 20)


def save(path, **parts):
    Checkpoint(path, **parts).save(iteration=3)


CHECKPOINTS = {
    "a byte flipped in a model": lambda path: flip_in(path, torch.ones(500)),
    "a byte flipped in the names": lambda path: flip(path, path.read_bytes().index(b"iteration")),
    "cut to half": lambda path: cut(path, path.stat().st_size // 2),
    "without its last byte": lambda path: cut(path, -1),
    "empty": lambda path: cut(path, 0),
    "text": lambda path: path.write_text("not a checkpoint"),
    "another model's": lambda path: save(path, **(parts() | {"layer": torch.nn.Linear(3, 2)})),
    "of fewer parts": lambda path: save(path, layer=parts(7)["layer"]),
    "of another optimizer": lambda path: save(path, **other_optimizer()),
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
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(f"vgeo: {path}: can't be used (")
    assert line.endswith("): starts this training again")
    assert torch.equal(fresh["layer"].weight, same["layer"].weight)
    assert fresh["optimizer"].state_dict() == same["optimizer"].state_dict()
    assert not path.exists() and Checkpoint(path, **fresh).load() == {}
    assert capsys.readouterr().out == ""


# A whole tiny study


def kill_and_finish(photos, weights, folder, points=()):
    """A tiny study, killed at points -> (its tables, what it printed)."""
    words = map(str, (photos, weights, folder, *points))
    command = [sys.executable, "-P", killed_study.__file__, *words]
    environment = os.environ | {"TQDM_DISABLE": "1", "PYTHONPATH": str(PACKAGE.parent)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    tables = sorted(Path(folder, "tables").glob("*.csv"))
    return {path.name: path.read_bytes() for path in tables}, done.stdout


@pytest.mark.faults
@pytest.mark.slow
def test_a_killed_study_ends_as_an_undisturbed_one(photos, weights, tmp_path):
    """Killed before and after writes of every kind, 8 times in one study; then damaged."""
    wanted, said = kill_and_finish(photos, weights, tmp_path / "undisturbed")
    writes = int(re.search(r"writes: (\d+)", said)[1])
    # spread over the attempts, each of which has less left to write than the one before
    points = [3, 10, 17, 26, 31, 40, 22, 33]
    found, said = kill_and_finish(photos, weights, tmp_path / "killed", points)
    assert found == wanted and len(wanted) == len(killed_study.NUMBERS) and writes > 100
    assert len(re.findall(r"^\d+: (before|after) ", said, re.M)) == len(points)
    assert not list((tmp_path / "killed").rglob("*.partial")) and "Traceback" not in said

    # the largest file of every folder is damaged: all are noticed, and the tables stay
    cache = tmp_path / "killed/cache"
    for folder in (path.parent for path in sorted(cache.glob("*/*/sums.json"))):
        paths = (path for path in folder.rglob("*") if path.is_file())
        largest = max(paths, key=lambda path: path.stat().st_size)
        flip(largest, largest.stat().st_size // 2)
    shutil.rmtree(tmp_path / "killed/tables")
    found, said = kill_and_finish(photos, weights, tmp_path / "killed")
    assert found == wanted
    again = {line.split("/")[-2] for line in said.splitlines() if line.endswith("makes it again")}
    results = {"descriptors", "models", "pairs", "points", "predictions"}
    assert again == results | {"centres", "mined", "pooled", "trunks", "views"}


@pytest.mark.slow
def test_the_number_of_threads_changes_rounding_alone(study, tmp_path):
    """Sums in another order: the losses agree until the weights differ, and no weight moves further
    than Adam's steps can take it. Descriptors of the same weights agree.
    """
    found, before = [], torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            ours = study()
            ours.cache.root = ours.trainings.cache.root = tmp_path / f"{threads} threads"
            start = ours.start("resnet18")
            descriptors = ours.describe(start, ours.data.val.database)
            found.append((descriptors, ours.train("CosFace")))
    finally:
        torch.set_num_threads(before)
    (first, model), (second, other) = found
    np.testing.assert_allclose(first, second, atol=1e-4)
    losses = [each.log["loss"].dropna().to_numpy() for each in (model, other)]
    np.testing.assert_allclose(losses[0][0], losses[1][0], rtol=1e-3)
    training = study().profile.training
    reach = 2 * training.lr_model * training.iterations * training.epochs * 1.01
    weights = [load_file(each.weights) for each in (model, other)]
    for name, tensor in weights[0].items():
        if tensor.is_floating_point() and "running" not in name:
            assert (tensor - weights[1][name]).abs().max() <= reach, name


def test_the_size_of_a_batch_changes_rounding_alone(photos, weights):
    model = load_weights(build("resnet18"), weights / "resnet18.safetensors")
    paths = sorted(map(str, (photos / "sf-xs/test/database").iterdir()))
    whole = describe(model, paths, 32)
    for size in (1, 2, 3):
        np.testing.assert_allclose(describe(model, paths, 32, batch_size=size), whole, atol=1e-4)


# Full disks, other runs


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 1 MB, and a function that makes it read-only."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", place]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("mounting a small disk takes root and Linux")
    yield place, lambda: subprocess.run(["mount", "-o", "remount,ro", place], check=True)
    subprocess.run(["umount", "-l", place], check=True)


@pytest.mark.faults
def test_a_full_disk_is_said_and_leaves_nothing_half(small_disk):
    place, read_only = small_disk

    def step(size, recipe):
        def make(folder):
            (folder / "large").write_bytes(bytes(size))

        return Cache(place).step("models", "train", recipe, make, CODE)

    with pytest.raises(VgeoError, match="can't be written .No space left on device.: free some"):
        step(2_000_000, {})
    assert [path.suffix for path in (place / "models").iterdir()] == [".partial"]
    whole = step(1000, {})
    checkpoint = Checkpoint(place / "checkpoint.pt", layer=torch.nn.Linear(2, 2))
    checkpoint.save(iteration=1)
    with pytest.raises((OSError, RuntimeError)):  # torch.save names no type
        Checkpoint(place / "checkpoint.pt", layer=torch.nn.Linear(900, 900)).save(iteration=2)
    assert checkpoint.load() == {"iteration": 1}
    read_only()
    assert step(1000, {}) == whole  # what is there can be used
    with pytest.raises(VgeoError, match="can't be written .Read-only file system."):
        step(1000, {"other": 1})


def test_two_runs_of_one_study_take_turns(tmp_path, capsys):
    order, inside = [], threading.Event()

    def second():
        inside.wait(20)
        with lock(tmp_path, "run-smoke", "another run writes it; waits for it"):
            order.append("second")

    thread = threading.Thread(target=second)
    thread.start()
    with lock(tmp_path, "run-smoke", "never said"):
        inside.set()
        time.sleep(0.5)
        order.append("first")
    thread.join(20)
    assert order == ["first", "second"]
    assert capsys.readouterr().out == "vgeo: another run writes it; waits for it\n"


# Stopped from outside

CELL = """
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
from vgeo import __main__
from vgeo.runner.execute import execute
book, folder = Path(sys.argv[1]), Path(sys.argv[2])
__main__._run = lambda options: execute(book, folder / "out.ipynb", {"folder": str(folder)}, folder)
__main__.main(["run", "smoke"])
"""


@pytest.mark.faults
@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_a_stopped_run_leaves_no_process(tmp_path, write_notebook, how):
    book = write_notebook(tmp_path / "book.ipynb", 'folder = ""', CELL)
    with started([sys.executable, "-P", "-c", RUN, book, tmp_path]) as process:
        while process.poll() is None and not (tmp_path / "kernel").exists():
            time.sleep(0.1)
        time.sleep(0.5)
        children = psutil.Process(process.pid).children(recursive=True)
        os.killpg(process.pid, how)
        said = process.communicate(timeout=60)[0].strip().splitlines()
    assert children and not psutil.wait_procs(children, timeout=20)[1]
    if how == signal.SIGINT:
        stopped = "vgeo: stopped; the same command goes on from here"
        assert process.returncode == 1
        assert [line.strip() for line in said] == ["vgeo: is at it", stopped]
    else:
        assert process.returncode == -how  # its kernel notices within a second, and ends


def started(command, errors=subprocess.STDOUT):
    """The process of a command, in a process group of its own."""
    return subprocess.Popen(
        command,
        env=os.environ | {"PYTHONPATH": str(PACKAGE.parent)},
        start_new_session=True,
        preexec_fn=ctrl_c_stops,
        text=True,
        stdout=subprocess.PIPE,
        stderr=errors,
    )


RENDER = """
from vgeo.city import write
def stall(seconds):
    import time
    print("up", flush=True)
    time.sleep(seconds)
    return 1
if __name__ == "__main__":
    from vgeo import __main__
    __main__._data = lambda options: write.run_jobs([(stall, 600)] * 3, "rendering", False)
    __main__.main(["data"])
"""
STOPPED = "vgeo: stopped; the same command goes on from here"
DIED = (
    "vgeo: rendering: a process died, as when memory runs out: close other programs and call again"
)


@pytest.mark.faults
@pytest.mark.slow
@pytest.mark.parametrize(
    "how, whom, last",
    [
        (signal.SIGINT, "all", STOPPED),
        (signal.SIGKILL, "parent", None),
        (signal.SIGKILL, "worker", DIED),
    ],
)
def test_render_workers_end_with_their_parent(tmp_path, how, whom, last):
    (tmp_path / "render.py").write_text(RENDER)
    with started([sys.executable, tmp_path / "render.py"], subprocess.PIPE) as process:
        assert process.stdout.readline() == "up\n"
        workers = psutil.Process(process.pid).children(recursive=True)
        if whom == "all":
            os.killpg(process.pid, how)
        elif whom == "parent":
            process.kill()
        else:
            next(w for w in workers if "spawn_main" in " ".join(w.cmdline())).kill()
        said = process.communicate(timeout=60)[1].strip()
    assert not psutil.wait_procs(workers, timeout=20)[1]
    if last:
        assert process.returncode == 1 and said == last


# Security

UNSAFE_MODULES = {"pickle", "dill", "joblib", "shelve", "marshal", "cloudpickle"}
UNSAFE_CALLS = {"eval", "exec", "compile", "__import__", "os.system", "os.popen", "yaml.load"}
LOADS = ("torch.load", "torch.hub.load_state_dict_from_url")


def test_the_package_runs_nothing_from_outside():
    """No eval or exec, no shell, no pickle, and torch.load for tensors alone."""
    loads = []
    for path in [*PACKAGE.rglob("*.py"), PACKAGE.parent / "hubconf.py"]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
                assert not UNSAFE_MODULES & {word for name in names for word in name.split(".")}
            if isinstance(node, ast.Call):
                place, name = (path, node.lineno), ast.unparse(node.func)
                options = {option.arg: ast.unparse(option.value) for option in node.keywords}
                assert name not in UNSAFE_CALLS, place
                assert options.get("shell", "False") == "False", place
                assert options.get("allow_pickle", "False") == "False", place
                if name in LOADS:
                    assert options.get("weights_only") == "True", place
                    loads.append(name)
    assert sorted(loads) == [LOADS[1], *[LOADS[0]] * 3]
    assert np.load.__kwdefaults__ is None or np.load.__defaults__[1] is False  # numpy's own default


@pytest.mark.slow
def test_odd_names_go_through_every_step(study, photos, tmp_path, monkeypatch):
    """Photos named for a shell, a web page and a terminal are described, searched, put into tables
    and drawn as any other.
    """
    monkeypatch.chdir(tmp_path)
    odd = tmp_path / "$(touch owned) & <b>-rf"
    shutil.copytree(photos, odd)
    for place, note in (
        ("sf-xs/test/queries_v1", "$(touch owned)"),
        ("sf-xs/test/database", "`touch owned`;touch owned"),
        ("sf-xs/train", "<script>'\"&"),
        ("sf-xs/val/database", "a\nb\x1b[31m"),
    ):
        for path in (odd / place).iterdir():
            path.rename(path.with_name(path.name.replace("@201704@@", f"@201704@{note}@")))
    ours, plain = study(odd), study()
    tables = [beside_published(1, each.evaluate(TABLES[1]), ()) for each in (ours, plain)]
    assert tables[0]["value"].tolist() == tables[1]["value"].tolist()
    section = Section(ours.results, "00_data")
    section.table(1, tables[0])
    section.figure(data_map(ours.data.test_sets["sf-xs"]))
    assert not list(tmp_path.rglob("owned")) and "owned" not in os.listdir()


# Memory

MEMORY = """
import resource, sys
from vgeo import build, describe, search
from vgeo.models.weights import load_weights
paths = [sys.argv[2]] * int(sys.argv[3])
model = load_weights(build("resnet18"), sys.argv[1])
found = describe(model, paths, 64)
search(found, found[:50], 20)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


@pytest.mark.slow
def test_memory_stays_bounded(photos, weights):
    """Photos come and go: the peak grows with the descriptors, 2 kB a photo, and by little more.

    The decoded photos of the larger set alone would be 18 MB as bytes and 74 MB as numbers.
    """
    photo = next((photos / "sf-xs/test/database").iterdir())
    peaks = []
    for count in (300, 1500):
        words = [str(weights / "resnet18.safetensors"), str(photo), str(count)]
        command = [sys.executable, "-P", "-c", MEMORY, *words]
        environment = os.environ | {"PYTHONPATH": str(PACKAGE.parent)}
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True, env=environment)
        peaks.append(float(done.stdout))
    assert peaks[1] - peaks[0] < 60, peaks  # MB
