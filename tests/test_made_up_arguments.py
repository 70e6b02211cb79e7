"""Constructors that nobody called: every usual style is filled in, said, and can be pasted back."""

from __future__ import annotations

import shlex
import sys
import textwrap
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from vaedoctor.subject.construct.given import given_arguments
from vaedoctor.subject.construct.making import Call, arguments, namespace_of, realised
from vaedoctor.subject.construct.pasted import pasted as as_a_file
from vaedoctor.subject.construct.reading import uses_of
from vaedoctor.subject.construct.solving import Outcome, solve
from vaedoctor.subject.subject import Subject
from vaedoctor.subject.target import TargetError, from_instance, load

HEAD = """
import enum, torch
from dataclasses import dataclass, field
from typing import Callable, Literal, Optional
from torch import nn

class Base(nn.Module):
    def fill(self, x_dim, h, z):
        self.up = nn.Sequential(nn.Linear(x_dim, h), nn.ReLU())
        self.stats, self.down = nn.Linear(h, 2 * z), nn.Linear(z, x_dim)
    def forward(self, x):
        mu, logvar = self.stats(self.up(x)).chunk(2, -1)
        return self.down(mu + torch.randn_like(mu) * (logvar / 2).exp()), mu, logvar

"""

STYLES = {
    "a namespace": """
        def __init__(self, args):
            super().__init__()
            self.args = args
            self.fill(args.input_size, args.hidden, getattr(args, "z_dim", 6))
    """,
    "a nested namespace": """
        def __init__(self, cfg):
            super().__init__()
            m = cfg.model
            self.fill(cfg.data.n_features, m.hidden_size, m.latent_size)
            self.norm = nn.LayerNorm(m.hidden_size) if cfg.train.use_norm else None
    """,
    "a namespace read by a part": """
        def __init__(self, opt):
            super().__init__()
            self.part = Part(opt)
            self.fill(opt.n_in, opt.n_hidden, opt.nz)
    """,
    "a dict": """
        def __init__(self, config: dict):
            super().__init__()
            self.beta = config.get("beta", 4.0)
            self.fill(config["input_dim"], config["hidden_dim"], config["latent_dim"])
    """,
    "a nested dict": """
        def __init__(self, cfg):
            super().__init__()
            sizes = cfg["model"]["sizes"]
            self.fill(cfg["n_features"], sizes[-1], cfg["model"]["z"])
            self.more = nn.ModuleList([nn.Linear(a, b) for a, b in zip(sizes, sizes[1:])])
    """,
    "keyword arguments": """
        def __init__(self, **kwargs):
            super().__init__()
            self.fill(kwargs["input_dim"], kwargs["hidden_dim"], kwargs.get("z", 5))
    """,
    "a dict spread over a part": """
        def __init__(self, encoder_args, z):
            super().__init__()
            self.part = Sized(**encoder_args)
            self.fill(self.part.x_dim, 12, z)
    """,
    "a dataclass with required fields": """
        def __init__(self, cfg: Nested, name: Optional[str] = None):
            super().__init__()
            self.fill(cfg.inner.x_dim, cfg.hidden, cfg.inner.z_dim)
    """,
    "a dataclass told by its fields": """
        def __init__(self, config):
            super().__init__()
            self.fill(config.x_dim, config.widths[0], config.z_dim)
    """,
    "a default of None that is read": """
        def __init__(self, args=None):
            super().__init__()
            self.fill(args.x_dim, args.h_dim, args.z_dim)
    """,
    "lists and shapes": """
        def __init__(self, dims, image_shape: tuple[int, int, int]):
            super().__init__()
            c, h, w = image_shape
            first, *_ = dims
            self.fill(c * h * w, first, dims[-1])
            self.sides = h, w
        def forward(self, x):
            return super().forward(x.flatten(1))
    """,
    "unlike things in one list": """
        def __init__(self, dims):
            super().__init__()
            x_dim, z_dims, h_dims = dims
            self.fill(x_dim, h_dims[0], z_dims[-1])
    """,
    "words": """
        def __init__(self, n_in, act, likelihood: Literal["normal", "laplace"], kind: Kind):
            super().__init__()
            if act not in ("tanh", "elu"):
                raise ValueError(act)
            self.act = {"tanh": nn.Tanh, "elu": nn.ELU}[act]()
            self.kind = {Kind.A: 1, Kind.B: 2}[kind]
            self.fill(n_in, 12, 4)
    """,
    "a layer by its name": """
        def __init__(self, n_in, nonlinearity):
            super().__init__()
            self.act = getattr(nn, nonlinearity)()
            self.fill(n_in, 12, 4)
    """,
    "callables": """
        def __init__(self, n_in, activation: Callable, norm: Optional[Callable] = None):
            super().__init__()
            self.act = activation()
            self.fill(n_in, 12, 4)
    """,
    "parts": """
        def __init__(self, enc, dec):
            super().__init__()
            self.enc, self.dec = enc, dec
        def forward(self, x):
            mu, logvar = self.enc(x)
            return self.dec(mu + torch.randn_like(mu) * (logvar / 2).exp()), mu, logvar
    """,
    "something with a length": """
        def __init__(self, vocab, d_z):
            super().__init__()
            self.fill(len(vocab), 12, d_z)
    """,
    "names that say nothing": """
        def __init__(self, Dx, q, *, r):
            super().__init__()
            self.fill(Dx, q, r)
    """,
    "an adjacency matrix": """
        def __init__(self, adj, in_dim):
            super().__init__()
            self.register_buffer("adj", adj)
            self.fill(in_dim, 12, 4)
        def forward(self, x):
            return super().forward(self.adj @ x)
    """,
}  # fmt: skip

