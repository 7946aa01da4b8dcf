"""The command: what it prints and writes, its errors, and how little it needs to be installed."""

import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch

import vgeo
from vgeo.__main__ import main
from vgeo.locate.command import in_words, locate
from vgeo.models.weights import save_weights

# What only the study needs: `pip install .` does not install it.
STUDY_ONLY = ("jupyter_core", "papermill", "matplotlib", "seaborn", "IPython", "nbformat")
STUDY_ONLY += ("kornia", "numba", "cv2", "filelock", "mistune", "ipywidgets")
# What `locate` may not use of ours, by the order of the folders.
ABOVE = tuple(f"vgeo.{name}" for name in ("training", "city", "study", "report", "runner"))


def test_the_command_prints_a_line_a_photo(tmp_path, make_street, capsys):
    make_street(tmp_path / "photos", range(6))
    make_street(tmp_path / "queries", range(2))
    single = make_street(tmp_path / "other", [4]) / "004.jpg"
    single.rename(tmp_path / "other" / "e\x1b[31m.jpg")
    queries = [str(tmp_path / "queries"), str(tmp_path / "other" / "e\x1b[31m.jpg")]
    main(["locate", str(tmp_path / "photos"), *queries, "--out", str(tmp_path / "located")])
    printed = capsys.readouterr().out
    assert "\x1b" not in printed
    lines = [line for line in printed.splitlines() if not line.startswith("vgeo: ")]
    row = r"37\.\d{6}  -122\.\d{6}  within 25 m: (< |> )?\d+ %  00[014]\.jpg$"
    assert len(lines) == 3 and all(re.search(row, line) for line in lines)
    said = [line for line in printed.splitlines() if line.startswith("vgeo: ")]
    assert "index of 6 photos, 6 newly described" in said[0] and "3 photos located" in said[2]
    assert "Your photos, used as queries, give" in said[1]
    written = {path.name for path in (tmp_path / "located").iterdir()}
    assert written == {"locations.csv", "locations.geojson", "map.html"}
    assert len(pd.read_csv(tmp_path / "located" / "locations.csv")) == 3
    page = (tmp_path / "located" / "map.html").read_text()
    assert "3 located photos among" in " ".join(page.split())


@pytest.mark.parametrize(
    "confidence, words",
    [
        (float("nan"), "unknown"),
        (0.001, "< 1 %"),
        (0.006, "1 %"),
        (0.83, "83 %"),
        (0.999, "> 99 %"),
    ],
)
def test_a_confidence_in_words(confidence, words):
    assert in_words(confidence) == f"within 25 m: {words}"


def test_errors_are_one_line_before_any_work(tmp_path, make_street, cache_home, refused):
    photos = make_street(tmp_path / "photos", range(2))
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad.jpg").write_bytes(b"\xff\xd8\xff no more")
    (tmp_path / "metres.csv").write_text("file,utm_east,utm_north\nphotos/000.jpg,500000,4000000\n")
    save_weights({"a": torch.zeros(1)}, tmp_path / "other.safetensors", {})
    query, bad, none = photos / "001.jpg", tmp_path / "bad.jpg", tmp_path / "none"
    for arguments, words in [
        ((photos, [f"{none}.jpg"]), "no such image"),
        ((photos, [tmp_path / "empty"]), "holds no photos"),
        ((photos, [query, bad]), "bad.jpg"),
        ((none, [query]), "no such folder of photos"),
        ((tmp_path / "metres.csv", [query]), "without a UTM zone"),
        ((photos, [query], f"{none}.safetensors"), "no such weights file"),
        ((photos, [query], f"{none}.pth"), "no such checkpoint"),
        ((photos, [query], tmp_path / "other.safetensors"), "holds no model"),
    ]:
        refused(lambda a=arguments: locate(*a, out=tmp_path / "out"), words)
    assert not list(cache_home.iterdir()) and not (tmp_path / "out").exists()
    with pytest.raises(SystemExit, match=r"^vgeo: .*none: there is no such folder of photos.*"):
        main(["locate", str(none), str(query)])


@pytest.mark.slow
def test_locate_needs_nothing_that_only_the_study_needs(tmp_path, make_street):
    """In a process of its own: what the command imports, while it runs."""
    make_street(tmp_path / "photos", range(2))
    program = (
        "import sys; from vgeo.__main__ import main\n"
        "main(['locate', 'photos', 'photos/000.jpg'])\n"
        "print(*sys.modules, sep='\\n')"
    )
    environment = {"PYTHONPATH": str(Path(vgeo.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    environment |= {"XDG_CACHE_HOME": str(tmp_path / "cache"), "PATH": "/usr/bin:/bin"}
    command = [sys.executable, "-P", "-c", program]
    run = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    modules = run.stdout.splitlines()
    assert "sklearn.linear_model" in modules and (tmp_path / "located" / "map.html").exists()
    unwanted = [name for name in modules for top in STUDY_ONLY + ABOVE if name.startswith(top)]
    assert not unwanted
