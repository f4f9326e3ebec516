"""What the noise-or-adversary panel shows of a sweep: which rows, as points with their intervals. No widget."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from ...attack_table import ATTACK_MENU, TABLE
from ...attacks import ATTACKS, NOISES
from ...config import TrainConfig
from ...errors import UserError
from ...results import Difference, Sweep
from ...results.sweep import interval
from ...studies import step_passes
from ..html import signed

MATCHES = {"L∞": "linf", "L2": "l2", "ε": "plain"}  # what noise shares with the adversary
GAUSSIANS = {"σ": "std", "σ²": "variance"}  # what eps is in N(0, eps)
JUDGES = {"linear probe": "probe", "kNN": "knn"}
SPREADS = ("95 %, t", "± sd")
OTHERS = tuple(ATTACKS)[1:]  # attacks beside the first, which may stand for the adversary
KINDS = {  # key -> role and name
    "adversary": ("adv", "adversary"),
    **{name: (TABLE[name].colour, TABLE[name].title) for name in OTHERS},
    "probe": ("adv", "probe’s adversary"),
    **{name: (TABLE[name].colour, TABLE[name].title) for name in NOISES},
    "simclr": ("clean", "SimCLR"),
    "same": ("clean", "SimCLR, same compute"),
}
LEVELS = ("simclr", "same")  # horizontal lines
RIVALS = ("adversary", *OTHERS)  # attacks that are compared with one another; the first is then called by its own name
TITLES = {name: title for title, name in ATTACK_MENU.items()}
SIMCLR = "SimCLR"


@dataclass(frozen=True)
class Choice:
    """The panel's controls, as far as they say what is shown."""

    show: str = "accuracy"  # or 'loss'
    against: str = "training ε"  # or 'test ε'
    match: str = "ε"  # one of MATCHES
    gaussian: str = "σ"  # one of GAUSSIANS
    judge: str = "linear probe"  # one of JUDGES
    spread: str = SPREADS[0]
    rivals: bool = False  # attack against attack rather than attack against noise

    @property
    def training(self) -> bool:
        """Whether eps is that of the training, not of the test images."""
        return self.against == "training ε"

    @property
    def metric(self) -> str:
        """The column 'metric' of the rows: 'loss', 'probe' or 'knn'."""
        return "loss" if self.show == "loss" else JUDGES[self.judge]


@dataclass(frozen=True)
class Kind:
    """A curve, or a horizontal line (`level`): the role of its colour, its name, and the settings of its rows."""

    key: str
    role: str
    name: str
    where: dict[str, Any]
    level: bool = False


@dataclass(frozen=True)
class Point:
    """A kind at one eps: mean over seeds, interval, and the rows behind it in the order of their seeds."""

    kind: Kind
    k: float
    mean: float
    low: float
    high: float
    rows: pd.DataFrame = field(repr=False)

    @property
    def n(self) -> int:
        """Seeds."""
        return len(self.rows)

    @property
    def values(self) -> dict[int, float]:
        """Seed -> value."""
        return dict(zip(self.rows.seed.tolist(), self.rows.value.tolist(), strict=True))


@dataclass(frozen=True)
class Unit:
    """How a metric is written: 83.4 % and 0.7 points, or 3.41 nats."""

    scale: float
    digits: int
    mark: str
    word: str

    def value(self, value: float) -> str:
        return f"{self.scale * value:.{self.digits}f}".replace("-", "−")

    def change(self, value: float) -> str:
        return signed(self.scale * value, self.digits)

    def bounds(self, low: float, high: float) -> str:
        """'[82.9, 83.9]'; nothing where there is no interval."""
        return f"[{self.value(low)}, {self.value(high)}]" if math.isfinite(low) and math.isfinite(high) else ""

    def span(self, low: float, high: float) -> str:
        return f"{self.value(low)} to {self.value(high)}"


PERCENT, NATS = Unit(100, 1, " %", "points"), Unit(1, 2, " nats", "nats")


@dataclass(frozen=True)
class Scene:
    """All that is on the screen except the slider's value: choice, kinds ticked, their rows and points."""

    choice: Choice
    kinds: dict[str, Kind]
    sweep: Sweep
    points: dict[tuple[str, float], Point]

    @property
    def unit(self) -> Unit:
        return NATS if self.choice.show == "loss" else PERCENT

    def at(self, key: str, k: float) -> Point | None:
        """The point of a kind at eps = k/255; a horizontal line has one for all eps."""
        kind = self.kinds.get(key)
        return self.points.get((key, 0.0 if kind is not None and kind.level else k))

    def of(self, key: str) -> list[Point]:
        """A kind's points from small eps to large."""
        return sorted((p for (own, _), p in self.points.items() if own == key), key=lambda p: p.k)

    def compare(self, a: Point, b: Point) -> Difference | None:
        """How much b is above a, paired by seed; None where they share none."""
        if not a.values.keys() & b.values.keys():
            return None
        settings = [{**p.kind.where, "k": p.k} for p in (a, b)]
        return self.sweep.paired(*settings, metric=self.choice.metric)


