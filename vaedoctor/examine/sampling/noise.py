"""Noise that torch does not make, and noise that does not change: the same step run again.

A tensor that enters from Python or NumPy is opaque to the recorder. Two more runs tell what it
is: with another NumPy and Python seed it changes when it holds noise; with another input it
changes when values of the model were carried through Python (`torch.tensor(z.tolist())`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ...finding import Span
from ...subject.subject import Batch, Subject
from ...subject.trials.switches import seed_everything
from ..anatomy.anatomy import Anatomy
from ..anatomy.latents import Latent
from ..anatomy.moves import inputs_of
from ..code.listing import calls_in
from ..runs.again import Again
from ..runs.chance import RARE, coincidence
from ..runs.flow import Flow
from ..runs.recording import ESCAPES, Op, Recording, Value
from ..runs.step import run_recorded
from ..structure.branches import hiding_places
from .cachednoise import cached_noise
from .reseeding import seeded_at

_ENTRIES = frozenset("tensor as_tensor asarray from_numpy new_tensor".split())


def entries(recording: Recording) -> list[Value]:
    """Tensors made from Python or NumPy numbers, in order of appearance."""
    return [
        v
        for v in recording.values
        if v.tensor.is_floating_point()
        and (
            (v.op is None and v.source == "constant" and v.content is not None)
            or (v.op is not None and v.op.name in _ENTRIES and not v.op.reads)
        )
    ]


def _content(value: Value) -> Tensor:
    return value.content if value.content is not None else value.tensor.detach()


@dataclass(frozen=True, slots=True)
class Entries:
    """Which entering tensors hold noise from outside torch, and which carry the model's values."""

    outside: frozenset[int] = frozenset()
    carried: tuple[tuple[int, tuple[Value, ...]], ...] = ()


def examine_entries(
    subject: Subject, recording: Recording, seed: int, rewind: Callable[[], None]
) -> Entries:
    """Run the step with other NumPy noise and with another input where anything entered."""
    escapes = [op for op in recording.ops if op.name in ESCAPES]
    found = [v for v in entries(recording) if escapes or v.tensor.numel() > 1]
    if not found:
        return Entries()
    outside = _changed(found, run_recorded_with_other_numbers(subject, seed, rewind), recording)
    carried = []
    if escapes:
        other = run_recorded(subject, seed=seed, batch=perturbed(subject.batch))
        rewind()
        moved = _changed(found, other, recording) - outside
        for value in found:
            if value.index in moved:
                origins = _origins(value, recording)
                if origins:
                    carried.append((value.index, origins))
    return Entries(frozenset(outside), tuple(carried))


def run_recorded_with_other_numbers(
    subject: Subject, seed: int, rewind: Callable[[], None]
) -> Recording:
    """The same step, the same torch seed, other NumPy and Python seeds."""
    seed_everything(seed + 1)
    torch.manual_seed(seed)
    recording = run_recorded(subject, seed=None)
    rewind()
    return recording


def _changed(found: list[Value], other: Recording, recording: Recording) -> set[int]:
    twins = entries(other)
    mine = entries(recording)
    if len(twins) != len(mine):
        return set()
    pairs = zip(mine, twins, strict=True)
    differing = {
        a.index
        for a, b in pairs
        if a.shape == b.shape and not torch.equal(_content(a), _content(b))
    }
    return differing & {v.index for v in found}


def _origins(entry: Value, recording: Recording) -> tuple[Value, ...]:
    """The values last read out to Python before the entry: of its size, else all of them."""
    end = entry.op.index if entry.op is not None else _first_use(entry, recording)
    read = [op for op in recording.ops[:end] if op.name in ESCAPES and op.reads]
    same = [op for op in read if op.reads[0].tensor.numel() == entry.tensor.numel()]
    chosen = same[-1:] or [op for op in read if op.name == "item"] or read
    return tuple({op.reads[0].index: op.reads[0] for op in chosen}.values())


def _first_use(entry: Value, recording: Recording) -> int:
    for op in recording.ops:
        if entry in op.reads:
            return op.index
    return len(recording.ops)


def perturbed(batch: Batch) -> Batch:
    """The batch with every floating tensor moved a little, within its range."""
    generator = torch.Generator().manual_seed(1)

    def move(item: Tensor) -> Tensor:
        if not item.is_floating_point() or not item.numel():
            return item
        other = torch.rand(item.shape, generator=generator).to(item)
        low, high = item.detach().aminmax()
        if low == high:  # a batch of ones: the range of an image
            low, high = low.clamp(max=0), high.clamp(min=1)
        return (0.5 * item + 0.5 * (low + (high - low) * other)).detach()

    return batch.mapped(move)


@dataclass(frozen=True, slots=True)
class FrozenNoise:
    """Noise that two passes with running generators share, `cached` or reseeded, and where."""

    name: str
    cached: bool
    numbers: int
    at: Span | None
    attribute: str = ""


