"""The reconstruction's weight, the batch exponents of both terms, against plain arithmetic."""

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
from torch.distributions import Bernoulli, Laplace, Normal, StudentT

from vaedoctor.examine.objective.likelihood import Likelihood
from vaedoctor.examine.objective.reduction import Reduction
from vaedoctor.rule import Unavailable

Loss = Callable[[Tensor, Tensor], Tensor]


class VAE(nn.Module):
    def __init__(self, last: Callable[[Tensor], Tensor], features: int) -> None:
        super().__init__()
        torch.manual_seed(7)
        self.mu, self.h, self.out = (
            nn.Linear(features, 3),
            nn.Linear(features, 3),
            nn.Linear(3, features),
        )
        self.last = last

    def forward(self, x: Tensor) -> Any:
        mu, logvar = self.mu(x), self.h(x)
        z = mu + torch.exp(0.5 * logvar) * torch.randn_like(mu)
        return self.last(self.out(z)), mu, logvar


def kl(mu: Tensor, logvar: Tensor) -> Tensor:
    return 0.5 * (mu**2 + logvar.exp() - 1 - logvar)


def measured(
    recon: Loss,
    last: Callable[[Tensor], Tensor] = lambda h: h,
    *,
    rows: int = 4,
    features: int = 6,
    divergence: Callable[[Tensor], Tensor] = torch.sum,
) -> tuple[Likelihood, Reduction | None]:
    x = torch.rand(rows, features, generator=torch.Generator().manual_seed(rows))

    def loss(out: Any, x: Tensor) -> Tensor:
        total: Tensor = recon(out[0], x) + divergence(kl(out[1], out[2]))
        return total

    with examined(VAE(last, features), x, loss=loss) as examination:
        return examination.require_likelihood(), examination.batch_reduction


LIKELIHOODS: dict[str, tuple[str, float, Callable[[Tensor], Tensor], Loss]] = {
    "half a squared error": (
        "half a squared error",
        1,
        lambda h: h,
        lambda y, x: 0.5 * (y - x).pow(2).sum(),
    ),
    "mse_loss, summed": (
        "half a squared error",
        2,
        lambda h: h,
        lambda y, x: F.mse_loss(y, x, reduction="sum"),
    ),
    "Normal of unit variance": (
        "half a squared error",
        1,
        lambda h: h,
        lambda y, x: -Normal(y, 1.0).log_prob(x).sum(),
    ),
    "Normal of variance 0.01": (
        "half a squared error",
        100,
        lambda h: h,
        lambda y, x: -Normal(y, 0.1).log_prob(x).sum(),
    ),
    "binary cross-entropy": (
        "Bernoulli",
        1,
        torch.sigmoid,
        lambda y, x: F.binary_cross_entropy(y, x, reduction="sum"),
    ),
    "binary cross-entropy with logits": (
        "Bernoulli with logits",
        1,
        lambda h: h,
        lambda y, x: F.binary_cross_entropy_with_logits(y, x, reduction="sum"),
    ),
    "Bernoulli": (
        "Bernoulli with logits",
        1,
        lambda h: h,
        lambda y, x: -Bernoulli(logits=y, validate_args=False).log_prob(x).sum(),
    ),
    "by hand": (
        "Bernoulli",
        1,
        torch.sigmoid,
        lambda y, x: -(x * y.log() + (1 - x) * (1 - y).log()).sum(),
    ),
    "l1_loss": (
        "absolute error",
        1,
        lambda h: h,
        lambda y, x: F.l1_loss(y, x, reduction="sum"),
    ),
    "Laplace": (
        "absolute error",
        2,
        lambda h: h,
        lambda y, x: -Laplace(y, 0.5).log_prob(x).sum(),
    ),
}


