"""`pytest --vaedoctor` in real pytest runs, with real child processes.

A stub stands in for loading and examining, so that no child imports torch: it executes the target
file and takes from its `outcomes` how each rule ended.
"""

import json
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from repository import PLUGIN

pytest_plugins = ["pytester"]

ROOT = Path(__file__).parents[1]
QUICK = ("-p", "no:hypothesispytest", "-p", "no:anyio", "-p", "no:syrupy")  # to start sooner

STUB = """
import sys
from contextlib import contextmanager
from types import ModuleType

target, checkup = ModuleType("vaedoctor.subject.target"), ModuleType("vaedoctor.checkup")

@contextmanager
def loaded(name, **options):
    with open("examined", "a") as file:
        print(name, file=file)
    space = {}
    exec(compile(open(name.rpartition(":")[0]).read(), name, "exec"), space)
    yield name, space

def examine_subject(subject, *, fail_on="error", select=None, ignore=(), **options):
    from vaedoctor.config import select_rules
    from vaedoctor.finding import Finding, Outcome, Report, Severity
    from vaedoctor.span import Span

    name, space = subject
    outcomes = []
    for rule in select_rules(select, ignore):
        status, _, said = space.get("outcomes", {}).get(rule.code, "passed").partition(":")
        found = ()
        if status in ("note", "warning", "error"):
            at = Span(name.rpartition(":")[0], 1, 1)
            bad = Finding(said, at=at, severity=Severity(status), code=rule.code, name=rule.name)
            found = (bad,)
            status, said = "failed", ""
        outcomes.append(Outcome(rule.code, rule.name, status, found, reason=said))
    return Report(name, tuple(outcomes), fail_on=Severity(fail_on))

target.loaded, checkup.examine_subject = loaded, examine_subject
sys.modules |= {"vaedoctor.subject.target": target, "vaedoctor.checkup": checkup}
"""
SELECT = 'select = ["VAE002", "VAE301", "VAE302", "VAE303"]'
ILL = """
outcomes = {
    "VAE301": "skipped:there is nothing to sample",
    "VAE302": "error:`.sample()` cuts the gradient",
    "VAE303": "warning:the scale is misread",
}
"""


@pytest.fixture(autouse=True)
def _stub(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp("stub")
    (folder / "sitecustomize.py").write_text(STUB)
    monkeypatch.setenv("PYTHONPATH", f"{folder}:{ROOT}")
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)


@pytest.fixture
def project(pytester):
    """Write a configuration and models; the targets are all `VAE` of each model."""

    def project(_top=SELECT, **models):
        targets = "".join(
            f'[[tool.vaedoctor.targets]]\nmodel = "{name}.py:VAE"\n' for name in models
        )
        (pytester.path / "pyproject.toml").write_text(f"[tool.vaedoctor]\n{_top}\n{targets}")
        for name, source in models.items():
            (pytester.path / f"{name}.py").write_text(source)

    return project


@pytest.fixture
def run(pytester):
    def run(*words, apart=False):
        how = pytester.runpytest_subprocess if apart else pytester.runpytest_inprocess
        return how(*PLUGIN, *QUICK, *words)

    return run


def examined(pytester):
    file = pytester.path / "examined"
    return sorted(file.read_text().split()) if file.exists() else []


def test_a_target_is_one_item_a_rule(project, run, pytester):
    project(mymodel=ILL)
    listed = run("--vaedoctor", "--collect-only", "-q")
    assert listed.outlines[:4] == [
        "mymodel.py::VAE::VAE002 model-cannot-run",
        "mymodel.py::VAE::VAE301 sample-missing",
        "mymodel.py::VAE::VAE302 sample-not-reparameterized",
        "mymodel.py::VAE::VAE303 scale-misread",
    ]
    assert examined(pytester) == []


def test_items_end_as_their_rules_did(project, run, pytester):
    project(mymodel=ILL)
    result = run("--vaedoctor", "-rs")
    result.assert_outcomes(passed=2, failed=1, skipped=1)
    result.stdout.fnmatch_lines(
        [
            "*mymodel.py:VAE: VAE302 sample-not-reparameterized*",
            "error?VAE302? sample-not-reparameterized: `.sample()` cuts the gradient",
            "next: vaedoctor explain VAE302",
            "*= vaedoctor =*",
            "mymodel.py:VAE: 1 error, 1 warning, 1 passed, 1 skipped",
            "  error?VAE302? mymodel.py:1: `.sample()` cuts the gradient",
            "  warning?VAE303? mymodel.py:1: the scale is misread",
            "SKIPPED ?1? mymodel.py: there is nothing to sample",
        ]
    )
    result.stdout.no_fnmatch_line("*pytest_items.py*")
    assert examined(pytester) == ["mymodel.py:VAE"]


