"""The ways people write samplers: the latent is found in each, and it is what it claims to be."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from steps import examined
from torch import Tensor, nn
from torch.distributions import (
    Gumbel,
    Independent,
    Laplace,
    LowRankMultivariateNormal,
    MultivariateNormal,
    Normal,
    RelaxedOneHotCategorical,
)

from vaedoctor.examine.anatomy.anatomy import Anatomy
from vaedoctor.examine.anatomy.latents import Latent

Z = 3
X = torch.linspace(-1, 1, 4 * 6).reshape(4, 6)


class VAE(nn.Module):
    """Encoder, two heads, a sampler under test, decoder."""

    def __init__(self, sampler: Callable[..., Tensor] | None = None) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(6, 8), nn.Tanh())
        self.mu, self.logvar = nn.Linear(8, Z), nn.Linear(8, Z)
        self.decoder = nn.Sequential(nn.Linear(Z, 8), nn.Tanh(), nn.Linear(8, 6))
        self.sampler = sampler

    def heads(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = self.encoder(x)
        return self.mu(h), self.logvar(h)

    def forward(self, x: Tensor) -> Any:
        mu, logvar = self.heads(x)
        assert self.sampler is not None
        return self.decoder(self.sampler(mu, logvar)), mu, logvar


def std_of(logvar: Tensor) -> Tensor:
    return torch.exp(0.5 * logvar)


def in_place(mu: Tensor, logvar: Tensor) -> Tensor:
    std = logvar.mul(0.5).exp_()
    eps = torch.randn_like(std)
    return eps.mul_(std).add_(mu)


def data_new(mu: Tensor, logvar: Tensor) -> Tensor:
    std = logvar.mul(0.5).exp_()
    eps = std.data.new(std.size()).normal_()
    return eps.mul(std).add_(mu)


def augmented(mu: Tensor, logvar: Tensor) -> Tensor:
    z = mu.clone()
    z += std_of(logvar) * torch.randn_like(mu)
    return z


def tensor_generator(mu: Tensor, logvar: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return mu + std_of(logvar) * torch.randn(mu.shape, generator=generator)


GAUSSIAN: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mu + std * eps": lambda m, v: m + std_of(v) * torch.randn_like(v),
    "eps * std + mu": lambda m, v: torch.randn_like(v) * std_of(v) + m,
    "mu - std * eps": lambda m, v: m - std_of(v) * torch.randn_like(v),
    "std from exp(logvar / 2)": lambda m, v: m + torch.exp(v / 2) * torch.randn(m.shape),
    "std from sqrt": lambda m, v: m + v.exp().sqrt() * torch.randn(m.size(0), m.size(1)),
    "std from pow": lambda m, v: m + v.exp() ** 0.5 * torch.randn(*m.shape),
    "eps.mul(std).add(mu)": lambda m, v: torch.randn_like(m).mul(std_of(v)).add(m),
    "mu.add(std.mul(eps))": lambda m, v: m.add(std_of(v).mul(torch.randn_like(m))),
    "torch.add": lambda m, v: torch.add(m, torch.mul(std_of(v), torch.randn_like(v))),
    "in place": in_place,
    "std.data.new": data_new,
    "z +=": augmented,
    "generator": tensor_generator,
    "addcmul": lambda m, v: torch.addcmul(m, std_of(v), torch.randn_like(v)),
    "addcmul, noise first": lambda m, v: torch.addcmul(m, torch.randn_like(v), std_of(v)),
    "empty_like.normal_": lambda m, v: m + std_of(v) * torch.empty_like(v).normal_(),
    "FloatTensor.normal_": lambda m, v: m + std_of(v) * torch.FloatTensor(v.size()).normal_(),
    "zeros.normal_": lambda m, v: m + std_of(v) * torch.zeros(v.shape).normal_(0, 1),
    "torch.normal(0, 1)": lambda m, v: m + std_of(v) * torch.normal(0.0, 1.0, size=m.shape),
    "torch.normal(zeros, ones)": lambda m, v: (
        m + std_of(v) * torch.normal(torch.zeros_like(m), torch.ones_like(m))
    ),
    "eps of a distribution": lambda m, v: m + std_of(v) * Normal(0.0, 1.0).sample(m.shape),
    "rsample": lambda m, v: Normal(m, std_of(v)).rsample(),
    "rsample independent": lambda m, v: Independent(Normal(m, std_of(v)), 1).rsample(),
    "torch.randn to device": lambda m, v: m + std_of(v) * torch.randn(m.shape).to(m.device),
    "type_as": lambda m, v: m + std_of(v) * torch.randn(m.shape).type_as(m),
    "requires_grad_ eps": lambda m, v: m + std_of(v) * torch.randn_like(m).requires_grad_(False),
    "numpy": lambda m, v: m + std_of(v) * torch.from_numpy(np.random.randn(*m.shape)).to(m.dtype),
    "torch.tensor of numpy": lambda m, v: (
        m + std_of(v) * torch.tensor(np.random.randn(*m.shape), dtype=m.dtype)
    ),
}


def only(anatomy: Anatomy) -> Latent:
    (latent,) = anatomy.latents
    return latent


@pytest.mark.parametrize("name", GAUSSIAN)
def test_a_gaussian_sampler_is_found_with_its_heads(name: str) -> None:
    model = VAE(GAUSSIAN[name])
    mu, logvar = model.heads(X)
    with examined(model, X) as examination:
        anatomy = examination.anatomy
        latent = only(anatomy)
        assert (anatomy.family, anatomy.confidence) == ("gaussian", "high")
        assert latent.loc_head is not None
        assert latent.scale_head is not None
        assert (latent.loc_head.path, latent.scale_head.path) == ("mu", "logvar")
        assert torch.equal(latent.loc_head.value.tensor, mu)
        assert torch.equal(latent.scale_head.value.tensor, logvar)
        assert latent.loc is not None
        assert latent.scale is not None
        if name != "z +=":  # there the sample has been written over the location
            assert torch.allclose(latent.loc.tensor, mu)
        assert torch.allclose(latent.scale.tensor, std_of(logvar))
        drawn = latent.draw.op.noise if latent.draw.op is not None else None
        eps = (drawn if drawn is not None else latent.draw.value.tensor).to(mu.dtype)
        sign = -1 if " - " in name else 1
        assert torch.allclose(latent.z.tensor, mu + sign * std_of(logvar) * eps, atol=1e-6)
        assert latent.reaches
        assert torch.equal(model.decoder(latent.z.tensor), anatomy.x_hat.tensor)  # type: ignore[union-attr]


@pytest.mark.parametrize("draw", [torch.normal, lambda m, s: Normal(m, s).sample()])
def test_a_direct_draw_is_its_own_sample(draw: Callable[[Tensor, Tensor], Tensor]) -> None:
    model = VAE(lambda m, v: draw(m, std_of(v)))
    with examined(model, X) as examination:
        latent = only(examination.anatomy)
        mu, logvar = model.heads(X)
        assert latent.family == "gaussian"
        assert latent.loc_head is not None
        assert latent.scale_head is not None
        assert (latent.loc_head.path, latent.scale_head.path) == ("mu", "logvar")
        torch.manual_seed(0)
        assert torch.equal(latent.z.tensor, torch.normal(mu, std_of(logvar)))


def _samples(k: int) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda m, v: (m + std_of(v) * torch.randn(k, *m.shape)).mean(0)


SCALED: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "temperature": lambda m, v: m + 0.7 * std_of(v) * torch.randn_like(m),
    "temperature on the noise": lambda m, v: m + std_of(v) * (0.7 * torch.randn_like(m)),
    "temperature on the product": lambda m, v: m + std_of(v) * torch.randn_like(m) * 0.7,
    "softplus": lambda m, v: m + (F.softplus(v) + 1e-4) * torch.randn_like(m),
    "clamped": lambda m, v: m + std_of(v.clamp(-5, 5)) * torch.randn_like(m),
    "tanh": lambda m, v: m + std_of(torch.tanh(v)) * torch.randn_like(m),
    "five samples": _samples(5),
    "unsqueezed": lambda m, v: (
        m.unsqueeze(1) + std_of(v).unsqueeze(1) * torch.randn(4, 2, Z)
    ).mean(1),
    "flattened": lambda m, v: (m.flatten() + std_of(v).flatten() * torch.randn(m.numel())).view(
        4, Z
    ),
    "cholesky by hand": lambda m, v: (
        m + torch.bmm(torch.diag_embed(std_of(v)), torch.randn(4, Z, 1)).squeeze(-1)
    ),
    "einsum": lambda m, v: (
        m + torch.einsum("bij,bj->bi", torch.diag_embed(std_of(v)), torch.randn(4, Z))
    ),
    "MultivariateNormal": lambda m, v: MultivariateNormal(
        m, scale_tril=torch.diag_embed(std_of(v))
    ).rsample(),
    "covariance": lambda m, v: MultivariateNormal(m, torch.diag_embed(v.exp())).rsample(),
}


@pytest.mark.parametrize("name", SCALED)
def test_a_gaussian_is_found_whatever_is_done_to_its_scale(name: str) -> None:
    """Location and scale agree with an intervention: the noise set to 0, then to its negative."""
    model = VAE(SCALED[name])
    with examined(model, X) as examination:
        anatomy = examination.anatomy
        latent = only(anatomy)
        assert anatomy.family == "gaussian"
        assert latent.loc_head is not None
        assert latent.scale_head is not None
        assert (latent.loc_head.path, latent.scale_head.path) == ("mu", "logvar")
        assert latent.reaches
        assert latent.loc is not None
        assert latent.draw.op is not None
        at, z = latent.draw.op.index, latent.z
        still, against = (
            _again(examination, {at: torch.zeros_like}, z.index),
            _again(examination, {at: torch.neg}, z.index),
        )
        assert torch.allclose(still, latent.loc.tensor.expand(still.shape), atol=1e-6)
        assert torch.allclose(z.tensor + against, 2 * still, atol=1e-5)
        assert not torch.allclose(z.tensor, still)


def _again(examination: Any, edits: Any, index: int) -> Tensor:
    from vaedoctor.examine.runs.step import run_recorded

    recording = run_recorded(examination.subject, seed=0, edits=edits)
    assert recording.error is None
    content: Tensor = recording.values[index].tensor.detach()
    return content


def gumbel_by_hand(logits: Tensor, _: Tensor) -> Tensor:
    u = torch.rand_like(logits)
    return torch.softmax((logits - torch.log(-torch.log(u + 1e-9) + 1e-9)) / 0.5, dim=-1)


def laplace_by_hand(mu: Tensor, logb: Tensor) -> Tensor:
    u = torch.rand_like(mu) - 0.5
    return mu - logb.exp() * u.sign() * torch.log1p(-2 * u.abs())


def logistic_by_hand(mu: Tensor, logs: Tensor) -> Tensor:
    u = torch.rand_like(mu)
    return mu + logs.exp() * (torch.log(u) - torch.log(1 - u))


FAMILIES: list[tuple[str, Callable[[Tensor, Tensor], Tensor]]] = [
    ("laplace", lambda m, v: Laplace(m, v.exp()).rsample()),
    ("laplace", laplace_by_hand),
    ("logistic", logistic_by_hand),
    ("uniform", lambda m, v: m + v.exp() * (torch.rand_like(m) - 0.5)),
    ("gumbel", lambda m, _: F.gumbel_softmax(m)),
    ("gumbel", lambda m, _: F.gumbel_softmax(m, hard=True)),
    ("gumbel", gumbel_by_hand),
    ("gumbel", lambda m, _: torch.softmax(m + Gumbel(0.0, 1.0).sample(m.shape), dim=-1)),
    ("gumbel", lambda m, _: RelaxedOneHotCategorical(torch.tensor(0.5), logits=m).rsample()),
    ("gaussian", lambda m, v: m + v.exp() * torch.erfinv(torch.rand_like(m) * 1.98 - 0.99)),
    ("bernoulli", lambda m, _: torch.bernoulli(torch.sigmoid(m))),
    ("bernoulli", lambda m, _: (p := torch.sigmoid(m)) + (torch.bernoulli(p) - p).detach()),
    ("dirichlet", lambda m, _: torch.distributions.Dirichlet(F.softplus(m) + 0.1).rsample()),
    ("gaussian", lambda m, v: LowRankMultivariateNormal(m, v[:, :, None], v.exp()).rsample()),
]


@pytest.mark.parametrize(("family", "sampler"), FAMILIES)
def test_other_families_are_told_apart(family: str, sampler: Callable[..., Tensor]) -> None:
    with examined(VAE(sampler), X) as examination:
        assert family in examination.anatomy.family.split(" + ")
        assert all(latent.reaches for latent in examination.anatomy.latents)
        first = examination.anatomy.latents[0]
        assert first.loc_head is not None
        assert first.loc_head.path in ("mu", "logvar")


def _chunk(h: Tensor) -> tuple[Tensor, ...]:
    return h.chunk(2, dim=1)


def _view(h: Tensor) -> tuple[Tensor, ...]:
    return h.view(-1, 2, Z).unbind(1)


SPLITS: list[Callable[[Tensor], tuple[Tensor, ...]]] = [
    _chunk,
    _view,
    lambda h: h.split(Z, dim=1),
    lambda h: torch.split(h, [Z, Z], dim=-1),
    lambda h: (h[:, :Z], h[:, Z:]),
    lambda h: (h[..., ::2], h[..., 1::2]),
    lambda h: (h.narrow(1, 0, Z), h.narrow(1, Z, Z)),
    lambda h: torch.tensor_split(h, 2, dim=1),
]


@pytest.mark.parametrize("split", SPLITS)
def test_of_one_layer_the_heads_are_the_parts(
    split: Callable[[Tensor], tuple[Tensor, ...]],
) -> None:
    class Joint(VAE):
        def __init__(self) -> None:
            super().__init__()
            self.joint = nn.Linear(8, 2 * Z)

        def forward(self, x: Tensor) -> Any:
            mu, logvar = split(self.joint(self.encoder(x)))
            return self.decoder(mu + std_of(logvar) * torch.randn_like(mu)), mu, logvar

    model = Joint()
    with examined(model, X) as examination:
        latent = only(examination.anatomy)
        assert latent.loc_head is not None
        assert latent.scale_head is not None
        assert latent.loc_head.path == latent.scale_head.path == "joint"
        mu, logvar = split(model.joint(model.encoder(X)))
        assert torch.equal(latent.loc_head.value.tensor.reshape(mu.shape), mu)
        assert torch.equal(latent.scale_head.value.tensor.reshape(mu.shape), logvar)


class Noisy(VAE):
    """An autoencoder with noise in it that is no latent."""

    def __init__(self, noise: Callable[[Tensor], Tensor], where: str) -> None:
        super().__init__()
        self.noise, self.where = noise, where

    def forward(self, x: Tensor) -> Tensor:
        x = self.noise(x) if self.where == "input" else x
        h = self.encoder(x)
        h = self.noise(h) if self.where == "hidden" else h
        x_hat: Tensor = self.decoder(self.mu(h))
        return x_hat


NO_LATENT: list[tuple[str, str, Callable[[Tensor], Tensor]]] = [
    ("dropout", "hidden", lambda h: F.dropout(h, 0.5)),
    ("dropout of the input", "input", lambda x: F.dropout(x, 0.5)),
    ("dropout module", "hidden", nn.Dropout(0.5)),
    ("noise on the input", "input", lambda x: x + 0.1 * torch.randn_like(x)),
    ("dequantisation", "input", lambda x: (x * 255 + torch.rand_like(x)) / 256),
    ("mask by hand", "hidden", lambda h: h * (torch.rand_like(h) > 0.3)),
    ("mask as numbers", "hidden", lambda h: h * (torch.rand_like(h) < 0.7).float() / 0.7),
    ("where", "hidden", lambda h: torch.where(torch.rand_like(h) > 0.5, h, 0.0)),
    ("masked_fill", "hidden", lambda h: h.masked_fill(torch.rand_like(h) > 0.5, 0.0)),
    ("mask of the input", "input", lambda x: x * torch.bernoulli(torch.full_like(x, 0.8))),
    ("bernoulli mask", "hidden", lambda h: h * torch.bernoulli(torch.full_like(h, 0.8))),
    ("permutation", "hidden", lambda h: h[torch.randperm(h.size(0))]),
    ("permuted and back", "input", lambda x: x[torch.randperm(x.size(0))]),
    ("rrelu", "hidden", lambda h: F.rrelu(h, training=True)),
    ("noise thrown away", "hidden", lambda h: (torch.randn_like(h), h)[1]),
]


@pytest.mark.parametrize(("name", "where", "noise"), NO_LATENT, ids=[n[0] for n in NO_LATENT])
def test_noise_that_is_no_latent(name: str, where: str, noise: Callable[[Tensor], Tensor]) -> None:
    with examined(Noisy(noise, where), X) as examination:
        assert not examination.anatomy.latents
        assert examination.anatomy.family == "none"


def mmd(z: Tensor) -> Tensor:
    prior = torch.randn_like(z)
    return torch.exp(-torch.cdist(z, prior)).mean() + (z.mean(0) - prior.mean(0)).pow(2).sum()


def moments(z: Tensor) -> Tensor:
    return (z - torch.randn(z.shape)).pow(2).mean()


def permuted(z: Tensor) -> Tensor:
    return z[:, torch.randperm(Z)].sum() * 0


@pytest.mark.parametrize("extra", [mmd, moments, permuted])
@pytest.mark.parametrize("sampled", [True, False])
def test_noise_in_the_loss_is_no_latent(extra: Callable[[Tensor], Tensor], sampled: bool) -> None:
    class Returned(VAE):
        def forward(self, x: Tensor) -> Any:
            mu, logvar = self.heads(x)
            z = mu + std_of(logvar) * torch.randn_like(mu) if sampled else mu
            return self.decoder(z), z

    def loss(out: Any, x: Tensor) -> Tensor:
        return F.mse_loss(out[0], x) + extra(out[1])

    with examined(Returned(), X, loss=loss) as examination:
        assert len(examination.anatomy.latents) == sampled


def test_a_long_chain_of_merges_is_walked_without_deep_recursion() -> None:
    def mixed(mu: Tensor, logvar: Tensor) -> Tensor:
        for _ in range(600):
            mu = 0.5 * mu + 0.5 * torch.sin(mu)
        return mu + std_of(logvar) * torch.randn_like(mu)

    with examined(VAE(mixed), X) as examination:
        assert only(examination.anatomy).reaches


def test_each_level_of_a_hierarchy_is_a_latent() -> None:
    class Ladder(VAE):
        def __init__(self) -> None:
            super().__init__()
            self.mu2, self.logvar2 = nn.Linear(Z, Z), nn.Linear(Z, Z)

        def forward(self, x: Tensor) -> Any:
            mu, logvar = self.heads(x)
            z1 = mu + std_of(logvar) * torch.randn_like(mu)
            mu2, logvar2 = self.mu2(z1), self.logvar2(z1)
            z2 = mu2 + std_of(logvar2) * torch.randn_like(mu2)
            return self.decoder(z2)

    with examined(Ladder(), X) as examination:
        paths = [latent.loc_head.path for latent in examination.anatomy.latents if latent.loc_head]
        assert paths == ["mu", "mu2"]


def test_a_sample_a_row_is_a_latent_a_row() -> None:
    def rows(mu: Tensor, logvar: Tensor) -> Tensor:
        std = std_of(logvar)
        return torch.stack([m + s * torch.randn(Z) for m, s in zip(mu, std, strict=True)])

    with examined(VAE(rows), X) as examination:
        assert len(examination.anatomy.latents) == len(X)
        assert examination.anatomy.family == "gaussian"


class Named(NamedTuple):
    """Names without a meaning, on purpose."""

    a: Any
    b: Any
    c: Any
    d: Any


@dataclass
class Record:
    """The same as a dataclass."""

    a: Any
    b: Any
    c: Any
    d: Any


WRAPS: list[Callable[..., Any]] = [
    lambda *t: t,
    lambda *t: list(t),
    lambda *t: dict(zip("abcd", t, strict=True)),
    lambda *t: (t[:2], {"rest": t[2:]}),
    Named,
    Record,
]


@pytest.mark.parametrize("wrap", WRAPS)
@pytest.mark.parametrize("order", list(itertools.permutations(range(4)))[::5])
def test_the_reconstruction_is_found_among_the_outputs(
    wrap: Callable[..., Any], order: tuple[int, ...]
) -> None:
    class Many(VAE):
        def forward(self, x: Tensor) -> Any:
            mu, logvar = self.heads(x)
            z = mu + std_of(logvar) * torch.randn_like(mu)
            parts = (self.decoder(z), x, mu, z)
            return wrap(*(parts[i] for i in order))

    with examined(Many(), X) as examination:
        anatomy = examination.anatomy
        assert anatomy.x is not None
        assert anatomy.x_hat is not None
        assert anatomy.x.tensor is X
        decoder = [c for c in examination.recording.calls if c.path == "decoder"]
        assert anatomy.x_hat is decoder[0].outputs[0]
        assert "abcd"[order.index(0)] in anatomy.x_hat_name or "[" in anatomy.x_hat_name


def test_what_the_loss_compares_with_the_input_is_the_reconstruction() -> None:
    class Two(VAE):
        def forward(self, x: Tensor) -> Any:
            mu, logvar = self.heads(x)
            z = mu + std_of(logvar) * torch.randn_like(mu)
            return self.decoder(z).sigmoid(), self.decoder(z * 2).tanh(), mu, logvar

    def loss(out: Any, x: Tensor) -> Tensor:
        return F.mse_loss(out[1], x) + 0 * out[0].sum()

    with examined(Two(), X, loss=loss) as examination:
        assert examination.anatomy.x_hat_name == "[1]"


def test_of_two_reconstructions_the_one_that_trains_is_it() -> None:
    class Watched(VAE):
        def forward(self, x: Tensor) -> Any:
            mu, logvar = self.heads(x)
            z = mu + std_of(logvar) * torch.randn_like(mu)
            with torch.no_grad():
                shown = self.decoder(mu + std_of(logvar) * torch.randn_like(mu))
            return shown, self.decoder(z), mu, logvar

    with examined(Watched(), X) as examination:
        assert examination.anatomy.x_hat_name == "[1]"


def test_the_input_returned_is_no_reconstruction() -> None:
    class Echo(VAE):
        def forward(self, x: Tensor) -> Any:
            return x, self.mu(self.encoder(x))

    with examined(Echo(), X) as examination:
        assert examination.anatomy.x_hat is None


def test_the_data_is_told_from_its_condition() -> None:
    class Conditional(VAE):
        def forward(self, label: Tensor, x: Tensor) -> Any:
            mu, logvar = self.heads(x)
            z = mu + std_of(logvar) * torch.randn_like(mu) + label
            return self.decoder(z), mu, logvar

    label = torch.ones(4, 1)
    with examined(Conditional(), label, X, conditions=frozenset({0})) as examination:
        assert examination.anatomy.x is not None
        assert examination.anatomy.x.tensor is X


class Spoken(VAE):
    """Words with their lengths and what counts of them, the sound beside: a cut of it comes out."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.seconds, self.each = nn.Embedding(7, Z), nn.Linear(Z, 1), nn.Linear(Z, 5)
        self.flow, self.wave = nn.Linear(Z, Z), nn.Linear(Z, 2)

    def forward(self, words: Tensor, lengths: Tensor, counts: Tensor, x: Tensor) -> Any:
        mu, logvar = self.heads(x)
        z = mu + std_of(logvar) * torch.randn_like(mu)
        h = self.words(words).mean(1)
        each = self.each(h) * counts
        return (
            self.seconds(h + z).squeeze(1) / lengths,
            each,
            self.flow(z),
            self.wave(z),
            mu,
            logvar,
        )


