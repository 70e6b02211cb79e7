"""Published quantisers in the smallest autoencoder, a published codec, and some broken."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch
from published import Specimen, assert_as_described, assert_found, rows
from torch import Tensor, nn

import vaedoctor

pytestmark = pytest.mark.wild


@pytest.fixture(scope="module")
def quantizers() -> ModuleType:
    return pytest.importorskip("vector_quantize_pytorch", reason="needs the extra `wild`")


class Quantized(nn.Module):
    """What a training script makes of a quantiser."""

    def __init__(self, quantizer: Any) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(12, 16), nn.GELU(), nn.Linear(16, 6))
        self.quantizer = quantizer
        self.decoder = nn.Sequential(nn.Linear(6, 16), nn.GELU(), nn.Linear(16, 12))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        z_q, _, *losses = self.quantizer(self.encoder(x))
        x_hat = self.decoder(z_q)
        loss = (x_hat - x).pow(2).mean() + sum(term.sum() for term in losses)
        return {"loss": loss, "x_hat": x_hat}


def vectors() -> Tensor:
    return torch.rand(4, 5, 12)


MADE: dict[str, tuple[str, dict[str, Any]]] = {
    "VectorQuantize": ("VectorQuantize", {"dim": 6, "codebook_size": 16}),
    "VectorQuantize (learnable codebook)": (
        "VectorQuantize",
        {"dim": 6, "codebook_size": 16, "learnable_codebook": True, "ema_update": False},
    ),
    "VectorQuantize (cosine similarity)": (
        "VectorQuantize",
        {"dim": 6, "codebook_size": 16, "use_cosine_sim": True},
    ),
    "VectorQuantize (k-means)": (
        "VectorQuantize",
        {"dim": 6, "codebook_size": 4, "kmeans_init": True, "threshold_ema_dead_code": 2},
    ),
    "ResidualVQ": ("ResidualVQ", {"dim": 6, "num_quantizers": 3, "codebook_size": 16}),
    "GroupedResidualVQ": (
        "GroupedResidualVQ",
        {"dim": 6, "groups": 2, "num_quantizers": 2, "codebook_size": 16},
    ),
    "SimVQ": ("SimVQ", {"dim": 6, "codebook_size": 16}),
    "ResidualSimVQ": ("ResidualSimVQ", {"dim": 6, "num_quantizers": 2, "codebook_size": 16}),
    "FSQ": ("FSQ", {"levels": [8, 5, 5], "dim": 6}),
    "ResidualFSQ": ("ResidualFSQ", {"levels": [5, 5, 3], "num_quantizers": 2, "dim": 6}),
    "LFQ": ("LFQ", {"codebook_size": 64, "dim": 6}),
    "ResidualLFQ": ("ResidualLFQ", {"codebook_size": 64, "num_quantizers": 2, "dim": 6}),
}


@pytest.mark.parametrize("name", MADE)
def test_quantizers(quantizers: ModuleType, name: str) -> None:
    kind, arguments = MADE[name]
    specimen = Specimen(lambda: Quantized(getattr(quantizers, kind)(**arguments)), vectors)
    report = specimen.examined()
    assert_as_described(report, rows("vector-quantize-pytorch")[name])
    assert report.environment["objective"] == "loss"


class Wrapped(nn.Module):
    """Another quantiser's outputs, changed by a function."""

    def __init__(self, quantizer: nn.Module, change: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.quantizer, self.change = quantizer, change

    def forward(self, z_e: Tensor) -> Any:
        z_q, *others = self.quantizer(z_e)
        return self.change(z_q), *others


def test_quantizers_without_straight_through(quantizers: ModuleType) -> None:
    quantizer = quantizers.FSQ([8, 5, 5], dim=6)
    model = Quantized(Wrapped(quantizer, lambda z_q: z_q.detach()))
    found = vaedoctor.check(model, vectors())
    assert {f.code for f in found.findings} & {"VQ102", "VAE601"}, f"{found}"


def test_quantizers_rows_mixed(quantizers: ModuleType) -> None:
    def mixed(z_q: Tensor) -> Tensor:
        return z_q + z_q.mean(0, keepdim=True)  # expect: VAE504

    model = Quantized(Wrapped(quantizers.FSQ([8, 5, 5], dim=6), mixed))
    assert_found(vaedoctor.check(model, torch.rand(8, 1, 12)), mixed)


def test_quantizers_second_codebook_never_called(quantizers: ModuleType) -> None:
    class Doubled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = quantizers.FSQ([8, 5, 5], dim=6)
            self.second = quantizers.FSQ([8, 5, 5], dim=6)  # expect: VAE104

        def forward(self, z_e: Tensor) -> Any:
            return self.first(z_e)

    assert_found(vaedoctor.check(Quantized(Doubled()), vectors()), Doubled)


# -- snac ------------------------------------------------------------------------------------


def codec() -> nn.Module:
    model: nn.Module = pytest.importorskip("snac", reason="needs the extra `wild`").SNAC(
        sampling_rate=8000,
        encoder_dim=8,
        encoder_rates=[2, 2],
        decoder_dim=16,
        decoder_rates=[2, 2],
        attn_window_size=None,
        codebook_size=16,
        codebook_dim=4,
        vq_strides=[2, 1],
        depthwise=False,
    )
    return model


def sound() -> Tensor:
    return torch.rand(2, 1, 64) * 2 - 1


def test_codec() -> None:
    assert_as_described(Specimen(codec, sound).examined(), rows("snac")["SNAC"])


def test_codec_detached() -> None:
    model: Any = codec()

    class Detached(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, z: Tensor) -> Any:
            z_q, codes = self.inner(z)
            return z_q.detach(), codes

    model.quantizer = Detached(model.quantizer)
    found = {f.code for f in vaedoctor.check(model, sound()).findings}
    assert found & {"VQ102", "VAE601"}
