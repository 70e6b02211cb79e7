"""The generator's own tests: what it calls healthy is healthy, what it calls broken is broken."""

from __future__ import annotations

import ast
import warnings
from pathlib import Path

import pytest
import torch
from architecture_bugs import BUGS
from architectures import (
    Case,
    broken_cases,
    build,
    evaluate,
    healthy_cases,
    load,
    load_module,
    objective,
)
from hypothesis import given, settings
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence

thirty = settings(max_examples=30, deadline=None, derandomize=True)
CRASHES = {
    "wrong layer size",
    "wrong size in forward",
    "spread of another width",
    "chunked along the batch",
}
# the bug, and what a plain backward pass must show: which parameters get no gradient
CUTS = {bug for bug, what in BUGS.items() if what.code in ("VAE302", "VAE601")}


def loss_of(case: Case, model: nn.Module, x: Tensor) -> Tensor:
    """The user's loss, or an ELBO of ours where the file has none."""
    user = objective(case)
    return user(model, x) if user else elbo(case, model, x)


def elbo(case: Case, model: nn.Module, x: Tensor) -> Tensor:
    recon, mu, std = evaluate(case.parts, model, x)
    kl = kl_divergence(Normal(mu, std), Normal(0.0, 1.0)).sum()
    return (recon - x).pow(2).sum() + kl


def reconstruction_gradients(case: Case, model: nn.Module, x: Tensor) -> list[Tensor | None]:
    model.zero_grad()
    recon, _, _ = evaluate(case.parts, model, x)
    if recon.requires_grad:
        (recon - x).pow(2).sum().backward()
    return [p.grad for p in model.parameters()]


class TestHealthy:
    @given(case=healthy_cases())
    @thirty
    def test_runs_and_every_parameter_gets_a_finite_gradient(
        self, case: Case, tmp_path: Path
    ) -> None:
        model, x = build(case, tmp_path)
        recon, mu, std = evaluate(case.parts, model, x)
        assert recon.shape == x.shape == case.batch_shape
        assert mu.shape == std.shape
        assert bool((std > 0).all())
        loss = loss_of(case, model, x)
        assert loss.ndim == 0
        loss.backward()
        for name, p in model.named_parameters():
            assert p.grad is not None, name
            assert p.grad.isfinite().all(), name

    @given(case=healthy_cases())
    @thirty
    def test_the_kl_in_the_file_is_the_kl_of_what_is_sampled(
        self, case: Case, tmp_path: Path
    ) -> None:
        user = objective(case)
        if user is None:
            return
        model, x = build(case, tmp_path)
        model.eval()
        ours, theirs = [], []
        # fit + kl up to one factor and one constant: compare how the two change together
        for seed in range(3):
            for p in model.parameters():
                p.data.mul_(1.1)
            torch.manual_seed(seed)
            recon, mu, std = evaluate(case.parts, model, x)
            torch.manual_seed(seed)
            total = user(model, x)
            total = total * len(x) if "x.size(0)\n" in case.source else total
            kl = kl_divergence(Normal(mu, std), Normal(0.0, 1.0)).sum()
            if "binary_cross_entropy" in case.source:
                fit = nn.functional.binary_cross_entropy(recon, x, reduction="sum")
            else:
                fit = (recon - x).pow(2).sum() * (0.5 if "fit = 0.5" in case.source else 1)
            ours.append((fit + kl).item())
            theirs.append(total.item())
        assert theirs == pytest.approx(ours, rel=1e-3)

    @given(case=healthy_cases())
    @thirty
    def test_samples_in_training(self, case: Case, tmp_path: Path) -> None:
        model, x = build(case, tmp_path)
        a, b = (evaluate(case.parts, model, x)[0] for _ in range(2))
        assert not torch.equal(a, b)

    @given(case=healthy_cases())
    @thirty
    def test_nothing_is_marked(self, case: Case, tmp_path: Path) -> None:
        assert (case.code, case.line, case.lines) == (None, None, frozenset())
        ast.parse(case.source)
        assert "§" not in case.source
        assert issubclass(load(case, tmp_path), nn.Module)


@pytest.mark.parametrize("bug", sorted(BUGS))
class TestBroken:
    def test_compiles_with_the_guilty_line_marked(self, bug: str) -> None:
        @settings(max_examples=30, deadline=None, derandomize=True)
        @given(case=broken_cases(bug))
        def check(case: Case) -> None:
            compile(case.source, "generated.py", "exec")
            assert "§" not in case.source
            assert case.code == BUGS[bug].code
            assert case.line in case.lines
            lines = case.source.splitlines()
            assert all(lines[line - 1].strip() for line in case.lines)

        check()

    def test_is_broken_as_its_name_says(self, bug: str, tmp_path: Path) -> None:
        @settings(max_examples=5, deadline=None, derandomize=True)
        @given(case=broken_cases(bug))
        def check(case: Case) -> None:
            model, x = build(case, tmp_path)
            if bug in CRASHES:
                with pytest.raises((RuntimeError, ValueError)):
                    evaluate(case.parts, model, x)
                return
            loss = loss_of(case, model, x)
            if bug == "edited in place":
                with pytest.raises(RuntimeError, match="inplace"):
                    loss.backward()
                return
            loss.backward()
            grads = [p.grad for p in model.parameters()]
            finite = all(g is None or bool(g.isfinite().all()) for g in grads)
            assert finite == (bug != "gradient not finite")
            if bug in CUTS:
                got = reconstruction_gradients(case, model, x)
                assert any(g is None or not g.any() for g in got)

        check()


@pytest.mark.parametrize(
    ("bug", "words"),
    [
        ("layer in list", "= [nn."),
        ("layer in dict", '= {"layer": nn.'),
        ("layer in tuple", ",)"),
        ("plain tensor as parameter", "requires_grad=True"),
        ("layer made in forward", "nn."),
        ("Normal.sample", ".sample()"),
        ("torch.normal", "torch.normal("),
        ("z detached", ".detach()"),
        ("z.data", ".data"),
        ("noise from NumPy", "np.random"),
        ("manual_seed before the draw", "manual_seed"),
        ("gradient not finite", "sqrt"),
        ("edited in place", "+="),
        ("skip from x", "torch.cat"),
        ("detached after the layer", ".detach()"),
        ("noise shared over the batch", "torch.randn(1, "),
    ],
)
def test_the_guilty_line_holds_the_bug(bug: str, words: str) -> None:
    @settings(max_examples=30, deadline=None, derandomize=True)
    @given(case=broken_cases(bug))
    def check(case: Case) -> None:
        assert case.line is not None
        assert words in case.source.splitlines()[case.line - 1]

    check()


@pytest.mark.parametrize("bug", sorted(CRASHES))
def test_a_crash_comes_from_a_marked_line(bug: str, tmp_path: Path) -> None:
    @settings(max_examples=30, deadline=None, derandomize=True)
    @given(case=broken_cases(bug))
    def check(case: Case) -> None:
        model, x = build(case, tmp_path)
        with pytest.raises((RuntimeError, ValueError)) as caught:
            evaluate(case.parts, model, x)
        inside = [e.lineno + 1 for e in caught.traceback if Path(e.path).parent == tmp_path]
        assert inside[-1] in case.lines
        if case.code == "VAE501":
            assert inside[-1] == case.line

    check()


def test_modules_keep_apart(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        case = healthy_cases().example()
    assert load_module(case, tmp_path).__name__ != load_module(case, tmp_path).__name__
