"""Fingerprints that outlive edits, and a baseline after which only new findings fail."""

import json
import linecache

import pytest

from vaedoctor.baseline import read_baseline, without_known
from vaedoctor.config import ConfigError
from vaedoctor.finding import Finding, Outcome, Report, Severity
from vaedoctor.fingerprint import fingerprints
from vaedoctor.report.as_text import as_text
from vaedoctor.span import Span

SOURCE = ["class VAE:", "    z = mu.sample()", "    w = 1", "    z = mu.sample()"]


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A repository with one file, which can be rewritten."""
    (tmp_path / ".git").mkdir()
    monkeypatch.chdir(tmp_path)

    def write(lines, name="m.py"):
        (tmp_path / name).write_text("\n".join(lines) + "\n")
        linecache.checkcache()
        return str(tmp_path / name)

    return write


def found(file, *lines, code="VAE302", severity=Severity.ERROR, **more):
    return tuple(
        Finding("bad", at=Span(file, n, 5), code=code, name="x", severity=severity, **more)
        for n in lines
    )


def report(*findings):
    codes = sorted({f.code for f in findings})
    by_code = ((code, tuple(f for f in findings if f.code == code)) for code in codes)
    return Report("m.py:VAE", tuple(Outcome(c, "x", "failed", fs) for c, fs in by_code))


def test_lines_that_move_keep_their_fingerprint(project):
    file = project(SOURCE)
    before = fingerprints(found(file, 2, 4))
    project(["import torch", "", *SOURCE])
    assert fingerprints(found(file, 4, 6)) == before
    assert fingerprints(found(file, 6, 4)) == before[::-1]


def test_measured_values_and_words_do_not_count(project):
    file = project(SOURCE)
    assert fingerprints(found(file, 2, measured={"a": 1.0})) == fingerprints(found(file, 2))


def test_rule_file_and_line_count(project):
    file = project(SOURCE)
    other = project(SOURCE, "n.py")
    marks = [
        *fingerprints(found(file, 2, 3, 4)),
        *fingerprints(found(file, 2, code="VAE301")),
        *fingerprints(found(other, 2)),
    ]
    assert len(set(marks)) == 5


def test_fingerprints_are_the_same_on_another_machine(project, tmp_path, monkeypatch):
    here = fingerprints(found(project(SOURCE), 2))
    there = tmp_path / "elsewhere" / "clone"
    (there / ".git").mkdir(parents=True)
    (there / "m.py").write_text("\n".join(SOURCE))
    monkeypatch.chdir(there)
    assert fingerprints(found(str(there / "m.py"), 2)) == here
    packages = [f"/{v}/site-packages/pkg/m.py" for v in ("one", "other")]
    one, other = (fingerprints(found(p, 2)) for p in packages)
    assert one == other


def test_only_new_findings_count(project, tmp_path):
    file = project(SOURCE)
    (tmp_path / "known.json").write_text(report(*found(file, 2)).to_json())
    known = read_baseline(tmp_path / "known.json")
    project(["import torch", *SOURCE])
    same = without_known(report(*found(file, 3)), known)
    assert (same.exit_code, same.findings, len(same.known)) == (0, (), 1)
    assert same.outcomes[0].status == "passed"
    assert "no new problems (1 known)" in as_text(same)
    more = without_known(report(*found(file, 3, 5)), known)
    assert (more.exit_code, [f.at.line for f in more.findings]) == (1, [5])
    assert "1 error (1 known)" in as_text(more)


def test_a_report_made_with_a_baseline_is_a_baseline_for_all(project, tmp_path):
    file = project(SOURCE)
    whole = report(*found(file, 2, 4))
    (tmp_path / "a.json").write_text(report(*found(file, 2)).to_json())
    second = without_known(whole, read_baseline(tmp_path / "a.json"))
    assert Report.from_json(second.to_json()) == second
    (tmp_path / "b.json").write_text(json.dumps({"reports": [json.loads(second.to_json())]}))
    assert without_known(whole, read_baseline(tmp_path / "b.json")).findings == ()


def test_a_model_that_cannot_run_is_never_known(project, tmp_path):
    file = project(SOURCE)
    stopped = report(*found(file, 2, code="VAE002"))
    (tmp_path / "known.json").write_text(stopped.to_json())
    assert without_known(stopped, read_baseline(tmp_path / "known.json")).exit_code == 2


@pytest.mark.parametrize("text", [None, "no json", "[]", "{}", '{"findings": [{}], "known": []}'])
def test_a_file_that_is_no_report_is_refused_with_the_command_that_writes_one(tmp_path, text):
    if text is not None:
        (tmp_path / "b.json").write_text(text)
    with pytest.raises(ConfigError, match=r"--output json=b\.json") as caught:
        read_baseline(tmp_path / "b.json")
    assert caught.value.exit_code == 2
