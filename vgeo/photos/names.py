"""File names that hold a photo's position, written and read, and the checks of each value.

The names are those of the SF-XL and Tokyo 24/7 data sets, see LAYOUT.
"""

import math
import os
from functools import cache
from typing import Any

from pyproj import Proj

from vgeo.errors import VgeoError
from vgeo.photos.images import SUFFIXES

LAYOUT = (
    "@utm_east@utm_north@zone@letter@lat@lon@pano@tile@heading@pitch@roll@height@yyyymm@note@.jpg"
)
FIELDS = LAYOUT.replace("yyyymm", "month").split("@")[1:-1]
BANDS = "CDEFGHJKLMNPQRSTUVWX"  # UTM's latitude bands, south to north; from N on the north


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
    check_utm(utm_east, utm_north, zone, letter, f"photo {pano}")
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

    Returns
    -------
    A dict with the keys FIELDS. utm_east, utm_north, lat, lon, heading: float (the last three NaN
    where empty, heading in [0, 360)). zone: int, None where empty. month: int yyyymm, 0 where
    empty. The others: str.

    Raises
    ------
    VgeoError : names the file and the field at fault.
    """
    stem, suffix = os.path.splitext(os.path.basename(name))
    parts = stem.split("@")
    if suffix.lower() not in SUFFIXES or len(parts) != len(FIELDS) + 2 or parts[0] or parts[-1]:
        raise VgeoError(
            f"{name}: the name is not {LAYOUT}: rename it, or list the photos in a CSV of "
            "file,lat,lon"
        )
    fields: dict[str, Any] = dict(zip(FIELDS, parts[1:-1], strict=True))
    empty = {"zone": None, "lat": math.nan, "lon": math.nan, "heading": math.nan, "month": 0}
    for key in ("utm_east", "utm_north", *empty):
        optional = key in empty and not fields[key]
        fields[key] = empty[key] if optional else number(fields[key], key, name)
    check_utm(fields["utm_east"], fields["utm_north"], fields["zone"], fields["letter"], name)
    fields["zone"] = fields["zone"] and int(fields["zone"])
    fields["heading"] = wrap_heading(fields["heading"], name)
    fields["month"] = whole_month(fields["month"], name)
    return fields


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


def check_utm(east: float, north: float, zone: float | None, letter: str, name: object) -> None:
    """Raises VgeoError where these are no UTM coordinates. zone: None, letter: "" where unknown."""
    if not (0 < east < 1_000_000 and 0 <= north <= 10_000_000):
        raise VgeoError(
            f"{name}: UTM {east}, {north} is out of range (metres, east to 1e6, north to 1e7): "
            "correct it"
        )
    if zone is not None and zone not in range(1, 61):
        raise VgeoError(f"{name}: UTM zone {zone:g} is not 1 to 60: correct it")
    if letter and (len(letter) != 1 or letter not in BANDS):
        raise VgeoError(f"{name}: UTM letter {letter!r} is not a latitude band {BANDS}: correct it")


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


def whole_month(month: float, name: object) -> int:
    """The month yyyymm as an int; 0, unknown, stays."""
    year, of_year = divmod(month, 100)
    if month and not (1800 <= year <= 2200 and of_year in range(1, 13)):
        raise VgeoError(
            f"{name}: month {month:g} is not yyyymm, such as 201704: correct it or leave it empty"
        )
    return int(month)


def zone_name(zone: int | None, south: bool) -> str:
    """A UTM zone in words: "10 north"."""
    return f"{zone} {'south' if south else 'north'}"
