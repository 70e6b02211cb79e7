"""What the names around a training loop mean: evaluated once, before anything is examined."""

from __future__ import annotations

import ast
import builtins
import types
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from ..code import cuda
from ..code.callees import tree_of
from ..code.late import Late, growing
from ..code.openscope import OpenScope
from ..code.roles import role
from ..code.scope import Missing, Scope, Unknown
from ..code.source import Source
from ..code.syntax import Function, globals_read, names_read
from ..trials.reachable import reachable
from ..trials.switches import generators_restored, seed_everything
from ..trials.trial import home
from .datascope import DataScope, Loader, is_tensor_or_holds_one
from .handing import handed_by_calls, is_parameter, is_rebound
from .holders import Holders, class_around
from .standin import (
    Quiet,
    assignments,
    counted_by,
    late_in_training,
    only_told,
    read_of_self,
    stand_in,
)

_DEEPEST = 4


@dataclass(frozen=True, slots=True)
class Setting:
    """The surroundings of a loop: its function and class, the names that hold the model there.

    `owner` is the class around where that is not the model's own.
    """

    source: Source
    namespace: Mapping[str, Any]
    function: Function | None
    owner: ast.ClassDef | None
    line: int
    models: frozenset[str]
    holders: Holders

    def counts(self, name: str) -> bool:
        """Whether a name is a counter of the loop's steps: `it += 1`."""
        return _counts(self.function, self.source, name)

    def space(self, model: nn.Module, names: Iterable[str], seed: int = 0) -> dict[str, Any]:
        """The file's names as the loop sees them, those in `names` among them where known.

        Functions of the file that read what was never executed, or the model itself, are the same
        code with these names. What is made here was on the model's device in the user's script.
        """
        with generators_restored(), cuda.moves_ignored():
            seed_everything(seed)
            space = _Making(self, model).of(set(names))
        own = {id(thing) for thing in (*model.parameters(), *model.buffers(), *reachable([model]))}
        made = [v for k, v in space.items() if self.namespace.get(k, _NOTHING) is not v]
        for thing in reachable(made):
            if isinstance(thing, Tensor) and id(thing) not in own:
                cuda.mark_moved(thing)
        return space

    @contextmanager
    def prepared(
        self, model: nn.Module, owner: ast.ClassDef | None, statements: list[ast.AST]
    ) -> Iterator[None]:
        """Lend the model what another method of its class sets before: `self.criterion`."""
        lacking = {a for a in read_of_self(statements) if not hasattr(model, a)}
        given = assignments(owner) if owner is not None and lacking else {}
        lent: dict[str, Any] = {}
        with generators_restored(), cuda.moves_ignored():
            for attr in sorted(lacking & set(given)):
                making = _Making(self, model)
                for value, method in given[attr]:
                    with suppress(Unknown):
                        lent[attr] = making.scope(method, value.lineno, 1).value(value)
                        break
        for attr, value in lent.items():
            object.__setattr__(model, attr, value)
        try:
            yield
        finally:
            for attr in lent:
                with suppress(AttributeError):
                    object.__delattr__(model, attr)


