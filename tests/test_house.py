"""The conventions of this house, as tests, and tests that each of them can fail."""

import ast
import inspect
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

import vaedoctor
from vaedoctor.demo import example
from vaedoctor.report.pages import write_pages
from vaedoctor.rule import FAMILIES, all_rules

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "vaedoctor"
RULES = all_rules()

LAYERS = (
    {"notebook"},
    {"span"},
    {"picture", "plot"},
    {"finding", "spelling"},
    {"fingerprint", "scan"},
    {"serial"},
    {"rule", "config", "suppress", "keys", "project"},
    {"subject", "strategies"},
    {"examine"},
    {"rules"},
    {"checkup"},
    {"output", "reproduce"},
    {"baseline", "isolate", "child", "init", "nursery"},
    {"agenda"},
    {"jobs", "shelf", "pytest_items", "pytest_summary"},
    {"pytest_gate"},
    {"anatomy", "cli", "__main__", "demo", "pytest_plugin"},
)
PACKAGES = {
    "subject": ("code", "trials", "script", "loading", "joining", "construct", "batches", "loss"),
    "examine": (
        *("code", "runs", "structure", "anatomy", "objective", "sampling", "codebook", "gradients"),
        *("latent", "shapes", "device", "numerics", "picture"),
    ),
}
RANK = {room: i for i, rooms in enumerate(LAYERS) for room in rooms}
REPORT_MAY_IMPORT = {
    "notebook",
    "span",
    "picture",
    "plot",
    "finding",
    "fingerprint",
    "serial",
    "rule",
    "report",
    "",
}
WITH_TORCH = {"subject", "examine", "checkup", "strategies"}

HEADINGS = ["What it checks", "Why it matters", "How to fix", "False alarms"]
FORBIDDEN = re.compile(r"\bplease\b|\bshould\b|\bmay want to\b|\billegal\b|!(?!=)", re.IGNORECASE)


def sources(folder=PACKAGE):
    """Every module of the package, as its path inside the package and its text."""
    return {
        str(path.relative_to(folder)): path.read_text(encoding="utf-8")
        for path in sorted(folder.rglob("*.py"))
        if "_fixtures" not in path.parts
    }


def imports(text, file, *, everywhere=False):
    """The modules that a file imports, absolute, at its top level or `everywhere`.

    What stands under `if TYPE_CHECKING:` is never imported.
    """
    package = ["vaedoctor", *Path(file).parent.parts]
    pending, found = list(ast.parse(text).body), []
    while pending:
        node = pending.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            pending += node.orelse
        elif isinstance(node, ast.Import):
            found += [name.name for name in node.names]
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*start, *([node.module] if node.module else [])])
            if base == "vaedoctor":
                names = [n.name for n in node.names]
                found += [f"vaedoctor.{n}" if known_room(n) else "vaedoctor" for n in names]
            else:
                found.append(base)
        elif everywhere or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            pending += ast.iter_child_nodes(node)
    return found


def known_room(name):
    return name in RANK or name == "report"


def room(module):
    """The room of an absolute module name; of ours only."""
    top, _, below = module.partition(".")
    return below.partition(".")[0] if top == "vaedoctor" else None


def wrong_imports(house):
    """The imports that go upward, or bring torch where it must not be."""
    for file, text in house.items():
        here = Path(file).parts[0].removesuffix(".py")
        for module in imports(text, file):
            there = room(module)
            if module.split(".")[0] == "torch" and here not in WITH_TORCH:
                yield f"{file} imports torch"
            if there is None:
                continue
            if here == "report" and there not in REPORT_MAY_IMPORT:
                yield f"{file} imports {module}"
            elif RANK.get(here, -1) < RANK.get(there, -1) and here not in ("report", "__init__"):
                yield f"{file} imports {module}, which is above it"
        if here in ("rules", "report"):
            always = imports(text, file, everywhere=True)
            if any(m.split(".")[0] == "torch" for m in always):
                yield f"{file} imports torch inside a function"


def wrong_turns(house):
    """The imports between the packages of one room that go against their order."""
    for file, text in house.items():
        here = Path(file).parts
        order = PACKAGES.get(here[0], ())
        if len(here) < 3 or not order:
            continue
        later = {f"vaedoctor.{here[0]}.{p}" for p in order[order.index(here[1]) + 1 :]}
        for module in imports(text, file, everywhere=True):
            if later & {module, module.rpartition(".")[0]}:
                yield f"{file} imports {module}, which comes later"


