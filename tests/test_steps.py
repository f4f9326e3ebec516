"""The fast training steps against the obvious ones, bit for bit in float64."""

import copy

import pytest
import torch

from explore import Attack, Encoder, Noise, UserError, nt_xent, seeded
from explore.steps import Stepper

EPS = 8 / 255


@pytest.fixture
def net():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Encoder("resnet10", width=8, stem="small", proj_dim=16).double().train()


@pytest.fixture
def pair(generator):
    return [torch.rand(8, 3, 32, 32, generator=generator, dtype=torch.float64) for _ in range(2)]


def grads(net):
    return {name: p.grad for name, p in net.named_parameters()}


def obvious_clae(net, v1, v2, alpha=1.0):
    """Algorithm 1 as one would write it: a separate pass for the attack, one loss, one backward."""
    frozen = copy.deepcopy(net)
    x = v2.clone().requires_grad_()
    nt_xent(frozen(v1), frozen(x)).mean().backward()
    x_adv = (v2 + EPS * x.grad.sign()).clamp(0, 1)
    anchor = net(v1)
    clean = nt_xent(anchor, net(v2)).mean()
    adv = nt_xent(anchor, net(x_adv, branch="adv")).mean()
    (clean + alpha * adv).backward()
    return clean, adv, x_adv


@pytest.mark.parametrize("alpha", [1.0, 0.25])
def test_nine_passes_give_the_adversary_and_gradients_of_the_obvious_step(net, pair, alpha):
    other = copy.deepcopy(net)
    step = Stepper(net, Attack.fgsm(EPS), alpha=alpha)(*pair)
    clean, adv, x_adv = obvious_clae(other, *pair, alpha)
    assert torch.equal(step.x_adv, x_adv)
    assert torch.equal(step.loss, clean) and torch.equal(step.loss_adv, adv)
    theirs = grads(other)
    for name, grad in grads(net).items():
        assert torch.equal(grad, theirs[name]), name
    for a, b in zip(net.buffers(), other.buffers(), strict=True):
        assert torch.equal(a, b)


def passes(net, call):
    """Forward passes of a batch of 8 through the trunk in one call; a pass of 16 images is two."""
    images = []
    hook = net.trunk.register_forward_hook(lambda _, args, __: images.append(len(args[0])))
    call()
    hook.remove()
    return sum(images) / 8


@pytest.mark.parametrize(
    ("attack", "forwards"),
    [
        (None, 2),
        (Attack.fgsm(EPS), 3),
        (Attack.rfgsm(EPS), 4),
        (Attack.ffgsm(EPS), 4),
        (Attack.pgd(EPS, steps=3), 6),
        (Noise.sign(EPS), 3),
    ],
    ids=lambda v: getattr(v, "name", v),
)
def test_no_step_runs_more_passes_than_it_states(net, pair, attack, forwards):
    assert passes(net, lambda: Stepper(net, attack)(*pair, seeded(0))) == forwards


@pytest.mark.parametrize(
    "attack",
    [Attack.rfgsm(EPS), Attack.ffgsm(EPS), Attack.pgd(EPS, steps=2), Noise.gaussian(EPS)],
    ids=lambda a: a.name,
)
@pytest.mark.parametrize("reference", ["other_view", "self"])
@pytest.mark.parametrize("branch", ["clean", "adv"])
def test_reuse_equals_the_obvious_step(net, pair, attack, reference, branch):
    v1, v2 = pair
    frozen, other = copy.deepcopy(net), copy.deepcopy(net)
    step = Stepper(net, attack, reference=reference, attack_branch=branch)(v1, v2, seeded(4))
    attacked = v1 if reference == "self" else v2
    z = frozen(v1, branch=branch if reference == "self" else "clean").detach()
    x_adv = attack(attacked, lambda x: nt_xent(z, frozen(x, branch=branch)), generator=seeded(4))
    assert torch.equal(step.x_adv, x_adv)
    anchor = other(v1)
    (nt_xent(anchor, other(v2)).mean() + nt_xent(anchor, other(x_adv, branch="adv")).mean()).backward()
    theirs = grads(other)
    assert all(torch.equal(grad, theirs[name]) for name, grad in grads(net).items())
    assert all(torch.equal(a, b) for a, b in zip(net.buffers(), other.buffers(), strict=True))


@pytest.mark.parametrize("attack", [Attack.fgsm(EPS), Attack.pgd(EPS, steps=2)], ids=lambda a: a.name)
@pytest.mark.parametrize(("reference", "branch"), [("other_view", "clean"), ("self", "adv")])
def test_an_attack_in_eval_mode_is_by_running_statistics_and_the_training_by_the_batchs(
    net, pair, attack, reference, branch
):
    v1, v2 = pair
    net(v1), net(v2, branch="adv")  # running statistics that are not those of the start
    frozen, other = copy.deepcopy(net), copy.deepcopy(net)
    frozen(v1), frozen(v2)  # the clean passes come before the attack
    frozen.eval()
    step = Stepper(net, attack, reference=reference, attack_branch=branch, attack_mode="eval")(v1, v2, seeded(4))
    z = frozen(v1, branch=branch).detach()
    attacked = v1 if reference == "self" else v2
    x_adv = attack(attacked, lambda x: nt_xent(z, frozen(x, branch=branch)), generator=seeded(4))
    assert torch.equal(step.x_adv, x_adv)
    in_train_mode = Stepper(copy.deepcopy(net), attack, reference=reference, attack_branch=branch)(v1, v2, seeded(4))
    assert not torch.equal(step.x_adv, in_train_mode.x_adv)
    anchor = other(v1)
    (nt_xent(anchor, other(v2)).mean() + nt_xent(anchor, other(x_adv, branch="adv")).mean()).backward()
    theirs = grads(other)
    assert all(torch.equal(grad, theirs[name]) for name, grad in grads(net).items())
    assert all(torch.equal(a, b) for a, b in zip(net.buffers(), other.buffers(), strict=True))
    assert all(part.training for part in net.modules())


