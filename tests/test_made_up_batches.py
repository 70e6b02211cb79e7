"""Batches that nobody gave: every usual kind of input is found by trying, and told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.distributions import Bernoulli, Normal, Poisson
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence

from vaedoctor.checkup import examine_subject
from vaedoctor.subject.batches.batch import find_batch, steps_like_rows
from vaedoctor.subject.batches.layers import Layers
from vaedoctor.subject.batches.resizing import Resizing
from vaedoctor.subject.batches.states import rows_axis
from vaedoctor.subject.errors import TargetError
from vaedoctor.subject.subject import Batch
from vaedoctor.subject.target import from_instance, load
from vaedoctor.subject.trials.slots import Slot, slots_of
from vaedoctor.subject.trials.witness import Failed, Operand, observe


class Of(nn.Module):
    """A model whose forward is given; `parts` are its layers by name."""

    def __init__(self, sizes: dict[str, int] | None = None, **parts: nn.Module) -> None:
        super().__init__()
        vars(self).update(sizes or {})
        for name, part in parts.items():
            setattr(self, name, part)


class Rows(Of):
    def forward(self, x: Tensor, adj: Tensor) -> Tensor:
        return adj @ self.up(x)


class Edges(Of):
    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        row, col = edge_index
        h = self.up(x)
        return torch.zeros_like(h).index_add(0, col, h[row])


class Object(Of):
    def forward(self, data: Any) -> Tensor:
        h = self.up(data.x)
        return h.index_add(0, data.edge_index[1], h[data.edge_index[0]])


class Nested(Of):
    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        image = self.image(batch["image"]).flatten(1)
        return self.out(torch.cat([image, self.state(batch["state"])], 1))


class Items(Of):
    def forward(self, inputs: dict[str, Tensor]) -> list[Tensor]:
        return [self.table[k](v) for k, v in inputs.items()]


class Views(Of):
    def forward(self, views: list[Tensor]) -> list[Tensor]:
        return [layer(x) for layer, x in zip(self.layers, views, strict=True)]


class Several(Of):
    def forward(self, *inputs: Tensor) -> list[Tensor]:
        return [layer(x) for layer, x in zip(self.layers, inputs, strict=True)]


class Pair(Of):
    def forward(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        x, y = batch
        return self.up(torch.cat([x, F.one_hot(y, 4).to(x.dtype)], 1))


class Keyword(Of):
    def forward(self, x: Tensor, **kwargs: Tensor) -> Tensor:
        return self.up(torch.cat([x, kwargs["labels"].to(x.dtype)], 1))


class Optional(Of):
    def forward(self, image: Tensor | None = None, text: Tensor | None = None) -> Any:
        return self.up(image), self.table(text)


class TwoEyes(Of):
    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        h = torch.cat((self.one(left), self.other(right)), 1)
        return self.up(h.flatten(1) if self.flat else h.view(-1, 8 * 24 * 24))


class JoinedAfterAll(Of):
    def forward(self, x: Tensor, extra: Tensor | None = None) -> Tensor:
        h = self.image(x).mean((2, 3))
        return self.up(h if extra is None else torch.cat([h, extra], 1))


class Placed(Of):
    def forward(self, x: Tensor, device: torch.device) -> Tensor:
        return self.up(x) + torch.zeros(9, device=device)


class Masked(Of):
    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        b, t, _ = x.shape
        h = self.attend(x, x, x, key_padding_mask=~mask)[0]
        return h * mask.view(b, t, 1)


class Packed(Of):
    def forward(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        packed = pack_padded_sequence(self.table(tokens), lengths, enforce_sorted=False)
        return self.rnn(packed)[1]


class Noised(Of):
    """The noise of the sampler comes from outside, as the code's shape."""

    def forward(self, x: Tensor, eps: Tensor) -> Tensor:
        mu, logvar = self.heads(self.up(x).flatten(1)).chunk(2, 1)
        h = self.down(mu + eps * (0.5 * logvar).exp())
        return self.out(h.view(-1, 4, 3, 3))


