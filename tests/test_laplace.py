"""The isolated KL of Laplace latents, however sample and loss are written."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from steps import Bare, examined
from torch import Tensor, nn
from torch.distributions import Laplace, kl_divergence

from vaedoctor.examine.objective.laplace import LaplaceKL

X = torch.randn(8, 6, generator=torch.Generator().manual_seed(1))
Sampler = Callable[[Tensor, Tensor], Tensor]
KL = Callable[[Tensor, Tensor, Tensor], Tensor]


def measured(kl: KL, sampler: Sampler | None = None) -> LaplaceKL:
    """The isolated KL of one Laplace latent whose loss has `kl(mu, b, z)`, a row and unit."""
    torch.manual_seed(0)
    parts = {"mu": nn.Linear(6, 3), "h": nn.Linear(6, 3), "out": nn.Linear(3, 6)}
    draw = sampler or (lambda mu, b: Laplace(mu, b).rsample())

    def body(x: Tensor) -> tuple[Tensor, ...]:
        mu, b = parts["mu"](x), parts["h"](x).exp()
        z = draw(mu, b)
        return parts["out"](z), mu, b, z

    def loss(out: Any, x: Tensor) -> Tensor:
        total: Tensor = (out[0] - x).abs().sum(1).mean() + kl(*out[1:]).sum(1).mean()
        return total

    with examined(Bare(body, **parts), X, loss=loss) as examination:
        (found,) = examination.laplaces
    return found


def to(width: float) -> KL:
    def kl(mu: Tensor, b: Tensor, z: Tensor) -> Tensor:
        return kl_divergence(Laplace(mu, b), Laplace(torch.zeros_like(mu), width))

    return kl


def by_hand(mu: Tensor, b: Tensor, z: Tensor) -> Tensor:
    return mu.abs() + b * (-mu.abs() / b).exp() - b.log() - 1


def one_sample(mu: Tensor, b: Tensor, z: Tensor) -> Tensor:
    return Laplace(mu, b).log_prob(z) - Laplace(0.0, 1.0).log_prob(z)


def inverse(mu: Tensor, b: Tensor) -> Tensor:
    u = torch.rand_like(mu) - 0.5
    return mu - b * u.sign() * torch.log1p(-2 * u.abs())


@pytest.mark.parametrize("kl", [to(1.0), by_hand, one_sample], ids=["torch", "hand", "sample"])
@pytest.mark.parametrize("sampler", [None, inverse], ids=["rsample", "by hand"])
@pytest.mark.parametrize("weight", [1.0, 0.25, -1.0])
def test_the_weight_of_an_exact_kl(kl: KL, sampler: Sampler | None, weight: float) -> None:
    found = measured(lambda mu, b, z: weight * kl(mu, b, z), sampler)
    assert found.standard
    assert found.weight == pytest.approx(weight, rel=1e-3)


@pytest.mark.parametrize("width", [0.5, 2.0])
def test_a_prior_of_another_width_is_no_slip(width: float) -> None:
    found = measured(to(width))
    assert found.exact
    assert not found.standard


@pytest.mark.parametrize(
    "slip",
    [
        lambda mu, b, z: by_hand(mu, b, z) + b.log(),
        lambda mu, b, z: by_hand(mu, b, z) + b,
        lambda mu, b, z: by_hand(mu, b, z) - b.log() ** 2,
    ],
    ids=["no logarithm", "the scale once more", "a squared logarithm"],
)
def test_a_slip_at_the_scale_is_seen_beside_a_right_location(slip: KL) -> None:
    found = measured(slip)
    assert found.located
    assert not found.exact


def test_other_terms_are_not_judged() -> None:
    assert not measured(lambda mu, b, z: mu**2 + b**2 - b.log()).located


def test_without_a_term_it_is_missing() -> None:
    found = measured(lambda mu, b, z: by_hand(mu.detach(), b.detach(), z))
    assert found.missing
    assert not found.connected


def backwards(mu: Tensor, b: Tensor, z: Tensor) -> Tensor:
    return kl_divergence(Laplace(torch.zeros_like(mu), 1.0), Laplace(mu, b))


def backwards_by_hand(mu: Tensor, b: Tensor, z: Tensor) -> Tensor:
    return b.log() + mu.abs() / b + (-mu.abs()).exp() / b - 1


@pytest.mark.parametrize("kl", [backwards, backwards_by_hand], ids=["torch", "hand"])
@pytest.mark.parametrize("sampler", [None, inverse], ids=["rsample", "by hand"])
def test_the_other_way_round_is_told_from_a_kl(kl: KL, sampler: Sampler | None) -> None:
    found = measured(lambda mu, b, z: 2 * kl(mu, b, z), sampler)
    assert found.reversed
    assert not found.exact
    assert found.backs == pytest.approx((2, 2, 2), rel=1e-3)
    for right in (to(1.0), to(2.0), by_hand, one_sample):
        assert not measured(right, sampler).reversed
    assert not measured(lambda mu, b, z: -kl(mu, b, z), sampler).reversed
    assert not measured(lambda mu, b, z: mu.abs() / b, sampler).reversed


def weighed(width: float, weight: float, logs: float) -> float:
    """How often the logarithm counts, of a KL to this width beside a plain squared error."""
    torch.manual_seed(0)
    parts = {"mu": nn.Linear(6, 3), "h": nn.Linear(6, 3), "out": nn.Linear(3, 6)}

    def body(x: Tensor) -> tuple[Tensor, ...]:
        mu, b = parts["mu"](x), parts["h"](x).exp()
        return parts["out"](Laplace(mu, b).rsample()), mu, b

    def loss(out: Any, x: Tensor) -> Tensor:
        kl = to(width)(out[1], out[2], x) - logs * out[2].log()
        total: Tensor = 0.5 * (out[0] - x).square().sum(1).mean() + weight * kl.sum(1).mean()
        return total

    with examined(Bare(body, **parts), X, loss=loss) as examination:
        (found,) = examination.laplaces
        assert found.exact
        return examination.logged(found)


@pytest.mark.parametrize(
    ("width", "weight", "logs", "times"),
    [(1.0, 1.0, 0.0, 1.0), (2.0, 1.0, 0.0, 1.0), (2.0, 2.0, 0.0, 1.0), (1.0, 1.0, 1.0, 2.0)],
)
def test_a_logarithm_of_twice_the_weight_is_no_wider_prior(
    width: float, weight: float, logs: float, times: float
) -> None:
    assert weighed(width, weight, logs) == pytest.approx(times, rel=1e-2)


def of_other_constants(mu: Tensor, b: Tensor, z: Tensor) -> Tensor:
    """One density lacks its log 2b's 2."""
    return one_sample(mu, b, z) + math.log(2)


