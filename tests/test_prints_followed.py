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


LISTED = """
class VAE(Body):
    def forward(self, batch):
        (x, lengths), more = batch
        if lengths[0] < x.shape[1] + 900:
            raise ValueError("a length is not within bounds")
        z, mu, logvar = self.sampled(x)
        return self.down(z) * more.weight, mu, logvar
"""


def test_a_list_of_lists_and_an_object_are_written_in_their_places(write: Write) -> None:
    given = "[[torch.rand(8, 37), [999] * 8], SimpleNamespace(weight=2.0)]"
    fills = {
        "# <-- what": "from types import SimpleNamespace",
        "x_dim=": "x_dim=37,",
        "batch =": f"    batch = {given}",
    }
    text = print_of(write(LISTED))
    assert "return (batch,)" in text
    assert followed(text, fills).batch.ran


BUILT_LATER = """
class Kind(type):
    def __call__(cls, *args, **kwargs):
        made = cls.__new__(cls)
        made.__init__(*args, **kwargs)
        return made

class VAE(nn.Module, metaclass=Kind):
    def __init__(self, x_dim=37, z_dim=int, depth=None):
        super().__init__()
        self.sizes = x_dim, z_dim
        self.depth = {1: 1, 2: 2}[depth]

    def create(self):
        self.body = Body(*self.sizes)
        return self

    def forward(self, x):
        z, mu, logvar = self.body.sampled(x)
        return self.body.down(z), mu, logvar
"""


def test_a_default_and_a_call_that_makes_the_model_are_places(write: Write) -> None:
    text = print_of(write(BUILT_LATER))
    assert "# x_dim=37,  # <-- its default" in text  # the metaclass does not hide it
    z_dim = next(line.strip() for line in text.splitlines() if "z_dim=" in line and MARK in line)
    fills = {
        z_dim.partition("=")[0]: "z_dim=4,",
        "depth=": "depth=2,",
        "# model = model.create()": "    model = model.create()",
    }
    assert followed(text, fills).batch.ran


def test_what_was_filled_in_or_typed_is_kept_when_it_fails_again(write: Write) -> None:
    target = write(BOTH)
    typed = print_of(target, args={"x_dim": "31", "year": "1492"})  # type: ignore[arg-type]
    assert "x_dim=31,  # <-- as you gave it" in typed
    assert "--arg x_dim=31" in typed
    text = print_of(target)
    with pytest.raises(TargetError) as again:
        followed(text, {"x_dim=": "        x_dim=31,", "year=": "        year=1492,"})
    told = str(again.value)
    assert "make_vae.py as it stands" in told
    assert "        x_dim=31,  # <-- your own" in told
    assert "        year=1492,  # <-- your own" in told
    own = '    batch = {"x": torch.rand(8, 31), "born": torch.full((8, 1), 1900)}'
    assert followed(told, {"year=": "        year=1950,", "batch =": own}).batch.ran


def test_no_annotation_refuses_what_is_typed(write: Write) -> None:
    body = PART.replace("likelihood)", "likelihood: int)").replace("Normal", "Normal")
    target = write(
        body.replace("self.likelihood = likelihood", "self.likelihood = NAMED[likelihood]")
    )
    name = target.partition(":")[0]
    text = Path(f"{name}.py").read_text()
    named = 'NAMED = {"normal": torch.distributions.Normal(0.0, 1.0)}\n'
    Path(f"{name}.py").write_text(text.replace("class Body", f"{named}\nclass Body"))
    assert load(target, args={"likelihood": "normal"}).batch.ran


DOUBTED = """
class VAE(Body):
    def __init__(self, x_dim=37, z_dim=4):
        super().__init__(x_dim, z_dim)

    def forward(self, x):
        z, mu, logvar = self.sampled(x)
        return self.down(z) * {}, mu, logvar
"""


