"""Which operation made the first non-finite gradient, at its line in the forward pass.

`set_detect_anomaly` names the backward function and keeps the traceback of the forward call; the
recorded graph gives the exact expression: the last operation whose result has a finite gradient
while one of its operands has not.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ...finding import Span
from ...subject.subject import Subject
from ..anatomy.anatomy import anatomize
from ..code.places import is_user_file
from ..objective.objective import compose
from ..runs.flow import Flow
from ..runs.gradients import Gradients
from ..runs.recording import Op, Recording
from ..runs.step import run_recorded


@dataclass(frozen=True, slots=True)
class Anomaly:
    """A non-finite gradient: the parameters it reached, and the operation that made it.

    `function` is anomaly mode's name for the backward function, `forward` says that the loss was
    not finite to begin with, `operand` the smallest and largest value of what the operation read.
    """

    parameters: tuple[str, ...]
    function: str
    op: Op | None
    at: Span | None
    forward: bool
    operand: tuple[float, float] | None


def find(
    subject: Subject,
    recording: Recording,
    gradients: Gradients,
    seed: int,
    rewind: Callable[[], None],
) -> Anomaly | None:
    """None where every gradient is finite."""
    bad = tuple(name for name, g in gradients.by_name.items() if g is not None and not _finite(g))
    loss = gradients.loss
    if loss is None or (not bad and bool(torch.isfinite(loss))):
        return None
    if not bool(torch.isfinite(loss)):
        op = _first_non_finite(recording)
        if op is None and gradients.composed:
            return None  # only the loss that vaedoctor made up overflows
        return Anomaly(bad, "", op, op.span if op else None, True, _range(op))
    function, line = _anomaly_mode(subject, seed)
    rewind()
    op = _culprit(recording, loss, function, line)
    at = op.span if op is not None and op.span is not None else line
    return Anomaly(bad, function, op, at, False, _range(op))


def _range(op: Op | None) -> tuple[float, float] | None:
    if op is None or not op.reads or not op.reads[0].tensor.is_floating_point():
        return None
    operand = op.reads[0].tensor.detach()
    return (float(operand.min()), float(operand.max())) if operand.numel() else None


def _first_non_finite(recording: Recording) -> Op | None:
    for op in recording.ops:
        made = [v.tensor for v in op.makes if v.tensor.is_floating_point()]
        read = [v.tensor for v in op.reads if v.tensor.is_floating_point()]
        if not all(_finite(t) for t in made) and all(_finite(t) for t in read):
            return op
    return None


def _finite(tensor: Tensor) -> bool:
    values = tensor.detach()
    # A sum is finite only where all its terms are, and is had in one pass without a copy.
    return bool(torch.isfinite(values.sum())) or bool(torch.isfinite(values).all())


def _culprit(recording: Recording, loss: Tensor, function: str, line: Span | None) -> Op | None:
    """The forward operation that turns a finite gradient into a non-finite one.

    A value that several operations read blames them all: then the backward pass of each alone
    decides, and else anomaly mode, which sees NaN but no infinity, by function and line.
    """
    values = [v for v in recording.values if v.edge is not None]
    edges = [v.edge for v in values if v.edge is not None]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = torch.autograd.grad(loss, edges, allow_unused=True, retain_graph=True)
    bad = {v.index for v, g in zip(values, found, strict=True) if g is not None and not _finite(g)}
    suspects = [
        op
        for op in reversed(recording.ops)
        if any(v.index in bad for v in op.reads) and not any(v.index in bad for v in op.makes)
    ]

    gradients = {v.index: g for v, g in zip(values, found, strict=True) if g is not None}

    def blamed(op: Op) -> tuple[bool, bool, bool]:
        alone = len(suspects) > 1 and _spoils(op, gradients, bad)
        by_name = any(v.edge is not None and v.edge.node.name() == function for v in op.makes)
        by_line = line is not None and op.span is not None and op.span.line == line.line
        return alone, by_name, by_line

    return max(suspects, key=blamed, default=None)


def _spoils(op: Op, gradients: dict[int, Tensor], bad: set[int]) -> bool:
    """Whether the backward pass of one operation alone makes a finite gradient non-finite."""
    made = [v for v in op.makes if v.edge is not None and v.index in gradients]
    read = [v.edge for v in op.reads if v.edge is not None and v.index in bad]
    edges = [v.edge for v in made if v.edge is not None]
    if not made or not read:
        return False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        given = [gradients[v.index] for v in made]
        found = torch.autograd.grad(edges, read, given, allow_unused=True, retain_graph=True)
    return any(g is not None and not _finite(g) for g in found)


def _anomaly_mode(subject: Subject, seed: int) -> tuple[str, Span | None]:
    """Run the step under anomaly mode: the backward function's name and the forward line."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with torch.autograd.set_detect_anomaly(True):
            recording = run_recorded(subject, seed=seed)
            loss = recording.loss
            if recording.error is None and loss is None:
                loss = compose(anatomize(recording, Flow(recording)))
            if recording.error is not None or loss is None:
                return "", None
            leaves = [p for p in subject.model.parameters() if p.requires_grad]
            try:
                torch.autograd.grad(loss, leaves, allow_unused=True)
            except RuntimeError as error:
                named = re.search(r"Function '(\w+)'", str(error))
                texts = [str(w.message) for w in caught]
                return (named.group(1) if named else ""), forward_line(texts)
    return "", None


def forward_line(texts: list[str]) -> Span | None:
    """The innermost user line in anomaly mode's traceback of the forward call."""
    for text in reversed(texts):
        if "forward call" not in text:
            continue
        lines = re.findall(r'File "(.+?)", line (\d+)', text)
        mine = [(file, int(line)) for file, line in lines if is_user_file(file)]
        if mine:
            return Span(mine[-1][0], mine[-1][1], 1, mine[-1][1], 0)
    return None
