"""A model that nobody can call: what is said, and what is put together from its parts."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from vaedoctor import check
from vaedoctor.checkup import examine_subject
from vaedoctor.finding import Severity
from vaedoctor.subject.target import TargetError, load

MODEL = """
import torch
from torch import nn

class VAE(nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(12, 6), nn.Linear(3, 12)
{inside}
    def {encode}(self, x):
        return self.up(x).chunk(2, -1)

    def {decode}(self, z):
        return self.down(z)

    {called}
"""
USUAL = {"inside": "", "encode": "encode", "decode": "decode", "called": "pass"}
FORWARD = "def {}(self, x):\n        mu, logvar = self.encode(x)\n        return self.decode(mu)"
NESTED = "        def forward(self, x):\n            return self.down(self.up(x)[:, :3])\n"


@pytest.mark.parametrize(
    ("parts", "said", "step"),
    [
        ({"called": FORWARD.format("foward")}, "its method `foward` may be meant", "rename"),
        ({"called": FORWARD.format("Forward")}, "its method `Forward` may be meant", "rename"),
        ({"inside": NESTED}, "line 9 is written inside `__init__`", "indent"),
        ({"encode": "first", "decode": "second"}, "(`first` and `second`)", "a `forward"),
    ],
)
def test_why_there_is_no_forward(
    tmp_path: Path, parts: dict[str, str], said: str, step: str
) -> None:
    (tmp_path / "own.py").write_text(MODEL.format(**{**USUAL, **parts}))
    with pytest.raises(TargetError, match="`VAE` has no `forward`") as raised:
        load(f"{tmp_path / 'own.py'}:VAE")
    assert said in str(raised.value)
    assert step in raised.value.next_step


@pytest.mark.parametrize("method", ["pass", FORWARD.format("reconstruct"), "forwards = 3"])
def test_parts_are_put_together_where_forward_was_never_meant(tmp_path: Path, method: str) -> None:
    (tmp_path / "own.py").write_text(MODEL.format(**{**USUAL, "called": method}))
    subject = load(f"{tmp_path / 'own.py'}:VAE")
    assert subject.calling.parts is not None
    assert subject.batch.ran


WHOLE = """
import torch
from torch import nn

class VAE(nn.Module):
    def __init__(self, width: int, mixing: float):
        super().__init__()
        self.cell_encoder, self.decoder = nn.Linear(width, 6), nn.Linear(3, width)
        self.mixing = mixing

    def drawn(self, h):
        mu, logvar = h.chunk(2, -1)
        return mu + torch.randn_like(mu) * (logvar / 2).exp(), mu, logvar

    def reconstruct(self, x, scale=1.0):
        z, mu, logvar = self.drawn(self.cell_encoder(x))
        return self.decoder(z) * scale, mu, logvar
{more}
"""
ENCODES = """
    def forward(self, x):
        return self.cell_encoder(x)[:, :3]
"""
KEYED = """
    def training_step(self, train_batch, batch_idx):
        x = train_batch["data"]
        weight = train_batch["weight"] if "weight" in train_batch else 1.0
        x_hat, mu, logvar = self.reconstruct(x)
        kl = -0.5 * (1 + logvar - mu**2 - logvar.exp()).sum(1)
        return (weight * (((x_hat - x) ** 2).sum(1) + kl)).mean()
"""
MIXES = """
    def forward(self, x):
        x_hat, mu, logvar = self.reconstruct(x)
        return x_hat - self.mixing * x_hat.mean(0), mu, logvar
"""
TOKENS = """
import torch
from torch import nn

class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.words, self.out = nn.Embedding(19, 6), nn.Linear(6, 6)

    def forward(self, words):
        return self.out(self.words(words).mean(1)).chunk(2, -1)

class Decoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.words, self.out = nn.Embedding(19, 3), nn.Linear(3, 19)

    def forward(self, words, z, hidden=None):
        return self.out(self.words(words) + z[:, None])

class VAE(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder, self.decoder = Encoder(), Decoder()
"""


def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, text: str) -> str:
    """A class of a package, as its user names it."""
    (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    return f"{name}:VAE"


@pytest.mark.parametrize("more", ["", ENCODES])
def test_a_method_that_is_the_whole_pass_is_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: str
) -> None:
    name = f"whole_pass_{len(more)}"
    subject = load(library(tmp_path, monkeypatch, name, WHOLE.format(more=more)))
    assert subject.batch.ran
    assert "`reconstruct` for `forward`" in subject.calling.text


def test_a_method_that_calls_the_model_is_no_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = WHOLE.format(more=ENCODES).replace("h.chunk(2, -1)", "self(h), h[:, 3:]")
    subject = load(library(tmp_path, monkeypatch, "calls_itself", text))
    assert subject.calling.parts is None


def test_a_decoder_is_given_the_tokens_before_the_sample(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(TOKENS)
    assert load(f"{tmp_path / 'own.py'}:VAE").batch.ran


def test_a_step_of_a_library_is_given_the_keys_that_it_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = WHOLE.format(more=MIXES + KEYED)
    subject = load(library(tmp_path, monkeypatch, "keyed_step", text))
    assert subject.objective is not None
    assert subject.objective.origin == "found: method `training_step`"


def test_rows_that_a_made_up_option_of_a_library_mixes_are_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = WHOLE.format(more=MIXES)
    named = examine_subject(
        load(library(tmp_path, monkeypatch, "mixing_rows", text)), select=["VAE504"]
    )
    (tmp_path / "own.py").write_text(text)
    own = examine_subject(load(f"{tmp_path / 'own.py'}:VAE"), select=["VAE504"])
    (warning,), (error,) = named.findings, own.findings
    assert warning.severity is Severity.WARNING
    assert "made up" in " ".join(warning.notes)
    assert error.severity is Severity.ERROR


def test_rows_that_a_view_mixes_are_an_error_in_a_library_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mixed = "x_hat.T.reshape(len(x), -1), mu, logvar"
    text = WHOLE.format(
        more=MIXES.replace("x_hat - self.mixing * x_hat.mean(0), mu, logvar", mixed)
    )
    named = load(library(tmp_path, monkeypatch, "viewed_rows", text))
    (error,) = examine_subject(named, select=["VAE504"]).findings
    assert error.severity is Severity.ERROR


class Halves(nn.Module):
    """Two methods that nothing says how to put together."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(4, 4), nn.Linear(2, 4)

    def inference(self, x: Tensor) -> dict[str, Tensor]:
        mu, logvar = self.up(x).chunk(2, -1)
        q = mu + torch.randn_like(mu) * (logvar / 2).exp()
        return {"mu": mu, "logvar": logvar, "q": q}

    def generative(self, inferred: dict[str, Tensor], x: Tensor) -> Tensor:
        out: Tensor = self.down(inferred["q"])
        return out


class Misspelt(Halves):
    def foward(self, x: Tensor) -> Tensor:
        return self.generative(self.inference(x), x)


def halves(m: Halves, x: Tensor) -> Tensor:
    inferred = m.inference(x)
    mu, logvar = inferred["mu"], inferred["logvar"]
    kl = 0.5 * (mu**2 + logvar.exp() - 1 - logvar).sum(1)
    return (0.5 * (m.generative(inferred, x) - x).square().sum(1) + kl).mean()


def test_an_instance_that_nobody_can_call_is_refused_and_not_found_ill() -> None:
    for model, said in ((Halves(), "none could be put together"), (Misspelt(), "`foward` may be")):
        with pytest.raises(TargetError, match=said):
            check(model, torch.rand(8, 4))


def test_a_loss_that_runs_the_parts_itself_is_enough() -> None:
    report = check(Halves(), torch.rand(8, 4), objective=halves)
    assert [f for f in report.findings if f.severity is not Severity.NOTE] == []
    assert {"VAE302", "VAE701"} <= {o.code for o in report.outcomes if o.status == "passed"}


class Misfits(Halves):
    """A recogniser and a part named as a decoder that nobody calls."""

    def __init__(self) -> None:
        super().__init__()
        self.dec = nn.Module()

    def generative(self, inferred: dict[str, Tensor], x: Tensor) -> Tensor:
        return super().generative(inferred, x) * x.shape[1] / 4


def test_a_loss_that_runs_the_parts_itself_comes_before_parts_that_do_not_fit() -> None:
    with pytest.raises(TargetError, match="do not run as they were put together"):
        check(Misfits(), torch.rand(8, 4))
    with pytest.raises(TargetError, match="do not run as they were put together"):
        check(Misfits(), torch.rand(8, 4), objective=lambda m, x: m.nothing(x))
    report = check(Misfits(), torch.rand(8, 4), objective=halves)
    assert [f for f in report.findings if f.severity is not Severity.NOTE] == []
    assert {"VAE302", "VAE701"} <= {o.code for o in report.outcomes if o.status == "passed"}


class Rooted(Misfits):
    """The root of a head that may be negative."""

    def inference(self, x: Tensor) -> dict[str, Tensor]:
        mu, var = self.up(x).chunk(2, -1)
        q = mu + torch.randn_like(mu) * torch.linalg.cholesky(torch.diag_embed(var)).sum(-1)
        return {"mu": mu, "logvar": var.log(), "q": q}


def test_what_a_part_of_the_model_raises_in_the_loss_is_examined() -> None:
    report = check(Rooted(), torch.rand(8, 4) + 1, objective=halves)
    assert [f.code for f in report.findings if f.severity is Severity.ERROR] == ["VAE002"]
