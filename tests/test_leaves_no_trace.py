"""A check-up leaves model, batch, generators and modes bit for bit as they were, come what may."""

from __future__ import annotations

import gc
import random
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from architectures import Case, broken_cases, build, healthy_cases, objective
from hypothesis import given, settings
from torch import Tensor, nn
from traces import differences, photograph

import vaedoctor
from vaedoctor.subject.trials.trace import leaves_no_trace

Loss = Callable[[nn.Module, Tensor], Tensor]


def examine(model: nn.Module, x: Tensor, loss: Loss | None = None) -> list[str]:
    """What a check-up changed. Only the model's own failures may surface, never silently ours."""
    before = photograph(model, x)
    vaedoctor.check(model, x, objective=loss)
    return differences(before, photograph(model, x))


def tensors_alive() -> list[Tensor]:
    """Every tensor that Python's collector knows of."""
    return [o for o in gc.get_objects() if issubclass(type(o), Tensor)]


def with_history(model: nn.Module, x: Tensor) -> None:
    """Gradients, mixed modes, a frozen parameter and a hook, as in the middle of a training run."""
    parameters = [p for p in model.parameters() if not nn.parameter.is_lazy(p)]
    for p in parameters[::2]:
        p.grad = torch.randn_like(p)
    for p in parameters[-1:]:
        p.requires_grad_(False)
    for module in list(model.modules())[1::2]:
        module.eval()
    model.register_forward_hook(lambda *_: None)


def check_case(case: Case, directory: Path) -> None:
    model, x = build(case, directory)
    with_history(model, x)
    torch.manual_seed(5)
    assert examine(model, x, objective(case)) == []


class TestGenerated:
    @given(case=healthy_cases())
    @settings(max_examples=10)
    def test_healthy(self, case: Case, tmp_path: Path) -> None:
        check_case(case, tmp_path)

    @given(case=broken_cases())
    @settings(max_examples=15)
    def test_broken(self, case: Case, tmp_path: Path) -> None:
        check_case(case, tmp_path)

    @pytest.mark.slow
    @given(case=healthy_cases() | broken_cases())
    @settings(max_examples=40)
    def test_any(self, case: Case, tmp_path: Path) -> None:
        check_case(case, tmp_path)


class Plain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(6, 5)
        self.fc_mu = nn.Linear(5, 3)
        self.fc_logvar = nn.Linear(5, 3)
        self.decoder = nn.Linear(3, 6)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = torch.tanh(self.encoder(x))
        return self.fc_mu(h), self.fc_logvar(h)

    def sample(self, mu: Tensor, logvar: Tensor) -> Tensor:
        return mu + torch.randn_like(mu) * torch.exp(0.5 * logvar)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mu, logvar = self.encode(x)
        return self.decoder(self.sample(mu, logvar)), mu, logvar


def elbo(model: nn.Module, x: Tensor) -> Tensor:
    recon, mu, logvar = model(x)
    kl = -0.5 * torch.sum(1 + logvar - mu.pow(2) - logvar.exp())
    return F.mse_loss(recon, x, reduction="sum") + kl


