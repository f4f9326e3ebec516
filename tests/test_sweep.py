"""Sweeps over test-time eps and grids of trainings: shared work against the plain loop, cells on disk, engines, tables."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

import explore as ex
from explore.attacks import ATTACKS, NOISES, norms
from explore.cli import main
from explore.config import BEFORE
from explore.evaluate import embed, knn_accuracy
from explore.experiments import cell as cells_room
from explore.experiments import task
from explore.experiments.cell import collect, fingerprint, read_cell
from explore.perturbation import engine
from explore.results import Sweep, wilson
from explore.runfolder import Run
from explore.studies import (
    Cell,
    Measure,
    StudyProgress,
    accuracy_vs_test_eps,
    accuracy_vs_train_eps,
    attack_cells,
    equal_compute,
    equal_compute_cells,
    gather,
    loss_vs_eps,
    passes,
    run_cells,
    run_grid,
    step_passes,
    train_eps_cells,
)
from explore.studies.sweep import kept
from explore.training import make_stepper, make_views

ROOT = Path(__file__).resolve().parent.parent
TINY = {"width": 8, "epochs": 2, "batch_size": 64, "train_images": 256, "warmup_epochs": 0.5, "knn_every": 0}
QUICK = Measure(neighbours=500, l2=100.0)
UNIX = pytest.mark.skipif(os.name == "nt", reason="kills processes by Unix signals")
KNOWN = {
    "476f4610bba453b8",
    "bd8d84b8f17370c8",
    "6a0eaf4fef81000b",
}  # cells of `fashion`, named on the day they were made
GRID = (0.0, 4 / 255, 8 / 255)


@pytest.fixture(scope="module")
def data():
    return ex.load("fashion")


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("CLAE_RUNS", str(tmp_path))
    return tmp_path


@pytest.fixture
def small(data, root, monkeypatch):
    """A tenth of the images, so that cells take a second."""
    train, test = data.train.take(1000), data.test.take(300)
    few = ex.datasets.Data("fashion", data.classes, True, 32, train, test, labelled=train)
    monkeypatch.setattr(cells_room, "_loaded", lambda *_: (few, fingerprint(few)))
    return few


def few(attacks=("none", "fgsm"), **changes):
    return [Cell(ex.TrainConfig(**{**TINY, "attack": a, "eps": 8 / 255, **changes}), QUICK) for a in attacks]


def timeless(sweep):
    return sweep.table.drop(columns=["seconds", "commit"]).sort_values(["cell", "metric"], ignore_index=True)


# ---- the result


def rows(values, **settings):
    """One row a seed of an accuracy."""
    about = {
        "dataset": "d",
        "arch": "a",
        "match": "plain",
        "epochs": 1,
        "cost": 6,
        "metric": "knn",
        "n": 100,
        **settings,
    }
    return [{**about, "seed": s, "value": v, "cell": f"{settings['attack']}{s}"} for s, v in enumerate(values)]


A, B = [0.80, 0.83, 0.81], [0.84, 0.86, 0.88]


@pytest.fixture
def sweep():
    two = rows(A, attack="none", eps=0.0, k=0) + rows(B, attack="fgsm", eps=8 / 255, k=8)
    return Sweep.of(two, {"study": "made up", "config": {"width": 8}, "cells": {"none0": {"seed": 0}}})


def test_means_have_students_interval_over_seeds(sweep):
    table = sweep.summary().set_index("attack")
    for name, values in (("none", A), ("fgsm", B)):
        low, high = stats.t.interval(0.95, 2, loc=np.mean(values), scale=stats.sem(values))
        row = table.loc[name]
        assert (row["mean"], row.low, row.high) == pytest.approx((np.mean(values), low, high), abs=1e-12)
        assert (row.n, row.level, row.interval, row["values"]) == (3, 0.95, "t over 3 seeds", tuple(values))
    one = Sweep.of([{**rows([0.8], attack="none")[0], "low": 0.7, "high": 0.9}]).summary().iloc[0]
    assert (one.n, one.low, one.high, one.interval) == (1, 0.7, 0.9, "one seed, over 100 images")


def test_differences_are_paired_by_seed(sweep):
    found = sweep.paired({"attack": "none"}, {"attack": "fgsm", "k": 8}, metric="knn")
    test = stats.ttest_rel(B, A)
    low, high = test.confidence_interval(0.95)
    assert (found.mean, found.low, found.high, found.p) == pytest.approx(
        (np.mean(B) - np.mean(A), low, high, test.pvalue)
    )
    assert found.n == 3 and found.each == pytest.approx({0: 0.04, 1: 0.03, 2: 0.07})
    assert found.settled == (low > 0)
    fewer = Sweep.of(rows(A, attack="none") + rows(B[:2], attack="fgsm"))
    assert fewer.paired({"attack": "none"}, {"attack": "fgsm"}, metric="knn").n == 2


def test_what_cannot_be_compared_is_refused(sweep):
    with pytest.raises(ex.UserError, match="several rows of one seed, which differ in attack"):
        sweep.paired({}, {"attack": "fgsm"}, metric="knn")
    with pytest.raises(ex.UserError, match="No row"):
        sweep.paired({"attack": "pgd"}, {"attack": "fgsm"}, metric="knn")
    with pytest.raises(ex.UserError, match=r"no column 'atack'\. Did you mean attack"):
        sweep.where(atack="fgsm")
    other = Sweep.of(
        [{**row, "run": "another", "cell": f"x{row['seed']}"} for row in rows(A, attack="none", eps=0.0, k=0)]
    )
    with pytest.raises(ex.UserError, match="Several runs share one setting"):
        sweep.join(other).summary()


def test_where_and_join(sweep):
    assert sweep.where(eps=8 / 255).table.attack.unique().tolist() == ["fgsm"]
    assert len(sweep.where(attack=["none", "fgsm"], seed=1)) == 2
    joined = sweep.where(attack="none").join(sweep)
    assert timeless(joined).equals(timeless(sweep)) and joined.config("none0") == {"width": 8, "seed": 0}
    with pytest.raises(ex.UserError, match="No settings are kept"):
        joined.config("nothing")


@pytest.mark.parametrize("end", ["", ".parquet", ".csv"])
def test_what_is_saved_comes_back(sweep, tmp_path, end):
    path = sweep.save(tmp_path / f"deep/sweep{end}")
    assert path == tmp_path / "deep/sweep.parquet"
    if end == ".csv":
        path.unlink()
    back = Sweep.load(tmp_path / "deep/sweep")
    pd.testing.assert_frame_equal(back.table, sweep.table, check_exact=True)
    assert back.provenance == sweep.provenance
    assert sorted(p.suffix for p in (tmp_path / "deep").iterdir()) == sorted(
        {".csv", ".json", ".parquet"} - ({".parquet"} if end == ".csv" else set())
    )
    with pytest.raises(ex.UserError, match="There is no saved sweep"):
        Sweep.load(tmp_path / "nothing")


# ---- test-time eps


def naive_loss(run, data, kind, eps, match, reference, n=60, batch=30):
    """One point of the curve from the public pieces alone: no work is shared, match() finds lengths by bisection."""
    config, encoder, losses = run.config, run.encoder(), []
    for i, x in enumerate(data.test.take(n, ex.seeded(0))[:][0].split(batch)):
        draw = ex.seeded(7 * 1_000_003 + i)
        other = x if reference == "self" else make_views(config, data)(x, ex.seeded(7 * 1_000_003 + i))
        objective = ex.contrast(encoder, other, temperature=config.temperature)
        if kind == "pgd":
            moved = ex.Attack.pgd(eps, steps=2)(x, objective, generator=draw)
        elif kind in ATTACKS:
            moved = ATTACKS[kind](eps)(x, objective, generator=draw)
        elif match == "plain":
            by = {"by": "variance"} if kind.endswith("variance") else {}
            moved = NOISES[kind.removesuffix("-variance")](eps, **by)(x, generator=draw)
        else:
            length = norms(ex.Attack.fgsm(eps)(x, objective) - x)[match]
            d = NOISES[kind](1.0, clamp=None)(x, generator=draw) - x
            moved = (x + ex.match(d, x, **{match: length})).clamp(0, 1)
        with torch.no_grad():
            losses.append(objective(moved))
    return float(torch.cat(losses).mean())


@pytest.mark.parametrize(
    ("match", "kinds", "reference"),
    [
        ("plain", ("gaussian", "fgsm", "gaussian-variance", "uniform", "sign"), "view"),
        ("linf", ("gaussian", "fgsm", "rfgsm", "uniform", "sign"), "view"),
        ("l2", ("sign", "gaussian", "fgsm", "ffgsm", "pgd"), "view"),
        ("l2", ("uniform",), "self"),
    ],
)
def test_shared_work_gives_the_plain_loops_curves(data, match, kinds, reference):
    run = ex.open_run("demo/clae")
    options = {"images": 60, "batch_size": 30, "steps": 2, "seed": 7, "data": data, "device": "cpu"}
    found = loss_vs_eps(run, kinds=kinds, eps=GRID, match=match, reference=reference, **options)
    table = found.where(metric="loss").table.set_index(["attack", "eps"])
    assert len(table) == len(kinds) * len(GRID) and set(table.n) == {60}
    for kind in kinds:
        for eps in GRID[1:]:
            expected = naive_loss(run, data, kind, eps, match, reference)
            assert table.value[kind, eps] == pytest.approx(expected, abs=2e-3), (kind, eps)
        assert table.value[kind, 0.0] == table.value[kinds[0], 0.0]
    assert ((table.low < table.value) & (table.value < table.high)).all()
    if match != "plain":
        lengths = found.where(metric=match, eps=8 / 255).table.set_index("attack").value
        noises = [kind for kind in kinds if kind not in ATTACKS]
        assert lengths[noises].max() - lengths[noises].min() < 1e-3 * lengths.max()


def test_the_adversary_raises_the_loss_more_than_equal_noise(data):
    table = loss_vs_eps("demo/simclr", eps=[0, 8 / 255], images=200, match="l2", data=data, device="cpu").summary()
    at = table[(table.metric == "loss") & (table.k == 8)].set_index("attack")["mean"]
    clean = table[(table.metric == "loss") & (table.k == 0)]["mean"].iloc[0]
    assert at["fgsm"] - clean > 5 * max(at["gaussian"], at["uniform"], at["sign"], clean) - 5 * clean


@pytest.mark.parametrize(
    ("match", "kinds"), [("plain", ("fgsm", "gaussian")), ("linf", ("sign",)), ("l2", ("fgsm", "pgd", "sign"))]
)
def test_the_stated_cost_is_what_is_computed(data, monkeypatch, match, kinds):
    """Forward passes are counted in the network, backward passes through pixels where they are asked for."""
    count, real, gradient = {"images": 0}, Run.encoder, engine.gradient

    def encoder(self, device="cpu"):
        net = real(self, device)
        net.trunk.register_forward_hook(lambda _, x, out: count.__setitem__("images", count["images"] + len(out)))
        return net

    def counted(objective, x):
        count["images"] += len(x)
        return gradient(objective, x)

    monkeypatch.setattr(Run, "encoder", encoder)
    monkeypatch.setattr(engine, "gradient", counted)
    found = loss_vs_eps("demo/clae", kinds=kinds, eps=GRID, match=match, images=64, steps=3, data=data, device="cpu")
    assert count["images"] == 64 * found.provenance["passes"]["shared"]


def test_passes_by_hand():
    nine = [k / 255 for k in range(0, 17, 2)]
    assert passes(["fgsm", "gaussian", "uniform", "sign"], nine, "linf") == {
        "shared": 1 + 1 + 2 + 4 * 8,
        "naive": 9 * 4 * 4,
    }
    assert passes(["gaussian"], nine, "plain") == {"shared": 1 + 1 + 8, "naive": 9 * 2}
    assert passes(["pgd"], nine[1:], "plain", steps=5) == {"shared": 1 + 8 * 10 + 8, "naive": 8 * 12}


def test_accuracy_under_attack_against_the_public_pieces(data):
    run, eps = ex.open_run("demo/clae"), 8 / 255
    encoder, config = run.encoder(), run.config
    x, y = data.test.take(100, ex.seeded(0))[:]
    probe = ex.Probe(l2=100.0).fit(*embed(encoder, data.labelled.take(2000)))
    found = accuracy_vs_test_eps(
        run,
        kinds=("fgsm", "gaussian"),
        eps=(0, eps),
        probe=probe,
        images=100,
        batch_size=50,
        neighbours=1000,
        data=data,
    )
    table = found.table.set_index(["metric", "attack", "against", "k"]).value
    bank = embed(encoder, data.labelled.take(1000, ex.seeded(0)))

    def judged(images):
        h = embed(encoder, images)[0]
        return knn_accuracy(*bank, h, y, k=20).accuracy, probe.score(h, y).top1

    clean = judged(x)
    for attack, against in (("fgsm", "contrast"), ("fgsm", "probe"), ("gaussian", "")):
        assert (table["knn", attack, against, 0], table["probe", attack, against, 0]) == pytest.approx(clean)
    moved = {"contrast": [], "probe": []}
    for i in range(2):
        part = slice(50 * i, 50 * i + 50)
        view = make_views(config, data)(x[part], ex.seeded(i))
        objectives = {
            "contrast": ex.contrast(encoder, view, temperature=config.temperature),
            "probe": ex.classify(encoder, probe, y[part]),
        }
        for name, objective in objectives.items():
            moved[name].append(ex.Attack.fgsm(eps)(x[part], objective))
    for name, images in moved.items():
        assert (table["knn", "fgsm", name, 8], table["probe", "fgsm", name, 8]) == pytest.approx(
            judged(torch.cat(images))
        )
    assert table["probe", "fgsm", "probe", 8] < table["probe", "fgsm", "contrast", 8] < clean[1]
    row = found.where(metric="probe", attack="fgsm", against="probe", k=8).table.iloc[0]
    assert (row.low, row.high) == pytest.approx(wilson(row.value, 100)) and row.run == "demo/clae" and row.seed == 0


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"kinds": ["fgsn"]}, "Did you mean fgsm"),
        ({"kinds": []}, "one kind"),
        ({"eps": []}, "one eps"),
        ({"eps": [8]}, "Did you mean 8/255"),
        ({"match": "l1"}, "'plain', 'linf' or 'l2'"),
        ({"match": "l2", "kinds": ["gaussian-variance"]}, "neither its std nor its variance"),
        ({"images": 1}, "2 test images"),
        ({"reference": "other"}, "view or self"),
    ],
)
def test_questions_that_make_no_sense(options, sentence):
    with pytest.raises(ex.UserError, match=sentence):
        loss_vs_eps("demo/clae", **options)


def test_a_question_asked_again_is_answered_from_disk(data, tmp_path, monkeypatch):
    ask = {"kinds": ["fgsm"], "images": 50}
    first = kept(loss_vs_eps, "demo/clae", tmp_path, eps=[0, 8 / 255], **ask)
    monkeypatch.setattr(engine, "gradient", lambda *_: pytest.fail("computed again"))
    assert kept(loss_vs_eps, "demo/clae", tmp_path, eps=[0, 8 / 255], **ask).table.equals(first.table)
    with pytest.raises(pytest.fail.Exception, match="computed again"):
        kept(loss_vs_eps, "demo/clae", tmp_path, eps=[0, 4 / 255], **ask)
    with pytest.raises(pytest.fail.Exception, match="computed again"):
        kept(loss_vs_eps, "demo/simclr", tmp_path, eps=[0, 8 / 255], **ask)


# ---- cells


@pytest.mark.parametrize("changes", [{"attack": a} for a in ex.config.ATTACK_NAMES] + [
    {"adv_reference": "self"}, {"adv_reference": "self", "attack_branch": "adv"}, {"attack_branch": "adv"},
    {"attack_mode": "eval"}, {"attack": "pgd", "steps": 2, "attack_mode": "eval", "adv_reference": "self"},
    {"attack": "pgd", "steps": 2}, {"authors_step": True, "adv_reference": "self", "attack_branch": "adv"},
], ids=str)  # fmt: skip
def test_passes_a_step_are_those_that_the_step_computes(changes):
    """Multiplications of a whole step, in units of one forward pass of a view."""
    config = ex.TrainConfig(**{"width": 16, "precision": "fp32", "channels_last": False, **changes})
    net = ex.runfolder.build_encoder(config).train()
    v1, v2 = torch.rand(2, 8, 3, 32, 32, generator=ex.seeded(0))
    with Multiplications() as one, torch.no_grad():
        net(v1)
    with Multiplications() as step:
        make_stepper(config, net)(v1, v2, ex.seeded(0))
    assert step.count / one.count == pytest.approx(step_passes(config), abs=0.3)


class Multiplications(TorchDispatchMode):
    """Counts those of every convolution, forward and backward (only the gradients that are asked for)."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if func in (torch.ops.aten.convolution.default, torch.ops.aten.convolution_backward.default):
            self.count += flop_registry[func.overloadpacket](*args, **(kwargs or {}), out_val=out)
        return out


