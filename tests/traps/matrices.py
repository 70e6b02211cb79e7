"""Healthy models whose noise is multiplied by a matrix."""

import torch
import torch.nn.functional as F
from torch import nn
from torch.distributions import LowRankMultivariateNormal, MultivariateNormal, Normal, kl_divergence

from .plain import uniform


class FullCovariance(nn.Module):
    """A full covariance, whose KL is taken in closed form."""

    units = 4

    def __init__(self):
        super().__init__()
        self.enc, self.loc = nn.Linear(7, 12), nn.Linear(12, self.units)
        self.flat, self.dec = nn.Linear(12, self.units**2), nn.Linear(self.units, 7)
        self.register_buffer("times", torch.arange(float(self.units)))

    def posterior(self, x):
        h = torch.tanh(self.enc(x))
        square = self.flat(h).view(len(x), self.units, self.units)
        sizes = F.softplus(square.diagonal(dim1=1, dim2=2)) + 1e-2
        root = square.tril(-1) + torch.diag_embed(sizes)
        return MultivariateNormal(self.loc(h), scale_tril=root)

    def prior(self):
        return torch.diag_embed(torch.ones_like(self.times))

    def kl(self, q, z):
        return kl_divergence(q, MultivariateNormal(torch.zeros_like(q.loc[0]), self.prior()))

    def forward(self, x):
        q = self.posterior(x)
        z = q.rsample()
        return self.dec(z), q, z

    def loss(self, x):
        r, q, z = self(x)
        return (0.5 * (r - x).pow(2).sum(1) + self.kl(q, z)).mean()

    @staticmethod
    def batch():
        return (uniform(9, 7),)


class ScoredFullCovariance(FullCovariance):
    """The same by one sample, with a capacity that it has to exceed and a weight."""

    def kl(self, q, z):
        kl = q.log_prob(z) - Normal(0.0, 1.0).log_prob(z).sum(1)
        return 0.3 * (kl - 0.5).abs()


class WidePriorOfAMatrix(FullCovariance):
    """The prior is as isotropic, and wider."""

    def prior(self):
        return 4.0 * super().prior()


class PenalizedRoot(FullCovariance):
    """What lies below the diagonal is held small by a term of its own."""

    def kl(self, q, z):
        return super().kl(q, z) + 0.1 * q.scale_tril.tril(-1).abs().sum((1, 2))


class SmoothPrior(FullCovariance):
    """The units are times: the prior is a Gaussian process, and the posterior is correlated."""

    def prior(self):
        apart = self.times[:, None] - self.times
        return torch.exp(-0.25 * apart**2) + 0.05 * super().prior()


class LowRank(FullCovariance):
    """A covariance of low rank and a diagonal: two draws, of which one meets a matrix."""

    def posterior(self, x):
        h = torch.tanh(self.enc(x))
        factor = self.flat(h).view(len(x), self.units, self.units)
        return LowRankMultivariateNormal(
            self.loc(h), factor[..., :2], F.softplus(factor[..., 3]) + 1e-2
        )

    def kl(self, q, z):
        return q.log_prob(z) - Normal(0.0, 1.0).log_prob(z).sum(1)


class Rotated(FullCovariance):
    """Scaled noise is rotated as the encoder says: the KL knows the scales alone."""

    def forward(self, x):
        h = torch.tanh(self.enc(x))
        square = self.flat(h).view(len(x), self.units, self.units)
        turn = torch.linalg.matrix_exp(square.tril(-1) - square.tril(-1).mT)
        log_s = square.diagonal(dim1=1, dim2=2)
        mu = self.loc(h)
        eps = torch.randn_like(mu)
        z = mu + ((turn * log_s.exp()[:, None, :]) @ eps[..., None]).squeeze(-1)
        return self.dec(z), (mu, log_s), z

    def kl(self, q, z):
        mu, log_s = q
        return (0.5 * (mu**2 + (2 * log_s).exp() - 1) - log_s).sum(1)


class LogDiagonalBeside(FullCovariance):
    """A triangle below a diagonal of its own, whose logarithm the KL takes as the head gave it."""

    def __init__(self):
        super().__init__()
        self.log_diagonal = nn.Linear(12, self.units)
        self.register_buffer("below", torch.ones(self.units, self.units).tril(-1))

    def forward(self, x):
        h = torch.tanh(self.enc(x))
        mu, logs = self.loc(h), self.log_diagonal(h)
        root = self.flat(h).view(len(x), self.units, self.units) * self.below
        root = root + torch.diag_embed(logs.exp())
        z = mu + torch.bmm(root, torch.randn_like(mu)[..., None]).squeeze(-1)
        return self.dec(z), (mu, root, logs), z

    def kl(self, q, z):
        mu, root, logs = q
        return 0.5 * (root.pow(2).sum((1, 2)) + mu.pow(2).sum(1) - self.units) - logs.sum(1)
