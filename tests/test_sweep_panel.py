"""Noise or adversary without a browser: what is shown and said against hand computation, points computed in the background, the panel."""

import base64
import io
import json
import re
import shlex
import time
from itertools import pairwise

import numpy as np
import pytest
import torch
from dataset_files import noise
from filelock import FileLock
from PIL import Image

import explore as ex
from explore import figures, paths
from explore.cli import _parser
from explore.experiments import jobs
from explore.experiments.cell import images_of
from explore.experiments.cost import duration
from explore.experiments.grid import finished, sweep_command
from explore.panels.noise import cards, charts, points, strip, verdicts
from explore.panels.noise.missing import config_of, point_key, point_of
from explore.panels.noise.points import Choice, scene_of
from explore.panels.noise.source import SweepSource
from explore.results import Sweep, to_pixels
from explore.runfolder import Run, build_encoder
from explore.studies import Cell, Measure, run_grid, train_eps_cells
from explore.training import make_views

BASE = ex.TrainConfig(attack="fgsm", eps=8 / 255, epochs=4, knn_every=0)
ALL = tuple(points.KINDS)


def text(html: str) -> str:
    return re.sub(r"\s+", " ", re.sub("<[^>]+>", " ", html)).strip()


# ---- rows written by hand: SimCLR, its longer training, an adversary at 4 and 8, Gaussian noise at 8; three seeds
PLAIN, LONG = [0.80, 0.81, 0.82], [0.83, 0.83, 0.83]
FGSM, GAUSS = {4: [0.81, 0.82, 0.83], 8: [0.84, 0.82, 0.86]}, [0.82, 0.82, 0.83]


def trained(method, attack, k, values, *, epochs=4, cost=24, metric="probe", **more):
    about = {
        "dataset": "fashion",
        "arch": "resnet10, width 16",
        "match": "plain",
        "n": 2000,
        "device": "cpu",
        "seconds": 216,
        **more,
    }
    about |= {
        "method": method,
        "attack": attack,
        "k": k,
        "eps": k / 255,
        "epochs": epochs,
        "cost": cost,
        "metric": metric,
    }
    cell = f"{attack}{k}e{epochs}"
    return [
        {
            **about,
            "seed": s,
            "value": v,
            "low": v - 0.01,
            "high": v + 0.01,
            "cell": f"{cell}s{s}",
            "run": f"studies/runs/{cell}-s{s}",
        }
        for s, v in enumerate(values)
    ]


def sweep(seeds=3):
    found = trained("SimCLR", "none", 0, PLAIN[:seeds]) + trained("SimCLR", "none", 0, LONG[:seeds], epochs=6, cost=36)
    for k, values in FGSM.items():
        found += trained("CLAE (fgsm)", "fgsm", k, values[:seeds], cost=36)
    found += trained("SimCLR + gaussian noise", "gaussian", 8, GAUSS[:seeds], cost=36)
    own = {
        row["cell"]: {"attack": row["attack"], "eps": row["eps"], "epochs": row["epochs"], "seed": row["seed"]}
        for row in found
    }
    return Sweep.of(found, {"study": "by hand", "config": BASE.to_dict(), "cells": own, "data": []})


def scene(rows=None, ticked=ALL, **choice):
    return scene_of(Choice(**choice), rows or sweep(), ticked, BASE)


def looked(values, *, metric="loss", method="SimCLR", match="linf"):
    """Rows of a sweep over test eps: (attack, against, k) -> one value a seed."""
    found = []
    for (attack, against, k), each in values.items():
        for seed, value in enumerate(each):
            about = {
                "dataset": "fashion",
                "arch": "a",
                "method": method,
                "attack": attack,
                "against": against,
                "match": match,
            }
            about |= {
                "k": k,
                "eps": k / 255,
                "metric": metric,
                "seed": seed,
                "value": value,
                "n": 1000,
                "epochs": 4,
                "cost": 24,
            }
            found.append({**about, "low": value - 0.05, "high": value + 0.05, "cell": f"c{seed}", "run": f"r{seed}"})
    about = {"study": "loss_vs_eps" if metric == "loss" else "accuracy_vs_test_eps"}
    return Sweep.of(found, about | ({"chance": 5.5, "batch": 125} if metric == "loss" else {}))


def rivals(**more):
    """The rows by hand, with R-FGSM and PGD at 8 beside them."""
    own = sweep()
    found = trained("CLAE (rfgsm)", "rfgsm", 8, [0.83, 0.84, 0.86], cost=44)
    found += trained("CLAE (pgd)", "pgd", 8, [0.86, 0.87, 0.88], cost=76)
    return scene(own.join(Sweep.of(found, {"cells": {}, "config": {}})), rivals=True, **more)


def test_attack_against_attack():
    """FGSM goes by its own name, what is not there has no point, and the reading counts who is clear of SimCLR."""
    assert not {"rfgsm", "ffgsm", "pgd"} & set(scene().kinds)
    here = rivals()
    assert [kind.name for kind in here.kinds.values()][:4] == ["FGSM", "R-FGSM", "F-FGSM", "PGD"]
    assert here.at("ffgsm", 8) is None and here.at("pgd", 8).mean == pytest.approx(0.87)
    said = text(verdicts.reading(here, 8))
    assert "the attacks reach FGSM 84.0, R-FGSM 84.3, PGD 87.0 %" in said
    each = [b - a for a, b in zip(FGSM[8], [0.86, 0.87, 0.88], strict=True)]
    half = 4.302653 * np.std(each, ddof=1) / 3**0.5
    assert f"PGD over FGSM, 3.0 points (95 % interval {100 * (0.03 - half):.1f}".replace("-", "−") in said
    assert "Above SimCLR: 3 of 3, settled for two" in said  # +6.0 in every seed, and R-FGSM's +3.3 within 0.6
    drawn = {t.name: t for t in charts.chart(here, 8).data if t.name}
    assert drawn["FGSM"].line.dash == "solid" and drawn["PGD"].line.dash == "dot" and list(drawn["F-FGSM"].x) == []
    alone = text(verdicts.reading(rivals(), 4))  # FGSM .81 .82 .83 against .80 .81 .82: +.01 in every seed
    assert "one attack has been trained, FGSM 82.0 %. Above SimCLR by 1.0 points (95 % interval 1.0 to 1.0" in alone
    assert "no attack that is ticked has been trained yet" in verdicts.reading(rivals(ticked=["simclr"]), 8)
    loss = looked({("fgsm", "contrast", 0): [1.0], ("fgsm", "contrast", 8): [2.0], ("pgd", "contrast", 8): [3.0]})
    seen = scene_of(Choice(show="loss", against="test ε", match="L∞", rivals=True), loss, ALL, BASE)
    assert "in nats, FGSM 2.00, PGD 3.00 (clean 1.00)" in text(verdicts.reading(seen, 8))


