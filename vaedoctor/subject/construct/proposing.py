"""Sets of made-up constructor arguments, and what an error teaches about them."""

from __future__ import annotations

import argparse
import inspect
import re
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import islice
from typing import Any

from torch import nn

from ..code.scope import Unknown
from ..code.signatures import annotations_of, defaults_of, hint_of, required, signature_of
from ..code.uses import Use
from ..trials.witness import user_frame
from .asserted import classes_asked
from .bases import inheriting
from .inventing import Inventor
from .making import Call, namespace_of, realised
from .own_kinds import fields_of
from .package_calls import package_calls
from .reading import uses_of
from .said import said_type
from .sizes import Sizes
from .templates import is_plain

Values = dict[str, Any]
_MOST_ALTERNATIVES = 12
_MOST_ADDED = 60
_MOST_CALLS = 3


class Proposals:
    """What one callable may be given beside the values that are known."""

    def __init__(
        self, thing: Callable[..., Any], values: Values, namespace: Mapping[str, Any]
    ) -> None:
        self.thing = thing
        self.namespace = namespace
        self.signature = signature_of(thing)
        self.uses = uses_of(thing, namespace)
        self._told = {n: vars(v) for n, v in values.items() if self._is_incomplete(n, v)}
        values = {n: v for n, v in values.items() if n not in self._told}
        self.values = values
        self.hints = annotations_of(thing)
        self._added = 0
        self._known = {**defaults_of(thing), **values}
        self._named: set[str] = set()
        self.origins: dict[str, str] = {}  # of sets that follow a call, where that stands
        self.missing = [p for p in required(self.signature) if p.name not in values]
        spare = next((p for p in self._parameters() if p.kind is p.VAR_KEYWORD), None)
        if spare is not None and spare.name not in values and self._keys(spare.name):
            self.missing.append(spare)
        self.optional = [
            p
            for p in self._parameters()
            if p.default is None and p.name not in values and self._is_read(p.name)
        ]

    @property
    def unset(self) -> list[inspect.Parameter]:
        """Parameters of default None that are calculated with: the call needs them after all.

        Those of which `int` is the default, where it is meant to be the annotation, as well.
        """
        return [
            p
            for p in self._parameters()
            if (p.default is None or p.default is int)
            and p.name not in self.values
            and (self.hints.get(p.name, p.annotation) is int or self._is_number(p.name))
        ]

    def sets(self, parameters: list[inspect.Parameter]) -> Iterator[Values]:
        """Primes, then numbers that divide, then shared ones; then one alternative at a time."""
        if not parameters:
            return
        tables = []
        for even, shared in ((False, False), (True, False), (True, True)):
            choices = self._table(parameters, even=even, shared=shared)
            if not all(choices.values()):
                return
            tables.append(choices)
            yield {name: options[0] for name, options in choices.items()}
        for choices in tables[:2]:
            yield from islice(_one_at_a_time(choices), _MOST_ALTERNATIVES)

    def named_in(self, error: BaseException, made: Values) -> Iterator[Values]:
        """With the arguments that an error names although their default is None.

        Each by itself, then all: `either dim or codebook_size must be given`.
        """
        yield from self._of_the_class_asked(error, made)
        unset = unset_in(error)
        lacking = [
            p
            for p in self._parameters()
            if p.name not in self.values
            and (
                (p.default is None and said_in(p.name, error))
                or (p.default in (None, 0) and p.name in unset)
            )
        ]
        self._named = {p.name for p in lacking}
        table = self._table(lacking, even=True, shared=False)
        for name, options in table.items():
            yield from ({**made, name: option} for option in options[:3])
        if len(lacking) > 1 and all(table.values()):
            yield {**made, **{name: options[0] for name, options in table.items()}}
        yield from self._passed_on(error, made)
        yield from self._fields_named(error, made)

    def _of_the_class_asked(self, error: BaseException, made: Values) -> Iterator[Values]:
        """With an object of the class that a check of the constructor's asks for."""
        names = [p.name for p in self._parameters() if p.name not in self.values]
        inventor = self._inventor(even=False, shared=False)
        for name, kind in classes_asked(error):
            if name in names and not isinstance(realised(made.get(name)), kind):
                use = self.uses.get(name)
                yield from ({**made, name: o} for o in inventor.choices(name, kind, use)[:4])

    def _fields_named(self, error: BaseException, made: Values) -> Iterator[Values]:
        """With the fields of default None of made-up objects that an error names."""
        inventor = self._inventor(even=False, shared=False)
        for key, value in made.items():
            if not isinstance(value, Call) or not isinstance(value.thing, type):
                continue
            use, hints = self.uses.get(key, Use()), annotations_of(value.thing)
            for p in signature_of(value.thing).parameters.values():
                if p.default is not None or p.name in value.values or not said_in(p.name, error):
                    continue
                asked = use.attributes.get(p.name)
                for option in inventor.choices(p.name, hints.get(p.name, p.annotation), asked)[:2]:
                    yield {**made, key: Call(value.thing, {**value.values, p.name: option})}

    def _passed_on(self, error: BaseException, made: Values) -> Iterator[Values]:
        """With what a part asserts about its own arguments, where `**kwargs` hands them on."""
        spare = next((p.name for p in self._parameters() if p.kind is p.VAR_KEYWORD), None)
        frame = user_frame(error)
        if spare is None or spare in self.values or frame is None:
            return
        given, inventor = made.get(spare, {}), self._inventor(even=False, shared=False)
        held, line = frame[0].f_locals, frame[1]
        count = frame[0].f_code.co_argcount + frame[0].f_code.co_kwonlyargcount
        for name in frame[0].f_code.co_varnames[:count]:
            unset = held.get(name, error) is None and name not in given
            if not unset or name in self.signature.parameters or not _is_word_of(name, line):
                continue
            for option in inventor.choices(name, int)[:2]:
                yield {**made, spare: {**given, name: option}}

    def as_called(self) -> Iterator[Values]:
        """Sets that follow the calls of the class in its own library, the rest made up."""
        inventor = self._inventor(even=True, shared=False)
        for told in package_calls(self.thing, partial(_invented, inventor))[:_MOST_CALLS]:
            given = {
                k: v for k, v in told.values.items() if k not in self.values and self._suits(k, v)
            }
            rest = Proposals(self.thing, {**self.values, **given}, self.namespace)
            table = rest._table(rest.missing, even=True, shared=False)
            if given and all(table.values()):
                made = given | {name: options[0] for name, options in table.items()}
                self.origins[repr(made)] = told.at
                yield made

    def _suits(self, name: str, value: Any) -> bool:
        """Whether an object is of the class that a parameter asks for: a sibling's may not be."""
        hint = hint_of(self.thing, self.signature.parameters[name], self.hints)
        kind = value.thing if isinstance(value, Call) else None
        unsaid = hint is inspect.Parameter.empty or not isinstance(hint, type)
        if unsaid or not isinstance(kind, type):
            return True
        return issubclass(kind, hint)

    def options(self, parameter: inspect.Parameter) -> list[Any]:
        """What one parameter may be given where nothing can be tried: sizes that fit each other."""
        return self._table([parameter], even=True, shared=True)[parameter.name]

    def entries(self, parameter: inspect.Parameter) -> dict[str, Any]:
        """What is read of a parameter by key: what can be made up, and None for what cannot."""
        use = self.uses.get(parameter.name, Use())
        keys = {k: u for k, u in use.keys.items() if isinstance(k, str) and not u.may_lack}
        inventor = self._inventor(even=True, shared=True)
        options = {k: inventor.choices(k, use=u) for k, u in keys.items()}
        return {k: o[0] if o else None for k, o in options.items()}

    def completed(self, made: Values, error: BaseException) -> Values | None:
        """The arguments with the entry that a made-up configuration lacks; None if none does."""
        if self._added >= _MOST_ADDED:
            return None
        self._added += 1
        inventor = self._inventor(even=False, shared=False)
        if isinstance(error, AttributeError) and isinstance(error.obj, types.SimpleNamespace):
            has, name = set(vars(error.obj)), str(error.name)
            return _with_entry(made, lambda v: _is_namespace(v, has), name, inventor)
        if isinstance(error, AttributeError) and error.obj is not None:
            return _as_a_class_that_has(made, type(error.obj), str(error.name), inventor)
        if isinstance(error, KeyError) and error.args and isinstance(error.args[0], str):
            key = error.args[0]
            return _with_entry(made, lambda v: type(v) is dict and key not in v, key, inventor)
        return None

    def _table(
        self, parameters: list[inspect.Parameter], *, even: bool, shared: bool
    ) -> dict[str, list[Any]]:
        inventor = self._inventor(even=even, shared=shared)
        found = {}
        for p in parameters:
            if p.kind is p.VAR_KEYWORD:
                found[p.name] = inventor.choices(p.name, use=Use(keys=self._keys(p.name)))
            else:
                hint = hint_of(self.thing, p, self.hints)
                use = self.uses.get(p.name)
                found[p.name] = inventor.choices(p.name, hint, use)
                if hint is inspect.Parameter.empty:
                    found[p.name] = self._with_said(inventor, p.name, found[p.name])
            if told := {k: v for k, v in self._told.get(p.name, {}).items() if v is not None}:
                found[p.name] = [
                    namespace_of({**o.values, **told}) if isinstance(o, Call) else o
                    for o in found[p.name]
                ]
        return found

    def _is_incomplete(self, name: str, value: Any) -> bool:
        """Whether a command line lacks what is read from it: what is required, and set later."""
        if not isinstance(value, argparse.Namespace) or name not in self.uses:
            return False
        return any(
            not hasattr(value, attr) or (getattr(value, attr) is None and (use.number or use.names))
            for attr, use in self.uses[name].attributes.items()
            if use.fallback is inspect.Parameter.empty and not use.may_lack and not use.tested
        )

    def _with_said(self, inventor: Inventor, name: str, options: list[Any]) -> list[Any]:
        """With what the docstring's type or words give; words come first."""
        said = said_type(self.thing, name)
        if said is inspect.Parameter.empty:
            return options
        more = [o for o in inventor.choices(name, said, self.uses.get(name)) if o not in options]
        if typing.get_origin(said) is typing.Literal:
            known = [o for o in options if o in typing.get_args(said)]
            return [*known, *(o for o in more if o not in known)] or options
        return [*options, *more]

    def _inventor(self, *, even: bool, shared: bool) -> Inventor:
        known = {
            k: v
            for k, v in self._known.items()
            if not isinstance(v, nn.Module)
            and (v is not None or k not in self._asked())
            and (v != 0 or k not in self._named)
        }
        return Inventor(Sizes(known, even=even, shared=shared), self.namespace)

    def _asked(self) -> set[str]:
        asked = (*self.missing, *self.optional, *self.unset)
        return {p.name for p in asked} | self._named

    def _parameters(self) -> list[inspect.Parameter]:
        return list(self.signature.parameters.values())

    def _keys(self, name: str) -> dict[Any, Use]:
        """What is read from `**kwargs` without a fallback."""
        keys = self.uses[name].keys if name in self.uses else {}
        empty = inspect.Parameter.empty
        return {k: u for k, u in keys.items() if u.fallback is empty and not u.may_lack}

    def _is_number(self, name: str) -> bool:
        use = self.uses.get(name)
        return use is not None and use.number

    def _is_read(self, name: str) -> bool:
        use = self.uses.get(name)
        return use is not None and bool(use.attributes or use.keys)


