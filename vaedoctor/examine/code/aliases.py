"""Where the code takes the mean for the sample: `z = mu`, or a function that returns it."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from torch import nn

from ...finding import Span
from .listing import Method, functions_in, methods_of, span_in


def taken_for_sample(call: Span | None, model: nn.Module) -> Span | None:
    """The statement that makes what a call is given another name for what was there already.

    None where the call is given the result of a computation, or where that cannot be read.
    """
    around = [m for m in functions_in(call.file) if _holds(m, call)] if call is not None else []
    if call is None or not around:
        return None
    function = max(around, key=lambda m: m.lines[0])
    for name in _given(function, call):
        stored = [s for s in _assignments(function, name) if s.lineno < call.line]
        last = max(stored, key=lambda s: s.lineno, default=None)
        if last is None or last.value is None:
            continue
        if _other_name(last.value):
            return span_in(function, last)
        if isinstance(last.value, ast.Call):
            return _returned(call.file, last.value, model)
    return None


def _holds(method: Method, span: Span) -> bool:
    first, last = method.lines
    return first <= span.line <= last


def _given(function: Method, call: Span) -> Iterator[str]:
    """The names among what the expression at a span is computed from."""
    for node in ast.walk(function.node):
        if isinstance(node, ast.expr) and (node.lineno, node.end_lineno) == (
            call.line,
            call.end_line,
        ):
            if (node.col_offset + 1, (node.end_col_offset or 0) + 1) != (call.col, call.end_col):
                continue
            inside: list[ast.expr] = [node]
            if isinstance(node, ast.Call):
                inside = [*node.args, *(k.value for k in node.keywords)]
            for part in inside:
                yield from (n.id for n in ast.walk(part) if isinstance(n, ast.Name))
            return


def _assignments(function: Method, name: str) -> list[ast.Assign | ast.AnnAssign]:
    found: list[ast.Assign | ast.AnnAssign] = []
    for node in ast.walk(function.node):
        if isinstance(node, ast.Assign):
            targets = node.targets
        elif isinstance(node, ast.AnnAssign):
            targets = [node.target]
        else:
            continue
        written = (n for t in targets for n in ast.walk(t) if isinstance(n, ast.Name))
        if any(n.id == name and isinstance(n.ctx, ast.Store) for n in written):
            found.append(node)
    return found


def _other_name(value: ast.expr) -> bool:
    """Whether an expression computes nothing: a name, or a distribution's own location."""
    match value:
        case ast.Name() | ast.Attribute(attr="mean" | "mode" | "loc"):
            return True
        case ast.Call(func=ast.Attribute(attr="mode"), args=[]):
            return True
        case ast.IfExp(body=body, orelse=other):
            return _other_name(body) or _other_name(other)
    return False


def _returned(file: str, call: ast.Call, model: nn.Module) -> Span | None:
    """Where the function of that name returns a parameter as it is."""
    name = getattr(call.func, "attr", None) or getattr(call.func, "id", "")
    kinds = dict.fromkeys(type(m) for m in model.modules())
    own = [next((m for m in methods_of(kind) if m.name == name), None) for kind in kinds]
    named = [m for m in own if m is not None] or [m for m in functions_in(file) if m.name == name]
    if len({m.lines for m in named}) != 1:
        return None
    function = named[0]
    given = {a.arg for a in (*function.node.args.args, *function.node.args.kwonlyargs)} - {"self"}
    for node in ast.walk(function.node):
        match node:
            case ast.Return(value=ast.Name(id=parameter)) if parameter in given:
                if not _assignments(function, parameter):
                    return span_in(function, node)
    return None
