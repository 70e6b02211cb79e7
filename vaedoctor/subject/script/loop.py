"""The loss as the file's training loop computes it: the lines between `model(x)` and `backward()`.

Of the statements above `loss.backward()` those that the loss needs are run as they stand, on our
batch and with their own line numbers. Nothing else of the loop runs: no optimizer, no data, no log.
"""

from __future__ import annotations

import ast
import builtins
import copy
import types
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn

from ...finding import Span
from ..code.roles import role
from ..code.source import Source, called_name, root_name
from ..subject import Batch
from .holders import Holders, callees
from .setting import Setting
from .steps import Step, free, is_of_own, one_by_one, reads, steps, writes
from .unpacking import beside_data, packed

_RESULT = "__vaedoctor_loss__"
_ARGUMENT = "__vaedoctor_argument_"
_ROWS = "__vaedoctor_rows__"
_LATE = 1000


@dataclass(frozen=True, slots=True)
class Loop:
    """One step of the file that can be repeated on our batch.

    `made` holds, for the model it was made for, what the names around mean; `negated` says that
    the optimizer maximises; `late` is the value of a counter of steps that the file does not tell.
    """

    source: Source
    step: Step
    setting: Setting
    made: tuple[nn.Module, Mapping[str, Any]]
    used: tuple[Any, ...] = field(default=(), repr=False)
    negated: bool = False
    late: int = _LATE

    @property
    def name(self) -> str:
        """The loss as the user writes it."""
        return ast.unparse(self.step.loss)

    @property
    def line(self) -> int:
        """The line that goes backward."""
        return self.step.line

    @property
    def at(self) -> Span:
        """Where the file goes backward from it."""
        return self.source.span(self.step.loss)

    @property
    def unweighed(self) -> str | None:
        """A weight that the loop reads and nothing tells: it is 1."""
        space = self.made[1]
        told = {n for t in self.step.targets for n in t} | set(space) | set(vars(builtins))
        read = sorted(_names(self.step) - told)
        return next((n for n in read if role(n) == "weight"), None)

    def invents(self, batch: Batch) -> bool:
        """Whether a label or another item of the loader, which nothing tells, takes part."""
        known = {*self._entry_values(batch), *self.made[1], *vars(builtins)}
        known |= {n for n, item in batch.around.items() if item.same}
        told = {"weight", "step"}
        return any(
            n not in known and role(n) not in told and not self.setting.counts(n)
            for n in _names(self.step)
        )

    @property
    def is_of_own(self) -> bool:
        """Whether what it calls is known to be the model that the file builds."""
        return is_of_own(self.step, self.setting.holders)

    @property
    def reads(self) -> set[str]:
        """The names that its statements read and do not give."""
        return _names(self.step)

    def callee(self) -> Callable[..., Any] | None:
        """The file's own function whose result is the loss as it is; None where there is more."""
        loss: ast.expr = self.step.loss
        for statement in reversed(self.step.statements):
            match loss, statement:
                case ast.Name(id=name), ast.Assign(targets=[target], value=value):
                    first = target.elts[0] if isinstance(target, ast.Tuple) else target
                    if isinstance(first, ast.Name) and first.id == name:
                        loss = value
                        break
                    if name in {n.id for n in ast.walk(target) if isinstance(n, ast.Name)}:
                        return None
        match loss:
            case ast.Call(func=ast.Name(id=name)):
                found = self.setting.namespace.get(name)
                return found if isinstance(found, types.FunctionType) else None
        return None

    def run(self, model: nn.Module, batch: Batch) -> Any:
        """Run the statements on a batch; raises what they raise, `NameError` for what is unknown.

        One forward pass, as the loop's own line makes it.
        """
        made = {p: v for p, a, v in self._given(batch) if self._is_made(a)}
        parts = {
            ast.unparse(a): p for p, a, _ in self._given(batch) if isinstance(a, ast.Subscript)
        }
        return self._carried_out(model, batch, made, parts, {})

    def run_on(
        self, model: nn.Module, made: Mapping[int | str, Any], known: Mapping[str, Any]
    ) -> Any:
        """Run the statements on what the loop's call is given by place, and on known names."""
        return self._carried_out(model, Batch(()), made, {}, known)

    def _carried_out(
        self,
        model: nn.Module,
        batch: Batch,
        made: Mapping[int | str, Any],
        parts: Mapping[str, int | str],
        known: Mapping[str, Any],
    ) -> Any:
        step = self.step
        result = ast.Assign([ast.Name(_RESULT, ast.Store())], step.loss)
        body = [*step.statements, ast.copy_location(result, step.loss)]
        tree = ast.Module([copy.deepcopy(s) for s in body], [])
        slices = {ast.unparse(a.slice) for a in self._parts(batch)}
        tree = _OnBatch(step.entry, made, parts, slices).visit(_OnOneDevice().visit(tree))
        tree = ast.fix_missing_locations(tree)
        space = {**self._space(model), **known, _ROWS: partial(_as_many, batch)}
        space |= self._known(model, batch, tree.body, space)
        space |= {_argument(place): value for place, value in made.items()}
        owner = step.owner if self.setting.owner is None else None
        with self.setting.prepared(model, owner, list(body)):
            exec(compile(tree, str(self.source.path), "exec"), space)
        return space[_RESULT]

    def _space(self, model: nn.Module) -> Mapping[str, Any]:
        if self.made[0] is model:
            return self.made[1]
        return self.setting.space(model, _names(self.step))

    def _known(
        self,
        model: nn.Module,
        batch: Batch,
        statements: list[ast.stmt],
        space: Mapping[str, Any],
    ) -> dict[str, Any]:
        """The batch, and what the statements read that nothing around tells."""
        known = self._entry_values(batch)
        for name in sorted(free(statements)):
            if name in known or name in space or hasattr(builtins, name):
                continue
            if not name.startswith(_ARGUMENT):
                known[name] = self._value(name, batch, known)
        return known

    def _given(self, batch: Batch) -> Iterator[tuple[int | str, ast.expr, Any]]:
        """What the loop hands to the model, by place or keyword, and the batch's item for it."""
        entry, names = self.step.entry, self.setting.models
        args = [(i, a) for i, a in enumerate(entry.args) if ast.unparse(a) not in names]
        args = [(i, a) for i, a in args if not isinstance(a, ast.Constant | ast.Starred)]
        for place, arg in args:
            x = next((a for a in batch.args if isinstance(a, Tensor)), None)
            if isinstance(arg, ast.Tuple) and x is not None and all(map(self._is_data, arg.elts)):
                label = torch.zeros(x.shape[:1], dtype=torch.long, device=x.device)
                parts = [*batch.args, *[label] * len(arg.elts)]
                yield place, arg, tuple(parts[: len(arg.elts)])  # `step((x, y), i)`
                return
        if not self.step.direct and (likely := [(i, a) for i, a in args if self._is_data(a)]):
            args = likely
        for (place, arg), value in zip(args, batch.args, strict=False):
            yield place, arg, self._packed(place, arg, value, batch)
        for keyword in entry.keywords:
            if (name := keyword.arg or "") in batch.kwargs:
                yield name, keyword.value, batch.kwargs[name]

    def _is_data(self, arg: ast.expr) -> bool:
        """Whether an argument comes from the loop's own variables, or is a tensor made there."""
        if isinstance(arg, ast.Call):
            return root_name(arg) in {"torch", *self._of_loop()} or not root_name(arg)
        return root_name(arg) in self._of_loop()

    def _of_loop(self) -> set[str]:
        """The loop's variables and what is computed from them, or drawn."""
        function = self.step.function
        found = {n for t in self.step.targets for n in t}
        tree: ast.AST = function if function is not None else self.source.tree
        for node in ast.walk(tree):
            match node:
                case ast.Assign(targets=[target], value=value):
                    reads = {n.id for n in ast.walk(value) if isinstance(n, ast.Name)}
                    calls = (n for n in ast.walk(value) if isinstance(n, ast.Call))
                    drawn = any(called_name(c).startswith("rand") for c in calls)
                    if reads & found or drawn:
                        found |= {n.id for n in ast.walk(target) if isinstance(n, ast.Name)}
        return found

    def _parts(self, batch: Batch) -> Iterator[ast.Subscript]:
        """The rows of more data that the loop hands to the model, there or in a line above."""
        given = [a for _, a, _ in self._given(batch)]
        names = {a.id for a in given if isinstance(a, ast.Name)}
        function = self.step.function
        for node in ast.walk(function if function is not None else self.source.tree):
            for statement in one_by_one(node) if isinstance(node, ast.Assign) else ():
                match statement:
                    case ast.Assign(targets=[ast.Name(id=name)], value=value) if name in names:
                        given += [n for n in ast.walk(value) if isinstance(n, ast.expr)]
        yield from filter(_is_part, given)

    def _packed(self, place: int, arg: ast.expr, value: Any, batch: Batch) -> Any:
        """The batch as a loader gives it, for a function that unpacks it itself."""
        if not isinstance(value, Tensor):
            return value
        for callee, shift in callees(self.source, called_name(self.step.entry)):
            names = [p.arg for p in (*callee.args.posonlyargs, *callee.args.args)]
            if place + shift < len(names):
                given = names[place + shift]
                indexed = not self.step.direct  # of a method of the model `x[0]` is a row
                return packed(self.source, callee, given, value, batch, indexed=indexed)
        return value

    def _is_made(self, arg: ast.expr) -> bool:
        """Whether an argument is made on the spot: `torch.rand(8, 784)`, `data[i : i + 32]`."""
        name = root_name(arg)
        return (
            isinstance(arg, ast.Subscript)
            or not name
            or name in self.setting.namespace
            or hasattr(builtins, name)
        )

    def _entry_values(self, batch: Batch) -> dict[str, Any]:
        """The batch under the names by which the loop hands it to the model."""
        given = {root_name(a): v for _, a, v in self._given(batch) if not self._is_made(a)}
        return {name: self._apart(name, value) for name, value in given.items()}

    def _apart(self, name: str, value: Any) -> Any:
        """What the loop gives where the step takes it apart under one name: `x, _ = x`."""
        if not isinstance(value, Tensor):
            return value
        label = torch.zeros(value.shape[:1], dtype=torch.long, device=value.device)
        for statement in self.step.statements:
            if name not in reads(statement) | writes(statement):
                continue
            match statement:
                case ast.Assign([ast.Tuple(elts=parts)], ast.Name(id=found)) if found == name:
                    names = [ast.unparse(p) for p in parts]
                    return tuple(value if n == name else label for n in names)
                case ast.Assign([ast.Name(id=target)], made) if target == name:
                    return _entry_of(made, name, value, label)
            return value
        return value

    def _value(self, name: str, batch: Batch, known: Mapping[str, Any]) -> Any:
        if role(name) == "weight":
            return 1.0
        if role(name) == "step" or self.setting.counts(name):
            return self._late(name)
        beside = next((t for t in self.step.targets if name in t), ())
        x = next((a for a in batch.args if isinstance(a, Tensor)), None)
        if name in batch.around and x is not None:
            return batch.around[name].beside(x)
        if beside and x is not None:
            if any(n in known for n in beside):  # `for x, y in loader`: a label not for the model
                return beside_data(name, x)
            return self._unpacked(name, x, known)
        raise NameError(f"name '{name}' is not defined", name=name)

    def _late(self, name: str) -> int:
        """A step late in training, within the list of weights that it picks from: `betas[it]`."""
        space = self.made[1]
        ends = [self.late]
        for node in (n for s in self.step.statements for n in ast.walk(s)):
            match node:
                case ast.Subscript(ast.Name(id=held), ast.Name(id=index)) if index == name:
                    if hasattr(space.get(held), "__len__"):
                        ends.append(len(space[held]) - 1)
        return max(min(ends), 0)

    def _unpacked(self, name: str, x: Tensor, known: Mapping[str, Any]) -> Any:
        """`batch` of a loop that takes it apart: `x, y = batch`, `x = batch["image"]`."""
        entries: dict[str, Any] = {}
        for node in (n for s in self.step.statements for n in ast.walk(s)):
            match node:
                case ast.Assign(targets=[ast.Tuple(elts=parts)], value=ast.Name(id=found)):
                    if found == name:
                        names = [p.id if isinstance(p, ast.Name) else "" for p in parts]
                        return tuple(known[n] if n in known else beside_data(n, x) for n in names)
                case ast.Subscript(ast.Name(id=found), ast.Constant(value=str() as key)):
                    if found == name:
                        entries[key] = beside_data(key, x)
        return entries or x


