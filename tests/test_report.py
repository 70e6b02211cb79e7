"""The report as text and as JSON, for hand-made reports."""

import dataclasses
import json
import linecache
import re

import pytest

from vaedoctor.finding import Finding, Outcome, Part, Picture, Report, Severity, Span, Verified
from vaedoctor.report.as_json import as_json
from vaedoctor.report.as_text import as_text
from vaedoctor.report.frame import frame
from vaedoctor.report.plain import number, plain

SOURCE = """\
class VAE(nn.Module):
    def forward(self, x):
        mu, std = self.encode(x)
        z = Normal(mu, std).sample()
        return self.decoder(z), mu, std
"""

TEXT = """\
vaedoctor 0.1.0 · mymodel.py:VAE · torch 2.13.0 · cpu · seed 0 · batch 8×784

how: constructed with `VAE(784, 32)` as in line 9

anatomy: gaussian (certain)
    x               8×784
  → location  `mu`  8×32   mymodel.py:3
  → z         `z`   8×32   mymodel.py:4

[✓] structure        1 rule passed
[✗] sampling         1 error, 1 suppressed, 2 rules passed
[!] gradients        1 warning
[-] objective        2 skipped
[☠] numerics         1 rule crashed (our bug: please report)

verified:
  ✓ sampler and KL mean the same scale (scale = 0.607)
  1 more with `-v`

skipped: 2 rules, told why with `-v`

crashed:
  VAE801: KeyError: 'z'

error[VAE302] sample-not-reparameterized: no gradient flows through `sample`
 --> mymodel.py:4:13
  |
4 |         z = Normal(mu, std).sample()
  |             ^^^^^^^^^^^^^^^^^^^^^^^^
 = measured: gradient = 0, scale = 0.368, rows = 8
 = note: the KL still reaches the encoder, so the loss falls although the
         reconstruction teaches the encoder nothing
 = help: draw with `rsample()`

warning[VAE601] parameter-without-gradient: `aux.weight` gets no gradient
 = help: use `aux` or remove it

1 error, 1 warning (1 suppressed) · 5 rules in 1.3 s, 3 not judged · seed 0
next: vaedoctor explain VAE302
"""


