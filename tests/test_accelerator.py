"""The virtual accelerator, API by API, beside what real devices do (`meta` is one, on any machine).

On the meta device an operation with a CPU operand raises as on a GPU, without computing anything:
a second, independent implementation of the rules.
"""

from __future__ import annotations

import logging
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from steps import Bare, subject
from torch import Tensor, nn
from torch.distributions import Independent, MultivariateNormal, Normal

from vaedoctor.checkup import examine_subject
from vaedoctor.examine.device.accelerator import CUDA, OTHER, Pretence, pretend
from vaedoctor.examine.device.leftbehind import Moved, examine_move
from vaedoctor.examine.device.realmove import refused
from vaedoctor.subject.target import load
from vaedoctor.subject.trials.trace import leaves_no_trace

Body = Callable[[Tensor], Any]
SHAPE = (3, 4)
GLOBAL = torch.ones(4)
SCALAR = torch.tensor(2.0)


def x() -> Tensor:
    return torch.rand(SHAPE, generator=torch.Generator().manual_seed(1))


def played(body: Body, home: torch.device = CUDA, **parts: Any) -> Pretence:
    pretence = pretend(subject(Bare(body, **parts), x()), 0, home=home)
    assert pretence.recording.error is None, pretence.recording.error
    assert pretence.recording.fault is None
    return pretence


def lives(body: Body, **parts: Any) -> torch.device:
    """Where the result of a body is."""
    pretence = played(body, **parts)
    return pretence.places[id(pretence.recording.output)]


def raises_on_meta(body: Body) -> bool:
    try:
        body(x().to("meta"))
    except (RuntimeError, TypeError, NotImplementedError):
        return True
    return False


ALLOWED: dict[str, Body] = {
    "randn_like": lambda x: x + torch.randn_like(x),
    "zeros_like": lambda x: x + torch.zeros_like(x),
    "rsample": lambda x: Normal(x, x.exp()).rsample(),
    "rsample of an independent": lambda x: Independent(Normal(x, x.exp()), 1).rsample(),
    "log_prob with numbers": lambda x: Normal(0.0, 1.0).log_prob(x),
    "device of x": lambda x: x + torch.randn(SHAPE, device=x.device),
    "device and dtype of x": lambda x: x * torch.ones(4, device=x.device, dtype=x.dtype),
    "device of x by index": lambda x: x * torch.ones(4, device=str(x.device)),
    "arange on the device": lambda x: x * torch.arange(4, device=x.device),
    "eye on the device": lambda x: x @ torch.eye(4, device=x.device),
    "new_zeros": lambda x: x + x.new_zeros(4),
    "new_tensor": lambda x: x + x.new_tensor([1.0, 2.0, 3.0, 4.0]),
    "data.new and normal_": lambda x: x + x.data.new(x.size()).normal_(),
    "to of a tensor": lambda x: x + torch.randn(SHAPE).to(x),
    "to of a device": lambda x: x + torch.randn(SHAPE).to(x.device),
    "to with device and dtype": lambda x: x + torch.randn(SHAPE).to(x.device, torch.float32),
    "to by keyword": lambda x: x + torch.randn(SHAPE).to(device=x.device),
    "type_as": lambda x: x + torch.randn(SHAPE).type_as(x),
    "a 0-d constant": lambda x: x * torch.tensor(2.0),
    "a 0-d global": lambda x: x * SCALAR,
    "a 0-d constant in where": lambda x: torch.where(x > 0.5, x, torch.tensor(0.0)),
    "a python number": lambda x: x * 2 + 1.0,
    "a cpu index": lambda x: x[torch.tensor([0, 2])],
    "a list index": lambda x: x[[0, 2]],
    "writing to a slice": lambda x: _written(x, torch.ones(3)),
    "copy_": lambda x: torch.empty_like(x).copy_(torch.ones(SHAPE)),
    "expand_as": lambda x: x + torch.zeros((), device=x.device).expand_as(x),
    "view_as a cpu tensor": lambda x: x.view_as(torch.ones(SHAPE)),
    "chunk and cat": lambda x: torch.cat(x.chunk(2, dim=1), dim=1),
    "a layer": lambda x: F.linear(x, torch.ones(2, 4, device=x.device)),
    "item": lambda x: x * torch.ones(()).item(),
    "noise that never meets x": lambda x: (torch.randn(4) + torch.ones(4), x)[1],
    "numpy of a device handed down": lambda x: x * float(_numbers(4, device="cpu").numpy()[0]),
    "a detached copy": lambda x: x.detach().clone().requires_grad_() * x,
    "gradients inside": lambda x: _slope(x),
}

