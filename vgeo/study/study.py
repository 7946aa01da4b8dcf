"""The study: a profile's data sets, and the trainings, descriptors and predictions that `rows` asks for, each made once and stored."""

import hashlib
import json
import os
import platform
import time
from collections import Counter
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import torch
from tqdm.auto import tqdm

from vgeo.city.plan import VERSION
from vgeo.city.write import write_city
from vgeo.device import device, first, part, precision
from vgeo.errors import VgeoError
from vgeo.models.geowarp import local_features
from vgeo.models.network import DIM, TRUNK, build, trunk_hash
from vgeo.models.soups import average, greedy
from vgeo.models.weights import CITY_WEIGHTS, load_weights, save_weights, weights_hash
from vgeo.photos.images import check_images
from vgeo.photos.layout import NIGHT_TARGET, find
from vgeo.photos.places import RetrievalSet, cosplace_classes, open_retrieval_set, positives
from vgeo.photos.tables import read_images
from vgeo.report.tables import cells, published
from vgeo.retrieval.describe import describe, describe_stored, store_trunk, stored
from vgeo.retrieval.fuse import nearest_first, reciprocal_ranks, shared_first
from vgeo.retrieval.metrics import first_hit, recall
from vgeo.retrieval.multiscale import METHODS, SCALES, aggregate
from vgeo.retrieval.rerank import pair_scores, rerank
from vgeo.retrieval.search import build_index, choose_index, search
from vgeo.study.cache import artefact, seconds
from vgeo.study.profiles import ROOT, profile, results_of
from vgeo.study.rows import (
    DATASETS,
    LOSSES,
    NIGHT_BRIGHTNESS,
    RESNET,
    TABLES,
    TRAININGS,
    Evaluation,
    Fusion,
    backbone_of,
)
from vgeo.training.batches import batches, live_views
from vgeo.training.geowarp import Warp, mine_pairs
from vgeo.training.grl import Domain
from vgeo.training.loop import Recipe, train, train_alone


@dataclass(frozen=True)
class Result:
    """One model on one data set: predictions int64 (Q, K), squared L2 distances float32 (Q, K), rank of the first right one (Q,)."""

    data: RetrievalSet
    predictions: np.ndarray
    distances: np.ndarray
    first_hit: np.ndarray

    def right(self, n):
        """bool (Q,): which queries have a right prediction among the first n."""
        return self.first_hit < n


