"""Importance weights of K samples: what stands in them is judged as in the ordinary bound."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import specimens
import torch
import torch.nn.functional as F
from steps import examined
from torch import Tensor, nn

import vaedoctor
from vaedoctor import Severity

K, ROWS, UNITS = 5, 8, 4


def log_normal(z: Tensor, mu: Tensor | float, logvar: Tensor | float) -> Tensor:
    spread = torch.as_tensor(logvar)
    return -0.5 * (math.log(2 * math.pi) + spread + (z - mu) ** 2 / spread.exp()).sum(-1)


class Weighted(nn.Module):
    """IWAE; subclasses lay the samples out in other ways and slip in the log-weights."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(16, 12), nn.Tanh())
        self.mu, self.logvar = nn.Linear(12, UNITS), nn.Linear(12, UNITS)
        self.decoder = nn.Sequential(nn.Linear(UNITS, 12), nn.Tanh(), nn.Linear(12, 16))

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = self.body(x)
        return self.mu(h), self.logvar(h)

    def sample(self, mu: Tensor, logvar: Tensor) -> Tensor:
        return mu + (0.5 * logvar).exp() * torch.randn_like(mu)

    def log_px(self, logits: Tensor, x: Tensor) -> Tensor:
        target = x.expand_as(logits)
        return -F.binary_cross_entropy_with_logits(logits, target, reduction="none").sum(-1)

    def log_w(self, log_px: Tensor, z: Tensor, mu: Tensor, logvar: Tensor) -> Tensor:
        return log_px + log_normal(z, 0.0, 0.0) - log_normal(z, mu, logvar)

    def weigh(self, x: Tensor, mu: Tensor, logvar: Tensor) -> Tensor:
        z = self.sample(mu, logvar)
        return self.log_w(self.log_px(self.decoder(z), x), z, mu, logvar)

    def log_weights(self, x: Tensor) -> Tensor:  # [K, B]
        mu, logvar = (h.expand(K, *h.shape) for h in self.posterior(x))
        return self.weigh(x, mu, logvar)

    def loss(self, x: Tensor) -> Tensor:
        return -(self.log_weights(x).logsumexp(0) - math.log(K)).mean()

    def forward(self, x: Tensor) -> Tensor:
        return self.loss(x)


class Trailing(Weighted):
    def log_weights(self, x: Tensor) -> Tensor:
        mu, logvar = (h.unsqueeze(1).expand(-1, K, -1) for h in self.posterior(x))
        return self.weigh(x.unsqueeze(1), mu, logvar).t()


class Repeated(Weighted):
    def log_weights(self, x: Tensor) -> Tensor:
        xs = x.repeat(K, 1)
        return self.weigh(xs, *self.posterior(xs)).view(K, -1)


class Interleaved(Weighted):
    def log_weights(self, x: Tensor) -> Tensor:
        xs = x.repeat_interleave(K, 0)
        return self.weigh(xs, *self.posterior(xs)).view(-1, K).t()


class Looped(Weighted):
    def log_weights(self, x: Tensor) -> Tensor:
        heads = self.posterior(x)
        return torch.stack([self.weigh(x, *heads) for _ in range(K)])


class Normalised(Weighted):
    def loss(self, x: Tensor) -> Tensor:
        log_w = self.log_weights(x)
        return -(torch.softmax(log_w, 0).detach() * log_w).sum(0).mean()


class SummedOverRows(Weighted):
    def loss(self, x: Tensor) -> Tensor:
        log_w = self.log_weights(x)
        most = log_w.max(0).values.detach()
        return -(most + (log_w - most).exp().mean(0).log()).sum() / ROWS


LAYOUTS = [Weighted, Trailing, Repeated, Interleaved, Looped, Normalised, SummedOverRows]
Slip = Callable[[Weighted, Tensor, Tensor, Tensor, Tensor], Tensor]


def no_prior(_: Weighted, log_px: Tensor, z: Tensor, mu: Tensor, logvar: Tensor) -> Tensor:
    return log_px - log_normal(z, mu, logvar)


def turned(_: Weighted, log_px: Tensor, z: Tensor, mu: Tensor, logvar: Tensor) -> Tensor:
    return log_px - log_normal(z, 0.0, 0.0) + log_normal(z, mu, logvar)


def over_std(_: Weighted, log_px: Tensor, z: Tensor, mu: Tensor, logvar: Tensor) -> Tensor:
    log_q = -0.5 * (logvar + (z - mu) ** 2 / (0.5 * logvar).exp()).sum(-1)
    return log_px + log_normal(z, 0.0, 0.0) - log_q


def worse(_: Weighted, log_px: Tensor, z: Tensor, mu: Tensor, logvar: Tensor) -> Tensor:
    return -log_px + log_normal(z, 0.0, 0.0) - log_normal(z, mu, logvar)


