"""Graph autoencoders as they are written out by hand: a dense adjacency, weights without layers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import vaedoctor

NODES, UNITS = 12, 5


class Convolution(nn.Module):
    def __init__(self, given: int, made: int, act: Any = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(given, made) * 0.4)
        self.act = act or (lambda h: h)

    def forward(self, h: Tensor, adj: Tensor) -> Any:
        return self.act(torch.mm(adj, torch.mm(h, self.weight)))


class Graph(nn.Module):
    """As many features as latent units, and no weight in the decoder."""

    def __init__(self, act: Any = None, half: float = 0.5) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.half = half
        self.first = Convolution(UNITS, 8, torch.relu)
        self.loc, self.scale = Convolution(8, UNITS, act), Convolution(8, UNITS, act)

    def forward(self, features: Tensor, adj: Tensor) -> Any:
        h = self.first(features, adj)
        mu, logvar = self.loc(h, adj), self.scale(h, adj)
        z = torch.randn_like(mu).mul(torch.exp(self.half * logvar)).add_(mu)
        return torch.mm(z, z.t()), mu, logvar


def graph() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    upper = torch.triu((torch.rand(NODES, NODES, generator=generator) < 0.4).float(), 1)
    return torch.randn(NODES, UNITS, generator=generator), upper + upper.t() + torch.eye(NODES)


def loss(out: Any, features: Tensor, adj: Tensor) -> Tensor:
    logits, mu, logvar = out
    kl = -0.5 * (1 + logvar - mu**2 - logvar.exp()).sum(1).mean() / NODES
    return F.binary_cross_entropy_with_logits(logits, adj) + kl


@pytest.mark.parametrize(
    ("model", "told"),
    [
        (Graph(), []),
        (Graph(half=1.0), ["VAE303"]),
        (Graph(torch.relu), ["VAE308", "VAE308"]),
    ],
)
def test_the_posterior_of_a_graph_is_found_where_the_neighbours_are_summed(
    model: Graph, told: list[str]
) -> None:
    report = vaedoctor.check(model, graph(), objective=loss, select=["VAE303", "VAE308"])
    assert not [o for o in report.outcomes if o.status in ("skipped", "crashed")], f"{report}"
    assert sorted({f.code for f in report.findings}) == sorted(set(told))
