"""The study: which training and which evaluation every table row is, and the artefacts that they are computed from."""

import hashlib
import json
import os
import platform
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from vgeo import artefacts, city
from vgeo.datasets import RetrievalSet, check_images, cosplace_classes, open_retrieval_set, positives, read_images
from vgeo.describe import describe, device
from vgeo.errors import VgeoError
from vgeo.metrics import first_hit
from vgeo.models import CITY_WEIGHTS, build, load_weights, save_weights, weights_hash
from vgeo.profiles import ROOT, profile
from vgeo.retrieve import search
from vgeo.train import Recipe, precision, train

DATASETS = ("sf-xs", "tokyo-xs", "tokyo-night")  # the columns of every table, spelled as in the report
BACKBONE = "resnet18"

# condition of a table's row -> how its model is trained, as fields of `train.Recipe`
TRAININGS = {
    "CosFace": {"backbone": BACKBONE, "margin": "CosFace"},  # the report's baseline from section 2 on
    "SphereFace": {"backbone": BACKBONE, "margin": "SphereFace"},
    "ArcFace": {"backbone": BACKBONE, "margin": "ArcFace"},
}
TABLES = {1: ("CosFace", "SphereFace", "ArcFace")}  # table -> its conditions, in the report's order

# Names that people's copies of the data have: of the data set's folder, and of its queries
FOLDERS = {"sf-xs": ("sf-xs", "sf_xs", "small"), "tokyo-xs": ("tokyo-xs", "tokyo_xs"), "tokyo-night": ("tokyo-night", "tokyo_night")}
QUERIES = ("queries_v1", "queries")


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

    def __init__(self, name, data=None, image_size=None):
        self.profile = profile(name)
        if image_size is not None:
            if image_size < 32:
                raise VgeoError(f"image size {image_size}: at least 32 pixels, the stride of the networks")
            self.profile = replace(self.profile, image_size=int(image_size))
        if data is None and self.profile.city is None:
            raise VgeoError(f"profile {name} needs real data: add --data FOLDER, with sf-xs, tokyo-xs and tokyo-night in it")
        if data is not None and not Path(data).is_dir():
            raise VgeoError(f"{data}: no such folder: give the one that holds sf-xs, tokyo-xs and tokyo-night")
        self.data_folder = Path(data).resolve() if data is not None else None
        self.results = ROOT / "results" / (name if data is None else f"{name}-{self.data_folder.name}")
        self.cache = ROOT / "results" / "cache"
        self.steps = {}
        self._tables = {}

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

    # ---- models and results ----

    def recipe(self, condition, seed=0):
        p = self.profile
        return Recipe(weights=p.weights, image_size=p.image_size, epochs=p.epochs, iterations=p.iterations, batch_size=p.batch_size,
                      lr_model=p.lr_model, lr_classifier=p.lr_classifier, seed=seed, precision=precision(), **TRAININGS[condition])

    def train(self, condition, seed=0):
        """The folder of the trained model (`model.safetensors`, `log.csv`), trained when it has to be."""
        recipe = self.recipe(condition, seed)
        made_of = recipe.as_dict() | {"start": weights_hash(self.start(recipe.backbone)), "train": fingerprint(self.train_table),
                                      "val": [fingerprint(self.val.queries), fingerprint(self.val.database)],
                                      "classes": self.train_table.attrs["classes"], "device": device().type, "version": 1}
        label = f"train {condition}" + (f", seed {seed}" if seed else "")
        return self._step(label, "models", made_of, lambda folder: train(recipe, self.train_table, self.val, folder, label), resumes=True)

    def start(self, backbone):
        """The safetensors that the trainings of a backbone start from, without any training of ours on these streets."""
        if self.profile.weights == "city":
            return CITY_WEIGHTS / f"{backbone}.safetensors"
        recipe = {"backbone": backbone, "weights": self.profile.weights, "head": 0, "version": 1}

        def make(folder):
            torch.manual_seed(0)  # ImageNet weights come without our head
            save_weights(build(backbone, self.profile.weights), folder / "model.safetensors", recipe)

        return self._step(f"start {backbone}", "models", recipe, make) / "model.safetensors"

    def evaluate(self, weights, dataset, brightness=1.0, backbone=BACKBONE):
        """The Result of a model on a data set of `sets`.

        weights: a path of safetensors; brightness: the factor on the database images. Descriptors and predictions are stored.
        """
        data = self.sets[dataset]
        queries, queries_key = self._descriptors(weights, data.queries, backbone)
        database, database_key = self._descriptors(weights, data.database, backbone, brightness)
        k = min(self.profile.predictions, len(database))
        recipe = {"queries": queries_key, "rows": hashlib.sha256(data.queries.index.to_numpy().tobytes()).hexdigest(), "database": database_key,
                  "k": k, "version": 1}

        def make(folder):
            predictions, distances = search(database, queries, k)
            np.save(folder / "predictions.npy", predictions)
            np.save(folder / "distances.npy", distances)

        folder = self._step(f"search {dataset} {queries_key[:6]}", "predictions", recipe, make)
        predictions = np.load(folder / "predictions.npy")
        return Result(data, predictions, np.load(folder / "distances.npy"), first_hit(predictions, data.positives))

    def _descriptors(self, weights, table, backbone, brightness=1.0):
        """Descriptors of the table's images, cut out of those of its whole folder, and the key of these."""
        root = Path(table.attrs["root"])
        whole, size = self._table(root), self.profile.image_size
        recipe = {"weights": weights_hash(weights), "backbone": backbone, "images": fingerprint(whole), "size": size, "scale": 1.0,
                  "brightness": brightness, "version": 1}
        label = f"describe {root.relative_to(self.data) if root.is_relative_to(self.data) else root.name} {recipe['weights'][:6]}"
        label += f" at brightness {brightness:g}" if brightness != 1 else ""

        def make(folder):
            model = build(backbone).to(device())
            load_weights(model, weights)
            np.save(folder / "descriptors.npy", describe(model, list(whole["path"]), size, brightness=brightness, progress=label))

        folder = self._step(label, "descriptors", recipe, make)
        return np.load(folder / "descriptors.npy", mmap_mode="r")[table.index.to_numpy()], folder.name

    # ---- record ----

    def _step(self, label, step, recipe, make, resumes=False):
        folder = artefacts.artefact(self.cache, step, recipe, make, resumes)
        self.steps[label] = folder
        return folder

    def write_run(self):
        """Adds to `run.json`: profile, seeds, data identity, starting weights, versions, machine, and key and wall seconds of every step."""
        path = self.results / "run.json"
        before = json.loads(path.read_text())["steps"] if path.exists() else {}
        steps = {label: {"key": folder.name, "seconds": artefacts.seconds(folder)} for label, folder in self.steps.items()}
        names = ("torch", "torchvision", "faiss-cpu", "numpy", "scipy", "pandas", "opencv-python-headless", "pillow", "numba")
        record = {
            "profile": self.profile.name, "image_size": self.profile.image_size, "seeds": list(self.profile.seeds),
            "data": self.identities() | {"train": f"{len(self.train_table)} images, {self.train_table.attrs['classes']} classes, "
                                                  f"group {self.train_table.attrs['group']}"},
            "starting_weights": {BACKBONE: weights_hash(self.start(BACKBONE))},
            "models": {label[6:]: weights_hash(folder / "model.safetensors") for label, folder in self.steps.items() if label.startswith("train ")},
            "versions": {"python": platform.python_version()} | {name: version(name) for name in names},
            "machine": {"system": f"{platform.system()} {platform.machine()}", "cores": os.cpu_count(), "device": str(device()),
                        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None, "precision": precision()},
            "steps": before | steps,
        }
        if path.exists():
            record["models"] = json.loads(path.read_text())["models"] | record["models"]
        self.results.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".tmp")
        temporary.write_text(json.dumps(record, indent=2) + "\n")
        os.replace(temporary, path)
        return record


def fingerprint(table):
    """SHA-256 of a table's images: their names relative to its root, sizes in bytes and positions."""
    root = table.attrs["root"] or "."
    digest = hashlib.sha256()
    for path in table["path"]:
        digest.update(f"{os.path.relpath(path, root)} {os.path.getsize(path)}\n".encode())
    digest.update(np.ascontiguousarray(table[["utm_east", "utm_north", "heading"]].to_numpy(float)).tobytes())
    return digest.hexdigest()
