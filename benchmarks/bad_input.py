"""What the package answers to everything that people may give it by mistake.

`python benchmarks/bad_input.py` tries each case of the table and writes the answers to
benchmarks/results/bad_input.csv. A case makes a mistake in a small complete copy of the data sets,
or beside it, and then calls the package. Either the mistake is refused in one line, or nothing is
wrong and it is taken as it is. tests/test_bad_input.py holds every case to that.
"""

import contextlib
import csv
import io
import os
import pickle
import shutil
import struct
import sys
import tempfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import nbformat
import numpy as np
import torch
from PIL import ExifTags, Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from conftest import make_data  # noqa: E402
from study.conftest import TINY  # noqa: E402

from vgeo.__main__ import main  # noqa: E402
from vgeo.errors import VgeoError  # noqa: E402
from vgeo.models.convert import export  # noqa: E402
from vgeo.models.network import build  # noqa: E402
from vgeo.models.weights import save_weights  # noqa: E402
from vgeo.runner import record  # noqa: E402
from vgeo.runner.execute import execute  # noqa: E402
from vgeo.study.cache import Cache  # noqa: E402
from vgeo.study.study import Study  # noqa: E402

RESULTS = Path(__file__).resolve().parent / "results" / "bad_input.csv"
QUERIES, DATABASE, TRAIN = "sf-xs/test/queries_v1", "sf-xs/test/database", "sf-xs/train"
OWNED = Path(tempfile.gettempdir(), f"owned-{os.getpid()}")  # what a checkpoint must not make


class Bench:
    """A folder of its own for one case.

    It holds data, starting weights, and a cache with something in it that has to stay.
    """

    def __init__(self, top, data, weights):
        self.top = Path(top)
        self.data = Path(shutil.copytree(data, self.top / "data"))
        self.weights = Path(shutil.copytree(weights, self.top / "weights"))
        self.cache = self.top / "cache"
        self.kept = Cache(self.cache).step(
            "kept", "kept", {}, lambda folder: _write(folder / "hours", "of work")
        )

    def photo(self, part=QUERIES):
        """The second photo of a part."""
        return sorted((self.data / part).iterdir())[1]

    def study(self, **given):
        """A study of this folder. given: other arguments of Study."""
        folders = {"results": self.top / "results", "cache": self.cache, "weights": self.weights}
        return Study(**{"name": TINY, "data": str(self.data)} | folders | given)

    def answer(self, case):
        """(the line that the case is answered, "" where it is taken, and the exit code)."""
        case.mistake(self)
        said = io.StringIO()
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
            try:
                case.call(self)
            except VgeoError as error:  # the command line says it so
                return f"vgeo: {error}", 1
            except SystemExit as stop:
                if isinstance(stop.code, str):
                    return stop.code, 1
                # argparse has written its usage and, in the last line, the error
                return said.getvalue().rstrip("\n").split("\n")[-1], stop.code
        return "", 0


def _write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


# What is called after a mistake


def identities(b):
    """Reads and checks all photos."""
    return b.study().data.identities()


def searched(b):
    """Describes and searches: decodes the photos."""
    study = b.study()
    return study.search(study.start("resnet18"), study.data.test_sets["sf-xs"])


def classes(b):
    return b.study().data.classes


def training(name):
    return lambda b: b.study().train(name)


def parameters(**given):
    return lambda b: b.study(**given)


def command(*words):
    """The command line with these words; {data} and {top} stand for folders."""
    return lambda b: main([word.format(data=b.data, top=b.top) for word in words])


def notebook(cell="profile = 1", kernel="python3", text=None, **given):
    """Executes a notebook of one cell, or a file with this text, with parameters."""

    def call(b):
        path = b.top / "book.ipynb"
        tags = {"tags": ["parameters"]}
        kernelspec = {"name": kernel, "display_name": "x", "language": "python"}
        cells = [nbformat.v4.new_code_cell(cell, metadata=tags)]
        content = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernelspec})
        _write(path, text or nbformat.writes(content))
        return execute(path, b.top / "out.ipynb", given, b.top)

    return call


