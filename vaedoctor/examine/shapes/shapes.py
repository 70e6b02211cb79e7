"""Location and scale of one sampler: do they have one shape, and are their rows the batch's?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from ...finding import Span
from ..anatomy.heads import Head, path_of
from ..anatomy.latents import MULS, PRODUCTS
from ..anatomy.moves import inputs_of
from ..code.listing import returned_name
from ..runs.flow import SLICES, Flow
from ..runs.recording import Op, Recording, Value
from .broadcasts import COMPARES
from .failure import posterior_operands, sender_of, target_operands

if TYPE_CHECKING:
    from ..examination import Examination


_MOST = 1 << 22


@dataclass(frozen=True, slots=True)
class PosteriorShapes:
    """What is wrong with a pair of posterior parameters: "batch" (split over rows) or "differ"."""

    kind: str
    loc: tuple[int, ...]
    scale: tuple[int, ...]
    path: str
    rows: int
    at: Span | None
    cause: str


def posterior_shapes(examination: Examination) -> Iterator[PosteriorShapes]:
    """Judge the samplers of the step, or the operation at which the step failed."""
    recording, flow = examination.recording, examination.flow
    rows = _rows(recording)
    if recording.error is not None:
        op = next((o for o in reversed(recording.ops) if o.error is recording.error), None)
        if op is not None:
            yield from _failed(flow, op, rows)
            yield from _cut_before(flow, op.reads, rows)
        else:  # a distribution refuses what it is to score before any operation
            sampled = [v for v in recording.values if flow.noise[v.index] and flow.posterior(v)]
            yield from _cut_before(flow, sampled, rows)
        return
    for latent in examination.anatomy.latents:
        loc, scale = latent.loc, latent.scale
        token = f"latent:{latent.z.index}"
        for head in (latent.loc_head, latent.scale_head):
            if head is not None and _rows_are_cut(head, rows):
                at = head.value.op.span if head.value.op is not None else head.op.span
                whole = head.op.out.shape
                yield PosteriorShapes("batch", head.value.shape, whole, head.path, rows, at, token)
                break
        else:
            if loc is None or scale is None or latent.meeting.name in PRODUCTS:
                continue
            if flow.posterior(scale) and _grows(loc.shape, scale.shape):
                path = latent.loc_head.path if latent.loc_head else ""
                part = latent.loc_head.value.op if latent.loc_head else latent.meeting
                at = part.span if part is not None else latent.meeting.span
                yield PosteriorShapes("differ", loc.shape, scale.shape, path, rows, at, token)


def _rows(recording: Recording) -> int:
    shapes = [v.shape for v in inputs_of(recording) if v.shape]
    return shapes[0][0] if shapes else 0


def _grows(loc: tuple[int, ...], scale: tuple[int, ...]) -> bool:
    """Whether the sample gets an axis the location does not have (a scale of width 1 is legal)."""
    if len(loc) != len(scale):
        return len(scale) > len(loc)
    return any(a == 1 and b > 1 for a, b in zip(loc, scale, strict=True))


def _rows_are_cut(head: Head, rows: int) -> bool:
    """Whether a part of a layer's output mixes the layer's rows: `chunk(2, dim=0)`, a bad view.

    The part is a view of the output, so its strides tell from which row each entry comes. It is
    right when some axis of the part runs through the rows in order.
    """
    if not head.op.makes or rows < 2:
        return False
    whole, part = head.op.out.tensor, head.value.tensor
    if whole.shape[:1] != (rows,) or part is whole or whole.layout is not torch.strided:
        return False
    storage = whole.untyped_storage()
    size = storage.nbytes() // max(1, whole.element_size())
    if part.untyped_storage().data_ptr() != storage.data_ptr() or size > _MOST:
        return False
    row_of = torch.full((size,), -1)
    index = torch.arange(rows).view(-1, *[1] * (whole.dim() - 1))
    row_of.as_strided(whole.shape, whole.stride(), whole.storage_offset()).copy_(
        index.expand(whole.shape)
    )
    mine = row_of.as_strided(part.shape, part.stride(), part.storage_offset())
    for axis, length in enumerate(part.shape):
        steps = torch.arange(length).view(*[-1 if a == axis else 1 for a in range(part.dim())])
        if length == rows and bool((mine == steps).all()):
            return False
    return bool((mine != mine.flatten()[0]).any())


def _failed(flow: Flow, op: Op, rows: int) -> Iterator[PosteriorShapes]:
    """The sampler's own multiplication or addition failed on two heads of unlike shape."""
    operands = posterior_operands(flow, op) or _drawn_like(flow, op)
    if operands is not None:
        loc, scale = operands
        yield PosteriorShapes(
            "differ", loc.shape, scale.shape, path_of(op), rows, op.span, "failure"
        )