REFUSED: dict[str, Body] = {
    "randn": lambda x: x + torch.randn(SHAPE),
    "randn of a size": lambda x: x * torch.randn(x.size()),
    "an old Variable": lambda x: x + torch.autograd.Variable(torch.randn(SHAPE)),
    "rand": lambda x: x * torch.rand(4),
    "a device handed down": lambda x: x * _numbers(4, device="cpu"),
    "zeros": lambda x: torch.zeros(4) + x,
    "torch.tensor": lambda x: x * torch.tensor([1.0, 2.0, 3.0, 4.0]),
    "a global": lambda x: x * GLOBAL,
    "in place": lambda x: x.clone().add_(torch.ones(4)),
    "into a cpu tensor": lambda x: torch.zeros(SHAPE).add_(x),
    "cat": lambda x: torch.cat([x, torch.ones(1, 4)]),
    "stack": lambda x: torch.stack([x[0], torch.ones(4)]),
    "where": lambda x: torch.where(x > 0.5, x, torch.zeros(4)),
    "a cpu mask in where": lambda x: torch.where(torch.ones(4) > 0, x, x),
    "lerp": lambda x: torch.lerp(x, torch.ones(SHAPE), 0.5),
    "addcmul": lambda x: torch.addcmul(x, torch.ones(4), torch.ones(4)),
    "normal_ on a cpu tensor": lambda x: x + torch.empty(4).normal_(),
    "a prior of cpu tensors": lambda x: Normal(torch.zeros(4), torch.ones(4)).log_prob(x),
    "a cpu draw": lambda x: x + Normal(torch.zeros(4), torch.ones(4)).sample(),
    "a scalar drawn to a shape": lambda x: x + Normal(0.0, 1.0).sample(SHAPE),
    "mse_loss": lambda x: F.mse_loss(x, torch.zeros(SHAPE)),
    "from_numpy": lambda x: x * torch.from_numpy(np.ones(4, dtype=np.float32)),
    "moved to the cpu's own": lambda x: x.to(torch.ones(1)) + x,
}


def _written(x: Tensor, row: Tensor) -> Tensor:
    out = torch.zeros_like(x)
    out[:, 0] = row
    return out


def _numbers(count: int, device: str = "cpu") -> Tensor:
    return torch.arange(count, device=device)


def _slope(x: Tensor) -> Tensor:
    inner = x.detach().requires_grad_()
    (slope,) = torch.autograd.grad((inner**2).sum(), inner)
    return x + slope


# The meta device has no values: what needs them raises there for that reason alone. A CPU index of
# a tensor is allowed on accelerators and not on meta; an in-place operation the other way round.
WITHOUT_META = {
    "a cpu index",
    "a list index",
    "item",
    "rsample of an independent",
    "rsample",
    "log_prob with numbers",
    "moved to the cpu's own",
    "into a cpu tensor",
    "in place",
}


@pytest.mark.parametrize("name", ALLOWED)
def test_what_a_real_accelerator_takes_is_silent(name: str) -> None:
    assert played(ALLOWED[name]).mixings == ()


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_real_accelerator_refuses_is_noted(name: str) -> None:
    (first, *_) = played(REFUSED[name]).mixings
    assert first.op.span is not None
    assert first.op.span.file == __file__


@pytest.mark.parametrize("name", sorted((ALLOWED | REFUSED).keys() - WITHOUT_META))
def test_the_meta_device_agrees(name: str) -> None:
    assert raises_on_meta((ALLOWED | REFUSED)[name]) is (name in REFUSED)


