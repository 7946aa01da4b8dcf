"""What tests of several folders share.

Fixtures, all of them functions without state, so that fixtures of any scope may take them:

- `make_photos(folder, positions, places=..., ...)` writes small photos and returns their paths.
- `make_classes(folder, count, images, ...)` writes `images` photos of each of `count` places and
  returns `Classes`.
- `make_data(top)` writes a complete tiny copy of sf-xs, tokyo-xs, tokyo-night and night_target,
  laid out as the real ones.
- `refused(call, *words)` asserts that a call raises a VgeoError of one line that holds the words.

A program outside pytest may import the functions from this file.
"""

import numpy as np
import pytest
from PIL import ExifTags, Image

from vgeo.errors import VgeoError
from vgeo.photos.names import format_name
from vgeo.photos.places import Classes
from vgeo.photos.tables import read_photos

NORTH = 4_173_551.0  # metres: the streets of the tests lead east from (east, NORTH)


def pytest_collection_modifyitems(items):
    """Puts the cells of notebooks, which pytest-randomly shuffles, in order and after the tests.

    nbval waits for a cell's last message for 5 seconds, which a busy machine may need.
    """
    for item in items:
        if hasattr(item, "output_timeout"):
            item.output_timeout = 60
    items.sort(key=lambda x: (str(x.path), x.cell_num) if hasattr(x, "cell_num") else ("", 0))


