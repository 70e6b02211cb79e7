"""Healthy models whose KL is one of many, or whose prior is a network or an order of channels."""

import torch
import torch.nn.functional as F
from torch import nn

from .plain import Gaussian, uniform


class DenoisedPrior(Gaussian):
    """log p(z) is a bound by a denoiser, so that fresh noise meets the sample beside log q."""

    def __init__(self):
        super().__init__()
        self.denoise = nn.Sequential(nn.Linear(5, 9), nn.Tanh(), nn.Linear(9, 4))

    def loss(self, x):
        mu, lv = self.stats(x)
        z, t, eps = self.draw(mu, lv), torch.rand_like(mu[:, :1]), torch.randn_like(mu)
        noisy = (1 - t).sqrt() * z + t.sqrt() * eps
        apart = (self.denoise(torch.cat([noisy, t], 1)) - eps).pow(2).sum(1)
        recon = 0.5 * (self.dec(z) - x).pow(2).sum(1)
        return (recon + apart - 0.5 * lv.sum(1)).mean()


class FiltersSteps(nn.Module):
    """A latent a step, filtered from the last one; the KLs of all steps come out as one tensor."""

    def __init__(self):
        super().__init__()
        self.rec, self.emit = nn.Linear(5 + 3, 6), nn.Linear(3, 5)
        self.move = nn.Linear(3, 3)

    def forward(self, x):
        z, out, kls = x.new_zeros(len(x), 3), [], []
        for step in x.unbind(1):
            mu, lv = self.rec(torch.cat([z, step], 1)).chunk(2, 1)
            w = mu + torch.randn_like(mu) * (0.5 * lv).exp()
            z = torch.tanh(self.move(z)) + w
            out.append(self.emit(z))
            kls.append(0.5 * (mu**2 + lv.exp() - 1 - lv).sum(1))
        return torch.stack(out, 1), torch.stack(kls, 1)

    def loss(self, x):
        r, kl = self(x)
        return (0.5 * (r - x).pow(2).sum((1, 2)) + kl.sum(1)).mean()

    @staticmethod
    def batch():
        return (uniform(6, 4, 5),)


class ChannelsInOrder(nn.Module):
    """The mean of green knows the pixel's red, that of blue both, as in a mixture of logistics."""

    def __init__(self):
        super().__init__()
        self.enc, self.dec = nn.Conv2d(3, 6, 3, 2, 1), nn.ConvTranspose2d(3, 24, 4, 2, 1)

    def loss(self, x):
        return self(x)["loss"]

    def forward(self, x):
        mu, lv = self.enc(x).chunk(2, 1)
        z = mu + torch.randn_like(mu) * (0.5 * lv).exp()
        made = self.dec(z).permute(0, 2, 3, 1).split([9, 9, 3, 3], -1)
        mean, by = (part.unflatten(-1, (3, 3)) for part in made[:2])
        scale, logits = F.softplus(made[2])[..., None, :] + 0.1, made[3].log_softmax(-1)
        known = x.permute(0, 2, 3, 1)[..., None].expand(-1, -1, -1, -1, 3)
        red, green, blue = mean.unbind(-2)
        green = green + by[..., 0, :].tanh() * known[..., 0, :]
        blue = blue + by[..., 1, :].tanh() * known[..., 0, :] + by[..., 2, :] * known[..., 1, :]
        far = (known - torch.stack([red, green, blue], -2)) / scale
        logs = (-0.5 * far**2 - scale.log()).sum(-2) + logits
        nll = -torch.logsumexp(logs, -1).sum((1, 2))
        return {"loss": (nll + 0.5 * (mu**2 + lv.exp() - 1 - lv).sum((1, 2, 3))).mean()}

    @staticmethod
    def batch():
        return (uniform(4, 3, 6, 6),)


class FreeNatsOfAPrior(nn.Module):
    """The prior's network, trained by a KL under free nats; its first mode has no gradient."""

    def __init__(self):
        super().__init__()
        self.move, self.emit = nn.Linear(3, 3), nn.Linear(3, 5)
        self.prior, self.post = nn.Linear(3, 3), nn.Linear(5 + 3, 3)
        self.start = nn.Parameter(torch.zeros(3))

    def forward(self, x):
        h = self.start.expand(len(x), -1)
        z, out, kls = F.one_hot(self.prior(h).argmax(1), 3).to(x), [], []
        for step in x.unbind(1):
            h = torch.tanh(self.move(z) + h)
            q = torch.distributions.Categorical(logits=self.post(torch.cat([h, step], 1)))
            p = torch.distributions.Categorical(logits=self.prior(h))
            hard = F.one_hot(q.sample(), 3).to(q.probs)
            z = hard + q.probs - q.probs.detach()
            out.append(self.emit(z))
            kls.append(torch.distributions.kl_divergence(q, p))
        return torch.stack(out, 1), torch.stack(kls, 1)

    def loss(self, x):
        r, kl = self(x)
        return (0.5 * (r - x).pow(2).sum((1, 2)) + kl.clamp(min=2).sum(1)).mean()

    @staticmethod
    def batch():
        return FiltersSteps.batch()


