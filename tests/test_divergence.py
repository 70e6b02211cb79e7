"""The isolated KL against a second computation: torch's own KL, finite differences, float64."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from steps import examined
from torch import Tensor, nn
from torch.distributions import Independent, Laplace, Normal, kl_divergence

from vaedoctor import check
from vaedoctor.examine.objective.divergence import Divergence
from vaedoctor.rule import Unavailable

Std = Callable[[Tensor], Tensor]
Term = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]  # of mu, h, std, z: one row's KL

PARAMETRISATIONS: dict[str, Std] = {
    "log-variance": lambda h: torch.exp(0.5 * h),
    "log-std": torch.exp,
    "softplus std": lambda h: F.softplus(h) + 1e-4,
    "softplus variance": lambda h: F.softplus(h).sqrt(),
    "sigmoid std": lambda h: 0.01 + 2 * torch.sigmoid(h),
    "exp(h / 4)": lambda h: torch.exp(h).pow(0.25),
}


def exact(mu: Tensor, h: Tensor, std: Tensor, z: Tensor) -> Tensor:
    return kl_divergence(Normal(mu, std), Normal(0.0, 1.0)).flatten(1).sum(1)


def by_hand(mu: Tensor, h: Tensor, std: Tensor, z: Tensor) -> Tensor:
    return -0.5 * (1 + (std**2).log() - mu**2 - std**2).flatten(1).sum(1)


def estimated(mu: Tensor, h: Tensor, std: Tensor, z: Tensor) -> Tensor:
    ratio = Normal(mu, std).log_prob(z) - Normal(0.0, 1.0).log_prob(z)
    return ratio.flatten(1).sum(1)


def independent(mu: Tensor, h: Tensor, std: Tensor, z: Tensor) -> Tensor:
    q = Independent(Normal(mu, std), 1)
    return kl_divergence(q, Independent(Normal(torch.zeros_like(mu), torch.ones_like(std)), 1))


class VAE(nn.Module):
    """One latent; its standard deviation and its KL are given."""

    def __init__(self, std: Std, kl: Term, *, units: int = 3, zero: bool = False) -> None:
        super().__init__()
        torch.manual_seed(7)
        self.mu, self.h, self.out = nn.Linear(6, units), nn.Linear(6, units), nn.Linear(units, 6)
        if zero:
            for head in (self.mu, self.h):
                nn.init.zeros_(head.weight)
                nn.init.zeros_(head.bias)
        self.std, self.kl = std, kl

    def forward(self, x: Tensor) -> Any:
        mu, h = self.mu(x), self.h(x)
        std = self.std(h)
        z = mu + std * torch.randn_like(mu)
        return self.out(z), self.kl(mu, h, std, z)


def isolated(
    kl: Term = exact,
    std: Std = PARAMETRISATIONS["log-variance"],
    *,
    rows: int = 4,
    reduce: Callable[[Tensor], Tensor] = torch.sum,
    **options: Any,
) -> Divergence:
    x = torch.linspace(-1, 1, rows * 6).reshape(rows, 6)

    def loss(out: Any, x: Tensor) -> Tensor:
        total: Tensor = 0.5 * (out[0] - x).pow(2).sum() + reduce(out[1])
        return total

    with examined(VAE(std, kl, **options), x, loss=loss) as examination:
        (divergence,) = examination.require_divergences()
    return divergence


class TestExact:
    @pytest.mark.parametrize("std", PARAMETRISATIONS.values(), ids=PARAMETRISATIONS)
    @pytest.mark.parametrize("kl", [exact, by_hand, estimated, independent])
    def test_any_parametrisation_in_closed_form_or_by_one_sample(self, kl: Term, std: Std) -> None:
        d = isolated(kl, std)
        assert d.standard
        assert d.judgeable
        assert d.exact
        assert d.ratios == pytest.approx((1, 1), abs=2e-3)
        assert d.weight == pytest.approx(d.rows, rel=1e-4)  # a sum over the batch
        assert not d.missing
        assert not d.reversed

    @pytest.mark.parametrize("std", PARAMETRISATIONS.values(), ids=PARAMETRISATIONS)
    def test_the_scale_is_the_samplers_own(self, std: Std) -> None:
        for s in isolated(exact, std).settings:
            candidates = (float(std(torch.tensor(s.head))), s.head)  # std itself may be forced
            assert any(s.scale == pytest.approx(c, rel=1e-5) for c in candidates)

    def test_heads_of_zero(self) -> None:
        d = isolated(zero=True)
        assert d.exact
        assert d.weight == pytest.approx(4, rel=1e-4)

    @pytest.mark.parametrize("std", PARAMETRISATIONS.values(), ids=PARAMETRISATIONS)
    @pytest.mark.parametrize("slip", [0.5, 1.0, 2.0])
    def test_against_finite_differences_in_float64(self, std: Std, slip: float) -> None:
        def wrong(mu: Tensor, h: Tensor, s: Tensor, z: Tensor) -> Tensor:
            again = std(h)  # the loss computes it anew, so that the head itself is forced
            return 0.5 * (mu**2 + again**2 - 1 - slip * (again**2).log()).sum(1)

        step = 1e-5

        def kl(m: float, h: float) -> float:
            one = [torch.tensor([[v]], dtype=torch.float64) for v in (m, h)]
            return float(wrong(*one, one[0], one[0]))

        def log_std(h: float) -> float:
            return float(std(torch.tensor(h, dtype=torch.float64)).log())

        for s in isolated(wrong, std).settings:
            c = (kl(0.7 + step, s.head) - kl(0.7 - step, s.head)) / (2 * step) / 0.7
            by_h = (kl(0.7, s.head + step) - kl(0.7, s.head - step)) / (2 * step)
            slope = (log_std(s.head + step) - log_std(s.head - step)) / (2 * step)
            scale = float(std(torch.tensor(s.head)))
            assert s.weight == pytest.approx(c, rel=1e-4)
            expected = by_h / (c * (scale**2 - 1) * slope)
            assert s.ratio == pytest.approx(expected, rel=5e-3, abs=5e-3)


class TestSlips:
    def test_a_missing_half_in_the_sampler(self) -> None:
        def logvar(mu: Tensor, h: Tensor, std: Tensor, z: Tensor) -> Tensor:
            return -0.5 * (1 + h - mu**2 - h.exp()).sum(1)

        d = isolated(logvar, torch.exp)
        assert sorted(d.ratios) == pytest.approx([0.134, 0.366], abs=1e-3)
        assert d.meaning == "exp(h / 2)"
        assert d.judgeable
        assert not d.exact

    @pytest.mark.parametrize(
        ("std", "meant", "name"),
        [
            (torch.exp, lambda h: torch.exp(h / 2), "exp(h / 2)"),
            (lambda h: torch.exp(h / 2), torch.exp, "exp(h)"),
            (F.softplus, lambda h: torch.exp(h / 2), "exp(h / 2)"),
            (lambda h: torch.exp(h / 4), lambda h: torch.exp(h / 2), "exp(h / 2)"),
            (lambda h: torch.exp(h / 2), F.softplus, "softplus(h)"),
            (torch.exp, lambda h: F.softplus(h).sqrt(), "softplus(h) ** 0.5"),
            (torch.exp, torch.sigmoid, "sigmoid(h)"),
            (lambda h: torch.exp(-h), lambda h: torch.exp(-h / 2), "exp(-h / 2)"),
            (lambda h: torch.exp(-h / 2), lambda h: torch.exp(-h), "exp(-h)"),
        ],
    )
    def test_the_meaning_of_the_head_in_the_kl(self, std: Std, meant: Std, name: str) -> None:
        d = isolated(lambda mu, h, s, z: exact(mu, h, meant(h), z), std)
        assert d.meaning == name
        assert list(d.meant) == pytest.approx(
            [float(meant(torch.tensor(s.head))) for s in d.settings], rel=1e-5
        )

    def test_a_head_that_is_halved_in_place_before_the_kl_reads_it(self) -> None:
        def halved(h: Tensor) -> Tensor:
            return h.mul_(0.5).exp()

        d = isolated(lambda mu, h, s, z: exact(mu, h, torch.exp(0.5 * h), z), halved)
        assert d.meaning == "exp(h / 2)"
        assert [s.scale for s in d.settings] == pytest.approx(
            [math.exp(s.head) for s in d.settings], rel=1e-5
        )

    def test_a_factor_two_at_the_logarithm(self) -> None:
        d = isolated(lambda mu, h, s, z: -0.5 * (1 + 2 * h - mu**2 - h.exp()).sum(1))
        assert sorted(d.ratios) == pytest.approx([0.418, 2.582], abs=1e-3)
        assert d.meaning == ""

    @pytest.mark.parametrize("kl", [exact, by_hand, estimated])
    def test_the_sign(self, kl: Term) -> None:
        d = isolated(lambda *given: -kl(*given), reduce=torch.mean)
        assert d.weight == pytest.approx(-1, rel=1e-4)
        assert d.exact

    def test_the_mean_over_latents(self) -> None:
        d = isolated(reduce=lambda kl: kl.mean() / 5, units=5)
        assert d.weight * d.units == pytest.approx(1, rel=1e-4)

    def test_prior_first(self) -> None:
        d = isolated(lambda mu, h, s, z: kl_divergence(Normal(0.0, 1.0), Normal(mu, s)).sum(1))
        assert d.reversed
        assert not d.standard

    @pytest.mark.parametrize("factor", [0.0, 1.0])
    def test_none_at_all(self, factor: float) -> None:
        d = isolated(lambda mu, h, s, z: factor * exact(mu, h, s, z).detach())
        assert d.missing
        assert d.weight == 0

    def test_a_clamp_that_never_opens(self) -> None:
        d = isolated(reduce=lambda kl: (kl.mean() * 1e-4).clamp(min=1.0))
        assert d.missing
        assert d.clamped is not None


class TestOtherPriors:
    def test_free_bits_open_far_from_the_prior(self) -> None:
        d = isolated(reduce=lambda kl: kl.clamp(min=8.0).sum())
        assert not d.missing

    @pytest.mark.parametrize(
        "prior",
        [
            Normal(torch.tensor([0.0, 1.0, -2.0]), 1.0),
            Normal(0.0, torch.tensor([1.0, 2.0, 0.5])),
            Laplace(0.0, 1.0),
        ],
        ids=["shifted", "of uneven width", "Laplace"],
    )
    def test_are_not_judged(self, prior: Any) -> None:
        def kl(mu: Tensor, h: Tensor, std: Tensor, z: Tensor) -> Tensor:
            return (Normal(mu, std).log_prob(z) - prior.log_prob(z)).sum(1)

        d = isolated(kl)
        assert not d.judgeable
        assert not d.reversed
        assert not d.missing

    @pytest.mark.parametrize("width", [0.1, 0.5, 3.0])
    def test_of_one_width_fits_a_kl(self, width: float) -> None:
        d = isolated(lambda mu, h, s, z: kl_divergence(Normal(mu, s), Normal(0.0, width)).sum(1))
        assert d.width == pytest.approx(width, rel=1e-3)
        assert not d.exact

    def test_a_variance_upside_down_is_no_width(self) -> None:
        """At two scales that are each other's inverse it looks like one."""
        d = isolated(lambda mu, h, s, z: 0.5 * (mu**2 + 1 / s**2 - 1 - (s**2).log()).sum(1))
        assert d.judgeable
        assert d.width is None
        assert not d.exact

    def test_a_distance_by_the_posteriors_variance_is_not_the_reverse_kl(self) -> None:
        d = isolated(lambda mu, h, s, z: 0.5 * (mu**2 / s**2 + s**2 - 1 - (s**2).log()).sum(1))
        assert not d.reversed
        assert not d.judgeable


