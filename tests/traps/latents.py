"""Healthy latents that are no plain Gaussian vector: layered, sequential, or flows."""

import math

import torch
import torch.nn.functional as F
from torch import nn
from torch.distributions import Bernoulli, Normal, kl_divergence

from .plain import Gaussian, divergence, seeded, uniform


class ComplexLatent(nn.Module):
    """Complex latent: real and imaginary parts are each Gaussian."""

    def __init__(self):
        super().__init__()
        self.up = nn.Linear(9, 8, dtype=torch.cfloat)
        self.heads = nn.Linear(16, 8)
        self.down = nn.Linear(2, 9, dtype=torch.cfloat)

    def forward(self, x):
        f = torch.fft.rfft(x)
        h = torch.view_as_real(self.up(f)).flatten(1).tanh()
        mu, lv = self.heads(h).chunk(2, -1)
        z = mu + torch.randn_like(mu) * (lv / 2).exp()
        zc = torch.view_as_complex(z.view(-1, 2, 2))
        return torch.fft.irfft(self.down(zc), n=16), mu, lv

    def loss(self, x):
        r, mu, lv = self(x)
        return (0.5 * (r - x).pow(2).sum(1) + divergence(mu, lv)).mean()

    @staticmethod
    def batch():
        return (uniform(8, 16),)


class PackedSequences(nn.Module):
    """A packed bidirectional GRU reads sequences of unequal length."""

    def __init__(self):
        super().__init__()
        self.rnn = nn.GRU(5, 7, batch_first=True, bidirectional=True)
        self.q = nn.Linear(14, 8)
        self.first = nn.Linear(4, 9)
        self.dec = nn.GRU(4, 9, batch_first=True)
        self.out = nn.Linear(9, 5)

    def forward(self, x, lengths):
        packed = nn.utils.rnn.pack_padded_sequence(
            x, lengths.cpu(), batch_first=True, enforce_sorted=False
        )
        _, h = self.rnn(packed)
        mu, lv = self.q(h.transpose(0, 1).flatten(1)).chunk(2, 1)
        z = mu + torch.randn_like(mu) * (lv / 2).exp()
        steps = z[:, None].expand(-1, x.shape[1], -1)
        y, _ = self.dec(steps, torch.tanh(self.first(z))[None])
        return self.out(y), mu, lv

    def loss(self, x, lengths):
        r, mu, lv = self(x, lengths)
        mask = (torch.arange(x.shape[1], device=x.device) < lengths[:, None]).to(x.dtype)
        err = ((r - x).pow(2).sum(-1) * mask).sum(1) / 2
        return (err + divergence(mu, lv)).mean()

    @staticmethod
    def batch():
        return uniform(6, 5, 5), torch.tensor([5, 3, 4, 5, 2, 1])


class ResidualPosterior(Gaussian):
    """The posterior is given relative to the prior, as in NVAE."""

    def __init__(self):
        super().__init__()
        self.top = nn.Linear(12, 6)
        self.prior = nn.Linear(3, 8)
        self.delta = nn.Linear(12 + 3, 8)
        self.mu = self.lv = None

    def forward(self, x):
        h = self.enc(x)
        m2, l2 = self.top(h).chunk(2, 1)
        z2 = m2 + torch.randn_like(m2) * l2.exp()
        pm, pl = self.prior(z2).chunk(2, 1)
        dm, dl = self.delta(torch.cat([h, z2], 1)).chunk(2, 1)
        z1 = pm + dm + torch.randn_like(pm) * (pl + dl).exp()
        kl2 = (0.5 * (m2**2 + (2 * l2).exp() - 1) - l2).sum(1)
        kl1 = (0.5 * (dm**2 / (2 * pl).exp() + (2 * dl).exp() - 1) - dl).sum(1)
        return self.dec(z1), kl1 + kl2

    def loss(self, x):
        r, kl = self(x)
        return (0.5 * (r - x).pow(2).sum(1) + kl).mean()


class AutoregressivePrior(Gaussian):
    """delta-VAE: an AR(1) prior along the latent and a bounded posterior scale."""

    def __init__(self):
        super().__init__()
        self.alpha = 0.9

    def forward(self, x):
        h = self.enc(x)
        mu = self.mu(h)
        s = 0.1 + 0.8 * torch.sigmoid(self.lv(h))
        z = mu + s * torch.randn_like(s)
        before = torch.cat([torch.zeros_like(z[:, :1]), z[:, :-1]], 1)
        scale = math.sqrt(1 - self.alpha**2)
        kl = Normal(mu, s).log_prob(z) - Normal(self.alpha * before, scale).log_prob(z)
        return self.dec(z), kl.sum(1)

    loss = ResidualPosterior.loss


