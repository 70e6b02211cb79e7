"""The loss called as the file's own code calls it: `loss = loss_function(recon, x, mu, logvar)`."""

from __future__ import annotations

import ast
import copy
import inspect
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor, nn

from ..code.cuda import mark_moved, moves_ignored
from ..code.roles import role
from ..code.scope import Scope
from ..code.source import Place, Source
from ..code.syntax import called_name, names_read, own_expressions, root_name
from ..script.construction import user_names
from ..script.rewriting import OnOneDevice
from ..subject import Batch
from ..trials.switches import generators_restored, seed_everything
from ..trials.trial import forward_parameters
from .recipes import Arguments, Binding, Recipe


def by_own_call(
    source: Source,
    name: str,
    parameters: list[inspect.Parameter],
    binding: Binding,
    namespace: Mapping[str, Any],
    *,
    is_method: bool,
) -> Recipe | None:
    """Call the loss as the file's own code does after `recon, mu, logvar = model(x)`."""
    if name not in source.called:
        return None
    models = user_names(source, type(binding.model).__name__)
    for place in source.places:
        for node in own_expressions(place.stmt):
            if not isinstance(node, ast.Call) or called_name(node) != name:
                continue
            if place.function is not None and place.function.name == name:
                continue
            forward = _forward_before(place, node, models)
            if forward is not None:
                negated = any(
                    isinstance(n, ast.UnaryOp) and isinstance(n.op, ast.USub) and n.operand is node
                    for n in own_expressions(place.stmt)
                )
                call = _OwnCall(source, node, forward, models, place, namespace)
                data = call.data(binding.model)
                call = replace(call, held=data)
                return Recipe(
                    call.arguments,
                    own_call=True,
                    negated=negated,
                    unweighed=call.unweighed(),
                    beside=bool(data),
                )
    return None


def own_use(sources: Iterable[Source], name: str) -> tuple[bool, bool]:
    """Whether a file's own code calls a loss, and whether it minimises the negative of it."""
    used = False
    for source in sources:
        for node in ast.walk(source.tree) if name in source.called else ():
            match node:
                case ast.UnaryOp(op=ast.USub(), operand=ast.Call() as call):
                    if called_name(call) == name:
                        return True, True
                case ast.Call() if called_name(node) == name:
                    used = True
    return used, False


def minimized_place(source: Source, count: int) -> tuple[str, int] | None:
    """Which of `count` outputs a file's own code calls `backward()` on: its name and place.

    As in `x_hat, loss = model(x)` and `loss.backward()`.
    """
    minimized, unpacked = set(), []
    for node in ast.walk(source.tree):
        match node:
            case ast.Call(func=ast.Attribute(value=ast.Name(id=name), attr="backward")):
                minimized.add(name)
            case ast.Assign(targets=[ast.Tuple(elts=parts)], value=ast.Call()):
                unpacked.append([p.id if isinstance(p, ast.Name) else "" for p in parts])
    for names in unpacked:
        for place, name in enumerate(names):
            if len(names) == count and name in minimized:
                return name, place
    return None


@dataclass(frozen=True, slots=True)
class _Forward:
    """The user's own call of the model, and the target its output is assigned to."""

    call: ast.Call
    target: ast.expr | None
    between: tuple[ast.Assign, ...] = ()


