"""A draw that is made once and kept, where forward returns the loss alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from traps.plain import Gaussian, divergence

import vaedoctor


def drawn(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


class Kept(Gaussian):
    """The negative ELBO of a sample whose noise is a buffer."""

    def __init__(self, constant: Tensor) -> None:
        super().__init__()
        self.register_buffer("constant", constant)

    def pull(self, mu: Tensor, lv: Tensor) -> Tensor:
        return divergence(mu, lv)

    def decoded(self, z: Tensor) -> Tensor:
        return self.dec(z)

    def forward(self, x: Tensor) -> Tensor:
        mu, lv = self.stats(x)
        z = mu + (0.5 * lv).exp() * self.constant
        squares = (self.decoded(z) - x).pow(2).sum(-1)
        return (0.5 * squares + self.pull(mu, lv)).mean()


class Penalised(Kept):
    """A deterministic code: no term is that of a density, and the heads are kept small."""

    def pull(self, mu: Tensor, lv: Tensor) -> Tensor:
        return 0.1 * (mu.pow(2) + lv.pow(2)).sum(1)


class Places(Kept):
    """Two heads move and stretch the places of a picture's row at which a pattern is read."""

    def __init__(self, constant: Tensor) -> None:
        super().__init__(constant)
        self.mu, self.lv = nn.Linear(12, 1), nn.Linear(12, 1)

    def decoded(self, z: Tensor) -> Tensor:
        return torch.exp(-z.pow(2)) * z.cos()


@pytest.mark.parametrize(
    ("model", "found"),
    [
        (Kept(drawn(1, 4)), ["VAE306"]),
        (Kept(drawn(3, 1, 4)), ["VAE306"]),
        (Penalised(drawn(1, 4)), []),
        (Places(torch.linspace(-1, 1, 14)), []),
        (Places(drawn(14)), []),
    ],
    ids=["a draw", "draws", "no density", "places", "uneven places"],
)
def test_noise_that_is_kept_is_told_beside_heads_that_a_density_reads(
    model: Kept, found: list[str]
) -> None:
    report = vaedoctor.check(model, *model.batch())
    assert [f.code for f in report.findings if f.severity.name == "ERROR"] == found
