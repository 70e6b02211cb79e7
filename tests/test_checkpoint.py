"""A checkpoint is loaded into the built model, without executing what it holds."""

import pickle

import pytest
import torch
from torch import nn

from vaedoctor.subject.errors import TargetError
from vaedoctor.subject.loading.checkpoint import load_checkpoint
from vaedoctor.subject.target import load

MODEL = """
import torch
from torch import nn

class VAE(nn.Module):
    def __init__(self, d=3):
        super().__init__()
        self.mu, self.logvar, self.decoder = nn.Linear(8, d), nn.Linear(8, d), nn.Linear(d, 8)

    def forward(self, x):
        mu, logvar = self.mu(x), self.logvar(x)
        z = mu + torch.exp(0.5 * logvar) * torch.randn_like(mu)
        return self.decoder(z), mu, logvar
"""


@pytest.fixture
def saved(tmp_path):
    def saved(what):
        torch.save(what, tmp_path / "last.pt")
        return str(tmp_path / "last.pt")

    return saved


@pytest.mark.parametrize(
    "wrapped",
    [
        lambda s: s,
        lambda s: {"state_dict": s, "epoch": 3},
        lambda s: {"model_state_dict": s, "optimizer": {}},
        lambda s: {f"module.{k}": v for k, v in s.items()},
        lambda s: {f"module._orig_mod.{k}": v for k, v in s.items()},
        lambda s: {f"_orig_mod.module.{k}": v for k, v in s.items()},
    ],
)
def test_weights_arrive_however_they_were_saved(saved, wrapped):
    trained, fresh = nn.Linear(3, 2), nn.Linear(3, 2)
    load_checkpoint(fresh, saved(wrapped(trained.state_dict())))
    assert torch.equal(trained.weight, fresh.weight)
    assert torch.equal(trained.bias, fresh.bias)


def test_the_target_is_examined_with_its_weights(tmp_path, saved):
    (tmp_path / "m.py").write_text(MODEL)
    state = load(f"{tmp_path / 'm.py'}:VAE").model.state_dict()
    file = saved({k: torch.full_like(v, 0.5) for k, v in state.items()})
    subject = load(f"{tmp_path / 'm.py'}:VAE", checkpoint=file)
    assert all(bool((p == 0.5).all()) for p in subject.model.parameters())
    assert f"weights: {file}" in subject.notes
    with pytest.raises(TargetError) as caught:
        load(f"{tmp_path / 'm.py'}:VAE", args={"d": "4"}, checkpoint=file)
    assert "`mu.weight` is 3×8 in the file and 4×8 in the model" in caught.value.message


def test_what_does_not_fit_is_named(saved):
    with pytest.raises(TargetError) as caught:
        load_checkpoint(nn.Linear(3, 2), saved({"weight": torch.zeros(2, 3), "b": torch.ones(1)}))
    assert "it lacks `bias`; the model has no `b`" in caught.value.message


class _Evil:
    def __reduce__(self):
        return (print, ("executed",))


def test_nothing_in_the_file_is_executed(tmp_path, capsys):
    (tmp_path / "evil.pt").write_bytes(pickle.dumps(_Evil()))
    with pytest.raises(TargetError, match="cannot be read as plain weights"):
        load_checkpoint(nn.Linear(1, 1), str(tmp_path / "evil.pt"))
    assert capsys.readouterr().out == ""


def test_a_file_that_is_missing_or_something_else_is_told(tmp_path, saved):
    with pytest.raises(TargetError, match="does not exist"):
        load_checkpoint(nn.Linear(1, 1), str(tmp_path / "no.pt"))
    with pytest.raises(TargetError, match="holds a `Tensor`, not a state_dict"):
        load_checkpoint(nn.Linear(1, 1), saved(torch.zeros(3)))