PARTS = """
class Kind(enum.Enum):
    A, B = "a", "b"

@dataclass
class Inner:
    x_dim: int
    z_dim: int = 3

@dataclass
class Nested:
    inner: Inner
    hidden: int = 14

@dataclass
class Config:
    x_dim: int = 30
    z_dim: int = 3
    widths: list = field(default_factory=lambda: [14, 9])

class Part(nn.Module):
    def __init__(self, opt):
        super().__init__()
        self.layer = nn.Linear(opt.n_in, opt.extra_size)

class Sized(nn.Module):
    def __init__(self, x_dim, depth=2):
        super().__init__()
        self.x_dim = x_dim

class MyEncoder(nn.Module):
    def __init__(self, in_dim, h_dim, z_dim):
        super().__init__()
        self.up, self.mu, self.lv = nn.Linear(in_dim, h_dim), nn.Linear(h_dim, z_dim), nn.Linear(h_dim, z_dim)
    def forward(self, x):
        h = self.up(x).relu()
        return self.mu(h), self.lv(h)

class MyDecoder(nn.Module):
    def __init__(self, z_dim, out_dim):
        super().__init__()
        self.out = nn.Linear(z_dim, out_dim)
    def forward(self, z):
        return self.out(z)
"""  # noqa: E501


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], str]:
    def written(body: str) -> str:
        path = tmp_path / "mymodel.py"
        body = textwrap.indent(textwrap.dedent(body), "    ")
        path.write_text(f"{HEAD}{PARTS}\nclass VAE(Base):\n{body}")
        return f"{path}:VAE"

    return written


