"""Third-party models as they are published, and broken at run time."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Normal
from traces import differences, photograph

import vaedoctor
from vaedoctor.finding import Finding, Report, Severity

pytestmark = pytest.mark.wild

Break = Callable[[Any], None]


@pytest.fixture(scope="module")
def pythae() -> ModuleType:
    return pytest.importorskip("pythae.models", reason="needs the extra `wild`")


@pytest.fixture(scope="module")
def diffusers() -> ModuleType:
    return pytest.importorskip("diffusers", reason="needs the extra `wild`")


def crashed(report: Report) -> list[tuple[str, str]]:
    return [(o.code, o.reason) for o in report.outcomes if o.status == "crashed"]


def errors(report: Report) -> list[Finding]:
    return [f for f in report.findings if f.severity is Severity.ERROR]


# Warnings that are true of these models: each makes or keeps a float32 tensor at the line that the
# report names, and another operation then refuses it in float64.
JUSTIFIED = {
    "Adversarial_AE": {"VAE204"},  # labels from `torch.ones`
    "RHVAE": {"VAE204"},  # a matrix from `torch.zeros`
    "VAEGAN": {"VAE204"},  # labels from `torch.ones`
    "VAMP": {"VAE204"},  # `idle_input` is a plain attribute
    "VQVAE": {"VAE204"},  # `.type(torch.float)`
    "AutoencoderTiny": {"VAE204"},  # bytes divided by 255
}


def warned(report: Report) -> set[str]:
    found = {f.code for f in report.findings if f.severity is Severity.WARNING}
    return found - JUSTIFIED.get(report.target, set())


def marked(function: Break) -> tuple[str, int]:
    """The code and the line that a breaking function marks with `# expect:`."""
    lines, first = inspect.getsourcelines(function)
    for number, line in enumerate(lines, start=first):
        if found := re.search(r"# expect: (\w+)", line):
            return found.group(1), number
    raise AssertionError(f"{function.__name__} marks no line")


def accused(report: Report) -> list[tuple[str, str, int]]:
    return [(f.code, Path(f.at.file).name, f.at.line) for f in report.findings if f.at]


def assert_found(report: Report, function: Break) -> None:
    """The marked code at the marked line, and no other error."""
    code, line = marked(function)
    assert (code, Path(__file__).name, line) in accused(report), f"{report}"
    assert {f.code for f in errors(report)} <= {code}, f"{report}"
    assert not crashed(report)


# -- pythae ----------------------------------------------------------------------------------

PYTHAE: dict[str, dict[str, int]] = {
    "AE": {},
    "Adversarial_AE": {},
    "BetaTCVAE": {},
    "BetaVAE": {},
    "CIWAE": {"number_samples": 3},
    "DisentangledBetaVAE": {},
    "FactorVAE": {},
    "HVAE": {},
    "INFOVAE_MMD": {},
    "IWAE": {"number_samples": 3},
    "MIWAE": {"number_samples": 3, "number_gradient_estimates": 2},
    "MSSSIM_VAE": {"window_size": 3},
    "PIWAE": {"number_samples": 3, "number_gradient_estimates": 2},
    "PoincareVAE": {},
    "RAE_GP": {},
    "RAE_L2": {},
    "RHVAE": {},
    "SVAE": {},
    "VAE": {},
    "VAEGAN": {},
    "VAE_IAF": {},
    "VAE_LinNF": {},
    "VAMP": {"number_components": 5},
    "VQVAE": {"num_embeddings": 8},
    "WAE_MMD": {},
}


def pythae_model(pythae: ModuleType, name: str) -> nn.Module:
    config = getattr(pythae, f"{name}Config", None) or getattr(pythae, f"{name}_Config")
    made = config(input_dim=(1, 8, 8), latent_dim=4, **PYTHAE[name])
    model: nn.Module = getattr(pythae, name)(made)
    return model


def pythae_batch() -> Any:
    from pythae.data.datasets import DatasetOutput

    return DatasetOutput(data=torch.rand(6, 1, 8, 8))


# SVAE itself calls `torch.tensor` on a tensor.
@pytest.mark.filterwarnings("ignore:To copy construct from a tensor:UserWarning")
@pytest.mark.parametrize("name", PYTHAE)
def test_pythae_is_healthy(pythae: ModuleType, name: str) -> None:
    model, batch = pythae_model(pythae, name), pythae_batch()
    before = photograph(model, batch["data"])
    report = vaedoctor.check(model, batch)
    assert differences(before, photograph(model, batch["data"])) == []
    assert not errors(report), f"{report}"
    assert not warned(report), f"{report}"
    assert not crashed(report)
    assert report.environment["objective"] == "loss"


def test_pythae_takes_a_plain_dict(pythae: ModuleType) -> None:
    report = vaedoctor.check(pythae_model(pythae, "VAE"), ({"data": torch.rand(6, 1, 8, 8)},))
    assert report.ok, f"{report}"
    assert report.picture.family == "gaussian"


def detached(model: Any) -> None:
    def sample(mu: Tensor, std: Tensor) -> tuple[Tensor, Tensor]:
        eps = torch.randn_like(std)
        return (mu + eps * std).detach(), eps  # expect: VAE302

    model._sample_gauss = sample


def sampled_without_gradient(model: Any) -> None:
    def sample(mu: Tensor, std: Tensor) -> tuple[Tensor, Tensor]:
        z = Normal(mu, std).sample()  # expect: VAE302
        return z, z

    model._sample_gauss = sample


def shared(model: Any) -> None:
    def sample(mu: Tensor, std: Tensor) -> tuple[Tensor, Tensor]:
        eps = torch.randn(std.shape[-1])  # expect: VAE305
        return mu + eps * std, eps

    model._sample_gauss = sample


def seeded(model: Any) -> None:
    def sample(mu: Tensor, std: Tensor) -> tuple[Tensor, Tensor]:
        torch.manual_seed(0)
        eps = torch.randn_like(std)  # expect: VAE306
        return mu + eps * std, eps

    model._sample_gauss = sample


def discarded(model: Any) -> None:
    def sample(mu: Tensor, std: Tensor) -> tuple[Tensor, Tensor]:
        eps = torch.randn_like(std)  # expect: VAE307
        return mu + std * torch.ones_like(eps), eps

    model._sample_gauss = sample


def hidden_in_a_list(model: Any) -> None:
    class Decoder(type(model.decoder)):  # type: ignore[misc]
        def __init__(self, config: Any) -> None:
            super().__init__(config)
            layers = list(self.layers)
            del self.layers
            self.layers = layers  # expect: VAE101

    model.decoder = Decoder(model.model_config)


def never_called(model: Any) -> None:
    class Decoder(type(model.decoder)):  # type: ignore[misc]
        def __init__(self, config: Any) -> None:
            super().__init__(config)
            self.refine = nn.Linear(512, 512)  # expect: VAE104

    model.decoder = Decoder(model.model_config)


PYTHAE_BREAKS = [
    detached,
    sampled_without_gradient,
    shared,
    seeded,
    discarded,
    hidden_in_a_list,
    never_called,
]


@pytest.mark.parametrize("broken", PYTHAE_BREAKS, ids=lambda f: f.__name__)
def test_pythae_broken(pythae: ModuleType, broken: Break) -> None:
    model = pythae_model(pythae, "VAE")
    broken(model)
    assert_found(vaedoctor.check(model, pythae_batch()), broken)


def test_pythae_too_narrow(pythae: ModuleType) -> None:
    def too_narrow(model: Any) -> None:
        class Encoder(type(model.encoder)):  # type: ignore[misc]
            def __init__(self, config: Any) -> None:
                super().__init__(config)
                self.embedding = nn.Linear(256, config.latent_dim)  # expect: VAE501

        model.encoder = Encoder(model.model_config)

    model = pythae_model(pythae, "VAE")
    too_narrow(model)
    (found,) = vaedoctor.check(model, pythae_batch()).findings
    code, line = marked(too_narrow)
    assert (found.code, found.measured["arrived"]) == (code, 512)
    assert f"to 512 in line {line}" in found.help


def test_pythae_sample_forgotten(pythae: ModuleType) -> None:
    def forgotten(model: Any) -> None:
        def sample(mu: Tensor, std: Tensor) -> tuple[Tensor, Tensor]:
            return mu, mu + std * torch.randn_like(std)  # expect: VAE307

        model._sample_gauss = sample

    model = pythae_model(pythae, "VAE")
    forgotten(model)
    (found,) = vaedoctor.check(model, pythae_batch()).findings
    code, line = marked(forgotten)
    assert found.code == code
    assert any(f"line {line}" in note for note in found.notes)


# -- diffusers -------------------------------------------------------------------------------

DOWN, UP = ("DownEncoderBlock2D",) * 2, ("UpDecoderBlock2D",) * 2
SMALL = {"norm_num_groups": 4, "down_block_types": DOWN, "up_block_types": UP}
KL = SMALL | {"block_out_channels": (8, 16), "latent_channels": 4}
DIFFUSERS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "AutoencoderKL": (KL, {}),
    "AutoencoderTiny": (
        {
            "encoder_block_out_channels": (8, 8),
            "decoder_block_out_channels": (8, 8),
            "num_encoder_blocks": (1, 1),
            "num_decoder_blocks": (1, 1),
        },
        {},
    ),
    "VQModel": (KL | {"num_vq_embeddings": 16}, {}),
    "AsymmetricAutoencoderKL": (
        SMALL | {"down_block_out_channels": (8, 16), "up_block_out_channels": (8, 16)},
        {"sample_posterior": True},
    ),
    "AutoencoderKLTemporalDecoder": (
        {"block_out_channels": (32, 32), "down_block_types": DOWN, "layers_per_block": 2},
        {"sample_posterior": True, "num_frames": 2},
    ),
    "AutoencoderDC": (
        {
            "latent_channels": 4,
            "attention_head_dim": 2,
            "encoder_block_types": ("ResBlock", "EfficientViTBlock"),
            "decoder_block_types": ("ResBlock", "EfficientViTBlock"),
            "encoder_block_out_channels": (8, 8),
            "decoder_block_out_channels": (8, 8),
            "encoder_qkv_multiscales": ((), (5,)),
            "decoder_qkv_multiscales": ((), (5,)),
            "encoder_layers_per_block": (1, 1),
            "decoder_layers_per_block": (1, 1),
            "downsample_block_type": "conv",
            "upsample_block_type": "interpolate",
        },
        {},
    ),
    "AutoencoderKLCogVideoX": (
        {
            "down_block_types": ("CogVideoXDownBlock3D",) * 4,
            "up_block_types": ("CogVideoXUpBlock3D",) * 4,
            "block_out_channels": (8, 8, 8, 8),
            "latent_channels": 4,
            "layers_per_block": 1,
            "norm_num_groups": 2,
        },
        {"sample": (2, 3, 8, 16, 16), "sample_posterior": True},
    ),
    "AutoencoderKLWan": (
        {"base_dim": 3, "dim_mult": [1, 1, 1, 1], "num_res_blocks": 1},
        {"sample": (2, 3, 5, 16, 16), "sample_posterior": True},
    ),
}


def images(side: int = 32) -> Tensor:
    return torch.rand(4, 3, side, side) * 2 - 1


def autoencoder_kl(diffusers: ModuleType) -> Any:
    return diffusers.AutoencoderKL(**KL)


class Sampled(nn.Module):
    """What a training script makes of an `AutoencoderKL`."""

    def __init__(self, vae: Any) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        posterior = self.vae.encode(x).latent_dist
        return self.vae.decode(posterior.sample()).sample, posterior.mean, posterior.logvar


@pytest.mark.parametrize("name", DIFFUSERS)
def test_diffusers_is_healthy(diffusers: ModuleType, name: str) -> None:
    arguments, options = DIFFUSERS[name]
    model = getattr(diffusers, name)(**arguments)
    x = torch.rand(options.get("sample", (4, 3, 16, 16))) * 2 - 1
    before = photograph(model, x)
    report = vaedoctor.check(model, options | {"sample": x})
    assert differences(before, photograph(model, x)) == []
    assert not errors(report), f"{report}"
    assert not warned(report), f"{report}"
    assert not crashed(report)


@pytest.mark.parametrize("as_dict", [True, False])
def test_diffusers_sampled_is_healthy(diffusers: ModuleType, as_dict: bool) -> None:
    batch = {"sample": images(), "sample_posterior": True, "return_dict": as_dict}
    report = vaedoctor.check(autoencoder_kl(diffusers), batch)
    assert not report.findings, f"{report}"
    assert report.picture.family == "gaussian"


def test_diffusers_in_a_training_script_is_healthy(diffusers: ModuleType) -> None:
    model, x = Sampled(autoencoder_kl(diffusers)), images()

    def objective(model: Sampled, x: Tensor) -> Tensor:
        posterior = model.vae.encode(x).latent_dist
        x_hat = model.vae.decode(posterior.sample()).sample
        return (x_hat - x).pow(2).sum() / len(x) + posterior.kl().mean()

    before = photograph(model, x)
    report = vaedoctor.check(model, x, objective=objective)
    assert differences(before, photograph(model, x)) == []
    assert not report.findings, f"{report}"
    assert report.picture.family == "gaussian"


def draw_by(vae: Any, sample: Callable[[Any], Tensor]) -> None:
    """Let the posteriors of one `AutoencoderKL` draw by another function."""
    encode = vae.encode

    def changed(x: Tensor) -> Any:
        found = encode(x)
        found.latent_dist.sample = lambda generator=None: sample(found.latent_dist)
        return found

    vae.encode = changed


def kl_detached(vae: Any) -> None:
    def sample(q: Any) -> Tensor:
        return (q.mean + q.std * torch.randn_like(q.std)).detach()  # expect: VAE302

    draw_by(vae, sample)


def kl_sampled_without_gradient(vae: Any) -> None:
    def sample(q: Any) -> Tensor:
        return Normal(q.mean, q.std).sample()  # expect: VAE302

    draw_by(vae, sample)


def kl_shared(vae: Any) -> None:
    def sample(q: Any) -> Tensor:
        eps = torch.randn(1, *q.std.shape[1:])  # expect: VAE305
        return q.mean + q.std * eps

    draw_by(vae, sample)


def kl_seeded(vae: Any) -> None:
    def sample(q: Any) -> Tensor:
        torch.manual_seed(0)
        eps = torch.randn_like(q.std)  # expect: VAE306
        return q.mean + q.std * eps

    draw_by(vae, sample)


def kl_numpy(vae: Any) -> None:
    def sample(q: Any) -> Tensor:
        eps = torch.from_numpy(np.random.randn(*q.std.shape)).float()  # expect: VAE310
        return q.mean + q.std * eps

    draw_by(vae, sample)


def kl_discarded(vae: Any) -> None:
    def sample(q: Any) -> Tensor:
        eps = torch.randn_like(q.std)  # expect: VAE307
        return q.mean + q.std * torch.ones_like(eps)

    draw_by(vae, sample)


def kl_hidden_in_a_list(vae: Any) -> None:
    class Post(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convolutions = [nn.Conv2d(4, 4, 1)]  # expect: VAE101

        def forward(self, z: Tensor) -> Tensor:
            return self.convolutions[0](z)

    vae.post_quant_conv = Post()


def kl_never_called(vae: Any) -> None:
    class Post(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(4, 4, 1)
            self.norm = nn.GroupNorm(2, 4)  # expect: VAE104

        def forward(self, z: Tensor) -> Tensor:
            return self.conv(z)

    vae.post_quant_conv = Post()


def kl_too_narrow(vae: Any) -> None:
    class Post(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(8, 4, 1)

        def forward(self, z: Tensor) -> Tensor:
            return self.conv(z)  # expect: VAE501

    vae.post_quant_conv = Post()


def kl_edited_in_place(vae: Any) -> None:
    class Post(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(4, 4, 1)

        def forward(self, z: Tensor) -> Tensor:
            z = torch.sigmoid(self.conv(z))
            z += 1.0  # expect: VAE606
            return z

    vae.post_quant_conv = Post()


KL_BREAKS = [
    kl_detached,
    kl_sampled_without_gradient,
    kl_shared,
    kl_seeded,
    kl_numpy,
    kl_discarded,
    kl_hidden_in_a_list,
    kl_never_called,
    kl_too_narrow,
    kl_edited_in_place,
]


@pytest.mark.parametrize("broken", KL_BREAKS, ids=lambda f: f.__name__)
def test_diffusers_broken(diffusers: ModuleType, broken: Break) -> None:
    vae = autoencoder_kl(diffusers)
    broken(vae)
    assert_found(vaedoctor.check(Sampled(vae), images(16)), broken)


@pytest.mark.parametrize("broken", [kl_detached, kl_seeded, kl_hidden_in_a_list])
def test_diffusers_broken_without_a_wrapper(diffusers: ModuleType, broken: Break) -> None:
    vae = autoencoder_kl(diffusers)
    broken(vae)
    assert_found(vaedoctor.check(vae, {"sample": images(16), "sample_posterior": True}), broken)
