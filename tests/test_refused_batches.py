"""Made-up batches that a model's own checks and layers refuse are changed as they say."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vaedoctor.subject.batches.batch import find_batch
from vaedoctor.subject.construct.inventing import Inventor
from vaedoctor.subject.construct.sizes import Sizes
from vaedoctor.subject.target import TargetError, from_instance, load


class Stereo(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Conv1d(128, 8, 1), nn.Conv1d(8, 128, 1)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1] != 2:
            raise ValueError(f"expected 2 audio channels, got {x.shape[1]}.")
        h = x.unfold(2, 64, 64).permute(0, 1, 3, 2).flatten(1, 2)
        y: Tensor = self.down(self.up(h))
        return y.unflatten(1, (2, 64)).permute(0, 1, 3, 2).flatten(2)


class Patches(nn.Module):
    def __init__(self, channels: int, patch: int) -> None:
        super().__init__()
        self.patch = patch
        inside = channels * patch * patch
        self.up, self.down = nn.Conv2d(inside, 8, 3, padding=1), nn.Conv2d(8, inside, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.down(self.up(F.pixel_unshuffle(x, self.patch)))
        return F.pixel_shuffle(h, self.patch)


class Film(nn.Module):
    """The first frame by itself, then every four as one."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv3d(3, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        first, rest = x[:, :, :1], x[:, :, 1:]
        rest = rest.reshape(*rest.shape[:2], -1, 4, *rest.shape[3:]) * 1.0
        if rest.shape[2] != (x.shape[2] - 1) / 4:
            raise RuntimeError("frames are left over")
        y: Tensor = self.conv(torch.cat((first, rest.flatten(2, 3)), 2))
        return y


class Fourier(nn.Module):
    """Every channel becomes five numbers before a linear layer, channels last."""

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(5 * channels, 8), nn.Linear(8, channels)

    def forward(self, x: Tensor) -> Tensor:
        _b, _c, _t, _h, _w = x.shape
        waves = [x, x.sin(), x.cos(), (2 * x).sin(), (2 * x).cos()]
        h = self.up(torch.cat(waves, 1).permute(0, 2, 3, 4, 1))
        y: Tensor = self.down(h).permute(0, 4, 1, 2, 3)
        return y


class Wave(nn.Module):
    """A sound without channels, mirrored at its ends."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Conv1d(1, 4, 3, padding=1), nn.Conv1d(4, 1, 3, padding=1)

    def forward(self, sound: Tensor) -> Tensor:
        x = F.pad(sound.unsqueeze(1), (600, 600), mode="reflect")
        y: Tensor = self.down(self.up(x))[:, 0, 600:-600]
        return y


@pytest.mark.parametrize(
    ("model", "channels"), [(Stereo(), 2), (Patches(3, 4), 3), (Film(), 3), (Fourier(), 3)], ids=str
)
def test_channels_are_found_behind_patches_and_checks(model: nn.Module, channels: int) -> None:
    batch = find_batch(model)
    assert batch.ran
    assert batch.args[0].shape[1] == channels
    assert model(*batch.args).shape == batch.args[0].shape


def test_a_sound_without_channels_is_long_enough_for_its_margin() -> None:
    batch = find_batch(Wave())
    assert batch.ran
    assert batch.args[0].dim() == 2
    assert batch.args[0].shape[1] > 600


class Table(nn.Module):
    """A quantiser without parameters, which says its width in a number."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("codes", torch.randn(2, dim))

    def forward(self, x: Tensor) -> Tensor:
        codes: Any = self.codes
        return codes[torch.cdist(x, codes.expand(len(x), -1, -1)).argmin(-1)]


def test_a_model_without_weights_gets_rows_of_the_width_it_was_told() -> None:
    subject = from_instance(Table)
    assert subject.batch.ran
    assert subject.batch.args[0].shape[-1] == subject.model.codes.shape[-1]  # type: ignore[union-attr]


class EitherOr(nn.Module):
    def __init__(self, dim: int | None = None, codebook_size: int | None = None) -> None:
        super().__init__()
        assert dim or codebook_size, "either dim or codebook_size must be given"
        width = dim or codebook_size or 0
        self.up, self.down = nn.Linear(width, 3), nn.Linear(3, width)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.down(self.up(x))
        return y


def test_arguments_that_a_refusal_names_are_made_up_after_all() -> None:
    subject = from_instance(EitherOr)
    assert subject.batch.ran
    assert any("--arg dim=" in n for n in subject.notes)


