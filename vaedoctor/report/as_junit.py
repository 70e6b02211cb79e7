"""The report as JUnit XML: a suite a target, a case a rule, so that CI counts them as tests."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from xml.etree import ElementTree as Xml

from ..finding import Finding, Outcome, Report, Stop, several
from .as_text import finding_text
from .plain import place_of_target, plain
from .verdict import STOPPED


def as_junit(reports: Report | Sequence[Report]) -> str:
    """One report or several. Findings below `fail_on` are told, but fail no case."""
    root = Xml.Element("testsuites", name="vaedoctor")
    for report in several(reports):
        root.append(_suite(report))
    for key in ("tests", "failures", "errors", "skipped"):
        root.set(key, str(sum(int(suite.get(key, 0)) for suite in root)))
    Xml.indent(root)
    return Xml.tostring(root, encoding="unicode", xml_declaration=False).join(
        ('<?xml version="1.0" encoding="utf-8"?>\n', "\n")
    )


def _suite(report: Report) -> Xml.Element:
    cases = list(_cases(report))
    count = {key: sum(case.find(tag) is not None for case in cases) for key, tag in _KINDS.items()}
    suite = Xml.Element("testsuite", name=place_of_target(report.target), tests=str(len(cases)))
    suite.attrib |= {key: str(n) for key, n in count.items()}
    suite.set("time", f"{report.seconds:.3f}")
    properties = Xml.SubElement(suite, "properties")
    for name, value in report.environment.items():
        Xml.SubElement(properties, "property", name=plain(name), value=plain(str(value)))
    suite.extend(cases)
    return suite


_KINDS = {"failures": "failure", "errors": "error", "skipped": "skipped"}


def _cases(report: Report) -> Iterator[Xml.Element]:
    """The cases with findings in the report's order, then the others by code."""
    if report.stop is not None:
        yield _stopped(report.stop, report)
    order = {f.code: i for i, f in reversed(list(enumerate(report.findings)))}
    for outcome in sorted(report.outcomes, key=lambda o: order.get(o.code, len(order) + 1)):
        yield _case(outcome, report)


def _case(outcome: Outcome, report: Report) -> Xml.Element:
    case = _named(f"{outcome.code} {outcome.name}", report)
    findings = [f for f in report.findings if f.code == outcome.code]
    failing = [f for f in findings if f.severity.rank >= report.fail_on.rank]
    if failing:
        first = plain(failing[0].message)
        failure = Xml.SubElement(case, "failure", message=first, type=str(failing[0].severity))
        failure.text = _told(failing)
    elif outcome.status == "crashed":
        Xml.SubElement(case, "error", message=plain(outcome.reason), type="crashed")
    elif outcome.status == "skipped":
        Xml.SubElement(case, "skipped", message=plain(outcome.reason))
    mild = [f for f in findings if f not in failing]
    if mild:
        Xml.SubElement(case, "system-out").text = _told(mild)
    return case


def _stopped(stop: Stop, report: Report) -> Xml.Element:
    case = _named("examination", report)
    error = Xml.SubElement(case, "error", message=f"{STOPPED}: {plain(stop.message)}", type="stop")
    error.text = plain(f"{stop.traceback}\nnext: {stop.next_step}", lines=True)
    return case


def _named(name: str, report: Report) -> Xml.Element:
    return Xml.Element("testcase", classname=place_of_target(report.target), name=plain(name))


def _told(findings: list[Finding]) -> str:
    return "\n\n".join(finding_text(f) for f in findings)
