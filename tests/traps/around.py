"""Healthy ways in which x, a weight or an argument comes in around the usual one."""

import math

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from .plain import Gaussian, divergence, uniform


class RejectedAngles(Gaussian):
    """Angles of a von Mises density by rejection: one concentration bounds and scales the draws."""

    def forward(self, x):
        h = self.enc(x)
        loc, k = self.mu(h), F.softplus(self.lv(h)) + 0.3
        return self.dec(loc + self.spread(k) / k.sqrt()), k

    @torch.no_grad()
    def spread(self, k):
        rho = 1 + (1 + 4 * k**2).sqrt()
        rho = (rho - (2 * rho).sqrt()) / (2 * k)
        r = (1 + rho**2) / (2 * rho)
        kept, waiting = torch.ones_like(k), torch.ones_like(k, dtype=torch.bool)
        for _ in range(8):
            around = torch.cos(math.pi * torch.rand_like(k))
            f = (1 + r * around) / (r + around)
            c = k * (r - f)
            taken = waiting & (c * (2 - c) > torch.rand_like(k))
            kept, waiting = torch.where(taken, f, kept), waiting & ~taken
        sign = torch.sign(torch.rand_like(k) - 0.5)
        return sign * kept.clamp(-0.999, 0.999).acos() * k.sqrt()

    def loss(self, x):
        r, k = self(x)
        i0, i1 = torch.special.i0e(k), torch.special.i1e(k)
        kl = (k * i1 / i0 - i0.log() - k).sum(1)
        return (0.5 * (r - x).pow(2).sum(1) + kl).mean()


class Denoiser(Gaussian):
    """The decoder is a flow's velocity: it is shown x under noise of a drawn level."""

    def __init__(self):
        super().__init__()
        self.dec = nn.Sequential(nn.Linear(19, 12), nn.Tanh(), nn.Linear(12, 14))

    def forward(self, x):
        mu, lv = self.stats(x)
        start, t = torch.randn_like(x), torch.rand_like(x[:, :1])
        between = (1 - t) * start + t * x
        return self.dec(torch.cat([between, self.draw(mu, lv), t], 1)), x - start, mu, lv

    def loss(self, x):
        v, target, mu, lv = self(x)
        return (0.5 * (v - target).pow(2).sum(1) + 0.02 * divergence(mu, lv)).mean()


class Coloured(nn.Module):
    """The decoder is given the picture's grey, and guesses its colours."""

    def __init__(self):
        super().__init__()
        self.enc, self.dec = nn.Conv2d(3, 8, 2, 2), nn.ConvTranspose2d(4, 8, 2, 2)
        self.paint = nn.Conv2d(9, 3, 3, padding=1)

    def forward(self, x):
        grey = x.mean(1, keepdim=True)
        mu, lv = self.enc(x).chunk(2, 1)
        z = mu + torch.randn_like(mu) * (0.5 * lv).exp()
        return self.paint(torch.cat([torch.relu(self.dec(z)), grey], 1)), mu, lv

    def loss(self, x):
        y, mu, lv = self(x)
        return (0.5 * (y - x).pow(2).flatten(1).sum(1) + divergence(mu, lv)).mean()

    @staticmethod
    def batch():
        return (uniform(6, 3, 6, 6),)


class HistoryOfNumbers(Gaussian):
    """A series of plain numbers, of which each step is told from those before it and z."""

    def __init__(self):
        super().__init__()
        self.past, self.dec = nn.GRU(1, 6, batch_first=True), nn.Linear(10, 2)

    def forward(self, x):
        mu, lv = self.stats(x)
        z = self.draw(mu, lv)[:, None].expand(-1, x.shape[1], -1)
        past, _ = self.past(F.pad(x, (1, 0))[:, :-1, None])
        return self.dec(torch.cat([past, z], -1)), mu, lv

    def loss(self, x):
        out, mu, lv = self(x)
        at, spread = out.unbind(-1)
        nll = 0.5 * ((x - at) * (-spread).exp()).pow(2) + spread
        return (nll.sum(1) + divergence(mu, lv)).mean()


class OneStep(Gaussian):
    """Series of a single step, behind which the state of a recurrent encoder is 0."""

    def __init__(self):
        super().__init__()
        self.enc = nn.GRU(14, 12, batch_first=True)

    def stats(self, x):
        h = self.enc(x[:, None])[0][:, -1]
        return self.mu(h), self.lv(h)


