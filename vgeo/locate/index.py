"""The index: photos with known positions, which give any other photo a position.

A photo's descriptor proposes the nearest photos of the index. The number of points that they share
with it then puts them into order, and the position of the first one is the answer. A published
model's descriptors give the order too.
"""

import json
import os
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy.spatial import cKDTree

from vgeo.bars import bar
from vgeo.device import device
from vgeo.errors import VgeoError
from vgeo.files import code_hash, key
from vgeo.locate.confidence import Calibration, cross_fitted, fit
from vgeo.locate.copies import changed
from vgeo.locate.store import open_store, photo_key
from vgeo.models import xfeat
from vgeo.models.convert import open_model
from vgeo.models.network import GeoModel, build, folded, normalise
from vgeo.models.peers import Peer, open_peer
from vgeo.models.weights import weights_hash
from vgeo.models.whitening import whitening
from vgeo.photos.folders import refuse
from vgeo.photos.images import FilePath, load_batches, load_image, unreadable, unreadable_image, why
from vgeo.photos.names import utm_projection
from vgeo.photos.tables import Photos, read_photos
from vgeo.retrieval.search import search

RADIUS = 25.0  # metres: an answer nearer than this is right
# SIZE, DIM, SHRINKAGE and SHORTLIST were chosen on photographs, see
# benchmarks/results/locate_choices.csv.
SIZE = 224  # pixels, both sides of the images that the default model takes
DIM = 512  # numbers in a whitened descriptor, at most
SHRINKAGE = 1.0  # of the whitening
SHORTLIST = 20  # photos, the nearest by descriptor, whose points are compared
LIGHT = 3  # which of the features says how far a query's brightness is from the index's
SHOWN = 5  # matches that are shown, and that the third feature looks at
SAME_PLACE = 2.0  # metres: photos of one month that are so near each other show one moment
POOLED = 3  # layers of a head that ends with the pooling
BATCH = 32  # photos that are described and stored together
HELD_OUT = 500  # photos, at most, that the confidence is fitted to, with a changed copy of each
SAMPLE = 5000  # photos, at most, that descriptors are whitened on
# Right answers, and wrong ones, below which a fit of the confidence is doubtful: about 7 for each
# of its features (Vittinghoff and McCulloch, Relaxing the Rule of Ten Events per Variable, 2007).
ENOUGH = 25
PUBLISHED_SIZE = 512  # pixels: the image size of weights without a recipe, such as CosPlace's
DESCRIBING = (
    *("vgeo.models.network", "vgeo.models.peers", "vgeo.models.xfeat"),
    *("vgeo.photos.images", "vgeo.locate.copies"),
)


@dataclass(frozen=True, eq=False)
class Answers:
    """What an index says of Q photos: K matches each, of which the first is the answer.

    Attributes
    ----------
    predictions : int64 (Q, K), rows of the index's photos.
    similarity : float32 (Q, K), descending, at most 1: of `vgeo.models.xfeat.similarity`; for a
        published model the inner product of the descriptors.
    features : float64 (Q, 4), what the confidence is computed from. The similarity of the first
        match; its lead over the best match more than RADIUS away from it, or, where all are nearer,
        over the last match; the share of the first SHOWN matches within RADIUS of it; how far the
        query's brightness is from the median of the index's photos, as the absolute difference of
        their logarithms.
    xy : float64 (Q, 2), the answers: UTM east and north, metres.
    shared : int64 (Q, K), the points that the query shares with each match; 0 for a published
        model.
    """

    predictions: np.ndarray
    similarity: np.ndarray
    features: np.ndarray
    xy: np.ndarray
    shared: np.ndarray