def test_a_cell_is_named_by_what_determines_it(data):
    found, base = fingerprint(data), ex.TrainConfig(**TINY)

    def key(config, **more):
        return Cell(config, **more).key(found)

    same = [
        base.with_(data_dir="/elsewhere", knn_every=3, knn_images=9),
        base.with_(steps=9, noise_norm="l2", gaussian_by="variance"),  # of PGD, of noise
        base.with_(feature_eps=0.3, hardness=3.0),  # of other losses
    ]
    assert {key(c) for c in same} == {key(base)}
    simclr = base.with_(attack="none")
    assert key(base.with_(loss="ifm", hardness=3.0)) == key(base.with_(loss="ifm"))
    assert key(simclr) == key(simclr.with_(alpha=3.0, adv_reference="self", eps=0.1))
    assert key(simclr, trained=False) == key(base.with_(epochs=9, lr=0.1), trained=False)
    other = [
        *(base.with_(**{name: value}) for name, value in {"seed": 1, "eps": 0.1, "epochs": 3, "alpha": 0.5}.items()),
        *(base.with_(**{name: value}) for name, value in {"lr": 0.1, "train_images": 300, "temperature": 0.1}.items()),
        *(base.with_(attack="pgd", steps=steps) for steps in (2, 3)),
        *(base.with_(attack="gaussian", gaussian_by=by) for by in ("std", "variance")),
        *(base.with_(loss="ifm", feature_eps=eps) for eps in (0.1, 0.2)),
        *(base.with_(loss="hcl", hardness=beta) for beta in (1.0, 2.0)),
        simclr,
    ]
    keys = [
        key(base),
        *map(key, other),
        key(base, measure=QUICK),
        key(base, trained=False),
        key(base.with_(seed=1), trained=False),
    ]
    assert len(set(keys)) == len(keys)
    assert Cell(base).key(found) != Cell(base).key("other images")
    assert Cell(base).run_name(found) == Cell(base, QUICK).run_name(found)  # one training, whatever is measured


