"""Losses against the formulas written out by hand."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from explore import UserError, alignment, chance, hcl, ifm, nt_xent, uniformity
from explore.losses import LOSSES, chance_words, loss_named, softmax_one_way, uel


def pair(n, d, seed=0):
    g = torch.Generator().manual_seed(seed)
    return (torch.randn(n, d, generator=g, dtype=torch.float64) for _ in range(2))


def nt_xent_by_hand(z1, z2, t):
    z = [v / v.norm() for v in (*z1, *z2)]
    n, total = len(z1), 0.0
    for i in range(2 * n):
        partner = (i + n) % (2 * n)
        others = sum(math.exp(float(z[i] @ z[k]) / t) for k in range(2 * n) if k != i)
        total += -math.log(math.exp(float(z[i] @ z[partner]) / t) / others)
    return total / (2 * n)


@settings(max_examples=25, deadline=None)
@given(n=st.integers(1, 7), d=st.integers(1, 5), t=st.floats(0.07, 2), seed=st.integers(0, 99))
def test_nt_xent_is_the_double_loop(n, d, t, seed):
    z1, z2 = pair(n, d, seed)
    assert float(nt_xent(z1, z2, t).mean()) == pytest.approx(nt_xent_by_hand(z1, z2, t), abs=1e-9)


def test_softmax_by_hand():
    z1, z2 = pair(5, 3)
    a, b = F.normalize(z1, dim=1), F.normalize(z2, dim=1)
    for i, loss in enumerate(softmax_one_way(z1, z2, 0.1)):
        scores = [math.exp(float(a[i] @ b[k]) / 0.1) for k in range(5)]
        assert float(loss) == pytest.approx(-math.log(scores[i] / sum(scores)), abs=1e-9)


def test_uel_by_hand():
    z1, z2 = pair(4, 6)
    z = [v / v.norm() for v in (*z1, *z2)]
    each = []
    for i in range(8):
        scores = {k: math.exp(float(z[i] @ z[k]) / 0.5) for k in range(8) if k != i}
        p = {k: s / sum(scores.values()) for k, s in scores.items()}
        partner = (i + 4) % 8
        each.append(-math.log(p[partner]) - sum(math.log(1 - p[k]) for k in p if k != partner))
    want = [(each[i] + each[i + 4]) / 2 for i in range(4)]
    assert uel(z1, z2, 0.5).tolist() == pytest.approx(want, abs=1e-9)


def test_uel_holds_the_targets_constant():
    z1, z2 = (z.requires_grad_() for z in pair(4, 6))

    def slope(constant: bool) -> torch.Tensor:
        z = F.normalize(torch.cat([z1, z2]), dim=1)
        scores = (z @ (z.detach() if constant else z).T / 0.1).exp() * (1 - torch.eye(8))
        p, partner = scores / scores.sum(1, keepdim=True), torch.eye(8).roll(4, dims=1)
        loss = -(p * partner).sum(1).log() - ((1 - p).log() * (1 - partner)).sum(1)
        return torch.cat(torch.autograd.grad(loss.sum() / 2, (z1, z2)))

    ours = torch.cat(torch.autograd.grad(uel(z1, z2).sum(), (z1, z2)))
    torch.testing.assert_close(ours, slope(constant=True))
    assert not torch.allclose(ours, slope(constant=False))


def by_hand(z1, z2, t, each):
    """Losses (n,) by a loop: `each(partner's cosine, the negatives' cosines)` is an anchor's loss."""
    z = [v / v.norm() for v in (*z1, *z2)]
    n, losses = len(z1), []
    for i in range(2 * n):
        partner = (i + n) % (2 * n)
        losses.append(
            each(float(z[i] @ z[partner]), [float(z[i] @ z[k]) for k in range(2 * n) if k not in (i, partner)])
        )
    return [(losses[i] + losses[i + n]) / 2 for i in range(n)]


@settings(max_examples=25, deadline=None)
@given(n=st.integers(1, 6), d=st.integers(1, 5), t=st.floats(0.07, 2), eps=st.floats(0, 1), seed=st.integers(0, 99))
def test_ifm_is_the_mean_of_two_losses_with_moved_similarities(n, d, t, eps, seed):
    def moved(partner, negatives, by):
        p = math.exp((partner - by) / t)
        return -math.log(p / (p + sum(math.exp((s + by) / t) for s in negatives)))

    z1, z2 = pair(n, d, seed)
    want = by_hand(z1, z2, t, lambda p, s: (moved(p, s, 0) + moved(p, s, eps)) / 2)
    assert ifm(z1, z2, t, eps=eps).tolist() == pytest.approx(want, rel=1e-9, abs=1e-9)


