"""Evaluation twins, embeddings, conditions and coverage, each against a second computation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from steps import examined
from torch import Tensor, nn

from vaedoctor.rule import Unavailable

X = torch.linspace(-1, 1, 24).reshape(4, 6)
Draw = Callable[[Tensor, Tensor], Tensor]


class VAE(nn.Module):
    """A VAE with a sampler of its own in evaluation mode."""

    def __init__(self, inference: Draw, after: Callable[[Tensor], Tensor] = lambda z: z) -> None:
        super().__init__()
        self.hidden, self.heads = nn.Linear(6, 8), nn.Linear(8, 6)
        self.decoder = nn.Linear(3, 6)
        self.inference, self.after = inference, after
        self.z: Tensor | None = None

    def forward(self, x: Tensor) -> Any:
        mu, logvar = self.heads(torch.tanh(self.hidden(x))).chunk(2, 1)
        std = torch.exp(0.5 * logvar)
        z = mu + std * torch.randn_like(std) if self.training else self.inference(mu, std)
        self.z = self.after(z)
        return self.decoder(self.z), mu, logvar


def shift_by_hand(model: VAE, x: Tensor) -> float:
    """The mean of z over many evaluation passes, against mu."""
    model.eval()
    zs = []
    with torch.no_grad():
        for _ in range(400):
            _, mu, _ = model(x)
            assert model.z is not None
            zs.append(model.z)
    spread = torch.stack(zs).std(0).max() / 20
    gap = (torch.stack(zs).mean(0) - mu).abs().max()
    return float(gap - 5 * spread)


@pytest.mark.parametrize(
    ("inference", "right"),
    [
        (lambda m, s: m, True),
        (lambda m, s: m + s * torch.randn_like(s), True),
        (lambda m, s: torch.distributions.Normal(m, s).sample(), True),
        (lambda m, s: torch.normal(m, s), True),
        (lambda m, s: m.detach(), True),
        (lambda m, s: m + s, False),
        (lambda m, s: 2 * m, False),
        (lambda m, s: m * s, False),
        (lambda m, s: torch.randn_like(m), False),
        (lambda m, s: (s.mul_(torch.ones_like(s))).add_(m), False),
        (lambda m, s: torch.zeros_like(m), False),
    ],
)
def test_the_latent_of_evaluation_mode(inference: Draw, right: bool) -> None:
    model = VAE(inference)
    assert (shift_by_hand(model, X) <= 1e-6) is right
    with examined(model, X) as examination:
        (found,) = examination.eval_latents
    assert found.consistent is right


@pytest.mark.parametrize("after", [torch.tanh, lambda z: z / z.norm(dim=1, keepdim=True)])
def test_what_happens_after_the_sample_is_not_judged(after: Callable[[Tensor], Tensor]) -> None:
    with examined(VAE(lambda m, s: m, after), X) as examination:
        assert all(found.consistent for found in examination.eval_latents)
    with examined(VAE(lambda m, s: m + s, after), X) as examination:
        assert not any(found.consistent for found in examination.eval_latents)


class Embedder(VAE):
    def __init__(self, method: Callable[[Any, Tensor], Any]) -> None:
        super().__init__(lambda m, s: m)
        self.method = method

    def encode(self, x: Tensor) -> Any:
        mu, logvar = self.heads(torch.tanh(self.hidden(x))).chunk(2, 1)
        return self.method(mu, torch.exp(0.5 * logvar))


@pytest.mark.parametrize(
    ("method", "noisy"),
    [
        (lambda m, s: m, False),
        (lambda m, s: (m, s), False),
        (lambda m, s: (m + s * torch.randn_like(s), m, s), False),
        (lambda m, s: torch.distributions.Normal(m, s), False),
        (lambda m, s: m + s * torch.randn_like(s), True),
        (lambda m, s: {"z": torch.normal(m, s)}, True),
    ],
)
def test_two_calls_of_an_embedding(method: Callable[[Any, Tensor], Any], noisy: bool) -> None:
    with examined(Embedder(method), X) as examination:
        (found,) = examination.embeddings
    assert (found.difference > 0) is noisy
    assert bool(found.draw) is noisy or found.draw == "randn_like"


class Extractor(VAE):
    """Codes of whole numbers, by a method of another name."""

    noisy = False

    def __init__(self) -> None:
        super().__init__(lambda m, s: m)

    def get_codes(self, x: Tensor) -> Tensor:
        mu, logvar = self.heads(torch.tanh(self.hidden(x))).chunk(2, 1)
        z = torch.normal(mu, logvar.exp()) if self.noisy else mu
        return z.argmax(1)


class NoisyExtractor(Extractor):
    noisy = True


@pytest.mark.parametrize(("kind", "drawn"), [(Extractor, False), (NoisyExtractor, True)])
def test_codes_of_whole_numbers_are_embeddings_too(kind: type[Extractor], drawn: bool) -> None:
    with examined(kind(), X) as examination:
        (found,) = examination.embeddings
    assert (found.difference > 0) is drawn


class Counting(Embedder):
    """What `encode` returns moves with each call, and nothing is drawn."""

    def __init__(self) -> None:
        super().__init__(lambda m, s: m)
        self.register_buffer("calls", torch.zeros(()))

    def encode(self, x: Tensor) -> Any:
        self.calls += 1
        return super().encode(x) + self.calls


def test_an_embedding_that_moves_without_a_draw_is_no_sample() -> None:
    with examined(Counting(), X) as examination:
        (found,) = examination.embeddings
    assert found.difference == 0


class Conditional(nn.Module):
    def __init__(self, use: Callable[[Any, Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.Linear(6, 6), nn.Linear(6, 6)
        self.zero = nn.Linear(1, 3)
        nn.init.zeros_(self.zero.weight)
        nn.init.zeros_(self.zero.bias)
        self.use = use

    def forward(self, x: Tensor, label: Tensor) -> Any:
        mu, logvar = self.encoder(x).chunk(2, 1)
        z = mu + torch.exp(0.5 * logvar) * torch.randn_like(mu)
        return self.decoder(torch.cat([z, self.use(self, z, label)], 1)), mu, logvar


@pytest.mark.parametrize(
    ("use", "unused"),
    [
        (lambda m, z, y: y[:, None].expand(-1, 3), False),
        (lambda m, z, y: m.zero(y[:, None]), False),
        (lambda m, z, y: torch.zeros_like(z), True),
        (lambda m, z, y: torch.zeros_like(y)[:, None].expand(-1, 3), True),
        (lambda m, z, y: torch.full_like(z, y.mean().item()), False),
    ],
)
@pytest.mark.parametrize("conditions", [(), (1,)])
def test_a_condition_is_used_or_not(use: Any, unused: bool, conditions: tuple[int, ...]) -> None:
    label = torch.tensor([0.0, 1.0, 2.0, 4.0])
    model = Conditional(use)
    with examined(model, X, label, conditions=frozenset(conditions)) as examination:
        (found,) = examination.conditions
    torch.manual_seed(0)
    usual = model(X, label)[0]
    torch.manual_seed(0)
    same = torch.equal(usual, model(X, label * 2)[0])
    assert found.unused is unused
    assert not unused or same


@pytest.mark.parametrize("columns", [[0], [5], [1, 3], []])
def test_columns_without_gradient(columns: list[int]) -> None:
    kept = [c for c in range(6) if c not in columns]

    def loss(out: Any, x: Tensor) -> Tensor:
        total: Tensor = (out[0][:, kept] - x[:, kept]).pow(2).sum()
        return total

    with examined(VAE(lambda m, s: m), X, loss=loss) as examination:
        assert list(examination.coverage.missing) == columns


def test_steps_at_an_end_are_an_offset() -> None:
    class Steps(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 3)

        def forward(self, x: Tensor) -> Any:
            return (self.layer(x),)

    def shifted(out: Any, x: Tensor) -> Tensor:
        total: Tensor = (out[0][:, :-1] - x[:, 1:]).pow(2).sum()
        return total

    def holed(out: Any, x: Tensor) -> Tensor:
        total: Tensor = (out[0][:, [0, 1, 4]] - x[:, [0, 1, 4]]).pow(2).sum()
        return total

    x = torch.rand(4, 5, 3)
    with examined(Steps(), x, loss=shifted) as examination:
        assert examination.coverage.missing == ()
    with examined(Steps(), x, loss=holed) as examination:
        assert examination.coverage.missing == (2, 3)


@pytest.mark.parametrize("symmetric", [True, False])
def test_half_of_a_symmetric_matrix_says_all_of_it(symmetric: bool) -> None:
    class Edges(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(25, 25)

        def forward(self, x: Tensor) -> Any:
            return (self.layer(x.flatten(1)).view(x.shape),)

    def upper(out: Any, x: Tensor) -> Tensor:
        i, j = torch.triu_indices(5, 5, offset=1)
        total: Tensor = (out[0][:, i, j] - x[:, i, j]).pow(2).sum()
        return total

    x = torch.rand(8, 5, 5)
    with examined(Edges(), x + x.mT if symmetric else x, loss=upper) as examination:
        assert bool(examination.coverage.missing) is not symmetric


def test_what_is_left_out_lies_beside_the_last_slice_before_it() -> None:
    def loss(out: Any, x: Tensor) -> Tensor:
        first = (out[0][:, :2] - x[:, :2]).pow(2).sum()
        total: Tensor = first + (out[0][:, 2:4] - x[:, 2:4]).pow(2).sum()
        return total

    with examined(VAE(lambda m, s: m), X, loss=loss) as examination:
        found = examination.coverage
    assert found.missing == (4, 5)
    assert found.op is not None
    assert found.op.span is not None
    assert found.op.span.line == loss.__code__.co_firstlineno + 2


@pytest.mark.parametrize(
    ("kept", "shown", "padded", "missing"),
    [
        (slice(0, 3), slice(0, 6), False, (3, 4, 5)),
        (slice(2, 6), slice(0, 6), False, (0, 1)),
        (slice(1, 5), slice(0, 6), False, ()),  # a border
        (slice(0, 3), slice(0, 6), True, ()),
        (slice(0, 3), slice(3, 6), False, ()),  # to be completed from the other half
    ],
)
def test_one_end_of_a_picture_that_is_left_out(
    kept: slice, shown: slice, padded: bool, missing: tuple[int, ...]
) -> None:
    class Pictures(VAE):
        def forward(self, x: Tensor) -> Any:
            part = torch.zeros_like(x)
            part[..., shown] = x[..., shown]
            out, mu, logvar = super().forward(part.flatten(1).unflatten(1, (2, 6)).mean(1))
            return out.view(-1, 1, 1, 6).expand(x.shape), mu, logvar

    def loss(out: Any, x: Tensor) -> Tensor:
        total: Tensor = (out[0][..., kept] - x[..., kept]).pow(2).sum()
        return total

    x = torch.rand(4, 1, 2, 6)
    x[..., 3:] *= not padded
    with examined(Pictures(lambda m, s: m), x, loss=loss) as examination:
        assert examination.coverage.missing == missing


def test_without_the_users_loss_nothing_is_left_out() -> None:
    with (
        examined(VAE(lambda m, s: m), X) as examination,
        pytest.raises(Unavailable, match="--objective"),
    ):
        _ = examination.coverage


def test_a_latent_whose_axes_are_turned_is_still_the_location() -> None:
    class Turned(nn.Module):
        def __init__(self, scale_in_evaluation: bool) -> None:
            super().__init__()
            self.heads, self.decoder = nn.Conv1d(4, 6, 3, padding=1), nn.Linear(3, 4)
            self.scale_in_evaluation = scale_in_evaluation

        def forward(self, x: Tensor) -> Any:
            mu, logvar = self.heads(x.transpose(1, 2)).chunk(2, 1)
            noise = torch.randn_like(mu) + float(self.scale_in_evaluation and not self.training)
            z = mu + noise * (logvar / 2).exp()
            return self.decoder(z.transpose(1, 2)), mu, logvar

    x = torch.linspace(-1, 1, 120).reshape(3, 10, 4)
    for wrong in (False, True):
        with examined(Turned(wrong), x) as examination:
            assert all(found.consistent for found in examination.eval_latents) is not wrong
