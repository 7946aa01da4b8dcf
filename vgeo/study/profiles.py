"""Every number of every profile, in one place.

The defaults are the original's and CosPlace's. The profiles smoke and city say where they differ.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace

from vgeo.city.plan import Plan
from vgeo.errors import VgeoError
from vgeo.training.geowarp import Settings as WarpSettings
from vgeo.training.grl import Settings as ReversalSettings

# The numbers of images of the original's data sets and of CosPlace classes in the group that is
# trained on. Those of the tests are also in the logs of the original's authors
# (report/data/author_logs.csv).
PAPER_COUNTS: dict[str | tuple[str, str, str], int] = {
    "classes": 5_965,
    ("sf-xs", "val", "database"): 8_015,
    ("sf-xs", "val", "queries"): 7_993,
    ("sf-xs", "test", "database"): 27_191,
    ("sf-xs", "test", "queries"): 1_000,
    ("tokyo-xs", "test", "database"): 12_771,
    ("tokyo-xs", "test", "queries"): 315,
    ("tokyo-night", "test", "queries"): 105,
}


PAPER_GEOWARP = WarpSettings(
    k=0.6,
    self_supervised=16,
    mined=16,
    self_supervised_weight=1.0,
    feature_wise_weight=10.0,
    consistency_weight=0.1,
    candidates=20_000,
    near=1.2,
    stages={"resnet18": 8, "efficientnet_v2_s": 8, "efficientnet_lite0": 8},
    learning_rate=1e-4,
)


@dataclass(frozen=True)
class ClassSizes:
    """The sizes of CosPlace's classes and groups, see `photos.places.cosplace_classes`."""

    cell: float = 10.0  # M, metres
    angle: float = 30.0  # alpha, degrees
    n: int = 5
    l: int = 2  # noqa: E741  (the paper's letter)
    min_images: int = 10


@dataclass(frozen=True)
class Training:
    """How the extractor is trained."""

    epochs: int = 3
    iterations: int = 10_000  # in an epoch
    batch_size: int = 32
    lr_model: float = 1e-5
    lr_classifier: float = 0.01
    # whether each class begins at the mean of its photos' descriptors, not at a random vector
    class_means: bool = False
    # whether BatchNorm keeps the start's statistics in the trained stages too
    keeps_statistics: bool = False


@dataclass(frozen=True)
class Testing:
    """How a model is tested."""

    radius: float = 25.0  # metres: a prediction is right within
    predictions: int = 20  # stored for each query
    rerank: int = 5  # the first predictions that GeoWarp orders anew


@dataclass(frozen=True)
class Profile:
    """All numbers of one run of the study."""

    name: str
    city: Plan | None = None  # what is rendered; None: real data must be given
    weights: str = "imagenet"  # starting weights, see `models.network.build`
    # Whether the head begins as the whitening of what the start sees in the training photos.
    whitens_head: bool = False
    image_size: int = 512  # pixels of training images and of those that are warped, both sides
    test_size: int | None = None  # pixels of test images, both sides; None: their own size
    # The largest image size, in pixels, up to which the frozen trunk's output is kept on disk for
    # all models that share it. A view of 96 pixels takes 37 kB with ResNet18. The size grows with
    # the square of the side.
    store_trunk: int = 0
    disk_gb: float = 60.0  # what the cache of a whole run takes, one seed
    seeds: tuple[int, ...] = (0,)
    counts: dict[str | tuple[str, str, str], int] | None = (
        None  # published sizes of the data sets, see `photos.layout.check`
    )
    classes: ClassSizes = ClassSizes()
    training: Training = Training()
    grl: ReversalSettings = ReversalSettings(weight=0.3, learning_rate=1e-5)
    geowarp: WarpSettings = PAPER_GEOWARP
    testing: Testing = Testing()

    def __post_init__(self) -> None:
        """Raises VgeoError for a number that nothing can be computed with."""
        for name, value, kind in _numbers(self):
            if not 0 < value < math.inf or (kind is int and value != int(value)):
                whole = "whole " if kind is int else ""
                raise VgeoError(
                    f"profile {self.name}: {name} is {value}: make it a {whole}number above 0"
                )

    @property
    def stores_trunk(self) -> bool:
        """Whether the frozen trunk's output is kept on disk."""
        return self.test_size is not None and self.image_size <= self.store_trunk


