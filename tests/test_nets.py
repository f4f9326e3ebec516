"""Encoders: two batch norms, torchvision's weights, widths, and files on disk."""

import errno
import os
import threading

import pytest
import safetensors.torch
import torch
import torchvision

from explore import DualBatchNorm2d, Encoder, UserError, untouched
from explore.convolutions import Conv2d
from explore.serialization import load_into, load_tensors, replacing, save_tensors

DTYPES = (
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16),
    *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool),
)


def test_the_branches_have_statistics_of_their_own(encoder):
    x = torch.rand(8, 3, 32, 32)
    encoder.train()
    clean, adv = encoder.trunk.bn1.running_mean.clone(), encoder.trunk.bn1.adv.running_mean.clone()
    encoder(x, branch="adv")
    assert torch.equal(encoder.trunk.bn1.running_mean, clean) and not torch.equal(
        encoder.trunk.bn1.adv.running_mean, adv
    )
    encoder.eval()
    assert not torch.equal(encoder(x), encoder(x, branch="adv"))


def test_the_branch_goes_back_to_clean_when_a_pass_raises(encoder):
    with pytest.raises(RuntimeError):
        encoder(torch.rand(2, 3, 32, 32).double(), branch="adv")
    assert {m.use.branch for m in encoder.modules() if isinstance(m, DualBatchNorm2d)} == {"clean"}


@pytest.mark.parametrize("arch", ["resnet18", "resnet34", "resnet50", "resnet101"])
def test_torchvisions_weights_fit_and_give_torchvisions_features(arch):
    theirs = getattr(torchvision.models, arch)(weights=None).double().eval()
    theirs.fc = torch.nn.Identity()
    ours = Encoder(arch, stem="imagenet", mean=(0, 0, 0), std=(1, 1, 1)).double().eval()
    missing = ours.trunk.load_state_dict(theirs.state_dict(), strict=False)
    assert not missing.unexpected_keys and all(".adv." in key for key in missing.missing_keys)
    x = torch.rand(2, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(ours.features(x), theirs(x), rtol=1e-10, atol=1e-10)


def test_every_convolution_of_an_encoder_is_ours_under_torchvisions_names(encoder):
    convolutions = [part for part in encoder.modules() if isinstance(part, torch.nn.Conv2d)]
    assert len(convolutions) == 12 and all(type(part) is Conv2d for part in convolutions)
    assert "trunk.layer4.0.downsample.0.weight" in encoder.state_dict()


@pytest.mark.parametrize("stem", ["cifar", "small", "imagenet"])
@pytest.mark.parametrize(("arch", "width", "dim"), [("resnet18", 16, 128), ("resnet10", 8, 64), ("resnet50", 8, 256)])
def test_widths_and_stems(arch, width, dim, stem):
    net = Encoder(arch, width=width, stem=stem, proj_dim=24).eval()
    x = torch.rand(3, 3, 32, 32)
    assert net.features(x).shape == (3, dim) and net.feature_dim == dim
    assert net(x).norm(dim=1).tolist() == pytest.approx([1, 1, 1], abs=1e-5)


def test_normalisation_is_inside():
    net = Encoder("resnet10", width=8, mean=(0.2, 0.3, 0.4), std=(0.1, 0.2, 0.3)).eval()
    plain = Encoder("resnet10", width=8, mean=(0, 0, 0), std=(1, 1, 1)).eval()
    plain.load_state_dict({k: v for k, v in net.state_dict().items() if k not in ("mean", "std")}, strict=False)
    x = torch.rand(2, 3, 32, 32)
    shifted = (x - torch.tensor([0.2, 0.3, 0.4]).view(1, 3, 1, 1)) / torch.tensor([0.1, 0.2, 0.3]).view(1, 3, 1, 1)
    torch.testing.assert_close(net(x), plain(shifted))


def test_shared_batch_norm_as_the_ablation():
    net = Encoder("resnet10", width=8, dual_bn=False).eval()
    x = torch.rand(2, 3, 32, 32)
    assert torch.equal(net(x), net(x, branch="adv"))


def test_untouched_puts_everything_back(encoder):
    before = {k: v.clone() for k, v in encoder.state_dict().items()}
    with pytest.raises(RuntimeError), untouched(encoder):
        encoder.train()(torch.rand(4, 3, 32, 32))
        raise RuntimeError
    assert not encoder.training and all(torch.equal(v, before[k]) for k, v in encoder.state_dict().items())


def test_files_are_safetensors_both_ways(tmp_path, encoder):
    ours, theirs = tmp_path / "ours.safetensors", tmp_path / "theirs.safetensors"
    tensors = {**encoder.state_dict(), "scalar": torch.tensor(3.5), "none": torch.empty(0, 2)}
    tensors |= {f"type{i}": torch.ones(2, 3).to(d) for i, d in enumerate(DTYPES)}
    save_tensors(ours, tensors, {"note": "ε = 8/255"})
    back = safetensors.torch.load_file(ours)
    assert back.keys() == tensors.keys() and all(torch.equal(back[k], v) for k, v in tensors.items())
    safetensors.torch.save_file({k: v.clone() for k, v in tensors.items()}, theirs, {"a": "b"})
    back, meta = load_tensors(theirs)
    assert meta == {"a": "b"} and all(torch.equal(back[k], v) and back[k].dtype == v.dtype for k, v in tensors.items())


def test_a_full_disk_leaves_the_old_file(tmp_path, encoder, monkeypatch):
    path = tmp_path / "encoder.safetensors"
    save_tensors(path, encoder.state_dict())
    old = path.read_bytes()

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="is full"):
        save_tensors(path, {"a": torch.ones(3)})
    assert path.read_bytes() == old and [p.name for p in tmp_path.iterdir()] == [path.name]
    with pytest.raises(KeyError), replacing(path):
        raise KeyError
    assert path.read_bytes() == old


