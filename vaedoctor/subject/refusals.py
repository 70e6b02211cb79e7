"""What a model's own check says about its input: `expected 2 audio channels, got 132`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from .slots import Path, Slot, State, reshaped

_EXPECTED = re.compile(
    r"(?:expect\w*|must (?:be|have|equal)|should (?:be|have|equal)|needs?)\D{0,40}?(?P<wanted>\d+)"
    r"\D{0,40}?(?:got|received|found|given|not|but|is|has)\D{0,30}?(?P<arrived>\d+)",
    re.IGNORECASE,
)
_RAISED_BY_CHECKS = (ValueError, AssertionError)


def as_it_says(
    state: State, slots: Mapping[Path, Slot], error: BaseException | None
) -> Iterator[State]:
    """The size that arrived, changed to the one that was expected, wherever a slot has it."""
    if not isinstance(error, _RAISED_BY_CHECKS):
        return
    found = _EXPECTED.search(str(error))
    if found is None:
        return
    wanted, arrived = int(found["wanted"]), int(found["arrived"])
    if not 0 < wanted != arrived:
        return
    for path, slot in slots.items():
        for axis, size in enumerate(slot.shape):
            if axis and size == arrived:
                yield reshaped(state, path, (*slot.shape[:axis], wanted, *slot.shape[axis + 1 :]))
