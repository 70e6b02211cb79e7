"""From a class or factory to a model: constructor arguments given, read in the file, or made up."""

from __future__ import annotations

import copy
import inspect
import itertools
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from typing import Any

from torch import nn
from torch.nn.parameter import is_lazy

from ..code.signatures import by_name, defaults_of, name_of, required, signature_of
from ..code.source import Source
from ..errors import TargetError, a_kind, summary
from ..script.construction import (
    Aftermath,
    Construction,
    apply_following,
    chosen,
    constructions,
    own_arguments,
)
from ..trials.trace import generators_restored, seed_everything
from .answers import answering
from .asserted import equalling, passing
from .bases import meant_below
from .given import given_arguments
from .making import arguments, realised
from .parts import gives, inheriting_part
from .proposing import Proposals
from .smaller import MOST_PARAMETERS, Shrinking, TooLarge, at_most
from .unbuildable import cannot_construct, cannot_guess

Values = dict[str, Any]
_MOST_ATTEMPTS = 20
_MOST_SIBLINGS = 4
_MOST_ANSWERS = 12


@dataclass(frozen=True, slots=True)
class Plan:
    """What to call, with which arguments, and the user's own call they were read from.

    `shrunk` are made-up arguments in the place of defaults that make too large a model, and `like`
    is where the library itself makes one, if that was followed.
    """

    thing: Callable[..., Any]
    values: Values
    made_up: Values = field(default_factory=dict)
    construction: Construction | None = None
    shrunk: Values = field(default_factory=dict)
    like: str = ""

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
    own call that was followed.
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


def builds(
    thing: Callable[..., Any],
    *,
    source: Source | None = None,
    namespace: dict[str, Any] | None = None,
    args: Mapping[str, str] | None = None,
    seed: int = 0,
    label: str = "",
    most: int | None = MOST_PARAMETERS,
) -> Iterator[Built]:
    """Models from the likeliest arguments on; more than one only when arguments were made up.

    In place of a model with more than `most` parameters come those with smaller defaults. Raises
    `TargetError` in the place of the first where none can be made.
    """
    label = label or name_of(thing)
    if inspect.isabstract(thing) and (base := meant_below(thing, label)) is not None:
        raise base
    names = _names(thing, namespace or {})
    given = given_arguments(args or {}, thing, names, source, label)
    read, construction = _from_file(thing, source, names)
    values = {**read, **given}
    proposals = Proposals(thing, values, names)
    values = proposals.values
    failure: tuple[Plan, BaseException] | None = None
    spare: tuple[Plan, nn.Module] | None = None
    built, attempts, tried, answered = False, 0, set[str](), Counter[str]()
    sets = _likeliest_first(proposals, bool(read), bool(given))
    while attempts < _MOST_ATTEMPTS:
        try:
            made_up = next(sets)
        except StopIteration:
            break
        attempts += 1
        kept = {} if made_up is None else values
        like = proposals.origins.get(repr(made_up), "")
        plan = Plan(thing, kept, made_up or {}, construction, like=like)
        plan, model, error = _constructed(plan, proposals, seed, most)
        if isinstance(error, TooLarge):
            for one in _smaller(plan, names, seed):
                built = True
                yield one
            if built:
                continue
            plan, model, error = _constructed(plan, proposals, seed, None)
        if error is not None:
            failure = failure or (plan, error)
            answers = itertools.chain(
                answering(error, plan.made_up),
                inheriting_part(plan.made_up, error),
                passing(error, plan.made_up),
                equalling(error, plan.made_up),
                proposals.named_in(error, plan.made_up),
            )
            left = max(_MOST_ANSWERS - answered[summary(error)], 0)
            told = [v for v in islice(answers, left) if repr(v) not in tried]
            answered[summary(error)] += len(told)
            tried.update(map(repr, told))
            sets = itertools.chain(told, sets)
            continue
        _check_is_model(thing, model)
        if plan.made_up and _has_nothing(model):
            spare = spare or (plan, model)
            continue
        built = True
        yield _built(plan, model, names, seed)
    if not built and spare is not None:
        built = True
        yield _built(*spare, names, seed)
    if not attempts:
        raise cannot_guess(thing, proposals, values, label)
    if not built and failure is not None:
        plan, error = failure
        raise cannot_construct(thing, plan.made_up, error, label) from error


def _has_nothing(model: nn.Module) -> bool:
    """Whether a parameter is empty: a width that nobody gave was taken for 0."""
    return any(p.numel() == 0 for p in model.parameters() if not is_lazy(p))


