"""What names were assigned, up to a line of the user's file: expressions, not yet values."""

from __future__ import annotations

import ast
import dataclasses

from .entrypoints import config_functions, said_by_decorators, said_by_default
from .syntax import Function, blocks

Bindings = dict[str, "Bound | None"]


@dataclasses.dataclass(frozen=True, slots=True)
class Bound:
    """An assigned expression and what the names in it meant at that moment.

    `choice` is the test of an `if` that gives the name one meaning or another; where it cannot be
    told which, the last one counts.
    """

    expr: ast.expr
    before: Bindings
    part: ast.Attribute | ast.Subscript | None = None
    choice: tuple[ast.expr, Bound | None, Bound | None, Bound] | None = None


def assigned(body: list[ast.stmt], before: Bindings, line: int | None) -> Bindings:
    """What names mean after a block, or at a line inside it."""
    meaning = dict(before)
    for stmt in body:
        if line is not None and stmt.lineno >= line:
            break
        if isinstance(stmt, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            meaning.pop(stmt.name, None)
            continue
        if isinstance(stmt, ast.If) and (line is None or (stmt.end_lineno or 0) < line):
            meaning = _either(stmt, meaning)
            continue
        _bind(stmt, meaning)
        for block in blocks(stmt):
            meaning = assigned(block, meaning, line)
    return meaning


def _either(stmt: ast.If, before: Bindings) -> Bindings:
    """What names mean after an `if`: one thing or the other."""
    then, other = assigned(stmt.body, before, None), assigned(stmt.orelse, before, None)
    meaning = assigned(stmt.orelse, then, None)
    for name in then.keys() | other.keys():
        one, two, last = then.get(name), other.get(name), meaning.get(name)
        if one is not two and last is not None:
            choice = (stmt.test, one, two, last)
            meaning[name] = Bound(last.expr, before, last.part, choice)
    return meaning


def _bind(stmt: ast.stmt, meaning: Bindings) -> None:
    match stmt:
        case ast.Assign(targets=targets, value=value):
            earlier = dict(meaning)
            for target in targets:
                _bind_target(target, value, meaning, earlier)
        case ast.AnnAssign(target=ast.Name(id=name), value=value) if value is not None:
            meaning[name] = Bound(value, dict(meaning))
        case ast.AugAssign(target=ast.Name(id=name), op=op, value=value):
            left = ast.Name(name, ast.Load())
            meaning[name] = Bound(ast.BinOp(left, op, value), dict(meaning))
        case ast.AugAssign(target=ast.Subscript() as part, op=op, value=value):
            held = ast.Subscript(part.value, part.slice, ast.Load())
            _bind_target(part, ast.BinOp(held, op, value), meaning, dict(meaning))
        case ast.For(target=target) | ast.AsyncFor(target=target):
            _forget(target, meaning)
        case ast.With(items=items):
            for item in items:
                if item.optional_vars is not None:
                    _forget(item.optional_vars, meaning)


def _bind_target(target: ast.expr, value: ast.expr, meaning: Bindings, earlier: Bindings) -> None:
    if isinstance(target, ast.Name):
        meaning[target.id] = Bound(value, earlier)
    elif isinstance(target, ast.Attribute | ast.Subscript):
        if isinstance(target.value, ast.Name) and earlier.get(target.value.id) is not None:
            meaning[target.value.id] = Bound(value, earlier, target)
    elif isinstance(target, ast.Tuple | ast.List):
        for index, element in enumerate(target.elts):
            if any(isinstance(e, ast.Starred) for e in target.elts):
                _forget(element, meaning)
                continue
            if isinstance(value, ast.Tuple | ast.List) and index < len(value.elts):
                one: ast.expr = value.elts[index]
            else:
                one = ast.Subscript(value, ast.Constant(index), ast.Load())
            _bind_target(element, one, meaning, earlier)


def _forget(target: ast.AST, meaning: Bindings) -> None:
    for node in ast.walk(target):
        if isinstance(node, ast.Name):
            meaning[node.id] = None


def parameters(function: Function, module: Bindings, tree: ast.Module) -> Bindings:
    """What a function's parameters are when its entry point is given nothing."""
    a = function.args
    positional = [*a.posonlyargs, *a.args]
    found: Bindings = {p.arg: None for p in (*positional, *a.kwonlyargs)}
    for config in config_functions(tree) if function.decorator_list else ():
        known = assigned(config.body, {}, None)
        found |= {name: bound for name, bound in known.items() if name in found}
    for name, default in said_by_decorators(function):
        if name in found:
            found[name] = Bound(default, module)
    for p, default in zip(reversed(positional), reversed(a.defaults), strict=False):
        found[p.arg] = Bound(said_by_default(default), module)
    for p, kw_default in zip(a.kwonlyargs, a.kw_defaults, strict=True):
        if kw_default is not None:
            found[p.arg] = Bound(said_by_default(kw_default), module)
    return found
