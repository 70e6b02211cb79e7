"""Reported KLs, log-determinants, importance weights, `kl_div`, reach, each computed twice."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from steps import Bare, examined, step
from test_divergence import PARAMETRISATIONS, VAE, exact
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence

from vaedoctor.examine.code.listing import text_of
from vaedoctor.examine.objective.categorical import misuses

X = torch.linspace(-1, 1, 48).reshape(8, 6)


def recon(out: Any, x: Tensor) -> Tensor:
    total: Tensor = 0.5 * (out[0] - x).pow(2).sum() + out[1].sum()
    return total


class TestOffset:
    @pytest.mark.parametrize("std", ["log-variance", "log-std", "softplus std"])
    @pytest.mark.parametrize("constant", [0.0, 1.0, -0.25])
    def test_is_the_constant_per_unit(self, std: str, constant: float) -> None:
        def kl(mu: Tensor, h: Tensor, s: Tensor, z: Tensor) -> Tensor:
            return exact(mu, h, s, z) + 3 * constant

        with examined(VAE(PARAMETRISATIONS[std], kl), X, loss=recon) as examination:
            (offset,) = examination.kl_offsets
        assert offset.per_unit == pytest.approx(constant, abs=1e-5)
        assert offset.total == pytest.approx(3 * constant, abs=1e-4)

    @pytest.mark.parametrize(
        ("term", "each"),
        [
            (lambda kl, units: kl.sum(1).mean(), 0.0),
            (lambda kl, units: 4 * (kl + 0.5).sum(1).mean(), 0.5),
            (lambda kl, units: (kl - 0.5).sum(), -0.5),
            (lambda kl, units: kl.sum() + 0.5 * (units - 1), 0.5 - 0.5 / 24),
            (lambda kl, units: (kl.sum(1) + 0.3).mean(), None),
            (lambda kl, units: (kl.sum(1).mean() - 1.5).abs(), None),
        ],
        ids=["exact", "no 1", "a 1 too many", "1 outside the sum", "another", "a capacity"],
    )
    def test_inside_the_total_is_a_constant_that_a_formula_may_lack(
        self, term: Callable[[Tensor, int], Tensor], each: float | None
    ) -> None:
        torch.manual_seed(0)
        parts = {"mu": nn.Linear(6, 3), "h": nn.Linear(6, 3), "out": nn.Linear(3, 6)}

        def body(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            mu, h = parts["mu"](x), parts["h"](x)
            return parts["out"](mu + (0.5 * h).exp() * torch.randn_like(mu)), mu, h

        def loss(out: Any, x: Tensor) -> Tensor:
            kl = 0.5 * (out[1] ** 2 + out[2].exp() - 1 - out[2])
            return 0.5 * (out[0] - x).pow(2).sum() + term(kl, kl.numel())

        with examined(Bare(body, **parts), X, loss=loss) as examination:
            found = [o.per_unit for o in examination.kl_offsets]
        assert found == ([] if each is None else [pytest.approx(each, abs=1e-4)])

    @pytest.mark.parametrize("returned", [True, False])
    @pytest.mark.parametrize("constant", [0.0, math.log(5), 2 * math.log(5)])
    def test_of_categories_is_the_logarithm_of_their_number(
        self, returned: bool, constant: float
    ) -> None:
        torch.manual_seed(0)
        parts = {"h": nn.Linear(6, 10), "out": nn.Linear(10, 6)}

        def body(x: Tensor) -> tuple[Tensor, Tensor]:
            h = parts["h"](x).view(-1, 2, 5)
            return parts["out"](F.gumbel_softmax(h).flatten(1)), h

        def loss(out: Any, x: Tensor) -> Any:
            log_q = out[1].log_softmax(-1)
            kl = (log_q.exp() * (log_q + math.log(5) - constant)).sum((1, 2)).mean()
            total = 0.5 * (out[0] - x).pow(2).sum(1).mean() + 3 * kl
            return (total, {"kl": kl}) if returned else total

        with examined(Bare(body, **parts), X, loss=loss) as examination:
            (offset,) = examination.kl_offsets
        assert (offset.name, offset.categories) == ("kl" if returned else "", 5)
        assert offset.per_unit == pytest.approx(-constant, abs=1e-5)
        assert offset.total == pytest.approx(-2 * constant, abs=1e-4)


class Linear(nn.Module):
    """z -> z @ W, whose log |det| torch knows; a row-wise gate makes it differ by row."""

    def __init__(self, report: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.eye(3) + 0.2 * torch.rand(3, 3))
        self.report = report

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        made = torch.sinh(z) @ self.weight
        log_det = z.cosh().log().sum(1) + torch.linalg.slogdet(self.weight)[1]
        return made, self.report(log_det)


class TestLogDet:
    @pytest.mark.parametrize("factor", [1.0, -1.0, 2.0, 1 / 3])
    @pytest.mark.parametrize("sign", [1.0, -1.0])
    def test_factor_and_pull(self, factor: float, sign: float) -> None:
        torch.manual_seed(0)
        flow = Linear(lambda log_det: factor * log_det)
        parts = {"flow": flow, "mu": nn.Linear(6, 3), "h": nn.Linear(6, 3), "out": nn.Linear(3, 6)}

        def body(x: Tensor) -> tuple[Tensor, Tensor]:
            mu = parts["mu"](x)
            z, log_det = flow(mu + torch.exp(0.5 * parts["h"](x)) * torch.randn_like(mu))
            return parts["out"](z), -sign * log_det

        with examined(Bare(body, **parts), X, loss=recon) as examination:
            (found,) = examination.log_dets
        assert found.factor == pytest.approx(factor, rel=1e-3)
        assert found.pull == -sign
        assert found.reported == pytest.approx([factor * t for t in found.true], rel=1e-3)

    def test_what_all_steps_report_is_used_where_their_sum_meets_the_rest(self) -> None:
        torch.manual_seed(0)
        one, two = Linear(lambda log_det: log_det), Linear(lambda log_det: log_det)
        heads = {"mu": nn.Linear(6, 3), "h": nn.Linear(6, 3), "out": nn.Linear(3, 6)}
        parts = {"one": one, "two": two, **heads}

        def body(x: Tensor) -> tuple[Tensor, Tensor]:
            mu, h = parts["mu"](x), parts["h"](x)
            z = mu + torch.exp(0.5 * h) * torch.randn_like(mu)
            total: Any = 0.0
            for flow in (one, two):
                z, log_det = flow(z)
                total = total + log_det
            return parts["out"](z), 0.5 * mu.square().sum(1) + total

        with examined(Bare(body, **parts), X, loss=recon) as examination:
            used = {text_of(d.used_at) for d in examination.log_dets}
        assert used == {"0.5 * mu.square().sum(1) + total"}

    def test_other_numbers_a_row_are_not_judged(self) -> None:
        torch.manual_seed(0)
        flow = Linear(lambda log_det: log_det.sin() + torch.linspace(0, 1, 8))
        parts = {"flow": flow, "mu": nn.Linear(6, 3), "out": nn.Linear(3, 6)}

        def body(x: Tensor) -> tuple[Tensor, Tensor]:
            mu = parts["mu"](x)
            z, other = flow(mu + torch.exp(mu) * torch.randn_like(mu))
            return parts["out"](z), other

        with examined(Bare(body, **parts), X, loss=recon) as examination:
            assert examination.log_dets == []


class TestAggregation:
    @pytest.mark.parametrize(
        ("join", "axis", "rewards"),
        [
            (lambda w: -(torch.logsumexp(w, 0) - math.log(5)).mean(), "samples", True),
            (lambda w: -torch.logsumexp(w.t(), 1).sum(), "samples", True),
            (lambda w: -torch.logsumexp(w, 1).mean(), "rows", True),
            (lambda w: -torch.logsumexp(-w, 0).mean(), "samples", False),
        ],
    )
    def test_axis_and_sign(self, join: Any, axis: str, rewards: bool) -> None:
        torch.manual_seed(0)
        parts = {"mu": nn.Linear(6, 3), "h": nn.Linear(6, 3), "out": nn.Linear(3, 6)}

        def body(x: Tensor) -> tuple[Tensor, Tensor]:
            q = Normal(parts["mu"](x), torch.exp(0.5 * parts["h"](x)))
            z = q.rsample(torch.Size([5]))
            return parts["out"](z), (Normal(0.0, 1.0).log_prob(z) - q.log_prob(z)).sum(-1)

        def loss(out: Any, x: Tensor) -> Tensor:
            total: Tensor = join(Normal(out[0], 1.0).log_prob(x).sum(-1) + out[1])
            return total

        with examined(Bare(body, **parts), X, loss=loss) as examination:
            (found,) = examination.aggregations
        assert (found.axis, found.rewards, found.samples) == (axis, rewards, 5)


LOGITS = torch.randn(8, 5, generator=torch.Generator().manual_seed(0))
P, LOG_P = LOGITS.softmax(-1), LOGITS.log_softmax(-1)


@pytest.mark.parametrize(
    ("first", "second", "options", "count"),
    [
        (LOG_P, P, {}, 0),
        (LOG_P, LOG_P, {"log_target": True}, 0),
        (LOG_P, P, {"reduction": "batchmean"}, 0),
        (P, P, {}, 1),
        (LOG_P, LOG_P, {}, 1),
        (LOG_P, P, {"log_target": True}, 1),
        (P, P, {"log_target": True}, 2),
        (LOG_P.t(), P.t(), {"reduction": "batchmean"}, 1),
        (LOGITS, LOGITS, {}, 0),
    ],
)
def test_operands_of_kl_div(first: Tensor, second: Tensor, options: Any, count: int) -> None:
    weight = nn.Parameter(torch.zeros(()))
    recording = step(
        Bare(
            lambda x: F.kl_div(first + weight, second, **{"reduction": "sum", **options}), w=weight
        ),
        X,
    )
    assert len(list(misuses(recording, 8))) == count


@pytest.mark.parametrize(
    ("bound", "low", "high"),
    [
        (torch.relu, 0, 30),
        (torch.tanh, -1, 1),
        (torch.sigmoid, 0, 1),
        (lambda h: F.softplus(h) + 2, 2, 32),
        (lambda h: h.clamp(-4, 3), -4, 3),
    ],
)
def test_the_reach_of_a_location(
    bound: Callable[[Tensor], Tensor], low: float, high: float
) -> None:
    class Bounded(VAE):
        def forward(self, x: Tensor) -> Any:
            mu, std = bound(self.mu(x)), torch.exp(0.5 * self.h(x))
            z = mu + std * torch.randn_like(mu)
            return self.out(z), exact(mu, std, std, z)

    with examined(Bounded(torch.exp, exact), X, loss=recon) as examination:
        (reach,) = examination.head_reaches
    assert reach.part == "location"
    assert (reach.low, reach.high) == pytest.approx((low, high), abs=1e-4)


def test_a_plain_head_has_no_bound() -> None:
    with examined(VAE(torch.exp, exact), X, loss=recon) as examination:
        assert examination.head_reaches == []


class Coupling(nn.Module):
    """Half of z scales and shifts the other half; `told` makes the reported number of the scale."""

    def __init__(self, *, first: bool, told: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.net, self.first, self.told = nn.Linear(2, 4), first, told

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        a, b = z.chunk(2, 1) if self.first else reversed(z.chunk(2, 1))
        s, t = self.net(a).chunk(2, 1)
        b = b * torch.exp(torch.tanh(s)) + t
        return torch.cat([a, b] if self.first else [b, a], 1), self.told(s).sum(1)


def coupled(
    *told: Callable[[Tensor], Tensor],
    early: bool = False,
    entropy: float = 1.0,
    sign: float = 1.0,
    capacity: float = 0.0,
    of: str = "transports",
) -> Any:
    """What is found of two coupling steps behind a sample, in a loss that subtracts their sum.

    `early` scores the sample under the prior before them; `entropy` weighs log q of the sample,
    `sign` the KL as a whole, which a `capacity` holds up.
    """
    torch.manual_seed(0)
    steps = nn.ModuleList([Coupling(first=i == 0, told=t) for i, t in enumerate(told)])
    parts = {"steps": steps, "mu": nn.Linear(6, 4), "h": nn.Linear(6, 4), "out": nn.Linear(4, 6)}

    def body(x: Tensor) -> tuple[Tensor, Tensor]:
        q = Normal(parts["mu"](x), parts["h"](x).exp())
        z = q.rsample()
        log_q = entropy * q.log_prob(z).sum(1)
        log_p = Normal(0.0, 1.0).log_prob(z).sum(1)
        for coupling in steps:
            z, log_det = coupling(z)
            log_q = log_q - log_det
        log_p = log_p if early else Normal(0.0, 1.0).log_prob(z).sum(1)
        kl = log_q - log_p
        return parts["out"](z), (kl - capacity).abs() if capacity else sign * kl

    with examined(Bare(body, **parts), X, loss=recon) as examination:
        return getattr(examination, of)


def test_a_step_that_reports_another_number_than_its_determinant_is_told() -> None:
    (right,) = coupled(torch.tanh, torch.tanh)
    assert right.log_det == pytest.approx(-1, abs=1e-2)
    assert right.instead is None
    (wrong,) = coupled(torch.tanh, lambda s: s)
    assert wrong.path == "steps.1"
    counted, true = wrong.instead
    assert counted != pytest.approx(true, rel=1e-2)


@pytest.mark.parametrize("entropy", [1.0, 0.5])
def test_a_prior_of_the_sample_before_the_flow_is_told_whatever_the_entropys_weight(
    entropy: float,
) -> None:
    (wrong,) = coupled(torch.tanh, torch.tanh, early=True, entropy=entropy)
    assert (wrong.log_det, wrong.prior_before) == pytest.approx((-1 / entropy, 1 / entropy), 1e-2)
    assert wrong.early
    assert wrong.prior_at is not None
    assert text_of(wrong.prior_at) == "Normal(0.0, 1.0).log_prob(z)"
    (right,) = coupled(torch.tanh, torch.tanh)
    assert not right.early


@pytest.mark.parametrize("sign", [1.0, -3.0])
@pytest.mark.parametrize(("entropy", "scales"), [(1.0, 0.0), (2.0, 2.0), (0.5, 0.5)])
def test_a_flow_that_is_right_beside_log_q_of_another_scale(
    entropy: float, scales: float, sign: float
) -> None:
    (found,) = coupled(torch.tanh, torch.tanh, entropy=entropy, sign=sign)
    assert found.log_det == pytest.approx(-found.prior, 1e-2)
    assert found.scales == pytest.approx(scales, 1e-2)
    assert found.weight * sign > 0


@pytest.mark.parametrize("sign", [1.0, 0.25, -3.0])
def test_a_kl_behind_a_flow_has_its_weight_near_and_far(sign: float) -> None:
    (found,) = coupled(torch.tanh, torch.tanh, sign=sign, of="flow_kls").values()
    assert (found.weight, found.far) == pytest.approx((sign * len(X), sign * len(X)), rel=1e-2)


def test_a_capacity_behind_a_flow_is_no_kl_that_pushes_away() -> None:
    (found,) = coupled(torch.tanh, torch.tanh, capacity=40.0, of="flow_kls").values()
    assert found.weight < 0 <= found.far


def test_a_flow_whose_parts_disagree_makes_no_kl() -> None:
    assert not coupled(torch.tanh, torch.tanh, entropy=0.5, of="flow_kls")
    assert not coupled(torch.tanh, torch.tanh, early=True, of="flow_kls")
    assert not coupled(torch.tanh, lambda s: s, of="flow_kls")


def test_several_draws_in_front_are_compared_with_one_input() -> None:
    """`x * logit` of [K, B, D] logits, in a forward pass that returns the bound alone."""
    torch.manual_seed(0)
    parts = {"mu": nn.Linear(6, 3), "h": nn.Linear(6, 3), "out": nn.Linear(3, 6)}

    def body(x: Tensor) -> Tensor:
        mu, h = parts["mu"](x), parts["h"](x)
        z = mu + (0.5 * h).exp() * torch.randn(5, *mu.shape)
        logit = parts["out"](z)
        log_x = (x * logit - F.softplus(logit)).sum(-1)
        log_q = (-0.5 * (z - mu) ** 2 / h.exp() - 0.5 * h).sum(-1)
        log_w = log_x - 0.5 * (z**2).sum(-1) - log_q
        return -(torch.logsumexp(log_w, 0) - math.log(5)).mean()

    with examined(Bare(body, **parts), X.clamp(0, 1), loss=lambda out, x: out) as examination:
        (found,) = examination.aggregations
        x_hat = examination.anatomy.x_hat
    assert (found.axis, found.rewards) == ("samples", True)
    assert x_hat is not None
    assert x_hat.shape == (5, 8, 6)


def divergence(m1: Tensor, s1: Tensor, m2: Tensor, s2: Tensor) -> Tensor:
    apart = s1.pow(2) + (m1 - m2).pow(2)
    return (s2.log() - s1.log() + apart / (2 * s2.pow(2)) - 0.5).sum(1)


def reverse(m1: Tensor, s1: Tensor, m2: Tensor, s2: Tensor) -> Tensor:
    apart = s2.pow(2) + (m2 - m1).pow(2)
    return (s1.log() - s2.log() + apart / (2 * s1.pow(2)) - 0.5).sum(1)


@pytest.mark.parametrize("inside", [True, False])
def test_a_swap_is_placed_at_the_call_or_in_the_function(inside: bool) -> None:
    torch.manual_seed(0)
    heads = {name: nn.Linear(6, 3) for name in ("mu", "h", "prior", "wide")}
    parts = {**heads, "out": nn.Linear(3, 6)}

    def body(x: Tensor) -> tuple[Tensor, Tensor]:
        mu, s = parts["mu"](x), parts["h"](x).exp()
        given = x.roll(1, 1)
        a, b = parts["prior"](given), parts["wide"](given).exp()
        z = mu + s * torch.randn_like(mu)
        kl = reverse(mu, s, a, b) if inside else divergence(a, b, mu, s)
        return parts["out"](z), kl

    with examined(Bare(body, **parts), X, loss=recon) as examination:
        (found,) = examination.require_divergences()
        call = examination.swapped_at(found)
    assert found.reversed
    if inside:
        assert call is None
    else:
        assert call is not None
        assert call.line == body.__code__.co_firstlineno + 5


def test_a_swap_in_the_loss_itself_is_placed_there() -> None:
    """The loss is called with x before the posterior, which says nothing of the KL's order."""
    torch.manual_seed(0)
    parts = {"mu": nn.Linear(6, 3), "h": nn.Linear(6, 3), "out": nn.Linear(3, 6)}

    def body(x: Tensor) -> tuple[Tensor, ...]:
        mu, s = parts["mu"](x), parts["h"](x).exp()
        return parts["out"](mu + s * torch.randn_like(mu)), mu, s

    def total(x: Tensor, x_hat: Tensor, mu: Tensor, s: Tensor) -> Tensor:
        fixed = x.square().sum() - 2 * (x * x_hat).sum() + x_hat.square().sum()
        kl = kl_divergence(Normal(0.0, 1.0), Normal(mu, s.sqrt().square())).sum()
        return 0.5 * fixed + kl

    with examined(Bare(body, **parts), X, loss=lambda out, x: total(x, *out)) as examination:
        (found,) = examination.require_divergences()
        assert found.reversed
        assert examination.swapped_at(found) is None


@pytest.mark.parametrize(("way", "line"), [("left out", 3), ("item", None), ("added later", None)])
def test_a_kl_that_never_reaches_the_loss_is_placed(way: str, line: int | None) -> None:
    torch.manual_seed(0)
    parts = {"mu": nn.Linear(6, 3), "h": nn.Linear(6, 3), "out": nn.Linear(3, 6)}

    def body(x: Tensor) -> tuple[Tensor, ...]:
        mu, s = parts["mu"](x), parts["h"](x).exp()
        return parts["out"](mu + s * torch.randn_like(mu)), mu, s

    def total(out: Any, x: Tensor) -> Tensor:
        loss: Tensor = 0.5 * (out[0] - x).pow(2).sum()
        kl = 0.5 * (out[1] ** 2 + out[2] ** 2 - 1) - out[2].log()
        kept = kl.sum().item() if way == "item" else kl.sum()
        return loss + kept if way == "item" else loss * 2.0 if way == "added later" else loss

    with examined(Bare(body, **parts), X, loss=total) as examination:
        (found,) = examination.require_divergences()
        assert found.missing
        at = examination.left_out_at(found.latent)
    assert (at and at.line) == (line and total.__code__.co_firstlineno + line)
