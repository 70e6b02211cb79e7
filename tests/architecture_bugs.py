"""One bug at a time: what it needs of the plan, the edit, the expected code, the guilty lines.

An edit works on tagged lines (see `architecture_parts`) and leaves `guilty` on the line a finding
should point at and `near` on lines that are as good an answer.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from architecture_parts import ORDERS, SAMPLERS, Plan, code_and_tags, tagged

Lines = list[str]
Edit = Callable[[Lines, Plan], Lines]


@dataclass(frozen=True)
class Bug:
    """`code` is expected; `instead` may be found in its place; `also` may be found beside it."""

    code: str
    edit: Edit | None = None
    sampler: tuple[str, ...] = ()
    needs: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    instead: frozenset[str] = frozenset()
    also: frozenset[str] = frozenset()


def edited(lines: Lines, tag: str, change: Callable[[str], str], *marks: str) -> Lines:
    """The lines with `change` applied to the code of those that carry `tag`."""
    done, hits = [], 0
    for line in lines:
        code, tags = code_and_tags(line)
        if tag in tags:
            hits += 1
            line = tagged(change(code), *sorted(tags | set(marks)))
        done.append(line)
    assert hits, f"no line carries the tag {tag}"
    return done


def marked(lines: Lines, tag: str, *marks: str) -> Lines:
    """Further tags for lines that carry `tag`, where there are any."""
    return [tagged(line, *marks) if tag in code_and_tags(line)[1] else line for line in lines]


def inserted(lines: Lines, tag: str, *new: str, after: bool = False) -> Lines:
    """New lines before (or after) the first line with `tag`, indented like it."""
    at = next(i for i, line in enumerate(lines) if tag in code_and_tags(line)[1])
    pad = " " * (len(lines[at]) - len(lines[at].lstrip()))
    return [*lines[: at + after], *(pad + line for line in new), *lines[at + after :]]


def swap(old: str, new: str) -> Callable[[str], str]:
    """Replace text that must be there."""

    def change(code: str) -> str:
        assert old in code, f"{old!r} is not in {code!r}"
        return code.replace(old, new)

    return change


def _tag_line(lines: Lines, tag: str) -> str:
    return next(line for line in lines if tag in code_and_tags(line)[1])


def single_layers(lines: Lines) -> list[tuple[str, str, str]]:
    """Role, attribute and constructor of layers with an attribute and a call of their own."""
    tags = set().union(*(code_and_tags(line)[1] for line in lines))
    found = []
    for line in lines:
        code, own = code_and_tags(line)
        made = re.fullmatch(r"\s*self\.(\w+) = (nn\..+\))", code)
        role = next((t[5:] for t in own if t.startswith("init:")), "")
        if made and f"call:{role}" in tags:
            found.append((role, made[1], made[2]))
    return found


def _picked(lines: Lines, p: Plan) -> tuple[str, str, str]:
    layers = single_layers(lines)
    return layers[p.pick % len(layers)]


def _in_container(before: str, after: str, key: str) -> Edit:
    def edit(lines: Lines, p: Plan) -> Lines:
        role, attr, made = _picked(lines, p)
        lines = edited(lines, f"init:{role}", swap(made, f"{before}{made}{after}"), "guilty")
        return edited(lines, f"call:{role}", swap(f"self.{attr}(", f"self.{attr}{key}("), "near")

    return edit


def _home(p: Plan, part: str) -> str:
    return f"super:{part if p.style == 'modules' else 'main'}"


def _plain_tensor(lines: Lines, p: Plan) -> Lines:
    h = p.names["h"]
    make = ("torch.zeros({})", "torch.randn({})", "torch.ones({})")[p.pick % 3]
    new = f"self.offset = {make.format(f'{p.flat}, requires_grad=True')}"
    lines = inserted(lines, _home(p, "encoder"), tagged(new, "guilty"), after=True)
    return inserted(lines, "heads", tagged(f"{h} = {h} + self.offset", "near"))


def _made_in_forward(lines: Lines, p: Plan) -> Lines:
    role, attr, made = _picked(lines, p)
    lines = edited(lines, f"call:{role}", swap(f"self.{attr}(", f"{made}("), "guilty")
    return [line for line in lines if f"init:{role}" not in code_and_tags(line)[1]]


def _never_called(lines: Lines, p: Plan) -> Lines:
    part = ("main", "encoder", "decoder")[p.pick % 3]
    made = ("nn.Linear({0}, {0})", "nn.BatchNorm1d({0})", "nn.GRU({0}, 3)")[p.pick % 3]
    name = ("fc_extra", "unused_norm", "later")[p.pick % 3]
    new = tagged(f"self.{name} = {made.format(p.latent)}", "guilty")
    return inserted(lines, _home(p, part), new, after=True)


def _same_head(lines: Lines, p: Plan) -> Lines:
    if p.heads == "dict":
        change = swap(f'"{p.scale}"', '"mu"')
    else:
        change = swap(f"self.{p.names['head_spread']}(", f"self.{p.names['head_mu']}(")
    lines = edited(lines, "call:spread", change, "guilty")
    return marked(marked(lines, "call:mu", "near"), "init:mu", "near")


def _fed(what: str) -> Edit:
    """The layer after the sample takes something else."""

    def edit(lines: Lines, p: Plan) -> Lines:
        n = p.names
        lines = edited(lines, "call:after", swap(f"({n['z']})", f"({n[what]})"), "guilty")
        return _near_sample(lines)

    return edit


def _fed_parameters(lines: Lines, p: Plan) -> Lines:
    n = p.names
    both = f"(torch.cat([{n['mu']}, {n['spread']}], dim=-1))"
    lines = edited(lines, "call:after", swap(f"({n['z']})", both), "guilty")
    lines = edited(lines, "init:after", swap("nn.Linear(", "nn.Linear(2 * "))
    return _near_sample(lines)


def _near_sample(lines: Lines) -> Lines:
    for tag in ("draw", "z", "sample-call"):
        lines = marked(lines, tag, "near")
    return lines


def _no_draw(lines: Lines, p: Plan) -> Lines:
    n = p.names
    lines = edited(lines, "feed", swap(f"({n['z']})", f"({n['mu']})"), "guilty")
    lines = marked(lines, "call:dec0", "near")
    gone = {"sample-call", "sampling"}
    return [line for line in lines if not gone & code_and_tags(line)[1]]


def _fed_hidden(lines: Lines, p: Plan) -> Lines:
    n = p.names
    lines = edited(lines, "feed", swap(f"({n['z']})", f"({n['h']})"), "guilty")
    first = "init:after" if p.after else "init:dec0"
    lines = edited(lines, first, _first_size(str(p.flat)))
    return _near_sample(lines)


def _first_size(new: str) -> Callable[[str], str]:
    """Another first size in `nn.Linear(size, …`; `{}` in `new` stands for the old one."""

    def change(code: str) -> str:
        return re.sub(r"nn\.Linear\(([^,]+)", lambda m: f"nn.Linear({new.format(m[1])}", code)

    return change


def _skip(lines: Lines, p: Plan) -> Lines:
    n = p.names
    x = n["x"] if p.kind == "vector" else f"{n['x']}.flatten(1)"
    joined = f"(torch.cat([{n['z']}, {x}], dim=1))"
    lines = edited(lines, "feed", swap(f"({n['z']})", joined), "guilty")
    width = p.x
    for size in p.size:
        width *= size
    lines = edited(lines, "init:dec0", _first_size(f"{{}} + {width}"))
    return marked(lines, "call:dec0", "near")


def _wrong_size(lines: Lines, p: Plan) -> Lines:
    role = "after" if p.after and p.pick % 2 else "dec0"
    lines = edited(lines, f"init:{role}", _first_size("{} + 1"), "near")
    return marked(lines, f"call:{role}", "guilty")


def _wrong_in_forward(lines: Lines, p: Plan) -> Lines:
    z = p.names["z"]
    new = (f"{z} = {z}[:, 1:]", f"{z} = torch.cat([{z}, {z}[:, :1]], dim=1)")[p.pick % 2]
    lines = inserted(lines, "feed", tagged(new, "near"))
    return marked(lines, "call:after" if p.after else "call:dec0", "guilty")


def _wider_spread(lines: Lines, p: Plan) -> Lines:
    lines = edited(lines, "init:spread", lambda c: re.sub(r"(, [^,]+)\)(,?)$", r"\1 + 2)\2", c))
    lines = marked(lines, "z", "guilty")
    for tag in ("init:spread", "call:spread", "draw", "std", "sample-call"):
        lines = marked(lines, tag, "near")
    return lines


def _chunked_rows(lines: Lines, p: Plan) -> Lines:
    lines = edited(lines, "chunk", swap(", dim=-1", ("", ", dim=0")[p.pick % 2]), "guilty")
    for tag in ("feed", "call:after" if p.after else "call:dec0"):
        lines = marked(lines, tag, "near")
    return lines


def _detached_later(lines: Lines, p: Plan) -> Lines:
    call = f"({p.names['z']})"
    return edited(lines, "call:after", swap(call, f"{call}.detach()"), "guilty")


def _no_grad_decoder(lines: Lines, p: Plan) -> Lines:
    at = next(i for i, line in enumerate(lines) if "call:dec0" in code_and_tags(line)[1])
    pad = " " * (len(lines[at]) - len(lines[at].lstrip()))
    guarded = [tagged(f"{pad}with torch.no_grad():", "near"), tagged("    " + lines[at], "guilty")]
    return [*lines[:at], *guarded, *lines[at + 1 :]]


def _before_heads(*new: str) -> Edit:
    def edit(lines: Lines, p: Plan) -> Lines:
        return inserted(lines, "heads", *(p.fill(line) for line in new))

    return edit


def _frozen_noise(lines: Lines, p: Plan) -> Lines:
    made = f"torch.randn(64, {p.latent})"
    new = (f"self.noise = {made}", f'self.register_buffer("noise", {made})')[p.pick % 2]
    return inserted(lines, _home(p, "latent"), tagged(new, "near"), after=True)


LIKE = SAMPLERS["randn_like"][0]
Z = "{mu} + {eps} * {std}"
# a ModuleDict of heads in a sequential model leaves no layer with an attribute of its own
PICKABLE = {"heads": ("two", "inline", "chunk", "split", "slice")}
ELBO = {"loss": ("function", "method")}
AFTER = {"after": (5, 8, 10)}
WITHOUT_AFTER = {"after": (0,)}
WITHOUT_Z = {"output": tuple(o for o in [*ORDERS, "dict", "nested", "list"] if "z" not in o)}
UNREGISTERED = frozenset({"VAE107", "VAE108", "VAE202", "VAE203", "VAE204"})
CUT = frozenset({"VAE202", "VAE203", "VAE204"})

BUGS: dict[str, Bug] = {
    "layer in list": Bug(
        "VAE101", _in_container("[", "]", "[0]"), needs=PICKABLE, also=UNREGISTERED
    ),
    "layer in dict": Bug(
        "VAE101", _in_container('{"layer": ', "}", '["layer"]'), needs=PICKABLE, also=UNREGISTERED
    ),
    "layer in tuple": Bug(
        "VAE101", _in_container("(", ",)", "[0]"), needs=PICKABLE, also=UNREGISTERED
    ),
    "plain tensor as parameter": Bug("VAE102", _plain_tensor, also=UNREGISTERED),
    "layer made in forward": Bug(
        "VAE103",
        _made_in_forward,
        needs={**PICKABLE, "constructor": ("literal",)},
        also=UNREGISTERED,
    ),
    "layer never called": Bug("VAE104", _never_called),
    "same head twice": Bug(
        "VAE106",
        _same_head,
        needs={"heads": ("two", "inline", "dict"), "scale": ("logvar", "log_std")},
    ),
    "layer fed mu": Bug("VAE401", _fed("mu"), needs=AFTER, instead=frozenset({"VAE307"})),
    "layer fed both parameters": Bug(
        "VAE401", _fed_parameters, needs=AFTER, instead=frozenset({"VAE307"})
    ),
    "no draw": Bug(
        "VAE301",
        _no_draw,
        needs={**WITHOUT_AFTER, **WITHOUT_Z, **ELBO, "style": ("methods", "forward")},
    ),
    "Normal.sample": Bug("VAE302", sampler=("-> Normal({mu}, {std}).sample()  #§ guilty draw",)),
    "torch.normal": Bug("VAE302", sampler=("-> torch.normal({mu}, {std})  #§ guilty draw",)),
    "z detached": Bug("VAE302", sampler=(LIKE, f"-> ({Z}).detach()  #§ guilty")),
    "sampled under no_grad": Bug(
        "VAE302",
        sampler=(
            "with torch.no_grad():  #§ near",
            f"    {LIKE}",
            f"    -> {Z}  #§ guilty",
        ),
    ),
    "z rebuilt from a list": Bug(
        "VAE302",
        sampler=(LIKE, f"{{z}} = {Z}", "-> torch.tensor({z}.tolist())  #§ guilty"),
        also=CUT,
    ),
    "z.data": Bug("VAE302", sampler=(LIKE, f"{{z}} = {Z}", "-> {z}.data  #§ guilty")),
    "z through NumPy": Bug(
        "VAE302",
        sampler=(LIKE, f"{{z}} = {Z}", "-> torch.from_numpy({z}.detach().numpy())  #§ guilty"),
        also=CUT,
    ),
    "noise shared over the batch": Bug(
        "VAE305",
        sampler=("{eps} = torch.randn(1, {d})  #§ guilty draw", f"-> {Z}  #§ near"),
        also=CUT,
    ),
    "noise cached": Bug(
        "VAE306",
        _frozen_noise,
        sampler=("{eps} = self.noise[: {mu}.size(0)]  #§ guilty", f"-> {Z}  #§ near"),
        also=CUT,
    ),
    "manual_seed before the draw": Bug(
        "VAE306",
        sampler=("torch.manual_seed(0)  #§ guilty", f"{LIKE} near", f"-> {Z}  #§ near"),
    ),
    "noise drawn and unused": Bug("VAE307", sampler=(f"{LIKE} guilty", "-> {mu} + {std}  #§ near")),
    "noise from NumPy": Bug(
        "VAE310",
        sampler=(
            "{eps} = torch.from_numpy(np.random.randn(*{mu}.shape)).float()  #§ guilty draw",
            f"-> {Z}  #§ near",
        ),
        also=CUT,
    ),
    "decoder fed the hidden vector": Bug(
        "VAE402",
        _fed_hidden,
        needs={"style": ("forward",)},
        instead=frozenset({"VAE307"}),
        also=frozenset({"VAE403"}),
    ),
    "skip from x": Bug("VAE403", _skip, needs=WITHOUT_AFTER),
    "wrong layer size": Bug("VAE501", _wrong_size),
    "wrong size in forward": Bug("VAE501", _wrong_in_forward),
    "spread of another width": Bug(
        "VAE506",
        _wider_spread,
        needs={"heads": ("two", "inline", "dict"), "gate": ("always",)},
        instead=frozenset({"VAE501"}),
    ),
    "chunked along the batch": Bug(
        "VAE506",
        _chunked_rows,
        needs={"heads": ("chunk",)},
        instead=frozenset({"VAE501", "VAE502"}),
    ),
    "detached after the layer": Bug("VAE601", _detached_later, needs=AFTER),
    "decoder's first layer under no_grad": Bug(
        "VAE601",
        _no_grad_decoder,
        needs={"sequential": (False,)},
    ),
    "gradient not finite": Bug(
        "VAE605",
        _before_heads(
            "{h} = {h} * ({h} > {h}.mean(-1, keepdim=True))",
            "{h} = {h} / (1 + torch.sqrt({h} ** 2))  #§ guilty",
        ),
        also=frozenset({"VAE803"}),
    ),
    "edited in place": Bug(
        "VAE606",
        _before_heads("{h} = torch.sigmoid({h})  #§ near", "{h} += 1.0  #§ guilty"),
    ),
}
