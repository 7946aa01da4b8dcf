"""Gradient reversal: features from which a discriminator can't tell the night from the day (Ganin and Lempitsky, ICML 2015)."""

import torch
import torch.nn.functional as F
from torch import nn


class _Reverse(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.view_as(x)

    @staticmethod
    def backward(ctx, gradient):
        return -gradient


def reverse_gradient(x):
    """x itself; on the way back its gradient times -1 (eq. 9 and 10, lambda = 1: the loss's weight plays its part)."""
    return _Reverse.apply(x)


class Discriminator(nn.Module):
    """Which domain does a feature map come from? Average pooling, gradient reversal, linear layers of 50, 20 and `domains` outputs."""

    def __init__(self, channels, domains=2):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(channels, 50), nn.ReLU(), nn.Linear(50, 20), nn.ReLU(), nn.Linear(20, domains)
        )

    def forward(self, maps):
        """Feature maps (B, C, h, w) -> logits (B, domains). The gradient is reversed between the two."""
        return self.layers(reverse_gradient(maps.mean(dim=(2, 3))))


def domain_loss(discriminator, source, target):
    """Cross-entropy (scalar) of telling source maps (B, C, h, w), domain 0, from target maps (B', C, h, w), domain 1, and the share right."""
    logits = discriminator(torch.cat([source, target]).float())
    domains = (
        torch.cat([torch.zeros(len(source)), torch.ones(len(target))]).long().to(logits.device)
    )
    return F.cross_entropy(logits, domains), (logits.argmax(1) == domains).float().mean().detach()
