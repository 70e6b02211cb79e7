"""Healthy parts that train otherwise or not at all: teachers, critics, frozen parts, schedules."""

import copy

import torch
import torch.nn.functional as F
from torch import nn

from .plain import Gaussian, divergence, uniform


class AnnealedByBuffer(Gaussian):
    """beta rises with a step counter that is a buffer, updated in the loss."""

    def __init__(self):
        super().__init__()
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))

    def loss(self, x):
        if self.training:
            self.steps += 1
        beta = min(1.0, float(self.steps) / 1000)
        r, mu, lv = self(x)
        return (0.5 * (r - x).pow(2).sum(1) + beta * divergence(mu, lv)).mean()


class AnnealedFromZero(Gaussian):
    """beta is 0 at the first step and rises with a plain attribute."""

    step = 0

    def loss(self, x):
        beta = min(1.0, self.step / 1000)
        if self.training:
            self.step += 1
        r, mu, lv = self(x)
        return (0.5 * (r - x).pow(2).sum(1) + beta * divergence(mu, lv)).mean()


class AnnealedInCycles(Gaussian):
    """The weight begins anew every 200 steps; what counts them has no name that tells."""

    highest = 0.5

    def __init__(self):
        super().__init__()
        self.register_buffer("tally", torch.zeros(()))

    def loss(self, x):
        share = torch.clamp(2 * (self.tally % 200) / 200, max=1.0)
        if self.training:
            self.tally += 1
        r, mu, lv = self(x)
        return (0.5 * (r - x).pow(2).sum(1) + self.highest * share * divergence(mu, lv)).mean()


class ClampedAfterTheStep(Gaussian):
    """The decoder's deviations are numbers of their own, kept in range after each step."""

    def __init__(self):
        super().__init__()
        self.deviations = nn.Parameter(torch.full((14,), 0.1))

    def loss(self, x):
        r, mu, lv = self(x)
        squares = 0.5 * ((r - x) / self.deviations).pow(2) + self.deviations.log()
        return (squares.sum(1) + divergence(mu, lv)).mean()

    def fit(self, batches, optimizer):
        for x in batches:
            optimizer.zero_grad()
            self.loss(x).backward()
            optimizer.step()
            self.deviations.data.clamp_(0.01, 1.0)


class GradientReversal(torch.autograd.Function):
    @staticmethod
    def forward(ctx, v):
        return v.view_as(v)

    @staticmethod
    def backward(ctx, g):
        return -g


class ReversedDomain(Gaussian):
    """A domain classifier reads the latent behind a gradient reversal."""

    def __init__(self):
        super().__init__()
        self.domain = nn.Linear(4, 2)

    def loss(self, x, y):
        mu, lv = self.stats(x)
        z = self.draw(mu, lv)
        r = self.dec(z)
        adv = F.cross_entropy(self.domain(GradientReversal.apply(z)), y)
        return (0.5 * (r - x).pow(2).sum(1) + divergence(mu, lv)).mean() + adv

    def forward(self, x, y=None):
        return super().forward(x)

    @staticmethod
    def batch():
        return uniform(8, 14), torch.arange(8) % 2


class MovingAverageTeacher(Gaussian):
    """A frozen teacher, moved in the loss by moving average, gives a target."""

    def __init__(self):
        super().__init__()
        self.teacher = copy.deepcopy(self.enc)
        self.teacher.requires_grad_(False)

    def loss(self, x):
        r, mu, lv = self(x)
        with torch.no_grad():
            if self.training:
                for t, s in zip(self.teacher.parameters(), self.enc.parameters(), strict=True):
                    t.lerp_(s, 0.01)
            target = self.teacher(x)
        agree = F.mse_loss(self.enc(x), target)
        return (0.5 * (r - x).pow(2).sum(1) + divergence(mu, lv)).mean() + agree


class DiscriminatorBeside(Gaussian):
    """VAE-GAN: the loss switches off the gradients of a discriminator with its own loss."""

    def __init__(self):
        super().__init__()
        self.disc = nn.Sequential(nn.Linear(14, 9), nn.LeakyReLU(0.2), nn.Linear(9, 1))

    def loss(self, x):
        r, mu, lv = self(x)
        self.disc.requires_grad_(False)
        fool = F.softplus(-self.disc(r)).mean()
        self.disc.requires_grad_(True)
        return (0.5 * (r - x).pow(2).sum(1) + divergence(mu, lv)).mean() + fool

    def disc_loss(self, x):
        r = self(x)[0].detach()
        return F.softplus(self.disc(r)).mean() + F.softplus(-self.disc(x)).mean()


