"""Pictures of the size that comes out are to be taken as well: told where a layer refuses them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from vaedoctor.checkup import check
from vaedoctor.finding import Finding


class Pictures(nn.Module):
    """28 x 28 pictures, 8 x 7 x 7 numbers between encoder and latent; `flat` says how many."""

    def __init__(self, flat: int, pooled: bool = False) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(7) if pooled else nn.Identity()
        self.up = nn.Sequential(nn.Conv2d(1, 4, 3, 2, 1), nn.ReLU(), nn.Conv2d(4, 8, 3, 2, 1))
        self.mu, self.logvar = nn.Linear(flat, 5), nn.Linear(flat, 5)
        self.wide = nn.Linear(5, 8 * 7 * 7)
        self.down = nn.Sequential(
            nn.ConvTranspose2d(8, 4, 4, 2, 1), nn.ReLU(), nn.ConvTranspose2d(4, 1, 4, 2, 1)
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        h = self.pool(self.up(x)).flatten(1)
        mu, logvar = self.mu(h), self.logvar(h)
        z = mu + torch.randn_like(mu) * (logvar / 2).exp()
        return self.down(self.wide(z).unflatten(1, (8, 7, 7))), mu, logvar


def broken(model: nn.Module, *given: Tensor) -> list[Finding]:
    return [f for f in check(model, *given).findings if f.code == "VAE501"]


def test_a_layer_that_holds_the_encoder_to_another_size_is_told() -> None:
    (found,) = broken(Pictures(16 * 7 * 7))
    assert found.severity.name == "WARNING"
    assert (found.measured["built for"], found.measured["arrived"]) == (784, 392)
    assert "1×28×28" in " ".join(found.notes)


def test_a_finer_picture_than_the_one_taken_may_be_meant() -> None:
    finer = Pictures(8 * 7 * 7)
    finer.down.append(nn.Upsample(scale_factor=2))
    assert broken(finer) == []


@pytest.mark.parametrize(
    ("model", "given"),
    [
        (Pictures(8 * 7 * 7), []),
        (Pictures(8 * 7 * 7, pooled=True), []),
        (Pictures(8 * 7 * 7, pooled=True), [torch.rand(4, 1, 40, 52)]),
        (Pictures(16 * 7 * 7), [torch.rand(4, 1, 28, 56)]),
    ],
    ids=["fits", "any size", "any size, given", "given"],
)
def test_what_is_taken_or_was_given_is_right(model: nn.Module, given: list[Tensor]) -> None:
    assert broken(model, *given) == []


class Encoded(nn.Module):
    """Only what decodes what comes out is elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.loc, self.spread = nn.Linear(20, 8), nn.Linear(8, 3), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = torch.relu(self.up(x))
        return self.loc(h), self.spread(h)


def test_without_a_reconstruction_none_is_said_to_be_reached() -> None:
    report = check(Encoded(), torch.rand(8, 20))
    told = [v.text for o in report.outcomes if o.code == "VAE501" for v in o.verified]
    assert told == ["the shapes chain from input to output"]
