"""`# vaedoctor: ignore[...]`: what it silences, and when it is called unused."""

from types import SimpleNamespace

import pytest

from vaedoctor.finding import Finding, Outcome, Severity, Span
from vaedoctor.suppress import apply_suppressions, read_suppressions

NAMES = {
    "VAE301": "sample-missing",
    "VAE302": "sample-not-reparameterized",
    "VAE001": "unused-suppression",
}


@pytest.fixture(autouse=True)
def rules(monkeypatch):
    """The three rules that these tests know, whatever else is registered."""
    known = [SimpleNamespace(code=code, name=name) for code, name in NAMES.items()]
    monkeypatch.setattr("vaedoctor.suppress.all_rules", lambda: known)


@pytest.fixture
def judge(tmp_path):
    """The outcomes for a file with this source and findings `(code, line[, end_line])`."""

    def judge(source, *found, model_line=1, skipped=(), selected=tuple(NAMES)):
        file = tmp_path / "m.py"
        file.write_text(source, encoding="utf-8")
        findings = {code: [] for code in selected}
        for code, line, *end in found:
            at = Span(str(file), line, 1, *(end or [line]), 5) if line else None
            findings[code].append(
                Finding("bad", at=at, severity=Severity.ERROR, code=code, name=NAMES[code])
            )
        outcomes = tuple(
            Outcome(code, NAMES[code], "skipped")
            if code in skipped
            else Outcome(code, NAMES[code], "failed" if fs else "passed", tuple(fs))
            for code, fs in findings.items()
        )
        model_at = Span(str(file), model_line) if model_line else None
        return {o.code: o for o in apply_suppressions(outcomes, model_at=model_at)}

    return judge


def said(outcomes):
    return [(f.at.line, f.message) for f in outcomes["VAE001"].findings]


@pytest.mark.parametrize(
    "words",
    [
        "VAE302",
        "vae302",
        "sample-not-reparameterized",
        "VAE302, VAE301",
        " sample-missing ,VAE302 ",
    ],
)
def test_a_comment_on_the_line_silences_what_it_names(judge, words):
    source = f"class VAE:\n    x = 1  # vaedoctor: ignore[{words}]\n"
    outcomes = judge(source, ("VAE302", 2), skipped=["VAE301"])
    assert outcomes["VAE302"].status == "passed"
    assert outcomes["VAE302"].findings == ()
    assert len(outcomes["VAE302"].suppressed) == 1
    assert said(outcomes) == []


def test_a_comment_silences_nothing_else(judge):
    source = "class VAE:\n    x = 1  # vaedoctor: ignore[VAE302]\n    y = 2\n"
    outcomes = judge(source, ("VAE301", 2), ("VAE302", 2), ("VAE302", 3))
    assert [f.at.line for f in outcomes["VAE302"].findings] == [3]
    assert [f.at.line for f in outcomes["VAE302"].suppressed] == [2]
    assert outcomes["VAE302"].status == "failed"
    assert len(outcomes["VAE301"].findings) == 1


def test_any_line_of_the_span_counts(judge):
    source = "class VAE:\n    x = f(\n        1,\n    )  # vaedoctor: ignore[VAE302]\n"
    assert judge(source, ("VAE302", 2, 4))["VAE302"].findings == ()
    assert len(judge(source, ("VAE302", 2, 3))["VAE302"].findings) == 1


@pytest.mark.parametrize(
    ("head", "line"),
    [
        ("class VAE:  # vaedoctor: ignore[VAE302]\n", 1),
        ("@deco\nclass VAE(  # vaedoctor: ignore[VAE302]\n    object,\n):\n", 1),
        ("@deco\nclass VAE(\n    object,\n):  # vaedoctor: ignore[VAE302]\n", 2),
    ],
)
def test_a_comment_on_the_class_line_silences_everywhere(judge, head, line):
    outcomes = judge(
        f"{head}    x = 1\n    y = 2\n", ("VAE302", None), ("VAE302", 5), model_line=line
    )
    assert len(outcomes["VAE302"].suppressed) == 2
    assert said(outcomes) == []


