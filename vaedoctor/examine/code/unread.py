"""Whether any code of a file may read a setting that is kept: by name, or handed on whole."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from ...finding import Span
from ...subject.code.syntax import names_read
from ...subject.script.names import one_by_one
from .listing import Method, functions_in, methods_of, tree_of

_Name = tuple[ast.AST, str, str]
"""Where a configuration is known, and by which name or attribute."""
_BY_TEXT = frozenset("getattr vars __dict__ attrgetter __getattr__ __getattribute__".split())
_Own = ast.ClassDef | ast.FunctionDef


def is_read(kind: type, name: str, kept_as: str) -> bool:
    """Whether any code may read a setting of a class's instances.

    That the constructor stores it, as `kept_as`, is no use of it. Nor is that its configuration, of
    that name, is handed on whole to a class or function of the same file, which takes other things
    out of it.
    """
    methods = methods_of(kind)
    files = {m.file for m in methods}
    own = name == kept_as  # not an entry of something else that is kept
    if any(_named(tree_of(file), name, attribute=own) for file in files):
        return True
    if any(_uses(m, name, kept_as) for m in methods):
        return True
    return name != kept_as and any(_leaves(file, kept_as) for file in files)


def is_summand(kind: type, name: str) -> bool:
    """Whether a sum in a class's file has a variable of that name as a term, without a factor."""
    files = {m.file for m in methods_of(kind)}
    sums = (
        n
        for file in files
        for n in ast.walk(tree_of(file))
        if isinstance(n, ast.BinOp) and isinstance(n.op, ast.Add | ast.Sub)
    )
    return any(isinstance(t, ast.Name) and t.id == name for n in sums for t in (n.left, n.right))


def scheduled_at(kind: type, name: str) -> Span | None:
    """Where a loop in a class's file computes it anew of its counter: `kl.w = min(1, i / 9)`."""
    for file in sorted({m.file for m in methods_of(kind)}):
        for loop in (n for n in ast.walk(tree_of(file)) if isinstance(n, ast.For)):
            counters = {n.id for n in ast.walk(loop.target) if isinstance(n, ast.Name)}
            for node in ast.walk(loop):
                match node:
                    case ast.Assign(targets=[ast.Attribute(ast.Name(), attr)], value=value):
                        computed = not isinstance(value, ast.Name | ast.Constant)
                        if attr == name and computed and counters & names_read(value):
                            return Span(file, node.lineno, node.col_offset + 1)
    return None


def is_read_in(file: str, name: str) -> bool:
    """Whether any code of a file reads one of its global names, or anything of that name."""
    tree = tree_of(file)
    loads = (n for n in ast.walk(tree) if isinstance(n, ast.Name) and n.id == name)
    return _named(tree, name) or any(isinstance(n.ctx, ast.Load) for n in loads)


def unread_parameters(method: Method) -> Iterator[ast.arg]:
    """The parameters of a function that its body does not look at.

    Not where a function of the same name, or with the same parameters, does: then they are what
    its callers give to any of them.
    """
    names = [a.arg for a in _parameters(method)]
    read = _read_in(method)
    if read & {"locals", "__class__"} or _keeps_all(method):
        return
    for arg in _parameters(method):
        others = (
            other
            for other in functions_in(method.file)
            if other.node is not method.node
            and (other.name == method.name or [a.arg for a in _parameters(other)] == names)
        )
        if arg.arg not in read and not any(arg.arg in _read_in(other) for other in others):
            yield arg


def _keeps_all(method: Method) -> bool:
    """Whether a constructor's caller is read by name: `self.save_hyperparameters()`."""
    return any(
        isinstance(n, ast.Attribute) and n.attr == "save_hyperparameters"
        for n in ast.walk(method.node)
    )


def _parameters(method: Method) -> list[ast.arg]:
    given = method.node.args
    return [*given.posonlyargs, *given.args, *given.kwonlyargs]


def _read_in(method: Method) -> set[str]:
    return {n.id for s in method.node.body for n in ast.walk(s) if isinstance(n, ast.Name)}


def _named(tree: ast.AST, name: str, *, attribute: bool = False) -> bool:
    """Whether a file reads an attribute or entry of that name, of anything.

    A string in a list says nothing of an attribute where nothing in the file takes one by a string.
    """
    nodes = list(ast.walk(tree))
    keys = {id(k) for n in nodes if isinstance(n, ast.Dict) for k in n.keys}
    if attribute and not any(map(_takes_by_text, nodes)):
        lists = (n for n in nodes if isinstance(n, ast.Tuple | ast.List | ast.Set))
        keys |= {id(e) for n in lists for e in n.elts}
    for node in nodes:
        match node:
            case ast.Attribute(attr=attr, ctx=ast.Load()) if attr == name:
                return True
            case ast.Constant(value=text) if text == name and id(node) not in keys:
                return True
            case _ if spells(node, name):
                return True
    return False


def _takes_by_text(node: ast.AST) -> bool:
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name in _BY_TEXT
    return False


def spells(node: ast.AST, name: str) -> bool:
    """Whether an attribute or entry is read by a text that is put together: `f"lambda_{term}"`."""
    match node:
        case ast.Call(func=ast.Name(id="getattr"), args=[_, ast.JoinedStr(values=values), *_]):
            pass
        case ast.Subscript(slice=ast.JoinedStr(values=values)):
            pass
        case _:
            return False
    told = [str(v.value) if isinstance(v, ast.Constant) else "" for v in values]
    pattern = "".join(re.escape(text) or r"\w+" for text in told)
    return any(map(str.strip, told)) and re.fullmatch(pattern, name) is not None


