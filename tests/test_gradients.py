"""Gradients against finite differences in float64; None, zero and nonzero told apart."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from steps import Bare, examined, flow_of, op_named, step
from torch import Tensor, nn
from torch.distributions import Normal

import vaedoctor
from vaedoctor.examine.gradients.survey import NUDGE, nudge, take_survey
from vaedoctor.examine.runs.gradients import Arrives, gradient_between, kind_of, parameter_gradients

Body = Callable[[Tensor], Tensor]
STEP = 1e-6


def x64() -> Tensor:
    return torch.tensor([[0.7, -1.2, 0.4], [-0.3, 0.9, 1.1]], dtype=torch.float64)


def layered(body: Body) -> Bare:
    torch.manual_seed(2)
    layer = nn.Linear(3, 3).double()
    return Bare(lambda x: body(layer(x)), layer=layer)


def by_difference(model: nn.Module, index: int, direction: Tensor) -> Tensor:
    """The derivative of <direction, output> at an operation's result, entry by entry."""
    shape = step(model, x64()).ops[index].out.shape
    gradient = torch.zeros(shape, dtype=torch.float64)
    for i in range(gradient.numel()):
        ends = []
        for sign in (1, -1):
            move = torch.zeros(gradient.numel(), dtype=torch.float64)
            move[i] = sign * STEP
            moved = step(model, x64(), edits={index: lambda t, m=move: t + m.view(t.shape)})
            ends.append((moved.output.detach() * direction).sum())
        gradient.view(-1)[i] = (ends[0] - ends[1]) / (2 * STEP)
    return gradient


def arriving(body: Body) -> tuple[Tensor | None, Tensor]:
    """The gradient at the layer's result, by autograd and by differences."""
    model = layered(body)
    recording = step(model, x64())
    _, out = flow_of(recording)
    at = op_named(recording, "linear")
    (found,) = gradient_between([out], [at.out], seed=4)
    drawn = torch.rand(out.shape, generator=torch.Generator().manual_seed(4)).double() + 0.5
    return found, by_difference(model, at.index, drawn)


SMOOTH: dict[str, Body] = {
    "exp": torch.exp,
    "softplus": F.softplus,
    "in place": lambda h: h.clone().mul_(h).sigmoid_(),
    "slice assignment": lambda h: _half(h),
    "chunk": lambda h: h.chunk(3, dim=1)[1] * 2,
    "noise": lambda h: h + h.exp() * torch.randn_like(h),
    "rsample": lambda h: torch.distributions.Normal(h, h.exp()).rsample(),
    "norm": lambda h: F.layer_norm(h, (3,)),
    "partly dead": lambda h: torch.relu(h),
}

ZERO: dict[str, Body] = {
    "dead relu": lambda h: torch.relu(h - 100),
    "saturated clamp": lambda h: h.clamp(50, 60),
    "round": lambda h: torch.round(h),
    "sign": lambda h: h.sign(),
    "times zero": lambda h: h * 0,
}

NONE: dict[str, Body] = {
    "constant": lambda h: torch.ones(2, dtype=torch.float64).requires_grad_() * 2,
    "zeros_like": lambda h: torch.zeros_like(h).requires_grad_() + 1,
}


def _half(h: Tensor) -> Tensor:
    out = torch.zeros_like(h)
    out[:, 0] = h[:, 1] ** 2
    return out


@pytest.mark.parametrize("name", SMOOTH)
def test_a_gradient_is_the_finite_difference(name: str) -> None:
    found, difference = arriving(SMOOTH[name])
    assert found is not None
    assert kind_of(found) is Arrives.YES
    assert torch.allclose(found, difference, atol=1e-7)


@pytest.mark.parametrize("name", ZERO)
def test_a_zero_is_a_zero(name: str) -> None:
    found, difference = arriving(ZERO[name])
    assert kind_of(found) is Arrives.ZERO
    assert not difference.any()


@pytest.mark.parametrize("name", NONE)
def test_none_means_not_connected(name: str) -> None:
    found, difference = arriving(NONE[name])
    assert kind_of(found) is Arrives.NONE
    assert not difference.any()


