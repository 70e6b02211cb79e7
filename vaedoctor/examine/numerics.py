"""Where the numbers stop being finite, and how near they are to it.

What can be reached is proved by intervention: layers whose output no bound holds are made to
return values from -20 to 20, and the logarithm, root or division behind them is looked at.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..finding import Span
from ..subject.subject import Batch, Subject
from .anatomy import Anatomy
from .flow import Flow
from .latents import Latent, path_of
from .outputs import named_tensors
from .recorder import Edits, Recorder
from .recording import Op, Recording, Value, tensors_in
from .step import run_recorded

REACH = 20.0  # a linear layer's output; beyond it sigmoid and tanh are flat in float32
MARGIN = 2.0  # headroom: the argument times this still fits
WIDER = 10.0  # inputs this many times larger
_MOST = 0.05  # the share of exact zeros from which they are no coincidence

EXPONENTIALS = frozenset("exp exp_ expm1 exp2 sinh cosh".split())
LOGARITHMS = frozenset("log log_ log2 log10".split())
ROOTS = frozenset("sqrt sqrt_ rsqrt".split())
QUOTIENTS = frozenset("div div_ true_divide divide rdiv __rdiv__ __rtruediv__ reciprocal".split())
_UNBOUNDED = frozenset(
    "linear conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d addmm "
    "matmul mm bmm bilinear layer_norm batch_norm group_norm multi_head_attention_forward "
    "embedding einsum".split()
)
_SHRINK = frozenset(
    "exp exp_ exp2 relu relu_ sigmoid softplus clamp clamp_ clamp_min hardtanh threshold sqrt "
    "square pow mul mul_ abs tanh div leaky_relu elu".split()
)
_BOUNDS = frozenset(
    "relu relu_ clamp clamp_ clamp_min hardtanh threshold abs leaky_relu elu tanh".split()
)
_FILLS = frozenset(
    "masked_fill masked_fill_ full new_full full_like fill_ where tensor triu tril log".split()
)


class Watch(Recorder):
    """A recorder that looks at every operand and result at the moment of the operation."""

    def __init__(
        self,
        model: nn.Module,
        named: Mapping[int, tuple[str, str]],
        edits: Edits | None = None,
    ) -> None:
        super().__init__(model, named, edits)
        self.read: dict[int, str] = {}
        self.made: dict[int, str] = {}

    def _execute(self, func: Any, name: str, args: tuple[Any, ...], kwargs: Any) -> Any:
        if name in ("__get__", "__set__"):
            return func(*args, **kwargs)
        index = len(self.recording.ops)
        self.read[index] = _trouble(args, kwargs)
        out = self._run(func, name, args, kwargs)
        self.made[index] = _trouble(out) if tensors(out) else _trouble(args)
        return out

    def _run(self, func: Any, name: str, args: tuple[Any, ...], kwargs: Any) -> Any:
        return func(*args, **kwargs)


def tensors(thing: Any) -> bool:
    """Whether there is a tensor in what an operation returned."""
    return next(tensors_in(thing), None) is not None


def _trouble(*things: Any) -> str:
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
    held the value from the start; `end` is what is not finite in the end.
    """

    op: Op | None
    kind: str
    at: Span | None
    end: str
    leaf: str = ""
    smallest: float = math.nan
    largest: float = math.nan


_COMPLAINTS = ("nan", "inf", "invalid values", "between 0 and 1", "not finite", "positive")


def about_values(error: BaseException | None) -> bool:
    """Whether an exception complains about numbers, as argument checks of distributions do."""
    return isinstance(error, (ValueError, RuntimeError, AssertionError)) and any(
        word in str(error).lower() for word in _COMPLAINTS
    )


def bad_end(recording: Recording, *, composed: bool) -> tuple[str, Tensor] | None:
    """The loss or an output that is not finite. Logits of -inf under a finite loss are masks."""
    loss = recording.loss
    if isinstance(loss, Tensor) and not composed and _trouble(loss):
        return "the loss", loss
    for name, tensor in named_tensors(recording.output):
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
    end = bad_end(recording, composed=recording.loss is None)
    if end is None and recording.error is not None:
        end = _before_error(recording, watch)
    rewind()
    if end is None:
        return None
    value = recording.value_of(end[1])
    return None if value is None else _begin(watch, Flow(recording), value, end[0])


