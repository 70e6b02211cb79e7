"""The step again in other number formats, on the same noise: float64, bfloat16, autocast."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..finding import Span
from ..subject.subject import Batch, Subject
from .census import hiding_places
from .flow import Flow
from .headroom import mapped
from .leftbehind import hidden_owners
from .numerics import LOGARITHMS, QUOTIENTS, ROOTS, NonFinite, Watch, bad_end, first_non_finite
from .recorder import Edits, by_operation
from .recording import Op, Recording, Value, tensors_in
from .repeat import Counter, Repeated, countable, counted
from .step import run_recorded, runs_unrecorded

LARGEST = 3e4  # below half of float16's largest number nothing overflows
SMALLEST = 1e-6  # above float16's smallest normal number nothing is lost
_CASTS = frozenset("to type float double half bfloat16".split())

IN_FLOAT32 = frozenset(
    "__pow__ __rdiv__ __rpow__ __rtruediv__ acos asin binary_cross_entropy_with_logits cosh "
    "cosine_embedding_loss cdist cosine_similarity cross_entropy cumprod cumsum dist erfinv exp "
    "expm1 group_norm hinge_embedding_loss kl_div l1_loss layer_norm log log10 log_softmax log1p "
    "log2 margin_ranking_loss mse_loss nll_loss norm normalize pdist poisson_nll_loss pow prod "
    "reciprocal rsqrt sinh smooth_l1_loss soft_margin_loss softmax softmin softplus sum renorm "
    "tan triplet_margin_loss gaussian_nll_loss binary_cross_entropy square logsumexp".split()
)
"""Operations that CUDA's autocast runs in float32 (PyTorch, "Automatic Mixed Precision")."""

IN_HALF = frozenset(
    "__matmul__ addbmm addmm addmv addr baddbmm bmm conv1d conv2d conv3d conv_transpose1d "
    "conv_transpose2d conv_transpose3d conv_tbc einsum linear matmul mm mv "
    "scaled_dot_product_attention".split()
)
"""Products that it runs in half precision (the same page; recurrent cells are left to the CPU)."""


# -- float64 ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FixedType:
    """A tensor of fixed number type that keeps the model from another: where it is made."""

    ran_in: str
    dtype: str
    name: str
    kind: str
    op: Op
    at: Span | None
    causes: frozenset[str]


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
    cast = mapped(subject.batch, lambda t: t.detach().to(dtype) if t.is_floating_point() else t)
    return cast


class _Asking(TorchFunctionMode):
    """Notes whether a call names the type of its result."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype
        self.found = False

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        if isinstance(out, Tensor) and out.dtype is self.dtype:
            self.found |= _names(getattr(func, "__name__", ""), args, kwargs, self.dtype)
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
    asking = _Asking(torch.float32)
    with asking:
        ran = runs_unrecorded(subject, seed=seed, batch=_cast(subject, torch.float64), grad=False)
    rewind()
    if ran and not asking.found:
        return None, "float64"
    double = run_in(subject, None, torch.float64, seed)
    found = _judged(model, double, torch.float64)
    rewind()
    if double.error is not None:
        return found, ""
    if not any(_asks(op, torch.float32) for op in double.ops):
        return None, "float64"
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
    failed = next((o for o in reversed(recording.ops) if error and o.error is error), None)
    if failed is None:
        return None
    floats = [v for v in failed.reads if v.tensor.is_floating_point()]
    odd = [v for v in floats if v.tensor.dtype != dtype]
    if not odd or len({v.tensor.dtype for v in floats}) < 2:
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


def _origin(model: nn.Module, value: Value, failed: Op, dtype: torch.dtype) -> FixedType | None:
    ran, kept = (str(t).removeprefix("torch.") for t in (dtype, value.tensor.dtype))
    if value.op is not None:
        op = value.op
        kind = "asked" if _asks(op, value.tensor.dtype) or op.name in _CASTS else "default"
        return FixedType(ran, kept, op.name, kind, failed, op.span, _line(op.span))
    places = dict(hiding_places(model))
    hidden = hidden_owners(model, value.tensor) if failed.grad_mode else []
    place = next((places[id(t)] for t in (*hidden, value.tensor) if id(t) in places), None)
    if place is None or (value.source == "stray" and not hidden):
        return None  # made elsewhere, or a frozen network that is cast by hand
    causes = {f"module:{id(m)}" for m in hidden} | {f"tensor:{id(value.tensor)}"}
    at = place.at or failed.span
    return FixedType(ran, kept, place.expression, "kept", failed, at, frozenset(causes) | _line(at))


def _line(at: Span | None) -> frozenset[str]:
    return frozenset({f"line:{at.file}:{at.line}"} if at is not None else ())


# -- half precision --------------------------------------------------------------------------


class HalfPrecision(Watch):
    """CUDA's autocast on the CPU, under watch."""

    def _run(self, func: Any, name: str, args: tuple[Any, ...], kwargs: Any) -> Any:
        return _as_on_cuda(func, name, args, kwargs)


