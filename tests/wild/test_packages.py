"""Published models of seven packages, and some of them broken at run time."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import pytest
import torch
from published import Specimen, assert_as_described, assert_found, rows
from torch import Tensor, nn

import vaedoctor

pytestmark = [pytest.mark.wild, pytest.mark.filterwarnings("ignore")]


def needed(package: str) -> Any:
    """A module of a package of the extra; the test is skipped without it."""
    pytest.importorskip(package.partition(".")[0], reason="needs the extra `wild`")
    return import_module(package)


def uniform(*shape: int) -> Callable[[], Tensor]:
    return lambda: torch.rand(shape)


def binary(*shape: int) -> Callable[[], Tensor]:
    return lambda: torch.bernoulli(torch.full(shape, 0.4))


# -- MONAI -----------------------------------------------------------------------------------

KL = {
    "spatial_dims": 2,
    "channels": (8, 8),
    "attention_levels": (False, True),
    "num_res_blocks": (1, 1),
    "norm_num_groups": 4,
    "latent_channels": 3,
}
SEGMENTED = {
    "input_image_size": (16, 16),
    "vae_nz": 7,
    "spatial_dims": 2,
    "init_filters": 8,
    "in_channels": 1,
    "out_channels": 2,
    "blocks_down": (1, 1),
    "blocks_up": (1,),
}


def nets(name: str, **arguments: Any) -> nn.Module:
    model: nn.Module = getattr(needed("monai.networks.nets"), name)(**arguments)
    return model


def image_kl(model: Any, x: Tensor) -> Tensor:
    x_hat, mu, sigma = model(x)
    kl = 0.5 * (mu.pow(2) + sigma.pow(2) - 2 * sigma.log() - 1)
    return ((x_hat - x).pow(2).sum() + kl.sum()) / len(x)


def auxiliary(model: Any, x: Tensor) -> Tensor:
    loss: Tensor = model(x)[1]
    return loss


MONAI = {
    "VarAutoEncoder": Specimen(
        lambda: nets(
            "VarAutoEncoder",
            spatial_dims=2,
            in_shape=(1, 16, 16),
            out_channels=1,
            latent_size=5,
            channels=(4, 8),
            strides=(2, 2),
        ),
        uniform(6, 1, 16, 16),
    ),
    "VarFullyConnectedNet": Specimen(
        lambda: nets(
            "VarFullyConnectedNet",
            in_channels=12,
            out_channels=12,
            latent_size=5,
            encode_channels=(9,),
            decode_channels=(9,),
        ),
        uniform(6, 12),
    ),
    "VarFullyConnectedNet (use_mean_at_inference)": Specimen(
        lambda: nets(
            "VarFullyConnectedNet",
            in_channels=12,
            out_channels=12,
            latent_size=5,
            encode_channels=(9,),
            decode_channels=(9,),
            use_mean_at_inference=True,
        ),
        uniform(6, 12),
    ),
    "SegResNetVAE": Specimen(
        lambda: nets("SegResNetVAE", **SEGMENTED),
        uniform(4, 1, 16, 16),
        {"objective": auxiliary},
    ),
    "SegResNetVAE (vae_estimate_std)": Specimen(
        lambda: nets("SegResNetVAE", vae_estimate_std=True, **SEGMENTED),
        uniform(4, 1, 16, 16),
        {"objective": auxiliary},
    ),
    "AutoencoderKL": Specimen(
        lambda: nets("AutoencoderKL", **KL), uniform(4, 1, 16, 16), {"objective": image_kl}
    ),
    "SPADEAutoencoderKL": Specimen(
        lambda: nets("SPADEAutoencoderKL", label_nc=3, spade_intermediate_channels=8, **KL),
        lambda: (torch.rand(4, 1, 16, 16), torch.rand(4, 3, 16, 16)),
    ),
    "VQVAE": Specimen(
        lambda: nets(
            "VQVAE",
            spatial_dims=2,
            in_channels=1,
            out_channels=1,
            channels=(8, 8),
            num_res_channels=(8, 8),
            num_res_layers=1,
            downsample_parameters=((2, 4, 1, 1),) * 2,
            upsample_parameters=((2, 4, 1, 1, 0),) * 2,
            num_embeddings=16,
            embedding_dim=4,
        ),
        uniform(4, 1, 16, 16),
    ),
    "AutoEncoder": Specimen(
        lambda: nets(
            "AutoEncoder",
            spatial_dims=2,
            in_channels=1,
            out_channels=1,
            channels=(4, 8),
            strides=(2, 2),
        ),
        uniform(4, 1, 16, 16),
    ),
}


@pytest.mark.parametrize("name", MONAI)
def test_monai(name: str) -> None:
    assert_as_described(MONAI[name].examined(), rows("monai")[name])


def monai_variance_as_scale(model: Any) -> None:
    def sampling(z_mu: Tensor, z_sigma: Tensor) -> Tensor:
        return z_mu + torch.randn_like(z_sigma) * z_sigma**2  # expect: VAE303

    model.sampling = sampling


def monai_detached(model: Any) -> None:
    def sampling(z_mu: Tensor, z_sigma: Tensor) -> Tensor:
        return (z_mu + torch.randn_like(z_sigma) * z_sigma).detach()  # expect: VAE302

    model.sampling = sampling


def monai_uniform_noise(model: Any) -> None:
    def sampling(z_mu: Tensor, z_sigma: Tensor) -> Tensor:
        return z_mu + torch.rand_like(z_sigma) * z_sigma  # expect: VAE304

    model.sampling = sampling


@pytest.mark.parametrize(
    "broken",
    [monai_variance_as_scale, monai_detached, monai_uniform_noise],
    ids=lambda f: f.__name__,
)
def test_monai_broken(broken: Callable[[Any], None]) -> None:
    model = nets("AutoencoderKL", **KL)
    broken(model)
    assert_found(vaedoctor.check(model, torch.rand(4, 1, 16, 16), objective=image_kl), broken)


# -- normflows -------------------------------------------------------------------------------


def flow_vae(flows: int) -> nn.Module:
    nf = needed("normflows")
    encoder = nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 10))
    decoder = nn.Sequential(nn.Linear(5, 16), nn.ReLU(), nn.Linear(16, 12))
    model: nn.Module = nf.NormalizingFlowVAE(
        nf.distributions.DiagGaussian(5, trainable=False),
        nf.distributions.NNDiagGaussian(encoder),
        [nf.flows.Planar((5,)) for _ in range(flows)],
        nf.distributions.NNBernoulliDecoder(decoder),
    )
    return model


def negative_bound(model: Any, x: Tensor) -> Tensor:
    _, log_q, log_p = model(x, num_samples=3)
    loss: Tensor = (log_q - log_p).mean()
    return loss


NORMFLOWS = {
    "NormalizingFlowVAE (no flow)": Specimen(
        lambda: flow_vae(0), uniform(6, 12), {"objective": negative_bound}
    ),
    "NormalizingFlowVAE (planar flows)": Specimen(
        lambda: flow_vae(3), uniform(6, 12), {"objective": negative_bound}
    ),
}


@pytest.mark.parametrize("name", NORMFLOWS)
def test_normflows(name: str) -> None:
    assert_as_described(NORMFLOWS[name].examined(), rows("normflows")[name])


# -- deeptime --------------------------------------------------------------------------------


class Estimated(nn.Module):
    """The networks of one of deeptime's estimators, and its loss."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        deep, torch_room = needed("deeptime.decomposition.deep"), needed("deeptime.util.torch")
        layers = deep.TVAEEncoder if kind == "TVAE" else torch_room.MLP
        self.encoder, self.decoder = layers([12, 16, 4]), torch_room.MLP([4, 16, 12])
        self.estimator = getattr(deep, kind)(self.encoder, self.decoder)

    def forward(self, x: Tensor) -> Tensor:
        loss: Tensor = self.estimator.evaluate_loss(x, x)
        return loss


