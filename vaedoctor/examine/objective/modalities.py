"""What is decoded beside x_hat, a second modality or a class, and which way the loss pulls it.

An adversary is pulled the same way on purpose: it is told apart by what else trains its layers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ...finding import Span
from ...subject.subject import Subject
from ..anatomy.anatomy import Anatomy
from ..anatomy.heads import head
from ..anatomy.latents import ADDS, MULS
from ..anatomy.pinning import loss_value
from ..runs.flow import Flow
from ..runs.recording import Op, Value
from .families import class_weight, fits
from .likelihood import BERNOULLI_LOSSES, CLASS_LOSSES, SYMMETRIC_LOSSES, Pulled
from .summands import turns_sign

_PLAIN = CLASS_LOSSES | SYMMETRIC_LOSSES | BERNOULLI_LOSSES


@dataclass(frozen=True, slots=True)
class Turned:
    """A decoded value that the loss pushes away from its target, by which weight a row.

    One that is `inside` is a part of x_hat itself.
    """

    value: Value
    weight: float
    away: int
    at: Span | None = None
    inside: bool = False


def turned(subject: Subject, anatomy: Anatomy) -> list[Turned]:
    """Every decoded value beside x_hat for which the loss rewards a worse prediction."""
    if subject.backwards > 1 or len(subject.optimizers) > 1 or loss_value(anatomy) is None:
        return []
    flow, x_hat = anatomy.flow, anatomy.x_hat
    known = flow.ancestors(x_hat) | flow.descendants(x_hat) if x_hat is not None else frozenset()
    found: dict[int, Turned] = {}
    scored = list(_scored(anatomy))
    for op, layer, target in scored:
        apart = layer.index not in known and layer.index not in found
        if apart and _trained_here(subject, anatomy, layer, target):
            one = _judged(anatomy, layer, target) or _at_operand(anatomy, op, layer)
            others = [t for _, of, t in scored if of is layer and t is not target]
            if one is not None and not any(_drawn(anatomy, layer, t) for t in others):
                found[layer.index] = replace(one, at=_turned_at(anatomy, op))
    return [*found.values(), *_parts(subject, anatomy)]


def _parts(subject: Subject, anatomy: Anatomy) -> Iterator[Turned]:
    """Parts of x_hat, as the columns of a table, that a plain loss of their own pushes away."""
    flow, x_hat, end = anatomy.flow, anatomy.x_hat, loss_value(anatomy)
    if x_hat is None or end is None:
        return
    behind, made = flow.ancestors(end), flow.descendants(x_hat)
    for op in anatomy.recording.ops:
        if op.name not in _PLAIN or not op.makes or op.out.index not in behind:
            continue
        part, *targets = op.reads
        inside = part.index in made and part.tensor.numel() < x_hat.tensor.numel()
        layer = _last_layer(flow, part) if inside and len(targets) == 1 else None
        if layer is not None and _trained_here(subject, anatomy, layer, targets[0]):
            one = _at_operand(anatomy, op, part)
            if one is not None:
                yield replace(one, at=_turned_at(anatomy, op), inside=True)


def _scored(anatomy: Anatomy) -> Iterator[tuple[Op, Value, Value]]:
    """Operations that meet what the last layer behind a sample made with what nothing learned."""
    flow, end = anatomy.flow, loss_value(anatomy)
    assert end is not None
    samples = [x.z for x in anatomy.latents if x.reaches]
    behind, decoded = flow.ancestors(end), flow.descendants(*samples)
    for op in anatomy.recording.ops:
        if not op.makes or op.out.index not in behind or flow.layer(op):
            continue
        plain = [v for v in op.reads if not (flow.learned[v.index] or flow.noise[v.index])]
        made = [v for v in op.reads if v.index in decoded and flow.learned[v.index]]
        for value in made[:1]:
            layer = _last_layer(flow, value)
            if layer is not None and layer.index in decoded:
                yield from ((op, layer, target) for target in plain)


def _last_layer(flow: Flow, value: Value) -> Value | None:
    """What the layer made of which a value is computed alone, if it is of one."""
    found = head(flow, value)
    if found is None or not flow.layer(found.op):
        return None
    return found.value if found.value.edge is not None else None


def _trained_here(subject: Subject, anatomy: Anatomy, layer: Value, target: Value) -> bool:
    """Whether this loss alone trains the layer, so that nothing can mean it to get worse.

    Known where the one optimizer owns its weights; else where the encoder is given the target.
    """
    made_by = head(anatomy.flow, layer)
    assert made_by is not None
    weights = [v.tensor for v in made_by.op.reads if v.source == "parameter"]
    if not weights or not all(w.requires_grad for w in weights):
        return False
    if subject.optimizers:
        groups = subject.optimizers[0].param_groups
        owned = {id(p) for group in groups for p in group["params"]}
        return subject.backwards == 1 and all(id(w) in owned for w in weights)
    roots = {v.index for v in anatomy.recording.values if v.op is None and v.source == "input"}
    encoded = anatomy.flow.ancestors(*(x.z for x in anatomy.latents))
    return bool(anatomy.flow.ancestors(target) & roots & encoded)


def _at_operand(anatomy: Anatomy, op: Op, layer: Value) -> Turned | None:
    """The same where a plain loss reads what the layer made in another layout, or averaged."""
    if op.name not in _PLAIN or len(op.reads) < 2:
        return None
    made, target = op.reads[:2]
    if not anatomy.flow.learned[made.index] or anatomy.flow.learned[target.index]:
        return None
    one = _judged(anatomy, made, target)
    return replace(one, value=layer) if one is not None else None


def _drawn(anatomy: Anatomy, layer: Value, target: Value) -> bool:
    """Whether the loss pulls every element to a target: `1 - x` is another one of a Bernoulli."""
    made, given = layer.tensor.detach(), target.tensor.detach()
    if made.is_complex() or not given.is_floating_point() or given.numel() != made.numel():
        return False
    gradient = _gradient(anatomy, layer)
    return gradient is not None and Pulled(gradient, made, [given]).towards


def _gradient(anatomy: Anatomy, layer: Value) -> Tensor | None:
    loss = anatomy.recording.loss
    assert isinstance(loss, Tensor)
    if layer.edge is None:
        return None
    found = torch.autograd.grad(loss.sum(), [layer.edge], allow_unused=True, retain_graph=True)
    return found[0]


def _judged(anatomy: Anatomy, layer: Value, target: Value) -> Turned | None:
    made, given = layer.tensor.detach(), target.tensor.detach()
    if made.is_complex() or not made.shape:
        return None
    gradient = _gradient(anatomy, layer)
    if gradient is None:
        return None
    rows = made.shape[0]
    if given.is_floating_point() and given.numel() == made.numel():
        scored = list(fits(gradient, made, given.reshape(made.shape)))
        if scored:
            weight = min(scored, key=lambda f: f[2])[1]
            return Turned(layer, weight * rows, 0) if weight < 0 else None
        away = Pulled(gradient, made, [given]).away
        return Turned(layer, 0.0, away) if away else None
    if made.dim() > 1 and not given.is_floating_point() and given.dtype is not torch.bool:
        classes = made.shape[1]
        if given.numel() * classes == made.numel() and int(given.min()) >= 0:
            shape = (rows, *made.shape[2:])
            found = class_weight(gradient, made, given.reshape(shape))
            if found is not None and found < 0 and bool((given != given.flatten()[0]).any()):
                return Turned(layer, found * rows, 0)
    return None


def _turned_at(anatomy: Anatomy, op: Op) -> Span | None:
    """Where the term's sign is turned on its way into the loss; where it is made if nowhere."""
    flow, value = anatomy.flow, op.out
    end = loss_value(anatomy)
    behind = flow.ancestors(end) if end is not None else frozenset()
    while value is not end:
        ahead = [o for o in flow.consumers.get(value.index, ()) if o.makes]
        ahead = [o for o in ahead if o.out.index in behind]
        if len(ahead) != 1:
            break
        (to,) = ahead
        own = to.span == op.span  # as inside `log_prob`
        if to.name in ADDS | MULS | {"neg"} and turns_sign(to, value) and not own:
            return to.span
        if sum(flow.learned[v.index] for v in to.reads) > 1:  # the whole sum's sign is no term's
            break
        value = to.out
    return op.span
