"""The mean over the noise of what lies between the sample and the decoder."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ...subject.subject import Batch, Subject
from ..anatomy.anatomy import Anatomy
from ..anatomy.evaluation import run_forward
from ..anatomy.latents import Latent
from ..runs.edits import Edit
from ..runs.flow import Flow
from ..runs.step import run_recorded

_NEAR = 1e-3  # of the mean, and of 1


def decodes_mean(subject: Subject, anatomy: Anatomy, latent: Latent, seed: int) -> bool:
    """Whether evaluation decodes the mean of a curved function of the sample, as a log-normal's.

    The mean over the noise is taken by quadrature; the caller restores the model.
    """
    found = _means(subject, anatomy, latent, seed)
    decoded = [v.tensor.detach() for v in run_forward(subject, seed=seed, still=True).values]
    return any(
        value.shape == mean.shape and torch.allclose(value.double(), mean, rtol=_NEAR, atol=_NEAR)
        for mean in found
        for value in decoded
        if value.is_floating_point()
    )


def _means(subject: Subject, anatomy: Anatomy, latent: Latent, seed: int) -> list[Tensor]:
    """The means of curved functions of the sample in training mode; none where runs differ."""
    patient, draw = replace(subject, objective=None), latent.draw.op
    drawn = [op for op in anatomy.recording.ops if op.noise is not None]
    plain = run_recorded(patient, seed=seed, run=partial(_without_batch_statistics, subject.batch))
    again = [op for op in plain.ops if op.noise is not None]
    if draw is None or plain.error is not None or drawn.index(draw) >= len(again):
        return []
    here, flow = again[drawn.index(draw)].index, Flow(plain)
    noisy = [v for v in plain.values if flow.noise[v.index] and v.shape == latent.z.shape]
    means = {v.index: torch.zeros(v.shape, dtype=torch.float64) for v in noisy}
    middle = {}
    nodes = torch.linspace(-6, 6, 17, dtype=torch.float64)  # far finer than a Gaussian needs
    weights = torch.softmax(-0.5 * nodes**2, dim=0)
    for noise, weight in zip(nodes.tolist(), weights.tolist(), strict=True):
        step = partial(_without_batch_statistics, subject.batch)
        run = run_recorded(patient, seed=seed, edits={here: _constantly(noise)}, run=step)
        if run.error is not None or len(run.values) != len(plain.values):
            return []
        for i, mean in means.items():
            mean += weight * run.values[i].tensor.detach()
            if noise == 0:
                middle[i] = run.values[i].tensor.detach().double()
    return [m for i, m in means.items() if not torch.allclose(m, middle[i], _NEAR, _NEAR)]


def _without_batch_statistics(batch: Batch, model: nn.Module) -> Any:
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()
    return batch.run(model)


def _constantly(number: float) -> Edit:
    return lambda drawn: torch.full_like(drawn, number)
