"""Read the user's classes: where an attribute is assigned, and what their functions are."""

from __future__ import annotations

import ast
import functools
import inspect
import linecache
from dataclasses import dataclass

from ...finding import Span
from .places import is_user_file


@dataclass(frozen=True, slots=True)
class Method:
    """One function of a user's class, with its syntax tree at the file's line numbers."""

    owner: type
    name: str
    file: str
    node: ast.FunctionDef | ast.AsyncFunctionDef

    @property
    def lines(self) -> tuple[int, int]:
        """First and last line in the file."""
        return self.node.lineno, self.node.end_lineno or self.node.lineno


def text_of(span: Span | None) -> str:
    """The source text under a span, on one line."""
    if span is None:
        return ""
    lines = [linecache.getline(span.file, n) for n in range(span.line, span.end_line + 1)]
    if not lines or not lines[0]:
        return ""
    if span.end_col:
        lines[-1] = lines[-1][: span.end_col - 1]
    lines[0] = lines[0][span.col - 1 :]
    return " ".join(line.strip() for line in lines)


def header_of(span: Span) -> Span:
    """Of a `with` statement the context managers alone; any other span as it is."""
    for node in ast.walk(tree_of(span.file)):
        if isinstance(node, ast.With) and (node.lineno, node.col_offset + 1) == (
            span.line,
            span.col,
        ):
            first, last = node.items[0].context_expr, node.items[-1].context_expr
            end, end_col = last.end_lineno or last.lineno, (last.end_col_offset or 0) + 1
            return Span(span.file, first.lineno, first.col_offset + 1, end, end_col)
    return span


def methods_of(kind: type[object]) -> tuple[Method, ...]:
    """The functions a class and its bases define in files that are not torch's."""
    return tuple(m for base in kind.__mro__ for m in _own_methods(base))


@functools.cache
def _own_methods(kind: type[object]) -> tuple[Method, ...]:
    if not is_user_file(_file_of(kind)):  # torch's own are long, and nobody asks for them
        return ()
    file, found = _definition(kind)
    if found is None:
        return ()
    return tuple(
        Method(kind, child.name, file, child)
        for child in ast.walk(found)
        if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef))
    )


def _file_of(kind: type[object]) -> str:
    """The file in which a class is defined; "" where that is not known."""
    try:
        return inspect.getsourcefile(kind) or ""
    except (OSError, TypeError):
        return ""


def _definition(kind: type[object]) -> tuple[str, ast.ClassDef | None]:
    """The file and the `class` statement of a class.

    A notebook defines one name several times; the class is the one that holds its functions
    (`inspect` alone takes the first).
    """
    file = _file_of(kind)
    if not file:
        return "", None
    named = [
        node
        for node in ast.walk(tree_of(file))
        if isinstance(node, ast.ClassDef) and node.name == kind.__name__
    ]
    codes = [
        getattr(inspect.unwrap(f), "__code__", None) for f in vars(kind).values() if callable(f)
    ]
    lines = [c.co_firstlineno for c in codes if c is not None and c.co_filename == file]
    for node in named:
        if lines and all(node.lineno <= n <= (node.end_lineno or n) for n in lines):
            return file, node
    try:
        first = inspect.getsourcelines(kind)[1]
    except (OSError, TypeError):
        return file, None
    starts = [(n, (n.lineno, *(d.lineno for d in n.decorator_list))) for n in named]
    return file, next((n for n, lines in starts if first in lines), None)


def returned_name(kind: type[object], output: str) -> str:
    """What `forward` calls an output of a tuple: `logvar` for `[2]` of `return x, mu, logvar`."""
    forward = next((m for m in methods_of(kind) if m.name == "forward"), None)
    for node in ast.walk(forward.node) if forward is not None else ():
        if not isinstance(node, ast.Return) or node.value is None:
            continue
        several = isinstance(node.value, (ast.Tuple, ast.List))
        items = node.value.elts if isinstance(node.value, (ast.Tuple, ast.List)) else [node.value]
        for i, item in enumerate(items):
            known = f"[{i}]" if several else "output"
            if output == known and isinstance(item, (ast.Name, ast.Attribute)):
                return ast.unparse(item)
    return ""


