"""Which family a model belongs to, by experiment: one small model each, and how sure that is."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import specimens
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from steps import examined
from test_rules import examine
from torch import Tensor, nn

from vaedoctor import check
from vaedoctor.examine.anatomy.noises import LEVELS, QUANTILES, nearest
from vaedoctor.examine.picture.family import Family

FAMILIES = {
    "seed": ("gaussian", "high"),
    "softplus_variance": ("gaussian", "high"),
    "full_covariance": ("gaussian", "high"),
    "laplace": ("laplace", "high"),
    "logistic": ("logistic", "high"),
    "student_t": ("student-t (scale mixture)", "medium"),
    "dirichlet": ("dirichlet", "high"),
    "von_mises_fisher": ("von Mises–Fisher (hypersphere)", "high"),
    "poincare_ball": ("hyperbolic (ball)", "high"),
    "hyperboloid": ("hyperbolic (hyperboloid)", "high"),
    "gumbel_softmax": ("gumbel-softmax (concrete)", "high"),
    "gumbel_by_hand": ("gumbel-softmax (concrete)", "high"),
    "binary_concrete": ("binary concrete", "high"),
    "bernoulli_latent": ("bernoulli", "high"),
    "one_hot": ("categorical", "high"),
    "vq": ("vq", "high"),
    "vq_ema": ("vq", "high"),
    "residual_vq": ("residual vq", "medium"),
    "finite_scalar": ("fsq", "high"),
    "lookup_free": ("lfq (bits)", "high"),
    "planar_flow": ("gaussian, flow posterior", "high"),
    "flow_with_context": ("gaussian, flow posterior", "high"),
    "flow_prior": ("gaussian, flow prior", "high"),
    "vamp_prior": ("gaussian, vamp prior", "high"),
    "mixture_prior": ("gaussian, mixture prior", "high"),
    "learned_prior": ("gaussian, learned prior", "high"),
    "hierarchical_skips": ("hierarchical gaussian", "high"),
    "ladder": ("hierarchical gaussian", "high"),
    "vrnn": ("sequence gaussian", "high"),
    "iwae": ("gaussian, iwae (5 samples)", "high"),
    "info_mmd": ("gaussian, mmd (wae)", "high"),
    "wae_mmd": ("autoencoder, mmd (wae)", "high"),
    "adversarial": ("autoencoder, adversarial", "high"),
    "plain_autoencoder": ("autoencoder", "high"),
    "denoising_autoencoder": ("denoising autoencoder", "high"),
    "topic_model": ("gaussian", "high"),
    "dropout": ("gaussian", "high"),
    "denoising": ("gaussian", "high"),
    "hidden_teacher": ("gaussian", "high"),
    "product_of_experts": ("gaussian", "high"),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_the_family_is_found_and_said_with_its_evidence(name: str) -> None:
    path = specimens.FIXTURES / "healthy" / f"{name}.py"
    picture = examine(Path(path), "Healthy", own_loss=True).picture
    assert (picture.family, picture.confidence) == FAMILIES[name]
    assert picture.evidence


class ImportanceByHand(nn.Module):
    """The bound of K = 5 draws, in front of the rows, with densities written out."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(18, 8), nn.Linear(4, 18)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        mu, logvar = (h.expand(5, -1, -1) for h in self.up(x).chunk(2, 1))
        z = mu + (logvar / 2).exp() * torch.randn_like(mu)
        return torch.sigmoid(self.down(z)), mu, logvar, z

    def loss(self, x: Tensor) -> Tensor:
        x_hat, mu, logvar, z = self(x)
        log_p = -(z**2).sum(-1) / 2
        log_q = -((z - mu) ** 2 / logvar.exp() + logvar).sum(-1) / 2
        log_lik = (x * x_hat.log() + (1 - x) * (1 - x_hat).log()).sum(-1)
        return -(torch.logsumexp(log_lik + log_p - log_q, 0) - math.log(5)).mean()


def test_draws_in_front_of_the_rows_are_no_rows() -> None:
    report = check(ImportanceByHand(), torch.rand(8, 18), objective="loss")
    assert report.picture.family == "gaussian, iwae (5 samples)"


