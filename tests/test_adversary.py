"""Healthy models that look like bugs and do not fit the fixtures' rules."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.distributions import Normal, kl_divergence

import vaedoctor
from vaedoctor import Severity


def frozen(q):
    return Normal(q.loc.detach(), q.scale.detach())


class FreeNats(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRUCell(3, 11)
        self.embed = nn.Linear(7, 9)
        self.prior = nn.Linear(11, 6)
        self.posterior = nn.Linear(11 + 9, 6)
        self.decoder = nn.Linear(11 + 3, 7)

    def state(self, parameters):
        loc, raw = parameters.chunk(2, dim=-1)
        return Normal(loc, F.softplus(raw) + 0.5)

    def forward(self, x):
        h, z = x.new_zeros(len(x), 11), x.new_zeros(len(x), 3)
        decoded, kl = [], 0.0
        for observed in x.unbind(1):
            h = self.cell(z, h)
            p = self.state(self.prior(h))
            q = self.state(self.posterior(torch.cat([h, self.embed(observed)], dim=-1)))
            z = q.rsample()
            decoded.append(self.decoder(torch.cat([h, z], dim=-1)))
            balanced = 0.8 * kl_divergence(frozen(q), p) + 0.2 * kl_divergence(q, frozen(p))
            kl = kl + balanced.sum(-1).mean().clamp(min=1.0)
        return torch.stack(decoded, dim=1), kl


def free_nats_loss(x_hat, x, kl):
    return 0.5 * (x_hat - x).pow(2).sum(-1).mean() + kl


class Graph(nn.Module):
    """An inner-product decoder whose sigmoid saturates at first."""

    def __init__(self):
        super().__init__()
        self.shared = nn.Parameter(torch.randn(11, 8))
        self.mean = nn.Parameter(torch.randn(8, 4))
        self.log_std = nn.Parameter(torch.randn(8, 4) * 0.1)

    def forward(self, features, adjacency):
        h = (adjacency @ features @ self.shared).relu()
        mu, log_std = adjacency @ h @ self.mean, adjacency @ h @ self.log_std * 0.1
        z = mu + torch.randn_like(mu) * log_std.exp()
        return torch.sigmoid(z @ z.T), mu, log_std


def graph_loss(edges, adjacency, mu, log_std):
    kl = 0.5 * (mu**2 + (2 * log_std).exp() - 1 - 2 * log_std).sum(1).mean()
    return F.binary_cross_entropy(edges, adjacency) + kl


def _findings(report):
    assert not [o for o in report.outcomes if o.status == "crashed"]
    return [f for f in report.findings if f.severity is not Severity.NOTE]


def test_free_nats_that_hold_at_first_are_no_dead_layer():
    x = torch.rand(6, 4, 7)
    assert not _findings(vaedoctor.check(FreeNats(), x, objective=free_nats_loss))


def test_a_saturated_decoder_is_no_cut_sample():
    torch.manual_seed(0)
    adjacency = (torch.rand(9, 9) > 0.5).float()
    report = vaedoctor.check(
        Graph(), (torch.rand(9, 11), adjacency), objective=graph_loss, batch_axis=None
    )
    assert "VAE302" not in [f.code for f in report.findings]


class Damaged(nn.Module):
    """The scale is changed in place after the sample was made of it."""

    def __init__(self):
        super().__init__()
        self.encoder, self.decoder = nn.Linear(12, 8), nn.Linear(4, 12)

    def forward(self, x):
        mu, logvar = self.encoder(x).chunk(2, dim=1)
        std = torch.exp(0.5 * logvar)
        z = mu + torch.randn_like(std) * std
        std *= 2
        return self.decoder(z), mu, logvar


def test_no_rule_crashes_on_a_graph_that_cannot_be_differentiated():
    report = vaedoctor.check(Damaged(), torch.rand(8, 12))
    assert [f.code for f in _findings(report)] == ["VAE606"]


class Views(nn.Module):
    """Takes rows of 20, which a guess from its layers cannot know."""

    def __init__(self):
        super().__init__()
        self.parts = nn.ModuleDict({"a": nn.Linear(8, 8), "b": nn.Linear(12, 8)})
        self.heads, self.decoder = nn.Linear(8, 6), nn.Linear(3, 20)

    def forward(self, x):
        a, b = x.split([8, 12], dim=1)
        mu, logvar = self.heads(self.parts["a"](a) + self.parts["b"](b)).chunk(2, dim=1)
        return self.decoder(mu + torch.randn_like(mu) * torch.exp(0.5 * logvar)), mu, logvar


def test_a_made_up_batch_that_does_not_fit_is_not_the_models_fault():
    report = vaedoctor.check(Views())
    assert [f.code for f in _findings(report)] in ([], ["VAE002"])
    assert report.exit_code != 1


class Scalars(nn.Module):
    """Draws one number at a time and carries it through Python."""

    def __init__(self):
        super().__init__()
        self.encoder, self.decoder = nn.Linear(12, 4), nn.Linear(2, 12)

    def forward(self, x):
        mu, logvar = self.encoder(x).chunk(2, dim=1)
        std = torch.exp(0.5 * logvar)
        rows = [
            [(mu[i, j] + std[i, j] * torch.randn(())).item() for j in range(2)]
            for i in range(len(x))
        ]
        return self.decoder(torch.tensor(rows)), mu, logvar


def test_samples_of_one_number_are_latents():
    assert [f.code for f in _findings(vaedoctor.check(Scalars(), torch.rand(4, 12)))] == ["VAE302"]


class Mean(nn.Module):
    """Decodes the mean; its heads are seen by the loss alone."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(12, 9), nn.ReLU())
        self.a, self.b = nn.Linear(9, 4), nn.Linear(9, 4)
        self.decoder = nn.Sequential(nn.Linear(4, 9), nn.ReLU(), nn.Linear(9, 12))

    def forward(self, x):
        h = self.encoder(x)
        a, b = self.a(h), self.b(h)
        y = self.decoder(a)
        kl = 0.5 * (a**2 + b.exp() - 1 - b).sum(1).mean()
        return {"y": y, "loss": (y - x).square().sum(1).mean() + kl}


