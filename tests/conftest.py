"""One thread, fixed seeds, one Hypothesis profile."""

from __future__ import annotations

import random
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings

torch.set_num_threads(1)

pytest_plugins = ["pytester"]

settings.register_profile(
    "ci",
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("ci")


@pytest.fixture(autouse=True)
def _seeded() -> None:
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture
def child(monkeypatch):
    """Instead of a child process: `child.report` or `child.error` comes back; counts its starts."""
    from vaedoctor import isolate
    from vaedoctor.finding import Report

    state = SimpleNamespace(
        report=Report("m.py:VAE"), error=None, request=None, options=None, started=0
    )

    class Stub:
        def __init__(self, request, **options):
            state.request, state.options = request, options
            state.started += 1

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def report(self):
            if state.error is not None:
                raise state.error
            return state.report

    monkeypatch.setattr(isolate, "Isolated", Stub)
    return state


@pytest.fixture
def folder_of_children(tmp_path, monkeypatch):
    """Makes the working folder of children that begin with `stub`; no temporary file is left."""

    def make(stub: str) -> Path:
        (tmp_path / "stub").mkdir()
        (tmp_path / "stub" / "sitecustomize.py").write_text(stub)
        monkeypatch.setenv("PYTHONPATH", str(tmp_path / "stub"))
        (tmp_path / "temporary").mkdir()
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
        (tmp_path / "work").mkdir()
        monkeypatch.chdir(tmp_path / "work")
        return tmp_path / "work"

    yield make
    assert not list((tmp_path / "temporary").iterdir())
