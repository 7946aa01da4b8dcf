"""A photo's EXIF becomes a position, a heading and a month.

Source: CIPA DC-008 (Exif 3.0), section 4.6.6, GPS attribute information. What writers do beside it
is read where it has one meaning.
"""

import math
import re
from functools import cache
from typing import Any

from PIL import ExifTags
from pyproj import Transformer

from vgeo.errors import VgeoError
from vgeo.photos.images import open_image, unreadable_image
from vgeo.photos.names import LAYOUT, check_degrees, month_of, wrap_heading

GPS = ExifTags.GPS
ADVICE = f"list it in a CSV of file,lat,lon, or name it {LAYOUT}"


def read_exif(path: str) -> tuple[float, float, float, int]:
    """Where and when a photo was taken, by its EXIF.

    Returns
    -------
    lat, lon : degrees, WGS84. A position in the Tokyo datum is converted.
    heading : degrees clockwise from true north in [0, 360), NaN where unknown.
    month : yyyymm, 0 where unknown.

    Raises
    ------
    VgeoError : the file is no photo, or has no position, or one that contradicts itself.
    """
    try:
        with open_image(path) as image:
            exif = image.getexif()
            gps, camera = (exif.get_ifd(tag) for tag in (ExifTags.IFD.GPSInfo, ExifTags.IFD.Exif))
    except Exception as error:  # as in load_image
        raise unreadable_image(path, error) from error
    try:
        lat = _degrees(gps, GPS.GPSLatitude, GPS.GPSLatitudeRef, "NS")
        lon = _degrees(gps, GPS.GPSLongitude, GPS.GPSLongitudeRef, "EW")
    except ValueError as error:
        raise VgeoError(f"{path}: its EXIF has {error}: {ADVICE}") from error
    if lat == lon == 0:  # a camera writes 0, 0 before it knows better
        raise VgeoError(f"{path}: has no GPS position in its EXIF: {ADVICE}")
    check_degrees(lat, lon, path)
    if _text(gps.get(GPS.GPSMapDatum)).startswith("TOKYO"):
        lat, lon = _tokyo_datum().transform(lat, lon)
    return lat, lon, _heading(gps), _month(_text(camera.get(ExifTags.Base.DateTimeOriginal)))


def _degrees(gps: dict[int, Any], tag: int, side_tag: int, sides: str) -> float:
    """A coordinate in degrees, negative on the second of `sides`.

    Raises
    ------
    ValueError : says what is missing, odd or in contradiction.
    """
    if gps.get(tag) is None:
        raise ValueError("no GPS position")
    name = GPS(tag).name
    written = gps[tag] if isinstance(gps[tag], tuple | list) else (gps[tag],)  # degrees alone
    try:
        parts = [float(part) for part in written]
    except (TypeError, ValueError, ZeroDivisionError):
        raise ValueError(f"an odd {name} ({_shown(gps[tag])})") from None
    while len(parts) > 1 and math.isnan(parts[-1]):  # 0/0: minutes or seconds are not known
        parts.pop()
    degrees, *rest = parts
    finer = any(rest[i] % 1 and any(rest[i + 1 :]) for i in range(len(rest)))
    doubled = degrees % 1 and any(rest)  # a fraction that finer units repeat
    if not (len(parts) <= 3 and all(map(math.isfinite, parts))) or finer or doubled:
        raise ValueError(f"an odd {name} ({_shown(gps[tag])})")
    if not all(0 <= part <= 60 for part in rest):
        raise ValueError(f"an odd {name} ({_shown(gps[tag])})")
    value: float = abs(degrees) + sum(part / 60**power for power, part in enumerate(rest, 1))
    side = _text(gps.get(side_tag))[:1]  # "N", but "North" and the like are written too
    negative = math.copysign(1, degrees) < 0
    if side not in tuple(sides) and not negative:
        raise ValueError(f"no GPS position: its {name} has no {' or '.join(sides)}")
    if side == sides[0] and negative and value:
        raise ValueError(f"a {name} that contradicts itself: negative and {side}")
    return -value if negative or side == sides[1] else value


def _heading(gps: dict[int, Any]) -> float:
    """GPSImgDirection, NaN where it is missing, magnetic, blank or no direction."""
    try:
        heading = float(gps.get(GPS.GPSImgDirection, math.nan))
    except (TypeError, ValueError, ZeroDivisionError):
        return math.nan
    true = _text(gps.get(GPS.GPSImgDirectionRef))[:1] in ("", "T")
    return wrap_heading(heading, "") if true and -180 <= heading <= 360 else math.nan


def _month(taken: str) -> int:
    """The month yyyymm of a date; 0 for none, such as blanks or "0000:00:00 00:00:00"."""
    date = re.match(r"(\d{4})[:/.-](\d\d)(?!\d)", taken)
    return month_of(int(date[1]), int(date[2])) if date else 0


def _text(value: Any) -> str:
    """A tag's text in capitals, also where it was written as bytes."""
    if isinstance(value, bytes):
        value = value.decode("ascii", "replace")
    return "" if value is None else str(value).strip("\0 ").upper()


def _shown(value: Any) -> str:
    """A tag's value, short enough for a line."""
    return ", ".join(map(str, value))[:60] if isinstance(value, tuple | list) else str(value)[:60]


@cache
def _tokyo_datum() -> Transformer:
    return Transformer.from_crs("EPSG:4301", "EPSG:4326")
