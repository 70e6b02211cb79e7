"""Healthy ways in which noise, rows, masks and other networks meet a model."""

import math

import torch
import torch.nn.functional as F
from torch import nn
from torch.distributions import Bernoulli, Gamma, Independent, Normal, StudentT, kl_divergence

from .plain import Gaussian, divergence, seeded, uniform


class Critic(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 9), nn.LeakyReLU(), nn.Linear(9, 1))

    def forward(self, z):
        return self.net(z)


CRITIC = Critic()


class CriticOfItsOwn(Gaussian):
    """A trainable critic that is no part of the model reads the sample in the loss."""

    def forward(self, x):
        mu, lv = self.stats(x)
        z = self.draw(mu, lv)
        return self.dec(z), mu, lv, z

    def loss(self, x):
        r, mu, lv, z = self(x)
        return (0.5 * (r - x).pow(2).sum(1) + divergence(mu, lv) + CRITIC(z)[:, 0]).mean()


class RunsOnItsFakes(Gaussian):
    """The encoder plays against the decoder: the model runs again on what it makes of noise."""

    def loss(self, x):
        fake = self.dec(torch.randn(len(x), 4, device=x.device, dtype=x.dtype)).detach()
        r, mu, lv = self(x)
        _, mu_f, lv_f = self(fake)
        real = 0.5 * (r - x).pow(2).sum(1) + divergence(mu, lv)
        return real.mean() + 0.25 * (-2 * divergence(mu_f, lv_f)).exp().mean()


class ExponentialMap(Gaussian):
    """A sample of the Poincare ball: the location divides the tangent and adds to what it maps."""

    def add(self, x, y):
        xy, x2, y2 = (x * y).sum(1, True), (x * x).sum(1, True), (y * y).sum(1, True)
        return ((1 + 2 * xy + y2) * x + (1 - x2) * y) / (1 + 2 * xy + x2 * y2).clamp_min(1e-6)

    def factor(self, x):
        return 2 / (1 - (x * x).sum(1, True)).clamp_min(1e-6)

    def forward(self, x):
        h = self.enc(x)
        loc = self.mu(h)
        size = loc.norm(dim=1, keepdim=True).clamp_min(1e-6)
        mu, s = torch.tanh(size) * loc / size, F.softplus(self.lv(h)) + 1e-4
        v = s * torch.randn_like(s) / self.factor(mu)
        n = v.norm(dim=1, keepdim=True).clamp_min(1e-6)
        z = self.add(mu, torch.tanh(self.factor(mu) * n / 2) * v / n)
        return self.dec(z), z, mu, s

    def log_density(self, mu, s, z):
        w = self.add(-mu, z)
        n = w.norm(dim=1, keepdim=True).clamp_min(1e-6)
        v = 2 * torch.atanh(n.clamp(max=1 - 1e-5)) * w / n
        r = v.norm(dim=1, keepdim=True).clamp_min(1e-6)
        return Normal(torch.zeros_like(s), s).log_prob(v).sum(1) - 3 * (r.sinh() / r).log()[:, 0]

    def loss(self, x):
        r, z, mu, s = self(x)
        kl = self.log_density(mu, s, z) - self.log_density(0 * mu, torch.ones_like(s), z)
        return (0.5 * (r - x).pow(2).sum(1) + kl).mean()


class InverseCdf(Gaussian):
    """Noise by `icdf`, which multiplies by the root of 2 behind the scale."""

    def draw(self, mu, lv):
        u = torch.rand_like(mu).clamp(1e-5, 1 - 1e-5)
        return Normal(mu, (0.5 * lv).exp()).icdf(u)


class AntitheticStack(Gaussian):
    """Two samples of one draw, decoded together."""

    def forward(self, x):
        mu, lv = self.stats(x)
        e, s = torch.randn_like(mu), (0.5 * lv).exp()
        return self.dec(torch.stack([mu + s * e, mu - s * e])), mu, lv

    def loss(self, x):
        r, mu, lv = self(x)
        return (0.5 * (r - x).pow(2).sum(-1).mean(0) + divergence(mu, lv)).mean()


class GammaFactors(Gaussian):
    """Gamma factors; the draw is clamped in place through a detached view."""

    def forward(self, x):
        h = self.enc(x)
        q = Gamma(F.softplus(self.mu(h)) + 0.3, F.softplus(self.lv(h)) + 0.3)
        return self.dec(q.rsample()), q

    def loss(self, x):
        r, q = self(x)
        one = torch.ones_like(q.rate)
        return (0.5 * (r - x).pow(2).sum(1) + kl_divergence(q, Gamma(one, one)).sum(1)).mean()


class NoisyLayer(nn.Module):
    """A linear layer with Gaussian weights, drawn as the spread of its output."""

    def __init__(self, i, o):
        super().__init__()
        self.mean = nn.Parameter(0.1 * torch.randn(o, i))
        self.raw = nn.Parameter(torch.full((o, i), -3.0))

    def forward(self, h):
        m, v = F.linear(h, self.mean), F.linear(h**2, F.softplus(self.raw) ** 2)
        return m + (v + 1e-9).sqrt() * torch.randn_like(m)

    def divergence(self):
        s = F.softplus(self.raw)
        return (0.5 * (s**2 + self.mean**2 - 1) - s.log()).sum()


class BayesianDecoder(Gaussian):
    """Noise in the layers of the decoder, whose KL is that of the weights."""

    def __init__(self):
        super().__init__()
        self.first, self.second = NoisyLayer(4, 12), NoisyLayer(12, 14)
        self.dec = nn.Sequential(self.first, nn.Tanh(), self.second)

    def loss(self, x):
        weights = self.first.divergence() + self.second.divergence()
        return super().loss(x) + weights / 1000