class StepsFirst(Of):
    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.rnn(x)[0])


class Counts(Of):
    def forward(self, x: Tensor) -> Tensor:
        rate = self.up(torch.log1p(x)).exp()
        return -Poisson(rate).log_prob(x).sum(-1)


class Bits(Of):
    def forward(self, x: Tensor) -> Tensor:
        return -Bernoulli(logits=self.up(x.flatten(1)).view(-1, 6, 6)).log_prob(x).sum((1, 2))


class ChannelsLast(Of):
    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.up(x.permute(0, 3, 1, 2))).permute(0, 2, 3, 1)


class Frames(Of):
    def forward(self, video: Tensor) -> Tensor:
        b, t, c, h, w = video.shape
        return self.down(self.up(video.reshape(b * t, c, h, w))).view(b, t, c, h, w)


class Last(Of):
    """The last step of each row is read, as `durations` says; nothing names its kind."""

    def forward(self, x: Tensor, durations: Tensor) -> Tensor:
        h = self.up(x)[0]
        last = h[torch.arange(len(x)), durations - 1]
        return self.out(last)[:, None].expand(-1, x.size(1), -1)


class Gauges(Of):
    def forward(self, reading: Any) -> Tensor:
        place = self.place(reading.station)
        steps = reading.measured.shape[1]
        known = reading.measured * reading.valid.unsqueeze(-1)
        x = torch.cat([known, place.unsqueeze(1).expand(-1, steps, -1)], -1)
        return self.down(self.up(x))


class OneStep(Of):
    """A step of each row is read, which one an argument says."""

    def forward(self, x: Tensor, place: Tensor) -> Tensor:
        h = self.up(x)[0]
        return self.out(h[torch.arange(len(x)), place])[:, None].expand(-1, x.size(1), -1)


class Points(Of):
    def forward(self, cloud: Tensor) -> Tensor:
        h = self.up(cloud.transpose(1, 2)).amax(-1)
        return self.down(h).view(-1, 12, 3)


class Split(Of):
    def forward(self, x: Tensor) -> Tensor:
        left, right = x.split([8, 12], 1)
        return torch.cat([self.a(left), self.b(right)], 1)


class Twice(Of):
    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        h = self.up(torch.cat([x, y], 1))
        return self.x_out(h), self.y_out(torch.cat([h, y], 1))


class Counted(Of):
    """Two kinds of counts enter one layer, which tells no more than their sum."""

    def forward(self, x: Tensor, y: Tensor) -> tuple[Normal, Tensor]:
        z = Normal(self.up(torch.cat([x, y], 1)), 1.0)
        return z, self.out(z.rsample())


class Drawn(Of):
    """The picture that comes out is a distribution."""

    def forward(self, x: Tensor) -> Bernoulli:
        return Bernoulli(logits=self.down(self.up(x.flatten(1))).view(-1, 1, 5, 5))


class Kinds(Of):
    def forward(self, x: Tensor, edge_index: Tensor, edge_type: Tensor) -> Tensor:
        sent = torch.einsum("ei,eio->eo", x[edge_index[0]], self.weight[edge_type])
        return self.up(x).index_add(0, edge_index[1], sent)


class Leaving(Of):
    """Every row says which of the kept ones it is."""

    def forward(self, x: Tensor, idx: Tensor) -> Tensor:
        other = idx[:, None] != torch.arange(30)[None]
        return self.up(x) * other.sum(1, keepdim=True)


class Pixels(Of):
    """The table of labels is registered before the layer of the data."""

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        return self.up(torch.cat([images.flatten(1), self.table(labels)], 1))


