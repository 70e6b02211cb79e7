"""Complex numbers: signals whose real and imaginary parts come in one tensor, or side by side."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace

from ..trials.slots import Path, Slot, State, changed, reshaped
from ..trials.witness import Failed

_ASKED = re.compile(
    r"only supported for complex|with non-complex dtypes|expects? .*complex|complex.* expected"
    r"|(and|found|got) (c10::)?Complex|ComplexFloat.*(and|found|got) (c10::)?Float"
    r"|same dtype, but got \w*Float and Complex",
    re.IGNORECASE,
)
_REFUSED = re.compile(
    r"not (implemented|supported) for '?Complex|(does not|not) support(ed)? .*complex"
    r"|real numbers only",
    re.IGNORECASE,
)
_IN_PAIRS = re.compile(r"last dimension of size 2")
_PARTS = 2


def of_parts(
    state: State, failed: Failed, slots: Mapping[Path, Slot], text: str
) -> Iterator[State]:
    """Complex numbers where an operation wants them, and pairs of real ones where it joins them."""
    paths = [p for o in failed.operands for p in sorted(o.paths, key=str)]
    if _IN_PAIRS.search(text):
        for path in paths:
            shape = slots[path].shape
            yield reshaped(state, path, (*shape[:-1], _PARTS))
            yield reshaped(state, path, (*shape, _PARTS))
    elif _REFUSED.search(text):
        for path in paths:
            if slots[path].kind == "complex":
                yield changed(state, path, replace(slots[path], kind="real"))
    elif _ASKED.search(text):
        for path in paths:
            slot = slots[path]
            if slot.kind not in {"real", "onehot"}:
                continue
            for axis, size in enumerate(slot.shape):
                if axis and size == _PARTS:  # both parts were given one beside the other
                    shape = (*slot.shape[:axis], *slot.shape[axis + 1 :])
                    yield changed(state, path, Slot(shape, "complex"))
            yield changed(state, path, Slot(slot.shape, "complex"))
