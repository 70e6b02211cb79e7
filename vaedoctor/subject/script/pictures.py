"""Well-known picture data sets, without a download: random pictures of their size and range.

`MNIST(root, transform=ToTensor())` tells the shape and the range of what a loop is fed, and so do
the transforms that everybody writes. Others are not followed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

_GREY = dict.fromkeys("MNIST FashionMNIST KMNIST QMNIST EMNIST".split(), (1, 28, 28))
_SMALL = dict.fromkeys("CIFAR10 CIFAR100 SVHN".split(), (3, 32, 32))
_OWN_SIZES = "ImageFolder ImageNet LSUN Flowers102 Places365 OxfordIIITPet Food101".split()
SIZES: Mapping[str, tuple[int, int, int] | None] = {
    **_GREY,
    **_SMALL,
    "USPS": (1, 16, 16),
    "Omniglot": (1, 105, 105),
    "STL10": (3, 96, 96),
    "CelebA": (3, 218, 178),
    "LFWPeople": (3, 250, 250),
    **dict.fromkeys(_OWN_SIZES, None),
}
_VARIOUS = ((3, 240, 320), (3, 300, 200))  # no two photographs need be alike
_SQUARE = (3, 256, 256)
_CLASSES = 10
_LEVELS = 255


class NotFollowed(Exception):
    """A transform that is not known, or not known to give tensors."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture before it is a tensor for torch: values in [0, 1]."""

    values: Tensor  # (C, H, W)


Transform = Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class Pictures:
    """A data set by its name; `name` says what it is made up like."""

    name: str
    transform: Transform | None = None
    length: int = 4096
    size: tuple[int, int, int] | None = field(default=None)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[Any, int]:
        """One transformed picture and its label; raises `NotFollowed`."""
        if not 0 <= index < self.length:
            raise IndexError(index)
        size = self.size or SIZES[self.name] or self._own_size(index)
        generator = torch.Generator().manual_seed(index)
        # Black and white pixels are there, as in every real data set.
        values = (torch.rand(size, generator=generator) * 1.2 - 0.1).clamp(0, 1)
        picture: Any = Picture((values * _LEVELS).round() / _LEVELS)
        if self.transform is not None:
            picture = self.transform(picture)
        if isinstance(picture, Picture):
            raise NotFollowed("no tensor")
        return picture, index % _CLASSES

    def _own_size(self, index: int) -> tuple[int, int, int]:
        """A photograph's size. Where unlike ones come out unlike, no loader stacks them: square."""
        shapes = {self._come_out(size) for size in _VARIOUS}
        return _VARIOUS[index % len(_VARIOUS)] if len(shapes) == 1 else _SQUARE

    def _come_out(self, size: tuple[int, int, int]) -> tuple[int, ...]:
        picture: Any = Picture(torch.zeros(size))
        picture = self.transform(picture) if self.transform is not None else picture
        return tuple((picture.values if isinstance(picture, Picture) else picture).shape)


def transform_called(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Transform | None:
    """What a call of torchvision's makes: `Resize(64)`; None where that is not known."""
    first = args[0] if args else next(iter(kwargs.values()), None)
    match name:
        case "Compose" | "Sequential":
            steps = [first] if callable(first) else first
            return None if steps is None else _composed(steps)
        case "Lambda":
            return _of_tensors(first) if callable(first) else None
        case "ToDtype" if kwargs.get("scale") is not True:
            return None
        case "ToTensor" | "ToImage" | "ToDtype" | "ConvertImageDtype":
            return lambda p: p.values if isinstance(p, Picture) else p
        case "Normalize":
            given = [*args, *kwargs.values()]
            return _normalized(given[0], given[1]) if len(given) > 1 else None
        case "Grayscale":
            return _grey(int(first or 1))
        case "Resize":
            return None if first is None else _sized(first)
        case "CenterCrop" | "RandomCrop" | "RandomResizedCrop":
            return None if first is None else _cropped(first)
        case "Pad":
            return _padded(first) if isinstance(first, int) else None
    return _unchanged if name in _SAME else None


_SAME = {
    *"RandomHorizontalFlip RandomVerticalFlip RandomRotation RandomAffine ColorJitter".split(),
    *"RandomErasing GaussianBlur ToPILImage AutoAugment RandAugment RandomPerspective".split(),
}


def _unchanged(picture: Any) -> Any:
    return picture


def _composed(steps: Sequence[Transform]) -> Transform:
    def run(picture: Any) -> Any:
        for step in steps:
            picture = step(picture)
        return picture

    return run


def _of_tensors(function: Callable[[Any], Any]) -> Transform:
    def run(picture: Any) -> Any:
        if isinstance(picture, Picture):
            raise NotFollowed("a function of a PIL image")
        return function(picture)

    return run


def _on_values(change: Callable[[Tensor], Tensor]) -> Transform:
    """A transform of pictures and tensors alike."""

    def run(picture: Any) -> Any:
        if isinstance(picture, Picture):
            return Picture(change(picture.values))
        if not isinstance(picture, Tensor) or picture.dim() != 3:
            raise NotFollowed("no picture")
        return change(picture)

    return run


def _normalized(mean: Any, std: Any) -> Transform:
    def run(picture: Any) -> Any:
        if not isinstance(picture, Tensor):
            raise NotFollowed("no tensor")
        of, by = (torch.as_tensor(v, dtype=picture.dtype).reshape(-1, 1, 1) for v in (mean, std))
        return (picture - of) / by

    return run


def _grey(channels: int) -> Transform:
    return _on_values(lambda v: v.mean(0, keepdim=True).expand(channels, -1, -1).clone())


def _sized(size: Any) -> Transform:
    def run(values: Tensor) -> Tensor:
        height, width = values.shape[-2:]
        if isinstance(size, int):  # the shorter side
            scale = size / min(height, width)
            sides = (max(size, int(height * scale)), max(size, int(width * scale)))
        else:
            sides = _sides(size)
        rows = torch.linspace(0, height - 1, sides[0]).round().long()
        columns = torch.linspace(0, width - 1, sides[1]).round().long()
        return values[:, rows][:, :, columns]

    return _on_values(run)


def _cropped(size: Any) -> Transform:
    def run(values: Tensor) -> Tensor:
        height, width = _sides(size)
        again = [math.ceil(a / b) for a, b in zip((height, width), values.shape[-2:], strict=True)]
        return values.repeat(1, *again)[:, :height, :width]

    return _on_values(run)


def _padded(by: int) -> Transform:
    return _on_values(lambda v: torch.nn.functional.pad(v, (by, by, by, by)))


def _sides(size: Any) -> tuple[int, int]:
    if isinstance(size, int):
        return size, size
    sides = [int(s) for s in size]
    return sides[0], sides[-1]
