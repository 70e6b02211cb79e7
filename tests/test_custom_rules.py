"""Rules of installed packages: the documented one, broken ones, and codes that collide."""

import importlib
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from vaedoctor import rule as registry
from vaedoctor.finding import Finding, Severity

ROOT = Path(__file__).parents[1]
GUIDE = (ROOT / "docs" / "custom-rules.md").read_text(encoding="utf-8")
EXAMPLE = re.search(r"^```python\n(.*?)^```", GUIDE, re.DOTALL | re.MULTILINE)[1]

MODEL = """
import torch
from torch import nn

class VAE(nn.Module):
    def __init__(self):
        super().__init__()
        self.mu, self.logvar = nn.Linear(8, WIDTH), nn.Linear(8, WIDTH)
        self.decoder = nn.Linear(WIDTH, 8)

    def forward(self, x):
        mu, logvar = self.mu(x), self.logvar(x)
        z = mu + torch.exp(0.5 * logvar) * torch.randn_like(mu)
        return self.decoder(z), mu, logvar
"""
RULE = """
from vaedoctor import Finding, Severity
from vaedoctor.rule import rule

@rule("{code}", Severity.NOTE)
def {name}(examination):
    "Says that it is there."
    {body}
    yield Finding("it is there")
"""


@pytest.fixture
def install(tmp_path):
    """Build and install packages that bring rules; the folder that then holds them all."""
    site = tmp_path / "site"

    def install(**modules):
        wheels = [_wheel(tmp_path, name, source) for name, source in modules.items()]
        command = "install --quiet --no-deps --no-index --no-compile --target".split()
        subprocess.run([sys.executable, "-m", "pip", *command, site, *wheels], check=True)
        return site

    return install


def _wheel(folder, name, source):
    file = folder / f"{name}-1.0-py3-none-any.whl"
    info = f"{name}-1.0.dist-info"
    files = {
        f"{name}.py": source,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": f"[vaedoctor.rules]\n{name} = {name}\n",
    }
    record = "".join(f"{path},,\n" for path in [*files, f"{info}/RECORD"])
    with zipfile.ZipFile(file, "w") as archive:
        for path, text in {**files, f"{info}/RECORD": record}.items():
            archive.writestr(path, text)
    return file


@pytest.fixture
def vaedoctor(tmp_path):
    def vaedoctor(site, *words):
        path = os.pathsep.join([str(ROOT), str(site)])
        return subprocess.run(
            [sys.executable, "-m", "vaedoctor", *words],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": path, "PYTHONUTF8": "1"},
            cwd=tmp_path,
            timeout=120,
        )

    return vaedoctor


def test_the_documented_example_is_a_rule_like_any_other(install, vaedoctor, tmp_path):
    assert len(EXAMPLE.rstrip().splitlines()) <= 22
    site = install(acme_rules=EXAMPLE)
    listed = vaedoctor(site, "rules")
    assert "ACME101  warning  latent-too-wide" in listed.stdout
    assert listed.stderr == ""
    assert "against 64" in vaedoctor(site, "explain", "latent-too-wide").stdout

    (tmp_path / "wide.py").write_text(MODEL.replace("WIDTH", "65"))
    done = vaedoctor(site, "check", "wide.py", "--select", "ACME101", "--fail-on", "warning")
    assert done.returncode == 1
    assert "warning[ACME101] latent-too-wide: the latent has 65 units" in done.stdout
    assert re.search(r"--> wide\.py:13:\d", done.stdout)
    (tmp_path / "narrow.py").write_text(MODEL.replace("WIDTH", "3"))
    done = vaedoctor(site, "check", "narrow.py", "--select", "ACME101")
    assert done.returncode == 0
    assert "✓ the latent fits the index (units = 3)" in done.stdout


def test_the_example_names_its_entry_point():
    assert '[project.entry-points."vaedoctor.rules"]\nacme = "acme_rules"' in GUIDE


def test_a_broken_package_is_one_note_and_the_rest_works(install, vaedoctor, tmp_path):
    site = install(
        acme_rules=EXAMPLE,
        broken_half=RULE.format(code="HALF101", name="half", body="") + "\nprint('loud')\n1 / 0",
        broken_exit="raise SystemExit('no licence')",
        taken_code=RULE.format(code="ACME101", name="another", body=""),
        taken_name=RULE.format(code="TAKEN102", name="sample_missing", body=""),
        our_code=RULE.format(code="VAE999", name="yet_another", body=""),
    )
    listed = vaedoctor(site, "rules")
    assert listed.returncode == 0
    assert "VAE302" in listed.stdout
    assert "ACME101  warning  latent-too-wide" in listed.stdout
    assert not re.search("HALF101|TAKEN102|VAE999|loud", listed.stdout)
    for note in (
        "`broken_half` are left out: ZeroDivisionError: division by zero",
        "`broken_exit` are left out: SystemExit: no licence",
        "`taken_code` are left out: ValueError: the code ACME101 is taken by `acme_rules`",
        "`taken_name` are left out: ValueError: the name sample-missing is taken by VAE301",
        "`our_code` are left out: ValueError: `VAE999` is a code of vaedoctor",
    ):
        assert note in listed.stderr
    assert len(listed.stderr.splitlines()) == 6  # and what the package printed

    (tmp_path / "m.py").write_text(MODEL.replace("WIDTH", "3"))
    done = vaedoctor(site, "check", "m.py", "--select", "ACME,VAE302", "--format", "json")
    assert done.returncode == 0
    assert done.stdout.count("are left out") == 5


def test_a_rule_that_raises_is_crashed_in_the_name_of_its_package(install, vaedoctor, tmp_path):
    site = install(acme_crash=RULE.format(code="ACME103", name="crashes", body="1 / 0"))
    (tmp_path / "m.py").write_text(MODEL.replace("WIDTH", "3"))
    done = vaedoctor(site, "check", "m.py", "--select", "ACME,VAE302")
    assert "ACME103: ZeroDivisionError: division by zero (in `acme_crash`)" in done.stdout
    assert "our bug" not in done.stdout


@pytest.mark.parametrize("code", ["acme101", "ACME1", "A101", "ACME_101", "ACME1010", ""])
def test_a_code_of_another_form_is_refused(code):
    with pytest.raises(ValueError, match="is no code"):
        registry.rule(code, Severity.NOTE)(lambda examination: iter(()))


def test_our_own_rules_may_be_loaded_again():
    before = registry.all_rules()
    importlib.reload(sys.modules[before[0].check.__module__])
    assert [r.code for r in registry.all_rules()] == [r.code for r in before]


@pytest.mark.parametrize(("before", "status"), [(True, "failed"), (False, "skipped")])
def test_what_is_found_before_a_measurement_is_missing_stays_found(before, status):
    def check(examination):
        if before:
            yield Finding("bad")
        raise registry.Unavailable("nothing to measure")

    outcome = registry.Rule("ACME101", Severity.NOTE, check).run(None)
    assert (outcome.status, len(outcome.findings)) == (status, before)
