"""What to hold fixed, and what to force, so that one term of a step is left alone."""

from __future__ import annotations

from collections.abc import Callable, Set

import torch
from torch import Tensor

from ...rule import Unavailable
from ..runs.flow import SLICES, Flow
from ..runs.recording import Op, Value
from .anatomy import Anatomy
from .latents import ADDS, MULS, Latent

_SAME = 0.02  # relative, of the median: the edges of the uniform are clamped


def loss_value(anatomy: Anatomy) -> Value:
    """The user's loss as it was recorded; Unavailable where there is none or it is not finite."""
    loss = anatomy.recording.loss
    value = anatomy.recording.value_of(loss) if isinstance(loss, Tensor) else None
    if value is None:
        raise Unavailable("no objective given or found; supply --objective")
    if not bool(torch.isfinite(value.tensor.detach()).all()):
        raise Unavailable("the loss is not finite (VAE801)")
    return value


def held(value: Value) -> Callable[[Tensor], Tensor]:
    """An edit that puts a value back to what it was."""
    return held_to(value.tensor.detach())


def held_to(kept: Tensor) -> Callable[[Tensor], Tensor]:
    """An edit that puts a value to what is kept."""
    return lambda t: kept.clone()  # an in-place layer may write to it


def owned_noise(flow: Flow, latent: Latent) -> Value:
    """The value to force so that the noise has a known size where it meets the encoder's output.

    The draw itself, or what was made of it (`2 * u - 1`, `eps.abs()`) where that is no multiple.
    """
    draw = latent.draw
    if draw.op is None or draw.op.noise is None:
        return draw.value
    carried = [v for v in latent.meeting.reads if flow.noise[v.index] and not flow.posterior(v)]
    if len(carried) != 1 or carried[0].op is None or flow.noise[carried[0].index] != 1 << draw.bit:
        return draw.value
    made, drawn = carried[0].tensor.detach().flatten(), draw.op.noise.flatten()
    if made.shape != drawn.shape or not made.numel():
        return draw.value if latent.family == "gaussian" else carried[0]
    factor = float((made * drawn).sum() / drawn.square().sum()) if bool(drawn.any()) else 1.0
    multiple = bool(((made - factor * drawn).abs() <= 1e-4 * made.abs().max()).all())
    return draw.value if multiple else carried[0]


def unit_of(flow: Flow, latent: Latent) -> float:
    """What noise of size 1 is where `owned_noise` forces it.

    A uniform draw through `erfinv` is normal with a variance of one half: the factor that makes it
    standard normal may follow there, or behind the encoder's scale.
    """
    value, draw = owned_noise(flow, latent), latent.draw
    if value is draw.value or draw.op is None or draw.op.noise is None:
        return 1.0
    made, drawn = value.tensor.detach().flatten(), draw.op.noise.flatten()
    if made.shape != drawn.shape or bool((drawn < 0).any()) or bool((drawn > 1).any()):
        return 1.0
    normal = torch.erfinv((2 * drawn - 1).clamp(-0.9999, 0.9999)) * 2**0.5
    factor = float((made * normal).sum() / normal.square().sum())
    near = (made - factor * normal).abs().median() <= _SAME * made.abs().median()
    return factor if near else 1.0


def first_layers(flow: Flow, z: Value, *ends: Value) -> list[Op]:
    """The layers that read the sample (past layerless steps) on any way to the reconstructions.

    Where a way has no layer, as in the inner product of a graph's decoder, its last step.
    """
    goal, last = flow.ancestors(*ends), {end.index for end in ends if end.shape}
    return _first(
        flow, z, goal, lambda op: flow.layer(op) or any(m.index in last for m in op.makes)
    )


def pair_layers(flow: Flow, z: Value, loss: Value) -> list[Op]:
    """First layers on rows of the sample that integers of the batch pick: scores of edges, pairs.

    Other pairs that the same layers score, drawn as examples of no edge, are theirs as well. Of
    what a graph's flow passes along its edges something in the sample's shape is made again.
    """
    layers = _first(flow, z, flow.ancestors(loss), flow.layer)
    picked = flow.descendants(*(m for op in _picks(flow, z) for m in op.makes))
    scoring = [op for op in layers if any(v.index in picked for v in op.reads)]
    weights = {v.index for op in scoring for v in op.reads if v.source in ("parameter", "stray")}
    found = [op for op in layers if weights & {v.index for v in op.reads}]
    made = flow.descendants(*(m for op in found for m in op.makes))
    values = flow.recording.values
    return [] if any(values[i].shape == z.shape for i in made) else found


