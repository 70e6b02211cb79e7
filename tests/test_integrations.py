"""What connects vaedoctor to other tools, and the pages that say how: parsed, and run."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from repository import PLUGIN

from vaedoctor import cli
from vaedoctor.keys import PROJECT, TARGET
from vaedoctor.project import find_project

yaml = pytest.importorskip("yaml")

ROOT = Path(__file__).parents[1]
ACTION = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))
PAGES = ("README.md", *(f"docs/{n}.md" for n in ("ci", "configuration", "custom-rules", "pytest")))


def page(name):
    return (ROOT / name).read_text(encoding="utf-8")


def blocks(name, language):
    return re.findall(rf"^```{language}\n(.*?)^```", page(name), re.DOTALL | re.MULTILINE)


def step(name):
    (found,) = (s for s in ACTION["runs"]["steps"] if s["name"] == name)
    return found


def test_the_hook_runs_check_once_in_the_users_environment():
    (hook,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text(encoding="utf-8"))
    command, word = hook["entry"].split()
    assert (command, hook["id"], hook["language"]) == ("vaedoctor", "vaedoctor", "system")
    assert word in cli.main.commands
    assert hook["pass_filenames"] is False
    assert hook["require_serial"] is True


def test_no_input_of_the_action_is_pasted_into_a_script():
    assert ACTION["runs"]["using"] == "composite"
    for one in ACTION["runs"]["steps"]:
        assert "${{" not in one.get("run", "")
        assert ("run" in one) == ("shell" in one)
    used = set(re.findall(r"inputs\.([\w-]+)", page("action.yml")))
    assert used == set(ACTION["inputs"])
    assert all(f"| `{name}` |" in page("docs/ci.md") for name in ACTION["inputs"])


def test_the_step_of_the_action_examines_and_writes_its_files(tmp_path):
    fixture = ROOT / "fixtures" / "sampling" / "sample_not_reparameterized.py"
    env = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "PYTHON": sys.executable,
        "TARGETS": f"{fixture}:Broken",
        "OPTIONS": "--select VAE302 --baseline *",  # `*` is a name, not a pattern
        "RUNNER_TEMP": str(tmp_path),
        "GITHUB_OUTPUT": str(tmp_path / "outputs"),
        "GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md"),
    }
    (tmp_path / "*").write_text('{"reports": []}')
    done = subprocess.run(
        ["bash", "-e", "-o", "pipefail", "-c", step("Examine")["run"]],
        env=env,
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1, done.stderr
    assert done.stdout.startswith("::error title=")
    assert "VAE302" in (tmp_path / "summary.md").read_text(encoding="utf-8")
    outputs = dict(line.split("=", 1) for line in (tmp_path / "outputs").read_text().splitlines())
    assert set(outputs) == set(ACTION["outputs"])
    assert all("VAE302" in Path(p).read_text(encoding="utf-8") for p in outputs.values())


def test_the_documented_configuration_is_valid_and_complete(tmp_path):
    text = blocks("docs/configuration.md", "toml")[0]
    (tmp_path / "pyproject.toml").write_text(text)
    project = find_project(tmp_path)
    assert len(project.targets) == 2
    for key in (*PROJECT, *TARGET):
        assert re.search(rf"^{key} = |^\[+tool\.vaedoctor\.{key}\]", text, re.MULTILINE), key


@pytest.mark.parametrize("name", PAGES)
def test_the_pages_parse_and_name_what_exists(name):
    for block in blocks(name, "yaml"):
        assert yaml.safe_load(block)
    for block in blocks(name, "python"):
        compile(block.replace("(doctor): ...", "(doctor): pass"), name, "exec")
    commands = re.findall(r"\bvaedoctor ([a-z]+)((?: [^\n`|&]+)?)", page(name))
    for word, rest in commands:
        if word not in cli.main.commands:
            continue
        known = {o for p in cli.main.commands[word].params for o in p.opts}
        assert set(re.findall(r"(?<= )--?[a-z][a-z-]*", rest)) <= known, (word, rest)
    for link in re.findall(r"\]\((?!https?:)([^)#]+)", page(name)):
        assert (ROOT / name).parent.joinpath(link).exists(), link


def test_the_readme_links_every_page():
    readme = page("README.md")
    assert all(f"({name})" in readme for name in PAGES[1:])


def test_the_options_of_the_pytest_page_exist(pytester):
    shown = pytester.runpytest_subprocess(*PLUGIN, "--help").stdout.str()
    text = page("docs/pytest.md")
    for word in set(re.findall(r"--vaedoctor[a-z-]*|\bvaedoctor_[a-z_]+", text)):
        assert word in shown


def test_every_command_has_help():
    for name in cli.main.commands:
        done = CliRunner().invoke(cli.main, [name, "--help"])
        assert done.exit_code == 0
        assert len(done.stdout.splitlines()) > 4