def test_points_have_the_mean_and_students_interval():
    point = scene().at("adversary", 8)
    mean, sd = np.mean(FGSM[8]), np.std(FGSM[8], ddof=1)
    half = 4.302653 * sd / 3**0.5  # Student's t, 2 degrees of freedom, 97.5 %
    assert (point.mean, point.low, point.high) == pytest.approx((mean, mean - half, mean + half))
    assert point.values == dict(enumerate(FGSM[8])) and point.n == 3
    narrow = scene(spread="± sd").at("adversary", 8)
    assert (narrow.low, narrow.high) == pytest.approx((mean - sd, mean + sd))
    alone = scene(sweep(1)).at("adversary", 8)
    assert (alone.low, alone.high) == pytest.approx((0.83, 0.85))  # of the one value, over its images
    assert scene().at("simclr", 8).mean == pytest.approx(0.81) and scene().at("same", 4).mean == pytest.approx(0.83)
    assert scene().at("gaussian", 4) is None


def test_the_reading_against_hand_computation():
    # adversary minus Gaussian at 8: .02, 0, .03: mean .01667, sd .01528, half 4.3027 * .01528 / sqrt(3) = .03795
    said = verdicts.reading(scene(), 8)
    assert (
        "the adversary is <b>1.7 points</b> above Gaussian noise of σ = ε (95 % interval −2.1 to 5.5, three seeds each)"
        in said
    )
    assert "<b>not settled at this scale</b>" in said
    # adversary minus the longer SimCLR: .01, -.01, .03: mean .01, half .0497
    assert "To SimCLR at equal compute: +1.0 (−4.0 to 6.0), not settled." in said
    # at 4 there is no Gaussian: SimCLR is the opponent, .01 each seed, so sd = 0 and the interval is the mean
    assert "<b>1.0 points</b> above SimCLR (95 % interval 1.0 to 1.0, three seeds each)." in verdicts.reading(
        scene(), 4
    )
    alone = verdicts.reading(scene(sweep(1)), 8)
    assert "(one seed each): <b>no verdict</b>" in alone and "not settled" not in alone
    assert "there is no adversary yet; there is one at 4, 8" in verdicts.reading(scene(), 10)
    assert "SimCLR, <b>81.0 %</b>" in verdicts.reading(scene(), 0)
    assert "not ticked" in verdicts.reading(scene(ticked=["gaussian"]), 8)
    by_variance = trained("SimCLR + gaussian noise", "gaussian-variance", 8, [0.5, 0.51, 0.52])
    both = Sweep.of([*sweep().table.to_dict("records"), *by_variance], sweep().provenance)
    assert "above Gaussian noise of σ² = ε" in verdicts.reading(scene(both, gaussian="σ²"), 8)
    assert "<b>33.0 points</b>" in verdicts.reading(scene(both, gaussian="σ²"), 8)


def test_simclr_of_equal_compute_is_compared_only_where_it_cost_the_same():
    dear = sweep().table.assign(cost=lambda t: t.cost.where(t.attack != "fgsm", 66.0))
    said = verdicts.reading(scene(Sweep.of(dear.to_dict("records"), sweep().provenance)), 8)
    assert "To SimCLR: +3.0" in said and "equal compute" not in said


def test_readings_over_test_eps():
    rows = {("fgsm", "contrast", 0): [1.0, 1.1], ("fgsm", "contrast", 8): [3.0, 3.3], ("gaussian", "", 0): [1.0, 1.1]}
    rows |= {("gaussian", "", 8): [1.1, 1.2]}
    loss = scene_of(Choice("loss", "test ε", "L∞"), looked(rows), ALL)
    # Gaussian minus adversary: -1.9, -2.1: mean -2.0, sd .1414, half 12.7062 * .1414 / sqrt(2) = 1.2706
    said = verdicts.reading(loss, 8)
    assert "lifts the loss from 1.05 to <b>3.15 nats</b>; Gaussian noise of equal L∞ leaves it at 1.15" in said
    assert "<b>2.00 nats</b> lower (95 % interval 0.73 to 3.27, two seeds each)." in said
    one = scene_of(Choice("loss", "test ε", "L∞"), looked({k: v[:1] for k, v in rows.items()}), ALL)
    assert "(one encoder, 1,000 images): <b>no verdict</b> on the method" in verdicts.reading(one, 8)
    assert verdicts.reading(one, 0) == "At ε = 0 nothing is added: the loss is 1.00 nats."
    right = {
        ("fgsm", "contrast", 0): [0.9],
        ("fgsm", "contrast", 8): [0.7],
        ("fgsm", "probe", 8): [0.2],
        ("uniform", "", 8): [0.9],
    }
    accuracy = scene_of(Choice("accuracy", "test ε", "L∞"), looked(right, metric="probe"), ALL)
    assert (
        "takes accuracy from 90.0 to <b>70.0 %</b>; uniform noise of equal L∞ leaves it at 90.0 %"
        in verdicts.reading(accuracy, 8)
    )
    assert accuracy.at("probe", 8).mean == 0.2 and "probe" not in loss.kinds
    assert scene_of(Choice("accuracy", "test ε", "L2"), looked(right, metric="probe"), ALL).points == {}


def test_rows_of_trainings_and_of_test_images_are_told_apart():
    test = looked({("fgsm", "contrast", 8): [1.0], ("gaussian", "", 8): [1.0]}).table
    later = test.assign(method="CLAE (fgsm), ε 8/255")
    assert points.is_training(sweep().table).all()
    assert not points.is_training(test).any() and not points.is_training(later).any()