@settings(max_examples=12, deadline=None)
@given(
    rows=st.integers(1, 6),
    units=st.integers(1, 7),
    beta=st.floats(1e-6, 1e3),
    kl=st.sampled_from([exact, by_hand, estimated]),
)
def test_the_weight_is_beta_at_every_size(rows: int, units: int, beta: float, kl: Term) -> None:
    d = isolated(kl, rows=rows, units=units, reduce=lambda kl: beta * kl.mean())
    assert (d.rows, d.units) == (rows, units)
    assert d.weight == pytest.approx(beta, rel=1e-2)
    assert d.exact


@pytest.mark.parametrize(
    ("kl", "connected"),
    [
        (exact, True),
        (lambda *given: 0.0 * exact(*given), True),
        (lambda *given: exact(*given).detach(), False),
    ],
)
def test_a_weight_of_zero_is_not_a_missing_term(kl: Term, connected: bool) -> None:
    assert isolated(kl).connected is connected


@pytest.mark.parametrize(("factor", "beta"), [(1.0, None), (2.0, None), (2.0, 2.0)])
def test_its_half_is_said_to_be_right_only_where_the_whole_weighs_what_is_meant(
    factor: float, beta: float | None
) -> None:
    model = VAE(PARAMETRISATIONS["log-variance"], lambda *row: factor * exact(*row))
    x = torch.linspace(-1, 1, 24).reshape(4, 6)
    objective = lambda out, x: 0.5 * (out[0] - x).square().sum() + out[1].sum()  # noqa: E731
    report = check(model, x, objective=objective, beta=beta, select=["VAE701"])
    (verified,) = (v for o in report.outcomes for v in o.verified)
    assert ("½" in verified.text) == (factor == (beta or 1.0))
    assert verified.measured.get("weight a row", 4 * factor) == pytest.approx(4 * factor, rel=1e-3)


