"""The anatomy as a torch-free picture: x → encoder → location and scale → sample → … → x_hat."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ...finding import Arrow, Part, Picture
from ...rule import Unavailable
from ...subject.trials.trial import forward_parameters
from ..anatomy.anatomy import Anatomy
from ..runs.recording import Value
from .idle import with_idle
from .results import before_activation, results, terms
from .stations import Station, fed, stations

if TYPE_CHECKING:
    from ..examination import Examination


def draw(examination: Examination) -> Picture:
    """The picture of one examination; empty where the step could not run."""
    try:
        anatomy = examination.anatomy
    except Unavailable:
        return Picture()
    names = [p.name for p in forward_parameters(examination.subject.model)]
    found = stations(anatomy, names)
    picture = Picture(
        family=examination.family.name,
        confidence=examination.family.confidence,
        evidence=examination.family.evidence,
        parts=_with_gradients(anatomy, found, examination.loss),
        arrows=tuple(Arrow(start, end) for start, end in fed(anatomy.flow, found)),
        outputs=tuple(results(anatomy)),
        terms=tuple(terms(anatomy)),
        forward=examination.subject.calling.text,
    )
    return with_idle(picture, examination.subject.model, examination.census.idle)


def _with_gradients(
    anatomy: Anatomy, found: Sequence[Station], loss: Tensor | None
) -> tuple[Part, ...]:
    """The parts, each with the norms of the gradients that reach it from the loss.

    Without a loss of the user's, the one that `compose` makes stands in. What arrives through the
    decoder's last layer is the reconstruction's; the rest is the KL's, or of what stands in its
    place.
    """
    arriving = _arriving(anatomy, found, loss)
    if arriving is None:
        return tuple(s.part for s in found)
    if loss is not anatomy.recording.loss and not any(kl for _, kl in arriving):
        arriving = [(recon, None) for recon, _ in arriving]  # the cut took the stand-in's KL too
    return tuple(
        replace(s.part, recon_gradient=recon, kl_gradient=kl)
        for s, (recon, kl) in zip(found, arriving, strict=True)
    )


def _arriving(
    anatomy: Anatomy, found: Sequence[Station], loss: Tensor | None
) -> list[tuple[float | None, float | None]] | None:
    x_hat = anatomy.x_hat
    if not isinstance(loss, Tensor) or not loss.requires_grad or x_hat is None:
        return None
    own = loss is anatomy.recording.loss
    if own and x_hat.index not in anatomy.flow.ancestors(*_ends(anatomy)):
        # the loss takes logits where forward returns means
        x_hat = before_activation(anatomy.flow, x_hat)
        found = [replace(s, value=None) if s.value is anatomy.x_hat else s for s in found]
    if x_hat.edge is None or x_hat.tensor.grad_fn is not x_hat.edge.node:
        return None
    edges = [s.value.edge for s in found if s.value is not None and s.value.edge is not None]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            whole = torch.autograd.grad(
                loss, [*edges, x_hat.edge], allow_unused=True, retain_graph=True
            )
            at_end = whole[-1]
            if at_end is None:
                return None
            # Not `grad_outputs`, which makes torch import sympy: a third of a second.
            along = (x_hat.tensor * at_end).sum()
            through = torch.autograd.grad(along, edges, allow_unused=True, retain_graph=True)
        except RuntimeError:  # the graph was damaged in place: VAE606 tells
            return None
    norms = iter([_norms(w, t) for w, t in zip(whole, through, strict=False)])
    return [
        next(norms) if s.value is not None and s.value.edge is not None else (None, None)
        for s in found
    ]


def _ends(anatomy: Anatomy) -> list[Value]:
    value = anatomy.recording.value_of(anatomy.recording.loss)
    return [value] if value is not None else []


def _norms(whole: Tensor | None, through: Tensor | None) -> tuple[float | None, float | None]:
    recon = float(through.norm()) if through is not None else 0.0
    if whole is None:
        return recon, 0.0
    rest = whole - through if through is not None else whole
    other = float(rest.norm())
    small = 1e-6 * float(whole.norm())
    return recon, 0.0 if other <= small else other
