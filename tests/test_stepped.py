"""A model without `forward` whose training loop says step by step how its loss is made."""

from pathlib import Path
from typing import Any

import pytest

from vaedoctor.checkup import examine_subject
from vaedoctor.subject.target import load

MODEL = """
import pickle
import torch
from torch import nn
from torch.distributions import Normal, kl_divergence
from torch.utils.data import DataLoader, TensorDataset

class Cells(nn.Module):
    def __init__(self, genes=14, sites=3, latent=4):
        super().__init__()
        self.sites = sites
        self.body, self.heads = nn.Linear(genes, 20), nn.Linear(20, 2 * latent)
        self.out = nn.Linear(latent + sites, {genes})

    def embed(self, x):
        mu, raw = self.heads(torch.relu(self.body(x))).chunk(2, -1)
        q = Normal(mu, nn.functional.softplus(raw) + 1e-3)
        return dict(q=q, z=q.{draw}())

    def emit(self, z, site):
        hot = nn.functional.one_hot(site, self.sites).to(z.dtype)
        return self.out(torch.cat([z, hot], -1))

    def cost(self, x, made, mean):
        q = made["q"]
        kl = kl_divergence(q, Normal(torch.zeros_like(q.loc), torch.ones_like(q.scale))).sum(-1)
        return (0.5 * (mean - x).square().sum(-1) + kl).mean(), kl.mean()

def cells(n):
    return torch.randn(n, 14) + 3, torch.randint(0, 3, (n,))

"""
AT_TOP = """
net = Cells()
opt = torch.optim.Adam(net.parameters())
for _ in range(3):
    x, site = cells(32)
    made = net.embed(x)
    mean = net.emit(made["z"], site)
    loss, kl = net.cost(x, made, mean)
    loss.backward()
"""
IN_A_FUNCTION = """
def step(net, batch, opt):
    x, site = batch
    x = x - 3
    target = x.clone()
    made = net.embed(x)
    mean = net.emit(made["z"], site)
    loss, _ = net.cost(target, made, mean)
    loss.backward()

def main():
    loader = DataLoader(TensorDataset(*cells(64)), batch_size=16)
    net = Cells()
    opt = torch.optim.Adam(net.parameters())
    for batch in loader:
        step(net, batch, opt)
"""
OF_A_TRAINER = """
class Trainer:
    def __init__(self, net, beta=2.0):
        self.net, self.beta = net, beta

    def fit(self, loader):
        for batch in loader:
            made = self.net.embed(batch["x"])
            mean = self.net.emit(made["z"], batch["site"])
            loss, kl = self.net.cost(batch["x"], made, mean)
            total = loss + self.beta * kl
            total.backward()

if __name__ == "__main__":
    Trainer(Cells()).fit(pickle.load(open("cells.pkl", "rb")))
"""
ALL_DATA = """
net = Cells()
x, site = cells(48)
prior = torch.zeros(4)
for epoch in range(3):
    made = net.embed(x)
    mean = net.emit(made["z"] + prior, site)
    net.cost(x, made, mean)[0].backward()
"""
WAYS = {"top": AT_TOP, "function": IN_A_FUNCTION, "trainer": OF_A_TRAINER, "all": ALL_DATA}


def subject(tmp_path: Path, loop: str, draw: str = "rsample", genes: str = "genes") -> Any:
    """The subject of a model that is trained by a loop."""
    text = MODEL.replace("{draw}", draw).replace("{genes}", genes) + loop
    (tmp_path / "own.py").write_text(text)
    return load(f"{tmp_path / 'own.py'}:Cells")


@pytest.mark.parametrize("way", WAYS)
def test_the_step_is_the_pass_and_the_objective(tmp_path: Path, way: str) -> None:
    found = subject(tmp_path, WAYS[way])
    x, site = found.batch.args
    assert x.shape == (len(site), 14)
    assert site.dim() == 1
    assert "step of the training loop" in found.calling.text
    report = examine_subject(found)
    assert not report.findings, f"{report}"
    assert report.picture.parts


@pytest.mark.parametrize("way", WAYS)
def test_a_bug_in_a_method_is_told(tmp_path: Path, way: str) -> None:
    found = subject(tmp_path, WAYS[way], draw="sample")
    assert "VAE302" in {f.code for f in examine_subject(found).findings}


def test_what_the_loop_makes_of_its_items_is_what_the_step_is_given(tmp_path: Path) -> None:
    x, _ = subject(tmp_path, IN_A_FUNCTION).batch.args
    assert abs(float(x.mean())) < 1  # `x - 3` of what is drawn around 3


def test_a_step_that_raises_on_the_files_own_data_is_examined(tmp_path: Path) -> None:
    found = subject(tmp_path, AT_TOP, genes="9")
    codes = {f.code for f in examine_subject(found).findings}
    assert codes & {"VAE002", "VAE501", "VAE502"}


def test_tokens_of_the_file_that_no_row_of_the_table_is_for_are_its_bug(tmp_path: Path) -> None:
    text = """
import torch
from torch import nn

class Words(nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.heads, self.out = nn.Embedding(20, 8), nn.Linear(8, 6), nn.Linear(3, 30)

    def forward(self, tokens):
        mu, logvar = self.heads(self.table(tokens).mean(1)).chunk(2, -1)
        return self.out(mu + torch.randn_like(mu) * (logvar / 2).exp()), mu, logvar

words = Words()
for _ in range(3):
    tokens = torch.randint(0, 30, (16, 9))
    logits, mu, logvar = words(tokens)
    kl = -0.5 * (1 + logvar - mu.square() - logvar.exp()).sum(-1).mean()
    (nn.functional.cross_entropy(logits, tokens[:, 0]) + kl).backward()
"""
    (tmp_path / "own.py").write_text(text)
    found = load(f"{tmp_path / 'own.py'}:Words")
    assert not found.batch.guessed
    assert [f.code for f in examine_subject(found).findings] == ["VAE002"]