def test_a_capacity_that_is_not_reached_turns_the_sign_near_the_prior_only() -> None:
    d = isolated(reduce=lambda kl: (kl.sum() - 100).abs())
    assert d.weight < 0
    assert d.far > 0


@pytest.mark.parametrize("weight", [1.0, -1.0, 0.0])
@pytest.mark.parametrize("kl", [exact, by_hand, lambda mu, h, s, z: 0.5 * (mu**2).sum(1)])
def test_a_task_on_the_location_is_no_part_of_it(kl: Term, weight: float) -> None:
    class Predicts(VAE):
        def __init__(self, std: Std, kl: Term) -> None:
            super().__init__(std, kl)
            self.task = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))

        def forward(self, x: Tensor) -> Any:
            mu, h = self.mu(x), self.h(x)
            z = mu + self.std(h) * torch.randn_like(mu)
            return self.out(z), self.kl(mu, h, self.std(h), z), self.task(mu)

    def loss(out: Any, x: Tensor) -> Tensor:
        recon = 0.5 * (out[0] - x).pow(2).sum()
        total: Tensor = recon + weight * out[1].sum() + F.cross_entropy(out[2], x[:, :2].softmax(1))
        return total

    with examined(Predicts(torch.exp, kl), torch.rand(4, 6), loss=loss) as examination:
        (d,) = examination.require_divergences()
    assert d.weight == pytest.approx(4 * weight, rel=1e-4)
    assert d.missing == (weight == 0)
    if weight:
        assert d.standard
        assert d.ratios == pytest.approx((1, 1) if kl in (exact, by_hand) else (0, 0), abs=2e-3)