def _drawn_like(flow: Flow, op: Op) -> tuple[Value, Value] | None:
    """A head whose shape the noise has, and the one of another width that the noise is to scale."""
    if op.name not in MULS or len(op.reads) != 2:
        return None
    for scale, noise in (op.reads, op.reads[::-1]):
        drawn = noise.op if noise.op is not None and noise.op.noise is not None else None
        for loc in drawn.shapes if drawn is not None and flow.posterior(scale) else ():
            apart = loc.shape[:-1] == scale.shape[:-1] and loc.shape[-1:] != scale.shape[-1:]
            if flow.posterior(loc) and apart:
                return loc, scale
    return None


def _cut_before(flow: Flow, refused: Sequence[Value], rows: int) -> Iterator[PosteriorShapes]:
    """A sample that is refused because its parameters were split along the batch axis."""
    behind = flow.ancestors(*refused)
    drawn = [d for d in flow.draws if d.value.index in behind]
    for op in flow.recording.ops if drawn else ():
        if op.name not in SLICES or len(op.makes) < 2 or not op.reads or rows < 2:
            continue
        whole, part = op.reads[0], op.out
        if part.index not in behind or not flow.posterior(whole) or whole.shape[:1] != (rows,):
            continue
        if part.shape[1:] == whole.shape[1:] and part.shape[0] < rows:
            yield PosteriorShapes(
                "batch", part.shape, whole.shape, path_of(op), rows, op.span, "failure"
            )
            return


@dataclass(frozen=True, slots=True)
class Compared:
    """Reconstruction and input where the loss compares them, or as the model returned them."""

    x_hat: tuple[int, ...]
    x: tuple[int, ...]
    agrees: bool
    certain: bool
    layer: str
    at: Span | None


def compared(examination: Examination) -> Compared | None:
    """The shapes of x_hat and x; None where no reconstruction was found."""
    recording, flow = examination.recording, examination.flow
    failure = examination.failure
    if failure is not None:
        pair = target_operands(recording, flow, failure.op) if failure.op else None
        if pair is None:
            return None
        maker = _maker(flow, pair[0])
        return Compared(pair[0].shape, pair[1].shape, False, True, maker, failure.at)
    anatomy = examination.anatomy
    if anatomy.x is None or anatomy.x_hat is None:
        return None
    narrow = None if examination.composed else _narrow(examination)
    if narrow is not None:
        return narrow
    x_hat, x = anatomy.x_hat, anatomy.x
    single = len(inputs_of(recording)) == 1 and x.tensor.is_floating_point()
    judged = examination.composed and single and examination.subject.batch_axis is not None
    vectors = len(x.shape) == len(x_hat.shape) == 2
    if examination.subject.batch.guessed and not vectors:
        judged = False  # the side of a made-up image may be wrong
    big, small = sorted((x.tensor.numel(), x_hat.tensor.numel()), reverse=True)
    # Several samples a row, or several parameters a feature, give a whole multiple.
    agrees = not judged or (small > 0 and big % small == 0 and x_hat.tensor.numel() == big)
    returned = returned_name(type(examination.subject.model), anatomy.x_hat_name)
    names = f"{anatomy.x_hat_name} {returned}".lower()
    named = any(word in names for word in _RECONSTRUCTIONS)
    certain = vectors and (named or big < 2 * small)
    at = x_hat.op.span if x_hat.op is not None else None
    return Compared(x_hat.shape, x.shape, agrees, certain, _maker(flow, x_hat), at)


def _narrow(examination: Examination) -> Compared | None:
    """Where the loss subtracts from x what a layer of width 1 makes: it is spread over x's width.

    Beside an output of x's own shape it may be an offset, which is spread on purpose.
    """
    flow, anatomy = examination.flow, examination.anatomy
    raw = inputs_of(anatomy.recording)
    decoded = flow.descendants(*(latent.z for latent in anatomy.latents))
    for op in anatomy.recording.ops:
        if op.name not in COMPARES or len(op.reads) < 2 or not op.makes:
            continue
        x = next((v for v in op.reads if v in raw), None)
        made = next((v for v in op.reads if v is not x and v.index in decoded), None)
        if x is None or made is None or any(o.value.shape == x.shape for o in anatomy.outputs):
            continue
        axis = _width_axis(flow, made)
        if axis is None or len(made.shape) != len(x.shape) or x.shape[axis] < 2:
            continue
        if made.shape == (*x.shape[:axis], 1, *x.shape[axis + 1 :]):
            return Compared(made.shape, x.shape, False, True, _maker(flow, made), op.span)
    return None


def _width_axis(flow: Flow, value: Value) -> int | None:
    """The axis that the layer before a value gives a width of its own; None where none does."""
    shape = value.shape
    while value.op is not None and not flow.layer(value.op):
        parents = [p for p in flow.parents(value) if p.shape == shape]
        if len(parents) != 1:
            return None
        (value,) = parents
    if value.op is None:
        return None
    return 1 if value.op.name.startswith("conv") else len(shape) - 1


_RECONSTRUCTIONS = ("recon", "x_hat", "xhat", "x_rec", "x_prime", "x_tilde", "decoded")


def _maker(flow: Flow, value: Value) -> str:
    return sender_of(flow, value)[0]
