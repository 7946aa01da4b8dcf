"""Photos on disk become one table: positions, headings and months from names, a CSV or EXIF."""

import hashlib
import os
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from vgeo.errors import VgeoError
from vgeo.photos.exif import read_exif
from vgeo.photos.folders import SUFFIXES, photo_files, refuse, unlistable
from vgeo.photos.images import FilePath, why
from vgeo.photos.lists import is_list, read_list
from vgeo.photos.names import check_degrees, parse_name, utm_projection, zone_name

COLUMNS = {"path": "object", "utm_east": "f8", "utm_north": "f8", "heading": "f4", "month": "i4"}
Row = tuple[str, float, float, float, int]  # values of COLUMNS, or with lat, lon in place of UTM
Zone = tuple[int | None, bool | None]  # and whether it is of the southern hemisphere


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
    skipped : {file or line of a list: why} of the photos that were left out when read.
    """

    table: pd.DataFrame
    root: str
    zone: int | None = None
    south: bool = False
    skipped: dict[str, str] = field(default_factory=dict)

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

    def in_zone(self, zone: int, south: bool) -> "Photos":
        """The same photos with their metres in another UTM zone; theirs has to be known."""
        easts, norths = self.xy.T
        lon, lat = utm_projection(self.zone or 0, self.south)(easts, norths, inverse=True)
        east, north = utm_projection(zone, south)(lon, lat)
        table = self.table.assign(utm_east=east, utm_north=north)
        return replace(self, table=table, zone=zone, south=south)

    def within(self, lat: float, lon: float, radius: float) -> "Photos":
        """The photos at most `radius` metres from a place in degrees.

        Raises
        ------
        VgeoError : there is none, the UTM zone is unknown, or the place is none.
        """
        place = f"near {lat:.9g},{lon:.9g}"
        check_degrees(lat, lon, place)
        if self.zone is None:
            raise VgeoError(
                f"{place}: the photos of {self.root} have metres without a UTM zone: leave it out, "
                "or give the photos degrees"
            )
        xy = np.array(utm_projection(self.zone, self.south)(lon, lat))
        metres = np.linalg.norm(self.xy - xy, axis=1)
        if not (metres <= radius).any():
            raise VgeoError(
                f"{place}: none of {len(self)} photos is within {radius:g} m, the nearest is "
                f"{metres.min():.0f} m away: correct the place or raise the radius"
            )
        return self.take(metres <= radius)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the photos' names, sizes in bytes, positions and headings."""
        digest = hashlib.sha256()
        for name, path in zip(self.names, self.table["path"], strict=True):
            digest.update(f"{name} {os.path.getsize(path)}\n".encode())
        columns = self.table[["utm_east", "utm_north", "heading"]].to_numpy(float)
        digest.update(np.ascontiguousarray(columns).tobytes())
        return digest.hexdigest()