class InverseAutoregressiveFlow(Gaussian):
    """An inverse autoregressive flow after the Gaussian, masked by a buffer."""

    def __init__(self):
        super().__init__()
        self.net = nn.Linear(4, 8)
        self.register_buffer("tri", torch.tril(torch.ones(4, 4), -1).repeat(2, 1))

    def loss(self, x):
        mu, lv = self.stats(x)
        eps = torch.randn_like(mu)
        z = mu + eps * (lv / 2).exp()
        logq = (-0.5 * eps**2 - 0.5 * lv - 0.5 * math.log(2 * math.pi)).sum(1)
        m, s = F.linear(z, self.net.weight * self.tri, self.net.bias).chunk(2, 1)
        gate = torch.sigmoid(s + 1)
        z = gate * z + (1 - gate) * m
        logq = logq - gate.log().sum(1)
        logp = (-0.5 * z**2 - 0.5 * math.log(2 * math.pi)).sum(1)
        return (0.5 * (self.dec(z) - x).pow(2).sum(1) + logq - logp).mean()


class Conditional(Gaussian):
    """Encoder and decoder read a label, so the decoder sees more than the latent."""

    def __init__(self):
        super().__init__()
        self.enc = nn.Sequential(nn.Linear(14 + 3, 12), nn.Tanh())
        self.dec = nn.Sequential(nn.Linear(4 + 3, 12), nn.Tanh(), nn.Linear(12, 14))

    def forward(self, x, y):
        mu, lv = self.stats(torch.cat([x, y], 1))
        return self.dec(torch.cat([self.draw(mu, lv), y], 1)), mu, lv

    def loss(self, x, y):
        r, mu, lv = self(x, y)
        return (0.5 * (r - x).pow(2).sum(1) + divergence(mu, lv)).mean()

    @staticmethod
    def batch():
        return uniform(8, 14), F.one_hot(torch.arange(8) % 3, 3).float()


class PushedToNoise(Gaussian):
    """The likelihood is a flow given z: x is pushed to noise, and nothing is reconstructed."""

    def __init__(self):
        super().__init__()
        self.dec = nn.ModuleList(nn.Linear(7 + 4, 14) for _ in range(3))

    def forward(self, x):
        mu, lv = self.stats(x)
        z, log_det = self.draw(mu, lv), 0.0
        for step in self.dec:
            kept, moved = x.chunk(2, -1)
            s, t = step(torch.cat([kept, z], -1)).chunk(2, -1)
            x = torch.cat([moved * s.tanh().exp() + t, kept], -1)
            log_det = log_det + s.tanh().sum(-1)
        return 0.5 * x.pow(2).sum(-1) - log_det, mu, lv

    def loss(self, x):
        nll, mu, lv = self(x)
        return (nll + divergence(mu, lv)).mean()


class GuessedLabel(Gaussian):
    """The decoder reads the classes that a softmax guesses from x, and that learns what x shows."""

    def __init__(self):
        super().__init__()
        self.guess = nn.Linear(14, 3)
        self.dec = nn.Sequential(nn.Linear(4 + 3, 12), nn.Tanh(), nn.Linear(12, 14))

    def forward(self, x):
        y = F.softmax(self.guess(x), 1)
        mu, lv = self.stats(x)
        return self.dec(torch.cat([self.draw(mu, lv), y], 1)), mu, lv, y

    def loss(self, x):
        r, mu, lv, y = self(x)
        wrong = F.nll_loss(y.log(), x[:, :3].argmax(1))
        return (0.5 * (r - x).pow(2).sum(1) + divergence(mu, lv)).mean() + wrong


class SampledSkip(Gaussian):
    """A second latent, sampled from the input itself, skips the bottleneck."""

    def __init__(self):
        super().__init__()
        self.low = nn.Linear(14, 8)
        self.out = nn.Linear(14 + 4, 14)

    def forward(self, x):
        mu, lv = self.stats(x)
        z = self.draw(mu, lv)
        m1, l1 = self.low(x).chunk(2, 1)
        z1 = self.draw(m1, l1)
        return self.out(torch.cat([self.dec(z), z1], 1)), (mu, lv), (m1, l1)

    def loss(self, x):
        r, a, b = self(x)
        return (0.5 * (r - x).pow(2).sum(1) + divergence(*a) + divergence(*b)).mean()


