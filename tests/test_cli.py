"""The command line: exit codes, streams, selectors, suggestions, and no torch."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import click
import pytest
from click.testing import CliRunner

from vaedoctor import __version__, cli, config, isolate
from vaedoctor.config import ConfigError, find_rule, parse_severity, select_rules
from vaedoctor.finding import Finding, Outcome, Report, Severity
from vaedoctor.report import pages


def made(code, name, severity=Severity.ERROR):
    """A rule that exists only here."""
    return SimpleNamespace(
        code=code,
        name=name,
        severity=severity,
        family="sampling",
        own=True,
        summary=f"What {name} is.",
        page=f"What {name} is.\n\n## What it checks\nThings.",
    )


RULES = (
    made("VAE101", "unregistered-layer"),
    made("VAE301", "sample-missing", Severity.WARNING),
    made("VAE302", "sample-not-reparameterized"),
    made("VQ101", "codebook-without-gradient"),
)


@pytest.fixture(autouse=True)
def rules(monkeypatch):
    """Four rules, whatever else is registered."""
    for module in (config, cli):
        monkeypatch.setattr(module, "all_rules", lambda: RULES)


@pytest.fixture
def run():
    def run(*words):
        return CliRunner().invoke(cli.main, words, prog_name="vaedoctor")

    return run


def finding(severity, code="VAE302"):
    bad = Finding("bad", severity=severity, code=code, name="sample-not-reparameterized")
    return Report("m.py:VAE", (Outcome(code, bad.name, "failed", (bad,)),))


def codes(*args):
    return [r.code for r in select_rules(*args)]


@pytest.mark.parametrize(
    ("select", "ignore", "chosen"),
    [
        (None, (), ["VAE101", "VAE301", "VAE302", "VQ101"]),
        (["ALL"], ["VAE3"], ["VAE101", "VQ101"]),
        (["VAE3"], (), ["VAE301", "VAE302"]),
        (["vae3"], ["VAE302"], ["VAE301"]),
        (["VQ"], (), ["VQ101"]),
        (["sample-missing"], (), ["VAE301"]),
        (["sample_missing,VAE101", "VQ101"], (), ["VAE101", "VAE301", "VQ101"]),
        ("VAE302", (), ["VAE302"]),
        ([], (), []),
    ],
)
def test_selectors(select, ignore, chosen):
    assert codes(select, ignore) == chosen


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("VAE303", "`VAE303` selects no rule; did you mean `VAE30"),
        ("sample-mising", "did you mean `sample-missing`?"),
        ("V", "`V` selects no rule (`vaedoctor rules` lists them)"),
        ("nonsense", "`nonsense` selects no rule (`vaedoctor rules` lists them)"),
    ],
)
def test_unknown_selectors_are_errors_with_a_suggestion(word, hint):
    for args in ([word], ()), (None, [word]):
        with pytest.raises(ConfigError) as caught:
            select_rules(*args)
        assert hint in caught.value.message
        assert caught.value.exit_code == 2


def test_severities():
    assert parse_severity("Warning") is Severity.WARNING
    with pytest.raises(ConfigError, match="did you mean `warning`"):
        parse_severity("warn1ng")


def test_a_rule_is_found_by_code_or_name():
    assert find_rule("vae302") is find_rule("sample_not_reparameterized") is RULES[2]
    with pytest.raises(ConfigError, match="did you mean `sample-missing`"):
        find_rule("sample-missin")


@pytest.mark.parametrize(
    ("severity", "fail_on", "code"),
    [("error", "error", 1), ("warning", "error", 0), ("warning", "warning", 1)],
)
def test_exit_code_is_the_reports(run, child, severity, fail_on, code):
    report = finding(Severity(severity))
    child.report = Report(report.target, report.outcomes, fail_on=Severity(fail_on))
    done = run("check", "m.py:VAE", "--fail-on", fail_on)
    assert done.exit_code == code
    assert f"{severity}[VAE302]" in done.stdout
    assert done.stderr == ""
    assert child.request["fail_on"] == fail_on


def test_a_model_that_could_not_run_is_exit_2(run, child):
    child.report = finding(Severity.ERROR, code="VAE002")
    assert run("check", "m.py:VAE").exit_code == 2


def test_no_report_is_exit_2_and_stdout_stays_empty(run, child):
    child.error = isolate.CouldNotRun("no such file", traceback="theirs", next_step="look")
    done = run("check", "m.py:VAE")
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr == "error: no such file\n\ntheirs\n\nnext: look\n"


def test_a_bug_of_ours_is_exit_2_in_one_line(run, child):
    child.error = KeyError("z")
    done = run("check", "m.py:VAE")
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.startswith("error: vaedoctor itself failed: KeyError: 'z'\n")
    assert "Traceback" not in done.stderr
    assert run("check", "m.py:VAE", "--debug").exception is child.error


def test_an_interrupt_is_exit_130(run, child):
    child.error = KeyboardInterrupt()
    done = run("check", "m.py:VAE")
    assert (done.exit_code, done.stdout, done.stderr) == (130, "", "interrupted\n")


@pytest.mark.parametrize(
    "words",
    [
        ["check"],
        ["check", "m.py", "--formt", "json"],
        ["check", "m.py", "--format", "xml"],
        ["check", "m.py", "--select", "VAE999"],
        ["check", "m.py", "--select", "VAE302", "--ignore", "VAE3"],
        ["check", "m.py", "--fail-on", "fatal"],
        ["check", "m.py", "--arg", "d"],
        ["check", "m.py", "--batch-axis", "x"],
        ["check", "m.py", "--timeout", "0"],
        ["explain", "VAE999"],
        ["demo", "VAE999"],
        ["nothing"],
    ],
)
def test_a_wrong_request_is_exit_2_on_stderr(run, child, words):
    done = run(*words)
    assert (done.exit_code, done.stdout) == (2, "")
    assert "rror: " in done.stderr
    assert child.request is None


def test_the_request_is_handed_to_the_child(run, child):
    run(
        *("check", "m.py:VAE", "--select", "VAE3,VQ101", "--select", "VAE101"),
        *("--ignore", "VAE301", "--seed", "7", "--batch-size", "4", "--input", "m.py:batch"),
        *("--arg", "d=16", "--arg", "name=a=b", "--objective", "loss", "--beta", "0.5"),
        *("--condition", "1", "--condition", "mask,2", "--batch-axis", "none"),
        *("--timeout", "9", "--debug", "--checkpoint", "last.pt"),
    )
    assert child.request == {
        "target": "m.py:VAE",
        "args": {"d": "16", "name": "a=b"},
        "input": "m.py:batch",
        "objective": "loss",
        "conditions": [1, "mask", 2],
        "beta": 0.5,
        "batch_axis": None,
        "batch_size": 4,
        "hunt": False,
        "seed": 7,
        "call": {},
        "checkpoint": "last.pt",
        "exec": False,
        "severity": {},
        "select": ("VAE3", "VQ101", "VAE101"),
        "ignore": ("VAE301",),
        "fail_on": "error",
    }
    assert child.options == {"timeout": 9.0, "debug": True}


def test_the_defaults_of_the_request(run, child):
    run("check", "m.py:VAE")
    assert json.loads(json.dumps(child.request)) == {
        "target": "m.py:VAE",
        "args": {},
        "input": None,
        "objective": None,
        "conditions": [],
        "beta": None,
        "batch_axis": 0,
        "batch_size": None,
        "hunt": False,
        "seed": 0,
        "call": {},
        "checkpoint": None,
        "exec": False,
        "severity": {},
        "select": None,
        "ignore": [],
        "fail_on": "error",
    }
    assert child.options["timeout"] == 120


@pytest.fixture
def configured(tmp_path, monkeypatch):
    """A working folder whose pyproject.toml lists one target."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pyproject.toml").write_text(
        '[tool.vaedoctor]\nseed = 5\nfail-on = "note"\ntimeout = 7\n'
        '[[tool.vaedoctor.targets]]\nmodel = "m.py:VAE"\nargs = { d = 2 }\nbeta = 4\n'
    )
    return tmp_path