class TestWeight:
    @pytest.mark.parametrize(
        ("kind", "weight", "last", "recon"), LIKELIHOODS.values(), ids=LIKELIHOODS
    )
    @pytest.mark.parametrize("sign", [1, -1])
    def test_of_each_plain_likelihood(
        self, kind: str, weight: float, last: Any, recon: Loss, sign: int
    ) -> None:
        found, _ = measured(lambda y, x: sign * recon(y, x) / len(x), last)
        assert found.kind == kind
        assert found.weight == pytest.approx(sign * weight, rel=1e-2)
        assert found.features == 6

    def test_of_a_mean_is_divided_by_the_features(self) -> None:
        found, _ = measured(F.mse_loss)
        assert found.weight == pytest.approx(2 / 6, rel=1e-3)

    @pytest.mark.parametrize(
        "recon",
        [
            lambda y, x: (y - x).pow(4).sum(),
            lambda y, x: (y - x).norm(),
            lambda y, x: F.smooth_l1_loss(4 * y, 4 * x, reduction="sum"),
            lambda y, x: (torch.linspace(1, 2, 6) * (y - x).pow(2)).sum(),
        ],
        ids=["fourth power", "norm", "smooth l1", "uneven weights"],
    )
    def test_of_anything_else_is_not_named(self, recon: Loss) -> None:
        try:
            found, _ = measured(recon)
        except Unavailable:
            return
        # The norm of the whole difference is a squared error with a weight that depends on x.
        assert found.kind == "half a squared error"
        assert found.weight > 0


class TestBatch:
    @pytest.mark.parametrize(
        ("recon", "exponent"),
        [
            (lambda y, x: 0.5 * (y - x).pow(2).sum(), 0),
            (F.mse_loss, 1),
            (lambda y, x: 0.5 * (y - x).pow(2).sum(1).mean(), 1),
            (lambda y, x: F.binary_cross_entropy_with_logits(y, x), 1),
        ],
    )
    @pytest.mark.parametrize(
        ("divergence", "kl_exponent"),
        [(torch.sum, 0), (torch.mean, 1), (lambda kl: kl.sum(1).mean(), 1)],
    )
    def test_exponents(self, recon: Loss, exponent: int, divergence: Any, kl_exponent: int) -> None:
        _, reduction = measured(recon, divergence=divergence)
        assert reduction is not None
        assert (reduction.reconstruction, reduction.kl) == (exponent, kl_exponent)

    @pytest.mark.parametrize("rows", [1, 2, 3])
    def test_few_rows_are_compared_with_twice_as_many(self, rows: int) -> None:
        _, reduction = measured(F.mse_loss, rows=rows)
        assert reduction is not None
        assert (reduction.kl, reduction.reconstruction) == (0, 1)


@settings(max_examples=12, deadline=None)
@given(rows=st.integers(1, 8), features=st.integers(2, 20), weight=st.floats(1e-3, 1e3))
def test_the_weight_at_every_size(rows: int, features: int, weight: float) -> None:
    found, _ = measured(lambda y, x: weight * F.mse_loss(y, x), rows=rows, features=features)
    assert (found.rows, found.features) == (rows, features)
    assert found.weight == pytest.approx(2 * weight / features, rel=1e-2)


FLIPPED = {
    "Poisson": lambda h, x: -torch.distributions.Poisson(h.exp()).log_prob((5 * x).round()).sum(),
    "learned variance": lambda h, x: F.gaussian_nll_loss(
        h, x, F.softplus(h.detach().flip(-1)) + 0.1, reduction="sum"
    ),
    "Student": lambda h, x: torch.log1p((h - x) ** 2).sum(),
}


@pytest.mark.parametrize("kind", FLIPPED)
def test_any_likelihood_pulls_x_hat_to_its_target(kind: str) -> None:
    """The direction is told apart from its opposite where no plain likelihood fits."""
    torch.manual_seed(3)
    x = torch.rand(16, 12)
    for sign, away in ((1, False), (-1, True)):

        def loss(out: Any, x: Tensor, sign: int = sign) -> Tensor:
            total: Tensor = sign * FLIPPED[kind](out[0], x) + kl(out[1], out[2]).sum()
            return total

        with examined(VAE(lambda h: h, 12), x, loss=loss) as examination:
            if kind == "Poisson":
                assert (examination.require_likelihood().weight < 0) is away
            else:
                with pytest.raises(Unavailable):
                    examination.require_likelihood()
            assert bool(examination.pulled_away) is away


