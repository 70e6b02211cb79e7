"""What depends on what: proven by moving a value and looking at which others move."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from steps import Bare, contents, examined, flow_of, moved, op_named, step
from torch import Tensor, nn

from vaedoctor.examine.runs.flow import Flow
from vaedoctor.examine.runs.recording import Value

Body = Callable[[Tensor], Any]

SHAPE_ONLY: dict[str, Body] = {
    "randn_like": lambda x: torch.randn_like(x),
    "rand_like": lambda x: torch.rand_like(x),
    "zeros_like": lambda x: torch.zeros_like(x) + 1,
    "full_like": lambda x: torch.full_like(x, 3.0),
    "randint_like": lambda x: torch.randint_like(x, 5),
    "new normal_": lambda x: x.data.new(x.size()).normal_(),
    "new_ones": lambda x: x.new_ones(2),
    "empty normal_": lambda x: torch.empty_like(x).normal_(),
    "clone uniform_": lambda x: x.clone().uniform_(),
    "clone zero_": lambda x: x.clone().zero_(),
    "clone fill_": lambda x: (x * 2).fill_(1.0),
    "clone exponential_": lambda x: x.clone().exponential_(),
    "size": lambda x: torch.ones(x.size(0)),
    "numel": lambda x: torch.ones(1) * x.numel(),
    "dim": lambda x: torch.ones(1) * x.dim(),
    "expand_as": lambda x: torch.ones(1).expand_as(x),
    "view_as": lambda x: torch.arange(6.0).view_as(x),
    "type_as": lambda x: torch.ones(2).type_as(x),
    "to another": lambda x: torch.ones(2).to(x),
    "copy_ over it": lambda x: x.clone().copy_(torch.ones(2, 3)),
    "distribution": lambda x: torch.distributions.Normal(0.0, 1.0).sample(x.shape),
}

VALUE: dict[str, Body] = {
    "arithmetic": lambda x: 1 - x / 2,
    "expand_as itself": lambda x: x.expand_as(x),
    "view_as itself": lambda x: x.view_as(x),
    "to dtype": lambda x: x.to(torch.float64),
    "data": lambda x: x.data * 2,
    "detach": lambda x: x.detach() + 1,
    "clone": lambda x: x.clone(),
    "copy_ from it": lambda x: torch.zeros(2, 3).copy_(x),
    "item set": lambda x: torch.zeros(2, 3).index_fill_(0, torch.tensor([0]), 1.0) * x,
    "slice assignment": lambda x: _assigned(x),
    "in place on a view": lambda x: _added(x),
    "bernoulli": lambda x: torch.bernoulli(torch.sigmoid(x * 50)),
    "bernoulli_": lambda x: torch.zeros(2, 3).bernoulli_(torch.sigmoid(x * 50)),
    "normal": lambda x: torch.normal(x, torch.ones(2, 3)),
    "normal std": lambda x: torch.normal(0.0, x.abs() + 1),
    "where": lambda x: torch.where(x > 0, x, 0.0),
    "out argument": lambda x: torch.mul(x, 2, out=torch.empty(2, 3)),
    "norm": lambda x: F.layer_norm(x, (3,)),
    "cat": lambda x: torch.cat([x, torch.ones(2, 1)], dim=1),
    "gumbel": lambda x: F.gumbel_softmax(x),
    "rsample": lambda x: torch.distributions.Normal(x, 1.0).rsample(),
    "cumsum": lambda x: x.cumsum(1),
    "sort": lambda x: x.sort(dim=1).values,
    "argmax": lambda x: x.argmax(dim=1),
}


def _assigned(x: Tensor) -> Tensor:
    h = torch.zeros(2, 3)
    h[:, 0] = x[:, 1]
    return h


def _added(x: Tensor) -> Tensor:
    h = torch.zeros(2, 3)
    h[1:].add_(x[:1])
    return h


def _x() -> Tensor:
    return torch.tensor([[0.5, -1.0, 2.0], [-0.3, 0.8, -1.5]])


@pytest.mark.parametrize("name", SHAPE_ONLY)
def test_a_shape_is_no_value(name: str) -> None:
    recording = step(SHAPE_ONLY[name], _x())
    flow, out = flow_of(recording)
    other = step(SHAPE_ONLY[name], _x() * -2 + 1)
    assert torch.equal(recording.output, other.output)
    assert not flow.data[out.index]


@pytest.mark.parametrize("name", VALUE)
def test_a_value_is_one(name: str) -> None:
    recording = step(VALUE[name], _x())
    flow, out = flow_of(recording)
    other = step(VALUE[name], _x() * -2 + 1)
    assert not torch.equal(recording.output, other.output)
    assert flow.data[out.index]


class VAE(nn.Module):
    """Enough kinds of dependence for a few dozen values."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(6, 8)
        self.heads = nn.Linear(8, 6)
        self.decoder = nn.Linear(3, 6)
        self.register_buffer("scale", torch.tensor(2.0))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        h = torch.tanh(self.encoder(x + 0.1 * torch.rand_like(x)))
        mu, logvar = self.heads(h).chunk(2, dim=1)
        std, loc = torch.broadcast_tensors(torch.exp(0.5 * logvar), mu)
        eps = torch.randn_like(std)
        z = loc + std * eps
        prior = torch.randn(z.shape) * self.scale
        return self.decoder(z), loc, std, prior, (z - prior).pow(2).mean()


