"""`[tool.vaedoctor]`: what it says, where it is found, and how errors name the line."""

import os
from pathlib import Path

import pytest

from vaedoctor.config import ConfigError
from vaedoctor.finding import Severity
from vaedoctor.project import Project, Target, find_project

EVERYTHING = """
[project]
name = "theirs"

[tool.vaedoctor]
select = ["VAE3", "kl-missing"]
ignore = "VAE301"
fail-on = "warning"
seed = 7
timeout = 30
baseline = "known.json"

[tool.vaedoctor.severity]
VAE303 = "ignore"
"sample-missing" = "Error"

[[tool.vaedoctor.targets]]
model = "mymodel.py:VAE"
args = { latent_dim = 16, hidden = [64, 32], name = "relu" }
batch = "data.py:one_batch"
objective = "loss_function"
conditions = [1, "mask"]
beta = 4
batch-size = 3
batch-axis = "none"
call = { sample = true }
checkpoint = "last.pt"

[[tool.vaedoctor.targets]]
model = "pkg.models:make"
"""


@pytest.fixture
def write(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def write(text, name="pyproject.toml"):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
        return file

    return write


@pytest.fixture
def refused(write):
    """What is said about a configuration that is refused."""

    def refused(text):
        write(text)
        with pytest.raises(ConfigError) as caught:
            find_project(Path.cwd())
        assert caught.value.exit_code == 2
        return caught.value.message

    return refused


def test_every_key_arrives(write):
    file = write(EVERYTHING)
    assert find_project(file.parent) == Project(
        file,
        targets=(
            Target(
                "mymodel.py:VAE",
                args={"latent_dim": 16, "hidden": [64, 32], "name": "relu"},
                batch="data.py:one_batch",
                objective="loss_function",
                conditions=(1, "mask"),
                beta=4,
                batch_size=3,
                batch_axis=None,
                call={"sample": True},
                checkpoint="last.pt",
            ),
            Target("pkg.models:make"),
        ),
        select=("VAE3", "kl-missing"),
        ignore=("VAE301",),
        severity={"VAE303": "ignore", "sample-missing": "error"},
        fail_on=Severity.WARNING,
        seed=7,
        timeout=30.0,
        baseline="known.json",
    )


def test_arguments_are_handed_over_as_typed_on_the_command_line(write):
    (first, _) = find_project(write(EVERYTHING).parent).targets
    assert first.request()["args"] == {"latent_dim": "16", "hidden": "[64, 32]", "name": "relu"}
    assert first.request()["call"] == {"sample": "True"}


def test_the_nearest_file_that_speaks_of_us_is_found(write, tmp_path):
    file = write("[tool.vaedoctor]\nseed = 1\n")
    write("[project]\nname = 'x'\n", "inner/pyproject.toml")
    (tmp_path / "inner" / "deep").mkdir()
    assert find_project(tmp_path / "inner" / "deep").file == file
    nearer = write("[tool.vaedoctor]\n", "inner/pyproject.toml")
    assert find_project(tmp_path / "inner" / "deep") == Project(nearer)


def test_a_named_file_needs_the_table(write):
    other = write("[tool.vaedoctor]\nseed = 3\n", "other.toml")
    assert find_project(Path.cwd(), config=other).seed == 3
    empty = write("[project]\n", "empty.toml")
    for file, words in ((empty, r"no table `\[tool.vaedoctor\]`"), (Path("no.toml"), "be read")):
        with pytest.raises(ConfigError, match=words):
            find_project(Path.cwd(), config=file)


TOP = "[tool.vaedoctor]\n"
SEVERITY = "[tool.vaedoctor.severity]\n"
TARGET = "[[tool.vaedoctor.targets]]\n"
NO_KEY = "`[tool.vaedoctor]` has no key"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"{TOP}\nseeed = 1", f"3: {NO_KEY} `seeed`; did you mean `seed`?"),
        (f"{TOP}fail_on = 'note'", f"2: {NO_KEY} `fail_on`; did you mean `fail-on`?"),
        (f"{TOP}quux = 1", f"2: {NO_KEY} `quux`; the keys are targets, select,"),
        (f"{TOP}seed = true", "2: `seed` takes a whole number, not `True`"),
        (f"{TOP}select = [1]", "2: `select` takes a list of rules"),
        (f"{TOP}select = ['VAE999']", "2: `VAE999` selects no rule; did you mean `VAE"),
        (f"{TOP}fail-on = 'eror'", "2: `eror` is no severity; did you mean `error`?"),
        (f"{TOP}timeout = 0", "2: `timeout` takes a number of seconds above 0, not `0`"),
        (f"{TOP}targets = 'm.py'", "2: `targets` takes tables"),
        (f"{SEVERITY}\nVAE201 = 'eror'", "3: `eror` is no level; did you mean `error`?"),
        (f"{SEVERITY}\nVAE999 = 'error'", "3: `VAE999` selects no rule"),
        (f"{TOP}severity = {{VAE999 = 'error'}}", "2: `VAE999` selects no rule"),
        (f"{TOP}severity = {{VAE201 = 1}}", "2: `severity` takes a table of rules"),
        (
            f"{TOP}targets = [{{model = 'm.py', bach = 'x'}}]",
            "2: `[[tool.vaedoctor.targets]]` has no key `bach`; did you mean `batch`?",
        ),
        (
            f"{TARGET}model = 'a.py'\n{TARGET}model = 'b.py'\nargs = 3",
            "5: `args` takes a table of arguments",
        ),
        (f"{TARGET}batch = 'a.py'", "1: a target needs `model`"),
        (
            f"{TARGET}model = 'a.py'\nbatch-axis = 'x'",
            '3: `batch-axis` takes the number of an axis or `"none"`',
        ),
        ("tool.vaedoctor = 3", " `tool.vaedoctor` takes a table"),
    ],
)
def test_what_is_wrong_is_refused_with_its_line_and_a_suggestion(refused, text, said):
    assert refused(text).startswith(f"pyproject.toml:{said}")