def test_a_new_setting_leaves_old_cells_their_names(data, monkeypatch):
    """Names that were given once, written down: where this fails, a setting was added (put it in `ADDED`) or SCHEMA is due."""
    base, found = ex.TrainConfig(dataset="fashion", crop="fitted"), "5c9848d76a3956f3"
    assert fingerprint(data) == found
    names = {Cell(base).key(found), Cell(base, trained=False).key(found), Cell(base.with_(attack="none")).key(found)}
    assert names == KNOWN
    monkeypatch.setattr(cells_room, "ADDED", {"jitter": 1.0})
    assert Cell(base).key(found) not in KNOWN
    assert Cell(base).key(found) != Cell(base.with_(jitter=0.5)).key(found)


def test_cells_from_before_a_setting_and_after_it_are_collected_together():
    """A record without `crop` beside one that has it: both say what they were trained with."""
    config = ex.TrainConfig(crop="fitted").to_dict()
    former = {name: value for name, value in config.items() if name not in BEFORE}
    about = {
        "training": {"trained": True},
        "device": "cpu",
        "versions": {},
        "run": None,
        "seconds": 1.0,
        "commit": None,
    }
    row = {"metric": "probe", "value": 0.5, "n": 10, "interval": (0.4, 0.6)}
    records = [("new", {**about, "rows": [row], "config": config}), ("old", {**about, "rows": [row], "config": former})]
    for order in (records, records[::-1]):
        found = collect(order, {})
        assert {ex.TrainConfig.from_dict(found.config(name)) for name in ("old", "new")} == {
            ex.TrainConfig(crop="fitted")
        }