def _picks(flow: Flow, z: Value) -> list[Op]:
    """Where integers that came with the batch say which rows of the sample are taken."""
    return [
        op
        for op in flow.consumers.get(z.index, ())
        if op.name in SLICES
        and any(
            v.tensor.dim() > 0
            and v.tensor.dtype in (torch.int64, torch.int32)
            and (flow.given[v.index] or flow.data[v.index])
            for v in op.reads
        )
    ]


def prior_layers(anatomy: Anatomy, latent: Latent, loss: Value) -> list[Op]:
    """Layers beside the decoder that make another latent's prior, or posterior, from this sample.

    A prior meets that latent's posterior in the loss, unit by unit. A critic of the sample does
    not, nor does a learned prior of this sample, whose density joins the others in a mere sum.
    """
    flow = anatomy.flow
    others = [found for found in anatomy.latents if found is not latent]
    if not others or anatomy.x_hat is None:
        return []
    aside = flow.ancestors(loss) - flow.ancestors(anatomy.x_hat)
    theirs = flow.descendants(*(v for o in others for v in (o.loc, o.scale, o.z) if v is not None))
    heads = flow.ancestors(*(v for o in others for v in (o.loc, o.scale) if v is not None))
    layers = _first(flow, latent.z, aside, flow.layer)
    return [
        op
        for op in layers
        if op.out.index in heads
        or _meets(flow, flow.descendants(op.out), theirs, aside, len(latent.z.shape))
    ]


def _first(flow: Flow, start: Value, within: Set[int], ends: Callable[[Op], bool]) -> list[Op]:
    """The operations at which the ways from a value through others `within` end."""
    found: dict[int, Op] = {}
    waiting, seen = [start], set()
    while waiting:
        value = waiting.pop()
        if value.index in seen:
            continue
        seen.add(value.index)
        for op in flow.consumers.get(value.index, ()):
            if not any(m.index in within for m in op.makes):
                continue
            if ends(op):
                found[op.index] = op
            else:
                waiting.extend(op.makes)
    return list(found.values())


def _meets(flow: Flow, one: Set[int], other: Set[int], within: Set[int], axes: int) -> bool:
    """Whether an operation that makes so many axes reads a value of each of two sets."""
    return any(
        any(v.index in one for v in op.reads)
        and any(v.index in other and v.index not in one for v in op.reads)
        for op in flow.recording.ops
        if op.makes and op.out.index in within and len(op.out.shape) >= axes
    )


def common_root(flow: Flow, operand: Value, around: frozenset[int]) -> Value | None:
    """The value behind a sampler's operand through which all that the loss reads of it passes.

    The furthest one that the loss reads around sample and decoder: the loss may exponentiate a
    log-variance once more by itself. None where the operand is put together from several values,
    any of which the loss reads: `prior_mean + delta`.
    """
    found: Value | None = None
    value, came = operand, -1
    while value.op is not None and flow.posterior(value):
        readers = [op for op in flow.consumers.get(value.index, ()) if op.index != came]
        if any(m.index in around for op in readers for m in op.makes):
            found = value
        parents = {p.index: p for p in flow.parents(value) if flow.data[p.index]}
        if flow.layer(value.op) and value.op.name not in ADDS | MULS:  # a gain may be applied twice
            return found or operand
        if len(parents) != 1:
            return found or (operand if _unread(flow, value, around) else None)
        came = value.op.index
        (value,) = parents.values()
    return found or operand


def _unread(flow: Flow, value: Value, around: frozenset[int]) -> bool:
    """Whether the loss reads nothing of what layers give to put a value together."""
    waiting, seen = [(value, -1)], set[int]()
    while waiting:
        value, came = waiting.pop()
        if value.index in seen:
            continue
        seen.add(value.index)
        readers = [op for op in flow.consumers.get(value.index, ()) if op.index != came]
        if came >= 0 and any(m.index in around for op in readers for m in op.makes):
            return False
        if value.op is not None and not flow.layer(value.op):
            op = value.op
            waiting += [(p, op.index) for p in flow.parents(value) if flow.posterior(p)]
    return True
