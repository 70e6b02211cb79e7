"""Files that say in constants, names and refusals what their classes are to be given."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from vaedoctor import check
from vaedoctor.checkup import examine_subject
from vaedoctor.subject.batches.batch import Batch, find_batch
from vaedoctor.subject.construct.inventing import Inventor
from vaedoctor.subject.construct.sizes import Sizes
from vaedoctor.subject.target import TargetError, load


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], str]:
    def written(text: str) -> str:
        path = tmp_path / "alone.py"
        path.write_text(textwrap.dedent(text), encoding="utf-8")
        return f"{path}:Model"

    return written


def test_a_constant_of_the_file_is_the_parameter_of_that_name(
    write: Callable[[str], str],
) -> None:
    subject = load(
        write("""
        from torch import nn
        WIDTH, depth, name = 21, 0.5, "seven"
        class Model(nn.Module):
            def __init__(self, width, depth: int, name):
                super().__init__()
                self.up, self.down = nn.Linear(width, 3), nn.Linear(3, width)
                self.depth, self.name = depth, name
            def forward(self, x):
                return self.down(self.up(x)).reshape(-1, WIDTH)
        """)
    )
    assert subject.batch.ran
    assert subject.batch.args[0].shape == (8, 21)
    assert isinstance(subject.model.depth, int)  # type: ignore[union-attr]
    assert subject.model.name == "seven"  # type: ignore[union-attr]


def test_one_number_will_do_where_a_list_is_allowed() -> None:
    assert isinstance(Inventor(Sizes(), {}).choices("items_per_group", int | list[int])[0], int)


def test_a_star_import_of_what_is_missing_brings_the_usual_names(
    write: Callable[[str], str],
) -> None:
    subject = load(
        write("""
        from everything_of_mine import *
        class Model(nn.Module):
            def __init__(self):
                super().__init__()
                self.up, self.down = nn.Linear(21, 3), nn.Linear(3, 21)
            def forward(self, x: Tensor) -> Tensor:
                return self.down(F.relu(self.up(x)))
        """)
    )
    assert subject.batch.ran
    assert any("`F`, `Tensor`, `nn`" in n and "line 2" in n for n in subject.notes)


def test_another_name_of_a_star_import_is_asked_for_where_it_is_used(
    write: Callable[[str], str],
) -> None:
    with pytest.raises(TargetError, match=r"`everything_of_mine\.keep` is called in line 6"):
        load(
            write("""
            from everything_of_mine import *
            class Model(nn.Module):
                def __init__(self):
                    super().__init__()
                    keep(self)
            """)
        )


class Words(nn.Module):
    """Words are written one by one from a first one, on a device that is told."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.cell, self.out = nn.Embedding(13, 5), nn.GRUCell(5, 5), nn.Linear(5, 13)

    def forward(self, x: Tensor, sos_idx: int, max_len: int, device: torch.device) -> Tensor:
        h = self.table(x).mean(1)
        word = torch.full((len(x),), sos_idx, dtype=torch.long, device=device)
        outputs = []
        for _ in range(max_len):
            h = self.cell(self.table(word), h)
            outputs.append(self.out(h))
            word = outputs[-1].argmax(-1)
        return torch.stack(outputs, 1)


class Alike(nn.Module):
    """Two inputs that are compared before they are used."""

    def __init__(self) -> None:
        super().__init__()
        self.horizon, self.action_dim = 6, 7
        self.up, self.down = nn.Linear(84, 5), nn.Linear(5, 42)

    def forward(self, target: Tensor, past: Tensor) -> Tensor:
        b, steps, width = past.shape
        if target.shape != past.shape:
            raise ValueError(f"shape {target.shape} must equal the other {past.shape}")
        if (steps, width) != (self.horizon, self.action_dim):
            raise ValueError(f"Expected (*, 6, 7), got (*, {steps}, {width})")
        y: Tensor = self.down(self.up(torch.cat((target, past), 1).flatten(1)))
        return y.view(b, steps, width)