def is_training(table: pd.DataFrame) -> pd.Series:
    """Which rows say how an encoder was trained with its attack; the others say what was done to test images."""
    own = {"none": SIMCLR} | {a: f"CLAE ({a})" for a in ATTACKS} | {n: f"{SIMCLR} + {n} noise" for n in NOISES}
    trained = table.attack.str.removesuffix("-variance").map(own) == table.method
    return trained | (table.method == "untrained")


def kinds_of(choice: Choice, rows: Sweep, base: TrainConfig | None) -> dict[str, Kind]:
    """Every kind that this choice can show. `base`: the settings that the trainings of `rows` share."""
    match, attack = MATCHES[choice.match], adversary(rows, base)
    gaussian = "gaussian-variance" if (choice.match, choice.gaussian) == ("ε", "σ²") else "gaussian"
    where: dict[str, dict[str, Any]] = {
        "adversary": {"attack": attack},
        "gaussian": {"attack": gaussian, "match": match},
    }
    where |= {name: {"attack": name, "match": match} for name in NOISES if name != "gaussian"}
    where |= {name: {"attack": name} for name in RIVALS[1:] if choice.rivals and name != attack}
    if not choice.training:
        own = {"match": match, "against": "contrast"}
        where |= {key: {**where[key], **own} for key in RIVALS if key in where}
        where["probe"] = {"attack": attack, "match": match, "against": "probe"}
        if choice.show == "loss":
            del where["probe"]
    else:
        own_rows = rows.table[rows.table.attack == attack]
        for name in ("dataset", "arch", "epochs"):
            if own_rows[name].nunique() > 1:
                values = ", ".join(str(v) for v in own_rows[name].unique())
                raise UserError(
                    f"The sweep's trainings differ in {name} ({values}); choose with sweep.where({name}=...)."
                )
        epochs = int(own_rows.epochs.iloc[0]) if len(own_rows) else base.epochs if base else 0
        where["simclr"] = {"method": SIMCLR, "epochs": epochs}
        if base is not None:
            where["same"] = {"method": SIMCLR, "epochs": longer(base, attack)}
    names = {"adversary": TITLES[attack]} if choice.rivals else {}
    return {
        key: Kind(key, role, names.get(key, name), where[key], key in LEVELS)
        for key, (role, name) in KINDS.items()
        if key in where
    }


def adversary(rows: Sweep, base: TrainConfig | None = None) -> str:
    """The attack that is called the adversary: FGSM where there is one."""
    there = [name for name in ATTACKS if (rows.table.attack == name).any()]
    return there[0] if there else base.attack if base is not None and base.attack in ATTACKS else "fgsm"


def longer(base: TrainConfig, attack: str) -> int:
    """Epochs of SimCLR that cost what `base.epochs` with this attack cost; at least one."""
    costs = [step_passes(base.with_(attack=name, eps=8 / 255)) for name in (attack, "none")]
    return max(1, round(base.epochs * costs[0] / costs[1]))


def scene_of(choice: Choice, rows: Sweep, ticked: Iterable[str], base: TrainConfig | None = None) -> Scene:
    """What this choice shows of some rows, for the kinds ticked."""
    kinds = {key: kind for key, kind in kinds_of(choice, rows, base).items() if key in set(ticked)}
    parts = {key: rows.where(metric=choice.metric, **kind.where) for key, kind in kinds.items()}
    tables = [part.table for part in parts.values()]
    shown = pd.concat(tables, ignore_index=True) if tables else rows.table.iloc[:0]
    sweep = Sweep(shown, rows.provenance)
    sweep.summary()  # refuses several runs of one setting and seed
    points = {}
    for key, part in parts.items():
        for k, own in part.table.groupby("k"):
            points[key, float(k)] = _point(kinds[key], float(k), own.sort_values("seed"), choice.spread)  # type: ignore[arg-type]
    return Scene(choice, kinds, sweep, points)


def _point(kind: Kind, k: float, rows: pd.DataFrame, spread: str) -> Point:
    mean, sd, low, high = interval(rows.value.tolist())
    if len(rows) == 1:  # one seed: the interval of its value over the images
        low, high = float(rows.low.iloc[0]), float(rows.high.iloc[0])
    elif spread == "± sd":
        low, high = mean - sd, mean + sd
    return Point(kind, k, mean, low, high, rows)


def cost_of(point: Point) -> float:
    """Forward passes an image that the trainings behind a point cost, on average."""
    return float(point.rows.cost.mean())


def fair(level: Point, own: Point) -> bool:
    """Whether a horizontal line may be compared with a point: SimCLR always, longer SimCLR where both cost the same."""
    return level.kind.key == "simclr" or abs(cost_of(level) / max(cost_of(own), 1) - 1) < 0.1
