"""Conditions that are replaced before the decoder reads them, for good or at times."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from traps.plain import Gaussian, divergence, uniform

import vaedoctor


class Labelled(Gaussian):
    """Encoder and decoder read a label, and a classifier learns it."""

    def __init__(self) -> None:
        super().__init__()
        self.enc = nn.Sequential(nn.Linear(17, 12), nn.Tanh())
        self.dec = nn.Sequential(nn.Linear(7, 12), nn.Tanh(), nn.Linear(12, 14))
        self.classes = nn.Linear(14, 3)

    def given(self, y: Tensor) -> Tensor:
        return y

    def decoded(self, z: Tensor, y: Tensor) -> Tensor:
        return self.dec(torch.cat([z, self.given(y)], 1))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        label = F.one_hot(y, 3).to(x)
        mu, lv = self.stats(torch.cat([x, label], 1))
        x_hat = self.decoded(self.draw(mu, lv), label)
        bound = (0.5 * (x_hat - x).pow(2).sum(1) + divergence(mu, lv)).mean()
        return bound + F.cross_entropy(self.classes(x), y)


class Blanked(Labelled):
    def given(self, y: Tensor) -> Tensor:
        return torch.zeros_like(y)


class AtTimes(Labelled):
    """For guidance half of the steps know no label."""

    def given(self, y: Tensor) -> Tensor:
        return torch.zeros_like(y) if torch.rand(()) < 0.5 else y


class Both(Labelled):
    """With and without the label."""

    def decoded(self, z: Tensor, y: Tensor) -> Tensor:
        plain = self.dec(torch.cat([z, torch.zeros_like(y)], 1))
        return 0.5 * (super().decoded(z, y) + plain)


class Begins(Labelled):
    """The decoder has a state of its own that begins as zeros, and knows no label at all."""

    def decoded(self, z: Tensor, y: Tensor) -> Tensor:
        return self.dec(F.pad(z, (0, 3))) + 0 * torch.zeros_like(y).sum()


class BlankedInParts(Labelled):
    """The label is joined to a known number before the sample is."""

    def decoded(self, z: Tensor, y: Tensor) -> Tensor:
        given = torch.cat([torch.ones_like(y[:, 1:]), torch.full((len(y), 1), 0.5)], 1)
        return self.dec(torch.cat([z, given], 1))


class BlankedByShape(Labelled):
    def given(self, y: Tensor) -> Tensor:
        return torch.zeros(len(y), 3)


class OnlyDecoded(Labelled):
    """The encoder reads `self.read(y)`, the decoder the label."""

    def read(self, y: Tensor) -> Tensor:
        return torch.zeros_like(y)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        label = F.one_hot(y, 3).to(x)
        mu, lv = self.stats(torch.cat([x, self.read(label)], 1))
        x_hat = self.decoded(self.draw(mu, lv), label)
        return (0.5 * (x_hat - x).pow(2).sum(1) + divergence(mu, lv)).mean()


class WithoutLabelAtTimes(OnlyDecoded):
    def read(self, y: Tensor) -> Tensor:
        return torch.zeros_like(y) if torch.rand(()) < 0.5 else y


class PaddedData(OnlyDecoded):
    """The encoder is to know no label: further columns hold zeros."""

    def read(self, y: Tensor) -> Tensor:
        return torch.zeros(len(y), 1).expand(-1, 3)


class Walks(Labelled):
    """Each of three steps begins with a word of zeros."""

    def decoded(self, z: Tensor, y: Tensor) -> Tensor:
        steps = [self.dec(torch.cat([z, torch.zeros(len(z), 3)], 1)) for _ in range(3)]
        return torch.stack(steps).mean(0)


@pytest.mark.parametrize(
    ("model", "found"),
    [
        (BlankedInParts, ["VAE404"]),
        (BlankedByShape, ["VAE404"]),
        (OnlyDecoded, ["VAE404"]),
        (WithoutLabelAtTimes, []),
        (PaddedData, []),
        (Walks, []),
    ],
)
def test_a_constant_of_any_make_in_either_half(model: type[Labelled], found: list[str]) -> None:
    batch = uniform(8, 14), torch.arange(8) % 3
    report = vaedoctor.check(model(), batch)
    assert [f.code for f in report.findings if f.code == "VAE404"] == found


@pytest.mark.parametrize(
    ("model", "found"),
    [(Labelled, []), (Blanked, ["VAE404"]), (AtTimes, []), (Both, []), (Begins, [])],
)
def test_a_label_is_missed_only_where_a_constant_stands_for_it(
    model: type[Labelled], found: list[str]
) -> None:
    batch = uniform(8, 14), torch.arange(8) % 3
    report = vaedoctor.check(model(), batch)
    assert [f.code for f in report.findings] == found
