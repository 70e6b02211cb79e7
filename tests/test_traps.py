"""Healthy models, however unusual, get no finding that is not true."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from traps import (
    around,
    building,
    discrete,
    flows,
    latents,
    matrices,
    meetings,
    objectives,
    priors,
    scales,
    training,
)

import vaedoctor
from vaedoctor import Severity

ROOMS = (
    around,
    building,
    discrete,
    flows,
    latents,
    matrices,
    meetings,
    objectives,
    priors,
    scales,
    training,
)
TRAPS = [
    trap
    for room in ROOMS
    for trap in vars(room).values()
    if hasattr(trap, "loss") and trap.__module__ == room.__name__
]

# What a user says about a model that cannot be measured.
SAID = {
    latents.BalancedPrior: {"conditions": [1]},
    latents.Conditional: {"conditions": [1]},
    latents.GraphBatch: {"batch_axis": None},
    latents.PackedSequences: {"conditions": [1]},
    latents.SortedLengths: {"conditions": [1]},
    objectives.TinyBeta: {"beta": 1e-6},
    training.HeadsOfTreatments: {"conditions": [1]},
    training.ReversedDomain: {"conditions": [1]},
}

# Healthy, and yet each of these warnings is true.
WARNED = {
    # The decoder is given what the neighbours of a node are, beside its latent.
    latents.GraphBatch: "VAE403",
    # The log-variance is multiplied by 0, so it never learns.
    objectives.NormalizedWasserstein: "VAE602",
    # Nothing shows that the head is trained elsewhere.
    training.HeadForPrediction: "VAE104",
}


@pytest.mark.parametrize("trap", TRAPS, ids=lambda trap: trap.__name__)
def test_a_healthy_model_is_not_warned_of_what_is_not_there(trap):
    batch = trap.batch()
    report = vaedoctor.check(
        trap(), batch if len(batch) > 1 else batch[0], objective="loss", **SAID.get(trap, {})
    )
    found = [f for f in report.findings if f.severity is not Severity.NOTE]
    expected = [(WARNED[trap], Severity.WARNING)] if trap in WARNED else []
    assert [(f.code, f.severity) for f in found] == expected, [f.message for f in found]
    assert [o for o in report.outcomes if o.status == "crashed"] == []


@pytest.mark.parametrize("trap", [training.AnnealedFromZero, training.AnnealedInCycles])
def test_a_weight_that_rises_from_zero_is_not_noted(trap):
    report = vaedoctor.check(trap(), *trap.batch(), objective="loss")
    assert report.findings == ()


@pytest.mark.parametrize("trap", [meetings.ScoredElsewhere, meetings.CallsItsDecoderX])
def test_a_healthy_model_is_not_warned_where_its_loss_must_be_found(trap):
    report = vaedoctor.check(trap(), *trap.batch())
    found = [f for f in report.findings if f.severity is not Severity.NOTE]
    assert found == [], [f.message for f in found]


def test_a_loss_that_names_the_entries_of_a_batch_is_given_them():
    model = meetings.CallsItsDecoderX()

    def objective(model, x, weight):
        return model.loss(x) * weight.mean()

    batch = {"x": model.batch()[0], "weight": torch.ones(8)}
    assert not vaedoctor.check(model, batch, objective=objective, select=["VAE0"]).findings


def test_a_loss_is_given_what_forward_does_not_take():
    model = meetings.CallsItsDecoderX()
    batch = model.batch()[0], torch.ones(8)

    def objective(model, x, weight):
        return model.loss(x) * weight.mean()

    assert not vaedoctor.check(model, batch, objective=objective, select=["VAE0"]).findings


def test_a_checkpoint_runs_in_the_mode_of_its_forward_pass():
    model = around.Checkpointed().eval()
    report = vaedoctor.check(model, *model.batch(), objective="loss", select=["VAE6"])
    assert not report.findings


def test_a_flag_that_returns_early_decides_about_a_layer():
    model = around.StagedEncoder()
    report = vaedoctor.check(model, *model.batch(), objective="loss", select=["VAE104"])
    assert [f.severity for f in report.findings] == [Severity.NOTE]


class InTurns(nn.Module):
    """Each part has a step of its own, of which a trainer calls one after the other."""

    def __init__(self):
        super().__init__()
        self.heads, self.dec, self.judge = nn.Linear(14, 8), nn.Linear(4, 14), nn.Linear(4, 1)

    def forward(self, x):
        mu, lv = self.heads(x).chunk(2, 1)
        z = mu + torch.randn_like(mu) * (lv / 2).exp()
        return self.dec(z), z

    def ae_step(self, x):
        r, z = self(x)
        return (r - x).pow(2).sum(1).mean() - self.judge(z).mean()


def test_a_part_with_a_step_of_its_own_is_not_idle():
    report = vaedoctor.check(InTurns(), torch.rand(8, 14), select=["VAE104"])
    assert [o.status for o in report.outcomes] == ["skipped"]
