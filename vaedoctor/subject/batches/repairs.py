"""What a failed trial teaches: other slots to try, the likeliest first.

Torch names the operation and the sizes it met; the witness knows which slots those sizes come
from. A size that comes from a weight is never repaired: a broken model stays broken.
"""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from ..trials.slots import Group, Path, Shape, Slot, State, changed, reshaped, slots_of
from ..trials.witness import Failed, Observed, Operand, user_frame
from .checked import as_it_checks
from .companions import companion
from .complexes import of_parts
from .keyed import OF_DICTS, as_held, as_names, as_positions, keys_got
from .layers import KNOWN, TABLES, Layers, square_images
from .lengths import longer
from .refusals import as_it_says
from .resizing import CONVOLUTIONS, Resizing
from .values import as_switch, in_the_support, of_another_kind, of_masks, of_numbers

_EXPECTED_ENTRIES = re.compile(r"(?:not enough|too many) values to unpack \(expected (\d+)")
_FULL = re.compile(r"expected to be in range of \[(-\d+), (\d+)\], but got (-?\d+)")
_MARGIN = re.compile(r"Padding size (\d+) is not supported for \d+D input")
_EXPANDED = re.compile(r"number of sizes provided \((\d+)\) must be greater or .* \((\d+)\)")
_PERMUTE = re.compile(r"len\(dims\) = (\d+)|not equal to len\(dims\) = (\d+)")