def picture(place, size=(40, 36), noise=0.0, other=0.0, brightness=1.0, random=None):
    """A smooth random picture, always the same for a place: an RGB image of `size` (width, height).

    noise: standard deviation of added Gaussian noise, of 255. other: the share, 0 to 1, of a
    second random picture that is mixed in.
    """
    random = random or np.random.default_rng(0)
    own = np.random.default_rng([5, place]).integers(0, 256, (6, 6, 3))
    mixed = own if not other else own * (1 - other) + random.integers(0, 256, own.shape) * other
    smooth = Image.fromarray(mixed.astype(np.uint8)).resize(size, Image.Resampling.BICUBIC)
    pixels = np.asarray(smooth) * brightness
    pixels = pixels + random.normal(0, noise, pixels.shape) if noise else pixels
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def make_photos(
    folder,
    positions,
    places=None,
    headings=0.0,
    months=201704,
    kind="names",
    size=(40, 36),
    zone=10,
    letter="S",
    stem="p",
    suffix=".jpg",
    seed=0,
    gps=None,
    **look,
):
    """Writes one small photo for each position; returns the paths in the order of the positions.

    Parameters
    ----------
    folder : is made where it is missing.
    positions : for kind "names" UTM east in metres or (east, north); for "csv" and "exif"
        (lat, lon) in degrees.
    places : the number of the picture that each photo shows, by default 0, 1, 2, ... Photos of one
        place look alike.
    headings : one for each photo, or one for all: degrees, NaN where unknown.
    months : likewise: yyyymm, 0 where unknown.
    kind : where the positions are written: in "names" (`@...@`), a "csv" (list.csv), or "exif".
    size : the side in pixels, (width, height), or a list of these, one for each photo.
    zone, letter : UTM zone and latitude band in the names.
    stem : the name of the panorama, or of the file, begins with it; the photo's number follows.
    suffix : .jpg or .png.
    seed : of the noise.
    gps : for kind "exif": GPS tags {number: value} to write instead; the value None removes a tag.
    look : noise, other and brightness of `picture`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    random, paths = np.random.default_rng([9, seed]), []
    lines = ["file,lat,lon,heading,month"]
    count = len(positions)
    places = range(count) if places is None else places
    headings, months = (np.broadcast_to(values, count).tolist() for values in (headings, months))
    sizes = size if isinstance(size, list) else [size] * count
    rows = zip(positions, places, headings, months, sizes, strict=True)
    for number, (position, place, heading, month, side) in enumerate(rows):
        first, second = position if np.size(position) == 2 else (position, NORTH)
        known = not np.isnan(heading)
        exif, name = Image.Exif(), f"{stem}{number:03}.jpg"
        if kind == "names":
            name = format_name(first, second, zone, letter, f"{stem}{number}", heading, month)
        elif kind == "csv":
            lines.append(f"{name},{first},{second},{heading if known else ''},{month or ''}")
        else:
            tags = {1: "NS"[first < 0], 2: exif_angle(first), 3: "EW"[second < 0]}
            tags |= {4: exif_angle(second)} | ({16: "T", 17: heading} if known else {})
            tags = {tag: value for tag, value in (tags | (gps or {})).items() if value is not None}
            exif.get_ifd(ExifTags.IFD.GPSInfo).update(tags)
            taken = f"{month // 100}:{month % 100:02}:03 10:00:00"
            exif.get_ifd(ExifTags.IFD.Exif).update({36867: taken} if month else {})
        paths.append((folder / name).with_suffix(suffix))
        side = (side, side) if isinstance(side, int) else side
        picture(place, side, random=random, **look).save(paths[-1], quality=95, exif=exif.tobytes())
    if kind == "csv":
        (folder / "list.csv").write_text("\n".join(lines).replace(".jpg,", f"{suffix},"))
    return paths


def exif_angle(value):
    """Degrees, minutes and seconds as cameras write them, to 1e-4 seconds: 3 mm."""
    whole, rest = divmod(round(abs(value) * 36_000_000), 36_000_000)
    minutes, seconds = divmod(rest, 600_000)
    return (float(whole), float(minutes), seconds / 10_000)


def make_classes(folder, count=4, images=3, size=40, noise=10.0, **look):
    """`Classes` of `count` places, `images` photos each, 1 m apart, in the order of the labels."""
    labels = np.repeat(np.arange(count), images)
    easts = 552_000.0 + 50 * labels + np.arange(len(labels)) % images
    make_photos(folder, easts, labels, size=size, noise=noise, **look)
    return Classes(read_photos(folder), labels, (0, 0, 0))


def make_data(top):
    """Writes the data sets, a few photos each, and returns `top`.

    sf-xs/train has 3 classes of 4 photos. Each database has 7 places, one every 20 m. Each query
    set has 5 photos, 30 m apart, of the database's first 5 pictures, a little changed. tokyo-night
    holds the queries 1 and 3 of tokyo-xs. night_target has 2 photos.
    """
    make_classes(top / "sf-xs/train", 3, 4, size=(40, 36))
    for number, part in enumerate(("sf-xs/val", "sf-xs/test", "tokyo-xs/test"), 1):
        zone = 54 if part.startswith("tokyo") else 10
        queries = "queries_v1" if part == "sf-xs/test" else "queries"
        here = {"zone": zone, "noise": 10.0}
        first = 10 * number
        database = 553_000.0 + 20 * np.arange(7)
        make_photos(top / part / "database", database, first + np.arange(7), stem="d", **here)
        asked = 553_003.0 + 30 * np.arange(5)
        here |= {"stem": "q", "other": 0.3, "seed": number}
        paths = make_photos(top / part / queries, asked, first + np.arange(5), **here)
    night = top / "tokyo-night/test/queries"
    night.mkdir(parents=True)
    for path in (paths[1], paths[3]):
        (night / path.name).write_bytes(path.read_bytes())
    make_photos(top / "night_target", [554_000.0, 554_500.0], [91, 92], zone=54, brightness=0.4)
    return top


def refused(call, *words):
    """Asserts that `call()` raises a VgeoError of one line with these words; returns the line."""
    with pytest.raises(VgeoError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert str(word) in message
    return message


@pytest.fixture(scope="session", name="make_photos")
def _make_photos():
    return make_photos


@pytest.fixture(scope="session", name="make_classes")
def _make_classes():
    return make_classes


@pytest.fixture(scope="session", name="make_data")
def _make_data():
    return make_data


@pytest.fixture(scope="session", name="refused")
def _refused():
    return refused
