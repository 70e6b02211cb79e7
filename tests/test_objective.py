"""Which loss trains the model, and which output or input each of its parameters means."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from vaedoctor.subject.batches.batch import as_batch
from vaedoctor.subject.code.roles import role
from vaedoctor.subject.loss.contained import total_among
from vaedoctor.subject.loss.objective import find_objective
from vaedoctor.subject.subject import Batch, Objective
from vaedoctor.subject.target import TargetError, from_instance, load
from vaedoctor.subject.target import loaded as open_target
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


def value(model: nn.Module, objective: Objective, batch: Batch, seed: int = 0) -> float:
    torch.manual_seed(seed)
    return float(total(objective.run(model, batch)).detach())


def wanted(model: VAE, x: Tensor = X) -> float:
    torch.manual_seed(0)
    model(x)
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


FILE = """
import torch
from torch import nn
import torch.nn.functional as F
class VAE(nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(12, 6), nn.Linear(3, 12)
    def forward(self, x):
        mu, logvar = self.up(x).chunk(2, -1)
        return torch.sigmoid(self.down(mu + torch.randn_like(mu) * (logvar / 2).exp())), mu, logvar
{method}
def kl_loss(mu, logvar):
    return 0.5 * (mu ** 2 + logvar.exp() - 1 - logvar).sum()
def train_loss_plot(losses):
    return losses
{rest}
"""
LOSS = """
def {name}({parameters}):
    bce = F.binary_cross_entropy({recon}, {x}, reduction="sum")
    return bce + {scale} * kl_loss({mu}, {logvar})
"""
NAMED = {"recon": "recon_x", "x": "x", "mu": "mu", "logvar": "logvar", "scale": "1"}
ORDINARY = LOSS.format(name="loss_function", parameters="recon_x, x, mu, logvar", **NAMED)
NAMELESS = LOSS.format(
    name="loss_function",
    parameters="a, b, c, d, w",
    recon="d",
    x="b",
    mu="c",
    logvar="a",
    scale="w",
)


def loaded(tmp_path: Path, rest: str, method: str = "", **options: Any) -> Any:
    method = textwrap.indent(textwrap.dedent(method), "    ")
    (tmp_path / "mymodel.py").write_text(FILE.format(rest=rest, method=method))
    return load(f"{tmp_path / 'mymodel.py'}:VAE", **options)


def expected(subject: Any, weight: float = 1.0) -> float:
    torch.manual_seed(0)
    x = subject.batch.args[0]
    recon, mu, logvar = subject.model(x)
    bce = nn.functional.binary_cross_entropy(recon, x, reduction="sum")
    return float((bce + weight * kl(mu, logvar)).detach())


def test_a_function_of_the_file(tmp_path: Path) -> None:
    subject = loaded(tmp_path, ORDINARY)
    objective = subject.objective
    assert (objective.name, objective.origin) == (
        "loss_function",
        "found: `loss_function` in mymodel.py",
    )
    line = (tmp_path / "mymodel.py").read_text().splitlines()[objective.at.line - 1]
    assert line == "def loss_function(recon_x, x, mu, logvar):"
    assert value(subject.model, objective, subject.batch) == pytest.approx(expected(subject))


@pytest.mark.parametrize(
    "use",
    [
        "p, q, r = model(data)\n    loss = loss_function(r, data, q, d=p, w=W)",
        "out = model(data)\n    loss = loss_function(out[2], data.view(-1, 12), out[1], out[0], W)",
        "p, q, r = model(data)\n    s = r + 0\n    y = loss_function(s, data.to(device), q, p, W)",
    ],
)
def test_the_files_own_call_gives_the_positions(tmp_path: Path, use: str) -> None:
    rest = NAMELESS + f"W = 2.5\ndef train(model, loader):\n  for data, _ in loader:\n    {use}\n"
    subject = loaded(tmp_path, rest)
    assert subject.objective is not None, subject.notes
    run = value(subject.model, subject.objective, subject.batch)
    assert run == pytest.approx(expected(subject, 2.5))


def test_a_weight_only_the_training_loop_knows(tmp_path: Path) -> None:
    loss = LOSS.format(
        name="vae_loss", parameters="recon_x, x, mu, logvar, beta", **{**NAMED, "scale": "beta"}
    )
    use = "for x, in loader:\n    r, m, v = vae(x)\n    vae_loss(r, x, m, v, beta).backward()\n"
    subject = loaded(tmp_path, loss + use)
    run = value(subject.model, subject.objective, subject.batch)
    assert run == pytest.approx(expected(subject))
    assert subject.objective.unweighed == "beta"
    told = loaded(tmp_path, loss + "beta = 1.0\n" + use)
    assert told.objective.unweighed is None


def test_the_called_one_of_several(tmp_path: Path) -> None:
    other = ORDINARY.replace("loss_function", "vae_loss")
    undecided = loaded(tmp_path, ORDINARY + other)
    assert undecided.objective is None
    assert "several losses run (`loss_function`, `vae_loss`)" in undecided.notes[-1]
    use = "def train(model, x):\n    r, m, v = model(x)\n    return vae_loss(r, x, m, v)\n"
    assert loaded(tmp_path, ORDINARY + other + use).objective.name == "vae_loss"
    given = loaded(tmp_path, ORDINARY + other, objective="loss_function")
    assert given.objective.name == "loss_function"


METHODS = {
    "loss_function": """
        def loss_function(self, *args, **kwargs):
            recons, mu, log_var = args
            kl = kl_loss(mu, log_var)
            return {"loss": recons.mean() + kwargs["M_N"] * kl, "KLD": -kl.detach()}
    """,
    "elbo": """
        def elbo(self, x):
            recon, mu, logvar = self(x)
            return -F.mse_loss(recon, x) - kl_loss(mu, logvar)
    """,
    "training_step": """
        def training_step(self, batch, batch_idx):
            x, _ = batch
            recon, mu, logvar = self(x)
            return F.mse_loss(recon, x) + kl_loss(mu, logvar)
    """,
    "compute_loss": """
        def compute_loss(self, x, outputs):
            recon, mu, logvar = outputs
            return F.mse_loss(recon, x) + kl_loss(mu, logvar)
    """,
}


@pytest.mark.parametrize("name", METHODS)
def test_methods(tmp_path: Path, name: str) -> None:
    subject = loaded(tmp_path, "", METHODS[name])
    assert subject.objective.origin == f"found: method `{name}`"
    assert total(subject.objective.run(subject.model, subject.batch)).requires_grad


def test_what_the_file_maximises_is_negated(tmp_path: Path) -> None:
    use = "def train(model, x):\n    loss = -model.elbo(x)\n"
    one = loaded(tmp_path, "", METHODS["elbo"])
    two = loaded(tmp_path, use, METHODS["elbo"])
    plain = value(one.model, one.objective, one.batch)
    assert value(two.model, two.objective, two.batch) == pytest.approx(-plain)


def test_losses_in_other_files_and_unknown_names(tmp_path: Path) -> None:
    (tmp_path / "losses.py").write_text("def mine(recon, x):\n    return (recon - x).abs().sum()\n")
    subject = loaded(tmp_path, "", objective=f"{tmp_path / 'losses.py'}:mine")
    assert subject.objective.at.file.endswith("losses.py")
    with pytest.raises(TargetError, match="did you mean `loss_function`"):
        loaded(tmp_path, ORDINARY, objective="loss_functoin")


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


LOOP = """
import torch
from torch import nn, optim

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(12, 8), nn.Linear(4, 12)

    def forward(self, x):
        m, v = self.a(x).chunk(2, 1)
        y = self.b(m + torch.randn_like(m) * (0.5 * v).exp())
        kl = 0.5 * (m ** 2 + v.exp() - 1 - v).sum(1)
        return y, kl.sum(), kl.mean() + ((y - x) ** 2).sum(1).mean()

if __name__ == "__main__":
    net = Net()
    optimizer = optim.Adam(net.parameters())
    for _ in range(100):
        y, divergence, total = net(torch.rand(16, 12))
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
"""


def test_a_loss_without_a_name_in_forward_is_the_one_that_the_loop_minimizes(tmp_path):
    path = tmp_path / "loop.py"
    path.write_text(LOOP)
    subject = load(f"{path}:Net")
    assert subject.objective is not None
    assert subject.objective.name == "total"


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


BOUND = """
def {name}(xh, x, mu, logvar):
    return F.binary_cross_entropy(xh, x, reduction="sum"){sign} kl_loss(mu, logvar)
"""
GAP = """
def gap(mu, logvar):
    return (mu - logvar).pow(2).sum()
"""


def test_the_one_function_that_trains_everything_is_the_loss_whatever_its_name(
    tmp_path: Path,
) -> None:
    bound = BOUND.format(name="bound", sign=" +")
    subject = loaded(tmp_path, bound + GAP)
    assert subject.objective is not None
    assert subject.objective.name == "bound"
    assert not subject.objective.settled
    run = value(subject.model, subject.objective, subject.batch)
    assert run == pytest.approx(expected(subject))
    assert loaded(tmp_path, bound + BOUND.format(name="other", sign=" -")).objective is None
    assert loaded(tmp_path, GAP).objective is None
    writes = bound.replace("return", "torch.save(x, 'x.pt')\n    return")
    assert loaded(tmp_path, writes).objective is None


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


BEFORE = """
import torch
from torch import nn
class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(12, 6), nn.Linear(3, 12)
    def forward(self, x):
        mu, logvar = self.up(x).chunk(2, -1)
        return self.down(mu + torch.randn_like(mu) * (logvar / 2).exp()), mu, logvar
    def pretrain(self, loader):
        optimizer = torch.optim.Adam(self.parameters())
        for x, _ in loader:
            loss = (self(x)[0] - x).square().mean()
            loss.backward()
            optimizer.step()
"""
LATER = """
    def elbo_loss(self, x):
        out, mu, logvar = self(x)
        kl = -0.5 * (1 + logvar - mu.square() - logvar.exp()).sum(1).mean()
        return (out - x).square().sum(1).mean() + kl
"""


@pytest.mark.parametrize(("text", "name"), [(BEFORE, "loss"), (BEFORE + LATER, "elbo_loss")])
def test_a_loop_before_the_training_counts_where_there_is_no_other_loss(
    tmp_path: Path, text: str, name: str
) -> None:
    (tmp_path / "first.py").write_text(text)
    objective = load(f"{tmp_path / 'first.py'}:Model").objective
    assert objective is not None
    assert objective.name == name


def test_a_word_with_a_default_is_no_output() -> None:
    def loss(recon_x: Tensor, x: Tensor, mu: Tensor, logvar: Tensor, recon: str = "mse") -> Tensor:
        if recon != "mse":
            raise ValueError(recon)
        return (recon_x - x).square().mean() + mu.square().mean() + logvar.square().mean()

    model = VAE()
    found, _ = find_objective(model, as_batch(model, torch.rand(4, 12)), loss)
    assert found is not None
    assert found.run(model, as_batch(model, torch.rand(4, 12))).dim() == 0


@pytest.mark.parametrize(
    ("step", "back"),
    [
        ("return torch.tensor(loss.item(), requires_grad=True)", "training_step((x, y), 0)"),
        ("return loss.detach().requires_grad_()", "training_step((x, y), 0)"),
    ],
)
def test_a_loss_that_goes_backward_from_a_number_is_examined(
    tmp_path: Path, step: str, back: str
) -> None:
    method = f"""
    def training_step(self, batch, index):
        x, y = batch
        recon, mu, logvar = self(x)
        loss = F.binary_cross_entropy(recon, x) + kl_loss(mu, logvar)
        {step}
    """
    loop = f"""
model = VAE()
for x, y in loader:
    loss = model.{back}
    loss.backward()
"""
    found = loaded(tmp_path, loop, method).objective
    assert found is not None
    assert "training loop" in found.origin


def test_another_models_loss_is_no_severed_one(tmp_path: Path) -> None:
    """The loss of a second network, trained on what the VAE encodes without gradients."""
    loop = """
vae, other = VAE(), nn.Linear(12, 12)
for x, y in loader:
    recon, mu, logvar = vae(x)
    loss = other(recon.detach()).square().sum()
    loss.backward()
"""
    assert loaded(tmp_path, loop).objective is None


@pytest.mark.parametrize(("asked", "explained"), [("log_var", True), ("image", False)])
def test_a_method_that_asks_the_output_for_what_it_lacks_is_examined(
    tmp_path: Path, asked: str, explained: bool
) -> None:
    """Of an argument of which it reads nothing that the output holds, it expects another dict."""
    read = "out['recon'] - x" if explained else "self(x)['recon'] - x"
    (tmp_path / "model.py").write_text(
        textwrap.dedent(
            f"""
            import torch
            from torch import nn

            class VAE(nn.Module):
                def __init__(self):
                    super().__init__()
                    self.up, self.down = nn.Linear(12, 6), nn.Linear(3, 12)

                def forward(self, x):
                    mu, logvar = self.up(x).chunk(2, -1)
                    z = mu + torch.randn_like(mu) * (logvar / 2).exp()
                    return {{"recon": self.down(z), "mu": mu, "logvar": logvar}}

                def loss(self, x, out):
                    rec = ({read}).square().sum()
                    return rec + out["{asked}"].exp().sum()
            """
        )
    )
    with open_target(f"{tmp_path / 'model.py'}:VAE") as subject:
        assert (subject.objective is not None) is explained
