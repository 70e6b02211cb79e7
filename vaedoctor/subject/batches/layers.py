"""Which inputs a layer accepts: the sizes the constructor was told first, then the usual ones."""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Iterator, Mapping
from functools import cached_property, partial
from typing import Any

import torch
from torch import nn

from ..code.source import function_tree
from ..trials.slots import Shape, Slot
from ..trials.trial import attempt

KNOWN = (
    nn.Linear,
    nn.Bilinear,
    nn.modules.conv._ConvNd,
    nn.RNNBase,
    nn.RNNCellBase,
    nn.Embedding,
    nn.EmbeddingBag,
    nn.modules.batchnorm._BatchNorm,
    nn.LayerNorm,
    nn.GroupNorm,
    nn.MultiheadAttention,
)
_SHRINKING = (
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.MaxPool1d,
    nn.MaxPool2d,
    nn.MaxPool3d,
    nn.AvgPool1d,
    nn.AvgPool2d,
    nn.AvgPool3d,
)
TABLES = (nn.Embedding, nn.EmbeddingBag)
_FLAT, _WIDE = 2, 8
STEPS = 11
_SIDES = {
    1: (64, 128, 28, 32, 100, 256, 784, 1024),
    2: (28, 32, 64, 16, 8, 128, 224, 256),
    3: (16, 32, 8, 64),
}
_FILMS = [(9, 16, 16), (5, 32, 32), (9, 32, 32)]  # the first frame by itself, then fours
_SPATIAL = re.compile(
    r"size|res|shape|height|width|length|img|image|spatial|side|cube|mels|frames|points"
)
_LONG = re.compile(_SPATIAL.pattern + "|seq|len|window|steps|samples")
_WIDTH = re.compile(r"(n_?|in_?|input_?|x_?|data_?)?(dim|features|channels|size)")
_NOT_SPATIAL = ("kernel", "batch", "patch", "hidden", "latent", "embed", "layer", "input_size")