def test_a_reconstruction_is_like_no_mask_length_or_token() -> None:
    words, lengths = torch.randint(0, 7, (4, 5)), torch.tensor([5, 4, 3, 2])
    counts = torch.arange(5) < lengths[:, None]
    with examined(Spoken(), words, lengths, counts, X) as examination:
        anatomy = examination.anatomy
        (wave,) = (c for c in examination.recording.calls if c.path == "wave")
        assert anatomy.x is not None
        assert anatomy.x.tensor is X
        assert anatomy.x_hat is wave.outputs[0]


def test_heads_that_are_never_sampled() -> None:
    class Mean(VAE):
        def forward(self, x: Tensor) -> Any:
            mu, logvar = self.heads(x)
            return self.decoder(mu), mu, logvar

    with examined(Mean(), X) as examination:
        unsampled = examination.anatomy.unsampled
        assert unsampled is not None
        assert (unsampled.loc_head.path, unsampled.scale_head.path) == ("mu", "logvar")
        assert examination.anatomy.family == "gaussian (never sampled)"


def test_a_codebook_is_a_quantizer() -> None:
    class VQ(VAE):
        def __init__(self) -> None:
            super().__init__()
            self.codes = nn.Embedding(5, Z)

        def forward(self, x: Tensor) -> Any:
            z = self.mu(self.encoder(x))
            index = torch.cdist(z, self.codes.weight).argmin(dim=1)
            q = self.codes(index)
            return self.decoder(z + (q - z).detach()), q

    with examined(VQ(), X) as examination:
        assert examination.anatomy.family == "vq"
        assert examination.anatomy.quantizer is not None
        assert examination.anatomy.quantizer.name == "argmin"


class Graded(nn.Module):
    """Scored inside forward: counts, a class of the code, and a weight for each row's sum."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down, self.grade = nn.Linear(9, 6), nn.Linear(3, 9), nn.Linear(3, 4)

    def forward(self, counts: Tensor, grades: Tensor, share: Tensor) -> Tensor:
        mu, logvar = self.up(counts.log1p()).chunk(2, 1)
        z = mu + torch.randn_like(mu) * (logvar / 2).exp()
        rates = self.down(z).exp() * counts.sum(1, keepdim=True)
        nll = (rates - counts * (rates + 1e-6).log()).sum(1)
        kl = 0.5 * (mu**2 + logvar.exp() - 1 - logvar).sum(1)
        graded = F.cross_entropy(self.grade(z), grades, reduction="none")
        return (share * (nll + kl) + graded).mean()


def test_a_weight_of_each_row_is_compared_with_nothing() -> None:
    counts = torch.arange(54.0).view(6, 9) % 5
    with examined(Graded(), counts, torch.arange(6) % 4, torch.rand(6) + 0.5) as examination:
        anatomy = examination.anatomy
    assert anatomy.x_hat is not None
    assert anatomy.x is not None
    assert anatomy.x_hat.shape == anatomy.x.shape == (6, 9)
