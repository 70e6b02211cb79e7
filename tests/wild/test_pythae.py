"""pythae's models as they are published, and one of them broken at run time."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch
from published import Specimen, assert_as_described, assert_found, marked, rows
from torch import Tensor, nn
from torch.distributions import Normal

import vaedoctor

pytestmark = pytest.mark.wild

Break = Callable[[Any], None]


@pytest.fixture(scope="module")
def pythae() -> ModuleType:
    return pytest.importorskip("pythae.models", reason="needs the extra `wild`")


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
def test_pythae(pythae: ModuleType, name: str) -> None:
    report = Specimen(lambda: pythae_model(pythae, name), pythae_batch).examined()
    assert_as_described(report, rows("pythae")[name])
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
        torch.manual_seed(0)  # expect: VAE306
        eps = torch.randn_like(std)
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
