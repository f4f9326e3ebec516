"""Attribution: captum's maps against hand computations, batch-coupled losses, and an encoder left as it was."""

import copy
import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import explore as ex
from explore.attribution import METHODS, baseline_of, feature_layers, own_loss
from explore.attribution.targets import Alone
from explore.results import Attribution, Seen, to_pixels
from explore.results.attribution import rank_correlation, top_share
from explore.studies.attribution import AttributionStudy, cascade, randomised, what_it_sees


@pytest.fixture
def x(generator):
    return torch.rand(4, 3, 32, 32, generator=generator)


@pytest.fixture
def view(x, generator):
    return (x + 0.1 * torch.randn(x.shape, generator=generator)).clamp(0, 1)


class Linear(nn.Module):
    """Features that are a linear function of the pixels, so every map is known."""

    def __init__(self, d: int = 5):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(d, 3 * 32 * 32, generator=torch.Generator().manual_seed(2)) / 50)

    def forward(self, x):
        return F.linear(x.flatten(1), self.weight)


def head(h):
    return h[:, :5]


def condition(net):
    hooks = [(len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks)) for m in net.modules()]
    state = {k: v.clone() for k, v in net.state_dict().items()}
    grads = [(p.requires_grad, None if p.grad is None else p.grad.clone()) for p in net.parameters()]
    return hooks, [m.training for m in net.modules()], state, grads


def same(a, b):
    assert a[0] == b[0] and a[1] == b[1]
    assert all(a[2][k].equal(b[2][k]) for k in a[2]) and a[2].keys() == b[2].keys()
    for (wanted, before), (wants, after) in zip(a[3], b[3], strict=True):
        assert wanted == wants and (before is None) == (after is None) and (before is None or before.equal(after))


