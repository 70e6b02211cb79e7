"""Ways in which people's files hold the loss: each is found, and so is a slip in it."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest
import torch

from vaedoctor import Report
from vaedoctor.checkup import examine_subject
from vaedoctor.subject.target import load

CORE = """
import torch
import torch.nn.functional as F
from collections import OrderedDict
from dataclasses import dataclass
from torch import nn


class Core(BASE):
    def __init__(self):
        super().__init__()
        self.enc = nn.Linear(20, 16)
        self.mu, self.lv = nn.Linear(16, 4), nn.Linear(16, 4)
        self.dec = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 20), nn.Sigmoid())

    def encode(self, x):
        h = torch.tanh(self.enc(x))
        return self.mu(h), self.lv(h)

    def sample(self, mu, lv):
        return mu + torch.exp(0.5 * lv) * torch.randn_like(lv)


"""
KL = "-0.5 * torch.sum(1 + lv - mu.pow(2) - lv.exp())"

RETURNS_PARTS = """
class VAE(Core):
    def forward(self, x):
        mu, lv = self.encode(x)
        return self.dec(self.sample(mu, lv)), mu, lv
"""
STYLES = {
    "forward returns only the loss": (
        """
        class VAE(Core):
            def forward(self, x):
                mu, lv = self.encode(x)
                x_hat = self.dec(self.sample(mu, lv))
                return F.binary_cross_entropy(x_hat, x, reduction="sum") + KL
        """,
        "found: forward returns the loss",
    ),
    "forward returns nothing": (
        """
        class VAE(Core):
            def forward(self, x):
                self.x, (self.m, self.v) = x, self.encode(x)
                self.x_hat = self.dec(self.sample(self.m, self.v))

            def compute_loss(self):
                mu, lv = self.m, self.v
                return F.mse_loss(self.x_hat, self.x, reduction="sum") + KL
        """,
        "found: method `compute_loss`",
    ),
    "a dataclass read by attributes": (
        """
        @dataclass
        class Output:
            x_hat: torch.Tensor
            m: torch.Tensor
            v: torch.Tensor

        class VAE(Core):
            def forward(self, x):
                mu, lv = self.encode(x)
                return Output(self.dec(self.sample(mu, lv)), mu, lv)

        def loss_fn(result, x):
            mu, lv = result.m, result.v
            return F.mse_loss(result.x_hat, x, reduction="sum") + KL
        """,
        "found: `loss_fn` in ",
    ),
    "a posterior of the user's own class": (
        """
        class Gaussian:
            def __init__(self, mu, lv):
                self.mean, self.logvar = mu, lv

            def sample(self):
                return self.mean + torch.exp(0.5 * self.logvar) * torch.randn_like(self.mean)

            def kl(self):
                mu, lv = self.mean, self.logvar
                return KL

        class VAE(Core):
            def forward(self, x):
                posterior = Gaussian(*self.encode(x))
                return self.dec(posterior.sample()), posterior

        def loss_fn(x_hat, posterior, x):
            return F.mse_loss(x_hat, x, reduction="sum") + posterior.kl()
        """,
        "found: `loss_fn` in ",
    ),
    "the loss is the second output": (
        """
        class VAE(Core):
            def forward(self, x):
                mu, lv = self.encode(x)
                x_hat = self.dec(self.sample(mu, lv))
                return x_hat, F.mse_loss(x_hat, x, reduction="sum") + KL

        def train(model, loader, optimizer):
            for x, label in loader:
                y, cost = model(x)
                optimizer.zero_grad()
                cost.backward()
                optimizer.step()
        """,
        "found: `cost` of the training loop",
    ),
    "the KL is an attribute": (
        """
        class VAE(Core):
            def forward(self, x):
                mu, lv = self.encode(x)
                self.kl = KL
                return self.dec(self.sample(mu, lv))

        def fit(vae, loader, epochs=3):
            for epoch in range(epochs):
                for i, (x, _) in enumerate(loader):
                    x = x.view(len(x), -1).cuda()
                    x_hat = vae(x)
                    loss = ((x - x_hat) ** 2).sum() + vae.kl
                    print(epoch, i, loss.item())
                    loss.backward()
        """,
        "found: `loss` of the training loop",
    ),
    "the loss stands in the script": (
        f"""{RETURNS_PARTS}
if __name__ == "__main__":
    net = VAE()
    beta = 2.0
    for step in range(100000):
        batch = torch.rand(32, 20)
        with torch.autograd.set_detect_anomaly(True):
            x_hat, mu, lv = net(batch)
            rec = F.binary_cross_entropy(x_hat, batch, reduction="sum")
            total = rec + beta * KL
        (total / 4).backward()
        """,
        "found: `total / 4` of the training loop",
    ),
    "a criterion built beside the loop": (
        f"""{RETURNS_PARTS}