def _before_error(recording: Recording, watch: Watch) -> tuple[str, Tensor] | None:
    """What a failing operation, or the check that raised, was looking at."""
    for op in reversed(recording.ops[-4:]):
        for value in op.reads:
            if value.tensor.is_floating_point() and _trouble(value.tensor):
                return f"what `{op.name}` reads", value.tensor
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
        what = _trouble(leaf.tensor)
        return NonFinite(None, what, None, name, f"{leaf.source} {leaf.name}".strip())
    low, high = _range(op)
    return NonFinite(op, watch.made[op.index], op.span, name, "", low, high)


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
            if _trouble(value.tensor):
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


# -- headroom --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Headroom:
    """The largest argument of one exponential, now and with inputs ten times larger."""

    op: Op
    largest: float
    limit: float
    wider: float | None


def largest_argument(op: Op) -> float:
    """The largest argument of an exponential; of an in-place one, from its result."""
    read, made = op.reads[0].tensor.detach(), op.out.tensor.detach()
    if not read.numel() or not read.is_floating_point():
        return -math.inf
    if op.reads[0].tensor is op.out.tensor:
        return float(made.double().log().max())
    return float(read.max())


def exponentials(recording: Recording, ends: frozenset[int]) -> list[Op]:
    """The exponentials that reach the loss or an output."""
    return [
        op
        for op in recording.ops
        if op.name in EXPONENTIALS
        and op.makes
        and op.reads
        and op.out.tensor.is_floating_point()
        and op.out.index in ends
    ]


def headroom(
    subject: Subject,
    recording: Recording,
    flow: Flow,
    ends: frozenset[int],
    seed: int,
    rewind: Callable[[], None],
) -> list[Headroom]:
    """Exponentials whose argument comes near the largest that the dtype can hold."""
    ops = [op for op in exponentials(recording, ends) if flow.learned[op.out.index]]
    if not ops:
        return []
    limits = {op.index: math.log(torch.finfo(op.out.tensor.dtype).max) for op in ops}
    largest = {op.index: largest_argument(op) for op in ops}
    # Layers grow with their input, a square twice as fast: what is smaller cannot get there.
    close = [op for op in ops if largest[op.index] * WIDER**2 >= limits[op.index]]
    wider = _wider(subject, close, seed, rewind) if close else {}
    found = []
    for op in close:
        limit, now, then = limits[op.index], largest[op.index], wider.get(op.index)
        if now > limit:
            continue  # it has overflowed: VAE801 speaks
        if now * MARGIN > limit or (then is not None and then >= limit):
            found.append(Headroom(op, now, limit, then))
    return found


def _wider(
    subject: Subject, ops: list[Op], seed: int, rewind: Callable[[], None]
) -> dict[int, float]:
    """The largest arguments when every floating input is ten times larger."""
    recording = run_recorded(subject, seed=seed, batch=scaled(subject, WIDER))
    rewind()
    found = {}
    for op in ops:
        twin = recording.ops[op.index] if op.index < len(recording.ops) else None
        if twin is not None and twin.name == op.name and twin.makes:
            found[op.index] = largest_argument(twin)
    return found


def scaled(subject: Subject, factor: float) -> Batch:
    """The batch with its data multiplied; conditions, and what holds only 0 and 1, are kept."""
    batch = subject.batch
    items = [*enumerate(batch.args), *batch.kwargs.items()]
    kept = {id(t) for key, item in items if key in subject.conditions for t in tensors_in(item)}

    def grow(t: Tensor) -> Tensor:
        quantity = t.is_floating_point() and bool(((t != 0) & (t != 1)).any())
        return t.detach() * factor if quantity and id(t) not in kept else t

    return mapped(batch, grow)


