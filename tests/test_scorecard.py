"""The scorecard on the screen: its figures, its HTML and its panel, without a browser."""

import dataclasses
import re

import numpy as np
import pytest
from scipy import stats

import explore as ex
from explore import figures, results
from explore.figures.scorecard import MARKS, extent
from explore.panels.scorecard.panel import view
from explore.results import Claim, Finding, Scorecard, Sweep
from explore.results.scorecard import FAILS, HOLDS, NOT_RUN, OPEN, possible
from explore.studies import scorecard
from explore.studies.reproduction.rows import TIERS
from explore.studies.reproduction.run import shipped_folder


def finding(what, values, expected="above", unit="points", than=0.0) -> Finding:
    mean, half = np.mean(values), stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / len(values) ** 0.5
    each = dict(enumerate(values))
    return Finding(
        what, float(mean), float(mean - half), float(mean + half), len(values), "seeds", unit, expected, than, each=each
    )


UP, DOWN = finding("up", [1.0, 1.2, 0.9]), finding("down", [-0.5, -0.4, -0.6, -0.5])
OVER, ASIDE = finding("around", [0.3, -0.4, 0.5]), finding("beside", [2.0, 2.1], expected="")
ONE = Finding("one seed", 0.7, float("nan"), float("nan"), 1, "seeds", "points", "above", each={0: 0.7})
NATS = finding("loss", [3.0, 3.1], expected="", unit="nats")


def card() -> Scorecard:
    def claim(number, found, verdict):
        return Claim(
            number, f"title {number}", "says <b>so</b>", "lines 1-2", found, verdict, "because", f"run {number}"
        )

    claims = (claim(1, (UP, NATS), HOLDS), claim(2, (DOWN, OVER, ASIDE), FAILS), claim(3, (), NOT_RUN))
    return Scorecard((*claims, claim(4, (ONE,), OPEN)), "cpu")


# figures
def drawn(figure) -> dict:
    """(mean, low, high, verdict) of every point by the row that it stands in, read from the figure."""
    found = {}
    for trace in figure.data:
        if trace.name == "seeds":
            continue
        spread = zip(trace.error_x.arrayminus, trace.error_x.array, strict=True)
        for x, y, (minus, plus) in zip(trace.x, trace.y, spread, strict=True):
            found[y] = (x, x - minus, x + plus, trace.name)
    return found


def test_the_forest_draws_the_findings_as_they_are():
    figure = figures.forest(card())
    rows = [None, UP, None, DOWN, OVER, ASIDE, None, ONE]  # None: a heading
    seen = drawn(figure)
    assert sorted(seen) == sorted(-i for i, f in enumerate(rows) if f)
    words = {(a.y, a.x): a.text for a in figure.layout.annotations if a.yref == "y"}
    for i, f in enumerate(rows):
        if f is None:
            assert words[-i, 0].startswith("<b>")
            continue
        ends = (f.mean, f.mean) if f is ONE else (f.low, f.high)
        assert seen[-i][:3] == pytest.approx((f.mean, *ends)) and seen[-i][3] == (f.verdict or "decides nothing")
        assert words[-i, 0] == f.what and words[-i, 1] == f"{f.interval}  n = {f.n}"
    assert words[-2, 0].startswith("<b>2  title 2</b>") and FAILS in words[-2, 0]
    ticks = next(t for t in figure.data if t.name == "seeds")
    assert sorted(ticks.x) == sorted(v for f in (UP, DOWN, OVER, ASIDE) for v in f.each.values())
    assert [s.x0 for s in figure.layout.shapes] == [0.0]
    low, high = figure.layout.xaxis.range
    assert low < min(DOWN.low, OVER.low) and high > max(UP.high, ASIDE.high)
    assert figure.layout.width == 800 and figure.layout.showlegend is None


def test_verdicts_differ_in_shape_and_colour():
    figure = figures.forest([UP, DOWN, OVER, ASIDE])
    looks = {t.name: (t.marker.symbol, t.marker.color, t.marker.size) for t in figure.data if t.name != "seeds"}
    assert len(set(looks.values())) == len({(s, z) for s, _, z in looks.values()}) == len(MARKS) == 4
    assert not any("<b>" in a.text for a in figure.layout.annotations)  # findings alone have no heading


