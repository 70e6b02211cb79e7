"""The fixtures are what they claim to be: the healthy ones train, the broken ones are marked."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
import specimens
import torch

RULES = specimens.rule_fixtures()
ALL = [*RULES, *specimens.healthy_fixtures()]
LOUD = {"VAE502", "VAE002", "VAE501"}  # the forward pass itself raises
ELSEWHERE = {"VAE201", "VAE203"}  # runs on machines with another device only


def _id(path: Path) -> str:
    return f"{path.parent.name}/{path.stem}"


@pytest.mark.parametrize("path", ALL, ids=_id)
def test_healthy_has_a_finite_loss_and_gradient(path: Path) -> None:
    module = specimens.load(path)
    torch.manual_seed(0)
    model = module.Healthy()
    assert model.training
    loss = specimens.loss(module, model)
    assert loss.shape == ()
    assert torch.isfinite(loss)
    loss.backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert gradients
    assert all(torch.isfinite(g).all() for g in gradients)


@pytest.mark.parametrize("path", ALL, ids=_id)
def test_healthy_trains_every_parameter_it_does_not_freeze(path: Path) -> None:
    module = specimens.load(path)
    torch.manual_seed(0)
    model = module.Healthy()
    idle = set(getattr(module, "IDLE", ()))
    for _ in range(3):  # a zero-initialised layer lets gradient through after its first step
        model.zero_grad()
        specimens.loss(module, model).backward()
        with torch.no_grad():
            for p in model.parameters():
                if p.grad is not None:
                    p -= 1e-4 * p.grad
    learning = {n for n, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    assert {n for n, p in model.named_parameters() if p.requires_grad} - learning == idle


@pytest.mark.parametrize("path", ALL, ids=_id)
def test_batch_is_small_seeded_and_in_the_unit_interval(path: Path) -> None:
    module = specimens.load(path)
    extreme = {code for _, code in specimens.markers(path)} & {"VAE205", "VAE802"}
    for first, again in zip(specimens.arguments(module), specimens.arguments(module), strict=True):
        assert torch.equal(first, again)
        assert first.numel() < 5000
        if first.is_floating_point() and not extreme:
            assert 0 <= first.min() <= first.max() <= 1


@pytest.mark.parametrize("path", RULES, ids=_id)
def test_broken_overrides_healthy_and_is_marked(path: Path) -> None:
    module = specimens.load(path)
    classes = specimens.broken(module)
    assert "Broken" in classes
    catalogue = {code for _, code in specimens.markers(path)}
    assert len(catalogue) == 1
    for name, cls in classes.items():
        assert cls.__bases__ == (module.Healthy,)
        assert 1 <= len([m for m in vars(cls) if callable(vars(cls)[m])]) <= 2
        assert {code for _, code in specimens.expected(path, module, name)} == catalogue


@pytest.mark.parametrize("path", RULES, ids=_id)
def test_broken_runs_unless_that_is_its_bug(path: Path) -> None:
    module = specimens.load(path)
    code = specimens.markers(path)[0][1]
    for name, cls in specimens.broken(module).items():
        torch.manual_seed(0)
        model = cls()
        if code in LOUD or name.startswith("BrokenLoud"):
            with pytest.raises((RuntimeError, AttributeError, ValueError)):
                specimens.loss(module, model)
            continue
        if code in ELSEWHERE:
            continue
        loss = specimens.loss(module, model)
        assert torch.isfinite(loss) or code == "VAE801"
        if code == "VAE606":
            with pytest.raises(RuntimeError, match="inplace"):
                loss.backward()
        elif code == "VAE714":
            with pytest.raises(RuntimeError, match="does not require grad"):
                loss.backward()
        else:
            loss.backward()


@pytest.mark.parametrize("path", ALL, ids=_id)
def test_every_marker_stands_on_a_line_of_code(path: Path) -> None:
    text = path.read_text()
    first_lines = {n.lineno for n in ast.walk(ast.parse(text)) if hasattr(n, "lineno")}
    assert {line for line, _ in specimens.markers(path)} <= first_lines
    assert len(re.findall(r"# expect", text)) == len(specimens.markers(path))
