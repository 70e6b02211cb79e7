"""What hangs on the model: the names of its tensors and modules, walked once for all runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from ...subject.subject import Subject
from ...subject.trials.contents import Contents
from ...subject.trials.reachable import reachable
from .recording import tensors_in

_KEY = "inventory"


@dataclass(frozen=True, slots=True)
class Inventory:
    """Paths of modules and (kind, name) of tensors, by identity, while `contents` are the same.

    Kinds: parameter, buffer, and attribute (a tensor that hangs on the model without being
    registered, on itself or on a module it keeps in a plain container); stray is a parameter of
    such a module.
    """

    model: nn.Module
    contents: Contents
    paths: Mapping[int, str]
    tensors: Mapping[int, tuple[str, str]]
    registered: frozenset[int]


def inventory(subject: Subject) -> Inventory:
    """What hangs on the subject's model now."""
    known = _kept(subject)
    if known is None:
        known = subject.memory[_KEY] = _take(subject.model)
    return known


def _kept(subject: Subject) -> Inventory | None:
    known = subject.memory.get(_KEY)
    valid = known is not None and known.model is subject.model and known.contents.same()
    return known if valid else None


def _take(model: nn.Module) -> Inventory:
    things = list(reachable(model))
    named = {id(t): ("attribute", "") for t in things if isinstance(t, Tensor)}
    for hidden in unregistered_modules(model, things):
        for name, parameter in hidden.named_parameters():
            named[id(parameter)] = ("stray", name)
        for name, buffer in hidden.named_buffers():
            named[id(buffer)] = ("attribute", name)
    for name, buffer in model.named_buffers():
        named[id(buffer)] = ("buffer", name)
    for name, parameter in model.named_parameters():
        named[id(parameter)] = ("parameter", name)
    paths = {id(m): name for name, m in model.named_modules(remove_duplicate=False)}
    return Inventory(model, Contents(things), paths, named, _registered(model))


def _registered(model: nn.Module) -> frozenset[int]:
    return frozenset(map(id, (*model.modules(), *model.parameters(), *model.buffers())))


def registered(subject: Subject) -> frozenset[int]:
    """Identities of the modules, parameters and buffers that the model registers now."""
    known = _kept(subject)
    return known.registered if known is not None else _registered(subject.model)


def leaf_names(known: Inventory, subject: Subject, batch: Any) -> dict[int, tuple[str, str]]:
    """What every known leaf tensor is: (kind, name) by identity.

    Kinds are those of `Inventory`, and for the items of the batch input and condition.
    """
    named = dict(known.tensors)
    items: Iterable[tuple[int | str, Any]] = [*enumerate(batch.args), *batch.kwargs.items()]
    for key, item in items:
        kind = "condition" if key in subject.conditions else "input"
        if isinstance(item, Mapping):
            for inner, value in item.items():
                inner_kind = "condition" if inner in subject.conditions else kind
                for tensor in tensors_in(value):
                    named[id(tensor)] = (inner_kind, str(inner))
        else:
            for tensor in tensors_in(item):
                named[id(tensor)] = (kind, str(key))
    return named


def unregistered_modules(
    model: nn.Module, things: Iterable[object] | None = None
) -> list[nn.Module]:
    """Modules the model can reach through plain lists, dicts or objects, but does not register."""
    known = {id(m) for m in model.modules()}
    return [
        thing
        for thing in (reachable(model) if things is None else things)
        if isinstance(thing, nn.Module) and id(thing) not in known
    ]
