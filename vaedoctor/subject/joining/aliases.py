"""Under which names the code of a file holds each of the modules that it builds one by one."""

from __future__ import annotations

import ast
from dataclasses import dataclass, field

from torch import nn

from ..code.source import Place, Source
from ..code.syntax import Function, called_name, own_expressions, stripped
from ..script.holders import callees, class_around, read_in_rounds

Home = Function | ast.ClassDef | None


@dataclass(frozen=True, slots=True)
class Part:
    """A module that the file builds: its name there, the statement, and what is assigned.

    `kind` is what it is made of: modules, or tensors that are learned.
    """

    name: str
    place: Place
    target: ast.expr
    value: ast.expr
    kind: str = "module"

    @property
    def learned(self) -> bool:
        """Whether it is a tensor, or several of them."""
        return self.kind.startswith("tensor")

    @property
    def several(self) -> bool:
        """Whether it is a dict or a list of modules or tensors."""
        return isinstance(self.value, ast.Dict | ast.List)

    @property
    def attribute(self) -> str:
        """Its name in the model."""
        name = self.name.removeprefix("self.")
        return f"{name}_" if hasattr(nn.Module, name) else name

    @property
    def call(self) -> ast.Call:
        """What makes it."""
        made = stripped(self.value)
        return made if isinstance(made, ast.Call) else ast.Call(ast.Name("", ast.Load()), [], [])


@dataclass(slots=True)
class Aliases:
    """The part that each name holds, by function (None is the top level) and class.

    Followed through assignments, the arguments of the file's own calls and what they return.
    `returned` are the parts that a function returns side by side; `clashes` says that one name of a
    function holds several.
    """

    source: Source
    modules: frozenset[str]
    held: dict[int, dict[str, str]] = field(default_factory=dict)
    returned: dict[int, tuple[str, ...]] = field(default_factory=dict)
    clashes: bool = False

    def follow(self) -> None:
        """Read the file until nothing is new."""
        read_in_rounds(self.source, self._read, self.held)

    def of(self, node: ast.expr, function: Function | None, owner: ast.ClassDef | None) -> str:
        """The part that an expression is; empty where it is none."""
        match stripped(node):
            case ast.Name(id=name):
                return self.named(name, function)
            case ast.Attribute(value=ast.Name(id="self"), attr=attr) if owner is not None:
                return self.held.get(id(owner), {}).get(f"self.{attr}", "")
        return ""

    def given_back(self, call: ast.Call) -> tuple[str, ...]:
        """The parts that a call of a function of the file returns side by side."""
        known = (self.returned.get(id(c), ()) for c, _ in callees(self.source, called_name(call)))
        return next(filter(None, known), ())

    def named(self, name: str, function: Function | None) -> str:
        """The part that a bare name means in a function."""
        for around in self.source.functions_around(function):
            own = self.held.get(id(around), {})
            if name in own:
                return own[name]
            if name in _bound_in(around):
                return ""
        return self.held.get(id(None), {}).get(name, "")

    def _read(self, place: Place) -> None:
        function, owner = place.function, class_around(place)
        match place.stmt:
            case ast.Return(value=ast.Tuple(elts=elts)) if function is not None:
                parts = tuple(self.of(e, function, owner) for e in elts)
                if all(parts) and self.returned.setdefault(id(function), parts) != parts:
                    self.clashes = True
            case ast.Assign(targets=[ast.Tuple(elts=elts)], value=ast.Call() as call):
                names = [e.id for e in elts if isinstance(e, ast.Name)]
                parts = self.given_back(call)
                if len(names) == len(elts) == len(parts):
                    for name, part in zip(names, parts, strict=True):
                        self._hold(function, name, part)
            case ast.Assign(targets=[target], value=value) if part := self.of(
                value, function, owner
            ):
                if isinstance(target, ast.Name):
                    self._hold(function, target.id, part)
                elif ast.unparse(target).startswith("self.") and owner is not None:
                    self._hold(owner, ast.unparse(target), part)
        for node in own_expressions(place.stmt):
            if isinstance(node, ast.Call):
                for callee, name, arg in handed(self.source, node, self.modules):
                    if part := self.of(arg, function, owner):
                        self._hold(callee, name, part)

    def _hold(self, home: Home, name: str, part: str) -> None:
        known = self.held.setdefault(id(home), {})
        self.clashes = self.clashes or known.get(name, part) != part
        known[name] = part


def handed(
    source: Source, call: ast.Call, modules: frozenset[str]
) -> list[tuple[Function, str, ast.expr]]:
    """What a call gives the parameters of the file's functions; those of modules are no matter."""
    found: list[tuple[Function, str, ast.expr]] = []
    for callee, shift in callees(source, called_name(call)):
        place = next(p for p in source.places if p.stmt is callee)
        owner = class_around(place)
        if owner is not None and owner.name in modules:
            continue
        names = [p.arg for p in (*callee.args.posonlyargs, *callee.args.args)][shift:]
        found += [(callee, n, a) for n, a in zip(names, call.args, strict=False)]
        found += [(callee, k.arg, k.value) for k in call.keywords if k.arg]
    return found


def _bound_in(function: Function) -> set[str]:
    """The names that a function gives a meaning of its own."""
    a = function.args
    found = {p.arg for p in (*a.posonlyargs, *a.args, *a.kwonlyargs)}
    shared = {g for n in ast.walk(function) if isinstance(n, ast.Global) for g in n.names}
    stored = {
        n.id for n in ast.walk(function) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)
    }
    return found | (stored - shared)
