"""Every format: the same findings in the same order, parsed back, whatever the names are."""

import dataclasses
import json
import linecache
import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest
import sarif_pydantic
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from markdown_it import MarkdownIt
from reports import ordinary, reports

from vaedoctor.finding import Curve, Finding, Outcome, Plot, Report, Severity, Span, Stop
from vaedoctor.report.as_concise import as_concise
from vaedoctor.report.as_github import as_github
from vaedoctor.report.as_html import as_html
from vaedoctor.report.as_json import as_json
from vaedoctor.report.as_junit import as_junit
from vaedoctor.report.as_markdown import LARGEST, as_markdown
from vaedoctor.report.as_sarif import as_sarif
from vaedoctor.report.as_text import as_text
from vaedoctor.report.plain import plain
from vaedoctor.serial import from_json

ROOT = Path(__file__).parents[1]
# A report is too large to shrink in a reasonable time.
some = settings(max_examples=30, deadline=None, phases=set(Phase) - {Phase.shrink, Phase.explain})
one_or_several = reports() | st.lists(reports(), max_size=3)


def all_of(given):
    return [given] if isinstance(given, Report) else given


def findings_of(given):
    return [f for report in all_of(given) for f in report.findings]


@pytest.fixture
def report(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return ordinary(tmp_path)


# -- json ------------------------------------------------------------------------------------


def strict(schema):
    """The schema without room for keys that it does not name."""
    if isinstance(schema, list):
        return [strict(s) for s in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {"additionalProperties": False} if "required" in schema and "type" in schema else {}
    return {**closed, **{k: strict(v) for k, v in schema.items()}}


SCHEMA = json.loads((ROOT / "docs/report.schema.json").read_text())
VALIDATOR = Draft202012Validator(strict(SCHEMA))


def test_the_schema_is_one():
    Draft202012Validator.check_schema(SCHEMA)


@given(one_or_several)
@some
def test_json_keeps_its_schema_and_reads_back(given):
    text = as_json(given)
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\ufeff]", text)
    VALIDATOR.validate(json.loads(text))
    again = from_json(text)
    assert as_json(again[0] if isinstance(given, Report) else again) == text
    assert [f.message for r in again for f in r.findings] == [f.message for f in findings_of(given)]


def test_the_schema_notices_what_is_not_in_it(report):
    data = json.loads(as_json(report))
    assert VALIDATOR.is_valid(data)
    assert not VALIDATOR.is_valid({**data, "more": 1})
    assert not VALIDATOR.is_valid({**data, "exit_code": 3})
    del data["findings"][0]["at"]
    assert not VALIDATOR.is_valid(data)


# -- lines -----------------------------------------------------------------------------------


@given(one_or_several)
@some
def test_concise_is_one_line_a_finding(given):
    lines = as_concise(given).split("\n")[:-1]
    stopped = sum(r.stop is not None for r in all_of(given))
    assert len(lines) == len(findings_of(given)) + stopped
    assert not any(line.lstrip().startswith("::") or "##[" in line for line in lines)


def test_concise_is_what_editors_read(report):
    assert as_concise(report) == (
        "mymodel.py:4:13: VAE302 `.sample()` cuts the gradient\n"
        "mymodel.py:1:1: VAE601 `aux.weight` gets no gradient\n"
    )


@given(one_or_several)
@some
def test_text_holds_no_workflow_command(given):
    for line in as_text(given, verbose=True, statistics=True).split("\n"):
        assert not line.lstrip().startswith("::")
        assert "##[" not in line


def parsed(command):
    """A workflow command by the grammar of GitHub's runner: level, properties, message."""
    match = re.fullmatch(r"::(error|warning|notice) ([^:]*)::([^\r\n]*)", command)
    assert match, command
    told = dict(p.split("=", 1) for p in match[2].split(","))
    unescaped = {k: v.replace("%3A", ":").replace("%2C", ",") for k, v in told.items()}
    clean = {k: _percents(v) for k, v in unescaped.items()}
    return match[1], clean, _percents(match[3])


def _percents(text):
    return text.replace("%0D", "\r").replace("%0A", "\n").replace("%25", "%")


@given(reports())
@some
def test_github_commands_say_what_was_found(report):
    *commands, end = as_github(report).split("\n")
    assert end == ""
    if report.stop is not None:
        assert parsed(commands.pop(0))[0] == "error"
    assert len(commands) == len(report.findings)
    for command, finding in zip(commands, report.findings, strict=True):
        level, told, message = parsed(command)
        assert level == str(finding.severity).replace("note", "notice")
        assert told["title"] == f"vaedoctor ({finding.code})"
        assert message.startswith(plain(finding.message, lines=True))
        assert int(told["line"]) <= int(told["endLine"])
        assert told["file"]


def test_github_points_at_the_place(report):
    assert as_github(report).splitlines()[0] == (
        "::error title=vaedoctor (VAE302),file=mymodel.py,line=4,col=13,endLine=4,endColumn=37::"
        "`.sample()` cuts the gradient%0Ahelp: draw with `rsample()`"
    )


def test_github_gives_no_columns_to_a_span_of_several_lines(report):
    wide = Finding("bad", at=Span("mymodel.py", 4, 13, 5, 10), severity=Severity.NOTE, code="VAE1")
    text = as_github(Report("mymodel.py:VAE", (Outcome("VAE1", "bad", "failed", (wide,)),)))
    assert text == "::notice title=vaedoctor (VAE1),file=mymodel.py,line=4,endLine=5::bad\n"


# -- junit -----------------------------------------------------------------------------------


@given(one_or_several)
@some
def test_junit_is_xml_that_counts_right(given):
    root = ElementTree.fromstring(as_junit(given).encode("utf-8"))
    suites = root.findall("testsuite")
    assert len(suites) == len(all_of(given))
    for suite, report in zip(suites, all_of(given), strict=True):
        cases = suite.findall("testcase")
        assert int(suite.get("tests")) == len(cases)
        failing = {f.code for f in report.findings if f.severity.rank >= report.fail_on.rank}
        assert len(suite.findall("testcase/failure")) == int(suite.get("failures")) == len(failing)
        assert bool(suite.findall("testcase/error[@type='stop']")) is (report.stop is not None)
        assert len(cases) == len(report.outcomes) + (report.stop is not None)


def test_junit_fails_what_the_gate_fails(report):
    root = ElementTree.fromstring(as_junit(report))
    (failed,) = (case for case in root.iter("testcase") if case.find("failure") is not None)
    assert failed.get("name") == "VAE302 sample-not-reparameterized"
    assert "^^^^" in failed.find("failure").text
    mild = root.find(".//testcase[@name='VAE601 parameter-without-gradient']")
    assert "warning[VAE601]" in mild.find("system-out").text
    counts = {key: root.get(key) for key in ("tests", "failures", "errors", "skipped")}
    assert counts == {"tests": "5", "failures": "1", "errors": "1", "skipped": "1"}


# -- markdown --------------------------------------------------------------------------------

MARKDOWN = MarkdownIt("gfm-like", {"html": True, "linkify": False})
ALLOWED = set("h1 h2 p strong table thead tbody tr th td ul li details summary pre code".split())


def tags_of(text):
    """The tags that a reader of GitHub's Markdown makes, by name."""
    rendered = MARKDOWN.render(text)
    tags = re.findall(r"<(/?)([^\s<>/]*)([^<>]*)>", rendered)
    assert all(rest.strip() in ("", "/") or name in ("td", "th") for _, name, rest in tags)
    return [name for slash, name, _ in tags if not slash]


@given(one_or_several)
@some
def test_markdown_holds_only_our_own_markup(given):
    text = as_markdown(given)
    tags = tags_of(text)
    assert set(tags) <= ALLOWED
    assert tags.count("h2") == len(all_of(given))
    assert "://" not in re.sub(r"<pre>.*?</pre>", "", text, flags=re.DOTALL)


@given(reports().filter(lambda r: r.stop is None))
@some
def test_markdown_has_one_row_a_finding(report):
    text = as_markdown(report)
    rows = [line for line in text.partition("<details>")[0].split("\n") if line.startswith("|")]
    assert len(rows) == (len(report.findings) + 2 if report.findings else 0)
    assert all(row.count("|") == 5 for row in rows)


def test_markdown_stays_below_the_limit_of_a_step_summary(report):
    big = Finding("x" * 5000, help="y" * 5000, severity=Severity.ERROR, code="VAE302", name="n")
    many = Report("m.py:VAE", (Outcome("VAE302", "n", "failed", (big,) * 100),))
    text = as_markdown([many])
    assert len(text.encode()) <= LARGEST
    assert "details do not fit in here" in text
    assert text.count("| ❌ | VAE302") == 100
    huge = Report("m.py:VAE", (Outcome("VAE302", "n", "failed", (big,) * 300),))
    assert len(as_markdown([huge, huge]).encode()) <= LARGEST


# -- sarif -----------------------------------------------------------------------------------


def github_requires(log):
    """What GitHub code scanning requires of a SARIF file; an empty string counts as missing."""
    yield from (key for key in ("$schema", "runs") if not log.get(key))
    if log["version"] != "2.1.0":
        yield "version"
    for run in log["runs"]:
        driver = run["tool"]["driver"]
        if not driver.get("name"):
            yield "tool.driver.name"
        for rule in driver["rules"]:
            for key in ("shortDescription", "fullDescription", "help"):
                if not 0 < len(rule[key]["text"]) <= (10**9 if key == "help" else 1024):
                    yield f"{rule['id']} {key}"
            if not rule["id"] or len(rule.get("name", "")) > 255:
                yield "rule id or name"
            if len(rule["properties"]["tags"]) > 20:
                yield "tags"
        for result in run["results"]:
            yield from _result_faults(result, driver["rules"])
        if not run["automationDetails"]["id"].endswith("/"):
            yield "automationDetails.id"


def _result_faults(result, rules):
    place = result["locations"][0]["physicalLocation"]
    uri, region = place["artifactLocation"]["uri"], place["region"]
    start = (region["startLine"], region["startColumn"])
    if not result["message"]["text"]:
        yield "message"
    if not uri or uri.startswith(("/", ".", "file:")) or "\\" in uri or not uri.isascii():
        yield f"uri {uri}"
    if min(start) < 1 or (region["endLine"], region["endColumn"]) <= start:
        yield f"region {region}"
    if not result["partialFingerprints"]["primaryLocationLineHash"]:
        yield "fingerprint"
    if rules[result["ruleIndex"]]["id"] != result["ruleId"]:
        yield "ruleIndex"
    if result.get("kind", "fail") != "fail":
        yield "kind"


@given(one_or_several)
@some
def test_sarif_is_what_github_requires(given):
    text = as_sarif(given)
    sarif_pydantic.Sarif.model_validate_json(text)
    log = json.loads(text)
    assert list(github_requires(log)) == []
    (run,) = log["runs"]
    assert [r["ruleId"] for r in run["results"]] == [f.code for f in findings_of(given)]
    hashes = [r["partialFingerprints"]["primaryLocationLineHash"] for r in run["results"]]
    assert len(set(hashes)) == len(hashes)
    stopped = any(r.stop is not None for r in all_of(given))
    assert run["invocations"][0]["executionSuccessful"] is not stopped
    assert not any("](" in r["message"]["text"] for r in run["results"])


def test_a_sarif_file_that_github_refuses_is_noticed(report):
    log = json.loads(as_sarif(report))
    log["runs"][0]["results"][0]["locations"][0]["physicalLocation"]["region"]["endColumn"] = 1
    log["runs"][0]["results"][1]["message"]["text"] = ""
    log["runs"][0]["tool"]["driver"]["rules"][0]["fullDescription"]["text"] = ""
    assert len(list(github_requires(log))) == 3


def results_of(report):
    return json.loads(as_sarif(report))["runs"][0]["results"]


def test_sarif_gives_a_place_to_every_finding(report, tmp_path):
    (tmp_path / ".git").mkdir()
    first, second = results_of(report)
    place = first["locations"][0]["physicalLocation"]
    assert place["artifactLocation"]["uri"] == "mymodel.py"
    assert tuple(place["region"].values()) == (4, 13, 4, 37)
    place = second["locations"][0]["physicalLocation"]
    assert place["artifactLocation"]["uri"] == "mymodel.py"
    assert tuple(place["region"].values()) == (1, 1, 1, 22)


def outside(target, file):
    bad = Finding("bad", at=Span(file, 3, 5), severity=Severity.ERROR, code="VAE302", name="n")
    (result,) = results_of(Report(target, (Outcome("VAE302", "n", "failed", (bad,)),)))
    return result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]


