"""Categorical latents, and Gaussian ones whose prior is not N(0, I)."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from steps import examined
from test_unlike_styles import line_of
from torch import Tensor, nn
from torch.distributions import (
    Bernoulli,
    Dirichlet,
    Normal,
    OneHotCategorical,
    RelaxedBernoulli,
    kl_divergence,
)
from traps.objectives import WeightedMinibatch

import vaedoctor
from vaedoctor.examine.code.listing import text_of
from vaedoctor.examine.objective.bits import are_bits

Penalty = Callable[[Tensor], Tensor]  # of logits [rows, 3, 5]


def found(model: nn.Module, x: Tensor) -> set[str]:
    """The codes of errors and warnings, and of the note of an averaged KL."""
    torch.manual_seed(0)
    report = vaedoctor.check(model, x, objective=lambda m, given: m.loss(given))
    notes = {"VAE704"}
    return {f.code for f in report.findings if f.severity.value != "note" or f.code in notes}


def rows() -> Tensor:
    return torch.rand(8, 16, generator=torch.Generator().manual_seed(0))


def divergence(logits: Tensor) -> Tensor:
    log_q = logits.log_softmax(-1)
    return (log_q.exp() * (log_q + math.log(5))).sum((1, 2)).mean()


def reverse(logits: Tensor) -> Tensor:
    return -logits.log_softmax(-1).mean(-1).sum(1).mean()


class Categories(nn.Module):
    """Three relaxed categories of five."""

    def __init__(self, penalty: Penalty, draw: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.penalty, self.draw = penalty, draw
        self.q, self.p = nn.Linear(16, 15), nn.Linear(15, 16)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.q(x).view(-1, 3, 5)
        return self.p(self.draw(logits).flatten(1)), logits

    def loss(self, x: Tensor) -> Tensor:
        y, logits = self(x)
        return F.binary_cross_entropy_with_logits(y, x, reduction="sum") / len(x) + self.penalty(
            logits
        )


@pytest.mark.parametrize(
    ("penalty", "codes"),
    [
        (divergence, set()),
        (lambda logits: -divergence(logits), {"VAE703"}),
        (reverse, {"VAE717"}),
        (lambda logits: 8 * divergence(logits), {"VAE711"}),
        (lambda logits: divergence(logits) / 3, {"VAE704"}),
        (lambda logits: divergence(logits) / 15, {"VAE704"}),
        (lambda logits: logits.new_zeros(()), {"VAE702"}),
    ],
    ids=["right", "negative", "reverse", "summed", "mean of groups", "mean", "none"],
)
def test_the_kl_of_a_category_is_judged(penalty: Penalty, codes: set[str]) -> None:
    if "VAE711" in codes:  # a sum over rows, written so that it follows the batch

        def penalty(logits: Tensor) -> Tensor:
            return len(logits) * divergence(logits)

    assert found(Categories(penalty, F.gumbel_softmax), rows()) == codes


def test_the_axis_of_the_categories_is_that_of_the_sample() -> None:
    def of_the_groups(logits: Tensor) -> Tensor:
        log_q = logits.log_softmax(1)
        return (log_q.exp() * (log_q + math.log(3))).sum((1, 2)).mean()

    def noisy(logits: Tensor) -> Tensor:
        return (logits - torch.rand_like(logits).log().neg().log()).softmax(-1)

    for draw in (F.gumbel_softmax, noisy):
        assert found(Categories(of_the_groups, draw), rows()) == {"VAE701"}
        assert found(Categories(divergence, draw), rows()) == set()
    assert not found(Categories(of_the_groups, lambda h: F.gumbel_softmax(h, dim=1)), rows())


class Rearranged(Categories):
    """Logits whose categories lie along another axis, the rows perhaps too."""

    def __init__(self, order: tuple[int, ...], penalty: Penalty) -> None:
        axis = order.index(2)
        super().__init__(penalty, lambda h: F.gumbel_softmax(h, dim=axis))
        self.order, self.back = order, [order.index(n) for n in range(3)]

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.q(x).view(-1, 3, 5).permute(self.order)
        return self.p(self.draw(logits).permute(self.back).flatten(1)), logits

    def loss(self, x: Tensor) -> Tensor:
        y, logits = self(x)
        kl = self.penalty(logits.log_softmax(self.order.index(2)).permute(self.back))
        return F.binary_cross_entropy_with_logits(y, x, reduction="sum") / len(x) + kl


@pytest.mark.parametrize("order", [(0, 1, 2), (0, 2, 1), (2, 0, 1), (1, 2, 0)])
@pytest.mark.parametrize(
    ("penalty", "codes"),
    [
        (divergence, set()),
        (lambda log_q: -divergence(log_q), {"VAE703"}),
        (reverse, {"VAE717"}),
        (lambda log_q: len(log_q) * divergence(log_q), {"VAE711"}),
        (lambda log_q: divergence(log_q) / 3, {"VAE704"}),
    ],
    ids=["right", "negative", "reverse", "summed", "mean of groups"],
)
def test_categories_along_any_axis(
    order: tuple[int, ...], penalty: Penalty, codes: set[str]
) -> None:
    assert found(Rearranged(order, penalty), rows()) == codes


def test_a_category_that_is_detached_or_not_drawn_is_told() -> None:
    assert found(Categories(divergence, lambda h: F.gumbel_softmax(h).detach()), rows()) == {
        "VAE302"
    }
    assert found(Categories(divergence, lambda h: h.softmax(-1)), rows()) == {"VAE301"}


def one_hot(logits: Tensor) -> Tensor:
    return OneHotCategorical(logits=logits).sample()


def straight(logits: Tensor) -> Tensor:
    p = logits.softmax(-1)
    return OneHotCategorical(probs=p).sample() + p - p.detach()


class Surrogate(Categories):
    """A drawn category that a score function teaches."""

    def loss(self, x: Tensor) -> Tensor:
        logits = self.q(x).view(-1, 3, 5)
        z = self.draw(logits)
        y = self.p(z.flatten(1))
        nll = F.binary_cross_entropy_with_logits(y, x, reduction="none").sum(1)
        score = OneHotCategorical(logits=logits).log_prob(z).sum(1) * nll.detach()
        return (nll + score - score.detach()).mean() + self.penalty(logits)


def test_a_drawn_category_needs_another_teacher() -> None:
    assert found(Categories(divergence, one_hot), rows()) == {"VAE302"}
    assert not found(Categories(divergence, straight), rows())
    assert not found(Surrogate(divergence, one_hot), rows())


class Scored(nn.Module):
    """log q - log p of one sample, p being a mixture that is learned."""

    def __init__(self, log_q: Callable[[Tensor, Tensor, Tensor], Tensor], sign: float = 1) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.log_q, self.sign = log_q, sign
        self.mu, self.h, self.p = nn.Linear(16, 3), nn.Linear(16, 3), nn.Linear(3, 16)
        self.centres = nn.Parameter(torch.randn(5, 3))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        mu, h = self.mu(x), self.h(x)
        z = mu + torch.exp(0.5 * h) * torch.randn_like(mu)
        return self.p(z), z, mu, h

    def loss(self, x: Tensor) -> Tensor:
        y, z, mu, h = self(x)
        parts = Normal(self.centres, 1.0).log_prob(z.unsqueeze(1)).sum(2)
        log_p = torch.logsumexp(parts, 1) - math.log(5)
        kl = self.log_q(z, mu, h).sum(1) - log_p
        return (0.5 * (y - x).square().sum(1) + self.sign * kl).mean()


def right(z: Tensor, mu: Tensor, h: Tensor) -> Tensor:
    return -0.5 * (h + (z - mu).square() * torch.exp(-h))


def as_deviation(z: Tensor, mu: Tensor, h: Tensor) -> Tensor:
    return Normal(mu, h.exp()).log_prob(z)


def without_half(z: Tensor, mu: Tensor, h: Tensor) -> Tensor:
    return -h - 0.5 * (z - mu).square() * torch.exp(-h)


def test_log_q_is_judged_beside_a_learned_mixture() -> None:
    assert found(Scored(right), rows()) == set()
    assert found(Scored(as_deviation), rows()) == {"VAE303"}
    assert found(Scored(without_half), rows()) == {"VAE701"}
    assert found(Scored(right, -1), rows()) == {"VAE703"}


class Conditional(nn.Module):
    """Two levels, the lower one with a prior that the upper one gives."""

    def __init__(self, lower: Callable[[Normal, Normal], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.lower = lower
        self.q2, self.p1, self.q1 = nn.Linear(16, 4), nn.Linear(2, 6), nn.Linear(18, 6)
        self.out = nn.Linear(5, 16)

    @staticmethod
    def normal(made: Tensor) -> Normal:
        loc, h = made.chunk(2, -1)
        return Normal(loc, F.softplus(h) + 1e-3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        top = self.normal(self.q2(x))
        z2 = top.rsample()
        prior, bottom = self.normal(self.p1(z2)), self.normal(self.q1(torch.cat([x, z2], 1)))
        y = self.out(torch.cat([bottom.rsample(), z2], 1))
        kl = kl_divergence(top, Normal(0.0, 1.0)).sum(1) + self.lower(bottom, prior)
        return (0.5 * (y - x).square().sum(1) + kl).mean(), y

    def loss(self, x: Tensor) -> Tensor:
        return self(x)[0]


def test_a_learned_prior_does_not_hide_the_order_or_the_sign_of_a_kl() -> None:
    assert found(Conditional(lambda q, p: kl_divergence(q, p).sum(1)), rows()) == set()
    assert found(Conditional(lambda q, p: kl_divergence(p, q).sum(1)), rows()) == {"VAE717"}
    assert found(Conditional(lambda q, p: -kl_divergence(q, p).sum(1)), rows()) == {"VAE703"}


class Plain(nn.Module):
    """One Gaussian latent whose KL is given."""

    def __init__(self, term: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.term = term
        self.mu, self.h, self.p = nn.Linear(16, 3), nn.Linear(16, 3), nn.Linear(3, 16)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mu, h = self.mu(x), self.h(x)
        return self.p(mu + torch.exp(0.5 * h) * torch.randn_like(mu)), mu, h

    def loss(self, x: Tensor) -> Tensor:
        y, mu, h = self(x)
        kl = 0.5 * (self.term(mu) + h.exp() - h - 1).sum(1)
        return (0.5 * (y - x).square().sum(1) + kl).mean()


@pytest.mark.parametrize(
    ("term", "codes"),
    [
        (torch.square, set()),
        (torch.abs, {"VAE701"}),
        (lambda mu: mu, {"VAE701"}),
        (lambda mu: mu.square() + 0.3 * mu.abs(), set()),  # a penalty beside the KL
    ],
    ids=["square", "size", "plain", "square and size"],
)
def test_a_location_that_enters_by_its_size_is_told(
    term: Callable[[Tensor], Tensor], codes: set[str]
) -> None:
    assert found(Plain(term), rows()) == codes


class Upper(nn.Module):
    """Two layers: z2 makes the prior of z1 and never reaches the decoder."""

    def __init__(self, *terms: str) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.one, self.two = nn.Linear(12, 6), nn.Linear(3, 4)
        self.prior, self.decoder, self.terms = nn.Linear(2, 6), nn.Linear(3, 12), terms

    def forward(self, x: Tensor) -> Tensor:
        q1 = normal(self.one(x))
        z1 = q1.rsample()
        q2 = normal(self.two(z1))
        z2 = q2.rsample()
        standard = Normal(torch.zeros_like(z2), torch.ones_like(z2))
        spread = (z2.mean(0) ** 2 + (z2.var(0) - 1) ** 2).sum()
        prior = normal(self.prior(z2))
        known = {
            "lower": kl_divergence(q1, prior).sum(),
            "swapped": apart(prior.loc, prior.scale, q1.loc, q1.scale),
            "upper": kl_divergence(q2, standard).sum(),
            "sampled": (q2.log_prob(z2) - standard.log_prob(z2)).sum(),
            "matched": spread,
        }
        loss: Tensor = 0.5 * (self.decoder(z1) - x).square().sum()
        return loss + sum(known[t] for t in self.terms)


def apart(m1: Tensor, s1: Tensor, m2: Tensor, s2: Tensor) -> Tensor:
    """KL(N(m1, s1) || N(m2, s2)), by hand."""
    return ((s2 / s1).log() + (s1**2 + (m1 - m2) ** 2) / (2 * s2**2) - 0.5).sum()


def normal(h: Tensor) -> Normal:
    mu, logvar = h.chunk(2, -1)
    return Normal(mu, (logvar / 2).exp())


@pytest.mark.parametrize(
    ("terms", "missing"),
    [
        (("lower",), True),
        (("lower", "upper"), False),
        (("lower", "sampled"), False),
        (("lower", "matched"), False),
    ],
)
def test_an_upper_latent_without_a_kl(terms: tuple[str, ...], missing: bool) -> None:
    report = vaedoctor.check(Upper(*terms), torch.rand(8, 12))
    assert ("VAE712" in {f.code for f in report.findings}) is missing
    assert report.ok is not missing


def test_a_prior_before_its_posterior_is_placed_at_the_call() -> None:
    """Though that prior is made of the posterior's own sample, by way of the upper latent."""
    report = vaedoctor.check(Upper("swapped", "upper"), torch.rand(8, 12), select=["VAE717"])
    (found,) = report.findings
    assert found.at is not None
    assert text_of(found.at) == "apart(prior.loc, prior.scale, q1.loc, q1.scale)"


