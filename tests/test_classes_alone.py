"""A class alone, as it lies in somebody's file: nothing is given, and it is examined all the same.

Each text is a small reproduction of one thing that kept a class from being examined.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from vaedoctor.checkup import examine_subject
from vaedoctor.subject.target import TargetError, load
from vaedoctor.subject.trials.switches import set_mode

HEAD = """
import abc, dataclasses, enum, torch
from typing import Dict, Optional, Sequence
from torch import nn
from torch.nn import functional as F

def drawn(h):
    mu, logvar = h.chunk(2, 1)
    return mu + torch.randn_like(mu) * (logvar / 2).exp(), mu, logvar

"""

ALONE = {
    "a number between two bounds": """
        class VAE(nn.Module):
            def __init__(self, width, n_dims, n_heads):
                super().__init__()
                assert 1 <= n_dims <= 3, "one to three"
                if width % n_heads != 0:
                    raise ValueError("the heads divide the width")
                self.up = nn.Linear(width * n_dims // n_dims, 12)
                self.down = nn.Linear(6, width)
            def forward(self, x):
                z, mu, logvar = drawn(self.up(x))
                return self.down(z), mu, logvar
    """,
    "parts whose classes leave a method open, and a forward that only refuses": """
        class Part(nn.Module):
            def __init__(self, width=20, d_z=6, parts=1):
                super().__init__()
                self.width, self.d_z, self.parts = width, d_z, parts
        class Encoder(Part):
            def forward(self, x):
                return self.encode(x)
            def encode(self, x):
                raise NotImplementedError
        class Decoder(Part):
            def forward(self, z):
                return self.decode(z)
            def decode(self, z):
                raise NotImplementedError
        class PlainEncoder(Encoder):
            def __init__(self, width=20, d_z=6, parts=1):
                super().__init__(width, d_z, parts)
                self.up = nn.Linear(width, d_z * parts)
            def encode(self, x):
                return self.up(x)
        class PlainDecoder(Decoder):
            def __init__(self, width=20, d_z=6, parts=1):
                super().__init__(width, d_z, parts)
                self.down = nn.Linear(d_z, width)
            def decode(self, z):
                return self.down(z)
        class VAE(nn.Module):
            def __init__(self, encoder: Encoder, decoder: Decoder):
                super().__init__()
                self._encoder, self._decoder = encoder, decoder
                if encoder.parts != 2:
                    raise ValueError("a mean and a variance are asked for")
            def forward(self, x):
                raise RuntimeError("call encode and decode")
            def encode(self, x):
                return self._encoder(x).chunk(2, 1)
            def reparameterize(self, mu, logvar):
                return mu + torch.randn_like(mu) * (logvar / 2).exp()
            def decode(self, z):
                return self._decoder(z)
    """,
    "a class that only a check of the constructor names": """
        class Net(nn.Module):
            def __init__(self, width, d_z):
                super().__init__()
                self.up, self.down = nn.Linear(width, 2 * d_z), nn.Linear(d_z, width)
                self.d_z = d_z
        class VAE(nn.Module):
            def __init__(self, model: "Unknown"):
                super().__init__()
                assert isinstance(model, Net)
                self._model, self.d_z = model, model.d_z
            def forward(self, x):
                z, mu, logvar = drawn(self._model.up(x))
                return self._model.down(z), mu, logvar
    """,
    "a number within a bound that only the message tells": """
        class VAE(nn.Module):
            def __init__(self, config):
                super().__init__()
                rest = config.num_layers - config.split
                if rest <= 0:
                    raise ValueError(f"split ({config.split}) must be below {config.num_layers}")
                self.up = nn.Sequential(*[nn.Linear(20, 20) for _ in range(config.split)])
                self.mid, self.down = nn.Linear(20, 12), nn.Linear(6, 20)
                self.shared = config.num_heads // config.num_kv_heads
            def forward(self, x):
                z, mu, logvar = drawn(self.mid(self.up(x).repeat(1, self.shared)))
                return self.down(z), mu, logvar
    """,
    "one number or several, of which one fits": """
        class VAE(nn.Module):
            def __init__(self, width: int, codes: "int | tuple[int, ...]", d_z=6):
                super().__init__()
                several = codes if isinstance(codes, tuple) else (codes,) * 2
                if len(several) != 2 or len({code for code in several}) != 1:
                    raise ValueError("they are shared")
                self.up, self.down = nn.Linear(width, 2 * d_z), nn.Linear(d_z, width)
            def forward(self, x):
                z, mu, logvar = drawn(self.up(x))
                return self.down(z), mu, logvar
    """,
    "parts of default None that forward asks for one after the other": """
        class Prior(nn.Module):
            def log_prob(self, z):
                raise NotImplementedError
        class Standard(Prior):
            def log_prob(self, z):
                return torch.distributions.Normal(0.0, 1.0).log_prob(z)
        class Encoder(nn.Module):
            def __init__(self, width: int, latent_dim: int):
                super().__init__()
                self.up = nn.Linear(width, 2 * latent_dim)
            def forward(self, x):
                return self.up(x).chunk(2, -1)
        class Decoder(nn.Module):
            def __init__(self, width: int, latent_dim: int):
                super().__init__()
                self.down = nn.Linear(latent_dim, width)
            def forward(self, z):
                return self.down(z)
        @dataclasses.dataclass
        class Config:
            scale: float = 1.0
        class VAE(nn.Module):
            def __init__(
                self,
                config: Config,
                encoder: Optional[Encoder] = None,
                decoder: Optional[Decoder] = None,
                prior: Optional[Prior] = None,
            ):
                super().__init__()
                self.config, self.prior = config, prior
                self.encoder, self.decoder = encoder, decoder
            def forward(self, inputs):
                x = inputs["data"]
                mu, logvar = self.encoder(x)
                z = mu + torch.randn_like(mu) * (logvar / 2).exp()
                return {"x_hat": self.decoder(z), "loss": self.loss(x, self.decoder(z), z, logvar)}
            def loss(self, x, x_hat, z, logvar):
                kl = -(logvar / 2).sum(1) - self.prior.log_prob(z).sum(1)
                return F.mse_loss(x_hat, x, reduction="none").sum(1).mean() + kl.mean()
    """,
    "a data set, whose methods give sizes and tensors": """
        class VAE(nn.Module):
            def __init__(self, config, dataset):
                super().__init__()
                self.n_items = dataset.num(config["field"])
                self.ids, self.ratings, _ = dataset.history()
                self.ids, self.ratings = self.ids.to("cpu"), self.ratings.to("cpu")
                self.up = nn.Linear(self.n_items, 2 * config["latent_dim"])
                self.down, self.std = nn.Linear(config["latent_dim"], self.n_items), config["std"]
            def forward(self, x, dropout_prob):
                z, mu, logvar = drawn(self.up(F.dropout(x, dropout_prob)))
                return self.down(z) if dropout_prob else z, mu, logvar
    """,
    "a list of words": """
        class VAE(nn.Module):
            def __init__(self, width, order):
                super().__init__()
                self.width, steps = width, []
                for i, word in enumerate(order):
                    if not isinstance(word, str):
                        raise ValueError(f"order[{i}] is no word")
                    if word.lower() in ("plain", "p"):
                        steps.append(nn.Identity())
                    elif word.lower() in ("bent", "b"):
                        steps.append(nn.Tanh())
                    else:
                        raise ValueError(word)
                self.up = nn.Sequential(nn.Linear(width, 12), *steps)
                self.down = nn.Linear(6, width)
            def forward(self, x):
                z, mu, logvar = drawn(self.up(x))
                return self.down(z), mu, logvar
    """,
    "two objects with a name each": """
        class Part:
            def __init__(self, name: str, width: int):
                self.name, self.width = name, width
        class VAE(nn.Module):
            def __init__(self, parts: list[Part]):
                super().__init__()
                assert len({part.name for part in parts}) == len(parts)
                wide = sum(part.width for part in parts)
                self.up, self.down = nn.Linear(wide, 12), nn.Linear(6, wide)
            def forward(self, x):
                z, mu, logvar = drawn(self.up(x))
                return self.down(z), mu, logvar
    """,
    "parts that only what it returns is named like": """
        class EncoderOutput:
            def __init__(self, z):
                self.z = z
        class VAE(nn.Module):
            def __init__(self, encoder: nn.Module, decoder: nn.Module, latent_dim: int):
                super().__init__()
                self.encoder, self.decoder = encoder, decoder
                self.heads = nn.LazyLinear(2 * latent_dim)
            def forward(self, x):
                z, mu, logvar = drawn(self.heads(self.encoder(x)))
                return self.decoder(EncoderOutput(z).z), mu, logvar
    """,
    "arguments that are handed on to a base class": """
        class Base(nn.Module):
            def __init__(self, width: int, latent_dim: int, depth=None):
                super().__init__()
                self.width, self.latent_dim, self.depth = width, latent_dim, depth
        class Middle(Base):
            def __init__(self, *, beta=1.0, **kwargs):
                super().__init__(**kwargs)
                self.beta = beta
        class VAE(Middle):
            def __init__(self, **options):
                assert options.pop("kind", None) is None
                super().__init__(beta=4.0, **options)
                self.up = nn.Linear(self.width, 2 * self.latent_dim)
                self.down = nn.Linear(self.latent_dim, self.width)
            def forward(self, x):
                z, mu, logvar = drawn(self.up(x))
                return self.down(z), mu, logvar
    """,
    "a part that is put into a sequence": """
        class VAE(nn.Module):
            def __init__(self, D, what):
                super().__init__()
                self.up = nn.Sequential(nn.Linear(D, 12), what)
                self.down = nn.Linear(6, D)
            def forward(self, x):
                z, mu, logvar = drawn(self.up(x))
                return self.down(z), mu, logvar
    """,
    "an argument that is only kept": """
        class VAE(nn.Module):
            def __init__(self, D, origin):
                super().__init__()
                self.origin = origin
                self.up, self.down = nn.Linear(D, 12), nn.Linear(6, D)
            def forward(self, x):
                z, mu, logvar = drawn(self.up(x))
                return self.down(z), mu, logvar
    """,
    "a flag": """
        class VAE(nn.Module):
            def __init__(self, D, norm_flag):
                super().__init__()
                self.norm = nn.BatchNorm1d(12) if norm_flag else nn.Identity()
                self.up, self.down = nn.Linear(D, 12), nn.Linear(6, D)
            def forward(self, x):
                z, mu, logvar = drawn(self.norm(self.up(x)))
                return self.down(z), mu, logvar
    """,
    "sizes whose default is None": """
        class VAE(nn.Module):
            def __init__(self, n_rows: int = None, n_columns: int = None):
                super().__init__()
                wide = n_rows * n_columns
                self.up, self.down = nn.Linear(wide, 12), nn.Linear(6, wide)
            def forward(self, x):
                z, mu, logvar = drawn(self.up(x))
                return self.down(z), mu, logvar
    """,
    "an attribute that only an optional argument sets": """
        class Up(nn.Module):
            def __init__(self, D, squash=None):
                super().__init__()
                self.up = nn.Linear(D, 12)
                if squash is not None:
                    self.squash = squash
            def forward(self, x):
                return self.squash(self.up(x))
        class VAE(nn.Module):
            def __init__(self, encoder):
                super().__init__()
                self.encoder, self.down = encoder, nn.LazyLinear(37)
            def forward(self, x):
                z, mu, logvar = drawn(self.encoder(x))
                return self.down(z), mu, logvar
        Encoder = Up
    """,
    "parts that nobody defines": """
        class VAE(nn.Module):
            def __init__(self, encoder, decoder, wide=20):
                super().__init__()
                self.encoder, self.decoder, self.heads = encoder, decoder, nn.Linear(wide, 12)
            def forward(self, x):
                z, mu, logvar = drawn(self.heads(self.encoder(x)))
                return self.decoder(z), mu, logvar
    """,
    "a whole number for forward": """
        class VAE(nn.Module):
            def __init__(self):
                super().__init__()
                self.up, self.down = nn.Linear(20, 12), nn.Linear(6, 20)
            def forward(self, x, every: int):
                z, mu, logvar = drawn(self.up(x[: x.shape[0] // every]))
                return self.down(z), mu, logvar
    """,
    "a factor that is a column": """
        class VAE(nn.Module):
            def __init__(self):
                super().__init__()
                self.up, self.down = nn.Linear(20, 12), nn.Linear(7, 20)
            def forward(self, x, size_factor):
                z, mu, logvar = drawn(self.up(x))
                return self.down(torch.cat([z, size_factor], 1)), mu, logvar
    """,
    "a picture that lies": """
        class VAE(nn.Module):
            def __init__(self):
                super().__init__()
                self.up = nn.Conv2d(3, 10, 8, 8)
                self.heads, self.back = nn.Linear(10 * 4 * 7, 12), nn.Linear(6, 10 * 4 * 7)
                self.down = nn.ConvTranspose2d(10, 3, 8, 8)
            def forward(self, x):
                z, mu, logvar = drawn(self.heads(self.up(x).flatten(1)))
                return self.down(self.back(z).view(-1, 10, 4, 7)), mu, logvar
    """,
    "a long series that is turned": """
        class VAE(nn.Module):
            def __init__(self, seq_len=1500):
                super().__init__()
                self.up = nn.Conv1d(1, 2, 4, 4)
                self.heads, self.down = nn.Linear(seq_len // 2, 12), nn.Linear(6, seq_len)
            def forward(self, x):
                z, mu, logvar = drawn(self.heads(self.up(x.permute(0, 2, 1)).flatten(1)))
                return self.down(z).unsqueeze(2), mu, logvar
    """,
    "a label that is joined to the picture": """
        class VAE(nn.Module):
            def __init__(self):
                super().__init__()
                self.up, self.heads = nn.Conv2d(2, 4, 4, 4), nn.Linear(4 * 7 * 7, 12)
                self.down = nn.Linear(6, 784)
            def forward(self, x, y):
                plane = torch.ones_like(x) * F.one_hot(y, x.shape[2])[:, None, None]
                h = self.up(torch.cat((x, plane), 1))
                z, mu, logvar = drawn(self.heads(h.flatten(1)))
                return self.down(z).view_as(x), mu, logvar
    """,
    "pictures of one size": """
        class VAE(nn.Module):
            def __init__(self):
                super().__init__()
                self.tags, self.up = nn.Linear(9, 144), nn.Conv2d(4, 2, 4, 4)
                self.heads, self.down = nn.Linear(18, 12), nn.Linear(6, 432)
            def forward(self, x, tags):
                plane = self.tags(tags).reshape(-1, 1, 12, 12)
                h = self.up(torch.cat((x, plane), 1))
                z, mu, logvar = drawn(self.heads(h.flatten(1)))
                return self.down(z).view(-1, 3, 12, 12), mu, logvar
    """,
    "a base class of Lightning, which is not there": """
        import lightning.pytorch as pl
        class VAE(pl.LightningModule):
            def __init__(self, D: int, n_hidden: int = 12, **more):
                super().__init__()
                self.save_hyperparameters(ignore=["more"])
                self.up = nn.Linear(D, self.hparams.n_hidden)
                self.down = nn.Linear(self.hparams["n_hidden"] // 2, D)
            def forward(self, x):
                z, mu, logvar = drawn(self.up(x.to(self.device, self.dtype)))
                return self.down(z), mu, logvar
            def training_step(self, batch, batch_idx):
                recon, mu, logvar = self(batch)
                kl = -0.5 * (1 + logvar - mu**2 - logvar.exp()).sum(1).mean()
                loss = F.mse_loss(recon, batch) + kl
                self.log("loss", loss, on_epoch=True)
                return loss
    """,
    "a device from a module that is not there": """
        from config import device
        class VAE(nn.Module):
            def __init__(self):
                super().__init__()
                self.up, self.down = nn.Linear(20, 12), nn.Linear(6, 20)
            def forward(self, x):
                z, mu, logvar = drawn(self.up(x.to(device)))
                return self.down(z), mu, logvar
    """,
    "a method `train` that takes data": """
        class VAE(nn.Module):
            def __init__(self):
                super().__init__()
                self.up, self.down = nn.Linear(20, 12), nn.Linear(6, 20)
            def forward(self, x):
                z, mu, logvar = drawn(self.up(x))
                return self.down(z), mu, logvar
            def train(self, table, epochs=3):
                raise RuntimeError(len(table))
    """,
    "a series of a told length": """
        class VAE(nn.Module):
            def __init__(self, ticks=6):
                super().__init__()
                self.ticks = ticks
                self.up, self.heads = nn.GRU(3, 8, batch_first=True), nn.Linear(8, 12)
                self.down = nn.Linear(6, 3)
            def forward(self, x):
                z, mu, logvar = drawn(self.heads(self.up(x)[0][:, -1]))
                return self.down(z[:, None].repeat(1, self.ticks, 1)), mu, logvar
            def loss_function(self, recon, x, mu, logvar):
                kl = -0.5 * (1 + logvar - mu**2 - logvar.exp()).sum(1).mean()
                return (recon - x).square().sum((1, 2)).mean() + kl
    """,
    "no forward, but two methods": """
        class VAE(nn.Module):
            def __init__(self):
                super().__init__()
                self.encoder, self.decoder = nn.Linear(20, 12), nn.Linear(6, 20)
            def get_encoding(self, x):
                return self.encoder(x).chunk(2, 1)
            def get_decoding(self, z):
                return self.decoder(z)
    """,
    "what a part asserts about what is handed on to it": """
        class Codes(nn.Module):
            def __init__(self, dim, n_codes=None, widths=None):
                super().__init__()
                assert (
                    n_codes is not None or widths
                )
                self.codes = nn.Parameter(torch.randn(n_codes or widths[0], dim))
        class VAE(nn.Module):
            def __init__(self, dim=6, **kwargs):
                super().__init__()
                self.up, self.down = nn.Linear(20, 2 * dim), nn.Linear(dim, 20)
                self.parts = Codes(dim, **kwargs)
            def forward(self, x):
                z, mu, logvar = drawn(self.up(x))
                return self.down(z) + 0 * self.parts.codes.sum(), mu, logvar
    """,
    "a part of which only its type is told": """
        def reset(module: nn.Module):
            for child in module.children():
                child.reset_parameters()
        class Plain(nn.Module):
            def __init__(self, discriminator: nn.Module):
                super().__init__()
                self.up, self.down = nn.Linear(29, 12), nn.Linear(6, 29)
                self.discriminator = discriminator
                reset(self.discriminator)
            def forward(self, x):
                z, mu, logvar = drawn(self.up(x))
                return self.discriminator(self.down(z)), mu, logvar
        class VAE(Plain):
            def __init__(self, discriminator: nn.Module):
                super().__init__(discriminator)
    """,
    "constants that say how wide the data are": """
        class VAE(nn.Module):
            def __init__(self):
                super().__init__()
                self.register_buffer("scale", torch.full((3, 14), 2.0))
            def forward(self, x):
                return x * self.scale.prod(0)
    """,
    "settings that a constructor computes with": """
        class VAE(nn.Module):
            def __init__(self, args):
                super().__init__()
                self.up, self.down = nn.Linear(args.wide, 12), nn.Linear(6, args.wide)
                self.prior = nn.Parameter(torch.full([6], args.spread, dtype=torch.float32))
                if args.start != 0:
                    nn.init.zeros_(self.prior)
            def forward(self, x):
                z, mu, logvar = drawn(self.up(x))
                return self.down(z) + 0 * self.prior.sum(), mu, logvar
    """,
    "numbers by the names of a list": """
        class VAE(nn.Module):
            def __init__(self, widths, kinds):
                super().__init__()
                self.kinds = kinds
                self.ups, self.downs = nn.ModuleDict(), nn.ModuleDict()
                for kind in kinds:
                    self.ups[kind] = nn.Linear(widths[kind], 12)
                    self.downs[kind] = nn.Linear(6, widths[kind])
            def forward(self, tables: dict):
                h = torch.stack([self.ups[k](tables[k]) for k in self.kinds]).mean(0)
                z, mu, logvar = drawn(h)
                return {k: self.downs[k](z) for k in self.kinds}, mu, logvar
    """,
    "data by name, as the annotation says": """
        class VAE(nn.Module):
            def __init__(self):
                super().__init__()
                self.downs = nn.ModuleDict({"red": nn.Linear(6, 9), "blue": nn.Linear(6, 14)})
                self.encs = nn.ModuleDict({"red": nn.Linear(9, 12), "blue": nn.Linear(14, 12)})
            def forward(self, tables: dict[str, torch.Tensor]):
                h = sum(self.encs[k](tables[k]) for k in self.encs if k in tables)
                z, mu, logvar = drawn(h)
                return {k: down(z) for k, down in self.downs.items()}, mu, logvar
    """,
    "data by name inside an object": """
        class VAE(nn.Module):
            def __init__(self):
                super().__init__()
                self.encs = nn.ModuleDict({"red": nn.Linear(9, 12), "blue": nn.Linear(14, 12)})
                self.downs = nn.ModuleDict({"red": nn.Linear(6, 9), "blue": nn.Linear(6, 14)})
            def forward(self, batch):
                h = sum(self.encs[k](batch.tables[k]) for k in batch.tables)
                z, mu, logvar = drawn(h)
                return {k: down(z) for k, down in self.downs.items()}, mu, logvar
    """,
    "a field that the constructor asks for in words": """
        @dataclasses.dataclass
        class Setup:
            n_views: int
            view_widths: Optional[Dict[str, int]] = None
        class VAE(nn.Module):
            def __init__(self, setup: Setup):
                super().__init__()
                if setup.view_widths is None:
                    raise AttributeError("please give the view widths")
                if len(setup.view_widths) != setup.n_views:
                    raise AttributeError("one width for each view")
                self.encs = nn.ModuleDict()
                for name, width in setup.view_widths.items():
                    self.encs[name] = nn.Linear(width, 12)
                self.decs = nn.ModuleDict()
                for name, width in setup.view_widths.items():
                    self.decs[name] = nn.Linear(6, width)
            def forward(self, x):
                z, mu, logvar = drawn(sum(self.encs[k](x[k]) for k in self.encs))
                return {k: dec(z) for k, dec in self.decs.items()}, mu, logvar
    """,
    "one of the classes below an abstract one": """
        class Spec(abc.ABC):
            @abc.abstractmethod
            def __len__(self): ...
        @dataclasses.dataclass
        class Flat(Spec):
            size: int
            def __len__(self):
                return self.size
        class VAE(nn.Module):
            def __init__(self, spec: Spec):
                super().__init__()
                assert isinstance(spec, Spec)
                self.up, self.down = nn.Linear(len(spec), 12), nn.Linear(6, len(spec))
            def forward(self, x):
                z, mu, logvar = drawn(self.up(x))
                return self.down(z), mu, logvar
    """,
    "the configuration that a class names": """
        class Setup:
            def __init__(self, depth=2):
                self.depth = depth
        class Wide(Setup):
            def __init__(self, width: int):
                super().__init__()
                self.width = width
        class Base(nn.Module):
            def __init__(self, setup: Setup):
                super().__init__()
                self.up, self.down = nn.Linear(setup.width, 12), nn.Linear(6, setup.width)
            def forward(self, x):
                z, mu, logvar = drawn(self.up(x))
                return self.down(z), mu, logvar
        class VAE(Base):
            setup_class = Wide
    """,
    "a configuration that has what is read": """
        class Setup:
            def __init__(self, depth: int = 2):
                self.depth = depth
        class Wide(Setup):
            def __init__(self, width: int):
                super().__init__()
                self.width = width
        class VAE(nn.Module):
            def __init__(self, setup: Setup):
                super().__init__()
                self.up, self.down = nn.Linear(setup.width, 12), nn.Linear(6, setup.width)
            def forward(self, x):
                z, mu, logvar = drawn(self.up(x))
                return self.down(z), mu, logvar
    """,
    "a width that the heads divide, as a library says": """
        class VAE(nn.Module):
            def __init__(self, width, n_heads=6):
                super().__init__()
                if int(str(width)) % int(str(n_heads)):
                    raise ValueError(f"{width} is not divisible by {n_heads}")
                if int(str(width)) // int(str(n_heads)) % 2:
                    raise ValueError("each head needs an even width")
                self.up, self.down = nn.Linear(width, 12), nn.Linear(6, width)
            def forward(self, x):
                z, mu, logvar = drawn(self.up(x))
                return self.down(z), mu, logvar
    """,
    "an optional part that is called": """
        class Reader(nn.Module):
            def __init__(self, width: int):
                super().__init__()
                self.up = nn.Linear(width, 12)
            def forward(self, x):
                return self.up(x)
        class VAE(nn.Module):
            def __init__(self, width: int, reader: Optional[Reader] = None):
                super().__init__()
                self.reader, self.down = reader, nn.Linear(6, width)
            def forward(self, x):
                z, mu, logvar = drawn(self.reader(x))
                return self.down(z), mu, logvar
    """,
    "a number that is None, or 0, by default": """
        class VAE(nn.Module):
            def __init__(self, width, n_panels=None, n_kinds=0):
                super().__init__()
                more = n_panels if n_panels > 0 else 1
                self.prior = torch.ones(1, n_kinds) * (1 / n_kinds)
                self.up, self.down = nn.Linear(width, 12), nn.Linear(6, width)
            def forward(self, x):
                z, mu, logvar = drawn(self.up(x))
                return self.down(z), mu, logvar
    """,
    "a name that only a type checker imports": """
        from typing import TYPE_CHECKING
        if TYPE_CHECKING:
            from nowhere import Nothing
        class Kind(enum.Enum):
            SMALL = 9
        class VAE(nn.Module):
            def __init__(self, kind: "Kind", other: "Nothing | None" = None):
                super().__init__()
                assert isinstance(kind, Kind)
                self.up, self.down = nn.Linear(kind.value, 12), nn.Linear(6, kind.value)
            def forward(self, x):
                z, mu, logvar = drawn(self.up(x))
                return self.down(z), mu, logvar
    """,
    "decay is no decoder": """
        class Decoder(nn.Module):
            def __init__(self, width):
                super().__init__()
                self.down = nn.Linear(6, width)
            def forward(self, z):
                return self.down(z)
        class VAE(nn.Module):
            def __init__(self, width, decay):
                super().__init__()
                self.up, self.decoder = nn.Linear(width, 12), Decoder(width)
                self.settings = {"decay": decay}
            def forward(self, x):
                z, mu, logvar = drawn(self.up(x) * (1 - self.settings["decay"]))
                return self.decoder(z), mu, logvar
    """,
    "a model around another": """
        class Inner(nn.Module):
            def __init__(self, encoder: nn.Module, decoder: nn.Module, latent_dim: int):
                super().__init__()
                self.encoder, self.decoder = encoder, decoder
                self.heads = nn.LazyLinear(2 * latent_dim)
            def forward(self, x):
                z, mu, logvar = drawn(self.heads(self.encoder(x)))
                return self.decoder(z), mu, logvar
        class VAE(nn.Module):
            def __init__(self, inner: Inner):
                super().__init__()
                self.inner = inner
            def forward(self, x):
                return self.inner(x)
    """,
    "two places of one argument, channels last": """
        class VAE(nn.Module):
            def __init__(self, n_kinds: int = 5, length: int = 12):
                super().__init__()
                self.up, self.down = nn.Conv1d(n_kinds, 12, 1), nn.Conv1d(6, n_kinds, 1)
            def forward(self, data):
                seen, masked = data[:][0], data[:][1]
                z, mu, logvar = drawn(self.up(masked.permute(0, 2, 1)))
                return self.down(z).permute(0, 2, 1) * seen.new_ones(()), mu, logvar
    """,
    "a word that may be missing, and what need not be given": """
        class VAE(nn.Module):
            def __init__(self, settings: dict):
                super().__init__()
                if "shape" in settings: self.shape = settings["shape"]
                else: self.shape = "flat"
                self.frame = settings["frame"].to_frame("a") if "frame" in settings else None
                self.up = nn.Linear(settings["width"], 12)
                self.down = nn.Linear(6, settings["width"])
            def bent(self, x):
                if self.shape == "flat":
                    return x
                raise ValueError(self.shape)
            def forward(self, x):
                z, mu, logvar = drawn(self.up(x))
                return self.bent(self.down(z)), mu, logvar
    """,
    "a word of which one branch has another": """
        class VAE(nn.Module):
            def __init__(self, width, shape=None, settings=None):
                super().__init__()
                if settings is None:
                    self.shape = shape["name"]
                else:
                    self.shape = "round"
                self.up, self.down = nn.Linear(width, 12), nn.Linear(6, width)
            def forward(self, x):
                z, mu, logvar = drawn(self.up(x))
                if self.shape not in ("long", "short"):
                    raise ValueError(self.shape)
                return self.down(z), mu, logvar
    """,
    "a sequence of names": """
        class VAE(nn.Module):
            def __init__(self, kinds: Sequence[str], width: int):
                super().__init__()
                self.ups = nn.ModuleDict({k: nn.Linear(width, 12) for k in kinds})
                self.down = nn.Linear(6, width)
            def forward(self, x):
                z, mu, logvar = drawn(sum(up(x) for up in self.ups.values()))
                return self.down(z), mu, logvar
    """,
    "points with their places": """
        class VAE(nn.Module):
            def __init__(self):
                super().__init__()
                self.table, self.up = nn.Embedding(20, 8), nn.Linear(8 + 3 * 2, 12)
                self.down = nn.Linear(6, 20)
            def forward(self, kinds, coords):
                near = torch.cat([coords, coords.sin(), coords.cos()], -1)
                z, mu, logvar = drawn(self.up(torch.cat([self.table(kinds), near], -1)).mean(1))
                return self.down(z), mu, logvar
    """,
    "a condition that only the decoder takes": """
        class VAE(nn.Module):
            def __init__(self, width, latent_dim, group_dim):
                super().__init__()
                self.up = nn.Linear(width, latent_dim)
                self.down = nn.Linear(latent_dim + group_dim, width)
            def enc(self, x):
                return self.up(x)
            def dec(self, z, group):
                return self.down(torch.cat([z, group], dim=1))
    """,
    "pictures by name, of the shape that each part keeps": """
        class Part(nn.Module):
            def __init__(self, sides):
                super().__init__()
                self.sides = sides
                self.up = nn.Linear(sides[0] * sides[1], 12)
            def forward(self, x):
                assert x.shape[1:] == self.sides, "pictures"
                return self.up(x.flatten(1))
        class VAE(nn.Module):
            def __init__(self):
                super().__init__()
                self.encs = nn.ModuleDict({"red": Part((4, 6)), "blue": Part((5, 7))})
                self.down = nn.Linear(6, 24)
            def forward(self, x):
                z, mu, logvar = drawn(sum(self.encs[k](x[k]) for k in self.encs))
                return self.down(z).view(-1, 4, 6), mu, logvar
    """,
    "a fixed filter before the first layer": """
        class VAE(nn.Module):
            def __init__(self):
                super().__init__()
                self.register_buffer("bands", torch.ones(12, 1, 2, 2))
                self.up, self.down = nn.Conv2d(12, 12, 1), nn.ConvTranspose2d(6, 3, 2, stride=2)
            def forward(self, x):
                h = F.conv2d(x, self.bands.float(), stride=2, groups=3)
                z, mu, logvar = drawn(self.up(h))
                return self.down(z), mu, logvar
    """,
    "a flag among data is a column": """
        class VAE(nn.Module):
            def __init__(self, width):
                super().__init__()
                self.up, self.down = nn.Linear(width, 12), nn.Linear(6, width)
            def forward(self, tensors):
                rows = tensors["table"].new_tensor(tensors["sample"].tolist())
                z, mu, logvar = drawn(self.up(tensors["table"]) + 0 * rows)
                return self.down(z), mu, logvar
    """,
    "a refusal that says what it requires": """
        class VAE(nn.Module):
            def __init__(self, width, latent_dim=6):
                super().__init__()
                self.up, self.down = nn.Linear(width, 12), nn.Linear(6, width)
            def forward(self, x, seen=None):
                z, mu, logvar = drawn(self.up(x))
                if seen is not None and seen.size(1) != 6:
                    raise ValueError(f"the loss requires seen rows of 6 (got {seen.size(1)})")
                return self.down(z), mu, logvar
            def loss(self, x, seen):
                x_hat, mu, logvar = self(x, seen)
                return F.mse_loss(x_hat, x)
    """,
}


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], str]:
    def written(body: str) -> str:
        path = tmp_path / "mymodel.py"
        path.write_text(HEAD + textwrap.dedent(body))
        return f"{path}:VAE"

    return written


@pytest.mark.parametrize("what", ALONE)
def test_a_class_alone_is_examined(write: Callable[[str], str], what: str) -> None:
    subject = load(write(ALONE[what]))
    assert subject.batch.ran
    assert not [f for f in examine_subject(subject).findings if str(f.severity) == "error"]


def test_a_model_that_takes_one_row_only_gets_one(write: Callable[[str], str]) -> None:
    body = """
        class VAE(nn.Module):
            def __init__(self):
                super().__init__()
                self.up, self.down = nn.Linear(20, 12), nn.Linear(6, 20)
            def forward(self, x):
                q = x.view(len(x), 1, 5, 4)
                mask = torch.zeros(len(x), 5, 5, device=x.device)
                h = F.scaled_dot_product_attention(q, q, q, mask)
                z, mu, logvar = drawn(self.up(h.flatten(1)))
                return self.down(z), mu, logvar
    """
    subject = load(write(body))
    assert subject.batch.ran
    assert [tuple(a.shape) for a in subject.batch.args] == [(1, 20)]
    errors = [f for f in examine_subject(subject).findings if str(f.severity) == "error"]
    assert [f.code for f in errors] == ["VAE505"]


PARTS = {
    "a pair": """
                mu, std = self.encoder(x)
                mean, scale = self.decoder(mu + torch.randn_like(mu) * std.sqrt())
                return mean, scale, mu, std
    """,
    "a dict that holds a pair": """
                found = self.encoder(x)
                mu, logvar = found["stats"]
                z = mu + torch.randn_like(mu) * (logvar / 2).exp()
                return self.decoder(z), mu, logvar, found["more"].mean()
    """,
    "an object": """
                found = self.encoder(x)
                std = (found.log_var / 2).exp()
                return self.decoder(found.mean + torch.randn_like(std) * std), found.mean, std
    """,
}


@pytest.mark.parametrize("what", PARTS)
def test_a_part_that_nobody_gave_returns_what_is_asked_of_it(
    write: Callable[[str], str], what: str
) -> None:
    body = """
        class VAE(nn.Module):
            def __init__(self, encoder, decoder):
                super().__init__()
                self.encoder, self.decoder = encoder, decoder
            def forward(self, x):
    """
    subject = load(write(body.rstrip() + PARTS[what]))
    assert subject.batch.ran
    assert any("`Encoder` returns `" in n for n in subject.notes)
    findings = examine_subject(subject).findings
    assert [f.code for f in findings if str(f.severity) in ("error", "warning")] == []


def test_a_part_inherits_from_the_class_that_the_constructor_asks_for(
    write: Callable[[str], str],
) -> None:
    body = """
        class Reading(nn.Module):
            def __init__(self, name):
                super().__init__()
        class VAE(nn.Module):
            def __init__(self, encoder, decoder):
                super().__init__()
                if not isinstance(encoder, Reading):
                    raise ValueError("the encoder must inherit from Reading")
                self.encoder, self.decoder = encoder, decoder
            def forward(self, x):
                mu, logvar = self.encoder(x)
                return self.decoder(mu + torch.randn_like(mu) * (logvar / 2).exp()), mu, logvar
    """
    subject: Any = load(write(body))
    assert subject.batch.ran
    assert "Reading" in [k.__name__ for k in type(subject.model.encoder).__mro__]


def test_a_made_up_argument_that_is_refused_late_is_no_finding(
    write: Callable[[str], str],
) -> None:
    body = """
        class VAE(nn.Module):
            def __init__(self, width, kind):
                super().__init__()
                self.kind = kind
                self.up, self.down = nn.Linear(width, 12), nn.Linear(6, width)
            def forward(self, x):
                if self.kind.__class__.__name__ != "Kind":
                    raise ValueError("no such kind")
                z, mu, logvar = drawn(self.up(x))
                return self.down(z), mu, logvar
    """
    with pytest.raises(TargetError, match=r"does not run with made-up arguments.*no such kind"):
        load(write(body))


def test_an_optional_argument_that_forward_asks_for_is_a_gap(write: Callable[[str], str]) -> None:
    body = """
        class VAE(nn.Module):
            def __init__(self, width, reader: Optional[str] = None):
                super().__init__()
                self.width, self.parts = width, {"reader": reader}
            def forward(self, x):
                if self.parts["reader"] is None:
                    raise RuntimeError("there is no reader: give one by `reader=...`")
                return x
    """
    with pytest.raises(TargetError, match="does not run with made-up arguments") as caught:
        load(write(body))
    assert "        reader=...,  # str\n" in caught.value.next_step


def test_a_dict_that_cannot_be_made_up_is_no_finding(write: Callable[[str], str]) -> None:
    body = """
        class VAE(nn.Module):
            def __init__(self, width):
                super().__init__()
                self.up, self.down = nn.Linear(width, 12), nn.Linear(6, width)
            def forward(self, tensors):
                if "table" not in tensors.keys():
                    raise LookupError("no table")
                z, mu, logvar = drawn(self.up(tensors["table"]))
                return self.down(z), mu, logvar
    """
    with pytest.raises(TargetError, match="cannot be guessed"):
        load(write(body))


def test_what_a_part_is_asked_for_in_vain_is_told_as_a_gap(write: Callable[[str], str]) -> None:
    body = """
        class VAE(nn.Module):
            def __init__(self, encoder, decoder):
                super().__init__()
                self.encoder, self.decoder = encoder, decoder
            def forward(self, x):
                z = self.encoder(x).rsample()
                return self.decoder(z)
    """
    with pytest.raises(TargetError, match="does not run with made-up arguments") as caught:
        load(write(body))
    assert "        encoder=...,  # called with 1 argument\n" in caught.value.next_step


def test_nothing_stands_in_for_a_part_of_a_part(write: Callable[[str], str]) -> None:
    """How many axes its result should have is known to nobody: `Independent(..., 2)` tells late."""
    body = """
        class Decoder(nn.Module):
            def __init__(self, net):
                super().__init__()
                self.net = net
            def forward(self, z):
                normal = torch.distributions.Normal(self.net(z), 1)
                return torch.distributions.Independent(normal, 2)
        class VAE(nn.Module):
            def __init__(self, decoder):
                super().__init__()
                self.up, self.decoder = nn.Linear(20, 12), decoder
            def forward(self, x):
                z, mu, logvar = drawn(self.up(x))
                return self.decoder(z), mu, logvar
    """
    with pytest.raises(TargetError, match="needs `decoder`"):
        load(write(body))


def test_parts_that_only_we_put_together_are_no_finding(write: Callable[[str], str]) -> None:
    body = """
        class VAE(nn.Module):
            def __init__(self):
                super().__init__()
                self.encoder, self.decoder = nn.Linear(20, 12), nn.Linear(6, 20)
            def halves(self, x):
                return self.encoder(x).chunk(2, 1)
    """
    with pytest.raises(TargetError, match=r"has no `forward`, and its parts do not run"):
        load(write(body))


class Frozen(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(3)

    def train(self, mode: bool = True) -> Any:
        super().train(mode)
        self.norm.eval()
        return self


class Fitted(Frozen):
    def train(self, table: Any) -> Any:  # type: ignore[override]
        raise AssertionError(table)


def test_the_mode_is_set_by_the_models_own_train_where_that_is_what_it_does() -> None:
    for model, frozen in ((Frozen(), True), (nn.Sequential(Fitted()), False)):
        set_mode(model, True)
        assert model.training
        norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm1d)]
        assert [n.training for n in norms] == [not frozen]
        set_mode(model, False)
        assert not any(m.training for m in model.modules())
    assert torch.is_grad_enabled()
