"""Under which names the code of a file holds the model: what it builds, hands on and trains."""

from __future__ import annotations

import ast
from collections.abc import Callable, Collection, Iterator, Mapping, Sized
from dataclasses import dataclass, field

from ..code.source import Place, Source
from ..code.syntax import Function, called_name, own_expressions, stripped

Owner = ast.ClassDef | None
_USUAL = {"model", "vae", "net", "network", "autoencoder", "module", "ae"}
_WRAPPERS = {
    *("DataParallel", "DistributedDataParallel", "DDP", "compile", "script", "prepare"),
    *("to_device", "prepare_model", "setup", "deepcopy", "unwrap_model", "freeze"),
}
_ROUNDS = 4


@dataclass(slots=True)
class Holders:
    """The names that hold an instance of `kinds`, by function (None is the top level) and class.

    Followed through assignments, arguments of the file's own calls, and attributes of `self`.
    """

    source: Source
    kinds: frozenset[str]
    held: dict[int, set[str]] = field(default_factory=dict)
    others: dict[int, set[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        read_in_rounds(self.source, self._read, self.held)

    def levels(self, function: Function | None, owner: Owner) -> Iterator[frozenset[str]]:
        """Sets of names of the model at a place, the surest first: each holds the one before."""
        own = owner is not None and owner.name in self.kinds
        known = self._names(function, owner) | ({"self"} if own else set())
        found = known | {n for n in self._usual(function, owner) if own or n != "self"}
        seen: set[frozenset[str]] = set()
        trained = found | self._trained(function)
        for names in (found, trained, trained | self._called(function)):
            if frozenset(names) not in seen:
                seen.add(frozenset(names))
                yield frozenset(names)

    def known(self, function: Function | None, owner: Owner) -> frozenset[str]:
        """The names that hold what the file builds: none that is only usual for a model."""
        own = owner is not None and owner.name in self.kinds
        return frozenset(self._names(function, owner) | ({"self"} if own else set()))

    def holds(self, node: ast.expr, function: Function | None, owner: Owner) -> bool:
        """Whether an expression is the model, or what a wrapper makes of it."""
        node = stripped(node)
        if isinstance(node, ast.Call):
            name = called_name(node)
            if name in self.kinds or name in self._makers():
                return True
            first = node.args[0] if node.args else None
            return first is not None and name in _WRAPPERS and self.holds(first, function, owner)
        return ast.unparse(node) in self._names(function, owner)

    def _names(self, function: Function | None, owner: Owner) -> set[str]:
        found = set(self.held.get(id(owner), ())) if owner is not None else set()
        found |= self.held.get(id(None), set())
        for around in self.source.functions_around(function):
            found |= self.held.get(id(around), set())
        return found

    def _usual(self, function: Function | None, owner: Owner) -> set[str]:
        """What people call a model, where the file does not bind the name to something else."""
        bound = set(self.others.get(id(None), ()))
        for around in self.source.functions_around(function):
            bound |= self.others.get(id(around), set())
        if owner is not None:
            bound |= self.others.get(id(owner), set())
        usual = _USUAL | {f"self.{n}" for n in _USUAL}
        return {n for n in usual if n not in bound}

    def _trained(self, function: Function | None) -> set[str]:
        """Names whose parameters are asked for, as an optimizer's are."""
        body = self.source.tree if function is None else function
        around = self.source.functions_around(function)
        other = set().union(*(self.others.get(id(f), set()) for f in around), set())
        return {
            ast.unparse(n.value)
            for n in ast.walk(body)
            if isinstance(n, ast.Attribute)
            and n.attr in {"parameters", "named_parameters"}
            and isinstance(n.value, ast.Name | ast.Attribute)
        } - other

    def _called(self, function: Function | None) -> set[str]:
        """Parameters of a function that its body calls, or whose methods it calls."""
        if function is None:
            return set()
        given = {p.arg for p in (*function.args.posonlyargs, *function.args.args)}
        callees = (n.func for n in ast.walk(function) if isinstance(n, ast.Call) and n.args)
        roots = {c.value if isinstance(c, ast.Attribute) else c for c in callees}
        return {r.id for r in roots if isinstance(r, ast.Name)} & (given - {"self"})

    def _makers(self) -> set[str]:
        """Functions of the file that return a new instance."""
        return {
            p.stmt.name
            for p in self.source.places
            if isinstance(p.stmt, ast.FunctionDef)
            and not p.in_class
            and any(
                isinstance(n, ast.Return)
                and isinstance(value := n.value and stripped(n.value), ast.expr)
                and self._is_made(value, p.stmt)
                for n in ast.walk(p.stmt)
            )
        }

    def _is_made(self, value: ast.expr, function: ast.FunctionDef) -> bool:
        if isinstance(value, ast.Call):
            return called_name(value) in self.kinds
        return isinstance(value, ast.Name) and value.id in self.held.get(id(function), ())

    def _read(self, place: Place) -> None:
        function, owner = place.function, class_around(place)
        match place.stmt:
            case ast.Assign(targets=targets, value=value):
                for target in targets:
                    self._bind(target, value, function, owner)
            case ast.AnnAssign(target=target, value=ast.expr() as value):
                self._bind(target, value, function, owner)
            case ast.With(items=items):
                for item in items:
                    if item.optional_vars is not None:
                        self._bind(item.optional_vars, item.context_expr, function, owner)
        for node in own_expressions(place.stmt):
            if isinstance(node, ast.Call):
                self._hand_on(node, function, owner)

    def _bind(
        self, target: ast.expr, value: ast.expr, function: Function | None, owner: Owner
    ) -> None:
        if isinstance(target, ast.Tuple):
            parts: Collection[ast.expr] = ()
            if isinstance(value, ast.Tuple):
                parts = value.elts
            elif isinstance(value, ast.Call) and called_name(value) in _WRAPPERS:
                parts = value.args  # `model, optimizer = accelerator.prepare(model, optimizer)`
            for one, part in zip(target.elts, parts, strict=False):
                self._bind(one, part, function, owner)
            return
        name = ast.unparse(target)
        home: object = function
        if name.startswith("self.") and owner is not None:
            home = owner
        if self.holds(value, function, owner):
            self.held.setdefault(id(home), set()).add(name)
        elif isinstance(made := stripped(value), ast.Call) and called_name(made) in self._classes():
            self.others.setdefault(id(home), set()).add(name)

    def _classes(self) -> set[str]:
        return {p.stmt.name for p in self.source.places if isinstance(p.stmt, ast.ClassDef)}

    def _hand_on(self, call: ast.Call, function: Function | None, owner: Owner) -> None:
        """The parameter that a model is given to holds it."""
        given = [(i, a) for i, a in enumerate(call.args) if self.holds(a, function, owner)]
        named = [k.arg for k in call.keywords if k.arg and self.holds(k.value, function, owner)]
        if not given and not named:
            return
        for callee, shift in callees(self.source, called_name(call)):
            parameters = [p.arg for p in (*callee.args.posonlyargs, *callee.args.args)]
            names = {parameters[i + shift] for i, _ in given if i + shift < len(parameters)}
            names |= {n for n in named if n in parameters}
            self.held.setdefault(id(callee), set()).update(names)


def read_in_rounds(
    source: Source, read: Callable[[Place], None], held: Mapping[int, Sized]
) -> None:
    """Read a file's statements until no more is held: a name may be told below its use."""
    for _ in range(_ROUNDS):
        before = sum(map(len, held.values()))
        for place in source.places:
            read(place)
        if sum(map(len, held.values())) == before:
            break


def class_around(place: Place) -> Owner:
    """The innermost class around a place."""
    return next((o for o in reversed(place.owners) if isinstance(o, ast.ClassDef)), None)


def callees(source: Source, name: str) -> Iterator[tuple[Function, int]]:
    """Functions and methods of the file that a call of `name` may run, and 1 for a `self` first.

    Of a class its `__init__`.
    """
    for place in source.places:
        stmt = place.stmt
        if isinstance(stmt, ast.FunctionDef | ast.AsyncFunctionDef) and stmt.name == name:
            method = bool(place.owners) and isinstance(place.owners[-1], ast.ClassDef)
            fixed = any(ast.unparse(d) == "staticmethod" for d in stmt.decorator_list)
            yield stmt, int(method and not fixed)
        elif isinstance(stmt, ast.ClassDef) and stmt.name == name:
            for inner in stmt.body:
                if isinstance(inner, ast.FunctionDef) and inner.name == "__init__":
                    yield inner, 1