class Downwards(nn.Module):
    """The prior of the lower latent is drawn from the upper one: that sample needs no KL."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.top, self.low, self.middle = nn.Linear(12, 4), nn.Linear(12, 6), nn.Linear(2, 6)
        self.prior, self.decoder = nn.Linear(3, 6), nn.Linear(3, 12)

    def forward(self, x: Tensor) -> Tensor:
        q2, q1 = normal(self.top(x)), normal(self.low(x))
        z2, z1 = q2.rsample(), q1.rsample()
        drawn = normal(self.middle(z2)).rsample()
        standard = Normal(torch.zeros_like(z2), torch.ones_like(z2))
        kl = kl_divergence(q2, standard).sum() + kl_divergence(q1, normal(self.prior(drawn))).sum()
        loss: Tensor = 0.5 * (self.decoder(z1) - x).square().sum() + kl
        return loss


def test_a_prior_sampled_on_its_way_down_needs_no_kl() -> None:
    assert "VAE712" not in {
        f.code for f in vaedoctor.check(Downwards(), torch.rand(8, 12)).findings
    }


class Ladder(nn.Module):
    """q(z1|x) q(z2|z1) with a learned p(z1|z2), and a KL between normals by hand."""

    def __init__(self, divergence: Callable[..., Tensor]) -> None:
        super().__init__()
        torch.manual_seed(6)
        self.q1, self.q2 = nn.Linear(16, 8), nn.Linear(4, 6)
        self.p1, self.px = nn.Linear(3, 8), nn.Linear(4, 16)
        self.divergence = divergence

    def loss(self, x: Tensor) -> Tensor:
        x_hat, kl = self(x)
        total: Tensor = (0.5 * (x_hat - x).pow(2).sum(-1) + kl).mean()
        return total

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        m, s = self.q1(x).chunk(2, -1)
        z = m + s.exp() * torch.randn_like(m)
        n, t = self.q2(z).chunk(2, -1)
        top = n + t.exp() * torch.randn_like(n)
        a, b = self.p1(top).chunk(2, -1)
        zero = torch.zeros_like(n)
        kl = self.divergence(m, s, a, b).sum(-1) + self.divergence(n, t, zero, zero).sum(-1)
        return self.px(z), kl


class Levels(Ladder):
    """The same with an upper KL of another sign or weight, or a lower one that is detached."""

    def __init__(self, slip: str) -> None:
        super().__init__(between(2, 2))
        self.slip = slip

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        m, s = self.q1(x).chunk(2, -1)
        z = m + s.exp() * torch.randn_like(m)
        n, t = self.q2(z).chunk(2, -1)
        top = n + t.exp() * torch.randn_like(n)
        a, b = self.p1(top).chunk(2, -1)
        upper, standard = (n, t), (torch.zeros_like(n), torch.zeros_like(n))
        kl_top = self.divergence(*upper, *standard).sum(-1)
        if self.slip == "cut":
            m, s = m.detach(), s.detach()
        kl_low = self.divergence(m, s, a, b).sum(-1)
        if self.slip == "mean":
            kl_top = kl_top / 3
        return self.px(z), kl_low - kl_top if self.slip == "turned" else kl_low + kl_top


@pytest.mark.parametrize(
    ("slip", "codes"),
    [
        ("", []),
        ("turned", ["VAE703"]),
        ("cut", ["VAE712"]),
        ("mean", ["VAE704"]),
    ],
)
def test_the_kl_of_an_upper_latent_is_judged(slip: str, codes: list[str]) -> None:
    report = vaedoctor.check(Levels(slip), rows(), objective="loss", select=["VAE7"])
    assert [f.code for f in report.findings] == codes
    if slip == "cut":
        assert text_of(report.findings[0].at) == "m.detach()"


def between(distance: int, ratio: int) -> Callable[..., Tensor]:
    """The KL with these powers of the prior's scale and of the ratio of the scales."""

    def divergence(m: Tensor, s: Tensor, a: Tensor, b: Tensor) -> Tensor:
        means = 0.5 * (m - a).pow(2) * torch.exp(-distance * b)
        return means + torch.exp(ratio * (s - b)) / ratio - 0.5 - (s - b)

    return divergence


