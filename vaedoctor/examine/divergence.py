"""The KL, isolated: what is left of the loss when the decoder is held fixed.

The outputs of the first layers after the sample are replaced by constants, so the loss depends on
the posterior's parameters through KL-like terms only, even when the user returns one total. The
two heads are forced to known values and the noise to +1 and -1: the mean of the two runs has the
gradient of the exact KL to N(0, I) whether the loss computes it in closed form or by one sample
(the terms that are odd in the noise cancel, and eps² = 1).

With the sampler's own location m = (z₊ + z₋)/2 and scale s = (z₊ - z₋)/2 the reference is
K = ½ Σ (m² + s² - log s²) (Kingma and Welling 2014, appendix B), so that any parametrisation is
compared with what is really sampled: `weight` is dL/dm over dK/dm, `ratios` dL/dh over
weight · dK/dh at two values of the scale head, 1 for every exact Gaussian KL.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Set
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from ..finding import Number, Span
from ..rule import Unavailable
from ..subject.subject import Subject
from .anatomy import Anatomy, inputs_of
from .decoders import predictions
from .flow import PAIRWISE, RESHAPES, SLICES, Flow
from .latents import ADDS, MULS, PRODUCTS, Latent, same_posterior
from .recorder import Edits
from .recording import Op, Value
from .repeat import Repeated, repeat

AFFINE = frozenset({"gaussian", "uniform"})
CLAMPS = frozenset("clamp clamp_ clip clamp_min clamp_max max maximum relu".split())
EXACT = 0.02  # |R - 1| of an exact KL in float32 stays far below; the mildest known slip gives .42
LEARNED = 5e-3  # the same, of a prior whose every element differs
EVEN = 1e-3  # relative spread of the weight over elements: larger means another prior or term
FAR = 10.0  # far outside any free-bits zone: 50 nats a unit

MEANINGS: dict[str, Callable[[Tensor], Tensor]] = {
    "exp(h / 2)": lambda h: (0.5 * h).exp(),
    "exp(h)": torch.exp,
    "exp(h / 4)": lambda h: (0.25 * h).exp(),
    "softplus(h)": F.softplus,
    "softplus(h) ** 0.5": lambda h: F.softplus(h).sqrt(),
    "h": lambda h: h,
    "h ** 0.5": lambda h: h.clamp_min(0).sqrt(),
    "sigmoid(h)": torch.sigmoid,
}
"""Standard deviations that a scale head `h` may stand for."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One value forced on the scale head, and what sampler and loss made of it."""

    head: float
    scale: float
    weight: float
    spread: float
    ratio: float
    ratio_spread: float
    reverse: float
    entropy: float
    location: Tensor
    gradient: Tensor
    connected: bool
    slopes: Tensor
    pulls: Tensor

    @property
    def finite(self) -> bool:
        """Whether sampler and loss gave numbers."""
        return math.isfinite(self.scale) and math.isfinite(self.weight)


