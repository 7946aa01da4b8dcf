"""The command `vgeo locate`: says where photos were taken, and writes a table and a map."""

import math
import os
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vgeo.errors import VgeoError, say, show
from vgeo.files import check_writable
from vgeo.locate.confidence import percent
from vgeo.locate.exported import ExportedIndex, export, is_index, is_sqlite
from vgeo.locate.index import RADIUS, SHORTLIST, SHOWN, Index, open_describer
from vgeo.locate.output import (
    SKIPPED,
    answers_in_full,
    document,
    locations,
    place_in_words,
    write_locations,
    write_map,
    write_skipped,
)
from vgeo.photos.folders import photo_files, refuse
from vgeo.photos.images import unreadable
from vgeo.photos.lists import is_answers
from vgeo.photos.names import check_degrees
from vgeo.photos.tables import Photos, read_photos


def locate(
    photos,
    queries: Sequence[str],
    weights=None,
    out="located",
    cache=None,
    strict=False,
    model=None,
    yes=False,
    k: int | None = None,
    near: tuple[float, float] | None = None,
    radius: float | None = None,
    index_file=None,
) -> dict[str, Any]:
    """Writes where photos were taken: locations.csv, locations.geojson, map.html; then prints it.

    Parameters
    ----------
    photos, weights, cache, model, yes : as for `vgeo.locate.index.open_index`. In place of photos
        also the file of an index, see `vgeo.locate.exported`.
    queries : photos, or folders of photos. There may be none where an index is written.
    out : the folder of the three files. skipped.csv, which lists the photos that can't be used and
        why, is there too where there are such.
    strict : whether a photo that can't be used is refused; it is skipped otherwise.
    k : matches of each answer, 1 to SHORTLIST, that are printed and shown on the map. By default
        none is printed, and SHOWN are on the map.
    near, radius : latitude and longitude, and metres: the index has only photos this near.
    index_file : where the index is written as one file, None for nowhere.

    Returns
    -------
    The answers, see `vgeo.locate.output.document`.

    Raises
    ------
    VgeoError : a value is out of range, there is no query, or none can be read, or as `open_index`
        does. The model is opened before photos are read: it may ask whether its code may run.
    """
    if k is not None and not 1 <= k <= SHORTLIST:
        raise VgeoError(f"k {k}: so many matches can't be reported: give 1 to {SHORTLIST}")
    if (near is None) != (radius is None):
        raise VgeoError("near and radius say together where to search: give both or neither")
    if radius is not None and not 0 < radius < math.inf:
        raise VgeoError(f"radius {radius:g}: is no distance: give metres above 0")
    if near:
        check_degrees(*near, f"near {near[0]:.9g},{near[1]:.9g}")
    if not queries and index_file is None:
        raise VgeoError("no query: give a photo, or a folder of photos, whose place is asked for")
    check_writable(Path(out) / "skipped.csv", "give another folder as --out")
    _keep_own_files(Path(out), bool(queries), index_file)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")  # of odd values in the photos' headers
        describer = open_describer(weights, model, yes)
        paths, skipped = _queries(list(map(os.fspath, queries)), strict)

        def keep(known: Photos) -> Photos:
            return known.within(*near, radius) if near and radius else known

        start = time.perf_counter()
        if is_sqlite(photos):
            index: Index = ExportedIndex(photos, *describer, keep)
        else:
            index = Index(
                keep(read_photos(photos, strict=strict)), *describer, cache, strict=strict
            )
        write_skipped(Path(out) / "skipped.csv", index.skipped)
        seconds = time.perf_counter() - start
        where = f" within {radius:g} m of {near[0]:.9g},{near[1]:.9g}" if near else ""
        count = len(index.photos) + len(index.skipped)
        left_out = _skipped(index.skipped, count, "photos", Path(out))
        name = f"{model or index.model.backbone_name} {index.size} px"
        say(
            f"index of {len(index.photos)} photos{where}, {name}, "
            f"{index.descriptors.shape[1]} numbers a photo, "
            f"{index.described} newly described: {seconds:.0f} s; {left_out or 'none skipped'}"
        )
        if index_file is not None:
            export(index, index_file, name)
            size = os.path.getsize(index_file) / 1e6
            say(f"written: {index_file}, the index of {len(index.photos)} photos, {size:.1f} MB")
        if not queries:
            return document(index, index.calibrate()[1], index.skipped, [])
        return _answer(index, paths, skipped, Path(out), strict, k)


