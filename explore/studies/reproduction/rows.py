"""What the reproduction consists of, at a laptop's size and at a GPU's: the settings that are tried, and the table's rows.

Two tiers go through the same code: `cpu`, a small network for two cores, and `gpu`, ResNet-18 by the strongest public recipe.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from ...config import TrainConfig, show_eps
from ...errors import UserError, nearest
from ...experiments.cell import Cell, step_passes
from ...experiments.metrics import Measure

AT = 4 / 255  # where methods are compared at one eps: next to the authors' 3.8/255
LONG = 4  # times the epochs, of the rows that ask whether longer training changes the answer
GRID = tuple(k / 255 for k in (2, 4, 8, 16))
SPACE: dict[str, tuple[Any, ...]] = {  # what is tuned; eps for CLAE alone
    "crop_min": (0.08, 0.2, 0.35),
    "jitter": (0.5, 1.0),
    "temperature": (0.1, 0.2, 0.5),
    "lr": (1e-3, 2e-3, 4e-3),
}
MEASURE = Measure(robust=8 / 255, z=True, transfer=("fashion", "emoji"))
TUNING = Measure(probe=True)
STRONG = Measure(
    k=10, neighbours=50_000, votes="equal", robust=8 / 255, attacked=1000, z=True
)  # kNN as that recipe's author
METHODS = {"simclr": "none", "clae": "fgsm"}


@dataclass(frozen=True)
class Tier:
    """A size of the reproduction: `seeds` trainings of the rows that carry the main claim, `few` of the others."""

    name: str
    base: TrainConfig
    seeds: int
    few: int
    trials: int  # settings tried for SimCLR, and as many for CLAE
    tuning_epochs: int
    validation: int  # training images kept out while tuning
    deep: bool = False  # ResNet-50 and -101 too
    measure: Measure = MEASURE
    recipes: dict[str, dict[str, Any]] | None = None  # a method's settings; None: tuned
    first: tuple[str, ...] = ()  # the rows that are worth most: all their seeds come before other rows

    @property
    def about(self) -> str:
        """Its size in words."""
        c = self.base
        images = f"{c.train_images:,} images" if c.train_images else "all 50,000 images"
        return f"{c.arch} width {c.width}, {images}, {c.epochs} epochs, batch {c.batch_size}, {self.few} to {self.seeds} seeds"


_CIFAR: dict[str, Any] = {"dataset": "cifar10", "knn_every": 0}
TIERS = {
    "cpu": Tier("cpu", TrainConfig(**_CIFAR, train_images=10_000, epochs=10, crop="fitted"), 5, 3, 10, 10, 5000),
    "gpu": Tier(
        "gpu",
        TrainConfig.strong(attack="none", compile=True, knn_every=0),
        *(5, 3, 10, 20, 5000),
        deep=True,
        measure=STRONG,
        recipes={"simclr": {}, "clae": {"eps": AT}},
        first=("simclr", "fgsm-4"),
    ),
}


@dataclass(frozen=True)
class Row:
    """One line of the table: a method with all its settings, trained with so many seeds, and the row it is compared with."""

    name: str
    title: str
    config: TrainConfig
    seeds: int
    against: str = "simclr"
    measure: Measure = MEASURE

    def cells(self, seeds: int | None = None) -> list[Cell]:
        """Its trainings; `seeds`: the first so many."""
        return [
            Cell(self.config.with_(seed=seed), self.measure) for seed in range(min(seeds or self.seeds, self.seeds))
        ]


def by_worth(lines: Sequence[Row], tier: Tier, seeds: int | None = None) -> list[Cell]:
    """The trainings of rows, those worth most first.

    First all seeds of the tier's `first` rows, seed by seed; then the rows in their order, their further seeds (from 3 on) last.
    """
    places = []
    for i, row in enumerate(lines):
        for cell in row.cells(seeds):
            seed, first = cell.config.seed, row.name in tier.first
            late = seed >= 3
            places.append(((late, not first, seed if first or late else i, i, seed), cell))
    return [cell for _, cell in sorted(places, key=lambda found: found[0])]


def tier_named(name: str, data_dir: str | None = None) -> Tier:
    """A tier by name, its images read from `data_dir`."""
    if name not in TIERS:
        raise UserError(f"tier is {' or '.join(TIERS)}, got '{name}'.{nearest(name, TIERS)}")
    return replace(TIERS[name], base=TIERS[name].base.with_(data_dir=data_dir))


def rows_named(names: Sequence[str], lines: Sequence[Row]) -> list[Row]:
    """Some of the rows, by name; all where none is named."""
    known = {row.name: row for row in lines}
    for name in names:
        if name not in known:
            raise UserError(f"There is no row '{name}'.{nearest(name, known)} The rows are {', '.join(known)}.")
    return [known[name] for name in names] or list(lines)


def trials(tier: Tier, method: str) -> list[dict[str, Any]]:
    """The settings that are tried for a method: `TrainConfig`'s own first, then drawn from `SPACE`, the same for both methods."""
    draw, own = random.Random(0), {name: getattr(tier.base, name) for name in SPACE}
    found = [own]
    while len(found) < tier.trials:
        tried = {name: draw.choice(values) for name, values in SPACE.items()}
        if tried not in found:
            found.append(tried)
    eps = [draw.choice(GRID) for _ in found]
    return found if method == "simclr" else [{**tried, "eps": e} for tried, e in zip(found, eps, strict=True)]


