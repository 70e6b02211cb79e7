"""What `F.kl_div` is given: log-probabilities and probabilities, and what it divides by."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from ..runs.recording import Op, Recording

_ALIKE = 1e-2
EVEN = 1e-3  # of sums of probabilities in float32 or half precision


@dataclass(frozen=True, slots=True)
class Misuse:
    """One call of `F.kl_div` and what is wrong with it."""

    op: Op
    what: str
    cure: str
    value: float


def misuses(recording: Recording, rows: int | None) -> Iterator[Misuse]:
    """Every call whose operands are of the wrong kind, or that divides by another axis."""
    for op, given in _calls(recording):
        first, second = given["input"], given["target"]
        logs = bool(given["log_target"])
        if probabilities(first):
            yield Misuse(
                op,
                "`kl_div` expects log-probabilities first and gets probabilities",
                "take the logarithm first: `F.log_softmax(logits, -1)`",
                float(first.detach().min()),
            )
        for tensor, other, which in ((first, second, "first"), (second, first, "as target")):
            known = probabilities(other) or _logarithms(other)  # it is a KL of categories
            if (tensor is first or logs) and known and no_logarithms(tensor):
                yield Misuse(
                    op,
                    f"`kl_div` expects log-probabilities {which} and gets numbers above 0",
                    "normalise them first: `F.log_softmax(logits, -1)`",
                    float(tensor.detach().max()),
                )
        if logs and probabilities(second):
            yield Misuse(
                op,
                "`kl_div` with `log_target=True` gets probabilities as target",
                "drop `log_target=True`, or pass the target's logarithm",
                float(second.detach().min()),
            )
        if not logs and _logarithms(second):
            yield Misuse(
                op,
                "`kl_div` expects probabilities as target and gets their logarithms",
                "pass `log_target=True`",
                float(second.detach().min()),
            )
        shape = tuple(first.shape)
        if given["reduction"] == "batchmean" and _wrong_axis(shape, rows):
            yield Misuse(
                op,
                f"`batchmean` divides by the first axis, which holds {shape[0]} entries and "
                f"not the {rows} rows",
                "put the batch first, or sum and divide by its size",
                float(shape[0]),
            )


def merged(recording: Recording, rows: int) -> Iterator[tuple[Op, int]]:
    """Calls whose `batchmean` divides by n times the rows, and n: an axis merged with the batch."""
    for op, given in _calls(recording):
        entries, left = divmod(given["input"].shape[0] if given["input"].dim() > 1 else 0, rows)
        if given["reduction"] == "batchmean" and entries > 1 and not left:
            yield op, entries


def weighs_less(times: list[float], entries: int, units: set[float]) -> bool:
    """Whether a KL weighs just so many times less than one of the weights that it could have."""
    return any(abs(t * entries / unit - 1) < _ALIKE for t in times for unit in units)


def _calls(recording: Recording) -> Iterator[tuple[Op, dict[str, Any]]]:
    """Every call of `F.kl_div` with its arguments by name."""
    for op in recording.ops:
        if op.name != "kl_div":
            continue
        try:
            given = inspect.signature(F.kl_div).bind(*op.args, **op.kwargs)
        except TypeError:
            continue
        given.apply_defaults()
        if all(isinstance(given.arguments[name], Tensor) for name in ("input", "target")):
            yield op, given.arguments


def no_logarithms(t: Tensor) -> bool:
    """Whether some are above 0, as no probability's logarithm is, and they are no probabilities."""
    t = t.detach()
    return t.is_floating_point() and bool((t > EVEN).any()) and not probabilities(t)


def probabilities(t: Tensor) -> bool:
    """Whether a tensor is not negative and sums to 1 along one axis."""
    t = t.detach()
    if not t.is_floating_point() or t.dim() == 0 or bool((t < 0).any()) or bool((t > 1).any()):
        return False
    return any(
        t.shape[axis] > 1 and bool(((t.sum(axis) - 1).abs() < EVEN).all())
        for axis in range(t.dim())
    )


def _logarithms(t: Tensor) -> bool:
    t = t.detach()
    return t.is_floating_point() and bool((t < 0).any()) and probabilities(t.exp())


def _wrong_axis(shape: tuple[int, ...], rows: int | None) -> bool:
    if rows is None or rows < 2 or not shape or shape[0] % rows == 0:
        return False
    return rows in shape[1:]
