"""Made-up lists, tuples and mappings: of sizes, or of whatever their elements are."""

from __future__ import annotations

import inspect
import re
import typing
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..code.uses import Use
from .answers import NAMES
from .making import Call

if TYPE_CHECKING:
    from .inventing import Inventor

_EMPTY = inspect.Parameter.empty
_ITEMS = 2
_DILATIONS = re.compile(r"dilat")
_GROWING = (1, 3, 5)  # of which a block of two layers reads the first two


class Containers:
    """Fills what holds several values, each as the inventor would make it up."""

    def __init__(self, inventor: Inventor) -> None:
        self.of = inventor

    def sequences(self, name: str, use: Use) -> list[Any]:
        """What is unpacked, walked over or measured, where no type says so."""
        if use.count is not None or (use.keys and not self.of.sizes.is_list(name)):
            return self.positions(name, use)
        if use.items is not None:
            return self.lists(name, use, _EMPTY, list, ())
        if use.sized and not use.number:
            if "input" in {self.of.sizes.kind(n) for n in use.names}:
                return [(1, 28, 28), (3, 32, 32)]
            size = self.of.sizes.choices(name) or self.of.sizes.choices("vocab_size")
            if size and type(size[0]) is not int:
                return [s for s in size if isinstance(s, list | tuple)]  # `strides`: a usual list
            return [list(range(size[0]))] if size else []
        return []

    def lists(
        self, name: str, use: Use, inner: Any, origin: Any, args: tuple[Any, ...]
    ) -> list[Any]:
        """A short list of sizes, or of whatever its elements are."""
        if use.count is not None or (args and Ellipsis not in args and origin is tuple):
            return self.positions(name, use, len(args) or None)
        if (rows := self._nested(name, use, inner, origin)) is not None:
            return rows
        named = [c for c in self.of.sizes.named(name) if isinstance(c, tuple | list)]
        if use.sized and self.of.sizes.kind(name) == "input" and not named:
            named = [(1, 28, 28), (3, 32, 32)]
        if named:
            typed = origin is list and inner is not _EMPTY
            return [list(c) for c in named] if typed else named
        element = use.items or Use()
        if inner is str and not element.equals:
            return [tuple(NAMES) if origin is tuple else list(NAMES)]
        if element.count is not None or element.attributes or element.called is not None:
            one = self.of.choices(name.removesuffix("s") or name, inner, element)
            found = [[c, _renamed(c)] for c in one]
        elif words := list(dict.fromkeys(e for e in element.equals if isinstance(e, str))):
            found = [[word] * _ITEMS for word in words]
        else:
            dims = [self.of.sizes.one(f"{name}.{i}", "hidden") for i in range(_ITEMS)]
            found = [dims, dims[:1]]
        if origin is tuple:
            return [tuple(f) for f in found]
        return found if inner is not _EMPTY else [*found, *(tuple(f) for f in found[:1])]

    def _nested(self, name: str, use: Use, inner: Any, origin: Any) -> list[Any] | None:
        """`Sequence[Sequence[int]]`: as many lists as any other list is long, to go beside it."""
        kind, args = typing.get_origin(inner), typing.get_args(inner)
        if not (isinstance(kind, type) and issubclass(kind, Sequence)):
            return None
        within = self.lists(name, use.items or Use(), args[0] if args else _EMPTY, kind, args)
        if _DILATIONS.search(name) and args and args[0] is int:
            within = [kind(_GROWING) if kind in (list, tuple) else list(_GROWING), *within]
        return [(tuple if origin is tuple else list)([w] * _ITEMS) for w in within]

    def positions(self, name: str, use: Use, count: int | None = None) -> list[Any]:
        """`c, h, w = shape`: one value for each name it is unpacked into."""
        named = [c for c in self.of.sizes.named(name) if isinstance(c, tuple)]
        length = count or use.count or max(k for k in use.keys if isinstance(k, int)) + 1
        fitting = [c for c in named if len(c) == length]
        if fitting:
            return fitting
        initials = "".join(n[:1].lower() for n in self._names(use, length))
        if length == 3 and (
            initials == "chw" or (not initials and self.of.sizes.kind(name) == "input")
        ):
            return [(1, 28, 28), (3, 32, 32)]
        values = []
        for index in range(length):
            inner = use.keys.get(index) or use.items or Use()
            own = next((n for n in inner.names if n), f"{name}.{index}")
            options = self.of.choices(own, _EMPTY, inner) or [self.of.sizes.one(own, "other")]
            values.append(options[0])
        return [values, tuple(values)]

    @staticmethod
    def _names(use: Use, length: int) -> list[str]:
        return [next(iter(use.keys[i].names), "") if i in use.keys else "" for i in range(length)]

    def entries(self, use: Use) -> list[Any]:
        """`cfg["latent"]`: a dict with the keys that are read."""
        read = {k: u for k, u in use.keys.items() if isinstance(k, str) and not u.tested}
        tested = len(read) < len(use.keys)
        children = self.children(read, needed=not tested)
        return [] if children is None else [children]

    def children(self, uses: Mapping[str, Use], *, needed: bool = True) -> dict[str, Any] | None:
        """A value for each; where not all are `needed`, those that can be made up."""
        found = {}
        for key, use in uses.items():
            options = self.of.choices(key, _EMPTY, use)
            if not options and use.said:
                if needed:
                    return None
                continue
            found[key] = options[0] if options else None
        return found

    def mappings(self, name: str, use: Use, inner: Any = _EMPTY) -> list[Any]:
        """`for name, size in sizes.items()`: a dict with names of our own."""
        element = use.items or Use()
        found = {}
        for key in NAMES:
            options = self.of.choices(f"{name}.{key}", inner, element)
            if not options:
                return []
            found[key] = options[0]
        return [found]


def _renamed(value: Any) -> Any:
    """The second of two equal objects, under a name of its own where it has one."""
    if not isinstance(value, Call):
        return value
    names = {k: f"{v}_2" for k, v in value.values.items() if k == "name" and isinstance(v, str)}
    return Call(value.thing, {**value.values, **names})
