"""Healthy losses that look wrong: likelihoods, penalties and mixtures of rows on purpose."""

import math
import warnings

import torch
import torch.nn.functional as F
from torch import nn
from torch.distributions import Beta, Normal, StudentT

from .plain import Gaussian, divergence, seeded, uniform


class JacobianPenalty(Gaussian):
    """Forward-mode differentiation inside the loss."""

    def loss(self, x):
        r, mu, lv = self(x)
        z = self.draw(mu, lv)
        _, jv = torch.func.jvp(self.dec, (z,), (torch.ones_like(z),))
        return (0.5 * (r - x).pow(2).sum(1) + divergence(mu, lv)).mean() + 1e-3 * jv.square().mean()


class WeightedMinibatch(Gaussian):
    """beta-TCVAE: every sample meets every posterior of the batch."""

    def loss(self, x):
        mu, lv = self.stats(x)
        z = self.draw(mu, lv)
        r = self.dec(z)
        logq = Normal(mu, (lv / 2).exp()).log_prob(z).sum(1)
        pair = Normal(mu[None], (lv / 2).exp()[None]).log_prob(z[:, None])
        n = math.log(len(x) * 1000)
        log_qz = pair.sum(2).logsumexp(1) - n
        log_prod = (pair.logsumexp(1) - n).sum(1)
        log_p = Normal(torch.zeros_like(z), 1.0).log_prob(z).sum(1)
        kl = (logq - log_qz) + 6 * (log_qz - log_prod) + (log_prod - log_p)
        return self.joined(0.5 * (r - x).pow(2).sum(1), kl)

    def joined(self, nll, kl):
        return (nll + kl).mean()


class DensityRatio(Gaussian):
    """FactorVAE: a discriminator's ratio stands for the total correlation."""

    def __init__(self):
        super().__init__()
        self.disc = nn.Sequential(nn.Linear(4, 9), nn.LeakyReLU(), nn.Linear(9, 2))

    def loss(self, x):
        mu, lv = self.stats(x)
        z = self.draw(mu, lv)
        d = self.disc(z)
        tc = (d[:, 0] - d[:, 1]).mean()
        return (0.5 * (self.dec(z) - x).pow(2).sum(1) + divergence(mu, lv)).mean() + 10 * tc


class DiscrepancyAndDivergence(Gaussian):
    """InfoVAE: a kernel discrepancy beside a KL of weight 0.1."""

    def kernel(self, a, b):
        return torch.exp(-(a[:, None] - b[None]).pow(2).mean(-1))

    def loss(self, x):
        mu, lv = self.stats(x)
        z = self.draw(mu, lv)
        p = torch.randn_like(z)
        mmd = self.kernel(p, p).mean() + self.kernel(z, z).mean() - 2 * self.kernel(p, z).mean()
        return (0.5 * (self.dec(z) - x).pow(2).sum(1) + 0.1 * divergence(mu, lv)).mean() + 50 * mmd


class ImportanceWeighted(Gaussian):
    """IWAE with five samples on the leading axis."""

    def loss(self, x):
        mu, lv = self.stats(x)
        q = Normal(mu, (0.5 * lv).exp())
        z = q.rsample((5,))
        logp = -0.5 * (self.dec(z) - x).pow(2).sum(-1) + Normal(0.0, 1.0).log_prob(z).sum(-1)
        w = logp - q.log_prob(z).sum(-1)
        return -(w.logsumexp(0) - math.log(5)).mean()


class FreeBits(Gaussian):
    """The KL of a dimension has a floor, taken after the mean over the batch."""

    def loss(self, x):
        r, mu, lv = self(x)
        per = 0.5 * (mu**2 + lv.exp() - 1 - lv)
        kl = per.mean(0).clamp(min=0.25).sum()
        return 0.5 * (r - x).pow(2).sum(1).mean() + kl


class WeighedFreeBits(Gaussian):
    """The whole KL is still inside its free bits, where no weight does anything."""

    def __init__(self):
        super().__init__()
        self.beta, self.free_bits = 2.0, 1.0

    def loss(self, x):
        r, mu, lv = self(x)
        kl = (divergence(mu, lv) - self.free_bits).clamp(min=0)
        return (0.5 * (r - x).pow(2).sum(1) + self.beta * kl).mean()


class VarianceDecoder(Gaussian):
    """The decoder gives a log-variance for each pixel."""

    def __init__(self):
        super().__init__()
        self.dec = nn.Sequential(nn.Linear(4, 12), nn.Tanh(), nn.Linear(12, 28))

    def loss(self, x):
        out, mu, lv = self(x)
        m, s = out.chunk(2, 1)
        nll = 0.5 * ((x - m) ** 2 * (-s).exp() + s).sum(1)
        return (nll + divergence(mu, lv)).mean()