@dataclass(frozen=True, slots=True)
class Divergence:
    """The isolated KL of one latent at two settings of its scale head.

    `rows` is the batch size, `units` the latent's elements a row; `meaning` names the standard
    deviation that the loss's gradient does fit when it does not fit the sampler's.
    """

    latent: Latent
    rows: int
    units: int
    settings: tuple[Setting, Setting]
    far: float
    meaning: str
    meant: tuple[float, float]
    clamped: Span | None
    at: Span | None
    sampled_at: Span | None
    scale_at: Span | None

    @property
    def missing(self) -> bool:
        """Whether the loss has no gradient at location or scale, near the prior and far from it."""
        silent = all(s.weight == 0 and not bool((s.gradient != 0).any()) for s in self.settings)
        return silent and self.far == 0

    @property
    def trained(self) -> bool:
        """Whether the posterior's parameters carry a gradient: a frozen encoder's do not."""
        made = (self.latent.loc, self.latent.scale)
        return any(v is not None and v.requires_grad for v in made)

    @property
    def entropy_only(self) -> bool:
        """Whether all that is left of the KL is -Σ log s: no prior pulls the location or scale."""
        low, high = self.settings
        pulls = [low.weight, high.weight, self.far]
        if max(map(abs, pulls)) > EVEN * abs(low.entropy):
            return False
        return low.entropy * high.entropy > 0 and (
            abs(low.entropy - high.entropy) < EXACT * abs(low.entropy)
        )

    @property
    def connected(self) -> bool:
        """Whether autograd knows a way from the loss to the location, be its gradient 0 or not."""
        return any(s.connected for s in self.settings)

    @property
    def reversed(self) -> bool:
        """Whether the location term is that of KL(p || q), element by element."""
        if self.standard:
            return False
        plain = all(s.weight != 0 and s.reverse < EVEN for s in self.settings)
        return plain or (self.gaussian[0] == "reverse" and self.gaussian[1] > 0)

    @property
    def gaussian(self) -> tuple[str, float]:
        """Which way the KL to some other Gaussian is taken, and its weight a row.

        The gradient at log s is w (s²/b² - 1) for KL(q || p), and w (1 - c/s²) for the reverse,
        with b and c of each element: w is the same for all where the elements of b, or c, differ.
        """
        low, high = self.settings
        a, b = low.scale**2, high.scale**2
        if low.slopes.shape != high.slopes.shape or low.slopes.numel() < 2 or abs(a - b) < EXACT:
            return "", 0.0
        forward = -(low.slopes * b - high.slopes * a) / (b - a)
        reverse = (low.slopes * a - high.slopes * b) / (a - b)
        even = _spread(forward) < LEARNED, _spread(reverse) < LEARNED
        if even == (True, False) and _spread(reverse) > EXACT:
            return "forward", float(forward.mean()) * self.rows
        if even == (False, True) and _spread(forward) > EXACT:
            return "reverse", float(reverse.mean()) * self.rows
        return "", 0.0

    @property
    def bent(self) -> str:
        """As what the location enters, where the scale's term is that of a KL to N(0, I).

        That term says that the prior has a second derivative of 1 everywhere, so that the location
        has to enter by its square: a pull of one size is no KL's.
        """
        if self.standard or any(s.slopes.numel() < 2 or s.pulls.numel() < 2 for s in self.settings):
            return ""
        forms = set()
        weights = []
        for s in self.settings:
            unit = s.scale**2 - 1
            if _spread(s.slopes) > EVEN or abs(unit) < EXACT or not bool((s.pulls != 0).all()):
                return ""
            weights.append(float(s.slopes.mean()) / unit)
            signs = s.location.double().flatten().sign()
            by_size, plain = s.pulls.double() * signs, s.pulls
            forms.add("|mu|" if _spread(by_size) < EVEN else "mu" if _spread(plain) < EVEN else "")
        even = weights[0] != 0 and abs(weights[0] - weights[1]) < EXACT * abs(weights[0])
        return forms.pop() if even and len(forms) == 1 else ""

    @property
    def weight(self) -> float:
        """The KL's weight in the loss, per row."""
        return sum(s.weight for s in self.settings) / 2 * self.rows

    @property
    def standard(self) -> bool:
        """Whether the location term is that of a KL to N(0, I): one weight for all elements."""
        low, high = self.settings
        size = max(abs(low.weight), abs(high.weight))
        even = all(s.spread < EVEN for s in self.settings)
        return size > 0 and even and abs(low.weight - high.weight) < EVEN * size

    @property
    def ratios(self) -> tuple[float, float]:
        """R at the two settings: (1, 1) when the loss means the scale that is sampled."""
        return self.settings[0].ratio, self.settings[1].ratio

    @property
    def exact(self) -> bool:
        """Whether the scale term too is that of the sampler's own KL to N(0, I)."""
        return all(abs(r - 1) < EXACT for r in self.ratios)

    @property
    def width(self) -> float | None:
        """The standard deviation w of a prior N(0, w² I) that the scale term fits, if any does.

        With the location's weight as unit the gradient at log s is s² - w²; a w² of 0, ½ or 2 is
        that of a forgotten logarithm, or of one with the wrong factor.
        """
        (low, high), (r, t) = self.settings, self.ratios
        a, b = low.scale**2, high.scale**2
        if not self.judgeable or abs(a - b) < EXACT:
            return None
        by_low, by_high = r * (a - 1), t * (b - 1)
        slope = (by_low - by_high) / (a - b)
        squared = a - by_low
        slip = squared < EVEN or abs(squared - 2) < EXACT or abs(squared - 0.5) < EXACT / 2
        return None if slip or abs(slope - 1) > EXACT else math.sqrt(squared)

    @property
    def prior(self) -> str:
        """The prior that the KL is measured against."""
        return "N(0, I)"

    @property
    def averages(self) -> tuple[int, ...]:
        """Over how many units a mean may have been taken within a row."""
        return (self.units,)

    @property
    def reverse_evidence(self) -> dict[str, Number]:
        """The measurement behind `reversed`."""
        low, high = self.settings
        return {
            "weights at the two scales": [low.weight, high.weight],
            "scales": [low.scale, high.scale],
        }

    @property
    def judgeable(self) -> bool:
        """Whether the scale term is one function of the scale, as any KL to N(0, I) is."""
        return self.standard and all(s.ratio_spread < EXACT for s in self.settings)


