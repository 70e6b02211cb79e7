"""A step that takes a loader's batch apart is given one, and is not blamed for a bare tensor."""

import textwrap
from pathlib import Path

import pytest
import torch
from texts import ANY_WIDTH
from torch import Tensor, nn

from vaedoctor import check
from vaedoctor.checkup import examine_subject
from vaedoctor.finding import Report, Severity
from vaedoctor.subject.target import load

MODEL = """
import torch
from torch import nn
"""
MODEL += ANY_WIDTH
MODEL += """
    def training_step(self, batch, index):
        return self.both(batch, "train")

    def both(self, given, stage):
        return self.of(*given) if stage == "test" else self.apart(given)

    def apart(self, batch):
        {unpack}
        return self.of(x, label)

    def of(self, x, label):
        recon, mu, logvar = self(x)
        kl = -0.5 * (1 + logvar - mu.square() - logvar.exp()).sum()
        return ((recon - x).square().sum() + kl){cut}
"""
LOOP = """
def batches(rows):
    return torch.load("batches.pt")[:rows]

vae = VAE()
optimizer = torch.optim.Adam(vae.parameters())
for i in range(3):
    loss = vae.training_step(batches(16), i)
    loss.backward()
"""
UNPACKED = {"a tuple": "x, label = batch", "keys": 'x, label = batch["x"], batch["label"]'}


def report(tmp_path: Path, unpack: str, cut: str) -> Report:
    """The report on a step that hands its batch through two methods."""
    model = MODEL.replace("{unpack}", unpack).replace("{cut}", cut)
    (tmp_path / "own.py").write_text(textwrap.dedent(model + LOOP))
    return examine_subject(load(f"{tmp_path / 'own.py'}:VAE"), select=["VAE0", "VAE7"])


@pytest.mark.parametrize("unpack", UNPACKED.values(), ids=UNPACKED.keys())
def test_a_step_gets_what_it_takes_apart_further_in(tmp_path: Path, unpack: str) -> None:
    found = report(tmp_path, unpack, "")
    assert not found.findings
    assert any("training" in note for note in found.notes if note.startswith("loss"))


@pytest.mark.parametrize("unpack", UNPACKED.values(), ids=UNPACKED.keys())
def test_a_loss_that_is_cut_off_is_told_and_not_that_the_batch_is_bare(
    tmp_path: Path, unpack: str
) -> None:
    assert [f.code for f in report(tmp_path, unpack, ".detach()").findings] == ["VAE714"]


class Weighted(nn.Module):
    """A forward pass that takes the first and the last entry of a loader's batch."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(5, 4), nn.Linear(2, 5)

    def forward(self, x: Tensor, scale: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mu, logvar = self.up(x / scale[:, None]).chunk(2, -1)
        z = mu + torch.randn_like(mu) * (logvar / 2).exp()
        return self.down(z), mu, logvar


def weighted(model: Weighted, x: Tensor, target: Tensor, scale: Tensor) -> Tensor:
    recon, mu, logvar = model(x, scale)
    kl = 0.5 * (mu**2 + logvar.exp() - 1 - logvar).sum(1)
    return (0.5 * (recon - target).square().sum(1) + kl).mean()


def turned(model: Weighted, x: Tensor, target: Tensor, scale: Tensor) -> Tensor:
    recon, mu, logvar = model(x, scale)
    kl = 0.5 * (mu**2 + logvar.exp() - 1 - logvar).sum(1)
    return (0.5 * (recon - target).square().sum(1) - kl).mean()


def test_forward_is_given_the_entries_that_it_takes_and_the_loss_all_of_them() -> None:
    batch = (torch.randn(6, 5), torch.randn(6, 3, 5).mean(1), torch.rand(6) + 1)
    report = check(Weighted(), batch, objective=weighted)
    assert [f for f in report.findings if f.severity is not Severity.NOTE] == []
    assert "VAE703" in {o.code for o in report.outcomes if o.status == "passed"}
    assert "VAE703" in {f.code for f in check(Weighted(), batch, objective=turned).findings}
