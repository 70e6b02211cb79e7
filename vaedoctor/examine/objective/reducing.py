"""Where a term of the loss loses the batch axis: the sum or mean over the rows."""

from __future__ import annotations

from ...finding import Span
from ..anatomy.anatomy import Anatomy
from ..anatomy.decoders import predictions
from ..anatomy.latents import Latent
from ..anatomy.pinning import loss_value
from ..runs.flow import RESHAPES, SLICES
from ..runs.recording import Op, Value


def odd_one_at(anatomy: Anatomy, latent: Latent, rows: int, *, summed: bool) -> Span | None:
    """Which reduction to look at first, where KL and reconstruction are reduced unalike.

    `summed` says that the KL is the one that is summed. Where it is averaged beside a summed
    reconstruction, it is the KL's if that is a sum as well, and divided only later.
    """
    kl, recon = _of_divergence(anatomy, latent, rows), _of_reconstruction(anatomy, rows)
    own = summed or recon is None or (kl is not None and kl.name == "sum")
    first = kl if own else recon
    return first.span if first is not None else None


def _of_reconstruction(anatomy: Anatomy, rows: int) -> Op | None:
    """The operation on what is decoded that leaves no rows of it."""
    x_hat = anatomy.x_hat
    known = anatomy.flow.descendants(x_hat) if x_hat is not None else frozenset[int]()
    return _reducing(anatomy, known, rows)


def _of_divergence(anatomy: Anatomy, latent: Latent, rows: int) -> Op | None:
    """The operation on location and scale, beside what is decoded, that leaves no rows of it."""
    flow = anatomy.flow
    heads = [h.value for h in (latent.loc_head, latent.scale_head) if h is not None]
    if not heads:
        return None
    decoded = flow.descendants(*predictions(anatomy)) | flow.ancestors(latent.z)
    return _reducing(anatomy, flow.descendants(*heads) - decoded, rows)


def _reducing(anatomy: Anatomy, within: frozenset[int], rows: int) -> Op | None:
    known = within & anatomy.flow.ancestors(loss_value(anatomy))
    for op in anatomy.recording.ops:
        ends = op.makes and op.out.index in known and op.name not in RESHAPES | SLICES
        if ends and any(v.index in within and _loses(v, op, rows) for v in op.reads):
            return op
    return None


def _loses(value: Value, op: Op, rows: int) -> bool:
    made = op.out.tensor
    by_axis = value.shape[:1] == (rows,) and tuple(made.shape[:1]) != (rows,)
    return by_axis or value.tensor.numel() >= rows > made.numel()
