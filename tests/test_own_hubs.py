"""Encoders of the real timm and transformers, tiny and with random weights, as modules and from folders; nothing is downloaded."""

import socket

import pytest
import torch

import explore as ex

pytestmark = pytest.mark.filterwarnings("default")
X = torch.rand(2, 3, 32, 32, generator=ex.seeded(0))
SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
MEAN, STD = [0.4, 0.5, 0.6], [0.2, 0.25, 0.3]


def hugging_face(kind):
    """A network of transformers, its image processor, and where its features stand."""
    tf = pytest.importorskip("transformers")
    own = {"image_mean": MEAN, "image_std": STD}
    patches = {**SMALL, "image_size": 32, "patch_size": 8}
    if kind == "ViTModel":
        return tf.ViTModel(tf.ViTConfig(**patches)), tf.ViTImageProcessor(size={"height": 32, "width": 32}, **own)
    if kind == "ResNetModel":
        config = tf.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic")
        return tf.ResNetModel(config), tf.ConvNextImageProcessor(size={"shortest_edge": 32}, **own)
    crop = {"size": {"shortest_edge": 40}, "crop_size": {"height": 32, "width": 32}, **own}
    if kind == "Dinov2Model":
        return tf.Dinov2Model(tf.Dinov2Config(**patches)), tf.BitImageProcessor(**crop)
    return tf.CLIPVisionModel(tf.CLIPVisionConfig(**patches)), tf.CLIPImageProcessor(**crop)


@pytest.mark.parametrize("kind", ["ViTModel", "ResNetModel", "Dinov2Model", "CLIPVisionModel"])
def test_a_hugging_face_network_as_a_module_and_as_a_folder(kind, tmp_path):
    network, processor = hugging_face(kind)
    network.eval().save_pretrained(tmp_path)
    with pytest.raises(ex.UserError, match=r"has no preprocessor_config\.json.* give mean=\.\.\. and std="):
        ex.open_encoder(tmp_path)
    processor.save_pretrained(tmp_path)
    found, about = ex.open_encoder(tmp_path)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
    with torch.no_grad():
        expected = network((X - mean) / std).pooler_output.flatten(1)
    torch.testing.assert_close(found.features(X), expected)
    assert about["size"] == 32 and about["features"].startswith("'pooler_output'")
    assert about["normalisation"] == "mean (0.4, 0.5, 0.6), std (0.2, 0.25, 0.3) (preprocessor_config.json)"
    module, about = ex.open_encoder(network, mean=MEAN, std=STD)
    assert torch.equal(module.features(X), found.features(X)) and about["normalisation"].endswith("(given)")
    assert about["size_from"] == ("found by trying" if kind == "ResNetModel" else "the network's config")


def test_a_classifiers_features_are_those_below_its_last_layer_and_no_random_pooler_is_taken(tmp_path):
    tf = pytest.importorskip("transformers")
    network = tf.ViTForImageClassification(tf.ViTConfig(**SMALL, image_size=32, patch_size=8)).eval()
    network.save_pretrained(tmp_path)
    with torch.no_grad():
        expected = network.vit(X).last_hidden_state[:, 0]
    for what, given in ((network, {}), (tmp_path, {"mean": (0,) * 3, "std": (1,) * 3})):
        encoder, about = ex.open_encoder(what, **given)
        assert torch.equal(encoder.features(X), expected)
        assert about["features"] == "'last_hidden_state': the first of 17 tokens"


def test_clips_vision_part_is_taken():
    tf = pytest.importorskip("transformers")
    config = tf.CLIPConfig(vision_config={**SMALL, "image_size": 32, "patch_size": 8}, text_config=SMALL)
    network = tf.CLIPModel(config).eval()
    encoder, _ = ex.open_encoder(network)
    assert torch.equal(encoder.features(X), network.vision_model(X).pooler_output)


@pytest.mark.parametrize("name", ["resnet10t", "test_vit"])
def test_a_timm_network_as_a_module_and_as_a_folder(name, tmp_path):
    timm = pytest.importorskip("timm")
    network = timm.create_model(name, num_classes=7).eval()
    timm.models.save_for_hf(network, tmp_path)
    data = timm.data.resolve_model_data_config(network)
    side = data["input_size"][-1]
    x = torch.rand(2, 3, side, side, generator=ex.seeded(1))
    mean, std = (torch.tensor(data[part]).view(1, 3, 1, 1) for part in ("mean", "std"))
    with torch.no_grad():
        expected = network.forward_head(network.forward_features((x - mean) / std), pre_logits=True)
    for what in (network, tmp_path):
        encoder, about = ex.open_encoder(what)
        torch.testing.assert_close(encoder.features(x), expected)
        assert about["size"] == side and about["normalisation"].endswith("(timm's pretrained_cfg)")
    assert network.num_classes == 7  # the one that was given stays as it is


@pytest.mark.parametrize(("package", "name"), [("timm", "resnet18"), ("transformers", "some/body")])
def test_without_a_connection_it_is_one_sentence_at_once(package, name, monkeypatch, tmp_path):
    pytest.importorskip(package)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))

    def away(*_, **__):
        raise OSError("no route")

    monkeypatch.setattr(socket, "create_connection", away)
    monkeypatch.setattr("explore.evaluate.hubs.getproxies", dict)
    with pytest.raises(ex.UserError, match=r"cannot be reached, so only what is cached opens"):
        ex.open_encoder(f"{package}:{name}")


def test_a_resnet_of_timms_takes_an_export_and_a_checkpoint_of_timms_opens(tmp_path):
    timm = pytest.importorskip("timm")
    from explore.runfolder import build_encoder
    from explore.serialization import load_tensors

    config = ex.TrainConfig(arch="resnet18", width=64, stem="imagenet", proj_dim=8)
    run = ex.Run.create(config, name="full", root=tmp_path)
    run.save_encoder(build_encoder(config), 0)
    theirs = timm.create_model("resnet18", num_classes=0)
    theirs.load_state_dict(load_tensors(run.export(tmp_path / "x.safetensors", layout="timm"))[0])
    with torch.no_grad():
        expected = run.encoder().features(X)
        torch.testing.assert_close(theirs.eval()((X - 0.5) / 0.5), expected, rtol=1e-4, atol=1e-5)
    torch.save(theirs.state_dict(), tmp_path / "theirs.pth")
    encoder, _ = ex.open_encoder(tmp_path / "theirs.pth", mean=(0.5,) * 3, std=(0.5,) * 3)
    assert torch.equal(encoder.features(X), expected)
