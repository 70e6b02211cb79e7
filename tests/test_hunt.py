"""The hunt finds inputs that break a model, shrinks them, and writes down how to see it again."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from torch import Tensor, nn

import vaedoctor
from vaedoctor.checkup import examine_subject
from vaedoctor.finding import Hunt, Report
from vaedoctor.strategies import Recipe, batches, recipes
from vaedoctor.subject.target import from_instance, load

NORMALISING = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.enc = nn.Linear(12, 8)
        self.dec = nn.Linear(4, 12)

    def forward(self, x):
        x = x / x.norm(dim=1, keepdim=True)
        mu, logvar = self.enc(x).chunk(2, -1)
        z = mu + torch.randn_like(mu) * (0.5 * logvar).exp()
        return self.dec(z), mu, logvar
"""


class Fixed(nn.Module):
    """Fails on fewer than three rows, in either mode."""

    def __init__(self) -> None:
        super().__init__()
        self.enc, self.dec = nn.Linear(6, 4), nn.Linear(2, 6)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mu, logvar = self.enc(x).chunk(2, -1)
        if len(x) < 3:
            raise RuntimeError("too few rows")
        z = mu + torch.randn_like(mu) * torch.sigmoid(logvar)
        return self.dec(z), mu, logvar


def hunted(model: nn.Module, x: Tensor) -> Hunt:
    report = examine_subject(from_instance(model, x), select=["VAE002"], hunt=True)
    assert report.hunt is not None
    return report.hunt


def test_the_smallest_failing_batch_is_one_row_of_zeros() -> None:
    found = hunted(Fixed(), torch.rand(8, 6))
    assert "too few rows" in found.says
    assert found.code == "torch.full((1, 6), 0.0)"


def test_the_reproducer_reproduces(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(NORMALISING)
    target = f"{tmp_path / 'net.py'}:Net"
    report = examine_subject(load(target), select=["VAE002"], hunt=True)
    assert report.hunt is not None
    assert "not finite" in report.hunt.says
    done = subprocess.run(
        [sys.executable, "-c", report.hunt.reproducer], capture_output=True, text=True, check=True
    )
    assert "nan" in done.stdout


def test_a_model_that_bears_everything_is_said_to() -> None:
    class Bounded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.enc, self.dec = nn.Linear(6, 4), nn.Linear(2, 6)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            mu, logvar = torch.tanh(self.enc(x)).chunk(2, -1)
            z = mu + torch.randn_like(mu) * (0.5 * logvar).exp()
            return self.dec(z), mu, logvar

    found = hunted(Bounded(), torch.rand(8, 6))
    assert not found.code
    assert found.tried > 20


def test_the_hunt_leaves_no_trace() -> None:
    model, x = Fixed(), torch.rand(8, 6)
    state = {k: v.clone() for k, v in model.state_dict().items()}
    rng = torch.get_rng_state()
    hunted(model, x)
    assert torch.equal(rng, torch.get_rng_state())
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    assert model.training


def test_the_hunt_survives_json() -> None:
    report = vaedoctor.check(Fixed(), torch.rand(8, 6), select=["VAE002"])
    assert report.hunt is None
    told = Report("t", hunt=Hunt(3, "code", "says", "lines"))
    assert Report.from_json(told.to_json()).hunt == told.hunt


@given(recipe=recipes(5))
@settings(max_examples=60)
def test_a_recipes_code_makes_its_batch(recipe: Recipe) -> None:
    torch.manual_seed(recipe.seed)
    assert torch.equal(eval(recipe.code), recipe.make())
    assert recipe.make().isfinite().all()


@given(x=batches(3, 4, max_rows=5))
@settings(max_examples=30)
def test_batches_have_the_shape_asked_for(x: Tensor) -> None:
    assert x.shape[1:] == (3, 4)
    assert 1 <= len(x) <= 5


@given(x=batches(7, limit=11))
@settings(max_examples=30)
def test_tokens_stay_below_the_limit(x: Tensor) -> None:
    assert x.dtype is torch.int64
    assert int(x.max()) < 11


def test_strategies_are_public() -> None:
    with pytest.raises(AttributeError):
        _ = vaedoctor.nothing_of_the_kind
    assert vaedoctor.strategies.batches is batches