@pytest.mark.parametrize("method", ["integrated_gradients", "saliency", "occlusion"])
def test_a_linear_encoders_maps_are_known(x, method):
    net, y = Linear(), torch.tensor([0, 4, 2, 1])
    found = ex.attribute(net, x, ex.logit(net, head, y), method, baseline="mean", window=4)
    w = net.weight.detach()[y].view(4, 3, 32, 32)
    gain = w * (x - x.mean((2, 3), keepdim=True))
    if method == "saliency":
        torch.testing.assert_close(found.channels, w)
    elif method == "integrated_gradients":
        torch.testing.assert_close(found.channels, gain, rtol=1e-4, atol=1e-6)
        assert float(found.error.max()) < 1e-3
    else:  # the mean over the windows of 4 every 2 pixels that hide a pixel, by hand
        total, times = torch.zeros(4, 32, 32), torch.zeros(32, 32)
        for i, j in itertools.product(range(0, 29, 2), repeat=2):
            total[:, i : i + 4, j : j + 4] += gain[:, :, i : i + 4, j : j + 4].sum((1, 2, 3))[:, None, None]
            times[i : i + 4, j : j + 4] += 1
        torch.testing.assert_close(found.maps, total / times, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(found.value, net(x).detach().gather(1, y[:, None])[:, 0])


def test_occlusion_is_a_loop_over_squares(encoder, x, view):
    f = ex.similarity(encoder, view)
    found = ex.attribute(encoder, x, f, "occlusion", window=8, baseline="black").maps
    with torch.no_grad():
        total, times, value = torch.zeros(4, 32, 32), torch.zeros(32, 32), f(x)
        for i, j in itertools.product(range(0, 25, 4), repeat=2):
            hidden = x.clone()
            hidden[:, :, i : i + 8, j : j + 8] = 0
            total[:, i : i + 8, j : j + 8] += (value - f(hidden))[:, None, None]
            times[i : i + 8, j : j + 8] += 1
    torch.testing.assert_close(found, total / times, rtol=1e-3, atol=1e-5)


def test_one_quadrature_is_captums_own(encoder, x, view):
    from captum.attr import IntegratedGradients

    f = ex.similarity(encoder, view)
    own = ex.attribute(encoder, x, f, steps=20, tolerance=None)
    by_hand = []
    for i in range(4):  # every image by itself, 20 steps in one call

        def cosine(many, i=i):
            return encoder(many) @ encoder(view[[i]])[0].detach()

        by_hand.append(IntegratedGradients(cosine).attribute(x[[i]].requires_grad_(), n_steps=20))
    torch.testing.assert_close(own.channels, torch.cat(by_hand).detach(), rtol=1e-4, atol=1e-7)
    with torch.no_grad():
        rise = f(x) - f(torch.zeros_like(x))
    torch.testing.assert_close(own.delta, own.maps.flatten(1).sum(1) - rise, rtol=1e-4, atol=1e-6)


def demo():
    from explore.training import make_views

    run = ex.open_run("demo/clae")
    data = ex.load(run.config.dataset)
    x, y = data.test[:5]
    return run.encoder(), x, make_views(run.config, data)(x, ex.seeded(0)), y


def test_completeness_is_below_one_percent_on_the_shipped_encoder():
    net, x, view, _ = demo()
    for target in (ex.similarity(net, view), ex.contrast(net, view, temperature=0.2)):
        found = ex.attribute(net, x, target)
        assert float(found.error.max()) < 0.01
        torch.testing.assert_close(found.maps.flatten(1).sum(1), found.value - found.at_baseline + found.delta)
        rough = ex.attribute(net, x, target, tolerance=None)  # one quadrature of 32 points is not enough here
        assert float(rough.error.max()) > 0.02


def test_the_contrastive_loss_of_an_image_moves_with_that_image_alone(encoder, x, view):
    objective = ex.contrast(encoder, view, temperature=0.3)
    own = own_loss(objective, x)
    torch.testing.assert_close(own(x), objective(x))
    with torch.no_grad():
        moved = (x + 0.2).clamp(0, 1)
        by_hand = torch.stack(
            [objective(torch.where(torch.arange(4).view(-1, 1, 1, 1) == i, moved, x))[i] for i in range(4)]
        )
        torch.testing.assert_close(own(moved), by_hand)
    slope = ex.attribute(encoder, x, objective, "saliency").channels
    for i in range(4):
        inner = x.clone().requires_grad_()
        torch.testing.assert_close(
            slope[i], torch.autograd.grad(objective(inner)[i], inner)[0][i], rtol=1e-3, atol=1e-6
        )
    whole = x.clone().requires_grad_()
    together = torch.autograd.grad(objective(whole).sum(), whole)[0]
    assert float((slope - together).abs().max()) > 1e-3 * float(together.abs().max())  # the sum's gradient is another


@pytest.mark.parametrize("loss", ["nt_xent", "softmax", "ifm", "hcl"])
def test_every_loss_adds_up_image_by_image(encoder, x, view, loss):
    objective = ex.contrast(encoder, view, loss=loss)
    found = ex.attribute(encoder, x, objective)
    black = torch.zeros_like(x)
    with torch.no_grad():
        for i in range(4):
            here = torch.arange(4).view(-1, 1, 1, 1) == i
            rise = objective(x)[i] - objective(torch.where(here, black, x))[i]
            assert abs(float(found.maps[i].sum() - rise)) < 0.011 * abs(float(rise))


def test_a_loss_with_a_side_held_constant_says_that_it_does_not_add_up(encoder, x, view):
    objective = ex.contrast(encoder, view, loss="uel")
    torch.testing.assert_close(own_loss(objective, x)(x), objective(x))
    assert float(ex.attribute(encoder, x, objective, steps=8).error.min()) > 0.01


@pytest.mark.parametrize("method", METHODS)
def test_some_rows_are_the_batchs_own(encoder, x, view, method):
    for target in (ex.similarity(encoder, view), ex.contrast(encoder, view)):
        whole = ex.attribute(encoder, x, target, method, layer="trunk.layer2" if method == "gradcam" else None)
        part = ex.attribute(encoder, x, target, method, rows=[2, 0], layer=whole.layer or None)
        torch.testing.assert_close(part.channels, whole.channels[[2, 0]], rtol=1e-3, atol=1e-5)
        torch.testing.assert_close(part.value, whole.value[[2, 0]])


def test_a_function_of_ones_own(encoder, x, view):
    z = encoder(view).detach()
    found = ex.attribute(encoder, x, lambda images: (encoder(images) * z).sum(1), steps=8)
    wanted = ex.attribute(encoder, x, ex.similarity(encoder, view), steps=8)
    torch.testing.assert_close(found.channels, wanted.channels, rtol=1e-3, atol=1e-6)
    rows = torch.tensor([3, 1, 3, 3])
    alone = Alone(lambda images: images.sum((1, 2, 3)) * torch.arange(4), x, rows)
    torch.testing.assert_close(alone(view[rows]), view[rows].sum((1, 2, 3)) * rows)


@pytest.mark.parametrize("layer", ["trunk.layer1", "trunk.layer3", "trunk.layer2.0.bn2"])
def test_gradcam_by_hand(encoder, x, view, layer):
    f, kept = ex.similarity(encoder, view), []
    module = dict(encoder.named_modules())[layer]

    def keep(_module, _inputs, out):
        kept.append(out)
        return out.clone()  # what follows works in place

    hook = module.register_forward_hook(keep)
    value = f(x.clone().requires_grad_())
    hook.remove()
    (slope,) = torch.autograd.grad(value.sum(), kept[0])
    coarse = (slope.mean((2, 3), keepdim=True) * kept[0]).sum(1, keepdim=True)
    wanted = F.interpolate(coarse, size=(32, 32), mode="bilinear", align_corners=False).detach()
    found = ex.attribute(encoder, x, f, "gradcam", layer=layer)
    torch.testing.assert_close(found.channels, wanted, rtol=1e-3, atol=1e-6)
    assert found.layer == layer and float(found.maps.min()) < 0 < float(found.maps.max())


@pytest.mark.parametrize("method", METHODS)
def test_nothing_is_left_behind(encoder, x, view, method):
    encoder.train()
    for p in encoder.parameters():
        p.requires_grad_(True)
    encoder.trunk.conv1.weight.grad = torch.ones_like(encoder.trunk.conv1.weight)
    was, kept = condition(encoder), x.clone()
    f = ex.similarity(encoder, view)
    first = ex.attribute(encoder, x, f, method)
    same(was, condition(encoder))
    calls, at = [], {"saliency": 1, "gradcam": 2}.get(method, 3)  # inside captum, past the first looks

    def breaks(images):
        calls.append(len(images))
        if len(calls) > at and torch.is_grad_enabled() == (method != "occlusion"):
            raise RuntimeError("broke inside")
        return f.take(torch.arange(len(images)) % 4)(images)

    breaks.modules = (encoder,)
    breaks.take = lambda rows: breaks
    with pytest.raises(RuntimeError, match="broke inside"):
        ex.attribute(encoder, x, breaks, method)
    same(was, condition(encoder))
    assert x.equal(kept) and not x.requires_grad and x.grad is None and torch.is_grad_enabled()
    assert first.channels.equal(ex.attribute(encoder.eval(), x, f, method).channels)  # eval mode, whatever it was in


def test_any_torch_encoder(x, view):
    from torchvision.models import resnet18

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = resnet18(weights=None)
    net.fc = nn.Identity()
    for method in METHODS:
        found = ex.attribute(net, x[:2], ex.similarity(net, view[:2]), method, window=16)
        assert found.maps.shape == (2, 32, 32) and found.maps.isfinite().all() and float(found.maps.abs().max()) > 0
        torch.testing.assert_close(found.value, F.cosine_similarity(net.eval()(x[:2]), net(view[:2])).detach())
    layers = feature_layers(net, x[:1])
    assert layers["layer1"] == (64, 8, 8) and "fc" not in layers and "layer1.0.relu" not in layers  # relu runs twice
    assert found.layer == "layer1" or min(layers[found.layer][1:]) >= 4
    with pytest.raises(ex.UserError, match=r"no layer 'layer9'.*Did you mean layer"):
        ex.attribute(net, x, ex.similarity(net, view), "gradcam", layer="layer9")


def test_baselines(x):
    assert float(baseline_of(x, "black").abs().max()) == 0
    mean, blur = baseline_of(x, "mean"), baseline_of(x, "blur")
    torch.testing.assert_close(mean[1, 2], x[1, 2].mean().expand(32, 32))
    assert blur.std() < x.std() / 2 and baseline_of(x, blur).equal(blur)


def test_bad_input_is_told_in_a_sentence(encoder, x, view):
    f = ex.similarity(encoder, view)
    broken = x.clone()
    broken[1, 0, 3, 3] = torch.nan
    cases = [
        (lambda: ex.similarity(encoder, view[:2])(x), "4 images and 2 references"),
        (
            lambda: ex.attribute(encoder, x, ex.similarity(encoder, view[..., :28, :28])),
            r"\(3, 32, 32\) and the reference \(3, 28, 28\)",
        ),
        (lambda: ex.attribute(encoder, x, ex.contrast(encoder, view[:3])), "reference has 3 images"),
        (lambda: ex.attribute(encoder, broken, f), "1 of 4 hold NaN"),
        (lambda: ex.attribute(encoder, x, f, "gradcm"), "Did you mean gradcam"),
        (lambda: ex.attribute(copy.deepcopy(encoder), x, f, "gradcam"), "this target runs another one"),
        (
            lambda: ex.attribute(encoder, x, f, "gradcam", layer="layer3"),
            "no layer 'layer3'.*Did you mean trunk.layer3",
        ),
        (lambda: ex.attribute(encoder, x, f, "gradcam", layer="projector.0"), r"'projector.0' gives \(4, 64\)"),
        (lambda: ex.attribute(encoder, x, f, "gradcam", layer="trunk.layer1.0.relu"), "runs 2 times"),
        (
            lambda: ex.attribute(encoder, x, ex.logit(encoder, head, torch.tensor([0, 1, 2, 5]))),
            r"0 \.\. 4 for this head, got 5",
        ),
        (lambda: ex.attribute(encoder, x, ex.logit(encoder, head, torch.tensor([0, -1, 2, 5]))), "have no label"),
        (lambda: ex.attribute(encoder, x, ex.logit(encoder, head, torch.tensor([0, 1]))), "4 images and 2 labels"),
        (lambda: ex.attribute(encoder, x, f, baseline="grey"), "baseline is black, mean, blur or images"),
        (lambda: ex.attribute(encoder, x, f, baseline=x[:2]), "baseline has the shape"),
        (lambda: ex.attribute(encoder, x, f, "occlusion", window=40), "1 to 32 here, got 40"),
        (lambda: ex.attribute(encoder, x, f, steps=0), "1 to 1000, got 0"),
        (lambda: ex.attribute(encoder, (x * 255).to(torch.uint8), f), "torch.uint8"),
        (lambda: ex.attribute(encoder, x[:0], f), "batch is empty"),
        (lambda: ex.attribute(encoder, x, lambda i: i.mean()), r"shape \(4,\), got \(\)"),
        (lambda: ex.attribute(encoder, x, lambda i: torch.ones(len(i))), "does not depend on its images"),
        (
            lambda: ex.attribute(encoder, x, lambda i: i.mean((1, 2, 3)) / 0 - i.amax((1, 2, 3)) / 0),
            "NaN or infinite ones for 4 of 4",
        ),
        (lambda: ex.attribute(encoder, x, lambda i: i.mean((1, 2, 3)).softmax(0)), "changes when the other images do"),
        (lambda: ex.similarity(encoder, view, what="x"), "'z' .projections. or 'h'"),
        (lambda: AttributionStudy(encoder, x, target="likeness", reference=view), "target must be one of"),
        (lambda: AttributionStudy(encoder, x), "needs reference="),
        (lambda: AttributionStudy(encoder, x, target="logit"), "needs head="),
        (lambda: AttributionStudy(encoder, x, reference=view).look(-1), "outside 0 to 1"),
    ]
    for run, said in cases:
        with pytest.raises(ex.UserError, match=said) as caught:
            run()
        assert str(caught.value).count("\n") == 0


# clean, perturbed, randomised
def test_correlation_and_focus_by_hand(generator):
    from scipy.stats import spearmanr

    a, b = torch.randn(3, 8, 8, generator=generator), torch.randn(3, 8, 8, generator=generator)
    b[0], b[1, :4] = a[0] ** 3, 0  # same order; ties
    found = rank_correlation(a, b)
    wanted = [spearmanr(a[i].flatten().numpy(), b[i].flatten().numpy()).statistic for i in range(3)]
    np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-5, atol=1e-7)
    assert float(found[0]) == pytest.approx(1) and rank_correlation(a, torch.zeros_like(a)).isnan().all()
    even = torch.ones(1, 10, 10)
    assert float(top_share(even)) == pytest.approx(0.1)
    even[0, 0, 0] = -100  # the first of the ten largest of 100
    assert float(top_share(even)) == pytest.approx((100 + 9) / 199)