def mapped(batch: Batch, change: Callable[[Tensor], Tensor]) -> Batch:
    """The batch with every tensor changed."""

    def one(item: Any) -> Any:
        if isinstance(item, Tensor):
            return change(item)
        if isinstance(item, dict):
            return {k: one(v) for k, v in item.items()}
        if isinstance(item, (list, tuple)) and not hasattr(item, "_fields"):
            return type(item)(one(v) for v in item)
        return item

    args = tuple(one(a) for a in batch.args)
    kwargs = {k: one(v) for k, v in batch.kwargs.items()}
    return Batch(args, kwargs, batch.origin, batch.guessed, batch.ran)


# -- what can be reached ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Reached:
    """A logarithm, root or division that is fed zero or less when its layers return anything."""

    op: Op
    smallest: float
    share: float
    producer: str
    layers: tuple[str, ...]
    learned_number: bool
    of_scale: bool


def reach(
    subject: Subject,
    anatomy: Anatomy,
    ends: frozenset[int],
    seed: int,
) -> Iterator[Reached]:
    """Sweep the layers behind every logarithm, root and division; report what gets there.

    The caller rewinds when it has looked: until then bare parameters hold the swept values.
    """
    flow = anatomy.flow
    watched = {op.index: op for op in flow.recording.ops if _watched(flow, op, ends)}
    sources = {i: _sources(flow, _operand(op)) for i, op in watched.items()}
    watched = {i: op for i, op in watched.items() if sources[i][0] or sources[i][1]}
    if not watched:
        return
    layers = {v.index: v for i in watched for v in sources[i][0]}
    numbers = {id(v.tensor): v.tensor for i in watched for v in sources[i][1]}
    edits: Edits = {v.place: _sweep for v in layers.values()}
    for tensor in numbers.values():
        tensor.data = _sweep(tensor.data)
    recording = run_recorded(subject, seed=seed, edits=edits)
    poisoned = _poisoned(recording, [v.place for v in layers.values()])
    scales = {x.scale.index for x in anatomy.latents if x.scale is not None}
    for index, op in watched.items():
        operand = _fed(recording, op, poisoned=poisoned)
        if operand is None:
            continue
        bad = operand <= 0 if op.name in LOGARITHMS | ROOTS else operand == 0
        source = _operand(op)
        yield Reached(
            op,
            float(operand.min()),
            float(bad.double().mean()),
            source.op.name if source.op is not None else source.name,
            tuple(dict.fromkeys(path_of(v.op) for v in sources[index][0] if v.op is not None)),
            not sources[index][0],
            bool(scales & flow.ancestors(source)),
        )


def _fed(recording: Recording, op: Op, *, poisoned: bool) -> Tensor | None:
    """The operand of an operation in the swept run, where it is out of range and that shows."""
    twin = recording.ops[op.index] if op.index < len(recording.ops) else None
    if twin is None or twin.name != op.name or not twin.makes:
        return None
    operand = _operand(twin).tensor.detach()
    if not operand.numel():
        return None
    negative = op.name not in QUOTIENTS and bool((operand < 0).any())
    if not negative and float((operand == 0).double().mean()) < _MOST:
        return None
    if op.name == "sqrt" and not negative:
        return operand if poisoned else None  # the root of 0 is fine, its slope is not
    shows = recording.error is not None or _ends_badly(recording)
    return operand if shows and _trouble(twin.out.tensor) else None


def _poisoned(recording: Recording, layers: list[tuple[int, int]]) -> bool:
    """Whether the gradient at a swept layer is NaN or infinite while all values are finite."""
    ends = [recording.loss, *(t for _, t in named_tensors(recording.output))]
    sums = [t.sum() for t in ends if isinstance(t, Tensor) and t.requires_grad]
    made = [recording.ops[i].makes[k] for i, k in layers if i < len(recording.ops)]
    edges = [v.edge for v in made if v.edge is not None]
    if recording.error is not None or not sums or not edges:
        return False
    with warnings.catch_warnings(), suppress(RuntimeError):
        warnings.simplefilter("ignore")
        found = torch.autograd.grad(sums[:1], edges, allow_unused=True, retain_graph=True)
        return any(g is not None and bool(_trouble(g)) for g in found)
    return False


