"""The isolated KL of latents whose noise meets a matrix, however sample and loss are written."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from steps import Bare, examined
from torch import Tensor, nn
from torch.distributions import MultivariateNormal, Normal, kl_divergence

from vaedoctor.examine.examination import Examination
from vaedoctor.examine.objective.correlated import MatrixKL, hadamard
from vaedoctor.finding import Finding
from vaedoctor.rule import Unavailable
from vaedoctor.rules.objective.kl_formula_mismatch import kl_formula_mismatch

X = torch.randn(8, 6, generator=torch.Generator().manual_seed(1))
D = 3
KL = Callable[[Tensor, Tensor, Tensor], Tensor]


def prior(width: float = 1.0) -> MultivariateNormal:
    return MultivariateNormal(torch.zeros(D), width**2 * torch.eye(D))


def closed(mu: Tensor, root: Tensor, z: Tensor) -> Tensor:
    return kl_divergence(MultivariateNormal(mu, scale_tril=root), prior())


def backwards(mu: Tensor, root: Tensor, z: Tensor) -> Tensor:
    return kl_divergence(prior(), MultivariateNormal(mu, scale_tril=root))


def wide(mu: Tensor, root: Tensor, z: Tensor) -> Tensor:
    return kl_divergence(MultivariateNormal(mu, scale_tril=root), prior(1.7))


def one_sample(mu: Tensor, root: Tensor, z: Tensor) -> Tensor:
    log_p: Tensor = Normal(0.0, 1.0).log_prob(z).sum(-1)
    return MultivariateNormal(mu, scale_tril=root).log_prob(z) - log_p


def by_hand(logs: float) -> KL:
    def kl(mu: Tensor, root: Tensor, z: Tensor) -> Tensor:
        log_det = logs * root.diagonal(dim1=1, dim2=2).log().sum(1)
        return 0.5 * ((root**2).sum((1, 2)) + (mu**2).sum(1) - D - log_det)

    return kl


def of_the_diagonal(mu: Tensor, root: Tensor, z: Tensor) -> Tensor:
    std = root.diagonal(dim1=1, dim2=2)
    return kl_divergence(Normal(mu, std), Normal(0.0, 1.0)).sum(1)


def of_the_root(mu: Tensor, root: Tensor, z: Tensor) -> Tensor:
    trace = root.diagonal(dim1=1, dim2=2).sum(1)
    return 0.5 * (trace + (mu**2).sum(1) - D - torch.linalg.slogdet(root)[1])


def by_einsum(mu: Tensor, root: Tensor) -> Tensor:
    return mu + torch.einsum("bij,bj->bi", root, torch.randn_like(mu))


def by_bmm(mu: Tensor, root: Tensor) -> Tensor:
    return mu + torch.bmm(root, torch.randn(len(mu), D, 1)).squeeze(-1)


def by_distribution(mu: Tensor, root: Tensor) -> Tensor:
    return MultivariateNormal(mu, scale_tril=root).rsample()


def triangle(flat: Tensor) -> Tensor:
    square = flat.view(-1, D, D)
    sizes = F.softplus(square.diagonal(dim1=1, dim2=2)) + 0.1
    return square.tril(-1) + torch.diag_embed(sizes)


@contextmanager
def model(
    kl: KL,
    sampler: Callable[[Tensor, Tensor], Tensor] = by_distribution,
    made: Callable[[Tensor], Tensor] = triangle,
    weight: float = 1.0,
) -> Iterator[Examination]:
    torch.manual_seed(0)
    parts = {"mu": nn.Linear(6, D), "h": nn.Linear(6, D * D), "out": nn.Linear(D, 6)}

    def body(x: Tensor) -> tuple[Tensor, ...]:
        mu, root = parts["mu"](x), made(parts["h"](x))
        z = sampler(mu, root)
        return parts["out"](z), mu, root, z

    def loss(out: Any, x: Tensor) -> Tensor:
        total: Tensor = 0.5 * (out[0] - x).square().sum(1).mean() + weight * kl(*out[1:]).mean()
        return total

    with examined(Bare(body, **parts), X, loss=loss) as examination:
        yield examination


def measured(kl: KL, *how: Any, weight: float = 1.0) -> MatrixKL:
    with model(kl, *how, weight=weight) as examination:
        (found,) = examination.matrices
    return found


@pytest.mark.parametrize("sampler", [by_distribution, by_einsum, by_bmm])
@pytest.mark.parametrize("kl", [closed, one_sample, by_hand(2.0)])
def test_a_right_kl_is_one_however_it_is_written(kl: KL, sampler: Any) -> None:
    for weight in (1.0, 0.25):
        found = measured(kl, sampler, weight=weight)
        assert found.standard
        assert not found.slip
        assert not found.reversed
        assert not found.missing
        assert found.weight == pytest.approx(weight, rel=1e-3)


def test_a_covariance_that_is_factorised_is_measured() -> None:
    def kl(mu: Tensor, made: Tensor, z: Tensor) -> Tensor:
        return kl_divergence(MultivariateNormal(mu, made), prior())

    def draw(mu: Tensor, made: Tensor) -> Tensor:
        return MultivariateNormal(mu, made).rsample()

    found = measured(kl, draw, lambda flat: triangle(flat) @ triangle(flat).mT)
    assert found.standard


def test_a_kl_the_other_way_round_is_told_with_its_weight() -> None:
    found = measured(backwards, weight=0.5)
    assert found.reversed
    assert found.back == pytest.approx(0.5, rel=1e-3)
    assert not found.standard
    assert not found.slip


def test_a_kl_that_is_subtracted_has_a_negative_weight_near_and_far() -> None:
    found = measured(closed, weight=-1.0)
    assert found.standard
    assert found.weight == pytest.approx(-1.0, rel=1e-3)
    assert found.far == pytest.approx(-1.0, rel=1e-3)


@pytest.mark.parametrize(
    ("kl", "slip"),
    [
        (by_hand(1.0), "half"),
        (by_hand(4.0), "twice"),
        (by_hand(0.0), "none"),
        (of_the_diagonal, "diagonal"),
        (of_the_root, "root"),
        (wide, ""),
    ],
)
def test_a_slip_is_called_by_its_name_and_a_wide_prior_is_none(kl: KL, slip: str) -> None:
    with model(kl) as examination:
        (found,) = examination.matrices
        told = []
        with suppress(Unavailable):
            told = [f for f in kl_formula_mismatch(examination) if isinstance(f, Finding)]
    assert found.slip == slip
    assert not found.standard
    assert not found.reversed
    assert len(told) == bool(slip)


def test_no_kl_is_missing() -> None:
    assert measured(lambda mu, root, z: 0 * mu.detach().sum(1)).missing


def test_the_weights_are_those_of_the_kl_by_many_samples() -> None:
    """The reference of a slip that halves the log-determinant, by Monte Carlo and differences."""
    generator = torch.Generator().manual_seed(3)
    root = triangle(torch.randn(1, D * D, generator=generator)).double()
    mu = torch.randn(1, D, generator=generator).double()
    eps = torch.randn(400_000, D, generator=generator).double()
    eps = (eps - eps.mean(0)) @ torch.linalg.inv(torch.linalg.cholesky(torch.cov(eps.T))).mT

    def drawn(times: float) -> float:
        z = mu + eps @ (times * root[0]).mT
        log_q = MultivariateNormal(mu, scale_tril=times * root).log_prob(z)
        log_p = Normal(0.0, 1.0).log_prob(z).sum(1)
        return float((log_q - log_p).mean())

    slope = (drawn(1.001) - drawn(0.999)) / 0.002
    assert slope == pytest.approx(float(root.square().sum()) - D, rel=1e-3)
    assert drawn(1.0) == pytest.approx(float(by_hand(2.0)(mu, root, mu)), rel=1e-3)


@pytest.mark.parametrize("units", [1, 3, 8, 13])
def test_the_noise_has_the_second_moments_of_independent_units(units: int) -> None:
    signs = hadamard(units)
    assert torch.equal(signs.T @ signs / len(signs), torch.eye(units))
