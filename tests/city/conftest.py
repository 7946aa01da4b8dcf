"""A small rendered city, streets without anything before the walls, and corners of walls."""

import numpy as np
import pytest

from vgeo.city.district import District
from vgeo.city.light import Light
from vgeo.city.paint import SAN_FRANCISCO
from vgeo.city.plan import Plan
from vgeo.city.write import write_city


@pytest.fixture(scope="session")
def plan():
    return Plan(
        size=48,
        seed=5,
        train_districts=2,
        images_per_class=1,
        val_blocks=1,
        val_queries=10,
        test_blocks=2,
        test_queries=10,
        tokyo_blocks=1,
        tokyo_places=12,
        night_target=4,
        panorama_step=25.0,
        heading_step=90,
    )


@pytest.fixture(scope="session")
def root(plan, tmp_path_factory):
    """The folder of the rendered plan."""
    root = tmp_path_factory.mktemp("city")
    write_city(plan, root, progress=False, processes=1)
    return root


@pytest.fixture(scope="session")
def even():
    """Light from everywhere, under a sky of pure blue, for a camera without noise."""
    white, black, up = (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), (0.0, 0.0, 1.0)
    return Light(white, black, sun=up, zenith=up, horizon=up, haze=0.0, cloud=0.0, noise=0.0)


@pytest.fixture(scope="session")
def empty_streets():
    """A district in which nothing stands before the walls, when it is photographed with crowd=0."""
    district = District(3, SAN_FRANCISCO, 1, 12)
    rows = district.furniture, district.signs, district.slots
    district.furniture, district.signs, district.slots = (each[:0] for each in rows)
    return district


@pytest.fixture(scope="session")
def corners():
    def corners(left, right, high, low=0.0):
        """A wall's corners in space, (4, 3): left and right top, right and left bottom."""
        return np.array([(*left, high), (*right, high), (*right, low), (*left, low)])

    return corners
