"""One trial of a made-up batch, watched: which operation failed, and on which slots."""

from __future__ import annotations

import linecache
import math
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..errors import OURS
from .slots import Path
from .trial import Trial, attempt
from .widths import Widths

Paths = frozenset[Path]
_NONE: Paths = frozenset()
_NOT_THE_USERS = ("<", f"{FilePath(torch.__file__).parent}{os.sep}", f"{OURS}{os.sep}")
_MIXES_LAST = {"linear", "matmul", "mm", "bmm", "addmm", "__matmul__", "__rmatmul__"}
_MATRICES = _MIXES_LAST - {"linear"} | {"baddbmm"}
_LOOKS_UP = {
    "embedding", "embedding_bag", "one_hot", "__getitem__", "gather", "index_select", "scatter_",
    "index_add", "scatter", "cross_entropy", "nll_loss", "take_along_dim", "index_add_",
}  # fmt: skip
_FORGETS = {"embedding", "embedding_bag", "lstm_cell", "gru_cell", "rnn_tanh_cell"}


@dataclass(frozen=True, slots=True)
class Operand:
    """A tensor an operation was given, and the slots whose size decides about its own.

    It was computed from those in `sources`, some of whose sizes may be forgotten.
    """

    shape: tuple[int, ...]
    paths: Paths
    dtype: torch.dtype
    is_weight: bool = False
    sources: Paths = _NONE


@dataclass(slots=True)
class Failed:
    """The operation that raised: its name, its tensors in order, and its other arguments.

    `of_weights` says that it refuses sizes that weights have set, whatever the input.
    """

    name: str
    operands: list[Operand]
    others: list[Any]
    options: Mapping[str, Any]
    error: BaseException
    of_weights: bool = False


class TooMuchWork(BaseException):
    """Raised in a trial whose forward pass multiplies more numbers than it may.

    `trial` is, of several, the one that came furthest.
    """

    trial: Trial | None = None


@dataclass(slots=True)
class Observed:
    """How far a trial came: `progress` counts operations, `work` the multiplications in them.

    `columns` are vectors of which the last axis was squeezed, in vain: it is wanted to be 1.
    """

    trial: Trial
    failed: Failed | None = None
    progress: int = 0
    marks: dict[int, tuple[Tensor, Paths, Paths]] = field(default_factory=dict)
    looked_up: set[Path] = field(default_factory=set)
    columns: set[Path] = field(default_factory=set)
    work: int = 0
    widths: Widths = field(default_factory=Widths)

    def paths(self, value: Any) -> Paths:
        """The slots that decide about a tensor's size."""
        return self.marks[id(value)][1] if id(value) in self.marks else _NONE

    def sources(self, value: Any) -> Paths:
        """The slots that a tensor was computed from."""
        return self.marks[id(value)][2] if id(value) in self.marks else _NONE

    def operand(self, value: Tensor) -> Operand:
        """A tensor of the trial as an operand."""
        weight = isinstance(value, nn.Parameter)
        shape, sources = tuple(value.shape), self.sources(value)
        return Operand(shape, self.paths(value), value.dtype, weight, sources)


def observe(
    run: Callable[[], Any],
    model: nn.Module,
    slots: Mapping[Path, Any],
    *,
    seed: int,
    most_work: float = math.inf,
) -> Observed:
    """Run forward once and say where it ended; more than `most_work` products end it."""
    seen = Observed(Trial())
    for path, value in slots.items():
        if isinstance(value, Tensor):
            seen.marks[id(value)] = (value, frozenset({path}), frozenset({path}))

    witness = _Witness(seen, most_work)

    # A default, not a closure: what a trial can reach is put back at its end, the record too.
    def watched(witness: _Witness = witness) -> Any:
        with witness:
            return run()

    seen.trial = attempt(watched, model, seed=seed)
    return seen


