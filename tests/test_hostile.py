"""A model that tries to break out of its report, examined for real, in every format."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
import sarif_pydantic
from jsonschema import Draft202012Validator
from test_formats import ALLOWED, MARKDOWN, Page, github_requires, parsed

from vaedoctor.output import FORMATS

ROOT = Path(__file__).parents[1]
NAME = "<img src=x onerror=alert(1)> ::error::a %0A ]]> \u202eb\u200b"

MODEL = r"""
import torch
from torch import nn

EVIL = "</script><h1>]]>\x1b[31m\n::error file=a::b\n##[error]c %0A | d ` [e](http://f) "


class VAE(nn.Module):
    def __init__(self):
        super().__init__()
        self.mu, self.h, self.out = nn.Linear(6, 3), nn.Linear(6, 3), nn.Linear(3, 6)
        self.add_module(EVIL, nn.Linear(3, 3))
        self.add_module("</svg><svg onload=alert(1)>", nn.Linear(3, 3))

    def forward(self, x):
        mu, h = self.mu(x), self.h(x)  # </pre><script>alert(1)</script> {{ 7 * 7 }}
        z = (mu + torch.exp(0.5 * h) * torch.randn_like(mu)).detach()
        z = self._modules["</svg><svg onload=alert(1)>"](z)
        return {EVIL: self.out(z), "mu": mu, "h": h}


class Raises(VAE):
    def forward(self, x):
        raise ValueError(EVIL)
"""


@pytest.fixture(scope="module", params=["VAE", "Raises"])
def written(request, tmp_path_factory):
    """The reports of one examination in every format, by name."""
    folder = tmp_path_factory.mktemp("hostile")
    (folder / f"{NAME}.py").write_text(MODEL)
    outputs = [f"--output={form}={form}.out" for form in FORMATS]
    done = subprocess.run(
        [sys.executable, "-m", "vaedoctor", "check", f"{NAME}.py:{request.param}", *outputs],
        cwd=folder,
        capture_output=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUTF8": "1", "OMP_NUM_THREADS": "1"},
        timeout=120,
    )
    assert done.returncode in (1, 2), done.stderr.decode()
    return {form: (folder / f"{form}.out").read_text(encoding="utf-8") for form in FORMATS}


def test_something_hostile_is_shown(written):
    assert "::error" in written["text"]
    assert "<h1>" in written["text"]
    assert re.search("VAE302|VAE104|VAE002", written["concise"])


@pytest.mark.parametrize("form", FORMATS)
def test_no_control_character_is_left(written, form):
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e]", written[form])


@pytest.mark.parametrize("form", ["text", "concise", "markdown", "html", "junit"])
def test_no_line_is_a_workflow_command(written, form):
    for line in written[form].splitlines():
        assert not line.lstrip().startswith("::")
        assert form not in ("text", "concise") or "##[" not in line


def test_every_format_parses(written):
    Page(written["html"])
    assert "alert(1)" in "".join(Page(written["html"]).text)
    schema = json.loads((ROOT / "docs/report.schema.json").read_text())
    Draft202012Validator(schema).validate(json.loads(written["json"]))
    sarif_pydantic.Sarif.model_validate_json(written["sarif"])
    assert list(github_requires(json.loads(written["sarif"]))) == []
    ElementTree.fromstring(written["junit"])
    tags = set(re.findall(r"<([a-z0-9]+)", MARKDOWN.render(written["markdown"])))
    assert tags <= ALLOWED
    for line in written["github"].splitlines():
        assert parsed(line)[1]["file"].endswith(".py")


def test_every_format_has_the_same_findings(written):
    codes = [f["code"] for f in json.loads(written["json"])["findings"]]
    sarif = json.loads(written["sarif"])["runs"][0]["results"]
    assert [r["ruleId"] for r in sarif] == codes
    assert re.findall(r"vaedoctor \((\w+)\)", written["github"]) == codes
    assert re.findall(r"^\S+\[(\w+)\]", written["text"], re.MULTILINE) == codes
    assert re.findall(r"^\| \S+ \| (V\w+\d) \|", written["markdown"], re.MULTILINE) == codes
    assert len(written["concise"].splitlines()) == len(codes)
    assert Page(written["html"]).counts["article"] == len(codes)