def frozen_noise(anatomy: Anatomy, again: Again, model: nn.Module) -> Iterator[FrozenNoise]:
    """Draws that come out bit-equal in two passes, and constants that stand in for a draw.

    Whole numbers may be equal by chance, as those of confident categories are: then all draws of
    one line together have to be too unlikely, and none of them may differ.
    """
    equal: dict[Span | None, list[Op]] = {}
    differs: set[Span | None] = set()
    for latent in anatomy.latents:
        draw = latent.draw
        if draw.op is None or draw.op.noise is None or draw.op.noise.numel() < 2:
            continue
        name, twin = again.noise.get(draw.op.index, ("", None))
        if twin is None or name != draw.op.name:
            if id(draw.value.tensor) in again.tensors:  # cached on first use
                yield FrozenNoise(draw.name, True, draw.op.noise.numel(), draw.op.span)
            continue
        if twin.shape == draw.op.noise.shape and torch.equal(twin, draw.op.noise):
            equal.setdefault(draw.op.span, []).append(draw.op)
        else:
            differs.add(draw.op.span)
    for at, ops in equal.items():
        chance = sum(map(coincidence, ops))
        if chance < RARE and not (at in differs and math.isfinite(chance)):
            numbers = sum(op.noise.numel() for op in ops if op.noise is not None)
            yield FrozenNoise(ops[0].name, False, numbers, seeded_at(ops[0]))
    if not anatomy.latents:
        places = dict(hiding_places(model))
        for value, op in cached_noise(anatomy):
            behind = [anatomy.recording.values[i] for i in sorted(anatomy.flow.ancestors(value))]
            held = next((places[id(v.tensor)] for v in behind if id(v.tensor) in places), None)
            named = next((v.name for v in behind if v.source == "buffer"), "a constant")
            name = held.expression if held else value.name or named
            attribute = held.attribute if held else ""
            yield FrozenNoise(name, True, value.tensor.numel(), op.span, attribute)


@dataclass(frozen=True, slots=True)
class SharedNoise:
    """One latent whose rows, or `samples` or `units` of whose every row, all get the same noise."""

    latent: Latent
    rows: int
    drawn: tuple[int, ...]
    samples: int = 0
    units: int = 0


def shared_noise(anatomy: Anatomy) -> Iterator[SharedNoise]:
    """Latents in which one draw serves several rows of the batch."""
    inputs = [v.shape for v in inputs_of(anatomy.recording) if v.shape]
    rows = inputs[0][0] if inputs else 0
    told: set[Span] = set()
    for latent in anatomy.affine:
        drawn = latent.draw.op.noise if latent.draw.op is not None else latent.draw.value.tensor
        z = latent.z.shape
        if drawn is None or rows < 2 or latent.meeting is latent.draw.op or rows not in z:
            continue
        try:
            effective = drawn.detach().expand(z)
        except RuntimeError:
            continue  # reshaped on the way: not judged
        axis = z.index(rows)
        row = effective.select(axis, 0).unsqueeze(axis)
        at = latent.draw.op.span if latent.draw.op is not None else None
        if at in told:  # one line that draws for every level or step
            continue
        if bool((effective == row).all()):
            told.update([at] if at is not None else [])
            yield SharedNoise(latent, rows, tuple(drawn.shape))
        elif samples := _equal_samples(anatomy, latent, rows):
            told.update([at] if at is not None else [])
            yield SharedNoise(latent, rows, tuple(drawn.shape), samples)


def units_of_one_draw(latent: Latent) -> SharedNoise | None:
    """A latent whose draw has one number where the sample's last axis has several; None if not."""
    drawn = latent.draw.op.noise if latent.draw.op is not None else None
    z, meeting = latent.z.shape, latent.meeting
    if drawn is None or meeting is latent.draw.op or drawn.dim() != len(z) or len(z) < 2:
        return None
    alone = drawn.shape[-1] == 1 < z[-1] and drawn.numel() > 1
    alone &= latent.loc is not None and latent.loc.shape[-1:] == z[-1:]  # else VAE506 tells
    return SharedNoise(latent, z[0], tuple(drawn.shape), units=z[-1]) if alone else None


def _equal_samples(anatomy: Anatomy, latent: Latent, rows: int) -> int:
    """How many samples of each row there are, all of them the same; 0 where they differ.

    An axis that x has too holds steps, which may share a draw.
    """
    z, x = latent.z.tensor.detach(), anatomy.x
    if z.dim() != 3 or x is None or rows not in z.shape[:2]:
        return 0
    axis = 1 if z.shape[0] == rows else 0
    count = z.shape[axis]
    alike = count > 1 and bool((z == z.narrow(axis, 0, 1)).all())
    return count if alike and count not in x.shape else 0


def entered_at(latent: Latent, flow: Flow, model: nn.Module) -> Span | None:
    """Where noise from outside torch becomes a tensor.

    `torch.tensor` is recorded; `torch.from_numpy` and the legacy constructors are not, so the one
    call of theirs in the model's classes is looked up in the source. Without it, the first
    operation on the noise alone (`.float()`, `.to(mu)`) is the nearest place.
    """
    if latent.draw.op is not None:
        return latent.draw.op.span
    calls = [
        span for kind in {type(m) for m in model.modules()} for span in calls_in(kind, _ENTERING)
    ]
    if len(calls) == 1:
        return calls[0]
    first = next(iter(flow.consumers.get(latent.draw.value.index, ())), latent.meeting)
    return first.span or latent.meeting.span


_ENTERING = frozenset("from_numpy FloatTensor DoubleTensor Tensor as_tensor asarray".split())