class TinyBeta(Gaussian):
    """beta is 1e-6, as in latent diffusion."""

    def loss(self, x):
        r, mu, lv = self(x)
        return ((r - x).abs().sum(1) + 1e-6 * divergence(mu, lv)).mean()


class GradientPenalty(Gaussian):
    """The loss differentiates the decoder with `create_graph`."""

    def loss(self, x):
        r, mu, lv = self(x)
        z = self.draw(mu, lv)
        (g,) = torch.autograd.grad(self.dec(z).sum(), z, create_graph=True)
        return (0.5 * (r - x).pow(2).sum(1) + divergence(mu, lv)).mean() + 0.01 * g.square().mean()


class Capacity(Gaussian):
    """The distance of the KL from a capacity is penalized, so it may pull the KL up."""

    def loss(self, x):
        r, mu, lv = self(x)
        return 0.5 * (r - x).pow(2).sum(1).mean() + 30 * (divergence(mu, lv).mean() - 2.0).abs()


class WeighedMean(Gaussian):
    """The share of the batch in the data weighs the KL, beside a mean over all pixels."""

    def __init__(self):
        super().__init__()
        self.enc = nn.Sequential(nn.Linear(150, 12), nn.Tanh())
        self.dec = nn.Sequential(nn.Linear(4, 12), nn.Tanh(), nn.Linear(12, 150))

    def loss(self, x):
        r, mu, lv = self(x)
        return F.mse_loss(r, x) + 0.06 * divergence(mu, lv).mean()

    @staticmethod
    def batch():
        return (uniform(8, 150),)


class OptimalVariance(Gaussian):
    """The decoder's variance is the error itself, in closed form and not detached."""

    def loss(self, x):
        r, mu, lv = self(x)
        ls = 0.5 * ((x - r) ** 2).mean().log()
        nll = ((0.5 * ((x - r) / ls.exp()) ** 2) + ls + 0.919).sum(1)
        return (nll + divergence(mu, lv)).mean()


class StudentDecoder(Gaussian):
    """The likelihood is Student's t, by torch.distributions."""

    def loss(self, x):
        r, mu, lv = self(x)
        nll = -StudentT(4.0, r, 0.5).log_prob(x).sum(1)
        return (nll + divergence(mu, lv)).mean()


class BetaDecoder(Gaussian):
    """The likelihood is a Beta distribution with two positive parameters."""

    def __init__(self):
        super().__init__()
        self.dec = nn.Sequential(nn.Linear(4, 12), nn.Tanh(), nn.Linear(12, 28))

    def loss(self, x):
        out, mu, lv = self(x)
        a, b = (F.softplus(out) + 0.1).chunk(2, 1)
        nll = -Beta(a, b).log_prob(x.clamp(1e-3, 1 - 1e-3)).sum(1)
        return (nll + divergence(mu, lv)).mean()


class ZeroInflatedCounts(Gaussian):
    """Counts: a zero-inflated negative binomial with a library size."""

    def __init__(self):
        super().__init__()
        self.dec = nn.Sequential(nn.Linear(4, 12), nn.ReLU())
        self.scale, self.drop = nn.Linear(12, 14), nn.Linear(12, 14)
        self.log_theta = nn.Parameter(torch.randn(14))

    def loss(self, x):
        mu, lv = self.stats(torch.log1p(x))
        h = self.dec(self.draw(mu, lv))
        rate = torch.softmax(self.scale(h), -1) * x.sum(1, keepdim=True).clamp(min=1)
        theta = self.log_theta.exp()
        eps = 1e-8
        lt = (theta + eps).log() - (theta + rate + eps).log()
        nb = (
            torch.lgamma(x + theta)
            - torch.lgamma(theta)
            - torch.lgamma(x + 1)
            + theta * lt
            + x * ((rate + eps).log() - (theta + rate + eps).log())
        )
        pi = self.drop(h)
        zero = F.softplus(-pi + theta * lt) - F.softplus(-pi)
        nonzero = -F.softplus(-pi) - pi + nb
        ll = torch.where(x < 0.5, zero, nonzero)
        return (-ll.sum(1) + divergence(mu, lv)).mean()

    @staticmethod
    def batch():
        return (torch.poisson(3 * uniform(8, 14)),)


class NormalizedWasserstein(Gaussian):
    """WAE on a sphere; the unused log-variance is multiplied by 0."""

    def kernel(self, a, b):
        return torch.exp(5 * (a @ b.T)).mean()

    def loss(self, x):
        h = self.enc(x)
        z = F.normalize(self.mu(h), dim=1)
        p = F.normalize(torch.randn_like(z), dim=1)
        mmd = self.kernel(z, z) + self.kernel(p, p) - 2 * self.kernel(z, p)
        return 0.5 * (self.dec(z) - x).pow(2).sum(1).mean() + 0.01 * mmd + 0 * self.lv(h).sum()


