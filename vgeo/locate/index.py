"""The index: photos with known positions, which give any other photo a position.

A photo's descriptor proposes the nearest photos of the index. Their local features then put them
into order, and the position of the first one is the answer. A published model has no local
features of ours: its descriptors give the order too.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.spatial import cKDTree

from vgeo.bars import bar
from vgeo.device import device
from vgeo.errors import VgeoError
from vgeo.files import code_hash, key
from vgeo.locate.confidence import Calibration, cross_fitted, fit
from vgeo.locate.store import open_store, photo_key
from vgeo.models.convert import open_model
from vgeo.models.geowarp import GRID, local_features
from vgeo.models.network import GeoModel, normalise
from vgeo.models.peers import Peer, open_peer
from vgeo.models.weights import CITY_WEIGHTS, weights_hash
from vgeo.photos.folders import refuse
from vgeo.photos.images import FilePath, load_batches, load_image, unreadable, unreadable_image, why
from vgeo.photos.names import utm_projection
from vgeo.photos.tables import Photos, read_photos
from vgeo.retrieval.search import search

RADIUS = 25.0  # metres: an answer nearer than this is right
# SHORTLIST and REACH were chosen on validation photos, see benchmarks/results/locate_choices.csv.
SHORTLIST = 20  # photos, the nearest by descriptor, whose local features are compared
REACH = 3  # cells of the 15 x 15 grid by which a detail may lie elsewhere in the other photo
SHOWN = 5  # matches that are shown, and that the third feature looks at
SAME_PLACE = 2.0  # metres: photos of one month that are so near each other show one moment
BATCH = 32  # photos that are described and stored together
HELD_OUT = 1000  # photos, at most, that the confidence is fitted to
# Right answers, and wrong ones, that a fit of the confidence needs: 7 for each of its three
# features (Vittinghoff and McCulloch, Relaxing the Rule of Ten Events per Variable, 2007).
ENOUGH = 20
PUBLISHED_SIZE = 512  # pixels: the image size of weights without a recipe, such as CosPlace's
SHIPPED = Path(__file__).parent / "calibration.json"  # written by benchmarks/locate.py
DESCRIBING = ("vgeo.models.network", "vgeo.models.geowarp", "vgeo.photos.images")


@dataclass(frozen=True, eq=False)
class Answers:
    """What an index says of Q photos: K matches each, of which the first is the answer.

    Attributes
    ----------
    predictions : int64 (Q, K), rows of the index's photos.
    similarity : float32 (Q, K), descending, at most 1: similarity of the local features; for a
        published model the inner product of the descriptors.
    features : float64 (Q, 3), what the confidence is computed from. The similarity of the first
        match; its lead over the best match more than RADIUS away from it; the share of the first
        SHOWN matches within RADIUS of it.
    xy : float64 (Q, 2), the answers: UTM east and north, metres.
    """

    predictions: np.ndarray
    similarity: np.ndarray
    features: np.ndarray
    xy: np.ndarray


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Q photos of an index that were used as queries, and what the rest of the index answered.

    Attributes
    ----------
    rows : int64 (Q,), their rows among the index's photos.
    answers : the rest's answers.
    right : bool (Q,), whether the answer is within RADIUS of the photo.
    nearest : float64 (Q,), metres to the nearest photo of the rest.
    xy : float64 (Q, 2), where the photos were taken: UTM east and north, metres.
    """

    rows: np.ndarray
    answers: Answers
    right: np.ndarray
    nearest: np.ndarray
    xy: np.ndarray

    def confidence(self, side: float = 100.0) -> np.ndarray:
        """The confidence of each answer, float64 (Q,), 0 to 1.

        It comes from a fit to the photos outside the photo's own square of `side` metres.
        """
        squares = np.unique(self.xy // side, axis=0, return_inverse=True)[1].ravel()
        return cross_fitted(self.answers.features, self.right, squares)


class Index:
    """Photos with known positions, described by a model.

    Descriptions are kept in the folder `cache`: a photo that is already described is not read
    again.

    Parameters
    ----------
    photos : the photos.
    model : describes them: a network of ours, or a published one.
    size : pixels, both sides, that images are resized to.
    cache : the folder of descriptions, by default `store.user_cache()`.
    shortlist : matches an answer, which the similarity puts into order.
    reach : cells that a detail may lie elsewhere in the other photo, see `similarity`. A published
        model has no such details.
    strict : whether a photo that can't be read is refused; it is skipped otherwise.

    Attributes
    ----------
    skipped : {file: why} of the photos that were left out, here or when the positions were read.
    xy : float64 (N, 2), the photos' UTM east and north, metres.
    descriptors : float32 (N, D).
    described : how many of the photos were not described yet.

    Raises
    ------
    VgeoError : a photo can't be read, which strict looks for before any is described; or, where
        such photos are skipped, none is left.
    """

    def __init__(
        self,
        photos: Photos,
        model: GeoModel | Peer,
        size: int,
        cache: str | Path | None = None,
        shortlist: int = SHORTLIST,
        reach: int = REACH,
        strict: bool = True,
    ):
        self.size = size
        self.shortlist, self.reach = shortlist, reach
        self.model = model.to(device()).eval()
        recipe: dict[str, Any] = {"size": size}
        if isinstance(self.model, Peer):
            recipe |= {"model": self.model.identity}
            code = code_hash(*DESCRIBING, "vgeo.models.peers")
        else:
            self.model.to(memory_format=torch.channels_last)
            self.stages = _stages_for_local_features(self.model, size)
            recipe |= {"weights": weights_hash(self.model), "stages": self.stages}
            code = code_hash(*DESCRIBING)
        name = key(recipe | {"code": code})
        self.store = open_store(f"{name}.sqlite", cache)
        self.described = 0
        unreadable = self.describe(photos.paths, "index", strict)
        self.skipped = photos.skipped | unreadable
        self.photos = photos.take([path not in unreadable for path in photos.paths])
        if not len(self.photos):
            refuse(unreadable, len(photos))
        self.xy = self.photos.xy
        self.keys = [photo_key(path) for path in self.photos.paths]
        self.descriptors = self.store.descriptors(self.keys)

    def locate(self, paths: Sequence[str]) -> Answers:
        """The answers for photos, which are described first. One that can't be read is refused."""
        self.describe(paths, "queries")
        return self._answers([photo_key(path) for path in paths])

    def describe(
        self, paths: Sequence[str], label: str = "photos", strict: bool = True
    ) -> dict[str, str]:
        """Describes the photos that are not in the store yet.

        Parameters
        ----------
        label : what the photos are, for the progress bar.
        strict : whether a photo that can't be read is refused.

        Returns
        -------
        {path: why} of the photos that can't be read.

        Raises
        ------
        VgeoError : where strict, names the first photo that can't be read.
        """
        missing: dict[str, bytes] = {}
        bad: dict[str, str] = {}
        for path in paths:
            try:
                photo = photo_key(path)
            except OSError as error:
                bad[path] = why(unreadable_image(path, error), path)
            else:
                if photo not in self.store:
                    missing[path] = photo
        if strict:
            bad |= unreadable(missing)
            refuse(bad, len(paths))
        while new := {k: p for p, k in missing.items() if p not in bad and k not in self.store}:
            try:
                self._describe(new, label)
            except VgeoError:
                # Batches are stored in order: what stopped them is in the first that is not stored.
                batch = set([k for k in new if k not in self.store][:BATCH])
                there = [path for path, photo in missing.items() if photo in batch]
                damaged = [] if strict else unreadable(there, self._damage)
                if not damaged:
                    raise
                bad |= damaged
        return bad

    def _damage(self, path: FilePath) -> VgeoError | None:
        try:
            load_image(path, self.size)
        except VgeoError as error:
            return error
        return None

    def _describe(self, new: dict[bytes, str], label: str) -> None:
        """Stores the descriptions of photos, {key: path}.

        Each batch is stored when it is done: a process that is stopped keeps the batches before.
        """
        names = list(new)
        with torch.inference_mode(), bar(label, len(new), "images") as counter:
            for rows, images in load_batches(new.values(), BATCH, self.size):
                descriptors, local = self._outputs(images)
                keys_of_batch = [names[row] for row in rows]
                self.store.put(keys_of_batch, descriptors.cpu().numpy(), local.cpu().numpy())
                counter.update(len(rows))
                self.described += len(rows)

    def _outputs(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Descriptors, float32 (B, D), and local features, float16, of images, uint8 (B, 3, h, w).

        The local features of a published model are empty, (B, 0).
        """
        images = images.to(next(self.model.parameters()).device)
        if isinstance(self.model, Peer):
            return self.model(images), torch.empty(len(images), 0, dtype=torch.half)
        batch = normalise(images).contiguous(memory_format=torch.channels_last)
        maps = self.model.features(batch, self.stages)
        descriptors = self.model.head(self.model.stages[self.stages :](maps))
        return descriptors, local_features(maps).half()

    def _similarity(self, photo: bytes, descriptor: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """How alike a described photo, by its key, is to K rows of the index: float32 (K,)."""
        if isinstance(self.model, Peer):
            return self.descriptors[rows] @ descriptor
        matches = self.store.local([self.keys[row] for row in rows])
        return similarity(self.store.local([photo])[0], matches, self.reach)

    def _answers(self, keys, barred=None) -> Answers:
        """The Answers for described photos. barred: for each the rows that may not answer it."""
        most_barred = max(map(len, barred), default=0) if barred else 0
        k = min(self.shortlist, len(self.photos) - most_barred)
        descriptors = self.store.descriptors(keys)
        rows = search(self.descriptors, descriptors, k + most_barred)[0]
        if barred:
            pairs = zip(rows, barred, strict=True)
            rows = np.stack([near[~np.isin(near, out)][:k] for near, out in pairs])
        alike = np.stack(list(map(self._similarity, keys, descriptors, rows)))
        order = np.argsort(-alike, axis=1, kind="stable")
        rows, alike = np.take_along_axis(rows, order, 1), np.take_along_axis(alike, order, 1)

        xy = self.xy[rows]
        near = np.linalg.norm(xy - xy[:, :1], axis=2) <= RADIUS
        elsewhere = np.where(near.all(1), alike[:, -1], np.where(near, -1, alike).max(1))
        columns = [alike[:, 0], alike[:, 0] - elsewhere, near[:, :SHOWN].mean(1)]
        return Answers(rows, alike, np.stack(columns, 1).astype(float), xy[:, 0])

    @cached_property
    def held_out(self) -> HeldOut | None:
        """Up to HELD_OUT random photos of the index, used as queries; None where none can be.

        Photos taken within SAME_PLACE of the query in the same month may not answer it: somebody's
        query shows another moment than the photos of the index.
        """
        chosen = np.sort(np.random.default_rng(0).permutation(len(self.photos))[:HELD_OUT])
        month = self.photos.table["month"].to_numpy()
        tree = cKDTree(self.xy)
        beside = map(np.array, tree.query_ball_point(self.xy[chosen], SAME_PLACE))
        barred = [rows[month[rows] == month[row]] for row, rows in zip(chosen, beside)]
        most_barred = max(map(len, barred))
        if len(self.photos) <= most_barred:
            return None
        answers = self._answers([self.keys[row] for row in chosen], barred)
        right = np.linalg.norm(answers.xy - self.xy[chosen], axis=1) <= RADIUS
        metres, rows = tree.query(self.xy[chosen], most_barred + 1)
        neighbours = zip(metres, rows, barred, strict=True)
        nearest = np.array([far[~np.isin(near, out)][0] for far, near, out in neighbours])
        return HeldOut(chosen, answers, right, nearest, self.xy[chosen])

    def calibrate(self) -> tuple[Calibration | None, str]:
        """The Calibration for this index's answers, and sentences that say what it was fitted to.

        It is fitted to the held-out photos. Where these have fewer than ENOUGH right or wrong
        answers, it is the one that comes with the packaged weights, and None for other weights or
        another image size.
        """
        held = self.held_out
        hits, count = (int(held.right.sum()), len(held.right)) if held else (0, 0)
        if held and min(hits, count - hits) >= ENOUGH:
            return fit(held.answers.features, held.right), (
                f"The confidence was fitted to {count} of your photos. Each was used as a query, "
                f"after all photos taken within {SAME_PLACE:g} m of it in the same month had been "
                f"removed from the index: {100 * hits / count:.0f} % of the answers were within "
                f"{RADIUS:g} m. Half of these photos had another photo left within "
                f"{np.median(held.nearest):.0f} m."
            )
        few = (
            f"Your photos, used as queries, give {hits} right and {count - hits} wrong answers. "
            f"A fit of the confidence needs {ENOUGH} of each."
        )
        shipped = json.loads(SHIPPED.read_text())
        if (shipped["weights_hash"], shipped["size"]) != (weights_hash(self.model), self.size):
            return None, f"{few} There is no confidence for these weights."
        return Calibration(**shipped["calibration"]), (
            f"{few} The confidence was fitted to {shipped['fitted_to']} instead. "
            "It may not hold for your photos."
        )

    def degrees(self, xy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Latitude and longitude, degrees, (Q,) each, of UTM metres (Q, 2) in the index's zone.

        NaN where the zone is unknown.
        """
        if self.photos.zone is None:
            return np.full(len(xy), np.nan), np.full(len(xy), np.nan)
        project = utm_projection(self.photos.zone, self.photos.south)
        lon, lat = project(xy[:, 0], xy[:, 1], inverse=True)
        return np.asarray(lat), np.asarray(lon)


def open_describer(
    weights: str | Path | None = None, model: str | None = None, yes: bool = False
) -> tuple[GeoModel | Peer, int]:
    """What describes photos, and the side in pixels of the images it takes.

    Parameters
    ----------
    weights : a .safetensors of ours or a checkpoint of CosPlace's, by default the packaged
        ResNet18.
    model : the name of a published model instead, see `vgeo.models.peers.PEERS`.
    yes : whether foreign code of a published model may run without a question.

    Raises
    ------
    VgeoError : both are given, or as `vgeo.models.convert.open_model` and
        `vgeo.models.peers.open_peer` do.
    """
    if model is None:
        ours, size = open_model(weights or CITY_WEIGHTS / "resnet18.safetensors")
        if weights is None:
            size = json.loads(SHIPPED.read_text())["size"]
        return ours, size or PUBLISHED_SIZE
    if weights is not None:
        raise VgeoError(f"model {model} and weights {weights}: photos need one: give one of them")
    peer = open_peer(model, yes)
    return peer, peer.size


def open_index(
    photos,
    weights: str | Path | None = None,
    cache: str | Path | None = None,
    strict: bool = True,
    model: str | None = None,
    yes: bool = False,
) -> Index:
    """The Index of photos on disk.

    Parameters
    ----------
    photos : a folder or a CSV, see `vgeo.photos.tables.read_photos`.
    weights, model, yes : as for `open_describer`, which comes before the photos are read.
    cache : the folder of descriptions, by default the user's cache folder.
    strict : whether a photo that can't be used is refused; it is skipped otherwise.

    Raises
    ------
    VgeoError : as `open_describer`, `read_photos` and `Index` do.
    """
    describer = open_describer(weights, model, yes)
    return Index(read_photos(photos, strict=strict), *describer, cache, strict=strict)


def similarity(query: np.ndarray, matches: np.ndarray, reach: int = REACH) -> np.ndarray:
    """How alike the local features of a photo are to those of K others.

    Each feature of the query is compared with those of the other photo that lie at most `reach`
    cells away, in rows and in columns. The similarity is the mean of the largest inner products.
    From a few steps aside a street shows the same details a little elsewhere in the image.

    Parameters
    ----------
    query : float (C, GRID, GRID), of unit length over the channels.
    matches : float (K, C, GRID, GRID), likewise.

    Returns
    -------
    float32 (K,), at most 1.
    """
    first, others = (torch.from_numpy(np.asarray(x)).float() for x in (query, matches))
    products = torch.einsum("cn,kcm->knm", first.flatten(1), others.flatten(2))
    return products.masked_fill(_cells_apart() > reach, -1).amax(2).mean(1).numpy()


@cache
def _cells_apart() -> torch.Tensor:
    """int64 (GRID^2, GRID^2): how many cells lie between two, the larger of rows and columns."""
    cells = torch.cartesian_prod(torch.arange(GRID), torch.arange(GRID))
    return (cells[:, None] - cells).abs().amax(-1)


def _stages_for_local_features(model: GeoModel, size: int) -> int:
    """The number of stages after which the feature map's side is the nearest to GRID.

    Of equal ones it is the last. The stride is 8 for images of 128 pixels and 32 for 512.
    """
    maps, sides = torch.zeros(1, 3, size, size, device=device()), []
    with torch.inference_mode():
        for stage in model.stages:
            maps = stage(maps)
            sides.append(maps.shape[-1])
    return min(range(len(sides), 0, -1), key=lambda count: abs(sides[count - 1] - GRID))
