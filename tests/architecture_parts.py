"""The parts of a generated VAE file: a plan makes one choice per dimension, each part is text.

Lines carry tags behind `MARK` (`init:dec0`, `call:dec0`, `draw`, `z`, …) while they are being
written; bugs find the line to edit by its tag, and the tags are stripped at the very end.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

MARK = "  #§ "
BODY = " " * 8

ACTIVATIONS = {
    "relu": ("F.relu", "nn.ReLU()"),
    "tanh": ("torch.tanh", "nn.Tanh()"),
    "elu": ("F.elu", "nn.ELU()"),
    "leaky": ("F.leaky_relu", "nn.LeakyReLU(0.2)"),
    "gelu": ("F.gelu", "nn.GELU()"),
    "silu": ("F.silu", "nn.SiLU()"),
    "softplus": ("F.softplus", "nn.Softplus()"),
}

# what the second head's raw output becomes, how std is had from it, the KL to N(0, I)
SCALES = {
    "logvar": (
        "{raw}",
        "torch.exp(0.5 * {spread})",
        "-0.5 * torch.sum(1 + {spread} - {mu}.pow(2) - {spread}.exp())",
    ),
    "log_std": (
        "{raw}",
        "{spread}.exp()",
        "torch.sum(0.5 * ({mu} ** 2 + torch.exp(2 * {spread})) - {spread} - 0.5)",
    ),
    "std": (
        "F.softplus({raw}) + 1e-4",
        "{spread}",
        "torch.sum(0.5 * ({mu} ** 2 + {spread} ** 2 - 1) - torch.log({spread}))",
    ),
    "var": (
        "torch.exp({raw}) + 1e-4",
        "torch.sqrt({spread})",
        "0.5 * torch.sum({mu} ** 2 + {spread} - 1 - torch.log({spread}))",
    ),
}

# "-> …" is what the sampler hands back, by `return` or by assignment
SAMPLERS: dict[str, tuple[str, ...]] = {
    "randn_like": ("{eps} = torch.randn_like({std})  #§ draw", "-> {mu} + {eps} * {std}"),
    "in_place": ("{eps} = torch.randn_like({std})  #§ draw", "-> {eps}.mul({std}).add_({mu})"),
    "randn_device": (
        "{eps} = torch.randn({mu}.size(), device={mu}.device)  #§ draw",
        "-> {mu} + {std} * {eps}",
    ),
    "rsample": ("-> Normal({mu}, {std}).rsample()  #§ draw",),
    "addcmul": (
        "{eps} = torch.randn_like({mu})  #§ draw",
        "-> torch.addcmul({mu}, {eps}, {std})",
    ),
    "new_empty": (
        "{eps} = {std}.new_empty({std}.size()).normal_()  #§ draw",
        "-> {eps} * {std} + {mu}",
    ),
    # right on the CPU only: VAE202 may say so
    "randn_shape": ("{eps} = torch.randn({mu}.shape)  #§ draw", "-> {mu} + {std} * {eps}"),
}

ORDERS = {
    "recon, mu, spread": ("recon", "mu", "spread"),
    "mu, spread, recon": ("mu", "spread", "recon"),
    "recon, spread, mu": ("recon", "spread", "mu"),
    "recon, x, mu, spread": ("recon", "x", "mu", "spread"),
    "recon, mu, spread, z": ("recon", "mu", "spread", "z"),
    "z, recon, mu, spread": ("z", "recon", "mu", "spread"),
}


@dataclass(frozen=True)
class Plan:
    """One choice per dimension. `x` counts features or channels, `size` is what follows them."""

    kind: str
    style: str
    sequential: bool
    batch: int
    x: int
    encoder: tuple[int, ...]
    latent: int
    after: int
    decoder: tuple[int, ...]
    activation: str
    activation_module: bool
    norm: str
    heads: str
    scale: str
    sampler: str
    gate: str
    output: str
    loss: str
    loss_takes: str
    total: str
    closed_kl: bool
    sigmoid: bool
    constructor: str
    header: int
    pick: int
    names: Mapping[str, str]

    @property
    def size(self) -> tuple[int, ...]:
        """The axes behind the channels; for a sequence the steps in front of the features."""
        return {"vector": (), "image": (8, 16), "signal": (16,), "sequence": (6,)}[self.kind]

    @property
    def inner(self) -> tuple[int, ...]:
        """The spatial axes after the encoder's strided layers."""
        return tuple(s >> len(self.encoder) for s in self.size)

    @property
    def flat(self) -> int:
        """Width of the hidden vector that the heads take."""
        if self.kind == "sequence":
            return self.encoder[0]
        return self.encoder[-1] * math.prod(self.inner)

    @property
    def batch_shape(self) -> tuple[int, ...]:
        if self.kind == "sequence":
            return (self.batch, *self.size, self.x)
        return (self.batch, self.x, *self.size)

    def arg(self, name: str) -> str:
        """A constructor size: the parameter's name, or the number where it has none."""
        value = {"x": self.x, "h": self.encoder[0], "z": self.latent, "after": self.after}[name]
        return str(value) if self.constructor == "literal" else self.names[f"{name}_dim"]

    def fill(self, template: str, **more: str) -> str:
        return template.format_map({**self.names, **more})


