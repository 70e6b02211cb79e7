"""Severities that the user gives to rules, and suppressed findings beside them."""

import pytest

from vaedoctor.checkup import examine_subject
from vaedoctor.finding import Severity
from vaedoctor.report.as_text import as_text
from vaedoctor.subject.target import load

MODEL = """
import torch
from torch import nn
from torch.distributions import Normal

class VAE(nn.Module):
    def __init__(self):
        super().__init__()
        self.mu, self.logvar, self.decoder = nn.Linear(8, 3), nn.Linear(8, 3), nn.Linear(3, 8)

    def forward(self, x):
        mu, logvar = self.mu(x), self.logvar(x)
        z = Normal(mu, torch.exp(0.5 * logvar)).sample()COMMENT
        return self.decoder(z), mu, logvar
"""


@pytest.fixture
def examine(tmp_path):
    def examine(comment="", **options):
        (tmp_path / "m.py").write_text(
            MODEL.replace("COMMENT", f"  # vaedoctor: ignore[{comment}]" if comment else "")
        )
        subject = load(f"{tmp_path / 'm.py'}:VAE")
        return examine_subject(subject, select=["VAE302", "VAE001", "VAE109"], **options)

    return examine


@pytest.mark.parametrize(
    ("levels", "fail_on", "severity", "code"),
    [
        ({}, "error", "error", 1),
        ({"VAE302": "warning"}, "error", "warning", 0),
        ({"VAE302": "warning"}, "warning", "warning", 1),
        ({"VAE3": "note"}, "warning", "note", 0),
        ({"ALL": "note", "sample-not-reparameterized": "error"}, "error", "error", 1),
        ({"VAE301": "note"}, "error", "error", 1),
    ],
)
def test_a_rule_takes_the_severity_it_is_given(examine, levels, fail_on, severity, code):
    report = examine(severity=levels, fail_on=fail_on)
    assert [f.severity for f in report.findings] == [Severity(severity)]
    assert report.exit_code == code


def test_a_suppressed_finding_is_counted_whatever_its_severity(examine):
    report = examine("VAE302", severity={"VAE302": "note"}, fail_on="note")
    assert [(f.code, f.at) for f in report.findings] == []
    assert [f.severity for f in report.suppressed] == [Severity.NOTE]
    assert report.exit_code == 0
    assert "no problems found (1 suppressed)" in as_text(report)


def test_an_unused_comment_takes_a_severity_too(examine):
    report = examine("VAE302, VAE109", severity={"VAE001": "error"})
    assert [(f.code, f.severity) for f in report.findings] == [("VAE001", Severity.ERROR)]
    assert report.exit_code == 1


def test_a_copy_of_a_model_has_its_own_place(tmp_path):
    for name in ("one.py", "two.py"):
        (tmp_path / name).write_text(MODEL.replace("COMMENT", ""))
        report = examine_subject(load(f"{tmp_path / name}:VAE"), select=["VAE302"])
        assert report.findings[0].at.file == str(tmp_path / name)
