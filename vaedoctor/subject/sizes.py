"""Made-up constructor arguments: small, and all different.

Equal sizes hide a wrong chain (32 meets 32 by coincidence), so every name gets a prime of its own
first; sizes that divide each other are the second try.
"""

from __future__ import annotations

import inspect
import re
import types
import typing
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

_PRIMES: dict[str, tuple[int, ...]] = {
    "input": (37, 41, 43, 47, 53, 59),
    "hidden": (29, 31, 23, 61, 67, 71),
    "latent": (7, 11, 13, 5, 17, 19),
    "other": (17, 19, 73, 79, 83, 89, 97, 101, 103, 107, 109, 113),
}
_EVEN: dict[str, tuple[int, ...]] = {
    "input": (64, 96, 160, 192, 224, 288),
    "hidden": (32, 48, 80, 112, 144, 176),
    "latent": (16, 8, 24, 40, 56, 72),
    "other": (128, 256, 320, 384, 448, 512, 576, 640),
}
_FIXED: tuple[tuple[str, tuple[Any, ...]], ...] = (
    (r"device", (torch.device("cpu"),)),
    (r"dtype", (torch.float32,)),
    (
        r"(use|is|has|with|add|do)_.*|.*(bias|batch_?norm|batchnorm|residual|conditional)",
        (False, True),
    ),
    (r".*(dropout|drop|p_drop|drop_rate|drop_prob|dropout_p)(_rate|_prob)?|p", (0.1,)),
    (
        r".*(activation|act|act_fn|nonlinearity|non_lin(earity)?|nonlin)",
        (nn.ReLU(), nn.ReLU, "relu"),
    ),
    (r".*norm(_layer)?", (nn.LayerNorm, nn.BatchNorm2d, None)),
    (r"(kernel_size|kernel|k_size|ks)", (3, 4)),
    (r"stride", (2, 1)),
    (r"padding|pad", (1, 0)),
    (r"(n_?|num_?)?heads?|n_?head|num_attention_heads", (2, 1)),
    (r"(n_?|num_?)(layers?|blocks?|levels?|stages?|res.*|downs?.*|flows?)|depth", (2, 1)),
    (
        r"(img|image|im|input)_?(size|res|resolution|dim|hw)?_?(shape)",
        ((1, 28, 28), (3, 32, 32), 28),
    ),
    (
        r"(img|image|im|spatial)_?(size|res|resolution|dim|hw|width|height|w|h)|resolution|height|width"
        r"|size|patch_grid",
        (32, 28, 64, (32, 32)),
    ),
    (r"patch_size", (4, 8)),
    (
        r"(in|img|image|input|im|n|num)_?(ch|chan|channels?|channel|nc)|nc|channels?|c_in|chn|n_?chan",
        (3, 1),
    ),
    (
        r"(n_?|num_?|k_?)?(class|classes|labels?|categories|conditions)|class_(size|dim|num)|n_?class",
        (5, 10),
    ),
    (r".*vocab.*|(n_?|num_?)(tokens?|words?)", (41,)),
    (
        r".*(seq|sequence)_?(len|length|size)?|max_?len(gth)?|.*_len|block_size|context_length"
        r"|(n_?)?timesteps?|window.*",
        (11, 16),
    ),
    (r"batch_?size|bs", (8,)),
    (
        r"beta|alpha|gamma|lambd?a?|kl_?weight|kld_?weight|temperature|tau|.*_weight|.*_coef.*",
        (1.0,),
    ),
    (r"eps|epsilon|.*_eps|lr|learning_rate", (1e-3,)),
    (r"momentum|decay|.*slope.*|commitment.*", (0.25,)),
    (r"name|.*_name|mode|kind|.*_type", ("gaussian", "normal", "default")),
)
_LISTED = re.compile(
    r".*(dims|sizes|channels_list|widths|units|filters|features_list|shapes)|layers|hiddens|hidden_layers"
    r"|.*_list|channel_mult.*|ch_mult|strides|kernel_sizes|.*layer_sizes"
)
_KINDS = (
    (
        "latent",
        re.compile(
            r".*(latent|code|bottleneck|embed|embedding|emb)|.*(^|_)(z|nz|lat|ldim)(_|$|dim)"
            r"|.*latent.*|z|nz|zdim|z_?dims?|z_?size|code_.*|embed.*|d_?model"
        ),
    ),
    (
        "hidden",
        re.compile(
            r".*(hid|hidden|inner|mid|units|h_dim|nh|ngf|ndf|base).*|h|h\d?_?dim\d?|d_?h|ff.*"
        ),
    ),
    (
        "output",
        re.compile(
            r"(out|output|n_?out|y|target)(_?(dim|size|features?|d|channels?|ch|shape|len))?"
            r"|.*_out"
        ),
    ),
    (
        "input",
        re.compile(
            r"(in|input|inp|data|x|feature|feat|obs|observation|n_?in|n_?inputs?|gene|n_?genes?"
            r"|n_?features|num_features)(_?(dim|size|features?|d|dims|units|len))?s?|d_?in"
            r"|.*input.*|dim|d|n|.*_in|orig.*"
        ),
    ),
)


