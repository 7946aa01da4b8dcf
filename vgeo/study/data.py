"""The photos of a run: what is trained on, validated on and tested on, and what is absent."""

import os
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from vgeo.city.write import write_city
from vgeo.errors import VgeoError
from vgeo.photos.images import check_images
from vgeo.photos.layout import NIGHT_TARGET, find
from vgeo.photos.places import Classes, Dataset, cosplace_classes, pair_up
from vgeo.photos.tables import Photos, read_photos
from vgeo.study.cache import Cache
from vgeo.study.profiles import Profile

# the columns of every table
DATASETS = ("sf-xs", "tokyo-xs", "tokyo-night")


class Data:
    """The data sets of a profile.

    Parameters
    ----------
    folder : where the data sets lie, laid out as the originals are. None: the city is rendered.

    Raises
    ------
    VgeoError : the profile renders no city and no folder is given, or the folder does not exist.
    """

    def __init__(self, profile: Profile, folder: str | os.PathLike | None, cache: Cache):
        if folder is None and profile.city is None:
            raise VgeoError(
                f"profile {profile.name} needs real data: add --data FOLDER, with sf-xs, tokyo-xs "
                "and tokyo-night in it"
            )
        is_path = isinstance(folder, str | os.PathLike) and str(folder)
        if folder is not None and not (is_path and Path(folder).is_dir()):
            raise VgeoError(
                f"{folder or repr(folder)}: no such folder: give the one that holds sf-xs, "
                "tokyo-xs and tokyo-night"
            )
        self.profile, self.cache = profile, cache
        self.folder = Path(folder).resolve() if folder is not None else None
        self._photos: dict[Path, Photos] = {}

    @cached_property
    def root(self) -> Path:
        """The folder of the data sets. The city is rendered where it has to be."""
        if self.folder:
            return self.folder
        plan = self.profile.city
        assert plan is not None
        return self.cache.step(
            "data",
            "render the city",
            {"plan": plan.__dict__},
            lambda folder: write_city(plan, folder),
            code=("vgeo.city.write",),
        )

    @cached_property
    def classes(self) -> Classes:
        """The training photos of one CosPlace group and their classes."""
        folder = find(self.root, "sf-xs", "train")
        if folder is None:
            raise VgeoError(
                f"{self.root}: has no sf-xs/train: put the training images of sf-xs there"
            )
        return cosplace_classes(self.photos(folder), **self.profile.classes.__dict__)

    @cached_property
    def val(self) -> Dataset:
        """The validation streets. Epochs, soups and thresholds are chosen on them."""
        queries = find(self.root, "sf-xs", "val", "queries")
        database = find(self.root, "sf-xs", "val", "database")
        if queries is None or database is None:
            raise VgeoError(
                f"{self.root}: has no sf-xs/val with a database and queries: put them there as "
                "sf-xs has them"
            )
        return self._open("sf-xs val", queries, database)

    @cached_property
    def night(self) -> Photos:
        """A few night photos of other places than the queries', which gradient reversal trains
        on.
        """
        folder = Path(self.root, NIGHT_TARGET)
        if not folder.is_dir():
            raise VgeoError(
                f"{self.root}: has no {NIGHT_TARGET}: put a few night photos there, which gradient "
                "reversal trains on"
            )
        return self.photos(folder)

    @property
    def test_sets(self) -> dict[str, Dataset]:
        """The test sets that are there, by name."""
        return self._tests[0]

    @property
    def absent(self) -> dict[str, str]:
        """Why each other test set is not there."""
        return self._tests[1]

    @cached_property
    def _tests(self) -> tuple[dict[str, Dataset], dict[str, str]]:
        present, absent = {}, {}
        for name in DATASETS:
            queries = find(self.root, name, "test", "queries")
            database = find(self.root, name, "test", "database")
            if name == "tokyo-night" and database is None:  # its photos are looked up in tokyo-xs
                database = find(self.root, "tokyo-xs", "test", "database")
            if queries is not None and database is not None:
                present[name] = self._open(name, queries, database)
                continue
            folders = {"queries": queries, "database": database}
            missing = " and ".join(kind for kind, folder in folders.items() if folder is None)
            absent[name] = f"no {name}/test {missing} in {self.root.name}"
        if {"tokyo-xs", "tokyo-night"} <= set(present):
            present["tokyo-night"] = _as_part(present["tokyo-night"], present["tokyo-xs"])
        return present, absent

    def photos(self, folder: Path) -> Photos:
        """The photos of a folder, read and checked once."""
        if folder not in self._photos:
            photos = read_photos(folder)
            check_images(photos.paths)
            self._photos[folder] = photos
        return self._photos[folder]

    def identities(self) -> dict[str, str]:
        """One line for each data set: what its results were measured on, or why it is absent."""
        tests = {name: str(data.identity) for name, data in self.test_sets.items()}
        return {"sf-xs val": str(self.val.identity), **tests, **self.absent}

    def label(self, photos: Photos) -> str:
        """The folder of photos, relative to the data sets', for messages."""
        folder = Path(photos.root)
        return str(
            folder.relative_to(self.root) if folder.is_relative_to(self.root) else folder.name
        )

    def _open(self, name: str, queries: Path, database: Path) -> Dataset:
        radius = self.profile.testing.radius
        return pair_up(name, self.photos(queries), self.photos(database), radius)


def _as_part(night: Dataset, day: Dataset) -> Dataset:
    """The night set as a part of tokyo-xs where its queries are some of tokyo-xs's.

    No photo is then described twice.
    """
    rows = pd.Series(
        range(len(day.queries)), [os.path.basename(path) for path in day.queries.paths]
    )
    names = [os.path.basename(path) for path in night.queries.paths]
    if rows.index.is_unique and set(names) <= set(rows.index):
        return day.part(night.name, np.asarray(rows[names], np.int64))
    return night