def test_a_forest_is_of_one_unit():
    figure = figures.forest(card().claim(1), unit="nats")
    assert drawn(figure)[0][0] == NATS.mean and len(drawn(figure)) == 1 and figure.layout.xaxis.title.text == "nats"
    level = finding("level", [3.0, 4.0], "below", "percent", than=5.0)
    assert [s.x0 for s in figures.forest([level], unit="percent").layout.shapes] == [5.0]
    apart = Finding("a shift", 0.3, 0.1, 0.4, 5, "seeds", "points", "above", 0.8)
    beside = figures.forest([UP, apart]).layout.shapes  # 0.8 stands in its own row alone, zero goes through all
    assert [(s.x0, s.yref, s.y0, s.y1) for s in beside] == [(0.8, "y", -1.5, -0.5), (0.0, "paper", 0, 1)]
    with pytest.raises(ex.UserError, match="measured in share; there are nats, points"):
        figures.forest(card(), unit="share")
    with pytest.raises(ex.UserError, match="no findings"):
        figures.forest(card().claim(3))


def test_accuracy_over_training_eps_is_that_of_the_rows():
    def row(method, k, seed, value):
        attack = method.partition("-")[0] if k else "none"
        common = {"epochs": 15 if method == "longer" else 10, "metric": "probe", "n": 1000, "cell": f"{method}{seed}"}
        return {"method": method, "attack": attack, "k": k, "eps": k / 255, "seed": seed, "value": value, **common}

    values = {("simclr", 0): (0.50, 0.52, 0.54), ("fgsm-16", 16): (0.40, 0.41, 0.42), ("fgsm-2", 2): (0.51, 0.50, 0.55)}
    values |= {
        ("gaussian-8", 8): (0.5, 0.51, 0.49),
        ("uniform-4", 4): (0.5, 0.52, 0.51),
        ("uel-fgsm-8", 8): (0.1, 0.2, 0.3),
        ("longer", 0): (0.6, 0.61, 0.6),
    }
    rows = Sweep.of([row(name, float(k), s, v) for (name, k), vs in values.items() for s, v in enumerate(vs)])
    figure = figures.training_eps(rows)
    adversary = next(t for t in figure.data if t.name == "adversary (CLAE)")
    assert adversary.y == pytest.approx((52.0, 41.0)) and np.argsort(adversary.x).tolist() == [0, 1]
    half = 100 * stats.t.ppf(0.975, 2) * np.std([0.40, 0.41, 0.42], ddof=1) / 3**0.5
    assert adversary.error_y.array[1] == pytest.approx(half) == pytest.approx(adversary.error_y.arrayminus[1])
    assert next(t for t in figure.data if t.name == "Gaussian").y == pytest.approx((50.0,))
    assert next(t for t in figure.data if t.name == "uniform").y == pytest.approx((51.0,))
    assert next(t for t in figure.data if t.name == "SimCLR").y[0] == pytest.approx(52.0)
    assert next(t for t in figure.data if t.name == "SimCLR, 15 epochs").y[0] == pytest.approx(100 * 1.81 / 3)
    with pytest.raises(ex.UserError, match="'simclr' measured by 'knn'"):
        figures.training_eps(rows, metric="knn")


def test_the_shipped_scorecard_is_drawn_whole():
    found = scorecard("cpu")
    means = sorted(f.mean for c in found.claims for f in c.findings if f.unit == "points")
    assert sorted(x for x, *_ in drawn(figures.forest(found)).values()) == pytest.approx(means) and len(means) > 20
    rows = Sweep.load(shipped_folder("cpu") / "rows")
    for metric in ("probe", "knn"):
        table = rows.where(method=["fgsm-2", "fgsm-4", "fgsm-8", "fgsm-16"], metric=metric).table
        line = next(t for t in figures.training_eps(rows, metric=metric).data if t.name == "adversary (CLAE)")
        assert line.y == pytest.approx(100 * table.groupby("k").value.mean())


def test_every_command_is_one_that_exists():
    from explore.cli import _parser

    makefile = (shipped_folder("cpu").parents[2] / "Makefile").read_text()
    found = scorecard("cpu")
    for claim in (*found.claims, *scorecard("gpu").claims):
        if claim.command.startswith("make "):
            assert re.search(rf"^{claim.command.split()[1]}\b.*:", makefile, re.M), claim.command
        else:
            args = _parser().parse_args(claim.command.removeprefix("python -m explore ").split())
            assert callable(args.command)
    rows = Sweep.load(shipped_folder("cpu") / "rows").provenance["rows"]
    asked = {name for claim in found.claims for name in re.findall(r"--row (\S+)", claim.command)}
    assert "fgsm-4" in asked and asked <= set(rows)
    assert "imagenet100:" in found.claim(4).command and found.claim(1).command == "make reproduce TIER=cpu"