def test_heads_that_only_the_loss_sees():
    assert [f.code for f in _findings(vaedoctor.check(Mean(), torch.rand(8, 12)))] == ["VAE301"]


class Zeroed(FreeNats):
    """In evaluation mode the recurrent latent is 0, which the decoder never saw."""

    def state(self, parameters):
        q = super().state(parameters)
        return q if self.training else Normal(q.loc * 0, q.scale)

    def forward(self, x):
        h, z = x.new_zeros(len(x), 11), x.new_zeros(len(x), 3)
        decoded, kl = [], 0.0
        for observed in x.unbind(1):
            h = self.cell(z, h)
            p = self.state(self.prior(h))
            q = self.state(self.posterior(torch.cat([h, self.embed(observed)], dim=-1)))
            z = q.rsample() if self.training else q.loc
            decoded.append(self.decoder(torch.cat([h, z], dim=-1)))
            kl = kl + kl_divergence(q, p).sum(-1).mean()
        return torch.stack(decoded, dim=1), kl


class PriorInEval(nn.Module):
    """Predicts from the prior's network when it is not trained, as trajectory models do."""

    def __init__(self):
        super().__init__()
        self.posterior, self.prior = nn.Linear(12 + 5, 6), nn.Linear(5, 6)
        self.decoder = nn.Linear(3 + 5, 12)

    def forward(self, x, past):
        mu, logvar = self.posterior(torch.cat([x, past], 1)).chunk(2, dim=1)
        mu_p, logvar_p = self.prior(past).chunk(2, dim=1)
        if self.training:
            z = mu + torch.randn_like(mu) * torch.exp(0.5 * logvar)
        else:
            z = mu_p + torch.randn_like(mu) * torch.exp(0.5 * logvar_p)
        return self.decoder(torch.cat([z, past], 1)), (mu, logvar), (mu_p, logvar_p)


