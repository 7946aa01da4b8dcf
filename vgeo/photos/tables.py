"""Photos on disk become one table: positions, headings and months from names, a CSV or EXIF."""

import csv
import hashlib
import math
import os
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pandas as pd
from PIL import ExifTags, Image

from vgeo.errors import VgeoError
from vgeo.photos.images import SUFFIXES, image_paths, one_line, unreadable_image
from vgeo.photos.names import (
    LAYOUT,
    check_utm,
    number,
    parse_name,
    utm_projection,
    whole_month,
    wrap_heading,
    zone_name,
)


@dataclass(frozen=True, eq=False)
class Photos:
    """Photos with known positions, none of them decoded.

    Attributes
    ----------
    table : a row a photo, sorted by path. Columns: path (str), utm_east and utm_north (float64, metres), heading
        (float32, degrees clockwise from north in [0, 360), NaN where unknown), month (int32, yyyymm, 0 where unknown).
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
    def xy(self) -> np.ndarray:
        """float64 (N, 2): UTM east and north, metres."""
        return self.table[["utm_east", "utm_north"]].to_numpy(float)

    def take(self, rows) -> "Photos":
        """The photos of some rows, int (N,) or bool, in that order."""
        rows = np.asarray(rows)
        rows = np.flatnonzero(rows) if rows.dtype == bool else rows
        return replace(self, table=self.table.iloc[rows].reset_index(drop=True))

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the photos' names relative to `root`, sizes in bytes, positions and headings."""
        digest = hashlib.sha256()
        for name, path in zip(self.names, self.table["path"], strict=True):
            digest.update(f"{name} {os.path.getsize(path)}\n".encode())
        columns = self.table[["utm_east", "utm_north", "heading"]].to_numpy(float)
        digest.update(np.ascontiguousarray(columns).tobytes())
        return digest.hexdigest()


def read_photos(source, what="photos") -> Photos:
    """The table of images (see the module) of `source`; no pixel is decoded.

    source: a folder of images named `@...@` (at any depth), a folder of photos with a GPS position in their EXIF (at any
    depth, no name beginning with @), a folder that holds one CSV, or the path of a CSV. A CSV's header is `file,lat,lon`
    (degrees, WGS84) or `file,utm_east,utm_north` (metres, which win where both are there), with optional `heading` and
    `month`; files are relative to the CSV's folder. Latitudes and longitudes all go to the one UTM zone of their mean
    longitude. what: what the images are, for messages. Raises VgeoError naming the folder, the file or the line at fault.
    """
    source = os.fspath(source)
    if os.path.isfile(source):
        if not source.lower().endswith(".csv"):
            raise VgeoError(
                f"{source}: is a file, not {what}: give a folder of images or a .csv of file,lat,lon"
            )
        photos = read_csv(source)
    elif os.path.isdir(source):
        lists = sorted(
            name for name in os.listdir(source) if name.lower().endswith(".csv") and name[0] != "."
        )
        if len(lists) > 1:
            raise VgeoError(
                f"{source}: holds {len(lists)} CSV files ({lists[0]}, {lists[1]}): give the path of one"
            )
        if lists:
            photos = read_csv(os.path.join(source, lists[0]))
        else:
            paths = image_paths(source)
            named = not paths or any(os.path.basename(path).startswith("@") for path in paths)
            photos = (read_names if named else read_exif)(source, paths)
    else:
        raise VgeoError(
            f"{source}: there is no such folder of {what}: correct the path or put the images there"
        )
    if not len(photos):
        raise VgeoError(
            f"{source}: holds no {what}: put images ({' '.join(SUFFIXES)}) or rows of a CSV there"
        )
    types = {"utm_east": "f8", "utm_north": "f8", "heading": "f4", "month": "i4"}
    table = photos.table.astype(types).sort_values("path", ignore_index=True)
    return replace(photos, table=table)


def read_names(folder: str, paths: list[str]) -> Photos:
    """The images of `folder`, from their names."""
    rows = [parse_name(path) for path in paths]
    table = pd.DataFrame(rows, columns=["utm_east", "utm_north", "heading", "month"])
    table.insert(0, "path", pd.Series(paths, dtype="str"))
    zones = {}
    for path, row in zip(paths, rows):
        zones.setdefault((row["zone"], bool(row["letter"]) and row["letter"] < "N"), path)
    if len(zones) > 1:
        (first, one), (second, two) = list(zones.items())[:2]
        raise VgeoError(
            f"{two}: is in UTM zone {zone_name(*second)}, {one} in {zone_name(*first)}: "
            "their metres don't compare, keep to one zone in a folder"
        )
    zone, south = next(iter(zones), (None, False))
    return Photos(table, folder, zone, south)


def read_exif(folder: str, paths: list[str]) -> Photos:
    """The images of `folder`, from their EXIF."""
    with ThreadPoolExecutor() as pool:
        rows = list(pool.map(exif_place, paths))
    lost = [path for path, row in zip(paths, rows) if row is None]
    if lost:
        raise VgeoError(
            f"{lost[0]}: has no GPS position in its EXIF ({len(lost)} of {len(paths)} photos have none): remove what has none, list all "
            f"in a CSV of file,lat,lon, or name them {LAYOUT}"
        )
    table = pd.DataFrame(rows, columns=["utm_east", "utm_north", "heading", "month"])
    table.insert(0, "path", pd.Series(paths, dtype="str"))
    return to_one_zone(table, folder, folder)


