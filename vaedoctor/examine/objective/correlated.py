"""The KL of a latent whose noise meets a matrix, as that of a full covariance, isolated.

With the decoder held and the heads forced, the Jacobian J of the sample by its noise is taken by
autograd: a row of the sample is N(m, J Jᵀ), however the matrix is made and multiplied. Its KL to
N(0, I) is ½ (|m|² + |J|² - log det J Jᵀ) but for constants: the gradient at the location has one
weight w for all elements, and that at the scale head is w (∇½|J|² - ∇½ log det J Jᵀ). What it is
instead is told only of slips that have a name. The KL the other way round is
½ (tr S⁻¹ + mᵀ S⁻¹ m + log det S) with the covariance S = J Jᵀ, and one weight for both gradients.

An estimate by one sample has these gradients on average over noise whose second moments are those
of N(0, I): the rows of a Hadamard matrix and their negatives.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ...finding import Number, Span
from ...rule import Unavailable
from ...subject.subject import Subject
from ..anatomy.anatomy import Anatomy
from ..anatomy.latents import Latent
from ..anatomy.moves import inputs_of
from ..anatomy.pinning import loss_value
from .divergence import EXACT, FAR
from .leastsquares import least_squares
from .locationscale import LocationScale
from .probe import Probe, is_matrix
from .quotients import EVEN, Pulled, gradient_at, quotient, spread

MOST_UNITS = 16  # of a sample that is scored by itself: twice as many runs
_LEFT = 5e-3  # relative, of a fit in float32 through a factorisation


@dataclass(frozen=True, slots=True)
class MatrixKL(LocationScale):
    """What the loss makes of one latent whose scale is a matrix.

    `weight` is that of a row, and `squares` and `logs` those of the covariance's trace and of its
    log-determinant, at two settings; NaN where the gradient is not made of these two. `slip` names
    what the scale's term is instead; `back` is the weight of the KL the other way round, NaN where
    the loss is none.
    """

    latent: Latent
    rows: int
    units: int
    weight: float
    far: float
    squares: tuple[float, float]
    logs: tuple[float, float]
    slip: str
    back: float
    missing: bool
    connected: bool
    at: Span | None
    sampled_at: Span | None
    clamped: Span | None

    @property
    def standard(self) -> bool:
        """Whether this is the KL to N(0, I), with some weight."""
        parts = (*self.squares, *self.logs)
        return self.weight != 0 and not self.slip and all(_near(p, self.weight) for p in parts)

    @property
    def reversed(self) -> bool:
        """Whether this is the KL from the prior to the posterior."""
        return self.back > 0

    @property
    def reverse_evidence(self) -> dict[str, Number]:
        """The measurement behind `reversed`."""
        return {"weight of KL(p || q) a row": self.back}

    @property
    def prior(self) -> str:
        """The prior that the KL is measured against."""
        return "N(0, I)"


def matrix_kl(
    subject: Subject, anatomy: Anatomy, latent: Latent, seed: int, rewind: Callable[[], None]
) -> MatrixKL:
    """Measure the KL of one such latent. Raises Unavailable with the reason."""
    probe = Probe(subject, anatomy, latent, seed, rewind, matrices=True)
    sampler = _Sampler(probe)
    first, second, far = (sampler.measure(n, r) for n, r in ((0, 1.0), (1, 1.0), (2, FAR)))
    rows, settings = sampler.rows, (first, second)
    back = first.back if all(_near(s.back, first.back) for s in (second, far)) else math.nan
    even = all(_near(s.weight, first.weight) for s in settings)
    slips = {s.slip for s in settings}
    return MatrixKL(
        latent,
        rows,
        sampler.units,
        first.weight * rows if even else math.nan,
        far.weight * rows,
        (first.square * rows, second.square * rows),
        (first.log * rows, second.log * rows),
        slips.pop() if even and len(slips) == 1 else "",
        back * rows,
        all(s.silent for s in (first, second, far)),
        any(s.connected for s in (first, second, far)),
        probe.at,
        latent.meeting.span,
        probe.clamped,
    )


def _near(one: float, other: float) -> bool:
    return abs(one - other) <= EXACT * abs(other)  # never of NaN


@dataclass(frozen=True, slots=True)
class _Setting:
    weight: float
    square: float = math.nan
    log: float = math.nan
    slip: str = ""
    back: float = math.nan
    silent: bool = False
    connected: bool = True


class _Sampler:
    """One latent with its heads forced, and with known noise for every unit."""

    def __init__(self, probe: Probe) -> None:
        self.probe = probe
        z, flow = probe.latent.z, probe.anatomy.flow
        inputs = [v.shape for v in inputs_of(probe.anatomy.recording) if v.shape]
        self.rows = inputs[0][0] if inputs else 1
        ((self.noise, unit),) = probe.noise if len(probe.noise) == 1 else ((z, 0.0),)
        alone = flow.noise[z.index] == 1 << probe.latent.draw.bit
        by_row = {v.shape[:1] for v in (z, self.noise, probe.mu, probe.h)} == {(self.rows,)}
        if unit != 1.0 or probe.counts or not (alone and by_row and probe.apart):
            raise Unavailable("the sampler's scale is a matrix, and its noise cannot be forced")
        if _read_around(probe):
            raise Unavailable("the loss reads what the sampler's matrix is made of")
        self.units = z.tensor.numel() // self.rows
        if self.noise.tensor.numel() != self.rows * self.units:
            raise Unavailable("the sampler's scale is a matrix, of other noise than a square one's")

    def measure(self, number: int, reach: float) -> _Setting:
        """The loss beside the KL of what is sampled, at one setting of heads and location."""
        mu, h = self._leaves(number, reach)
        signs = hadamard(self.units)
        drawn, location, jacobian = self._drawn(mu, h, signs[0])
        pull = drawn + self._pulled(mu, h, -signs[0])
        another = self._pulled(mu, h, signs[-1]) + self._pulled(mu, h, -signs[-1])
        if not _alike(pull, another):
            if self.units > MOST_UNITS:
                raise Unavailable("the sample has too many units for noise of every direction")
            for sign in signs[1:-1]:
                another += self._pulled(mu, h, sign) + self._pulled(mu, h, -sign)
            pull = pull + another
            pull = Pulled(0.0, pull.at_mu / len(signs), pull.at_h / len(signs), pull.connected)
        if not bool((pull.at_mu != 0).any() | (pull.at_h != 0).any()):
            return _Setting(0.0, silent=True, connected=pull.connected)
        return self._compared(pull, location, jacobian, mu, h)

    def _leaves(self, number: int, reach: float) -> tuple[Tensor, Tensor]:
        """An uneven location, and the scale head moved from where it is.

        A matrix stays triangular, or positive definite, where rows and columns are scaled alike.
        """
        probe = self.probe
        mu, _ = probe.leaves(1.0, reach)
        generator = torch.Generator().manual_seed(probe.seed + number)
        natural = probe.h.tensor.detach()
        square = natural.dim() > 2 and natural.shape[-1] == natural.shape[-2]
        made = torch.randn(natural.shape[: -1 if square else None], generator=generator)
        if square:
            sizes = (0.3 * made).exp().to(natural)
            return mu, (sizes[..., None] * natural * sizes[..., None, :]).requires_grad_(True)
        if probe.h.op is not None and probe.anatomy.flow.layer(probe.h.op):
            return mu, (natural + 0.3 * made.to(natural)).requires_grad_(True)
        return mu, (natural * (0.3 * made.to(natural)).exp()).requires_grad_(True)

    def _drawn(self, mu: Tensor, h: Tensor, sign: Tensor) -> tuple[Pulled, Tensor, Tensor]:
        """Half the pull with known noise, and the sample's location and Jacobian by the noise."""
        eps = self._laid_out(sign).requires_grad_(True)
        made = self.probe.forced(mu, h, 1.0, more={self.noise.place: lambda t: eps.clone()})
        z = made.tensors[self.probe.latent.z.index].reshape(self.rows, self.units)
        lines = []
        for unit in range(self.units):
            of = z[:, unit].sum()
            (line,) = torch.autograd.grad(of, eps, create_graph=True, allow_unused=True)
            if line is None:
                raise Unavailable("the sample does not depend on its noise")
            lines.append(line.reshape(self.rows, self.units))
        jacobian = torch.stack(lines, dim=1)
        location = z - (jacobian @ eps.detach().reshape(self.rows, self.units, 1))[..., 0]
        known = mu.detach().reshape(self.rows, -1)
        if location.shape != known.shape or not torch.allclose(location, known, atol=1e-4):
            raise Unavailable("the sampler is not location + matrix * noise")
        return Pulled.of(made.loss.sum() / 2, mu, h), location, jacobian

    def _pulled(self, mu: Tensor, h: Tensor, sign: Tensor) -> Pulled:
        """Half the pull of the loss with known noise."""
        eps = self._laid_out(sign)
        made = self.probe.forced(mu, h, 1.0, more={self.noise.place: lambda t: eps.clone()})
        return Pulled.of(made.loss.sum() / 2, mu, h)

    def _laid_out(self, sign: Tensor) -> Tensor:
        like = self.noise.tensor.detach()
        return sign.to(like).expand(self.rows, -1).reshape(like.shape).clone()

    def _compared(
        self, pull: Pulled, location: Tensor, jacobian: Tensor, mu: Tensor, h: Tensor
    ) -> _Setting:
        covariance = (jacobian @ jacobian.mT).double()
        log_det = torch.linalg.slogdet(covariance)[1].sum() / 2
        if not bool(torch.isfinite(log_det)):
            raise Unavailable("the sample's covariance is singular")
        far = torch.linalg.inv(covariance)
        m = location.double()[..., None]
        reverse = (far.diagonal(dim1=1, dim2=2).sum() + (m.mT @ far @ m).sum()) / 2 + log_det
        free = h.detach() != 0  # what is above the diagonal of a triangle is no variable
        scale = pull.at_h[free].double()
        given = torch.cat([pull.at_mu.flatten().double(), scale])
        columns = [gradient_at(reverse, mu).flatten(), gradient_at(reverse, h)[free]]
        fit = least_squares(given, [torch.cat(columns).double()])
        if fit.left < _LEFT:
            return _Setting(math.nan, back=fit.weights[0])
        weights = quotient(pull.at_mu, gradient_at((location**2).sum() / 2, mu))
        if spread(weights) > EVEN or not bool((weights != 0).any()):
            raise Unavailable("the isolated KL is not one to N(0, I): another prior")
        weight = float(weights.mean())
        for slip, square, logs in _terms(jacobian, log_det):
            parts = [gradient_at(part, h)[free].double() for part in (square, logs)]
            fit = least_squares(scale, parts)
            if fit.left < _LEFT:
                times, log = fit.weights
                if not slip:
                    return _Setting(weight, times, log, _slipped(weight, times, log))
                if _near(times, weight) and _near(log, weight):
                    return _Setting(weight, times, log, slip)
        return _Setting(weight)