# Cases


@dataclass(frozen=True)
class Case:
    """A mistake, what is called after it, and words of the answer: none where it is taken."""

    mistake: Callable
    call: Callable
    words: tuple[str, ...] = ()


def refused(mistake, *words, call=identities):
    return Case(mistake, call, words)


def taken(mistake, call=searched):
    return Case(mistake, call)


def nothing(b):
    pass


def all_of(*mistakes):
    return lambda b: [mistake(b) for mistake in mistakes]


# Images

FORMATS = {".jpg": "JPEG", ".png": "PNG", ".tif": "TIFF", ".webp": "WEBP", ".bmp": "BMP"}
NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (36, 40, 3)).astype(np.uint8))
GREY16 = Image.fromarray(np.arange(1600, dtype=np.uint16).reshape(40, 40) * 40)
TURNED = Image.Exif()
TURNED[ExifTags.Base.Orientation] = 6


def content(new, suffix=".jpg"):
    """Gives a photo other bytes: `new`, or new(its bytes)."""

    def mistake(b):
        path = b.photo()
        new_bytes = new(path.read_bytes()) if callable(new) else new
        _write(path.rename(path.with_suffix(suffix)), new_bytes)

    return mistake


def encoded(image, suffix=".jpg", **options):
    file = io.BytesIO()
    image.save(file, **{"format": FORMATS[suffix]} | options)
    return file.getvalue()


def image(image, suffix=".jpg", **options):
    """Gives a photo another image."""
    return content(encoded(image, suffix, **options), suffix)


def png(width, height, data=b""):
    """The bytes of a PNG whose header claims a size."""

    def chunk(kind, body):
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(data)) if data else b""
    return b"\x89PNG\r\n\x1a\n" + header + pixels + chunk(b"IEND", b"")


