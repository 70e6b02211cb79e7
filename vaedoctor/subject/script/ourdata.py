"""Our batch as a loop's own data: as which argument, under which names, packed as by a loader."""

from __future__ import annotations

import ast
import builtins
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeGuard

import torch
from torch import Tensor

from ..code.roles import role
from ..code.source import Source
from ..code.syntax import called_name, root_name
from ..subject import Batch
from .holders import callees
from .names import free, one_by_one, reads, writes
from .rewriting import is_argument
from .setting import Setting
from .steps import Step
from .unpacking import beside_data, packed


@dataclass(frozen=True)
class OurData:
    """A batch in the place of the data of one loop.

    `space` is what the names around mean, `late` the value of a counter of steps.
    """

    source: Source
    step: Step
    setting: Setting
    batch: Batch
    space: Mapping[str, Any]
    late: int

    @cached_property
    def given(self) -> list[tuple[int | str, ast.expr, Any]]:
        """What the loop hands to the model, by place or keyword, and the batch's item for it."""
        return list(self._given())

    def _given(self) -> Iterator[tuple[int | str, ast.expr, Any]]:
        batch = self.batch
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
            yield place, arg, self._packed(place, arg, value)
        for keyword in entry.keywords:
            if (name := keyword.arg or "") in batch.kwargs:
                yield name, keyword.value, batch.kwargs[name]

    @property
    def made(self) -> dict[int | str, Any]:
        """Our items for what the loop makes on the spot, by place or keyword."""
        return {place: value for place, arg, value in self.given if self._is_made(arg)}

    @property
    def parts(self) -> dict[str, int | str]:
        """The rows of more data that the loop hands to the model, and in which places."""
        return {ast.unparse(a): p for p, a, _ in self.given if isinstance(a, ast.Subscript)}

    @property
    def slices(self) -> set[str]:
        """What those rows have in brackets, there or in a line above."""
        return {ast.unparse(a.slice) for a in self._rows_of_more()}

    @property
    def by_name(self) -> dict[str, Any]:
        """The batch under the names by which the loop hands it to the model."""
        given = {root_name(a): v for _, a, v in self.given if not self._is_made(a)}
        return {name: self._apart(name, value) for name, value in given.items()}

    def known(self, statements: list[ast.stmt], told: Mapping[str, Any]) -> dict[str, Any]:
        """The batch, and what the statements read that nothing around tells."""
        known = self.by_name
        for name in sorted(free(statements)):
            if name in known or name in told or hasattr(builtins, name) or is_argument(name):
                continue
            known[name] = self._value(name, known)
        return known

    def rows(self, space: Mapping[str, Any]) -> set[int]:
        """The rows of the data that the script itself makes for the model; none of a loader's."""
        names = {root_name(a) for _, a, _ in self.given}
        made = (space.get(n) for n in sorted(names))
        return {len(v) for v in made if isinstance(v, Tensor) and v.dim()}

    def _is_data(self, arg: ast.expr) -> bool:
        """Whether an argument comes from the loop's own variables, or is a tensor made there."""
        if isinstance(arg, ast.Call):
            return root_name(arg) in {"torch", *self.of_loop} or not root_name(arg)
        return root_name(arg) in self.of_loop

    @cached_property
    def of_loop(self) -> set[str]:
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

    def _rows_of_more(self) -> Iterator[ast.Subscript]:
        given = [a for _, a, _ in self.given]
        names = {a.id for a in given if isinstance(a, ast.Name)}
        function = self.step.function
        for node in ast.walk(function if function is not None else self.source.tree):
            for statement in one_by_one(node) if isinstance(node, ast.Assign) else ():
                match statement:
                    case ast.Assign(targets=[ast.Name(id=name)], value=value) if name in names:
                        given += [n for n in ast.walk(value) if isinstance(n, ast.expr)]
        yield from filter(_is_part, given)

    def _packed(self, place: int, arg: ast.expr, value: Any) -> Any:
        """The batch as a loader gives it, for a function that unpacks it itself."""
        if not isinstance(value, Tensor):
            return value
        for callee, shift in callees(self.source, called_name(self.step.entry)):
            names = [p.arg for p in (*callee.args.posonlyargs, *callee.args.args)]
            if place + shift < len(names):
                given = names[place + shift]
                indexed = not self.step.direct  # of a method of the model `x[0]` is a row
                return packed(self.source, callee, given, value, self.batch, indexed=indexed)
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

    def _value(self, name: str, known: Mapping[str, Any]) -> Any:
        """What a name means that nothing tells; raises `NameError` where it may be anything."""
        if role(name) == "weight":
            return 1.0
        if role(name) == "step" or self.setting.counts(name):
            return self._late_step(name)
        beside = next((t for t in self.step.targets if name in t), ())
        x = next((a for a in self.batch.args if isinstance(a, Tensor)), None)
        if name in self.batch.around and x is not None:
            return self.batch.around[name].beside(x)
        if beside and x is not None:
            if any(n in known for n in beside):  # `for x, y in loader`: a label not for the model
                return beside_data(name, x)
            return self._unpacked(name, x, known)
        raise NameError(f"name '{name}' is not defined", name=name)

    def _late_step(self, name: str) -> int:
        """A step late in training, within the list of weights that it picks from: `betas[it]`."""
        ends = [self.late]
        for node in (n for s in self.step.statements for n in ast.walk(s)):
            match node:
                case ast.Subscript(ast.Name(id=held), ast.Name(id=index)) if index == name:
                    if hasattr(self.space.get(held), "__len__"):
                        ends.append(len(self.space[held]) - 1)
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


def _is_part(arg: ast.expr) -> TypeGuard[ast.Subscript]:
    """Whether an argument is some rows of what holds more: `data[i : i + 32]`, `data[index]`."""
    return isinstance(arg, ast.Subscript) and isinstance(arg.slice, ast.Slice | ast.Name)
