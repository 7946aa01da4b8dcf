"""A domain discriminator behind a gradient reversal layer.

References
----------
Ganin, Lempitsky, "Unsupervised domain adaptation by backpropagation", ICML 2015.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class _Reverse(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.view_as(x)

    @staticmethod
    def backward(ctx, gradient):
        return -gradient


def reverse_gradient(x: Tensor) -> Tensor:
    """Returns x; on the way back the gradient is multiplied by -1.

    The paper's factor lambda (eq. 9 and 10) is 1 here: the weight of the loss takes its place.
    """
    return _Reverse.apply(x)


class Discriminator(nn.Module):
    """Tells which domain a feature map comes from, by linear layers of 50, 20 and `domains`."""

    def __init__(self, channels: int, domains: int = 2):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(channels, 50), nn.ReLU(), nn.Linear(50, 20), nn.ReLU(), nn.Linear(20, domains)
        )

    def forward(self, maps: Tensor) -> Tensor:
        """Feature maps (B, C, h, w) -> logits (B, domains); reverses the gradient between them."""
        pooled = maps.mean(dim=(2, 3))  # (B, C)
        return self.layers(reverse_gradient(pooled))


def domain_loss(
    discriminator: Discriminator, source: Tensor, target: Tensor
) -> tuple[Tensor, Tensor]:
    """How well the discriminator tells two domains apart.

    Parameters
    ----------
    source, target : feature maps (B, C, h, w) of domain 0 and (B', C, h, w) of domain 1.

    Returns
    -------
    The cross-entropy, a scalar, and the share of the maps that are told right, 0 to 1.
    """
    logits = discriminator(torch.cat([source, target]).float())
    domains = (torch.arange(len(logits), device=logits.device) >= len(source)).long()
    return F.cross_entropy(logits, domains), (logits.argmax(1) == domains).float().mean().detach()
