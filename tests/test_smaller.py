"""Classes whose defaults are too large to be examined: smaller ones are found by experiment."""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vaedoctor.subject.batches.batch import find_batch
from vaedoctor.subject.construct.smaller import Shrinking, TooLarge, at_most, outlined
from vaedoctor.subject.target import from_instance, load
from vaedoctor.subject.trials.witness import TooMuchWork, observe

LARGE = """
import torch
from torch import nn

class Block(nn.Module):
    def __init__(self, inside, outside, groups, kernel):
        super().__init__()
        self.norm = nn.GroupNorm(groups, inside)
        self.conv = nn.Conv2d(inside, outside, kernel, padding=kernel // 2)
    def forward(self, x):
        return self.conv(torch.relu(self.norm(x)))

class VAE(nn.Module):
    def __init__(self, channels=3, widths=(512, 1024, 2048), blocks=2, groups=128, kernel=3,
                 z_channels=4, sample_size=256, scale=0.18):
        super().__init__()
        up, down, at = [nn.Conv2d(channels, widths[0], 3, padding=1)], [], widths[0]
        for width in widths:
            for _ in range(blocks):
                up.append(Block(at, width, groups, kernel))
                at = width
            up.append(nn.AvgPool2d(2))
        self.up = nn.Sequential(*up)
        self.stats = nn.Conv2d(at, 2 * z_channels, 1)
        for width in reversed(widths):
            inside = at if down else z_channels
            down += [nn.Upsample(scale_factor=2), nn.Conv2d(inside, width, 3, padding=1)]
            at = width
        self.down = nn.Sequential(*down, nn.Conv2d(at, channels, 3, padding=1))
    def forward(self, x):
        mu, logvar = self.stats(self.up(x)).chunk(2, 1)
        z = mu + torch.randn_like(mu) * (0.5 * logvar).exp()
        return self.down(z), mu, logvar
"""

Write = Callable[..., str]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def written(text: str, end: str = "") -> str:
        (tmp_path / "model.py").write_text(text + end)
        return f"{tmp_path / 'model.py'}:VAE"

    return written


def arguments_of(note: str) -> dict[str, str]:
    words = shlex.split(note.partition(": ")[2].strip("`"))
    return dict(w.partition("=")[::2] for w in words if w != "--arg")


def smaller_note(notes: tuple[str, ...]) -> str:
    return next(n for n in notes if n.startswith("too large to be examined"))


def test_a_model_that_is_too_large_is_made_narrower_and_says_so(write: Write) -> None:
    subject = load(write(LARGE))
    assert subject.batch.ran
    assert sum(p.numel() for p in subject.model.parameters()) < 3_000_000
    made = arguments_of(smaller_note(subject.notes))
    assert set(made) == {"widths", "groups"}
    small, middle, wide = eval(made["widths"])
    assert (middle, wide) == (2 * small, 4 * small)
    assert small % int(made["groups"]) == 0


def test_what_the_note_says_makes_the_same_model(write: Write) -> None:
    target = write(LARGE)
    first = load(target)
    again = load(target, args=arguments_of(smaller_note(first.notes)))
    shapes = [p.shape for p in first.model.parameters()]
    assert [p.shape for p in again.model.parameters()] == shapes
    assert not any("too large" in n for n in again.notes)


def test_what_was_given_is_not_made_smaller(write: Write) -> None:
    subject = load(write(LARGE), args={"groups": "64"})
    assert "groups" not in arguments_of(smaller_note(subject.notes))
    norms = [m for m in subject.model.modules() if isinstance(m, nn.GroupNorm)]
    assert {n.num_groups for n in norms} == {64}


def test_the_users_own_call_is_not_made_smaller(write: Write) -> None:
    subject = load(write(LARGE, "vae = VAE(widths=(128, 128), sample_size=16)\n"))
    assert not any("too large" in n for n in subject.notes)
    assert sum(m.num_groups for m in subject.model.modules() if isinstance(m, nn.GroupNorm)) == 512


ROWS = """
import torch
from torch import nn

class VAE(nn.Module):
    def __init__(self, n_in=12, hidden=3_200_000):
        super().__init__()
        self.up, self.down = nn.Linear(n_in, hidden), nn.Linear(hidden, n_in)
    def forward(self, x):
        return self.down(self.up(x))
"""


def test_weights_of_a_checkpoint_belong_to_the_model_as_it_is(write: Write, tmp_path: Path) -> None:
    target = write(ROWS)
    small = load(target)
    assert any("too large" in n for n in small.notes)
    with torch.device("meta"):
        shapes = {k: v.shape for k, v in type(small.model)().state_dict().items()}
    torch.save({k: torch.zeros(1).expand(s) for k, s in shapes.items()}, tmp_path / "weights.pt")
    whole = load(target, checkpoint=str(tmp_path / "weights.pt"))
    assert not any("too large" in n for n in whole.notes)
    assert {k: v.shape for k, v in whole.model.state_dict().items()} == shapes


def test_a_model_of_usual_size_stays_as_it_is(write: Write) -> None:
    text = LARGE.replace("512, 1024, 2048", "128, 128, 128")
    subject = load(write(text))
    assert subject.batch.ran
    assert not any("too large" in n for n in subject.notes)