def test_logits_below_zero_beside_empty_pictures_are_no_flipped_sign() -> None:
    """Zeros everywhere and negative logits: the gradient is opposite to x_hat - x and is right."""

    def loss(out: Any, x: Tensor) -> Tensor:
        weight = torch.linspace(1, 2, x.shape[1])
        bce = F.binary_cross_entropy_with_logits(out[0], x, weight=weight, reduction="sum")
        return bce + kl(out[1], out[2]).sum()

    with examined(VAE(lambda h: -h.abs() - 0.1, 12), torch.zeros(16, 12), loss=loss) as examination:
        assert examination.pulled_away == 0


def test_a_rectified_mean_of_a_gaussian_likelihood_cannot_reach_negative_data() -> None:
    """`gaussian_nll_loss` compares its mean with the data, whatever the variance beside it."""

    def loss(out: Any, x: Tensor) -> Tensor:
        nll = F.gaussian_nll_loss(out[0], x, torch.ones_like(x), reduction="sum")
        return nll + kl(out[1], out[2]).sum()

    with examined(VAE(F.relu, 6), torch.linspace(-1, 1, 24).view(4, 6), loss=loss) as examination:
        (found,) = examination.comparisons
        assert found.activation == "relu"
        assert found.outside == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("last", "met"),
    [
        (F.relu, (0.5, 1.0)),
        (lambda h: 3 - F.softplus(h), (0.0, 1 / (1 + math.exp(-3)))),
        (torch.tanh, (1 / (1 + math.e), 1 / (1 + 1 / math.e))),
        (lambda h: 12 * torch.tanh(h / 12), (0.0, 1.0)),
        (lambda h: h, None),
    ],
)
@pytest.mark.parametrize("by_distribution", [False, True])
def test_the_range_of_logits_is_that_of_their_probabilities(
    last: Callable[[Tensor], Tensor], met: tuple[float, float] | None, by_distribution: bool
) -> None:
    """Ones and zeros: a rectified logit says 0.5 of a zero, one within 12 of 0 says nearly all."""

    def loss(out: Any, x: Tensor) -> Tensor:
        if by_distribution:
            return kl(out[1], out[2]).sum() - Bernoulli(logits=out[0]).log_prob(x).sum()
        nll = F.binary_cross_entropy_with_logits(out[0], x, reduction="sum")
        return nll + kl(out[1], out[2]).sum()

    x = (torch.arange(24.0) % 3 == 0).float().view(4, 6)
    with examined(VAE(last, 6), x, loss=loss) as examination:
        (found,) = examination.comparisons
        assert found.met == (pytest.approx(met, abs=1e-4) if met else None)
        low, high = met or (0.0, 1.0)
        out = (low > 0.05) * 2 / 3 + (high < 0.95) / 3
        assert found.outside == pytest.approx(out)


def test_a_softmax_of_rectified_logits_reaches_everything() -> None:
    def loss(out: Any, x: Tensor) -> Tensor:
        return F.cross_entropy(out[0], x.softmax(1)) + kl(out[1], out[2]).sum()

    with examined(VAE(F.relu, 6), torch.randn(4, 6), loss=loss) as examination:
        assert [c.met for c in examination.comparisons] == [None]


def rates(out: Any, x: Tensor) -> Tensor:
    return (out[0] - x * out[0].log()).sum() + kl(out[1], out[2]).sum()


def squares(out: Any, x: Tensor) -> Tensor:
    numbers, shares = out[0].split([2, 4], 1)
    error = (numbers - x[:, :2]).square().sum() / 2
    bce = F.binary_cross_entropy_with_logits(shares, (x[:, 2:] > 0).float(), reduction="sum")
    return error + bce + kl(out[1], out[2]).sum()


