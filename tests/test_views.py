"""Batched views against torchvision's functional operations, image by image."""

from unittest.mock import Mock

import pytest
import torch
import torchvision.transforms.functional as TF
from scipy.stats import ks_2samp
from torchvision.transforms import RandomResizedCrop

from explore import TrainConfig, UserError, Views, load, seeded, two_views
from explore.datasets import Data
from explore.experiments.grid import same_figure
from explore.training import make_views
from explore.views import two_views_each


def by_torchvision(x, params, i, size, antialias):
    """View i of the batch from the same draws, with torchvision's own operations."""
    h, w = x.shape[-2:]
    top, left, height, width = params.box[i].tolist()
    rows, columns = max(1, round(height * h)), max(1, round(width * w))
    t, l = min(round(top * h), h - rows), min(round(left * w), w - columns)
    one = TF.resized_crop(x[i : i + 1], t, l, rows, columns, [size, size], antialias=antialias)
    if params.flip[i]:
        one = TF.hflip(one)
    if params.jitter[i]:
        ops = (TF.adjust_brightness, TF.adjust_contrast, TF.adjust_saturation, TF.adjust_hue)
        for op in params.order[i].tolist():
            one = ops[op](one, float(params.factors[i, op]))
    return TF.rgb_to_grayscale(one, 3)[0] if params.gray[i] else one[0]


@pytest.mark.parametrize(("height", "width", "size"), [(32, 32, 32), (48, 48, 32), (28, 28, 40), (96, 64, 32)])
@pytest.mark.parametrize("crop", ["torchvision", "fitted"])
def test_each_view_is_torchvisions(generator, height, width, size, crop):
    x = torch.rand(60, 3, height, width, generator=generator)
    views = Views(size=size, crop=crop)
    params = views.sample(60, seeded(7), (height, width))
    ours = views.apply(x, params)
    assert ours.shape == (60, 3, size, size)
    for i in range(60):
        torch.testing.assert_close(
            ours[i], by_torchvision(x, params, i, size, crop == "torchvision"), atol=2e-5, rtol=0
        )


def test_large_batches_go_in_chunks_with_the_same_result(generator):
    x = torch.rand(300, 3, 32, 32, generator=generator)
    params = Views().sample(300, seeded(2))
    whole = Views().apply(x, params)
    parts = [Views().apply(x[i : i + 50], params[i : i + 50]) for i in range(0, 300, 50)]
    torch.testing.assert_close(whole, torch.cat(parts), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    "jitter", [(0.8, 0.8, 0.8, 0.2), (0.8, 0.8, 0.0, 0.0), (0.0, 0.0, 0.0, 0.5), (0.0, 0.0, 0.0, 0.0)]
)
def test_views_and_their_gradient_do_not_depend_on_the_batch(generator, jitter):
    """Images are sorted for the colours' sake and put back: each alone, among them ones that nothing is done to, gives the same."""
    x = torch.rand(40, 3, 32, 32, generator=generator, dtype=torch.float64).requires_grad_()
    views = Views(jitter=jitter)
    params = views.sample(40, seeded(5))
    g = torch.rand(40, 3, 32, 32, generator=generator, dtype=torch.float64)
    whole = views.apply(x, params)
    (expected,) = torch.autograd.grad(whole, x, g)
    alone = torch.cat([views.apply(x[i : i + 1], params[i : i + 1]) for i in range(40)])
    torch.testing.assert_close(whole, alone, rtol=0, atol=1e-12)
    torch.testing.assert_close(torch.autograd.grad(alone, x, g)[0], expected, rtol=0, atol=1e-10)


def test_every_image_has_its_own_draw(generator):
    x = torch.rand(1, 3, 32, 32, generator=generator).expand(64, 3, 32, 32)
    views = Views()(x, seeded(0))
    distance = torch.cdist(views.flatten(1), views.flatten(1)) + torch.eye(64) * 9
    assert distance.min() > 0.1


def test_same_generator_same_views(generator):
    x = torch.rand(8, 3, 32, 32, generator=generator)
    assert torch.equal(Views()(x, seeded(3)), Views()(x, seeded(3)))
    v1, v2 = two_views(Views(), x, seeded(3))
    assert not torch.equal(v1, v2)
    assert torch.equal(v1, Views()(x, seeded(3)))


def boxes(views, source, seed):
    """Drawn crops in pixels of the source, one row each: top, left, height, width."""
    h, w = source
    return (views.sample(20000, seeded(seed), source).box.double() * torch.tensor([h, w, h, w])).round()


def torchvisions_boxes(scale, source, n):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        image = torch.empty(1, *source)
        drawn = [RandomResizedCrop.get_params(image, list(scale), [3 / 4, 4 / 3]) for _ in range(n)]
    return torch.tensor(drawn).double()