DEEPTIME = {
    name: Specimen(lambda name=name: Estimated(name), uniform(6, 12)) for name in ("TVAE", "TAE")
}


@pytest.mark.parametrize("name", DEEPTIME)
def test_deeptime(name: str) -> None:
    assert_as_described(DEEPTIME[name].examined(), rows("deeptime")[name])


def time_variance_as_scale(mu: Tensor, logvar: Tensor) -> Tensor:
    return mu + torch.randn_like(mu) * logvar.exp()  # expect: VAE303


def time_shared_noise(mu: Tensor, logvar: Tensor) -> Tensor:
    eps = torch.randn(mu.shape[1])  # expect: VAE305
    return mu + eps * torch.exp(0.5 * logvar)


def time_detached(mu: Tensor, logvar: Tensor) -> Tensor:
    return (mu + torch.randn_like(mu) * torch.exp(0.5 * logvar)).detach()  # expect: VAE302


@pytest.mark.parametrize(
    "broken", [time_variance_as_scale, time_shared_noise, time_detached], ids=lambda f: f.__name__
)
def test_deeptime_broken(monkeypatch: pytest.MonkeyPatch, broken: Callable[..., Tensor]) -> None:
    monkeypatch.setattr(needed("deeptime.decomposition.deep._tae"), "_reparameterize", broken)
    report = vaedoctor.check(Estimated("TVAE"), torch.rand(6, 12), ignore=["VAE711"])
    assert_found(report, broken)