class Study:
    """A profile, the data it runs on and the folders it writes to.

    profile: a name of `profiles.PROFILES`. data: a folder laid out as the originals are, instead of the rendered city; image_size: pixels,
    instead of the profile's. Results go to `results/<profile>`, or `results/<profile>-<data folder>`; what can be made again (rendered
    images, models, descriptors, predictions) to `results/cache`, shared by all. Raises VgeoError where data are needed and not given.
    """

    def __init__(self, name, data=None, image_size=None, seeds=None):
        self.profile = profile(name)
        if seeds is not None:
            if not _whole(seeds) or not 1 <= seeds <= 100:
                raise VgeoError(
                    f"seeds {seeds!r}: a whole number from 1 to 100, how often every training is repeated"
                )
            self.profile = replace(self.profile, seeds=tuple(range(seeds)))
        if image_size is not None:
            if not _whole(image_size) or not 32 <= image_size <= 4096:
                raise VgeoError(
                    f"image size {image_size!r}: a whole number of at least 32 pixels, the stride of the networks, and at most 4096"
                )
            self.profile = replace(
                self.profile, image_size=int(image_size), test_size=int(image_size)
            )
        if data is None and self.profile.city is None:
            raise VgeoError(
                f"profile {name} needs real data: add --data FOLDER, with sf-xs, tokyo-xs and tokyo-night in it"
            )
        if data is not None and not (
            isinstance(data, (str, os.PathLike)) and str(data) and Path(data).is_dir()
        ):
            raise VgeoError(
                f"{data or repr(data)}: no such folder: give the one that holds sf-xs, tokyo-xs and tokyo-night"
            )
        self.stores = (
            self.profile.test_size is not None
            and self.profile.image_size <= self.profile.store_trunk
        )
        self.data_folder = Path(data).resolve() if data is not None else None
        self.results = results_of(name, data, ROOT)
        self.cache = ROOT / "results" / "cache"
        self.now = (
            self.cache / f"now-{self.results.name}"
        )  # holds the label of the step that is being made
        self.steps, self.made = (
            {},
            Counter(),
        )  # made: seconds of each kind of step that this process made, those of steps inside not counted twice
        self._tables, self._models, self._hashes, self._scores, self._starts = {}, {}, {}, {}, {}
        self._last = (None,)  # of `_ready`

    # ---- data ----

    @cached_property
    def data(self):
        """The folder of the data sets, rendered when it has to be."""
        if self.data_folder:
            return self.data_folder
        recipe = {"plan": self.profile.city.__dict__, "version": VERSION}
        return self._step(
            "render the city", "data", recipe, lambda folder: write_city(self.profile.city, folder)
        )

    def _table(self, folder):
        """The images of a folder, read once."""
        if folder not in self._tables:
            self._tables[folder] = read_images(folder)
            check_images(self._tables[folder]["path"])
        return self._tables[folder]

    @cached_property
    def train_table(self):
        """Training images with their CosPlace labels."""
        folder, p = find(self.data, "sf-xs", "train"), self.profile
        if folder is None:
            raise VgeoError(
                f"{self.data}: has no sf-xs/train: put the training images of sf-xs there"
            )
        return cosplace_classes(self._table(folder), p.cell, p.angle, p.n, p.l, p.min_images)

    @cached_property
    def val(self):
        return self._open(
            "sf-xs val",
            find(self.data, "sf-xs", "val", "queries"),
            find(self.data, "sf-xs", "val", "database"),
            "sf-xs/val",
        )

    @cached_property
    def sets(self):
        """{data set: RetrievalSet, or a str that says why there is none}."""
        found = {}
        for name in DATASETS:
            queries, database = (
                find(self.data, name, "test", "queries"),
                find(self.data, name, "test", "database"),
            )
            if (
                name == "tokyo-night" and database is None
            ):  # photographed at night, found in tokyo-xs's database
                database = find(self.data, "tokyo-xs", "test", "database")
            missing = [
                part
                for part, folder in (("queries", queries), ("database", database))
                if folder is None
            ]
            found[name] = (
                f"no {name}/test {' and '.join(missing)} in {self.data.name}"
                if missing
                else self._open(name, queries, database, name)
            )
        day, dark = found["tokyo-xs"], found["tokyo-night"]
        if isinstance(day, RetrievalSet) and isinstance(dark, RetrievalSet):
            # the night queries are a part of tokyo-xs's: take them from there, so that none is described twice
            rows = pd.Series(
                day.queries.index, [os.path.basename(path) for path in day.queries["path"]]
            )
            names = [os.path.basename(path) for path in dark.queries["path"]]
            if rows.index.is_unique and set(names) <= set(rows.index):
                queries = day.queries.loc[rows[names]]
                found["tokyo-night"] = RetrievalSet(
                    "tokyo-night",
                    queries,
                    day.database,
                    positives(queries, day.database, self.profile.radius),
                )
        return found

    def _open(self, name, queries, database, where):
        if queries is None or database is None:
            raise VgeoError(
                f"{self.data}: has no {where} with a database and queries: put them there as sf-xs has them"
            )
        found = open_retrieval_set(name, queries, database, self.profile.radius)
        return RetrievalSet(name, self._table(queries), self._table(database), found.positives)

    def identities(self):
        """One line for each data set: what its results were measured on, or why it is absent."""
        return {
            "sf-xs val": str(self.val.identity),
            **{
                name: str(data.identity) if isinstance(data, RetrievalSet) else data
                for name, data in self.sets.items()
            },
        }

    # ---- models ----

    def recipe(self, name, seed=0):
        p = self.profile
        lr_extra = {"GRL": p.lr_discriminator, "GeoWarp": p.lr_regression}.get(
            TRAININGS[name].get("method")
        )
        return Recipe(
            weights=p.weights,
            image_size=p.image_size,
            epochs=p.epochs,
            iterations=p.iterations,
            batch_size=p.batch_size,
            lr_model=p.lr_model,
            lr_classifier=p.lr_classifier,
            seed=seed,
            precision=precision(),
            lr_extra=lr_extra,
            **TRAININGS[name],
        )

    def train(self, name, seed=0):
        """The folder of a training: `model.safetensors` (but see `extractor_of`), `log.csv`, `extra.safetensors` where something was trained along."""
        if (name, seed) not in self._models:
            self._models[name, seed] = self._train(name, seed)
        return self._models[name, seed]

    def _train(self, name, seed):
        if self.extractor_of(name) != name:
            return self._train_warp(name, seed)
        p, recipe, table = self.profile, self.recipe(name, seed), self.train_table
        made_of = recipe.as_dict() | {
            "start": self._hash(self.start(recipe.backbone)),
            "train": self._fingerprint(table),
            "val": [self._fingerprint(self.val.queries), self._fingerprint(self.val.database)],
            "classes": table.attrs["classes"],
            "device": device().type,
            "version": 2,
        }
        if recipe.method == "GRL":
            made_of |= {"night": self._fingerprint(self._night_target()), "weight": p.grl_weight}
        elif recipe.method == "GeoWarp":
            made_of |= {"geowarp": p.geowarp}
        label = f"train {name}" + (f", seed {seed}" if seed else "")

        def make(folder):
            views, targets, extra = self._views(recipe, table), None, None
            torch.manual_seed(seed)
            if recipe.method == "GRL":
                targets, extra = (
                    self._views(recipe, self._night_target()),
                    Domain(recipe.backbone, p.grl_weight),
                )
            elif recipe.method == "GeoWarp":
                extra = self._warp(recipe, self._load(recipe.backbone, self.start(recipe.backbone)))
            train(recipe, table, self.validate, folder, views, targets, extra, label)

        return self._step(label, "models", made_of, make, resumes=True, together=True)

    def extractor_of(self, name):
        """The training whose extractor a training's is: its own, but where GeoWarp's local features are frozen, the one without GeoWarp."""
        training = TRAININGS[name]
        if (
            training.get("method") != "GeoWarp"
            or self.profile.geowarp["stages"][training["backbone"]] > TRUNK
        ):
            return name
        return next(
            other
            for other, fields in TRAININGS.items()
            if fields == {key: training[key] for key in ("backbone", "margin")}
        )

    def _train_warp(self, name, seed):
        """The folder of a warping regression that was trained beside a finished extractor (`extra.safetensors`, `log.csv`)."""
        p, recipe, base = self.profile, self.recipe(name, seed), self.extractor_of(name)
        made_of = {
            "extractor": self._hash(self.weights(base, seed)),
            "images": self._fingerprint(self.train_table),
            "geowarp": p.geowarp,
            "seed": seed,
            "classes": self.train_table.attrs["classes"],
            "size": p.image_size,
            "without": list(recipe.without),
            "lr": recipe.lr_extra,
            "precision": recipe.precision,
            "device": device().type,
            "version": 1,
        }
        label = f"train {name}" + (f", seed {seed}" if seed else "")

        def make(folder):
            model = self.model(base, seed)
            torch.manual_seed(seed)
            train_alone(
                self._warp(recipe, model),
                model,
                p.geowarp["alone"],
                recipe.lr_extra,
                recipe.precision,
                folder,
                label,
            )

        return self._step(label, "models", made_of, make, resumes=True, together=True)

    def _warp(self, recipe, model):
        """What GeoWarp trains, on the training images; the pairs are mined with the model's descriptors."""
        p, table = self.profile, self.train_table
        numbers = p.geowarp | {
            "weights": {
                loss: 0.0 if loss in recipe.without else weight
                for loss, weight in p.geowarp["weights"].items()
            }
        }
        made_of = {
            "model": weights_hash(model),
            "images": self._fingerprint(table),
            "classes": table.attrs["classes"],
            "size": p.image_size,
            "seed": recipe.seed,
            "candidates": p.geowarp["candidates"],
            "near": p.geowarp["near"],
            "device": device().type,
            "version": 1,
        }
        folder = self._step(
            f"mine pairs {recipe.backbone}, seed {recipe.seed}",
            "mined",
            made_of,
            lambda folder: np.save(
                folder / "pairs.npy",
                mine_pairs(
                    model,
                    table,
                    p.geowarp["candidates"],
                    p.image_size,
                    recipe.seed,
                    p.geowarp["near"],
                ),
            ),
            together=True,
        )
        return Warp(
            table["path"].to_numpy(),
            np.load(folder / "pairs.npy"),
            p.image_size,
            p.geowarp["stages"][recipe.backbone],
            numbers,
            recipe.seed,
        )

    def log(self, name, seed=0):
        """A training's log.csv as a table; where it has validation R@1, the start's is added as iteration 0."""
        log = pd.read_csv(self.train(name, seed) / "log.csv")
        if "val_R@1" not in log:
            return log
        backbone = backbone_of(name)
        if backbone not in self._starts:
            self._starts[backbone] = self.validate(self._load(backbone, self.start(backbone)))
        return pd.concat(
            [pd.DataFrame({"iteration": [0], "val_R@1": [self._starts[backbone]]}), log],
            ignore_index=True,
        )

    def training_seconds(self, name, seed=0):
        """What a training took, the making of its views included, validation and what was read from disk not."""
        log = pd.read_csv(self.train(name, seed) / "log.csv")
        if self.extractor_of(name) != name:
            return self.training_seconds(self.extractor_of(name), seed) + float(
                log["seconds"].sum()
            )
        p = self.profile
        seconds = float(
            (
                log["iteration"].diff().fillna(log["iteration"])
                * p.batch_size
                / log["images_per_second"]
            ).sum()
        )
        if self.stores:
            tables = [self.train_table] + (
                [self._night_target()] if TRAININGS[name].get("method") == "GRL" else []
            )
            seconds += sum(
                seconds(self._views_step(self.recipe(name, seed), table)) for table in tables
            )
        return seconds

    def costs(self):
        """Ratios of times for `claims.ledger`, with a change over without it: of training, and of answering queries, the best of three."""
        dataset = next(name for name in DATASETS if name not in self.absent())
        data, k, size = self.sets[dataset], self.profile.rerank, self.profile.test_size
        paths, database = list(data.queries["path"])[:64], list(data.database["path"])

        def seconds(work):
            found = []
            for _ in range(3):
                began = time.perf_counter()
                work()
                found.append(time.perf_counter() - began)
            return min(found)

        def make(folder):
            base = self.training_seconds("CosFace")
            found = {
                f"{name} training": self.training_seconds(name) / base for name in ("GRL", "EffV2s")
            }
            model = self.model("GeoWarp")
            local, regression = self.warp_model("GeoWarp")
            pairs = np.array(
                [
                    pair
                    for pairs in _candidates(self.result(Evaluation("GeoWarp"), dataset), k)[
                        : len(paths)
                    ]
                    for pair in pairs
                ]
            )
            describe(model, paths, size)  # warms up
            plain = seconds(lambda: describe(model, paths, size))
            searched = seconds(
                lambda: search(
                    np.zeros((len(database), DIM), np.float32),
                    np.zeros((len(paths), DIM), np.float32),
                    k,
                )
            )
            compared = seconds(
                lambda: pair_scores(
                    local,
                    regression,
                    paths,
                    database,
                    pairs,
                    self.profile.image_size,
                    precision=precision(),
                )
            )
            found["GeoWarp testing"] = (plain + searched + compared) / (plain + searched)
            found["brightness testing"] = (
                seconds(lambda: describe(model, paths, size, brightness=NIGHT_BRIGHTNESS)) / plain
            )
            (folder / "costs.json").write_text(json.dumps(found))

        recipe = {
            "models": [
                self._hash(self.weights(name)) for name in ("CosFace", "GRL", "EffV2s", "GeoWarp")
            ],
            "dataset": dataset,
            "version": 3,
        }
        return json.loads(
            (
                self._step("measure costs", "costs", recipe, make, together=True) / "costs.json"
            ).read_text()
        )

    def _night_target(self):
        folder = Path(self.data, NIGHT_TARGET)
        if not folder.is_dir():
            raise VgeoError(
                f"{self.data}: has no night_target: put a few night photos there, which gradient reversal trains on"
            )
        return self._table(folder)

    def _views(self, recipe, table):
        """For `train.train`: the trunk's output for every iteration's augmented images; stored, where the profile says so, for all trainings
        that share start, seed and images."""
        if not self.stores:
            paths, rows = table["path"].to_numpy(), self._rows(recipe, table)
            return lambda model, first: live_views(
                model, paths, rows, recipe.image_size, recipe.seed, first, recipe.precision, part()
            )
        maps = np.load(self._views_step(recipe, table) / "trunk.npy", mmap_mode="r")
        return lambda model, first: (stored(part().of(batch), device()) for batch in maps[first:])

    def _rows(self, recipe, table):
        """The images of every iteration: of the training images by their classes, of the night target at random."""
        rows = batches(
            self.train_table["label"].to_numpy(),
            recipe.batch_size,
            0,
            recipe.epochs * recipe.iterations,
            recipe.seed,
        )
        if table is self.train_table:
            return rows
        random = np.random.default_rng([recipe.seed, 5])
        return [random.integers(len(table), size=len(row)) for row in rows]

    def _views_step(self, recipe, table):
        start = self._load(recipe.backbone, self.start(recipe.backbone)).eval()
        rows = self._rows(recipe, table)
        made_of = {
            "trunk": trunk_hash(start),
            "images": self._fingerprint(table),
            "rows": hashlib.sha256(np.stack(rows).tobytes()).hexdigest(),
            "size": recipe.image_size,
            "seed": recipe.seed,
            "precision": recipe.precision,
            "device": device().type,
            "version": 1,
        }
        label = f"views {self._name(Path(table.attrs['root']))} {recipe.backbone}" + (
            f", seed {recipe.seed}" if recipe.seed else ""
        )

        def make(folder):
            maps, views = (
                None,
                live_views(
                    start,
                    table["path"].to_numpy(),
                    rows,
                    recipe.image_size,
                    recipe.seed,
                    precision=recipe.precision,
                ),
            )
            for i, trunk in enumerate(tqdm(views, label, len(rows), unit=" batches")):
                if maps is None:
                    maps = np.lib.format.open_memmap(
                        folder / "trunk.npy", "w+", np.float16, (len(rows), *trunk.shape)
                    )
                maps[i] = trunk.half().cpu().numpy()
            maps.flush()

        return self._step(label, "views", made_of, make)

    def validate(self, model):
        """R@1 in percent of a model on the validation set."""
        found = [self._describe(model, table) for table in (self.val.database, self.val.queries)]
        return recall(first_hit(search(*found, 1)[0], self.val.positives), 1)

    def start(self, backbone):
        """The safetensors that the trainings of a backbone start from, without any training of ours on these streets."""
        if self.profile.weights == "city":
            return CITY_WEIGHTS / f"{backbone}.safetensors"
        recipe = {"backbone": backbone, "weights": self.profile.weights, "head": 0, "version": 1}

        def make(folder):
            torch.manual_seed(0)  # ImageNet weights come without our head
            save_weights(
                build(backbone, self.profile.weights), folder / "model.safetensors", recipe
            )

        return self._step(f"start {backbone}", "models", recipe, make) / "model.safetensors"

    def model(self, name, seed=0):
        """A trained model or a soup, on the device, in evaluation mode."""
        return self._load(backbone_of(name), self.weights(name, seed)).eval()

    def _ready(self, backbone, path):
        """The model of a weights file. The last one is kept: its data sets and scales follow each other."""
        if self._last[0] != path:
            self._last = path, self._load(backbone, path).eval()
        return self._last[1]

    def _load(self, backbone, path):
        return load_weights(build(backbone), path).to(device(), memory_format=torch.channels_last)

    def weights(self, name, seed=0):
        """The safetensors of a trained model or a soup."""
        if name == "Model Soup":
            return self.soup(self.greedy_soup(seed), seed)
        if name == "uniform soup":
            return self.soup(LOSSES, seed)
        return self.train(self.extractor_of(name), seed) / "model.safetensors"

    def soup(self, ingredients, seed=0, shares=None):
        """The safetensors of trained models' weighted average, equal shares by default."""
        sources = [self.weights(name, seed) for name in ingredients]
        recipe = {
            "ingredients": [self._hash(path) for path in sources],
            "shares": shares and list(shares),
            "version": 1,
        }

        def make(folder):
            states = [self._load(RESNET, path).cpu().state_dict() for path in sources]
            save_weights(
                average(states, shares),
                folder / "model.safetensors",
                recipe | {"names": list(ingredients)},
            )

        return (
            self._step(
                f"soup of {', '.join(ingredients)} {shares or ''}".strip(), "models", recipe, make
            )
            / "model.safetensors"
        )

    def greedy_soup(self, seed=0):
        """Its ingredients, chosen by validation R@1."""

        def score(names):
            return self.validate(self._load(RESNET, self.soup(names, seed)))

        recipe = {
            "ingredients": [self._hash(self.weights(name, seed)) for name in LOSSES],
            "names": LOSSES,
            "version": 1,
            "val": [self._fingerprint(self.val.queries), self._fingerprint(self.val.database)],
        }
        folder = self._step(
            "choose the greedy soup" + (f", seed {seed}" if seed else ""),
            "soups",
            recipe,
            lambda folder: (folder / "names.json").write_text(json.dumps(greedy(LOSSES, score))),
            together=True,
        )
        return json.loads((folder / "names.json").read_text())

    # ---- results ----

    def result(self, row, dataset, seed=0):
        """The Result of an Evaluation or a Fusion on a data set of `sets`; why there is none, a str, where that is absent."""
        data = self.sets[dataset]
        if isinstance(data, str):
            return data
        if isinstance(row, Fusion):
            one, two = (self.result(part, dataset, seed) for part in (row.first, row.second))
            distances = np.full_like(one.distances, np.nan)
            if row.method == "NIF":
                predictions, distances = nearest_first(
                    one.predictions, one.distances, two.predictions, two.distances
                )
            else:
                predictions = {"SIF": shared_first, "RRF": reciprocal_ranks}[row.method](
                    one.predictions, two.predictions
                )
            return Result(data, predictions, distances, first_hit(predictions, data.positives))
        if dataset == "tokyo-night" and row.night == 1.0 and self._night_is_a_part:
            found, rows = self.result(row, "tokyo-xs", seed), data.queries.index
            return Result(
                data, found.predictions[rows], found.distances[rows], found.first_hit[rows]
            )
        found = self.evaluate(
            self.weights(row.model, seed),
            dataset,
            self._night(row, dataset),
            backbone_of(row.model),
            row.multiscale,
            row.side,
            row.scale,
        )
        return self._reranked(row, dataset, seed, found) if row.rerank else found

    def _night(self, row, dataset):
        return row.night if dataset == "tokyo-night" else 1.0

    @cached_property
    def _night_is_a_part(self):
        """Whether tokyo-night's queries are some of tokyo-xs's, looked up in the same database."""
        day, dark = (self.sets[name] for name in ("tokyo-xs", "tokyo-night"))
        return (
            isinstance(day, RetrievalSet)
            and isinstance(dark, RetrievalSet)
            and dark.queries.attrs["root"] == day.queries.attrs["root"]
        )

    def evaluate(
        self,
        weights,
        dataset,
        brightness=1.0,
        backbone=RESNET,
        multiscale=None,
        side="database",
        scale=1.0,
    ):
        """The Result of a model on a data set of `sets`.

        weights: a path of safetensors; brightness: the factor on the database images; multiscale, side and scale: as in `rows.Evaluation`.
        Descriptors and predictions are stored.
        """
        data = self.sets[dataset]
        queries = [
            self._descriptors(weights, data.queries, backbone, 1.0, s)
            for s in (SCALES if multiscale and side != "database" else (scale,))
        ]
        database = [
            self._descriptors(weights, data.database, backbone, brightness, s)
            for s in (SCALES if multiscale and side != "query" else (scale,))
        ]
        k = min(self.profile.predictions, len(data.database))
        recipe = {
            "queries": [folder.name for folder in queries],
            "database": [folder.name for folder in database],
            "method": multiscale,
            "k": k,
            "rows": hashlib.sha256(data.queries.index.to_numpy().tobytes()).hexdigest(),
            "version": 2,
        }
        factory, why = choose_index(len(data.database), DIM, psutil.virtual_memory().total)
        if factory:  # not part of the recipes of exact searches
            recipe |= {"index": factory}

        def load(table, folders):
            found = [
                np.load(folder / "descriptors.npy", mmap_mode="r")[table.index.to_numpy()]
                for folder in folders
            ]
            return found[0] if len(found) == 1 else aggregate(found, multiscale)

        def make(folder):
            base, index = load(data.database, database), None
            if factory:
                print(why)
                index = build_index(base, factory)
            predictions, distances = search(base, load(data.queries, queries), k, index)
            np.save(folder / "predictions.npy", predictions)
            np.save(folder / "distances.npy", distances)

        words = f" {multiscale} on {side}" if multiscale else ""
        folder = self._step(
            f"search {dataset} {self._hash(weights)[:6]}{_words(scale, brightness)}{words}",
            "predictions",
            recipe,
            make,
        )
        predictions = np.load(folder / "predictions.npy")
        return Result(
            data,
            predictions,
            np.load(folder / "distances.npy"),
            first_hit(predictions, data.positives),
        )

    def descriptors(self, name, table, seed=0):
        """Descriptors, float32 (N, D), of a table's images by a trained model."""
        folder = self._descriptors(self.weights(name, seed), table, TRAININGS[name]["backbone"])
        return np.load(folder / "descriptors.npy")[table.index.to_numpy()]

    def with_predictions(self, result, predictions):
        """The Result with other predictions for the same queries."""
        return Result(
            result.data,
            predictions,
            result.distances,
            first_hit(predictions, result.data.positives),
        )

    def _descriptors(self, weights, table, backbone, brightness=1.0, scale=1.0):
        """The folder of the descriptors of all images of the table's folder."""
        root = Path(table.attrs["root"])
        whole, size = self._table(root), self.profile.test_size
        recipe = {
            "weights": self._hash(weights),
            "backbone": backbone,
            "images": self._fingerprint(whole),
            "size": size,
            "scale": scale,
            "brightness": brightness,
            "stored": self.stores,
            "version": 2,
        }
        label = f"describe {self._name(root)} {recipe['weights'][:6]}{_words(scale, brightness)}"

        def make(folder):
            np.save(
                folder / "descriptors.npy",
                self._describe(self._ready(backbone, weights), whole, scale, brightness),
            )

        return self._step(label, "descriptors", recipe, make, together=True)

    def _describe(self, model, table, scale=1.0, brightness=1.0):
        """Descriptors of a whole folder's images by a model in memory; from the stored trunk where the profile has one."""
        size, root = self.profile.test_size, Path(table.attrs["root"])
        words = f"{self._name(root)}{_words(scale, brightness)}"
        if not self.stores:
            return describe(
                model, list(table["path"]), size, scale, brightness, progress=f"describe {words}"
            )
        recipe = {
            "trunk": trunk_hash(model),
            "images": self._fingerprint(table),
            "size": size,
            "scale": scale,
            "brightness": brightness,
            "version": 1,
        }
        label = f"trunk {words} {model.backbone_name}"
        folder = self._step(
            label,
            "trunks",
            recipe,
            lambda folder: store_trunk(
                model,
                list(table["path"]),
                folder / "trunk.npy",
                size,
                scale,
                brightness,
                progress=label,
            ),
        )
        return describe_stored(model, np.load(folder / "trunk.npy", mmap_mode="r"))

    # ---- re-ranking ----

    def _reranked(self, row, dataset, seed, found):
        """The Result with its first K predictions re-ranked by the warped images' local features."""
        k = min(self.profile.rerank, found.predictions.shape[1])
        plain = replace(row, multiscale=None, side="database", rerank=False)
        known = self._similarities((plain,), dataset, seed, k, {})
        if row.multiscale:  # all variants of Tables 9, 11 to 13 at once: they share most pairs
            variants = tuple(
                replace(plain, multiscale=method, side=side)
                for side in ("database", "query", "both")
                for method in METHODS
            )
            known = self._similarities(variants, dataset, seed, k, known)
        scores = np.array([[known[pair] for pair in pairs] for pairs in _candidates(found, k)])
        predictions, _ = rerank(found.predictions, scores, k)
        return self.with_predictions(found, predictions)

    def _similarities(self, rows, dataset, seed, k, known):
        """`known`, {(query, database image): similarity}, and those of the first k predictions of rows of one model."""
        key = (rows, dataset, seed)
        if key not in self._scores:
            wanted = {
                pair
                for row in rows
                for pairs in _candidates(self.result(row, dataset, seed), k)
                for pair in pairs
            } - known.keys()
            pairs = np.array(sorted(wanted), np.int64).reshape(-1, 2)
            scores = self.pair_scores(
                rows[0].model, dataset, pairs, self._night(rows[0], dataset), seed
            )
            self._scores[key] = known | dict(zip(map(tuple, pairs.tolist()), scores.tolist()))
        return self._scores[key]

    def pair_scores(self, name, dataset, pairs, brightness=1.0, seed=0, warped=True):
        """Similarity float32 (P,) of (query, database image) pairs int64 (P, 2) of a data set after warping (or not) by a GeoWarp model."""
        data, weights = self.sets[dataset], self.train(name, seed) / "extra.safetensors"
        recipe = {
            "model": self._hash(self.weights(name, seed)),
            "regression": self._hash(weights),
            "pairs": hashlib.sha256(pairs.tobytes()).hexdigest(),
            "queries": self._fingerprint(data.queries),
            "database": self._fingerprint(data.database),
            "size": self.profile.image_size,
            "brightness": brightness,
            "warped": warped,
            "stages": self.profile.geowarp["stages"],
            "precision": precision(),
            "version": 2,
        }
        label = f"compare {len(pairs)} pairs {dataset} {recipe['model'][:6]}{_words(1.0, brightness)}{'' if warped else ' unwarped'}"

        def make(folder):
            local, regression = self.warp_model(name, seed)
            scores = pair_scores(
                local,
                regression,
                list(data.queries["path"]),
                list(data.database["path"]),
                pairs,
                self.profile.image_size,
                brightness,
                warped,
                precision(),
                progress=label,
            )
            np.save(folder / "scores.npy", scores)

        return np.load(self._step(label, "pairs", recipe, make, together=True) / "scores.npy")

    def warp_model(self, name, seed=0):
        """A GeoWarp model's local features, a function of normalised images, and its regression, in evaluation mode."""
        stages = self.profile.geowarp["stages"][TRAININGS[name]["backbone"]]
        model = self.model(name, seed)
        extra = (
            load_weights(
                Warp([], [], None, None, None, seed), self.train(name, seed) / "extra.safetensors"
            )
            .to(device())
            .eval()
        )
        return lambda images: local_features(model.features(images, stages)), extra.regression

    # ---- tables ----

    def table(self, number, seed=0):
        """A table of the report in long form (`COLUMNS`), its rows in the order of TABLES, and {condition: {data set: Result}}."""
        known = published(number)
        metrics = list(dict.fromkeys(known["metric"]))
        names = [name for name in DATASETS if name in set(known["dataset"])]
        results = {
            condition: {name: self.result(row, name, seed) for name in names}
            for condition, row in TABLES[number].items()
        }
        rows = [
            cells(number, condition, name, result, [int(m[2:]) for m in metrics])
            for condition, found in results.items()
            for name, result in found.items()
        ]
        return pd.concat(rows, ignore_index=True), results

    def absent(self):
        """{data set: why there is none}."""
        return {name: found for name, found in self.sets.items() if isinstance(found, str)}

    # ---- record ----

    def _name(self, folder):
        return folder.relative_to(self.data) if folder.is_relative_to(self.data) else folder.name

    def _hash(self, path):
        """weights_hash of a file, read once: artefacts don't change."""
        if path not in self._hashes:
            self._hashes[path] = weights_hash(path)
        return self._hashes[path]

    def _fingerprint(self, table):
        """fingerprint of a table that the study keeps, computed once."""
        if id(table) not in self._hashes:
            self._hashes[id(table)] = (
                fingerprint(table),
                table,
            )  # the table too: its id stays its own
        return self._hashes[id(table)][0]

    def _step(self, label, step, recipe, make, resumes=False, together=False):
        def announced(folder):
            if not first():
                return make(folder)
            before = self.now.read_text() if self.now.exists() else ""
            self.now.write_text(label)  # for who watches, see `run.watching`
            began, inside = time.perf_counter(), self.made.total()
            make(folder)
            self.made[step] += time.perf_counter() - began - (self.made.total() - inside)
            self.now.write_text(before)

        folder = artefact(self.cache, step, recipe, announced, resumes, together)
        self.steps[label] = folder
        return folder

    def write_run(self):
        """Adds to `run.json`: profile, seeds, data identity, starting weights, versions, machine, key and wall seconds of every step, and under
        "made" the seconds of those that this process made, for `run.run_study`."""
        path = self.results / "run.json"
        before = read_run(path)
        steps = {
            label: {"key": folder.name, "seconds": seconds(folder)}
            for label, folder in self.steps.items()
        }
        names = (
            "torch",
            "torchvision",
            "faiss-cpu",
            "numpy",
            "scipy",
            "pandas",
            "opencv-python-headless",
            "pillow",
            "numba",
            "kornia",
        )
        record = {
            "profile": self.profile.name,
            "image_size": self.profile.image_size,
            "test_size": self.profile.test_size or "their own",
            "seeds": list(self.profile.seeds),
            "data": self.identities()
            | {
                "train": f"{len(self.train_table)} images, {self.train_table.attrs['classes']} classes, "
                f"group {self.train_table.attrs['group']}"
            },
            "starting_weights": {
                b: self._hash(self.start(b))
                for b in sorted({TRAININGS[name]["backbone"] for name, _ in self._models})
            },
            "models": {
                label[6:]: {
                    part.stem: self._hash(part) for part in sorted(folder.glob("*.safetensors"))
                }
                for label, folder in self.steps.items()
                if label.startswith("train ")
            },
            "versions": {"python": platform.python_version()}
            | {name: version(name) for name in names},
            "machine": {
                "system": f"{platform.system()} {platform.machine()}",
                "cores": os.cpu_count(),
                "device": str(device()),
                "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
                "precision": precision(),
            },
            "made": {step: round(seconds, 2) for step, seconds in self.made.items()},
            "notebooks": before.get("notebooks", {}),
            "steps": steps,
        }
        for part in ("starting_weights", "models", "steps"):  # what other notebooks wrote
            record[part] = before.get(part, {}) | record[part]
        self.results.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(f".{os.getpid()}.tmp")
        temporary.write_text(json.dumps(record, indent=2) + "\n")
        os.replace(temporary, path)
        return record


