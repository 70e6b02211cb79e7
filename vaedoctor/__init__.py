"""vaedoctor examines any PyTorch variational autoencoder and says what is wrong with it."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import strategies
    from .checkup import Unhealthy, assert_healthy, check
    from .finding import Finding, Outcome, Report, Severity, Span, Verified

__version__ = "0.1.0"

__all__ = [
    "Finding",
    "Outcome",
    "Report",
    "Severity",
    "Span",
    "Unhealthy",
    "Verified",
    "assert_healthy",
    "check",
    "strategies",
]

_HOMES = {
    "Unhealthy": "checkup",
    "assert_healthy": "checkup",
    "check": "checkup",
    "Finding": "finding",
    "Outcome": "finding",
    "Report": "finding",
    "Severity": "finding",
    "Span": "finding",
    "Verified": "finding",
}


def __getattr__(name: str) -> Any:
    """Resolve public names on first use, so that importing the package imports no torch."""
    if name == "strategies":
        return import_module(f"{__name__}.strategies")
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
