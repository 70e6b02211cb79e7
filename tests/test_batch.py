"""The batch: given in any form, the user's own example, or guessed by running."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from vaedoctor.subject.batches.batch import find_batch
from vaedoctor.subject.batches.handed import as_batch, parse_input
from vaedoctor.subject.errors import TargetError
from vaedoctor.subject.target import load


class Vector(nn.Module):
    """The decoder is registered before the encoder that is executed first."""

    def __init__(self, size: int = 12, broken: int = 0) -> None:
        super().__init__()
        self.down = nn.Linear(3 + broken, size)
        self.up = nn.Linear(size, 6)
        self.norm = nn.BatchNorm1d(6)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mu, logvar = self.norm(self.up(x)).chunk(2, -1)
        return self.down(mu + torch.randn_like(mu) * (logvar / 2).exp()), mu, logvar


class Options(Vector):
    """Beside the data forward takes a number of samples, and nothing else."""

    def forward(self, x: Tensor, n_samples: int = 1) -> Any:
        return [super(Options, self).forward(x) for _ in range(n_samples)]


class Image(nn.Module):
    """A convolution whose flattened width admits one image size only."""

    def __init__(self, side: int = 64, channels: int = 3) -> None:
        super().__init__()
        self.side = (side // 4) ** 2 * 8
        self.encode = nn.Sequential(
            nn.Conv2d(channels, 4, 4, 2, 1), nn.ReLU(), nn.Conv2d(4, 8, 4, 2, 1)
        )
        self.mu = nn.Linear(self.side, 5)
        self.up = nn.Linear(5, self.side)
        self.decode = nn.Sequential(
            nn.ConvTranspose2d(8, 4, 4, 2, 1), nn.ConvTranspose2d(4, channels, 4, 2, 1)
        )
        self.edge = side // 4

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mu = self.mu(self.encode(x).view(-1, self.side))
        return self.decode(self.up(mu).view(-1, 8, self.edge, self.edge)), mu


class FullyConvolutional(nn.Module):
    """Every size runs, but only multiples of 16 come back as they were."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Sequential(*(nn.Conv2d(1, 1, 4, 2, 1) for _ in range(4)))
        self.up = nn.Sequential(*(nn.ConvTranspose2d(1, 1, 4, 2, 1) for _ in range(4)))

    def forward(self, x: Tensor) -> Tensor:
        return self.up(self.down(x))


class Conditional(nn.Module):
    def __init__(self, size: int = 20, num_classes: int = 4, one_hot: bool = True) -> None:
        super().__init__()
        self.num_classes, self.one_hot = num_classes, one_hot
        self.up = nn.Linear(size + num_classes, 6)
        self.down = nn.Linear(6 + num_classes, size)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        c = F.one_hot(y, self.num_classes).float() if self.one_hot else y
        return self.down(torch.cat([self.up(torch.cat([x, c], 1)), c], 1))


class ConditionalVector(Conditional):
    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        return self.down(torch.cat([self.up(torch.cat([x, c], 1)), c], 1))


class OptionalCondition(Conditional):
    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        assert y is not None
        return super().forward(x, y)


class Spoken(Vector):
    """Nothing is required of a call; who speaks, and how fast, is a number that may be left out."""

    def forward(
        self,
        x: Tensor | None = None,
        beside: Tensor | None = None,
        speaker: int | None = None,
        rate: float | None = None,
    ) -> Tensor:
        assert x is not None
        assert beside is not None
        out: Tensor = super().forward(x + beside)
        return out if rate is None else out / rate


