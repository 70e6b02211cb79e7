"""The command line goes before the configuration, and that before the defaults."""

import os
from pathlib import Path

import pytest

from vaedoctor.agenda import requests, settings, timeout
from vaedoctor.config import ConfigError, Settings, severities
from vaedoctor.finding import Severity
from vaedoctor.project import Project, Target

FIRST = Target("a.py:A", args={"d": 2, "k": 3}, batch="data.py:one", beta=4.0, batch_axis=None)


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return Project(tmp_path / "pyproject.toml", (FIRST, Target("b.py:B")))


def targets(*words, **given):
    return requests(*words, given)


def test_without_words_all_that_are_listed_are_examined(project, tmp_path):
    first, second = targets((), project)
    assert first == {
        "target": "a.py:A",
        "args": {"d": "2", "k": "3"},
        "input": "data.py:one",
        "objective": None,
        "conditions": [],
        "beta": 4.0,
        "batch_size": None,
        "batch_axis": None,
        "call": {},
        "checkpoint": None,
        "exec": False,
        "hunt": False,
        "folder": str(tmp_path),
    }
    assert second["target"] == "b.py:B"


def test_what_is_typed_goes_first_and_an_argument_replaces_only_itself(project):
    (found,) = targets(["a.py"], project, args={"d": "9"}, beta=1.0, hunt=True)
    assert found["args"] == {"d": "9", "k": "3"}
    assert (found["beta"], found["hunt"], found["batch_axis"]) == (1.0, True, None)


def test_a_target_that_is_not_listed_takes_no_settings(project):
    (found,) = targets(["c.py:C"], project)
    assert (found["target"], found["input"], found["batch_axis"]) == ("c.py:C", None, 0)
    assert "folder" not in found
    assert [r["target"] for r in targets(["c.py", "b.py"], project)] == ["c.py", "b.py:B"]


def test_paths_that_are_typed_begin_here(project, tmp_path, monkeypatch):
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "d.py").write_text("")
    monkeypatch.chdir(tmp_path / "inner")
    given = {"input": "d.py:two", "checkpoint": "d.py"}
    (found,) = targets([f"..{os.sep}a.py:A"], project, **given)
    assert found["input"] == f"{tmp_path / 'inner' / 'd.py'}:two"
    assert found["checkpoint"] == str(tmp_path / "inner" / "d.py")
    (found,) = targets([f"..{os.sep}a.py:A"], project, input="8x784")
    assert found["input"] == "8x784"


def test_nothing_to_examine_is_refused_with_a_next_step():
    with pytest.raises(ConfigError, match=r"there is no configuration: name one.*vaedoctor init"):
        requests((), Project(), {})
    with pytest.raises(ConfigError, match=r"`pyproject.toml` lists none"):
        requests((), Project(Path("pyproject.toml")), {})


def test_the_defaults():
    assert settings(Project(), {}) == Settings()
    assert timeout(Project(), {}) == 120
    assert timeout(Project(timeout=3.0), {}) == 3
    assert timeout(Project(timeout=3.0), {"timeout": 9.0}) == 9


CONFIGURED = Project(
    select=("VAE3", "VAE6"),
    ignore=("VAE301",),
    severity={"VAE303": "ignore", "VAE6": "note", "VAE601": "error"},
    fail_on=Severity.WARNING,
    seed=7,
)


def test_the_configuration_goes_before_the_defaults():
    assert settings(CONFIGURED, {}) == Settings(
        ("VAE3", "VAE6"),
        ("VAE301", "VAE303"),
        Severity.WARNING,
        7,
        {"VAE6": "note", "VAE601": "error"},
    )


def test_the_command_line_goes_before_the_configuration():
    found = settings(CONFIGURED, {"fail_on": "note", "seed": 0, "ignore": ("VAE302",)})
    assert (found.fail_on, found.seed) == (Severity.NOTE, 0)
    assert found.ignore == ("VAE302", "VAE301", "VAE303")


def test_a_typed_selection_starts_afresh():
    found = settings(CONFIGURED, {"select": ("VAE303",)})
    assert (found.select, found.ignore) == (("VAE303",), ())


def test_no_rule_left_is_refused():
    with pytest.raises(ConfigError, match="no rule is left"):
        settings(Project(severity={"ALL": "ignore"}), {})


def test_the_more_specific_selector_gives_the_severity():
    found = severities(CONFIGURED.severity | {"VAE303": "note"})
    assert (found["VAE601"], found["VAE603"]) == (Severity.ERROR, Severity.NOTE)
    assert "VAE301" not in found
