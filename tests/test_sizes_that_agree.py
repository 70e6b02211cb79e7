"""Made-up sizes that must agree are solved for; what they may be to blame for is no finding."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from vaedoctor.checkup import examine_subject
from vaedoctor.subject.construct.solving import Outcome, gap_of, sizes_in, solve, with_size
from vaedoctor.subject.target import TargetError, load

HEAD = """
import torch
from torch import nn


class VAE(nn.Module):
"""

CHAINED = """
    def __init__(self, wide, down, up):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(wide, down[0]), nn.Tanh())
        self.heads = nn.Linear(down[0], 2 * down[1])
        self.decoder = nn.Sequential(nn.Linear(up[0], up[1]), nn.Linear(up[1], wide))

    def forward(self, x):
        mu, logvar = self.heads(self.encoder(x)).chunk(2, 1)
        return self.decoder(mu + torch.randn_like(mu) * (logvar / 2).exp()), mu, logvar
"""

WRITTEN_WIDTH = """
    def __init__(self, x_dim, c_dim):
        super().__init__()
        self.encoder = nn.Linear(x_dim + c_dim, 12)
        self.decoder = nn.Linear(6 + c_dim, x_dim)

    def forward(self, x, c):
        mu, logvar = self.encoder(torch.cat((x.view(-1, 144), c), 1)).chunk(2, 1)
        z = mu + torch.randn_like(mu) * (logvar / 2).exp()
        return self.decoder(torch.cat((z, c), 1)), mu, logvar
"""

WIDTHS_APART = """
    def __init__(self, n_in, n_out, hidden):
        super().__init__()
        self.encoder = nn.Linear(n_in, 2 * hidden)
        self.decoder = nn.Linear(hidden, n_out[-1])

    def forward(self, x):
        mu, logvar = self.encoder(x).chunk(2, 1)
        return self.decoder(mu + torch.randn_like(mu) * (logvar / 2).exp()), mu, logvar

    def loss_function(self, recon, x, mu, logvar):
        kl = -0.5 * (1 + logvar - mu**2 - logvar.exp()).sum(1).mean()
        return (recon - x).square().sum(1).mean() + kl
"""

NEVER = """
    def __init__(self, wide, hidden):
        super().__init__()
        self.encoder = nn.Linear(wide, 2 * hidden)
        self.heads = nn.Linear(hidden, 2 * hidden)
        self.decoder = nn.Linear(hidden, wide)

    def forward(self, x):
        mu, logvar = self.heads(self.encoder(x)).chunk(2, 1)
        return self.decoder(mu + torch.randn_like(mu) * (logvar / 2).exp()), mu, logvar
"""

UNKNOWN = """
    def __init__(self, wide, order):
        super().__init__()
        self.encoder = nn.Linear(wide, 2 * order)
        self.decoder = nn.Linear(order, wide)
        self.order = order

    def forward(self, x):
        mu, logvar = self.encoder(x).chunk(2, 1)
        if self.order != 600:
            raise ValueError(f"an order of {self.order} is not supported")
        return self.decoder(mu + torch.randn_like(mu) * (logvar / 2).exp()), mu, logvar
"""

FEW = """
    def __init__(self, wide, steps_back):
        super().__init__()
        self.encoder = nn.Linear(wide, 8)
        self.decoder = nn.Linear(4, wide)
        self.steps_back = steps_back

    def forward(self, x):
        mu, logvar = self.encoder(x).chunk(2, 1)
        z = mu + torch.randn_like(mu) * (logvar / 2).exp()
        kept = torch.zeros(z.shape[0] - self.steps_back, 4)
        return self.decoder(z), mu, logvar, kept
"""


CUT_INTO_ROWS = """
    def __init__(self, code_dim, n_codes):
        super().__init__()
        self.encoder = nn.Conv2d(1, 24, 4, 4)
        self.codes = nn.Embedding(n_codes, code_dim)
        self.decoder = nn.ConvTranspose2d(24, 1, 4, 4)
        self.code_dim = code_dim

    def forward(self, x):
        z = self.encoder(x)
        rows = z.permute(0, 2, 3, 1).reshape(-1, self.code_dim)
        index = torch.cdist(rows, self.codes.weight).argmin(1).view(len(z), *z.shape[2:])
        q = self.codes(index).permute(0, 3, 1, 2)
        return self.decoder(z + (q - z).detach()), q, z
"""

PICTURES_APART = """
    def __init__(self, in_channels):
        super().__init__()
        self.encoder = nn.Conv2d(in_channels, 8, 4, 2, 1)
        self.heads = nn.Conv2d(8, 8, 1)
        self.decoder = nn.ConvTranspose2d(4, 2, 4, 2, 1)

    def forward(self, x):
        mu, logvar = self.heads(torch.tanh(self.encoder(x))).chunk(2, 1)
        return self.decoder(mu + torch.randn_like(mu) * (logvar / 2).exp()), x, mu, logvar
