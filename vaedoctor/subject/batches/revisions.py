"""What a guess is changed to, by what its run showed beside the layer that failed."""

from __future__ import annotations

import inspect
import itertools
import math
from collections.abc import Iterator, Mapping

from torch import Tensor, nn
from torch.distributions import Distribution

from ..code.meant import words
from ..construct.proposing import said_in
from ..trials.slots import Group, Slot, State, changed, reshaped, slots_of
from ..trials.trial import leaves
from ..trials.witness import Observed, user_frame
from .companions import companion
from .layers import STEPS, Layers

_JOINED = ("real", "index", "onehot")


class Revisions:
    """Revises the states of one model's forward."""

    def __init__(
        self, model: nn.Module, layers: Layers, parameters: list[inspect.Parameter]
    ) -> None:
        self.model = model
        self.layers = layers
        self.parameters = parameters

    def without_none(self, state: State, seen: Observed) -> Iterator[State]:
        """An argument whose default is None after all, or one that is read from `**kwargs`."""
        error = seen.trial.error
        main = next((s for s in slots_of(state).values() if s.kind != "plain"), None)
        if main is None:
            return
        if isinstance(error, KeyError) and error.args and isinstance(error.args[0], str):
            spare = inspect.signature(self.model.forward).parameters.values()
            name = error.args[0]
            if any(p.kind is p.VAR_KEYWORD for p in spare) and name not in state:
                yield {**state, name: companion(name, main, self.layers)}
            yield from self._in_a_default(state, name, main, error)
        lacking = [p for p in self.parameters if p.default is None and p.name not in state]
        for p in lacking:
            if isinstance(error, ValueError) and said_in(p.name, error):
                yield {**state, p.name: companion(p.name, main, self.layers)}
        if "None" not in str(error) and not isinstance(error, AssertionError):
            return
        for p in lacking:
            yield {**state, p.name: companion(p.name, main, self.layers)}
        if len(lacking) > 1:
            yield {**state, **{p.name: companion(p.name, main, self.layers) for p in lacking}}

    def _in_a_default(
        self, state: State, name: str, main: Slot, error: BaseException
    ) -> Iterator[State]:
        """An entry that a dict which is the default of an argument lacks: `options={}`."""
        frame, line = user_frame(error) or (None, "")
        read = [v for k, v in frame.f_locals.items() if k in line] if frame is not None else []
        for p in self.parameters:
            if isinstance(p.default, Mapping) and any(v is p.default for v in read):
                held = {k: Slot(kind="plain", value=v) for k, v in p.default.items()}
                entry = companion(name, main, self.layers)
                yield {**state, p.name: Group("dict", {**held, name: entry})}

    def in_other_words(self, state: State) -> Iterator[State]:
        """An argument that is compared with strings as another one of them."""
        for name, node in state.items():
            if isinstance(node, Slot) and node.kind == "plain" and isinstance(node.value, str):
                for word in words(self.model, name):
                    yield {**state, name: Slot(kind="plain", value=word)}

    def joined_after_all(self, state: State, seen: Observed) -> Iterator[State]:
        """An optional argument as wide as what a layer lacks: it was built for two that are joined.

        `cond=None` beside `nn.Linear(features + classes, ...)`.
        """
        failed, main = seen.failed, next(iter(slots_of(state).values()), None)
        if failed is None or main is None or failed.name != "linear" or len(failed.operands) < 2:
            return
        arrived, weight = failed.operands[:2]
        lacks = weight.shape[-1] - arrived.shape[-1] if weight.is_weight and arrived.shape else 0
        for p in self.parameters:
            if lacks > 0 and p.default is None and p.name not in state:
                beside = companion(p.name, main, self.layers)
                kind = "onehot" if beside.kind == "onehot" else "real"
                yield {**state, p.name: Slot((self.layers.rows, lacks), kind)}


def flipped(state: State, seen: Observed) -> Iterator[State]:
    """Masks the other way round, where nothing finite is left."""
    if "nan" in str(seen.trial.error).lower():
        for path, slot in slots_of(state).items():
            if slot.kind == "bool":
                yield changed(state, path, Slot(slot.shape, "bool", value=not slot.value))


def unmasked(state: State, seen: Observed) -> State | None:
    """The state with a mask the other way round, where attention to nothing gave no number."""
    floats = (v for _, v in leaves(seen.trial.value) if isinstance(v, Tensor))
    masks = [(p, s) for p, s in slots_of(state).items() if s.kind == "bool"]
    if not masks or not any(bool(v.isnan().any()) for v in floats):
        return None
    for path, slot in masks:
        state = changed(state, path, Slot(slot.shape, "bool", value=not slot.value))
    return state


