"""Constructor arguments: given, read in the file, or made up; and what the file does afterwards."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from vaedoctor.subject.construct.build import builds
from vaedoctor.subject.construct.sizes import Sizes
from vaedoctor.subject.target import TargetError, load

Write = Callable[[str], str]

VAE = """
    import torch
    from torch import nn, optim

    class VAE(nn.Module):
        def __init__(self, input_dim, hidden_dim, latent_dim, act=nn.ReLU(), **rest):
            super().__init__()
            self.rest, self.act = rest, act
            self.up = nn.Linear(input_dim, hidden_dim)
            self.mu = nn.Linear(hidden_dim, latent_dim)
            self.logvar = nn.Linear(hidden_dim, latent_dim)
            self.down = nn.Linear(latent_dim, input_dim)
        def forward(self, x):
            h = self.act(self.up(x))
            mu, logvar = self.mu(h), self.logvar(h)
            return self.down(mu + torch.randn_like(mu) * (logvar / 2).exp()), mu, logvar
"""


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def written(text: str) -> str:
        path = tmp_path / "mymodel.py"
        path.write_text(text)
        return f"{path}:VAE"

    return written


def with_use(use: str) -> str:
    return textwrap.dedent(VAE) + textwrap.dedent(use)


def sizes(model: Any) -> tuple[int, int, int]:
    return model.up.in_features, model.up.out_features, model.mu.out_features


@pytest.mark.parametrize(
    "use",
    [
        "vae = VAE(30, 20, 10)",
        "n = 10\nvae = VAE(3 * n, hidden_dim=2 * n, latent_dim=n).to(device)",
        "if __name__ == '__main__':\n    s = (30, 20, 10)\n    vae = VAE(*s).cuda()",
        "cfg = dict(input_dim=30, hidden_dim=20)\ndef f():\n    train(VAE(latent_dim=10, **cfg))",
        "class Config:\n    a, b, c = 30, 20, 10\nvae = VAE(Config.a, Config.b, Config.c)",
        "n = 10\nn += 10\nvae = VAE(n + 10, n, 10)\nn = 99",
        "import argparse\np = argparse.ArgumentParser()\n"
        "p.add_argument('--latent-dim', type=int, default=10)\nargs = p.parse_args()\n"
        "vae = VAE(30, 20, args.latent_dim)",
        "def run(n=20):\n    x = torch.randn(4, 30)\n    vae = VAE(x.shape[1], n, n // 2)",
    ],
)
def test_the_users_own_call(write: Write, use: str) -> None:
    subject = load(write(with_use(use)))
    assert sizes(subject.model) == (30, 20, 10)
    assert not any("made up" in n for n in subject.notes)


def test_given_arguments_come_first(write: Write) -> None:
    target = write(with_use("vae = VAE(30, 20, 10)"))
    assert sizes(load(target, args={"latent_dim": "4"}).model) == (30, 20, 4)
    model: Any = load(target, args={"act": "nn.Tanh()", "tag": "a", "n": "3"}).model
    assert isinstance(model.act, nn.Tanh)
    assert model.rest == {"tag": "a", "n": 3}


def test_sizes_nobody_gave_are_different_and_said(write: Write) -> None:
    subject = load(write(with_use("")), args={"hidden_dim": "25"})
    made = sizes(subject.model)
    assert made[1] == 25
    assert len(set(made)) == 3
    assert f"made up: `--arg input_dim={made[0]} --arg latent_dim={made[2]}`" in subject.notes
    assert subject.batch.ran


def test_what_half_the_call_leaves_open_is_made_up(write: Write) -> None:
    subject = load(write(with_use("vae = VAE(30, load_width(), 10)")))
    assert sizes(subject.model)[::2] == (30, 10)
    assert any(n.startswith("made up: `--arg hidden_dim=") for n in subject.notes)


def test_what_a_command_line_requires_or_gets_later_is_made_up(write: Write) -> None:
    uses = [f"args.{n}_dim" for n in ("input", "hidden", "latent")]
    text = with_use(
        """
        import argparse
        def main():
            parser = argparse.ArgumentParser()
            parser.add_argument("--latent-dim", type=int, required=True)
            parser.add_argument("--hidden-dim", type=int, default=20)
            args = parser.parse_args()
            args.input_dim = load_data().shape[1]
            vae = VAE(args)
        """
    )
    text = text.replace("input_dim, hidden_dim, latent_dim, act", "args, act")
    for use in uses:
        text = text.replace(f"({use[5:]},", f"({use},").replace(f", {use[5:]})", f", {use})")
    subject = load(write(text))
    made = sizes(subject.model)
    assert made[1] == 20
    assert subject.batch.ran
    assert all(
        f"{n}_dim={s}" in subject.notes[0] for n, s in zip(("input", "hidden"), made, strict=False)
    )


def test_a_tracked_configuration_is_what_the_run_starts_with(write: Write) -> None:
    run = "import wandb\nwandb.init(config={'width': 20, 'code': 10})\nc = wandb.config\n"
    use = f"{run}vae = VAE(30, c.width, c.code)"
    assert sizes(load(write(with_use(use))).model) == (30, 20, 10)


def test_made_up_sizes_that_must_divide(write: Write) -> None:
    text = """
        import torch
        from torch import nn
        class VAE(nn.Module):
            def __init__(self, d_model, num_heads, dims: list[int], image_channels):
                super().__init__()
                assert isinstance(dims, list) and image_channels in (1, 3)
                self.attention = nn.MultiheadAttention(d_model, num_heads, batch_first=True)
            def forward(self, x):
                return self.attention(x, x, x)[0]
    """
    subject = load(write(textwrap.dedent(text)))
    assert subject.batch.ran
    assert subject.batch.args[0].dim() == 3


class Bounded(nn.Module):
    def __init__(self, n_dims: int, width: int) -> None:
        assert 1 <= n_dims <= 3
        super().__init__()
        self.up = nn.Linear(width, n_dims)


def test_every_number_that_passes_a_check_is_tried() -> None:
    """What the check answered is no bound on how many parameters a model may have."""
    assert [b.made_up["n_dims"] for b in islice(builds(Bounded), 3)] == [1, 2, 3]


def test_components_are_built_to_fit(write: Write) -> None:
    text = """
        import torch
        from torch import nn
        class Encoder(nn.Module):
            def __init__(self, input_dim, latent_dim):
                super().__init__()
                self.mu = nn.Linear(input_dim, latent_dim)
                self.lv = nn.Linear(input_dim, latent_dim)
            def forward(self, x):
                return self.mu(x), self.lv(x)
        class Decoder(nn.Module):
            def __init__(self, latent_dim, output_dim):
                super().__init__()
                self.out = nn.Linear(latent_dim, output_dim)
            def forward(self, z):
                return self.out(z)
        class VAE(nn.Module):
            def __init__(self, encoder, decoder):
                super().__init__()
                self.encoder, self.decoder = encoder, decoder
            def forward(self, x):
                mu, lv = self.encoder(x)
                return self.decoder(mu + torch.randn_like(mu) * (lv / 2).exp()), mu, lv
    """
    text = textwrap.dedent(text)
    subject = load(write(text))
    assert subject.batch.ran
    (note,) = (n for n in subject.notes if n.startswith("made up"))
    typed = {"encoder": "Encoder(input_dim=9, latent_dim=4)", "decoder": "Decoder(4, 9)"}
    assert "'encoder=Encoder(input_dim=37,latent_dim=7)'" in note
    assert load(write(text), args=typed).batch.args[0].shape == (8, 9)


def test_a_settings_object_is_made_of_what_the_constructor_reads(write: Write) -> None:
    text = """
        from torch import nn
        class VAE(nn.Module):
            def __init__(self, args):
                super().__init__()
                self.up = nn.Linear(args.input_dim, args.hidden_dim)
                self.down = nn.Linear(args.hidden_dim, args.input_dim)
            def forward(self, x):
                return self.down(self.up(x))
    """
    subject = load(write(textwrap.dedent(text)))
    assert subject.batch.ran
    assert "args=SimpleNamespace(input_dim=37,hidden_dim=29)" in subject.notes[0]
    typed = {"args": "SimpleNamespace(input_dim=5, hidden_dim=4)"}
    assert load(write(textwrap.dedent(text)), args=typed).batch.args[0].shape == (8, 5)


def test_arguments_that_cannot_be_made_up(write: Write) -> None:
    text = "from torch import nn\nclass VAE(nn.Module):\n"
    text += "    def __init__(self, latent_dim, tree): self.depth = tree.walk()\n"
    with pytest.raises(TargetError) as caught:
        load(write(text))
    assert "`VAE(latent_dim, tree)` needs `tree`" in caught.value.message
    command, _, rest = caught.value.next_step.partition("\n")
    assert command.endswith("mymodel.py:VAE --arg latent_dim=16 --arg tree=VALUE")
    assert 'args = { latent_dim = 16, tree = "VALUE" }' in rest
    assert "        tree=...,  # <-- its walk is read\n" in rest


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"latent": "3"}, "has no argument `latent`"),
        ({"latent_dmi": "3"}, "did you mean `latent_dim`?"),
        ({"latent_dim": "many"}, "`--arg latent_dim=many` is not an int"),
        ({"latent_dim": "2.5"}, "`--arg latent_dim=2.5` is not an int"),
    ],
)
def test_wrong_arguments(args: dict[str, str], message: str) -> None:
    class Small(nn.Module):
        def __init__(self, latent_dim: int = 4) -> None:
            super().__init__()
            self.out = nn.Linear(3, latent_dim)

    with pytest.raises(TargetError, match=message.replace("?", r"\?")):
        next(builds(Small, args=args))


def test_arguments_are_converted_by_type() -> None:
    seen: dict[str, Any] = {}

    class Typed(nn.Module):
        def __init__(
            self, name: str, rate=0.5, flag: bool = True, dims: tuple = (1,), device=None
        ) -> None:
            super().__init__()
            seen.update(name=name, rate=rate, flag=flag, dims=dims, device=device)

    args = {"name": "12", "rate": "1", "flag": "no", "dims": "[2,3]", "device": "cpu"}
    next(builds(Typed, args=args))
    assert seen == {"name": "12", "rate": 1.0, "flag": False, "dims": (2, 3), "device": "cpu"}
    assert isinstance(seen["rate"], float)


def test_a_mutated_argument_does_not_spoil_the_next_instance(write: Write) -> None:
    text = """
        import torch
        from torch import nn
        class VAE(nn.Module):
            def __init__(self, dims):
                super().__init__()
                self.up = nn.Linear(dims.pop(), dims.pop())
            def forward(self, x):
                return self.up(x)
        vae = VAE([4, 6])
    """
    rebuild = load(write(textwrap.dedent(text))).rebuild
    assert rebuild is not None
    assert rebuild(0).up.weight.shape == rebuild(1).up.weight.shape == (4, 6)


def test_rebuilt_models_are_equal_and_construction_leaves_the_generator_alone() -> None:
    before = torch.get_rng_state()
    built = next(builds(lambda: nn.Linear(3, 4), seed=5))
    assert built.rebuild is not None
    again = built.rebuild(5)
    assert torch.equal(built.model.weight, again.weight)
    assert again is not built.model
    assert torch.equal(before, torch.get_rng_state())


AFTERWARDS = """
    import torch
    def init(m):
        if isinstance(m, nn.Linear):
            nn.init.constant_(m.bias, 7)
    def main():
        hidden, rate = 12, 0.25
        vae = VAE(30, hidden, latent_dim=5).to("cuda")
        {statement}
        optimizer = optim.SGD({parameters}, lr=rate)
        vae = None
        vae.broken = 1
