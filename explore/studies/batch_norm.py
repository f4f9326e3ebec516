"""What couples the pictures of a batch: negatives and batch norm; and batch norm shared, dual and frozen in training."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from .. import datasets
from ..attacks import Attack
from ..config import TrainConfig
from ..errors import UserError, nearest
from ..evaluate import embed, knn_accuracy
from ..nets import BatchNorm2d, DualBatchNorm2d, Encoder
from ..objectives import contrast
from ..perturbation.checks import NetworkState
from ..random import constant, seeded, untouched
from ..results import BatchMates
from ..results.batch_mates import COUPLINGS
from ..runfolder import build_encoder
from ..training import make_optimizer, make_stepper, make_views
from ..views import Views, two_views

KINDS = ("shared", "dual", "frozen")


@contextmanager
def in_mode(encoder: nn.Module, mode: str) -> Iterator[None]:
    """The network in 'train' or 'eval' mode inside; BN statistics and modes are restored."""
    with untouched(encoder):
        encoder.train(mode == "train")
        yield


class BatchMateStudy:
    """A batch x with its other views: gradients in train and eval mode, with and without negatives.

    `exchange` puts another image in a mate's place and compares the anchor's gradient before and after; the gradients before
    are computed once.
    """

    def __init__(
        self, encoder: nn.Module, x: Tensor, reference: Tensor, *, temperature: float, gray: bool, **about: Any
    ):
        if len(x) < 2 or len(x) != len(reference):
            raise UserError(
                f"A batch has two images or more and a view of each, got {len(x)} and {len(reference)}; pass the same number of both."
            )
        self.encoder, self.x, self.reference, self.temperature, self.gray = encoder, x, reference, temperature, gray
        self.about, self._before = about, NetworkState(encoder)
        self._own: tuple[Tensor, Tensor] | None = None

    def gradients(self, x: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
        """Gradients (4, n, c, h, w) of the summed losses and losses (4, n), rows as `COUPLINGS`."""
        found: dict[tuple[str, str], tuple[Tensor, Tensor]] = {}
        for mode in ("eval", "train"):
            with in_mode(self.encoder, mode), constant(self.encoder), torch.enable_grad():
                objective = contrast(self.encoder, reference, temperature=self.temperature)
                pixels = x.detach().requires_grad_()
                z = self.encoder(pixels)
                whole, pull = objective.losses(z), -(z * objective.z).sum(1) / self.temperature
                for name, loss, more in (("contrastive", whole, True), ("positive alone", pull, False)):
                    (slope,) = torch.autograd.grad(loss.sum(), pixels, retain_graph=more)
                    found[name, mode] = slope.detach(), loss.detach()
        slopes, losses = zip(*(found[coupling] for coupling in COUPLINGS), strict=True)
        return torch.stack(slopes).cpu(), torch.stack(losses).cpu()

    def exchange(self, anchor: int, mate: int, new: Tensor, new_reference: Tensor) -> BatchMates:
        """The anchor's gradient before and after image `mate` is replaced by `new` (c, h, w)."""
        n = len(self.x)
        if not (0 <= anchor < n and 0 <= mate < n) or anchor == mate:
            raise UserError(
                f"Anchor and mate are two different images of the {n} in the batch, got {anchor} and {mate}."
            )
        self._own = self._own or self.gradients(self.x, self.reference)
        x, reference = self.x.clone(), self.reference.clone()
        x[mate], reference[mate] = new, new_reference
        slopes, losses = self.gradients(x, reference)
        about = {key: value for key, value in self.about.items() if key not in ("index", "labels", "classes")}
        return BatchMates(
            x=self.x.cpu(),
            new=new.cpu(),
            anchor=anchor,
            mate=mate,
            before=self._own[0][:, anchor],
            after=slopes[:, anchor],
            loss=torch.stack([self._own[1][:, anchor], losses[:, anchor]]),
            gray=self.gray,
            index=self.about.get("index", torch.arange(n)),
            labels=self.about.get("labels", torch.full((n,), -1)),
            classes=tuple(self.about.get("classes", ())),
            checks=self._before.checks(),
            provenance={"study": "batch_mates", "device": str(x.device), "torch": torch.__version__, **about},
        )


