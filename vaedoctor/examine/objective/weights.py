"""Settings that weigh the loss, of the model and of what it is run with: do they do anything?"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import re
import types
from collections.abc import Callable, Iterable, Iterator, MutableMapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import CodeType
from typing import Any

import torch
from torch import nn

from ...finding import Span
from ...subject.subject import Subject
from ..code.listing import (
    Method,
    assigned_at,
    functions_in,
    is_own_code,
    methods_of,
    span_in,
    tree_of,
)
from ..code.unread import (
    is_read,
    is_read_in,
    is_summand,
    scheduled_at,
    spells,
    unread_parameters,
)
from ..runs.actors import Actors, actors
from ..runs.recording import Recording
from ..runs.step import run_recorded

_OF = "(weight|coeff?|coefficient|scale|lambda|factor)"
_WEIGHT = re.compile(rf"(.*_)?(beta|kld?_?{_OF}|(lambda|weight|coeff?|w)_?kld?)")
_OF_ANY = r"(weight|peso|poids|gewicht)_(?!decay)\w+"
_SAID = rf"{_OF_ANY}|\w+_(weight|coeff?)|weight|peso|poids|gewicht"
_TERM = r"(loss|rec(on(struction)?)?|mse|nll|bce|elbo|commit(ment)?)"
_OF_A_TERM = re.compile(
    rf"(.*_)?{_TERM}_?{_OF}|\w+_(weight|coeff?|coefficient|lambda)|(lambda|weight|coeff?|w)_{_TERM}"
    r"|gamma|alpha|lam(b|bda?)?|(gamma|alpha|lambda?)_\w+|capacity|anneal(ing)?(_(weight|factor))?"
    rf"|(factor|faktor|scale|strength)_kld?|{_SAID}"
)
"""As a setting that no code reads is named, where it is one of the loss.

One that is called like a term of a sum, `tc` beside `rec + mi + tc`, is one as well.
"""

_OF_A_KL = re.compile(r"(.*_)?kld?_\w+|\w+_kld?")


@dataclass(frozen=True, slots=True)
class DeadWeight:
    """A number named like a loss weight that changes nothing when doubled.

    `of_kl` says that the name is that of a KL's weight, and not of another term's; `function`
    names the function of which it is a parameter, if it is one. `read` says that code does read
    it, in this step.
    """

    name: str
    value: float | None
    at: Span | None
    of_kl: bool
    function: str = ""
    read: bool = False


@dataclass(frozen=True, slots=True)
class _Kept:
    """A number by a name: of an object, in a container that it keeps, or of a file.

    `kind` is the object's class, None of a file; `container` the name of what is kept.
    """

    kind: type | None
    file: str
    holder: Any
    name: str
    value: float
    container: str = ""

    @contextmanager
    def away(self) -> Iterator[None]:
        """Inside, it is not there; afterwards it is, before the same others as ever."""
        held = self.holder
        space: Any = held if isinstance(held, MutableMapping) else vars(held)
        later = list(space)[list(space).index(self.name) + 1 :]
        if isinstance(held, MutableMapping):
            del held[self.name]
        else:
            delattr(held, self.name)
        try:
            yield
        finally:
            self.set(self.value)
            for name in later:
                if name in space:
                    space[name] = space.pop(name)

    def set(self, value: float) -> None:
        if isinstance(self.holder, MutableMapping):
            self.holder[self.name] = value
        else:
            setattr(self.holder, self.name, value)

    @property
    def now(self) -> Any:
        held = self.holder
        return held[self.name] if isinstance(held, MutableMapping) else getattr(held, self.name)

    @property
    def of_kl(self) -> bool:
        """Whether it is named like the weight of a KL."""
        return _WEIGHT.fullmatch(self.name.lower()) is not None

    @property
    def judged(self) -> bool:
        """Whether it can be a weight: one that code reads only as the model's own beta."""
        if self.kind is None:
            return self.of_kl and not is_read_in(self.file, self.name)
        if self.of_kl and not self.container:
            return not _bounds_another(self.kind, self.name)
        known = self.of_kl or _OF_A_TERM.fullmatch(self.name.lower()) is not None
        if isinstance(self.value, float):
            known |= _OF_A_KL.fullmatch(self.name.lower()) is not None
            known |= is_summand(self.kind, self.name)
            known |= scheduled_at(self.kind, self.name) is not None
        return known and not is_read(self.kind, self.name, self.container or self.name)

    @property
    def at(self) -> Span | None:
        if self.kind is None:
            return _given_in(self.file, self.name)
        for method in methods_of(self.kind) if self.container else ():
            for node in ast.walk(method.node):
                if isinstance(node, ast.keyword) and node.arg == self.name:
                    return span_in(method, node.value)
        given = assigned_at(self.kind, self.container or self.name)
        return given or scheduled_at(self.kind, self.name)


