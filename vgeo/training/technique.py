"""What a technique is: layers and a loss that are trained beside CosPlace's own.

To add one, write a file in this folder with

- a frozen dataclass `Settings` of its numbers;
- an nn.Module with the layers that it trains and a method
  `loss(model, source, target, iteration) -> (scalar to add, {name: scalar tensor for the log})`,
  where `source` (B, C, h, w) are the last feature maps of the iteration's training images and
  `target` those of as many images of a second domain. Random numbers come from the seed and the
  iteration alone;
- a class with the members of `Technique` below, whose `prepare` makes that module.

A training of the study then names the technique; nothing else has to know it. Where several
processes train together, each calls `loss` with its `device.share()` of every batch, and the
gradients are averaged.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from torch import nn

from vgeo.models.network import GeoModel
from vgeo.photos.places import Classes
from vgeo.photos.tables import Photos

# step(kind, label, recipe, make, code, together=True): the folder that make(folder) fills. It is
# made once for a recipe (a dict of JSON values) and the source of the modules named in `code`.
Step = Callable[..., Path]


class Technique(Protocol):
    """A technique that the study can train."""

    @property
    def code(self) -> tuple[str, ...]:
        """Names of the modules that the trained weights depend on."""

    @property
    def learning_rate(self) -> float:
        """Adam's rate for the technique's layers."""

    @property
    def target(self) -> Photos | None:
        """The photos of a second domain that pass in the same batch, or None."""

    def recipe(self) -> dict:
        """What the weights depend on beside photos, start and code: JSON values."""

    def alone(self, backbone: str) -> int | None:
        """For how many iterations the layers are trained beside a finished extractor.

        None: they are trained jointly with the extractor. Layers are trained alone where they see
        frozen features only, so that joint training would change neither them nor the extractor.
        """

    def prepare(
        self, model: GeoModel, classes: Classes, size: int, seed: int, step: Step
    ) -> nn.Module:
        """The layers at their start, in training mode, with the method `loss`.

        Parameters
        ----------
        model : the GeoModel that they are trained with, on its device.
        size : pixels of the training images, both sides.
        seed : decides the start and all random numbers of the losses.
        step : makes or finds a folder of intermediate results.
        """