def distances(ours, theirs):
    """Kolmogorov and Smirnov's distance in area, aspect, top and left."""
    quantities = (lambda b: b[:, 2] * b[:, 3], lambda b: b[:, 3] / b[:, 2], lambda b: b[:, 0], lambda b: b[:, 1])
    return [float(ks_2samp(f(ours), f(theirs)).statistic) for f in quantities]


@pytest.mark.parametrize(
    ("scale", "source", "area"),
    [
        ((0.08, 1.0), (32, 32), 0.488),
        ((0.2, 1.0), (32, 32), 0.550),
        ((0.5, 1.0), (32, 32), 0.703),
        ((0.08, 1.0), (96, 64), 0.394),
    ],
)
def test_crops_are_drawn_as_torchvision_draws_them(scale, source, area):
    """Of 20,000 against 20,000 draws; two samples of one distribution stay below 0.0195 in 999 of 1,000 cases."""
    theirs = torchvisions_boxes(scale, source, 20000)
    ours, fitted = (boxes(Views(scale=scale, crop=crop), source, 1) for crop in ("torchvision", "fitted"))
    assert max(distances(ours, theirs)) < 0.0195
    assert distances(fitted, theirs)[0] > 0.1  # the former recipe, for comparison
    share = ours[:, 2] * ours[:, 3] / (source[0] * source[1])
    assert float(share.mean()) == pytest.approx(area, abs=0.005)
    assert (ours[:, 0] + ours[:, 2]).max() <= source[0] and (ours[:, 1] + ours[:, 3]).max() <= source[1]


@pytest.mark.parametrize("source", [(8, 100), (100, 8), (7, 33)])
def test_where_no_shape_fits_the_crop_is_torchvisions_central_one(source):
    theirs = torchvisions_boxes((1.0, 1.0), source, 1)
    assert torch.equal(boxes(Views(scale=(1.0, 1.0)), source, 0), theirs.expand(20000, 4))


def test_former_crops_have_the_area_and_ratio_that_was_asked_for():
    box = Views(scale=(0.2, 0.9), crop="fitted").sample(20000, seeded(0)).box.double()
    top, left, height, width = box.unbind(1)
    area, ratio = height * width, width / height
    assert 0.2 - 1e-6 <= area.min() < 0.21 and 0.89 < area.max() <= 0.9 + 1e-6
    assert float(area.mean()) == pytest.approx(0.55, abs=0.01)
    assert ratio.min() >= 3 / 4 - 1e-6 and ratio.max() <= 4 / 3 + 1e-6
    assert (top >= 0).all() and (top + height <= 1 + 1e-6).all() and (left + width <= 1 + 1e-6).all()


def test_the_former_recipe_draws_what_it_drew():
    """Values of the version that trained the shipped encoders; tolerances are for other CPUs' exp and sqrt."""
    views = Views(crop="fitted")
    p = views.sample(3, seeded(11))
    box = [[0.524603, 0.090236, 0.467766, 0.464161], [0.321669, 0.216782, 0.580685, 0.568530]]
    box += [[0.004084, 0.061743, 0.990535, 0.860454]]
    factors = [[1.134309, 1.309759, 1.132936, -0.148625], [0.364004, 1.415995, 1.485667, 0.106119]]
    factors += [[0.619478, 1.208113, 1.604012, -0.134951]]
    torch.testing.assert_close(p.box, torch.tensor(box), atol=2e-6, rtol=0)
    torch.testing.assert_close(p.factors, torch.tensor(factors), atol=2e-6, rtol=0)
    assert p.order.tolist() == [[1, 2, 3, 0], [3, 0, 2, 1], [0, 3, 1, 2]]
    assert (p.flip.tolist(), p.jitter.tolist()) == ([False, False, True], [False, True, True])
    many = Views(crop="fitted", scale=(0.2, 1.0)).sample(1000, seeded(12))
    assert many.box.sum(0).tolist() == pytest.approx([118.9348, 117.3849, 758.9958, 760.4106], abs=1e-2)
    assert [int(v.sum()) for v in (many.flip, many.jitter, many.gray)] == [463, 811, 199]
    v1, v2 = two_views(views, torch.rand(6, 3, 48, 40, generator=seeded(1)), seeded(2))
    means = [0.644918, 0.664248, 0.510249, 0.369265, 0.720387, 0.733850]
    assert v1.mean((1, 2, 3)).tolist() == pytest.approx(means, abs=1e-4)
    assert v2.mean((1, 2, 3)).tolist()[:3] == pytest.approx([0.351208, 0.488204, 0.728983], abs=1e-4)


def test_a_config_without_the_setting_draws_the_former_crops():
    data = load("fashion")
    former = {k: v for k, v in TrainConfig().to_dict().items() if k not in ("crop", "gray_p", "blur_p")}
    assert TrainConfig.from_dict(former) == TrainConfig(crop="fitted")
    assert same_figure(former, TrainConfig(crop="fitted")) and not same_figure(former, TrainConfig())
    views, new = make_views(TrainConfig.from_dict(former), data), make_views(TrainConfig(), data)
    assert (views.crop, new.crop, new.blur_p) == ("fitted", "torchvision", 0)


