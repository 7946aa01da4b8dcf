"""Photos on disk become one table: positions, headings and months from names, a CSV or EXIF."""

import csv
import hashlib
import math
import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import ExifTags, Image

from vgeo.errors import VgeoError
from vgeo.photos.images import (
    SUFFIXES,
    FilePath,
    image_paths,
    one_line,
    unlistable,
    unreadable_image,
)
from vgeo.photos.names import (
    LAYOUT,
    check_degrees,
    check_utm,
    number,
    parse_name,
    utm_projection,
    whole_month,
    wrap_heading,
    zone_name,
)

COLUMNS = {"path": "str", "utm_east": "f8", "utm_north": "f8", "heading": "f4", "month": "i4"}
Row = tuple[str, float, float, float, int]  # values of COLUMNS, or with lat, lon in place of UTM


@dataclass(frozen=True, eq=False)
class Photos:
    """Photos with known positions, none of them decoded.

    Attributes
    ----------
    table : a row for each photo, sorted by path when read. Columns: path (str), utm_east and
        utm_north (float64, metres), heading (float32, degrees clockwise from north in [0, 360), NaN
        where unknown), month (int32, yyyymm, 0 where unknown).
    root : the folder that file names are relative to.
    zone : the UTM zone, 1 to 60, None where unknown.
    south : whether the zone is of the southern hemisphere.
    """

    table: pd.DataFrame
    root: str
    zone: int | None = None
    south: bool = False

    def __len__(self) -> int:
        return len(self.table)

    @property
    def paths(self) -> list[str]:
        """The files, in the table's order."""
        return list(self.table["path"])

    @property
    def names(self) -> list[str]:
        """The files relative to `root`, in the table's order."""
        return [os.path.relpath(path, self.root or ".") for path in self.table["path"]]

    @property
    def xy(self) -> npt.NDArray[np.float64]:
        """float64 (N, 2): UTM east and north, metres."""
        return self.table[["utm_east", "utm_north"]].to_numpy(float)

    def take(self, rows: npt.ArrayLike) -> "Photos":
        """The photos of some rows, in that order: row numbers, int (M,), or a mask, bool (N,)."""
        rows = np.asarray(rows)
        rows = np.flatnonzero(rows) if rows.dtype == bool else rows
        return replace(self, table=self.table.iloc[rows].reset_index(drop=True))

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the photos' names, sizes in bytes, positions and headings."""
        digest = hashlib.sha256()
        for name, path in zip(self.names, self.table["path"], strict=True):
            digest.update(f"{name} {os.path.getsize(path)}\n".encode())
        columns = self.table[["utm_east", "utm_north", "heading"]].to_numpy(float)
        digest.update(np.ascontiguousarray(columns).tobytes())
        return digest.hexdigest()


def read_photos(source: FilePath, what: str = "photos") -> Photos:
    """The photos of a folder or a list; no pixel is decoded.

    Parameters
    ----------
    source : one of

        - a folder of images whose names hold their positions (`@...@`), at any depth;
        - a folder of photos whose EXIF holds a GPS position, none of whose names begins with @;
        - a folder that holds one CSV, or the path of a CSV. Its first line is `file,lat,lon`
          (degrees, WGS84) or `file,utm_east,utm_north` (metres, which win where both are there),
          with `heading` and `month` where they are known. Files are relative to the CSV's folder.

        Latitudes and longitudes go to one UTM zone, that of their mean longitude.
    what : what the photos are, for messages.

    Raises
    ------
    VgeoError : names the folder, the file or the line at fault.
    """
    source = os.fspath(source)
    if os.path.isdir(source):
        photos = _from_folder(source)
    elif not os.path.isfile(source):
        raise VgeoError(
            f"{source}: there is no such folder of {what}: correct the path or put the images there"
        )
    elif source.lower().endswith(".csv"):
        photos = _from_csv(source)
    else:
        raise VgeoError(
            f"{source}: is a file, not {what}: give a folder of images or a .csv of file,lat,lon"
        )
    if not len(photos):
        raise VgeoError(
            f"{source}: holds no {what}: put images ({' '.join(SUFFIXES)}) or rows of a CSV there"
        )
    return photos


