"""How a library itself makes a class, what its docstrings say, what it would download."""

from __future__ import annotations

import importlib
import importlib.metadata
import inspect
import typing
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from vaedoctor.subject.composing import EncodeDecode
from vaedoctor.subject.construct import package_calls as calls
from vaedoctor.subject.construct.build import builds
from vaedoctor.subject.construct.making import expression
from vaedoctor.subject.construct.proposing import Proposals
from vaedoctor.subject.construct.reading import uses_of
from vaedoctor.subject.construct.said import said_type
from vaedoctor.subject.loading.pretrained import Pretrained
from vaedoctor.subject.target import TargetError, load

NET = '''
import torch
from torch import nn

class Base(nn.Module):
    def __init__(self, layout):
        super().__init__()
        width, text = layout
        wide, narrow = map(int, text.split("/"))
        self.enc, self.heads = nn.Linear(width, wide), nn.Linear(wide, 2 * narrow)
        self.dec = nn.Linear(narrow, width)

    def forward(self, x):
        mu, logvar = self.heads(torch.relu(self.enc(x))).chunk(2, 1)
        return self.dec(mu + torch.randn_like(mu) * (0.5 * logvar).exp()), mu, logvar

class VAE(Base):
    """{doc}"""

class Other(Base):
    pass
'''
RUN = """
def run(data, widths="12/4"):
    from .net import {made}
    x_dim = data.shape[1]
    {made}([x_dim, widths]).fit(data)
"""
EXAMPLE = """Written out.

    Example::

        vae = VAE((30, "12/4"))
    """


@pytest.mark.parametrize(
    ("made", "doc", "note"),
    [
        ("VAE", "", "after line 5 of {name}/run.py"),
        ("Other", "", "after line 5 of {name}/run.py"),
        ("", EXAMPLE, "after its docstring: `--arg 'layout=(30,"),
        ("", "", ""),
    ],
)
def test_a_class_is_made_as_its_library_makes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: str, doc: str, note: str
) -> None:
    """What the data alone tells is made up; a call of a class with the same base counts too."""
    name = f"library_of_{made or ('documented' if doc else 'nothing')}".lower()
    folder = tmp_path / "site-packages" / name
    folder.mkdir(parents=True)
    (folder / "__init__.py").touch()
    (folder / "net.py").write_text(NET.replace("{doc}", doc))
    (folder / "run.py").write_text(RUN.format(made=made) if made else "")
    monkeypatch.syspath_prepend(str(folder.parent))
    if not note:
        with pytest.raises(TargetError, match="could not be constructed"):
            load(f"{name}.net:VAE")
        return
    subject = load(f"{name}.net:VAE")
    assert subject.batch.ran
    assert any(note.format(name=name) in n for n in subject.notes), subject.notes


PARTS = """
import torch
from torch import nn

class VAE(nn.Module):
    def __init__(self, encoder, decoder):
        super().__init__()
        self.encoder, self.decoder = encoder, decoder

    def forward(self, x):
        mu, logvar = torch.tensor_split(self.encoder(x), 2, 1)
        return self.decoder(mu + torch.randn_like(mu) * (logvar / 2).exp()), mu, logvar

class Trainer:
    def __init__(self):
        self.encoder = nn.Sequential(nn.Flatten(), nn.Linear(30, 8))

    def made(self):
        return VAE(self.encoder, decoder=nn.Linear(4, 30))
"""


