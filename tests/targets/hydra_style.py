import logging
from dataclasses import dataclass

import hydra
import torch
import torch.nn as nn
from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf

log = logging.getLogger(__name__)


@dataclass
class ModelConfig:
    in_features: int = 50
    hidden: int = 40
    latent: int = 6


cs = ConfigStore.instance()
cs.store(name="model", node=ModelConfig)


class GaussianVAE(nn.Module):
    def __init__(self, cfg: ModelConfig):
        super().__init__()
        self.f = nn.Linear(cfg.in_features, cfg.hidden)
        self.mu, self.logvar = nn.Linear(cfg.hidden, cfg.latent), nn.Linear(cfg.hidden, cfg.latent)
        self.g = nn.Linear(cfg.latent, cfg.in_features)

    def forward(self, x):
        h = torch.tanh(self.f(x))
        mu, logvar = self.mu(h), self.logvar(h)
        z = torch.randn_like(mu).mul(torch.exp(0.5 * logvar)).add(mu)
        return self.g(z), mu, logvar


@hydra.main(version_base=None, config_path="configs", config_name="train")
def main(cfg: DictConfig) -> None:
    log.info(OmegaConf.to_yaml(cfg))
    model = GaussianVAE(cfg.model)
    torch.optim.Adam(model.parameters(), lr=cfg.lr)


if __name__ == "__main__":
    main()
