"""Where the way of the gradient is cut: by what, and on which line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from steps import Bare, examined
from torch import Tensor, nn
from torch.distributions import Beta, Dirichlet, Gamma, Independent, Normal

from vaedoctor.examine.code.listing import text_of
from vaedoctor.examine.examination import Examination
from vaedoctor.examine.gradients.cuts import Cut, cut_between, straight_through
from vaedoctor.examine.gradients.reparameterized import entry_of
from vaedoctor.examine.runs.gradients import Arrives

Sampler = Callable[[Tensor, Tensor], Tensor]


class VAE(nn.Module):
    """Two heads, a sampler, a decoder."""

    def __init__(self, sampler: Sampler) -> None:
        super().__init__()
        self.hidden, self.mu, self.logvar = nn.Linear(6, 8), nn.Linear(8, 3), nn.Linear(8, 3)
        self.sampler = sampler
        self.decoder = nn.Linear(3, 6)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        h = torch.tanh(self.hidden(x))
        mu, logvar = self.mu(h), self.logvar(h)
        return self.decoder(self.sampler(mu, logvar)), mu, logvar


def elbo(out: Any, x: Tensor) -> Tensor:
    x_hat, mu, logvar = out
    kl = -0.5 * (1 + logvar - mu**2 - logvar.exp()).sum()
    loss: Tensor = F.mse_loss(x_hat, x, reduction="sum") + kl
    return loss


X = torch.linspace(-1, 1, 24).reshape(4, 6)


def detached(mu: Tensor, logvar: Tensor) -> Tensor:
    z = mu + torch.exp(0.5 * logvar) * torch.randn_like(mu)
    return z.detach()


def by_data(mu: Tensor, logvar: Tensor) -> Tensor:
    z = mu + torch.exp(0.5 * logvar) * torch.randn_like(mu)
    return z.data


def block(mu: Tensor, logvar: Tensor) -> Tensor:
    std = torch.exp(0.5 * logvar)
    with torch.no_grad():
        z = mu + std * torch.randn_like(std)
    return z


def block_with_a_sample_of_its_own(mu: Tensor, logvar: Tensor) -> Tensor:
    std = torch.exp(0.5 * logvar)
    with torch.no_grad():
        eps = Normal(0.0, 1.0).sample(std.shape)
        z = mu + std * eps
    return z


@torch.no_grad()
def decorated(mu: Tensor, logvar: Tensor) -> Tensor:
    return mu + torch.exp(0.5 * logvar) * torch.randn_like(mu)


def switched(mu: Tensor, logvar: Tensor) -> Tensor:
    torch.set_grad_enabled(False)
    z = mu + torch.exp(0.5 * logvar) * torch.randn_like(mu)
    torch.set_grad_enabled(True)
    return z


def switched_block(mu: Tensor, logvar: Tensor) -> Tensor:
    with torch.set_grad_enabled(False):
        return mu + torch.exp(0.5 * logvar) * torch.randn_like(mu)


def inference(mu: Tensor, logvar: Tensor) -> Tensor:
    with torch.inference_mode():
        z = mu + torch.exp(0.5 * logvar) * torch.randn_like(mu)
    return z.clone()


def sampled(mu: Tensor, logvar: Tensor) -> Tensor:
    q = Normal(mu, torch.exp(0.5 * logvar))
    return q.sample()


def sampled_independent(mu: Tensor, logvar: Tensor) -> Tensor:
    return Independent(Normal(mu, torch.exp(0.5 * logvar)), 1).sample()


def drawn(mu: Tensor, logvar: Tensor) -> Tensor:
    return torch.normal(mu, torch.exp(0.5 * logvar))


def through_lists(mu: Tensor, logvar: Tensor) -> Tensor:
    z = mu + torch.exp(0.5 * logvar) * torch.randn_like(mu)
    return torch.tensor(z.tolist())


def through_numpy(mu: Tensor, logvar: Tensor) -> Tensor:
    z = mu + torch.exp(0.5 * logvar) * torch.randn_like(mu)
    array = z.detach().numpy()
    return torch.tensor(array)


def through_items(mu: Tensor, logvar: Tensor) -> Tensor:
    z = mu + torch.exp(0.5 * logvar) * torch.randn_like(mu)
    return torch.tensor([[v.item() for v in row] for row in z])


def rounded(mu: Tensor, logvar: Tensor) -> Tensor:
    z = mu + torch.exp(0.5 * logvar) * torch.randn_like(mu)
    return torch.round(z * 4) / 4


def signed(mu: Tensor, logvar: Tensor) -> Tensor:
    z = mu + torch.exp(0.5 * logvar) * torch.randn_like(mu)
    return z.sign()


def largest(mu: Tensor, logvar: Tensor) -> Tensor:
    z = mu + torch.exp(0.5 * logvar) * torch.randn_like(mu)
    return F.one_hot(z.argmax(dim=1), 3).float()


CUTS: list[tuple[Sampler, str, str]] = [
    (detached, "`.detach()`", "z.detach()"),
    (by_data, "`.data`", "z.data"),
    (block, "`torch.no_grad()`", "torch.no_grad()"),
    (block_with_a_sample_of_its_own, "`torch.no_grad()`", "torch.no_grad()"),
    (decorated, "`torch.no_grad()`", "@torch.no_grad()"),
    (switched, "`torch.no_grad()`", "torch.set_grad_enabled(False)"),
    (switched_block, "`torch.no_grad()`", "torch.set_grad_enabled(False)"),
    (
        inference,
        "`torch.inference_mode()`",
        "mu + torch.exp(0.5 * logvar) * torch.randn_like(mu)",
    ),
    (sampled, "`.sample()`", "q.sample()"),
    (
        sampled_independent,
        "`.sample()`",
        "Independent(Normal(mu, torch.exp(0.5 * logvar)), 1).sample()",
    ),
    (drawn, "`torch.normal(mu, torch.exp(0.5 * logvar))`", ""),
    (through_lists, "the round trip through Python (`.tolist()`)", "torch.tensor(z.tolist())"),
    (through_numpy, "`.detach()`", "z.detach()"),
    (
        through_items,
        "the round trip through Python (`.item()`)",
        "torch.tensor([[v.item() for v in row] for row in z])",
    ),
    (rounded, "`torch.round(z * 4)`", ""),
    (signed, "`z.sign()`", ""),
    (largest, "`argmax()`", "z.argmax(dim=1)"),
]


def cut_in(examination: Examination) -> Cut | None:
    """The cut between the location's head and the reconstruction."""
    recording = examination.recording
    assert recording.error is None, recording.error
    mu, x_hat = (recording.value_of(recording.output[i]) for i in (1, 0))
    assert mu is not None
    assert x_hat is not None
    return cut_between(examination.flow, mu, x_hat)