class ScoresItsRows(Gaussian):
    """Forward gives a number of each row, of rows that are looked up."""

    def __init__(self):
        super().__init__()
        self.enc = nn.Sequential(nn.Embedding(9, 5), nn.Flatten(), nn.Linear(30, 12), nn.Tanh())
        self.dec = nn.Linear(4, 54)

    def forward(self, x, weight):
        mu, lv = self.stats(x)
        logits = self.dec(self.draw(mu, lv)).unflatten(1, (9, 6))
        nll = F.cross_entropy(logits, x, reduction="none").sum(1)
        return nll + divergence(mu, lv), weight

    def loss(self, x, weight):
        each, weight = self(x, weight)
        return (each * weight).sum() / weight.sum()

    @staticmethod
    def batch():
        return (9 * uniform(8, 6)).long(), uniform(8, seed=1) + 0.2


class WeightsByName(Gaussian):
    """Weights are looked up by the name of their term, and one term waits for later epochs."""

    def __init__(self):
        super().__init__()
        self.lambda_rec, self.lambda_kld, self.lambda_edge = 2.0, 1.0, 0.5
        self.epoch = 0

    def rec(self, r, x, mu, lv):
        return 0.5 * (r - x).pow(2).sum(1)

    def kld(self, r, x, mu, lv):
        return divergence(mu, lv)

    def edge(self, r, x, mu, lv):
        return (r.diff() - x.diff()).abs().sum(1)

    def loss(self, x):
        r, mu, lv = self(x)
        terms = ["rec", "kld"] if self.epoch < 5 else ["rec", "kld", "edge"]
        return sum(
            (getattr(self, f"lambda_{n}") * getattr(self, n)(r, x, mu, lv)).mean() for n in terms
        )


class WithheldColumns(Gaussian):
    """Two columns are neither shown to the encoder nor scored: they are kept for a test."""

    def __init__(self):
        super().__init__()
        self.register_buffer("kept", torch.tensor([0, 1, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13]))
        self.enc = nn.Sequential(nn.Linear(12, 12), nn.Tanh())

    def stats(self, x):
        return super().stats(x[:, self.kept])

    def loss(self, x):
        r, mu, lv = self(x)
        error = (r[:, self.kept] - x[:, self.kept]).pow(2).sum(1)
        return (0.5 * error + divergence(mu, lv)).mean()


class CallsItsOutputX(Gaussian):
    """The loss hands x to a method that runs the model, whose reconstruction is called x too."""

    def forward(self, x):
        mu, lv = self.stats(x)
        return {"x": self.dec(self.draw(mu, lv)), "mu": mu, "lv": lv}

    def terms(self, data):
        o = self(data)
        yield 0.5 * (o["x"] - data).pow(2).sum(1).mean()
        yield divergence(o["mu"], o["lv"]).mean()

    def loss(self, x):
        return sum(self.terms(x))


class ControlledByU(Gaussian):
    """A factor with a default, called like a class, beside controls that are no class."""

    def forward(self, x, u):
        mu, lv = self.stats(x + F.pad(u, (0, 12)))
        return self.dec(self.draw(mu, lv)), mu, lv

    def loss(self, x, u, c=1.0):
        r, mu, lv = self(x, u)
        return (0.5 * c * (r - x).pow(2).sum(1) + divergence(mu, lv)).mean()

    @staticmethod
    def batch():
        return uniform(8, 14), uniform(8, 2, seed=1)


class Modalities(Gaussian):
    """A list of modalities is one argument, beside an option."""

    def __init__(self):
        super().__init__()
        self.other = nn.Linear(6, 12)

    def forward(self, parts, samples=1):
        h = self.enc(parts[0]) + self.other(parts[1])
        mu, lv = self.mu(h), self.lv(h)
        r = torch.stack([self.dec(self.draw(mu, lv)) for _ in range(samples)]).mean(0)
        return r, mu, lv

    def loss(self, parts, samples=1):
        r, mu, lv = self(parts, samples)
        return (0.5 * (r - parts[0]).pow(2).sum(1) + divergence(mu, lv)).mean()

    @staticmethod
    def batch():
        return ([uniform(8, 14), uniform(8, 6, seed=1)],)


class StagedEncoder(Gaussian):
    """A second encoder takes part from a stage on that a flag of the model says."""

    def __init__(self):
        super().__init__()
        self.refine = nn.Linear(4, 4)
        self.stage = 1

    def stats(self, x):
        mu, lv = super().stats(x)
        if self.stage == 1:
            return mu, lv
        return mu + self.refine(mu), lv


class Rewards(Gaussian):
    """The loss runs the model on a part of what it is given."""

    def __init__(self):
        super().__init__()
        self.reward = nn.Linear(4, 1)

    def forward(self, x, action):
        mu, lv = self.stats(x + F.pad(action, (0, 12)))
        z = self.draw(mu, lv)
        return self.dec(z), self.reward(z)[:, 0], mu, lv

    def loss(self, x, action, reward):
        r, told, mu, lv = self(x, action)
        error = 0.5 * (r - x).pow(2).sum(1) + (told - reward).pow(2)
        return (error + divergence(mu, lv)).mean()

    @staticmethod
    def batch():
        return uniform(8, 14), uniform(8, 2, seed=1), uniform(8, seed=2)


