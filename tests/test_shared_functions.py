"""A function that several lines call is blamed for its formula, a call for what it hands over."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from traps.plain import Gaussian

import vaedoctor
from vaedoctor.examine.code.listing import text_of


def log_normal(v: Tensor, mean: Tensor, log_s: Tensor) -> Tensor:
    return -0.5 * math.log(2 * math.pi) - log_s - 0.5 * ((v - mean) / log_s.exp()) ** 2


def log_wrong(v: Tensor, mean: Tensor, log_s: Tensor) -> Tensor:
    return -0.5 * math.log(2 * math.pi) - log_s - ((v - mean) / log_s.exp()) ** 2


class Scored(Gaussian):
    """All three densities by one function, joined as `how` says."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how

    def loss(self, x: Tensor) -> Tensor:
        mu, ls = self.stats(x)
        z = mu + torch.randn_like(mu) * ls.exp()
        r, zero = self.dec(z), torch.zeros_like(z)
        density = log_wrong if self.how == "formula" else log_normal
        log_px = density(x, r, torch.zeros_like(x)).sum(1)
        log_pz = density(z, zero, zero).sum(1)
        log_qz = density(z, mu, 0.5 * ls if self.how == "half" else ls).sum(1)
        if self.how == "both signs":
            return (log_pz - log_px - log_qz).mean()
        if self.how == "joined by hand":
            return 100 * (0.01 * (log_pz - log_px - log_qz)).exp().log().mean()
        if self.how == "reconstruction":
            return (log_px + log_qz - log_pz).mean()
        return (log_qz - log_px - log_pz).mean()


@pytest.mark.parametrize(
    ("how", "code", "where"),
    [
        ("right", "", ""),
        ("half", "VAE701", "density(z, mu, 0.5 * ls if self.how == "),
        ("both signs", "VAE703", "log_pz - log_px - log_qz"),
        ("joined by hand", "VAE703", "density(z, mu, 0.5 * ls if self.how == "),
        ("reconstruction", "VAE707", "density(x, r, torch.zeros_like(x))"),
    ],
)
def test_what_is_wrong_stands_at_the_call_or_the_sum(how: str, code: str, where: str) -> None:
    torch.manual_seed(0)
    model = Scored(how)
    report = vaedoctor.check(model, *model.batch(), objective="loss", select=["VAE70"])
    told = [f for f in report.findings if f.severity.value == "error"]
    assert [f.code for f in told] == [code] * bool(code)
    for finding in told:
        assert text_of(finding.at).startswith(where)


def test_a_formula_that_is_wrong_for_all_calls_is_not_placed_at_one() -> None:
    torch.manual_seed(0)
    model = Scored("formula")
    report = vaedoctor.check(model, *model.batch(), objective="loss", select=["VAE701"])
    for finding in report.findings:
        assert "density(" not in text_of(finding.at)