@dataclass(frozen=True, slots=True)
class _OwnCall:
    """The user's own call of the loss, to be evaluated on our batch and output.

    `held` are the tensors that the file itself makes beside the batch: `model(x)`, `loss(y, adj)`.
    """

    source: Source
    node: ast.Call
    forward: _Forward
    models: set[str]
    place: Place
    namespace: Mapping[str, Any]
    held: Mapping[str, Tensor] = field(default_factory=dict)

    def data(self, model: nn.Module) -> dict[str, Tensor]:
        """The tensors made above the call that it reads, on the model's device as in the script."""
        entry, target = self.forward.call, self.forward.target
        ours = {root_name(a) for a in (*entry.args, *(k.value for k in entry.keywords))}
        made = [target, *(t for s in self.forward.between for t in s.targets)]
        ours |= {
            n.id for t in made if t is not None for n in ast.walk(t) if isinstance(n, ast.Name)
        }
        read = [self.node, *(s.value for s in self.forward.between)]
        names = {n for r in read for n in names_read(r)} - ours - self.models
        scope = Scope(self.source, self.namespace, self.place.function, self.node.lineno)
        with generators_restored(), moves_ignored():
            seed_everything(0)
            found = {n: scope[n] for n in sorted(names) if n in scope}
        own = {id(t) for t in (*model.parameters(), *model.buffers())}
        tensors = {n: v for n, v in found.items() if isinstance(v, Tensor) and id(v) not in own}
        for tensor in tensors.values():
            mark_moved(tensor)
        return tensors

    def unweighed(self) -> str | None:
        """The weight among the arguments that only the running script knows."""
        scope = Scope(self.source, self.namespace, self.place.function, self.node.lineno)
        given: list[tuple[str | None, ast.expr]] = [(None, a) for a in self.node.args]
        given += [(k.arg, k.value) for k in self.node.keywords]
        for name, expr in given:
            told = all(n in scope or n in self.namespace for n in names_read(expr))
            named = name or (expr.id if isinstance(expr, ast.Name) else "")
            if not told and role(named) == "weight":
                return named
        return None

    def arguments(self, model: nn.Module, batch: Batch, output: Any) -> Arguments:
        """The arguments, each the user's own expression."""
        scope = Scope(self.source, self.namespace, self.place.function, self.node.lineno)
        scope.known.update(self.held)
        parts = forward_parameters(model)
        by_name = {p.name: v for p, v in zip(parts, batch.args, strict=False)} | dict(batch.kwargs)
        for index, arg in enumerate(self.forward.call.args):
            if index < len(batch.args) and root_name(arg):
                scope.known[root_name(arg)] = batch.args[index]
        for keyword in self.forward.call.keywords:
            if keyword.arg in by_name and root_name(keyword.value):
                scope.known[root_name(keyword.value)] = by_name[keyword.arg]
        for name in self.models:
            scope.known[name] = model
        scope.known[_OUTPUT] = output
        if self.forward.target is not None:
            _destructure(self.forward.target, output, scope.known)
        for stmt in self.forward.between:
            self._follow(stmt, scope)
        args: list[Any] = []
        for arg in self.node.args:
            if isinstance(arg, ast.Starred):
                args += list(self._value(arg.value, scope))
            else:
                args.append(self._value(arg, scope))
        kwargs = {
            k.arg: self._or_weight(k.arg, k.value, scope) for k in self.node.keywords if k.arg
        }
        for keyword in self.node.keywords:
            if keyword.arg is None:
                kwargs |= self._value(keyword.value, scope)
        return args, kwargs

    def _follow(self, stmt: ast.Assign, scope: Scope) -> None:
        try:
            _destructure(stmt.targets[0], self._value(stmt.value, scope), scope.known)
        except Exception:
            return

    def _or_weight(self, name: str, expr: ast.expr, scope: Scope) -> Any:
        """A weight that only the training script knows counts as 1."""
        try:
            return self._value(expr, scope)
        except NameError:
            if role(name) == "weight":
                return 1.0
            raise

    def _value(self, expr: ast.expr, scope: Scope) -> Any:
        own = ast.Expression(copy.deepcopy(expr))  # in its own line, where an exception is told
        swapped = _WithoutForward(self.forward.call).visit(own)
        code = compile(ast.fix_missing_locations(swapped), str(self.source.path), "eval")
        try:
            return eval(code, dict(self.namespace), scope)
        except NameError:
            if isinstance(expr, ast.Name) and role(expr.id) == "weight":
                return 1.0
            if isinstance(expr, ast.Name) and role(expr.id) == "step":
                return 0
            raise


_OUTPUT = "__output__"


class _WithoutForward(OnOneDevice):
    """Puts the output we already have in the place of `model(x)`, and moves nothing."""

    def __init__(self, call: ast.Call) -> None:
        self.text = ast.unparse(call)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        if ast.unparse(node) == self.text:
            return ast.copy_location(ast.Name(_OUTPUT, ast.Load()), node)
        return super().visit_Call(node)


def _forward_before(place: Place, loss: ast.Call, models: set[str]) -> _Forward | None:
    """The last call of the model above the loss in the same function, or inside its arguments."""
    for node in ast.walk(loss):
        if node is not loss and isinstance(node, ast.Call) and _calls_model(node, models):
            return _Forward(node, None)
    found: _Forward | None = None
    between: list[ast.Assign] = []
    body: Iterable[ast.stmt] = place.function.body if place.function else place.block
    for stmt in _in_order(body):
        if stmt.lineno >= place.stmt.lineno:
            break
        if not isinstance(stmt, ast.Assign) or len(stmt.targets) != 1:
            continue
        if isinstance(stmt.value, ast.Call) and _calls_model(stmt.value, models):
            found, between = _Forward(stmt.value, stmt.targets[0]), []
        elif found is not None:
            between.append(stmt)
    return None if found is None else _Forward(found.call, found.target, tuple(between))


def _in_order(body: Iterable[ast.stmt]) -> Iterable[ast.stmt]:
    for stmt in body:
        if isinstance(stmt, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        yield stmt
        for part in ("body", "orelse", "finalbody"):
            yield from _in_order(getattr(stmt, part, ()) or ())


def _calls_model(call: ast.Call, models: set[str]) -> bool:
    if isinstance(call.func, ast.Name):
        return call.func.id in models
    return (
        isinstance(call.func, ast.Attribute)
        and (call.func.attr in {"forward", *models} or ast.unparse(call.func) in models)
        and root_name(call.func) in models
    )


def _destructure(target: ast.expr, value: Any, into: dict[str, Any]) -> None:
    if isinstance(target, ast.Name):
        into[target.id] = value
    elif isinstance(target, ast.Tuple | ast.List):
        parts = list(value)
        for element, part in zip(target.elts, parts, strict=False):
            if isinstance(element, ast.Starred):
                return
            _destructure(element, part, into)
