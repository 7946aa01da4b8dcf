"""TODO: locate.command."""

import json
import os
import time
from pathlib import Path

import numpy as np
import pandas as pd

from vgeo.errors import VgeoError, printable, say
from vgeo.locate.index import PUBLISHED_SIZE, RADIUS, SHIPPED, Index
from vgeo.locate.output import write_locations, write_map
from vgeo.models.convert import open_model
from vgeo.models.weights import CITY_WEIGHTS
from vgeo.photos.images import check_images, image_paths
from vgeo.photos.tables import read_images


def open_index(photos, weights=None, cache=None):
    """The Index of a folder or a CSV of photos (`datasets.read_images`); weights: a file (`checkpoints.open_model`), None for the packaged ones."""
    table = read_images(photos, "photos")
    if weights is None:
        model, size = (
            open_model(CITY_WEIGHTS / "resnet18.safetensors")[0],
            json.loads(SHIPPED.read_text())["size"],
        )
    else:
        model, size = open_model(weights)
    return Index(table, model, size or PUBLISHED_SIZE, cache)


def locations(index, paths, answers, calibration):
    """A row per photo: file, lat, lon (degrees), confidence (0 to 1 that it is within RADIUS, NaN where unknown), best_match (relative to the index's folder)."""
    lat, lon = index.degrees(answers.xy)
    confidence = calibration(answers.features) if calibration else np.full(len(paths), np.nan)
    best = [
        os.path.relpath(path, index.photos.attrs["root"] or ".")
        for path in index.photos["path"].iloc[answers.rows[:, 0]]
    ]
    return pd.DataFrame(
        {
            "file": list(paths),
            "lat": lat.round(6),
            "lon": lon.round(6),
            "confidence": confidence.round(3),
            "best_match": best,
        }
    )


def in_words(confidence):
    """ "within 25 m: 83 %"."""
    percent = (
        "unknown"
        if np.isnan(confidence)
        else "< 1 %"
        if confidence < 0.005
        else "> 99 %"
        if confidence > 0.995
        else f"{100 * confidence:.0f} %"
    )
    return f"within {RADIUS:g} m: {percent}"


def locate(photos, queries, weights=None, out="located"):
    """Prints where photos were taken, and writes `locations.csv`, `locations.geojson` and `map.html` to the folder `out`.

    photos, weights: as for `open_index`; queries: photos, or folders of photos. Raises VgeoError where there is none.
    """
    paths = [
        path
        for query in queries
        for path in (image_paths(query) if os.path.isdir(query) else [query])
    ]
    if not paths:
        raise VgeoError(f"{queries[0]}: holds no photos: give a photo, or a folder of photos")
    check_images(paths)
    began = time.perf_counter()
    index = open_index(photos, weights)
    say(
        f"{len(index.photos)} photos, {index.described} of them described now: {time.perf_counter() - began:.0f} s"
    )
    calibration, words = index.calibrate()
    say(f"confidence: {words}")
    began = time.perf_counter()
    answers = index.locate(paths)
    found = locations(index, paths, answers, calibration)
    for row in found.itertuples():
        print(
            printable(
                f"{row.file}  {row.lat:.6f}  {row.lon:.6f}  {in_words(row.confidence)}  {row.best_match}"
            )
        )
    say(f"{len(paths)} located: {(time.perf_counter() - began) / len(paths):.2f} s each")
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    write_locations(out, found)
    write_map(out / "map.html", index, found, answers, words)
    say(f"written: {out / 'locations.csv'}, locations.geojson, map.html")