def test_parts_in_a_call_are_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a class keeps under a name is followed; layers in a row are given by position."""
    folder = tmp_path / "site-packages" / "library_of_parts"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text(PARTS)
    monkeypatch.syspath_prepend(str(folder.parent))
    kind = importlib.import_module("library_of_parts").VAE
    (told,) = calls.package_calls(kind, lambda name: name)
    assert told.at == "line 19 of library_of_parts/__init__.py"
    assert expression(told.values["encoder"]) == (
        "nn.Sequential(nn.Flatten(),nn.Linear(in_features=30,out_features=8))"
    )
    assert len(told.values["encoder"].made()) == 2
    assert list(Proposals(kind, {}, {}).as_called()) == [told.values]


class Keyed(nn.Module):
    def __init__(self, config):  # type: ignore[no-untyped-def]
        super().__init__()
        self.layer = nn.Linear(config["wide"], config["narrow"])
        self.kept = [n for n in (8, 4) if n in config["sizes"]]
        self.other = config["law"].log_prob(self.kept)


def test_a_place_to_be_filled_in_is_one_key() -> None:
    with pytest.raises(TargetError) as told:
        next(builds(Keyed))
    step = told.value.next_step
    assert "make_vae   (the factory below)" in step
    assert "        config={  # <-- " in step
    assert "            'wide': " in step
    assert "            'law': ...,  # <-- law: its log_prob is read" in step


def test_code_in_a_readme_stands_between_fences() -> None:
    text = "```bash\npip install it\n```\n\nThen:\n\n```python\nvae = VAE(3)\n```\n"
    assert "vae = VAE(3)\n" in list(calls._blocks(text))
    assert not any("pip" in b for b in calls._fenced(text))
    assert list(calls._blocks(">>> vae = VAE(3)\n>>> vae(x)\n")) == ["vae = VAE(3)\nvae(x)\n"]


def test_a_readme_is_that_of_the_distribution(monkeypatch: pytest.MonkeyPatch) -> None:
    found = next(iter(importlib.metadata.packages_distributions()["pytest"]))
    assert calls._readme("pytest") == importlib.metadata.metadata(found).json["description"]
    assert calls._readme("no_such_package") == ""


class Documented(nn.Module):
    """A model.

    Args:
        widths (list): the widths of the layers.
        mode: choose from ['h', 'v', 'd'].
        rate (float, optional): how fast.
        plain: nothing.
    """

    def __init__(self, widths=None, mode=None, rate=None, plain=None):  # type: ignore[no-untyped-def]
        super().__init__()


def test_a_docstring_says_types_and_words() -> None:
    assert said_type(Documented, "widths") == list[int]
    assert said_type(Documented, "mode") == typing.Literal["h", "v", "d"]
    assert said_type(Documented, "rate") is float
    assert said_type(Documented, "plain") is inspect.Parameter.empty


def test_weights_are_not_downloaded(tmp_path: Path) -> None:
    """They stay as they were made; what is no download raises as ever."""
    pretrained, layer = Pretrained(), nn.Linear(2, 2)
    before = layer.weight.clone()
    with pretrained.in_force():
        with pytest.raises(RuntimeError, match="Missing key"):
            layer.load_state_dict({})
        url = "https://nowhere.invalid/vgg.pth"
        layer.load_state_dict(torch.hub.load_state_dict_from_url(url, str(tmp_path)))
    assert torch.equal(layer.weight, before)
    assert pretrained.note() == "not downloaded, so random: the weights `vgg.pth`"
    with pytest.raises(RuntimeError, match="Missing key"):
        layer.load_state_dict({})


class Handing(nn.Module):
    """Its `encode` hands on whatever it is given, its decoder takes the condition too."""

    def __init__(self, given: str = "a") -> None:
        nn.Module.__init__(self)
        self.encoder, self.decoder = Joined(11, 4), Joined(7, 8)

    def encode(self, *args: Tensor, **kwargs: Tensor) -> Tensor:
        made: Tensor = self.encoder(*args, **kwargs)
        return made


class Joined(nn.Module):
    def __init__(self, wide: int, narrow: int) -> None:
        super().__init__()
        self.layer = nn.Linear(wide, narrow)

    def forward(self, x: Tensor, c: Tensor | None = None) -> Tensor:
        made: Tensor = self.layer(x if c is None else torch.cat([x, c], 1))
        return made


def test_what_is_handed_on_is_what_the_part_takes() -> None:
    """And what the encoder was given under its name goes to the decoder too."""
    model, parts = Handing(), EncodeDecode("encode", "", "decoder")
    forward = parts.forward(model, None)
    assert list(inspect.signature(forward).parameters) == ["x", "c"]
    assert forward(torch.rand(5, 8), torch.rand(5, 3))[0].shape == (5, 8)


SQUARE = """
import torch
from torch import nn

class VAE(nn.Module):
    def __init__(self, size=24):
        super().__init__()
        self.size = size
        self.enc = nn.Sequential(nn.Conv2d(3, 4, 4, 2, 1), nn.Flatten(), nn.LazyLinear(8))
        self.dec = nn.Linear(4, 3 * size * size)

    def forward(self, x):
        {check}
        mu, logvar = self.enc(x).chunk(2, 1)
        z = mu + torch.randn_like(mu) * (logvar / 2).exp()
        return self.dec(z).view(-1, 3, self.size, self.size), mu, logvar
