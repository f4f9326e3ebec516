"""Every attack and noise against every invariant, and against captum's own."""

import warnings

import pytest
import torch

from explore import Attack, Encoder, Noise, UserError, contrast, match, norms, parse_eps, seeded
from explore.attacks import ATTACKS, NOISES, attack_named, modules_of
from explore.convolutions import products
from explore.objectives import classify

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from captum.robust import FGSM as CaptumFGSM
    from captum.robust import PGD as CaptumPGD

EPS = 8 / 255
ALL = [
    *ATTACKS.values(),
    *[lambda e: Attack.pgd(e, steps=3, random_start=False), lambda e: Attack.pgd(e, norm="l2", steps=4)],
    lambda e: Attack.fgsm(e, norm="l2"),
    *NOISES.values(),
    lambda e: Noise.gaussian(e, by="variance"),
    *[lambda e, k=k, n=n: k(e, norm=n) for k in NOISES.values() for n in ("linf", "l2")],
]


def describe(make):
    a = make(EPS)
    return f"{a.name}-{a.norm}-{getattr(a, 'start', '')}-{getattr(a, 'scale', '')}"


@pytest.fixture(params=ALL, ids=describe)
def make(request):
    return request.param


@pytest.fixture
def x(generator):
    return torch.rand(12, 3, 16, 16, generator=generator)


@pytest.fixture
def apart(encoder, x):
    return contrast(encoder, (x + 0.1 * torch.rand(x.shape, generator=seeded(3))).clamp(0, 1))


def test_inside_the_ball_and_the_pixel_range(make, x, apart):
    attack = make(EPS)
    x_adv = attack(x, apart, generator=seeded(0))
    assert x_adv.shape == x.shape and x_adv.min() >= 0 and x_adv.max() <= 1
    size = norms(x_adv - x)
    if attack.norm == "l2":
        assert size["l2"].max() <= EPS * x[0].numel() ** 0.5 * (1 + 1e-5)
    elif attack.name != "gaussian" or attack.norm == "linf":
        assert size["linf"].max() <= EPS + 1e-6
    assert size["l2"].min() > 0


def test_attacks_raise_the_loss_more_than_any_noise(make, x, apart):
    attack = make(EPS)
    if isinstance(attack, Noise):
        return
    clean, adv = apart(x).sum(), apart(attack(x, apart, generator=seeded(0))).sum()
    noises = [apart(Noise.sign(EPS)(x, generator=seeded(s))).sum() for s in range(3)]
    assert adv > clean
    assert adv > max(noises)


def test_deterministic_per_seed(make, x, apart):
    attack = make(EPS)
    first, again, other = (attack(x, apart, generator=seeded(s)) for s in (5, 5, 6))
    assert torch.equal(first, again)
    random = isinstance(attack, Noise) or attack.start != "none"
    assert torch.equal(first, other) != random


@pytest.mark.parametrize("training", [False, True])
def test_input_and_model_untouched_bit_for_bit(make, x, apart, encoder, training):
    encoder.train(training)
    encoder.trunk.layer1.eval()  # a mixed mode must come back as it was
    before = {k: v.clone() for k, v in encoder.state_dict().items()}
    modes, x_before = [m.training for m in encoder.modules()], x.clone()
    make(EPS)(x, apart, generator=seeded(0))
    assert torch.equal(x, x_before) and x.grad is None and not x.requires_grad
    assert all(torch.equal(v, before[k]) for k, v in encoder.state_dict().items())
    assert modes == [m.training for m in encoder.modules()]
    assert all(p.grad is None and p.requires_grad for p in encoder.parameters())


def test_eps_zero_is_identity(make, x, apart):
    assert torch.equal(make(0.0)(x, apart, generator=seeded(0)), x)


def test_gray_stays_gray_unless_told_otherwise(make, generator, encoder):
    gray = torch.rand(6, 1, 16, 16, generator=generator).expand(6, 3, 16, 16).contiguous()
    apart = contrast(encoder, gray.flip(3))
    attack = make(EPS)
    x_adv = attack(gray, apart, generator=seeded(0))
    assert torch.equal(x_adv, x_adv[:, :1].expand_as(x_adv))
    from dataclasses import replace

    coloured = replace(attack, gray=False)(gray, apart, generator=seeded(0))
    assert not torch.equal(coloured, coloured[:, :1].expand_as(coloured))


def test_gray_is_decided_image_by_image(x, apart):
    x[0] = x[0, :1]
    x_adv = Attack.fgsm(EPS)(x, apart)
    same = [torch.equal(one, one[:1].expand_as(one)) for one in x_adv]
    assert same == [True] + [False] * 11


