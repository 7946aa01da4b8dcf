"""The command: what it prints and writes, its errors, and how little it needs to be installed."""

import io
import json
import math
import os
import re
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pandas as pd
import pytest
import torch
from PIL import Image
from pyproj import Transformer

import vgeo
from vgeo.__main__ import main
from vgeo.locate.command import in_words, locate
from vgeo.locate.index import SIZE
from vgeo.models.weights import save_weights

# What only the study needs: `pip install .` does not install it.
STUDY_ONLY = ("jupyter_core", "papermill", "matplotlib", "seaborn", "IPython", "nbformat")
STUDY_ONLY += ("numba", "cv2", "mistune", "ipywidgets")
DEFAULTS = (None, "out", None, False, None, False)  # of `locate`, from weights to yes
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
    described = rf"index of 6 photos, efficientnet_lite0 {SIZE} px, \d+ numbers a photo, 6 newly"
    assert re.match(f"vgeo: {described}", said[0]) and said[0].endswith("; none skipped")
    assert "3 photos located" in said[2]
    assert "fitted to 6 of your photos" in said[1]
    written = {path.name for path in (tmp_path / "located").iterdir()}
    assert written == {"locations.csv", "locations.geojson", "map.html"}
    assert len(pd.read_csv(tmp_path / "located" / "locations.csv")) == 3
    page = (tmp_path / "located" / "map.html").read_text()
    assert "3 located photos among" in " ".join(page.split())


def test_answers_as_json(tmp_path, make_street, capsys):
    """One document and nothing else; the values are those of the files and of pyproj."""
    photos, queries = (
        make_street(tmp_path / "photos", range(8)),
        make_street(tmp_path / "q", [2, 5]),
    )
    (queries / "empty.jpg").touch()
    out = ["--out", str(tmp_path / "out")]
    main(["locate", str(photos), str(queries), "--json", "--k", "3", *out])
    printed = capsys.readouterr()
    found = json.loads(printed.out, parse_constant=pytest.fail)
    assert found["photos"] == 8 and "index of 8 photos" in printed.err
    (skipped,) = found["skipped"]
    assert skipped["file"].endswith("empty.jpg") and skipped["reason"].startswith("is empty")
    written = pd.read_csv(tmp_path / "out" / "locations.csv").to_dict("records")
    for answer, row, place in zip(found["answers"], written, (2, 5), strict=True):
        matches = answer["matches"]
        assert len(matches) == 3 and matches[0]["name"] == row["best_match"] == f"{place:03}.jpg"
        alike = [match["similarity"] for match in matches]
        assert alike == sorted(alike, reverse=True) and alike[0] > alike[1]
        sure = math.nan if answer["confidence"] is None else answer["confidence"]
        assert sure == pytest.approx(row["confidence"], abs=6e-4, nan_ok=True)
        for one in (answer, *matches):
            utm, to_metres = one["utm"], Transformer.from_crs("EPSG:4326", "EPSG:32610")
            assert (utm["zone"], utm["south"]) == (10, False)
            metres = to_metres.transform(one["lat"], one["lon"])
            assert metres == pytest.approx((utm["east"], utm["north"]), abs=0.1)
        assert {key: answer[key] for key in ("file", "lat", "lon")} == {
            key: row[key] for key in ("file", "lat", "lon")
        }
    # The same matches are printed for people, and are on the map.
    main(["locate", str(photos), str(queries), "--k", "3", *out])
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if line[:2] == "  "]
    assert [line[-1] for line in lines] == [
        match["name"] for answer in found["answers"] for match in answer["matches"]
    ]
    assert [line[0] for line in lines] == ["1", "2", "3"] * 2
    assert (tmp_path / "out" / "map.html").read_text().count("<figure>") == 2 * 3


def test_a_search_near_a_place_describes_only_photos_there(tmp_path, make_street, capsys):
    photos = make_street(tmp_path / "photos", range(8))  # 40 m apart, eastward
    near = ["--near", "37.77,-122.42", "--radius", "100", "--out", str(tmp_path / "out")]
    main(["locate", str(photos), str(photos / "007.jpg"), *near])
    first, *_ = capsys.readouterr().out.splitlines()
    assert first.startswith("vgeo: index of 3 photos within 100 m of 37.77,-122.42, ")
    assert "px, " in first and "3 newly described" in first and first.endswith("; none skipped")
    (row,) = pd.read_csv(tmp_path / "out" / "locations.csv").to_dict("records")
    assert row["best_match"] in {"000.jpg", "001.jpg", "002.jpg"}
    with pytest.raises(SystemExit, match=r"near -33.8,151.2: none of 8 photos is within 100 m"):
        main(["locate", str(photos), str(photos / "007.jpg"), "--near", "-33.8,151.2", *near[2:]])


