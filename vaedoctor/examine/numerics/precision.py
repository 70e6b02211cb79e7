"""The step again in other number types, on the same noise: float64 and bfloat16."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ...finding import Span
from ...rule import Unavailable
from ...subject.subject import Batch, Subject
from ..device.devices import stays_by_design
from ..device.leftbehind import hidden_owners
from ..runs.edits import Edits
from ..runs.flow import Flow
from ..runs.recording import Call, Op, Recording, Value
from ..runs.step import run_recorded, runs_unrecorded
from ..structure.branches import hiding_places

_CASTS = frozenset("to type float double half bfloat16".split())


@dataclass(frozen=True, slots=True)
class FixedType:
    """A tensor of fixed number type that keeps the model from another: where it is made.

    `refused_by` is the operation or layer that does not take it, in the line `refused_at`;
    `of_integers` says that it is made of integers alone.
    """

    ran_in: str
    dtype: str
    name: str
    kind: str
    refused_by: str
    refused_at: Span | None
    at: Span | None
    causes: frozenset[str]
    of_integers: bool = False


def run_in(
    subject: Subject,
    recording: Recording | None,
    dtype: torch.dtype,
    seed: int,
) -> Recording:
    """The step with parameters, buffers and batch in another type, on the noise of `recording`.

    The caller rewinds when it has looked: until then the parameters keep that type.
    """
    batch = _cast(subject, dtype)
    edits = replay(recording) if recording is not None else None
    return run_recorded(subject, seed=seed, batch=batch, edits=edits)


def _cast(subject: Subject, dtype: torch.dtype) -> Batch:
    """The batch in another type, and the model's parameters and buffers too, until the rewind."""
    for tensor in (*subject.model.parameters(), *subject.model.buffers()):
        if tensor.is_floating_point():
            tensor.data = tensor.data.to(dtype)
    cast = subject.batch.mapped(lambda t: t.detach().to(dtype) if t.is_floating_point() else t)
    return cast


class _Asking(TorchFunctionMode):
    """Notes whether a call names the type of its result, and whether autocast chooses types.

    Integers and truth values must be made numbers of some type, and `.float()` is how that is
    written: what is made of them alone gets the type of the `run`, if one is given.
    """

    def __init__(self, dtype: torch.dtype, run: torch.dtype | None) -> None:
        super().__init__()
        self.dtype, self.run = dtype, run
        self.found = self.chosen = False

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        self.chosen |= torch.is_autocast_enabled("cpu") or torch.is_autocast_enabled("cuda")
        if not isinstance(out, Tensor) or out.dtype is not self.dtype:
            return out
        name = getattr(func, "__name__", "")
        if _names(name, args, kwargs, self.dtype):
            whole = name in _CASTS and not (args[0].is_floating_point() or args[0].is_complex())
            if whole and self.run is not None:
                return out.to(self.run)
            self.found = True
        return out


def replay(recording: Recording) -> Edits:
    """Edits that give every draw the noise it had, in the type that is asked for."""

    def same(noise: Tensor) -> Callable[[Tensor], Tensor]:
        def put(drawn: Tensor) -> Tensor:
            return noise.to(drawn.dtype) if noise.shape == drawn.shape else drawn

        return put

    return {
        (op.index, 0): same(op.noise)
        for op in recording.ops
        if op.noise is not None and op.noise.is_floating_point() and not op.out.requires_grad
    }


def fixed_type(
    subject: Subject, seed: int, rewind: Callable[[], None]
) -> tuple[FixedType | None, str]:
    """What fails in float64, or in bfloat16 where something asks for float32; and what ran."""
    model = subject.model
    types = {p.dtype for p in model.parameters() if p.is_floating_point()}
    if types != {torch.float32}:
        return None, ""
    found, ran = _tried(subject, seed, rewind, counts=False)
    if found is not None and found.of_integers:
        return _tried(subject, seed, rewind, counts=True)
    return found, ran


