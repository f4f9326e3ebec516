"""Transfer results beside the rebuttal's Table 1."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from ..errors import UserError
from ..serialization import read_json

# Rebuttal of Ho & Vasconcelos 2020, Table 1: ResNet-18 trained on ImageNet-100, linear evaluation, % and the +- it prints
# (n and metric are not stated): SimCLR, CLAE.
REBUTTAL = {
    "cifar10": ((72.8, 0.3), (73.6, 0.3)),
    "cifar100": ((45.3, 0.1), (47.0, 0.2)),
    "cars": ((12.25, 0.0), (12.60, 0.1)),
    "aircraft": ((14.8, 0.9), (16.2, 0.6)),
    "dtd": ((50.6, 1.2), (51.5, 0.5)),
    "pets": ((44.4, 0.4), (44.4, 0.0)),
    "caltech101": ((68.2, 0.3), (69.1, 0.3)),
    "flowers": ((46.0, 0.3), (47.1, 0.8)),
}


@dataclass(frozen=True)
class Transfer:
    """Linear evaluation of one or more encoders on the available transfer sets."""

    rows: tuple[
        dict[str, Any], ...
    ]  # one an encoder and set that ran: encoder, dataset, metric, value, low, high, n, l2, size, ...
    absent: dict[str, str]  # set -> how to get it
    provenance: dict[str, Any] = field(default_factory=dict)

    @property
    def cells(self) -> pd.DataFrame:
        """One row per encoder and set: value, 95 % interval, n, l2, seconds, warnings."""
        table = pd.DataFrame(list(self.rows))
        table.attrs = dict(self.provenance)
        return table

    @property
    def table(self) -> pd.DataFrame:
        """One row per set, in Table 1's order, in %, beside the rebuttal's SimCLR and CLAE.

        Mean over encoders ± their standard deviation; for one encoder ± half its 95 % interval.
        """
        rows = []
        for name, (simclr, clae) in REBUTTAL.items():
            own = [row for row in self.rows if row["dataset"] == name]
            values = pd.Series([100 * row["value"] for row in own], dtype=float)
            spread = values.std() if len(own) > 1 else 50 * (own[0]["high"] - own[0]["low"]) if own else float("nan")
            kind = f"sd of {len(own)}" if len(own) > 1 else "95 % of test images" if own else ""
            rows.append(
                {
                    "dataset": name,
                    "here": values.mean(),
                    "±": spread,
                    "± is": kind,
                    "metric": own[0]["metric"] if own else "",
                    "test images": own[0]["n"] if own else 0,
                    "rebuttal SimCLR": simclr[0],
                    "± ": simclr[1],
                    "rebuttal CLAE": clae[0],
                    "±  ": clae[1],
                    "note": "; ".join(own[0]["warnings"])
                    if own
                    else f"not here: {self.absent.get(name, 'not asked for')}",
                }
            )
        table = pd.DataFrame(rows)
        table.attrs = dict(self.provenance)
        return table

    def __repr__(self) -> str:
        shown = self.table.drop(columns=["note"]).round(1).to_string(index=False, na_rep="")
        lacking = "".join(f"\n{name}: {how}" for name, how in self.absent.items())
        return f"{shown}{lacking}"

    def save(self, path: str | Path) -> Path:
        """Write one .json."""
        path = Path(path).with_suffix(".json")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"rows": self.rows, "absent": self.absent, "provenance": self.provenance}, indent=1))
        return path

    @classmethod
    def load(cls, path: str | Path) -> "Transfer":
        """Read what `save` wrote."""
        path = Path(path).with_suffix(".json")
        if not path.is_file():
            raise UserError(f"There is no file {path}.")
        found = read_json(path)
        return cls(tuple(found["rows"]), found["absent"], found["provenance"])
