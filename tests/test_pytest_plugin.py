"""The fixture `doctor` and the marker `vaedoctor`, in real pytest runs."""

import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType

import pytest

pytest_plugins = ["pytester"]

INSTALLED = any(e.name == "vaedoctor" for e in entry_points(group="pytest11"))
PLUGIN = () if INSTALLED else ("-p", "vaedoctor.pytest_plugin")


@pytest.fixture(autouse=True)
def checkup(monkeypatch):
    """A check-up that fails on the model "ill" and remembers how it was called."""
    stub = ModuleType("vaedoctor.checkup")
    stub.calls = []

    def assert_healthy(model, batch=None, **options):
        __tracebackhide__ = True
        stub.calls.append((model, batch, options))
        if model == "ill":
            raise AssertionError("error[VAE302] sample-not-reparameterized")
        return "the report"

    stub.assert_healthy = assert_healthy
    monkeypatch.setitem(sys.modules, "vaedoctor.checkup", stub)
    return stub


def test_healthy_model_passes_and_gives_its_report(pytester, checkup):
    pytester.makepyfile(
        """
        def test_model(doctor):
            assert doctor("well", "batch") == "the report"
        """
    )
    pytester.runpytest_inprocess(*PLUGIN).assert_outcomes(passed=1)
    assert checkup.calls == [("well", "batch", {})]


def test_ill_model_fails_at_the_users_line(pytester):
    pytester.makepyfile(
        """
        def test_model(doctor):
            doctor("ill")
        """
    )
    result = pytester.runpytest_inprocess(*PLUGIN)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(['>*doctor("ill")', "E*error?VAE302?*"])
    result.stdout.no_fnmatch_line("*assert_healthy(*")


def test_marker_sets_options_and_the_nearest_wins(pytester, checkup):
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.vaedoctor(select=["VAE3"], fail_on="warning")
        class TestModel:
            @pytest.mark.vaedoctor(select=["VAE1"])
            def test_model(self, doctor):
                doctor("well", ignore=["VAE109"])
        """
    )
    pytester.runpytest_inprocess("--strict-markers", *PLUGIN).assert_outcomes(passed=1)
    options = {"select": ["VAE1"], "fail_on": "warning", "ignore": ["VAE109"]}
    assert checkup.calls == [("well", None, options)]


@pytest.mark.parametrize("marker", ["selct=['VAE3']", "'VAE3'"])
def test_marker_with_a_wrong_option_is_an_error(pytester, marker):
    pytester.makepyfile(
        f"""
        import pytest

        @pytest.mark.vaedoctor({marker})
        def test_model(doctor):
            doctor("well")
        """
    )
    result = pytester.runpytest_inprocess(*PLUGIN)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*the marker `vaedoctor` takes fail_on, ignore, select by name*"])


def test_the_plugin_leaves_torch_unloaded():
    code = "import sys, vaedoctor.pytest_plugin; print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[1],
    )
    assert done.stdout == "False\n"
