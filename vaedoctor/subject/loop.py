"""The loss as the file's training loop computes it: the lines between `model(x)` and `backward()`.

Of the statements above `loss.backward()` those that the loss needs are run as they stand, on our
batch and with their own line numbers. Nothing else of the loop runs: no optimizer, no data, no log.
"""

from __future__ import annotations

import ast
import builtins
import copy
import types
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..finding import Span
from .binding import role
from .construction import user_names
from .scope import Scope, Unknown
from .source import Function, Source, blocks, root_name
from .subject import Batch
from .trial import home

_RESULT = "__vaedoctor_loss__"
_ARGUMENT = "__vaedoctor_argument_"
_MODELS = {"model", "vae", "net", "network", "autoencoder", "module", "ae"}
_NEVER = {"backward", "step", "save", "open", "zero_grad", "add_scalar", "savefig", "save_image"}


@dataclass(frozen=True, slots=True)
class Loop:
    """One place where the file goes backward from a loss, and the statements the loss needs.

    `targets` are the names of the loop's own variables, `models` those that hold the model, `used`
    what the statements use of the file: all of it that a run can change.
    """

    source: Source
    namespace: Mapping[str, Any]
    statements: tuple[ast.stmt, ...]
    loss: ast.expr
    function: Function | None
    targets: tuple[tuple[str, ...], ...]
    models: frozenset[str]
    entry: ast.Call
    line: int
    owner: ast.ClassDef | None = None
    used: tuple[Any, ...] = ()

    @property
    def name(self) -> str:
        """The loss as the user writes it."""
        return ast.unparse(self.loss)

    @property
    def at(self) -> Span:
        """Where the file goes backward from it."""
        return self.source.span(self.loss)

    def run(self, model: nn.Module, batch: Batch) -> Any:
        """Run the statements on a batch; raises what they raise, `NameError` for what is unknown.

        One forward pass, as the loop's own line makes it.
        """
        result = ast.Assign([ast.Name(_RESULT, ast.Store())], self.loss)
        body = [*self.statements, ast.copy_location(result, self.loss)]
        tree = ast.Module([copy.deepcopy(s) for s in body], [])
        made = {p: v for p, a, v in self._given(batch) if self._is_made(a)}
        tree = _OnBatch(self.entry, made).visit(_OnOneDevice(self.models).visit(tree))
        tree = ast.fix_missing_locations(tree)
        space = {**self.namespace, **self._known(model, batch, tree.body)}
        space |= {_argument(place): value for place, value in made.items()}
        exec(compile(tree, str(self.source.path), "exec"), space)
        return space[_RESULT]

    def _known(self, model: nn.Module, batch: Batch, statements: list[ast.stmt]) -> dict[str, Any]:
        """What the names mean that the statements read and do not make."""
        known: dict[str, Any] = dict.fromkeys(self.models, model)
        known["__model__"] = model
        known |= self._entry_values(batch)
        scope = Scope(self.source, self.namespace, self.function, self.line)
        scope.known.update(known)
        for name in sorted(_free(statements)):
            if name in known or name in self.namespace or hasattr(builtins, name):
                continue
            if name.startswith(_ARGUMENT):
                continue
            known[name] = self._value(name, scope, model, batch, known)
        return known

    def _given(self, batch: Batch) -> Iterator[tuple[int | str, ast.expr, Any]]:
        """What the loop hands to the model, by place or keyword, and the batch's item for it."""
        args = [(i, a) for i, a in enumerate(self.entry.args) if root_name(a) not in self.models]
        for (place, arg), value in zip(args, batch.args, strict=False):
            yield place, arg, value
        for keyword in self.entry.keywords:
            if (name := keyword.arg or "") in batch.kwargs:
                yield name, keyword.value, batch.kwargs[name]

    def _is_made(self, arg: ast.expr) -> bool:
        """Whether an argument is made on the spot, as `torch.rand(8, 784)` is."""
        name = root_name(arg)
        return not name or name in self.namespace or hasattr(builtins, name)

    def _entry_values(self, batch: Batch) -> dict[str, Any]:
        """The batch under the names by which the loop hands it to the model."""
        return {root_name(a): value for _, a, value in self._given(batch) if not self._is_made(a)}

    def _value(
        self, name: str, scope: Scope, model: nn.Module, batch: Batch, known: Mapping[str, Any]
    ) -> Any:
        if name in scope:
            return scope[name]
        if name.startswith("self."):
            return self._attribute(name.removeprefix("self."))
        if name == "device":
            return home(model)[1]
        if role(name) == "step":
            return 0
        if role(name) == "weight":
            return 1.0
        beside = next((t for t in self.targets if name in t), ())
        x = next((a for a in batch.args if isinstance(a, Tensor)), None)
        if beside and x is not None:
            given = [n for n in beside if n in known]
            if given:  # `for x, y in loader`: a label that the model is not given
                return torch.zeros(x.shape[:1], dtype=torch.long, device=x.device)
            return x  # `for data in loader: x = data.view(...)`
        raise NameError(f"name '{name}' is not defined", name=name)

    def _attribute(self, name: str) -> Any:
        """What the class around the loop gives its attribute in `__init__`."""
        members = self.owner.body if self.owner is not None else []
        for init in members:
            if not isinstance(init, ast.FunctionDef) or init.name != "__init__":
                continue
            for statement in init.body:
                match statement:
                    case ast.Assign([ast.Attribute(ast.Name("self"), attr)], value) if attr == name:
                        scope = Scope(self.source, self.namespace, init, statement.lineno)
                        try:
                            return scope.value(value)
                        except Unknown:
                            break
        if role(name) == "weight":
            return 1.0
        raise NameError(f"`self.{name}` is not known", name=f"self.{name}")


