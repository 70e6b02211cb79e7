"""Which call of a function that several lines call is meant."""

from __future__ import annotations

import itertools
from types import CodeType

from ...finding import Span
from .flow import Flow
from .recording import Op

_LAYERS = frozenset("linear matmul mm bmm einsum embedding conv1d conv2d conv3d lstm gru".split())


def placed(flow: Flow, op: Op | None) -> Span | None:
    """Where an operation stands; the call that led to it where other lines call its function too.

    What a function without layers computes is the same for all who call it: a sign that is wrong
    is wrong at one of the calls.
    """
    if op is None:
        return None
    for inner, outer in itertools.pairwise(op.frames):
        if not is_shared(flow, inner.code):
            return inner.span
        if outer is op.frames[-1]:
            return outer.span
    return op.span


def is_shared(flow: Flow, function: CodeType) -> bool:
    """Whether several lines call a function that runs no layer."""
    calls = set()
    for op in flow.recording.ops:
        for frame, caller in itertools.pairwise(op.frames):
            if frame.code is function:
                if op.name in _LAYERS and flow.layer(op):
                    return False
                calls.add((caller.code, caller.instruction))
    return len(calls) > 1
