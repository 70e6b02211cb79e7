"""Every layer and parameter: is it registered, was it used, was it made in the forward pass?"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, replace

import torch
from torch import nn

from ...finding import Span
from ...subject.code.losses import is_total
from ..code.listing import is_own_code, methods_of, walks_children
from ..code.readers import Read, goes_backward, leads_to, reads_of
from ..runs.again import Again
from ..runs.recording import Call, Op, Recording, Value
from .branches import Branch, Place, branches, hiding_places

_STEP = re.compile(r"(?!val|test|eval|predict|sampl)\w+_step")


@dataclass(frozen=True, slots=True)
class Hidden:
    """A module that ran with weights of its own and is not registered."""

    call: Call
    place: Place | None
    parameters: int


@dataclass(frozen=True, slots=True)
class Reuse:
    """A layer that ran several times while siblings of the same shape never ran."""

    path: str
    calls: tuple[Call, ...]
    idle: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Census:
    """Which weights the model has, and what one step did with them."""

    registered: int
    used: frozenset[str]
    hidden: tuple[Hidden, ...]
    created: tuple[tuple[Call, Span | None], ...]
    strays: tuple[tuple[Value, Op, Place | None], ...]
    idle: tuple[Branch, ...]
    reused: tuple[Reuse, ...]
    frozen: tuple[Branch, ...]
    kept: frozenset[int]

    def fresh(self, value: Value) -> bool:
        """Whether a tensor of the first pass is not met again in the second."""
        return id(value.tensor) not in self.kept


def take_census(
    model: nn.Module, first: Recording, again: Again, owned: Set[int] = frozenset()
) -> Census:
    """Count the layers of `model` in two runs of one step.

    `owned` are the identities of tensors that an optimizer holds.
    """
    used = {v.name for v in first.values if v.source == "parameter" and v.op is None}
    used |= {n for n, p in model.named_parameters() if id(p) in again.tensors}  # by chance
    places = dict(hiding_places(model))
    twins = again.modules
    original = {id(m) for m in (*model.modules(), *model.parameters())}
    created = [
        c
        for c in _unregistered_calls(first, original)
        if id(c.module) not in twins and id(c.module) not in places
    ]
    hidden = [
        c for c in _unregistered_calls(first, first.registered | original) if c not in created
    ]
    inside = {id(p) for c in (*created, *hidden) for p in c.module.parameters()}
    opaque = {
        id(p)
        for m in model.modules()
        if isinstance(m, torch.jit.ScriptModule)
        for p in m.parameters()
    }
    idle = {
        n: p
        for n, p in model.named_parameters()
        if n not in used and id(p) not in opaque and p.requires_grad
    }
    ran = {c.path for c in first.calls}
    return Census(
        sum(1 for _ in model.parameters()),
        frozenset(used),
        tuple(
            Hidden(c, places.get(id(c.module)), sum(p.numel() for p in c.module.parameters()))
            for c in hidden
        ),
        tuple((c, _built_at(first, c) or c.span) for c in created),
        tuple(_strays(first, inside, places, owned)),
        tuple(_judged(model, b, used) for b in branches(model, idle, ran)),
        tuple(_reuses(model, first)),
        tuple(branches(model, {n: p for n, p in model.named_parameters() if not p.requires_grad})),
        again.tensors,
    )


def _judged(model: nn.Module, branch: Branch, used: set[str]) -> Branch:
    """What the source says about an idle branch: who reads it, and is it part of a used module."""
    whole = branch.path.rpartition(branch.attribute)[0] + branch.attribute
    partial = branch.path != whole and any(n.startswith(f"{whole}.") for n in used)
    reads: tuple[Read, ...] | None = None
    if is_own_code(type(branch.owner)):
        reads = tuple(reads_of(branch.owner, model, branch.attribute))
        if not reads and any(walks_children(kind) for kind in {type(m) for m in model.modules()}):
            reads = None  # code that reaches layers without naming them may reach this one
    return replace(branch, partial=partial, reads=reads, step=_step(branch, reads or ()))


def _step(branch: Branch, reads: tuple[Read, ...]) -> str:
    """The loss or training step that reads a layer, itself or through what it calls.

    A name such as `critic_step` counts where a method of the layer's owner reads it.
    """
    own = {(m.file, m.lines) for m in methods_of(type(branch.owner))}
    for read in reads:
        mine = (read.method.file, read.method.lines) in own
        for method in leads_to({read.method.name}, read.method.file):
            named = mine and _STEP.fullmatch(method.name) is not None
            if is_total(method.name) or goes_backward(method) or named:
                return method.name
    return ""


def _unregistered_calls(recording: Recording, registered: Set[int]) -> list[Call]:
    """First calls of topmost modules that, and whose trainable weights, are not registered.

    A slice of an `nn.Sequential` is a new module around registered layers.
    """
    found: dict[int, Call] = {}
    for call in recording.calls:
        if id(call.module) in registered or _after_forward(recording, call, registered):
            continue
        if any(id(c.module) in found for c in call.chain()):
            continue
        trained = any(p.requires_grad and id(p) not in registered for p in call.module.parameters())
        if trained and _with_gradient(recording, call):
            found[id(call.module)] = call
    return list(found.values())


def _with_gradient(recording: Recording, call: Call) -> bool:
    """Whether a call ran with gradients on: a hidden teacher under `no_grad` is on purpose."""
    inside = recording.ops[call.first : call.last]
    return not inside or any(op.grad_mode for op in inside)


def _built_at(recording: Recording, call: Call) -> Span | None:
    """The user's line at which a module's parameters were first touched: its construction.

    Of a module of the user's own class it is the line outside its constructor.
    """
    mine = {id(p) for p in call.module.parameters()}
    for op in recording.ops:
        if any(id(v.tensor) in mine for v in (*op.reads, *op.shapes, *op.makes)):
            outside = itertools.dropwhile(lambda f: f.code.co_name == "__init__", op.frames)
            return next((f.span for f in outside), op.span)
    return None


def _after_forward(recording: Recording, call: Call, registered: Set[int]) -> bool:
    """Whether a call belongs to the loss: a perceptual network there is nobody's layer.

    So are the parts of one, and those of a discriminator that takes a sample.
    """
    *_, outermost = call.chain()
    foreign = id(outermost.module) not in registered
    return 0 <= recording.forward_end <= outermost.first and foreign


def _strays(
    recording: Recording, inside: set[int], places: Mapping[int, Place], owned: Set[int]
) -> Iterator[tuple[Value, Op, Place | None]]:
    """Leaf tensors that require grad, took part in the forward pass, and are no parameters.

    What hangs on the model may be read by the loss alone, unless an optimizer holds it.
    """
    readers = recording.consumers()
    for value in recording.values:
        tensor = value.tensor
        if value.op is not None or not value.requires_grad or id(tensor) in inside:
            continue
        if value.source in ("parameter", "input", "condition") or not tensor.is_leaf:
            continue
        if id(tensor) in recording.registered:
            continue
        end = recording.forward_end
        everywhere = end < 0 or (id(tensor) in places and id(tensor) not in owned)
        uses = [
            op
            for op in readers.get(value.index, ())
            if (everywhere or op.index < end) and op.grad_mode
        ]
        if uses:
            yield value, uses[0], places.get(id(tensor))


def _reuses(model: nn.Module, recording: Recording) -> Iterator[Reuse]:
    called: dict[int, list[Call]] = {}
    for call in recording.calls:
        called.setdefault(id(call.module), []).append(call)
    used = {id(v.tensor) for v in recording.values if v.op is None}
    for path, parent in model.named_modules():
        families: dict[object, list[tuple[str, nn.Module]]] = {}
        for name, child in parent.named_children():
            if any(True for _ in child.parameters()):
                shapes = tuple(tuple(p.shape) for p in child.parameters())
                full = f"{path}.{name}" if path else name
                families.setdefault((type(child), shapes), []).append((full, child))
        for members in families.values():
            idle = [
                n
                for n, m in members
                if id(m) not in called and not any(id(p) in used for p in m.parameters())
            ]
            for name, child in members:
                calls = called.get(id(child), [])
                if idle and len(calls) > 1:
                    yield Reuse(name, tuple(calls), tuple(idle))
