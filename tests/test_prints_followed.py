"""What a refusal prints is followed as it stands, its marked places filled, and then examined."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from vaedoctor.subject.construct.making import MARK
from vaedoctor.subject.subject import Subject
from vaedoctor.subject.target import TargetError, load

HEAD = """
import torch
from torch import nn

class Body(nn.Module):
    def __init__(self, x_dim, z_dim):
        super().__init__()
        self.up, self.down = nn.Linear(x_dim, 2 * z_dim), nn.Linear(z_dim, x_dim)

    def sampled(self, x):
        mu, logvar = self.up(x).chunk(2, -1)
        return mu + torch.randn_like(mu) * (0.5 * logvar).exp(), mu, logvar
"""
PART = """
class VAE(Body):
    \"\"\"A model.

    :param likelihood: of what is left of the data
    \"\"\"
    def __init__(self, x_dim, z_dim, likelihood):
        super().__init__(x_dim, z_dim)
        self.likelihood = likelihood

    def forward(self, x):
        z, mu, logvar = self.sampled(x)
        x_hat = self.down(z)
        return x_hat, mu, logvar, self.likelihood.log_prob(x - x_hat)
"""
# Which numbers are codes is known to who uses the model.
BATCH = """
class VAE(Body):
    def forward(self, x, code):
        \"\"\"Encode, sample, decode.

        :param x: rows of numbers
        :param code: the station of each row, from 9000 on
        \"\"\"
        if code.dim() != 1 or code.min() < 9000:
            raise KeyError(int(code.reshape(-1)[0]))
        z, mu, logvar = self.sampled(x)
        return self.down(z) + (code - 9000).view(-1, 1), mu, logvar
"""
BOTH = """
class VAE(Body):
    def __init__(self, x_dim, z_dim, year):
        super().__init__(x_dim, z_dim)
        self.year = year

    def forward(self, batch):
        if self.year < 1900:
            raise ValueError("no such year")
        z, mu, logvar = self.sampled(batch["x"])
        return self.down(z) * (1 + self.year - batch["born"]).log(), mu, logvar
"""
Write = Callable[[str], str]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    def written(body: str) -> str:
        name = f"library_{tmp_path.name.replace('-', '_')}"
        (tmp_path / f"{name}.py").write_text(HEAD + body)
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.chdir(tmp_path)
        return f"{name}:VAE"

    return written


def print_of(target: str, **options: str) -> str:
    with pytest.raises(TargetError) as refused:
        load(target, **options)  # type: ignore[arg-type]
    return str(refused.value)


def followed(text: str, fills: dict[str, str]) -> Subject:
    """Write the file that is printed, its places filled, and run its last command.

    `fills` are the beginning of a line that is marked, as it is printed, and what is written there.
    """
    found = re.search(
        r"^.*\bmake_vae.py\b.*:\n\n((?!vaedoctor check|or ).*\n|\n)+", text, re.MULTILINE
    )
    assert found is not None
    lines = found[0].splitlines()[2:]
    for begin, filled in fills.items():
        (at,) = [i for i, one in enumerate(lines) if one.strip().startswith(begin)]
        assert MARK in lines[at], lines[at]
        lines[at] = filled
    compile("\n".join(lines), "make_vae.py", "exec")
    Path("make_vae.py").write_text("\n".join(lines) + "\n")
    command = [line for line in text.splitlines() if line.startswith("vaedoctor check")][-1]
    _, _, target, *options = shlex.split(command)
    given = dict(zip((o[2:] for o in options[::2]), options[1::2], strict=True))
    return load(target, **given)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("body", "fills"),
    [
        (PART, {"likelihood=": "likelihood=torch.distributions.Normal(0.0, 1.0),"}),
        (BATCH, {"code =": "    code = torch.arange(9000, 9008)"}),
        (BOTH, {"year=": "        year=1950,"}),
    ],
    ids=["a part", "a batch", "both"],
)
def test_a_print_that_is_followed_is_examined(
    write: Write, body: str, fills: dict[str, str]
) -> None:
    text = print_of(write(body))
    subject = followed(text, fills)
    assert subject.batch.ran


def test_an_argument_that_the_exception_is_about_is_pointed_at(write: Write) -> None:
    text = print_of(write(BATCH))
    marked = [line.split(" =")[0].strip() for line in text.splitlines() if "# <-- your own" in line]
    assert marked == ["code"]
    assert "# code: the station of each row, from 9000 on" in text


STAND_IN = """
class VAE(Body):
    def __init__(self, x_dim, z_dim, mapper, decoder):
        super().__init__(x_dim, z_dim)
        self.mapper, self.decoder = mapper, decoder

    def forward(self, x):
        z, mu, logvar = self.sampled(x)
        return self.decoder(x, self.mapper(z)), mu, logvar
"""


def test_a_layer_that_stands_in_for_a_part_is_marked_beside_the_gap(write: Write) -> None:
    text = print_of(write(STAND_IN))
    (mapper,) = [s for s in text.splitlines() if "mapper=nn.Linear(" in s and s.startswith("    ")]
    assert mapper.endswith("# <-- a layer that stands in: put your own part in its place")
    assert "decoder=...,  # <-- called with 2 arguments" in text
    own = {"mapper=": "mapper=nn.Linear(16, 3),", "decoder=": "decoder=nn.Bilinear(64, 3, 64),"}
    assert followed(text, own).batch.ran


def test_what_is_not_filled_in_is_named(write: Write) -> None:
    text = print_of(write(PART))
    with pytest.raises(TargetError) as unfilled:
        followed(text, {})
    assert "make_vae.py:make_vae` is not filled in: `likelihood` in line" in str(unfilled.value)
    assert "likelihood=...," in str(unfilled.value)
    Path("data.py").write_text("def one_batch():\n    x = ...\n    return {'x': x[..., 0]}\n")
    told = print_of("make_vae.py:make_vae", input="data.py:one_batch")
    assert "not filled in" in told


def test_a_value_that_is_not_typed_is_named(write: Write) -> None:
    told = print_of(write(PART), args={"likelihood": "VALUE"})  # type: ignore[arg-type]
    assert "`--arg likelihood=VALUE` is not filled in" in told
    assert "of what is left of the data" in told