def test_a_crash_of_a_rule_is_an_error(project, run):
    project(mymodel="outcomes = {'VAE302': 'crashed:KeyError: z'}")
    result = run("--vaedoctor")
    result.assert_outcomes(passed=3, errors=1)
    result.stdout.fnmatch_lines(["VAE302 crashed: KeyError: z", "  crashed VAE302: KeyError: z"])


def test_a_model_that_does_not_run_is_an_error(project, run):
    project(mymodel="outcomes = {'VAE002': 'error:the forward pass raises'}")
    run("--vaedoctor").assert_outcomes(passed=3, errors=1)


@pytest.mark.parametrize("death", ["raise SystemExit(3)", "import os; os._exit(4)", "1 / 0"])
def test_a_broken_target_is_one_error_and_stops_no_other(project, run, death):
    project(dead=death, well="")
    result = run("--vaedoctor")
    result.assert_outcomes(passed=4, skipped=3, errors=1)
    result.stdout.fnmatch_lines(["*ERROR at setup of dead.py:VAE: VAE002*", "dead.py:VAE: could*"])


def test_a_target_that_hangs_is_an_error_after_its_time(project, run):
    project(f"{SELECT}\ntimeout = 1", dead="while True: pass", well="")
    result = run("--vaedoctor")
    result.assert_outcomes(passed=4, skipped=3, errors=1)
    result.stdout.fnmatch_lines(["dead.py:VAE: could not be examined: no result after 1 s*"])


def test_a_broken_target_is_told_even_by_a_single_item(project, run):
    project(dead="1 / 0")
    run("--vaedoctor", "-k", "VAE302").assert_outcomes(errors=1, deselected=3)


@pytest.mark.parametrize("dist", ["load", "loadgroup", "each"])
def test_workers_share_one_examination_and_tell_everything(project, run, pytester, dist):
    project(a=ILL, b=ILL, c="1 / 0", d="")
    result = run("--vaedoctor", "-n", "2", "--dist", dist, apart=True)
    assert examined(pytester) == ["a.py:VAE", "b.py:VAE", "c.py:VAE", "d.py:VAE"]
    times = 2 if dist == "each" else 1
    result.assert_outcomes(passed=8 * times, failed=2 * times, skipped=5 * times, errors=times)
    result.stdout.fnmatch_lines_random(
        [
            "a.py:VAE: 1 error, 1 warning, 1 passed, 1 skipped",
            "b.py:VAE: 1 error, 1 warning, 1 passed, 1 skipped",
            "c.py:VAE: could not be examined: *",
            "d.py:VAE: 4 passed",
        ]
    )


def test_junit_carries_the_outcomes(project, run, pytester):
    project(mymodel=ILL)
    run("--vaedoctor", "-n", "2", "--junitxml=out.xml", apart=True)
    cases = {
        c.get("name"): c for c in ElementTree.parse(pytester.path / "out.xml").iter("testcase")
    }
    case = cases["VAE302 sample-not-reparameterized"]
    assert case.get("classname") == "mymodel.VAE"
    told = {p.get("name"): json.loads(p.get("value")) for p in case.iter("property")}
    assert told["vaedoctor"]["status"] == "failed"
    assert told["vaedoctor"]["findings"][0]["message"] == "`.sample()` cuts the gradient"
    assert len(cases) == 4


def test_one_item_can_be_named_without_importing_the_file(project, run):
    project(mymodel="import os\nif 'PYTEST_VERSION' in os.environ: open('imported', 'x')\n")
    result = run("--vaedoctor", "mymodel.py::VAE::VAE302 sample-not-reparameterized", "-W", "error")
    result.assert_outcomes(passed=1)
    listed = run("--vaedoctor", "--collect-only", "mymodel.py")
    listed.stdout.no_fnmatch_line("*Module*")


def test_targets_outside_of_the_tests_are_examined_unless_single_tests_are_named(
    project, run, pytester
):
    project(mymodel="")
    (pytester.path / "pytest.ini").write_text("[pytest]\ntestpaths = tests\n")
    (pytester.path / "tests").mkdir()
    (pytester.path / "tests" / "test_it.py").write_text("def test_it(): pass")
    run("--vaedoctor").assert_outcomes(passed=5)
    run("--vaedoctor", "tests").assert_outcomes(passed=5)
    run("--vaedoctor", "tests/test_it.py").assert_outcomes(passed=1)
    run("--vaedoctor", "tests/test_it.py::test_it").assert_outcomes(passed=1)
    run("--vaedoctor", "-k", "VAE302").assert_outcomes(passed=1, deselected=4)
    run().assert_outcomes(passed=1)


