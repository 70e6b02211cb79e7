"""Hold every latent fixed and ask what the reconstruction still knows of the input."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ...rule import Unavailable
from ...subject.subject import Subject
from ..anatomy.anatomy import Anatomy
from ..anatomy.evaluation import differentiable
from ..anatomy.latents import Latent
from ..anatomy.moves import inputs_of
from ..anatomy.reconstruction import rebuilt
from ..codebook.heldcodes import held_codes
from ..runs.edits import Edits, by_operation
from ..runs.gradients import gradient_between
from ..runs.recording import Op, Value
from ..runs.repeat import countable, counted
from ..runs.step import run_recorded
from .allowed import classes, noised, statistics, summaries
from .around import compared, merge_of, narrow, turned
from .teacher import Seen, own_answers

_CHANNELS = 8


@dataclass(frozen=True, slots=True)
class Pinned:
    """x_hat against x with all stochastic nodes pinned.

    `leak` is the largest |d x_hat / d x| along a random direction (0 when nothing passes),
    `identity` whether that gradient is the direction itself (x is added to x_hat), `causal`
    whether x_hat at a step only knows earlier steps, `merge` the operation where x comes in,
    `statistic` whether all that comes in is one number a row computed without weights, `apart`
    whether the loss compares no entry of x that comes in, `classified` whether all that comes in is
    the probabilities of classes, `answers` what is known of the very steps that are to be guessed.
    """

    leak: float
    identity: bool
    causal: bool
    merge: Op | None
    through: str
    statistic: bool = False
    apart: bool = False
    classified: bool = False
    answers: Seen | None = None


def _stands_beside(anatomy: Anatomy, x: Value, x_hat: Value, held: list[Value]) -> bool:
    """Whether another input, as like x_hat as x is, is seen by nothing behind the samples."""
    flow = anatomy.flow
    behind, around = flow.ancestors(x_hat), flow.ancestors(x_hat, stop=held)
    unlike = x.tensor.numel() != x_hat.tensor.numel()
    return any(
        v is not x and (unlike or v.shape == x.shape) and v.index in behind - around
        for v in rebuilt(flow, inputs_of(anatomy.recording))
    )


def pin_latents(
    subject: Subject, anatomy: Anatomy, seed: int, rewind: Callable[[], None]
) -> Pinned:
    """Run the step again with each sample replaced by its own detached value."""
    flow, x, x_hat = anatomy.flow, anatomy.x, anatomy.x_hat
    latents = anatomy.sampled
    if x is None or x_hat is None:
        raise Unavailable("no sample reaches a reconstruction, so nothing can be pinned")
    held = [found.z for found in latents]
    held += _transformed(anatomy, latents) if held else held_codes(subject, anatomy, seed, rewind)
    if x.index not in flow.ancestors(x_hat, stop=held):
        return Pinned(0.0, False, False, None, "")
    if anatomy.recording.loss is None and _stands_beside(anatomy, x, x_hat, held):
        raise Unavailable(
            "no loss tells which of the inputs is to come out: another one like x reaches x_hat "
            "through the sample alone; supply `objective` or `conditions`"
        )
    if latents and not compared(anatomy, latents):
        raise Unavailable("the loss compares nothing with x: it may be pushed through a flow")
    if x.index not in flow.ancestors(x_hat, stop=[*held, *statistics(flow, x)]):
        return Pinned(0.0, False, False, None, "", statistic=True)
    if x.index not in flow.ancestors(x_hat, stop=[*held, *classes(flow, x)]):
        return Pinned(0.0, False, False, None, "", classified=True)
    if x.index not in flow.ancestors(x_hat, stop=[*held, *noised(flow, x)]):
        raise Unavailable("the decoder is a denoiser: it is shown x under noise of a drawn level")
    if latents and x.index not in flow.ancestors(x_hat, stop=[*held, *summaries(flow, x)]):
        raise Unavailable("the decoder is given a smaller picture of x, which may be a condition")
    if not x.tensor.is_floating_point():
        seen = own_answers(subject, anatomy, seed, rewind)
        if seen is None:
            raise Unavailable("the input is discrete, so its gradient cannot be taken")
        return Pinned(seen.share, False, False, None, "", answers=seen)
    if any(found.z.op is None for found in latents):
        raise Unavailable("a sample is made outside torch and cannot be pinned")
    pinned = [found.z for found in latents] or held
    edits: Edits = {v.place: _detached for v in pinned if v.op}
    gradient, direction, steps = _derivative(subject, anatomy, seed, rewind, edits)
    rewind()
    if gradient is None:
        return Pinned(0.0, False, False, None, "")
    if steps and (seen := own_answers(subject, anatomy, seed, rewind)) is not None and seen.share:
        return Pinned(seen.share, False, False, None, "", answers=seen)
    merge = merge_of(flow, held, x_hat, x)
    if merge is not None and latents and turned(flow, latents, merge):
        return Pinned(0.0, False, False, None, "")
    same = gradient.shape == direction.shape and bool(torch.allclose(gradient, direction))
    if not latents and not same and narrow(flow, held, merge, x):
        raise Unavailable("beside the codes the decoder is given a smaller summary of x")
    return Pinned(
        float(gradient.abs().max()),
        same,
        steps,
        merge,
        merge.name if merge is not None else "",
        apart=_apart(anatomy, gradient),
    )


def _apart(anatomy: Anatomy, seen: Tensor) -> bool:
    """Whether the loss scores x_hat only at entries of x that the decoder does not see.

    So it is where a mask shows the decoder one part of x, and the other is to be filled in.
    """
    x_hat, loss = anatomy.x_hat, anatomy.recording.loss
    end = anatomy.recording.value_of(loss) if isinstance(loss, Tensor) else None
    if end is None or x_hat is None or x_hat.shape != seen.shape:
        return False
    (scored,) = gradient_between([end], [x_hat])
    if scored is None or not bool((scored != 0).any()):
        return False
    return not bool(((scored != 0) & (seen != 0)).any())


def _transformed(anatomy: Anatomy, latents: list[Latent]) -> list[Value]:
    """Samples after a flow that knows x, `z = s(x) * z + m(x)`: of z's shape, judged by the loss.

    The loss (or an output, where it is unknown) reads them on another way than through x_hat, as
    `log p(z)` does. A feature that is merely added to the sample is read by the decoder alone.
    """
    flow, recording, x_hat = anatomy.flow, anatomy.recording, anatomy.x_hat
    assert x_hat is not None
    loss = recording.value_of(recording.loss) if isinstance(recording.loss, Tensor) else None
    ends = [loss] if loss is not None else [o.value for o in anatomy.outputs]
    read = flow.ancestors(*(end for end in ends if end is not x_hat), stop=[x_hat])
    after = flow.descendants(*(found.z for found in latents)) & flow.ancestors(x_hat) & read
    shapes = {found.z.shape for found in latents}
    return [v for v in recording.values if v.index in after and v.shape in shapes]


def _detached(z: Tensor) -> Tensor:
    return z.detach()


def _derivative(
    subject: Subject, anatomy: Anatomy, seed: int, rewind: Callable[[], None], edits: Edits
) -> tuple[Tensor | None, Tensor, bool]:
    assert anatomy.x is not None
    assert anatomy.x_hat is not None
    x = anatomy.x.tensor
    with differentiable(x):
        x_hat = _pinned(subject, anatomy, x, anatomy.x_hat, seed, rewind, edits)
        direction = torch.rand(x_hat.shape, generator=torch.Generator().manual_seed(seed)) + 0.5
        direction = direction.to(x_hat)
        if x_hat.shape != anatomy.x_hat.shape or not x_hat.requires_grad:
            return None, direction, False
        (gradient,) = torch.autograd.grad(
            (x_hat * direction).sum(), x, allow_unused=True, retain_graph=True
        )
        causal = gradient is not None and _causal(x_hat, x)
        return gradient, direction, causal


def _pinned(
    subject: Subject,
    anatomy: Anatomy,
    x: Tensor,
    x_hat: Value,
    seed: int,
    rewind: Callable[[], None],
    edits: Edits,
) -> Tensor:
    """The reconstruction of the step with edits; the caller rewinds when it has used its graph."""
    changes = by_operation(edits)
    if countable(anatomy.recording, changes, [x_hat]):
        made = counted(subject, anatomy.recording, seed, changes, [x_hat], lambda: None)
        if made.same:
            return made.tensors[x_hat.index]
        rewind()
        x.requires_grad_(True)
    recording = run_recorded(subject, seed=seed, edits=edits)
    if recording.error is not None or len(recording.values) <= x_hat.index:
        raise Unavailable("the step cannot be repeated with the latents pinned")
    return recording.values[x_hat.index].tensor


def _causal(x_hat: Tensor, x: Tensor) -> bool:
    """Whether x_hat at each of a few steps has no gradient at that step or later (teacher forcing).

    Tried on both sequence layouts, [batch, time, ...] and [time, batch, ...], of which x_hat may
    lack the first steps, on the pixels of a picture in the order of reading, and on the channels of
    each pixel, as where a mixture's green mean knows the pixel's red.
    """
    if x.dim() == 2 and len(x_hat) == len(x) and x_hat.dim() > 1:
        return _in_order(x_hat, x, 1)  # a series of numbers
    if x.dim() < 3 or x_hat.dim() < 3:
        return False
    if any(_in_order(x_hat, x, axis) for axis in (1, 0)) or _by_channel(x_hat, x):
        return True
    if x.dim() != 4 or x_hat.dim() != 4 or x_hat.shape[2:] != x.shape[2:] or len(x_hat) != len(x):
        return False
    pixels = x_hat.flatten(2)
    last = pixels.shape[2] - 1
    return all(
        _blind(pixels.select(2, pixel), x, lambda g: g.flatten(2)[..., pixel:])  # noqa: B023
        for pixel in (0, last // 2, last)
    )


def _in_order(x_hat: Tensor, x: Tensor, axis: int) -> bool:
    length, late = x_hat.shape[axis], x.shape[axis] - x_hat.shape[axis]
    if length < 2 or not 0 <= late < length or x_hat.shape[1 - axis] != x.shape[1 - axis]:
        return False
    return all(
        _blind(x_hat.select(axis, step), x, lambda g: g.narrow(axis, step + late, length - step))  # noqa: B023
        for step in (0, length // 2, length - 1)
    )


def _by_channel(x_hat: Tensor, x: Tensor) -> bool:
    """Whether each channel of x_hat, on whichever axis, knows only those of x before it."""
    channels = x.shape[1]
    if x.dim() != 4 or not 1 < channels <= _CHANNELS or len(x_hat) != len(x):
        return False
    return any(
        all(
            _blind(x_hat.select(axis, c), x, lambda g: g[:, c:])  # noqa: B023
            for c in range(channels)
        )
        for axis in range(1, x_hat.dim())
        if x_hat.shape[axis] == channels
    )


def _blind(part: Tensor, x: Tensor, later: Callable[[Tensor], Tensor]) -> bool:
    """Whether a part of x_hat has a gradient of exactly 0 at what comes later in x."""
    (g,) = torch.autograd.grad(part.sum(), x, allow_unused=True, retain_graph=True)
    return g is None or not bool((later(g) != 0).any())
