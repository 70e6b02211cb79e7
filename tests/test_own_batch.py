"""A loss that has a batch of its own, as a semi-supervised one: the file's loop tells it."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import pytest

from vaedoctor import Severity
from vaedoctor.checkup import examine_subject
from vaedoctor.subject.target import load

MODEL = """
import math
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

class VAE(nn.Module):
    def __init__(self):
        super().__init__()
        self.classifier = nn.Linear(12, 3)
        self.body = nn.Sequential(nn.Linear(15, 10), nn.Tanh())
        self.mu, self.logvar = nn.Linear(10, 4), nn.Linear(10, 4)
        self.decoder = nn.Sequential(nn.Linear(7, 10), nn.Tanh(), nn.Linear(10, 12))

    def forward(self, x, y):
        h = self.body(torch.cat([x, y], 1))
        mu, logvar = self.mu(h), self.logvar(h)
        z = mu + torch.exp(STD) * torch.randn_like(mu)
        return self.decoder(torch.cat([z, y], 1)), mu, logvar

    def bound(self, x, y):
        x_hat, mu, logvar = self(x, y)
        log_px = -0.5 * (x_hat - x).square().sum(1)
        kl = 0.5 * (mu**2 + logvar.exp() - 1 - logvar).sum(1)
        return log_px SIGN kl

    def labelled(self, x, t):
        y = F.one_hot(t, 3).to(x.dtype)
        return F.cross_entropy(self.classifier(x), t) - self.bound(x, y).mean()

    def unlabelled(self, x):
        q = self.classifier(x).softmax(1)
        eye = torch.eye(3, device=x.device, dtype=x.dtype)
        each = [self.bound(x, eye[k].expand(len(x), 3)) for k in range(3)]
        total = sum(WEIGHT * b for k, b in enumerate(each)) - (q * q.log()).sum(1)
        return -total.mean()

    def loss(self, x_lab, t, x_unlab):
        return self.labelled(x_lab, t) + self.unlabelled(x_unlab)
"""

INDEXED = """
def train():
    x, t = torch.randn(90, 12), torch.randint(0, 3, (90,))
    model = VAE()
    optimizer = torch.optim.Adam(model.parameters())
    for step in range(10):
        some, rest = torch.randint(0, 20, (6,)), torch.randint(20, 90, (14,))
        loss = model.loss(x[some], t[some], x[rest])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
"""

ZIPPED = """
def train():
    few = DataLoader(TensorDataset(torch.randn(24, 12), torch.randint(0, 3, (24,))), 6)
    many = DataLoader(TensorDataset(torch.randn(60, 12)), 15)
    model = VAE()
    optimizer = torch.optim.Adam(model.parameters())
    for (x, t), (u,) in zip(few, many):
        loss = model.labelled(x, t) + model.unlabelled(u)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
"""

LOOPS = pytest.mark.parametrize("loop", [INDEXED, ZIPPED], ids=["indexed", "zipped"])


def report(
    folder: Path, loop: str, std: str = "logvar / 2", sign: str = "-", weight: str = "q[:, k]"
) -> Any:
    model = MODEL.replace("STD", std).replace("SIGN", sign).replace("WEIGHT", weight)
    (folder / "own.py").write_text(textwrap.dedent(model + loop))
    subject = load(f"{folder / 'own.py'}:VAE")
    assert subject.objective is not None
    assert subject.batch.beside
    return examine_subject(subject)


def codes(made: Any) -> list[str]:
    return sorted({f.code for f in made.findings if f.severity is Severity.ERROR})


@LOOPS
def test_the_files_own_step_is_judged_on_its_own_batch(tmp_path: Path, loop: str) -> None:
    made = report(tmp_path, loop)
    assert [f for f in made.findings if f.severity is not Severity.NOTE] == []
    passed = {o.code: o for o in made.outcomes if o.status == "passed"}
    verified = passed["VAE701"].verified  # of the labelled rows and of the others
    assert verified
    for told in verified:
        assert told.measured["R"] == pytest.approx([1, 1], abs=1e-3)


@LOOPS
@pytest.mark.parametrize(
    ("slip", "code"),
    [
        ({"std": "logvar"}, "VAE303"),
        ({"sign": "+"}, "VAE703"),
        ({"weight": "q[:, k : k + 1]"}, "VAE503"),
    ],
)
def test_a_slip_in_it_is_told(tmp_path: Path, loop: str, slip: dict[str, str], code: str) -> None:
    assert codes(report(tmp_path, loop, **slip)) == [code]


MADE = """
def make(n):
    t = torch.randint(0, 3, (n,))
    return (torch.rand(n, 12) < 0.3 + 0.1 * t[:, None]).float(), t

def train():
    model = VAE()
    optimizer = torch.optim.Adam(model.parameters())
    for step in range(10):
        x, t = make(8)
        u, _ = make(24)
        loss = model.loss(x, t, u)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
"""


def test_data_that_the_loop_makes_is_no_part_of_the_step(tmp_path: Path) -> None:
    assert codes(report(tmp_path, MADE)) == []
