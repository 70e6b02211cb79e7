"""Drawings: the same numbers give the same picture, which a person has looked at.

`python tests/test_svg.py` draws the pictures in `tests/drawings` again; look at them in a browser
(their colours come from the page that holds them).
"""

import math
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reports import pictures, plots

from vaedoctor.finding import (
    Arrow,
    Curve,
    Finding,
    Outcome,
    Part,
    Picture,
    Plot,
    Report,
    Severity,
    Span,
    Term,
)
from vaedoctor.plot import gradient_plot, kl_plot, unit_plot, weight_plot
from vaedoctor.report.diagram import diagram
from vaedoctor.report.layout import MOST_ROWS, arrange, shortened
from vaedoctor.report.svg import Axis, plot, shorten

FOLDER = Path(__file__).parent / "drawings"
HEADS = (-2.0, -1.0, 0.0, 1.0, 2.0)


def at(line, col=1):
    return Span("vae.py", line, col)


def finding(code, name, where, severity=Severity.ERROR, message="wrong"):
    return Finding(message, at=where, code=code, name=name, severity=severity)


def report(parts, arrows, findings, terms=()):
    outcomes = tuple(Outcome(f.code, f.name, "failed", (f,)) for f in findings)
    picture = Picture("gaussian", "high", parts, tuple(Arrow(*a) for a in arrows), (), terms)
    return Report("vae.py:VAE", outcomes, picture)


CUT = report(
    (
        Part("x", "", (8, 784)),
        Part("encoder", "hidden", (8, 256), at(17), "Linear", 0.0, 1.3),
        Part("location", "mu", (8, 32), at(18, 9), "Linear", 0.0, 1.27),
        Part("scale", "logvar", (8, 32), at(18, 22), "Linear", 0.0, 2.14),
        Part("sample", "z", (8, 32), at(19), "normal"),
        Part("idle", "extra", None, at(12), "Linear"),
        Part("layer", "decoder", (8, 784), at(20), "Linear", 6.87, 0.0),
        Part("x_hat", "x_hat", (8, 784), at(20), "", 6.87, 0.0),
    ),
    [(0, 1), (1, 2), (1, 3), (2, 4), (3, 4), (4, 6), (6, 7)],
    [
        finding("VAE104", "layer-outside-forward", at(12), Severity.WARNING),
        finding("VAE302", "sample-not-reparameterized", at(19)),
        finding("VAE701", "kl-formula-mismatch", None),
    ],
    (Term("reconstruction", "recon", 23.6, at(30)), Term("kl", "kl", 4.46, at(31))),
)

LEAK = report(
    (
        Part("x", "", (8, 16)),
        Part("encoder", "down", (8, 12), at(21), "Conv2d", 5.67, 0.41),
        Part("location", "mu", (8, 5), at(22), "Linear", 5.9, 0.7),
        Part("scale", "logvar", (8, 5), at(22), "Linear", 3.7, 0.5),
        Part("sample", "z", (8, 5), at(23), "randn_like", 5.9, 0.0),
        Part("layer", "up", (8, 16), at(32), "ConvTranspose2d", 14.0, 0.0),
        Part("x_hat", "x_hat", (8, 16), at(33), "", 14.0, 0.0),
    ),
    [(0, 1), (1, 2), (1, 3), (2, 4), (3, 4), (4, 5), (1, 5), (5, 6)],
    [finding("VAE403", "decoder-sees-input", at(31), Severity.WARNING)],
)

DRAWN = {
    "lines": plot(kl_plot(HEADS, (1.6, 0.7, 0.0, -0.1, 1.2), (0.6, 0.2, 0.0, 0.4, 2.2))),
    "log-bars": plot(gradient_plot([("encoder.0.weight", 1.3e-7), ("decoder.weight", 0.9)])),
    "grouped-bars": plot(weight_plot(0.2, 1.0)),
    "many-units": plot(unit_plot("the KL of each unit", [1 / (i + 1) for i in range(40)])),
    "gaps": plot(
        Plot("gaps", "step", "nats", (0.0, 1.0, 2.0), (Curve("KL", (1.0, None, math.inf)),))
    ),
    "cut-and-idle": diagram(CUT, prefix="target-1"),
    "leak": diagram(LEAK),
}


@pytest.mark.parametrize("name", DRAWN)
def test_a_drawing_is_the_one_that_was_looked_at(name):
    assert DRAWN[name] == (FOLDER / f"{name}.svg").read_text(encoding="utf-8").rstrip("\n"), (
        "run `python tests/test_svg.py` and look at the picture"
    )


