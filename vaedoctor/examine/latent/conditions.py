"""Conditions and masks among the inputs: does anything depend on them?"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Set
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from ...finding import Span
from ...subject.code.roles import role
from ...subject.subject import Batch, Subject
from ...subject.trials.trial import forward_parameters
from ..anatomy.anatomy import Anatomy
from ..anatomy.evaluation import reconstruction_in, returned, run_forward
from ..code.listing import methods_of
from ..objective.likelihood import meeting
from ..runs.flow import Flow
from ..runs.recording import ESCAPES, Op, Value, tensors_in
from ..runs.step import run_recorded

MASK = re.compile(r".*(mask|valid|length|lens|padding).*|seq_len", re.I)
_LABEL = re.compile(
    r"y|c|label.*|.*_labels?|cond.*|class.*|attr.*|context|ctx|onehot|one_hot|category|domain"
)


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition or mask of the batch.

    `reads_it` says that x_hat is computed from it, `judged_by` that another output or the loss
    is, `moves` how far x_hat moves under another value of it (None where not tried).
    `loose` says of a mask in the loss that no entry of x_hat is left out by it, `padded` how many
    steps beyond a row's length the loss looks at.
    """

    name: str
    mask: bool
    declared: bool
    reads_it: bool
    judged_by: bool
    moves: float | None
    last: Op | None
    at: Span | None
    loose: Op | None = None
    padded: int = 0

    @property
    def unused(self) -> bool:
        """Whether nothing of the step depends on it, neither by operations nor by values."""
        return not self.reads_it and not self.judged_by and self.moves == 0.0


def conditions(
    subject: Subject, anatomy: Anatomy, seed: int, rewind: Callable[[], None]
) -> list[Condition]:
    """Follow every condition to the reconstruction, and exchange those that do not arrive."""
    found = []
    for name, tensor, declared in _candidates(subject, anatomy):
        value = _leaf(anatomy, tensor)
        mask = bool(MASK.fullmatch(name))
        flow = anatomy.flow
        ahead = flow.descendants(value) if value is not None else {-1}
        reads_it = anatomy.x_hat is not None and anatomy.x_hat.index in ahead
        ends = [o.value for o in anatomy.outputs]
        loss = anatomy.recording.loss
        loss_value = anatomy.recording.value_of(loss) if isinstance(loss, Tensor) else None
        judged = any(e.index in ahead for e in (*ends, *([loss_value] if loss_value else [])))
        moves = None
        if not reads_it and not judged and not _read_by_python(flow, ahead):
            moves = _moves(subject, anatomy, tensor, seed, rewind)
        elif not mask and value is not None:
            lost = _lost_in(subject, anatomy, value, seed, rewind)
            if lost is not None:
                reads_it, judged, moves, ahead = False, False, 0.0, {v.index for v in lost.makes}
        last = _last(anatomy, ahead) if value is not None else None
        loose = _loose(anatomy, tensor, value) if mask and judged else None
        padded = 0
        if mask and loose is None and (reads_it or judged):
            loose, padded = _padding(anatomy, tensor)
        at = last.span if last is not None else _signature(subject.model)
        found.append(
            Condition(name, mask, declared, reads_it, judged, moves, last, at, loose, padded)
        )
    return found


def _candidates(subject: Subject, anatomy: Anatomy) -> Iterator[tuple[str, Tensor, bool]]:
    """Declared conditions and masks, else further arguments of forward that may be some."""
    parameters = forward_parameters(subject.model)
    names = [p.name for p in parameters]
    required = {p.name for p in parameters if p.default is p.empty}
    items: list[tuple[int | str, str, Any]] = [
        (i, names[i] if i < len(names) else str(i), item)
        for i, item in enumerate(subject.batch.args)
    ]
    items += [(k, k, item) for k, item in subject.batch.kwargs.items()]
    for key, item in list(subject.batch.kwargs.items()) + list(enumerate(subject.batch.args)):
        if isinstance(item, Mapping):
            items += [(k, str(k), v) for k, v in item.items()]
        del key
    x = anatomy.x.tensor if anatomy.x is not None else None
    own = _is_of_loss(subject.batch, anatomy)
    for position, (key, name, item) in enumerate(items):
        if not isinstance(item, Tensor) or item is x:
            continue
        declared = key in subject.conditions or name in subject.conditions
        if key in subject.batch.beside and not declared:
            continue  # a loader's further entry: forward does not take it
        if own and not declared:
            continue
        alike = MASK.fullmatch(name) or _LABEL.fullmatch(name.lower()) or _counts(item)
        idle = name in required and _is_idle(anatomy, name, item)
        if declared or (position > 0 and (alike or idle)):
            yield name, item, declared


def _is_of_loss(batch: Batch, anatomy: Anatomy) -> bool:
    """Whether the step reads a batch of the loss's own, and nothing that forward is given."""
    taken = [a for a in batch.args if isinstance(a, Tensor)]
    return bool(batch.beside) and all(_leaf(anatomy, a) is None for a in taken)


