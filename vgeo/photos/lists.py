"""A list of photos, a CSV as spreadsheets and other programs write it, becomes rows."""

import csv
import math
import os
import re
from collections.abc import Iterator
from typing import NamedTuple

from vgeo.errors import VgeoError, say
from vgeo.photos.images import one_line, why
from vgeo.photos.names import (
    AGREE,
    check_degrees,
    check_utm,
    month_of,
    number,
    utm_projection,
    wrap_heading,
)

# Each column's names, in small letters alone ("GPS Latitude" is gpslatitude). The first wins. Of
# files it is the first one that names a file: exiftool writes paths and bare names.
NAMES = {
    "file": ("file", "sourcefile", "filename", "path", "filepath", "image", "photo"),
    "lat": ("lat", "latitude", "gpslatitude"),
    "lon": ("lon", "lng", "long", "longitude", "gpslongitude"),
    "utm_east": ("utmeast", "easting"),
    "utm_north": ("utmnorth", "northing"),
    "lat_sign": ("gpslatituderef", "latituderef"),  # exiftool may write degrees without signs
    "lon_sign": ("gpslongituderef", "longituderef"),
    "zone": ("zone", "utmzone"),
    "heading": ("heading",),
    "month": ("month", "date"),
}
POSITIONS = ("lat", "lon", "utm_east", "utm_north")
ANSWERS = "bestmatch"  # a column of the answers of `vgeo locate`


class Unclear(VgeoError):
    """A position with several meanings. It refuses the list: other lines may hold more of them."""


class Entry(NamedTuple):
    """A photo of a list. x, y: latitude and longitude, or UTM east and north."""

    path: str
    x: float
    y: float
    heading: float
    month: int


def is_list(path: str) -> bool:
    """Whether a CSV lists photos with positions: by its first line.

    It names a column of files and a position. A table of another program's or the answers of
    `vgeo locate` do not. Neither does what can't be read.
    """
    header = _header_of(path)
    return "file" in header and not header.keys().isdisjoint(POSITIONS) and ANSWERS not in header


def is_answers(path: str) -> bool:
    """Whether a CSV holds answers of `vgeo locate`."""
    return ANSWERS in _header_of(path)


def _header_of(path: str) -> dict[str, int]:
    """`_header` of a CSV's first line, empty where it can't be read."""
    try:
        return _header(next(_lines(path, errors="replace"), (1, []))[1])
    except VgeoError:
        return {}


