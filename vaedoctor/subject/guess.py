"""An input made up by experiment: which layer is executed first, and what does it want?

The first registered layer is often not the first executed one, so a forward pass with a first guess
tells which layer was reached; its sizes give the next guess, until the pass comes to its end.
"""

from __future__ import annotations

import itertools
import math
import re
import time
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from .conditions import Extra, condition_sizes, extras_of, packing_of
from .sizes import Sizes
from .trial import Trial, attempt, home, leaves

_KNOWN = (
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
_STEPS = 11
_PRODUCT = re.compile(r"\(\d+x(\d+) and (\d+)x\d+\)")
_VIEW = re.compile(r"shape '\[-?\d+, ([\d, ]+)\]' is invalid for input of size (\d+)")
_MISMATCH = re.compile(r"size of tensor a \((\d+)\) must match the size of tensor b \((\d+)\)")
_SIDES = {
    1: (64, 128, 28, 32, 100, 256, 784, 1024),
    2: (28, 32, 64, 16, 8, 128, 224, 256),
    3: (16, 32, 8, 64),
}
_MOST_TRIALS = 40
_MOST_SECONDS = 8.0

Shape = tuple[int, ...]


@dataclass(slots=True)
class Made:
    """A made-up batch and how its trial ended."""

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    origin: str
    trial: Trial
    shape: Shape
    extras: Mapping[str, Any]
    score: tuple[int, int, int] = field(default=(0, 0, 0))


class Guesser:
    """Guesses the arguments of one model's forward."""

    def __init__(self, model: nn.Module, hints: Mapping[str, Any], rows: int, seed: int) -> None:
        self.model = model
        self.hints = {**_int_attributes(model), **hints}
        self.rows = rows
        self.seed = seed
        self.names = {id(m): name for name, m in model.named_modules()}
        self.layers = [m for m in model.modules() if isinstance(m, _KNOWN)]
        self.vocabulary = 0
        self.trials = 0
        self.widths: dict[str, list[int]] = {}
        self.again: set[Shape] = set()
        self.started = time.monotonic()
        self.sizes = condition_sizes(model, self.hints)

    def best(self) -> Made | None:
        """The first guess that runs and fits, else the one that got furthest; None without any."""
        best: Made | None = None
        required = [e for e in self._extras() if e.required]
        for extras in ([*required], self._extras()):
            if best is not None and (best.trial.ran or len(extras) == len(required)):
                break
            made = self._search(extras)
            if made is not None and (best is None or made.score > best.score):
                best = made
        return best

    def fill(self, shape: Shape, *, layer: nn.Module | None = None) -> Tensor:
        """Values for a shape: tokens below the vocabulary's size, else uniform in [0, 1)."""
        generator = torch.Generator().manual_seed(self.seed)
        dtype, device = home(self.model)
        layer = layer or next(iter(self.layers), None)
        if isinstance(layer, nn.Embedding | nn.EmbeddingBag):
            tokens = torch.randint(0, layer.num_embeddings, shape, generator=generator)
            return tokens.to(device)
        return torch.rand(shape, generator=generator).to(device, dtype)

    def _extras(self) -> list[Extra]:
        return extras_of(self.model, self.sizes)

    def _search(self, extras: list[Extra]) -> Made | None:
        best: Made | None = None
        queue: deque[tuple[nn.Module | None, Shape]] = deque()
        waiting = iter(self.layers)
        met: set[int] = set()
        seen: set[tuple[bool, Shape]] = set()
        if not self._enqueue_next(queue, waiting, met):
            queue.extend((None, s) for s in self._shapes_of_parameters())
        while queue or self._enqueue_next(queue, waiting, met):
            if not self._may_go_on(best):
                break
            layer, shape = queue.popleft()
            key = (isinstance(layer, nn.Embedding | nn.EmbeddingBag), shape)
            if key in seen and shape not in self.again:
                continue
            self.again.discard(shape)
            seen.add(key)
            for made in self._tries(layer, shape, extras):
                if best is None or made.score > best.score:
                    best = made
                if made.trial.ran and self._enough(layer, made):
                    return made
                self._learn(made, layer, queue, met)
            if best is not None and not queue and best.trial.calls and self._stuck(best):
                break
        return best

    def _may_go_on(self, best: Made | None) -> bool:
        if self.trials >= _MOST_TRIALS:
            return False
        late = time.monotonic() - self.started > _MOST_SECONDS
        return not (late and best is not None)

    def _enqueue_next(
        self,
        queue: deque[tuple[nn.Module | None, Shape]],
        waiting: Iterator[nn.Module],
        met: set[int],
    ) -> bool:
        for layer in waiting:
            if id(layer) not in met:
                met.add(id(layer))
                queue.extend((layer, s) for s in self._shapes(layer))
                return True
        return False

    def _stuck(self, best: Made) -> bool:
        """Whether what failed lies behind the first layer: another input would not help."""
        return best.trial.ran or sum(isinstance(c.module, _KNOWN) for c in best.trial.calls) > 1

    def _tries(self, layer: nn.Module | None, shape: Shape, extras: list[Extra]) -> Iterator[Made]:
        x = self.fill(shape, layer=layer or nn.Identity())
        for chosen in self._combinations(extras, x):
            if self.trials >= _MOST_TRIALS:
                return
            args, kwargs = packing_of(self.model, x, chosen, self.sizes)
            self.trials += 1
            trial = attempt(partial(self.model, *args, **kwargs), self.model, seed=self.seed)
            where = self.names.get(id(layer), "") if layer is not None else ""
            origin = f"made up from `{where}`" if where else "made up from the parameters' shapes"
            made = Made(args, kwargs, origin, trial, shape, chosen)
            made.score = (int(trial.ran), int(trial.ran and _fits(trial.value, x)), trial.completed)
            yield made
            if trial.ran:
                return

    def _combinations(self, extras: list[Extra], x: Tensor) -> Iterator[dict[str, Any]]:
        """One value for every extra argument: the likeliest for all, then other readings."""
        options = [
            [(e.name, v) for v in (*self._learned(e.name, x), *e.options(x))] for e in extras
        ]
        yield from (dict(c) for c in itertools.islice(itertools.product(*options), 12))

    def _learned(self, name: str, x: Tensor) -> list[Tensor]:
        return [self.fill((x.shape[0], w), layer=nn.Identity()) for w in self.widths.get(name, ())]

    def _enough(self, layer: nn.Module | None, made: Made) -> bool:
        spatial = isinstance(layer, nn.modules.conv._ConvNd | nn.GroupNorm) or layer is None
        return bool(made.score[1]) or not spatial

    def _learn(
        self,
        made: Made,
        layer: nn.Module | None,
        queue: deque[tuple[nn.Module | None, Shape]],
        met: set[int],
    ) -> None:
        """Put what the trial taught in front: the layer really reached first, the missing size."""
        calls = [c for c in made.trial.calls if isinstance(c.module, _KNOWN)]
        if not made.trial.ran:
            self._learn_from_error(made, layer, queue)
        if not calls:
            return
        first = calls[0].module
        if first is not layer and id(first) not in met:
            met.add(id(first))
            queue.extendleft((first, s) for s in reversed(self._shapes(first)))
        last = calls[-1]
        if made.trial.ran:
            return
        if last is not calls[0] and id(last.module) not in met and len(calls) < 4:
            met.add(id(last.module))
            queue.extend((last.module, s) for s in self._shapes(last.module))
        if not isinstance(last.module, nn.Linear) or not last.shape:
            return
        wanted, got = last.module.in_features, last.shape[-1]
        if len(made.shape) > 2 and last is not calls[0] and wanted != got and got:
            queue.extendleft((layer, s) for s in _rescaled(made.shape, wanted / got))

    def _learn_from_error(
        self,
        made: Made,
        layer: nn.Module | None,
        queue: deque[tuple[nn.Module | None, Shape]],
    ) -> None:
        """Torch's own messages name the size that was met and the one that was wanted."""
        message = str(made.trial.error)
        if found := _VIEW.search(message):
            per_row = int(found[2]) / self.rows
            wanted = math.prod(int(n) for n in found[1].split(", "))
            queue.extendleft((layer, s) for s in _rescaled(made.shape, wanted / per_row))
            return
        product, mismatch = _PRODUCT.search(message), _MISMATCH.search(message)
        found = product or mismatch
        if found is None:
            return
        got, wanted = int(found[1]), int(found[2])
        for name, value in made.extras.items():
            if isinstance(value, Tensor) and value.dim() == 2 and value.shape[-1] == got:
                widths = self.widths.setdefault(name, [])
                if wanted not in widths:
                    widths.insert(0, wanted)
                    self.again.add(made.shape)
                    queue.appendleft((layer, made.shape))
        last = len(made.shape) - 1
        for axis in range(1, last + 1):
            # What was met may be x beside something else: the difference is what x must change by.
            size = made.shape[axis] + wanted - got
            near = axis == last if product else abs(made.shape[axis] - got) <= 2
            if near and 1 < size <= 8192:
                other = (*made.shape[:axis], size, *made.shape[axis + 1 :])
                queue.appendleft((layer, other))

    def _shapes(self, layer: nn.Module) -> list[Shape]:
        """Input shapes for a layer that is reached first, the likeliest first."""
        b = self.rows
        match layer:
            case nn.Linear():
                return self._vectors(layer.in_features)
            case nn.modules.conv._ConvNd():
                dims = len(layer.kernel_size)
                return [(b, layer.in_channels, *side) for side in self._sides(dims)]
            case nn.RNNBase():
                t, n = self._steps(), layer.input_size
                return [(b, t, n), (t, b, n)] if layer.batch_first else [(t, b, n), (b, t, n)]
            case nn.RNNCellBase():
                return [(b, layer.input_size), (b, self._steps(), layer.input_size)]
            case nn.Embedding() | nn.EmbeddingBag():
                return [(b, self._steps()), (b,), (self._steps(), b)]
            case nn.BatchNorm2d() | nn.GroupNorm():
                channels = getattr(layer, "num_features", 0) or getattr(layer, "num_channels", 0)
                return [(b, channels, *side) for side in self._sides(2)]
            case nn.modules.batchnorm._BatchNorm():
                return [(b, layer.num_features), (b, layer.num_features, self._steps())]
            case nn.LayerNorm():
                shape = tuple(layer.normalized_shape)
                return [(b, *shape), (b, self._steps(), *shape)]
            case nn.MultiheadAttention():
                return [(b, self._steps(), layer.embed_dim)]
            case nn.Bilinear():
                return [(b, layer.in1_features)]
        return []

    def _vectors(self, wanted: int) -> list[Shape]:
        b = self.rows
        known = [
            v
            for n, v in self.hints.items()
            if isinstance(v, int) and Sizes.kind(n) == "input" and 0 < v < wanted
        ]
        less = [wanted - k for k in self.sizes if wanted - k > 0] if self._extras() else []
        # With a condition beside x, the first layer sees both joined: x is what is left of it.
        joined = [n for n in (*known, *less) if wanted - n in self.sizes] if self._extras() else []
        shapes: list[Shape] = [(b, n) for n in dict.fromkeys((*joined, wanted))]
        shapes += _images(b, wanted)
        shapes += [(b, self._steps(), wanted)]
        shapes += [(b, n) for n in known + less if (b, n) not in shapes]
        return shapes

    def _sides(self, dims: int) -> list[Shape]:
        """Spatial sizes: what the constructor was told first, then the usual ones."""
        found: list[Shape] = []
        for name, value in self.hints.items():
            if not re.search(r"size|res|shape|height|width|length|img|image|spatial", name.lower()):
                continue
            if "kernel" in name or "batch" in name or "patch" in name or "hidden" in name:
                continue
            if isinstance(value, int) and not isinstance(value, bool) and 4 <= value <= 512:
                found.append((value,) * dims)
            elif isinstance(value, tuple | list | torch.Size) and len(value) >= dims:
                tail = tuple(value[-dims:])
                if all(isinstance(v, int) and 2 <= v <= 1024 for v in tail):
                    found.append(tail)
        return list(dict.fromkeys((*found, *((s,) * dims for s in _SIDES[dims]))))

    def _steps(self) -> int:
        for name, value in self.hints.items():
            bare = name.lower()
            if re.search(r"seq|max_?len|length|block_size|n_?steps|window", bare) and (
                isinstance(value, int) and 1 < value <= 2048
            ):
                return value
        return _STEPS

    def _shapes_of_parameters(self) -> list[Shape]:
        """Shapes from bare weights, for a model that calls `F.linear` and `F.conv2d` itself."""
        found: list[Shape] = []
        for p in self.model.parameters():
            if isinstance(p, nn.UninitializedParameter):
                found += [(self.rows, 37), (self.rows, 3, 32, 32)]
            elif p.dim() == 2:
                found += [(self.rows, p.shape[1]), (self.rows, p.shape[0])]
            elif p.dim() in (3, 4, 5):
                found += [(self.rows, p.shape[1], *s) for s in self._sides(p.dim() - 2)[:4]]
        return list(dict.fromkeys(found))[:12]


def _rescaled(shape: Shape, factor: float) -> list[Shape]:
    """The shape with as many times the pixels (or the width) as a flattened layer asks for."""
    dims = len(shape) - 2
    if dims < 1:
        return [(shape[0], round(shape[-1] * factor))] if factor > 0 else []
    side = round(shape[2] * factor ** (1 / dims))
    return [(*shape[:2], *(side,) * dims)] if 1 < side <= 512 else []


def _images(rows: int, wanted: int) -> list[Shape]:
    """Square images that flatten to a width: 784 is 1x28x28, 3072 is 3x32x32."""
    found: list[Shape] = []
    for channels in (1, 3):
        side = math.isqrt(wanted // channels)
        if side >= 4 and channels * side * side == wanted:
            found += [(rows, channels, side, side)]
            if channels == 1:
                found += [(rows, side, side)]
    return found


def _fits(output: Any, x: Tensor) -> bool:
    """Whether some output, other than x itself, is shaped like x or has as many numbers."""
    for _, value in leaves(output):
        tensor = value if isinstance(value, Tensor) else getattr(value, "mean", None)
        if not isinstance(tensor, Tensor) or tensor is x:
            continue
        if tensor.shape == x.shape:
            return True
        if tensor.shape[:1] == x.shape[:1] and tensor.numel() == x.numel() and x.dim() > 1:
            return True
        if not x.is_floating_point() and tensor.shape[: x.dim()] == x.shape:
            return True
    return False


def _int_attributes(model: nn.Module) -> dict[str, Any]:
    kinds = (int, tuple, list)
    return {
        k: v
        for k, v in vars(model).items()
        if isinstance(v, kinds) and not isinstance(v, bool) and not k.startswith("_")
    }
