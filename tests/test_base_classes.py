"""Base classes: as a target they name those that inherit from them; as a part these are made."""

from __future__ import annotations

import importlib
import sys
import textwrap
from pathlib import Path

import pytest
from torch import Tensor, nn

from vaedoctor.subject.construct.bases import fitting_first, left_open, makable
from vaedoctor.subject.target import TargetError, load

BASE = """
import abc, torch
from torch import nn

class VAE({base}):
    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(20, 12), nn.Linear(6, 20)
    {decorator}
    def forward(self, x):
        raise NotImplementedError

class Unfinished(VAE):
    pass

class Gaussian(VAE):
    def forward(self, x):
        mu, logvar = self.up(x).chunk(2, 1)
        return self.down(mu + torch.randn_like(mu) * (logvar / 2).exp()), mu, logvar
"""


@pytest.mark.parametrize(
    ("base", "decorator"), [("nn.Module", ""), ("nn.Module, abc.ABC", "@abc.abstractmethod")]
)
def test_a_base_class_names_the_classes_that_inherit_from_it(
    tmp_path: Path, base: str, decorator: str
) -> None:
    path = tmp_path / "mymodel.py"
    path.write_text(BASE.format(base=base, decorator=decorator))
    with pytest.raises(
        TargetError, match=r"leaves `forward` to the .* from it, `Gaussian`"
    ) as told:
        load(f"{path}:VAE")
    assert told.value.next_step == f"vaedoctor check {path}:Gaussian"
    assert load(f"{path}:Gaussian").batch.ran


def test_the_classes_below_a_librarys_base_may_not_have_been_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A user's own files are not imported to find them: they may train."""
    whole = """
    from .base import Encoder
    class Whole(Encoder):
        def encode(self, x):
            return x
    """
    base = """
    from torch import nn
    class Encoder(nn.Module):
        def forward(self, x):
            return self.encode(x)
        def encode(self, x):
            raise NotImplementedError
    """
    for place, found in ((tmp_path / "site-packages", "Whole"), (tmp_path / "mine", "Encoder")):
        package = place / f"encoders_of_{found}".lower()
        package.mkdir(parents=True)
        for name, text in (("__init__", ""), ("base", base), ("other", whole)):
            (package / f"{name}.py").write_text(textwrap.dedent(text))
        monkeypatch.syspath_prepend(str(place))
        kind = importlib.import_module(f"{package.name}.base").Encoder
        assert left_open(kind) == {"encode"}
        assert [k.__name__ for k in makable(kind)] == [found]
        for name in [n for n in sys.modules if n.partition(".")[0] == package.name]:
            monkeypatch.delitem(sys.modules, name)


class Plain(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x


class Conditional(nn.Module):
    def forward(self, x: Tensor, c: Tensor, scale: float = 1.0) -> Tensor:
        return x + scale * c


def test_the_part_that_takes_what_the_model_gives_comes_first() -> None:
    both = [Plain, Conditional]
    assert fitting_first(both, 2) == fitting_first(both, 3) == [Conditional, Plain]
    assert fitting_first(both, 1) == fitting_first(both, None) == both
