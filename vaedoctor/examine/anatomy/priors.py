"""What the loss pulls the latent to: read off the loss's terms that do not see the reconstruction.

Which parameters they read, whether the sample passes through layers on the way, whether rows know
each other: so a flow, a mixture, pseudo-inputs, a discriminator and a kernel are told apart.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ...rule import Unavailable
from ..runs.recording import Value
from . import hierarchy
from .anatomy import Anatomy
from .heads import path_of
from .latents import Latent
from .terms import Terms, is_product, terms_of

if TYPE_CHECKING:
    from ..examination import Examination

Found = tuple[str, str, str]
_ROUNDING = 1e-4  # of the second derivative through x_hat, which cancels up to float32


def prior(examination: Examination, latents: list[Latent]) -> Found | None:
    """What stands in place of the standard normal prior; None where it is that, or not known."""
    anatomy = examination.anatomy
    latent = latents[-1]
    flowed = _flow_posterior(anatomy, latents)
    if flowed is not None:
        return flowed
    terms = terms_of(anatomy, latent.z)
    if terms is None:
        return None
    pseudo = _pseudo_inputs(anatomy, latent, terms)
    if pseudo is not None:
        return pseudo
    mixed = _mixture(anatomy, terms)
    if mixed is not None:
        return mixed
    layers = terms.layers()
    pulled = _pulled(anatomy, latent)
    if layers and pulled:
        name = path_of(layers[0])
        shown = (
            f"the sample passes through `{name}`" if name else "the sample passes through layers"
        )
        word = hierarchy.structure(anatomy, latents)
        if word is not None and word[0] == "sequence" and terms.foretells(layers):
            shown = "what layers make of earlier steps' samples is compared with a later step"
            return "autoregressive prior", "high", shown
        if not terms.keeps_its_size(layers):
            return "adversarial", "high", f"{shown}, to a judge beside the KL"
        return "flow prior", "high", f"{shown} on its way to the KL, and not to x_hat"
    if not pulled:
        return matched(anatomy, latent.z)
    if terms.after and not _standard(examination, latent) and _rows_interact(terms):
        shown = "a term of the loss compares samples of different rows, beside a KL"
        return "rows compared (mmd or total correlation)", "high", shown
    learned = terms.parameters() if len(latents) == 1 and not layers else []
    if learned and not _standard(examination, latent):
        return _learned(anatomy, learned)
    return None


def _learned(anatomy: Anatomy, parameters: list[Value]) -> Found:
    """A prior with parameters of its own, computed from a condition or from nothing else."""
    name = parameters[0].name
    flow = anatomy.flow
    shown = f"the KL reads `{name}`, from which neither the posterior nor x_hat is computed"
    given = [
        op
        for op in anatomy.recording.ops
        if parameters[0] in op.reads
        and flow.layer(op)
        and is_product(op)
        and any(flow.data[v.index] or flow.given[v.index] for v in op.reads)
        and not any(flow.noise[v.index] for v in op.reads)
    ]
    return ("conditional prior" if given else "learned prior"), "high", shown


def _standard(examination: Examination, latent: Latent) -> bool:
    """Whether the isolated KL is known to be one to N(0, I)."""
    try:
        found = examination.divergence_of(latent)
    except Unavailable:
        return False
    return found is not None and found.standard


def _pulled(anatomy: Anatomy, latent: Latent) -> bool:
    """Whether the loss reads the posterior around the sample, as a KL or an entropy does."""
    scale = latent.scale if latent.scale is not None else latent.loc
    loss = anatomy.recording.loss
    end = anatomy.recording.value_of(loss) if isinstance(loss, Tensor) else None
    if end is None or scale is None:
        return True
    stop = [latent.z, *([anatomy.x_hat] if anatomy.x_hat is not None else [])]
    around = anatomy.flow.ancestors(end, stop=stop)
    made = latent.scale_head or latent.loc_head
    head = made.value if made is not None else scale
    return bool({scale.index, head.index} & around)


def _flow_posterior(anatomy: Anatomy, latents: list[Latent]) -> Found | None:
    """Whether a learned map of the sample's own shape lies between the draw and all its readers."""
    flow, x_hat = anatomy.flow, anatomy.x_hat
    if x_hat is None:
        return None
    for latent in latents:
        behind, after = flow.ancestors(x_hat), flow.descendants(latent.z)
        own = flow.ancestors(latent.z)
        terms = terms_of(anatomy, latent.z)
        if terms is None:
            continue
        for value in anatomy.recording.values:
            fits = value.shape == latent.z.shape and value is not latent.z
            if not fits or value.index not in behind or value.index not in after:
                continue
            if value.index not in terms.behind or value.op is None:
                continue
            fresh = [
                i
                for i in flow.ancestors(value)
                if i not in own and anatomy.recording.values[i].source in ("parameter", "stray")
            ]
            around = latent.z.index in flow.ancestors(x_hat, stop=[value])
            if fresh and not around and value is not x_hat:
                return (
                    "flow posterior",
                    "high",
                    "all that the decoder sees of the sample passes a learned map of its own size, "
                    "whose result the loss judges too",
                )
    return None


