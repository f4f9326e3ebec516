"""Batched views against torchvision's functional operations, image by image."""

import pytest
import torch
import torchvision.transforms.functional as TF

from explore import UserError, Views, seeded, two_views


def by_torchvision(x, params, i, size):
    """View i of the batch from the same draws, with torchvision's own operations."""
    h, w = x.shape[-2:]
    top, left, height, width = params.box[i].tolist()
    rows, columns = max(1, round(height * h)), max(1, round(width * w))
    t, l = min(round(top * h), h - rows), min(round(left * w), w - columns)
    one = TF.resized_crop(x[i : i + 1], t, l, rows, columns, [size, size], antialias=False)
    if params.flip[i]:
        one = TF.hflip(one)
    if params.jitter[i]:
        ops = (TF.adjust_brightness, TF.adjust_contrast, TF.adjust_saturation, TF.adjust_hue)
        for op in params.order[i].tolist():
            one = ops[op](one, float(params.factors[i, op]))
    return TF.rgb_to_grayscale(one, 3)[0] if params.gray[i] else one[0]


@pytest.mark.parametrize(("side", "size"), [(32, 32), (48, 32), (28, 40)])
def test_each_view_is_torchvisions(generator, side, size):
    x = torch.rand(60, 3, side, side, generator=generator)
    views = Views(size=size)
    params = views.sample(60, seeded(7))
    ours = views.apply(x, params)
    assert ours.shape == (60, 3, size, size)
    for i in range(60):
        torch.testing.assert_close(ours[i], by_torchvision(x, params, i, size), atol=2e-5, rtol=0)


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


def test_crops_have_the_area_and_ratio_that_was_asked_for():
    box = Views(scale=(0.2, 0.9)).sample(20000, seeded(0)).box.double()
    top, left, height, width = box.unbind(1)
    area, ratio = height * width, width / height
    assert 0.2 - 1e-6 <= area.min() < 0.21 and 0.89 < area.max() <= 0.9 + 1e-6
    assert float(area.mean()) == pytest.approx(0.55, abs=0.01)
    assert ratio.min() >= 3 / 4 - 1e-6 and ratio.max() <= 4 / 3 + 1e-6
    assert (top >= 0).all() and (top + height <= 1 + 1e-6).all() and (left + width <= 1 + 1e-6).all()


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
    with pytest.raises(UserError, match="sample as many"):
        Views().apply(torch.rand(4, 3, 32, 32), Views().sample(3, generator))