def test_batch_norm_is_put_back_when_the_objective_raises(encoder, x):
    encoder.train()
    before = {k: v.clone() for k, v in encoder.state_dict().items()}

    def breaks(images):
        encoder.eval()
        encoder.train()(images)
        raise RuntimeError("boom")

    with pytest.raises(UserError, match=r"The objective raised a RuntimeError \(boom\)"):
        Attack.pgd(EPS)(x, breaks)
    assert encoder.training
    assert all(torch.equal(v, before[k]) for k, v in encoder.state_dict().items())


def test_no_gradient_of_weights_is_computed_for_images(x, monkeypatch):
    """In bfloat16, where convolutions have gradients of their own; weights ask for theirs again afterwards, also when it raises."""
    net = Encoder("resnet10", width=4, stem="small").train()
    monkeypatch.setattr(products, "as_its", lambda *_: pytest.fail("a weight's gradient"))

    def away(images):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return net(images).float().square().sum(1)

    def broken(images):
        return away(images).sum()

    away.modules = broken.modules = (net,)
    moved = Attack.pgd(EPS, steps=2)(x, away, generator=seeded(0))
    assert not torch.equal(moved, x) and all(p.requires_grad for p in net.parameters())
    net.trunk.conv1.weight.requires_grad_(False)
    with pytest.raises(UserError, match="one loss an image"):
        Attack.fgsm(EPS)(x, broken)
    assert [p.requires_grad for p in net.parameters()].count(False) == 1


def test_a_learners_lambda_is_an_objective(encoder, x):
    encoder.train()
    before = encoder.trunk.bn1.running_mean.clone()
    brighter = lambda images: encoder(images)[:, 0]  # noqa: E731
    assert modules_of(brighter) == (encoder,)
    assert brighter(Attack.fgsm(EPS)(x, brighter)).sum() > 0
    encoder.trunk.bn1.running_mean.copy_(before)
    Attack.fgsm(EPS)(x, brighter)
    assert torch.equal(encoder.trunk.bn1.running_mean, before)


class _Features(torch.nn.Module):
    def __init__(self, encoder):
        super().__init__()
        self.encoder = encoder

    def forward(self, images):
        return self.encoder.features(images)


@pytest.mark.filterwarnings("ignore:Input Tensor")  # captum switches gradients on, and says so
def test_classify_and_captums_fgsm_and_pgd(encoder, x, generator):
    encoder, x = (
        encoder.double(),
        x.double(),
    )
    head = torch.nn.Linear(encoder.feature_dim, 5).double()
    y = torch.randint(5, (12,), generator=generator)
    wrong = classify(encoder, head, y)
    loss = torch.nn.CrossEntropyLoss(reduction="none")
    logits = torch.nn.Sequential(_Features(encoder), head)
    fgsm = CaptumFGSM(logits, loss_func=loss, lower_bound=0.0, upper_bound=1.0)
    pgd = CaptumPGD(logits, loss_func=loss, lower_bound=0.0, upper_bound=1.0)
    fgsm.zero_thresh = pgd.fgsm.zero_thresh = 0  # captum stands still where a gradient is below 1e-6
    torch.testing.assert_close(Attack.fgsm(EPS)(x, wrong), fgsm.perturb(x, EPS, y), atol=1e-9, rtol=0)
    theirs = pgd.perturb(x, radius=EPS, step_size=2 / 255, step_num=7, target=y, random_start=False, norm="Linf")
    ours = Attack.pgd(EPS, steps=7, step=2 / 255, random_start=False)(x, wrong)
    torch.testing.assert_close(ours, theirs, atol=1e-9, rtol=0)


def test_at_the_anchors_own_embedding_the_positive_part_vanishes(encoder, x):
    """Claim 10 of the paper's family: from x itself, plain FGSM is steered by the negatives alone."""
    encoder, x = encoder.double(), x.double()

    def positive(images, z):
        return (encoder(images) * z).sum(1)

    def pull(reference):
        z = encoder(reference).detach()
        leaf = x.clone().requires_grad_()
        up = torch.autograd.grad(positive(leaf, z).sum(), leaf)[0]
        whole = torch.autograd.grad(contrast(encoder, z)(leaf).sum(), leaf)[0]
        return float(up.norm() / whole.norm())

    assert pull(x) < 1e-10
    assert pull(x.flip(3)) > 0.01