def _from_folder(folder: str) -> Photos:
    try:
        names = os.listdir(folder)
    except OSError as error:
        raise unlistable(error) from error
    lists = sorted(name for name in names if name.lower().endswith(".csv") and name[0] != ".")
    if len(lists) > 1:
        raise VgeoError(
            f"{folder}: holds {len(lists)} CSV files ({lists[0]}, {lists[1]}): give the path of one"
        )
    if lists:
        return _from_csv(os.path.join(folder, lists[0]))
    paths = image_paths(folder)
    named = not paths or any(os.path.basename(path).startswith("@") for path in paths)
    return _from_names(folder, paths) if named else _from_exif(folder, paths)


def _table(rows: list[Row]) -> pd.DataFrame:
    table = pd.DataFrame(rows, columns=list(COLUMNS)).astype(COLUMNS)
    return table.sort_values("path", ignore_index=True)


def _in_one_zone(rows: list[Row], root: str, source: str) -> Photos:
    """The Photos of rows with lat, lon, projected to the UTM zone of their mean longitude."""
    lat, lon = np.array([row[1:3] for row in rows]).T
    mean = np.degrees(np.angle(np.exp(1j * np.radians(lon)).mean()))  # holds across 180 degrees
    off = np.abs((lon - mean + 180) % 360 - 180)
    if off.max() > 6:
        far = off.argmax()
        raise VgeoError(
            f"{source}: lon {lon[far]:g} of {rows[far][0]} is {off[far]:.0f} degrees from the "
            "mean: correct it or split the list"
        )
    zone, south = int((mean + 180) // 6) % 60 + 1, bool(lat.mean() < 0)
    east, north = utm_projection(zone, south)(lon, lat)
    projected = [(row[0], e, n, *row[3:]) for row, e, n in zip(rows, east, north, strict=True)]
    return Photos(_table(projected), root, zone, south)


# Positions in names


def _from_names(folder: str, paths: list[str]) -> Photos:
    rows: list[Row] = []
    zones: dict[tuple[int | None, bool], str] = {}
    for path in paths:
        fields = parse_name(path)
        rows.append((path, *(fields[key] for key in list(COLUMNS)[1:])))
        south = bool(fields["letter"]) and fields["letter"] < "N"
        zones.setdefault((fields["zone"], south), path)
    if len(zones) > 1:
        (first, path), (second, other) = list(zones.items())[:2]
        raise VgeoError(
            f"{other}: is in UTM zone {zone_name(*second)}, {path} in {zone_name(*first)}: "
            "their metres don't compare, keep to one zone in a folder"
        )
    return Photos(_table(rows), folder, *next(iter(zones), (None, False)))


# Positions in EXIF


def _from_exif(folder: str, paths: list[str]) -> Photos:
    with ThreadPoolExecutor() as pool:
        rows = list(pool.map(_exif_row, paths))
    lost = [path for path, row in zip(paths, rows, strict=True) if row is None]
    if lost:
        raise VgeoError(
            f"{lost[0]}: has no GPS position in its EXIF ({len(lost)} of {len(paths)} photos have "
            f"none): remove what has none, list all in a CSV of file,lat,lon, or name them {LAYOUT}"
        )
    return _in_one_zone([row for row in rows if row], folder, folder)


def _exif_row(path: str) -> Row | None:
    """A photo's path, latitude, longitude, heading (to true north) and month from its EXIF.

    None where it has no GPS position, or 0, 0, which a camera writes before it knows better.
    """
    try:
        with Image.open(path) as image:
            exif = image.getexif()
            gps, camera = (exif.get_ifd(tag) for tag in (ExifTags.IFD.GPSInfo, ExifTags.IFD.Exif))
    except Exception as error:  # as in load_image
        raise unreadable_image(path, error) from error
    lat = _exif_degrees(gps, ExifTags.GPS.GPSLatitude, ExifTags.GPS.GPSLatitudeRef, "NS")
    lon = _exif_degrees(gps, ExifTags.GPS.GPSLongitude, ExifTags.GPS.GPSLongitudeRef, "EW")
    if lat is None or lon is None or lat == lon == 0:
        return None
    check_degrees(lat, lon, path)
    heading = math.nan
    if gps.get(ExifTags.GPS.GPSImgDirectionRef, "T") == "T":
        heading = float(gps.get(ExifTags.GPS.GPSImgDirection, math.nan))
    # "0000:00:00 00:00:00" and blanks are common too.
    taken = re.match(r"(\d{4}):(\d\d):", str(camera.get(ExifTags.Base.DateTimeOriginal)))
    year, month = map(int, taken.groups()) if taken else (0, 0)
    known = 1800 <= year <= 2200 and 1 <= month <= 12
    return path, lat, lon, wrap_heading(heading, path), 100 * year + month if known else 0


def _exif_degrees(gps: dict[int, Any], tag: int, side_tag: int, sides: str) -> float | None:
    """An EXIF tag's degrees, minutes and seconds as degrees, negative on the second of `sides`.

    None where the tag or its side is missing or makes no sense.
    """
    side = str(gps.get(side_tag, "")).strip("\0 ").upper()
    try:
        degrees: float = sum(float(part) / 60**power for power, part in enumerate(gps[tag]))
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None
    if side not in tuple(sides) or not math.isfinite(degrees):
        return None
    return -degrees if side == sides[1] else degrees


# Positions in a CSV


def _from_csv(path: str) -> Photos:
    folder = os.path.dirname(path)
    lines = _csv_lines(path)
    header = [column.strip().lower() for column in next(lines, (1, []))[1]]
    twice = [column for column in header if header.count(column) > 1]
    if twice:
        raise VgeoError(f"{path}: the column {twice[0]} is there twice: keep one")
    metres = {"utm_east", "utm_north"} <= set(header)
    first, second = ("utm_east", "utm_north") if metres else ("lat", "lon")
    if not {"file", first, second} <= set(header):
        raise VgeoError(
            f"{path}: the first line is {','.join(header)!r}: it must name the columns "
            "file,lat,lon or file,utm_east,utm_north"
        )

    rows: list[Row] = []
    seen: dict[str, int] = {}
    for line, values in lines:
        if len(values) != len(header):
            raise VgeoError(
                f"{path} line {line}: {len(values)} values for {len(header)} columns: correct the "
                "line"
            )
        row = dict(zip(header, map(str.strip, values), strict=True))
        name = f"{path} line {line} ({row['file']})"
        image = os.path.join(folder, row["file"])
        if not os.path.isfile(image):
            raise VgeoError(
                f"{name}: there is no such file in the CSV's folder: correct the line or remove it"
            )
        earlier = seen.setdefault(os.path.normpath(image), line)
        if earlier != line:
            raise VgeoError(f"{name}: the file is also on line {earlier}: remove one")
        x, y = number(row[first], first, name), number(row[second], second, name)
        if metres:
            check_utm(x, y, None, "", name)
        else:
            check_degrees(x, y, name)
        heading = number(row["heading"], "heading", name) if row.get("heading") else math.nan
        month = number(row["month"], "month", name) if row.get("month") else 0
        rows.append((image, x, y, wrap_heading(heading, name), whole_month(month, name)))
    return _in_one_zone(rows, folder, path) if rows and not metres else Photos(_table(rows), folder)


def _csv_lines(path: str) -> Iterator[tuple[int, list[str]]]:
    """The number and the values of each line that is not blank."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            for values in reader:
                if any(map(str.strip, values)):
                    yield reader.line_num, values
    except (UnicodeDecodeError, csv.Error, OSError) as error:
        raise VgeoError(
            f"{path}: can't be read ({one_line(error)}): save it as UTF-8 text with commas"
        ) from error