def _counts(item: Tensor) -> bool:
    """Whether an argument is of whole numbers, which may say of each row what it is."""
    return not item.is_floating_point() and not item.is_complex() and item.dim() > 0


def _is_idle(anatomy: Anatomy, name: str, item: Tensor) -> bool:
    """Whether nothing at all reads an argument that says something of each row."""
    value = _leaf(anatomy, item)
    unread = value is None or not anatomy.flow.consumers.get(value.index)
    of_rows = item.dim() > 0 and role(name) != "weight"
    return unread and of_rows


def _leaf(anatomy: Anatomy, tensor: Tensor) -> Value | None:
    values = anatomy.recording.values
    return next((v for v in values if v.op is None and v.tensor is tensor), None)


def _last(anatomy: Anatomy, ahead: Set[int]) -> Op | None:
    made = [op for op in anatomy.recording.ops if op.makes and op.out.index in ahead]
    return made[-1] if made else None


def _moves(
    subject: Subject, anatomy: Anatomy, tensor: Tensor, seed: int, rewind: Callable[[], None]
) -> float | None:
    """How far x_hat moves in training mode when the condition alone is another one."""
    if anatomy.x_hat is None:
        return None
    usual = anatomy.x_hat.tensor.detach()
    moves = []
    for other in _others(tensor):
        batch = exchanged(subject.batch, tensor, other)
        whole = not returned(anatomy)
        run = run_forward(subject, seed=seed, batch=batch, train=True, whole=whole)
        x_hat = reconstruction_in(run, anatomy)
        rewind()
        if x_hat is not None and x_hat.shape == tuple(usual.shape):
            moves.append(float((x_hat.tensor.detach() - usual).abs().max()))
    return max(moves, default=None)


def _read_by_python(flow: Flow, ahead: Set[int]) -> bool:
    """Whether Python takes numbers from a condition: how many graphs there are, how long."""
    return any(
        v.index in ahead for op in flow.recording.ops if op.name in ESCAPES for v in op.reads
    )


def _lost_in(
    subject: Subject, anatomy: Anatomy, value: Value, seed: int, rewind: Callable[[], None]
) -> Op | None:
    """Which operation gives weights, data and outputs the same of any condition; None if none.

    A softmax over one entry, a product with 0. Weights that are 0 lose nothing: they learn.
    """
    flow, recording = anatomy.flow, anatomy.recording
    leaves = [v for v in recording.values if v.op is None and v.source != "constant"]
    others = [v for v in leaves if v is not value]
    alone = flow.descendants(value) - flow.descendants(*others, *(d.value for d in flow.draws))
    met = [
        v
        for op in recording.ops
        if any(m.index not in alone for m in op.makes)
        for v in op.reads
        if v.index in alone
    ]
    if not met or value in met:
        return None
    compared = 0
    for other in (*_others(value.tensor), torch.zeros_like(value.tensor)):
        run = run_recorded(subject, seed=seed, batch=exchanged(subject.batch, value.tensor, other))
        twins = run.values
        same = run.error is None and len(twins) == len(recording.values)
        equal = same and all(torch.equal(v.tensor, twins[v.index].tensor) for v in met)
        run.release()
        rewind()
        if same and not equal:
            return None
        compared += same
    return met[0].op if compared > 1 else None


def _others(tensor: Tensor) -> Iterator[Tensor]:
    """Conditions of the same kind: the rows in another order, and the values turned round."""
    t = tensor.detach()
    if not t.numel():
        return
    if t.dim() and bool((t.roll(1, 0) != t).any()):
        yield t.roll(1, 0)
    if t.dtype is torch.bool:
        yield ~t
    elif t.is_floating_point():
        yield 1 - t
    elif int(t.max()) > 0:
        yield int(t.max()) - t


def exchanged(batch: Batch, old: Tensor, new: Tensor) -> Batch:
    """The batch with another tensor in the place of one, at any depth."""

    def walk(item: Any) -> Any:
        if item is old:
            return new
        if isinstance(item, dict):
            return {k: walk(v) for k, v in item.items()}
        if type(item) in (list, tuple):
            return type(item)(walk(v) for v in item)
        return item

    args = tuple(walk(a) for a in batch.args)
    return replace(batch, args=args, kwargs={k: walk(v) for k, v in batch.kwargs.items()})


def _signature(model: nn.Module) -> Span | None:
    method = next((m for m in methods_of(type(model)) if m.name == "forward"), None)
    return Span(method.file, method.node.lineno) if method is not None else None


