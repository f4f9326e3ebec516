"""The linear-probe panel: `matrices` draws two encoders' confusions, `findings` what one cell of them holds."""

from .panel import Probe

__all__ = ["Probe"]
