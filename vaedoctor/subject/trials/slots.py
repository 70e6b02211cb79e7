"""What forward is to be given: one slot for each tensor, and containers of slots."""

from __future__ import annotations

import math
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

Shape = tuple[int, ...]
Path = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Slot:
    """One tensor that is to be made, or a plain number.

    `kind` is `real` (uniform in [0, 1)), `index` (below `top`), `onehot`, `bool` (all `value`),
    `binary`, `count`, `share` (rows that sum to 1), `complex` (both parts in [0, 1)), `length` (all
    `top`) or `plain` (`value`).
    """

    shape: Shape = ()
    kind: str = "real"
    top: int = 2
    value: Any = True

    def filled(self, dtype: torch.dtype, device: torch.device, seed: int) -> Any:
        """The values; the same seed gives the same ones."""
        if self.kind == "plain":
            return self.value
        generator = torch.Generator().manual_seed(seed)
        return self._made(generator, dtype).to(device)

    def _made(self, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
        shape = self.shape
        match self.kind:
            case "index" if len(shape) == 1:
                return torch.arange(shape[0]) % self.top
            case "index":
                return torch.randint(0, self.top, shape, generator=generator)
            case "length":
                return torch.full(shape, self.top)
            case "bool":
                return torch.full(shape, bool(self.value))
            case "onehot":
                flat = torch.arange(math.prod(shape[:-1])) % shape[-1]
                return F.one_hot(flat, shape[-1]).view(shape).to(dtype)
            case "binary":
                return torch.randint(0, 2, shape, generator=generator).to(dtype)
            case "count":
                return torch.randint(0, 6, shape, generator=generator).to(dtype)
            case "complex":
                parts = torch.rand((*shape, 2), generator=generator).to(dtype)
                return torch.view_as_complex(parts)
        made = torch.rand(shape, generator=generator).to(dtype)
        return made / made.sum(-1, keepdim=True) if self.kind == "share" else made

    def told(self) -> str:
        """`8×37 in [0, 1)`."""
        size = "×".join(map(str, self.shape)) or "a number"
        return {
            "real": f"{size} in [0, 1)",
            "index": f"{size} below {self.top}",
            "length": f"{size}, all {self.top}",
            "bool": f"{size}, all {bool(self.value)}",
            "onehot": f"{size} one-hot",
            "binary": f"{size} of 0 and 1",
            "count": f"{size} counts",
            "share": f"{size} with rows that sum to 1",
            "complex": f"{size} complex, both parts in [0, 1)",
            "plain": (str if type(self.value).__module__ == "torch" else repr)(self.value),
        }[self.kind]


@dataclass(frozen=True, slots=True)
class Group:
    """A container that forward takes: `dict`, `object` (attributes), `tuple`, `list` or `args`."""

    kind: str
    entries: Mapping[Any, Node]


Node = Slot | Group
State = Mapping[str, Node]


def slots_in(node: Node, path: Path = ()) -> Iterator[tuple[Path, Slot]]:
    """All slots with the paths that lead to them."""
    if isinstance(node, Slot):
        yield path, node
    else:
        for key, inner in node.entries.items():
            yield from slots_in(inner, (*path, key))


def slots_of(state: State) -> dict[Path, Slot]:
    """All slots of a state by path; the first key is the parameter's name."""
    return {p: s for name, node in state.items() for p, s in slots_in(node, (name,))}


def changed(state: State, path: Path, node: Node) -> State:
    """The state with another node at a path."""
    return {**state, path[0]: _placed(state.get(path[0]), path[1:], node)}


def reshaped(state: State, path: Path, shape: Shape) -> State:
    """The state with another shape at a path; what has the same rows keeps them."""
    return changed(state, path, replace(slots_of(state)[path], shape=shape))


def _placed(node: Node | None, path: Path, new: Node) -> Node:
    if not path:
        return new
    assert isinstance(node, Group)
    inner = _placed(node.entries.get(path[0]), path[1:], new)
    return Group(node.kind, {**node.entries, path[0]: inner})


def made(node: Node, values: Mapping[Path, Any], path: Path) -> Any:
    """A node with its tensors in place."""
    if isinstance(node, Slot):
        return values[path]
    inside = {k: made(n, values, (*path, k)) for k, n in node.entries.items()}
    match node.kind:
        case "dict":
            return inside
        case "object":
            return types.SimpleNamespace(**inside)
        case "list":
            return list(inside.values())
    return tuple(inside.values())


def told(state: State) -> str:
    """How a batch was made, in one line; nothing for one tensor of real numbers."""
    found = slots_of(state)
    if len(found) == 1 and all(s.kind == "real" and len(p) == 1 for p, s in found.items()):
        return ""
    return "; ".join(f"`{_written(p, state)}` {s.told()}" for p, s in found.items())


def _written(path: Path, state: State) -> str:
    node, text = state[path[0]], str(path[0])
    for key in path[1:]:
        assert isinstance(node, Group)
        text += f".{key}" if node.kind == "object" else f"[{key!r}]"
        node = node.entries[key]
    return text