class MaskedDensities(Gaussian):
    """Missing values: a mask multiplies log-densities of the input, returned without x_hat."""

    def __init__(self):
        super().__init__()
        self.spread = nn.Parameter(torch.zeros(14))

    @staticmethod
    def batch():
        return uniform(8, 14), (uniform(8, 14, seed=1) > 0.3).float()

    def forward(self, x, seen):
        mu, lv = self.stats(x * seen)
        q = Independent(Normal(mu, (0.5 * lv).exp()), 1)
        z = q.rsample((5,))
        flat = self.dec(z.reshape(-1, 4))
        given = x.repeat(5, 1).reshape(-1, 1)
        spread = self.spread.exp().expand_as(flat).reshape(-1, 1)
        logp = StudentT(4.0, flat.reshape(-1, 1), spread).log_prob(given).reshape(5 * len(x), -1)
        logp = (logp * seen.repeat(5, 1)).sum(1).reshape(5, len(x))
        return logp, Normal(0.0, 1.0).log_prob(z).sum(-1), q.log_prob(z)

    def loss(self, x, seen):
        logp, prior, logq = self(x, seen)
        return math.log(5) - (logp + prior - logq).logsumexp(0).mean()


class TargetLikeItsCondition(Gaussian):
    """A picture and its segmentation have one shape; the second is decoded, given the first."""

    def __init__(self):
        super().__init__()
        self.enc = nn.Sequential(nn.Linear(28, 12), nn.Tanh())
        self.prior = nn.Linear(14, 8)
        self.dec = nn.Sequential(nn.Linear(18, 12), nn.Tanh(), nn.Linear(12, 14))

    @staticmethod
    def batch():
        return uniform(8, 14), (uniform(8, 14, seed=1) > 0.5).float()

    def forward(self, picture, parts):
        mu, lv = self.stats(torch.cat([picture, parts], 1))
        p = self.prior(picture).chunk(2, 1)
        return self.dec(torch.cat([picture, self.draw(mu, lv)], 1)), (mu, lv), p

    def loss(self, picture, parts):
        r, (mu, lv), (pm, pl) = self(picture, parts)
        kl = 0.5 * (pl - lv + (lv.exp() + (mu - pm) ** 2) / pl.exp() - 1).sum(1)
        rec = F.binary_cross_entropy_with_logits(r, parts, reduction="none").sum(1)
        return (rec + kl).mean()


class DealtRows(Gaussian):
    """Rows are dealt to three posteriors by their place, as in a mixture of experts."""

    def __init__(self):
        super().__init__()
        del self.mu, self.lv
        self.heads = nn.ModuleList(nn.Linear(12, 8) for _ in range(3))

    def stats(self, x):
        made = [head(self.enc(x)) for head in self.heads]
        ends = [round(i * len(x) / 3) for i in range(4)]
        dealt = torch.cat([m[a:b] for m, a, b in zip(made, ends, ends[1:], strict=False)])
        return dealt.chunk(2, 1)


class PriorFromAStart(Gaussian):
    """The prior's spread is computed from a learned start alone, and divides squared."""

    def __init__(self):
        super().__init__()
        self.start = nn.Parameter(torch.zeros(1, 6))
        self.inside, self.outside = nn.Linear(6, 12), nn.Linear(12, 8)

    def loss(self, x):
        r, mu, lv = self(x)
        pm, raw = self.outside(torch.relu(self.inside(self.start))).chunk(2, 1)
        ps = F.softplus(raw)
        kl = (ps.log() - 0.5 * lv + 0.5 * (lv.exp() + (mu - pm) ** 2) / ps**2 - 0.5).sum(1)
        return (0.5 * (r - x).pow(2).sum(1) + kl).mean()


class ScoredElsewhere(nn.Module):
    """Bernoulli latents; the class's own bound scores them, and reads a prior."""

    def __init__(self):
        super().__init__()
        self.q, self.p = nn.Linear(14, 6), nn.Linear(6, 14)
        self.prior = nn.Parameter(torch.zeros(6))

    @staticmethod
    def batch():
        return (torch.rand(8, 14, generator=seeded()),)

    def forward(self, x):
        logits = self.q(x)
        z = Bernoulli(logits=logits).sample((5,))
        return logits, z, self.p(z)

    def bound_loss(self, x):
        logits, z, r = self(x)
        logq = Bernoulli(logits=logits).log_prob(z).sum(-1)
        logp = Bernoulli(logits=r).log_prob(x).sum(-1)  # refuses what is neither 0 nor 1
        logp = logp + Bernoulli(logits=self.prior).log_prob(z).sum(-1)
        return -(logp - logq + (logp - logq).detach() * logq).mean()


class CallsItsDecoderX(nn.Module):
    """The decoder is called `x`, as is the input of forward and of the loss."""

    def __init__(self):
        super().__init__()
        self.enc, self.x = nn.Linear(14, 8), nn.Linear(4, 14)

    @staticmethod
    def batch():
        return (uniform(8, 14),)

    def forward(self, x):
        mu, lv = self.enc(x).chunk(2, 1)
        z = mu + torch.randn_like(mu) * (0.5 * lv).exp()
        return self.x(z), (mu, lv)

    def loss(self, x):
        r, (mu, lv) = self(x)
        return (0.5 * (r - x).pow(2).sum(1) + divergence(mu, lv)).mean()
