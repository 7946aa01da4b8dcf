"""TODO: training.grl."""

from torch import nn

from vgeo.models.discriminator import Discriminator, domain_loss
from vgeo.models.network import BACKBONES


class Domain(nn.Module):
    """The report's section 3: a discriminator behind a gradient reversal, source the training images, target the night photos."""

    def __init__(self, backbone, weight):
        super().__init__()
        self.discriminator, self.weight = Discriminator(BACKBONES[backbone][2]), weight

    def loss(self, model, source, target, iteration):
        """Weighted cross-entropy of last feature maps (B, C, h, w) each; the share of domains told right goes to the log."""
        loss, right = domain_loss(self.discriminator, source, target)
        return self.weight * loss, {"domain_loss": loss.detach(), "domain_accuracy": right}