class Tokens(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.rnn = nn.Embedding(15, 6), nn.GRU(6, 7)
        self.out = nn.Linear(7, 15)

    def forward(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        assert (lengths <= tokens.shape[1]).all()
        return self.out(self.rnn(self.embed(tokens))[0])


class Sequence(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.out = nn.LSTM(5, 7, batch_first=True), nn.Linear(7, 5)

    def forward(self, x: Tensor) -> Tensor:
        batch, steps, size = x.shape
        return self.out(self.rnn(x)[0]).view(batch, steps, size)


class Bare(nn.Module):
    """No layers: weights and functions only."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(6, 14))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.w) @ self.w


class FromDict(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(9, 9)

    def forward(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"recon": self.up(inputs["pixels"])}


class Unpacks(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(9, 9)

    def forward(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        x, _ = batch
        return self.up(x)


class Flattens(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(784, 784)

    def forward(self, x: Tensor) -> Tensor:
        _, channels, height, width = x.shape
        return self.up(x.flatten(1)).view(-1, channels, height, width)


def shape(batch: Any) -> Any:
    value = batch.args[0]
    return tuple(value.shape)


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (Vector(), (8, 12)),
        (Image(64), (8, 3, 64, 64)),
        (Image(20, channels=1), (8, 1, 20, 20)),
        (FullyConvolutional(), (8, 1, 32, 32)),
        (Sequence(), (8, 11, 5)),
        (Bare(), (8, 14)),
        (Flattens(), (8, 1, 28, 28)),
        (nn.Sequential(nn.Conv1d(2, 3, 3, padding=1), nn.ConvTranspose1d(3, 2, 1)), (8, 2, 64)),
        (nn.Sequential(nn.Conv3d(1, 2, 3, padding=1), nn.Conv3d(2, 1, 1)), (8, 1, 16, 16, 16)),
        (nn.Sequential(nn.LayerNorm(10), nn.Linear(10, 10)), (8, 10)),
        (nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 3, 1)), (8, 3, 28, 28)),
    ],
    ids=lambda v: type(v).__name__ if isinstance(v, nn.Module) else "",
)
def test_guesses(model: nn.Module, expected: tuple[int, ...]) -> None:
    batch = find_batch(model)
    assert batch.ran
    assert batch.guessed
    assert shape(batch) == expected
    assert batch.args[0].min() >= 0
    assert batch.args[0].max() < 1
    assert batch.origin.startswith("made up from")


@pytest.mark.parametrize(
    "model", [Conditional(), ConditionalVector(one_hot=False), OptionalCondition()]
)
def test_conditions_come_with_x(model: nn.Module) -> None:
    batch = find_batch(model)
    values = [*batch.args, *batch.kwargs.values()]
    assert batch.ran
    assert values[0].shape == (8, 20)
    assert values[1].shape in {(8,), (8, 4)}


def test_an_optional_number_is_left_out_where_all_is_optional() -> None:
    batch = find_batch(Spoken())
    assert batch.ran
    assert len(batch.args) + len(batch.kwargs) == 2


def test_tokens_and_lengths() -> None:
    batch = find_batch(Tokens())
    assert batch.ran
    assert not batch.args[0].is_floating_point()
    assert batch.args[0].max() < 15


def test_containers_that_forward_reads() -> None:
    assert find_batch(FromDict()).args[0]["pixels"].shape == (8, 9)
    x, label = find_batch(Unpacks()).args[0]
    assert (x.shape, len(label)) == ((8, 9), 8)


def test_dtype_rows_and_seed() -> None:
    model = Vector().double()
    batch = find_batch(model, batch_size=5)
    assert batch.args[0].dtype is torch.float64
    assert batch.args[0].shape == (5, 12)
    assert torch.equal(batch.args[0], find_batch(model, batch_size=5).args[0])
    assert not torch.equal(batch.args[0], find_batch(model, batch_size=5, seed=1).args[0])


def test_guessing_leaves_no_trace() -> None:
    model = Vector().eval()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    random = torch.get_rng_state()
    find_batch(model)
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    assert torch.equal(random, torch.get_rng_state())
    assert not model.training
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_a_broken_model_gets_the_guess_that_went_furthest() -> None:
    batch = find_batch(Vector(broken=2))
    assert not batch.ran
    assert shape(batch) == (8, 12)


def test_a_model_that_leaves_the_program() -> None:
    class Leaves(Vector):
        def forward(self, x: Tensor) -> Any:
            self.up(x)
            sys.exit(3)

    batch = find_batch(Leaves())
    assert (shape(batch), batch.ran) == ((8, 12), False)


def test_nothing_to_start_from() -> None:
    with pytest.raises(TargetError) as caught:
        find_batch(nn.ReLU(), target="mymodel.py:VAE")
    assert "`ReLU.forward(input)` cannot be guessed" in caught.value.message
    assert "vaedoctor check mymodel.py:VAE --input 16x784" in caught.value.next_step


X, Y = torch.rand(4, 20), torch.arange(4) % 4


@pytest.mark.parametrize(
    ("model", "given", "args", "kwargs"),
    [
        (Vector(20), X, (X,), {}),
        (Vector(20), (X, Y), (X,), {"item 1": Y}),
        (Options(20), (X, Y), (X,), {"item 1": Y}),
        (Conditional(), (X, Y), (X, Y), {}),
        (Conditional(), [X, Y], (X, Y), {}),
        (Conditional(), {"x": X, "y": Y}, (), {"x": X, "y": Y}),
        (FromDict(), {"pixels": X[:, :9]}, ({"pixels": X[:, :9]},), {}),
        (Unpacks(), (X[:, :9], Y), ((X[:, :9], Y),), {}),
    ],
)
def test_given_objects(model: nn.Module, given: Any, args: Any, kwargs: Any) -> None:
    batch = as_batch(model, given)
    assert batch.ran
    assert not batch.guessed
    assert str(batch.args) == str(args)
    assert dict(batch.kwargs) == kwargs


LOOPS: dict[str, Any] = {
    "loader": DataLoader(TensorDataset(torch.rand(8, 20), torch.arange(8)), batch_size=4),
    "numpy": X.numpy(),
    "float64": X.double().numpy(),
    "pair": [X.numpy(), Y.numpy()],
    "other type": X.double(),
    "by another key": {"image": X},
    "beside a label": {"label": Y, "image": X},
}


@pytest.mark.parametrize("given", LOOPS.values(), ids=LOOPS)
def test_what_a_training_loop_would_take_to_the_model_is_taken_to_it(given: Any) -> None:
    batch = as_batch(Vector(20), given)
    assert batch.ran
    assert batch.run(Vector(20))[0].shape == (4, 20)


def test_a_shuffled_loader_is_left_as_it_was() -> None:
    shuffled = DataLoader(TensorDataset(X), shuffle=True, generator=torch.Generator())
    model = Vector(20)
    state = shuffled.generator.get_state(), torch.get_rng_state()
    as_batch(model, shuffled)
    assert torch.equal(shuffled.generator.get_state(), state[0])
    assert torch.equal(torch.get_rng_state(), state[1])


@pytest.mark.parametrize("given", [(16, 20), X.shape, X[:0], iter([X]), TensorDataset(X), "16x20"])
def test_what_is_no_batch_is_refused(given: Any) -> None:
    with pytest.raises(TargetError, match="the batch"):
        as_batch(Vector(20), given)


def test_a_loader_that_fails_is_said() -> None:
    def broken(rows: Any) -> Any:
        raise OSError("no disk")

    with pytest.raises(TargetError, match="loader could not be had: OSError: no disk"):
        as_batch(Vector(20), DataLoader(TensorDataset(X), collate_fn=broken))


def test_a_given_batch_that_does_not_fit_is_kept() -> None:
    batch = as_batch(Vector(), torch.rand(4, 99))
    assert (shape(batch), batch.ran, batch.origin) == ((4, 99), False, "given")


def test_inputs_from_the_command_line(tmp_path: Path) -> None:
    assert parse_input("16x784", Vector()).shape == (16, 784)
    assert parse_input("4x5", Tokens()).dtype is torch.long
    torch.save((X, Y), tmp_path / "batch.pt")
    assert torch.equal(parse_input(str(tmp_path / "batch.pt"), Vector())[0], X)
    (tmp_path / "data.py").write_text(
        "import torch\nbatch = torch.ones(3, 2)\ndef one_batch():\n    return torch.zeros(2, 2)\n"
        "def fails():\n    raise OSError('no disk')\n"
    )
    assert parse_input(f"{tmp_path / 'data.py'}:one_batch", Vector()).shape == (2, 2)
    assert parse_input(f"{tmp_path / 'data.py'}:batch", Vector()).shape == (3, 2)
    with pytest.raises(TargetError, match="raised OSError: no disk"):
        parse_input(f"{tmp_path / 'data.py'}:fails", Vector())
    for wrong in ("nowhere.pt", "sixteen", "nowhere.py:batch"):
        with pytest.raises(TargetError):
            parse_input(wrong, Vector())


def test_unsafe_files_are_refused(tmp_path: Path) -> None:
    torch.save(Vector(), tmp_path / "model.pt")
    with pytest.raises(TargetError, match="weights_only"):
        parse_input(str(tmp_path / "model.pt"), Vector())


FILE = """
import torch
from torch import nn
class VAE(nn.Module):
    def __init__(self, size=24):
        super().__init__()
        self.up = nn.Linear(24, 24)
    def forward(self, x):
        return self.up(x.view(-1, 24))
class Other(nn.Module):
    def __init__(self):
        super().__init__()
"""


def test_an_own_example_that_does_not_run_is_named(tmp_path: Path) -> None:
    (tmp_path / "mymodel.py").write_text(FILE + "vae = VAE()\nvae(torch.randn(16, 25))\n")
    batch = load(f"{tmp_path / 'mymodel.py'}:VAE").batch
    assert batch.ran
    assert shape(batch) == (8, 24)
    assert batch.origin == "made up from `up`, because your own example in line 14 does not run"


@pytest.mark.parametrize(
    ("use", "expected", "signed"),
    [
        ("vae = VAE()\nvae(torch.randn(16, 24))", (16, 24), True),
        (
            "vae = VAE()\nn = 20\nx = torch.rand(n, 4, 6, device='cuda')\ny = vae(x)",
            (20, 4, 6),
            False,
        ),
        ("vae = VAE()\nx = torch.randn(1, 24)\ny = vae(x)", (8, 24), True),
        ("vae = VAE()\nx = torch.zeros(500, 24)\ny = vae(x.cuda())", (64, 24), False),
        ("def main(model):\n    out = model(torch.randn(3, 4, 6))", (3, 4, 6), True),
        ("other = model = Other()\nmodel(torch.randn(3, 4, 6))", (8, 24), False),
        ("vae = VAE()\nfor x in loader:\n    vae(x)", (8, 24), False),
    ],
)
def test_the_users_own_example(
    tmp_path: Path, use: str, expected: tuple[int, ...], signed: bool
) -> None:
    (tmp_path / "mymodel.py").write_text(FILE + use + "\n")
    batch = load(f"{tmp_path / 'mymodel.py'}:VAE").batch
    assert shape(batch) == expected
    assert bool((batch.args[0] < 0).any()) is signed
    assert bool((batch.args[0][0] != batch.args[0][1]).any())


METHOD = """
    def loss(self, batch, step):
        x, label = batch
        return self.total(x)
    def total(self, x):
        return (self(x) - x.view(-1, 24)).square().sum()
def pictures(n):
    found = [torch.randn(4, 6) for _ in range(n)]
    return torch.stack(found), torch.zeros(n)
vae = VAE()
images, labels = pictures(40)
for epoch in range(3):
    for i in range(0, len(images), 10):
        {use}
"""


@pytest.mark.parametrize(
    ("use", "rows"),
    [
        ("vae(torch.sigmoid(images[i:i + 10]) - 1)", 10),
        ("vae.loss((images[i:i + 12], labels[i:i + 12]), i)", 12),
        ("vae.total(images)", 40),
    ],
)
def test_data_that_the_file_makes_reaches_forward(tmp_path: Path, use: str, rows: int) -> None:
    text = FILE.partition("class Other")[0] + METHOD.format(use=use).lstrip("\n")
    (tmp_path / "mymodel.py").write_text(text)
    batch = load(f"{tmp_path / 'mymodel.py'}:VAE").batch
    assert batch.origin.startswith("your own example in line")
    assert shape(batch) == (rows, 4, 6)
    assert bool((batch.args[0] < 0).any())


GRAPH = """
import torch
from torch import nn


class Graph(nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(5, 6), nn.Linear(3, 5)

    def forward(self, x, edges):
        h = self.up(x).index_add(0, edges[1], self.up(x)[edges[0]])
        mu, s = h.chunk(2, 1)
        return self.down(mu + s.exp() * torch.randn_like(mu)), mu, s


def graph(n=40):
    first = torch.arange(n)
    return torch.rand(n, 5), torch.stack([first, first.flip(0)])


def train(model, x, edges):
    x_hat, mu, s = model(x, edges)
    loss = (x_hat - x).square().sum() + (0.5 * (mu**2 + (2 * s).exp() - 1) - s).sum()
    loss.backward()


if __name__ == "__main__":
    x, edges = graph()
    model = Graph()
    for _ in range(3):
        train(model, x, edges)
"""


def test_nodes_that_edges_name_are_not_left_out(tmp_path: Path) -> None:
    (tmp_path / "graph.py").write_text(GRAPH)
    batch = load(f"{tmp_path / 'graph.py'}:Graph").batch
    assert batch.ran
    assert [tuple(a.shape) for a in batch.args] == [(40, 5), (2, 40)]
    assert batch.origin.startswith("your own data")


PAIR = """
import torch
from torch import nn


class Pair(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(6, 4), nn.Linear(3, 4)
        self.up, self.down = nn.Linear(2, 6), nn.Linear(2, 3)

    def forward(self, a=None, b=None):
        given = ((self.first, a), (self.second, b))
        mu, s = sum(layer(v) for layer, v in given if v is not None).chunk(2, 1)
        z = mu + s.exp() * torch.randn_like(mu)
        return self.up(z), self.down(z), mu, s

    def bound(self, a, b, made):
        (u, v, mu, s) = made
        kl = 0.5 * (mu**2 + (2 * s).exp() - 1) - s
        return ((u - a) ** 2).sum(1) + ((v - b) ** 2).sum(1) + kl.sum(1)

    def total(self, a, b):
        return (
            self.bound(a, b, self(None, b))
            + self.bound(a, b, self(a, b))
            + self.bound(a, b, self(a, None))
        ).mean()


model = Pair()
for _ in range(3):
    model.total(torch.rand(12, 6), torch.rand(12, 3)).backward()
"""


def test_of_several_calls_of_forward_the_fullest_says_what_the_batch_is(tmp_path: Path) -> None:
    (tmp_path / "pair.py").write_text(PAIR)
    batch = load(f"{tmp_path / 'pair.py'}:Pair").batch
    assert [tuple(a.shape) for a in batch.args] == [(12, 6), (12, 3)]


def test_data_that_is_read_from_a_file_is_not_loaded(tmp_path: Path) -> None:
    data = "def data():\n    open('here', 'w')\n    return torch.randn(3, 24)\n"
    (tmp_path / "mymodel.py").write_text(FILE + data + "vae = VAE()\nvae(data())\n")
    assert load(f"{tmp_path / 'mymodel.py'}:VAE").batch.guessed
    assert not (tmp_path / "here").exists()


PICTURES = """
import torch
from torch import nn
class VAE(nn.Module):
    def __init__(self):
        super().__init__()
        self.down = nn.Sequential(nn.Conv2d(3, 4, 4, 2, 1), nn.ReLU(), nn.Conv2d(4, 8, 4, 2, 1))
        self.head = nn.Linear(8 * 2 * 2, 6)
        self.up = nn.Linear(3, 3 * 16 * 16)
    def forward(self, x):
        mu, logvar = self.head(self.down(x).flatten(1)).chunk(2, -1)
        z = mu + torch.randn_like(mu) * (logvar / 2).exp()
        return self.up(z).view(-1, 3, 16, 16), mu, logvar
vae = VAE()
recon, mu, logvar = vae(torch.rand(10, 3, 16, 16))
"""


def test_an_own_picture_is_kept_where_only_another_size_runs(tmp_path: Path) -> None:
    """The layer fits 8×8, the decoder makes 16×16 and so does the user: the layer is wrong."""
    (tmp_path / "mymodel.py").write_text(PICTURES)
    batch = load(f"{tmp_path / 'mymodel.py'}:VAE").batch
    assert shape(batch) == (10, 3, 16, 16)
    assert not batch.ran
