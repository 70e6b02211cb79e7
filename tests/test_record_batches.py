"""Batches that are records: their rows are known by the tensors that the fields hold."""

from __future__ import annotations

import types
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import vaedoctor
from vaedoctor.subject.records import fields_of, with_fields


@dataclass(frozen=True)
class Reading:
    values: Tensor
    station: Tensor


class Loaded:
    def __init__(self, values: Tensor, station: Tensor) -> None:
        self.values, self.station = values, station
        self.source = "a file"


def space(values: Tensor, station: Tensor) -> Any:
    return types.SimpleNamespace(values=values, station=station)


KINDS: list[Callable[..., Any]] = [Reading, Loaded, space]


class Stations(nn.Module):
    def __init__(self, slip: str = "") -> None:
        super().__init__()
        torch.manual_seed(0)
        self.slip = slip
        self.place = nn.Embedding(3, 2)
        self.inwards, self.outwards = nn.Linear(10, 6), nn.Linear(5, 8)

    def forward(self, reading: Any) -> Any:
        place = self.place(reading.station)
        h = self.inwards(torch.cat([reading.values, place], -1))
        if self.slip == "centred":
            h = h - h.mean(0)
        a, b = h.chunk(2, -1)
        shape = (6, 3) if self.slip == "counted" else a.shape
        eps = torch.randn(shape, device=a.device, dtype=a.dtype)
        return self.outwards(torch.cat([a + torch.exp(0.5 * b) * eps, place], -1)), a, b

    def loss(self, reading: Any) -> Tensor:
        y, a, b = self(reading)
        kl = -0.5 * (1 + b - a**2 - b.exp()).sum(-1).mean()
        return F.mse_loss(y, reading.values, reduction="sum") / len(y) + kl


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("slip", "codes"), [("", []), ("centred", ["VAE504"]), ("counted", ["VAE505"])]
)
def test_rows_of_a_record_are_taken_apart(
    kind: Callable[..., Any], slip: str, codes: list[str]
) -> None:
    batch = kind(torch.randn(6, 8), torch.tensor([0, 1, 2, 1, 0, 2]))
    report = vaedoctor.check(Stations(slip), batch, objective=lambda m, given: m.loss(given))
    assert [f.code for f in report.findings] == codes
    judged = {o.code: o.status for o in report.outcomes}
    assert {judged["VAE504"], judged["VAE505"]} <= {"passed", "failed"}


def one_by_one(values: Tensor, station: Tensor) -> Any:
    return [[Reading(v, s) for v, s in zip(values, station, strict=True)]]


class Collating(Stations):
    def forward(self, readings: Any) -> Any:
        values, station = ([getattr(r, n) for r in readings] for n in ("values", "station"))
        return super().forward(Reading(torch.stack(values), torch.stack(station)))

    def loss(self, readings: Any) -> Tensor:
        y, a, b = self(readings)
        kl = -0.5 * (1 + b - a**2 - b.exp()).sum(-1).mean()
        x = torch.stack([r.values for r in readings])
        return F.mse_loss(y, x, reduction="sum") / len(y) + kl


def test_rows_that_come_one_by_one_are_not_taken_for_columns() -> None:
    batch = one_by_one(torch.randn(6, 8), torch.tensor([0, 1, 2, 1, 0, 2]))
    report = vaedoctor.check(Collating(), batch, objective=lambda m, given: m.loss(given))
    assert not report.findings
    reasons = {o.code: o.reason for o in report.outcomes}
    assert "one by one" in reasons["VAE504"]
    assert not [o for o in report.outcomes if o.status == "crashed"]


def nested(values: Tensor, station: Tensor) -> Any:
    return {"values": values, "about": {"station": station}}


class Nested(Stations):
    def forward(self, given: Any) -> Any:
        station = given["about"]["station"]
        if self.slip == "ignored":
            station = torch.zeros_like(station)
        return super().forward(Reading(given["values"], station))

    def loss(self, given: Any) -> Tensor:
        y, a, b = self(given)
        kl = -0.5 * (1 + b - a**2 - b.exp()).sum(-1).mean()
        return F.mse_loss(y, given["values"], reduction="sum") / len(y) + kl


@pytest.mark.parametrize(("slip", "codes"), [("", []), ("ignored", ["VAE404"])])
def test_a_condition_may_lie_deeper_in_the_batch(slip: str, codes: list[str]) -> None:
    batch = nested(torch.randn(6, 8), torch.tensor([0, 1, 2, 1, 0, 2]))
    report = vaedoctor.check(Nested(slip), batch, objective=lambda m, given: m.loss(given))
    assert [f.code for f in report.findings] == codes


@pytest.mark.parametrize("kind", KINDS)
def test_a_record_is_copied_before_it_is_changed(kind: Callable[..., Any]) -> None:
    before = kind(torch.ones(4, 2), torch.zeros(4))
    after = with_fields(before, lambda v: v + 1 if isinstance(v, Tensor) else v)
    assert type(after) is type(before)
    assert torch.equal(before.values, torch.ones(4, 2))
    assert torch.equal(after.values, torch.full((4, 2), 2.0))


@pytest.mark.parametrize(
    "thing",
    [
        torch.zeros(2),
        {"x": torch.zeros(2)},
        [torch.zeros(2)],
        nn.Linear(2, 2),
        torch.distributions.Normal(0.0, 1.0),
        types.SimpleNamespace(inner=types.SimpleNamespace(x=torch.zeros(2))),
        Reading,
        "text",
        None,
    ],
    ids=lambda t: type(t).__name__,
)
def test_what_is_no_record_has_no_fields(thing: Any) -> None:
    assert fields_of(thing) is None
