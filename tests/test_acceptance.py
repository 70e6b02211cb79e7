"""What users of a checker expect, point by point, on real processes and real models."""

import ast
import io
import json
import os
import pty
import re
import subprocess
import sys
import threading
from pathlib import Path
from xml.etree import ElementTree

import pytest
import sarif_pydantic
import torch
from markdown_it import MarkdownIt
from repository import PLUGIN
from test_formats import Page, github_requires
from test_house import RULES, page_faults, sources, word_faults
from test_leaves_no_trace import RaisesInBackward, RaisesInForward
from test_pytest_gate import QUICK
from torch import nn
from traces import differences, photograph

import vaedoctor
from vaedoctor.demo import example
from vaedoctor.report.pages import write_pages
from vaedoctor.rule import Rule

ROOT = Path(__file__).parents[1]
SAMPLING = ROOT / "fixtures" / "sampling"
FIXTURES = ("sample_not_reparameterized", "scale_misread")

NOISY = """
import os, sys
import torch
from torch import nn
from torch.distributions import Normal

print("{ loud on import")


class VAE(nn.Module):
    def __init__(self):
        super().__init__()
        print("loud in the constructor")
        self.encoder, self.mu, self.logvar = nn.Linear(12, 7), nn.Linear(7, 3), nn.Linear(7, 3)
        self.extra, self.decoder = nn.Linear(3, 3), nn.Linear(3, 12)

    def forward(self, x):
        print("loud in forward")
        os.system("echo loud from below")
        h = torch.relu(self.encoder(x))
        mu, logvar = self.mu(h), self.logvar(h)
        z = Normal(mu, torch.exp(0.5 * logvar)).sample()
        return self.decoder(z), mu, logvar


class Sized(nn.Module):
    def __init__(self, vocabulary):
        super().__init__()
        self.mu = nn.Linear(vocabulary["size"].value, 3)


class Raising(nn.Module):
    def __init__(self):
        raise RuntimeError("no weights here")


class Refusing(VAE):
    def forward(self, x):
        raise ValueError("not today")
"""


def run(*words, cwd=ROOT, **env):
    """`python -m ...` with its output as text."""
    return subprocess.run(
        [sys.executable, "-m", *words],
        cwd=cwd,
        capture_output=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUTF8": "1", "COLUMNS": "80", **env},
        encoding="utf-8",
        errors="surrogateescape",
        timeout=200,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("acceptance")
    (folder / "mymodel.py").write_text(NOISY)
    return folder


@pytest.fixture(scope="module")
def everything(folder):
    """One examination of the noisy model, in every format."""
    forms = ("concise", "html", "sarif", "markdown", "github", "junit", "text")
    outputs = [word for form in forms for word in ("--output", f"{form}=out.{form}")]
    done = run("vaedoctor", "check", "mymodel.py:VAE", "--format", "json", *outputs, cwd=folder)
    assert done.returncode == 1
    assert "loud in forward" in done.stderr
    assert "loud from below" in done.stderr
    texts = {form: (folder / f"out.{form}").read_text(encoding="utf-8") for form in forms}
    return {"json": done.stdout, **texts}


@pytest.mark.parametrize("name", FIXTURES)
def test_01_the_caret_is_under_the_guilty_expression_and_a_healthy_model_is_one_happy_line(name):
    file = SAMPLING / f"{name}.py"
    options = ["--input", f"{file}:batch"] if "def batch(" in file.read_text() else []
    done = run("vaedoctor", "check", f"{file}:Broken", *options)
    assert done.returncode == 1
    place = re.search(rf"--> \S*{name}\.py:(\d+):(\d+)\n", done.stdout)
    line, column = map(int, place.groups())
    lines = file.read_text(encoding="utf-8").splitlines()
    assert "# expect: " in lines[line - 1]
    shown, carets = re.search(r"\n *\d+ \| (.*)\n *\| ( *\^+)\n", done.stdout).groups()
    guilty = shown[carets.index("^") : len(carets)]
    assert lines[line - 1][column - 1 :].startswith(guilty)
    ast.parse(guilty)

    done = run("vaedoctor", "check", "-q", f"{file}:Healthy", *options)
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) == 1
    assert done.stdout.startswith("no problems found")


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("nope.py:VAE", "`nope.py` does not exist"),
        ("mymodel.py:VAA", "did you mean `VAE`?"),
        ("mymodel.py:Sized", "Sized"),
        ("mymodel.py:Raising", "RuntimeError: no weights here"),
        ("mymodel.py:Refusing", "ValueError: not today"),
    ],
)
def test_02_what_cannot_run_is_exit_2_one_screen_a_next_step_and_none_of_our_frames(
    folder, target, said
):
    done = run("vaedoctor", "check", "-q", target, cwd=folder)
    told = done.stdout + done.stderr.replace("{ loud on import\nloud in the constructor\n", "")
    assert done.returncode == 2
    assert said in told
    assert len(told.splitlines()) <= 24
    assert re.search(r"^next: |= help: ", told, re.MULTILINE)
    assert str(ROOT / "vaedoctor") not in told