class Codes(nn.Module):
    """Encoder, heads and decoder of a vector; what the loss makes of them is in the subclass."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(12, 6), nn.Linear(3, 12)

    def forward(self, x: Tensor, context: Any = None) -> tuple[Tensor, ...]:
        mu, logvar = self.up(x).chunk(2, -1)
        z = mu + (logvar / 2).exp() * torch.randn_like(mu)
        return self.down(z), mu, logvar, z

    def standard(self, x: Tensor) -> tuple[Tensor, Tensor]:
        r, mu, logvar, _ = self(x)
        kl = 0.5 * (mu**2 + logvar.exp() - 1 - logvar).sum(-1)
        return (0.5 * (r - x).pow(2).sum(-1) + kl).mean(), mu


class Dynamics(Codes):
    """The prior of each step is a linear map of the sample of the step before."""

    def __init__(self) -> None:
        super().__init__()
        self.step = nn.Parameter(0.9 * torch.eye(3))

    def loss(self, x: Tensor) -> Tensor:
        r, mu, logvar, z = self(x)
        log_q = -((z - mu) ** 2 / logvar.exp() + logvar).sum((1, 2)) / 2
        moved = z[:, 1:] - z[:, :-1] @ self.step.t()
        log_p = -(z[:, 0] ** 2).sum(1) / 2 - (moved**2).sum((1, 2)) / 2
        return (0.5 * (r - x).pow(2).sum((1, 2)) + log_q - log_p).mean()


class Amortised(Codes):
    """The encoder reads a context too, which gives the prior."""

    def loss(self, x: Tensor, context: Tensor) -> Tensor:
        r, mu, logvar, _ = self(x)
        prior, spread = self.up(context).chunk(2, -1)
        off = (mu - prior) ** 2 / spread.exp()
        kl = 0.5 * (off + (logvar - spread).exp() - 1 - logvar + spread).sum(-1)
        return (0.5 * (r - x).pow(2).sum(-1) + kl).mean()


class Consistent(Codes):
    """A frozen copy of the encoder says where the location should lie, beside the KL."""

    def __init__(self) -> None:
        super().__init__()
        self.teacher = nn.Linear(12, 6).requires_grad_(False)

    def loss(self, x: Tensor) -> Tensor:
        elbo, mu = self.standard(x)
        return elbo + (mu - self.teacher(x + 0.1 * torch.rand_like(x))[:, :3]).square().mean()


class Shares(Codes):
    """Beta posteriors, which torch draws as Dirichlets of two."""

    def forward(self, x: Tensor, context: Any = None) -> tuple[Tensor, ...]:
        a, b = (nn.functional.softplus(h) + 0.5 for h in self.up(x).chunk(2, -1))
        q, even = (torch.distributions.Beta(*of) for of in ((a, b), (a * 0 + 1, b * 0 + 1)))
        return self.down(q.rsample()), torch.distributions.kl_divergence(q, even).sum(-1)

    def loss(self, x: Tensor) -> Tensor:
        r, kl = self(x)
        return (0.5 * (r - x).pow(2).sum(-1) + kl).mean()


class Levels(Codes):
    """Five levels, of which the first codes use two."""

    def forward(self, x: Tensor, context: Any = None) -> tuple[Tensor, ...]:
        h = 0.9 * torch.tanh(self.up(x)[:, :3]) - 0.5
        z = h + (h.round() - h).detach()
        return self.down(z), z

    def loss(self, x: Tensor) -> Tensor:
        return (self(x)[0] - x).square().mean()


def test_a_part_of_a_draw_and_a_few_levels_are_called_what_they_are() -> None:
    torch.manual_seed(0)
    x = torch.rand(8, 12)
    assert len(Levels()(x)[1].unique()) == 2
    found = [check(m, x, objective="loss").picture.family for m in (Shares(), Levels())]
    assert found == ["beta", "fsq"]


def test_no_prior_is_named_that_is_not_there() -> None:
    torch.manual_seed(0)
    x, context = torch.rand(2, 8, 12)
    reports = {
        "sequence gaussian, autoregressive prior": check(
            Dynamics(), torch.rand(8, 5, 12), objective="loss"
        ),
        "gaussian": check(Consistent(), x, objective="loss"),
    }
    amortised = check(Amortised(), (x, context), objective="loss", conditions=[1])
    assert {n: r.picture.family for n, r in reports.items()} == {n: n for n in reports}
    assert "vamp" not in amortised.picture.family


class Normalised(nn.Module):
    """An autoencoder whose decoder compares rows, as batch norm does in training."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(12, 3)
        self.decoder = nn.Sequential(
            nn.Linear(3, 9), nn.BatchNorm1d(9), nn.Tanh(), nn.Linear(9, 12)
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        z = self.encoder(x)
        return self.decoder(z), z


def by_row(out: tuple[Tensor, Tensor], x: Tensor) -> Tensor:
    return (out[0] - x).square().sum() + 0.1 * out[1].square().sum()


def by_kernel(out: tuple[Tensor, Tensor], x: Tensor) -> Tensor:
    z = out[1]
    return (out[0] - x).square().sum() + (-(z[:, None] - z).square().sum(-1)).exp().mean()


@pytest.mark.parametrize(("loss", "name"), [(by_row, "regularised"), (by_kernel, "mmd (wae)")])
def test_a_decoder_that_compares_rows_is_no_kernel(loss: Any, name: str) -> None:
    torch.manual_seed(0)
    with examined(Normalised(), torch.rand(8, 12), loss=loss) as examination:
        assert examination.family.name == f"autoencoder, {name}"


@pytest.mark.parametrize("name", ["plain_autoencoder", "vq", "dirichlet"])
def test_rules_that_do_not_apply_name_the_family(name: str) -> None:
    path = specimens.FIXTURES / "healthy" / f"{name}.py"
    report = examine(Path(path), "Healthy", own_loss=True)
    (kl,) = [o for o in report.outcomes if o.code == "VAE701"]
    assert kl.status == "skipped"
    family = FAMILIES[name][0]
    assert f"({family})" in kl.reason


class Bottleneck(nn.Module):
    """Two parallel heads, or one code."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.up, self.heads, self.down = nn.Linear(9, 6), heads, nn.Linear(3, 9)
        self.a = nn.Linear(6, 3)
        self.b = nn.Linear(6, 3) if heads == 2 else None

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        h = torch.tanh(self.up(x))
        code = self.a(h)
        return (self.down(code), code, self.b(h)) if self.b else (self.down(code), code)


def test_an_autoencoder_is_told_from_a_vae_that_forgot_to_sample() -> None:
    x = torch.rand(8, 9)
    with examined(Bottleneck(1), x) as examination:
        assert examination.family.name == "autoencoder"
        assert examination.family.confidence == "high"
        assert "through `code` alone" in examination.family.evidence[0]
    with examined(Bottleneck(2), x) as examination:
        assert examination.family.name == "gaussian (never sampled)"
        assert "`a` and `b` are parallel heads" in examination.family.evidence[0]


def test_an_autoencoder_that_is_not_narrow_is_less_sure() -> None:
    class Wide(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.down = nn.Linear(9, 20), nn.Linear(20, 9)

        def forward(self, x: Tensor) -> Tensor:
            return self.down(torch.relu(self.up(x)))

    with examined(Wide(), torch.rand(8, 9)) as examination:
        assert str(examination.family) == "autoencoder"
        assert examination.family.confidence == "medium"


class Scaled(nn.Module):
    """Location, scale and noise of a given shape."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.up, self.down, self.kind = nn.Linear(9, 6), nn.Linear(3, 9), kind

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        loc, raw = self.up(x).chunk(2, 1)
        u = torch.rand_like(loc)
        noise = {
            "laplace": -torch.sign(u - 0.5) * torch.log1p(-2 * (u - 0.5).abs()),
            "logistic": torch.logit(u),
            "gumbel": -torch.log(-torch.log(u)),
            "cauchy": torch.tan(math.pi * (u - 0.5)),
            "uniform": 2 * u - 1,
            "gaussian": math.sqrt(2) * torch.erfinv(2 * u - 1),
        }[self.kind]
        return self.down(loc + raw.exp() * noise), loc, raw


@pytest.mark.parametrize("kind", ["laplace", "logistic", "gumbel", "cauchy", "uniform", "gaussian"])
def test_the_noise_is_told_by_its_quantiles_whatever_its_code(kind: str) -> None:
    with examined(Scaled(kind), torch.rand(8, 9)) as examination:
        assert examination.family.name == kind
        assert examination.family.confidence == "high"


@given(st.sampled_from(sorted(QUANTILES)), st.floats(-5, 5), st.floats(0.01, 50), st.booleans())
def test_location_scale_and_sign_do_not_hide_a_distribution(
    name: str, loc: float, scale: float, mirrored: bool
) -> None:
    values = [loc + scale * QUANTILES[name](p) for p in LEVELS]
    assert nearest([-v for v in reversed(values)] if mirrored else values) == name


def test_a_model_without_a_reconstruction_belongs_to_no_family() -> None:
    report = check(nn.Linear(9, 4), torch.rand(8, 9))
    assert report.picture.family == "none"
    assert report.picture.confidence == "low"
    assert report.picture.evidence == ("no output stands for the input",)


def test_a_family_reads_as_its_name() -> None:
    assert f"{Family('vq', 'high', ('because',))}" == "vq"


class Mode(nn.Module):
    """One layer makes mean and log-variance; only the mean is decoded, the rest is kept."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(9, 6), nn.Linear(3, 9)

    def forward(self, x: Tensor) -> Tensor:
        mean, logvar = self.up(x).chunk(2, 1)
        self.std = torch.exp(0.5 * logvar)
        return self.down(mean)


def test_a_mode_that_is_decoded_is_no_autoencoder() -> None:
    with examined(Mode(), torch.rand(8, 9)) as examination:
        assert examination.family.name == "gaussian (never sampled)"
        assert "`up` also makes a scale" in examination.family.evidence[0]


class Judged(Scaled):
    """A discriminator beside the KL."""

    def __init__(self) -> None:
        super().__init__("gaussian")
        self.judge = nn.Sequential(nn.Linear(3, 7), nn.ReLU(), nn.Linear(7, 2))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        mu, logvar = self.up(x).chunk(2, 1)
        z = mu + torch.exp(0.5 * logvar) * torch.randn_like(mu)
        return self.down(z), mu, logvar, self.judge(z)


def test_a_discriminator_is_no_flow_prior() -> None:
    def loss(output: tuple[Tensor, ...], x: Tensor) -> Tensor:
        x_hat, mu, logvar, judged = output
        kl = 0.5 * (mu**2 + logvar.exp() - 1 - logvar).sum()
        return ((x_hat - x) ** 2).sum() + kl + (judged[:, 0] - judged[:, 1]).mean()

    with examined(Judged(), torch.rand(8, 9), loss=loss) as examination:
        assert examination.family.name == "gaussian, adversarial"


@pytest.mark.parametrize("told", [True, False], ids=["labels", "verdicts"])
def test_what_labels_the_objective_holds_are_learned_by_is_no_judge(told: bool) -> None:
    """A classifier on the sample beside a judge, which has one verdict for all rows."""
    label = torch.arange(8) % 2 if told else torch.ones(8, dtype=torch.long)

    def loss(output: tuple[Tensor, ...], x: Tensor) -> Tensor:
        x_hat, mu, logvar, judged = output
        kl = 0.5 * (mu**2 + logvar.exp() - 1 - logvar).sum()
        return ((x_hat - x) ** 2).sum() + kl + F.cross_entropy(judged, label)

    with examined(Judged(), torch.rand(8, 9), loss=loss) as examination:
        assert examination.family.name == ("gaussian" if told else "gaussian, adversarial")


class Smooth(nn.Module):
    """The codes are held near 0, and the decoder's gradient at them is penalized."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(9, 3), nn.Sequential(nn.Linear(3, 7), nn.Tanh())
        self.out = nn.Linear(7, 9)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        z = self.up(x)
        return self.out(self.down(z)), z


def test_a_decoder_whose_gradient_is_penalized_is_no_judge() -> None:
    model = Smooth()

    def loss(output: tuple[Tensor, Tensor], x: Tensor) -> Tensor:
        x_hat, z = output
        at = z.detach().requires_grad_()
        made = model.out(model.down(at)).square().sum()
        slope = torch.autograd.grad(made, at, create_graph=True)[0]
        return ((x_hat - x) ** 2).sum() + z.square().sum() + slope.square().sum()

    with examined(model, torch.rand(8, 9), loss=loss) as examination:
        assert examination.family.name == "autoencoder, regularised"


def test_a_rounded_code_beside_a_gaussian_latent_has_a_family() -> None:
    """The reason why a KL was not measured asks for the family, which asks for the KL."""

    class Rounds(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.heads, self.down = nn.Linear(9, 8), nn.Linear(8, 6), nn.Linear(3, 9)

        def forward(self, x: Tensor) -> Tensor:
            mu, logvar = self.heads(torch.round(4 * self.up(x))).chunk(2, -1)
            z = mu + torch.randn_like(mu) * torch.exp(logvar / 2)
            kl = 0.5 * (mu**2 + logvar.exp() - 1 - logvar).sum()
            return (self.down(z) - x).square().sum() / 2 + kl

    report = check(Rounds(), torch.randn(8, 9))
    assert "VAE602" in {f.code for f in report.findings}
