"""Convolutions that are computed otherwise on a CPU, against torch's own."""

import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F

from explore import Encoder
from explore.convolutions import Conv2d, tiles, weights_fixed
from explore.convolutions.products import Conv3x3, EveryOther, On2x2
from explore.convolutions.tiles import ByTiles, _by_place


def test_convolutions_that_an_opened_run_imports_first_are_torchs():
    """`Run.encoder` checks a run's sizes on torch's meta device; what was imported there computed with tensors without data."""
    code = """if True:
        import sys
        import torch
        import explore as ex
        assert "explore.convolutions" not in sys.modules
        encoder = ex.open_run("demo/clae").encoder()
        mapped = [f"{module.__name__}.{name}" for module in list(sys.modules.values()) if module.__name__.startswith("explore")
                  for name, value in vars(module).items() if isinstance(value, torch.Tensor) and value.device.type != "cpu"]
        assert not mapped, mapped
        x = torch.rand(128, 3, 32, 32, generator=ex.seeded(0))
        ours = encoder.features(x)
        encoder.trunk.apply(lambda part: isinstance(part, torch.nn.Conv2d) and setattr(part, "__class__", torch.nn.Conv2d))
        torch.testing.assert_close(ours, encoder.features(x), rtol=1e-3, atol=1e-3)
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("kernel", "stride", "side", "n", "otherwise"),
    [
        (1, 2, 8, 3, True),
        (1, 2, 7, 3, True),
        (3, 1, 2, 6, True),
        (3, 1, 2, 4, False),
        (3, 1, 3, 6, False),
        (3, 2, 4, 6, False),
    ],
)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_shapes_computed_otherwise_are_torchs_convolution(kernel, stride, side, n, otherwise, layout, monkeypatch):
    """Values, gradients and the gradients' layout in float64; `otherwise`: whether torch's own kernel for that shape is left out."""
    ours = Conv2d(5, 7, kernel, stride=stride, padding=kernel // 2, bias=False).double()
    x = torch.randn(n, 5, side, side, dtype=torch.float64).to(memory_format=layout).requires_grad_()
    plain = torch.nn.functional.conv2d(x, ours.weight, stride=stride, padding=kernel // 2)
    g = torch.randn_like(plain)
    expected = torch.autograd.grad(plain, (x, ours.weight), g)
    monkeypatch.setattr(torch.nn.Conv2d, "forward", lambda *_: torch.zeros(0))
    y = ours(x)
    assert bool(y.numel()) == otherwise
    if otherwise:
        found = torch.autograd.grad(y, (x, ours.weight), g)
        for a, b in zip((y, *found), (plain, *expected), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)
        assert layout != torch.channels_last or found[0].is_contiguous(memory_format=layout)


@pytest.mark.parametrize(
    ("channels", "stride", "side"),
    [
        (5, 2, 8),
        (5, 2, 7),
        (20, 2, 8),
        (5, 1, 4),
        (5, 1, 5),
        (5, 2, 20),
        (20, 2, 18),
        (256, 2, 8),
        (256, 2, 7),
        (64, 2, 4),
        (64, 2, 3),
        (40, 2, 2),
    ],
)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_gradients_taken_otherwise_are_torchs(channels, stride, side, layout):
    """Every route of values and both gradients in float64, once and twice, each gradient asked for alone as well."""
    x = torch.randn(2, channels, side, side, dtype=torch.float64).to(memory_format=layout).requires_grad_()
    w = torch.randn(7, channels, 3, 3, dtype=torch.float64).to(memory_format=layout).requires_grad_()
    compare(lambda: Conv3x3.apply(x, w, stride), lambda: F.conv2d(x, w, stride=stride, padding=1), x, w)


@pytest.mark.parametrize(
    ("n", "channels", "out", "height", "width"), [(3, 5, 7, 4, 4), (2, 6, 6, 8, 6), (1, 3, 4, 2, 2)]
)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_by_tiles_it_is_torchs_convolution(n, channels, out, height, width, layout):
    x = torch.randn(n, channels, height, width, dtype=torch.float64).to(memory_format=layout).requires_grad_()
    w = torch.randn(out, channels, 3, 3, dtype=torch.float64).to(memory_format=layout).requires_grad_()
    compare(lambda: ByTiles.apply(x, w), lambda: F.conv2d(x, w, padding=1), x, w)


@pytest.mark.parametrize("sides", [(8, 8), (7, 6), (1, 2)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_on_every_other_pixel_it_is_torchs_convolution(sides, layout):
    x = torch.randn(3, 5, *sides, dtype=torch.float64).to(memory_format=layout).requires_grad_()
    w = torch.randn(7, 5, 1, 1, dtype=torch.float64, requires_grad=True)
    compare(lambda: EveryOther.apply(x, w), lambda: F.conv2d(x, w, stride=2), x, w)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_between_four_pixels_it_is_torchs_convolution(layout):
    x = torch.randn(3, 5, 2, 2, dtype=torch.float64).to(memory_format=layout).requires_grad_()
    w = torch.randn(7, 5, 3, 3, dtype=torch.float64).to(memory_format=layout).requires_grad_()
    compare(lambda: On2x2.apply(x, w), lambda: F.conv2d(x, w, padding=1), x, w)


def compare(ours, plain, x, w):
    """Values; both gradients together and each alone, as training takes them and to be taken again; second gradients."""
    y, expected = ours(), plain()
    torch.testing.assert_close(y, expected, rtol=1e-10, atol=1e-10)
    g = torch.randn_like(expected)
    for asked in ((x, w), (x,), (w,)):
        for again in (False, True):
            first = [torch.autograd.grad(call(), asked, g, create_graph=again) for call in (ours, plain)]
            for a, b in zip(*first, strict=True):
                torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)
        if len(asked) == 2:
            twice = [torch.autograd.grad(sum(v.square().sum() for v in grads), asked) for grads in first]
            for a, b in zip(*twice, strict=True):
                torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-8)
    with weights_fixed():
        assert torch.equal(ours(), y) and torch.equal(ours(), y)


@pytest.mark.parametrize(
    ("channels", "side", "n", "by_tiles"),
    [
        (256, 8, 8, True),
        (256, 4, 32, True),
        (256, 2, 128, True),
        (256, 4, 31, False),
        (255, 4, 32, False),
        (256, 10, 8, False),
        (256, 7, 16, False),
    ],
)
def test_wide_convolutions_go_by_tiles_in_bfloat16(channels, side, n, by_tiles, monkeypatch):
    """Near the exact convolution of the same bfloat16 values: its own rounding is 0.2 %, tiles round three times more."""
    taken, apply = [], ByTiles.apply
    monkeypatch.setattr(ByTiles, "apply", lambda *args: taken.append(args) or apply(*args))
    conv = Conv2d(channels, channels, 3, padding=1, bias=False)
    x = torch.randn(n, channels, side, side).bfloat16().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = conv(x)
    g = torch.randn_like(y)
    found = [y, *torch.autograd.grad(y, (x, conv.weight), g)]
    w = conv.weight.detach().bfloat16().float().requires_grad_()
    at = x.detach().float().requires_grad_()
    exact = F.conv2d(at, w, padding=1)
    expected = [exact, *torch.autograd.grad(exact, (at, w), g.float())]
    assert bool(taken) == by_tiles
    for a, b in zip(found, expected, strict=True):
        assert (a.float() - b).norm() / b.norm() < (0.008 if by_tiles else 0.003)


def test_within_a_step_weights_are_cast_and_transformed_once(monkeypatch):
    made = []
    monkeypatch.setattr(tiles, "_by_place", lambda w, dtype: made.append(w) or _by_place(w, dtype))
    conv, x = Conv2d(256, 256, 3, padding=1, bias=False).bfloat16(), torch.randn(32, 256, 4, 4).bfloat16()
    with weights_fixed():
        one, two = conv(x), conv(x)
    assert len(made) == 1 and torch.equal(one, two)
    with torch.no_grad():
        conv.weight.mul_(2)
    with weights_fixed():
        assert torch.equal(conv(x), 2 * one)
    conv(x)
    conv(x)
    assert len(made) == 4


def test_in_bfloat16_an_encoder_takes_them_and_stays_near_float32(monkeypatch):
    taken, net, x = [], Encoder("resnet10", width=16, stem="small").train(), torch.rand(16, 3, 32, 32)
    apply = Conv3x3.apply
    monkeypatch.setattr(Conv3x3, "apply", lambda *args: taken.append(args) or apply(*args))

    def gradients(dtype):
        at = x.clone().requires_grad_()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype is torch.bfloat16):
            loss = net.features(at).float().square().sum()
        return [
            g.flatten()
            for g in torch.autograd.grad(loss, [at, *net.trunk.parameters()], allow_unused=True)
            if g is not None
        ]

    found, expected = gradients(torch.bfloat16), gradients(torch.float32)
    assert len(taken) == 9 and all(x.dtype is torch.bfloat16 for x, _, _ in taken)
    closest = [torch.cosine_similarity(a.float(), b, dim=0).item() for a, b in zip(found, expected, strict=True)]
    assert min(closest) > 0.9
