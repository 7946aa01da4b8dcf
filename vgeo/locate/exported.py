"""An index as one file that can be handed on: descriptions, names and positions, but no photo."""

import json
import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from vgeo.errors import VgeoError, printable
from vgeo.files import replacing
from vgeo.locate.confidence import Calibration
from vgeo.locate.index import BATCH, SHORTLIST, Index
from vgeo.locate.store import Store
from vgeo.models.network import GeoModel
from vgeo.models.peers import Peer
from vgeo.photos.images import FilePath
from vgeo.photos.tables import COLUMNS, Photos

# The table of places holds COLUMNS of each photo, the name in place of the path. Photo N of it is
# under the key N, in decimal digits, in the table of descriptions.
PLACES = "CREATE TABLE places (name TEXT, utm_east REAL, utm_north REAL, heading REAL, month INT)"
START = b"SQLite format 3\0"


def export(index: Index, path: FilePath, name: str) -> None:
    """Writes an index to one file (SQLite), which `ExportedIndex` reads.

    The file holds the photos' names, positions, headings, months and descriptions, the model's
    identity, and the calibration. It holds no photo. Names are relative to the photos' folder.

    Parameters
    ----------
    name : the model's name and image size, for people.
    """
    calibration, explanation = index.calibrate()
    about = {
        "model": index.recipe,
        "name": name,
        "zone": index.photos.zone,
        "south": index.photos.south,
        "calibration": calibration and asdict(calibration),
        "explanation": explanation,
    }
    table = index.photos.table.assign(name=[printable(name) for name in index.photos.names])
    rows = table[["name", *list(COLUMNS)[1:]]].astype(object).values.tolist()
    try:
        with replacing(path) as temporary:
            store = Store(temporary)
            with closing(store.connection) as connection:
                connection.execute(PLACES)
                connection.executemany("INSERT INTO places VALUES (?, ?, ?, ?, ?)", rows)
                connection.execute("CREATE TABLE about (json TEXT)")
                connection.execute("INSERT INTO about VALUES (?)", (json.dumps(about),))
                connection.commit()
                _copy(index, store)
    except sqlite3.Error as error:
        raise VgeoError(
            f"{path}: can't be written ({error}): free some space or give another file"
        ) from error


def _copy(index: Index, store: Store) -> None:
    """Puts the index's descriptions into another store, under `_key` of their rows."""
    known = index.store
    for first in range(0, len(index.keys), BATCH):
        keys = index.keys[first : first + BATCH]
        rows = [_key(first + k) for k in range(len(keys))]
        brightness = known.brightness(keys).tolist()
        store.put(rows, known.descriptors(keys), known.points(keys), brightness)


def is_sqlite(path: FilePath) -> bool:
    """Whether a path is of a SQLite file: of one that `export` wrote, or of another."""
    if not os.path.isfile(path):
        return False
    with open(path, "rb") as file:
        return file.read(len(START)) == START


def is_index(path: FilePath) -> bool:
    """Whether a path is of a file that `export` wrote, by its tables."""
    if not is_sqlite(path):
        return False
    try:
        uri = Path(path).resolve().as_uri()
        with closing(sqlite3.connect(f"{uri}?mode=ro", uri=True)) as connection:
            found = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            return {"about", "places"} <= {name for (name,) in found}
    except sqlite3.Error:
        return False


class ExportedIndex(Index):
    """The Index that `export` wrote to a file.

    The photos' paths are their names below the file's own path, where no photo can be. Descriptions
    of queries are kept in temporary files.

    Parameters
    ----------
    path : the file.
    model, size : as for `Index`. They must be those that the file was made with.
    keep : chooses the photos to search. The whitening and the calibration are of all photos.

    Raises
    ------
    VgeoError : the file is of another program, damaged, or made with another model; or as `keep`
        does.
    """

    def __init__(
        self,
        path: FilePath,
        model: GeoModel | Peer,
        size: int,
        keep: Callable[[Photos], Photos] = lambda photos: photos,
    ):
        self._describe_with(model, size, SHORTLIST)
        made_here = json.loads(json.dumps(self.recipe))
        self.store, self.skipped = Store(None), {}
        try:
            self.store.read_also(Path(path))
            ((text,),) = self.store.connection.execute("SELECT json FROM kept.about")
            rows = self.store.connection.execute("SELECT * FROM kept.places").fetchall()
            lengths = "SELECT DISTINCT length(points) FROM kept.photos"
            if len(self.store.connection.execute(lengths).fetchall()) > 1:
                raise ValueError("photos have different numbers of points")
            self.about: dict[str, Any] = json.loads(text)
            made_with, name = self.about["model"], self.about["name"]
            if made_with == made_here:
                table = pd.DataFrame(rows, columns=list(COLUMNS)).astype(COLUMNS)
                table["path"] = [f"{os.fspath(path)}/{file}" for file in table["path"]]
                zone, south = self.about["zone"], self.about["south"]
                if zone not in (None, *range(1, 61)):
                    raise ValueError(f"UTM zone {zone}")
                photos = Photos(table, os.fspath(path), zone, south)
                self._hold(photos, [_key(row) for row in range(len(photos))])
        except (sqlite3.Error, LookupError, TypeError, ValueError) as error:
            raise VgeoError(
                f"{path}: is no index of vgeo locate, or is damaged ({error}): make it again with "
                "--index"
            ) from error
        if made_with != made_here:
            raise VgeoError(
                f"{path}: was made with {name}, whose weights or sizes are not those used here: "
                "give the --model or --weights that it was made with"
            )
        near = keep(photos)
        rows_near = np.flatnonzero(photos.table["path"].isin(near.paths))
        self.photos, self.xy, self.descriptors = near, near.xy, self.descriptors[rows_near]
        self.keys = [self.keys[row] for row in rows_near]

    def calibrate(self) -> tuple[Calibration | None, str]:
        """The Calibration that was fitted when the file was made, and what it was fitted to."""
        values = self.about["calibration"]
        return values and Calibration.of(values), self.about["explanation"]


def _key(row: int) -> bytes:
    return str(row).encode()
