"""What an attack maximises: functions `images -> loss per image`, made from an encoder.

An objective is any callable from images (n, c, h, w) to losses (n,). The two here have `.modules`,
the networks they use, so that an attack can restore the networks' statistics; for a lambda the
attack finds them itself.
"""

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .errors import UserError
from .losses import loss_named
from .nets import as_encoder
from .random import untouched
from .types import Branch, Embeddings, Images, Labels, PerImage

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
        reference: Images | Embeddings,
        *,
        temperature: float = 0.5,
        branch: Branch = "clean",
        loss: str = "nt_xent",
        loss_options: Mapping[str, float] | None = None,
    ):
        self.encoder, self.temperature, self.branch = encoder, temperature, branch
        self.modules, self._loss = (encoder,), loss_named(loss, **loss_options or {})
        with torch.no_grad(), untouched(encoder):
            self.z = encoder(reference, branch=branch) if reference.dim() == 4 else reference.detach()

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

    def __init__(self, encoder: nn.Module, head: Callable[[Tensor], Tensor], y: Labels, *, branch: Branch = "clean"):
        encoder = as_encoder(encoder)
        self.encoder, self.head, self.y, self.branch = encoder, head, y, branch
        self.modules = (encoder, head) if isinstance(head, nn.Module) else (encoder,)

    def __call__(self, x: Images) -> PerImage:
        if len(x) != len(self.y):
            raise UserError(f"There are {len(x)} images and {len(self.y)} labels; pass one label an image.")
        logits = self.head(self.encoder.features(x, branch=self.branch))
        if int(self.y.max()) >= logits.shape[1] or int(self.y.min()) < 0:
            raise UserError(
                f"Labels must lie in 0 .. {logits.shape[1] - 1} for this head, got up to {int(self.y.max())}."
            )
        return F.cross_entropy(logits, self.y, reduction="none")
