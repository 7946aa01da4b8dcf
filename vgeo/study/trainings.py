"""The models of the study: trained ones, soups of them, and what they start from."""

import hashlib
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from vgeo import files
from vgeo.bars import bar
from vgeo.device import device, numpy_stream, precision, share
from vgeo.errors import VgeoError
from vgeo.models.geowarp import Regression, local_features
from vgeo.models.network import GeoModel, build, folded, trunk_hash
from vgeo.models.soups import average, greedy
from vgeo.models.weights import CITY_WEIGHTS, load_state, read_weights, save_weights
from vgeo.models.whitening import SHRINKAGE, Pooled, describe_pooled, whiten_head
from vgeo.photos.tables import Photos
from vgeo.retrieval.describe import describe, stored_batch
from vgeo.study.cache import Cache, seconds_of
from vgeo.study.data import Data
from vgeo.study.descriptions import VALIDATION_CODE, Descriptions, load
from vgeo.study.profiles import Profile
from vgeo.study.rows import ABLATIONS, LITE, LOSSES, SOUPS, TRAININGS, TrainingRow
from vgeo.training.batches import batches, by_class, live_views
from vgeo.training.loop import Recipe, train_beside, train_extractor
from vgeo.training.technique import Technique

Views = Callable[[GeoModel, int], Iterator[torch.Tensor]]

# Training photos that start a training: of each class IN_A_MEAN, and more where classes are few,
# because a covariance needs some SAMPLE photos. A class with fewer gives all.
IN_A_MEAN, SAMPLE = 5, 2_000


@dataclass(frozen=True, eq=False)
class TrainedModel:
    """A model in a file.

    Attributes
    ----------
    weights, extra : safetensors of the extractor, and of what was trained along with it (None where
        nothing was).
    log : a row each time the loss was averaged; the validation R@1 in percent is in the epochs'
        last rows.
    seconds : wall time of the training and the making of its augmented views, without validation.
    """

    name: str
    seed: int
    backbone: str
    weights: Path
    extra: Path | None = None
    log: pd.DataFrame = field(default_factory=pd.DataFrame)
    seconds: float = 0.0


@dataclass(frozen=True, eq=False)
class WarpModel:
    """What GeoWarp re-ranks with.

    Attributes
    ----------
    local : from normalised images (B, 3, H, W) to local features (B, C, GRID, GRID).
    regression : the warping regression, in evaluation mode.
    """

    local: Callable[[torch.Tensor], torch.Tensor]
    regression: Regression


def regression_of(model: TrainedModel) -> Path:
    """The safetensors of a model's warping regression. Raises VgeoError where it has none."""
    if model.extra is None:
        raise VgeoError(f"{model.name}: has no warping regression: use a training with GeoWarp")
    return model.extra


