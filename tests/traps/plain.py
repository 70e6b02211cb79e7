"""The plain VAEs of which most traps are a variation, and their seeded batches."""

import torch
from torch import nn


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def uniform(*shape, seed=0):
    return torch.rand(*shape, generator=seeded(seed))


def divergence(mu, logvar):
    """The KL of each row to the standard normal."""
    return 0.5 * (mu**2 + logvar.exp() - 1 - logvar).flatten(1).sum(1)


class Gaussian(nn.Module):
    """An encoder of one layer, two heads, a decoder of two layers and the negative ELBO."""

    def __init__(self):
        super().__init__()
        self.enc = nn.Sequential(nn.Linear(14, 12), nn.Tanh())
        self.mu, self.lv = nn.Linear(12, 4), nn.Linear(12, 4)
        self.dec = nn.Sequential(nn.Linear(4, 12), nn.Tanh(), nn.Linear(12, 14))

    def stats(self, x):
        h = self.enc(x)
        return self.mu(h), self.lv(h)

    def draw(self, mu, lv):
        return mu + torch.randn_like(mu) * (0.5 * lv).exp()

    def forward(self, x):
        mu, lv = self.stats(x)
        return self.dec(self.draw(mu, lv)), mu, lv

    def loss(self, x):
        r, mu, lv = self(x)
        return (0.5 * (r - x).pow(2).flatten(1).sum(1) + divergence(mu, lv)).mean()

    @staticmethod
    def batch():
        return (uniform(8, 14),)


class OfScale(Gaussian):
    """The same where `std` makes the spread itself; its KL is written in the spread."""

    def std(self, h):
        return (0.5 * self.lv(h)).exp()

    def forward(self, x):
        h = self.enc(x)
        mu, s = self.mu(h), self.std(h)
        return self.dec(mu + s * torch.randn_like(s)), mu, s

    def loss(self, x):
        r, mu, s = self(x)
        return (0.5 * (r - x).pow(2).sum(1) + (0.5 * (mu**2 + s**2 - 1) - s.log()).sum(1)).mean()