class Beside(nn.Module):
    """Two inputs side by side, of which the second comes again."""

    def __init__(self, clicks: int, words: int) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(clicks + words, 5), nn.Linear(5 + words, clicks)

    def forward(self, v: Tensor, m: Tensor) -> Tensor:
        y: Tensor = self.down(torch.cat((self.up(torch.cat((v, m), 1)), m), 1))
        return y


class Strip(nn.Module):
    """A spectrogram whose first kernel takes all frequencies at once."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.along = nn.Conv2d(1, 4, (1, 40)), nn.Conv2d(4, 4, (3, 1), (2, 1), (1, 0))
        self.code, self.wide = nn.Linear(36, 3), nn.Linear(3, 36)
        self.back = nn.ConvTranspose2d(4, 1, (2, 40), (2, 1))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.back(
            self.wide(self.code(self.along(self.up(x)).flatten(1))).view(-1, 4, 9, 1)
        )
        return y


def shapes(batch: Batch) -> list[tuple[int, ...]]:
    return [tuple(a.shape) for a in batch.args if isinstance(a, Tensor)]


def test_a_first_word_a_length_and_a_device_are_no_tensors() -> None:
    batch = find_batch(Words())
    assert batch.ran
    _, *told = batch.args
    assert told == [1, batch.args[0].shape[1], torch.device("cpu")]


def test_of_two_shapes_in_a_refusal_one_becomes_the_other() -> None:
    batch = find_batch(Alike())
    assert batch.ran
    assert shapes(batch) == [(8, 6, 7), (8, 6, 7)]


def test_inputs_side_by_side_get_the_widths_that_were_told() -> None:
    batch = find_batch(Beside(17, 19), hints={"clicks": 17, "words": 19})
    assert batch.ran
    assert shapes(batch) == [(8, 17), (8, 19)]


def test_steps_are_counted_by_themselves_where_a_kernel_takes_all_features() -> None:
    batch = find_batch(Strip())
    assert batch.ran
    assert shapes(batch) == [(8, 1, 18, 40)]


class Later(nn.Module):
    """Everything is built from the first batch."""

    def __init__(self) -> None:
        super().__init__()
        self.up: nn.Module | None = None

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if x.shape[1] != 24:
            raise ValueError(f"Expected D=24, got D={x.shape[1]}")
        if self.up is None:
            self.up, self.down = nn.Linear(24, 6), nn.Linear(3, 24)
        mu, logvar = self.up(x).chunk(2, 1)
        return self.down(mu + torch.randn_like(mu) * (logvar / 2).exp()), mu, logvar


class Seldom(nn.Module):
    """A lazy layer for an argument that is hardly ever given."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down, self.told = nn.Linear(24, 6), nn.Linear(3, 24), nn.LazyLinear(3)

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        mu, logvar = self.up(x).chunk(2, 1)
        z = mu + torch.randn_like(mu) * (logvar / 2).exp()
        if context is not None:
            z = z + self.told(context)
        return self.down(z), mu, logvar


@pytest.mark.parametrize("kind", [Later, Seldom])
def test_layers_that_get_their_sizes_late_or_never_are_no_error(kind: type[nn.Module]) -> None:
    report = check(kind())
    assert [f.code for f in report.findings if f.severity.name == "ERROR"] == []
    assert len(report.outcomes) > 30
    assert not any(f.code == "VAE312" for f in report.findings)


class Nodes(nn.Module):
    """The graph of the rows is given to the constructor, as a file of its own would."""

    def __init__(self, adj: Tensor) -> None:
        super().__init__()
        self.adj, self.up, self.down = adj, nn.Linear(12, 3), nn.Linear(3, 12)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.down(self.adj @ self.up(x))
        return y


def test_rows_are_nodes_where_the_model_keeps_their_graph() -> None:
    assert find_batch(Nodes(torch.eye(8))).axis is None
    assert find_batch(Nodes(torch.eye(8)[:, :1])).axis == 0


