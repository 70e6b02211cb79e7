"""Latents of any family that nothing in the loss pulls to a prior: by the graph alone.

A term on a posterior, be it of its parameters or of its sample, gives it a gradient on a way that
does not pass what is decoded. Where autograd knows no such way there is no term.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..anatomy.anatomy import Anatomy
from ..anatomy.decoders import predictions
from ..anatomy.latents import Latent
from ..anatomy.pinning import loss_value
from ..runs.flow import CUTS
from ..runs.recording import Value


def unpulled(anatomy: Anatomy) -> Iterator[Latent]:
    """The latents of which the loss knows through x_hat alone, as of all that they are made of.

    What pulls a layer of the encoder may be of a posterior whose parameters are not known.
    """
    flow, decoded = anatomy.flow, predictions(anatomy)
    taught = _taught(anatomy, loss_value(anatomy), {v.index for v in decoded})
    for latent in anatomy.latents:
        made = {i for i in flow.ancestors(latent.z) if flow.data[i]} | {latent.z.index}
        trained = any(flow.recording.values[i].requires_grad for i in made)
        if decoded and latent.reaches and trained and not made & taught:
            yield latent


def _taught(anatomy: Anatomy, loss: Value, stop: set[int]) -> set[int]:
    """What the loss gives a gradient to, but for what it does through the values to stop at."""
    seen: set[int] = set()
    waiting = [loss]
    while waiting:
        value = waiting.pop()
        cut = value.op is not None and value.op.name in CUTS
        if value.index in seen or value.index in stop or not value.requires_grad or cut:
            continue
        seen.add(value.index)
        waiting.extend(anatomy.flow.parents(value))
    return seen
