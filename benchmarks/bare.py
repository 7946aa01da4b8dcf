"""What benchmarks compare the study with: PyTorch alone, on tensors in memory."""

import time

import torch

from vgeo.training.losses import MARGINS, AngularMarginLoss
from vgeo.models.weights import CITY_WEIGHTS, load_weights
from vgeo.models.network import DIM, build, freeze
from vgeo.device import device


def seconds(work):
    """What work() takes, a GPU's part of it included."""
    began = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - began


def city_model(backbone):
    """The model with the packaged weights, in evaluation mode, on the device."""
    return (
        load_weights(build(backbone), CITY_WEIGHTS / f"{backbone}.safetensors")
        .eval()
        .to(device(), memory_format=torch.channels_last)
    )


def training_step(recipe, classes):
    """step(batch, labels, from_images) of a new model: the recipe's forward pass, loss, backward pass and optimizers' steps."""
    model, criterion = (
        city_model(recipe.backbone).train(),
        AngularMarginLoss(DIM, classes, MARGINS[recipe.margin]).to(device()),
    )
    freeze(model)
    optimizers = [
        torch.optim.Adam([p for p in model.parameters() if p.requires_grad], recipe.lr_model),
        torch.optim.Adam(criterion.parameters(), recipe.lr_classifier),
    ]

    def step(batch, labels, from_images):
        with torch.autocast(device().type, torch.bfloat16, enabled=recipe.precision == "bf16"):
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