def dead_weights(
    subject: Subject, recording: Recording, seed: int, rewind: Callable[[], None]
) -> Iterator[DeadWeight]:
    """Double every such setting on its own and run the same step again.

    The bounds of a schedule (`beta_max`, or what another weight is made from) and what the step
    itself sets are no weights. One in a container, and one that is not called the KL's, is one only
    if no code reads it: others may be for another step. Of a function's parameters, that its body
    does not read one is proof enough.
    """
    found = actors(subject, seed, rewind)
    told: set[str] = set()
    for kept in _kept(subject, found):
        with suppress(AttributeError, TypeError):  # a frozen configuration
            if kept.judged and _is_dead(kept, subject, recording, seed, rewind):
                told.add(kept.name)
                reading = _is_read_by(found, kept.name)
                if reading and not _is_missed(kept, subject, seed, rewind):
                    continue  # by a branch that this step does not take
                yield DeadWeight(kept.name, float(kept.value), kept.at, kept.of_kl, read=reading)
    yield from (w for w in _unread(subject.model, found) if w.name not in told)


def loss_weights(model: nn.Module) -> dict[str, float]:
    """The numbers on a model that are named like the weight of its KL, or of one of several."""
    return {
        name: float(value)
        for module in model.modules()
        for name, value in (vars(module).items() if is_own_code(type(module)) else ())
        if _is_number(value) and re.fullmatch(f"{_WEIGHT.pattern}|{_OF_ANY}", name.lower())
    }


def _is_dead(
    kept: _Kept, subject: Subject, recording: Recording, seed: int, rewind: Callable[[], None]
) -> bool:
    # a small weight of a small term is lost in the last digit of the sum when doubled
    factors = (2, 2**20) if isinstance(kept.value, float) else (2,)
    for factor in factors:
        try:
            kept.set(factor * kept.value)
            other = run_recorded(subject, seed=seed)
            remains = kept.now == factor * kept.value  # a schedule sets it anew
        finally:
            kept.set(kept.value)
            rewind()
        if not remains or other.error is not None:
            return False
        if not torch.equal(other.loss.detach(), recording.loss.detach()):
            return False
    return True


def _is_missed(kept: _Kept, subject: Subject, seed: int, rewind: Callable[[], None]) -> bool:
    """Whether the step raises without the setting."""
    try:
        with kept.away():
            return run_recorded(subject, seed=seed).error is not None
    finally:
        rewind()


def _is_read_by(found: Actors, name: str) -> bool:
    """Whether the code of a function that ran reads an attribute or entry of that name."""
    named = any(
        name in code.co_names or name in code.co_consts
        for function in found.functions
        for code in (function, *(c for c in function.co_consts if isinstance(c, CodeType)))
    )
    return named or any(
        spells(node, name) for method in _sources(found.functions) for node in ast.walk(method.node)
    )