def hidden() -> nn.Module:
    class Hidden(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weights = [torch.randn(14, 5, requires_grad=True)]

        def forward(self, x: Tensor) -> Tensor:
            return x @ self.weights[0] @ self.weights[0].t()

    return Hidden()


def two(a: int, b: int) -> nn.ModuleList:
    return nn.ModuleList([nn.Linear(a, a), nn.Linear(b, b)])


L = nn.Linear
CASES: list[tuple[str, Callable[[], nn.Module], str]] = [
    ("nodes and adjacency", lambda: Rows(up=L(7, 7)), "8×7 | 8×8"),
    ("nodes and edges", lambda: Edges(up=L(7, 7)), "8×7 | 2×24 below 8"),
    ("a graph object", lambda: Object(up=L(7, 7)), "8×7 | 2×24 below 8"),
    (
        "a dict of unlike things",
        lambda: Nested(image=nn.Conv2d(3, 1, 28), state=L(5, 4), out=L(5, 5)),
        "8×3×28×28 | 8×5",
    ),
    (
        "a dict by the model's own keys",
        lambda: Items(table=nn.ModuleDict({"rna": L(9, 9), "atac": L(6, 6)})),
        "8×9 | 8×6",
    ),
    (
        "noise beside a picture",
        lambda: Noised(
            up=nn.Conv2d(1, 4, 8, 8),
            heads=L(4 * 9, 10),
            down=L(5, 4 * 9),
            out=nn.ConvTranspose2d(4, 1, 8, 8),
        ),
        "8×1×24×24 | 8×5",
    ),
    ("a list of views", lambda: Views(layers=two(9, 6)), "8×9 | 8×6"),
    ("positional views", lambda: Several(layers=two(9, 6)), "8×9 | 8×6"),
    ("data and labels in one", lambda: Pair(up=L(13, 9)), "8×9 | 8 below"),
    ("labels by keyword", lambda: Keyword({"num_classes": 3}, up=L(12, 9)), "8×9 | 8×3"),
    (
        "all optional",
        lambda: Optional(up=L(9, 9), table=nn.Embedding(13, 4)),
        "8×9 | 8×11 below 13",
    ),
    *(
        (
            f"two pictures before {kind}",
            lambda flat=flat: TwoEyes(
                {"flat": flat},
                one=nn.Conv2d(1, 4, 8, 8),
                other=nn.Conv2d(1, 4, 8, 8),
                up=L(8 * 24 * 24, 5),
            ),
            "8×1×192×192 | 8×1×192×192",
        )
        for kind, flat in (("a flat layer", True), ("a view", False))
    ),
    (
        "an option that a layer counts on",
        lambda: JoinedAfterAll(image=nn.Conv2d(1, 4, 3), up=L(9, 9)),
        "8×1× | 8×5",
    ),
    ("a device", lambda: Placed(up=L(9, 9)), "8×9 | cpu"),
    (
        "a mask",
        lambda: Masked(attend=nn.MultiheadAttention(6, 2, batch_first=True)),
        "8×11×6 | 8×11, all True",
    ),
    ("counts", lambda: Counts(up=L(9, 9)), "8×9 counts"),
    ("bits in an event's shape", lambda: Bits(up=L(36, 36)), "8×6×6 of 0 and 1"),
    (
        "channels last",
        lambda: ChannelsLast(up=nn.Conv2d(3, 4, 4, 2, 1), down=nn.ConvTranspose2d(4, 3, 4, 2, 1)),
        "8×28×28×3",
    ),
    (
        "frames",
        lambda: Frames(up=nn.Conv2d(3, 4, 4, 2, 1), down=nn.ConvTranspose2d(4, 3, 4, 2, 1)),
        "8×4×3×28×28",
    ),
    ("points", lambda: Points(up=nn.Conv1d(3, 6, 1), down=L(6, 36)), "8×12×3"),
    ("widths by split", lambda: Split(a=L(8, 5), b=L(12, 5)), "8×20"),
    (
        "two that are joined twice",
        lambda: Twice(up=L(14, 3), x_out=L(3, 9), y_out=L(8, 5)),
        "8×9 | 8×5",
    ),
    (
        "two that only their sum is told of",
        lambda: Counted(up=L(15, 3), out=L(3, 11)),
        "8×11 | 8×4",
    ),
    ("a picture as distribution", lambda: Drawn(up=L(25, 3), down=L(3, 25)), "8×1×5×5"),
    (
        "kinds of edges",
        lambda: Kinds({"weight": torch.rand(2, 5, 5)}, up=L(5, 5)),  # type: ignore[dict-item]
        "8×5 | 2×24 below 8 | 24 below 2",
    ),
    ("places among rows", lambda: Leaving(up=L(9, 9)), "8×9 | 8 below 8"),
    (
        "a table before the data",
        lambda: Pixels(table=nn.Embedding(4, 6), up=L(22, 16)),
        "8×16 | 8 below 4",
    ),
    ("weights in a list", hidden, "8×14"),
    (
        "a mark for every step",
        lambda: Gauges(place=nn.Embedding(4, 6), up=L(13, 5), down=L(5, 7)),
        "8 below 4 | 8×11×7 | 8×11",
    ),
]  # fmt: skip


def described(batch: Any) -> str:
    told = batch.origin.partition(": ")[2]
    if told:
        return " | ".join(part.partition("` ")[2] for part in told.split("; "))
    return "×".join(map(str, batch.args[0].shape))


@pytest.mark.parametrize(("make", "expected"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_a_batch_of_the_right_kind_is_found(make: Callable[[], nn.Module], expected: str) -> None:
    batch = find_batch(make())
    assert batch.ran
    found = described(batch).split(" | ")
    assert [f.startswith(e) for f, e in zip(found, expected.split(" | "), strict=True)] == [
        True
    ] * len(found), found


@pytest.mark.parametrize(
    ("shapes", "alike"),
    [
        ([(8, 8, 5), (8,)], True),
        ([(8, 3, 8, 8), (8, 2)], True),
        ([(8, 11, 5), (8,)], False),
        ([(8, 8), (8,)], False),
        ([(8, 3, 8)], False),
        ([(8, 8, 5)], False),
    ],
)
def test_steps_are_like_rows_where_a_smaller_input_may_meet_either(
    shapes: list[tuple[int, ...]], alike: bool
) -> None:
    batch = Batch(tuple(torch.zeros(s) for s in shapes))
    assert steps_like_rows(batch, 8) is alike


def test_rows_are_not_judged_where_a_made_up_batch_has_as_many_steps() -> None:
    class Tied(Of):
        def forward(self, x: Tensor, marks: Tensor) -> Tensor:
            a, b = self.up(x * marks.unsqueeze(-1)).chunk(2, -1)
            return self.down(a + torch.exp(b) * torch.randn_like(a))

    model = Tied(up=L(5, 6), down=L(3, 5))
    given = torch.rand(8, 8, 5), torch.rand(8)

    def outcome(guessed: bool) -> str:
        subject = from_instance(model, given)
        subject = replace(subject, batch=replace(subject.batch, guessed=guessed))
        report = examine_subject(subject, select=["VAE504"])
        return next(o.status for o in report.outcomes if o.code == "VAE504")

    assert outcome(True) == "skipped" != outcome(False)


def test_rows_of_one_graph_are_no_samples() -> None:
    assert from_instance(Edges(up=L(7, 7))).batch_axis is None
    assert from_instance(Edges(up=L(7, 7)), batch_axis=1).batch_axis == 1


@pytest.mark.parametrize(
    "model",
    [
        StepsFirst(rnn=nn.LSTM(5, 7), out=L(7, 5)),
        Packed(table=nn.Embedding(9, 4), rnn=nn.GRU(4, 6)),
    ],
)
def test_steps_come_first_where_the_model_says_so(model: nn.Module) -> None:
    subject = from_instance(model)
    assert subject.batch.ran
    assert subject.batch_axis == 1


def test_a_broken_chain_is_not_repaired_by_the_batch() -> None:
    model = nn.Sequential(L(12, 6), nn.ReLU(), L(7, 12))
    batch = find_batch(model)
    assert (batch.ran, tuple(batch.args[0].shape)) == (False, (8, 12))


class Refuses(nn.Module):
    """Takes a length that nothing in it tells."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return a.view(-1, 3).repeat(1, 2)[:, : b.numel() // 999 + 1] @ b.new_ones(7, 2) + self.bias


def test_a_batch_that_cannot_be_made_up_comes_with_lines_to_edit() -> None:
    with pytest.raises(TargetError) as caught:
        find_batch(Refuses(), target="mymodel.py:Refuses")
    assert "`Refuses.forward(a, b)` cannot be guessed" in caught.value.message
    command, _, rest = caught.value.next_step.partition("\n\n")
    assert command == "vaedoctor check mymodel.py:Refuses --input data.py:one_batch"
    scope: dict[str, Any] = {}
    exec(rest[rest.index("import torch") :], scope)
    assert [t.shape for t in scope["one_batch"]()] == [(8, 3), (8, 32)]  # what came furthest


class Mumbles(nn.Module):
    """Words and a device are understood, but no number of words fits."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(13, 5)

    def forward(self, x: Tensor, device: torch.device, sos_idx: int) -> Tensor:
        return self.table(x).flatten()[:6].view(2, 3) @ torch.ones(7, 2)


def test_the_lines_to_edit_are_what_came_furthest() -> None:
    with pytest.raises(TargetError) as caught:
        find_batch(Mumbles(), target="mymodel.py:Mumbles")
    rest = caught.value.next_step.partition("\n\n")[2]
    scope: dict[str, Any] = {}
    exec(rest[rest.index("import torch") :], scope)
    x, *others = scope["one_batch"]()
    assert (x.dtype, others) == (torch.int64, [torch.device("cpu"), 1])
    Mumbles().table(x)


class MumblesInADict(Mumbles):
    def forward(self, tensors: dict[str, Any]) -> Tensor:  # type: ignore[override]
        at = tensors["at"]
        return self.table(at).flatten()[:6].view(2, 3) @ tensors["seen"].new_ones(7, 2)


def test_a_dict_among_the_lines_to_edit_shows_what_its_keys_hold() -> None:
    with pytest.raises(TargetError) as caught:
        find_batch(MumblesInADict(), target="mymodel.py:VAE")
    rest = caught.value.next_step.partition("\n\n")[2]
    scope: dict[str, Any] = {}
    exec(rest[rest.index("import torch") :], scope)
    (tensors,) = scope["one_batch"]()
    assert (tensors["at"].dtype, sorted(tensors)) == (torch.int64, ["at", "seen"])


def test_the_report_says_how_a_batch_was_made(tmp_path: Path) -> None:
    (tmp_path / "mymodel.py").write_text(
        "import torch\nfrom torch import nn\nclass VAE(nn.Module):\n"
        "    def __init__(self, x_dim, n_classes):\n        super().__init__()\n"
        "        self.up = nn.Linear(x_dim + n_classes, x_dim)\n"
        "    def forward(self, x, y):\n        return self.up(torch.cat([x, y], 1))\n"
    )
    batch = load(f"{tmp_path / 'mymodel.py'}:VAE").batch
    assert batch.origin == "made up from `up`: `x` 8×37 in [0, 1); `y` 8×5 one-hot"


@given(
    width=st.integers(2, 60),
    condition=st.integers(2, 9),
    named=st.sampled_from(["x", "obs", "Q", "input_"]),
    in_one=st.booleans(),
)
def test_any_data_with_any_condition(width: int, condition: int, named: str, in_one: bool) -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.n_classes = condition
            self.up = L(width + condition, 2 * 3)
            self.down = L(3 + condition, width)

        def forward(self, x: Tensor, cond: Tensor) -> tuple[Tensor, ...]:
            mu, logvar = self.up(torch.cat([x, cond], 1)).chunk(2, 1)
            z = Normal(mu, (logvar / 2).exp()).rsample()
            return self.down(torch.cat([z, cond], 1)), mu, logvar

    class InOne(Model):
        def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, ...]:
            return super().forward(batch[named], batch["cond"])

    batch = find_batch(InOne() if in_one else Model())
    values = [*batch.args[0].values()] if in_one else [*batch.args]
    assert batch.ran
    assert [tuple(v.shape) for v in values] == [(8, width), (8, condition)]


class Turned(nn.Module):
    """Channels first on the way in, channels last on the way out."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.Conv1d(14, 4, 1), nn.Linear(2, 14)

    def forward(self, x: Tensor) -> Any:
        mu, logvar = self.encoder(x.view(-1, 14, 64)).chunk(2, 1)
        z = mu + torch.randn_like(mu) * (logvar / 2).exp()
        return self.decoder(z.transpose(1, 2)), mu, logvar


def test_the_data_has_the_axes_of_what_comes_out() -> None:
    batch = find_batch(Turned())
    assert tuple(batch.args[0].shape) == (8, 64, 14)


class Spectral(nn.Module):
    """Of a matrix, too, the last two axes are transformed: its rows would be one picture."""

    def __init__(self) -> None:
        super().__init__()
        self.heads, self.down = nn.Linear(168, 12), nn.Linear(6, 84)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        seen = torch.fft.rfft2(image).flatten(1)
        mu, logvar = self.heads(torch.view_as_real(seen).flatten(1)).chunk(2, 1)
        z = mu + torch.randn_like(mu) * (logvar / 2).exp()
        made = torch.complex(self.down(z), torch.zeros(len(z), 84)).view(-1, 12, 7)
        return torch.fft.irfft2(made, s=(12, 12)), mu, logvar


def test_rows_that_come_out_as_pictures_go_in_as_pictures() -> None:
    batch = find_batch(Spectral())
    assert tuple(batch.args[0].shape) == (8, 12, 12)


class Importance(Of):
    """Scores the data under one likelihood for each of several samples."""

    def forward(self, x: Tensor) -> Tensor:
        logits = self.down(self.up(x) + torch.randn(3, len(x), 5))
        return -Bernoulli(logits=logits).log_prob(x.expand(3, *x.shape)).sum()


def test_an_expanded_input_is_moved_into_the_support() -> None:
    found = find_batch(Importance(up=nn.Linear(7, 5), down=nn.Linear(5, 7)))
    assert found.ran
    assert set(found.args[0].unique().tolist()) == {0.0, 1.0}


@pytest.mark.parametrize(
    ("head", "scored", "told"),
    [
        ("torch.exp(y)", "torch.distributions.Poisson(rate).log_prob(x)", "counts"),
        ("y", "torch.distributions.Bernoulli(logits=rate).log_prob(x.flatten(1))", "of 0 and 1"),
    ],
)
def test_a_loss_that_refuses_the_values_gets_others(
    tmp_path: Path, head: str, scored: str, told: str
) -> None:
    path = tmp_path / "counts.py"
    path.write_text(f"""
import torch

class VAE(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.down = torch.nn.Linear(9, 6), torch.nn.Linear(3, 9)

    def forward(self, x):
        mu, logvar = self.up(x).chunk(2, -1)
        y = self.down(mu + torch.randn_like(mu) * (logvar / 2).exp())
        return {head}, mu, logvar

    def loss(self, x):
        rate, mu, logvar = self(x)
        kl = -0.5 * (1 + logvar - mu**2 - logvar.exp()).sum()
        return kl - {scored}.sum()
""")
    subject = load(f"{path}:VAE")
    assert subject.objective is not None
    assert subject.objective.name == "loss"
    assert subject.batch.origin == f"made up from `up`: 8×9 {told}"
    assert subject.batch.args[0].frac().count_nonzero() == 0


class Attending(Of):
    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        h = self.up(x)
        return self.out(self.heads(h, h, h, key_padding_mask=mask)[0])


class Lazy(Of):
    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.first(x))


class Spread(Of):
    def _with(self, x: Tensor, c: Tensor) -> Tensor:
        c = c.view(c.size(0), c.size(1), 1, 1).repeat(1, 1, x.size(2), x.size(3))
        return torch.cat([x, c], 1)

    def forward(self, x: Tensor, c_from: Tensor, c_to: Tensor) -> Tensor:
        return self.out(self._with(self.conv(self._with(x, c_from)), c_to))


class NextStep(Of):
    def forward(self, obs: Tensor, actions: Tensor) -> Tensor:
        h = self.up(obs)
        return torch.stack([h[t + 1] + self.act(actions[t]) for t in range(actions.shape[0])])


@pytest.mark.parametrize(
    ("model", "shapes"),
    [
        (
            Lazy(first=nn.LazyConv2d(4, 3, padding=1), out=nn.Conv2d(4, 5, 3, padding=1)),
            [(8, 5, 28, 28)],
        ),
        (
            Spread(
                {"speakers": 4},
                conv=nn.Conv2d(5, 6, 3, padding=1),
                out=nn.ConvTranspose2d(10, 1, 3, padding=1),
            ),
            [(8, 1, 28, 28), (8, 4), (8, 4)],
        ),
        (NextStep(up=nn.Linear(7, 5), act=nn.Linear(3, 5)), [(12, 8, 7), (11, 8, 3)]),
    ],
)
def test_the_use_of_an_input_tells_its_axes(
    model: nn.Module, shapes: list[tuple[int, ...]]
) -> None:
    batch = find_batch(model)
    assert batch.ran
    assert [tuple(a.shape) for a in batch.args] == shapes


def test_a_mask_that_leaves_nothing_is_turned() -> None:
    heads = nn.MultiheadAttention(8, 2, batch_first=True)
    model = Attending(up=nn.Linear(3, 8), heads=heads, out=nn.Linear(8, 3))
    batch = find_batch(model)
    assert bool(batch.run(model).isfinite().all())


def test_a_picture_gets_both_sides_of_the_one_that_came_out() -> None:
    slots = {("film",): Slot((8, 4, 3, 96, 46))}
    text = "shape '[8, 4, 3, 96, 46]' is invalid for input of size 393216"
    came_out = Operand((32, 3, 64, 64), frozenset({("film",)}), torch.float32)
    failed = Failed("view_as", [came_out], [], {}, RuntimeError(text))
    layers = Layers(nn.Conv2d(3, 4, 4), {}, 8)
    first = next(Resizing(layers).of({"film": slots["film",]}, failed, slots, text))
    assert slots_of(first)["film",].shape == (8, 4, 3, 64, 64)


@pytest.mark.parametrize(("kind", "name"), [(Last, "durations"), (OneStep, "place")])
def test_an_index_beside_another_one_is_of_each_row_and_the_rows_come_first(
    kind: type[Of], name: str
) -> None:
    subject = from_instance(kind(up=nn.GRU(4, 9, batch_first=True), out=nn.Linear(9, 4)))
    x, beside = subject.batch.args
    assert (x.shape, beside.shape, subject.batch_axis) == ((8, 11, 4), (8,), 0)
    assert name != "durations" or bool((beside == 11).all())


@pytest.mark.parametrize(
    ("layer", "beside", "axis"),
    [
        (nn.GRU(4, 9, batch_first=True), Slot((3,)), 0),
        (nn.GRU(4, 9), Slot((3,)), 1),
        (nn.GRU(4, 9), Slot((11,), "index"), 0),
        (nn.GRU(4, 9), Slot((8,), "index"), 1),
    ],
)
def test_rows_that_a_layer_or_an_index_says_come_first_are_not_taken_for_steps(
    layer: nn.GRU, beside: Slot, axis: int
) -> None:
    x = torch.rand(11, 8, 4)
    seen = observe(lambda: layer(x), layer, {("x",): x}, seed=0)
    assert rows_axis({"x": Slot((11, 8, 4)), "y": beside}, seen, 8) == axis