def test_a_listed_target_takes_its_settings_and_the_command_line_goes_first(run, child, configured):
    assert run("check", "m.py:VAE", "--seed", "0", "--arg", "k=3").exit_code == 0
    asked = child.request
    assert (asked["args"], asked["beta"], asked["folder"]) == (
        {"d": "2", "k": "3"},
        4,
        str(configured),
    )
    assert (asked["seed"], asked["fail_on"], child.options["timeout"]) == (0, "note", 7)
    run("check", "other.py:VAE")
    assert (child.request["args"], child.request["seed"]) == ({}, 5)


def test_isolated_and_config_choose_the_configuration(run, child, configured):
    run("check", "m.py:VAE", "--isolated")
    assert (child.request["args"], child.request["seed"]) == ({}, 0)
    (configured / "other.toml").write_text("[tool.vaedoctor]\nseed = 9\n")
    run("check", "m.py:VAE", "--config", "other.toml")
    assert (child.request["args"], child.request["seed"]) == ({}, 9)


def test_a_wrong_configuration_is_exit_2_with_its_line(run, child, configured):
    (configured / "pyproject.toml").write_text("[tool.vaedoctor]\nfail_on = 'note'\n")
    done = run("check", "m.py:VAE")
    assert (done.exit_code, done.stdout, child.request) == (2, "", None)
    assert "pyproject.toml:2: `[tool.vaedoctor]` has no key `fail_on`" in done.stderr
    assert run("check", "m.py:VAE", "--isolated").exit_code == 0


