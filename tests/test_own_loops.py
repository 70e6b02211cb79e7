"""Loops, loaders and configurations as scripts write them: each tells model, batch and loss."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch
from texts import ANY_WIDTH

from vaedoctor.checkup import examine_subject
from vaedoctor.subject.target import load

MODEL = """
import torch
from itertools import cycle
from torch import nn
from torch.utils.data import DataLoader, TensorDataset, random_split
from torchvision import datasets, transforms
"""
MODEL += ANY_WIDTH
MODEL += """
def terms(recon, x, mu, logvar):
    rec = (recon - x).square().sum()
    return rec, -0.5 * (1 + logvar - mu.square() - logvar.exp()).sum()

"""
STEP = """
recon, mu, logvar = vae(x)
rec, kl = terms(recon, x, mu, logvar)
loss = rec - kl
optimizer.zero_grad()
loss.backward()
optimizer.step()
"""


def loaded(tmp_path: Path, text: str, *, default: str = "=12", name: str = "VAE") -> Any:
    """The subject of a script that is written behind the model."""
    text = re.sub(
        r"^( *)STEP$",
        lambda found: textwrap.indent(STEP.strip("\n"), found[1]),
        textwrap.dedent(text),
        flags=re.MULTILINE,
    )
    (tmp_path / "own.py").write_text(MODEL.replace("width=12", f"width{default}") + text)
    return load(f"{tmp_path / 'own.py'}:{name}")


HEAD = "vae = VAE(12)\noptimizer = torch.optim.Adam(vae.parameters())\nX = 7 + torch.rand(64, 12)\n"
LOADER = HEAD + "loader = DataLoader(TensorDataset(X), batch_size=16)\n"
WAYS = {
    "a dict comprehension of loaders": HEAD
    + """
sets = {s: TensorDataset(X) for s in ("train", "test")}
loaders = {s: DataLoader(sets[s], batch_size=8) for s in ("train", "test")}
for epoch in range(3):
    for split in ("train", "test"):
        for (x,) in loaders[split]:
            x = x.cuda() if torch.cuda.is_available() else x
            STEP
""",
    "a loader that begins again": LOADER
    + """
def again(loader):
    while True:
        for batch in loader:
            yield batch

batches = again(loader)
for i in range(100):
    x = next(batches)[0]
    STEP
""",
    "itertools.cycle, and while": LOADER
    + """
batches = cycle(loader)
while True:
    (x,) = next(batches)
    STEP
""",
    "a bar around it": LOADER
    + """
from tqdm import tqdm
for epoch in range(3):
    bar = tqdm(enumerate(loader), desc="epoch")
    for i, (x,) in bar:
        STEP
""",
    "a loader that is prepared": LOADER
    + """
from accelerate import Accelerator
accelerator = Accelerator()
vae, optimizer, loader = accelerator.prepare(vae, optimizer, loader)
for batch in loader:
    x = batch[0]
    STEP
""",
    "a step that a loop calls": LOADER
    + """
def step(x):
    STEP

for (batch,) in loader:
    step(batch)
""",
    "a function that is written inside": """
def main():
    X = 7 + torch.rand(64, 12)
    vae = VAE(12)
    optimizer = torch.optim.Adam(vae.parameters())

    def step(x):
        STEP

    for rows in torch.randperm(64).split(16):
        step(X[rows])

main()
""",
    "imports in the main guard": """
def train(x):
    vae = VAE(12)
    optimizer = torch.optim.Adam(vae.parameters())
    x = torch.tensor(x, dtype=torch.float32)
    for (x,) in DataLoader(TensorDataset(x), batch_size=8):
        STEP

if __name__ == "__main__":
    import numpy as np
    train(7 + np.random.default_rng(0).random((64, 12)).astype("float32"))