def test_what_would_mix_trainings_is_refused():
    table = sweep().table
    for column, value in (("arch", "resnet18, width 64"), ("epochs", 9)):
        other = table[table.attack == "fgsm"].assign(**{column: value, "cell": "x"})
        with pytest.raises(ex.UserError, match=f"differ in {column} .*choose with"):
            scene(Sweep.of([*table.to_dict("records"), *other.to_dict("records")]))
    twice = table.assign(run="another", cell="another")
    with pytest.raises(ex.UserError, match="Several runs share one setting and seed"):
        scene(Sweep.of([*table.to_dict("records"), *twice.to_dict("records")]))


# ---- the chart
def test_the_chart_draws_every_mean_seed_and_interval():
    shown = scene()
    figure = charts.chart(shown, 8, [("adversary", 6.0, "computing")])
    assert len(figure.data) <= len(figures.empty_curves(*charts.ROOM).data)
    curve = next(t for t in figure.data if t.name == "adversary (CLAE)")
    assert list(curve.y) == pytest.approx([82, 84]) and list(curve.customdata) == ["adversary,4", "adversary,8"]
    assert [round(x) for x in curve.x] == [4, 8]
    point = shown.at("adversary", 8)
    assert curve.y[1] + curve.error_y.array[1] == pytest.approx(100 * point.high)
    assert curve.y[1] - curve.error_y.arrayminus[1] == pytest.approx(100 * point.low)
    ticks = figure.data[figure.data.index(curve) + 1]
    assert list(ticks.y) == pytest.approx([100 * v for values in FGSM.values() for v in values])
    band, level = figure.data[0], figure.data[1]
    assert [*level.y] == pytest.approx([81] * len(level.y)) and band.fill == "toself"
    low, high = shown.at("simclr", 0).low, shown.at("simclr", 0).high
    assert (min(band.y), max(band.y)) == pytest.approx((100 * low, 100 * high))
    assert figure.data[3].line.dash == "dash" and figure.data[3].y[0] == pytest.approx(83)
    hover = curve.hovertext[1].split("<br>")
    assert hover == [
        "<b>adversary, ε = 8/255</b>",
        "84.0 %  [79.0, 89.0], n = 3",
        "fgsm8e4-s0, s1, s2",
        "click: pin it",
    ]
    waiting = [t for t in figure.data if t.marker.symbol == "circle-open-dot"]
    assert len(waiting) == 1 and (waiting[0].x[0], waiting[0].y[0]) == (
        6,
        pytest.approx(83),
    )  # on the line between 4 and 8
    titles = figure.layout.xaxis.title.text, figure.layout.yaxis.title.text
    assert titles == ("training ε, k/255", "linear probe, % of 2,000 test images correct")


def test_the_axis_holds_larger_eps_and_the_loss_has_its_chance():
    wide = Sweep.of(
        [*sweep().table.to_dict("records"), *trained("CLAE (fgsm)", "fgsm", 24, [0.7], cost=36)], sweep().provenance
    )
    assert charts.most(scene(wide)) == 32 and charts.chart(scene(wide), 8).layout.xaxis.tickvals[-1] == 32
    rows = looked({("fgsm", "contrast", 0): [1.0], ("fgsm", "contrast", 8): [3.0]})
    figure = charts.chart(scene_of(Choice("loss", "test ε", "L∞"), rows, ALL), 8)
    assert "chance, ln 249" in [a.text for a in figure.layout.annotations] and figure.layout.yaxis.range[1] > 5.5


def test_cost_beside_gain():
    figure = figures.attack_costs(sweep().where(k=[0, 8]))
    at = {t.name: (t.x[0], t.y[0]) for t in figure.data if t.name and t.mode == "markers"}
    assert at["FGSM"] == (pytest.approx(1.5, abs=0.1), pytest.approx(84))
    assert at["SimCLR, 6 epochs"][1] == pytest.approx(83) and at["SimCLR, 6 epochs"][0] != at["FGSM"][0]  # side by side
    with pytest.raises(ex.UserError, match="needs SimCLR and an attack"):
        figures.attack_costs(sweep().where(attack="none"))
    spent = figures.gradients_spent(
        [("FGSM", 1, 2.0, 1.9, 2.1), ("PGD", 2, 2.5, 2.4, 2.6), ("PGD", 1, 1.5, 1.4, 1.6)], clean=1.0
    )
    assert list(spent.data[1].x) == [1, 2] and list(spent.data[1].y) == [1.5, 2.5]
    assert [a.text for a in spent.layout.annotations] == [
        "clean",
        "● FGSM",
        "◆ PGD",
    ]  # one colour, so each has its sign


# ---- cards and commands
def test_a_pinned_card_says_what_is_known_of_the_point():
    shown = scene()
    card = text(cards.pinned(shown, shown.at("adversary", 8), here={"studies/runs/fgsm8e4-s1"}, command="python -m x"))
    # to SimCLR: .04, .01, .04: mean .03, half .0430
    for part in (
        "adversary, ε = 8/255 pinned",
        "84.0 %",
        "[79.0, 89.0] n = 3",
        "84.0 · 82.0 · 86.0",
        "cost 1.5 × SimCLR",
        "time 3 min 40 s a seed, cpu",
    ):
        assert part in card
    assert "to SimCLR +3.0 [−1.3, 7.3]" in card and "to Gaussian +1.7 [−2.1, 5.5]" in card
    assert "to SimCLR, same compute +1.0 [−4.0, 6.0]" in card
    html = cards.pinned(shown, shown.at("adversary", 8), here={"studies/runs/fgsm8e4-s1"})
    assert html.count('data-act="open:studies/runs/fgsm8e4-s1"') == 2 and "disabled" not in html
    assert "disabled" in cards.pinned(shown, shown.at("adversary", 8)) and "data-copy" not in html
    assert "no verdict" in cards.pinned(scene(sweep(1)), scene(sweep(1)).at("adversary", 8))


def test_times_are_said_as_people_say_them():
    said = [duration(s) for s in (0.2, 45, 89, 95, 290, 600, 5300, 7000)]
    assert said == ["1 s", "45 s", "89 s", "1 min 40 s", "4 min 50 s", "10 min", "88 min", "1 h 57 min"]


