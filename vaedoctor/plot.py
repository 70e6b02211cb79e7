"""What a plot shows: the measurement that proves a finding, as plain numbers without torch."""

from __future__ import annotations

from collections.abc import Sequence
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


def kl_plot(heads: Sequence[float], loss: Sequence[float], true: Sequence[float]) -> Plot:
    """The KL in a loss against that of what is sampled, in nats a unit."""
    return Plot(
        "the KL in the loss against the KL of what is sampled, both less that at scale 1",
        "scale head `h`",
        "nats a unit",
        tuple(heads),
        (Curve("in the loss", tuple(loss)), Curve("of what is sampled", tuple(true), True)),
    )


def unit_plot(name: str, nats: Sequence[float], *, most: int = 24) -> Plot:
    """The KL of each unit, the largest first; the rest of many units as a line."""
    y = "nats, mean over rows"
    if len(nats) <= most:
        units = tuple(f"no. {i}" for i in range(1, len(nats) + 1))
        return Plot(name, "unit, by size", y, units, (Curve("KL", tuple(nats)),))
    ranks = tuple(float(i) for i in range(1, len(nats) + 1))
    step = max(1, len(nats) // 100)
    return Plot(name, "unit, by size", y, ranks[::step], (Curve("KL", tuple(nats[::step])),))


def weight_plot(kl: float, reconstruction: float) -> Plot:
    """How much each term of the loss weighs, a row."""
    return Plot(
        "what each term of the loss weighs",
        "term",
        "weight a row",
        ("KL", "reconstruction"),
        (Curve("in the loss", (kl, reconstruction)), Curve("in an ELBO", (1.0, 1.0), True)),
        log=True,
    )


def gradient_plot(by_layer: Sequence[tuple[str, float]]) -> Plot:
    """How large each layer's gradient is for its weights."""
    return Plot(
        "the gradient, layer by layer",
        "layer",
        "gradient norm over weight norm",
        tuple(name for name, _ in by_layer),
        (Curve("at this batch", tuple(ratio for _, ratio in by_layer)),),
        log=True,
    )


def swap_plot(another_row: float, prior: float) -> Plot:
    """The reconstruction error with another latent than the row's own."""
    return Plot(
        "the reconstruction error with another latent",
        "latent",
        "error over that with the own latent",
        ("its own", "another row's", "from the prior"),
        (Curve("measured", (1.0, another_row, prior)),),
    )


def row_plot(reported: Sequence[float], true: Sequence[float]) -> Plot:
    """What a flow reports as its log-determinant, row by row, against that of its Jacobian."""
    return Plot(
        "the log-determinant, row by row",
        "row",
        "nats",
        tuple(f"row {i}" for i in range(1, len(true) + 1)),
        (Curve("reported", tuple(reported)), Curve("log |det J|", tuple(true), True)),
    )
