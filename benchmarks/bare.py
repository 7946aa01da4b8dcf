"""What benchmarks compare the study with: PyTorch alone, on tensors in memory."""

import time
from pathlib import Path

import torch

from vgeo.device import autocast, device
from vgeo.models.network import DIM, build, freeze
from vgeo.study.profiles import Profile
from vgeo.study.rows import LITE, TRAININGS
from vgeo.training.loop import Recipe
from vgeo.training.losses import MARGINS, AngularMarginLoss

RESULTS = Path(__file__).resolve().parent / "results"


def seconds(work):
    """What work() takes, a GPU's part of it included."""
    began = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - began


def city_model(backbone):
    """The model with the starting weights that need no download, on the device, to evaluate."""
    model = build(backbone, "imagenet" if backbone == LITE else "city").to(device())
    return model.to(memory_format=torch.channels_last).eval()


def recipe_of(profile: Profile, name: str, precision: str, **changes) -> Recipe:
    """The recipe of a training of `rows.TRAININGS`, seed 0, from the packaged weights."""
    row = TRAININGS[name]
    numbers = {"image_size": profile.image_size, "seed": 0, "precision": precision}
    names = {"backbone": row.backbone, "weights": "city", "margin": row.margin}
    return Recipe(**names | numbers | profile.training.__dict__ | changes)


def training_step(recipe, classes):
    """step(batch, labels, from_images) of a new model: the recipe's forward pass, loss, backward
    pass and optimizers' steps.
    """
    model = city_model(recipe.backbone).train()
    freeze(model, recipe.keeps_statistics)
    criterion = AngularMarginLoss(DIM, classes, MARGINS[recipe.margin]).to(device())
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizers = [
        torch.optim.Adam(trained, recipe.lr_model),
        torch.optim.Adam(criterion.parameters(), recipe.lr_classifier),
    ]

    def step(batch, labels, from_images):
        with autocast(device(), recipe.precision):
            if from_images:
                with torch.no_grad():
                    batch = model.trunk(batch)
            maps = model.upper(batch)
        loss = criterion(model.head(maps), labels)
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()

    return step
