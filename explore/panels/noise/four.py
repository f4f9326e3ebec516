"""Four attacks: the noise-or-adversary room with attack against attack on its curves."""

import traitlets

from ...attacks import ATTACKS
from .panel import NoiseOrAdversary
from .points import KINDS, LEVELS, RIVALS


class FourAttacks(NoiseOrAdversary):
    """`FourAttacks(sweep, run)`: FGSM, R-FGSM, F-FGSM and PGD, and beside them sign noise of their size; all else as its base."""

    title = "Four attacks"
    offers = (*RIVALS, "sign", *LEVELS)
    attacks = tuple(ATTACKS)
    kinds = traitlets.List(traitlets.Enum(list(KINDS)), list(offers))