""",
}


@pytest.mark.parametrize("way", WAYS)
def test_the_loop_is_followed_to_its_data(tmp_path: Path, way: str) -> None:
    batch = loaded(tmp_path, WAYS[way]).batch
    (x,) = batch.args
    assert batch.origin.startswith("your own data")
    assert x.shape[1] == 12
    assert float(x.min()) >= 7


STOPS = {
    "a key that is not there": (
        '{"row": torch.rand(12), "index": i}',
        'x = batch["rows"]',
        "line 32 asks your own data for `rows`, which has `row`, `index`",
    ),
    "more parts than there are": (
        "(torch.rand(12),)",
        "x, y = batch",
        "line 32 takes 2 parts of your own data apart, which has 1 part",
    ),
    "nothing": ("(torch.rand(12), 0)", "x, y = batch", ""),
}


@pytest.mark.parametrize("way", STOPS)
def test_where_the_files_own_data_ends_the_loop_is_said(tmp_path: Path, way: str) -> None:
    item, line, said = STOPS[way]
    text = f"""
    class Rows(torch.utils.data.Dataset):
        def __len__(self):
            return 64
        def __getitem__(self, i):
            return {item}

    vae = VAE(12)
    optimizer = torch.optim.Adam(vae.parameters())
    for batch in DataLoader(Rows(), batch_size=8):
        {line}
        STEP
    """
    batch = loaded(tmp_path, text).batch
    assert batch.ran
    assert batch.origin.endswith(f", because {said}") if said else not batch.guessed


def test_what_a_choice_gives_is_what_its_test_says(tmp_path: Path) -> None:
    text = """
    import argparse
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", choices=["mnist", "cifar"], required=True)
    parser.add_argument("--double", action="store_true")

    def loaders(args):
        if args.data == "mnist":
            data = datasets.MNIST("d", download=True, transform=transforms.ToTensor())
        elif args.data == "cifar":
            data = datasets.CIFAR10("d", download=True, transform=transforms.ToTensor())
        return DataLoader(data, batch_size=8)

    def main(args):
        width = 784
        if args.double:
            width = 2 * width
        vae = VAE(width)
        optimizer = torch.optim.Adam(vae.parameters())
        for x, _ in loaders(args):
            x = x.flatten(1)
            STEP

    main(parser.parse_args())
    """
    subject = loaded(tmp_path, text, default="")
    assert subject.model.up.in_features == 784
    assert "made up like MNIST" in subject.batch.origin


def test_pictures_by_name_in_a_comprehension(tmp_path: Path) -> None:
    text = """
    sets = {s: datasets.MNIST("d", train=s == "train", download=True,
                              transform=transforms.ToTensor()) for s in ("train", "test")}
    loaders = {s: DataLoader(sets[s], batch_size=8) for s in sets}
    vae = VAE(784)
    optimizer = torch.optim.Adam(vae.parameters())
    for x, _ in loaders["train"]:
        x = x.flatten(1)
        STEP
    """
    batch = loaded(tmp_path, text, default="=784").batch
    assert "made up like MNIST" in batch.origin


LIGHTNING = """
import pytorch_lightning as pl

class Module(VAE, pl.LightningModule):
    def __init__(self, width=12, rows=16):
        super().__init__(width)
        self.rows = rows

    def training_step(self, batch, batch_idx):
        (x,) = batch
        recon, mu, logvar = self(x)
        return sum(terms(recon, x, mu, logvar))
"""
ON_THE_MODULE = """
    def train_dataloader(self):
        return DataLoader(TensorDataset(7 + torch.rand(64, 12)), batch_size=self.rows)
"""
A_DATA_MODULE = """
class Sevens(pl.LightningDataModule):
    def setup(self, stage=None):
        self.train, self.val = random_split(TensorDataset(7 + torch.rand(64, 12)), [48, 16])

    def train_dataloader(self):
        return DataLoader(self.train, batch_size=self.hparams.rows)

class Others(pl.LightningDataModule):
    def train_dataloader(self):
        return DataLoader(TensorDataset(torch.zeros(64, 12)))

if __name__ == "__main__":
    data = Sevens()
    pl.Trainer().fit(Module(), datamodule=data)
"""


@pytest.mark.parametrize("more", [ON_THE_MODULE, A_DATA_MODULE])
def test_a_method_that_gives_the_loader_is_asked(tmp_path: Path, more: str) -> None:
    subject = loaded(tmp_path, LIGHTNING + more, name="Module")
    assert subject.batch.origin.startswith("your own data")
    assert float(subject.batch.args[0].min()) >= 7
    assert subject.objective.name == "training_step"  # which takes one part, and no label


BUILT = {
    "yaml in the file": """