def tagged(line: str, *tags: str) -> str:
    """The line with further tags."""
    return line + (" " if MARK in line else MARK) + " ".join(tags)


def code_and_tags(line: str) -> tuple[str, frozenset[str]]:
    code, _, tags = line.partition(MARK)
    return code, frozenset(tags.split())


def indent(lines: list[str], by: int = 4) -> list[str]:
    return [" " * by + line for line in lines]


def _activate(p: Plan, inside: str) -> str:
    return f"{'self.act' if p.activation_module else ACTIVATIONS[p.activation][0]}({inside})"


def _norm(p: Plan, width: str) -> str:
    conv = p.kind in ("image", "signal")
    layer = {
        "batch": f"nn.BatchNorm{2 if p.kind == 'image' else 1}d({width})",
        "layer": f"nn.GroupNorm(1, {width})" if conv else f"nn.LayerNorm({width})",
        "dropout": "nn.Dropout(0.1)",
    }
    return layer.get(p.norm, "")


def layer_line(attr: str, made: str, role: str) -> str:
    return tagged(f"self.{attr} = {made}", f"init:{role}")


def _act_line(p: Plan) -> list[str]:
    return [f"self.act = {ACTIVATIONS[p.activation][1]}"] if p.activation_module else []


def encoder(p: Plan) -> tuple[list[str], list[str]]:
    """Layers and statements from x to the hidden vector h."""
    n = p.names
    first, h, x = p.arg("h"), n["h"], n["x"]
    widths = [first, *map(str, p.encoder[1:])]
    norm = _norm(p, first)
    if p.kind == "sequence":
        made = f"nn.GRU({p.arg('x')}, {first}, num_layers={len(p.encoder)}, batch_first=True)"
        init = [layer_line(f"{n['enc']}0", made, "enc0")]
        body = [tagged(f"_, {h} = self.{n['enc']}0({x})", "call:enc0"), f"{h} = {h}[-1]"]
        if norm:
            init.append(layer_line(n["norm"], norm, "norm"))
            body.append(f"{h} = self.{n['norm']}({h})")
        return init, body
    if p.kind == "vector":
        make, rest = "nn.Linear", ""
    else:
        make = f"nn.Conv{len(p.size)}d"
        rest = ", 4, stride=2, padding=1" if p.pick % 2 else ", kernel_size=3, stride=2, padding=1"
    layers = [
        f"{make}({a}, {b}{rest})" for a, b in zip([p.arg("x"), *widths], widths, strict=False)
    ]
    if p.sequential:
        inside = []
        for i, layer in enumerate(layers):
            inside.append(tagged(f"    {layer},", f"init:enc{i}"))
            inside += [f"    {norm},"] if norm and i == 0 else []
            inside.append(f"    {ACTIVATIONS[p.activation][1]},")
        inside += ["    nn.Flatten(),"] if p.size else []
        init = [f"self.{n['trunk']} = nn.Sequential(", *inside, ")"]
        return init, [tagged(f"{h} = self.{n['trunk']}({x})", "call:trunk")]
    init, body, before = _act_line(p), [], x
    for i, layer in enumerate(layers):
        init.append(layer_line(f"{n['enc']}{i}", layer, f"enc{i}"))
        inside_call = f"self.{n['enc']}{i}({before})"
        if norm and i == 0:
            init.append(layer_line(n["norm"], norm, "norm"))
            inside_call = f"self.{n['norm']}({inside_call})"
        body.append(tagged(f"{h} = {_activate(p, inside_call)}", f"call:enc{i}"))
        before = h
    if p.size:
        flat = (f"{h}.flatten(1)", f"torch.flatten({h}, start_dim=1)", f"{h}.view({h}.size(0), -1)")
        body.append(f"{h} = {flat[p.pick % 3]}")
    return init, body


