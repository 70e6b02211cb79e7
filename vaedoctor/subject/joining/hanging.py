"""A file rewritten so that modules which it builds one by one hang in one model.

`encoder = Encoder(20)` moves into the constructor of a class of its own, `encoder(x)` becomes
`model.encoder(x)`, and a function that was given encoder and decoder is given the model. Every
node keeps its place in the file, so that lines and columns are those that the user wrote.
"""

from __future__ import annotations

import ast
import builtins
import copy
from collections.abc import Mapping
from typing import Any, cast

from ..code.source import Source
from ..code.statements import binds
from ..code.syntax import Function, called_name, stripped
from ..script.names import one_by_one, writes
from .aliases import Aliases, Home, Part, handed

_KIND = "Model"


def hung(
    source: Source, home: Home, parts: Mapping[str, Part], modules: frozenset[str], name: str
) -> Source | None:
    """The file with its parts in a class; None where its calls hand them on in several ways.

    The tree of `source` is changed. `modules` are the file's own module classes, `name` is what
    the model is called.
    """
    aliases = Aliases(source, modules)
    aliases.held[id(home)] = {n: p.attribute for n, p in parts.items()}
    aliases.follow()
    if aliases.clashes:
        return None
    taken = {n.id for n in ast.walk(source.tree) if isinstance(n, ast.Name)}
    taken |= set().union(*map(binds, source.tree.body), set())
    kind = next(k for k in (_KIND, "Joined", "JoinedModel") if k not in taken)
    constructor = _Constructor(parts, _defined(source.tree))
    ordered = sorted(parts.values(), key=lambda p: p.value.lineno)
    made = constructor.class_of(kind, ordered)
    anchor = _anchor(ordered, set(constructor.given))
    body, top = source.tree.body, ordered[0].place.stmt
    before = next(i for i, s in enumerate(body) if any(n is top for n in ast.walk(s)))
    rewriter = _Rewriter(source, aliases, home, parts, name)
    rewriter.construction = ast.Call(ast.Name(kind, ast.Load()), [*constructor.given.values()], [])
    rewriter.anchor = anchor
    tree = rewriter.visit(source.tree)
    tree.body.insert(before, made)
    return Source(
        source.path, source.text, ast.fix_missing_locations(tree), source.notes, joined=kind
    )


def _anchor(ordered: list[Part], given: set[str]) -> ast.stmt:
    """Where the model is built: with its first part, if what the others need is there by then."""
    first, last = ordered[0].place, ordered[-1].place
    between = [s for s in first.block if first.stmt.lineno < s.lineno < last.stmt.lineno]
    return last.stmt if given & set().union(*map(writes, between), set()) else first.stmt


def _defined(tree: ast.Module) -> set[str]:
    """The names that imports, functions and classes give: they mean the same everywhere."""
    kinds = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return set().union(*(binds(s) for s in tree.body if isinstance(s, kinds)), set())


class _Constructor(ast.NodeTransformer):
    """Makes a class of the parts; what their constructors read from around is given to it."""

    def __init__(self, parts: Mapping[str, Part], defined: set[str]) -> None:
        self.parts = parts
        self.defined = defined
        self.given: dict[str, ast.expr] = {}
        self.bound: set[str] = set()

    def class_of(self, kind: str, ordered: list[Part]) -> ast.ClassDef:
        """The class, at the lines of its parts."""
        body: list[ast.stmt] = ast.parse("super().__init__()").body
        for part in ordered:
            value: Any = copy.deepcopy(stripped(part.value))
            self.bound = {
                n.id
                for n in ast.walk(value)
                if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)
            } | {a.arg for a in ast.walk(value) if isinstance(a, ast.arg)}
            target = ast.Attribute(ast.Name("self", ast.Load()), part.attribute, ast.Store())
            made = ast.Assign([target], _registered(part, self.visit(value)))
            body.append(ast.copy_location(made, part.value))
        header = ast.parse(
            f"class {kind}(__import__('torch').nn.Module):\n"
            f"    def __init__({', '.join(['self', *self.given])}):\n        pass"
        ).body[0]
        assert isinstance(header, ast.ClassDef)
        constructor = header.body[0]
        assert isinstance(constructor, ast.FunctionDef)
        for node in (*ast.walk(header), *ast.walk(body[0])):
            ast.copy_location(node, ordered[0].value)
        constructor.body = body
        constructor.end_lineno = header.end_lineno = ordered[-1].value.end_lineno
        return header

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        if ast.unparse(node.value) != "self":
            return self.generic_visit(node)
        if f"self.{node.attr}" in self.parts:
            node.attr = self.parts[f"self.{node.attr}"].attribute
            return node
        self.given[node.attr] = copy.deepcopy(node)
        return ast.copy_location(ast.Name(node.attr, node.ctx), node)

    def visit_Name(self, node: ast.Name) -> ast.AST:
        if node.id in self.parts:
            held = ast.copy_location(ast.Name("self", ast.Load()), node)
            return ast.copy_location(
                ast.Attribute(held, self.parts[node.id].attribute, node.ctx), node
            )
        known = node.id in self.bound or node.id in self.defined or hasattr(builtins, node.id)
        if not known:
            self.given[node.id] = copy.deepcopy(node)
        return node


