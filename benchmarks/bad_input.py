"""Everything that people may give by mistake, in one table; `python tests/bad_input.py` writes what each is answered to results/benchmarks/bad_input.csv.

A case changes a small complete copy of the data sets, or what lies beside it, and then calls the command line, in this process, or a notebook's
`Study`. It is refused in one line, or, where nothing is wrong with it, taken as it is. tests/test_bad_input.py holds them all to that.
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
from unittest import mock

import nbformat
import numpy as np
import torch
from PIL import Image

from vgeo import checkpoints, study
from vgeo.__main__ import main
from vgeo.study.cache import artefact
from vgeo.photos.names import format_name
from vgeo.errors import VgeoError
from vgeo.models.network import build
from vgeo.models.weights import save_weights
from vgeo.study.profiles import PROFILES, Profile
from vgeo.study.study import Study

SIDE = 32
TINY = Profile(
    "tiny",
    weights="city",
    image_size=SIDE,
    test_size=SIDE,
    n=1,
    l=1,
    min_images=3,
    epochs=1,
    iterations=2,
    batch_size=2,
    predictions=4,
)
QUERIES, DATABASE, TRAIN = "sf-xs/test/queries_v1", "sf-xs/test/database", "sf-xs/train"


def photo(folder, place, east, pano, zone=10, heading=0.0):
    """Writes a photo, a picture of its place, and returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng([5, place]).integers(0, 256, (5, 5, 3)).astype(np.uint8)
    path = folder / format_name(east, 4_173_551.0, zone, "S", pano, heading, 201704)
    Image.fromarray(pixels).resize((40, 36), Image.Resampling.BICUBIC).save(path, quality=95)
    return path


def copy_of_data(top):
    """sf-xs, tokyo-xs and tokyo-night of a few photos each, a place every 20 m."""
    for place in range(3):
        for i in range(3):
            photo(top / TRAIN, place, 552_005.0 + 50 * place + i, f"t{i}")
    for part, zone, first in (
        ("sf-xs/val", 10, 10),
        ("sf-xs/test", 10, 20),
        ("tokyo-xs/test", 54, 30),
        ("tokyo-night/test", 54, 30),
    ):
        queries = "queries_v1" if part == "sf-xs/test" else "queries"
        for place in range(5):
            if part != "tokyo-night/test":
                photo(
                    top / part / "database",
                    first + place,
                    553_000.0 + 20 * place,
                    f"d{place}",
                    zone,
                )
            if place < 3:
                photo(
                    top / part / queries, first + place, 553_003.0 + 20 * place, f"q{place}", zone
                )
    return top


class Mistakes:
    """What a case does to the data (`self.data`) and to the folder that holds it, results and cache (`self.top`)."""

    def __init__(self, top, data):
        self.top, self.data = top, data

    def one(self, part=QUERIES):
        """A photo of a part."""
        return sorted((self.data / part).iterdir())[1]

    def content(self, new, part=QUERIES, suffix=None):
        """Gives a photo other bytes: new(its bytes) or new."""
        path = self.one(part)
        bytes_ = new(path.read_bytes()) if callable(new) else new
        if suffix:
            path = path.rename(path.with_suffix(suffix))
        path.write_bytes(bytes_)

    def image(self, image, suffix=".jpg", part=QUERIES, **options):
        """Gives a photo another image."""
        file = io.BytesIO()
        image.save(
            file,
            options.pop(
                "format",
                {".jpg": "JPEG", ".png": "PNG", ".tif": "TIFF", ".webp": "WEBP", ".bmp": "BMP"}[
                    suffix
                ],
            ),
            **options,
        )
        self.content(file.getvalue(), part, suffix)

    def name(self, old, new, part=QUERIES):
        """Renames a photo: its fields or characters."""
        path = self.one(part)
        assert old in path.name, path
        path.rename(path.with_name(path.name.replace(old, new, 1)))

    def lists(self, text, part=DATABASE):
        """Puts a CSV beside a part's photos, which it lists as a0.jpg to a4.jpg."""
        for i, path in enumerate(sorted((self.data / part).iterdir())):
            path.rename(path.with_name(f"a{i}.jpg"))
        (self.data / part / "list.csv").write_bytes(
            text if isinstance(text, bytes) else text.encode()
        )

    def file_for(self, folder):
        """Puts a file where a folder should be."""
        shutil.rmtree(folder, ignore_errors=True)
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.write_text("a file")


