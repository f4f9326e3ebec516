"""Comparisons judged together: Holm's correction, what so many seeds can show, and the family that a table makes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

import explore as ex
from explore.results import Family, Sweep, detectable, holm, pooled_sd
from explore.results.comparisons import ALPHA, POWER

P = st.lists(st.floats(0, 1), max_size=12)


# Holm
def test_holm_is_what_it_is_by_hand():
    """Five tests, sorted 0.001, 0.01, 0.02, 0.03, 0.5: times 5, 4, 3, 2, 1; 0.06 twice, as none may be below the one before."""
    assert holm([0.03, 0.001, 0.5, 0.01, 0.02]) == pytest.approx([0.06, 0.005, 0.5, 0.04, 0.06])
    assert holm([0.02, 0.024, 0.5]) == pytest.approx([0.06, 0.06, 0.5])  # 2 x 0.024 is 0.048, below 0.06
    assert holm([0.4, 0.9]) == pytest.approx([0.8, 0.9]) and holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([0.02]) == [0.02] and holm([]) == []


def test_a_test_without_p_is_not_counted():
    found = holm([0.01, float("nan"), 0.04])
    assert found[0] == pytest.approx(0.02) and np.isnan(found[1]) and found[2] == pytest.approx(0.04)
    for wrong in (-0.1, 1.5):
        with pytest.raises(ex.UserError, match=rf"between 0 and 1, got {wrong:g}"):
            holm([0.2, wrong])


@given(P)
def test_holm_keeps_the_order_and_only_raises(values):
    found = holm(values)
    assert all(p <= q <= min(1, len(values) * p) for p, q in zip(values, found, strict=True))  # Bonferroni is above
    pairs = sorted(zip(values, found, strict=True))
    assert [q for _, q in pairs] == sorted(found)


@given(P, st.randoms())
def test_holm_does_not_depend_on_the_order(values, random):
    order = list(range(len(values)))
    random.shuffle(order)
    assert holm(values[i] for i in order) == [holm(values)[i] for i in order]


@given(P, st.floats(0, 1))
def test_another_comparison_lowers_no_p(values, more):
    alone, beside = holm(values), holm([*values, more])
    assert all(a <= b for a, b in zip(alone, beside, strict=False))


@given(P)
def test_holm_rejects_what_the_steps_of_1979_reject(values):
    """From the smallest on: rejected while p < alpha / (m - rank); it ends at the first that is not."""
    rejected = set()
    for rank, i in enumerate(sorted(range(len(values)), key=values.__getitem__)):
        if (len(values) - rank) * values[i] >= ALPHA:
            break
        rejected.add(i)
    assert {i for i, q in enumerate(holm(values)) if q < ALPHA} == rejected


# what so many seeds can show
@pytest.mark.parametrize("n", [3, 5, 10])
def test_the_detectable_difference_is_shown_as_often_as_said(n):
    sd, times = 0.62, 40_000
    for power in (POWER, 0.5):
        gap = detectable(sd, n, power=power)
        draws = np.random.default_rng(n).normal(gap, sd, (times, n))
        found = stats.ttest_1samp(draws, 0, axis=1)
        shown = ((found.pvalue < ALPHA) & (found.statistic > 0)).mean()
        assert shown == pytest.approx(power, abs=4 * (power * (1 - power) / times) ** 0.5)


def test_the_detectable_difference_has_the_unit_of_sd_and_falls_with_seeds():
    found = [detectable(1.0, n) for n in range(2, 60)]
    assert found == sorted(found, reverse=True) and detectable(0.3, 5) == pytest.approx(0.3 * detectable(1.0, 5))
    normal = stats.norm.ppf(0.975) + stats.norm.ppf(POWER)
    assert detectable(1.0, 1000) == pytest.approx(normal / 1000**0.5, rel=0.01)  # many seeds: the normal distribution's
    assert detectable(1.0, 5, power=0.9) > detectable(1.0, 5) > detectable(1.0, 5, alpha=0.1)
    assert detectable(0.0, 4) == 0 and np.isnan(detectable(0.5, 1)) and np.isnan(detectable(float("nan"), 3))


def test_what_cannot_be_asked_is_refused_in_a_sentence():
    for n in (0, -3):
        with pytest.raises(ex.UserError, match=f"n is 1 seed or more, got {n}"):
            detectable(1.0, n)
    for power in (0.01, 1.0):
        with pytest.raises(ex.UserError, match="power lies between"):
            detectable(1.0, 3, power=power)


def test_the_pooled_standard_deviation_weighs_by_degrees_of_freedom():
    groups = [[1.0, 2.0, 3.0], [5.0, 5.0, 5.0, 9.0, 9.0], [7.0]]
    by_hand = ((2 * 1.0 + 4 * np.var(groups[1], ddof=1)) / 6) ** 0.5
    assert pooled_sd(groups) == pytest.approx(by_hand) and np.isnan(pooled_sd([[1.0], []]))


# the family of a table
def table(values, against) -> Sweep:
    rows = [
        {"method": name, "metric": "probe", "seed": s, "value": v, "cell": f"{name}{s}", "epochs": 1, "n": 100}
        for name, own in values.items()
        for s, v in enumerate(own)
    ]
    return Sweep.of(rows, {"rows": {name: {"title": name, "against": base} for name, base in against.items()}})


def test_a_family_is_every_row_with_its_baseline():
    values = {"simclr": (0.50, 0.51, 0.52), "a": (0.53, 0.55, 0.54), "b": (0.54, 0.55, 0.55), "c": (0.4,)}
    against = {"simclr": "simclr", "a": "simclr", "b": "a", "c": "simclr", "d": "simclr", "e": "d"}  # d, e: not run
    found = Family.of(table(values, against))
    assert list(found.differences) == [("a", "simclr"), ("b", "a"), ("c", "simclr")] and len(found) == 3
    gaps = [np.subtract(values[a], values[b]) for a, b in (("a", "simclr"), ("b", "a"))]
    p = [stats.ttest_1samp(g, 0).pvalue for g in gaps]
    seen = found.table
    assert seen.p[:2].tolist() == pytest.approx(p) and np.isnan(seen.p[2])  # one seed is no test
    assert seen.p_holm[:2].tolist() == pytest.approx(holm(p))
    assert found.sd == pytest.approx(pooled_sd([list(g) for g in gaps]))
    assert seen.detectable[:2].tolist() == pytest.approx([detectable(found.sd, 3)] * 2) and np.isnan(seen.detectable[2])
    assert found.below == sum(x < 0.05 for x in p) and found.below_holm == sum(x < 0.05 for x in holm(p))
    assert str(found).startswith("3 comparisons with a baseline by the probe:") and "n = 3 seeds" in found.could_show


def test_one_seed_shows_nothing():
    found = Family.of(table({"simclr": (0.5,), "a": (0.6,)}, {"simclr": "simclr", "a": "simclr"}))
    assert found.below == found.below_holm == 0 and found.could_show == "one seed shows no difference of any size"


def test_a_seed_that_a_row_has_twice_is_refused():
    twice = table({"simclr": (0.5, 0.6), "a": (0.6, 0.7)}, {"simclr": "simclr", "a": "simclr"})
    twice.table.loc[3, "seed"] = 0
    with pytest.raises(ex.UserError, match="Row a has seed 0 several times by 'probe'"):
        Family.of(twice)