def isolate(
    subject: Subject,
    anatomy: Anatomy,
    latent: Latent,
    seed: int,
    rewind: Callable[[], None],
    *,
    reach: float = 1.0,
) -> Divergence:
    """Measure the KL of one latent. Raises Unavailable with the reason where that cannot be."""
    probe = Probe(subject, anatomy, latent, seed, rewind)
    low, high = (1.0, -1.0) if probe.signed else (2.0, 0.5)
    settings = (probe.measure(high, reach=reach), probe.measure(low, reach=reach))
    if probe.signed and not settings[0].finite and settings[1].finite:
        low, high = 2.0, 0.5  # a precision, by hand
        settings = (probe.measure(high, reach=reach), probe.measure(low, reach=reach))
    if not all(s.finite for s in settings):
        raise Unavailable("the loss is not finite where the posterior is forced")
    far = 0.0
    if reach == 1.0 and all(s.weight <= 0 for s in settings):
        far = probe.measure(high, reach=FAR).weight
    meaning, meant = _meaning(settings) if probe.apart else ("", (0.0, 0.0))
    inputs = [v.shape for v in inputs_of(anatomy.recording) if v.shape]
    rows = inputs[0][0] if inputs else 1
    units = latent.z.tensor.numel() // max(1, rows)
    scale = latent.scale.op if latent.scale is not None else None
    made = scale if latent.scale is not probe.h else None
    raw = scale is None or scale.name in RESHAPES | SLICES or anatomy.flow.layer(scale)
    if scale is not None and scale.name in PAIRWISE:
        raw = False  # the line that makes the distribution
    return Divergence(
        latent,
        rows,
        units,
        settings,
        far,
        meaning,
        meant,
        probe.clamped,
        probe.at,
        (made or latent.meeting).span,
        latent.meeting.span if raw or scale is None else scale.span,
    )


def one_setting(
    subject: Subject,
    anatomy: Anatomy,
    latent: Latent,
    seed: int,
    rewind: Callable[[], None],
) -> Setting:
    """The KL at one value of the scale head: enough for its weight."""
    probe = Probe(subject, anatomy, latent, seed, rewind)
    return probe.measure(1.0 if probe.signed else 2.0)


def _meaning(settings: tuple[Setting, Setting]) -> tuple[str, tuple[float, float]]:
    """The standard deviation of the head that the loss's gradient fits at both settings."""
    for name, scale in MEANINGS.items():
        fits, values = True, []
        for s in settings:
            h = torch.full((), s.head, dtype=torch.float64, requires_grad=True)
            std = scale(h)
            (slope,) = torch.autograd.grad(0.5 * std**2 - std.abs().log(), h)
            if s.weight == 0 or not bool(torch.isfinite(slope)) or float(slope) == 0:
                fits = False
                break
            ratio = float(s.gradient.mean()) / (s.weight * float(slope))
            fits &= abs(ratio - 1) < EXACT
            values.append(float(std.detach()))
        if fits:
            return name, (values[0], values[1])
    return "", (0.0, 0.0)