def _entry_of(made: ast.expr, name: str, value: Tensor, label: Tensor) -> Any:
    """What holds a value where an expression reads it from its own name: `x = x[0].to(device)`."""
    for node in ast.walk(made):
        match node:
            case ast.Subscript(ast.Name(id=found), ast.Constant(value=str() as key)):
                if found == name:
                    return {key: value}
            case ast.Subscript(ast.Name(id=found), ast.Constant(value=int() as index)):
                if found == name:
                    return [*[label] * index, value, label]
    return value


def loops(source: Source, namespace: Mapping[str, Any], model: nn.Module) -> Iterator[Loop]:
    """Every place of the file that goes backward from a loss that a call of the model gives."""
    kinds = frozenset(k.__name__ for k in type(model).__mro__ if k.__module__ != "builtins")
    kinds -= {"Module", "LightningModule", "ABC"}
    holders = Holders(source, kinds)
    frozen = types.MappingProxyType(dict(namespace))
    for step, names in steps(source, holders):
        own = step.owner is not None and step.owner.name in kinds
        owner = None if own else step.owner
        named = frozenset(n for n in names if _may_hold(n, namespace))
        setting = Setting(source, frozen, step.function, owner, step.line, named, holders)
        space = setting.space(model, _names(step))
        used = tuple(space[n] for n in sorted(_names(step)) if n in space)
        negated = _maximises(source)
        yield Loop(
            source, step, setting, (model, types.MappingProxyType(space)), used, negated=negated
        )


