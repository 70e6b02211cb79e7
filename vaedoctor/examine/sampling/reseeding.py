"""Where the code sets the seed of a draw that is known to repeat itself."""

from __future__ import annotations

import ast

from ...finding import Span
from ..code.listing import functions_in, span_in
from ..runs.recording import Op

_SEEDS = frozenset("manual_seed manual_seed_all seed_all seed_everything set_seed seed".split())


def seeded_at(op: Op) -> Span | None:
    """The last call before a draw, in a function around it, that sets a seed; the draw itself.

    So it is where the draw takes a generator of its own, which it names.
    """
    for frame in () if op.kwargs.get("generator") is not None else op.frames:
        for method in functions_in(frame.file):
            first, last = method.node.lineno, method.node.end_lineno or method.node.lineno
            if not first <= frame.line <= last:
                continue
            calls = [n for n in ast.walk(method.node) if isinstance(n, ast.Call) and _seeds(n)]
            before = [n for n in calls if n.lineno <= frame.line]
            if before:
                return span_in(method, max(before, key=lambda n: n.lineno))
    return op.span


def _seeds(node: ast.Call) -> bool:
    function = node.func
    return (getattr(function, "attr", None) or getattr(function, "id", "")) in _SEEDS