def _kept(subject: Subject, found: Actors) -> Iterator[_Kept]:
    """The numbers on the model's modules and on further objects that take part.

    Of their files as well, if it is there that the training is: others import from a model's file.
    """
    modules = {id(m): m for m in subject.model.modules()}
    for this in {**modules, **found.objects}.values():
        if is_own_code(type(this)):  # the `beta` of an `nn.Softplus` is its slope
            for name, value in list(getattr(this, "__dict__", {}).items()):
                if _is_number(value):
                    yield _Kept(type(this), "", this, name, value)
                else:
                    holder = name.lstrip("_")
                    parts = _numbers_in(value)
                    yield from (_Kept(type(this), "", value, n, v, holder) for n, v in parts)
    for file, space in found.spaces.items() if subject.backwards else ():
        for name, value in list(space.items()):
            if _is_number(value) and _given_in(file, name) is not None:
                yield _Kept(None, file, space, name, value)


def _unread(model: nn.Module, found: Actors) -> Iterator[DeadWeight]:
    """The weights among the parameters that functions of the step, and constructors, ignore.

    One that is not called the KL's only in a function, with a number of its own: `peso=1.0`.
    """
    kinds = {type(m) for m in (*model.modules(), *found.objects.values()) if is_own_code(type(m))}
    made = {vars(k)["__init__"].__code__ for k in kinds if "__init__" in vars(k)}
    for method in _sources({*found.functions, *made}):
        for arg in unread_parameters(method):
            of_kl = _WEIGHT.fullmatch(arg.arg.lower()) is not None
            if of_kl or (method.name != "__init__" and _weighs(method.node.args, arg)):
                yield DeadWeight(arg.arg, None, span_in(method, arg), of_kl, method.name)


def _weighs(given: ast.arguments, arg: ast.arg) -> bool:
    """Whether a parameter is called like a term's weight and is a float if nobody gives it."""
    positional = [*given.posonlyargs, *given.args]
    defaults = dict(zip(reversed(positional), reversed(given.defaults), strict=False))
    defaults |= {a: d for a, d in zip(given.kwonlyargs, given.kw_defaults, strict=True) if d}
    match defaults.get(arg):
        case ast.Constant(value=float()):
            return re.fullmatch(_SAID, arg.arg.lower()) is not None
    return False


def _sources(codes: Iterable[CodeType]) -> Iterator[Method]:
    """The source of functions that ran."""
    ran = {(c.co_filename, c.co_name, c.co_firstlineno) for c in codes}
    for file in sorted({file for file, _, _ in ran}):
        for method in functions_in(file):
            starts = [method.node.lineno, *(d.lineno for d in method.node.decorator_list)]
            if any((file, method.name, line) in ran for line in starts):
                yield method


def _given_in(file: str, name: str) -> Span | None:
    """Where a file gives a global name a value."""
    for node in tree_of(file).body:
        match node:
            case ast.Assign(targets=[ast.Name(id=found)]) if found == name:
                return Span(file, node.lineno, node.col_offset + 1, node.lineno, 0)
    return None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value != 0


def _numbers_in(value: Any) -> list[tuple[str, float]]:
    """The numbers in a configuration: a namespace, a dict, a dataclass's instance."""
    held: Any = {}
    if isinstance(value, MutableMapping):
        held = dict(value)
    elif isinstance(value, argparse.Namespace | types.SimpleNamespace) or (
        dataclasses.is_dataclass(value) and not isinstance(value, type)
    ):
        held = getattr(value, "__dict__", {})
    return [(k, v) for k, v in held.items() if isinstance(k, str) and _is_number(v)]


def _bounds_another(kind: type, name: str) -> bool:
    """Whether a method makes another weight from this one: `self.beta = min(t, self.most_beta)`."""
    for method in methods_of(kind):
        for node in ast.walk(method.node):
            match node:
                case (
                    ast.Assign(targets=[ast.Attribute(attr=made)], value=value)
                    | ast.AugAssign(target=ast.Attribute(attr=made), value=value)
                ) if made != name and _WEIGHT.fullmatch(made.lower()):
                    read = (n.attr for n in ast.walk(value) if isinstance(n, ast.Attribute))
                    if name in read:
                        return True
    return False