def batch() -> Tensor:
    return torch.bernoulli(torch.full((ROWS, 16), 0.4), generator=torch.Generator().manual_seed(0))


def slipped(layout: type[Weighted], slip: Slip) -> Weighted:
    torch.manual_seed(0)
    return type(layout.__name__, (layout,), {"log_w": slip})()


def found(model: nn.Module) -> list[str]:
    report = vaedoctor.check(model, batch(), objective="loss", select=["VAE3", "VAE7"])
    return sorted({f.code for f in report.findings})


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_weights_hold_the_kl_however_the_samples_lie(layout: type[Weighted]) -> None:
    model = slipped(layout, Weighted.log_w)
    assert found(model) == []
    with examined(model, batch(), loss=lambda out, _: out) as examination:
        (d,) = examination.require_divergences()
    assert d.standard
    assert d.ratios == pytest.approx((1, 1), abs=1e-3)
    assert d.weight == pytest.approx(1, rel=1e-3)  # nat a row, shared among the samples
    assert d.units == UNITS


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    ("slip", "code"),
    [(no_prior, "VAE701"), (turned, "VAE703"), (over_std, "VAE701"), (worse, "VAE707")],
)
def test_a_slip_in_the_weights_is_told(layout: type[Weighted], slip: Slip, code: str) -> None:
    assert found(slipped(layout, slip)) == [code]


@pytest.mark.parametrize("layout", [Weighted, Trailing])
def test_a_density_that_is_added_up_over_the_rows_is_told(layout: type[Weighted]) -> None:
    def added_up(_: Weighted, log_px: Tensor, z: Tensor, mu: Tensor, logvar: Tensor) -> Tensor:
        return log_px + log_normal(z, 0.0, 0.0) - log_normal(z, mu, logvar).sum()

    report = vaedoctor.check(slipped(layout, added_up), batch(), objective="loss", select="VAE711")
    assert [f.code for f in report.findings] == ["VAE711"]
    report = vaedoctor.check(slipped(layout, Weighted.log_w), batch(), objective="loss")
    assert {o.code: o.status for o in report.outcomes}["VAE711"] == "passed"


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_factor_on_the_noise_makes_the_weights_those_of_another_proposal(
    layout: type[Weighted],
) -> None:
    class Narrow(layout):  # type: ignore[misc, valid-type]
        def sample(self, mu: Tensor, logvar: Tensor) -> Tensor:
            return mu + (0.5 * logvar).exp() * torch.randn_like(mu).mul(0.3)

    torch.manual_seed(0)
    assert found(Narrow()) == ["VAE303"]


def test_a_distance_over_the_standard_deviation_has_its_own_ratio() -> None:
    with examined(slipped(Weighted, over_std), batch(), loss=lambda out, _: out) as examination:
        (d,) = examination.require_divergences()
    # By hand: the loss holds s²/2 - log s - s/2, whose slope at log s is s² - 1 - s/2.
    expected = [(s.scale**2 - 1 - s.scale / 2) / (s.scale**2 - 1) for s in d.settings]
    assert d.ratios == pytest.approx(tuple(expected), abs=1e-3)


def test_samples_that_are_one_are_told() -> None:
    class OneDraw(Weighted):
        def sample(self, mu: Tensor, logvar: Tensor) -> Tensor:
            return mu + (0.5 * logvar).exp() * torch.randn_like(mu[0])

    torch.manual_seed(0)
    report = vaedoctor.check(OneDraw(), batch(), objective="loss", select=["VAE3", "VAE7"])
    (finding,) = report.findings
    assert finding.code == "VAE305"
    assert "5 samples of each row" in finding.message


@pytest.mark.parametrize("one", [1.0, 0.0])
def test_a_constant_is_that_of_one_row_however_many_samples_are_averaged(one: float) -> None:
    class Averaged(Weighted):
        def loss(self, x: Tensor) -> Tensor:
            mu, logvar = (h.expand(K, *h.shape) for h in self.posterior(x))
            kl = -0.5 * (one + logvar - mu**2 - logvar.exp()).sum(-1)
            return (kl - self.log_px(self.decoder(self.sample(mu, logvar)), x)).mean()

    torch.manual_seed(0)
    with examined(Averaged(), batch(), loss=lambda out, _: out) as examination:
        (offset,) = examination.kl_offsets
    assert offset.total == pytest.approx(0.5 * (1 - one) * UNITS, abs=1e-3)
    assert offset.per_unit == pytest.approx(0.5 * (1 - one), abs=1e-3)


