"""Classes whose constructors ask for numbers, words and flags that nobody gives."""

ARGUMENTS = {
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