def half(old):
    return old[: len(old) // 2]


def damaged(old):
    """The bytes with one changed in the middle: the start and the end are right."""
    middle = len(old) // 2
    return old[:middle] + bytes([old[middle] ^ 255]) + old[middle + 1 :]


def beside(make):
    """Does something with the path of a further photo, which has the second one's place."""
    return lambda b: make(b.photo().with_name(b.photo().name.replace("q1", "q9")))


PNG = encoded(NOISE, ".png")
IMAGES = {
    "an empty photo": refused(content(b""), "is empty (0 bytes)", "copy it again"),
    "a photo cut to half": refused(content(half), "can't be decoded", "copy it again"),
    "a photo without its last byte": refused(
        content(lambda old: old[:-1]), "is truncated", "copy it again"
    ),
    "a photo of its first 4 bytes": refused(
        content(lambda old: old[:4]), "is not an image", "save it as JPEG"
    ),
    "a PNG cut to half": refused(content(half(PNG), ".png"), "can't be decoded"),
    "a BMP cut to half": refused(content(half(encoded(NOISE, ".bmp")), ".bmp"), "can't be decoded"),
    "a WebP cut to half": refused(
        content(encoded(NOISE, ".webp")[:200], ".webp"), "decode", "copy it again"
    ),
    "a photo of zeros": refused(content(bytes(3000)), "is not an image"),
    "a web page named .jpg": refused(content(b"<html><body>404</body></html>"), "is not an image"),
    "a text named .png": refused(content(b"hello", ".png"), "is not an image"),
    "an archive named .jpg": refused(content(b"PK\x03\x04" + bytes(500)), "is not an image"),
    "a drawing (SVG) named .png": refused(
        content(b"<svg xmlns='http://www.w3.org/2000/svg'/>", ".png"), "is not an image"
    ),
    "a photo of 32-bit floats": refused(
        image(Image.new("F", (8, 8)), ".tif"), "32-bit pixels", "8-bit RGB"
    ),
    "a PNG that claims 60,000 x 60,000 pixels": refused(
        content(png(60_000, 60_000, b"0"), ".png"), "too many pixels", call=searched
    ),
    "a PNG that claims 0 pixels": refused(
        content(png(0, 0, b"0"), ".png"), "is not an image", call=searched
    ),
    "a PNG without pixels": refused(content(png(8, 8), ".png"), "decode", call=searched),
    "a PNG damaged in the middle": refused(
        content(damaged(PNG), ".png"), "can't be decoded", call=searched
    ),
    "a link to nowhere": refused(
        beside(lambda path: path.symlink_to("nowhere.jpg")), "there is no such image"
    ),
    "a loop of links": refused(
        lambda b: (b.data / QUERIES / "again").symlink_to("."), "again", "leads back"
    ),
    # Nothing is wrong with these.
    "a photo of one pixel": taken(image(NOISE.resize((1, 1)))),
    "a CMYK photo": taken(image(NOISE.convert("CMYK"))),
    "a grey photo of 16 bits": taken(image(GREY16, ".png")),
    "an animated photo": taken(
        image(NOISE, ".webp", save_all=True, append_images=[NOISE.rotate(90)])
    ),
    "a palette with transparency": taken(image(NOISE.convert("P"), ".png", transparency=3)),
    "a photo turned by EXIF": taken(image(NOISE, exif=TURNED)),
    "a GIF named .jpg": taken(image(NOISE.convert("P"), format="GIF")),
    "a folder named as a photo": taken(beside(Path.mkdir)),
}

# Names

EAST, NORTH = "0553033.00", "4173551.00"  # in the name of the second query


def name(old, new):
    """Replaces characters in a photo's name."""

    def mistake(b):
        path = b.photo()
        assert old in path.name, path
        path.rename(path.with_name(path.name.replace(old, new, 1)))

    return mistake


def not_utf8(b):
    path = os.fsencode(b.photo())
    os.rename(path, path.replace(b"@q1@", b"@q\xff@x@"))


def no_headings(b):
    for path in (b.data / TRAIN).iterdir():
        path.rename(path.with_name(path.name.replace("@0@@@@", "@@@@@")))


NAMES = {
    "a name without a field": refused(name("@q1@", "@"), "the name is not @utm_east@", "rename it"),
    "a name of no fields": refused(
        lambda b: b.photo().rename(b.photo().with_name("IMG_0001.jpg")),
        "IMG_0001.jpg",
        "the name is not",
        "CSV of file,lat,lon",
    ),
    "a name whose east is NaN": refused(name(EAST, "nan"), "utm_east is 'nan'", "correct it"),
    "a name whose north is infinite": refused(name(NORTH, "-inf"), "utm_north is '-inf'"),
    "a name whose east is a word": refused(name(EAST, "east"), "utm_east is 'east'"),
    "a name whose east has a comma": refused(name(EAST, "0553033,00"), "utm_east is '0553033,00'"),
    "a name without an east": refused(name(EAST, ""), "utm_east is ''"),
    "a name with east and north swapped": refused(
        name(f"@{EAST}@{NORTH}@", f"@{NORTH}@{EAST}@"), "out of range"
    ),
    "a name with degrees for metres": refused(
        name(f"@{EAST}@{NORTH}@", "@-122.4@37.7@"), "out of range"
    ),
    "a name in another zone": refused(
        name("@10@S@", "@11@S@"), "in zone 11 north is lat", "correct the one that is wrong"
    ),
    "a name in the other hemisphere": refused(
        name("@10@S@", "@10@F@"), "not in the latitude band 'F'", "correct the letter"
    ),
    "a name with the latitude of the other hemisphere": refused(
        name("@037.", "@-37."), "but the name says -37."
    ),
    "a name in zone 61": refused(name("@10@S@", "@61@S@"), "zone 61"),
    "a name in band I": refused(name("@10@S@", "@10@I@"), "letter 'I'"),
    "a name whose zone is a fraction": refused(name("@10@S@", "@10.5@S@"), "zone 10.5", "1 to 60"),
    "a name with heading 400": refused(name("@0@@@@201704", "@400@@@@201704"), "heading 400"),
    "a name with month 13": refused(name("201704", "201713"), "month 201713", "yyyymm"),
    "a name with a line break": refused(name("@q1@", "@q\n1@bad@"), "q\\n1", "the name is not"),
    "a name with a terminal's escape": refused(name(EAST, "\x1b[31mred"), "\\x1b[31mred"),
    "a name that is no UTF-8": refused(not_utf8, "\\udcff", "the name is not"),
    "a name of 250 characters": refused(
        lambda b: name(EAST, "9" * (260 - len(b.photo().name)))(b), "out of range"
    ),
    "headings of none of the training photos": refused(
        no_headings, "has no heading", "classes need it", call=classes
    ),
    # Nothing is wrong with these.
    "a name in Japanese": taken(name("@q1@", "@東京 é@")),
    "a name in capitals": taken(name(".jpg", ".JPG")),
    "a name for a shell, with a leading dash": taken(
        name("@q1@", "@-rf $(touch owned) `touch owned`; touch owned@")
    ),
    "a name for a web page": taken(name("@q1@", "@<script>alert(1)<script>\"'&@")),
    "a name with a line break in its note": taken(name("@201704@@", "@201704@a\nb@")),
    "a name whose coordinates are in Arabic digits": taken(name("@10@S@", "@\u0661\u0660@S@")),
}

# Lists

HEADER = "file,utm_east,utm_north\n"
LINES = HEADER + "".join(f"a{i}.jpg,{553_000 + 20 * i},4173551\n" for i in range(7))


def with_column(name, value):
    """LINES with another column."""
    return LINES.replace(HEADER, f"{HEADER[:-1]},{name}\n").replace("551\n", f"551,{value}\n")


def listed(text):
    """Puts list.csv beside the database's photos, which become a0.jpg to a6.jpg."""

    def mistake(b):
        for i, path in enumerate(sorted((b.data / DATABASE).iterdir())):
            path.rename(path.with_name(f"a{i}.jpg"))
        _write(b.data / DATABASE / "list.csv", text)

    return mistake


LISTS = {
    "an empty CSV": refused(listed(""), "list.csv", "must name the columns"),
    "a CSV of a header alone": refused(listed(HEADER), "holds no photos"),
    "a CSV without a column": refused(
        listed("file,lat\na0.jpg,37\n"), "must name the columns file,lat,lon"
    ),
    "a CSV with a column twice": refused(
        listed("file,lat,lat,lon\na0.jpg,1,1,2\n"), "lat is there twice"
    ),
    "a CSV line with a value too few": refused(
        listed(LINES + "a1.jpg,3\n"), "line 9", "2 values for 3 columns"
    ),
    "a CSV line of a file that is not there": refused(
        listed(LINES + "b.jpg,1,2\n"), "line 9 (b.jpg)", "no such file"
    ),
    "a CSV line of a file outside": refused(
        listed(LINES + "../../../../../../etc/none.jpg,1,2\n"), "line 9", "no such file"
    ),
    "a CSV with a file twice": refused(
        listed(LINES + "./a1.jpg,553000,4173551\n"), "line 9", "also on line 3"
    ),
    "a CSV with NaN": refused(listed(LINES.replace("553040", "NaN")), "line 4 (a2.jpg)", "'NaN'"),
    "a CSV with a comma that may part thousands": refused(
        listed(LINES.replace(",", ";").replace("553040", "553,040")), "line 4 (a2.jpg)", "thousands"
    ),
    "a CSV of answers": refused(
        listed("file,lat,lon,confidence,best_match\na0.jpg,37.7,-122.4,0.9,a1.jpg\n"),
        "holds answers of vgeo locate",
    ),
    "a CSV with latitude and longitude swapped": refused(
        listed("file,lat,lon\na0.jpg,-122.4,37.7\n"), "line 2", "swap"
    ),
    "a CSV of two continents": refused(
        listed("file,lat,lon\na0.jpg,37,-122\na1.jpg,37,139\n"), "a1.jpg", "from most photos"
    ),
    "a CSV of another zone than the queries": refused(
        listed("file,lat,lon\na0.jpg,35.6,139.7\n"), "54 north", "10 north"
    ),
    "a CSV with east and north swapped": refused(
        listed(HEADER + "a0.jpg,4173551,553000\n"), "line 2", "out of range"
    ),
    "a CSV in UTF-16": refused(listed(LINES.encode("utf-16")), "can't be read", "UTF-8"),
    "a CSV with zero bytes": refused(listed(LINES + "a\0b,1,2\n"), "list.csv", "a\\x00b"),
    "a CSV with a quote that never closes": refused(
        listed(LINES + 'a1.jpg,"5530'), "list.csv", "line 9"
    ),
    "a CSV with a value of 200,000 characters": refused(
        listed(LINES + f"{'x' * 200_000},1,2\n"), "can't be read", "field larger"
    ),
    "a CSV with a line break in a name": refused(
        listed(LINES + '"a\n1.jpg",1,2\n'), "a\\n1.jpg", "no such file"
    ),
    "two CSVs in a folder": refused(
        all_of(listed(LINES), lambda b: _write(b.data / DATABASE / "more.csv", LINES)),
        "holds 2 CSV files",
    ),
    "a CSV of photos a kilometre away": refused(
        listed(LINES.replace(",55", ",56")), "no query in", "nearest"
    ),
    # Nothing is wrong with these. A heading or month that is not clear counts as unknown.
    "a CSV that is a folder": taken(lambda b: (b.data / DATABASE / "list.csv").mkdir()),
    "a CSV with a date of two meanings": taken(listed(with_column("date", "04/05/2017"))),
    "a CSV with heading 400": taken(listed(with_column("heading", "400"))),
    "a CSV with the month 2017": taken(listed(with_column("month", "2017"))),
    "a CSV with semicolons": taken(listed(LINES.replace(",", ";"))),
    "a CSV with decimal commas": taken(
        listed("sep=;\n" + LINES.replace(",", ";").replace("0;4173551", "0,25;4173551,5"))
    ),
    "a CSV as Excel writes it": taken(
        listed(b"\xef\xbb\xbf" + LINES.replace("\n", "\r\n").encode())
    ),
}

# Folders


def removed(place):
    return lambda b: shutil.rmtree(b.data / place)


def emptied(place):
    return all_of(removed(place), lambda b: (b.data / place).mkdir())


def file_for(place):
    """Puts a file where a folder of the bench should be."""

    def mistake(b):
        shutil.rmtree(b.top / place, ignore_errors=True)
        _write(b.top / place, "a file")

    return mistake


def moved_cache(b):
    b.kept = b.kept.rename(b.top / "moved")


def every_second_removed(b):
    for path in sorted((b.data / TRAIN).iterdir())[::2]:
        path.unlink()


def data_of(folder):
    """The data command for a folder."""
    return command("data", "--profile", "smoke", "--data", folder)


def read_record(b):
    return record.read(b.top / "run.json")


FOLDERS = {
    "data that is not there": refused(nothing, "none: no such folder", call=data_of("{data}/none")),
    "data that is a file": refused(
        file_for("x"), "x: no such folder", call=command("run", "smoke", "--data", "{top}/x")
    ),
    "data that is an empty word": refused(
        nothing, "'': no such folder", call=command("run", "smoke", "--data", "")
    ),
    "data with a line break": refused(
        nothing, "a\\nb: no such folder", call=command("run", "smoke", "--data", "a\nb")
    ),
    "data that is an empty folder": refused(
        lambda b: (b.top / "x").mkdir(), "has no sf-xs/val", call=data_of("{top}/x")
    ),
    "sf-xs that is a file": refused(file_for("data/sf-xs"), "has no sf-xs/val"),
    "a database that is a file": refused(file_for("data/sf-xs/val/database"), "has no sf-xs/val"),
    "queries that are an empty folder": refused(emptied(QUERIES), "queries_v1: holds no"),
    "no training images": refused(removed(TRAIN), "has no sf-xs/train", call=classes),
    "too few images of a place": refused(
        every_second_removed, "no class has 3 images", "lower min_images", call=classes
    ),
    "no night photos to train on": refused(
        removed("night_target"),
        "has no night_target",
        "put a few night photos there",
        call=training("GRL"),
    ),
    "a cache that is a file": refused(
        all_of(moved_cache, file_for("cache")), "cache", "can't be written", call=searched
    ),
    "descriptors that are a file": refused(
        file_for("cache/descriptors"), "cache/descriptors", "can't be written", call=searched
    ),
    "locks that are a file": refused(file_for("cache/locks"), "can't be written", call=searched),
    "a run.json that is damaged": refused(
        lambda b: _write(b.top / "run.json", "{"), "run.json", "no record", call=read_record
    ),
    "a run.json that is a list": refused(
        lambda b: _write(b.top / "run.json", "[]"), "run.json", "no record", call=read_record
    ),
    # A check says what is wrong in its lines, and goes on.
    "a check of data with a bad name": taken(
        name("@q1@", "@"), command("data", "--check", "--profile", "smoke", "--data", "{data}")
    ),
}

# The command line


def run(*words):
    return command("run", "smoke", "--data", "{data}", *words)


def located(*words):
    return command(
        "locate", f"{{data}}/{DATABASE}", f"{{data}}/{QUERIES}", "--out", "{top}/out", *words
    )


COMMANDS = {
    "an unknown profile": refused(
        nothing,
        "unknown profile 'nope'",
        "use one of smoke, city, paper",
        call=command("run", "nope"),
    ),
    "a profile of paths": refused(nothing, "unknown profile '../x'", call=command("run", "../x")),
    "a profile with a line break": refused(
        nothing, "unknown profile 'a\\nb'", call=command("data", "--profile", "a\nb")
    ),
    "the paper without data": refused(
        nothing, "needs real data", "--data FOLDER", call=command("run", "paper")
    ),
    "an image size of 16": refused(
        nothing, "image size 16", "from 32 to 4096", call=run("--image-size", "16")
    ),
    "a negative image size": refused(nothing, "image size -96", call=run("--image-size", "-96")),
    "an image size of a million": refused(
        nothing, "image size 1000000", "to 4096", call=run("--image-size", "1000000")
    ),
    "an image size in words": refused(
        nothing, "invalid int value: 'big'", call=run("--image-size", "big")
    ),
    "no seeds": refused(nothing, "seeds 0", "from 1 to 100", call=run("--seeds", "0")),
    "a billion seeds": refused(nothing, "seeds 1000000000", call=run("--seeds", "1000000000")),
    "half a seed": refused(nothing, "invalid int value: '1.5'", call=run("--seeds", "1.5")),
    "no matches": refused(nothing, "k 0", "give 1 to", call=located("--k", "0")),
    "a thousand matches": refused(nothing, "k 1000", "give 1 to", call=located("--k", "1000")),
    "a place without a radius": refused(
        nothing, "give both or neither", call=located("--near", "37.7,-122.4")
    ),
    "a radius that is negative": refused(
        nothing, "radius -5", "above 0", call=located("--near", "37.7,-122.4", "--radius", "-5")
    ),
    "a place without photos": refused(
        nothing,
        "near -33.8,151.2: none of 7 photos is within 50 m",
        call=located("--near", "-33.8,151.2", "--radius", "50"),
    ),
    "a place with latitude and longitude swapped": refused(
        nothing, "near -122.4,37.7", "swap", call=located("--near", "-122.4,37.7", "--radius", "50")
    ),
    "a place in words": refused(
        nothing, "'Berlin' is not LAT,LON", call=located("--near", "Berlin", "--radius", "50")
    ),
    "no command": refused(nothing, "required: command", call=command()),
    "an unknown command": refused(nothing, "invalid choice: 'go'", call=command("go")),
    "an unknown option": refused(
        nothing, "unrecognized arguments: --epochs 3", call=run("--epochs", "3")
    ),
}

# Parameters of notebooks, and profiles


def profile(**given):
    """The tiny profile with other numbers, those of its training included."""

    def call(b):
        own = {key: given[key] for key in given if hasattr(TINY, key)}
        training = {key: given[key] for key in given if hasattr(TINY.training, key)}
        return replace(TINY, training=replace(TINY.training, **training), **own)

    return call


PARAMETERS = {
    "a parameter profile that is a number": refused(
        nothing, "unknown profile 3", call=parameters(name=3)
    ),
    "a parameter profile that is a list": refused(
        nothing, "unknown profile ['smoke']", call=parameters(name=["smoke"])
    ),
    "a parameter data that is a number": refused(
        nothing, "5: no such folder", call=parameters(data=5)
    ),
    "a parameter data with a zero byte": refused(
        nothing, "a\\x00b: no such folder", call=parameters(data="a\0b")
    ),
    "a parameter image_size in quotes": refused(
        nothing, "image size '96'", "a whole number", call=parameters(image_size="96")
    ),
    "a parameter image_size with a fraction": refused(
        nothing, "image size 96.5", call=parameters(image_size=96.5)
    ),
    "a parameter image_size that is NaN": refused(
        nothing, "image size nan", call=parameters(image_size=float("nan"))
    ),
    "a parameter image_size that is true": refused(
        nothing, "image size True", call=parameters(image_size=True)
    ),
    "a parameter seeds that is a list": refused(
        nothing, "seeds [0, 1]", "a whole number", call=parameters(seeds=[0, 1])
    ),
    "a parameter that a notebook has not": refused(
        nothing, "book.ipynb", "no parameter 'who'", call=notebook(who=1)
    ),
    "a notebook that is no JSON": refused(
        nothing, "book.ipynb", "not a notebook", call=notebook(text="{")
    ),
    "a notebook of a kernel that is not there": refused(
        nothing, "book.ipynb", "julia", call=notebook(kernel="julia")
    ),
    "a profile of no images in a batch": refused(
        nothing, "batch_size is 0", "above 0", call=profile(batch_size=0)
    ),
    "a profile of a fraction of an epoch": refused(
        nothing, "epochs is 0.5", "whole number", call=profile(epochs=0.5)
    ),
    "a profile with a rate that is NaN": refused(
        nothing, "lr_model is nan", call=profile(lr_model=float("nan"))
    ),
    "a profile of classes without a side": refused(
        nothing, "cell is 0", call=profile(classes=replace(TINY.classes, cell=0))
    ),
}

# Checkpoints


class Hostile:
    """Unpickled with anything but weights_only, it writes a file."""

    def __reduce__(self):
        return os.system, (f"touch {OWNED}",)


def pth(make):
    """Writes a.pth: bytes as they are, anything else by torch.save. make(): the content."""

    def mistake(b):
        made = make()
        if isinstance(made, bytes):
            _write(b.top / "a.pth", made)
        else:
            torch.save(made, b.top / "a.pth")

    return mistake


def ours(**changed):
    """The state of a model of ours as CosPlace's code has it, with some tensors changed."""
    with tempfile.TemporaryDirectory() as folder:
        export(build("resnet18", dim=8), Path(folder, "a.pth"))
        return torch.load(Path(folder, "a.pth"), weights_only=True) | changed


def without(state, key):
    return {name: tensor for name, tensor in state.items() if name != key}


def saved(content):
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


def weights(new):
    """Gives the starting weights other bytes: new(the old ones)."""

    def mistake(b):
        path = b.weights / "resnet18.safetensors"
        _write(path, new(path.read_bytes()))

    return mistake


def other_network(b):
    save_weights(torch.nn.Linear(2, 2), b.weights / "resnet18.safetensors", {})


def not_converted(mistake, *words):
    return refused(mistake, *words, call=command("convert", "{top}/a.pth", "{top}/out"))


def not_trained(mistake, *words):
    return refused(mistake, *words, call=training("CosFace"))


LAYER = "backbone.1.weight"
CHECKPOINTS = {
    "a checkpoint that is not there": not_converted(nothing, "a.pth: no such checkpoint"),
    "a checkpoint that is a folder": not_converted(
        lambda b: (b.top / "a.pth").mkdir(), "a.pth", "not a checkpoint"
    ),
    "a checkpoint that is empty": not_converted(pth(bytes), "not a checkpoint"),
    "a checkpoint that is a web page": not_converted(
        pth(lambda: b"<html></html>"), "not a checkpoint"
    ),
    "a checkpoint cut to half": not_converted(pth(lambda: half(saved(ours()))), "not a checkpoint"),
    "a checkpoint of safetensors": not_converted(
        lambda b: shutil.copy(b.weights / "resnet18.safetensors", b.top / "a.pth"),
        "not a checkpoint",
    ),
    "a checkpoint that runs a program": not_converted(pth(Hostile), "tensors alone"),
    "a pickle that runs a program": not_converted(
        pth(lambda: pickle.dumps(Hostile())), "tensors alone"
    ),
    "a program among the weights": not_converted(pth(lambda: ours(x=Hostile())), "tensors alone"),
    "a checkpoint of a whole model": not_converted(
        pth(lambda: build("resnet18", dim=8)), "tensors alone", "save its state_dict"
    ),
    "a checkpoint of one tensor": not_converted(pth(lambda: torch.ones(3)), "no state_dict"),
    "a checkpoint of nothing": not_converted(pth(dict), "no state_dict"),
    "a checkpoint of another network": not_converted(
        pth(lambda: {"layers.0.weight": torch.ones(3)}), "is not a CosPlace network"
    ),
    "a checkpoint without a layer": not_converted(
        pth(lambda: without(ours(), LAYER)), f"missing: {LAYER}"
    ),
    "a checkpoint with a layer of another shape": not_converted(
        pth(lambda: ours(**{LAYER: torch.ones(3)})), f"another shape: {LAYER}"
    ),
    "a checkpoint with NaN": not_converted(
        pth(lambda: ours(**{LAYER: torch.full((64,), torch.nan)})), f"not finite: {LAYER}"
    ),
    "a checkpoint converted into a file": not_converted(
        all_of(pth(ours), file_for("out")), "out", "correct the folder"
    ),
    "starting weights that are gone": not_trained(
        lambda b: (b.weights / "resnet18.safetensors").unlink(), "no such weights file"
    ),
    "starting weights cut to half": not_trained(weights(half), "not a whole safetensors file"),
    "starting weights of another network": not_trained(
        other_network, "not weights of this resnet18"
    ),
}

CASES = IMAGES | NAMES | LISTS | FOLDERS | COMMANDS | PARAMETERS | CHECKPOINTS


def starting_weights(folder):
    """Writes small starting weights for all cases; returns their folder."""
    torch.manual_seed(4)
    save_weights(build("resnet18"), Path(folder) / "resnet18.safetensors", {})
    return Path(folder)


def write_answers(path):
    """Tries every case and writes a CSV of case and answer."""
    rows = []
    with tempfile.TemporaryDirectory() as top:
        data, weights = make_data(Path(top) / "whole"), starting_weights(Path(top) / "start")
        for name, case in CASES.items():
            bench = Path(top) / "bench"
            answer, _ = Bench(bench, data, weights).answer(case)
            answer = answer.replace(f"{bench}/", "").replace(str(bench), ".")
            rows.append((name, answer or "taken as it is"))
            shutil.rmtree(bench)
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("case", "answer"), *rows])
    print(f"{path}: {len(rows)} cases")


if __name__ == "__main__":
    write_answers(*(sys.argv[1:] or [RESULTS]))