def _recorded(**options: Any) -> tuple[VAE, Any]:
    torch.manual_seed(1)
    model = VAE()
    return model, step(model, torch.linspace(-1, 1, 24).reshape(4, 6), **options)


def test_descendants_are_what_moves_when_a_value_is_moved() -> None:
    _, recording = _recorded()
    flow, before = Flow(recording), contents(recording)
    for op in recording.ops:
        if not op.out.tensor.is_floating_point():
            continue
        _, edited = _recorded(edits={op.index: lambda t: t + 0.25})
        changed = {i for i, m in enumerate(moved(before, contents(edited))) if m}
        pair = op.makes[:1]  # an edit moves the first result alone
        assert changed == flow.descendants(*pair), op


def test_ancestors_are_descendants_read_backwards() -> None:
    _, recording = _recorded()
    flow = Flow(recording)
    down = {v.index: flow.descendants(v) for v in recording.values}
    for value in recording.values:
        up = {start for start, reached in down.items() if value.index in reached}
        assert flow.ancestors(value) == up


def test_ancestors_halt_where_they_are_told_to() -> None:
    _, recording = _recorded()
    flow = Flow(recording)
    z = next(op.out for op in recording.ops if op.name == "add" and flow.noise[op.out.index] == 3)
    x_hat = recording.value_of(recording.output[0])
    behind = flow.ancestors(x_hat, stop=[z])
    assert z.index in behind
    assert not behind & (flow.ancestors(z) - {z.index})


def test_the_noise_bits_are_the_draws_that_move_a_value() -> None:
    _, recording = _recorded()
    flow, before = Flow(recording), contents(recording)
    assert [d.name for d in flow.draws] == ["rand_like", "randn_like", "randn"]
    for draw in flow.draws:
        assert draw.op is not None
        _, edited = _recorded(edits={draw.op.index: lambda t: t + 0.25})
        bits = [bool(bit & 1 << draw.bit) for bit in flow.noise]
        assert moved(before, contents(edited)) == bits


def test_learned_is_what_moves_with_the_weights() -> None:
    model, recording = _recorded()
    flow, before = Flow(recording), contents(recording)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1)
    nudged = step(model, torch.linspace(-1, 1, 24).reshape(4, 6))
    assert moved(before, contents(nudged)) == flow.learned


