"""The change of variables, read off the loss: does log q of a flow's output count log |det J|?

A sample z0 = m + s·eps that a flow takes to zK has log q(zK) = log q(z0) - log |det dzK/dz0|.
With the decoder held fixed and the posterior's parameters forced, the loss's gradient at these
parameters and at the flow's weights is therefore that of

    a · (-Σ log s) + b · ½|zK|² + c · ½|z0|² + d · ½(m² + s²) + e · log |det dzK/dz0|

and a least-squares fit gives the five weights, whatever the loss is made of: -log |det J| belongs
to every log q (e = -a). Only an exact fit is judged: another prior or a further term makes it none.
The Jacobian is autograd's, row by row, with a graph of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ...finding import Span
from ...rule import Unavailable
from ...subject.subject import Subject
from ..anatomy.anatomy import Anatomy
from ..anatomy.decoders import predictions
from ..anatomy.heads import path_of
from ..anatomy.latents import Latent
from ..anatomy.pinning import first_layers, held
from ..runs.edits import Edits
from ..runs.recording import Op, Recording, Value
from ..runs.shifted import shift
from ..runs.step import run_recorded
from .flowends import flow_ends, passed_by_all, scored_before_at
from .flowsteps import Step, integrated, steps_of
from .leastsquares import (
    CLOSE,
    EXACT,
    flat_gradient,
    integrates,
    least_squares,
    log_determinants,
)
from .logdet import formula, reports, summed_over_rows
from .probe import Probe

MOST_UNITS = 64
MOST_STEPS = 16
SEEN = 0.005  # of the gradient: a log-determinant that moves it less cannot be weighed
SMALL = 0.05  # a log-determinant next to 0 cannot be told from its exponential
_HALF = 0.5


@dataclass(frozen=True, slots=True)
class Transport:
    """What the loss makes of a flow.

    Weights are relative to that of log q(z0): `log_det` is -1 when the log-determinant is counted
    once, `prior` 1 when what the decoder is given is scored. `missing` are the steps of which
    none is counted, where the others are; `instead` is the number a row that takes the place of
    the log-determinant, with its values beside the true ones. `weight` is that of log q(z0) itself,
    below 0 where the KL as a whole has the wrong sign.
    """

    latent: Latent
    steps: list[Step]
    log_det: float
    prior: float
    prior_before: float
    missing: list[Step] = field(default_factory=list)
    instead: tuple[list[float], list[float]] | None = None
    at: Span | None = None
    prior_at: Span | None = None
    weight: float = 1.0

    @property
    def scales(self) -> float:
        """How often log s of the sampler's scale s is counted beside a flow that is right; or 0.

        The log-determinant and the prior agree with each other then, and not with log q(z0).
        """
        right = abs(self.log_det + self.prior) < CLOSE and abs(self.prior_before) < CLOSE
        off = abs(abs(self.prior) - 1) > CLOSE and abs(self.prior) > CLOSE
        return 1 / self.prior if right and off and self.instead is None else 0.0

    @property
    def early(self) -> bool:
        """Whether z0 is scored under the prior, beside a log-determinant that is counted once.

        Once in the prior's own weight counts too: then it is the entropy whose weight is off.
        """
        alone = abs(self.prior) < CLOSE < abs(self.prior_before)
        once = min(abs(self.log_det + 1), abs(self.log_det + self.prior_before)) < CLOSE
        return alone and once

    @property
    def path(self) -> str:
        """The module that is the flow, where it is one."""
        paths = {step.path for step in self.steps}
        return paths.pop() if len(paths) == 1 else ""


def transports(
    subject: Subject,
    anatomy: Anatomy,
    seed: int,
    rewind: Callable[[], None],
    *,
    reach: float = 1.0,
) -> Iterator[Transport]:
    """Every flow behind a Gaussian sample whose loss fits a change of variables exactly."""
    for latent in anatomy.sampled:
        if latent.family != "gaussian" or len(latent.z.shape) != 2 or anatomy.x_hat is None:
            continue
        if not 0 < latent.z.shape[1] <= MOST_UNITS:
            continue
        own = anatomy.flow.noise[latent.z.index]
        ends = [v for v in flow_ends(anatomy, latent)[:2] if not anatomy.flow.noise[v.index] & ~own]
        for end in ends:  # a momentum that is drawn anew makes it no function of the sample
            try:
                found = _Reading(subject, anatomy, latent, end, seed, rewind, reach).judge()
            except (Unavailable, RuntimeError):  # cannot be forced, or not differentiated twice
                continue
            finally:
                rewind()
            if found is None:
                continue
            decoded = end.index in anatomy.flow.ancestors(anatomy.x_hat)
            if decoded or abs(found.prior) > CLOSE:  # else it is no flow, but a density, say
                yield found
                break


class _Reading:
    """One flow: its leaves forced, the decoder held, the loss's gradient fitted."""

    def __init__(
        self,
        subject: Subject,
        anatomy: Anatomy,
        latent: Latent,
        end: Value,
        seed: int,
        rewind: Callable[[], None],
        reach: float,
    ) -> None:
        self.subject, self.anatomy, self.latent, self.end = subject, anatomy, latent, end
        self.seed, self.rewind, self.reach = seed, rewind, reach
        self.probe = Probe(subject, anatomy, latent, seed, rewind)
        flow = anatomy.flow
        assert anatomy.x_hat is not None
        self.pins = first_layers(flow, end, *predictions(anatomy))
        if latent.z.index not in flow.ancestors(anatomy.x_hat, stop=[end]):
            entries = []
        else:  # beside the decoder
            entries = first_layers(flow, latent.z, *predictions(anatomy))
        self.pins = [*self.pins, *entries]
        behind = flow.ancestors(end, stop=[latent.z])
        self.weights = {
            id(v.tensor): v.tensor
            for v in flow.recording.values
            if v.index in behind and v.source == "parameter" and v.tensor.requires_grad
        }
        self.small = False
        self.chain = [latent.z, *(v for v in passed_by_all(flow, latent.z, end)), end]

    def judge(self) -> Transport | None:
        """The fit; with the flow's weights shifted where its log-determinant is next to 0.

        A flow that starts as the identity has none to weigh.
        """
        found = self._fit()
        if self.small:
            shift(self.weights.values())
            found = self._fit()
        return found

    def _fit(self) -> Transport | None:
        """The weights of the five terms; None where the log-determinant is too small to see."""
        run, leaves = self._run()
        values = run.values
        z0, zk = values[self.latent.z.index].tensor, values[self.end.index].tensor
        true = log_determinants(z0, zk)
        if true is None:
            return None
        self.small = bool((true.detach().abs() < SMALL).all())
        at = [*leaves, *self.weights.values()]
        loss = run.loss.sum()
        target = flat_gradient(loss, at)
        columns = [flat_gradient(term, at) for term in self._terms(values, leaves, z0, zk)]
        fit = least_squares(target, [*columns, flat_gradient(true.sum(), at)])
        if fit.seen < SEEN:
            self.small = True
            return None
        entropy, log_det = fit.weights[0], fit.weights[-1]
        once = fit.left <= EXACT and abs(log_det + entropy) < CLOSE * abs(entropy)
        chain = [values[v.index].tensor for v in self.chain]
        traces = None if once else integrates(chain, target, columns, at)
        if traces is not None and not self._one_more(run, traces):
            return None
        if fit.left > EXACT:
            return (
                self._steps(run, target, columns, at)
                or self._misreported(run, target, columns, at)
                or self._instead(run, target, columns, at, true)
            )
        return self._read(fit.weights, run, true)

    def _run(self) -> tuple[Recording, list[Tensor]]:
        mu, h = self.probe.leaves(0.0 if self.probe.signed else 1.0, self.reach)
        if mu is not h:
            generator = torch.Generator().manual_seed(self.seed + 1)
            spread = 0.4 * torch.rand(h.shape, generator=generator).to(h)
            h = (h.detach() + spread).requires_grad_(True)
        signs = torch.Generator().manual_seed(self.seed + 2)

        def sign(t: Tensor) -> Tensor:
            return (torch.randint(0, 2, t.shape, generator=signs) * 2 - 1).to(t)

        edits: Edits = {
            self.latent.draw.value.place: sign,
            **{v.place: held(v) for op in self.pins for v in op.makes},
            self.probe.mu.place: lambda t: mu.clone(),
            self.probe.h.place: lambda t: h.clone(),
        }
        run = run_recorded(self.subject, seed=self.seed, edits=edits)
        if run.error is not None or len(run.ops) != len(self.anatomy.recording.ops):
            raise Unavailable("the step cannot be repeated with the posterior forced")
        return run, [mu] if mu is h else [mu, h]

    def _terms(
        self, values: list[Value], leaves: list[Tensor], z0: Tensor, zk: Tensor
    ) -> list[Tensor]:
        """-Σ log s, ½|zK|², ½|z0|² and ½Σ(m² + s²); m and s are read off the sampler."""
        loc = self.latent.loc
        assert loc is not None
        m = values[loc.index].tensor.expand_as(z0)
        s = (z0 - m).abs()  # the noise is ±1
        return [-s.log().sum(), 0.5 * zk.pow(2).sum(), 0.5 * z0.pow(2).sum(), _half(m, s)]

    def _read(self, weights: list[float], run: Recording, true: Tensor) -> Transport | None:
        entropy, prior, before, analytic, log_det = weights
        if not entropy:
            return None
        number = self._number(run, true)
        at = number.op.span if number is not None and number.op is not None else None
        counted_once = abs(log_det + entropy) < CLOSE * abs(entropy) < abs(prior)
        if number is not None and not counted_once:
            at = next((op.span for op in self._on_the_way_to_the_loss(number)), at)
        times = abs(log_det / entropy)
        if number is None and abs(times - len(true)) < CLOSE * len(true):
            at = summed_over_rows(self.anatomy, self.latent, self.end)
        elif number is None and abs(times - 1) > CLOSE and times > CLOSE:
            told = reports(self.anatomy.flow, self.latent.z, self.end)
            at = next((formula(made).span for _, _, made in told), None)
        return Transport(
            self.latent,
            steps_of(self.chain),
            log_det / entropy,
            prior / entropy,
            (before + analytic) / entropy,
            at=at or self._meeting(),
            prior_at=scored_before_at(self.anatomy, self.latent, self.end) or self.probe.at,
            weight=entropy,
        )

    def _one_more(self, run: Recording, traces: Tensor) -> bool:
        """Whether the model computes determinants, which a step of rank one has at 1 + trace."""
        made = (run.values[v.index].tensor.detach().double() for v in self._numbers(run))
        apart = [m.flatten() - traces for m in made if m.numel() == len(traces)]
        return any(_alike(a, a.mean().expand_as(a)) and float(a.mean()) > _HALF for a in apart)

    def _steps(
        self, run: Recording, target: Tensor, columns: list[Tensor], at: list[Tensor]
    ) -> Transport | None:
        """Whether the loss counts some steps only."""
        parts = steps_of(self.chain)
        if not 1 < len(parts) <= MOST_STEPS:
            return None
        dets = [
            log_determinants(run.values[p.before.index].tensor, run.values[p.after.index].tensor)
            for p in parts
        ]
        flats = [
            torch.zeros_like(target) if d is None else flat_gradient(d.sum(), at) for d in dets
        ]
        moved = [(p, f) for p, f in zip(parts, flats, strict=True) if bool((f != 0).any())]
        fit = least_squares(target, [*columns, *(f for _, f in moved)])
        entropy = fit.weights[0]
        if fit.left > EXACT or entropy <= 0:
            return None
        counted = [w / entropy for w in fit.weights[len(columns) :]]
        missing = [p for (p, _), w in zip(moved, counted, strict=True) if abs(w) < CLOSE]
        rest = [w for w in counted if abs(w) >= CLOSE]
        if not missing or not rest or any(abs(w + 1) > CLOSE for w in rest):
            return None
        prior, before, analytic = (w / entropy for w in fit.weights[1:4])
        return Transport(
            self.latent, parts, -1.0, prior, before + analytic, missing, at=missing[0].at
        )

    def _instead(
        self,
        run: Recording,
        target: Tensor,
        columns: list[Tensor],
        at: list[Tensor],
        true: Tensor,
    ) -> Transport | None:
        """A number a row that the loss counts in the place of the log-determinant."""
        for value in reversed(self._numbers(run)):
            made = run.values[value.index].tensor
            fit = least_squares(target, [*columns, flat_gradient(made.sum(), at)])
            entropy = fit.weights[0]
            if fit.left > EXACT or fit.seen < SEEN or entropy <= 0:
                continue
            if abs(fit.weights[-1] / entropy + 1) > CLOSE:
                continue
            given = made.detach().reshape(len(true), -1).sum(1).double()
            prior, before, analytic = (w / entropy for w in fit.weights[1:4])
            return Transport(
                self.latent,
                steps_of(self.chain),
                0.0,
                prior,
                before + analytic,
                instead=(given.tolist()[:4], true.detach().tolist()[:4]),
                at=value.op.span if value.op is not None else None,
            )
        return None

    def _misreported(
        self, run: Recording, target: Tensor, columns: list[Tensor], at: list[Tensor]
    ) -> Transport | None:
        """The first step that reports another number a row than its own log-determinant.

        Judged only where the loss counts exactly what all steps report.
        """
        told = list(reports(self.anatomy.flow, self.latent.z, self.end))
        if not told or any(integrated(self.anatomy.flow, self.latent.z, n) for *_, n in told):
            return None
        given = [run.values[made.index].tensor for _, _, made in told]
        fit = least_squares(target, [*columns, flat_gradient(_total(given), at)])
        entropy = fit.weights[0]
        if fit.left > EXACT or fit.seen < SEEN or entropy <= 0:
            return None
        if abs(fit.weights[-1] / entropy + 1) > CLOSE:
            return None
        prior, before_flow, analytic = (w / entropy for w in fit.weights[1:4])
        for (before, after, made), number in zip(told, given, strict=True):
            ends = run.values[before.index].tensor, run.values[after.index].tensor
            true = log_determinants(*ends)
            own = number.detach().double().flatten()
            if true is None or _alike(own, true.detach()):
                continue
            op = formula(made)
            step = Step(before, after, path_of(op), op.span)
            return Transport(
                self.latent,
                [step],
                0.0,
                prior,
                before_flow + analytic,
                instead=(own.tolist()[:4], true.detach().tolist()[:4]),
                at=op.span,
            )
        return None

    def _numbers(self, run: Recording) -> list[Value]:
        """One number a row or unit, made by the flow on the way to the loss, not through zK."""
        flow, shape = self.anatomy.flow, self.latent.z.shape
        last = flow.recording.value_of(self.anatomy.recording.loss)
        assert last is not None
        way = flow.ancestors(last) - flow.ancestors(self.end)
        learned = [
            v for v in flow.recording.values if v.op is None and id(v.tensor) in self.weights
        ]
        own = flow.descendants(self.latent.z, *learned) - flow.descendants(self.end)
        shapes = ((shape[0],), (shape[0], 1), shape)
        return [
            v
            for v in flow.recording.values
            if v.index in way & own
            and v.shape in shapes
            and run.values[v.index].requires_grad
            and not integrated(flow, self.latent.z, v)
        ][-30:]

    def _number(self, run: Recording, true: Tensor) -> Value | None:
        """The log-determinant in the user's code: the first number a row that is it, or a part."""
        size = float(true.detach().abs().max()) or 1.0
        for value in self._numbers(run):
            made = run.values[value.index].tensor.detach().double()
            if made.numel() != len(true):
                continue
            made = made.flatten()
            factor = float((made * true.detach()).sum() / true.detach().pow(2).sum())
            apart = (made - factor * true.detach()).abs().max()
            if abs(factor) > CLOSE and float(apart) < 1e-3 * abs(factor) * size:
                return value
        return None

    def _meeting(self) -> Span | None:
        """Where the loss puts log q and the prior's density together."""
        flow = self.anatomy.flow
        decoded = flow.ancestors(self.anatomy.x_hat) if self.anatomy.x_hat else frozenset()
        held_ = flow.descendants(*(v for op in self.pins for v in op.makes))
        scored, own = flow.descendants(self.end), flow.descendants(self.probe.h)
        for op in flow.recording.ops:
            if not op.makes or op.out.index in decoded or op.out.index in held_:
                continue
            one = [v for v in op.reads if v.index in scored]
            other = [v for v in op.reads if v.index in own and v.index not in scored]
            if one and other:
                return op.span
        return next((op.span for op in self._on_the_way_to_the_loss(self.end)), self.probe.at)

    def _on_the_way_to_the_loss(self, value: Value) -> Iterator[Op]:
        flow = self.anatomy.flow
        decoded = flow.ancestors(self.anatomy.x_hat) if self.anatomy.x_hat else frozenset()
        for op in flow.consumers.get(value.index, ()):
            if op.makes and op.out.index not in decoded:
                yield op


def _total(numbers: list[Tensor]) -> Tensor:
    return torch.stack([number.sum() for number in numbers]).sum()


def _alike(numbers: Tensor, true: Tensor) -> bool:
    size = max(SMALL, float(true.abs().max()))
    return bool(((numbers - true).abs() < CLOSE * size).all())


def _half(m: Tensor, s: Tensor) -> Tensor:
    return 0.5 * (m.pow(2) + s.pow(2)).sum()