def conditional_loss(model, x, past):
    x_hat, (mu, logvar), (mu_p, logvar_p) = model(x, past)
    ratio = (logvar.exp() + (mu - mu_p) ** 2) / logvar_p.exp()
    return (0.5 * (x_hat - x) ** 2).sum() + 0.5 * (ratio - 1 + logvar_p - logvar).sum()


def test_a_recurrent_latent_is_met_again_in_evaluation_mode():
    x = torch.rand(6, 4, 7)
    report = vaedoctor.check(Zeroed(), x, objective=free_nats_loss)
    assert "VAE309" in [f.code for f in _findings(report)]
    report = vaedoctor.check(FreeNats(), x, objective=free_nats_loss)
    assert next(o for o in report.outcomes if o.code == "VAE309").status == "passed"


def test_a_prior_network_may_stand_in_for_the_posterior_in_evaluation_mode():
    batch = (torch.rand(8, 12), torch.rand(8, 5))
    report = vaedoctor.check(PriorInEval(), batch, objective=conditional_loss, conditions=["past"])
    assert not _findings(report)


class Sentences(nn.Module):
    """Tokens in, scores of the next token out; what the decoder starts from is `start`."""

    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(20, 6)
        self.reader, self.writer = (nn.GRU(6, 10, batch_first=True) for _ in range(2))
        self.heads, self.bridge, self.scores = nn.Linear(10, 8), nn.Linear(4, 10), nn.Linear(10, 20)

    def start(self, q):
        return q.rsample()

    def forward(self, tokens):
        _, h = self.reader(self.words(tokens))
        mu, raw = self.heads(h[-1]).chunk(2, dim=1)
        q = Normal(mu, F.softplus(raw))
        h = torch.tanh(self.bridge(self.start(q)))[None]
        y, _ = self.writer(self.words(tokens[:, :-1]), h.contiguous())
        return self.scores(y), q


class DeterministicSentences(Sentences):
    def start(self, q):
        q.rsample()
        return q.loc


def sentence_loss(model, tokens):
    scores, q = model(tokens)
    target = tokens[:, 1:].reshape(-1)
    nll = F.cross_entropy(scores.reshape(-1, 20), target, reduction="sum")
    return (nll + kl_divergence(q, Normal(0.0, 1.0)).sum()) / len(tokens)


def test_scores_of_classes_are_the_reconstruction_of_tokens_though_no_sample_reaches_them():
    tokens = torch.randint(0, 20, (6, 9))
    assert not _findings(vaedoctor.check(Sentences(), tokens, objective=sentence_loss))
    report = vaedoctor.check(DeterministicSentences(), tokens, objective=sentence_loss)
    assert [f.code for f in _findings(report)] == ["VAE307"]


class Tokens(nn.Module):
    """Reads the last step of every row, and pads with token 0."""

    def __init__(self, masked):
        super().__init__()
        self.embed, self.rnn = nn.Embedding(11, 6), nn.GRU(6, 9, batch_first=True)
        self.heads, self.out, self.masked = nn.Linear(9, 8), nn.Linear(4 + 6, 11), masked

    def forward(self, tokens, lengths):
        e = self.embed(tokens)
        last = self.rnn(e)[0][torch.arange(len(tokens)), lengths - 1]
        mu, logvar = self.heads(last).chunk(2, dim=1)
        z = mu + torch.randn_like(mu) * torch.exp(0.5 * logvar)
        before = torch.cat([torch.zeros_like(e[:, :1]), e[:, :-1]], dim=1)
        steps = z.unsqueeze(1).expand(-1, e.shape[1], -1)
        logits = self.out(torch.cat([steps, before], dim=2))
        nll = F.cross_entropy(logits.transpose(1, 2), tokens, reduction="none")
        if self.masked:
            steps = torch.arange(tokens.shape[1], device=tokens.device)
            nll = nll * (steps < lengths[:, None])
        kl = 0.5 * (mu**2 + logvar.exp() - 1 - logvar).sum(1)
        return {"logits": logits, "loss": (nll.sum(1) + kl).mean()}


