"""Gradient reversal: features from which a discriminator can't tell night from day.

Ganin and Lempitsky, Unsupervised Domain Adaptation by Backpropagation, ICML 2015; the original's
section 3.
"""

from dataclasses import asdict, dataclass

import torch
from torch import nn

from vgeo.models.discriminator import Discriminator, domain_loss
from vgeo.models.network import BACKBONES, GeoModel
from vgeo.photos.places import Classes
from vgeo.photos.tables import Photos
from vgeo.training.technique import Step


@dataclass(frozen=True)
class Settings:
    """The weight of the discriminator's cross-entropy, and Adam's rate for its layers."""

    weight: float = 0.3
    learning_rate: float = 1e-5


class DomainLoss(nn.Module):
    """A discriminator behind a gradient reversal: training images or night photos?"""

    def __init__(self, channels: int, weight: float):
        super().__init__()
        self.discriminator, self.weight = Discriminator(channels), weight

    def loss(self, model, source, target, iteration):
        """The weighted cross-entropy of telling `source` from `target`, maps (B, C, h, w) each.

        The log gets the cross-entropy and the share of images whose domain was told right.
        """
        loss, right = domain_loss(self.discriminator, source, target)
        return self.weight * loss, {"domain_loss": loss.detach(), "domain_accuracy": right}


@dataclass(frozen=True)
class GradientReversal:
    """The technique; `night` are the photos of the second domain."""

    settings: Settings
    night: Photos
    code = ("vgeo.training.grl",)

    @property
    def learning_rate(self) -> float:
        """Adam's rate for the discriminator."""
        return self.settings.learning_rate

    @property
    def target(self) -> Photos:
        """The night photos."""
        return self.night

    def recipe(self) -> dict:
        """The settings and what the night photos are."""
        return asdict(self.settings) | {"night": self.night.fingerprint}

    def alone(self, backbone: str) -> None:
        """None: the discriminator is trained jointly with the extractor."""

    def prepare(
        self, model: GeoModel, classes: Classes, size: int, seed: int, step: Step
    ) -> DomainLoss:
        """A discriminator with random weights."""
        torch.manual_seed(seed)
        return DomainLoss(BACKBONES[model.backbone_name].channels, self.settings.weight)
