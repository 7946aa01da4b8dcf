"""TODO: photos.names."""

import math
import os
from functools import cache

from pyproj import Proj

from vgeo.errors import VgeoError
from vgeo.photos.images import SUFFIXES

FIELDS = (
    "utm_east utm_north zone letter lat lon pano tile heading pitch roll height month note"
).split()


LAYOUT = (
    "@utm_east@utm_north@zone@letter@lat@lon@pano@tile@heading@pitch@roll@height@yyyymm@note@.jpg"
)


BANDS = "CDEFGHJKLMNPQRSTUVWX"  # latitude bands of UTM, south to north; the northern hemisphere starts at N


@cache
def utm_projection(zone: int, south: bool = False) -> Proj:
    """The WGS84 projection of one UTM zone: (lon, lat) in degrees to (east, north) in metres, `inverse=True` back."""
    return Proj(proj="utm", zone=zone, south=south, ellps="WGS84")


def format_name(
    utm_east,
    utm_north,
    zone,
    letter,
    pano,
    heading,
    month,
    tile="",
    pitch="",
    roll="",
    height="",
    note="",
) -> str:
    """The sf-xs file name of one photo, with latitude and longitude computed from UTM.

    utm_east, utm_north: metres (written to the centimetre); zone: 1 to 60; letter: the latitude band, C to X;
    heading: degrees (written to 0.01), NaN or None where unknown; month: yyyymm, 0 where unknown; the rest is text
    without @. Raises VgeoError where `parse_name` would refuse the name.
    """
    utm_east, utm_north, zone = round(float(utm_east), 2), round(float(utm_north), 2), int(zone)
    check_utm(utm_east, utm_north, zone, letter, f"photo {pano}")
    lon, lat = utm_projection(zone, letter < "N")(utm_east, utm_north, inverse=True)
    unknown = heading is None or math.isnan(heading)
    degrees = "" if unknown else f"{round(float(heading), 2) % 360:g}"
    text = [pano, tile, degrees, pitch, roll, height, month or "", note]
    place = [
        f"{utm_east:010.2f}",
        f"{utm_north:010.2f}",
        zone,
        letter,
        f"{lat:09.5f}",
        f"{lon:010.5f}",
    ]
    name = "@" + "@".join(str(field) for field in place + text) + "@.jpg"
    parse_name(name)
    return name


def parse_name(name) -> dict:
    """The fields of one `@...@` file name (a path is cut to its last part), as a dict with the keys of `FIELDS`.

    utm_east, utm_north, lat, lon, heading: floats (the last three NaN where empty, heading in [0, 360)); zone: int,
    None where empty; month: int yyyymm, 0 where empty; the others as they are written. Raises VgeoError naming file
    and field.
    """
    stem, suffix = os.path.splitext(os.path.basename(name))
    parts = stem.split("@")
    if suffix.lower() not in SUFFIXES or len(parts) != len(FIELDS) + 2 or parts[0] or parts[-1]:
        raise VgeoError(
            f"{name}: the name is not {LAYOUT}: rename it, or list the photos in a CSV of file,lat,lon"
        )
    fields = dict(zip(FIELDS, parts[1:-1]))
    for key in ("utm_east", "utm_north"):
        fields[key] = number(fields[key], key, name)
    for key in ("lat", "lon", "heading"):
        fields[key] = number(fields[key], key, name) if fields[key] else math.nan
    zone, month = fields["zone"], fields["month"]
    fields["zone"] = whole_zone(number(zone, "zone", name), name) if zone else None
    check_utm(fields["utm_east"], fields["utm_north"], fields["zone"], fields["letter"], name)
    fields["heading"] = wrap_heading(fields["heading"], name)
    fields["month"] = whole_month(number(month, "month", name) if month else 0, name)
    return fields


def number(text, field, name) -> float:
    """`text` as a finite number."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise VgeoError(
            f"{name}: {field} is {text!r}, not a number: correct it or remove the photo"
        )
    return value


def zone_name(zone, south) -> str:
    return f"{zone} {'south' if south else 'north'}"


def whole_zone(zone, name) -> int:
    if zone != int(zone):
        raise VgeoError(f"{name}: UTM zone {zone:g} is not 1 to 60: correct it")
    return int(zone)


def check_utm(east, north, zone, letter, name) -> None:
    if not (0 < east < 1_000_000 and 0 <= north <= 10_000_000):
        raise VgeoError(
            f"{name}: UTM {east}, {north} is out of range (metres, east to 1e6, north to 1e7): correct it"
        )
    if zone is not None and not 1 <= zone <= 60:
        raise VgeoError(f"{name}: UTM zone {zone} is not 1 to 60: correct it")
    if letter and (len(letter) != 1 or letter not in BANDS):
        raise VgeoError(f"{name}: UTM letter {letter!r} is not a latitude band {BANDS}: correct it")


def wrap_heading(heading, name) -> float:
    """Degrees in [0, 360), -180 to 0 taken as 180 to 360; NaN stays."""
    if not math.isnan(heading) and not -180 <= heading <= 360:
        raise VgeoError(
            f"{name}: heading {heading} is not in degrees, 0 to 360: correct it or leave it empty"
        )
    heading %= 360
    return 0.0 if heading > 359.99998 else heading  # what float32 would round up to 360


def whole_month(month, name) -> int:
    if month != 0 and not (
        month == int(month) and 1800 <= month // 100 <= 2200 and 1 <= month % 100 <= 12
    ):
        raise VgeoError(
            f"{name}: month {month:g} is not yyyymm, such as 201704: correct it or leave it empty"
        )
    return int(month)