@pytest.mark.parametrize(
    ("last", "loss", "reach"),
    [
        (lambda h: torch.sigmoid(h) + 1e-6, rates, (1e-6, 1 + 1e-6)),
        (lambda h: F.softplus(h) + 1e-2, rates, (1e-2, float("inf"))),
        (lambda h: 3 - 2 * torch.sigmoid(h), rates, (1.0, 3.0)),
        (lambda h: torch.cat([h[:, :2].relu(), h[:, 2:]], 1), squares, (0.0, float("inf"))),
        (lambda h: torch.cat([h[:, :2], h[:, 2:].relu()], 1), squares, None),
    ],
)
def test_the_range_behind_numbers_and_of_joined_columns(
    last: Callable[[Tensor], Tensor], loss: Loss, reach: tuple[float, float] | None
) -> None:
    """Zero counts are not out of reach of a rate of 0.01 or more."""
    x = torch.arange(36.0).view(6, 6) % 7 - (2.0 if loss is squares else 0.0)
    with examined(VAE(last, 6), x, loss=loss) as examination:
        found = examination.comparisons[0]
    assert found.reach == (pytest.approx(reach) if reach else None)
    assert (found.outside > 0) is (reach is not None and (loss is squares or reach[1] < 4))


def negative_binomial(mean: Tensor, x: Tensor) -> Tensor:
    """Log p as by torch, each gene with a dispersion of its own."""
    size = torch.linspace(0.5, 3, x.shape[1])
    known = torch.distributions.NegativeBinomial(size, logits=mean.log() - size.log())
    return known.log_prob(x)


COUNTED: dict[str, tuple[str, float, Callable[[Tensor], Tensor], Loss]] = {
    "counts by rates": (
        "Poisson",
        2,
        lambda h: F.softplus(h) + 0.1,
        lambda y, x: -2 * torch.distributions.Poisson(y).log_prob(x).sum(),
    ),
    "counts by log rates": (
        "Poisson with log rates",
        1,
        lambda h: h,
        lambda y, x: F.poisson_nll_loss(y, x, reduction="sum"),
    ),
    "overdispersed counts": (
        "negative binomial",
        3,
        lambda h: F.softplus(3 * h) + 0.1,
        lambda y, x: -3 * negative_binomial(y, x).sum(),
    ),
}


@pytest.mark.parametrize("case", COUNTED)
def test_counts_have_likelihoods_of_their_own(case: str) -> None:
    kind, weight, last, recon = COUNTED[case]
    x = torch.poisson(torch.full((16, 12), 2.0), generator=torch.Generator().manual_seed(1))

    def loss(out: Any, x: Tensor) -> Tensor:
        return recon(out[0], x) + kl(out[1], out[2]).sum()

    with examined(VAE(last, 12), x, loss=loss) as examination:
        found = examination.require_likelihood()
    assert (found.kind, found.features) == (kind, 12)
    assert found.weight == pytest.approx(16 * weight, rel=1e-2)


class Words(nn.Module):
    """A latent for a sentence, and logits [B, T, V] of its words."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.seen = nn.Embedding(11, 6)
        self.mu, self.h, self.out = nn.Linear(6, 3), nn.Linear(6, 3), nn.Linear(3, 7 * 11)

    def forward(self, words: Tensor) -> Any:
        seen = self.seen(words).mean(1)
        mu, logvar = self.mu(seen), self.h(seen)
        z = mu + torch.exp(0.5 * logvar) * torch.randn_like(mu)
        return self.out(z).view(-1, 7, 11), mu, logvar


def test_a_masked_term_weighs_what_every_scored_element_weighs() -> None:
    torch.manual_seed(4)
    words = torch.randint(1, 11, (16, 7))
    words[:, 5:] = 0

    def of_words(out: Any, x: Tensor) -> Tensor:
        nll = F.cross_entropy(out[0].transpose(1, 2), x, ignore_index=0, reduction="sum")
        return nll + kl(out[1], out[2]).sum(1).mean()

    with examined(Words(), words, loss=of_words) as examination:
        found, reduced = examination.require_likelihood(), examination.batch_reduction
    assert (found.kind, found.features) == ("categorical", 7)
    assert found.weight == pytest.approx(16, rel=1e-2)
    assert reduced is not None
    assert (reduced.reconstruction, reduced.kl) == (0, 1)

    x, kept = torch.rand(16, 12), (torch.arange(12) % 3 > 0).float()

    def of_numbers(out: Any, x: Tensor) -> Tensor:
        return (kept * (out[0] - x) ** 2).sum() / 2 + kl(out[1], out[2]).sum(1).mean()

    with examined(VAE(lambda h: h, 12), x, loss=of_numbers) as examination:
        assert examination.require_likelihood().weight == pytest.approx(16, rel=1e-2)
        reduced = examination.batch_reduction
    assert reduced is not None
    assert (reduced.reconstruction, reduced.kl) == (0, 1)


@pytest.mark.parametrize(("recon", "exponent"), [(torch.sum, 0), (torch.mean, 1), (None, None)])
@pytest.mark.parametrize("rows", [8, 9])
def test_exponents_of_a_likelihood_of_no_known_form(
    recon: Any, exponent: int | None, rows: int
) -> None:
    """Student's; and divided by a number that is no power of the batch size."""

    def loss(out: Any, x: Tensor) -> Tensor:
        each = torch.log1p((out[0] - x) ** 2)
        rec = recon(each) if recon else each.sum() / (len(x) + 5)
        return rec + kl(out[1], out[2]).sum(1).mean()

    with examined(VAE(lambda h: h, 12), torch.rand(rows, 12), loss=loss) as examination:
        with pytest.raises(Unavailable):
            examination.require_likelihood()
        reduced = examination.batch_reduction
    if exponent is None:
        assert reduced is None
    else:
        assert reduced is not None
        assert reduced.outweighs is None
        assert (reduced.reconstruction, reduced.kl) == (exponent, 1)


