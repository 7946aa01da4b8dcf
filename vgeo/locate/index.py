"""A photo goes in, its place comes out: an index of photos with known positions, and for any photo a position and how sure it is."""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from scipy.spatial import cKDTree
from tqdm.auto import tqdm

from vgeo.device import device
from vgeo.errors import VgeoError
from vgeo.files import key
from vgeo.locate.confidence import Calibration, fit
from vgeo.locate.store import Store, photo_key, user_cache
from vgeo.models.geowarp import GRID, local_features
from vgeo.models.network import normalise
from vgeo.models.weights import weights_hash
from vgeo.photos.images import check_images, load_batches
from vgeo.photos.names import utm_projection
from vgeo.photos.places import positions
from vgeo.report.original import DATA
from vgeo.retrieval.search import search

RADIUS = 25.0  # metres: an answer is right within


SHORTLIST = 20  # nearest photos whose local features are compared; this and REACH were chosen on validation photos, see tests/benchmarks/locate.py


REACH = 3  # cells of the GRID that a detail may lie elsewhere in the other photo


SHOWN = 5  # matches that are shown


SAME_PLACE = 2.0  # metres: photos of one month so near each other are of one moment, crops of one panorama for example


HELD_OUT = 1000  # photos at most that the confidence is calibrated on


ENOUGH = 20  # right answers, and wrong ones, that a calibration needs: 7 for each of FEATURES (Vittinghoff and McCulloch, 2007)


FEATURES = ("similarity", "lead", "agreement")


SHIPPED = (
    DATA / "locate.json"
)  # image size and calibration of the packaged weights, made by tests/benchmarks/locate.py


PUBLISHED_SIZE = 512  # pixels: what weights without a recipe, CosPlace's, were trained with


@dataclass(frozen=True)
class Answers:
    """What an index says of Q photos, K matches each, the first of which is the answer.

    rows: int64 (Q, K), photos of the index; similarity: float32 (Q, K), of local features, falling, at most 1; features: float64 (Q, 3), see
    FEATURES: the first match's similarity; by how much it leads the best match of another place, over RADIUS away from it; the share of the
    first SHOWN matches within RADIUS of it. xy: float64 (Q, 2), the answers' UTM east and north, metres.
    """

    rows: np.ndarray
    similarity: np.ndarray
    features: np.ndarray
    xy: np.ndarray


@dataclass(frozen=True)
class HeldOut:
    """Photos of an index that were asked for without themselves.

    photos: their rows, int64 (Q,); answers; right: bool (Q,); nearest: metres to the nearest photo that might answer, float64 (Q,).
    """

    photos: np.ndarray
    answers: Answers
    right: np.ndarray
    nearest: np.ndarray


