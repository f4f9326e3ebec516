"""Names for the library's tensors, with their shapes.

With jaxtyping installed, as in the tests, rank and dtype are checked at every call; functions check
the sizes that must agree themselves. Without jaxtyping these are plain `torch.Tensor`.
"""

from collections.abc import Callable
from typing import Any, Literal

from torch import Tensor

try:
    from jaxtyping import Float, Integer

    Images = Float[Tensor, "_ _ _ _"]  # (n, c, h, w), pixels in [0, 1]
    Embeddings = Float[Tensor, "_ _"]  # (n, d)
    PerImage = Float[Tensor, " _"]  # (n,)
    Scalar = Float[Tensor, ""]
    Labels = Integer[Tensor, " _"]  # (n,)
except ImportError:
    Images = Embeddings = PerImage = Scalar = Labels = Tensor  # type: ignore[misc, assignment]

LabelsLike = Any  # labels as `incoming.labels` takes them: a tensor, an array, a list of numbers or of class names

ProgressCallback = Callable[
    [str, int, int], None
]  # what is being done, how far, of how much (0: not known); may raise to stop
Branch = Literal["clean", "adv"]  # which batch-norm statistics a forward pass uses