def _registered(part: Part, value: ast.expr) -> ast.expr:
    """A learned tensor as a parameter of the model, dicts and lists as torch's own."""
    holder = "Parameter" if part.learned else "Module" if part.several else ""
    if part.several:
        holder += "Dict" if isinstance(part.value, ast.Dict) else "List"
    if not holder or (isinstance(value, ast.Call) and called_name(value) == holder):
        return value
    made = ast.parse(f"__import__('torch').nn.{holder}()", mode="eval").body
    assert isinstance(made, ast.Call)
    for node in ast.walk(made):
        ast.copy_location(node, value)
    made.args = [value]
    return made


class _Rewriter(ast.NodeTransformer):
    """Puts the model's attributes in the place of the names of its parts."""

    construction: ast.Call
    anchor: ast.stmt

    def __init__(
        self, source: Source, aliases: Aliases, home: Home, parts: Mapping[str, Part], name: str
    ) -> None:
        self.aliases = aliases
        self.home = home
        self.parts = {id(p.target): p for p in parts.values()}
        self.name = name
        self.function: Function | None = None
        self.owner: ast.ClassDef | None = None
        self.moved: set[int] = set()
        # The parameters of a function change when it is visited: calls are read before.
        self.dropped = set[int]()
        for place in source.places:
            owner = next((o for o in reversed(place.owners) if isinstance(o, ast.ClassDef)), None)
            for call in (n for n in ast.walk(place.stmt) if isinstance(n, ast.Call)):
                for callee, name, arg in handed(source, call, aliases.modules):
                    held = aliases.held.get(id(callee), {})
                    if name in held and aliases.of(arg, place.function, owner):
                        self.dropped.add(id(arg))

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        return self._function(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> ast.AST:
        return self._function(node)

    def _function(self, node: Function) -> ast.AST:
        held = self.aliases.held.get(id(node), {})
        a = node.args
        everything = [*a.posonlyargs, *a.args]
        bare = len(everything) - len(a.defaults)
        defaults = dict(zip([p.arg for p in everything[bare:]], a.defaults, strict=True))
        gone = [p for p in everything if p.arg in held] if node is not self.home else []
        for number, parameter in enumerate(gone):
            place = a.args if parameter in a.args else a.posonlyargs
            if number == 0:
                place[place.index(parameter)] = ast.copy_location(ast.arg(self.name), parameter)
                defaults.pop(parameter.arg, None)
            else:
                place.remove(parameter)
        if gone:
            a.defaults = [defaults[p.arg] for p in (*a.posonlyargs, *a.args) if p.arg in defaults]
        around, self.function = self.function, node
        self.generic_visit(node)
        self.function = around
        return node

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        around, self.owner = (self.function, self.owner), node
        self.function = None
        self.generic_visit(node)
        self.function, self.owner = around
        return node

    def visit_Assign(self, node: ast.Assign) -> Any:
        ones = one_by_one(node)
        targets = [t for s in ones if isinstance(s, ast.Assign) for t in s.targets]
        if isinstance(node.value, ast.Call) and self.aliases.given_back(node.value):
            held = ast.copy_location(ast.Name(self.name, ast.Store()), node.targets[0])
            return ast.copy_location(ast.Assign([held], self.visit(node.value)), node)
        if any(id(t) in self.parts for t in targets):
            return self._moved(node, ones)
        if len(targets) == 1 and (part := self._of(targets[0])) and part == self._of(node.value):
            return self._held_again(node, targets[0])
        return self.generic_visit(node)

    def visit_Return(self, node: ast.Return) -> ast.AST:
        if self.function is not None and id(self.function) in self.aliases.returned:
            node.value = ast.copy_location(ast.Name(self.name, ast.Load()), node)
            return node
        return self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> Any:
        if id(node.target) in self.parts:
            return self._moved(node, [])
        return self.generic_visit(node)

    def _moved(self, node: ast.stmt, ones: list[ast.stmt]) -> list[ast.stmt]:
        """What is left of a statement whose modules the model's constructor builds."""
        others = [s for s in ones if isinstance(s, ast.Assign)]
        others = [s for s in others if not any(id(t) in self.parts for t in s.targets)]
        kept: list[ast.stmt] = [cast(ast.stmt, self.generic_visit(s)) for s in others]
        if node is self.anchor:
            target = self._holder(ast.Store())
            made: ast.stmt = ast.Assign([target], self.construction)
        elif kept:
            return kept
        else:
            made = ast.Pass()
        for inner in ast.walk(made):
            ast.copy_location(inner, node)
        return [made, *kept]

    def _held_again(self, node: ast.Assign, target: ast.expr) -> ast.stmt:
        """`encoder = encoder.to(device)` says nothing new; `self.encoder = encoder` where it is."""
        owned = isinstance(target, ast.Attribute) and not isinstance(node.value, ast.Attribute)
        again: ast.stmt = ast.Pass()
        if (
            owned
            and id(self.owner) not in self.moved
            and isinstance(stripped(node.value), ast.Name)
        ):
            self.moved.add(id(self.owner))
            held = ast.Attribute(ast.Name("self", ast.Load()), self.name, ast.Store())
            again = ast.Assign([held], ast.Name(self.name, ast.Load()))
        for inner in ast.walk(again):
            ast.copy_location(inner, node)
        return again

    def visit_Call(self, node: ast.Call) -> ast.AST:
        gone = [a for a in node.args if id(a) in self.dropped]
        named = [k for k in node.keywords if id(k.value) in self.dropped]
        for number, arg in enumerate(gone):
            if number == 0:
                node.args[node.args.index(arg)] = self._model(arg)
            else:
                node.args.remove(arg)
        for number, keyword in enumerate(named):
            if number == 0 and not gone:
                keyword.arg, keyword.value = self.name, self._model(keyword.value)
            else:
                node.keywords.remove(keyword)
        return self.generic_visit(node)

    def visit_Name(self, node: ast.Name) -> ast.AST:
        return self._in_model(node) if self._of(node) else node

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        return self._in_model(node) if self._of(node) else self.generic_visit(node)

    def _of(self, node: ast.expr) -> str:
        return self.aliases.of(node, self.function, self.owner)

    def _in_model(self, node: ast.Name | ast.Attribute) -> ast.expr:
        made = ast.Attribute(self._model(node), self._of(node), node.ctx)
        return ast.copy_location(made, node)

    def _model(self, node: ast.expr) -> ast.expr:
        """The model, where a name or an attribute of `self` held one of its parts."""
        held = stripped(node)
        made = ast.copy_location(ast.Name(self.name, ast.Load()), held)
        if isinstance(held, ast.Attribute):
            made.id = "self"
            return ast.copy_location(ast.Attribute(made, self.name, ast.Load()), held)
        return made

    def _holder(self, ctx: ast.expr_context) -> ast.expr:
        if isinstance(self.home, ast.ClassDef):
            return ast.Attribute(ast.Name("self", ast.Load()), self.name, ctx)
        return ast.Name(self.name, ctx)