class Criterion(nn.Module):
    def __init__(self, beta=1.0):
        super().__init__()
        self.beta = beta

    def forward(self, x_hat, x, mu, lv):
        return F.mse_loss(x_hat, x, reduction="sum") + self.beta * KL

def train(model, loader):
    criterion = Criterion(beta=4.0)
    for data in loader:
        x_hat, mu, lv = model(data)
        loss = criterion(x_hat, data, mu, lv)
        loss.backward()
        """,
        "found: `loss` of the training loop",
    ),
    "a trainer class": (
        f"""{RETURNS_PARTS}
class Trainer:
    def __init__(self, model, beta=1.0):
        self.model = model
        self.weight = 2 * 0.25
        self.beta = beta
        self.scaler = torch.amp.GradScaler()

    def fit(self, loader):
        for x, _ in loader:
            x_hat, mu, lv = self.model(x)
            loss = F.mse_loss(x_hat, x, reduction="sum") + self.beta * self.weight * KL
            self.scaler.scale(loss).backward()
        """,
        "found: `loss` of the training loop",
    ),
    "the sampling is in the loop": (
        """
        class VAE(Core):
            def decode(self, z):
                return self.dec(z)

        def train(vae, loader):
            for x, _ in loader:
                mu, lv = vae.encode(x)
                z = mu + torch.exp(0.5 * lv) * torch.randn_like(mu)
                x_hat = vae.decode(z)
                loss = F.mse_loss(x_hat, x, reduction="sum") + KL
                loss.backward()
        """,
        "found: `loss` of the training loop",
    ),
    "a function of the model with an odd name, on a batch made on the spot": (
        f"""{RETURNS_PARTS}
def price(machine, x):
    x_hat, mu, lv = machine(x)
    return F.mse_loss(x_hat, x, reduction="sum") + KL

if __name__ == "__main__":
    machine = VAE()
    for _ in range(3):
        total = price(machine, torch.rand(16, 20))
        total.backward()
        """,
        "found: `price` in mymodel.py",
    ),
    "the total beside x_hat and its terms, none with a name": (
        """
        class VAE(Core):
            def forward(self, x):
                mu, lv = self.encode(x)
                x_hat = self.dec(self.sample(mu, lv))
                nll, kl = F.mse_loss(x_hat, x, reduction="sum"), KL
                return torch.sigmoid(x_hat), (kl, nll + kl, nll.detach())
        """,
        "found: output [1][1] is computed from all others",
    ),
    "training_step on a plain module": (
        f"""{RETURNS_PARTS}
    def training_step(self, batch, batch_idx):
        x, _ = batch
        x_hat, mu, lv = self(x)
        loss = F.mse_loss(x_hat, x, reduction="sum") + KL
        self.log("loss", loss, prog_bar=True)
        self.log_dict({{"epoch": self.current_epoch}})
        if self.trainer.is_global_zero:
            self.logger.experiment.add_scalar("loss", loss, self.global_step)
        return {{"loss": loss}}
        """,
        "found: method `training_step`",
    ),
    "a training_step whose batch has another name": (
        f"""{RETURNS_PARTS}
    def training_step(self, samples, batch_idx):
        x, _ = samples
        x_hat, mu, lv = self(x)
        return F.mse_loss(x_hat, x, reduction="sum") + KL
        """,
        "found: method `training_step`",
    ),
    "a step that hands the batch on": (
        f"""{RETURNS_PARTS}
    def shared(self, batch):
        x, y = batch
        x_hat, mu, lv = self(x)
        return F.mse_loss(x_hat, x, reduction="sum") + KL

    def training_step(self, batch, batch_idx):
        return self.shared(batch)
        """,
        "found: method `training_step`",
    ),
    "manual optimisation": (
        f"""{RETURNS_PARTS}
    def training_step(self, batch, batch_idx):
        first, second = self.optimizers()
        x_hat, mu, lv = self(batch)
        loss = F.mse_loss(x_hat, batch, reduction="sum") + KL
        first.zero_grad()
        self.manual_backward(loss)
        first.step()
        """,
        "found: method `training_step`",
    ),
    "a nested output without a name": (
        """
        class VAE(Core):
            def forward(self, x):
                q = self.encode(x)
                z = self.sample(*q)
                return {"out": [self.dec(z), z], "q": q}

        def train(model, batches):
            for x in batches:
                result = model(x)
                (x_hat, z), (mu, lv) = result["out"], result["q"]
                loss = F.mse_loss(x_hat, x, reduction="sum")
                loss += KL
                loss.backward()
        """,
        "found: `loss` of the training loop",
    ),
}


def examined(folder: Path, body: str, *, kl: str = KL, base: str = "nn.Module") -> Report:
    file = folder / "mymodel.py"
    core = CORE.replace("BASE", base)
    file.write_text(core + textwrap.dedent(body).replace("KL", kl), encoding="utf-8")
    return examine_subject(load(f"{file}:VAE"))


def line_of(folder: Path, text: str) -> int:
    lines = (folder / "mymodel.py").read_text().splitlines()
    return next(i for i, line in enumerate(lines, 1) if text in line)


@pytest.mark.parametrize("style", STYLES)
def test_the_loss_is_found_and_nothing_is_wrong(style: str, tmp_path: Path) -> None:
    body, origin = STYLES[style]
    report = examined(tmp_path, body)
    assert any(n.startswith(f"loss: {origin}") for n in report.notes), report.notes
    assert report.picture.family == "gaussian"
    assert report.picture.confidence == "high"
    assert not report.findings, f"\n{report}"


@pytest.mark.parametrize("style", STYLES)
def test_a_flipped_kl_is_found_wherever_the_loss_is(style: str, tmp_path: Path) -> None:
    flipped = KL.removeprefix("-")
    report = examined(tmp_path, STYLES[style][0], kl=flipped)
    assert [f.code for f in report.findings] == ["VAE703"], f"\n{report}"


def test_the_kl_of_a_loop_is_found_in_its_own_line(tmp_path: Path) -> None:
    body = STYLES["the loss stands in the script"][0]
    (finding,) = examined(tmp_path, body, kl=KL.removeprefix("-")).findings
    assert finding.at is not None
    line = (tmp_path / "mymodel.py").read_text().splitlines()[finding.at.line - 1]
    assert "total = rec + beta * 0.5 * torch.sum(" in line


def test_only_what_the_loss_needs_runs(tmp_path: Path) -> None:
    body = f"""{RETURNS_PARTS}