def pasted(subject: Subject) -> dict[str, str]:
    """The arguments that the note tells to type."""
    (note,) = (n for n in subject.notes if n.startswith("made up: "))
    words = shlex.split(note[len("made up: `") : -1])
    assert words[::2] == ["--arg"] * (len(words) // 2)
    return dict(w.split("=", 1) for w in words[1::2])


@pytest.mark.parametrize("style", STYLES)
def test_every_style_is_examined_and_what_was_made_up_can_be_typed(
    write: Callable[[str], str], style: str
) -> None:
    target = write(STYLES[style])
    subject = load(target)
    assert subject.batch.ran
    again = load(target, args=pasted(subject))
    assert again.batch.ran
    assert not any(n.startswith("made up: ") for n in again.notes)
    shapes = [tuple(p.shape) for p in subject.model.parameters()]
    assert [tuple(p.shape) for p in again.model.parameters()] == shapes


UNKNOWN = """
    def __init__(self, n_in, backbone, args):
        super().__init__()
        self.fill(n_in, backbone.width_of("x"), args.z)
"""


def stopped(target: str) -> TargetError:
    with pytest.raises(TargetError) as caught:
        load(target)
    return caught.value


def test_what_cannot_be_made_up_is_configuration_to_edit(write: Callable[[str], str]) -> None:
    error = stopped(write(UNKNOWN))
    assert "`VAE(n_in, backbone, args)` needs `backbone`" in error.message
    text = error.next_step
    table = text[text.index("[[tool") : text.index("or at the end")]
    (entry,) = tomllib.loads(table)["tool"]["vaedoctor"]["targets"]
    assert list(entry) == ["model", "args"]
    assert entry["model"].endswith("mymodel.py:VAE")
    assert entry["args"]["backbone"] == "VALUE"
    assert entry["args"]["args"] == "SimpleNamespace(z=16)"


def test_the_printed_factory_runs_once_the_gap_is_filled(write: Callable[[str], str]) -> None:
    target = write(UNKNOWN)
    text = stopped(target).next_step
    code, _, commands = text[text.index("# <-- what") :].partition("vaedoctor check")
    command = "vaedoctor check" + commands.splitlines()[0]
    filled = code.replace("=...,", "=type('B', (), {'width_of': lambda self, x: 9})(),")
    path = Path(target.removesuffix(":VAE"))
    path.write_text(path.read_text() + "\n\n" + filled)
    assert command == f"vaedoctor check {path}:make_vae"
    assert load(f"{path}:make_vae").batch.ran


def test_a_dict_is_typed_for_what_reads_attributes(write: Callable[[str], str]) -> None:
    target = write(STYLES["a namespace"])
    subject: Any = load(target, args={"args": "{'input_size': 9, 'hidden': 5, 'z_dim': 2}"})
    assert subject.model.args.hidden == 5
    assert subject.batch.args[0].shape == (8, 9)


def test_a_constructor_without_super_is_told(write: Callable[[str], str]) -> None:
    error = stopped(write("def __init__(self, n): self.__dict__['n'] = n"))
    assert "does not call `super().__init__()`" in error.message


def test_a_configuration_class_of_a_library_is_filled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "site-packages" / "somelib"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("")
    (folder / "models.py").write_text(
        HEAD + "@dataclass\nclass Settings:\n    x_dim: Optional[int] = None\n    z_dim: int = 4\n"
        "class VAE(Base):\n    def __init__(self, settings: Settings):\n"
        "        super().__init__()\n        self.fill(settings.x_dim, 12, settings.z_dim)\n"
    )
    monkeypatch.syspath_prepend(str(folder.parent))
    try:
        subject = load("somelib.models:VAE")
        assert subject.batch.ran
        assert "settings=Settings(x_dim=" in pasted(subject).popitem()[0] + "=" + str(subject.notes)
    finally:
        for name in [n for n in sys.modules if n.startswith("somelib")]:
            del sys.modules[name]


def test_the_factory_for_a_library_imports_what_stands_beside_the_class() -> None:
    class Beside:
        pass

    class Model:
        pass

    Beside.__module__ = Model.__module__ = "somelib.models"
    Beside.__qualname__ = "Beside"
    made = {"part": Call(Beside, {})}
    assert "\nfrom somelib.models import Beside" in as_a_file(Model, "somelib.models:Model", made)
    assert "import Beside" not in as_a_file(Model, "models.py:Model", made)


def test_uses_are_read_through_aliases_and_calls() -> None:
    def inner(n: Any) -> Any:
        return n.size // 2

    def outer(cfg: Any, kind: Any) -> Any:
        model = cfg["model"]
        for a, b in model["pairs"]:
            assert a + b
        if kind == "left":
            return inner(model["part"])
        return None

    uses = uses_of(outer, {"inner": inner})
    model = uses["cfg"].keys["model"]
    assert model.keys["pairs"].items is not None
    assert model.keys["pairs"].items.count == 2
    assert model.keys["part"].attributes["size"].number
    assert uses["kind"].equals == ["left"]


LEAVES = (
    st.integers(-9, 999)
    | st.booleans()
    | st.none()
    | st.floats(0, 9, allow_subnormal=False)
    | st.text("abz_ -'\"=$`\\", max_size=6)
)
NAMES = st.text("abcxyz", min_size=1, max_size=5).filter(lambda n: n not in {"as", "by"})
VALUES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(NAMES, inner, max_size=3)
        | st.dictionaries(NAMES, inner, min_size=1, max_size=3).map(namespace_of)
    ),
    max_leaves=6,
)