def test_ifms_move_is_the_worst_of_its_length():
    """Moving the partner by -eps v and negatives by eps v raises an anchor's loss more than any other such move."""
    z1, z2 = pair(4, 5)
    z, t, eps = F.normalize(torch.cat([z1, z2]), dim=1), 0.3, 0.2
    v, others = z[0], z[1:]

    def loss(keys):
        return F.cross_entropy((keys @ v / t)[None], torch.tensor([3]))

    sign = torch.ones(7, 1, dtype=torch.float64)
    sign[3] = -1
    worst = loss(others + eps * sign * v)
    partner, negatives = float(v @ z[4]), [float(v @ z[k]) for k in (1, 2, 3, 5, 6, 7)]
    p = math.exp((partner - eps) / t)
    assert float(worst) == pytest.approx(-math.log(p / (p + sum(math.exp((s + eps) / t) for s in negatives))))
    g = torch.Generator().manual_seed(1)
    for _ in range(50):
        move = F.normalize(torch.randn(7, 5, generator=g, dtype=torch.float64), dim=1)
        assert loss(others + eps * move) < worst


@settings(max_examples=25, deadline=None)
@given(
    n=st.integers(2, 6),
    d=st.integers(1, 5),
    t=st.floats(0.07, 2),
    beta=st.sampled_from([0.0, 0.3, 1.0, 2.0]),
    tau_plus=st.sampled_from([0.0, 0.1, 0.5]),
    seed=st.integers(0, 99),
)
def test_hcl_weighs_negatives_by_their_similarity(n, d, t, beta, tau_plus, seed):
    def each(partner, negatives):
        weights = [math.exp(beta * s / t) for s in negatives]
        mean = sum(weights) / len(weights)
        mass = sum(w / mean * math.exp(s / t) for w, s in zip(weights, negatives, strict=True))
        if tau_plus:
            mass = (mass - tau_plus * len(negatives) * math.exp(partner / t)) / (1 - tau_plus)
            mass = max(mass, len(negatives) * math.exp(-1 / t))
        return -math.log(math.exp(partner / t) / (math.exp(partner / t) + mass))

    z1, z2 = pair(n, d, seed)
    want = by_hand(z1, z2, t, each)
    assert hcl(z1, z2, t, beta=beta, tau_plus=tau_plus).tolist() == pytest.approx(want, rel=1e-7, abs=1e-7)


def test_a_small_example_in_plain_numbers():
    """Images at right angles, pairs equal: cosines 1 to the partner, 0 to the two negatives."""
    z = torch.eye(2, dtype=torch.float64)
    clean, moved = math.log(1 + 2 * math.exp(-2)), math.log(1 + 2 * math.exp(-2 + 0.4))
    assert ifm(z, z, 0.5, eps=0.1).tolist() == pytest.approx([(clean + moved) / 2] * 2)
    assert hcl(z, z, 0.5, beta=3.0).tolist() == pytest.approx([clean] * 2)  # equal negatives, equal weights
    a, b = torch.tensor([[1.0, 0], [0, 1]]).double(), torch.tensor([[1.0, 0], [1, 0]]).double()
    heavy = 2 * (math.e**4 + 1) / (math.e**2 + 1)  # the first anchor's negatives have cosines 0 and 1
    sides = math.log(1 + heavy / math.e**2)
    assert float(hcl(a, b, 0.5, beta=1.0)[0]) == pytest.approx(sides)


@pytest.mark.parametrize("name, nothing", [("ifm", {"eps": 0.0}), ("hcl", {"beta": 0.0})])
def test_without_their_option_they_are_nt_xent(name, nothing):
    z1, z2 = (z.requires_grad_() for z in pair(6, 4))
    ours, plain = loss_named(name, **nothing)(z1, z2, 0.1), nt_xent(z1, z2, 0.1)
    torch.testing.assert_close(ours, plain, rtol=1e-13, atol=1e-13)
    slopes = [torch.autograd.grad(loss.sum(), (z1, z2)) for loss in (ours, plain)]
    torch.testing.assert_close(*slopes, rtol=1e-12, atol=1e-13)
    assert (loss_named(name)(z1, z2, 0.1) > plain).all()


OPTIONS = [("ifm", {}), ("hcl", {}), ("hcl", {"beta": 0.0}), ("hcl", {"beta": 0.7}), ("hcl", {"tau_plus": 0.1})]