class FillsIn(Gaussian):
    """A mask shows decoder and prior one part of x, and the loss compares the other."""

    def __init__(self):
        super().__init__()
        self.prior = nn.Linear(28, 8)
        self.dec = nn.Sequential(nn.Linear(4 + 28, 12), nn.Tanh(), nn.Linear(12, 14))

    def loss(self, x, mask):
        r, (mu, lv), (pm, pl) = self(x, mask)
        kl = 0.5 * (pl - lv + (lv.exp() + (mu - pm) ** 2) / pl.exp() - 1)
        return (0.5 * ((r - x).pow(2) * mask).sum(1) + kl.sum(1)).mean()

    def forward(self, x, mask):
        shown = torch.cat([x * (1 - mask), mask], 1)
        q, p = self.stats(x), self.prior(shown).chunk(2, 1)
        return self.dec(torch.cat([self.draw(*q), shown], 1)), q, p

    @staticmethod
    def batch():
        return uniform(8, 14), (uniform(8, 14, seed=1) > 0.5).float()


class WrappedNormal(Gaussian):
    """Angles of a uniform prior: forward returns log q of each, a number like the sample itself."""

    def __init__(self):
        super().__init__()
        self.dec = nn.Sequential(nn.Linear(8, 12), nn.Tanh(), nn.Linear(12, 14))

    def forward(self, x):
        mu, raw = self.stats(x)
        s = 0.05 + 2 * raw.sigmoid()
        angle = mu + s * torch.randn_like(s)
        turns = torch.tensor([-2.0, -1.0, 0.0, 1.0, 2.0]).to(s) * 2 * torch.pi
        far = ((angle - mu)[..., None] + turns) / s[..., None]
        log_q = torch.logsumexp(-0.5 * far**2 - s.log()[..., None], -1)
        return self.dec(torch.cat([angle.cos(), angle.sin()], 1)), angle, log_q

    def loss(self, x):
        r, _, log_q = self(x)
        return (0.5 * (r - x).pow(2).sum(1) + log_q.sum(1)).mean()


class ImplicitPosterior(Gaussian):
    """Noise enters the encoder beside x; the critic's draw of the prior has a step of its own."""

    def __init__(self):
        super().__init__()
        self.enc, self.mu = nn.Sequential(nn.Linear(18, 12), nn.Tanh()), nn.Linear(12, 4)
        self.critic = nn.Linear(18, 1)
        del self.lv

    def forward(self, x):
        z = self.mu(self.enc(torch.cat([x, torch.randn(len(x), 4).to(x)], 1)))
        return self.dec(z), z

    def losses(self, x):
        r, z = self(x)
        ratio = self.critic(torch.cat([x, z], 1))[:, 0]
        fake = self.critic(torch.cat([x, z.detach()], 1))
        real = self.critic(torch.cat([x, torch.randn_like(z)], 1))
        return (0.5 * (r - x).pow(2).sum(1) + ratio).mean(), (F.softplus(-fake) + F.softplus(real))

    def loss(self, x):
        return self.losses(x)[0] + self.losses(x)[1].mean()


class GumbelOfProbabilities(Gaussian):
    """Gumbel noise by hand on the logarithm of probabilities, of which the loss holds the KL."""

    def forward(self, x):
        p = self.mu(self.enc(x)).softmax(-1)
        noise = -torch.log(-torch.log(torch.rand(p.size()).to(p) + 1e-12) + 1e-12)
        return self.dec(((torch.log(p + 1e-12) + noise) / 0.67).softmax(-1)), p

    def __init__(self):
        super().__init__()
        del self.lv

    def loss(self, x):
        r, p = self(x)
        kl = (p * torch.log(4 * p + 1e-12)).sum(1)
        return (0.5 * (r - x).pow(2).sum(1) + kl).mean()


class Leapfrog(Gaussian):
    """The sample moves with a momentum of its own noise: volume is kept in both together."""

    def __init__(self):
        super().__init__()
        self.step = nn.Parameter(torch.full((4,), 0.1))

    def forward(self, x):
        mu, lv = self.stats(x)
        eps = torch.randn_like(mu)
        z, rho = mu + eps * (0.5 * lv).exp(), torch.randn_like(mu)
        for _ in range(2):
            rho = rho - 0.5 * self.step * (z - x[:, :4].tanh())
            z = z + self.step * rho
            rho = rho - 0.5 * self.step * (z - x[:, :4].tanh())
        return self.dec(z), z, rho, -0.5 * (eps**2 + lv).sum(1)

    def loss(self, x):
        r, z, rho, log_q = self(x)
        log_p = -0.5 * z.pow(2).sum(1) - 0.5 * rho.pow(2).sum(1)
        return (0.5 * (r - x).pow(2).sum(1) + log_q - log_p).mean()
