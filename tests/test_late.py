"""A weight that is annealed is judged as it is late in training, not at the first step."""

from pathlib import Path

import pytest
from texts import IMPORTS, VAE

from vaedoctor.checkup import examine_subject
from vaedoctor.finding import Report
from vaedoctor.subject.target import loaded

TERMS = """
def terms(x, x_hat, mu, logvar):
    rec = (x_hat - x).square().sum(1).mean()
    return rec, -0.5 * (1 + logvar - mu ** 2 - logvar.exp()).sum(1).mean()
"""
LIGHTNING = """
import lightning as L

class Module(L.LightningModule):
    def __init__(self{given}):
        super().__init__()
        self.save_hyperparameters()
        self.vae = VAE()
        self.betas = torch.linspace(0, 1, 50)

    def forward(self, x):
        return self.vae(x)

    def training_step(self, batch, batch_idx):
        x, _ = batch
        rec, kl = terms(x, *self(x))
        return rec + {weight} * kl
"""
LOOP = """
model = VAE()
optimizer = torch.optim.Adam(model.parameters())
weight = 0.0
for epoch in range(50):
    for x in torch.rand(512, 20).split(64):
        rec, kl = terms(x, *model(x))
        loss = rec + weight * kl
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    {raised}
"""
TRAINER = """
class Trainer:
    def __init__(self, model, data, warmup=1000):
        self.model, self.data, self.warmup = model, data, warmup
        self.optimizer = torch.optim.Adam(model.parameters())
        self.step = 0

    def fit(self):
        for x in self.data:
            rec, kl = terms(x, *self.model(x))
            loss = rec + min(1.0, self.step / self.warmup) * kl
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            self.step += 1

if __name__ == "__main__":
    Trainer(VAE(), torch.rand(512, 20).split(64)).fit()
"""
SCHEDULE = """
class Schedule:
    def __init__(self, steps):
        self.steps, self.done = steps, 0

    def __call__(self, kl):
        return kl * min(1.0, self.done / self.steps)

    def step(self):
        self.done += 1

schedule = Schedule(100)
"""
SCRIPTS = {
    "epochs": LIGHTNING.format(
        given=", warmup=10, beta=2.0",
        weight="self.hparams.beta * min(1.0, self.current_epoch / self.hparams.warmup)",
    ),
    "steps": LIGHTNING.format(
        given="", weight="torch.sigmoid(torch.tensor((self.global_step - 900) / 99))"
    ),
    "progress": LIGHTNING.format(
        given="", weight="(self.trainer.global_step / self.trainer.estimated_stepping_batches)"
    ),
    "a list": LIGHTNING.format(given="", weight="self.betas[self.current_epoch]"),
    "raised": LOOP.format(raised="weight += 0.02"),
    "raised up to 1": LOOP.format(raised="weight = min(1.0, weight + 0.02)"),
    "an attribute": TRAINER,
    "a schedule": SCHEDULE
    + LOOP.format(raised="schedule.step()").replace("weight * kl", "schedule(kl)"),
}


def _report(folder: Path, text: str) -> Report:
    file = folder / "script.py"
    file.write_text(IMPORTS + VAE + TERMS + text)
    name = "Module" if "Module" in text else "VAE"
    with loaded(f"{file}:{name}") as subject:
        return examine_subject(subject)


@pytest.mark.parametrize("script", SCRIPTS)
def test_an_annealed_weight_is_not_dead(script: str, tmp_path: Path) -> None:
    report = _report(tmp_path, SCRIPTS[script])
    assert not [f for f in report.findings if f.code in {"VAE702", "VAE703", "VAE713"}]
    assert "VAE703" in {o.code for o in report.outcomes if o.status == "passed"}


@pytest.mark.parametrize("script", SCRIPTS)
def test_the_term_that_it_weighs_is_judged(script: str, tmp_path: Path) -> None:
    text = SCRIPTS[script].replace("rec + ", "rec - ")
    assert "VAE703" in {f.code for f in _report(tmp_path, text).findings}
