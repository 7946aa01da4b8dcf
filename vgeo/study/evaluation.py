"""Predictions of models on test sets: describe, aggregate, search, re-rank, fuse. Each is
stored.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import psutil

from vgeo.device import precision
from vgeo.errors import say
from vgeo.models.network import DIM
from vgeo.models.xfeat import SIDE
from vgeo.photos.places import Dataset
from vgeo.photos.tables import Photos
from vgeo.retrieval import fuse
from vgeo.retrieval.metrics import first_hit
from vgeo.retrieval.multiscale import METHODS, SCALES, aggregate
from vgeo.retrieval.rerank import describe_points, pair_scores, point_scores, rerank
from vgeo.retrieval.search import build_index, choose_index, search
from vgeo.study.cache import Cache
from vgeo.study.data import Data
from vgeo.study.descriptions import Descriptions, words
from vgeo.study.profiles import Profile
from vgeo.study.rows import Evaluation, Fusion, Row
from vgeo.study.trainings import TrainedModel, Trainings, regression_of


@dataclass(frozen=True, eq=False)
class Result:
    """The predictions for a data set's queries.

    Attributes
    ----------
    predictions : int64 (Q, K), database rows, best first.
    distances : float32 (Q, K), squared L2 distances of the predictions' descriptors. They ascend
        until the predictions are re-ranked; NaN where lists were merged by rank.
    first_hit : int64 (Q,), the rank, from 0, of the first right prediction; K where there is none.
    brightness : the factor on the database photos.
    """

    dataset: Dataset
    predictions: np.ndarray
    distances: np.ndarray
    first_hit: np.ndarray
    brightness: float = 1.0

    @classmethod
    def of(cls, dataset: Dataset, predictions, distances, brightness: float = 1.0) -> "Result":
        """The Result of predictions, with their first hits."""
        hits = first_hit(predictions, dataset.positives)
        return cls(dataset, predictions, distances, hits, brightness)

    def right(self, n: int) -> np.ndarray:
        """Which queries have a right prediction among the first n, bool (Q,)."""
        return self.first_hit < n

    def part(self, dataset: Dataset) -> "Result":
        """The Result of a data set whose queries are some of this one's."""
        rows = dataset.rows
        return Result(
            dataset,
            self.predictions[rows],
            self.distances[rows],
            self.first_hit[rows],
            self.brightness,
        )


def _by_ranks(method):
    """A fusion that looks at the order of both lists alone."""

    def fused(one: Result, two: Result):
        distances = np.full_like(one.distances, np.nan)
        return method(one.predictions, two.predictions), distances

    return fused


def _by_distances(method):
    """A fusion that looks at the distances too."""

    def fused(one: Result, two: Result):
        return method(one.predictions, one.distances, two.predictions, two.distances)

    return fused


FUSIONS = {
    "NIF": _by_distances(fuse.nearest_first),
    "NIF by rank": _by_distances(fuse.nearest_first_by_rank),
    "SIF": _by_ranks(fuse.shared_first),
    "RRF": _by_ranks(fuse.reciprocal_ranks),
}


