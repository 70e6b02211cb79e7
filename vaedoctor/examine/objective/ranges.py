"""The range that an output can reach, by the activation that made it and the numbers after it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from ..runs.flow import JOINS, RESHAPES, SLICES, Flow
from ..runs.recording import Op, Value

RANGES: dict[str, tuple[float, float]] = {
    "sigmoid": (0.0, 1.0),
    "sigmoid_": (0.0, 1.0),
    "softmax": (0.0, 1.0),
    "tanh": (-1.0, 1.0),
    "tanh_": (-1.0, 1.0),
    "relu": (0.0, float("inf")),
    "relu_": (0.0, float("inf")),
    "softplus": (0.0, float("inf")),
    "exp": (0.0, float("inf")),
    "square": (0.0, float("inf")),
    "hardtanh": (-1.0, 1.0),
    "hardsigmoid": (0.0, 1.0),
    "relu6": (0.0, 6.0),
}
"""The closed range that an activation can reach."""

_SHIFTS: dict[str, Callable[[Any, Any], Any]] = {
    "add": lambda a, b: a + b,
    "__radd__": lambda a, b: b + a,
    "sub": lambda a, b: a - b,
    "rsub": lambda a, b: b - a,
    "__rsub__": lambda a, b: b - a,
    "mul": lambda a, b: a * b,
    "__rmul__": lambda a, b: b * a,
    "div": lambda a, b: a / b,
    "true_divide": lambda a, b: a / b,
}


@dataclass(frozen=True, slots=True)
class Bounded:
    """What an activation, and numbers that move or stretch it, leave an output to be.

    `moved` says that there are such numbers.
    """

    op: Op
    low: float
    high: float
    moved: bool = False


def bounded(flow: Flow, value: Value) -> Bounded | None:
    """The range of an output; None where it has no activation of a known one.

    Of a part of what was joined, that of the joined tensor which holds the same numbers.
    """
    op = value.op
    if op is None or not op.reads:
        return None
    if op.name in RANGES:
        plain = not (op.name == "hardtanh" and (len(op.args) > 1 or op.kwargs))
        return Bounded(op, *RANGES[op.name]) if plain else None
    if op.name in RESHAPES | SLICES:
        return bounded(flow, _joined(flow, value) or flow.parents(value)[0])
    if op.name in _SHIFTS and len(op.args) == 2 and not op.kwargs and len(op.reads) == 1:
        return _shifted(flow, op)
    return None


def through_link(op: Op, found: Bounded | None) -> Bounded | None:
    """What a loss of logits makes of a range: that of the probabilities. Others leave it.

    A softmax is no link of single elements: only the differences of its logits count.
    """
    if found is None or op.name != "binary_cross_entropy_with_logits":
        return found if op.name != "cross_entropy" else None
    low, high = torch.tensor([found.low, found.high], dtype=torch.float64).sigmoid().tolist()
    return Bounded(found.op, low, high, moved=True)


def _shifted(flow: Flow, op: Op) -> Bounded | None:
    """The range behind the sum or the product with a number."""
    inner = bounded(flow, op.reads[0])
    first, second = op.args
    number = second if isinstance(first, torch.Tensor) else first
    if inner is None or isinstance(number, bool) or not isinstance(number, (int, float)):
        return None
    made = _SHIFTS[op.name]
    swapped = number is first
    ends = [made(number, end) if swapped else made(end, number) for end in (inner.low, inner.high)]
    if any(math.isnan(end) for end in ends):
        return None
    return Bounded(inner.op, min(ends), max(ends), moved=True)


def _joined(flow: Flow, part: Value) -> Value | None:
    """Which of the tensors that were joined a part of them is: the one that holds its numbers."""
    whole = flow.parents(part)[0]
    while whole.op is not None and whole.op.name in RESHAPES:
        whole = flow.parents(whole)[0]
    if whole.op is None or whole.op.name not in JOINS:
        return None
    held = part.tensor.detach()
    same = [
        v for v in whole.op.reads if v.shape == part.shape and torch.equal(v.tensor.detach(), held)
    ]
    return same[0] if len(same) == 1 else None
