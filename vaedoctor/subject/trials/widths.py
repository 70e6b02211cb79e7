"""Axes whose size a weight has set: no other input changes it, so no input is wrong there."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

Axes = frozenset[int]
_NONE: Axes = frozenset()
_OF_LAST = {"linear", "embedding", "lstm", "gru", "rnn_tanh"}
_PARTS = {"chunk", "split", "tensor_split", "narrow", "__getitem__", "cat", "concat", "concatenate"}
_SWAPS = {"transpose", "swapaxes", "swapdims"}
_MOVES = {
    *("view", "reshape", "flatten", "unflatten", "permute", "movedim", "moveaxis"),
    *("einsum", "matmul", "bmm", "baddbmm", "__matmul__", "__rmatmul__", "pixel_shuffle"),
    *("pixel_unshuffle", "fold", "unfold", "expand", "repeat", "tile", "roll", "gather"),
}
_OF_CHANNELS = re.compile(r"channels|should contain \d+ elements")
_OF_FEATURES = {"linear", "layer_norm", "rms_norm", "multi_head_attention_forward"}
_OF_AXIS = re.compile(r"at non-singleton dimension (\d+)")


class Widths:
    """Follows such axes of tensors with three or more of them through one pass."""

    def __init__(self) -> None:
        self._told: dict[int, tuple[Tensor, Axes]] = {}

    def axes(self, tensor: Tensor) -> Axes:
        """The axes of a tensor whose size a weight has set."""
        return self._told[id(tensor)][1] if id(tensor) in self._told else _NONE

    def mark(
        self, name: str, args: Sequence[Any], read: Sequence[Tensor], made: Sequence[Tensor]
    ) -> None:
        """Look at one operation: what it was given and read, in order, and what it made."""
        for out in made:
            swapped = name in _SWAPS and len(read) == 1 and len(args) == 3
            axes = self._swapped(*args) if swapped else self._of(name, _maps(read), out)
            if out.dim() > 2 and axes:
                self._told[id(out)] = (out, axes)

    def _swapped(self, tensor: Tensor, first: int, second: int) -> Axes:
        a, b = first % tensor.dim(), second % tensor.dim()
        return frozenset({a: b, b: a}.get(i, i) for i in self.axes(tensor))

    def _of(self, name: str, maps: list[Tensor], out: Tensor) -> Axes:
        alike = [(t, self.axes(t)) for t in maps if t.dim() == out.dim()]
        if name.startswith("conv"):
            return frozenset({1})
        if name in _MOVES | _SWAPS:
            return _NONE
        if name in _PARTS:
            return frozenset.intersection(*(a for _, a in alike)) if alike else _NONE
        kept = frozenset(i for t, a in alike for i in a if out.shape[i] == t.shape[i] > 1)
        return kept | {out.dim() - 1} if name in _OF_LAST else kept

    def has_told_features(self, tensor: Tensor) -> bool:
        """Whether a weight has set the size of the last axis of three or more."""
        return tensor.dim() - 1 in self.axes(tensor)

    def are_refused(self, name: str, read: Sequence[Tensor], error: BaseException) -> bool:
        """Whether an operation refuses sizes that weights have set in all that it reads."""
        maps, said = _maps(read), str(error)
        if not maps or not isinstance(error, RuntimeError | ValueError | AssertionError):
            return False
        if name in _OF_FEATURES:
            return self.has_told_features(maps[0])
        if _OF_CHANNELS.search(said):
            return all(1 in self.axes(t) for t in maps)
        at = None if name == "__setitem__" else _OF_AXIS.search(said)  # there of what is indexed
        return at is not None and all(int(at.group(1)) in self.axes(t) for t in maps)


def _maps(read: Sequence[Tensor]) -> list[Tensor]:
    return [t for t in read if not isinstance(t, nn.Parameter) and t.dim() > 2]
