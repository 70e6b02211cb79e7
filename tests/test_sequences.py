"""Sequences: padding in the loss, a softmax before its loss, a term of the last step alone."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import pytest
import steps
import torch
import torch.nn.functional as F
from test_unlike_styles import line_of
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence
from traps import around

import vaedoctor
from vaedoctor.examine.anatomy.anatomy import anatomize
from vaedoctor.examine.anatomy.decoders import decoded_otherwise
from vaedoctor.examine.runs.flow import Flow
from vaedoctor.finding import Finding, Severity, fold
from vaedoctor.span import Span


def codes(model: nn.Module, *batch: Tensor | tuple[Tensor, ...]) -> set[str]:
    report = vaedoctor.check(model, batch)
    return {f.code for f in report.findings if f.severity is not Severity.NOTE}


class Words(nn.Module):
    """Predicts each next word; the loss looks at padding unless `masked`."""

    def __init__(self, *, masked: bool, squashed: bool = False) -> None:
        super().__init__()
        torch.manual_seed(4)
        self.embed, self.encode = nn.Embedding(11, 6), nn.GRU(6, 8, batch_first=True)
        self.heads, self.decode = nn.Linear(8, 6), nn.GRU(9, 8, batch_first=True)
        self.out, self.masked, self.squashed = nn.Linear(8, 11), masked, squashed

    def forward(self, tokens: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        e = self.embed(tokens)
        last = self.encode(e)[0][torch.arange(len(tokens)), lengths - 1]
        mu, logvar = self.heads(last).chunk(2, -1)
        z = mu + torch.randn_like(mu) * (logvar / 2).exp()
        z = self.handed(z)
        given = torch.cat([e[:, :-1], z[:, None].expand(-1, tokens.shape[1] - 1, -1)], -1)
        logits = self.out(self.decode(given)[0])
        logits = logits.softmax(-1) if self.squashed else logits
        nll = F.cross_entropy(logits.transpose(1, 2), self.next(tokens), reduction="none")
        inside = torch.arange(1, tokens.shape[1])[None] < lengths[:, None]
        kl = 0.5 * (mu**2 + logvar.exp() - 1 - logvar).sum(1)
        return {"logits": logits, "loss": self.joined(nll, inside, kl)}

    def handed(self, z: Tensor) -> Tensor:
        return z

    def next(self, steps: Tensor) -> Tensor:
        return steps[:, 1:]

    def joined(self, nll: Tensor, inside: Tensor, kl: Tensor) -> Tensor:
        return (((nll * inside) if self.masked else nll).sum(1) + kl).mean()


def sentences() -> tuple[Tensor, Tensor]:
    lengths = torch.tensor([9, 4, 6, 7, 5, 8])
    tokens = torch.randint(1, 11, (6, 9), generator=torch.Generator().manual_seed(1))
    return tokens * (torch.arange(9)[None] < lengths[:, None]), lengths


def test_padding_that_counts_in_a_shifted_prediction() -> None:
    assert "VAE715" in codes(Words(masked=False), *sentences())
    assert "VAE715" not in codes(Words(masked=True), *sentences())


class Woorden(Words):
    """Its lengths have a name in another language, and its mask knows only the longest."""

    def __init__(self, *, masked: bool) -> None:
        super().__init__(masked=masked)
        self.longest = False

    def forward(self, tokens: Tensor, lengtes: Tensor) -> dict[str, Tensor]:
        self.lengths = lengtes
        return super().forward(tokens, lengtes)

    def joined(self, nll: Tensor, inside: Tensor, kl: Tensor) -> Tensor:
        if self.longest:
            steps = torch.arange(1, nll.shape[1] + 1)
            inside = (steps < self.lengths.max() - 1).expand_as(inside)
        return super().joined(nll, inside, kl)


@pytest.mark.parametrize(
    ("masked", "longest", "told"), [(True, False, False), (False, False, True), (True, True, True)]
)
def test_padding_by_lengths_of_any_name(masked: bool, longest: bool, told: bool) -> None:
    model = Woorden(masked=masked)
    model.longest = longest
    assert ("VAE715" in codes(model, *sentences())) is told


class Unshifted(Words):
    """Each word is scored where the decoder has just been given it."""

    def next(self, steps: Tensor) -> Tensor:
        return steps[:, :-1]


class Spoken(nn.Module):
    """Predicts each next frame of numbers; `late` is by how many steps the target is shifted."""

    def __init__(self, late: int) -> None:
        super().__init__()
        torch.manual_seed(4)
        self.encode, self.heads = nn.GRU(5, 8, batch_first=True), nn.Linear(8, 6)
        self.decode, self.out = nn.GRU(8, 8, batch_first=True), nn.Linear(8, 5)
        self.late = late

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        mu, logvar = self.heads(self.encode(x)[0][:, -1]).chunk(2, -1)
        z = mu + torch.randn_like(mu) * (logvar / 2).exp()
        given = torch.cat([x[:, :-1], z[:, None].expand(-1, x.shape[1] - 1, -1)], -1)
        x_hat = self.out(self.decode(given)[0])
        target = x[:, self.late : x.shape[1] - 1 + self.late]
        nll = 0.5 * (x_hat - target).square().sum((1, 2))
        kl = 0.5 * (mu**2 + logvar.exp() - 1 - logvar).sum(1)
        return {"x_hat": x_hat, "loss": (nll + kl).mean()}


def test_a_decoder_that_is_given_the_word_it_is_to_guess() -> None:
    assert "VAE403" in codes(Unshifted(masked=True), *sentences())
    assert "VAE403" not in codes(Words(masked=True), *sentences())


@pytest.mark.parametrize("late", [0, 1])
def test_a_decoder_that_is_given_the_frame_it_is_to_guess(late: int) -> None:
    assert ("VAE403" in codes(Spoken(late), torch.randn(6, 9, 5))) is (late == 0)


class Blind(Words):
    def handed(self, z: Tensor) -> Tensor:
        return torch.zeros_like(z)


class Classified(nn.Module):
    """Its loss picks the likelihood of x by hand; what it compares by name is a label."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.heads, self.decode, self.classes = nn.Linear(12, 6), nn.Linear(3, 9), nn.Linear(9, 3)

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        mu, logvar = self.heads(torch.cat([x, F.one_hot(label, 3)], -1)).chunk(2, -1)
        z = mu + torch.randn_like(mu) * (logvar / 2).exp()
        share = self.decode(z).softmax(-1)
        nll = -(share * x).sum(-1).clamp(min=1e-6).log() + F.cross_entropy(self.classes(x), label)
        return (nll + 0.5 * (mu**2 + logvar.exp() - 1 - logvar).sum(1)).mean()