"""


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], str]:
    def written(body: str) -> str:
        (tmp_path / "model.py").write_text(HEAD + body)
        return f"{tmp_path / 'model.py'}:VAE"

    return written


@pytest.mark.parametrize("body", [CHAINED, WRITTEN_WIDTH, FEW, CUT_INTO_ROWS])
def test_sizes_that_must_agree_are_found(write: Callable[[str], str], body: str) -> None:
    subject = load(write(body))
    assert subject.batch.ran
    assert any("until they agreed" in note for note in subject.notes)


@pytest.mark.parametrize("body", [WIDTHS_APART, PICTURES_APART])
def test_a_made_up_model_gives_back_what_it_takes(write: Callable[[str], str], body: str) -> None:
    """Else the loss would compare two widths, and only the made-up arguments were to blame."""
    subject = load(write(body))
    assert body is WIDTHS_APART or subject.batch.args[0].shape[1] == 2
    assert not examine_subject(subject).findings


def test_a_chain_that_no_sizes_mend_is_the_models_own(write: Callable[[str], str]) -> None:
    report = examine_subject(load(write(NEVER)))
    assert [f.code for f in report.findings] == ["VAE501"]


def test_what_other_sizes_might_mend_is_no_finding(write: Callable[[str], str]) -> None:
    with pytest.raises(TargetError, match="may not fit each other: ValueError: an order of"):
        load(write(UNKNOWN))


@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 9), st.integers(0, 40))
def test_where_two_sizes_meet_is_solved(first: int, second: int, factor: int, more: int) -> None:
    """A layer of `a` inputs behind `factor * b + more` outputs."""

    def again(values: dict[str, Any]) -> Outcome | None:
        wanted, arrived = values["a"], factor * values["b"] + more
        try:
            nn.Linear(wanted, 1)(torch.zeros(8, arrived))
        except RuntimeError as error:
            return Outcome(values, error, 0)
        return Outcome(values, None, 0)

    start = again({"a": first, "b": second})
    assert start is not None
    if start.error is None:
        return
    found = solve(start, again).ran
    assert found is not None
    assert found.values["a"] == factor * found.values["b"] + more


@pytest.mark.parametrize(
    "run",
    [
        lambda: torch.zeros(8, 7) @ torch.zeros(5, 2),
        lambda: torch.zeros(8, 7) + torch.zeros(8, 5),
        lambda: torch.cat((torch.zeros(5, 2), torch.zeros(7, 3)), 1),
        lambda: torch.conv2d(torch.zeros(1, 7, 4, 4), torch.zeros(2, 5, 1, 1)),
        lambda: nn.LayerNorm(5)(torch.zeros(8, 7)),
        lambda: nn.BatchNorm1d(5)(torch.zeros(8, 7)),
        lambda: nn.GRU(5, 2)(torch.zeros(3, 8, 7)),
        lambda: torch.zeros(7).view(5),
        lambda: torch.zeros(5).split([3, 4]),
    ],
)
def test_torch_still_names_both_sizes(run: Callable[[], Any]) -> None:
    with pytest.raises((RuntimeError, ValueError)) as caught:
        run()
    assert gap_of(caught.value, 8) in {2, -2}


def test_a_size_inside_a_list_is_changed_alone() -> None:
    values = {"wide": 5, "dims": [3, (4, True)], "name": "x"}
    assert sizes_in(values) == [(("wide",), 5), (("dims", 0), 3), (("dims", 1, 0), 4)]
    assert with_size(values, ("dims", 1, 0), 9) == {**values, "dims": [3, (9, True)]}


def test_a_made_up_width_of_the_output_is_no_mismatch(tmp_path: Path) -> None:
    file = tmp_path / "mymodel.py"
    file.write_text(
        textwrap.dedent(
            """
            import torch
            from torch import nn


            class VAE(nn.Module):
                def __init__(self, num_input, num_hidden, output_window, rate):
                    super().__init__()
                    self.encoder = nn.LSTM(num_input, num_hidden)
                    self.mu = nn.Linear(num_hidden, num_hidden)
                    self.log_var = nn.Linear(num_hidden, num_hidden)
                    self.decoder = nn.Linear(num_hidden, output_window)
                    self.output_window = output_window

                def forward(self, x):
                    _, (h, _) = self.encoder(x)
                    mu, log_var = self.mu(h[-1]), self.log_var(h[-1])
                    z = mu + torch.randn_like(mu) * torch.exp(0.5 * log_var)
                    decoded = self.decoder(z).view(-1, self.output_window)
                    return decoded, mu, log_var
            """
        ),
        encoding="utf-8",
    )
    report = examine_subject(load(f"{file}:VAE"))
    assert "VAE502" not in {f.code for f in report.findings}, f"{report}"
