"""Which logarithms, roots and divisions can be fed zero or less, proved by intervention.

Layers whose output no bound holds are made to return values from -20 to 20, and the logarithm,
root or division behind them is looked at.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

import torch
from torch import Tensor

from ..subject.subject import Subject
from .anatomy import Anatomy
from .flow import RESHAPES, SLICES, Flow
from .headroom import WIDER, scaled
from .latents import path_of
from .numerics import LOGARITHMS, QUOTIENTS, ROOTS, trouble
from .outputs import named_tensors
from .recorder import Edits
from .recording import Op, Recording, Value
from .step import run_recorded

# Never negative and never 0: a zero is lost digits.
UNDERFLOWING = frozenset("exp exp2 softplus sigmoid softmax pow square".split())
NEAR = 1e-4  # its tenth power is far below the smallest number of float32
REACH = 20.0  # a linear layer's output; beyond it sigmoid and tanh are flat in float32
_MOST = 0.05  # the share of exact zeros from which they are no coincidence
_UNBOUNDED = frozenset(
    "linear conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d addmm "
    "matmul mm bmm bilinear layer_norm batch_norm group_norm multi_head_attention_forward "
    "embedding einsum".split()
)


@dataclass(frozen=True, slots=True)
class Reached:
    """A logarithm, root or division that is fed zero or less when its layers return anything.

    `lost` says that the zero is lost digits of a positive number (`exp`, `softmax`), `by_input`
    that a batch of ten times the size reaches it as well, `signed` that a divisor takes both signs.
    """

    op: Op
    smallest: float
    share: float
    producer: str
    layers: tuple[str, ...]
    learned_number: bool
    of_scale: bool
    lost: bool = False
    by_input: bool = False
    signed: bool = False


def reach(
    subject: Subject,
    anatomy: Anatomy,
    ends: frozenset[int],
    seed: int,
) -> Iterator[Reached]:
    """Sweep the layers behind every logarithm, root and division; report what gets there.

    The caller rewinds when it has looked.
    """
    flow = anatomy.flow
    watched = {op.index: op for op in flow.recording.ops if _watched(flow, op, ends)}
    sources = {i: _sources(flow, _operand(op)) for i, op in watched.items()}
    watched = {i: op for i, op in watched.items() if sources[i][0] or sources[i][1]}
    if not watched:
        return
    layers = {v.index: v for i in watched for v in sources[i][0]}
    numbers = {id(v.tensor): v.tensor for i in watched for v in sources[i][1]}
    edits: Edits = {v.place: _sweep for v in layers.values()}
    kept = [(tensor, tensor.data) for tensor in numbers.values()]
    for tensor, data in kept:
        tensor.data = _sweep(data)
    recording = run_recorded(subject, seed=seed, edits=edits)
    poisoned = _poisoned(recording, [v.place for v in layers.values()])
    scales = {x.scale.index for x in anatomy.latents if x.scale is not None}
    fed = {i: _fed(recording, op, poisoned=poisoned) for i, op in watched.items()}
    lost = {i: _lost(recording, op, fed[i]) for i, op in watched.items()}
    for tensor, data in kept:
        tensor.data = data
    wider: Recording | None = None
    for index, op in watched.items():
        by_input = False
        if lost[index] or (fed[index] is None and _near(op)):
            wider = wider or run_recorded(subject, seed=seed, batch=scaled(subject, WIDER))
            found = _fed(wider, op, poisoned=False)
            by_input = found is not None
            fed[index] = found if fed[index] is None else fed[index]
        operand = fed[index]
        if operand is None:
            continue
        signed = op.name in QUOTIENTS and _changes_sign(operand)
        bad = operand <= 0 if op.name in LOGARITHMS | ROOTS or signed else operand == 0
        source = _operand(op)
        yield Reached(
            op,
            float(operand.min()),
            float(bad.double().mean()),
            source.op.name if source.op is not None else source.name,
            tuple(dict.fromkeys(path_of(v.op) for v in sources[index][0] if v.op is not None)),
            not sources[index][0],
            bool(scales & flow.ancestors(source)),
            lost[index],
            by_input,
            signed,
        )


def _fed(recording: Recording, op: Op, *, poisoned: bool) -> Tensor | None:
    """The operand of an operation in the swept run, where it is out of range and that shows."""
    twin = recording.ops[op.index] if op.index < len(recording.ops) else None
    if twin is None or twin.name != op.name or not twin.makes:
        return None
    operand = _operand(twin).tensor.detach()
    if not operand.numel():
        return None
    if op.name in QUOTIENTS and _changes_sign(operand) and _unguarded(recording, twin):
        return operand
    negative = op.name not in QUOTIENTS and bool((operand < 0).any())
    if not negative and float((operand == 0).double().mean()) < _MOST:
        return None
    if op.name == "sqrt" and not negative:
        return operand if poisoned else None  # the root of 0 is fine, its slope is not
    shows = recording.error is not None or _ends_badly(recording)
    return operand if shows and trouble(twin.out.tensor) else None


def _changes_sign(divisor: Tensor) -> bool:
    """Whether a divisor is now positive, now negative: on its way it passes 0."""
    return all(float(side.double().mean()) >= _MOST for side in (divisor < 0, divisor > 0))


def _unguarded(recording: Recording, op: Op) -> bool:
    """Whether a divisor is what a layer returned, and no `where` chooses among the quotients."""
    flow = Flow(recording)
    value = _operand(op)
    while value.op is not None and value.op.name in RESHAPES | SLICES:
        value = flow.parents(value)[0]
    if value.op is None or not flow.layer(value.op) or value.op.name not in _UNBOUNDED:
        return False
    after = flow.descendants(op.out)
    return not any(o.name == "where" and o.out.index in after for o in recording.ops if o.makes)


def _lost(recording: Recording, op: Op, operand: Tensor | None) -> bool:
    """Whether a zero is a positive number too small to be held: its own operand is not zero."""
    if operand is None or float(operand.min()) < 0:
        return False
    producer = _operand(recording.ops[op.index]).op
    if producer is None or producer.name not in UNDERFLOWING or not producer.reads:
        return False
    zero, behind = operand == 0, producer.reads[0].tensor.detach()
    power = producer.name in ("pow", "square")
    return not power or behind.shape != zero.shape or bool((behind[zero] != 0).any())


def _near(op: Op) -> bool:
    """Whether an operand that can lose its digits is already small on the observed batch."""
    operand = _operand(op)
    if operand.op is None or operand.op.name not in UNDERFLOWING or not operand.tensor.numel():
        return False
    return float(operand.tensor.detach().min()) < NEAR


def _poisoned(recording: Recording, layers: list[tuple[int, int]]) -> bool:
    """Whether the gradient at a swept layer is NaN or infinite while all values are finite."""
    ends = [recording.loss, *(t for _, t in named_tensors(recording.output))]
    sums = [t.sum() for t in ends if isinstance(t, Tensor) and t.requires_grad]
    made = [recording.ops[i].makes[k] for i, k in layers if i < len(recording.ops)]
    edges = [v.edge for v in made if v.edge is not None]
    if recording.error is not None or not sums or not edges:
        return False
    with warnings.catch_warnings(), suppress(RuntimeError):
        warnings.simplefilter("ignore")
        found = torch.autograd.grad(sums[:1], edges, allow_unused=True, retain_graph=True)
        return any(g is not None and bool(trouble(g)) for g in found)
    return False


def _ends_badly(recording: Recording) -> bool:
    ends = [recording.loss, *(t for _, t in named_tensors(recording.output))]
    return any(isinstance(t, Tensor) and trouble(t) for t in ends)


def _watched(flow: Flow, op: Op, ends: frozenset[int]) -> bool:
    if op.name not in LOGARITHMS | ROOTS | QUOTIENTS or not op.makes or not op.reads:
        return False
    if op.inplace or op.error is not None or op.out.index not in ends:
        return False
    operand = _operand(op)
    if op.name in QUOTIENTS and isinstance(op.args[-1], (int, float)) and op.name[:1] == "d":
        return False  # divided by a number
    return operand.tensor.is_floating_point() and flow.learned[operand.index]


def _operand(op: Op) -> Value:
    """The operand that must not be zero: the divisor, the argument."""
    if op.name in QUOTIENTS and op.name not in ("reciprocal", "rdiv", "__rdiv__", "__rtruediv__"):
        tensors = [a for a in op.args[:2] if isinstance(a, Tensor)]
        return op.reads[-1] if len(tensors) == 2 else op.reads[0]
    return op.reads[0]


def _sources(flow: Flow, operand: Value) -> tuple[list[Value], list[Value]]:
    """The nearest layers behind an operand that no bound holds, and bare parameters."""
    waiting, seen = [operand], set[int]()
    layers: list[Value] = []
    numbers: list[Value] = []
    while waiting:
        value = waiting.pop()
        if value.index in seen:
            continue
        seen.add(value.index)
        op = value.op
        if op is None:
            if value.source == "parameter" and value.tensor.is_floating_point():
                numbers.append(value)
        elif flow.layer(op):
            if op.name in _UNBOUNDED and any(v.source == "parameter" for v in op.reads):
                layers.append(value)
        else:
            waiting.extend(flow.parents(value))
    return layers, numbers


def _sweep(tensor: Tensor) -> Tensor:
    """Values from -REACH to REACH in a fixed shuffled order, with the graph of the original."""
    generator = torch.Generator().manual_seed(0)
    count = tensor.numel()
    values = torch.linspace(-REACH, REACH, max(count, 2))[:count]
    order = torch.randperm(count, generator=generator)
    spread = values[order].reshape(tensor.shape).to(tensor)
    return spread + 0 * tensor if tensor.requires_grad else spread
