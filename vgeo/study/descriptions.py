"""Descriptors of whole folders of photos, each made once for a model, a scale and a brightness."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from vgeo.device import device, precision
from vgeo.models.network import GeoModel, build, folded, trunk_hash
from vgeo.models.weights import load_weights, weights_hash
from vgeo.photos.tables import Photos
from vgeo.retrieval.describe import describe, describe_stored, store_trunk
from vgeo.retrieval.metrics import first_hit, recall
from vgeo.retrieval.search import search
from vgeo.study.cache import Cache
from vgeo.study.data import Data
from vgeo.study.profiles import Profile

CODE = ("vgeo.retrieval.describe",)
VALIDATION_CODE = (*CODE, "vgeo.retrieval.search", "vgeo.retrieval.metrics")


@dataclass(frozen=True)
class _Ready:
    """A model that describes many sets of photos: `folded` once, with the hash of its trunk."""

    model: GeoModel
    trunk: str

    @classmethod
    def of(cls, model: GeoModel) -> "_Ready":
        return cls(folded(model), trunk_hash(model))


class Descriptions:
    """Describes photos with models in weights files, and validates models in memory."""

    def __init__(self, profile: Profile, data: Data, cache: Cache):
        self.profile, self.data, self.cache = profile, data, cache
        self._hashes: dict[tuple, str] = {}
        self._loaded: tuple[str, _Ready] | None = None

    def folder(
        self, weights: Path, backbone: str, photos: Photos, scale=1.0, brightness=1.0
    ) -> Path:
        """The folder whose `descriptors.npy`, float32 (N, D), describes the photos."""
        recipe = {
            "weights": self.hash(weights),
            "backbone": backbone,
            "images": photos.fingerprint,
            "size": self.profile.test_size,
            "scale": scale,
            "brightness": brightness,
            "stored": self.profile.stores_trunk,
            "precision": precision(),
        }
        label = (
            f"describe {self.data.label(photos)} {recipe['weights'][:6]}{words(scale, brightness)}"
        )

        def make(folder: Path) -> None:
            ready = self._ready(weights, backbone)
            np.save(folder / "descriptors.npy", self._describe(ready, photos, scale, brightness))

        return self.cache.step("descriptors", label, recipe, make, CODE, together=True)

    def describe(self, model: GeoModel, photos: Photos, scale=1.0, brightness=1.0) -> np.ndarray:
        """Descriptors, float32 (N, D), by a model in memory; from the stored trunk where the
        profile has one.
        """
        return self._describe(_Ready.of(model), photos, scale, brightness)

    def _describe(self, ready: _Ready, photos: Photos, scale=1.0, brightness=1.0) -> np.ndarray:
        model = ready.model
        size, paths = self.profile.test_size, photos.paths
        name = f"{self.data.label(photos)}{words(scale, brightness)}"
        if size is None or not self.profile.stores_trunk:
            how = size, scale, brightness, None, f"describe {name}", precision()
            return describe(model, paths, *how)
        recipe = {
            "trunk": ready.trunk,
            "images": photos.fingerprint,
            "size": size,
            "scale": scale,
            "brightness": brightness,
            "precision": precision(),
        }
        label = f"trunk {name} {model.backbone_name}"

        def make(folder: Path) -> None:
            how = size, scale, brightness, None, label, precision()
            store_trunk(model, paths, folder / "trunk.npy", *how)

        folder = self.cache.step("trunks", label, recipe, make, CODE)
        maps = np.load(folder / "trunk.npy", mmap_mode="r")
        return describe_stored(model, maps, precision=precision())

    def validate(self, model: GeoModel) -> float:
        """R@1 in percent of a model on the validation streets."""
        val, ready = self.data.val, _Ready.of(model)
        database, queries = (self._describe(ready, each) for each in (val.database, val.queries))
        return recall(first_hit(search(database, queries, 1)[0], val.positives), 1)

    def validation(self) -> dict:
        """What `validate` depends on beside the model and VALIDATION_CODE, for recipes."""
        val = self.data.val
        return {
            "val": [val.queries.fingerprint, val.database.fingerprint],
            "val_size": self.profile.test_size,
            "val_precision": precision(),
            "radius": self.profile.testing.radius,
        }

    def hash(self, weights: Path) -> str:
        """`weights_hash` of a file, computed again when the file has changed."""
        status = weights.stat() if weights.exists() else None
        key = (weights, status and (status.st_mtime_ns, status.st_size, status.st_ino))
        if key not in self._hashes:
            self._hashes[key] = weights_hash(weights)
        return self._hashes[key]

    def _ready(self, weights: Path, backbone: str) -> _Ready:
        """The model of a weights file. The last one is kept: consecutive calls use the same one."""
        key = self.hash(weights)
        if self._loaded is None or self._loaded[0] != key:
            self._loaded = None  # frees the memory before the next model is loaded
            self._loaded = key, _Ready.of(load(weights, backbone))
        return self._loaded[1]


def load(weights: Path, backbone: str) -> GeoModel:
    """The model of a weights file, on the device, in evaluation mode."""
    model = load_weights(build(backbone), weights)
    return model.to(device()).to(memory_format=torch.channels_last).eval()


def words(scale: float, brightness: float) -> str:
    """Scale and brightness for a label; nothing where both are 1."""
    at_scale = f" at scale {scale:g}" if scale != 1 else ""
    return at_scale + (f" at brightness {brightness:g}" if brightness != 1 else "")