def test_a_teacher_that_tells_all_beside_a_sample_that_is_not_decoded() -> None:
    assert "VAE402" in codes(Blind(masked=True), *sentences())
    label = torch.randint(3, (8,), generator=torch.Generator().manual_seed(1))
    assert "VAE402" not in codes(Classified(), torch.rand(8, 9), label)


def test_cross_entropy_of_a_softmax() -> None:
    assert "VAE710" in codes(Words(masked=True, squashed=True), *sentences())


class WordsByToken(Words):
    """The cross-entropy is a mean over the words that are no padding; the KL is `reduced`."""

    def __init__(self, reduced: str) -> None:
        super().__init__(masked=True)
        self.reduced = reduced

    def joined(self, nll: Tensor, inside: Tensor, kl: Tensor) -> Tensor:
        divergence: Tensor = getattr(kl, self.reduced)()
        return (nll * inside).sum() / inside.sum() + 0.1 * divergence


@pytest.mark.parametrize("reduced", ["mean", "sum"])
def test_a_mean_over_words_beside_a_kl(reduced: str) -> None:
    assert ("VAE711" in codes(WordsByToken(reduced), *sentences())) is (reduced == "sum")


class Frames(nn.Module):
    """A mask [B, T] of real frames that steers the encoder; `fills` learns what it hides.

    `least` is what an entry of the mask must be more than to count in the loss.
    """

    def __init__(self, *, masked: bool = False, fills: bool = False, least: float = 0.0) -> None:
        super().__init__()
        torch.manual_seed(4)
        self.up, self.heads, self.down = nn.Linear(5, 8), nn.Linear(8, 6), nn.Linear(3, 35)
        self.masked, self.fills, self.least = masked, fills, least

    def forward(self, x: Tensor, mask: Tensor, whole: Tensor | None = None) -> dict[str, Tensor]:
        pooled = (self.up(x) * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        mu, logvar = self.heads(pooled).chunk(2, -1)
        z = mu + torch.randn_like(mu) * (logvar / 2).exp()
        x_hat = self.down(z).view(-1, 7, 5)
        error = (x_hat - (whole if whole is not None and self.fills else x)).square().sum(-1)
        error = error * (mask > self.least) if self.masked else error
        kl = 0.5 * (mu**2 + logvar.exp() - 1 - logvar).sum(1)
        return {"x_hat": x_hat, "loss": (0.5 * error.sum(1) + kl).mean()}


def test_a_mask_that_steers_the_encoder_alone() -> None:
    mask = torch.arange(7)[None] < torch.tensor([7, 3, 4, 5, 6, 4])[:, None]
    whole = torch.randn(6, 7, 5)
    x = whole * mask[..., None]
    assert "VAE715" in codes(Frames(), x, mask)
    assert "VAE715" not in codes(Frames(masked=True), x, mask)
    assert "VAE715" not in codes(Frames(fills=True), x, mask, whole)


class Record(NamedTuple):
    frames: Tensor
    mask: Tensor


class OfRecords(Frames):
    """The batch is one record, whose fields have names."""

    def forward(self, record: Record) -> dict[str, Tensor]:  # type: ignore[override]
        return super().forward(record.frames, record.mask)


@pytest.mark.parametrize("masked", [True, False])
def test_a_mask_that_is_a_field_of_the_batch(masked: bool) -> None:
    mask = (torch.arange(7)[None] < torch.tensor([7, 3, 4, 5, 6, 4])[:, None]).float()
    record = Record(torch.randn(6, 7, 5) * mask[..., None], mask)
    assert ("VAE715" in codes(OfRecords(masked=masked), record)) is not masked


@pytest.mark.parametrize("least", [-1.0, 0.0])
def test_what_is_made_of_a_mask_is_the_same_of_any(least: float) -> None:
    mask = (torch.arange(7)[None] < torch.tensor([7, 3, 4, 5, 6, 4])[:, None]).float()
    told = codes(Frames(masked=True, least=least), torch.randn(6, 7, 5), mask)
    assert ("VAE715" in told) is (least < 0)


class CountsPaddingInItsKl(around.StepsOfUnlikeLengths):
    """The reconstruction alone leaves the steps beyond the lengths out."""

    def counted(self, kl: Tensor, inside: Tensor) -> Tensor:
        return kl


def test_padding_that_counts_in_the_kl_alone() -> None:
    model = CountsPaddingInItsKl()
    report = vaedoctor.check(model, model.batch(), objective="loss")
    (told,) = [f for f in report.findings if f.code == "VAE715"]
    assert told.measured == {"padded steps whose KL moves the loss": 15}
    assert told.at is not None
    assert told.at.line == line_of("self.counted(", around.StepsOfUnlikeLengths)


class Steps(nn.Module):
    """A latent a step; the loss has the KL of `last` or of all."""

    def __init__(self, *, last: bool) -> None:
        super().__init__()
        torch.manual_seed(4)
        self.up, self.cell, self.down = nn.Linear(10, 6), nn.GRUCell(7, 6), nn.Linear(9, 4)
        self.last = last

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        h, kl, made = torch.zeros(len(x), 6), torch.zeros(len(x)), []
        for step in x.unbind(1):
            mu, logvar = self.up(torch.cat([step, h], -1)).chunk(2, -1)
            q = Normal(mu, (logvar / 2).exp())
            z = q.rsample()
            made.append(self.down(torch.cat([z, h], -1)))
            h = self.cell(torch.cat([step, z], -1), h)
            one = kl_divergence(q, Normal(0.0, 1.0)).sum(-1)
            kl = one if self.last else kl + one
        x_hat = torch.stack(made, 1)
        return {"x_hat": x_hat, "loss": (0.5 * (x_hat - x).square().sum((1, 2)) + kl).mean()}


@pytest.mark.parametrize("last", [True, False])
def test_the_kl_of_the_last_step_alone(last: bool) -> None:
    assert ("VAE712" in codes(Steps(last=last), torch.randn(6, 5, 4))) is last


def test_what_one_line_does_in_a_loop_is_told_once() -> None:
    at = Span("a.py", 3, 1, 3, 9)
    made = [Finding(f"layer {i}", "mend it", at=at, code="VAE701") for i in range(4)]
    elsewhere = Finding("layer 9", "mend it", at=Span("a.py", 4, 1, 4, 9), code="VAE701")
    (first, other) = fold([*made, elsewhere], {})
    assert (first.message, first.notes) == ("layer 0", ("3 more of this kind at this place",))
    assert other is elsewhere
    assert fold(made[:2], {})[0].notes == ("also here: layer 1",)


class Packed(nn.Module):
    """Reads packed sequences; `mixed` joins the two directions over the rows."""

    def __init__(self, *, mixed: bool) -> None:
        super().__init__()
        torch.manual_seed(4)
        self.embed = nn.Embedding(11, 6)
        self.encode = nn.GRU(6, 4, batch_first=True, bidirectional=True)
        self.heads, self.down, self.mixed = nn.Linear(8, 6), nn.Linear(3, 9 * 11), mixed

    def forward(self, tokens: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        packed = nn.utils.rnn.pack_padded_sequence(
            self.embed(tokens), lengths, batch_first=True, enforce_sorted=False
        )
        h = self.encode(packed)[1]
        h = h.view(-1, 8) if self.mixed else h.transpose(0, 1).reshape(-1, 8)
        mu, logvar = self.heads(h).chunk(2, -1)
        z = mu + torch.randn_like(mu) * (logvar / 2).exp()
        logits = self.down(z).view(-1, 9, 11)
        nll = F.cross_entropy(logits.transpose(1, 2), tokens, ignore_index=0, reduction="sum")
        kl = 0.5 * (mu**2 + logvar.exp() - 1 - logvar).sum()
        return {"logits": logits, "loss": (nll + kl) / len(tokens)}


@pytest.mark.parametrize("mixed", [True, False])
def test_rows_that_mix_behind_packed_lengths(mixed: bool) -> None:
    assert ("VAE504" in codes(Packed(mixed=mixed), *sentences())) is mixed


def test_a_mask_of_as_many_steps_as_rows_is_no_adjacency() -> None:
    mask = torch.arange(7)[None] < torch.tensor([7, 3, 4, 5, 6, 4, 2])[:, None]
    report = vaedoctor.check(Frames(masked=True), (torch.randn(7, 7, 5), mask))
    status = {o.code: o.status for o in report.outcomes}
    assert (status["VAE504"], status["VAE505"]) == ("passed", "passed")


class ScoredByStep(nn.Module):
    """A latent a step; every step is scored where it is made, and x_hat put together after."""

    def __init__(self, reduce: str, *, first: bool) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.heads, self.prior = nn.Linear(9, 8), nn.Linear(6, 8)
        self.decode, self.cell = nn.Linear(10, 3), nn.GRUCell(7, 6)
        self.reduce, self.first = reduce, first

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = x.new_zeros(len(x), 6)
        kl, nll, made = x.new_zeros(len(x)), x.new_zeros(len(x)), []
        for t in range(x.shape[1]):
            q = Normal(*self.spread(self.heads(torch.cat([x[:, t], h], 1))))
            p = Normal(*self.spread(self.prior(h)))
            z = q.rsample()
            made.append(self.decode(torch.cat([self.known(z, x[:, t]), h], 1)))
            kl = kl + kl_divergence(q, p).sum(1)
            nll = nll + 0.5 * (made[-1] - x[:, t]).square().sum(1)
            h = self.cell(torch.cat([x[:, t], z], 1), h)
        x_hat = torch.stack(made).transpose(0, 1) if self.first else torch.stack(made, 1)
        return kl.mean() + getattr(nll, self.reduce)(), x_hat

    def known(self, z: Tensor, step: Tensor) -> Tensor:
        return z

    def spread(self, made: Tensor) -> tuple[Tensor, Tensor]:
        mu, logvar = made.chunk(2, 1)
        return mu, (logvar / 2).exp()


class SeesItsStep(ScoredByStep):
    """The decoder of a step is given the step itself; the memory takes up both as it should."""

    def known(self, z: Tensor, step: Tensor) -> Tensor:
        return torch.cat([step, step[:, :1]], 1)


@pytest.mark.parametrize("first", [False, True])
def test_a_decoder_that_sees_its_step_is_told_where_it_does(first: bool) -> None:
    report = vaedoctor.check(SeesItsStep("mean", first=first), (torch.randn(8, 5, 3),))
    (found,) = [f for f in report.findings if f.code == "VAE403"]
    assert found.at is not None
    assert found.at.line == line_of("self.known(", ScoredByStep)


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize(("reduce", "found"), [("mean", set()), ("sum", {"VAE711"})])
def test_steps_that_are_scored_where_they_are_made(
    reduce: str, found: set[str], first: bool
) -> None:
    assert codes(ScoredByStep(reduce, first=first), torch.randn(8, 5, 3)) == found


class Read(nn.Module):
    """A voice: how long each of x lasts, of its shape, and the wave, made of the latent."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(4)
        self.lasts, self.heads, self.wave = nn.Linear(9, 9), nn.Linear(9, 6), nn.Linear(3, 40)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        mu, logvar = self.heads(x).chunk(2, -1)
        z = mu + torch.randn_like(mu) * (logvar / 2).exp()
        return {"duration": self.lasts(x), "wave": self.wave(z)}


def test_another_output_that_layers_make_of_the_latent_is_found() -> None:
    recording = steps.step(Read(), torch.rand(8, 9))
    anatomy = anatomize(recording, Flow(recording))
    by_name = {o.name: o.value for o in anatomy.outputs}
    assert decoded_otherwise(replace(anatomy, x_hat=by_name["duration"])) is by_name["wave"]
    assert decoded_otherwise(replace(anatomy, x_hat=by_name["wave"])) is None


class Molecule(NamedTuple):
    atoms: Tensor
    bonds: Tensor
    exist: Tensor


class OfMolecules(nn.Module):
    """A padded graph a row; `by` says what leaves the absent atoms out of the loss."""

    def __init__(self, by: str) -> None:
        super().__init__()
        torch.manual_seed(4)
        self.up, self.down, self.by = nn.Linear(4, 6), nn.Linear(3, 4), by

    def forward(self, g: Molecule) -> tuple[Tensor, Tensor, Tensor]:
        mu, logvar = self.up(g.atoms + g.bonds @ g.atoms).chunk(2, -1)
        return self.down(mu + torch.randn_like(mu) * (logvar / 2).exp()), mu, logvar

    def loss(self, g: Molecule) -> Tensor:
        kinds, mu, logvar = self(g)
        here = {"marks": g.exist, "values": g.atoms.any(-1)}.get(self.by, torch.tensor(True))
        nll = (kinds.softmax(-1) - g.atoms).square().sum(-1)
        kl = 0.5 * (mu**2 + logvar.exp() - 1 - logvar).sum(-1)
        return ((nll + kl) * here).sum() / len(kinds)


@pytest.mark.parametrize(("by", "told"), [("marks", False), ("values", False), ("", True)])
def test_absent_atoms_of_a_padded_graph(by: str, told: bool) -> None:
    """Marks that nothing reads are the batch's affair where the atoms' own values say it."""
    exist = torch.arange(7)[None] < torch.tensor([7, 3, 4, 5, 6, 4])[:, None]
    atoms = F.one_hot(torch.randint(0, 4, (6, 7)), 4) * exist[..., None]
    bonds = (torch.rand(6, 7, 7) < 0.3) & exist[:, None] & exist[..., None]
    assert (
        "VAE715" in codes(OfMolecules(by), Molecule(atoms.float(), bonds.float(), exist))
    ) is told


class Tides(nn.Module):
    """Packed steps of a series that goes on behind its lengths; `scores` says which are scored."""

    def __init__(self, scores: str) -> None:
        super().__init__()
        torch.manual_seed(4)
        self.encode, self.heads = nn.GRU(5, 8, batch_first=True), nn.Linear(8, 6)
        self.down, self.scores = nn.Linear(3, 45), scores

    def forward(self, x: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        read = nn.utils.rnn.pack_padded_sequence(x, lengths, True, enforce_sorted=False)
        read = x if self.scores == "shown" else read
        mu, logvar = self.heads(self.encode(read)[1][-1]).chunk(2, -1)
        x_hat = self.down(mu + torch.randn_like(mu) * (logvar / 2).exp()).view(-1, 9, 5)
        error = (x_hat - x).square().sum(-1)
        inside = torch.arange(9)[None] < lengths[:, None]
        error = error * inside if self.scores != "all" else error + 0 * inside
        kl = 0.5 * (mu**2 + logvar.exp() - 1 - logvar).sum(1)
        return {"x_hat": x_hat, "loss": (0.5 * error.sum(1) + kl).mean()}


@pytest.mark.parametrize(
    ("scores", "lengths", "told"),
    [
        ("all", [9, 4, 6, 7, 5, 8], True),
        ("inside", [9, 4, 6, 7, 5, 8], False),
        ("shown", [9, 4, 6, 7, 5, 8], False),
        ("all", [6, 6, 6, 6, 6, 6], False),
    ],
)
def test_steps_that_are_packed_away_and_scored(scores: str, lengths: list[int], told: bool) -> None:
    """Steps behind one length of all rows may be the future that is to be foretold."""
    found = codes(Tides(scores), torch.randn(6, 9, 5), torch.tensor(lengths))
    assert ("VAE715" in found) is told