def _whole(number):
    return isinstance(number, int) and not isinstance(number, bool)


def _candidates(result, k):
    """[[(query, database image), ...], ...]: each query with its first k predictions."""
    return [
        [(query, image) for image in images]
        for query, images in enumerate(result.predictions[:, :k].tolist())
    ]


def _words(scale, brightness):
    return (f" at scale {scale:g}" if scale != 1 else "") + (
        f" at brightness {brightness:g}" if brightness != 1 else ""
    )


def read_run(path):
    """The content of a run.json, {} where there is none yet; raises VgeoError where it is damaged."""
    try:
        found = json.loads(path.read_text()) if path.exists() else {}
    except ValueError as error:
        raise VgeoError(
            f"{path}: is damaged ({error}): remove it, the next run writes it again"
        ) from None
    if not isinstance(found, dict):
        raise VgeoError(f"{path}: is no record of a run: remove it, the next run writes it again")
    return found


def fingerprint(table):
    """SHA-256 of a table's images: their names relative to its root, sizes in bytes and positions."""
    root = table.attrs["root"] or "."
    digest = hashlib.sha256()
    for path in table["path"]:
        digest.update(f"{os.path.relpath(path, root)} {os.path.getsize(path)}\n".encode())
    digest.update(
        np.ascontiguousarray(table[["utm_east", "utm_north", "heading"]].to_numpy(float)).tobytes()
    )
    return digest.hexdigest()
