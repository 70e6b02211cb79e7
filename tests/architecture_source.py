"""Whole VAE files out of their parts: classes, output containers, the loss, the user's call."""

from __future__ import annotations

from architecture_parts import (
    MARK,
    ORDERS,
    SCALES,
    Plan,
    code_and_tags,
    decoder,
    encoder,
    heads,
    indent,
    layer_line,
    sampler,
    tagged,
)

HEADERS = (
    [],
    ['"""A small VAE."""', ""],
    ["# experiment 3, do not touch", "# TODO: tidy up", "", ""],
    ["#!/usr/bin/env python", '"""Train a VAE', "", 'on the usual data."""', ""],
)


def render(p: Plan, broken_sampler: tuple[str, ...] = ()) -> list[str]:
    """The file's lines with their tags."""
    body = [
        *_container(p),
        *(_modules(p, broken_sampler) if p.style == "modules" else _one_class(p, broken_sampler)),
        *(_loss(p, method=False) if p.loss == "function" else []),
        *_user_call(p),
    ]
    return [*HEADERS[p.header], *_imports(body), "", "", *body]


def with_imports(lines: list[str]) -> list[str]:
    """Edited lines with what they now need imported."""
    needed = "import numpy as np"
    if any("np." in line for line in lines) and needed not in lines:
        at = lines.index("import torch")
        return [*lines[:at], needed, *lines[at:]]
    return lines


def access(p: Plan) -> dict[str, str]:
    """Expressions for recon, mu and spread in terms of `out` and `model`."""
    n = p.names
    parts = ("recon", "mu", "spread")
    if p.output in ORDERS:
        return {part: f"out[{ORDERS[p.output].index(part)}]" for part in parts}
    if p.output == "list":
        return {part: f"out[{i}]" for i, part in enumerate(parts)}
    if p.output == "dict":
        return {part: f'out["{n[part]}"]' for part in parts}
    if p.output == "nested":
        return {"recon": "out[0]", "mu": "out[1][0]", "spread": "out[1][1]"}
    if p.output == "attribute":
        kept = {part: f"model.{n['kept']}{n[part]}" for part in parts[1:]}
        return {"recon": "out", **kept}
    return {part: f"out.{n[part]}" for part in parts}


def step(p: Plan) -> str | None:
    """An expression in `model` and `x` for the user's loss; None where the file has none."""
    if p.loss == "none":
        return None
    total = "[0]" if p.total == "tuple" else ""
    return f"(lambda out: {_loss_call(p, 'model', 'x')}{total})(model(x))"


def _loss_call(p: Plan, model: str, x: str) -> str:
    """The loss called on the model's output `out`."""
    name = p.names["loss"] if p.loss == "function" else f"{model}.{p.names['loss']}"
    if p.output == "attribute" or p.loss_takes == "out":
        return f"{name}(out, {x})"
    got = access(p)
    return f"{name}({got['recon']}, {x}, {got['mu']}, {got['spread']})"


def _imports(body: list[str]) -> list[str]:
    text = "\n".join(body)
    lines = ["import torch"]
    if "np." in text:
        lines.insert(0, "import numpy as np")
    if "@dataclass" in text:
        lines.insert(0, "from dataclasses import dataclass")
    if "NamedTuple" in text:
        lines.insert(0, "from typing import NamedTuple")
    lines += ["import torch.nn.functional as F"] if "F." in text else []
    lines.append("from torch import nn")
    distributions = [name for name in ("Normal", "kl_divergence") if f"{name}(" in text]
    lines += [f"from torch.distributions import {', '.join(distributions)}"] * bool(distributions)
    return lines


def _class(
    name: str, role: str, p: Plan, sizes: tuple[str, ...], init: list[str], *methods: list[str]
) -> list[str]:
    values = {"x": p.x, "h": p.encoder[0], "z": p.latent, "after": p.after}
    names = [p.arg(s) for s in sizes] if p.constructor != "literal" else []
    if p.constructor == "defaults" and role == "main":
        names = [f"{p.arg(s)}={values[s]}" for s in sizes]
    old = f"super({name}, self).__init__()"
    start = tagged("super().__init__()" if p.pick % 3 else old, f"super:{role}")
    shared = [line for line in init if line.startswith("self.act =")][:1]
    unique = shared + [line for line in init if not line.startswith("self.act =")]
    lines = [f"class {name}(nn.Module):", f"    def __init__({', '.join(['self', *names])}):"]
    lines += indent([start, *unique], 8)
    for method in methods:
        lines += ["", *indent(method)]
    return [*lines, "", ""]


