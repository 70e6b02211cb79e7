"""A loss with a batch of its own: `model.loss(x_lab, y_lab, x_unlab)`, two loaders in one loop.

What such a step reads is no batch of the forward pass, or more than one. Where the file's own loop
tells all of it, it joins the batch beside what forward takes, and the step is the objective.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from ..code.scope import Unknown
from ..code.source import Source
from ..script.example import methods_of
from ..script.feeding import Followed
from ..script.loop import Loop, loops
from ..subject import Batch, Objective
from ..total import total
from ..trials.switches import generators_restored
from ..trials.trial import attempt, home
from .contained import reached_by

_FEW = 8  # rows: enough to judge by


def own_batch(
    model: nn.Module,
    batch: Batch,
    source: Source,
    namespace: Mapping[str, Any],
    seed: int,
) -> tuple[Batch, Objective] | None:
    """The batch with what the file's step reads beside it, and that step; None where not told.

    Of several steps the one that trains most parameters.
    """
    best: tuple[Batch, Objective] | None = None
    most = 0
    for loop in loops(source, namespace, model):
        with generators_restored(), suppress(Unknown):
            torch.manual_seed(seed)
            step = _step(loop, model, namespace)
            joined, objective = step.beside(batch, model), step.objective()
            trial = attempt(lambda: total(objective.run(model, joined)), model, seed=seed)  # noqa: B023
            reached = len(reached_by(trial.value, model)) if trial.ran else 0
            if reached > most:
                best, most = (joined, objective), reached
    return best


def runs_alone(model: nn.Module, batch: Batch, objective: Objective, seed: int) -> bool:
    """Whether an objective gives a scalar on a batch."""
    return attempt(lambda: total(objective.run(model, batch)), model, seed=seed).ran


@dataclass(frozen=True, slots=True)
class _Step:
    """One step of the file's loop with the tensors it reads, by the names of a batch's entries.

    `places` are the arguments of the loop's own call that stand for them, `names` the variables.
    """

    loop: Loop
    data: Mapping[str, Tensor]
    places: Mapping[int | str, str]
    names: Mapping[str, str]

    def beside(self, batch: Batch, model: nn.Module) -> Batch:
        """The batch with these tensors, a few rows of each and as many, beside what forward takes.

        Experiments halve and double the rows of all, and see by their number what holds rows.
        """
        dtype, device = home(model)
        most = min(_FEW, *(len(v) for v in self.data.values() if v.dim()))
        held: dict[str, Any] = {}
        for name, value in self.data.items():
            kept = value[:most] if value.dim() else value
            held[name] = kept.detach().to(device, dtype if kept.is_floating_point() else None)
        known = {k: v for k, v in batch.kwargs.items() if k not in held}
        beside = batch.beside | frozenset(held)
        line = self.loop.source.line(self.loop.step.entry.lineno)
        origin = f"{batch.origin}; for the loss your own data, as {line} feeds it"
        return replace(batch, kwargs={**known, **held}, beside=beside, origin=origin)

    def objective(self) -> Objective:
        """The step on the entries of a batch."""

        def run(model: nn.Module, batch: Batch) -> Any:
            made = {place: batch.kwargs[key] for place, key in self.places.items()}
            known = {name: batch.kwargs[key] for name, key in self.names.items()}
            value = self.loop.run_on(model, made, known)
            return -total(value) if self.loop.negated else value

        place = self.loop.source.line(self.loop.line)
        origin = f"found: `{self.loop.name}` of the training loop, {place}"
        return Objective(run, self.loop.name, origin, self.loop.at, unweighed=self.loop.unweighed)


def _step(loop: Loop, model: nn.Module, namespace: Mapping[str, Any]) -> _Step:
    """What a step reads, evaluated; raises `Unknown` where the file does not tell it."""
    setting, entry = loop.setting, loop.step.entry
    methods = methods_of(loop.source, {k.__name__ for k in type(model).__mro__})
    followed = Followed(loop.source, namespace, setting.holders, methods, loop.step, setting.models)
    scope, looped = followed.at_entry()
    data: dict[str, Tensor] = {}
    places: dict[int | str, str] = {}
    for place, name, expr in _arguments(entry, model):
        if isinstance(expr, ast.Constant) or ast.unparse(expr) in setting.models:
            continue
        if isinstance(expr, ast.Name) and (expr.id in loop.reads or expr.id not in scope.known):
            continue  # of those that the step itself makes, as by a function of data, the rest
        value = scope.value(expr)
        if isinstance(value, Tensor) and name not in data:
            data[name], places[place] = value, name
    names = sorted(n for n in loop.reads if n in looped or n in scope.known)
    told = {n: scope.known.get(n) for n in names}
    read = {n: v for n, v in told.items() if isinstance(v, Tensor) and n not in data}
    if not data and not read:
        raise Unknown("no tensor")
    return _Step(loop, {**data, **read}, places, {n: n for n in read})


def _arguments(entry: ast.Call, model: nn.Module) -> Iterator[tuple[int | str, str, ast.expr]]:
    """The arguments of a call by place or keyword, with the names of the method's parameters."""
    called = (
        getattr(model, entry.func.attr, None) if isinstance(entry.func, ast.Attribute) else None
    )
    names: list[str] = []
    with suppress(TypeError, ValueError):
        names = list(inspect.signature(called).parameters) if callable(called) else []
    for place, expr in enumerate(entry.args):
        yield place, names[place] if place < len(names) else f"argument {place + 1}", expr
    for keyword in entry.keywords:
        if keyword.arg:
            yield keyword.arg, keyword.arg, keyword.value