# -- torch_geometric -------------------------------------------------------------------------


class Graphs(nn.Module):
    """The two-layer encoder of PyG's own VGAE example."""

    def __init__(self, *, variational: bool = True) -> None:
        super().__init__()
        layer = needed("torch_geometric.nn").GCNConv
        self.first, self.mu = layer(7, 8), layer(8, 4)
        self.logstd = layer(8, 4) if variational else None

    def forward(self, x: Tensor, edge_index: Tensor) -> Any:
        h = self.first(x, edge_index).relu()
        mu = self.mu(h, edge_index)
        return mu if self.logstd is None else (mu, self.logstd(h, edge_index))


def graph() -> tuple[Tensor, Tensor]:
    return torch.rand(6, 7), torch.tensor(
        [[0, 1, 2, 3, 4, 5, 0, 2, 4], [1, 2, 3, 4, 5, 0, 3, 5, 1]]
    )


def graph_ae(model: Any, x: Tensor, edge_index: Tensor) -> Tensor:
    loss: Tensor = model.recon_loss(model.encode(x, edge_index), edge_index)
    return loss


def graph_vae(model: Any, x: Tensor, edge_index: Tensor) -> Tensor:
    loss: Tensor = graph_ae(model, x, edge_index) + model.kl_loss() / len(x)
    return loss


def graph_adversarial(model: Any, x: Tensor, edge_index: Tensor) -> Tensor:
    z = model.encode(x, edge_index)
    loss: Tensor = model.recon_loss(z, edge_index) + model.reg_loss(z) + model.kl_loss() / len(x)
    return loss


def geometric(name: str, *parts: nn.Module) -> nn.Module:
    model: nn.Module = getattr(needed("torch_geometric.nn"), name)(*parts)
    return model


def critic() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))


GRAPH = {"batch_axis": None}
GEOMETRIC = {
    "GAE": Specimen(
        lambda: geometric("GAE", Graphs(variational=False)), graph, GRAPH | {"objective": graph_ae}
    ),
    "VGAE": Specimen(lambda: geometric("VGAE", Graphs()), graph, GRAPH | {"objective": graph_vae}),
    "ARGVA": Specimen(
        lambda: geometric("ARGVA", Graphs(), critic()),
        graph,
        GRAPH | {"objective": graph_adversarial},
    ),
}


@pytest.mark.parametrize("name", GEOMETRIC)
def test_geometric(name: str) -> None:
    assert_as_described(GEOMETRIC[name].examined(), rows("torch-geometric")[name])


# -- x-transformers --------------------------------------------------------------------------


def sentences() -> Tensor:
    return torch.randint(0, 20, (4, 10))


def language() -> nn.Module:
    model: nn.Module = needed("x_transformers.gpt_vae").GPTVAE(
        num_tokens=20,
        dim=16,
        depth=1,
        enc_depth=1,
        max_seq_len=12,
        heads=2,
        attn_dim_head=8,
        dim_latent=5,
    )
    return model


