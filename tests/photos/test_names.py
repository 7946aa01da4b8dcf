"""File names with positions: written, read back, held to EPSG's projection, refused in one line."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyproj import Geod, Transformer

from vgeo.errors import VgeoError, printable
from vgeo.photos.names import FIELDS, LAYOUT, format_name, parse_name

NAME = "@0552400.47@4173551.91@10@S@037.70771@-122.40552@p@@120@@@@202011@@.jpg"

text = st.text(st.sampled_from("abzAZ09-_ ."), max_size=8)
months = st.one_of(
    st.just(0),
    st.builds(lambda year, month: 100 * year + month, st.integers(1990, 2030), st.integers(1, 12)),
)
places = st.tuples(
    st.floats(200_000, 800_000), st.floats(3_600_000, 4_400_000), st.integers(1, 60)
)  # in band S
headings = st.one_of(st.just(math.nan), st.floats(0, 359.99))


@settings(deadline=None)
@given(places, text, headings, months, text)
def test_names_come_back_and_agree_with_epsg(place, pano, heading, month, note):
    east, north, zone = place
    name = format_name(east, north, zone, "S", pano, heading, month, note=note)
    fields = parse_name(name)
    assert abs(fields["utm_east"] - east) <= 0.0051 and abs(fields["utm_north"] - north) <= 0.0051
    exact = {"zone": zone, "letter": "S", "pano": pano, "month": month, "note": note}
    assert {key: fields[key] for key in exact} == exact
    assert fields["heading"] == pytest.approx(heading, abs=0.0051, nan_ok=True)
    lat, lon = Transformer.from_crs(f"EPSG:{32600 + zone}", "EPSG:4326").transform(east, north)
    assert (fields["lat"], fields["lon"]) == pytest.approx((lat, lon), abs=6e-6)
    # Written again, the fields give the same name.
    again = format_name(fields["utm_east"], fields["utm_north"], heading=fields["heading"], **exact)
    assert again == name


def test_names_are_padded_as_the_real_ones():
    tail = {"pano": "p", "heading": 0, "month": 202011}
    name = "@0552400.47@4173551.91@10@S@037.70771@-122.40552@p@@0@@@@202011@@.jpg"
    assert format_name(552400.47, 4173551.91, 10, "S", **tail) == name
    assert "@035.65576@0139.69881@" in format_name(382216.21, 3946548.54, 54, "S", **tail)
    # South of the equator on its zone's central meridian, where the scale is 0.9996 exactly.
    arc = Geod(ellps="WGS84").inv(153, 0, 153, -3)[2]
    assert "@-03.00000@0153.00000@" in format_name(500_000, 1e7 - 0.9996 * arc, 56, "M", **tail)


def test_every_field_has_its_place():
    others = {key: key for key in ("tile", "pitch", "roll", "height", "note")}
    name = format_name(552400.47, 4173551.91, 10, "S", "p", 120, 202011, **others)
    fields = parse_name(f"a/b/{name}")
    assert fields == parse_name(NAME) | others and list(fields) == FIELDS
    for value, key in zip(LAYOUT.split("@")[7:-1], FIELDS[6:], strict=True):
        assert value == ("yyyymm" if key == "month" else key)
    for unknown in ({"nothing": "x"}, {"note": "a@b"}):
        with pytest.raises(VgeoError, match="the name is not"):
            format_name(552400.47, 4173551.91, 10, "S", "p", 120, 202011, **unknown)


def test_a_name_without_heading_and_month_with_jpg_within():
    name = "@0382216.21@3946548.54@54@S@035.65576@0139.69881@00441.jpg@@@@@@@@.jpg"
    fields = parse_name("some/folder/" + name)
    assert math.isnan(fields["heading"]) and fields["month"] == 0 and fields["pano"] == "00441.jpg"
    assert parse_name(name.replace("@54@S@035.65576@0139.69881", "@@@@"))["zone"] is None


@pytest.mark.parametrize(
    "written, heading", [("-90", 270), ("360", 0), ("359.999999", 0), ("0", 0), ("359.5", 359.5)]
)
def test_headings_lie_in_one_turn(written, heading):
    assert parse_name(NAME.replace("@120@", f"@{written}@"))["heading"] == heading


@pytest.mark.parametrize(
    "old, new, word",
    [
        ("@0552400.47", "", "the name is not @utm_east@"),
        ("@0552400.47@4173551.91", "@nan@4173551.91", "utm_east is 'nan'"),
        ("4173551.91", "inf", "utm_north is 'inf'"),
        ("0552400.47", "", "utm_east is ''"),
        ("0552400.47", "5552400.47", "out of range"),
        ("@10@", "@61@", "zone 61"),
        ("@10@", "@0@", "zone 0"),
        ("@10@", "@10.5@", "zone 10.5"),
        ("@S@", "@I@", "letter 'I'"),
        ("@120@", "@361@", "heading 361"),
        ("@120@", "@east@", "heading is 'east'"),
        ("202011", "202013", "month 202013"),
        ("202011", "20", "month 20"),
        ("202011", "202000", "month 202000"),
        ("202011", "170001", "month 170001"),
        ("202011", "2020-11", "month 2020-11"),
        ("@S@037", "@S@-037", "says -37"),
        ("@-122.40552@", "@122.40552@", "says 37.7077, 122.406"),
        ("@037.70771@-122.40552@", "@-122.40552@037.70771@", "says -122.406"),
        ("@10@S@", "@11@S@", "zone 11 north is lat 37.70"),
        ("@S@", "@T@", "not in the latitude band 'T'"),
        ("@10@S@037.70771@-122.40552@", "@10@F@037.70771@-122.40552@", "latitude band 'F'"),
        ("@10@S@037.70771@-122.40552@", "@10@T@@@", "the latitude band 'T'"),
    ],
)
def test_bad_names(refused, old, new, word):
    parse_name(NAME)
    refused(lambda: parse_name(NAME.replace(old, new)), NAME.replace(old, new), word)


SYDNEY = "@0333455.00@6253009.00@56@{}@-33.85008@0151.19982@p@@0@@@@201704@@.jpg"


@pytest.mark.parametrize("letter", ["H", "S", ""])
def test_the_letter_may_be_the_half_of_the_earth(refused, letter):
    """GIS programs write S for south, where UTM has the band S of 32 to 40 degrees north."""
    name = SYDNEY.format(letter)
    fields = parse_name(name)
    there = Transformer.from_crs("EPSG:32756", "EPSG:4326").transform(333455, 6253009)
    assert there == pytest.approx((fields["lat"], fields["lon"]), abs=1e-5)
    assert fields["letter"] == "H"  # -40 to -32 degrees
    refused(lambda: parse_name(SYDNEY.format("N")), "latitude band 'N'")
    # Without degrees nothing says whether S is the band or the south.
    bare = name.replace("-33.85008@0151.19982", "@")
    if letter == "S":
        refused(lambda: parse_name(bare), "is lat 56.3", "correct the letter")
    else:
        assert parse_name(bare)["letter"] == letter


def test_north_as_a_letter_is_the_band_of_the_metres():
    assert parse_name("@0390000.00@5820000.00@33@N@@@p@@@@@@@@.jpg")["letter"] == "U"
    assert parse_name("@0500000.00@0440000.00@33@N@@@p@@@@@@@@.jpg")["letter"] == "N"


@pytest.mark.parametrize(
    "name, expected",
    [
        (  # MSLS
            "@0347500.12@6172500.34@33@U@055.67594@0012.56553@a@@@@@@20180826@day_forward_cph@.jpg",
            {"zone": 33, "letter": "U", "month": 201808, "note": "day_forward_cph"},
        ),
        ("@0@00002.3@@@@@1@@@@@@@@.jpg", {"utm_east": 0.0, "utm_north": 2.3, "pano": "1"}),
        ("@0544050.17@4174706.96@.jpg", {"utm_east": 544050.17, "zone": None, "month": 0}),
        ("@0544050.17@4174706.96@img 12.jpeg", {"utm_north": 4174706.96, "lat": math.nan}),
        (NAME.replace("202011", "20201126_101500"), {"month": 202011}),
        (NAME.replace("202011", "2020"), {"month": 0}),
        (NAME.replace("202011", "0"), {"month": 0}),
        (NAME.replace("202011", "000000"), {"month": 0}),
        (NAME.replace("202011", "00000000_000000"), {"month": 0}),
        (NAME.replace(".jpg", ".HEIC"), {"month": 202011}),
    ],
)
def test_names_of_the_data_sets(name, expected):
    fields = parse_name(name)
    assert list(fields) == FIELDS
    assert {key: fields[key] for key in expected} == pytest.approx(expected, nan_ok=True)


@settings(deadline=None, max_examples=300)
@given(st.data(), st.sampled_from([".jpg", ".JPEG", ".txt", ""]))
def test_any_name_is_understood_or_refused(near_numbers, data, suffix):
    parts = data.draw(st.lists(near_numbers, min_size=12, max_size=15))
    name = "@" + "@".join(parts) + "@" + suffix
    try:
        fields = parse_name(name)
    except VgeoError as error:
        assert printable(name.rsplit("/", 1)[-1]) in str(error) and str(error).isprintable()
        return
    _check_fields(fields)


@settings(deadline=None, max_examples=100)
@given(places, st.one_of(st.just(""), st.floats(-180, 360).map(str)), months, st.sampled_from("SN"))
def test_what_is_understood_can_be_written_again(place, heading, month, letter):
    east, north, zone = place
    _check_fields(
        parse_name(f"@{east}@{north}@{zone}@{letter}@@@x@@{heading}@@@@{month or ''}@@.jpg")
    )


def _check_fields(fields):
    assert list(fields) == FIELDS
    assert 0 < fields["utm_east"] < 1e6 and 0 <= fields["utm_north"] <= 1e7
    zone, letter, month = (fields[key] for key in ("zone", "letter", "month"))
    assert zone is None or isinstance(zone, int) and 1 <= zone <= 60
    assert np.isnan(fields["heading"]) or 0 <= np.float32(fields["heading"]) < 360
    assert month == 0 or 1 <= month % 100 <= 12
    if zone and letter:
        place = fields["utm_east"], fields["utm_north"]
        again = parse_name(format_name(*place, zone, letter, "x", fields["heading"], month))
        assert (again["utm_east"], again["utm_north"]) == pytest.approx(place, abs=0.0051, rel=0)
        assert (again["zone"], again["letter"], again["month"]) == (zone, letter, month)
