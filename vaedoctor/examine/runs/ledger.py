"""The ledger of one run: which value every tensor object holds at the moment.

A tensor that no recorded operation made (a parameter, a constant, the result of a custom
`Function`) gets its entry when it is first read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import BackwardCFunction
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.nn.parameter import is_lazy

from .recording import ESCAPES, Op, Recording, Value

SMALL = 1 << 16
"""Elements up to which the numbers of a constant are kept."""


class Ledger:
    """The values of a `recording`; `named` says by identity what a tensor is (source, name).

    `unseen` records an operation that no call of torch showed, by its name and what it read.
    """

    def __init__(
        self,
        recording: Recording,
        named: Mapping[int, tuple[str, str]],
        unseen: Callable[[str, tuple[Value, ...]], Op],
    ) -> None:
        self._recording = recording
        self._named = named
        self._unseen = unseen  # of the recorder that holds this ledger: a cycle until `close`
        self._storages: dict[int, list[Value]] = {}
        self._by_node: dict[Any, Value] = {}

    def close(self) -> None:
        """Hold the recording no longer: it is freed, with its graph, when nobody else does."""
        del self._unseen
        self._by_node.clear()

    def at(self, storage: int) -> Sequence[Value]:
        """Every value met that lies in the memory at an address."""
        return self._storages.get(storage, ())

    def value(self, tensor: Tensor) -> Value:
        """What a tensor holds now; an entry of its own where it was not met before."""
        known = self._recording.current.get(id(tensor))
        if known is not None:
            if known.edge is None and tensor.requires_grad:
                self._link(known)  # a custom `Function` gives its result a graph on leaving
            return known
        source, name = self._named.get(id(tensor), ("constant", ""))
        if source == "constant" and isinstance(tensor, nn.Parameter):
            source = "stray"
        hidden = source == "constant" and not tensor.requires_grad
        op = self._opaque(tensor) if not tensor.is_leaf else None
        if tensor.is_leaf and hidden:
            op = self._renamed(tensor)
        value = self.new(tensor, op)
        if op is not None:
            op.makes = (value,)
            return value
        value.source, value.name = source, name
        if source == "constant" and not tensor.requires_grad and tensor.numel() <= SMALL:
            value.content = tensor.detach().clone()
        return value

    def _renamed(self, tensor: Tensor) -> Op | None:
        """Another object for a tensor already met, as the old `Variable(eps)` makes one.

        None where the memory has been outside torch: NumPy may have written to it.
        """
        same = self._storages.get(storage_of(tensor), [])
        alike = [v for v in same if v.shape == tuple(tensor.shape)]
        met = {v.index for v in same}
        out = any(
            op.name in ESCAPES and met & {v.index for v in op.reads} for op in self._recording.ops
        )
        if not alike or out or alike[-1].tensor.dtype != tensor.dtype:
            return None
        return self._unseen("alias", (alike[-1],))

    def _opaque(self, tensor: Tensor) -> Op | None:
        """An operation out of sight (a custom `Function`, a scripted body), from its graph node.

        What it read is found by walking the autograd graph back to values already met.
        """
        found: dict[int, Value] = {}
        seen: set[Any] = set()
        waiting = [(tensor.grad_fn, tensor.output_nr)]
        while waiting and len(seen) < 1000:
            node, output = waiting.pop()
            if node is None or (node, output) in seen:
                continue
            seen.add((node, output))
            # A part of what `chunk` made is not another part, though one node made both.
            known = self._by_node.get((node, output), self._by_node.get((node, None)))
            if known is None and hasattr(node, "variable"):
                if wraps(node.variable):
                    continue
                known = self.value(node.variable)
            if known is not None:
                found[known.index] = known
            else:
                waiting.extend(node.next_functions)
        name = tensor.grad_fn.name() if tensor.grad_fn is not None else "opaque"
        return self._unseen(name, tuple(found.values()))

    def new(self, tensor: Tensor, op: Op | None) -> Value:
        """Enter what `op` made of a tensor, in place or not."""
        recording = self._recording
        shape = () if is_lazy(tensor) else tuple(tensor.shape)
        value = Value(len(recording.values), tensor, shape, op)
        self._link(value)
        recording.values.append(value)
        recording.current[id(tensor)] = value
        if storage := storage_of(tensor):
            self._storages.setdefault(storage, []).append(value)
        return value

    def _link(self, value: Value) -> None:
        value.edge = _edge_of(value.tensor)
        value.requires_grad = value.edge is not None
        if value.edge is not None:
            self._by_node.setdefault((value.edge.node, value.edge.output_nr), value)
            self._by_node.setdefault((value.edge.node, None), value)

    def aliases(self, changed: Tensor, op: Op) -> list[Value]:
        """New values of every other live view of a storage that was written to."""
        same = self._storages.get(storage_of(changed), ())
        views = {id(v.tensor): v.tensor for v in same if v.tensor is not changed}
        made = []
        for view in views.values():
            old = self._recording.current.get(id(view))
            if old is not None and old.op is not op:
                made.append(self.new(view, op))
                op.reads = (*op.reads, old)
        return made


def _edge_of(tensor: Tensor) -> GradientEdge | None:
    if not tensor.requires_grad or tensor.is_inference():
        return None
    node = tensor.grad_fn
    if node is not None and not isinstance(node, BackwardCFunction):
        return GradientEdge(node, tensor.output_nr)  # what follows, without its detours
    try:
        return get_gradient_edge(tensor)
    except (AssertionError, ValueError):
        return None  # a view made under no_grad carries none, a lazy parameter has none yet


wraps = torch._C._functorch.is_functorch_wrapped_tensor
"""Whether a tensor is a transform's own stand-in for another."""


def storage_of(tensor: Tensor) -> int:
    """The address of a tensor's memory; 0 where it has none of the plain kind."""
    plain = tensor.layout is torch.strided and not is_lazy(tensor)
    return tensor.untyped_storage().data_ptr() if plain and not wraps(tensor) else 0
