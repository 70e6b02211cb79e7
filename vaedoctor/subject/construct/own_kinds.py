"""Objects of the classes that stand beside the model: its parts, its configuration."""

from __future__ import annotations

import dataclasses
import inspect
import sys
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

from torch import nn

from ..code.callees import is_from_torch
from ..code.signatures import annotations_of, hint_of, required, signature_of
from ..code.uses import Use
from .answers import answering
from .bases import makable
from .making import Call, namespace_of
from .reading import uses_of

if TYPE_CHECKING:
    from .inventing import Inventor

_DEEPEST = 5
_MOST_ANSWERS = 4
_ACTIVATIONS = ("act", "nonlin", "nl", "activation")
_LAYERS_OWN = frozenset(dir(nn.Linear))
_MODULES_OWN = frozenset(dir(nn.Module))
_STANDARD = sys.stdlib_module_names | {"numpy"}


class OwnKinds:
    """Makes objects of the file's own classes, their arguments made up in turn."""

    def __init__(self, inventor: Inventor) -> None:
        self.of = inventor
        self._building: list[type] = []

    def objects(self, use: Use) -> list[Any]:
        """`args`, `opt`: a class of the file that has what is read, else a bare one."""
        read = {*use.attributes, *use.methods}
        found = []
        for kind in self.own():
            if read <= fields_of(kind) and not issubclass(kind, nn.Module):
                found += self.built(kind, use)
        found = found or self._parts_with(read)
        children = self.of.containers.children(use.attributes)
        bare = children is not None and not use.methods
        return found + ([namespace_of(children or {})] if bare else [])

    def _parts_with(self, read: set[str]) -> list[Any]:
        """`vae.encode`, `vae.decode`: a module that has what is read and torch's own have not."""
        if not read - _MODULES_OWN:
            return []
        kinds = [k for k in self.own() if issubclass(k, nn.Module) and read <= fields_of(k)]
        return [c for k in kinds if k not in self._building for c in self.built(k, Use())]

    def components(self, name: str, use: Use) -> list[Any]:
        """Modules of the same file for `encoder`; an activation or a norm where one is meant."""
        bare = name.lower().replace("_", "")
        if any(a in bare for a in _ACTIVATIONS):
            made = [nn.ReLU, Call(nn.ReLU, {})]
            return [*(made[::-1] if use.called == 1 else made), "relu"]
        if "norm" in bare:
            return [nn.LayerNorm, nn.BatchNorm1d, nn.BatchNorm2d]
        found = []
        likes = {k: likeness(k.__name__, bare) for k in self.own()}
        wraps = {k: name in signature_of(k).parameters for k, like in likes.items() if like}
        for kind in sorted(likes, key=lambda k: (wraps.get(k, False), -likes[k])):
            like = likes[kind]
            if issubclass(kind, nn.Module) and like and kind not in self._building:
                found += [c for k in makable(kind) for c in self.built(k, Use()) if c not in found]
        return found

    def stand_ins(self, name: str, use: Use, *, of_any_kind: bool = False) -> list[Any]:
        """A plain layer for a part that is called with one tensor and that nobody defines here."""
        bare = name.lower()
        of_a_layer = {*use.attributes, *use.methods} <= _LAYERS_OWN
        other = not of_a_layer or use.keys or use.number or use.items or use.sized
        if use.called not in (None, 1) or other or self.of.sizes.is_list(bare):
            return []
        parts = (k for k in self.own(near=False) if issubclass(k, nn.Module))
        likes = (likeness(k.__name__, bare.replace("_", "")) for k in parts)
        if (self._building and not of_any_kind) or any(likes):
            return []  # of how many axes the result should be is known to the file's own part only
        wide, inner, code = (self.of.size(n) for n in ("input_dim", "hidden_dim", "latent_dim"))
        if "emb" in bare:
            table = {"num_embeddings": self.of.size("vocab_size"), "embedding_dim": inner}
            return [Call(nn.Embedding, table), _linear(wide, inner)]
        if bare.startswith(("dec", "gen")):
            return [_linear(code, wide)]
        if bare.startswith(("enc", "inf")):
            return [_linear(wide, inner)]
        return [_linear(inner, inner)]

    def classes(self, name: str, base: type) -> list[Any]:
        """Classes for a parameter that asks for one: `type[nn.Module]`."""
        if base is nn.Module:
            return [nn.LayerNorm, nn.BatchNorm1d] if "norm" in name.lower() else [nn.ReLU]
        return [k for k in self.own() if issubclass(k, base)]

    def built(self, kind: type, use: Use) -> list[Any]:
        """An object of a class of the file, its own required arguments made up in turn."""
        if kind in self._building or len(self._building) >= _DEEPEST or inspect.isabstract(kind):
            return []
        self._building.append(kind)
        try:
            values = self._values(kind, use)
        finally:
            self._building.pop()
        calls = [] if values is None else [Call(kind, v) for v in values]
        found = [c for c in calls if _refused(c) is None]
        if not found and calls and (error := _refused(calls[0])) is not None:
            answers = answering(error, dict(calls[0].values))
            others = (Call(kind, v) for v in islice(answers, _MOST_ANSWERS))
            found = [c for c in others if _refused(c) is None][:1]
        return found

    def _values(self, kind: type, use: Use) -> list[dict[str, Any]] | None:
        """Its arguments: those of default None that are read are given first, then left out."""
        uses, hints = uses_of(kind, self.of.namespace), annotations_of(kind)
        needed: dict[str, Any] = {}
        read: dict[str, Any] = {}
        signature = signature_of(kind)
        for p in signature.parameters.values():
            asked = use.attributes.get(p.name)
            optional = p.default is None and asked is not None and asked.said
            if p not in required(signature) and not optional:
                continue
            inner = asked or uses.get(p.name)
            options = self.of.choices(p.name, hint_of(kind, p, hints), inner)
            if options and optional:
                read[p.name] = options[0]
            elif options:
                needed[p.name] = options[0]
                self.of.sizes.note(p.name, options[0])
            elif not optional:
                return None
        return [needed | read, needed] if read else [needed]

    def own(self, *, near: bool = True) -> Iterator[type]:
        """The classes that stand in the module, then those it imports from its own package."""
        own = str(self.of.namespace.get("__name__"))
        kinds = [k for k in self.of.namespace.values() if isinstance(k, type)]
        yield from (k for k in kinds if k.__module__ == own)
        package, dot, _ = own.partition(".")
        if near and dot:
            yield from (k for k in kinds if k.__module__ != own and top_of(k) == package)

    def is_own(self, kind: type) -> bool:
        """Whether a class is the user's (or their library's), not Python's or torch's."""
        return not is_from_torch(kind) and top_of(kind) not in _STANDARD


def top_of(kind: type) -> str:
    """The package that a class is from."""
    return kind.__module__.partition(".")[0]


def _linear(wide: int, out: int) -> Call:
    return Call(nn.Linear, {"in_features": wide, "out_features": out})


def _refused(call: Call) -> BaseException | None:
    """What a constructor raises; None if it can be called."""
    try:
        call.made()
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return error
    return None


def likeness(kind: str, bare: str) -> int:
    """How much of a parameter's name a class's name holds: `enc` and `Encoder` share three."""
    lower = kind.lower()
    lower = lower if "auto" in bare else lower.replace("autoencoder", "ae")  # no encoder
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
