"""The panel 'what the model sees' without a browser: traits move, results follow, pictures are the library's, errors become banners."""

import base64
import io
import re

import numpy as np
import pytest
import torch
from PIL import Image
from traitlets import TraitError

import explore as ex
from explore.panels.attribution import view
from explore.results import png


@pytest.fixture
def run(encoder, tmp_path, monkeypatch):
    """A run folder with a small untrained encoder on the embedded images."""
    from explore.config import TrainConfig
    from explore.runfolder import Run, build_encoder

    monkeypatch.setenv("CLAE_RUNS", str(tmp_path))
    config = TrainConfig(arch="resnet10", width=8, proj_dim=16)
    made = Run.create(config, name="tiny")
    made.save_encoder(build_encoder(config), 0)
    return made


@pytest.fixture
def panel(run):
    made = ex.panels.WhatItSees(run, method="saliency")
    assert made.wait(100) and made.error is None, made.error
    yield made
    made.close()


def decoded(uri: str) -> np.ndarray:
    """A PNG in a data URI as uint8 (h, w, channels)."""
    picture = Image.open(io.BytesIO(base64.b64decode(uri.removeprefix("data:image/png;base64,"))))
    return np.atleast_3d(np.asarray(picture))


def shown(panel) -> dict[str, np.ndarray]:
    found = re.findall(r'data-id="([\w-]+)" src="([^"]+)"', panel._pictures.value)
    return {key: decoded(uri) for key, uri in found}


def test_a_map_becomes_blue_and_orange_with_its_strength_as_opacity():
    picture = decoded(png(view.rgba(torch.tensor([[0.5, -1.0], [0.0, 0.25]]), 0.5)))
    assert picture[0, 0].tolist() == [0xE3, 0x6A, 0x0E, 255] and picture[0, 1].tolist() == [0x34, 0x67, 0xD2, 255]
    assert picture[1, 0, 3] == 0 and picture[1, 1].tolist() == [0xE3, 0x6A, 0x0E, 128]


def test_the_pictures_are_the_results(panel):
    result, pictures = panel.result, shown(panel)
    assert set(pictures) == {"clean", "clean-map", "perturbed", "perturbed-map", "reference", "random-map"}
    for key, part in (("clean", result.clean), ("perturbed", result.perturbed)):
        x = (part.x[0] * 255 + 0.5).floor().to(torch.uint8).permute(1, 2, 0).numpy()
        assert (pictures[key] == x[..., : pictures[key].shape[2]]).all()
        strength = (part.maps[0].abs() / result.scale(0) * 255).round().to(torch.uint8).numpy()
        assert (pictures[f"{key}-map"][..., 3] == strength).all()
    assert pictures["clean-map"][..., 3].max() == 255 or pictures["perturbed-map"][..., 3].max() == 255  # one scale


def test_the_result_is_the_librarys_for_the_picked_image(panel):
    from explore.training import make_views

    panel.picked, panel.k = 3, 5
    result = panel.result
    data, net = ex.load("fashion"), ex.open_run("tiny").encoder()
    index = torch.randperm(len(data.test), generator=ex.seeded(0))[:32]
    x, y = data.test[index]
    other = make_views(ex.open_run("tiny").config, data)(x, ex.seeded(0))
    temperature = ex.open_run("tiny").config.temperature
    x_adv = ex.Attack.fgsm(5 / 255)(x, ex.contrast(net, other, temperature=temperature))
    f = ex.similarity(net, other)
    assert result.index.tolist() == [int(index[3])] and result.labels.tolist() == [int(y[3])]
    assert result.perturbed.x.equal(x_adv[[3]])
    torch.testing.assert_close(result.perturbed.channels, ex.attribute(net, x_adv, f, "saliency", rows=[3]).channels)
    assert result.eps == 5 / 255 and result.provenance["run"] == "tiny"
    assert f"ε = {5}/255" in panel._pictures.value


@pytest.mark.parametrize("method", ["integrated gradients", "occlusion", "GradCAM"])
def test_every_method(panel, method):
    before = panel.result.clean.channels
    panel.method = method
    result = panel.result
    assert panel.error is None and not result.clean.channels.equal(before)
    said = panel._foot.value
    assert ("completeness delta" in said) == (method == "integrated gradients")
    assert "randomised weights: ρ" in said and "no hooks left" in said
    if method == "integrated gradients":  # the foot's numbers are the rows'
        rows = [f"{100 * float(own.error):.1f}" for own in (result.clean, result.perturbed, result.randomised)]
        assert f"completeness delta {max(rows[:2], key=float)} %, random weights {rows[2]} %" in said
        assert all(f"({row} %)" in panel._table.value for row in rows)
    assert (panel._layer.layout.display == "") == (method == "GradCAM")