@dataclass(frozen=True, eq=False)
class HeldOut:
    """P photos of an index that were used as queries, and what the index answered.

    Each is used three times, and all P of each kind follow each other. First come the photos, then
    changed copies of them (see `vgeo.locate.copies`), both without the photos of their own moment:
    queries of places that the index shows from a little farther off. Last come the copies with all
    photos of the index, which also holds what they are copies of: queries from the same spot.

    Attributes
    ----------
    rows : int64 (P,), the photos' rows in the index.
    apart : the answers of the 2 P queries without the photos of their moment.
    near : the answers of the P copies with all photos.
    right : bool (3 P,), whether the answer is within RADIUS of the photo.
    nearest : float64 (P,), metres to the nearest photo of another moment.
    xy : float64 (P, 2), where the photos were taken: UTM east and north, metres.
    """

    rows: np.ndarray
    apart: Answers
    near: Answers
    right: np.ndarray
    nearest: np.ndarray
    xy: np.ndarray

    @property
    def features(self) -> np.ndarray:
        """The features of all answers, float64 (3 P, 4), see `Answers`."""
        return np.concatenate([self.apart.features, self.near.features])

    def confidence(self, side: float = 100.0) -> np.ndarray:
        """The confidence of each answer, float64 (3 P,), 0 to 1.

        It comes from a fit to the photos outside the photo's own square of `side` metres.
        """
        squares = np.unique(self.xy // side, axis=0, return_inverse=True)[1].ravel()
        return cross_fitted(self.features, self.right, np.tile(squares, 3))


class Index:
    """Photos with known positions, described by a model.

    Descriptions are kept in the folder `cache`: a photo that is already described is not read
    again.

    Parameters
    ----------
    photos : the photos.
    model : describes them: a network of ours, or a published one. The features of a network whose
        head ends with the pooling are whitened on the photos.
    size : pixels, both sides, that images are resized to.
    cache : the folder of descriptions, by default `store.user_cache()`.
    shortlist : matches an answer, which the similarity puts into order.
    strict : whether a photo that can't be read is refused; it is skipped otherwise.

    Attributes
    ----------
    skipped : {file: why} of the photos that were left out, here or when the positions were read.
    xy : float64 (N, 2), the photos' UTM east and north, metres.
    descriptors : float32 (N, D).
    light : the median logarithm of 1 + the brightness, 0 to 255, of the photos.
    described : how many photos, queries and changed copies were described so far.

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
        strict: bool = True,
    ):
        self._describe_with(model, size, shortlist)
        name = key(self.recipe | {"code": code_hash(*DESCRIBING)})
        self.store = open_store(f"{name}.sqlite", cache)
        unreadable = self.describe(photos.paths, "index", strict)
        self.skipped = photos.skipped | unreadable
        readable = photos.take([path not in unreadable for path in photos.paths])
        if not len(readable):
            refuse(unreadable, len(photos))
        self._hold(readable, [self._seen[path] for path in readable.paths])

    def _describe_with(self, model: GeoModel | Peer, size: int, shortlist: int) -> None:
        """Sets what describes photos. `recipe`: JSON values that differ where descriptions can."""
        self.size, self.shortlist, self.described = size, shortlist, 0
        self._seen: dict[str, bytes] = {}  # the key of each photo when it was described
        self.model = model.to(device()).eval()
        self.recipe: dict[str, Any] = {"size": size}
        self.network: GeoModel | Peer = self.model
        self.xfeat = None
        if isinstance(self.model, Peer):
            self.recipe |= {"model": self.model.identity}
        else:
            self.network, self.xfeat = folded(self.model), xfeat.open_xfeat().to(device())
            self.recipe |= {"weights": weights_hash(self.model), "side": xfeat.SIDE}
            self.recipe |= {"xfeat": weights_hash(self.xfeat), "points": xfeat.POINTS}

    def _hold(self, photos: Photos, keys: list[bytes]) -> None:
        """Takes photos, whose descriptions are in the store under these keys, as the index's."""
        self.photos, self.keys, self.xy = photos, keys, photos.xy
        described = self.store.descriptors(keys)
        self.whitening = None
        if isinstance(self.model, GeoModel) and len(self.model.aggregation) == POOLED:
            self.whitening = _whitening(described)
        self.descriptors = self._whitened(described)
        self.light = float(np.median(np.log1p(self.store.brightness(self.keys))))

    def locate(self, paths: Sequence[str]) -> Answers:
        """The answers for photos, which are described first. One that can't be read is refused."""
        self.describe(paths, "queries")
        return self._answers([self._seen[path] for path in paths])

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
                self._seen[path] = photo
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

    @property
    def _side(self) -> int:
        """Pixels, both sides of a photo when it is decoded."""
        return max(self.size, xfeat.SIDE) if self.xfeat else self.size

    def _damage(self, path: FilePath) -> VgeoError | None:
        try:
            load_image(path, self._side)
        except VgeoError as error:
            return error
        return None

    def _describe(self, new: dict[bytes, str], label: str, copies: bool = False) -> None:
        """Stores the descriptions of photos, {key: path}, or of changed copies of them.

        Each batch is stored when it is done: a process that is stopped keeps the batches before.
        """
        names, paths = list(new), list(new.values())
        with torch.inference_mode(), bar(label, len(new), "images") as counter:
            for rows, images in load_batches(paths, BATCH, self._side):
                if copies:
                    images = torch.stack(
                        [changed(x, _stream(paths[row])) for row, x in zip(rows, images)]
                    )
                descriptors, points = self._outputs(images)
                keys_of_batch = [names[row] for row in rows]
                brightness = images.float().mean((1, 2, 3)).tolist()
                found = descriptors.cpu().numpy(), points.cpu().numpy(), brightness
                self.store.put(keys_of_batch, *found)
                counter.update(len(rows))
                self.described += len(rows)

    def _outputs(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Descriptors, float32 (B, D), and points, int8 (B, P, 64), of images, uint8.

        The images are squares of `_side`. P is 0 for a published model.
        """
        small = _resized(images, self.size).to(device())
        if self.xfeat is None:
            return self.network(small), torch.empty(len(images), 0, xfeat.CHANNELS)
        batch = normalise(small).contiguous(memory_format=torch.channels_last)
        large = _resized(images, xfeat.SIDE).to(device())
        return self.network(batch), xfeat.describe_points(self.xfeat, large, xfeat.POINTS)

    def _whitened(self, features: np.ndarray) -> np.ndarray:
        """Descriptors, float32 (N, D), of what the store holds."""
        if self.whitening is None:
            return features
        weight, bias = self.whitening
        return F.normalize(torch.from_numpy(features) @ weight.T + bias, dim=1).numpy()

    def _compare(
        self, photo: bytes, descriptor: np.ndarray, rows: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """A described photo, by its key, and K rows of the index.

        Returns
        -------
        How alike they are, float32 (K,), and how many points they share, int64 (K,).
        """
        cosine = self.descriptors[rows] @ descriptor
        if self.xfeat is None:
            return cosine, np.zeros(len(rows), np.int64)
        own, others = (
            torch.from_numpy(self.store.points(keys))
            for keys in ([photo], [self.keys[row] for row in rows])
        )
        shared = xfeat.shared_points(own[0], others).numpy()
        return xfeat.similarity(shared, cosine), shared

    def _answers(self, keys, barred=None) -> Answers:
        """The Answers for described photos. barred: for each the rows that may not answer it."""
        most_barred = max(map(len, barred), default=0) if barred else 0
        k = min(self.shortlist, len(self.photos) - most_barred)
        descriptors = self._whitened(self.store.descriptors(keys))
        rows = search(self.descriptors, descriptors, k + most_barred)[0]
        if barred:
            pairs = zip(rows, barred, strict=True)
            rows = np.stack([near[~np.isin(near, out)][:k] for near, out in pairs])
        compared = zip(*map(self._compare, keys, descriptors, rows), strict=True)
        alike, shared = map(np.stack, compared)
        order = np.argsort(-alike, axis=1, kind="stable")
        rows, alike, shared = (np.take_along_axis(x, order, 1) for x in (rows, alike, shared))

        xy = self.xy[rows]
        near = np.linalg.norm(xy - xy[:, :1], axis=2) <= RADIUS
        elsewhere = np.where(near.all(1), alike[:, -1], np.where(near, -1, alike).max(1))
        light = np.abs(np.log1p(self.store.brightness(keys)) - self.light)
        columns = [alike[:, 0], alike[:, 0] - elsewhere, near[:, :SHOWN].mean(1), light]
        return Answers(rows, alike, np.stack(columns, 1).astype(float), xy[:, 0], shared)

    @cached_property
    def held_out(self) -> HeldOut | None:
        """Up to HELD_OUT random photos of the index, used as queries; None where none can be.

        Photos taken within SAME_PLACE of a query in the same month are of the query's moment:
        somebody's query shows another one. Copies are changed because somebody's query may show
        other light, or come from another camera, than the photos of the index.
        """
        chosen = np.sort(np.random.default_rng(0).permutation(len(self.photos))[:HELD_OUT])
        month = self.photos.table["month"].to_numpy()
        tree = cKDTree(self.xy)
        beside = map(np.array, tree.query_ball_point(self.xy[chosen], SAME_PLACE))
        barred = [rows[month[rows] == month[row]] for row, rows in zip(chosen, beside)]
        most_barred = max(map(len, barred))
        if len(self.photos) <= most_barred:
            return None
        keys = [self.keys[row] for row in chosen]
        copies = [sha256(photo + b"copy").digest() for photo in keys]
        paths = [self.photos.paths[row] for row in chosen]
        new = {copy: path for copy, path in zip(copies, paths) if copy not in self.store}
        if new:
            self._describe(new, "changed copies", copies=True)
        metres, rows = tree.query(self.xy[chosen], most_barred + 1)
        neighbours = zip(metres, rows, barred, strict=True)
        nearest = np.array([far[~np.isin(near, out)][0] for far, near, out in neighbours])
        apart, near = self._answers(keys + copies, barred * 2), self._answers(copies)
        xy = self.xy[chosen]
        away = np.concatenate([apart.xy, near.xy]) - np.tile(xy, (3, 1))
        return HeldOut(chosen, apart, near, np.linalg.norm(away, axis=1) <= RADIUS, nearest, xy)

    def calibrate(self) -> tuple[Calibration | None, str]:
        """The Calibration for this index's answers, and sentences that say what it was fitted to.

        It is fitted to the held-out photos and their copies; None where there are none, or where no
        answer is wrong. What was fitted is kept beside the descriptions.
        """
        month = self.photos.table["month"].to_numpy()
        made_of: list[Any] = [self.keys, self.xy.tolist(), month.tolist(), self.shortlist]
        made_of += [code_hash("vgeo.locate.index")]
        fitted = sha256(repr(made_of).encode()).digest()
        text = self.store.note(fitted) or self.store.note(fitted, json.dumps(self._fitted()))
        values, words = json.loads(str(text))
        return values and Calibration.of(values), words

    def _fitted(self) -> tuple[dict[str, Any] | None, str]:
        """What `calibrate` returns, the Calibration as a dict."""
        held = self.held_out
        if held is None:
            return None, (
                "There is no confidence. It needs photos that are more than "
                f"{SAME_PLACE:g} m apart or of different months."
            )
        if held.right.all():
            return None, (
                "There is no confidence. Your photos and copies of them, used as queries, were all "
                f"answered within {RADIUS:g} m: nothing tells what a wrong answer looks like."
            )
        apart = held.right[: 2 * len(held.rows)]
        hits, wrong = int(apart.sum()), int((~apart).sum())
        words = (
            f"The confidence was fitted to {len(held.rows)} of your photos and a copy of each, "
            "darkened, blurred, tinted or cropped. Each was used as a query, after all photos "
            f"taken within {SAME_PLACE:g} m of it in the same month had been removed from the "
            f"index: {100 * apart.mean():.0f} % of the answers were within {RADIUS:g} m. Half of "
            f"these photos had another photo left within {np.median(held.nearest):.0f} m. Each "
            "copy was also used with all photos in the index."
        )
        if min(hits, wrong) < ENOUGH:
            number, kind = (hits, "right") if hits < wrong else (wrong, "wrong")
            words += f" The confidence is doubtful: only {number} answers were {kind}."
        features = held.features
        found = fit(features, held.right)
        if found.weights[LIGHT] > 0:
            # The near copies are right and all changed. Other light never makes an answer surer.
            features[:, LIGHT] = 0
            found = fit(features, held.right)
        return asdict(found), words

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
    weights : a .safetensors of ours or a checkpoint of CosPlace's. By default EfficientNet-Lite0
        with ImageNet weights and a head that ends with the pooling.
    model : the name of a published model instead, see `vgeo.models.peers.PEERS`.
    yes : whether foreign code of a published model may run without a question.

    Raises
    ------
    VgeoError : both are given, or as `vgeo.models.convert.open_model` and
        `vgeo.models.peers.open_peer` do.
    """
    if model is None:
        if weights is not None:
            ours, size = open_model(weights)
            return ours, size or PUBLISHED_SIZE
        ours = build("efficientnet_lite0", "imagenet").eval()
        ours.aggregation = ours.aggregation[:POOLED]
        return ours, SIZE
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


def _whitening(features: np.ndarray) -> tuple[torch.Tensor, torch.Tensor] | None:
    """The whitening of the index's features; None for a single photo, which has no spread."""
    if len(features) < 2:
        return None
    chosen = np.random.default_rng(0).permutation(len(features))[:SAMPLE]
    sample = torch.from_numpy(features[np.sort(chosen)])
    return whitening(sample, min(DIM, len(sample) - 1), SHRINKAGE)


def _resized(images: torch.Tensor, size: int) -> torch.Tensor:
    """Square images, uint8 (B, 3, h, h), with sides of `size` pixels."""
    if images.shape[-1] == size:
        return images
    return F.interpolate(images, (size, size), mode="bilinear", antialias=True)


def _stream(path: str) -> np.random.Generator:
    """The random numbers for the copy of a photo, from its file's name."""
    return np.random.default_rng(zlib.crc32(os.fsencode(os.path.basename(path))))
