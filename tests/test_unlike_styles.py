"""Bugs of wiring, devices, gradients and codebooks in models unlike the fixtures."""

from __future__ import annotations

import inspect
import warnings
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import vaedoctor
from vaedoctor import Report, Severity


def line_of(text: str, cls: type) -> int:
    lines, first = inspect.getsourcelines(cls)
    (found,) = (n for n, line in enumerate(lines, start=first) if text in line)
    return found


def worst(report: Report) -> list[tuple[str, int]]:
    """Code and line of everything but notes."""
    assert not [o for o in report.outcomes if o.status == "crashed"]
    found = [f for f in report.findings if f.severity is not Severity.NOTE]
    return [(f.code, f.at.line if f.at else 0) for f in found]


def table(rows: int, columns: int) -> Tensor:
    return torch.rand(rows, columns, generator=torch.Generator().manual_seed(0))


class Plain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.enc = nn.Sequential(nn.Linear(14, 12), nn.Tanh())
        self.a, self.b = nn.Linear(12, 4), nn.Linear(12, 4)
        self.dec = nn.Sequential(nn.Linear(4, 12), nn.Tanh(), nn.Linear(12, 14))

    def stats(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = self.enc(x)
        return self.a(h), self.b(h)

    def forward(self, x: Tensor) -> Any:
        a, b = self.stats(x)
        return self.dec(a + torch.randn_like(a) * (b / 2).exp()), a, b

    def kl(self, a: Tensor, b: Tensor) -> Tensor:
        return 0.5 * (a**2 + b.exp() - 1 - b).sum(1)

    def loss(self, x: Tensor) -> Tensor:
        r, a, b = self(x)
        return (0.5 * (r - x).pow(2).sum(1) + self.kl(a, b)).mean()


def checked(model: nn.Module, **options: Any) -> list[tuple[str, int]]:
    torch.manual_seed(0)
    return worst(vaedoctor.check(model, table(8, 14), objective="loss", **options))


class WeighedPairs(Plain):
    def loss(self, x: Tensor) -> Tensor:
        r, a, b = self(x)
        weight = x.mean(1).unsqueeze(-1)
        return (weight * (0.5 * (r - x).pow(2).sum(1) + self.kl(a, b))).mean()


class Kernel(Plain):
    def loss(self, x: Tensor) -> Tensor:
        s = x.mean(1)
        similar = (s.unsqueeze(-1) * s).exp().mean()
        return super().loss(x) + similar


def test_a_column_of_weights_times_a_row_of_losses_is_an_outer_product() -> None:
    assert checked(WeighedPairs()) == [("VAE503", line_of("(weight *", WeighedPairs))]
    assert not checked(Kernel())


class StepByStep(Plain):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        r, a, b = super().forward(x)
        steps = r.view(len(x), 7, 2)
        made = [steps[:, t] * 1.5 for t in range(7)]
        self.error = sum(self.off(made[t], x.view(len(x), 7, 2)[:, t]) for t in range(7))
        return torch.stack(made, 1), a, b

    def off(self, y: Tensor, x: Tensor) -> Tensor:
        return (y - x).pow(2).sum(1)

    def loss(self, x: Tensor) -> Tensor:
        _, a, b = self(x)
        return (0.5 * self.error + self.kl(a, b)).mean()


class StepsAgainstRows(StepByStep):
    def off(self, y: Tensor, x: Tensor) -> Tensor:
        return (y.unsqueeze(1) - x).pow(2).sum((1, 2))


def test_each_step_of_a_sequence_may_meet_every_row() -> None:
    assert checked(StepsAgainstRows()) == [("VAE503", line_of("y.unsqueeze(1)", StepsAgainstRows))]
    assert not checked(StepByStep())


class OneColumn(Plain):
    """The decoder's last layer gives one column, which subtraction spreads over all of x."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(14, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        r, a, b = super().forward(x)
        return self.last(r), a, b


class Offset(OneColumn):
    """A column beside a whole reconstruction is an offset of each row."""

    def forward(self, x: Tensor) -> Any:
        r, a, b = Plain.forward(self, x)
        return r, a, b, self.last(r)

    def loss(self, x: Tensor) -> Tensor:
        r, a, b, level = self(x)
        return (0.5 * ((x - level) - r).pow(2).sum(1) + self.kl(a, b)).mean()


def test_one_column_against_many_is_no_reconstruction() -> None:
    assert checked(OneColumn()) == [("VAE502", line_of("(r - x)", Plain))]
    assert not checked(Offset())


class RootOfMasked(Plain):
    def loss(self, x: Tensor) -> Tensor:
        r, a, b = self(x)
        off = (r - x) * (x > 0.5)
        nll = off.view(-1, 14, 1).square().sum(2).sqrt().sum(1)
        return (nll + self.kl(a, b)).mean()


def test_the_operation_that_spoils_the_gradient_is_named_beside_another_of_its_kind() -> None:
    assert checked(RootOfMasked()) == [("VAE605", line_of(".square()", RootOfMasked))]


class SharedDraw(Plain):
    def forward(self, x: Tensor) -> Any:
        a, b = self.stats(x)
        return self.dec(a + torch.randn(a.shape[1]) * (b / 2).exp()), a, b


def test_a_proof_that_a_warning_explains_stays_an_error() -> None:
    torch.manual_seed(0)
    report = vaedoctor.check(SharedDraw(), table(8, 14), objective="loss")
    (found,) = report.findings
    assert (found.code, found.severity) == ("VAE305", Severity.ERROR)
    assert any("VAE202" in note for note in found.notes)


class Labelled(Plain):
    def forward(self, x: Tensor, y: Tensor) -> Any:
        a, b = self.stats(x)
        return self.decode(a + torch.randn_like(a) * (b / 2).exp(), y), a, b

    def decode(self, z: Tensor, y: Tensor) -> Tensor:
        return self.dec(z * (1 + y))

    def sample(self, n: int, y: Tensor) -> Tensor:
        return self.decode(torch.randn(n, 4), y)

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        r, a, b = self(x, y)
        return (0.5 * (r - x).pow(2).sum(1) + self.kl(a, b)).mean()


def test_as_many_are_drawn_as_there_are_conditions() -> None:
    torch.manual_seed(0)
    report = vaedoctor.check(Labelled(), (table(8, 14), table(8, 1)), objective="loss")
    assert worst(report) == [("VAE202", line_of("torch.randn(n, 4)", Labelled))]


class TwoBooks(nn.Module):
    """A product quantiser; the commitment's weight is on the side that `swapped` says."""

    def __init__(self, *, swapped: bool) -> None:
        super().__init__()
        self.enc, self.dec = nn.Linear(14, 8), nn.Linear(8, 14)
        self.books = nn.Parameter(torch.randn(2, 9, 4) / 2)
        self.beta, self.swapped = 0.25, swapped

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        parts = self.enc(x).view(-1, 2, 4).transpose(0, 1)
        index = torch.cdist(parts, self.books).argmin(-1)
        picked = torch.stack([F.embedding(i, w) for i, w in zip(index, self.books, strict=True)])
        aim = (parts.detach() - picked).square().mean()
        stay = (parts - picked.detach()).square().mean()
        out = (parts + (picked - parts).detach()).transpose(0, 1).flatten(1)
        weighed = self.beta * aim + stay if self.swapped else aim + self.beta * stay
        return self.dec(out), weighed

    def loss(self, x: Tensor) -> Tensor:
        r, extra = self(x)
        return F.mse_loss(r, x) + extra


def test_the_terms_of_several_books_are_weighed_together() -> None:
    assert [code for code, _ in checked(TwoBooks(swapped=True))] == ["VQ103"]
    assert not checked(TwoBooks(swapped=False))


class Swapped(Plain):
    """Reads two of its inputs as the loader's dict holds them."""

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        r, a, b = self(batch["x"])
        off = 0.5 * (r - batch["x"]).pow(2).sum(1) + self.kl(a, b)
        return (batch["gain"] * off).mean()


def test_entries_of_a_loaders_dict_that_forward_does_not_take_go_to_the_loss_alone() -> None:
    torch.manual_seed(0)
    batch = {"x": table(8, 14), "gain": table(8, 1).flatten()}
    report = vaedoctor.check(Swapped(), batch, objective="training_step")
    assert not worst(report)
    assert sum(o.status == "passed" for o in report.outcomes) > 50


class Compiled(Plain):
    def __init__(self) -> None:
        super().__init__()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.dec = torch.compile(self.dec, backend="eager")


def test_a_compiled_layer_is_examined_as_it_was_written() -> None:
    torch.manual_seed(0)
    report = vaedoctor.check(Compiled(), table(8, 14), objective="loss")
    assert not worst(report)
    assert "dec" in {p.name.partition(".")[0] for p in report.picture.parts}


class DetachedReconstruction(Plain):
    def loss(self, x: Tensor) -> Tensor:
        r, a, b = self(x)
        off = 0.5 * (r - x).pow(2).sum(1)
        return (off.detach() + self.kl(a, b)).mean()


class Critic(Plain):
    """The loss of a discriminator beside the model: only the discriminator learns from it."""

    def __init__(self) -> None:
        super().__init__()
        self.critic = nn.Linear(14, 1)

    def loss(self, x: Tensor) -> Tensor:
        fake = self(x)[0].detach()
        return (F.softplus(self.critic(fake)) + F.softplus(-self.critic(x))).mean()


def test_a_reconstruction_that_enters_the_loss_without_gradient_is_a_cut() -> None:
    at = line_of(".detach()", DetachedReconstruction)
    assert ("VAE601", at) in checked(DetachedReconstruction())
    assert "VAE601" not in {code for code, _ in checked(Critic())}


class LearnedPrior(Plain):
    def __init__(self, *, detached: bool) -> None:
        super().__init__()
        self.top = nn.Linear(12, 6)
        self.prior, self.detached = nn.Linear(3, 8), detached

    def loss(self, x: Tensor) -> Tensor:
        h = self.enc(x)
        m, s = self.top(h).chunk(2, 1)
        t = m + torch.randn_like(m) * s.exp()
        p = self.prior(t).detach() if self.detached else self.prior(t)
        pa, pb = p.chunk(2, 1)
        a, b = self.a(h), self.b(h)
        r = self.dec(a + torch.randn_like(a) * (b / 2).exp())
        low = 0.5 * (pb - b + (b.exp() + (a - pa) ** 2) / pb.exp() - 1).sum(1)
        top = (0.5 * (m**2 + (2 * s).exp() - 1) - s).sum(1)
        return (0.5 * (r - x).pow(2).sum(1) + low + top).mean()

    def forward(self, x: Tensor) -> Any:
        return self.loss(x)


def test_a_priors_network_without_gradient_is_told() -> None:
    at = line_of(".detach()", LearnedPrior)
    assert ("VAE601", at) in checked(LearnedPrior(detached=True))
    assert "VAE601" not in {code for code, _ in checked(LearnedPrior(detached=False))}


class KeepsState(Plain):
    """Mixes in what the step before has left; `cut` tells whether without its graph."""

    def __init__(self, *, cut: bool) -> None:
        super().__init__()
        self.cut, self.state = cut, None

    def stats(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = self.enc(x)
        if self.state is not None:
            h = h + 0.1 * self.state
        self.state = h.detach() if self.cut else h
        return self.a(h), self.b(h)


def test_a_graph_that_one_step_leaves_to_the_next_is_told() -> None:
    at = line_of("0.1 * self.state", KeepsState)
    assert checked(KeepsState(cut=False)) == [("VAE606", at)]
    assert "VAE606" not in {code for code, _ in checked(KeepsState(cut=True))}


class TwoOutputs(Plain):
    def __init__(self, columns: int) -> None:
        super().__init__()
        self.columns = columns
        self.kind = nn.Linear(4, 14)

    def forward(self, x: Tensor) -> Any:
        a, b = self.stats(x)
        z = a + torch.randn_like(a) * (b / 2).exp()
        return self.kind(z), self.dec(z), a, b

    def loss(self, x: Tensor) -> Tensor:
        kind, r, a, b = self(x)
        off = 0.5 * (r - x)[:, : self.columns].pow(2).sum(1)
        kinds = F.binary_cross_entropy_with_logits(kind, x, reduction="none").sum(1)
        return (kinds + off + self.kl(a, b)).mean()


def test_columns_of_a_second_output_that_the_loss_leaves_out_are_told() -> None:
    assert [code for code, _ in checked(TwoOutputs(9))] == ["VAE608"]
    assert not checked(TwoOutputs(14))


class Lit(Plain):
    """Configures its own optimizer, as Lightning modules do."""

    def __init__(self, *parts: str) -> None:
        super().__init__()
        self.parts = parts

    def configure_optimizers(self) -> dict[str, Any]:
        chosen = [p for part in self.parts for p in getattr(self, part).parameters()]
        return {"optimizer": torch.optim.Adam(chosen)}


def test_the_optimizer_that_lightning_would_ask_for_is_judged() -> None:
    assert [code for code, _ in checked(Lit("enc", "a", "dec"))] == ["VAE107"]
    assert not checked(Lit("enc", "a", "b", "dec"))


class LineOfScale(Plain):
    """The scale is `1.5 + h`: positive at first, and negative for a head far enough down."""

    def forward(self, x: Tensor) -> Any:
        a, h = self.stats(x)
        s = 1.5 + h
        return self.dec(a + torch.randn_like(a) * s), a, s

    def kl(self, a: Tensor, b: Tensor) -> Tensor:
        return (0.5 * (a**2 + b**2 - 1) - b.log()).sum(1)


def test_a_scale_that_is_a_straight_line_of_its_head_is_not_positive() -> None:
    assert [code for code, _ in checked(LineOfScale())] == ["VAE311"]


class FirstCodeIsTheInput(TwoBooks):
    """Overwrites a code with what it sees, also in evaluation mode."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            self.books[:, 0] = self.enc(x)[0].view(2, 4)
        return super().forward(x)


def test_an_edit_that_repeats_itself_on_one_batch_changes_the_codebook_on_another() -> None:
    assert "VQ105" in {code for code, _ in checked(FirstCodeIsTheInput(swapped=False))}


class Dequantised(Plain):
    """The loss hands the model another input than the batch: pixels with uniform noise."""

    def loss(self, x: Tensor) -> Tensor:
        y = (x * 255 + torch.rand_like(x)) / 256
        r, a, b = self(y - 0.5)
        return (50 * (r - y).pow(2).sum(1) + self.kl(a, b)).mean()


def test_an_input_that_the_loss_changes_is_compared_with_itself_at_every_batch_size() -> None:
    assert not checked(Dequantised())