def test_the_help_has_three_examples(capsys):
    with pytest.raises(SystemExit):
        main(["locate", "--help"])
    assert capsys.readouterr().out.split("examples:")[1].count("\n  vgeo locate ") == 3


@pytest.mark.parametrize(
    "confidence, words",
    [
        (float("nan"), "unknown"),
        (0.001, "< 1 %"),
        (0.0, "< 1 %"),
        (0.0099, "< 1 %"),
        (0.01, "1 %"),
        (0.83, "83 %"),
        (0.99, "99 %"),
        (0.9901, "> 99 %"),
        (0.995, "> 99 %"),
        (1.0, "> 99 %"),
    ],
)
def test_a_confidence_in_words(confidence, words):
    assert in_words(confidence) == f"within 25 m: {words}"


def test_errors_are_one_line_before_any_work(
    tmp_path, make_street, cache_home, refused, monkeypatch
):
    photos = make_street(tmp_path / "photos", range(2))
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad.jpg").write_bytes(b"\xff\xd8\xff no more")
    save_weights({"a": torch.zeros(1)}, tmp_path / "other.safetensors", {})
    query, bad, none = photos / "001.jpg", tmp_path / "bad.jpg", tmp_path / "none"
    for arguments, words in [
        ((photos, [f"{none}.jpg"]), "no such image"),
        ((photos, [tmp_path / "empty"]), "holds no photos"),
        ((photos, [bad]), "bad.jpg"),
        ((photos, [query, bad], None, tmp_path / "out", None, True), "bad.jpg"),
        ((none, [query]), "no such folder of photos"),
        ((photos, [query], f"{none}.safetensors"), "no such weights file"),
        ((photos, [query], f"{none}.pth"), "no such checkpoint"),
        ((photos, [query], tmp_path / "other.safetensors"), "holds no model"),
        ((photos, []), "no query"),
        ((photos, [query], *DEFAULTS, 0), "k 0: so many matches"),
        ((photos, [query], *DEFAULTS, None, (37.7, -122.4)), "give both or neither"),
        ((photos, [query], *DEFAULTS, None, None, 5.0), "give both or neither"),
        ((photos, [query], *DEFAULTS, None, (37.7, -122.4), math.nan), "radius nan"),
        ((photos, [query], *DEFAULTS, None, (-122.4, 37.7), 5.0), "out of range"),
    ]:
        out = {} if len(arguments) > 3 else {"out": tmp_path / "out"}
        refused(lambda a=arguments, out=out: locate(*a, **out), words)
    own = photos / "locations.csv"
    own.write_text("file,lat,lon\n001.jpg,37.77,-122.42\n")
    for name in ("locations.csv", "map.html", "locations.geojson", "skipped.csv"):
        own.rename(photos / name)
        own = photos / name
        words = f"{own}: may not be of vgeo locate", "as --out"
        refused(lambda words=words: locate(photos, [query], out=photos), *words)
    own.unlink()
    (photos / "Catalog.lrcat").write_bytes(b"")
    with closing(sqlite3.connect(photos / "Catalog.lrcat")) as catalogue:
        catalogue.execute("CREATE TABLE images (name TEXT)")
    catalogue = photos / "Catalog.lrcat"
    arguments = {"out": tmp_path / "out", "index_file": catalogue}
    refused(lambda: locate(photos, [], **arguments), f"{catalogue}: is no index")
    catalogue.unlink()
    refused(lambda: locate(photos, [query], out=query), "skipped.csv: ", "001.jpg is no folder")
    for file, words in ((query, "001.jpg: is no index"), (query / "x", "001.jpg is no folder")):
        refused(lambda f=file: locate(photos, [], out=tmp_path / "out", index_file=f), words)
    with monkeypatch.context() as patch:
        patch.setattr(os, "access", lambda path, mode: path != tmp_path)
        refused(lambda: locate(photos, [query], out=tmp_path / "out"), "can't be written to")
    assert not list(cache_home.iterdir()) and not (tmp_path / "out").exists()
    with pytest.raises(SystemExit, match=r"^vgeo: .*none: there is no such folder of photos.*"):
        main(["locate", str(none), str(query)])