def test_the_fingerprint_is_of_pixels_and_labels(data):
    before = fingerprint(data)
    assert before == fingerprint(ex.load("fashion"))
    for tensor in ("stored", "labels"):
        changed = ex.load("fashion")
        getattr(changed.test, tensor).view(-1)[5] += 1
        assert fingerprint(changed) != before


def test_grids_are_what_they_say():
    base = ex.TrainConfig(**TINY)
    grid = train_eps_cells(base, ("none", "fgsm", "gaussian-variance"), eps=[4 / 255, 8 / 255], seeds=2)
    told = [(c.trained, c.config.attack, c.config.gaussian_by, round(c.config.eps * 255), c.config.seed) for c in grid]
    assert told[:6] == [
        (False, "none", "std", 0, 0),
        (True, "none", "std", 0, 0),
        *((True, "fgsm", "std", k, 0) for k in (4, 8)),
        *((True, "gaussian", "variance", k, 0) for k in (4, 8)),
    ]
    assert len(told) == 12 and {t[-1] for t in told[6:]} == {1}
    assert [c.config.attack for c in attack_cells(base, seeds=[5])] == ["none", "none", "fgsm", "rfgsm", "ffgsm", "pgd"]
    costs = {"fgsm": (10, 15), "rfgsm": (10, 18), "pgd": (10, 32)}
    for name, (epochs, longer) in costs.items():
        _, clae, simclr = equal_compute_cells(base.with_(epochs=epochs), [name], seeds=1)
        assert clae.config.attack == name and (simclr.config.attack, simclr.config.epochs) == ("none", longer)
    with pytest.raises(ex.UserError, match="Did you mean fgsm"):
        train_eps_cells(base, ["fgsn"])