def loops(source: Source, namespace: Mapping[str, Any], model: nn.Module) -> Iterator[Loop]:
    """Every place of the file that goes backward from a loss that a call of the model gives."""
    names = user_names(source, type(model).__name__) | _MODELS
    for chain, function, owner in _backwards(source.tree.body, (), None, None):
        statement = chain[-1][0][chain[-1][1]]
        loss = _backward_of(statement)
        if loss is None or not _whole(*chain[-1]):
            continue
        kinds = {k.__name__ for k in type(model).__mro__}
        own = owner is not None and owner.name in kinds
        models = names if own else names - {"self"}
        found = _needed(chain, loss, models)
        if found is None:
            continue
        statements, entry, targets = found
        free = _free([*statements, ast.Expr(loss)])
        yield Loop(
            source,
            types.MappingProxyType(dict(namespace)),
            tuple(statements),
            loss,
            function,
            targets,
            frozenset(models),
            entry,
            statement.lineno,
            None if own else owner,
            tuple(namespace[n] for n in sorted(free) if n in namespace),
        )


Chain = tuple[tuple[list[ast.stmt], int], ...]


def _backwards(
    body: list[ast.stmt], chain: Chain, function: Function | None, owner: ast.ClassDef | None
) -> Iterator[tuple[Chain, Function | None, ast.ClassDef | None]]:
    """Every expression statement, with the blocks around it and how far each has come."""
    for i, statement in enumerate(body):
        here = (*chain, (body, i))
        if isinstance(statement, ast.Expr):
            yield here, function, owner
        inside, around, owned = here, function, owner
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
            inside, around = (), statement
        elif isinstance(statement, ast.ClassDef):
            inside, owned = (), statement
        for block in blocks(statement):
            yield from _backwards(block, inside, around, owned)


def _whole(body: list[ast.stmt], at: int) -> bool:
    """Whether the optimizer steps between this backward pass and the block's others.

    Where it does not, the gradients of several losses add up: one of them is a part.
    """
    others = False
    for i, statement in enumerate(body):
        match statement:
            case ast.Expr(ast.Call(ast.Attribute(attr="step" | "zero_grad"))):
                if i > at:
                    break
                others = False
            case _ if i != at and _backward_of(statement) is not None:
                others = True
    return not others


def _backward_of(statement: ast.stmt) -> ast.expr | None:
    """`loss` of `loss.backward()`, `scaler.scale(loss).backward()`, `fabric.backward(loss)`."""
    match statement:
        case ast.Expr(ast.Call(ast.Attribute(value, "backward" | "manual_backward"), args)):
            loss = args[0] if args else value
            match loss:
                case ast.Call(ast.Attribute(attr="scale"), [inner]):
                    return inner
            return loss
    return None


def _needed(
    chain: Chain, loss: ast.expr, models: set[str]
) -> tuple[list[ast.stmt], ast.Call, tuple[tuple[str, ...], ...]] | None:
    """The statements a loss needs, the first call of the model among them, and loop variables."""
    needed, chosen = _reads(loss), list[ast.stmt]()
    targets: list[tuple[str, ...]] = []
    for block, index in reversed(chain):
        for statement in reversed(_flat(block[:index])):
            made = _writes(statement)
            if made & (needed - models) and not _calls_any(statement, _NEVER):
                chosen.insert(0, statement)
                needed |= _reads(statement)
        around = block[index]
        if isinstance(around, ast.For):
            targets.append(tuple(_names(around.target)))
        if any(_entry(s, models) for s in chosen):
            break
    # Loop variables further out: `for epoch in ...: for i, (x, y) in enumerate(loader):`.
    outer = (block[i] for block, i in chain)
    targets += [tuple(_names(s.target)) for s in outer if isinstance(s, ast.For)]
    entry = next((c for s in [*chosen, ast.Expr(loss)] if (c := _entry(s, models))), None)
    if entry is None:
        return None
    given = {root_name(a) for a in [*entry.args, *(k.value for k in entry.keywords)]}
    first = next((i for i, s in enumerate(chosen) if _entry(s, models)), len(chosen))
    # What prepares the input above is done: the batch is what the model takes.
    before = [s for s in chosen[:first] if not _writes(s) <= given]
    return before + chosen[first:], entry, tuple(targets)


