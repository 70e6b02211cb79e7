"""A location that is never negative, where what pulls the posterior has no closed form."""

from __future__ import annotations

import pytest
from torch import Tensor
from traps.plain import Gaussian

import vaedoctor


def log_normal(z: Tensor, mu: Tensor, logvar: Tensor) -> Tensor:
    return -0.5 * (logvar + (z - mu) ** 2 / logvar.exp())


class Decomposed(Gaussian):
    """The KL apart into mutual information, total correlation and what is left of each unit."""

    def __init__(self, rectified: bool, centre: float = 0.0) -> None:
        super().__init__()
        self.rectified, self.centre = rectified, centre

    def stats(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mu, lv = super().stats(x)
        return mu.relu() if self.rectified else mu, lv

    def loss(self, x: Tensor) -> Tensor:
        mu, lv = self.stats(x)
        z = self.draw(mu, lv)
        pairs = log_normal(z[:, None], mu[None], lv[None])
        q, parts = pairs.sum(2).logsumexp(1), pairs.logsumexp(1).sum(1)
        own, prior = log_normal(z, mu, lv).sum(1), -0.5 * (z - self.centre).pow(2).sum(1)
        pull = (own - q) + 4 * (q - parts) + (parts - prior)
        return (0.5 * (self.dec(z) - x).pow(2).sum(1) + pull).mean()


@pytest.mark.parametrize(
    ("model", "found"),
    [
        (Decomposed(rectified=True), ["VAE308"]),
        (Decomposed(rectified=False), []),
        (Decomposed(rectified=True, centre=3.0), []),
    ],
    ids=["one side", "both sides", "a positive prior"],
)
def test_half_a_prior_is_told_without_a_closed_form(model: Decomposed, found: list[str]) -> None:
    report = vaedoctor.check(model, *model.batch(), objective="loss")
    assert [f.code for f in report.findings] == found