"""


@pytest.mark.parametrize(
    "check",
    [
        "assert x.ndim == 4 and x.shape[-2:] == (self.size,) * 2 and x.size(1) == 3",
        "_, channels, *sides = x.shape; assert tuple(sides) == (self.size, self.size)",
        "assert x.dim() == 4; assert (3, self.size, self.size) == x.shape[1:]",
    ],
)
def test_the_input_is_as_forward_checks(tmp_path: Path, check: str) -> None:
    path = tmp_path / "square.py"
    path.write_text(SQUARE.format(check=check))
    batch = load(f"{path}:VAE").batch
    assert batch.ran
    assert tuple(batch.args[0].shape) == (8, 3, 24, 24)


class Optimizing:
    def __init__(self, kind: str) -> None:
        if kind not in ("adam", "sgd"):
            raise ValueError(kind)


class Trained(nn.Module, Optimizing):
    def __init__(self, kind: str) -> None:
        nn.Module.__init__(self)
        Optimizing.__init__(self, kind)


def test_a_base_that_is_called_by_its_name_is_read() -> None:
    assert uses_of(Trained, globals())["kind"].equals == ["adam", "sgd"]


WARM = """
import torch
from torch import nn

class VAE(nn.Module):
    def __init__(self):
        super().__init__()
        self.enc, self.dec = nn.Linear(20, 8), nn.Linear(4, 20)

    def fit(self, loader):
        self.sampling = True

    def predict(self, loader):
        self.sampling = False

    def forward(self, x):
        mu, logvar = self.enc(x).chunk(2, 1)
        z = mu + torch.randn_like(mu) * (logvar / 2).exp() if self.sampling else mu
        return self.dec(z), mu, logvar
"""


def test_an_attribute_that_only_fit_sets_is_there(tmp_path: Path) -> None:
    path = tmp_path / "warm.py"
    path.write_text(WARM)
    subject = load(f"{path}:VAE")
    assert subject.batch.ran
    assert "`self.sampling = True`, as `fit` sets it" in subject.notes
    assert subject.rebuild is not None
    assert vars(subject.rebuild(1))["sampling"] is True


ONE_ROW = """
import torch
from torch import nn

class VAE(nn.Module):
    def __init__(self, n_items, width, latent_dim):
        super().__init__()
        self.width, self.table = width, nn.Embedding(n_items, width)
        self.place = nn.Parameter(torch.zeros(5, width))
        self.heads, self.dec = nn.Linear(width, 2 * latent_dim), nn.Linear(latent_dim, n_items)

    def forward(self, x):
        rows, steps = x.shape
        h = (self.table(x) + self.place).transpose(0, 1).view(rows * steps, self.width)
        mu, logvar = self.heads(h).chunk(2, 1)
        return self.dec(mu + torch.randn_like(mu) * (logvar / 2).exp()), mu, logvar
"""


def test_a_model_that_runs_row_by_row_is_examined_so(tmp_path: Path) -> None:
    path = tmp_path / "rows.py"
    path.write_text(ONE_ROW)
    batch = load(f"{path}:VAE").batch
    assert batch.ran
    assert batch.args[0].shape[0] == 1


class Judged(nn.Module):
    """A model."""

    def __init__(self, likelihood):  # type: ignore[no-untyped-def]
        super().__init__()
        self.likelihood = likelihood

    def loss(self, z: Tensor, x: Tensor) -> Tensor:
        made: Tensor = self.likelihood.log_prob(z, x)
        return made


def test_no_word_stands_for_what_has_methods() -> None:
    with pytest.raises(TargetError, match="needs `likelihood`, which cannot be made up"):
        next(builds(Judged))


TWO_VIEWS = '''
import torch
from torch import nn

class VAE(nn.Module):
    def __init__(self, first=7, second=7):
        super().__init__()
        self.enc = nn.Linear(first + second, 8)
        self.dec = nn.Linear(4, first + second)

    def encode(self, views):
        return self.enc(torch.cat((views[0], views[1]), dim=-1))

    def forward(self, x):
        """One pass.

        Args:
            x (list): the views.
        """
        mu, logvar = self.encode(x).chunk(2, -1)
        return self.dec(mu + torch.randn_like(mu) * (logvar / 2).exp()), mu, logvar
'''


def test_views_that_a_docstring_calls_a_list_are_no_rows(tmp_path: Path) -> None:
    path = tmp_path / "views.py"
    path.write_text(TWO_VIEWS)
    (views,) = load(f"{path}:VAE").batch.args
    assert [len(v) for v in views] == [8, 8]
    assert sum(v.shape[1] for v in views) == 14