@pytest.mark.parametrize(
    ("distance", "ratio", "codes"),
    [(2, 2, set()), *((d, r, {"VAE701"}) for d, r in [(0, 2), (1, 2), (2, 1), (-2, 2)])],
)
def test_a_kl_to_a_learned_prior_by_hand(distance: int, ratio: int, codes: set[str]) -> None:
    assert found(Ladder(between(distance, ratio)), rows()) & {"VAE701", "VAE717"} == codes


def test_a_kl_to_a_learned_prior_taken_the_wrong_way() -> None:
    right = between(2, 2)
    model = Ladder(lambda m, s, a, b: right(a, b, m, s))
    assert "VAE717" in found(model, rows())


def test_the_right_kl_is_that_of_torch() -> None:
    m, s, a, b = torch.randn(4, 5, 3)
    ours = between(2, 2)(m, s, a, b)
    theirs = torch.distributions.kl_divergence(Normal(m, s.exp()), Normal(a, b.exp()))
    assert torch.allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize(("squares", "logs"), [(1.0, 1.0), (0.5, 2.0), (0.5, 1.0)])
def test_a_half_that_a_kl_to_a_learned_prior_lacks(squares: float, logs: float) -> None:
    def divergence(m: Tensor, s: Tensor, a: Tensor, b: Tensor) -> Tensor:
        ratio = torch.exp(2 * s) + (m - a) ** 2
        return squares * ratio / torch.exp(2 * b) - logs * (s - b) - 0.5

    report = vaedoctor.check(Ladder(divergence), rows(), objective=lambda m, given: m.loss(given))
    least = math.sqrt(logs / squares / 2)
    said = f"least where the sample's scale is {least:.3g} times the prior's"
    told = [f for f in report.findings if f.code == "VAE701" and said in f.message]
    assert bool(told) is (least != 1)


