"""Values that did not fit: whole numbers, truth values, counts, what a likelihood takes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace

from torch import Tensor

from ..trials.slots import Path, Slot, State, changed, reshaped
from ..trials.witness import Failed, Observed, Operand, local_values, user_frame, user_frames

_NUMBER_GIVEN = re.compile(
    r"[Tt]ensor.*(but got|not|found) (int|float|bool)\b"
    r"|'(int|float|bool)' object (has no attribute|is not)"
)
_NUMBER_ASKED = re.compile(
    r"single element|one element tensors|Tensor' object cannot"
    r"|must be (Number|int|float), not Tensor"
)
_DTYPE_WORDS = ("bool", "Bool")


def of_another_kind(
    state: State, failed: Failed, slots: Mapping[Path, Slot], text: str
) -> Iterator[State]:
    """Whole numbers, truth values, vectors: what the operation wants instead."""
    name, operands = failed.name, failed.operands
    if not operands:
        return
    lower = text.lower()
    if name in {"embedding", "embedding_bag"} and len(operands) > 1:
        yield from _as_index(state, operands[0], slots, operands[1].shape[0])
    elif name == "one_hot":
        count = next((o for o in failed.others if isinstance(o, int)), 0)
        count = count or failed.options.get("num_classes", 0)
        yield from _as_index(state, operands[0], slots, count if count > 0 else 5)
    elif name == "__getitem__" and "indexing tensors could not be broadcast" in text:
        yield from _as_length(state, failed, slots)
        yield from _side_by_side(state, operands[1:], slots)
    elif name == "__getitem__" and ("indices" in lower or "index" in lower):
        yield from _as_length(state, failed, slots)
        size = operands[0].shape[0] if operands[0].shape else 2
        for operand in operands[1:]:
            yield from _as_index(state, operand, slots, size)
    elif "index" in lower and ("int64" in lower or "dtype" in lower or "bounds" in lower):
        size = operands[0].shape[-1] if operands[0].shape else 2
        axis = next((o for o in failed.others if isinstance(o, int)), -1)
        if operands[0].shape and -len(operands[0].shape) <= axis < len(operands[0].shape):
            size = operands[0].shape[axis]
        for operand in operands[1:]:
            yield from _as_index(state, operand, slots, size)
    elif any(w in text for w in _DTYPE_WORDS) or "bitwise" in lower or name == "__invert__":
        for operand in reversed(operands):
            for path in operand.paths:
                if slots[path].kind in {"real", "index", "onehot"}:
                    yield changed(state, path, replace(slots[path], kind="bool", value=True))
    elif "dtype" in lower or "scalar type" in lower or "floating" in lower:
        for operand in operands:
            for path in operand.paths:
                if slots[path].kind in {"index", "bool", "length"}:
                    yield changed(state, path, replace(slots[path], kind="real"))


def _as_length(state: State, failed: Failed, slots: Mapping[Path, Slot]) -> Iterator[State]:
    """`h[rows, lengths - 1]` is the last step of each row: as many as there are, so all count."""
    frame, held = user_frame(failed.error), failed.operands[0].shape
    less = set(re.findall(r"\b(\w+) - 1\b", frame[1])) if frame is not None else set()
    for at, operand in enumerate(failed.operands[1:]):
        for path in operand.paths if 0 < at < len(held) else ():
            if str(path[-1]) in less and slots[path].kind != "length":
                yield changed(state, path, Slot(held[:1], "length", held[at]))


def _side_by_side(
    state: State, indices: list[Operand], slots: Mapping[Path, Slot]
) -> Iterator[State]:
    """`h[rows, last]`: an index that goes with another one has as many entries."""
    for other in indices:
        for one in indices:
            if len(one.shape) > len(other.shape):
                for path in (p for p in one.paths if slots[p].shape == one.shape):
                    yield changed(state, path, replace(slots[path], shape=other.shape))


def _as_index(
    state: State, operand: Operand, slots: Mapping[Path, Slot], top: int
) -> Iterator[State]:
    for path in operand.paths:
        slot = slots[path]
        if slot.kind == "index" and slot.top <= top:
            continue
        shape = slot.shape
        if slot.kind != "index" and len(shape) == 2 and shape[-1] > 1 and operand.shape == shape:
            for one in (shape[:1], shape) if slot.kind == "onehot" else (shape, shape[:1]):
                yield changed(state, path, Slot(one, "index", top))
        else:
            yield changed(state, path, Slot(shape, "index", top))


def of_numbers(
    state: State, slots: Mapping[Path, Slot], error: BaseException | None, rows: int
) -> Iterator[State]:
    """A tensor where a plain number was given, and the other way round."""
    text = str(error)
    if _NUMBER_GIVEN.search(text) and isinstance(error, TypeError | AttributeError):
        for path, slot in slots.items():
            if slot.kind == "plain":
                yield changed(state, path, Slot((rows, 1)))
                yield changed(state, path, Slot((rows,)))
    elif _NUMBER_ASKED.search(text):
        for path, slot in list(slots.items())[1:]:
            if slot.kind != "plain":
                for value in (slot.top,) if slot.kind == "length" else (1, 0):  # 0: the only part
                    yield changed(state, path, Slot(kind="plain", value=value))


def as_switch(state: State, seen: Observed, slots: Mapping[Path, Slot]) -> Iterator[State]:
    """False for what a branch asks, `if not hard:`, and that no slot of numbers can be."""
    error = seen.trial.error
    if "Boolean value of Tensor with more than one value" not in str(error):
        return
    for frame, line in user_frames(error)[:1]:
        asked = [frame.f_locals.get(name) for name in re.findall(r"[A-Za-z_]\w*", line)]
        for value in (v for v in asked if isinstance(v, Tensor)):
            for path in seen.paths(value):
                if path in slots:
                    yield changed(state, path, Slot(kind="plain", value=False))


def in_the_support(state: State, seen: Observed, slots: Mapping[Path, Slot]) -> Iterator[State]:
    """A likelihood that is defined for counts, for 0 and 1, or for an event's shape only."""
    text = str(seen.trial.error)
    if "within the support" not in text and "batch_shape+event_shape" not in text:
        return
    value = next((v["value"] for v in local_values(seen.trial.error) if "value" in v), None)
    if not isinstance(value, Tensor):
        return
    for path in seen.paths(value):
        slot = slots[path]
        if found := re.search(r"torch\.Size\(\[[\d, ]*\]\) vs torch\.Size\(\[([\d, ]+)\]\)", text):
            shape = tuple(int(n) for n in found[1].split(","))
            yield changed(state, path, replace(slot, shape=shape[-len(shape) :]))
            continue
        if (kind := kind_in_support(text)) is not None:
            yield changed(state, path, replace(slot, kind=kind))


def kind_in_support(text: str) -> str | None:
    """The kind of a slot whose values a distribution takes, by what it raised for others."""
    kinds = {"Boolean": "binary", "IntegerG": "count", "OneHot": "onehot", "Simplex": "share"}
    kinds["Multinomial"] = "count"
    return next((kind for word, kind in kinds.items() if f"support ({word}" in text), None)


def of_masks(state: State, slots: Mapping[Path, Slot], text: str) -> Iterator[State]:
    """`Expected key_padded_mask.shape[1] to be 13, but got 325`."""
    found = re.search(r"mask.* (?:be|is) .*?(\d+)\D* got (\d+)", text)
    for path, slot in slots.items() if found else ():
        if found and slot.kind == "bool" and slot.shape:
            size = slot.shape[-1] + int(found[1]) - int(found[2])
            if size > 0:
                yield reshaped(state, path, (*slot.shape[:-1], size))