class Evaluations:
    """Turns rows of tables into results."""

    def __init__(
        self,
        profile: Profile,
        data: Data,
        descriptions: Descriptions,
        trainings: Trainings,
        cache: Cache,
    ):
        self.profile, self.data, self.cache = profile, data, cache
        self.descriptions, self.trainings = descriptions, trainings
        self._similarities: dict[tuple, dict[tuple[int, int], float]] = {}

    def evaluate(self, rows: Mapping[str, Row], seed: int = 0) -> dict[str, dict[str, Result]]:
        """{condition: {data set: Result}} of rows on the test sets that are there."""
        sets = self.data.test_sets.values()
        return {
            condition: {dataset.name: self.result(row, dataset, seed) for dataset in sets}
            for condition, row in rows.items()
        }

    def result(self, row: Row, dataset: Dataset, seed: int = 0) -> Result:
        """The Result of one row on one data set."""
        if isinstance(row, Fusion):
            one, two = (self.result(each, dataset, seed) for each in (row.first, row.second))
            return Result.of(dataset, *FUSIONS[row.method](one, two))
        brightness = row.brightness(dataset.name)
        if dataset.whole is not None and brightness == 1.0:
            return self.result(row, dataset.whole, seed).part(dataset)
        model = self.trainings.train(row.model, seed)
        result = self.search(model, dataset, brightness, row.multiscale, row.side, row.scale)
        if row.points:
            return self.rerank_by_points(result)
        if not row.rerank:
            return result
        if row.multiscale:
            self._compare_all_scales(row, model, dataset, seed)
        return self.rerank(model, result)

    def search(
        self,
        model: TrainedModel,
        dataset: Dataset,
        brightness: float = 1.0,
        multiscale: str | None = None,
        side: str = "database",
        scale: float = 1.0,
    ) -> Result:
        """Describes queries and database with a model and searches the nearest.

        Parameters
        ----------
        brightness : the factor on the database photos.
        multiscale, side, scale : as in `rows.Evaluation`.
        """
        if dataset.whole is not None and brightness == 1.0:
            return self.search(model, dataset.whole, 1.0, multiscale, side, scale).part(dataset)
        several = {each: multiscale and side in (each, "both") for each in ("query", "database")}
        photos = dataset.whole.queries if dataset.whole is not None else dataset.queries
        queries = self._folders(model, photos, SCALES if several["query"] else (scale,), 1.0)
        scales = SCALES if several["database"] else (scale,)
        database = self._folders(model, dataset.database, scales, brightness)
        k = min(self.profile.testing.predictions, len(dataset.database))
        rows = np.arange(len(dataset.queries)) if dataset.rows is None else dataset.rows
        recipe = {
            "queries": [folder.name for folder in queries],
            "database": [folder.name for folder in database],
            "method": multiscale,
            "k": k,
            "rows": hashlib.sha256(rows.tobytes()).hexdigest(),
        }
        factory, why = choose_index(len(dataset.database), DIM, psutil.virtual_memory().total)
        if factory:
            recipe["index"] = factory

        def make(folder: Path) -> None:
            described, index = _load(database, multiscale), None
            if factory:
                say(why)
                index = build_index(described, factory)
            predictions, distances = search(described, _load(queries, multiscale)[rows], k, index)
            np.save(folder / "predictions.npy", predictions)
            np.save(folder / "distances.npy", distances)

        short = self.descriptions.hash(model.weights)[:6]
        label = f"search {dataset.name} {short}{words(scale, brightness)}"
        label += f" {multiscale} on {side}" if multiscale else ""
        code = ("vgeo.retrieval.search", "vgeo.retrieval.multiscale")
        folder = self.cache.step("predictions", label, recipe, make, code)
        predictions = np.load(folder / "predictions.npy")
        return Result.of(dataset, predictions, np.load(folder / "distances.npy"), brightness)

    def rerank(self, model: TrainedModel, result: Result, warped: bool = True) -> Result:
        """The first predictions in the order of their local features' similarity to the query's.

        Parameters
        ----------
        model : a training with GeoWarp.
        warped : whether both photos are warped to the part that both show before they are compared.
        """
        k = min(self.profile.testing.rerank, result.predictions.shape[1])
        candidates = _pairs(result, k)
        known = self._compare(model, result.dataset, candidates, result.brightness, warped)
        scores = np.array([known[pair] for pair in candidates], np.float32).reshape(-1, k)
        return _in_order(result, scores)

    def rerank_by_points(self, result: Result) -> Result:
        """The first predictions in the order of XFeat's points that they share with the query."""
        k, dataset = min(self.profile.testing.rerank, result.predictions.shape[1]), result.dataset
        queries = self._points(dataset.queries, 1.0)
        database = self._points(dataset.database, result.brightness)
        first = (result.predictions[:, :k], result.distances[:, :k])
        return _in_order(result, point_scores(queries, database, *first))

    def _points(self, photos: Photos, brightness: float) -> np.ndarray:
        """XFeat's points of all photos. They depend on no training and are found once."""
        size = points_side(self.profile.image_size)
        recipe = {"images": photos.fingerprint, "size": size, "brightness": brightness}
        label = f"points of {len(photos)} photos" + words(1.0, brightness)

        def make(folder: Path) -> None:
            np.save(folder / "points.npy", describe_points(photos.paths, size, brightness, label))

        folder = self.cache.step("points", label, recipe, make, ("vgeo.retrieval.rerank",))
        return np.load(folder / "points.npy", mmap_mode="r")

    def _compare_all_scales(
        self, row: Evaluation, model: TrainedModel, dataset: Dataset, seed: int
    ) -> None:
        """Compares the pairs of all methods of Tables 9 and 11 to 13 at once: they share most
        pairs.
        """
        k = self.profile.testing.rerank
        plain = replace(row, multiscale=None, side="database", rerank=False)
        variants = [replace(plain, multiscale=how, side=row.side) for how in METHODS]
        brightness = row.brightness(dataset.name)
        for rows in ([plain], variants):
            results = [self.result(each, dataset, seed) for each in rows]
            pairs = [pair for result in results for pair in _pairs(result, k)]
            self._compare(model, dataset, pairs, brightness, warped=True)

    def _compare(
        self,
        model: TrainedModel,
        dataset: Dataset,
        pairs: list[tuple[int, int]],
        brightness: float,
        warped: bool,
    ) -> dict[tuple[int, int], float]:
        """{(query, database photo): similarity} of the pairs, and of all that were compared
        before.
        """
        weights = [self.descriptions.hash(path) for path in (model.weights, regression_of(model))]
        known = self._similarities.setdefault((*weights, dataset.name, brightness, warped), {})
        missing = np.array(sorted(set(pairs) - known.keys()), np.int64).reshape(-1, 2)
        if len(missing) == 0:
            return known
        recipe = {
            "model": weights[0],
            "regression": weights[1],
            "pairs": hashlib.sha256(missing.tobytes()).hexdigest(),
            "queries": dataset.queries.fingerprint,
            "database": dataset.database.fingerprint,
            "size": self.profile.image_size,
            "brightness": brightness,
            "warped": warped,
            "stages": self.profile.geowarp.stages[model.backbone],
            "precision": precision(),
        }
        label = f"compare {len(missing)} pairs {dataset.name} {weights[1][:6]}"
        label += words(1.0, brightness) + ("" if warped else " unwarped")

        def make(folder: Path) -> None:
            warp = self.trainings.load_warp(model)
            scores = pair_scores(
                warp.local,
                warp.regression,
                dataset.queries.paths,
                dataset.database.paths,
                missing,
                self.profile.image_size,
                brightness,
                warped,
                precision(),
                progress=label,
            )
            np.save(folder / "scores.npy", scores)

        code = ("vgeo.retrieval.rerank",)
        folder = self.cache.step("pairs", label, recipe, make, code, together=True)
        scores = np.load(folder / "scores.npy").tolist()
        known |= {
            (query, row): score
            for (query, row), score in zip(missing.tolist(), scores, strict=True)
        }
        return known

    def _folders(
        self, model: TrainedModel, photos: Photos, scales: tuple[float, ...], brightness: float
    ) -> list[Path]:
        describe = self.descriptions.folder
        return [describe(model.weights, model.backbone, photos, s, brightness) for s in scales]


def points_side(size: int) -> int:
    """Pixels, both sides, of the images in which XFeat's points of photos of `size` are found.

    Small photos are enlarged, because XFeat's map is an eighth of an image. From SIDE on that finds
    nothing more and takes longer.
    """
    return min(2 * size, SIDE)


def _in_order(result: Result, scores: np.ndarray) -> Result:
    """The Result with its first k predictions by falling score, float32 (Q, k)."""
    k = scores.shape[1]
    predictions, order = rerank(result.predictions, scores, k)
    distances = result.distances.copy()
    distances[:, :k] = np.take_along_axis(distances[:, :k], order, axis=1)
    return Result.of(result.dataset, predictions, distances, result.brightness)


def _load(folders: list[Path], multiscale: str | None) -> np.ndarray:
    """Descriptors (N, D) of one scale, or of several aggregated."""
    each = [np.load(folder / "descriptors.npy", mmap_mode="r") for folder in folders]
    return aggregate(np.stack(each), multiscale) if multiscale else each[0]


def _pairs(result: Result, k: int) -> list[tuple[int, int]]:
    """(query, database row) of every query's first k predictions."""
    first = result.predictions[:, :k].tolist()
    return [(query, row) for query, rows in enumerate(first) for row in rows]