def read_photos(source: FilePath, what: str = "photos", strict: bool = True) -> Photos:
    """The photos of a folder or a list; no pixel is decoded.

    Parameters
    ----------
    source : one of

        - a folder of images at any depth, most of whose names hold positions (`@...@`);
        - a folder of other photos, whose EXIF holds a GPS position;
        - a folder that holds one list, or the path of a list: a CSV whose first line names
          `file,lat,lon` (degrees, WGS84) or `file,utm_east,utm_north` (metres, which win where both
          are there), with `heading` and `month` where they are known. Files are relative to the
          CSV's folder. See `vgeo.photos.lists`.

        Latitudes and longitudes go to one UTM zone, that of their mean longitude. So do names of
        several zones, where those of all zones but the one with most names hold degrees.
    what : what the photos are, for messages.
    strict : whether a photo that can't be used is refused. It is skipped otherwise: where it has no
        position, one that contradicts itself, or one that is far from most others' or can't be
        compared with theirs.

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
        photos = _from_list(source)
    else:
        raise VgeoError(
            f"{source}: is a file, not {what}: give a folder of images or a .csv of file,lat,lon"
        )
    if strict or not len(photos):
        refuse(photos.skipped, len(photos) + len(photos.skipped))
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
    tables = sorted(name for name in names if name.lower().endswith(".csv") and name[0] != ".")
    lists = [name for name in tables if is_list(os.path.join(folder, name))]
    if len(lists) > 1:
        raise VgeoError(
            f"{folder}: holds {len(lists)} CSV files ({lists[0]}, {lists[1]}): give the path of one"
        )
    if lists:
        return _from_list(os.path.join(folder, lists[0]))
    paths, left_out = photo_files(folder)
    bases = map(os.path.basename, paths)
    count = sum(name.startswith("@") and name.count("@") > 2 for name in bases)
    photos = (_from_names if 2 * count > len(paths) else _from_exif)(folder, paths)
    skipped = left_out | photos.skipped
    if tables and not len(photos):  # perhaps one of them is meant as the list
        try:
            return _from_list(os.path.join(folder, tables[0]))
        except VgeoError as error:
            for path, reason in skipped.items():
                raise VgeoError(f"{error}; and {path}: {reason}") from error
            raise
    return replace(photos, skipped=skipped)


def _each(
    read: Callable[[str], Any], paths: list[str], threads: int
) -> tuple[list[tuple[str, Any]], dict[str, str]]:
    """[(path, what `read` says of it)], and {path: why} for those where it raises a VgeoError."""

    def tried(path: str) -> Any:
        try:
            return read(path)
        except VgeoError as error:
            return error

    with ThreadPoolExecutor(threads) as pool:
        found = list(zip(paths, pool.map(tried, paths) if threads > 1 else map(tried, paths)))
    good = [pair for pair in found if not isinstance(pair[1], VgeoError)]
    return good, {path: why(e, path) for path, e in found if isinstance(e, VgeoError)}


def _table(rows: list[Row]) -> pd.DataFrame:
    table = pd.DataFrame(rows, columns=list(COLUMNS)).astype(COLUMNS)
    return table.sort_values("path", ignore_index=True)


def _in_one_zone(rows: list[Row], root: str) -> Photos:
    """The Photos of rows with lat, lon, projected to the UTM zone of their mean longitude.

    Where a row is more than 6 degrees of longitude from it, the mean is that of the zone with most
    rows, and all rows that are more than 6 degrees from that are skipped.
    """
    if not rows:
        return Photos(_table([]), root)
    lat, lon = np.array([row[1:3] for row in rows]).T
    mean = _around(lon)
    if _apart(lon, mean).max() > 6:
        zones = (lon + 180) // 6
        mean = _around(lon[zones == Counter(zones.tolist()).most_common(1)[0][0]])
    off = _apart(lon, mean)
    near = off <= 6
    skipped = {
        row[0]: f"lon {x:g} is {far:.0f} degrees from most photos: correct it or keep photos of "
        "another place by themselves"
        for row, x, far in zip(rows, lon, off, strict=True)
        if far > 6
    }
    zone, south = int((mean + 180) // 6) % 60 + 1, bool(lat[near].mean() < 0)
    east, north = utm_projection(zone, south)(lon, lat)
    projected = [(row[0], e, n, *row[3:]) for row, e, n in zip(rows, east, north, strict=True)]
    kept = [row for row, here in zip(projected, near, strict=True) if here]
    return Photos(_table(kept), root, zone, south, skipped)


def _around(lon: npt.NDArray[np.float64]) -> float:
    """The mean of longitudes in degrees, also across 180 degrees."""
    return float(np.degrees(np.angle(np.exp(1j * np.radians(lon)).mean())))


def _apart(lon: npt.NDArray[np.float64], mean: float) -> npt.NDArray[np.float64]:
    """Degrees, 0 to 180, between longitudes and their mean."""
    return np.abs((lon - mean + 180) % 360 - 180)


def _from_names(folder: str, paths: list[str]) -> Photos:
    found, skipped = _each(parse_name, paths, threads=1)
    zones: dict[Zone, list[tuple[str, dict[str, Any]]]] = {}
    for path, fields in found:
        known = fields["zone"] and fields["letter"]  # without a letter it may be north or south
        south = fields["letter"] < "N" if known else None
        zones.setdefault((fields["zone"], south), []).append((path, fields))
    if not zones:
        return Photos(_table([]), folder, skipped=skipped)
    most = max(zones, key=lambda zone: len(zones[zone]))
    rows: dict[Zone, list[Row]] = {}
    for zone, members in zones.items():
        for path, fields in members:
            placed = None not in most + zone and np.isfinite(fields["lat"] + fields["lon"])
            if placed or zone == most:
                row = (path, *(fields[key] for key in list(COLUMNS)[1:]))
                rows.setdefault(zone, []).append(row)
            else:
                skipped[path] = (
                    f"is in {_in_words(zone)}, most photos are in {_in_words(most)}: their metres "
                    "don't compare, keep to one zone in a folder or write zone, letter, lat and "
                    "lon into each name"
                )
    if len(rows) == 1:
        number, south = most
        known = None if south is None else number
        return Photos(_table(rows[most]), folder, known, bool(south), skipped)
    in_degrees: list[Row] = []
    for (number, south), some in rows.items():
        easts, norths = np.array([row[1:3] for row in some]).T
        lon, lat = utm_projection(number or 0, bool(south))(easts, norths, inverse=True)
        in_degrees += [(row[0], y, x, *row[3:]) for row, y, x in zip(some, lat, lon, strict=True)]
    photos = _in_one_zone(in_degrees, folder)
    return replace(photos, skipped=skipped | photos.skipped)


def _in_words(zone: Zone) -> str:
    number, south = zone
    return "an unknown UTM zone" if south is None else f"UTM zone {zone_name(number, south)}"


def _from_exif(folder: str, paths: list[str]) -> Photos:
    found, skipped = _each(read_exif, paths, threads=os.cpu_count() or 1)
    photos = _in_one_zone([(path, *row) for path, row in found], folder)
    return replace(photos, skipped=skipped | photos.skipped)


def _from_list(path: str) -> Photos:
    entries, metres, skipped = read_list(path)
    folder = os.path.dirname(path)
    if metres:
        return Photos(_table(list(entries)), folder, skipped=skipped)
    photos = _in_one_zone(list(entries), folder)
    return replace(photos, skipped=skipped | photos.skipped)
