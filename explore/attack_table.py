"""The attacks and noises, one row each: every menu, curve, cost and command reads them here. Needs no torch."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class AttackRow:
    """One attack or noise, in the words and signs that stand for it.

    `name`: in configs and commands; also the classmethod of `Attack` or `Noise` that makes it. `title`: in menus and legends.
    `steps`: whether that classmethod takes `steps=`, a gradient each. `colour`: a role of `figures.base.COLOURS`.
    `dash`, `marker`: of its curve beside other attacks, as plotly names them.
    """

    name: str
    title: str
    role: Literal["attack", "noise"] = "attack"
    steps: bool = False
    colour: str = "adv"
    dash: str = "solid"
    marker: str = "circle"

    def options(self, steps: int) -> dict[str, int]:
        """What the classmethod takes beside eps, where the setting `steps` is this."""
        return {"steps": steps} if self.steps else {}

    def gradients(self, steps: int) -> int:
        """Gradients through the network that it takes, where the setting `steps` is this; each costs two forward passes."""
        return 0 if self.role == "noise" else steps if self.steps else 1


_ROWS = (  # in the order of the menus
    AttackRow("fgsm", "FGSM"),
    AttackRow("rfgsm", "R-FGSM", dash="dash", marker="triangle-up"),
    AttackRow("ffgsm", "F-FGSM", dash="dashdot", marker="square"),
    AttackRow("pgd", "PGD", steps=True, dash="dot", marker="diamond"),
    AttackRow("gaussian", "Gaussian", "noise", colour="gauss", marker="square"),
    AttackRow("uniform", "uniform", "noise", colour="uniform", marker="diamond"),
    AttackRow("sign", "sign noise", "noise", colour="sign", marker="triangle-up"),
)

TABLE = {row.name: row for row in _ROWS}
ATTACK_MENU = {row.title: row.name for row in _ROWS if row.role == "attack"}  # title -> name
NOISE_NAMES = tuple(row.name for row in _ROWS if row.role == "noise")
