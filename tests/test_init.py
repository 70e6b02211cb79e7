"""`vaedoctor init` lists the models of a project without executing any of it."""

import json
import tomllib

import pytest
from click.testing import CliRunner

from vaedoctor.cli import main
from vaedoctor.project import find_project
from vaedoctor.scan import scan

VAE = """
raise SystemExit("this file is not to be executed")
from torch import nn

class Encoder(nn.Module):
    def forward(self, x): return x

class VAE(nn.Module):
    def __init__(self, input_dim, latent_dim=3, *, hidden):
        self.encoder = Encoder()

    def reparameterize(self, mu, logvar): ...

    def forward(self, x): return self.reparameterize(*self.encoder(x))
"""
DERIVED = """
import torch
from model import VAE

class BetaVAE(VAE):
    pass

class Classifier(torch.nn.Module):
    def forward(self, x): return x

class ELBOLoss(torch.nn.Module):
    def forward(self, mu, logvar): return mu

vae = BetaVAE(3, hidden=4)
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.py").write_text(VAE)
    return tmp_path


@pytest.fixture
def run():
    return lambda *words: CliRunner().invoke(main, ["init", *words])


def test_models_are_found_and_nothing_else(project):
    (project / "pkg").mkdir()
    (project / "pkg" / "derived.py").write_text(DERIVED)
    (project / "test_model.py").write_text(VAE)
    (project / "broken.py").write_text("def f(:")
    (project / "latin.py").write_bytes(b"# \xff\n")
    for name in (".venv", "build", "tests", "mine"):
        (project / name).mkdir()
        (project / name / "copy.py").write_text(VAE)
    (project / "mine" / "pyvenv.cfg").write_text("")
    found = scan(project)
    assert [(f.file, f.name, f.line) for f in found] == [
        ("model.py", "VAE", 8),
        ("pkg/derived.py", "BetaVAE", 5),
    ]
    assert found[0].required == ("input_dim", "hidden")
    assert found[1].required == ()  # the file itself builds one


def test_models_in_notebooks_are_found(project):
    code = ["%matplotlib inline\n", "!pip install torch\n", *VAE.splitlines(keepends=True)]
    cells = [{"cell_type": "code", "source": code, "metadata": {}, "outputs": []}]
    notebook = {"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    (project / "play.ipynb").write_text(json.dumps(notebook))
    (project / "broken.ipynb").write_text("{")
    assert [f.file for f in scan(project)] == ["model.py", "play.ipynb"]


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ("class A(nn.Module):\n def forward(self, x): return Normal(x, 1).rsample()", ["A"]),
        ("class A(torch.nn.Module):\n def forward(self, x): return randn_like(x)", ["A"]),
        ("class A(pl.LightningModule):\n def training_step(self, b, i): self.log_var", ["A"]),
        ("class A(nn.Module):\n def forward(self, x): return self.quantizer(x)", ["A"]),
        ("class A(nn.Module):\n def forward(self, x): return x", []),
        ("class A:\n def forward(self, x): return x.rsample()", []),
        ("class A(nn.Module):\n def forward(self, x): raise NotImplementedError(logvar)", []),
        ("class A(B):\n def forward(self, x): return x.rsample()\nclass B(A): ...", []),
        (
            "class A(nn.Module):\n def forward(self, x): return randn_like(x)\n"
            "class Any(nn.Module):\n def load(self): return A.load()",
            ["A"],
        ),
        (
            "class S(nn.Module):\n def forward(self, x): return randn_like(x)\n"
            "class A(nn.Module):\n def forward(self, x): return S()(x)",
            ["A"],
        ),
    ],
)
def test_what_looks_like_a_model(tmp_path, body, found):
    (tmp_path / "m.py").write_text(body)
    assert [f.name for f in scan(tmp_path)] == found


@pytest.mark.parametrize(
    "before",
    [
        b"",
        b'[project]\nname = "x"\n',
        b'[project]\nname = "x"',
        b'[project]\r\nname = "x"\r\n',
        b"\xef\xbb\xbf[tool.ruff]\nline-length = 100\n",
        b"[[tool.other]]\nx = 1\n# a comment",
    ],
)
def test_the_section_is_appended_and_nothing_changes(project, run, before):
    file = project / "pyproject.toml"
    if before:
        file.write_bytes(before)
    done = run()
    assert (done.exit_code, done.stdout) == (0, "")
    assert "1 model found, written to the end of pyproject.toml" in done.stderr
    after = file.read_bytes()
    assert after.startswith(before)
    assert (b"\r\n" in after) == (b"\r\n" in before)
    assert [t.model for t in find_project(project).targets] == ["model.py:VAE"]
    data = tomllib.loads(after.decode("utf-8-sig"))
    data["tool"].pop("vaedoctor")
    assert data.get("project", {"name": "x"}) == {"name": "x"}


def test_every_line_of_the_section_is_valid_without_its_mark(project, run):
    run()
    text = (project / "pyproject.toml").read_text()
    general, _, rest = text.partition("# A target takes, beside `model`:\n")
    options, _, entry = rest.partition("\n\n")
    entry = entry.partition("# args")[0]
    written = "\n".join(
        line.removeprefix("# ") if " = " in line or line.startswith("# [") else line
        for line in f"{general}\n{entry}\n{options}".splitlines()
    )
    (project / "pyproject.toml").write_text(written)
    (project / "known.json").write_text('{"reports": []}')
    found = find_project(project)
    assert found.baseline == "known.json"
    assert found.targets[0].checkpoint == "last.pt"


def test_dry_run_prints_and_writes_nothing(project, run):
    done = run("--dry-run")
    assert 'model = "model.py:VAE"\n' in done.stdout
    assert "# args = { input_dim = 16, hidden = 16 }   # these have no default\n" in done.stdout
    assert not (project / "pyproject.toml").exists()
    run()
    assert (project / "pyproject.toml").read_text() == done.stdout


def test_an_existing_section_is_left_as_it_is(project, run):
    (project / "other.py").write_text(VAE.replace("VAE", "Other"))
    file = project / "pyproject.toml"
    file.write_text('[[tool.vaedoctor.targets]]\nmodel = "./model.py:VAE"\n')
    before = file.read_bytes()
    done = run()
    assert done.exit_code == 0
    assert file.read_bytes() == before
    assert 'model = "other.py:Other"' in done.stdout
    assert "model.py:VAE" not in done.stdout
    assert "[tool.vaedoctor]" not in done.stdout
    assert "has a section [tool.vaedoctor] already; 1 model" in done.stderr


@pytest.mark.parametrize("content", [b"[project\n", b"\xff\xfe", b"[tool]\nvaedoctor = 3\nx ="])
def test_a_file_that_is_no_toml_is_refused_and_kept(project, run, content):
    (project / "pyproject.toml").write_bytes(content)
    done = run()
    assert done.exit_code == 2
    assert "cannot be read" in done.stderr
    assert (project / "pyproject.toml").read_bytes() == content


def test_a_file_without_room_at_its_end_is_refused_and_kept(project, run):
    (project / "pyproject.toml").write_text("tool = { ruff = 3 }\n")
    done = run()
    assert done.exit_code == 2
    assert "--dry-run` prints what to add by hand" in done.stderr
    assert (project / "pyproject.toml").read_text() == "tool = { ruff = 3 }\n"


def test_the_file_of_the_repository_is_used_from_a_folder_inside(project, run, monkeypatch):
    (project / ".git").mkdir()
    (project / "pyproject.toml").write_text("")
    (project / "pkg").mkdir()
    monkeypatch.chdir(project / "pkg")
    run()
    assert [t.model for t in find_project(project).targets] == ["model.py:VAE"]


def test_without_models_the_section_shows_an_example(tmp_path, run, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = run()
    assert "0 models found" in done.stderr
    assert '# model = "mymodel.py:VAE"' in (tmp_path / "pyproject.toml").read_text()
    assert find_project(tmp_path).targets == ()


def test_hostile_names_stay_strings(project, run):
    name = 'mo"del\\\x7f]]\n.py'
    (project / name).write_text(VAE)
    run()
    assert f"{name}:VAE" in [t.model for t in find_project(project).targets]