import yaml
config = yaml.safe_load('''
model:
  width: 15
''')

def main(config):
    return VAE(**config["model"])

main(config)
""",
    "a configuration of OmegaConf's": """
from omegaconf import OmegaConf
cfg = OmegaConf.create({"model": {"width": 15}})

def main(cfg):
    return VAE(cfg.model.width)

main(cfg)
""",
    "a dict that is handed on": """
import wandb
config = dict(model=dict(width=15), rows=8)

def make(settings):
    return VAE(**settings["model"])

with wandb.init(config=config):
    make(config)
""",
    "a command line of a dataclass": """
import tyro
from dataclasses import dataclass

@dataclass
class Config:
    width: int = 15

def main(config):
    return VAE(config.width)

if __name__ == "__main__":
    main(tyro.cli(Config))
""",
    "a dataclass that the entry point declares": """
import hydra
from dataclasses import dataclass

@dataclass
class Config:
    width: int = 15

@hydra.main(version_base=None, config_name="config")
def main(cfg: Config):
    return VAE(cfg.width)

if __name__ == "__main__":
    main()
""",
    "a registry": """
MODELS = {}

def register(kind):
    MODELS[kind.__name__.lower()] = kind
    return kind

@register
class Twin(VAE):
    pass

config = {"name": "twin", "arguments": {"width": 15}}

def make(config):
    return MODELS[config["name"]](**config["arguments"])

make(config)
""",
    "the shape of the first batch": """
from sklearn.preprocessing import StandardScaler
import numpy as np
X = StandardScaler().fit_transform(np.random.rand(40, 15)).astype(np.float32)
loader = DataLoader(torch.from_numpy(X), batch_size=8)
vae = VAE(next(iter(loader)).shape[1])
""",
}


@pytest.mark.parametrize("way", BUILT)
def test_what_the_file_builds_the_model_with_is_read(tmp_path: Path, way: str) -> None:
    if "sklearn" in BUILT[way]:
        pytest.importorskip("sklearn")
    if "yaml" in BUILT[way]:
        pytest.importorskip("yaml")
    name = "Twin" if "Twin" in BUILT[way] else "VAE"
    subject = loaded(tmp_path, BUILT[way], default="", name=name)
    assert subject.model.up.in_features == 15
    assert not any(note.startswith("made up") for note in subject.notes)


LOSSES = {
    "a function written beside the step": """
def main():
    def bound(x, recon, mu, logvar):
        rec, kl = terms(recon, x, mu, logvar)
        return rec - kl

    vae = VAE(12)
    optimizer = torch.optim.Adam(vae.parameters())

    def step(x):
        loss = bound(x, *vae(x))
        loss.backward()

    for x in torch.rand(64, 12).split(8):
        step(x)

main()
""",
    "a list of weights as long as the loader": LOADER
    + """
ramp = [min(1, i / 10) for i in range(5 * len(loader))]
it = 0
for epoch in range(5):
    for (x,) in loader:
        recon, mu, logvar = vae(x)
        rec, kl = terms(recon, x, mu, logvar)
        loss = rec - ramp[it] * kl
        loss.backward()
        it += 1
""",
    "a weight by a counter": LOADER
    + """
def weight(step):
    return min(1.0, step / 500)

seen = 0
for (x,) in loader:
    recon, mu, logvar = vae(x)
    rec, kl = terms(recon, x, mu, logvar)
    loss = rec - weight(seen) * kl
    loss.backward()
    seen += 1
""",
    "a batch that keeps its name": LOADER
    + """
for epoch in range(3):
    for i, x in enumerate(DataLoader(TensorDataset(X, X[:, 0]), batch_size=16)):
        x, _ = x
        x = x.view(x.size(0), -1)
        recon, mu, logvar = vae(x)
        rec, kl = terms(recon, x, mu, logvar)
        loss = rec - kl
        loss.backward()
