"""Positions, headings and months from EXIF as real writers write it, its odd corners included."""

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from vgeo.errors import VgeoError
from vgeo.photos.exif import read_exif

BYTES, ASCII, RATIONAL, SIGNED = 1, 2, 5, 10  # the types of TIFF
LAT = {1: (ASCII, b"N\0"), 2: (RATIONAL, [(37, 1), (46, 1), (12, 1)])}
LON = {3: (ASCII, b"W\0"), 4: (RATIONAL, [(122, 1), (25, 1), (12, 1)])}
PLACE = (37.77, -122.42)


def block(gps):
    """A big-endian EXIF block of GPS tags {number: (type, bytes or pairs)}, byte by byte."""

    def ifd(start):
        base, body, data = start + 2 + 12 * len(gps) + 4, b"", b""
        for tag, (kind, value) in sorted(gps.items()):
            form = ">ii" if kind == SIGNED else ">II"
            raw = (
                value
                if isinstance(value, bytes)
                else b"".join(struct.pack(form, *p) for p in value)
            )
            count = len(raw) // (8 if kind in (RATIONAL, SIGNED) else 1)
            where = raw.ljust(4, b"\0") if len(raw) <= 4 else struct.pack(">I", base + len(data))
            body += struct.pack(">HHI", tag, kind, count) + where
            data += b"" if len(raw) <= 4 else raw
        return struct.pack(">H", len(gps)) + body + b"\0\0\0\0" + data

    head = struct.pack(">HHHII", 1, 0x8825, 4, 1, 26) + b"\0\0\0\0"
    return b"Exif\0\0MM\0*\0\0\0\x08" + head + ifd(26)


@pytest.fixture
def read(tmp_path):
    """`read(tags)`: what `read_exif` says of a photo with these GPS tags."""

    def read(tags):
        Image.new("RGB", (8, 8)).save(tmp_path / "x.jpg", exif=block(tags))
        return read_exif(str(tmp_path / "x.jpg"))

    return read


def lat(*pairs, side=(ASCII, b"N\0"), kind=RATIONAL):
    return LAT | LON | {1: side, 2: (kind, list(pairs))}


@pytest.mark.parametrize(
    "tags, expected",
    [
        (LAT | LON, 37.77),
        (lat((3777, 100)), 37.77),  # degrees alone
        (lat((37, 1), (462, 10)), 37.77),
        (lat((37, 1), (462, 10), (0, 0)), 37.77),  # seconds unknown
        (lat((3777, 100), (0, 0), (0, 0)), 37.77),
        (lat((3777, 100), (0, 1), (0, 1)), 37.77),
        (lat((37, 1), (46, 1), (60, 1)), 37 + 47 / 60),  # seconds that were rounded up
        (lat((37, 1), (46, 1), (12, 1), side=(ASCII, b"North\0")), 37.77),
        (lat((37, 1), (46, 1), (12, 1), side=(ASCII, b"n\0")), 37.77),
        (lat((37, 1), (46, 1), (12, 1), side=(BYTES, b"S\0")), -37.77),
        (lat((-3777, 100), side=(ASCII, b"S\0"), kind=SIGNED), -37.77),
        (lat((-3777, 100), side=(ASCII, b"\0"), kind=SIGNED), -37.77),  # the sign says it
    ],
)
def test_latitudes_in_every_form(read, tags, expected):
    assert read(tags)[:2] == pytest.approx((expected, -122.42), abs=1e-9)


@pytest.mark.parametrize(
    "tags, words",
    [
        ({}, "no GPS position"),
        (LAT, "no GPS position"),
        (LAT | {4: LON[4]}, "has no E or W"),
        (lat((37, 1), (46, 1), (12, 1), side=(ASCII, b"x\0")), "has no N or S"),
        (lat((0, 0), (0, 0), (0, 0)), "odd GPSLatitude"),
        (lat((37, 1), (0, 0), (12, 1)), "odd GPSLatitude"),
        (lat((37, 0), (46, 1), (12, 1)), "odd GPSLatitude"),
        (lat((3777, 100), (46, 1), (12, 1)), "odd GPSLatitude"),  # the fraction twice
        (lat((37, 1), (462, 10), (12, 1)), "odd GPSLatitude"),
        (lat((37, 1), (77, 1), (0, 1)), "odd GPSLatitude"),
        (lat((1, 1), (1, 1), (1, 1), (1, 1)), "odd GPSLatitude"),
        (LAT | LON | {2: (ASCII, b"thirty\0")}, "odd GPSLatitude"),
        (lat((-3777, 100), kind=SIGNED), "contradicts itself: negative and N"),
        (lat((97, 1)), "out of range"),
        (lat((0, 1)) | {4: (RATIONAL, [(0, 1)])}, "no GPS position"),
    ],
)
def test_positions_that_are_not_there_or_mean_nothing(read, refused, tags, words):
    refused(lambda: read(tags), "x.jpg", words)


@pytest.mark.parametrize(
    "direction, expected",
    [
        ({17: (RATIONAL, [(2715, 10)])}, 271.5),
        ({16: (ASCII, b"T\0"), 17: (RATIONAL, [(360, 1)])}, 0),
        ({16: (ASCII, b"T\0"), 17: (SIGNED, [(-90, 1)])}, 270),
        ({16: (ASCII, b"T\0"), 17: (RATIONAL, [(361, 1)])}, np.nan),
        ({16: (ASCII, b"T\0"), 17: (ASCII, b"\0")}, np.nan),
        ({16: (ASCII, b"T\0"), 17: (RATIONAL, [(0, 0)])}, np.nan),
        ({16: (ASCII, b"M\0"), 17: (RATIONAL, [(90, 1)])}, np.nan),
    ],
)
def test_a_direction_that_nobody_needs_refuses_no_photo(read, direction, expected):
    where = read(LAT | LON | direction)
    assert where[:2] == pytest.approx(PLACE) and where[2] == pytest.approx(expected, nan_ok=True)


def test_the_tokyo_datum_is_converted(read):
    """Against the linear approximation that Japanese maps print, good to some metres."""
    tags = {1: (ASCII, b"N\0"), 2: (RATIONAL, [(3565, 100)]), 3: (ASCII, b"E\0")}
    tags |= {4: (RATIONAL, [(1397, 10)]), 18: (ASCII, b"TOKYO\0")}
    expected = 35.65 - 0.00010695 * 35.65 + 0.000017464 * 139.7 + 0.0046017
    assert read(tags)[0] == pytest.approx(expected, abs=1e-4)
    expected = 139.7 - 0.000046038 * 35.65 - 0.000083043 * 139.7 + 0.010040
    assert read(tags)[1] == pytest.approx(expected, abs=1e-4)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1)), max_size=4),
    st.binary(max_size=6),
    st.sampled_from([RATIONAL, ASCII, BYTES]),
)
def test_any_gps_is_understood_or_refused(tmp_path_factory, pairs, text, kind):
    path = tmp_path_factory.getbasetemp() / "any.jpg"
    value = pairs if kind == RATIONAL else text
    tags = LAT | LON | {2: (kind, value), 17: (kind, value), 1: (ASCII, text), 18: (ASCII, text)}
    Image.new("RGB", (8, 8)).save(path, exif=block(tags))
    try:
        latitude, longitude, heading, _ = read_exif(str(path))
    except VgeoError as error:
        assert "any.jpg" in str(error) and str(error).isprintable()
        return
    assert -80 <= latitude <= 84 and -180 <= longitude <= 180
    assert np.isnan(heading) or 0 <= np.float32(heading) < 360