def test_the_class_line_of_another_class_silences_only_its_own_line(judge):
    source = "class VAE:\n    x = 1\nclass Other:  # vaedoctor: ignore[VAE302]\n    y = 2\n"
    assert len(judge(source, ("VAE302", 2), ("VAE302", 4))["VAE302"].findings) == 2


def test_text_in_a_string_is_no_comment(judge):
    source = "class VAE:\n    x = '# vaedoctor: ignore[VAE302]'\n"
    outcomes = judge(source, ("VAE302", 2))
    assert len(outcomes["VAE302"].findings) == 1
    assert said(outcomes) == []


def test_an_unused_comment_is_a_note_at_its_place(judge):
    source = "class VAE:\n    x = 1  # why; # vaedoctor: ignore[VAE301, VAE302]\n"
    outcomes = judge(source, ("VAE301", 2))
    (note,) = outcomes["VAE001"].findings
    assert note.severity is Severity.NOTE
    assert note.message == (
        "this comment silences VAE302 (sample-not-reparameterized), which found nothing here"
    )
    assert note.help == "remove `VAE302` from the comment"
    assert (note.at.line, note.at.col, note.at.end_col) == (2, 19, 54)
    assert outcomes["VAE001"].status == "failed"


def test_a_rule_that_did_not_run_makes_no_comment_unused(judge):
    source = "class VAE:\n    x = 1  # vaedoctor: ignore[VAE302]\n"
    assert said(judge(source, skipped=["VAE302"])) == []
    assert said(judge(source, selected=["VAE301", "VAE001"])) == []
    assert said(judge(source)) != []


def test_comments_outside_the_models_class_are_not_judged(judge):
    source = "class VAE:\n    x = 1\nclass Other:\n    y = 1  # vaedoctor: ignore[VAE302]\n"
    assert said(judge(source)) == []
    assert len(said(judge(source, model_line=3))) == 1
    assert said(judge(source, model_line=None)) == []


def test_a_bare_ignore_silences_nothing_and_is_a_note(judge):
    for bare in ("ignore", "ignore[]", "ignore[ , ]"):
        outcomes = judge(f"class VAE:\n    x = 1  # vaedoctor: {bare}\n", ("VAE302", 2))
        assert len(outcomes["VAE302"].findings) == 1
        assert said(outcomes) == [(2, "this comment names no rule, so it silences nothing")]


def test_an_unknown_rule_is_a_note_with_a_suggestion(judge):
    source = "class VAE:\n    x = 1  # vaedoctor: ignore[sample-mising]\n"
    (note,) = judge(source)["VAE001"].findings
    assert note.message == "this comment names `sample-mising`, which is no rule"
    assert note.help == "did you mean `sample-missing`?"


def test_naming_the_rule_itself_keeps_an_unused_comment(judge):
    outcomes = judge("class VAE:\n    x = 1  # vaedoctor: ignore[VAE302, VAE001]\n")
    assert outcomes["VAE001"].status == "passed"
    assert len(outcomes["VAE001"].suppressed) == 1


def test_unselected_unused_suppression_says_nothing(judge):
    source = "class VAE:\n    x = 1  # vaedoctor: ignore[VAE302]\n"
    assert set(judge(source, selected=["VAE302"])) == {"VAE302"}


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"def f(:\n  '''", b""])
def test_a_file_that_is_not_python_has_no_comments(tmp_path, content):
    (tmp_path / "m.py").write_bytes(content)
    assert read_suppressions(str(tmp_path / "m.py")) == ()
    assert read_suppressions(str(tmp_path / "missing.py")) == ()
    found = Finding("bad", at=Span(str(tmp_path / "m.py"), 1), severity=Severity.ERROR)
    outcomes = (Outcome("VAE302", "x", "failed", (found,)),)
    assert apply_suppressions(outcomes, model_at=found.at) == outcomes
