"""Models with several decoders or latents: what each decoder makes, and of what."""

from __future__ import annotations

from ..runs.recording import Value
from .anatomy import Anatomy
from .moves import inputs_of, only_moved
from .reconstruction import compared_values
from .unsampled import Unsampled, unsampled_heads


def predictions(anatomy: Anatomy) -> list[Value]:
    """What the loss compares with the batch, x_hat first: the outputs of all decoders."""
    found = {} if anatomy.x_hat is None else {anatomy.x_hat.index: anatomy.x_hat}
    for value, _ in compared_values(
        anatomy.recording, anatomy.flow, [x.z for x in anatomy.latents]
    ):
        found.setdefault(value.index, value)
    return list(found.values())


def other_decoders(anatomy: Anatomy, head: Value) -> list[Value]:
    """What the loss compares, beside x_hat, with inputs from which a head is computed."""
    encoded, flow = anatomy.flow.ancestors(head), anatomy.flow
    found = []
    for value, op in compared_values(anatomy.recording, flow, [x.z for x in anatomy.latents]):
        given = {v.index for v in inputs_of(anatomy.recording) if v.index in encoded}
        if value is not anatomy.x_hat and any(only_moved(flow, v, given) for v in op.reads):
            found.append(value)
    return found


def decoded_otherwise(anatomy: Anatomy) -> Value | None:
    """An output, not x_hat, that layers make of a latent; None where there is none."""
    flow = anatomy.flow
    after = flow.descendants(*(x.z for x in anatomy.latents))
    layers = [m for op in anatomy.recording.ops if flow.layer(op) for m in op.makes]
    decoded = flow.descendants(*(m for m in layers if m.index in after))
    outputs = (o.value for o in anatomy.outputs if o.value is not anatomy.x_hat)
    return next((v for v in outputs if v.index in decoded), None)


def skipped_sample(anatomy: Anatomy, held: list[Value]) -> Unsampled | None:
    """Beside the samples `held`, heads of which none is drawn: the location alone is decoded.

    All that x_hat knows of x around the samples comes through that location.
    """
    flow, x, x_hat = anatomy.flow, anatomy.x, anatomy.x_hat
    if x is None or x_hat is None or x.index not in flow.ancestors(x_hat, stop=held):
        return None
    drawn = {v.loc_head.value.index for v in anatomy.latents if v.z in held and v.loc_head}
    found = unsampled_heads(flow, anatomy.outputs, x_hat, beside=drawn)
    if found is None or x.index in flow.ancestors(x_hat, stop=[*held, found.loc.value]):
        return None
    if not (flow.layer(found.loc_head.op) and flow.layer(found.scale_head.op)):
        return None  # no heads: a position and its momentum, say
    return found
