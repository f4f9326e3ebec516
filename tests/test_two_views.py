"""Lesson 01: two views of a batch, their cosines and weights, and the augmentation lab without a browser."""

import base64
import io
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from lesson_numbers import words
from PIL import Image

import explore as ex
from explore import figures
from explore.results import Similarities, to_pixels
from explore.studies import similarities
from explore.training import make_views

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def batch(encoder):
    """Eight coloured images of three classes and one without a class."""
    x = torch.rand(8, 3, 32, 32, generator=ex.seeded(0))
    y = torch.tensor([0, 0, 1, 1, 2, 2, 2, -1])
    return similarities(encoder, x, views=ex.Views(size=32), temperature=0.3, seed=5, labels=y, classes=("a", "b", "c"))


def test_the_views_and_the_loss_are_the_librarys(batch, encoder):
    v1, v2 = ex.two_views(ex.Views(size=32), batch.x, ex.seeded(5))
    torch.testing.assert_close(batch.views, torch.cat([v1, v2]))
    with torch.no_grad():
        z1, z2 = encoder(v1), encoder(v2)
    torch.testing.assert_close(batch.loss.view(2, -1).mean(0), ex.nt_xent(z1, z2, 0.3), rtol=1e-4, atol=1e-5)
    colder = batch.at(0.05)
    torch.testing.assert_close(colder.loss.mean(), ex.nt_xent(z1, z2, 0.05).mean(), rtol=1e-4, atol=1e-5)
    assert colder.cosine is batch.cosine and all(check.ok for check in batch.checks)


def test_a_weight_is_the_derivative_of_the_loss(batch):
    """Of a row's loss by the logits: the weight for a negative, the weight minus 1 for the positive."""
    logits = (batch.cosine / batch.temperature).requires_grad_()
    masked = logits.masked_fill(torch.eye(16, dtype=torch.bool), -math.inf)
    loss = F.cross_entropy(masked, batch.positive, reduction="sum")
    (slope,) = torch.autograd.grad(loss, logits)
    expected = batch.weights - F.one_hot(batch.positive, 16)
    torch.testing.assert_close(slope, expected, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(batch.weights.sum(1), torch.ones(16))


def test_the_hardest_and_the_false_negatives_are_counted(batch):
    y = batch.labels.tolist() * 2
    near, every, carried = [], [], []
    for i in range(16):
        others = [j for j in range(16) if j not in (i, (i + 8) % 16)]
        order = sorted(others, key=lambda j: -float(batch.cosine[i, j]))
        assert batch.hardest(i).tolist() == order and batch.hardest(i, 3).tolist() == order[:3]
        weights = sorted((float(batch.weights[i, j]) for j in others), reverse=True)
        carried.append(sum(weights[:3]) / sum(weights))  # a fifth of 14
        if y[i] >= 0:
            known = [j for j in order if y[j] >= 0]
            near += [y[j] == y[i] for j in known[:4]]
            every += [y[j] == y[i] for j in known]
    assert batch.same_class(4) == pytest.approx((np.mean(near), np.mean(every)))
    assert batch.carried(0.2) == pytest.approx(np.mean(carried), rel=1e-5)
    assert batch.at(0.02).carried(0.2) > batch.carried(0.2) > batch.at(50.0).carried(0.2) > 3 / 14 - 1e-6
    nobody = Similarities.at(batch, 0.3)
    object.__setattr__(nobody, "labels", torch.full((8,), -1))
    assert all(math.isnan(value) for value in nobody.same_class())


def test_the_table_and_the_file(batch, tmp_path):
    table = batch.table
    assert len(table) == 16 and table.view.tolist() == [1] * 8 + [2] * 8 and table.label.tolist()[:3] == ["a", "a", "b"]
    assert table.loss.to_numpy() == pytest.approx(-np.log(table.weight_positive.to_numpy()), rel=1e-4)
    assert (table.cosine_hardest <= 1).all() and not table.same_class[table.label == ""].any()
    again = Similarities.load(batch.save(tmp_path / "batch"))
    assert again.cosine.equal(batch.cosine) and again.table.equals(table) and again.provenance == batch.provenance


def test_what_cannot_be_is_refused(batch, encoder):
    with pytest.raises(ex.UserError, match="two images or more, got 1"):
        similarities(encoder, batch.x[:1], views=ex.Views())
    with pytest.raises(ex.UserError, match="temperature must be above 0"):
        batch.at(0)


def test_the_figures_points_lie_on_its_line(batch):
    figure = figures.softmax_weights(batch, 3)
    line, even, *points = figure.data
    slope = np.diff(np.log(line.y)) / np.diff(line.x)
    assert slope == pytest.approx(1 / 0.3, rel=1e-3) and even.y[0] == pytest.approx(1 / 15)
    x, y = (np.concatenate([getattr(trace, axis) for trace in points]) for axis in "xy")
    assert len(x) == 15 and y.sum() == pytest.approx(1, rel=1e-4)
    assert np.log(y) == pytest.approx(np.interp(x, line.x, np.log(line.y)), abs=1e-3)


# the panel
@pytest.fixture
def panel(run):
    made = ex.panels.TwoViews(run, n=8)
    assert made.wait(60) and made.error is None, made.error
    yield made
    made.close()


@pytest.fixture
def run(encoder, tmp_path, monkeypatch):
    from explore.config import TrainConfig
    from explore.runfolder import Run, build_encoder

    monkeypatch.setenv("CLAE_RUNS", str(tmp_path))
    config = TrainConfig(arch="resnet10", width=4, proj_dim=8)
    made = Run.create(config, name="tiny")
    made.save_encoder(build_encoder(config), 0)
    return made


def shown(panel) -> list[np.ndarray]:
    """The pictures above the reading: the image, both views, more draws."""
    found = re.findall(r'<img src="data:image/png;base64,([^"]+)"', panel._pictures.value)
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(text)))) for text in found]


