"""Features of a split, kept on disk by their content."""

from collections.abc import Iterable

import torch
from torch import Tensor

from ..datasets import Split
from ..errors import UserError
from ..nets import Encoder
from ..shapes import Images
from ..state import untouched


@torch.no_grad()
def embed(
    encoder: Encoder, images: "Split | Images", what: str = "h", *, batch_size: int = 500
) -> tuple[Tensor, Tensor]:
    """Features h (n, D) or projections z (n, d) of a split or of images, and the labels (n,), -1 where there are none.

    Clean branch, eval mode; the encoder is left in the mode it came in.
    """
    if what not in ("h", "z"):
        raise UserError(f"what is 'h' (features) or 'z' (projections), got '{what}'.")
    forward = encoder.features if what == "h" else encoder
    batches: Iterable[tuple[Tensor, Tensor]]
    if isinstance(images, Tensor):
        batches = ((x, torch.full((len(x),), -1)) for x in images.split(batch_size))
    else:
        batches = images.batches(batch_size)
    with untouched(encoder):
        encoder.eval()
        pairs = [(forward(x), y) for x, y in batches]
    return torch.cat([h for h, _ in pairs]).float(), torch.cat([y for _, y in pairs])
