"""The embedding atlas without a browser: stages, invalidation, what follows eps and picks, two encoders, the export."""

import re
import time

import numpy as np
import pandas as pd
import pytest
import torch

from explore import UserError
from explore.panels.atlas import Atlas, cache, view
from explore.panels.widgets.scatter import ScatterPlayer, palette
from explore.results import to_pixels


def make_run(name, seed):
    """A small untrained encoder on the embedded images."""
    from explore.config import TrainConfig
    from explore.runfolder import Run, build_encoder

    config = TrainConfig(arch="resnet10", width=8, proj_dim=16, seed=seed)
    made = Run.create(config, name=name)
    made.save_encoder(build_encoder(config), 0)
    return made


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setenv("CLAE_RUNS", str(tmp_path))
    monkeypatch.setattr(cache.Stages, "give_probe", lambda *_: None)  # 10,000 training images, and a test of its own
    return make_run("tiny", 0)


@pytest.fixture
def panel(run):
    made = Atlas(run, points=60, method="pca")
    assert made.wait(120) and made.error is None, made.error
    yield made
    made.close()


def frames(panel):
    meta = panel.film.meta
    return np.frombuffer(panel.film.frames, np.float32).reshape(meta["maps"], len(meta["ks"]), meta["n"], 2)


def test_the_film_holds_the_results_frames(panel):
    assert panel.film.meta["ks"] == list(panel.result.ks) == [0, 2, 4, 6, 8, 10, 12, 14, 16]
    assert np.array_equal(frames(panel)[0], panel.result.xy.numpy())
    assert np.array_equal(np.frombuffer(panel.film.groups, np.int32), panel.result.labels.numpy())
    assert [g["count"] for g in panel.film.meta["names"]] == panel.result.labels.bincount().tolist()
    x0, y0, x1, y1 = panel.film.meta["box"]
    flat = panel.result.xy.flatten(0, 1)
    assert [x0, y0, x1, y1] == pytest.approx([*flat.amin(0).tolist(), *flat.amax(0).tolist()])


def test_the_clean_map_stands_before_anything_is_attacked(run, monkeypatch):
    from explore.studies import AtlasStudy

    shown = []
    real = AtlasStudy._shot
    panel = Atlas("", points=40, method="pca")

    def shot(self, *args):
        shown.append((panel.film.meta["key"], panel.film.meta["ks"], frames(panel).copy()))
        return real(self, *args)

    monkeypatch.setattr(AtlasStudy, "_shot", shot)
    assert panel.state == "empty" or panel.wait(60)
    panel.run = "tiny"
    result = panel.result
    key, ks, first = shown[0]
    assert key.endswith("clean pca 0") and ks == [0.0]
    assert np.array_equal(first[0, 0], result.xy[0].numpy())
    panel.close()


def test_reading_table_and_neighbours_follow_eps_and_the_picked_image(panel):
    result, study = panel.result, panel._outcome.studies[0]
    panel.picked = 7
    for k in (8.0, 16.0, 0.0):
        panel.k = k
        kept = view.figure(result, "kept", k)
        assert k == 0 or f"<b>{100 * kept:.0f}\xa0%</b>" in panel.film.reading
        assert f"at ε = {k:g}/255, in h" in panel.side.html
        then, now = (rows.tolist() for rows in study.neighbours(7, k))
        assert panel.film.near == {"then": [then], "now": [now]}
        picks = [int(i) for i in re.findall(r'data-pick="(\d+)"', panel.side.html)]
        assert picks == then + now
        assert f"kept <b>{len(set(then) & set(now))} of its 5 nearest</b>" in panel.side.html
        clean, moved = study.images(7, k)
        for image in (clean, moved, (0.5 + 10 * (moved - clean)).clamp(0, 1)):
            from explore.results import png

            assert png(to_pixels(image[None])[0]) in panel.side.html
    panel.k = 9.0
    assert "figures are those of ε = 8/255" in panel.film.reading and "at ε = 8/255" in panel.side.html
    panel.side.picked = str(picks[3])
    assert panel.picked == picks[3] and panel.film.picked == picks[3]