@pytest.mark.parametrize(
    ("logs", "codes"), [(1.0, set()), *((n, {"VAE701"}) for n in (2.0, 0.5, 0.0, -1.0))]
)
def test_the_logarithm_of_a_learned_priors_scale(logs: float, codes: set[str]) -> None:
    """The posterior knows nothing of it: a scale may stand for its square everywhere else."""

    def divergence(m: Tensor, s: Tensor, a: Tensor, b: Tensor) -> Tensor:
        apart = torch.exp(2 * s) + (m - a) ** 2
        return 0.5 * apart * torch.exp(-2 * b) - 0.5 - s + logs * b

    assert found(Ladder(divergence), rows()) & {"VAE701", "VAE717"} == codes


def test_a_variance_for_a_learned_priors_scale() -> None:
    def divergence(m: Tensor, s: Tensor, a: Tensor, b: Tensor) -> Tensor:
        apart = torch.exp(2 * s) + (m - a) ** 2
        return 0.5 * apart * torch.exp(-b) - 0.5 - s + b

    report = vaedoctor.check(Ladder(divergence), rows(), objective=lambda m, given: m.loss(given))
    (told,) = (f for f in report.findings if f.code == "VAE701")
    # By hand: with B = b/2 the loss holds 2 B + apart / (2 exp(2 B)), where a KL has one B.
    assert told.measured["weight of the prior's logarithm"] == pytest.approx(2, abs=1e-2)


