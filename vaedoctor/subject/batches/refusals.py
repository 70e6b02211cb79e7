"""What a refusal says about the input: `expected 2 audio channels, got 132`; 64 rows, not 8."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from ..trials.slots import Path, Slot, State, reshaped

_EXPECTED = re.compile(
    r"(?:expect\w*|must (?:be|have|equal)|should (?:be|have|equal)|needs?|requires?)"
    r"\D{0,40}?(?P<wanted>\d+)\D{0,40}?(?:got|received|found|given|not|but|is|has)\D{0,30}?(?P<arrived>\d+)",
    re.IGNORECASE,
)
# Torch's own words where two tensors differ in rows; LSTM states have them on the second axis.
_ROWS = (
    re.compile(r"tensor a \((\d+)\) must match .* tensor b \((\d+)\) at non-singleton dimension 0"),
    re.compile(
        r"size of the tensor \((\d+)\) must match .* \((\d+)\) at non-singleton dimension 0"
    ),
    re.compile(r"except in dimension [1-9]\. Expected size (\d+) but got size (\d+)"),
    re.compile(r"Expected hidden\S* size \(\d+, (\d+), \d+\), got \[\d+, (\d+), \d+\]"),
    re.compile(r"Expected batch\w* size (\d+), got (\d+)", re.IGNORECASE),
)
_VIEWED = re.compile(r"shape '\[(\d+)(?:, -?\d+)+\]' is invalid for input of size")
# Shapes that are written out: `torch.Size([8, 323])`, `(*, 19, 17)`, `(B, 20, 80)`.
_SIZE = r"\s*(?:\d+|[*?]|-1|[A-Za-z]\w{0,9})\s*"
_SHAPE = re.compile(rf"[\[(]((?:{_SIZE},)+(?:{_SIZE})?)[\])]")
_TORCHS = r"torch\.Size\(\[([\d, ]*)\]\)"
_EVENT = re.compile(rf"match event_shape: {_TORCHS} vs {_TORCHS}")
_EXPANDED = re.compile(
    r"expanded size of the tensor \((?P<arrived>\d+)\) must match the existing size "
    r"\((?P<wanted>\d+)\) at non-singleton dimension [1-9]"
)
_MOST_ROWS = 1024
_PAIR = 2
_RAISED_BY_CHECKS = (ValueError, AssertionError)


def as_it_says(
    state: State, slots: Mapping[Path, Slot], error: BaseException | None
) -> Iterator[State]:
    """The size that arrived, changed to the one that was expected, wherever a slot has it."""
    if isinstance(error, _RAISED_BY_CHECKS):
        yield from _of_an_event(state, slots, str(error))
        yield from _of_two_shapes(state, slots, str(error))
        found = _EXPECTED.search(str(error))
    else:
        found = _EXPANDED.search(str(error))
    if found is None:
        return
    wanted, arrived = int(found["wanted"]), int(found["arrived"])
    if not 0 < wanted != arrived:
        return
    for path, slot in slots.items():
        for axis, size in enumerate(slot.shape):
            if axis and size == arrived:
                yield reshaped(state, path, (*slot.shape[:axis], wanted, *slot.shape[axis + 1 :]))


def _of_an_event(state: State, slots: Mapping[Path, Slot], text: str) -> Iterator[State]:
    """Data of which a distribution says the size of one event: `[8, 7] vs [41]` are 8 of 41."""
    found = _EVENT.search(text)
    if found is None:
        return
    arrived, event = (tuple(int(n) for n in re.findall(r"\d+", found[i])) for i in (1, 2))
    for path, slot in slots.items():
        if slot.shape == arrived and len(event) < len(arrived) and all(event):
            yield reshaped(state, path, (*arrived[: -len(event)], *event))


def _of_two_shapes(state: State, slots: Mapping[Path, Slot], text: str) -> Iterator[State]:
    """Of two shapes in a refusal the one that arrived becomes the other, in all slots that have it.

    `target has (8, 323), must equal (8, 11, 17)`, `expected (*, 19, 17), got (*, 11, 17)`: which of
    the two arrived is told by the slots; where both did, the second gives way first.
    """
    named = [tuple(w.strip() for w in m[1].split(",") if w.strip()) for m in _SHAPE.finditer(text)]
    if len(named) != _PAIR or named[0] == named[1]:
        return
    for arrived, wanted in (named[::-1], named):
        other = state
        for path, slot in slots.items():
            if slot.kind != "plain" and _is(slot.shape, arrived):
                sizes = zip(wanted, (*slot.shape, *(0,) * len(wanted)), strict=False)
                shape = tuple(int(w) if w.isdigit() else n for w, n in sizes)
                if all(shape):
                    other = reshaped(other, path, shape)
        if other is not state:
            yield other


def _is(shape: tuple[int, ...], named: tuple[str, ...]) -> bool:
    """Whether a shape has the sizes that are written out; `*` and names are any size."""
    return len(shape) == len(named) and all(
        not w.isdigit() or int(w) == n for w, n in zip(named, shape, strict=True)
    )


def rows_held_fast(error: BaseException | None, rows: int) -> list[int]:
    """The numbers of rows that something in the model has, where the given number was refused."""
    text = " ".join(str(error).split())
    told = [int(n) for found in _ROWS if (m := found.search(text)) for n in m.groups()]
    if rows in told:
        told = [n for n in told if n != rows]
    else:
        told = [int(m[1])] if (m := _VIEWED.search(text)) else []
    return [n for n in told if 1 < n <= _MOST_ROWS and n != rows]
