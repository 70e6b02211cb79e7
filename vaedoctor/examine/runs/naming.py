"""The user's own names for values: the local variable it is assigned to, the entry of `return`."""

from __future__ import annotations

import ast
import functools

from ...finding import Span
from ...subject.code.syntax import root_name
from ..code.listing import tree_of
from ..code.places import Frame
from .recording import Op, Value


def local_name(value: Value) -> str:
    """The variable that holds a value first: `z` for `z = self.reparameterize(mu, logvar)`.

    Followed from the line that makes the value through `return` statements to the first
    assignment; "" where an expression uses it without giving it a name.
    """
    if value.op is None:
        return ""
    element: int | None = None
    if len(value.op.makes) > 1:
        element = value.place[1]
    for frame in value.op.frames:
        statement = _statement(frame)
        span = frame.span
        if statement is None or span is None or statement.value is None:
            return ""
        held = _element(statement.value, span)
        if held is None:
            return ""
        if held >= 0:
            element = held
        if isinstance(statement, ast.Return):
            continue
        if isinstance(statement, ast.Assign):
            return _target(statement.targets[0], element)
        return _target(statement.target, element)
    return ""


def parameter_of(op: Op, value: Value) -> int | None:
    """Which parameter of the function around it an operation's operand is; None if not known.

    Read off `torch.log(std)`, `a - b` and `q["std"].pow(2)`: operands that are names or parts of
    what a name holds.
    """
    frame = op.frames[0] if op.frames else None
    node = _expression(frame) if frame is not None else None
    if frame is None or node is None:
        return None
    if isinstance(node, ast.BinOp):
        written: list[ast.expr] = [node.left, node.right]
    elif isinstance(node, ast.Call):
        of = node.func.value if isinstance(node.func, ast.Attribute) else None
        written = [*([of] if of is not None else []), *node.args]
    else:
        return None
    parameters = frame.code.co_varnames[: frame.code.co_argcount]
    names = [name for w in written if (name := root_name(w)) in parameters]
    if len(names) == 1 and len(op.reads) == 1 and op.reads[0] is value:
        return parameters.index(names[0])
    if len(names) == len(op.reads) == len(op.args) == 2 and op.args[0] is op.reads[0].tensor:
        return parameters.index(names[0 if op.reads[0] is value else 1])
    return None


def _expression(frame: Frame) -> ast.expr | None:
    span = frame.span
    if span is None:
        return None
    nodes = (n for n in ast.walk(tree_of(frame.file)) if isinstance(n, ast.BinOp | ast.Call))
    return next((n for n in nodes if _same(n, span)), None)


def _element(expression: ast.expr, span: Span) -> int | None:
    """-1 where the span is the whole expression, i where it is element i of a tuple, else None."""
    if _same(expression, span):
        return -1
    if isinstance(expression, ast.Tuple | ast.List):
        return next((i for i, e in enumerate(expression.elts) if _same(e, span)), None)
    return None


def _same(node: ast.expr, span: Span) -> bool:
    # Columns of the tree count bytes, those of a span characters: lines that are not ASCII lose.
    place = (node.lineno, node.col_offset + 1, node.end_lineno, (node.end_col_offset or 0) + 1)
    return place == (span.line, span.col, span.end_line, span.end_col)


def _target(target: ast.expr, element: int | None) -> str:
    if isinstance(target, ast.Tuple | ast.List):
        if element is None or element >= len(target.elts):
            return ""
        return _target(target.elts[element], None)
    if element is not None:
        return f"{ast.unparse(target)}[{element}]" if isinstance(target, ast.Name) else ""
    if isinstance(target, ast.Name):
        return target.id if target.id != "_" else ""
    return ast.unparse(target) if isinstance(target, ast.Attribute) else ""


_Named = ast.Assign | ast.AugAssign | ast.AnnAssign | ast.Return


def _statement(frame: Frame) -> _Named | None:
    """The innermost assignment or `return` around the expression that was running."""
    span = frame.span
    if span is None:
        return None
    for first, last, node in _statements(frame.file):
        if first <= span.line <= last and span.end_line <= last:
            return node
    return None


@functools.lru_cache(maxsize=64)
def _statements(file: str) -> list[tuple[int, int, _Named]]:
    """Every assignment and `return` of a file with its lines, the shortest first."""
    found = [
        (n.lineno, n.end_lineno or n.lineno, n)
        for n in ast.walk(tree_of(file))
        if isinstance(n, ast.Assign | ast.AugAssign | ast.AnnAssign | ast.Return)
    ]
    return sorted(found, key=lambda entry: (entry[1] - entry[0], entry[0]))