def heads(p: Plan) -> tuple[list[str], list[str]]:
    """Layers and statements from h to mu and the spread (logvar, log_std, std or var)."""
    return _two_heads(p) if p.heads in ("two", "inline", "dict") else _one_head(p)


def _wrap(p: Plan, raw: str) -> str:
    return SCALES[p.scale][0].format(raw=raw)


def _two_heads(p: Plan) -> tuple[list[str], list[str]]:
    n = p.names
    h, made = n["h"], f"nn.Linear({_flat_name(p)}, {p.arg('z')})"
    if p.heads == "dict":
        one, two = (f'self.{n["head"]}["{key}"]({h})' for key in ("mu", p.scale))
        init = [
            f"self.{n['head']} = nn.ModuleDict(",
            "    {",
            tagged(f'        "mu": {made},', "init:mu"),
            tagged(f'        "{p.scale}": {made},', "init:spread"),
            "    }",
            ")",
        ]
    else:
        one, two = f"self.{n['head_mu']}({h})", f"self.{n['head_spread']}({h})"
        init = [layer_line(n["head_mu"], made, "mu"), layer_line(n["head_spread"], made, "spread")]
    two = _wrap(p, two)
    if p.heads == "inline" and p.style != "forward":
        return init, [tagged(f"return {one}, {two}", "heads", "call:mu", "call:spread")]
    return init, [
        tagged(f"{n['mu']} = {one}", "heads", "call:mu"),
        tagged(f"{n['spread']} = {two}", "call:spread"),
    ]


def _one_head(p: Plan) -> tuple[list[str], list[str]]:
    n = p.names
    h, mu, spread, q = n["h"], n["mu"], n["spread"], n["q"]
    init = [layer_line(n["head"], f"nn.Linear({_flat_name(p)}, 2 * {p.arg('z')})", "head")]
    raw = spread if p.scale in ("logvar", "log_std") else n["raw"]
    called = f"self.{n['head']}({h})"
    if p.heads == "chunk":
        line = f"{mu}, {raw} = {called}.chunk(2, dim=-1)"
        body = [tagged(line, "heads", "call:head", "chunk")]
    elif p.heads == "split":
        body = [tagged(f"{q} = {called}", "heads", "call:head")]
        body.append(f"{mu}, {raw} = torch.split({q}, {q}.size(1) // 2, dim=1)")
    else:
        body = [tagged(f"{q} = {called}", "heads", "call:head")]
        body += [f"half = {q}.shape[1] // 2", f"{mu}, {raw} = {q}[:, :half], {q}[:, half:]"]
    return init, body + ([f"{spread} = {_wrap(p, raw)}"] if raw != spread else [])


def _flat_name(p: Plan) -> str:
    """The heads' first size: a constructor size where the hidden vector has just that width."""
    plain = p.kind == "sequence" or (p.kind == "vector" and len(p.encoder) == 1)
    return p.arg("h") if plain else str(p.flat)