class Index:
    """Photos with known positions, each described once: what was described before is read from the cache.

    photos: a table of `datasets.read_images` with a UTM zone; model: a GeoModel; size: pixels, both sides, that images are resized to; cache: the
    folder of descriptions, the user's cache folder by default. `described` counts the photos that were not in the cache. Raises VgeoError for
    an unreadable photo before anything is described.
    """

    def __init__(self, photos, model, size, cache=None):
        if photos.attrs.get("zone") is None:
            raise VgeoError(
                f"{photos.attrs.get('root')}: metres without a UTM zone have no latitude: list the photos as file,lat,lon"
            )
        self.photos, self.model, self.size, self.xy = (
            photos,
            model.to(device()).eval(),
            size,
            positions(photos),
        )
        # the stage whose map is the nearest to the grid of local features in size: stride 8 for 128 pixels, 32 for 512
        maps, sides = torch.zeros(1, 3, size, size, device=device()), []
        with torch.inference_mode():
            for stage in model.stages:
                maps = stage(maps)
                sides.append(maps.shape[-1])
        self.stages = 1 + min(reversed(range(len(sides))), key=lambda i: abs(sides[i] - GRID))
        recipe = {
            "weights": weights_hash(model),
            "size": size,
            "stages": self.stages,
            "grid": GRID,
            "version": 1,
        }
        self.store = Store(Path(cache or user_cache()) / f"{key(recipe)}.sqlite")
        self.keys, self.described = self.describe(list(photos["path"]), "index")
        self.descriptors = self.store.descriptors(self.keys)

    def describe(self, paths, progress=None):
        """(keys, how many of the photos were not in the store); all are then in it. Written batch by batch: a stopped run keeps them."""
        keys = [photo_key(path) for path in paths]
        new = {k: path for k, path in zip(keys, paths) if not self.store.has(k)}
        check_images(new.values())
        names, where = list(new), next(self.model.parameters()).device
        self.model.to(memory_format=torch.channels_last)
        with (
            torch.inference_mode(),
            tqdm(
                total=len(new),
                desc=progress,
                unit=" images",
                disable=not new or progress is None,
                leave=False,
            ) as bar,
        ):
            for indices, images in load_batches(new.values(), 32, self.size):
                maps = self.model.features(
                    normalise(images.to(where)).contiguous(memory_format=torch.channels_last),
                    self.stages,
                )
                descriptors, local = (
                    self.model.head(self.model.stages[self.stages :](maps)),
                    local_features(maps),
                )
                self.store.put(
                    [names[i] for i in indices],
                    descriptors.cpu().numpy(),
                    local.half().cpu().numpy(),
                )
                bar.update(len(indices))
        return keys, len(new)

    def locate(self, paths):
        """The Answers for photos."""
        return self.answers(self.describe(paths, "queries")[0])

    def answers(self, keys, without=None):
        """The Answers for described photos. without: for each the rows of the index that may not answer, itself for example.

        The SHORTLIST nearest by their descriptors, ordered by the similarity of their local features.
        """
        left = len(self.photos) - max(map(len, without), default=0) if without else len(self.photos)
        k = min(SHORTLIST, left)
        rows = search(self.descriptors, self.store.descriptors(keys), k + len(self.photos) - left)[
            0
        ]
        if without:
            rows = np.stack(
                [found[~np.isin(found, barred)][:k] for found, barred in zip(rows, without)]
            )
        alike = np.stack(
            [
                similarity(
                    self.store.local([name])[0], self.store.local([self.keys[row] for row in found])
                )
                for name, found in zip(keys, rows)
            ]
        )
        order = np.argsort(-alike, axis=1, kind="stable")
        rows, alike = np.take_along_axis(rows, order, 1), np.take_along_axis(alike, order, 1)
        there = self.xy[rows]
        near = np.linalg.norm(there - there[:, :1], axis=2) <= RADIUS
        other = np.where(near.all(1), alike[:, -1], np.where(near, -1, alike).max(1))
        features = np.stack([alike[:, 0], alike[:, 0] - other, near[:, :SHOWN].mean(1)], 1).astype(
            float
        )
        return Answers(rows, alike, features, there[:, 0])

    def held_out(self):
        """The HeldOut answers for photos of the index, HELD_OUT of them at random where there are more; None where nothing is left to answer.

        A photo is asked for without all that was taken at the same place in the same month: a query is of another moment.
        """
        chosen = np.sort(np.random.default_rng(0).permutation(len(self.photos))[:HELD_OUT])
        month = self.photos["month"].to_numpy()
        tree = cKDTree(self.xy)
        without = [
            np.array([row for row in rows if month[row] == month[photo]])
            for photo, rows in zip(chosen, tree.query_ball_point(self.xy[chosen], SAME_PLACE))
        ]
        most = max(map(len, without))
        if len(self.photos) <= most:
            return None
        answers = self.answers([self.keys[photo] for photo in chosen], without)
        away = [
            metres[~np.isin(rows, barred)][0]
            for metres, rows, barred in zip(*tree.query(self.xy[chosen], most + 1), without)
        ]
        return HeldOut(
            chosen,
            answers,
            np.linalg.norm(answers.xy - self.xy[chosen], axis=1) <= RADIUS,
            np.array(away),
        )

    def calibrate(self):
        """(Calibration, words on what it was fitted to): to the held-out photos, or, where they are too few, the packaged weights' own; (None, words)
        where there is neither."""
        held = self.held_out()
        hits, misses = (int(held.right.sum()), int((~held.right).sum())) if held else (0, 0)
        if min(hits, misses) >= ENOUGH:
            words = (
                f"calibrated on {hits + misses} of your photos, each held out in turn with what was taken there in the same month: {100 * held.right.mean():.0f} % "
                f"were placed within {RADIUS:g} m; half of them had another photo within {np.median(held.nearest):.0f} m"
            )
            return fit(held.answers.features, held.right), words
        shipped, few = (
            json.loads(SHIPPED.read_text()),
            f"held out, your photos give {hits} right and {misses} wrong answers, {ENOUGH} of each are needed",
        )
        if (shipped["weights"], shipped["size"]) == (weights_hash(self.model), self.size):
            return Calibration(
                **shipped["calibration"]
            ), f"{few}: calibrated on {shipped['made_of']} instead, which may not hold for yours"
        return None, f"{few}: no confidence can be given for these weights"

    def degrees(self, xy):
        """(lat, lon), float64 (Q,) each, WGS84 degrees, of UTM metres (Q, 2) in the index's zone."""
        lon, lat = utm_projection(self.photos.attrs["zone"], self.photos.attrs["south"])(
            xy[:, 0], xy[:, 1], inverse=True
        )
        return np.asarray(lat), np.asarray(lon)


def similarity(query, matches):
    """How alike the local features of a photo (C, GRID, GRID) are to those of others (K, C, GRID, GRID) -> float32 (K,), at most 1.

    For every feature of the query the best inner product with one at most REACH cells away; their mean. A street seen from some steps aside has the
    same details a little elsewhere.
    """
    query, matches = (torch.from_numpy(np.asarray(x)).float() for x in (query, matches))
    products = torch.einsum("cn,kcm->knm", query.flatten(1), matches.flatten(2))
    return products.masked_fill(_apart() > REACH, -1).amax(2).mean(1).numpy()


@cache
def _apart():
    """Cells between all positions of the grid, the larger of rows and columns -> int64 (GRID * GRID, GRID * GRID)."""
    at = torch.cartesian_prod(torch.arange(GRID), torch.arange(GRID))
    return (at[:, None] - at).abs().amax(-1)