def _may_hold(name: str, namespace: Mapping[str, Any]) -> bool:
    """Whether a name can hold the model: an imported module or a function cannot."""
    held = namespace.get(name)
    return held is None or isinstance(held, nn.Module)


def _names(step: Step) -> set[str]:
    tree = [*step.statements, ast.Expr(step.loss)]
    return free(tree)


def _maximises(source: Source) -> bool:
    """Whether the file's optimizer climbs: `Adam(..., maximize=True)`."""
    return any(
        k.arg == "maximize" and isinstance(k.value, ast.Constant) and k.value.value is True
        for n in ast.walk(source.tree)
        if isinstance(n, ast.Call)
        for k in n.keywords
    )


def _argument(place: int | str) -> str:
    return f"{_ARGUMENT}{place}__"


def _is_part(arg: ast.expr) -> TypeGuard[ast.Subscript]:
    """Whether an argument is some rows of what holds more: `data[i : i + 32]`, `data[index]`."""
    return isinstance(arg, ast.Subscript) and isinstance(arg.slice, ast.Slice | ast.Name)


def _as_many(batch: Batch, value: Any) -> Any:
    """As many rows of what lies beside the batch, as labels do, as the batch has."""
    x = next((a for a in batch.args if isinstance(a, Tensor) and a.dim()), None)
    if x is None or not isinstance(value, Tensor) or not value.dim() or not len(value):
        return value
    rows = torch.arange(len(x), device=value.device) % len(value)
    return value if len(value) == len(x) else value[rows]