class KeepsGraphTensors(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.history: list[Tensor] = []
        self.seen = {"passes": 0}

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        recon, mu, logvar = super().forward(x)
        self.last_mu = mu
        self.kl = -0.5 * torch.sum(1 + logvar - mu.pow(2) - logvar.exp())
        self.history.append(recon)
        self.seen["passes"] += 1
        return recon, mu, logvar


class WeightNorm(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.utils.parametrizations.weight_norm(self.encoder)
        self.decoder = nn.utils.parametrizations.spectral_norm(self.decoder)


class OldWeightNorm(Plain):
    """The weight is a plain graph tensor kept on the layer, rewritten by a pre-hook."""

    def __init__(self) -> None:
        super().__init__()
        with pytest.warns(FutureWarning):
            self.encoder = nn.utils.weight_norm(self.encoder)


class BatchNorm(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Dropout(0.2))


class MovingAverage(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("average", torch.zeros(3))
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))
        self.shadow = torch.zeros(3)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mu, logvar = super().encode(x)
        self.average.mul_(0.9).add_(0.1 * mu.detach().mean(0))
        self.shadow = self.shadow + mu.detach().mean(0)
        self.steps += 1
        return mu, logvar


class ReplacedBuffer(MovingAverage):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        self.average = self.average.clone()
        return super().forward(x)


class Lazy(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.LazyLinear(5)
        self.decoder = nn.LazyLinear(6)


class LateLayers(Plain):
    """The decoder is registered by the first forward pass."""

    def __init__(self) -> None:
        super().__init__()
        del self.decoder
        self.late: nn.Module | None = None

    def decoder(self, z: Tensor) -> Tensor:
        if self.late is None:
            self.late = nn.Linear(z.size(1), 6)
        return self.late(z)


class Closure(Plain):
    def __init__(self) -> None:
        super().__init__()
        linear = nn.Linear(5, 5)
        self.mix = linear
        self.extra = lambda h: h + linear(h)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = self.extra(torch.tanh(self.encoder(x)))
        return self.fc_mu(h), self.fc_logvar(h)


class Switches(Plain):
    """Leaves modes and generators changed behind it."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        random.random()
        np.random.rand()
        torch.manual_seed(random.randrange(99))
        self.decoder.eval()
        self.fc_mu.bias.requires_grad_(False)
        return super().forward(x)


class HooksItself(Plain):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        self.decoder.register_forward_hook(lambda *_: None)
        self.fc_mu.weight.register_hook(lambda grad: grad)
        return super().forward(x)


class Trains(Plain):
    """Takes an optimizer step of its own inside forward."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = torch.optim.SGD(self.decoder.parameters(), lr=0.1, momentum=0.9)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        with torch.enable_grad():
            self.decoder(torch.ones(1, 3)).sum().backward()
        self.inner.step()
        return super().forward(x)


class EditsItsInput(Plain):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x.clamp_(0.2, 0.8)
        return super().forward(x)


class RaisesInForward(KeepsGraphTensors):
    def sample(self, mu: Tensor, logvar: Tensor) -> Tensor:
        self.halfway = mu
        self.eval()
        random.random()
        raise RuntimeError("half-way")


class RaisesInTheSecondForward(KeepsGraphTensors):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        out = super().forward(x)
        if self.seen["passes"] > 1:
            raise RuntimeError("once is enough")
        return out


class _NoBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: object, grad: Tensor) -> Tensor:
        raise RuntimeError("no way back")


class RaisesInBackward(KeepsGraphTensors):
    def sample(self, mu: Tensor, logvar: Tensor) -> Tensor:
        return _NoBackward.apply(super().sample(mu, logvar))


class EditsInPlace(BatchNorm):
    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = torch.sigmoid(self.encoder(x))
        h += 1
        return self.fc_mu(h), self.fc_logvar(h)


def raising(model: nn.Module, x: Tensor) -> Tensor:
    model(x)
    model.eval()
    torch.set_default_dtype(torch.float64)
    raise ValueError("the loss is not for sale")


NASTY = (
    Plain,
    KeepsGraphTensors,
    WeightNorm,
    OldWeightNorm,
    BatchNorm,
    MovingAverage,
    ReplacedBuffer,
    Lazy,
    LateLayers,
    Closure,
    Switches,
    HooksItself,
    EditsItsInput,
    Trains,
    RaisesInForward,
    RaisesInTheSecondForward,
    RaisesInBackward,
    EditsInPlace,
)
LOSSES = {"no loss": None, "elbo": elbo, "raising": raising}


@pytest.mark.parametrize("model_class", NASTY)
@pytest.mark.parametrize("loss", LOSSES)
class TestNasty:
    def test_fresh(self, model_class: type[nn.Module], loss: str) -> None:
        assert examine(model_class(), torch.rand(4, 6), LOSSES[loss]) == []

    def test_in_the_middle_of_training(self, model_class: type[nn.Module], loss: str) -> None:
        model, x = model_class(), torch.rand(4, 6)
        with_history(model, x)
        assert examine(model, x, LOSSES[loss]) == []


@pytest.mark.parametrize("model_class", NASTY)
@pytest.mark.parametrize("loss", LOSSES)
def test_the_snapshot_alone(model_class: type[nn.Module], loss: str) -> None:
    """Two training steps between snapshot and restoration, with everything a probe may do."""
    model, x = model_class(), torch.rand(4, 6)
    with_history(model, x)
    before = photograph(model, x)
    with suppress(RuntimeError, ValueError), leaves_no_trace(model, x) as rewind:
        for mode in (True, False):
            model.train(mode)
            torch.set_grad_enabled(True)
            model.register_forward_pre_hook(lambda *_: None)
            (LOSSES[loss] or elbo)(model, x).backward()
            torch.optim.SGD(model.parameters(), lr=0.1).step()
            rewind()
    assert differences(before, photograph(model, x)) == []


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_without_grad_mode_it_stays_off_and_the_same_is_found(mode: Callable[[], Any]) -> None:
    model, x = Plain(), torch.rand(4, 6)
    usual = vaedoctor.check(model, x, objective=elbo)
    with mode():
        assert examine(model, x, elbo) == []
        report = vaedoctor.check(model, x, objective=elbo)
    assert report.outcomes == usual.outcomes


def test_a_graph_from_before_can_still_be_walked() -> None:
    model, x = Plain(), torch.rand(4, 6)
    loss = elbo(model, x)
    assert examine(model, x, elbo) == []
    loss.backward()


def test_a_batch_that_requires_grad() -> None:
    model, x = Plain(), torch.rand(4, 6, requires_grad=True)
    x.grad = torch.ones_like(x)
    assert examine(model, x, elbo) == []


def test_a_closure_outside_the_model() -> None:
    """The loss holds another module: it is not part of the model, yet it is left alone."""
    critic = BatchNorm()
    before = photograph(critic)

    def loss(model: nn.Module, x: Tensor) -> Tensor:
        return elbo(model, x) + critic(model(x)[0])[0].sum()

    assert examine(Plain(), torch.rand(4, 6), loss) == []
    assert [d for d in differences(before, photograph(critic)) if "generator" not in d] == []


def test_no_tensor_of_an_experiment_outlives_it() -> None:
    """Without a collection by chance: a second check-up has the memory that the first had."""
    model, x = Plain(), torch.rand(4, 6)
    vaedoctor.check(model, x, objective=elbo)
    gc.collect()
    before = len(tensors_alive())
    gc.disable()
    try:
        vaedoctor.check(model, x, objective=elbo)
        assert len(tensors_alive()) == before
    finally:
        gc.enable()


def test_training_goes_on_as_if_nothing_had_happened() -> None:
    """The same run with a check-up in its middle ends at the same weights, bit for bit."""

    def train(check_up: bool) -> bytes:
        torch.manual_seed(1)
        model, x = BatchNorm(), torch.rand(8, 6)
        optimizer = torch.optim.Adam(model.parameters())
        for epoch in range(4):
            optimizer.zero_grad()
            elbo(model, x).backward()
            if check_up and epoch == 2:
                vaedoctor.check(model, x, objective=elbo)
            optimizer.step()
        return b"".join(t.detach().numpy().tobytes() for t in model.state_dict().values())

    assert train(True) == train(False)