def test_the_study_is_the_library_by_hand(encoder, x, view, tmp_path):
    found = what_it_sees(encoder, x, 8 / 255, reference=view, method="saliency")
    x_adv = ex.Attack.fgsm(8 / 255)(x, ex.contrast(encoder, view))
    f = ex.similarity(encoder, view)
    assert found.perturbed.x.equal(x_adv) and found.clean.x.equal(x)
    torch.testing.assert_close(found.perturbed.channels, ex.attribute(encoder, x_adv, f, "saliency").channels)
    torch.testing.assert_close(found.clean.value, f(x).detach())
    assert found.scale(1) == pytest.approx(
        float(torch.stack([found.clean.maps[1], found.perturbed.maps[1]]).abs().max())
    )
    assert all(c.ok for c in found.checks), found.checks
    table = found.table
    assert len(table) == 12 and table.to_clean[:4].tolist() == [1] * 4
    np.testing.assert_allclose(table.to_clean[4:8], rank_correlation(found.clean.maps, found.perturbed.maps))
    again = Seen.load(found.save(tmp_path / "seen"))
    assert again.table.equals(table)
    assert again.checks == found.checks and again.provenance == found.provenance and again.reference.equal(view)
    single = Attribution.load(found.clean.save(tmp_path / "one"))
    assert single.channels.equal(found.clean.channels) and single.delta is None and single.method == "saliency"