def test_a_place_outside_the_repository_is_shown_inside(tmp_path, monkeypatch):
    """A package, a notebook, a file elsewhere: GitHub can show none of them by its own path."""
    root = tmp_path / "repository"
    (root / ".git").mkdir(parents=True)
    (root / "sub folder").mkdir()
    monkeypatch.chdir(root / "sub folder")
    elsewhere = tmp_path / "site-packages" / "package.py"
    elsewhere.parent.mkdir()
    elsewhere.write_text("x = 1\n" * 5)
    (root / "sub folder" / "a b.py").write_text("x = 1\n")
    assert outside("a b.py:VAE", str(elsewhere)) == "sub%20folder/a%20b.py"
    assert outside("package.models:VAE", str(elsewhere)) == "package/models.py"
    assert outside("nb.ipynb:VAE", "<cell 3>") == "nb.ipynb"
    assert outside("../../x/model.py:VAE", "../../x/model.py") == "x/model.py"
    (root / "pyproject.toml").write_text("[project]\n")
    assert outside("package.models:VAE", str(elsewhere)) == "pyproject.toml"


def test_fingerprints_follow_the_line_not_its_number(report, tmp_path):
    file = tmp_path / "mymodel.py"

    def hashes():
        return [r["partialFingerprints"]["primaryLocationLineHash"] for r in results_of(report)]

    before = hashes()
    file.write_text("import torch\n" + file.read_text())
    linecache.checkcache()
    (outcome,) = (o for o in report.outcomes if o.code == "VAE302")
    (cut,) = outcome.findings
    moved = dataclasses.replace(cut, at=Span(cut.at.file, 5, 13, 5, 37), measured={"gradient": 1.0})
    report = dataclasses.replace(
        report, outcomes=(dataclasses.replace(outcome, findings=(moved, moved)),)
    )
    after = hashes()
    assert after[0] == before[0]
    assert after[1].partition(":")[0] == after[0].partition(":")[0]
    assert after[1] != after[0]