@given(st.dictionaries(NAMES, VALUES, min_size=1, max_size=3))
def test_any_made_up_value_survives_the_shell_and_the_command_line(values: dict[str, Any]) -> None:
    def anything(**kwargs: Any) -> None: ...

    words = shlex.split(arguments(values))
    typed = dict(w.split("=", 1) for w in words if w != "--arg")
    found = given_arguments(typed, anything, {}, None, "")["kwargs"]
    assert found == {k: realised(v) for k, v in values.items()}


def test_a_part_is_made_anew_for_every_model() -> None:
    call = Call(dict, {"a": [1]})
    assert realised(call) == {"a": [1]}
    assert realised(call) is not realised(call)


class Annotated(nn.Module):
    """What is said to be an int has two sides, or is a rate; a float is no part of the encoder."""

    def __init__(
        self, input_shape: int, z_dim: int, encoder_dropout: float, p_dropout: int, up_strides: list
    ) -> None:
        super().__init__()
        self.sides: Any = input_shape
        self.axes = len(self.sides)
        self.drop = nn.Dropout(encoder_dropout + p_dropout)
        high, wide = self.sides
        assert max(up_strides) < min(high, wide)
        self.up, self.down = nn.Linear(high * wide, z_dim), nn.Linear(z_dim, high * wide)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.down(self.up(self.drop(x.flatten(1))))
        return y.view(x.shape)


def test_annotations_that_are_not_true_give_way_to_what_the_constructor_does() -> None:
    subject = from_instance(Annotated)
    (note,) = [n for n in subject.notes if n.startswith("made up")]
    assert subject.batch.ran
    assert "'input_shape=[32,32]'" in note
    assert "encoder_dropout=0.1 --arg p_dropout=0 " in note
    typed = given_arguments({"input_shape": "[28,14]"}, Annotated, {}, None, "")
    assert typed == {"input_shape": [28, 14]}


class Halves(nn.Module):
    def __init__(self, encoder_filters: int, decoder_filters: int, depth_count: int) -> None:
        super().__init__()
        self.depth = depth_count
        self.up = nn.Conv2d(1, encoder_filters, 3, padding=1)
        self.down = nn.Conv2d(decoder_filters, 1, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.down(self.up(x))
        return y


def test_two_sizes_that_meet_are_made_equal_at_once() -> None:
    tried = []
    start = Outcome({"a": 23, "b": 61, "c": 5}, RuntimeError(MET.format(61, 23)), 0)

    def again(values: dict[str, Any]) -> Outcome:
        tried.append(values)
        return Outcome(values, None, 0)

    solved = solve(start, again)
    assert solved.ran is not None
    assert tried == [{"a": 23, "b": 23, "c": 5}]
    assert from_instance(Halves).batch.ran


MET = "expected input[8, 23, 8, 8] to have {} channels, but got {} channels instead"
