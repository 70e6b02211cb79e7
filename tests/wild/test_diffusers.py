"""diffusers' autoencoders as they are published, and one of them broken at run time."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from published import Specimen, assert_as_described, assert_found, rows
from torch import Tensor, nn
from torch.distributions import Normal

import vaedoctor

pytestmark = [
    pytest.mark.wild,
    # Some still use the old `weight_norm`.
    pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated:FutureWarning"),
]

Break = Callable[[Any], None]


@pytest.fixture(scope="module")
def diffusers() -> ModuleType:
    return pytest.importorskip("diffusers", reason="needs the extra `wild`")


DOWN, UP = ("DownEncoderBlock2D",) * 2, ("UpDecoderBlock2D",) * 2
SMALL = {"norm_num_groups": 4, "down_block_types": DOWN, "up_block_types": UP}
KL = SMALL | {"block_out_channels": (8, 16), "latent_channels": 4}
DOWN, UP = ("DownEncoderBlock2D",) * 2, ("UpDecoderBlock2D",) * 2
SMALL = {"norm_num_groups": 4, "down_block_types": DOWN, "up_block_types": UP}
KL = SMALL | {"block_out_channels": (8, 16), "latent_channels": 4}
NARROW = {"block_out_channels": (8, 8, 8, 8), "latent_channels": 4, "layers_per_block": 1}
PLAIN = {"latents_mean": [0.0] * 4, "latents_std": [1.0] * 4}
SAMPLED = {"sample_posterior": True}

IMAGE, WIDE, CLIP = (4, 3, 16, 16), (2, 3, 16, 16), (2, 3, 5, 16, 16)
STILL, SHORT, SOUND, STEREO = (2, 3, 1, 16, 16), (2, 3, 3, 16, 16), (2, 1, 64), (2, 2, 64)

# The constructor's arguments, the shape of `sample`, the other arguments of forward.
Made = tuple[dict[str, Any], tuple[int, ...], dict[str, Any]]
DIFFUSERS: dict[str, Made] = {
    "AutoencoderKL": (KL, IMAGE, {}),
    "AutoencoderTiny": (
        {
            "encoder_block_out_channels": (8, 8),
            "decoder_block_out_channels": (8, 8),
            "num_encoder_blocks": (1, 1),
            "num_decoder_blocks": (1, 1),
        },
        IMAGE,
        {},
    ),
    "VQModel": (KL | {"num_vq_embeddings": 16}, IMAGE, {}),
    "AsymmetricAutoencoderKL": (
        SMALL | {"down_block_out_channels": (8, 16), "up_block_out_channels": (8, 16)},
        IMAGE,
        SAMPLED,
    ),
    "AutoencoderKLTemporalDecoder": (
        {"block_out_channels": (32, 32), "down_block_types": DOWN, "layers_per_block": 2},
        IMAGE,
        SAMPLED | {"num_frames": 2},
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
        IMAGE,
        {},
    ),
    "AutoencoderKLFlux2": (KL | {"layers_per_block": 1}, IMAGE, SAMPLED),
    "AutoencoderKLHunyuanImage": (
        {
            "in_channels": 3,
            "out_channels": 3,
            "latent_channels": 4,
            "block_out_channels": (32, 64),
            "layers_per_block": 1,
            "spatial_compression_ratio": 2,
            "sample_size": 16,
        },
        WIDE,
        SAMPLED,
    ),
    "AutoencoderKLKVAE": (
        {
            "channels": 32,
            "num_enc_blocks": 1,
            "num_dec_blocks": 1,
            "z_channels": 4,
            "ch_mult": (1, 1),
            "sample_size": 16,
        },
        WIDE,
        SAMPLED,
    ),
    "ConsistencyDecoderVAE": (
        {
            "latent_channels": 4,
            "sample_size": 16,
            "encoder_block_out_channels": (8, 8),
            "encoder_down_block_types": DOWN,
            "encoder_layers_per_block": 1,
            "encoder_norm_num_groups": 2,
            "decoder_block_out_channels": (8, 8),
            "decoder_down_block_types": ("ResnetDownsampleBlock2D",) * 2,
            "decoder_up_block_types": ("ResnetUpsampleBlock2D",) * 2,
            "decoder_layers_per_block": 1,
            "decoder_norm_num_groups": 2,
        },
        WIDE,
        SAMPLED,
    ),
    "AutoencoderOobleck": (
        {
            "encoder_hidden_size": 8,
            "downsampling_ratios": [2, 2],
            "channel_multiples": [1, 2],
            "decoder_channels": 8,
            "decoder_input_channels": 4,
            "audio_channels": 2,
        },
        STEREO,
        SAMPLED,
    ),
    "AutoencoderKLLTX2Audio": (
        {
            "base_channels": 8,
            "ch_mult": (1, 1),
            "num_res_blocks": 1,
            "latent_channels": 4,
            "mel_bins": 16,
        },
        (2, 2, 16, 16),
        SAMPLED,
    ),
    "AutoencoderKLKVAEAudio": (
        {
            "encoder_dim": 8,
            "encoder_rates": [2, 3],
            "latent_dim": 16,
            "codebook_dim": 4,
            "decoder_dim": 16,
            "decoder_rates": [3, 2],
            "sample_rate": 8000,
            "attn_num_heads": 2,
        },
        (2, 1, 96),
        SAMPLED,
    ),
    "LongCatAudioDiTVae": (
        {
            "channels": 8,
            "c_mults": [1, 2],
            "strides": [2, 2],
            "latent_dim": 4,
            "encoder_latent_dim": 8,
            "downsampling_ratio": 4,
        },
        SOUND,
        SAMPLED,
    ),
    "MMAudioVAE": (
        {
            "mel_bins": 16,
            "latent_channels": 4,
            "hidden_channels": 32,
            "channel_multipliers": (1, 2),
            "layers_per_block": 1,
            "n_fft": 64,
            "hop_length": 16,
        },
        (2, 512),
        SAMPLED,
    ),
    "Cosmos3AVAEAudioTokenizer": (
        {
            "vocoder_input_dim": 4,
            "dec_dim": 8,
            "dec_c_mults": (1, 2),
            "dec_strides": (2, 4),
            "enc_dim": 8,
            "enc_num_blocks": 1,
            "enc_n_fft": 16,
            "enc_hop_length": 8,
            "enc_latent_dim": 8,
            "enc_c_mults": (1,),
            "enc_strides": (1,),
        },
        STEREO,
        SAMPLED,
    ),
    "AutoencoderKLHunyuanVideo15": (
        NARROW
        | {
            "block_out_channels": (8, 8, 16),
            "spatial_compression_ratio": 4,
            "temporal_compression_ratio": 2,
        },
        (1, 3, 3, 16, 16),
        SAMPLED,
    ),
}
VIDEO: dict[str, Made] = {
    "AutoencoderKLCogVideoX": (
        NARROW
        | {
            "down_block_types": ("CogVideoXDownBlock3D",) * 4,
            "up_block_types": ("CogVideoXUpBlock3D",) * 4,
            "norm_num_groups": 2,
        },
        (2, 3, 8, 16, 16),
        SAMPLED,
    ),
    "AutoencoderKLWan": (
        {"base_dim": 3, "dim_mult": [1, 1, 1, 1], "num_res_blocks": 1},
        CLIP,
        SAMPLED,
    ),
    "AutoencoderKLCosmos": (
        {
            "latent_channels": 4,
            "encoder_block_out_channels": (8, 8, 8, 8),
            "decode_block_out_channels": (8, 8, 8, 8),
            "attention_resolutions": (8,),
            "resolution": 64,
            "num_layers": 1,
            "patch_size": 2,
            "temporal_compression_ratio": 4,
            "spatial_compression_ratio": 4,
        },
        CLIP,
        SAMPLED,
    ),
    "AutoencoderKLHunyuanVideo": (NARROW | {"norm_num_groups": 2}, CLIP, SAMPLED),
    "AutoencoderKLHunyuanImageRefiner": (
        NARROW
        | {
            "block_out_channels": (8, 8, 16),
            "spatial_compression_ratio": 4,
            "temporal_compression_ratio": 2,
        },
        SHORT,
        SAMPLED,
    ),
    "AutoencoderKLKVAEVideo": (
        {
            "ch": 32,
            "ch_mult": (1, 1, 1),
            "num_res_blocks": 1,
            "z_channels": 4,
            "temporal_compress_times": 2,
        },
        SHORT,
        SAMPLED,
    ),
    "AutoencoderKLLTXVideo": (
        NARROW
        | {
            "decoder_block_out_channels": (8, 8, 8, 8),
            "layers_per_block": (1, 1, 1, 1, 1),
            "decoder_layers_per_block": (1, 1, 1, 1, 1),
            "patch_size": 1,
        },
        (2, 3, 9, 32, 32),
        SAMPLED,
    ),
    "AutoencoderKLLTX2Video": (
        NARROW
        | {
            "decoder_block_out_channels": (8, 16, 32),
            "layers_per_block": (1, 1, 1, 1, 1),
            "decoder_layers_per_block": (1, 1, 1, 1),
            "patch_size": 1,
        },
        (2, 3, 9, 32, 32),
        SAMPLED,
    ),
    "AutoencoderKLMagvit": (NARROW | {"norm_num_groups": 2}, CLIP, SAMPLED),
    "AutoencoderKLMiniMaxH3": (
        PLAIN
        | {
            "latent_channels": 4,
            "block_out_channels": (8, 8, 8),
            "layers_per_block": 1,
            "spatial_downsample_factors": (2, 2, 1),
            "temporal_downsample_factors": (1, 2, 1),
            "norm_num_groups": 2,
            "decoder_num_layers": 1,
            "decoder_num_attention_heads": 2,
            "decoder_attention_head_dim": 16,
            "decoder_num_register_tokens": 2,
            "clip_length": 9,
            "token_drop": 1,
        },
        (2, 3, 18, 8, 8),
        SAMPLED,
    ),
    "AutoencoderKLMiniMaxH3Audio": (
        {
            "encoder_dim": 8,
            "encoder_rates": (2, 2),
            "latent_dim": 16,
            "latent_channels": 4,
            "num_attention_heads": 2,
            "decoder_dim": 16,
            "decoder_rates": (2, 2),
            "decoder_kernel_sizes": (4, 4),
        },
        SOUND,
        SAMPLED,
    ),
    "AutoencoderKLMochi": (
        PLAIN
        | {
            "latent_channels": 4,
            "encoder_block_out_channels": (32,) * 4,
            "decoder_block_out_channels": (32,) * 4,
            "layers_per_block": (1, 1, 1, 1, 1),
        },
        (1, 3, 7, 16, 16),
        SAMPLED,
    ),
    "AutoencoderKLQwenImage": (
        PLAIN | {"base_dim": 8, "z_dim": 4, "dim_mult": [1, 1, 1, 1], "num_res_blocks": 1},
        STILL,
        SAMPLED,
    ),
    "AutoencoderKLQwenImage21": (
        PLAIN
        | {
            "base_dim": 8,
            "decoder_base_dim": 8,
            "z_dim": 4,
            "dim_mult": [1, 1, 1, 1, 1],
            "num_res_blocks": 1,
            "in_channels": 3,
            "out_channels": 3,
        },
        STILL,
        SAMPLED,
    ),
    "AutoencoderVidTok": (
        {"ch": 32, "ch_mult": [1, 1, 1, 1], "z_channels": 4, "num_res_blocks": 1},
        CLIP,
        {},
    ),
    "AutoencoderVidTok (FSQ)": (
        {
            "ch": 32,
            "ch_mult": [1, 1, 1, 1],
            "z_channels": 4,
            "num_res_blocks": 1,
            "regularizer": "fsq",
            "codebook_size": 4096,
            "double_z": False,
        },
        CLIP,
        {},
    ),
    "Kandinsky6SRVAE": (
        {
            "latent_channels": 4,
            "encoder_block_out_channels": (8, 8, 16),
            "decoder_block_out_channels": (8, 8, 16),
            "layers_per_block": 1,
            "temporal_compression_ratio": 2,
        },
        SHORT,
        SAMPLED,
    ),
    "AutoencoderSAME": (
        {
            "patch_size": 4,
            "encoder_channels": 8,
            "encoder_c_mults": [2],
            "encoder_strides": [2],
            "encoder_transformer_depths": [1],
            "latent_dim": 8,
            "dim_heads": 4,
        },
        STEREO,
        {},
    ),
}


def specimen(diffusers: ModuleType, name: str) -> Specimen:
    arguments, shape, options = (DIFFUSERS | VIDEO)[name]
    kind = getattr(diffusers, name.partition(" ")[0])
    return Specimen(
        lambda: kind(**arguments), lambda: options | {"sample": torch.rand(shape) * 2 - 1}
    )


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


@pytest.mark.parametrize(
    "name", [*DIFFUSERS, *(pytest.param(n, marks=pytest.mark.slow) for n in VIDEO)]
)
def test_diffusers(diffusers: ModuleType, name: str) -> None:
    report = specimen(diffusers, name).examined()
    assert_as_described(report, rows("diffusers")[name])


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

    report = Specimen(lambda: model, lambda: x, {"objective": objective}).examined()
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
        torch.manual_seed(0)  # expect: VAE306
        eps = torch.randn_like(q.std)
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
