"""A likelihood of two parameters, of which one is not decoded; a term that compares nothing."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import NegativeBinomial, Normal, kl_divergence

from vaedoctor import check

GENES, SITES = 14, 3


class Counts(nn.Module):
    """Counts whose dispersion the site alone decides, which follows them in a row."""

    def __init__(self, sites: int = SITES) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.enc, self.dec = nn.Linear(GENES, 8), nn.Linear(4 + sites, GENES)
        self.loc, self.spread = nn.Linear(8, 4), nn.Linear(8, 4)
        self.of_site = nn.Parameter(torch.zeros(sites, GENES))
        self.guess = nn.Linear(4, sites)

    def forward(self, both: Tensor) -> dict[str, Tensor]:
        counts, site = both[:, :GENES], both[:, GENES:]
        h = torch.relu(self.enc(counts.log1p()))
        q = Normal(self.loc(h), (0.5 * self.spread(h)).exp())
        z = q.rsample()
        rate = F.softplus(self.dec(torch.cat([z, site], 1))) + 1e-3
        p = NegativeBinomial(rate, logits=1 + site @ self.of_site, validate_args=False)
        kl = kl_divergence(q, Normal(torch.zeros_like(z), torch.ones_like(z))).sum()
        elsewhere = F.binary_cross_entropy_with_logits(self.guess(z), site, reduction="sum")
        nll = -p.log_prob(counts).sum()
        return {"loss": kl + nll + elsewhere}


def counted(sites: int) -> Tensor:
    torch.manual_seed(1)
    which = torch.eye(max(sites, 1))[torch.arange(8) % max(sites, 1)][:, :sites]
    return torch.cat([torch.poisson(torch.full((8, GENES), 2.0)), which], 1)


def told(sites: int) -> tuple[list[str], list[str]]:
    report = check(Counts(sites), counted(sites))
    errors = [f.code for f in report.findings if f.severity.name == "ERROR"]
    return errors, [o.code for o in report.outcomes if o.status == "crashed"]


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
@pytest.mark.parametrize("sites", [SITES, 0])
def test_the_parameter_that_is_decoded_is_the_reconstruction(sites: int) -> None:
    assert told(sites) == ([], [])
