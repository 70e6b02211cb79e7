"""Healthy latents that are bits, categories, or codes that are looked up."""

import math

import torch
import torch.nn.functional as F
from torch import nn
from torch.distributions import Bernoulli, Independent, OneHotCategorical, kl_divergence

from .plain import Gaussian, uniform


class StraightThroughBernoulli(Gaussian):
    """Bernoulli latents; the sample is hard, the gradient goes through the probability."""

    def __init__(self):
        super().__init__()
        self.lv = None

    def forward(self, x):
        p = torch.sigmoid(self.mu(self.enc(x)))
        hard = torch.bernoulli(p)
        z = hard + p - p.detach()
        return self.dec(z), p

    def loss(self, x):
        r, p = self(x)
        kl = kl_divergence(Bernoulli(p), Bernoulli(torch.full_like(p, 0.5))).sum(1)
        return (0.5 * (r - x).pow(2).sum(1) + kl).mean()


class BalancedCategories(nn.Module):
    """DreamerV2: straight-through categories, balanced KL with free nats, mixed probabilities."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(10, 9)
        self.gru = nn.GRUCell(12, 11)
        self.prior = nn.Linear(11, 12)
        self.post = nn.Linear(11 + 9, 12)
        self.dec = nn.Linear(11 + 12, 10)

    def probs(self, logits):
        p = torch.softmax(logits.view(-1, 3, 4), -1)
        return 0.99 * p + 0.01 / 4

    def categories(self, probs):
        return Independent(OneHotCategorical(probs=probs), 1)

    def forward(self, x):
        h, z = x.new_zeros(len(x), 11), x.new_zeros(len(x), 12)
        outs, kls = [], []
        for t in range(x.shape[1]):
            h = self.gru(z, h)
            pp = self.probs(self.prior(h))
            qp = self.probs(self.post(torch.cat([h, self.embed(x[:, t])], -1)))
            one = OneHotCategorical(probs=qp).sample()
            z = (one + qp - qp.detach()).flatten(1)
            kl_prior = kl_divergence(self.categories(qp.detach()), self.categories(pp))
            kl_posterior = kl_divergence(self.categories(qp), self.categories(pp.detach()))
            kl = 0.8 * kl_prior.clamp(min=0.05) + 0.2 * kl_posterior.clamp(min=0.05)
            kls.append(kl)
            outs.append(self.dec(torch.cat([h, z], -1)))
        return torch.stack(outs, 1), torch.stack(kls, 1).sum(1)

    def loss(self, x):
        r, kl = self(x)
        return (0.5 * (r - x).pow(2).sum((1, 2)) + kl).mean()

    @staticmethod
    def batch():
        return (uniform(6, 3, 10),)


class GumbelSoftmax(Gaussian):
    """Hard Gumbel-softmax categories with a KL written by hand."""

    def __init__(self):
        super().__init__()
        self.mu, self.lv = nn.Linear(12, 12), None
        self.dec = nn.Linear(12, 14)
        self.tau = 0.7

    def forward(self, x):
        logits = self.mu(self.enc(x)).view(-1, 3, 4)
        y = F.gumbel_softmax(logits, tau=self.tau, hard=True)
        return self.dec(y.flatten(1)), logits

    def loss(self, x):
        r, logits = self(x)
        lq = logits.log_softmax(-1)
        kl = (lq.exp() * (lq + math.log(4))).sum((1, 2))
        return (0.5 * (r - x).pow(2).sum(1) + kl).mean()


class FullCategories(GumbelSoftmax):
    """JointVAE late in training: the capacity is all that three variables of four can hold."""

    def loss(self, x):
        r, logits = self(x)
        lq = logits.log_softmax(-1)
        kl = (lq.exp() * (lq + math.log(4))).sum((1, 2)).mean()
        return 0.5 * (r - x).pow(2).sum(1).mean() + 30 * (3 * math.log(4) - kl).abs()


class MovingAverageCodebook(nn.Module):
    """A codebook of columns in a buffer, moved by moving average, with one-hot counts."""

    def __init__(self):
        super().__init__()
        self.enc, self.dec = nn.Linear(14, 6), nn.Linear(6, 14)
        self.register_buffer("embed", torch.randn(6, 11))
        self.register_buffer("size", torch.zeros(11))
        self.register_buffer("avg", self.embed.clone())

    def forward(self, x):
        h = self.enc(x)
        d = (
            h.pow(2).sum(1, keepdim=True)
            - 2 * torch.einsum("bd,dn->bn", h, self.embed)
            + self.embed.pow(2).sum(0, keepdim=True)
        )
        ind = (-d).max(1).indices
        onehot = F.one_hot(ind, 11).to(h.dtype)
        q = F.embedding(ind, self.embed.t())
        if self.training:
            self.size.data.mul_(0.99).add_(onehot.sum(0), alpha=0.01)
            self.avg.data.mul_(0.99).add_(h.detach().t() @ onehot, alpha=0.01)
            n = self.size.sum()
            size = (self.size + 1e-5) / (n + 11e-5) * n
            self.embed.data.copy_(self.avg / size.unsqueeze(0))
        diff = (q.detach() - h).pow(2).mean()
        q = h + (q - h).detach()
        return self.dec(q), diff

    def loss(self, x):
        r, diff = self(x)
        return F.mse_loss(r, x) + 0.25 * diff

    @staticmethod
    def batch():
        return (uniform(24, 14),)


class CodesAllZero(nn.Module):
    """Codes that are zero until they are fitted: the ReLU behind them passes no gradient yet."""

    def __init__(self):
        super().__init__()
        self.enc = nn.Linear(14, 6)
        self.codes = nn.Parameter(torch.zeros(11, 6))
        hidden = nn.Linear(6, 12, bias=False)
        self.dec = nn.Sequential(hidden, nn.ReLU(), nn.Linear(12, 14))

    def forward(self, x):
        h = self.enc(x)
        q = self.codes[torch.cdist(h, self.codes).argmin(1)]
        commit = 0.25 * (q.detach() - h).pow(2).mean() + (q - h.detach()).pow(2).mean()
        return self.dec(h + (q - h).detach()), commit

    def loss(self, x):
        r, commit = self(x)
        return F.mse_loss(r, x) + commit

    batch = Gaussian.batch


class NoisyRestart(CodesAllZero):
    """Codes are started anew from rows of the batch, with noise so that no two are equal."""

    def __init__(self):
        super().__init__()
        self.codes.requires_grad_(False)

    def forward(self, x):
        h = self.enc(x)
        if self.training:
            rows = h[torch.randint(0, len(h), (11,))]
            self.codes.data[:] = rows + 0.01 * torch.randn_like(rows)
        q = self.codes[torch.cdist(h, self.codes).argmin(1)]
        commit = 0.25 * (q.detach() - h).pow(2).mean()
        return self.dec(h + (q - h).detach()), commit


class NoisyRevival(NoisyRestart):
    """After the look-up, codes that nothing was near to are put on noisy rows of the batch."""

    def __init__(self):
        super().__init__()
        self.codes.data.normal_()

    def forward(self, x):
        h = self.enc(x)
        index = torch.cdist(h, self.codes).argmin(1)
        q = self.codes[index]
        if self.training:
            used = torch.bincount(index, minlength=11).clamp(max=1).unsqueeze(1)
            rows = h.detach()[torch.randint(0, len(h), (11,))]
            rows = rows + 0.01 * torch.randn_like(rows)
            self.codes.data.mul_(used).add_(rows * (1 - used))
        commit = 0.25 * (q.detach() - h).pow(2).mean()
        return self.dec(h + (q - h).detach()), commit


class RoundedLevels(nn.Module):
    """FSQ: bounded values are rounded, the gradient goes straight through."""

    def __init__(self):
        super().__init__()
        self.enc, self.dec = nn.Linear(14, 4), nn.Linear(4, 14)

    def forward(self, x):
        h = torch.tanh(self.enc(x)) * 2
        q = h + (h.round() - h).detach()
        return self.dec(q / 2)

    def loss(self, x):
        return F.mse_loss(self(x), x)

    batch = Gaussian.batch


class ConfidentCategories(Gaussian):
    """A trained categorical latent: its draws are always the same, as it is sure of them."""

    def __init__(self):
        super().__init__()
        self.logits, self.sharp = nn.Linear(12, 12), 200.0
        del self.mu, self.lv

    def stats(self, x):
        return (self.sharp * self.logits(self.enc(x))).unflatten(1, (4, 3)).softmax(-1)

    def forward(self, x):
        q = self.stats(x)
        drawn = F.one_hot(torch.multinomial(q.flatten(0, 1), 1)[:, 0], 3).view_as(q).to(q)
        return self.dec((drawn + q - q.detach())[..., 0]), q

    def loss(self, x):
        r, q = self(x)
        kl = (q * (3 * q + 1e-9).log()).sum((1, 2))
        return (0.5 * (r - x).pow(2).sum(1) + kl).mean()
