"""Classes of places to train on, and queries with the database photos that are right for them."""

import hashlib
import os
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from vgeo.errors import VgeoError
from vgeo.photos.images import FilePath
from vgeo.photos.names import zone_name
from vgeo.photos.tables import Photos, read_photos

Rows = npt.NDArray[np.int64]


def positives(queries: Photos, database: Photos, radius: float = 25.0) -> list[Rows]:
    """For each query the sorted rows, int64, of the database photos within `radius` metres of it.

    A photo at exactly `radius` is within.
    """
    near = cKDTree(database.xy).query_ball_point(queries.xy, radius, return_sorted=True)
    return [np.array(rows, np.int64) for rows in near]


@dataclass(frozen=True, eq=False)
class Classes:
    """The photos of one CosPlace group and their classes.

    Attributes
    ----------
    photos : N photos.
    labels : int64 (N,), the class of each, 0 to count - 1.
    group : the group's east index, north index and heading index.
    """

    photos: Photos
    labels: Rows
    group: tuple[int, int, int]

    @property
    def count(self) -> int:
        """How many classes there are."""
        return int(self.labels.max()) + 1

    def __str__(self) -> str:
        return f"{len(self.photos)} images, {self.count} classes, group {self.group}"


def cosplace_classes(
    photos: Photos,
    cell: float = 10.0,
    angle: float = 30.0,
    n: int = 5,
    l: int = 2,  # noqa: E741  (the paper's letter)
    min_images: int = 10,
) -> Classes:
    """The photos of the CosPlace group with most classes, in the photos' order.

    A class is (floor(east / cell), floor(north / cell), floor(heading / angle)). Classes of fewer
    than `min_images` photos are dropped. A group holds the classes of equal (east index mod n,
    north index mod n, heading index mod l). Two of its classes lie at least (n - 1) * cell metres
    or, where angle * l divides 360, (l - 1) * angle degrees apart. Of equally large groups the
    lowest is taken.

    Parameters
    ----------
    cell : M, metres.
    angle : alpha, degrees.

    Raises
    ------
    VgeoError : a heading is unknown, or no class is left.

    References
    ----------
    Berton et al., Rethinking Visual Geo-localization for Large-Scale Applications, CVPR 2022,
    section 3.
    """
    if not (cell > 0 and angle > 0 and n >= 1 and l >= 1):
        raise VgeoError(
            f"CosPlace classes of cell {cell}, angle {angle}, n {n}, l {l}: all must be positive"
        )
    table = photos.table
    blind = table["heading"].isna()
    if blind.any():
        raise VgeoError(
            f"{table['path'][blind].iloc[0]}: has no heading, nor have {blind.sum() - 1} others of "
            f"{len(table)} images: classes need it in the name or the CSV"
        )
    columns = table[["utm_east", "utm_north", "heading"]].to_numpy(float)
    keys = np.floor(columns / [cell, cell, angle]).astype(np.int64)
    classes, of_image, count = np.unique(keys, axis=0, return_inverse=True, return_counts=True)
    of_image, large = of_image.ravel(), count >= min_images
    if not large.any():
        raise VgeoError(
            f"{photos.root}: no class has {min_images} images (the largest has "
            f"{count.max(initial=0)}): lower min_images, widen cell ({cell:g} m) or angle "
            f"({angle:g}), or add images"
        )
    groups, of_class, sizes = np.unique(
        classes[large] % [n, n, l], axis=0, return_inverse=True, return_counts=True
    )
    best = sizes.argmax()
    label = np.full(len(classes), -1)
    label[np.flatnonzero(large)[of_class.ravel() == best]] = np.arange(sizes[best])
    labels = label[of_image]
    kept = np.flatnonzero(labels >= 0)
    return Classes(photos.take(kept), labels[kept], tuple(groups[best].tolist()))


@dataclass(frozen=True)
class Identity:
    """What a result was measured on.

    Attributes
    ----------
    queries, database : how many photos.
    no_positive : how many queries have no right answer.
    files : SHA-256 of the sorted file names, relative to their folders.
    """

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


@dataclass(frozen=True, eq=False)
class Dataset:
    """Queries, the database they are looked up in, and the right answers.

    Attributes
    ----------
    positives : for each query the database rows that are right, see `positives`.
    whole : the data set that this one is a part of: its queries are some of `whole`'s, looked up in
        the same database. None where it is no part.
    rows : int64 (Q,), the queries' rows in `whole`. None where it is no part.
    """

    name: str
    queries: Photos
    database: Photos
    positives: list[Rows]
    whole: "Dataset | None" = None
    rows: Rows | None = None

    def part(self, name: str, rows: Rows) -> "Dataset":
        """The data set of some of the queries, by their rows."""
        right = [self.positives[row] for row in rows]
        return Dataset(name, self.queries.take(rows), self.database, right, self, rows)

    @property
    def identity(self) -> Identity:
        """Counts and a hash of the file names."""
        digest = hashlib.sha256()
        for role, photos in (("queries", self.queries), ("database", self.database)):
            files = sorted(name.replace(os.sep, "/") for name in photos.names)
            digest.update("\n".join([role, *files, ""]).encode())
        alone = sum(len(rows) == 0 for rows in self.positives)
        return Identity(self.name, len(self.queries), len(self.database), alone, digest.hexdigest())


def pair_up(name: str, queries: Photos, database: Photos, radius: float = 25.0) -> Dataset:
    """The Dataset of queries and a database.

    Queries of the next UTM zone, or of the other hemisphere, are put into the database's zone.

    Raises
    ------
    VgeoError : their UTM zones are no neighbours, or no query has a database photo within `radius`
        metres.
    """
    here, there = (queries.zone, queries.south), (database.zone, database.south)
    if queries.zone and database.zone and here != there:
        if (queries.zone - database.zone) % 60 not in (0, 1, 59):
            raise VgeoError(
                f"{name}: {queries.root} is in UTM zone {zone_name(*here)}, {database.root} in "
                f"{zone_name(*there)}: give both as utm_east, utm_north of one zone"
            )
        queries = queries.in_zone(database.zone, database.south)
    right = positives(queries, database, radius)
    if not any(map(len, right)):
        nearest = cKDTree(database.xy).query(queries.xy)[0].min()
        raise VgeoError(
            f"{name}: no query in {queries.root} has an image of {database.root} within "
            f"{radius:g} m (nearest: {nearest:.0f} m away): check that both folders show the same "
            "streets"
        )
    return Dataset(name, queries, database, right)


def open_dataset(
    name: str, queries_source: FilePath, database_source: FilePath, radius: float = 25.0
) -> Dataset:
    """`pair_up` of two sources that `read_photos` takes, with the errors of both."""
    queries = read_photos(queries_source, "queries")
    return pair_up(name, queries, read_photos(database_source, "database images"), radius)
