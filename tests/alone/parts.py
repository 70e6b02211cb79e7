"""Classes that are built from other objects: parts, configurations, data sets."""

PARTS = {
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
    "parts that nobody defines": """
        class VAE(nn.Module):
            def __init__(self, encoder, decoder, wide=20):
                super().__init__()
                self.encoder, self.decoder, self.heads = encoder, decoder, nn.Linear(wide, 12)
            def forward(self, x):
                z, mu, logvar = drawn(self.heads(self.encoder(x)))
                return self.decoder(z), mu, logvar
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
}