@pytest.mark.parametrize("name, options", OPTIONS)
def test_gradients_invariances_and_blocks(name, options):
    loss = loss_named(name, **options)
    z1, z2 = pair(4, 3)
    whole, order = loss(z1, z2, 0.4), torch.tensor([2, 0, 3, 1])
    rotation = torch.linalg.qr(torch.cat(list(pair(3, 2)), dim=1)[:, :3])[0]
    for same in (loss(z2, z1, 0.4), loss(3 * z1, 0.1 * z2, 0.4), loss(z1 @ rotation, z2 @ rotation, 0.4)):
        torch.testing.assert_close(same, whole, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(loss(z1[order], z2[order], 0.4), whole[order], rtol=1e-12, atol=1e-12)
    parts = [loss(z1, z2, 0.4, rows) for rows in (slice(0, 3), slice(3, 4))]
    torch.testing.assert_close(torch.cat(parts), whole, rtol=1e-12, atol=1e-12)
    inputs = tuple(z.requires_grad_() for z in (z1, z2))
    assert torch.autograd.gradcheck(lambda a, b: loss(a, b, 0.4), inputs)
    assert torch.autograd.gradcheck(lambda a, b: loss(a, b, 0.4, slice(1, 3)), inputs)


@pytest.mark.parametrize("name, options", OPTIONS)
def test_single_pairs_and_low_temperatures_stay_finite(name, options):
    for n, t in ((1, 0.5), (6, 0.005)):
        z1, z2 = (z.float().requires_grad_() for z in pair(n, 4))
        loss = loss_named(name, **options)(z1, z2, t)
        slopes = torch.autograd.grad(loss.sum(), (z1, z2))
        assert all(value.isfinite().all() for value in (loss, *slopes)) and loss.shape == (n,)
        assert n > 1 or not loss.any()


@pytest.mark.parametrize("name, options", [("ifm", {"eps": 0.0}), ("ifm", {"eps": 0.2}), ("hcl", {"beta": 2.0})])
def test_chance_with_options_is_the_loss_of_equal_embeddings(name, options):
    z = torch.ones(6, 4, dtype=torch.float64)
    for t in (0.05, 0.5):
        found = float(loss_named(name, **options)(z, z, t).mean())
        assert found == pytest.approx(chance(6, name, t, **options), abs=1e-9)
    assert float(hcl(z, z, 0.5, tau_plus=0.1).mean()) == pytest.approx(math.log(11))
    assert chance(1, name) == 0 and chance(6, "hcl") == chance(6) == math.log(11)


def test_what_figures_write_at_chance():
    assert [chance_words(4, name) for name in LOSSES] == [
        "chance, ln 7",
        "chance, ln 4",
        *["chance"] * 2,
        "chance, ln 7",
    ]


@pytest.mark.parametrize("name", LOSSES)
def test_chance_is_the_loss_of_an_encoder_that_tells_nothing_apart(name):
    z = torch.ones(6, 4, dtype=torch.float64)
    assert float(LOSSES[name](z, z, 0.5).mean()) == pytest.approx(chance(6, name), abs=1e-9)


@pytest.mark.parametrize("name", LOSSES)
def test_losses_are_sized_from_their_tensors(name):
    for n in (1, 3, 8):
        assert LOSSES[name](*pair(n, 4), 0.5).shape == (n,)


def test_alignment_and_uniformity():
    z1, _ = pair(6, 3)
    assert float(alignment(z1, z1)) == pytest.approx(0)
    assert float(alignment(z1, -z1)) == pytest.approx(4)
    assert float(uniformity(torch.ones(5, 3, dtype=torch.float64))) == pytest.approx(0)
    assert float(uniformity(z1)) < 0


def test_bad_input_in_one_sentence():
    z1, z2 = pair(4, 3)
    with pytest.raises(UserError, match="one shape"):
        nt_xent(z1, z2[:3])
    with pytest.raises(UserError, match="temperature must be above 0"):
        nt_xent(z1, z2, 0.0)
    for wrong in (-0.1, math.nan, math.inf):
        with pytest.raises(UserError, match=rf"^ifm's eps, .* must be 0 or more, got {wrong}; 0 gives NT-Xent\.$"):
            ifm(z1, z2, eps=wrong)
        with pytest.raises(UserError, match=rf"^hcl's beta, .* must be 0 or more, got {wrong}; 0 gives NT-Xent\.$"):
            hcl(z1, z2, beta=wrong)
    with pytest.raises(UserError, match="tau_plus is the share"):
        hcl(z1, z2, tau_plus=1.0)
    with pytest.raises(UserError, match="Did you mean ifm"):
        loss_named("ifn")
