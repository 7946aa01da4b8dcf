"""The command line: arguments in, one call, one line for a mistake."""

import subprocess
import sys

import pytest

from vgeo import __main__
from vgeo.__main__ import main
from vgeo.errors import VgeoError

EXTRAS = ("matplotlib", "seaborn", "IPython", "cv2", "numba", "papermill", "nbformat")
COMMANDS = ("run", "train", "evaluate", "data", "pretrain", "convert", "locate", "release")


def message_of(arguments):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    return caught.value.code  # a str: Python prints it to stderr and exits with 1


@pytest.mark.parametrize(
    "arguments, words",
    [
        ("run nope", "unknown profile 'nope': use one of smoke, city, paper"),
        ("run ../x", "unknown profile '../x'"),
        ("train nope", "unknown profile 'nope'"),
        ("data --profile nope", "unknown profile 'nope'"),
        ("data --check --profile nope", "unknown profile 'nope'"),
        ("run nope --start imagenet", "unknown profile 'nope'"),
        ("train paper --start imagenet", "profile paper needs real data"),
        ("run paper", "profile paper needs real data: add --data FOLDER"),
        ("data --profile paper", "profile paper needs real data"),
        ("run smoke --data {0}/none", "{0}/none: no such folder"),
        ("data --profile paper --data {0}", "has no sf-xs/val"),
        ("run smoke --data {0} --image-size 16", "image size 16: a whole number from 32"),
        ("run smoke --data {0} --image-size 0", "image size 0: a whole number from 32"),
        ("evaluate smoke --data {0} --seeds 0", "seeds 0: a whole number from 1 to 100"),
        ("release {0}/none", "{0}/none: no such folder"),
        ("release {0} --out {0}/out", "{0}: is not a finished run, it lacks run.json"),
        ("convert {0}/none.pth {0}/out", "{0}/none.pth: no such checkpoint"),
        ("locate {0} {0}", "{0}: holds no photos"),
    ],
)
def test_mistakes_are_one_line_and_exit_with_1(tmp_path, arguments, words):
    message = message_of(arguments.format(tmp_path).split())
    assert isinstance(message, str) and message.startswith("vgeo: ") and "\n" not in message
    assert words.format(tmp_path) in message


@pytest.mark.parametrize(
    "arguments", ["", "go", "run", "run tiny --epochs 3", "run x --seeds 1.5", "run x --start coco"]
)
def test_wrong_arguments_exit_with_2(arguments, capsys):
    assert message_of(arguments.split()) == 2
    assert "vgeo" in capsys.readouterr().err


def test_every_command_explains_itself_without_a_heavy_import():
    """In a fresh process: the help comes before torch, pandas or matplotlib are imported."""
    code = f"""
import sys
from vgeo.__main__ import main
for name in {COMMANDS}:
    try:
        main([name, "--help"])
    except SystemExit as end:
        assert end.code == 0
print("heavy:", {{"torch", "pandas", "numpy", "matplotlib"}} & set(sys.modules))
"""
    command = [sys.executable, "-P", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert all(f"vgeo {name}" in done.stdout for name in COMMANDS)
    assert done.stdout.endswith("heavy: set()\n")


@pytest.mark.parametrize(
    "error, message",
    [
        (VgeoError("x.jpg: is empty"), "vgeo: x.jpg: is empty"),
        (
            OSError(28, "No space left on device", "a\nb"),
            "vgeo: a\\nb: No space left on device: free some space, or correct the folder or its "
            "permissions",
        ),
        (
            ModuleNotFoundError("No module named 'papermill'", name="papermill"),
            "vgeo: this command needs papermill, which `pip install .` alone does not bring: call "
            "pip install '.[study]' in a clone",
        ),
        (KeyboardInterrupt(), "vgeo: stopped; the same command goes on from here"),
    ],
)
def test_what_stops_a_command_is_one_line(monkeypatch, error, message):
    def fail(options):
        raise error

    monkeypatch.setattr(__main__, "_data", fail)
    assert message_of(["data"]) == message


def test_of_several_processes_the_first_alone_speaks(monkeypatch, capsys):
    monkeypatch.setattr(__main__, "_data", lambda options: print("said"))
    for rank, said in (("0", "said\n"), ("1", "")):
        monkeypatch.setenv("RANK", rank)
        main(["data"])
        assert capsys.readouterr().out == said
    print("again")  # the output is given back
    assert capsys.readouterr().out == "again\n"


@pytest.mark.slow
def test_locate_runs_without_the_packages_of_the_extras(photos, tmp_path):
    """As after a plain `pip install .`: what only the extras bring can't be imported."""
    code = f"""
import sys
from vgeo.__main__ import main
for name in {EXTRAS}:
    sys.modules[name] = None
main(["locate", *sys.argv[1:]])
"""
    known, queries = photos / "sf-xs/test/database", photos / "sf-xs/test/queries_v1"
    words = [str(known), str(queries), "--out", str(tmp_path / "located")]
    subprocess.run([sys.executable, "-P", "-c", code, *words], check=True, capture_output=True)
    assert len((tmp_path / "located/locations.csv").read_text().splitlines()) == 1 + 5


def test_data_says_what_it_is(photos, capsys):
    main(["data", "--profile", "smoke", "--data", str(photos)])
    lines = capsys.readouterr().out.splitlines()
    names = [line.split(":")[0] for line in lines]
    assert names == ["sf-xs val", "sf-xs", "tokyo-xs", "tokyo-night"]
    assert lines[3].startswith("tokyo-night: 2 queries, 7 database images, ")


def test_check_says_what_is_missing(photos, capsys):
    assert message_of(["data", "--check", "--data", str(photos), "--profile", "paper"]) == 1
    assert "sf-xs" in capsys.readouterr().out