@pytest.mark.parametrize(
    ("sampler", "label", "text"), CUTS, ids=lambda p: getattr(p, "__name__", "")
)
def test_the_cut_is_named_at_its_line(sampler: Sampler, label: str, text: str) -> None:
    with examined(VAE(sampler), X, loss=elbo) as examination:
        cut = cut_in(examination)
    assert cut is not None
    assert cut.label == label
    assert text_of(cut.at) == (text or label.strip("`"))
    assert cut.at is not None
    assert cut.at.file == __file__
    assert cut.cause == f"cut:{__file__}:{cut.at.line}"


def healthy(mu: Tensor, logvar: Tensor) -> Tensor:
    return mu + torch.exp(0.5 * logvar) * torch.randn_like(mu)


def prior_without_gradient(mu: Tensor, logvar: Tensor) -> Tensor:
    with torch.no_grad():
        eps = torch.randn_like(mu)
    return mu + torch.exp(0.5 * logvar) * eps


class Rounded(torch.autograd.Function):
    """Two operations out of autograd's sight, and a gradient of its own."""

    @staticmethod
    def forward(ctx: Any, z: Tensor) -> Tensor:
        return torch.round(z * 4) / 4

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient


def custom(mu: Tensor, logvar: Tensor) -> Tensor:
    z: Tensor = Rounded.apply(healthy(mu, logvar))
    return z


