"""What `vgeo locate` writes: a table, GeoJSON, and a map in one HTML file that needs no network."""

import base64
import io
import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from vgeo.errors import VgeoError, printable
from vgeo.files import write
from vgeo.locate.confidence import Calibration, percent
from vgeo.locate.index import SHOWN, Answers, Index
from vgeo.photos.images import image_shape, load_image

SKIPPED = ["file", "reason"]  # columns of skipped.csv
THUMBNAIL = 160  # pixels, the longer side
CERTAIN = 1e-4  # no confidence is nearer to 0 or 1: no answer is certain
# A transparent GIF of one pixel.
BLANK = {"data": "data:image/gif;base64,R0lGODlhAQABAAAAACw=", "width": 4, "height": 3}


def locations(
    index: Index, paths: Sequence[str], answers: Answers, calibration: Calibration | None
) -> pd.DataFrame:
    """A row a photo: where it was taken.

    Returns
    -------
    The columns file, lat and lon (degrees), confidence (the probability, CERTAIN to 1 - CERTAIN,
    that the photo was taken within 25 m of there, NaN without a calibration), and best_match (a
    photo of the index, relative to its folder). Where the index's UTM zone is unknown, utm_east and
    utm_north (metres) are there in place of lat and lon.
    """
    confidence = calibration(answers.features) if calibration else np.full(len(paths), np.nan)
    confidence = confidence.clip(CERTAIN, 1 - CERTAIN)
    names = index.photos.names
    columns: dict[str, Any] = {"file": list(paths)}
    if index.photos.zone is None:
        columns |= dict(zip(("utm_east", "utm_north"), answers.xy.T.round(2)))
    else:
        lat, lon = index.degrees(answers.xy)
        columns |= {"lat": lat.round(6), "lon": lon.round(6)}
    columns |= {"confidence": confidence}
    return pd.DataFrame(columns | {"best_match": [names[row] for row in answers.predictions[:, 0]]})


def write_locations(folder: Path, table: pd.DataFrame) -> None:
    """Writes a table of `locations` as locations.csv and locations.geojson (RFC 7946).

    Metres without a zone are no GeoJSON geometry: they are properties.
    """
    names = {column: table[column].map(printable) for column in ("file", "best_match")}
    table = table.assign(confidence=table["confidence"].round(4), **names)
    write(folder / "locations.csv", table.to_csv(index=False))
    points = []
    for row in table.to_dict("records"):
        place = None
        if "lat" in row:
            place = {"type": "Point", "coordinates": [row.pop("lon"), row.pop("lat")]}
        if math.isnan(row["confidence"]):
            row["confidence"] = None  # JSON has no NaN
        points.append({"type": "Feature", "geometry": place, "properties": row})
    collection = {"type": "FeatureCollection", "features": points}
    write(folder / "locations.geojson", json.dumps(collection, indent=1) + "\n")


def write_skipped(path: Path, skipped: dict[str, str]) -> None:
    """Writes the photos that were left out, {file: why}, as a CSV of SKIPPED.

    Where none was left out, an earlier file is removed.
    """
    if skipped:
        rows = [(printable(file), printable(reason)) for file, reason in skipped.items()]
        write(path, pd.DataFrame(rows, columns=SKIPPED).to_csv(index=False))
    else:
        path.unlink(missing_ok=True)


def document(
    index: Index, explanation: str, skipped: dict[str, str], found: list[dict[str, Any]]
) -> dict[str, Any]:
    """The answers as one value for JSON.

    Returns
    -------
    photos : how many the index has.
    explanation : what the confidence was fitted to.
    answers : `found`, of `answers_in_full`.
    skipped : for each photo that was left out its file and the reason.
    """
    left_out = [{"file": file, "reason": reason} for file, reason in skipped.items()]
    known = {"photos": len(index.photos), "explanation": explanation}
    return known | {"answers": found, "skipped": left_out}


def answers_in_full(
    index: Index, table: pd.DataFrame, answers: Answers, k: int = SHOWN
) -> list[dict[str, Any]]:
    """The answers with their first k matches, as values for JSON.

    Parameters
    ----------
    index, table, answers : as for `write_map`.

    Returns
    -------
    For each photo file, place, confidence (0 to 1, None where unknown) and matches. For each match
    name, place and similarity. A place is lat, lon (degrees, None where the zone is unknown) and
    utm (zone, south, east, north; metres).
    """
    names, found = index.photos.names, []
    columns = zip(table["file"], table["confidence"], places(index, answers.xy), strict=True)
    for i, (file, chance, place) in enumerate(columns):
        rows, alike = answers.predictions[i, :k], answers.similarity[i, :k].tolist()
        matches = [
            {"name": names[row]} | there | {"similarity": round(similarity, 4)}
            for row, there, similarity in zip(rows, places(index, index.xy[rows]), alike)
        ]
        known = None if math.isnan(chance) else chance  # JSON has no NaN
        found.append({"file": file} | place | {"confidence": known, "matches": matches})
    return found


