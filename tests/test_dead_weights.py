"""A weight of the loss that does nothing: on the model, in its configuration, of any term."""

from pathlib import Path

import pytest

from vaedoctor.checkup import examine_subject
from vaedoctor.subject.target import load

MODEL = """
from argparse import Namespace
from dataclasses import dataclass
import torch
from torch import nn

@dataclass
class Config:
    kl_weight: float = 0.5
    rate: float = 1e-3

class Base(nn.Module):
    def keep(self, **given):
        self.hparams = Namespace(**given)

def weigh(rec, kl, cfg):
    return rec + getattr(cfg, "kl_" + "weight") * kl

class VAE(Base):
    def __init__(self, kl_weight=0.5, loss_factor=2.0):
        super().__init__()
        {kept}
        self.up, self.down = nn.Linear(12, 6), nn.Linear(3, 12)

    def loss(self, x):
        mu, logvar = self.up(x).chunk(2, -1)
        recon = self.down(mu + torch.randn_like(mu) * (logvar / 2).exp())
        kl = -0.5 * (1 + logvar - mu.square() - logvar.exp()).sum()
        rec = (recon - x).square().sum()
        return {loss}

    def forward(self, x):
        return self.loss(x)
"""
DEAD = {
    "in a namespace": ("self.hparams = Namespace(kl_weight=kl_weight)", "rec + kl", "kl_weight"),
    "in a dict": ("self.cfg = dict(kl_weight=kl_weight, rate=1)", "rec + kl", "kl_weight"),
    "in a dataclass": ("self.cfg = Config()", "rec + kl", "kl_weight"),
    "of another term": ("self.loss_factor = loss_factor", "rec + kl", "loss_factor"),
}
ALIVE = {
    "of a namespace": ("self.keep(kl_weight=kl_weight)", "rec + self.hparams.kl_weight * kl"),
    "stored twice": (
        "self.hparams = Namespace(kl_weight=kl_weight); self.weight = kl_weight",
        "rec + self.weight * kl",
    ),
    "read by its name": (
        "self.hparams = Namespace(kl_weight=kl_weight)",
        "rec + vars(self.hparams)['kl_weight'] * kl",
    ),
    "handed on whole": ("self.cfg = Config()", "weigh(rec, kl, self.cfg)"),
    "handed on by the constructor": (
        "cfg = Config(); self.cfg = cfg; self.part = lambda *terms: weigh(*terms, cfg)",
        "self.part(rec, kl)",
    ),
    "the bound of a warm-up": (
        "self.most_beta, self.beta = 0.5, 0.1",
        "rec + self.beta * kl\n\n    def later(self):\n"
        "        self.beta = min(self.beta + 0.1, self.most_beta)",
    ),
    "for another step": (
        "self.loss_factor = loss_factor",
        "rec + kl if x is not None else self.loss_factor",
    ),
}


def dead(tmp_path: Path, kept: str, loss: str) -> list[str]:
    """The weights that are found to do nothing."""
    (tmp_path / "own.py").write_text(MODEL.replace("{kept}", kept).replace("{loss}", loss))
    report = examine_subject(load(f"{tmp_path / 'own.py'}:VAE"), select=["VAE713"])
    return [f.message.split("`")[1] for f in report.findings]


@pytest.mark.parametrize("case", DEAD)
def test_a_weight_that_no_code_reads_is_dead(tmp_path: Path, case: str) -> None:
    kept, loss, name = DEAD[case]
    assert dead(tmp_path, kept, loss) == [name]


@pytest.mark.parametrize("case", ALIVE)
def test_a_weight_that_something_reads_is_left_alone(tmp_path: Path, case: str) -> None:
    assert dead(tmp_path, *ALIVE[case]) == []
