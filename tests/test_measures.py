"""The numbers of the measurements, each against a second computation."""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import median
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from steps import Bare, examined, step
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence

from vaedoctor.examine.anatomy.heads import Head
from vaedoctor.examine.code.listing import text_of
from vaedoctor.examine.objective.objective import compose
from vaedoctor.examine.runs.gradients import Arrives, kind_of
from vaedoctor.examine.sampling.heads import _overlap
from vaedoctor.examine.shapes.shapes import _rows_are_cut
from vaedoctor.rule import Unavailable

X = torch.linspace(-1, 1, 24).reshape(4, 6)


class VAE(nn.Module):
    """A VAE in which every part can be replaced."""

    def __init__(
        self,
        scale: Callable[[Tensor], Tensor] = lambda v: torch.exp(0.5 * v),
        before: Callable[[Tensor], Tensor] = lambda h: h,
        skip: float = 0.0,
    ) -> None:
        super().__init__()
        self.hidden, self.mu, self.logvar = nn.Linear(6, 8), nn.Linear(8, 3), nn.Linear(8, 3)
        self.decoder = nn.Linear(3, 6)
        self.scale, self.before, self.skip = scale, before, skip

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = torch.tanh(self.hidden(x))
        return self.mu(h), self.before(self.logvar(h))

    def forward(self, x: Tensor) -> Any:
        mu, logvar = self.encode(x)
        z = mu + self.scale(logvar) * torch.randn_like(mu)
        x_hat = self.decoder(z)
        if self.skip:
            x_hat = x_hat + self.skip * x.sin()
        return x_hat, mu, logvar


def made(**options: Any) -> VAE:
    torch.manual_seed(7)
    return VAE(**options)


def elbo(out: Any, x: Tensor) -> Tensor:
    x_hat, mu, logvar = out
    kl = 0.5 * (mu**2 + logvar.exp() - 1 - logvar).sum()
    loss: Tensor = 0.5 * F.mse_loss(x_hat, x, reduction="sum") + kl
    return loss


