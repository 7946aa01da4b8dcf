"""Data sets: photos in folders become one table of images, classes to train on, and queries with their positives.

A table has a row per image, sorted by path: path (str), utm_east and utm_north (float64, metres), heading (float32,
degrees clockwise from north in [0, 360), NaN where unknown) and month (int, yyyymm, 0 where unknown). Its attrs hold
root (the folder that file names are relative to), zone (UTM zone, None where unknown) and south (is it the southern
half?).
"""

import csv
import hashlib
import math
import os
import re
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache

import numpy as np
import pandas as pd
import torch
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from pyproj import Proj
from scipy.spatial import cKDTree

from vgeo.errors import VgeoError, result
from vgeo.parallel import WHOLE

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
FIELDS = ("utm_east utm_north zone letter lat lon pano tile heading pitch roll height month note").split()
LAYOUT = "@utm_east@utm_north@zone@letter@lat@lon@pano@tile@heading@pitch@roll@height@yyyymm@note@.jpg"
BANDS = "CDEFGHJKLMNPQRSTUVWX"  # latitude bands of UTM, south to north; the northern hemisphere starts at N


@cache
def utm_projection(zone: int, south: bool = False) -> Proj:
    """The WGS84 projection of one UTM zone: (lon, lat) in degrees to (east, north) in metres, `inverse=True` back."""
    return Proj(proj="utm", zone=zone, south=south, ellps="WGS84")


