"""What does an encoder look at, does an adversary move its gaze, and is the map about what was learnt at all?"""

import copy
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from .. import incoming
from ..attacks import ATTACKS
from ..attribution import Target, attribute, logit, similarity
from ..config import check_eps
from ..errors import UserError
from ..nets import as_encoder
from ..objectives import classify, contrast
from ..perturbation.checks import NetworkState, small_change
from ..perturbation.engine import Batch, other_view
from ..random import seeded
from ..results import Attribution, Check, Seen
from ..results.attribution import rank_correlation
from ..views import Views

TARGETS = ("similarity", "logit", "loss")
SANE = 0.5  # a rank correlation with randomised weights below it counts as destroyed
KEPT = 32  # maps
LOOSE = 0.05  # completeness delta allowed through randomised weights; 1 % through the encoder itself


def what_it_sees(
    encoder: nn.Module, x: Tensor, eps: float, *, method: str = "integrated_gradients", **settings: Any
) -> Seen:
    """Maps of images x, of x attacked at eps (pixel units), and of x through randomised weights; see `AttributionStudy`, `AttributionStudy.look`."""
    of_look = {name: settings.pop(name) for name in ("rows", "layer", "baseline", "steps") if name in settings}
    return AttributionStudy(encoder, x, **settings).look(check_eps(eps) * 255, method, **of_look)


class AttributionStudy:
    """One batch and one number an image, at any eps and by any method; adversaries and maps are made once.

    `target`: 'similarity' (cosine of z to `reference`, images or 'view', another view of each by `views`), 'loss' (the contrastive
    loss against it, the other images held fixed) or 'logit' (what `head` gives to the class `labels[i]`). `attack` raises the contrastive loss, for 'logit' the
    head's cross-entropy. Randomised weights: every weight tensor's own numbers in an order drawn from `seed`.
    """

    def __init__(
        self,
        encoder: nn.Module,
        x: Tensor,
        *,
        target: str = "similarity",
        reference: str | Tensor | None = None,
        head: Callable[[Tensor], Tensor] | None = None,
        labels: Tensor | None = None,
        attack: str = "fgsm",
        seed: int = 0,
        temperature: float = 0.5,
        loss: str = "nt_xent",
        loss_options: Mapping[str, float] | None = None,
        views: Views | None = None,
        index: Tensor | None = None,
        classes: tuple[str, ...] = (),
        provenance: dict[str, Any] | None = None,
    ):
        encoder = incoming.network(encoder)
        incoming.images(x, "Images to explain")
        incoming.choice(target, "target", TARGETS)
        incoming.choice(attack, "attack", ATTACKS)
        labels = None if labels is None else incoming.labels_or_none(labels, len(x))
        if target == "logit" and (head is None or labels is None):
            raise UserError("The target 'logit' needs head=... (a fitted probe) and labels=..., one class an image.")
        if target != "logit" and reference is None:
            raise UserError(f"The target '{target}' needs reference=..., another view of every image.")
        self.encoder, self.net, self.x, self.target = encoder, as_encoder(encoder), x.detach(), target
        self.head, self.labels = head, labels
        self.reference = None if reference is None else other_view(self.x, reference, views=views, seed=seed)
        self.attack, self.seed, self.temperature, self.loss = attack, seed, temperature, loss
        self.loss_options = dict(loss_options or {})
        self.index = torch.arange(len(x)) if index is None else index.cpu()
        self.classes = tuple(classes)
        self._before = NetworkState(encoder)
        self._random: nn.Module | None = None
        self._targets = [self.on(self.net)]
        self._moved: dict[float, Tensor] = {}
        self._maps: OrderedDict[tuple, Attribution] = OrderedDict()
        about = {"study": "what_it_sees", "target": target, "attack": attack, "seed": seed, "device": str(x.device)}
        self.provenance = {**about, "torch": torch.__version__, **(provenance or {})}

    def on(self, net: nn.Module) -> Target:
        """The target through a network; the reference is embedded by it anew."""
        if self.target == "similarity":
            return similarity(net, self.reference)  # type: ignore[arg-type]
        if self.target == "logit":
            return logit(net, self.head, self.labels.to(self.x.device))  # type: ignore[arg-type, union-attr]
        return self._contrast(net)

    def _contrast(self, net: nn.Module) -> contrast:
        assert self.reference is not None
        settings: dict[str, Any] = {"temperature": self.temperature, "loss": self.loss}
        return contrast(net, self.reference, loss_options=self.loss_options, **settings)

    def adversary(self, k: float) -> Tensor:
        """The whole batch attacked at eps = k/255; computed once."""
        if k not in self._moved:
            objective: contrast | classify
            if self.target == "logit":
                objective = classify(self.net, self.head, self.labels.to(self.x.device))  # type: ignore[arg-type, union-attr]
            else:
                objective = self._contrast(self.net)
            batch = Batch(self.x, objective, match="plain", steps=10, seed=self.seed)
            self._moved[k] = batch.at(self.attack, [k / 255])[0]
        return self._moved[k]

    def look(
        self,
        k: float,
        method: str = "integrated_gradients",
        *,
        rows: Sequence[int] | None = None,
        layer: str | None = None,
        baseline: str = "black",
        steps: int = 32,
    ) -> Seen:
        """The maps at eps = k/255, of some rows of the batch or of all. For 'loss' the batch mates of an attacked image are attacked too."""
        rows = tuple(incoming.rows(rows, len(self.x)))
        how = {"method": method, "rows": rows, "layer": layer, "baseline": baseline, "steps": steps}
        clean, perturbed, random = (self._map(kind, k, how) for kind in ("clean", "perturbed", "randomised"))
        labels = torch.full((len(self.x),), -1) if self.labels is None else self.labels.cpu()
        reference = None if self.reference is None or self.target == "logit" else self.reference[list(rows)].cpu()
        found = Seen(
            clean=clean,
            perturbed=perturbed,
            randomised=random,
            eps=k / 255,
            attack=self.attack,
            index=self.index[list(rows)],
            labels=labels[list(rows)],
            classes=self.classes,
            reference=reference,
            provenance={
                **self.provenance,
                "eps": k / 255,
                "method": method,
                "layer": clean.layer,
                "baseline": clean.baseline,
            },
        )
        return replace(found, checks=self._checks(found, k))

    def _map(self, kind: str, k: float, how: dict[str, Any]) -> Attribution:
        key = (kind, k if kind == "perturbed" else 0.0, *how.values())
        if key not in self._maps:
            x = self.adversary(k) if kind == "perturbed" else self.x
            if kind == "randomised":
                if self._random is None:
                    self._random = randomised(self.encoder, self.seed)
                    self._targets.append(self.on(as_encoder(self._random)))
                self._maps[key] = attribute(self._random, x, self._targets[1], **how, tolerance=LOOSE)
            else:
                self._maps[key] = attribute(self.encoder, x, self._targets[0], **how)
            while len(self._maps) > KEPT:
                self._maps.popitem(last=False)
        self._maps.move_to_end(key)
        return self._maps[key]

    def _checks(self, found: Seen, k: float) -> tuple[Check, ...]:
        checks = [small_change(float((found.perturbed.x - found.clean.x).abs().max()), k / 255)]
        if found.clean.delta is not None:
            worst = float(torch.cat([found.clean.error, found.perturbed.error]).max())
            random = float(found.randomised.error.max())
            words = f"completeness delta {100 * worst:.1f} %, random weights {100 * random:.1f} %"
            fine = worst <= 0.0101 and random <= LOOSE + 0.0001
            checks.append(Check(words, fine, f"more than 1 % of the change, or {LOOSE:.0%} with random weights"))
        left = float(found.sanity.nan_to_num(1).abs().mean())
        words = (
            f"randomised weights: |ρ| = {left:.2f}"
            if len(found.index) > 1
            else f"randomised weights: ρ = {_rho(found.sanity)}"
        )
        checks.append(Check(words, left < SANE, "the map survives them"))
        hooks = sum(len(m._forward_hooks) + len(m._backward_hooks) for m in self.encoder.modules())
        return (*checks, *self._before.checks(), Check("no hooks left", not hooks, f"{hooks} are left"))