@pytest.mark.parametrize(
    ("factor", "is_told"),
    [
        ("SCALES[round(float(x.sum())) + 9000]", False),
        ("self.missing", True),
        ("self.sampled()[0]", True),
        ("torch.ones(self.down.in_features + 1)", True),
    ],
)
def test_a_made_up_batch_is_held_against_no_model_that_another_may_suit(
    write: Write, factor: str, is_told: bool
) -> None:
    target = write("SCALES = {}\n" + DOUBTED.replace("{}", factor))
    if is_told:
        assert not load(target).batch.ran
    else:
        assert "x = torch.rand(8, 37)  # <-- your own" in print_of(target)


PARTS = """
class VAE(nn.Module):
    def __init__(self, x_dim=37):
        super().__init__()
        self.body = Body(x_dim, 4)

    def latents_of_rows(self, x):
        return self.body.sampled(x)
"""


def test_a_class_without_a_forward_pass_is_given_one_in_the_file(write: Write) -> None:
    text = print_of(write(PARTS))
    assert "# its methods: latents_of_rows(x)" in text
    own = ["z, mu, logvar = self.latents_of_rows(x)", "return self.body.down(z), mu, logvar"]
    filled = "\n".join(f"        {line}" for line in own)
    assert followed(text, {"return ...": filled}).batch.ran


CONFIGURED = """
class VAE(Body):
    def __init__(self, config):
        super().__init__(config["x_dim"], config["z_dim"])
        self.kinds = [config["table"].walk(k) for k in config["kinds"]]

    def forward(self, x):
        z, mu, logvar = self.sampled(x)
        return self.down(z), mu, logvar
"""


def test_each_entry_of_a_configuration_is_a_place(write: Write) -> None:
    table = "type('Table', (), {'walk': lambda self, k: k})()"
    fills = {"'table':": f"            'table': {table},", "'x_dim':": "            'x_dim': 31,"}
    assert followed(print_of(write(CONFIGURED)), fills).batch.args[0].shape == (8, 31)


SET_LATER = """
class VAE(Body):
    def __init__(self, x_dim=37, z_dim=4):
        super().__init__(x_dim, z_dim)
        self.pretrain = False

    def forward(self, x):
        z, mu, logvar = self.sampled(x)
        x_hat = self.down(z)
        if self.pretrain:
            return x_hat, mu, logvar
        return x_hat, mu, logvar, (z - self.centres).pow(2).sum()

def fit(model, x):
    model.centres = model.sampled(x)[0].mean(0)
"""


def test_a_switch_of_the_model_is_a_place(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    target = write(SET_LATER)
    monkeypatch.setattr("vaedoctor.subject.choosing.source_of", lambda kind: None)  # installed
    text = print_of(target)
    switch = {"# model.pretrain = True": "    model.pretrain = True"}
    assert followed(text, switch).batch.ran


ZIPPED = """
from collections.abc import Sequence

class VAE(Body):
    def __init__(self, x_dim: int, z_dim: int, kernel_sizes: list[int],
                 dilation_sizes: Sequence[Sequence[int]], upsample_initial_channel: int):
        super().__init__(x_dim, z_dim)
        self.blocks = nn.ModuleList(
            nn.Conv1d(1, 1, k, dilation=d[1], padding=(k - 1) * d[1] // 2)
            for k, d in zip(kernel_sizes, dilation_sizes, strict=True)
        )
        self.mix = nn.Linear(upsample_initial_channel // 4, x_dim)

    def forward(self, x):
        z, mu, logvar = self.sampled(x)
        out = self.down(z)[:, None]
        for block in self.blocks:
            out = out + block(out)
        return out[:, 0] + self.mix.weight.mean(), mu, logvar
"""


def test_lists_of_lists_are_made_up_as_long_as_what_they_go_beside(write: Write) -> None:
    subject = load(write(ZIPPED))
    assert subject.batch.ran
    made = next(n for n in subject.notes if n.startswith("made up"))
    assert "dilation_sizes=[[1, 3, 5], [1, 3, 5]]" in made or "[[1,3,5],[1,3,5]]" in made
    assert subject.model.mix.in_features > 1
