"""`vaedoctor anatomy`: the picture as text, at 80 columns, in ASCII, as JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from rich.cells import cell_len

from vaedoctor.finding import Arrow, Part, Picture, Report, Result, Span, Term
from vaedoctor.report.as_anatomy import anatomy_json, as_anatomy

AT = [Span("models/mymodel.py", n) for n in range(20)]
PICTURE = Picture(
    "gaussian, vamp prior",
    "high",
    (
        Part("x", "", (8, 784)),
        Part("encoder", "hidden", (8, 256), AT[17], "Linear", 0.5, 0.25),
        Part("location", "mu", (8, 32), AT[18], "Linear", 1.0, 2.0),
        Part("scale", "logvar", (8, 32), AT[18], "Linear", 0.125, 0.5),
        Part("sample", "z", (8, 32), AT[19], "randn_like", 1.0, 0.0),
        Part("x_hat", "recon", (8, 784), Span("other.py", 3), "", 3.0, 0.0),
    ),
    tuple(Arrow(a, b) for a, b in [(0, 1), (1, 2), (1, 3), (2, 4), (3, 4), (4, 5)]),
    (
        Result("[0]", "recon", "x_hat", (8, 784), AT[19]),
        Result("[1]", "", "log-variance", (8, 32), AT[18]),
        Result("loss", "loss", "", (), None),
    ),
    (Term("reconstruction", "bce", 541.25, AT[12]), Term("kl", "", 3.5, AT[13])),
    ("the sample is location + scale × `randn_like`", "`mu` runs again for the loss"),
    "composed: x → encode → decode",
)
REPORT = Report(
    "mymodel.py:VAE", picture=PICTURE, notes=("forward: composed: x → encode → decode",)
)

TEXT = """\
mymodel.py:VAE: gaussian, vamp prior
  sure: the sample is location + scale × `randn_like`
  and `mu` runs again for the loss

forward: composed: x → encode → decode

the way of the data (lines of mymodel.py)
  1  x                          8×784
  2  encoder   `hidden` Linear  8×256  line 17
  3  location  `mu` Linear      8×32   line 18
  4  scale     `logvar` Linear  8×32   line 18     from 2
  5  sample    `z` randn_like   8×32   line 19     from 3 and 4
  6  x_hat     `recon`          8×784  other.py:3

outputs
  [0]   `recon`  x_hat         8×784   line 19
  [1]            log-variance  8×32    line 18
  loss           not known     number

terms of the loss, at these weights
  reconstruction  `bce`  541  line 12
  kl                     3.5  line 13

norm of the gradient that arrives
                      reconstruction  kl
  encoder   `hidden`  0.5             0.25
  location  `mu`      1               2
  scale     `logvar`  0.125           0.5
  sample    `z`       1               0
  x_hat     `recon`   3               0

what overrides it
  --objective NAME   the loss: a function or method of the file
  --input SPEC       the batch: `data.py:one_batch`, 16x784, a file
  --condition NAME   a batch item that is a condition or a mask, not data
  --call NAME=VALUE  an argument for every call of forward
  --arg NAME=VALUE   an argument of the constructor
  --batch-axis N     the axis of the samples; `none` if rows are not samples
  --batch-size N     the rows of a made-up batch
"""


def test_the_text() -> None:
    assert as_anatomy(REPORT) == TEXT


@pytest.mark.parametrize("width", [40, 60, 80])
def test_no_line_is_wider_than_asked(width: int) -> None:
    assert all(cell_len(line) <= width for line in as_anatomy(REPORT, width=width).splitlines())


def test_ascii_terminals_get_ascii() -> None:
    text = as_anatomy(REPORT, ascii=True)
    assert text.isascii()
    assert "\\x" not in text
    assert "8x784" in text


def test_nothing_of_the_users_moves_the_cursor() -> None:
    hostile = "\x1b[2J\u202e`\n"
    parts = (Part("x", hostile, (1,), Span(hostile, 1), hostile),)
    results = (Result(hostile, hostile, hostile, (1,), Span(hostile, 2)),)
    picture = Picture(hostile, hostile, parts, (), results, (Term(hostile, hostile),), (hostile,))
    text = as_anatomy(Report(hostile, picture=picture, notes=(hostile,)))
    assert "\x1b" not in text
    assert "\u202e" not in text


def test_json_holds_the_picture() -> None:
    found = json.loads(anatomy_json(REPORT))
    assert found["target"] == "mymodel.py:VAE"
    assert Picture.from_dict(found["anatomy"]) == PICTURE


MODEL = """
import torch
from torch import nn

class VAE(nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(20, 6), nn.Linear(3, 20)

    def forward(self, x, sample=False):
        mu, logvar = self.up(x).chunk(2, 1)
        z = mu + torch.exp(0.5 * logvar) * torch.randn_like(mu) if sample else mu
        return self.down(z), mu, logvar
"""


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "vaedoctor", "anatomy", *words]
    env = {**os.environ, "COLUMNS": "80", "PYTHONIOENCODING": "utf-8"}
    return subprocess.run(command, capture_output=True, encoding="utf-8", cwd=folder, env=env)


def test_the_command_shows_a_model_and_what_an_option_changes(tmp_path: Path) -> None:
    (tmp_path / "mymodel.py").write_text(MODEL)
    plain = run(tmp_path, "mymodel.py")
    assert plain.returncode == 0, plain.stderr
    assert plain.stdout.startswith("mymodel.py:VAE: gaussian (never sampled)\n  fairly sure: ")
    sampled = run(tmp_path, "mymodel.py", "--call", "sample=True", "--json")
    assert sampled.returncode == 0, sampled.stderr
    found = json.loads(sampled.stdout)
    assert found["anatomy"]["family"] == "gaussian"
    assert found["anatomy"]["forward"] == "called with `sample=True`"


def test_a_model_that_cannot_run_is_exit_2(tmp_path: Path) -> None:
    (tmp_path / "mymodel.py").write_text(MODEL.replace("self.up(x)", "self.upp(x)"))
    done = run(tmp_path, "mymodel.py", "--input", "8x20")
    assert done.returncode == 2
    assert "has no attribute 'upp'" in done.stdout + done.stderr
    missing = run(tmp_path, "nothing.py")
    assert missing.returncode == 2
    assert "next: " in missing.stderr