def test_03_the_same_findings_in_the_same_order_even_when_the_model_prints(everything):
    findings = json.loads(everything["json"])["findings"]
    codes = [f["code"] for f in findings]
    assert len(codes) > 1
    assert "VAE302" in codes
    spoken = {
        "sarif": [r["ruleId"] for r in json.loads(everything["sarif"])["runs"][0]["results"]],
        "concise": re.findall(r"^\S+: (\w+) ", everything["concise"], re.MULTILINE),
        "github": re.findall(r"^::\w+ title=vaedoctor \((\w+)\)", everything["github"], re.M),
        "text": re.findall(r"^\w+\[(\w+)\] ", everything["text"], re.MULTILINE),
        "html": re.findall(r"<article[^>]*>.*?\b(V[AEQ]+\d+)\b", everything["html"], re.DOTALL),
        "markdown": re.findall(r"^\|.*?\b(V[AEQ]+\d{3})\b", everything["markdown"], re.MULTILINE),
    }
    assert {form: said for form, said in spoken.items() if said != codes} == {}
    junit = ElementTree.fromstring(everything["junit"])
    failed = [c for c in junit.iter("testcase") if c.find("failure") is not None]
    errors = {f["code"] for f in findings if f["severity"] == "error"}
    assert {re.search(r"V[AEQ]+\d{3}", c.get("name"))[0] for c in failed} == errors


@pytest.mark.parametrize("words", [["--help"], ["rules"], ["explain", "VAE302"]])
def test_04_what_needs_no_model_answers_without_torch(words):
    script = (
        "import sys; from vaedoctor.cli import main;"
        "main.main(sys.argv[1:], standalone_mode=False);"
        "print(*sorted({'torch', 'numpy', 'hypothesis'} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *words], capture_output=True, text=True, cwd=ROOT
    )
    assert len(done.stdout.splitlines()) > 10
    assert done.stderr.split() == []  # the seconds are in test_cli


def terminal(*words, **env):
    """What a process writes to a terminal."""
    ours, theirs = pty.openpty()
    read = io.BytesIO()

    def drain():
        try:
            while chunk := os.read(ours, 1 << 16):
                read.write(chunk)
        except OSError:  # the other end is closed
            pass

    environ = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "FORCE_COLOR")}
    reader = threading.Thread(target=drain)
    with subprocess.Popen(
        [sys.executable, "-m", *words],
        stdout=theirs,
        stderr=subprocess.DEVNULL,
        env={**environ, "PYTHONPATH": str(ROOT), "TERM": "xterm", **env},
    ) as process:
        os.close(theirs)
        reader.start()
        process.wait(100)
    reader.join()
    os.close(ours)
    return read.getvalue().decode()


def test_05_colour_width_and_characters_follow_the_terminal(everything):
    check = ("vaedoctor", "check", f"{SAMPLING / FIXTURES[0]}.py:Broken")
    assert "\x1b[1;31merror[VAE302]" in terminal(*check)
    assert "\x1b" not in terminal(*check, NO_COLOR="1")
    piped = run(*check)
    assert "\x1b" not in piped.stdout
    source = re.compile(r"^ *\d+ \| ")
    assert all(len(x) <= 80 or source.match(x) for x in piped.stdout.splitlines())
    plain = run(*check, PYTHONUTF8="0", PYTHONIOENCODING="ascii")
    assert plain.returncode == 1
    assert plain.stdout.isascii()


