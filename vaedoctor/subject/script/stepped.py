"""The pass of a model without `forward`: the step of the file's own training loop.

Where the loop says method by method how the loss is made from a batch, that step is the forward
pass and the objective.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import nn

from ..code.scope import Unknown
from ..code.source import Source
from ..subject import Batch, Objective
from ..total import total
from ..trials.switches import generators_restored
from ..trials.witness import user_frame
from .cutting import Cut, cut
from .datascope import is_tensor_or_holds_one
from .example import Example, methods_of
from .feeding import Followed, is_built_once, is_chosen
from .loop import loops
from .steps import is_of_own

_MOST = 4


@dataclass(frozen=True, slots=True)
class Stepped:
    """One step of a loop as a forward pass, and where the file tells what it is given."""

    cut: Cut
    followed: Followed = field(repr=False)
    assembled: ClassVar[bool] = False

    def forward(self, model: nn.Module, plan: int | None) -> Callable[..., Any]:
        """A forward pass that returns what the step makes by calling the model."""
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        signature = inspect.Signature([inspect.Parameter(n, kind) for n in self.cut.given])

        def forward(*args: Any, **kwargs: Any) -> Any:
            known = signature.bind(*args, **kwargs).arguments
            return self.cut.passes.run_on(model, {}, known)

        forward.__signature__ = signature  # type: ignore[attr-defined]
        return forward

    @property
    def way(self) -> tuple[str, ...]:
        """How the report calls the pass."""
        return (f"the step of the training loop, {self._line}",)

    @property
    def _line(self) -> str:
        return self.cut.loop.source.line(self.cut.loop.line)

    def tells(self, error: BaseException | None) -> bool:
        """Whether an exception on the file's own data is the model's doing, not the step's cut."""
        at = user_frame(error)
        inside = at is not None and at[0].f_code.co_name != "<module>"
        own = is_of_own(self.followed.step, self.followed.holders)
        return own and inside and isinstance(error, RuntimeError | ValueError | IndexError)

    def objective(self) -> Objective:
        """What the loop goes backward from."""
        loop = self.cut.loop

        def run(model: nn.Module, batch: Batch) -> Any:
            known = dict(zip(self.cut.given, batch.args, strict=False)) | dict(batch.kwargs)
            value = loop.run_on(model, {}, known)
            return -total(value) if loop.negated else value

        origin = f"found: `{loop.name}` of the training loop, {self._line}"
        return Objective(run, loop.name, origin, loop.at, unweighed=loop.unweighed)

    def examples(self, model: nn.Module, seed: int) -> Iterator[Example]:
        """What the file's loop gives the step, where that can be told."""
        followed = self.followed
        source, namespace = followed.source, followed.namespace
        with generators_restored(), suppress(Unknown):
            torch.manual_seed(seed)
            scope = followed.anywhere()
            args = tuple(scope.value(e) for e in self.cut.given.values())
            if any(map(is_tensor_or_holds_one, args)):
                once = is_built_once(source, model, namespace)
                own = is_of_own(followed.step, followed.holders)
                sure = once and own and not is_chosen(source, scope.trail)
                yield Example(args, {}, *followed.told(scope.trail), few=True, sure=sure)


def stepped(
    model: nn.Module, source: Source | None, namespace: Mapping[str, Any], seed: int
) -> list[Stepped]:
    """The steps of the file's loops that call methods of a model, those with most of them first."""
    found: list[Stepped] = []
    known = methods_of(source, {k.__name__ for k in type(model).__mro__}) if source else {}
    for loop in loops(source, namespace, model) if source is not None else ():
        setting = loop.setting
        followed = Followed(
            loop.source, namespace, setting.holders, known, loop.step, setting.models
        )
        with generators_restored(), suppress(Unknown):
            torch.manual_seed(seed)
            step = cut(loop, followed, model)
            if step is not None and loop.name not in {f.cut.loop.name for f in found}:
                found.append(Stepped(step, followed))
        if len(found) == _MOST:
            break
    return sorted(found, key=lambda s: -len(s.cut.methods))