# -- html ------------------------------------------------------------------------------------

VOID = {"meta", "wbr"}
PAGE_TAGS = set(
    "html head meta wbr title style body header nav ul li a strong span h1 h2 h3 main section "
    "div p figure figcaption details summary article pre b mark table tbody tr th td code footer "
    "i".split()
)
DRAWN_TAGS = set("svg title desc g rect circle line polyline polygon text a".split())


class Page(HTMLParser):
    """Reads a page: its tags must be known, closed in order, and point nowhere outside."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.text, self.ids, self.links, self.counts = [], [], [], [], Counter()
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        allowed = DRAWN_TAGS if "svg" in self.open or tag == "svg" else PAGE_TAGS
        assert tag in allowed, tag
        for name, value in attributes:
            assert not name.startswith("on")
            assert name not in ("src", "style", "xlink:href")
            if name == "href":
                assert value.startswith("#")
                self.links.append(value[1:])
            if name == "id":
                self.ids.append(value)
        self.counts[tag] += 1
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not {"style", "svg"} & set(self.open):
            self.text.append(data)

    def handle_comment(self, data):
        raise AssertionError(data)

    def handle_decl(self, decl):
        assert decl == "doctype html"

    def unknown_decl(self, data):
        raise AssertionError(data)


def words_of(text):
    """What a browser shows of text between tags, where code stands for backticks."""
    return re.sub(r"\s+", " ", re.sub(r"`([^`]*)`", r"\1", plain(text))).strip()


@given(one_or_several)
@some
def test_the_page_shows_every_name_and_runs_none(given):
    text = as_html(given)
    page = Page(text)
    shown = re.sub(r"\s+", " ", "".join(page.text))
    for finding in findings_of(given):
        assert words_of(finding.message) in shown
        assert words_of(finding.help) in shown
    assert page.counts["article"] == len(findings_of(given))
    assert len(set(page.ids)) == len(page.ids)
    assert set(page.links) <= set(page.ids)
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\ufeff]", text)
    drawings = re.findall(r"<svg .*?</svg>", text, re.DOTALL)
    assert len(drawings) >= sum(len(f.plots) for f in findings_of(given))
    for drawing in drawings:
        ElementTree.fromstring(drawing)


def test_the_page_needs_no_network_and_no_script(report):
    text = as_html([report, report])
    assert not re.search(r"https?:|//|@import|url\(|<script|<link|<iframe", text)
    assert "default-src 'none'" in text


def test_the_page_says_the_verdict_first(report):
    page = "".join(Page(as_html(report)).text)
    order = ["1 error, 1 warning", "Findings", "cuts the gradient", "Normal(mu, std).sample()"]
    order += ["draw with rsample()", "What was judged", "no objective found", "2.13.0"]
    places = [page.index(said) for said in order]
    assert places == sorted(places)


def test_the_page_stays_small_with_forty_findings(report):
    points = (-2.0, -1.0, 0.0, 1.0, 2.0)
    line = Plot("p", "unit", "nats", points, (Curve("KL", (0.123456,) * 5),) * 2)
    bars = Plot("q", "layer", "norm", ("layers.0.weight",) * 20, (Curve("g", (0.1234,) * 20),))
    (first, *_) = report.findings
    outcomes = tuple(
        Outcome(f"VAE3{i:02}", "n", "failed", (dataclasses.replace(first, plots=(plot,)),))
        for i, plot in enumerate((line, bars) * 20)
    )
    text = as_html(dataclasses.replace(report, outcomes=outcomes))
    assert text.count("<svg") == 40
    assert len(text.encode()) < 300_000


# -- several reports -------------------------------------------------------------------------


def test_one_broken_target_does_not_hide_the_others(report):
    stop = Stop("no such file", "Traceback: theirs", "look for `x.py`")
    given = [report, Report("x.py:VAE", stop=stop), Report("healthy.py:VAE")]
    text = as_text(given, width=100)
    assert text.splitlines()[-1] == (
        "3 targets: 1 healthy, 1 with findings, 1 not examined · 1 error, 1 warning · 1.3 s"
    )
    assert "error: no such file\n  Traceback: theirs\nnext: look for `x.py`\n" in text
    assert as_concise(given).splitlines()[-1] == "x.py:VAE: could not be examined: no such file"
    assert "::error title=vaedoctor::x.py:VAE could not be examined" in as_github(given)
    assert "**could not be examined**: no such file" in as_markdown(given)
    assert json.loads(as_json(given))["exit_code"] == 2
    assert ElementTree.fromstring(as_junit(given)).get("errors") == "2"


def test_statistics_count_the_findings_of_each_rule(report):
    assert as_concise([report, report], statistics=True).splitlines()[-2:] == [
        "    2  VAE302  sample-not-reparameterized",
        "    2  VAE601  parameter-without-gradient",
    ]
    assert "    1  VAE302  sample-not-reparameterized\n" in as_text(report, statistics=True)