def test_bad_photos_among_good_ones_are_skipped_and_listed(tmp_path, make_street, refused, capsys):
    photos, queries = make_street(tmp_path / "photos", range(4)), make_street(tmp_path / "q", [2])
    whole = (photos / "003.jpg").read_bytes()
    (photos / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    Image.open(photos / "003.jpg").save(photos / "nowhere.jpg")  # without EXIF
    (photos / "raw.DNG").touch()
    png = io.BytesIO()
    Image.open(photos / "003.jpg").save(png, "PNG", exif=Image.open(photos / "001.jpg").getexif())
    damaged = bytearray(png.getvalue())
    damaged[len(damaged) // 2] ^= 255  # its beginning and its end are right
    (photos / "damaged.png").write_bytes(damaged)
    (queries / "empty.heic").touch()
    locate(photos, [queries], out=tmp_path / "out")
    said = capsys.readouterr().out
    assert "skipped 4 of 8 photos" in said and "skipped 1 of 2 queries" in said
    assert "002.jpg  37." in said
    rows = pd.read_csv(tmp_path / "out" / "skipped.csv").set_index("file")["reason"]
    reasons = {os.path.basename(file): reason for file, reason in rows.items()}
    assert reasons.keys() == {"cut.jpg", "nowhere.jpg", "raw.DNG", "damaged.png", "empty.heic"}
    assert "no GPS position" in reasons["nowhere.jpg"] and "(.dng)" in reasons["raw.DNG"]
    assert all("can't be decoded" in reasons[name] for name in ("cut.jpg", "damaged.png"))
    assert "is empty" in reasons["empty.heic"]
    for asked, words in (
        (queries, "empty.heic: is empty (0 bytes): copy it again or remove it (1 of 2 photos "),
        (photos / "002.jpg", "raw.DNG: can't be decoded (.dng): export it as JPEG (2 of 8 photos "),
    ):
        refused(lambda a=asked: locate(photos, [a], out=tmp_path / "out", strict=True), words)
    # Where no query is left, the list that the lines name is there all the same.
    refused(
        lambda: locate(photos, [photos / "damaged.png"], out=tmp_path / "none"),
        "damaged.png: can't be decoded",
        "1 of 1 photos can't be used",
    )
    assert "raw.DNG" in (tmp_path / "none" / "skipped.csv").read_text()
    for name in reasons:
        (photos / name).unlink(missing_ok=True)
    locate(photos, [photos / "002.jpg"], out=tmp_path / "out", strict=True)
    assert not (tmp_path / "out" / "skipped.csv").exists()
    # A second call in the photos' own folder does not take the first one's answers as a list.
    for _ in range(2):
        locate(photos, [photos / "002.jpg"], out=photos)
        assert "index of 4 photos" in capsys.readouterr().out


def test_metres_alone_are_answered_in_metres(tmp_path, make_photos, capsys):
    """Nordland's names: metres along a line, east 0, no zone."""
    paths = make_photos(tmp_path / "line", [(37.7, -122.4)] * 4, kind="exif")
    for i, path in enumerate(paths):
        path.rename(tmp_path / "line" / f"@0@{100 * i:07.1f}@@@@@{i}@@@@@@@@.jpg")
    query = tmp_path / "line" / "@0@00200.0@@@@@2@@@@@@@@.jpg"
    locate(tmp_path / "line", [query], out=tmp_path / "out")
    assert "east 0.00 m  north 200.00 m" in capsys.readouterr().out
    (row,) = pd.read_csv(tmp_path / "out" / "locations.csv").to_dict("records")
    assert (row["utm_east"], row["utm_north"]) == (0, 200) and "lat" not in row
    (point,) = json.loads((tmp_path / "out" / "locations.geojson").read_text())["features"]
    assert point["geometry"] is None and point["properties"]["utm_north"] == 200
    assert "east 0.00 m, north 200.00 m" in (tmp_path / "out" / "map.html").read_text()


def test_answers_are_written_before_they_are_printed(tmp_path, make_street, monkeypatch):
    """To a terminal of ASCII, without a home folder, for a user without an entry."""
    photos = make_street(tmp_path / "photos", range(2))
    name = photos / "東京.jpg"
    (photos / "001.jpg").rename(name)
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr("pwd.getpwuid", lambda uid: {}[uid])
    with open(tmp_path / "terminal", "w", encoding="ascii") as terminal:
        monkeypatch.setattr("sys.stdout", terminal)
        locate(photos, [name], out=tmp_path / "out")
    printed = (tmp_path / "terminal").read_text()
    assert "\\u6771\\u4eac.jpg" in printed and "set the variable XDG_CACHE_HOME" in printed
    assert "東京.jpg" in (tmp_path / "out" / "locations.csv").read_text()

    def closed(line):
        raise BrokenPipeError

    monkeypatch.undo()
    monkeypatch.setattr("vgeo.locate.command.show", closed)
    with pytest.raises(BrokenPipeError):
        locate(photos, [name], out=tmp_path / "early", cache=tmp_path / "cache")
    assert len(list((tmp_path / "early").iterdir())) == 3


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


def test_a_reader_that_has_read_enough_is_no_error():
    """`vgeo ... | head`"""
    code = """if True:
        from types import SimpleNamespace
        from vgeo import __main__ as command

        def call(options):
            while True:
                print("a line")

        parser = SimpleNamespace(parse_args=lambda words: SimpleNamespace(call=call))
        command._parser = lambda: parser
        command.main([])
    """
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout.readline() == b"a line\n"
        process.stdout.close()
        assert process.stderr.read() == b"" and process.wait() == 1
