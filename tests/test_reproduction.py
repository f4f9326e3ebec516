"""The reproduction: tuning on validation images, rows, what is measured on runs, verdicts, and what is shipped of it."""

import json
from dataclasses import replace
from functools import partial

import pandas as pd
import pytest
import torch
from PIL import Image

import explore as ex
from explore.cli import main
from explore.evaluate import robust_accuracy
from explore.experiments import metrics
from explore.experiments.cell import Cell
from explore.results import Finding, Sweep
from explore.results.scorecard import FAILS, HOLDS, NOT_RUN, OPEN, OUT_OF_REACH, VERDICTS, together
from explore.runfolder import Run
from explore.studies import Measure, scorecard
from explore.studies.reproduction import carry, claims, run
from explore.studies.reproduction import rows as plan
from explore.studies.reproduction.rows import GRID, METHODS, TIERS, Tier, rows, trial_cells, trials

CLASSES = ["boots", "shirts", "bags"]


def write_set(folder, classes, train, test, labels):
    """A folder of Fashion-MNIST's images: so many of each class to train on and to test."""
    for side, split, n in (("train", ex.load("fashion").train, train), ("test", ex.load("fashion").test, test)):
        for name, label in zip(classes, labels, strict=True):
            (folder / side / name).mkdir(parents=True)
            for i, image in enumerate(split.stored[split.labels == label][:n]):
                Image.fromarray(image.squeeze().numpy()).save(folder / side / name / f"{i}.png")
    return f"folder:{folder}"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A tier of trainings of two steps an epoch: 360 images of three classes, 75 to test."""
    images = write_set(tmp_path_factory.mktemp("images") / "own", CLASSES, 120, 25, (9, 6, 8))
    other = write_set(tmp_path_factory.mktemp("images") / "other", ["trousers", "sandals"], 20, 10, (1, 5))
    size = {"arch": "resnet10", "width": 4, "batch_size": 128, "image_size": 16, "knn_images": 100, "knn_every": 0}
    base = ex.TrainConfig(dataset=images, epochs=1, train_images=256, **size)
    measure = Measure(neighbours=200, l2=100.0, robust=8 / 255, attacked=20, z=True, transfer=(other,))
    return Tier("cpu", base, seeds=2, few=2, trials=2, tuning_epochs=1, validation=100, measure=measure)


@pytest.fixture(scope="module")
def made(tiny, tmp_path_factory):
    """A whole tiny reproduction: (folder of cells, folder of tables)."""
    out = tmp_path_factory.mktemp("reproduction")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CLAE_RUNS", str(out))
        patch.setattr(plan, "TUNING", Measure(neighbours=200, l2=100.0))
        patch.setattr(
            metrics, "robust_accuracy", partial(robust_accuracy, steps=1)
        )  # of 20 steps it is in tests/test_gpu.py
        folder = out / "cpu"
        recipes = run.tune(tiny, out)
        run.keep_recipes(folder, tiny, recipes, out)
        lines = rows(tiny, recipes)
        run.train_rows(plan.by_worth(lines, tiny), out)
        run.table(lines, out).save(folder / "rows")
        run.looks(lines, out, say=lambda line: None).save(folder / "looks")
    return out, folder


def test_validation_images_are_training_images_that_are_kept_out():
    data = ex.load("fashion")
    chosen = data.for_choosing(1000)
    assert (len(chosen.train), len(chosen.test)) == (9000, 1000) and chosen.labelled is chosen.train
    assert torch.bincount(chosen.test.labels).tolist() == [100] * 10

    def sums(split):
        return split.stored.double().flatten(1) @ torch.arange(1.0, 1 + split.stored[0].numel(), dtype=torch.float64)

    train, test, whole = set(sums(chosen.train).tolist()), set(sums(chosen.test).tolist()), sums(data.train).tolist()
    assert not train & test and len(train | test) == len(set(whole)) and train | test == set(whole)
    assert torch.equal(chosen.test.stored, data.for_choosing(1000).test.stored)  # always the same
    assert data.for_choosing(0) is data
    for n in (10_000, 20_000):
        with pytest.raises(ex.UserError, match="leaves 1"):
            data.for_choosing(n)


def test_a_training_with_validation_images_never_sees_them_nor_the_test_images():
    data = ex.load("fashion")
    config = ex.TrainConfig.smoke().with_(validation=9500, train_images=None, attack="none", knn_every=0)
    rows = list(ex.train(config, data))
    assert rows[-1]["step"] == 500 // 64  # an epoch of what is left
    assert Cell(config).key("x") != Cell(config.with_(validation=0)).key("x")


def test_both_methods_are_tuned_with_one_budget_on_the_same_settings():
    simclr, clae = trials(TIERS["cpu"], "simclr"), trials(TIERS["cpu"], "clae")
    assert len(simclr) == len(clae) == TIERS["cpu"].trials
    assert [{k: v for k, v in t.items() if k != "eps"} for t in clae] == simclr
    assert {t["eps"] for t in clae} <= set(GRID)
    assert simclr[0] == {name: getattr(ex.TrainConfig(dataset="cifar10"), name) for name in plan.SPACE}
    for method in METHODS:
        for cell in trial_cells(TIERS["cpu"], method):
            assert cell.config.validation == TIERS["cpu"].validation and cell.config.attack == METHODS[method]


def test_the_rows_differ_from_simclr_in_what_they_say_alone():
    recipes = {"simclr": {"temperature": 0.3}, "clae": {"temperature": 0.4, "eps": 2 / 255}}
    found = {row.name: row for row in rows(TIERS["gpu"], recipes)}
    plain = found["simclr"].config

    def differs(name, base=plain):
        one, other = found[name].config.to_dict(), base.to_dict()
        return {k for k in one if one[k] != other[k]}

    assert differs("fgsm-4") == {"attack", "eps"} == differs("gaussian-16") == differs("uniform-4")
    assert differs("clae") == {"attack", "eps", "temperature"} and differs("longer") == {"epochs"}
    assert differs("shared-bn", found["fgsm-4"].config) == {"dual_bn"}
    assert differs("self-4", found["fgsm-4"].config) == {"adv_reference", "attack_branch"}
    assert differs("uel-fgsm-4", found["uel"].config) == {"attack", "eps"} and differs("uel") == {"loss"}
    assert differs("paper-code", found["paper-simclr"].config) == {"attack", "eps"}
    assert differs("resnet50-fgsm-4", found["resnet50"].config) == {"attack", "eps"}
    assert found["longer"].config.epochs == 150  # 9 passes for 6
    assert len(found) == len({row.title for row in found.values()})


def test_the_settings_with_the_best_validation_figure_win(made, tiny):
    _, folder = made
    kept = json.loads((folder / "recipes.json").read_text())
    for method in METHODS:
        tried = kept["trials"][method]
        best = max(tried, key=lambda t: t["probe"])
        assert len(tried) == tiny.trials
        assert kept["recipes"][method] == {k: best[k] for k in kept["recipes"][method]}


def test_every_row_is_measured_and_nothing_is_run_twice(made, tiny, monkeypatch):
    out, folder = made
    monkeypatch.setenv("CLAE_RUNS", str(out))
    lines = rows(tiny, run.recipes_of(folder))
    table = Sweep.load(folder / "rows")
    measured = {"knn", "knn z", "probe", "robust", f"transfer {tiny.measure.transfer[0]}", "seconds of training"}
    for row in lines:
        own = table.where(method=row.name).table
        assert set(own.metric) == measured and own.groupby("metric").seed.nunique().eq(row.seeds).all()
        assert (own[own.metric == "probe"].n == 75).all() and (own[own.metric == "robust"].n == 20).all()
    seen = []
    run.train_rows(plan.by_worth(lines, tiny), out, progress=lambda stage, done, progress: seen.append(done.kept))
    assert seen and all(seen)


def test_a_row_run_again_stands_beside_what_is_shipped(made, tiny, monkeypatch):
    out, folder = made
    monkeypatch.setenv("CLAE_RUNS", str(out))
    lines = rows(tiny, run.recipes_of(folder))[:1]
    both = run.beside(run.table(lines, out), folder)
    assert both["mean"].equals(both.shipped) and both.agrees.all() and set(both.row) == {"simclr"}
    assert "shipped" not in run.beside(run.table(lines, out), folder / "nothing")


def test_looks_answer_what_they_say(made, tiny):
    _, folder = made
    looks = Sweep.load(folder / "looks")
    above = looks.where(metric="above", method="simclr").table
    rise = looks.where(metric="rise", method="simclr").table.pivot_table(
        index=["seed", "eps"], columns="attack", values="value"
    )
    assert len(above) == 2 * 2 and above.value.between(0, 1).all() and above.n.eq(75 // 64).all()
    assert (rise.fgsm > rise.uniform).all()  # FGSM raises the loss more than noise does, also on an encoder this poor
    share = looks.where(metric="positive share").table.set_index(["against", "seed"]).value
    assert (share["self"] < 1e-3).all() and (share["view"] > 0.05).all()
    assert (looks.where(metric="cosine", against="self").table.value < 1).all()
    shift = looks.where(metric="best - last").table.value
    assert len(shift) == 2 and (shift >= 0).all()


def test_the_scorecard_reads_its_verdicts_from_the_tables(made, tmp_path):
    _, folder = made
    card = scorecard("cpu", folder)
    assert len(card.claims) == 12 and all(c.verdict in VERDICTS for c in card.claims)
    assert card.claim(4).verdict == OUT_OF_REACH and card.claim(7).verdict == NOT_RUN
    assert card.claim(10).verdict in (HOLDS, OPEN)
    for number in (0, 13):
        with pytest.raises(ex.UserError, match="numbered 1 to 12"):
            card.claim(number)
    assert "--row fgsm-4" in card.claim(3).command and len(card.table) > 30

    table = Sweep.load(folder / "rows")

    def verdict(gain):
        changed = table.table.copy()
        rows = (changed.metric == "probe") & changed.method.isin(claims.ATTACKED)
        base = changed[(changed.metric == "probe") & (changed.method == "simclr")].set_index("seed").value
        wobble = changed.seed * 1e-4
        changed.loc[rows, "value"] = (changed.seed.map(base) + gain + wobble)[rows]
        Sweep(changed, table.provenance).save(tmp_path / "rows")
        Sweep.load(folder / "looks").save(tmp_path / "looks")
        return scorecard("cpu", tmp_path).claim(3).verdict

    assert verdict(0.02) == HOLDS and verdict(-0.02) == FAILS and verdict(-0.00005) == OPEN
    with pytest.raises(ex.UserError, match="no tables"):
        scorecard("cpu", tmp_path / "nowhere")


def test_one_seed_is_judged_and_says_that_it_shows_nothing(made, tmp_path):
    _, folder = made
    for name in ("rows", "looks"):
        Sweep.load(folder / name).where(seed=0).save(tmp_path / name)
    card = scorecard("cpu", tmp_path)
    assert card.claim(3).verdict == OPEN and card.claim(3).why.endswith("; n = 1 seed shows no difference of any size")
    assert card.family.below == card.family.below_holm == 0 and set(card.verdicts.p_holm) == {""}


def test_the_command_prints_how_many_comparisons_stay(made, tiny, monkeypatch, capsys):
    out, folder = made
    monkeypatch.setenv("CLAE_RUNS", str(out))
    monkeypatch.setitem(TIERS, "cpu", tiny)
    monkeypatch.setattr(plan, "TUNING", Measure(neighbours=200, l2=100.0))
    family = scorecard("cpu", folder).family
    assert main(["reproduce", "--out", str(out)]) == 0  # all of it is on disk
    text = capsys.readouterr().out
    assert "p (Holm)" in text and "could show" in text and f"{family}; {family.could_show}." in text
    assert main(["reproduce", "--out", str(out), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    found = {"n": len(family), "p_below_0.05": family.below, "p_holm_below_0.05": family.below_holm}
    assert answer["comparisons"] == found and {"p", "p_holm", "could_show"} <= set(answer["claims"][0])


def test_verdicts_follow_intervals():
    def found(low, high, expected="above"):
        return Finding("x", (low + high) / 2, low, high, 3, "seeds", "points", expected)

    up, down, around = found(0.1, 0.5), found(-0.5, -0.1), found(-0.1, 0.4)
    assert [f.verdict for f in (up, down, around)] == [HOLDS, FAILS, OPEN]
    assert found(-0.5, -0.1, "below").verdict == HOLDS and found(0.1, 0.2, "").verdict == ""
    assert together([up, up]) == HOLDS and together([up, around]) == OPEN and together([up, around, down]) == FAILS
    assert found(float("nan"), float("nan")).verdict == OPEN  # one seed settles nothing
    assert "+0.3 points (+0.1 to +0.5), n = 3 seeds" in str(up)


def test_the_command_runs_one_row_and_says_what_is_wrong(tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("CLAE_RUNS", str(tmp_path))
    monkeypatch.setitem(TIERS, "cpu", replace(tiny, seeds=1, few=1))
    monkeypatch.setattr(plan, "TUNING", Measure(neighbours=200, l2=100.0))
    assert main(["reproduce", "--row", "simclr", "--seeds", "1", "--tune", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert {row["row"] for row in answer["rows"]} == {"simclr"} and answer["tier"] == "cpu"
    assert main(["reproduce", "--row", "simclrr"]) == 2
    assert "There is no row 'simclrr'. Did you mean simclr" in capsys.readouterr().err
    assert main(["reproduce", "--tier", "tpu"]) == 2 and "cpu or gpu" in capsys.readouterr().err
    assert main(["reproduce", "--seeds", "0"]) == 2 and "1 or more" in capsys.readouterr().err


def test_a_tier_that_was_not_run_says_so():
    card = scorecard("gpu")
    if not (run.shipped_folder("gpu") / "rows.csv").is_file():
        assert {c.verdict for c in card.claims} == {NOT_RUN}
        assert all(c.command == "make reproduce TIER=gpu" for c in card.claims)
    assert isinstance(card.table, pd.DataFrame) and len(card.table) >= 12


def test_what_is_worth_most_comes_first():
    tier = TIERS["gpu"]
    lines = rows(tier, tier.recipes)
    assert "clae" not in {row.name for row in lines}  # CLAE's settings are given: they are those of fgsm-4
    cells = plan.by_worth(lines, tier)
    first = [(c.config.attack, c.config.seed) for c in cells[:6]]
    assert first == [(attack, seed) for seed in range(3) for attack in ("none", "fgsm")]
    late = [c.config.seed >= 3 for c in cells]
    assert late == sorted(late) and len(cells) == sum(row.seeds for row in lines)
    named = plan.by_worth([row for row in lines if row.name == "ifm"], tier, seeds=1)
    assert [c.config.loss_options for c in named] == [{"eps": 0.1}]


def test_for_some_minutes_does_whole_trainings_and_another_machine_goes_on(tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(TIERS, "gpu", replace(tiny, name="gpu", recipes={"simclr": {}, "clae": {}}, first=("simclr",)))
    asked = ["reproduce", "--tier", "gpu", "--row", "simclr", "--row", "fgsm-4", "--seeds", "1"]
    one, two, packed = tmp_path / "one", tmp_path / "two", tmp_path / "packed"
    assert main([*asked, "--out", str(one), "--minutes", "0"]) == 0 and "0 of 2" in capsys.readouterr().err

    clock = iter(range(0, 10_000, 30))  # seconds: every look at the clock is half a minute later
    with monkeypatch.context() as patch:
        patch.setattr(run.time, "monotonic", lambda: next(clock))
        left = run.train_for(
            1.7, plan.by_worth(rows(TIERS["gpu"], {"simclr": {}, "clae": {}})[:2], TIERS["gpu"], 1), one
        )
    assert len(left) in (1, 2)  # the time was over within a training, which is kept as it stood
    assert main([*asked, "--out", str(one), "--minutes", "9", "--pack", str(packed)]) == 0
    said = capsys.readouterr()
    assert "2 of 2 trainings are finished" in said.err and "fgsm-4" in said.out
    names = {path.name.split(".", 1)[1] for path in packed.iterdir()}
    assert names == {"json", "1.safetensors"} and len(list(packed.iterdir())) == 4

    assert main([*asked, "--out", str(two), "--minutes", "0", "--take", str(packed)]) == 0
    again = capsys.readouterr()
    assert "2 trainings taken" in again.err and again.out == said.out and not (two / "runs").exists()
    about = json.loads((two / "gpu" / "runs.json").read_text())
    assert about == json.loads((packed / "runs.json").read_text()) and len(about) == 2
    name = next(iter(about))
    own = Run(one / "runs" / name).encoder().state_dict()
    for part, weights in carry.packed_encoder(packed, name).items():
        torch.testing.assert_close(weights, own[part], rtol=1e-3, atol=1e-3)
    assert str(tmp_path) not in (packed / "runs.json").read_text()

    spoiled = json.loads((packed / "records.json").read_text())
    key = next(iter(spoiled))
    spoiled[key]["training"]["config"]["lr"] = 1.0
    (packed / "records.json").write_text(json.dumps(spoiled))
    assert main([*asked, "--out", str(tmp_path / "three"), "--minutes", "0", "--take", str(packed)]) == 2
    assert "does not match its name" in capsys.readouterr().err
    assert main([*asked, "--minutes", "-1"]) == 2 and "--minutes is 0" in capsys.readouterr().err
    assert main([*asked, "--out", str(two), "--minutes", "0", "--take", str(tmp_path / "nothing")]) == 2
    assert "There is no" in capsys.readouterr().err


def test_a_training_that_failed_is_not_finished(tiny, tmp_path, monkeypatch):
    cells = plan.by_worth(rows(tiny, {"simclr": {}, "clae": {}})[:2], tiny, 1)

    def fails(some, out, **engine):
        yield run.Done(some[0], "key", None, error="out of luck")

    monkeypatch.setattr(run, "run_cells", fails)
    told = []
    left = run.train_for(9, cells, tmp_path, progress=lambda stage, done, watch: told.append(done.error))
    assert left == cells and told == ["out of luck"] * len(cells)


def test_options_that_do_not_go_together_are_refused(capsys):
    assert main(["reproduce", "--pack", "somewhere"]) == 2 and "--pack goes with --minutes" in capsys.readouterr().err
    assert main(["reproduce", "--minutes", "1", "--workers", "2"]) == 2
    assert "--minutes trains one after the other, got --workers 2" in capsys.readouterr().err


def test_weights_are_packed_in_parts_and_come_back(monkeypatch, tmp_path):
    monkeypatch.setattr(carry, "LIMIT", 1000)
    tensors = {f"layer{i}": torch.randn(20, 10) for i in range(6)} | {"count": torch.tensor(7)}
    parts = carry._parts(tensors)
    assert all(sum(t.nbytes for t in part.values()) <= 1000 for part in parts) and len(parts) == 3
    for i, part in enumerate(parts, 1):
        carry.save_tensors(tmp_path / f"run.{i}.safetensors", part)
    back = carry.packed_encoder(tmp_path, "run")
    assert back["count"].item() == 7
    for name, t in tensors.items():
        torch.testing.assert_close(back[name].double(), t.double(), rtol=1e-3, atol=1e-4)


def test_a_tier_run_in_part_judges_what_it_can(made, tmp_path):
    _, folder = made
    some = Sweep.load(folder / "rows").table
    kept = some[some.method.isin(["simclr", "fgsm-4", "gaussian-4"])]
    about = Sweep.load(folder / "rows").provenance
    rows_of = {name: about["rows"][name] for name in ("simclr", "fgsm-4", "gaussian-4")}
    Sweep(kept, {**about, "rows": rows_of}).save(tmp_path / "rows")
    card = scorecard("cpu", tmp_path)
    assert card.claim(11).findings and card.claim(5).findings and len(card.family) == 2
    for n in (1, 2, 3, 6, 8, 9, 10, 12):
        assert card.claim(n).verdict == NOT_RUN, n
    assert card.claim(3).why == "the tier was run in part, without row 'rfgsm-4'"