HOME: dict[str, Body] = {
    "an operation": lambda x: x + 1,
    "a view": lambda x: x.T,
    "data": lambda x: x.data,
    "a comparison": lambda x: x > 0.5,
    "to float64": lambda x: x.to(torch.float64),
    "cuda": lambda x: torch.ones(4).cuda(),
    "to cuda": lambda x: torch.ones(4).to("cuda"),
    "to an index": lambda x: torch.ones(4).to(0),
    "type by name": lambda x: torch.ones(4).type("torch.cuda.FloatTensor"),
    "the type of x": lambda x: torch.ones(4).type(x.type()),
    "torch.tensor of a tensor": lambda x: x.new_tensor(1.0),
    "on cuda": lambda x: torch.ones(4, device="cuda"),
    "in a device context": lambda x: _inside(x.device),
}

AWAY: dict[str, Body] = {
    "a factory": lambda x: torch.ones(4),
    "cpu": lambda x: x.cpu(),
    "to cpu": lambda x: x.to("cpu"),
    "like a cpu tensor": lambda x: torch.randn_like(torch.ones(4)),
    "a list of numbers": lambda x: torch.tensor([x.sum().item(), 1.0]),
    "type by name": lambda x: x.type("torch.FloatTensor"),
}


def _inside(device: torch.device) -> Tensor:
    with device:
        return torch.ones(4)


@pytest.mark.parametrize("name", HOME)
def test_what_is_on_the_accelerator(name: str) -> None:
    assert lives(HOME[name]) == CUDA


@pytest.mark.parametrize("name", AWAY)
def test_what_is_on_the_cpu(name: str) -> None:
    assert lives(AWAY[name]).type == "cpu"


def test_tensors_answer_with_the_pretence() -> None:
    said: dict[str, Any] = {}

    def body(x: Tensor, stayed: Tensor = GLOBAL) -> Tensor:
        said["moved"] = (x.device, x.is_cuda, x.is_cpu, x.get_device(), x.type())
        said["stayed"] = (
            stayed.device, stayed.is_cuda, stayed.is_cpu, stayed.get_device(), stayed.type()
        )  # fmt: skip
        said["there"] = torch.cuda.is_available()
        return x

    played(body)
    assert said["moved"] == (CUDA, True, False, 0, "torch.cuda.FloatTensor")
    assert said["stayed"] == (torch.device("cpu"), False, True, -1, "torch.FloatTensor")
    assert said["there"] is True
    played(body, home=OTHER)
    assert said["moved"][:3] == (OTHER, False, False)
    assert said["there"] is False
    assert torch.cuda.is_available.__module__ == "torch.cuda"
    assert torch.Generator.__module__ == "torch._C"


def test_values_and_graph_are_the_real_ones() -> None:
    def body(x: Tensor) -> Tensor:
        h = layer(x).to("cuda")
        return (h + torch.randn(3, 2).cuda()).cpu() * 2

    layer = nn.Linear(4, 2)
    torch.manual_seed(0)
    plain = (layer(x()) + torch.randn(3, 2)) * 2
    output = played(body, layer=layer).recording.output
    assert torch.equal(output, plain)
    assert output.requires_grad


def test_what_moves_a_tensor_leaves_the_original_where_it_is() -> None:
    def body(x: Tensor) -> Tensor:
        return x * GLOBAL.to(x.device) + GLOBAL

    (mixing,) = played(body).mixings
    assert mixing.operation in ("add", "__add__")


def test_numpy_of_a_moved_tensor_is_refused() -> None:
    assert [m.why for m in played(lambda x: (x.detach().numpy(), x)[1]).mixings] == ["numpy"]
    assert played(lambda x: (x.detach().cpu().numpy(), x)[1]).mixings == ()
    assert played(lambda x: (np.asarray(x.detach()), x)[1]).mixings


def test_a_generator_belongs_to_a_device() -> None:
    def with_cpu_generator(x: Tensor) -> Tensor:
        return x + torch.randn(4, generator=torch.Generator(), device=x.device)

    def with_its_own(x: Tensor) -> Tensor:
        rng = torch.Generator(device=x.device).manual_seed(0)
        return x + torch.randn(4, generator=rng, device=x.device)

    def moved_afterwards(x: Tensor) -> Tensor:
        return x + torch.randn(4, generator=torch.Generator().manual_seed(0)).to(x)

    assert [m.why for m in played(with_cpu_generator).mixings] == ["generator"]
    assert played(with_its_own).mixings == ()
    assert played(moved_afterwards).mixings == ()


