"""A class alone, as it lies in somebody's file: nothing is given, and it is examined all the same.

Each text is a small reproduction of one thing that kept a class from being examined.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from alone import ALONE
from torch import nn

from vaedoctor.checkup import examine_subject
from vaedoctor.subject.target import TargetError, load
from vaedoctor.subject.trials.switches import set_mode

HEAD = """
import abc, dataclasses, enum, torch
from typing import Dict, Optional, Sequence
from torch import nn
from torch.nn import functional as F

def drawn(h):
    mu, logvar = h.chunk(2, 1)
    return mu + torch.randn_like(mu) * (logvar / 2).exp(), mu, logvar

"""


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], str]:
    def written(body: str) -> str:
        path = tmp_path / "mymodel.py"
        path.write_text(HEAD + textwrap.dedent(body))
        return f"{path}:VAE"

    return written


@pytest.mark.parametrize("what", ALONE)
def test_a_class_alone_is_examined(write: Callable[[str], str], what: str) -> None:
    subject = load(write(ALONE[what]))
    assert subject.batch.ran
    assert not [f for f in examine_subject(subject).findings if str(f.severity) == "error"]


def test_a_model_that_takes_one_row_only_gets_one(write: Callable[[str], str]) -> None:
    body = """
        class VAE(nn.Module):
            def __init__(self):
                super().__init__()
                self.up, self.down = nn.Linear(20, 12), nn.Linear(6, 20)
            def forward(self, x):
                q = x.view(len(x), 1, 5, 4)
                mask = torch.zeros(len(x), 5, 5, device=x.device)
                h = F.scaled_dot_product_attention(q, q, q, mask)
                z, mu, logvar = drawn(self.up(h.flatten(1)))
                return self.down(z), mu, logvar
    """
    subject = load(write(body))
    assert subject.batch.ran
    assert [tuple(a.shape) for a in subject.batch.args] == [(1, 20)]
    errors = [f for f in examine_subject(subject).findings if str(f.severity) == "error"]
    assert [f.code for f in errors] == ["VAE505"]


PARTS = {
    "a pair": """
                mu, std = self.encoder(x)
                mean, scale = self.decoder(mu + torch.randn_like(mu) * std.sqrt())
                return mean, scale, mu, std
    """,
    "a dict that holds a pair": """
                found = self.encoder(x)
                mu, logvar = found["stats"]
                z = mu + torch.randn_like(mu) * (logvar / 2).exp()
                return self.decoder(z), mu, logvar, found["more"].mean()
    """,
    "an object": """
                found = self.encoder(x)
                std = (found.log_var / 2).exp()
                return self.decoder(found.mean + torch.randn_like(std) * std), found.mean, std
    """,
}


@pytest.mark.parametrize("what", PARTS)
def test_a_part_that_nobody_gave_returns_what_is_asked_of_it(
    write: Callable[[str], str], what: str
) -> None:
    body = """
        class VAE(nn.Module):
            def __init__(self, encoder, decoder):
                super().__init__()
                self.encoder, self.decoder = encoder, decoder
            def forward(self, x):
    """
    subject = load(write(body.rstrip() + PARTS[what]))
    assert subject.batch.ran
    assert any("`Encoder` returns `" in n for n in subject.notes)
    findings = examine_subject(subject).findings
    assert [f.code for f in findings if str(f.severity) in ("error", "warning")] == []


def test_a_part_inherits_from_the_class_that_the_constructor_asks_for(
    write: Callable[[str], str],
) -> None:
    body = """
        class Reading(nn.Module):
            def __init__(self, name):
                super().__init__()
        class VAE(nn.Module):
            def __init__(self, encoder, decoder):
                super().__init__()
                if not isinstance(encoder, Reading):
                    raise ValueError("the encoder must inherit from Reading")
                self.encoder, self.decoder = encoder, decoder
            def forward(self, x):
                mu, logvar = self.encoder(x)
                return self.decoder(mu + torch.randn_like(mu) * (logvar / 2).exp()), mu, logvar
    """
    subject: Any = load(write(body))
    assert subject.batch.ran
    assert "Reading" in [k.__name__ for k in type(subject.model.encoder).__mro__]


def test_a_made_up_argument_that_is_refused_late_is_no_finding(
    write: Callable[[str], str],
) -> None:
    body = """
        class VAE(nn.Module):
            def __init__(self, width, kind):
                super().__init__()
                self.kind = kind
                self.up, self.down = nn.Linear(width, 12), nn.Linear(6, width)
            def forward(self, x):
                if self.kind.__class__.__name__ != "Kind":
                    raise ValueError("no such kind")
                z, mu, logvar = drawn(self.up(x))
                return self.down(z), mu, logvar
    """
    with pytest.raises(TargetError, match=r"does not run with made-up arguments.*no such kind"):
        load(write(body))


def test_an_optional_argument_that_forward_asks_for_is_a_gap(write: Callable[[str], str]) -> None:
    body = """
        class VAE(nn.Module):
            def __init__(self, width, reader: Optional[str] = None):
                super().__init__()
                self.width, self.parts = width, {"reader": reader}
            def forward(self, x):
                if self.parts["reader"] is None:
                    raise RuntimeError("there is no reader: give one by `reader=...`")
                return x
    """
    with pytest.raises(TargetError, match="does not run with made-up arguments") as caught:
        load(write(body))
    assert "        reader=...,  # <-- str\n" in caught.value.next_step


def test_a_dict_that_cannot_be_made_up_is_no_finding(write: Callable[[str], str]) -> None:
    body = """
        class VAE(nn.Module):
            def __init__(self, width):
                super().__init__()
                self.up, self.down = nn.Linear(width, 12), nn.Linear(6, width)
            def forward(self, tensors):
                if "table" not in tensors.keys():
                    raise LookupError("no table")
                z, mu, logvar = drawn(self.up(tensors["table"]))
                return self.down(z), mu, logvar
    """
    with pytest.raises(TargetError, match="cannot be guessed"):
        load(write(body))


def test_what_a_part_is_asked_for_in_vain_is_told_as_a_gap(write: Callable[[str], str]) -> None:
    body = """
        class VAE(nn.Module):
            def __init__(self, encoder, decoder):
                super().__init__()
                self.encoder, self.decoder = encoder, decoder
            def forward(self, x):
                z = self.encoder(x).rsample()
                return self.decoder(z)
    """
    with pytest.raises(TargetError, match="does not run with made-up arguments") as caught:
        load(write(body))
    assert "        encoder=...,  # <-- called with 1 argument\n" in caught.value.next_step


def test_nothing_stands_in_for_a_part_of_a_part(write: Callable[[str], str]) -> None:
    """How many axes its result should have is known to nobody: `Independent(..., 2)` tells late."""
    body = """
        class Decoder(nn.Module):
            def __init__(self, net):
                super().__init__()
                self.net = net
            def forward(self, z):
                normal = torch.distributions.Normal(self.net(z), 1)
                return torch.distributions.Independent(normal, 2)
        class VAE(nn.Module):
            def __init__(self, decoder):
                super().__init__()
                self.up, self.decoder = nn.Linear(20, 12), decoder
            def forward(self, x):
                z, mu, logvar = drawn(self.up(x))
                return self.decoder(z), mu, logvar
    """
    with pytest.raises(TargetError, match="needs `decoder`"):
        load(write(body))


def test_parts_that_only_we_put_together_are_no_finding(write: Callable[[str], str]) -> None:
    body = """
        class VAE(nn.Module):
            def __init__(self):
                super().__init__()
                self.encoder, self.decoder = nn.Linear(20, 12), nn.Linear(6, 20)
            def halves(self, x):
                return self.encoder(x).chunk(2, 1)
    """
    with pytest.raises(TargetError, match=r"has no `forward`, and its parts do not run"):
        load(write(body))


class Frozen(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(3)

    def train(self, mode: bool = True) -> Any:
        super().train(mode)
        self.norm.eval()
        return self


class Fitted(Frozen):
    def train(self, table: Any) -> Any:  # type: ignore[override]
        raise AssertionError(table)


def test_the_mode_is_set_by_the_models_own_train_where_that_is_what_it_does() -> None:
    for model, frozen in ((Frozen(), True), (nn.Sequential(Fitted()), False)):
        set_mode(model, True)
        assert model.training
        norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm1d)]
        assert [n.training for n in norms] == [not frozen]
        set_mode(model, False)
        assert not any(m.training for m in model.modules())
    assert torch.is_grad_enabled()
