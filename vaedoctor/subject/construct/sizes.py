"""Made-up constructor arguments: small, and all different.

Equal sizes hide a wrong chain (32 meets 32 by coincidence), so every name gets a prime of its own
first; sizes that divide each other are the second try.
"""

from __future__ import annotations

import inspect
import re
import types
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from .making import Call

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
_SIDES = (32, 32)
_NODES = 8  # as many as a made-up batch has rows: a graph's nodes are its rows
_RING = [[0, 1, 2, 3, 4, 5, 6, 7], [1, 2, 3, 4, 5, 6, 7, 0]]
_DROPOUT = r".*(dropout|drop|p_drop|drop_rate|drop_prob|dropout_p)(_rate|_prob)?|p"
_FIXED: tuple[tuple[str, tuple[Any, ...]], ...] = (
    (r"device", (torch.device("cpu"),)),
    (r"device", ("cpu",)),  # said to be a text
    (r"dtype", (torch.float32,)),
    (
        r"(use|is|has|with|add|do)_.*|bn|verbose|debug|bidir\w*|training|training_mode"
        r"|.*(bias|batch_?norm|batchnorm|residual|conditional)|(.*_)?flag",
        (False, True),
    ),
    (_DROPOUT, (0.1,)),
    (_DROPOUT, (0,)),  # said to be an int
    (
        r".*(activation|act|act_fn|nonlinearity|non_lin(earity)?|nonlin)",
        (Call(nn.ReLU, {}), nn.ReLU, "relu"),
    ),
    (r".*norm(_layer)?", (nn.LayerNorm, nn.BatchNorm2d, None)),
    (r"(max_)?action(_scale|_bound|_limit)?|max_action|temp(erature\w*|_\w+)?", (1.0,)),
    (r"pad\w*_(idx|index|id|token)|pad|blank", (0,)),
    (r"(sos|bos|go|start)\w*(_?(idx|index|id|token))?|sos|bos", (1,)),
    (r"(eos|end|stop)_?(idx|index|id|token)|eos", (2,)),
    (r"(unk|mask)_?(idx|index|id|token)|unk", (3,)),
    (r"(kernel_size|kernel|k_size|ks)", (3, 4)),
    (r"stride", (2, 1)),
    (r"(\w+_)?strides(_list)?", ([2, 2], (2, 2))),
    (r"(up|down)sampl\w*_(rates|ratios|factors|scales)", ([2, 2], (2, 2))),
    (r"(\w*_)?(up|deconv|transpose)\w*_(kernel_sizes|kernels)", ([4, 4], (4, 4))),
    (r"(\w+_)?(kernel_sizes|kernels)", ([3, 3], (3, 3))),
    (r"ch\w*_mult\w*|\w*multipliers?|mult", ((1, 2), [1, 2])),
    (r"\w*edge_?index|edges|edge_list", (Call(torch.tensor, {"data": _RING}),)),
    (r"adj\w*|a_(norm|hat)|laplacian|adjacency\w*", (Call(torch.eye, {"n": _NODES}),)),
    (r"(n|num)_(vertices|nodes|verts|atoms)", (_NODES,)),
    (r"padding", (1, 0)),
    (r"(n_?|num_?)?(\w+_)?heads?", (2, 1)),
    (
        r"(\w+_)?(n_?|num_?)(\w+_)?(layers?|blocks?|levels?|stages?|res|downs?\w*|flows?)"
        r"|(\w+_)?depth",
        (2, 1),
    ),
    (r"(\w+_)?(layers?|blocks?|res\w*|units)_per_\w+", (2, 1)),
    (
        r"(?!.*ch(ans?|annels?)?$)\w*(compression|downsampl\w*|upsampl\w*|shrink\w*)"
        r"_?(ratio|factor|rate|scale)?",
        (2, 4, 8),
    ),
    (
        r"(img|image|im|input|in|x|data|obs|sample)_?(size|res|resolution|dim|hw)?_?(shape)|shape"
        r"|(img|image)_?dims",
        ((1, 28, 28), (3, 32, 32), 28),
    ),
    (
        r"((in|input|x|data|out|output)_)?(img|image|im|spatial)_?(size|res|resolution|dim|hw|width|height"
        r"|w|h)|resolution|height|width"
        r"|size|patch_grid",
        (32, 28, 64, _SIDES),
    ),
    (r"(\w+_)?patch_size", (4, 8)),
    (r"((n|num)_?)?spatial_?(dims?|dimensions?|ndim)|(n_?|num_?)dimensions|dimensions", (2, 3, 1)),
    (
        r"((n|num)_)?(in|img|image|input|im|n|num)_?(ch|chans?|channels?|nc)|nc|channels?|c_in|chn"
        r"|n_?chan|img_ch",
        (3, 1),
    ),
    (
        r"(n_?|num_?|k_?)?(class|classes|labels?|categories|conditions|domains?)|class_(size|dim|num)|n_?class",
        (5, 10),
    ),
    (
        r".*vocab.*|(n_?|num_?)(tokens?|words?|chars?)|charset\w*|alphabet_size|codebook_size|num_embeddings",
        (41, 64),
    ),
    (
        r".*(seq|sequence)_?(len|length|size)?|max_?len(gth)?|.*_len|block_size|context_length"
        r"|(n_?|num_?)?(timesteps?|frames?|steps)|(n|num)_times|window.*|horizon|max_(nodes|set_size|sequence_length)"
        r"|(n_?|num_?)points|chunk(_size)?",
        (11, 16),
    ),
    (r"batch_?size|bs", (8,)),
    (r"(n|num)_?(modalit(y|ies)|views|modes)", (2, 3)),
    (
        r"beta|alpha|gamma|lambd?a?|kl_?weight|kld_?weight|temperature|tau|.*_weight|.*_coef.*",
        (1.0,),
    ),
    (r"eps|epsilon|.*_eps|lr|learning_rate", (1e-3,)),
    (r"(\w+_)?(std|stddev|sigma)", (1.0,)),
    (r"momentum|decay|.*slope.*|commitment.*", (0.25,)),
    (r"name|.*_name|mode|kind|.*_type|likelihood|distribution", ("gaussian", "normal", "default")),
)
_LISTED = re.compile(
    r".*(dims|sizes|channels_list|widths|units|filters|features_list|shapes)|layers|hiddens|hidden_layers"
    r"|.*_list|channel_mult.*|ch_mult|strides|kernel_sizes|.*layer_sizes"
)
_KINDS = (
    (
        "latent",
        re.compile(
            r".*(latents?|code|bottleneck|embed|embedding|emb|topics?)|d_?z|.*(^|_)(z|nz|lat|ldim)(_|$|dim)"
            r"|.*latent.*|z|nz|zdim|z_?dims?|z_?size|code_.*|embed.*|d_?model"
        ),
    ),
    (
        "hidden",
        re.compile(
            r".*(hid|hidden|inner|mid|units|h_dim|nh|ngf|ndf|base|width|filters?|capacity).*|ch|h|h\d?_?dim\d?|d_?h|ff.*"
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
            r"(in|input|inp|data|x|feature|feat|obs|observation|n_?in|n_?inputs?|gene|n_?genes?|n_?vars|state|pixels?"
            r"|n_?features|num_features)(_?(dim|size|features?|d|dims|units|len))?s?|d_?in"
            r"|.*input.*|dim|d|n|d_?x|.*_in|orig.*|n_?\\w*(features|genes|pixels)"
        ),
    ),
)


