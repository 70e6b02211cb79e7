"""Graph autoencoders as they are written out by hand: a dense adjacency, weights without layers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import vaedoctor
from vaedoctor.checkup import examine_subject
from vaedoctor.subject.target import load

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


EDGES = """
from dataclasses import dataclass
import torch
import torch.nn.functional as F
from torch import nn

@dataclass
class Graph:
    x: torch.Tensor
    edges: torch.Tensor
    others: torch.Tensor

def graph(nodes=14):
    adj = torch.triu(torch.rand(nodes, nodes) < 0.4, 1)
    edges = adj.nonzero().T
    return Graph(torch.randn(nodes, 6), edges, edges.roll(1, 1).flip(0))

class PairVAE(nn.Module):
    def __init__(self):
        super().__init__()
        self.enc, self.mu, self.log_std = nn.Linear(6, 8), nn.Linear(8, 3), nn.Linear(8, 3)
        self.pair = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 1))
        self.dec = nn.Linear(3, 6)

    def forward(self, g):
        h = self.enc(g.x).relu()
        mu, log_std = self.mu(h), self.log_std(h)
        z = mu + torch.randn_like(mu) * log_std.exp()
        scores = [self.pair(torch.cat([z[p[0]], z[p[1]]], 1)) for p in (g.edges, g.others)]
        return scores, self.dec(z), mu, log_std

def loss(model, g):
    (yes, no), x_hat, mu, log_std = model(g)
    bce = F.binary_cross_entropy_with_logits
    rec = bce(yes, torch.ones_like(yes), reduction="sum")
    rec = rec + bce(no, torch.zeros_like(no), reduction="sum") + 0.5 * (x_hat - g.x).pow(2).sum()
    kl = -0.5 * (1 + 2 * log_std - mu.pow(2) - (2 * log_std).exp()).sum()
    return (rec + kl) / len(g.x)

if __name__ == "__main__":
    net = PairVAE()
    opt = torch.optim.Adam(net.parameters())
    for _ in range(9):
        opt.zero_grad()
        loss(net, graph()).backward()
        opt.step()
"""


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("", "", []),
        ("(rec + kl)", "(rec - kl)", ["VAE703"]),
        ("(1 + 2 * log_std - mu.pow(2) - (2 * log_std).exp())", "(1 - mu.pow(2))", ["VAE701"]),
    ],
)
def test_scores_of_edges_are_decoded_and_no_judge(
    tmp_path: Path, old: str, new: str, told: list[str]
) -> None:
    """The file's own graph, a dataclass, is the batch; what scores its edges is held."""
    (tmp_path / "edges.py").write_text(EDGES.replace(old, new) if old else EDGES)
    subject = load(f"{tmp_path / 'edges.py'}:PairVAE")
    assert "your own data" in subject.batch.origin
    report = examine_subject(subject)
    assert [f.code for f in report.findings] == told