def trial_cells(tier: Tier, method: str) -> list[Cell]:
    """The trainings that tune a method: seed 0, fewer epochs, judged on `tier.validation` training images kept out."""
    base = tier.base.with_(attack=METHODS[method], validation=tier.validation, epochs=tier.tuning_epochs)
    return [Cell(base.with_(**changes), TUNING) for changes in trials(tier, method)]


def rows(tier: Tier, recipes: dict[str, dict[str, Any]]) -> list[Row]:
    """The table's lines, the most telling first. Rows other than `clae` have SimCLR's settings, so that one thing differs."""
    base = tier.base
    plain = base.with_(attack="none", **recipes["simclr"])
    own = base.with_(attack="fgsm", **recipes["clae"])

    def under(attack: str, eps: float = AT, **changes: Any) -> TrainConfig:
        return plain.with_(attack=attack, eps=eps, **changes)

    longer = max(1, round(base.epochs * step_passes(own) / step_passes(plain)))
    words = f"FGSM {show_eps(AT)}"
    tuned = [Row("clae", f"CLAE, its own settings, FGSM {show_eps(own.eps)}", own, tier.seeds)]
    found = [
        Row("simclr", "SimCLR", plain, tier.seeds),
        *(tuned if own != under("fgsm") else []),
        Row("fgsm-4", f"CLAE, {words}", under("fgsm"), tier.seeds),
        Row("gaussian-4", f"Gaussian noise, std {show_eps(AT)}", under("gaussian"), tier.seeds),
        Row("longer", f"SimCLR, {longer} epochs: CLAE's compute", plain.with_(epochs=longer), tier.seeds),
    ]
    names = {"rfgsm": "R-FGSM", "ffgsm": "F-FGSM", "pgd": "PGD of 3 steps"}
    found += [Row(f"{a}-4", f"CLAE, {n} {show_eps(AT)}", under(a, steps=3), tier.few) for a, n in names.items()]
    for eps in GRID:
        k = f"{eps * 255:g}"
        if eps != AT:
            found.append(Row(f"fgsm-{k}", f"CLAE, FGSM {show_eps(eps)}", under("fgsm", eps), tier.few))
            found.append(Row(f"gaussian-{k}", f"Gaussian noise, std {show_eps(eps)}", under("gaussian", eps), tier.few))
        found.append(Row(f"uniform-{k}", f"uniform noise {show_eps(eps)}", under("uniform", eps), tier.few))
    own_view = under("fgsm", adv_reference="self", attack_branch="adv")
    found += [
        Row("shared-bn", f"CLAE, {words}, one batch norm", under("fgsm", dual_bn=False), tier.few, "fgsm-4"),
        Row("self-4", f"CLAE, {words}, pushed from its own embedding", own_view, tier.few, "fgsm-4"),
        *_longer(plain, tier),
        *_papers(tier),
        *_losses(plain, tier),
    ]
    found += [*_controls(plain, tier), *_parts(plain, tier), *_deep(plain, tier)] if tier.deep else []
    return [replace(row, measure=tier.measure) for row in found]


