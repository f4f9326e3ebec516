"""Explore contrastive learning with adversarial examples (CLAE, Ho & Vasconcelos, NeurIPS 2020).

    import explore as ex
    run = ex.open_run("demo/clae")
    panel = ex.panels.Perturbation(run)

Names load when first used, so that importing this costs next to nothing beyond torch.
"""

import os
from importlib import import_module
from typing import Any

# torch's threads wait for each other by spinning, for so long that two busy programs on one machine slow each other down
# many times over; this short a wait costs nothing when the machine is quiet (LOG.md). Read when torch loads.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")

__version__ = "0.2.0"

_HOME = {  # public name -> the room it lives in
    "Attack": "attacks",
    "Noise": "attacks",
    "attack_named": "attacks",
    "match": "attacks",
    "norms": "attacks",
    "attribute": "attribution",
    "logit": "attribution",
    "similarity": "attribution",
    "TrainConfig": "config",
    "parse_eps": "config",
    "load": "datasets",
    "names": "datasets",
    "UserError": "errors",
    "embed": "evaluate",
    "Probe": "evaluate",
    "knn_accuracy": "evaluate",
    "open_encoder": "evaluate",
    "robust_accuracy": "evaluate",
    "take_labels": "evaluate",
    "transfer": "evaluate",
    "alignment": "losses",
    "chance": "losses",
    "hcl": "losses",
    "ifm": "losses",
    "nt_xent": "losses",
    "uniformity": "losses",
    "DualBatchNorm2d": "nets",
    "Encoder": "nets",
    "classify": "objectives",
    "contrast": "objectives",
    "PatchEncoder": "patches",
    "patch_encoder": "patches",
    "Run": "runfolder",
    "open_run": "runfolder",
    "runs": "runfolder",
    "seeded": "random",
    "untouched": "random",
    "perturb": "studies",
    "train": "training",
    "Views": "views",
    "two_views": "views",
    "diagnose": "doctor",
    "source": "sources",
}
_ROOMS = ("course", "figures", "panels", "studies")

__all__ = ["__version__", *_HOME, *_ROOMS]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        value = getattr(import_module(f".{_HOME[name]}", __name__), name)
    elif name in _ROOMS:
        value = import_module(f".{name}", __name__)
    else:
        raise AttributeError(f"explore has no '{name}'; dir(explore) lists what it has")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