@pytest.mark.parametrize("dataset", ["fashion", "folder:a place/with cats"])
@pytest.mark.parametrize(
    ("key", "k", "choice"),
    [
        ("adversary", 10, {}),
        ("gaussian", 6, {}),
        ("gaussian", 6, {"gaussian": "σ²"}),
        ("uniform", 2.5, {"match": "L2"}),
        ("sign", 8, {"match": "L∞"}),
        ("simclr", 8, {}),
        ("same", 8, {}),
    ],
)
def test_the_command_makes_the_cells_that_the_button_makes(key, k, choice, dataset):
    base = BASE.with_(dataset=dataset, width=8, lr=1e-3, flip=True, train_images=500)
    kind = points.kinds_of(Choice(**choice), sweep(), base)[key]
    config = config_of(kind, k, base, Choice(**choice))
    assert point_of(config, base) == point_key(key, k)
    wanted = [Cell(config.with_(seed=seed)) for seed in (1, 2)]
    words = shlex.split(sweep_command(wanted[0].config, [1, 2]))[3:]
    args = _parser().parse_args(words)
    from explore.cli.shared import given_settings

    grid = getattr(args, "grid", [8 / 255])
    made = train_eps_cells(
        ex.TrainConfig(knn_every=0, **given_settings(args)), args.methods, eps=grid, seeds=args.seeds
    )
    assert [c.key("x") for c in wanted] == [c.key("x") for c in made if c.trained]
    assert sweep_command(wanted[0].config, [0, 2]) == ""


def test_the_command_names_the_dataset_and_nothing_that_follows_from_it():
    from explore.cli.shared import given_settings

    config = ex.TrainConfig(knn_every=0, dataset="folder:/my cats")
    given = given_settings(_parser().parse_args(shlex.split(sweep_command(config, [0]))[3:]))
    assert given == {"dataset": "folder:/my cats"}


def test_a_noise_point_is_trained_with_the_noise_it_is_called():
    kinds = points.kinds_of(Choice(gaussian="σ²"), sweep(), BASE)
    config = config_of(kinds["gaussian"], 8, BASE, Choice(gaussian="σ²"))
    assert (config.attack, config.gaussian_by, config.noise_norm, config.eps) == ("gaussian", "variance", None, 8 / 255)
    matched = config_of(points.kinds_of(Choice(match="L2"), sweep(), BASE)["uniform"], 8, BASE, Choice(match="L2"))
    assert (matched.attack, matched.noise_norm) == ("uniform", "l2")
    same = config_of(kinds["same"], 8, BASE, Choice())
    assert (same.attack, same.epochs, same.eps) == ("none", 6, 0.0)  # 4 epochs at 9 passes a step against 6


# ---- the film
@pytest.mark.parametrize(("match", "variance"), [("plain", False), ("plain", True), ("linf", False), ("l2", False)])
def test_the_films_pixels_are_the_librarys(match, variance):
    shelf = strip.Session()
    film = strip.film_of(shelf, "demo/clae", (0.0, 4.0, 16.0), match=match, variance=variance)
    run, data = shelf.run("demo/clae"), shelf.set("fashion")
    index = torch.randperm(len(data.test), generator=ex.seeded(0))[: strip.IMAGES]
    x, _ = data.test[index]
    objective = ex.contrast(
        run.encoder(), make_views(run.config, data)(x, ex.seeded(0)), temperature=run.config.temperature
    )
    for i, k in enumerate((0, 4, 16)):
        adversary = ex.Attack.fgsm(k / 255)(x, objective)
        assert film.pixels("adversary", 5)[i].tobytes() == to_pixels(adversary[5:6])[0].tobytes()
        if match == "plain":
            noisy = ex.Noise.gaussian(k / 255, by="variance" if variance else "std")(x, generator=ex.seeded(0))
            assert film.pixels("gaussian", 5)[i].tobytes() == to_pixels(noisy[5:6])[0].tobytes()
        else:
            for kind in ("gaussian", "uniform", "sign"):
                length, wanted = (ex.norms(images - x)[match] for images in (film.frames[kind][i], adversary))
                torch.testing.assert_close(length, wanted, rtol=1e-4, atol=1e-6)
    kinds = points.kinds_of(Choice(), sweep(), BASE)
    html = strip.strip(film, 5, [kinds["adversary"], kinds["gaussian"]])
    frames = re.findall(r'data-pick="adversary,(\d+)".*?base64,([^"]+)"', html)
    assert [k for k, _ in frames] == ["0", "4", "16"] and "uniform" not in html
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(frames[2][1]))).convert("RGB"))
    assert shown.tobytes() == film.pixels("adversary", 5)[2].tobytes()


def test_large_images_are_averaged_over_whole_blocks():
    image = noise(224, 224, 3)
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(strip.picture(image).split("base64,")[1].split('"')[0]))))
    assert shown.shape == (56, 56, 3)
    wanted = image.reshape(56, 4, 56, 4, 3).mean((1, 3))
    assert np.abs(shown - wanted).max() <= 0.5


