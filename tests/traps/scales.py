"""Healthy ways to make a spread and to draw noise."""

import math

import torch
import torch.nn.functional as F
from torch import nn
from torch.distributions import Laplace, Normal, kl_divergence

from .plain import Gaussian, OfScale, divergence


class SoftplusScale(Gaussian):
    """The spread is a softplus, the KL between two `Normal`s."""

    def forward(self, x):
        h = self.enc(x)
        q = Normal(self.mu(h), F.softplus(self.lv(h)) + 1e-4)
        return self.dec(q.rsample()), q

    def loss(self, x):
        r, q = self(x)
        kl = kl_divergence(q, Normal(0.0, 1.0)).sum(1)
        return (0.5 * (r - x).pow(2).sum(1) + kl).mean()


class LogScaleNamedVariance(Gaussian):
    """`logvar` is a log-std in spite of its name, in the draw and in the KL."""

    def forward(self, x):
        h = self.enc(x)
        mu, logvar = self.mu(h), self.lv(h)
        z = mu + torch.exp(logvar) * torch.randn_like(mu)
        return self.dec(z), mu, logvar

    def loss(self, x):
        r, mu, logvar = self(x)
        kl = (0.5 * (mu**2 + (2 * logvar).exp() - 1) - logvar).sum(1)
        return (0.5 * (r - x).pow(2).sum(1) + kl).mean()


class LaplaceLatent(Gaussian):
    """A Laplace posterior against a Laplace prior."""

    def loss(self, x):
        h = self.enc(x)
        q = Laplace(self.mu(h), F.softplus(self.lv(h)) + 1e-3)
        z = q.rsample()
        kl = kl_divergence(q, Laplace(torch.zeros_like(z), torch.ones_like(z))).sum(1)
        return (0.5 * (self.dec(z) - x).pow(2).sum(1) + kl).mean()

    def forward(self, x):
        h = self.enc(x)
        return self.dec(Laplace(self.mu(h), F.softplus(self.lv(h)) + 1e-3).rsample())


class PriorIsAnExpert(Gaussian):
    """A product of one expert and the prior: no scale of it exceeds the prior's."""

    def stats(self, x):
        h = self.enc(x)
        mus, logvars = ([torch.zeros_like(v), v] for v in (self.mu(h), self.lv(h)))
        precisions = torch.exp(-torch.stack(logvars))
        var = 1.0 / precisions.sum(0)
        return (torch.stack(mus) * precisions).sum(0) * var, torch.log(var)


class PrecisionHead(Gaussian):
    """The head gives a log-precision: the signs are turned in the draw and in the KL."""

    def forward(self, x):
        h = self.enc(x)
        mu, lp = self.mu(h), self.lv(h)
        return self.dec(mu + torch.randn_like(mu) / lp.exp().sqrt()), mu, lp

    def loss(self, x):
        r, mu, lp = self(x)
        kl = 0.5 * (mu**2 + (-lp).exp() - 1 + lp).sum(1)
        return (0.5 * (r - x).pow(2).sum(1) + kl).mean()


class AntitheticNoise(Gaussian):
    """The same noise is used twice, once with its sign turned."""

    def loss(self, x):
        mu, lv = self.stats(x)
        e = torch.randn_like(mu)
        s = (lv / 2).exp()
        r1, r2 = self.dec(mu + e * s), self.dec(mu - e * s)
        nll = 0.25 * ((r1 - x).pow(2) + (r2 - x).pow(2)).sum(1)
        return (nll + divergence(mu, lv)).mean()


class SumOfScales(OfScale):
    """The spread is a floor and two softplus heads."""

    def __init__(self):
        super().__init__()
        self.lv2 = nn.Linear(12, 4)

    def std(self, h):
        return 0.1 + F.softplus(self.lv(h)) + F.softplus(self.lv2(h))


class MeanOfExponentials(OfScale):
    """The spread is the mean of two exponentials."""

    def __init__(self):
        super().__init__()
        self.lv2 = nn.Linear(12, 4)

    def std(self, h):
        return (self.lv(h).exp() + self.lv2(h).exp()) / 2


class RootOfVariances(OfScale):
    """The spread is the root of a sum of two variances."""

    def __init__(self):
        super().__init__()
        self.lv2 = nn.Linear(12, 4)

    def std(self, h):
        return (self.lv(h).exp() + self.lv2(h).exp()).sqrt()


class BoundedByTanh(OfScale):
    """The spread lies within 0.9 of 1."""

    def std(self, h):
        return 1 + 0.9 * torch.tanh(self.lv(h))


class BoundedBySine(OfScale):
    """The spread does not rise with the head's value, only swing."""

    def std(self, h):
        return 1.2 + torch.sin(self.lv(h))


class ShiftedElu(OfScale):
    """The spread is an ELU, shifted to be positive."""

    def std(self, h):
        return F.elu(self.lv(h)) + 1 + 1e-5


class Squared(OfScale):
    """The spread is a square: both signs of the head mean the same."""

    def std(self, h):
        return self.lv(h).square() + 1e-3


