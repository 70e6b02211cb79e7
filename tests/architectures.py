"""Generated VAEs: Hypothesis strategies for the source of healthy files and of files with one bug.

Source text rather than live classes, because a finding names a line of the user's file.
"""

from __future__ import annotations

import importlib.util
import itertools
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from architecture_bugs import BUGS, Bug
from architecture_parts import ACTIVATIONS, ORDERS, SAMPLERS, SCALES, Plan, code_and_tags
from architecture_source import access, constructor_arguments, plain, render, step, with_imports
from hypothesis import strategies as st
from torch import Tensor, nn

NAMES: dict[str, tuple[str, ...]] = {
    "x": ("x", "inp", "images"),
    "h": ("h", "hidden", "t"),
    "mu": ("mu", "mean", "a", "z_mean", "q1"),
    "eps": ("eps", "noise", "e"),
    "z": ("z", "latent", "code", "zz"),
    "w": ("latent_out", "w", "g"),
    "d": ("d", "y", "up"),
    "q": ("q", "params", "both"),
    "raw": ("raw", "pre"),
    "recon": ("recon", "x_hat", "recon_x", "r"),
    "enc": ("fc_in", "enc", "encode_layer", "l"),
    "norm": ("norm", "bn", "reg"),
    "head": ("fc_latent", "to_params", "q_head"),
    "after": ("linear_latent", "latent_thing", "post", "fc3"),
    "dec": ("fc_out", "dec", "generator", "k"),
    "class": ("VAE", "Net", "BetaVAE", "MyModel"),
    "encode": ("encode", "infer", "get_params"),
    "reparameterize": ("reparameterize", "reparametrize", "sample_latent", "draw"),
    "decode": ("decode", "generate", "from_latent"),
    "loss": ("loss_function", "elbo", "vae_loss", "compute_loss"),
    "trunk": ("encoder", "enc_net", "body"),
    "back": ("decoder", "dec_net", "gen"),
    "latent": ("latent_layer", "bottleneck", "sampler"),
    "kept": ("last_", "kept_", "q_"),
}
HEAD_PAIRS = (("fc21", "fc22"), ("enc_mu", "enc_spread"), ("q1", "q2"), ("head_a", "head_b"))
SPREADS = {
    "logvar": ("logvar", "log_var", "b", "lv"),
    "log_std": ("log_std", "log_sigma", "b"),
    "std": ("std", "sigma", "s"),
    "var": ("var", "variance", "v"),
}
SIZE_NAMES = (
    ("input_dim", "hidden_dim", "latent_dim", "linear_output_dim"),
    ("in_features", "width", "z_dim", "post_dim"),
    ("n_in", "n_hidden", "n_z", "n_after"),
)
WIDTHS = (7, 9, 11, 12, 14, 15, 18, 19)
CHOICES: dict[str, tuple[Any, ...]] = {
    "kind": ("vector", "vector", "image", "signal", "sequence"),
    "style": ("methods", "modules", "forward"),
    "sequential": (False, True),
    "batch": (8, 6),
    "latent": (4, 3, 6),
    "after": (0, 5, 8, 10),
    "activation": tuple(ACTIVATIONS),
    "activation_module": (False, True),
    "norm": ("none", "none", "none", "batch", "layer", "dropout"),
    "heads": ("two", "inline", "chunk", "split", "slice", "dict"),
    "scale": tuple(SCALES),
    "sampler": tuple(SAMPLERS),
    "gate": ("always", "always", "early", "branch"),
    "output": (*ORDERS, "list", "dict", "dataclass", "namedtuple", "attribute", "nested"),
    "loss": ("function", "method", "none"),
    "loss_takes": ("parts", "out"),
    "total": ("sum", "mean", "tuple"),
    "closed_kl": (True, True, False),
    "sigmoid": (False, True),
    "constructor": ("defaults", "literal", "call"),
    "header": (0, 1, 2, 3),
    "pick": tuple(range(12)),
}
_numbers = itertools.count()


@dataclass(frozen=True)
class Case:
    """A file and what should be said about it.

    `code` is None when the file is healthy. `line` is the guilty line, `lines` all lines that are
    as good an answer. `instead` are codes that may be found in place of `code`, `also` codes that
    may be found beside it. `step` is an expression in `model` and `x` for the user's own loss,
    `parts` one for the triple of reconstruction, mu and std.
    """

    source: str
    class_name: str
    batch_shape: tuple[int, ...]
    objective: str | None
    bug: str
    code: str | None
    line: int | None
    lines: frozenset[int]
    instead: frozenset[str]
    also: frozenset[str]
    arguments: tuple[int, ...]
    step: str | None
    parts: str

    def __str__(self) -> str:
        numbered = enumerate(self.source.splitlines(), 1)
        text = "\n".join(f"{'>' if i in self.lines else ' '}{i:4} {line}" for i, line in numbered)
        return f"{self.bug or 'healthy'}: {self.code} in line {self.line}\n{text}"

    def __repr__(self) -> str:
        return f"\n{self}\n"