""",
    "terms in a dict": LOADER
    + """
for (x,) in loader:
    recon, mu, logvar = vae(x)
    losses = {}
    losses["rec"], losses["kl"] = terms(recon, x, mu, logvar)
    losses["kl"] *= -1
    total = sum(v for v in losses.values())
    total.backward()
""",
    "a part that keeps its name": LOADER
    + """
for x in loader:
    x = x[0].float()
    recon, mu, logvar = vae(x)
    rec, kl = terms(recon, x, mu, logvar)
    loss = rec - kl
    loss.backward()
""",
}


@pytest.mark.parametrize("way", LOSSES)
def test_the_loops_own_loss_is_judged(tmp_path: Path, way: str) -> None:
    """Each subtracts the KL."""
    subject = loaded(tmp_path, LOSSES[way])
    assert subject.objective.origin.startswith("found")
    found = [f.code for f in examine_subject(subject).findings]
    assert "VAE703" in found
    assert "VAE002" not in found


def test_a_step_of_a_framework_reads_a_loaders_dict_and_the_epoch(tmp_path: Path) -> None:
    text = """
    import pytorch_lightning as pl
    from torch.utils.data import Dataset

    class Rows(Dataset):
        def __len__(self):
            return 64
        def __getitem__(self, i):
            return {"row": 7 + torch.rand(12), "number": i}

    class Module(VAE, pl.LightningModule):
        def training_step(self, batch, batch_idx):
            x = batch["row"]
            recon, mu, logvar = self(x)
            rec, kl = terms(recon, x, mu, logvar)
            return rec - kl * min(1.0, (self.current_epoch + 1) / 10)

    pl.Trainer().fit(Module(), train_dataloaders=DataLoader(Rows(), batch_size=8))
    """
    subject = loaded(tmp_path, text, name="Module")
    assert subject.objective.name == "training_step"
    assert "VAE703" in [f.code for f in examine_subject(subject).findings]


def test_a_loss_that_is_read_from_the_model_after_a_bare_call(tmp_path: Path) -> None:
    text = """
    class Keeps(VAE):
        def forward(self, x):
            recon, mu, logvar = super().forward(x)
            self.rec, self.kl = terms(recon, x, mu, logvar)
            return recon

        @property
        def loss(self):
            return self.rec - self.kl

    vae = Keeps(12)
    optimizer = torch.optim.Adam(vae.parameters())
    for x in (7 + torch.rand(64, 12)).split(8):
        optimizer.zero_grad()
        vae(x)
        vae.loss.backward()
        optimizer.step()
    """
    subject = loaded(tmp_path, text, name="Keeps")
    assert "`vae.loss` of the training loop" in subject.objective.origin
    assert "VAE703" in [f.code for f in examine_subject(subject).findings]


def test_the_weight_of_a_cycle_is_the_last(tmp_path: Path) -> None:
    subject = loaded(tmp_path, LOSSES["a list of weights as long as the loader"])
    torch.manual_seed(0)
    total = subject.objective.run(subject.model, subject.batch).item()
    torch.manual_seed(0)
    recon, mu, logvar = subject.model(*subject.batch.args)
    x = subject.batch.args[0]
    rec = (recon - x).square().sum()
    kl = -0.5 * (1 + logvar - mu.square() - logvar.exp()).sum()
    assert total == pytest.approx((rec - kl).item(), rel=1e-5)


@pytest.mark.parametrize(
    "taken",
    ["for x, lengths, mask in rows():\n", "for row in rows():\n        x, lengths, mask = row\n"],
)
def test_a_mask_and_lengths_that_nothing_tells_leave_all_in(tmp_path: Path, taken: str) -> None:
    text = """
class Steps(VAE):
    def forward(self, x):
        recon, mu, logvar = super().forward(x.mean(1))
        return recon[:, None] + 0 * x, mu, logvar