class Adapter(nn.Module):
    def __init__(self, inner, rank=2):
        super().__init__()
        self.inner = inner.requires_grad_(False)
        self.down = nn.Parameter(torch.randn(inner.in_features, rank) / 4)
        self.up = nn.Parameter(torch.zeros(rank, inner.out_features))

    def forward(self, x):
        return self.inner(x) + x @ self.down @ self.up


class LowRankAdapters(Gaussian):
    """Every layer is frozen beside an adapter whose second factor starts at 0."""

    def __init__(self):
        super().__init__()
        self.enc[0] = Adapter(self.enc[0])
        self.mu, self.lv = Adapter(self.mu), Adapter(self.lv)
        self.dec[0], self.dec[2] = Adapter(self.dec[0]), Adapter(self.dec[2])


class FrozenFeatures(Gaussian):
    """A frozen network, kept in evaluation mode, compares features."""

    def __init__(self):
        super().__init__()
        self.vgg = nn.Sequential(nn.Linear(14, 10), nn.ReLU(), nn.Linear(10, 6)).eval()
        for p in self.vgg.parameters():
            p.requires_grad = False

    def train(self, mode=True):
        super().train(mode)
        self.vgg.eval()
        return self

    def loss(self, x):
        r, mu, lv = self(x)
        feat = (self.vgg(r) - self.vgg(x)).pow(2).sum(1)
        return (0.5 * (r - x).pow(2).sum(1) + feat + divergence(mu, lv)).mean()


class RunningStatistics(Gaussian):
    """The input is whitened by running statistics kept in buffers."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(14))
        self.register_buffer("var", torch.ones(14))

    def forward(self, x):
        if self.training:
            with torch.no_grad():
                self.mean.mul_(0.99).add_(x.mean(0), alpha=0.01)
                self.var.mul_(0.99).add_(x.var(0), alpha=0.01)
        mu, lv = self.stats((x - self.mean) / (self.var + 1e-5).sqrt())
        return self.dec(self.draw(mu, lv)) * (self.var + 1e-5).sqrt() + self.mean, mu, lv


class LagrangeMultiplier(Gaussian):
    """GECO: the weight of the constraint is a parameter whose gradient is reversed."""

    def __init__(self):
        super().__init__()
        self.log_lambda = nn.Parameter(torch.zeros(()))

    def loss(self, x):
        r, mu, lv = self(x)
        c = 0.5 * (r - x).pow(2).sum(1) - 0.1
        lam = GradientReversal.apply(self.log_lambda).exp()
        return (divergence(mu, lv) + lam * c).mean()


class FrozenEncoder(Gaussian):
    """The encoder is frozen under `no_grad`, and the loss has no KL."""

    def __init__(self):
        super().__init__()
        for m in (self.enc, self.mu, self.lv):
            m.requires_grad_(False)

    def stats(self, x):
        with torch.no_grad():
            return super().stats(x)

    def loss(self, x):
        r = self(x)[0]
        return 0.5 * (r - x).pow(2).sum(1).mean()


class ProjectedWeights(Gaussian):
    """The decoder's weights are clamped in forward under `no_grad`."""

    def forward(self, x):
        with torch.no_grad():
            for p in self.dec.parameters():
                p.clamp_(-3, 3)
        return super().forward(x)


class TrainableTeacher(Gaussian):
    """A teacher left trainable is only called under `no_grad`."""

    def __init__(self):
        super().__init__()
        self.teacher = nn.Sequential(nn.Linear(14, 12), nn.Tanh())

    def loss(self, x):
        r, mu, lv = self(x)
        with torch.no_grad():
            t = self.teacher(x)
        agree = F.mse_loss(self.enc(x), t)
        return (0.5 * (r - x).pow(2).sum(1) + divergence(mu, lv)).mean() + agree


class KeptState(Gaussian):
    """A recurrent state is kept, detached, between calls and starts at 0."""

    def __init__(self):
        super().__init__()
        self.state = None
        self.mixer = nn.Linear(12, 12)

    def stats(self, x):
        h = self.enc(x)
        if self.state is None or self.state.shape != h.shape or not self.training:
            self.state = torch.zeros_like(h)
        h = torch.tanh(h + self.mixer(self.state))
        self.state = h.detach()
        return self.mu(h), self.lv(h)