def _loose(anatomy: Anatomy, tensor: Tensor, value: Value | None) -> Op | None:
    """The operation by which a 0/1 mask enters the loss although no entry of x_hat is left out.

    A mask that works leaves out the entries where it is 0, or those where it is 1.
    """
    x_hat, loss = anatomy.x_hat, anatomy.recording.loss
    if x_hat is None or x_hat.edge is None or value is None or not isinstance(loss, Tensor):
        return None
    if not loss.requires_grad or not _binary(tensor):
        return None
    flow = anatomy.flow
    end = anatomy.recording.value_of(loss)
    outputs = [o.value for o in anatomy.outputs if o.value.shape]
    if end is None or value.index not in flow.ancestors(end, stop=[x_hat, *outputs]):
        return None
    (gradient,) = torch.autograd.grad(loss, [x_hat.edge], allow_unused=True, retain_graph=True)
    if gradient is None:
        return None
    extra = gradient.dim() - tensor.dim()
    if extra < 0 or gradient.shape[: tensor.dim()] != tensor.shape:
        return None
    size = gradient.abs().reshape(*tensor.shape, -1).amax(-1)
    on, off = size[tensor != 0], size[tensor == 0]
    if bool((on == 0).any()) or bool((off == 0).any()):
        return None
    behind, made = flow.ancestors(end), flow.descendants(x_hat)
    given = flow.descendants(value) - made
    meets = [
        op
        for op in anatomy.recording.ops
        if op.makes
        and op.out.index in behind
        and op.name in ("mul", "mul_", "multiply")
        and any(v.index in given and not flow.learned[v.index] for v in op.reads)
        and any(v.index in made and v.op is not None and _was_reduced(flow, v) for v in op.reads)
    ]
    return meets[0] if meets else None


def _padding(anatomy: Anatomy, given: Tensor) -> tuple[Op | None, int]:
    """The first operation of the loss on x_hat, and how many padded steps have a gradient there.

    Only where all steps beyond the rows' lengths, or on one side of a mask, hold one and the same
    value, and all count. An x_hat of one step less holds the next step of each.
    """
    x, x_hat, loss = anatomy.x, anatomy.x_hat, anatomy.recording.loss
    if x is None or x_hat is None or x_hat.edge is None or not isinstance(loss, Tensor):
        return None, 0
    if len(x.shape) < 2 or len(x_hat.shape) < 2 or not loss.requires_grad:
        return None, 0
    shift = x.shape[1] - x_hat.shape[1]
    if x_hat.shape[:1] != x.shape[:1] or shift not in (0, 1):
        return None, 0
    beyond = _padded_steps(x.tensor.detach(), given.detach())
    if beyond is None:
        return None, 0
    (gradient,) = torch.autograd.grad(loss, [x_hat.edge], allow_unused=True, retain_graph=True)
    if gradient is None or gradient.shape[:2] != x_hat.shape[:2]:
        return None, 0
    counted = gradient.flatten(2).abs().amax(-1) if gradient.dim() > 2 else gradient.abs()
    beyond = beyond[:, shift:]
    if not bool(beyond.any()) or not bool((counted[beyond] > 0).all()):
        return None, 0
    flow = anatomy.flow
    readers = [op for op in flow.consumers.get(x_hat.index, ()) if op.makes]
    if given.dim() == 2 and not _compared_with_input(anatomy):
        return None, 0
    return (readers[-1] if readers else None), int(beyond.sum())


def _padded_steps(x: Tensor, given: Tensor) -> Tensor | None:
    """Which steps [B, T] of x are padding, by lengths [B] or by a mask [B, T]; None if unsure."""
    if given.dim() == 1 and tuple(given.shape) == x.shape[:1] and not given.is_floating_point():
        if int(given.min()) < 1 or int(given.max()) > x.shape[1]:
            return None
        sides = [torch.arange(x.shape[1], device=given.device)[None] >= given[:, None]]
    elif given.dim() == 2 and given.shape == x.shape[:2] and _binary(given):
        sides = [given == 0, given != 0]
    else:
        return None
    for beyond in sides:
        pads, inside = x[beyond], x[~beyond]
        if len(pads) > 1 and bool((pads == pads[:1]).all()) and bool((inside != pads[:1]).any()):
            return beyond
    return None


def _compared_with_input(anatomy: Anatomy) -> bool:
    """Whether the loss compares x_hat with x itself: to fill what a mask hides is another task."""
    flow, x, met = anatomy.flow, anatomy.x, meeting(anatomy)
    if x is None or met is None:
        return False
    plain = (v for v in met.reads if flow.data[v.index] and not flow.learned[v.index])
    return any(x.index in flow.ancestors(v) for v in plain)


def _was_reduced(flow: Any, value: Value) -> bool:
    """Whether a value is one number, or one a row: summed before it met the mask."""
    return value.tensor.numel() == 1 or len(value.shape) == 1


def _binary(tensor: Tensor) -> bool:
    t = tensor.detach()
    two = bool(((t == 0) | (t == 1)).all())
    return two and bool((t == 0).any()) and bool((t == 1).any()) and t.dim() > 1


def tensors_of(batch: Batch) -> list[Tensor]:
    """Every tensor of a batch."""
    return list(tensors_in((batch.args, dict(batch.kwargs))))