def _longer(plain: TrainConfig, tier: Tier) -> list[Row]:
    """SimCLR and CLAE with `LONG` times the epochs."""
    config = plain.with_(epochs=LONG * tier.base.epochs)
    under, words = config.with_(attack="fgsm", eps=AT), f"{config.epochs} epochs"
    return [
        Row("simclr-long", f"SimCLR, {words}", config, tier.few),
        Row("fgsm-4-long", f"CLAE, FGSM {show_eps(AT)}, {words}", under, tier.few, "simclr-long"),
    ]


def _papers(tier: Tier) -> list[Row]:
    """The authors' code: its own step and settings, on this tier's network and images."""
    scale = ("dataset", "data_dir", "train_images", "arch", "width", "stem", "epochs", "knn_every", "crop")
    code = TrainConfig.paper_code(**{name: getattr(tier.base, name) for name in scale})
    return [
        Row("paper-simclr", "the authors' code, SimCLR", code.with_(attack="none"), tier.few),
        Row("paper-code", "the authors' code, CLAE", code, tier.few, "paper-simclr"),
    ]


def _losses(plain: TrainConfig, tier: Tier) -> list[Row]:
    """The authors' other two losses, with and without an adversary."""
    found = []
    for loss, name, title in (("softmax", "plain", "Plain"), ("uel", "uel", "UEL")):
        config = plain.with_(loss=loss)
        found.append(Row(name, title, config, tier.few))
        under = config.with_(attack="fgsm", eps=AT)
        found.append(Row(f"{name}-fgsm-4", f"{title} with FGSM {show_eps(AT)}", under, tier.few, name))
    return found


def _controls(plain: TrainConfig, tier: Tier) -> list[Row]:
    """Adversaries and hard negatives among the embeddings, which cost nothing (arXiv:2106.11230, arXiv:2010.04592)."""
    return [
        Row("ifm", "IFM, embeddings moved by 0.1", plain.with_(loss="ifm", feature_eps=0.1), tier.few),
        Row("hcl", "HCL, hard negatives, beta 1", plain.with_(loss="hcl", hardness=1.0), tier.few),
    ]


def _parts(plain: TrainConfig, tier: Tier) -> list[Row]:
    """CLAE with less weight on the adversary, and with a weaker one: which part of the step brings what."""
    under = plain.with_(attack="fgsm", eps=AT)
    return [
        *(Row(f"alpha-{a:g}", f"CLAE, weight {a:g}", under.with_(alpha=a), tier.few, "fgsm-4") for a in (0.25, 0.5)),
        Row("fgsm-1", "CLAE, FGSM 1/255", under.with_(eps=1 / 255), tier.few),
        Row(
            "eval-mode", f"CLAE, FGSM {show_eps(AT)} in eval mode", under.with_(attack_mode="eval"), tier.few, "fgsm-4"
        ),
    ]


def _deep(plain: TrainConfig, tier: Tier) -> list[Row]:
    found = []
    for arch in ("resnet50", "resnet101"):
        config, title = plain.with_(arch=arch), f"ResNet-{arch.removeprefix('resnet')}"
        under = config.with_(attack="fgsm", eps=AT)
        found.append(Row(arch, f"SimCLR, {title}", config, tier.few))
        found.append(Row(f"{arch}-fgsm-4", f"CLAE, {title}, FGSM {show_eps(AT)}", under, tier.few, arch))
    return found