def train(model, loader, log):
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    for x, _ in loader:
        open("touched", "w").close()
        x_hat, mu, lv = model(x)
        images = save_everything(x_hat)
        loss = F.mse_loss(x_hat, x, reduction="sum") + KL
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    """
    report = examined(tmp_path, body)
    line = line_of(tmp_path, "loss.backward()")
    assert f"loss: found: `loss` of the training loop, line {line}" in report.notes
    assert [p.name for p in tmp_path.iterdir()] == ["mymodel.py"]


def test_a_loop_that_needs_more_than_the_file_tells_says_what(tmp_path: Path) -> None:
    body = f"""{RETURNS_PARTS}
def train(model, loader, schedule):
    for x, _ in loader:
        x_hat, mu, lv = model(x)
        loss = F.mse_loss(x_hat, x, reduction="sum") + schedule(x) * KL
        loss.backward()
    """
    notes = examined(tmp_path, body).notes
    line = line_of(tmp_path, "loss.backward()")
    said = f"line {line} raised NameError: name 'schedule' is not defined"
    assert any(said in n for n in notes), notes


def test_a_loss_that_is_not_called_and_raises_explains_itself(tmp_path: Path) -> None:
    body = f"""{RETURNS_PARTS}
def vae_loss(recon, x, mu, lv):
    return F.mse_loss(recon, x.view(-1, 784)) + KL
    """
    (note,) = [n for n in examined(tmp_path, body).notes if "vae_loss" in n]
    for part in (
        f"loss: `vae_loss` (line {line_of(tmp_path, 'def vae_loss')}) is not used",
        "it is not called in this file",
        "`x` 8×20",
        "shape '[-1, 784]' is invalid for input of size 160",
        "`--objective vae_loss` examines why",
    ):
        assert part in note


def test_heads_are_told_from_the_sample_by_a_second_run(tmp_path: Path) -> None:
    body = """
    class VAE(Core):
        def forward(self, x):
            a, b = self.encode(x)
            return [self.sample(a, b), self.dec(self.sample(a, b)), a, b]

    def loss_function(x_hat, x, mu, lv):
        return F.mse_loss(x_hat, x, reduction="sum") + KL
    """
    report = examined(tmp_path, body)
    terms = {t.role for t in report.picture.terms}
    assert terms == {"reconstruction", "kl"}
    assert "VAE701" in {o.code for o in report.outcomes if o.status == "passed"}


def test_lightning_logs_without_a_trainer(tmp_path: Path) -> None:
    pytest.importorskip("pytorch_lightning", reason="needs `pytorch-lightning`")
    body = f"""{RETURNS_PARTS}
    def training_step(self, batch, batch_idx):
        x, _ = batch
        x_hat, mu, lv = self(x)
        loss = F.mse_loss(x_hat, x, reduction="sum") + KL
        self.log("loss", loss, on_epoch=True)
        self.log("epoch", self.trainer.current_epoch)
        return loss
    """
    base = 'getattr(__import__("pytorch_lightning"), "LightningModule")'
    report = examined(tmp_path, body, base=base)
    assert "loss: found: method `training_step`" in report.notes
    assert not report.findings, f"\n{report}"
    flipped = examined(tmp_path, body, base=base, kl=KL.removeprefix("-"))
    assert [f.code for f in flipped.findings] == ["VAE703"]


PYRO = """
import pyro
import pyro.distributions as dist
import torch
from torch import nn