class _Witness(TorchFunctionMode):
    """Follows the slots through the operations."""

    def __init__(self, seen: Observed, most_work: float) -> None:
        self.seen = seen
        self.most_work = most_work

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if self.seen.work + _foreseen(name, args, kwargs) > self.most_work:
            raise TooMuchWork
        try:
            result = func(*args, **kwargs)
        except BaseException as error:
            tensors = list(tensors_in((args, kwargs)))
            others = [a for a in args if not isinstance(a, Tensor)]
            operands = [self.seen.operand(t) for t in tensors]
            ours = self.seen.widths.are_refused(name, tensors, error)
            self.seen.failed = Failed(name, operands, others, kwargs, error, ours)
            raise
        self._mark(func, args, kwargs, result)
        if self.seen.work > self.most_work:
            raise TooMuchWork
        return result

    def _mark(self, func: Any, args: Any, kwargs: Any, result: Any) -> None:
        made = list(tensors_in(result))
        if not made:
            return
        self.seen.progress += 1
        read = list(tensors_in((args, kwargs)))
        name = getattr(func, "__name__", "")
        if name in _LOOKS_UP:
            at = 0 if name in {*_FORGETS, "one_hot"} else 1
            found = {p for t in read[at:] for p in self.seen.paths(t)}
            self.seen.looked_up = self.seen.looked_up | found  # a set is put back after the trial
        if name == "squeeze" and args[1:] == (-1,) and made[0].dim() == read[0].dim() == 1:
            self.seen.columns = self.seen.columns | self.seen.paths(read[0])
        self.seen.work += _multiplications(name, read, made[0])
        self.seen.widths.mark(name, args, read, made)
        paths = frozenset(p for t in read for p in self.seen.paths(t))
        sources = frozenset(p for t in read for p in self.seen.sources(t))
        by_number = name == "one_hot" and (kwargs.get("num_classes") or args[1:])
        looked_up = name in _FORGETS or bool(by_number)
        if looked_up or (name in _MIXES_LAST and read and _is_row(read)):
            # The width now comes from a weight; only further axes still follow the slots.
            paths = _NONE if read[0].dim() <= 2 - looked_up else paths
        for tensor in made:
            self.seen.marks[id(tensor)] = (tensor, paths, sources)


def _foreseen(name: str, args: Any, kwargs: Any) -> int:
    """How many products a layer takes at least, before it is run."""
    x, weight = (*args[:2], None, None)[:2]
    if not isinstance(x, Tensor) or not isinstance(weight, Tensor):
        return 0
    if name == "linear" and weight.dim() == 2:
        return x.numel() * weight.shape[0]
    if not name.startswith("conv") or x.dim() != weight.dim() or weight.dim() < 3:
        return 0
    if "transpose" in name:
        return x.numel() * weight[0].numel()
    stride = kwargs.get("stride", args[3] if len(args) > 3 else 1)
    steps = [stride] * (x.dim() - 2) if isinstance(stride, int) else list(stride)
    steps *= x.dim() - 2 if len(steps) == 1 else 1
    places = [
        max(0, (n - k) // s + 1)
        for n, k, s in zip(x.shape[2:], weight.shape[2:], steps, strict=False)
    ]
    return x.shape[0] * weight.numel() * math.prod(places)


def _multiplications(name: str, read: list[Tensor], made: Tensor) -> int:
    """How many products an operation is made of, so that costs can be told apart by size."""
    if name.startswith("conv") and len(read) > 1 and read[1].dim() > 2:
        each = read[1].numel() // max(1, read[1].shape[0])
        return (read[0] if "transpose" in name else made).numel() * each
    if name == "scaled_dot_product_attention" and len(read) > 1:
        return 2 * read[0].numel() * read[1].shape[-2]
    if name in {"linear", *_MATRICES} and read and read[0].dim():
        return made.numel() * read[0].shape[-1]
    if name in {"lstm", "gru"} and read:
        return (
            read[0].numel()
            * sum(t.numel() for t in read[1:] if t.dim() == 2)
            // max(1, read[0].shape[-1])
        )
    return made.numel()


def _is_row(read: list[Tensor]) -> bool:
    return len(read) > 1 and isinstance(read[1], nn.Parameter)


def tensors_in(value: Any, depth: int = 4) -> Iterator[Tensor]:
    """The tensors of nested arguments, in order."""
    if isinstance(value, Tensor):
        yield value
    elif depth and isinstance(value, tuple | list):
        for inner in value:
            yield from tensors_in(inner, depth - 1)
    elif depth and isinstance(value, Mapping):
        for inner in value.values():
            yield from tensors_in(inner, depth - 1)


def user_frame(error: BaseException | None) -> tuple[FrameType, str] | None:
    """The innermost frame outside torch and vaedoctor, and its line."""
    return next(iter(user_frames(error)), None)


def user_frames(error: BaseException | None) -> list[tuple[FrameType, str]]:
    """The frames outside torch and vaedoctor with their lines, the innermost first."""
    found = []
    trace = error.__traceback__ if error is not None else None
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if not file.startswith(_NOT_THE_USERS):
            found.append((trace.tb_frame, linecache.getline(file, trace.tb_lineno).strip()))
        trace = trace.tb_next
    return found[::-1]


def local_values(error: BaseException | None) -> Iterator[Mapping[str, Any]]:
    """The local variables of the frames, the innermost first."""
    frames = []
    trace = error.__traceback__ if error is not None else None
    while trace is not None:
        frames.append(trace.tb_frame)
        trace = trace.tb_next
    for frame in reversed(frames):
        yield frame.f_locals


def calls_none(error: BaseException | None) -> bool:
    """Whether something was called that is None."""
    return isinstance(error, TypeError) and "'NoneType' object is not callable" in str(error)
