"""The picture of a model: what feeds what, what each output is, the loss's terms, the gradients."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vaedoctor import check
from vaedoctor.finding import Arrow, Part, Picture, Result, Span, Term

X = torch.rand(8, 16, generator=torch.Generator().manual_seed(0))


class VAE(nn.Module):
    """Returns everything, under names that say nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.enc = nn.Linear(16, 12)
        self.a, self.b = nn.Linear(12, 3), nn.Linear(12, 3)
        self.dec = nn.Linear(3, 16)

    def forward(self, x: Tensor) -> Any:
        h = torch.tanh(self.enc(x))
        one, two = self.a(h), self.b(h)
        three = one + torch.exp(0.5 * two) * torch.randn_like(one)
        return x, two, one, three, self.dec(three), torch.exp(two)


def loss(model: VAE, x: Tensor) -> dict[str, Tensor]:
    _, logvar, mu, _, x_hat, _ = model(x)
    rec = F.mse_loss(x_hat, x, reduction="sum") / len(x)
    kl = -0.5 * (1 + logvar - mu**2 - logvar.exp()).sum() / len(x)
    return {"loss": rec + 0.5 * kl}


@pytest.fixture(scope="module")
def picture() -> Picture:
    return check(VAE(), X, objective=loss).picture


def test_every_output_is_known_by_what_it_is_and_not_by_its_name(picture: Picture) -> None:
    assert [(r.path, r.name, r.role) for r in picture.outputs] == [
        ("[0]", "", "the input itself"),
        ("[1]", "two", "log-variance"),
        ("[2]", "one", "location"),
        ("[3]", "three", "sample"),
        ("[4]", "x_hat", "x_hat"),
        ("[5]", "", "variance"),
    ]


def test_arrows_say_what_feeds_what(picture: Picture) -> None:
    name = {i: p.role if p.role in ("x", "x_hat") else p.name for i, p in enumerate(picture.parts)}
    assert {(name[a.start], name[a.end]) for a in picture.arrows} == {
        ("x", "enc"),
        ("enc", "a"),
        ("enc", "b"),
        ("a", "three"),
        ("b", "three"),
        ("three", "dec"),
        ("dec", "x_hat"),
    }


def test_the_loss_is_taken_apart_into_its_terms(picture: Picture) -> None:
    rec, kl = picture.terms
    assert (rec.role, rec.name) == ("reconstruction", "rec")
    assert kl.role == "kl"
    assert kl.value is not None
    assert kl.value > 0


def test_gradients_of_reconstruction_and_kl_are_told_apart(picture: Picture) -> None:
    by_name = {p.name: p for p in picture.parts}
    mu, sample = by_name["a"], by_name["three"]
    assert mu.recon_gradient is not None
    assert mu.recon_gradient > 0
    assert mu.kl_gradient is not None
    assert mu.kl_gradient > 0
    assert sample.kl_gradient == 0


def test_a_picture_survives_json(picture: Picture) -> None:
    again = Picture.from_dict(json.loads(json.dumps(picture.to_dict())))
    assert again.to_dict() == picture.to_dict()
    at = Span("vae.py", 3, 1, 3, 9)
    whole = Picture(
        "gaussian",
        "high",
        (Part("x", "x", (1, 2), at, "Linear", float("inf"), 0.5),),
        (Arrow(0, 0, "skip"),),
        (Result("[0]", "x", "x_hat", None, at),),
        (Term("kl", "kl", 1.5, None),),
        ("because",),
        "composed: x → encode",
    )
    assert Picture.from_dict(json.loads(json.dumps(whole.to_dict()))) == whole


class Inline(VAE):
    """The same without any variable."""

    def forward(self, x: Tensor) -> Any:
        h = self.enc(x)
        return self.dec(self.sample(self.a(h), self.b(h)))

    def sample(self, mu: Tensor, logvar: Tensor) -> Tensor:
        return mu + logvar.exp() * torch.randn_like(mu)


def test_what_the_user_gave_no_name_is_called_by_its_operation() -> None:
    parts = check(Inline(), X).picture.parts
    assert [(p.role, p.name) for p in parts if p.role in ("sample", "x_hat")] == [
        ("sample", "randn_like"),
        ("x_hat", "output"),
    ]


class Conditional(VAE):
    """A second input that the decoder reads."""

    def __init__(self) -> None:
        super().__init__()
        self.dec = nn.Linear(5, 16)

    def forward(self, image: Tensor, label: Tensor) -> Tensor:
        h = self.enc(image)
        mu, logvar = self.a(h), self.b(h)
        z = mu + logvar.exp() * torch.randn_like(mu)
        recon = self.dec(torch.cat([z, label], -1))
        return recon


def test_inputs_have_the_names_of_forwards_parameters() -> None:
    label = F.one_hot(torch.arange(8) % 2, 2).float()
    picture = check(Conditional(), (X, label)).picture
    parts = picture.parts
    assert [(p.role, p.name) for p in parts[:2]] == [("x", "image"), ("condition", "label")]
    assert parts[-1].name == "recon"
    decoder = next(i for i, p in enumerate(parts) if p.name == "dec")
    feeding = {parts[a.start].role for a in picture.arrows if a.end == decoder}
    assert feeding == {"sample", "condition"}


class Means(VAE):
    """Returns probabilities where its own loss takes the logits."""

    def forward(self, x: Tensor) -> Any:
        _, logvar, mu, _, logits, _ = super().forward(x)
        nll = F.binary_cross_entropy_with_logits(logits, x, reduction="sum")
        kl = -0.5 * (1 + logvar - mu**2 - logvar.exp()).sum()
        return torch.sigmoid(logits), nll + kl


def test_a_term_on_the_logits_is_the_reconstruction_where_forward_returns_probabilities() -> None:
    picture = check(Means(), X, objective=lambda model, x: model(x)[1]).picture
    assert [term.role for term in picture.terms] == ["reconstruction", "kl"]
    encoder = next(p for p in picture.parts if p.role == "encoder")
    assert encoder.recon_gradient
    assert encoder.kl_gradient


def test_without_a_loss_the_gradients_are_those_of_one_that_stands_in() -> None:
    class Cut(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mu, self.h, self.out = nn.Linear(6, 3), nn.Linear(6, 3), nn.Linear(3, 6)

        def forward(self, x: Tensor) -> Any:
            mu, h = self.mu(x), self.h(x)
            z = (mu + torch.exp(0.5 * h) * torch.randn_like(mu)).detach()
            return self.out(z), mu, h

    report = check(Cut(), torch.rand(4, 6))
    assert report.environment["objective"] == "composed"
    parts = {p.role: p for p in report.picture.parts}
    assert parts["location"].recon_gradient == 0
    assert (parts["location"].kl_gradient or 0) > 0
    assert (parts["layer"].recon_gradient or 0) > 0


def test_a_stand_in_that_the_cut_deprives_of_its_kl_tells_no_gradient_of_it() -> None:
    class Drawn(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mu, self.h, self.out = nn.Linear(6, 3), nn.Linear(6, 3), nn.Linear(3, 6)

        def forward(self, x: Tensor) -> Any:
            mu, h = self.mu(x), self.h(x)
            z = torch.distributions.Normal(mu, torch.exp(0.5 * h)).sample()
            return self.out(z), mu, h

    parts = {p.role: p for p in check(Drawn(), torch.rand(4, 6)).picture.parts}
    assert parts["location"].recon_gradient == 0
    assert parts["location"].kl_gradient is None
