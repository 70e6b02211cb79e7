"""Where a model keeps its layers and parameters: by branch, in plain containers, at which line."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass
from types import FunctionType, MethodType

from torch import Tensor, nn

from ...finding import Span
from ...subject.code.source import is_foreign
from ..code.listing import assigned_at, class_span, is_own_code
from ..code.readers import Read
from ..runs.recording import Op


@dataclass(frozen=True, slots=True)
class Place:
    """Where a layer or tensor hangs: the owning module, the attribute, the expression, the line."""

    owner: nn.Module
    attribute: str
    expression: str
    at: Span | None


@dataclass(frozen=True, slots=True)
class Branch:
    """The topmost module (or a bare parameter) of which nothing took part in the step.

    `step` names a function of the file that leads to code that reads it, and that is a loss or
    goes backward.
    """

    path: str
    owner: nn.Module
    attribute: str
    parameters: tuple[str, ...]
    size: int
    at: Span | None
    partial: bool = False
    reads: tuple[Read, ...] | None = None
    shapes: tuple[tuple[int, ...], ...] = ()
    step: str = ""

    @property
    def bare(self) -> bool:
        """Whether it is a parameter of its own and no module."""
        return self.parameters == (self.path,)

    @property
    def foreign(self) -> bool:
        """Whether a library's class holds it, whose own training steps are not seen here."""
        return self.at is not None and is_foreign(self.at.file)

    def like(self, op: Op) -> bool:
        """Whether its weights have the shapes of those an operation applied."""
        weights = {v.shape for v in op.reads if v.source == "parameter"}
        return bool(weights) and weights == set(self.shapes)

    def stands_for(self, module: nn.Module) -> bool:
        """Whether its weights have the shapes of a module's."""
        weights = {tuple(p.shape) for p in module.parameters()}
        return bool(weights) and weights == {tuple(s) for s in self.shapes}


def hiding_places(model: nn.Module) -> Iterator[tuple[int, Place]]:
    """Modules and tensors that hang in plain containers or objects, with how to reach them."""
    registered = {id(m) for m in model.modules()} | {id(p) for p in model.parameters()}
    registered |= {id(b) for b in model.buffers()}
    for owner in model.modules():
        for attribute, content in vars(owner).items():
            if attribute in ("_parameters", "_buffers", "_modules") or attribute.endswith("_hooks"):
                continue
            for expression, thing in _walk(content, f"self.{attribute}"):
                if id(thing) not in registered:
                    at = assigned_at(type(owner), attribute)
                    yield id(thing), Place(owner, attribute, expression, at)


def _walk(content: object, expression: str, depth: int = 4) -> Iterator[tuple[str, object]]:
    if isinstance(content, (nn.Module, Tensor)):
        yield expression, content
    elif depth and isinstance(content, dict):
        for key, item in content.items():
            yield from _walk(item, f"{expression}[{key!r}]", depth - 1)
    elif depth and isinstance(content, (list, tuple, set)):
        for i, item in enumerate(content):
            yield from _walk(item, f"{expression}[{i}]", depth - 1)
    elif depth and isinstance(content, MethodType):
        yield from _walk(content.__self__, f"{expression}.__self__", depth - 1)
    elif depth and isinstance(content, FunctionType):
        cells = zip(content.__code__.co_freevars, content.__closure__ or (), strict=True)
        for name, cell in cells:
            with contextlib.suppress(ValueError):  # an empty cell
                yield from _walk(cell.cell_contents, name, depth - 1)
    elif depth and hasattr(content, "__dict__") and not isinstance(content, type):
        for key, item in vars(content).items():
            yield from _walk(item, f"{expression}.{key}", depth - 1)


def branches(
    model: nn.Module, chosen: Mapping[str, Tensor], ran: Set[str] = frozenset()
) -> Iterator[Branch]:
    """Group parameters by the topmost module all of whose parameters are among the chosen.

    A module that `ran` is not idle itself, even where all its parameters are.
    """
    names = {n for n, _ in model.named_parameters()}
    tops: dict[str, list[str]] = {}
    for name in chosen:
        top = name
        parts = name.split(".")
        for end in range(len(parts) - 1, 0, -1):
            prefix = ".".join(parts[:end])
            if prefix in ran or not all(n in chosen for n in names if n.startswith(f"{prefix}.")):
                break
            top = prefix
        tops.setdefault(top, []).append(name)
    for top, members in tops.items():
        owner, attribute = owner_of(model, top)
        size = sum(chosen[n].numel() for n in members)
        shapes = tuple(tuple(chosen[n].shape) for n in members)
        at = defined_at(model, top)
        yield Branch(top, owner, attribute, tuple(members), size, at, shapes=shapes)


def owner_of(model: nn.Module, path: str) -> tuple[nn.Module, str]:
    """The module of the user's own code that names a layer, and the attribute it names it by.

    `encoder.layers.0` belongs to the `Encoder` that wrote `self.layers = nn.Sequential(…)`.
    """
    parts = path.split(".")
    owner: nn.Module = model
    best: tuple[nn.Module, str] = (model, parts[0])
    for part in parts:
        if is_own_code(type(owner)):
            best = (owner, part)
        following = getattr(owner, part, None)
        if not isinstance(following, nn.Module):
            break
        owner = following
    return best


def defined_at(model: nn.Module, path: str) -> Span | None:
    """Where the user's code assigns the layer at `path`: else its class line."""
    owner, attribute = owner_of(model, path)
    return assigned_at(type(owner), attribute) or class_span(type(owner))