def test_packed_lengths_stay_on_the_cpu() -> None:
    gru = nn.GRU(4, 5, batch_first=True)

    def body(x: Tensor) -> Tensor:
        packed = nn.utils.rnn.pack_padded_sequence(
            x.unsqueeze(0).expand(3, 3, 4), torch.tensor([3, 2, 1]), batch_first=True
        )
        steps, _ = gru(packed)
        return nn.utils.rnn.pad_packed_sequence(steps, batch_first=True)[0]

    assert played(body, gru=gru).mixings == ()


@pytest.mark.parametrize(
    "layer",
    [
        nn.Linear(4, 4),
        nn.LayerNorm(4),
        nn.BatchNorm1d(4),
        nn.MultiheadAttention(4, 2),
        nn.GRU(4, 4),
        nn.Sequential(nn.Linear(4, 8), nn.GLU(), nn.Dropout(0.5)),
        nn.TransformerEncoderLayer(4, 2, 8),
        nn.utils.parametrizations.weight_norm(nn.Linear(4, 4)),
        nn.utils.parametrizations.spectral_norm(nn.Linear(4, 4)),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_layers_of_torch_are_silent(layer: nn.Module) -> None:
    def body(x: Tensor) -> Tensor:
        return layer(x, x, x)[0] if isinstance(layer, nn.MultiheadAttention) else layer(x)

    assert played(body, layer=layer).mixings == ()


def test_a_covariance_of_cpu_tensors_is_noted() -> None:
    def body(x: Tensor) -> Tensor:
        return MultivariateNormal(torch.zeros(4), torch.eye(4)).log_prob(x)

    assert played(body).mixings


def test_results_of_custom_functions_follow_their_operands() -> None:
    class Double(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x * 2

        @staticmethod
        def backward(ctx: Any, grad: Tensor) -> Tensor:
            return grad * 2

    assert played(lambda x: Double.apply(x) + x).mixings == ()


def test_the_loss_is_part_of_the_step() -> None:
    patient = subject(
        Bare(lambda x: x), x(), loss=lambda output, x: F.mse_loss(output, x * torch.ones(4))
    )
    assert pretend(patient, 0).mixings


# -- what stays, and where it comes from ------------------------------------------------------


def moved(model: nn.Module, **options: Any) -> Moved:
    patient = subject(model, x())
    with leaves_no_trace(patient.model) as rewind:
        return examine_move(patient, 0, rewind, **options)


class Vae(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(4, 4)
        self.decoder = nn.Linear(2, 4)
        self.prior = torch.zeros(2)

    def forward(self, x: Tensor) -> Tensor:
        mu, logvar = self.encoder(x).chunk(2, dim=1)
        return self.decoder(mu + logvar.exp() * torch.randn_like(mu))

    def sample(self, n: int) -> Tensor:
        return self.decoder(self.prior + torch.randn(n, 2, device=self.prior.device))

    def decode(self, z: Tensor) -> Tensor:
        return self.decoder(z)

    def generate(self, unknown: Any) -> Tensor:
        raise AssertionError

    def reconstruct(self, x: Tensor) -> Tensor:
        raise RuntimeError("not yet")


def test_methods_with_obvious_arguments_are_tried_and_failing_ones_skipped() -> None:
    found = moved(Vae(), latent=torch.zeros(3, 2))
    assert found.methods == ("forward", "sample", "decode")
    (stayed,) = found.stayed
    assert (stayed.kind, stayed.name, stayed.method) == ("attribute", "self.prior", "sample")


class MovesItself(Vae):
    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        self.prior = fn(self.prior)
        return super()._apply(fn, recurse)


def test_an_attribute_that_the_model_moves_itself_is_fine() -> None:
    assert moved(MovesItself()).stayed == ()


class Kenmerken(MovesItself):
    """Methods of its own; what does more than to compute is not run."""

    @torch.no_grad()
    def kenmerk(self, x: Tensor) -> Tensor:
        return self.weighed(self(x) ** 2 + torch.zeros_like(x).sum())

    def weighed(self, errors: Tensor) -> Tensor:
        return (errors * torch.linspace(0, 1, 4, device="cpu")).sum(1)

    def binned(self, x: Tensor, bins: int = 3) -> Tensor:
        edges = [torch.full((), i / bins, device=x.device) for i in range(bins)]
        return torch.stack([(x > e).float().mean(1) for e in edges], 1)

    def noted(self, x: Tensor) -> Tensor:
        logging.info("seen")
        return x * torch.ones(4)

    def kept(self, x: Tensor) -> Tensor:
        torch.save(x, "/nowhere")
        return x * torch.ones(4)

    def learned(self, x: Tensor) -> Tensor:
        self(x).sum().backward()
        return x * torch.ones(4)

    def shown(self, x: Tensor) -> Any:
        return (x * torch.ones(4)).detach().numpy()

    def of_something(self, table: Tensor) -> Tensor:
        return table * torch.ones(4)

    def nothing(self) -> Tensor:
        return self.prior * torch.ones(2)


def test_methods_of_any_name_that_only_compute_are_tried() -> None:
    found = moved(Kenmerken())
    assert found.methods == ("forward", "sample", "binned", "kenmerk")
    (stayed,) = found.stayed
    assert (stayed.kind, stayed.name, stayed.method) == ("literal", "linspace", "kenmerk")


class Guarded(Vae):
    def sample(self, n: int) -> Tensor:
        z = torch.randn(n, 2)
        if next(self.parameters()).is_cuda:
            z = z.cuda()
        return self.decoder(z)


class GuardedByMachine(Vae):
    def sample(self, n: int) -> Tensor:
        z = torch.randn(n, 2)
        if torch.cuda.is_available():
            z = z.to("cuda")
        return self.decoder(z)


class GivenDevice(Vae):
    def sample(self, n: int, current_device: Any) -> Tensor:
        return self.decoder(torch.randn(n, 2).to(current_device))


@pytest.mark.parametrize("kind", [Guarded, GuardedByMachine, GivenDevice])
def test_guards_are_silent(kind: type[nn.Module]) -> None:
    found = moved(kind())
    assert "sample" in found.methods
    assert found.stayed == ()
    assert found.literals == ()


def test_a_step_that_raises_anyway_does_so_for_no_processor_it_asks_for() -> None:
    class Wide(nn.Module):
        def __init__(self, place: str) -> None:
            super().__init__()
            self.layer, self.place = nn.Linear(5, 2), place

        def forward(self, x: Tensor) -> Tensor:
            x = x.cpu() if self.place == "cpu" else x.cuda()
            made: Tensor = self.layer(x)
            return made

    for place, asked in (("cpu", []), ("cuda", ["cuda"])):
        found = moved(Wide(place))
        assert found.error is not None
        assert [one.device.partition(":")[0] for one in found.literals] == asked


def test_the_model_is_as_it_was() -> None:
    model = Vae()
    before = {n: (p.data_ptr(), p.device, p.dtype) for n, p in model.named_parameters()}
    moved(model)
    assert {n: (p.data_ptr(), p.device, p.dtype) for n, p in model.named_parameters()} == before


# -- the real move ----------------------------------------------------------------------------


def on_meta(body: Body) -> bool | None:
    patient = subject(Bare(body, weight=nn.Parameter(torch.ones(4))), x())
    with leaves_no_trace(patient.model) as rewind:
        return refused(patient, torch.device("meta"), 0, rewind)


def test_the_real_move_is_refused_where_the_pretended_one_is() -> None:
    assert on_meta(lambda x: x + torch.randn(SHAPE)) is True
    assert on_meta(lambda x: x + torch.randn_like(x)) is False
    assert on_meta(lambda x: (_ for _ in ()).throw(KeyError("other"))) is None


@pytest.mark.skipif(not torch.accelerator.is_available(), reason="no accelerator on this machine")
@pytest.mark.parametrize("name", ALLOWED | REFUSED)
def test_a_real_accelerator_agrees(name: str) -> None:
    device = torch.accelerator.current_accelerator()
    assert device is not None
    body = (ALLOWED | REFUSED)[name]
    patient = subject(Bare(body, weight=nn.Parameter(torch.ones(4))), x())
    with leaves_no_trace(patient.model) as rewind:
        assert refused(patient, device, 0, rewind) is (name in REFUSED)


def test_what_the_constructor_itself_moves_is_not_left_behind(tmp_path: Path) -> None:
    """`Normal(0, 1)` whose location is moved by hand, which `model.to()` would not do."""
    text = """
        import torch
        from torch import nn
        class VAE(nn.Module):
            def __init__(self):
                super().__init__()
                self.up, self.down = nn.Linear(9, 8), nn.Linear(4, 9)
                self.noise = torch.distributions.Normal(0, 1)
                self.noise.loc = self.noise.loc MOVE
                self.noise.scale = self.noise.scale MOVE
            def forward(self, x):
                mu, logvar = self.up(x).chunk(2, 1)
                return self.down(mu + (logvar / 2).exp() * self.noise.sample(mu.shape)), mu, logvar
    """
    codes = []
    for name, move in (("a", ".cuda()"), ("b", ".clone()")):
        file = tmp_path / f"{name}.py"
        file.write_text(textwrap.dedent(text).replace(" MOVE", move))
        codes.append([f.code for f in examine_subject(load(f"{file}:VAE")).findings])
    assert codes == [[], ["VAE202"]]


DEFAULTS = """
import torch
from torch import nn, cuda

class VAE(nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(12, 6), nn.Linear(3, 12)

    def forward(self, x):
        mu, logvar = self.up(x).chunk(2, -1)
        z = mu + torch.randn(mu.shape) * (logvar / 2).exp() * torch.tensor([1.0, 1.0, 1.0])
        return self.down(z), mu, logvar

def main(gpu=True):
    if gpu:
        {setting}
    VAE().cuda()
"""


@pytest.mark.parametrize(
    ("setting", "mixed"),
    [
        ("pass", True),
        ("torch.set_default_tensor_type(torch.DoubleTensor)", True),
        ("torch.set_default_device('cpu')", True),
        ("torch.set_default_tensor_type(cuda.FloatTensor)", False),
        ("torch.set_default_device('cuda' if gpu else 'cpu')", False),
    ],
)
def test_what_a_file_makes_on_the_accelerator_by_default_is_there(
    tmp_path: Path, setting: str, mixed: bool
) -> None:
    (tmp_path / "defaults.py").write_text(DEFAULTS.format(setting=setting))
    report = examine_subject(load(f"{tmp_path / 'defaults.py'}:VAE"), select=["VAE202"])
    assert bool(report.findings) is mixed


SCRIPT = """
import torch
from torch import nn

class AE(nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(12, 6), nn.Linear(6, 12)

    def forward(self, x):
        z = self.up(x)
        return self.down(z), z

def train(model, optimizer, loader):
    for x in loader:
        {moves}
        optimizer.zero_grad()
        r, z = model(x)
        prior = torch.randn(x.size(0), 6)
        loss = ((r - x) ** 2).mean() + (torch.cdist(z, prior) - torch.cdist(prior, prior)).mean()
        loss.backward()
        optimizer.step()
"""


@pytest.mark.parametrize("moves", ["pass", "x = x.to(next(model.parameters()).device)"])
def test_a_loop_that_moves_nothing_may_draw_on_the_cpu(tmp_path: Path, moves: str) -> None:
    (tmp_path / "script.py").write_text(SCRIPT.format(moves=moves))
    report = examine_subject(load(f"{tmp_path / 'script.py'}:AE"))
    assert [f.code for f in report.findings] == ([] if moves == "pass" else ["VAE202"])


HELPED = """
import torch
from torch import nn

def rows(count):
    return {made}

def shifted(h):
    return h + rows(h.size(0))

class VAE(nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(12, 6), nn.Linear(3, 12)

    def forward(self, x):
        mu, logvar = shifted(self.up(x)).chunk(2, 1)
        return self.down(mu + torch.randn_like(mu) * (logvar / 2).exp()), mu, logvar
"""


@pytest.mark.parametrize("made", ["0.0", "torch.ones(count, 1)"])
def test_what_a_class_calls_is_a_part_of_it_where_the_file_moves_nothing(
    tmp_path: Path, made: str
) -> None:
    (tmp_path / "helped.py").write_text(HELPED.format(made=made))
    report = examine_subject(load(f"{tmp_path / 'helped.py'}:VAE"), select=["VAE2"])
    assert [f.code for f in report.findings] == ([] if made == "0.0" else ["VAE202"])