def test_a_learned_prior_that_is_trained_at_another_rate_is_no_wrong_kl() -> None:
    right = between(2, 2)

    def balanced(m: Tensor, s: Tensor, a: Tensor, b: Tensor) -> Tensor:
        of_q = right(m, s, a.detach(), b.detach())
        return 0.8 * right(m.detach(), s.detach(), a, b) + 0.2 * of_q

    assert not found(Ladder(balanced), rows()) & {"VAE701", "VAE303"}


@pytest.mark.parametrize("power", [1.0, 2.0, 0.5, -1.0])
def test_a_scale_that_a_kl_to_a_learned_prior_reads_otherwise(power: float) -> None:
    right = between(2, 2)
    model = Ladder(lambda m, s, a, b: right(m, power * s, a, b))
    codes = {"VAE303"} if power != 1 else set()
    assert found(model, rows()) & {"VAE303", "VAE701", "VAE717"} == codes


def upside_down(m: Tensor, s: Tensor, a: Tensor, b: Tensor) -> Tensor:
    means = 0.5 * (m - a).pow(2) * torch.exp(-2 * b)
    return means + 0.5 * torch.exp(2 * (b - s)) - 0.5 - (s - b)


def by_its_own_variance(m: Tensor, s: Tensor, a: Tensor, b: Tensor) -> Tensor:
    means = 0.5 * (m - a).pow(2) * torch.exp(-2 * s)
    return means + 0.5 * torch.exp(2 * (s - b)) - 0.5 - (s - b)