def _rho(correlation: Tensor) -> str:
    return "none, a flat map" if bool(correlation.isnan()) else f"{float(correlation):+.2f}".replace("-", "−")


def randomised(encoder: nn.Module, seed: int = 0, names: Sequence[str] | None = None) -> nn.Module:
    """A copy whose weights are destroyed: every parameter tensor's own numbers in an order drawn from `seed`, so scales stay as they are.

    `names`: of the parameters to destroy; all by default. Buffers stay.
    """
    net, draws = copy.deepcopy(encoder), seeded(seed)
    with torch.no_grad():
        for name, weight in net.named_parameters():
            order = torch.randperm(weight.numel(), generator=draws)
            if names is None or name in names:
                weight.copy_(weight.flatten()[order.to(weight.device)].view_as(weight))
    return net.eval()


def cascade(
    encoder: nn.Module,
    x: Tensor,
    target: Callable[[nn.Module], Target],
    method: str = "integrated_gradients",
    *,
    seed: int = 0,
    **how: Any,
) -> pd.DataFrame:
    """Weights destroyed layer after layer, the last first (Adebayo et al. 2018): mean rank correlation of the maps with the trained ones.

    `target`: makes the target for a network, `lambda net: ex.similarity(net, view)`. Columns: the layer reached, how many weights are
    destroyed, the correlation of the signed maps and of their absolute values. `how` goes to `attribute`.
    """
    parts: OrderedDict[str, list[str]] = OrderedDict()
    weights = dict(encoder.named_parameters())
    for name in weights:
        stem = name.split(".")
        parts.setdefault(".".join(stem[: 2 if len(stem) > 2 else 1]), []).append(name)
    trained = attribute(encoder, x, target(as_encoder(encoder)), method, **how).maps
    rows: list[tuple] = [("none", 0, 1.0, 1.0)]
    gone: list[str] = []
    for layer, names in reversed(parts.items()):
        gone += names
        net = randomised(encoder, seed, gone)
        maps = attribute(net, x, target(as_encoder(net)), method, **how).maps
        pair = [float(rank_correlation(a, b).nanmean()) for a, b in ((trained, maps), (trained.abs(), maps.abs()))]
        rows.append((layer, sum(weights[n].numel() for n in gone), *pair))
    return pd.DataFrame(rows, columns=["down_to", "weights", "signed", "absolute"])
