"""The embedding atlas: `Atlas(run)` or `Atlas(run_a, run_b)`; `panel.py` is the panel, `stages.py` its work, `facts.py` its words."""

from .panel import Atlas

__all__ = ["Atlas"]