# ---- points computed in the background, really trained: three classes, 45 images, a network of width 4
@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """A folder of coloured images: three classes, 45 to train on, 15 to test."""
    folder = tmp_path_factory.mktemp("images")
    for side, n in (("train", 15), ("test", 5)):
        for c, name in enumerate(("bars", "dots", "rings")):
            (folder / side / name).mkdir(parents=True)
            for i in range(n):
                x = noise(32, 32, 3, seed=100 * c + i + (50 if side == "test" else 0)) // 2
                x[:: 2 + c, :, c] = 250
                Image.fromarray(x).save(folder / side / name / f"{i}.png")
    return folder


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A place for runs, and no shipped studies."""
    monkeypatch.setenv("CLAE_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr("explore.panels.noise.source.shipped", lambda: ex.results.Sweep.of([]))
    monkeypatch.chdir(tmp_path)
    yield tmp_path / "runs"
    for spec, process in jobs._processes.items():  # what a failed test leaves running
        if tmp_path in spec.parents:
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def tiny(images):
    """Settings of trainings that take a second."""
    network = {"arch": "resnet10", "width": 4, "proj_dim": 8, "image_size": 32, "batch_size": 16}
    return ex.TrainConfig(dataset=f"folder:{images}", attack="fgsm", eps=8 / 255, epochs=1, knn_every=0, **network)


@pytest.fixture(scope="module")
def study(tiny, tmp_path_factory):
    """SimCLR and an adversary at 8/255, two seeds each, really trained elsewhere."""
    return run_grid(
        "train-eps",
        train_eps_cells(tiny, ("none", "fgsm"), eps=[8 / 255], seeds=2),
        out=tmp_path_factory.mktemp("elsewhere"),
    )


def cell(tiny, **changes):
    return Cell(tiny.with_(**changes))


@pytest.mark.slow
def test_a_job_runs_stops_goes_on_and_is_found_again(tiny, root):
    out, long = root / "sweeps", tiny.with_(epochs=2000)
    job = jobs.BackgroundTraining.start([Cell(long)], out, price=100.0, threads=1)
    assert [j.spec for j in jobs.trainings(out)] == [job.spec]
    end = time.monotonic() + 120
    while (job.state["state"] != "running" or job.progress().share == 0) and time.monotonic() < end:
        time.sleep(0.1)
    assert job.state["state"] == "running"
    second = jobs.BackgroundTraining.start([cell(tiny, seed=1)], out, threads=1)
    begun = second.state["beat"]
    while second.state["beat"] < begun + 2.5 and time.monotonic() < end:  # it is there, and has found the folder taken
        time.sleep(0.1)
    assert second.state["state"] == "waiting" and job.state["state"] == "running"
    now = job.progress()
    assert (now.cell, now.cells, now.epochs) == (1, 1, 2000) and 0 < now.share < 1 and 1 <= now.epoch < 2000
    job.stop()
    assert job.wait(60) == "stopped" and second.wait(120) == "done"  # the second had its turn
    stopped = Run(out / "runs" / job.run_names[0])
    assert stopped.status["state"] == "stopped" and 0 < stopped.status["step"] < 4000
    assert len(finished(out, tiny, [images_of(tiny)[1]], Measure()).table.cell.unique()) == 1
    for ended in (job, second):
        ended.forget()
    assert jobs.trainings(out) == [] and list((out / "jobs").iterdir()) == []


@pytest.mark.slow
def test_a_job_that_fails_says_why_and_a_killed_one_is_lost(tiny, root, monkeypatch):
    out = root / "sweeps"
    broken = Cell(tiny.with_(lr=1e9, precision="fp32"))
    job = jobs.BackgroundTraining.start([broken], out, threads=1)
    assert job.wait(120) == "failed" and "The loss became" in job.state["error"]
    jobs._processes[job.spec].wait()
    lost = jobs.BackgroundTraining.start([Cell(tiny.with_(epochs=4000))], out, threads=1)
    jobs._processes[lost.spec].kill()
    assert lost.wait(30) == "lost" and "ended without a report" in lost.state["error"]
    monkeypatch.setattr(jobs, "_processes", {})  # as another kernel sees it: by its silence
    monkeypatch.setattr(jobs, "SILENT", -1.0)
    assert jobs.BackgroundTraining(lost.spec).state["state"] == "lost"


def test_finished_cells_are_those_of_the_same_settings_and_images(tiny, root):
    cells = [cell(tiny, seed=3), cell(tiny, attack="gaussian", seed=3), cell(tiny, lr=1e-3), cell(tiny, alpha=0.5)]
    out = root / "sweeps"
    run_grid("some", cells, out=out)
    data = [images_of(tiny)[1]]
    found = finished(out, tiny, data, Measure())
    assert set(found.table.attack) == {"fgsm", "gaussian"} and set(found.table.seed) == {3}
    assert ex.open_run(found.table.run.iloc[0]).config.seed == 3
    assert not len(finished(out, tiny, ["other"], Measure()))
    assert not len(finished(out, tiny, data, Measure(l2=1.0)))


def test_the_price_is_measured_and_grows_with_the_work(tiny):
    from explore.experiments.cost import price_of, seconds_a_pass

    a_pass = seconds_a_pass(tiny, 1)
    assert 0 < a_pass < 1 and torch.get_num_threads() >= 1
    one, two = price_of([Cell(tiny)], a_pass), price_of([Cell(tiny), cell(tiny, seed=1)], a_pass)
    assert two == pytest.approx(2 * one)
    # a step of FGSM is 9 passes of 45 images, measuring 5
    assert one == pytest.approx(a_pass * 45 * (9 + 5))
    assert price_of([cell(tiny, attack="pgd", steps=5)], a_pass) == pytest.approx(a_pass * 45 * (19 + 5))


# ---- the panel
@pytest.fixture
def panel(study, root):
    from explore.panels import NoiseOrAdversary

    made = NoiseOrAdversary(study)
    assert made.wait(60) and made.error is None, made.error
    yield made
    for job in made.missing.jobs:
        job.stop()
    made.close()
    for job in made.missing.jobs:
        job.wait(60)


def reads(panel):
    return text(panel._reading.value)


def test_the_panel_shows_what_it_was_given(panel, study):
    assert panel.state == "ready" and "4 runs" in panel._state.value
    assert set(panel.result.table.attack) == {"none", "fgsm"} and set(panel.result.table.metric) == {"probe"}
    values = study.where(attack="fgsm", metric="probe").table.value
    assert f"{100 * values.mean():.1f} %" in text(panel.cards.html)
    assert "At ε = 8/255 the adversary is" in reads(panel)
    panel.judge = "kNN"
    assert (
        panel.wait(30)
        and set(panel.result.table.metric) == {"knn"}
        and panel.result.provenance["shown"]["judge"] == "kNN"
    )
    panel.kinds = ["simclr"]
    assert panel.wait(30) and set(panel.result.table.attack) == {"none"} and "not ticked" in reads(panel)
    assert panel._chips["adversary"].value is False
    panel._chips["adversary"].value = True  # as a click does
    assert panel.wait(30) and "fgsm" in set(panel.result.table.attack)


def test_moving_eps_moves_reading_and_cards_and_computes_nothing(panel):
    serial = panel._serial
    panel.k = 10
    assert "there is no adversary yet; there is one at 8" in reads(panel) and panel._serial == serial
    assert "adversary, ε = 10/255 none yet" in text(panel.cards.html)
    panel._pin("adversary,8")
    assert panel.k == 8 and "adversary, ε = 8/255 pinned" in text(panel.cards.html)
    panel._pin("simclr,0")
    assert panel.kind == "simclr" and panel.k == 8 and "SimCLR pinned" in text(panel.cards.html)


def test_prices_are_told_before_and_measured_here(panel):
    panel.k = 10
    end = time.monotonic() + 60
    while "about" not in text(panel.cards.html) and time.monotonic() < end:
        time.sleep(0.1)
    assert re.search(r"2 seeds, about \d+ s on this machine", text(panel.cards.html))


@pytest.mark.slow
def test_a_missing_point_is_computed_here_and_joins_the_figure(panel, tiny, root):
    before = panel.result.table
    job = panel.compute_point("gaussian", 10)
    assert "1 running" in panel._state.value and [w for _, _, w in panel.missing.under_way(panel._outcome.scene)]
    assert "Gaussian, ε = 10/255 new" in text(panel.cards.html) and "Goes on if you close the page" in text(
        panel.cards.html
    )
    with pytest.raises(ex.UserError, match="is being computed"):
        panel.compute_point("gaussian", 10)
    assert job.wait(120) == "done"
    end = time.monotonic() + 90
    while not (panel.result.table.attack == "gaussian").any() and time.monotonic() < end:
        time.sleep(0.1)
    own = panel.result.where(attack="gaussian").table
    assert set(own.seed) == {0, 1} and set(own.k) == {10.0}
    path = root / "sweeps" / "cells" / f"{cell(tiny, attack='gaussian', eps=10 / 255).key(images_of(tiny)[1])}.json"
    rows = {row["metric"]: row["value"] for row in json.loads(path.read_text())["rows"]}
    assert own[own.seed == 0].value.iloc[0] == rows["probe"]
    kept = panel.result.table[panel.result.table.attack != "gaussian"].reset_index(drop=True)
    assert kept.equals(before)  # the rest is not disturbed
    assert list(panel.missing.jobs) == [] and "running" not in panel._state.value
    trace = next(t for t in panel._chart.data if t.name == "Gaussian")
    assert list(trace.customdata) == ["gaussian,10"]
    with pytest.raises(ex.UserError, match="has all its seeds"):
        panel.compute_point("gaussian", 10)
    panel._pin("gaussian,10")  # its runs lie here: they can be opened
    assert 'data-act="open:sweeps/runs/' in panel.cards.html


@pytest.mark.slow
def test_a_point_that_was_stopped_goes_on_in_another_panel(study, tiny, root):
    from explore.panels import NoiseOrAdversary

    first = NoiseOrAdversary(study)
    first.wait(60)
    first.source.base = tiny.with_(epochs=1)
    job = first.compute_point("uniform", 8)
    first._act("stop", job.name)
    first.close()  # the page is closed: what runs is not touched
    assert job.wait(120) == "stopped"
    second = NoiseOrAdversary(study)
    assert second.wait(60) and "Go on" in second.cards.html and "uniform, ε = 8/255 stopped" in text(second.cards.html)
    second._act("again", job.name)
    [again] = [*second.missing.jobs]
    assert again.wait(120) == "done"
    end = time.monotonic() + 90
    while not (second.result.table.attack == "uniform").any() and time.monotonic() < end:
        time.sleep(0.1)
    assert sorted(second.result.where(attack="uniform").table.seed) == [0, 1]
    second.close()


@pytest.mark.slow
def test_a_job_of_the_command_line_is_found_and_joins_the_figure(study, tiny, root, capsys):
    from explore.cli import main
    from explore.panels import NoiseOrAdversary

    command = sweep_command(tiny.with_(attack="gaussian", eps=10 / 255), [0, 1])
    (root / "sweeps").mkdir(parents=True)
    with FileLock(root / "sweeps" / ".lock"):  # it waits for its turn until the panel is there
        assert main([*shlex.split(command)[3:], "--threads=1", "--background", "--json"]) == 0
        job = jobs.training_named(root / "sweeps", json.loads(capsys.readouterr().out)["job"])
        panel = NoiseOrAdversary(study)
        assert panel.wait(60) and panel.error is None
        assert [own.name for own in panel.missing.jobs] == [job.name]
        assert (
            "Gaussian, ε = 10/255 new" in text(panel.cards.html) and f'data-act="stop:{job.name}"' in panel.cards.html
        )
        with pytest.raises(ex.UserError, match="is being computed"):
            panel.compute_point("gaussian", 10)
    assert job.wait(120) == "done"
    end = time.monotonic() + 30
    while (panel.result.table.attack == "gaussian").sum() < 2 and time.monotonic() < end:
        time.sleep(0.1)
    assert set(panel.result.where(attack="gaussian", k=10).table.seed) == {0, 1}
    while [*panel.missing.jobs] and time.monotonic() < end:
        time.sleep(0.1)
    assert [*panel.missing.jobs] == [] and [own.name for own in jobs.trainings(root / "sweeps")] == [job.name]
    other = NoiseOrAdversary(sweep())  # of other settings
    assert [*other.missing.jobs] == []
    for own in (panel, other):
        own.close()


def options(panel, name):
    """What the control of a trait offers."""
    return [value for _, value in panel._fields[name][0].options]


def test_one_control_says_what_is_shown_over_whose_eps_and_moves_no_other(panel):
    tests = looked({("fgsm", "contrast", 8): [1.0, 1.1], ("gaussian", "", 8): [0.5, 0.6]})
    panel.source.tests = tests.join(looked({("fgsm", "contrast", 8): [0.7, 0.8]}, metric="probe"))
    panel.encoder = "SimCLR"
    assert [value for _, value in panel._shows.options] == [
        ("accuracy", "training ε"),
        ("accuracy", "test ε"),
        ("loss", "test ε"),
    ]
    for name, value in (("show", "loss"), ("show", "noise")):
        with pytest.raises(ex.UserError):  # the first exists over test eps alone, the second nowhere
            setattr(panel, name, value)
        assert (panel.show, panel.against) == ("accuracy", "training ε")
    panel._shows.value = ("loss", "test ε")  # as a choice of the menu
    assert panel.wait(30) and (panel.show, panel.against) == ("loss", "test ε")
    assert panel._chips["simclr"].layout.display == "none" and panel._fields["judge"][0].layout.display == "none"
    assert panel.error is None and panel.result.table.metric.eq("loss").all()
    with pytest.raises(ex.UserError, match=r"loss is measured over test ε, got .*set against='test ε' or show"):
        panel.against = "training ε"
    panel._shows.value = ("accuracy", "training ε")
    assert panel.wait(30) and (panel.show, panel.against) == ("accuracy", "training ε")
    assert panel._chips["simclr"].layout.display == ""


def test_where_an_axis_has_another_match_the_panel_says_so(panel):
    panel.source.tests = looked({("fgsm", "contrast", 8): [1.0], ("gaussian", "", 8): [0.5]}, metric="probe")
    panel.encoder = "SimCLR"
    assert panel._moved.value == ""
    panel.against = "test ε"
    assert panel.match == "L∞" and "Noise of equal L∞ over test ε, ε over training ε" in panel._moved.value
    panel.against = "training ε"
    panel.match = "L2"
    assert panel._fields["gaussian"][0].layout.display == "none" and panel._moved.value == ""
    panel.against = "test ε"
    panel.against = "training ε"
    assert panel.match == "L2"  # every axis keeps its own
    assert "L2 over training ε, L∞ over test ε" in panel._moved.value


def test_what_the_tables_do_not_have_is_not_offered(panel):
    rows = looked({("fgsm", "contrast", 8): [0.7]}, metric="probe").table.to_dict("records")
    rows += looked({("fgsm", "contrast", 8): [0.7]}, metric="probe", match="l2").table.to_dict("records")
    panel.source.tests = Sweep.of(rows, {})
    assert options(panel, "match") == ["L∞", "L2", "ε"]  # trainings with any of them can be made here
    panel.encoder, panel.against = "SimCLR", "test ε"
    assert options(panel, "match") == ["L∞", "L2"] and options(panel, "judge") == ["linear probe"]
    panel.against = "training ε"
    assert options(panel, "match") == ["L∞", "L2", "ε"] and options(panel, "judge") == ["linear probe", "kNN"]


def test_curves_that_are_ticked_and_not_there_are_named(panel):
    assert verdicts.absent(scene(ticked=["adversary", "gaussian", "simclr"])) == ""
    said = verdicts.absent(scene(ticked=["adversary", "gaussian", "uniform", "same"], match="L2"))
    assert said == "Not drawn: Gaussian and uniform (not trained yet with noise of equal L2)."
    assert verdicts.absent(scene(sweep(), ticked=["uniform"])) == "Not drawn: uniform (not trained yet)."
    panel.match = "L2"
    assert panel.wait(30) and "Gaussian and uniform (not trained yet with noise of equal L2)" in reads(panel)


def test_a_point_stands_at_its_eps_unless_another_stands_there():
    drawn = {t.name: t for t in charts.chart(scene(), 8).data if t.name}
    own, other = drawn["adversary (CLAE)"], drawn["Gaussian"]
    assert own.x[0] == 4 and own.x[1] == pytest.approx(8 - 0.11) and other.x[0] == pytest.approx(8 + 0.11)


def test_names_and_signs_of_attacks_beside_each_other():
    assert figures.sweep.NAMES["gaussian-variance"] == ("gauss", "Gaussian, σ² = ε")
    here = rivals()
    card = cards.pinned(here, here.at("rfgsm", 8))
    assert 'class="ex-h adv rfgsm"' in card  # its triangle, as in the chart
    assert "rebuttal fig. 2" in cards.foot(here, BASE, "") and "rebuttal fig. 1" in cards.foot(scene(), BASE, "")
    costs = figures.attack_costs(here.sweep.where(k=[0, 8]))
    low, high = costs.layout.yaxis.range
    heights = sorted(a.y for a in costs.layout.annotations)  # no name on another, none outside
    assert min(b - a for a, b in pairwise(heights)) > 0.05 * (high - low) and heights[-1] <= high
    ends = [(t.y[0] - t.error_y.arrayminus[0], t.y[0] + t.error_y.array[0]) for t in costs.data if t.error_y.array]
    assert len(ends) > 4 and low <= min(a for a, _ in ends) and max(b for _, b in ends) <= high
    assert {"● FGSM", "▲ R-FGSM", "◎ SimCLR, 6 epochs", "■ Gaussian"} <= {a.text for a in costs.layout.annotations}
    assert next(t for t in costs.data if t.name == "R-FGSM").marker.symbol == "triangle-up"


def test_a_job_of_another_panel_goes_by_this_panels_names(panel):
    from explore.panels import FourAttacks
    from explore.panels.noise.missing import MissingPoints

    class Job(jobs.BackgroundTraining):
        cells, data = [Cell(panel.source.base)], []

        def __init__(self):
            pass

        def finished(self):
            return [False]

    job = Job()
    for kinds, name in ((panel.offers, "adversary"), (FourAttacks.offers, "FGSM")):
        missing = MissingPoints(panel.source, kinds, 1, panel._jobs_changed)
        assert missing.kind(job)[0].name == name and missing._of_figure(job)
    job.cells = [Cell(panel.source.base.with_(attack="gaussian"))]
    assert not missing._of_figure(job)  # four attacks has no Gaussian noise


def test_a_run_is_looked_at_over_test_eps_and_asked_for_one_more(tiny, root, study):
    from explore.panels import NoiseOrAdversary

    run = Run.create(tiny, name="mine")
    run.save_encoder(build_encoder(tiny), 0)
    panel = NoiseOrAdversary(study, run, show="loss", images=15)
    assert panel.wait(120) and panel.error is None, panel.error
    own = ex.studies.loss_vs_eps(run, images=15)
    shown = panel.result.where(attack="fgsm", k=8).table.value.iloc[0]
    assert shown == pytest.approx(own.where(attack="fgsm", k=8, metric="loss").table.value.iloc[0])
    assert "one encoder, 15 images" in reads(panel) and "no verdict" in reads(panel)
    assert (
        panel._films.through(["mine"], tiny.dataset, Choice(match="L∞"), 16).run == "mine" and "mine" in panel.film.html
    )
    panel.k = 9
    assert "adversary, ε = 9/255 none yet" in text(panel.cards.html)
    panel._act("compute", "adversary,9")
    assert panel.wait(60) and panel.result.where(attack="fgsm", k=9).table.value.iloc[0] > 0
    assert len(panel.result.where(attack="fgsm").table) == 10
    panel.match = "ε"
    panel.gaussian = "σ²"
    assert panel.wait(60) and "gaussian-variance" in set(panel.result.table.attack)
    assert "Gaussian noise of σ² = ε" in verdicts.reading(panel._outcome.scene, 9)
    panel.close()


def test_an_encoder_chosen_in_the_menu_tells_its_price_first(panel, tiny, monkeypatch):
    from explore.panels.noise import panel as module

    run = Run.create(tiny, name="mine")
    run.save_encoder(build_encoder(tiny), 0)
    panel.images, panel.against = 15, "test ε"
    panel.wait(60)
    monkeypatch.setattr(module, "ASK", 0.0)
    panel.list_options("encoder", [("mine", "mine"), (panel.encoder, panel.encoder)])
    panel._fields["encoder"][0].value = "mine"  # as a choice of the menu
    assert panel.wait(60) and panel.state == "empty" and "not measured yet" in panel._state.value
    assert re.search(r"mine has not been measured.* about [\w ]+ on this machine", panel._price.value)
    panel._empty.children[1].click()
    assert panel.wait(120) and panel.state == "ready" and set(panel.result.table.run) == {"mine"}
    panel.show = "loss"
    assert panel.wait(120) and panel.state == "ready"  # accepted for this encoder
    panel.encoder = "demo/clae"
    assert "demo/clae" not in panel._unpriced  # named in code: it is measured at once
    panel.stop()


def test_the_table_is_saved_where_it_says(panel, tmp_path):
    panel._act("save")
    assert (
        "wrote accuracy-over-training-eps.csv, .parquet and .json in" in text(panel._foot.html)
        and str(tmp_path) in panel._foot.html
    )
    assert Sweep.load(tmp_path / "accuracy-over-training-eps").table.equals(panel.result.table)
    panel._act("save")  # nothing is overwritten
    assert (tmp_path / "accuracy-over-training-eps-2.parquet").is_file()


def test_a_fault_becomes_the_banner_and_the_last_figure_stays(panel, monkeypatch):
    good = panel.result
    with monkeypatch.context() as broken:  # `undo` would take the folder of the test back too
        broken.setattr(SweepSource, "trained", lambda self: 1 / 0)
        panel.judge = "kNN"
        assert panel.wait(30) and panel.state == "error" and isinstance(panel.error, ZeroDivisionError)
    assert (
        panel._banner.layout.display == ""
        and "shows accuracy over training ε" in panel._state.value
        and panel.result is good
    )
    panel.judge = "linear probe"
    assert panel.wait(30) and panel.state == "ready" and panel.error is None
    ended = panel._state.value
    panel.cards._handle_custom_msg({"act": "stop:nothing"}, [])  # a button of a card that is gone
    assert panel.state == "error"
    panel.cards._handle_custom_msg({"act": "save:"}, [])  # one that works: the banner goes
    assert panel.state == "ready" and panel.error is None and panel._state.value == ended


def test_bad_input_is_one_sentence(study, root):
    from explore.panels import NoiseOrAdversary

    with pytest.raises(ex.UserError, match=r"sweep takes a results\.Sweep or the path of a saved one, got int"):
        NoiseOrAdversary(3)
    with pytest.raises(ex.UserError, match="There is no saved sweep"):
        NoiseOrAdversary("nothing")
    with pytest.raises(ex.UserError, match=r"There is no run 'demo/clea'\. Did you mean demo/clae"):
        NoiseOrAdversary(study, "demo/clea")
    with pytest.raises(ex.UserError, match="The loss is measured over test ε"):
        NoiseOrAdversary(study, show="loss", against="training ε")


def test_without_a_study_the_panel_says_what_is_missing(root):
    from explore.panels import NoiseOrAdversary

    panel = NoiseOrAdversary()
    assert panel.wait(60) and panel.error is None and len(panel.result) == 0
    assert "there is no adversary yet." in reads(panel)
    shown = text(panel.cards.html)
    assert "adversary, ε = 8/255 none yet Compute this point here 3 seeds" in shown and "SimCLR none yet" in shown
    panel.close()


def test_settings_that_are_not_kept_offer_nothing(root):
    from explore.panels import NoiseOrAdversary

    panel = NoiseOrAdversary(Sweep.of(sweep().table.to_dict("records")))
    assert panel.wait(60) and panel.error is None
    panel.k = 10
    assert (
        "settings or images of this sweep are not kept" in text(panel.cards.html)
        and "Compute this point" not in panel.cards.html
    )
    with pytest.raises(ex.UserError, match="cannot be computed here"):
        panel.compute_point("adversary", 10)
    panel.close()


def test_four_attacks_looks_at_a_run_and_films_it(root):
    """All four are swept over test eps through a run, and every one has its row of the film."""
    from explore.panels import FourAttacks

    panel = FourAttacks(None, "demo/clae", show="loss", images=20)
    assert panel.wait(120) and panel.error is None
    assert set(panel.result.table.attack) == {"fgsm", "rfgsm", "ffgsm", "pgd", "sign"}
    last = panel.result.where(attack=["fgsm", "pgd"], k=16).table.set_index("attack").value
    assert last["pgd"] > last["fgsm"]
    assert re.findall(r'data-pick="(\w+),0"', panel.film.html) == ["adversary", "rfgsm", "ffgsm", "pgd", "sign"]
    assert "in nats, FGSM" in text(panel._reading.value) and list(panel._chips) == list(FourAttacks.offers)
    panel.close()


def test_the_shipped_studies_open_at_once():
    from explore.panels import NoiseOrAdversary

    if not (paths.shipped() / "studies").is_dir():
        pytest.skip("data/studies is not there: make studies")
    panel = NoiseOrAdversary()
    assert panel.wait(60) and panel.error is None
    table = panel.result.table
    assert {"none", "fgsm", "gaussian"} <= set(table.attack) and table[table.attack == "fgsm"].k.nunique() >= 6
    assert table.groupby(["attack", "k", "epochs"]).seed.nunique().min() >= 3
    assert panel.source.base is not None and len(panel.source.methods) == 3
    panel._shows.value = ("loss", "test ε")
    assert panel.wait(60) and panel.error is None and "(95 % interval" in reads(panel)
    panel.close()
