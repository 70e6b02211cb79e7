"""A model that holds a number of rows fast is examined with it, and told so by VAE505."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from vaedoctor.checkup import examine_subject
from vaedoctor.subject.batches.batch import find_batch
from vaedoctor.subject.batches.refusals import rows_held_fast
from vaedoctor.subject.target import from_instance


class Holding(nn.Module):
    """A VAE on 12 numbers in which `mix` joins the sample's parts to something of fixed rows."""

    def __init__(self, mix: Callable[[Holding, Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.mix, self.encoder = mix, nn.Linear(12, 10)
        self.steps = nn.GRU(5, 5, batch_first=True)
        self.decoder = nn.Linear(5, 12)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mu, logvar = self.encoder(x).chunk(2, 1)
        return self.decoder(self.mix(self, mu, (logvar / 2).exp())), mu, logvar


def noise(model: Holding, mu: Tensor, std: Tensor) -> Tensor:
    return mu + std * torch.randn(32, 5)


def expanded(model: Holding, mu: Tensor, std: Tensor) -> Tensor:
    return mu + std * torch.randn_like(std) + torch.zeros(5).expand(32, 5)


def state(model: Holding, mu: Tensor, std: Tensor) -> Tensor:
    z = mu + std * torch.randn_like(std)
    y: Tensor = model.steps(z.unsqueeze(1), torch.zeros(1, 32, 5))[0][:, 0]
    return y


def joined(model: Holding, mu: Tensor, std: Tensor) -> Tensor:
    z = mu + std * torch.randn_like(std)
    return torch.cat((z, torch.zeros(32, 1)), 1)[:, :5]


@pytest.mark.parametrize("mix", [noise, expanded, state, joined])
def test_the_number_of_rows_is_found_and_told(mix: Callable[..., Tensor]) -> None:
    model = Holding(mix)
    batch = find_batch(model)
    assert batch.ran
    assert batch.args[0].shape == (32, 12)
    assert batch.origin.endswith("32 rows")
    report = examine_subject(from_instance(model, batch))
    (found,) = [f for f in report.findings if f.code == "VAE505"]
    assert found.measured["sizes that fail"] == [31, 1, 64]


class Pictures(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Conv2d(1, 4, 4, 2, 1), nn.ConvTranspose2d(4, 1, 4, 2, 1)
        self.narrow, self.wide = nn.Linear(4 * 49, 6), nn.Linear(3, 4 * 49)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mu, logvar = self.narrow(self.up(x).flatten(1)).chunk(2, 1)
        z = mu + (logvar / 2).exp() * torch.randn_like(mu)
        return self.down(self.wide(z).view(20, 4, 7, 7)), mu, logvar


def test_a_view_of_so_many_pictures_is_told() -> None:
    report = examine_subject(from_instance(Pictures()))
    assert [f.code for f in report.findings] == ["VAE505"]
    assert report.findings[0].measured["sizes that fail"] == [19, 1, 40]


class TooWide(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(12, 24), nn.Linear(24, 12)

    def forward(self, x: Tensor) -> Tensor:
        h: Tensor = self.down(self.up(x))
        return h + self.up(x).sum(0)


def test_widths_that_disagree_are_no_rows() -> None:
    batch = find_batch(TooWide())
    assert not batch.ran
    assert len(batch.args[0]) == 8


@pytest.mark.parametrize(
    ("said", "rows"),
    [
        ("tensor a (20) must match the size of tensor b (8) at non-singleton dimension 1", []),
        ("mat1 and mat2 shapes cannot be multiplied (8x12 and 24x64)", []),
        ("shape '[8, 3, 4]' is invalid for input of size 64", []),
        ("shape '[-1, 3, 4]' is invalid for input of size 64", []),
        ("Expected hidden[0] size (2, 8, 20), got [2, 50, 20]", [50]),
    ],
)
def test_what_a_refusal_says_of_rows(said: str, rows: list[int]) -> None:
    assert rows_held_fast(RuntimeError(said), 8) == rows
