"""Fewer rows, or one alone: for a model that takes no other number of them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from ..trials.slots import Slot, State, changed, reshaped, slots_of
from .layers import STEPS
from .refusals import rows_held_fast

if TYPE_CHECKING:
    from .guess import Guesser, Made

_MOST_TRIALS = 20
_MOST_SECONDS = 2.5


def with_other_rows(guesser: Guesser, state: State, best: Made) -> Made | None:
    """The state that came furthest, with rows the model holds fast, or one: some take no more.

    A written-out batch size is a bug to be told, and the rest can be examined with it. What else
    one sample alone needs is searched for from there.
    """
    usual, alone = guesser.layers.rows, None
    for rows in (*rows_held_fast(best.trial.error, usual), *([1] if best.misfit else [])):
        other = _with_rows(state, usual, rows)
        one = guesser.as_it_is(other, rows) if rows != usual else None
        if one is not None and one.trial.ran:
            return one if rows == 1 else replace(one, origin=f"{one.origin}, {rows} rows")
        alone = other if one is not None and rows == 1 else alone
    found = _alone(guesser, alone) if alone is not None and best.misfit else None
    if found is None:
        guesser.layers.rows = usual
    return found


def _alone(guesser: Guesser, state: State) -> Made | None:
    """One sample: a sequence of several steps without an axis for rows, or the state itself."""
    sequence = (None, _one_sequence(state, STEPS), "one sequence without an axis for rows")
    for axis, start, how in (sequence, (0, state, "one row")):
        one = start and guesser.searched_from(start, 1, _MOST_TRIALS, _MOST_SECONDS)
        if one and one.trial.ran:
            return replace(one, axis=axis, origin=f"{one.origin}; {how}, more do not run")
    return None


def _with_rows(state: State, usual: int, rows: int) -> State:
    """The state with another number of rows in everything that has the usual one."""
    for path, slot in slots_of(state).items():
        if slot.shape[:1] == (usual,):
            state = reshaped(state, path, (rows, *slot.shape[1:]))
    return state


def _one_sequence(state: State, steps: int) -> State | None:
    """The state of one row as one sequence without an axis for rows; None for no vector.

    How long a sequence is comes as a number then.
    """
    path, slot = next(iter(slots_of(state).items()), ((), Slot()))
    if slot.kind != "real" or len(slot.shape) != 2:
        return None
    other: State = reshaped(state, path, (steps, slot.shape[1]))
    for beside, one in slots_of(state).items():
        if one.kind == "length" or "len" in str(beside[-1]):
            other = changed(other, beside, Slot(kind="plain", value=steps))
    return other