def test_x_transformers() -> None:
    report = Specimen(language, sentences).examined()
    assert_as_described(report, rows("x-transformers")["GPTVAE"])


# -- cornac ----------------------------------------------------------------------------------


def collaborative(likelihood: str) -> nn.Module:
    room = needed("cornac.models.vaecf.vaecf")
    model: nn.Module = room.VAE(5, [12, 9], "tanh", likelihood)
    return model


def collaborative_loss(model: Any, x: Tensor) -> Tensor:
    loss: Tensor = model.loss(x, *model(x), 1.0)
    return loss


def bilateral() -> nn.Module:
    room = needed("cornac.models.bivaecf.bivae")
    model: nn.Module = room.BiVAE(4, [12, 9], [8, 7], "tanh", "bern", {}, {}, 8)
    return model


def both_sides(model: Any, x: Tensor) -> Tensor:
    _, users, mu, std = model(x, user=True, beta=model.beta)
    _, items, other_mu, other_std = model(x.t(), user=False, theta=model.theta)
    loss: Tensor = model.loss(x, users, mu, 0.0, std, 1.0)
    other: Tensor = model.loss(x.t(), items, other_mu, 0.0, other_std, 1.0)
    return loss + other


def recommended() -> nn.Module:
    model: nn.Module = needed("cornac.models.recvae.recvae").VAE(16, 5, 12)
    return model


CORNAC = {
    f"VAECF ({likelihood})": Specimen(
        lambda likelihood=likelihood: collaborative(likelihood),
        binary(6, 12),
        {"objective": collaborative_loss},
    )
    for likelihood in ("mult", "bern", "gaus", "pois")
} | {
    "BiVAE": Specimen(bilateral, binary(8, 12), {"objective": both_sides}),
    "RecVAE": Specimen(recommended, binary(6, 12)),
}


@pytest.mark.parametrize("name", CORNAC)
def test_cornac(name: str) -> None:
    assert_as_described(CORNAC[name].examined(), rows("cornac")[name])


def cornac_one_head(model: Any) -> None:
    def encode(x: Tensor) -> tuple[Tensor, Tensor]:
        h = model.encoder(x)
        return model.enc_mu(h), model.enc_mu(h)  # expect: VAE106

    model.encode = encode


def cornac_raw_logvar(model: Any) -> None:
    def reparameterize(mu: Tensor, logvar: Tensor) -> Tensor:
        return mu + torch.randn_like(mu) * logvar.exp()  # expect: VAE303

    model.reparameterize = reparameterize


@pytest.mark.parametrize("broken", [cornac_one_head, cornac_raw_logvar], ids=lambda f: f.__name__)
def test_cornac_broken(broken: Callable[[Any], None]) -> None:
    model = collaborative("bern")
    broken(model)
    assert_found(vaedoctor.check(model, binary(6, 12)(), objective=collaborative_loss), broken)


# -- Pyro ------------------------------------------------------------------------------------


def causal(outcome: str) -> nn.Module:
    model: nn.Module = needed("pyro.contrib.cevae").CEVAE(
        feature_dim=7, latent_dim=4, hidden_dim=8, num_layers=2, outcome_dist=outcome
    )
    return model


def causal_bound(model: Any, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
    bound = needed("pyro.contrib.cevae").TraceCausalEffect_ELBO()
    loss: Tensor = bound.differentiable_loss(model.model, model.guide, x, t, y)
    return loss


def patients() -> tuple[Tensor, Tensor, Tensor]:
    return torch.randn(9, 7), binary(9)(), binary(9)()


PYRO = {
    f"CEVAE ({outcome})": Specimen(
        lambda outcome=outcome: causal(outcome), patients, {"objective": causal_bound}
    )
    for outcome in ("bernoulli", "normal")
}


@pytest.mark.parametrize("name", PYRO)
def test_pyro(name: str) -> None:
    assert_as_described(PYRO[name].examined(), rows("pyro-ppl")[name])