HIDDEN: list[tuple[str, Body, Arrives]] = [
    ("detach", lambda h: h.detach().requires_grad_() * 2, Arrives.NONE),
    ("data", lambda h: h.data.requires_grad_() * 2, Arrives.NONE),
    ("detached without graph", lambda h: h.detach() * 2, Arrives.NONE),
    ("normal", lambda h: torch.normal(h, h.exp()), Arrives.ZERO),
]


@pytest.mark.parametrize(("name", "body", "kind"), HIDDEN, ids=[h[0] for h in HIDDEN])
def test_a_value_may_matter_and_get_no_gradient(name: str, body: Body, kind: Arrives) -> None:
    found, difference = arriving(body)
    assert kind_of(found) is kind
    assert difference.abs().max() > 0.1


def test_a_straight_through_estimator_has_a_gradient_where_nothing_moves() -> None:
    found, difference = arriving(lambda h: h + (torch.round(h) - h).detach())
    assert kind_of(found) is Arrives.YES
    assert difference.abs().max() < 1e-8


def test_without_roots_or_leaves_there_is_no_gradient() -> None:
    recording = step(lambda x: x + 1, torch.ones(2))
    value = recording.ops[0].out
    assert gradient_between([value], [value]) == [None]


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.used, self.dead, self.cut, self.idle = (nn.Linear(3, 3) for _ in range(4))
        self.fixed = nn.Linear(3, 3).requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.used(x).tanh() + self.dead(x) * 0 + self.cut(x).detach() + self.fixed(x)
        return y


def test_the_losss_gradient_is_the_finite_difference_for_every_parameter() -> None:
    model = Net().double()

    def loss(out: Tensor, x: Tensor) -> Tensor:
        return ((out - x) ** 2).sum()

    with examined(model, x64(), loss=loss) as examination:
        gradients = examination.gradients
    kinds = {n: kind_of(g) for n, g in gradients.by_name.items() if n.endswith("weight")}
    assert kinds == {
        "used.weight": Arrives.YES,
        "dead.weight": Arrives.ZERO,
        "cut.weight": Arrives.NONE,
    }
    assert not gradients.composed
    for name in ("used.weight", "used.bias", "dead.weight"):
        parameter, found = model.get_parameter(name), gradients.by_name[name]
        assert found is not None
        for i in range(parameter.numel()):
            ends = []
            for sign in (1, -1):
                parameter.data.view(-1)[i] += sign * STEP
                ends.append(loss(model(x64()), x64()).item())
                parameter.data.view(-1)[i] -= sign * STEP
            difference = (ends[0] - ends[1]) / (2 * STEP)
            assert found.view(-1)[i].item() == pytest.approx(difference, abs=1e-6)


def test_a_loss_without_a_graph_gives_none_everywhere() -> None:
    recording = step(Net(), torch.ones(2, 3))
    for loss in (None, torch.tensor(1.0)):
        found = parameter_gradients(recording, loss, composed=False)
        assert set(found.by_name.values()) == {None}
        assert found.error is None


def test_what_autograd_raises_is_kept() -> None:
    layer = nn.Linear(3, 3)

    def body(x: Tensor) -> Tensor:
        h = layer(x).exp()
        y = h * 2
        h.add_(1)  # `exp` has kept its result
        return y

    with examined(Bare(body, layer=layer), torch.ones(2, 3), loss=lambda y, x: y.sum()) as e:
        assert isinstance(e.gradients.error, RuntimeError)
        assert not e.gradients.by_name
        fault = e.backward_fault
        assert fault is not None
        assert fault.edit == "add_"
        assert fault.shape == (2, 3)


