"""What nobody tells is not held against the model: words, shapes, targets, samples, downloads."""

from __future__ import annotations

import os
import textwrap
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from vaedoctor.checkup import examine_subject
from vaedoctor.finding import Severity
from vaedoctor.subject.errors import TargetError
from vaedoctor.subject.loading.process import unchanged_process
from vaedoctor.subject.target import load

MODEL = """
from typing import TypedDict

import torch
from torch import nn
import torch.nn.functional as F

class VAE(nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(12, 6), nn.Linear(3, 12)
        self.wide = nn.Linear(12, 40)

    def encode(self, x):
        return self.up(x).chunk(2, -1)

    def draw(self, mu, logvar):
        return mu + torch.randn_like(mu) * (logvar / 2).exp()
"""
KL = "-0.5 * (1 + logvar - mu ** 2 - logvar.exp()).sum(-1).mean()"


def loaded(tmp_path: Path, methods: str, beside: str = "", **options: Any) -> Any:
    """The subject of a class that continues `MODEL`, with code beside it."""
    file = tmp_path / "own.py"
    methods = textwrap.indent(textwrap.dedent(methods).replace("KL", KL), "    ")
    file.write_text(MODEL + methods + textwrap.dedent(beside).replace("KL", KL))
    return load(f"{file}:VAE", **options)


WIDE = """
def forward(self, x):
    mu, logvar = self.encode(x)
    return {"wide": self.wide(self.down(self.draw(mu, logvar))), "mu": mu, "logvar": logvar}

def loss(self, outputs, true_map):
    mu, logvar = outputs["mu"], outputs["logvar"]
    return F.mse_loss(outputs["wide"], true_map) + KL
"""


def test_a_named_loss_whose_target_nothing_tells_says_what_to_type(tmp_path: Path) -> None:
    with pytest.raises(TargetError) as refused:
        loaded(tmp_path, WIDE, objective="loss")
    said = str(refused.value)
    assert said.startswith("nothing tells what `true_map` of `loss(outputs, true_map)` is")
    assert "`true_map` 8×12 it raised RuntimeError" in said
    flag, _, code = refused.value.next_step.partition("\n\nwhere losses.py says")
    assert flag == "--objective losses.py:objective"
    code = code.partition("\n\n")[2]
    made = code.replace("true_map = ...", "true_map = torch.ones(len(x), 40)")
    assert made != code
    (tmp_path / "losses.py").write_text(made)
    subject = loaded(tmp_path, WIDE, objective=f"{tmp_path / 'losses.py'}:objective")
    assert subject.objective.run(subject.model, subject.batch).requires_grad


def test_what_is_printed_beside_an_unused_loss_is_no_dead_end(tmp_path: Path) -> None:
    (note,) = loaded(tmp_path, WIDE).notes
    assert "examines why" not in note
    assert note.endswith("Nothing tells what `true_map` is: `--objective loss` says what to type")


def test_a_named_loss_with_a_name_that_is_not_there_is_examined(tmp_path: Path) -> None:
    """No filling of a parameter makes a function that is missing."""
    wrong = WIDE.replace("F.mse_loss(", "mse_los(")
    subject = loaded(tmp_path, wrong, objective="loss")
    with pytest.raises(NameError):
        subject.objective.run(subject.model, subject.batch)


STATE = """
def forward(self, x, state):
    mu, logvar = self.encode(x.mean(1))
    prior = self.up(state)[..., :3]
    x_hat = self.down(self.draw(mu, logvar)).unsqueeze(1).expand_as(x)
    return x_hat, mu, logvar, prior

def loss(self, x, state):
    x_hat, mu, logvar, prior = self(x, state)
    mu = (mu.unsqueeze(0) - prior.reshape(1, len(x), 3)).squeeze(0)
    return F.mse_loss(x_hat, x) + KL
"""


@pytest.mark.parametrize("named", [None, "loss"])
def test_data_beside_the_data_has_the_shape_with_which_the_loss_runs(
    named: str | None, tmp_path: Path
) -> None:
    subject = loaded(tmp_path, STATE, objective=named)
    assert subject.objective is not None, subject.notes
    x, state = subject.batch.args
    assert (x.dim(), state.shape) == (3, (8, 12))
    assert "`state` is 8×12 after all, with which the loss runs" in subject.batch.origin
    assert subject.objective.run(subject.model, subject.batch).requires_grad


FUTURE = """
def forward(self, x, future):
    mu, logvar = self.encode(x.mean(1) + future.mean(1))
    return self.down(self.draw(mu, logvar)).unsqueeze(1).expand(-1, 5, -1), mu, logvar

def loss(self, x, future):
    x_hat, mu, logvar = self(x, future)
    return (x_hat - future).square().mean() + KL
"""


