"""The file's own loss, where it fails or trains nothing: the examination gets it and says why."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch

from vaedoctor.checkup import examine_subject
from vaedoctor.finding import Severity
from vaedoctor.subject.target import load
from vaedoctor.subject.target import loaded as loading

MODEL = """
import torch
from torch import nn
import torch.nn.functional as F

class VAE(nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(12, 6), nn.Linear(3, 12)

    def forward(self, wav):
        mu, logvar = self.up(wav).chunk(2, -1)
        z = mu + torch.randn_like(mu) * (logvar / 2).exp()
        return {"wav": self.down(z), "mu": mu, "logvar": logvar}
"""


def loaded(tmp_path: Path, text: str, **options: Any) -> Any:
    """The subject of a file that continues `MODEL`."""
    (tmp_path / "own.py").write_text(MODEL + textwrap.dedent(text))
    return load(f"{tmp_path / 'own.py'}:VAE", **options)


def test_what_a_loss_hands_to_forward_is_the_input(tmp_path: Path) -> None:
    """Although an output has the name of that parameter too."""
    method = """
    def compute_loss(self, wav):
        with torch.no_grad():
            out = self(wav)
        return F.mse_loss(out["wav"], wav) + out["mu"].square().mean()
    """
    use = "net = VAE()\nloss = net.compute_loss(torch.randn(4, 12))\n"
    subject = loaded(tmp_path, textwrap.indent(textwrap.dedent(method), "    ") + use)
    made: list[Any] = []
    subject.model.register_forward_pre_hook(lambda module, args: made.append(args[0]))
    assert subject.objective is not None, subject.notes
    loss = subject.objective.run(subject.model, subject.batch)
    assert made[-1] is subject.batch.args[0]
    assert not loss.requires_grad


PLACED = """
import torch
from torch import nn

class VAE(nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.down, self.kind = nn.Linear(8, 6), nn.Linear(3, 3), nn.Linear(3, 5)

    def forward(self, kind, place):
        mu, logvar = self.up(torch.cat([kind, place], 1)).chunk(2, -1)
        z = mu + torch.randn_like(mu) * (logvar / 2).exp()
        return {"kind": self.kind(z), "place": self.down(z), "mu": mu, "logvar": logvar}

    def loss(self, kind, place):
        out = self(GIVEN)
        kl = -0.5 * (1 + out["logvar"] - out["mu"] ** 2 - out["logvar"].exp()).sum()
        return (out["kind"] - kind).square().sum() + (out["place"] - place).square().sum() + kl
"""


@pytest.mark.parametrize("given", ["kind, place", "kind, place=place"])
def test_all_that_a_loss_hands_to_forward_is_the_input(tmp_path: Path, given: str) -> None:
    """Each has the name of an output."""
    (tmp_path / "placed.py").write_text(PLACED.replace("GIVEN", given))
    subject = load(f"{tmp_path / 'placed.py'}:VAE")
    made: list[Any] = []
    subject.model.up.register_forward_pre_hook(lambda module, args: made.append(args[0]))
    assert subject.objective is not None, subject.notes
    subject.objective.run(subject.model, subject.batch)
    batch = [*subject.batch.args, *subject.batch.kwargs.values()]
    assert [len(made), torch.equal(made[0], torch.cat(batch, 1))] == [1, True]


PICTURES = """
import torch
from torch import nn
import torch.nn.functional as F

class VAE(nn.Module):
    def __init__(self, widths=(8, 12)):
        super().__init__()
        a, b = widths
        self.down = nn.Sequential(
            nn.Conv2d(3, a, 3, 2, 1), nn.ReLU(), nn.Conv2d(a, b, 3, 2, 1), nn.Flatten()
        )
        self.heads = nn.Linear(b * {inner} ** 2, 8)
        self.open = nn.Linear(4, b * 64)
        self.up = nn.Sequential(
            nn.Unflatten(1, (b, 8, 8)), nn.ConvTranspose2d(b, a, 4, 2, 1), nn.ReLU(),
            nn.ConvTranspose2d(a, 3, 4, 2, 1),
        )

    def forward(self, x):
        mu, logvar = self.heads(self.down(x)).chunk(2, -1)
        z = mu + torch.randn_like(mu) * (logvar / 2).exp()
        return {{"recon": self.up(self.open(z)), "mu": mu, "logvar": logvar}}
"""
METHOD = """
    def loss(self, x, out):
        kl = 0.5 * (out["mu"] ** 2 + out["logvar"].exp() - 1 - out["logvar"]).sum()
        return F.mse_loss(out["recon"], x, reduction="sum") + kl
"""
LOOP = """
def train(model, loader):
    for x, label in loader:
        out = model(x)
        loss = F.mse_loss(out["recon"], x) + 0.001 * out["mu"].square().mean()
        loss.backward()
"""


@pytest.mark.filterwarnings("ignore:Using a target size")
@pytest.mark.parametrize("loss", [METHOD, LOOP])
@pytest.mark.parametrize(("inner", "alike"), [(8, True), (16, False)])
def test_pictures_that_never_come_out_as_they_went_in_are_told(
    tmp_path: Path, loss: str, inner: int, alike: bool
) -> None:
    """A made-up picture is not to blame: the size that comes out is refused as an input."""
    (tmp_path / "own.py").write_text(PICTURES.format(inner=inner) + loss)
    subject = load(f"{tmp_path / 'own.py'}:VAE")
    assert subject.batch.args[0].shape == (8, 3, 4 * inner, 4 * inner)
    assert subject.objective is not None, subject.notes
    if alike:
        subject.objective.run(subject.model, subject.batch)
        return
    with pytest.raises(RuntimeError, match="must match"):
        subject.objective.run(subject.model, subject.batch)


def test_made_up_sizes_may_be_to_blame_for_what_the_loss_raises(tmp_path: Path) -> None:
    text = PICTURES.format(inner="side // 4").replace("widths=(8, 12)", "side, widths=(8, 12)")
    (tmp_path / "own.py").write_text(text + METHOD)
    subject = load(f"{tmp_path / 'own.py'}:VAE", args={"side": "64"})
    assert subject.objective is not None
    made_up = load(f"{tmp_path / 'own.py'}:VAE")
    if made_up.objective is not None:
        made_up.objective.run(made_up.model, made_up.batch)


def test_a_loop_without_gradients_is_examined(tmp_path: Path) -> None:
    loop = """
    def train(model, loader):
        for wav in loader:
            with torch.no_grad():
                out = model(wav)
            loss = F.mse_loss(out["wav"], wav) + out["mu"].square().mean()
            loss.backward()
    """
    subject = loaded(tmp_path, loop)
    assert subject.objective is not None
    assert not subject.objective.run(subject.model, subject.batch).requires_grad


LABELLED = """
import torch
import torch.nn.functional as F
from torch import nn


class VAE(nn.Module):
    def __init__(self, classes=3):
        super().__init__()
        self.classes = classes
        self.enc, self.dec = nn.Linear(12 + classes, 8), nn.Linear(4 + classes, 12)

    def forward(self, x, y):
        mu, lv = self.enc(torch.cat([x, y], 1)).chunk(2, 1)
        z = mu + (0.5 * lv).exp() * torch.randn_like(mu)
        return self.dec(torch.cat([z, y], 1)), mu, lv

    def bound(self, x, y):
        x_hat, mu, lv = self(x, y)
        kl = 0.5 * (mu.pow(2) + lv.exp() - 1 - lv).sum(1)
        return (x_hat - x).pow(2).sum(1) + kl

    def loss(self, x_known, y_known, x_rest):
        y = F.one_hot(y_known, self.classes).float()
        even = torch.full((len(x_rest), self.classes), 1 / self.classes)
        return self.bound(x_known, y).mean() + self.bound(x_rest, even).mean()


if __name__ == "__main__":
    model, x, labels = VAE(), torch.rand(90, 12), torch.randint(0, 3, (90,))
    for i in range(30):
        model.loss(x[:30], labels[:30], x[30:]).backward()
"""


def test_a_loss_that_got_what_was_left_over_is_not_to_blame(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(LABELLED)
    subject = load(f"{tmp_path / 'own.py'}:VAE")
    subject.batch.run(subject.model)
    if subject.objective is not None:
        subject.objective.run(subject.model, subject.batch)


LIGHTNING = """
import torch
from torch import nn
import torch.nn.functional as F
import pytorch_lightning as pl
from torch.utils.data import DataLoader, TensorDataset

class VAE(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(12, 6), nn.Linear(3, 12)

    def forward(self, x):
        mu, logvar = self.up(x.flatten(1)).chunk(2, -1)
        return self.down(mu + torch.randn_like(mu) * (logvar / 2).exp()), mu

    def training_step(self, batch, batch_idx):
        x, y = batch
        recon, mu = self(x)
        loss = F.binary_cross_entropy(recon.sigmoid(), {target}) + mu.square().mean()
        {step}return {returned}

data = TensorDataset(torch.rand(64, 3, 4), torch.zeros(64))
pl.Trainer(max_epochs=2).fit(VAE(), DataLoader(data, batch_size=16))
"""


@pytest.mark.parametrize(
    ("parts", "code"),
    [
        ({"target": "x.flatten(1)", "returned": "loss"}, set()),
        ({"target": "x", "returned": "loss"}, {"VAE502"}),
        ({"target": "x.flatten(1)", "returned": "loss.item()"}, {"VAE714"}),
        ({"target": "x.flatten(1)", "returned": "loss.item()", "step": "loss.backward()"}, set()),
    ],
)
def test_a_framework_step_that_fails_or_gives_a_number_is_told(
    tmp_path: Path, parts: dict[str, str], code: set[str]
) -> None:
    parts = {"step": "", **parts}
    parts["step"] = parts["step"] and f"{parts['step']}\n        "
    (tmp_path / "own.py").write_text(LIGHTNING.format(**parts))
    with loading(f"{tmp_path / 'own.py'}:VAE") as subject:
        report = examine_subject(subject, select=["VAE002", "VAE501", "VAE502", "VAE714"])
    assert {f.code for f in report.findings} == code
    assert all(f.at is not None and f.at.line > 16 for f in report.findings)


TOKENS = """
import torch
from torch import nn
import torch.nn.functional as F

class VAE(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(20, 8, padding_idx={pad})
        self.up, self.down = nn.Linear(8, 6), nn.Linear(3, 20)

    def forward(self, x):
        mu, logvar = self.up(self.table(x)).chunk(2, -1)
        return self.down(mu + torch.randn_like(mu) * (logvar / 2).exp()), mu, logvar

def vae_loss(logits, target, mu, logvar, pad_idx):
    rec = F.cross_entropy(logits.flatten(0, 1), target.flatten(), ignore_index=pad_idx)
    return rec + mu.square().mean() + logvar.square().mean()
"""


def test_what_is_ignored_is_what_the_embedding_takes_for_padding(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(TOKENS.format(pad=3))
    subject = load(f"{tmp_path / 'own.py'}:VAE")
    assert subject.objective is not None, subject.notes
    assert subject.objective.name == "vae_loss"
    (tmp_path / "own.py").write_text(TOKENS.format(pad=None))
    subject = load(f"{tmp_path / 'own.py'}:VAE")
    assert subject.objective is None
    said = "loss: `vae_loss` is not used: nothing tells its parameter `pad_idx`"
    assert any(note.startswith(said) for note in subject.notes)


def test_a_loss_of_every_row_is_called_no_scalar(tmp_path: Path) -> None:
    method = """
    def loss(self, wav):
        out = self(wav)
        return (out["wav"] - wav).square().sum(1)
    """
    subject = loaded(tmp_path, textwrap.indent(textwrap.dedent(method), "    "))
    said = "loss: `loss` (line 16) is not used: the loss is not a scalar: its shape is [8]"
    assert any(note.startswith(said) for note in subject.notes), subject.notes
    assert not any("examines why" in note for note in subject.notes)


BOUND = """
import torch
from torch import nn

class VAE(nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(12, 6), nn.Linear(3, 12)

    def forward(self, x):
        mu, logvar = self.up(x).chunk(2, -1)
        z = mu + torch.randn_like(mu) * (logvar / 2).exp()
        kl = 0.5 * (mu.square() + logvar.exp() - 1 - logvar).sum(1)
        return (-0.5 * (self.down(z) - x).square().sum(1) - kl).mean()

def train(vae, loader, optimizer):
    for x in loader:
        optimizer.zero_grad()
        {goes}
        optimizer.step()
"""


@pytest.mark.parametrize(
    ("goes", "codes"),
    [
        ("(-vae(x)).backward()", set()),
        ("elbo = vae(x); loss = -elbo; loss.backward()", set()),
        ("ae = -vae(x); ae.backward()", set()),
        ("vae(x).backward()", {"VAE703", "VAE707"}),
    ],
)
def test_the_sign_of_a_bound_that_forward_returns_is_the_loops(
    goes: str, codes: set[str], tmp_path: Path
) -> None:
    (tmp_path / "bound.py").write_text(BOUND.replace("{goes}", goes))
    subject = load(f"{tmp_path / 'bound.py'}:VAE")
    report = examine_subject(subject, select=["VAE703", "VAE707"])
    assert {f.code for f in report.findings} == codes


@pytest.mark.parametrize("index", ["i : i + 16", "index"])
def test_labels_beside_the_batch_have_as_many_rows(tmp_path: Path, index: str) -> None:
    """Forward takes the pictures alone; the step's labels come in the same slice."""
    text = f"""
import torch
import torch.nn.functional as F
from torch import nn

class VAE(nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.down, self.kind = nn.Linear(12, 6), nn.Linear(3, 12), nn.Linear(3, 4)

    def forward(self, x):
        mu, logvar = self.up(x).chunk(2, -1)
        z = mu + torch.randn_like(mu) * (logvar / 2).exp()
        return self.down(z), self.kind(z), mu, logvar

    def step(self, x, label):
        recon, logits, mu, logvar = self(x)
        kl = -0.5 * (1 + logvar - mu.square() - logvar.exp()).sum(1).mean()
        score = F.cross_entropy(logits, label)
        return (recon - x).square().sum(1).mean() + kl + score

if __name__ == "__main__":
    xs, labels = torch.randn(64, 12), torch.randint(0, 4, (64,))
    model = VAE()
    for i in range(0, 64, 16):
        index = torch.randperm(64)[:16]
        loss = model.step(xs[{index}], labels[{index}])
        loss.backward()
"""
    report = examine_subject(loaded(tmp_path, text), select=("VAE002", "VAE505", "VAE711"))
    assert [f.code for f in report.findings] == []
    assert "VAE505" in {o.code for o in report.outcomes if o.status == "passed"}


SURVEY = """
import torch
from torch import nn
import torch.nn.functional as F

class Survey(nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.mu, self.s = nn.Linear(15, 16), nn.Linear(16, 3), nn.Linear(16, 3)
        self.down = nn.Linear(8, 10)

    def forward(self, answers, group):
        ages = F.one_hot(group, 5).float()
        h = torch.relu(self.up(torch.cat([answers.float() - 1, ages], 1)))
        mu, std = self.mu(h), self.s(h).exp()
        eps = torch.randn_like(std)
        return {"logits": self.down(torch.cat([mu + std * eps, ages], 1)), "mu": mu, "std": std}

    def loss(self, answers, group):
        out = self.forward(answers, group)
        truth = answers.float() - 1
        rec = F.binary_cross_entropy_with_logits(out["logits"], truth, reduction="none").sum(1)
        rec = rec * 1.0
        kl = (0.5 * (out["mu"] ** 2 + out["std"] ** 2) - out["std"].log() - 0.5).sum(1)
        return (rec + kl).mean(), {"rec": rec.mean().item()}

def survey():
    return torch.randint(1, 3, (12, 10)), torch.randint(0, 5, (12,))

model = Survey()
for _ in range(9):
    answers, group = survey()
    loss, parts = model.loss(answers, group)
    loss.backward()
"""
"""A loss that calls `self.forward`, with a target that is computed from x."""
SLIPS_OF_A_SURVEY = [
    ("F.one_hot(group, 5)", "F.one_hot(torch.zeros_like(group), 5)", "VAE404"),
    ("torch.randn_like(std)", "torch.randn_like(std).abs()", "VAE304"),
    ("rec * 1.0", "rec * (1 + 0.5 * group)[:, None]", "VAE503"),
    ("std.log() - 0.5", "std.log() - 0.5", ""),
]


@pytest.mark.parametrize(("right", "slip", "code"), SLIPS_OF_A_SURVEY)
def test_a_loss_that_calls_forward_by_its_name_shows_what_it_returned(
    tmp_path: Path, right: str, slip: str, code: str
) -> None:
    (tmp_path / "own.py").write_text(SURVEY.replace(right, slip))
    report = examine_subject(load(f"{tmp_path / 'own.py'}:Survey"))
    assert [f.code for f in report.findings if f.severity is not Severity.NOTE] == code.split()
