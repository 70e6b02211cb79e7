"""Vector quantisation: the table of codes, its gradient, and the straight-through step.

A look-up is an index of the smallest distance (or largest similarity) to a table that is then read
at that index. A class label embedded by `argmax` is none: its scores do not come from the table.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..anatomy.anatomy import Anatomy
from ..anatomy.heads import path_of
from ..runs.flow import CUTS, JOINS, RESHAPES, Flow
from ..runs.gradients import Arrives, gradient_between, kind_of
from ..runs.recording import Op, Value

_INDEX = frozenset("argmin argmax topk min max sort argsort".split())
_READ = frozenset(
    "embedding __getitem__ index_select gather take_along_dim matmul mm bmm einsum linear".split()
)
_TABLES = ("parameter", "buffer", "attribute", "stray")


@dataclass(frozen=True, slots=True)
class Codebook:
    """One look-up: the index, the read, the table, the encoder's vector before it.

    `table` is the leaf that holds the codes, `codes` what is read at the index: the table, or what
    a layer makes of it; `arrives` is the reconstruction's gradient at the encoder's vector (None
    where the encoder does not train, or where the decoder does not move with the codes either);
    `first` says that no other look-up comes before it on the way.
    """

    index: Op
    read: Op
    table: Value
    codes: Value
    encoded: Value | None
    arrives: Arrives | None
    first: bool

    @property
    def name(self) -> str:
        """The user's name of the table, or of the layer that reads it; empty if there is none."""
        return self.table.name or path_of(self.read)

    @property
    def called(self) -> str:
        """What a sentence calls the table."""
        return f"the codebook `{self.name}`" if self.name else "the codebook"

    @property
    def causes(self) -> frozenset[str]:
        """Tokens of the table and of the layers it belongs to."""
        path = self.table.name
        parts = path.split(".")
        layers = [".".join(parts[:n]) for n in range(1, len(parts) + 1)]
        return frozenset({f"codebook:{path}", *(f"layer:{p}" for p in layers)})


def find_codebooks(anatomy: Anatomy) -> list[Codebook]:
    """Every look-up of a nearest code that reaches the reconstruction."""
    flow = anatomy.flow
    behind = flow.ancestors(anatomy.x_hat) if anatomy.x_hat is not None else frozenset()
    found: list[Codebook] = []
    for op in anatomy.recording.ops:
        if op.name not in _INDEX or not any(flow.data[v.index] for v in op.reads):
            continue
        looked_up = _looked_up(flow, op, behind)
        if looked_up is None or not any(flow.learned[v.index] for v in op.reads):
            continue
        read, table, codes = looked_up
        if any(c.read is read for c in found):
            continue
        earlier = {m.index for c in found for m in c.read.makes}
        first = not (flow.ancestors(*op.reads) & earlier)
        encoded = _encoded(flow, op, table)
        arrives = _arrival(anatomy, encoded, read)
        if arrives is Arrives.ZERO and not _decoder_listens(anatomy, read):
            arrives = None
        found.append(Codebook(op, read, table, codes, encoded, arrives, first))
    return found


def looked_up(anatomy: Anatomy) -> list[Value]:
    """The encoder's vectors for which codes are looked up, none of which comes after another's."""
    if anatomy.latents or anatomy.quantizer is None:
        return []
    return [b.encoded for b in find_codebooks(anatomy) if b.first and b.encoded is not None]


def _looked_up(flow: Flow, index: Op, behind: frozenset[int]) -> tuple[Op, Value, Value] | None:
    """The operation that reads a table at the index, the table that was scored, the codes."""
    scored = flow.ancestors(*index.reads)
    memory = {flow.recording.values[i].memory for i in scored} - {0}
    leaves = {
        v.index
        for v in flow.recording.values
        if v.op is None
        and v.source in _TABLES
        and (v.index in scored or (v.memory in memory and v.shape))
    }
    for value in flow.onward(*index.makes, past=lambda op: not flow.layer(op)):
        for op in flow.consumers.get(value.index, ()):
            if op.name in _READ and op.makes and op.out.index in behind:
                found = _table(flow, op, value, leaves)
                if found is not None:
                    return op, *found
    return None


