"""Losses that take probabilities, or their logarithms, and what they are given in their place."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Bernoulli, Categorical

from vaedoctor import check

Score = Callable[[Tensor, Tensor], Tensor]


class Digits(nn.Module):
    """Rows of five symbols out of seven, given as one-hot vectors."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(35, 8), nn.Linear(4, 35)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mu, logvar = self.up(x.flatten(1)).chunk(2, -1)
        z = mu + torch.randn_like(mu) * (logvar / 2).exp()
        return self.down(z).view(-1, 5, 7), mu, logvar


def told(score: Score) -> list[str]:
    torch.manual_seed(0)
    x = F.one_hot(torch.randint(0, 7, (6, 5)), 7).float()

    def loss(model: Digits, x: Tensor) -> Tensor:
        out, mu, logvar = model(x)
        kl = 0.5 * (mu**2 + logvar.exp() - 1 - logvar).sum(1)
        return score(out, x).sum() / len(x) + kl.mean()

    return [f.message for f in check(Digits(), x, objective=loss, select=["VAE710"]).findings]


def nll(given: Tensor, x: Tensor) -> Tensor:
    return F.nll_loss(given.flatten(0, 1), x.argmax(-1).flatten(), reduction="sum")


RIGHT: dict[str, Score] = {
    "logarithms of a softmax": lambda out, x: nll(out.log_softmax(-1), x),
    "logarithms of what is kept off 0": lambda out, x: nll((out.softmax(-1) + 1e-6).log(), x),
    "classes in front": lambda out, x: F.nll_loss(
        out.log_softmax(-1).transpose(1, 2), x.argmax(-1), reduction="sum"
    ),
    "Bernoulli of logits": lambda out, x: -Bernoulli(logits=out).log_prob(x),
    "Bernoulli of probabilities": lambda out, x: -Bernoulli(out.sigmoid()).log_prob(x),
    "Categorical of logits": lambda out, x: -Categorical(logits=out).log_prob(x.argmax(-1)),
}
WRONG: dict[str, tuple[Score, str]] = {
    "a softmax": (
        lambda out, x: nll(out.softmax(-1), x),
        "`nll_loss` expects log-probabilities and gets probabilities",
    ),
    "a softmax, classes in front": (
        lambda out, x: F.nll_loss(out.softmax(-1).transpose(1, 2), x.argmax(-1), reduction="sum"),
        "`nll_loss` expects log-probabilities and gets probabilities",
    ),
    "a layer": (
        lambda out, x: nll(out, x),
        "`nll_loss` expects log-probabilities and gets a layer's output",
    ),
    "logits in the first place": (
        lambda out, x: -Bernoulli(out, validate_args=False).log_prob(x),
        "`torch.distributions` expects probabilities and gets a layer's output",
    ),
}


@pytest.mark.parametrize("name", RIGHT)
def test_the_right_kind_of_numbers_is_silent(name: str) -> None:
    assert told(RIGHT[name]) == []


@pytest.mark.parametrize("name", WRONG)
def test_the_wrong_kind_of_numbers_is_told(name: str) -> None:
    score, said = WRONG[name]
    assert told(score) == [said]
