"""Values for what a constructor asks for and nobody gave: by type, by use, by name, in this order.

What the code does with a value says more than its name: `cfg["act"] == "relu"` is a choice between
words, `c, h, w = shape` three numbers, `Encoder(cfg)` a matter of that class.
"""

from __future__ import annotations

import enum
import inspect
import re
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from ..code.uses import Use
from .answers import NAMES
from .bases import makable
from .constants import constants_for
from .containers import Containers
from .making import Call
from .own_kinds import OwnKinds, top_of
from .sizes import Sizes
from .tables import is_of_data, table

_EMPTY = inspect.Parameter.empty
_COUNTED = re.compile(r"(depth|dims?|sizes?|layers?|heads?|num|width|channels?|features?|len)\d*$")
_ROLES = frozenset(
    "in_features out_features in_channels out_channels input_size hidden_size num_features p "
    "normalized_shape num_embeddings embedding_dim self input x num_channels".split()
)


class Inventor:
    """Makes values up; a name always gets the same value, other names get others."""

    def __init__(self, sizes: Sizes, namespace: Mapping[str, Any]) -> None:
        self.sizes = sizes
        self.namespace = namespace
        self.kinds = OwnKinds(self)
        self.containers = Containers(self)

    def choices(self, name: str, annotation: Any = _EMPTY, use: Use | None = None) -> list[Any]:
        """Values worth trying, the likeliest first; empty when nothing is known."""
        use, annotation = use or Use(), _EMPTY if annotation is any else annotation
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
            return self.kinds.classes(name, args[0])
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
        if isinstance(annotation, type) and self.kinds.is_own(annotation):
            return [
                made
                for kind in makable(annotation, use.methods)
                for made in self.kinds.built(kind, use)
            ]
        if annotation is nn.Module:
            return self.kinds.components(name, use)
        if origin in (dict, Mapping) and args[0] is str:
            return self.containers.mappings(name, use, args[1])
        if isinstance(origin, type) and issubclass(origin, Sequence):
            return self.containers.lists(name, use, args[0] if args else _EMPTY, origin, args)
        return []

    def _by_use(self, name: str, annotation: Any, use: Use) -> list[Any]:
        if use.fallback is not _EMPTY and use.fallback is not None:
            return [use.fallback]
        package = str(self.namespace.get("__name__")).partition(".")[0]
        asked = [k for kind in use.kinds if top_of(kind) == package for k in makable(kind)]
        if use.called is not None:
            asked = [k for k in asked if getattr(k, "forward", None) is not nn.Module.forward]
        if found := [made for kind in asked for made in self.kinds.built(kind, use)]:
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
        plain = annotation in (int, float, str, bool)
        if use.called is not None or (not plain and _is_component(name, use)):
            of_any_kind = annotation is nn.Module
            found = self.kinds.components(name, use) or self.kinds.stand_ins(
                name, use, of_any_kind=of_any_kind
            )
            if found:
                return found
        if annotation is nn.Module:
            return self.kinds.stand_ins(name, use, of_any_kind=True)
        if use.attributes or use.methods:
            found = self.kinds.objects(use)
            if not found and use.methods and is_of_data(name):
                found = [table(name, use, lambda n, u: self.choices(n, use=u) or [self._count(n)])]
            return found
        if any(isinstance(k, str) for k in use.keys):
            return self.containers.entries(use)
        if use.mapping:
            return self.containers.mappings(name, use)
        if annotation in (int, float, str):
            return []
        several = self.containers.sequences(name, use)
        if several and {tuple, list} & set(use.kinds):  # `x if isinstance(x, tuple) else (x, x)`
            return [*self._by_name(name, int, use), *several]
        return several

    def _by_name(self, name: str, annotation: Any, use: Use) -> list[Any]:
        if use.number and use.items is None and annotation is _EMPTY:
            annotation = int if not self.sizes.named(name) else annotation
        if self._counts_layers(name, use) and annotation in (_EMPTY, int):
            return [2, 1]  # whatever it is called: an `N`
        pictured = "in_channels" in use.names and self.sizes.kind(name) == "input"
        found = self.sizes.choices("in_channels" if pictured else name, annotation)
        for other in dict.fromkeys(n for n in use.names if n):
            if found:
                break
            if not is_role(other):
                found = self.sizes.choices(other, annotation)
        if annotation is not str and (use.methods or use.called is not None):
            found = [f for f in found if not isinstance(f, str)]  # no word has `log_prob`
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

    def _counts_layers(self, name: str, use: Use) -> bool:
        """Whether a number says how often something is made, and its name does not say a size."""
        if self.sizes.named(name):
            return False
        bare = self.sizes.kind(name) in (None, "other") or len(name) == 1
        return "num_layers" in use.names or (use.repeats and not use.names and bare)

    def _count(self, name: str) -> int:
        return self.sizes.one(name, "other")

    def size(self, name: str) -> int:
        """A size for a name, whatever else it could be."""
        options = [o for o in self.sizes.choices(name) if type(o) is int]
        return options[0] if options else self.sizes.one(name, "other")


def is_role(name: str) -> bool:
    """Whether a parameter's name says what a layer does with it, not what it is."""
    return name in _ROLES


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