def test_json_is_the_report_and_nothing_else(run, child):
    child.report = finding(Severity.ERROR)
    done = run("check", "m.py:VAE", "--format", "json")
    assert Report.from_json(done.stdout) == Report.from_json(child.report.to_json())
    assert done.exit_code == 1


def test_colour_only_for_terminals_unless_asked(run, child):
    assert "\x1b[" not in run("check", "m.py:VAE").stdout
    child.report = finding(Severity.ERROR)
    assert "\x1b[1;31m" in run("check", "m.py:VAE", "--color", "always").stdout_bytes.decode()
    assert "\x1b[" not in run("check", "m.py:VAE", "--color", "never").stdout


def test_quiet_and_verbose_reach_the_text(run, child):
    outcomes = (Outcome("VAE101", "unregistered-layer", "passed"),)
    child.report = Report("m.py:VAE", outcomes)
    assert run("check", "m.py", "-q").stdout == "no problems found · 1 rule in 0.0 s\n"
    assert "passed:\n  VAE101 unregistered-layer\n" in run("check", "m.py", "-v").stdout


def test_demo_checks_the_fixture_of_the_rule(run, child, tmp_path, monkeypatch):
    (tmp_path / "sampling").mkdir()
    file = tmp_path / "sampling" / "sample_missing.py"
    file.write_text("class Broken: ...\ndef batch(): ...\ndef objective(): ...\n")
    monkeypatch.setattr("vaedoctor.demo._FOLDERS", (tmp_path,))
    assert run("demo", "VAE301", "--seed", "2").exit_code == 0
    assert child.request["target"] == f"{file}:Broken"
    assert child.request["input"] == f"{file}:batch"
    assert child.request["objective"] == "objective"
    assert child.request["seed"] == 2
    assert run("demo", "VAE302").exit_code == 2


def test_rules_are_listed_by_family(run):
    assert run("rules").stdout == (
        "sampling\n"
        "  VAE101  error    unregistered-layer          What unregistered-layer is.\n"
        "  VAE301  warning  sample-missing              What sample-missing is.\n"
        "  VAE302  error    sample-not-reparameterized  What sample-not-reparameterized is.\n"
        "  VQ101   error    codebook-without-gradient   What codebook-without-gradient is.\n"
        "\n"
        "rules: 4; `vaedoctor explain CODE` tells more\n"
    )
    listed = json.loads(run("rules", "--json").stdout)
    assert [r["code"] for r in listed] == [r.code for r in RULES]
    assert set(listed[0]) == {"code", "name", "severity", "family", "summary", "page"}