class Uneven(nn.Module):
    """A decoder with a second head for the scale of every entry, or one scale a column."""

    def __init__(self, *, heads: bool) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.mu, self.h, self.out = nn.Linear(12, 3), nn.Linear(12, 3), nn.Linear(3, 12)
        self.wide = nn.Linear(3, 12) if heads else None
        self.each = nn.Parameter(torch.linspace(-1, 1, 12))

    def forward(self, x: Tensor) -> Any:
        mu, logvar = self.mu(x), self.h(x)
        z = mu + torch.exp(0.5 * logvar) * torch.randn_like(mu)
        return self.out(z), self.each if self.wide is None else self.wide(z), mu, logvar


SCALED: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "log-variance": lambda m, s, x: 0.5 * (s + (x - m) ** 2 / s.exp()),
    "log-scale": lambda m, s, x: s + 0.5 * ((x - m) * (-s).exp()) ** 2,
    "log-precision": lambda m, s, x: 0.5 * (s.exp() * (x - m) ** 2 - s),
    "gaussian_nll_loss": lambda m, s, x: F.gaussian_nll_loss(
        m, x, F.softplus(s).expand_as(m) + 1e-3, reduction="none"
    ),
    "Normal": lambda m, s, x: -Normal(m, F.softplus(s) + 0.1).log_prob(x),
    "Laplace": lambda m, s, x: -Laplace(m, s.exp()).log_prob(x),
}


@pytest.mark.parametrize("case", SCALED)
@pytest.mark.parametrize("heads", [True, False], ids=["a head", "a column's own"])
@pytest.mark.parametrize("weight", [1.0, 1 / 12, -1.0])
def test_the_weight_beside_a_scale_that_is_learned(case: str, heads: bool, weight: float) -> None:
    def loss(out: Any, x: Tensor) -> Tensor:
        nll = SCALED[case](out[0], out[1], x).sum(1).mean()
        return weight * nll + kl(out[2], out[3]).sum(1).mean()

    with examined(Uneven(heads=heads), torch.randn(16, 12), loss=loss) as examination:
        found = examination.require_likelihood()
    assert found.kind.split()[0] == ("Laplace" if case == "Laplace" else "Gaussian")
    assert found.weight == pytest.approx(weight, rel=1e-2)


def test_a_scale_whose_logarithm_is_left_out_makes_no_density() -> None:
    def loss(out: Any, x: Tensor) -> Tensor:
        return ((out[0] - x) ** 2 / out[1].exp()).sum() + kl(out[2], out[3]).sum()

    with (
        examined(Uneven(heads=True), torch.randn(16, 12), loss=loss) as examination,
        pytest.raises(Unavailable),
    ):
        examination.require_likelihood()


