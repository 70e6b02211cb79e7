"""What pulls a latent to its prior, of whichever kind the latent and the prior are."""

from __future__ import annotations

from typing import TypeAlias

from .correlated import MatrixKL
from .density import Density
from .discrete import DiscreteKL
from .divergence import Divergence
from .flowkl import FlowKL
from .laplace import LaplaceKL

Pull: TypeAlias = Divergence | Density | DiscreteKL | FlowKL | LaplaceKL | MatrixKL