@pytest.fixture
def report(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "mymodel.py"
    file.write_text(SOURCE)
    at = Span(str(file), 4, 13, 4, 37)
    cut = Finding(
        "no gradient flows through `sample`",
        help="draw with `rsample()`",
        measured={"gradient": 0.0, "scale": 0.36787944, "rows": 8},
        at=at,
        notes=(
            "the KL still reaches the encoder, so the loss falls although the "
            "reconstruction teaches the encoder nothing",
        ),
        severity=Severity.ERROR,
        code="VAE302",
        name="sample-not-reparameterized",
    )
    idle = Finding(
        "`aux.weight` gets no gradient",
        help="use `aux` or remove it",
        severity=Severity.WARNING,
        code="VAE601",
        name="parameter-without-gradient",
    )
    frozen = dataclasses.replace(idle, code="VAE305", name="noise-shared-across-batch")
    gaussian = Verified("the noise is Gaussian", {"mean": 0.012, "std": 0.998})
    alike = Verified("sampler and KL mean the same scale", {"scale": 0.607})
    missing = "no objective found: give one with `--objective`"
    return Report(
        f"{file}:VAE",
        (
            Outcome("VAE101", "unregistered-layer", "passed"),
            Outcome("VAE302", "sample-not-reparameterized", "failed", (cut,)),
            Outcome("VAE303", "scale-misread", "passed", (), (), (alike,)),
            Outcome("VAE305", "noise-shared-across-batch", "passed", (), (frozen,), (gaussian,)),
            Outcome("VAE601", "parameter-without-gradient", "failed", (idle,)),
            Outcome("VAE701", "kl-formula-mismatch", "skipped", reason=missing),
            Outcome("VAE702", "kl-missing", "skipped", reason=missing),
            Outcome("VAE801", "non-finite-forward", "crashed", reason="KeyError: 'z'"),
        ),
        Picture(
            "gaussian",
            "certain",
            (
                Part("x", "", (8, 784)),
                Part("location", "mu", (8, 32), Span(str(file), 3)),
                Part("z", "z", (8, 32), at),
            ),
        ),
        ("constructed with `VAE(784, 32)` as in line 9",),
        {"torch": "2.13.0", "device": "cpu", "seed": 0, "batch": "8×784"},
        seconds=1.3,
    )


def test_text(report):
    assert as_text(report) == TEXT


def test_verbose_text_says_all_that_is_fine_and_why_the_rest_was_not_judged(report):
    text = as_text(report, verbose=True)
    for line in (
        "  ✓ the noise is Gaussian (mean = 0.012, std = 0.998)",
        "  VAE701 kl-formula-mismatch: no objective found: give one with `--objective`",
        "  VAE702 kl-missing: no objective found: give one with `--objective`",
        "  VAE303 scale-misread",
    ):
        assert line in text.splitlines()
    assert "with `-v`" not in text


def test_a_reason_that_keeps_many_rules_from_being_judged_is_told(report):
    lost = tuple(
        Outcome(f"VAE80{n}", "x", "skipped", reason="the step raises") for n in range(1, 5)
    )
    more = dataclasses.replace(report, outcomes=report.outcomes[:-1] + lost)
    shown = "skipped:\n  VAE801, VAE802, VAE803, VAE804: the step raises\n  2 more with `-v`\n"
    assert shown in as_text(more)


def test_str_of_a_report_is_its_text(report):
    assert str(report) == TEXT


def test_text_fits_its_width(report):
    for width in (40, 60, 80):
        for line in as_text(report, width=width, verbose=True).splitlines():
            assert len(line) <= width


def test_quiet_text_is_findings_and_the_verdict(report):
    start, end = TEXT.index("error["), TEXT.index("next:")
    assert as_text(report, quiet=True) == TEXT[start:end]


def test_verbose_text_names_every_rule(report):
    text = as_text(report, verbose=True)
    assert all(f"{o.code} {o.name}" in text.replace("]", "") for o in report.outcomes)


def test_healthy_text_ends_happily():
    healthy = Report("m.py:VAE", (Outcome("VAE101", "unregistered-layer", "passed"),))
    assert as_text(healthy).splitlines()[-1] == "no problems found · 1 rule in 0.0 s"


def test_no_colour_unless_asked(report, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert "\x1b" not in as_text(report)
    monkeypatch.setenv("NO_COLOR", "1")
    coloured = as_text(report, color=True)
    assert "\x1b[1;31merror[VAE302] sample-not-reparameterized:\x1b[0m" in coloured
    assert "\x1b[1;31m            ^^^^^^^^^^^^^^^^^^^^^^^^\x1b[0m" in coloured


def test_ascii_text_is_ascii(report):
    text = as_text(report, ascii=True)
    assert text.isascii()
    assert "[+] structure" in text
    assert "8x784" in text


def test_colour_does_not_change_the_words(report):
    assert re.sub(r"\x1b\[[0-9;]*m", "", as_text(report, color=True)) == TEXT


HOSTILE = "[bold red]x[/] \x1b[2J\x9b1m\r\x07 :smile: \u202egnp.exe\nnext line"


def test_hostile_text_is_shown_and_never_interpreted():
    bad = Finding(
        HOSTILE,
        help=HOSTILE,
        measured={HOSTILE: HOSTILE},
        at=Span(f"/{HOSTILE}.py", 3),
        notes=(HOSTILE,),
        severity=Severity.ERROR,
        code="VAE101",
        name="unregistered-layer",
        traceback=HOSTILE,
    )
    report = Report(
        f"{HOSTILE}.py:VAE",
        (
            Outcome("VAE101", "unregistered-layer", "failed", (bad,), (), (Verified(HOSTILE),)),
            Outcome("VAE102", "unregistered-parameter", "skipped", reason=HOSTILE),
        ),
        Picture(HOSTILE, HOSTILE, (Part("x", HOSTILE, (1,), Span(HOSTILE, 1)),)),
        (HOSTILE,),
        {"torch": HOSTILE, "batch": HOSTILE},
    )
    for text in (as_text(report), as_text(report, ascii=True), as_text(report, verbose=True)):
        assert not {c for c in text if ord(c) < 32 or 127 <= ord(c) < 160} - {"\n"}
        assert "\u202e" not in text
        assert "[bold red]x[/]" in text
        assert ":smile:" in text
        assert r"\x1b[2J" in text


def test_hostile_text_stays_raw_data_in_json_and_cannot_reach_a_terminal():
    report = Report("m.py:VAE", notes=(HOSTILE,))
    text = as_json(report)
    assert json.loads(text)["notes"] == [HOSTILE]
    assert not {c for c in text if ord(c) < 32 or 127 <= ord(c) < 160} - {"\n"}


def test_json_round_trip(report):
    again = Report.from_json(as_json(report))
    assert as_json(again) == as_json(report)
    assert as_text(again) == as_text(report)


@pytest.fixture
def lines_of(tmp_path, monkeypatch):
    """The code frame of a place in a file with this source."""
    monkeypatch.chdir(tmp_path)
    linecache.clearcache()

    def make(source, *place, width=80):
        (tmp_path / "m.py").write_text(source, encoding="utf-8")
        linecache.checkcache()
        shown = frame(Span(str(tmp_path / "m.py"), *place), width=width)
        return "".join(f"{left}{right}\n" for left, right in shown.lines())

    return make


def test_frame_of_a_span_of_several_lines_points_to_the_first_lines_end(lines_of):
    source = "x = 1\n" * 9 + "loss = f(\n    x,\n)\n"
    assert lines_of(source, 10, 8, 12, 2) == (
        "  --> m.py:10:8\n   |\n10 | loss = f(\n   |        ^^\n"
    )


def test_frame_of_a_line_without_columns_marks_its_code(lines_of):
    assert lines_of("    y = g(x)  # why\n", 1) == (
        " --> m.py:1:1\n  |\n1 |     y = g(x)  # why\n  |     ^^^^^^^^\n"
    )


def test_frame_counts_cells_not_characters(lines_of):
    assert lines_of("s = '潜在'; y = g(x)\n", 1, 11, 1, 19) == (
        " --> m.py:1:11\n  |\n1 | s = '潜在'; y = g(x)\n  |             ^^^^^^^^\n"
    )


def test_frame_expands_tabs(lines_of):
    assert lines_of("\ty = g(x)\n", 1, 6, 1, 10) == (
        " --> m.py:1:6\n  |\n1 |     y = g(x)\n  |         ^^^^\n"
    )


def test_frame_cuts_a_long_line_and_keeps_the_guilty_part(lines_of):
    long = "a = [" + "1, " * 60 + "guilty(x), " + "2, " * 60 + "]\n"
    text = lines_of(long, 1, 186, 1, 195)
    _, _, source, carets = text.splitlines()
    assert len(source) <= 80
    assert "guilty(x)" in source
    assert source[carets.index("^") : carets.rindex("^") + 1] == "guilty(x)"


def test_frame_cuts_the_end_of_a_line_that_only_goes_on(lines_of):
    _, _, source, carets = lines_of("y = g(x) + " + "1 + " * 40 + "1\n", 1, 5, 1, 9).splitlines()
    assert len(source) <= 80
    assert source.startswith("1 | y = g(x) + 1")
    assert source.endswith("…")
    assert source[carets.index("^") : carets.rindex("^") + 1] == "g(x)"


def test_frame_cuts_a_guilty_part_that_is_too_long(lines_of):
    text = lines_of("        y = g(" + "x + " * 40 + "x)\n", 1, 13, 1, 176)
    _, _, source, carets = text.splitlines()
    assert len(source) == len(carets) <= 80
    assert source[carets.index("^") :].startswith("g(x + x")


def test_frame_without_its_file_is_a_place():
    assert list(frame(Span("/nowhere/m.py", 7, 3)).lines()) == [(" --> ", "/nowhere/m.py:7:3")]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.36787944, "0.368"),
        (1.0, "1"),
        (1234.5, "1230"),
        (123456789.0, "1.23e+08"),
        (0.0000123, "1.23e-05"),
        (784, "784"),
        (1234567, "1234567"),
        (float("nan"), "nan"),
        (True, "True"),
        (None, "none"),
        ("float16", "float16"),
        ([0.12345, 2], "[0.123, 2]"),
        (list(range(20)), "[0, 1, 2, 3, 4, 5, 6, 7, … (20)]"),
    ],
)
def test_numbers_have_three_significant_digits(value, text):
    assert number(value) == text


def test_plain_keeps_line_breaks_only_when_asked():
    assert plain("a\nb\tc") == "a\\nb    c"
    assert plain("a\r\nb", lines=True) == "a\nb"
