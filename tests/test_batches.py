"""Batches of other sizes and rows, against brute force over rows and finite differences."""

from __future__ import annotations

import linecache
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from steps import Bare, examined, subject
from torch import Tensor, nn

import vaedoctor
from vaedoctor.examine.anatomy.evaluation import returned, run_forward, run_quickly
from vaedoctor.examine.shapes.batches import _usual
from vaedoctor.examine.shapes.batchrows import axes_in, with_rows
from vaedoctor.examine.shapes.broadcasts import _joint, outer_products
from vaedoctor.finding import Severity
from vaedoctor.rule import Unavailable
from vaedoctor.subject.subject import Batch, Objective

X = torch.linspace(-1, 1, 24).reshape(4, 6)


class VAE(nn.Module):
    """A VAE whose encoder mixes rows by a given matrix."""

    def __init__(self, mix: Tensor | None = None) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.Linear(6, 2 * 3), nn.Linear(3, 6)
        self.mix = torch.eye(4) if mix is None else mix

    def forward(self, x: Tensor) -> Any:
        h = torch.tanh(self.encoder(x))
        h = self.mix @ h if len(x) == 4 else h
        mu, logvar = h.chunk(2, 1)
        z = mu + torch.exp(0.5 * logvar) * torch.randn_like(mu)
        return self.decoder(z), mu, logvar


def brute_force(model: VAE, x: Tensor) -> Tensor:
    """|d x_hat[i] / d x[j]| for all i and j, by finite differences in float64, same noise."""
    model = model.double().eval()
    model.mix, x = model.mix.double(), x.double()

    def run(x: Tensor) -> Tensor:
        torch.manual_seed(0)
        return model(x)[0].detach()

    base, found = run(x), torch.zeros(len(x), len(x))
    for j in range(len(x)):
        for k in range(x.shape[1]):
            moved = x.clone()
            moved[j, k] += 1e-6
            change = ((run(moved) - base) / 1e-6).abs().amax(1)
            found[:, j] = torch.maximum(found[:, j], change.float())
    model.float()
    model.mix = model.mix.float()
    return found


