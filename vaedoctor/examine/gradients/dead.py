"""Branches whose gradient is exactly zero in every run, and the operation that makes it so."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import nn

from ...finding import Span
from ..anatomy.anatomy import Anatomy
from ..runs.flow import Flow
from ..runs.gradients import Arrives, Gradients, gradient_between, kind_of
from ..runs.recording import Op, Value
from ..structure.branches import branches

THRESHOLDS = frozenset("clamp clamp_min clamp_max clip max maximum relu threshold where".split())
"""Operations that bound a term of the loss from one side, as free bits do."""

FEW = 8
"""Units of one ReLU that see much the same for every row all die in one draw of 2**8, or more."""

_RECURRENT = frozenset("rnn_tanh rnn_relu lstm gru".split())
_PRODUCTS = frozenset("linear addmm conv1d conv2d conv3d".split())


@dataclass(frozen=True, slots=True)
class Dead:
    """Branches whose gradient is exactly zero, and the operation that makes it so.

    `lone` says that it is a softmax over a single entry, which is 1 whatever the entry is.
    `narrow` is the weight of so few units that an unlucky draw may silence all of them.
    """

    paths: tuple[str, ...]
    count: int
    operation: str
    at: Span | None
    causes: tuple[str, ...]
    lone: bool = False
    narrow: str = ""


def dead_branches(
    anatomy: Anatomy, gradients: Gradients, largest: Mapping[str, float], model: nn.Module
) -> Iterator[Dead]:
    """Branches with zero gradient in the step and in every run of the survey (`largest`)."""
    zero = {
        n: gradients.values[n].tensor
        for n, g in gradients.by_name.items()
        if kind_of(g) is Arrives.ZERO and largest.get(n, 1.0) == 0.0
    }
    found = [b for b in branches(model, zero) if any(len(shape) > 1 for shape in b.shapes)]
    if not found:
        return
    blocked = {
        b: _dead_operation(anatomy.flow, gradients, gradients.values[b.parameters[0]])
        for b in found
    }
    flow = anatomy.flow
    found = [
        b
        for b, op in blocked.items()
        if op is None or not (_resting(flow, op) or _picked(flow, op) or _one_step(op))
    ]
    operations = [op for b in found if (op := blocked[b])]
    if not found:
        return
    # Layers behind a dead activation get no gradient either: the activation is the cause.
    op = min(operations, key=lambda o: (anatomy.flow.layer(o), o.index), default=None)
    if op is not None and op.name in THRESHOLDS and not _decoded(anatomy, op):
        return  # free bits: a bound on a term of the loss, meant to hold at first
    causes = [f"layer:{b.path}" for b in found]
    if op is not None and op.span is not None:
        causes.append(f"cut:{op.span.file}:{op.span.line}")
    yield Dead(
        tuple(b.path for b in found),
        sum(len(b.parameters) for b in found),
        op.name if op else "",
        (op.span if op else None) or found[0].at,
        tuple(causes),
        op is not None and _of_one(op),
        _narrow(op, gradients) if op is not None else "",
    )


def _narrow(op: Op, gradients: Gradients) -> str:
    """The weight of the layer of few units that an operation reads, or nothing."""
    layer = op.reads[0].op if op.reads else None
    if layer is None or layer.name not in _PRODUCTS:
        return ""
    return next(
        (
            name
            for name, value in gradients.values.items()
            if any(value is r for r in layer.reads) and len(value.shape) > 1
            if value.shape[0] <= FEW
        ),
        "",
    )


def _resting(flow: Flow, op: Op) -> bool:
    """Whether a layer reads only zeros which training moves, as codes rounded straight through."""
    if not flow.layer(op):
        return False
    entries = [r for r in op.reads if flow.posterior(r)]
    if not entries or any(bool((r.tensor != 0).any()) for r in entries):
        return False
    behind = flow.ancestors(*entries)
    trained = [v for v in flow.recording.values if v.index in behind and v.source == "parameter"]
    return any(kind_of(g) is Arrives.YES for g in gradient_between(entries, trained))


def _picked(flow: Flow, op: Op) -> bool:
    """Whether the data itself says which of two is taken: of a treatment this batch has one."""
    choice = op.reads[0] if op.name == "where" and op.reads else None
    if choice is None or choice.tensor.dtype is not torch.bool or flow.learned[choice.index]:
        return False
    behind = (flow.recording.values[i] for i in flow.ancestors(choice))
    return any(v.source in ("input", "condition") for v in behind)


def _one_step(op: Op) -> bool:
    """Whether a recurrent layer reads a single step, behind which its state is 0."""
    shape = op.reads[0].shape if op.name in _RECURRENT and op.reads else ()
    return len(shape) == 3 and 1 in shape[:2]


def _of_one(op: Op) -> bool:
    """Whether an operation is a softmax, or an attention, over a single entry."""
    if op.name == "scaled_dot_product_attention":
        return len(op.reads) > 1 and op.reads[1].shape[-2:-1] == (1,)
    if op.name not in ("softmax", "log_softmax"):
        return False
    axis = op.kwargs.get("dim", op.args[1] if len(op.args) > 1 else None)
    return isinstance(axis, int) and op.out.tensor.dim() > 0 and op.out.shape[axis] == 1


def _decoded(anatomy: Anatomy, op: Op) -> bool:
    """Whether the reconstruction is computed from what an operation made."""
    behind = anatomy.flow.ancestors(anatomy.x_hat) if anatomy.x_hat is not None else set()
    return any(made.index in behind for made in op.makes)


def _dead_operation(flow: Flow, gradients: Gradients, start: Value) -> Op | None:
    """The operation behind a parameter that receives a gradient and passes on exactly zero."""
    ahead = flow.descendants(start)
    values = [v for v in flow.recording.values if v.index in ahead and v.edge is not None]
    if gradients.loss is None or not values:
        return None
    edges = [v.edge for v in values if v.edge is not None]
    found = torch.autograd.grad(gradients.loss, edges, allow_unused=True, retain_graph=True)
    alive = {v.index for v, g in zip(values, found, strict=True) if kind_of(g) is Arrives.YES}
    for op in flow.recording.ops:
        if any(m.index in alive for m in op.makes) and any(
            r.index in ahead and r.index not in alive and r.requires_grad for r in op.reads
        ):
            return op
    return None
