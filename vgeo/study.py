"""The study: which training and which evaluation every table row is, and the artefacts that they are computed from."""

import hashlib
import json
import os
import platform
import time
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from tqdm.auto import tqdm

from vgeo import artefacts, city, report
from vgeo.datasets import RetrievalSet, check_images, cosplace_classes, open_retrieval_set, positives, read_images
from vgeo.describe import describe, describe_stored, device, store_trunk, stored
from vgeo.errors import VgeoError
from vgeo.fuse import nearest_first, reciprocal_ranks, shared_first
from vgeo.geowarp import local_features, pair_scores, rerank
from vgeo.joint import Domain, Warp, mine_pairs
from vgeo.metrics import first_hit, recall
from vgeo.models import CITY_WEIGHTS, build, load_weights, save_weights, trunk_hash, weights_hash
from vgeo.multiscale import METHODS, SCALES, aggregate
from vgeo.profiles import ROOT, profile
from vgeo.retrieve import search
from vgeo.soups import average, greedy
from vgeo.train import Recipe, batches, live_views, precision, train

DATASETS = ("sf-xs", "tokyo-xs", "tokyo-night")  # the columns of every table, spelled as in the report
RESNET, EFFNET = "resnet18", "efficientnet_v2_s"
NIGHT_BRIGHTNESS = 0.15  # "from now on, if not specified, when the filter is involved" (the report, section 4.1)

# name of a trained model -> how it is trained, as fields of `train.Recipe`
TRAININGS = {
    "CosFace": {"backbone": RESNET, "margin": "CosFace"},  # the report's baseline from section 2 on
    "SphereFace": {"backbone": RESNET, "margin": "SphereFace"},
    "ArcFace": {"backbone": RESNET, "margin": "ArcFace"},
    "GRL": {"backbone": RESNET, "margin": "CosFace", "method": "GRL"},
    "GeoWarp": {"backbone": RESNET, "margin": "CosFace", "method": "GeoWarp"},
    # what each of GeoWarp's losses adds
    "GeoWarp, self-supervised": {"backbone": RESNET, "margin": "CosFace", "method": "GeoWarp", "without": ("feature_wise", "consistency")},
    "GeoWarp, no consistency": {"backbone": RESNET, "margin": "CosFace", "method": "GeoWarp", "without": ("consistency",)},
    "EffV2s": {"backbone": EFFNET, "margin": "CosFace"},
    "EffV2s + GRL": {"backbone": EFFNET, "margin": "CosFace", "method": "GRL"},
    "EffV2s + GeoWarp": {"backbone": EFFNET, "margin": "CosFace", "method": "GeoWarp"},
}
LOSSES = ("CosFace", "ArcFace", "SphereFace")  # the soups' ingredients, in Table 6's order
BRIGHTNESS = (0.1, 0.15, 0.2, 0.3, 0.4)  # Table 3's factors
MORE_BRIGHTNESS = (0.05, 0.6, 0.8)  # section 4.1 speaks of lower and higher ones


@dataclass(frozen=True)
class Evaluation:
    """How a row's predictions are made from a model.

    model: a name of TRAININGS, "Model Soup" (greedy) or "uniform soup". night: brightness factor of the database where tokyo-night's queries
    are looked up. multiscale: an entry of `multiscale.METHODS`, on the descriptors of `side`: "database", "query" or "both". rerank: with
    the model's own warping regression.
    """

    model: str
    night: float = 1.0
    multiscale: str | None = None
    side: str = "database"
    rerank: bool = False


@dataclass(frozen=True)
class Fusion:
    """Two rows' predictions merged: method "NIF", "SIF" or "RRF"."""

    method: str
    first: Evaluation
    second: Evaluation


def _multiscale(row):
    """Tables 8 to 13: a row without multi-scale, the report's four, and those on the other sides."""
    rows = {"/": row(None, "database")} | {method: row(method, "database") for method in METHODS}
    return rows | {f"{method}, {words}": row(method, side) for side, words in (("query", "query side"), ("both", "both sides")) for method in METHODS}


