"""Conditions and masks among the inputs: does anything depend on them?"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Set
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ...finding import Span
from ...subject.code.roles import role
from ...subject.records import fields_of
from ...subject.subject import Batch, Subject
from ...subject.trials.trial import forward_parameters
from ...subject.trials.trial import items as entries_of
from ..anatomy.anatomy import Anatomy
from ..anatomy.evaluation import reconstruction_in, returned, run_forward
from ..code.listing import methods_of
from ..runs.flow import Flow
from ..runs.recording import ESCAPES, Op, Value, tensors_in
from ..runs.step import run_recorded
from .blanked import Blank, blanked
from .masks import are_lengths, are_marks, counted_padding, loose_at, steps_beyond
from .padded_kl import others_at, padded_kl
from .unshown import beyond_lengths, unshown

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
    steps beyond a row's length the loss looks at, `blind` that what the loss makes of the mask is
    one and the same of any mask, `of_kl` that it is a KL of each step that looks at them, `hidden`
    that the encoder is not shown them; `blanked` makes what one half gets instead.
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
    blanked: Blank | None = None
    blind: bool = False
    of_kl: bool = False
    hidden: bool = False

    @property
    def unused(self) -> bool:
        """Whether nothing of the step depends on it, neither by operations nor by values."""
        return not self.reads_it and not self.judged_by and self.moves == 0.0


def conditions(
    subject: Subject, anatomy: Anatomy, seed: int, rewind: Callable[[], None]
) -> list[Condition]:
    """Follow every condition to the reconstruction, and exchange those that do not arrive."""
    found = []
    x = anatomy.x.tensor if anatomy.x is not None else None
    taken = {p.name for p in forward_parameters(subject.model)}
    for name, tensor, declared in _candidates(subject, anatomy):
        value = _leaf(anatomy, tensor)
        told = bool(MASK.fullmatch(name)) or declared or name in taken
        mask = bool(MASK.fullmatch(name)) or are_lengths(x, tensor) or are_marks(x, tensor)
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
        loose = loose_at(anatomy, tensor, value) if mask and judged else None
        padded, blind = 0, False
        if mask and loose is None and (reads_it or judged or not told):
            loose, padded = counted_padding(anatomy, tensor)
        if mask and not told and not reads_it and not judged and loose is None:
            continue  # nothing says that it is to be read: padding is left out without it
        if mask and loose is None and value is not None and judged:
            loose = _lost_in(subject, anatomy, value, seed, rewind, scoring=True)
            blind = loose is not None
        of_kl = False
        if mask and loose is None and judged:
            beyond = steps_beyond(x, tensor)
            loose, padded = _counted(padded_kl, beyond, subject, anatomy, seed, rewind)
            of_kl = loose is not None
        hidden = False
        if mask and loose is None and judged:
            beyond = beyond_lengths(x, tensor)
            loose, padded = _counted(unshown, beyond, subject, anatomy, seed, rewind)
            hidden = loose is not None
        at = last.span if last is not None else _signature(subject.model)
        blank = None
        if not mask and value is not None and judged:
            blank = blanked(subject, anatomy, value, seed, rewind)
        found.append(
            Condition(
                name,
                mask,
                declared,
                reads_it,
                judged,
                moves,
                last,
                at,
                loose,
                padded,
                blank,
                blind,
                of_kl,
                hidden,
            )
        )
    return found


def _counted(
    proof: Callable[..., Op | None],
    beyond: Tensor | None,
    subject: Subject,
    anatomy: Anatomy,
    seed: int,
    rewind: Callable[[], None],
) -> tuple[Op | None, int]:
    """What counts steps beyond the rows' lengths by a proof, and how many such steps there are."""
    x = anatomy.x.tensor if anatomy.x is not None else None
    if x is None or beyond is None:
        return None, 0
    moved = exchanged(subject.batch, x, others_at(x, beyond))
    found = proof(subject, anatomy, beyond, moved, seed, rewind)
    return found, int(beyond.sum()) if found is not None else 0


