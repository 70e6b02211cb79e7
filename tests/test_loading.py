"""Scripts as people write them are examined without an option, and do nothing while they load."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

from vaedoctor.subject.target import load

TARGETS = Path(__file__).parent / "targets"
SCRIPTS = sorted(p.name for p in TARGETS.iterdir() if p.suffix in (".py", ".ipynb"))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the scripts, as the working folder."""
    shutil.copytree(TARGETS, tmp_path / "work")
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


def everything(folder: Path) -> dict[str, float]:
    return {str(p.relative_to(folder)): p.stat().st_mtime for p in folder.rglob("*")}


def state() -> tuple[object, ...]:
    modules = {n for n in sys.modules if "__vaedoctor" not in n}
    mine = [str(getattr(sys.modules[n], "__file__", "")) for n in modules]
    return (
        [m for m in mine if "targets" in m or ("/work/" in m and "pytest" in m)],
        os.getcwd(),
        dict(os.environ),
        list(sys.argv),
        list(sys.path),
        list(sys.meta_path),
        sys.dont_write_bytecode,
    )


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_is_examined_with_no_option_and_leaves_nothing(folder: Path, script: str) -> None:
    before, process = everything(folder), state()
    subject = load(script)
    assert subject.batch.ran
    assert everything(folder) == before
    assert state() == process
    assert not {"torchvision", "wandb", "sacred", "hydra"} & set(sys.modules)
