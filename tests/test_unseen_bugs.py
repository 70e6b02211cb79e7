"""Bugs of merged experts, of steps and of scales in models unlike the fixtures."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from test_unlike_styles import line_of, worst
from torch import Tensor, nn

import vaedoctor
from vaedoctor import Report


def uniform(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


def divergence(mu: Tensor, logvar: Tensor) -> Tensor:
    return 0.5 * (mu**2 + logvar.exp() - 1 - logvar).flatten(1).sum(1)


def checked(model: nn.Module, *batch: Tensor, **options: Any) -> Report:
    torch.manual_seed(0)
    given = batch if len(batch) > 1 else batch[0]
    return vaedoctor.check(model, given, objective="loss", **options)


class Expert(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(10, 12)
        self.mu, self.precision = nn.Linear(12, 4), nn.Linear(12, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = torch.tanh(self.body(x))
        return self.mu(h), self.precision(h)


class OneHead(Expert):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = torch.tanh(self.body(x))
        return self.precision(h), self.precision(h)


class Product(nn.Module):
    """A product of two experts and the prior; each expert gives its natural parameters."""

    def __init__(self, first: nn.Module, second: nn.Module) -> None:
        super().__init__()
        self.first, self.second = first, second
        self.dec = nn.Sequential(nn.Linear(4, 12), nn.Tanh(), nn.Linear(12, 20))

    def merged(self, x: Tensor) -> tuple[Tensor, Tensor]:
        parts = [self.first(x[:, :10]), self.second(x[:, 10:])]
        precision = 1 + torch.stack([p.exp() for _, p in parts]).sum(0)
        return torch.stack([m * p.exp() for m, p in parts]).sum(0) / precision, -precision.log()

    def forward(self, x: Tensor) -> Any:
        mu, logvar = self.merged(x)
        return self.dec(mu + (logvar / 2).exp() * torch.randn_like(mu)), mu, logvar

    def loss(self, x: Tensor) -> Tensor:
        y, mu, logvar = self(x)
        return (0.5 * (y - x).pow(2).sum(1) + divergence(mu, logvar)).mean()


class MergedTwice(Product):
    """Every expert runs once for the location and once for the scale."""

    def forward(self, x: Tensor) -> Any:
        mu, logvar = self.merged(x)[0], self.merged(x)[1]
        return self.dec(mu + (logvar / 2).exp() * torch.randn_like(mu)), mu, logvar


def test_an_expert_that_gives_one_head_twice_is_told_in_a_product() -> None:
    line = line_of("return self.precision(h), self", OneHead)
    for experts in ((OneHead(), OneHead()), (Expert(), OneHead())):
        assert worst(checked(Product(*experts), uniform(8, 20))) == [("VAE106", line)]
    assert not worst(checked(Product(Expert(), Expert()), uniform(8, 20)))
    assert not worst(checked(MergedTwice(Expert(), Expert()), uniform(8, 20)))


class Series(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.enc = nn.GRU(5, 12, batch_first=True)
        self.mu, self.lv = nn.Linear(12, 3), nn.Linear(12, 3)
        self.dec, self.out = nn.GRU(3, 12, batch_first=True), nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Any:
        h = self.enc(x)[1][0]
        mu, lv = self.mu(h), self.lv(h)
        z = mu + torch.randn_like(mu) * (0.5 * lv).exp()
        return self.out(self.dec(z[:, None].expand(-1, x.shape[1], -1))[0]), mu, lv

    def pairs(self, y: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        return y[:, :-1], x[:, 1:]

    def loss(self, x: Tensor) -> Tensor:
        y, mu, lv = self(x)
        made, given = self.pairs(y, x)
        return ((made - given).pow(2).sum((1, 2)) + divergence(mu, lv)).mean()


class LastLeftOut(Series):
    def pairs(self, y: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        return y[:, :-2], x[:, :-2]


@pytest.mark.parametrize(("model", "left"), [(Series, None), (LastLeftOut, [7, 8])])
def test_steps_cut_off_from_both_sides_are_told_and_a_shift_is_not(model: Any, left: Any) -> None:
    found = checked(model(), uniform(8, 9, 5), select=["VAE608"]).findings
    assert [f.measured["without gradient"] for f in found] == ([left] if left else [])
