"""From a class or factory to a model: constructor arguments given, read in the file, or made up."""

from __future__ import annotations

import inspect
import itertools
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import islice
from typing import Any

from torch import nn
from torch.nn.parameter import is_lazy

from ..code.callees import constructor_of
from ..code.signatures import name_of, required, signature_of
from ..code.source import Source
from ..errors import TargetError, a_kind, summary
from ..script.construction import Construction, chosen, constructions, own_arguments
from ..trials.switches import generators_restored
from .answers import answering
from .asserted import equalling, passing
from .bases import meant_below
from .built import Built, Plan, Values, built_by, siblings
from .given import as_typed, given_arguments
from .making import Typed
from .parts import inheriting_part
from .proposing import Proposals
from .smaller import MOST_PARAMETERS, TooLarge, at_most
from .unbuildable import cannot_construct, cannot_guess

_MOST_ATTEMPTS = 20
_MOST_ANSWERS = 12


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
    proposals = Proposals(thing, {**read, **given}, names)
    likeliest = _likeliest_first(proposals, bool(read), bool(given))
    search = _Search(thing, proposals, construction, names, seed, most)
    search.typed = as_typed(args or {}, given)
    yield from search.through(likeliest)
    if search.found:
        return
    if search.failure is None:
        raise cannot_guess(thing, proposals, search.typed, label)
    plan, error = search.failure
    raise cannot_construct(thing, plan.made_up, error, label, search.typed) from error


class _Search:
    """Calls a thing with one set of made-up arguments after the other, and learns from refusals.

    `found` tells that a model was made, `failure` the refusal that stands furthest in it;
    `typed` are the arguments that the user gave.
    """

    def __init__(
        self,
        thing: Callable[..., Any],
        proposals: Proposals,
        construction: Construction | None,
        names: dict[str, Any],
        seed: int,
        most: int | None,
    ) -> None:
        self.thing, self.proposals, self.construction = thing, proposals, construction
        self.names, self.seed, self.most = names, seed, most
        self.found = False
        self.failure: tuple[Plan, BaseException] | None = None
        self.typed: dict[str, Typed] = {}
        self._spare: tuple[Plan, nn.Module] | None = None
        self._asked: list[Values] = []
        self._tried = set[str]()
        self._answered = Counter[str]()

    def through(self, likeliest: Iterator[Values | None]) -> Iterator[Built]:
        """The models of the first sets; one with an empty parameter where there is no other."""
        for made_up in islice(self._with_answers(likeliest), _MOST_ATTEMPTS):
            yield from self._attempt(made_up)
        if not self.found and self._spare is not None:
            yield self._made(*self._spare)

    def _with_answers(self, likeliest: Iterator[Values | None]) -> Iterator[Values | None]:
        """The likeliest sets; what a refusal asks for comes right after it."""
        for made_up in likeliest:
            yield made_up
            while self._asked:
                yield self._asked.pop(0)

    def _attempt(self, made_up: Values | None) -> Iterator[Built]:
        """The model that one set gives, or its smaller siblings where that is too large."""
        kept = {} if made_up is None else self.proposals.values
        like = self.proposals.origins.get(repr(made_up), "")
        plan = Plan(self.thing, kept, made_up or {}, self.construction, {}, like, self.typed)
        plan, model, error = self._constructed(plan, self.most)
        if isinstance(error, TooLarge):
            for one in siblings(plan, self.names, self.seed):
                self.found = True
                yield one
            if self.found:
                return
            plan, model, error = self._constructed(plan, None)
        if error is not None:
            self._learn(plan, error)
            return
        _check_is_model(self.thing, model)
        if plan.made_up and _has_nothing(model):
            self._spare = self._spare or (plan, model)
            return
        yield self._made(plan, model)

    def _constructed(self, plan: Plan, most: int | None) -> tuple[Plan, Any, BaseException | None]:
        """The model, or the error; what a made-up configuration lacks is added and tried again."""
        while True:
            try:
                with at_most(most):
                    return plan, plan.construct(self.seed), None
            except KeyboardInterrupt:
                raise
            except BaseException as error:
                completed = self.proposals.completed(plan.made_up, error)
                if completed is None:
                    return plan, None, error
                plan = replace(plan, made_up=completed)

    def _learn(self, plan: Plan, error: BaseException) -> None:
        """Keep a refusal, and ask next for the arguments that may answer it."""
        further = (
            self.failure is not None
            and plan.made_up
            and (_reached(self.thing, error) > _reached(self.thing, self.failure[1]))
        )
        if self.failure is None or further:
            self.failure = plan, error
        answers = itertools.chain(
            answering(error, plan.made_up),
            inheriting_part(plan.made_up, error),
            passing(error, plan.made_up),
            equalling(error, plan.made_up),
            self.proposals.named_in(error, plan.made_up),
        )
        said = summary(error)
        left = max(_MOST_ANSWERS - self._answered[said], 0)
        told = [v for v in islice(answers, left) if repr(v) not in self._tried]
        self._answered[said] += len(told)
        self._tried.update(map(repr, told))
        self._asked = [*told, *self._asked]

    def _made(self, plan: Plan, model: nn.Module) -> Built:
        self.found = True
        return built_by(plan, model, self.names, self.seed)


def _reached(thing: Callable[..., Any], error: BaseException) -> int:
    """The line of a class's own constructor that raised; 0 where none of it did."""
    code = getattr(constructor_of(thing), "__code__", None) if isinstance(thing, type) else None
    line, trace = 0, error.__traceback__
    while trace is not None:
        line = trace.tb_lineno if trace.tb_frame.f_code is code else line
        trace = trace.tb_next
    return line


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
