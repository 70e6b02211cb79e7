"""Libraries that register functions of their own with `torch.distributions`."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Independent, Normal, kl_divergence

import vaedoctor

pytestmark = pytest.mark.wild


class Turned(nn.Module):
    """A VAE whose KL has its arguments the wrong way round."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.Linear(12, 8), nn.Linear(4, 12)

    def forward(self, x: Tensor) -> tuple[Tensor, Independent]:
        mu, spread = self.encoder(x).chunk(2, 1)
        q = Independent(Normal(mu, spread.exp()), 1)
        return self.decoder(q.rsample()), q


def loss(model: Turned, x: Tensor) -> Tensor:
    x_hat, q = model(x)
    prior = Independent(Normal(torch.zeros_like(q.mean), 1.0), 1)
    kl = kl_divergence(prior, q)
    return ((x_hat - x).square().sum(1) / 2 + kl).mean()


def test_a_kl_that_pyro_computes_is_found_in_the_users_line() -> None:
    kl = pytest.importorskip("pyro.distributions.kl", reason="needs the extra `wild`")
    report = vaedoctor.check(Turned(), torch.rand(8, 12), objective=loss)
    (finding,) = [f for f in report.findings if f.code == "VAE717"]
    assert finding.at is not None
    assert Path(finding.at.file) == Path(__file__) != Path(kl.__file__)
    line = Path(__file__).read_text().splitlines()[finding.at.line - 1]
    assert "kl_divergence(prior, q)" in line