def _def(name: str, given: str, body: list[str]) -> list[str]:
    return [f"def {name}(self, {given}):", *indent(body)]


def _sizes(p: Plan) -> tuple[str, ...]:
    return ("x", "h", "z", "after") if p.after else ("x", "h", "z")


def _ends_in_return(body: list[str], value: str) -> list[str]:
    return body if body[-1].startswith("return ") else [*body, f"return {value}"]


def _one_class(p: Plan, broken: tuple[str, ...]) -> list[str]:
    n = p.names
    x, mu, spread, z, w = n["x"], n["mu"], n["spread"], n["z"], n["w"]
    e_init, e_body = encoder(p)
    h_init, h_body = heads(p)
    latent = w if p.after else z
    inside = latent if p.style == "forward" else z
    d_init, d_body, final = decoder(p, inside)
    a_init, a_body = _after(p, f"self.{n['after']}")
    init = [*e_init, *h_init, *a_init, *d_init]
    extra = [_loss(p, method=True)] if p.loss == "method" else []
    if p.style == "forward":
        if not p.after:
            first = 0 if d_body else None
            d_body = [tagged(d_body[0], "feed"), *d_body[1:]] if first == 0 else d_body
            final = final if d_body else tagged(final, "feed")
        body = [
            *e_body,
            *h_body,
            *(tagged(line, "sampling") for line in sampler(p, broken)),
            *a_body,
            *d_body,
            _assign(n["recon"], final),
            *_hand_out(p),
        ]
        return _class(n["class"], "main", p, _sizes(p), init, _def("forward", x, body), *extra)
    code, tags = code_and_tags(final)
    body = [
        f"{mu}, {spread} = self.{n['encode']}({x})",
        tagged(f"{z} = self.{n['reparameterize']}({mu}, {spread})", "sample-call"),
        *a_body,
        tagged(f"{n['recon']} = self.{n['decode']}({latent})", "decode", *["feed"] * (not p.after)),
        *_hand_out(p),
    ]
    methods = [
        _def(n["encode"], x, [*e_body, *_ends_in_return(h_body, f"{mu}, {spread}")]),
        _def(n["reparameterize"], f"{mu}, {spread}", sampler(p, broken)),
        _def(n["decode"], z, [*d_body, tagged(f"return {code}", *sorted(tags))]),
        _def("forward", x, body),
        *extra,
    ]
    if p.pick % 2:
        methods[0], methods[1] = methods[1], methods[0]
    return _class(n["class"], "main", p, _sizes(p), init, *methods)


def _modules(p: Plan, broken: tuple[str, ...]) -> list[str]:
    n = p.names
    x, mu, spread, z, w = n["x"], n["mu"], n["spread"], n["z"], n["w"]
    e_init, e_body = encoder(p)
    h_init, h_body = heads(p)
    d_init, d_body, final = decoder(p, z)
    a_init, a_body = _after(p, f"self.{n['after']}")
    after = ("after",) if p.after else ()
    encoder_class = _class(
        "Encoder",
        "encoder",
        p,
        ("x", "h", "z"),
        [*e_init, *h_init],
        _def("forward", x, [*e_body, *_ends_in_return(h_body, f"{mu}, {spread}")]),
    )
    sample = f"{z} = self.{n['reparameterize']}({mu}, {spread})"
    latent_class = _class(
        "LatentLayer",
        "latent",
        p,
        ("z", *after),
        a_init,
        _def(n["reparameterize"], f"{mu}, {spread}", sampler(p, broken)),
        _def("forward", f"{mu}, {spread}", [sample, *a_body, f"return {w if p.after else z}"]),
    )
    code, tags = code_and_tags(final)
    decoder_class = _class(
        "Decoder",
        "decoder",
        p,
        (*(after or ("z",)), "x"),
        d_init,
        _def("forward", z, [*d_body, tagged(f"return {code}", *sorted(tags))]),
    )

    def made(*sizes: str) -> str:
        return "" if p.constructor == "literal" else ", ".join(p.arg(s) for s in sizes)

    init = [
        f"self.{n['trunk']} = Encoder({made('x', 'h', 'z')})",
        f"self.{n['latent']} = LatentLayer({made('z', *after)})",
        f"self.{n['back']} = Decoder({made(*(after or ('z',)), 'x')})",
    ]
    body = [
        f"{mu}, {spread} = self.{n['trunk']}({x})",
        tagged(f"{z} = self.{n['latent']}({mu}, {spread})", "sample-call"),
        tagged(f"{n['recon']} = self.{n['back']}({z})", "decode", *["feed"] * (not p.after)),
        *_hand_out(p),
    ]
    extra = [_loss(p, method=True)] if p.loss == "method" else []
    return [
        *encoder_class,
        *latent_class,
        *decoder_class,
        *_class(n["class"], "main", p, _sizes(p), init, _def("forward", x, body), *extra),
    ]


