"""Where reports go: refused before the examination starts, written all at once, fed by one run."""

import json
import os
import stat
from pathlib import Path

import pytest
from click.testing import CliRunner
from reports import ordinary

from vaedoctor import cli, isolate, output
from vaedoctor.output import replace_file


@pytest.fixture
def child(child, monkeypatch, tmp_path):
    """Instead of a child process: an ordinary report, or `child.error`."""
    monkeypatch.chdir(tmp_path)
    child.report = ordinary(tmp_path)
    return child


def run(*words):
    return CliRunner().invoke(cli.main, ["check", "mymodel.py:VAE", *words], prog_name="vaedoctor")


def test_one_examination_feeds_every_format(child, tmp_path):
    wanted = [f"--output={form}={tmp_path / form}.out" for form in output.FORMATS]
    done = run(*wanted, "--format", "concise")
    assert (done.exit_code, child.started) == (1, 1)
    for form in output.FORMATS:
        assert "cuts the gradient" in (tmp_path / f"{form}.out").read_text(encoding="utf-8")
    assert (tmp_path / "concise.out").read_text() == done.stdout
    assert json.loads((tmp_path / "json.out").read_text())["exit_code"] == 1


@pytest.mark.parametrize("form", output.FORMATS)
def test_every_format_goes_to_stdout_alone(child, form):
    done = run("--format", form)
    assert "cuts the gradient" in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("sarif", "is not FORMAT=PATH"),
        ("json=", "is not FORMAT=PATH"),
        ("xml=report.xml", "`xml` is no format"),
        ("sarfi=report.sarif", "did you mean `sarif`?"),
        ("json=.", "`.` is a folder; name a file in it"),
        ("json=no/report.json", "does not exist; make it first"),
        ("json=mymodel.py/report.json", "does not exist; make it first"),
        ("json=" + "x" * 300, "cannot be written: File name too long"),
    ],
)
def test_what_cannot_be_written_is_said_before_the_examination(child, word, says):
    done = run("--output", word)
    assert (done.exit_code, child.started, done.stdout) == (2, 0, "")
    assert says in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_two_formats_in_one_file_are_refused(child):
    done = run("--output", "json=a", "--output", "sarif=./a")
    assert (done.exit_code, child.started) == (2, 0)
    assert "another format goes to the same file" in done.stderr


def test_asking_leaves_nothing_behind(child, tmp_path):
    before = sorted(p.name for p in tmp_path.iterdir())
    run("--output", "json=new.json", "--output", "sarif=no/x")
    assert sorted(p.name for p in tmp_path.iterdir()) == before


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_is_refused(child, tmp_path):
    (tmp_path / "locked").mkdir(mode=0o500)
    done = run("--output", "json=locked/report.json")
    assert (done.exit_code, child.started) == (2, 0)
    assert "cannot be written: Permission denied" in done.stderr


def test_a_file_is_replaced_at_once_and_keeps_its_mode(tmp_path):
    file = tmp_path / "report.json"
    file.write_text("old")
    file.chmod(0o640)
    link = tmp_path / "link.json"
    link.symlink_to(file)
    reader = file.open()
    replace_file(link, "new")
    assert reader.read() == "old"
    reader.close()
    assert (file.read_text(), link.is_symlink()) == ("new", True)
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    assert sorted(p.name for p in tmp_path.iterdir()) == ["link.json", "report.json"]


def test_a_device_is_written_and_not_replaced(child):
    assert run("--output", f"json={os.devnull}").exit_code == 1
    assert not os.path.isfile(os.devnull)


@pytest.mark.skipif(not os.path.exists("/dev/fd"), reason="no file descriptors as files")
def test_a_file_behind_a_descriptor_keeps_what_it_held(child, tmp_path):
    with (tmp_path / "log").open("w+") as log:
        replace_file(Path(f"/dev/fd/{log.fileno()}"), "report\n")
        assert os.fstat(log.fileno()).st_nlink == 1


def test_a_target_that_stops_still_feeds_the_machines(child, tmp_path):
    child.error = isolate.CouldNotRun("no such file", traceback="theirs", next_step="look")
    done = run("--output", "junit=out.xml", "--output", "sarif=out.sarif")
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr == "error: no such file\n\ntheirs\n\nnext: look\n"
    assert "could not be examined: no such file" in (tmp_path / "out.xml").read_text()
    (said,) = json.loads((tmp_path / "out.sarif").read_text())["runs"]
    assert said["invocations"][0]["executionSuccessful"] is False
    done = run("--format", "json")
    assert json.loads(done.stdout)["stop"]["message"] == "no such file"
    assert done.exit_code == 2


def test_exit_zero_forgives_findings_but_not_a_stop(child):
    assert run("--exit-zero").exit_code == 0
    child.error = isolate.CouldNotRun("no such file")
    assert run("--exit-zero").exit_code == 2


def test_the_summary_is_appended_where_github_wants_it(child, tmp_path, monkeypatch):
    summary = tmp_path / "summary.md"
    summary.write_text("before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    assert run("--github-summary").exit_code == 1
    assert summary.read_text(encoding="utf-8").startswith("before\n## ❌ mymodel.py:VAE\n")
    monkeypatch.delenv("GITHUB_STEP_SUMMARY")
    done = run("--github-summary")
    assert (done.exit_code, child.started) == (2, 1)
    assert "GITHUB_STEP_SUMMARY" in done.stderr


def test_statistics_are_shown_when_asked(child):
    assert "    1  VAE302  sample-not-reparameterized\n" in run("--statistics").stdout
    assert "    1  VAE302" not in run().stdout