def compare_batch_norms(
    kinds: Sequence[str] = KINDS, *, config: TrainConfig | None = None, steps: int = 32, images: int = 1024
) -> pd.DataFrame:
    """Tiny trainings of CLAE that differ in their batch norms alone, one row each.

    'shared': clean images and adversaries in one batch norm; 'dual': one for each; 'frozen': the statistics of 256 clean
    images before training, never changed. Columns: mean losses of the last 8 steps (nats); losses of 64 test images in eval
    mode, clean and under FGSM; kNN (20 neighbours) on 500 test images; how far the clean images' channel means lie from the running means, in
    running standard deviations, mean over channels and layers, and the same for adversaries in the norm they are trained in.
    """
    for kind in kinds:
        if kind not in KINDS:
            raise UserError(f"Batch norm is one of {', '.join(KINDS)}, got '{kind}'.{nearest(kind, KINDS)}")
    config = config or TrainConfig(width=8, batch_size=32, eps=8 / 255, knn_every=0)
    data = datasets.load(config.dataset, download=False)
    views, pool = make_views(config, data), data.train.take(images)
    rows = [_trained(kind, config, steps, pool, data.test.take(500), views, data.gray) for kind in kinds]
    table = pd.DataFrame(rows)
    table.attrs = {
        "study": "batch_norms",
        "steps": steps,
        "images": images,
        "seed": config.seed,
        "torch": torch.__version__,
    }
    return table


def _trained(kind: str, config: TrainConfig, steps: int, pool: Any, test: Any, views: Views, gray: bool) -> dict:
    config = config.with_(dual_bn=kind == "dual")
    net, generator, (x, _) = build_encoder(config), seeded(config.seed), pool[:]
    if kind == "frozen":
        with torch.no_grad():
            for _ in range(20):  # running averages of momentum 0.1 forget where they began
                net.train()(views(x[:256], generator))
    net.train(kind != "frozen")
    step, optimizer, losses = make_stepper(config, net, gray), make_optimizer(config, net), []
    for _ in range(steps):
        batch = x[torch.randint(len(x), (config.batch_size,), generator=generator)]
        optimizer.zero_grad()
        done = step(*two_views(views, batch, generator), generator)
        optimizer.step()
        losses.append((float(done.loss), float(done.loss_adv if done.loss_adv is not None else done.loss)))
    last = torch.tensor(losses[-8:]).mean(0)
    net.eval()
    v1, v2 = two_views(views, test[:64][0], seeded(0))
    apart = contrast(net, v1, temperature=config.temperature)
    x_adv = Attack.fgsm(config.eps)(v2, apart)
    with torch.no_grad():
        clean, attacked = (float(apart(images).mean()) for images in (v2, x_adv))
    knn = knn_accuracy(*embed(net, pool), *embed(net, test), k=20).accuracy
    gaps = {"gap_clean": statistics_gap(net, v2), "gap_adv": statistics_gap(net, x_adv, "adv")}
    trained = {"train_loss": float(last[0]), "train_loss_adv": float(last[1])}
    return {"batch_norm": kind, **trained, "loss": clean, "loss_adv": attacked, "knn": knn, **gaps}


@torch.no_grad()
def statistics_gap(encoder: Encoder, x: Tensor, branch: str = "clean") -> float:
    """Distance of the images' channel means from the running means, in running standard deviations, in eval mode.

    The mean over channels and layers; 0 where the running statistics are those of x.
    """
    gaps: list[Tensor] = []

    def look(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        mean = inputs[0].mean((0, 2, 3))
        gaps.append(((mean - norm.running_mean).abs() / (norm.running_var + norm.eps).sqrt()).mean())  # type: ignore[operator, union-attr]

    with in_mode(encoder, "eval"):
        adverse = {m.adv for m in encoder.modules() if isinstance(m, DualBatchNorm2d)}
        norms = (
            adverse
            if branch == "adv" and adverse
            else [m for m in encoder.modules() if isinstance(m, BatchNorm2d) and m not in adverse]
        )
        hooks = [norm.register_forward_pre_hook(look) for norm in norms]
        try:
            encoder(x, branch=branch)  # type: ignore[arg-type]
        finally:
            for hook in hooks:
                hook.remove()
    return float(torch.stack(gaps).mean())