def read_list(path: str) -> tuple[list[Entry], bool, dict[str, str]]:
    """The photos of a list. The first line names the columns, see NAMES.

    Columns are parted by commas, semicolons or tabs. A decimal comma is read as a point, a
    backslash as a slash, a date as its month. Where a list has both degrees and metres, the metres
    count, in the zone that the degrees say. A heading or month that is not clear counts as unknown,
    and a line says how many there are.

    Returns
    -------
    entries : the photos that are there and have a position.
    metres : whether the positions are UTM metres, not degrees.
    skipped : {photo: why} of the others.

    Raises
    ------
    VgeoError : the columns are not understood, or a position has several meanings; names the line.
    """
    folder, lines = os.path.dirname(path), _lines(path)
    written = next(lines, (1, []))[1]
    header, plain = _header(written), list(map(_plain, written))
    for column, place in header.items():
        if plain.count(plain[place]) > 1:
            raise VgeoError(f"{path}: the column {column} is there twice: keep one")
    if ANSWERS in header:
        raise VgeoError(
            f"{path}: holds answers of vgeo locate, not known positions: give the photos' own list"
        )
    in_metres = {"utm_east", "utm_north"} <= header.keys()
    in_degrees = {"lat", "lon"} <= header.keys()
    if "file" not in header or not (in_metres or in_degrees):
        raise VgeoError(
            f"{path}: the first line is {','.join(written)!r}: it must name the columns "
            "file,lat,lon or file,utm_east,utm_north"
        )
    entries: list[Entry] = []
    skipped: dict[str, str] = {}
    seen: dict[str, int] = {}
    unclear: list[str] = []
    zones: list[str] = []
    width = 1 + max(header.values())
    files = [plain.index(name) for name in NAMES["file"] if name in plain]
    for line, values in lines:
        while len(values) > width and not values[-1].strip():  # empty columns at the end
            values.pop()
        unnamed = (value for value, column in zip(values, written) if not column.strip())
        odd = f"{len(values)} values for {len(written)} columns: correct the line"
        if len(values) > len(written) or any(map(str.strip, unnamed)):  # perhaps decimal commas
            raise VgeoError(f"{path} line {line}: {odd}")
        if len(values) < width:
            skipped[f"{path} line {line}"] = odd
            continue
        row = {column: values[place].strip() for column, place in header.items()}
        named = [values[place].strip() for place in files if place < len(values)]
        there = (name for name in named if name and os.path.isfile(_on_disk(folder, name)))
        row["file"] = next(there, row["file"])
        name = f"{path} line {line} ({row['file']})"
        image = _on_disk(folder, row["file"])
        earlier = seen.setdefault(os.path.normpath(image), line)
        try:
            if earlier != line:
                raise VgeoError(f"{name}: the file is also on line {earlier}: remove one")
            if not os.path.isfile(image):
                raise VgeoError(
                    f"{name}: there is no such file in the CSV's folder: correct the line or "
                    "remove it"
                )
            if in_metres:
                x = _number(row["utm_east"], "utm_east", name, metres=True)
                y = _number(row["utm_north"], "utm_north", name, metres=True)
                check_utm(x, y, None, name)
                zones.append(re.sub(r"\D", "", row.get("zone", "")))  # "10S" and "10T" are one
                if zones[-1] != zones[0] and not in_degrees:
                    raise Unclear(
                        f"{name}: is in UTM zone {zones[-1] or '?'}, lines before it are in zone "
                        f"{zones[0] or '?'}: their metres don't compare, write lat and lon as well"
                    )
            if in_degrees:
                lat = _signed(_number(row["lat"], "lat", name), row.get("lat_sign", ""), "NS", name)
                lon = _signed(_number(row["lon"], "lon", name), row.get("lon_sign", ""), "EW", name)
                check_degrees(lat, lon, name)
                x, y = _of_both(x, y, lat, lon, name) if in_metres else (lat, lon)
        except Unclear:
            raise
        except VgeoError as error:
            skipped[name] = why(error, name)
        else:
            heading, month = _heading(row.get("heading", "")), _month(row.get("month", ""))
            for column, value in (("heading", heading), ("month", month)):
                if value is None:
                    unclear.append(f"line {line} ({row['file']}), {column} {row[column]!r}")
            entries.append(Entry(image, x, y, math.nan if heading is None else heading, month or 0))
    if unclear:
        say(
            f"{path}: {len(unclear)} headings or months are not clear and count as unknown, the "
            f"first: {unclear[0]}: write degrees of 0 to 360 and yyyymm, such as 201704"
        )
    return entries, not in_degrees, skipped


def _lines(path: str, errors: str = "strict") -> Iterator[tuple[int, list[str]]]:
    """The number and the values of each line that is not blank; errors: as of `open`."""
    try:
        with open(path, newline="", encoding="utf-8-sig", errors=errors) as file:
            start = file.readline()
            named = re.fullmatch(r"sep=(.)\s*", start)  # Excel's own first line
            delimiter = named[1] if named else max(",;\t", key=start.count)
            if not named:
                file.seek(0)
            reader = csv.reader(file, delimiter=delimiter)
            for values in reader:
                if any(map(str.strip, values)):
                    yield reader.line_num + bool(named), values
    except (UnicodeDecodeError, csv.Error, OSError) as error:
        raise VgeoError(
            f"{path}: can't be read ({one_line(error)}): save it as UTF-8 text with commas"
        ) from error


def _plain(column: str) -> str:
    """A column's name as in NAMES."""
    return re.sub(r"[\W_]", "", column.lower())


