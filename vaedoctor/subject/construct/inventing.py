"""Values for what a constructor asks for and nobody gave: by type, by use, by name, in this order.

What the code does with a value says more than its name: `cfg["act"] == "relu"` is a choice between
words, `c, h, w = shape` three numbers, `Encoder(cfg)` a matter of that class.
"""

from __future__ import annotations

import dataclasses
import enum
import inspect
import re
import sys
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from ..code.callees import is_from_torch
from ..code.signatures import annotations_of, hint_of, required, signature_of
from ..code.uses import Use
from ..trials.witness import calls_none, user_frame
from .answers import NAMES
from .bases import makable
from .constants import constants_for
from .making import Call, namespace_of
from .parts import is_written
from .reading import uses_of
from .sizes import Sizes
from .tables import is_of_data, is_table, table

_EMPTY = inspect.Parameter.empty
_ITEMS = 2
_DEEPEST = 5
_ACTIVATIONS = ("act", "nonlin", "nl", "activation")


class Inventor:
    """Makes values up; a name always gets the same value, other names get others."""

    def __init__(self, sizes: Sizes, namespace: Mapping[str, Any]) -> None:
        self.sizes = sizes
        self.namespace = namespace
        self._building: list[type] = []

    def choices(self, name: str, annotation: Any = _EMPTY, use: Use | None = None) -> list[Any]:
        """Values worth trying, the likeliest first; empty when nothing is known."""
        use = use or Use()
        if (known := self.sizes.known(name)) is not _EMPTY:
            return [known]
        set_in_file = constants_for(name, annotation, self.namespace)
        return [*set_in_file, *self._invented(name, annotation, use)]

    def _invented(self, name: str, annotation: Any, use: Use) -> list[Any]:
        for find in (self._by_type, self._by_use):
            found = find(name, annotation, use)
            if found:
                return found
        return self._by_name(name, annotation, use)

    def _by_type(self, name: str, annotation: Any, use: Use) -> list[Any]:
        origin, args = typing.get_origin(annotation), typing.get_args(annotation)
        if origin in (typing.Union, types.UnionType):
            inner = [a for a in args if a is not type(None)]
            found = [c for a in inner for c in self._by_type(name, a, use)]
            if found and int in inner:  # `int | list[int]`: one will do
                several = use.items or use.keys or use.count
                one = self._by_name(name, int, use)
                found = [*found, *one] if several else [*one, *found]
            return found or ([None] if type(None) in args and not use.said else [])
        if origin is typing.Annotated:
            return self._by_type(name, args[0], use)
        if origin is typing.Literal:
            return list(args)
        if origin is type and args and isinstance(args[0], type):
            return self._classes(name, args[0])
        if annotation is bool:
            return [False, True]
        if annotation is torch.device:
            return [torch.device("cpu")]
        if annotation is torch.dtype:
            return [torch.float32]
        if annotation is tuple and self.sizes.kind(name.partition(".")[0]) == "input":
            return [(1, 28, 28), (3, 32, 32)]
        if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
            return list(annotation)
        if isinstance(annotation, type) and self._is_own(annotation):
            return [
                made for kind in makable(annotation, use.methods) for made in self._built(kind, use)
            ]
        if annotation is nn.Module:
            return self._components(name, use)
        if origin in (dict, Mapping) and args[0] is str:
            return self._mappings(name, use, args[1])
        if isinstance(origin, type) and issubclass(origin, Sequence):
            return self._lists(name, use, args[0] if args else _EMPTY, origin, args)
        return []

    def _by_use(self, name: str, annotation: Any, use: Use) -> list[Any]:
        if use.fallback is not _EMPTY and use.fallback is not None:
            return [use.fallback]
        package = str(self.namespace.get("__name__")).partition(".")[0]
        asked = [k for kind in use.kinds if _top(kind) == package for k in makable(kind)]
        if use.called is not None:
            asked = [k for k in asked if getattr(k, "forward", None) is not nn.Module.forward]
        if found := [made for kind in asked for made in self._built(kind, use)]:
            return found
        words = list(dict.fromkeys(e for e in use.equals if isinstance(e, str)))
        if words and annotation in (_EMPTY, str):
            return words
        members = [e for e in use.equals if isinstance(e, enum.Enum)]
        if members:
            return list(type(members[0]))
        numbers = list(dict.fromkeys(e for e in use.equals if type(e) is int))
        use.number = use.number or (bool(numbers) and not words)
        if len(numbers) > 1 and annotation in (_EMPTY, int) and not use.names:
            return numbers
        if use.part and not _is_component(name, Use()):
            return [Call(nn.ReLU, {})]
        if use.of_torch:
            return ["ReLU", "relu"]
        if use.called is not None or _is_component(name, use):
            of_any_kind = annotation is nn.Module
            found = self._components(name, use) or self._stand_ins(
                name, use, of_any_kind=of_any_kind
            )
            if found:
                return found
        if annotation is nn.Module:
            return self._stand_ins(name, use, of_any_kind=True)
        if use.attributes or use.methods:
            found = self._objects(use)
            if not found and use.methods and is_of_data(name):
                found = [table(name, use, lambda n, u: self.choices(n, use=u) or [self._count(n)])]
            return found
        if any(isinstance(k, str) for k in use.keys):
            return self._entries(use)
        if use.mapping:
            return self._mappings(name, use)
        if annotation in (int, float, str):
            return []
        return self._sequences(name, use)

    def _sequences(self, name: str, use: Use) -> list[Any]:
        if use.count is not None or (use.keys and not _is_list_name(self.sizes, name)):
            return self._positions(name, use)
        if use.items is not None:
            return self._lists(name, use, _EMPTY, list, ())
        if use.sized and not use.number:
            if "input" in {self.sizes.kind(n) for n in use.names}:
                return [(1, 28, 28), (3, 32, 32)]
            size = self.sizes.choices(name) or self.sizes.choices("vocab_size")
            return [Call(range, {}) if False else list(range(size[0]))] if size else []
        return []

    def _by_name(self, name: str, annotation: Any, use: Use) -> list[Any]:
        if use.number and use.items is None and annotation is _EMPTY:
            annotation = int if not self.sizes.named(name) else annotation
        pictured = "in_channels" in use.names and self.sizes.kind(name) == "input"
        found = self.sizes.choices("in_channels" if pictured else name, annotation)
        for other in dict.fromkeys(n for n in use.names if n):
            if found:
                break
            if not is_role(other):
                found = self.sizes.choices(other, annotation)
        if found or annotation is str:
            return found or [NAMES[0]]
        if annotation is float:
            return [0.5]
        if use.number or annotation is int:
            roles = {"in_features", "in_channels", "input_size"}
            kind = "input" if roles & set(use.names) else "other"
            return [self.sizes.one(name, kind)]
        if not use.said and annotation is _EMPTY and not _is_component(name, use):
            return [self.sizes.one(name, "other")]  # it is only kept
        return [1] if name.endswith(("idx", "index", "_id")) else []

    def _lists(
        self, name: str, use: Use, inner: Any, origin: Any, args: tuple[Any, ...]
    ) -> list[Any]:
        """A short list of sizes, or of whatever its elements are."""
        if use.count is not None or (args and Ellipsis not in args and origin is tuple):
            return self._positions(name, use, len(args) or None)
        named = [c for c in self.sizes.named(name) if isinstance(c, tuple | list)]
        if use.sized and self.sizes.kind(name) == "input" and not named:
            named = [(1, 28, 28), (3, 32, 32)]
        if named:
            return named
        element = use.items or Use()
        if inner is str and not element.equals:
            return [tuple(NAMES) if origin is tuple else list(NAMES)]
        if element.count is not None or element.attributes or element.called is not None:
            one = self.choices(name.removesuffix("s") or name, inner, element)
            found = [[c, _renamed(c)] for c in one]
        elif words := list(dict.fromkeys(e for e in element.equals if isinstance(e, str))):
            found = [[word] * _ITEMS for word in words]
        else:
            dims = [self.sizes.one(f"{name}.{i}", "hidden") for i in range(_ITEMS)]
            found = [dims, dims[:1]]
        if origin is tuple:
            return [tuple(f) for f in found]
        return found if inner is not _EMPTY else [*found, *(tuple(f) for f in found[:1])]

    def _positions(self, name: str, use: Use, count: int | None = None) -> list[Any]:
        """`c, h, w = shape`: one value for each name it is unpacked into."""
        named = [c for c in self.sizes.named(name) if isinstance(c, tuple)]
        length = count or use.count or max(k for k in use.keys if isinstance(k, int)) + 1
        fitting = [c for c in named if len(c) == length]
        if fitting:
            return fitting
        initials = "".join(n[:1].lower() for n in self._names(use, length))
        if length == 3 and (
            initials == "chw" or (not initials and self.sizes.kind(name) == "input")
        ):
            return [(1, 28, 28), (3, 32, 32)]
        values = []
        for index in range(length):
            inner = use.keys.get(index) or use.items or Use()
            own = next((n for n in inner.names if n), f"{name}.{index}")
            options = self.choices(own, _EMPTY, inner) or [self.sizes.one(own, "other")]
            values.append(options[0])
        return [values, tuple(values)]

    @staticmethod
    def _names(use: Use, length: int) -> list[str]:
        return [next(iter(use.keys[i].names), "") if i in use.keys else "" for i in range(length)]

    def _objects(self, use: Use) -> list[Any]:
        """`args`, `opt`: a class of the file that has what is read, else a bare one."""
        read = {*use.attributes, *use.methods}
        found = []
        for kind in self._own_classes():
            if read <= fields_of(kind) and not issubclass(kind, nn.Module):
                found += self._built(kind, use)
        children = self._children(use.attributes)
        bare = children is not None and not use.methods
        return found + ([namespace_of(children or {})] if bare else [])

    def _entries(self, use: Use) -> list[Any]:
        read = {k: u for k, u in use.keys.items() if isinstance(k, str) and not u.tested}
        tested = len(read) < len(use.keys)
        children = self._children(read, needed=not tested)
        return [] if children is None else [children]

    def _children(self, uses: Mapping[str, Use], *, needed: bool = True) -> dict[str, Any] | None:
        """A value for each; where not all are `needed`, those that can be made up."""
        found = {}
        for key, use in uses.items():
            options = self.choices(key, _EMPTY, use)
            if not options and use.said:
                if needed:
                    return None
                continue
            found[key] = options[0] if options else None
        return found

    def _mappings(self, name: str, use: Use, inner: Any = _EMPTY) -> list[Any]:
        element = use.items or Use()
        found = {}
        for key in NAMES:
            options = self.choices(f"{name}.{key}", inner, element)
            if not options:
                return []
            found[key] = options[0]
        return [found]

    def _components(self, name: str, use: Use) -> list[Any]:
        """Modules of the same file for `encoder`; an activation or a norm where one is meant."""
        bare = name.lower().replace("_", "")
        if any(a in bare for a in _ACTIVATIONS):
            made = [nn.ReLU, Call(nn.ReLU, {})]
            return [*(made[::-1] if use.called == 1 else made), "relu"]
        if "norm" in bare:
            return [nn.LayerNorm, nn.BatchNorm1d, nn.BatchNorm2d]
        found = []
        for kind in sorted(self._own_classes(), key=lambda k: -likeness(k.__name__, bare)):
            like = likeness(kind.__name__, bare)
            if issubclass(kind, nn.Module) and like and kind not in self._building:
                found += [c for k in makable(kind) for c in self._built(k, Use()) if c not in found]
        return found

    def _stand_ins(self, name: str, use: Use, *, of_any_kind: bool = False) -> list[Any]:
        """A plain layer for a part that is called with one tensor and that nobody defines here."""
        bare = name.lower()
        of_a_layer = {*use.attributes, *use.methods} <= _LAYERS_OWN
        other = not of_a_layer or use.keys or use.number or use.items or use.sized
        if use.called not in (None, 1) or other or self.sizes.is_list(bare):
            return []
        parts = (k for k in self._own_classes(near=False) if issubclass(k, nn.Module))
        likes = (likeness(k.__name__, bare.replace("_", "")) for k in parts)
        if (self._building and not of_any_kind) or any(likes):
            return []  # of how many axes the result should be is known to the file's own part only
        wide, inner, code = (self._size(n) for n in ("input_dim", "hidden_dim", "latent_dim"))
        if "emb" in bare:
            table = {"num_embeddings": self._size("vocab_size"), "embedding_dim": inner}
            return [Call(nn.Embedding, table), _linear(wide, inner)]
        if bare.startswith(("dec", "gen")):
            return [_linear(code, wide)]
        if bare.startswith(("enc", "inf")):
            return [_linear(wide, inner)]
        return [_linear(inner, inner)]

    def _count(self, name: str) -> int:
        return self.sizes.one(name, "other")

    def _size(self, name: str) -> int:
        options = [o for o in self.sizes.choices(name) if type(o) is int]
        return options[0] if options else self.sizes.one(name, "other")

    def _classes(self, name: str, base: type) -> list[Any]:
        if base is nn.Module:
            return [nn.LayerNorm, nn.BatchNorm1d] if "norm" in name.lower() else [nn.ReLU]
        return [k for k in self._own_classes() if issubclass(k, base)]

    def _built(self, kind: type, use: Use) -> list[Any]:
        """An object of a class of the file, its own required arguments made up in turn."""
        if kind in self._building or len(self._building) >= _DEEPEST or inspect.isabstract(kind):
            return []
        self._building.append(kind)
        try:
            values = self._values(kind, use)
        finally:
            self._building.pop()
        calls = [] if values is None else [Call(kind, v) for v in values]
        return [c for c in calls if _can_be_made(c)]

    def _values(self, kind: type, use: Use) -> list[dict[str, Any]] | None:
        """Its arguments: those of default None that are read are given first, then left out."""
        uses, hints = uses_of(kind, self.namespace), annotations_of(kind)
        needed: dict[str, Any] = {}
        read: dict[str, Any] = {}
        signature = signature_of(kind)
        for p in signature.parameters.values():
            asked = use.attributes.get(p.name)
            optional = p.default is None and asked is not None and asked.said
            if p not in required(signature) and not optional:
                continue
            inner = asked or uses.get(p.name)
            options = self.choices(p.name, hint_of(kind, p, hints), inner)
            if options and optional:
                read[p.name] = options[0]
            elif options:
                needed[p.name] = options[0]
                self.sizes.note(p.name, options[0])
            elif not optional:
                return None
        return [needed | read, needed] if read else [needed]

    def _own_classes(self, *, near: bool = True) -> Iterator[type]:
        """The classes that stand in the module, then those it imports from its own package."""
        own = str(self.namespace.get("__name__"))
        kinds = [k for k in self.namespace.values() if isinstance(k, type)]
        yield from (k for k in kinds if k.__module__ == own)
        package, dot, _ = own.partition(".")
        if near and dot:
            yield from (k for k in kinds if k.__module__ != own and _top(k) == package)

    def _is_own(self, kind: type) -> bool:
        """Whether a class is the user's (or their library's), not Python's or torch's."""
        return not is_from_torch(kind) and _top(kind) not in _STANDARD


