"""What must hold whenever images are perturbed, as measured: small changes, valid pixels, networks as they were."""

from torch import Tensor, nn

from ..config import show_eps
from ..results import Check

ROUNDING = 4e-7  # of float32 pixels


class NetworkState:
    """An encoder's buffers and modes now, to be compared with what they are later."""

    def __init__(self, encoder: nn.Module):
        self.encoder = encoder
        self.buffers = {name: b.detach().clone() for name, b in encoder.named_buffers()}
        self.modes = {name: m.training for name, m in encoder.named_modules()}

    def checks(self) -> tuple[Check, Check]:
        """Batch-norm statistics and modes: where they differ, the first that does, and by how much."""
        was, own = self.buffers, dict(self.encoder.named_buffers())
        buffers = [
            f"{n}, by {(b.float() - was[n].float()).abs().max():.1g}" for n, b in own.items() if not b.equal(was[n])
        ]
        other = [(n or "encoder", m.training) for n, m in self.encoder.named_modules() if m.training != self.modes[n]]
        modes = [f"{name} in {'training' if training else 'eval'} mode" for name, training in other]
        return (
            Check("BN statistics untouched", not buffers, "".join(buffers[:1])),
            Check("modes restored", not modes, "".join(modes[:1])),
        )


def small_change(largest: float, eps: float) -> Check:
    """The largest change of a pixel is eps at most, both in pixel units."""
    return Check(f"|δ| ≤ {show_eps(eps)}", largest <= eps + ROUNDING, f"reaches {255 * largest:.2f}/255")


def valid_pixels(low: float, high: float) -> Check:
    """All pixels lie in [0, 1]."""
    return Check("pixels in [0, 1]", low >= 0 and high <= 1, f"they reach {low:.3f} … {high:.3f}")


def raised_loss(clean: Tensor, attacked: Tensor, eps: float) -> Check:
    """No image's loss (n,) is lower under attack."""
    fell = int((attacked < clean - 1e-6).sum())
    name = "loss above clean" if eps else "loss as clean"
    return Check(name, not fell, f"lower in {fell} of {len(clean)} images")