# what the panel writes
def test_the_evidence_is_drawn_to_scale():
    findings = (UP, OVER, ASIDE, NATS)
    html = view.evidence(Claim(1, "t", "s", "x", findings, HOLDS, "w", "c"))
    rows = re.findall(r'<b style="left:([\d.]+)%;width:([\d.]+)%"></b><i style="left:([\d.]+)%">', html)
    for f, (left, width, mean) in zip(findings, rows, strict=True):
        low, high = extent([g for g in findings if g.unit == f.unit])
        at = [low + float(v) / 100 * (high - low) for v in (left, mean)]
        assert at == pytest.approx([f.low, f.mean], abs=1e-3 * (high - low))
        assert float(width) / 100 * (high - low) == pytest.approx(f.high - f.low, abs=1e-3 * (high - low))
        assert f"<td>{f.show(f.low)} to {f.show(f.high)}</td><td>{f.n}</td>" in html
    assert html.count('class="axis"') == 2 and "points of accuracy" in html  # an axis a unit
    assert html.count("V5") == sum(len(f.each) for f in findings)


def test_the_columns_of_p_say_what_they_mean():
    paired = dataclasses.replace(OVER, p=0.73, p_holm=1.0, detectable=2.02)
    sure = dataclasses.replace(UP, p=0.0002, p_holm=0.0067, detectable=1.04)
    html = view.evidence(Claim(1, "t", "s", "x", (paired, sure, ASIDE), OPEN, "w", "c"))
    assert "<td>3</td><td>0.73</td><td>1</td><td>2.0</td>" in html
    assert "<td>3</td><td>&lt; .001</td><td>0.0067</td><td>1.0</td>" in html
    assert "<td>2</td><td></td><td></td><td></td>" in html  # not paired: no figure
    for heading, word in {"p": "paired t-test", "p (Holm)": "Holm 1979", "could show": "80 % power"}.items():
        assert re.search(rf'<th title="[^"]*{word}[^"]*">{re.escape(heading)}</th>', html)
    assert ", p = 0.73, p (Holm) = 1, could show 2.0 points" in str(paired)


def test_not_settled_says_what_was_possible():
    def around(n, could):
        return dataclasses.replace(OVER, n=n, detectable=could)

    assert possible([around(3, 2.02)]) == "n = 3 seeds could have shown 2.0 points (80 % power)"
    assert possible([around(5, 2.3), around(5, 1.34)]) == "n = 5 seeds could have shown 1.3 to 2.3 points (80 % power)"
    both = [around(5, 1.04), around(3, 2.02), dataclasses.replace(UP, detectable=9.0)]  # what holds needs no excuse
    assert possible(both) == (
        "n = 3 seeds could have shown 2.0 points (80 % power), n = 5 seeds could have shown 1.0 points (80 % power)"
    )
    assert possible([ONE]) == "n = 1 seed shows no difference of any size" and possible([OVER, ASIDE]) == ""


def test_the_shipped_findings_carry_their_p_after_holm():
    found = scorecard("cpu")
    assert found.family is not None and len(found.family) == 27
    assert scorecard("gpu").family is not None and len(scorecard("gpu").family) == 2  # run in part
    corrected, sd = found.family.p_holm, 100 * found.family.sd
    for f in (f for c in found.claims for f in c.findings if f.p == f.p):
        pair = f.rows[::-1]
        transfer = ", transfer" in f.what
        assert (f.p_holm == f.p_holm) == (pair in corrected and not transfer) and f.detectable > 0, f.what
        if f.p_holm == f.p_holm:
            assert f.p <= f.p_holm == corrected[pair] and f.detectable == pytest.approx(results.detectable(sd, f.n))
    assert [c.number for c in found.claims if "could have shown" in c.why] == [5, 8]
    assert found.claim(8).why.endswith("; n = 3 seeds could have shown 2.0 points (80 % power)")
    words = found.verdicts.set_index("claim").loc[3]
    assert (words.p, words.p_holm, words.could_show) == ("0.0028 to 0.06", "0.07 to 0.73", "1.0 to 2.0 points")
    assert {"p", "p_holm", "detectable"} <= set(found.table) and found.verdicts.loc[3, "could_show"] == ""
    assert "2 after Holm" in view.foot(found) and "Holm" not in view.foot(dataclasses.replace(found, family=None))