def _top(kind: type) -> str:
    return kind.__module__.partition(".")[0]


def _renamed(value: Any) -> Any:
    """The second of two equal objects, under a name of its own where it has one."""
    if not isinstance(value, Call):
        return value
    names = {k: f"{v}_2" for k, v in value.values.items() if k == "name" and isinstance(v, str)}
    return Call(value.thing, {**value.values, **names})


def _linear(wide: int, out: int) -> Call:
    return Call(nn.Linear, {"in_features": wide, "out_features": out})


def stands_in(values: Any) -> bool:
    """Whether a layer of torch's stands in the place of a part among made-up values."""
    if is_table(values):
        return True
    if isinstance(values, Call):
        plain = values.thing in (nn.Linear, nn.Embedding) or is_written(values.thing)
        return plain or stands_in(dict(values.values))
    if isinstance(values, Mapping):
        return any(map(stands_in, values.values()))
    return isinstance(values, list | tuple) and any(map(stands_in, values))


def given_too(
    built: Any, error: BaseException | None, namespace: Mapping[str, Any]
) -> dict[str, Any] | None:
    """The made-up values with an optional argument, whose lack a module's attribute tells."""
    lacks = _lacks(error)
    if lacks is None:
        return None
    kind, name = lacks
    parameter = signature_of(kind).parameters.get(name)
    if parameter is None or parameter.default is not None:
        return None
    inventor = Inventor(Sizes(), namespace)
    use = uses_of(kind, namespace).get(name)
    options = inventor.choices(name, annotations_of(kind).get(name, _EMPTY), use)
    if not options:
        return None
    values = dict(built.made_up)
    if kind is type(built.model):
        return {**values, name: options[0]} if name not in values else None
    changed: Any = _given_inside(values, kind, name, options[0])
    return None if changed == values else changed