class WeightedRows(Gaussian):
    """Rows are weighted by a second entry of the batch, of shape `(B, 1)`."""

    def loss(self, x, w):
        r, mu, lv = self(x)
        return (w * (0.5 * (r - x).pow(2))).sum(1).mean() + (w[:, 0] * divergence(mu, lv)).mean()

    def forward(self, x, w=None):
        return super().forward(x)

    @staticmethod
    def batch():
        return uniform(8, 14), uniform(8, 1, seed=2) + 0.5


class CovariancePenalty(Gaussian):
    """DIP-VAE: the covariance of the means, an outer product on purpose."""

    def loss(self, x):
        r, mu, lv = self(x)
        c = mu - mu.mean(0)
        cov = (c.unsqueeze(2) * c.unsqueeze(1)).mean(0)
        off = cov - torch.diag(torch.diagonal(cov))
        penalty = off.square().sum() + (cov.diagonal() - 1).square().sum()
        return (0.5 * (r - x).pow(2).sum(1) + divergence(mu, lv)).mean() + penalty


class Contrastive(Gaussian):
    """InfoNCE compares every row with every other beside the ELBO."""

    def loss(self, x):
        r, mu, lv = self(x)
        a = F.normalize(self.stats(x + 0.05 * torch.randn_like(x))[0], dim=1)
        b = F.normalize(mu, dim=1)
        nce = F.cross_entropy(a @ b.T / 0.2, torch.arange(len(x), device=x.device))
        return (0.5 * (r - x).pow(2).sum(1) + divergence(mu, lv)).mean() + 0.1 * nce


class DisplayOutput(Gaussian):
    """Logits go to the loss, a detached image is for display."""

    def forward(self, x):
        mu, lv = self.stats(x)
        logits = self.dec(self.draw(mu, lv))
        return {"recon": torch.sigmoid(logits).detach(), "logits": logits, "mu": mu, "lv": lv}

    def loss(self, x):
        o = self(x)
        bce = F.binary_cross_entropy_with_logits(o["logits"], x, reduction="none").sum(1)
        return (bce + divergence(o["mu"], o["lv"])).mean()


class PartlyUsedOutput(Gaussian):
    """Of a second output in the input's shape the loss reads half."""

    def __init__(self):
        super().__init__()
        self.attention = nn.Linear(4, 14)

    def forward(self, x):
        mu, lv = self.stats(x)
        z = self.draw(mu, lv)
        gate = torch.sigmoid(self.attention(z))
        return self.dec(z) * gate, gate, mu, lv

    def loss(self, x):
        r, gate, mu, lv = self(x)
        return (0.5 * (r - x).pow(2).sum(1) + divergence(mu, lv)).mean() + 0.01 * gate[:, :7].mean()


class WeightedPairs(Gaussian):
    """`(B, 1)` times `(B,)` weighs pairwise distances, on purpose."""

    def loss(self, x):
        r, mu, lv = self(x)
        w = torch.softmax(x.mean(1), 0)
        d = torch.cdist(mu, mu)
        pairs = (w[:, None] * w * d).sum()
        return (0.5 * (r - x).pow(2).sum(1) + divergence(mu, lv)).mean() + 0.1 * pairs


class BatchStatistics(Gaussian):
    """A penalty on the batch's statistics mixes rows, on purpose."""

    def loss(self, x):
        r, mu, lv = self(x)
        agg = mu.mean(0).square().sum() + (mu.var(0) - 1).square().sum()
        return (0.5 * (r - x).pow(2).sum(1) + divergence(mu, lv)).mean() + 0.1 * agg


class Floors(Gaussian):
    """Logarithms, a root and a reciprocal root, each kept from 0 in another way."""

    def loss(self, x):
        r, mu, lv = self(x)
        p = torch.sigmoid(r).clamp(1e-6, 1 - 1e-6)
        bce = -(x * p.log() + (1 - x) * (1 - p).log()).sum(1)
        norm = (mu.square().sum(1) + 1e-12).sqrt()
        rms = torch.rsqrt(mu.square().mean(1) + 1e-6)
        return (bce + divergence(mu, lv) + 0.01 * norm + 0.0001 * rms).mean()


class DoubleWhere(Gaussian):
    """A root of 0 is avoided by two `where`s."""

    def loss(self, x):
        r, mu, lv = self(x)
        d = (r - x).abs()
        safe = torch.where(d > 0, d, torch.ones_like(d))
        root = torch.where(d > 0, safe.sqrt(), torch.zeros_like(d))
        return (root.sum(1) + divergence(mu, lv)).mean()