def places(index: Index, xy: np.ndarray) -> list[dict[str, Any]]:
    """UTM metres (Q, 2) in the index's zone as places of `answers_in_full`."""
    zone = {"zone": index.photos.zone, "south": index.photos.south if index.photos.zone else None}
    found = []
    for lat, lon, east, north in zip(*index.degrees(xy), *xy.T.tolist(), strict=True):
        degrees = [None if math.isnan(value) else round(float(value), 6) for value in (lat, lon)]
        utm = zone | {"east": round(east, 2), "north": round(north, 2)}
        found.append(dict(zip(("lat", "lon"), degrees)) | {"utm": utm})
    return found


def place_in_words(row: Mapping[Any, Any]) -> str:
    """A place, or that of a row of `locations`: "37.770000, -122.420000", or metres."""
    if row.get("lat") is not None:
        return f"{row['lat']:.6f}, {row['lon']:.6f}"
    utm = row.get("utm") or {"east": row["utm_east"], "north": row["utm_north"]}
    return f"east {utm['east']:.2f} m, north {utm['north']:.2f} m"


def write_map(
    path: Path,
    index: Index,
    table: pd.DataFrame,
    answers: Answers,
    explanation: str,
    k: int = SHOWN,
) -> None:
    """Writes the map: all positions of the index, all answers, and the matches of each.

    Parameters
    ----------
    path : the HTML file.
    index : gave the answers.
    table : of `locations`, of the first of the answers or of all.
    answers : the answers.
    explanation : sentences that say what the confidence was fitted to.
    k : how many matches of each answer are shown.
    """
    corner, size = _frame(np.concatenate([index.xy, answers.xy]))

    def on_page(xy):
        """Metres east and south of the frame's north-western corner."""
        return np.round(np.abs(xy - corner), 1)

    dots, points = on_page(index.xy), on_page(answers.xy)
    photos: dict[str, dict] = {}  # a photo is embedded once, however many answers show it

    def photo(file):
        if file not in photos:
            try:
                small = thumbnail(file)
            except VgeoError:  # gone since, or of an index that was handed on without photos
                small = BLANK
            photos[file] = {"id": f"p{len(photos)}"} | small
        return {"photo": photos[file], "name": printable(os.path.basename(file))}

    places, paths = [], index.photos.paths
    for i, row in enumerate(table.to_dict("records")):
        matches = []
        for match, alike in zip(answers.predictions[i, :k], answers.similarity[i, :k]):
            metres = float(np.linalg.norm(index.xy[match] - answers.xy[i]))
            numbers = {"similarity": float(alike), "metres": metres}
            matches.append(photo(paths[match]) | numbers | dict(zip("xy", dots[match].tolist())))
        chance = row["confidence"]
        place: dict[str, Any] = {"id": f"q{i + 1}", "where": place_in_words(row)}
        place |= {"percent": percent(chance), "known": not math.isnan(chance)}
        place["sure"] = chance >= 0.495  # which is shown as 50 %
        place |= photo(row["file"]) | dict(zip("xy", points[i].tolist()))
        ends = " ".join(f"{match['x']} {match['y']}" for match in matches)
        places.append(place | {"matches": matches, "ends": ends})
    environment = Environment(
        loader=PackageLoader("vgeo.locate"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    page = environment.get_template("map.html").render(
        places=places,
        photos=list(photos.values()),
        dots="".join(f"M{x:g} {y:g}h0" for x, y in np.unique(dots, axis=0)),
        count=len(index.photos),
        width=float(size[0]),
        height=float(size[1]),
        explanation=explanation,
    )
    write(path, page)


def thumbnail(path: str) -> dict:
    """A small copy of a photo: data (the URI of a JPEG), width and height (pixels)."""
    sides = image_shape(path)
    scale = min(1, THUMBNAIL / max(sides))
    height, width = (max(1, round(side * scale)) for side in sides)
    pixels = load_image(path, (height, width)).permute(1, 2, 0).numpy()
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=70)
    data = "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
    return {"data": data, "width": width, "height": height}


def _frame(xy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The north-western corner and the size, both (east, north) in metres, of a map of positions.

    The longer side is at most twice the shorter one, so that a street makes no thin strip.
    """
    low, high = xy.min(0), xy.max(0)
    size = 1.08 * (high - low) + 20.0
    size = np.maximum(size, size[::-1] / 2)
    return (low + high) / 2 + size * [-0.5, 0.5], size
