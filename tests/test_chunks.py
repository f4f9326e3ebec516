"""Gradient caching: a step in chunks against the plain step, in float64."""

import copy

import pytest
import torch

from explore import Attack, Encoder, Noise, TrainConfig, UserError, nt_xent, seeded
from explore.losses import LOSSES
from explore.steps import Stepper

EPS = 8 / 255
STEPS = {
    "simclr": {"attack": None},
    "fgsm": {"attack": Attack.fgsm(EPS)},
    "fgsm self": {"attack": Attack.fgsm(EPS), "reference": "self", "attack_branch": "adv"},
    "fgsm, eval mode": {"attack": Attack.fgsm(EPS), "attack_mode": "eval"},
    "ffgsm": {"attack": Attack.ffgsm(EPS)},
    "pgd": {"attack": Attack.pgd(EPS, steps=2)},
    "gaussian": {"attack": Noise.gaussian(EPS)},
    "authors": {"attack": Attack.fgsm(EPS, clamp=None, gray=False), "authors": True},
}


class InChunks(torch.nn.Module):
    """The obvious reference: the same network, whose batch norm sees the same chunks, with the whole graph in memory."""

    def __init__(self, net, chunk):
        super().__init__()
        self.net, self.chunk = net, chunk

    def forward(self, x, branch="clean"):
        return torch.cat([self.net(part, branch=branch) for part in x.split(self.chunk)])


@pytest.fixture
def net():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Encoder("resnet10", width=8, stem="small", proj_dim=16).double().train()


@pytest.fixture
def pair(generator):
    return [torch.rand(10, 3, 32, 32, generator=generator, dtype=torch.float64) for _ in range(2)]


def alike(step, other, net, theirs):
    torch.testing.assert_close(step.loss, other.loss, rtol=1e-10, atol=1e-10)
    if step.x_adv is not None:
        assert torch.equal(step.x_adv, other.x_adv)
        torch.testing.assert_close(step.loss_adv, other.loss_adv, rtol=1e-10, atol=1e-10)
    for (name, p), q in zip(net.named_parameters(), theirs.parameters(), strict=True):
        assert (p.grad is None) == (q.grad is None), name
        if p.grad is not None:
            torch.testing.assert_close(p.grad, q.grad, rtol=1e-8, atol=1e-10, msg=name)
    for (name, a), b in zip(net.named_buffers(), theirs.buffers(), strict=True):
        assert torch.equal(a, b), name
    assert net.training


@pytest.mark.parametrize("settings", STEPS.values(), ids=STEPS)
def test_chunks_with_their_own_statistics_equal_the_same_network_with_its_graph_in_memory(net, pair, settings):
    chunk = 4  # of 10: the last one is smaller
    other = copy.deepcopy(net)
    step = Stepper(net, chunk=chunk, **settings)(*pair, seeded(3))
    alike(step, Stepper(InChunks(other, chunk), **settings)(*pair, seeded(3)), net, other)


@pytest.mark.parametrize("settings", STEPS.values(), ids=STEPS)
def test_with_frozen_statistics_chunks_equal_the_plain_step(net, pair, settings):
    """In eval mode batch norm couples no images: then the chunks change nothing at all."""
    for _ in range(3):
        net(pair[0]), net(pair[1], branch="adv")
    net.eval()
    other = copy.deepcopy(net)
    step = Stepper(net, chunk=3, **settings)(*pair, seeded(3))
    whole = Stepper(other, **settings)(*pair, seeded(3))
    net.train()
    alike(step, whole, net, other)


def test_chunks_are_not_the_plain_step_where_batch_norm_sees_them(net, pair):
    other = copy.deepcopy(net)
    part, whole = Stepper(net, chunk=5)(*pair), Stepper(other)(*pair)
    assert abs(float(part.loss - whole.loss)) > 1e-4


def test_only_one_chunk_is_alive(net, pair):
    """Every forward pass of the network sees a chunk, and each is run once more to be back-propagated."""
    sizes = []
    net.trunk.register_forward_hook(lambda module, x, y: sizes.append(len(x[0])))
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        z = Stepper(net, chunk=5).embed(pair[0])
    assert sizes == [5, 5] and sum(kept) == pair[0].numel()  # the images alone
    z.sum().backward()
    assert sizes == [5, 5, 5, 5]


@pytest.mark.parametrize("loss", LOSSES)
def test_losses_by_rows_are_rows_of_the_losses(loss, generator):
    z1, z2 = (torch.randn(7, 5, generator=generator, dtype=torch.float64) for _ in range(2))
    whole = LOSSES[loss](z1, z2, 0.3)
    parts = [LOSSES[loss](z1, z2, 0.3, rows) for rows in (slice(0, 3), slice(3, 4), slice(4, 7))]
    torch.testing.assert_close(torch.cat(parts), whole, rtol=1e-12, atol=1e-12)


def test_the_loss_is_the_whole_batchs(net, pair):
    net.eval()
    v1, v2 = pair
    whole = nt_xent(net(v1), net(v2)).mean().detach()
    torch.testing.assert_close(Stepper(net, chunk=2)(v1, v2).loss, whole, rtol=1e-12, atol=1e-12)


def test_a_chunk_that_makes_no_sense_in_one_sentence():
    for chunk in (1, 0, 96, 256):
        with pytest.raises(UserError, match="chunk is the images embedded at a time"):
            TrainConfig(chunk=chunk, batch_size=128)