"""


@pytest.mark.parametrize(
    ("statement", "holds"),
    [
        ("vae.extra = nn.Linear(hidden, 64)", lambda m: m.extra.in_features == 12),
        ("vae.apply(init)", lambda m: bool((m.down.bias == 7).all())),
        ("vae.add_module('extra', nn.Linear(1, 1))", lambda m: hasattr(m, "extra")),
        ("nn.init.zeros_(vae.up.weight)", lambda m: not m.up.weight.any()),
        ("vae.up.requires_grad_(False)", lambda m: not m.up.weight.requires_grad),
        (
            "for p in vae.down.parameters(): p.requires_grad = False",
            lambda m: not m.down.weight.requires_grad and m.up.weight.requires_grad,
        ),
    ],
)
def test_what_the_file_does_to_the_instance(
    write: Write, statement: str, holds: Callable[[Any], bool]
) -> None:
    use = AFTERWARDS.format(statement=statement, parameters="vae.parameters()")
    subject = load(write(with_use(use)))
    assert holds(subject.model)
    assert not hasattr(subject.model, "broken")
    assert subject.rebuild is None
    (optimizer,) = subject.optimizers
    assert optimizer.param_groups[0]["lr"] == 0.25


@pytest.mark.parametrize(
    ("statement", "parameters", "count"),
    [
        ("pass", "list(vae.up.parameters()) + list(vae.mu.parameters())", 4),
        ("ps = [p for n, p in vae.named_parameters() if 'bias' in n]", "ps", 4),
        ("vae.eval()", "[{'params': vae.up.parameters(), 'lr': 0.1}]", 2),
        ("vae.load_state_dict(torch.load('nowhere.pt'))", "vae.parameters()", 8),
    ],
)
def test_the_users_optimizer(write: Write, statement: str, parameters: str, count: int) -> None:
    subject = load(write(with_use(AFTERWARDS.format(statement=statement, parameters=parameters))))
    (optimizer,) = subject.optimizers
    held = [p for group in optimizer.param_groups for p in group["params"]]
    assert len(held) == count
    assert {id(p) for p in held} <= {id(p) for p in subject.model.parameters()}
    assert subject.rebuild is not None
    assert subject.model.training


@pytest.mark.parametrize(
    ("statement", "stale"),
    [
        ("vae = VAE(30, 20, 10)", True),
        ("vae = VAE(30, 20, 10).to('cpu')", True),
        ("vae = nn.DataParallel(vae)", False),
        ("vae = vae.to('cpu')", False),
        ("vae = VAE(30, 20, 10)\nopt = torch.optim.SGD(vae.parameters(), lr=0.5)", False),
        ("other = VAE(30, 20, 10)", False),
    ],
)
@pytest.mark.parametrize("name", ["VAE", "vae"])
def test_an_optimizer_stays_with_the_instance_it_was_built_for(
    write: Write, statement: str, stale: bool, name: str
) -> None:
    use = "vae = VAE(30, 20, 10)\nopt = torch.optim.SGD(vae.parameters(), lr=0.5)\n"
    use += f"{statement}\nfor _ in range(3):\n    opt.step()\n"
    subject = load(f"{write(with_use(use)).removesuffix(':VAE')}:{name}")
    (optimizer,) = subject.optimizers
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    own = {id(p) for p in subject.model.parameters()}
    assert len(held) == 8
    assert held.isdisjoint(own) if stale else held == own


def test_every_name_gets_a_size_of_its_own() -> None:
    names = ["input_dim", "hidden_dim", "h2_dim", "latent_dim", "z_dim", "n_genes", "code_size"]
    made = Sizes()
    values = [made.choices(n)[0] for n in names]
    assert len(set(values)) == len(names)
    assert made.choices("output_dim")[0] == made.choices("input_dim")[0]
    assert made.choices("mystery") == []
    assert made.choices("layers")[-1] == 2 < made.choices("hiddens")[-1]


def test_no_width_is_made_up_as_nothing() -> None:
    """What is added to a count of 0 is no count itself."""

    class Batches(nn.Module):
        def __init__(self, width: int, out_channels: int, n_batch: int = 0) -> None:
            super().__init__()
            self.up = nn.Linear(width, out_channels)
            self.down = nn.Linear(out_channels + n_batch, width)

    first = next(builds(Batches))
    assert first.made_up["out_channels"] > 0
