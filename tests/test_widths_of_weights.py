"""Sizes that a weight has set are refused whatever the input: then the model is told, not asked."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from vaedoctor.checkup import check
from vaedoctor.subject.batches.batch import find_batch
from vaedoctor.subject.trials.witness import observe


class Maps(nn.Module):
    """Between encoder and decoder lies a convolution for `width` channels; four come."""

    def __init__(self, width: int, cond: int = 0, groups: int = 0) -> None:
        super().__init__()
        self.cond = cond
        self.up, self.mu, self.lv = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 4, 1), nn.Conv2d(8, 4, 1)
        self.norm = nn.GroupNorm(groups, 8) if groups else nn.Identity()
        self.mid = nn.Conv2d(width, 8, 1)
        self.down = nn.ConvTranspose2d(8, 3, 4, 2, 1)

    def sample(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        h = self.up(x).relu()
        mu, logvar = self.mu(h), self.lv(h)
        return mu + torch.randn(mu.shape, device=x.device) * (logvar / 2).exp(), mu, logvar

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        z, mu, logvar = self.sample(x)
        return self.down(self.norm(self.mid(z))), mu, logvar


class Steps(nn.Module):
    """A sequence model whose decoder is built for `width` features; six come."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.up, self.heads = nn.LSTM(10, 24, batch_first=True), nn.Linear(24, 12)
        self.mid, self.down = nn.Linear(width, 24), nn.Linear(24, 10)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mu, logvar = self.heads(self.up(x)[0]).chunk(2, -1)
        z = mu + torch.randn_like(mu) * (logvar / 2).exp()
        return self.down(self.mid(z).relu()), mu, logvar


class Attends(nn.Module):
    """Transposes around a normalisation for `width` features, and a transformer; eight come."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inp = nn.Linear(6, 8)
        self.encoder = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.heads, self.norm = nn.Linear(8, 16), nn.LayerNorm(width)
        self.out = nn.Linear(8, 6)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        h = self.encoder(self.inp(x)).transpose(1, 2)
        mu, logvar = self.heads(h.transpose(2, 1)).chunk(2, -1)
        z = mu + torch.randn_like(mu) * (logvar / 2).exp()
        return self.out(self.norm(z)), mu, logvar


class Labelled(nn.Module):
    """A decoder for `width` numbers, to which the sample and a class written out are given."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.up, self.heads = nn.Linear(20 + 5, 16), nn.Linear(16, 8)
        self.down = nn.Linear(width, 20)

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        hot = nn.functional.one_hot(y, 5).to(x.dtype)
        mu, logvar = self.heads(self.up(torch.cat([x, hot], 1)).relu()).chunk(2, 1)
        z = mu + torch.randn_like(mu) * (logvar / 2).exp()
        return self.down(torch.cat([z, hot], 1)), mu, logvar


class Planes(Maps):
    """A plane of conditions of unknown depth is laid beside the sample."""

    def forward(self, x: Tensor, plane: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # type: ignore[override]
        z, mu, logvar = self.sample(x)
        return self.down(self.mid(torch.cat([z, plane], 1))), mu, logvar


@pytest.mark.parametrize(
    ("model", "layer", "built", "came"),
    [
        (Maps(8), "mid", 8, 4),
        (Steps(12), "mid", 12, 6),
        (Attends(16), "norm", 16, 8),
        (Labelled(4), "down", 4, 9),
    ],
    ids=["maps", "steps", "normalised", "labelled"],
)
def test_no_input_is_to_blame_for_what_weights_have_set(
    model: nn.Module, layer: str, built: int, came: int
) -> None:
    report = check(model)
    (found,) = report.findings
    assert (found.code, found.severity.name) == ("VAE501", "ERROR")
    assert (found.measured["built for"], found.measured["arrived"]) == (built, came)
    assert f"`{layer}`" in found.message


@pytest.mark.parametrize("model", [Maps(4), Maps(4, groups=2), Steps(6), Attends(8), Labelled(9)])
def test_the_repaired_twin_is_silent(model: nn.Module) -> None:
    assert not [f for f in check(model).findings if f.severity.name == "ERROR"]


def test_the_rows_of_a_made_up_batch_are_sequences_and_not_the_steps_of_one() -> None:
    """Attention takes a matrix for one sequence: its rows would know each other."""
    batch = find_batch(Attends(8))
    assert batch.args[0].shape == (8, 11, 6)


def test_what_a_second_input_lays_beside_is_not_set_by_weights() -> None:
    model, x = Planes(9), torch.rand(2, 3, 8, 8)
    plane = torch.rand(2, 1, 4, 4)
    seen = observe(lambda: model(x, plane), model, {("x",): x, ("plane",): plane}, seed=0)
    assert seen.failed is not None
    assert seen.failed.name.startswith("conv")
    assert not seen.failed.of_weights
