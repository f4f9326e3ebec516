"""Linear probes compared: the study against computations by hand, and the panel without a browser."""

import dataclasses
import re
import time

import numpy as np
import pandas as pd
import pytest
import torch

import explore as ex
from explore import figures
from explore.datasets import Data, Split
from explore.evaluate import take_labels
from explore.panels.probe import matrices, view
from explore.perturbation.engine import Batch
from explore.results import Paired, Scores, to_pixels
from explore.results.probes import ProbeComparison, Selection, blocks, curve_table
from explore.studies.probes import _rules, authors_trap, compare_probes, label_curve, robust_curve
from explore.studies.probing import Probing, names_of

CLASSES = ["bars", "checks", "dots"]


def toy(n: int, seed: int) -> Split:
    """Gray 32 x 32 images of three noisy patterns, the second and the third alike."""
    g = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % 3
    u, v = torch.meshgrid(torch.arange(32), torch.arange(32), indexing="ij")
    patterns = torch.stack([(u // 4) % 2, (u // 4 + v // 4) % 2, ((u // 4) % 2) * ((v // 4) % 2)]).float()
    x = 100 * patterns[y] + 60 * torch.randn(n, 32, 32, generator=g) + 70
    return Split(x.clamp(0, 255).to(torch.uint8)[:, None], y)


@pytest.fixture(scope="module")
def data() -> Data:
    train = toy(240, 1)
    return Data("toy", CLASSES, gray=True, size=32, train=train, test=toy(150, 2), labelled=train)


@pytest.fixture
def other():
    """A second encoder: other weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        return ex.Encoder("resnet10", width=8, stem="small", proj_dim=16).eval()


@pytest.fixture
def both(encoder, other, data) -> ProbeComparison:
    return compare_probes(encoder, other, images=data, share=0.2, cache=False)


def test_the_comparison_is_what_two_probes_say_by_hand(both, encoder, other, data):
    used = take_labels(data.train.labels, 0.2, ex.seeded(0))
    assert both.labels == len(used) == 48 and both.train == 240
    right = []
    for net, scores in ((encoder, both.a), (other, both.b)):
        h, y = ex.embed(net, data.train)
        probe = ex.Probe().fit(h[used], y[used], classes=CLASSES)
        said = (ex.embed(net, data.test)[0] @ probe.weight_.T + probe.bias_).softmax(1)
        assert scores.predicted.equal(said.argmax(1))
        torch.testing.assert_close(scores.confidence, said.amax(1))
        right.append((said.argmax(1) == data.test.labels).numpy())
    a, b = right
    assert both.paired == Paired(int((a & b).sum()), int((a & ~b).sum()), int((~a & b).sum()), int((~a & ~b).sum()))
    rows = both.table
    assert rows.accuracy.tolist() == pytest.approx([a.mean(), b.mean(), b.mean() - a.mean()])
    assert len(both.curve) == 2 and both.differences() == {0: pytest.approx(b.mean() - a.mean())}


def test_a_cell_holds_its_images_the_surest_first(both, data):
    for true, name in enumerate(CLASSES):
        for predicted, taken in enumerate(CLASSES):
            cell = both.cell(name, taken, encoder="a")
            wanted = {i for i in range(150) if data.test.labels[i] == true and int(both.a.predicted[i]) == predicted}
            table = cell.table
            assert set(table.image) == wanted and len(cell) == both.a.confusion[true, predicted] and cell.of == 50
            assert (
                table.confidence.is_monotonic_decreasing
                and (table.true == name).all()
                and (table.predicted == taken).all()
            )
            assert table.other_right.tolist() == [bool(both.b.predicted[i] == true) for i in table.image]
            if len(cell):
                assert (cell.pixels(data.test) == to_pixels(data.test[table.image.tolist()][0])).all()
    assert both.cell(0, 1).table.equals(both.cell("bars", "checks", encoder="b").table)
    with pytest.raises(ex.UserError, match="no class 'stripes'"):
        both.cell("stripes", "bars")
    with pytest.raises(ex.UserError, match="no encoder 'c'"):
        both.cell("bars", "bars", encoder="c")


def test_attacked_images_are_the_attacks_own(encoder, data):
    found = compare_probes(encoder, images=data, test="attacked", eps=4 / 255, attack="fgsm", cache=False)
    h, y = ex.embed(encoder, data.train)
    probe = ex.Probe().fit(h, y, classes=CLASSES)
    x, labels = data.test[:]
    x_adv = ex.Attack.fgsm(4 / 255)(x, ex.classify(encoder, probe, labels))
    assert found.seen["a"].equal(torch.from_numpy(to_pixels(x_adv)).permute(0, 3, 1, 2)[:, :1])
    assert found.a.predicted.equal(probe(ex.embed(encoder, x_adv)[0]).argmax(1)) and found.test == "attacked"
    assert (found.cell(0, 0).pixels(None) == to_pixels(x_adv[found.cell(0, 0).table.image.tolist()])).all()
    assert {c.name: c.ok for c in found.checks}["|δ| ≤ 4/255"] and all(c.ok for c in found.checks if "l2" not in c.name)
    clean = compare_probes(encoder, images=data, cache=False)
    noisy = compare_probes(encoder, images=data, test="noise", eps=4 / 255, cache=False)
    assert found.a.top1 < clean.a.top1 and noisy.a.top1 > found.a.top1
    assert int((noisy.seen["a"].int() - data.test.stored.int()).abs().max()) == 4


def test_of_many_test_images_a_drawn_part_is_perturbed(encoder, data, monkeypatch):
    study = Probing(data, most=60, cache=False)
    found = study.compare(study.add(encoder), share=0.5, test="noise", eps=2 / 255)
    assert found.a.n == 60 and len(found.index.unique()) == 60 and found.a.labels.equal(data.test.labels[found.index])
    cell = found.cell(*matrices.largest(found, "A"))
    rows = [found.index.tolist().index(i) for i in cell.table.image]
    assert rows != cell.table.image.tolist() and (found.a.labels[rows] == found.classes.index(cell.table.true[0])).all()
    own = data.test.stored[cell.table.image.tolist()].int()
    assert int((found.seen["a"][rows].int() - own).abs().max()) == 2 and (cell.seen == found.seen["a"][rows]).all()
    plain = Batch.at
    monkeypatch.setattr(Batch, "at", lambda batch, kind, eps: plain(batch, kind, [1.5 * e for e in eps]))
    broken = {c.name: c.detail for c in study.compare(study.add(encoder), test="noise", eps=2 / 255).checks if not c.ok}
    assert broken["|δ| ≤ 2/255"] == "reaches 3.00/255"


def test_projections_are_probed_and_attacked_through_the_projector(encoder, data):
    study = Probing(data, features="z", attack="fgsm", cache=False)
    key = study.add(encoder)
    seen = study.perturbed(key, 1.0, 0, "attacked", 8 / 255)
    probe = study.probe(key, 1.0, 0)
    assert probe.weight_.shape == (3, 16)

    def loss(x):
        return torch.nn.functional.cross_entropy(probe(encoder(x)), labels, reduction="none")

    x, labels = data.test[:]
    x_adv = ex.Attack.fgsm(8 / 255)(x, loss)
    assert seen.pixels.equal(torch.from_numpy(to_pixels(x_adv)).permute(0, 3, 1, 2)[:, :1])


def test_few_labels_fix_l2_and_one_draw_differs_from_the_next(encoder, data):
    found = label_curve(encoder, images=data, shares=(0.01, 0.2), seeds=3, cache=False)
    few = found.curve[found.curve.share == 0.01]
    assert (few.labels == 3).all() and (few.l2 == 1.0).all() and few.accuracy.nunique() > 1
    assert found.share == 0.2 and len(found.curve) == 6 and found.curve.seed.tolist() == [0, 1, 2] * 2
    again = label_curve(encoder, images=data, shares=(0.01, 0.2), seeds=3, cache=False)
    assert again.curve.equals(found.curve)


def test_the_checks_are_measured(encoder, data):
    def broken(study):
        key = study.add(encoder)
        return {c.name: c.detail for c in study.compare(key, share=1.0).checks if not c.ok}

    assert not {name for name in broken(Probing(data, cache=False)) if "l2" not in name}
    leaky = Split(
        torch.cat([data.train.stored, data.test.stored[:5]]), torch.cat([data.train.labels, data.test.labels[:5]])
    )
    found = broken(Probing(dataclasses.replace(data, train=leaky, labelled=leaky), cache=False))
    assert found["no test image fitted on"] == "5 of 245 are test images too"
    study = Probing(data, cache=False)
    study.clean(study.add(encoder), 1.0, 0)
    study.probe(study.add(encoder), 1.0, 0).weight_ *= 1.5
    assert "slope" in broken(study)["standardised on train, at the optimum"]


def test_a_saved_comparison_comes_back(encoder, other, data, tmp_path):
    found = compare_probes(encoder, other, images=data, share=0.5, test="noise", eps=2 / 255, cache=False)
    again = ProbeComparison.load(found.save(tmp_path / "some" / "probes"))
    assert again.table.equals(found.table) and again.curve.equals(found.curve) and again.checks == found.checks
    assert again.seen["b"].equal(found.seen["b"]) and again.provenance == found.provenance
    single = dataclasses.replace(found, b=None, names=found.names[:1], l2=found.l2[:1])
    assert ProbeComparison.load(single.save(tmp_path / "one")).b is None


def test_bad_input_is_one_sentence(encoder, data):
    with pytest.raises(ex.UserError, match="say which to probe it on"):
        compare_probes(encoder)
    with pytest.raises(ex.UserError, match="Did you mean demo/clae"):
        compare_probes("demo/cla")
    for bad, word in (
        ({"features": "x"}, "projections"),
        ({"test": "dirty"}, "clean, attacked"),
        ({"attack": "fgms"}, "fgsm, rfgsm, ffgsm, pgd, got .* Did you mean fgsm"),
    ):
        with pytest.raises(ex.UserError, match=word):
            compare_probes(encoder, images=data, cache=False, **bad)
    with pytest.raises(ex.UserError, match="outside 0 to 1"):
        compare_probes(encoder, images=data, test="noise", eps=8, cache=False)
    with pytest.raises(ex.UserError, match="has no classes"):
        Probing(dataclasses.replace(data, classes=[], labelled=None))
    with pytest.raises(ex.UserError, match="one share"):
        label_curve(encoder, images=data, shares=())


def test_classes_that_are_confused_stand_together():
    g = np.random.default_rng(0)
    hidden = g.permutation(12)  # four groups of three, shuffled
    confusion = np.full((12, 12), 1)
    for group in range(4):
        confusion[np.ix_(range(3 * group, 3 * group + 3), range(3 * group, 3 * group + 3))] = 30
    shuffled = torch.from_numpy(confusion[np.ix_(hidden, hidden)])
    order = blocks(shuffled)
    assert sorted(order) == list(range(12))
    groups = [hidden[i] // 3 for i in order]
    assert all(len(set(groups[i : i + 3])) == 1 for i in range(0, 12, 3))
    near = np.abs(np.subtract.outer(hidden, hidden))  # each class is confused with its neighbours on a line
    line = [int(hidden[i]) for i in blocks(torch.from_numpy(np.where(near == 1, 30, np.where(near == 0, 100, 0))))]
    assert line in (list(range(12)), list(range(12))[::-1])


def test_encoders_are_called_by_their_method_or_by_their_run():
    def about(run, method):
        return {"encoder": run, "method": method}

    assert names_of([about("a", "SimCLR"), about("b", "CLAE (fgsm)")]) == ("SimCLR", "CLAE")
    assert names_of([about("a", "SimCLR + gaussian noise")]) == ("Gaussian",)
    assert names_of([about("a", "CLAE (pgd)"), about("b", "CLAE (fgsm)")]) == ("a", "b")
    assert names_of([about("a", "SimCLR"), about("a", "SimCLR")]) == ("a (A)", "a (B)")
    assert figures.roles(("SimCLR", "CLAE")) == ("clean", "adv") and figures.roles(("a", "b")) == ("ref", "adv")


# the authors' rule
def test_the_trap_is_the_protocol_watched_three_ways(encoder, data, tmp_path):
    found = authors_trap(encoder, images=data, share=0.5, seeds=2, epochs=60, cache=False)
    h, y = ex.embed(encoder, data.train)
    used = take_labels(y, 0.5, ex.seeded(1))
    probe = ex.Probe(protocol="authors", epochs=60, seed=1).fit(
        h[used], y[used], classes=CLASSES, test=ex.embed(encoder, data.test)
    )
    own = found.curve[found.curve.seed == 1]
    np.testing.assert_allclose(own.test, probe.curve_.test.astype(float), atol=1e-9)
    out = used[take_labels(y[used], 0.2, ex.seeded(1))]
    kept = used[~torch.isin(used, out)]
    assert len(kept) + len(out) == 120
    chosen = ex.Probe(protocol="authors", epochs=60, seed=1).fit(
        h[kept], y[kept], classes=CLASSES, test=(h[out], y[out])
    )
    np.testing.assert_allclose(own.held_out, chosen.curve_.test.astype(float), atol=1e-9)
    rules = found.table.set_index("rule").accuracy
    first = found.curve[found.curve.seed == 0]
    best = (first.test.max() + own.test.max()) / 2
    assert (
        rules["best test epoch (the authors' code)"] == pytest.approx(best)
        and found.accuracy("last epoch") <= best + 1e-9
    )
    assert list(found.table.draws) == [2] * 6
    again = Selection.load(found.save(tmp_path / "trap"))
    assert again.table.equals(found.table) and again.optimism == found.optimism


def test_the_rules_and_the_optimism_by_hand():
    curve = pd.DataFrame(
        {
            "seed": [0] * 4,
            "epoch": [1, 2, 3, 4],
            "test": [0.50, 0.60, 0.65, 0.60],
            "half_a": [0.5, 0.5, 0.7, 0.6],
            "half_b": [0.5, 0.7, 0.6, 0.6],
            "held_out": [0.4, 0.8, 0.7, 0.6],
        }
    )
    assert list(_rules(curve).values()) == [0.65, 0.60, 0.60, 0.7, 0.6]
    assert Selection(pd.DataFrame(), curve).optimism == pytest.approx(((0.7 - 0.6) + (0.7 - 0.5)) / 2)


def test_a_robust_curve_probes_the_images_it_says(encoder, data):
    found = robust_curve(
        encoder, images=data, n=30, eps=(0, 4 / 255), attacks=("fgsm", "sign"), check=False, cache=False
    )
    h, y = ex.embed(encoder, data.train)
    probe = ex.Probe().fit(h, y, classes=CLASSES)
    part = data.test.take(30, ex.seeded(0))
    assert found.accuracy("fgsm", 0) == float(
        (probe.predict(ex.embed(encoder, part)[0]) == part.labels).double().mean()
    )
    assert found.provenance["images"] == "toy" and len(found.table) == 4


# what the panel writes
def scores(labels, predicted, classes) -> Scores:
    y, said = torch.as_tensor(labels), torch.as_tensor(predicted)
    ranked = said[:, None].repeat(1, min(5, len(classes)))
    return Scores(y, ranked, torch.linspace(0.9, 0.1, len(y)), tuple(classes))


def comparison(a: Scores, b: Scores | None, **changes) -> ProbeComparison:
    rows = [
        (name, 0.1, 10, 0, 1.0, s.top1, *s.interval, s.n)
        for name, s in zip(("SimCLR", "CLAE"), (a, b), strict=True)
        if s
    ]
    plain = {"share": 0.1, "labels": 10, "train": 100, "seed": 0, "features": "h", "test": "clean", "eps": 0.0}
    plain |= {
        "names": ("SimCLR", "CLAE") if b else ("SimCLR",),
        "l2": (1.0, 2.0) if b else (1.0,),
        "curve": curve_table(rows),
    }
    plain |= {"index": torch.arange(a.n), "provenance": {"images": "fashion", "attack": "pgd"}}
    return ProbeComparison(a=a, b=b, **{**plain, **changes})


def many(n: int, share_a: float, share_b: float, classes: int = 2) -> ProbeComparison:
    y = torch.arange(n) % classes
    g = torch.Generator().manual_seed(5)

    def said(share):
        return torch.where(torch.rand(n, generator=g) < share, y, (y + 1) % classes)

    names = [f"class {i}" for i in range(classes)]
    return comparison(scores(y, said(share_a), names), scores(y, said(share_b), names))


def test_the_reading_says_what_is_settled_and_what_is_not():
    clear, unclear = many(4000, 0.7, 0.8), many(200, 0.70, 0.71)
    low, high = clear.paired.interval
    text = view.reading(clear)
    assert f"<b>{100 * clear.paired.difference:.1f} points</b> more often than SimCLR’s" in text
    assert f"95 % interval {100 * low:.1f} to {100 * high:.1f}; one draw of labels" in text and low > 0
    assert unclear.paired.interval[0] <= 0 <= unclear.paired.interval[1]
    assert "<b>not settled</b> by 200 images" in view.reading(unclear)
    worse = many(4000, 0.8, 0.7)
    assert "less often" in view.reading(worse) and f"interval {-100 * worse.paired.interval[1]:.1f} to" in view.reading(
        worse
    )
    draws = curve_table(
        [
            (name, 0.1, 10, seed, 1.0, 0.5 + 0.01 * seed * i, 0.4, 0.6, 99)
            for i, name in enumerate(clear.names)
            for seed in (0, 1, 2)
        ]
    )
    assert "three draws of labels: +0.0 to +2.0" in view.reading(dataclasses.replace(clear, curve=draws))
    alone = dataclasses.replace(clear, b=None, names=("SimCLR",))
    assert f"right on <b>{100 * clear.a.top1:.1f} %</b> of 4,000" in view.reading(alone)
    assert "PGD of ε = 8/255" in view.reading(dataclasses.replace(clear, test="attacked", eps=8 / 255))


def test_the_matrix_holds_the_counts_and_the_recalls():
    found = many(90, 0.7, 0.8, classes=3)
    html = matrices.matrix(found, "B")
    for true in range(3):
        for predicted in range(3):
            value = int(found.b.confusion[true, predicted])
            cell = re.search(rf'data-pick="{true},{predicted}"[^>]*>([^<]*)<', html)[1]
            assert cell == (str(value) if value else "")
    assert html.count('class="ex-rc" width="102"') == 3 and html.count('class="d"') == 3
    right = found.a.confusion[1, 1] / 30
    assert f"class 1 right: SimCLR {100 * right:.1f} % (" in html
    change = matrices.matrix(found, "B − A")
    delta = int(found.b.confusion[0, 1] - found.a.confusion[0, 1])
    assert re.search(r'data-pick="0,1"[^>]*>([^<]*)<', change)[1] == (f"{delta:+d}".replace("-", "−") if delta else "")


@pytest.mark.parametrize("classes", [2, 10, 20, 102])
def test_every_number_of_classes_has_a_matrix_that_fits(classes):
    found = many(40 * classes, 0.6, 0.7, classes)
    html = matrices.matrix(found, "A")
    shown = matrices.shown_classes(found)
    size = int(re.search(r"--cell:(\d+)px", html)[1])
    assert len(shown) == min(classes, 20) and size * (len(shown) + (classes > 20)) <= 400 and size >= 19
    assert html.count("data-pick=") == len(shown) ** 2
    assert ("other" in html) == (classes > 20) and ("20 most confused of 102" in matrices.note(found, "A")) == (
        classes > 20
    )
    true, predicted = matrices.largest(found, "A")
    part = found.a.confusion.clone().fill_diagonal_(0)
    assert true != predicted and (classes > 20 or part[true, predicted] == part.max())


def test_names_of_classes_cannot_break_the_page():
    y = torch.tensor([0, 1])
    found = comparison(scores(y, y, ["<b>", '"x"']), None)
    page = matrices.matrix(found, "A") + view.gallery(
        found, found.cell(0, 1), np.zeros((0, 8, 8, 3), np.uint8), (0, 1), 0
    )
    assert "<b>," not in page and "&lt;b&gt;" in page and 'title=""x' not in page


def test_large_images_are_averaged_small_ones_enlarged():
    for size, wide in ((32, 64), (28, 56), (64, 64), (96, 48), (224, 56)):
        html = view._picture(np.full((size, size, 3), 100, np.uint8), "x")
        assert f'width="{wide}"' in html


# the panel
@pytest.fixture
def runs(tmp_path, monkeypatch):
    """Two run folders with small untrained encoders on the shipped images."""
    from explore.config import TrainConfig
    from explore.runfolder import Run, build_encoder

    monkeypatch.setenv("CLAE_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("CLAE_CACHE", str(tmp_path / "cache"))
    made = []
    for name, attack in (("plain", "none"), ("hard", "fgsm")):
        config = TrainConfig(arch="resnet10", width=4, proj_dim=8, attack=attack, seed=len(made))
        run = Run.create(config, name=name)
        run.save_encoder(build_encoder(config), 0)
        made.append(run)
    return made


@pytest.fixture
def panel(runs, monkeypatch):
    from explore import panels
    from explore.panels.session import Session

    whole, kept = Session.set, {}

    def small(self, images):  # 600 + 300 images
        if images not in kept:
            data = whole(self, images)
            train = data.train.take(600)
            kept[images] = dataclasses.replace(data, train=train, labelled=train, test=data.test.take(300))
        return kept[images]

    monkeypatch.setattr(Session, "set", small)
    made = panels.Probe(*runs)
    assert made.wait(60) and made.error is None, made.error
    yield made
    made.close()


def test_every_attack_of_the_table_is_offered_and_used(panel):
    from explore.attack_table import ATTACK_MENU

    field = panel._fields["attack"][0]
    assert list(field.options) == list(ATTACK_MENU) and field.layout.display == "none"
    panel.test = "attacked"
    pgd = panel.result.seen["a"]
    assert field.layout.display == "" and "PGD of ε = 2/255" in panel._reading.value
    panel.attack = "R-FGSM"
    assert panel.result.provenance["attack"] == "rfgsm" and not panel.result.seen["a"].equal(pgd)
    assert "R-FGSM of ε = 2/255" in panel._reading.value
    panel.attack = "PGD"
    assert panel.result.seen["a"].equal(pgd)


def test_the_panel_follows_its_traits(panel):
    assert panel.state == "ready" and panel.result.names == ("SimCLR", "CLAE") and panel.result.labels == 60
    assert "of the labels" in panel._reading.value and "60 of 600" in panel._of_train.value
    panel.share = 0.3
    assert panel.result.labels == 180
    panel.features = "z"
    assert panel.result.features == "z"
    panel.test, panel.k = "noise", 4
    assert panel.result.test == "noise" and panel.result.eps == pytest.approx(4 / 255)
    panel.run_b = ""
    assert panel.result.b is None and panel.state == "ready" and panel._bar.value == ""
    panel.images = "emoji · test"
    assert panel.result.provenance["images"] == "emoji" and len(panel.result.classes) == 9


def test_a_click_shows_the_cells_images_and_pages_turn(panel):
    result = panel.result
    i, j = matrices.largest(result, "B")
    assert panel.matrix.picked == f"{i},{j}" and f'data-key="{i},{j}"' in panel.gallery.html
    k = int(result.b.confusion.diagonal().argmax())
    panel.matrix.picked = f"{k},{k}"  # what the browser sets
    assert panel.cell == f"{k},{k}" and f'data-key="{k},{k}"' in panel.gallery.html
    cell = result.cell(k, k)
    shown = [int(n) for n in re.findall(r'alt="image (\d+):', panel.gallery.html)]
    assert shown == cell.table.image.tolist()[:20] and len(cell) > 20
    assert panel.gallery.html.count('class="new"') == int((~cell.table.other_right[:20]).sum())
    panel.gallery.picked = "1"
    shown = [int(n) for n in re.findall(r'alt="image (\d+):', panel.gallery.html)]
    assert panel.page == 1 and shown == cell.table.image.tolist()[20:40]
    marks = [mark == "new" for mark in re.findall(r'<span(?: class="(new)")?><img', panel.gallery.html)]
    assert marks == (~cell.table.other_right[20:40]).tolist()
    panel.shown = "A"
    assert panel.result is result and int(result.a.confusion[k, k]) == result.cell(k, k, "a").__len__()
    assert panel.cell == f"{k},{k}"  # what was picked stays picked


def test_the_curve_is_computed_ahead(panel):
    end = time.monotonic() + 60
    while len(panel.result.curve) < 14 and time.monotonic() < end:
        time.sleep(0.05)
    curve = panel.result.curve
    assert set(zip(curve.share, curve.seed, strict=True)) == {
        *((s, d) for s in (0.01, 0.1) for d in range(3)),
        (1.0, 0),
    }
    wanted = curve[(curve.encoder == "CLAE") & (curve.share == 0.01)].accuracy.mean()
    line = next(t for t in panel._curve.data if t.name == "CLAE")
    assert line.y[0] == pytest.approx(100 * wanted)
    assert "three draws of labels" in panel._reading.value
    panel._look_at(1.0)
    assert panel.share == 1.0


def test_faults_become_banners_and_the_last_result_stays(panel, runs):
    good = panel.result
    panel.run_b = "plain"
    assert panel.wait(30) and panel.state == "error" and "A and B are both plain" in panel._message.value
    assert panel.result is good and "shows SimCLR and CLAE, 10 % of labels" in panel._state.value
    panel.run_b = "hard"
    assert panel.wait(30) and panel.state == "ready" and panel.error is None
    with pytest.raises(ValueError, match=r"There is no run 'hrad'\. Did you mean hard"):
        panel.run_b = "hrad"
    panel.images = "fashion · train"
    assert panel.wait(30) and "not fitted on" in panel._message.value
    panel.images = "fashion · test"
    (runs[1].path / "encoder.safetensors").write_bytes(b"cut")
    panel.shelf._encoders.clear()
    panel._studies.clear()
    panel.seed = 1
    assert panel.wait(30) and "not a complete safetensors file" in panel._message.value


def test_without_a_run_the_panel_says_what_to_do(runs):
    from explore import panels

    panel = panels.Probe()
    assert panel.wait(30) and panel.state == "empty" and panel.result is None
    assert "no encoder chosen" in panel._state.value
    panel.close()


def test_the_foot_says_what_was_measured_and_where_it_came_from(panel):
    foot = panel._foot.value
    assert foot.count("ex-ok") + foot.count("ex-bad") == 3
    assert (
        "plain" in foot and "hard" in foot and "seed 0 · cpu · torch" in foot and "chosen on a held-out fifth" in foot
    )


def test_the_figures_keep_the_roles_and_their_numbers(panel):
    result = panel.result
    figure = figures.label_curve(result)
    assert {t.name: t.line.color for t in figure.data if t.name} == {"SimCLR": "#3467d2", "CLAE": "#e36a0e"}
    own = result.curve[result.curve.encoder == "SimCLR"].groupby("share").accuracy.mean()
    np.testing.assert_allclose(figure.data[0].y, 100 * own)
    assert figure.layout.showlegend is None and figure.layout.template.layout.showlegend is False
    low, high = figure.layout.yaxis.range
    assert low <= 100 * result.curve.low.min() and high >= 100 * result.curve.high.max()