def unsquared(m: Tensor, s: Tensor, a: Tensor, b: Tensor) -> Tensor:
    means = 0.5 * (m - a) * torch.exp(-2 * b)
    return means + 0.5 * torch.exp(2 * (s - b)) - 0.5 - (s - b)


@pytest.mark.parametrize(
    ("divergence", "said"),
    [
        (upside_down, "two variances upside down"),
        (by_its_own_variance, "posterior's variance"),
        (unsquared, "without its square"),
    ],
)
def test_a_ratio_or_a_distance_of_another_kl(divergence: Callable[..., Tensor], said: str) -> None:
    model = Ladder(divergence)
    with torch.no_grad():
        model.p1.weight.mul_(0.3)
    report = vaedoctor.check(model, rows(), objective=lambda m, given: m.loss(given))
    told = [f for f in report.findings if f.code in {"VAE701", "VAE717", "VAE303"}]
    assert told
    assert {f.code for f in told} == {"VAE701"}
    assert any(said in f.message for f in told)


class Handed(Ladder):
    """The distributions are handed over as dictionaries, the prior first."""

    def __init__(self) -> None:
        def kl(q: dict[str, Tensor], p: dict[str, Tensor]) -> Tensor:
            means = 0.5 * (q["mu"] - p["mu"]).pow(2) * torch.exp(-2 * p["log"])
            ratio = q["log"] - p["log"]
            return means + 0.5 * torch.exp(2 * ratio) - 0.5 - ratio

        def swapped(m: Tensor, s: Tensor, a: Tensor, b: Tensor) -> Tensor:
            return kl({"mu": a, "log": b}, {"mu": m, "log": s})

        super().__init__(swapped)


def test_the_call_that_hands_dictionaries_over_in_the_wrong_order_is_named() -> None:
    report = vaedoctor.check(Handed(), rows(), objective=lambda m, given: m.loss(given))
    told = [f for f in report.findings if f.code == "VAE717"]
    at = line_of("return kl({", Handed)
    assert told
    assert all(f.at is not None and f.at.line == at for f in told)


class OneMaker(nn.Module):
    """One function makes the scales of q(z1|x) and of p(z1|z2), which the KL takes to a power."""

    def __init__(self, power: float, variances: bool) -> None:
        super().__init__()
        torch.manual_seed(6)
        self.q1, self.q2 = nn.Linear(16, 8), nn.Linear(4, 6)
        self.p1, self.px = nn.Linear(3, 8), nn.Linear(4, 16)
        self.power, self.variances = power, variances

    def normal(self, h: Tensor) -> tuple[Tensor, Tensor]:
        m, s = h.chunk(2, -1)
        return m, F.softplus(s) + 1e-3

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        (m, s), (n, t) = self.normal(self.q1(x)), self.q2(x[:, :4]).chunk(2, -1)
        s = s.sqrt() if self.variances else s
        z = m + s * torch.randn_like(m)
        top = n + t.exp() * torch.randn_like(n)
        a, b = self.normal(self.p1(top))
        kl = kl_divergence(Normal(m, s), Normal(a, b**self.power)).sum(-1)
        return self.px(z), kl + kl_divergence(Normal(n, t.exp()), Normal(0.0, 1.0)).sum(-1)

    def loss(self, x: Tensor) -> Tensor:
        x_hat, kl = self(x)
        total: Tensor = (0.5 * (x_hat - x).pow(2).sum(-1) + kl).mean()
        return total


