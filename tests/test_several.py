"""Models with several decoders, levels or samples a row, and bounds that are to be maximised."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence

import vaedoctor
from vaedoctor.checkup import examine_subject
from vaedoctor.subject.target import load


def found(model: nn.Module, *batch: Tensor) -> set[str]:
    """The codes of errors and warnings."""
    torch.manual_seed(0)
    report = vaedoctor.check(model, batch, objective=lambda m, *given: m.loss(*given))
    return {f.code for f in report.findings if f.severity.value != "note"}


class TwoViews(nn.Module):
    """Two views of one thing: both are encoded, each has a decoder."""

    def __init__(
        self, kl: Callable[[Tensor, Tensor], Tensor], *, decode_mean: bool = False
    ) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.kl, self.decode_mean = kl, decode_mean
        self.body, self.mu, self.h = nn.Linear(11, 16), nn.Linear(16, 3), nn.Linear(16, 3)
        self.one, self.two = nn.Linear(3, 7), nn.Linear(3, 4)

    def forward(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        body = torch.tanh(self.body(torch.cat([a, b], 1)))
        mu, h = self.mu(body), self.h(body)
        z = mu + torch.exp(0.5 * h) * torch.randn_like(mu)
        return self.one(z), self.two(mu if self.decode_mean else z), mu, h

    def loss(self, a: Tensor, b: Tensor) -> Tensor:
        one, two, mu, h = self(a, b)
        errors = (one - a).square().sum(1) + (two - b).square().sum(1)
        return (0.5 * errors + self.kl(mu, h)).mean()


def exact(mu: Tensor, h: Tensor) -> Tensor:
    return 0.5 * (mu.square() + h.exp() - h - 1).sum(1)


def without_square(mu: Tensor, h: Tensor) -> Tensor:
    return 0.5 * (mu.square() + (0.5 * h).exp() - h - 1).sum(1)


def views() -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    return torch.randn(6, 7), torch.randn(6, 4)


def test_the_kl_of_a_model_with_two_decoders_is_judged() -> None:
    assert found(TwoViews(exact), *views()) == set()
    assert found(TwoViews(without_square), *views()) == {"VAE701"}


def test_a_second_decoder_that_takes_the_mean_is_told() -> None:
    assert found(TwoViews(exact, decode_mean=True), *views()) == {"VAE401"}


class TwoLevels(nn.Module):
    """A hierarchy of which one level may forget to sample."""

    def __init__(self, forget: int = 0) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.forget = forget
        self.low, self.high = nn.Linear(9, 12), nn.Linear(12, 12)
        self.q2, self.p1, self.q1 = nn.Linear(12, 4), nn.Linear(12, 6), nn.Linear(24, 6)
        self.down, self.out = nn.Linear(2, 12), nn.Linear(15, 9)

    @staticmethod
    def normal(made: Tensor) -> Normal:
        loc, h = made.chunk(2, -1)
        return Normal(loc, h.exp())

    def loss(self, x: Tensor) -> Tensor:
        return self(x)[0]

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        low = torch.tanh(self.low(x))
        top = self.normal(self.q2(torch.tanh(self.high(low))))
        down = torch.tanh(self.down(top.mean if self.forget == 2 else top.rsample()))
        prior, bottom = self.normal(self.p1(down)), self.normal(self.q1(torch.cat([low, down], 1)))
        z = bottom.mean if self.forget == 1 else bottom.rsample()
        y = self.out(torch.cat([z, down], 1))
        kl = kl_divergence(top, Normal(0.0, 1.0)).sum(1) + kl_divergence(bottom, prior).sum(1)
        return (0.5 * (y - x).square().sum(1) + kl).mean(), y


@pytest.mark.parametrize("level", [1, 2])
def test_a_level_that_decodes_its_mean_is_a_missing_sample(level: int) -> None:
    x = views()[0].repeat(1, 2)[:, :9]
    assert found(TwoLevels(), x) == set()
    assert found(TwoLevels(level), x) == {"VAE301"}


class Looped(nn.Module):
    """The bound of K samples that a loop draws one by one."""

    def __init__(self, entropy: float = 1.0) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.entropy = entropy
        self.mu, self.h, self.out = nn.Linear(7, 3), nn.Linear(7, 3), nn.Linear(3, 7)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.mu(x), self.h(x)

    def loss(self, x: Tensor) -> Tensor:
        mu, h = self(x)
        weights = []
        for _ in range(4):
            noise = torch.randn_like(mu)
            z = mu + noise * h.exp()
            log_q = (-0.5 * noise.square() - self.entropy * h).sum(1)
            error = 0.5 * (self.out(z) - x).square().sum(1)
            weights.append(-0.5 * z.square().sum(1) - log_q - error)
        return (math.log(4) - torch.logsumexp(torch.stack(weights), 0)).mean()


def test_draws_of_one_posterior_in_a_loop_are_judged_together() -> None:
    assert found(Looped(), views()[0]) == set()
    assert found(Looped(0.5), views()[0]) == {"VAE701"}


BOUND = """
import torch
from torch import nn

class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.q, self.p = nn.Linear(8, 6), nn.Linear(3, 8)

    def forward(self, x):
        mu, h = self.q(x).chunk(2, 1)
        return self.p(mu + h.exp() * torch.randn_like(h)), mu, h

    def {name}(self, x):
        y, mu, h = self(x)
        kl = 0.5 * (mu ** 2 + (2 * h).exp() - 2 * h - 1).sum(1)
        return (-0.5 * (y - x).square().sum(1) {sign} kl).mean()
"""


def of_file(path: Path, name: str, sign: str) -> tuple[set[str], tuple[str, ...]]:
    path.write_text(BOUND.format(name=name, sign=sign))
    report = examine_subject(load(f"{path}:Model"))
    return {f.code for f in report.findings if f.severity.value != "note"}, report.notes


def test_a_method_elbo_that_nothing_calls_may_be_a_bound(tmp_path: Path) -> None:
    codes, notes = of_file(tmp_path / "bound.py", "elbo", "-")
    assert codes == set()
    assert any("its negative is minimised" in note for note in notes)
    assert of_file(tmp_path / "flipped.py", "elbo", "+")[0] == {"VAE703"}


def test_a_method_loss_is_minimised(tmp_path: Path) -> None:
    assert "VAE707" in of_file(tmp_path / "loss.py", "loss", "-")[0]
