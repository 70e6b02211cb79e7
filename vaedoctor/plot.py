"""What a plot shows: the measurement that proves a finding, as plain numbers without torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Curve:
    """One series of a plot: a value for each position, None where there is none.

    `expected` says that it shows what would be right, not what was measured. Values keep six
    significant digits, so that the same measurement always looks the same.
    """

    name: str
    values: tuple[float | None, ...]
    expected: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", tuple(_rounded(v) for v in self.values))


@dataclass(frozen=True, slots=True)
class Plot:
    """The measurement that proves a finding, to be drawn: curves over numbers, bars over names.

    The labels carry the units; `log` asks for a logarithmic value axis.
    """

    name: str
    x_label: str
    y_label: str
    x: tuple[float, ...] | tuple[str, ...]
    curves: tuple[Curve, ...]
    log: bool = False

    def __post_init__(self) -> None:
        x = tuple(v if isinstance(v, str) else _rounded(v) for v in self.x)
        object.__setattr__(self, "x", x)
        if any(len(c.values) != len(x) for c in self.curves) or None in x:
            raise ValueError(f"`{self.name}` needs a finite position for each value")


def _rounded(value: float | None) -> float | None:
    """Six significant digits; None for what is not finite."""
    if value is None or value != value or value in (float("inf"), float("-inf")):
        return None
    return float(f"{value:.6g}")