def _numbers(profile: Profile) -> Iterator[tuple[str, float, type]]:
    """(name, value, declared type) of the profile's numbers that have to be above 0."""
    for part in (profile, profile.classes, profile.training, profile.testing):
        for field in fields(part):
            value = getattr(part, field.name)
            if field.type in (int, float) and field.name != "store_trunk":
                yield field.name, value, field.type
    yield "lr_discriminator", profile.grl.learning_rate, float
    yield "lr_regression", profile.geowarp.learning_rate, float


# The local features of GeoWarp come from the stage whose map is nearest to its 15 x 15 grid: all
# stages, stride 32, make 16 x 16 of the original's 512 pixels. Of 96 pixels they make 3 x 3 without
# any geometry, so smoke and city take stride 8: 8 x 8 and 12 x 12. These stages lie in the frozen
# trunk, so the regression is trained beside a finished extractor, `alone` so many iterations.
# Whitened heads put unrelated photos at a distance of some sqrt(2) = 1.41 from each other: near is
# what is nearer.
CITY_GEOWARP = replace(
    PAPER_GEOWARP,
    mined=4,
    candidates=800,
    near=1.4,
    stages={"resnet18": 6, "efficientnet_v2_s": 4, "efficientnet_lite0": 4},
    learning_rate=1e-3,
    alone=400,
    consistency_variants=1,
)
CITY_GRL = ReversalSettings(weight=0.3, learning_rate=1e-3)

# In the original's 30,000 iterations a random head, random classes and BatchNorm's statistics have
# time to settle. In the city's 150 they do not, so smoke and city begin with a whitened head and
# with class means, which move slowly, and keep the start's statistics. The figures that decided it
# are in docs/original.md, "Why `city` begins otherwise".
CITY_TRAINING = Training(lr_model=1e-4, lr_classifier=1e-3, class_means=True, keeps_statistics=True)

PROFILES = {
    # Minutes. Notebooks opened in JupyterLab and the tests use it. Its recalls mean nothing.
    "smoke": Profile(
        "smoke",
        weights="city",
        whitens_head=True,
        image_size=64,
        test_size=64,
        store_trunk=160,
        disk_gb=1.6,
        training=replace(CITY_TRAINING, epochs=1, iterations=12),
        grl=CITY_GRL,
        # A head whitened on 960 photos, hardly more than its 512 axes, puts nearly all of them at
        # the distance sqrt(2) from each other. So every pair of one class counts as near.
        geowarp=replace(CITY_GEOWARP, candidates=100, alone=12, near=2.0),
        city=Plan(
            size=64,
            seed=2,
            train_districts=2,
            images_per_class=10,
            val_blocks=1,
            val_queries=24,
            test_blocks=1,
            test_queries=24,
            tokyo_blocks=1,
            tokyo_places=10,
            night_target=4,
            panorama_step=10.0,
            heading_step=120,
        ),
    ),
    # The whole study on two cores: smaller and fewer images, so fewer iterations at a higher rate.
    "city": Profile(
        "city",
        weights="city",
        whitens_head=True,
        image_size=96,
        test_size=96,
        store_trunk=160,
        disk_gb=6.0,
        training=replace(CITY_TRAINING, epochs=3, iterations=50),
        grl=CITY_GRL,
        geowarp=CITY_GEOWARP,
        city=Plan(size=96, seed=1),
    ),
    # sf-xs, tokyo-xs and tokyo-night in --data FOLDER. Hours on a GPU.
    "paper": Profile("paper", counts=PAPER_COUNTS),
}


def profile(name: str) -> Profile:
    """The profile of that name. Raises VgeoError, with the names there are, for another."""
    if not isinstance(name, str) or name not in PROFILES:
        raise VgeoError(f"unknown profile {name!r}: use one of {', '.join(PROFILES)}")
    return PROFILES[name]


STARTS = ("imagenet",)  # what `--start` takes


def starting(profile: Profile, start: str | None) -> Profile:
    """The profile with other starting weights; the profile itself for None.

    Raises VgeoError for a start that is not in STARTS.
    """
    if start is None:
        return profile
    if start not in STARTS:
        raise VgeoError(
            f"unknown start {start!r}: use {', '.join(STARTS)}, or leave it out for the profile's "
            "own starting weights"
        )
    return replace(profile, weights=start)