class Checkpointed(Gaussian):
    """The encoder is run again when its gradient is taken, which batch norm makes another run."""

    def __init__(self):
        super().__init__()
        self.enc = nn.Sequential(nn.Linear(14, 12), nn.BatchNorm1d(12), nn.Tanh())

    def stats(self, x):
        h = checkpoint(self.enc, x, use_reentrant=False)
        return self.mu(h), self.lv(h)


class RisingMultiplier(Gaussian):
    """A multiplier of the reconstruction is a buffer that the step moves before it reads it."""

    def __init__(self):
        super().__init__()
        self.register_buffer("multiplier", torch.tensor(0.7))

    def loss(self, x):
        r, mu, lv = self(x)
        self.multiplier.mul_(1.01)
        error = 0.5 * (r - x).pow(2).sum(1).mean()
        return error * self.multiplier + divergence(mu, lv).mean()


class Cyclic(Gaussian):
    """What was decoded is encoded and decoded once more, by the name of the forward pass."""

    def loss(self, x):
        r, mu, lv = self.forward(x)
        again, _, _ = self.forward(r.detach())
        cycle = 0.1 * (again - x).pow(2).sum(1).mean()
        return (0.5 * (r - x).pow(2).sum(1) + divergence(mu, lv)).mean() + cycle


class StepsOfUnlikeLengths(nn.Module):
    """A latent a step; the KL of what is padding is left out as its reconstruction is."""

    def __init__(self):
        super().__init__()
        self.up, self.cell, self.down = nn.Linear(10, 6), nn.GRUCell(7, 6), nn.Linear(9, 4)

    def forward(self, x, lengths):
        h, made, mus, logvars = x.new_zeros(len(x), 6), [], [], []
        for step in x.unbind(1):
            mu, logvar = self.up(torch.cat([step, h], -1)).chunk(2, -1)
            z = mu + torch.randn_like(mu) * (logvar / 2).exp()
            made.append(self.down(torch.cat([z, h], -1)))
            h = self.cell(torch.cat([step, z], -1), h)
            mus.append(mu)
            logvars.append(logvar)
        inside = torch.arange(x.shape[1], device=x.device)[None] < lengths[:, None]
        return *(torch.stack(each, 1) for each in (made, mus, logvars)), inside

    def loss(self, x, lengths):
        r, mu, lv, inside = self(x, lengths)
        nll = 0.5 * (r - x).pow(2).sum(-1) * inside
        return (nll + self.counted(divergence_of_each(mu, lv), inside)).sum(1).mean()

    def counted(self, kl, inside):
        return kl * inside

    @staticmethod
    def batch():
        lengths = torch.tensor([7, 4, 5, 7, 3, 6, 5, 4])
        return uniform(8, 7, 4) * (torch.arange(7)[None] < lengths[:, None])[..., None], lengths


class GapsAmongSteps(nn.Module):
    """Where nothing was measured nothing is scored; a latent of every step has its KL all the same.

    The mask is of gaps, and it is no padding.
    """

    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(4, 6), nn.Linear(3, 4)

    def forward(self, x, mask):
        mu, lv = self.up(x).chunk(2, -1)
        return self.down(mu + torch.randn_like(mu) * (lv / 2).exp()), mu, lv

    def loss(self, x, mask):
        r, mu, lv = self(x, mask)
        nll = (0.5 * (r - x).pow(2).sum(-1) * mask).sum(1)
        return (nll + divergence_of_each(mu, lv).sum(1)).mean()

    @staticmethod
    def batch():
        mask = (uniform(8, 7) > 0.4).float()
        return uniform(8, 7, 4) * mask[..., None], mask


class AsManyUnitsAsSteps(nn.Module):
    """One latent a row, of as many units as there are steps; its encoder reads the padding."""

    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(28, 14), nn.Linear(7, 28)

    def forward(self, x, lengths):
        mu, lv = self.up(x.flatten(1)).chunk(2, -1)
        return self.down(mu + torch.randn_like(mu) * (lv / 2).exp()).view(-1, 7, 4), mu, lv

    def loss(self, x, lengths):
        r, mu, lv = self(x, lengths)
        inside = torch.arange(x.shape[1], device=x.device)[None] < lengths[:, None]
        nll = (0.5 * (r - x).pow(2).sum(-1) * inside).sum(1)
        return (nll + 0.5 * (mu.pow(2) + lv.exp() - 1 - lv).sum(1)).mean()

    batch = staticmethod(StepsOfUnlikeLengths.batch)


def divergence_of_each(mu, lv):
    """The KL to N(0, I) of each step."""
    return 0.5 * (mu.pow(2) + lv.exp() - 1 - lv).sum(-1)
