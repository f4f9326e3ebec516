"""The linear probe: multinomial logistic regression on frozen features."""

import time
from collections.abc import Sequence
from typing import Any, Literal

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from .. import incoming
from ..errors import UserError
from ..random import seeded
from ..results import Scores, wilson
from ..types import Labels, LabelsLike
from .logistic import Logistic

L2_GRID = tuple(10.0 ** (-6 + 11 * i / 44) for i in range(45))  # SimCLR, appendix B.8: 45 values, log-spaced


class Probe:
    """A linear classifier on features h: `Probe().fit(h, y).score(h_test, y_test)`.

    `protocol="lbfgs"` (SimCLR, arXiv:2002.05709, B.8): full-batch L-BFGS to the optimum of the sum
    of cross-entropies + l2 / 2 |W|^2 over standardised features, intercept not penalised; l2 is 1 /
    C of scikit-learn's LogisticRegression. `l2=None` tries `L2_GRID`, chooses by accuracy on the
    `held_out` fraction of the training set (drawn by `seed`, stratified; ties go to the strongest),
    and refits on all of it.

    `protocol="authors"` (chihhuiho/CLAE, eval_lr.py; docs/paper.md): Adam 3e-4, batch 256, no l2,
    `epochs` epochs on raw features; with `test` given it records the test accuracy of every epoch:
    `last_`, and the optimistic `best_`.

    After fitting: `weight_` (C, D), `bias_` (C,), `l2_`, `path_` (l2, held-out accuracy), `curve_`,
    `classes_`, `seconds_`.

    >>> h = torch.cat([torch.randn(50, 2, generator=ex.seeded(0)) - 3, torch.randn(50, 2) + 3])
    >>> y = torch.arange(2).repeat_interleave(50)
    >>> ex.Probe().fit(h, y).score(h, y).top1 > 0.95
    True
    """

    def __init__(
        self,
        *,
        l2: float | None = None,
        held_out: float = 0.2,
        seed: int = 0,
        protocol: Literal["lbfgs", "authors"] = "lbfgs",
        epochs: int = 100,
    ):
        if protocol not in ("lbfgs", "authors"):
            raise UserError(f"protocol is 'lbfgs' or 'authors', got '{protocol}'.")
        if l2 is not None and not 0 < incoming.number(l2, "l2") < float("inf"):
            raise UserError(f"l2 must be above 0 (with 0 separable classes have no optimum), got {l2}.")
        if not 0 < incoming.number(held_out, "held_out", -float("inf")) < 1:
            raise UserError(f"held_out is a share of the training set, between 0 and 1, got {held_out}.")
        self.l2, self.held_out, self.protocol = l2, held_out, protocol
        self.seed, self.epochs = incoming.whole(seed, "seed", 0), incoming.whole(epochs, "epochs")

    def fit(
        self,
        h: Any,
        y: LabelsLike,
        *,
        classes: Sequence[str] | None = None,
        val: tuple[Any, LabelsLike] | None = None,
        test: tuple[Any, LabelsLike] | None = None,
    ) -> "Probe":
        """Fit on features h (n, D) and labels y (n,), on h's device.

        Labels are whole numbers from 0, class names (in alphabetical order, if `classes` does not
        order them) or one-hot rows, in a tensor, an array or a list. `val`: an official held-out part, used to choose l2 and included in the final fit. `classes`
        names all classes, including absent ones. `test` is used by protocol 'authors' only.
        """
        began = time.perf_counter()
        if isinstance(classes, str) or (classes is not None and not len(classes)):
            raise UserError(f"classes are the names of all classes, in a list, got {classes!r:.60}.")
        names = incoming.class_names(y, *(pair[1] for pair in (val, test) if pair is not None))
        classes = classes if classes is not None else names
        h, y = _pair(h, y, classes)
        val, test = (None if pair is None else _pair(*_two(pair), classes) for pair in (val, test))
        self.classes_ = _named(y, classes)
        y, self.path_, self.curve_ = y.to(h.device), _table(), pd.DataFrame(columns=["epoch", "loss", "test"])
        if self.protocol == "authors":
            self._adam(h, y, test)
        else:
            both, labels = h, y
            if val is not None:
                _pair(*val, self.classes_)
                both, labels = torch.cat([h, val[0].to(h)]), torch.cat([y, val[1].to(y)])
            self.l2_ = self.l2 if self.l2 is not None else self._choose(h, y, val)
            self._keep(both, labels)
        self.n_, self.seconds_ = len(h), time.perf_counter() - began
        return self

    def __call__(self, h: Tensor) -> Tensor:
        """Logits (n, C) of features h (n, D), differentiable: a head for `classify`."""
        if not hasattr(self, "weight_"):
            raise UserError("This probe is not fitted yet; call probe.fit(h, y) first.")
        if not isinstance(h, Tensor):
            raise UserError(
                f"A probe reads features (n, D) in a tensor, got a {type(h).__name__}; torch.from_numpy makes one."
            )
        if not h.dim() or h.shape[-1] != self.weight_.shape[1]:
            raise UserError(
                f"This probe was fitted on features of {self.weight_.shape[1]} numbers, these have {h.shape[-1] if h.dim() else 0}; "
                "embed both with the same encoder and layer."
            )
        return F.linear(h, self.weight_.to(h), self.bias_.to(h))

    @torch.no_grad()
    def predict(self, h: Any) -> Labels:
        """Predicted class of every row, (n,)."""
        return self(incoming.features(h, "Features for a probe")).argmax(1)

    @torch.no_grad()
    def score(self, h: Any, y: LabelsLike, **provenance: Any) -> Scores:
        """Predictions for test features h (n, D) with labels y (n,), as `Scores`."""
        if not hasattr(self, "classes_"):
            raise UserError("This probe is not fitted yet; call probe.fit(h, y) first.")
        h, y = _pair(h, y, self.classes_)
        chances = self(h).softmax(1)
        ranked = chances.topk(min(5, chances.shape[1]), dim=1)
        return Scores(
            labels=y.cpu(),
            ranked=ranked.indices.cpu(),
            confidence=ranked.values[:, 0].float().cpu(),
            classes=self.classes_,
            provenance={**self.settings(), **provenance},
        )

    def settings(self) -> dict[str, Any]:
        """Settings of the fit, as plain JSON."""
        kept: dict[str, Any] = {"protocol": self.protocol, "seed": self.seed, "train": self.n_}
        if self.protocol == "authors":
            return {**kept, "epochs": self.epochs}
        return {**kept, "l2": self.l2_, "held_out": self.held_out if len(self.path_) else None}

    def _choose(self, h: Tensor, y: Tensor, val: tuple[Tensor, Tensor] | None) -> float:
        """The l2 with the highest accuracy on the held-out part."""
        if val is None:
            out = take_labels(y, self.held_out, seeded(self.seed))
            kept = torch.ones(len(y), dtype=torch.bool, device=y.device)
            kept[out] = False
            if len(y[kept].unique()) < 2:
                raise UserError(
                    f"{len(y)} training images leave fewer than two classes to fit once {len(out)} are held out to choose l2; "
                    "give more labels, or an l2."
                )
            h, y, val = h[kept], y[kept], (h[out], y[out])
        x, mean, std = _standardised(h)
        held, truth = (val[0].to(h) - mean) / std, val[1].to(y)
        rows = []
        for l2, (weight, bias) in Logistic(x, y, len(self.classes_)).path(sorted(L2_GRID, reverse=True)):
            right = float((F.linear(held, weight, bias).argmax(1) == truth).double().mean())
            rows.append((l2, right, *wilson(right, len(truth))))
        self.path_ = _table(rows)
        return max(l2 for l2, right, *_ in rows if right == max(r for _, r, *_ in rows))

    def _keep(self, h: Tensor, y: Tensor) -> None:
        """The optimum at the chosen l2, in float64, with the standardisation folded in."""
        x, mean, std = _standardised(h.double())
        solver = Logistic(x, y, len(self.classes_), tolerance=1e-6, max_iter=1000)
        weight, bias = next(solver.path([self.l2_]))[1]
        self.weight_ = (weight / std).to(h.dtype)
        self.bias_ = (bias - (weight / std) @ mean).to(h.dtype)

    def _adam(self, h: Tensor, y: Tensor, test: tuple[Tensor, Tensor] | None) -> None:
        draws, bound = seeded(self.seed), h.shape[1] ** -0.5  # torch.nn.Linear's own initialisation
        c, d = len(self.classes_), h.shape[1]
        drawn = torch.rand(c, d + 1, generator=draws).to(h) * 2 * bound - bound
        weight, bias = drawn[:, :d].clone().requires_grad_(), drawn[:, d].clone().requires_grad_()
        optimizer = torch.optim.Adam([weight, bias], lr=3e-4, fused=True)
        held = None if test is None else (test[0].to(h), test[1].to(y))
        rows = []
        for epoch in range(1, self.epochs + 1):
            total = torch.zeros((), device=h.device)
            for rows_of in torch.randperm(len(h), generator=draws).to(h.device).split(256):
                loss = F.cross_entropy(F.linear(h[rows_of], weight, bias), y[rows_of])
                weight.grad, bias.grad = torch.autograd.grad(loss, [weight, bias])
                optimizer.step()
                total += loss.detach() * len(rows_of)
            with torch.no_grad():
                right = None
                if held is not None:
                    right = float((F.linear(held[0], weight, bias).argmax(1) == held[1]).double().mean())
            rows.append((epoch, float(total) / len(h), right))
        self.l2_, self.weight_, self.bias_ = 0.0, weight.detach(), bias.detach()
        self.curve_ = pd.DataFrame(rows, columns=["epoch", "loss", "test"])
        self.last_ = rows[-1][2]
        if held is not None:
            self.best_, self.best_epoch_ = max((r[2], -r[0]) for r in rows if r[2] is not None)
            self.best_epoch_ = -self.best_epoch_


