"""Smaller defaults for a model that is too large to be examined as it is.

What a default does is told by experiment: the constructor is called on the `meta` device, where
weights have shapes but no numbers, with that one default changed. A width leaves the layers as
they are and makes fewer weights; a depth makes fewer layers.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from ..code.signatures import defaults_of
from .making import Call

Values = dict[str, Any]
Place = tuple[str, ...]
MOST_PARAMETERS = 30_000_000
_MOST_BESIDE_A_BATCH = 150_000_000
_FEW_PARAMETERS = 3_000_000
_DIVISORS = (2, 4, 8, 16, 32, 64)
_NARROWEST = 8
_WIDE = 16  # a number from here on may be a width; a smaller one counts layers or multiplies
_MOST_BUILDS = 60


class TooLarge(BaseException):
    """Raised inside a constructor that makes more parameters than can be examined.

    No `Exception`, so that a constructor that catches those does not go on.
    """


def most_parameters(batch: object) -> int:
    """How many parameters a model may have before it is made smaller: more for a given batch."""
    return MOST_PARAMETERS if batch is None else _MOST_BESIDE_A_BATCH


@contextmanager
def at_most(parameters: int | None) -> Iterator[None]:
    """Inside, a constructor that makes more parameters than that raises `TooLarge`."""
    if parameters is None:
        yield
        return
    made = 0

    def count(_module: nn.Module, _name: str, parameter: Any) -> None:
        nonlocal made
        if isinstance(parameter, nn.Parameter) and not nn.parameter.is_lazy(parameter):
            made += parameter.numel()
            if made > parameters:
                raise TooLarge

    handle = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        handle.remove()


@dataclass(frozen=True, slots=True)
class Outline:
    """What a model is made of: how many weights, and the kernel of every convolution."""

    parameters: int
    kernels: Mapping[str, tuple[int, ...]]
    layers: frozenset[str]


def outlined(construct: Callable[[Values], Any], values: Values) -> Outline | None:
    """The outline of a model that is constructed without numbers; None where that fails."""
    try:
        with warnings.catch_warnings(), torch.device("meta"):
            warnings.simplefilter("ignore")
            model: nn.Module = construct(values)
            layers = dict(model.named_modules())
            kernels = {
                n: tuple(m.kernel_size)
                for n, m in layers.items()
                if isinstance(m, nn.modules.conv._ConvNd)
            }
            count = sum(p.numel() for p in model.parameters())
            return Outline(count, kernels, frozenset(layers))
    except KeyboardInterrupt:
        raise
    except BaseException:
        return None


@dataclass
class Shrinking:
    """The smaller siblings of one call; what was given stays as it is.

    `made_up` are arguments whose own defaults may be changed too: those of a configuration.
    """

    thing: Callable[..., Any]
    construct: Callable[[Values], Any]
    given: Mapping[str, Any]
    made_up: Values
    _builds: int = 0
    _coupled: list[Place] = field(default_factory=list)
    _minor: list[Place] = field(default_factory=list)

    @cached_property
    def whole(self) -> Outline | None:
        """The model with its own defaults."""
        return outlined(self.construct, self.made_up)

    def sets(self) -> Iterator[Values]:
        """Arguments that make smaller models, the largest of the small ones first."""
        if self.whole is None:
            return
        few = min(_FEW_PARAMETERS, self._parameters // 2)
        least: tuple[Values, int] | None = None
        yielded = False
        for ways in (self._narrower([]), self._shallower()):
            for values, parameters in ways:
                if parameters <= few:
                    # At the narrowest, widths no longer stand in the same proportion.
                    if least is not None and least[1] <= 2 * few and _has_narrowest(values):
                        yield least[0]
                        least = None
                    yielded = True
                    yield values
                elif least is None or parameters < least[1]:
                    least = values, parameters
            # The narrowest may be too narrow for what its layers divide: the next wider one.
            if yielded and least is not None and least[1] <= MOST_PARAMETERS:
                yield least[0]
                least = None
        if least is not None and not yielded and least[1] <= self._parameters // 2:
            yield least[0]

    def _narrower(self, depths: list[Place]) -> Iterator[tuple[Values, int]]:
        before = -1
        for divisor in _DIVISORS if self._widths or depths else ():
            found = self._fitting(self._widths, depths, divisor)
            if found is None or found[1] == before:
                continue
            before = found[1]
            yield found
            # Two parts of a model may have to agree on a number that hardly adds weights.
            if self._minor and (
                found := self._fitting(self._widths + self._minor, depths, divisor)
            ):
                yield found

    def _shallower(self) -> Iterator[tuple[Values, int]]:
        """With fewer layers as well: told only when it is asked for, since every try costs."""
        if self._depths:
            yield from self._narrower(self._depths)

    @cached_property
    def _widths(self) -> list[Place]:
        """The defaults that are widths; beside them, what may have to change with them."""
        found = []
        for place, value in self._settings.items():
            narrow = _mapped(value, lambda n: n // 2 if n >= _WIDE and n % 2 == 0 else n)
            if narrow == value:
                continue
            if self._is_less(less := self._outline({place: narrow})):
                found.append(place)
            elif less is None or less.parameters == self._parameters:
                self._coupled.append(place)
            elif self._is_less(less, by=1.0):
                self._minor.append(place)
        return found

    @cached_property
    def _depths(self) -> list[Place]:
        """The defaults that are numbers of layers, or multiply widths."""
        found = []
        for place, value in self._settings.items():
            shallow = _mapped(value, _one)
            if shallow != value and self._is_less(self._outline({place: shallow})):
                found.append(place)
        return found

    def _is_less(self, other: Outline | None, by: float = 0.97) -> bool:
        """Whether a changed default makes markedly fewer weights, without smaller kernels."""
        assert self.whole is not None
        if other is None or other.parameters >= by * self._parameters:
            return False
        return other.layers != self.whole.layers or other.kernels == self.whole.kernels

    def _fitting(
        self, widths: list[Place], depths: list[Place], divisor: int
    ) -> tuple[Values, int] | None:
        """The arguments with smaller widths; what must divide them is made smaller where needed."""
        narrow = {p: _divided(self._settings[p], divisor, _NARROWEST) for p in widths}
        narrow |= {
            p: _divided(_mapped(self._settings[p], _one), divisor, _NARROWEST) for p in depths
        }
        coupled = {p: _divided(self._settings[p], divisor, 1) for p in self._coupled}
        for more in ({}, *({p: v} for p, v in coupled.items()), coupled):
            changes = narrow | more
            if (outline := self._outline(changes)) is not None:
                return self._with(changes), outline.parameters
        return None

    def _outline(self, changes: Mapping[Place, Any]) -> Outline | None:
        self._builds += 1
        if self._builds > _MOST_BUILDS:
            return None
        return outlined(self.construct, self._with(changes))

    @property
    def _parameters(self) -> int:
        return self.whole.parameters if self.whole is not None else 0

    @cached_property
    def _settings(self) -> dict[Place, Any]:
        """The whole numbers, and lists of them, that are defaults."""
        found = _settings_of(self.thing, {**self.given, **self.made_up})
        return {p: v for p, v in found.items() if p[0] not in self.given}

    def _with(self, changes: Mapping[Place, Any]) -> Values:
        values = dict(self.made_up)
        for place, value in changes.items():
            if value != self._settings[place]:
                values = _placed(values, place, value)
        return values


def _settings_of(thing: Callable[..., Any], values: Mapping[str, Any]) -> dict[Place, Any]:
    found: dict[Place, Any] = {
        (n,): v for n, v in defaults_of(thing).items() if n not in values and _is_numbers(v)
    }
    for name, value in values.items():
        if isinstance(value, Call):
            inner = _settings_of(value.thing, value.values)
            found |= {(name, *place): v for place, v in inner.items()}
    return found


def _placed(values: Mapping[str, Any], place: Place, new: Any) -> Values:
    name, *rest = place
    if rest:
        held = values[name]
        new = Call(held.thing, _placed(held.values, tuple(rest), new))
    return {**values, name: new}


def _has_narrowest(values: Any) -> bool:
    """Whether neighbours in a list are of the smallest width: one of them was not divided."""
    if isinstance(values, Call):
        return _has_narrowest(values.values)
    if isinstance(values, Mapping):
        return any(map(_has_narrowest, values.values()))
    if not isinstance(values, list | tuple):
        return False
    pairs = itertools.pairwise(values)
    return any(a == b == _NARROWEST for a, b in pairs) or any(map(_has_narrowest, values))


def _one(number: int) -> int:
    return 1 if 1 < number < _WIDE else number


def _is_numbers(value: Any) -> bool:
    """Whether a default is a whole number, or a list or tuple of them, perhaps nested."""
    if type(value) in (list, tuple):
        return bool(value) and all(map(_is_numbers, value))
    return type(value) is int


def _mapped(value: Any, change: Callable[[int], int]) -> Any:
    if type(value) in (list, tuple):
        return type(value)(_mapped(v, change) for v in value)
    return change(value)


def _divided(value: Any, divisor: int, least: int) -> Any:
    """All wide numbers divided by the same power of two, as far as they can be."""

    def part(number: int) -> int:
        if number < _WIDE:
            return number
        by = divisor
        while number % by:
            by //= 2
        return max(number // by, least)

    return _mapped(value, part)
