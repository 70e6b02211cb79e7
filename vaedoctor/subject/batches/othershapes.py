"""Other shapes of one input, after which a width on the way would be the one that is wanted."""

from __future__ import annotations

import math
from collections.abc import Iterator

from ..trials.slots import Shape
from .broadcasting import LARGEST
from .layers import Layers, square_images

_FEATURES = 16  # so many numbers may be made of each one before a linear layer


class OtherShapes:
    """Other shapes of one slot, from what the layers and the constructor's arguments tell."""

    def __init__(self, layers: Layers) -> None:
        self.layers = layers

    def told(self) -> set[int]:
        """The whole numbers among the constructor's arguments."""
        return set(self.in_order())

    def in_order(self) -> list[int]:
        """The same in the order of the arguments, each as often as it was given."""
        return [v for v in self.layers.hints.values() if isinstance(v, int)]

    def resized(
        self, shape: Shape, got: int, wanted: int, *, joined: bool = False
    ) -> Iterator[Shape]:
        """Other shapes of a slot, after which a width of `got` would be `wanted`."""
        if len(shape) < 2:
            return
        if shape[-1] == got:
            yield (*shape[:-1], wanted)
            return
        if joined and 0 < shape[-1] + wanted - got <= LARGEST:
            yield (*shape[:-1], shape[-1] + wanted - got)
        if math.prod(shape[1:]) == got:
            yield from self._refilled(shape, wanted)
        if len(shape) > 3 and shape[-1] * shape[-2] == got:
            for n in self.told():
                if 1 < n < wanted and wanted % n == 0:
                    yield (*shape[:-2], n, wanted // n)
        for axis in range(1, len(shape) - 1):
            if shape[axis] == got:
                yield (*shape[:axis], wanted, *shape[axis + 1 :])
            elif len(shape) > 3 and got % shape[axis] == 0 and got // shape[axis] <= _FEATURES:
                size, rest = divmod(wanted, got // shape[axis])
                if size and not rest:
                    yield (*shape[:axis], size, *shape[axis + 1 :])
        if len(shape) > 2:
            alike = (s for s in self.layers.pictures if s[:2] == shape[:2])
            yield from (s for s in alike if len(s) == len(shape) and s != shape)
            yield from rescaled(shape, wanted / got)
            yield from self._rectangles(shape, wanted)
        if got % shape[-1] == 0 and wanted % (got // shape[-1]) == 0:
            yield (*shape[:-1], wanted // (got // shape[-1]))
        if not joined and 0 < shape[-1] + wanted - got <= LARGEST and len(shape) == 2:
            yield (*shape[:-1], shape[-1] + wanted - got)
        if len(shape) == 2 and 0 < (near := round(shape[-1] * wanted / got)) != shape[-1]:
            yield (*shape[:-1], near)

    def _rectangles(self, shape: Shape, wanted: int) -> Iterator[Shape]:
        """Pictures of unlike sides whose last map has as many numbers as a flat layer wants.

        The map's channels are those of a convolution, its sides the picture's by all strides.
        """
        if len(shape) != 4:
            return
        by, most = self.layers.strides(), 4
        for channels in self.layers.channels():
            if wanted % channels:
                continue
            sides = _sides(wanted // channels)
            for tall, wide in sides if len(sides) <= most else ():
                if tall * by <= 1024 and wide * by <= 1024:
                    yield (*shape[:2], tall * by, wide * by)

    def _refilled(self, shape: Shape, wanted: int) -> Iterator[Shape]:
        """So many numbers in as many axes."""
        b, rank = shape[0], len(shape)
        if rank == 3:
            for axis, other in ((1, 2), (2, 1)):
                if wanted % shape[axis] == 0:
                    rest = wanted // shape[axis]
                    yield (b, shape[1], rest) if axis == 1 else (b, rest, shape[other])
            for n in self.told():
                if 1 < n < wanted and wanted % n == 0:
                    yield (b, n, wanted // n)
                    yield (b, wanted // n, n)
        yield from (s for s in square_images(b, wanted) if len(s) == rank)


def rescaled(shape: Shape, factor: float) -> list[Shape]:
    """The shape with as many times the pixels (or the steps) as a flattened layer asks for."""
    dims = len(shape) - 2
    if dims < 1 or factor <= 0:
        return []
    side = round(shape[2] * factor ** (1 / dims))
    found = [(*shape[:2], *(side,) * dims)] if 1 < side <= 512 else []
    if dims == 2 and shape[2] != shape[3]:  # one side is another matter than the other
        for axis, other in ((2, 3), (3, 2)):
            n = round(shape[axis] * factor)
            if 1 < n <= 2048:
                longer = (n, shape[other]) if axis == 2 else (shape[other], n)
                found.insert(axis - 2, (*shape[:2], *longer))
    if dims == 1:
        steps = round(shape[1] * factor)
        found += [(shape[0], steps, shape[2])] if 1 < steps <= 2048 else []
    return [f for f in found if f != shape]


def _sides(area: int) -> list[tuple[int, int]]:
    """Two unlike sides of a rectangle, the most square ones first, lying and standing."""
    found = [(n, area // n) for n in range(math.isqrt(area), 0, -1) if area % n == 0]
    unlike = [(a, b) for a, b in found if a != b and b <= 8 * a][:2]
    return [side for a, b in unlike for side in ((a, b), (b, a))]
