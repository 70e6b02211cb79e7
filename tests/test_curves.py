"""The measurements that are drawn, against closed forms and torch's own KL."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from steps import examined
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence

from vaedoctor.checkup import check
from vaedoctor.finding import Finding, Plot

X = torch.linspace(-1, 1, 48).reshape(8, 6)


class VAE(nn.Module):
    """Two heads; what the sample and the decoder are is up to the test."""

    power = 0.5

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.mu, self.unused, self.h = nn.Linear(6, 3), nn.Linear(2, 2), nn.Linear(6, 3)
        self.out = nn.Linear(3, 6)

    def forward(self, x: Tensor) -> Any:
        mu, h = self.mu(x), self.h(x)
        z = mu + torch.exp(self.power * h) * torch.randn_like(mu)
        return self.out(self.seen(z)), mu, h

    def seen(self, z: Tensor) -> Tensor:
        return z


class Misread(VAE):
    power = 1.0


class Blind(VAE):
    def seen(self, z: Tensor) -> Tensor:
        return torch.zeros_like(z)


def elbo(out: Any, x: Tensor) -> Tensor:
    x_hat, mu, h = out
    kl = -0.5 * torch.sum(1 + h - mu**2 - h.exp())
    return (0.5 * (x_hat - x) ** 2).sum() + kl


def without_kl(out: Any, x: Tensor) -> Tensor:
    return ((out[0] - x) ** 2).sum()


def elbo_of(model: Any, x: Tensor) -> Tensor:
    return elbo(model(x), x)


def found(model: nn.Module, code: str, loss: Any = elbo_of) -> Finding:
    report = check(model, X, objective=loss, select=[code])
    (finding,) = report.findings
    return finding


def plot_of(model: nn.Module, code: str, loss: Any = elbo_of) -> Plot:
    (plot,) = found(model, code, loss).plots
    return plot


def test_a_healthy_kl_lies_on_the_true_one() -> None:
    with examined(VAE(), X, loss=elbo) as examination:
        (divergence,) = examination.require_divergences()
        curve = examination.kl_curve(divergence)
    assert curve is not None
    heads = torch.tensor(curve.heads, dtype=torch.float64)
    assert curve.scale == pytest.approx((heads / 2).exp().tolist(), rel=1e-5)
    assert curve.loss == pytest.approx(curve.true, abs=1e-4)
    closed = 0.5 * (heads.exp() - heads - 1)  # the KL above that of scale 1
    assert curve.true == pytest.approx(closed.tolist(), abs=1e-4)
    assert curve.meant == pytest.approx(curve.scale, rel=1e-5)


def test_the_plot_of_a_misread_scale_shows_both_meanings() -> None:
    plot = plot_of(Misread(), "VAE303")
    heads = torch.tensor(plot.x, dtype=torch.float64)
    sampled, meant = plot.curves
    assert sampled.values == pytest.approx(heads.exp().tolist(), rel=1e-4)
    assert meant.values == pytest.approx((heads / 2).exp().tolist(), rel=1e-4)
    assert (sampled.expected, meant.expected) == (False, True)


def test_the_plot_of_a_flipped_kl_turns_down() -> None:
    def flipped(model: Any, x: Tensor) -> Tensor:
        x_hat, mu, h = model(x)
        return ((x_hat - x) ** 2).sum() + 0.5 * torch.sum(1 + h - mu**2 - h.exp())

    loss, true = plot_of(VAE(), "VAE703", flipped).curves
    assert loss.values == pytest.approx([-v for v in true.values], abs=1e-4)


def test_the_kl_of_each_unit_is_torchs_own() -> None:
    model = VAE()
    with examined(model, X, loss=elbo) as examination:
        (latent,) = examination.require_latents()
        nats = examination.unit_kl(latent)
    with torch.no_grad():
        mu, h = model.mu(X), model.h(X)
        each = kl_divergence(Normal(mu, (0.5 * h).exp()), Normal(0.0, 1.0)).mean(0)
    assert nats == pytest.approx(sorted(each.tolist(), reverse=True), rel=1e-4)


def test_another_latent_changes_the_error_unless_the_decoder_is_blind() -> None:
    for model, ignored in ((VAE(), False), (Blind(), True)):
        with examined(model, X, loss=elbo) as examination:
            swaps = examination.swaps
        assert swaps is not None
        assert ((swaps.another_row, swaps.prior) == (1.0, 1.0)) is ignored


def test_the_plot_of_a_blind_decoder_is_exactly_one() -> None:
    plot = plot_of(Blind(), "VAE402")
    assert plot.x == ("its own", "another row's", "from the prior")
    assert plot.curves[0].values == (1.0, 1.0, 1.0)


def test_a_missing_kl_shows_what_it_would_be() -> None:
    plot = plot_of(VAE(), "VAE702", lambda model, x: without_kl(model(x), x))
    assert len(plot.x) == 3
    assert all(v is not None and v > 0 for v in plot.curves[0].values)


def test_gradients_layer_by_layer_are_those_of_backward() -> None:
    model = VAE()
    with examined(model, X, loss=elbo) as examination:
        by_layer = dict(examination.gradient_scale.by_layer)
    torch.manual_seed(0)
    elbo_of(model, X).backward()  # type: ignore[no-untyped-call]
    expected = {
        name: float(p.grad.norm() / p.detach().norm())
        for name, p in model.named_parameters()
        if p.grad is not None and p.dim() > 1
    }
    assert by_layer == pytest.approx(expected, rel=1e-3)


def test_an_idle_layer_stands_where_it_was_registered() -> None:
    picture = check(VAE(), X, objective=elbo_of).picture
    roles = [(p.role, p.name) for p in picture.parts]
    assert roles.index(("idle", "unused")) == roles.index(("location", "mu")) + 1
    idle = roles.index(("idle", "unused"))
    assert not any(idle in (a.start, a.end) for a in picture.arrows)
    ends = {(roles[a.start][0], roles[a.end][0]) for a in picture.arrows}
    assert {("location", "sample"), ("scale", "sample"), ("sample", "layer")} <= ends


def test_proofs_leave_no_trace() -> None:
    model = Misread()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    torch.manual_seed(11)
    state = torch.get_rng_state()
    found(model, "VAE303")
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