class Layers:
    """The layers of one model, and the inputs they ask for."""

    def __init__(self, model: nn.Module, hints: Mapping[str, Any], rows: int) -> None:
        self.hints = hints
        self.rows = rows
        self.names = {id(m): name for name, m in model.named_modules()}
        self.known = [m for m in model.modules() if isinstance(m, KNOWN)]
        self._model = model

    def part(self, name: str) -> nn.Module:
        """The part of the model under a name."""
        return self._model.get_submodule(name)

    @cached_property
    def pictures(self) -> list[Shape]:
        """What the decoders make of a row: the only telling of pictures with unlike sides.

        A decoder is a chain of layers from a linear one to a convolution.
        """
        found: dict[Shape, None] = {}
        for chain in (m for m in self._model.modules() if isinstance(m, nn.Sequential)):
            ends = [m for m in chain.modules() if isinstance(m, KNOWN)]
            if not ends or not isinstance(ends[0], nn.Linear):
                continue
            if not any(isinstance(m, nn.modules.conv._ConvTransposeNd) for m in ends):
                continue
            weight = ends[0].weight
            row = weight.new_zeros(2, ends[0].in_features)
            made = attempt(partial(chain, row), self._model).value
            if isinstance(made, torch.Tensor) and made.dim() > 2:
                found[(self.rows, *made.shape[1:])] = None
        return list(found)

    def slots(self, layer: nn.Module) -> list[Slot]:
        """What a layer that is reached first may be given."""
        if isinstance(layer, TABLES):
            return [Slot(s, "index", layer.num_embeddings) for s in self._shapes(layer)]
        return [Slot(s) for s in self._shapes(layer)]

    def _shapes(self, layer: nn.Module) -> list[Shape]:
        b, t = self.rows, self.steps()
        match layer:
            case nn.Linear():
                if not layer.in_features:
                    return self.vectors(self._last_width()) if self._last_width() else []
                return self.vectors(layer.in_features)
            case nn.modules.conv._ConvNd():
                dims = len(layer.kernel_size)
                if not layer.in_channels:  # a lazy one takes what comes: what is given back
                    counts = self._given_back(dims)
                    return [s for n in counts for s in self.images(n, dims)[:8]]
                images = self.images(layer.in_channels, dims)
                return [*self._strips(layer), *images]
            case nn.RNNBase():
                n = layer.input_size
                return [(b, t, n), (t, b, n)] if layer.batch_first else [(t, b, n), (b, t, n)]
            case nn.RNNCellBase():
                return [(b, layer.input_size), (b, t, layer.input_size)]
            case nn.Embedding() | nn.EmbeddingBag():
                return [(b, t), (b,), (t, b)]
            case nn.BatchNorm2d() | nn.GroupNorm():
                channels = getattr(layer, "num_features", 0) or getattr(layer, "num_channels", 0)
                return [(b, channels, *side) for side in self.sides(2)]
            case nn.modules.batchnorm._BatchNorm():
                return [(b, layer.num_features), (b, layer.num_features, t)]
            case nn.LayerNorm():
                shape = tuple(layer.normalized_shape)
                return [(b, *shape), (b, t, *shape)]
            case nn.MultiheadAttention():
                return [(b, t, layer.embed_dim)]
            case nn.Bilinear():
                return [(b, layer.in1_features)]
        return []

    def _given_back(self, dims: int) -> list[int]:
        """Of how many channels the data may be: as the last convolution gives, or as usual."""
        same = [m for m in self.known if isinstance(m, nn.modules.conv._ConvNd)]
        last = [m.out_channels for m in same if m.in_channels and len(m.kernel_size) == dims][-1:]
        return list(dict.fromkeys((*last, 3, 1)))

    def _last_width(self) -> int:
        """As wide as the last linear layer gives the data of a lazy one may be; 0 without one."""
        widths = [m.out_features for m in self.known if isinstance(m, nn.Linear) and m.in_features]
        return widths[-1] if widths else 0

    def _strips(self, layer: nn.modules.conv._ConvNd) -> list[Shape]:
        """Steps by features, where one step's features are as many as the kernel is wide."""
        kernel = tuple(layer.kernel_size)
        if len(kernel) != _FLAT or max(kernel) < _WIDE * min(kernel) or any(layer.padding):
            return []
        b, t = self.rows, max(self.steps(), min(kernel))
        sides = (t, kernel[1]) if kernel[1] > kernel[0] else (kernel[0], t)
        return [(b, layer.in_channels, *sides)]

    def vectors(self, wanted: int) -> list[Shape]:
        """Inputs whose last axis, or whose pixels, are as many as a linear layer asks for."""
        b = self.rows
        return [(b, wanted), *square_images(b, wanted), (b, self.steps(), wanted)]

    def images(self, channels: int, dims: int) -> list[Shape]:
        """Channels first in every usual size, then channels last."""
        sides = self.sides(dims)
        first = [(self.rows, channels, *side) for side in sides]
        return first + [(self.rows, *side, channels) for side in sides[:3]]

    def sides(self, dims: int) -> list[Shape]:
        """Spatial sizes: what the constructor was told first, then the usual ones."""
        found: list[Shape] = [*self._pairs()] if dims == 2 else []
        most = {1: 65_536, 2: 1024}.get(dims, 128)
        for name, value in self.hints.items():
            bare = name.lower()
            meant = _SPATIAL if dims > 1 else _LONG
            if not meant.search(bare) or any(n in bare for n in _NOT_SPATIAL):
                continue
            if isinstance(value, int) and not isinstance(value, bool) and 4 <= value <= most:
                found.append((value,) * dims)
            elif isinstance(value, tuple | list) and len(value) >= dims:
                tail = tuple(value[-dims:])
                made = {m.out_channels for m in self.known if isinstance(m, nn.Conv2d | nn.Conv3d)}
                if all(isinstance(v, int) and 2 <= v <= 1024 and v not in made for v in tail):
                    found.append(tail)
        usual: list[Shape] = [(s,) * dims for s in _SIDES[dims]]
        if dims == 3:
            usual[1:1] = _FILMS
        return list(dict.fromkeys((*found, *usual)))

    def _pairs(self) -> Iterator[Shape]:
        """A height and a width that were told apart."""
        for tall, wide in (("height", "width"), ("h", "w"), ("n_mels", "n_frames")):
            a, b = self.hints.get(tall), self.hints.get(wide)
            if isinstance(a, int) and isinstance(b, int) and a != b and min(a, b) >= 4:
                yield (a, b)

    def device(self) -> torch.device:
        """Where the layers are."""
        held = (p.device for m in self.known for p in m.parameters())
        return next(held, torch.device("cpu"))

    def steps(self) -> int:
        """The length of a sequence."""
        for name, value in self.hints.items():
            if re.search(
                r"seq|max_?len|length|_len$|block_size|(n|time)_?steps?|^steps|window|chunk|frames|horizon",
                name.lower(),
            ) and (isinstance(value, int) and 1 < value <= 8192):
                return value
        return STEPS

    def channels(self) -> list[int]:
        """Of how many channels a convolution's last map may be, the most first."""
        found = {m.out_channels for m in self.known if isinstance(m, nn.Conv2d)}
        return sorted(found, reverse=True)[:3]

    def strides(self) -> int:
        """By how much the convolutions and pools on the way in make a picture smaller."""
        found = 1
        for module in self._model.modules():
            if isinstance(module, _SHRINKING):
                step = module.stride or module.kernel_size
                found *= int(step[0] if isinstance(step, tuple) else step)
        return found

    def mentions(self, word: str) -> bool:
        """Whether the model's forward names a function."""
        tree = function_tree(getattr(type(self._model), "forward", None))
        return tree is not None and word in ast.dump(tree)

    def bare_weights(self) -> list[Shape]:
        """Shapes from bare weights, for a model that calls `F.linear` and `F.conv2d` itself."""
        found: list[Shape] = []
        for p in [*self._model.parameters(), *_hidden_weights(self._model)]:
            if isinstance(p, nn.UninitializedParameter):
                found += [(self.rows, 37), (self.rows, 3, 32, 32)]
            elif p.dim() == 2:
                found += [(self.rows, p.shape[1]), (self.rows, p.shape[0])]
            elif p.dim() in (3, 4, 5):
                found += [(self.rows, p.shape[1], *s) for s in self.sides(p.dim() - 2)[:4]]
        if not found:
            found = [
                s
                for n in self._named_widths()
                for s in ((self.rows, self.steps(), n), (self.rows, n))
            ]
        return list(dict.fromkeys(found))[:12]

    def _named_widths(self) -> list[int]:
        """The width of the data, for a model without any weights that says it in a number.

        Its own number counts first, then those of its parts, then how wide its constants are.
        """
        parts = [vars(m) for m in self._model.modules() if m is not self._model]
        named = [
            v for h in (self.hints, *parts) for n, v in h.items() if _WIDTH.fullmatch(n.lower())
        ]
        constants = [
            b.shape[-1] for b in self._model.buffers() if b.dim() and b.is_floating_point()
        ]
        found = [v for v in (*named, *constants) if type(v) is int and 0 < v <= 4096]
        return list(dict.fromkeys(found))


def square_images(rows: int, pixels: int) -> list[Shape]:
    """Square images of so many numbers: 784 is 1x28x28 or 28x28, 3072 is 3x32x32."""
    found: list[Shape] = []
    for channels in (1, 3):
        side = math.isqrt(pixels // channels)
        if side >= 4 and channels * side * side == pixels:
            found += [(rows, channels, side, side)]
            if channels == 1:
                found += [(rows, side, side)]
    return found


def _hidden_weights(model: nn.Module) -> Iterator[Any]:
    """Tensors in plain lists and attributes: a model may keep its weights there."""
    for module in model.modules():
        for value in vars(module).values():
            held = value if isinstance(value, list | tuple) else [value]
            for one in held:
                if hasattr(one, "requires_grad") and one.requires_grad and hasattr(one, "shape"):
                    yield one