def _tables():
    base, grl, warp = Evaluation("CosFace"), Evaluation("GRL"), Evaluation("GeoWarp", rerank=True)
    eff, eff_grl = Evaluation("EffV2s", NIGHT_BRIGHTNESS), Evaluation("EffV2s + GRL", NIGHT_BRIGHTNESS)
    eff_warp = Evaluation("EffV2s + GeoWarp", NIGHT_BRIGHTNESS, rerank=True)
    fused = {f"GeoWarp + GRL ({method})": Fusion(method, eff_warp, eff_grl) for method in ("NIF", "SIF", "RRF")}
    return {
        1: {name: Evaluation(name) for name in ("CosFace", "SphereFace", "ArcFace")},
        2: {"baseline": base, "GRL": grl},
        3: {f"{name} brightness={f if f < 1 else 'none'}": replace(row, night=f)
            for f in (1.0, *BRIGHTNESS, *MORE_BRIGHTNESS) for name, row in (("baseline", base), ("GRL", grl))},
        4: {"baseline": base, "baseline + GeoWarp (before re-ranking)": replace(warp, rerank=False), "baseline + GeoWarp": warp},
        5: {"baseline": base, "ResNet18 + GeoWarp": warp, "ResNet18 + GRL": grl, "EffV2s": eff,
            "EffV2s + GeoWarp (before re-ranking)": replace(eff_warp, rerank=False), "EffV2s + GeoWarp": eff_warp, "EffV2s + GRL": eff_grl,
            "EffV2s (no brightness filter)": replace(eff, night=1.0)},
        6: {name: Evaluation(name) for name in (*LOSSES, "Model Soup", "uniform soup")},
        7: {"GeoWarp": eff_warp, "GRL": eff_grl, **fused},
        8: _multiscale(lambda method, side: replace(grl, multiscale=method, side=side)),
        9: _multiscale(lambda method, side: replace(warp, multiscale=method, side=side)),
        10: _multiscale(lambda method, side: replace(eff_grl, multiscale=method, side=side)),
        11: _multiscale(lambda method, side: replace(eff_warp, multiscale=method, side=side)),
        12: _multiscale(lambda method, side: Fusion("SIF", *(replace(row, multiscale=method, side=side) for row in (eff_warp, eff_grl)))),
        13: _multiscale(lambda method, side: Fusion("NIF", *(replace(row, multiscale=method, side=side) for row in (eff_warp, eff_grl)))),
    }


# table -> {condition, spelled as in `data/report_tables.csv` where the report has it: how its predictions are made}
TABLES = _tables()

