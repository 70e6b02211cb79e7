"""Bugs of merged experts, of steps and of scales in models unlike the fixtures."""

from __future__ import annotations

from typing import Any

import pytest
import specimens
import torch
import torch.nn.functional as F
from test_unlike_styles import line_of, worst
from torch import Tensor, nn
from torch.distributions import Normal

import vaedoctor
from vaedoctor import Report
from vaedoctor.subject.trials.trial import home


def uniform(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


def divergence(mu: Tensor, logvar: Tensor) -> Tensor:
    return 0.5 * (mu**2 + logvar.exp() - 1 - logvar).flatten(1).sum(1)


def checked(model: nn.Module, *batch: Tensor, **options: Any) -> Report:
    torch.manual_seed(0)
    given = batch if len(batch) > 1 else batch[0]
    return vaedoctor.check(model, given, objective="loss", **options)


class Expert(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(10, 12)
        self.mu, self.precision = nn.Linear(12, 4), nn.Linear(12, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = torch.tanh(self.body(x))
        return self.mu(h), self.precision(h)


class OneHead(Expert):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = torch.tanh(self.body(x))
        return self.precision(h), self.precision(h)


class Product(nn.Module):
    """A product of two experts and the prior; each expert gives its natural parameters."""

    def __init__(self, first: nn.Module, second: nn.Module) -> None:
        super().__init__()
        self.first, self.second = first, second
        self.dec = nn.Sequential(nn.Linear(4, 12), nn.Tanh(), nn.Linear(12, 20))

    def merged(self, x: Tensor) -> tuple[Tensor, Tensor]:
        parts = [self.first(x[:, :10]), self.second(x[:, 10:])]
        precision = 1 + torch.stack([p.exp() for _, p in parts]).sum(0)
        return torch.stack([m * p.exp() for m, p in parts]).sum(0) / precision, -precision.log()

    def forward(self, x: Tensor) -> Any:
        mu, logvar = self.merged(x)
        return self.dec(mu + (logvar / 2).exp() * torch.randn_like(mu)), mu, logvar

    def loss(self, x: Tensor) -> Tensor:
        y, mu, logvar = self(x)
        return (0.5 * (y - x).pow(2).sum(1) + divergence(mu, logvar)).mean()


class MergedTwice(Product):
    """Every expert runs once for the location and once for the scale."""

    def forward(self, x: Tensor) -> Any:
        mu, logvar = self.merged(x)[0], self.merged(x)[1]
        return self.dec(mu + (logvar / 2).exp() * torch.randn_like(mu)), mu, logvar


def test_an_expert_that_gives_one_head_twice_is_told_in_a_product() -> None:
    line = line_of("return self.precision(h), self", OneHead)
    for experts in ((OneHead(), OneHead()), (Expert(), OneHead())):
        assert worst(checked(Product(*experts), uniform(8, 20))) == [("VAE106", line)]
    assert not worst(checked(Product(Expert(), Expert()), uniform(8, 20)))
    assert not worst(checked(MergedTwice(Expert(), Expert()), uniform(8, 20)))


class Series(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.enc = nn.GRU(5, 12, batch_first=True)
        self.mu, self.lv = nn.Linear(12, 3), nn.Linear(12, 3)
        self.dec, self.out = nn.GRU(3, 12, batch_first=True), nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Any:
        h = self.enc(x)[1][0]
        mu, lv = self.mu(h), self.lv(h)
        z = mu + torch.randn_like(mu) * (0.5 * lv).exp()
        return self.out(self.dec(z[:, None].expand(-1, x.shape[1], -1))[0]), mu, lv

    def pairs(self, y: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        return y[:, :-1], x[:, 1:]

    def loss(self, x: Tensor) -> Tensor:
        y, mu, lv = self(x)
        made, given = self.pairs(y, x)
        return ((made - given).pow(2).sum((1, 2)) + divergence(mu, lv)).mean()


class LastLeftOut(Series):
    def pairs(self, y: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        return y[:, :-2], x[:, :-2]


class CutLater(Series):
    kept = slice(None, -2)

    def loss(self, x: Tensor) -> Tensor:
        y, mu, lv = self(x)
        return (((y - x) ** 2)[:, self.kept].sum((1, 2)) + divergence(mu, lv)).mean()


class Whole(CutLater):
    kept = slice(None)


class BurnIn(CutLater):
    kept = slice(2, None)


class Padded(CutLater):
    def forward(self, x: Tensor) -> Any:
        x[:, -2:] = 0
        return super().forward(x)


@pytest.mark.parametrize(
    ("model", "left"),
    [
        (Series, None),
        (LastLeftOut, [7, 8]),
        (CutLater, [7, 8]),
        (BurnIn, None),
        (Padded, None),
    ],
)
def test_steps_cut_off_from_both_sides_are_told_and_a_shift_is_not(model: Any, left: Any) -> None:
    found = checked(model(), uniform(8, 9, 5), select=["VAE608"]).findings
    assert [f.measured["without gradient"] for f in found] == ([left] if left else [])


@pytest.mark.parametrize(("model", "whole"), [(Whole, True), (BurnIn, False)])
def test_not_every_part_is_said_to_count_where_first_steps_are_left_out(
    model: Any, whole: bool
) -> None:
    report = checked(model(), uniform(8, 9, 5), select=["VAE608"])
    assert not report.findings
    assert (
        any("every part of x_hat" in v.text for o in report.outcomes for v in o.verified) == whole
    )


class Recurrent(nn.Module):
    """A latent a step, with a learned prior."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = nn.Sequential(nn.Linear(5, 8), nn.Tanh())
        self.post, self.prior = nn.Linear(16, 6), nn.Linear(8, 6)
        self.made = nn.Sequential(nn.Linear(3, 8), nn.Tanh())
        self.out, self.cell = nn.Linear(16, 5), nn.GRUCell(16, 8)

    def picked(self, mu: Tensor, lv: Tensor) -> Tensor:
        return mu + torch.randn_like(mu) * (lv / 2).exp()

    def loss(self, x: Tensor) -> Tensor:
        h, total = x.new_zeros(len(x), 8), x.new_zeros(len(x))
        for step in x.unbind(1):
            seen = self.seen(step)
            (mu, lv), (m, v) = (
                f.chunk(2, 1) for f in (self.post(torch.cat([seen, h], 1)), self.prior(h))
            )
            z = self.picked(mu, lv)
            made = self.made(z)
            total = total + (self.out(torch.cat([made, h], 1)) - step).pow(2).sum(1)
            total = total + 0.5 * (v - lv + (lv.exp() + (mu - m) ** 2) / v.exp() - 1).sum(1)
            h = self.cell(torch.cat([seen, made], 1), h)
        return total.mean()

    def forward(self, x: Tensor) -> Tensor:
        return self.loss(x)


class MeanOfSteps(Recurrent):
    def picked(self, mu: Tensor, lv: Tensor) -> Tensor:
        return mu  # as it is


def test_the_mean_is_told_where_the_code_takes_it_for_the_sample() -> None:
    line = line_of("return mu  # as", MeanOfSteps)
    assert ("VAE301", line) in worst(checked(MeanOfSteps(), uniform(8, 4, 5)))
    assert not worst(checked(Recurrent(), uniform(8, 4, 5)))


class Atoms(nn.Module):
    """A graph is decoded to its edges and, class by class, its nodes."""

    def __init__(self) -> None:
        super().__init__()
        self.enc = nn.Linear(30, 16)
        self.mu, self.lv = nn.Linear(16, 4), nn.Linear(16, 4)
        self.dec = nn.Sequential(nn.Linear(4, 16), nn.Tanh())
        self.edges, self.nodes = nn.Linear(16, 36), nn.Linear(16, 30)

    def forward(self, nodes: Tensor, edges: Tensor) -> Any:
        h = torch.tanh(self.enc((edges @ nodes).flatten(1)))
        mu, lv = self.mu(h), self.lv(h)
        return *self.decoded(mu + torch.randn_like(mu) * (lv / 2).exp(), mu), mu, lv

    def decoded(self, z: Tensor, mu: Tensor) -> tuple[Tensor, Tensor]:
        h = self.dec(z)
        return self.edges(h).view(-1, 6, 6), self.nodes(h).view(-1, 6, 5)

    def loss(self, nodes: Tensor, edges: Tensor) -> Tensor:
        made, kinds, mu, lv = self(nodes, edges)
        rec = nn.functional.binary_cross_entropy_with_logits(made, edges, reduction="sum")
        kind = nn.functional.cross_entropy(kinds.transpose(1, 2), nodes.argmax(2), reduction="sum")
        return (rec + kind + divergence(mu, lv).sum()) / len(edges)


class AtomsOfTheMean(Atoms):
    def decoded(self, z: Tensor, mu: Tensor) -> tuple[Tensor, Tensor]:
        edges = self.edges(self.dec(z)).view(-1, 6, 6)
        return edges, self.nodes(self.dec(mu)).view(-1, 6, 5)


def test_a_second_decoder_of_class_numbers_that_takes_the_mean_is_told() -> None:
    nodes = nn.functional.one_hot(torch.arange(48).view(8, 6) * 7 % 5, 5).float()
    edges = (uniform(8, 6, 6) > 0.5).float()
    line = line_of("self.nodes(self.dec(mu))", AtomsOfTheMean)
    assert worst(checked(AtomsOfTheMean(), nodes, edges)) == [("VAE401", line)]
    assert not worst(checked(Atoms(), nodes, edges))


class Criticised(nn.Module):
    """FactorVAE: a critic of the sample stands in the loss beside the KL."""

    def __init__(self, low: float) -> None:
        super().__init__()
        self.enc, self.low = nn.Linear(14, 8), low
        self.dec = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 14))
        self.critic = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))

    def forward(self, x: Tensor) -> Any:
        mu, lv = self.enc(x).chunk(2, 1)
        noise = torch.empty_like(mu)
        noise = noise.uniform_(self.low, -self.low) if self.low else noise.normal_()
        z = mu + (lv / 2).exp() * noise
        return self.dec(z), mu, lv, self.critic(z)

    def loss(self, x: Tensor) -> Tensor:
        y, mu, lv, scores = self(x)
        critic = (scores[:, 0] - scores[:, 1]).mean()
        return (0.5 * (y - x).pow(2).sum(1) + divergence(mu, lv)).mean() + 6 * critic


@pytest.mark.parametrize(("low", "codes"), [(0.0, []), (-1.0, ["VAE304"])])
def test_noise_is_judged_beside_a_critic_of_the_sample(low: float, codes: list[str]) -> None:
    assert [code for code, _ in worst(checked(Criticised(low), uniform(8, 14)))] == codes


class Layered(nn.Module):
    """Encoder and decoder of many layers, as they are initialised by default."""

    def __init__(self) -> None:
        super().__init__()
        deep, wide = self.layers(12, nn.ELU), self.layers(64, nn.ReLU)
        self.enc = nn.Sequential(nn.Linear(14, 12), *deep, nn.Linear(12, 8))
        self.dec = nn.Sequential(nn.Linear(4, 64), *wide, nn.Linear(64, 14))

    def layers(self, width: int, activation: Any) -> list[nn.Module]:
        depth = 9 if width == 12 else 6
        return [m for _ in range(depth) for m in (nn.Linear(width, width), activation())]

    def forward(self, x: Tensor) -> Any:
        mu, lv = self.enc(x).chunk(2, 1)
        return self.dec(mu + (lv / 2).exp() * torch.randn_like(mu)), mu, lv

    def loss(self, x: Tensor) -> Tensor:
        y, mu, lv = self(x)
        return (0.5 * (y - x).pow(2).sum(1) + divergence(mu, lv)).mean()


class Faint(Layered):
    def layers(self, width: int, activation: Any) -> list[nn.Module]:
        found = super().layers(width, activation)
        for linear in found[::2] if width == 12 else []:
            nn.init.normal_(linear.weight, std=0.01)
        return found


class Loud(Layered):
    def layers(self, width: int, activation: Any) -> list[nn.Module]:
        found = super().layers(width, activation)
        for linear in found[::2] if width == 64 else []:
            nn.init.normal_(linear.weight, std=1.0)
        return found


class FaintDecoder(Layered):
    """The KL keeps the encoder's gradient alive."""

    def layers(self, width: int, activation: Any) -> list[nn.Module]:
        found = super().layers(width, activation)
        for linear in found[::2] if width == 64 else []:
            nn.init.normal_(linear.weight, std=0.01)
        return found


class Scaled(Layered):
    factor = 1e-7

    def forward(self, x: Tensor) -> Any:
        mu, lv = self.enc(x).chunk(2, 1)
        z = mu + (lv / 2).exp() * torch.randn_like(mu)
        return self.dec(self.factor * z), mu, lv


@pytest.mark.parametrize(
    ("model", "code", "built"),
    [
        (Layered, "", ""),
        (Faint, "VAE603", "self.enc ="),
        (FaintDecoder, "VAE603", "self.dec ="),
        (Loud, "VAE604", "self.dec ="),
    ],
)
def test_a_gradient_that_fades_or_grows_is_told_where_its_layers_are_built(
    model: Any, code: str, built: str
) -> None:
    torch.manual_seed(0)
    found = worst(checked(model(), uniform(8, 14), select=["VAE603", "VAE604"]))
    assert found == ([(code, line_of(built, Layered))] if code else [])


class Storeys(nn.Module):
    """Two latents, the lower one's posterior made of the upper one's sample too."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        layers = [m for _ in range(depth) for m in (nn.Linear(14, 14), nn.Sigmoid())]
        self.enc = nn.Sequential(nn.Linear(14, 14), nn.Sigmoid(), *layers)
        self.upper, self.down = nn.Linear(14, 6), nn.Linear(3, 14)
        self.lower = nn.Sequential(nn.Linear(28, 28), nn.ELU(), nn.Linear(28, 8))
        self.out = nn.Sequential(nn.Linear(4, 14), nn.ELU(), nn.Linear(14, 14))

    def forward(self, x: Tensor) -> Any:
        h = self.enc(x)
        mu2, lv2 = self.upper(h).chunk(2, 1)
        top = self.down(mu2 + (lv2 / 2).exp() * torch.randn_like(mu2)).relu()
        mu, lv = self.lower(torch.cat([h, top], 1)).chunk(2, 1)
        return self.out(mu + (lv / 2).exp() * torch.randn_like(mu)), mu, lv, mu2, lv2

    def loss(self, x: Tensor) -> Tensor:
        y, mu, lv, mu2, lv2 = self(x)
        kl = divergence(mu, lv) + divergence(mu2, lv2)
        return (0.5 * (y - x).pow(2).sum(1) + kl).mean()


@pytest.mark.parametrize("depth", [1, 9])
def test_a_gradient_that_fades_before_the_first_of_two_latents_is_told(depth: int) -> None:
    torch.manual_seed(0)
    found = worst(checked(Storeys(depth), uniform(8, 14), select=["VAE603"]))
    assert [code for code, _ in found] == ([] if depth == 1 else ["VAE603"])


class Ladder(nn.Module):
    """The lower latent's prior is made of the upper one's sample."""

    def __init__(self, reduce: str) -> None:
        super().__init__()
        self.reduce = reduce
        self.enc, self.upper = nn.Linear(14, 10), nn.Linear(10, 6)
        self.prior, self.lower = nn.Linear(3, 8), nn.Linear(13, 8)
        self.out = nn.Sequential(nn.Linear(4, 14), nn.Tanh(), nn.Linear(14, 14))

    def loss(self, x: Tensor) -> Tensor:
        h = self.enc(x).relu()
        q2 = self.normal(self.upper(h))
        top = q2.rsample()
        q1 = self.normal(self.lower(torch.cat([h, top], 1)))
        y = self.out(q1.rsample())
        of_upper = torch.distributions.kl_divergence(q2, torch.distributions.Normal(0.0, 1.0))
        of_lower = torch.distributions.kl_divergence(q1, self.normal(self.prior(top)))
        upper = of_upper.sum() if self.reduce == "sum" else of_upper.sum(1)
        scored = 0.5 * (y - x).pow(2).sum(1)
        return (scored + of_lower.sum(1) + upper).mean()

    def forward(self, x: Tensor) -> Tensor:
        h = self.enc(x).relu()
        top = self.normal(self.upper(h)).rsample()
        y: Tensor = self.out(self.normal(self.lower(torch.cat([h, top], 1))).rsample())
        return y

    def normal(self, h: Tensor) -> torch.distributions.Normal:
        mu, lv = h.chunk(2, 1)
        return torch.distributions.Normal(mu, (lv / 2).exp())


@pytest.mark.parametrize(("reduce", "told"), [("rows", []), ("sum", ["VAE711"])])
def test_a_kl_that_is_summed_beside_one_to_a_learned_prior_is_told(
    reduce: str, told: list[str]
) -> None:
    torch.manual_seed(0)
    found = worst(checked(Ladder(reduce), uniform(8, 14), select=["VAE711"]))
    assert [code for code, _ in found] == told


def test_a_factor_that_takes_the_gradient_away() -> None:
    torch.manual_seed(0)
    (finding,) = checked(Scaled(), uniform(8, 14), select=["VAE603"]).findings
    assert finding.at is not None
    assert finding.at.line == line_of("self.dec(self.factor", Scaled)
    assert "raise the factor" in finding.help


class Embedded(Layered):
    def drawn(self, x: Tensor) -> Tensor:
        mu, lv = self.enc(x).chunk(2, 1)
        return mu + (lv / 2).exp() * torch.randn_like(mu)

    def embed(self, x: Tensor) -> Tensor:
        z = self.drawn(x)
        return z.flatten(1)


def test_a_sampled_embedding_is_told_where_the_method_returns_it() -> None:
    (finding,) = checked(Embedded(), uniform(8, 14), select=["VAE312"]).findings
    assert finding.at is not None
    assert finding.at.line == line_of("return z.flatten", Embedded)


class FixedState(Recurrent):
    def loss(self, x: Tensor) -> Tensor:
        h, total = torch.zeros(8, 8), x.new_zeros(len(x))  # of eight rows
        for step in x.unbind(1):
            seen = self.seen(step)
            mu, lv = self.post(torch.cat([seen, h], 1)).chunk(2, 1)
            made = self.made(self.picked(mu, lv))
            total = total + (self.out(torch.cat([made, h], 1)) - step).pow(2).sum(1)
            total = total + divergence(mu, lv) + self.prior(h).square().sum(1)
            h = self.cell(torch.cat([seen, made], 1), h)
        return total.mean()


def test_a_written_out_number_of_rows_is_told_where_it_stands() -> None:
    found = worst(checked(FixedState(), uniform(8, 4, 5), select=["VAE505"]))
    assert found == [("VAE505", line_of("# of eight rows", FixedState))]


class TimesZero(Layered):
    def forward(self, x: Tensor) -> Any:
        mu, lv = self.enc(x).chunk(2, 1)
        z = mu + (lv / 2).exp() * torch.randn_like(mu)
        return self.dec(z * 0), mu, lv  # to look at the bias


class FadedIn(TimesZero):
    share = 0.0

    def forward(self, x: Tensor) -> Any:
        mu, lv = self.enc(x).chunk(2, 1)
        return self.share * self.dec(mu + (lv / 2).exp() * torch.randn_like(mu)), mu, lv


def test_a_sample_times_a_written_out_zero_is_not_decoded() -> None:
    found = worst(checked(TimesZero(), uniform(8, 14)))
    assert found == [("VAE402", line_of("# to look at the bias", TimesZero))]
    assert "VAE402" not in [code for code, _ in worst(checked(FadedIn(), uniform(8, 14)))]


class UnlikeWidths(Layered):
    def __init__(self) -> None:
        super().__init__()
        self.spread = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Any:
        h = self.enc(x)
        mu, s = h[:, :4], self.spread(h).exp()
        return self.dec(mu + s * torch.randn_like(mu)), mu, s  # four and five


def test_heads_of_unlike_width_are_told_where_the_noise_of_one_meets_the_other() -> None:
    found = worst(checked(UnlikeWidths(), uniform(8, 14)))
    assert found == [("VAE506", line_of("# four and five", UnlikeWidths))]


class TwoLevels(nn.Module):
    """The upper sample makes the prior of the lower one, which alone is decoded."""

    def __init__(self) -> None:
        super().__init__()
        self.low, self.high = nn.Linear(14, 12), nn.Linear(12, 10)
        self.first, self.second = nn.Linear(12, 8), nn.Linear(10, 6)
        self.prior = nn.Sequential(nn.Linear(3, 10), nn.Tanh(), nn.Linear(10, 8))
        self.dec = nn.Sequential(nn.Linear(4, 12), nn.Tanh(), nn.Linear(12, 14))

    def draw(self, mu: Tensor, lv: Tensor) -> Tensor:
        return mu + (lv / 2).exp() * torch.randn_like(mu)

    def lower(self, mu: Tensor, lv: Tensor) -> Tensor:
        return self.draw(mu, lv)

    upper = lower

    def forward(self, x: Tensor) -> Any:
        h = torch.tanh(self.low(x))
        (m1, v1), (m2, v2) = self.first(h).chunk(2, 1), self.second(self.high(h).tanh()).chunk(2, 1)
        m, v = self.prior(self.upper(m2, v2)).chunk(2, 1)  # down
        kl = 0.5 * (v - v1 + (v1.exp() + (m1 - m) ** 2) / v.exp() - 1).sum(1)
        return self.dec(self.lower(m1, v1)), kl + divergence(m2, v2)

    def loss(self, x: Tensor) -> Tensor:
        y, kl = self(x)
        return ((y - x).pow(2).sum(1) + kl).mean()


class LowerMean(TwoLevels):
    def lower(self, mu: Tensor, lv: Tensor) -> Tensor:
        z = mu
        return z * 1.0


class UpperDropped(TwoLevels):
    def upper(self, mu: Tensor, lv: Tensor) -> Tensor:
        self.unread = self.draw(mu, lv)
        return mu


class LowerDropped(TwoLevels):
    def lower(self, mu: Tensor, lv: Tensor) -> Tensor:
        self.draw(mu, lv)  # and away
        return mu


@pytest.mark.parametrize(
    ("model", "code"),
    [
        (TwoLevels, ""),
        (LowerMean, "VAE301"),
        (LowerDropped, "VAE307"),
        (UpperDropped, "VAE307"),
    ],
)
def test_a_level_of_which_the_mean_is_taken_is_told(model: Any, code: str) -> None:
    found = [told for told, _ in worst(checked(model(), uniform(8, 14)))]
    assert found == ([code] if code else [])


class FreeUpper(TwoLevels):
    """Free bits of each level's units; `cut` detaches the upper posterior in its own."""

    cut = True

    def loss(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.low(x))
        (m1, v1), (m2, v2) = self.first(h).chunk(2, 1), self.second(self.high(h).tanh()).chunk(2, 1)
        y = self.dec(torch.cat([self.draw(m1, v1)[:, :1], self.draw(m2, v2)], 1))
        if self.cut:
            m2, v2 = m2.detach(), v2.detach()
        levels = [0.5 * (m**2 + v.exp() - 1 - v) for m, v in ((m1, v1), (m2, v2))]
        return (y - x).pow(2).sum(1).mean() + sum(kl.mean(0).clamp(min=0.01).sum() for kl in levels)


class Free(FreeUpper):
    cut = False


@pytest.mark.parametrize(("model", "told"), [(FreeUpper, ["VAE712"]), (Free, [])])
def test_a_clamp_behind_a_cut_does_not_connect_a_level(model: Any, told: list[str]) -> None:
    codes = [code for code, _ in worst(checked(model(), uniform(8, 14)))]
    assert [code for code in codes if code in ("VAE712", "VAE716")] == told


class UpperSummed(FreeUpper):
    """The KL of one of the levels is summed over the rows before the mean over them."""

    def loss(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.low(x))
        (m1, v1), (m2, v2) = self.first(h).chunk(2, 1), self.second(self.high(h).tanh()).chunk(2, 1)
        y = self.dec(torch.cat([self.draw(m1, v1)[:, :1], self.draw(m2, v2)], 1))
        upper = divergence(m2, v2).sum() if self.cut else divergence(m2, v2)
        return (3 * (y - x).pow(2).sum(1) + divergence(m1, v1) + upper).mean()


class Even(UpperSummed):
    cut = False


@pytest.mark.parametrize(("model", "told"), [(UpperSummed, True), (Even, False)])
def test_one_of_two_divergences_that_is_summed_over_the_rows(model: Any, told: bool) -> None:
    codes = [code for code, _ in worst(checked(model(), uniform(8, 14)))]
    assert ("VAE711" in codes) is told


class Categories(nn.Module):
    """Variables of five categories, a KL by `F.kl_div` and a reconstruction that is `reduced`."""

    def __init__(self, way: str, reduced: str = "sum") -> None:
        super().__init__()
        torch.manual_seed(5)
        self.enc, self.dec = nn.Linear(14, 30), nn.Linear(30, 14)
        self.way, self.reduced = way, reduced

    def divergence(self, logits: Tensor) -> Tensor:
        log_q = F.log_softmax(logits, -1)
        log_p = torch.full_like(log_q, 5.0).log().neg()
        if self.way == "raw":
            log_q = logits
        if self.way == "merged":
            log_p, log_q = log_p.flatten(0, 1), log_q.flatten(0, 1)
        return F.kl_div(log_p, log_q, log_target=True, reduction="batchmean")

    def loss(self, x: Tensor) -> Tensor:
        logits = self.enc(x).view(-1, 6, 5)
        y = self.dec(F.gumbel_softmax(logits, 1.0, dim=-1).flatten(1))
        bce = F.binary_cross_entropy_with_logits(y, x, reduction="none")
        return getattr(bce, self.reduced)(1).mean() + self.divergence(logits)

    forward = loss


@pytest.mark.parametrize(
    ("way", "reduced", "told"),
    [
        ("", "sum", False),
        ("raw", "sum", True),
        ("merged", "sum", True),
        ("merged", "mean", False),
    ],
)
def test_what_the_divergence_of_categories_is_given(way: str, reduced: str, told: bool) -> None:
    """A mean over the variables is none beside a mean over the features."""
    x = (uniform(8, 14) > 0.5).float()
    assert ("VAE719" in [c for c, _ in worst(checked(Categories(way, reduced), x))]) is told


FLOW = specimens.load(specimens.FIXTURES / "objective" / "log_det_mismatch.py")


class WholeNegated(FLOW.Healthy):
    def kl(self, q0: Any, z0: Tensor, z: Tensor, log_det: Tensor) -> Tensor:
        log_p = Normal(0.0, 1.0).log_prob(z).sum(-1)
        return log_p - q0.log_prob(z0).sum(-1) + log_det  # negated


class OtherScale(FLOW.Healthy):
    power = 1.0

    def noise(self, mean: Tensor) -> Tensor:
        return torch.randn_like(mean)

    def forward(self, x: Tensor) -> Any:
        mean, logvar = self.mean(h := self.encoder(x)), self.logvar(h)
        z0 = mean + (eps := self.noise(mean)) * torch.exp(0.5 * logvar)  # sampled
        z, log_det = self.flow(z0)
        x_hat = self.decoder(z)
        recon = F.binary_cross_entropy_with_logits(x_hat, x, reduction="none").sum(-1)
        log_q = (-0.5 * eps.pow(2) - self.power * logvar).sum(-1) - log_det
        loss = recon + log_q - Normal(0.0, 1.0).log_prob(z).sum(-1)
        return {"x_hat": x_hat, "loss": loss.mean()}


class OneSided(OtherScale):
    power = 0.5

    def noise(self, mean: Tensor) -> Tensor:
        return torch.randn_like(mean).abs()  # bent


@pytest.mark.parametrize(
    ("model", "code", "text"),
    [
        (WholeNegated, "VAE703", "# negated"),
        (OtherScale, "VAE303", "# sampled"),
        (OneSided, "VAE304", "# bent"),
    ],
)
def test_a_flow_that_is_right_is_not_blamed(model: Any, code: str, text: str) -> None:
    torch.manual_seed(0)
    report = vaedoctor.check(model(), FLOW.batch())
    assert worst(report) == [(code, line_of(text, model))]


class TwoInputs(nn.Module):
    """The second latent is decoded into the second input alone."""

    def __init__(self) -> None:
        super().__init__()
        self.read = nn.Linear(14, 12)
        self.first, self.second = nn.Linear(12, 6), nn.Linear(12, 4)
        self.shape, self.force = nn.Linear(3, 9), nn.Linear(5, 5)

    def both(self, first: Any, second: Any) -> Tensor:
        return divergence(*first) + 0.3 * divergence(*second)

    def forward(self, x: Tensor, y: Tensor) -> Any:
        h = torch.tanh(self.read(torch.cat([x, y], 1)))
        first, second = self.first(h).chunk(2, 1), self.second(h).chunk(2, 1)
        z, w = (mu + torch.randn_like(mu) * (lv / 2).exp() for mu, lv in (first, second))
        return self.shape(z), torch.sigmoid(self.force(torch.cat([z, w], 1))), first, second

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        shape, force, first, second = self(x, y)
        rec = (shape - x).pow(2).sum(1) + (force - y).pow(2).sum(1)
        return (rec / 2 + self.both(first, second)).mean()


class SecondUncharged(TwoInputs):
    def both(self, first: Any, second: Any) -> Tensor:
        return divergence(*first) + 0.3 * divergence(*first)


class SecondSummed(TwoInputs):
    def both(self, first: Any, second: Any) -> Tensor:
        return divergence(*first) + 0.3 * divergence(*second).sum()


@pytest.mark.parametrize(
    ("model", "code"),
    [(TwoInputs, ""), (SecondUncharged, "VAE712"), (SecondSummed, "VAE711")],
)
def test_the_latent_of_a_second_output_is_judged(model: Any, code: str) -> None:
    found = [told for told, _ in worst(checked(model(), uniform(8, 9), uniform(8, 5)))]
    assert found == ([code] if code else [])


CODES = specimens.load(specimens.FIXTURES / "codebook" / "codebook_without_gradient.py")


class OtherCodes(CODES.Healthy):
    def forward(self, x: Tensor) -> Any:
        z_e = self.encoder(x)
        vq_loss = self.terms(z_e, self.look_up(z_e))
        first = self.codebook.weight[:1].expand(len(x), -1)
        return self.decoder(first), vq_loss  # other codes


def test_a_decoder_that_does_not_read_the_codes_is_told() -> None:
    torch.manual_seed(0)
    report = vaedoctor.check(OtherCodes(), CODES.batch(), objective=CODES.objective)
    found = [f for f in worst(report) if f[0] == "VAE402"]
    assert found == [("VAE402", line_of("# other codes", OtherCodes))]


def test_one_code_for_all_rows_is_no_decoder_that_does_not_read_it() -> None:
    torch.manual_seed(0)
    model = CODES.Healthy()
    with torch.no_grad():
        model.codebook.weight[1:] += 100  # the first is the nearest of every row
    report = vaedoctor.check(model, CODES.batch(), objective=CODES.objective, select=["VAE402"])
    assert not report.findings


class EmptyCodes(Expert):
    """A parameter of the model itself, the first of all, is left without values."""

    def __init__(self) -> None:
        super().__init__()
        self.codes = nn.Parameter(torch.empty(4, 4, device="meta"))
        self.dec = nn.Linear(4, 10)

    def loss(self, x: Tensor) -> Tensor:
        mu, logvar = self(x)
        z = mu + torch.randn_like(mu) * (logvar / 2).exp()
        return (self.dec(torch.einsum("bd,de->be", z, self.codes)) - x).pow(2).sum()


def test_a_weight_without_values_is_all_that_is_told() -> None:
    report = checked(EmptyCodes(), uniform(8, 10))
    assert [f.code for f in report.findings] == ["VAE201"]
    assert not [o for o in report.outcomes if o.status == "crashed"]
    dtype, device = home(EmptyCodes())
    assert (dtype, device) == (torch.float32, torch.device("cpu"))