def test_a_future_is_as_long_as_what_is_made_of_it(tmp_path: Path) -> None:
    subject = loaded(tmp_path, FUTURE)
    assert subject.objective is not None, subject.notes
    assert subject.batch.args[1].shape == (8, 5, 12)
    assert "`future` is 8×5×12 after all" in subject.batch.origin


SEQUENCE = """
def forward(self, x):
    mu, logvar = self.encode(x)
    return self.down(self.draw(mu, logvar)), mu, logvar

def loss(self, x):
    x_hat, mu, logvar = self(x)
    return F.mse_loss(x_hat, x, reduction="none").sum(AXES).mean() + KL
"""


@pytest.mark.parametrize("named", [None, "loss"])
@pytest.mark.parametrize("steps", [True, False])
def test_rows_are_steps_of_a_sequence_where_the_loss_runs_on_them_alone(
    named: str | None, steps: bool, tmp_path: Path
) -> None:
    text = SEQUENCE.replace("AXES", "(1, 2)" if steps else "(1, 4)")
    subject = loaded(tmp_path, text, objective=named)
    (x,) = subject.batch.args
    assert x.dim() == (3 if steps else 2)
    assert ("is 8×7×12 after all" in subject.batch.origin) is steps


@pytest.mark.parametrize(
    "test",
    ['phase == "training"', '"test" != phase', 'phase.lower() in ("train", "fit")'],
)
def test_an_argument_that_is_compared_with_strings_is_one_of_them(
    test: str, tmp_path: Path
) -> None:
    body = f"""
    def forward(self, x, phase):
        mu, logvar = self.encode(x)
        return self.down(self.choose(mu, logvar, phase)), mu, logvar

    def choose(self, mu, logvar, phase):
        if phase == "test":
            return mu
        if {test}:
            return self.draw(mu, logvar)
        raise ValueError(phase)
    """
    subject = loaded(tmp_path, body)
    assert subject.batch.ran
    words = {'phase == "training"': "training", 'phase.lower() in ("train", "fit")': "train"}
    assert subject.batch.args[1] == words.get(test, "test")


@pytest.mark.parametrize(
    "filled",
    [
        "if latent is None:\n        latent = self.draw(*self.encode(x))",
        "latent = self.draw(*self.encode(x)) if latent is None else latent",
    ],
)
def test_what_forward_makes_itself_where_it_is_none_stays_none(filled: str, tmp_path: Path) -> None:
    body = f"""
def forward(self, x=None, z=None):
    return self.pass_on(x, latent=z)

def pass_on(self, x, latent=None):
    {filled}
    return self.down(latent)
"""
    subject = loaded(tmp_path, body)
    assert not subject.batch.kwargs
    (x,) = subject.batch.args
    assert x.shape == (8, 12)


def test_a_loss_that_goes_through_the_samples_gets_all_of_them(tmp_path: Path) -> None:
    body = """
    def forward(self, x):
        mu, logvar = self.encode(x)
        return [self.down(self.draw(mu, logvar)) for _ in range(3)], mu, logvar

    def loss_function(self, recon_x, x, mu, logvar):
        assert len(recon_x) == 3
        total = 0
        for one in recon_x:
            total += F.mse_loss(one, x, reduction="sum") / len(x)
        return total / len(recon_x) + KL
    """
    subject = loaded(tmp_path, body)
    assert subject.objective is not None, subject.notes
    assert subject.objective.name == "loss_function"


def test_a_plain_dict_is_what_the_loss_calls_by_forwards_own_type(tmp_path: Path) -> None:
    body = """
    def forward(self, x) -> "Made":
        mu, logvar = self.encode(x)
        return {"made": self.down(self.draw(mu, logvar)), "of": x, "heads": {"a": mu, "b": logvar}}

    def loss(self, held: "Made", kld_weight):
        return inner(held, kld_weight)
    """
    beside = """
    class Made(TypedDict):
        made: torch.Tensor

    def inner(held, weight):
        mu, logvar = held["heads"].values()
        return F.mse_loss(held["made"], held["of"]) + weight * KL
    """
    subject = loaded(tmp_path, body, beside)
    assert subject.objective is not None, subject.notes
    assert subject.objective.name == "loss"


def test_a_librarys_loss_beside_its_model_is_its_loss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward = """
    def forward(self, x):
        mu, logvar = self.encode(x)
        return self.down(self.draw(mu, logvar)), mu, logvar
"""
    loss = f"""
def vae_loss(recon_x, x, mu, logvar):
    return F.mse_loss(recon_x, x, reduction="sum") / len(x) + {KL}
"""
    home = tmp_path / "site-packages" / "someones_library"
    home.mkdir(parents=True)
    (home / "__init__.py").touch()
    (home / "models.py").write_text(MODEL + forward + loss)
    monkeypatch.syspath_prepend(str(home.parent))
    subject = load("someones_library.models:VAE")
    assert subject.objective is not None, subject.notes
    assert subject.objective.origin == "found: `vae_loss` in models.py"


