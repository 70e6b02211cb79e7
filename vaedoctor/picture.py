"""The anatomy as a torch-free picture: its parts, what feeds what, outputs, loss terms, family."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .span import Span, span_from_dict, span_to_dict


@dataclass(frozen=True, slots=True)
class Part:
    """One station of the anatomy: its role, the user's name for it, its shape and its line.

    Roles: `x`, `condition`, `encoder`, `location`, `scale`, `noise`, `sample`, `code`, `codebook`,
    `flow`, `layer` (behind the sample), `x_hat`, `loss`; others may come. `kind` is the class of
    the layer or the operation that makes it. `recon_gradient` and `kl_gradient` are the norms of
    what reaches this place of the gradient of the loss, through the reconstruction and on every
    other way; None where they were not measured.
    """

    role: str
    name: str
    shape: tuple[int, ...] | None = None
    at: Span | None = None
    kind: str = ""
    recon_gradient: float | None = None
    kl_gradient: float | None = None


@dataclass(frozen=True, slots=True)
class Arrow:
    """The part at index `start` feeds the part at index `end`; `label` says how, or is empty."""

    start: int
    end: int
    label: str = ""


@dataclass(frozen=True, slots=True)
class Result:
    """One tensor that forward returned or left on the model: the user's name, and what it is.

    `path` is its place in the structure (`[1]`, `q.loc`, `self.kl`); `role` is what it was found to
    be (`x_hat`, `location`, `log-variance`, `sample`, `loss`, ...), "" where that is not known.
    """

    path: str
    name: str
    role: str = ""
    shape: tuple[int, ...] | None = None
    at: Span | None = None


@dataclass(frozen=True, slots=True)
class Term:
    """One summand of the loss: its role (`reconstruction`, `kl`, ...), name, value and line."""

    role: str
    name: str = ""
    value: float | None = None
    at: Span | None = None


@dataclass(frozen=True, slots=True)
class Picture:
    """The model's anatomy without tensors.

    `family` and `confidence` (`high`, `medium`, `low`) rest on `evidence`, one sentence each.
    `forward` says how the step was made where it is not a plain call of the model. The parts are
    in the order of the data, which `arrows` make exact.
    """

    family: str = "none"
    confidence: str = ""
    parts: tuple[Part, ...] = ()
    arrows: tuple[Arrow, ...] = ()
    outputs: tuple[Result, ...] = ()
    terms: tuple[Term, ...] = ()
    evidence: tuple[str, ...] = ()
    forward: str = ""

    def __str__(self) -> str:
        return " → ".join(
            p.role + (f" `{p.name}`" if p.name else "") + (f" {list(p.shape)}" if p.shape else "")
            for p in self.parts
        )

    def to_dict(self) -> dict[str, Any]:
        """The picture as plain data."""
        return {
            "family": self.family,
            "confidence": self.confidence,
            "evidence": list(self.evidence),
            "forward": self.forward,
            "parts": [_part_to_dict(p) for p in self.parts],
            "arrows": [{"start": a.start, "end": a.end, "label": a.label} for a in self.arrows],
            "outputs": [
                {
                    "path": r.path,
                    "name": r.name,
                    "role": r.role,
                    "shape": r.shape,
                    "at": span_to_dict(r.at),
                }
                for r in self.outputs
            ],
            "terms": [
                {
                    "role": t.role,
                    "name": t.name,
                    "value": _finite(t.value),
                    "at": span_to_dict(t.at),
                }
                for t in self.terms
            ],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Picture:
        """Read back what `to_dict` wrote."""
        return cls(
            family=data["family"],
            confidence=data["confidence"],
            parts=tuple(_part_from_dict(p) for p in data["parts"]),
            arrows=tuple(Arrow(**a) for a in data.get("arrows", ())),
            outputs=tuple(
                Result(r["path"], r["name"], r["role"], _shape(r["shape"]), span_from_dict(r["at"]))
                for r in data.get("outputs", ())
            ),
            terms=tuple(
                Term(t["role"], t["name"], _number(t["value"]), span_from_dict(t["at"]))
                for t in data.get("terms", ())
            ),
            evidence=tuple(data.get("evidence", ())),
            forward=data.get("forward", ""),
        )


def _part_to_dict(part: Part) -> dict[str, Any]:
    return {
        "role": part.role,
        "name": part.name,
        "shape": part.shape,
        "at": span_to_dict(part.at),
        "kind": part.kind,
        "recon_gradient": _finite(part.recon_gradient),
        "kl_gradient": _finite(part.kl_gradient),
    }


def _part_from_dict(data: Mapping[str, Any]) -> Part:
    return Part(
        data["role"],
        data["name"],
        _shape(data["shape"]),
        span_from_dict(data["at"]),
        data.get("kind", ""),
        _number(data.get("recon_gradient")),
        _number(data.get("kl_gradient")),
    )


def _shape(given: list[int] | None) -> tuple[int, ...] | None:
    return None if given is None else tuple(given)


def _finite(value: float | None) -> float | str | None:
    """A number as JSON can hold it, to six digits."""
    if value is None:
        return None
    return float(f"{value:.6g}") if math.isfinite(value) else str(value)


def _number(value: float | str | None) -> float | None:
    return None if value is None else float(value)
