"""Bugs of merged, raw or Laplace heads, and losses that call `forward` themselves."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Laplace, kl_divergence

import vaedoctor

X = torch.rand(8, 16, generator=torch.Generator().manual_seed(0))


def codes(model: Any) -> list[str]:
    """The codes of everything found."""
    return [f.code for f in vaedoctor.check(model, X, objective="loss").findings]


class Ladder(nn.Module):
    """Two levels; the posterior of the lower one is merged from both ways."""

    decodes_mean = False
    lower = True

    def __init__(self) -> None:
        super().__init__()
        self.up1, self.up2 = nn.Linear(16, 12), nn.Linear(12, 10)
        self.q1, self.q2, self.p1 = nn.Linear(12, 8), nn.Linear(10, 6), nn.Linear(3, 8)
        self.out = nn.Linear(4, 16)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h1 = F.elu(self.up1(x))
        m2, v2 = self.parts(self.q2(F.elu(self.up2(h1))))
        z2 = m2 + v2.sqrt() * torch.randn_like(m2)
        (m1, v1), (pm, pv) = self.parts(self.q1(h1)), self.parts(self.p1(z2))
        v = 1 / (1 / v1 + 1 / pv)
        m = v * (m1 / v1 + pm / pv)
        z1 = m + v.sqrt() * torch.randn_like(m)
        kl = 0.5 * (m2**2 + v2 - 1 - v2.log()).sum(1)
        if self.lower:
            kl = kl + 0.5 * ((v + (m - pm) ** 2) / pv - 1 - (v / pv).log()).sum(1)
        return self.out(m if self.decodes_mean else z1), kl

    @staticmethod
    def parts(h: Tensor) -> tuple[Tensor, Tensor]:
        m, s = h.chunk(2, 1)
        return m, F.softplus(s) + 1e-3

    def loss(self, x: Tensor) -> Tensor:
        x_hat, kl = self(x)
        return (0.5 * (x_hat - x).square().sum(1) + kl).mean()


class LadderOfMeans(Ladder):
    decodes_mean = True


class LadderOfOneTerm(Ladder):
    lower = False


def test_a_merged_posterior_that_is_drawn_and_not_decoded() -> None:
    assert codes(Ladder) == []
    assert codes(LadderOfMeans) == ["VAE307"]


def test_a_merged_posterior_without_a_kl() -> None:
    assert codes(LadderOfOneTerm) == ["VAE712"]


class Plain(nn.Module):
    """A loss that calls `self.forward`, and a sampler to be replaced."""

    def __init__(self) -> None:
        super().__init__()
        self.enc, self.mu, self.h = nn.Linear(16, 12), nn.Linear(12, 4), nn.Linear(12, 4)
        self.dec = nn.Linear(4, 16)
        self.mixing = self.mixer()

    def mixer(self) -> Any:
        return 1.0

    def std(self, h: Tensor) -> Tensor:
        return torch.exp(h)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        t = F.elu(self.enc(x * self.mixing))
        mu, std = self.mu(t), self.std(self.h(t))
        return self.dec(mu + std * torch.randn_like(mu)), mu, std

    def loss(self, x: Tensor) -> Tensor:
        x_hat, mu, std = self.forward(x)
        kl = (0.5 * (mu**2 + std**2 - 1) - std.abs().log()).sum(1)
        return (0.5 * (x_hat - x).square().sum(1) + kl).mean()


class Unsaved(Plain):
    def mixer(self) -> Any:
        return torch.rand(16).tolist()[0] + 0.5


class RawScale(Plain):
    def std(self, h: Tensor) -> Tensor:
        return h


class SampleFirst(Plain):
    """Cached noise, and the sample returned in front of its parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.noise = torch.randn(64, 4)

    def forward(self, x: Tensor) -> Any:
        t = F.elu(self.enc(x))
        mu, std = self.mu(t), self.std(self.h(t))
        z = mu + self.noise[: len(x)] * std
        return z, self.dec(z), mu, std

    def loss(self, x: Tensor) -> Tensor:
        _, x_hat, mu, std = self(x)
        kl = (0.5 * (mu**2 + std**2 - 1) - std.abs().log()).sum(1)
        return (0.5 * (x_hat - x).square().sum(1) + kl).mean()