@pytest.mark.parametrize("sampler", [healthy, prior_without_gradient, custom])
def test_a_way_that_is_open_has_no_cut(sampler: Sampler) -> None:
    with examined(VAE(sampler), X, loss=elbo) as examination:
        assert cut_in(examination) is None
        assert all(r.passes for r in examination.reparameterizations)


def half_detached(mu: Tensor, logvar: Tensor) -> Tensor:
    return mu.detach() + torch.exp(0.5 * logvar) * torch.randn_like(mu)


ARRIVALS: list[tuple[Sampler, Arrives, Arrives]] = [
    (healthy, Arrives.YES, Arrives.YES),
    (custom, Arrives.YES, Arrives.YES),
    (half_detached, Arrives.NONE, Arrives.YES),
    (detached, Arrives.NONE, Arrives.NONE),
    (sampled, Arrives.NONE, Arrives.NONE),
    (drawn, Arrives.ZERO, Arrives.ZERO),
    (rounded, Arrives.ZERO, Arrives.ZERO),
]


@pytest.mark.parametrize(
    ("sampler", "loc", "scale"), ARRIVALS, ids=lambda p: getattr(p, "__name__", None)
)
def test_what_arrives_at_each_head(sampler: Sampler, loc: Arrives, scale: Arrives) -> None:
    with examined(VAE(sampler), X, loss=elbo) as examination:
        (found,) = examination.reparameterizations
        assert (found.loc, found.scale) == (loc, scale)
        assert found.passes == (loc is scale is Arrives.YES)
        assert found.judged
        assert (found.cut is None) == found.passes


def test_the_sample_enters_the_decoder_behind_what_is_done_to_it() -> None:
    with examined(VAE(rounded), X, loss=elbo) as examination:
        (latent,) = examination.anatomy.latents
        entry = entry_of(examination.flow, latent, examination.anatomy.x_hat)
        assert entry.op is not None
        assert text_of(entry.op.span) == "torch.round(z * 4) / 4"


def straight(mu: Tensor, logvar: Tensor) -> Tensor:
    return mu + (torch.round(mu) - mu).detach()


def straight_reshaped(mu: Tensor, logvar: Tensor) -> Tensor:
    return mu + (torch.round(mu) - mu).detach().view(-1, 3)


def no_estimator(mu: Tensor, logvar: Tensor) -> Tensor:
    return 0 * mu + torch.round(mu).detach()


@pytest.mark.parametrize(
    ("sampler", "on_purpose"),
    [(straight, True), (straight_reshaped, True), (no_estimator, False)],
    ids=lambda p: getattr(p, "__name__", None),
)
def test_a_straight_through_estimator_is_recognised(sampler: Sampler, on_purpose: bool) -> None:
    with examined(VAE(sampler), X, loss=elbo) as examination:
        cut = Cut(
            op := next(o for o in examination.recording.ops if o.name == "detach"), "", op.span
        )
        assert straight_through(examination.flow, cut) == on_purpose


class TestLost:
    """Parameters without a gradient, grouped by the reason."""

    def test_one_cut_is_one_group(self) -> None:
        def loss(out: Any, x: Tensor) -> Tensor:
            return F.mse_loss(out[0], x)

        with examined(VAE(detached), X, loss=loss) as examination:
            (lost,) = examination.losses_of_gradient
            assert {b.path for b in lost.branches} == {"hidden", "mu", "logvar"}
            assert lost.count == 6
            assert lost.cut is not None
            assert lost.cut.label == "`.detach()`"

    def test_an_output_the_loss_leaves_out_is_a_group_of_its_own(self) -> None:
        with examined(VAE(lambda mu, _: mu), X, loss=lambda out, x: out[0].sum()) as examination:
            (lost,) = examination.losses_of_gradient
            assert [b.path for b in lost.branches] == ["logvar"]
            assert lost.returned
            assert lost.cut is None
            assert text_of(lost.at) == "self.logvar(h)"

    def test_nothing_is_lost_in_a_healthy_model(self) -> None:
        with examined(VAE(healthy), X, loss=elbo) as examination:
            assert not examination.losses_of_gradient


