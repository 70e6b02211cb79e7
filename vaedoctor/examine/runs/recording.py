"""What one run leaves behind: operations, the values they read and made, calls of modules."""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import CodeType
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge
from torch.nn.parameter import is_lazy

from ...finding import Span
from ..code.places import Frame

DRAWS = frozenset(
    "randn rand randint randn_like rand_like randint_like normal normal_ uniform_ "
    "exponential_ log_normal_ cauchy_ geometric_ random_ bernoulli bernoulli_ multinomial "
    "poisson binomial _standard_gamma _sample_dirichlet gumbel_softmax rrelu randperm".split()
)
"""Operations that draw from torch's random generators."""

HEAVY = 4 << 20
"""Bytes of results from which a recording that nobody holds is worth a garbage collection."""

ESCAPES = frozenset("item tolist numpy __array__ __float__ __int__ __index__ __complex__".split())
"""Operations through which values leave torch, out of autograd's and the recorder's sight."""


@dataclass(slots=True, eq=False)
class Value:
    """A tensor at one moment: an in-place operation makes a new value of the same tensor."""

    index: int
    tensor: Tensor
    shape: tuple[int, ...]
    op: Op | None = None
    source: str = ""
    name: str = ""
    edge: GradientEdge | None = None
    requires_grad: bool = False
    content: Tensor | None = None

    @property
    def place(self) -> tuple[int, int]:
        """The key of an edit that replaces this value: its operation and its position there."""
        assert self.op is not None
        made = self.op.makes.index(self)
        return self.op.index, self.op.positions[made] if made < len(self.op.positions) else made

    @property
    def memory(self) -> int:
        """Where its numbers lie; 0 where that is not known."""
        strided = self.tensor.layout is torch.strided and not is_lazy(self.tensor)
        return self.tensor.untyped_storage().data_ptr() if strided else 0

    def __repr__(self) -> str:
        return f"Value({self.index}, {self.source or (self.op and self.op.name)}, {self.shape})"


@dataclass(slots=True, eq=False)
class Op:
    """One recorded operation. `reads` flow by value, `shapes` only by shape.

    `turn` counts the calls of torch until then, recorded or not; 0 for one found afterwards.
    """

    index: int
    name: str
    reads: tuple[Value, ...]
    shapes: tuple[Value, ...]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    span: Span | None
    frames: tuple[Frame, ...]
    call: Call | None
    grad_mode: bool
    makes: tuple[Value, ...] = ()
    inplace: bool = False
    error: BaseException | None = None
    noise: Tensor | None = None
    positions: tuple[int, ...] = ()
    turn: int = 0

    @property
    def out(self) -> Value:
        """The first value made."""
        return self.makes[0]

    def __repr__(self) -> str:
        return f"Op({self.index}, {self.name}, {self.span and self.span.line})"


@dataclass(slots=True, eq=False)
class Call:
    """One call of a module: where, inside which other call, between which operations."""

    module: nn.Module
    path: str
    parent: Call | None
    span: Span | None
    first: int
    inputs: tuple[Value, ...]
    last: int = -1
    outputs: tuple[Value, ...] = ()
    output: Any = None

    def chain(self) -> Iterator[Call]:
        """This call and the calls it is inside of, innermost first."""
        call: Call | None = self
        while call is not None:
            yield call
            call = call.parent


@dataclass(slots=True, eq=False)
class GradSwitch:
    """A change of grad mode by user code: `with torch.no_grad():` and its kin."""

    at_op: int
    enabled: bool
    span: Span | None


@dataclass(slots=True, eq=False)
class Recording:
    """Everything one run did. `fault` is a bug of ours: the user's run went on without us.

    `returned` is all that the objective returned, of which `loss` is the total; `registered` are
    the modules and tensors that the model registers after the step whose layers are counted.
    """

    ops: list[Op] = field(default_factory=list)
    values: list[Value] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    switches: list[GradSwitch] = field(default_factory=list)
    functions: dict[CodeType, Frame] = field(default_factory=dict)
    output: Any = None
    loss: Any = None
    returned: Any = None
    error: BaseException | None = None
    fault: Exception | None = None
    forward_end: int = -1
    registered: frozenset[int] = frozenset()
    turns: int = 0
    current: dict[int, Value] = field(default_factory=dict)

    def __del__(self) -> None:
        """Free a large graph at once: its cycles would keep it until the next full collection.

        Python may do so in the middle of another run, which must not take this for its own calls.
        """
        with torch._C.DisableTorchFunction():
            heavy = sum(v.tensor.nbytes for v in self.values if not v.tensor.is_sparse) > HEAVY
        self.ops, self.values, self.calls, self.current = [], [], [], {}
        self.output = self.loss = self.returned = self.error = None
        if heavy:
            gc.collect()

    def release(self) -> None:
        """Let go of every tensor and graph at once: values and operations refer to each other."""
        for op in self.ops:
            op.reads = op.shapes = op.makes = op.args = ()
            op.kwargs, op.noise = {}, None
        for value in self.values:
            value.op = value.edge = None
        for call in self.calls:
            call.inputs = call.outputs = ()
            call.output = None
        for held in (self.ops, self.values, self.calls, self.current):
            held.clear()
        self.output = self.loss = self.returned = None

    def value_of(self, tensor: Tensor) -> Value | None:
        """The latest value of a tensor object, if the run met it."""
        return self.current.get(id(tensor))

    def consumers(self) -> dict[int, list[Op]]:
        """Which operations read each value, by value index."""
        readers: dict[int, list[Op]] = {}
        for op in self.ops:
            for value in op.reads:
                readers.setdefault(value.index, []).append(op)
        return readers


_PLAIN = (str, bytes, int, float, complex, type(None), nn.Module, type, torch.dtype, torch.device)


def tensors_in(thing: Any, depth: int = 6) -> Iterator[Tensor]:
    """Every tensor inside nested containers, dataclasses, distributions and plain objects."""
    if isinstance(thing, Tensor):
        yield thing
        return
    if depth <= 0 or isinstance(thing, _PLAIN):
        return
    if isinstance(thing, (list, tuple, set)):
        inner: Iterable[Any] = thing
    elif isinstance(thing, Mapping):
        inner = thing.values()
    elif isinstance(thing, slice):
        inner = (thing.start, thing.stop, thing.step)
    elif hasattr(thing, "__dict__"):
        inner = vars(thing).values()
        depth -= 1  # as deep as its dictionary would be
    else:
        return
    for item in inner:
        if isinstance(item, Tensor):
            yield item
        elif not isinstance(item, _PLAIN):
            yield from tensors_in(item, depth - 1)


def operands(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[Tensor]:
    """The tensors among the arguments of one call, as `tensors_in` of both finds them."""
    found: list[Tensor] = []
    for item in (*args, *kwargs.values()) if kwargs else args:
        if isinstance(item, Tensor):
            found.append(item)
        elif not isinstance(item, _PLAIN):
            found += tensors_in(item, 4)
    return found