def test_the_probes_adversary_is_the_probes(encoder, x):
    y = torch.tensor([0, 1, 2, 3])
    study = AttributionStudy(encoder, x, target="logit", head=head, labels=y)
    assert study.adversary(4).equal(ex.Attack.fgsm(4 / 255)(x, ex.classify(encoder, head, y)))
    found = study.look(4, "saliency", rows=[1])
    assert len(found.index) == 1 and float(found.perturbed.value[0]) < float(found.clean.value[0])


def test_randomised_weights_destroy_the_map_of_a_trained_encoder():
    net, x, view, _ = demo()
    was = condition(net)
    found = what_it_sees(net, x, 0.0, reference=view, method="saliency")
    same(was, condition(net))
    assert float(found.correlation.min()) == pytest.approx(1)  # at eps = 0
    assert float(found.sanity.abs().max()) < 0.15
    assert next(c for c in found.checks if c.name.startswith("randomised")).ok
    steps = cascade(net, x, lambda n: ex.similarity(n, view), "saliency")
    assert steps.signed.iloc[0] == 1 and steps.signed.iloc[-1] < 0.1 and steps.weights.is_monotonic_increasing
    assert steps.weights.iloc[-1] == sum(p.numel() for p in net.parameters())
    copy = randomised(net, 0)
    for (name, a), b in zip(net.named_parameters(), copy.parameters(), strict=True):
        assert a.flatten().sort().values.equal(b.flatten().sort().values), name
    assert not copy.trunk.conv1.weight.equal(net.trunk.conv1.weight)
    assert copy.trunk.conv1.weight.equal(randomised(net, 0).trunk.conv1.weight)
    assert not copy.trunk.conv1.weight.equal(randomised(net, 1).trunk.conv1.weight)