class Configured:
    def __init__(self, hidden: int = 32_768, heads: int = 4, latent: int = 8) -> None:
        self.hidden, self.heads, self.latent = hidden, heads, latent


class WithConfig(nn.Module):
    def __init__(self, config: Configured, eps: float = 1e-5) -> None:
        super().__init__()
        self.up = nn.Linear(1024, config.hidden)
        self.stats = nn.Linear(config.hidden, 2 * config.latent)
        self.down = nn.Linear(config.latent, 1024)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mu, logvar = self.stats(self.up(x)).chunk(2, -1)
        return self.down(mu + torch.randn_like(mu) * (0.5 * logvar).exp()), mu, logvar


def test_the_defaults_of_a_configuration_are_made_smaller_too() -> None:
    subject = from_instance(WithConfig)
    assert subject.batch.ran
    made: Any = subject.model
    assert 8 <= made.up.out_features < 32_768
    assert made.stats.out_features == 16


def narrowing(thing: Callable[..., nn.Module]) -> list[dict[str, Any]]:
    return list(Shrinking(thing, lambda v: thing(**v), {}, {}).sets())


def test_kernels_and_image_sizes_are_no_widths() -> None:
    def made(width: int = 256, kernel: int = 32, size: int = 64, depth: int = 4) -> nn.Module:
        layers = [nn.Conv2d(width, width, kernel, padding="same") for _ in range(depth)]
        return nn.Sequential(nn.Upsample(size), *layers)

    found = narrowing(made)
    assert found
    assert all(set(f) <= {"width", "depth"} for f in found)


def test_fewer_layers_come_after_narrower_ones() -> None:
    def made(width: int = 256, depth: int = 6) -> nn.Module:
        return nn.Sequential(*(nn.Linear(width, width) for _ in range(depth)))

    found = narrowing(made)
    first = next(i for i, f in enumerate(found) if "depth" in f)
    assert first > 0
    assert all("depth" not in f for f in found[:first])


def test_widths_that_keep_their_proportion_come_before_narrower_ones() -> None:
    def made(widths: tuple[int, ...] = (128, 256, 512, 1024, 1024)) -> nn.Module:
        return nn.Sequential(*(nn.Conv3d(a, b, 9) for a, b in itertools.pairwise(widths)))

    found = [f["widths"] for f in narrowing(made)]
    assert found[:2] == [(8, 16, 32, 64, 64), (8, 8, 16, 32, 32)]


def test_a_constructor_that_computes_with_numbers_is_left_alone() -> None:
    def made(width: int = 256) -> nn.Module:
        return nn.Linear(width, int(torch.ones(3).sum().item()))

    assert outlined(lambda v: made(**v), {}) is None
    assert narrowing(made) == []


def test_a_constructor_ends_as_soon_as_it_is_too_large() -> None:
    made: list[nn.Module] = []

    def constructor() -> nn.Module:
        for _ in range(100):
            made[len(made) :] = [nn.Linear(100, 100, bias=False)]
        return nn.Sequential(*made)

    with pytest.raises(TooLarge), at_most(25_000):
        constructor()
    assert len(made) == 2
    assert isinstance(constructor(), nn.Module)


class Costly(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size
        self.conv = nn.Conv2d(3, 64, 9, padding=4)
        self.back = nn.Conv2d(64, 3, 9, padding=4)

    def forward(self, x: Tensor) -> Tensor:
        if min(x.shape[2:]) < self.size:
            raise ValueError("the picture is too small")
        back: Tensor = self.back(self.conv(x))
        return back


def test_a_costly_forward_pass_gets_a_smaller_picture() -> None:
    batch = find_batch(Costly(12))
    assert batch.ran
    rows, _, side, _ = batch.args[0].shape
    assert (rows, 12 <= side < 28) == (8, True)


def test_a_forward_pass_that_stays_costly_gets_fewer_rows() -> None:
    batch = find_batch(Costly(128))
    assert batch.ran
    assert batch.args[0].shape == (2, 3, 128, 128)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Linear(40, 30), (8, 40)),
        (nn.Conv2d(3, 16, 3), (2, 3, 20, 20)),
        (nn.Conv2d(3, 16, 5, stride=2, padding=2), (2, 3, 20, 20)),
        (nn.Conv2d(4, 16, 3, stride=(1, 2), padding="valid", groups=2), (2, 4, 20, 20)),
        (nn.Conv1d(3, 16, 4, stride=3), (2, 3, 50)),
        (nn.ConvTranspose2d(3, 16, 4, stride=2), (2, 3, 20, 20)),
    ],
)
def test_a_layer_that_is_too_much_work_is_not_run(layer: nn.Module, shape: tuple[int, ...]) -> None:
    x = torch.rand(shape)
    whole = observe(lambda: layer(x), layer, {}, seed=0)
    assert whole.trial.ran
    again = observe(lambda: layer(x), layer, {}, seed=0, most_work=whole.work)
    assert again.trial.ran
    half = observe(lambda: layer(x), layer, {}, seed=0, most_work=whole.work // 2)
    assert isinstance(half.trial.error, TooMuchWork)
    assert half.progress == 0
