"""Gradient reversal against finite differences; a discriminator that learns and is misled."""

import numpy as np
import torch
from scipy.optimize import approx_fprime

from vgeo.models.discriminator import Discriminator, domain_loss, reverse_gradient


def test_the_reversed_gradient_is_minus_the_finite_differences():
    torch.manual_seed(0)
    discriminator = Discriminator(6).double()
    source, target = torch.randn(2, 3, 6, 2, 2, dtype=torch.float64)
    domains = torch.tensor([0, 0, 0, 1, 1, 1])

    def loss_of(flat):
        maps = torch.from_numpy(np.array(flat)).view_as(source)
        logits = discriminator.layers(torch.cat([maps, target]).mean((2, 3)))
        return torch.nn.functional.cross_entropy(logits, domains).item()

    leaf = source.clone().requires_grad_(True)
    # domain_loss computes in float32; finite differences need the same in float64
    logits = discriminator(torch.cat([leaf, target]))
    torch.nn.functional.cross_entropy(logits, domains).backward()
    numeric = approx_fprime(source.flatten().numpy(), loss_of, 1e-7)
    np.testing.assert_allclose(leaf.grad.flatten().numpy(), -numeric, atol=1e-6)
    assert np.abs(numeric).max() > 1e-3


def test_domain_loss_is_the_cross_entropy_and_the_share_told_right():
    torch.manual_seed(4)
    discriminator = Discriminator(5)
    source, target = torch.randn(3, 5, 2, 4), torch.randn(2, 5, 2, 4)
    loss, right = domain_loss(discriminator, source, target)
    pooled = torch.cat([source, target]).mean((2, 3))
    logits = discriminator.layers(pooled).detach().double().numpy()
    chance = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    domains = np.array([0, 0, 0, 1, 1])
    np.testing.assert_allclose(loss.item(), -np.log(chance[range(5), domains]).mean(), rtol=1e-5)
    np.testing.assert_allclose(right, (chance.argmax(1) == domains).mean(), rtol=1e-6)


def test_the_discriminator_itself_learns():
    torch.manual_seed(1)
    discriminator = Discriminator(8)
    source, target = torch.randn(16, 8, 3, 3) + 1, torch.randn(16, 8, 3, 3) - 1
    optimizer = torch.optim.Adam(discriminator.parameters(), lr=0.01)
    first, right = domain_loss(discriminator, source, target)
    for _ in range(60):
        optimizer.zero_grad()
        loss, right = domain_loss(discriminator, source, target)
        loss.backward()
        optimizer.step()
    assert loss < 0.2 * first and right > 0.9
    linear = [layer for layer in discriminator.layers if isinstance(layer, torch.nn.Linear)]
    assert [layer.out_features for layer in linear] == [50, 20, 2]  # the original's


def test_features_that_follow_the_reversed_gradient_lose_their_domain():
    """Descending the total loss on the features makes the domains harder to tell, not easier."""
    torch.manual_seed(2)
    discriminator = Discriminator(4)
    maps = torch.cat([torch.randn(32, 4, 1, 1) + 0.4, torch.randn(32, 4, 1, 1) - 0.4])
    optimizer = torch.optim.Adam(discriminator.parameters(), lr=0.02)
    for _ in range(30):
        optimizer.zero_grad()
        domain_loss(discriminator, maps[:32], maps[32:])[0].backward()
        optimizer.step()
    features = maps.clone().requires_grad_(True)
    before, _ = domain_loss(discriminator, features[:32], features[32:])
    before.backward()
    after, _ = domain_loss(discriminator, *(features - 5 * features.grad).detach().split(32))
    assert after > before + 0.01
    assert torch.equal(reverse_gradient(maps), maps)
