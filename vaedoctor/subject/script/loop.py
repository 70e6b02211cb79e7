"""The loss as the file's training loop computes it: the lines between `model(x)` and `backward()`.

Of the statements above `loss.backward()` those that the loss needs are run as they stand, on our
batch and with their own line numbers. Nothing else of the loop runs: no optimizer, no data, no log.
"""

from __future__ import annotations

import ast
import builtins
import types
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from typing import Any

from torch import Tensor, nn

from ...finding import Span
from ..code.roles import role
from ..code.source import Source
from ..subject import Batch
from .holders import Holders
from .names import free, names_in
from .ourdata import OurData
from .rewriting import DRAWN, ROWS, argument, as_many, on_batch
from .setting import Setting
from .steps import Step, is_of_own, steps
from .unpacking import is_to_become

_RESULT = "__vaedoctor_loss__"
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
        ours = self._ours(batch)
        known = {*ours.by_name, *self.made[1], *vars(builtins), ROWS, DRAWN}
        known |= {n for n, item in batch.around.items() if item.same}
        known |= {argument(place) for place in ours.made}
        told = {"weight", "step"}
        return any(
            n not in known and role(n) not in told and not self.setting.counts(n)
            for n in free(self._written(ours, ours.made).body)
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
        ours = self._ours(batch)
        return self._carried_out(model, ours, ours.made, {})

    def run_on(
        self, model: nn.Module, made: Mapping[int | str, Any], known: Mapping[str, Any]
    ) -> Any:
        """Run the statements on what the loop's call is given by place, and on known names."""
        return self._carried_out(model, self._ours(Batch(())), made, known)

    def elsewhere(self, batch: Batch) -> str | None:
        """A target that is read beside what the model is given, and for which the input is taken.

        As `batch["target"]`, which may hold the next word for each.
        """
        x = next((a for a in batch.args if isinstance(a, Tensor)), None)
        loaded = {n for t in self.step.targets for n in t}
        to_model = {*_entries([self.step.entry], loaded), *names_in(self.step.entry)}
        read = loaded.union(_entries(self._body(), loaded)) - to_model - set(batch.kwargs)
        return next((n for n in sorted(read) if x is not None and is_to_become(n, x)), None)

    def _ours(self, batch: Batch) -> OurData:
        return OurData(self.source, self.step, self.setting, batch, self.made[1], self.late)

    def _carried_out(
        self,
        model: nn.Module,
        ours: OurData,
        made: Mapping[int | str, Any],
        known: Mapping[str, Any],
    ) -> Any:
        step, tree = self.step, self._written(ours, made)
        held = self._space(model)
        rows, many = ours.rows(held), partial(as_many, ours.batch)
        held |= {n: many(v, rows) for n, v in held.items() if n in ours.of_loop}
        space = {**held, **known, ROWS: many, DRAWN: partial(many, rows=rows)}
        space |= ours.known(tree.body, space)
        space |= {argument(place): value for place, value in made.items()}
        owner = step.owner if self.setting.owner is None else None
        with self.setting.prepared(model, owner, [*self._body()]):
            exec(compile(tree, str(self.source.path), "exec"), space)
        return space[_RESULT]

    def _body(self) -> list[ast.stmt]:
        """The statements, and one that gives the loss a name."""
        step = self.step
        result = ast.Assign([ast.Name(_RESULT, ast.Store())], step.loss)
        return [*step.statements, ast.copy_location(result, step.loss)]

    def _written(self, ours: OurData, made: Collection[int | str]) -> ast.Module:
        """The same with our batch in the place of what the loop gives the model."""
        return on_batch(self._body(), self.step.entry, made, ours.parts, ours.slices)

    def _space(self, model: nn.Module) -> dict[str, Any]:
        if self.made[0] is model:
            return dict(self.made[1])
        return self.setting.space(model, _names(self.step))


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


def _entries(nodes: Iterable[ast.AST], loaded: Collection[str]) -> Iterator[str]:
    """What statements take out of what a loader gives: the keys, or the names it is unpacked to."""
    for node in chain.from_iterable(map(ast.walk, nodes)):
        match node:
            case ast.Subscript(value=ast.Name(id=name), slice=ast.Constant(value=str() as key)):
                if name in loaded:
                    yield key
            case ast.Assign(targets=[ast.Tuple() as parts], value=ast.Name(id=name)):
                if name in loaded:
                    yield from names_in(parts)


def _maximises(source: Source) -> bool:
    """Whether the file's optimizer climbs: `Adam(..., maximize=True)`."""
    return any(
        k.arg == "maximize" and isinstance(k.value, ast.Constant) and k.value.value is True
        for n in ast.walk(source.tree)
        if isinstance(n, ast.Call)
        for k in n.keywords
    )
