"""Parameters that get no gradient, grouped by what keeps it from them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor, nn

from ...finding import Span
from ..anatomy.anatomy import Anatomy
from ..runs.flow import CUTS, Flow
from ..runs.gradients import Gradients, gradient_between
from ..runs.recording import Value, tensors_in
from ..structure.branches import Branch, branches
from .cuts import Cut, cut_between, straight_through
from .reparameterized import REPARAMETERIZABLE


@dataclass(frozen=True, slots=True)
class Lost:
    """Parameters that get no gradient for one reason: the cut, or an output the loss leaves out.

    `decoded` says that the cut is on the way to the reconstruction or between it and the loss,
    `returned` that the output is for the caller, who makes no term of it that is then left out.
    """

    branches: tuple[Branch, ...]
    count: int
    cut: Cut | None
    returned: bool
    at: Span | None
    decoded: bool = True


def lost_gradients(anatomy: Anatomy, gradients: Gradients, model: nn.Module) -> Iterator[Lost]:
    """Group the parameters without gradient by what keeps it from them.

    A cut counts where it lies on the way to the reconstruction, from there to the loss, or behind
    a sample, as in a prior's network, or of what weights alone make: a target computed without
    gradient (a teacher, a perceptual network) is on none of these.
    """
    flow, x_hat = anatomy.flow, anatomy.x_hat
    missing = {n: gradients.values[n] for n, g in gradients.by_name.items() if g is None}
    if gradients.composed:  # what the model returns beside the reconstruction may well train them
        ends = [o.value for o in anatomy.outputs]
        arrives = gradient_between(ends, list(missing.values())) if missing else []
        missing = {n: v for (n, v), g in zip(missing.items(), arrives, strict=True) if g is None}
    by_cut: dict[tuple[str, bool], tuple[Cut, dict[str, Tensor]]] = {}
    unused: dict[str, Tensor] = {}
    for name, value in missing.items():
        cut = cut_between(flow, value, x_hat) if x_hat is not None else None
        decoded = cut is not None
        if cut is None and not gradients.composed and _reaches_loss(anatomy, value):
            cut, decoded = _cut_from_loss(anatomy, gradients, value)
        if cut is not None:
            if gradients.composed and _draws_categories(anatomy, cut):
                continue  # the user's own loss may well score them
            quantised = anatomy.quantizer is not None and not _after(flow, x_hat, cut)
            if not straight_through(flow, cut) and not quantised:  # VQ102 judges the look-up
                by_cut.setdefault((cut.cause, decoded), (cut, {}))[1][name] = value.tensor
        elif not gradients.composed and not _reaches_loss(anatomy, value):
            unused[name] = value.tensor
    for (_, decoded), (cut, members) in by_cut.items():
        yield Lost(tuple(branches(model, members)), len(members), cut, False, cut.at, decoded)
    outputs = [o.value for o in anatomy.outputs]
    returned = flow.ancestors(*outputs) if outputs else set()
    for branch in branches(model, unused):
        values = [missing[n] for n in branch.parameters]
        use = next(iter(flow.consumers.get(values[0].index, ())), None)
        yield Lost(
            (branch,),
            len(values),
            None,
            any(v.index in returned for v in values) and not _left_out(anatomy, values),
            use.span if use is not None else None,
        )


def _draws_categories(anatomy: Anatomy, cut: Cut) -> bool:
    """Whether a cut is the draw of a latent of which no reparameterised draw exists."""
    drawn = [x.draw.op for x in anatomy.latents if x.family not in REPARAMETERIZABLE]
    return any(op is not None and op.span == cut.at for op in drawn)


def _cut_from_loss(anatomy: Anatomy, gradients: Gradients, value: Value) -> tuple[Cut | None, bool]:
    """A cut behind the reconstruction or a sample, and whether it is behind the reconstruction.

    Only in a loss that trains a posterior, what is quantised, or else some layer before x_hat: that
    of a discriminator alone may well detach x_hat.
    """
    flow, x_hat, loss = anatomy.flow, anatomy.x_hat, anatomy.recording.loss
    end = anatomy.recording.value_of(loss) if isinstance(loss, Tensor) else None
    heads = [v for x in anatomy.latents for v in (x.loc, x.scale) if v is not None]
    if anatomy.quantizer is not None:
        heads += anatomy.quantizer.reads
    if not heads and not anatomy.latents and x_hat is not None:
        heads = [x_hat]
    made = flow.ancestors(*heads)
    taught = {gradients.values[n].index for n, g in gradients.by_name.items() if g is not None}
    if end is None or not taught & made:
        return None, False
    if x_hat is not None and value.index in flow.ancestors(x_hat):
        return cut_between(flow, x_hat, end), True
    cut = cut_between(flow, value, end)
    sampled = flow.descendants(*(latent.z for latent in anatomy.latents))
    behind = cut is not None and (
        any(v.index in sampled for v in cut.op.reads)
        or _cut_itself(cut, value)
        or _of_weights_alone(flow, cut, value)
    )
    return (cut if behind else None), behind and cut is not None and _likelihood(anatomy, cut)


def _after(flow: Flow, x_hat: Value | None, cut: Cut) -> bool:
    return x_hat is not None and any(v.index in flow.descendants(x_hat) for v in cut.op.reads)


def _cut_itself(cut: Cut, value: Value) -> bool:
    """Whether a parameter itself is detached, as pseudo inputs of a prior; a number may well be."""
    return cut.op.name in CUTS and value in cut.op.reads and value.tensor.numel() > 1


def _of_weights_alone(flow: Flow, cut: Cut, value: Value) -> bool:
    """Whether what is cut off knows weights alone, as pseudo inputs do that a layer makes.

    What a teacher or a perceptual network makes knows the batch.
    """
    made = {m.index for m in cut.op.makes}
    known = any(flow.data[i] or flow.given[i] or flow.noise[i] for i in made)
    return bool(made) and not known and value.tensor.numel() > 1


def _likelihood(anatomy: Anatomy, cut: Cut) -> bool:
    """Whether what is cut off meets x_hat entry by entry, as the decoder's own variance does."""
    flow, x_hat = anatomy.flow, anatomy.x_hat
    if x_hat is None:
        return False
    made, decoded = flow.descendants(*cut.op.makes), flow.descendants(x_hat)
    return any(
        op.makes
        and op.out.shape == x_hat.shape
        and any(v.index in made and v.index not in decoded for v in op.reads)
        and any(v.index in decoded and v.index not in made for v in op.reads)
        for op in anatomy.recording.ops
    )


def _left_out(anatomy: Anatomy, values: list[Value]) -> bool:
    """Whether the objective computes from values what it neither adds to the loss nor returns."""
    flow, recording = anatomy.flow, anatomy.recording
    given = [recording.value_of(t) for t in tensors_in(recording.returned)]
    kept = flow.ancestors(*(v for v in given if v is not None))
    made = flow.descendants(*values)
    return any(
        op.makes and op.out.index in made and op.out.index not in kept and op.out.requires_grad
        for op in recording.ops
        if op.index >= recording.forward_end > 0
    )


def _reaches_loss(anatomy: Anatomy, value: Value) -> bool:
    loss = anatomy.recording.loss
    end = anatomy.recording.value_of(loss) if isinstance(loss, Tensor) else None
    return end is not None and end.index in anatomy.flow.descendants(value)
