"""Results of sweeps over eps, methods and seeds: a tidy table, means, paired differences."""

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from ..errors import UserError, nearest
from ..serialization import read_json

SETTINGS = {  # what was done
    "dataset": "str",
    "arch": "str",
    "method": "str",  # how the encoder was trained; 'untrained' where it was not
    "attack": "str",  # what perturbs: the training images in a training sweep, the test images in a test sweep
    "against": "str",  # whose loss a test-time attack raises: 'contrast' or 'probe'; '' elsewhere
    "match": "str",  # 'plain', or the length that noise shares with the adversary: 'linf', 'l2'
    "eps": "float64",  # pixel units
    "k": "float64",  # eps * 255
    "epochs": "int64",  # of training
    "cost": "float64",  # of training: forward passes an image, epochs * passes a step (SimCLR 6, CLAE 9, ...)
    "metric": "str",
}
FOUND = {  # what came out, and of what
    "seed": "int64",  # of the training
    "value": "float64",
    "low": "float64",  # 95 % interval of this one value over its n images; NaN where it has none
    "high": "float64",
    "n": "int64",  # images measured on
    "device": "str",
    "versions": "str",
    "run": "str",
    "seconds": "float64",  # of the whole cell, training included
    "commit": "str",
    "cell": "str",  # its name on disk: a hash of all that determines it
}
COLUMNS = {**SETTINGS, **FOUND}


@dataclass(frozen=True)
class Difference:
    """Setting b minus setting a, seed by seed: mean, 95 % t-interval and p of the paired t-test."""

    metric: str
    mean: float
    low: float  # NaN for a single pair
    high: float
    n: int  # pairs
    p: float
    each: dict[int, float]  # seed -> b minus a
    level: float = 0.95
    method: str = "paired t over seeds"

    @classmethod
    def between(cls, metric: str, first: Mapping[int, float], second: Mapping[int, float]) -> "Difference":
        """Of values by seed, second minus first; seeds that only one has are left out."""
        from scipy import stats

        each = {seed: second[seed] - first[seed] for seed in sorted(first.keys() & second.keys())}
        mean, sd, low, high = interval(list(each.values()))
        p = float(2 * stats.t.sf(abs(mean) / (sd / len(each) ** 0.5), len(each) - 1)) if sd > 0 else float("nan")
        return cls(metric, mean, low, high, len(each), p, each)

    @property
    def settled(self) -> bool:
        """True if the interval excludes zero."""
        return self.low > 0 or self.high < 0

    def __repr__(self) -> str:
        return (
            f"<{self.metric}: {self.mean:+.4f} [{self.low:+.4f}, {self.high:+.4f}], {self.method}, n = {self.n}, "
            f"p = {self.p:.2g}>"
        )