# Names that people's copies of the data have: of the data set's folder, and of its queries
FOLDERS = {"sf-xs": ("sf-xs", "sf_xs", "small"), "tokyo-xs": ("tokyo-xs", "tokyo_xs"), "tokyo-night": ("tokyo-night", "tokyo_night")}
QUERIES = ("queries_v1", "queries")
NIGHT_TARGET = ("night_target",)


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
            if seeds < 1:
                raise VgeoError(f"seeds {seeds}: at least 1, how often every training is repeated")
            self.profile = replace(self.profile, seeds=tuple(range(seeds)))
        if image_size is not None:
            if image_size < 32:
                raise VgeoError(f"image size {image_size}: at least 32 pixels, the stride of the networks")
            self.profile = replace(self.profile, image_size=int(image_size))
        if data is None and self.profile.city is None:
            raise VgeoError(f"profile {name} needs real data: add --data FOLDER, with sf-xs, tokyo-xs and tokyo-night in it")
        if data is not None and not Path(data).is_dir():
            raise VgeoError(f"{data}: no such folder: give the one that holds sf-xs, tokyo-xs and tokyo-night")
        self.stores = self.profile.image_size <= self.profile.store_trunk
        self.data_folder = Path(data).resolve() if data is not None else None
        self.results = ROOT / "results" / (name if data is None else f"{name}-{self.data_folder.name}")
        self.cache = ROOT / "results" / "cache"
        self.steps = {}
        self._tables, self._models, self._hashes, self._scores = {}, {}, {}, {}

    # ---- data ----

    @cached_property
    def data(self):
        """The folder of the data sets, rendered when it has to be."""
        if self.data_folder:
            return self.data_folder
        recipe = {"plan": self.profile.city.__dict__, "version": city.VERSION}
        return self._step("render the city", "data", recipe, lambda folder: city.write_city(self.profile.city, folder))

    def _folder(self, name, *parts):
        """The first existing folder of that data set, or None; the last part may be given as alternatives."""
        *middle, last = parts
        for top in FOLDERS[name]:
            for end in last if isinstance(last, tuple) else (last,):
                folder = Path(self.data, top, *middle, end)
                if folder.is_dir():
                    return folder
        return None

    def _table(self, folder):
        """The images of a folder, read once."""
        if folder not in self._tables:
            self._tables[folder] = read_images(folder)
            check_images(self._tables[folder]["path"])
        return self._tables[folder]

    @cached_property
    def train_table(self):
        """Training images with their CosPlace labels."""
        folder, p = self._folder("sf-xs", "train"), self.profile
        if folder is None:
            raise VgeoError(f"{self.data}: has no sf-xs/train: put the training images of sf-xs there")
        return cosplace_classes(self._table(folder), p.cell, p.angle, p.n, p.l, p.min_images)

    @cached_property
    def val(self):
        return self._open("sf-xs val", self._folder("sf-xs", "val", QUERIES), self._folder("sf-xs", "val", "database"), "sf-xs/val")

    @cached_property
    def sets(self):
        """{data set: RetrievalSet, or a str that says why there is none}."""
        found = {}
        for name in DATASETS:
            queries, database = self._folder(name, "test", QUERIES), self._folder(name, "test", "database")
            if name == "tokyo-night" and database is None:  # photographed at night, found in tokyo-xs's database
                database = self._folder("tokyo-xs", "test", "database")
            missing = [part for part, folder in (("queries", queries), ("database", database)) if folder is None]
            found[name] = f"no {name}/test {' and '.join(missing)} in {self.data.name}" if missing else self._open(name, queries, database, name)
        day, dark = found["tokyo-xs"], found["tokyo-night"]
        if isinstance(day, RetrievalSet) and isinstance(dark, RetrievalSet):
            # the night queries are a part of tokyo-xs's: take them from there, so that none is described twice
            rows = pd.Series(day.queries.index, [os.path.basename(path) for path in day.queries["path"]])
            names = [os.path.basename(path) for path in dark.queries["path"]]
            if rows.index.is_unique and set(names) <= set(rows.index):
                queries = day.queries.loc[rows[names]]
                found["tokyo-night"] = RetrievalSet("tokyo-night", queries, day.database, positives(queries, day.database, self.profile.radius))
        return found

    def _open(self, name, queries, database, where):
        if queries is None or database is None:
            raise VgeoError(f"{self.data}: has no {where} with a database and queries: put them there as sf-xs has them")
        found = open_retrieval_set(name, queries, database, self.profile.radius)
        return RetrievalSet(name, self._table(queries), self._table(database), found.positives)

    def identities(self):
        """One line for each data set: what its results were measured on, or why it is absent."""
        return {"sf-xs val": str(self.val.identity),
                **{name: str(data.identity) if isinstance(data, RetrievalSet) else data for name, data in self.sets.items()}}

    # ---- models ----

    def recipe(self, name, seed=0):
        p = self.profile
        lr_extra = {"GRL": p.lr_discriminator, "GeoWarp": p.lr_regression}.get(TRAININGS[name].get("method"))
        return Recipe(weights=p.weights, image_size=p.image_size, epochs=p.epochs, iterations=p.iterations, batch_size=p.batch_size,
                      lr_model=p.lr_model, lr_classifier=p.lr_classifier, seed=seed, precision=precision(), lr_extra=lr_extra, **TRAININGS[name])

    def train(self, name, seed=0):
        """The folder of the trained model (`model.safetensors`, `log.csv`, `extra.safetensors` where something was trained along)."""
        if (name, seed) not in self._models:
            self._models[name, seed] = self._train(name, seed)
        return self._models[name, seed]

    def _train(self, name, seed):
        p, recipe, table = self.profile, self.recipe(name, seed), self.train_table
        made_of = recipe.as_dict() | {"start": self._hash(self.start(recipe.backbone)), "train": self._fingerprint(table),
                                      "val": [self._fingerprint(self.val.queries), self._fingerprint(self.val.database)],
                                      "classes": table.attrs["classes"], "device": device().type, "version": 2}
        if recipe.method == "GRL":
            made_of |= {"night": self._fingerprint(self._night_target()), "weight": p.grl_weight}
        elif recipe.method == "GeoWarp":
            numbers = p.geowarp | {"weights": {loss: 0.0 if loss in recipe.without else weight for loss, weight in p.geowarp["weights"].items()}}
            made_of |= {"geowarp": numbers}
        label = f"train {name}" + (f", seed {seed}" if seed else "")

        def make(folder):
            views, targets, extra = self._views(recipe, table), None, None
            torch.manual_seed(seed)
            if recipe.method == "GRL":
                targets, extra = self._views(recipe, self._night_target()), Domain(recipe.backbone, p.grl_weight)
            elif recipe.method == "GeoWarp":
                start = load_weights(build(recipe.backbone), self.start(recipe.backbone)).to(device())
                pairs = mine_pairs(start, table, p.geowarp["candidates"], p.image_size, seed, p.geowarp["near"])
                extra = Warp(table["path"].to_numpy(), pairs, p.image_size, p.geowarp["stages"][recipe.backbone], numbers, seed)
            train(recipe, table, self.validate, folder, views, targets, extra, label)

        return self._step(label, "models", made_of, make, resumes=True)

    def training_seconds(self, name, seed=0):
        """What a training took, the making of its views included, validation and what was read from disk not."""
        log = pd.read_csv(self.train(name, seed) / "log.csv")
        p = self.profile
        seconds = float((log["iteration"].diff().fillna(log["iteration"]) * p.batch_size / log["images_per_second"]).sum())
        if self.stores:
            tables = [self.train_table] + ([self._night_target()] if TRAININGS[name].get("method") == "GRL" else [])
            seconds += sum(artefacts.seconds(self._views_step(self.recipe(name, seed), table)) for table in tables)
        return seconds

    def costs(self):
        """Ratios of times for `claims.ledger`, with a change over without it: of training, and of answering queries, measured once."""
        dataset = next(name for name in DATASETS if name not in self.absent())
        data, k, size = self.sets[dataset], self.profile.rerank, self.profile.image_size
        paths, database = list(data.queries["path"])[:64], list(data.database["path"])

        def seconds(work):
            began = time.perf_counter()
            work()
            return time.perf_counter() - began

        def make(folder):
            base = self.training_seconds("CosFace")
            found = {f"{name} training": self.training_seconds(name) / base for name in ("GRL", "EffV2s")}
            model = load_weights(build(RESNET), self.weights("GeoWarp")).to(device())
            local, regression = self.warp_model("GeoWarp")
            pairs = np.array([(query, image) for query in range(len(paths)) for image in range(min(k, len(database)))])
            describe(model, paths, size)  # warms up
            plain = seconds(lambda: describe(model, paths, size))
            searched = seconds(lambda: search(np.zeros((len(database), 512), np.float32), np.zeros((len(paths), 512), np.float32), k))
            compared = seconds(lambda: pair_scores(local, regression, paths, database, pairs, size))
            found["GeoWarp testing"] = (plain + searched + compared) / (plain + searched)
            found["brightness testing"] = seconds(lambda: describe(model, paths, size, brightness=NIGHT_BRIGHTNESS)) / plain
            (folder / "costs.json").write_text(json.dumps(found))

        recipe = {"models": [self._hash(self.weights(name)) for name in ("CosFace", "GRL", "EffV2s", "GeoWarp")], "dataset": dataset, "version": 1}
        return json.loads((self._step("measure costs", "costs", recipe, make) / "costs.json").read_text())

    def validation_of_start(self, backbone):
        """R@1 in percent on the validation set of the weights that a backbone's trainings start from."""
        return self.validate(load_weights(build(backbone), self.start(backbone)).to(device()))

    def _night_target(self):
        folder = next((Path(self.data, name) for name in NIGHT_TARGET if Path(self.data, name).is_dir()), None)
        if folder is None:
            raise VgeoError(f"{self.data}: has no night_target: put a few night photos there, which gradient reversal trains on")
        return self._table(folder)

    def _views(self, recipe, table):
        """For `train.train`: the trunk's output for every iteration's augmented images; stored, where the profile says so, for all trainings
        that share start, seed and images."""
        if not self.stores:
            paths, rows = table["path"].to_numpy(), self._rows(recipe, table)
            return lambda model, first: live_views(model, paths, rows, recipe.image_size, recipe.seed, first)
        maps = np.load(self._views_step(recipe, table) / "trunk.npy", mmap_mode="r")
        return lambda model, first: (stored(batch, device()) for batch in maps[first:])

    def _rows(self, recipe, table):
        """The images of every iteration: of the training images by their classes, of the night target at random."""
        rows = batches(self.train_table["label"].to_numpy(), recipe.batch_size, 0, recipe.epochs * recipe.iterations, recipe.seed)
        if table is self.train_table:
            return rows
        random = np.random.default_rng([recipe.seed, 5])
        return [random.integers(len(table), size=len(row)) for row in rows]

    def _views_step(self, recipe, table):
        start = load_weights(build(recipe.backbone), self.start(recipe.backbone)).to(device(), memory_format=torch.channels_last).eval()
        rows = self._rows(recipe, table)
        made_of = {"trunk": trunk_hash(start), "images": self._fingerprint(table), "rows": hashlib.sha256(np.stack(rows).tobytes()).hexdigest(),
                   "size": recipe.image_size, "seed": recipe.seed, "precision": recipe.precision, "device": device().type, "version": 1}
        label = f"views {self._name(Path(table.attrs['root']))} {recipe.backbone}" + (f", seed {recipe.seed}" if recipe.seed else "")

        def make(folder):
            maps, views = None, live_views(start, table["path"].to_numpy(), rows, recipe.image_size, recipe.seed)
            for i, trunk in enumerate(tqdm(views, label, len(rows), unit=" batches")):
                if maps is None:
                    maps = np.lib.format.open_memmap(folder / "trunk.npy", "w+", np.float16, (len(rows), *trunk.shape))
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
            save_weights(build(backbone, self.profile.weights), folder / "model.safetensors", recipe)

        return self._step(f"start {backbone}", "models", recipe, make) / "model.safetensors"

    def weights(self, name, seed=0):
        """The safetensors of a trained model or a soup."""
        if name == "Model Soup":
            return self.soup(self.greedy_soup(seed), seed)
        if name == "uniform soup":
            return self.soup(LOSSES, seed)
        return self.train(name, seed) / "model.safetensors"

    def soup(self, ingredients, seed=0, shares=None):
        """The safetensors of trained models' weighted average, equal shares by default."""
        sources = [self.weights(name, seed) for name in ingredients]
        recipe = {"ingredients": [self._hash(path) for path in sources], "shares": shares and list(shares), "version": 1}

        def make(folder):
            states = [load_weights(build(RESNET), path).state_dict() for path in sources]
            save_weights(average(states, shares), folder / "model.safetensors", recipe | {"names": list(ingredients)})

        return self._step(f"soup of {', '.join(ingredients)} {shares or ''}".strip(), "models", recipe, make) / "model.safetensors"

    def greedy_soup(self, seed=0):
        """Its ingredients, chosen by validation R@1."""
        def score(names):
            return self.validate(load_weights(build(RESNET), self.soup(names, seed)).to(device()))

        recipe = {"ingredients": [self._hash(self.weights(name, seed)) for name in LOSSES], "names": LOSSES, "version": 1,
                  "val": [self._fingerprint(self.val.queries), self._fingerprint(self.val.database)]}
        folder = self._step("choose the greedy soup" + (f", seed {seed}" if seed else ""), "soups", recipe,
                            lambda folder: (folder / "names.json").write_text(json.dumps(greedy(LOSSES, score))))
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
                predictions, distances = nearest_first(one.predictions, one.distances, two.predictions, two.distances)
            else:
                predictions = {"SIF": shared_first, "RRF": reciprocal_ranks}[row.method](one.predictions, two.predictions)
            return Result(data, predictions, distances, first_hit(predictions, data.positives))
        found = self.evaluate(self.weights(row.model, seed), dataset, self._night(row, dataset), TRAININGS.get(row.model, TRAININGS["CosFace"])["backbone"],
                              row.multiscale, row.side)
        return self._reranked(row, dataset, seed, found) if row.rerank else found

    def _night(self, row, dataset):
        return row.night if dataset == "tokyo-night" else 1.0

    def evaluate(self, weights, dataset, brightness=1.0, backbone=RESNET, multiscale=None, side="database"):
        """The Result of a model on a data set of `sets`.

        weights: a path of safetensors; brightness: the factor on the database images. Descriptors and predictions are stored.
        """
        data = self.sets[dataset]
        queries = self._sources(weights, data.queries, backbone, 1.0, multiscale if side != "database" else None)
        database = self._sources(weights, data.database, backbone, brightness, multiscale if side != "query" else None)
        k = min(self.profile.predictions, len(data.database))
        recipe = {"queries": [folder.name for folder in queries], "database": [folder.name for folder in database], "method": multiscale, "k": k,
                  "rows": hashlib.sha256(data.queries.index.to_numpy().tobytes()).hexdigest(), "version": 2}

        def load(table, folders):
            found = [np.load(folder / "descriptors.npy", mmap_mode="r")[table.index.to_numpy()] for folder in folders]
            return found[0] if len(found) == 1 else aggregate(found, multiscale)

        def make(folder):
            predictions, distances = search(load(data.database, database), load(data.queries, queries), k)
            np.save(folder / "predictions.npy", predictions)
            np.save(folder / "distances.npy", distances)

        words = f" {multiscale} on {side}" if multiscale else ""
        folder = self._step(f"search {dataset} {self._hash(weights)[:6]}{_words(1.0, brightness)}{words}", "predictions", recipe, make)
        predictions = np.load(folder / "predictions.npy")
        return Result(data, predictions, np.load(folder / "distances.npy"), first_hit(predictions, data.positives))

    def descriptors(self, name, table, seed=0):
        """Descriptors, float32 (N, D), of a table's images by a trained model."""
        folder = self._descriptors(self.weights(name, seed), table, TRAININGS[name]["backbone"])
        return np.load(folder / "descriptors.npy")[table.index.to_numpy()]

    def with_predictions(self, result, predictions):
        """The Result with other predictions for the same queries."""
        return Result(result.data, predictions, result.distances, first_hit(predictions, result.data.positives))

    def _sources(self, weights, table, backbone, brightness, method):
        """The folders of the descriptors of a table's images, at scale 1 or, for a method, at all scales."""
        return [self._descriptors(weights, table, backbone, brightness, scale) for scale in (SCALES if method else (1.0,))]

    def _descriptors(self, weights, table, backbone, brightness=1.0, scale=1.0):
        """The folder of the descriptors of all images of the table's folder."""
        root = Path(table.attrs["root"])
        whole, size = self._table(root), self.profile.image_size
        recipe = {"weights": self._hash(weights), "backbone": backbone, "images": self._fingerprint(whole), "size": size, "scale": scale,
                  "brightness": brightness, "stored": self.stores, "version": 2}
        label = f"describe {self._name(root)} {recipe['weights'][:6]}{_words(scale, brightness)}"

        def make(folder):
            model = load_weights(build(backbone), weights).to(device())
            np.save(folder / "descriptors.npy", self._describe(model, whole, scale, brightness))

        return self._step(label, "descriptors", recipe, make)

    def _describe(self, model, table, scale=1.0, brightness=1.0):
        """Descriptors of a whole folder's images by a model in memory; from the stored trunk where the profile has one."""
        size, root = self.profile.image_size, Path(table.attrs["root"])
        words = f"{self._name(root)}{_words(scale, brightness)}"
        if not self.stores:
            return describe(model, list(table["path"]), size, scale, brightness, progress=f"describe {words}")
        recipe = {"trunk": trunk_hash(model), "images": self._fingerprint(table), "size": size, "scale": scale, "brightness": brightness, "version": 1}
        label = f"trunk {words} {model.backbone_name}"
        folder = self._step(label, "trunks", recipe,
                            lambda folder: store_trunk(model, list(table["path"]), folder / "trunk.npy", size, scale, brightness, progress=label))
        return describe_stored(model, np.load(folder / "trunk.npy", mmap_mode="r"))

    # ---- re-ranking ----

    def _reranked(self, row, dataset, seed, found):
        """The Result with its first K predictions re-ranked by the warped images' local features."""
        k = min(self.profile.rerank, found.predictions.shape[1])
        groups = [[replace(row, multiscale=None, side="database")]]  # as in Tables 4 and 5
        if row.multiscale:  # all variants of Tables 9, 11 to 13 at once: they share most pairs
            groups.append([replace(row, multiscale=method, side=side) for side in ("database", "query", "both") for method in METHODS])
        for group in groups:
            known = self._scores.setdefault((row.model, dataset, row.night, seed), {})
            wanted = (row.model, dataset, row.night, seed, len(group))
            if wanted in self._scores:
                continue
            candidates = [self.result(replace(variant, rerank=False), dataset, seed).predictions[:, :k] for variant in group]
            pairs = {(query, image) for found_ in candidates for query, images in enumerate(found_.tolist()) for image in images}
            pairs = np.array(sorted(pairs - known.keys()), np.int64).reshape(-1, 2)
            known |= zip(map(tuple, pairs.tolist()), self.pair_scores(row.model, dataset, pairs, self._night(row, dataset), seed).tolist())
            self._scores[wanted] = True
        scores = np.array([[known[query, image] for image in images] for query, images in enumerate(found.predictions[:, :k].tolist())])
        predictions, _ = rerank(found.predictions, scores, k)
        return self.with_predictions(found, predictions)

    def pair_scores(self, name, dataset, pairs, brightness=1.0, seed=0, warped=True):
        """Similarity float32 (P,) of (query, database image) pairs int64 (P, 2) of a data set after warping (or not) by a GeoWarp model."""
        data, weights = self.sets[dataset], self.train(name, seed) / "extra.safetensors"
        recipe = {"model": self._hash(self.weights(name, seed)), "regression": self._hash(weights), "pairs": hashlib.sha256(pairs.tobytes()).hexdigest(),
                  "queries": self._fingerprint(data.queries), "database": self._fingerprint(data.database), "size": self.profile.image_size,
                  "brightness": brightness, "warped": warped, "stages": self.profile.geowarp["stages"], "version": 1}
        label = f"compare {len(pairs)} pairs {dataset} {recipe['model'][:6]}{_words(1.0, brightness)}{'' if warped else ' unwarped'}"

        def make(folder):
            local, regression = self.warp_model(name, seed)
            scores = pair_scores(local, regression, list(data.queries["path"]), list(data.database["path"]), pairs, self.profile.image_size,
                                 brightness, warped, progress=label)
            np.save(folder / "scores.npy", scores)

        return np.load(self._step(label, "pairs", recipe, make) / "scores.npy")

    def warp_model(self, name, seed=0):
        """A GeoWarp model's local features, a function of normalised images, and its regression, in evaluation mode."""
        backbone, stages = TRAININGS[name]["backbone"], self.profile.geowarp["stages"]
        model = load_weights(build(backbone), self.weights(name, seed)).to(device(), memory_format=torch.channels_last).eval()
        extra = load_weights(Warp([], [], None, None, None, seed), self.train(name, seed) / "extra.safetensors").to(device()).eval()
        return lambda images: local_features(model.features(images, stages[backbone])), extra.regression

    # ---- tables ----

    def table(self, number, seed=0):
        """A table of the report in long form (`report.COLUMNS`), its rows in the order of TABLES, and {condition: {data set: Result}}."""
        known = report.published(number)
        metrics = list(dict.fromkeys(known["metric"]))
        names = [name for name in DATASETS if name in set(known["dataset"])]
        results = {condition: {name: self.result(row, name, seed) for name in names} for condition, row in TABLES[number].items()}
        rows = [report.cells(number, condition, name, result, [int(m[2:]) for m in metrics])
                for condition, found in results.items() for name, result in found.items()]
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
            self._hashes[id(table)] = (fingerprint(table), table)  # the table too: its id stays its own
        return self._hashes[id(table)][0]

    def _step(self, label, step, recipe, make, resumes=False):
        folder = artefacts.artefact(self.cache, step, recipe, make, resumes)
        self.steps[label] = folder
        return folder

    def write_run(self):
        """Adds to `run.json`: profile, seeds, data identity, starting weights, versions, machine, and key and wall seconds of every step."""
        path = self.results / "run.json"
        before = json.loads(path.read_text()) if path.exists() else {}
        steps = {label: {"key": folder.name, "seconds": artefacts.seconds(folder)} for label, folder in self.steps.items()}
        names = ("torch", "torchvision", "faiss-cpu", "numpy", "scipy", "pandas", "opencv-python-headless", "pillow", "numba")
        record = {
            "profile": self.profile.name, "image_size": self.profile.image_size, "seeds": list(self.profile.seeds),
            "data": self.identities() | {"train": f"{len(self.train_table)} images, {self.train_table.attrs['classes']} classes, "
                                                  f"group {self.train_table.attrs['group']}"},
            "starting_weights": {b: weights_hash(self.start(b)) for b in sorted({TRAININGS[name]["backbone"] for name, _ in self._models})},
            "models": {label[6:]: weights_hash(folder / "model.safetensors") for label, folder in self.steps.items() if label.startswith("train ")},
            "versions": {"python": platform.python_version()} | {name: version(name) for name in names},
            "machine": {"system": f"{platform.system()} {platform.machine()}", "cores": os.cpu_count(), "device": str(device()),
                        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None, "precision": precision()},
            "steps": steps,
        }
        for part in ("starting_weights", "models", "steps"):  # what other notebooks wrote
            record[part] = before.get(part, {}) | record[part]
        self.results.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".tmp")
        temporary.write_text(json.dumps(record, indent=2) + "\n")
        os.replace(temporary, path)
        return record


def _words(scale, brightness):
    return (f" at scale {scale:g}" if scale != 1 else "") + (f" at brightness {brightness:g}" if brightness != 1 else "")


def fingerprint(table):
    """SHA-256 of a table's images: their names relative to its root, sizes in bytes and positions."""
    root = table.attrs["root"] or "."
    digest = hashlib.sha256()
    for path in table["path"]:
        digest.update(f"{os.path.relpath(path, root)} {os.path.getsize(path)}\n".encode())
    digest.update(np.ascontiguousarray(table[["utm_east", "utm_north", "heading"]].to_numpy(float)).tobytes())
    return digest.hexdigest()