class VAE(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(20, 16), nn.Softplus())
        self.loc, self.scale = nn.Linear(16, 4), nn.Linear(16, 4)
        self.decoder = nn.Sequential(nn.Linear(4, 20), nn.Sigmoid())

    def model(self, x):
        pyro.module("decoder", self.decoder)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x), 4), 1.0).to_event(1))
            p = self.decoder(z)
            pyro.sample("x", dist.Bernoulli(p, validate_args=False).to_event(1), obs=x)

    def guide(self, x):
        pyro.module("encoder", self)
        with pyro.plate("data", len(x)):
            h = self.encoder(x)
            pyro.sample("z", dist.Normal(self.loc(h), self.scale(h).exp()).to_event(1))
"""


def test_a_pyro_pair_is_run_through_its_own_elbo(tmp_path: Path) -> None:
    pyro = pytest.importorskip("pyro", reason="needs `pyro-ppl`")
    file = tmp_path / "mymodel.py"
    file.write_text(PYRO)
    before = dict(pyro.get_param_store().items())
    report = examine_subject(load(f"{file}:VAE"))
    assert dict(pyro.get_param_store().items()) == before
    assert report.ok, f"\n{report}"
    assert report.picture.family == "gaussian"
    assert report.picture.forward == "composed: x → guide → sample → model"
    assert "loss: found: Pyro's `Trace_ELBO` of `model` and `guide`" in report.notes
    assert {"x", "location", "scale", "sample", "x_hat"} <= {p.role for p in report.picture.parts}


def test_a_pair_that_takes_another_batch_than_forward_is_left_alone(tmp_path: Path) -> None:
    pytest.importorskip("pyro", reason="needs `pyro-ppl`")
    forward = """
    def forward(self, x):
        h = self.encoder(x)
        return self.decoder(self.loc(h)), self.loc(h)
"""
    file = tmp_path / "mymodel.py"
    file.write_text(PYRO.replace("(self, x):\n", "(self, d):\n        x = d['x']\n") + forward)
    report = examine_subject(load(f"{file}:VAE"))
    assert report.ok, f"\n{report}"
    assert not any("Trace_ELBO" in note for note in report.notes)


def test_nothing_of_a_stand_in_trainer_stays_on_the_model() -> None:
    from vaedoctor.subject.loading.trainerless import without_trainer

    model = torch.nn.Linear(2, 2)
    before = dict(vars(model))
    with without_trainer(model) as losses:
        model.log("a", 1)
        model.manual_backward("loss")
        assert min(1.0, model.current_epoch / 100) == 1.0
        assert torch.tensor(1.0) * model.global_step - 5000 > 0
        assert [0.1, 0.2, 1.0][model.trainer.current_epoch] == 1.0
        assert model.trainer.global_step / model.trainer.estimated_stepping_batches == 1
        assert 0.5 * model.trainer.world_size == 0
    assert losses == ["loss"]
    assert dict(vars(model)) == before


def test_a_step_that_goes_backward_from_two_losses_is_not_judged_by_one(tmp_path: Path) -> None:
    body = f"""{RETURNS_PARTS}
def train(model, loader, optimizer):
    for x, _ in loader:
        x_hat, mu, lv = model(x)
        rec = F.mse_loss(x_hat, x, reduction="sum")
        optimizer.zero_grad()
        rec.backward(retain_graph=True)
        (KL).backward()
        optimizer.step()
    """
    report = examined(tmp_path, body)
    assert not any("of the training loop" in n for n in report.notes), report.notes
    assert not report.findings, f"\n{report}"


def test_terms_without_a_total_are_not_taken_for_the_loss(tmp_path: Path) -> None:
    body = f"""{RETURNS_PARTS}
    def loss(self, x, x_hat, mu, lv):
        return F.mse_loss(x_hat, x, reduction="sum"), KL
    """
    report = examined(tmp_path, body)
    assert any(n.startswith("`loss` returns terms and no total") for n in report.notes)
    assert not report.findings, f"\n{report}"


def test_a_loss_of_every_row_that_the_file_calls_is_not_used(tmp_path: Path) -> None:
    body = f"""{RETURNS_PARTS}
    def loss(self, x, x_hat, mu, lv):
        return (x_hat - x).square().sum(1) + mu.square().sum(1)

    def report(self, x):
        x_hat, mu, lv = self(x)
        return {{"loss": self.loss(x, x_hat, mu, lv).mean()}}
    """
    report = examined(tmp_path, body)
    assert any("the loss is not a scalar" in n for n in report.notes), report.notes
    assert not report.findings, f"\n{report}"