@functools.cache
def tree_of(file: str) -> ast.Module:
    """The syntax tree of a file; an empty one if it cannot be parsed."""
    try:
        return ast.parse("".join(linecache.getlines(file)))
    except (SyntaxError, ValueError):
        return ast.Module([], [])


def is_own_code(kind: type) -> bool:
    """Whether a class is defined outside torch (its source can be read and corrected)."""
    return not kind.__module__.startswith("torch.") and bool(methods_of(kind))


def class_span(kind: type) -> Span | None:
    """The line on which a class is defined."""
    file, node = _definition(kind)
    if node is None:
        return None
    line = linecache.getline(file, node.lineno).rstrip()
    return Span(file, node.lineno, node.col_offset + 1, node.lineno, len(line) + 1)


def assigned_at(kind: type, attribute: str) -> Span | None:
    """Where a class assigns `self.<attribute>`: its own methods first, `__init__` before others."""
    places = []

    def depth(method: Method) -> int:
        return kind.__mro__.index(method.owner)

    for method in methods_of(kind):
        for node in ast.walk(method.node):
            if isinstance(node, (ast.Assign, ast.AnnAssign)) and _assigns(node, attribute):
                span = span_in(method, node)
                places.append((depth(method), method.name != "__init__", span.line, span))
            elif _registers(node, attribute):
                assert isinstance(node, ast.Call)
                first = method.name != "__init__"
                places.append((depth(method), first, node.lineno, span_in(method, node)))
    return min(places, key=lambda p: p[:3])[3] if places else None


def span_in(method: Method, node: ast.expr | ast.stmt | ast.arg) -> Span:
    """The span of a part of a function."""
    end = node.end_lineno or node.lineno
    return Span(method.file, node.lineno, node.col_offset + 1, end, (node.end_col_offset or 0) + 1)


def _assigns(node: ast.Assign | ast.AnnAssign, attribute: str) -> bool:
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    return any(
        isinstance(t, ast.Attribute) and t.attr == attribute
        for target in targets
        for t in ast.walk(target)
    )


def _registers(node: ast.AST, attribute: str) -> bool:
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args):
        return False
    named = node.args[0]
    return (
        node.func.attr in ("register_buffer", "register_parameter", "add_module", "__setattr__")
        and isinstance(named, ast.Constant)
        and named.value == attribute
    )


@functools.cache
def functions_in(file: str) -> tuple[Method, ...]:
    """Every function of a file, methods included."""
    return tuple(
        Method(object, node.name, file, node)
        for node in ast.walk(tree_of(file))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    )


def _in_force(kind: type) -> list[Method]:
    """The functions of a class, of those of one name the one that no other overrides."""
    nearest: dict[str, Method] = {}
    for method in methods_of(kind):
        nearest.setdefault(method.name, method)
    return [*nearest.values()]


def calls_in(kind: type, names: frozenset[str]) -> list[Span]:
    """Where a class's own methods call a function of one of these names."""
    found = []
    for method in _in_force(kind):
        for node in ast.walk(method.node):
            if isinstance(node, ast.Call):
                function = node.func
                name = getattr(function, "attr", None) or getattr(function, "id", "")
                if name in names and method.name != "__init__":
                    found.append(span_in(method, node))
    return found


def writes_attribute(kind: type, attribute: str) -> bool:
    """Whether a method other than `__init__` assigns `self.<attribute>` or edits it in place."""
    for method in _in_force(kind):
        for node in ast.walk(method.node) if method.name != "__init__" else ():
            if isinstance(node, (ast.Assign, ast.AnnAssign)) and _assigns(node, attribute):
                return True
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            edited = any(getattr(n, "attr", "") == attribute for n in ast.walk(node.func.value))
            if edited and node.func.attr.endswith("_"):
                return True
    return False


WALKERS = frozenset("children modules named_children named_modules _modules".split())


def walks_children(kind: type) -> bool:
    """Whether a class reaches its layers without naming them: `children()`, `getattr`."""
    for method in methods_of(kind):
        if method.name == "__init__":
            continue
        for node in ast.walk(method.node):
            if isinstance(node, ast.Attribute) and node.attr in WALKERS:
                return True
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                dynamic = len(node.args) > 1 and not isinstance(node.args[1], ast.Constant)
                if node.func.id == "getattr" and dynamic:
                    return True
    return False