def _answer(
    index: Index, paths: list[str], skipped: dict[str, str], out: Path, strict: bool, k: int | None
) -> dict[str, Any]:
    """Writes and prints the answers for queries. skipped: {path: why} of those left out so far."""
    calibration, explanation = index.calibrate()
    say(explanation)
    start = time.perf_counter()
    count = len(paths) + len(skipped)
    skipped |= index.describe(paths, "queries", strict=False)
    paths = [path for path in paths if path not in skipped]
    write_skipped(out / "skipped.csv", index.skipped | skipped)
    if strict or not paths:
        refuse(skipped, count)
    answers = index.locate(paths)
    table = locations(index, paths, answers, calibration)
    seconds = time.perf_counter() - start
    write_locations(out, table)
    write_map(out / "map.html", index, table, answers, explanation, k or SHOWN)
    found = answers_in_full(index, table, answers, k or SHOWN)

    for row, answer in zip(table.to_dict("records"), found):
        place = place_in_words(row).replace(", ", "  ")
        show(f"{row['file']}  {place}  {in_words(row['confidence'])}  {row['best_match']}")
        for number, match in enumerate(answer["matches"] if k else [], 1):
            place = place_in_words(match).replace(", ", "  ")
            show(f"  {number}  {place}  similarity {match['similarity']:.2f}  {match['name']}")
    if left_out := _skipped(skipped, count, "queries", out):
        say(left_out)
    say(f"{len(paths)} photos located, {seconds / len(paths):.2f} s each")
    say(f"written: {out / 'locations.csv'}, locations.geojson, map.html")
    return document(index, explanation, index.skipped | skipped, found)


def _keep_own_files(out: Path, answers: bool, index_file) -> None:
    """Raises VgeoError where an output would replace a file that this command did not write, or
    the index can't be written.

    A folder with a table of answers is one of this command's.
    """
    table, left_out = out / "locations.csv", out / "skipped.csv"
    files = [table, out / "locations.geojson", out / "map.html"] if answers else []
    there = [] if is_answers(os.fspath(table)) else [path for path in files if path.exists()]
    if left_out.is_file():
        text = left_out.read_text(encoding="utf-8", errors="replace")
        there += [] if text.startswith(",".join(SKIPPED) + "\n") else [left_out]
    for path in there:
        raise VgeoError(
            f"{path}: may not be of vgeo locate: move it, or give another folder as --out"
        )
    if index_file is not None:
        check_writable(index_file, "give another file as --index")
        if os.path.exists(index_file) and not is_index(index_file):
            raise VgeoError(f"{index_file}: is no index: give another file as --index")


def _queries(queries: list[str], strict: bool) -> tuple[list[str], dict[str, str]]:
    """The photos that queries name, and {path: why} of those that can't be read."""
    if not queries:
        return [], {}
    paths: list[str] = []
    skipped: dict[str, str] = {}
    for query in queries:
        if os.path.isdir(query):
            inside, left_out = photo_files(query)
            paths += inside
            skipped |= left_out
        else:
            paths.append(query)
    skipped |= unreadable(paths)
    count = len(set(paths) | set(skipped))
    paths = [path for path in paths if path not in skipped]
    if strict or not paths:
        refuse(skipped, count)
    if not paths:
        raise VgeoError(f"{queries[0]}: holds no photos: give a photo, or a folder of photos")
    return paths, skipped


def _skipped(skipped: dict[str, str], count: int, what: str, out: Path) -> str:
    """Words that count what was left out and name the first; "" where nothing was."""
    for path, reason in skipped.items():
        listed = out / "skipped.csv"
        return f"skipped {len(skipped)} of {count} {what}, see {listed}: {path}: {reason}"
    return ""


def in_words(confidence: float) -> str:
    """A confidence for people, for example "within 25 m: 83 %"."""
    return f"within {RADIUS:g} m: {percent(confidence)}"