class Sizes:
    """Hands out values by parameter name: a name keeps its value, other names get other values."""

    def __init__(
        self, known: Mapping[str, Any] = types.MappingProxyType({}), *, even: bool = False
    ) -> None:
        self._table = _EVEN if even else _PRIMES
        self._given: dict[str, Any] = {}
        self._known = dict(known)
        self._taken = {v for v in known.values() if isinstance(v, int)}

    def choices(self, name: str, annotation: Any = inspect.Parameter.empty) -> list[Any]:
        """Values worth trying for a parameter, the likeliest first; empty when nothing is."""
        bare = name.lower().strip("_")
        if bare in self._known:
            return [self._known[bare]]
        if (typed := _by_annotation(annotation)) is not None:
            return typed
        listed = _is_list(annotation)
        if listed or (_LISTED.fullmatch(bare) and annotation is not int):
            dims = [self._one(f"{bare}.0", "hidden"), self._one(f"{bare}.1", "hidden")]
            return [dims, tuple(dims), dims[0]] if not listed else [dims, dims[:1]]
        for pattern, values in _FIXED:
            if re.fullmatch(pattern, bare) and _fits(values[0], annotation):
                return list(values)
        kind = self.kind(bare)
        if kind is None and annotation is not int:
            return []
        if kind == "output" and (same := self._input()) is not None:
            return [same, self._one(bare, "other")]
        return [self._one(bare, {"output": "input", None: "other"}.get(kind, kind or "other"))]

    def note(self, name: str, value: Any) -> None:
        """Remember the value a name was given."""
        self._known[name.lower().strip("_")] = value

    @staticmethod
    def kind(name: str) -> str | None:
        """`latent`, `hidden`, `output` or `input`; None when the name says no size."""
        bare = name.lower().strip("_")
        for kind, pattern in _KINDS:
            if pattern.fullmatch(bare):
                return kind
        if re.search(r"(dim|size|features|units|width|num|channels|filters|len)s?\d*$", bare):
            return "other"
        if re.match(r"(n|num|d|dim|size)_", bare):
            return "other"
        return None

    def _input(self) -> Any:
        return next((v for n, v in self._given.items() if self.kind(n) == "input"), None) or next(
            (v for n, v in self._known.items() if self.kind(n) == "input"), None
        )

    def _one(self, name: str, kind: str) -> int:
        if name not in self._given:
            free = (
                v
                for v in (*self._table.get(kind, ()), *self._table["other"])
                if v not in self._taken
            )
            self._given[name] = next(free, 127 + len(self._taken))
            self._taken.add(self._given[name])
        value: int = self._given[name]
        return value


def _by_annotation(annotation: Any) -> list[Any] | None:
    match annotation:
        case t if t is bool:
            return [False, True]
        case t if t is torch.device:
            return [torch.device("cpu")]
        case t if t is torch.dtype:
            return [torch.float32]
        case t if isinstance(t, type) and t is nn.Module:
            return None
    if typing.get_origin(annotation) is typing.Literal:
        return list(typing.get_args(annotation))
    return None


def _is_list(annotation: Any) -> bool:
    if annotation in (list, tuple):
        return True
    origin = typing.get_origin(annotation)
    if origin in (typing.Union, types.UnionType):
        inner = [_is_list(a) for a in typing.get_args(annotation) if a is not type(None)]
        return bool(inner) and all(inner)
    return isinstance(origin, type) and issubclass(origin, typing.Sequence)


def _fits(value: Any, annotation: Any) -> bool:
    if annotation in (int, float, str):
        return isinstance(value, annotation) or (annotation is float and isinstance(value, int))
    return True