def test_no_drawing_is_left_over():
    assert {f.stem for f in FOLDER.iterdir()} == set(DRAWN)


def numbers_of(svg):
    return [float(n) for n in re.findall(r' (?:x|y|cx|cy|x1|x2|y1|y2)="([^"]*)"', svg)]


@given(plots())
@settings(max_examples=40, deadline=None)
def test_every_plot_stays_on_its_paper(data):
    svg = plot(data)
    root = ElementTree.fromstring(svg)
    _, _, width, height = map(float, root.get("viewBox").split())
    assert all(-1 <= n <= max(width, height) + 1 for n in numbers_of(svg))
    assert root.get("role") == "img"
    assert [child.tag for child in root[:2]] == ["title", "desc"]


@given(pictures())
@settings(max_examples=40, deadline=None)
def test_every_picture_stays_on_its_paper(picture):
    svg = diagram(Report("m.py:VAE", picture=picture))
    if picture.parts:
        root = ElementTree.fromstring(svg)
        _, _, width, height = map(float, root.get("viewBox").split())
        assert all(-1 <= n <= max(width, height) + 1 for n in numbers_of(svg))


def test_a_cut_is_crossed_out_and_findings_have_their_number_on_the_picture():
    svg = DRAWN["cut-and-idle"]
    assert svg.count('class="cut"') == 1
    assert svg.count('class="station idle warning"') == 1
    linked = re.findall(r'href="#target-1-finding-(\d)"', svg)
    assert sorted(linked) == ["1", "2", "3"]
    assert 'class="station term kl error"' in svg


def test_a_healthy_model_is_drawn_without_a_cross():
    assert "cut" not in diagram(Report("m.py:VAE", picture=CUT.picture))


def test_a_gradient_that_takes_another_way_is_not_cut():
    parts = tuple(
        Part(role, role, (8, 4), None, "", recon, 0.0)
        for role, recon in (("encoder", 1.0), ("codebook", 0.0), ("layer", 1.0))
    )
    look_up = report(parts, [(0, 1), (0, 2), (1, 2)], [finding("VQ103", "n", None)])
    assert "cut" not in diagram(look_up)


def test_a_leak_is_a_lane_of_its_own():
    assert DRAWN["leak"].count('class="way leak"') == 1
    assert DRAWN["leak"].count("badge warning") == 1
    healthy = diagram(Report("m.py:VAE", picture=LEAK.picture))
    assert "leak" not in healthy


def test_a_deep_model_is_folded():
    layers = tuple(Part("encoder", f"layers.{i}") for i in range(80))
    picture = Picture("none", "", (Part("x", ""), *layers, Part("x_hat", "")))
    short = shortened(picture)
    assert len(short.parts) <= MOST_ROWS
    assert short.parts[2].name == "78 more layers"
    assert [(a.start, a.end) for a in short.arrows] == [(0, 1), (1, 2), (2, 3), (3, 4)]


def test_stations_do_not_overlap():
    layout = arrange(CUT.picture, CUT.findings)
    boxes = [*layout.stations, *layout.terms]
    for i, a in enumerate(boxes):
        for b in boxes[:i]:
            assert a.row != b.row or a.x + a.wide <= b.x or b.x + b.wide <= a.x
    assert all(b.x >= 0 and b.x + b.wide <= 400 for b in boxes)


@given(st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=5), st.booleans())
@settings(max_examples=60, deadline=None)
def test_ticks_are_few_and_inside(values, log):
    axis = Axis(values, 0.0, 100.0, log=log, zero=True)
    ticks = axis.ticks()
    assert len(ticks) <= 8
    places = [axis.at(t) for t in ticks]
    assert all(-0.1 <= p <= 100.1 for p in places)
    assert ticks == sorted(ticks)


def test_long_names_keep_their_ends():
    assert shorten("encoder.blocks.11.weight", 100) == "encoder.….weight"
    assert shorten("short", 100) == "short"


def test_curves_keep_six_digits_and_no_infinity():
    assert Curve("c", (1 / 3, math.nan, -math.inf, None)).values == (0.333333, None, None, None)
    with pytest.raises(ValueError, match="finite position"):
        Plot("p", "x", "y", (1.0, math.inf), (Curve("c", (1.0, 2.0)),))


if __name__ == "__main__":
    for name, svg in DRAWN.items():
        (FOLDER / f"{name}.svg").write_text(f"{svg}\n", encoding="utf-8", newline="\n")