def test_the_packages_of_a_room_build_on_each_other():
    assert list(wrong_turns(sources())) == []
    for room_, order in PACKAGES.items():
        folders = {p.parent.name for p in (PACKAGE / room_).glob("*/__init__.py")}
        assert folders == set(order)


def test_a_wrong_turn_is_noticed():
    text = "from ..latent.pins import Pins"
    assert list(wrong_turns({"examine/runs/flow.py": text}))
    assert list(wrong_turns({"examine/shapes/rows.py": text})) == []


def test_imports_go_downward_and_torch_stays_in_its_rooms():
    assert list(wrong_imports(sources())) == []


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("finding.py", "from .rule import rule"),
        ("finding.py", "from . import cli"),
        ("finding.py", "if True:\n    import vaedoctor.examine.sampling.noise"),
        ("rule.py", "from .examine.examination import Examination"),
        ("subject/build.py", "from ..examine import step"),
        ("examine/noise.py", "from ..rules.sampling import sample_missing"),
        ("rules/sampling/sample_missing.py", "from ...checkup import check"),
        ("rules/sampling/sample_missing.py", "from torch import nn"),
        ("rules/sampling/sample_missing.py", "def f():\n    import torch.nn"),
        ("checkup.py", "from .cli import main"),
        ("report/as_text.py", "from ..subject.errors import TargetError"),
        ("report/as_text.py", "from ..config import Settings"),
        ("report/as_text.py", "import torch"),
        ("cli.py", "import torch"),
    ],
)
def test_a_wrong_import_is_noticed(file, text):
    assert list(wrong_imports({file: text}))


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("rule.py", "if TYPE_CHECKING:\n    from .examine.examination import Examination"),
        ("finding.py", "def f():\n    from .report.as_text import as_text"),
        ("report/as_text.py", "from .. import __version__\nfrom ..rule import FAMILIES"),
        ("subject/target.py", "import torch\nfrom .errors import TargetError"),
        ("cli.py", "from .checkup import check\nimport rich"),
    ],
)
def test_a_right_import_is_left_alone(file, text):
    assert list(wrong_imports({file: text})) == []


@pytest.mark.parametrize(
    ("code", "absent"),
    [
        ("import vaedoctor", "torch rich click pytest"),
        ("import vaedoctor.cli", "torch rich pytest hypothesis jinja2 tensorboard"),
        ("import vaedoctor.isolate", "torch rich"),
        ("import vaedoctor.pytest_plugin", "torch rich click hypothesis"),
        ("import vaedoctor.report.as_text", "torch"),
        ("from vaedoctor.rule import all_rules; all_rules()", "torch rich click"),
        ("from vaedoctor import Finding, Report, Severity", "torch rich click"),
    ],
)
def test_light_imports(code, absent):
    script = f"import sys; {code}; print(*sorted(set('{absent}'.split()) & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.split() == []


def test_light_imports_notice_torch():
    with pytest.raises(AssertionError):
        test_light_imports("import vaedoctor.subject.subject", "torch")


def test_public_names_exist():
    for name in vaedoctor.__all__:
        assert getattr(vaedoctor, name).__name__.removeprefix("vaedoctor.") == name
    with pytest.raises(AttributeError):
        _ = vaedoctor.nothing


def decorated():
    """The codes in the `@rule("...")` decorators, with their files: also those overwritten."""
    found = defaultdict(list)
    for path in sorted((PACKAGE / "rules").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef):
                for decorator in node.decorator_list:
                    if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "rule":
                        found[ast.literal_eval(decorator.args[0])].append(path)
    return found


def test_codes_are_unique_and_names_too():
    codes = decorated()
    assert {code: files for code, files in codes.items() if len(files) > 1} == {}
    assert sorted(codes) == [r.code for r in RULES]
    assert len({r.name for r in RULES}) == len(RULES)


def test_each_folder_of_rules_is_one_family():
    families = defaultdict(set)
    for code, (path,) in decorated().items():
        families[path.parent.name].add(code[:-2])
    assert {folder: found for folder, found in families.items() if len(found) > 1} == {}


@pytest.mark.parametrize("rule", RULES, ids=lambda r: r.code)
def test_code_is_well_formed(rule):
    assert re.fullmatch(r"(VAE\d|VQ1)\d\d", rule.code)
    assert rule.code[:-2] in FAMILIES
    assert all(re.fullmatch(r"(VAE\d|VQ1)\d\d", code) for code in rule.before)
    assert rule.code not in rule.before