def _flat(body: Sequence[ast.stmt]) -> list[ast.stmt]:
    """Statements with the bodies of `with` in line: `with autocast():` changes no value."""
    found: list[ast.stmt] = []
    for statement in body:
        if isinstance(statement, ast.With) and not any(i.optional_vars for i in statement.items):
            found += _flat(statement.body)
        else:
            found.append(statement)
    return found


def _entry(statement: ast.stmt, models: set[str]) -> ast.Call | None:
    """The first call of the model, or of a method or part of it, in a statement."""
    calls = [n for n in ast.walk(statement) if isinstance(n, ast.Call) and _calls(n, models)]
    return min(calls, key=lambda c: (c.end_lineno or 0, c.end_col_offset or 0), default=None)


def _calls(call: ast.Call, models: set[str]) -> bool:
    func = call.func
    if isinstance(func, ast.Name):
        takes = any(isinstance(a, ast.Name) and a.id in models for a in call.args)
        return func.id in models or (takes and not hasattr(builtins, func.id))
    if not isinstance(func, ast.Attribute) or not (call.args or call.keywords):
        return False
    held = ast.unparse(func.value).removeprefix("self.")
    return held.partition(".")[0] in models or (func.attr in _MODELS and _is_self(func.value))


def _is_self(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id == "self"


def _reads(node: ast.AST) -> set[str]:
    return {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}


def _writes(statement: ast.stmt) -> set[str]:
    found = {
        n.id
        for n in ast.walk(statement)
        if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)
    }
    return found if not isinstance(statement, ast.FunctionDef | ast.ClassDef) else set()


def _names(target: ast.expr) -> Iterator[str]:
    yield from (n.id for n in ast.walk(target) if isinstance(n, ast.Name))


def _calls_any(statement: ast.stmt, names: set[str]) -> bool:
    called = (n.func for n in ast.walk(statement) if isinstance(n, ast.Call))
    return any(
        (f.attr if isinstance(f, ast.Attribute) else getattr(f, "id", "")) in names for f in called
    )


def _free(statements: Sequence[ast.stmt]) -> set[str]:
    """Names that are read before the statements bind them."""
    bound, free = set[str](), set[str]()
    for statement in statements:
        inner = {
            n.id
            for c in ast.walk(statement)
            if isinstance(c, ast.comprehension)
            for n in ast.walk(c.target)
            if isinstance(n, ast.Name)
        }
        updated = statement.target if isinstance(statement, ast.AugAssign) else None
        read = _reads(statement) | (set(_names(updated)) if updated is not None else set())
        loops_over = set(_names(statement.target)) if isinstance(statement, ast.For) else set()
        free |= read - bound - inner - loops_over
        bound |= _writes(statement)
    return free


def _argument(place: int | str) -> str:
    return f"{_ARGUMENT}{place}__"


class _OnBatch(ast.NodeTransformer):
    """Puts our batch in the place of what the loop makes for the model on the spot."""

    def __init__(self, entry: ast.Call, places: Collection[int | str]) -> None:
        self.at = (entry.lineno, entry.col_offset, entry.end_lineno, entry.end_col_offset)
        self.places = places

    def visit_Call(self, node: ast.Call) -> ast.AST:
        at = (node.lineno, node.col_offset, node.end_lineno, node.end_col_offset)
        if at != self.at:
            return self.generic_visit(node)
        for place in self.places:
            ours = ast.Name(_argument(place), ast.Load())
            if isinstance(place, int):
                node.args[place] = ours
            else:
                next(k for k in node.keywords if k.arg == place).value = ours
        return node


class _OnOneDevice(ast.NodeTransformer):
    """Leaves out moves to a device; `self.model` of a trainer class is the model.

    Its other attributes become variables of that name, which only compiled code can have.
    """

    def __init__(self, models: frozenset[str]) -> None:
        self.models = models

    def visit_Call(self, node: ast.Call) -> ast.AST:
        if isinstance(node.func, ast.Attribute) and node.func.attr in {"cuda", "cpu", "to"}:
            asked = ast.unparse(node)
            if node.func.attr != "to" or "device" in asked or "cuda" in asked:
                inner: ast.AST = self.visit(node.func.value)
                return inner
        return self.generic_visit(node)

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        if _is_self(node.value) and "self" not in self.models:
            name = "__model__" if node.attr in _MODELS else f"self.{node.attr}"
            return ast.copy_location(ast.Name(name, node.ctx), node)
        return self.generic_visit(node)
