"""The command `vgeo locate`: says where photos were taken, and writes a table and a map."""

import os
import time
from collections.abc import Sequence
from pathlib import Path

from vgeo.errors import VgeoError, printable, say
from vgeo.locate.index import RADIUS, open_index
from vgeo.locate.output import locations, write_locations, write_map
from vgeo.photos.images import check_images, image_paths


def locate(photos, queries: Sequence[str], weights=None, out="located", cache=None) -> None:
    """Prints where photos were taken; writes locations.csv, locations.geojson and map.html.

    Parameters
    ----------
    photos, weights, cache : as for `vgeo.locate.index.open_index`.
    queries : photos, or folders of photos.
    out : the folder of the three files.

    Raises
    ------
    VgeoError : there is no query, or one can't be read, or as `open_index` does.
    """
    paths = []
    for query in queries:
        paths += image_paths(query) if os.path.isdir(query) else [query]
    if not paths:
        raise VgeoError(f"{queries[0]}: holds no photos: give a photo, or a folder of photos")
    check_images(paths)

    start = time.perf_counter()
    index = open_index(photos, weights, cache)
    seconds = time.perf_counter() - start
    say(f"index of {len(index.photos)} photos, {index.described} newly described: {seconds:.0f} s")
    calibration, explanation = index.calibrate()
    say(explanation)

    start = time.perf_counter()
    answers = index.locate(paths)
    table = locations(index, paths, answers, calibration)
    for file, lat, lon, confidence, match in table.itertuples(index=False):
        print(printable(f"{file}  {lat:.6f}  {lon:.6f}  {in_words(confidence)}  {match}"))
    say(f"{len(paths)} photos located, {(time.perf_counter() - start) / len(paths):.2f} s each")

    out = Path(out)
    write_locations(out, table)
    write_map(out / "map.html", index, table, answers, explanation)
    say(f"written: {out / 'locations.csv'}, locations.geojson, map.html")


def in_words(confidence: float) -> str:
    """A confidence for people, for example "within 25 m: 83 %"."""
    if confidence != confidence:  # NaN
        percent = "unknown"
    elif 0.005 <= confidence <= 0.995:
        percent = f"{100 * confidence:.0f} %"
    else:
        percent = "< 1 %" if confidence < 0.005 else "> 99 %"
    return f"within {RADIUS:g} m: {percent}"
