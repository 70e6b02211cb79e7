"""Where NaN or infinity begins: every operand and result looked at, and followed back."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from ...finding import Span
from ...subject.subject import Subject
from ..runs.edits import Edits
from ..runs.flow import Flow
from ..runs.outputs import named_tensors
from ..runs.recorder import Recorder
from ..runs.recording import Op, Recording, Value, tensors_in
from ..runs.step import run_recorded

EXPONENTIALS = frozenset("exp exp_ expm1 exp2 sinh cosh".split())
LOGARITHMS = frozenset("log log_ log2 log10".split())
ROOTS = frozenset("sqrt sqrt_ rsqrt".split())
QUOTIENTS = frozenset("div div_ true_divide divide rdiv __rdiv__ __rtruediv__ reciprocal".split())
_FILLS = frozenset(
    "masked_fill masked_fill_ full new_full full_like fill_ where tensor triu tril log".split()
)


class Watch(Recorder):
    """A recorder that looks at every operand and result at the moment of the operation."""

    def __init__(
        self,
        model: nn.Module,
        named: Mapping[int, tuple[str, str]],
        paths: Mapping[int, str],
        edits: Edits | None = None,
    ) -> None:
        super().__init__(model, named, paths, edits)
        self.read: dict[int, str] = {}
        self.made: dict[int, str] = {}

    def _execute(self, func: Any, name: str, args: tuple[Any, ...], kwargs: Any) -> Any:
        if name in ("__get__", "__set__"):
            return func(*args, **kwargs)
        index = len(self.recording.ops)
        self.read[index] = trouble(args, kwargs)
        out = self._run(func, name, args, kwargs)
        self.made[index] = trouble(out) if tensors(out) else trouble(args)
        return out

    def _run(self, func: Any, name: str, args: tuple[Any, ...], kwargs: Any) -> Any:
        return func(*args, **kwargs)


def tensors(thing: Any) -> bool:
    """Whether there is a tensor in what an operation returned."""
    return next(tensors_in(thing), None) is not None


def trouble(*things: Any) -> str:
    """Whether NaN or infinity is in there, by name."""
    found = ""
    for tensor in tensors_in(things):
        if tensor.is_floating_point() and not tensor.is_meta:
            values = tensor.detach()
            if bool(values.isnan().any()):
                return "NaN"
            if bool(values.isinf().any()):
                found = "infinity"
    return found


@dataclass(frozen=True, slots=True)
class NonFinite:
    """The first operation that makes NaN or infinity out of finite numbers, or the leaf that is.

    `smallest` and `largest` are its first operand's; `leaf` names a batch item or parameter that
    held the value from the start; `end` is what is not finite in the end, `raw` says that the
    operation reads nothing but the batch, `logged` that the end is an output without a gradient,
    which trains nothing.
    """

    op: Op | None
    kind: str
    at: Span | None
    end: str
    leaf: str = ""
    smallest: float = math.nan
    largest: float = math.nan
    raw: bool = False
    logged: bool = False


_COMPLAINTS = ("nan", "inf", "invalid values", "between 0 and 1", "not finite", "positive")


def about_values(error: BaseException | None) -> bool:
    """Whether an exception complains about numbers, as argument checks of distributions do."""
    return isinstance(error, (ValueError, RuntimeError, AssertionError)) and any(
        word in str(error).lower() for word in _COMPLAINTS
    )


def bad_end(loss: Any, output: Any) -> tuple[str, Tensor] | None:
    """The loss or an output that is not finite. Logits of -inf under a finite loss are masks."""
    if isinstance(loss, Tensor) and trouble(loss):
        return "the loss", loss
    for name, tensor in named_tensors(output):
        if not tensor.is_floating_point():
            continue
        values = tensor.detach()
        if bool(values.isnan().any()) or bool((values == math.inf).any()):
            return f"the output `{name}`", tensor
    return None


def first_non_finite(
    subject: Subject,
    seed: int,
    rewind: Callable[[], None],
    *,
    kind: type[Watch] = Watch,
    **run: Any,
) -> NonFinite | None:
    """Run the step under watch and follow what is not finite back to where it begins."""
    made: list[Watch] = []

    def recorder(*given: Any) -> Watch:
        made.append(kind(*given))
        return made[0]

    recording = run_recorded(subject, seed=seed, kind=recorder, **run)
    (watch,) = made
    end = bad_end(recording.loss, recording.output)
    if end is None and recording.error is not None:
        end = _before_error(recording, watch)
    rewind()
    if end is None:
        return None
    value = recording.value_of(end[1])
    found = None if value is None else _begin(watch, Flow(recording), value, end[0])
    logged = recording.error is None and not end[1].requires_grad
    return found and replace(found, logged=logged)


def _before_error(recording: Recording, watch: Watch) -> tuple[str, Tensor] | None:
    """What a failing operation, or the check that raised, was looking at."""
    for op in reversed(recording.ops[-4:]):
        for value in op.reads:
            if value.tensor.is_floating_point() and trouble(value.tensor):
                inner = op.name.startswith("__")  # a comparison inside an argument check
                return "what raised" if inner else f"what `{op.name}` reads", value.tensor
    return None


def _begin(watch: Watch, flow: Flow, end: Value, name: str) -> NonFinite | None:
    path, leaves = _bad_path(watch, flow, end)
    starts = [op for op in path if not watch.read.get(op.index)]
    natural = [op for op in starts if not (op.name in _FILLS and _explicit(op))]
    if not natural:
        natural = [
            op for op in path if watch.made[op.index] == "NaN" and watch.read.get(op.index) != "NaN"
        ]
    op = min(natural or starts, key=lambda o: o.index, default=None)
    if op is None:
        if not leaves:
            return None
        leaf = leaves[0]
        what = trouble(leaf.tensor)
        return NonFinite(None, what, None, name, f"{leaf.source} {leaf.name}".strip())
    low, high = _range(op)
    raw = bool(op.reads) and all(
        flow.data[v.index] and not flow.learned[v.index] and not flow.noise[v.index]
        for v in op.reads
    )
    return NonFinite(op, watch.made[op.index], op.span, name, "", low, high, raw)


def _bad_path(watch: Watch, flow: Flow, end: Value) -> tuple[list[Op], list[Value]]:
    waiting, seen = [end], set[int]()
    path: dict[int, Op] = {}
    leaves: list[Value] = []
    while waiting:
        value = waiting.pop()
        if value.index in seen:
            continue
        seen.add(value.index)
        if value.op is None:
            if trouble(value.tensor):
                leaves.append(value)
        elif watch.made.get(value.op.index):
            path[value.op.index] = value.op
            waiting.extend(flow.parents(value))
    return list(path.values()), leaves


def _explicit(op: Op) -> bool:
    """Whether infinity is written there on purpose, as in a mask."""
    numbers = [a for a in (*op.args, *op.kwargs.values()) if isinstance(a, (int, float))]
    if op.name in ("where", "tensor", "triu", "tril", "full"):
        return True
    return any(math.isinf(n) for n in numbers)


def _range(op: Op) -> tuple[float, float]:
    for value in op.reads:
        tensor = value.tensor.detach()
        inplace = any(value.tensor is m.tensor for m in op.makes)
        if tensor.is_floating_point() and tensor.numel() and not inplace:
            return float(tensor.min()), float(tensor.max())
    return math.nan, math.nan