class _OnBatch(ast.NodeTransformer):
    """Puts our batch in the place of what the loop makes for the model on the spot.

    `parts` are expressions such as `data[i : i + 32]`, which mean the same wherever they stand;
    `slices` what they have in brackets: `labels[i : i + 32]` has as many rows.
    """

    def __init__(
        self,
        entry: ast.Call,
        places: Collection[int | str],
        parts: Mapping[str, int | str],
        slices: Collection[str],
    ) -> None:
        self.slices = slices
        self.at = (entry.lineno, entry.col_offset, entry.end_lineno, entry.end_col_offset)
        self.places = places
        self.parts = parts

    def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
        place = self.parts.get(ast.unparse(node))
        if place is not None and isinstance(node.ctx, ast.Load):
            return ast.copy_location(ast.Name(_argument(place), ast.Load()), node)
        beside = isinstance(node.ctx, ast.Load) and ast.unparse(node.slice) in self.slices
        inner = self.generic_visit(node)
        if not beside or not isinstance(inner, ast.Subscript):
            return inner
        return ast.copy_location(ast.Call(ast.Name(_ROWS, ast.Load()), [inner], []), node)

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
        return self.generic_visit(node)


class _OnOneDevice(ast.NodeTransformer):
    """Leaves out moves to a device."""

    def visit_Call(self, node: ast.Call) -> ast.AST:
        if isinstance(node.func, ast.Attribute) and node.func.attr in {"cuda", "cpu", "to"}:
            asked = ast.unparse(node)
            if node.func.attr != "to" or "device" in asked or "cuda" in asked:
                inner: ast.AST = self.visit(node.func.value)
                return inner
        return self.generic_visit(node)
