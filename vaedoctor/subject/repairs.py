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

from .companions import companion
from .layers import KNOWN, TABLES, Layers, square_images
from .slots import Group, Path, Shape, Slot, State, changed, reshaped, slots_of
from .witness import Failed, Observed, Operand, local_values, user_frame

_VIEW = re.compile(r"shape '\[([\d, -]+)\]' is invalid for input of size (\d+)")
_EXPECTED_ENTRIES = re.compile(r"(?:not enough|too many) values to unpack \(expected (\d+)")
_FULL = re.compile(r"expected to be in range of \[(-\d+), (\d+)\], but got (-?\d+)")
_PERMUTE = re.compile(r"len\(dims\) = (\d+)|not equal to len\(dims\) = (\d+)")
_DTYPE_WORDS = ("bool", "Bool")
_LARGEST = 8192
_MATRIX = {"matmul", "mm", "bmm", "__matmul__", "__rmatmul__", "addmm", "baddbmm", "einsum"}
_CELLS = {"lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell"}
_CONVOLUTIONS = {"conv1d": 1, "conv2d": 2, "conv3d": 3}


class Repairs:
    """Other states for one model, from what its last trial said."""

    def __init__(self, model: nn.Module, layers: Layers) -> None:
        self.model = model
        self.layers = layers
        self.rows = layers.rows
        self._met: dict[tuple[str, int, Path], tuple[int, int]] = {}

    def of(self, state: State, seen: Observed) -> Iterator[State]:
        """States that answer the failure of a trial."""
        slots = slots_of(state)
        error = seen.trial.error
        failed = seen.failed
        yield from self._support(state, seen, slots)
        yield from self._container(state, seen)
        yield from self._masks(state, slots, str(error))
        yield from self._rank(state, seen, slots)
        if failed is not None:
            yield from self._kind(state, failed, slots, str(error))
            yield from self._size(state, failed, slots, str(error))
        yield from self._layer(state, seen, slots)

    # containers -----------------------------------------------------------------------------

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
        elif failed is not None and failed.name == "__getitem__":
            keys = [k for k in failed.others if isinstance(k, str)]
            for path in failed.operands[0].paths if keys and failed.operands else ():
                slot = slots_of(state)[path]
                yield changed(state, path, Group("dict", {keys[0]: slot}))
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
        slot = slots_of(state)[path]
        if name in {"items", "keys", "values", "get"}:
            keys = next(
                (list(m) for m in self.model.modules() if isinstance(m, nn.ModuleDict)), ["x"]
            )
            yield changed(state, path, Group("dict", dict.fromkeys(keys, slot)))
        else:
            yield changed(state, path, Group("object", {name: slot}))

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
                yield changed(state, (*path, key), self._beside(slot, str(key)))

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

    def _masks(self, state: State, slots: Mapping[Path, Slot], text: str) -> Iterator[State]:
        """`Expected key_padded_mask.shape[1] to be 13, but got 325`."""
        found = re.search(r"mask.* (?:be|is) .*?(\d+)\D* got (\d+)", text)
        for path, slot in slots.items() if found else ():
            if found and slot.kind == "bool" and slot.shape:
                size = slot.shape[-1] + int(found[1]) - int(found[2])
                if size > 0:
                    yield reshaped(state, path, (*slot.shape[:-1], size))

    # ranks ----------------------------------------------------------------------------------

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
            yield changed(state, path, replace(slot, shape=shape, kind=slot.kind))
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

    # kinds ----------------------------------------------------------------------------------

    def _kind(
        self, state: State, failed: Failed, slots: Mapping[Path, Slot], text: str
    ) -> Iterator[State]:
        """Whole numbers, truth values, vectors: what the operation wants instead."""
        name, operands = failed.name, failed.operands
        if not operands:
            return
        lower = text.lower()
        if name in {"embedding", "embedding_bag"} and len(operands) > 1:
            yield from self._as_index(state, operands[0], slots, operands[1].shape[0])
        elif name == "one_hot":
            count = next((o for o in failed.others if isinstance(o, int)), 0)
            count = count or failed.options.get("num_classes", 0)
            yield from self._as_index(state, operands[0], slots, count if count > 0 else 5)
        elif name == "__getitem__" and ("indices" in lower or "index" in lower):
            size = operands[0].shape[0] if operands[0].shape else 2
            for operand in operands[1:]:
                yield from self._as_index(state, operand, slots, size)
        elif "index" in lower and ("int64" in lower or "dtype" in lower or "bounds" in lower):
            size = operands[0].shape[-1] if operands[0].shape else 2
            axis = next((o for o in failed.others if isinstance(o, int)), -1)
            if operands[0].shape and -len(operands[0].shape) <= axis < len(operands[0].shape):
                size = operands[0].shape[axis]
            for operand in operands[1:]:
                yield from self._as_index(state, operand, slots, size)
        elif any(w in text for w in _DTYPE_WORDS) or "bitwise" in lower or name == "__invert__":
            for operand in reversed(operands):
                for path in operand.paths:
                    if slots[path].kind in {"real", "index", "onehot"}:
                        yield changed(state, path, replace(slots[path], kind="bool", value=True))
        elif "dtype" in lower or "scalar type" in lower or "floating" in lower:
            for operand in operands:
                for path in operand.paths:
                    if slots[path].kind in {"index", "bool", "length"}:
                        yield changed(state, path, replace(slots[path], kind="real"))

    def _as_index(
        self, state: State, operand: Operand, slots: Mapping[Path, Slot], top: int
    ) -> Iterator[State]:
        for path in operand.paths:
            slot = slots[path]
            if slot.kind == "index" and slot.top <= top:
                continue
            shape = slot.shape
            if (
                slot.kind != "index"
                and len(shape) == 2
                and shape[-1] > 1
                and operand.shape == shape
            ):
                for one in (shape[:1], shape) if slot.kind == "onehot" else (shape, shape[:1]):
                    yield changed(state, path, Slot(one, "index", top))
            else:
                yield changed(state, path, Slot(shape, "index", top))

    # sizes ----------------------------------------------------------------------------------

    def _size(
        self, state: State, failed: Failed, slots: Mapping[Path, Slot], text: str
    ) -> Iterator[State]:
        name, operands = failed.name, failed.operands
        if name == "linear" and len(operands) > 1:
            yield from self._wider(state, operands[0], operands[1].shape[-1], slots)
        elif name in _CELLS:
            weight = next((o for o in operands if o.is_weight and len(o.shape) == 2), None)
            if weight is not None:
                yield from self._wider(state, operands[0], weight.shape[-1], slots)
        elif name in _CONVOLUTIONS and len(operands) > 1 and len(operands[0].shape) > 1:
            yield from self._larger(state, operands[0], slots, text)
        elif name in _MATRIX and len(operands) > 1 and len(operands[1].shape) > 1:
            left, right = operands[-2:]
            if left.shape and left.shape[-1] != right.shape[-2]:
                yield from self._wider(state, left, right.shape[-2], slots)
                yield from self._along(state, right, -2, left.shape[-1], slots)
            yield from self._same_rows(state, left, right, slots)
        elif (found := _VIEW.search(text)) is not None:
            sizes = [int(n) for n in found[1].split(",")]
            wanted = math.prod(n for n in sizes[1:] if n > 0)
            got = math.prod(operands[0].shape[1:]) if operands else 0
            if sizes[1:] and got and all(n > 0 for n in sizes[1:]):
                for path in operands[0].paths:
                    for shape in self._resized(slots[path].shape, got, wanted):
                        yield reshaped(state, path, shape)
        elif "batch_shape+event_shape" in text:
            return
        else:
            yield from self._broadcast(state, failed, slots)

    def _wider(
        self, state: State, operand: Operand, wanted: int, slots: Mapping[Path, Slot]
    ) -> Iterator[State]:
        """The slots that decide about the operand's width, so that it becomes `wanted`."""
        if not operand.shape or operand.shape[-1] == wanted:
            return
        got = operand.shape[-1]
        several = len(operand.paths) > 1
        ranked = []
        for path in operand.paths:
            slot = slots[path]
            if slot.kind == "plain" or (slot.kind == "length"):
                continue
            met = self._interpolated(path, slot.shape, got, wanted)
            others = self._resized(slot.shape, got, wanted, joined=several)
            for order, shape in enumerate((*met, *others)):
                told = shape[-1] in self._told() if several else False
                small = several and slot.kind == "onehot" and slot.shape[-1] in self._told()
                ranked.append((not told, small, order, str(path), path, shape))
        for *_, path, shape in sorted(ranked, key=lambda r: r[:4]):
            yield reshaped(state, path, shape)

    def _interpolated(self, path: Path, shape: Shape, got: int, wanted: int) -> Iterator[Shape]:
        """From two sizes that were met, the one that gives the wanted width."""
        if len(shape) < 2:
            return
        before = self._met.get((str(len(shape)), wanted, path))
        self._met[str(len(shape)), wanted, path] = (shape[-1], got)
        if before is None or before[0] == shape[-1] or before[1] == got:
            return
        slope = (got - before[1]) / (shape[-1] - before[0])
        size = round(shape[-1] + (wanted - got) / slope)
        if 0 < size <= _LARGEST and size != shape[-1]:
            dims = max(1, len(shape) - 2) if len(shape) > 3 else 1
            yield (*shape[:-dims], *(size,) * dims)

    def _told(self) -> set[int]:
        return {v for v in self.layers.hints.values() if isinstance(v, int)}

    def _resized(
        self, shape: Shape, got: int, wanted: int, *, joined: bool = False
    ) -> Iterator[Shape]:
        """Other shapes of a slot, after which a width of `got` would be `wanted`."""
        if len(shape) < 2:
            return
        if shape[-1] == got:
            yield (*shape[:-1], wanted)
            return
        if joined and 0 < shape[-1] + wanted - got <= _LARGEST:
            yield (*shape[:-1], shape[-1] + wanted - got)
        if math.prod(shape[1:]) == got:
            yield from self._refilled(shape, wanted)
        for axis in range(1, len(shape) - 1):
            if shape[axis] == got:
                yield (*shape[:axis], wanted, *shape[axis + 1 :])
        if len(shape) > 2:
            yield from _rescaled(shape, wanted / got)
        if got % shape[-1] == 0 and wanted % (got // shape[-1]) == 0:
            yield (*shape[:-1], wanted // (got // shape[-1]))
        if not joined and 0 < shape[-1] + wanted - got <= _LARGEST and len(shape) == 2:
            yield (*shape[:-1], shape[-1] + wanted - got)
        if len(shape) == 2 and 0 < (near := round(shape[-1] * wanted / got)) != shape[-1]:
            yield (*shape[:-1], near)

    def _refilled(self, shape: Shape, wanted: int) -> Iterator[Shape]:
        """So many numbers in as many axes."""
        b, rank = shape[0], len(shape)
        if rank == 3:
            for axis, other in ((1, 2), (2, 1)):
                if wanted % shape[axis] == 0:
                    rest = wanted // shape[axis]
                    yield (b, shape[1], rest) if axis == 1 else (b, rest, shape[other])
            for n in self._told():
                if 1 < n < wanted and wanted % n == 0:
                    yield (b, n, wanted // n)
                    yield (b, wanted // n, n)
        yield from (s for s in square_images(b, wanted) if len(s) == rank)

    def _along(
        self, state: State, operand: Operand, axis: int, wanted: int, slots: Mapping[Path, Slot]
    ) -> Iterator[State]:
        for path in operand.paths:
            shape = slots[path].shape
            if len(shape) == len(operand.shape) and len(shape) >= -axis:
                at = axis % len(shape)
                if 0 < wanted <= _LARGEST and shape[at] != wanted:
                    yield reshaped(state, path, (*shape[:at], wanted, *shape[at + 1 :]))

    def _same_rows(
        self, state: State, left: Operand, right: Operand, slots: Mapping[Path, Slot]
    ) -> Iterator[State]:
        if len(left.shape) == len(right.shape) == 3 and left.shape[0] != right.shape[0]:
            yield from self._along(state, left, 0, right.shape[0], slots)

    def _larger(
        self, state: State, operand: Operand, slots: Mapping[Path, Slot], text: str
    ) -> Iterator[State]:
        """A kernel that does not fit into the picture."""
        if "Kernel size" not in text and "output size is too small" not in text:
            return
        for path in operand.paths:
            shape = slots[path].shape
            if len(shape) > 2:
                usual = sorted(s for s in self.layers.sides(len(shape) - 2) if s > shape[2:])
                grown = [tuple(k * n for n in shape[2:]) for k in (2, 8, 32)]
                for sides in (*usual[:2], *grown[: 3 if len(shape) == 3 else 1]):
                    yield reshaped(state, path, (*shape[:2], *sides))

    def _broadcast(
        self, state: State, failed: Failed, slots: Mapping[Path, Slot]
    ) -> Iterator[State]:
        """Two operands that differ along an axis: one takes over the other's size."""
        shaped = [o for o in failed.operands if o.shape]
        for path in {p for o in shaped for p in o.paths}:
            if slots[path].kind == "index" and len(slots[path].shape) == 2:
                yield reshaped(state, path, slots[path].shape[:1])
        for one in reversed(shaped):
            for other in shaped:
                if other is one or not one.paths:
                    continue
                for axis in range(1, 1 + min(len(one.shape), len(other.shape))):
                    a, b = one.shape[-axis], other.shape[-axis]
                    if a != b and b != 1 and (a != 1 or failed.name in {"cat", "stack"}):
                        yield from self._along(state, one, -axis, b, slots)
                        yield from self._shifted(state, one, axis, b - a, slots)

    def _shifted(
        self, state: State, one: Operand, axis: int, by: int, slots: Mapping[Path, Slot]
    ) -> Iterator[State]:
        """A slot that grew on its way: it must change by the difference."""
        for path in one.paths:
            shape = slots[path].shape
            if len(shape) == len(one.shape) and shape[-axis] != one.shape[-axis]:
                at = len(shape) - axis
                if 1 <= shape[at] + by <= _LARGEST and abs(by) <= 4:
                    yield reshaped(state, path, (*shape[:at], shape[at] + by, *shape[at + 1 :]))

    # layers ---------------------------------------------------------------------------------

    def _layer(self, state: State, seen: Observed, slots: Mapping[Path, Slot]) -> Iterator[State]:
        """What the layer that failed, or was reached first, takes when it is given a slot."""
        running = [c for c in seen.trial.running if isinstance(c.module, KNOWN)]
        reached = running[-1:] or [c for c in seen.trial.calls if isinstance(c.module, KNOWN)][:1]
        for call in reached:
            if call.first is None:
                continue
            operand = seen.operand(call.first)
            if len(operand.paths) != 1:
                continue
            (path,) = operand.paths
            slot = slots[path]
            if operand.shape == slot.shape:
                for one in self.layers.slots(call.module):
                    yield changed(state, path, one)
            elif running:
                yield from self._folded(state, path, slot, operand, call.module)
            if isinstance(call.module, nn.RNNBase | nn.RNNCellBase) and running:
                yield from self._wider(state, operand, call.module.input_size, slots)

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

    # values ---------------------------------------------------------------------------------

    def _support(self, state: State, seen: Observed, slots: Mapping[Path, Slot]) -> Iterator[State]:
        """A likelihood that is defined for counts, for 0 and 1, or for an event's shape only."""
        text = str(seen.trial.error)
        if "within the support" not in text and "batch_shape+event_shape" not in text:
            return
        value = next((v["value"] for v in local_values(seen.trial.error) if "value" in v), None)
        if not isinstance(value, Tensor):
            return
        for path in seen.paths(value):
            slot = slots[path]
            if found := re.search(
                r"torch\.Size\(\[[\d, ]*\]\) vs torch\.Size\(\[([\d, ]+)\]\)", text
            ):
                shape = tuple(int(n) for n in found[1].split(","))
                yield changed(state, path, replace(slot, shape=shape[-len(shape) :]))
                continue
            kind = {
                "Boolean": "binary",
                "IntegerG": "count",
                "OneHot": "onehot",
                "Simplex": "share",
            }
            for word, wanted in kind.items():
                if f"support ({word}" in text:
                    yield changed(state, path, replace(slot, kind=wanted))


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
    if found := _FULL.search(text):
        at = int(found[3])
        return at + 1 if at >= 0 else -at
    if "too many indices" in text:
        index = next((o for o in failed.others if isinstance(o, tuple)), ())
        return len(index) or None
    dims = _CONVOLUTIONS.get(failed.name)
    rank = len(failed.operands[0].shape)
    if dims is not None and rank not in (dims + 1, dims + 2):
        return dims + 2
    return None


def _rescaled(shape: Shape, factor: float) -> list[Shape]:
    """The shape with as many times the pixels (or the steps) as a flattened layer asks for."""
    dims = len(shape) - 2
    if dims < 1 or factor <= 0:
        return []
    side = round(shape[2] * factor ** (1 / dims))
    found = [(*shape[:2], *(side,) * dims)] if 1 < side <= 512 else []
    if dims == 1:
        steps = round(shape[1] * factor)
        found += [(shape[0], steps, shape[2])] if 1 < steps <= 2048 else []
    return [f for f in found if f != shape]
