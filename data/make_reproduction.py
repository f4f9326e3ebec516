"""Make the shipped reproduction again (`make reproduce TIER=cpu`).

    python data/make_reproduction.py --tier cpu [--data-dir DIR] [--root DIR]

`python -m explore reproduce` with settings tuned anew, then tables, encoders and RESULTS.md are put in their places.
Finished cells are in <runs>/reproduction, so a stopped run continues where it was. RESULTS.md has the times.
"""

import argparse
import csv
import io
import itertools
import json
import os
import statistics
import sys
import textwrap
from pathlib import Path

from explore.cli import main as command_line
from explore.config import show_eps
from explore.results import Family, Scorecard, Sweep, detectable
from explore.results.base import fixed
from explore.results.comparisons import ALPHA, POWER
from explore.runfolder import Run
from explore.serialization import write_text
from explore.studies.reproduction.claims import scorecard
from explore.studies.reproduction.rows import TIERS, rows, tier_named
from explore.studies.reproduction.run import default_out, recipes_of, runs_of

ROOT = Path(__file__).parent.parent
TABLES, ENCODERS = ROOT / "data" / "reproduction", ROOT / "data" / "encoders"
WHOLE_WORDS = {"break_long_words": False, "break_on_hyphens": False}
HEAD = ("row", "method", "seeds", "linear probe, %", "over its baseline, points", "p", "p (Holm)", "could show")
COULD_SHOW = (
    f"Could show: the smallest true difference that the paired t-test of so many seeds shows (plain p < {ALPHA:g}) in "
    f"{100 * POWER:.0f} of 100 repetitions."
)
SHIPPED = {"simclr": "simclr", "fgsm-4": "clae", "gaussian-4": "gaussian"}  # row -> name of the encoder, its seed 0


def main() -> int:
    """Run a tier by `python -m explore reproduce`, then ship what came out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tier", choices=TIERS, default="cpu")
    parser.add_argument("--data-dir", help="your own copy of CIFAR-10")
    parser.add_argument("--root", help="the folder that holds transfer sets")
    parser.add_argument(
        "--workers", type=int, help="trainings at once (tier cpu: as many as cores, one thread each; gpu: 1)"
    )
    parser.add_argument("--tables", action="store_true", help="ship what <runs>/reproduction has, without training")
    given = parser.parse_args()
    on_cpu = given.tier == "cpu"
    if given.tables:
        ship(given.tier, given.data_dir)
        return 0
    words = ["reproduce", "--tier", given.tier, "--workers", str(given.workers or (on_cpu and os.cpu_count()) or 1)]
    words += ["--threads", "1"] if on_cpu else []
    words += ["--data-dir", given.data_dir] if given.data_dir else []
    words += ["--root", given.root] if given.root else []
    words += [] if recipes_of(default_out() / given.tier) else ["--tune"]
    if code := command_line(words):
        return code
    ship(given.tier, given.data_dir)
    return 0


def ship(tier: str, data_dir: str | None = None) -> None:
    """Tables, encoders with their cards, and RESULTS.md."""
    out, target = default_out(), TABLES / tier
    for name in ("rows", "looks"):
        if not (out / tier / f"{name}.csv").is_file():
            continue  # of a tier that was run in part
        found = Sweep.load(out / tier / name)
        for part in (found.provenance, *found.provenance.get("joined", [])):
            part["command"] = f"make reproduce TIER={tier}"
        found.save(target / name)
    recipes = TIERS[tier].recipes or recipes_of(out / tier)
    assert recipes is not None
    if TIERS[tier].recipes is None and (out / tier).resolve() != target.resolve():
        write_text(target / "recipes.json", (out / tier / "recipes.json").read_text())
    lines, table = {row.name: row for row in rows(tier_named(tier, data_dir), recipes)}, Sweep.load(target / "rows")
    for row, name in SHIPPED.items() if tier == "cpu" else ():
        run = runs_of(lines[row], out)[0]
        again = ["reproduce", "--tier", tier, "--row", row, "--seeds", "1"]
        shipped = run.hand_on(ENCODERS / f"cifar10-{name}", argv=again)
        write_text(shipped.path / "RUN.md", card(shipped, name, row, tier, table))
    for name in ("records.json", "runs.json") if TIERS[tier].recipes else ():
        write_text(target / name, (out / tier / name).read_text())
    cards = {name: scorecard(name) for name in TIERS}
    for name, text in csv_files(tier, cards[tier]).items():
        write_text(target / name, text)
    write_text(ROOT / "RESULTS.md", page(cards))


def card(run: Run, name: str, row: str, tier: str, table: Sweep) -> str:
    """A model card: what it is, what it was measured to be, what it is for."""
    c, own = run.config, table.where(method=row, seed=0).table.set_index("metric")
    found = "\n".join(
        f"| {metric} | {100 * r.value:.2f} % ({100 * r.low:.2f} to {100 * r.high:.2f}) |"
        for metric, r in own.iterrows()
        if metric != "seconds of training"
    )
    images = f"{c.train_images:,} training images" if c.train_images else "all training images"
    return f"""# cifar10/{name}: {c.method} on CIFAR-10 (JPEG q75)