def _tried(
    subject: Subject, seed: int, rewind: Callable[[], None], *, counts: bool
) -> tuple[FixedType | None, str]:
    """The same; with `counts` integers that are made numbers get the type of the run."""
    model = subject.model
    asking = _Asking(torch.float32, torch.float64 if counts else None)
    with asking:
        ran = runs_unrecorded(subject, seed=seed, batch=_cast(subject, torch.float64), grad=False)
    rewind()
    if asking.chosen:
        raise Unavailable("the step chooses its number types itself, by autocast")
    if ran and not asking.found:
        return None, "float64"
    narrow = _Asking(torch.float32, torch.bfloat16 if counts else None)
    with narrow:
        if ran and runs_unrecorded(subject, seed=seed, batch=_cast(subject, torch.bfloat16)):
            rewind()
            return None, "float64"
    rewind()
    with asking:
        double = run_in(subject, None, torch.float64, seed)
    found = _judged(model, double, torch.float64)
    rewind()
    if double.error is not None:
        return found, ""
    if not any(_asks(op, torch.float32) for op in double.ops):
        return None, "float64"
    with narrow:
        half = run_in(subject, None, torch.bfloat16, seed)
    found = _judged(model, half, torch.bfloat16)
    rewind()
    return (found if found and found.kind == "asked" else None), "float64"


def _asks(op: Op, dtype: torch.dtype) -> bool:
    """Whether a call names the type of its result."""
    if not op.makes or op.out.tensor.dtype is not dtype:
        return False
    return _names(op.name, op.args, op.kwargs, dtype)


def _names(name: str, args: Iterable[Any], kwargs: Mapping[str, Any], dtype: torch.dtype) -> bool:
    asked = any(a is dtype for a in args) or kwargs.get("dtype") is dtype
    return asked or name in ("float", "double", "half", "bfloat16")


def _judged(model: nn.Module, recording: Recording, dtype: torch.dtype) -> FixedType | None:
    """The operation that failed over unlike types, and where the odd one comes from."""
    error = recording.error
    failed: Op | Call | None = next(
        (o for o in reversed(recording.ops) if error and o.error is error), None
    ) or _refusing(recording)
    if failed is None:
        return None
    read = failed.reads if isinstance(failed, Op) else failed.inputs
    floats = [v for v in read if v.tensor.is_floating_point()]
    odd = [v for v in floats if v.tensor.dtype != dtype]
    if not odd or (isinstance(failed, Op) and len({v.tensor.dtype for v in floats}) < 2):
        return None
    flow = Flow(recording)
    value = odd[0]
    while value.op is not None:
        parents = [p for p in flow.parents(value) if p.tensor.is_floating_point()]
        shaped = [p for p in value.op.shapes if p.tensor.is_floating_point()]
        same = [p for p in (*parents, *shaped) if p.tensor.dtype == value.tensor.dtype]
        if not same or _asks(value.op, value.tensor.dtype):
            break
        value = same[0]
    return _origin(model, value, failed, dtype)


def _refusing(recording: Recording) -> Call | None:
    """The recurrent layer that compares types itself, and raises before its operation."""
    call = next((c for c in reversed(recording.calls) if isinstance(c.module, nn.RNNBase)), None)
    if call is None or not isinstance(recording.error, ValueError) or call.output is not None:
        return None
    return call if "dtype" in str(recording.error) else None


def _origin(
    model: nn.Module, value: Value, failed: Op | Call, dtype: torch.dtype
) -> FixedType | None:
    ran, kept = (str(t).removeprefix("torch.") for t in (dtype, value.tensor.dtype))
    by = failed.name if isinstance(failed, Op) else type(failed.module).__name__
    if value.op is not None:
        op = value.op
        if stays_by_design(op.span):
            return None
        kind = "asked" if _asks(op, value.tensor.dtype) or op.name in _CASTS else "default"
        made = (ran, kept, op.name, kind, by, failed.span, op.span, _line(op.span))
        floats = any(v.tensor.is_floating_point() or v.tensor.is_complex() for v in op.reads)
        return FixedType(*made, of_integers=op.name in _CASTS and bool(op.reads) and not floats)
    places = dict(hiding_places(model))
    graph = not isinstance(failed, Op) or failed.grad_mode
    hidden = hidden_owners(model, value.tensor) if graph else []
    place = next((places[id(t)] for t in (*hidden, value.tensor) if id(t) in places), None)
    if place is None or (value.source == "stray" and not hidden):
        return None  # made elsewhere, or a frozen network that is cast by hand
    causes = {f"module:{id(m)}" for m in hidden} | {f"tensor:{id(value.tensor)}"}
    at = place.at or failed.span
    own = frozenset(causes) | _line(at)
    return FixedType(ran, kept, place.expression, "kept", by, failed.span, at, own)


def _line(at: Span | None) -> frozenset[str]:
    return frozenset({f"line:{at.file}:{at.line}"} if at is not None else ())
