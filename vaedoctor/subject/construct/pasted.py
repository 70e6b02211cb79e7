"""The file that a refusal prints: the model and its batch, every line of which may be corrected.

Whoever knows the class gets through it by changing lines that are marked, and no others: what was
made up and what has a default, each argument of the batch, a further call that makes the model, and
what the values import. A function of the user's own is printed as it stands.
"""

from __future__ import annotations

import inspect
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from ..code.signatures import annotations_of, hint_of, name_of, signature_of
from ..code.source import is_library
from .again import as_it_stands, parted
from .gaps import known
from .making import (
    MARK,
    Call,
    Typed,
    classes_written,
    expression,
    gaps_in,
    imports_for,
)
from .marks import comments, taking
from .parts import stands_in
from .reading import uses_of
from .set_elsewhere import switches
from .spelled import to_be_filled
from .templates import is_plain

Values = Mapping[str, Any]
_STANDS_IN = "a layer that stands in: put your own part in its place"
_FURTHER = ("create", "build", "setup", "configure_model", "initialize", "init_weights")
_WIDTH = 96
_MANY = 3  # entries of a dict or of an object, from which on each has a line
_LONGEST = 60  # of a default that is shown
_EMPTY = inspect.Parameter.empty


def pasted(
    thing: Callable[..., Any],
    label: str,
    made: Values,
    batch: Sequence[str] = (),
    *,
    with_batch: bool = False,
    forwardless: bool = False,
    model: nn.Module | None = None,
) -> str:
    """The file with the commands that use it: one of its own, or the end of the user's file.

    `batch` are the lines of a function with the batch that was tried; without any the arguments of
    forward are to be filled in. `with_batch` says that the batch is to be handed over too, and
    `forwardless` that the class leaves it to its user how its methods, and the parts of `model`,
    go together.
    """
    place = label.rpartition(":")[0]
    if place.endswith(".py") and not isinstance(thing, type) and not made:
        return as_it_stands(thing, place, batch)
    batch = list(batch) or (to_be_filled(thing) if isinstance(thing, type) else [])
    imports, function = parted(batch)
    home = place if place.endswith(".py") else "make_vae.py"
    own = str(getattr(thing, "__module__", "")) if place.endswith(".py") else ""
    needed = [*_imports(made, own), *imports]
    lines = [f"{MARK}what your own values import"]
    if place.endswith(".py"):
        header = f"or at the end of {place}:"
    else:
        header = "or in a file of your own, make_vae.py:"
        needed.append(f"from {thing.__module__} import {_outer(thing)}")
    lines += [*sorted(dict.fromkeys(needed)), "", *_classes(made), ""]
    bare = forwardless or _has_no_forward(thing)
    lines += [*_whole(thing, model, needed=forwardless), "", ""] if bare else []
    lines += _model("Whole" if bare else _called(thing), thing, made)
    if function:
        lines += ["", "", *function]
    return "\n".join([header, "", *lines, "", *_commands(home, bool(function), with_batch)])


def _commands(home: str, has_batch: bool, with_batch: bool) -> list[str]:
    plain = f"vaedoctor check {home}:make_vae"
    whole = f"{plain} --input {home}:one_batch"
    if not has_batch:
        return [plain]
    return [whole] if with_batch else [plain, "", f"or with a batch of your own: {whole}"]


def _outer(thing: Any) -> str:
    """What is imported for a class: the class around it where it stands in one."""
    return _called(thing).partition(".")[0]


def _called(thing: Any) -> str:
    name = str(getattr(thing, "__qualname__", ""))
    return name_of(thing) if not name or "<" in name else name


def _imports(made: Values, own: str) -> list[str]:
    told = [g.about for v in made.values() for g in gaps_in(v)]
    spoken = {f"import {m}" for m in ("numpy", "torch") if any(f"{m}." in t for t in told)}
    return [*imports_for(dict(made), own), *spoken]


def _classes(made: Values) -> list[str]:
    """The classes that stand in for the user's own parts, with what they need."""
    kinds: list[Any] = classes_written(dict(made))
    if not kinds:
        return []
    bases = {f"from {k.base.__module__} import {k.base.__name__}" for k in kinds if k.base}
    spaces = any("SimpleNamespace" in k.text for k in kinds)
    more = ["from types import SimpleNamespace"] if spaces else []
    of_torch = ["from torch import nn"] if any("nn." in k.text for k in kinds) else []
    imports = [*more, *sorted(bases), *of_torch]
    return [*imports, "", *(line for k in kinds for line in (*k.text.splitlines(), ""))]


def _has_no_forward(thing: Any) -> bool:
    paired = all(hasattr(thing, n) for n in ("model", "guide"))  # which Pyro calls
    plain = isinstance(thing, type) and getattr(thing, "forward", 0) is nn.Module.forward
    return plain and not paired


def _whole(thing: Callable[..., Any], model: nn.Module | None, *, needed: bool) -> list[str]:
    """A class with a forward pass to be written, beside the methods and parts that there are.

    Where it is not known to be `needed`, it stands in comments.
    """
    names = [n for n in dir(thing) if n[0] != "_" and inspect.isroutine(getattr(thing, n, None))]
    own = [n for n in names if not is_library(_owner(thing, n))]
    known = [f"{n}({', '.join(_taken(thing, n))})" for n in own]
    said = textwrap.wrap(", ".join(known), _WIDTH - 8, initial_indent="its methods: ")
    if model is not None:
        parts = [f"{n}({', '.join(_taken(type(m), 'forward'))})" for n, m in model.named_children()]
        said += textwrap.wrap(", ".join(parts), _WIDTH - 8, initial_indent="its parts: ")
    lead = "" if needed else "# "
    return [
        f"class Whole({_called(thing)}):",
        '    """With a forward pass of its own."""',
        "",
        f"    {lead}def forward(self, x):  {MARK}what it takes",
        *(f"        # {line}" for line in said),
        f"    {lead}    return ...  {MARK}encode, sample, decode",
    ]