def test_it_starts_with_the_runs_views_and_shows_the_librarys(panel, run):
    data = ex.load("fashion")
    views = make_views(run.config, data)
    x, y = data.test[torch.randperm(len(data.test), generator=ex.seeded(0))[:8]]
    v1, v2 = ex.two_views(views, x, ex.seeded(0))
    result = panel.result
    assert panel.recipe == "the run's" and panel.temperature == run.config.temperature
    assert result.x.equal(x) and result.labels.equal(y)
    torch.testing.assert_close(result.views, torch.cat([v1, v2]))
    pictures = shown(panel)
    wanted = [to_pixels(t[:1])[0][..., 0] for t in (x, v1, v2)]
    assert len(pictures) == 3 + 8 and all((a == b).all() for a, b in zip(pictures, wanted, strict=False))
    assert panel._pictures.value.count("<rect") == 2
    assert f"ln 15: {ex.chance(8):.2f}" in panel._reading.value


def test_knobs_recipes_and_seeds(panel):
    first = panel.result
    panel.recipe = "nothing"
    still = panel.result
    n = len(still.x)
    assert still.views[:n].equal(still.views[n:]) and panel.scale == (1.0, 1.0) and panel.jitter_p == 0
    panel.brightness, panel.jitter_p = 0.8, 1.0
    bright = panel.result
    assert panel.recipe == "changed by hand" and not bright.views[:n].equal(bright.views[n:])
    panel.recipe = "the run's"
    assert panel.result.cosine.equal(first.cosine)
    panel.seed = 4
    assert not panel.result.cosine.equal(first.cosine)
    with pytest.raises(ex.UserError, match="within 0 to 1, got"):
        panel.scale = (0.9, 0.3)
    with pytest.raises(ValueError, match="hue"):
        panel.hue = 0.9


def test_the_temperature_keeps_the_batch_and_moves_the_weights(panel):
    first = panel.result
    panel.temperature = 0.05
    cold = panel.result
    assert cold.cosine is first.cosine and cold.carried() > first.carried()
    weights = np.frombuffer(panel.matrix.weights, np.float32).reshape(16, 16)
    assert weights == pytest.approx(cold.weights.numpy(), abs=1e-6)