def _after(p: Plan, attr: str) -> tuple[list[str], list[str]]:
    """The linear layer after the sample, as in the question that vaedoctor starts from."""
    if not p.after:
        return [], []
    n = p.names
    init = layer_line(n["after"], f"nn.Linear({p.arg('z')}, {p.arg('after')})", "after")
    return [init], [tagged(f"{n['w']} = {attr}({n['z']})", "call:after", "feed")]


def _assign(name: str, expression: str) -> str:
    code, tags = code_and_tags(expression)
    return tagged(f"{name} = {code}", *sorted(tags))


def _hand_out(p: Plan) -> list[str]:
    n = p.names
    recon, mu, spread = n["recon"], n["mu"], n["spread"]
    if p.output in ORDERS:
        return [f"return {', '.join(n[part] for part in ORDERS[p.output])}"]
    if p.output == "list":
        return [f"return [{recon}, {mu}, {spread}]"]
    if p.output == "nested":
        return [f"return {recon}, ({mu}, {spread})"]
    if p.output == "dict":
        pairs = ", ".join(f'"{v}": {v}' for v in (recon, mu, spread))
        return [f"return {{{pairs}}}"]
    if p.output == "attribute":
        kept = n["kept"]
        return [f"self.{kept}{mu} = {mu}", f"self.{kept}{spread} = {spread}", f"return {recon}"]
    return [f"return Output({', '.join(f'{v}={v}' for v in (recon, mu, spread))})"]


def _container(p: Plan) -> list[str]:
    n = p.names
    fields = [f"    {n[part]}: torch.Tensor" for part in ("recon", "mu", "spread")]
    if p.output == "dataclass":
        return ["@dataclass", "class Output:", *fields, "", ""]
    if p.output == "namedtuple":
        return ["class Output(NamedTuple):", *fields, "", ""]
    return []


def _loss(p: Plan, *, method: bool) -> list[str]:
    n = p.names
    recon, mu, spread = n["recon"], n["mu"], n["spread"]
    body = []
    if p.output == "attribute":
        given = f"{recon}, x"
        body = [f"{mu} = self.{n['kept']}{mu}", f"{spread} = self.{n['kept']}{spread}"]
    elif p.loss_takes == "parts":
        given = f"{recon}, x, {mu}, {spread}"
    else:
        given = "out, x"
        body = [f"{n[part]} = {expression}" for part, expression in access(p).items()]
    fit = f'F.mse_loss({recon}, x, reduction="sum")'
    if p.sigmoid:
        fit = f'F.binary_cross_entropy({recon}, x, reduction="sum")'
    elif p.pick % 2:
        fit = f"0.5 * torch.sum(({recon} - x) ** 2)"
    std = SCALES[p.scale][1].format_map(n)
    kl = SCALES[p.scale][2].format_map(n)
    if not p.closed_kl:
        kl = f"kl_divergence(Normal({mu}, {std}), Normal(0.0, 1.0)).sum()"
    body += [f"fit = {fit}", tagged(f"kl = {kl}", "kl")]
    body.append(
        {
            "sum": "return fit + kl",
            "mean": "return (fit + kl) / x.size(0)",
            "tuple": "return fit + kl, fit, kl",
        }[p.total]
    )
    lines = [f"def {n['loss']}({'self, ' if method else ''}{given}):", *indent(body)]
    return lines if method else [*lines, "", ""]


def _user_call(p: Plan) -> list[str]:
    if p.constructor != "call":
        return []
    given = ", ".join(map(str, constructor_arguments(p)))
    return [
        'if __name__ == "__main__":',
        f"    vae = {p.names['class']}({given})",
        f"    data = torch.rand({', '.join(map(str, p.batch_shape))})",
        "    out = vae(data)",
        *([f"    loss = {_loss_call(p, 'vae', 'data')}"] if p.loss != "none" else []),
    ]


def constructor_arguments(p: Plan) -> tuple[int, ...]:
    """What the class must be called with: nothing when it has defaults or no parameters."""
    if p.constructor != "call":
        return ()
    return (p.x, p.encoder[0], p.latent, p.after)[: 4 if p.after else 3]


def plain(lines: list[str]) -> str:
    """The source without tags."""
    return "\n".join(line.partition(MARK)[0] for line in lines).rstrip() + "\n"