def test_every_verdict_has_a_sign_and_words():
    html = view.listed(card())
    assert html.count('role="option"') == 4
    for verdict in (HOLDS, FAILS, OPEN, NOT_RUN):
        assert f"</i>{verdict.removesuffix(' at this scale')}</span>" in html and view.SIGNS[verdict] in html
    assert view.reading(card()) == (
        "Of the 4 claims, at this scale, <b>1</b> holds, <b>1</b> does not, <b>1</b> is not settled, <b>1</b> was not run."
    )


def test_words_cannot_break_the_page():
    html = view.detail(card().claim(1))
    assert "says &lt;b&gt;so" in html and "<b>so" not in html


# the panel
@pytest.fixture
def panel():
    from explore import panels

    made = panels.Scorecard()
    assert made.wait(60) and made.error is None, made.error
    yield made
    made.close()


def test_a_picked_claim_shows_its_source_and_its_command(panel):
    assert panel.result.tier == "cpu" and panel.list.html.count("data-pick=") == 12 and panel.list.picked == "1"
    for number in (9, 3, 12):
        panel.list.picked = str(number)  # what the browser sets
        claim = panel.result.claim(number)
        assert panel.claim == number and f'data-claim="{number}"' in panel.detail.html
        for part in (claim.source, f'data-copy="{claim.command}"', claim.verdict):
            assert part.replace("'", "&#39;") in panel.detail.html
        assert panel.detail.html.count('class="ex-fd"') == len(claim.findings) > 1
        for f in claim.findings:
            assert f"<td>{f.show(f.mean)}</td>" in panel.detail.html
    panel.claim = 5
    assert panel.list.picked == "5" and 'data-claim="5"' in panel.detail.html


def test_a_tier_that_was_run_in_part_says_what_is_missing(panel):
    panel.tier = "gpu"
    assert panel.result.tier == "gpu" and panel.list.html.count("</i>not run</span>") == 10
    panel.claim = 3
    assert "he tier was run in part, without row" in panel.detail.html and "ex-fp" not in panel.detail.html
    panel.claim = 11
    assert "SimCLR, under PGD" in panel.detail.html
    assert "torch 2.11.0" in view.foot(panel.result)  # of the machine that trained


def test_a_tier_that_was_not_run_says_so(panel, monkeypatch, tmp_path):
    monkeypatch.setattr("explore.studies.reproduction.claims.shipped_folder", lambda tier: tmp_path)
    panel.tier = "gpu"
    assert panel.result.tier == "gpu" and "<b>not run</b>" in panel._reading.value
    assert panel.list.html.count("</i>not run</span>") == 12 and TIERS["gpu"].about in panel._about.value
    assert 'data-copy="make reproduce TIER=gpu"' in panel.detail.html and "ex-fp" not in panel.detail.html


def test_a_tier_there_is_not_becomes_the_banner(panel):
    good = panel.result
    panel.tier = "tpu"
    assert panel.wait(30) and panel.state == "error" and isinstance(panel.error, ex.UserError)
    assert "tier is cpu or gpu, got &#39;tpu&#39;" in panel._message.value and "shows tier cpu" in panel._state.value
    assert panel._result is good
    panel.tier = "cpu"
    assert panel.wait(30) and panel.state == "ready" and panel.error is None


def test_own_tables_are_judged(tmp_path):
    from explore import panels

    for name in ("rows", "looks"):
        Sweep.load(shipped_folder("cpu") / name).save(tmp_path / name)
    table = Sweep.load(tmp_path / "rows")
    better = table.table.value + 0.2 * ((table.table.method == "fgsm-4") & (table.table.metric == "probe"))
    Sweep(table.table.assign(value=better), table.provenance).save(tmp_path / "rows")
    panel = panels.Scorecard(folder=tmp_path, claim=8)
    assert panel.wait(60) and panel.error is None
    assert panel.result.claim(8).verdict == HOLDS and "holds" in panel.detail.html  # one batch norm is now far below
    panel.close()