@pytest.mark.parametrize("length", ["linf", "l2"])
def test_match_gives_the_length_that_is_left_after_clipping(generator, length):
    x = torch.rand(8, 3, 16, 16, generator=generator).round()  # black and white: half of all noise is clipped
    delta = torch.randn(x.shape, generator=generator)
    target = torch.linspace(0.01, 0.5, 8) * (1 if length == "linf" else 10)
    left = (x + match(delta, x, **{length: target})).clamp(0, 1) - x
    assert norms(left)[length] == pytest.approx(target, rel=1e-4)


def test_presets_are_what_their_papers_say(x, apart):
    assert Attack.rfgsm(EPS).start_size == EPS / 2 == Attack.rfgsm(EPS).step
    assert Attack.ffgsm(EPS).step == pytest.approx(10 / 255)
    assert (Attack.pgd(EPS).steps, Attack.pgd(EPS).step) == (10, pytest.approx(2 / 255))
    assert Attack.pgd(EPS).at(4 / 255) == Attack.pgd(4 / 255)
    assert [a(EPS).single_step for a in ATTACKS.values()] == [True, False, False, False]
    free = Attack.fgsm(0.5, clamp=None)(x, apart)
    assert free.max() > 1 and free.min() < 0
    big = torch.full((40, 3, 32, 32), 0.5)
    std = (Noise.gaussian(0.01)(big, generator=seeded(0)) - big).std()
    assert float(std) == pytest.approx(0.01, rel=0.02)
    variance = (Noise.gaussian(0.01, by="variance", clamp=None)(big, generator=seeded(0)) - big).var()
    assert float(variance) == pytest.approx(0.01, rel=0.05)


def test_bad_input_in_one_sentence(x, encoder):
    with pytest.raises(UserError, match=r"Did you mean 8/255\?"):
        Attack.fgsm(8)
    with pytest.raises(UserError, match=r"Did you mean 8/255\?"):
        parse_eps("8")
    with pytest.raises(UserError, match="written as 8/255"):
        parse_eps("eight")
    with pytest.raises(UserError, match="outside 0 to 1"):
        Noise.sign(float("nan"))
    with pytest.raises(UserError, match="1 step or more"):
        Attack.pgd(EPS, steps=0)
    with pytest.raises(UserError, match=r"Did you mean f?fgsm"):
        attack_named("f-gsm", EPS)
    with pytest.raises(UserError, match="one loss an image"):
        Attack.fgsm(EPS)(x, lambda images: images.sum())
    with pytest.raises(UserError, match="does not depend on its images"):
        Attack.fgsm(EPS)(x, lambda images: torch.zeros(len(images)))
    with pytest.raises(UserError, match="its own partner"):
        Attack.fgsm(EPS)(x, contrast(encoder, x[:5]))
    with pytest.raises(UserError, match=r"Labels must lie in 0 \.\. 4"):
        classify(encoder, torch.nn.Linear(encoder.feature_dim, 5), torch.full((12,), 7))(x)


def test_every_attack_is_offered_everywhere():
    """The names, titles and order of menus and commands; `test_contributing.py` adds an attack to them."""
    from explore.attack_table import ATTACK_MENU, TABLE
    from explore.config import ATTACK_NAMES

    assert ATTACK_NAMES == ("none", "fgsm", "rfgsm", "ffgsm", "pgd", "gaussian", "uniform", "sign")
    assert ATTACK_MENU == {"FGSM": "fgsm", "R-FGSM": "rfgsm", "F-FGSM": "ffgsm", "PGD": "pgd"}
    assert {make(EPS).name for make in ALL} == set(TABLE) == {*ATTACKS, *NOISES}
    for name, row in TABLE.items():
        attack = attack_named(name, EPS, **row.options(7))
        assert attack.name == name == row.name and isinstance(attack, Noise) == (row.role == "noise")
        assert row.gradients(7) == getattr(attack, "steps", 0)


@pytest.mark.parametrize(
    ("text", "eps"),
    [("8/255", 8 / 255), (" 3.8 / 255", 3.8 / 255), ("8.0/255.0", 8 / 255), ("0.031", 0.031), ("1e-400", 0.0)],
)
def test_what_people_write_for_eps_is_read(text, eps):
    assert parse_eps(text) == eps


@pytest.mark.parametrize("text", ["1e400", "1e99999999999", "-1/255", "nan", "256/255", "9" * 5000])
def test_an_eps_outside_a_pixels_range_is_refused_at_once(text):
    with pytest.raises(UserError, match="outside 0 to 1"):
        parse_eps(text)


@pytest.mark.parametrize("text", ["8//255", "1/2/3", "8/0", "", "x/255"])
def test_an_eps_that_is_no_number_is_refused(text):
    with pytest.raises(UserError, match="eps is written as 8/255"):
        parse_eps(text)
