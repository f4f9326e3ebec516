"""Make the shipped reproduction again: python data/make_reproduction.py --tier cpu [--data-dir DIR] [--root DIR]  (`make reproduce TIER=cpu`).

`python -m explore reproduce` with settings tuned anew; then tables, encoders and RESULTS.md are put in their places. Cells are kept in
<runs>/reproduction, so a run that was stopped or killed goes on where it was. The times stand in RESULTS.md.
"""

import argparse
import os
import sys
from pathlib import Path

from explore.cli import main as command_line
from explore.config import show_eps
from explore.results import Scorecard, Sweep
from explore.runfolder import Run
from explore.serialization import write_text
from explore.studies.reproduction.claims import scorecard
from explore.studies.reproduction.rows import TIERS, rows, tier_named
from explore.studies.reproduction.run import default_out, recipes_of, runs_of

ROOT = Path(__file__).parent.parent
TABLES, ENCODERS = ROOT / "data" / "reproduction", ROOT / "data" / "encoders"
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
    given = parser.parse_args()
    on_cpu = given.tier == "cpu"
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
        found = Sweep.load(out / tier / name)
        for part in (found.provenance, *found.provenance.get("joined", [])):
            part["command"] = f"make reproduce TIER={tier}"
        found.save(target / name)
    recipes = recipes_of(out / tier)
    assert recipes is not None
    if (out / tier).resolve() != target.resolve():
        write_text(target / "recipes.json", (out / tier / "recipes.json").read_text())
    lines, table = {row.name: row for row in rows(tier_named(tier, data_dir), recipes)}, Sweep.load(target / "rows")
    for row, name in SHIPPED.items():
        run = runs_of(lines[row], out)[0]
        again = ["reproduce", "--tier", tier, "--row", row, "--seeds", "1"]
        shipped = run.hand_on(ENCODERS / f"cifar10-{name}", argv=again)
        write_text(shipped.path / "RUN.md", card(shipped, name, row, tier, table))
    write_text(ROOT / "RESULTS.md", page({name: scorecard(name) for name in TIERS}))


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
    """RESULTS.md."""
    parts = [tier_page(name, card) for name, card in cards.items()]
    return "\n\n".join(["# Results", *parts]) + "\n"


def tier_page(tier: str, found: Scorecard) -> str:
    """One tier: the table that a paper would have, and the scorecard."""
    if not (TABLES / tier / "rows.csv").is_file():
        return f"## Tier {tier}: not run\n\nNo machine for it was at hand. `make reproduce TIER={tier}` runs it: {TIERS[tier].about}."
    table = Sweep.load(TABLES / tier / "rows")
    about_rows, first = table.provenance["rows"], table.provenance
    spent = table.where(metric="seconds of training").table.drop_duplicates("cell").value.sum()
    lines = [
        "| row | method | passes an image | seeds | linear probe, % | kNN, % | under PGD 8/255, % | over its baseline, points | p | least training time, s |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
        *(row_line(table, name, entry) for name, entry in about_rows.items()),
    ]
    verdicts = [
        f"| {c.number} | {c.says} | {c.source} | {'<br>'.join(str(f) for f in c.findings)} | **{c.verdict}**: {c.why} |"
        for c in found.claims
    ]
    recipe = "; ".join(f"{m}: {told(r)}" for m, r in (recipes_of(TABLES / tier) or {}).items())
    return f"""## Tier {tier}: {TIERS[tier].about}

On CIFAR-10 (JPEG q75: copies in JPEG of quality 75, so compare with no published figure); {", ".join(first["machine"])}, {spent / 60:.0f} minutes of training in
all by the clock, several at once, beside other work; commit {", ".join(sorted(set(table.table.commit)))}; {", ".join(f"{k} {v}" for k, v in first["versions"].items())}. `make reproduce TIER={tier}` runs
all of it, `python -m explore reproduce --tier {tier} --row NAME` one row again, beside what is shipped.

Settings were chosen with one budget for both methods: {TIERS[tier].trials} trials each, seed 0, {TIERS[tier].tuning_epochs} epochs, by the probe on {TIERS[tier].validation:,} training images kept out; no
setting was chosen on the test images. Chosen: {recipe}. Rows other than `clae` have SimCLR's settings, so that one thing differs.

{chr(10).join(lines)}

Means over seeds with 95 % t-intervals; differences are paired by seed. Probe: logistic regression on features h of all 50,000 training images, its l2 chosen on held-out ones.
kNN: 20 neighbours of 5,000. Under PGD: 20 steps against the probe, 500 test images. `passes an image`: epochs times passes a step, a backward counted as two; times are those of
the row's fastest seed, one thread, on a machine that did other work: compare passes, not times. Baselines: SimCLR, or the
row of the same loss or the same step without what the row adds. {len(about_rows) - 1} comparisons are made: about one in twenty would leave zero out by chance.

### The claims at this scale

| | what is claimed | source | measured here | verdict |
| --- | --- | --- | --- | --- |
{chr(10).join(verdicts)}"""


def row_line(table: Sweep, name: str, entry: dict) -> str:
    """A row of the table."""
    summary = table.where(method=name).summary().set_index("metric")

    def mean(metric: str) -> str:
        r = summary.loc[metric]
        return f"{100 * r['mean']:.1f} ({100 * r.low:.1f} to {100 * r.high:.1f})".replace("-", "−")

    over, p = "", ""
    if name != entry["against"]:
        d = table.paired({"method": entry["against"]}, {"method": name}, metric="probe")
        over = f"{100 * d.mean:+.2f} ({100 * d.low:+.2f} to {100 * d.high:+.2f})".replace("-", "−")
        over += "" if entry["against"] == "simclr" else f", over `{entry['against']}`"
        p = f"{d.p:.2g}"
    seconds, first = min(summary.loc["seconds of training"]["values"]), summary.iloc[0]
    return (
        f"| `{name}` | {entry['title']} | {first.cost:g} | {first.n} | {mean('probe')} | {mean('knn')} | {mean('robust')} | {over} | "
        f"{p} | {seconds:.0f} |"
    )


def told(recipe: dict) -> str:
    """Settings in words."""
    return ", ".join(f"{k} {show_eps(v) if k == 'eps' else v}" for k, v in recipe.items())


if __name__ == "__main__":
    sys.exit(main())