@dataclass(frozen=True)
class Case:
    """do(mistakes): makes the mistake. words: of the answer, () where it is taken as it is. call: what is called then; see `calls`."""

    do: Callable
    words: tuple = ()
    call: str | Callable = "data --profile tiny --data {data}"


def png(width, height, data=b"", end=True):
    """A PNG's bytes: a header that claims a size, some data, and perhaps the end."""

    def chunk(kind, content):
        return (
            struct.pack(">I", len(content))
            + kind
            + content
            + struct.pack(">I", zlib.crc32(kind + content))
        )

    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
        + (chunk(b"IDAT", zlib.compress(data)) if data else b"")
        + (chunk(b"IEND", b"") if end else b"")
    )


def damaged(image):
    """A PNG's bytes with some in the middle changed: its start and its end are right."""
    file = io.BytesIO()
    image.save(file, "PNG")
    found = bytearray(file.getvalue())
    found[len(found) // 2] ^= 255
    return bytes(found)


NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (36, 40, 3)).astype(np.uint8))
TURNED = Image.Exif()
TURNED[0x0112] = 6


def described(m):
    """What a notebook does with the images: their descriptors and the search."""
    return Study("tiny", str(m.data)).evaluate(WEIGHTS[0], "sf-xs")


IMAGES = {
    "an empty photo": Case(lambda m: m.content(b""), ("is empty (0 bytes)", "copy it again")),
    "a photo cut to half": Case(
        lambda m: m.content(lambda b: b[: len(b) // 2]), ("can't be decoded", "copy it again")
    ),
    "a photo without its last byte": Case(
        lambda m: m.content(lambda b: b[:-1]), ("is truncated", "copy it again")
    ),
    "a photo of its first 4 bytes": Case(
        lambda m: m.content(lambda b: b[:4]), ("is not an image", "save it as JPEG")
    ),
    "a PNG cut to half": Case(
        lambda m: m.content(lambda b: damaged(NOISE)[:600], suffix=".png"), ("can't be decoded",)
    ),
    "a BMP cut to half": Case(
        lambda m: [m.image(NOISE, ".bmp"), m.content(lambda b: b[:2000])], ("can't be decoded",)
    ),
    "a WebP cut to half": Case(
        lambda m: [m.image(NOISE, ".webp"), m.content(lambda b: b[:200])],
        ("decode", "copy it again"),
    ),
    "a photo of zeros": Case(lambda m: m.content(bytes(3000)), ("is not an image",)),
    "a web page named .jpg": Case(
        lambda m: m.content(b"<html><body>404</body></html>"), ("is not an image",)
    ),
    "a text named .png": Case(lambda m: m.content(b"hello", suffix=".png"), ("is not an image",)),
    "an archive named .jpg": Case(
        lambda m: m.content(b"PK\x03\x04" + bytes(500)), ("is not an image",)
    ),
    "a drawing (SVG) named .png": Case(
        lambda m: m.content(b"<svg xmlns='http://www.w3.org/2000/svg'/>", suffix=".png"),
        ("is not an image",),
    ),
    "a photo of 32-bit floats": Case(
        lambda m: m.image(Image.new("F", (8, 8)), ".tif"), ("32-bit pixels", "8-bit RGB")
    ),
    "a PNG that claims 60,000 x 60,000 pixels": Case(
        lambda m: m.content(png(60_000, 60_000, b"0"), suffix=".png"),
        ("too many pixels",),
        described,
    ),
    "a PNG that claims 0 pixels": Case(
        lambda m: m.content(png(0, 0, b"0"), suffix=".png"), ("is not an image",), described
    ),
    "a PNG without pixels": Case(
        lambda m: m.content(png(8, 8), suffix=".png"), ("decode",), described
    ),
    "a PNG damaged in the middle": Case(
        lambda m: m.content(damaged(NOISE), suffix=".png"), ("can't be decoded",), described
    ),
    "a link to nowhere": Case(
        lambda m: [os.symlink("nowhere.jpg", m.one().with_name(m.one().name.replace("q1", "q9")))],
        ("there is no such image",),
    ),
    "a loop of links": Case(
        lambda m: [os.symlink(".", m.data / QUERIES / "again")], ("again", "leads back")
    ),
    # nothing is wrong with these
    "a photo of one pixel": Case(lambda m: m.image(NOISE.resize((1, 1))), call=described),
    "a CMYK photo": Case(lambda m: m.image(NOISE.convert("CMYK")), call=described),
    "a grey photo of 16 bits": Case(
        lambda m: m.image(
            Image.fromarray(np.arange(1600, dtype=np.uint16).reshape(40, 40) * 40), ".png"
        ),
        call=described,
    ),
    "an animated photo": Case(
        lambda m: m.image(NOISE, ".webp", save_all=True, append_images=[NOISE.rotate(90)]),
        call=described,
    ),
    "a palette with transparency": Case(
        lambda m: m.image(NOISE.convert("P"), ".png", transparency=3), call=described
    ),
    "a photo turned by EXIF": Case(lambda m: m.image(NOISE, exif=TURNED), call=described),
    "a GIF named .jpg": Case(lambda m: m.image(NOISE.convert("P"), format="GIF"), call=described),
    "a folder named as a photo": Case(
        lambda m: (m.data / QUERIES / m.one().name.replace("q1", "q9")).mkdir(), call=described
    ),
}

EAST, NORTH = "0553023.00", "4173551.00"
NAMES = {
    "a name without a field": Case(
        lambda m: m.name("@q1@", "@"), ("the name is not @utm_east@", "rename it")
    ),
    "a name of no fields": Case(
        lambda m: m.one().rename(m.one().with_name("IMG_0001.jpg")),
        ("IMG_0001.jpg", "the name is not", "CSV of file,lat,lon"),
    ),
    "a name whose east is NaN": Case(
        lambda m: m.name(EAST, "nan"), ("utm_east is 'nan'", "correct it")
    ),
    "a name whose north is infinite": Case(
        lambda m: m.name(NORTH, "-inf"), ("utm_north is '-inf'",)
    ),
    "a name whose east is a word": Case(lambda m: m.name(EAST, "east"), ("utm_east is 'east'",)),
    "a name whose east has a comma": Case(
        lambda m: m.name(EAST, "0553023,00"), ("utm_east is '0553023,00'",)
    ),
    "a name without an east": Case(lambda m: m.name(EAST, ""), ("utm_east is ''",)),
    "a name with east and north swapped": Case(
        lambda m: m.name(f"@{EAST}@{NORTH}@", f"@{NORTH}@{EAST}@"), ("out of range",)
    ),
    "a name with degrees for metres": Case(
        lambda m: m.name(f"@{EAST}@{NORTH}@", "@-122.4@37.7@"), ("out of range",)
    ),
    "a name in another zone": Case(
        lambda m: m.name("@10@S@", "@11@S@"), ("11 north", "keep to one zone")
    ),
    "a name in the other hemisphere": Case(
        lambda m: m.name("@10@S@", "@10@F@"), ("10 south", "keep to one zone")
    ),
    "a name in zone 61": Case(lambda m: m.name("@10@S@", "@61@S@"), ("zone 61",)),
    "a name in band I": Case(lambda m: m.name("@10@S@", "@10@I@"), ("letter 'I'",)),
    "a name whose zone is a fraction": Case(
        lambda m: m.name("@10@S@", "@10.5@S@"), ("zone 10.5", "1 to 60")
    ),
    "a name with heading 400": Case(
        lambda m: m.name("@0@@@@201704", "@400@@@@201704"), ("heading 400",)
    ),
    "a name with month 13": Case(lambda m: m.name("201704", "201713"), ("month 201713", "yyyymm")),
    "a name with a line break": Case(
        lambda m: m.name("@q1@", "@q\n1@bad@"), ("q\\n1", "the name is not")
    ),
    "a name with a terminal's escape": Case(
        lambda m: m.name(EAST, "\x1b[31mred"), ("\\x1b[31mred",)
    ),
    "a name that is no UTF-8": Case(
        lambda m: os.rename(
            os.fsencode(m.one()), os.fsencode(m.one()).replace(b"@q1@", b"@q\xff@x@")
        ),
        ("\\udcff", "the name is not"),
    ),
    "a name of 250 characters": Case(
        lambda m: m.name(EAST, "9" * (250 - len(m.one().name) + 10)), ("out of range",)
    ),
    "headings of none of the training photos": Case(
        lambda m: [
            path.rename(path.with_name(path.name.replace("@0@@@@", "@@@@@")))
            for path in (m.data / TRAIN).iterdir()
        ],
        ("has no heading", "classes need it"),
        lambda m: Study("tiny", str(m.data)).train_table,
    ),
    # nothing is wrong with these
    "a name in Japanese": Case(lambda m: m.name("@q1@", "@東京 é@"), call=described),
    "a name in capitals": Case(lambda m: m.name(".jpg", ".JPG"), call=described),
    "a name for a shell, with a leading dash": Case(
        lambda m: m.name("@q1@", "@-rf $(touch owned) `touch owned`; touch owned@"), call=described
    ),
    "a name for a web page": Case(
        lambda m: m.name("@q1@", "@<script>alert(1)<script>\"'&@"), call=described
    ),
    "a name with a line break in its note": Case(
        lambda m: m.name("@201704@@", "@201704@a\nb@"), call=described
    ),
    "a name whose coordinates are in Arabic digits": Case(
        lambda m: m.name("@10@S@", "@\u0661\u0660@S@"), call=described
    ),
}

HEADER = "file,utm_east,utm_north\n"
LINES = HEADER + "".join(f"a{i}.jpg,{553_000 + 20 * i},4173551\n" for i in range(5))
LISTS = {
    "an empty CSV": Case(lambda m: m.lists(""), ("list.csv", "must name the columns")),
    "a CSV of a header alone": Case(lambda m: m.lists(HEADER), ("holds no database images",)),
    "a CSV without a column": Case(
        lambda m: m.lists("file,lat\na0.jpg,37\n"), ("must name the columns file,lat,lon",)
    ),
    "a CSV with semicolons": Case(
        lambda m: m.lists(LINES.replace(",", ";")), ("must name the columns",)
    ),
    "a CSV with a column twice": Case(
        lambda m: m.lists("file,lat,lat,lon\na0.jpg,1,1,2\n"), ("lat is there twice",)
    ),
    "a CSV line with a value too few": Case(
        lambda m: m.lists(LINES + "a1.jpg,3\n"), ("line 7", "2 values for 3 columns")
    ),
    "a CSV line of a file that is not there": Case(
        lambda m: m.lists(LINES + "b.jpg,1,2\n"), ("line 7 (b.jpg)", "no such file")
    ),
    "a CSV line of a file outside": Case(
        lambda m: m.lists(LINES + "../../../../../../etc/none.jpg,1,2\n"),
        ("line 7", "no such file"),
    ),
    "a CSV with a file twice": Case(
        lambda m: m.lists(LINES + "./a1.jpg,553000,4173551\n"), ("line 7", "also on line 3")
    ),
    "a CSV with NaN": Case(
        lambda m: m.lists(LINES.replace("553040", "NaN")), ("line 4 (a2.jpg)", "'NaN'")
    ),
    "a CSV with a decimal comma": Case(
        lambda m: m.lists('file,lat,lon\na0.jpg,"37,7","-122,4"\n'),
        ("line 2 (a0.jpg)", "lat is '37,7'"),
    ),
    "a CSV with latitude and longitude swapped": Case(
        lambda m: m.lists("file,lat,lon\na0.jpg,-122.4,37.7\n"), ("line 2", "swap")
    ),
    "a CSV of two continents": Case(
        lambda m: m.lists("file,lat,lon\na0.jpg,37,-122\na1.jpg,37,139\n"),
        ("from the mean", "split the list"),
    ),
    "a CSV of another zone than the queries": Case(
        lambda m: m.lists("file,lat,lon\na0.jpg,35.6,139.7\n"), ("54 north", "10 north")
    ),
    "a CSV with east and north swapped": Case(
        lambda m: m.lists(HEADER + "a0.jpg,4173551,553000\n"), ("line 2", "out of range")
    ),
    "a CSV with heading 400": Case(
        lambda m: m.lists("file,lat,lon,heading\na0.jpg,37.7,-122.4,400\n"), ("heading 400",)
    ),
    "a CSV with the month 2017": Case(
        lambda m: m.lists("file,lat,lon,month\na0.jpg,37.7,-122.4,2017\n"), ("month 2017",)
    ),
    "a CSV in UTF-16": Case(lambda m: m.lists(LINES.encode("utf-16")), ("can't be read", "UTF-8")),
    "a CSV with zero bytes": Case(
        lambda m: m.lists(LINES.encode() + b"a\0b,1,2\n"), ("list.csv", "a\\x00b")
    ),
    "a CSV with a quote that never closes": Case(
        lambda m: m.lists(LINES + 'a1.jpg,"5530'), ("list.csv", "line 7")
    ),
    "a CSV with a value of 200,000 characters": Case(
        lambda m: m.lists(LINES + f"{'x' * 200_000},1,2\n"), ("can't be read", "field larger")
    ),
    "a CSV with a line break in a name": Case(
        lambda m: m.lists(LINES + '"a\n1.jpg",1,2\n'), ("a\\n1.jpg", "no such file")
    ),
    "two CSVs in a folder": Case(
        lambda m: [
            m.lists(LINES),
            shutil.copy(m.data / DATABASE / "list.csv", m.data / DATABASE / "more.csv"),
        ],
        ("holds 2 CSV files",),
    ),
    "a CSV that is a folder": Case(
        lambda m: (m.data / DATABASE / "list.csv").mkdir(), ("list.csv", "can't be read")
    ),
    "a CSV of photos a kilometre away": Case(
        lambda m: m.lists(LINES.replace(",55", ",56")), ("no query in", "nearest")
    ),
    "a CSV as Excel writes it": Case(
        lambda m: m.lists(b"\xef\xbb\xbf" + LINES.replace("\n", "\r\n").encode()), call=described
    ),
}

FOLDERS = {
    "data that is not there": Case(
        lambda m: None, ("none: no such folder",), "data --data {data}/none"
    ),
    "data that is a file": Case(
        lambda m: m.file_for(m.data / "x"), ("x: no such folder",), "run tiny --data {data}/x"
    ),
    "data that is an empty word": Case(
        lambda m: None, ("'': no such folder",), ("run", "tiny", "--data", "")
    ),
    "data with a line break": Case(
        lambda m: None, ("a\\nb: no such folder",), ("run", "tiny", "--data", "a\nb")
    ),
    "data that is an empty folder": Case(
        lambda m: (m.data / "x").mkdir(),
        ("has no sf-xs/val",),
        "data --profile tiny --data {data}/x",
    ),
    "sf-xs that is a file": Case(lambda m: m.file_for(m.data / "sf-xs"), ("has no sf-xs/val",)),
    "a database that is a file": Case(
        lambda m: m.file_for(m.data / "sf-xs/val/database"), ("has no sf-xs/val",)
    ),
    "queries that are an empty folder": Case(
        lambda m: [shutil.rmtree(m.data / QUERIES), (m.data / QUERIES).mkdir()],
        ("queries_v1: holds no",),
    ),
    "no training images": Case(
        lambda m: shutil.rmtree(m.data / TRAIN), ("has no sf-xs/train",), "run tiny --data {data}"
    ),
    "too few images of a place": Case(
        lambda m: [path.unlink() for path in sorted((m.data / TRAIN).iterdir())[::2]],
        ("no class has 3 images", "lower min_images"),
        lambda m: Study("tiny", str(m.data)).train_table,
    ),
    "no night photos to train on": Case(
        lambda m: None,
        ("has no night_target", "put a few night photos there"),
        lambda m: Study("tiny", str(m.data)).train("GRL"),
    ),
    "a check of data with a bad name": Case(
        lambda m: m.name("@q1@", "@"), (), "data --check --profile tiny --data {data}"
    ),
    "results that are a file": Case(
        lambda m: [m.move_cache(), m.file_for(m.top / "results")],
        ("results", "can't be written"),
        described,
    ),
    "a cache that is a file": Case(
        lambda m: [m.move_cache(), m.file_for(m.top / "results/cache")],
        ("results/cache", "can't be written"),
        described,
    ),
    "descriptors that are a file": Case(
        lambda m: m.file_for(m.top / "results/cache/descriptors"),
        ("results/cache/descriptors", "can't be written"),
        described,
    ),
    "locks that are a file": Case(
        lambda m: m.file_for(m.top / "results/cache/locks"), ("can't be written",), described
    ),
    "a run.json that is damaged": Case(
        lambda m: m.run_json("{"),
        ("run.json", "is damaged", "remove it"),
        lambda m: Study("tiny", str(m.data)).write_run(),
    ),
    "a run.json that is a list": Case(
        lambda m: m.run_json("[]"),
        ("run.json", "no record of a run"),
        lambda m: Study("tiny", str(m.data)).write_run(),
    ),
}

COMMANDS = {
    "an unknown profile": Case(
        lambda m: None, ("unknown profile 'nope'", "use one of smoke, city, paper"), "run nope"
    ),
    "a profile of paths": Case(lambda m: None, ("unknown profile '../x'",), "run ../x"),
    "a profile with a line break": Case(
        lambda m: None, ("unknown profile 'a\\nb'",), ("data", "--profile", "a\nb")
    ),
    "the paper without data": Case(
        lambda m: None, ("needs real data", "--data FOLDER"), "run paper"
    ),
    "an image size of 16": Case(
        lambda m: None, ("image size 16", "at least 32"), "run tiny --data {data} --image-size 16"
    ),
    "a negative image size": Case(
        lambda m: None, ("image size -96",), "run tiny --data {data} --image-size -96"
    ),
    "an image size of a million": Case(
        lambda m: None,
        ("image size 1000000", "at most 4096"),
        "run tiny --data {data} --image-size 1000000",
    ),
    "an image size in words": Case(
        lambda m: None, ("invalid int value: 'big'",), "run tiny --image-size big"
    ),
    "no seeds": Case(
        lambda m: None, ("seeds 0", "from 1 to 100"), "run tiny --data {data} --seeds 0"
    ),
    "a billion seeds": Case(
        lambda m: None, ("seeds 1000000000",), "run tiny --data {data} --seeds 1000000000"
    ),
    "half a seed": Case(lambda m: None, ("invalid int value: '1.5'",), "run tiny --seeds 1.5"),
    "no command": Case(lambda m: None, ("required: command",), ""),
    "an unknown command": Case(lambda m: None, ("invalid choice: 'go'",), "go"),
    "an unknown option": Case(
        lambda m: None, ("unrecognized arguments: --epochs 3",), "run tiny --epochs 3"
    ),
}


def parameters(**given):
    return lambda m: Study(**{"name": "tiny", "data": str(m.data)} | given)


def notebook(**fields):
    """Writes a notebook of one cell and executes it with a parameter."""

    def call(m):
        from vgeo.run import execute

        metadata = {
            "kernelspec": {
                "name": fields.get("kernel", "python3"),
                "display_name": "x",
                "language": "python",
            }
        }
        cell = nbformat.v4.new_code_cell(
            fields.get("cell", "profile = 1"), metadata={"tags": ["parameters"]}
        )
        path = m.top / "book.ipynb"
        nbformat.write(nbformat.v4.new_notebook(cells=[cell], metadata=metadata), path)
        path.write_text(fields["text"]) if "text" in fields else None
        return execute(path, m.top / "out.ipynb", fields.get("parameters", {}), m.top)

    return call


PARAMETERS = {
    "a parameter profile that is a number": Case(
        lambda m: None, ("unknown profile 3",), parameters(name=3)
    ),
    "a parameter profile that is a list": Case(
        lambda m: None, ("unknown profile ['smoke']",), parameters(name=["smoke"])
    ),
    "a parameter data that is a number": Case(
        lambda m: None, ("5: no such folder",), parameters(data=5)
    ),
    "a parameter data with a zero byte": Case(
        lambda m: None, ("a\\x00b: no such folder",), parameters(data="a\0b")
    ),
    "a parameter image_size in quotes": Case(
        lambda m: None, ("image size '96'", "a whole number"), parameters(image_size="96")
    ),
    "a parameter image_size with a fraction": Case(
        lambda m: None, ("image size 96.5",), parameters(image_size=96.5)
    ),
    "a parameter image_size that is NaN": Case(
        lambda m: None, ("image size nan",), parameters(image_size=float("nan"))
    ),
    "a parameter image_size that is true": Case(
        lambda m: None, ("image size True",), parameters(image_size=True)
    ),
    "a parameter seeds that is a list": Case(
        lambda m: None, ("seeds [0, 1]", "a whole number"), parameters(seeds=[0, 1])
    ),
    "a parameter that a notebook has not": Case(
        lambda m: None, ("book.ipynb", "no parameter 'who'"), notebook(parameters={"who": 1})
    ),
    "a notebook that is no JSON": Case(
        lambda m: None, ("book.ipynb", "not a notebook"), notebook(text="{")
    ),
    "a notebook of a kernel that is not there": Case(
        lambda m: None, ("book.ipynb", "julia"), notebook(kernel="julia")
    ),
    "a profile of no images in a batch": Case(
        lambda m: None, ("batch_size is 0", "above 0"), lambda m: replace(TINY, batch_size=0)
    ),
    "a profile of a fraction of an epoch": Case(
        lambda m: None, ("epochs is 0.5", "whole number"), lambda m: replace(TINY, epochs=0.5)
    ),
    "a profile with a rate that is NaN": Case(
        lambda m: None, ("lr_model is nan",), lambda m: replace(TINY, lr_model=float("nan"))
    ),
    "a profile of classes without a side": Case(
        lambda m: None, ("cell is 0",), lambda m: replace(TINY, cell=0)
    ),
}


class Hostile:
    """Unpickled with anything but weights_only, it writes a file."""

    def __reduce__(self):
        return os.system, (f"touch {OWNED}",)


OWNED = Path(tempfile.gettempdir(), f"owned-{os.getpid()}")  # what a checkpoint must not make
WEIGHTS = []  # the file of starting weights that `cases` are tried with


def pth(content):
    """Writes a.pth: bytes as they are, anything else by torch.save; content(m) makes it."""

    def do(m):
        found = content(m) if callable(content) else content
        (m.top / "a.pth").write_bytes(found) if isinstance(found, bytes) else torch.save(
            found, m.top / "a.pth"
        )

    return do


def ours(m):
    """The .pth of a model of ours."""
    checkpoints.export(build("resnet18", dim=8), m.top / "a.pth")
    return torch.load(m.top / "a.pth", weights_only=True)


CONVERT = "convert {top}/a.pth {top}/out"
CHECKPOINTS = {
    "a checkpoint that is not there": Case(lambda m: None, ("a.pth: no such checkpoint",), CONVERT),
    "a checkpoint that is a folder": Case(
        lambda m: (m.top / "a.pth").mkdir(), ("a.pth", "not a checkpoint"), CONVERT
    ),
    "a checkpoint that is empty": Case(pth(b""), ("not a checkpoint",), CONVERT),
    "a checkpoint that is a web page": Case(pth(b"<html></html>"), ("not a checkpoint",), CONVERT),
    "a checkpoint cut to half": Case(
        lambda m: [
            pth(ours)(m),
            (m.top / "a.pth").write_bytes((m.top / "a.pth").read_bytes()[:-20_000_000]),
        ],
        ("not a checkpoint",),
        CONVERT,
    ),
    "a checkpoint of safetensors": Case(
        lambda m: shutil.copy(WEIGHTS[0], m.top / "a.pth"), ("not a checkpoint",), CONVERT
    ),
    "a checkpoint that runs a program": Case(pth(Hostile()), ("tensors alone",), CONVERT),
    "a pickle that runs a program": Case(
        pth(lambda m: pickle.dumps(Hostile())), ("tensors alone",), CONVERT
    ),
    "a program among the weights": Case(
        pth(lambda m: ours(m) | {"x": Hostile()}), ("tensors alone",), CONVERT
    ),
    "a checkpoint of a whole model": Case(
        pth(lambda m: build("resnet18", dim=8)), ("tensors alone", "save its state_dict"), CONVERT
    ),
    "a checkpoint of one tensor": Case(pth(torch.ones(3)), ("no state_dict",), CONVERT),
    "a checkpoint of nothing": Case(pth({}), ("no state_dict",), CONVERT),
    "a checkpoint of another network": Case(
        pth({"layers.0.weight": torch.ones(3)}), ("is not a CosPlace network",), CONVERT
    ),
    "a checkpoint without a layer": Case(
        pth(lambda m: {k: v for k, v in ours(m).items() if k != "backbone.1.weight"}),
        ("missing: backbone.1.weight",),
        CONVERT,
    ),
    "a checkpoint with a layer of another shape": Case(
        pth(lambda m: ours(m) | {"backbone.1.weight": torch.ones(3)}),
        ("another shape: backbone.1.weight",),
        CONVERT,
    ),
    "a checkpoint with NaN": Case(
        pth(lambda m: ours(m) | {"backbone.1.weight": torch.full((64,), torch.nan)}),
        ("not finite: backbone.1.weight",),
        CONVERT,
    ),
    "a checkpoint converted into a file": Case(
        lambda m: [pth(ours)(m), m.file_for(m.top / "out")], ("out", "correct the folder"), CONVERT
    ),
    "starting weights that are gone": Case(
        lambda m: m.weights(None),
        ("no such weights file",),
        lambda m: Study("tiny", str(m.data)).train("CosFace"),
    ),
    "starting weights cut to half": Case(
        lambda m: m.weights(lambda b: b[: len(b) // 2]),
        ("not a whole safetensors file",),
        lambda m: Study("tiny", str(m.data)).train("CosFace"),
    ),
    "starting weights of another network": Case(
        lambda m: save_weights(torch.nn.Linear(2, 2), m.top / "weights/resnet18.safetensors", {}),
        ("not weights of this resnet18",),
        lambda m: Study("tiny", str(m.data)).train("CosFace"),
    ),
}

CASES = IMAGES | NAMES | LISTS | FOLDERS | COMMANDS | PARAMETERS | CHECKPOINTS


class Bench(Mistakes):
    """A folder of its own for one case: data, weights, results and a cache with something in it that has to stay."""

    def __init__(self, top, data, weights):
        super().__init__(Path(top), Path(shutil.copytree(data, Path(top) / "data")))
        shutil.copytree(Path(weights).parent, self.top / "weights")
        WEIGHTS[:] = [self.top / "weights" / "resnet18.safetensors"]
        self.kept = [
            artefact(
                self.top / "results" / "cache",
                "kept",
                {},
                lambda folder: (folder / "hours").write_text("of work"),
            )
        ]

    def move_cache(self):
        self.kept[0] = self.kept[0].rename(self.top / "moved")

    def run_json(self, text):
        path = self.top / "results" / "tiny-data" / "run.json"
        path.parent.mkdir(parents=True)
        path.write_text(text)

    def weights(self, new):
        WEIGHTS[0].write_bytes(new(WEIGHTS[0].read_bytes())) if new else WEIGHTS[0].unlink()

    def answer(self, case):
        """(the line that the case is answered, "" where it is taken; the exit code). Anything but an answer is raised."""
        case.do(self)
        places = {
            "vgeo.study.ROOT": self.top,
            "vgeo.kept.ROOT": self.top,
            "vgeo.study.CITY_WEIGHTS": self.top / "weights",
            "vgeo.models.CITY_WEIGHTS": self.top / "weights",
        }
        with contextlib.ExitStack() as stack:
            for name, value in places.items():
                stack.enter_context(mock.patch(name, value))
            stack.enter_context(mock.patch.dict(PROFILES, {"tiny": TINY}))
            stack.enter_context(mock.patch.object(torch.cuda, "is_available", lambda: False))
            said = stack.enter_context(contextlib.redirect_stderr(io.StringIO()))
            stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
            try:
                if callable(case.call):
                    case.call(self)
                else:
                    words = (
                        case.call
                        if isinstance(case.call, tuple)
                        else case.call.format(top=self.top, data=self.data).split()
                    )
                    main(list(words))
            except VgeoError as error:  # in a notebook; `run.execute` hands it on as it is, and the command line exits with it
                return f"vgeo: {error}", 1
            except SystemExit as stop:
                if isinstance(stop.code, str):
                    return stop.code, 1
                return said.getvalue().rstrip("\n").split("\n")[
                    -1
                ], stop.code  # argparse's line, below its usage
        return "", 0


def starting_weights(folder):
    """A small file of weights for all cases."""
    torch.manual_seed(4)
    save_weights(build("resnet18"), Path(folder) / "resnet18.safetensors", {})
    return Path(folder) / "resnet18.safetensors"


def write(path):
    """Tries every case and writes (case, answer)."""
    with tempfile.TemporaryDirectory() as top:
        data, weights = copy_of_data(Path(top) / "whole"), starting_weights(Path(top) / "start")
        rows = []
        for number, (name, case) in enumerate(CASES.items()):
            answer, _ = Bench(Path(top, str(number), "x"), data, weights).answer(case)
            rows.append(
                (
                    name,
                    answer.replace(f"{top}/{number}/x/", "").replace(f"{top}/{number}/x", ".")
                    or "taken as it is",
                )
            )
            shutil.rmtree(Path(top, str(number)))
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("case", "answer"), *rows])
    print(f"{path}: {len(rows)} cases")


if __name__ == "__main__":
    write(
        Path(__file__).resolve().parents[1] / "results" / "benchmarks" / "bad_input.csv"
        if len(sys.argv) == 1
        else sys.argv[1]
    )
