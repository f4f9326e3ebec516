"""Studies: one question each, from plain settings to `results`. No widget is imported here."""

from ..experiments.cell import Cell, Measure, cost_of, run_cell, step_passes
from ..experiments.grid import (
    METHODS,
    TRAIN_EPS,
    accuracy_vs_train_eps,
    attack_cells,
    compare_attacks,
    default_out,
    equal_compute,
    equal_compute_cells,
    gather,
    run_grid,
    shipped,
    train_eps_cells,
)
from ..experiments.runner import run_cells
from ..experiments.task import Done, StudyProgress
from ..perturbation.engine import TEST_KINDS, Batch, contrast_with, passes, scale_l2, scale_linf
from ..perturbation.study import GRID, PerturbationStudy, perturb
from .atlas import AtlasStudy, atlas, compare_atlases, study_of
from .attribution import AttributionStudy, cascade, randomised, what_it_sees
from .batch_norm import BatchMateStudy, compare_batch_norms, in_mode, statistics_gap
from .probes import authors_trap, compare_probes, label_curve, robust_curve
from .probing import Probing
from .reproduction.claims import scorecard
from .sweep import TEST_EPS, accuracy_vs_test_eps, loss_vs_eps
from .two_views import similarities

__all__ = [
    "GRID",
    "METHODS",
    "TEST_EPS",
    "TEST_KINDS",
    "TRAIN_EPS",
    "AtlasStudy",
    "AttributionStudy",
    "Batch",
    "BatchMateStudy",
    "Cell",
    "Done",
    "Measure",
    "PerturbationStudy",
    "Probing",
    "StudyProgress",
    "accuracy_vs_test_eps",
    "accuracy_vs_train_eps",
    "atlas",
    "attack_cells",
    "authors_trap",
    "cascade",
    "compare_atlases",
    "compare_attacks",
    "compare_batch_norms",
    "compare_probes",
    "contrast_with",
    "cost_of",
    "default_out",
    "equal_compute",
    "equal_compute_cells",
    "gather",
    "in_mode",
    "label_curve",
    "loss_vs_eps",
    "passes",
    "perturb",
    "randomised",
    "robust_curve",
    "run_cell",
    "run_cells",
    "run_grid",
    "scale_l2",
    "scale_linf",
    "scorecard",
    "shipped",
    "similarities",
    "statistics_gap",
    "step_passes",
    "study_of",
    "train_eps_cells",
    "what_it_sees",
]
