"""Which output or input of the model each parameter of a loss that is given means."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
import torch
from steps import value
from torch import Tensor, nn

from vaedoctor.subject.batches.handed import as_batch
from vaedoctor.subject.code.roles import role
from vaedoctor.subject.loss.contained import total_among, total_loss
from vaedoctor.subject.loss.objective import find_objective
from vaedoctor.subject.subject import Batch
from vaedoctor.subject.target import TargetError, from_instance
from vaedoctor.subject.total import total


class Output(NamedTuple):
    logvar: Tensor
    mu: Tensor
    recon: Tensor


class VAE(nn.Module):
    """Returns what `shape` says; the parts keep recognisable widths."""

    def __init__(self, shape: str = "tuple") -> None:
        super().__init__()
        self.up, self.down, self.shape = nn.Linear(12, 6), nn.Linear(3, 12), shape

    def forward(self, x: Tensor) -> Any:
        mu, logvar = self.up(x).chunk(2, -1)
        recon = self.down(mu + torch.randn_like(mu) * (logvar / 2).exp())
        self.parts = recon, mu, logvar
        match self.shape:
            case "dict":
                return {"z_logvar": logvar, "z_mean": mu, "x_hat": recon}
            case "named":
                return Output(logvar, mu, recon)
            case "nested":
                return recon, (mu, logvar)
            case "recon":
                return recon
            case "scalar":
                return kl(mu, logvar)
            case "loss":
                return {"loss": kl(mu, logvar), "recon": recon}
        return recon, mu, logvar


class Reordered(VAE):
    """Returns the log-variance before the mean: only the names in `return` tell."""

    def forward(self, x: Tensor) -> Any:
        recon, mu, logvar = super().forward(x)
        return recon, logvar, mu


def kl(mu: Tensor, logvar: Tensor) -> Tensor:
    return 0.5 * (mu**2 + logvar.exp() - 1 - logvar).sum()


def weighed(recon: Tensor, x: Tensor, mu: Tensor, logvar: Tensor) -> Tensor:
    """No two arguments can be swapped without changing the value."""
    return ((recon - 2 * x) ** 2).sum() + 3 * mu.exp().sum() + 5 * (logvar**2).sum()


X = torch.rand(4, 12)


def wanted(model: VAE, x: Tensor = X, *further: Tensor) -> float:
    torch.manual_seed(0)
    model(x, *further)
    recon, mu, logvar = model.parts
    return float(weighed(recon, x, mu, logvar).detach())


def by_outputs(recon_x: Tensor, x: Tensor, mu: Tensor, log_var: Tensor) -> Tensor:
    return weighed(recon_x, x, mu, log_var)


def with_weight(x: Tensor, x_hat: Tensor, mean: Tensor, lv: Tensor, beta: float) -> Tensor:
    return weighed(x_hat, x, mean, lv) * beta


def as_torch_does(input: Tensor, target: Tensor, mu: Tensor, logvar: Tensor) -> Tensor:
    return weighed(input, target, mu, logvar)


def with_defaults(output: Tensor, data: Tensor, m: Tensor, s_logvar: Tensor, k: int = 1) -> Tensor:
    return weighed(output, data, m, s_logvar)


def keyword_only(*, logvar: Tensor, mu: Tensor, x: Tensor, recon: Tensor) -> Tensor:
    return weighed(recon, x, mu, logvar)


def against_a_source(source: Tensor, recon: Tensor, mu: Tensor, logvar: Tensor) -> Tensor:
    return weighed(recon, source, mu, logvar)


def by_keys(r: Any, picture: Tensor) -> Tensor:
    return weighed(r["x_hat"], picture, r["z_mean"], r["z_logvar"])


def unpacked(r: Any, picture: Tensor) -> Tensor:
    recon, mu, logvar = r
    return weighed(recon, picture, mu, logvar)


def handed_on(r: Any, x: Tensor) -> Tensor:
    return unpacked(r, x)


def declared(x: Tensor, outputs: dict[str, Tensor]) -> Tensor:
    return by_keys(outputs, x)


def declared_by_class(x: Tensor, outputs: Output) -> Tensor:
    return by_place(outputs, x)


def by_place(parts: Any, x: Tensor) -> Tensor:
    return weighed(parts[2], x, parts[1], parts[0])


def by_letters(x: Tensor, fx: Tensor, logvar: Tensor, mu: Tensor) -> Tensor:
    return weighed(fx, x, mu, logvar)


def from_model(model: VAE, x: Tensor) -> Tensor:
    model(x)
    return weighed(model.parts[0], x, *model.parts[1:])


def model_and_outputs(model: VAE, recon: Tensor, x: Tensor) -> Tensor:
    return weighed(recon, x, *model.parts[1:])


IN_PLACE: dict[str, Callable[..., Any]] = {
    "a lambda": lambda out, x: weighed(out[0], x, out[1], out[2]),
    "a lambda that spreads": lambda out, x: (lambda r, mu, lv: weighed(r, x, mu, lv))(*out),
    "a lambda without names": lambda a, b: weighed(a[0], b, a[1], a[2]),
    "two of a line": (lambda x, out: x.sum(), lambda out, x: weighed(out[0], x, out[1], out[2]))[1],
}
TYPED: dict[str, Any] = {"weighed": weighed}
exec("def loss(out, x):\n    r, mu, lv = out\n    return weighed(r, x, mu, lv)", TYPED)


class AsModule(nn.Module):
    def forward(self, x_recon: Tensor, x: Tensor, mu: Tensor, logvar: Tensor) -> Tensor:
        return weighed(x_recon, x, mu, logvar)


@pytest.mark.parametrize("shape", ["tuple", "dict", "named", "nested"])
@pytest.mark.parametrize(
    "loss",
    [
        by_outputs,
        with_weight,
        as_torch_does,
        with_defaults,
        keyword_only,
        against_a_source,
        by_letters,
        from_model,
        AsModule,
    ],
)
def test_given_losses_are_bound(shape: str, loss: Callable[..., Any]) -> None:
    model = VAE(shape)
    subject = from_instance(model, X, objective=loss)
    assert subject.objective is not None
    assert subject.objective.origin == "given"
    assert value(model, subject.objective, subject.batch) == pytest.approx(wanted(model))


@pytest.mark.parametrize(
    ("shape", "loss"),
    [
        ("dict", by_keys),
        ("tuple", unpacked),
        ("tuple", handed_on),
        ("dict", declared),
        ("named", declared_by_class),
    ],
)
def test_what_is_called_nothing_in_particular_takes_all_outputs(
    shape: str, loss: Callable[..., Any]
) -> None:
    model = VAE(shape)
    subject = from_instance(model, X, objective=loss)
    assert subject.objective is not None
    assert value(model, subject.objective, subject.batch) == pytest.approx(wanted(model))


@pytest.mark.parametrize("loss", [*IN_PLACE.values(), TYPED["loss"]], ids=[*IN_PLACE, "typed in"])
def test_a_loss_of_no_file_takes_the_output_apart_as_well(loss: Callable[..., Any]) -> None:
    model = VAE()
    subject = from_instance(model, X, objective=loss)
    assert subject.objective is not None
    assert value(model, subject.objective, subject.batch) == pytest.approx(wanted(model))


class Labelled(VAE):
    """Takes a label that its output does not depend on."""

    def forward(self, x: Tensor, y: Tensor) -> Any:
        return super().forward(x)


class Weighing:
    """An object that is called as a loss, by names that say nothing."""

    def __call__(self, r: Any, picture: Tensor) -> Tensor:
        return by_parts(r, picture)


def by_parts(r: Any, picture: Tensor) -> Tensor:
    return weighed(r.recon, picture, r.mu, r.logvar)


def of_loaders(rede: nn.Module, loaded: Any) -> Tensor:
    picture, label = loaded
    return by_parts(rede(picture, label), picture)


PLACED: dict[str, Callable[..., Any]] = {
    "an object": Weighing(),
    "its method": Weighing().__call__,
    "output, then batch": lambda r, picture, label: by_parts(r, picture),
    "output, then its first": lambda o, p: by_parts(o, p),
    "output and the batch whole": lambda out, batch: by_parts(out, batch[0]),
    "input, then output": lambda p, o: by_parts(o, p),
    "any number": lambda *given: by_parts(given[0], given[1]),
    "by keyword": lambda *, saida, onda: by_parts(saida, onda),
    "model and the batch whole": of_loaders,
    "model and the batch, by letters": lambda m, b: of_loaders(m, b),
    "in a closure": (lambda f: lambda out, data: f(out, data))(by_parts),
}


@pytest.mark.parametrize("loss", PLACED.values(), ids=PLACED)
def test_a_loss_whose_names_say_nothing_is_tried_in_the_usual_orders(
    loss: Callable[..., Any],
) -> None:
    model = Labelled("named")
    subject = from_instance(model, (X, torch.arange(4)), objective=loss)
    assert subject.objective is not None
    assert value(model, subject.objective, subject.batch) == pytest.approx(
        wanted(model, X, X[:, 0])
    )


def test_a_loss_whose_names_are_known_and_that_raises_is_called_in_no_other_way() -> None:
    """`(recon, mu, logvar, x)` would run."""

    def loss(recon: Tensor, x: Tensor, mu: Tensor, logvar: Tensor) -> Tensor:
        assert x.shape == mu.shape
        return (recon.sum() + x.sum()).square()

    subject = from_instance(VAE(), X, objective=loss)
    assert subject.objective is not None
    with pytest.raises(AssertionError):
        subject.objective.run(subject.model, subject.batch)


def test_names_in_the_return_statement_decide() -> None:
    model = Reordered()
    subject = from_instance(model, X, objective=by_outputs)
    assert subject.objective is not None
    assert value(model, subject.objective, subject.batch) == pytest.approx(wanted(model))


def test_a_loss_beside_a_single_output() -> None:
    model = VAE("recon")
    subject = from_instance(model, X, objective=model_and_outputs)
    assert subject.objective is not None
    assert value(model, subject.objective, subject.batch) == pytest.approx(wanted(model))


def test_one_forward_pass_a_run() -> None:
    model = VAE()
    subject = from_instance(model, X, objective=by_outputs)
    passes: list[int] = []
    model.register_forward_hook(lambda *_: passes.append(1))
    assert subject.objective is not None
    subject.objective.run(model, subject.batch)
    assert passes == [1]


def test_a_given_loss_of_every_row_is_refused() -> None:
    def loss(recon: Tensor, x: Tensor) -> Tensor:
        return (recon - x).square().sum(1)

    with pytest.raises(TargetError) as caught:
        from_instance(VAE("recon"), X, objective=loss)
    assert "not a scalar" in caught.value.message


def test_what_cannot_be_bound_is_named() -> None:
    def loss(recon: Tensor, x: Tensor, tree: Any) -> Tensor:
        return recon.sum()

    with pytest.raises(TargetError) as caught:
        from_instance(VAE("recon"), X, objective=loss)
    assert "the parameter `tree` of `loss(recon: " in caught.value.message
    assert "forward returned tensors of shape [[4, 12]]" in caught.value.message


def test_a_given_loss_that_raises_is_kept_for_the_examination() -> None:
    def loss(recon: Tensor, x: Tensor) -> Tensor:
        raise ValueError("targets out of range")

    model = VAE("recon")
    subject = from_instance(model, X, objective=loss)
    assert subject.objective is not None
    with pytest.raises(ValueError, match="targets out of range"):
        subject.objective.run(model, subject.batch)


def test_a_model_that_does_not_run_keeps_its_objective() -> None:
    subject = from_instance(VAE(), torch.rand(4, 5), objective=by_outputs)
    assert not subject.batch.ran
    assert subject.objective is not None
    assert subject.objective.at is not None
    assert subject.objective.at.line == by_outputs.__code__.co_firstlineno


def test_losses_inside_the_output() -> None:
    inside = find_objective(VAE("loss"), Batch((X,)))[0]
    assert inside is not None
    assert inside.origin == "found: `loss` in the output"
    bare = find_objective(VAE("scalar"), Batch((X,)))[0]
    assert bare is not None
    assert bare.origin == "found: forward returns the loss"
    model = VAE("scalar")
    assert total(bare.run(model, Batch((X,)))).requires_grad


def test_no_loss_is_said() -> None:
    objective, notes = find_objective(VAE(), Batch((X,)))
    assert objective is None
    assert "no loss found" in notes[0]


def test_searching_leaves_no_trace() -> None:
    class Keeps(VAE):
        def loss_function(self, recon: Tensor, x: Tensor, mu: Tensor, logvar: Tensor) -> Tensor:
            self.last = weighed(recon, x, mu, logvar)
            self.last.backward(retain_graph=True)
            return self.last

    model, random = Keeps(), torch.get_rng_state()
    assert find_objective(model, Batch((X,)))[0] is not None
    assert not hasattr(model, "last")
    assert model.up.weight.grad is None
    assert torch.equal(random, torch.get_rng_state())


def test_totals() -> None:
    @dataclass
    class Record:
        recon: Tensor
        loss: Tensor

    one, two = torch.tensor(1.0, requires_grad=True), torch.tensor(2.0)
    assert total(one) is one
    assert total((two, one)) is one
    assert total([two]) is two
    assert total({"kl": one, "loss": two}) is two
    assert total({"kl": one}) is one
    assert total(Record(two, one)) is one
    assert total(torch.ones(1, 1)).shape == ()
    with pytest.raises(ValueError, match=r"not a scalar: its shape is \[8\]"):
        total(torch.ones(8))
    with pytest.raises(ValueError, match=r"it returned tensors of shape \[8\]"):
        total((torch.ones(8),))
    with pytest.raises(ValueError, match="it returned `float`"):
        total(1.5)


@pytest.mark.parametrize(
    ("name", "meaning"),
    [
        ("recon_x", "recon"),
        ("x_hat", "recon"),
        ("x", "input"),
        ("data", "input"),
        ("mean_", "mu"),
        ("z_mean", "mu"),
        ("log_sigma", "logvar"),
        ("lv", "logvar"),
        ("z", "z"),
        ("beta", "weight"),
        ("labels", "label"),
        ("tree", None),
    ],
)
def test_roles(name: str, meaning: str | None) -> None:
    assert role(name) == meaning


def test_a_penalty_among_the_outputs_is_no_total() -> None:
    mu, w = torch.ones(3, requires_grad=True) * 2, torch.ones(3, requires_grad=True)
    x_hat, kl = mu * w, (mu**2).sum()
    assert total_among((x_hat, kl)) is None
    assert total_among((x_hat, {"kl": kl, "all": (x_hat**2).sum() + kl})) == (1, "all")
    assert total_among((x_hat, kl, (x_hat**2).sum())) is None
    assert total_among((kl,)) is None
    rows, kls = (x_hat**2).flatten(), mu**2
    assert total_among((x_hat, (rows + kls).mean(), rows.mean(), kls.mean())) == (1,)
    assert total_among((x_hat, rows.mean(), (kls + rows.detach()).mean(), kls.mean())) is None


def test_a_scalar_alone_is_the_loss_where_every_parameter_goes_into_it() -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 3))
    h = model[0](torch.ones(4, 3))
    loss, penalty = model[1](h).square().mean(), h.square().mean()
    found = total_loss(model, (loss, {"kl": penalty.item()}))
    assert found is not None
    assert found.name == "output[0]"
    assert total_loss(model, (penalty, {"kl": loss.item()})) is None
    assert total_loss(model, (loss, penalty)) is None


class Cloud(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 6)

    def forward(self, cloud: Tensor) -> dict[str, Tensor]:
        return {"cloud": self.layer(cloud)}


def test_beside_the_whole_output_a_name_means_the_input() -> None:
    def fit(out: Any, cloud: Tensor) -> Tensor:
        return (out["cloud"] - cloud).square().mean()

    model, x = Cloud(), torch.rand(4, 6)
    found, _ = find_objective(model, as_batch(model, x), fit)
    assert found is not None
    assert torch.equal(found.run(model, as_batch(model, x)), fit(model(x), x))


class Stepping(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 6)

    def forward(self, wave: Tensor) -> Tensor:
        return self.layer(wave)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return (batch["gain"] * (self(batch["wave"]) - batch["wave"]).square().mean(1)).mean()


@pytest.mark.parametrize("way", ["method", "function"])
def test_a_loaders_dict_gives_forward_its_part_and_the_loss_all(way: str) -> None:
    model = Stepping()
    batch = {"wave": torch.rand(4, 6), "gain": torch.rand(4)}
    given = as_batch(model, batch)
    assert given.ran
    loss = "training_step" if way == "method" else lambda m, b: m.training_step(b, 0)
    found, _ = find_objective(model, given, loss)
    assert found is not None
    assert torch.equal(found.run(model, given), model.training_step(batch, 0))


def test_a_word_with_a_default_is_no_output() -> None:
    def loss(recon_x: Tensor, x: Tensor, mu: Tensor, logvar: Tensor, recon: str = "mse") -> Tensor:
        if recon != "mse":
            raise ValueError(recon)
        return (recon_x - x).square().mean() + mu.square().mean() + logvar.square().mean()

    model = VAE()
    found, _ = find_objective(model, as_batch(model, torch.rand(4, 12)), loss)
    assert found is not None
    assert found.run(model, as_batch(model, torch.rand(4, 12))).dim() == 0


class Scripted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(12, 6), nn.Linear(3, 12)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mu, logvar = self.up(x).chunk(2, -1)
        return self.down(mu + torch.randn_like(mu) * torch.exp(logvar / 2)), mu, logvar


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is")
def test_a_scripted_model_has_no_code_to_read_and_is_examined() -> None:
    subject = from_instance(torch.jit.script(Scripted()), X)
    assert subject.batch.ran
    assert subject.objective is None
