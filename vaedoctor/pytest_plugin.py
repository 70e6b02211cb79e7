"""The pytest plugin: the fixture `doctor` and the marker `vaedoctor`. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import pytest

from .finding import Report

OPTIONS = frozenset({"select", "ignore", "fail_on"})


class Doctor(Protocol):
    """What the fixture `doctor` is: call it with a model, get a report or a failed test."""

    def __call__(self, model: Any, batch: Any = None, **options: Any) -> Report:
        """Examine the model; options as for `vaedoctor.assert_healthy`."""


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line(
        "markers",
        "vaedoctor(select=..., ignore=..., fail_on=...): what the fixture `doctor` judges",
    )


@pytest.fixture
def doctor(request: pytest.FixtureRequest) -> Doctor:
    """Examine a model and fail the test if something is wrong: `doctor(model, batch)`."""
    marked = _marked(request)

    def examine(model: Any, batch: Any = None, **options: Any) -> Report:
        __tracebackhide__ = True
        # Here and not above: pytest starts without torch in every project.
        from .checkup import assert_healthy

        return assert_healthy(model, batch, **{**marked, **options})

    return examine


def _marked(request: pytest.FixtureRequest) -> Mapping[str, Any]:
    """The options of the markers on the test, its class and its module; the nearest wins."""
    options: dict[str, Any] = {}
    for marker in request.node.iter_markers("vaedoctor"):
        unknown = sorted(set(marker.kwargs) - OPTIONS)
        if unknown or marker.args:
            raise pytest.UsageError(
                f"the marker `vaedoctor` takes {', '.join(sorted(OPTIONS))} by name, "
                f"not {', '.join(unknown) or 'positional arguments'}"
            )
        options = {**marker.kwargs, **options}
    return options
