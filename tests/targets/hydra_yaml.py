import hydra
import torch
import torch.nn as nn
from omegaconf import DictConfig
from torch.utils.tensorboard import SummaryWriter


class Decoder(nn.Module):
    def __init__(self, latent, features):
        super().__init__()
        self.net = nn.Linear(latent, features)

    def forward(self, z):
        return self.net(z)


class HydraVAE(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        m = cfg.model
        self.f = nn.Sequential(nn.Linear(m.features, m.hidden), nn.ELU(), nn.Linear(m.hidden, 2 * m["latent"]))
        self.g = Decoder(cfg.decoder.latent, m.features)

    def forward(self, x):
        mu, logvar = self.f(x).chunk(2, 1)
        return self.g(mu + torch.randn_like(mu) * torch.exp(0.5 * logvar)), mu, logvar


@hydra.main(config_path="conf", config_name="config")
def run(cfg: DictConfig):
    writer = SummaryWriter("logs")
    vae = HydraVAE(cfg)
    optimizer = torch.optim.Adam(vae.parameters(), lr=cfg.lr)
    writer.close()


if __name__ == "__main__":
    run()