def _table(flow: Flow, op: Op, value: Value, scored: set[int]) -> tuple[Value, Value] | None:
    """The leaf behind the operand that is read at the index, and that operand.

    The leaf must have been scored too.
    """
    for operand in op.reads:
        if operand is value:
            continue
        same = _same_storage(flow, operand, scored)
        # A table whose averages were updated before it is read was computed from the index too.
        if not same and value.index in flow.ancestors(operand):
            continue
        read = [flow.recording.values[i] for i in flow.ancestors(operand) if i in scored]
        behind = same if flow.data[operand.index] else read or same
        tables = [v for v in behind if len(v.shape) >= 2]
        if tables:
            wide = operand.shape[-1]
            leaf = max(tables, key=lambda v: (v.shape[-1] == wide, v.tensor.numel()))
            return leaf, operand
    return None


def _same_storage(flow: Flow, operand: Value, scored: set[int]) -> list[Value]:
    """Leaves whose memory an operand shows after an update in place."""
    here = operand.memory
    leaves = [flow.recording.values[i] for i in sorted(scored)]
    return [v for v in leaves if here and v.memory == here]


def _encoded(flow: Flow, index: Op, table: Value) -> Value | None:
    """The encoder's vectors: what is compared with the table, where it still carries a gradient."""
    from_table = flow.descendants(table)
    behind = flow.ancestors(*index.reads)
    candidates: list[Value] = []
    for op in flow.recording.ops:
        if not any(m.index in behind and m.index in from_table for m in op.makes):
            continue
        candidates += [v for v in op.reads if flow.data[v.index] and v.index not in from_table]
    for value in candidates:
        root = _raw(flow, value)
        if root is not None:
            return root
    return None


def _raw(flow: Flow, value: Value) -> Value | None:
    """Back through moves, cuts and arithmetic on the vector itself to what the encoder made."""
    while value.op is not None and not flow.layer(value.op):
        parents = {p.index: p for p in flow.parents(value) if flow.data[p.index]}
        moved = value.op.name in RESHAPES | CUTS | JOINS or not value.requires_grad
        norms = value.op.name in ("sum", "pow", "normalize", "square", "mul")
        if len(parents) != 1 or not (moved or norms):
            break
        (value,) = parents.values()
    return value if flow.learned[value.index] else None


def _arrival(anatomy: Anatomy, encoded: Value | None, read: Op) -> Arrives | None:
    if encoded is None or encoded.edge is None or anatomy.x_hat is None:
        return None
    flow, decoded = anatomy.flow, [anatomy.x_hat]
    found = _strongest(gradient_between(decoded, _up_to_layer(flow, encoded)))
    if found is Arrives.NONE and _strongest(gradient_between(decoded, read.makes)) is found:
        # The step may be taken around layers that lead to the codes and back from them.
        before = (flow.recording.values[i] for i in flow.ancestors(encoded))
        learned = [v for v in before if v.edge is not None and flow.posterior(v)]
        found = _strongest(gradient_between(decoded, learned))
    return found


def _decoder_listens(anatomy: Anatomy, read: Op) -> bool:
    """Whether the reconstruction has a gradient at what is made of the codes before a layer."""
    flow = anatomy.flow
    before = list(flow.onward(*read.makes, past=lambda op: not flow.layer(op)))
    decoded = [] if anatomy.x_hat is None else [anatomy.x_hat]
    return _strongest(gradient_between(decoded, before)) is Arrives.YES


def _up_to_layer(flow: Flow, value: Value) -> list[Value]:
    """A value and what it is made of without a layer: a way past it leaves from one of these."""
    waiting, found = [value], dict[int, Value]()
    while waiting:
        value = waiting.pop()
        if value.index in found or value.edge is None or not flow.posterior(value):
            continue
        found[value.index] = value
        if value.op is not None and not flow.layer(value.op):
            waiting.extend(flow.parents(value))
    return list(found.values())


def _strongest(gradients: Iterable[Tensor | None]) -> Arrives:
    kinds = {kind_of(g) for g in gradients}
    return next((k for k in (Arrives.YES, Arrives.ZERO) if k in kinds), Arrives.NONE)


def table_gradient(anatomy: Anatomy, book: Codebook) -> Arrives:
    """What the user's loss gives the table, or the codes that a layer makes of a fixed table."""
    loss = anatomy.recording.loss
    edges = [v.edge for v in (book.table, book.codes) if v.edge is not None]
    if not isinstance(loss, Tensor) or not loss.requires_grad or not edges:
        return Arrives.NONE
    return _strongest(torch.autograd.grad(loss, edges, allow_unused=True, retain_graph=True))
