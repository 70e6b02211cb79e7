"""Two operands that differ along an axis: other shapes for the slots that they come from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ..trials.slots import Path, Slot, State, reshaped
from ..trials.witness import Failed, Operand

LARGEST = 8192


def broadcast(state: State, failed: Failed, slots: Mapping[Path, Slot]) -> Iterator[State]:
    """Two operands that differ along an axis: one takes over the other's size."""
    shaped = [o for o in failed.operands if o.shape]
    for path in {p for o in shaped for p in o.paths}:
        if slots[path].kind == "index" and len(slots[path].shape) == 2:
            yield reshaped(state, path, slots[path].shape[:1])
    yield from _of_the_others_steps(state, shaped, slots)
    yield from _of_the_others_shape(state, shaped, slots)
    yield from _like_the_other(state, shaped, slots)
    for one in reversed(shaped):
        for other in shaped:
            if other is one or not one.paths:
                continue
            for axis in range(1, 1 + min(len(one.shape), len(other.shape))):
                a, b = one.shape[-axis], other.shape[-axis]
                if a != b and b != 1 and (a != 1 or failed.name in {"cat", "stack"}):
                    yield from along(state, one, -axis, b, slots)
                    yield from _shifted(state, one, axis, b - a, slots)


def along(
    state: State, operand: Operand, axis: int, wanted: int, slots: Mapping[Path, Slot]
) -> Iterator[State]:
    """The slots of an operand with another size along one axis."""
    for path in operand.paths:
        shape = slots[path].shape
        if len(shape) == len(operand.shape) and len(shape) >= -axis:
            at = axis % len(shape)
            if 0 < wanted <= LARGEST and shape[at] != wanted:
                yield reshaped(state, path, (*shape[:at], wanted, *shape[at + 1 :]))


def _of_the_others_steps(
    state: State, shaped: list[Operand], slots: Mapping[Path, Slot]
) -> Iterator[State]:
    """What got an axis behind it is a mask, one number a step: of [B, T, ...] where it is [B, T].

    A number a row becomes one a step, and what it meets, where that is [B, T] too, gets a width.
    """
    for one in shaped:
        for path in one.paths:
            shape = slots[path].shape
            if one.shape != (*shape, 1):
                continue
            for other in (o for o in shaped if o.shape[:1] == shape[:1]):
                if len(shape) == 1 and len(other.shape) > 2 and other.shape[1] != shape[0]:
                    yield reshaped(state, path, other.shape[:2])
                for data in other.paths:
                    if len(shape) == 2 and other.shape == slots[data].shape == shape:
                        yield reshaped(state, data, (*shape, shape[1]))


def _of_the_others_shape(
    state: State, shaped: list[Operand], slots: Mapping[Path, Slot]
) -> Iterator[State]:
    """An input that meets what was computed as it came, noise for the sampler: as many axes."""
    for one in shaped:
        own = [p for p in one.paths if slots[p].shape == one.shape and slots[p].kind == "real"]
        if len(one.paths) != 1 or not own:
            continue
        for other in shaped:
            computed = not other.is_weight and other is not one and own[0] not in other.paths
            alike = len(other.shape) == len(one.shape) or other.shape[:1] != one.shape[:1]
            if computed and not alike:
                yield reshaped(state, own[0], other.shape)


def _like_the_other(
    state: State, shaped: list[Operand], slots: Mapping[Path, Slot]
) -> Iterator[State]:
    """A picture takes over all sides of another at once."""
    for one in shaped:
        for other in shaped:
            sides = other.shape[2:]
            if len(one.shape) != len(other.shape) or not sides or sides == one.shape[2:]:
                continue
            for path in one.paths:
                shape = slots[path].shape
                if shape[2:] == one.shape[2:] and len(sides) > 1:
                    yield reshaped(state, path, (*shape[:2], *sides))


def _shifted(
    state: State, one: Operand, axis: int, by: int, slots: Mapping[Path, Slot]
) -> Iterator[State]:
    """A slot that grew or got axes on its way: its own axis of that size changes."""
    for path in one.paths:
        shape = slots[path].shape
        if len(shape) != len(one.shape):
            size = one.shape[-axis]
            for at in (i for i in range(1, len(shape)) if shape[i] == size and size + by > 0):
                yield reshaped(state, path, (*shape[:at], size + by, *shape[at + 1 :]))
        if len(shape) == len(one.shape) and shape[-axis] != one.shape[-axis]:
            at = len(shape) - axis
            if 1 <= shape[at] + by <= LARGEST and abs(by) <= 4:
                yield reshaped(state, path, (*shape[:at], shape[at] + by, *shape[at + 1 :]))
