"""Every number of every profile, in one place. DESIGN's facts of the original are the defaults; smoke and city say where they differ."""

from dataclasses import dataclass, field
from pathlib import Path

from vgeo.city import Plan
from vgeo.errors import VgeoError

ROOT = Path(__file__).resolve().parents[1]  # of the repository: notebooks/ and results/ lie there


@dataclass(frozen=True)
class Profile:
    """The defaults are the original's (CosPlace's code and the report's section 1.3 and 5.2)."""

    name: str
    city: Plan | None = None  # what is rendered; None: real data must be given
    weights: str = "imagenet"  # starting weights, see `models.build`
    image_size: int = 512  # pixels, training and test
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
    # evaluation
    radius: float = 25.0  # metres
    predictions: int = 20  # stored per query
    recalls: tuple = field(default=(1, 5, 10, 20))


PROFILES = {
    # minutes: what a notebook opened in JupyterLab and the tests use; its recalls mean nothing
    "smoke": Profile(
        "smoke", weights="city", image_size=64, epochs=1, iterations=12, lr_model=1e-4,
        city=Plan(size=64, seed=2, train_districts=2, images_per_class=10, val_districts=1, val_queries=60, test_districts=1, test_queries=60,
                  tokyo_districts=1, tokyo_places=20, night_target=4, heading_step=60),
    ),
    # the whole study on two cores: fewer and smaller images, so fewer iterations at a higher rate
    "city": Profile(
        "city", weights="city", image_size=96, epochs=3, iterations=100, lr_model=3e-4,
        city=Plan(size=96, seed=1),
    ),
    "paper": Profile("paper"),  # sf-xs, tokyo-xs and tokyo-night in --data FOLDER; hours on a GPU
}


def profile(name):
    """The profile of that name; raises VgeoError with the names there are."""
    if name not in PROFILES:
        raise VgeoError(f"unknown profile {name!r}: use one of {', '.join(PROFILES)}")
    return PROFILES[name]