class Trainings:
    """Trains each model of `rows.TRAININGS` and `rows.ABLATIONS` once for every seed.

    Parameters
    ----------
    weights : the folder of the starting weights that the profile calls "city".
    """

    def __init__(
        self,
        profile: Profile,
        data: Data,
        descriptions: Descriptions,
        cache: Cache,
        weights: Path = CITY_WEIGHTS,
    ):
        self.profile, self.data, self.descriptions = profile, data, descriptions
        self.cache, self.start_folder = cache, Path(weights)
        self._models: dict[tuple[str, int], TrainedModel] = {}
        self._trunks: dict[str, str] = {}  # a backbone's `trunk_hash`

    def train(self, name: str, seed: int = 0) -> TrainedModel:
        """A training of `rows.TRAININGS` or `rows.ABLATIONS`, or a soup of `rows.SOUPS`.

        Raises VgeoError for another name.
        """
        if name in SOUPS:
            soup = SOUPS[name]
            chosen = self.greedy(soup.ingredients, seed) if soup.greedy else soup.ingredients
            return self.soup(chosen, seed, name=name)
        trainings = TRAININGS | ABLATIONS
        if name not in trainings:
            names = ", ".join([*trainings, *SOUPS])
            raise VgeoError(f"no training is called {name!r}: use one of {names}")
        if (name, seed) not in self._models:
            row = trainings[name]
            technique = row.technique(self.profile, self.data) if row.technique else None
            iterations = technique.alone(row.backbone) if technique else None
            label = f"train {name}" + (f", seed {seed}" if seed else "")
            if technique and iterations:
                model = self._beside(name, seed, row, technique, iterations, label)
            else:
                model = self._extractor(name, seed, row, technique, label)
            self._models[name, seed] = model
        return self._models[name, seed]

    def start(self, backbone: str) -> TrainedModel:
        """What the trainings of a backbone start from.

        The head is whitened where the profile says so, which leaves the trunk as it is.
        """
        weights = self.given(backbone)
        if self.profile.whitens_head:
            weights = self._whitened(backbone, weights)
        return TrainedModel(f"start of {backbone}", 0, backbone, weights)

    def source(self, backbone: str) -> str:
        """The profile's name for a backbone's starting weights.

        EfficientNet-Lite0 always starts from ImageNet's.
        """
        return "imagenet" if backbone == LITE else self.profile.weights

    def given(self, backbone: str) -> Path:
        """The file of a backbone's starting weights, before its head is whitened.

        Raises VgeoError where ImageNet's can be neither found nor downloaded.
        """
        weights = self.source(backbone)
        if weights == "city":
            return self.start_folder / f"{backbone}.safetensors"
        recipe = {"backbone": backbone, "weights": weights, "head": 0}

        def make(folder: Path) -> None:
            torch.manual_seed(0)  # ImageNet weights come without our head
            save_weights(build(backbone, weights), folder / "model.safetensors", recipe)

        code = ("vgeo.models.network",)
        folder = self.cache.step("models", f"start {backbone}", recipe, make, code)
        return folder / "model.safetensors"

    def _whitened(self, backbone: str, weights: Path) -> Path:
        """The file of weights with the head whitened on the features of `_pooled`."""
        pooled, _ = self._pooled(backbone)
        recipe = {
            "weights": self.descriptions.hash(weights),
            "pooled": pooled.name,
            "shrinkage": SHRINKAGE,
        }

        def make(folder: Path) -> None:
            model = load(weights, backbone)
            whiten_head(model, _features(pooled))
            save_weights(model, folder / "model.safetensors", recipe)

        label, code = f"whiten the head of {backbone}", ("vgeo.models.whitening",)
        folder = self.cache.step("models", label, recipe, make, code)
        return folder / "model.safetensors"

    def centres(self, backbone: str) -> Path:
        """The file of each class's mean descriptor by the start, float32 (classes, DIM)."""
        start, (pooled, counts) = self.start(backbone), self._pooled(backbone)
        recipe = {
            "weights": self.descriptions.hash(start.weights),
            "pooled": pooled.name,
            "counts": counts,
        }

        def make(folder: Path) -> None:
            found = describe_pooled(load(start.weights, backbone), _features(pooled))
            means = [part.mean(0).cpu().numpy() for part in found.split(counts)]
            np.save(folder / "centres.npy", np.stack(means))

        label, code = f"class means of {backbone}", ("vgeo.models.whitening",)
        folder = self.cache.step("centres", label, recipe, make, code)
        return folder / "centres.npy"

    def _pooled(self, backbone: str) -> tuple[Path, list[int]]:
        """Pooled features by the given weights of some training photos, class after class.

        Heads are whitened on them, and classes' means are made of them. The whitening leaves the
        features as they are.

        Returns
        -------
        The folder of `features.npy`, float32 (photos, C), and the number of photos of each class.
        """
        weights, classes = self.given(backbone), self.data.classes
        size = self.profile.test_size or self.profile.image_size
        of_each = max(IN_A_MEAN, math.ceil(SAMPLE / classes.count))
        members, begins = by_class(classes.labels)
        each = [
            rows[np.linspace(0, len(rows) - 1, min(len(rows), of_each)).astype(int)]
            for rows in np.split(members, begins[1:-1])
        ]
        rows = np.concatenate(each)
        recipe = {
            "weights": self.descriptions.hash(weights),
            "photos": classes.photos.fingerprint,
            "rows": hashlib.sha256(rows.tobytes()).hexdigest(),
            "size": size,
        }
        label = f"pooled features of {backbone}"

        def make(folder: Path) -> None:
            paths = [classes.photos.paths[row] for row in rows]
            features = describe(Pooled(load(weights, backbone)), paths, size, progress=label)
            np.save(folder / "features.npy", features)

        code = ("vgeo.models.whitening", "vgeo.retrieval.describe")
        folder = self.cache.step("pooled", label, recipe, make, code, together=True)
        return folder, [len(rows) for rows in each]

    def load_warp(self, model: TrainedModel) -> WarpModel:
        """The local features and the warping regression of a training with GeoWarp."""
        path = regression_of(model)
        extractor = folded(load(model.weights, model.backbone))
        stages = self.profile.geowarp.stages
        state = read_weights(path)
        state = {name.removeprefix("regression."): tensor for name, tensor in state.items()}
        regression = load_state(Regression(), state, path).to(device()).eval()

        def local(images: torch.Tensor) -> torch.Tensor:
            return local_features(extractor.features(images, stages[model.backbone]))

        return WarpModel(local, regression)

    def soup(
        self,
        ingredients: tuple[str, ...] | list[str],
        seed: int = 0,
        shares: tuple[float, ...] | None = None,
        name: str | None = None,
    ) -> TrainedModel:
        """The weighted average of trainings with one backbone; equal shares by default."""
        models = [self.train(each, seed) for each in ingredients]
        recipe = {
            "ingredients": [self.descriptions.hash(model.weights) for model in models],
            "shares": shares and list(shares),
        }

        def make(folder: Path) -> None:
            networks = [load(model.weights, model.backbone).cpu() for model in models]
            states = [network.state_dict() for network in networks]
            names = {"names": list(ingredients)}
            save_weights(average(states, shares), folder / "model.safetensors", recipe | names)

        label = f"soup of {', '.join(ingredients)} {shares or ''}".strip()
        folder = self.cache.step("models", label, recipe, make, ("vgeo.models.soups",))
        weights = folder / "model.safetensors"
        return TrainedModel(name or label, seed, models[0].backbone, weights, None)

    def greedy(self, ingredients: tuple[str, ...] = LOSSES, seed: int = 0) -> list[str]:
        """The ingredients that the greedy soup keeps, chosen by validation R@1."""
        models = [self.train(name, seed) for name in ingredients]
        recipe = self.descriptions.validation() | {
            "ingredients": [self.descriptions.hash(model.weights) for model in models],
            "names": ingredients,
        }

        def score(names: list[str]) -> float:
            soup = self.soup(names, seed)
            return self.descriptions.validate(load(soup.weights, soup.backbone))

        def make(folder: Path) -> None:
            (folder / "names.json").write_text(json.dumps(greedy(ingredients, score)))

        label = f"choose the greedy soup of {', '.join(ingredients)}"
        label += f", seed {seed}" if seed else ""
        code = ("vgeo.models.soups", *VALIDATION_CODE)
        folder = self.cache.step("soups", label, recipe, make, code, together=True)
        return json.loads((folder / "names.json").read_text())

    def _recipe(self, row: TrainingRow, seed: int) -> Recipe:
        p = self.profile
        return Recipe(
            backbone=row.backbone,
            weights=self.source(row.backbone),
            margin=row.margin,
            image_size=p.image_size,
            seed=seed,
            precision=precision(),
            **p.training.__dict__,
        )

    def _extractor(
        self, name: str, seed: int, row: TrainingRow, technique: Technique | None, label: str
    ) -> TrainedModel:
        """A training of the extractor, with a technique's layers beside it where there is one."""
        recipe, start = self._recipe(row, seed), self.start(row.backbone)
        classes = self.data.classes
        made_of = recipe.as_dict() | self.descriptions.validation()
        made_of |= {
            "start": self.descriptions.hash(start.weights),
            "train": [classes.photos.fingerprint, classes.count],
            "device": device().type,
        }
        code: tuple[str, ...] = ("vgeo.training.loop", "vgeo.training.batches", *VALIDATION_CODE)
        rate, target, centres = None, None, None
        if recipe.class_means:
            path = self.centres(row.backbone)
            centres = np.load(path)
            made_of["centres"] = files.sha256(path)
        if technique:
            rate, target = technique.learning_rate, technique.target
            code += technique.code
            made_of |= {"technique": technique.recipe(), "lr_extra": rate}
            if target is not None:
                made_of["target"] = target.fingerprint

        def make(folder: Path) -> None:
            views, extra = self._views(recipe, classes.photos), None
            target_views = self._views(recipe, target) if target is not None else None
            if technique:
                model = load(start.weights, row.backbone)
                extra = technique.prepare(model, classes, recipe.image_size, seed, self.cache.step)
            train_extractor(
                recipe,
                start.weights,
                classes,
                self.descriptions.validate,
                folder,
                views,
                target_views,
                extra,
                rate,
                centres,
                label,
            )

        folder = self.cache.step("models", label, made_of, make, code, resumes=True, together=True)
        log = pd.read_csv(folder / "log.csv")
        seconds = float(log["seconds"].sum())
        if self.profile.stores_trunk:
            sources = [classes.photos] + ([target] if target is not None else [])
            seconds += sum(seconds_of(self._stored_views(recipe, each)) for each in sources)
        weights, extra_file = folder / "model.safetensors", folder / "extra.safetensors"
        beside = extra_file if technique else None
        return TrainedModel(name, seed, row.backbone, weights, beside, log, seconds)

    def _beside(
        self,
        name: str,
        seed: int,
        row: TrainingRow,
        technique: Technique,
        iterations: int,
        label: str,
    ) -> TrainedModel:
        """A training of a technique's layers alone, beside another training's extractor."""
        assert row.base is not None
        base, classes, size = self.train(row.base, seed), self.data.classes, self.profile.image_size
        made_of = {
            "extractor": self.descriptions.hash(base.weights),
            "train": [classes.photos.fingerprint, classes.count],
            "technique": technique.recipe(),
            "iterations": iterations,
            "lr": technique.learning_rate,
            "size": size,
            "seed": seed,
            "precision": precision(),
            "device": device().type,
        }

        def make(folder: Path) -> None:
            model = load(base.weights, row.backbone)
            extra = technique.prepare(model, classes, size, seed, self.cache.step)
            rate = technique.learning_rate
            train_beside(extra, model, iterations, rate, precision(), folder, label)

        code = ("vgeo.training.loop", *technique.code)
        folder = self.cache.step("models", label, made_of, make, code, resumes=True, together=True)
        log = pd.read_csv(folder / "log.csv")
        seconds = base.seconds + float(log["seconds"].sum())
        extra_file = folder / "extra.safetensors"
        return TrainedModel(name, seed, row.backbone, base.weights, extra_file, log, seconds)

    def _rows(self, recipe: Recipe, photos: Photos) -> list[np.ndarray]:
        """Every iteration's photos: of the classes, or, of a second domain, at random."""
        classes = self.data.classes
        total = recipe.epochs * recipe.iterations
        rows = batches(classes.labels, recipe.batch_size, 0, total, recipe.seed)
        if photos is classes.photos:
            return rows
        random = numpy_stream(recipe.seed, "night photos")
        return [random.integers(len(photos), size=len(row)) for row in rows]

    def _views(self, recipe: Recipe, photos: Photos) -> Views:
        """The trunk's output for every iteration's augmented photos, for `train_extractor`."""
        if self.profile.stores_trunk:
            maps = np.load(self._stored_views(recipe, photos) / "trunk.npy", mmap_mode="r")
            return lambda model, first: (
                stored_batch(share().of(batch), device()) for batch in maps[first:]
            )
        paths, rows = np.array(photos.paths), self._rows(recipe, photos)
        return lambda model, first: live_views(
            model, paths, rows, recipe.image_size, recipe.seed, first, recipe.precision, share()
        )

    def _stored_views(self, recipe: Recipe, photos: Photos) -> Path:
        """The folder of `trunk.npy`, float16 (iterations, B, C, h, w).

        All trainings of one start, seed and photos share it.
        """
        start, rows = self.start(recipe.backbone), self._rows(recipe, photos)
        if recipe.backbone not in self._trunks:
            self._trunks[recipe.backbone] = trunk_hash(load(start.weights, start.backbone))
        made_of = {
            "trunk": self._trunks[recipe.backbone],
            "images": photos.fingerprint,
            "rows": hashlib.sha256(np.stack(rows).tobytes()).hexdigest(),
            "size": recipe.image_size,
            "seed": recipe.seed,
            "precision": recipe.precision,
            "device": device().type,
        }
        label = f"views {self.data.label(photos)} {recipe.backbone}"
        label += f", seed {recipe.seed}" if recipe.seed else ""

        def make(folder: Path) -> None:
            model = folded(load(start.weights, start.backbone))
            paths, maps = np.array(photos.paths), None
            arguments = (rows, recipe.image_size, recipe.seed)
            views = live_views(model, paths, *arguments, precision=recipe.precision)
            with bar(label, len(rows), "batches") as counter:
                for i, trunk in enumerate(views):
                    if maps is None:
                        shape, path = (len(rows), *trunk.shape), folder / "trunk.npy"
                        maps = np.lib.format.open_memmap(path, "w+", np.float16, shape)
                    maps[i] = trunk.half().cpu().numpy()
                    counter.update()
            if maps is not None:
                maps.flush()

        return self.cache.step("views", label, made_of, make, ("vgeo.training.batches",))


def _features(pooled: Path) -> torch.Tensor:
    return torch.from_numpy(np.load(pooled / "features.npy"))