class Spatial(nn.Module):
    def __init__(self, spatial_dims: int, in_channels: int, out_channels: int) -> None:
        super().__init__()
        conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[spatial_dims - 1]
        self.up, self.down = conv(in_channels, 5, 1), conv(5, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.down(self.up(x))
        return y


def test_axes_are_counted_and_channels_come_out_as_they_go_in() -> None:
    subject = from_instance(Spatial)
    x = subject.batch.args[0]
    assert x.dim() == 4
    assert subject.model(x).shape == x.shape


class Particular(nn.Module):
    """Nothing in it says what it takes."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.ones(3, 4, 5, 6)


def test_a_refusal_ends_with_a_function_that_makes_the_same_model() -> None:
    with pytest.raises(TargetError) as refused:
        load("test_refused_batches:Particular")
    text = str(refused.value)
    assert "from test_refused_batches import Particular" in text
    assert "def make_vae():\n    model = Particular(\n        count=" in text
    assert text.endswith("vaedoctor check make_vae.py:make_vae --input make_vae.py:one_batch")


class Signal(nn.Module):
    """Both parts of a complex signal, side by side inside."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Conv1d(2, 4, 3, padding=1), nn.Conv1d(4, 2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        parts = torch.view_as_real(x).swapaxes(-1, -2)
        y = self.down(self.up(parts)).swapaxes(-1, -2)
        return torch.view_as_complex(y.contiguous())


class Pairs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(7, 4), nn.Linear(4, 7)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.down(self.up(torch.view_as_complex(x).abs()))
        return torch.stack((y, y), -1)


def test_complex_numbers_and_their_parts_are_made_where_an_operation_takes_no_others() -> None:
    signal, pairs = find_batch(Signal()), find_batch(Pairs())
    assert (signal.ran, signal.args[0].dtype, signal.args[0].dim()) == (True, torch.complex64, 2)
    assert "complex" in signal.origin
    assert (pairs.ran, tuple(pairs.args[0].shape)) == (True, (8, 7, 2))


class OneWalk(nn.Module):
    """A sequence without rows beside the row that it is told with."""

    def __init__(self) -> None:
        super().__init__()
        self.read, self.write = nn.GRU(5, 6, batch_first=True), nn.GRU(9, 5, batch_first=True)

    def forward(self, x: Tensor, c: Tensor, seq_len: int) -> Tensor:
        _, h = self.read(x)
        z = torch.cat((h.squeeze(0).unsqueeze(0), c), dim=1)
        y: Tensor = self.write(z.unsqueeze(1).repeat(1, seq_len, 1))[0]
        return y


def test_a_sequence_that_is_taken_alone_has_steps_and_no_rows() -> None:
    batch = find_batch(OneWalk())
    x, c, seq_len = batch.args
    assert (batch.ran, batch.axis, x.dim(), tuple(c.shape)) == (True, None, 2, (1, 3))
    assert len(x) == seq_len > 1
    assert "more do not run" in batch.origin


class Cells(nn.Module):
    """The batch of each cell is read with `get`, the KL's weight from a default that lacks it."""

    def __init__(self, n_genes: int, n_batches: int) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(n_genes, 4), nn.Linear(4, n_genes)
        self.bias = nn.Parameter(torch.randn(n_batches, n_genes))

    def forward(self, data: dict[str, Tensor], options: dict[str, float] = {}) -> Any:  # noqa: B006
        x = data["cells"] / data["library_size"]
        h = self.up(x)
        y = self.down(h) + self.bias[data.get("batch_indices")]
        return y, h.square().mean() * options["kl_weight"]


def test_entries_that_are_got_or_that_a_default_lacks_are_given() -> None:
    batch = from_instance(Cells).batch
    data, options = batch.args
    assert batch.ran
    assert (data["batch_indices"].shape, data["batch_indices"].dtype) == ((8,), torch.int64)
    assert options == {"kl_weight": 1.0}


class Expands(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(7, 4), nn.Linear(4, 7)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        scale: Tensor = self.down(self.up(x)).exp()
        return scale * y.unsqueeze(1).expand(*x.shape)


def test_a_row_that_is_expanded_over_the_columns_is_one_number_for_each() -> None:
    batch = find_batch(Expands())
    assert (batch.ran, tuple(batch.args[1].shape), batch.args[1].dtype) == (
        *(True, (8,)),
        torch.float32,
    )


class Epochs(nn.Module):
    """One prior for each time, read off a sequence that is as long as there are times."""

    def __init__(self, num_times: int, vocab_size: int) -> None:
        super().__init__()
        self.num_times = num_times
        self.read, self.down = nn.Linear(vocab_size, 4), nn.Linear(4, vocab_size)

    def forward(self, bows: Tensor, times: Tensor, history: Tensor, num_docs: int) -> Tensor:
        past = self.read(history)
        states = [past[0]]
        for t in range(1, self.num_times):
            states.append(states[-1] + past[t])
        prior = torch.stack(states)[times]
        y: Tensor = self.down(prior + self.read(bows)) * (num_docs / len(bows))
        return y


def test_a_loop_that_runs_beyond_the_rows_tells_which_argument_is_no_row() -> None:
    subject = from_instance(Epochs)
    bows, _, history, num_docs = subject.batch.args
    assert subject.batch.ran
    assert (len(bows), len(history), type(num_docs)) == (8, subject.model.num_times, int)


def test_the_depth_of_an_encoder_is_a_number() -> None:
    found = Inventor(Sizes(), {}).choices("enc_depth")
    assert all(isinstance(f, int) for f in found)


class PriorOverSteps(nn.Module):
    def __init__(self, steps: int = 8) -> None:
        super().__init__()
        self.up, self.down = nn.Conv1d(5, 6, 3, padding=1), nn.Conv1d(3, 5, 1)
        self.register_buffer("root", torch.eye(steps))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mu, lv = self.up(x.transpose(1, 2)).chunk(2, 1)
        root: Tensor = self.get_buffer("root").expand(*mu.shape, mu.shape[-1])
        z = mu + torch.randn_like(mu) * (0.5 * lv).exp()
        y: Tensor = self.down(z).transpose(1, 2)
        return y, torch.linalg.solve_triangular(root, mu[..., None], upper=False).pow(2)


def test_a_prior_over_so_many_steps_says_how_many() -> None:
    batch = find_batch(PriorOverSteps())
    assert batch.ran
    assert batch.args[0].shape[1:] == (8, 5)
