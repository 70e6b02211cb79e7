"""Conditions and masks among the inputs: does anything depend on them?"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Set
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from ...finding import Span
from ...subject.code.roles import role
from ...subject.records import fields_of
from ...subject.subject import Batch, Subject
from ...subject.trials.trial import forward_parameters
from ...subject.trials.trial import items as entries_of
from ..anatomy.anatomy import Anatomy
from ..code.listing import methods_of
from ..runs.flow import Flow
from ..runs.recording import ESCAPES, Op, Value, tensors_in
from .blanked import Blank, blanked
from .exchanged import lost_in, x_hat_moves
from .kept import Kept, kept
from .masks import are_lengths, are_marks

MASK = re.compile(r".*(mask|valid|length|lens|padding).*|seq_len", re.I)
_LABEL = re.compile(
    r"y|c|label.*|.*_labels?|cond.*|class.*|attr.*|context|ctx|onehot|one_hot|category|domain"
)


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition or mask of the batch.

    `reads_it` says that x_hat is computed from it, `judged_by` that another output or the loss
    is, `moves` how far x_hat moves under another value of it (None where not tried).
    `kept` says of a mask what it leaves in the loss, `blanked` what one half gets instead.
    """

    name: str
    mask: bool
    declared: bool
    reads_it: bool
    judged_by: bool
    moves: float | None
    last: Op | None
    at: Span | None
    kept: Kept | None = None
    blanked: Blank | None = None

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
            moves = x_hat_moves(subject, anatomy, tensor, seed, rewind)
        elif not mask and value is not None:
            lost = lost_in(subject, anatomy, value, seed, rewind)
            if lost is not None:
                reads_it, judged, moves, ahead = False, False, 0.0, {v.index for v in lost.makes}
        last = _last(anatomy, ahead) if value is not None else None
        left = None
        if mask:
            left = kept(
                *(subject, anatomy, tensor, value, seed, rewind),
                judged=judged,
                padding=reads_it or judged or not told,
            )
        if mask and not (told or reads_it or judged or left):
            continue  # nothing says that it is to be read: padding is left out without it
        at = last.span if last is not None else _signature(subject.model)
        blank = None
        if not mask and value is not None and judged:
            blank = blanked(subject, anatomy, value, seed, rewind)
        found.append(
            Condition(name, mask, declared, reads_it, judged, moves, last, at, left, blank)
        )
    return found


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


def _read_by_python(flow: Flow, ahead: Set[int]) -> bool:
    """Whether Python takes numbers from a condition: how many graphs there are, how long."""
    return any(
        v.index in ahead for op in flow.recording.ops if op.name in ESCAPES for v in op.reads
    )


def _signature(model: nn.Module) -> Span | None:
    method = next((m for m in methods_of(type(model)) if m.name == "forward"), None)
    return Span(method.file, method.node.lineno) if method is not None else None


def tensors_of(batch: Batch) -> list[Tensor]:
    """Every tensor of a batch."""
    return list(tensors_in((batch.args, dict(batch.kwargs))))