class _Half(Counter):
    """CUDA's autocast on the CPU, without a recording."""

    def _execute(self, func: Any, args: tuple[Any, ...], kwargs: Any) -> Any:
        return _as_on_cuda(func, getattr(func, "__name__", ""), args, kwargs)


def _as_on_cuda(func: Any, name: str, args: tuple[Any, ...], kwargs: Any) -> Any:
    """One call as CUDA's autocast makes it.

    What that keeps in float32 is kept there. Products take rounded operands, are accumulated in
    float32 and rounded, as tensor cores do; the CPU's own half precision is far slower.
    """
    if name in IN_FLOAT32:
        with torch.autocast("cpu", enabled=False):
            return func(*_widened(args), **_widened(kwargs))
    if name in IN_HALF:
        narrow = torch.get_autocast_dtype("cpu")
        with torch.autocast("cpu", enabled=False):
            out = func(*_rounded(args, narrow), **_rounded(kwargs, narrow))
        return out.to(narrow) if isinstance(out, Tensor) and out.dtype is torch.float32 else out
    return func(*args, **kwargs)


def _widened(thing: Any) -> Any:
    narrow = (torch.float16, torch.bfloat16)
    return _changed(thing, lambda t: t.float() if t.dtype in narrow else t)


def _rounded(thing: Any, dtype: torch.dtype) -> Any:
    def rounded(tensor: Tensor) -> Tensor:
        if tensor.dtype is torch.float32:
            tensor = tensor.to(dtype)
        return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor

    return _changed(thing, rounded)


def _changed(thing: Any, change: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(thing, Tensor):
        return change(thing)
    if isinstance(thing, dict):
        return {k: _changed(v, change) for k, v in thing.items()}
    if isinstance(thing, (list, tuple)) and not hasattr(thing, "_fields"):
        return type(thing)(_changed(v, change) for v in thing)
    return thing


@dataclass(frozen=True, slots=True)
class HalfRun:
    """The step under autocast, on the same noise.

    `finite` says whether it took the same way to a finite loss and finite outputs; `tensors` are
    the values kept, by index, empty where it went another way.
    """

    dtype: torch.dtype
    finite: bool = False
    tensors: Mapping[int, Tensor] = field(default_factory=dict)

    @classmethod
    def of(cls, dtype: torch.dtype, again: Repeated) -> HalfRun:
        """What is to be known of a repeated step, without its graph."""
        if not again.same:
            return cls(dtype)
        kept = {index: tensor.detach() for index, tensor in again.tensors.items()}
        return cls(dtype, bad_end(again.loss, again.output) is None, kept)


def half_runs(
    subject: Subject,
    recording: Recording,
    keep: Iterable[Value],
    seed: int,
    rewind: Callable[[], None],
) -> list[HalfRun]:
    """The step in float16 and in bfloat16, with the values to keep."""
    noise, wanted, found = by_operation(replay(recording)), list(keep), []
    for dtype in (torch.float16, torch.bfloat16):
        if not countable(recording, noise, wanted):
            found.append(HalfRun(dtype))
            continue
        with torch.autocast("cpu", dtype=dtype):
            again = counted(subject, recording, seed, noise, wanted, rewind, _Half, grad=False)
        found.append(HalfRun.of(dtype, again))
    return found


@dataclass(frozen=True, slots=True)
class Overflow:
    """What is not finite under autocast and is in float32."""

    dtype: str
    found: NonFinite


def half_overflow(
    subject: Subject,
    recording: Recording,
    runs: Iterable[HalfRun],
    seed: int,
    rewind: Callable[[], None],
) -> Overflow | None:
    """Where the step under autocast begins not to be finite, if a half-precision run ended so."""
    for run in runs:
        if run.finite:
            continue
        with torch.autocast("cpu", dtype=run.dtype):
            found = first_non_finite(
                subject, seed, rewind, kind=HalfPrecision, edits=replay(recording)
            )
        if found is not None and found.op is not None and _finite_before(recording, found.op):
            return Overflow(str(run.dtype).removeprefix("torch."), found)
    return None


def _finite_before(recording: Recording, op: Op) -> bool:
    """Whether the same operation of the float32 step gave finite numbers."""
    twin = recording.ops[op.index] if op.index < len(recording.ops) else None
    if twin is None or twin.name != op.name or not twin.makes:
        return True
    return bool(torch.isfinite(twin.out.tensor.detach()).all())


def near_a_limit(recording: Recording) -> bool:
    """Whether a number of the step comes near what float16 cannot hold."""
    return any(_extremes(recording))


def _readable(tensor: Tensor) -> bool:
    return tensor.is_floating_point() and tensor.layout is torch.strided and tensor.numel() > 0


def _extremes(recording: Recording) -> Iterator[bool]:
    delicate = LOGARITHMS | ROOTS | QUOTIENTS
    for op in recording.ops:
        for tensor in tensors_in([v.tensor for v in op.makes]):
            if _readable(tensor):
                yield bool(tensor.detach().abs().max() > LARGEST)
        if op.name in delicate and op.reads:
            tensor = op.reads[-1].tensor
            if _readable(tensor):
                yield bool(tensor.detach().abs().min() < SMALLEST)
