"""TODO: city.plan."""

import zlib
from dataclasses import dataclass

import numpy as np

SPACING = 100.0  # metres between parallel streets: two CosPlace group cells (N = 5 cells of 10 m)


VERSION = 3  # raise when the same plan gives other pixels


# UTM east, north, zone and band of the first crossing: the middle of a CosPlace cell, so that streets run through cells
SAN_FRANCISCO_ORIGIN = (546005.0, 4176005.0, 10, "S")


TOKYO_ORIGIN = (382005.0, 3946005.0, 54, "S")


PRETRAIN_ORIGIN = (500005.0, 5400005.0, 31, "U")


@dataclass(frozen=True)
class Plan:
    """How large the city is.

    Districts are of one block: 400 m of streets, 40 panoramas (480 crops), 48 CosPlace classes in one group. A part
    (train, val, test, tokyo) has room for 200 of them.
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
    tokyo_places: int = 105
    night_target: int = 8
    heading_step: int = 30  # degrees between the crops of a panorama


def _month(rng, first, last):
    return int(rng.integers(first, last + 1)) * 100 + int(rng.integers(1, 13))


def _task(seed, *key):
    """A generator for one image, from the plan's seed and what the image is; names hash the same everywhere."""
    return np.random.default_rng(
        [seed, *(zlib.crc32(k.encode()) if isinstance(k, str) else k for k in key)]
    )