class Stacked(Weighted):
    """The heads are repeated for K samples of each row, a likelihood with a scale of its own."""

    def __init__(self, mixed: bool = False, regrouped: bool = False, doubled: bool = False) -> None:
        super().__init__()
        self.mixed, self.regrouped, self.doubled = mixed, regrouped, doubled
        self.noise = nn.Parameter(torch.linspace(-0.5, 0.5, 16))

    def log_px(self, logits: Tensor, x: Tensor) -> Tensor:
        return log_normal((2 * x - 1).repeat_interleave(K, 0), logits, self.noise)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        mu, logvar = self.posterior(x)
        mu = mu.repeat_interleave(K, 0)
        logvar = logvar.repeat(K, 1) if self.mixed else logvar.repeat_interleave(K, 0)
        z = self.sample(mu, logvar)
        return self.decoder(z), z, mu, logvar

    def loss(self, x: Tensor) -> Tensor:
        logits, z, mu, logvar = self(x)
        log_px, log_pz = self.log_px(logits, x), log_normal(z, 0.0, 0.0)
        log_q = log_normal(z, mu, logvar) - (0.5 * logvar.sum(-1) if self.doubled else 0.0)
        log_w = log_px + log_pz - log_q
        log_w = log_w.view(K, -1).t() if self.regrouped else log_w.view(-1, K)
        return -(log_w.logsumexp(1) - math.log(K)).mean()


@pytest.mark.parametrize(
    ("slip", "code", "line"),
    [
        ("", "", ""),
        ("regrouped", "VAE720", "log_w.view(K, -1).t()"),
        ("mixed", "VAE504", "return mu + (0.5 * logvar).exp()"),
        ("doubled", "VAE701", "log_q = log_normal(z, mu, logvar)"),
    ],
)
def test_samples_of_a_row_that_are_repeated_beside_each_other(
    slip: str, code: str, line: str
) -> None:
    torch.manual_seed(0)
    model = Stacked(**({slip: True} if slip else {}))
    report = vaedoctor.check(model, batch(), objective=lambda m, x: m.loss(x))
    told = [f for f in report.findings if f.severity.value == "error"]
    assert [f.code for f in told] == ([code] if code else [])
    lines = Path(__file__).read_text(encoding="utf-8").splitlines()
    assert all(f.at is not None and line in lines[f.at.line - 1] for f in told)
    (outcome,) = (o for o in report.outcomes if o.code == "VAE720")
    assert slip or any("log-mean-exp over the samples" in v.text for v in outcome.verified)


@pytest.mark.parametrize(
    ("times", "said"), [(-1.0, ""), (0.0, "lacks the logarithm"), (1.0, "adds the logarithm")]
)
def test_the_logarithm_of_the_number_of_samples_is_subtracted(times: float, said: str) -> None:
    class Bounded(Weighted):
        def loss(self, x: Tensor) -> Tensor:
            return -(self.log_weights(x).logsumexp(0) + times * math.log(K)).mean()

    torch.manual_seed(0)
    report = vaedoctor.check(Bounded(), batch(), objective=lambda m, x: m.loss(x))
    told = [f.message for f in report.findings if f.code == "VAE720"]
    assert [said in message for message in told] == ([True] if said else [])


def test_a_tempered_bound_has_no_kl_whose_constant_could_be_wrong() -> None:
    class Tempered(Weighted):
        def loss(self, x: Tensor) -> Tensor:
            return -2 * ((0.5 * self.log_weights(x)).logsumexp(0) - math.log(K)).mean()

        def log_w(self, log_px: Tensor, z: Tensor, mu: Tensor, logvar: Tensor) -> Tensor:
            log_q = -0.5 * ((z - mu).square() / logvar.exp() + logvar).sum(-1)
            return log_px - 0.5 * z.square().sum(-1) - log_q

    torch.manual_seed(0)
    report = vaedoctor.check(Tempered(), batch(), objective=lambda m, x: m.loss(x))
    assert "VAE706" not in {f.code for f in report.findings}


@pytest.mark.parametrize("axis", [0, 1])
def test_as_many_samples_as_rows_are_told_apart_on_a_batch_that_is_made_up(axis: int) -> None:
    iwae = specimens.load(specimens.FIXTURES / "healthy" / "iwae.py")
    torch.manual_seed(0)
    model = iwae.Healthy()
    model.samples = 8

    def objective(x_hat: Tensor, x: Tensor, log_ratio: Tensor) -> Tensor:
        target = x.expand_as(x_hat)
        log_px = -F.binary_cross_entropy_with_logits(x_hat, target, reduction="none").sum(-1)
        return -(torch.logsumexp(log_px + log_ratio, axis) - math.log(8)).sum()

    report = vaedoctor.check(model, objective=objective)
    found = [(f.code, f.measured) for f in report.findings if f.severity is Severity.ERROR]
    assert found == ([("VAE720", {"samples": 8, "rows": 7})] if axis else [])
