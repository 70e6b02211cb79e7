"""Reports made from any text, as no model would be named, and one that a person would meet."""

import dataclasses

from hypothesis import strategies as st

from vaedoctor.finding import (
    Arrow,
    Curve,
    Finding,
    Hunt,
    Outcome,
    Part,
    Picture,
    Plot,
    Report,
    Result,
    Severity,
    Span,
    Stop,
    Term,
    Verified,
)

NASTY = (
    "<script>alert(1)</script>",
    "</pre></details><h1>x",
    "</svg><img src=x onerror=alert(1)>",
    "'\"><a href='https://evil.example/'>",
    "<!--",
    "-->",
    "]]>",
    "]]]]><![CDATA[>",
    "\x1b[2J\x9b1m",
    "\n::error file=x::y",
    "::error::z",
    "##[error]w",
    "%0A%25",
    "\r\n\t",
    "| a | b |",
    "`` ` ```",
    "**bold** _it_ ~~no~~",
    "[click](https://evil.example)",
    "https://evil.example www.evil.example",
    "{{ 7 * 7 }}{% raw %}",
    "${{ secrets.TOKEN }}",
    "{0}",
    "&lt;&#x202e;&amp;",
    "\u202egnp.exe",
    "a\u200bb\ufeff",
    "\x00\x0b\ufffe",
    "\ud800",
    "潜在 变量",
    ":,=",
    "@everyone #1 $x^2$",
)

texts = st.lists(st.sampled_from(NASTY) | st.text(max_size=6), max_size=4).map("".join)
numbers = st.floats() | st.integers(-(10**9), 10**9) | st.booleans() | st.none() | texts
measured = st.dictionaries(texts, numbers | st.lists(numbers, max_size=3), max_size=3)
lines = st.integers(1, 50)
spans = st.builds(Span, texts, lines, lines, st.integers(0, 60), st.integers(0, 60))
codes = st.sampled_from(["VAE001", "VAE302", "VAE303", "VAE701", "VQ101", "X101"])


@st.composite
def plots(draw):
    """Curves over numbers or bars over names, with gaps and infinities."""
    size = draw(st.integers(0, 4))
    finite = st.floats(allow_nan=False, allow_infinity=False)
    x = draw(st.sampled_from([finite, texts]))
    row = st.lists(st.floats() | st.none(), min_size=size, max_size=size).map(tuple)
    return Plot(
        draw(texts),
        draw(texts),
        draw(texts),
        tuple(draw(st.lists(x, min_size=size, max_size=size))),
        tuple(draw(st.lists(st.builds(Curve, texts, row, st.booleans()), max_size=3))),
        draw(st.booleans()),
    )


@st.composite
def findings(draw, code):
    return Finding(
        message=draw(texts),
        help=draw(texts),
        measured=draw(measured),
        at=draw(st.none() | spans),
        notes=tuple(draw(st.lists(texts, max_size=2))),
        severity=draw(st.sampled_from(Severity)),
        code=code,
        name=draw(texts),
        traceback=draw(texts),
        plots=tuple(draw(st.lists(plots(), max_size=2))),
    )


@st.composite
def outcomes(draw, code):
    status = draw(st.sampled_from(["passed", "failed", "skipped", "crashed"]))
    found = st.lists(findings(code), min_size=1, max_size=2)
    verified = st.builds(Verified, texts, measured)
    return Outcome(
        code,
        draw(texts),
        status,
        findings=tuple(draw(found)) if status == "failed" else (),
        verified=tuple(draw(st.lists(verified, max_size=2))),
        reason=draw(texts),
        suppressed=tuple(draw(st.lists(findings(code), max_size=1))),
        known=tuple(draw(st.lists(findings(code), max_size=1))),
    )


@st.composite
def pictures(draw):
    sizes = st.none() | st.lists(st.integers(0, 9999), max_size=4).map(tuple)
    norms = st.none() | st.floats(0)
    known = st.sampled_from(["x", "encoder", "location", "scale", "sample", "layer", "x_hat"])
    part = st.builds(Part, known | texts, texts, sizes, st.none() | spans, texts, norms, norms)
    parts = draw(st.lists(part, max_size=5))
    index = st.integers(0, max(len(parts) - 1, 0))
    most = 5 if parts else 0
    places = st.none() | spans
    return Picture(
        draw(texts),
        draw(texts),
        tuple(parts),
        tuple(draw(st.lists(st.builds(Arrow, index, index, texts), max_size=most))),
        tuple(draw(st.lists(st.builds(Result, texts, texts, texts, sizes, places), max_size=2))),
        tuple(draw(st.lists(st.builds(Term, texts, texts, st.floats(), places), max_size=2))),
        tuple(draw(st.lists(texts, max_size=2))),
        draw(texts),
    )


@st.composite
def reports(draw):
    """Any report, of any text."""
    chosen = draw(st.lists(codes, unique=True, max_size=4))
    return Report(
        draw(texts),
        tuple(draw(outcomes(code)) for code in sorted(chosen)),
        draw(pictures()),
        tuple(draw(st.lists(texts, max_size=2))),
        draw(st.dictionaries(texts, numbers, max_size=3)),
        draw(st.sampled_from(Severity)),
        draw(st.floats(0, 1e6)),
        draw(st.none() | st.builds(Hunt, st.integers(0, 99), texts, texts, texts)),
        draw(st.none() | st.builds(Stop, texts, texts, texts)),
    )


SOURCE = """\
class VAE(nn.Module):
    def forward(self, x):
        mu, std = self.encode(x)
        z = Normal(mu, std).sample()
        return self.decoder(z), mu, std
"""


def ordinary(folder):
    """A report of one error, one warning, and rules that passed, were skipped or crashed."""
    file = folder / "mymodel.py"
    file.write_text(SOURCE)
    cut = Finding(
        "`.sample()` cuts the gradient",
        help="draw with `rsample()`",
        measured={"gradient": 0.0, "scale": 0.36787944},
        at=Span(str(file), 4, 13, 4, 37),
        notes=("the KL still reaches the encoder",),
        severity=Severity.ERROR,
        code="VAE302",
        name="sample-not-reparameterized",
    )
    idle = dataclasses.replace(
        cut,
        message="`aux.weight` gets no gradient",
        at=None,
        severity=Severity.WARNING,
        code="VAE601",
        name="parameter-without-gradient",
    )
    return Report(
        f"{file}:VAE",
        (
            Outcome("VAE101", "unregistered-layer", "passed"),
            Outcome("VAE302", "sample-not-reparameterized", "failed", (cut,)),
            Outcome("VAE601", "parameter-without-gradient", "failed", (idle,)),
            Outcome("VAE701", "kl-formula-mismatch", "skipped", reason="no objective found"),
            Outcome("VAE801", "non-finite-forward", "crashed", reason="KeyError: 'z'"),
        ),
        environment={"torch": "2.13.0", "seed": 0, "batch": "8×784"},
        seconds=1.3,
    )