@pytest.mark.parametrize(
    ("power", "variances", "told"),
    [(1.0, False, False), (0.5, True, False), (2.0, False, True), (1.0, True, True)],
)
def test_one_line_makes_both_scales_alike(power: float, variances: bool, told: bool) -> None:
    report = vaedoctor.check(
        OneMaker(power, variances), rows(), objective="loss", select=["VAE303", "VAE7"]
    )
    found = [(f.code, f.severity.value) for f in report.findings]
    assert found == [("VAE701", "warning")] * told
    if power == 2:
        assert text_of(report.findings[0].at) == "b**self.power"


class SummedBesideAMinibatch(WeightedMinibatch):
    """The reconstruction is summed over the rows, whose densities the KL is a mean of."""

    def joined(self, nll: Tensor, kl: Tensor) -> Tensor:
        return nll.sum() + kl.mean()


class SubtractedBesideAMinibatch(WeightedMinibatch):
    """All terms on the posterior are subtracted."""

    def joined(self, nll: Tensor, kl: Tensor) -> Tensor:
        return (nll - kl).mean()


class Apart(WeightedMinibatch):
    """The rows' posteriors are kept apart beside a right KL."""

    def joined(self, nll: Tensor, kl: Tensor) -> Tensor:
        mu = self.enc(self.given)
        return (nll + kl).mean() - 0.1 * torch.pdist(mu).mean()

    def loss(self, x: Tensor) -> Tensor:
        self.given = x
        return super().loss(x)


@pytest.mark.parametrize("model", [WeightedMinibatch, SubtractedBesideAMinibatch, Apart])
def test_rows_that_move_together_feel_the_prior_alone(model: type[WeightedMinibatch]) -> None:
    made = model()
    wrong = model is SubtractedBesideAMinibatch
    report = vaedoctor.check(made, made.batch(), objective=lambda m, x: m.loss(x))
    told = [f.code for f in report.findings if f.code == "VAE703"]
    assert told == ["VAE703"] * wrong


@pytest.mark.parametrize("model", [WeightedMinibatch, SummedBesideAMinibatch])
def test_a_density_over_the_batch_is_compared_with_the_reconstruction(
    model: type[WeightedMinibatch],
) -> None:
    made = model()
    report = vaedoctor.check(made, made.batch(), objective=lambda m, x: m.loss(x))
    status = {o.code: o.status for o in report.outcomes}
    wrong = model is SummedBesideAMinibatch
    assert status["VAE711"] == ("failed" if wrong else "passed")


class Starting(nn.Module):
    """A prior with a location of its own for each unit, and one scale for all at the start."""

    def __init__(self, power: float, sign: float) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.q, self.p = nn.Linear(16, 10), nn.Linear(5, 16)
        self.centre = nn.Parameter(0.2 * torch.randn(5))
        self.width = nn.Parameter(torch.zeros(5))
        self.power, self.sign = power, sign

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        a, v = self.q(x).chunk(2, -1)
        return self.p(a + torch.exp(self.power * v) * torch.randn_like(a)), a, v

    def loss(self, x: Tensor) -> Tensor:
        y, a, v = self(x)
        far = (a - self.centre).square()
        kl = 0.5 * (self.width - v + (v.exp() + far) / self.width.exp() - 1)
        return F.mse_loss(y, x, reduction="sum") + self.sign * kl.sum()


@pytest.mark.parametrize(
    ("power", "sign", "codes"),
    [(0.5, 1.0, set()), (1.0, 1.0, {"VAE303"}), (0.5, -1.0, {"VAE703"})],
)
def test_a_learned_prior_is_judged_where_all_its_scales_start_alike(
    power: float, sign: float, codes: set[str]
) -> None:
    assert found(Starting(power, sign), rows()) == codes