def _candidates(subject: Subject, anatomy: Anatomy) -> Iterator[tuple[str, Tensor, bool]]:
    """Declared conditions and masks, else further arguments of forward that may be some."""
    x = anatomy.x.tensor if anatomy.x is not None else None
    parameters = forward_parameters(subject.model)
    names = [p.name for p in parameters]
    required = {p.name for p in parameters if p.default is p.empty}
    items: list[tuple[int | str, str, Any]] = [
        (i, names[i] if i < len(names) else str(i), item)
        for i, item in enumerate(subject.batch.args)
    ]
    items += [(k, k, item) for k, item in subject.batch.kwargs.items()]
    for item in (*subject.batch.kwargs.values(), *subject.batch.args):
        items += _inside(item, x)
    own = _is_of_loss(subject.batch, anatomy)
    for position, (key, name, item) in enumerate(items):
        if not isinstance(item, Tensor) or item is x:
            continue
        declared = key in subject.conditions or name in subject.conditions
        if key in subject.batch.beside and not declared:
            continue  # a loader's further entry: forward does not take it
        if own and not declared:
            continue
        alike = _says_something(x, name, item) or _counts(item)
        idle = name in required and _is_idle(anatomy, name, item)
        if declared or (position > 0 and (alike or idle)):
            yield name, item, declared


def _inside(item: Any, x: Tensor | None) -> Iterator[tuple[int | str, str, Any]]:
    """The named entries of a container, and of those in it; of a record those that say something.

    A list has no names, and may hold the rows one by one: only a mapping in it is looked into.
    """
    if isinstance(item, Mapping):
        yield from ((k, str(k), v) for k, v in item.items())
        within = [v for v in item.values() if isinstance(v, Mapping)]
    elif isinstance(item, (list, tuple)) and not hasattr(item, "_fields"):
        within = [v for v in item if isinstance(v, Mapping)]
        within = within if len(within) == 1 else []
    else:
        named = [(str(k), v) for k, v in (fields_of(item) or dict(entries_of(item))).items()]
        yield from ((k, k, v) for k, v in named if _says_something(x, k, v))
        return
    for inner in within:
        yield from _inside(inner, x)


def _says_something(x: Tensor | None, name: str, item: Any) -> bool:
    """Whether an item is named like a label or a mask, or marks where padding begins."""
    if MASK.fullmatch(name) or _LABEL.fullmatch(name.lower()):
        return True
    return isinstance(item, Tensor) and (are_lengths(x, item) or are_marks(x, item))


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
    subject: Subject,
    anatomy: Anatomy,
    value: Value,
    seed: int,
    rewind: Callable[[], None],
    *,
    scoring: bool = False,
) -> Op | None:
    """Which operation gives weights, data and outputs the same of any condition; None if none.

    A softmax over one entry, a product with 0. Weights that are 0 lose nothing: they learn.
    `scoring` asks it of what meets x_hat in the loss alone, an entry of the mask each.
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
    if scoring:
        met = [v for v in _scoring(anatomy, met) if v.tensor.numel() >= value.tensor.numel()]
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


def _scoring(anatomy: Anatomy, met: list[Value]) -> list[Value]:
    """Those of the values that an operation of the loss reads beside what x_hat became."""
    loss, x_hat = anatomy.recording.loss, anatomy.x_hat
    end = anatomy.recording.value_of(loss) if isinstance(loss, Tensor) else None
    if end is None or x_hat is None:
        return []
    behind, made = anatomy.flow.ancestors(end), anatomy.flow.descendants(x_hat)
    found = {
        v.index
        for op in anatomy.recording.ops
        if op.makes and op.out.index in behind and any(r.index in made for r in op.reads)
        for v in op.reads
        if v.op is not None and v.index in behind
    }
    return [v for v in met if v.index in found]


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
    return batch.mapped(lambda item: new if item is old else item)


def _signature(model: nn.Module) -> Span | None:
    method = next((m for m in methods_of(type(model)) if m.name == "forward"), None)
    return Span(method.file, method.node.lineno) if method is not None else None


def tensors_of(batch: Batch) -> list[Tensor]:
    """Every tensor of a batch."""
    return list(tensors_in((batch.args, dict(batch.kwargs))))