@dataclass(frozen=True)
class Sweep:
    """A tidy table with one row per cell and metric (columns: `COLUMNS`), and its provenance."""

    table: pd.DataFrame
    provenance: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, rows: Iterable[Mapping[str, Any]], provenance: dict[str, Any] | None = None) -> "Sweep":
        """From rows with values for (some of) `COLUMNS`, in their order."""
        return cls(_typed(pd.DataFrame(list(rows), columns=list(COLUMNS))), provenance or {})

    def __len__(self) -> int:
        return len(self.table)

    def __repr__(self) -> str:
        seeds = self.table.seed.nunique()
        return f"<sweep: {len(self):,} rows, {self.table.cell.nunique():,} cells, {seeds} seed{'s' * (seeds != 1)}>"

    def where(self, **settings: Any) -> "Sweep":
        """Rows with these values in these columns; a list matches any; k stands for eps."""
        keep = pd.Series(True, index=self.table.index)
        for name, value in settings.items():
            if name not in COLUMNS:
                raise UserError(f"A sweep has no column '{name}'.{nearest(name, COLUMNS)}")
            values = list(value) if isinstance(value, (list, tuple, set)) else [value]
            column = self.table[name]
            keep &= column.round(9).isin([round(v, 9) for v in values]) if name == "eps" else column.isin(values)
        return Sweep(self.table[keep].reset_index(drop=True), self.provenance)

    def config(self, cell: str) -> dict[str, Any]:
        """The settings that a cell was trained with, as `TrainConfig.from_dict` takes them."""
        for part in _unjoined(self.provenance):
            if cell in part.get("cells", {}):
                return {**part["config"], **part["cells"][cell]}
        raise UserError(f"No settings are kept of a cell '{cell}'; the cells are in the column 'cell' of .table.")

    def join(self, *others: "Sweep") -> "Sweep":
        """This and other sweeps in one, without duplicate cells."""
        tables = [self.table, *(o.table for o in others)]
        rows = pd.concat([t for t in tables if len(t)] or tables[:1], ignore_index=True)
        parts = [part for s in (self, *others) for part in _unjoined(s.provenance)]
        once = rows.drop_duplicates([*SETTINGS, "seed", "run", "cell"], ignore_index=True)
        return Sweep(_typed(once), {**parts[0], "joined": parts[1:]})

    def summary(self) -> pd.DataFrame:
        """One row per setting: mean over seeds with its 95 % t-interval.

        Columns: `SETTINGS`, mean, sd, low, high, n (seeds), level, interval (how it was computed),
        values (seed by seed). For a single seed the interval is that of its value over the images.
        """
        twice = self.table.duplicated([*SETTINGS, "seed"])
        if twice.any():
            row = self.table[twice].iloc[0]
            raise UserError(
                f"Several runs share one setting and seed (first: {row.run}, {row.attack}, seed {row.seed}), so a mean over seeds "
                "would mix them; choose with .where(run=...)."
            )
        rows = []
        for key, part in self.table.groupby(list(SETTINGS), sort=False, dropna=False):
            part = part.sort_values("seed")
            values = part.value.tolist()
            mean, sd, low, high = interval(values)
            made = f"t over {len(values)} seeds"
            if len(values) == 1:
                low, high, made = part.low.iloc[0], part.high.iloc[0], f"one seed, over {part.n.iloc[0]:,} images"
            rows.append((*key, mean, sd, low, high, len(values), 0.95, made, tuple(values)))
        names = [*SETTINGS, "mean", "sd", "low", "high", "n", "level", "interval", "values"]
        return pd.DataFrame(rows, columns=names)

    def paired(self, a: Mapping[str, Any], b: Mapping[str, Any], *, metric: str) -> Difference:
        """Setting b minus setting a, paired by seed.

        `paired({"attack": "none"}, {"attack": "fgsm", "k": 8}, metric="knn")`. Seeds that only one
        has are left out. UserError if a setting matches several rows of one seed.
        """
        first, second = self._by_seed(a, metric), self._by_seed(b, metric)
        if not first.keys() & second.keys():
            raise UserError(
                f"No seed was run with both {dict(a)} and {dict(b)}: the first has seeds {sorted(first)}, the second "
                f"{sorted(second)}; train one with the other's seeds."
            )
        return Difference.between(metric, first, second)

    def _by_seed(self, settings: Mapping[str, Any], metric: str) -> dict[int, float]:
        found = self.where(**{**settings, "metric": metric}).table
        if found.empty:
            raise UserError(f"No row of the sweep has {dict(settings)} and metric '{metric}'; see its .table.")
        if found.seed.duplicated().any():
            differ = [c for c in SETTINGS if found[c].nunique() > 1] or ["run"]
            raise UserError(
                f"{dict(settings)} names several rows of one seed, which differ in {', '.join(differ)}; name one value."
            )
        return dict(zip(found.seed.tolist(), found.value.tolist(), strict=True))

    def save(self, path: str | Path) -> Path:
        """Write `path`.json (provenance), `path`.csv and `path`.parquet; returns the last path."""
        path = _stem(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        with _placed(path, ".json") as temp:
            temp.write_text(json.dumps(self.provenance, indent=1) + "\n")
        with _placed(path, ".csv") as temp:
            self.table.to_csv(temp, index=False)
        with _placed(path, ".parquet") as temp:
            self.table.to_parquet(temp, index=False)
        return _with(path, ".parquet")

    @classmethod
    def load(cls, path: str | Path) -> "Sweep":
        """Read what `save` wrote: the parquet, or the CSV where there is no parquet."""
        path = _stem(path)
        parquet, text, notes = (_with(path, end) for end in (".parquet", ".csv", ".json"))
        if not (parquet.is_file() or text.is_file()):
            raise UserError(f"There is no saved sweep {parquet} (or .csv).")
        if parquet.is_file():
            table = pd.read_parquet(parquet)
        else:
            table = pd.read_csv(text, dtype="str", keep_default_na=False)  # numbers are read by Python: exact
            for name in (name for name, kind in COLUMNS.items() if kind != "str" and name in table):
                table[name] = [float(word or "nan") for word in table[name]]
        missing = [name for name in COLUMNS if name not in table]
        if missing:
            raise UserError(f"{path} is not a saved sweep: it has no column '{missing[0]}'.")
        return cls(_typed(table), read_json(notes) if notes.is_file() else {})


def _unjoined(provenance: dict[str, Any]) -> list[dict[str, Any]]:
    return [{k: v for k, v in provenance.items() if k != "joined"}, *provenance.get("joined", [])]


def interval(values: list[float], level: float = 0.95) -> tuple[float, float, float, float]:
    """(mean, sd, low, high): Student's 95 % t-interval of the mean; NaN for a single value."""
    from scipy import stats

    n = len(values)
    mean = sum(values) / n
    if n == 1:
        return mean, float("nan"), float("nan"), float("nan")
    sd = (sum((v - mean) ** 2 for v in values) / (n - 1)) ** 0.5
    half = float(stats.t.ppf((1 + level) / 2, n - 1)) * sd / n**0.5
    return mean, sd, mean - half, mean + half


def _typed(table: pd.DataFrame) -> pd.DataFrame:
    """The columns in their order and kinds; a word that is missing is ''."""
    words = {
        name: table[name].astype(object).where(table[name].notna(), "") for name in COLUMNS if COLUMNS[name] == "str"
    }
    return table.assign(**words)[list(COLUMNS)].astype(COLUMNS).reset_index(drop=True)


def _stem(path: str | Path) -> Path:
    path = Path(path)
    return path.with_suffix("") if path.suffix in (".parquet", ".csv", ".json") else path


def _with(path: Path, end: str) -> Path:
    return path.with_name(path.name + end)


class _placed:
    """A file that is written beside its target and renamed when complete."""

    def __init__(self, path: Path, end: str):
        self.path = _with(path, end)
        self.temp = self.path.with_name(f".{self.path.name}.{os.getpid()}.tmp")

    def __enter__(self) -> Path:
        return self.temp

    def __exit__(self, kind, error, trace) -> None:
        if kind is None:
            os.replace(self.temp, self.path)
        else:
            self.temp.unlink(missing_ok=True)
