"""File names that hold a photo's position, written and read, and the checks of each value.

The names are those that the VPR data sets downloader writes, see LAYOUT: SF-XL, Tokyo 24/7, MSLS,
Nordland and others. Other programs of the field read the first two fields alone.
"""

import math
import os
import re
from functools import cache
from typing import Any

from pyproj import Proj

from vgeo.errors import VgeoError

LAYOUT = (
    "@utm_east@utm_north@zone@letter@lat@lon@pano@tile@heading@pitch@roll@height@yyyymm@note@.jpg"
)
FIELDS = LAYOUT.replace("yyyymm", "month").split("@")[1:-1]
BANDS = "CDEFGHJKLMNPQRSTUVWX"  # UTM's latitude bands, south to north; from N on the north
AGREE = 0.01  # degrees: metres and degrees in one name that are farther apart contradict each other


@cache
def utm_projection(zone: int, south: bool = False) -> Proj:
    """The WGS84 projection of a UTM zone: (lon, lat) in degrees to (east, north) in metres.

    With `inverse=True` it goes back.
    """
    return Proj(proj="utm", zone=zone, south=south, ellps="WGS84")


def format_name(
    utm_east: float,
    utm_north: float,
    zone: int,
    letter: str,
    pano: str,
    heading: float | None,
    month: int,
    **others: str,
) -> str:
    """The `@...@` file name of a photo; its latitude and longitude are computed from UTM.

    Parameters
    ----------
    utm_east, utm_north : metres, written to the centimetre.
    zone, letter : 1 to 60 and the latitude band, C to X.
    heading : degrees, written to 0.01; NaN or None where unknown.
    month : yyyymm, 0 where unknown.
    others : tile, pitch, roll, height or note, text without @.

    Raises
    ------
    VgeoError : `parse_name` would refuse the name.
    """
    utm_east, utm_north, zone = round(float(utm_east), 2), round(float(utm_north), 2), int(zone)
    check_utm(utm_east, utm_north, zone, f"photo {pano}")
    lon, lat = utm_projection(zone, letter < "N")(utm_east, utm_north, inverse=True)
    degrees = math.nan if heading is None else round(float(heading), 2) % 360
    fields = dict.fromkeys(FIELDS, "") | {
        "utm_east": f"{utm_east:010.2f}",
        "utm_north": f"{utm_north:010.2f}",
        "zone": zone,
        "letter": letter,
        "lat": f"{lat:09.5f}",
        "lon": f"{lon:010.5f}",
        "pano": pano,
        "heading": "" if math.isnan(degrees) else f"{degrees:g}",
        "month": month or "",
    }
    name = "@" + "@".join(str(field) for field in (fields | others).values()) + "@.jpg"
    parse_name(name)
    return name


def parse_name(name: str | os.PathLike[str]) -> dict[str, Any]:
    """The fields of a `@...@` file name, or of a path that ends with one.

    A name may also be `@utm_east@utm_north@` and anything without an @.

    Returns
    -------
    A dict with the keys FIELDS. utm_east, utm_north, lat, lon, heading: float (the last three NaN
    where empty, heading in [0, 360)). zone: int, None where empty. letter: the latitude band, ""
    where empty. month: int yyyymm, 0 where unknown; a day and a time after it are left out. The
    others: str.

    Raises
    ------
    VgeoError : names the file and the field at fault, or the fields that contradict each other.
    """
    first, *parts = os.path.basename(name).split("@")
    end = parts.pop() if parts else ""
    short = len(parts) == 2  # metres alone
    if first or not (short or len(parts) == len(FIELDS) and re.fullmatch(r"(\.[^.]+)?", end)):
        raise VgeoError(
            f"{name}: the name is not {LAYOUT}: rename it, or list the photos in a CSV of "
            "file,lat,lon"
        )
    fields: dict[str, Any] = dict.fromkeys(FIELDS, "") | dict(zip(FIELDS, parts, strict=False))
    empty = {"zone": None, "lat": math.nan, "lon": math.nan, "heading": math.nan}
    for key in ("utm_east", "utm_north", *empty):
        optional = key in empty and not fields[key]
        fields[key] = empty[key] if optional else number(fields[key], key, name)
    check_utm(fields["utm_east"], fields["utm_north"], fields["zone"], name)
    fields["zone"] = fields["zone"] and int(fields["zone"])
    fields["letter"] = _band(fields, name)
    fields["heading"] = wrap_heading(fields["heading"], name)
    fields["month"] = _month_of_name(fields["month"], name)
    return fields


