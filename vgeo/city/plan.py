"""How large the rendered city is, where it lies and where its streets run."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

SPACING = 100.0  # metres between parallel streets: two CosPlace group cells (N = 5 cells of 10 m)


class Origin(NamedTuple):
    """The first crossing of a district: UTM east and north in metres, zone and latitude band."""

    east: float
    north: float
    zone: int
    band: str


# Each part of a city begins in the middle of a CosPlace cell, so that streets run through cells.
# The parts of one city lie 3 km apart, more than the districts of one part reach.
ORIGINS = {
    "train": Origin(546005.0, 4176005.0, 10, "S"),  # San Francisco
    "val": Origin(546005.0, 4179005.0, 10, "S"),
    "test": Origin(546005.0, 4182005.0, 10, "S"),
    "tokyo": Origin(382005.0, 3946005.0, 54, "S"),
    "target": Origin(382005.0, 3955005.0, 54, "S"),
    "pretrain": Origin(500005.0, 5400005.0, 31, "U"),
}


@dataclass(frozen=True)
class Plan:
    """How large the city is.

    A district for training is one block: 400 m of streets, 48 CosPlace classes in one group. A
    district for tests is a square of blocks: n blocks in a row make 2 n (n + 1) SPACING of streets.
    """

    size: int = 96  # pixels, width and height
    seed: int = 1
    train_districts: int = 16  # at most 200
    images_per_class: int = 10
    val_blocks: int = 3  # in a row; 0 leaves the data set out
    val_queries: int = 200
    test_blocks: int = 4
    test_queries: int = 500
    tokyo_blocks: int = 4
    tokyo_places: int = 200  # each photographed by day, at sunset and at night
    night_target: int = 8
    panorama_step: float = 12.5  # metres between the panoramas of a database, a part of SPACING
    heading_step: int = 60  # degrees between the crops of a panorama


@dataclass(frozen=True)
class Street:
    """A straight street of a district; metres from the district's first crossing.

    Attributes
    ----------
    north : whether it runs north; east otherwise.
    middle : x of a street that runs north, y of one that runs east.
    half : half the distance between the houses on its two sides.
    """

    north: bool
    middle: float
    half: float

    def point(self, along, offset) -> np.ndarray:
        """(..., 2), x and y of points so far along the street and off its middle."""
        across = self.middle + offset
        return np.stack((across, along) if self.north else (along, across), -1)

    @property
    def axis(self) -> np.ndarray:
        """The unit vector along the street."""
        return np.array([0.0, 1.0] if self.north else [1.0, 0.0])

    @property
    def normal(self) -> np.ndarray:
        """The unit vector across the street."""
        return self.axis[::-1]
