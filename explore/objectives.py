"""What an attack maximises: functions `images -> loss per image`, made from an encoder.

An objective is any callable from images (n, c, h, w) to losses (n,). The two here have `.modules`,
the networks they use, so that an attack can restore the networks' statistics; for a lambda the
attack finds them itself.
"""

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import incoming
from .errors import UserError
from .losses import loss_named
from .nets import as_encoder
from .random import untouched
from .types import Branch, Embeddings, Images, LabelsLike, PerImage

Objective = Callable[[Tensor], Tensor]


class contrast:
    """Contrastive loss of images against a reference batch, (n,) in nats; see `nt_xent`.

    Row i's partner is `reference[i]`, all others are negatives. `reference`: images (n, c, h, w),
    embedded once without gradient, or embeddings z (n, d). Needs no labels (Ho & Vasconcelos 2020,
    section 3). Changing one image changes the loss of the whole batch. `loss_options`: those of
    `loss`, `ifm`'s eps or `hcl`'s beta.

    >>> x = ex.load("fashion").test[:8][0]
    >>> encoder = ex.Encoder("resnet10", width=8, stem="small").eval()
    >>> ex.contrast(encoder, reference=x.flip(3))(x).shape
    torch.Size([8])
    """

    def __init__(
        self,
        encoder: nn.Module,
        reference: Tensor,
        *,
        temperature: float = 0.5,
        branch: Branch = "clean",
        loss: str = "nt_xent",
        loss_options: Mapping[str, float] | None = None,
    ):
        encoder = as_encoder(encoder)
        self.temperature = incoming.number(temperature, "temperature", open_low=True)
        self.encoder, self.branch = encoder, incoming.choice(branch, "branch", ("clean", "adv"))
        self.modules, self._loss = (encoder,), loss_named(loss, **loss_options or {})
        if isinstance(reference, Tensor) and reference.dim() == 2:
            self.z = incoming.features(reference.detach(), "A reference's embeddings")
            return
        incoming.images(reference, "A contrastive loss's reference images")
        with torch.no_grad(), untouched(encoder):
            self.z = encoder(reference, branch=branch)

    def __call__(self, x: Images) -> PerImage:
        if len(x) != len(self.z):
            raise UserError(
                f"The reference has {len(self.z)} images and the attacked batch {len(x)}; each image needs its own "
                "partner, so pass the same number of both."
            )
        return self.losses(self.encoder(x, branch=self.branch))

    def losses(self, z: Embeddings) -> PerImage:
        """The loss of embeddings z (n, d), one for each of the reference's."""
        return self._loss(self.z, z, self.temperature)


class classify:
    """Cross-entropy (n,), in nats, of a classifier head (features h -> logits).

    >>> encoder, head = ex.Encoder("resnet10", width=8, stem="small"), torch.nn.Linear(64, 10)
    >>> ex.classify(encoder, head, torch.tensor([3, 7]))(torch.rand(2, 3, 32, 32)).shape
    torch.Size([2])
    """

    def __init__(
        self, encoder: nn.Module, head: Callable[[Tensor], Tensor], y: LabelsLike, *, branch: Branch = "clean"
    ):
        encoder = as_encoder(encoder)
        self.head = incoming.function(head, "A head", "features (n, D) -> logits (n, C), as a fitted probe is")
        self.y = incoming.labels(y, classes=getattr(head, "classes_", None) or None)
        self.encoder, self.branch = encoder, incoming.choice(branch, "branch", ("clean", "adv"))
        self._fits = False
        self.modules = (encoder, head) if isinstance(head, nn.Module) else (encoder,)

    def __call__(self, x: Images) -> PerImage:
        if len(x) != len(self.y):
            raise UserError(f"There are {len(x)} images and {len(self.y)} labels; pass one label an image.")
        logits = logits_of(self.head, self.encoder.features(x, branch=self.branch))
        if not self._fits:
            check_classes(self.y, logits)
            self.y, self._fits = self.y.to(x.device), True
        return F.cross_entropy(logits, self.y, reduction="none")


def logits_of(head: Callable[[Tensor], Tensor], h: Tensor) -> Tensor:
    """A head's logits (n, C) of features h (n, D), checked."""
    with incoming.raised("The head"):
        logits = head(h)
    if not isinstance(logits, Tensor) or logits.dim() != 2 or len(logits) != len(h):
        came = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise UserError(f"A head must return logits of shape ({len(h)}, C), got {came}.")
    return logits


def check_classes(y: Tensor, logits: Tensor) -> None:
    """UserError where a label (n,) is not among the classes of logits (n, C)."""
    if len(y) and int(y.max()) >= logits.shape[1]:
        raise UserError(f"Labels must lie in 0 .. {logits.shape[1] - 1} for this head, got {int(y.max())}.")