class Pixels(nn.Module):
    """Features without a weight: what it 'sees' cannot have been learnt."""

    def forward(self, x):
        return x.flatten(1)


def test_a_map_that_no_weight_shapes_fails_the_sanity_check(x, view):
    found = what_it_sees(Pixels(), x, 2 / 255, reference=view, method="saliency")
    check = next(c for c in found.checks if c.name.startswith("randomised"))
    assert not check.ok and "survives" in check.detail and float(found.sanity.min()) == pytest.approx(1)


def test_the_figure_shows_the_pictures_and_one_scale(encoder, x, view):
    found = what_it_sees(encoder, x, 8 / 255, reference=view)
    figure = ex.figures.seen(found, 2)
    clean, first, moved, second = figure.data
    assert np.array_equal(clean.z, to_pixels(found.clean.x)[2]) and np.array_equal(
        moved.z, to_pixels(found.perturbed.x)[2]
    )
    np.testing.assert_array_equal(first.z, found.clean.maps[2])
    assert first.zmax == second.zmax == -first.zmin == pytest.approx(found.scale(2)) and first.zmid == 0
    assert (
        first.colorscale[0][1] == ex.figures.COLOURS["clean"] and first.colorscale[-1][1] == ex.figures.COLOURS["adv"]
    )
    wide = (figure.layout.xaxis2.domain[1] - figure.layout.xaxis2.domain[0]) * figure.layout.width
    assert wide == pytest.approx(192) and figure.layout.yaxis2.range[0] == 31.5
    text = " ".join(a.text for a in figure.layout.annotations)
    assert (
        "completeness delta" in text
        and "randomised weights" in text
        and f"{100 * float(found.clean.error[2]):.2f} %" in text
    )
