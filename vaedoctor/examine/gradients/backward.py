"""A backward pass that raises: which in-place edit spoiled a tensor autograd had kept."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ...finding import Span, where
from ..runs.again import Again
from ..runs.gradients import Gradients
from ..runs.recording import Op, Recording


@dataclass(frozen=True, slots=True)
class BackwardFault:
    """What autograd said, and the in-place operation it complains about, if there is one.

    `second` says that it is about the graph that one step leaves to the next: concluded from the
    two graphs, not run, since a backward pass would free the recorded one.
    """

    text: str
    edit: str
    at: Span | None
    shape: tuple[int, ...]
    saved: tuple[str, ...]
    second: bool = False


_EDITED = re.compile(r"\[[\w.]*Tensor \[([\d, ]*)\]\](?:, which is output \d+ of (\w+?)Backward)?")


def backward_fault(recording: Recording, gradients: Gradients) -> BackwardFault | None:
    """Explain the exception of the backward pass; None where it ran."""
    error = gradients.error
    if error is None:
        return None
    text = " ".join(str(error).split())
    text = text.partition(". Hint:")[0]
    named = _EDITED.search(text)
    if named is None or "inplace" not in text:
        return BackwardFault(text, "", _backward_span(recording), (), ())
    shape = tuple(int(n) for n in named.group(1).replace(" ", "").split(",") if n)
    edit = _edit(recording, shape, (named.group(2) or "").lower())
    if edit is None:
        return BackwardFault(text, "", _backward_span(recording), shape, ())
    maker = edit.reads[0].op if edit.reads else None
    saved = (
        (f"the tensor is made by `{maker.name}` in {where(maker.span, edit.span)}",)
        if maker
        else ()
    )
    return BackwardFault(text, edit.name, edit.span, shape, saved)


def kept_graph(again: Again) -> BackwardFault | None:
    """Where the loss of the second step goes through the first step's graph; None if nowhere."""
    if again.kept is None:
        return None
    return BackwardFault("", "", again.kept.span, (), (), second=True)


def _edit(recording: Recording, shape: tuple[int, ...], function: str) -> Op | None:
    """The in-place operation on a tensor of that shape, made by that function if one fits."""
    edits = [
        op
        for op in recording.ops
        if op.inplace and any(_same(v.shape, shape) for v in (*op.reads, *op.makes))
    ]
    named = [
        op
        for op in edits
        if function
        and any(v.op and function in v.op.name.replace("_", "").lower() for v in op.reads)
    ]
    written_over = [op for op in reversed(edits) if not op.reads]  # first `empty`, then a slip
    return next(iter(named or [op for op in edits if op.reads] or written_over), None)


def _same(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    return a == b or sorted(a) == sorted(b)  # autograd may name a transposed copy


def _backward_span(recording: Recording) -> Span | None:
    return recording.ops[-1].span if recording.ops else None