def format_name(
    utm_east, utm_north, zone, letter, pano, heading, month, tile="", pitch="", roll="", height="", note=""
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
    place = [f"{utm_east:010.2f}", f"{utm_north:010.2f}", zone, letter, f"{lat:09.5f}", f"{lon:010.5f}"]
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
        raise VgeoError(f"{name}: the name is not {LAYOUT}: rename it, or list the photos in a CSV of file,lat,lon")
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
        raise VgeoError(f"{name}: {field} is {text!r}, not a number: correct it or remove the photo")
    return value


def zone_name(zone, south) -> str:
    return f"{zone} {'south' if south else 'north'}"


def whole_zone(zone, name) -> int:
    if zone != int(zone):
        raise VgeoError(f"{name}: UTM zone {zone:g} is not 1 to 60: correct it")
    return int(zone)


def check_utm(east, north, zone, letter, name) -> None:
    if not (0 < east < 1_000_000 and 0 <= north <= 10_000_000):
        raise VgeoError(f"{name}: UTM {east}, {north} is out of range (metres, east to 1e6, north to 1e7): correct it")
    if zone is not None and not 1 <= zone <= 60:
        raise VgeoError(f"{name}: UTM zone {zone} is not 1 to 60: correct it")
    if letter and (len(letter) != 1 or letter not in BANDS):
        raise VgeoError(f"{name}: UTM letter {letter!r} is not a latitude band {BANDS}: correct it")


def wrap_heading(heading, name) -> float:
    """Degrees in [0, 360), -180 to 0 taken as 180 to 360; NaN stays."""
    if not math.isnan(heading) and not -180 <= heading <= 360:
        raise VgeoError(f"{name}: heading {heading} is not in degrees, 0 to 360: correct it or leave it empty")
    heading %= 360
    return 0.0 if heading > 359.99998 else heading  # what float32 would round up to 360


def whole_month(month, name) -> int:
    if month != 0 and not (month == int(month) and 1800 <= month // 100 <= 2200 and 1 <= month % 100 <= 12):
        raise VgeoError(f"{name}: month {month:g} is not yyyymm, such as 201704: correct it or leave it empty")
    return int(month)


def read_images(source, what="images") -> pd.DataFrame:
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
            raise VgeoError(f"{source}: is a file, not {what}: give a folder of images or a .csv of file,lat,lon")
        table = read_csv(source)
    elif os.path.isdir(source):
        lists = sorted(name for name in os.listdir(source) if name.lower().endswith(".csv") and name[0] != ".")
        if len(lists) > 1:
            raise VgeoError(f"{source}: holds {len(lists)} CSV files ({lists[0]}, {lists[1]}): give the path of one")
        if lists:
            table = read_csv(os.path.join(source, lists[0]))
        else:
            paths = image_paths(source)
            named = not paths or any(os.path.basename(path).startswith("@") for path in paths)
            table = (read_names if named else read_exif)(source, paths)
    else:
        raise VgeoError(f"{source}: there is no such folder of {what}: correct the path or put the images there")
    if table.empty:
        raise VgeoError(f"{source}: holds no {what}: put images ({' '.join(SUFFIXES)}) or rows of a CSV there")
    table = table.astype({"utm_east": "f8", "utm_north": "f8", "heading": "f4", "month": "i4"})
    return table.sort_values("path", ignore_index=True)


def image_paths(folder: str) -> list[str]:
    """The image files at any depth below `folder`, sorted."""
    def unreadable(error):
        raise VgeoError(f"{error.filename}: can't be listed ({error.strerror}): correct its permissions or remove it")

    paths = []
    for where, below, names in os.walk(folder, onerror=unreadable, followlinks=True):
        for link in filter(os.path.islink, (os.path.join(where, name) for name in below)):
            if f"{os.path.realpath(where)}/".startswith(f"{os.path.realpath(link)}/"):
                raise VgeoError(f"{link}: leads back to a folder that it lies in: remove the link")
        paths += [os.path.join(where, name) for name in names
                  if name.lower().endswith(SUFFIXES) and name[0] != "."]  # "._x.jpg": what macOS leaves beside x.jpg
    return sorted(paths)


def read_names(folder: str, paths: list[str]) -> pd.DataFrame:
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
    table.attrs = {"root": folder, "zone": zone, "south": south}
    return table


def read_exif(folder: str, paths: list[str]) -> pd.DataFrame:
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
    table.attrs = {"root": folder}
    return to_one_zone(table, folder)


def exif_place(path) -> tuple[float, float, float, int] | None:
    """Latitude and longitude (degrees), heading (degrees, NaN where unknown or to magnetic north) and month (yyyymm, 0 where unknown)
    from a photo's EXIF; None where it has no GPS position, or 0, 0, which a camera writes before it knows better."""
    try:
        with Image.open(path) as image:
            exif = image.getexif()
            gps, taken = exif.get_ifd(ExifTags.IFD.GPSInfo), exif.get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.DateTimeOriginal)
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
    written = re.match(r"(\d{4}):(\d\d):", str(taken))  # "0000:00:00 00:00:00" and blanks are common too
    year, month = map(int, written.groups()) if written else (0, 0)
    return lat, lon, wrap_heading(heading, path), 100 * year + month if 1800 <= year <= 2200 and 1 <= month <= 12 else 0


def exif_degrees(gps, tag, ref, signs):
    """Degrees, minutes and seconds of an EXIF tag as signed degrees, the second letter of `signs` being negative; None where incomplete."""
    parts, side = gps.get(tag), str(gps.get(ref, "")).strip("\0 ").upper()
    try:
        degrees = sum(float(part) / 60**power for power, part in enumerate(parts))
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    return None if side not in tuple(signs) or not math.isfinite(degrees) else -degrees if side == signs[1] else degrees


def check_degrees(lat, lon, where) -> None:
    if not (-80 <= lat <= 84 and -180 <= lon <= 180):
        raise VgeoError(f"{where}: lat {lat:g}, lon {lon:g} is out of range (to 84, to 180): swap or correct them")


def to_one_zone(table: pd.DataFrame, source) -> pd.DataFrame:
    """The table with its latitudes and longitudes, which lie in utm_east and utm_north, projected to the UTM zone of their mean longitude."""
    lat, lon = table["utm_east"].to_numpy(float), table["utm_north"].to_numpy(float)
    middle = np.degrees(np.angle(np.exp(1j * np.radians(lon)).mean()))  # a mean that holds across 180 degrees
    off = np.abs((lon - middle + 180) % 360 - 180)
    if off.max() > 6:
        far = table["path"].iloc[off.argmax()]
        raise VgeoError(
            f"{source}: lon {lon[off.argmax()]:g} of {far} is {off.max():.0f} degrees from the mean: correct it or split the list"
        )
    zone, south = int((middle + 180) // 6) % 60 + 1, bool(lat.mean() < 0)
    table["utm_east"], table["utm_north"] = utm_projection(zone, south)(lon, lat)
    table.attrs.update(zone=zone, south=south)
    return table


def read_csv(path: str) -> pd.DataFrame:
    """The images that a CSV lists."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            lines = [(reader.line_num, line) for line in reader if any(map(str.strip, line))]
    except (UnicodeDecodeError, csv.Error, OSError) as error:
        raise VgeoError(f"{path}: can't be read ({one_line(error)}): save it as UTF-8 text with commas") from error
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
            raise VgeoError(f"{path} line {line}: {len(values)} values for {len(header)} columns: correct the line")
        row = dict(zip(header, map(str.strip, values)))
        where = f"{path} line {line} ({row['file']})"
        image = os.path.join(folder, row["file"])
        if not os.path.isfile(image):
            raise VgeoError(f"{where}: there is no such file in the CSV's folder: correct the line or remove it")
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
    table.attrs = {"root": folder, "zone": None, "south": False}
    return to_one_zone(table, path) if rows and not metres else table


def one_line(error) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def load_image(path, size: int | tuple[int, int] | None = None) -> torch.Tensor:
    """One photo as uint8 (3, H, W) RGB, 0 to 255, upright by its EXIF orientation.

    size: resized to size x size or to (height, width), bilinear with antialiasing. Grey, palette, CMYK and 16-bit images become 8-bit RGB;
    what is transparent becomes white. Raises VgeoError naming a file that is missing, empty, cut off, not an image,
    or too large.
    """
    height, width = size if isinstance(size, tuple) else (size, size)
    try:
        with Image.open(path) as image:
            if size:
                side = 2 * max(height, width)  # both ways: what is drafted is not yet upright
                image.draft("RGB", (side, side))  # a JPEG decodes at 1/2 to 1/8, still 2 x size
            image.load()
            image = as_rgb(ImageOps.exif_transpose(image))
        if size:
            image = image.resize((width, height), Image.Resampling.BILINEAR, reducing_gap=2.0)
    except Exception as error:  # Pillow raises almost anything on damaged bytes
        raise unreadable_image(path, error) from error
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()


def as_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        image = Image.fromarray(((np.asarray(image).astype(np.uint32) + 128) // 257).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise ValueError("32-bit pixels have no known white")
    if image.has_transparency_data:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    return image.convert("RGB")


def unreadable_image(path, error) -> VgeoError:
    if isinstance(error, FileNotFoundError):
        return VgeoError(f"{path}: there is no such image: correct the path")
    if os.path.isfile(path) and os.path.getsize(path) == 0:
        return VgeoError(f"{path}: is empty (0 bytes): copy it again or remove it")
    if isinstance(error, UnidentifiedImageError):
        return VgeoError(f"{path}: is not an image that Pillow can read: save it as JPEG or PNG, or remove it")
    if isinstance(error, Image.DecompressionBombError):
        return VgeoError(f"{path}: has too many pixels ({one_line(error)}): save it smaller or remove it")
    return VgeoError(f"{path}: can't be decoded ({one_line(error)}): copy it again, save it as 8-bit RGB, or remove it")


def check_images(paths) -> None:
    """Raises one VgeoError that counts the unreadable images and names the first; quick, for the start of long work.

    A file that starts and ends as a JPEG or PNG does is taken as whole, since one that was cut off has lost its end;
    any other is decoded. Damage between a right start and a right end is left to `load_image`.
    """
    paths = list(paths)

    def problem(path):
        try:
            with open(path, "rb") as file:
                start = file.read(4)
                file.seek(-4, os.SEEK_END)
                end = file.read()
            if (start[:3], end[2:]) == (b"\xff\xd8\xff", b"\xff\xd9") or (start, end) == (b"\x89PNG", b"\xaeB`\x82"):
                return None
            load_image(path)
        except VgeoError as error:
            return error
        except OSError as error:
            return unreadable_image(path, error)

    with ThreadPoolExecutor() as pool:
        problems = [error for error in pool.map(problem, paths) if error]
    if problems:
        raise VgeoError(f"{problems[0]} ({len(problems)} of {len(paths)} images can't be read)")


def load_batches(
    paths, batch_size: int, size: int | None, workers: int | None = None, scale: float = 1.0, part=WHOLE
) -> Iterator[tuple[np.ndarray, torch.Tensor]]:
    """Yields `(indices, images)`: int64 (B,) places in `paths` and uint8 (B, 3, H, W), each as `load_image` gives it.

    With a size, the batches are `paths` in order. With size None each batch holds images of one height and width, their
    own times `scale`, and the sizes follow each other in the order of their first images. workers: threads, by default one a core; they
    decode up to three batches ahead of the consumer and end when it stops. part: of the batches, for one of several processes. Raises
    `load_image`'s errors.
    """
    paths, ahead = list(paths), deque()
    pool = ThreadPoolExecutor(workers or os.cpu_count())

    def next_batch():
        batch, images = ahead.popleft()
        return batch, torch.stack([result(image, paths[index]) for index, image in zip(batch, images)])

    try:
        groups = {}
        for index, shape in enumerate([size] * len(paths) if size else pool.map(image_shape, paths)):
            groups.setdefault(shape, []).append(index)
        batches = [(shape, group[start : start + batch_size]) for shape, group in groups.items() for start in range(0, len(group), batch_size)]
        for shape, batch in part.of(batches):
            target = size or (None if scale == 1 else tuple(round(side * scale) for side in shape))
            ahead.append((np.array(batch), [pool.submit(load_image, paths[index], target) for index in batch]))
            if len(ahead) > 3:
                yield next_batch()
        while ahead:
            yield next_batch()
    finally:
        pool.shutdown(cancel_futures=True)


def image_shape(path) -> tuple[int, int]:
    """(height, width) as `load_image` will return it, from the header alone."""
    try:
        with Image.open(path) as image:
            width, height = image.size
            turned = image.getexif().get(0x0112, 1) >= 5  # EXIF orientations 5 to 8 swap the sides
    except Exception as error:  # as in load_image
        raise unreadable_image(path, error) from error
    return (width, height) if turned else (height, width)


def positions(table: pd.DataFrame) -> np.ndarray:
    """(n, 2) float64 UTM east and north, metres."""
    return table[["utm_east", "utm_north"]].to_numpy(float)


def positives(queries: pd.DataFrame, database: pd.DataFrame, radius: float = 25.0) -> list[np.ndarray]:
    """For each query the sorted int64 rows of the database within `radius` metres of it, the radius included."""
    found = cKDTree(positions(database)).query_ball_point(positions(queries), radius, return_sorted=True)
    return [np.array(rows, np.int64) for rows in found]


def cosplace_classes(table: pd.DataFrame, cell=10.0, angle=30.0, n=5, l=2, min_images=10) -> pd.DataFrame:
    """The images of one CosPlace group, in the table's order, with their class in the int64 column `label`, 0 to C - 1.

    A class is (floor(east / cell), floor(north / cell), floor(heading / angle)); classes of fewer than min_images
    images are dropped. A group holds the classes of equal (east index mod n, north index mod n, heading index mod l),
    so that two of its classes lie at least (n - 1) * cell metres or (l - 1) * angle degrees apart (where angle * l
    divides 360). The group with most classes is used, the lowest of equals. attrs gain group (three ints) and classes
    (C). Raises VgeoError where a heading is unknown or no class is left. Source: Berton et al., Rethinking Visual
    Geo-localization for Large-Scale Applications, CVPR 2022, section 3.
    """
    if not (cell > 0 and angle > 0 and n >= 1 and l >= 1):
        raise VgeoError(f"CosPlace classes of cell {cell}, angle {angle}, n {n}, l {l}: all must be positive")
    blind = table["heading"].isna()
    if blind.any():
        first = table["path"][blind].iloc[0]
        raise VgeoError(
            f"{first}: has no heading, nor have {blind.sum() - 1} others of {len(table)} images: classes need it in "
            "the name or the CSV"
        )
    keys = np.floor(table[["utm_east", "utm_north", "heading"]].to_numpy(float) / [cell, cell, angle]).astype(np.int64)
    classes, of_image, count = np.unique(keys, axis=0, return_inverse=True, return_counts=True)
    of_image, large = of_image.ravel(), count >= min_images
    if not large.any():
        raise VgeoError(
            f"{table.attrs.get('root', 'images')}: no class has {min_images} images (the largest "
            f"{count.max(initial=0)}): lower min_images, widen cell ({cell:g} m) or angle ({angle:g}), or add images"
        )
    groups, of_class, sizes = np.unique(classes[large] % [n, n, l], axis=0, return_inverse=True, return_counts=True)
    best = sizes.argmax()
    label = np.full(len(classes), -1)
    label[np.flatnonzero(large)[of_class.ravel() == best]] = np.arange(sizes[best])
    kept = table.assign(label=label[of_image])
    kept = kept[kept["label"] >= 0].reset_index(drop=True)
    kept.attrs = table.attrs | {"group": tuple(groups[best].tolist()), "classes": int(sizes[best])}
    return kept


@dataclass(frozen=True)
class Identity:
    """What a result was measured on. files: sha256 of the sorted file names, relative to their folders."""

    name: str
    queries: int
    database: int
    no_positive: int
    files: str

    def __str__(self) -> str:
        return (
            f"{self.name}: {self.queries} queries, {self.database} database images, "
            f"{self.no_positive} queries without a positive, file list {self.files[:8]}"
        )


@dataclass(frozen=True)
class RetrievalSet:
    """Queries, the database they are looked up in, and for each query its right answers (see `positives`)."""

    name: str
    queries: pd.DataFrame
    database: pd.DataFrame
    positives: list[np.ndarray]

    @property
    def identity(self) -> Identity:
        digest = hashlib.sha256()
        for role, table in (("queries", self.queries), ("database", self.database)):
            root = table.attrs["root"] or "."
            files = sorted(os.path.relpath(path, root).replace(os.sep, "/") for path in table["path"])
            digest.update("\n".join([role, *files, ""]).encode())
        alone = sum(len(rows) == 0 for rows in self.positives)
        return Identity(self.name, len(self.queries), len(self.database), alone, digest.hexdigest())


def open_retrieval_set(name: str, queries_source, database_source, radius: float = 25.0) -> RetrievalSet:
    """Reads both sources (`read_images`) and finds the positives; raises VgeoError where no query has one."""
    queries, database = read_images(queries_source, "queries"), read_images(database_source, "database images")
    here, there = [(table.attrs["zone"], table.attrs["south"]) for table in (queries, database)]
    if None not in (here[0], there[0]) and here != there:
        raise VgeoError(
            f"{name}: {queries_source} is in UTM zone {zone_name(*here)}, {database_source} in {zone_name(*there)}: "
            "give both as utm_east, utm_north of one zone"
        )
    right = positives(queries, database, radius)
    if not any(map(len, right)):
        nearest = cKDTree(positions(database)).query(positions(queries))[0].min()
        raise VgeoError(
            f"{name}: no query in {queries_source} has an image of {database_source} within {radius:g} m (nearest: "
            f"{nearest:.0f} m away): check that both folders show the same streets"
        )
    return RetrievalSet(name, queries, database, right)
