"""Losses against the formulas written out by hand."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from explore import UserError, alignment, chance, nt_xent, uniformity
from explore.losses import LOSSES, softmax_one_way, uel


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