def test_06_pytest_is_left_alone_until_it_is_asked_and_then_tells_everything(folder, tmp_path):
    code = (
        "import sys, pytest; before = set(sys.modules); import vaedoctor.pytest_plugin;"
        "print(*sorted(set(sys.modules) - before))"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert loaded.stdout.split() == ["vaedoctor", "vaedoctor.pytest_plugin"]

    (tmp_path / "mymodel.py").write_text(NOISY)
    target = '[[tool.vaedoctor.targets]]\nmodel = "mymodel.py:VAE"\n'
    (tmp_path / "pyproject.toml").write_text(f'[tool.vaedoctor]\nselect = ["VAE3"]\n{target}')
    words = ("--vaedoctor", "-n", "2", "--junitxml=out.xml", "--vaedoctor-html=out.html")
    done = run("pytest", *PLUGIN, *QUICK, *words, cwd=tmp_path)
    assert done.returncode == 1
    assert "mymodel.py:VAE: 1 error" in done.stdout
    assert "  error[VAE302] mymodel.py:" in done.stdout
    cases = list(ElementTree.parse(tmp_path / "out.xml").iter("testcase"))
    assert len(cases) == sum(r.code.startswith("VAE3") for r in RULES)
    told = [json.loads(c.find("properties/property").get("value")) for c in cases]
    assert [t["code"] for t in told if t["status"] == "failed"] == ["VAE302"]
    assert "VAE302" in (tmp_path / "out.html").read_text(encoding="utf-8")


class Counting(nn.Module):
    """A model with a buffer that every forward pass changes."""

    def __init__(self):
        super().__init__()
        self.mu, self.logvar, self.decoder = nn.Linear(6, 3), nn.Linear(6, 3), nn.Linear(3, 6)
        self.register_buffer("passes", torch.zeros(()))

    def forward(self, x):
        self.passes += 1
        mu, logvar = self.mu(x), self.logvar(x)
        z = mu + torch.exp(0.5 * logvar) * torch.randn_like(mu)
        return self.decoder(z), mu, logvar


@pytest.mark.parametrize("crashing", [False, True])
@pytest.mark.parametrize("made", [Counting, RaisesInForward, RaisesInBackward])
def test_07_the_model_is_as_before_also_when_it_raises_or_a_rule_crashes(
    made, crashing, monkeypatch
):
    model, x = made(), torch.rand(4, 6)
    if crashing:
        rule = next(r for r in RULES if r.code == "VAE302")

        def crash(examination):
            examination.recording  # noqa: B018
            raise KeyError("z")
            yield

        broken = Rule(rule.code, rule.severity, crash)
        rules = tuple(broken if r is rule else r for r in RULES)
        monkeypatch.setattr("vaedoctor.checkup.select_rules", lambda *_: rules)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    before = photograph(model, x)
    try:
        report = vaedoctor.assert_healthy(model, x)
    except vaedoctor.Unhealthy as unhealthy:
        report = unhealthy.report
    assert differences(before, photograph(model, x)) == []
    assert any(o.status == "crashed" for o in report.outcomes) is crashing


def test_08_the_page_opens_offline_and_is_small(everything):
    text = everything["html"]
    page = Page(text)  # refuses scripts, images and links that leave the page
    assert not re.search(r"https?:|//|@import|url\(|<script|<link|<iframe", text)
    assert "VAE302" in "".join(page.text)
    findings = len(json.loads(everything["json"])["findings"])
    assert len(text) < 300_000
    assert len(text) / findings * 40 < 1_000_000


def test_09_sarif_is_accepted_and_every_result_has_a_place(everything):
    sarif_pydantic.Sarif.model_validate_json(everything["sarif"])
    log = json.loads(everything["sarif"])
    assert list(github_requires(log)) == []
    (run_,) = log["runs"]
    assert len(run_["results"]) == len(json.loads(everything["json"])["findings"])
    places = [r["locations"][0]["physicalLocation"] for r in run_["results"]]
    assert {p["artifactLocation"]["uri"] for p in places} == {"mymodel.py"}


def test_10_the_pages_of_the_rules_are_those_in_the_repository(tmp_path):
    write_pages(tmp_path, RULES, example)
    made = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    assert made == {p.name: p.read_bytes() for p in (ROOT / "docs" / "rules").iterdir()}


def test_11_the_same_seed_gives_the_same_bytes(folder, everything):
    again = run("vaedoctor", "check", "mymodel.py:VAE", "--format", "json", cwd=folder).stdout

    def timeless(text):
        return re.sub(r'("seconds": )[\d.]+|("command": )"[^"\n]*"', r"\1\2", text)

    assert timeless(again) == timeless(everything["json"])


@pytest.mark.parametrize("rule", RULES, ids=lambda r: r.code)
def test_12_every_message_keeps_the_words_and_every_page_its_headings(rule):
    file = f"{rule.check.__module__.removeprefix('vaedoctor.').replace('.', '/')}.py"
    assert list(word_faults(sources()[file])) == []
    assert list(page_faults(rule.page)) == []
    assert MarkdownIt().parse(rule.page)