class Pooled(nn.Module):
    """Nodes of several graphs, each averaged by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(12, 3), nn.Linear(3, 12)

    def forward(self, x: Tensor, edge_index: Tensor, batch: Tensor) -> Tensor:
        if batch.dim() != 1:
            raise ValueError("the batch must be one-dimensional")
        h = self.up(x)
        h = h.new_zeros(int(batch.max()) + 1, 3).index_add(0, batch, h)
        y: Tensor = self.down(h)
        return y


def test_a_batch_beside_edges_says_which_graph_a_node_is_of() -> None:
    batch = find_batch(Pooled())
    assert batch.ran
    assert batch.args[2].tolist() == [0] * 8


class Zeros(nn.Module):
    """A recurrent decoder that reads nothing but zeros."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.start = nn.Linear(24, 6), nn.Linear(3, 5)
        self.steps, self.down = nn.GRU(2, 5, batch_first=True), nn.Linear(5, 8)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mu, logvar = self.up(x).chunk(2, 1)
        z = mu + torch.randn_like(mu) * (logvar / 2).exp()
        h, _ = self.steps(x.new_zeros(len(x), 3, 2), self.start(z)[None])
        return self.down(h).flatten(1), mu, logvar


def test_a_decoder_that_is_fed_zeros_is_told_so() -> None:
    found = [f for f in check(Zeros()).findings if f.code == "VAE602"]
    assert len(found) == 1
    assert "`steps.weight_ih_l0`" in found[0].message
    assert "input is 0 throughout" in found[0].help


@pytest.mark.parametrize(
    ("parameters", "weight", "told"),
    [
        ("**kwargs", "kwargs['kld_weight']", False),
        ("beta", "beta", False),
        ("beta=1.0", "beta", True),
    ],
)
def test_a_weight_that_nothing_tells_is_not_judged(
    write: Callable[[str], str], parameters: str, weight: str, told: bool
) -> None:
    target = write(f"""
        import torch
        from torch import nn
        from torch.nn import functional as F
        class Model(nn.Module):
            def __init__(self):
                super().__init__()
                self.up, self.down = nn.Linear(21, 6), nn.Linear(3, 21)
            def forward(self, x):
                mu, logvar = self.up(x).chunk(2, 1)
                z = mu + torch.randn_like(mu) * (0.5 * logvar).exp()
                return self.down(z), mu, logvar
            def loss_function(self, recon, x, mu, logvar, {parameters}):
                kl = -0.5 * (1 + logvar - mu**2 - logvar.exp()).sum(1).mean()
                return F.mse_loss(recon, x) + {weight} * kl
        """)
    report = examine_subject(load(target))
    assert ("VAE705" in {f.code for f in report.findings}) is told


class Normed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(12, 3), nn.Linear(3, 12)

    def forward(self, x: Tensor, norm_adj: Tensor) -> Tensor:
        y: Tensor = self.down(norm_adj @ self.up(x))
        return y


def test_the_rows_of_a_made_up_graph_sum_to_one() -> None:
    batch = find_batch(Normed())
    assert batch.ran
    assert batch.args[1].shape == (8, 8)
    assert torch.allclose(batch.args[1].sum(1), torch.ones(8))


@pytest.mark.parametrize(("last", "severity"), [("relu", "warning"), ("tanh", None), ("elu", None)])
def test_probabilities_that_cannot_fall_below_a_half_are_told_of_a_made_up_batch(
    write: Callable[[str], str], last: str, severity: str | None
) -> None:
    """Of other ranges nothing is known without the data."""
    target = write(f"""
    import torch
    from torch import nn
    from torch.nn import functional as F
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.stats, self.back = nn.Linear(18, 6), nn.Linear(3, 18)
        def forward(self, x):
            m, s = self.stats(x).chunk(2, 1)
            scores = F.{last}(self.back(m + (s / 2).exp() * torch.randn_like(m)))
            nll = F.binary_cross_entropy_with_logits(scores, x, reduction="sum")
            return nll + 0.5 * (m**2 + s.exp() - 1 - s).sum()
    """)
    found = examine_subject(load(target), select=("VAE709",)).findings
    assert [f.severity.value for f in found] == ([severity] if severity else [])
