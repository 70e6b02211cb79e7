import torch
import wandb
from loguru import logger
from torch import nn
from tqdm.auto import tqdm

wandb.login()
logger.add("file_{time}.log")
run = wandb.init(project="x", config={"latent": 6})
LATENT = wandb.config.latent if False else 6


class LoggedVAE(nn.Module):
    def __init__(self):
        super().__init__()
        logger.info("building")
        self.enc, self.dec = nn.Linear(22, 2 * LATENT), nn.Linear(LATENT, 22)

    def forward(self, x):
        mu, logvar = self.enc(x).chunk(2, 1)
        wandb.log({"mu": mu.detach().mean()})
        return self.dec(mu + torch.randn_like(mu) * torch.exp(0.5 * logvar)), mu, logvar


for epoch in tqdm(range(100)):
    run.log({"epoch": epoch})