class WordDropout(nn.Module):
    """A recurrent decoder reads the tokens themselves, some of them dropped."""

    def __init__(self):
        super().__init__()
        self.emb = nn.Embedding(13, 10)
        self.enc = nn.GRU(10, 12, batch_first=True)
        self.q = nn.Linear(12, 8)
        self.h0 = nn.Linear(4, 12)
        self.dec = nn.GRU(10, 12, batch_first=True)
        self.out = nn.Linear(12, 13)
        self.drop = 0.3

    def forward(self, t):
        _, h = self.enc(self.emb(t))
        mu, lv = self.q(h[-1]).chunk(2, 1)
        z = mu + torch.randn_like(mu) * (lv / 2).exp()
        inp = t[:, :-1]
        if self.training:
            inp = inp.masked_fill(torch.rand(inp.shape, device=t.device) < self.drop, 0)
        y, _ = self.dec(self.emb(inp), torch.tanh(self.h0(z))[None])
        return self.out(y), mu, lv

    def loss(self, t):
        logits, mu, lv = self(t)
        ce = F.cross_entropy(logits.transpose(1, 2), t[:, 1:], reduction="none").sum(1)
        return (ce + divergence(mu, lv)).mean()

    @staticmethod
    def batch():
        return (torch.randint(1, 13, (6, 7), generator=seeded(3)),)


class RotatedLatent(Gaussian):
    """The latent is turned by a fixed random rotation."""

    def __init__(self):
        super().__init__()
        self.register_buffer("turn", torch.linalg.qr(torch.randn(4, 4)).Q)

    def forward(self, x):
        mu, lv = self.stats(x)
        return self.dec(self.draw(mu, lv) @ self.turn), mu, lv


class CouplingPrior(Gaussian):
    """A RealNVP coupling is the prior."""

    def __init__(self):
        super().__init__()
        self.nets = nn.ModuleList(
            nn.Sequential(nn.Linear(2, 9), nn.Tanh(), nn.Linear(9, 4)) for _ in range(2)
        )

    def prior(self, z):
        logdet = 0.0
        for i, net in enumerate(self.nets):
            a, b = z.chunk(2, 1)
            if i % 2:
                a, b = b, a
            s, t = net(a).chunk(2, 1)
            s = torch.tanh(s)
            b = b * s.exp() + t
            logdet = logdet + s.sum(1)
            z = torch.cat([a, b], 1)
        return Normal(0.0, 1.0).log_prob(z).sum(1) + logdet

    def loss(self, x):
        mu, lv = self.stats(x)
        q = Normal(mu, (lv / 2).exp())
        z = q.rsample()
        return (0.5 * (self.dec(z) - x).pow(2).sum(1) + q.log_prob(z).sum(1) - self.prior(z)).mean()


class GraphBatch(nn.Module):
    """Nodes of several graphs in one batch: a row reads its neighbours, also in the decoder."""

    def __init__(self):
        super().__init__()
        self.msg, self.upd = nn.Linear(5, 8), nn.Linear(13, 9)
        self.q = nn.Linear(9, 6)
        self.dec = nn.Linear(3 + 5, 5)

    def forward(self, x, edges):
        m = torch.relu(self.msg(x))[edges[0]]
        agg = x.new_zeros(len(x), 8).index_add(0, edges[1], m)
        h = torch.tanh(self.upd(torch.cat([x, agg], 1)))
        mu, lv = self.q(h).chunk(2, 1)
        z = mu + torch.randn_like(mu) * (lv / 2).exp()
        nb = x.new_zeros(len(x), 5).index_add(0, edges[1], x[edges[0]])
        return self.dec(torch.cat([z, nb], 1)), mu, lv

    def loss(self, x, edges):
        r, mu, lv = self(x, edges)
        return (0.5 * (r - x).pow(2).sum(1) + divergence(mu, lv)).mean()

    @staticmethod
    def batch():
        return uniform(9, 5), torch.tensor([[0, 1, 2, 3, 4, 5, 6, 7], [1, 2, 0, 4, 5, 3, 7, 8]])


class FoldedTime(Gaussian):
    """Time is folded into the batch and unfolded again."""

    @staticmethod
    def batch():
        return (uniform(4, 3, 14),)

    def forward(self, x):
        b, t, d = x.shape
        r, mu, lv = super().forward(x.reshape(b * t, d))
        return r.view(b, t, d), mu.view(b, t, -1), lv.view(b, t, -1)

    def loss(self, x):
        r, mu, lv = self(x)
        return (0.5 * (r - x).pow(2).sum((1, 2)) + divergence(mu, lv)).mean()