class TwoOptimizers(Gaussian):
    """`configure_optimizers` returns two optimizers that share the parameters out."""

    def __init__(self):
        super().__init__()
        self.disc = nn.Linear(14, 1)

    def loss(self, x):
        r, mu, lv = self(x)
        fool = F.softplus(-self.disc(r)).mean()
        return (0.5 * (r - x).pow(2).sum(1) + divergence(mu, lv)).mean() + fool

    def configure_optimizers(self):
        a = torch.optim.Adam([p for n, p in self.named_parameters() if "disc" not in n])
        d = torch.optim.Adam(self.disc.parameters())
        return [a, d], []


class TupleOfDicts(Gaussian):
    """`configure_optimizers` returns a tuple of dictionaries."""

    def configure_optimizers(self):
        opt = torch.optim.AdamW(self.parameters())
        sch = torch.optim.lr_scheduler.StepLR(opt, 1)
        return ({"optimizer": opt, "lr_scheduler": {"scheduler": sch}},)


class RunningLoss(Gaussian):
    """A running loss is kept without its graph, the last outputs with theirs."""

    def __init__(self):
        super().__init__()
        self.running, self.last = 0.0, None

    def loss(self, x):
        r, mu, lv = self(x)
        out = (0.5 * (r - x).pow(2).sum(1) + divergence(mu, lv)).mean()
        self.last = (r, mu, lv)
        self.running = 0.9 * self.running + 0.1 * out.detach()
        return out


class HiddenTeacher(Gaussian):
    """A frozen teacher is hidden in a list so that it is not saved, and moved by hand."""

    def __init__(self):
        super().__init__()
        self.hidden = [nn.Linear(14, 14).requires_grad_(False)]

    def loss(self, x):
        r, mu, lv = self(x)
        t = self.hidden[0].to(x)
        return (0.5 * (r - x).pow(2).sum(1) + divergence(mu, lv)).mean() + F.mse_loss(t(r), t(x))


class HeadForPrediction(Gaussian):
    """A classifier head is used by `predict` only."""

    def __init__(self):
        super().__init__()
        self.classify = nn.Linear(4, 3)

    def predict(self, x):
        return self.classify(self.stats(x)[0])


class DetachedRefinement(Gaussian):
    """A second decoder refines the detached first reconstruction."""

    def __init__(self):
        super().__init__()
        self.refine = nn.Linear(14, 14)

    def forward(self, x):
        r, mu, lv = super().forward(x)
        return r, r.detach() + self.refine(r.detach()), mu, lv

    def loss(self, x):
        r, fine, mu, lv = self(x)
        return (0.5 * (r - x).pow(2).sum(1) + divergence(mu, lv)).mean() + F.mse_loss(fine, x)


class HeadsOfTreatments(Gaussian):
    """The treatment says which head is taken, and all of this batch were treated."""

    def __init__(self):
        super().__init__()
        self.other = nn.Linear(12, 4)

    def forward(self, x, treated):
        h = self.enc(x)
        mu = torch.where(treated[:, None] > 0.5, self.mu(h), self.other(h))
        lv = self.lv(h)
        return self.dec(self.draw(mu, lv)), mu, lv

    def loss(self, x, treated):
        r, mu, lv = self(x, treated)
        return (0.5 * (r - x).pow(2).sum(1) + divergence(mu, lv)).mean()

    @staticmethod
    def batch():
        return uniform(8, 14), torch.ones(8)


class BranchesFromNearZero(Gaussian):
    """The decoder's residual branches begin at a millionth: the skips carry the gradient."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.branches = nn.ModuleList(nn.Linear(12, 12) for _ in range(8))
        self.sizes = nn.ParameterList(nn.Parameter(torch.full((12,), 1e-6)) for _ in range(8))

    def forward(self, x):
        mu, lv = self.stats(x)
        h = self.dec[0](self.draw(mu, lv))
        for size, branch in zip(self.sizes, self.branches, strict=True):
            h = h + size * F.selu(branch(h))
        return self.dec[2](h.tanh()), mu, lv


class LastLayerNearZero(Gaussian):
    """The decoder's last weights begin at 1e-6, and move at once."""

    def __init__(self):
        super().__init__()
        nn.init.normal_(self.dec[-1].weight, std=1e-6)
