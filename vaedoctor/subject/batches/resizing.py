"""Sizes that did not fit: the shapes of slots, changed so that an operation gets what it asks."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from itertools import islice, permutations

from ..trials.slots import Path, Shape, Slot, State, reshaped
from ..trials.witness import Failed, Operand
from .broadcasting import LARGEST, along, broadcast
from .layers import Layers
from .othershapes import OtherShapes, rescaled

_VIEW = re.compile(r"shape '\[([\d, -]+)\]' is invalid for input of size (\d+)")
_CHANNELS = re.compile(r"to have (\d+) channels, but got (\d+) channels")
_WAYS = 4  # in which widths are shared out
_MATRIX = {"matmul", "mm", "bmm", "__matmul__", "__rmatmul__", "addmm", "baddbmm", "einsum"}
_CELLS = {"lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell"}
CONVOLUTIONS = {"conv1d": 1, "conv2d": 2, "conv3d": 3}


class Resizing:
    """Other shapes for the slots of one model; sizes that were met before are remembered."""

    def __init__(self, layers: Layers) -> None:
        self.layers, self.shapes = layers, OtherShapes(layers)
        self._met: dict[tuple[str, int, Path], tuple[int, int]] = {}

    def of(
        self, state: State, failed: Failed, slots: Mapping[Path, Slot], text: str
    ) -> Iterator[State]:
        """States in which the operation that failed gets other sizes."""
        name, operands = failed.name, failed.operands
        if name == "linear" and len(operands) > 1:
            yield from self.wider(state, operands[0], operands[1].shape[-1], slots)
        elif name.startswith("split"):
            given = [*failed.others, *failed.options.values()]
            parts = next((o for o in given if isinstance(o, list | tuple)), ())
            dim = next((o for o in given if isinstance(o, int)), 0)
            if parts and operands and -len(operands[0].shape) <= dim < len(operands[0].shape):
                axis = dim % len(operands[0].shape) - len(operands[0].shape)
                yield from along(state, operands[0], axis, sum(parts), slots)
        elif name in _CELLS:
            weight = next((o for o in operands if o.is_weight and len(o.shape) == 2), None)
            if weight is not None:
                yield from self.wider(state, operands[0], weight.shape[-1], slots)
        elif name in CONVOLUTIONS and len(operands) > 1 and len(operands[0].shape) > 1:
            yield from self._unfolded(state, operands[0], operands[1], slots, text)
            yield from self._larger(state, operands[0], slots, text)
            yield from self._fewer_channels(state, operands[0], slots, text)
        elif name in _MATRIX and len(operands) > 1 and len(operands[1].shape) > 1:
            left, right = operands[-2:]
            if left.shape and left.shape[-1] != right.shape[-2]:
                yield from self.wider(state, left, right.shape[-2], slots)
                yield from along(state, right, -2, left.shape[-1], slots)
            yield from self._same_rows(state, left, right, slots)
        elif (found := _VIEW.search(text)) is not None:
            sizes = [int(n) for n in found[1].split(",")]
            wanted = math.prod(n for n in sizes[1:] if n > 0)
            got = math.prod(operands[0].shape[1:]) if operands else 0
            if operands:
                yield from self._spread(state, operands[0], tuple(sizes), slots)
            yield from self._as_reshaped(state, tuple(sizes), int(found[2]), slots)
            if sizes[1:] and got and all(n > 0 for n in sizes[1:]):
                yield from self._together(state, operands[0], wanted / got, slots)
                for path in operands[0].paths:
                    for shape in self.shapes.resized(slots[path].shape, got, wanted):
                        yield reshaped(state, path, shape)
        elif name == "pad" and "should be less than" in text and operands:
            yield from self.padded(state, operands[0], slots)
        elif "batch_shape+event_shape" in text:
            return
        else:
            yield from broadcast(state, failed, slots)

    def _as_reshaped(
        self, state: State, sizes: Shape, numbers: int, slots: Mapping[Path, Slot]
    ) -> Iterator[State]:
        """An output that is brought into the input's own shape has fewer or more numbers."""
        for path, slot in slots.items():
            if slot.shape != sizes or len(sizes) < 3:
                continue
            side = math.isqrt(numbers // math.prod(sizes[:-2]))
            if len(sizes) > 3 and math.prod(sizes[:-2]) * side * side == numbers:
                yield reshaped(state, path, (*sizes[:-2], side, side))
            for axis in range(1, len(sizes)):
                rest = math.prod(sizes) // sizes[axis]
                if numbers % rest == 0 and numbers // rest > 1:
                    yield reshaped(
                        state, path, (*sizes[:axis], numbers // rest, *sizes[axis + 1 :])
                    )

    def _spread(
        self, state: State, operand: Operand, sizes: Shape, slots: Mapping[Path, Slot]
    ) -> Iterator[State]:
        """`c.view(c.size(0), c.size(1), 1, 1)` is a row a sample, to be spread over a map."""
        rank = len(sizes)
        while rank and sizes[rank - 1] == 1:
            rank -= 1
        if not 1 < rank < len(sizes) or operand.shape[:rank] != sizes[:rank]:
            return
        for path in operand.paths:
            if slots[path].shape == operand.shape:
                yield with_alike(state, path, sizes[:rank], slots)

    def wider(
        self, state: State, operand: Operand, wanted: int, slots: Mapping[Path, Slot]
    ) -> Iterator[State]:
        """The slots that decide about the operand's width, so that it becomes `wanted`."""
        if not operand.shape or operand.shape[-1] in (0, wanted):
            return
        got = operand.shape[-1]
        several = len(operand.paths) > 1
        if several:
            yield from self._shared_out(state, operand, wanted, slots)
        yield from self._together(state, operand, wanted / got, slots)
        ranked = []
        for path in operand.paths:
            slot = slots[path]
            if slot.kind == "plain" or (slot.kind == "length"):
                continue
            met = self._interpolated(path, slot.shape, got, wanted)
            others = self.shapes.resized(slot.shape, got, wanted, joined=several)
            for order, shape in enumerate((*met, *others)):
                told = shape[-1] in self.shapes.told() if several else False
                small = several and slot.kind == "onehot" and slot.shape[-1] in self.shapes.told()
                ranked.append((not told, small, order, str(path), path, shape))
        for *_, path, shape in sorted(ranked, key=lambda r: r[:4]):
            yield reshaped(state, path, shape)

    def _shared_out(
        self, state: State, operand: Operand, wanted: int, slots: Mapping[Path, Slot]
    ) -> Iterator[State]:
        """Two or three inputs side by side get widths that were told and sum to what is wanted."""
        paths = [p for p in slots if p in operand.paths]  # in the order of the arguments
        shapes = [slots[p].shape for p in paths]
        flat = all(len(s) == len(operand.shape) for s in shapes)
        if not flat or len(paths) > 3 or sum(s[-1] for s in shapes) != operand.shape[-1]:
            return
        told = [n for n in dict.fromkeys(self.shapes.in_order()) if 0 < n < wanted]
        fitting = (w for w in permutations(told, len(paths)) if sum(w) == wanted)
        for widths in islice(fitting, _WAYS):
            other = state
            for path, width in zip(paths, widths, strict=True):
                other = reshaped(other, path, (*slots[path].shape[:-1], width))
            yield other

    def _together(
        self, state: State, operand: Operand, factor: float, slots: Mapping[Path, Slot]
    ) -> Iterator[State]:
        """Pictures of one shape that were joined grow together."""
        shapes = {slots[path].shape for path in operand.paths}
        shape = next(iter(shapes), ())
        if len(operand.paths) < 2 or len(shapes) > 1 or len(shape) < 4:
            return
        for other in rescaled(shape, factor):
            grown = state
            for path in operand.paths:
                grown = reshaped(grown, path, other)
            yield grown

    def _interpolated(self, path: Path, shape: Shape, got: int, wanted: int) -> Iterator[Shape]:
        """From two sizes that were met, the one that gives the wanted width."""
        if len(shape) < 2:
            return
        before = self._met.get((str(len(shape)), wanted, path))
        self._met[str(len(shape)), wanted, path] = (shape[-1], got)
        if before is None or before[0] == shape[-1] or before[1] == got:
            return
        slope = (got - before[1]) / (shape[-1] - before[0])
        size = round(shape[-1] + (wanted - got) / slope)
        if 0 < size <= LARGEST and size != shape[-1]:
            dims = max(1, len(shape) - 2) if len(shape) > 3 else 1
            yield (*shape[:-dims], *(size,) * dims)

    def _fewer_channels(
        self, state: State, operand: Operand, slots: Mapping[Path, Slot], text: str
    ) -> Iterator[State]:
        """A picture that something is joined to before a convolution takes both."""
        if (found := _CHANNELS.search(text)) is None:
            return
        wanted, got = int(found[1]), int(found[2])
        paths = [p for p in slots if p in operand.paths and len(slots[p].shape) > 1]
        if len(paths) == 2:
            for row, picture in (paths, paths[::-1]):
                for width in (n for n in self.shapes.told() if n < wanted):
                    shape, rest = slots[row].shape, slots[picture].shape
                    if len(shape) == 2 < len(rest):
                        other = with_alike(state, row, (shape[0], width), slots)
                        yield reshaped(other, picture, (rest[0], wanted - width, *rest[2:]))
        for path in sorted(operand.paths, key=str):
            shape = slots[path].shape
            if len(shape) == len(operand.shape) and shape[1] != got:
                for channels in (shape[1] * wanted / got, shape[1] + wanted - got):
                    if channels == int(channels) and 0 < channels != shape[1]:
                        yield reshaped(state, path, (shape[0], int(channels), *shape[2:]))

    def _same_rows(
        self, state: State, left: Operand, right: Operand, slots: Mapping[Path, Slot]
    ) -> Iterator[State]:
        if len(left.shape) == len(right.shape) == 3 and left.shape[0] != right.shape[0]:
            yield from along(state, left, 0, right.shape[0], slots)

    def _unfolded(
        self,
        state: State,
        operand: Operand,
        weight: Operand,
        slots: Mapping[Path, Slot],
        text: str,
    ) -> Iterator[State]:
        """Channels that were folded on their way, patch by patch: as many times fewer of them."""
        got, found = operand.shape[1], _CHANNELS.search(text)
        if found is None or weight.paths:
            return
        wanted = int(found[1])
        for path in operand.paths:
            shape = slots[path].shape
            if len(shape) > 2 and got % shape[1] == 0 and (shape[1] * wanted) % got == 0:
                fewer = shape[1] * wanted // got
                if 0 < fewer != shape[1]:
                    yield reshaped(state, path, (shape[0], fewer, *shape[2:]))

    def padded(self, state: State, operand: Operand, slots: Mapping[Path, Slot]) -> Iterator[State]:
        """A margin that is mirrored does not fit into so short a signal."""
        for path in operand.paths:
            shape = slots[path].shape
            if len(shape) > 3:  # two sides grow together, a film's length stays
                yield reshaped(state, path, (*shape[:-2], 2 * shape[-2], 2 * shape[-1]))
                continue
            for longer in (8, 64):
                if len(shape) > 1 and shape[-1] * longer <= 65_536:
                    yield reshaped(state, path, (*shape[:-1], shape[-1] * longer))

    def _larger(
        self, state: State, operand: Operand, slots: Mapping[Path, Slot], text: str
    ) -> Iterator[State]:
        """A kernel that does not fit into the picture."""
        if "Kernel size" not in text and "output size is too small" not in text:
            return
        for path in operand.paths:
            shape = slots[path].shape
            if len(shape) > 2:
                usual = sorted(s for s in self.layers.sides(len(shape) - 2) if s > shape[2:])
                grown = [tuple(k * n for n in shape[2:]) for k in (2, 8, 32)]
                for sides in (*usual[:2], *grown[: 3 if len(shape) == 3 else 1]):
                    yield reshaped(state, path, (*shape[:2], *sides))


def with_alike(state: State, path: Path, shape: Shape, slots: Mapping[Path, Slot]) -> State:
    """The state with another shape for a slot that comes beside the data, and for its likes."""
    first, before = next(iter(slots)), slots[path].shape
    others = [p for p, s in slots.items() if p not in (first, path) and s.shape == before]
    for one in (path, *(others if path != first else ())):
        state = reshaped(state, one, shape)
    return state