def test_padded_steps_in_the_loss_are_warned_of_and_masked_ones_are_not():
    lengths = torch.tensor([7, 3, 5, 7, 2, 6])
    tokens = torch.randint(1, 11, (6, 7)) * (torch.arange(7) < lengths[:, None])
    report = vaedoctor.check(Tokens(masked=False), (tokens, lengths), conditions=["lengths"])
    assert [f.code for f in _findings(report)] == ["VAE715"]
    report = vaedoctor.check(Tokens(masked=True), (tokens, lengths), conditions=["lengths"])
    assert not _findings(report)


class Styled(nn.Module):
    """Joins a label's embedding to the sample, and adds the scale to the mean in evaluation."""

    def __init__(self):
        super().__init__()
        self.style = nn.Embedding(3, 5)
        self.heads, self.decoder = nn.Linear(12 + 5, 6), nn.Linear(3 + 5, 12)

    def forward(self, x, y):
        style = self.style(y)
        mu, logvar = self.heads(torch.cat([x, style], dim=1)).chunk(2, dim=1)
        std = torch.exp(0.5 * logvar)
        z = mu + std * torch.randn_like(std) if self.training else mu + std
        return self.decoder(torch.cat([z, style], dim=1)), mu, logvar


def gaussian_loss(x_hat, x, mu, logvar):
    kl = 0.5 * (mu**2 + logvar.exp() - 1 - logvar).sum(1)
    return (0.5 * (x_hat - x).pow(2).sum(1) + kl).mean()


def test_a_sample_joined_to_an_embedded_condition_is_followed_into_the_decoder():
    batch = (torch.rand(8, 12), torch.randint(0, 3, (8,)))
    report = vaedoctor.check(Styled(), batch, objective=gaussian_loss, conditions=[1])
    assert [f.code for f in _findings(report)] == ["VAE309"]


class BothActivated(nn.Module):
    def __init__(self):
        super().__init__()
        self.heads, self.decoder = nn.Linear(12, 6), nn.Linear(3, 12)

    def forward(self, x):
        mu, logvar = self.heads(x).relu().chunk(2, dim=1)
        return self.decoder(mu + torch.randn_like(mu) * torch.exp(0.5 * logvar)), mu, logvar


def test_an_activation_before_the_heads_are_split_bounds_both():
    report = vaedoctor.check(BothActivated(), torch.rand(8, 12), objective=gaussian_loss)
    assert {f.code for f in _findings(report)} == {"VAE308"}


class Guided(nn.Module):
    """A learned gain on the mean, applied once for the sample and once for the KL."""

    def __init__(self):
        super().__init__()
        self.heads, self.decoder = nn.Linear(12, 6), nn.Linear(3, 12)
        self.gain = nn.Parameter(torch.full((3,), 0.7))

    def forward(self, x):
        mu, logvar = self.heads(x).chunk(2, dim=1)
        z = mu * self.gain + torch.randn_like(mu) * torch.exp(0.5 * logvar)
        return self.decoder(z), mu * self.gain, logvar


def test_a_gain_that_is_applied_twice_is_one_location():
    report = vaedoctor.check(Guided(), torch.rand(8, 12), objective=gaussian_loss)
    assert not _findings(report)
    assert next(o for o in report.outcomes if o.code == "VAE701").status == "passed"


