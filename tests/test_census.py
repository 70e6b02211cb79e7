"""Who is registered, who ran, who was made on the way, who never took part."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from steps import Bare, examined
from torch import Tensor, nn

from vaedoctor.examine.code.listing import text_of
from vaedoctor.examine.structure.branches import branches, defined_at, hiding_places, owner_of
from vaedoctor.examine.structure.census import Census

X = torch.linspace(-1, 1, 8).reshape(2, 4)


def census_of(model: nn.Module, *inputs: Any, loss: Any = None) -> Census:
    with examined(model, *(inputs or (X.clone(),)), loss=loss) as examination:
        assert examination.recording.error is None, examination.recording.error
        return examination.census


class Holder:
    """A plain object that keeps a layer."""

    def __init__(self, layer: nn.Module) -> None:
        self.kept = layer


class Hiding(nn.Module):
    def __init__(self, how: str) -> None:
        super().__init__()
        self.seen = nn.Linear(4, 4)
        layer = nn.Linear(4, 4)
        if how == "list":
            self.layers = [layer]
        elif how == "dict":
            self.table = {"a": [layer]}
        elif how == "object":
            self.holder = Holder(layer)
        elif how == "closure":
            self.reach = lambda: layer

    def forward(self, x: Tensor) -> Tensor:
        if hasattr(self, "layers"):
            layer = self.layers[0]
        elif hasattr(self, "table"):
            layer = self.table["a"][0]
        else:
            layer = self.holder.kept if hasattr(self, "holder") else self.reach()
        out: Tensor = layer(self.seen(x))
        return out


PLACES = [
    ("list", "self.layers[0]", "self.layers = [layer]"),
    ("dict", "self.table['a'][0]", 'self.table = {"a": [layer]}'),
    ("object", "self.holder.kept", "self.holder = Holder(layer)"),
    ("closure", "layer", "self.reach = lambda: layer"),
]


class TestHidden:
    @pytest.mark.parametrize(("how", "expression", "text"), PLACES)
    def test_a_layer_that_is_not_registered(self, how: str, expression: str, text: str) -> None:
        census = census_of(Hiding(how))
        (hidden,) = census.hidden
        assert hidden.parameters == 4 * 4 + 4
        assert hidden.place is not None
        assert hidden.place.expression == expression
        assert text_of(hidden.place.at) == text
        assert not census.created
        assert census.registered == 2

    def test_a_module_inside_an_unregistered_one_is_not_told_twice(self) -> None:
        inner = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
        keep = [inner]
        (hidden,) = census_of(Bare(lambda x: keep[0](x))).hidden
        assert hidden.call.module is inner

    @pytest.mark.parametrize("kind", [nn.ModuleList, nn.Sequential])
    def test_what_is_registered_is_not_hidden(self, kind: Any) -> None:
        layers = kind([nn.Linear(4, 4)]) if kind is nn.ModuleList else kind(nn.Linear(4, 4))
        census = census_of(Bare(lambda x: layers[0](x), layers=layers))
        assert not census.hidden
        assert census.used == {"layers.0.weight", "layers.0.bias"}

    def test_a_network_of_the_loss_is_nobodys_layer(self) -> None:
        critic = nn.Linear(4, 1)
        census = census_of(nn.Linear(4, 4), loss=lambda out, x: critic(out).sum())
        assert not census.hidden
        assert not census.created

    def test_a_frozen_network_outside_is_nobodys_layer_either(self) -> None:
        keep = [nn.Linear(4, 4).requires_grad_(False)]
        assert not census_of(Bare(lambda x: keep[0](x))).hidden


class TestCreated:
    def test_a_layer_made_in_the_forward_pass(self) -> None:
        def body(x: Tensor) -> Tensor:
            fresh = nn.Linear(4, 4)
            return F.relu(fresh(x))

        census = census_of(Bare(body))
        ((call, at),) = census.created
        assert isinstance(call.module, nn.Linear)
        assert text_of(at) == "nn.Linear(4, 4)"
        assert not census.hidden

    def test_a_layer_made_once_and_kept(self) -> None:
        class Lazy(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.layers: list[nn.Module] = []

            def forward(self, x: Tensor) -> Tensor:
                if not self.layers:
                    self.layers.append(nn.Linear(4, 4))
                out: Tensor = self.layers[0](x)
                return out

        census = census_of(Lazy())
        assert [type(h.call.module) for h in census.hidden] == [nn.Linear]
        assert not census.created


class Stray(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.scales = [torch.ones(4, requires_grad=True)]
        self.offset = torch.zeros(4)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layer(x) * self.scales[0] + self.offset
        return out


class TestStrays:
    def test_a_leaf_that_wants_a_gradient_and_is_no_parameter(self) -> None:
        ((value, op, place),) = census_of(Stray()).strays
        assert value.shape == (4,)
        assert text_of(op.span) == "self.layer(x) * self.scales[0]"
        assert place is not None
        assert place.expression == "self.scales[0]"
        assert text_of(place.at) == "self.scales = [torch.ones(4, requires_grad=True)]"

    @pytest.mark.parametrize("owned", [True, False])
    def test_what_the_loss_alone_reads_is_one_unless_an_optimizer_holds_it(
        self, owned: bool
    ) -> None:
        model = nn.Linear(4, 4)
        model.log_scale = torch.zeros(1, requires_grad=True)

        def loss(out: Tensor, x: Tensor) -> Tensor:
            return (out - x).square().mean() / model.log_scale.exp()

        more = [model.log_scale] if owned else []
        optimizer = torch.optim.SGD([*model.parameters(), *more], lr=0.1)
        with examined(model, X.clone(), loss=loss, optimizers=(optimizer,)) as examination:
            strays = examination.census.strays
        assert [place.expression for _, _, place in strays if place is not None] == (
            [] if owned else ["self.log_scale"]
        )

    def test_without_any_parameter_the_backward_pass_does_not_fail(self) -> None:
        hiding = Bare(nn.Linear(4, 4))
        with examined(hiding, X.clone(), loss=lambda out, x: (out - x).square().mean()) as e:
            assert e.gradients.error is None

    def test_a_tensor_made_afresh_is_told_from_one_that_is_kept(self) -> None:
        kept = torch.ones(4, requires_grad=True)

        def body(x: Tensor) -> Tensor:
            fresh = torch.ones(4, requires_grad=True)
            return x * fresh * kept

        census = census_of(Bare(body))
        by_age = {census.fresh(value): value.tensor for value, _, _ in census.strays}
        assert set(by_age) == {True, False} or by_age[False] is kept
        assert by_age[False] is kept

    def test_the_input_may_want_a_gradient(self) -> None:
        assert not census_of(nn.Linear(4, 4), X.clone().requires_grad_()).strays


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
        self.spare = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.body(x)
        return out


class Idle(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = Encoder()
        self.forgotten = nn.Linear(4, 2)
        self.weight = nn.Parameter(torch.ones(4))
        self.sampling = False
        self.optional = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.encoder(x)
        return self.optional(out) if self.sampling else out


class TestIdle:
    def test_a_layer_that_only_the_next_step_draws_is_not_idle(self) -> None:
        class Dropping(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.always, self.sometimes = nn.Linear(4, 4), nn.Linear(4, 4)
                self.never = nn.Linear(4, 4)
                self.steps = 0

            def forward(self, x: Tensor) -> Tensor:
                self.steps += 1
                layer = self.always if self.steps == 1 else self.sometimes
                out: Tensor = layer(x)
                return out

        assert [b.path for b in census_of(Dropping()).idle] == ["never"]

    def test_the_topmost_idle_module_is_named_with_its_line(self) -> None:
        idle = {b.path: b for b in census_of(Idle()).idle}
        assert set(idle) == {"encoder.spare", "forgotten", "weight", "optional"}
        assert len(idle["encoder.spare"].parameters) == 4
        assert idle["forgotten"].size == 4 * 2 + 2
        assert text_of(idle["forgotten"].at) == "self.forgotten = nn.Linear(4, 2)"
        assert isinstance(idle["encoder.spare"].owner, Encoder)

    def test_who_reads_it(self) -> None:
        class Silent(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.never_read = nn.Linear(4, 4)

            def forward(self, x: Tensor) -> Tensor:
                return x * 2

        class Switched(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.sampling = False
                self.read_at_times = nn.Linear(4, 4)

            def forward(self, x: Tensor) -> Tensor:
                return self.read_at_times(x) if self.sampling else x * 2

        (silent,), (switched,) = census_of(Silent()).idle, census_of(Switched()).idle
        assert silent.reads is not None
        assert not any(r.method.name == "forward" for r in silent.reads)
        assert [r.switched for r in switched.reads or () if r.method.name == "forward"] == [True]

    def test_part_of_a_module_that_runs(self) -> None:
        stack = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)])
        (branch,) = census_of(Bare(lambda x: stack[0](x), stack=stack)).idle
        assert branch.path == "stack.1"
        assert branch.partial

    def test_weights_alike(self) -> None:
        one, two, three = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)
        model = Bare(lambda x: one(x), one=one, two=two, three=three)
        with examined(model, X.clone()) as examination:
            idle = {b.path: b for b in examination.census.idle}
            op = examination.recording.ops[0]
            assert idle["two"].like(op)
            assert not idle["three"].like(op)

    def test_a_weight_read_without_its_module_is_used(self) -> None:
        layer = nn.Linear(4, 4)
        census = census_of(Bare(lambda x: F.linear(x, layer.weight, layer.bias), layer=layer))
        assert not census.idle

    def test_frozen_weights_are_frozen_not_idle(self) -> None:
        one, two = nn.Linear(4, 4), nn.Linear(4, 4).requires_grad_(False)
        census = census_of(Bare(lambda x: one(x), one=one, two=two))
        assert not census.idle
        assert [b.path for b in census.frozen] == ["two"]


class TestReuse:
    def test_a_layer_that_runs_for_its_siblings(self) -> None:
        a, b, c = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)
        (reuse,) = census_of(Bare(lambda x: a(a(x)), a=a, b=b, c=c)).reused
        assert reuse.path == "a"
        assert len(reuse.calls) == 2
        assert reuse.idle == ("b",)

    def test_siblings_that_all_run_are_fine(self) -> None:
        a, b = nn.Linear(4, 4), nn.Linear(4, 4)
        assert not census_of(Bare(lambda x: a(b(a(x))), a=a, b=b)).reused


class TestBranches:
    def test_grouping_agrees_with_every_prefix(self) -> None:
        """Brute force: a prefix with all its parameters chosen, inside no larger one."""
        model = nn.ModuleDict(
            {
                "a": nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)),
                "b": nn.ModuleDict({"c": nn.Linear(2, 2), "d": nn.Linear(2, 2)}),
                "ab": nn.Linear(2, 2),
            }
        )
        names = [n for n, _ in model.named_parameters()]
        generator = torch.Generator().manual_seed(0)
        for _ in range(40):
            picks = torch.rand(len(names), generator=generator) < 0.7
            chosen = {n: model.get_parameter(n) for n, p in zip(names, picks, strict=True) if p}
            prefixes = [n for n, _ in model.named_modules() if n] + list(chosen)
            whole = {
                p
                for p in prefixes
                if (mine := [n for n in names if n == p or n.startswith(f"{p}.")])
                and all(n in chosen for n in mine)
            }
            tops = {p for p in whole if not any(p.startswith(f"{q}.") for q in whole)}
            found = list(branches(model, chosen))
            assert {b.path for b in found} == tops
            assert sorted(n for b in found for n in b.parameters) == sorted(chosen)
            assert sum(b.size for b in found) == sum(t.numel() for t in chosen.values())

    def test_the_owner_is_the_users_own_module(self) -> None:
        model = Idle()
        assert owner_of(model, "encoder.body.0.weight") == (model.encoder, "body")
        assert owner_of(model, "forgotten.weight") == (model, "forgotten")
        assert text_of(defined_at(model, "encoder.body.2")).startswith("self.body = nn.Sequential(")

    def test_without_an_assignment_the_class_line(self) -> None:
        model = Idle()
        model.added = nn.Linear(2, 2)
        assert text_of(defined_at(model, "added")) == "class Idle(nn.Module):"

    def test_hiding_places_leave_out_what_is_registered(self) -> None:
        model = Idle()
        model.alias = [model.forgotten, nn.Linear(1, 1)]
        assert [p.expression for _, p in hiding_places(model)] == ["self.alias[1]"]