def sampler(p: Plan, broken: tuple[str, ...] = ()) -> list[str]:
    """Statements from mu and the spread to z: ends in `return` except in the forward style."""
    n = p.names
    hand = f"{n['z']} = " if p.style == "forward" else "return "
    std = SCALES[p.scale][1].format_map(n)
    lines = [] if std == n["std"] else [tagged(f"{n['std']} = {std}", "std")]
    for template in broken or SAMPLERS[p.sampler]:
        line = p.fill(template, d=str(p.latent))
        lines.append(tagged(line.replace("-> ", hand), "z") if "-> " in line else line)
    if p.gate == "always":
        return lines
    if p.style == "forward":
        return ["if self.training:", *indent(lines), "else:", f"    {n['z']} = {n['mu']}"]
    if p.gate == "early":
        return ["if not self.training:", f"    return {n['mu']}", *lines]
    return ["if self.training:", *indent(lines), f"return {n['mu']}"]


def decoder(p: Plan, z: str) -> tuple[list[str], list[str], str]:
    """Layers, statements and the final expression from the latent `z` to the reconstruction."""
    n = p.names
    d, dec, wide = n["d"], n["dec"], p.arg("after") if p.after else p.arg("z")
    widths = [str(w) for w in p.decoder]
    layers: list[str] = []
    reshape = ""
    if p.kind == "vector":
        sizes = [wide, *widths, p.arg("x")]
        layers = [f"nn.Linear({a}, {b})" for a, b in pairwise(sizes)]
    elif p.kind == "sequence":
        return _sequence_decoder(p, z, wide)
    else:
        inner = tuple(s >> len(p.decoder) for s in p.size)
        sizes = [*widths, p.arg("x")]
        layers = [f"nn.Linear({wide}, {p.decoder[0] * math.prod(inner)})"]
        layers += [
            f"nn.ConvTranspose{len(p.size)}d({a}, {b}, 4, stride=2, padding=1)"
            for a, b in pairwise(sizes)
        ]
        reshape = ", ".join(map(str, (p.decoder[0], *inner)))
    last = len(layers) - 1
    if p.sequential:
        inside = []
        for i, layer in enumerate(layers):
            inside.append(tagged(f"    {layer},", f"init:dec{i}"))
            inside += [f"    nn.Unflatten(1, ({reshape})),"] if reshape and i == 0 else []
            inside += [f"    {ACTIVATIONS[p.activation][1]},"] if i < last else []
        inside += ["    nn.Sigmoid(),"] if p.sigmoid else []
        init = [f"self.{n['back']} = nn.Sequential(", *inside, ")"]
        return init, [], tagged(f"self.{n['back']}({z})", "call:dec0")
    init, body, before = _act_line(p), [], z
    for i, layer in enumerate(layers):
        init.append(layer_line(f"{dec}{i}", layer, f"dec{i}"))
        if i < last:
            call = f"{d} = {_activate(p, f'self.{dec}{i}({before})')}"
            body.append(tagged(call, f"call:dec{i}"))
            body += [f"{d} = {d}.view(-1, {reshape})"] if reshape and i == 0 else []
            before = d
    return init, body, _final(p, f"self.{dec}{last}({before})", last)


def _sequence_decoder(p: Plan, z: str, wide: str) -> tuple[list[str], list[str], str]:
    n = p.names
    d, dec, a, b = n["d"], n["dec"], p.decoder[0], p.decoder[0] + 1
    init = [
        *_act_line(p),
        layer_line(f"{dec}0", f"nn.Linear({wide}, {a})", "dec0"),
        layer_line(f"{dec}1", f"nn.GRU({a}, {b}, batch_first=True)", "dec1"),
        layer_line(f"{dec}2", f"nn.Linear({b}, {p.arg('x')})", "dec2"),
    ]
    body = [
        tagged(f"{d} = {_activate(p, f'self.{dec}0({z})')}", "call:dec0"),
        f"{d} = {d}.unsqueeze(1).repeat(1, {p.size[0]}, 1)",
        tagged(f"{d}, _ = self.{dec}1({d})", "call:dec1"),
    ]
    return init, body, _final(p, f"self.{dec}2({d})", 2)


def _final(p: Plan, call: str, index: int) -> str:
    return tagged(f"torch.sigmoid({call})" if p.sigmoid else call, f"call:dec{index}")