def _taken(kind: Any, name: str) -> list[str]:
    """The names of what a method is given, without the object itself."""
    held = inspect.getattr_static(kind, name)
    try:
        names = list(inspect.signature(getattr(kind, name)).parameters)
    except (TypeError, ValueError):
        return ["..."]
    return names if isinstance(held, staticmethod | classmethod) else names[1:]


def _owner(kind: Any, name: str) -> type:
    mro: tuple[type, ...] = kind.__mro__
    return next(k for k in mro if name in vars(k))


def _model(called: str, thing: Callable[..., Any], made: Values) -> list[str]:
    """The function that makes the model, a line for each argument."""
    lines = ["def make_vae():", f"    model = {called}("]
    lines += [f"        {line}" for line in _arguments(thing, made)]
    lines.append("    )")
    lines += [f"    # model = model.{name}()  {MARK}if it is made so" for name in _further(thing)]
    lines += [
        f"    # model.{n} = {not v}  {MARK}it is {v}, and asked for" for n, v in switches(thing)
    ]
    return [*lines, f"    return model  {MARK}or what a further call makes of it"]


def _arguments(thing: Callable[..., Any], made: Values) -> Iterator[str]:
    """The arguments with what is known of each: first those that are given, then the defaults."""
    signature, hints = signature_of(thing), annotations_of(thing)
    module = sys.modules.get(str(getattr(thing, "__module__", "")))
    uses = uses_of(thing, vars(module) if module is not None else {})
    for key, value in made.items():
        gaps = list(gaps_in(value))
        yield from comments(thing, key, gaps)
        yield from _signatures(value)
        p = signature.parameters.get(key)
        about = known(hint_of(thing, p, hints), uses.get(key)) if p is not None else ""
        if gaps:
            said = "; ".join(g.about for g in gaps if g.about) or about or key
        elif isinstance(value, Typed):
            said = "as you gave it"
        elif isinstance(value, Call) and stands_in(value):
            said = _STANDS_IN
        else:
            said = f"made up: {about}" if about else "made up"
        yield from _argument(key, value, said)
    for p in signature.parameters.values():
        if p.kind is p.VAR_KEYWORD and p.name not in made:
            yield f"# name=value,  {MARK}more by name, as `**{p.name}`"
        elif p.default is not _EMPTY and p.name not in made:
            shown = expression(p.default) if is_plain(p.default) else "..."
            shown = shown if len(shown) <= _LONGEST else "..."
            yield f"# {p.name}={shown},  {MARK}its default"


def _argument(key: str, value: Any, said: str) -> Iterator[str]:
    """`key=value,` with its mark; a line for each entry of what has many."""
    entries = value.values if isinstance(value, Call) else value
    plain = type(value) is dict
    if (
        not (plain or isinstance(value, Call))
        or len(entries) < _MANY
        or any(isinstance(k, int) for k in entries)
    ):
        yield f"{key}={expression(value)},  {MARK}{said}"
        return
    opened = "{" if plain else f"{expression(Call(value.thing, {}))[:-1]}"
    yield f"{key}={opened}  {MARK}{said}"
    for name, inner in entries.items():
        gaps = "; ".join(g.about for g in gaps_in(inner) if g.about)
        at = f"{name!r}: " if plain else f"{name}="
        yield f"    {at}{expression(inner)},  {MARK}{gaps or 'made up'}"
    yield "}," if plain else "),"


def _signatures(value: Any) -> Iterator[str]:
    """What the classes among made-up values take, as comments."""
    for kind in dict.fromkeys(_kinds(value)):
        yield from textwrap.wrap(
            taking(kind), _WIDTH - 8, initial_indent="# ", subsequent_indent="#   "
        )


def _kinds(value: Any) -> Iterator[type]:
    if isinstance(value, Call):
        if isinstance(value.thing, type) and not is_library(value.thing):
            yield value.thing
        yield from _kinds(list(value.values.values()))
    elif isinstance(value, dict | list | tuple):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _kinds(inner)


def _further(thing: Any) -> list[str]:
    """The methods of a class's own library that may have to be called before it is whole."""
    if not isinstance(thing, type) or not issubclass(thing, nn.Module):
        return []
    found = []
    for name in _FURTHER:
        owner = next((k for k in thing.__mro__ if name in vars(k)), None)
        if owner is None or is_library(owner):
            continue
        if inspect.isfunction(method := vars(owner)[name]) and not _asks(method):
            found.append(name)
    return found


def _asks(method: Callable[..., Any]) -> bool:
    _, *more = inspect.signature(method).parameters.values()
    spread = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return any(p.default is _EMPTY and p.kind not in spread for p in more)


def home_of(label: str) -> str:
    """The file of `make_vae`: the user's own, or one that is to be written."""
    place = label.rpartition(":")[0]
    return place if Path(place).suffix == ".py" else "make_vae.py"