{c.arch} width {c.width}, stem {c.stem}; {c.epochs} epochs of {images}, batch {c.batch_size}, seed {c.seed}; attack {c.attack}, ε = {show_eps(c.eps)}.
Made again by `python -m explore reproduce --tier {tier} --row {row} --seeds 1`; weights are in half precision. The images were copies of CIFAR-10 in JPEG, quality
75, so compare with no published figure.

| measured on the 10,000 test images (robust: 500) | seed 0, 95 % interval over images |
| --- | --- |
{found}

Commit {own.commit.iloc[0]}, {own.device.iloc[0]}, {own.versions.iloc[0]}; {own.loc["seconds of training"].value:.0f} s of training.
For looking at and for teaching. It was trained for accuracy: it is not robust, and one seed settles nothing about its method (RESULTS.md has several).
Settings in full: `config.json`; every logged row: `metrics.jsonl`.
"""


def page(cards: dict[str, Scorecard]) -> str:
    """RESULTS.md: the verdicts, and of every row the figures that they rest on."""
    parts = [tier_page(name, card) for name, card in cards.items()]
    return "\n\n".join(["# Results", *parts]) + "\n"


def tier_page(tier: str, found: Scorecard) -> str:
    """One tier of RESULTS.md."""
    about = TIERS[tier]
    if not (TABLES / tier / "rows.csv").is_file():
        line = f"No machine for it was at hand. `make reproduce TIER={tier}` runs it: {about.about}."
        return f"## Tier {tier}: not run\n\n{filled(line)}"
    if about.recipes is not None:
        return given_page(tier, found)
    table = Sweep.load(TABLES / tier / "rows")
    first, lines, family = table.provenance, long_table(table), Family.of(table)
    minutes = table.where(metric="seconds of training").table.drop_duplicates("cell").value.sum() / 60
    commits = ", ".join(sorted(set(table.table.commit)))
    recipe = "; ".join(f"{m}: {told(r)}" for m, r in (recipes_of(TABLES / tier) or {}).items())
    made = (
        f"On CIFAR-10 in JPEG of quality 75, so compare with no published figure. Every row again: `make reproduce "
        f"TIER={tier}`; one row, beside what is shipped: `python -m explore reproduce --tier {tier} --row NAME`."
    )
    here = (
        f"{', '.join(first['machine'])}; {minutes:.0f} minutes of training by the clock in all, several at once, beside "
        f"other work; commit {commits}; {', '.join(f'{k} {v}' for k, v in first['versions'].items())}."
    )
    chosen = (
        f"Settings were chosen with one budget for both methods: {about.trials} trials each, seed 0, "
        f"{about.tuning_epochs} epochs, by the probe on {about.validation:,} training images kept out; none was chosen on "
        f"the test images. Chosen: {recipe}. Rows other than `clae` have SimCLR's settings, so that one thing differs."
    )
    read = (
        "Means over seeds with 95 % t-intervals; differences are paired by seed, over SimCLR or over the row named, which "
        "has the same loss or the same step without what the row adds. Probe: logistic regression on features h of all "
        "50,000 training images, its l2 chosen on held-out ones; 10,000 test images. "
        f"The table makes {family}, in the column p (Holm). {COULD_SHOW} Here {family.could_show}."
    )
    more = (
        f"[table.csv](data/reproduction/{tier}/table.csv) adds kNN (20 neighbours of 5,000), the probe's accuracy under "
        "PGD (20 steps at 8/255, 500 test images), forward passes an image (epochs times passes a step, a backward counted "
        "as two) and the training time of the row's fastest seed, one thread beside other work: compare passes, not times. "
        f"[claims.csv](data/reproduction/{tier}/claims.csv) has every number that decides a claim; "
        "[notebook 11](notebooks/11_scorecard.ipynb) shows both."
    )
    verdicts = [
        f"{c.number}. {c.says} ({c.source}.) **{c.verdict[0].upper()}{c.verdict[1:]}**: {c.why}." for c in found.claims
    ]
    claims = "\n".join(textwrap.fill(v, 100, subsequent_indent="    ", **WHOLE_WORDS) for v in verdicts)
    return "\n\n".join(
        [
            f"## Tier {tier}: {about.about}",
            *(filled(text) for text in (made, here)),
            f"### The claims at this scale\n\n{claims}",
            f"### The rows\n\n{filled(chosen)}",
            short_table(lines),
            *(filled(text) for text in (read, more)),
            *without_learning(tier),
        ]
    )


def given_page(tier: str, found: Scorecard) -> str:
    """The page of a tier whose settings are given, which may have been run in part."""
    about, folder = TIERS[tier], TABLES / tier
    table, runs = Sweep.load(folder / "rows"), json.loads((folder / "runs.json").read_text())
    lines, family, first = long_table(table), Family.of(table), table.provenance
    left = [row.name for row in rows(about, about.recipes or {}) if row.name not in first["rows"]]
    plain = [run["metrics"][-1]["loss"] for run in runs.values() if run["config"]["attack"] == "none"]
    simclr = table.where(method="simclr").summary().set_index("metric")["mean"]
    seconds = {
        kind: statistics.median(
            second
            for run in runs.values()
            if run["config"]["attack"] == kind
            for second in epoch_seconds(run["metrics"])
        )
        for kind in ("none", "fgsm")
    }
    levels = (
        "SimCLR's strongest public recipe for this network (`TrainConfig.strong`), and what an adversary or noise adds to it, the "
        "two losses averaged. On the original images the recipe's author reports, over 3 seeds, a probe of 85.6 ± 0.2 %, kNN (k = "
        "10, cosine) of 83.2 ± 0.2 % and a loss of 5.18 ± 0.01 (github.com/dkobak/simclr-cifar10). Here the images are copies in "
        f"JPEG of quality 75: the loss is {fixed(statistics.fmean(plain), 2)}, the probe {fixed(100 * simclr['probe'])} %, kNN "
        f"{fixed(100 * simclr['knn'])} %. The images differ, and so do the probe, the projector's biases and the precision; only the "
        "original images can show which of them makes the distance."
    )
    where = (
        f"{', '.join(sorted(set(table.table.device)))}; an epoch of 97 steps took {fixed(seconds['none'], 2)} s for SimCLR and "
        f"{fixed(seconds['fgsm'], 2)} s for CLAE (medians); commit {', '.join(sorted(set(table.table.commit)))}; "
        f"{'; '.join(sorted(set(table.table.versions)))}."
    )
    read = (
        f"The table makes {family}. {COULD_SHOW} Here {family.could_show}. "
        f"[table.csv](data/reproduction/{tier}/table.csv) adds kNN (10 of all 50,000 training images, equal votes) and the probe's "
        "accuracy under PGD (20 steps at 8/255, 1,000 test images)."
    )
    on = (
        f"Not run: {', '.join(f'`{name}`' for name in left)}. `python -m explore reproduce --tier {tier} --minutes M --take "
        f"data/reproduction/{tier}` goes on with what is worth most."
    )
    judged = [
        f"{c.number}. {c.says} **{c.verdict[0].upper()}{c.verdict[1:]}**: {c.why}." for c in found.claims if c.findings
    ]
    claims = "\n".join(textwrap.fill(v, 100, subsequent_indent="    ", **WHOLE_WORDS) for v in judged)
    return "\n\n".join(
        [
            f"## Tier {tier}{', run in part' if left else ''}: {about.about}",
            *(filled(text) for text in (levels, where)),
            short_table(lines),
            *(filled(text) for text in ([read, on] if left else [read])),
            *([f"The claims that these rows decide:\n\n{claims}"] if judged else []),
        ]
    )


def without_learning(tier: str) -> list[str]:
    """The rows without learning, where they were measured, as parts of a page."""
    if not (TABLES / tier / "baselines.csv").is_file():
        return []
    found = Sweep.load(TABLES / tier / "baselines")
    summary = found.summary().set_index(["method", "metric"])
    lines = ["| without learning | seeds | linear probe, % | kNN, % | under PGD, % | CPU seconds |", "| --- " * 6 + "|"]
    for name, entry in found.provenance["rows"].items():
        cells = [
            f"{fixed(100 * r['mean'])} ({fixed(100 * r.low)} to {fixed(100 * r.high)})"
            for r in (summary.loc[(name, metric)] for metric in ("probe", "knn", "robust"))
        ]
        features = f", {4 * entry['patches']:,} features" if "patches" in entry else ""
        seconds = fixed(summary.loc[(name, "CPU seconds"), "mean"], 0)
        n = summary.loc[(name, "probe"), "n"]
        lines.append(f"| {entry['title']}{features} | {n} | {' | '.join(cells)} | {seconds} |")
    about = (
        "Beside any encoder: the network as it was drawn, and filters that are patches of training images, whitened, chosen by "
        "k-means (Coates, Lee & Ng 2011) or at random (Thiry et al. 2021, arXiv:2101.07528), with no gradient at all; CPU "
        "seconds of one thread, features and probe included. Patches have more features than this tier's network (128). In "
        "every panel: `patches/kmeans`, `patches/random`, `untrained/resnet10`."
    )
    return ["### Without learning", "\n".join(lines), filled(about)]


def epoch_seconds(metrics: list[dict]) -> list[float]:
    """Seconds of every epoch but the first, in which kernels are compiled."""
    ends = [row["seconds"] for row in metrics if row["step"]]
    return [b - a for a, b in itertools.pairwise(ends)]


def short_table(lines: list[dict[str, str]]) -> str:
    """The table of a page."""
    return "\n".join([f"| {' | '.join(HEAD)} |", "| --- " * len(HEAD) + "|", *map(short_line, lines)])


def long_table(table: Sweep) -> list[dict[str, str]]:
    """One entry a row of the reproduction, every figure as text: accuracies in percent, differences in points."""
    lines, family = [], Family.of(table)
    sd, corrected = family.sd, family.p_holm
    for name, entry in table.provenance["rows"].items():
        summary = table.where(method=name).summary().set_index("metric")
        first = summary.iloc[0]
        line = {"row": name, "method": entry["title"], "passes an image": f"{first.cost:g}", "seeds": str(first.n)}
        for metric in ("probe", "knn", "robust"):
            line |= spread(metric, *(summary.loc[metric, part] for part in ("mean", "low", "high")))
        pair = (name, base := entry["against"])
        if (d := family.differences.get(pair)) is not None:
            line |= {"against": base, **spread("over", d.mean, d.low, d.high, digits=2, sign=True), "p": f"{d.p:.2g}"}
            line |= {"p (Holm)": f"{corrected[pair]:.2g}", "could show": fixed(100 * detectable(sd, d.n))}
        line["seconds"] = fixed(min(summary.loc["seconds of training", "values"]), 0)
        lines.append(line)
    return lines


def spread(name: str, mean: float, low: float, high: float, digits: int = 1, sign: bool = False) -> dict[str, str]:
    """Columns `name`, `name low`, `name high` of shares, times 100."""
    values = {name: mean, f"{name} low": low, f"{name} high": high}
    return {column: fixed(100 * value, digits, sign=sign) for column, value in values.items()}


def short_line(line: dict[str, str]) -> str:
    """A row of RESULTS.md's table."""
    probe, over = (
        ""
        if m not in line
        else line[m]
        if line["seeds"] == "1"  # one seed has no interval over seeds
        else f"{line[m]} ({line[f'{m} low']} to {line[f'{m} high']})"
        for m in ("probe", "over")
    )
    base = line.get("against", "simclr")
    over += "" if base == "simclr" else f", over `{base}`"
    judged = [line.get(column, "").replace("nan", "") for column in ("p", "p (Holm)", "could show")]
    return f"| `{line['row']}` | {line['method']} | {line['seeds']} | {probe} | {over} | {' | '.join(judged)} |"


