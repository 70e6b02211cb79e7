"""The pytest plugin: `--vaedoctor`, the fixture `doctor`, the marker.

It is loaded in every run of every project that has vaedoctor installed: nothing else of ours is,
until it is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pytest

if TYPE_CHECKING:
    from .finding import Report
    from .pytest_gate import Gate

if TYPE_CHECKING:
    pass

OPTIONS = frozenset({"select", "ignore", "fail_on"})

_GATE: pytest.StashKey[Gate] = pytest.StashKey()


class Doctor(Protocol):
    """What the fixture `doctor` is: call it with a model, get a report or a failed test."""

    def __call__(self, model: Any, batch: Any = None, **options: Any) -> Report:
        """Examine the model; options as for `vaedoctor.assert_healthy`."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options and the ini keys."""
    group = parser.getgroup("vaedoctor", "examination of variational autoencoders")
    group.addoption(
        "--vaedoctor",
        action="store_true",
        help="collect the targets of [tool.vaedoctor], one item for each rule",
    )
    group.addoption("--vaedoctor-html", metavar="PATH", help="write what was examined as one page")
    parser.addini("vaedoctor", "as --vaedoctor", type="bool", default=False)
    parser.addini("vaedoctor_html", "as --vaedoctor-html, from the root folder")
    parser.addini("vaedoctor_select", "rules to judge", type="args")
    parser.addini("vaedoctor_ignore", "rules to leave out", type="args")
    parser.addini("vaedoctor_fail_on", "the weakest finding that fails: note, warning or error")


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known; load the rest only for who asks for it."""
    config.addinivalue_line(
        "markers",
        "vaedoctor(select=..., ignore=..., fail_on=...): what the fixture `doctor` judges",
    )
    collects = config.getoption("vaedoctor") or config.getini("vaedoctor")
    html = _html(config)
    if collects or html is not None:
        from .pytest_gate import Gate

        gate = config.stash[_GATE] = Gate(config, _ini(config), collects=collects, html=html)
        config.pluginmanager.register(gate, "vaedoctor-gate")


@pytest.fixture
def doctor(request: pytest.FixtureRequest) -> Doctor:
    """Examine a model and fail the test if something is wrong: `doctor(model, batch)`."""
    marked = {**_ini(request.config), **_marked(request)}
    gate = request.config.stash.get(_GATE, None)

    def examine(model: Any, batch: Any = None, **options: Any) -> Report:
        __tracebackhide__ = True
        # Here and not above: pytest starts without torch in every project.
        from .checkup import assert_healthy

        try:
            report = assert_healthy(model, batch, **{**marked, **options})
        except AssertionError as unhealthy:
            found: Report | None = getattr(unhealthy, "report", None)
            if gate is not None and found is not None:
                gate.keep(found)
            raise
        if gate is not None:
            gate.keep(report)
        return report

    return examine


def _html(config: pytest.Config) -> Path | None:
    typed, listed = config.getoption("vaedoctor_html"), config.getini("vaedoctor_html")
    if typed:
        return Path(config.invocation_params.dir, typed)
    return Path(config.rootpath, listed) if listed else None


def _ini(config: pytest.Config) -> dict[str, Any]:
    """What the ini file says about what is judged."""
    return {key: said for key in OPTIONS if (said := config.getini(f"vaedoctor_{key}"))}


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