def exif_place(path) -> tuple[float, float, float, int] | None:
    """Latitude and longitude (degrees), heading (degrees, NaN where unknown or to magnetic north) and month (yyyymm, 0 where unknown)
    from a photo's EXIF; None where it has no GPS position, or 0, 0, which a camera writes before it knows better."""
    try:
        with Image.open(path) as image:
            exif = image.getexif()
            gps, taken = (
                exif.get_ifd(ExifTags.IFD.GPSInfo),
                exif.get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.DateTimeOriginal),
            )
    except Exception as error:  # as in load_image
        raise unreadable_image(path, error) from error
    lat = exif_degrees(gps, ExifTags.GPS.GPSLatitude, ExifTags.GPS.GPSLatitudeRef, "NS")
    lon = exif_degrees(gps, ExifTags.GPS.GPSLongitude, ExifTags.GPS.GPSLongitudeRef, "EW")
    if lat is None or lon is None or lat == lon == 0:
        return None
    check_degrees(lat, lon, path)
    heading = math.nan
    if gps.get(ExifTags.GPS.GPSImgDirectionRef, "T") == "T":
        heading = float(gps.get(ExifTags.GPS.GPSImgDirection, math.nan))
    written = re.match(
        r"(\d{4}):(\d\d):", str(taken)
    )  # "0000:00:00 00:00:00" and blanks are common too
    year, month = map(int, written.groups()) if written else (0, 0)
    return (
        lat,
        lon,
        wrap_heading(heading, path),
        100 * year + month if 1800 <= year <= 2200 and 1 <= month <= 12 else 0,
    )


def exif_degrees(gps, tag, ref, signs):
    """Degrees, minutes and seconds of an EXIF tag as signed degrees, the second letter of `signs` being negative; None where incomplete."""
    parts, side = gps.get(tag), str(gps.get(ref, "")).strip("\0 ").upper()
    try:
        degrees = sum(float(part) / 60**power for power, part in enumerate(parts))
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    return (
        None
        if side not in tuple(signs) or not math.isfinite(degrees)
        else -degrees
        if side == signs[1]
        else degrees
    )


def check_degrees(lat, lon, where) -> None:
    if not (-80 <= lat <= 84 and -180 <= lon <= 180):
        raise VgeoError(
            f"{where}: lat {lat:g}, lon {lon:g} is out of range (to 84, to 180): swap or correct them"
        )


def to_one_zone(table: pd.DataFrame, root: str, source) -> Photos:
    """The table with its latitudes and longitudes, which lie in utm_east and utm_north, projected to the UTM zone of their mean longitude."""
    lat, lon = table["utm_east"].to_numpy(float), table["utm_north"].to_numpy(float)
    middle = np.degrees(
        np.angle(np.exp(1j * np.radians(lon)).mean())
    )  # a mean that holds across 180 degrees
    off = np.abs((lon - middle + 180) % 360 - 180)
    if off.max() > 6:
        far = table["path"].iloc[off.argmax()]
        raise VgeoError(
            f"{source}: lon {lon[off.argmax()]:g} of {far} is {off.max():.0f} degrees from the mean: correct it or split the list"
        )
    zone, south = int((middle + 180) // 6) % 60 + 1, bool(lat.mean() < 0)
    table["utm_east"], table["utm_north"] = utm_projection(zone, south)(lon, lat)
    return Photos(table, root, zone, south)


def read_csv(path: str) -> Photos:
    """The images that a CSV lists."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            lines = [(reader.line_num, line) for line in reader if any(map(str.strip, line))]
    except (UnicodeDecodeError, csv.Error, OSError) as error:
        raise VgeoError(
            f"{path}: can't be read ({one_line(error)}): save it as UTF-8 text with commas"
        ) from error
    header = [column.strip().lower() for column in lines[0][1]] if lines else []
    twice = [column for column in header if header.count(column) > 1]
    if twice:
        raise VgeoError(f"{path}: the column {twice[0]} is there twice: keep one")
    metres = {"utm_east", "utm_north"} <= set(header)
    first, second = ("utm_east", "utm_north") if metres else ("lat", "lon")
    if not {"file", first, second} <= set(header):
        raise VgeoError(
            f"{path}: the first line is {','.join(header)!r}: it must name the columns file,lat,lon or "
            "file,utm_east,utm_north"
        )

    folder = os.path.dirname(path)
    rows, seen = [], {}
    for line, values in lines[1:]:
        if len(values) != len(header):
            raise VgeoError(
                f"{path} line {line}: {len(values)} values for {len(header)} columns: correct the line"
            )
        row = dict(zip(header, map(str.strip, values)))
        where = f"{path} line {line} ({row['file']})"
        image = os.path.join(folder, row["file"])
        if not os.path.isfile(image):
            raise VgeoError(
                f"{where}: there is no such file in the CSV's folder: correct the line or remove it"
            )
        earlier = seen.setdefault(os.path.normpath(image), line)
        if earlier != line:
            raise VgeoError(f"{where}: the file is also on line {earlier}: remove one")
        x, y = number(row[first], first, where), number(row[second], second, where)
        if metres:
            check_utm(x, y, None, "", where)
        else:
            check_degrees(x, y, where)
        heading = number(row["heading"], "heading", where) if row.get("heading") else math.nan
        month = number(row["month"], "month", where) if row.get("month") else 0
        rows.append((image, x, y, wrap_heading(heading, where), whole_month(month, where)))

    table = pd.DataFrame(rows, columns=["path", "utm_east", "utm_north", "heading", "month"])
    return to_one_zone(table, folder, path) if rows and not metres else Photos(table, folder)