def not_looked_up(state: State, seen: Observed) -> State | None:
    """The state with real numbers where whole ones were given, but nothing looks them up."""
    first = next(iter(slots_of(state).items()), None)
    if first is None or first[1].kind != "index" or first[0] in seen.looked_up:
        return None
    return changed(state, first[0], Slot(first[1].shape))


def as_sequences(state: State, seen: Observed) -> State | None:
    """The state with several sequences where a layer took all the rows for the steps of one."""
    path, slot = next(iter(slots_of(state).items()), ((), Slot()))
    wide = {"real": 2, "index": 1}.get(slot.kind)
    for call in seen.trial.calls:
        if isinstance(call.module, nn.RNNBase | nn.MultiheadAttention):
            if call.shape is None or len(call.shape) != 2 or len(slot.shape) != wide:
                return None
            rows, *width = slot.shape
            steps = (rows, STEPS) if call.module.batch_first else (STEPS, rows)
            several: State = reshaped(state, path, (*steps, *width))
            return several
    return None


def as_column(state: State, seen: Observed) -> State | None:
    """The state with a column in place of a vector that is squeezed: one row would be none."""
    for path, slot in slots_of(state).items():
        if path in seen.columns and len(slot.shape) == 1:
            other = reshaped(state, path, (*slot.shape, 1))
            return other
    return None


def as_it_came_out(state: State, seen: Observed) -> State | None:
    """The data in the shape of an output of as many numbers: an image, or turned axes."""
    path, slot = next(iter(slots_of(state).items()))
    for _, value in leaves(seen.trial.value):
        shape = _shape_of(value)
        if math.prod(shape) != math.prod(slot.shape):
            continue
        if shape[:1] == slot.shape[:1] and len(shape) >= len(slot.shape):
            other = reshaped(state, path, shape)
            return other
    return None


def as_more_axes(state: State, seen: Observed) -> Iterator[State]:
    """Rows of numbers in the shape of an output of more axes: all rows may have been one picture.

    As where `rfft2(x)` takes the last two axes, whatever they are.
    """
    for path, slot in itertools.islice(slots_of(state).items(), 1):
        for _, value in leaves(seen.trial.value):
            shape = tuple(value.shape) if isinstance(value, Tensor) else ()
            real = slot.kind == "real" and isinstance(value, Tensor) and value.is_floating_point()
            if real and len(slot.shape) == 2 < len(shape) and shape[:1] == slot.shape[:1]:
                yield reshaped(state, path, shape)


def parted(state: State, seen: Observed) -> Iterator[State]:
    """Two arguments that one layer takes side by side, the first as wide as what comes out.

    Only their sum is told by the layer. The widest output is tried first: a latent is narrow.
    """
    wide = [(p, s) for p, s in slots_of(state).items() if s.kind in _JOINED and len(s.shape) == 2]
    if len(wide) < 2 or wide[0][1].kind != "real":
        return
    (path, slot), *others = wide
    widths = {v[-1] for _, o in leaves(seen.trial.value) if len(v := _shape_of(o)) == 2}
    for width, (beside, other) in itertools.product(sorted(widths, reverse=True), others):
        rest = slot.shape[1] + other.shape[1] - width
        if width != slot.shape[1] and rest > 0:
            first = changed(state, path, Slot((slot.shape[0], width)))
            yield changed(first, beside, Slot((other.shape[0], rest)))


def _shape_of(output: Tensor | Distribution) -> tuple[int, ...]:
    """The shape of what comes out, or is drawn from what comes out."""
    if isinstance(output, Tensor):
        return tuple(output.shape)
    return (*output.batch_shape, *output.event_shape)


def output_shapes(state: State, seen: Observed) -> Iterator[State]:
    """The shape that came out, as the input: a decoder's size is fixed by its layers."""
    for path, slot in itertools.islice(slots_of(state).items(), 1):
        for _, value in leaves(seen.trial.value):
            if isinstance(value, Tensor) and value.is_floating_point():
                shape = tuple(value.shape)
                near = 3 * slot.shape[-1] <= 4 * shape[-1] if shape else False
                if len(shape) != len(slot.shape) or shape[:1] != slot.shape[:1]:
                    continue
                steps = len(shape) == 3 and shape[2] == slot.shape[2]
                if steps or (near and shape[1] == slot.shape[1]):
                    yield changed(state, path, Slot(shape, slot.kind, slot.top))
