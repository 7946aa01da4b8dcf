"""Every number of every profile, in one place. DESIGN's facts of the original are the defaults; smoke and city say where they differ."""

import math
from dataclasses import dataclass, field
from pathlib import Path

from vgeo.city.plan import Plan
from vgeo.errors import VgeoError


def results_of(profile, data=None, root=None):
    """The folder of a study's results; data: the folder of its photos, or None."""
    return (
        root / "results" / (profile if data is None else f"{profile}-{Path(data).resolve().name}")
    )


ROOT = Path(__file__).resolve().parents[1]  # of the repository: notebooks/ and results/ lie there


# GeoWarp's training. stages: of the backbone, whose output are the local features. All stages, stride 32, are a map of 16 x 16 for the
# original's 512 pixels; for 96 pixels they are one of 3 x 3 without any geometry, so the city takes stride 8, which is 12 x 12.
GEOWARP = {
    "k": 0.6,  # of the trapezoids
    "self_supervised": 16,
    "mined": 16,  # pairs in an iteration
    "weights": {"self_supervised": 1.0, "feature_wise": 10.0, "consistency": 0.1},
    "candidates": 20_000,
    "near": 1.2,  # pairs to choose the mined ones from, and how far their descriptors may lie apart
    "stages": {"resnet18": 8, "efficientnet_v2_s": 8},
}


# These lie in the frozen trunk: the regression is then trained by itself, "alone" so many iterations.
CITY_GEOWARP = GEOWARP | {
    "mined": 4,
    "candidates": 800,
    "stages": {"resnet18": 6, "efficientnet_v2_s": 4},
    "alone": 600,
}


# Images of the original's data sets, and the CosPlace classes of the group that is trained on. The tests'
# are also in the authors' logs (data/author_logs.csv).
PAPER_COUNTS = {
    "classes": 5_965,
    ("sf-xs", "val", "database"): 8_015,
    ("sf-xs", "val", "queries"): 7_993,
    ("sf-xs", "test", "database"): 27_191,
    ("sf-xs", "test", "queries"): 1_000,
    ("tokyo-xs", "test", "database"): 12_771,
    ("tokyo-xs", "test", "queries"): 315,
    ("tokyo-night", "test", "queries"): 105,
}


@dataclass(frozen=True)
class Profile:
    """The defaults are the original's (CosPlace's code and the report's section 1.3 and 5.2)."""

    name: str
    city: Plan | None = None  # what is rendered; None: real data must be given
    weights: str = "imagenet"  # starting weights, see `models.build`
    image_size: int = 512  # pixels of training images and of those that are warped, both sides
    test_size: int | None = (
        None  # pixels of test images, both sides; None: their own size, as CosPlace tests
    )
    # CosPlace classes
    cell: float = 10.0  # M, metres
    angle: float = 30.0  # alpha, degrees
    n: int = 5
    l: int = 2  # noqa: E741  (the paper's letter)
    min_images: int = 10
    # training
    epochs: int = 3
    iterations: int = 10_000  # in an epoch
    batch_size: int = 32
    lr_model: float = 1e-5
    lr_classifier: float = 0.01
    seeds: tuple = (0,)
    # The largest image size, in pixels, up to which the frozen trunk's output is kept on disk for all models that share it. A view of
    # 96 pixels takes 37 kB with ResNet18, and grows with the square.
    store_trunk: int = 0
    # gradient reversal (the report, section 3)
    grl_weight: float = 0.3
    lr_discriminator: float = 1e-5
    # GeoWarp (the report, section 5; its paper, section 4)
    lr_regression: float = 1e-4
    rerank: int = 5  # predictions
    geowarp: dict = field(default_factory=lambda: GEOWARP)
    # evaluation
    radius: float = 25.0  # metres
    predictions: int = 20  # stored per query
    recalls: tuple = field(default=(1, 5, 10, 20))
    counts: dict | None = None  # published sizes of the data sets, see `layout.check`

    def __post_init__(self):
        """Raises VgeoError for a number that nothing can be computed with."""
        whole = (
            "n",
            "l",
            "min_images",
            "epochs",
            "iterations",
            "batch_size",
            "rerank",
            "predictions",
        )
        for name in (
            *whole,
            "image_size",
            "cell",
            "angle",
            "radius",
            "lr_model",
            "lr_classifier",
            "lr_discriminator",
            "lr_regression",
        ):
            value = getattr(self, name)
            if not 0 < value < math.inf or name in whole and value != int(value):
                raise VgeoError(
                    f"profile {self.name}: {name} is {value}: make it a {'whole ' if name in whole else ''}number above 0"
                )


PROFILES = {
    # minutes: what a notebook opened in JupyterLab and the tests use; its recalls mean nothing
    "smoke": Profile(
        "smoke",
        weights="city",
        image_size=64,
        test_size=64,
        epochs=1,
        iterations=12,
        lr_model=1e-4,
        store_trunk=160,
        lr_discriminator=1e-3,
        lr_regression=1e-3,
        geowarp=CITY_GEOWARP | {"candidates": 100, "alone": 12},
        city=Plan(
            size=64,
            seed=2,
            train_districts=2,
            images_per_class=10,
            val_districts=1,
            val_queries=24,
            test_districts=1,
            test_queries=24,
            tokyo_districts=1,
            tokyo_places=10,
            night_target=4,
            heading_step=120,
        ),
    ),
    # the whole study on two cores: fewer and smaller images, so fewer iterations at a higher rate
    "city": Profile(
        "city",
        weights="city",
        image_size=96,
        test_size=96,
        epochs=3,
        iterations=80,
        lr_model=1e-4,
        store_trunk=160,
        lr_discriminator=1e-3,
        lr_regression=1e-3,
        geowarp=CITY_GEOWARP,
        city=Plan(size=96, seed=1),
    ),
    "paper": Profile(
        "paper", counts=PAPER_COUNTS
    ),  # sf-xs, tokyo-xs and tokyo-night in --data FOLDER; hours on a GPU
}


def profile(name):
    """The profile of that name; raises VgeoError with the names there are."""
    if not isinstance(name, str) or name not in PROFILES:
        raise VgeoError(f"unknown profile {name!r}: use one of {', '.join(PROFILES)}")
    return PROFILES[name]
