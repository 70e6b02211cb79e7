"""A model that nobody can call: what is said, and what is put together from its parts."""

from __future__ import annotations

from pathlib import Path

import pytest

from vaedoctor.subject.target import TargetError, load

MODEL = """
import torch
from torch import nn

class VAE(nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(12, 6), nn.Linear(3, 12)
{inside}
    def {encode}(self, x):
        return self.up(x).chunk(2, -1)

    def {decode}(self, z):
        return self.down(z)

    {called}
"""
USUAL = {"inside": "", "encode": "encode", "decode": "decode", "called": "pass"}
FORWARD = "def {}(self, x):\n        mu, logvar = self.encode(x)\n        return self.decode(mu)"
NESTED = "        def forward(self, x):\n            return self.down(self.up(x)[:, :3])\n"


@pytest.mark.parametrize(
    ("parts", "said", "step"),
    [
        ({"called": FORWARD.format("foward")}, "its method `foward` may be meant", "rename"),
        ({"called": FORWARD.format("Forward")}, "its method `Forward` may be meant", "rename"),
        ({"inside": NESTED}, "line 9 is written inside `__init__`", "indent"),
        ({"encode": "first", "decode": "second"}, "(`first` and `second`)", "a `forward"),
    ],
)
def test_why_there_is_no_forward(
    tmp_path: Path, parts: dict[str, str], said: str, step: str
) -> None:
    (tmp_path / "own.py").write_text(MODEL.format(**{**USUAL, **parts}))
    with pytest.raises(TargetError, match="`VAE` has no `forward`") as raised:
        load(f"{tmp_path / 'own.py'}:VAE")
    assert said in str(raised.value)
    assert step in raised.value.next_step


@pytest.mark.parametrize("method", ["pass", FORWARD.format("reconstruct"), "forwards = 3"])
def test_parts_are_put_together_where_forward_was_never_meant(tmp_path: Path, method: str) -> None:
    (tmp_path / "own.py").write_text(MODEL.format(**{**USUAL, "called": method}))
    subject = load(f"{tmp_path / 'own.py'}:VAE")
    assert subject.calling.parts is not None
    assert subject.batch.ran