def _header(written: list[str]) -> dict[str, int]:
    """The place of each column that is understood, and of ANSWERS."""
    plain = list(map(_plain, written))
    header = {ANSWERS: plain.index(ANSWERS)} if ANSWERS in plain else {}
    for column, names in NAMES.items():
        if column.startswith("utm") and {"lat", "lon"} <= header.keys():
            names = names[:1]  # an easting beside degrees may be of a national grid
        name = next((name for name in names if name in plain), "")
        if name:
            header[column] = plain.index(name)
    return header


def _on_disk(folder: str, file: str) -> str:
    """The path of a listed file. A backslash that parts folders on Windows becomes a slash."""
    path = os.path.join(folder, file)
    return path if os.path.exists(path) else os.path.join(folder, file.replace("\\", "/"))


def _number(text: str, column: str, name: str, metres: bool = False) -> float:
    """A number, also one with a decimal comma.

    "553,000" metres may be thousands; degrees are never so many.
    """
    if metres and re.fullmatch(r"[+-]?\d{1,3}(,\d{3})+", text):
        raise Unclear(
            f"{name}: {column} is {text!r}, whose comma may part thousands or decimals: write a "
            "point or nothing"
        )
    return number(re.sub(r"(?<=\d),(?=\d+$)", ".", text), column, name)


def _signed(degrees: float, reference: str, sides: str, name: str) -> float:
    """Degrees with the sign of a reference such as "S" or "South"; sides: "NS" or "EW".

    Raises
    ------
    VgeoError : the reference is of another kind, or contradicts the sign.
    """
    if not reference:
        return degrees
    side = reference[0].upper()
    if side not in sides or side == sides[0] and degrees < 0:
        raise VgeoError(f"{name}: {degrees:g} is not {reference!r}: correct the one that is wrong")
    return -abs(degrees) if side == sides[1] else degrees


def _of_both(east: float, north: float, lat: float, lon: float, name: str) -> tuple[float, float]:
    """Latitude and longitude of metres, in the UTM zone where these lie at other degrees.

    Raises
    ------
    VgeoError : there is no such zone: metres and degrees contradict each other.
    """
    for step in (0, -1, 1):  # a list near a zone's border may be in the next zone's metres
        zone = (int((lon + 180) // 6) + step) % 60 + 1
        x, y = utm_projection(zone, lat < 0)(east, north, inverse=True)
        if abs(y - lat) <= AGREE and abs((x - lon + 180) % 360 - 180) <= AGREE:
            return y, x
    raise VgeoError(
        f"{name}: UTM {east:.10g}, {north:.10g} is not at lat {lat:g}, lon {lon:g} in any zone: "
        "correct the one that is wrong or leave it out"
    )


def _heading(text: str) -> float | None:
    """The heading of a list, NaN where it is empty, None where it is not clear."""
    try:
        return wrap_heading(_number(text, "heading", ""), "") if text else math.nan
    except VgeoError:
        return None


def _month(text: str) -> int | None:
    """The month yyyymm of a month or a date, 0 where it is empty or zeros, None where not clear."""
    if not re.search(r"[^\W_0]", text):
        return 0
    forms = (
        r"(?P<y>\d{4})(?P<m>\d\d)(\d\d)?(\.0)?",
        r"(?P<y>\d{4})[-/.:](?P<m>\d\d?)([-/.:]\d\d?([ T].*)?)?",
        r"(?P<m>\d\d?)[-/.](?P<y>\d{4})",
        r"\d\d?\.(?P<m>\d\d?)\.(?P<y>\d{4})( .*)?",  # with points the day is first everywhere
    )
    for form in forms:
        if date := re.fullmatch(form, text):
            return month_of(int(date["y"]), int(date["m"])) or None
    if date := re.fullmatch(r"(\d\d?)([-/])(\d\d?)\2(\d{4})( .*)?", text):
        one, other = sorted((int(date[1]), int(date[3])))
        if one == other or other > 12:
            return month_of(int(date[4]), one) or None
    return None