class Repairs:
    """Other states for one model, from what its last trial said."""

    def __init__(self, model: nn.Module, layers: Layers) -> None:
        self.model = model
        self.layers = layers
        self.resizing = Resizing(layers)

    @property
    def rows(self) -> int:
        """How many rows a batch has at present."""
        return self.layers.rows

    def of(self, state: State, seen: Observed) -> Iterator[State]:
        """States that answer the failure of a trial."""
        slots = slots_of(state)
        error = seen.trial.error
        failed = seen.failed
        yield from as_it_says(state, slots, error)
        yield from as_it_checks(state, seen, slots)
        yield from in_the_support(state, seen, slots)
        yield from of_numbers(state, slots, error, self.rows)
        yield from as_switch(state, seen, slots)
        yield from self._container(state, seen)
        yield from of_masks(state, slots, str(error))
        yield from self._rank(state, seen, slots)
        if failed is not None:
            yield from self._turned(state, failed, slots)
            yield from of_parts(state, failed, slots, str(error))
            yield from of_another_kind(state, failed, slots, str(error))
            yield from longer(state, failed, slots, str(error), self.layers)
            yield from self.resizing.of(state, failed, slots, str(error))
        yield from self._layer(state, seen, slots)

    def _container(self, state: State, seen: Observed) -> Iterator[State]:
        """`batch["x"]`, `batch.x`, `x, y = batch`: a slot that is a container."""
        error, failed = seen.trial.error, seen.failed
        if isinstance(error, AttributeError) and isinstance(error.obj, Tensor):
            for path in seen.paths(error.obj):
                yield from self._with_attribute(state, path, str(error.name))
        elif isinstance(error, AttributeError) and hasattr(error.obj, "__dict__"):
            yield from self._with_entry(state, "object", error.obj.__dict__, str(error.name))
        elif isinstance(error, KeyError) and error.args:
            yield from self._with_key(state, error.args[0])
        for path in keys_got(state, self.model):
            first = next(iter(slots_of({path[0]: state[path[0]]}).values()))
            yield changed(state, path, self._beside(first, str(path[1])))
        yield from as_held(state, error)
        yield from as_positions(state, self.model)
        yield from as_names(state, seen, self.model, self.layers)
        yield from self._as_list(state, failed)
        for path, count in self._unpacked(state, seen):
            slot = slots_of(state)[path]
            entries = {i: slot if i == 0 else self._beside(slot, "y") for i in range(count)}
            yield changed(state, path, Group("tuple", entries))

    def _as_list(self, state: State, failed: Failed | None) -> Iterator[State]:
        """Rows given one by one to as many layers: a list of tensors, one for each."""
        if failed is None or failed.name != "linear" or len(failed.operands[0].shape) != 1:
            return
        lists = [m for m in self.model.modules() if isinstance(m, nn.ModuleList) and len(m) > 1]
        for path in failed.operands[0].paths if lists else ():
            slot = slots_of(state)[path]
            if len(slot.shape) == 2 and len(path) == 1:
                entries = dict.fromkeys(range(len(lists[0])), slot)
                yield changed(state, path, Group("list", entries))

    def _with_attribute(self, state: State, path: Path, name: str) -> Iterator[State]:
        if name not in OF_DICTS:
            yield changed(state, path, Group("object", {name: slots_of(state)[path]}))

    def _with_entry(
        self, state: State, kind: str, held: Mapping[str, Any], name: str
    ) -> Iterator[State]:
        for path, group in _groups(state):
            if group.kind == kind and set(held) == set(group.entries):
                first = next(iter(group.entries.values()))
                slot = first if isinstance(first, Slot) else Slot((self.rows,))
                yield changed(state, (*path, name), self._beside(slot, name))

    def _with_key(self, state: State, key: Any) -> Iterator[State]:
        for path, group in _groups(state):
            if group.kind == "dict" and key not in group.entries:
                first = next(iter(group.entries.values()))
                slot = first if isinstance(first, Slot) else Slot((self.rows,))
                beside = self._beside(slot, str(key))
                if isinstance(beside.value, bool) and beside.kind == "plain":
                    beside = Slot((self.rows, 1), "index")  # among data it is no flag
                yield changed(state, (*path, key), beside)

    def _beside(self, slot: Slot, name: str) -> Slot:
        return companion(name, slot, self.layers)

    def _unpacked(self, state: State, seen: Observed) -> Iterator[tuple[Path, int]]:
        """`x, y = batch`, where batch is one of the slots."""
        count, name = _unpacking(seen.trial.error)
        frame = user_frame(seen.trial.error)
        if not count or frame is None or not name.isidentifier():
            return
        value = frame[0].f_locals.get(name)
        if isinstance(value, Tensor):
            paths = seen.paths(value)
            if len(paths) == 1:
                (path,) = paths
                yield path, count

    def _rank(self, state: State, seen: Observed, slots: Mapping[Path, Slot]) -> Iterator[State]:
        error, failed = seen.trial.error, seen.failed
        text = str(error)
        count, name = _unpacking(error)
        frame = user_frame(error)
        if count and frame is not None and name.endswith((".shape", ".size()")):
            value = frame[0].f_locals.get(name.rpartition(".")[0])
            names = _targets(frame[1])
            for path in seen.paths(value) if isinstance(value, Tensor) else ():
                yield from self._of_rank(state, path, slots[path], count, names)
        if failed is None or not failed.operands:
            return
        if failed.name == "linear" and len(failed.operands[0].shape) == 1:
            yield from self._deeper(state, slots)
        wanted = _wanted_rank(failed, text)
        if wanted is not None:
            first = failed.operands[0]
            for path in first.paths:
                rank = len(slots[path].shape) + wanted - len(first.shape)
                yield from self._of_rank(state, path, slots[path], rank, ())
        elif "same number of dimensions" in text or "3D tensor" in text:
            ranks = {3} if "3D tensor" in text else {len(o.shape) for o in failed.operands}
            for operand in reversed(failed.operands):
                for path in operand.paths:
                    for rank in sorted(ranks - {len(operand.shape)}):
                        other = len(slots[path].shape) + rank - len(operand.shape)
                        yield from self._of_rank(state, path, slots[path], other, ())

    def _deeper(self, state: State, slots: Mapping[Path, Slot]) -> Iterator[State]:
        """One more axis for all: a layer met a row, so an axis was averaged that was not there."""
        other = state
        for path, slot in slots.items():
            if slot.kind == "real" and len(slot.shape) == 2:
                shape = (slot.shape[0], self.layers.steps(), slot.shape[1])
                other = reshaped(other, path, shape)
        if other is not state:
            yield other

    def _of_rank(
        self, state: State, path: Path, slot: Slot, rank: int, names: tuple[str, ...]
    ) -> Iterator[State]:
        """The slot with so many axes."""
        if not 0 < rank <= 6 or rank == len(slot.shape):
            return
        for shape in self._shapes_of_rank(slot.shape, rank, names):
            kind = "real" if rank > 1 and slot.kind == "index" and not names else slot.kind
            slot = Slot(slot.shape) if rank == 1 and slot.kind == "onehot" else slot
            yield changed(state, path, replace(slot, shape=shape))
            if kind != slot.kind:
                yield changed(state, path, replace(slot, shape=shape, kind=kind))

    def _shapes_of_rank(self, shape: Shape, rank: int, names: tuple[str, ...]) -> Iterator[Shape]:
        b, steps = self.rows, self.layers.steps()
        told = tuple(self.layers.hints.get(n) for n in names)
        if len(names) == rank and any(isinstance(v, int) for v in told[1:]):
            yield (b, *(v if isinstance(v, int) and v > 0 else steps for v in told[1:]))
        if rank == 1:
            yield (shape[0],)
        elif rank == 2:
            yield (shape[0], shape[-1] if len(shape) > 1 else 1)
            if len(shape) > 2:
                yield (shape[0], math.prod(shape[1:]))
        elif rank == 3 and len(shape) == 2:
            yield (b, steps, shape[-1])
            yield from (s for s in square_images(b, shape[-1]) if len(s) == 3)
            yield (b, shape[-1], steps)
        elif rank == 4 and len(shape) == 2:
            yield from (s for s in square_images(b, shape[-1]) if len(s) == 4)
            yield (b, steps, 3, shape[-1])
        elif rank > len(shape):
            extra = rank - len(shape)
            yield (shape[0], *(4,) * extra, *shape[1:])
            yield (*shape, *(4,) * extra)
        else:
            yield shape[:rank]
            yield (shape[0], *shape[len(shape) - rank + 1 :])

    def _layer(self, state: State, seen: Observed, slots: Mapping[Path, Slot]) -> Iterator[State]:
        """What the layer that failed, or was reached first, takes when it is given a slot."""
        running = [c for c in seen.trial.running if isinstance(c.module, KNOWN)]
        reached = running[-1:] or [c for c in seen.trial.calls if isinstance(c.module, KNOWN)][:1]
        for call in reached:
            if call.first is None:
                continue
            operand = seen.operand(call.first)
            wider: Iterator[State] = iter(())
            if isinstance(call.module, nn.RNNBase | nn.RNNCellBase) and running:
                wider = self.resizing.wider(state, operand, call.module.input_size, slots)
            if len(operand.paths) != 1:
                yield from wider
                continue
            (path,) = operand.paths
            slot = slots[path]
            if operand.shape == slot.shape:
                for one in self.layers.slots(call.module):
                    yield changed(state, path, one)
            elif running:
                yield from self._folded(state, path, slot, operand, call.module)
            yield from wider

    def _turned(self, state: State, failed: Failed, slots: Mapping[Path, Slot]) -> Iterator[State]:
        """Channels last, where what arrives at a convolution is the slot with its axes turned."""
        first = failed.operands[0] if failed.operands else None
        if first is None or failed.name not in CONVOLUTIONS:
            return
        for path in first.paths:
            shape = slots[path].shape
            if len(shape) > 2 and sorted(shape) == sorted(first.shape) and shape != first.shape:
                yield reshaped(state, path, first.shape)

    def _folded(
        self, state: State, path: Path, slot: Slot, operand: Operand, layer: nn.Module
    ) -> Iterator[State]:
        """A slot that is turned or folded before the layer: `permute(0, 3, 1, 2)`, B·T rows."""
        if sorted(slot.shape) == sorted(operand.shape) and not isinstance(layer, TABLES):
            for one in self.layers.slots(layer):
                yield changed(state, path, one)
        if len(slot.shape) == len(operand.shape) + 1:
            for one in self.layers.slots(layer)[:6]:
                inner = one.shape[1:]
                yield changed(state, path, replace(one, shape=(self.rows, 4, *inner)))