def test_a_study_runs_what_is_missing_and_nothing_else(small, root, monkeypatch):
    ran = []
    real = cells_room.train
    monkeypatch.setattr(cells_room, "train", lambda config, *a, **k: ran.append(config) or real(config, *a, **k))
    base, about = ex.TrainConfig(**TINY), {"methods": ["none", "fgsm"], "seeds": 1, "out": root / "s"}
    first = accuracy_vs_train_eps(base, eps=[8 / 255], measure=QUICK, **about)
    assert [c.attack for c in ran] == ["none", "fgsm"] and len(first) == 6 and first.provenance["missing"] == 0
    files = {p: p.read_bytes() for p in (root / "s" / "cells").iterdir()}
    again = accuracy_vs_train_eps(base, eps=[8 / 255], measure=QUICK, **about)
    assert len(ran) == 2 and timeless(again).equals(timeless(first))
    edited = accuracy_vs_train_eps(base, eps=[4 / 255, 8 / 255], measure=QUICK, **about)  # one eps more
    assert [(c.attack, round(255 * c.eps)) for c in ran[2:]] == [("fgsm", 4)] and len(edited) == 8
    measured = accuracy_vs_train_eps(base, eps=[8 / 255], measure=Measure(k=5, neighbours=500, l2=100.0), **about)
    assert len(ran) == 3 and len(measured) == 6  # another question to the same trainings
    shared = equal_compute(base, attacks=["fgsm"], eps=8 / 255, seeds=1, measure=QUICK, out=root / "s")
    assert [c.epochs for c in ran[3:]] == [3]  # the longer SimCLR; the other two cells are the first study's
    assert shared.table.groupby("cell").cost.first().tolist().count(18) == 2
    assert all(p.read_bytes() == was for p, was in files.items())
    loaded = Sweep.load(root / "s" / "train-eps")
    assert loaded.table.equals(measured.table)
    config = ex.TrainConfig.from_dict(loaded.config(loaded.where(attack="fgsm").table.cell.iloc[0]))
    assert config == base.with_(eps=8 / 255)
    run = ex.open_run(loaded.where(attack="fgsm").table.run.iloc[0])
    assert run.config == config and run.status["state"] == "done"


def test_a_cells_numbers_are_those_of_its_encoder(small, root):
    base = ex.TrainConfig(**{**TINY, "knn_images": 500})
    out = list(run_cells([Cell(base, Measure(neighbours=500)), Cell(base, QUICK, trained=False)], root))
    run = Run(root / "runs" / out[0].record["run"])
    by = {row["metric"]: row for row in out[0].record["rows"]}
    assert by["knn"]["value"] == run.rows()[-1]["knn"]  # live kNN of the same neighbours
    assert out[1].record["rows"][0]["value"] == run.rows()[0]["knn"]  # before the first step
    assert out[1].record["run"] is None and not (run.path / "resume.safetensors").exists()
    h, y = embed(run.encoder(), small.labelled)
    probe = ex.Probe().fit(h, y)
    assert (
        by["probe"]["value"] == probe.score(*embed(run.encoder(), small.test)).top1 and by["probe"]["l2"] == probe.l2_
    )
    assert by["probe"]["n"] == 300 and by["probe"]["interval"] == pytest.approx(wilson(by["probe"]["value"], 300))
    record = json.loads((root / "cells" / f"{out[0].key}.json").read_text())
    assert (
        record["seconds"] > record["training_seconds"] > 0
        and record["versions"]["torch"] == torch.__version__.split("+")[0]
    )
    assert str(root) not in json.dumps(record)