class TestComposed:
    """The loss that vaedoctor makes up."""

    @pytest.mark.parametrize(
        "scale", [lambda v: torch.exp(0.5 * v), lambda v: v.exp(), lambda v: F.softplus(v) + 1e-3]
    )
    def test_is_squared_error_plus_torchs_kl(self, scale: Callable[[Tensor], Tensor]) -> None:
        model = made(scale=scale)
        with examined(model, X) as examination:
            loss = compose(examination.anatomy)
            x_hat, mu, logvar = examination.recording.output
        assert loss is not None
        q, p = Normal(mu, scale(logvar)), Normal(0.0, 1.0)
        expected = 0.5 * ((x_hat - X) ** 2).sum() / 4 + kl_divergence(q, p).sum() / 4
        assert torch.allclose(loss, expected, rtol=1e-5)

    def test_is_the_mean_of_the_log_ratio(self) -> None:
        with examined(made(), X) as examination:
            loss = compose(examination.anatomy)
            x_hat, mu, logvar = (t.detach() for t in examination.recording.output)
        assert loss is not None
        q, p = Normal(mu, torch.exp(0.5 * logvar)), Normal(0.0, 1.0)
        z = q.sample(torch.Size([20_000]))
        ratio = (q.log_prob(z) - p.log_prob(z)).sum((1, 2)) / 4
        error = ratio.std() / math.sqrt(len(ratio))
        kl = loss.detach() - 0.5 * ((x_hat - X) ** 2).sum() / 4
        assert abs(kl - ratio.mean()) < 4 * error

    def test_of_heads_never_sampled_has_a_kl_too(self) -> None:
        class Mean(VAE):
            def forward(self, x: Tensor) -> Any:
                mu, logvar = self.encode(x)
                return self.decoder(mu), mu, logvar

        with examined(Mean(), X) as examination:
            loss = compose(examination.anatomy)
            x_hat, mu, logvar = examination.recording.output
        assert loss is not None
        kl = kl_divergence(Normal(mu, torch.exp(0.5 * logvar)), Normal(0.0, 1.0)).sum()
        assert torch.allclose(loss, 0.5 * ((x_hat - X) ** 2).sum() / 4 + kl / 4, rtol=1e-5)

    def test_for_classes_is_a_cross_entropy(self) -> None:
        class Tokens(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.embed, self.out = nn.Embedding(7, 5), nn.Linear(5, 7)

            def forward(self, x: Tensor) -> Tensor:
                h = self.embed(x)
                y: Tensor = self.out(h + torch.exp(h) * torch.randn_like(h))
                return y

        tokens = torch.randint(0, 7, (3, 4))
        with examined(Tokens(), tokens) as examination:
            assert examination.anatomy.x_hat is not None
            loss = compose(examination.anatomy)
        assert loss is not None
        assert torch.isfinite(loss)
        assert loss.requires_grad

    def test_there_is_none_without_a_reconstruction(self) -> None:
        with examined(Bare(lambda x: x), X) as examination:
            assert examination.loss is None
            assert examination.composed
            with pytest.raises(Unavailable, match="--objective"):
                examination.require_gradients()


class TestSaturation:
    @pytest.mark.parametrize(
        ("clamp", "low", "high"),
        [
            (lambda v: v.clamp(-0.2, 0.1), -0.2, 0.1),
            (lambda v: torch.clamp(v, min=-0.2, max=0.1), -0.2, 0.1),
            (lambda v: v.clamp(max=0.1), None, 0.1),
            (lambda v: v.clamp_min(-0.2), -0.2, None),
            (lambda v: torch.clamp_max(v, 0.1), None, 0.1),
            (lambda v: torch.clip(v, -0.2, 0.1), -0.2, 0.1),
            (lambda v: F.hardtanh(v, -0.2, 0.1), -0.2, 0.1),
            (lambda v: F.hardtanh(v, min_val=-0.2, max_val=0.1), -0.2, 0.1),
        ],
    )
    def test_the_share_is_that_of_zero_slopes(
        self, clamp: Callable[[Tensor], Tensor], low: float | None, high: float | None
    ) -> None:
        model = made(before=clamp)
        with examined(model, X) as examination:
            (found,) = examination.clamps
        assert (found.low, found.high) == (low, high)
        h = torch.tanh(model.hidden(X))
        raw = model.logvar(h).detach().requires_grad_()
        (slope,) = torch.autograd.grad(clamp(raw).sum(), raw)
        assert found.share == pytest.approx((slope == 0).float().mean().item())
        assert 0 < found.share < 1

    def test_a_clamp_elsewhere_is_none_of_the_posteriors(self) -> None:
        class Clamped(VAE):
            def forward(self, x: Tensor) -> Any:
                x_hat, mu, logvar = super().forward(x)
                return x_hat.clamp(0, 1), mu, logvar

        with examined(Clamped(), X) as examination:
            assert not examination.clamps


CUT = [
    lambda h: h.chunk(2, dim=1)[0],
    lambda h: h.chunk(2, dim=0)[0],
    lambda h: h.split(3, dim=1)[1],
    lambda h: h.split(2, dim=0)[1],
    lambda h: h[:, ::2],
    lambda h: h[::2],
    lambda h: h.view(2, 4, 3)[0],
    lambda h: h.view(4, 2, 3)[:, 1],
    lambda h: h.view(-1, 3)[:4],
    lambda h: h.t()[:3],
    lambda h: h.t()[:3].t(),
    lambda h: h.view(4, 3, 2).unbind(2)[0],
    lambda h: h.reshape(2, -1)[1],
    lambda h: h.unsqueeze(1)[:, :, :3],
    lambda h: h[1:2].expand(4, 6),
    lambda h: h,
]


@pytest.mark.parametrize("part", CUT)
def test_the_rows_of_a_part_against_brute_force(part: Callable[[Tensor], Tensor]) -> None:
    """Every entry knows the row it came from; some axis must run through the rows in order."""
    layer = nn.Linear(3, 6)
    x = torch.ones(4, 3)
    recording = step(Bare(lambda x: part(layer(x)) * 1.0, layer=layer), x)
    op = recording.ops[0]
    value = recording.ops[-1].reads[0]
    rows = part(torch.arange(4).view(4, 1).expand(4, 6).contiguous())
    whole = any(
        rows.shape[axis] == 4 and all((rows.select(axis, i) == i).all() for i in range(4))
        for axis in range(rows.dim())
    )
    mixed = not whole and rows.unique().numel() > 1
    assert _rows_are_cut(Head(value, op, ""), rows=4) == mixed


VIEWS = [
    (lambda t: t[:, :3], lambda t: t[:, 3:]),
    (lambda t: t[:, :4], lambda t: t[:, 2:]),
    (lambda t: t, lambda t: t[:, ::2]),
    (lambda t: t[1:], lambda t: t[:-1]),
    (lambda t: t[:, ::2], lambda t: t[:, 1::2]),
    (lambda t: t.t()[2:4], lambda t: t[2]),
    (lambda t: t.view(2, 12)[0], lambda t: t.view(3, 8)[:, 4:]),
    (lambda t: t[0].expand(4, 6), lambda t: t[:, 0]),
    (lambda t: t[:, :3].clone(), lambda t: t),
]


@pytest.mark.parametrize(("left", "right"), VIEWS)
def test_the_overlap_of_views_against_sets(
    left: Callable[[Tensor], Tensor], right: Callable[[Tensor], Tensor]
) -> None:
    whole = torch.arange(24.0).view(4, 6)
    a, b = left(whole), right(whole)
    theirs = set(b.flatten().tolist())
    share = sum(v in theirs for v in a.flatten().tolist()) / a.numel()
    if a.untyped_storage().data_ptr() != whole.untyped_storage().data_ptr():
        share = 0.0  # a copy shares nothing
    assert _overlap(a, b) == pytest.approx(share)


class TestIdenticalHeads:
    @pytest.mark.parametrize(
        ("heads", "shared"),
        [
            (lambda m: lambda h: (m.mu(h), m.logvar(h)), None),
            (lambda m: lambda h: (m.mu(h), m.mu(h)), 1.0),
            (lambda m: lambda h: (v := m.mu(h), v)[-2:], 1.0),
        ],
    )
    def test_equal_heads_are_one(self, heads: Any, shared: float | None) -> None:
        class Twin(VAE):
            def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
                pair: tuple[Tensor, Tensor] = heads(self)(torch.tanh(self.hidden(x)))
                return pair

        with examined(Twin(), X) as examination:
            assert [i.shared for i in examination.identical_heads] == ([shared] if shared else [])

    @pytest.mark.parametrize("kind", [nn.Parameter, lambda t: t.requires_grad_()])
    def test_weights_in_a_plain_dict_make_two_heads(self, kind: Any) -> None:
        class Plain(VAE):
            def __init__(self) -> None:
                super().__init__()
                self.kept = {k: kind(torch.randn(8, 3)) for k in "ms"}

            def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
                h = torch.tanh(self.hidden(x))
                return h @ self.kept["m"], h @ self.kept["s"]

        with examined(Plain(), X) as examination:
            assert not examination.identical_heads
            (latent,) = examination.anatomy.latents
            assert [h and h.op.name for h in (latent.loc_head, latent.scale_head)] == ["matmul"] * 2

    def test_two_heads_that_start_at_zero_are_two(self) -> None:
        model = made()
        for layer in (model.mu, model.logvar):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        with examined(model, X) as examination:
            assert not examination.identical_heads


class TestPins:
    def test_nothing_passes_a_healthy_bottleneck(self) -> None:
        with examined(made(), X, loss=elbo) as examination:
            assert examination.pinned.leak == 0.0
            assert examination.pinned.merge is None

    def test_the_leak_is_the_finite_difference_with_z_held(self) -> None:
        model = made(skip=0.7)
        with examined(model, X, loss=elbo) as examination:
            pinned = examination.pinned
        drawn = torch.rand(X.shape, generator=torch.Generator().manual_seed(0)) + 0.5
        z = torch.zeros(4, 3, dtype=torch.float64)  # held: any value will do, z enters linearly
        decoder = nn.Linear(3, 6).double()

        def x_hat(x: Tensor) -> Tensor:
            y: Tensor = decoder(z) + 0.7 * x.sin()
            return y

        slopes = []
        for i in range(24):
            move = torch.zeros(24, dtype=torch.float64)
            move[i] = 1e-6
            ends = [x_hat(X.double() + sign * move.view(4, 6)) for sign in (1, -1)]
            slopes.append((((ends[0] - ends[1]) / 2e-6) * drawn).sum().abs().item())
        assert pinned.leak == pytest.approx(max(slopes), rel=1e-4)
        assert not pinned.identity
        assert pinned.merge is not None
        assert text_of(pinned.merge.span) == "x_hat + self.skip * x.sin()"

    def test_x_added_as_it_is_shows_as_the_identity(self) -> None:
        class Residual(VAE):
            def forward(self, x: Tensor) -> Any:
                x_hat, mu, logvar = super().forward(x)
                return x_hat + x, mu, logvar

        with examined(Residual(), X, loss=elbo) as examination:
            assert examination.pinned.identity

    def test_teacher_forcing_knows_only_earlier_steps(self) -> None:
        class Forced(nn.Module):
            def __init__(self, shift: int) -> None:
                super().__init__()
                self.shift = shift
                self.mu, self.logvar = nn.Linear(3, 2), nn.Linear(3, 2)
                self.cell, self.out = nn.GRU(3 + 2, 4, batch_first=True), nn.Linear(4, 3)

            def forward(self, x: Tensor) -> Any:
                mu, logvar = self.mu(x.mean(1)), self.logvar(x.mean(1))
                z = mu + torch.exp(0.5 * logvar) * torch.randn_like(mu)
                seen = F.pad(x, (0, 0, self.shift, 0))[:, : x.size(1)]
                z = z[:, None].expand(-1, x.size(1), -1)
                return self.out(self.cell(torch.cat([seen, z], -1))[0]), mu, logvar

        x = torch.randn(2, 5, 3)
        for shift, causal in ((1, True), (0, False)):
            with examined(Forced(shift), x) as examination:
                assert examination.pinned.causal is causal
                assert examination.pinned.leak > 0

    def test_without_a_sample_nothing_can_be_pinned(self) -> None:
        with (
            examined(nn.Linear(6, 6), X) as examination,
            pytest.raises(Unavailable, match="no sample"),
        ):
            _ = examination.pinned


class TestReload:
    @staticmethod
    def difference(kind: Callable[[], nn.Module]) -> Any:
        with examined(kind(), X, rebuild=lambda seed: kind()) as examination:
            return examination.reloaded

    def test_a_plain_model_comes_back(self) -> None:
        found = self.difference(VAE)
        assert found.difference == 0
        assert not found.lost

    def test_what_is_not_in_the_state_is_lost_by_its_own_amount(self) -> None:
        offsets = iter([1.0, 3.5])

        class Offset(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.layer = nn.Linear(6, 6)
                self.offset = torch.full((6,), next(offsets))

            def forward(self, x: Tensor) -> Tensor:
                y: Tensor = self.layer(x) + self.offset
                return y

        found = self.difference(Offset)
        assert found.difference == pytest.approx(2.5, rel=1e-5)
        assert [p.expression for p in found.lost] == ["self.offset"]
        assert text_of(found.lost[0].at) == "self.offset = torch.full((6,), next(offsets))"

    def test_without_a_way_to_build_it_is_not_judged(self) -> None:
        with examined(made(), X) as examination, pytest.raises(Unavailable, match="fresh"):
            _ = examination.reloaded


class TestOwnership:
    def test_against_sets_of_identities(self) -> None:
        model, stranger = made(), nn.Linear(2, 2)
        held = [*model.decoder.parameters(), model.mu.weight, *stranger.parameters()]
        optimizers = (torch.optim.SGD(held[:2], lr=0.1), torch.optim.Adam(held[2:], lr=0.1))
        with examined(model, X, loss=elbo, optimizers=optimizers) as examination:
            found = examination.ownership
            gradients = examination.gradients
        assert found is not None
        ids = set(map(id, held))
        assert found.owned == sum(id(p) in ids for p in model.parameters()) == 3
        assert found.stale == 2
        missing = {
            name
            for name, p in model.named_parameters()
            if id(p) not in ids and kind_of(gradients.by_name[name]) is Arrives.YES
        }
        assert {n for b in found.unowned for n in b.parameters} == missing

    def test_without_an_optimizer_nothing_is_said(self) -> None:
        with examined(made(), X, loss=elbo) as examination:
            assert examination.ownership is None


class TestScale:
    def test_the_medians_are_those_of_plain_autograd(self) -> None:
        model = made()
        with examined(model, X, loss=elbo) as examination:
            found = examination.gradient_scale
        torch.manual_seed(0)
        elbo(model(X), X).backward()
        ratio = {
            n: (p.grad.norm() / p.norm()).item()
            for n, p in model.named_parameters()
            if p.dim() > 1 and p.grad is not None
        }
        before = [ratio[f"{n}.weight"] for n in ("hidden", "mu", "logvar")]
        assert found.encoder == pytest.approx(median(before), rel=1e-4)
        assert found.decoder == pytest.approx(ratio["decoder.weight"], rel=1e-4)
        assert f"{found.smallest} {found.largest}".count("decoder") == 0
        assert found.ratio == pytest.approx(found.encoder / found.decoder)

    def test_the_line_that_shrinks_it_most_is_named(self) -> None:
        class Shrunk(VAE):
            def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
                h = torch.tanh(self.hidden(x))
                h = h * 1e-6
                return self.mu(h), self.logvar(h)

        with examined(Shrunk(), X, loss=elbo) as examination:
            found, places = examination.gradient_scale, examination.steepest
        assert found.smallest == "hidden.weight"
        assert text_of(places.shrinks_at) == "h * 1e-6"


class Broken(nn.Module):
    def __init__(self, body: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.layer, self.body = nn.Linear(6, 6), body

    def forward(self, x: Tensor) -> Tensor:
        return self.body(self.layer(x) * 0)


def sqrt(h: Tensor) -> Tensor:
    return h.sqrt()


def norm(h: Tensor) -> Tensor:
    return (h / h.norm(dim=1, keepdim=True).clamp_min(1e-30)) + h.std(dim=1, keepdim=True)


def where(h: Tensor) -> Tensor:
    return torch.where(h > 0, h.log(), h)


def overflow(h: Tensor) -> Tensor:
    return torch.exp(h + 100)


class TestAnomaly:
    @pytest.mark.parametrize(
        ("body", "text", "forward"),
        [
            (sqrt, "h.sqrt()", False),
            (where, "h.log()", False),
            (overflow, "torch.exp(h + 100)", True),
        ],
    )
    def test_the_operation_that_makes_it_is_named(
        self, body: Callable[[Tensor], Tensor], text: str, forward: bool
    ) -> None:
        with examined(Broken(body), X, loss=lambda y, x: y.sum()) as examination:
            found = examination.anomaly
        assert found is not None
        assert text_of(found.at) == text
        assert found.forward is forward
        assert found.operand == ((100.0, 100.0) if forward else (0.0, 0.0))
        assert set(found.parameters) <= {"layer.weight", "layer.bias"}

    def test_infinities_are_found_where_anomaly_mode_sees_nan_alone(self) -> None:
        def body(h: Tensor) -> Tensor:
            return (h + 1e-30).sqrt() * 1e30 * (h + 1)

        with examined(Broken(body), X, loss=lambda y, x: (y * 1e30).sum()) as examination:
            gradient = examination.gradients.by_name["layer.bias"]
            found = examination.anomaly
        assert gradient is not None
        assert (found is None) == bool(torch.isfinite(gradient).all())

    def test_a_finite_step_has_none(self) -> None:
        with examined(made(), X, loss=elbo) as examination:
            assert examination.anomaly is None


class TestNoise:
    """Noise that is shared, frozen, or not."""

    @pytest.mark.parametrize(
        ("draw", "shared"),
        [
            (lambda m: torch.randn_like(m), False),
            (lambda m: torch.randn(m.shape[1]), True),
            (lambda m: torch.randn(1, m.shape[1]), True),
            (lambda m: torch.randn(()), True),
            (lambda m: torch.randn(m.shape[0], 1), False),
            (lambda m: torch.randn(m.shape[1]).expand_as(m), True),
        ],
    )
    def test_shared_means_that_the_rows_move_alike(
        self, draw: Callable[[Tensor], Tensor], shared: bool
    ) -> None:
        def sample(x: Tensor) -> Tensor:
            mu = layer(x)
            return mu + torch.exp(scale(x)) * draw(mu)

        layer, scale = nn.Linear(6, 3), nn.Linear(6, 3)
        decoder = nn.Linear(3, 6)
        model = Bare(lambda x: decoder(sample(x)), layer=layer, scale=scale, decoder=decoder)
        with examined(model, X) as examination:
            latent = examination.anatomy.latents[0]
            eps = (latent.z.tensor - layer(X)) / torch.exp(scale(X))
            alike = bool(torch.allclose(eps, eps[:1].expand_as(eps), atol=1e-5))
            assert alike is shared
            assert bool(examination.shared_noise) is shared

    @pytest.mark.parametrize("scored", [True, False])
    @pytest.mark.parametrize("columns", [1, 3])
    def test_one_draw_for_all_units_is_shared_where_the_kl_takes_them_for_independent(
        self, scored: bool, columns: int
    ) -> None:
        def forward(x: Tensor) -> Any:
            m, v = both(x).chunk(2, -1)
            return out(m + torch.exp(0.5 * v) * torch.randn(len(x), columns)), m, v

        def loss(output: Any, x: Tensor) -> Tensor:
            y, m, v = output
            kl = 0.5 * (m.square() + v.exp() - 1 - v).sum()
            return F.mse_loss(y, x, reduction="sum") + (kl if scored else 0.0)

        both, out = nn.Linear(6, 6), nn.Linear(3, 6)
        with examined(Bare(forward, both=both, out=out), X, loss=loss) as examination:
            found = examination.units_of_one_draw
            z = examination.anatomy.latents[0].z.tensor.detach()
            m, v = both(X).detach().chunk(2, -1)
            eps = (z - m) / torch.exp(0.5 * v)
            alike = torch.allclose(eps, eps[:, :1].expand_as(eps), atol=1e-4)
        assert alike is (columns == 1)
        assert [s.units for s in found] == ([3] if scored and alike else [])

    @pytest.mark.parametrize("frozen", [True, False])
    def test_frozen_means_that_two_passes_agree(self, frozen: bool) -> None:
        class Seeded(VAE):
            def forward(self, x: Tensor) -> Any:
                if frozen:
                    torch.manual_seed(1)
                return super().forward(x)

        model = Seeded()
        torch.manual_seed(3)
        agree = torch.equal(model(X)[0], model(X)[0])
        with examined(model, X) as examination:
            assert bool(examination.frozen_noise) is agree is frozen


def test_the_other_batch_keeps_its_range_its_labels_and_its_structure() -> None:
    from vaedoctor.examine.sampling.noise import perturbed
    from vaedoctor.subject.subject import Batch

    image, label = torch.rand(4, 6), torch.arange(4)
    batch = Batch(((image, [label]), {"x": image}), {"mask": torch.ones(2), "k": 3})
    other = perturbed(batch)
    (moved, (same,)), named = other.args
    assert torch.equal(same, label)
    assert not torch.equal(moved, image)
    assert image.min() <= moved.min()
    assert moved.max() <= image.max()
    assert not torch.equal(named["x"], moved)
    assert other.kwargs["k"] == 3
    assert other.kwargs["mask"].min() >= 0
    assert other.kwargs["mask"].max() <= 1
