"""The command `vgeo locate`: says where photos were taken, and writes a table and a map."""

import os
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

from vgeo.errors import VgeoError, say, show
from vgeo.locate.confidence import percent
from vgeo.locate.index import RADIUS, Index, open_describer
from vgeo.locate.output import locations, place_in_words, write_locations, write_map, write_skipped
from vgeo.photos.folders import photo_files, refuse
from vgeo.photos.images import unreadable
from vgeo.photos.tables import read_photos


def locate(
    photos,
    queries: Sequence[str],
    weights=None,
    out="located",
    cache=None,
    strict=False,
    model=None,
    yes=False,
) -> None:
    """Writes where photos were taken: locations.csv, locations.geojson, map.html; then prints it.

    Parameters
    ----------
    photos, weights, cache, model, yes : as for `vgeo.locate.index.open_index`.
    queries : photos, or folders of photos.
    out : the folder of the three files. skipped.csv, which lists the photos that can't be used and
        why, is there too where there are such.
    strict : whether a photo that can't be used is refused; it is skipped otherwise.

    Raises
    ------
    VgeoError : there is no query, or none can be read, or as `open_index` does. The model is opened
        before photos are read: it may ask whether its code may run.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")  # of odd values in the photos' headers
        describer = open_describer(weights, model, yes)
        paths_of_queries = list(map(os.fspath, queries))
        _locate(photos, paths_of_queries, describer, model, Path(out), cache, strict)


def _locate(photos, queries: list[str], describer, name, out: Path, cache, strict: bool) -> None:
    model, size = describer
    paths, skipped = _queries(queries, strict)
    count = len(paths) + len(skipped)

    start = time.perf_counter()
    index = Index(read_photos(photos, strict=strict), model, size, cache, strict=strict)
    seconds = time.perf_counter() - start
    say(
        f"index of {len(index.photos)} photos, {name or index.model.backbone_name} "
        f"{index.size} px, {index.descriptors.shape[1]} numbers a photo, "
        f"{index.described} newly described: {seconds:.0f} s"
    )
    _say_skipped(index.skipped, len(index.photos) + len(index.skipped), "photos", out)
    calibration, explanation = index.calibrate()
    say(explanation)

    start = time.perf_counter()
    skipped |= index.describe(paths, "queries", strict=False)
    paths = [path for path in paths if path not in skipped]
    write_skipped(out / "skipped.csv", index.skipped | skipped)
    if strict or not paths:
        refuse(skipped, count)
    answers = index.locate(paths)
    table = locations(index, paths, answers, calibration)
    seconds = time.perf_counter() - start
    write_locations(out, table)
    write_map(out / "map.html", index, table, answers, explanation)

    for row in table.to_dict("records"):
        place = place_in_words(row).replace(", ", "  ")
        show(f"{row['file']}  {place}  {in_words(row['confidence'])}  {row['best_match']}")
    _say_skipped(skipped, count, "queries", out)
    say(f"{len(paths)} photos located, {seconds / len(paths):.2f} s each")
    say(f"written: {out / 'locations.csv'}, locations.geojson, map.html")


def _queries(queries: list[str], strict: bool) -> tuple[list[str], dict[str, str]]:
    """The photos that queries name, and {path: why} of those that can't be read."""
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


def _say_skipped(skipped: dict[str, str], count: int, what: str, out: Path) -> None:
    """One line that counts what was left out and names the first."""
    for path, reason in skipped.items():
        say(
            f"skipped {len(skipped)} of {count} {what}, see {out / 'skipped.csv'}: {path}: {reason}"
        )
        break


def in_words(confidence: float) -> str:
    """A confidence for people, for example "within 25 m: 83 %"."""
    return f"within {RADIUS:g} m: {percent(confidence)}"