@st.composite
def plans(draw: st.DrawFn, needs: dict[str, tuple[Any, ...]] | None = None) -> Plan:
    """A choice for every dimension, within what `needs` allows."""
    choices = {**CHOICES, **(needs or {})}
    got = {name: draw(st.sampled_from(options)) for name, options in choices.items()}
    kind = got["kind"]
    if kind == "sequence":
        got["sequential"] = False
    if got["output"] == "attribute" and got["loss"] == "function":
        got["loss"] = "method"
    depths = draw(st.sampled_from((1, 2, 3))), draw(st.sampled_from((1, 2, 3)))
    widths = draw(
        st.lists(st.sampled_from(WIDTHS), min_size=sum(depths), max_size=sum(depths), unique=True)
    )
    names = {role: draw(st.sampled_from(pool)) for role, pool in NAMES.items()}
    names["head_mu"], names["head_spread"] = draw(st.sampled_from(HEAD_PAIRS))
    names["spread"] = draw(st.sampled_from(SPREADS[got["scale"]]))
    names["std"] = (
        names["spread"] if got["scale"] == "std" else draw(st.sampled_from(SPREADS["std"]))
    )
    sizes = draw(st.sampled_from(SIZE_NAMES))
    names |= dict(zip(("x_dim", "h_dim", "z_dim", "after_dim"), sizes, strict=True))
    x = {"vector": 13, "image": 1 + 2 * (got["pick"] % 2), "signal": 2, "sequence": 5}[kind]
    return Plan(
        **got,
        x=x,
        encoder=tuple(widths[: depths[0]]),
        decoder=tuple(widths[depths[0] :]),
        names=names,
    )


def case(plan: Plan, name: str = "") -> Case:
    """The file for a plan, with the bug called `name` unless that is empty."""
    bug = BUGS[name] if name else Bug("")
    lines = render(plan, bug.sampler)
    if bug.edit:
        lines = bug.edit(lines, plan)
    lines = with_imports(lines)
    tags = [code_and_tags(line)[1] for line in lines]
    guilty = [i for i, own in enumerate(tags, 1) if "guilty" in own]
    near = [i for i, own in enumerate(tags, 1) if "near" in own]
    got = access(plan)
    std = SCALES[plan.scale][1].format(spread=got["spread"])
    naive = plan.sampler == "randn_shape" and not bug.sampler
    return Case(
        source=plain(lines),
        class_name=plan.names["class"],
        batch_shape=plan.batch_shape,
        objective=None if plan.loss == "none" else plan.names["loss"],
        bug=name,
        code=bug.code or None,
        line=guilty[0] if guilty else None,
        lines=frozenset(guilty + near),
        instead=bug.instead,
        also=bug.also | (frozenset({"VAE202"}) if naive else frozenset()),
        arguments=constructor_arguments(plan),
        step=step(plan),
        parts=f"(lambda out: ({got['recon']}, {got['mu']}, {std}))(model(x))",
    )


def healthy_cases() -> st.SearchStrategy[Case]:
    """Files in which nothing is wrong."""
    return plans().map(case)


def broken_cases(bug: str | None = None) -> st.SearchStrategy[Case]:
    """Files with one bug: the one named, or any."""
    if bug is None:
        return st.sampled_from(sorted(BUGS)).flatmap(broken_cases)
    return plans(dict(BUGS[bug].needs)).map(lambda plan: case(plan, bug))


def write(case: Case, directory: Path) -> Path:
    """Write the file under a name that no other case has."""
    path = Path(directory) / f"generated_{next(_numbers)}.py"
    path.write_text(case.source)
    return path


def load_module(case: Case, directory: Path) -> ModuleType:
    """Write and import the file."""
    path = write(case, directory)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def load(case: Case, directory: Path) -> type[nn.Module]:
    """Write and import the file and return its model class."""
    return getattr(load_module(case, directory), case.class_name)


def build(case: Case, directory: Path) -> tuple[nn.Module, Tensor]:
    """An instance in training mode and a batch, the same ones every time."""
    model_class = load(case, directory)
    torch.manual_seed(0)
    return model_class(*case.arguments), torch.rand(case.batch_shape)


def evaluate(expression: str, model: nn.Module, x: Tensor) -> Any:
    """`case.step` or `case.parts` for this model and batch: one forward pass."""
    space = vars(sys.modules[type(model).__module__])
    return eval(expression, {**space, "torch": torch, "model": model, "x": x})


def objective(case: Case) -> Callable[[nn.Module, Tensor], Tensor] | None:
    """The user's own loss as a function of the model and the batch."""
    wanted = case.step
    return None if wanted is None else lambda model, x: evaluate(wanted, model, x)