class Shares(nn.Module):
    """A posterior on the simplex, of which no location and no scale can be forced."""

    def __init__(self, term: Callable[[Dirichlet, Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.q, self.p, self.term = nn.Linear(16, 4), nn.Linear(4, 16), term

    def forward(self, x: Tensor) -> tuple[Tensor, Dirichlet, Tensor]:
        q = Dirichlet(F.softplus(self.q(x)) + 0.2)
        z = q.rsample()
        return self.p(z), q, z

    def loss(self, x: Tensor) -> Tensor:
        y, q, z = self(x)
        return F.mse_loss(y, x, reduction="sum") + self.term(q, z)


def to_the_middle(q: Dirichlet, z: Tensor) -> Tensor:
    return kl_divergence(q, Dirichlet(torch.ones_like(z))).sum()


@pytest.mark.parametrize(
    ("term", "codes"),
    [
        (to_the_middle, set()),
        (lambda q, z: (z.mean(0) - 0.25).square().sum(), set()),
        (lambda q, z: to_the_middle(q, z).detach(), {"VAE702"}),
        (lambda q, z: to_the_middle(q, z).item(), {"VAE702"}),
        (lambda q, z: z.new_zeros(()), {"VAE702"}),
    ],
    ids=["kl", "moments", "detached", "number", "none"],
)
def test_a_posterior_of_any_family_that_nothing_pulls_is_told(
    term: Callable[[Dirichlet, Tensor], Tensor], codes: set[str]
) -> None:
    assert found(Shares(term), rows()) == codes


def by_logarithms(logits: Tensor) -> Tensor:
    u = torch.rand_like(logits).clamp(1e-6, 1 - 1e-6)
    return torch.sigmoid((logits + u.log() - (1 - u).log()) / 0.7)


def by_logit(logits: Tensor) -> Tensor:
    return torch.sigmoid((torch.logit(torch.rand_like(logits), eps=1e-6) + logits) * 1.5)


def by_torch(logits: Tensor) -> Tensor:
    made: Tensor = RelaxedBernoulli(torch.tensor(0.6), logits=logits).rsample()
    return made


def of_bits(logits: Tensor) -> Tensor:
    return kl_divergence(Bernoulli(logits=logits), Bernoulli(probs=torch.tensor(0.5))).sum(1).mean()


def of_bits_reversed(logits: Tensor) -> Tensor:
    return kl_divergence(Bernoulli(probs=torch.tensor(0.5)), Bernoulli(logits=logits)).sum(1).mean()


class Bits(Categories):
    """Fifteen relaxed bits."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.q(x)
        return self.p(self.draw(logits)), logits


@pytest.mark.parametrize("draw", [by_logarithms, by_logit, by_torch])
@pytest.mark.parametrize(
    ("penalty", "codes"),
    [
        (of_bits, set()),
        (lambda logits: -of_bits(logits), {"VAE703"}),
        (of_bits_reversed, {"VAE717"}),
        (lambda logits: len(logits) * of_bits(logits), {"VAE711"}),
        (lambda logits: of_bits(logits) / 15, {"VAE704"}),
        (lambda logits: logits.new_zeros(()), {"VAE702"}),
        (lambda logits: of_bits(logits - 1.4), set()),  # another prior is not judged
    ],
    ids=["right", "negative", "reverse", "summed", "mean", "none", "sparse"],
)
def test_the_kl_of_relaxed_bits_is_judged(
    draw: Callable[[Tensor], Tensor], penalty: Penalty, codes: set[str]
) -> None:
    assert found(Bits(penalty, draw), rows()) == codes


def test_a_logistic_location_that_is_decoded_as_it_is_has_no_bits() -> None:
    """Or whose sigmoid stands beside it."""

    def plain(logits: Tensor) -> Tensor:
        return logits + torch.logit(torch.rand_like(logits), eps=1e-6)

    def beside(logits: Tensor) -> Tensor:
        z = plain(logits)
        return z + torch.sigmoid(z)

    for draw in (plain, beside):
        with examined(
            Bits(of_bits, draw), rows(), loss=lambda out, x: of_bits(out[1]) + out[0].sum()
        ) as e:
            (latent,) = e.anatomy.latents
            assert latent.family == "logistic"
            assert not are_bits(e.anatomy, latent)
