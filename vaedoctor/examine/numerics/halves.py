"""The step again in half precision, as CUDA's autocast would run it, on the same noise."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ...subject.subject import Subject
from ..runs.edits import by_operation
from ..runs.recording import Op, Recording, Value, tensors_in
from ..runs.repeat import Counter, Repeated, countable, counted
from .numerics import LOGARITHMS, QUOTIENTS, ROOTS, NonFinite, Watch, bad_end, first_non_finite
from .precision import replay

LARGEST = 3e4  # below half of float16's largest number nothing overflows
SMALLEST = 1e-6  # above float16's smallest normal number nothing is lost

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
