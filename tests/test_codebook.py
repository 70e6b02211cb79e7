"""Look-ups of codes: found without names, and their gradients against finite differences."""

from __future__ import annotations

import linecache
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from steps import examined
from torch import Tensor, nn

import vaedoctor
from vaedoctor.examine.codebook.codebook import table_gradient
from vaedoctor.examine.codebook.codeterms import weights
from vaedoctor.examine.runs.gradients import Arrives
from vaedoctor.rule import Unavailable

X = torch.linspace(-1, 1, 24).reshape(4, 6)


def by_embedding(m: Any, z: Tensor) -> Tensor:
    return F.embedding(torch.cdist(z, m.table).argmin(1), m.table)


def by_index(m: Any, z: Tensor) -> Tensor:
    return m.table[(z @ m.table.t() - 0.5 * m.table.pow(2).sum(1)).argmax(1)]


def by_one_hot(m: Any, z: Tensor) -> Tensor:
    return F.one_hot(torch.cdist(z, m.table).min(1).indices, 5).float() @ m.table


def by_select(m: Any, z: Tensor) -> Tensor:
    squares = z.pow(2).sum(1, keepdim=True) + m.table.pow(2).sum(1) - 2 * z @ m.table.t()
    return m.table.index_select(0, squares.topk(1, largest=False).indices.flatten())


def by_scatter(m: Any, z: Tensor) -> Tensor:
    scores = torch.cdist(z.detach(), m.table.detach())
    one_hot = torch.zeros_like(scores).scatter_(1, scores.argmin(1, keepdim=True), 1.0)
    return torch.matmul(one_hot, m.table)


class VQ(nn.Module):
    """A quantiser of which look-up, loss and straight-through step can be replaced."""

    def __init__(self, look_up: Any = by_embedding, through: bool = True, **terms: float) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.encoder, self.decoder = nn.Linear(6, 3), nn.Linear(3, 6)
        self.table = nn.Parameter(torch.randn(5, 3))
        self.look_up, self.through = look_up, through
        self.terms = {"commit": 0.25, "code": 1.0} | terms

    def forward(self, x: Tensor) -> Any:
        z = self.encoder(x)
        q = self.look_up(self, z)
        vq = self.terms["commit"] * F.mse_loss(z, q.detach())
        vq = vq + self.terms["code"] * F.mse_loss(q, z.detach())
        return self.decoder(z + (q - z).detach() if self.through else q), vq


def loss(out: Any, x: Tensor) -> Tensor:
    return F.mse_loss(out[0], x) + out[1]


@pytest.mark.parametrize("look_up", [by_embedding, by_index, by_one_hot, by_select, by_scatter])
def test_the_table_is_found_without_a_name(look_up: Any) -> None:
    model = VQ(look_up)
    with examined(model, X, loss=loss) as examination:
        (found,) = examination.codebooks
        assert found.table.tensor is model.table
        assert found.name == "table"
        assert found.encoded is not None
        assert torch.equal(found.encoded.tensor, model.encoder(X))
        assert found.arrives is Arrives.YES


@pytest.mark.parametrize("look_up", [by_embedding, by_index, by_one_hot, by_select, by_scatter])
def test_without_the_straight_through_step_no_gradient_arrives(look_up: Any) -> None:
    model = VQ(look_up, through=False)
    with examined(model, X, loss=loss) as examination:
        (found,) = examination.codebooks
        assert found.arrives in (Arrives.NONE, Arrives.ZERO)
    x_hat = model(X)[0]
    (gradient,) = torch.autograd.grad(x_hat.sum(), model.encoder.weight, allow_unused=True)
    assert gradient is None or not gradient.any()


def test_a_step_around_layers_beside_the_look_up_carries_the_gradient() -> None:
    class Projected(VQ):
        def __init__(self) -> None:
            super().__init__()
            self.into, self.back = nn.Linear(3, 3), nn.Linear(3, 3)

        def forward(self, x: Tensor) -> Any:
            z = self.encoder(x)
            q = self.back(by_embedding(self, self.into(z)))
            q = z + (q - z).detach() if self.through else q.detach()
            return self.decoder(q), F.mse_loss(z, q)

    for through, arrives in ((True, Arrives.YES), (False, Arrives.NONE)):
        model = Projected()
        model.through = through
        with examined(model, X, loss=loss) as examination:
            assert [b.arrives for b in examination.codebooks] == [arrives]
        report = vaedoctor.check(model, X, objective=loss, select=["VAE601"])
        assert [v for o in report.outcomes for v in o.verified] == []  # the projections get none


