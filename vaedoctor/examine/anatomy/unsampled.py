"""Location and scale heads of which no sample is made."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass

from torch import Tensor

from ..runs.flow import SLICES, Flow
from ..runs.outputs import Output
from ..runs.recording import Value
from .heads import Head, head

POSITIVE = frozenset("exp exp_ softplus".split())
TIMES = frozenset("mul mul_ __imul__ multiply addcmul".split())


@dataclass(frozen=True, slots=True)
class Unsampled:
    """A location and a scale head of which no sample is made."""

    loc: Output
    scale: Output
    loc_head: Head
    scale_head: Head


def unsampled_heads(
    flow: Flow, outputs: list[Output], x_hat: Value | None, beside: Set[int] = frozenset()
) -> Unsampled | None:
    """Two parallel heads, returned or in the loss; x_hat is computed from the first or both.

    Locations in `beside` are left out: a sample is drawn around them.
    """
    if x_hat is None:
        return None
    behind = flow.ancestors(x_hat)
    known = [*outputs, *_penalized(flow, x_hat)]
    heads = [
        (o, h)
        for o in known
        if o.value is not x_hat
        and flow.posterior(o.value)
        and o.value.tensor.is_floating_point()
        and o.value.tensor.dim() > 1
        and (h := head(flow, o.value)) is not None
    ]
    for loc, loc_head in heads:
        for scale, scale_head in heads:
            if loc is scale or loc.value.shape != scale.value.shape:
                continue
            parallel = loc_head.op is not scale_head.op or loc_head.value is not scale_head.value
            apart = not (
                flow.ancestors(loc.value) & {scale_head.op.out.index}
                and loc_head.op is not scale_head.op
            )
            if scale.value.index in behind and loc_head.value.index in flow.ancestors(scale.value):
                continue  # the sample itself, returned beside its parameters
            used = loc_head.value.index in behind and loc_head.value.index not in beside
            drawn = _drawn(flow, loc.value, scale_head.value, x_hat)
            drawn = drawn or _times_noise(flow, behind, loc.value, scale.value)
            if parallel and apart and used and not drawn:
                return Unsampled(loc, scale, loc_head, scale_head)
    return None


def _drawn(flow: Flow, loc: Value, scale: Value, x_hat: Value) -> bool:
    """Whether noise makes a sample of the two on the way to x_hat, however it is made.

    It comes in behind the scale, or the second of the two is the sample itself: an exponential
    map divides its tangent by what the location makes.
    """
    behind = scale.index in flow.ancestors(x_hat)
    late = flow.noise[x_hat.index] & ~flow.noise[scale.index]
    return flow.noise[loc.index] != flow.noise[scale.index] or bool(behind and late)


def _times_noise(flow: Flow, behind: Set[int], *heads: Value) -> bool:
    """Whether what heads are made of, by no further layer, is multiplied by noise before x_hat.

    Noise that is drawn once for all steps of a series is in the scales of the later ones as well.
    """
    known = flow.ancestors(*heads)
    layers = {op.out.index for op in flow.recording.ops if op.makes and flow.layer(op)} & known
    for op in flow.recording.ops:
        if op.name not in TIMES or not op.makes or op.out.index not in behind:
            continue
        noisy = any(flow.noise[v.index] and not flow.data[v.index] for v in op.reads)
        scales = [v for v in op.reads if v.index in known and flow.posterior(v)]
        if noisy and any(not flow.descendants(v) & layers for v in scales):
            return True
    return False


def _penalized(flow: Flow, x_hat: Value) -> list[Output]:
    """Heads that only the loss sees: its KL reads a layer's output, and `exp` of another's.

    The second takes no part in the reconstruction; both meet before the loss.
    """
    loss = flow.recording.loss
    end = flow.recording.value_of(loss) if isinstance(loss, Tensor) else None
    if end is None:
        return []
    behind = flow.ancestors(x_hat)
    terms = flow.ancestors(end, stop=[x_hat])
    found = []
    for op in flow.recording.ops:
        read = [v for v in op.reads if v.index in terms and flow.posterior(v)]
        if op.name not in POSITIVE or not read or read[0].index in behind:
            continue
        scale = head(flow, read[0])
        if scale is None or scale.value.index in behind:
            continue
        found.append(Output("", scale.value))
        parallel = (behind & terms) - flow.ancestors(scale.value) - {x_hat.index}
        found += [
            Output("", v)
            for v in flow.recording.values
            if v.index in parallel
            and v.shape == scale.value.shape
            and v.op is not None
            and (flow.layer(v.op) or v.op.name in SLICES)
        ]
    return found
