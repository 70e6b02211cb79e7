"""A weight of the loss that does nothing: on the model, in its configuration, of any term."""

from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest

from vaedoctor.checkup import examine_subject
from vaedoctor.examine.objective.weights import _Kept
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

@dataclass
class Rates:
    rate: float = 1e-3
    kl_weight: float = 0.5

class Reduced:
    def __init__(self, cfg):
        self.rate = cfg.rate

class Base(nn.Module):
    def keep(self, **given):
        self.hparams = Namespace(**given)

class VAE(Base):
    def __init__(self{given}):
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
PARTS = {
    "weigh": """
def weigh(rec, kl, cfg):
    return rec + getattr(cfg, "kl_" + "weight") * kl
""",
    "Criterion": """
class Criterion:
    def __init__(self, kl_weight):
        self.kl_weight = kl_weight

    def __call__(self, rec, kl):
        return rec + kl
""",
    "Weighing": """
class Weighing:
    def __init__(self, kl_weight):
        self.kl_weight = kl_weight

    def __call__(self, rec, kl):
        return rec + self.kl_weight * kl
""",
    "Ramp": """
class Ramp:
    def __init__(self, last=100):
        self.step, self.last = 0, last

    def __call__(self):
        return min(1.0, self.step / self.last)
""",
    "lampo": """
def train(model):
    for step in range(9):
        model.lampo = min(1.0, step / 3)
""",
    "added": """
def added(rec, kl, beta=1.0):
    return rec + kl
""",
    "heavier": """
def heavier(rec, kl, peso: float = 1.0, *, alpha=0.2):
    return rec + kl
""",
    "rec_only": """
def rec_only(rec, kl, kld_weight=1.0):
    return rec

def both(rec, kl, kld_weight=1.0):
    return rec + kld_weight * kl
""",
}
"""What only some cases need."""
DEAD = {
    "in a namespace": ("self.hparams = Namespace(kl_weight=kl_weight)", "rec + kl", "kl_weight"),
    "in a dict": ("self.cfg = dict(kl_weight=kl_weight, rate=1)", "rec + kl", "kl_weight"),
    "in a dataclass": ("self.cfg = Config()", "rec + kl", "kl_weight"),
    "of another term": ("self.loss_factor = loss_factor", "rec + kl", "loss_factor"),
    "in another language": ("self.peso_kl, self.rate = 10.0, 1", "rec + 10.0 * kl", "peso_kl"),
    "like the term that it weighs": ("self.kl = 4.0", "rec + kl", "kl"),
    "beside a string of its name": ("self.kl = 4.0", "rec + kl\n\n    shown = ('rec', 'kl')", "kl"),
    "without a term": ("self.gewicht = 2.0", "rec + kl", "gewicht"),
    "in Portuguese": ("self.peso_forma = 0.3", "rec + kl", "peso_forma"),
    "of a KL by any other word": ("self.kl_waga = 4.0", "rec + kl", "kl_waga"),
    "by a Greek letter": ("self.gamma, self.rate = 10.0, 1", "rec + 10.0 * kl", "gamma"),
    "of a warm-up": ("self.anneal_factor = 0.5", "rec + kl", "anneal_factor"),
    "that a loop raises": ("self.lampo = 0.5", "rec + kl", "lampo"),
    "on an object of the loss": (
        "self.criteria = [Criterion(0.5)]",
        "self.criteria[0](rec, kl)",
        "kl_weight",
    ),
    "in a configuration of which a part of the same file takes the rest": (
        "cfg = Rates(); self.cfg = cfg; self.reduced = Reduced(cfg)",
        "rec + kl",
        "kl_weight",
    ),
    "as a parameter that is ignored": ("self.rate = 1", "added(rec, kl, beta=4.0)", "added"),
    "as a number that a function takes in another language": (
        "self.rate = 1",
        "heavier(rec, kl)",
        "heavier",
    ),
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
    "on an object of the loss": ("self.criteria = [Weighing(0.5)]", "self.criteria[0](rec, kl)"),
    "that a loop raises": ("self.lampo = 0.5", "rec + self.lampo * kl"),
    "at the start of a warm-up": (
        "self.beta, self.ramp = 4.0, Ramp()",
        "rec + self.ramp() * self.beta * kl",
    ),
    "behind a branch that is not taken": (
        "self.beta, self.epoch = 4.0, 0",
        "rec + (self.beta * kl if self.epoch > 9 else kl)",
    ),
    "of an average that is kept": (
        "self.beta = 0.99; self.register_buffer('mean', torch.zeros(()))",
        "self.mean.copy_(self.beta * self.mean + rec.detach()) * 0 + rec",
    ),
    "that one of several losses needs": (
        "self.loss_of = {'ae': rec_only, 'vae': both}",
        "self.loss_of['ae'](rec, kl, kld_weight=4.0)",
    ),
    "that makes a layer": ("gamma = 0.5; self.gamma = gamma; self.act = nn.ELU(gamma)", "rec + kl"),
    "taken by a string": (
        "self.gamma, self.rate = 10.0, 1",
        "rec + kl * (1 if x is not None else sum(getattr(self, n) for n in ('gamma', 'rate')))",
    ),
    "for another step": (
        "self.loss_factor = loss_factor",
        "rec + kl if x is not None else self.loss_factor",
    ),
}