def test_a_returned_sample_is_no_parameter_of_its_posterior() -> None:
    assert codes(SampleFirst) == ["VAE306"]


def test_a_reload_is_compared_where_the_loss_calls_forward_itself() -> None:
    assert codes(Plain) == []
    assert codes(Unsaved) == ["VAE108"]


def test_a_scale_of_one_does_not_tell_against_the_kl() -> None:
    assert codes(RawScale) == ["VAE311"]


class LaplaceVAE(nn.Module):
    """A Laplace posterior; in evaluation mode the mean is decoded."""

    decoded = "mean"

    def __init__(self) -> None:
        super().__init__()
        self.enc, self.loc, self.b = nn.Linear(16, 12), nn.Linear(12, 4), nn.Linear(12, 4)
        self.dec = nn.Sequential(nn.Linear(4, 12), nn.ELU(), nn.Linear(12, 16))

    def forward(self, x: Tensor) -> tuple[Tensor, Laplace]:
        t = F.elu(self.enc(x))
        q = Laplace(self.loc(t), self.b(t).exp())
        return self.dec(q.rsample() if self.training else getattr(q, self.decoded)), q

    def loss(self, x: Tensor) -> Tensor:
        x_hat, q = self(x)
        prior = Laplace(torch.zeros_like(q.loc), torch.ones_like(q.loc))
        return (0.5 * (x_hat - x).square().sum(1) + kl_divergence(q, prior).sum(1)).mean()


class ScaleDecoded(LaplaceVAE):
    decoded = "scale"


@pytest.mark.parametrize(("model", "expected"), [(LaplaceVAE, []), (ScaleDecoded, ["VAE309"])])
def test_laplace_latents_in_evaluation_mode(model: Any, expected: list[str]) -> None:
    assert codes(model) == expected


class Nought(Plain):
    """The sample is multiplied by 0 in both modes: no matter of evaluation mode."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        t = F.elu(self.enc(x))
        mu, std = self.mu(t), self.std(self.h(t))
        return self.dec((mu + std * torch.randn_like(mu)) * 0), mu, std


class Idle(Plain):
    """What is computed of the sample alone is lost with it."""

    def __init__(self) -> None:
        super().__init__()
        self.own = nn.Parameter(torch.zeros(1, 4))
        self.lift = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        t = F.elu(self.enc(x))
        mu, std = self.mu(t), self.std(self.h(t))
        _ = self.lift(mu + std * torch.randn_like(mu))
        return self.dec(self.own.expand(len(x), -1)), mu, std


def test_one_cause_is_told_once() -> None:
    assert "VAE309" not in codes(Nought)
    assert codes(Idle) == ["VAE402"]


class OfExperts(nn.Module):
    """A product of two posteriors: their scales decide how their locations are averaged."""

    def __init__(self, kept: float) -> None:
        super().__init__()
        self.kept = kept
        self.one, self.other = nn.Linear(6, 6), nn.Linear(6, 6)
        self.down = nn.Linear(5, 12)

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        pairs = [self.one(x[:, :6]).chunk(2, 1), self.other(x[:, 6:]).chunk(2, 1)]
        weights = torch.stack([torch.exp(-lv) for _, lv in pairs])
        mu = (torch.stack([m for m, _ in pairs]) * weights).sum(0) / weights.sum(0)
        std = weights.sum(0).rsqrt()
        z = mu + std * torch.randn_like(std) if self.training else mu + self.kept * std
        return self.down(torch.cat([y, z], 1)), mu, 2 * std.log()


@pytest.mark.parametrize(("kept", "told"), [(0.0, []), (1.0, ["VAE309"])])
def test_a_location_that_the_scales_weigh_is_compared_beside_a_condition(
    kept: float, told: list[str]
) -> None:
    torch.manual_seed(0)
    batch = (torch.rand(8, 12), torch.eye(2)[torch.arange(8) % 2])
    found = vaedoctor.check(OfExperts(kept), batch, select=["VAE309"])
    assert [f.code for f in found.findings] == told