def test_a_broken_or_foreign_cell_file_is_run_again(small, root):
    (cell,) = few(["none"])
    (done,) = run_cells([cell], root)
    path = root / "cells" / f"{done.key}.json"
    whole = path.read_text()
    for text in ("", whole[:100], whole.replace('"l2": 100.0', '"l2": 99.0', 1), "[]"):
        path.write_text(text)
        assert read_cell(root, done.key) is None
        (again,) = run_cells([cell], root)
        assert not again.kept and again.record["rows"] == done.record["rows"]
    assert next(run_cells([cell], root)).kept


def test_a_stopped_sweep_goes_on_and_equals_an_uninterrupted_one(small, root):
    grid, asked = few(), iter(range(1, 999))
    whole = run_grid("s", grid, out=root / "whole" / "s")
    stopped = list(run_cells(grid, root / "parts" / "s", should_stop=lambda: next(asked) > 12))  # in the second cell
    assert [d.cell.config.attack for d in stopped] == ["none"]
    assert gather("s", grid, root / "parts" / "s").provenance["missing"] == 1
    (states,) = [[Run(p).status["state"] for p in sorted((root / "parts/s/runs").iterdir())]]
    assert sorted(states) == ["done", "stopped"]
    parts = run_grid("s", grid, out=root / "parts" / "s")
    assert timeless(parts).drop(columns="run").equals(timeless(whole).drop(columns="run"))


def test_a_cell_that_fails_says_so_and_the_others_go_on(small, root):
    grid = [*few(["none"], lr=1e12, precision="fp32"), *few(["none"])]
    seen = []
    found = run_grid("s", grid, out=root, progress=lambda done, progress: seen.append((done.error, progress.failed)))
    assert "loss became" in seen[0][0] and seen[1] == (None, 1) and len(found) == 2
    assert list(found.provenance["failed"].values()) == [seen[0][0]] and found.provenance["missing"] == 1
    with pytest.raises(ex.UserError, match=r"None of 1 cells could be run; the first: The loss became"):
        run_grid("s", grid[:1], out=root)


def test_what_cannot_run_is_refused_before_anything_is_trained(small, root):
    cases = [
        (few(train_images=32), {}, "larger than the 32 training images"),
        (few(arch="resnet11"), {}, "Did you mean"),
        (few(), {"engine": "slurm"}, "'local' or 'ray'"),
        (few(), {"workers": 0}, "1 or more"),
        (few(), {"device": "cuda:77"}, "cuda"),
        (few(), {"gpu_share": 2.0}, "share of a GPU"),
        ([], {}, "one cell or more"),
    ]
    for grid, options, sentence in cases:
        with pytest.raises(ex.UserError, match=sentence):
            list(run_cells(grid, root / "s", **options))
    assert not list((root / "s").rglob("config.json"))


def test_two_sweeps_do_not_work_in_one_folder(small, root):
    running = run_cells(few(), root)
    next(running)
    with pytest.raises(ex.UserError, match="Another sweep is at work"):
        next(run_cells(few(), root))
    running.close()
    assert next(run_cells(few(), root)).kept
    (root / "file").write_text("")
    with pytest.raises(ex.UserError, match="Nothing can be written"):
        next(run_cells(few(), root / "file" / "out"))


def test_the_time_left_is_judged_by_the_cells_finished_here(data, monkeypatch):
    clock = [1000.0]
    monkeypatch.setattr(task.time, "monotonic", lambda: clock[0])
    simclr, clae = few()  # cost 12 and 18, measuring 5 each
    cells = [simclr, clae, *few(["fgsm"], seed=1), *few(["none"], seed=1)]
    progress = StudyProgress(cells, workers=2)
    done = {"key": "", "record": {"seconds": 34.0}}
    progress.note(task.Done(clae, **done, kept=True))
    assert progress.seconds_left is None  # nothing was finished here
    progress.note(task.Done(simclr, **done))  # 17 units in 34 s: 2 s a unit, 40 units and two workers remain
    assert progress.seconds_left == pytest.approx(2 * (23 + 17) / 2)
    clock[0] += 10
    assert progress.seconds_left == pytest.approx(30)
    progress.note(task.Done(cells[2], "", None, error="failed"))
    assert progress.seconds_left == pytest.approx(2 * 17 - 10) and progress.through == 3
    progress.note(task.Done(cells[3], **done))
    assert progress.seconds_left == 0
    cluster = StudyProgress(cells, workers=None)
    clock[0] += 10
    for cell in cells[:2]:  # 17 + 23 units, 80 s of work in 10 s: eight at once, but only two remain
        cluster.note(task.Done(cell, "", {"seconds": 40.0}))
    assert cluster.seconds_left == pytest.approx(80 / 40 * 40 / 2)


# ---- processes