def _invented(inventor: Inventor, name: str) -> Any:
    """A value for a name in a call, by the name alone."""
    options = inventor.choices(name)
    plain = [o for o in options if is_plain(o)]
    if options and not plain:
        raise Unknown(name)  # such as a function that is the default
    return plain[0] if plain else inventor.sizes.one(name, "other")


def _one_at_a_time(choices: Mapping[str, list[Any]]) -> Iterator[Values]:
    first = {name: options[0] for name, options in choices.items()}
    for name, options in choices.items():
        for option in options[1:]:
            yield {**first, name: option}


def _with_entry(
    entries: Values, lacks: Callable[[Any], bool], key: str, inventor: Inventor
) -> Values | None:
    """The made-up values with one more entry in the first of them that lacks it."""
    for name, value in entries.items():
        inside = value.values if isinstance(value, Call) else value
        if not isinstance(inside, Mapping):
            continue
        if lacks(value):
            options = inventor.choices(key)
            changed: Any = {**inside, key: options[0] if options else None}
        else:
            changed = _with_entry(dict(inside), lacks, key, inventor)
        if changed is not None:
            one = Call(value.thing, changed) if isinstance(value, Call) else changed
            return {**entries, name: one}
    return None


def _as_a_class_that_has(
    entries: Values, kind: type, name: str, inventor: Inventor
) -> Values | None:
    """With an object of a class that inherits from `kind` and has what that lacks."""
    for key, value in entries.items():
        if isinstance(value, Call):
            if value.thing is kind:
                fitting = (k for k in inheriting(kind) if name in fields_of(k))
                made = (c for k in fitting for c in inventor.choices(key, k))
                changed: Any = next(made, None)
            else:
                inside = _as_a_class_that_has(dict(value.values), kind, name, inventor)
                changed = None if inside is None else Call(value.thing, inside)
            if changed is not None:
                return {**entries, key: changed}
    return None


def said_in(name: str, error: BaseException | None) -> bool:
    """Whether an error names a parameter: `input_dims`, or in words `input dims`."""
    words = re.escape(name).replace("_", "[_ ]")
    return re.search(rf"(?<!\w){words}(?!\w)", str(error)) is not None


def unset_in(error: BaseException) -> set[str]:
    """The variables in the line that raised which are None where that is to blame, or 0."""
    frame = user_frame(error)
    empty = 0 if isinstance(error, ZeroDivisionError) else None
    if frame is None or (empty is None and "NoneType" not in str(error)):
        return set()
    held = frame[0].f_locals
    return {w for w in re.findall(r"\w+", frame[1]) if held.get(w, frame) == empty}


def _is_word_of(name: str, line: str) -> bool:
    return re.search(rf"\b{re.escape(name)}\b", line) is not None


def _is_namespace(value: Any, has: set[str]) -> bool:
    return (
        isinstance(value, Call)
        and value.thing is types.SimpleNamespace
        and set(value.values) == has
    )
