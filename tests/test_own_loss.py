"""The file's own loss, where it fails or trains nothing: the examination gets it and says why."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

from vaedoctor.subject.target import load

MODEL = """
import torch
from torch import nn
import torch.nn.functional as F

class VAE(nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(12, 6), nn.Linear(3, 12)

    def forward(self, wav):
        mu, logvar = self.up(wav).chunk(2, -1)
        z = mu + torch.randn_like(mu) * (logvar / 2).exp()
        return {"wav": self.down(z), "mu": mu, "logvar": logvar}
"""


def loaded(tmp_path: Path, text: str, **options: Any) -> Any:
    """The subject of a file that continues `MODEL`."""
    (tmp_path / "own.py").write_text(MODEL + textwrap.dedent(text))
    return load(f"{tmp_path / 'own.py'}:VAE", **options)


def test_what_a_loss_hands_to_forward_is_the_input(tmp_path: Path) -> None:
    """Although an output has the name of that parameter too."""
    method = """
    def compute_loss(self, wav):
        with torch.no_grad():
            out = self(wav)
        return F.mse_loss(out["wav"], wav) + out["mu"].square().mean()
    """
    use = "net = VAE()\nloss = net.compute_loss(torch.randn(4, 12))\n"
    subject = loaded(tmp_path, textwrap.indent(textwrap.dedent(method), "    ") + use)
    made: list[Any] = []
    subject.model.register_forward_pre_hook(lambda module, args: made.append(args[0]))
    assert subject.objective is not None, subject.notes
    loss = subject.objective.run(subject.model, subject.batch)
    assert made[-1] is subject.batch.args[0]
    assert not loss.requires_grad