def test_what_another_method_sets_is_there_in_the_epoch_of_the_model(tmp_path: Path) -> None:
    body = """
    def forward(self, x):
        mu, logvar = self.encode(x)
        return self.down(self.draw(mu, logvar)), mu, logvar

    def prepare(self, lr):
        self.criterion = nn.MSELoss(reduction="sum")
        self.optimizer = torch.optim.Adam(self.parameters(), lr=lr)

    def train_epoch(self, loader):
        for batch in loader:
            inputs, _ = batch
            x_hat, mu, logvar = self(inputs)
            loss = self.criterion(x_hat, inputs) / len(inputs) + KL
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
    """
    subject = loaded(tmp_path, body)
    assert subject.objective is not None, subject.notes
    assert subject.objective.run(subject.model, subject.batch).requires_grad
    assert not hasattr(subject.model, "criterion")


@pytest.mark.parametrize("reduced", [".sum(-1).mean()", ".sum()", ".mean()"])
@pytest.mark.parametrize("scale", ["(logvar / 2)", "logvar"])
def test_a_kl_that_forward_returns_is_judged_and_no_reconstruction(
    scale: str, reduced: str, tmp_path: Path
) -> None:
    body = f"""
    def forward(self, x):
        mu, logvar = self.encode(x)
        kl_loss = self.kl_loss(mu, logvar)
        return self.down(mu + {scale}.exp() * torch.randn_like(mu)), kl_loss

    def kl_loss(self, mu, logvar):
        return -0.5 * (1 + logvar - mu ** 2 - logvar.exp()){reduced}
    """
    subject = loaded(tmp_path, body)
    assert subject.objective is not None, subject.notes
    assert subject.objective.origin.startswith("found: `kl_loss` in the output; a squared error")
    report = examine_subject(subject)
    errors = {f.code for f in report.findings if f.severity is not Severity.NOTE}
    wrong = set() if scale == "(logvar / 2)" else {"VAE303"}
    assert errors - {"VAE104"} == wrong  # `wide` is not used here
    verified = " ".join(v.text for o in report.outcomes for v in o.verified)
    assert "reduced alike" not in verified


def test_what_the_hub_downloads_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But what is there already is found."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    with unchanged_process(""):
        fresh = Path(torch.hub.get_dir()) / "checkpoints"
        fresh.mkdir(parents=True)
        (fresh / "new.pth").touch()
    assert not (tmp_path / "home").exists()
    assert not fresh.exists()
    known = tmp_path / "home" / "hub" / "checkpoints"
    known.mkdir(parents=True)
    (known / "known.pth").write_text("there")
    with unchanged_process(""):
        held = Path(torch.hub.get_dir()) / "checkpoints"
        assert (held / "known.pth").read_text() == "there"
        (held / "new.pth").touch()
    assert [p.name for p in known.iterdir()] == ["known.pth"]
    assert os.environ["TORCH_HOME"] == str(tmp_path / "home")


TREATED = """
def forward(self, x, t):
    mu, logvar = self.encode(x)
    h = t * F.pad(mu, (0, 5))
    return self.down(self.draw(h[:, :3], logvar)), mu, logvar
"""
MIXED = """
def forward(self, x, mask):
    mu, logvar = self.encode(torch.log(x) * mask.unsqueeze(1))
    return self.down(self.draw(mu, logvar)), mu, logvar

def loss(self, x, mask):
    x_hat, mu, logvar = self(x, mask)
    p = torch.distributions.Normal(x_hat, SCALE, validate_args=True)  # libraries turn it off
    seen = p.log_prob(x[..., :WIDTH])
    return -seen.sum(1).mean() + KL

def validation_step(self, x, mask):
    return self.loss(x, mask)
"""


def test_a_made_up_vector_that_may_be_a_column_proves_no_batch_size(tmp_path: Path) -> None:
    subject = loaded(tmp_path, TREATED)
    (judged,) = examine_subject(subject, select=["VAE505"]).outcomes
    assert (judged.status, judged.findings) == ("skipped", ())
    assert "may be a column" in judged.reason
    given = replace(subject, batch=replace(subject.batch, guessed=False))
    assert len(examine_subject(given, select=["VAE505"]).findings) == 1
    assert subject.batch.args[1].shape == (8,)


@pytest.mark.parametrize(
    ("width", "scale", "used"), [("9", "1.0", False), ("12", "-1.0", True), ("12", "1.0", True)]
)
def test_made_up_values_that_a_distribution_refuses_are_not_the_models(
    width: str, scale: str, used: bool, tmp_path: Path
) -> None:
    text = MIXED.replace("WIDTH", width).replace("SCALE", scale).replace("log(x)", "log1p(x)")
    subject = loaded(tmp_path, text)
    assert (subject.objective is not None) is used
    assert used or "it raised ValueError" in str(subject.notes)
