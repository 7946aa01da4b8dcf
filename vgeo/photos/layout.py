"""Where the parts of the data sets lie in the folders that people have, and whether all are there."""

from pathlib import Path

from vgeo.errors import VgeoError
from vgeo.photos.places import cosplace_classes
from vgeo.photos.tables import read_images

# names that copies of a data set's folder have: CosPlace's subset of SF-XL is called small
FOLDERS = {
    "sf-xs": ("sf-xs", "sf_xs", "small"),
    "tokyo-xs": ("tokyo-xs", "tokyo_xs"),
    "tokyo-night": ("tokyo-night", "tokyo_night"),
}


QUERIES = ("queries_v1", "queries")


NIGHT_TARGET = "night_target"  # a few night photos, which gradient reversal trains on


# data set, split and kind of every part; tokyo-night is looked up in tokyo-xs's database where it has none of its own
PARTS = (
    ("sf-xs", "train", None),
    *(
        (*part, kind)
        for part in (
            ("sf-xs", "val"),
            ("sf-xs", "test"),
            ("tokyo-xs", "test"),
            ("tokyo-night", "test"),
        )
        for kind in ("database", "queries")
    ),
)


SOURCES = {
    "sf-xs": "ask for SF-XL by the form that https://github.com/gmberton/CosPlace links; its folder small is sf-xs",
    "tokyo-xs": "ask the authors of Tokyo 24/7 for the images; https://github.com/gmberton/VPR-datasets-downloader says how and renames them",
    "tokyo-night": "copy the night queries of tokyo-xs there",
}


def find(top, dataset, split, kind=None):
    """The folder of a part below `top`, or None. kind: None (the split's own), "queries" or "database".

    Both `<data set>/<split>/...` and, as the VPR data sets downloader has it, `<data set>/images/<split>/...` are known.
    """
    last = {None: ("",), "queries": QUERIES, "database": ("database",)}[kind]
    places = (
        Path(top, name, middle, split, end)
        for name in FOLDERS[dataset]
        for middle in ("", "images")
        for end in last
    )
    return next((place for place in places if place.is_dir()), None)


def check(top, profile):
    """One line a part, what is there and what is not, and whether all is as it should be; reads names, opens no image.

    profile: its `counts`, {(data set, split, kind): images} and {"classes": of the training}, are what is compared with, where it has some.
    """
    lines, complete, counts = [], True, profile.counts or {}
    places = {
        part: (find(top, *part), Path(top, part[0], part[1], part[2] or ""), SOURCES[part[0]])
        for part in PARTS
    }
    night = Path(top, NIGHT_TARGET)
    places[NIGHT_TARGET,] = (
        night if night.is_dir() else None,
        night,
        "a few photos taken at night, of other places than the queries'",
    )
    for part, (folder, place, source) in places.items():
        name = " ".join(filter(None, part))
        if folder is None and part == ("tokyo-night", "test", "database"):
            lines.append(f"{name}: that of tokyo-xs")
            continue
        if folder is None:
            lines.append(f"{name}: missing: put it in {place}; {source}")
            complete = False
            continue
        try:
            table = read_images(folder, f"{name} images")
            found = {part: (len(table), "images")}
            if part[1:2] == ("train",):
                classes = cosplace_classes(
                    table, profile.cell, profile.angle, profile.n, profile.l, profile.min_images
                ).attrs["classes"]
                found["classes"] = (classes, "classes")
        except VgeoError as error:
            lines.append(f"{name}: {error}")
            complete = False
            continue
        complete &= all(number == counts.get(key, number) for key, (number, _) in found.items())
        lines.append(
            f"{name}: "
            + ", ".join(
                f"{number:,} {what}{_against(number, counts.get(key))}"
                for key, (number, what) in found.items()
            )
            + f", in {folder}"
        )
    return lines, complete


def _against(found, expected):
    if expected is None:
        return ""
    return " as published" if found == expected else f" where {expected:,} are published"
