"""How a model is called: a step composed from its parts, keyword arguments for forward."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Normal

from vaedoctor import check
from vaedoctor.subject.errors import TargetError
from vaedoctor.subject.target import from_instance, load

X = torch.rand(8, 16, generator=torch.Generator().manual_seed(0))


class Parts(nn.Module):
    """An encoder with two heads and a decoder, without any method of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.enc, self.dec = nn.Linear(16, 12), nn.Linear(3, 16)
        self.mu, self.logvar = nn.Linear(12, 3), nn.Linear(12, 3)

    def heads(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = torch.tanh(self.enc(x))
        return self.mu(h), self.logvar(h)


def drawn(mu: Tensor, logvar: Tensor) -> Tensor:
    return mu + torch.exp(0.5 * logvar) * torch.randn_like(mu)


class Methods(Parts):
    """encode, reparameterize and decode, and no forward."""

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.heads(x)

    def reparameterize(self, mu: Tensor, logvar: Tensor) -> Tensor:
        return drawn(mu, logvar)

    def decode(self, z: Tensor) -> Tensor:
        return self.dec(z)


class NoSampler(Parts):
    """The sampling is in the training script."""

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.heads(x)

    def decode(self, z: Tensor) -> Tensor:
        return self.dec(z)


class Posterior(NoSampler):
    """encode returns a distribution."""

    def encode(self, x: Tensor) -> Any:
        mu, logvar = self.heads(x)
        return Normal(mu, torch.exp(0.5 * logvar))


class SamplesInside(NoSampler):
    """encode returns the sample, between the two heads."""

    def encode(self, x: Tensor) -> Any:
        mu, logvar = self.heads(x)
        return mu, drawn(mu, logvar), logvar


class Encoder(Parts):
    """Two heads as a module."""

    def __init__(self) -> None:
        super().__init__()
        del self.dec

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.heads(x)


class Children(nn.Module):
    """Two modules and nothing else."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = Encoder(), nn.Linear(3, 16)


@pytest.mark.parametrize(
    ("kind", "way"),
    [
        (Methods, "x → encode → reparameterize → decode"),
        (NoSampler, "x → encode → mu + exp(logvar / 2) * eps → decode"),
        (Posterior, "x → encode → sample → decode"),
        (Children, "x → encoder → mu + exp(logvar / 2) * eps → decoder"),
    ],
)
def test_a_step_is_composed_and_shown(kind: type[nn.Module], way: str) -> None:
    model = kind()
    before = set(vars(model))
    report = check(model, X)
    assert report.ok, f"\n{report}"
    assert report.picture.family == "gaussian"
    assert f"forward: composed: {way}" in report.notes
    assert report.picture.forward == f"composed: {way}"
    assert set(vars(model)) == before
    with pytest.raises(NotImplementedError):
        model(X)


def test_of_several_results_of_the_encoder_the_one_that_is_decoded_is_tried() -> None:
    report = check(SamplesInside(), X)
    assert report.ran
    assert report.picture.forward == "composed: x → encode → decode"


def test_bugs_of_a_composed_step_are_found() -> None:
    class Cut(Methods):
        def reparameterize(self, mu: Tensor, logvar: Tensor) -> Tensor:
            return torch.normal(mu, torch.exp(0.5 * logvar))

    assert "VAE302" in {f.code for f in check(Cut(), X).findings}


def test_a_class_without_forward_gets_its_batch_made_up(tmp_path: Any) -> None:
    file = tmp_path / "vae.py"
    file.write_text(
        "import torch\nfrom torch import nn\n\n"
        "class VAE(nn.Module):\n"
        "    def __init__(self):\n        super().__init__()\n"
        "        self.e, self.d = nn.Linear(20, 6), nn.Linear(3, 20)\n"
        "    def encode(self, x):\n        return self.e(x).chunk(2, 1)\n"
        "    def decode(self, z):\n        return self.d(z)\n"
    )
    subject = load(f"{file}:VAE")
    assert subject.batch.ran
    assert [tuple(a.shape) for a in subject.batch.args] == [(8, 20)]


class Deterministic(Methods):
    """Samples only when it is told to."""

    def forward(self, x: Tensor, sample_posterior: bool = False) -> Any:
        mu, logvar = self.encode(x)
        z = self.reparameterize(mu, logvar) if sample_posterior else mu
        return self.decode(z), mu, logvar


def test_call_passes_arguments_to_every_forward() -> None:
    assert check(Deterministic(), X).picture.family == "gaussian (never sampled)"
    report = check(Deterministic(), X, call={"sample_posterior": True})
    assert report.picture.family == "gaussian"
    assert "forward: called with `sample_posterior=True`" in report.notes


def test_call_reaches_the_forward_that_the_loss_runs() -> None:
    class Own(Deterministic):
        def loss(self, x: Tensor) -> Tensor:
            x_hat, mu, logvar = self(x)
            kl = -0.5 * (1 + logvar - mu**2 - logvar.exp()).sum()
            return ((x_hat - x) ** 2).sum() + kl

    report = check(Own(), X, call={"sample_posterior": True})
    assert report.ok
    assert "VAE701" in {o.code for o in report.outcomes if o.status == "passed"}


def test_an_argument_that_forward_lacks_is_refused_with_its_neighbour() -> None:
    with pytest.raises(TargetError, match=r"did you mean `sample_posterior`"):
        from_instance(Deterministic(), X, call={"sample_posteriors": True})