def test_the_initialisation_of_a_parameter_is_no_draw() -> None:
    def body(x: Tensor) -> Tensor:
        made: Tensor = nn.Linear(3, 3)(x)
        return made + torch.randn(2, 3)

    flow, _ = flow_of(step(body, _x()))
    assert [d.name for d in flow.draws] == ["randn"]


def test_broadcast_tensors_is_pairwise() -> None:
    layer = nn.Linear(3, 3)

    def body(x: Tensor) -> Tensor:
        left, _ = torch.broadcast_tensors(torch.zeros(1, 3), layer(x))
        return left

    flow, out = flow_of(step(Bare(body, layer=layer), _x()))
    assert not flow.data[out.index]
    assert not flow.learned[out.index]


def test_a_layer_applies_weights_to_something_else() -> None:
    layer = nn.Linear(3, 3)
    model = Bare(lambda x: F.linear(x, layer.weight * 2).relu(), layer=layer)
    recording = step(model, _x())
    flow = Flow(recording)
    assert [op.name for op in recording.ops if flow.layer(op)] == ["linear"]


ROUND_TRIPS: dict[str, Body] = {
    "tolist": lambda h: torch.tensor(h.tolist()),
    "numpy": lambda h: torch.from_numpy(h.detach().numpy().copy()),
    "numpy as_tensor": lambda h: torch.as_tensor(h.detach().cpu().numpy() * 2),
    "np.array": lambda h: torch.tensor(np.array(h.detach())),
    "item": lambda h: torch.tensor([[v.item() for v in row] for row in h]),
    "float": lambda h: torch.tensor([[float(v) for v in row] for row in h.detach()]),
    "legacy": lambda h: torch.FloatTensor(h.tolist()),
}


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize("name", ROUND_TRIPS)
def test_values_are_followed_through_python(name: str) -> None:
    layer = nn.Linear(3, 3)
    model = Bare(lambda x: ROUND_TRIPS[name](layer(x)) + 1, layer=layer)
    with examined(model, _x()) as examination:
        recording, flow = examination.recording, examination.flow
        out = recording.value_of(recording.output)
        assert out is not None
        assert op_named(recording, "linear").out.index in flow.ancestors(out)
        assert out.index in flow.descendants(op_named(recording, "linear").out)
        assert flow.data[out.index]
        assert not Flow(recording).data[out.index]  # the graph alone does not show it


@pytest.mark.parametrize("constant", [0.0, 0.5, 1.0, -3.0])
def test_values_are_followed_through_python_where_the_batch_is_constant(constant: float) -> None:
    x = torch.full((2, 3), constant)
    with examined(lambda x: torch.tensor((x * 2).tolist()) + 1, x) as examination:
        out = examination.recording.value_of(examination.recording.output)
        assert out is not None
        assert examination.flow.data[out.index]


OUTSIDE: dict[str, Callable[[tuple[int, ...]], Tensor]] = {
    "from_numpy": lambda shape: torch.from_numpy(np.random.normal(size=shape)).float(),
    "tensor": lambda shape: torch.tensor(np.random.randn(*shape)),
    "as_tensor": lambda shape: torch.as_tensor(np.random.rand(*shape)),
    "legacy": lambda shape: torch.FloatTensor(np.random.randn(*shape)),
}


@pytest.mark.parametrize("name", OUTSIDE)
def test_noise_from_numpy_is_a_draw(name: str) -> None:
    with examined(lambda x: x + OUTSIDE[name]((2, 3)), _x()) as examination:
        assert [d.origin for d in examination.flow.draws] == ["outside torch"]


def test_a_constant_from_numpy_is_no_draw() -> None:
    with examined(lambda x: x + torch.from_numpy(np.arange(3.0)), _x()) as examination:
        assert not examination.flow.draws


def test_a_value_is_shown_by_what_it_is() -> None:
    value: Value = step(lambda x: x.exp(), _x()).ops[0].out
    assert repr(value) == "Value(1, exp, (2, 3))"