def test_the_lasso_is_read_by_the_next_cell(panel):
    panel.k, panel.film.lasso = 4.0, [3, 5, 8, 13]
    table, result = panel.selected, panel.result
    assert panel.lasso == [3, 5, 8, 13] and table.image.tolist() == result.index[[3, 5, 8, 13]].tolist()
    assert table.k.unique().tolist() == [4.0] and table.moved.tolist() == pytest.approx(
        result.moved[2, [3, 5, 8, 13]].tolist()
    )
    assert (
        "4 selected" in panel.side.html and f"ten nearest kept: {100 * table.kept.mean():.0f}\xa0%" in panel.side.html
    )
    panel.lasso = []
    assert "selected <small>" not in panel.side.html and len(panel.selected) == 0


def test_another_parameter_leaves_nothing_of_the_old_map(panel):
    panel.picked = 4
    seen = [panel.film.meta["key"]]
    for change in (
        {"n_neighbors": 5, "method": "umap"},
        {"n_neighbors": 9},
        {"attack": "F-FGSM"},
        {"points": 50},
        {"images": "emoji · test"},
    ):
        before = frames(panel).copy()
        panel.set_trait("n_neighbors", change.pop("n_neighbors", panel.n_neighbors))
        for name, value in change.items():
            setattr(panel, name, value)
        result = panel.result
        assert panel.error is None, panel.error
        assert np.array_equal(frames(panel)[0], result.xy.numpy()) and not np.array_equal(frames(panel), before)
        assert panel.film.meta["key"] not in seen
        seen.append(panel.film.meta["key"])
    assert panel.picked == -1 and not any(panel.film.near.values()), "another set of images: nothing is picked any more"
    assert seen[2].endswith("fgsm umap 9") and panel._map.value == ("umap", 9)
    panel.images, panel.points, panel.attack, panel.method = "fashion · test", 60, "FGSM", "pca"
    assert panel.result is not None and panel.film.meta["key"] == seen[0]


def test_a_study_that_is_asked_from_outside_does_not_speak_through_the_panel(run):
    """Notebook 05 asks `panel.study` for another map: the panel stayed busy with it for good."""
    panel = Atlas(run, points=40, method="pca")
    assert panel.result is not None and panel.state == "ready"
    said = panel._state.value
    time.sleep(0.2)  # progress is shown from 150 ms on
    assert panel.study.atlas("umap").method == "umap"
    assert panel.state == "ready" and panel._state.value == said
    panel.close()


def test_umap_stands_in_the_place_of_pca_only_when_it_is_there(run, monkeypatch):
    from explore.studies import AtlasStudy

    panel = Atlas(run, points=40, method="pca")
    linear = panel.result
    during = []
    real = AtlasStudy.umap

    def watched(self, method="umap"):
        if method == "umap" and not self.has("umap"):
            during.append((panel.film.meta["key"], panel.state))
        return real_map(self, method)

    real_map = AtlasStudy._map
    assert real is not None
    monkeypatch.setattr(AtlasStudy, "_map", watched)
    panel.method = "umap"
    result = panel.result
    assert during and all(key.endswith("fgsm pca 0") for key, _ in during)
    assert result.method == "umap" and not torch.equal(result.xy[0], linear.xy[0])
    assert torch.equal(result.moved, linear.moved), "what is true in h does not hang on the map"
    panel.close()


def test_colours(panel):
    result = panel.result
    panel.colour = "displacement"
    values = np.frombuffer(panel.film.values, np.float32).reshape(1, 9, 60)
    most = result.moved.double().quantile(0.99, dim=1, keepdim=True).clamp(min=1e-9)
    assert values[0] == pytest.approx((result.moved / most).clamp(max=1).numpy(), abs=1e-5)
    assert values[0, 0].max() < 1e-3 and all(values[0, 1:].max(1) == 1)  # every eps has its own scale
    panel.colour = "loss"
    values = np.frombuffer(panel.film.values, np.float32)
    assert values.min() == 0 and values.max() == 1 and panel.film.meta["scale"][0].startswith("contrastive loss")
    field, offered = panel._fields["colour"][0], ["class", "displacement", "loss"]
    assert field.value == "loss" and [name for name, _ in field.options] == offered  # no vendor, no probe: not offered
    panel.colour = "vendor"
    assert isinstance(panel.error, UserError) and "no vendor" in str(panel.error) and panel.state == "error"
    panel.colour = "class"
    assert panel.error is None and panel.state == "ready" and panel._banner.layout.display == "none"
    assert [name for name, _ in field.options] == offered
    panel.images = "emoji · test"
    assert panel.result.vendors and panel.error is None
    panel.colour = "vendor"
    assert [g["name"] for g in panel.film.meta["names"]] == list(panel.result.vendors) and panel.film.values == b""
    assert len(set(palette(100))) == 100 and palette(3) == palette(10)[:3]


