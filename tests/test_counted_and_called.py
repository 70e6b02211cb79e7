"""What counts layers or rows, what a library's call leaves open."""

from __future__ import annotations

import importlib
import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vaedoctor import check
from vaedoctor.subject.construct.proposing import Proposals
from vaedoctor.subject.target import load

BASE = """
import torch
from torch import nn
from torch.nn import functional as F


class Detector(dict):
    def net(self):
        return Own(bands=self.bands, act=self.act)


class Own(nn.Module):
    def __init__(self, bands, act=F.elu):
        super().__init__()
        self.up, self.down, self.act = nn.Linear(bands, 4), nn.Linear(4, bands), act

    def forward(self, x):
        return self.down(self.act(self.up(x)))
"""


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    folder = tmp_path / "site-packages" / "library_of_bands"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("")
    (folder / "nets.py").write_text(BASE)
    monkeypatch.syspath_prepend(str(folder.parent))
    importlib.invalidate_caches()
    return "library_of_bands.nets"


def test_a_default_that_is_a_function_stays_where_a_call_does_not_tell(library: str) -> None:
    nets = importlib.import_module(library)
    sets = list(Proposals(nets.Own, {}, vars(nets)).as_called())
    assert sets
    assert all(made.keys() == {"bands"} for made in sets)


@pytest.mark.parametrize(
    "made",
    [
        "self.mix = nn.GRU(d, d, num_layers=N, batch_first=True)",
        "self.mix = nn.Sequential(*[nn.Linear(d, d) for _ in range(N)])",
        "self.mix = nn.ModuleList()\n        for _ in range(N):\n"
        "            self.mix.append(nn.Linear(d, d))",
    ],
)
def test_what_counts_layers_is_small(tmp_path: Path, made: str) -> None:
    file = tmp_path / "stacked.py"
    file.write_text(
        "from torch import nn\n\nclass AE(nn.Module):\n    def __init__(self, d, N):\n"
        f"        super().__init__()\n        self.N = N\n        {made}\n"
        "        self.up, self.down = nn.Linear(d, 4), nn.Linear(4, d)\n\n"
        "    def forward(self, x):\n        return self.down(self.up(x))\n"
    )
    model: Any = load(f"{file}:AE").model
    assert model.N == 2


def test_a_size_that_a_loop_runs_over_stays_a_size(tmp_path: Path) -> None:
    file = tmp_path / "looped.py"
    file.write_text(
        textwrap.dedent(
            """
            from torch import nn

            class AE(nn.Module):
                def __init__(self, x_dim, latent_dim):
                    super().__init__()
                    self.up = nn.Linear(x_dim, latent_dim)
                    self.down = nn.Linear(latent_dim, x_dim)
                    self.names = [f"z{i}" for i in range(latent_dim)]

                def forward(self, x):
                    return self.down(self.up(x))
            """
        )
    )
    model: Any = load(f"{file}:AE").model
    assert model.up.out_features > 2


class Counted(nn.Module):
    """It is told how many rows there are."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.up, self.down = nn.Linear(12, 8), nn.Linear(4, 12)

    def forward(self, x: Tensor, batch_size: int) -> tuple[Tensor, Tensor, Tensor]:
        mu, logvar = self.up(x).view(batch_size, 2, 4).unbind(1)
        return self.down(mu + torch.randn_like(mu) * (0.5 * logvar).exp()), mu, logvar


class Fixed(Counted):
    """It holds its number of rows fast."""

    def forward(self, x: Tensor, batch_size: int = 1) -> tuple[Tensor, Tensor, Tensor]:
        return super().forward(x, 8)


def test_a_number_of_rows_that_is_an_argument_is_not_hard_coded() -> None:
    x = torch.rand(8, 12)
    for batch in ((x, 8), {"x": x, "batch_size": 8}):
        assert not [f for f in check(Counted(), batch).findings if f.severity.name == "ERROR"]
    assert "VAE505" in [f.code for f in check(Fixed(), x).findings]


def test_a_number_of_rows_is_made_up_as_one(tmp_path: Path) -> None:
    file = tmp_path / "told_rows.py"
    file.write_text(
        "import torch\nfrom torch import nn\n\nclass AE(nn.Module):\n    def __init__(self):\n"
        "        super().__init__()\n        self.up = nn.Linear(9, 4)\n"
        "        self.down = nn.Linear(4, 9)\n\n    def forward(self, x, batch_size):\n"
        "        return self.down(self.up(x).view(batch_size, -1))\n"
    )
    subject = load(f"{file}:AE")
    assert subject.batch.ran
    assert subject.batch.args[1] == subject.batch.args[0].shape[0]