def calls_what_nobody_gave(model: nn.Module, error: BaseException | None) -> bool:
    """Whether a part was called that is None, as it is unless the constructor is given one."""
    none = calls_none(error) or (isinstance(error, AttributeError) and error.obj is None)
    lacks = _lacks(error) if none else None
    if lacks is None or lacks[0] is not type(model):
        return False
    parameter = signature_of(lacks[0]).parameters.get(lacks[1])
    return parameter is not None and parameter.default is None


def _lacks(error: BaseException | None) -> tuple[type, str] | None:
    """The class and the name of a module's attribute that is not there, or None and called."""
    if isinstance(error, AttributeError) and isinstance(error.obj, nn.Module):
        return type(error.obj), str(error.name)
    frame = user_frame(error)
    if frame is None:
        return None
    held = frame[0].f_locals.get("self")
    if calls_none(error):
        called = re.findall(r"\bself\.(\w+)\(", frame[1])
    elif isinstance(error, AttributeError) and error.obj is None:
        called = re.findall(rf"\bself\.(\w+)\.{error.name}\b", frame[1])
    else:
        return None
    unset = [n for n in called if getattr(held, n, held) is None]
    return (type(held), unset[0]) if isinstance(held, nn.Module) and unset else None


def _given_inside(values: Any, kind: type, name: str, option: Any) -> Any:
    if isinstance(values, Call):
        inside = _given_inside(dict(values.values), kind, name, option)
        return Call(values.thing, {name: option, **inside} if values.thing is kind else inside)
    if isinstance(values, Mapping):
        return {k: _given_inside(v, kind, name, option) for k, v in values.items()}
    return values


