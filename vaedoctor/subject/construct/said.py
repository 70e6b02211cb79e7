"""What a docstring says about a parameter: its type, its words, its shape of several sizes."""

from __future__ import annotations

import inspect
import re
import typing
from collections.abc import Callable
from typing import Any

from torch import nn

from ..code.callees import constructor_of

_CHOICE = re.compile(
    r"(?:one of|choose (?:from|between|one of)|either|options?(?: are)?|choices|can be|must be|"
    r"supported|in)\W{0,3}((?:[`'\"]\w[\w-]*[`'\"](?:\s*(?:,|or|\||and|/)+\s*)*){2,})",
    re.IGNORECASE,
)
_BRACED = re.compile(r"[{\[(]\s*((?:['\"]\w[\w-]*['\"]\s*,?\s*){2,})[}\])]")
_WORD = re.compile(r"[`'\"](\w[\w-]*)[`'\"]")
_SIZES = re.compile(
    r"(list|sequence|tuple|array|iterable|array_like)s?\b.{0,30}?\b(int|number|size|dim|unit|width)",
    re.IGNORECASE,
)
_TYPES: dict[str, Any] = {
    "int": int, "integer": int, "float": float, "bool": bool, "boolean": bool, "str": str,
    "string": str, "list": list[int], "tuple": tuple[int, ...], "sequence": list[int],
    "nn.module": nn.Module, "torch.nn.module": nn.Module, "module": nn.Module,
}  # fmt: skip


def entry(thing: Callable[..., Any], name: str) -> tuple[str, str]:
    """The type and the text that the docstring of a class, constructor or base gives a name."""
    kinds = thing.__mro__ if isinstance(thing, type) else (thing,)
    for kind in kinds:
        if kind is nn.Module or kind is object:
            break
        for owner in (kind, constructor_of(kind) if isinstance(kind, type) else None):
            text = inspect.cleandoc(getattr(owner, "__doc__", None) or "")
            if any(found := _entry(text.splitlines(), name)):
                return found
    return "", ""


def said_type(thing: Callable[..., Any], name: str) -> Any:
    """The type of a parameter by its docstring; `inspect.Parameter.empty` where it says none."""
    kind, text = entry(thing, name)
    for found in (_BRACED.search(kind), _BRACED.search(text), _CHOICE.search(text)):
        if found is not None and len(words := _WORD.findall(found[1])) > 1:
            return typing.Literal[tuple(dict.fromkeys(words))]
    for said in (kind, text):
        if said and _SIZES.search(re.sub(r":\w+:|`", "", said)):
            return list[int]
    first = re.split(r"[,;\[]| or ", re.sub(r":\w+:|`|\(|\)", "", kind))[0].strip().lower()
    return _TYPES.get(first, inspect.Parameter.empty)


def _entry(lines: list[str], name: str) -> tuple[str, str]:
    """`name (type): text`, `name : type` above indented text, or `:param name: text`."""
    head = re.compile(
        rf"(\s*)(?::param\s+(?:[\w\[\]., |]+\s)?|[-*]\s+)?[`*]{{0,2}}{re.escape(name)}[`*]{{0,2}}"
        r"\s*(\([^:]*\))?\s*(?::(?!:)\s*(.*))?"
    )
    for index, line in enumerate(lines):
        found = head.fullmatch(line)
        if found is None:
            continue
        first, words = found[3] or "", []
        for later in lines[index + 1 :]:
            if not later.strip() or len(later) - len(later.lstrip()) <= len(found[1]):
                break
            words.append(later.strip())
        if found[2] is None and words:  # numpy's: the type alone stands beside the name
            return first, " ".join(words)
        return found[2] or "", " ".join(w for w in (first, *words) if w)
    return "", ""