def _ends_badly(recording: Recording) -> bool:
    ends = [recording.loss, *(t for _, t in named_tensors(recording.output))]
    return any(isinstance(t, Tensor) and _trouble(t) for t in ends)


def _watched(flow: Flow, op: Op, ends: frozenset[int]) -> bool:
    if op.name not in LOGARITHMS | ROOTS | QUOTIENTS or not op.makes or not op.reads:
        return False
    if op.inplace or op.error is not None or op.out.index not in ends:
        return False
    operand = _operand(op)
    return operand.tensor.is_floating_point() and flow.learned[operand.index]


def _operand(op: Op) -> Value:
    """The operand that must not be zero: the divisor, the argument."""
    if op.name in QUOTIENTS and op.name not in ("reciprocal", "rdiv", "__rdiv__", "__rtruediv__"):
        tensors = [a for a in op.args[:2] if isinstance(a, Tensor)]
        return op.reads[-1] if len(tensors) == 2 else op.reads[0]
    return op.reads[0]


def _sources(flow: Flow, operand: Value) -> tuple[list[Value], list[Value]]:
    """The nearest layers behind an operand that no bound holds, and bare parameters."""
    waiting, seen = [operand], set[int]()
    layers: list[Value] = []
    numbers: list[Value] = []
    while waiting:
        value = waiting.pop()
        if value.index in seen:
            continue
        seen.add(value.index)
        op = value.op
        if op is None:
            if value.source == "parameter" and value.tensor.is_floating_point():
                numbers.append(value)
        elif flow.layer(op):
            if op.name in _UNBOUNDED and any(v.source == "parameter" for v in op.reads):
                layers.append(value)
        else:
            waiting.extend(flow.parents(value))
    return layers, numbers


def _sweep(tensor: Tensor) -> Tensor:
    """Values from -REACH to REACH in a fixed shuffled order, with the graph of the original."""
    generator = torch.Generator().manual_seed(0)
    count = tensor.numel()
    values = torch.linspace(-REACH, REACH, max(count, 2))[:count]
    order = torch.randperm(count, generator=generator)
    spread = values[order].reshape(tensor.shape).to(tensor)
    return spread + 0 * tensor if tensor.requires_grad else spread


# -- scale -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Underflow:
    """A sampler's scale with entries that are exactly zero or denormal."""

    latent: Latent
    zeros: int
    denormals: int
    count: int
    op: Op | None

    @property
    def vanished(self) -> bool:
        """Whether a positive function has run out of digits, rather than a bound been met."""
        return self.op is not None and self.op.name not in _BOUNDS


def underflows(anatomy: Anatomy) -> Iterator[Underflow]:
    """Samplers whose scale has underflowed. A mask that switches a unit off is none."""
    for latent in anatomy.latents:
        if latent.scale is None or not latent.scale.tensor.is_floating_point():
            continue
        scale = latent.scale.tensor.detach()
        tiny = torch.finfo(scale.dtype).tiny
        zeros = int((scale == 0).sum())
        denormals = int(((scale != 0) & (scale.abs() < tiny)).sum())
        if not zeros + denormals:
            continue
        op = _maker_of_zeros(anatomy.flow, latent.scale, tiny)
        if op is not None:
            yield Underflow(latent, zeros, denormals, scale.numel(), op)


def _maker_of_zeros(flow: Flow, value: Value, tiny: float) -> Op | None:
    """The operation whose operands are all away from zero while its result is not."""
    while value.op is not None:
        op = value.op
        parents = [p for p in flow.parents(value) if p.tensor.is_floating_point()]
        small = [p for p in parents if bool((p.tensor.detach().abs() < tiny).any())]
        if not small:
            return op if op.name in _SHRINK else None  # `tril` and its kin write zeros on purpose
        learned = [p for p in small if flow.learned[p.index]]
        if len(learned) < len(small):
            return None  # multiplied by a mask
        if flow.layer(op):
            return op
        value = learned[0]
    return None
