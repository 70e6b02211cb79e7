"""What each recorded value depends on: the data, the parameters, which draws of noise."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from functools import cached_property

from torch import nn

from ..code.listing import text_of
from .recording import Op, Recording, Value

PAIRWISE = frozenset({"broadcast_tensors", "align_tensors"})
"""Operations whose i-th result depends on their i-th operand alone."""

SLICES = frozenset(
    "chunk split __getitem__ narrow select unbind tensor_split split_with_sizes index_select "
    "take_along_dim hsplit vsplit dsplit".split()
)
"""Operations that cut a tensor into parts."""

RESHAPES = frozenset(
    "view reshape flatten unflatten permute transpose T mT swapaxes swapdims squeeze "
    "unsqueeze squeeze_ unsqueeze_ expand expand_as broadcast_to broadcast_tensors contiguous "
    "clone to float double half bfloat16 type type_as movedim view_as reshape_as repeat ravel "
    "cpu cuda t requires_grad_ alias tile repeat_interleave".split()
)
"""Operations that move values around without changing them."""

JOINS = frozenset("cat concat concatenate stack hstack vstack dstack column_stack".split())

_TIMES = frozenset("mul mul_ multiply __imul__".split())
_ZERO = re.compile(r"(?<![\w.])0(\.0*)?(?![\w.])")

CUTS = frozenset(["detach", "detach_", "data"])
"""Operations that hand on the value and drop the graph."""


@dataclass(slots=True, eq=False)
class Draw:
    """One draw of noise: a torch operation, or a tensor that NumPy or Python filled."""

    bit: int
    name: str
    value: Value
    op: Op | None
    origin: str = "torch"


def _trained(value: Value) -> bool:
    """Whether a value is trained from the start, registered or kept in a plain container."""
    hidden = value.source == "attribute" and value.op is None and value.requires_grad
    return value.source in ("parameter", "stray") or hidden


def _initialises(value: Value, op: Op) -> bool:
    """Whether a draw fills a parameter: noise may require grad too, but is drawn with grad on."""
    if isinstance(value.tensor, nn.Parameter):
        return True
    return value.requires_grad and value.tensor.is_leaf and not op.grad_mode


@dataclass(eq=False)
class Flow:
    """Dependence of every value of a recording, by one pass in order of creation.

    `carried` links a tensor that was built from Python or NumPy numbers to the values those
    numbers were read from; `outside` are tensors that hold noise made outside torch.
    """

    recording: Recording
    carried: Mapping[int, tuple[Value, ...]] = field(default_factory=dict)
    outside: frozenset[int] = frozenset()
    draws: list[Draw] = field(default_factory=list)
    data: list[bool] = field(default_factory=list)
    learned: list[bool] = field(default_factory=list)
    noise: list[int] = field(default_factory=list)
    given: list[bool] = field(default_factory=list)
    consumers: dict[int, list[Op]] = field(default_factory=dict)
    _parents: list[tuple[Value, ...]] = field(default_factory=list)
    _older: list[list[int]] = field(default_factory=list)
    _younger: list[list[int]] = field(default_factory=list)
    _behind: dict[tuple[frozenset[int], frozenset[int]], frozenset[int]] = field(
        default_factory=dict
    )
    _after: dict[frozenset[int], frozenset[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for value in self.recording.values:
            parents = self._read(value)
            self._parents.append(parents)
            self._older.append([p.index for p in parents])
            self._younger.append([])
            noise = 0
            for parent in parents:
                noise |= self.noise[parent.index]
                self._younger[parent.index].append(value.index)
            if drawn := self._draw(value):
                noise |= 1 << drawn.bit
            self.data.append(value.source == "input" or any(self.data[p.index] for p in parents))
            self.learned.append(_trained(value) or any(self.learned[p.index] for p in parents))
            self.noise.append(noise)
            self.given.append(
                value.source == "condition" or any(self.given[p.index] for p in parents)
            )
        self.consumers = self.recording.consumers()
        for entry, origins in self.carried.items():
            made = self.recording.values[entry]
            for origin in origins:
                self._younger[origin.index].append(entry)
                if made.op is not None:
                    self.consumers.setdefault(origin.index, []).append(made.op)

    def _draw(self, value: Value) -> Draw | None:
        op = value.op
        if value.index in self.outside:
            draw = Draw(len(self.draws), "numpy", value, op, "outside torch")
        elif op is not None and op.noise is not None and value is op.out:
            if _initialises(value, op):
                return None
            draw = Draw(len(self.draws), op.name, value, op)
        else:
            return None
        self.draws.append(draw)
        return draw

    def parents(self, value: Value) -> tuple[Value, ...]:
        """The values this one is computed from: all of them older than itself."""
        return self._parents[value.index]

    def _read(self, value: Value) -> tuple[Value, ...]:
        # An in-place edit also reads the views it changes, which it made after its result.
        reads = self.carried.get(value.index, ())
        if value.op is not None:
            own = value.op.reads
            if value.op.name in PAIRWISE and value in value.op.makes:
                own = (own[value.place[1]],)
            reads = (*own, *reads)
        return tuple(r for r in reads if r.index < value.index)

    def posterior(self, value: Value) -> bool:
        """Whether a value is computed from the data by learned weights."""
        return self.data[value.index] and self.learned[value.index]

    def layer(self, op: Op) -> bool:
        """Whether an operation applies learned weights to something else than weights."""
        if op.name in JOINS:
            return False
        weights = [v for v in op.reads if self._weight(v)]
        return bool(weights) and len(weights) < len(op.reads)

    def _weight(self, value: Value) -> bool:
        """Whether a value is made of parameters alone; the embedding of a label is not."""
        i = value.index
        return self.learned[i] and not (self.data[i] or self.noise[i] or self.given[i])

    def ancestors(self, *values: Value, stop: Iterable[Value] = ()) -> frozenset[int]:
        """Indices of everything the values are computed from, themselves included.

        The way back ends at the values of `stop`. Answers are kept.
        """
        halt = frozenset(v.index for v in stop)
        key = (frozenset(v.index for v in values), halt)
        if key not in self._behind:
            self._behind[key] = _reached(key[0], self._older, halt)
        return self._behind[key]

    def alive(self, *values: Value, stop: Iterable[Value] = ()) -> frozenset[int]:
        """The ancestors without what is multiplied by a written-out 0 on every way."""
        return self.ancestors(*values, stop=[*self.zeroed, *stop])

    @cached_property
    def zeroed(self) -> list[Value]:
        """Products with a 0 that stands in the code: their values depend on nothing."""
        return [
            op.out
            for op in self.recording.ops
            if op.name in _TIMES
            and op.makes
            and any(isinstance(a, int | float) and a == 0 for a in op.args)
            and _ZERO.search(text_of(op.span))
        ]

    def descendants(self, *values: Value) -> frozenset[int]:
        """Indices of everything computed from the values, themselves included. Kept, too."""
        key = frozenset(v.index for v in values)
        if key not in self._after:
            self._after[key] = _reached(key, self._younger)
        return self._after[key]

    def onward(
        self, *starts: Value, past: Callable[[Op], bool], within: Set[int] | None = None
    ) -> Iterator[Value]:
        """The values and what is made of them step by step, the nearest first.

        The way goes on through operations that are `past` and never leaves `within`.
        """
        waiting, seen = list(starts), set[int]()
        while waiting:
            value = waiting.pop(0)
            if value.index in seen or (within is not None and value.index not in within):
                continue
            seen.add(value.index)
            yield value
            for op in self.consumers.get(value.index, ()):
                if past(op):
                    waiting.extend(op.makes)


def _reached(
    start: frozenset[int], ways: Sequence[Sequence[int]], halt: Set[int] = frozenset()
) -> frozenset[int]:
    """All indices to which ways lead from the first ones; they end at those of `halt`."""
    seen: set[int] = set()
    waiting = list(start)
    while waiting:
        index = waiting.pop()
        if index not in seen:
            seen.add(index)
            if index not in halt:
                waiting += ways[index]
    return frozenset(seen)
