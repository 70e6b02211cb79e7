"""Elementwise operations whose result has more elements than both operands, by accident.

`(B, 1)` beside `(B)` gives `(B, B)`: every row of one operand meets every row of the other.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from ..anatomy.anatomy import Anatomy
from ..anatomy.latents import ADDS, MULS
from ..anatomy.moves import inputs_of, only_moved
from ..runs.flow import Flow
from ..runs.recording import Op, Value

LOSSES = frozenset("mse_loss l1_loss smooth_l1_loss huber_loss gaussian_nll_loss".split())
COMPARES = LOSSES | {"sub", "sub_", "rsub", "subtract", "poisson_nll_loss"}
_POINTWISE = ADDS | MULS | LOSSES | {"where", "maximum", "minimum", "poisson_nll_loss"}
_EXPLICIT = frozenset("unsqueeze unsqueeze_ __getitem__ view reshape expand t transpose".split())
_PAIRED = frozenset("matmul mm bmm addmm einsum cdist exp softmax".split())


@dataclass(frozen=True, slots=True)
class Outer:
    """An outer product by broadcasting: the operation, its operands' shapes and the result's."""

    op: Op
    left: tuple[int, ...]
    right: tuple[int, ...]
    result: tuple[int, ...]
    on: str


def outer_products(anatomy: Anatomy, rows: int) -> Iterator[Outer]:
    """Growth beyond both operands where both carry the batch's rows and nobody asked for it."""
    flow = anatomy.flow
    ends = {"latent": anatomy.x_hat, "loss": _loss(anatomy)}
    behind = {k: flow.ancestors(v) for k, v in ends.items() if v is not None}
    for op in anatomy.recording.ops:
        operands = [v for v in op.reads if v.shape][:2]
        if op.name not in _POINTWISE or len(operands) < 2 or not op.makes:
            continue
        on = next((k for k, b in behind.items() if any(m.index in b for m in op.makes)), None)
        if on is None:
            continue
        large, small = sorted(operands, key=lambda v: -len(v.shape))
        result = _joint(large.shape, small.shape)
        if result is None or not _grows(result, large, small):
            continue
        if _by_accident(anatomy, op, large, small, rows):
            yield Outer(op, operands[0].shape, operands[1].shape, result, on)


def _loss(anatomy: Anatomy) -> Value | None:
    loss = anatomy.recording.loss
    return anatomy.recording.value_of(loss) if isinstance(loss, torch.Tensor) else None


def _joint(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...] | None:
    """The shape two operands broadcast to; `torch.broadcast_shapes` would import sympy."""
    joint = []
    for m, n in itertools.zip_longest(reversed(a), reversed(b), fillvalue=1):
        if m != n and 1 not in (m, n):
            return None
        joint.append(n if m == 1 else m)
    return tuple(reversed(joint))


def _grows(result: tuple[int, ...], a: Value, b: Value) -> bool:
    size = 1
    for length in result:
        size *= length
    return size > max(a.tensor.numel(), b.tensor.numel()) > 0


def _by_accident(anatomy: Anatomy, op: Op, large: Value, small: Value, rows: int) -> bool:
    flow = anatomy.flow
    if rows < 2 or large.shape[0] != rows or small.shape[0] != rows:
        return False
    if not (flow.data[large.index] and flow.data[small.index]):
        return False
    if len(large.shape) == len(small.shape):
        return False
    if op.name in LOSSES:
        return True
    maker = large.op
    while maker is not None and maker.name in ("detach", "clone", "contiguous", *_NUMERIC):
        parents = flow.parents(maker.out)
        maker = parents[0].op if len(parents) == 1 else None
    explicit = maker is not None and maker.name in _EXPLICIT
    if explicit and not _reconstruction(anatomy, large, small) and not _averaged(anatomy, op):
        return False
    return not _meets_pairs(flow, op)


def _averaged(anatomy: Anatomy, op: Op) -> bool:
    """Whether all that becomes of a product is a sum or mean over everything, up to the loss.

    The sum of all products of two columns is the product of their sums: nobody pairs for that.
    What is added to it before, as the next of several classes, changes nothing of that.
    """
    loss = _loss(anatomy)
    if op.name not in MULS or loss is None or len(op.out.shape) != 2:
        return False
    value, behind = op.out, anatomy.flow.ancestors(loss) | {loss.index}
    while value.index != loss.index:
        read = anatomy.flow.consumers.get(value.index, ())
        readers = [r for r in read if r.makes and r.out.index in behind]  # none of what is logged
        if len(readers) != 1 or readers[0].name not in _LINEAR | ADDS:
            return False
        reader = readers[0]
        if reader.name in ADDS and reader.out.shape != op.out.shape:
            return False
        if reader.name in _TOTALS:
            return reader.out.shape == () and value.shape == op.out.shape
        value = reader.out
    return False


def _reconstruction(anatomy: Anatomy, large: Value, small: Value) -> bool:
    """Whether x_hat itself is compared with x itself, and the differences are only added up.

    Every x_hat then meets every x, on purpose only for a kernel or a nearest neighbour.
    """
    flow = anatomy.flow
    raw = {v.index for v in inputs_of(anatomy.recording)}
    whole = _pieces(anatomy)
    pair = (large, small) if only_moved(flow, large, whole) else (small, large)
    if not only_moved(flow, pair[0], whole):
        return False
    if not only_moved(flow, pair[1], raw):
        return False
    after = flow.descendants(large) & flow.descendants(small)
    names = {op.name for op in anatomy.recording.ops if op.makes and op.out.index in after}
    return not names & _SELECTIVE


def _pieces(anatomy: Anatomy) -> set[int]:
    """x_hat, and what it is only put together from: `torch.stack` of what each step gives."""
    flow, x_hat = anatomy.flow, anatomy.x_hat
    if x_hat is None:
        return set()
    op = x_hat.op
    joined = flow.parents(x_hat) if op is not None and op.name in _JOINS else []
    return {x_hat.index, *(v.index for v in joined)}


_JOINS = frozenset("stack cat concat concatenate vstack hstack".split())
_SELECTIVE = frozenset("exp min max amin amax softmax log_softmax logsumexp topk sort".split())
_TOTALS = frozenset("sum mean".split())
_LINEAR = _TOTALS | {"mul", "div", "neg", "rmul", "truediv"}
_NUMERIC = frozenset("exp log neg pow square sqrt mul div float double".split())


def _meets_pairs(flow: Flow, op: Op) -> bool:
    """Whether the grown result is used as a table of pairs: a kernel, squared distances."""
    shape = op.out.shape
    waiting, seen = [op.out], set()
    while waiting:
        value = waiting.pop()
        if value.index in seen:
            continue
        seen.add(value.index)
        for reader in flow.consumers.get(value.index, ()):
            if reader.name in _PAIRED:
                return True
            others = [v for v in reader.reads if v is not value and v.shape == shape]
            if any(v.op is not None and _product(flow, v) for v in others):
                return True
            waiting.extend(m for m in reader.makes if m.shape == shape)
    return False


def _product(flow: Flow, value: Value) -> bool:
    op = value.op
    while op is not None and op.name not in _PAIRED:
        parents = flow.parents(op.out)
        op = parents[0].op if len(parents) == 1 else None
    return op is not None


def batch_rows(anatomy: Anatomy, axis: int | None) -> int:
    """The batch's number of rows as the first input shows it; 0 where rows are no samples."""
    first = next((v for v in inputs_of(anatomy.recording) if v.shape), None)
    return first.shape[0] if first is not None and axis == 0 else 0