def test_corrupt_and_foreign_files_in_one_sentence(tmp_path, encoder):
    path = tmp_path / "encoder.safetensors"
    with pytest.raises(UserError, match="There is no file"):
        load_into(encoder, path)
    save_tensors(path, encoder.state_dict())
    whole = path.read_bytes()
    for cut in (whole[:4], whole[:50], whole[:-10], b"\x80\x04 a pickle" * 9, b""):
        path.write_bytes(cut)
        with pytest.raises(UserError, match="not a complete safetensors file"):
            load_into(encoder, path)
    save_tensors(path, Encoder("resnet10", width=16).state_dict())
    with pytest.raises(UserError, match="another network"):
        load_into(encoder, path)


def test_bad_input_in_one_sentence(encoder):
    with pytest.raises(UserError, match="Did you mean resnet18"):
        Encoder("resnet-18x")
    with pytest.raises(UserError, match="stem must be"):
        Encoder(stem="cifr")
    with pytest.raises(UserError, match="repeat a gray channel"):
        encoder(torch.rand(2, 1, 32, 32))
    with pytest.raises(UserError, match="width"):
        Encoder(width=0)


def test_a_second_thread_waits_for_the_encoder_and_finds_it_as_it_was():
    encoder, x, found = Encoder("resnet10", width=4, stem="small", proj_dim=8), torch.rand(4, 3, 16, 16), []
    encoder.trunk.bn1.adv.running_mean += 1
    clean, before = encoder.eval().features(x), [b.clone() for b in encoder.buffers()]
    encoder.train()

    def look():
        with untouched(encoder):
            found.append(encoder.eval().features(x))

    for inside in (untouched(encoder), encoder._using("adv", 1)):
        with inside:
            if not found:
                encoder(torch.rand(8, 3, 16, 16))  # moves the statistics
            other = threading.Thread(target=look)
            other.start()
            other.join(0.1)
            assert other.is_alive()
        other.join(60)
    near = {"rtol": 1e-4, "atol": 1e-4}  # another thread may compute with another number of threads
    assert len(found) == 2 and all(torch.allclose(h, clean, **near) for h in found) and encoder.training
    assert not torch.allclose(encoder.eval().features(x, branch="adv"), clean, atol=0.01)
    assert all(torch.equal(now, then) for now, then in zip(encoder.buffers(), before, strict=True))
