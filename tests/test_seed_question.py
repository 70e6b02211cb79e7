"""The question this began with: a linear layer after the encoder, right and in every wrong way."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from seed_bugs import BUGS, SEED, Bug

from vaedoctor import Report, Severity
from vaedoctor.checkup import examine_subject
from vaedoctor.subject.target import load

Command = Callable[..., "subprocess.CompletedProcess[str]"]


def examined(file: Path, source: str) -> Report:
    file.write_text(source)
    with contextlib.redirect_stdout(io.StringIO()):
        return examine_subject(load(str(file)))


def marked(source: str) -> int:
    (line,) = (n for n, text in enumerate(source.splitlines(), start=1) if "#!" in text)
    return line


@pytest.fixture
def command(tmp_path: Path) -> Command:
    """The real command, on a file `vae.py` of the given source."""

    def run(source: str, *words: str, target: str = "vae.py") -> subprocess.CompletedProcess[str]:
        (tmp_path / "vae.py").write_text(source)
        line = [sys.executable, "-m", "vaedoctor", "check", target, *words]
        home = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
        return subprocess.run(
            line, cwd=tmp_path, env=home, capture_output=True, text=True, check=False, timeout=120
        )

    return run


@pytest.mark.parametrize("loss", [False, True], ids=["plain", "with-loss"])
@pytest.mark.parametrize("bug", BUGS, ids=lambda b: f"{b.code}-{b.name}")
def test_one_bug_is_one_finding_at_its_line(bug: Bug, loss: bool, tmp_path: Path) -> None:
    source = bug.source(loss=loss)
    report = examined(tmp_path / "vae.py", source)
    found = [
        (f.code, f.severity, f.at.line if f.at else 0)
        for f in report.findings
        if f.severity is not Severity.NOTE
    ]
    assert found == [(bug.code, bug.severity, marked(source))], f"\n{report}"
    assert report.exit_code == (1 if bug.severity is Severity.ERROR else 0)
    assert not [o for o in report.outcomes if o.status == "crashed"]


@pytest.mark.parametrize("loss", [False, True], ids=["plain", "with-loss"])
def test_the_answer_itself_is_healthy(loss: bool, tmp_path: Path) -> None:
    source = Bug("", "", ()).source(loss=loss)
    report = examined(tmp_path / "vae.py", source)
    assert not report.findings
    assert report.exit_code == 0
    assert report.picture is not None
    parts = [(p.role, p.name, p.shape) for p in report.picture.parts]
    assert parts == [
        ("x", "", (16, 784)),
        ("encoder", "encoder.linear1", (16, 256)),
        ("location", "encoder.linear_mu", (16, 32)),
        ("scale", "encoder.linear_logvar", (16, 32)),
        ("sample", "z", (16, 32)),
        ("layer", "latent_layer", (16, 128)),
        ("layer", "decoder", (16, 784)),
        ("x_hat", "reconstructed", (16, 784)),
    ]


def test_the_command_on_the_answer(command: Command) -> None:
    done = command(Bug("", "", ()).source(loss=False))
    assert done.returncode == 0, done.stderr
    assert "error[" not in done.stdout
    for part in ("location  `encoder.linear_mu`", "sample    `z`", "16×128"):
        assert part in done.stdout


@pytest.mark.parametrize(
    ("code", "name", "options", "status"),
    [
        ("VAE302", "sample", (), 1),
        ("VAE305", "row-of-one", (), 0),
        ("VAE305", "row-of-one", ("--fail-on", "warning"), 1),
    ],
)
def test_the_command_on_a_bug(
    command: Command, code: str, name: str, options: tuple[str, ...], status: int
) -> None:
    (bug,) = (b for b in BUGS if (b.code, b.name) == (code, name))
    source = bug.source(loss=True)
    done = command(source, *options)
    assert done.returncode == status, done.stderr
    assert done.stdout.count(f"[{code}]") == 1
    assert f"--> vae.py:{marked(source)}:" in done.stdout


FORWARD = "      mu, logvar = self.encoder(x)\n"
UNRUNNABLE = {
    "raises": (f"{FORWARD}      mu = self.scaled(mu)\n", "AttributeError", "self.scaled(mu)"),
    "exits": ("      import sys; sys.exit(4)\n", "SystemExit", "sys.exit(4)"),
    "hangs": ("      while True: pass\n", "no result after 12 s", "look for a loop"),
    "crashes": ("      import ctypes; ctypes.string_at(0)\n", "SIGSEGV", "next: "),
}


@pytest.mark.parametrize(("lines", "reason", "shown"), UNRUNNABLE.values(), ids=UNRUNNABLE.keys())
def test_what_cannot_run_is_exit_2_on_one_screen(
    command: Command, lines: str, reason: str, shown: str
) -> None:
    source = SEED.replace(FORWARD, lines, 1)
    done = command(source, "--timeout", "12" if "while True" in lines else "120")
    told = done.stdout + done.stderr
    assert done.returncode == 2, told
    assert reason in told
    assert shown in told
    line = source[: source.index(lines)].count("\n") + lines.count("\n")
    assert f'vae.py", line {line}, in forward' in told
    assert "isolate.py" not in told
    assert "next: " in told
    assert told.count("\n") < 50


def test_a_file_that_is_not_there_and_a_misspelt_name(command: Command) -> None:
    for target, meant in (("vea.py", "vae.py"), ("vae.py:VEA", "VAE")):
        done = command(SEED, target=target)
        assert (done.returncode, done.stdout) == (2, "")
        assert f"did you mean `{meant}`?" in done.stderr
        assert "next: vaedoctor check vae.py" in done.stderr


def test_a_constructor_whose_arguments_cannot_be_guessed(command: Command) -> None:
    source = SEED[: SEED.index("\n#example usage")].replace(
        "def __init__(self, input_dim, hidden_dim, latent_dim, linear_output_dim):",
        "def __init__(self, backbone):\n        input_dim = backbone.tokens.size_of('x')['n']",
    )
    done = command(source, target="vae.py:VAE")
    assert (done.returncode, done.stdout) == (2, ""), done.stdout
    assert "`backbone`" in done.stderr
    assert "next: vaedoctor check vae.py:VAE --arg backbone=VALUE" in done.stderr


def test_prints_of_the_model_stay_out_of_the_report(command: Command) -> None:
    done = command(SEED.replace(FORWARD, f"{FORWARD}      print('loud')\n"), "--format", "json")
    assert done.returncode == 0
    assert json.loads(done.stdout)["ok"] is True
    assert "loud" in done.stderr
