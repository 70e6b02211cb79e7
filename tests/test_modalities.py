"""What is decoded beside x_hat: a wrong sign is told, an adversary's is meant."""

from __future__ import annotations

from pathlib import Path

import pytest

from vaedoctor.checkup import examine_subject
from vaedoctor.finding import Finding
from vaedoctor.subject.target import load

JOINT = """
import torch
import torch.nn.functional as F
from torch import nn
from torch.distributions import Bernoulli, Categorical, Normal

class Reverse(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.view_as(x)

    @staticmethod
    def backward(ctx, grad):
        return -grad

class VAE(nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(20, 8), nn.Linear(4, 20)
        self.words, self.kind = nn.Linear(4, 9), nn.Linear(4, 7)

    def forward(self, x):
        mu, logvar = self.up(x).chunk(2, -1)
        z = mu + torch.randn_like(mu) * (logvar / 2).exp()
        return self.down(z), self.words({z}), self.kind({z}), mu, logvar

def loss_function(recon, words, kind, x, bag, label, mu, logvar):
    rec = 0.5 * (recon - x).square().sum(1).mean()
    kl = -0.5 * (1 + logvar - mu.square() - logvar.exp()).sum(1).mean()
    return {total}

if __name__ == "__main__":
    xs, bags = torch.randn(96, 20), torch.bernoulli(torch.full((96, 9), 0.4))
    labels = torch.randint(0, 7, (96,))
    model = VAE()
    optimizer = torch.optim.Adam({owned})
    for i in range(0, 96, 32):
        x, bag, label = xs[i : i + 32], bags[i : i + 32], labels[i : i + 32]
        recon, words, kind, mu, logvar = model(x)
        loss = loss_function(recon, words, kind, x, bag, label, mu, logvar)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        {more}
"""
BAG = 'F.binary_cross_entropy_with_logits(words, bag, reduction="none").sum(1).mean()'
KIND = "F.cross_entropy(kind, label)"
DENSITY = "Bernoulli(logits=words).log_prob(bag).sum(1).mean()"
CHOICE = "Categorical(logits=kind).log_prob(label).mean()"
PICKED = "F.log_softmax(kind, -1).gather(1, label[:, None]).mean()"
PAIRS = "F.cross_entropy((words + words.flip(1)).view(-1, 3, 3), label[:, None].expand(-1, 3) % 3)"
SCALED = "Normal(words, 0.5).log_prob(bag).sum(1).mean()"


def found(tmp_path: Path, total: str, *, skipped: bool = False, **parts: str) -> list[Finding]:
    """What VAE707 says of a file whose loss is this sum."""
    given = {"z": "z", "owned": "model.parameters()", "more": "pass", **parts}
    text = JOINT
    for name, value in {"total": total, **given}.items():
        text = text.replace("{" + name + "}", value)
    (tmp_path / "joint.py").write_text(text)
    report = examine_subject(load(f"{tmp_path / 'joint.py'}:VAE"), select=("VAE707",))
    assert ([o.status for o in report.outcomes] == ["skipped"]) == skipped
    return list(report.findings)


@pytest.mark.parametrize("term", [BAG, KIND, f"-{DENSITY}", f"-{CHOICE}", f"-{PICKED}", PAIRS])
def test_a_second_prediction_of_the_wrong_sign_is_told(tmp_path: Path, term: str) -> None:
    (finding,) = found(tmp_path, f"rec + kl - ({term})")
    assert "beside x_hat" in finding.message
    assert finding.at is not None
    assert finding.at.line == JOINT[: JOINT.index("{total}")].count("\n") + 1
    assert found(tmp_path, f"rec + kl + 0.3 * ({term}) + 2 * ({term})") == []


@pytest.mark.parametrize("turned", [False, True])
def test_columns_with_a_loss_of_their_own_are_judged(tmp_path: Path, turned: bool) -> None:
    numbers = "F.mse_loss(recon[:, :12], x[:, :12], reduction='none').sum(1).mean()"
    signs = "F.binary_cross_entropy_with_logits(recon[:, 12:], (x[:, 12:] > 0).float())"
    sign = "-" if turned else "+ 2 *"
    told = found(tmp_path, f"kl + {signs} {sign} {numbers}", skipped=not turned)
    assert len(told) == turned
    if turned:
        assert "a part of x_hat" in told[0].message


def test_a_density_with_a_scale_is_judged_too(tmp_path: Path) -> None:
    assert len(found(tmp_path, f"rec + kl + {SCALED}")) == 1
    assert found(tmp_path, f"rec + kl - {SCALED}") == []


def test_it_is_told_also_where_x_hat_has_no_plain_likelihood(tmp_path: Path) -> None:
    odd = "((recon - x).abs() ** 1.3).sum(1).mean()"
    (finding,) = found(tmp_path, f"{odd} + kl - {BAG}")
    assert "beside x_hat" in finding.message


@pytest.mark.parametrize("term", [BAG, KIND, PAIRS])
def test_an_adversary_is_meant_to_get_worse(tmp_path: Path, term: str) -> None:
    wrong = f"rec + kl - {term}"
    shared = "[*model.up.parameters(), *model.down.parameters()]"
    assert found(tmp_path, wrong, owned=shared) == []
    twice = "F.cross_entropy(model(x)[2].detach(), label).requires_grad_().backward()"
    assert found(tmp_path, wrong, more=twice) == []
    assert found(tmp_path, f"rec + kl + {term}", z="Reverse.apply(z)") == []
    assert len(found(tmp_path, wrong)) == 1