class TestRows:
    def test_a_rowwise_model_is_isolated_exactly(self) -> None:
        model = VAE()
        with examined(model, X) as examination:
            found = examination.isolation
        table = brute_force(model, X)
        assert found.off == 0
        assert not found.mixed
        assert float((table - table.diag().diag()).max()) == 0

    @pytest.mark.parametrize("pair", [(0, 3), (2, 1), (3, 2)])
    def test_the_row_that_matters_is_the_one_of_brute_force(self, pair: tuple[int, int]) -> None:
        row, source = pair
        mix = torch.eye(4)
        mix[row, source] = 0.5
        model = VAE(mix)
        table = brute_force(model, X)
        with examined(model, X) as examination:
            found = examination.isolation
        off = table - table.diag().diag()
        assert int(off.argmax()) == row * 4 + source
        assert found.mixed
        assert (found.row, found.source) == (row, source)
        assert found.op is not None
        assert found.op.name == "matmul"

    def test_rows_of_tokens_are_exchanged(self) -> None:
        class Tokens(nn.Module):
            def __init__(self, shift: int) -> None:
                super().__init__()
                self.embed, self.out, self.shift = nn.Embedding(9, 4), nn.Linear(4, 9), shift

            def forward(self, x: Tensor) -> Tensor:
                h = self.embed(x)
                h = h + torch.exp(h) * torch.randn_like(h)
                y: Tensor = self.out(h + h.roll(self.shift, 0))
                return y

        tokens = torch.randint(0, 9, (4, 5))
        with examined(Tokens(0), tokens) as examination:
            assert not examination.isolation.mixed
            assert not examination.isolation.exact
        with examined(Tokens(1), tokens) as examination:
            assert examination.isolation.mixed
            assert examination.isolation.op is not None
            assert examination.isolation.op.name == "roll"

    def test_nodes_of_a_graph_are_no_rows(self) -> None:
        model = Bare(lambda x, a: model.layer(a @ x), layer=nn.Linear(6, 6))
        with examined(model, X, torch.eye(4)) as examination:
            assert examination.recording.error is None
            with pytest.raises(Unavailable, match="batch_axis=None"):
                _ = examination.isolation
        with (
            examined(VAE(), X, batch_axis=None) as examination,
            pytest.raises(Unavailable, match="batch_axis=None"),
        ):
            _ = examination.isolation

    def test_frames_of_one_sample_may_know_each_other(self) -> None:
        mix = torch.block_diag(torch.full((2, 2), 0.5), torch.full((2, 2), 0.5))
        with examined(VAE(mix), X) as examination, pytest.raises(Unavailable, match="groups of 2"):
            _ = examination.isolation

    def test_the_words_of_one_sentence_are_steps_not_rows_of_a_batch(self) -> None:
        class Sentence(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.words, self.rnn, self.out = nn.Embedding(9, 3), nn.GRU(3, 5), nn.Linear(5, 9)

            def forward(self, x: Tensor) -> Tensor:
                h, last = self.rnn(self.words(x))
                y: Tensor = self.out(h + torch.exp(last[-1]) * torch.randn_like(last[-1]))
                return y

        with examined(Sentence(), torch.arange(7)) as examination:
            assert examination.isolation.mixed
            assert examination.isolation.intended

    def test_time_first_is_not_mixing(self) -> None:
        class Steps(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.rnn, self.out = nn.GRU(3, 5), nn.Linear(5, 3)

            def forward(self, x: Tensor) -> Tensor:
                h, _ = self.rnn(x)
                y: Tensor = self.out(h + torch.exp(h) * torch.randn_like(h))
                return y

        x = torch.rand(6, 4, 3)
        with (
            examined(Steps(), x) as examination,
            pytest.raises(Unavailable, match="batch_axis=1"),
        ):
            _ = examination.isolation
        with examined(Steps(), x, batch_axis=1) as examination:
            assert not examination.isolation.mixed


class TestSizes:
    def test_each_row_is_what_it_is_alone(self) -> None:
        model = VAE()
        with examined(model, X) as examination:
            found = examination.sizes
        assert found.tried == (3, 1, 8)
        assert not found.faults
        assert found.difference < 1e-5

    @pytest.mark.parametrize(
        ("body", "failing"),
        [
            (lambda m, x: m.layer(x).view(4, 6), [3, 1, 8]),
            (lambda m, x: m.layer(x) + torch.zeros(4, 6), [3, 1, 8]),
            (lambda m, x: m.layer(x).squeeze(), [1]),
            (lambda m, x: m.layer(x) / len(x), [3, 1, 8]),
            (lambda m, x: m.layer(x), []),
        ],
    )
    def test_sizes_that_fail(self, body: Any, failing: list[int]) -> None:
        class Model(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.layer = nn.Linear(6, 6)

            def forward(self, x: Tensor) -> Any:
                return (body(self, x),)

        with examined(Model(), X) as examination:
            assert sorted(f.size for f in examination.sizes.faults) == sorted(failing)

    @pytest.mark.parametrize(
        ("noise", "given", "failing"),
        [
            (lambda m, h: torch.randn(4, 3), (), [3, 8]),
            (lambda m, h: torch.randn(4, 3), (4,), []),  # the caller says how many
            (lambda m, h: torch.randn(4, 3), (torch.zeros(2, 4),), []),
            (lambda m, h: torch.randn(h.shape), (), []),
            (lambda m, h: torch.randn(3), (), []),  # the same for every row
            (lambda m, h: m.norm(h) * torch.randn(len(h), 1), (), []),
            (lambda m, h: (h.view(2, -1, 3) + torch.randn(2, 1, 1)).view(-1, 3), (), []),
            (lambda m, h: torch.randn(4, 3) + m.table, (), []),  # a row for each of all the data
        ],
    )
    def test_noise_of_a_written_out_size_in_training_mode(
        self, noise: Any, given: tuple[Any, ...], failing: list[int]
    ) -> None:
        class Noisy(VAE):
            def __init__(self) -> None:
                super().__init__()
                self.norm = nn.BatchNorm1d(3)
                self.table = nn.Parameter(torch.zeros(4, 3))

            def forward(self, x: Tensor, *given: Any) -> Any:
                mu, logvar = self.encoder(x).chunk(2, 1)
                e = noise(self, mu) * torch.exp(0.5 * logvar) if self.training else 0
                return self.decoder(mu + e), mu, logvar

        with examined(Noisy(), X, *given) as examination:
            faults = examination.sizes.faults
        assert [f.size for f in faults] == failing
        assert all(f.training and f.at is not None for f in faults)

    def test_batch_normalisation_may_have_one_row(self) -> None:
        model = nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Linear(4, 6))
        with examined(model, X) as examination:
            assert not examination.sizes.faults

    def test_a_term_over_pairs_may_refuse_one_row(self) -> None:
        class Paired(VAE):
            def forward(self, x: Tensor) -> Any:
                if len(x) < 2:
                    raise ArithmeticError("two rows, please")
                return super().forward(x)

        with examined(Paired(), X) as examination:
            assert not examination.sizes.faults

    def test_a_loss_over_pairs_may_refuse_an_odd_number(self) -> None:
        def paired(out: Any, x: Tensor) -> Tensor:
            first, second = out[0].view(2, -1, 6)
            return F.mse_loss(out[0], x) + (first - second).pow(2).mean()

        with examined(VAE(), X, loss=paired) as examination:
            assert not examination.sizes.faults

    def test_a_loss_with_a_size_written_out_does_not(self) -> None:
        def fixed(out: Any, x: Tensor) -> Tensor:
            return F.mse_loss(out[0].view(4, 6), x)

        with examined(VAE(), X, loss=fixed) as examination:
            assert [(f.kind, f.size) for f in examination.sizes.faults] == [
                ("loss", 3),
                ("loss", 8),
            ]


class TestBatch:
    def test_rows_are_taken_from_every_item_that_has_them(self) -> None:
        batch = Batch(
            ({"x": X, "length": torch.arange(4), "scale": torch.ones(1)}, [X, X[:, :2]]),
            {"names": ["a", "b", "c", "d"], "n": 3},
        )
        made = with_rows(batch, [2, 0, 2], 0, 4)
        assert torch.equal(made.args[0]["x"], X[[2, 0, 2]])
        assert made.args[0]["length"].tolist() == [2, 0, 2]
        assert made.args[0]["scale"].shape == (1,)
        assert torch.equal(made.args[1][1], X[[2, 0, 2], :2])
        assert made.kwargs == {"names": ["c", "a", "c"], "n": 3}

    def test_the_batch_axis_need_not_be_the_first(self) -> None:
        made = with_rows(Batch((X,)), [5, 1], 1, 6)
        assert torch.equal(made.args[0], X[:, [5, 1]])

    def test_objects_are_not_guessed_at(self) -> None:
        with pytest.raises(Unavailable, match="rows are not known"):
            with_rows(Batch((object(),)), [0], 0, 4)

    @pytest.mark.parametrize(
        ("shape", "axes"),
        [((4, 6), [0]), ((5, 4, 6), [1]), ((6, 4), []), ((3, 2), []), ((4, 4, 6), [0, 1])],
    )
    def test_the_axis_of_an_output(self, shape: tuple[int, ...], axes: list[int]) -> None:
        assert axes_in(shape, (4, 6), 0, 4) == axes

    @pytest.mark.parametrize("front", [True, False])
    def test_as_many_samples_as_rows_are_no_rows(self, front: bool) -> None:
        class Several(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.up, self.down = nn.Linear(6, 4), nn.Linear(2, 6)

            def forward(self, x: Tensor) -> Any:
                mu, s = self.up(x).chunk(2, -1)
                mu, s = (v.unsqueeze(0 if front else 1) for v in (mu, s))
                eps = torch.randn((8, *mu.shape[1:]) if front else (len(x), 8, 2))
                return self.down(mu + s.exp() * eps), mu, s

        def bound(out: Any, x: Tensor) -> Tensor:
            x_hat, mu, s = out
            kl = 0.5 * (mu**2 + (2 * s).exp() - 1) - s
            rec = (x_hat - x.unsqueeze(0 if front else 1)).square().sum(-1)
            total: Tensor = rec.mean() + kl.sum(-1).mean()
            return total

        x = torch.rand(8, 6, generator=torch.Generator().manual_seed(0))
        report = vaedoctor.check(Several(), x, objective=bound, select=["VAE504", "VAE505"])
        assert [f.message for f in report.findings] == []
        assert [v for o in report.outcomes for v in o.verified] != []

    def test_still_noise_is_each_draws_centre(self) -> None:
        def draws(x: Tensor) -> Any:
            return (
                torch.randn_like(x),
                torch.rand(3),
                torch.normal(x, 1.0),
                torch.empty(2).uniform_(1, 3),
                torch.empty(2).exponential_(4.0),
                torch.distributions.Normal(x, 2.0).rsample(),
            )

        run = run_forward(subject(draws, X), seed=0, still=True)
        zeros, halves, around, uniform, exponential, sample = run.output
        assert torch.equal(zeros, torch.zeros_like(X))
        assert halves.tolist() == [0.5] * 3
        assert torch.equal(around, X)
        assert uniform.tolist() == [2, 2]
        assert exponential.tolist() == [0.25, 0.25]
        assert torch.equal(sample, X)


class TestBroadcasts:
    @pytest.mark.parametrize(
        ("loss", "found"),
        [
            (lambda y, t: ((y - t) ** 2).mean(), True),
            (lambda y, t: F.l1_loss(y, t), True),
            (lambda y, t: ((y.squeeze(1) - t) ** 2).mean(), False),
            (lambda y, t: ((y - t.unsqueeze(1)) ** 2).mean(), False),
            (lambda y, t: torch.exp(-((y[:, 0][:, None] - t) ** 2)).mean(), False),
            (lambda y, t: ((y * t.mean()) ** 2).mean(), False),
        ],
    )
    @pytest.mark.filterwarnings("ignore:Using a target size")
    def test_a_column_beside_a_row(self, loss: Any, found: bool) -> None:
        torch.manual_seed(0)
        layer = nn.Linear(6, 1)
        target = torch.rand(4)
        model = Bare(lambda x, t: loss(layer(x), t), layer=layer)
        with examined(model, X, target, loss=lambda out, *_: out) as examination:
            assert bool(list(outer_products(examination.anatomy, 4))) is found


@given(st.lists(st.integers(1, 3), max_size=4), st.lists(st.integers(1, 3), max_size=4))
def test_the_joint_shape_is_torchs(a: list[int], b: list[int]) -> None:
    try:
        expected = tuple(torch.broadcast_shapes(a, b))
    except RuntimeError:
        expected = None
    assert _joint(tuple(a), tuple(b)) == expected


def test_a_quick_pass_finds_the_reconstruction_that_the_loss_makes() -> None:
    class Apart(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder, self.decoder = nn.Linear(6, 6), nn.Linear(3, 6)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            mu, logvar = self.encoder(x).chunk(2, 1)
            return mu + torch.exp(0.5 * logvar) * torch.randn_like(mu), mu

    def loss(model: Apart, batch: Batch) -> Tensor:
        z, mu = batch.run(model)
        return (model.decoder(z) - batch.args[0]).square().sum() + mu.square().sum()

    model = Apart()
    with examined(model, X, objective=Objective(loss, "loss")) as examination:
        assert not returned(examination.anatomy)
        args = (examination.subject, examination.anatomy, 0, examination.rewind)
        usual, landmark = _usual(*args)
        assert usual is not None
        found = run_quickly(
            *args[:2],
            seed=0,
            batch=with_rows(examination.subject.batch, [2, 0], 0, 4),
            whole=True,
            landmark=landmark,
        )
    assert found is not None
    assert torch.allclose(found, usual[[2, 0]])
    assert torch.allclose(usual, model.decoder(model.encoder(X).chunk(2, 1)[0]))


class Weighing(nn.Module):
    """A softmax in the loss: of classes, over them or over the rows, or of weights of the rows."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, self.heads, self.decode = kind, nn.Linear(6, 8), nn.Linear(2, 6)
        self.scores = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        mu, logvar = self.heads(x)[:, :4].chunk(2, 1)
        z = mu + torch.randn_like(mu) * (logvar / 2).exp()
        error = (self.decode(z) - x).square().sum(1)
        kl = -0.5 * (1 + logvar - mu**2 - logvar.exp()).sum(1)
        return (error + kl).mean() + self.extra(self.scores(x), error)

    def extra(self, scores: Tensor, error: Tensor) -> Tensor:
        if self.kind == "rows against rows":
            return -(scores @ scores.t()).log_softmax(0).diagonal().mean()
        if self.kind == "weights of rows":
            return (scores.softmax(0) * error[:, None]).sum(0).mean()
        if self.kind == "picked over rows":
            return F.nll_loss(scores.log_softmax(0), torch.arange(len(scores)) % 5)
        log_q = scores.log_softmax(0 if self.kind == "over rows" else -1)
        return (log_q.exp() * (log_q + math.log(5))).sum(-1).mean()


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("over classes", False),
        ("rows against rows", False),
        ("weights of rows", False),
        ("over rows", True),
        ("picked over rows", True),
    ],
)
def test_probabilities_of_classes_over_the_batch_are_told(kind: str, told: bool) -> None:
    x = torch.linspace(-1, 1, 48).reshape(8, 6)
    report = vaedoctor.check(Weighing(kind), x, select=["VAE504"])
    assert [(f.code, f.severity) for f in report.findings] == [("VAE504", Severity.WARNING)] * told


def test_as_many_rows_as_units_are_no_adjacency_unless_they_read_the_same_both_ways() -> None:
    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.heads, self.decode = nn.Linear(6, 4), nn.Linear(2, 6)

        def forward(self, x: Tensor) -> Any:
            mu, logvar = self.heads(x).chunk(2, 1)
            return self.decode(mu + torch.randn_like(mu) * (logvar / 2).exp()), mu, logvar

    data = (torch.rand(6, 6, generator=torch.Generator().manual_seed(1)) > 0.5).float()
    for x, status in ((data, "passed"), (data + data.t(), "skipped")):
        report = vaedoctor.check(Plain(), x, select=["VAE504"])
        assert [o.status for o in report.outcomes] == [status]


class Sorted(nn.Module):
    """The rows of a trajectory come in the order of their first column; `along` says x does."""

    def __init__(self, along: bool) -> None:
        super().__init__()
        self.heads, self.decode, self.along = nn.Linear(6, 4), nn.Linear(2, 6), along

    def forward(self, x: Tensor) -> Any:
        order = x[:, 0].detach().argsort()
        target = x[order] if self.along else x
        mu, logvar = self.heads(x).chunk(2, 1)
        x_hat = self.decode(mu + torch.randn_like(mu) * (logvar / 2).exp())[order]
        return (x_hat - target).square().mean(), x_hat, mu, logvar


@pytest.mark.parametrize(("along", "status"), [(True, "skipped"), (False, "failed")])
def test_rows_in_another_order_are_mixed_unless_x_is_put_in_it_too(
    along: bool, status: str
) -> None:
    x = torch.rand(8, 6, generator=torch.Generator().manual_seed(0))
    report = vaedoctor.check(Sorted(along), x, select=["VAE504"])
    assert [o.status for o in report.outcomes] == [status]


class Regrouped(nn.Module):
    """Features are regrouped in such a way that each row's still stand in columns of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.features, self.heads = nn.Linear(6, 16), nn.Linear(16, 4)
        self.decode = nn.Linear(2, 6)

    def forward(self, x: Tensor) -> Any:
        h = torch.tanh(self.features(x))
        h = h.t().reshape(len(x), -1)  # regrouped
        mu, logvar = self.heads(h).chunk(2, 1)
        return self.decode(mu + torch.randn_like(mu) * (logvar / 2).exp()), mu, logvar


def test_rows_are_mixed_where_they_are_regrouped_not_in_the_layer_behind() -> None:
    x = torch.linspace(-1, 1, 48).reshape(8, 6)
    (found,) = vaedoctor.check(Regrouped(), x, select=["VAE504"]).findings
    assert found.at is not None
    assert "# regrouped" in linecache.getline(found.at.file, found.at.line)


class BesideTheRows(nn.Module):
    """`use` says what is made of the second item before the model reads it."""

    def __init__(self, use: str) -> None:
        super().__init__()
        self.heads, self.decode, self.use = nn.Linear(9, 4), nn.Linear(4, 7), use

    def forward(self, x: Tensor, c: Tensor) -> Any:
        match self.use:
            case "centred":
                c = c - c.mean(0)
            case "own":
                c = c - c.mean(1, keepdim=True)
            case "grid":
                c = (c * torch.arange(6)).sum().expand(len(x), 2)
        mu, logvar = self.heads(torch.cat([x, c], 1)).chunk(2, 1)
        z = mu + torch.randn_like(mu) * (logvar / 2).exp()
        return self.decode(torch.cat([z, c], 1)), mu, logvar


@pytest.mark.parametrize("use", ["centred", "own", "grid"])
def test_rows_that_meet_through_a_condition_alone(use: str) -> None:
    """A grid of as many steps as there are rows belongs to none of them."""
    c = torch.rand(6, generator=torch.Generator().manual_seed(2))
    batch = torch.rand(6, 7), c if use == "grid" else torch.stack([c, c**2], 1)
    found = vaedoctor.check(BesideTheRows(use), batch, select=["VAE504"]).findings
    assert [f.code for f in found] == ["VAE504"] * (use == "centred")
    if found:
        assert found[0].at is not None
        assert "c.mean(0)" in linecache.getline(found[0].at.file, found[0].at.line)


def test_a_square_beside_the_data_may_be_one_for_all_rows() -> None:
    class Nodes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.heads, self.decode = nn.Linear(6, 4), nn.Linear(2, 6)

        def forward(self, x: Tensor, adjacency: Tensor) -> Any:
            mu, logvar = (adjacency @ self.heads(x)).chunk(2, 2)
            return self.decode(mu + torch.randn_like(mu) * (logvar / 2).exp()), mu, logvar

    for rows, status in ((4, "skipped"), (5, "passed")):
        batch = torch.rand(rows, 4, 6), torch.eye(4)
        (outcome,) = vaedoctor.check(Nodes(), batch, select=["VAE505"]).outcomes
        assert outcome.status == status


class Paced(nn.Module):
    """Its pace is one number; one for each of as many rows as there are units fits one row."""

    def __init__(self) -> None:
        super().__init__()
        self.enc, self.dec = nn.Linear(6, 6), nn.Linear(3, 6)

    def forward(self, x: Tensor, pace: Tensor | None = None) -> Tensor:
        mu, logvar = self.enc(x).chunk(2, -1)
        z = mu + (0.5 * logvar).exp() * torch.randn_like(mu)
        made: Tensor = self.dec(z)
        return made if pace is None else made * pace.view(1, 6)


@pytest.mark.parametrize("guessed", [True, False])
def test_one_row_that_was_made_up_beside_an_option_is_not_held_against_the_model(
    guessed: bool,
) -> None:
    with examined(Paced(), torch.rand(1, 6), torch.ones(1, 6)) as examination:
        batch = replace(examination.subject.batch, guessed=guessed)
        examination.subject = replace(examination.subject, batch=batch)
        if guessed:
            with pytest.raises(Unavailable, match="one row was made up"):
                _ = examination.sizes
        else:
            assert examination.sizes.faults