class _Making:
    def __init__(self, setting: Setting, model: nn.Module) -> None:
        self.setting = setting
        self.model = model
        self.aside = set(_about(setting.source, setting.models)) - _defined(setting.source)
        counted = {k for k, v in setting.namespace.items() if isinstance(v, int)}
        self.aside |= {k for k in counted if setting.counts(k)}
        self.aside |= {n for n in growing(setting.source.tree) if role(n) == "weight"}
        self.space = {k: v for k, v in setting.namespace.items() if k not in self.aside}
        self.space |= {n: model for n in setting.models if n.isidentifier() and n != "self"}
        if "self" in setting.models:
            self.space["self"] = model

    def of(self, names: set[str]) -> dict[str, Any]:
        """Resolve names, and what the functions behind them read."""
        if self.setting.owner is not None and any(self._asks_self(n) for n in names):
            names = names | {"self"}
            with suppress(Unknown):
                self.space["self"] = self._resolved("self")
        waiting, seen, functions = set(names), set[str](), dict[str, set[str]]()
        while waiting:
            name = waiting.pop()
            if name in seen:
                continue
            seen.add(name)
            held = self.space.get(name, _NOTHING)
            if held is _NOTHING or isinstance(held, Missing):
                with suppress(Unknown):
                    self.space[name] = self._resolved(name)
            if self._is_own(found := self.space.get(name)) and (tree := tree_of(found)) is not None:
                functions[name] = globals_read(tree)
                waiting |= functions[name]
        for name in names & set(self.space) - {"self"}:
            self.space[name] = late_in_training(self.space[name], self.setting.source)
        self._rebind(functions)
        return self.space

    def _asks_self(self, name: str) -> bool:
        """Whether a name of a trainer's method is made from its `self`."""
        body = self.setting.function.body if self.setting.function is not None else []
        assigned = (s for s in body if isinstance(s, ast.Assign))
        return any(
            "self" in names_read(s.value)
            and name in {n.id for t in s.targets for n in ast.walk(t) if isinstance(n, ast.Name)}
            for s in assigned
        )

    def _is_own(self, thing: Any) -> bool:
        own = isinstance(thing, types.FunctionType) and not thing.__closure__
        return own and thing.__globals__.get("__name__") == self.setting.namespace.get("__name__")

    def _rebind(self, functions: Mapping[str, set[str]]) -> None:
        """Give functions the names they lack in the module as it was loaded."""
        namespace = self.setting.namespace
        lacking = {n for n, v in self.space.items() if namespace.get(n, _NOTHING) is not v}
        changed = {n for n, reads in functions.items() if reads & lacking}
        while more := {n for n, r in functions.items() if n not in changed and r & changed}:
            changed |= more
        for name in changed:
            old = self.space[name]
            new = types.FunctionType(old.__code__, self.space, name, old.__defaults__)
            new.__kwdefaults__ = old.__kwdefaults__
            self.space[name] = new

    def _resolved(self, name: str) -> Any:
        setting = self.setting
        if name == "self" and setting.owner is not None:
            return self._stand_in(setting.owner)
        if name == "device":
            return home(self.model)[1]
        return self._name(name, setting.function, setting.line, 0)

    def _name(self, name: str, function: Function | None, line: int, depth: int) -> Any:
        """A name at a place: a function written there, an argument of a caller, an assignment."""
        if hasattr(builtins, name) or depth > _DEEPEST:
            raise Unknown(name)
        for around in self._inside_out(function):
            if (local := _written_in(around, name)) is not None:
                return self._executed(local, around)
        scope = self.scope(function, line, depth)
        handed = is_parameter(function, name) and not is_rebound(function, name, line)
        if handed:
            with suppress(Unknown):
                return self._handed(name, function, depth)
        if _counts(function, self.setting.source, name):
            raise Unknown(name)
        if name in scope:
            return scope[name]
        with suppress(Unknown):
            return self._last_of_loop(name, function, scope)
        return self._of_data(name, function, line)

    def _of_data(self, name: str, function: Function | None, line: int) -> Any:
        """A loader, or what is counted from one: `betas = ramp(epochs * len(loader))`."""
        scope = DataScope(self.setting.source, self.setting.namespace, function, line)
        scope.trail.holders = self.setting.holders
        found = scope.value(ast.Name(name, ast.Load()))
        if isinstance(found, Loader) or not is_tensor_or_holds_one(found):
            return found
        raise Unknown(name)

    def scope(self, function: Function | None, line: int, depth: int) -> Scope:
        """The names at a line of a function, arguments as the file's own calls give them."""
        setting = self.setting
        scope = OpenScope(setting.source, self.space, function, line)
        place = next((p for p in setting.source.places if p.stmt is function), None)
        owner = class_around(place) if place is not None else None
        names = next(setting.holders.levels(function, owner), frozenset())
        same = function is setting.function
        for name in setting.models if same else names:
            if name.isidentifier() and name != "self":
                scope.known[name] = self.model
        if same and "self" in self.space:
            scope.known["self"] = self.space["self"]
        if function is not None and depth < _DEEPEST:
            body = {n.id for n in ast.walk(function) if isinstance(n, ast.Name)}
            for around in self._inside_out(function):
                for p in (*around.args.args, *around.args.kwonlyargs):
                    if p.arg in body and p.arg not in scope.known and p.arg != "self":
                        with suppress(Unknown):
                            scope.known[p.arg] = self._handed(p.arg, around, depth)
        return scope

    def _inside_out(self, function: Function | None) -> tuple[Function, ...]:
        """A function and those it is written in, the innermost first."""
        return self.setting.source.functions_around(function)

    def _handed(self, name: str, function: Function | None, depth: int) -> Any:
        """What the file's own call gives a parameter."""
        assert function is not None
        for expr, place in handed_by_calls(self.setting.source, function, name):
            around = class_around(place)
            owner = around if around is not self.setting.owner else None
            if self.setting.holders.holds(expr, place.function, around):
                return self.model
            with suppress(Unknown):
                if isinstance(expr, ast.Name):
                    if expr.id in self.space:
                        return self.space[expr.id]
                    return self._name(expr.id, place.function, place.stmt.lineno, depth + 1)
                if owner is not None or depth >= _DEEPEST:
                    continue
                scope = self.scope(place.function, place.stmt.lineno, depth + 1)
                return scope.value(expr)
        raise Unknown(name)

    def _last_of_loop(self, name: str, function: Function | None, scope: Scope) -> Any:
        """Of `for epoch in range(100)` the last: a weight that grows has grown by then."""
        body: ast.AST = function if function is not None else self.setting.source.tree
        for node in ast.walk(body):
            match node:
                case ast.For(target=ast.Name(id=found), iter=ast.Call(ast.Name("range")) as steps):
                    if found == name:
                        return scope.value(steps)[-1]
                case ast.For(
                    target=ast.Name(id=found),
                    iter=ast.Call(ast.Name("tqdm" | "trange"), [ast.Call() as steps, *_]),
                ):
                    if found == name:
                        return scope.value(steps)[-1]
        raise Unknown(name)

    def _executed(self, written: ast.stmt, function: Function | None) -> Any:
        """A function or class that stands inside the loop's function."""
        name = getattr(written, "name", "")
        space = dict(self.space)
        for read in globals_read(written) - {name}:
            if read not in space and not hasattr(builtins, read):
                with suppress(Unknown):
                    space[read] = self._name(read, function, written.lineno, 1)
        code = compile(ast.Module([written], []), str(self.setting.source.path), "exec")
        try:
            exec(code, space)
        except Exception as error:
            raise Unknown(name) from error
        return space[name]

    def _stand_in(self, owner: ast.ClassDef) -> Any:
        kind = self.space.get(owner.name)
        kinds = [k.__name__ for k in kind.__mro__] if isinstance(kind, type) else [owner.name]
        stmts = [p.stmt for p in self.setting.source.places]
        family = [s for k in kinds for s in stmts if isinstance(s, ast.ClassDef) and s.name == k]
        found: dict[str, Any] = {}
        for one in family:
            held = {n.removeprefix("self.") for n in self.setting.models if n.startswith("self.")}
            given = assignments(one)
            for attr in (*given, *read_of_self([one])):
                if attr in found or (kind is not None and hasattr(kind, attr)):
                    continue
                if attr in held:
                    found[attr] = self.model
                    continue
                if attr in counted_by(one):
                    found[attr] = Late()
                    continue
                for value, method in given.get(attr, ()):
                    with suppress(Unknown):
                        found[attr] = self.scope(method, value.lineno, 1).value(value)
                        break
                else:
                    if role(attr) == "weight":
                        found[attr] = 1.0
                    elif only_told(one, attr):
                        found[attr] = Quiet()
        return stand_in(kind if isinstance(kind, type) else None, found, owner.name)


_NOTHING = object()


def _about(source: Source, models: frozenset[str]) -> Iterator[str]:
    """Names of the top level that are made from the model: they hold the script's own instance."""
    found = {m for m in models if m.isidentifier() and m != "self"}
    for place in source.places:
        if place.owners:
            continue
        match place.stmt:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                reads = {n.id for n in ast.walk(value) if isinstance(n, ast.Name)}
                if reads & found and name not in found:
                    found.add(name)
                    yield name


def _defined(source: Source) -> set[str]:
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return {s.name for s in source.tree.body if isinstance(s, kinds)}


def _counts(function: Function | None, source: Source, name: str) -> bool:
    body: ast.AST = function if function is not None else source.tree
    for node in ast.walk(body):
        match node:
            case ast.AugAssign(ast.Name(id=found), ast.Add(), ast.Constant(1)) if found == name:
                return True
    return False


def _written_in(function: Function | None, name: str) -> ast.stmt | None:
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    inside = ast.walk(function) if function is not None else ()
    return next(
        (n for n in inside if isinstance(n, kinds) and n is not function and n.name == name), None
    )