def is_role(name: str) -> bool:
    """Whether a parameter's name says what a layer does with it, not what it is."""
    return name in _ROLES


def _can_be_made(call: Call) -> bool:
    try:
        call.made()
    except KeyboardInterrupt:
        raise
    except BaseException:
        return False
    return True


def _is_component(name: str, use: Use) -> bool:
    """`encoder`, `dec_net`: a part that is called later, perhaps in a method not read."""
    if _COUNTED.search(name.lower()):
        return False
    bare = name.lower().replace("_", "")
    return (
        not use.number
        and not use.keys
        and bare.startswith(("enc", "dec"))
        and not bare.startswith("decay")
        and not use.attributes
    )


def _is_list_name(sizes: Sizes, name: str) -> bool:
    return sizes.is_list(name)


def likeness(kind: str, bare: str) -> int:
    """How much of a parameter's name a class's name holds: `enc` and `Encoder` share three."""
    lower = kind.lower()
    if bare == lower:
        return 100
    stem = bare.removesuffix("net").removesuffix("module").removesuffix("model")
    if stem and (stem in lower or lower in stem):
        return len(stem)
    return 3 if len(stem) >= 3 and stem[:3] in {"enc", "dec", "pri"} and stem[:3] in lower else 0


def fields_of(kind: type) -> set[str]:
    """What an object of a class has: fields, class attributes, constructor parameters, methods."""
    found = {f.name for f in dataclasses.fields(kind)} if dataclasses.is_dataclass(kind) else set()
    found |= set(getattr(kind, "__annotations__", {})) | set(signature_of(kind).parameters)
    return found | {k for k in dir(kind) if not k.startswith("__")}


_COUNTED = re.compile(r"(depth|dims?|sizes?|layers?|heads?|num|width|channels?|features?|len)\d*$")
_LAYERS_OWN = frozenset(dir(nn.Linear))
_ROLES = frozenset(
    "in_features out_features in_channels out_channels input_size hidden_size num_features p "
    "normalized_shape num_embeddings embedding_dim self input x num_channels".split()
)
_STANDARD = sys.stdlib_module_names | {"numpy"}
