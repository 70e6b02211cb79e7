"""A loss that mixes the densities of all rows still says which scale log q means."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Normal

import vaedoctor

Scales = Callable[[Tensor], Tensor]
X = torch.rand(16, 10, generator=torch.Generator().manual_seed(4))
ROOT, WHOLE = (lambda h: (0.5 * h).exp()), (lambda h: h.exp())


class Correlated(nn.Module):
    """The total correlation by the batch's own mixture, after Chen et al. (2018)."""

    def __init__(self, sampled: Scales, meant: Scales, how: str = "by hand") -> None:
        super().__init__()
        torch.manual_seed(5)
        self.heads, self.decode = nn.Linear(10, 6), nn.Linear(3, 10)
        self.sampled, self.meant, self.how = sampled, meant, how

    def log_q(self, z: Tensor, mu: Tensor, h: Tensor) -> Tensor:
        std = self.meant(h)
        if self.how == "by torch":
            return Normal(mu, std).log_prob(z)
        return -0.5 * ((z - mu) ** 2 / std**2 + 2 * std.log() + math.log(2 * math.pi))

    def forward(self, x: Tensor) -> Tensor:
        mu, h = self.heads(x).chunk(2, 1)
        z = mu + self.sampled(h) * torch.randn_like(mu)
        pairs = self.log_q(z[:, None], mu[None], h[None])
        own, joint = self.log_q(z, mu, h).sum(1), pairs.sum(2).logsumexp(1)
        apart = pairs.logsumexp(1).sum(1)
        prior = Normal(0.0, 1.0).log_prob(z).sum(1)
        error = (self.decode(z) - x).square().sum(1)
        loss: Tensor = (error + own - joint + 4 * (joint - apart) + apart - prior).mean()
        if self.how == "with a score":
            loss = loss + ((z - mu) ** 2 / self.sampled(h) ** 4).mean()
        if self.how == "with a weight":
            loss = loss + ((z - mu) ** 2 * self.decode.weight.square().sum(0)).mean()
        return loss


@pytest.mark.parametrize("how", ["by hand", "by torch"])
@pytest.mark.parametrize(("sampled", "meant"), [(WHOLE, ROOT), (ROOT, WHOLE)])
def test_a_scale_that_a_density_of_the_batch_means_otherwise_is_told(
    sampled: Any, meant: Any, how: str
) -> None:
    report = vaedoctor.check(Correlated(sampled, meant, how), X, select=["VAE303"])
    assert [str(f.severity) for f in report.findings] == ["error"]


@pytest.mark.parametrize("how", ["by hand", "by torch", "with a score", "with a weight"])
@pytest.mark.parametrize("scale", [ROOT, WHOLE, nn.functional.softplus])
def test_one_scale_in_both_places_is_silent(scale: Any, how: str) -> None:
    report = vaedoctor.check(Correlated(scale, scale, how), X, select=["VAE303"])
    assert not report.findings
    assert not [o for o in report.outcomes if o.status == "crashed"]