def _band(fields: dict[str, Any], name: object) -> str:
    """The latitude band of a name's fields, "" where nothing says it.

    The letter may be the band, or N or S for north or south, as GIS programs write it.

    Raises
    ------
    VgeoError : letter, metres and degrees contradict each other.
    """
    letter, lat = fields["letter"], fields["lat"]
    if letter and (len(letter) != 1 or letter not in BANDS):
        raise VgeoError(f"{name}: UTM letter {letter!r} is not a latitude band {BANDS}: correct it")
    if fields["zone"] is None or not letter and math.isnan(lat):
        return str(letter)
    south = lat < 0 if not math.isnan(lat) else letter < "N"
    metres = fields["utm_east"], fields["utm_north"]
    lon_there, lat_there = utm_projection(fields["zone"], south)(*metres, inverse=True)
    there = f"{metres[0]:g}, {metres[1]:g} in zone {zone_name(fields['zone'], south)}"
    there += f" is lat {lat_there:.5f}, lon {lon_there:.5f}"
    apart = abs(lat - lat_there), abs((fields["lon"] - lon_there + 180) % 360 - 180)
    if any(degrees > AGREE for degrees in apart):  # NaN, unknown, is not
        raise VgeoError(
            f"{name}: {there}, but the name says {lat:g}, {fields['lon']:g}: correct the one that "
            "is wrong"
        )
    bands = {latitude_band(lat_there + step) for step in (-AGREE, 0, AGREE)}
    if letter and letter not in bands and letter != ("S" if south else "N"):
        raise VgeoError(
            f"{name}: {there}, which is not in the latitude band {letter!r} of the name: correct "
            "the letter"
        )
    return letter if letter in bands else latitude_band(lat_there)


def latitude_band(lat: float) -> str:
    """The UTM latitude band of a latitude from -80 to 84 degrees; beyond, the outermost band."""
    return BANDS[int(min(max((lat + 80) // 8, 0), len(BANDS) - 1))]


def _month_of_name(text: str, name: object) -> int:
    """The month yyyymm of a name's YYYYMMDD_hhmmss, of which any part may be left off."""
    if not text.strip("0_ T"):  # empty, or zeros for unknown
        return 0
    date = re.fullmatch(r"(\d{4})(\d\d)?(\d\d)?([_ T]?\d{0,6})?", text)
    if date and not date[2]:
        return 0
    month = month_of(int(date[1]), int(date[2])) if date else 0
    if not month:
        raise VgeoError(
            f"{name}: month {text} is not yyyymm, such as 201704: correct it or leave it empty"
        )
    return month


# The checks of single values. `name` says in an error which photo the value belongs to.


def number(text: str, field: str, name: object) -> float:
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


def check_utm(east: float, north: float, zone: float | None, name: object) -> None:
    """Raises VgeoError where these are no UTM coordinates.

    Without a zone (None) the east may be 0: Nordland's names hold metres along a line.
    """
    if not (0 <= east < 1_000_000 and 0 <= north <= 10_000_000 and (east or zone is None)):
        raise VgeoError(
            f"{name}: UTM {east}, {north} is out of range (metres, east to 1e6, north to 1e7): "
            "correct it"
        )
    if zone is not None and zone not in range(1, 61):
        raise VgeoError(f"{name}: UTM zone {zone:g} is not 1 to 60: correct it")


def check_degrees(lat: float, lon: float, name: object) -> None:
    """Raises VgeoError where no UTM zone has this latitude and longitude."""
    if not (-80 <= lat <= 84 and -180 <= lon <= 180):
        raise VgeoError(
            f"{name}: lat {lat:g}, lon {lon:g} is out of range (-80 to 84, -180 to 180): swap or "
            "correct them"
        )


def wrap_heading(heading: float, name: object) -> float:
    """Degrees of -180 to 360 as degrees in [0, 360); NaN stays."""
    if not math.isnan(heading) and not -180 <= heading <= 360:
        raise VgeoError(
            f"{name}: heading {heading} is not in degrees, 0 to 360: correct it or leave it empty"
        )
    heading %= 360
    return 0.0 if heading > 359.99998 else heading  # float32 would round it up to 360


def month_of(year: int, month: int) -> int:
    """The month yyyymm; 0, unknown, where there is no such month or the year is not of a photo."""
    return 100 * year + month if 1800 <= year <= 2200 and 1 <= month <= 12 else 0


def zone_name(zone: int | None, south: bool) -> str:
    """A UTM zone in words: "10 north"."""
    return f"{zone} {'south' if south else 'north'}"
