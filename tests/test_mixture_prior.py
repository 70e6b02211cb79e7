"""A prior of several components is one density: a log K that is left out is told."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

import vaedoctor
from vaedoctor.finding import Severity

K, UNITS = 6, 4


class Mixed(nn.Module):
    """A learned mixture; subclasses write its log-density in other ways."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.heads, self.decode = nn.Linear(16, 2 * UNITS), nn.Linear(UNITS, 16)
        self.means = nn.Parameter(2 * torch.randn(K, UNITS))
        self.logvars = nn.Parameter(0.3 * torch.randn(K, UNITS))
        self.weights = nn.Parameter(torch.zeros(K))

    def log_p(self, z: Tensor) -> Tensor:
        return torch.logsumexp(self.parts(z), 1) - math.log(K)

    def parts(self, z: Tensor) -> Tensor:
        apart = (z[:, None] - self.means) ** 2 / self.logvars.exp()
        return -0.5 * (apart + self.logvars + math.log(2 * math.pi)).sum(-1)

    def loss(self, x: Tensor) -> Tensor:
        mu, logvar = self.heads(x).chunk(2, 1)
        q = Normal(mu, (logvar / 2).exp())
        z = q.rsample()
        recon = 0.5 * (self.decode(z) - x).square().sum(1)
        total: Tensor = (recon + q.log_prob(z).sum(1) - self.log_p(z)).mean()
        return total

    forward = loss


class NoCount(Mixed):
    def log_p(self, z: Tensor) -> Tensor:
        return self.parts(z).logsumexp(1)


class Weighed(Mixed):
    def log_p(self, z: Tensor) -> Tensor:
        return (self.parts(z) + self.weights.log_softmax(0)).logsumexp(1)


class Unweighed(Mixed):
    def log_p(self, z: Tensor) -> Tensor:
        return (self.parts(z) + self.weights).logsumexp(1)


class Family(Mixed):
    def log_p(self, z: Tensor) -> Tensor:
        parts = Independent(Normal(self.means, (self.logvars / 2).exp()), 1)
        made: Any = MixtureSameFamily(Categorical(logits=self.weights), parts).log_prob(z)
        return made


class MeanOfDensities(Mixed):
    def log_p(self, z: Tensor) -> Tensor:
        return self.parts(z).exp().mean(1).log()


class SumOfDensities(Mixed):
    def log_p(self, z: Tensor) -> Tensor:
        return self.parts(z).exp().sum(1).log()


@pytest.mark.parametrize("kind", [Mixed, Weighed, Family, MeanOfDensities])
def test_a_mixture_that_adds_up_to_one(kind: type[Mixed]) -> None:
    report = vaedoctor.check(kind(), torch.rand(8, 16), objective="loss", select=["VAE7"])
    assert [f for f in report.findings if f.severity is not Severity.NOTE] == []
    (offset,) = (o for o in report.outcomes if o.code == "VAE706")
    assert offset.verified[0].measured["log of their sum"] == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("kind", [NoCount, Unweighed, SumOfDensities])
def test_a_mixture_that_adds_up_to_its_number(kind: type[Mixed]) -> None:
    report = vaedoctor.check(kind(), torch.rand(8, 16), objective="loss", select=["VAE7"])
    (told,) = (f for f in report.findings if f.severity is not Severity.NOTE)
    assert told.code == "VAE706"
    assert told.measured["components"] == K
    # By hand: the integral of the density, as the mean of p/r over draws of a wide normal r.
    model, wide = kind(), Normal(torch.zeros(UNITS), 4.0)
    z = wide.sample((200_000,))
    with torch.no_grad():
        whole = (model.log_p(z) - wide.log_prob(z).sum(1)).exp().mean()
    assert told.measured["log of their sum"] == pytest.approx(float(whole.log()), abs=0.05)


class NoHalf(Mixed):
    def loss(self, x: Tensor) -> Tensor:
        mu, logvar = self.heads(x).chunk(2, 1)
        z = mu + (logvar / 2).exp() * torch.randn_like(mu)
        recon = 0.5 * (self.decode(z) - x).square().sum(1)
        log_q = -(0.5 * (math.log(2 * math.pi) + logvar) + (z - mu) ** 2 / logvar.exp()).sum(1)
        total: Tensor = (recon + log_q - self.log_p(z)).mean()
        return total


def test_a_half_that_is_missing_beside_the_squared_distance_is_no_other_scale() -> None:
    report = vaedoctor.check(NoHalf(), torch.rand(8, 16), objective="loss", select=["VAE3", "VAE7"])
    assert [f.code for f in report.findings if f.severity is Severity.ERROR] == ["VAE701"]


class Turned(Mixed):
    """The prior's density is added to log q, which is written of the noise in `by_noise`."""

    by_noise = False

    def loss(self, x: Tensor) -> Tensor:
        mu, logvar = self.heads(x).chunk(2, 1)
        eps = torch.randn_like(mu)
        z = mu + (logvar / 2).exp() * eps
        recon = 0.5 * (self.decode(z) - x).square().sum(1)
        apart = eps if self.by_noise else (z - mu) / (logvar / 2).exp()
        log_q = -0.5 * (logvar + apart.square() + math.log(2 * math.pi)).sum(1)
        total: Tensor = (recon + log_q + self.sign * self.log_p(z)).mean()
        return total

    sign = 1


class TurnedByNoise(Turned):
    by_noise = True


class Right(Turned):
    sign = -1


class RightByNoise(Right):
    by_noise = True


@pytest.mark.parametrize(
    ("kind", "told"), [(Turned, 1), (TurnedByNoise, 1), (Right, 0), (RightByNoise, 0)]
)
def test_a_mixture_whose_density_is_added(kind: type[Turned], told: int) -> None:
    report = vaedoctor.check(kind(), torch.rand(8, 16), objective="loss", select=["VAE701"])
    said = [f.message for f in report.findings]
    assert len(said) == told
    assert all("rises with the density" in message for message in said)


class PseudoInputs(Mixed):
    """The components are the posteriors of learned inputs, cut off or not."""

    def __init__(self, cut: str) -> None:
        super().__init__()
        self.cut, self.inputs = cut, nn.Parameter(torch.randn(K, 16))
        del self.means, self.logvars, self.weights

    def parts(self, z: Tensor) -> Tensor:
        inputs = self.inputs.detach() if self.cut == "detach" else self.inputs
        with torch.set_grad_enabled(self.cut != "no_grad"):
            means, logvars = self.heads(inputs.clamp(-3, 3)).chunk(2, 1)
        apart = (z[:, None] - means) ** 2 / logvars.exp()
        return -0.5 * (apart + logvars + math.log(2 * math.pi)).sum(-1)


@pytest.mark.parametrize("cut", ["", "detach", "no_grad"])
def test_pseudo_inputs_that_are_detached_never_learn(cut: str) -> None:
    x = torch.linspace(-1, 1, 128).reshape(8, 16)
    report = vaedoctor.check(PseudoInputs(cut), x, select=["VAE601"])
    assert [(f.code, f.severity) for f in report.findings] == [("VAE601", Severity.WARNING)] * bool(
        cut
    )
