"""The loss as a file tells it: a function or method of its own, a call, a training loop."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch
from steps import value
from texts import ANY_WIDTH, IMPORTS
from torch import nn

from vaedoctor.checkup import examine_subject
from vaedoctor.subject.target import TargetError, load
from vaedoctor.subject.target import loaded as open_target
from vaedoctor.subject.total import total

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
    """The subject of a file with a model, a method of it, and what stands below."""
    method = textwrap.indent(textwrap.dedent(method), "    ")
    (tmp_path / "mymodel.py").write_text(FILE.format(rest=rest, method=method))
    return load(f"{tmp_path / 'mymodel.py'}:VAE", **options)


def expected(subject: Any, weight: float = 1.0) -> float:
    torch.manual_seed(0)
    x = subject.batch.args[0]
    recon, mu, logvar = subject.model(x)
    bce = nn.functional.binary_cross_entropy(recon, x, reduction="sum")
    kl = 0.5 * (mu**2 + logvar.exp() - 1 - logvar).sum()
    return float((bce + weight * kl).detach())


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


BEFORE = IMPORTS + ANY_WIDTH
BEFORE += """
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
    objective = load(f"{tmp_path / 'first.py'}:VAE").objective
    assert objective is not None
    assert objective.name == name


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


@pytest.mark.parametrize(
    ("score", "examined"),
    [
        ("F.gaussian_nll_loss(recon, x, recon - 1)", True),
        ("-torch.distributions.Bernoulli(recon).log_prob(x).mean()", False),  # of other values
    ],
)
def test_a_loss_that_torch_refuses_in_the_loop_is_examined(
    tmp_path: Path, score: str, examined: bool
) -> None:
    method = f"""
    def step(self, x):
        recon, mu, logvar = self(x)
        return {score} + kl_loss(mu, logvar)
    """
    loop = """
model = VAE()
for x in torch.rand(64, 12).split(8):
    loss = model.step(x)
    loss.backward()
"""
    found = loaded(tmp_path, loop, method).objective
    assert (found is not None and "training loop" in found.origin) is examined


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


COPIES = [
    "torch.tensor([rec, kl], requires_grad=True).sum()",
    "torch.tensor([rec, kl]).sum().requires_grad_()",
]


@pytest.mark.parametrize("made", [*COPIES, "torch.stack([rec, kl]).sum()"])
@pytest.mark.parametrize("looped", [True, False])
def test_terms_that_are_copied_are_a_loss_without_a_model(
    tmp_path: Path, made: str, looped: bool
) -> None:
    """A new tensor asks for its own gradient, which no parameter is part of."""
    method = f"""
    def loss(self, x):
        recon, mu, logvar = self(x)
        rec, kl = (recon - x).square().sum(), kl_loss(mu, logvar)
        return {made}
    """
    loop = """
model = VAE()
for x in torch.rand(64, 12).split(8):
    loss = model.loss(x)
    loss.backward()
"""
    subject = loaded(tmp_path, loop if looped else "", method)
    found = examine_subject(subject, select=("VAE714", "VAE601", "VAE702")).findings
    assert [f.code for f in found] == ["VAE714"] * (made in COPIES)
    assert all(f.message == "`tensor()` cuts the loss off from the model" for f in found)


def test_what_is_trained_beside_the_model_is_no_copied_loss(tmp_path: Path) -> None:
    loop = """
vae, sought = VAE(), nn.Parameter(torch.zeros(2))
for x, y in loader:
    with torch.no_grad():
        recon, mu, logvar = vae(x)
    loss = (sought.square() + recon.mean()).sum()
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
