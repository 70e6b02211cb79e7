"""First non-finite operation, headroom, reach and other number types, each beside plain torch."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from steps import Bare, examined, step, subject
from torch import Tensor, nn
from traces import differences, photograph

import vaedoctor
from vaedoctor.checkup import examine_subject
from vaedoctor.examine.numerics.halves import IN_FLOAT32, HalfPrecision, half_runs
from vaedoctor.examine.numerics.numerics import first_non_finite
from vaedoctor.examine.numerics.precision import replay, run_in
from vaedoctor.examine.numerics.reach import _sweep
from vaedoctor.examine.runs.recorder import Recorder
from vaedoctor.examine.runs.step import run_recorded
from vaedoctor.subject.trials.trace import leaves_no_trace

Body = Callable[[Tensor], Tensor]


def x() -> Tensor:
    return torch.rand(6, 4, generator=torch.Generator().manual_seed(3))


def begins(body: Body, batch: Tensor | None = None) -> Any:
    patient = subject(Bare(body), x() if batch is None else batch)
    with leaves_no_trace(patient.model) as rewind:
        return first_non_finite(patient, 0, rewind)


# -- the first operation that is not finite ---------------------------------------------------

BEGINS: list[tuple[str, Body, str]] = [
    ("exp", lambda x: (x * 1e4).exp() * 0.5, "infinity"),
    ("exp_", lambda x: x.mul(1e4).exp_() - 1, "infinity"),
    ("log", lambda x: x - (x * 0).log(), "infinity"),
    ("sqrt", lambda x: (x - 5).sqrt() + x.exp(), "NaN"),
    ("div", lambda x: x / (x * 0) + x.exp(), "infinity"),
    ("softmax", lambda x: torch.full_like(x, -math.inf).softmax(1) + x, "NaN"),
    ("pow", lambda x: (x - 5) ** 0.5, "NaN"),
    ("mul", lambda x: (x * 1e30 * 1e30).tanh() + (x * 1e30) * 1e30, "infinity"),
]


@pytest.mark.parametrize(("name", "body", "kind"), BEGINS, ids=[b[0] for b in BEGINS])
def test_the_operation_that_begins_it(name: str, body: Body, kind: str) -> None:
    found = begins(body)
    assert found.op is not None
    assert (found.op.name, found.kind) == (name, kind)
    assert not torch.isfinite(body(x())).all()


CONSUMED: dict[str, Body] = {
    "a masked softmax": lambda x: x.masked_fill(x > 0.9, -math.inf).softmax(1),
    "exp of minus infinity": lambda x: (x * 0).log().exp(),
    "where": lambda x: torch.where(x > 0.5, (x - 0.5).clamp(min=0).log(), 0.0).clamp(min=-9),
    "logsumexp": lambda x: torch.cat([x, (x * 0).log()], 1).logsumexp(1),
    "nan_to_num": lambda x: (x * math.nan).nan_to_num(),
    "thrown away": lambda x: ((x / 0).sum(), x)[1],
}


@pytest.mark.parametrize("name", CONSUMED)
def test_infinity_that_is_consumed_is_fine(name: str) -> None:
    assert begins(CONSUMED[name]) is None


def test_a_batch_that_holds_nan_is_the_beginning() -> None:
    batch = x()
    batch[2, 1] = math.nan
    found = begins(lambda x: x * 2, batch)
    assert (found.op, found.kind, found.leaf) == (None, "NaN", "input 0")


@pytest.mark.parametrize("guessed", [False, True])
def test_a_made_up_batch_is_not_held_against_the_model(guessed: bool) -> None:
    """The logarithm of the batch itself: real data may be above 0."""
    made = subject(
        Bare(lambda x: (x.log() @ -torch.ones(4, 2)).sum(), layer=nn.Linear(1, 1)), x().round()
    )
    made = replace(made, batch=replace(made.batch, guessed=guessed))
    report = examine_subject(made, select=["VAE801"])
    assert [f.code for f in report.findings] == ([] if guessed else ["VAE801"])


# -- headroom ---------------------------------------------------------------------------------


def vae(middle: Body) -> nn.Module:
    torch.manual_seed(0)
    first, last = nn.Linear(4, 4), nn.Linear(4, 4)
    return Bare(lambda x: last(middle(first(x))), first=first, last=last)


@pytest.mark.parametrize(
    ("middle", "now"),
    [(lambda h: (h * 0 + 30).exp(), False), (lambda h: (h * 0 + 60).exp(), True)],
    ids=["30", "60"],
)
def test_headroom_is_a_factor_of_two(middle: Body, now: bool) -> None:
    with examined(vae(middle), x()) as examination:
        assert bool(examination.headroom) is now
    assert math.log(torch.finfo(torch.float32).max) == pytest.approx(88.72, abs=0.01)


def test_the_argument_with_inputs_ten_times_larger() -> None:
    model = vae(lambda h: (h * 30).exp())
    with examined(model, x()) as examination:
        (found,) = examination.headroom
    with torch.no_grad():
        largest = float((model.first(10 * x()) * 30).max())
    assert found.wider == pytest.approx(largest, rel=1e-5)
    assert largest > found.limit > 2 * found.largest


@pytest.mark.parametrize(("size", "near"), [(12.0, False), (50.0, True)])
def test_an_exponential_of_the_data_alone_is_judged_on_the_data_as_they_are(
    size: float, near: bool
) -> None:
    layer = nn.Linear(4, 4)
    with examined(Bare(lambda x: layer(x) * (size * x).exp(), layer=layer), 0 * x() + 1) as found:
        assert bool(found.headroom) is near


def two_exponentials(h: Tensor) -> Tensor:
    first = (h * 0 + 60).exp()
    return first / (h * 0 + 70).exp()


def test_exponentials_near_overflow_are_one_finding() -> None:
    report = vaedoctor.check(vae(two_exponentials), x(), select=["VAE802"])
    (found,) = report.findings
    at = found.at
    assert at is not None
    assert found.measured["largest argument"] == 60
    assert found.notes == (f"also near: `exp` of 70 in line {at.line + 1}",)


# -- reach ------------------------------------------------------------------------------------

REACHES: dict[str, Body] = {
    "log of a layer": lambda h: h.log(),
    "log of a relu": lambda h: h.relu().log(),
    "log of one minus sigmoid": lambda h: (1 - h.sigmoid()).log(),
    "log of a square minus one": lambda h: (h.square() - 1).log(),
    "sqrt of a layer": lambda h: h.sqrt(),
    "sqrt of one minus tanh squared": lambda h: (1 - h.tanh().square()).sqrt(),
    "rsqrt": lambda h: h.rsqrt(),
    "division by a relu": lambda h: h / h.relu(),
    "reciprocal": lambda h: h.clamp(min=0).reciprocal(),
    "atanh by hand": lambda h: ((1 + h.tanh()) / (1 - h.tanh())).log(),
}

SAFE: dict[str, Body] = {
    "softplus": lambda h: F.softplus(h).log(),
    "exp": lambda h: h.exp().log(),
    "an added constant": lambda h: (h.relu() + 1e-6).log(),
    "sqrt of a relu, whose slope is cut": lambda h: h.relu().sqrt(),
    "clamp": lambda h: h.clamp(min=1e-6).sqrt(),
    "square plus constant": lambda h: (h.square() + 1).sqrt(),
    "sigmoid": lambda h: h.sigmoid().log(),
    "a sum of squares": lambda h: h.square().sum(1, keepdim=True).sqrt() + h,
    "a norm": lambda h: h / (h.norm(dim=1, keepdim=True) + 1e-8),
    "variance": lambda h: (h - h.mean(0)) / (h.var(0) + 1e-5).sqrt(),
    "softmax": lambda h: h.softmax(1).log(),
    "division by a layer": lambda h: h / (h + 100),
    "where twice": lambda h: torch.where(h > 0, torch.where(h > 0, h, 1.0).log(), 0.0),
    "discarded by where": lambda h: torch.where(h > 1e-3, h.log(), 0.0),
    "a constant": lambda h: h * torch.tensor(2.0).log(),
    "bounded layers": lambda h: (2 + gru(h)[0]).log(),
}
gru = nn.GRU(4, 4)


@pytest.mark.parametrize("name", REACHES)
def test_what_can_be_reached(name: str) -> None:
    with examined(vae(REACHES[name]), x()) as examination:
        found = examination.reached
    assert found, name
    swept = _sweep(torch.zeros(6, 4))
    assert not torch.isfinite(_at(REACHES[name], swept)).all()


@pytest.mark.parametrize("name", SAFE)
def test_what_cannot(name: str) -> None:
    with examined(vae(SAFE[name]), x()) as examination:
        assert examination.reached == []


@pytest.mark.parametrize("trained", [True, False])
def test_a_number_that_training_moves_reaches_what_a_frozen_one_does_not(trained: bool) -> None:
    number = nn.Parameter(torch.tensor(2.0), requires_grad=trained)
    model = vae(lambda h: h * number.log())
    model.number = number
    with examined(model, x()) as examination:
        assert bool(examination.reached) is trained


def _at(body: Body, values: Tensor) -> Tensor:
    """The result, or where that is finite the gradient."""
    leaf = values.clone().requires_grad_()
    out = body(leaf)
    if torch.isfinite(out).all():
        (out,) = torch.autograd.grad(out.sum(), leaf)
    return out.detach()


def test_the_sweep_is_even_and_keeps_the_graph() -> None:
    t = torch.zeros(5, 7, requires_grad=True)
    swept = _sweep(t)
    assert swept.requires_grad
    expected = torch.linspace(-20, 20, 35)
    assert torch.allclose(swept.detach().flatten().sort().values, expected)


def test_a_bare_parameter_is_only_a_warning() -> None:
    model = Bare(lambda x: x * model.rate.log(), rate=nn.Parameter(torch.ones(4)))
    with examined(model, x()) as examination:
        (found,) = examination.reached
        assert found.learned_number
    assert torch.equal(model.rate.data, torch.ones(4))


# -- scale ------------------------------------------------------------------------------------


def sampler(scale: Body) -> nn.Module:
    torch.manual_seed(0)
    heads, last = nn.Linear(4, 4), nn.Linear(2, 4)

    def body(x: Tensor) -> Tensor:
        mu, h = heads(x).chunk(2, dim=1)
        return last(mu + scale(h) * torch.randn_like(mu))

    return Bare(body, heads=heads, last=last)


@pytest.mark.parametrize(
    ("scale", "zeros", "denormals"),
    [
        (lambda h: h.exp(), 0, 0),
        (lambda h: (h - 200).exp(), 12, 0),
        (lambda h: (h * 0 - 90).exp(), 0, 12),
        (lambda h: (h * 0 - 80).exp(), 0, 0),
        (lambda h: F.softplus(h), 0, 0),
        (lambda h: F.softplus(h) * torch.tensor([1.0, 0.0]), 0, 0),
    ],
    ids=["exp", "underflow", "denormal", "small", "softplus", "masked"],
)
def test_underflow_counts_zeros_and_denormals(scale: Body, zeros: int, denormals: int) -> None:
    with examined(sampler(scale), x()) as examination:
        found = examination.underflows
    assert sum(u.zeros for u in found) == zeros
    assert sum(u.denormals for u in found) == denormals


# -- other number types -----------------------------------------------------------------------


def test_the_float64_shadow_is_the_model_in_float64() -> None:
    model = sampler(lambda h: h.exp())
    patient = subject(model, x())
    before = photograph(model, patient.batch.args[0])
    with leaves_no_trace(model, patient.batch.args) as rewind:
        single = run_recorded(patient, seed=0)
        double = run_in(patient, single, torch.float64, 0)
        output = double.output.detach().clone()
        rewind()
        noise = next(op.noise for op in single.ops if op.noise is not None)
    assert differences(before, photograph(model, patient.batch.args[0])) == []
    assert output.dtype is torch.float64
    h = x().double() @ model.heads.weight.double().T + model.heads.bias.double()
    mu, logstd = h.detach().chunk(2, dim=1)
    z = mu + logstd.exp() * noise.double()
    expected = z @ model.last.weight.double().T + model.last.bias.double()
    assert torch.allclose(output, expected.detach(), rtol=1e-12)


def test_gradients_measured_after_the_shadow_are_those_before() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(4, 4)
    with examined(
        Bare(lambda x: layer(x), layer=layer), x(), loss=lambda out, x: out.pow(2).sum()
    ) as e:
        _ = e.recording
        assert e.fixed_type == (None, "float64")
        found = e.gradients.by_name["layer.weight"]
    (expected,) = torch.autograd.grad(layer(x()).pow(2).sum(), layer.weight)
    assert found is not None
    assert torch.allclose(found, expected)


FIXED: dict[str, tuple[Body, str | None]] = {
    "float": (lambda h: h.float(), "float"),
    "to float32": (lambda h: h.to(torch.float32), "to"),
    "a matrix": (lambda h: h @ torch.eye(4), "eye"),
    "a matrix of its type": (lambda h: h @ torch.eye(4, dtype=h.dtype), None),
    "promoted noise": (lambda h: h + torch.randn(h.shape), None),
    "float32 noise by name": (lambda h: h + torch.randn(h.shape, dtype=torch.float32), "randn"),
    "back to its type": (lambda h: h.float().exp().to(h.dtype), None),
}


@pytest.mark.parametrize("name", FIXED)
def test_what_keeps_a_model_from_another_type(name: str) -> None:
    body, expected = FIXED[name]
    model = vae(body)
    with examined(model, x()) as examination:
        found, _ = examination.fixed_type
    assert (found.name if found else None) == expected
    failures = 0
    for dtype in (torch.float64, torch.bfloat16):
        try:
            vae(body).to(dtype)(x().to(dtype))
        except RuntimeError:
            failures += 1
    if expected is not None:
        assert failures


@pytest.mark.parametrize("name", ["exp", "log", "sum", "softmax", "softplus"])
def test_what_cuda_keeps_in_float32_is_kept_there(name: str) -> None:
    assert name in IN_FLOAT32
    torch.manual_seed(0)
    layer = nn.Linear(4, 4)
    function = getattr(torch, name, None) or getattr(F, name)
    options = {"dim": 1} if name == "softmax" else {}
    patient = subject(Bare(lambda x: function(layer(x).abs() + 1, **options), layer=layer), x())
    with torch.autocast("cpu", dtype=torch.float16):
        kept = run_recorded(patient, seed=0, kind=HalfPrecision)
        plain = run_recorded(patient, seed=0, kind=Recorder)
    assert kept.error is None
    assert kept.output.dtype is torch.float32
    assert next(op for op in plain.ops if op.name == "linear").out.tensor.dtype is torch.float16


def test_half_precision_overflows_where_the_numbers_do() -> None:
    big = vae(lambda h: h * 1e6 / 1e6)
    small = vae(lambda h: h * 1e3 / 1e3)
    with examined(big, x()) as e:
        found = e.half_overflow
        assert found is not None
        assert found.dtype == "float16"
        assert found.found.op is not None
        assert found.found.op.name == "mul"
    with examined(small, x()) as e:
        assert e.half_overflow is None
    assert torch.finfo(torch.float16).max == 65504


@pytest.mark.parametrize("trains", [False, True])
def test_what_is_only_logged_trains_nothing(trains: bool) -> None:
    layer = nn.Linear(4, 4)

    def body(x: Tensor) -> tuple[Tensor, Tensor]:
        h = layer(x)
        shares = (h if trains else h.detach()).softmax(1).mean(0).to(h.dtype) * 0
        return h, -(shares * (shares + 1e-10).log()).sum()

    model = Bare(body, layer=layer)
    with examined(model, x(), loss=lambda out, x: (out[0] - x).square().sum()) as e:
        found = e.half_overflow
    assert found is not None
    assert found.found.logged is not trains


def test_replayed_noise_is_the_noise() -> None:
    model = sampler(lambda h: h.exp())
    first = step(model, x(), seed=0)
    again = run_recorded(subject(model, x()), seed=99, edits=replay(first))
    assert torch.equal(first.output, again.output)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_products_in_half_precision_are_those_of_the_cpu_up_to_one_rounding(
    dtype: torch.dtype,
) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 16, 5))
    batch = torch.randn(4, 3, 6, 6)
    with examined(model, batch, loss=lambda out, x: out.square().sum()) as e:
        out = e.recording.values[e.recording.value_of(e.recording.output).index]
        (run,) = [
            run
            for run in half_runs(e.subject, e.recording, [out], 0, e.rewind)
            if run.dtype is dtype
        ]
    assert run.finite
    with torch.autocast("cpu", dtype=dtype):
        expected = model(batch)
    found = run.tensors[out.index]
    assert found.dtype is expected.dtype is dtype
    gap = (found.float() - expected.float()).abs().max()
    assert 0 < (expected.float() - model(batch)).abs().max() < 0.05
    assert gap < 3 * torch.finfo(dtype).eps * expected.abs().max()


def test_an_overflow_in_half_precision_is_met_by_both_of_its_runs() -> None:
    with examined(vae(lambda h: h * 1e6 / 1e6), x()) as e:
        found = half_runs(e.subject, e.recording, [], 0, e.rewind)
    assert [(run.dtype, run.finite) for run in found] == [
        (torch.float16, False),
        (torch.bfloat16, True),
    ]


class Refused(nn.Module):
    """Its scale is refused by the distribution: 0, or NaN from the logarithm of 0."""

    def __init__(self, shift: float, take_log: bool) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(6, 4), nn.Linear(2, 6)
        self.shift, self.take_log = shift, take_log

    def forward(self, x: Tensor) -> Tensor:
        mu, h = self.up(x.log() if self.take_log else x).chunk(2, -1)
        z = torch.distributions.Normal(mu, nn.functional.softplus(h + self.shift)).rsample()
        return self.down(z)


@pytest.mark.parametrize(
    ("shift", "take_log", "code"), [(-120, False, "VAE804"), (0, True, "VAE801")]
)
def test_what_a_distribution_refuses_is_traced_to_its_maker(
    shift: float, take_log: bool, code: str
) -> None:
    x = torch.rand(5, 6)
    x[2, 3] = 0.0
    (found,) = vaedoctor.check(Refused(shift, take_log), x).findings
    assert found.code == code
    assert any("VAE002" in note for note in found.notes)