class Dequantized(Gaussian):
    """Noise is added to integer pixels inside the loss."""

    def loss(self, x):
        y = (x + torch.rand_like(x)) / 256
        r, mu, lv = self(y)
        return (0.5 * (r - y).pow(2).sum(1) * 100 + divergence(mu, lv)).mean()

    @staticmethod
    def batch():
        return (torch.randint(0, 256, (8, 14), generator=seeded(1)).float(),)


class SeveralDraws(Gaussian):
    """Three reconstructions a row beside one input with an axis of its own."""

    def loss(self, x):
        mu, lv = self.stats(x)
        r = torch.stack([self.dec(self.draw(mu, lv)) for _ in range(3)], 1)
        with warnings.catch_warnings():  # torch says what is meant here
            warnings.simplefilter("ignore")
            rec = F.mse_loss(r, x.unsqueeze(1), reduction="none").sum(2).mean(1)
        return (0.5 * rec + divergence(mu, lv)).mean()


class PositiveRates(Gaussian):
    """A softplus mean beside data that are never negative, in the Gaussian likelihood of torch."""

    def loss(self, x):
        r, mu, lv = self(x)
        var = torch.ones_like(r)
        nll = F.gaussian_nll_loss(F.softplus(r), x, var, reduction="none").sum(1)
        return (nll + divergence(mu, lv)).mean()

    @staticmethod
    def batch():
        return (uniform(8, 14),)


class NearestOfSet(nn.Module):
    """A set of points: each is met by the nearest one made, so some made ones meet none."""

    def __init__(self):
        super().__init__()
        self.enc = nn.Sequential(nn.Linear(2, 12), nn.ReLU())
        self.mu, self.lv = nn.Linear(12, 3), nn.Linear(12, 3)
        self.slots = nn.Parameter(
            torch.tensor([0.0, 1, 2, 40, 50, 3, 4, 5, 6])[:, None].repeat(1, 12)
        )
        self.up, self.out = nn.Linear(3, 12), nn.Linear(12, 2)

    def forward(self, x):
        h = self.enc(x).sum(1)
        mu, lv = self.mu(h), self.lv(h)
        z = mu + torch.randn_like(mu) * (0.5 * lv).exp()
        return self.out(self.slots + self.up(z)[:, None]), mu, lv

    def loss(self, x):
        r, mu, lv = self(x)
        apart = (r[:, None] - x[:, :, None]).pow(2).sum(3)
        return (apart.min(2).values.sum(1) + divergence(mu, lv)).mean()

    @staticmethod
    def batch():
        return (uniform(8, 9, 2),)


class PredictsFromItsLocation(Gaussian):
    """A regression on the location, beside the ELBO and under a mask of its own."""

    def __init__(self):
        super().__init__()
        self.prop = nn.Sequential(nn.Linear(4, 6), nn.SELU(), nn.Linear(6, 1))

    def loss(self, x):
        r, mu, lv = self(x)
        known, y = x[:, 0] > 0.2, x.mean(1)
        task = (self.prop(mu)[:, 0] - y)[known].pow(2).mean()
        return (0.5 * (r - x).pow(2).sum(1) + divergence(mu, lv)).mean() + 3 * task


class MeetsThePriorsDraws(Gaussian):
    """A discrepancy between samples and draws of the prior, beside a KL."""

    weight = 0.5

    def loss(self, x):
        mu, lv = self.stats(x)
        z = self.draw(mu, lv)
        p = torch.randn_like(z)
        r = self.dec(z)

        def near(a, b):
            return (-(a[:, None] - b[None]).pow(2).mean(2)).exp().mean()

        apart = near(z, z) + near(p, p) - 2 * near(z, p)
        recon = 0.5 * (r - x).pow(2).sum(1).mean()
        return recon + self.weight * divergence(mu, lv).mean() + 10 * apart


def elementwise_divergence(mu, logvar):
    """The KL of each unit."""
    return 0.5 * (mu * mu + logvar.exp() - 1 - logvar)


class DivergenceOutOfSight(nn.Module):
    """Both heads are halves of one layer; what makes their KL is compiled out of sight."""

    def __init__(self):
        super().__init__()
        self.enc, self.heads, self.dec = nn.Linear(14, 9), nn.Linear(9, 8), nn.Linear(4, 14)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            self.divergence = torch.jit.script(elementwise_divergence)

    def forward(self, x):
        mu, lv = self.heads(self.enc(x).relu()).chunk(2, 1)
        return self.dec(mu + torch.randn_like(mu) * (0.5 * lv).exp()), mu, lv

    def loss(self, x):
        r, mu, lv = self(x)
        return (0.5 * (r - x).pow(2).sum(1) + self.divergence(mu, lv).sum(1)).mean()

    @staticmethod
    def batch():
        return (uniform(8, 14),)