def _read_around(probe: Probe) -> bool:
    """Whether the loss reads what the matrix is made of, `log_diagonal`, and not it alone."""
    flow = probe.anatomy.flow
    pinned = [v for op in probe.pins for v in op.makes]
    stops = [probe.mu, probe.h, probe.latent.z, *pinned]
    around = flow.ancestors(loss_value(probe.anatomy), stop=stops)
    made_of = flow.ancestors(probe.h) - flow.ancestors(probe.mu) - {probe.h.index}
    return any(flow.data[index] for index in made_of & around)


def _slipped(weight: float, square: float, log: float) -> str:
    """What is wrong with a KL whose trace and log-determinant weigh so much.

    Another weight than these of the log-determinant is that of a prior of another width.
    """
    if not _near(square, weight):
        return ""
    for slip, factor in (("half", 0.5), ("twice", 2.0), ("none", 0.0)):
        if abs(log / weight - factor) < EXACT:
            return slip
    return ""


def _terms(jacobian: Tensor, log_det: Tensor) -> list[tuple[str, Tensor, Tensor]]:
    """Trace and log-determinant as KLs have them: the right ones first, then those of slips."""
    diagonal = jacobian.diagonal(dim1=1, dim2=2)
    found = [("", (jacobian**2).sum() / 2, -log_det)]
    if jacobian.shape[1] > 1 and bool((diagonal != 0).all()):
        found.append(("diagonal", (diagonal**2).sum() / 2, -diagonal.abs().log().sum()))
        found.append(("root", diagonal.sum() / 2, -log_det / 2))
    return found


def _alike(one: Pulled, other: Pulled) -> bool:
    """Whether the loss pulls the same with other noise, as a KL in closed form does."""
    return all(
        torch.allclose(a, b, rtol=EVEN, atol=EVEN * float(b.abs().max()))
        for a, b in ((one.at_mu, other.at_mu), (one.at_h, other.at_h))
    )


def hadamard(units: int) -> Tensor:
    """Signs whose columns, one a unit, are orthogonal: [n, units], n a power of 2."""
    made = torch.ones(1, 1)
    while len(made) < units:
        made = torch.cat([torch.cat([made, made], 1), torch.cat([made, -made], 1)])
    return made[:, :units]


def is_correlated(latent: Latent) -> bool:
    """Whether a latent is location + matrix * Gaussian noise."""
    return latent.family == "gaussian" and latent.loc is not None and is_matrix(latent)
