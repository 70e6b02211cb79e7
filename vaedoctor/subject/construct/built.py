"""A model, the call that made it, and its siblings: with other arguments, or smaller ones."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from typing import Any

from torch import nn

from ..code.signatures import by_name, defaults_of, signature_of
from ..script.aftermath import Aftermath, apply_following
from ..script.construction import Construction
from ..trials.switches import generators_restored, seed_everything
from .making import Typed, arguments, realised
from .parts import gives
from .smaller import Shrinking

Values = dict[str, Any]
_MOST_SIBLINGS = 4


@dataclass(frozen=True, slots=True)
class Plan:
    """What to call, with which arguments, and the user's own call they were read from.

    `shrunk` are made-up arguments in the place of defaults that make too large a model, `like`
    is where the library itself makes one, if that was followed, and `typed` what the user gave.
    """

    thing: Callable[..., Any]
    values: Values
    made_up: Values = field(default_factory=dict)
    construction: Construction | None = None
    shrunk: Values = field(default_factory=dict)
    like: str = ""
    typed: Mapping[str, Typed] = field(default_factory=dict)

    @property
    def invented(self) -> Values:
        """All that nobody gave."""
        return self.made_up | self.shrunk

    def smaller(self) -> Iterator[Plan]:
        """The same with smaller defaults; what was given or read stays as it is."""
        shrinking = Shrinking(
            self.thing,
            lambda shrunk: replace(self, shrunk=shrunk).construct(0),
            self.values,
            self.made_up,
        )
        for values in shrinking.sets():
            shrunk = {k: v for k, v in values.items() if self.made_up.get(k) is not v}
            yield replace(self, shrunk=shrunk)

    def construct(self, seed: int) -> nn.Module:
        """A fresh model; the arguments are copied because some constructors change them."""
        bound = inspect.BoundArguments(signature_of(self.thing), {})
        with generators_restored():
            seed_everything(seed)
            for name in bound.signature.parameters:
                if name in self.invented:
                    bound.arguments[name] = realised(self.invented[name])
                elif name in self.values:
                    bound.arguments[name] = _copied(self.values[name])
            made: nn.Module = self.thing(*bound.args, **bound.kwargs)
        return made


def _nothing() -> Iterator[Built]:
    return iter(())


@dataclass(frozen=True, slots=True)
class Built:
    """A model, how to make another, what was made up, and what the user's file did to it.

    `remake` builds it with other values in the place of the made-up ones; it raises what the
    constructor raises. `smaller` are its siblings with smaller defaults,
    for a forward pass that costs too much, and `shrunk` what makes it one. `like` is the library's
    own call that was followed. `thing` is what was called, with what the user gave as it was
    `typed`.
    """

    model: nn.Module
    rebuild: Callable[[int], nn.Module] | None
    notes: tuple[str, ...] = ()
    hints: Mapping[str, Any] = field(default_factory=dict)
    aftermath: Aftermath = field(default_factory=Aftermath)
    made_up: Mapping[str, Any] = field(default_factory=dict)
    remake: Callable[[Values], Built] | None = None
    shrunk: Mapping[str, Any] = field(default_factory=dict)
    like: str = ""
    smaller: Callable[[], Iterator[Built]] = _nothing
    thing: Any = None
    typed: Mapping[str, Typed] = field(default_factory=dict)


def built_by(plan: Plan, model: nn.Module, namespace: dict[str, Any], seed: int) -> Built:
    """What is known about a model that a plan made, and what the file does to it afterwards."""
    aftermath = _aftermath(plan, model, namespace, seed)
    hints = {**defaults_of(plan.thing), **by_name(plan.thing, {**plan.values, **plan.invented})}
    rebuild = None if aftermath.changed else plan.construct

    def remake(values: Values) -> Built:
        other = replace(plan, made_up=values)
        return built_by(other, other.construct(seed), namespace, seed)

    smaller = _nothing if plan.shrunk else partial(siblings, plan, namespace, seed)
    return Built(
        model,
        rebuild,
        _notes(plan),
        hints,
        aftermath,
        plan.made_up,
        remake,
        plan.shrunk,
        plan.like,
        smaller,
        plan.thing,
        plan.typed,
    )


def _aftermath(plan: Plan, model: nn.Module, namespace: dict[str, Any], seed: int) -> Aftermath:
    """What the lines below the user's own call do to the model, done to this one."""
    if plan.construction is None or plan.construction.name is None:
        return Aftermath()
    scope = plan.construction.scope(namespace)
    with generators_restored():
        seed_everything(seed)
        return apply_following(plan.construction, model, namespace, scope)


def _notes(plan: Plan) -> tuple[str, ...]:
    """Which arguments were made up, as notes for the report."""
    notes = []
    if rest := {k: v for k, v in plan.made_up.items() if k not in plan.shrunk}:
        said = arguments(by_name(plan.thing, rest))
        like = f", after {plan.like}" if plan.like else ""
        notes.append("; ".join([f"made up{like}: `{said}`", *gives(rest)]))
    if plan.shrunk:
        said = arguments(by_name(plan.thing, plan.shrunk))
        notes.append(f"too large to be examined, so made smaller: `{said}`")
    return tuple(notes)


def siblings(plan: Plan, names: dict[str, Any], seed: int) -> Iterator[Built]:
    """The siblings of a model that is too large, as far as they can be constructed."""
    for less in islice(plan.smaller(), _MOST_SIBLINGS):
        try:
            model = less.construct(seed)
        except KeyboardInterrupt:
            raise
        except BaseException:
            continue
        yield built_by(less, model, names, seed)


def _copied(value: Any) -> Any:
    try:
        return copy.deepcopy(value)
    except Exception:
        return value
