"""A parameter that this step did not read: who else may read it decides how much is said."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import torch

import vaedoctor
from vaedoctor import Severity

MODEL = """
import torch
from torch import nn


class Counts(nn.Module):
    def __init__(self, genes=12, latent=3):
        super().__init__()
        self.encoder = nn.Linear(genes, 2 * latent)
        self.decoder = nn.Linear(latent, genes)
        self.log_theta = nn.Parameter(torch.zeros(genes))
        self.spare = nn.Linear(latent, latent)

    def forward(self, x):
        mu, logvar = self.encoder(x).chunk(2, dim=-1)
        z = mu + torch.randn_like(mu) * torch.exp(0.5 * logvar)
        return self.decoder(z), mu, logvar
"""
TRAINER = """
def step(model, x):
    rate, mu, logvar = model(x)
    return negative_binomial(x, rate, model.log_theta.exp())
"""
LAYER = """
def step(model, x):
    return model.spare(model(x)[1])
"""


def idle(folder: Path) -> dict[str, Severity]:
    """What VAE104 says of each idle part."""
    file = folder / "counting.py"
    file.write_text(MODEL)
    module = types.ModuleType("counting")
    exec(compile(MODEL, str(file), "exec"), vars(module))
    sys.modules["counting"], module.__file__ = module, str(file)
    try:
        report = vaedoctor.check(module.Counts(), torch.rand(8, 12), select=["VAE104"])
    finally:
        del sys.modules["counting"]
    return {f.message.split("`")[1]: f.severity for f in report.findings}


def test_a_parameter_that_no_loss_was_found_for_is_no_error(tmp_path: Path) -> None:
    assert idle(tmp_path) == {"log_theta": Severity.WARNING, "spare": Severity.ERROR}


def test_a_parameter_that_another_file_reads_is_the_losss(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(TRAINER)
    assert idle(tmp_path)["log_theta"] is Severity.NOTE


def test_a_layer_that_another_file_of_the_package_calls_may_train(tmp_path: Path) -> None:
    models = tmp_path / "package" / "models"
    models.mkdir(parents=True)
    for folder in (models, models.parent):
        (folder / "__init__.py").write_text("")
    (models.parent / "training.py").write_text(LAYER)
    assert idle(models)["spare"] is Severity.WARNING