@pytest.mark.parametrize("rule", RULES, ids=lambda r: r.code)
def test_file_function_and_fixture_share_one_name(rule):
    file = Path(inspect.getsourcefile(rule.check))
    assert file.stem == rule.check.__name__
    fixtures = [p.parent.name for p in (ROOT / "fixtures").glob(f"*/{file.name}")]
    assert fixtures == [file.parent.name]


def page_faults(page):
    """What a rule's page lacks."""
    summary, *rest = page.split("\n")
    headings = re.findall(r"^## (.*)$", page, re.MULTILINE)
    if not summary or len(summary) > 80:
        yield f"the first line has {len(summary)} characters"
    if rest and rest[0]:
        yield "the first line is not a paragraph of its own"
    if headings not in (HEADINGS, [*HEADINGS, "References"]):
        yield f"the headings are {headings}"
    for part in re.split(r"^## .*$", page, flags=re.MULTILINE)[1:]:
        if not part.strip():
            yield "a section is empty"


@pytest.mark.parametrize("rule", RULES, ids=lambda r: r.code)
def test_page_is_complete(rule):
    assert list(page_faults(rule.page)) == []


GOOD_PAGE = "Short.\n\n" + "\n\n".join(f"## {h}\nText." for h in HEADINGS)


@pytest.mark.parametrize(
    "page",
    [
        "",
        GOOD_PAGE.replace("Short.", "x" * 81),
        GOOD_PAGE.replace("Short.\n", "Short.\nof two lines"),
        GOOD_PAGE.replace("## False alarms", "## Alarms"),
        GOOD_PAGE.replace("## How to fix\nText.", "## How to fix\n"),
        GOOD_PAGE + "\n\n## Example\nText.",
        "Short.\n\n" + "\n\n".join(f"## {h}\nText." for h in reversed(HEADINGS)),
    ],
)
def test_an_incomplete_page_is_noticed(page):
    assert list(page_faults(page))
    assert list(page_faults(GOOD_PAGE + "\n\n## References\nText.")) == []


def word_faults(text):
    """The literal words inside `Finding(...)` and `Verified(...)` calls that break the style."""
    for node in ast.walk(ast.parse(text)):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)):
            continue
        if node.func.id not in ("Finding", "Verified"):
            continue
        literals = [
            part.value
            for part in ast.walk(node)
            if isinstance(part, ast.Constant) and isinstance(part.value, str)
        ]
        yield from (said for said in literals if FORBIDDEN.search(said))
        if node.args:
            first = spoken(node.args[0])
            if first[:1].isupper() and not first[:2].isupper():
                yield f"starts with a capital: {first}"
            if first.endswith("."):
                yield f"ends with a full stop: {first}"


def spoken(node):
    """A literal or f-string as text; what is filled in counts as a small letter."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        parts = node.values
        return "".join(p.value if isinstance(p, ast.Constant) else "x" for p in parts)
    return ""


@pytest.mark.parametrize("file", [f for f in sources() if f.startswith("rules")])
def test_messages_keep_the_style(file):
    assert list(word_faults(sources()[file])) == []


@pytest.mark.parametrize(
    "call",
    [
        "Finding('please look')",
        "Finding('bad', help='you should stop')",
        "Finding(f'{x} is bad!')",
        "Finding('Bad')",
        "Finding(f'{x} is bad.')",
        "Finding('bad', notes=(f'{x} is illegal',))",
        "Verified('fine!')",
    ],
)
def test_a_message_out_of_style_is_noticed(call):
    assert list(word_faults(call))
    assert list(word_faults("Finding(f'KL of `{x}` != 0', help='use `f`')")) == []


def test_the_pages_in_docs_are_current(tmp_path):
    write_pages(tmp_path, RULES, example)
    made = {p.name: p.read_text(encoding="utf-8") for p in tmp_path.iterdir()}
    kept = {p.name: p.read_text(encoding="utf-8") for p in (ROOT / "docs/rules").iterdir()}
    stale = sorted(n for n in made.keys() | kept.keys() if made.get(n) != kept.get(n))
    assert stale == [], "run `python -m vaedoctor rules --markdown docs/rules`"


def test_the_changelog_starts_with_this_version():
    versions = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert versions[0] == vaedoctor.__version__
    declared = re.search(r'^version = "(.*)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert declared[1] == vaedoctor.__version__