def train(model, rows, optimizer):
    TAKEN
        recon, mu, logvar = model(x)
        rec = ((recon - x).square().sum(-1) * mask).sum() / (lengths > 0).sum()
        kl = -0.5 * (1 + logvar - mu.square() - logvar.exp()).sum() / len(mu)
        loss = rec - kl
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
"""
    text = text.replace("TAKEN\n", taken)
    (tmp_path / "own.py").write_text(MODEL.replace("width=12", "width=7") + text)
    subject = load(f"{tmp_path / 'own.py'}:Steps", input="8x5x7")
    assert subject.objective is not None
    assert subject.objective.name == "loss"
    assert "VAE703" in [f.code for f in examine_subject(subject).findings]


DRAWN = {
    "labels in one line with the data": """
for i in range(9):
    x, label = torch.rand(16, 12), torch.randint(0, 4, (16,))
    recon, mu, logvar = vae(x)
    score = F.cross_entropy(recon[:, :4], label, reduction="sum")
""",
    "what the data is made of": """
for i in range(9):
    fine = torch.rand(16, 24)
    x = F.avg_pool1d(fine, 2)
    recon, mu, logvar = vae(x)
    score = F.mse_loss(recon.repeat_interleave(2, 1), fine, reduction="sum")
""",
    "labels of all the data": """
x, label = torch.rand(16, 12), torch.randint(0, 4, (16,))
for i in range(9):
    recon, mu, logvar = vae(x)
    score = F.cross_entropy(recon[:, :4], label, reduction="sum")
""",
}


@pytest.mark.parametrize("way", DRAWN)
def test_what_is_drawn_beside_the_data_has_as_many_rows(tmp_path: Path, way: str) -> None:
    """The rows that the script writes out are those of its example: fewer come with fewer."""
    text = f"""
import torch.nn.functional as F
vae = VAE(12)
{DRAWN[way]}
    rec, kl = terms(recon, x, mu, logvar)
    (rec + kl + score).backward()
"""
    subject = loaded(tmp_path, text)
    assert "training loop" in subject.objective.origin
    report = examine_subject(subject, select=["VAE002", "VAE505", "VAE711"])
    assert not report.findings
    assert [o.status for o in report.outcomes] == ["passed"] * 3


def test_ones_that_are_written_out_beside_a_loader_are_told(tmp_path: Path) -> None:
    text = """
import torch.nn.functional as F
vae = VAE(12)
for x in DataLoader(torch.rand(64, 12), batch_size=8):
    weight = torch.ones(8)
    recon, mu, logvar = vae(x)
    rec, kl = terms(recon, x, mu, logvar)
    score = ((recon - x).square().sum(1) * weight).mean()
    (rec + kl + score).backward()
"""
    found = [f.code for f in examine_subject(loaded(tmp_path, text), select=["VAE505"]).findings]
    assert found == ["VAE505"]


@pytest.mark.parametrize("key", ["target", "gold"])
def test_what_a_loader_gives_beside_the_words_is_no_fault(tmp_path: Path, key: str) -> None:
    text = f"""
import torch.nn.functional as F

class Words(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.read = nn.Embedding(20, 6), nn.GRU(6, 8, batch_first=True)
        self.heads, self.start, self.say = nn.Linear(8, 6), nn.Linear(3, 8), nn.Linear(8, 20)

    def forward(self, words, length):
        seen, last = self.read(self.embed(words[:, : length.max()]))
        mu, logvar = self.heads(last[0]).chunk(2, -1)
        z = mu + torch.randn_like(mu) * (logvar / 2).exp()
        return self.say(self.read(self.embed(words), self.start(z)[None])[0]), mu, logvar

def loss_fn(logits, truth, length, mu, logvar):
    truth = truth[:, : length.max()].reshape(-1)
    nll = F.cross_entropy(logits.reshape(-1, 20), truth, reduction="sum")
    return nll, -0.5 * (1 + logvar - mu.square() - logvar.exp()).sum()

def train(loader, model, optimizer):
    for batch in loader:
        logits, mu, logvar = model(batch["words"], batch["length"])
        nll, kl = loss_fn(logits, batch["{key}"], batch["length"], mu, logvar)
        ((nll + kl) / len(logits)).backward()
        optimizer.step()
"""
    assert not examine_subject(loaded(tmp_path, text, name="Words"), select=["VAE002"]).findings