def dead(tmp_path: Path, kept: str, loss: str) -> list[str]:
    """The weights that are found to do nothing."""
    parts = "".join(code for name, code in PARTS.items() if name in kept + loss)
    given = "".join(
        f", {name}=0.5"
        for name in ("kl_weight", "loss_factor")
        if f"= {name}" in kept or f"={name}" in kept
    )
    text = MODEL.replace("class Base", f"{parts}\nclass Base").replace("{given}", given)
    (tmp_path / "own.py").write_text(text.replace("{kept}", kept).replace("{loss}", loss))
    report = examine_subject(load(f"{tmp_path / 'own.py'}:VAE"), select=["VAE713"])
    return [f.message.split("`")[1] for f in report.findings]


@pytest.mark.parametrize("case", DEAD)
def test_a_weight_that_no_code_reads_is_dead(tmp_path: Path, case: str) -> None:
    kept, loss, name = DEAD[case]
    assert dead(tmp_path, kept, loss) == [name]


@pytest.mark.parametrize("case", ALIVE)
def test_a_weight_that_something_reads_is_left_alone(tmp_path: Path, case: str) -> None:
    assert dead(tmp_path, *ALIVE[case]) == []


@pytest.mark.parametrize(("reads", "trains"), [(False, True), (True, True), (False, False)])
def test_a_weight_of_the_file_is_dead_where_its_own_training_ignores_it(
    tmp_path: Path, reads: bool, trains: bool
) -> None:
    loss = f"{'BETA' if reads else '4.0'} * kl + rec"
    given = MODEL.replace("class Base", "BETA = 4.0\n\nclass Base").replace("{given}", "")
    text = given.replace("{kept}", "pass").replace("{loss}", loss)
    if trains:
        text += "\nfor x in torch.rand(4, 8, 12):\n    VAE().loss(x).backward()\n"
    (tmp_path / "own.py").write_text(text)
    report = examine_subject(load(f"{tmp_path / 'own.py'}:VAE"), select=["VAE713"])
    assert bool(report.findings) == (trains and not reads)


@pytest.mark.parametrize(
    "held", [{"kl_weight": 0.5, "rate": 1.0}, Namespace(kl_weight=0.5, rate=1.0)]
)
def test_a_setting_that_is_taken_away_comes_back_to_its_place(held: Any) -> None:
    names = held if isinstance(held, dict) else vars(held)
    with _Kept(None, "", held, "kl_weight", 0.5).away():
        assert list(names) == ["rate"]
    assert list(names.items()) == [("kl_weight", 0.5), ("rate", 1.0)]