@pytest.mark.parametrize("kl", [exact, lambda mu, h, s, z: 0.5 * (mu**2).sum(1)])
@pytest.mark.parametrize("weight", [1.0, -1.0, None])
def test_a_discrepancy_of_samples_is_no_part_of_it(kl: Term, weight: float | None) -> None:
    class Meets(VAE):
        def forward(self, x: Tensor) -> Any:
            mu, h = self.mu(x), self.h(x)
            z = mu + h.exp() * torch.randn_like(mu)
            apart = (z[:, None] - torch.randn_like(z)[None]).pow(2).sum(2).sqrt().mean()
            return self.out(z), self.kl(mu, h, h.exp(), z), apart

    def loss(out: Any, x: Tensor) -> Tensor:
        total: Tensor = 0.5 * (out[0] - x).pow(2).sum() + 7 * out[2]
        return total if weight is None else total + weight * out[1].sum()

    with examined(Meets(torch.exp, kl), torch.rand(4, 6), loss=loss) as examination:
        (d,) = examination.require_divergences()
    assert not d.missing  # the discrepancy alone pulls to the prior too
    if weight is not None:
        assert d.standard
        assert d.weight == pytest.approx(4 * weight, rel=1e-4)
        assert d.exact == (kl is exact)


def test_a_posterior_put_together_from_several_values_is_not_judged() -> None:
    class Residual(VAE):
        def forward(self, x: Tensor) -> Any:
            delta, std = self.mu(x), torch.exp(self.h(x))
            prior = torch.tanh(x[:, :3]) * self.mu.bias
            z = prior + delta + std * torch.randn_like(std)
            return self.out(z), exact(delta, std, std, z)

    def loss(out: Any, x: Tensor) -> Tensor:
        total: Tensor = 0.5 * (out[0] - x).pow(2).sum() + out[1].sum()
        return total

    with (
        examined(Residual(torch.exp, exact), torch.rand(4, 6), loss=loss) as examination,
        pytest.raises(Unavailable, match="forced"),
    ):
        examination.require_divergences()