def _check_is_model(thing: Callable[..., Any], model: Any) -> None:
    if not isinstance(model, nn.Module):
        raise TargetError(
            f"`{name_of(thing)}` returned {a_kind(model)}, not a module",
            next_step=f"let `{name_of(thing)}` return the model",
        )
    if "_modules" not in vars(model):
        raise TargetError(
            f"`{name_of(thing)}.__init__` does not call `super().__init__()`",
            next_step=f"begin `{name_of(thing)}.__init__` with `super().__init__()`",
        )


def _smaller(plan: Plan, names: dict[str, Any], seed: int) -> Iterator[Built]:
    """The siblings of a model that is too large, as far as they can be constructed."""
    for less in islice(plan.smaller(), _MOST_SIBLINGS):
        try:
            model = less.construct(seed)
        except KeyboardInterrupt:
            raise
        except BaseException:
            continue
        yield _built(less, model, names, seed)


def _likeliest_first(proposals: Proposals, read: bool, given: bool) -> Iterator[Values | None]:
    """Sets of made-up arguments; None stands for a call without the file's own arguments."""
    if proposals.missing:
        sets = proposals.sets(proposals.missing)
        yield from islice(sets, 1)
        yield from proposals.as_called()
        yield from sets
        return
    yield {}
    yield from proposals.as_called()
    if read and not given and not required(proposals.signature):
        yield None
    # A default of None that the constructor reads attributes of: the call needs it after all.
    yield from proposals.sets(proposals.optional)
    yield from proposals.sets(proposals.unset)


def _constructed(
    plan: Plan, proposals: Proposals, seed: int, most: int | None
) -> tuple[Plan, Any, BaseException | None]:
    """The model, or the error; what a made-up configuration lacks is added and tried again."""
    while True:
        try:
            with at_most(most):
                return plan, plan.construct(seed), None
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            completed = proposals.completed(plan.made_up, error)
            if completed is None:
                return plan, None, error
            plan = replace(plan, made_up=completed)


def _built(plan: Plan, model: nn.Module, namespace: dict[str, Any], seed: int) -> Built:
    aftermath = Aftermath()
    if plan.construction is not None and plan.construction.name is not None:
        scope = plan.construction.scope(namespace)
        with generators_restored():
            seed_everything(seed)
            aftermath = apply_following(plan.construction, model, namespace, scope)
    notes = []
    if rest := {k: v for k, v in plan.made_up.items() if k not in plan.shrunk}:
        said = arguments(by_name(plan.thing, rest))
        like = f", after {plan.like}" if plan.like else ""
        notes.append("; ".join([f"made up{like}: `{said}`", *gives(rest)]))
    if plan.shrunk:
        said = arguments(by_name(plan.thing, plan.shrunk))
        notes.append(f"too large to be examined, so made smaller: `{said}`")
    hints = {**defaults_of(plan.thing), **by_name(plan.thing, {**plan.values, **plan.invented})}
    rebuild = None if aftermath.changed else plan.construct

    def remake(values: Values) -> Built:
        other = replace(plan, made_up=values)
        return _built(other, other.construct(seed), namespace, seed)

    smaller = _nothing if plan.shrunk else partial(_smaller, plan, namespace, seed)
    return Built(
        model,
        rebuild,
        tuple(notes),
        hints,
        aftermath,
        plan.made_up,
        remake,
        plan.shrunk,
        plan.like,
        smaller,
    )


def _names(thing: Callable[..., Any], namespace: dict[str, Any]) -> dict[str, Any]:
    """The names around a thing: those of its file; for a library's class those of its module."""
    module = sys.modules.get(getattr(thing, "__module__", None) or "")
    own = vars(module) if module is not None else {}
    if not own or own.get("__name__") == namespace.get("__name__"):
        return namespace
    return {**namespace, **own} if namespace else dict(own)


def _from_file(
    thing: Callable[..., Any], source: Source | None, namespace: dict[str, Any]
) -> tuple[Values, Construction | None]:
    """The arguments of the user's own call; one that can be evaluated completely is preferred."""
    if source is None:
        return {}, None
    best: tuple[Values, Construction | None] = {}, None
    signature = signature_of(thing)
    with generators_restored():
        named = constructions(source, name_of(thing))
        for construction in (*named, *chosen(source, thing, namespace)):
            unsure: Values | None = None
            for scope in (construction.scope(namespace), construction.data_scope(namespace)):
                found, complete = own_arguments(construction, signature, scope)
                if complete and not scope.unsure:
                    return found, construction
                unsure = found if complete and unsure is None else unsure
                if best[1] is None or len(found) > len(best[0]):
                    best = found, construction
            if unsure is not None:
                return unsure, construction
    return best


def _copied(value: Any) -> Any:
    try:
        return copy.deepcopy(value)
    except Exception:
        return value