SHARED: dict[str, tuple[str, Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "log-shares": ("multinomial", lambda h: h.log_softmax(-1), lambda h: h),
    "shares": ("multinomial", lambda h: h.softmax(-1), lambda h: (h + 1e-10).log()),
    "logits": ("multinomial with logits", lambda h: h, lambda h: h.log_softmax(-1)),
}


@pytest.mark.parametrize("case", SHARED)
@pytest.mark.parametrize("sign", [1, -1])
def test_counts_of_words_are_shares_of_a_row(case: str, sign: int) -> None:
    kind, last, logs = SHARED[case]
    x = torch.poisson(torch.full((16, 12), 1.0), generator=torch.Generator().manual_seed(1))

    def loss(out: Any, x: Tensor) -> Tensor:
        nll = -(x * logs(out[0])).sum(1).mean()
        return sign * nll + kl(out[1], out[2]).sum(1).mean()

    with examined(VAE(last, 12), x, loss=loss) as examination:
        found = examination.require_likelihood()
    assert found.kind == kind
    assert found.weight == pytest.approx(sign, rel=1e-2)


def counts(share: Tensor, x: Tensor, sign: int) -> Tensor:
    """The negative log-likelihood of counts, written out, times a sign: rates are x_hat's share."""
    rate, spread = share * x.sum(1, keepdim=True), 2.0
    log_p = (
        torch.lgamma(x + spread)
        - torch.lgamma(x + 1)
        + spread * (spread / (spread + rate)).log()
        + x * (rate / (spread + rate)).log()
    )
    return -sign * log_p.sum()


@pytest.mark.parametrize("sign", [1, -1])
def test_rates_that_are_made_of_shares_are_pulled_to_the_counts(sign: int) -> None:
    x = torch.poisson(torch.full((8, 12), 4.0), generator=torch.Generator().manual_seed(2))

    def loss(out: Any, x: Tensor) -> Tensor:
        return counts(out[0], x, sign) + kl(*out[1:]).sum()

    with examined(VAE(lambda h: h.softmax(-1), 12), x, loss=loss) as examination:
        assert examination.pulled_away == (0 if sign > 0 else x.numel())


@pytest.mark.parametrize("squashed", [True, False])
def test_a_target_that_is_no_part_of_the_batch_is_one(squashed: bool) -> None:
    """As a graph's adjacency beside its normalised form: a second sigmoid is told all the same."""
    adjacency = (torch.rand(6, 6, generator=torch.Generator().manual_seed(1)) > 0.5).float()
    weight = torch.tensor(2.0)

    def loss(out: Any, x: Tensor) -> Tensor:
        bce = F.binary_cross_entropy_with_logits(out[0], adjacency, pos_weight=weight)
        return bce + kl(*out[1:]).sum()

    last = torch.sigmoid if squashed else lambda h: h
    with examined(VAE(last, 6), adjacency / 3, loss=loss) as examination:
        (found,) = examination.comparisons
    assert (found.activation == "sigmoid", found.swapped) == (squashed, False)


@pytest.mark.parametrize(
    ("cost", "weight"),
    [
        (lambda r, x: -StudentT(4.0, r, 0.5).log_prob(x).mean(), 1 / 6),
        (lambda r, x: -StudentT(4.0, r, 0.5).log_prob(x).sum(1).mean(), 1.0),
        (lambda r, x: (((r - x).square() + 1e-3).sqrt() * 0.2).mean(), 1 / 6),
        (lambda r, x: F.huber_loss(r, x, reduction="none", delta=0.1).flatten(1).mean(), 1 / 6),
        (lambda r, x: ((r - x).abs() ** 1.3).mean(1) @ torch.arange(1.0, 6.0), None),
        (lambda r, x: F.huber_loss(r, x, reduction="mean", delta=0.1), None),
    ],
)
def test_the_weight_of_elements_whose_likelihood_is_not_known(
    cost: Loss, weight: float | None
) -> None:
    def loss(out: Any, x: Tensor) -> Tensor:
        return cost(out[0], x) + kl(*out[1:]).sum(1).mean()

    x = torch.randn(5, 6, generator=torch.Generator().manual_seed(2))
    with examined(VAE(lambda h: h, 6), x, loss=loss) as examination:
        assert examination.likelihood_or_none is None
        found = examination.costs
    assert (found is None) == (weight is None)
    if found is not None and weight is not None:
        assert found.weight == pytest.approx(weight, rel=1e-4)
        assert found.averaged(1 / found.weight) == (weight == 1 / 6)