def test_a_model_that_is_listed_twice_and_a_module_have_their_own_names(project, run, pytester):
    project()
    (pytester.path / "pkg").mkdir()
    (pytester.path / "pkg" / "models.py").write_text("")
    with (pytester.path / "pyproject.toml").open("a") as file:
        for model in ("m.py:VAE", "m.py:VAE", "m.py", "pkg.models:make", "gone.models:make"):
            file.write(f'[[tool.vaedoctor.targets]]\nmodel = "{model}"\n')
    (pytester.path / "m.py").write_text("")
    listed = run("--vaedoctor", "--collect-only", "-q", "-k", "VAE302").outlines
    assert [line.rpartition("::")[0] for line in listed if "VAE302" in line] == [
        "m.py::VAE",
        "m.py::VAE#2",
        "m.py::model",
        "pkg/models.py::make",
        "pyproject.toml::gone.models:make",
    ]


def test_a_test_file_may_hold_targets_too(project, run):
    project(test_mine="class VAE: ...\ndef test_it(): pass\n")
    run("--vaedoctor").assert_outcomes(passed=5)


@pytest.mark.parametrize(
    ("top", "said"),
    [
        (SELECT, "*`pyproject.toml` lists none*"),
        ("seeed = 1", "*pyproject.toml:2:*did you mean `seed`*"),
        ('select = ["VAE302"]\nignore = ["VAE3"]', "*no rule is left to judge*"),
    ],
)
def test_a_configuration_that_cannot_be_used_is_a_usage_error(project, run, top, said):
    project(top)
    result = run("--vaedoctor")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([said])


def test_the_ini_file_can_ask_for_it_and_choose(project, run, pytester):
    project(mymodel=ILL)
    (pytester.path / "pytest.ini").write_text(
        "[pytest]\nvaedoctor = true\nvaedoctor_select = VAE302 VAE303\n"
        "vaedoctor_ignore = VAE302\nvaedoctor_fail_on = warning\n"
    )
    run().assert_outcomes(failed=1)


def test_what_the_baseline_holds_does_not_fail(project, run, pytester):
    project(f'{SELECT}\nbaseline = "known.json"', mymodel=ILL)
    command = [sys.executable, "-m", "vaedoctor", "check", "--output", "json=first.json"]
    (pytester.path / "known.json").write_text('{"reports": []}')
    subprocess.run(command, cwd=pytester.path, stdout=subprocess.DEVNULL, check=False)
    (pytester.path / "first.json").rename(pytester.path / "known.json")
    result = run("--vaedoctor")
    result.assert_outcomes(passed=3, skipped=1)
    result.stdout.fnmatch_lines(["mymodel.py:VAE: 3 passed, 1 skipped, 2 known"])


def test_hostile_text_stays_text(project, run):
    project(mymodel="outcomes = {'VAE302': 'error:\\x1b[31m]]>\\n::error::x <b>&'}")
    result = run("--vaedoctor")
    text = result.stdout.str()
    assert "\\x1b[31m]]>\\n::error::x <b>&" in text
    assert not re.search("\x1b\\[31m\\]\\]", text)


def test_who_does_not_ask_loads_nothing(pytester, run):
    pytester.makepyfile(
        """
        import sys
        def test_it():
            loaded = [m for m in sys.modules if m.startswith("vaedoctor.")]
            assert not set(loaded) & {"vaedoctor.pytest_gate", "vaedoctor.rule", "vaedoctor.config"}
            assert "torch" not in sys.modules and "click" not in sys.modules
        """
    )
    run(apart=True).assert_outcomes(passed=1)


def test_who_asks_loads_no_torch(project, run, pytester):
    project(mymodel="")
    (pytester.path / "conftest.py").write_text(
        "import sys\ndef pytest_unconfigure(): assert 'torch' not in sys.modules\n"
    )
    run("--vaedoctor", apart=True).assert_outcomes(passed=4)


def test_a_hostile_file_name_breaks_nothing(project, run, pytester):
    project()
    name = "we]]>ird&<b>\x1b[31m.py"
    (pytester.path / name).write_text(ILL)
    with (pytester.path / "pyproject.toml").open("a") as file:
        file.write(f"[[tool.vaedoctor.targets]]\nmodel = {json.dumps(name + ':VAE')}\n")
    result = run("--vaedoctor", "--junitxml=out.xml")
    result.assert_outcomes(passed=2, failed=1, skipped=1)
    section = result.stdout.str().partition("= vaedoctor =")[2].partition("short test summary")[0]
    assert "we]]>ird&<b>\\x1b[31m.py:VAE: 1 error" in section
    assert "\x1b[31m" not in section
    assert len(list(ElementTree.parse(pytester.path / "out.xml").iter("testcase"))) == 4