def _groups(state: State) -> Iterator[tuple[Path, Group]]:
    pending: list[tuple[Path, Any]] = [((name,), node) for name, node in state.items()]
    while pending:
        path, node = pending.pop(0)
        if isinstance(node, Group):
            yield path, node
            pending += [((*path, k), n) for k, n in node.entries.items()]


def _unpacking(error: BaseException | None) -> tuple[int, str]:
    """How many values were expected of what: (4, "x.shape") for `b, c, h, w = x.shape`."""
    found = _EXPECTED_ENTRIES.search(str(error)) if isinstance(error, ValueError) else None
    frame = user_frame(error)
    if found is None or frame is None:
        return 0, ""
    for node in _nodes(frame[1]):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Tuple):
            values = [node.value]
            if isinstance(node.value, ast.Tuple):
                continue
            for value in values:
                return int(found[1]), ast.unparse(value)
    return 0, ""


def unpacked_paths(seen: Observed) -> frozenset[Path]:
    """The slots behind a tensor, or its shape, that was unpacked into another number of names."""
    count, name = _unpacking(seen.trial.error)
    frame = user_frame(seen.trial.error)
    if not count or frame is None:
        return frozenset()
    return seen.paths(frame[0].f_locals.get(name.partition(".")[0]))


def _targets(line: str) -> tuple[str, ...]:
    for node in _nodes(line):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Tuple):
            return tuple(ast.unparse(e) for e in node.targets[0].elts)
    return ()


def _nodes(line: str) -> Iterator[ast.AST]:
    try:
        yield from ast.walk(ast.parse(line))
    except SyntaxError:
        return


def _wanted_rank(failed: Failed, text: str) -> int | None:
    """The number of axes that the operation asks of its first operand."""
    if found := _PERMUTE.search(text):
        return int(found[1] or found[2])
    if (found := _EXPANDED.search(text)) and int(found[2]) == len(failed.operands[0].shape):
        return int(found[1])
    if found := _FULL.search(text):
        at = int(found[3])
        return at + 1 if at >= 0 else -at
    if "too many indices" in text:
        index = next((o for o in failed.others if isinstance(o, tuple)), ())
        return len(index) or None
    if found := _MARGIN.search(text):
        return int(found[1]) // 2 + 2
    dims = CONVOLUTIONS.get(failed.name)
    rank = len(failed.operands[0].shape)
    if dims is not None and rank not in (dims + 1, dims + 2):
        return dims + 2
    return None
