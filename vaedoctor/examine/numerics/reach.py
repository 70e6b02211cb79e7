"""Which logarithms, roots and divisions can be fed zero or less, proved by intervention.

Layers whose output no bound holds are made to return values from -20 to 20, and the logarithm,
root or division behind them is looked at.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ...subject.subject import Subject
from ..anatomy.anatomy import Anatomy
from ..anatomy.heads import path_of
from ..code.readers import clamped_in_place
from ..runs.edits import Edits, by_operation
from ..runs.flow import RESHAPES, SLICES, Flow
from ..runs.outputs import named_tensors
from ..runs.recording import Op, Recording, Value
from ..runs.repeat import countable, counted
from ..runs.step import run_recorded
from .headroom import WIDER, scaled
from .numerics import LOGARITHMS, QUOTIENTS, ROOTS, trouble
from .unbounded import UNBOUNDED, sources

# Never negative and never 0: a zero is lost digits.
UNDERFLOWING = frozenset("exp exp2 softplus sigmoid softmax pow square".split())
NEAR = 1e-4  # its tenth power is far below the smallest number of float32
REACH = 20.0  # a linear layer's output; beyond it sigmoid and tanh are flat in float32
_MOST = 0.05  # the share of exact zeros from which they are no coincidence


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
    rewind: Callable[[], None],
) -> Iterator[Reached]:
    """Sweep the layers behind every logarithm, root and division; report what gets there.

    The caller rewinds when it has looked.
    """
    flow = anatomy.flow
    watched = {op.index: op for op in flow.recording.ops if _watched(flow, op, ends)}
    held = partial(clamped_in_place, subject.model)
    behind = {i: sources(flow, _operand(op), held) for i, op in watched.items()}
    watched = {i: op for i, op in watched.items() if any(behind[i])}
    if not watched:
        return
    layers = {v.index: v for i in watched for v in behind[i][0]}
    numbers = {id(v.tensor): v.tensor for i in watched for v in behind[i][1]}
    scales = {x.scale.index for x in anatomy.latents if x.scale is not None}
    fed, lost = _swept(subject, anatomy, watched, layers, numbers, seed, rewind)
    wider: _Run | None = None
    for index, op in watched.items():
        by_input = False
        if lost[index] or (fed[index] is None and _near(op)):
            wider = wider or _Run.of(run_recorded(subject, seed=seed, batch=scaled(subject, WIDER)))
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
            tuple(dict.fromkeys(path_of(v.op) for v in behind[index][0] if v.op is not None)),
            not behind[index][0],
            bool(scales & flow.ancestors(source)),
            lost[index],
            by_input,
            signed,
        )


def _swept(
    subject: Subject,
    anatomy: Anatomy,
    watched: Mapping[int, Op],
    layers: Mapping[int, Value],
    numbers: Mapping[int, Tensor],
    seed: int,
    rewind: Callable[[], None],
) -> tuple[dict[int, Tensor | None], dict[int, bool]]:
    """What every watched operation is fed in the swept step, and whether that is lost digits."""
    edits: Edits = {v.place: _sweep for v in layers.values()}
    run, poisoned = None, False
    if not numbers and not any(op.name == "sqrt" for op in watched.values()):
        run = _counted(subject, anatomy, watched.values(), edits, seed, rewind)
    kept = [(tensor, tensor.data) for tensor in numbers.values()]
    for tensor, data in kept:
        tensor.data = _sweep(data)
    if run is None:
        recording = run_recorded(subject, seed=seed, edits=edits)
        run = _Run.of(recording)
        poisoned = _poisoned(recording, [v.place for v in layers.values()])
    fed = {i: _fed(run, op, poisoned=poisoned) for i, op in watched.items()}
    lost = {i: _lost(run, op, fed[i]) for i, op in watched.items()}
    for tensor, data in kept:
        tensor.data = data
    return fed, lost


@dataclass(frozen=True, slots=True)
class _Run:
    """The step once more, by the operations of `flow`; `tensors` stand for values of those."""

    flow: Flow
    ends: tuple[Tensor, ...]
    raised: bool = False
    tensors: Mapping[int, Tensor] = field(default_factory=dict)

    @classmethod
    def of(cls, recording: Recording) -> _Run:
        """A run that was recorded."""
        raised = recording.error is not None
        return cls(Flow(recording), _ends(recording.loss, recording.output), raised)

    def twin(self, op: Op) -> Op | None:
        """The operation in the place of another."""
        ops = self.flow.recording.ops
        found = ops[op.index] if op.index < len(ops) else None
        return found if found is not None and found.name == op.name and found.makes else None

    def tensor(self, value: Value) -> Tensor:
        """What a value of the operations was in this run."""
        return self.tensors.get(value.index, value.tensor).detach()


def _counted(
    subject: Subject,
    anatomy: Anatomy,
    watched: Iterable[Op],
    edits: Edits,
    seed: int,
    rewind: Callable[[], None],
) -> _Run | None:
    """The swept step without a recording; None, and rewound, where it takes another way."""
    recording, looked_at = anatomy.recording, list[Value]()
    for op in watched:
        operand = _operand(op)
        looked_at += [op.out, operand, *(operand.op.reads[:1] if operand.op is not None else ())]
    leaves = [v for v in looked_at if v.op is None]
    changes, made = by_operation(edits), [v for v in looked_at if v.op is not None]
    if any(v.source == "constant" for v in leaves) or not countable(recording, changes, made):
        return None
    ran = counted(subject, recording, seed, changes, made, lambda: None)
    if not ran.same:
        rewind()
        return None
    return _Run(anatomy.flow, _ends(ran.loss, ran.output), tensors=ran.tensors)


def _fed(run: _Run, op: Op, *, poisoned: bool) -> Tensor | None:
    """The operand of an operation in the swept run, where it is out of range and that shows."""
    twin = run.twin(op)
    operand = run.tensor(_operand(twin)) if twin is not None else None
    if twin is None or operand is None or not operand.numel() or bool(operand.isnan().any()):
        return None  # what is no number went wrong before
    if op.name in QUOTIENTS and _changes_sign(operand) and _unguarded(run.flow, twin):
        return operand
    negative = op.name not in QUOTIENTS and bool((operand < 0).any())
    if not negative and float((operand == 0).double().mean()) < _MOST:
        return None
    if op.name == "sqrt" and not negative:
        return operand if poisoned else None  # the root of 0 is fine, its slope is not
    shows = run.raised or any(map(trouble, run.ends))
    return operand if shows and trouble(run.tensor(twin.out)) else None


def _changes_sign(divisor: Tensor) -> bool:
    """Whether a divisor is now positive, now negative: on its way it passes 0."""
    return all(float(side.double().mean()) >= _MOST for side in (divisor < 0, divisor > 0))


def _unguarded(flow: Flow, op: Op) -> bool:
    """Whether a divisor is what a layer returned, and no `where` chooses among the quotients."""
    value = _operand(op)
    while value.op is not None and value.op.name in RESHAPES | SLICES:
        value = flow.parents(value)[0]
    if value.op is None or not flow.layer(value.op) or value.op.name not in UNBOUNDED:
        return False
    after = flow.descendants(op.out)
    ops = flow.recording.ops
    return not any(o.name == "where" and o.out.index in after for o in ops if o.makes)


def _lost(run: _Run, op: Op, operand: Tensor | None) -> bool:
    """Whether a zero is a positive number too small to be held: its own operand is not zero."""
    twin = run.twin(op)
    if twin is None or operand is None or float(operand.min()) < 0:
        return False
    producer = _operand(twin).op
    if producer is None or producer.name not in UNDERFLOWING or not producer.reads:
        return False
    zero, behind = operand == 0, run.tensor(producer.reads[0])
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
    ends = _ends(recording.loss, recording.output)
    sums = [t.sum() for t in ends if t.requires_grad]
    made = [recording.ops[i].makes[k] for i, k in layers if i < len(recording.ops)]
    edges = [v.edge for v in made if v.edge is not None]
    if recording.error is not None or not sums or not edges:
        return False
    with warnings.catch_warnings(), suppress(RuntimeError):
        warnings.simplefilter("ignore")
        found = torch.autograd.grad(sums[:1], edges, allow_unused=True, retain_graph=True)
        return any(g is not None and bool(trouble(g)) for g in found)
    return False


def _ends(loss: Any, output: Any) -> tuple[Tensor, ...]:
    """The loss and what the model returned."""
    return tuple(t for t in (loss, *(t for _, t in named_tensors(output))) if isinstance(t, Tensor))


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


def _sweep(tensor: Tensor) -> Tensor:
    """Values from -REACH to REACH in a fixed shuffled order, with the graph of the original."""
    generator = torch.Generator().manual_seed(0)
    count = tensor.numel()
    values = torch.linspace(-REACH, REACH, max(count, 2))[:count]
    order = torch.randperm(count, generator=generator)
    spread = values[order].reshape(tensor.shape).to(tensor)
    return spread + 0 * tensor if tensor.requires_grad else spread
