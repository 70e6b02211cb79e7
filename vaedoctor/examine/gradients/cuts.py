"""Where the way of the gradient is cut, and by which operation of the user's code."""

from __future__ import annotations

import itertools
from collections.abc import Set
from dataclasses import dataclass

from ...finding import Span
from ..code.listing import header_of, text_of
from ..runs.flow import CUTS, RESHAPES, Flow
from ..runs.recording import ESCAPES, GradSwitch, Op, Recording, Value

FLAT = frozenset("normal bernoulli round round_ sign floor ceil multinomial trunc sgn".split())
"""Operations with a gradient that exists and is exactly zero."""
COPIES = frozenset({"tensor", "new_tensor"})
"""Operations that copy numbers, whatever is asked of the copy's own gradient."""


@dataclass(frozen=True, slots=True)
class Cut:
    """An operation that hands on a value without its gradient."""

    op: Op
    label: str
    at: Span | None

    @property
    def cause(self) -> str:
        """The token by which findings about this cut are folded together."""
        return f"cut:{self.at.file}:{self.at.line}" if self.at else f"cut:{self.op.index}"


def cut_between(flow: Flow, start: Value, end: Value) -> Cut | None:
    """The first operation on the way from `start` to `end` that drops the gradient."""
    way = flow.descendants(start) & flow.ancestors(end)
    if end.index not in way:
        return None
    for value in flow.recording.values:
        if value.index not in way or value is start:
            continue
        cut = _cut(flow, value, way)
        if cut is not None:
            return cut
    return None


def barrier(flow: Flow, start: Value, end: Value) -> Cut | None:
    """The first operation that drops the gradient on every way from `start` to `end` at once."""
    way = flow.descendants(start) & flow.ancestors(end)
    for value in flow.recording.values:
        if value.index not in way or value is start:
            continue
        cut = _cut(flow, value, way)
        if cut is not None and start.index not in flow.ancestors(end, stop=[value]):
            return cut
    return None


def _cut(flow: Flow, value: Value, way: Set[int]) -> Cut | None:
    parents = [p for p in flow.parents(value) if p.index in way]
    carried = flow.carried.get(value.index)
    if carried:
        return _round_trip(flow, value, carried)
    op = value.op
    if op is None:
        return None
    if op.name in FLAT and value.requires_grad:
        return Cut(op, f"`{_short(op.span) or op.name}`", op.span)
    if not any(p.requires_grad for p in parents):
        return None
    # `.detach().requires_grad_()`, `torch.tensor([recon, kl], requires_grad=True)`
    anew = op.name in CUTS | COPIES and value.tensor.grad_fn is None
    if value.requires_grad and not anew:
        return None
    if op.name in CUTS:
        return Cut(op, "`.data`" if op.name == "data" else "`.detach()`", op.span)
    if not op.grad_mode:
        return _no_grad(flow.recording, op)
    return Cut(op, f"`{op.name}()`", op.span)


def _round_trip(flow: Flow, value: Value, carried: tuple[Value, ...]) -> Cut | None:
    readers = [
        op for op in flow.recording.ops if op.name in ESCAPES and set(op.reads) & set(carried)
    ]
    entry = value.op or next(iter(flow.consumers.get(value.index, ())), None)
    if not readers or entry is None:
        return None
    names = sorted({f"`.{op.name}()`" for op in readers if not op.name.startswith("__")})
    label = f"the round trip through Python ({', '.join(names) or '`float()`'})"
    at = entry.span if value.op is not None else readers[-1].span
    return Cut(entry, label, at)


def _no_grad(recording: Recording, op: Op) -> Cut | None:
    """The region with gradients off around an operation: its `with` line, call or decorator.

    None inside a custom `Function`, where no graph is kept because its `backward` stands for it.
    """
    if op.makes and op.out.tensor.is_inference():
        return Cut(op, "`torch.inference_mode()`", op.span)
    switch = _switched_off(recording, op)
    if switch is None or switch.span is None:
        return None
    span = header_of(switch.span)
    if ".sample(" in text_of(span):
        return Cut(op, "`.sample()`", span)
    for inner, outer in itertools.pairwise(op.frames):
        if outer.span == switch.span:  # the call of a function that a decorator switches
            first = inner.code.co_firstlineno
            return Cut(op, "`torch.no_grad()`", Span(inner.file, first, 1, first, 0))
    return Cut(op, "`torch.no_grad()`", span)


def _switched_off(recording: Recording, op: Op) -> GradSwitch | None:
    """The outermost change of grad mode that is in force at an operation."""
    found = None
    for switch in recording.switches:
        if switch.at_op > op.index:
            break
        if switch.enabled:
            found = None
        elif found is None:
            found = switch
    return found


def _short(span: Span | None, most: int = 50) -> str:
    text = text_of(span)
    return text if len(text) <= most else f"{text[: most - 1]}…"


def straight_through(flow: Flow, cut: Cut) -> bool:
    """Whether a detach is half of a straight-through estimator, `a + (b - a).detach()`.

    The forward value then equals `b` while the gradient goes to `a`: the cut is on purpose.
    """
    source = cut.op.reads[0].op if cut.op.reads else None
    if source is None or source.name not in ("sub", "rsub", "__rsub__"):
        return False
    return any(
        op.name in ("add", "add_") and op.makes and any(v.requires_grad for v in op.reads)
        for value in flow.onward(*cut.op.makes, past=lambda op: op.name in RESHAPES)
        for op in flow.consumers.get(value.index, ())
    )