def test_rules_write_their_pages_and_remove_old_ones(run, tmp_path):
    folder = tmp_path / "docs" / "rules"
    folder.mkdir(parents=True)
    (folder / "VAE999.md").write_text("gone")
    (folder / "notes.md").write_text("kept")
    assert run("rules", "--markdown", str(folder)).stdout == ""
    names = {"README.md", "notes.md", *(f"{r.code}.md" for r in RULES)}
    assert {p.name for p in folder.iterdir()} == names
    assert (
        "| [VAE302](VAE302.md) | sample-not-reparameterized |" in (folder / "README.md").read_text()
    )
    assert "# VAE302 sample-not-reparameterized" in (folder / "VAE302.md").read_text()


def test_a_page_shows_the_example():
    text = pages.page(RULES[0], example="class Broken:\n    pass\n")
    assert text.endswith("## Example\n\n```python\nclass Broken:\n    pass\n```\n")


def test_explain_shows_the_page_by_code_or_name(run):
    text = run("explain", "VAE302").stdout
    assert "VAE302 sample-not-reparameterized" in text
    assert "What it checks" in text
    assert "\x1b" not in text
    assert run("explain", "sample-not-reparameterized").stdout == text
    assert json.loads(run("explain", "VAE302", "--json").stdout)["code"] == "VAE302"


def test_explain_suggests_the_right_word(run):
    done = run("explain", "sample-not-reparametrized")
    assert "did you mean `sample-not-reparameterized`?" in done.stderr


def test_help_says_that_it_executes_code(run):
    assert "executes the code" in run("--help").stdout
    assert "EXECUTES" in run("check", "-h").stdout


@pytest.fixture
def process():
    """`vaedoctor` as a real process: no rule is replaced."""

    def process(*words, **env):
        return subprocess.run(
            [sys.executable, "-m", "vaedoctor", *words],
            capture_output=True,
            env={**os.environ, **env},
            cwd=Path(__file__).parents[1],
            timeout=60,
        )

    return process


def test_version_names_torch_and_python(process):
    done = process("--version", PYTHONUTF8="1")
    text = done.stdout.decode()
    assert text.startswith(f"vaedoctor {__version__} · torch ")
    assert text.endswith(f"Python {'.'.join(map(str, sys.version_info[:3]))}\n")


def test_ascii_terminals_get_ascii(process):
    done = process("explain", "VAE001", PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert done.stdout.isascii()
    assert b"VAE001 unused-suppression" in done.stdout
    done = process("--version", PYTHONIOENCODING="ascii")
    assert done.returncode == 0
    assert done.stdout.isascii()


@pytest.mark.parametrize("words", [["--help"], ["rules"], ["explain", "VAE001"]])
def test_what_needs_no_model_imports_nothing_heavy(words):
    command = [sys.executable, "-X", "importtime", "-m", "vaedoctor", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    modules = {
        line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()
    }
    assert "vaedoctor" in modules
    assert not modules & {"torch", "numpy", "hypothesis", "pytest", "jinja2", "tensorboard"}


def test_settings_are_plain():
    assert config.Settings() == config.Settings(None, (), Severity.ERROR, 0)
    assert issubclass(ConfigError, click.ClickException)


def test_anatomy_takes_the_settings_of_a_listed_target(run, child, configured, monkeypatch):
    monkeypatch.setattr("vaedoctor.anatomy.Isolated", isolate.Isolated)
    run("anatomy", "m.py:VAE", "--arg", "k=3")
    assert child.request["args"] == {"d": "2", "k": "3"}
    assert child.request["beta"] == 4
    run("anatomy", "m.py:Other")
    assert child.request["args"] == {}
    with (configured / "pyproject.toml").open("a") as file:
        file.write('[[tool.vaedoctor.targets]]\nmodel = "m.py:Second"\n')
    done = run("anatomy", "m.py")
    assert done.exit_code == 2
    assert "`m.py` means 2 listed targets; name one of them" in done.stderr