class Sizes:
    """Hands out values by parameter name: a name keeps its value, other names get other values.

    `even` takes numbers that divide each other; `shared` gives all names of one kind (all latent
    ones) the same value, for parts that name the same size differently.
    """

    def __init__(
        self,
        known: Mapping[str, Any] = types.MappingProxyType({}),
        *,
        even: bool = False,
        shared: bool = False,
    ) -> None:
        self._table = _EVEN if even else _PRIMES
        self._shared = shared
        self._given: dict[str, Any] = {}
        self._usual: dict[str, Any] = {}
        self._known = {_bare(k): v for k, v in known.items()}
        self._taken = {v for v in known.values() if isinstance(v, int)}

    def choices(self, name: str, annotation: Any = inspect.Parameter.empty) -> list[Any]:
        """Values worth trying for a parameter, the likeliest first; empty when nothing is."""
        bare = _bare(name)
        if bare in self._known:
            return [self._known[bare]]
        if bare in {"strides", "kernel_sizes"} and annotation is inspect.Parameter.empty:
            return self.named(bare)
        if self.is_list(bare) and annotation not in (int, float, str, bool):
            dims = [self.one(f"{bare}.0", "hidden"), self.one(f"{bare}.1", "hidden")]
            return [dims, tuple(dims), 2 if bare.endswith("layers") else dims[0]]  # a count
        if found := self.named(bare, annotation):
            return found
        if annotation in (str, float, bool):
            return []
        kind = self.kind(bare)
        if kind is None and annotation is not int:
            return []
        if "ch" in bare and kind == "output" and (same := self._channels()) is not None:
            return [same, self.one(bare, "other")]
        if kind == "output" and (same := self._input()) is not None:
            return [same, self.one(bare, "other")]
        return [self.one(bare, {"output": "input", None: "other"}.get(kind, kind or "other"))]

    def known(self, name: str) -> Any:
        """The value a name was given, or `inspect.Parameter.empty`."""
        return self._known.get(_bare(name), inspect.Parameter.empty)

    def named(self, name: str, annotation: Any = inspect.Parameter.empty) -> list[Any]:
        """The usual values of a well-known name (`kernel_size`, `image_shape`), else nothing."""
        bare = _bare(name)
        for pattern, values in _FIXED:
            if re.fullmatch(pattern, bare) and _fits(values[0], annotation):
                self._usual.setdefault(bare, values[0])
                return [self._of_all_axes(v) for v in values if _fits(v, annotation)]
        return []

    def _of_all_axes(self, value: Any) -> Any:
        """A picture's sides, one for every axis that was told: a volume has three."""
        axes = self._known.get("spatial_dims")
        return (value[0] // 2,) * 3 if value == _SIDES and axes == 3 else value

    def is_list(self, name: str) -> bool:
        """Whether a name means a list of sizes."""
        return _LISTED.fullmatch(_bare(name)) is not None

    def note(self, name: str, value: Any) -> None:
        """Remember the value a name was given."""
        self._known[_bare(name)] = value

    @staticmethod
    def kind(name: str) -> str | None:
        """`latent`, `hidden`, `output` or `input`; None when the name says no size."""
        bare = _bare(name)
        for kind, pattern in _KINDS:
            if pattern.fullmatch(bare):
                return kind
        if re.search(r"(dim|size|features|units|width|num|channels|filters|len)s?\d*$", bare):
            return "other"
        if re.match(r"(n|num|number|d|dim|size)_", bare):
            return "other"
        return None

    def one(self, name: str, kind: str) -> int:
        """A number for a name, different from all others of this kind and any other."""
        key = kind if self._shared and kind in {"latent", "input"} else _bare(name)
        if key not in self._given:
            free = (
                v
                for v in (*self._table.get(kind, ()), *self._table["other"])
                if v not in self._taken
            )
            self._given[key] = next(free, 127 + len(self._taken))
            self._taken.add(self._given[key])
        value: int = self._given[key]
        return value

    def _channels(self) -> int | None:
        """The channels of the data, where they or its shape were given."""
        for name, value in {**self._known, **self._usual}.items():
            if self.kind(name) == "output" or "latent" in name or "z" in name:
                continue
            if type(value) is int and "ch" in name and self.kind(name) in ("input", "other"):
                return value
            if type(value) is tuple and "shape" in name and len(value) > 1:
                return int(value[0])
        return None

    def _input(self) -> Any:
        return next((v for n, v in self._given.items() if self.kind(n) == "input"), None) or next(
            (v for n, v in self._known.items() if self.kind(n) == "input"), None
        )


def _bare(name: str) -> str:
    return name.lower().strip("_")


def _fits(value: Any, annotation: Any) -> bool:
    if annotation in (int, float, str):
        return isinstance(value, annotation) or (annotation is float and isinstance(value, int))
    return True
