"""Where the parts of the data sets lie in a folder, and whether all of them are there."""

from pathlib import Path
from typing import Any

from vgeo.errors import VgeoError
from vgeo.photos.images import FilePath
from vgeo.photos.places import cosplace_classes
from vgeo.photos.tables import read_photos

# The names that copies of a data set's folder have. CosPlace calls its copy of sf-xs "small".
FOLDERS = {
    "sf-xs": ("sf-xs", "sf_xs", "small"),
    "tokyo-xs": ("tokyo-xs", "tokyo_xs"),
    "tokyo-night": ("tokyo-night", "tokyo_night"),
}
ENDS = {None: ("",), "queries": ("queries_v1", "queries"), "database": ("database",)}
NIGHT_TARGET = "night_target"  # a folder of a few night photos, which gradient reversal trains on

Part = tuple[str, ...] | tuple[str, str, None]
Counts = dict[Part | str, int]

# The data set, split and kind of every part.
PARTS = (
    ("sf-xs", "train", None),
    ("sf-xs", "val", "database"),
    ("sf-xs", "val", "queries"),
    ("sf-xs", "test", "database"),
    ("sf-xs", "test", "queries"),
    ("tokyo-xs", "test", "database"),
    ("tokyo-xs", "test", "queries"),
    ("tokyo-night", "test", "database"),
    ("tokyo-night", "test", "queries"),
)
# Without a database of its own, tokyo-night is looked up in tokyo-xs's.
OPTIONAL = ("tokyo-night", "test", "database")

SOURCES = {
    "sf-xs": "ask for SF-XL by the form that https://github.com/gmberton/CosPlace links; its "
    "folder small is sf-xs",
    "tokyo-xs": "ask the authors of Tokyo 24/7 for the images; "
    "https://github.com/gmberton/VPR-datasets-downloader says how and renames them",
    "tokyo-night": "copy the night queries of tokyo-xs there",
    NIGHT_TARGET: "a few photos taken at night, of other places than the queries'",
}


def find(top: FilePath, dataset: str, split: str, kind: str | None = None) -> Path | None:
    """The folder of a part below `top`, None where it is missing.

    It is `<data set>/<split>/<kind>` or, as the VPR data sets downloader has it,
    `<data set>/images/<split>/<kind>`.

    Parameters
    ----------
    kind : "queries", "database", or None for the split's own folder.
    """
    places = (
        Path(top, name, middle, split, end)
        for name in FOLDERS[dataset]
        for middle in ("", "images")
        for end in ENDS[kind]
    )
    return next((place for place in places if place.is_dir()), None)


def check(top: FilePath, counts: Counts | None, classes: Any) -> tuple[list[str], bool]:
    """Compares the data sets below `top` with what they should be. It reads names, opens no image.

    Parameters
    ----------
    counts : the published {(data set, split, kind): images}, and {"classes": training classes}.
        A part that is not in it may have any size.
    classes : has cell, angle, n, l and min_images as attributes, see `cosplace_classes`.

    Returns
    -------
    One line for each part, and whether all parts are there and as published.
    """
    folders: dict[Part, Path | None] = {part: find(top, *part) for part in PARTS}
    night = Path(top, NIGHT_TARGET)
    folders[NIGHT_TARGET,] = night if night.is_dir() else None
    lines, complete = [], True
    for part, folder in folders.items():
        words = [word for word in part if word]
        if folder:
            line, good = _contents(folder, part, counts or {}, classes)
        elif part == OPTIONAL:
            line, good = "that of tokyo-xs", True
        else:
            line, good = f"missing: put it in {Path(top, *words)}; {SOURCES[words[0]]}", False
        lines.append(f"{' '.join(words)}: {line}")
        complete &= good
    return lines, complete


def _contents(folder: Path, part: Part, counts: Counts, classes: Any) -> tuple[str, bool]:
    """What the folder of a part holds, in words, and whether that is as published."""
    try:
        photos = read_photos(folder, f"{' '.join(filter(None, part))} images")
        numbers = {"images": (len(photos), counts.get(part))}
        if part == ("sf-xs", "train", None):
            count = cosplace_classes(photos, **vars(classes)).count
            numbers["classes"] = (count, counts.get("classes"))
    except VgeoError as error:
        return str(error), False
    words = []
    for noun, (number, published) in numbers.items():
        differs = f" where {published:,} are published" if published else ""
        words.append(f"{number:,} {noun}" + (" as published" if number == published else differs))
    good = all(published in (None, number) for number, published in numbers.values())
    return f"{', '.join(words)}, in {folder}", good
