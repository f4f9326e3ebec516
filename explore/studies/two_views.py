"""Two random views of every image of a batch, as the contrastive loss sees them: pictures, crops, cosines."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import UserError
from ..nets import as_encoder
from ..perturbation.checks import NetworkState
from ..random import seeded, untouched
from ..results import Similarities
from ..views import Views


@torch.no_grad()
def similarities(
    encoder: nn.Module,
    x: Tensor,
    *,
    views: Views,
    temperature: float = 0.5,
    seed: int = 0,
    labels: Tensor | None = None,
    index: Tensor | None = None,
    classes: Sequence[str] = (),
    provenance: dict[str, Any] | None = None,
) -> Similarities:
    """Cosines of the projections z of two views of every image x (n, c, h, w); the network in eval mode.

    The views are those of `two_views(views, x, seeded(seed))`. UserError for fewer than two images.
    """
    if len(x) < 2:
        raise UserError(
            f"A contrastive loss needs two images or more, got {len(x)}; without others there is no negative."
        )
    net, before, generator = as_encoder(encoder), NetworkState(encoder), seeded(seed)
    params = [views.sample(len(x), generator, (x.shape[-2], x.shape[-1])) for _ in range(2)]
    pictures = torch.cat([views.apply(x, p) for p in params])
    with untouched(net):
        net.eval()
        z = torch.nn.functional.normalize(net(pictures).float(), dim=1)
    about = {"study": "similarities", "seed": seed, "device": str(x.device), "torch": torch.__version__}
    return Similarities(
        x=x.cpu(),
        views=pictures.cpu(),
        boxes=torch.cat([p.box for p in params]).cpu(),
        flips=torch.cat([p.flip for p in params]).cpu(),
        cosine=(z @ z.T).clamp(-1, 1).cpu(),
        temperature=temperature,
        index=torch.arange(len(x)) if index is None else index.cpu(),
        labels=torch.full((len(x),), -1) if labels is None else labels.cpu(),
        classes=tuple(classes),
        checks=before.checks(),
        provenance={**about, **(provenance or {})},
    )