SCRIPT = """
import sys
from explore import TrainConfig
from explore.studies import Measure, run_grid, train_eps_cells
base = TrainConfig(**{tiny!r})
grid = train_eps_cells(base, ["none", "fgsm"], eps=[4 / 255, 8 / 255], seeds=1, measure=Measure(neighbours=500, l2=100.0))
run_grid("s", grid, out={out!r}, workers={workers}, threads=1, engine={engine!r})
"""


def script(root, workers=1, engine="local"):
    """A sweep of four cells."""
    tiny = {**TINY, "epochs": 6, "dataset": "emoji", "knn_images": 200}
    return SCRIPT.format(tiny=tiny, out=str(root / "s"), workers=workers, engine=engine)


def start(root, *how):
    """That sweep in a process of its own, in a process group of its own."""
    env = {**os.environ, "CLAE_RUNS": str(root), "OMP_NUM_THREADS": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(
        [sys.executable, "-c", script(root, *how)], cwd=ROOT, env=env, start_new_session=True, **pipes
    )


def wait_for(process, condition, seconds=120):
    began = time.monotonic()
    while not (found := condition()):
        assert process is None or process.poll() is None, process.communicate()[0]
        assert time.monotonic() - began < seconds
        time.sleep(0.02)
    return found


def training(root):
    """The runs that are past their first epoch and not done."""
    begun = [Run(path.parent) for path in (root / "s" / "runs").glob("*/resume.safetensors")]
    return [run for run in begun if run.status["state"] == "running"]


def killed(process, root):
    """Kill the sweep, its workers held still so that they must go by themselves, if two cells are stored and a third
    training has half of its epochs before it; else let it go on."""
    os.killpg(process.pid, signal.SIGSTOP)
    try:
        rows = [len((run.path / "metrics.jsonl").read_text().splitlines()) for run in training(root)]
        if found := len(list((root / "s" / "cells").glob("*.json"))) >= 2 and any(n <= 3 for n in rows):
            os.kill(process.pid, signal.SIGKILL)
        return found
    finally:
        os.killpg(process.pid, signal.SIGCONT)  # one that is not waited for yet still names its group


def finish(root, patch):
    """The same sweep in this process, which goes on where another was killed."""
    patch.setenv("CLAE_RUNS", str(root))
    place: dict = {}
    exec(script(root), place)
    return Sweep.load(root / "s" / "s")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The table of an uninterrupted sweep."""
    root = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        return finish(root, patch)


@pytest.mark.slow
@UNIX
@pytest.mark.parametrize("workers", [1, 2])
def test_killed_in_the_middle_it_loses_nothing_and_runs_nothing_twice(tmp_path, whole, workers, monkeypatch):
    cells = tmp_path / "s" / "cells"
    with start(tmp_path, workers) as process:
        wait_for(process, lambda: killed(process, tmp_path))
        pids = [run.status["pid"] for run in training(tmp_path)]
        process.wait()
    if workers > 1:  # its processes die with it
        wait_for(None, lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids) or not Path("/proc").exists(), 60)
    before = {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in cells.glob("*.json")}
    assert 2 <= len(before) < 4
    begun = [p.with_name("metrics.jsonl") for p in (tmp_path / "s" / "runs").glob("*/resume.safetensors")]
    saved = {p: json.loads(p.read_text().splitlines()[0])["seconds"] for p in begun}
    assert saved
    found = finish(tmp_path, monkeypatch)
    assert timeless(found).equals(timeless(whole))
    assert all((p.read_bytes(), p.stat().st_mtime_ns) == was for p, was in before.items())
    for path, first in saved.items():  # the training under way went on: its first row is still the first process's
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        assert rows[0]["seconds"] == first and [r["step"] for r in rows] == sorted({r["step"] for r in rows})


@pytest.mark.slow
@UNIX
def test_a_lost_process_costs_nothing_but_time(tmp_path, whole):
    with start(tmp_path, 2) as process:
        (run, *_) = wait_for(process, lambda: training(tmp_path))
        os.kill(run.status["pid"], signal.SIGKILL)
        out = process.communicate(timeout=300)[0]
    assert process.returncode == 0, out
    assert timeless(Sweep.load(tmp_path / "s" / "s")).equals(timeless(whole))


@pytest.mark.slow
@UNIX
def test_ray_gives_the_same_table_and_replaces_a_lost_worker(tmp_path, whole):
    pytest.importorskip("ray", reason="Ray is not installed; pip install '.[cluster]'")
    with start(tmp_path, 2, "ray") as process:
        (run, *_) = wait_for(process, lambda: training(tmp_path))
        os.kill(run.status["pid"], signal.SIGKILL)
        out = process.communicate(timeout=300)[0]
    assert process.returncode == 0, out
    assert timeless(Sweep.load(tmp_path / "s" / "s")).equals(timeless(whole))


def test_without_ray_it_says_what_to_install(data, root, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ex.UserError, match=r'pip install "clae-explorer\[cluster\]"'):
        list(run_cells(few(), root, engine="ray"))


# ---- what ships

SHIPPED = ROOT / "data" / "studies"


@pytest.mark.skipif(not (SHIPPED / "train-eps.parquet").is_file(), reason="no shipped studies: make studies")
def test_the_shipped_studies_are_whole(data):
    found = {
        name: Sweep.load(SHIPPED / name) for name in ("train-eps", "attacks", "equal-compute", "loss-eps", "test-eps")
    }
    train = found["train-eps"].summary().query("metric == 'probe'")
    assert set(train.n) == {3}
    counts = train.groupby("attack").k.nunique()
    assert min(counts[name] for name in ("fgsm", "gaussian", "uniform")) >= 6 and counts["gaussian-variance"] >= 3
    assert "SimCLR" in set(train.method)
    attacks = found["attacks"].summary()
    assert {"fgsm", "rfgsm", "ffgsm", "pgd", "sign", "none"} == set(attacks.attack) and set(attacks.n) == {3}
    costs = found["equal-compute"].table.query("method == 'SimCLR'").cost
    assert found["equal-compute"].table.query("attack == 'fgsm'").cost.iloc[0] in set(costs)
    for name in ("train-eps", "attacks", "equal-compute"):
        for cell in (
            found[name].table.drop_duplicates("cell").itertuples()
        ):  # a name is the hash of what it was made from
            config = ex.TrainConfig.from_dict(found[name].config(cell.cell))
            assert Cell(config, trained=cell.method != "untrained").key(fingerprint(data)) == cell.cell
    for name in ("loss-eps", "test-eps"):
        assert set(found[name].summary().n) == {3} and set(found[name].table.match) == {"linf", "l2"}
    for name, sweep in found.items():
        for path in SHIPPED.glob(f"{name}.[cj]s*"):
            assert not any(word in path.read_text() for word in ("/home", "/tmp", "/work", "/root"))
        assert sweep.provenance["command"] == "python data/make_studies.py" and sweep.table.commit.str.len().gt(6).all()


# ---- the command line

WORDS = ["sweep", "--width=8", "--epochs=1", "--batch-size=64", "--train-images=256", "--seeds=1", "--eps=8/255"]


def test_smoke_writes_its_table(small, root, capsys):
    assert main(["sweep", "--smoke", "--json"]) == 0
    out, err = capsys.readouterr()
    said = json.loads(out)
    assert {row["method"] for row in said["rows"]} == {"untrained", "SimCLR", "CLAE (fgsm)", "SimCLR + gaussian noise"}
    assert "4/4" in err and "about 0 s left" in err
    found = Sweep.load(said["path"])
    assert len(found) == 8 and found.provenance["study"] == "train-eps"
    assert main(["sweep", "--smoke", "--study", "loss-eps"]) == 0
    assert "fgsm" in capsys.readouterr().out
    assert set(Sweep.load(root / "sweeps" / "loss-eps").table.run) == {"demo/simclr", "demo/clae"}


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--eps", "8"], "Did you mean 8/255?"),
        (["--eps", "2/255,x"], "written as 8/255"),
        (["--methods", "fgsn"], "Did you mean fgsm"),
        (["--methods", ","], "one method"),
        (["--seeds", "0"], "one seed"),
        (["--workers", "0"], "1 or more"),
        (["--engine", "slurm"], "invalid choice"),
        (["--study", "attacks", "--eps", "1/255,2/255"], "at one eps"),
        (["--attack", "fgsm"], "--methods"),
        (["--run", "demo/clae"], "belongs to the studies loss-eps, test-eps"),
        (["--study", "loss-eps", "--seeds", "2"], "belongs to the studies train-eps"),
        (["--study", "loss-eps", "--epochs", "2"], "trained already"),
        (["--study", "loss-eps", "--run", "demo/clea"], "Did you mean demo/clae"),
        (["--dataset", "fasion"], "Did you mean fashion"),
        (["--device", "cuda:77"], "cuda"),
        (["--nonsense"], "--nonsense"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_2(root, capsys, words, sentence):
    assert main(["sweep", *words]) == 2
    err = capsys.readouterr().err
    assert sentence in err and err.startswith("error: ") and err.count("\n") == 1
    assert not list(root.rglob("config.json"))


@pytest.mark.slow
@UNIX
@pytest.mark.parametrize("engine", [["--workers=1"], ["--workers=2"], ["--workers=2", "--engine=ray"]], ids=" ".join)
def test_ctrl_c_ends_cleanly_and_says_how_to_go_on(root, engine):
    if "--engine=ray" in engine:
        pytest.importorskip("ray", reason="Ray is not installed; pip install '.[cluster]'")
    words = [*WORDS, "--epochs=200", "--threads=1", *engine, f"--out={root / 's'}"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "start_new_session": True}
    with subprocess.Popen([sys.executable, "-m", "explore", *words], cwd=ROOT, **pipes) as process:
        pids = wait_for(process, lambda: training(root))
        os.killpg(process.pid, signal.SIGINT)  # as the terminal does: to all of its processes
        out, err = process.communicate(timeout=120)
    assert process.returncode == 130 and "Traceback" not in err, err
    assert "stopped; what is finished is kept, the same command goes on: python -m explore sweep" in out
    assert "--out" in out
    wait_for(None, lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids if pid != process.pid), 60)
    if "--engine=ray" not in engine:
        assert "stopped" in {Run(p.parent).status["state"] for p in (root / "s").glob("runs/*/config.json")}