class SortedLengths(PackedSequences):
    """Rows are sorted by length for packing and put back after."""

    def forward(self, x, lengths):
        order = lengths.argsort(descending=True)
        back = order.argsort()
        packed = nn.utils.rnn.pack_padded_sequence(x[order], lengths[order].cpu(), batch_first=True)
        _, h = self.rnn(packed)
        mu, lv = self.q(h.transpose(0, 1).flatten(1)[back]).chunk(2, 1)
        z = mu + torch.randn_like(mu) * (lv / 2).exp()
        y, _ = self.dec(z[:, None].expand(-1, x.shape[1], -1), torch.tanh(self.first(z))[None])
        return self.out(y), mu, lv


class SumOfTwo(nn.Module):
    """Two VAEs, the second of the first's detached residual, are added."""

    def __init__(self):
        super().__init__()
        self.a, self.b = Gaussian(), Gaussian()

    def forward(self, x):
        r1, m1, l1 = self.a(x)
        r2, m2, l2 = self.b(x - r1.detach())
        return r1 + r2, (m1, l1), (m2, l2)

    def loss(self, x):
        r, p, q = self(x)
        return (0.5 * (r - x).pow(2).sum(1) + divergence(*p) + divergence(*q)).mean()

    batch = Gaussian.batch


class BalancedPrior(Gaussian):
    """A learned prior and the posterior are each trained against the other, detached."""

    def __init__(self):
        super().__init__()
        self.prior = nn.Linear(3, 8)

    def forward(self, x, c):
        mu, lv = self.stats(x)
        pm, pl = self.prior(c).chunk(2, 1)
        return self.dec(self.draw(mu, lv)), mu, lv, pm, pl

    def loss(self, x, c):
        r, mu, lv, pm, pl = self(x, c)
        q, p = Normal(mu, (lv / 2).exp()), Normal(pm, (pl / 2).exp())
        qs = Normal(mu.detach(), (lv / 2).exp().detach())
        ps = Normal(pm.detach(), (pl / 2).exp().detach())
        kl = 0.8 * kl_divergence(qs, p) + 0.2 * kl_divergence(q, ps)
        return (0.5 * (r - x).pow(2).sum(1) + kl.sum(1)).mean()

    @staticmethod
    def batch():
        return uniform(8, 14), uniform(8, 3, seed=1)


class ScoredDraws(nn.Module):
    """Binary units taught by the score of their draws; the probabilities come from logits."""

    def __init__(self):
        super().__init__()
        self.enc, self.dec = nn.Linear(14, 4), nn.Linear(4, 14)
        self.baseline = nn.Linear(14, 1)

    def forward(self, x):
        q = Bernoulli(logits=self.enc(x))
        z = q.sample()
        log_q = q.log_prob(z).sum(-1)
        log_p = Bernoulli(logits=torch.zeros_like(z)).log_prob(z).sum(-1)
        log_p = log_p + Bernoulli(logits=self.dec(z)).log_prob(x).sum(-1)
        bound, b = log_p - log_q, self.baseline(x)[:, 0]
        signal = bound.detach() - b.detach()
        taught = -(log_p + signal * log_q).mean() + (bound.detach() - b).pow(2).mean()
        return {"surrogate": taught, "elbo": bound.mean().detach()}

    def loss(self, x):
        return self(x)["surrogate"]

    @staticmethod
    def batch():
        return (uniform(8, 14).round(),)


class OneDrawForAllSteps(nn.Module):
    """Each step's posterior reads the sample before it; the noise of all is drawn at once."""

    def __init__(self):
        super().__init__()
        self.rnn = nn.GRU(6, 12, batch_first=True)
        self.mu, self.std, self.down = nn.Linear(15, 3), nn.Linear(15, 3), nn.Linear(3, 6)

    def forward(self, x):
        h, _ = self.rnn(x)
        eps = torch.randn(x.shape[1] + 1, len(x), 3, device=x.device)
        z, mus, stds = [eps[0]], [], []
        for t in range(x.shape[1]):
            a = torch.cat([h[:, t], z[t]], -1)
            mus.append(self.mu(a))
            stds.append(F.softplus(self.std(a)) + 1e-4)
            z.append(stds[t] * eps[t + 1] + mus[t])
        mu, std, z = (torch.stack(v, 1) for v in (mus, stds, z[1:]))
        return self.down(z), z, mu, std

    def loss(self, x):
        x_hat, _, mu, std = self(x)
        kl = 0.5 * (mu.pow(2) + std.pow(2) - 1) - std.log()
        return ((x_hat - x).pow(2).sum((1, 2)) + kl.sum((1, 2))).mean()

    @staticmethod
    def batch():
        return (uniform(8, 5, 6),)