def csv_files(tier: str, found: Scorecard) -> dict[str, str]:
    """What stands beside the tables: table.csv (every row's figures) and claims.csv (every claim's findings)."""
    lines = long_table(Sweep.load(TABLES / tier / "rows"))
    columns = list(dict.fromkeys(column for line in sorted(lines, key=len, reverse=True) for column in line))
    findings = [
        {
            "claim": str(c.number),
            "what": f.what,
            **{part: f.show(getattr(f, part)) for part in ("mean", "low", "high")},
            "unit": f.unit,
            "n": f"{f.n} {f.of}",
            "p": f"{f.p:.2g}" if f.p == f.p else "",
            "p (Holm)": f"{f.p_holm:.2g}" if f.p_holm == f.p_holm else "",
            "could show": f.could_show,
            "verdict": f.verdict,
        }
        for c in found.claims
        for f in c.findings
    ]
    return {"table.csv": written(columns, lines), "claims.csv": written(list(findings[0]), findings)}


def written(columns: list[str], lines: list[dict[str, str]]) -> str:
    """A CSV file's text, with a plain hyphen for minus."""
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return out.getvalue().replace("−", "-").replace(",nan", ",")


def filled(text: str) -> str:
    """Lines of at most 100 characters."""
    return textwrap.fill(text, 100, **WHOLE_WORDS)


def told(recipe: dict) -> str:
    """Settings in words."""
    return ", ".join(f"{k} {show_eps(v) if k == 'eps' else v}" for k, v in recipe.items())


if __name__ == "__main__":
    sys.exit(main())
