"""Hypothesis strategies for the batches of a VAE, for users' own tests and for the hunt.

```python
@given(vaedoctor.strategies.batches(784))
def test_finite(x):
    x_hat, mu, logvar = VAE()(x)
    assert x_hat.isfinite().all()
```
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from hypothesis import strategies as st
from torch import Tensor

SCALES = (1.0, 10.0, 100.0, 1e3, 1e4, 0.1, 1e-3, 1e-6)
KINDS = ("constant", "uniform", "normal", "one-hot", "integers")


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to make one batch: simple enough to shrink, and to be written down as code."""

    shape: tuple[int, ...]
    kind: str = "constant"
    scale: float = 1.0
    seed: int = 0
    limit: int = 0

    @property
    def code(self) -> str:
        """An expression that makes the same batch after `torch.manual_seed(seed)`."""
        shape = ", ".join(map(str, self.shape))
        if self.kind == "constant":
            return f"torch.full({self.shape}, {self.scale!r})"
        if self.kind == "one-hot":
            return (
                f"torch.eye({self.shape[-1]})[torch.randint({self.shape[-1]}, {self.shape[:-1]})]"
            )
        if self.kind == "integers":
            return f"torch.randint({self.limit}, {self.shape})"
        made = {"uniform": "rand", "normal": "randn"}[self.kind]
        return f"{self.scale!r} * torch.{made}({shape})"

    def make(self) -> Tensor:
        """The batch. Leaves torch's generator as it was."""
        before = torch.get_rng_state()
        try:
            torch.manual_seed(self.seed)
            return self._made()
        finally:
            torch.set_rng_state(before)

    def _made(self) -> Tensor:
        if self.kind == "constant":
            return torch.full(self.shape, self.scale)
        if self.kind == "one-hot":
            return torch.eye(self.shape[-1])[torch.randint(self.shape[-1], self.shape[:-1])]
        if self.kind == "integers":
            return torch.randint(self.limit, self.shape)
        noise = torch.rand(self.shape) if self.kind == "uniform" else torch.randn(self.shape)
        return self.scale * noise


@st.composite
def recipes(draw: st.DrawFn, *features: int, max_rows: int = 8, limit: int | None = None) -> Recipe:
    """Recipes for batches of rows with the shape `features`; tokens below `limit` if it is given.

    The simplest is one row of zeros; scales go from 1e-6 to 1e4, all values are finite.
    """
    rows = draw(st.integers(1, max_rows))
    if limit is not None:
        return Recipe((rows, *features), "integers", 1.0, draw(st.integers(0, 3)), limit)
    kind = draw(st.sampled_from(KINDS[:4] if features and features[-1] <= 4096 else KINDS[:3]))
    scale = draw(st.sampled_from((0.0, *SCALES, *(-s for s in SCALES))))
    if kind != "constant":
        scale = abs(scale) or 1.0
    return Recipe((rows, *features), kind, scale, draw(st.integers(0, 3)))


def batches(
    *features: int, max_rows: int = 8, limit: int | None = None
) -> st.SearchStrategy[Tensor]:
    """Batches of float rows `(rows, *features)`, or of tokens below `limit`.

    Covers one row and several, zeros and constants, uniform, normal and one-hot values, tiny and
    large scales. Shrinks to few rows and simple values.
    """
    return recipes(*features, max_rows=max_rows, limit=limit).map(Recipe.make)