def test_a_file_that_is_no_toml_is_refused(refused):
    assert refused("[tool.vaedoctor\n").startswith("`pyproject.toml` cannot be read: ")


def test_the_snippet_of_an_error_message_can_be_pasted(write):
    from vaedoctor.subject.construct.unbuildable import configuration

    made = {"d": 16, "sizes": [1, 2], "name": 'we"ird', "pair": (1, 2), "flag": True}
    text = configuration('we"ird.py:VAE', made)
    file = write(text[text.index("[[") :])
    (target,) = find_project(file.parent).targets
    assert target.model == 'we"ird.py:VAE'
    assert target.request()["args"] == {
        "d": "16",
        "sizes": "[1, 2]",
        "name": 'we"ird',
        "pair": "(1,2)",
        "flag": "True",
    }


def test_a_file_that_is_no_text_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pyproject.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="cannot be read"):
        find_project(tmp_path)


@pytest.mark.parametrize(
    ("typed", "models"),
    [
        ("mymodel.py:VAE", ["mymodel.py:VAE"]),
        ("./mymodel.py:VAE", ["mymodel.py:VAE"]),
        ("mymodel.py", ["mymodel.py:VAE"]),
        ("mymodel.py:Other", []),
        ("elsewhere/mymodel.py:VAE", []),
        ("pkg.models:make", ["pkg.models:make"]),
        ("pkg.models", ["pkg.models:make"]),
        ("pkg", []),
    ],
)
def test_a_typed_target_finds_its_settings(write, typed, models):
    project = find_project(write(EVERYTHING).parent)
    assert [t.model for t in project.matching(typed)] == models


def test_a_typed_target_finds_its_settings_from_another_folder(write, tmp_path, monkeypatch):
    project = find_project(write(EVERYTHING).parent)
    (tmp_path / "inner").mkdir()
    monkeypatch.chdir(tmp_path / "inner")
    assert len(project.matching(f"..{os.sep}mymodel.py:VAE")) == 1
    assert project.matching("mymodel.py:VAE") == ()