def test_a_class_embedded_is_no_codebook() -> None:
    class Classes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scores, self.embed = nn.Linear(6, 5), nn.Embedding(5, 6)

        def forward(self, x: Tensor) -> Any:
            h = self.scores(x)
            return self.embed(h.argmax(1)) + h.mean()

    with examined(Classes(), X) as examination, pytest.raises(Unavailable, match="nearest code"):
        _ = examination.codebooks


@pytest.mark.parametrize(("commit", "code"), [(0.25, 1.0), (1.0, 0.25), (2.0, 1.0)])
def test_the_ratio_of_the_terms(commit: float, code: float) -> None:
    """Against the gradients of the two terms taken one by one."""
    model = VQ(commit=commit, code=code)
    with examined(model, X, loss=loss) as examination:
        found = weights(examination.anatomy, examination.codebooks[0])
    z = model.encoder(X).detach().requires_grad_(True)
    q = by_embedding(model, z.detach()).detach().requires_grad_(True)
    (at_z,) = torch.autograd.grad(commit * F.mse_loss(z, q.detach()), z)
    (at_q,) = torch.autograd.grad(code * F.mse_loss(q, z.detach()), q)
    assert found is not None
    assert found.commitment == pytest.approx(float(at_z.norm()), rel=1e-3)
    assert found.codebook == pytest.approx(float(at_q.norm()), rel=1e-3)
    assert found.ratio == pytest.approx(commit / code, rel=1e-3)


@pytest.mark.parametrize("code", [0.0, 1.0])
def test_the_gradient_of_the_table(code: float) -> None:
    """Against finite differences of the loss."""
    model = VQ(code=code)
    with examined(model, X, loss=loss) as examination:
        arrives = table_gradient(examination.anatomy, examination.codebooks[0])
    model = model.double()
    x = X.double()
    z = model.encoder(x).detach()
    codes = torch.cdist(z, model.table).argmin(1)
    moved = model.table.detach().clone()
    moved[codes[0]] += 1e-6
    before, after = model.table.detach()[codes], moved[codes]
    change = code * (F.mse_loss(after, z) - F.mse_loss(before, z))  # the rest detaches the code
    assert (arrives is Arrives.YES) is (abs(float(change)) > 1e-12)


class Averages(nn.Module):
    def __init__(self, in_eval: bool, anew: bool, first: bool = False) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.Linear(6, 3), nn.Linear(3, 6)
        self.register_buffer("table", torch.randn(5, 3))
        self.in_eval, self.anew, self.first, self.ready = in_eval, anew, first, False

    def forward(self, x: Tensor) -> Any:
        z = self.encoder(x)
        if self.first and not self.ready:
            self.table.copy_(z.detach()[:1].repeat(5, 1) + torch.randn(5, 3))
            self.ready = True
        q = by_embedding(self, z)
        if (self.training and not self.first) or self.in_eval:
            moved = 0.9 * self.table + 0.1 * z.detach().mean(0)
            if self.anew:
                self.table = moved
            else:
                self.table.copy_(moved)
        return self.decoder(z + (q - z).detach()), F.mse_loss(z, q)


@pytest.mark.parametrize("anew", [True, False])
@pytest.mark.parametrize("in_eval", [True, False])
def test_updates_in_either_mode(anew: bool, in_eval: bool) -> None:
    model = Averages(in_eval, anew)
    before = model.table.clone()
    with examined(model, X, loss=loss) as examination:
        found = examination.code_changes
        assert torch.equal(model.table, before)
    assert found.training["table"] > 0
    assert (found.evaluation["table"] > 0) is in_eval


def test_an_initialisation_from_the_first_batch_is_no_drift() -> None:
    with examined(Averages(False, True, first=True), X, loss=loss) as examination:
        assert examination.code_changes.evaluation["table"] == 0


