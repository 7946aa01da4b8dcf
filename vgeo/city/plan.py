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

    Districts are of one block: 400 m of streets, 40 panoramas (480 crops), 48 CosPlace classes in
    one group. A part (train, val, test, tokyo) has room for 200 of them.
    """

    size: int = 96  # pixels, width and height
    seed: int = 1
    train_districts: int = 16
    images_per_class: int = 10
    val_districts: int = 1
    val_queries: int = 200
    test_districts: int = 1
    test_queries: int = 300
    tokyo_districts: int = 1
    tokyo_places: int = 105  # each photographed by day, at sunset and at night
    night_target: int = 8
    heading_step: int = 30  # degrees between the crops of a panorama


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