@pytest.mark.parametrize("size", [64, 96])
def test_the_blur_is_torchvisions(generator, size):
    x = torch.rand(12, 3, size, size, generator=generator)
    plain = Views(size=size)
    views = Views(size=size, blur_p=0.5)
    params = views.sample(12, seeded(3))
    kernel, blurred = 2 * (size // 20) + 1, params.blur > 0
    assert 0 < blurred.sum() < 12 and params.blur[blurred].min() >= 0.1 and params.blur.max() <= 2
    before, after = plain.apply(x, params), views.apply(x, params)
    assert torch.equal(plain(x, seeded(3)), before)  # drawn last: the rest stays as it is without blur
    for i, sigma in enumerate(params.blur.tolist()):
        expected = TF.gaussian_blur(before[i], [kernel, kernel], [sigma, sigma]) if sigma else before[i]
        torch.testing.assert_close(after[i], expected, atol=2e-6, rtol=0)


def test_blurred_views_pass_gradient_and_their_share_is_blur_p():
    views = Views(size=40, blur_p=0.5, jitter=(0.0, 0.0, 0.0, 0.0), scale=(0.9, 1.0))
    x = torch.rand(3, 3, 40, 40, generator=seeded(0), dtype=torch.float64).requires_grad_()
    params = views.sample(3, seeded(5))
    assert 0 < int((params.blur > 0).sum()) < 3
    assert torch.autograd.gradcheck(lambda x: views.apply(x, params).mean((2, 3)), x, fast_mode=True)
    sigma = views.sample(20000, seeded(0)).blur
    assert float((sigma > 0).double().mean()) == pytest.approx(0.5, abs=0.02)
    assert float(sigma[sigma > 0].mean()) == pytest.approx(1.05, abs=0.02)


def test_a_config_blurs_images_above_32_pixels():
    """SimCLR's rule, for the new crops; what is given holds at every size."""

    def at(size):
        return Mock(spec=Data, size=size, gray=False)

    for size, expected in ((28, 0), (32, 0), (33, 0.5), (96, 0.5)):
        assert make_views(TrainConfig(), at(size)).blur_p == expected
        assert make_views(TrainConfig(crop="fitted"), at(size)).blur_p == 0
        assert make_views(TrainConfig(blur_p=0.3, gray_p=0.1), at(size)).blur_p == 0.3
    assert make_views(TrainConfig(gray_p=0.1), at(32)).gray_p == 0.1


def test_shares_of_flip_jitter_and_gray():
    p = Views().sample(20000, seeded(1))
    shares = [float(v.float().mean()) for v in (p.flip, p.jitter, p.gray)]
    assert shares == pytest.approx([0.5, 0.8, 0.2], abs=0.02)
    assert sorted(set(map(tuple, p.order.tolist())))[0] == (0, 1, 2, 3) and len(set(map(tuple, p.order.tolist()))) == 24


def test_gray_images_stay_gray_and_skip_what_cannot_change_them(generator):
    x = torch.rand(32, 1, 32, 32, generator=generator).expand(32, 3, 32, 32)
    views = Views().for_gray()(x, seeded(0))
    torch.testing.assert_close(views, views[:, :1].expand_as(views), atol=1e-6, rtol=0)


def test_views_stay_in_range_and_pass_gradient(generator):
    x = torch.rand(16, 3, 32, 32, generator=generator).requires_grad_()
    views = Views()(x, seeded(0))
    assert views.min() >= 0 and views.max() <= 1 + 1e-6
    views.sum().backward()
    assert torch.isfinite(x.grad).all() and x.grad.abs().sum() > 0


def test_bad_input_in_one_sentence(generator):
    with pytest.raises(UserError, match="range of area shares"):
        Views(scale=(0.0, 1.0))
    with pytest.raises(UserError, match="hue strength"):
        Views(jitter=(0.8, 0.8, 0.8, 0.8))
    with pytest.raises(UserError, match="crop is one of torchvision, fitted"):
        Views(crop="pil")
    with pytest.raises(UserError, match="share of views that are blurred"):
        Views(blur_p=2)
    with pytest.raises(UserError, match="blur_p is a share"):
        TrainConfig(blur_p=-0.1)
    with pytest.raises(UserError, match="sample as many"):
        Views().apply(torch.rand(4, 3, 32, 32), Views().sample(3, generator))


def test_several_batches_in_one_call_have_their_own_draws():
    views, batches = Views(), [torch.rand(n, 3, 32, 32, generator=seeded(n)) for n in (5, 8)]
    together = two_views_each(views, batches, [seeded(1), seeded(2)])
    for x, seed, (v1, v2) in zip(batches, (1, 2), together, strict=True):
        one, two = two_views(views, x, seeded(seed))
        torch.testing.assert_close(v1, one, rtol=0, atol=1e-6)
        torch.testing.assert_close(v2, two, rtol=0, atol=1e-6)