def test_a_code_to_be_stored_is_no_missing_step() -> None:
    class Stored(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder, self.decoder = nn.Linear(6, 3), nn.Linear(3, 6)

        def forward(self, x: Tensor) -> Any:
            return self.decoder(torch.round(self.encoder(x).sigmoid() * 255).byte() / 255.0)

    with examined(Stored(), X) as examination:
        assert examination.rounding is None


@pytest.mark.parametrize(("through", "arrives"), [(True, Arrives.YES), (False, Arrives.ZERO)])
def test_rounding(through: bool, arrives: Arrives) -> None:
    class Finite(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder, self.decoder = nn.Linear(6, 3), nn.Linear(3, 6)

        def forward(self, x: Tensor) -> Any:
            z = self.encoder(x)
            q = torch.round(z)
            return self.decoder(z + (q - z).detach() if through else q)

    with examined(Finite(), X) as examination:
        assert examination.rounding is not None
        assert examination.rounding.arrives is arrives


class Cut(VQ):
    """Gradients end in one line behind the look-up, or in none but the look-up's own."""

    def forward(self, x: Tensor) -> Any:
        z = self.encoder(x)
        q = self.look_up(self, z)
        spare = (q.detach() - z).square().mean()
        return self.decoder((z + q - z).detach() if self.through else q), spare + (q - z).mean()


@pytest.mark.parametrize("through", [True, False])
def test_what_ends_the_gradient_behind_the_look_up(through: bool) -> None:
    with examined(Cut(through=through), X, loss=loss) as examination:
        (book,) = examination.codebooks
        cut = examination.cut_behind(book.read)
        assert (cut is not None) is through
        assert cut is None or cut.label == "`.detach()`"


class Averaged(nn.Module):
    """A table of which averages are kept; `copies` is how often they are copied to it."""

    def __init__(self, commitment: str = "codes detached") -> None:
        super().__init__()
        torch.manual_seed(3)
        self.encoder, self.decoder = nn.Linear(6, 3), nn.Linear(3, 6)
        table = torch.randn(5, 3)
        self.register_buffer("table", table)
        self.register_buffer("sizes", torch.ones(5))
        self.register_buffer("sums", table.clone())
        self.commitment, self.steps = commitment, 0

    def averaged(self, sums: Tensor, sizes: Tensor) -> None:
        self.table.copy_(sums / sizes[:, None])

    def forward(self, x: Tensor) -> Any:
        z = self.encoder(x)
        index = torch.cdist(z, self.table).argmin(1)
        q = self.table[index]
        if self.training:
            with torch.no_grad():
                hot = F.one_hot(index, 5).float()
                self.sizes.mul_(0.9).add_(hot.sum(0), alpha=0.1)
                self.sums.mul_(0.9).add_(hot.t() @ z, alpha=0.1)
                self.averaged(self.sums, self.sizes)
        held, pulled = (q.detach(), z) if self.commitment == "codes detached" else (q, z.detach())
        return self.decoder(z + (q - z).detach()), 0.25 * F.mse_loss(pulled, held)


class NeverCopied(Averaged):
    def averaged(self, sums: Tensor, sizes: Tensor) -> None:
        pass


class Dropped(Averaged):
    def averaged(self, sums: Tensor, sizes: Tensor) -> None:
        _ = sums / sizes[:, None]  # never copied


class SeldomCopied(Averaged):
    def averaged(self, sums: Tensor, sizes: Tensor) -> None:
        self.steps += 1
        if self.steps % 100 == 0:
            self.table.copy_(sums / sizes[:, None])


def told(model: nn.Module) -> list[tuple[str, str]]:
    report = vaedoctor.check(model, X, objective=loss, select=["VQ101", "VQ103"])
    assert not [o for o in report.outcomes if o.status == "crashed"]
    return [(f.code, str(f.severity)) for f in report.findings]


def test_averages_that_no_code_copies_to_the_table_are_an_error() -> None:
    assert told(NeverCopied()) == [("VQ101", "error")]
    assert told(SeldomCopied()) == [("VQ101", "warning")]
    assert not told(Averaged())


def test_an_average_that_is_never_copied_is_told_where_it_is_last_read() -> None:
    report = vaedoctor.check(Dropped(), X, objective=loss, select=["VQ101"])
    (found,) = report.findings
    assert found.at is not None
    assert "# never copied" in linecache.getline(found.at.file, found.at.line)


def test_beside_averages_a_commitment_that_holds_no_encoder_is_told() -> None:
    assert told(Averaged("vectors detached")) == [("VQ103", "warning")]


class Around(VQ):
    """What the decoder is given beside the code: nothing, a mask, a feature as wide, less, or x."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way, self.short, self.after = way, nn.Linear(6, 2), nn.Linear(3, 6)
        self.wide, self.decoder = nn.Linear(6, 3), nn.Linear(3 + (way == "less") * 2, 6)

    def forward(self, x: Tensor) -> Any:
        z = self.encoder(x)
        q = by_embedding(self, z)
        terms = F.mse_loss(q, z.detach()) + 0.25 * F.mse_loss(z, q.detach())
        if self.way == "noise":
            noise = torch.randn_like(z)
            q = z + (z - q).norm(dim=1, keepdim=True) * noise / noise.norm(dim=1, keepdim=True)
        else:
            q = z + (q - z).detach()
        if self.way == "less":
            return self.decoder(torch.cat([q, self.short(x)], 1)), terms
        if self.way == "masked":
            q = torch.where(torch.ones(len(x), 1, dtype=torch.bool, device=x.device), q, z)
        made = self.decoder(q.relu())
        if self.way == "as wide":
            return made + self.after(self.wide(x)), terms
        return made + x if self.way == "x" else made, terms


@pytest.mark.parametrize(
    ("way", "severities"),
    [
        ("", []),
        ("masked", []),
        ("noise", []),
        ("less", []),
        ("as wide", ["warning"]),
        ("x", ["error"]),
    ],
)
def test_a_decoder_that_sees_the_input_around_the_codes(way: str, severities: list[str]) -> None:
    report = vaedoctor.check(Around(way), X, objective=loss, select=["VAE403"])
    assert not [o for o in report.outcomes if o.status == "crashed"]
    assert [str(f.severity) for f in report.findings] == severities


def test_gradients_that_grow_through_a_quantised_model_are_told() -> None:
    model = VQ()
    model.decoder = nn.Sequential(*(nn.Linear(3, 3, bias=False) for _ in range(6)), nn.Linear(3, 6))
    select = ["VAE603", "VAE604"]
    assert not vaedoctor.check(model, X, objective=loss, select=select).findings
    for layer in model.decoder:
        nn.init.normal_(layer.weight, std=9)
    report = vaedoctor.check(model, X, objective=loss, select=select)
    assert [f.code for f in report.findings] == ["VAE604"]


def steps_first(m: Any, z: Tensor) -> Tensor:
    flat = z.transpose(0, 1).reshape(-1, 3)
    return by_embedding(m, flat).view(z.shape[1], z.shape[0], 3).transpose(0, 1)


def rows_permuted(m: Any, z: Tensor) -> Tensor:
    flat = z.transpose(0, 1).reshape(-1, 3)
    return by_embedding(m, flat).view(z.shape)  # not in its order


@pytest.mark.parametrize("look_up", [steps_first, rows_permuted])
@pytest.mark.parametrize("steps", [4, 6])
def test_codes_that_are_handed_back_to_other_rows_are_told(look_up: Any, steps: int) -> None:
    x = torch.randn(6, steps, 6, generator=torch.Generator().manual_seed(1))
    report = vaedoctor.check(VQ(look_up), x, objective=loss, select=["VAE504"])
    assert [f.code for f in report.findings] == ["VAE504"] * (look_up is rows_permuted)
    for found in report.findings:
        assert found.at is not None
        assert "# not in its order" in linecache.getline(found.at.file, found.at.line)


@pytest.mark.parametrize("terms", [{}, {"code": 0.0}, {"commit": 2.0}])
def test_a_distance_of_vectors_and_codes_that_is_taken_off_is_told(terms: dict[str, float]) -> None:
    def without(model: nn.Module, x: Tensor) -> Tensor:
        y, vq = model(x)
        return F.mse_loss(y, x) - vq

    with examined(VQ(**terms), X, loss=loss) as examination:
        assert not examination.turned_commitments
    report = vaedoctor.check(VQ(**terms), X, objective=without, select=["VQ103"])
    assert [f.code for f in report.findings] == ["VQ103"]
    assert "away from their codes" in report.findings[0].message


@pytest.mark.parametrize("cut", [torch.tensor, torch.Tensor.detach])
@pytest.mark.filterwarnings("ignore:To copy construct")
def test_a_reconstruction_that_is_cut_off_beside_codes_is_told(cut: Any) -> None:
    def rebuilt(model: nn.Module, x: Tensor) -> Tensor:
        y, vq = model(x)
        return cut(F.mse_loss(y, x)) + vq

    def of_the_codes(model: nn.Module, x: Tensor) -> Tensor:
        y, vq = model(x)
        return F.mse_loss(y, x) + vq

    right, wrong = (
        vaedoctor.check(VQ(), X, objective=made, select=["VAE6"])
        for made in (of_the_codes, rebuilt)
    )
    assert not right.findings
    assert [(f.code, f.severity.value) for f in wrong.findings] == [("VAE601", "error")]