def test_what_is_written_over_spoils_a_graph_too() -> None:
    layer, table = nn.Linear(3, 3), nn.Embedding(4, 3)

    def body(x: Tensor) -> Tensor:
        which = torch.empty(2, dtype=torch.long).fill_(1)
        y = layer(x) * table(which)
        which.zero_()  # the table's backward pass has kept it
        return y

    loss = lambda y, x: y.sum()  # noqa: E731
    with examined(Bare(body, layer=layer, table=table), torch.ones(2, 3), loss=loss) as e:
        fault = e.backward_fault
    assert fault is not None
    assert fault.edit == "zero_"


class TestSurvey:
    """Gradients on other batches and at nudged weights."""

    def test_a_weight_moves_by_a_hundredth_of_its_scale(self) -> None:
        model = nn.Linear(64, 64)
        before = {n: p.detach().clone() for n, p in model.named_parameters()}
        nudge(model, seed=1)
        for name, parameter in model.named_parameters():
            moved = (parameter.detach() - before[name]).std()
            assert moved.item() == pytest.approx(NUDGE * before[name].abs().mean().item(), rel=0.3)

    def test_a_weight_of_zero_moves_too(self) -> None:
        model = nn.Linear(64, 64)
        nn.init.zeros_(model.weight)
        nudge(model, seed=1)
        assert model.weight.detach().std().item() == pytest.approx(NUDGE, rel=0.1)

    def test_zero_at_the_start_is_told_from_dead(self) -> None:
        first, last, dead = nn.Linear(3, 4), nn.Linear(4, 3), nn.Linear(3, 3)
        nn.init.zeros_(last.weight)

        def body(x: Tensor) -> Tensor:
            out: Tensor = last(first(x)) + torch.relu(dead(x) - 1e3)
            return out

        model = Bare(body, first=first, last=last, dead=dead)
        with examined(model, torch.randn(4, 3), loss=lambda y, x: ((y - x) ** 2).sum()) as e:
            assert kind_of(e.gradients.by_name["first.weight"]) is Arrives.ZERO
            survey = e.survey
            assert survey.runs == 3
            assert survey.largest["first.weight"] > 0
            assert survey.largest["dead.weight"] == 0
            assert not last.weight.any()  # put back

    def test_a_run_that_raises_does_not_count(self) -> None:
        state: dict[str, Any] = {"calls": 0}

        def body(x: Tensor) -> Tensor:
            state["calls"] += 1
            if state["calls"] > 1:
                raise ValueError
            return layer(x) * 2

        layer = nn.Linear(3, 3)
        model = Bare(body, layer=layer)
        with examined(model, torch.randn(4, 3), loss=lambda y, x: y.sum()) as e:
            state["calls"] = 2
            survey = take_survey(e.subject, 0, lambda: None)
        assert survey.runs == 0
        assert not survey.largest


