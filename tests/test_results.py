"""What ships of the reproduction: complete tables, RESULTS.md made of them, encoders that measure what their cards say."""

import importlib.util
import itertools
import math
import os
from pathlib import Path

import pytest
from dataset_files import write_cifar10, write_real_cifar10
from scipy import stats

import explore as ex
from explore import paths
from explore.evaluate import Probe, embed, knn_accuracy
from explore.results import Sweep, detectable
from explore.results.base import fixed
from explore.studies.reproduction.rows import TIERS, rows, tier_named
from explore.studies.reproduction.run import recipes_of, shipped_folder

ROOT = Path(__file__).resolve().parent.parent
ENCODERS = {"cifar10/simclr": "simclr", "cifar10/clae": "fgsm-4", "cifar10/gaussian": "gaussian-4"}


@pytest.fixture(scope="module")
def making():
    spec = importlib.util.spec_from_file_location("make_reproduction", ROOT / "data" / "make_reproduction.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def table():
    return Sweep.load(shipped_folder("cpu") / "rows")


@pytest.fixture(scope="module")
def cards():
    return {name: ex.studies.scorecard(name) for name in TIERS}


def test_the_tables_are_complete_and_say_where_every_number_comes_from(table):
    lines = rows(tier_named("cpu"), recipes_of(shipped_folder("cpu")))
    assert set(table.provenance["rows"]) == {row.name for row in lines}
    for row in lines:
        own = table.where(method=row.name, metric="probe").table
        assert sorted(own.seed) == list(range(row.seeds)) and row.seeds >= 3, row.name
    for column in ("commit", "device", "versions", "cell", "run"):
        assert (table.table[column].str.len() >= 3).all(), column
    assert not table.table.commit.str.contains("+", regex=False).any()  # nothing was trained with uncommitted code
    assert table.where(metric="probe").table.n.eq(10_000).all()


def test_results_md_is_what_the_tables_say(making, cards):
    assert (ROOT / "RESULTS.md").read_text() == making.page(cards)
    for tier, card in cards.items():
        for name, text in making.csv_files(tier, card).items():
            assert (shipped_folder(tier) / name).read_text() == text


def test_the_comparisons_of_the_page_are_those_of_the_table(table):
    """p, Holm's p and the pooled standard deviation again, from the values alone."""
    probe = table.where(metric="probe").table.pivot(index="seed", columns="method", values="value")
    pairs = [(a, row["against"]) for a, row in table.provenance["rows"].items() if a != row["against"]]
    gaps = [(100 * (probe[a] - probe[b])).dropna() for a, b in pairs]
    p = [stats.ttest_1samp(gap, 0).pvalue for gap in gaps]
    holm = {
        i: max((len(p) - sum(q < p[j] for q in p)) * p[j] for j in range(len(p)) if p[j] <= p[i]) for i in range(len(p))
    }
    sd = (sum(((gap - gap.mean()) ** 2).sum() for gap in gaps) / sum(len(gap) - 1 for gap in gaps)) ** 0.5
    text = (ROOT / "RESULTS.md").read_text()
    for i, (row, _) in enumerate(pairs):
        line = next(line for line in text.splitlines() if line.startswith(f"| `{row}` |"))
        could = {3: "2.0", 5: "1.0"}[len(gaps[i])]
        assert line.endswith(f" | {p[i]:.2g} | {min(1, holm[i]):.2g} | {could} |"), row
        assert could == f"{detectable(sd, len(gaps[i])):.1f}"
    words, below, after = " ".join(text.split()), sum(x < 0.05 for x in p), sum(x < 0.05 for x in holm.values())
    assert f"{len(p)} comparisons with a baseline by the probe: {below} with p < 0.05" in words
    assert f"{after} after Holm's correction (1979) for all {len(p)}" in words
    assert (
        f"n = 3 seeds could show 2.0 points, n = 5 seeds 1.0 (80 % power; the paired differences' standard deviation is {sd:.2f}"
        in words
    )
    short = " ".join((ROOT / "README.md").read_text().split())
    assert f"Of {len(p)} comparisons {below} have p < 0.05, {after} after Holm's correction" in short
    assert "three seeds could show 2.0 points, five 1.0" in short


def test_a_mean_that_is_a_half_is_rounded_alike_everywhere():
    """45.41, 45.58, 45.66: their mean is 45.55, its float is below or above the half by the order of the sum."""
    values = (0.4541, 0.4558, 0.4566)
    means = {100 * sum(order) / 3 for order in itertools.permutations(values)} | {45.55, math.nextafter(45.55, 46)}
    assert {fixed(mean) for mean in means} == {"45.6"} and len({f"{mean:.1f}" for mean in means}) == 2
    assert fixed(-0.25, sign=True) == "−0.3" and fixed(0.125, 2) == "0.13" and fixed(2.5, 0) == "3"
    assert fixed(1234.5678, 2) == "1234.57" and fixed(float("nan")) == "nan"


def test_the_readme_quotes_the_tables(table, cards):
    text = (ROOT / "README.md").read_text()
    pairs = [("fgsm-4", "simclr"), ("fgsm-4-long", "simclr-long"), ("fgsm-4", "longer"), ("self-4", "fgsm-4")]
    for name, base in [*pairs, ("paper-code", "paper-simclr"), ("gaussian-4", "simclr")]:
        d = table.paired({"method": base}, {"method": name}, metric="probe")
        mean, low, high = (f"{100 * v:+.1f}".replace("-", "−") for v in (d.mean, d.low, d.high))
        assert f"{mean} ({low} to {high}), {d.n} seeds" in text, name
    counts = cards["cpu"].verdicts.verdict.value_counts()
    assert counts.tolist() == [6, 2, 2, 1, 1] and "two hold, six do not hold" in text.replace("\n", " ")


def test_the_readme_and_notebook_11_quote_the_strong_tables():
    table = Sweep.load(shipped_folder("gpu") / "rows")
    simclr = 100 * table.where(method="simclr", metric="probe").table.value.mean()
    gain, noise = (
        table.paired({"method": "simclr"}, {"method": name}, metric="probe") for name in ("fgsm-4", "gaussian-4")
    )
    low, high = (f"{100 * v:+.1f}".replace("-", "−") for v in (gain.low, gain.high))
    readme = " ".join((ROOT / "README.md").read_text().split())
    assert f"all images, {simclr:.1f} %)" in readme
    assert f"CLAE {100 * gain.mean:+.1f} ({low} to {high}), {gain.n} seeds" in readme
    assert f"Gaussian noise {100 * noise.mean:+.1f}, {noise.n} seed" in readme
    words = {1: "one seed", 2: "two seeds"}
    text = (ROOT / "notebooks" / "11_scorecard.ipynb").read_text()
    assert f"over a SimCLR of {simclr:.1f} % CLAE has {100 * gain.mean:+.1f} points ({words[gain.n]})" in text
    assert f"Gaussian noise {100 * noise.mean:+.1f} ({words[noise.n]})" in text


def test_notebook_11_says_what_the_tables_say(table, cards):
    text = (ROOT / "notebooks" / "11_scorecard.ipynb").read_text()
    for metric in ("probe", "knn"):
        mean = 100 * table.where(metric=metric).summary().set_index("method")["mean"]
        for kind in ("fgsm", "gaussian"):
            assert ", ".join(f"{mean[f'{kind}-{k}']:.1f}" for k in (2, 4, 8, 16)) in text
    against = {name: row["against"] for name, row in table.provenance["rows"].items() if name != row["against"]}
    p = [table.paired({"method": b}, {"method": a}, metric="probe").p for a, b in against.items()]
    found, chance = sum(x < 0.05 for x in p), 0.05 * len(p)
    assert f"of {len(p)} comparisons {found} have p < 0.05, where chance alone would give {chance:.1f}" in text
    family = cards["cpu"].family
    names = [row for (row, _), x in family.p_holm.items() if x < 0.05]
    told = ", ".join(f"`{name}`" for name in names)
    assert f"after Holm's correction {family.below_holm} have it ({told})" in text and family.below == found
    three, five, eight, twenty = (f"{100 * detectable(family.sd, n):.1f}" for n in (3, 5, 8, 20))
    assert f"three seeds show {three} points, five {five}, eight {eight}, twenty {twenty}" in text
    edges = {n: float(stats.t.ppf(0.975, n - 1)) for n in (3, 5)}
    power = [
        f"{stats.nct.sf(edge, n - 1, 0.008 / family.sd * n**0.5):.0%}".replace("%", " %") for n, edge in edges.items()
    ]
    assert f"in {power[0]} of repetitions with three seeds, in {power[1]} with five" in text
    assert "Of the twelve, 2 hold (1, 10), 6 do not hold (2, 3, 6, 9, 11, 12), 2 are not settled (5, 8)" in text
    for claim, verdicts in {"holds": (1, 10), "not settled at this scale": (5, 8)}.items():
        assert {cards["cpu"].claim(n).verdict for n in verdicts} == {claim}


def test_encoders_are_offered_where_their_images_are_at_hand(tmp_path, monkeypatch):
    monkeypatch.setenv("CLAE_CACHE", str(tmp_path))
    monkeypatch.delenv("CLAE_DATA", raising=False)
    assert not set(ENCODERS) & set(ex.runs().run)
    assert ex.open_run("cifar10/clae").config.attack == "fgsm"  # by name they open all the same
    write_cifar10(tmp_path / "own")
    monkeypatch.setenv("CLAE_DATA", str(tmp_path / "own"))
    assert set(ENCODERS) <= set(ex.runs().run)


def test_encoders_are_small_and_of_one_recipe(table):
    size = sum(path.stat().st_size for path in (paths.shipped() / "encoders").rglob("*") if path.is_file())
    assert size < 60e6
    configs = [ex.open_run(name).config for name in ENCODERS]
    assert [c.attack for c in configs] == ["none", "fgsm", "gaussian"]
    assert len({c.with_(attack="none", eps=0.0) for c in configs}) == 1
    for name, row in ENCODERS.items():
        card, own = (ex.open_run(name).path / "RUN.md").read_text(), table.where(method=row, metric="probe", seed=0)
        assert f"| probe | {100 * own.table.value.iloc[0]:.2f} %" in card


@pytest.mark.data
def test_encoders_measure_what_their_cards_say_on_the_real_images(tmp_path, table):
    root = os.environ.get("CLAE_DATA")
    if not root or not (Path(root) / "cifar10_jpeg75.npz").is_file():
        pytest.skip("CLAE_DATA names no folder with cifar10_jpeg75.npz")
    write_real_cifar10(tmp_path, Path(root) / "cifar10_jpeg75.npz")
    data = ex.load("cifar10", tmp_path)
    near = data.train.take(5000, ex.seeded(0))

    def agrees(row, metric, measured):  # half precision, other sums: forty images at most
        shipped = table.where(method=row, metric=metric, seed=0).table.iloc[0]
        assert shipped.low < measured < shipped.high and abs(measured - shipped.value) < 0.004, (row, metric)

    for name, row in ENCODERS.items():
        encoder = ex.open_run(name).encoder()
        test = embed(encoder, data.test)
        agrees(row, "knn", knn_accuracy(*embed(encoder, near), *test, k=20).accuracy)
        if name == "cifar10/clae":  # all 50,000 images, a minute: one encoder stands for three
            agrees(row, "probe", Probe().fit(*embed(encoder, data.train)).score(*test).top1)