class TwoLevels(nn.Module):
    """The lower posterior reads the upper sample, whose network gives the lower prior."""

    def __init__(self):
        super().__init__()
        self.lower, self.upper = nn.Linear(12, 9), nn.Linear(9, 6)
        self.prior, self.posterior = nn.Linear(3, 8), nn.Linear(9 + 3, 8)
        self.decoder = nn.Linear(4, 12)

    def state(self, raw):
        loc, log_scale = raw.chunk(2, dim=1)
        return Normal(loc, log_scale.exp())

    def forward(self, x):
        h = torch.tanh(self.lower(x))
        q2 = self.state(self.upper(h))
        z2 = q2.rsample()
        p1 = self.state(self.prior(z2))
        q1 = self.state(self.posterior(torch.cat([h, z2], dim=1)))
        p2 = Normal(torch.zeros_like(z2), torch.ones_like(z2))
        return self.decoder(q1.rsample()), (q1, p1), (q2, p2)


def two_level_loss(upper):
    def loss(model, x):
        x_hat, (q1, p1), (q2, p2) = model(x)
        kl = kl_divergence(q1, p1).sum(1) + upper(q2, p2)
        return (0.5 * (x_hat - x).pow(2).sum(1) + kl).mean()

    return loss


def test_the_upper_kl_of_a_hierarchy_is_judged_apart_from_the_prior_it_feeds():
    x = torch.rand(8, 12)
    kinds = {
        "": lambda q, p: kl_divergence(q, p).sum(1),
        "VAE712": lambda q, p: 0.0,
        "VAE717": lambda q, p: kl_divergence(p, q).sum(1),
        "VAE703": lambda q, p: -kl_divergence(q, p).sum(1),
    }
    for code, upper in kinds.items():
        report = vaedoctor.check(TwoLevels(), x, objective=two_level_loss(upper))
        assert [f.code for f in _findings(report)] == ([code] if code else [])


class MovingTable(nn.Module):
    """Updates a table by moving averages in every training step, and then compares with it."""

    def __init__(self):
        super().__init__()
        self.encoder, self.decoder = nn.Linear(12, 5), nn.Linear(5, 12)
        self.register_buffer("table", torch.randn(9, 5))

    def forward(self, x):
        z = self.encoder(x)
        if self.training:
            with torch.no_grad():
                nearest = F.one_hot(torch.cdist(z, self.table).argmin(1), 9).to(z.dtype)
                self.table.mul_(0.99).add_(0.01 * nearest.T @ z)
        likeness = z @ self.table.T
        q = self.table[likeness.argmax(1)]
        return self.decoder(z + (q - z).detach()), (z - q).square().mean() - 1e-3 * likeness.mean()


class TooEarly(MovingTable):
    """Compares with the table before it is updated in place: autograd needs the old one."""

    def forward(self, x):
        z = self.encoder(x)
        likeness = z @ self.table.T
        self.table.mul_(0.99)
        return self.decoder(z), likeness.mean()


def moving_loss(model, x):
    x_hat, penalty = model(x)
    return F.mse_loss(x_hat, x) + penalty


def test_a_table_that_every_step_updates_before_it_is_read_does_not_break_the_backward_pass():
    report = vaedoctor.check(MovingTable(), torch.rand(8, 12), objective=moving_loss)
    assert not _findings(report)
    report = vaedoctor.check(TooEarly(), torch.rand(8, 12), objective=moving_loss)
    assert [f.code for f in _findings(report)] == ["VAE606"]


class Empty(nn.Module):
    """A latent of width 0, as a size that was never set makes it."""

    def __init__(self):
        super().__init__()
        self.encoder, self.heads, self.decoder = nn.Linear(6, 8), nn.Linear(8, 0), nn.Linear(0, 6)

    def forward(self, x):
        mu = self.heads(self.encoder(x))
        return self.decoder(mu + torch.randn_like(mu)), mu, mu


@pytest.mark.filterwarnings("ignore:Initializing zero-element")
def test_no_rule_crashes_on_a_latent_without_numbers():
    report = vaedoctor.check(Empty(), torch.rand(5, 6))
    assert [o.reason for o in report.outcomes if o.status == "crashed"] == []