def test_the_authors_step(net, pair):
    """From x_i against its own embedding, adversarial branch, no clipping; that branch's statistics move three times."""
    v1, v2 = pair
    attack = Attack.fgsm(0.015, clamp=None, gray=False)
    other = copy.deepcopy(net)
    step = Stepper(net, attack, authors=True)(v1, v2)
    x = v1.clone().requires_grad_()
    nt_xent(other(v1, branch="adv"), other(x, branch="adv")).mean().backward()
    x_adv = v1 + 0.015 * x.grad.sign()
    other.zero_grad()
    anchor = other(v1)
    (nt_xent(anchor, other(v2)).mean() + nt_xent(anchor, other(x_adv, branch="adv")).mean()).backward()
    assert torch.equal(step.x_adv, x_adv) and (step.x_adv.min() < 0 or step.x_adv.max() > 1)
    theirs = grads(other)
    assert all(torch.equal(grad, theirs[name]) for name, grad in grads(net).items())
    assert int(net.trunk.bn1.adv.num_batches_tracked) == 3 and int(net.trunk.bn1.num_batches_tracked) == 2
    assert passes(net, lambda: Stepper(net, attack, authors=True)(v1, v2)) == 5


@pytest.mark.parametrize("branch", ["clean", "adv"])
def test_two_views_in_one_pass_are_two_passes(net, pair, branch):
    """Embeddings, gradients, and statistics that moved by one view after the other; in eval mode as well."""
    other = copy.deepcopy(net)
    together = net(torch.cat(pair), branch=branch, views=2).chunk(2)
    apart = [other(view, branch=branch) for view in pair]
    for embeddings in (together, apart):
        nt_xent(*embeddings).mean().backward()
    theirs = grads(other)
    for a, b in [*zip(together, apart, strict=True), *zip(net.buffers(), other.buffers(), strict=True)]:
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)
    for name, grad in grads(net).items():
        assert (grad is None) == (theirs[name] is None), name
        torch.testing.assert_close(grad, theirs[name], rtol=1e-8, atol=1e-12)
    net.eval()
    torch.testing.assert_close(net(torch.cat(pair), views=2), net(torch.cat(pair)))


@pytest.mark.parametrize("views", [0, 3])
def test_views_of_different_sizes_are_refused(net, pair, views):
    with pytest.raises(UserError, match=f"follow each other in the 16 images, got {views}"):
        net(torch.cat(pair), views=views)


def test_simclr_passes_small_maps_together_and_large_ones_apart(net, pair, monkeypatch):
    sizes = []
    net.trunk.register_forward_hook(lambda _, args, __: sizes.append(len(args[0])))
    Stepper(net)(*pair)
    Stepper(net, chunk=4)(*pair)
    monkeypatch.setattr(Encoder, "behind_stem", lambda *_: 2**20 + 1)
    Stepper(net)(*pair)
    assert sizes == [16, *[4] * 8, 8, 8]


def test_what_the_first_stage_reads():
    x = torch.rand(2, 3, 32, 48)
    for stem, pixels in [("cifar", 32 * 48), ("small", 16 * 24), ("imagenet", 8 * 12)]:
        net = Encoder("resnet10", width=8, stem=stem)
        read = []
        net.trunk.layer1.register_forward_pre_hook(lambda _, args, read=read: read.append(args[0].numel()))
        net.features(x)
        assert read == [net.behind_stem(x)] == [2 * 8 * pixels]


def test_simclr_leaves_the_adversarial_branch_alone(net, pair):
    Stepper(net)(*pair)
    assert int(net.trunk.bn1.adv.num_batches_tracked) == 0
    assert net.trunk.bn1.adv.weight.grad is None and net.trunk.bn1.weight.grad is not None


def test_bf16_agrees_with_fp32_on_most_of_the_direction(net, pair):
    net, (v1, v2) = net.float(), [v.float() for v in pair]
    exact = Stepper(copy.deepcopy(net), Attack.fgsm(EPS))(v1, v2)
    fast = Stepper(net, Attack.fgsm(EPS), autocast=torch.bfloat16)(v1, v2)
    same = ((exact.x_adv - v2).sign() == (fast.x_adv - v2).sign()).float().mean()
    assert same > 0.8
    assert float(fast.loss) == pytest.approx(float(exact.loss), rel=0.02)