def _pseudo_inputs(anatomy: Anatomy, latent: Latent, terms: Terms) -> Found | None:
    """Whether the encoder runs a second time, on parameters in place of data, for the loss."""
    flow, head = anatomy.flow, latent.loc_head
    if head is None or not head.path:
        return None
    weights = {v.index for v in head.op.reads if not flow.data[v.index]}
    own = flow.ancestors(head.value)
    for op in anatomy.recording.ops:
        if op is head.op or not op.makes or op.out.index not in terms.behind:
            continue
        same = weights & {v.index for v in op.reads}
        learned = [v for v in op.reads if flow.learned[v.index] and v.index not in weights]
        # Fakes are made from noise, and other rows of data are given.
        invented = any(
            flow.data[v.index] or flow.noise[v.index] or flow.given[v.index] for v in op.reads
        )
        fresh = {v.index for v in anatomy.recording.values if v.source in ("parameter", "stray")}
        fresh &= flow.ancestors(*learned) - own
        if same and fresh and not invented:
            shown = f"`{head.path}` runs again for the loss, on parameters in place of x"
            return "vamp prior", "high", shown
    return None


def _mixture(anatomy: Anatomy, terms: Terms) -> Found | None:
    """Whether the loss joins densities of the sample over an axis that the sample does not have."""
    flow = anatomy.flow
    rows = terms.code.shape[0] if terms.code.shape else 0
    for op in terms.ops():
        read = op.reads[0] if op.reads else None
        if op.name != "logsumexp" or read is None or len(read.shape) < 2:
            continue
        behind = flow.ancestors(read)
        x_hat = anatomy.x_hat
        if x_hat is not None and x_hat.index in behind:
            continue  # importance weights
        size = read.tensor.numel() // max(1, op.out.tensor.numel())
        own = flow.ancestors(terms.code)
        learned = [
            i
            for i in behind
            if anatomy.recording.values[i].source in ("parameter", "stray", "buffer")
            and i not in own
        ]
        if size > 1 and rows and learned and size in _sizes(anatomy, learned):
            shown = f"the loss joins {size} learned densities of the sample by a logsumexp"
            return "mixture prior", "high", shown
    return None


def _sizes(anatomy: Anatomy, indices: list[int]) -> set[int]:
    return {size for i in indices for size in anatomy.recording.values[i].shape}


def matched(anatomy: Anatomy, code: Value) -> Found | None:
    """How a loss without a KL shapes the distribution of codes: by a kernel or a discriminator."""
    terms = terms_of(anatomy, code)
    if terms is None or not terms.after:
        return None
    layers = [op for op in terms.layers() if not terms.decodes(op)]
    if layers:
        name = path_of(layers[0])
        by = f"`{name}`" if name else "layers"
        return "adversarial", "high", f"the code passes through {by}, a judge that x_hat never sees"
    if _rows_interact(terms):
        return "mmd (wae)", "high", "a term of the loss compares codes of different rows"
    return "regularised", "medium", "a term of the loss reads the code row by row, without a KL"


def _rows_interact(terms: Terms) -> bool:
    """Whether the gradient at one row's code depends on another's, through those terms alone."""
    code, loss, x_hat = terms.code, terms.loss.tensor, terms.anatomy.x_hat
    x, edge = terms.anatomy.x, code.edge
    if x is not None and x.shape[:1] != code.shape[:1]:
        return False  # draws of one row may stand in front, which an importance bound compares
    if edge is None or len(code.shape) < 2 or code.shape[0] < 2:
        return False
    if code.tensor.grad_fn is not edge.node:
        return False
    direction = torch.rand(code.shape[1:], generator=torch.Generator().manual_seed(0)) + 0.5

    def again(gradient: Tensor | None) -> Tensor:
        """The derivative by all rows' codes of one row's gradient."""
        second = None
        if gradient is not None and gradient.requires_grad:
            (second,) = torch.autograd.grad(
                (gradient[0] * direction.to(gradient)).sum(),
                [edge],
                retain_graph=True,
                allow_unused=True,
            )
        return torch.zeros_like(code.tensor) if second is None else second

    try:
        edges = [edge, *([x_hat.edge] if x_hat is not None and x_hat.edge else [])]
        whole, *by_output = torch.autograd.grad(
            loss.sum(), edges, create_graph=True, retain_graph=True, allow_unused=True
        )
        through = None
        if x_hat is not None and by_output and by_output[0] is not None:
            # Not the gradient of a product: the loss's gradient at x_hat is no factor of it.
            (through,) = torch.autograd.grad(
                [x_hat.tensor],
                [edge],
                grad_outputs=[by_output[0]],
                create_graph=True,
                retain_graph=True,
                allow_unused=True,
            )
        rounded = again(through)
        second = again(whole) - rounded
    except RuntimeError:
        return False
    own, noise = float(second[0].abs().max()), float(rounded.abs().max())
    return float(second[1:].abs().max()) > max(1e-6 * max(own, 1e-12), _ROUNDING * noise)
