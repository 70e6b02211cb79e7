"""A step that raises: which layer, which sizes, who sent them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from steps import Bare, examined, subject
from torch import Tensor, nn

from vaedoctor.checkup import examine_subject
from vaedoctor.examine.code.listing import text_of
from vaedoctor.examine.examination import Examination
from vaedoctor.examine.shapes.failure import Failure
from vaedoctor.subject.trials.trace import leaves_no_trace


class Two(nn.Module):
    """A first layer and a second that does not fit."""

    def __init__(
        self, first: nn.Module, second: nn.Module, between: Callable[[Any], Any] | None = None
    ) -> None:
        super().__init__()
        self.first = first
        self.second = second
        self.between = between

    def forward(self, x: Tensor) -> Any:
        h = self.first(x)
        h = h if self.between is None else self.between(h)
        return self.second(h)


def failure_of(model: nn.Module, *inputs: Tensor, loss: Any = None, **options: Any) -> Failure:
    with examined(model, *inputs, loss=loss, **options) as examination:
        failure = examination.failure
    assert failure is not None
    return failure


MISMATCHES: list[tuple[str, Two, Tensor, str, int, int, str]] = [
    (
        "linear",
        Two(nn.Linear(6, 5), nn.Linear(4, 3)),
        torch.ones(2, 6),
        "linear",
        4,
        5,
        "in_features",
    ),
    (
        "linear after flatten",
        Two(nn.Conv2d(1, 3, 3), nn.Linear(9, 3), nn.Flatten()),
        torch.ones(2, 1, 6, 6),
        "linear",
        9,
        48,
        "in_features",
    ),
    (
        "conv",
        Two(nn.Conv2d(1, 3, 3), nn.Conv2d(4, 3, 3)),
        torch.ones(2, 1, 8, 8),
        "conv2d",
        4,
        3,
        "in_channels",
    ),
    (
        "grouped conv",
        Two(nn.Conv2d(1, 3, 3), nn.Conv2d(4, 4, 3, groups=2)),
        torch.ones(2, 1, 8, 8),
        "conv2d",
        4,
        3,
        "in_channels",
    ),
    (
        "transposed conv",
        Two(nn.Linear(6, 5), nn.ConvTranspose2d(4, 2, 3), lambda h: h[..., None, None]),
        torch.ones(2, 6),
        "conv_transpose2d",
        4,
        5,
        "in_channels",
    ),
    (
        "conv1d",
        Two(nn.Conv1d(2, 3, 1), nn.Conv1d(4, 3, 1)),
        torch.ones(2, 2, 8),
        "conv1d",
        4,
        3,
        "in_channels",
    ),
    (
        "batch norm",
        Two(nn.Linear(6, 5), nn.BatchNorm1d(4)),
        torch.ones(2, 6),
        "batch_norm",
        4,
        5,
        "num_features",
    ),
    (
        "layer norm",
        Two(nn.Linear(6, 5), nn.LayerNorm(4)),
        torch.ones(2, 6),
        "layer_norm",
        4,
        5,
        "normalized_shape",
    ),
]


@pytest.mark.parametrize(
    ("name", "model", "x", "op", "expected", "arrived", "parameter"),
    MISMATCHES,
    ids=[m[0] for m in MISMATCHES],
)
def test_a_layer_that_does_not_fit(
    name: str, model: Two, x: Tensor, op: str, expected: int, arrived: int, parameter: str
) -> None:
    failure = failure_of(model, x)
    assert failure.operation == op
    assert failure.path == "second"
    assert failure.cause == "shapes"
    assert failure.explained
    assert text_of(failure.at) == "self.second(h)"
    assert not failure.in_loss
    mismatch = failure.mismatch
    assert mismatch is not None
    assert (mismatch.layer, mismatch.expected, mismatch.arrived) == ("second", expected, arrived)
    assert mismatch.parameter == parameter
    assert mismatch.sender == "first"
    assert text_of(mismatch.sent_at) == "self.first(x)"
    assert text_of(mismatch.defined_at) == "self.second = second"


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN, nn.LSTMCell, nn.GRUCell])
def test_a_recurrent_layer_that_does_not_fit(kind: Any) -> None:
    shape = (2, 6) if kind.__name__.endswith("Cell") else (2, 7, 6)
    failure = failure_of(Two(nn.Linear(6, 5), kind(4, 3)), torch.ones(shape))
    assert failure.cause == "shapes"
    assert failure.path == "second"
    assert text_of(failure.at) == "self.second(h)"
    assert failure.mismatch is not None
    assert (failure.mismatch.expected, failure.mismatch.arrived) == (4, 5)
    assert failure.mismatch.sender == "first"
    assert text_of(failure.mismatch.defined_at) == "self.second = second"


class Stateful(nn.Module):
    """A decoder whose state is made of the sample, with `width` numbers; it keeps four."""

    def __init__(self, kind: Any, width: int) -> None:
        super().__init__()
        self.state, self.decoder = nn.Linear(6, width), kind(6, 4)

    def forward(self, x: Tensor) -> Any:
        return self.decoder(x.expand(3, -1, -1), self.state(x)[None])


@pytest.mark.parametrize("kind", [nn.GRU, nn.RNN])
def test_a_state_that_does_not_fit(kind: Any) -> None:
    mismatch = failure_of(Stateful(kind, 5), torch.ones(2, 6)).mismatch
    assert mismatch is not None
    assert (mismatch.layer, mismatch.expected, mismatch.arrived) == ("decoder", 4, 5)
    assert (mismatch.parameter, mismatch.sender) == ("hidden_size", "state")


class Attentive(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 8), nn.MultiheadAttention(4, 2)

    def forward(self, x: Tensor) -> Any:
        h = self.first(x)
        return self.second(h, h, h)


def test_attention_that_does_not_fit() -> None:
    failure = failure_of(Attentive(), torch.ones(3, 2, 6))
    assert failure.cause == "shapes"
    assert failure.mismatch is not None
    assert (failure.mismatch.expected, failure.mismatch.arrived) == (4, 8)
    assert failure.mismatch.sender == "first"


def test_a_batch_made_up_is_not_the_users_fault() -> None:
    model = Two(nn.Linear(6, 5), nn.Identity())
    patient = subject(model, torch.ones(2, 7))
    guessed = replace(patient, batch=replace(patient.batch, guessed=True))
    failure = Examination(guessed, seed=0, rewind=lambda: None).failure
    assert failure is not None
    assert failure.cause == "other"


class Joined(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 5)
        self.second = nn.Linear(7, 6)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        return self.second(torch.cat([self.first(x), condition], dim=1))


@pytest.mark.parametrize(("guessed", "cause"), [(True, "other"), (False, "target")])
def test_a_second_input_made_up_is_not_the_users_fault(guessed: bool, cause: str) -> None:
    patient = subject(Joined(), torch.ones(2, 6), torch.ones(2, 1, 4))
    patient = replace(patient, batch=replace(patient.batch, guessed=guessed))
    failure = Examination(patient, seed=0, rewind=lambda: None).failure
    assert failure is not None
    assert failure.cause == cause


def test_the_batch_may_be_the_sender() -> None:
    failure = failure_of(Two(nn.Linear(6, 5), nn.Identity()), torch.ones(2, 7))
    assert failure.mismatch is not None
    assert failure.mismatch.sender == "the input"
    assert failure.mismatch.sent_at is None
    assert (failure.mismatch.expected, failure.mismatch.arrived) == (6, 7)


JOINED: list[tuple[str, Callable[[Tensor, Tensor], Tensor]]] = [
    ("cat", lambda a, b: torch.cat([a, b], dim=0)),
    ("matmul", lambda a, b: a @ b),
    ("add", lambda a, b: a + b),
    ("view", lambda a, b: a.view(-1, 7)),
    ("reshape", lambda a, b: a.reshape(3, 3)),
]


@pytest.mark.parametrize(("name", "join"), JOINED, ids=[j[0] for j in JOINED])
def test_an_operation_without_weights(name: str, join: Callable[[Tensor, Tensor], Tensor]) -> None:
    a, b = nn.Linear(6, 5), nn.Linear(6, 4)
    failure = failure_of(Bare(lambda x: join(a(x), b(x)), a=a, b=b), torch.ones(2, 6))
    assert failure.operation == name
    assert failure.cause == "shapes"
    assert failure.mismatch is None
    assert failure.shapes[0] == (2, 5)
    assert failure.senders[0].startswith("[2, 5] comes from `a` in ")


def test_what_is_no_matter_of_shapes_is_left_to_others() -> None:
    def body(x: Tensor) -> Tensor:
        return x.view(2, 3) + undefined  # type: ignore[name-defined] # noqa: F821

    failure = failure_of(Bare(body), torch.ones(2, 3))
    assert failure.kind == "NameError"
    assert failure.cause == "other"
    assert not failure.explained
    assert failure.operation == ""
    assert text_of(failure.at) == "undefined"
    assert "test_failure.py" in failure.traceback
    assert "vaedoctor/examine" not in failure.traceback


def test_of_a_message_that_prints_a_tensor_the_beginning_is_shown() -> None:
    def body(x: Tensor) -> Tensor:
        raise ValueError(f"expected something else, got\n{x}")

    failure = failure_of(Bare(body), torch.rand(60, 3))
    assert "ValueError: expected something else, got\ntensor([[" in failure.traceback
    assert failure.traceback.endswith("  … (51 more lines)")


class Unprepared(nn.Module):
    def forward(self, x: Tensor) -> Any:
        return self.prepared(x)


def bare_attribute(x: Tensor) -> Any:
    return x.width  # type: ignore[attr-defined]


def not_yet_bound(x: Tensor) -> Tensor:
    if len(x) > 99:
        y = x
    return y


@pytest.mark.parametrize(
    ("model", "asked"),
    [
        (Unprepared(), False),
        (Bare(lambda x: nn.functional.mul(x, 2)), False),  # type: ignore[attr-defined]
        (Bare(lambda x: x + undefined), False),  # type: ignore[name-defined] # noqa: F821
        (Bare(lambda x: sys.exit(3)), False),
        (Bare(bare_attribute), True),
        (Bare(not_yet_bound), True),
    ],
)
def test_another_input_is_asked_for_where_it_can_mend(model: nn.Module, asked: bool) -> None:
    patient = subject(model, torch.ones(2, 3))
    patient = replace(patient, batch=replace(patient.batch, guessed=True))
    failure = Examination(patient, seed=0, rewind=lambda: None).failure
    assert failure is not None
    assert failure.whatever_the_input is not asked
    (found,) = examine_subject(patient, select=["VAE002"]).findings
    assert ("--input" in str(found.help)) is asked
    assert bool(found.notes) is asked


def test_a_dtype_is_no_matter_of_shapes() -> None:
    failure = failure_of(nn.Linear(3, 3), torch.ones(2, 3, dtype=torch.int64))
    assert failure.operation == "linear"
    assert failure.cause == "other"


class Sampler(nn.Module):
    """Heads of two widths."""

    def __init__(self) -> None:
        super().__init__()
        self.mu, self.logvar = nn.Linear(6, 4), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        mu, logvar = self.mu(x), self.logvar(x)
        return mu + logvar.exp() * torch.randn_like(logvar)


def test_terms_of_a_loss_inside_forward_are_no_heads() -> None:
    parts = {"mu": nn.Linear(6, 3), "h": nn.Linear(6, 3), "out": nn.Linear(3, 6)}

    def body(x: Tensor) -> Tensor:
        mu, h = parts["mu"](x), parts["h"](x)
        rec = (parts["out"](mu + (0.5 * h).exp() * torch.randn_like(mu)) - x).pow(2)
        total: Tensor = rec + (mu.pow(2) + h.exp() - 1 - h).sum(1)
        return total

    assert failure_of(Bare(body, **parts), torch.rand(4, 6)).cause == "shapes"


def test_heads_that_do_not_fit_are_the_posteriors() -> None:
    failure = failure_of(Sampler(), torch.ones(2, 6))
    assert failure.cause == "posterior"
    assert failure.shapes == ((2, 4), (2, 3))


def test_a_loss_of_unlike_operands_is_the_targets() -> None:
    model = Two(nn.Linear(6, 4), nn.Linear(4, 5))
    failure = failure_of(model, torch.ones(2, 6), loss=lambda out, x: (out - x).abs().sum())
    assert failure.in_loss
    assert failure.cause == "target"
    assert failure.shapes == ((2, 5), (2, 6))
    assert failure.senders[1] == "[2, 6] comes from the input"


@pytest.mark.parametrize(("guessed", "cause"), [(False, "target"), (True, "other")])
def test_the_width_of_one_of_two_joined_inputs_is_not_held_against_the_model(
    guessed: bool, cause: str
) -> None:
    """Only the sum of both is told by the layer, so that a made-up x may well be too wide."""
    layers = nn.Linear(9, 4), nn.Linear(4, 5)
    model = Bare(lambda x, y: layers[1](layers[0](torch.cat([x, y], 1))))
    model.layers = nn.ModuleList(layers)
    made = subject(
        model, torch.ones(2, 6), torch.ones(2, 3), loss=lambda out, x, y: (out - x).sum()
    )
    made = replace(made, batch=replace(made.batch, guessed=guessed))
    with leaves_no_trace(made.model) as rewind:
        failure = Examination(made, seed=0, rewind=rewind).failure
    assert failure is not None
    assert failure.cause == cause


def test_a_step_that_runs_has_no_failure() -> None:
    with examined(nn.Linear(3, 3), torch.ones(2, 3)) as examination:
        assert examination.failure is None