def test_the_layer_is_one_of_the_runs(panel):
    panel.method = "GradCAM"
    first = panel.result
    assert first.clean.layer == "trunk.layer3" and ("layer2, 8 px", "trunk.layer2") in panel._layer.options
    panel.layer = "trunk.layer2"
    assert panel.result.clean.layer == "trunk.layer2" and not panel.result.clean.maps.equal(first.clean.maps)
    with pytest.raises(TraitError, match="Invalid selection"):
        panel._layer.value = "no such layer"


def test_a_saved_page_holds_every_image_by_every_method(panel, monkeypatch):
    """What the page shows of an image is what the panel shows of it, maps within rounding of one batch and another."""
    quick = {"saliency": "saliency", "GradCAM": "gradcam"}
    monkeypatch.setattr("explore.panels.attribution.panel.METHODS", quick)
    table = panel.content().tables[0]
    assert list(table.axes["method"]) == list(quick) and len(table.axes["picked"]) == len(panel._outcome.study.x)
    panel.method, panel.picked = "GradCAM", 5
    assert panel.result is not None
    wanted = shown(panel)
    drawn = {widget: value for widget, _, value in table.draw("GradCAM", 5)}
    found = {key: decoded(uri) for key, uri in re.findall(r'data-id="([\w-]+)" src="([^"]+)"', drawn[panel._pictures])}
    assert wanted.keys() == found.keys() and (wanted["clean"] == found["clean"]).all()
    assert max(np.abs(wanted[key].astype(int) - found[key]).max() for key in wanted) <= 2
    assert drawn[panel._table] == panel._table.value


def test_the_loss_and_the_probes_logit(panel):
    panel.target = "contrastive loss"
    lost = panel.result
    assert "contrastive loss" in panel._reading.value and lost.reference is not None
    assert float(lost.perturbed.value[0]) > float(lost.clean.value[0])
    panel.target = "probe’s logit"
    found = panel.result
    assert panel.error is None and found.reference is None and "logit" in panel._reading.value
    probing = ex.studies.Probing(ex.load("fashion"))
    probe = probing.probe(probing.add(panel.shelf.run("tiny"), panel.shelf.encoder("tiny")), 0.1, 0)
    h = ex.embed(panel.shelf.encoder("tiny"), found.clean.x)[0]
    torch.testing.assert_close(found.clean.value, probe(h)[:, found.labels[0]])


def test_at_eps_zero_the_two_maps_are_one(panel):
    panel.k = 0
    assert panel.result.clean.channels.equal(panel.result.perturbed.channels)
    assert "nothing is added" in panel._reading.value and panel.error is None


def test_the_strip_picks(panel):
    assert panel.strip.html.count("data-pick=") == 32
    panel.strip.picked = "7"
    assert panel.picked == 7 and int(panel.result.index[0]) == int(panel._outcome.study.index[7])
    panel.picked = 2
    assert panel.strip.picked == "2"


def test_a_fault_becomes_a_banner_and_goes(panel, monkeypatch):
    from explore.studies.attribution import AttributionStudy

    kept = panel.result

    def broken(*_a, **_k):
        raise ex.UserError("The map broke; choose another")

    monkeypatch.setattr(AttributionStudy, "look", broken)
    panel.picked = 9
    assert panel.result is kept and panel.state == "error" and "The map broke" in panel._message.value
    monkeypatch.undo()
    panel.picked = 10
    assert panel.result is not kept and panel.error is None


def test_without_a_run_it_says_what_to_do(run):
    panel = ex.panels.WhatItSees()
    assert panel.result is None and panel.state == "empty" and panel.error is None
    panel.method, panel.run = "saliency", "tiny"
    assert panel.result is not None
    panel.close()
    with pytest.raises(ex.UserError):
        ex.panels.WhatItSees("no such run").close()


def test_large_images_are_averaged_to_the_screen():
    x = torch.arange(224 * 224).view(1, 224, 224).float()
    small = view.fitted(x)
    assert small.shape == (1, 112, 112) and float(small[0, 0, 0]) == float(x[0, :2, :2].mean())
    assert view._times(224, 192) == 112 and view._times(28, 192) == 168 and view._times(32, 160) == 160