class LonePatch(nn.Module):
    """An attention over the patches of a picture: of 28 by 28 there is one, of 56 by 56 four."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Sequential(nn.Conv2d(1, 8, 4, 4), nn.Tanh(), nn.Conv2d(8, 8, 7, 7))
        self.query, self.key, self.value = (nn.Linear(8, 8) for _ in range(3))
        self.down = nn.ConvTranspose2d(8, 1, 28, 28)

    def forward(self, x: Tensor) -> Tensor:
        h = self.up(x)
        rows = h.flatten(2).transpose(1, 2)
        scores = self.query(rows) @ self.key(rows).transpose(1, 2)
        mixed: Tensor = scores.softmax(-1) @ self.value(rows)
        made: Tensor = self.down(mixed.transpose(1, 2).reshape(h.shape))
        return made


def test_a_softmax_over_one_entry_is_told_for_a_given_batch_only() -> None:
    given = vaedoctor.check(LonePatch(), torch.rand(4, 1, 28, 28), select=["VAE602"])
    (finding,) = given.findings
    assert "`softmax` over a single entry" in finding.message
    larger = vaedoctor.check(LonePatch(), torch.rand(4, 1, 56, 56), select=["VAE602"])
    assert [o.status for o in larger.outcomes] == ["passed"]
    (guessed,) = vaedoctor.check(LonePatch(), select=["VAE602"]).outcomes
    assert (guessed.status, "single entry" in guessed.reason) == ("skipped", True)


class InOrder(nn.Module):
    """Rows in the order of a time that the model tells; what trains the time is a term of its own.

    No loss is found, so reconstruction and KL stand in for it.
    """

    def __init__(self, ordered: bool) -> None:
        super().__init__()
        self.ordered = ordered
        self.time, self.heads = nn.Linear(6, 1), nn.Linear(6, 4)
        self.down = nn.Linear(2, 6)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        time = self.time(x).ravel()
        index = torch.argsort(time)
        mu, logvar = self.heads(x[index]).chunk(2, 1)
        z = mu + torch.randn_like(mu) * (0.5 * logvar).exp()
        term = time[index].diff().square().mean() if self.ordered else z.mean()
        return self.down(z), mu, logvar, term


def test_what_another_output_trains_is_not_said_to_have_no_gradient() -> None:
    batch = torch.rand(8, 6)
    found = [vaedoctor.check(InOrder(ordered), batch).findings for ordered in (True, False)]
    assert "VAE601" not in [f.code for f in found[0]]
    assert [f.code for f in found[1]].count("VAE601") == 1


class Flowing(nn.Module):
    """A flow's layer stands between the sample and the decoder; the loss scores both ends."""

    def __init__(self, behind: Body) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.q, self.mix, self.p = nn.Linear(6, 6), nn.Linear(3, 3), nn.Linear(3, 6)
        self.behind = behind

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        m, s = self.q(x).chunk(2, -1)
        start = Normal(m, F.softplus(s) + 0.1)
        z = start.rsample()
        bend = torch.tanh(self.mix(z))
        log_q = start.log_prob(z) - torch.log1p((1 - bend**2) * self.mix.weight.diagonal())
        u = z + bend
        return self.p(self.behind(u)), (log_q - Normal(0.0, 1.0).log_prob(u)).sum(1)


def flowing(model: nn.Module, x: Tensor) -> Tensor:
    y, rate = model(x)
    return ((y - x).square().sum(1) + rate).mean()


@pytest.mark.parametrize("behind", [torch.detach, torch.tensor], ids=["detach", "tensor"])
@pytest.mark.filterwarnings("ignore:To copy construct")
def test_a_cut_behind_a_flow_is_one_of_the_sample_though_the_loss_scores_it(behind: Body) -> None:
    x = torch.rand(8, 6)
    right = vaedoctor.check(Flowing(torch.sigmoid), x, objective=flowing, select=["VAE302"])
    wrong = vaedoctor.check(Flowing(behind), x, objective=flowing, select=["VAE302"])
    assert not right.findings
    assert [(f.code, f.severity.value) for f in wrong.findings] == [("VAE302", "error")]


class Regular(nn.Module):
    """No sample: a penalty on the codes."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.q, self.p = nn.Linear(6, 3), nn.Linear(3, 6)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        code = self.q(x)
        return self.p(code), code


@pytest.mark.parametrize(
    ("wrong", "loss"),
    [
        (False, lambda y, x, code: F.mse_loss(y, x) + code.square().mean()),
        (True, lambda y, x, code: torch.tensor(F.mse_loss(y, x)) + code.square().mean()),
        (True, lambda y, x, code: F.mse_loss(y.detach(), x) + code.square().mean()),
        (False, lambda y, x, code: F.mse_loss(y, x) + code.detach().square().mean()),
    ],
    ids=["right", "rebuilt", "detached", "the penalty is detached"],
)
@pytest.mark.filterwarnings("ignore:To copy construct")
def test_a_reconstruction_cut_off_beside_a_penalty_is_an_error(
    wrong: bool, loss: Callable[..., Tensor]
) -> None:
    def objective(model: nn.Module, x: Tensor) -> Tensor:
        y, code = model(x)
        return loss(y, x, code)

    report = vaedoctor.check(Regular(), torch.rand(8, 6), objective=objective, select=["VAE601"])
    told = [(f.code, f.severity.value) for f in report.findings]
    assert told == ([("VAE601", "error")] if wrong else [])
