"""The second step: counted or recorded, it tells the same."""

from __future__ import annotations

import pytest
import torch
from steps import subject
from torch import Tensor, nn

from vaedoctor.examine.runs.again import Again, run_again
from vaedoctor.examine.runs.inventory import inventory
from vaedoctor.examine.runs.step import run_recorded
from vaedoctor.subject.subject import Subject


class Noisy(nn.Module):
    """Draws afresh, keeps what it drew first, or draws ever more, as `style` says."""

    def __init__(self, style: str) -> None:
        super().__init__()
        self.style, self.layer, self.kept = style, nn.Linear(4, 4), []

    def forward(self, x: Tensor) -> Tensor:
        h = self.layer(x)
        if self.style == "kept" and not self.kept:
            self.kept.append(torch.randn_like(h))
        if self.style == "in place":
            eps = torch.randn_like(h).mul_(2)
        else:
            eps = self.kept[0] if self.kept else torch.randn_like(h)
        if self.style == "more":
            self.kept.append(eps + torch.randn_like(h))
        return h + eps


def patient(style: str) -> Subject:
    torch.manual_seed(0)
    model = Noisy(style)
    return subject(model, torch.randn(3, 4), loss=lambda out, x: (out - x).square().sum())


@pytest.mark.parametrize("style", ["afresh", "in place", "kept", "more"])
def test_a_second_step_tells_the_same_counted_or_recorded(style: str) -> None:
    mine, other = patient(style), patient(style)
    first = run_recorded(mine, seed=0)
    found = run_again(mine, first)
    reference = run_recorded(other, seed=0)
    second = run_recorded(other, seed=None)
    expected = Again.of(second)
    same_way = len(second.ops) == len(reference.ops)
    if same_way:
        assert found.noise.keys() == expected.noise.keys()
        for index, (name, drawn) in found.noise.items():
            assert name == expected.noise[index][0]
            assert torch.equal(drawn, expected.noise[index][1])
    assert id(mine.model.layer) in found.modules
    met = [v for v in first.values if id(v.tensor) in found.tensors]
    again = [v for v in reference.values if id(v.tensor) in expected.tensors]
    assert {v.index for v in again} <= {v.index for v in met}
    assert (style == "kept") == any(v.op is not None and v.op.noise is not None for v in met)


def test_what_hangs_on_the_model_is_walked_again_only_when_it_changed() -> None:
    one = patient("afresh")
    known = inventory(one)
    assert inventory(one) is known
    one.model.kept.append(torch.zeros(2))
    later = inventory(one)
    assert later is not known
    assert later.tensors[id(one.model.kept[0])] == ("attribute", "")
    one.model.kept.clear()
    one.model.eval()
    one.model.train()
    assert {*inventory(one).tensors.values()} == {
        ("parameter", "layer.weight"),
        ("parameter", "layer.bias"),
    }