def test_a_picked_pair_chooses_anchor_and_picture(panel):
    panel.pair = "11,2"
    result = panel.result
    assert panel.picture == 3 and panel.strip.picked == "3" and panel.matrix.picked == "11,2"
    hard = [f"{100 * float(result.weights[11, j]):.1f} %" for j in result.hardest(11, 8)]
    assert all(text in panel._hard.value for text in hard)
    panel.strip.picked = "6"
    assert panel.pair == "6,6" and panel.wait() and panel.picture == 6
    panel.pair, panel.n = "60,60", 16
    assert panel.wait() and panel.error is None


def test_a_picture_of_ones_own_takes_the_first_place(panel, tmp_path):
    path = tmp_path / "red.png"
    Image.new("RGB", (80, 50), (200, 30, 60)).save(path)
    panel.own = str(path)
    result = panel.result
    assert result.x[0].mean((1, 2)).tolist() == pytest.approx([200 / 255, 30 / 255, 60 / 255])
    assert (int(result.labels[0]), int(result.index[0])) == (-1, -1) and "your picture" in panel._pictures.value
    panel._take_file(({"content": memoryview(path.read_bytes())},))
    assert panel.result.x[0].equal(result.x[0])
    panel.own = b"no picture"
    assert panel.wait() and "cannot be read: cannot identify image file it;" in str(panel.error)
    panel.own = None
    assert panel.result.index[0] >= 0 and panel.error is None


def test_without_a_run_it_offers_one(run):
    panel = ex.panels.TwoViews()
    try:
        assert panel.wait(60) and panel.state == "empty"
        panel.run = "tiny"
        assert panel.wait(60) and panel.error is None and len(panel.result.x) == 32
    finally:
        panel.close()


# the lesson's text
def lesson() -> str:
    return words(json.loads((ROOT / "notebooks" / "01_two_views.ipynb").read_text()))


def test_the_lesson_says_what_its_cells_give():
    """Rounded as it is written, with the room that two kinds of CPU need."""
    from explore.panels.two_views.panel import RECIPES

    text, run, data = lesson(), ex.open_run("demo/simclr"), ex.load("fashion")
    encoder, own = run.encoder(), make_views(run.config, data)
    x, y = data.test[torch.randperm(len(data.test), generator=ex.seeded(0))[:32]]
    first = similarities(encoder, x, views=own, temperature=0.2)
    still, cifar = (
        ex.Views(data.size, scale, jitter=tuple(jitter), flip=flip, jitter_p=p, gray_p=0.0, crop="fitted").for_gray()
        for scale, flip, *jitter, p, _, _ in (RECIPES["nothing"], RECIPES["SimCLR, CIFAR-10"])
    )
    losses = [similarities(encoder, x, views=views, temperature=0.2).loss.mean() for views in (own, still, cifar)]
    assert losses == pytest.approx([0.96, 0.61, 3.1], abs=0.06)
    assert "at about 0.96 nats" in text and "is about 0.61, *not* 0" in text and "the loss is about 3.1" in text
    carried = [100 * first.at(t).carried(0.1) for t in (1.0, 0.2, 0.05)]
    assert carried == pytest.approx([14, 50, 95], abs=1.5)
    assert "from about 14 % at τ = 1" in text and "to 50 % at 0.2 and 95 % at 0.05" in text
    x, y = data.test[:512]
    many = similarities(encoder, x, views=own, temperature=0.2, labels=y)
    found = [100 * share for share in (many.same_class(1)[0], *many.same_class(5))]
    assert found == pytest.approx([72, 71, 10], abs=1.5)
    assert "72 % of the single hardest and 71 % of the five hardest" in text and "where chance gives 10 %" in text


def test_the_lessons_exercise_is_the_courses():
    book = json.loads((ROOT / "notebooks" / "01_two_views.ipynb").read_text())
    cells = ["".join(cell["source"]) for cell in book["cells"] if cell["cell_type"] == "code"]
    assert ex.course.exercise("nt_xent").cell in cells
    assert round(ex.chance(4096), 2) == 9.01  # the answer to the question about the chance line