def test_a_probe_colours_right_and_wrong(run, monkeypatch):
    monkeypatch.undo()
    monkeypatch.setenv("CLAE_RUNS", str(run.path.parent))
    data_probe = cache.Probe

    class Few(data_probe):  # the same probe on the first 300 training images
        def fit(self, h, y, **settings):
            return super().fit(h[:300], y[:300], **settings)

    monkeypatch.setattr(cache, "Probe", Few)
    panel = Atlas(run, points=40, method="pca", colour="probe error")
    right = panel.result.right
    assert panel.error is None and set(right.unique().tolist()) <= {0.0, 1.0} and 0 < right.mean() < 1
    assert np.frombuffer(panel.film.values, np.float32).reshape(9, 40) == pytest.approx(1 - right.numpy())
    panel.close()


def test_two_encoders_are_turned_onto_each_other(run):
    make_run("other", 1)
    panel = Atlas("tiny", "other", points=60, method="pca")
    result, beside = panel.result, panel.beside
    assert panel.error is None and beside is not None and panel.film.meta["maps"] == 2
    assert np.array_equal(frames(panel)[1], beside.xy.numpy())
    lone = panel._outcome.studies[1].atlas("pca")
    away = lambda xy: float((xy - result.xy[0]).square().sum())  # noqa: E731
    assert away(beside.xy[0]) < away(lone.xy[0]) and 0 <= panel.agreement["residual"] <= 1
    assert f"{panel.agreement['residual']:.2f}" in panel.below.html
    panel.picked = 3
    assert [len(rows) for rows in panel.film.near["now"]] == [5, 5] and len(panel.film.heads) == 2
    panel.other = "tiny"
    panel.wait()
    assert isinstance(panel.error, UserError) and "nothing to compare" in str(panel.error)
    panel.other = ""
    assert (
        panel.result.method == "pca" and panel.beside is None and panel.error is None and panel.film.meta["maps"] == 1
    )
    panel.close()


def test_bad_wishes_are_one_sentence(panel):
    panel.method, panel.n_neighbors = "umap", 60
    panel.wait()
    assert isinstance(panel.error, UserError), panel.error
    assert "shows PCA of tiny" in panel._state.value
    panel.n_neighbors = 5
    assert panel.result.method == "umap" and panel.error is None
    with pytest.raises(UserError):
        panel.run = "nowhere"


def test_the_parquet_for_other_viewers(panel, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path, again = panel.export(), panel.export()
    assert path.name == "atlas-tiny-pca.parquet" and again.name == "atlas-tiny-pca-2.parquet"
    table, result = pd.read_parquet(path), panel.result
    assert len(table) == 9 * 60 and {"x", "y", "label", "class", "image", "index"} <= set(table.columns)
    assert table.x.to_numpy() == pytest.approx(result.xy[..., 0].flatten().numpy())
    from PIL import Image

    source = table.image[table.k == 0].iloc[5]
    import base64
    import io

    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(source.split(",", 1)[1]))))
    wanted = to_pixels(panel.shelf.split("fashion · test")[[int(result.index[5])]][0])[0, :, :, 0]
    assert np.array_equal(pixels, wanted)
    assert path.name in panel._said.value or again.name in panel._said.value


def test_a_film_keeps_picks_on_another_map_of_the_same_images_only():
    film = ScatterPlayer()
    xy, groups = np.zeros((1, 3, 4, 2), np.float32), np.array([0, 1, 0, 1])
    film.show(xy, [0, 2, 4], key="a", groups=groups, names=["x", "y"], images="set")
    film.picked, film.lasso, film.hidden = 2, [1, 2], [1]
    film.show(xy + 1, [0, 2, 4], key="b", groups=groups, names=["x", "y"], images="set")
    assert (film.picked, film.lasso, film.hidden) == (2, [1, 2], [1])
    film.show(xy, [0, 2, 4], key="c", groups=groups, names=["x", "z"], images="other")
    assert (film.picked, film.lasso, film.hidden) == (-1, [], [])