class TestDead:
    """Gradients that are exactly zero in every run."""

    def test_a_dead_activation_is_named(self) -> None:
        class Dead(VAE):
            def forward(self, x: Tensor) -> tuple[Tensor, ...]:
                h = F.relu(self.hidden(x) - 1e3)
                mu, logvar = self.mu(h), self.logvar(h)
                return self.decoder(self.sampler(mu, logvar)), mu, logvar

        with examined(Dead(healthy), X, loss=elbo) as examination:
            (dead,) = examination.dead_branches
            assert "hidden" in dead.paths
            assert dead.operation == "relu"
            assert text_of(dead.at) == "F.relu(self.hidden(x) - 1e3)"

    @pytest.mark.parametrize("bias", [0.0, -100.0])
    def test_few_units_that_an_unlucky_draw_silenced_are_no_dead_activation(
        self, bias: float
    ) -> None:
        class Squeezed(VAE):
            def forward(self, x: Tensor) -> tuple[Tensor, ...]:
                h = F.relu(self.hidden(2 + x))
                mu, logvar = self.mu(h), self.logvar(h)
                return self.decoder(self.sampler(mu, logvar)), mu, logvar

        model = Squeezed(healthy)
        nn.init.constant_(model.hidden.weight, -0.3)
        nn.init.constant_(model.hidden.bias, bias)
        with examined(model, X, loss=elbo) as examination:
            assert not examination.gradients.by_name["hidden.weight"].any()
            assert bool(examination.dead_branches) is (bias != 0)
        assert (model.hidden.weight == -0.3).all()

    def test_a_layer_behind_a_zero_initialised_one_is_alive(self) -> None:
        model = VAE(healthy)
        nn.init.zeros_(model.decoder.weight)
        with examined(model, X, loss=lambda out, x: F.mse_loss(out[0], x)) as examination:
            gradient = examination.gradients.by_name["hidden.weight"]
            assert gradient is not None
            assert not gradient.any()
            assert not examination.dead_branches

    @pytest.mark.parametrize("straight", [True, False])
    def test_a_layer_fed_codes_that_round_to_zero_waits_for_them(self, straight: bool) -> None:
        class Rounded(VAE):
            def forward(self, x: Tensor) -> tuple[Tensor, ...]:
                h = F.relu(self.hidden(x))
                mu, logvar = 0.01 * self.mu(h), self.logvar(h)
                z = mu + (mu.round() - mu).detach() if straight else mu.round()
                return self.decoder(z), mu, logvar

        with examined(Rounded(healthy), X, loss=lambda out, x: F.mse_loss(out[0], x)) as found:
            assert not found.gradients.by_name["decoder.weight"].any()
            assert bool(found.dead_branches) is not straight


DRAWN_BY_REJECTION = {
    "dirichlet": lambda h: Dirichlet(F.softplus(h) + 0.3),
    "beta": lambda h: Beta(F.softplus(h) + 0.3, torch.ones_like(h)),
    "gamma": lambda h: Gamma(F.softplus(h) + 0.3, torch.ones_like(h)),
}


@pytest.mark.parametrize("scored", [False, True])
@pytest.mark.parametrize("draw", ["sample", "rsample"])
@pytest.mark.parametrize("family", DRAWN_BY_REJECTION.values(), ids=DRAWN_BY_REJECTION)
def test_a_draw_by_rejection_is_cut_by_sample_alone(family: Any, draw: str, scored: bool) -> None:
    torch.manual_seed(0)
    parts = {"h": nn.Linear(6, 3), "out": nn.Linear(3, 6)}

    def body(x: Tensor) -> tuple[Tensor, Tensor]:
        q = family(parts["h"](x))
        z = getattr(q, draw)()
        x_hat = parts["out"](z)
        score = (x_hat - x).pow(2).sum().detach() * q.log_prob(z.detach()).sum()
        return x_hat, score if scored else q.entropy().sum()

    def loss(out: Any, x: Tensor) -> Tensor:
        total: Tensor = (out[0] - x).pow(2).sum() - out[1]
        return total

    with examined(Bare(body, **parts), torch.rand(8, 6), loss=loss) as examination:
        (found,) = examination.reparameterizations
    assert found.passes == (draw == "rsample")
    assert found.judged == (draw == "rsample" or not scored)
    assert (found.cut is None) == (draw == "rsample")
