"""Encoders from elsewhere: checkpoints by their layout, networks that return anything, and back out again."""

import json
import sys
import types
import zipfile
from pathlib import Path

import pytest
import torch
import torchvision
from torch import nn

import explore as ex
from explore import checkpoints
from explore.nets import ARCHS, Encoder
from explore.serialization import load_tensors, save_tensors

X = torch.rand(2, 3, 32, 32, generator=ex.seeded(0))
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


@pytest.fixture(scope="module")
def network():
    """A narrow ResNet under torchvision's names, with statistics that are not the defaults."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = Encoder("resnet10", width=4, stem="imagenet", dual_bn=False, **IMAGENET)
        net.train()(torch.rand(8, 3, 32, 32))
    return net.eval()


@pytest.fixture(scope="module")
def weights(network):
    return network.trunk.state_dict()


def under(prefix, weights):
    return {prefix + name: tensor for name, tensor in weights.items()}


def other(weights):
    """Another network of the same shapes."""
    return {name: tensor + 1 for name, tensor in weights.items()}


def numbered(weights, at):
    first = {"conv1": "0", "bn1": "1"} | {f"layer{i}": str(i + at) for i in range(1, 5)}
    return {f"{first[n.partition('.')[0]]}.{n.partition('.')[2]}": t for n, t in weights.items()}


HEAD = {"projector.0.weight": torch.zeros(3, 3), "fc.weight": torch.zeros(9, 32), "fc.0.bias": torch.zeros(9)}
LAYOUTS = {  # file, what it holds, under what the encoder's names stand
    "plain.pth": (lambda w: {**w, **HEAD}, ""),
    "ddp.pth": (lambda w: {"state_dict": under("module.backbone.", w), "epoch": 3}, "state_dict.module.backbone."),
    "compiled.pt": (lambda w: under("_orig_mod.", w), "_orig_mod."),
    "moco.pth.tar": (
        lambda w: {
            "state_dict": {
                **under("module.encoder_k.", other(w)),
                **under("module.encoder_q.", {**w, **HEAD}),
                "module.queue": torch.zeros(8, 16),
            }
        },
        "state_dict.module.encoder_q.",
    ),
    "lesson17.ckpt": (
        lambda w: {
            "state_dict": under("convnet.", {**w, "fc.0.weight": torch.zeros(4, 4)}),
            "hyper_parameters": {"lr": 0.1},
            "optimizer_states": [{"state": {}}],
        },
        "state_dict.convnet.",
    ),
    "lightly.ckpt": (
        lambda w: {
            "state_dict": {**under("backbone.", w), "projection_head.layers.0.weight": torch.zeros(2, 2), **HEAD}
        },
        "state_dict.backbone.",
    ),
    "lightly-numbered.ckpt": (lambda w: {"state_dict": under("backbone.", numbered(w, 3))}, "state_dict.backbone."),
    "without-max-pool.pth": (lambda w: {**under("f.", numbered(w, 2)), "g.0.weight": torch.zeros(2, 2)}, "f."),
    "solo.ckpt": (
        lambda w: {
            "state_dict": {
                **under("momentum_backbone.", other(w)),
                **under("backbone.", w),
                "classifier.weight": torch.zeros(2, 2),
            }
        },
        "state_dict.backbone.",
    ),
    "dino.pth": (
        lambda w: {"student": under("module.backbone.", other(w)), "teacher": under("backbone.", w)},
        "teacher.backbone.",
    ),
    "model.bin": (lambda w: {"state_dict": under("model.", w)}, "state_dict.model."),
    "two.torch": (lambda w: {**under("encoder.", w), **under("target_encoder.", other(w))}, "encoder."),
    "deep.pth": (lambda w: {"a": {"b": {"c": under("what_nobody_knows.", w)}}}, "a.b.c.what_nobody_knows."),
    "old.pth": (lambda w: {n: t for n, t in w.items() if "num_batches" not in n}, ""),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_checkpoint_of_every_layout_is_the_same_encoder(name, network, weights, tmp_path):
    holds, prefix = LAYOUTS[name]
    torch.save(holds(weights), tmp_path / name)
    with pytest.warns(UserWarning, match="does not say how its images were normalised, so ImageNet's"):
        encoder, about = ex.open_encoder(tmp_path / name)
    assert torch.equal(encoder.features(X), network.features(X))
    assert about["weights"].startswith(f"under '{prefix}'" if prefix else "at the top")
    assert about["arch"] == "resnet10" and about["size"] == 224 and "assumed: ImageNet's" in about["normalisation"]
    assert ("not those under" in about["weights"]) == (name in ("moco.pth.tar", "solo.ckpt", "dino.pth", "two.torch"))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda w: {n: t for n, t in w.items() if n != "layer3.0.bn1.weight"},
        lambda w: {**w, "layer3.1.bn1.weight": torch.zeros(4)},
        lambda w: {**w, "layer4.0.conv2.weight": torch.zeros(3, 3, 3, 3)},
        lambda w: {},
        lambda w: {"conv1.weight": torch.zeros(4, 3, 7, 7)},
        lambda w: under("a", w),
    ],
)
def test_weights_left_over_or_missing_are_never_an_encoder(spoil, weights, tmp_path):
    torch.save(spoil(weights), tmp_path / "x.pth")
    with pytest.raises(ex.UserError, match="does not hold a ResNet's weights"):
        ex.open_encoder(tmp_path / "x.pth")


def test_normalisation_is_given_or_found(network, weights, tmp_path, recwarn):
    save_tensors(tmp_path / "x.safetensors", weights)
    encoder, about = ex.open_encoder(tmp_path / "x.safetensors", **IMAGENET, size=48)
    assert torch.equal(encoder.features(X), network.features(X)) and about["size"] == 48
    assert "(given)" in about["normalisation"] and not recwarn.list
    with pytest.raises(ex.UserError, match="given together"):
        ex.open_encoder(tmp_path / "x.safetensors", mean=(0.5,) * 3)


def test_a_checkpoint_of_ones_own_network(tmp_path):
    def made():
        return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())

    trained = made().eval()
    torch.save({"state_dict": under("net.", trained.state_dict())}, tmp_path / "x.ckpt")
    empty = made().eval()
    encoder, about = ex.open_encoder(tmp_path / "x.ckpt", network=empty)
    assert torch.equal(encoder.features(X), trained(X).mean((2, 3))) and about["dim"] == 4
    assert not torch.equal(empty[0].weight, trained[0].weight)  # the one that was given is left as it was
    with pytest.raises(ex.UserError, match="does not hold this Sequential's weights"):
        ex.open_encoder(tmp_path / "x.ckpt", network=nn.Sequential(nn.Conv2d(3, 5, 3)))


class Returns(nn.Module):
    """A network whose output is what `shape` makes of its maps (n, 4, 30, 30)."""

    def __init__(self, shape):
        super().__init__()
        self.conv, self.shape = nn.Conv2d(3, 4, 3), shape

    def forward(self, x):
        return self.shape(self.conv(x))


@pytest.mark.parametrize(
    ("shape", "dim", "words"),
    [
        (lambda m: m, 4, "maps of 30 x 30 places, averaged"),
        (lambda m: m.mean((2, 3), keepdim=True), 4, "pooled maps"),
        (lambda m: m.flatten(1), 3600, "the output"),
        (lambda m: m.flatten(2), 900, "the first of 4 tokens"),
        (lambda m: (m.mean((2, 3)), m), 4, "the first of 2 outputs: the output"),
        (lambda m: {"maps": m, "features": m.mean((2, 3))}, 4, "'features': the output"),
        (lambda m: {"out": m, "aux": m}, 4, "'out': maps of 30 x 30 places, averaged"),
        (lambda m: {"last_hidden_state": m.flatten(2)}, 900, "'last_hidden_state': the first of 4 tokens"),
    ],
)
def test_features_are_picked_from_what_a_network_returns(shape, dim, words):
    net = Returns(shape)
    encoder, about = ex.open_encoder(net)
    assert (about["dim"], about["features"], about["size"]) == (dim, words, 32)
    assert ex.embed(net, X)[0].equal(encoder.features(X).detach()) and encoder(X).norm(dim=1).allclose(torch.ones(2))


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        (lambda m: {"a": m, "b": m}, "returned a dict of 'a', 'b'"),
        (lambda m: m.mean(), "a tensor of shape ()"),
        (lambda m: None, "returned a NoneType"),
        (lambda m: (), "returned a tuple"),
    ],
)
def test_what_cannot_be_features_is_one_sentence(shape, said):
    with pytest.raises(ex.UserError) as caught:
        ex.open_encoder(Returns(shape))
    assert said in str(caught.value)


def test_a_network_of_one_size_is_run_at_it():
    only = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64 * 64, 5))
    assert ex.open_encoder(only)[1]["size"] == 64
    with pytest.raises(ex.UserError, match="give size="):
        ex.open_encoder(nn.Sequential(nn.Flatten(), nn.Linear(7, 5)))


def test_vision_transformers_and_convolutional_networks_go_through_everything():
    vit = torchvision.models.VisionTransformer(
        image_size=32, patch_size=8, num_layers=1, num_heads=2, hidden_dim=16, mlp_dim=16
    )
    vit.heads = nn.Identity()
    cnn = Returns(lambda m: (m, "the rest"))
    images, y = torch.rand(12, 3, 32, 32, generator=ex.seeded(1)), [0, 1, 2] * 4
    for net in (vit, cnn):
        encoder, _ = ex.open_encoder(net)
        h, _ = ex.embed(encoder, images)
        probe = ex.Probe(l2=1.0).fit(h, y)
        assert ex.perturb(encoder, images, 8 / 255).loss.isfinite().all()
        target = ex.logit(encoder, probe, y)
        assert ex.attribute(encoder, images, target, "saliency").maps.isfinite().all()
        x_adv = ex.Attack.fgsm(8 / 255)(images, ex.classify(encoder, probe, y))
        assert (ex.classify(encoder, probe, y)(x_adv).mean() > ex.classify(encoder, probe, y)(images).mean()).item()


def test_an_archive_that_inflates_is_refused_before_it_is_unpacked(tmp_path, weights, monkeypatch):
    path = tmp_path / "bomb.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb/data.pkl", b"\x80\x02" + b"N0" * 40_000_000)
    assert path.stat().st_size < 1_000_000
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("unpacked"))
    with pytest.raises(ex.UserError, match=r"unpacks to 80 MB out of 0.\d MB"):
        ex.open_encoder(path)


def test_torchs_older_format_is_read_and_foreign_files_are_refused(tmp_path, weights, network):
    torch.save(weights, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    encoder, _ = ex.open_encoder(tmp_path / "old.pth", **IMAGENET)
    assert torch.equal(encoder.features(X), network.features(X))
    torch.save(nn.Linear(200, 99), tmp_path / "whole.pth")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "whole.pth").read_bytes()[:-2000])
    (tmp_path / "list.pth").write_bytes(b"")
    for name in ("whole.pth", "cut.pth", "list.pth"):
        with pytest.raises(ex.UserError, match="cannot be read as plain weights"):
            ex.open_encoder(tmp_path / name)
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(ex.UserError, match="holds a list"):
        ex.open_encoder(tmp_path / "list.pth")


@pytest.mark.parametrize("package", ["timm", "transformers"])
def test_models_of_a_hub_where_the_package_is_installed_and_a_sentence_where_not(package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ex.UserError, match=f"needs {package}, which is not installed; pip install {package}"):
        ex.open_encoder(f"{package}/tiny")
    fake = types.ModuleType(package)
    made = type("Net", (Returns,), {"__module__": f"{package}.models", "pretrained_cfg": {"mean": 0}})
    net = made(lambda m: {"last_hidden_state": m.flatten(2).transpose(1, 2)})
    how = {"image_mean": [0.5] * 3, "image_std": [0.25] * 3, "size": {"height": 40}}
    fake.AutoModel = types.SimpleNamespace(from_pretrained=lambda name, **_: (net, {"missing_keys": set()}))
    fake.AutoImageProcessor = types.SimpleNamespace(from_pretrained=lambda name: types.SimpleNamespace(**how))
    fake.create_model = lambda name, pretrained: net
    config = {"mean": (0.5,) * 3, "std": (0.25,) * 3, "input_size": (3, 40, 40)}
    fake.data = types.SimpleNamespace(resolve_model_data_config=lambda model: config)
    monkeypatch.setitem(sys.modules, package, fake)
    encoder, about = ex.open_encoder(f"{package}/tiny")
    x = torch.rand(2, 3, 40, 40)
    assert about["size"] == 40 and about["features"] == "'last_hidden_state': the first of 1444 tokens"
    assert torch.allclose(encoder.features(x), net((x - 0.5) / 0.25)["last_hidden_state"][:, 0])


@pytest.mark.parametrize("layout", ["torchvision", "timm"])
def test_an_exported_encoder_comes_back_the_same(layout, tmp_path, recwarn):
    run = ex.open_run("demo/clae")
    path = run.export(tmp_path / "x.safetensors", layout=layout)
    encoder, about = ex.open_encoder(path)
    assert torch.equal(encoder.features(X), run.encoder().features(X)) and not recwarn.list
    assert about["size"] == run.image_size and "the file's" in about["normalisation"]
    assert load_tensors(path)[1]["layout"] == layout
    with pytest.raises(ex.UserError, match="layout is 'torchvision' or 'timm'"):
        run.export(path, layout="keras")
    with pytest.raises(ex.UserError, match=r"or an \.onnx file"):
        run.export(tmp_path / "x.pth")
    with pytest.raises(ex.UserError, match="is no ResNet"):
        ex.open_run("patches/random").export(path)


@pytest.mark.parametrize("kind", ["demo/clae", "patches/kmeans", "maps"])
def test_an_onnx_file_gives_the_same_features(kind, tmp_path):
    runtime = pytest.importorskip("onnxruntime", reason="ONNX is not installed; pip install '.[onnx]'")
    run = ex.run_of(Returns(lambda m: m), "emoji", name="maps") if kind == "maps" else ex.open_run(kind)
    path = run.export(tmp_path / "x.onnx")
    written = path.read_bytes()
    session = runtime.InferenceSession(written)
    for n in (1, 5):
        x = torch.rand(n, 3, run.image_size, run.image_size)
        with torch.no_grad():
            h = run.encoder().features(x)
        found = torch.from_numpy(session.run(None, {"images": x.numpy()})[0])
        torch.testing.assert_close(found, h, rtol=1e-4, atol=1e-5 * float(h.abs().max()))
    assert session.get_modelmeta().custom_metadata_map["run"] == run.name
    for private in (str(Path.cwd()), "site-packages", "Traceback", ".py"):
        assert private.encode() not in written


def test_what_onnx_cannot_hold_is_one_sentence(tmp_path, monkeypatch):
    pytest.importorskip("onnxscript", reason="ONNX is not installed; pip install '.[onnx]'")
    for odd in (lambda m: m if m.sum() > 0 else -m, lambda m: m * len(m)):
        with pytest.raises(ex.UserError, match="as ONNX"):
            ex.run_of(Returns(odd), "emoji", name="odd").export(tmp_path / "x.onnx")
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ex.UserError, match=r"pip install .clae-explorer\[onnx\]"):
        ex.open_run("demo/clae").export(tmp_path / "x.onnx")
    assert not list(tmp_path.iterdir())


def test_torchvisions_own_network_takes_an_export(tmp_path):
    config = ex.TrainConfig(arch="resnet18", width=64, stem="imagenet", proj_dim=8)
    run = ex.Run.create(config, name="full", root=tmp_path)
    from explore.runfolder import build_encoder

    encoder = build_encoder(config)
    run.save_encoder(encoder, 0)
    tensors, meta = load_tensors(run.export(tmp_path / "x.safetensors"))
    theirs = torchvision.models.resnet18()
    assert theirs.load_state_dict(tensors, strict=False).missing_keys == ["fc.weight", "fc.bias"]
    theirs.fc = nn.Identity()
    mean, std = (torch.tensor(json.loads(meta[name])).view(3, 1, 1) for name in ("mean", "std"))
    with torch.no_grad():
        expected = encoder.eval().features(X)
        torch.testing.assert_close(theirs.eval()((X - mean) / std), expected, rtol=1e-4, atol=1e-5)


def test_an_encoder_and_images_as_a_run_for_panels():
    data = ex.load("emoji")
    net = Returns(lambda m: m)
    run = ex.run_of(net, "emoji", name="cnn")
    assert run.method == "cnn" and run.config.dataset == "emoji" and "maps of 30 x 30" in repr(run)
    assert net.training and all(p.requires_grad for p in net.parameters())  # one's own network stays as it is
    assert run.encoder() is not run.encoder() and not any(p.requires_grad for p in run.encoder().parameters())
    assert ex.run_of(net, data).data is data and ex.run_of(net, data).image_size == data.size
    panel = ex.panels.Perturbation(run)
    panel.wait(60)
    assert panel.error is None and panel.result.provenance["run"] == "cnn"
    panel.close()
    for wrong, said in [({"name": " "}, "name is what"), ({"images": 3}, "images are a folder")]:
        with pytest.raises(ex.UserError, match=said):
            ex.run_of(net, **{"images": "emoji", **wrong})


def test_every_architecture_is_told_from_the_others():
    shapes = {}
    for arch in ARCHS:
        with torch.device("meta"):
            shapes[arch] = {n: t.shape for n, t in Encoder(arch, width=8, dual_bn=False).trunk.state_dict().items()}
    for arch, own in shapes.items():
        tensors = {n: torch.empty(s, device="meta") for n, s in own.items()}
        assert [a for a in ARCHS if checkpoints.find(tensors, shapes[a])] == [arch]
