"""Healthy models in which a sample, or x itself, is pushed through a map with a determinant."""

import torch
from torch import nn

from .plain import Gaussian


class Continuous(Gaussian):
    """An Euler solver moves the sample and adds up the exact traces of its dynamics."""

    def __init__(self):
        super().__init__()
        self.u, self.w = nn.Parameter(0.5 * torch.randn(4)), nn.Parameter(torch.randn(4))
        self.b = nn.Parameter(torch.zeros(()))

    def velocity(self, z):
        """The velocity and its trace."""
        a = torch.tanh(z @ self.w + self.b)
        return a[:, None] * self.u, (1 - a**2) * (self.w @ self.u)

    def loss(self, x):
        mu, lv = self.stats(x)
        z0 = z = self.draw(mu, lv)
        traces = 0.0
        for _ in range(5):
            v, trace = self.velocity(z)
            z, traces = z + 0.2 * v, traces + 0.2 * trace
        log_q = -0.5 * (lv + (z0 - mu) ** 2 / lv.exp()).sum(1) - traces
        recon = 0.5 * (self.dec(z) - x).pow(2).sum(1)
        return (recon + log_q + 0.5 * z.pow(2).sum(1)).mean()


class EstimatedTraces(Continuous):
    """The traces are estimated by drawn probes and the model's own gradients."""

    def velocity(self, z):
        v = torch.tanh(z * self.w + z.roll(1, 1) * self.b) * self.u
        probe = torch.randint(0, 2, z.shape).to(z) * 2 - 1
        (slope,) = torch.autograd.grad((v * probe).sum(), z, create_graph=True)
        return v, (slope * probe).sum(1)


class MixedByOneMatrix(Gaussian):
    """One learned matrix turns the sample into what prior and decoder are given."""

    def __init__(self):
        super().__init__()
        self.turn = nn.Parameter(torch.eye(4) + 0.1 * torch.randn(4, 4))

    def loss(self, x):
        mu, lv = self.stats(x)
        u = self.draw(mu, lv)
        z = u @ self.turn.T
        log_q = -0.5 * (lv + (u - mu) ** 2 / lv.exp()).sum(1) - torch.linalg.slogdet(self.turn)[1]
        recon = 0.5 * (self.dec(z) - x).pow(2).sum(1)
        return (recon + log_q + 0.5 * z.pow(2).sum(1)).mean()


class FlowOfX(Gaussian):
    """No x_hat at all: p(x | z) is that of a flow that couples x's halves, given z."""

    def __init__(self):
        super().__init__()
        self.dec = None
        self.one = nn.Sequential(nn.Linear(11, 12), nn.Tanh(), nn.Linear(12, 14))
        self.two = nn.Sequential(nn.Linear(11, 12), nn.Tanh(), nn.Linear(12, 14))

    def forward(self, x):
        mu, lv = self.stats(x)
        z = self.draw(mu, lv)
        a, b = x.chunk(2, 1)
        s, t = self.one(torch.cat([a, z], 1)).chunk(2, 1)
        b = b * torch.tanh(s).exp() + t
        r, t = self.two(torch.cat([b, z], 1)).chunk(2, 1)
        e = torch.cat([a * torch.tanh(r).exp() + t, b], 1)
        nll = 0.5 * e.pow(2).sum(1) - (torch.tanh(s).sum(1) + torch.tanh(r).sum(1))
        return (nll + 0.5 * (mu**2 + lv.exp() - 1 - lv).sum(1)).mean()

    def loss(self, x):
        return self(x)