class Probe:
    """Where to force and to pin for one latent, found once; each measurement is two runs."""

    def __init__(
        self,
        subject: Subject,
        anatomy: Anatomy,
        latent: Latent,
        seed: int,
        rewind: Callable[[], None],
        *,
        families: Set[str] = AFFINE,
    ) -> None:
        self.subject, self.anatomy, self.latent = subject, anatomy, latent
        self.seed, self.rewind = seed, rewind
        flow, loss = anatomy.flow, loss_value(anatomy)
        if latent.loc is None or latent.scale is None or latent.family not in families:
            but = f" ({latent.family})" if latent.family not in AFFINE else ""
            raise Unavailable(f"the sampler is not location + scale * Gaussian noise{but}")
        mixes = latent.meeting.name in PRODUCTS and latent.scale.shape != latent.z.shape
        if mixes:
            raise Unavailable("the sampler's scale is a matrix")
        if latent.draw.op is None or latent.draw.op is latent.meeting:
            raise Unavailable("the noise cannot be owned: it is drawn together with the sample")
        self.alike = [x for x in anatomy.latents if same_posterior(x, latent)]
        self.noise = [owned_noise(flow, x) for x in self.alike]
        samples, compared = [x.z for x in self.alike], predictions(anatomy) or [loss]
        self.pins = [op for z in samples for op in first_layers(flow, z, *compared)]
        self.pins += prior_layers(anatomy, latent, loss)
        outputs = [v for op in self.pins for v in op.makes]
        reached = flow.ancestors(loss, stop=outputs)
        around = flow.ancestors(loss, stop=[*outputs, *samples]) - {z.index for z in samples}
        by_loc, by_scale = flow.ancestors(latent.loc), flow.ancestors(latent.scale)
        mu = common_root(flow, latent.loc, around - (by_scale - by_loc))
        h = common_root(flow, latent.scale, around - (by_loc - by_scale))
        if mu is not None and any(mu.index not in flow.ancestors(x.z) for x in self.alike):
            mu = latent.loc_head.value if latent.loc_head else None
        if h is not None and any(h.index not in flow.ancestors(x.z) for x in self.alike):
            h = latent.scale_head.value if latent.scale_head else None
        if mu is None or h is None or mu.op is None or h.op is None:
            raise Unavailable("the posterior's parameters cannot be forced to known values")
        self.mu, self.h = mu, h
        self.apart = self.mu is self.h or self.mu.index not in flow.ancestors(self.h)
        unbounded = not flow.noise[self.h.index] and _unbounded(flow, self.h)
        self.signed = bool((self.h.tensor.detach() <= 0).any()) or unbounded
        apart_from_decoder = reached - flow.descendants(*outputs)
        self.at = _kl_line(flow, self, loss, apart_from_decoder)
        after = flow.descendants(self.mu) & apart_from_decoder - flow.ancestors(latent.z)
        clamps = (op for op in flow.recording.ops if op.name in CLAMPS and op.makes)
        self.clamped = next((op.span for op in clamps if op.out.index in after), None)

    def measure(self, forced: float, *, reach: float = 1.0, term: Value | None = None) -> Setting:
        """The weight of the loss, or of one of its terms, with the scale head forced."""
        mu, h = self.leaves(forced, reach)
        loss, location, scale = self.read(mu, h, term)
        return self._compare(loss, location, scale, mu, h, forced)

    def read(self, mu: Tensor, h: Tensor, term: Value | None = None) -> tuple[Tensor, ...]:
        """The loss (or the sum of a term) and the sampler's location and scale, by both signs."""
        (above, plus), (below, minus) = (self.run_at(mu, h, sign, term) for sign in (1.0, -1.0))
        return (above + below) / 2, (plus + minus) / 2, (plus - minus) / 2

    def leaves(self, forced: float, reach: float) -> tuple[Tensor, Tensor]:
        """Forced location and scale head, uneven locations up to 1.5 times `reach`."""
        generator = torch.Generator().manual_seed(self.seed)
        like = self.mu.tensor.detach()
        sizes = (torch.rand(like.shape, generator=generator) + 0.5) * reach
        signs = torch.randint(0, 2, like.shape, generator=generator) * 2 - 1
        mu = (sizes * signs).to(like)
        return self.placed(mu, torch.full_like(self.h.tensor.detach(), forced))

    def placed(self, mu: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """Leaves with these values; one and the same where one tensor holds both."""
        if self.mu is self.h:
            leaf = torch.where(self._scales, h, mu).requires_grad_(True)
            return leaf, leaf
        return mu.requires_grad_(True), h.requires_grad_(True)

    @cached_property
    def _scales(self) -> Tensor:
        """Which elements of a tensor that holds both are read as scale, and not as location."""
        leaf = torch.full_like(self.h.tensor.detach(), 0.5).requires_grad_(True)
        _, location, scale = self.read(leaf, leaf)
        return (_gradient(scale.sum(), leaf) != 0) & (_gradient(location.sum(), leaf) == 0)

    def run_at(
        self, mu: Tensor, h: Tensor, level: float, term: Value | None = None
    ) -> tuple[Tensor, Tensor]:
        """The loss or term and the sample of one run with the noise at `level`."""
        made = self.forced(mu, h, level, *(() if term is None else (term,)))
        value = made.loss if term is None else made.tensors[term.index]
        return value.sum(), made.tensors[self.latent.z.index]

    def forced(self, mu: Tensor, h: Tensor, level: float, *keep: Value) -> Repeated:
        """One run with the heads and the noise forced and the decoder held; rewound."""
        return self._edited(mu, h, {v.place: _filled(level) for v in self.noise}, *keep)

    def scored(self, mu: Tensor, h: Tensor, z: Tensor) -> Tensor:
        """The loss with the heads forced, the decoder held, and the sample replaced by `z`."""
        loss: Tensor = self._edited(mu, h, {self.latent.z.place: lambda t: z.clone()}).loss
        return loss.sum()

    def _edited(self, mu: Tensor, h: Tensor, more: Edits, *keep: Value) -> Repeated:
        edits: Edits = {
            **more,
            **{v.place: held(v) for op in self.pins for v in op.makes},
            self.mu.place: lambda t: mu.clone(),
            self.h.place: lambda t: h.clone(),
        }
        kept = self.latent.z, *keep
        made = repeat(
            self.subject,
            self.anatomy.recording,
            seed=self.seed,
            edits=edits,
            keep=kept,
            rewind=self.rewind,
        )
        if not made.same or any(v.index not in made.tensors for v in kept):
            raise Unavailable("the step cannot be repeated with the posterior forced")
        return made

    def _compare(
        self, loss: Tensor, location: Tensor, scale: Tensor, mu: Tensor, h: Tensor, forced: float
    ) -> Setting:
        if bool((scale > 0).any()) and bool((scale <= 0).any()):
            raise Unavailable("the sampler's scale depends on more than its head (a mask)")
        (given_mu, given_h), connected = _gradients(loss, mu, h)
        reference_mu = _gradient(0.5 * (location**2).sum(), mu)
        reference_h = _gradient(0.5 * (scale**2 - (scale**2).log()).sum(), h)
        whole_h = given_h
        if self.mu is self.h:
            given_h, reference_h = given_h[self._scales], reference_h[self._scales]
        weights = _quotient(given_mu, reference_mu)
        weight = float(weights.mean()) if weights.numel() else 0.0
        ratios = _quotient(given_h, weight * reference_h) if weight else given_h.new_zeros(0)
        ratio = float(ratios.mean()) if ratios.numel() else 0.0
        spread, ratio_spread = _spread(weights), _spread(ratios)
        reverse, entropy = math.inf, 0.0
        entropies, pulls = given_h.new_zeros(0), given_h.new_zeros(0)
        if max(spread, ratio_spread, abs(ratio - 1)) > EVEN:  # else it is neither of the two
            backwards = _gradient(0.5 * ((1 + location**2) / scale**2 + (scale**2).log()).sum(), mu)
            if self.mu is self.h:
                backwards = backwards.masked_fill(self._scales, 0)
            reverse = _spread(_quotient(given_mu, backwards))
            entropies = _quotient(whole_h, _gradient(-scale.log().sum(), h))
            entropy = float(entropies.mean()) if _spread(entropies) < EVEN else 0.0
            if weights.numel() == location.numel():
                pulls = weights * location.detach().flatten()
        return Setting(
            forced,
            float(scale.detach().mean()),
            weight,
            spread,
            ratio,
            ratio_spread,
            reverse,
            entropy,
            location.detach(),
            given_h.double(),
            connected,
            -entropies,
            pulls,
        )


def loss_value(anatomy: Anatomy) -> Value:
    """The user's loss as it was recorded; Unavailable where there is none or it is not finite."""
    loss = anatomy.recording.loss
    value = anatomy.recording.value_of(loss) if isinstance(loss, Tensor) else None
    if value is None:
        raise Unavailable("no objective given or found; supply --objective")
    if not bool(torch.isfinite(value.tensor.detach()).all()):
        raise Unavailable("the loss is not finite (VAE801)")
    return value


def _filled(level: float) -> Callable[[Tensor], Tensor]:
    return lambda t: torch.full_like(t, level)


def held(value: Value) -> Callable[[Tensor], Tensor]:
    """An edit that puts a value back to what it was."""
    kept = value.tensor.detach()
    return lambda t: kept.clone()  # an in-place layer may write to it


def owned_noise(flow: Flow, latent: Latent) -> Value:
    """The value to force so that the noise has a known size where it meets the encoder's output.

    The draw itself, or what was made of it (`2 * u - 1`, `eps.abs()`) where that is no multiple.
    """
    draw = latent.draw
    if draw.op is None or draw.op.noise is None:
        return draw.value
    carried = [v for v in latent.meeting.reads if flow.noise[v.index] and not flow.posterior(v)]
    if len(carried) != 1 or carried[0].op is None or flow.noise[carried[0].index] != 1 << draw.bit:
        return draw.value
    made, drawn = carried[0].tensor.detach().flatten(), draw.op.noise.flatten()
    if made.shape != drawn.shape or not made.numel():
        return draw.value if latent.family == "gaussian" else carried[0]
    factor = float((made * drawn).sum() / drawn.square().sum()) if bool(drawn.any()) else 1.0
    multiple = bool(((made - factor * drawn).abs() <= 1e-4 * made.abs().max()).all())
    return draw.value if multiple else carried[0]


def first_layers(flow: Flow, z: Value, *ends: Value) -> list[Op]:
    """The layers that read the sample (past layerless steps) on any way to the reconstructions.

    Where a way has no layer, as in the inner product of a graph's decoder, its last step.
    """
    goal, last = flow.ancestors(*ends), {end.index for end in ends if end.shape}
    found: dict[int, Op] = {}
    waiting, seen = [z], set()
    while waiting:
        value = waiting.pop()
        if value.index in seen:
            continue
        seen.add(value.index)
        for op in flow.consumers.get(value.index, ()):
            if not any(m.index in goal for m in op.makes):
                continue
            if flow.layer(op) or any(m.index in last for m in op.makes):
                found[op.index] = op
            else:
                waiting.extend(op.makes)
    return list(found.values())


def prior_layers(anatomy: Anatomy, latent: Latent, loss: Value) -> list[Op]:
    """Layers beside the decoder that make another latent's prior from this one's sample.

    What they give meets that latent's posterior in the loss. A critic of the sample does not.
    """
    flow = anatomy.flow
    others = [found for found in anatomy.latents if found is not latent]
    if not others or anatomy.x_hat is None:
        return []
    aside = flow.ancestors(loss) - flow.ancestors(anatomy.x_hat)
    theirs = flow.descendants(*(v for o in others for v in (o.loc, o.scale, o.z) if v is not None))
    found: dict[int, Op] = {}
    waiting, seen = [latent.z], set()
    while waiting:
        value = waiting.pop()
        if value.index in seen:
            continue
        seen.add(value.index)
        for op in flow.consumers.get(value.index, ()):
            if not any(m.index in aside for m in op.makes):
                continue
            if not flow.layer(op):
                waiting.extend(op.makes)
            elif _meets(flow, flow.descendants(op.out), theirs, aside):
                found[op.index] = op
    return list(found.values())


def _meets(flow: Flow, one: Set[int], other: Set[int], within: Set[int]) -> bool:
    """Whether an operation reads a value of each of two sets side by side."""
    return any(
        any(v.index in one for v in op.reads)
        and any(v.index in other and v.index not in one for v in op.reads)
        for op in flow.recording.ops
        if op.makes and op.out.index in within
    )


def common_root(flow: Flow, operand: Value, around: frozenset[int]) -> Value | None:
    """The value behind a sampler's operand through which all that the loss reads of it passes.

    The furthest one that the loss reads around sample and decoder: the loss may exponentiate a
    log-variance once more by itself. None where the operand is put together from several values,
    any of which the loss may read: `prior_mean + delta`.
    """
    found: Value | None = None
    value, came = operand, -1
    while value.op is not None and flow.posterior(value):
        readers = [op for op in flow.consumers.get(value.index, ()) if op.index != came]
        if any(m.index in around for op in readers for m in op.makes):
            found = value
        parents = {p.index: p for p in flow.parents(value) if flow.data[p.index]}
        if flow.layer(value.op) and value.op.name not in ADDS | MULS:  # a gain may be applied twice
            return found or operand
        if len(parents) != 1:
            return found
        came = value.op.index
        (value,) = parents.values()
    return found or operand


def _unbounded(flow: Flow, value: Value) -> bool:
    """Whether a value is a layer's own output or a part of it, or such ones added or scaled."""
    if value.op is None:
        return False
    parents = [v for v in value.op.reads if flow.data[v.index]]
    if value.op.name in RESHAPES | SLICES | ADDS or (value.op.name in MULS and len(parents) == 1):
        return bool(parents) and all(_unbounded(flow, p) for p in parents)
    return flow.layer(value.op)


def _kl_line(flow: Flow, probe: Probe, loss: Value, terms: Set[int]) -> Span | None:
    """The first line beside the sampler's own where the loss reads location and scale together."""
    sampler = flow.ancestors(probe.latent.z)
    both = (flow.descendants(probe.mu) & flow.descendants(probe.h) & terms) - sampler
    for op in flow.recording.ops:
        taken_apart = probe.mu is probe.h and op.name in SLICES | RESHAPES
        if op.makes and op.out.index in both and not taken_apart:
            return op.span
    return loss.op.span if loss.op is not None else None


def _gradients(of: Tensor, mu: Tensor, h: Tensor) -> tuple[tuple[Tensor, Tensor], bool]:
    """The gradients at location and scale head, and whether autograd knows a way to the first."""
    if not of.requires_grad:
        return (torch.zeros_like(mu), torch.zeros_like(h)), False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            by_mu, by_h = torch.autograd.grad(of, (mu, h), allow_unused=True, retain_graph=True)
        except RuntimeError as error:
            raise Unavailable("the backward pass raises (VAE606)") from error
    found = [
        torch.zeros_like(leaf) if g is None else g.detach() for g, leaf in ((by_mu, mu), (by_h, h))
    ]
    return (found[0], found[1]), by_mu is not None


def _gradient(of: Tensor, to: Tensor) -> Tensor:
    if not of.requires_grad:
        return torch.zeros_like(to)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            (found,) = torch.autograd.grad(of, to, allow_unused=True, retain_graph=True)
        except RuntimeError as error:
            raise Unavailable("the backward pass raises (VAE606)") from error
    return torch.zeros_like(to) if found is None else found.detach()


def _quotient(given: Tensor, reference: Tensor) -> Tensor:
    """Elementwise quotient where the reference is not zero."""
    known = reference != 0
    return (given[known].double() / reference[known].double()).flatten()


def _spread(values: Tensor) -> float:
    if values.numel() == 0 or not bool(torch.isfinite(values).all()):
        return float("inf")
    size = float(values.abs().mean())
    return float(values.max() - values.min()) / size if size > 0 else 0.0
