"""What is said at the place of an argument that the user has to fill in.

Its type and what is read of it, what the class's own docstring says about it, and the classes of
the same package that may be meant, with what they take.
"""

from __future__ import annotations

import inspect
import itertools
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import nn

from ..code.signatures import defaults_of, signature_of
from ..code.uses import Use
from .bases import fitting_first, makable, only_raises
from .inventing import Inventor
from .making import Call, Gap, expression
from .own_kinds import likeness
from .said import entry
from .sizes import Sizes

_MOST_SAID = 300
_MOST_CLASSES = 3
_WIDTH = 90
_LONGEST = 240  # of what a class takes, without the commas
_SHORT = 24
_EMPTY = inspect.Parameter.empty


def gap(
    thing: Callable[..., Any],
    name: str,
    about: str,
    hint: Any,
    use: Use | None,
    beside: Mapping[str, Any],
) -> Gap:
    """A place to be filled in, with all that is known about what belongs there.

    `beside` are the other arguments, whose sizes what is shown should agree with.
    """
    meant = (_made(kind, thing, beside) for kind in _classes(thing, name, hint, use))
    return Gap(about, documented(thing, name), tuple(meant))


def _made(kind: type, thing: Callable[..., Any], beside: Mapping[str, Any]) -> Call | type:
    """An object of a class that may be meant, with made-up arguments; the class if it has none."""
    module = sys.modules.get(str(getattr(thing, "__module__", "")))
    known = {**defaults_of(thing), **beside}
    sizes = Sizes({k: v for k, v in known.items() if type(v) is int and v > 0})
    inventor = Inventor(sizes, vars(module) if module is not None else {})
    return next(iter(inventor.kinds.built(kind, Use())), kind)


def comments(thing: Callable[..., Any], name: str, gaps: list[Gap]) -> list[str]:
    """The comment lines above an argument: its docstring, and what may stand in its gaps."""
    said = documented(thing, name)
    found = [f"{name}: {said}"] if said else []
    found += [one.said for one in gaps if one.said not in ("", said)]
    lines = [
        line
        for text in dict.fromkeys(found)
        for line in textwrap.wrap(
            text, _WIDTH, initial_indent="# ", subsequent_indent="#   ", break_long_words=False
        )
    ]
    meant = dict.fromkeys(_shown(like) for one in gaps for like in one.like)
    for i, text in enumerate(meant):
        first = f"# {'or' if i else 'such as'} "
        lines += textwrap.wrap(
            text, _WIDTH, initial_indent=first, subsequent_indent="#   ", break_long_words=False
        )
    return lines


def documented(thing: Callable[..., Any], name: str) -> str:
    """What the docstring of a class, of its constructor or of a base says about a parameter."""
    kind, said = entry(thing, name)
    text = said if kind.startswith("(") else " ".join(w for w in (kind, said) if w)
    return text if len(text) <= _MOST_SAID else text[: _MOST_SAID - 4].rstrip() + " ..."


def _classes(thing: Callable[..., Any], name: str, hint: Any, use: Use | None) -> Iterator[type]:
    """The classes of the same package that may be meant: by the type, else by the name."""
    package = str(getattr(thing, "__module__", "")).partition(".")[0]
    several = [a for a in getattr(hint, "__args__", ()) if a is not type(None)]
    hint = several[0] if len(several) == 1 else hint
    kinds = [k for k in (hint, *several) if _is_of(k, package)]
    if kinds:
        asked = use.methods if use is not None else ()
        whole = dict.fromkeys(m for k in kinds for m in makable(k, asked))
        called = use.called if use is not None else None
        yield from fitting_first(whole, called)[:_MOST_CLASSES]
        return
    if isinstance(hint, type) and hint.__module__ == "builtins":
        return
    read = (*use.attributes, *use.methods) if use is not None else ()
    part = hint is nn.Module or (use is not None and use.called is not None)
    bare = name.lower().replace("_", "")
    found = {
        k: like
        for module in [m for n, m in sys.modules.items() if n.partition(".")[0] == package]
        for k in list(vars(module).values())
        if _is_of(k, package)
        and k is not thing
        and (like := likeness(k.__name__, bare)) >= 3
        and issubclass(k, nn.Module) >= part
        and not any(only_raises(k, n) for n in read)
    }
    yield from sorted(found, key=lambda k: -found[k])[:_MOST_CLASSES]


def _is_of(kind: Any, package: str) -> bool:
    return isinstance(kind, type) and kind.__module__.partition(".")[0] == package != ""


def _shown(like: Call | type) -> str:
    """`Encoder(input_dim=37)` to be pasted, or a class; with all that it takes."""
    if not isinstance(like, Call):
        return taking(like)
    said = expression(like)
    whole = taking(like.thing) if isinstance(like.thing, type) else said
    return said if whole == said else f"{said}, of {whole}"


def taking(kind: type) -> str:
    """`Encoder(input_dim, latent_dim=16, ...)`: a class with what it takes."""
    names = [
        str(p).partition(":")[0] if p.default is _EMPTY else f"{p.name}={_short(p.default)}"
        for p in signature_of(kind).parameters.values()
    ]
    kept = list(itertools.takewhile(lambda n: n <= _LONGEST, itertools.accumulate(map(len, names))))
    more = ["..."] * (len(kept) < len(names))
    return f"{kind.__name__}({', '.join([*names[: len(kept)], *more])})"


def _short(default: Any) -> str:
    said = expression(default)
    return said if len(said) <= _SHORT and "<" not in said else "..."
