"""A street of photos, and an empty cache, for the tests of `vgeo.locate`."""

import math

import pytest
from pyproj import Geod

from vgeo.models.network import build

LAT, LON = 37.77, -122.42


@pytest.fixture(scope="session")
def make_street(make_photos):
    """`make_street(folder, places=range(24), step=40.0)` writes `<place>.jpg` for each place.

    Place i lies i * step metres east of (LAT, LON). Its photo is of month i % 12 + 1 of 2019.
    Returns the folder.
    """

    def make(folder, places=range(24), step=40.0, **look):
        for place in places:
            lon, lat, _ = Geod(ellps="WGS84").fwd(LON, LAT, 90, step * place)
            made = {"kind": "exif", "headings": math.nan, "months": 201901 + place % 12}
            (path,) = make_photos(folder, [(lat, lon)], [place], size=(80, 60), **made, **look)
            path.rename(folder / f"{place:03}.jpg")
        return folder

    return make


@pytest.fixture(scope="session")
def model():
    """The packaged ResNet18."""
    return build("resnet18", "city").eval()


@pytest.fixture(autouse=True)
def cache_home(tmp_path_factory, monkeypatch):
    """The user's cache folder, empty at the start of every test."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder
