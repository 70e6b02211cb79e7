"""How healthy networks are built and run: wrappers, hooks, state, devices and data types."""

import copy
import math
import warnings

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from .plain import Gaussian, divergence, seeded, uniform


class Checkpointed(Gaussian):
    """Encoder and decoder run again in the backward pass."""

    def forward(self, x):
        h = checkpoint(self.enc, x, use_reentrant=False)
        mu, lv = self.mu(h), self.lv(h)
        return checkpoint(self.dec, self.draw(mu, lv), use_reentrant=False), mu, lv


class SpectralNorm(Gaussian):
    """Spectral norm both as a parametrization and as the older hook, which keeps state."""

    def __init__(self):
        super().__init__()
        self.enc = nn.Sequential(
            nn.utils.parametrizations.spectral_norm(nn.Linear(14, 12)), nn.Tanh()
        )
        self.mu = nn.utils.spectral_norm(nn.Linear(12, 4))


class OldWeightNorm(Gaussian):
    """The weight is no parameter: a hook makes it from two others at each call."""

    def __init__(self):
        super().__init__()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.mu = nn.utils.weight_norm(nn.Linear(12, 4))


class Orthogonal(Gaussian):
    """The latent is turned by a parametrized orthogonal layer."""

    def __init__(self):
        super().__init__()
        self.turn = nn.utils.parametrizations.orthogonal(nn.Linear(4, 4, bias=False))

    def forward(self, x):
        mu, lv = self.stats(x)
        return self.dec(self.turn(self.draw(mu, lv))), mu, lv


class Wrapped(nn.Module):
    """The model lies inside a wrapper like `DataParallel`."""

    def __init__(self):
        super().__init__()
        self.module = Gaussian()

    def forward(self, *a, **k):
        return self.module(*a, **k)

    def loss(self, x):
        r, mu, lv = self(x)
        return (0.5 * (r - x).pow(2).sum(1) + divergence(mu, lv)).mean()

    batch = Gaussian.batch


class Bfloat16Encoder(Gaussian):
    """The encoder computes in bfloat16, the rest in float32."""

    def __init__(self):
        super().__init__()
        self.enc.to(torch.bfloat16)

    def stats(self, x):
        h = self.enc(x.to(torch.bfloat16)).float()
        return self.mu(h), self.lv(h)


class DoubleDivergence(Gaussian):
    """The KL is computed in float64 and cast back."""

    def loss(self, x):
        r, mu, lv = self(x)
        kl = divergence(mu.double(), lv.double()).to(r.dtype)
        return (0.5 * (r - x).pow(2).sum(1) + kl).mean()


class LazyBuffer(Gaussian):
    """A positional buffer is made at the first call, on the input's device."""

    def forward(self, x):
        if not hasattr(self, "pos") or self.pos.shape[-1] != x.shape[-1]:
            pos = torch.sin(torch.arange(x.shape[-1], device=x.device, dtype=x.dtype))
            self.register_buffer("pos", pos, persistent=False)
        return super().forward(x + 0.1 * self.pos.to(x))


class LazyLayers(Gaussian):
    """The first layers have no shapes until the first call."""

    def __init__(self):
        super().__init__()
        self.enc = nn.Sequential(nn.LazyLinear(12), nn.LazyBatchNorm1d(), nn.Tanh())


class HeavyDropout(Gaussian):
    """Three kinds of dropout, half of the input among them."""

    def __init__(self):
        super().__init__()
        self.enc = nn.Sequential(nn.Dropout(0.5), nn.Linear(14, 12), nn.AlphaDropout(0.3), nn.ELU())
        self.dec = nn.Sequential(nn.Linear(4, 12), nn.Dropout1d(0.2), nn.ReLU(), nn.Linear(12, 14))


class SparseInput(Gaussian):
    """The encoder's first product is of a sparse matrix."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.randn(14, 12) / 4)
        self.enc = None

    def stats(self, x):
        h = torch.tanh(torch.sparse.mm(x.to_sparse(), self.w))
        return self.mu(h), self.lv(h)

    @staticmethod
    def batch():
        return ((uniform(8, 14) > 0.7).float(),)


class InPlaceEverywhere(Gaussian):
    """Noise, spread and loss are all computed in place."""

    def draw(self, mu, lv):
        z = torch.empty_like(mu).normal_()
        z.mul_(lv.mul(0.5).exp_()).add_(mu)
        return z

    def loss(self, x):
        r, mu, lv = self(x)
        out = x.new_zeros(len(x))
        out += (r - x).square_().sum(1).div_(2)
        out.add_(divergence(mu, lv))
        return out.mean()


class DecodedByVmap(Gaussian):
    """The decoder runs row by row under `vmap`."""

    def forward(self, x):
        mu, lv = self.stats(x)
        z = self.draw(mu, lv)
        return torch.func.vmap(self.dec)(z), mu, lv


class FunctionalCall(Gaussian):
    """The decoder runs by `functional_call` on its own weights."""

    def forward(self, x):
        mu, lv = self.stats(x)
        z = self.draw(mu, lv)
        weights = dict(self.dec.named_parameters())
        return torch.func.functional_call(self.dec, weights, (z,)), mu, lv


class ScriptedDecoder(Gaussian):
    """The decoder is a TorchScript module, without Python lines."""

    def __init__(self):
        super().__init__()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.dec = torch.jit.script(self.dec)


class Swish(torch.autograd.Function):
    @staticmethod
    def forward(ctx, v):
        s = torch.sigmoid(v)
        ctx.save_for_backward(v, s)
        return v * s

    @staticmethod
    def backward(ctx, g):
        v, s = ctx.saved_tensors
        return g * (s + v * s * (1 - s))


class CustomFunction(Gaussian):
    """The activation is an `autograd.Function` with a backward pass of its own."""

    def stats(self, x):
        h = Swish.apply(self.enc[0](x))
        return self.mu(h), self.lv(h)


class CallOverride(Gaussian):
    """`__call__` reshapes the input and returns a dictionary."""

    def __call__(self, x):
        r, mu, lv = super().__call__(x.reshape(len(x), -1))
        return {"recon": r.view_as(x), "mu": mu, "lv": lv}

    def loss(self, x):
        o = self(x)
        err = 0.5 * (o["recon"] - x).pow(2).flatten(1).sum(1)
        return (err + divergence(o["mu"], o["lv"])).mean()

    @staticmethod
    def batch():
        return (uniform(8, 2, 7),)


class OwnHooks(Gaussian):
    """The user's hooks keep activations, change an input and scale a gradient."""

    def __init__(self):
        super().__init__()
        self.seen = {}
        self.enc.register_forward_hook(lambda m, i, o: self.seen.__setitem__("enc", o.detach()))
        self.dec[0].register_forward_pre_hook(lambda m, a: (a[0] * 1.0,))
        self.mu.weight.register_hook(lambda g: g * 0.5)


class CopiedLayers(Gaussian):
    """Decoder layers are deep copies of one prototype, so they start equal."""

    def __init__(self):
        super().__init__()
        proto = nn.Linear(12, 12)
        self.extra = nn.ModuleList(copy.deepcopy(proto) for _ in range(3))

    def forward(self, x):
        mu, lv = self.stats(x)
        h = self.dec[1](self.dec[0](self.draw(mu, lv)))
        for layer in self.extra:
            h = h + torch.tanh(layer(h))
        return self.dec[2](h), mu, lv


class ZeroBranches(Gaussian):
    """A branch starts at 0 and another behind a gain of 1e-6."""

    def __init__(self):
        super().__init__()
        self.branch = nn.Sequential(nn.Linear(12, 12), nn.SiLU(), nn.Linear(12, 12))
        nn.init.zeros_(self.branch[2].weight)
        nn.init.zeros_(self.branch[2].bias)
        self.gamma = nn.Parameter(1e-6 * torch.ones(12))
        self.block = nn.Linear(12, 12)

    def stats(self, x):
        h = self.enc(x)
        h = h + self.branch(h)
        h = h + self.gamma * torch.tanh(self.block(h))
        return self.mu(h), self.lv(h)


class TiedTransposed(Gaussian):
    """The decoder's last weight is the encoder's first, transposed."""

    def __init__(self):
        super().__init__()
        self.back = nn.Parameter(torch.zeros(14))
        self.dec = nn.Sequential(nn.Linear(4, 12), nn.Tanh())

    def forward(self, x):
        mu, lv = self.stats(x)
        return self.dec(self.draw(mu, lv)) @ self.enc[0].weight + self.back, mu, lv


class BatchNormEncoder(Gaussian):
    """Batch normalization mixes the rows in the encoder, twice."""

    def __init__(self):
        super().__init__()
        self.enc = nn.Sequential(
            nn.Linear(14, 12),
            nn.BatchNorm1d(12),
            nn.ReLU(),
            nn.Linear(12, 12),
            nn.BatchNorm1d(12),
            nn.ReLU(),
        )


class BuiltOnMeta(Gaussian):
    """A layer is made on the meta device, then materialized and initialized."""

    def __init__(self):
        super().__init__()
        with torch.device("meta"):
            part = nn.Linear(12, 14)
        self.dec[2] = part.to_empty(device="cpu")
        self.dec[2].reset_parameters()


class DropoutInEvaluation(Gaussian):
    """Dropout stays on in evaluation mode."""

    def forward(self, x):
        mu, lv = self.stats(F.dropout(x, 0.1, training=True))
        return self.dec(self.draw(mu, lv)), mu, lv


class TwoNames(Gaussian):
    """Parameters and modules are registered under two names."""

    def __init__(self):
        super().__init__()
        self.shared = nn.ParameterList([self.enc[0].weight, self.mu.weight])
        self.alias = self.dec

    def loss(self, x):
        r, mu, lv = self(x)
        decay = sum(p.square().sum() for p in self.shared)
        return (0.5 * (r - x).pow(2).sum(1) + divergence(mu, lv)).mean() + 1e-4 * decay


class CachedTable(Gaussian):
    """A table is computed at the first call, without gradient, and kept."""

    def __init__(self):
        super().__init__()
        self.table = None
        self.pe = nn.Linear(3, 14)

    def forward(self, x):
        if self.table is None:
            with torch.no_grad():
                rows = [torch.sin(torch.arange(3.0) * i) for i in range(14)]
                self.table = torch.stack(rows).to(x)
        return super().forward(x + self.pe.weight[:, 0] * self.table.mean(1) + self.pe.bias)


class DeviceProperty(Gaussian):
    """The noise is made on the device that a property reads from the parameters."""

    @property
    def device(self):
        return next(self.parameters()).device

    def draw(self, mu, lv):
        return mu + torch.randn(mu.shape, device=self.device).to(mu.dtype) * (lv / 2).exp()


class ScalarConstants(Gaussian):
    """Constants of no dimension stay on the CPU and meet moved tensors."""

    def __init__(self):
        super().__init__()
        self.two = torch.tensor(2.0)
        self.log2pi = torch.log(torch.tensor(2 * math.pi))

    def draw(self, mu, lv):
        return mu + torch.randn_like(mu) * (lv / self.two).exp()

    def loss(self, x):
        r, mu, lv = self(x)
        return (0.5 * ((r - x).pow(2) + self.log2pi).sum(1) + divergence(mu, lv)).mean()


class IndexOnCpu(Gaussian):
    """An index on the CPU selects columns."""

    def forward(self, x):
        order = torch.arange(13, -1, -1)
        mu, lv = self.stats(x[:, order])
        return self.dec(self.draw(mu, lv)), mu, lv


class MovedByApply(Gaussian):
    """A plain tensor is moved by the module itself in `_apply`."""

    def __init__(self):
        super().__init__()
        self.prior_mean = torch.zeros(4)

    def _apply(self, fn, *a, **k):
        super()._apply(fn, *a, **k)
        self.prior_mean = fn(self.prior_mean)
        return self

    def loss(self, x):
        r, mu, lv = self(x)
        return (0.5 * (r - x).pow(2).sum(1) + divergence(mu - self.prior_mean, lv)).mean()


class Hypernetwork(Gaussian):
    """The decoder's last weight is made by another network."""

    def __init__(self):
        super().__init__()
        self.dec = nn.Sequential(nn.Linear(4, 6), nn.Tanh())
        self.hyper = nn.Linear(3, 6 * 14)
        self.code = nn.Parameter(torch.randn(3))

    def forward(self, x):
        mu, lv = self.stats(x)
        w = self.hyper(self.code).view(14, 6)
        return F.linear(self.dec(self.draw(mu, lv)), w), mu, lv


class UnrolledCell(Gaussian):
    """One layer is applied four times in a row."""

    def __init__(self):
        super().__init__()
        self.cell = nn.Linear(12, 12)

    def stats(self, x):
        h = self.enc(x)
        for _ in range(4):
            h = h + torch.tanh(self.cell(h)) / 4
        return self.mu(h), self.lv(h)


class LayerDrop(Gaussian):
    """Blocks are skipped at random in training."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList(nn.Linear(12, 12) for _ in range(3))

    def stats(self, x):
        h = self.enc(x)
        for b in self.blocks:
            if not self.training or torch.rand(()) > 0.3:
                h = h + torch.tanh(b(h))
        return self.mu(h), self.lv(h)


class TopOneExperts(Gaussian):
    """Top-1 routing: an expert that no row chose gets no gradient in this batch."""

    def __init__(self):
        super().__init__()
        self.router = nn.Linear(12, 3)
        self.experts = nn.ModuleList(nn.Linear(12, 12) for _ in range(3))

    def stats(self, x):
        h = self.enc(x)
        p = self.router(h).softmax(-1)
        w, i = p.max(-1)
        out = torch.zeros_like(h)
        for k, e in enumerate(self.experts):
            rows = (i == k).nonzero().flatten()
            if len(rows):
                out = out.index_add(0, rows, e(h[rows]) * w[rows, None])
        h = h + torch.tanh(out)
        return self.mu(h), self.lv(h)


class NormalizedRows(Gaussian):
    """Each row is normalized by its own statistics, which are put back after."""

    def forward(self, x):
        m, s = x.mean(1, keepdim=True), x.std(1, keepdim=True) + 1e-3
        mu, lv = self.stats((x - m) / s)
        return self.dec(self.draw(mu, lv)) * s.detach() + m.detach(), mu, lv


class InfiniteMask(Gaussian):
    """Scores are masked by minus infinity before a softmax."""

    def __init__(self):
        super().__init__()
        self.attn = nn.Linear(14, 14)

    def stats(self, x):
        s = self.attn(x).masked_fill(x < 0.5, float("-inf"))
        s = torch.where((x < 0.5).all(1, keepdim=True), torch.zeros_like(s), s)
        return super().stats(x * torch.softmax(s, 1))


class WideClamp(Gaussian):
    """Mean and log-variance are clamped far beyond what they reach."""

    def stats(self, x):
        mu, lv = super().stats(x)
        return mu.clamp(-50, 50), lv.clamp(-30, 20)


class UnderAutocast(Gaussian):
    """Layers run in bfloat16 under autocast, statistics and loss in float32."""

    def forward(self, x):
        with torch.autocast(x.device.type, dtype=torch.bfloat16):
            stats = self.stats(x)
        mu, lv = (s.float() for s in stats)
        with torch.autocast(x.device.type, dtype=torch.bfloat16):
            r = self.dec(self.draw(mu, lv))
        return r.float(), mu, lv


class UnsignedPixels(Gaussian):
    """Pixels are uint8 and made float32 in forward."""

    def forward(self, x):
        return super().forward(x.float() / 255)

    def loss(self, x):
        r, mu, lv = self(x)
        return (0.5 * (r - x.float() / 255).pow(2).sum(1) + divergence(mu, lv)).mean()

    @staticmethod
    def batch():
        return (torch.randint(0, 256, (8, 14), generator=seeded(1)).to(torch.uint8),)
