"""The study: a profile, its data, and everything that is made of them."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np

from vgeo.errors import VgeoError
from vgeo.models.network import GeoModel
from vgeo.models.weights import CITY_WEIGHTS
from vgeo.photos.tables import Photos
from vgeo.study import costs, descriptions, folders
from vgeo.study.cache import Cache
from vgeo.study.data import Data
from vgeo.study.evaluation import Evaluations
from vgeo.study.profiles import Profile, profile, starting
from vgeo.study.trainings import TrainedModel, Trainings


class Study:
    """A profile, the photos it runs on and the folders it uses.

    Parameters
    ----------
    name : a name of `profiles.PROFILES`, or a Profile.
    data : a folder laid out as the original's data sets are. None: the city is rendered.
    image_size : pixels, both sides, instead of the profile's; 32 to 4096.
    seeds : how often every training is repeated, instead of the profile's number; 1 to 100.
    start : "imagenet" for ImageNet's weights, downloaded once, instead of the profile's.
    results : the folder of tables and figures; see `folders.results_of` for the default.
    cache : the folder of what can be made again, shared by all runs; runs/cache by default.
    weights : the folder of the starting weights; the package's by default.

    Raises
    ------
    VgeoError : a value is out of range, or data are needed and not given.
    """

    def __init__(
        self,
        name: str | Profile,
        data: str | os.PathLike | None = None,
        image_size: int | None = None,
        seeds: int | None = None,
        start: str | None = None,
        *,
        results: str | os.PathLike | None = None,
        cache: str | os.PathLike | None = None,
        weights: str | os.PathLike = CITY_WEIGHTS,
    ):
        self.profile = name if isinstance(name, Profile) else profile(name)
        if seeds is not None:
            _check("seeds", seeds, 1, 100, "how often every training is repeated")
            self.profile = replace(self.profile, seeds=tuple(range(seeds)))
        if image_size is not None:
            _check("image size", image_size, 32, 4096, "pixels; the networks' stride is 32")
            self.profile = replace(self.profile, image_size=image_size, test_size=image_size)
        own = self.profile.weights
        self.profile = starting(self.profile, start)
        other = self.profile.weights if self.profile.weights != own else None
        self.results = Path(results or folders.results_of(self.profile.name, data, other))
        root = Path(cache or folders.cache_of())
        self.cache = Cache(root, root / "journals" / f"{self.results.name}.jsonl")
        self.data = Data(self.profile, data, self.cache)
        self.descriptions = descriptions.Descriptions(self.profile, self.data, self.cache)
        parts = (self.profile, self.data, self.descriptions)
        self.trainings = Trainings(*parts, self.cache, Path(weights))
        self.evaluations = Evaluations(*parts, self.trainings, self.cache)
        self.train, self.soup, self.start = (
            self.trainings.train,
            self.trainings.soup,
            self.trainings.start,
        )
        self.load_warp = self.trainings.load_warp
        self.search, self.rerank = self.evaluations.search, self.evaluations.rerank
        self.evaluate = self.evaluations.evaluate

    def load(self, model: TrainedModel) -> GeoModel:
        """The network of a trained model, on the device, in evaluation mode."""
        return descriptions.load(model.weights, model.backbone)

    def describe(
        self, model: TrainedModel, photos: Photos, scale=1.0, brightness=1.0
    ) -> np.ndarray:
        """Descriptors, float32 (N, D), of photos by a trained model."""
        place = (model.weights, model.backbone, photos, scale, brightness)
        return np.load(self.descriptions.folder(*place) / "descriptors.npy")

    def measure_costs(self) -> dict[str, float]:
        """Ratios of times on this machine, see `costs.measure_costs`."""
        return costs.measure_costs(self.evaluations, self.cache)


def _check(name: str, number: object, low: int, high: int, meaning: str) -> None:
    """Raises VgeoError unless the number is a whole one from low to high."""
    if isinstance(number, bool) or not isinstance(number, int) or not low <= number <= high:
        raise VgeoError(f"{name} {number!r}: a whole number from {low} to {high} ({meaning})")