def _uses(method: Method, name: str, kept_as: str) -> bool:
    """Whether a method does more with what it is given, or makes, than to store it: `self.w = w`.

    A variable of that name in a method that does neither is another thing.
    """
    stored = {
        id(n)
        for s in ast.walk(method.node)
        if isinstance(s, ast.stmt)
        for one in one_by_one(s)
        if _stores(one, name, kept_as)
        for n in ast.walk(one)
    }
    if not stored and name not in {a.arg for a in _parameters(method)}:
        return False
    return any(
        isinstance(n, ast.Name)
        and isinstance(n.ctx, ast.Load)
        and n.id == name
        and id(n) not in stored
        for n in ast.walk(method.node)
    )


def _stores(statement: ast.stmt, name: str, kept_as: str) -> bool:
    """`self.w = w`, `self.hparams = Namespace(w=w)`, `self.save_hyperparameters(...)`."""
    match statement:
        case (
            ast.Assign(targets=[ast.Attribute(attr=attr)], value=value)
            | ast.AnnAssign(target=ast.Attribute(attr=attr), value=value)
        ):
            return attr.lstrip("_") == kept_as and (kept_as != name or isinstance(value, ast.Name))
        case ast.Expr(ast.Call(ast.Attribute(attr="save_hyperparameters"))):
            return True
    return False


def _leaves(file: str, kept_as: str) -> bool:
    """Whether a configuration goes where other code may take anything out of it.

    A name is followed in its function, an attribute wherever it is read.
    """
    tree = tree_of(file)
    around = {id(c): n for n in ast.walk(tree) for c in ast.iter_child_nodes(n)}
    own = {n.name: n for n in tree.body if isinstance(n, ast.ClassDef | ast.FunctionDef)}
    known: list[_Name] = [(tree, "", kept_as)]
    stored: set[int] = set()
    for node in ast.walk(tree):
        match node:
            case ast.Assign(targets=[ast.Attribute(attr=attr)], value=value):
                if attr.lstrip("_") == kept_as:
                    scope = _scope(node, around, tree)
                    known += [(scope, name, "") for name in _made_from(value)]
                    stored |= {id(n) for n in ast.walk(value)}
    for scope, name, attribute in known:
        for node in ast.walk(scope):
            match node:
                case ast.Name(id=found, ctx=ast.Load()) if found == name:
                    further = _goes(node, around, own, tree)
                case ast.Attribute(attr=attr, ctx=ast.Load()) if attr.lstrip("_") == attribute:
                    further = _goes(node, around, own, tree)
                case _:
                    continue
            if further is None and id(node) not in stored:
                return True
            known += [n for n in further or () if n not in known]
    return False


def _made_from(value: ast.expr) -> Iterator[str]:
    """The names that an expression hands on whole: `cfg or Config()`, `dict(cfg)`, `f(**cfg)`."""
    match value:
        case ast.Name(id=name):
            yield name
        case ast.BoolOp(values=parts):
            yield from (n for part in parts for n in _made_from(part))
        case ast.IfExp(body=body, orelse=orelse):
            yield from (n for part in (body, orelse) for n in _made_from(part))
        case ast.Call(args=args, keywords=keywords):
            whole = [*args, *(k.value for k in keywords if k.arg is None)]
            yield from (n for part in whole for n in _made_from(part))
        case ast.Starred(value=part):
            yield from _made_from(part)


def _scope(node: ast.AST, around: dict[int, ast.AST], tree: ast.AST) -> ast.AST:
    """The function, or else the file, that a node is in."""
    while node is not tree and not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        node = around[id(node)]
    return node


def _goes(
    node: ast.expr, around: dict[int, ast.AST], own: dict[str, _Own], tree: ast.AST
) -> list[_Name] | None:
    """By which further names a configuration is known after one use; None where that is open."""
    over = around.get(id(node))
    while isinstance(over, ast.BoolOp | ast.IfExp):
        node, over = over, around.get(id(over))
    match over:
        case ast.Attribute(attr=attr):
            return None if attr in {"__dict__", "items", "values"} else []
        case ast.Subscript(slice=part):
            return [] if isinstance(part, ast.Constant) else None
        case ast.Compare():
            return []
        case ast.Assign(targets=[ast.Name(id=name)]):
            return [(_scope(over, around, tree), name, "")]
        case ast.Assign(targets=[ast.Attribute(attr=name)]):
            return [(tree, "", name.lstrip("_"))]
        case ast.Call(func=ast.Name(id=callee), args=args) if node in args and callee in own:
            before = args[: args.index(node)]
            if not any(isinstance(a, ast.Starred) for a in before):
                return _taken_as(own[callee], len(before))
        case ast.keyword(arg=str(name)):
            match around.get(id(over)):
                case ast.Call(func=ast.Name(id=callee)) if callee in own:
                    return _taken_as(own[callee], name)
    return None


def _taken_as(callee: _Own, place: int | str) -> list[_Name] | None:
    """The name by which a function or constructor takes an argument; None where that is open."""
    function: ast.stmt | None = callee
    first = 0
    if isinstance(callee, ast.ClassDef):
        made = (n for n in callee.body if isinstance(n, ast.FunctionDef) and n.name == "__init__")
        function, first = next(made, None), 1
    if not isinstance(function, ast.FunctionDef):
        return None
    names = [a.arg for a in (*function.args.posonlyargs, *function.args.args)][first:]
    if isinstance(place, str):
        return [(function, place, "")] if place in names else None
    return [(function, names[place], "")] if place < len(names) else None