def take_labels(y: LabelsLike, share: float, generator: torch.Generator | None) -> Labels:
    """Indices of a fraction of the labels, stratified, at least one image per class.

    >>> ex.take_labels(torch.arange(10).repeat(10), share=0.1, generator=ex.seeded(0)).shape
    torch.Size([10])
    """
    if (names := incoming.class_names(y)) is not None or not isinstance(y, Tensor):
        y = incoming.labels(y, classes=names)
    y = incoming.labels(y) if y.dim() != 1 or y.is_floating_point() or y.is_complex() else y
    incoming.generator(generator)
    if not len(y):
        raise UserError("There are no labels to take a share of; give one image or more.")
    if not 0 < incoming.number(share, "A share of the labels", -float("inf")) <= 1:
        raise UserError(f"A share of the labels lies above 0 and up to 1 (1 % is 0.01), got {share}.")
    order = torch.randperm(len(y), generator=generator).to(y.device)
    _, group, counts = torch.unique(y[order], return_inverse=True, return_counts=True)
    by_class = torch.argsort(group, stable=True)
    first = torch.repeat_interleave(counts.cumsum(0) - counts, counts)
    turn = torch.empty_like(group)
    turn[by_class] = torch.arange(len(y), device=y.device) - first
    wanted = (counts * share).round().clamp_min(1)
    return order[turn < wanted[group]].sort().values


def _standardised(h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    mean, std = h.mean(0), h.std(0, correction=0)
    std = torch.where(std > 1e-8, std, 1.0)  # a feature that never moves stays 0
    return (h - mean) / std, mean, std


def _table(rows: Sequence[tuple] = ()) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["l2", "accuracy", "low", "high"])


def _named(y: Tensor, classes: Sequence[str] | None) -> tuple[str, ...]:
    """Names of the classes in the training set; there must be at least two."""
    low, high = int(y.min()), int(y.max())
    if low == high:
        name = classes[low] if classes is not None else str(low)
        raise UserError(f"All {len(y)} training images are of the class '{name}'; a probe needs two classes or more.")
    return tuple(classes) if classes is not None else tuple(str(i) for i in range(high + 1))


def _two(pair: Any) -> tuple[Any, Any]:
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        raise UserError(f"val and test are pairs (features, labels), got a {type(pair).__name__}; write test=(h, y).")
    return pair[0], pair[1]


def _pair(h: Any, y: Any, classes: Sequence[str] | None) -> tuple[Tensor, Tensor]:
    """Features (n, D) and labels (n,), converted and checked."""
    h = incoming.features(h, "Features for a probe")
    return h, incoming.labels(y, len(h), classes)