class Gated(OfScale):
    """The spread is a softplus times a gate from a second head."""

    def __init__(self):
        super().__init__()
        self.g = nn.Linear(12, 4)

    def std(self, h):
        return F.softplus(self.lv(h)) * torch.sigmoid(self.g(h)) + 1e-3


class GlobalScale(Gaussian):
    """One log-std for all rows, a parameter."""

    def __init__(self):
        super().__init__()
        self.ls = nn.Parameter(torch.zeros(4))
        self.lv = None

    def forward(self, x):
        mu = self.mu(self.enc(x))
        return self.dec(mu + self.ls.exp() * torch.randn_like(mu)), mu

    def loss(self, x):
        r, mu = self(x)
        kl = (0.5 * (mu**2 + (2 * self.ls).exp() - 1) - self.ls).sum(1)
        return (0.5 * (r - x).pow(2).sum(1) + kl).mean()


class NormalTensorFloat(Gaussian):
    """Noise by `torch.normal(tensor, float)`."""

    def draw(self, mu, lv):
        return torch.normal(torch.zeros_like(mu), 1.0) * (lv / 2).exp() + mu


class NormalFloatTensor(Gaussian):
    """Noise by `torch.normal(float, tensor)`."""

    def draw(self, mu, lv):
        return torch.normal(0.0, torch.ones_like(mu)) * (lv / 2).exp() + mu


class NormalOfSize(Gaussian):
    """Noise by `torch.normal(float, float, size)`."""

    def draw(self, mu, lv):
        e = torch.normal(0.0, 1.0, size=mu.shape, device=mu.device, dtype=mu.dtype)
        return e * (lv / 2).exp() + mu


class NoiseInto(Gaussian):
    """Noise is drawn into a given tensor by `out=`."""

    def draw(self, mu, lv):
        e = torch.empty_like(mu)
        torch.randn(e.shape, out=e)
        return e * (lv / 2).exp() + mu


class InverseTransform(Gaussian):
    """Gaussian noise by inverse transform of a uniform."""

    def draw(self, mu, lv):
        u = torch.rand_like(mu).clamp(1e-6, 1 - 1e-6)
        e = math.sqrt(2) * torch.erfinv(2 * u - 1)
        return e * (lv / 2).exp() + mu


class BoxMuller(Gaussian):
    """Gaussian noise from two uniforms."""

    def draw(self, mu, lv):
        u, v = torch.rand_like(mu).clamp_min(1e-7), torch.rand_like(mu)
        e = (-2 * u.log()).sqrt() * torch.cos(2 * math.pi * v)
        return e * (lv / 2).exp() + mu


class HalfOfTheNoise(Gaussian):
    """Noise is drawn for twice the rows, and half of it used."""

    def draw(self, mu, lv):
        e = torch.randn(2 * len(mu), mu.shape[1], device=mu.device, dtype=mu.dtype)[: len(mu)]
        return e * (lv / 2).exp() + mu


class TruncatedNoise(Gaussian):
    """The noise is truncated at three sigmas."""

    def draw(self, mu, lv):
        e = nn.init.trunc_normal_(torch.empty_like(mu), a=-3, b=3)
        return e * (lv / 2).exp() + mu


class GainTimesSoftplus(OfScale):
    """A learned gain, equal for all rows, times a softplus."""

    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.zeros(4))

    def std(self, h):
        return self.gain.exp() * F.softplus(self.lv(h))


class FloorPlusSoftplus(OfScale):
    """A learned floor, equal for all rows, plus a softplus."""

    def __init__(self):
        super().__init__()
        self.floor = nn.Parameter(torch.zeros(4))

    def std(self, h):
        return F.softplus(self.floor) + F.softplus(self.lv(h))


class NormalizedHead(OfScale):
    """A layer norm stands between the head and the softplus."""

    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(4)

    def std(self, h):
        return F.softplus(self.norm(self.lv(h)))


class AbsoluteDifference(OfScale):
    """The spread is the absolute difference of two heads."""

    def __init__(self):
        super().__init__()
        self.lv2 = nn.Linear(12, 4)

    def std(self, h):
        return (self.lv(h) - self.lv2(h)).abs() + 0.01


class MaximumOfHeads(OfScale):
    """The spread is the exponential of the larger of two heads."""

    def __init__(self):
        super().__init__()
        self.lv2 = nn.Linear(12, 4)

    def std(self, h):
        return torch.maximum(self.lv(h), self.lv2(h)).exp()


class SoftmaxWeighted(OfScale):
    """The spread is an exponential with softmax weights across the latent."""

    def __init__(self):
        super().__init__()
        self.lv2 = nn.Linear(12, 4)

    def std(self, h):
        w = torch.softmax(self.lv(h), 1)
        return w * self.lv2(h).exp() + 0.05


class OwnGenerator(Gaussian):
    """The noise comes from a generator made at each call, seeded from the global one."""

    def draw(self, mu, lv):
        g = torch.Generator(device=mu.device)
        g.manual_seed(int(torch.randint(0, 2**31, (1,))))
        e = torch.randn(mu.shape, generator=g, device=mu.device, dtype=mu.dtype)
        return mu + e * (lv / 2).exp()