@pytest.mark.parametrize(
    ("kl", "each"),
    [
        (to(1.0), 0.0),
        (by_hand, 0.0),
        (one_sample, 0.0),
        (lambda *q: by_hand(*q) + 1, 1.0),
        (of_other_constants, math.log(2)),
        (to(2.0), None),
        (lambda *q: by_hand(*q) + 0.3, None),  # a constant of nobody's formula
    ],
)
@pytest.mark.parametrize("sampler", [None, inverse], ids=["rsample", "by hand"])
def test_what_a_returned_kl_is_at_the_prior(
    kl: KL, each: float | None, sampler: Sampler | None
) -> None:
    torch.manual_seed(0)
    parts = {"mu": nn.Linear(6, 3), "h": nn.Linear(6, 3), "out": nn.Linear(3, 6)}
    draw = sampler or (lambda mu, b: Laplace(mu, b).rsample())

    def body(x: Tensor) -> dict[str, Tensor]:
        mu, b = parts["mu"](x), parts["h"](x).exp()
        z = draw(mu, b)
        return {"x_hat": parts["out"](z), "kl": kl(mu, b, z).sum(1).mean()}

    def loss(out: Any, x: Tensor) -> Tensor:
        total: Tensor = (out["x_hat"] - x).abs().sum(1).mean() + 2 * out["kl"]
        return total

    with examined(Bare(body, **parts), X, loss=loss) as examination:
        found = [o.per_unit for o in examination.kl_offsets]
    assert found == ([] if each is None else [pytest.approx(each, abs=1e-4)])
