"""Targets: functions `images -> one number per image` that can select rows, as captum needs."""

import copy
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import incoming
from ..errors import UserError
from ..nets import as_encoder
from ..objectives import check_classes, contrast, logits_of
from ..random import untouched
from ..types import Branch, Images, LabelsLike, PerImage

BATCH = 256  # images in one pass
Target = Callable[[Tensor], Tensor]


class similarity:
    """Cosine (n,) of each image's embedding to its reference's, `reference[i]`.

    `reference`: images (n, c, h, w), embedded once without gradient. `what`: projections 'z', which
    the contrastive loss compares, or features 'h', which probes use.

    >>> encoder, x = ex.Encoder("resnet10", width=8, stem="small").eval(), torch.rand(2, 3, 32, 32)
    >>> ex.similarity(encoder, x)(x).allclose(torch.ones(2))
    True
    """

    def __init__(self, encoder: nn.Module, reference: Images, *, what: str = "z", branch: Branch = "clean"):
        if what not in ("h", "z"):
            raise UserError(f"what is 'z' (projections) or 'h' (features), got '{what}'.")
        self.encoder, self.what = as_encoder(encoder), what
        self.branch = incoming.choice(branch, "branch", ("clean", "adv"))
        incoming.images(reference, "A similarity's reference images")
        self.modules, self.size = (self.encoder,), tuple(reference.shape[1:])
        self.name = f"cosine of {what} to the reference"
        with torch.no_grad(), untouched(self.encoder):
            self.encoder.eval()
            self.reference = self._embed(reference)

    def _embed(self, x: Tensor) -> Tensor:
        return F.normalize((self.encoder if self.what == "z" else self.encoder.features)(x, branch=self.branch), dim=1)

    def take(self, rows: Tensor) -> "similarity":
        """The target of these rows alone; a row may come several times."""
        part = copy.copy(self)
        part.reference = self.reference[rows]
        return part

    def __call__(self, x: Images) -> PerImage:
        if len(x) != len(self.reference):
            raise UserError(
                f"There are {len(x)} images and {len(self.reference)} references; each image needs its own, so pass the same number."
            )
        if tuple(x.shape[1:]) != self.size:
            raise UserError(
                f"The images have the shape {tuple(x.shape[1:])} and the reference {self.size}; resize one to the other."
            )
        return (self._embed(x) * self.reference).sum(1)


class logit:
    """Logit of class `y[i]` for image i, (n,), by a head from features h to logits, e.g. a probe.

    >>> encoder, head = ex.Encoder("resnet10", width=8, stem="small"), torch.nn.Linear(64, 10)
    >>> ex.logit(encoder, head, torch.tensor([3, 7]))(torch.rand(2, 3, 32, 32)).shape
    torch.Size([2])
    """

    def __init__(
        self, encoder: nn.Module, head: Callable[[Tensor], Tensor], y: LabelsLike, *, branch: Branch = "clean"
    ):
        self.encoder, self.branch = as_encoder(encoder), incoming.choice(branch, "branch", ("clean", "adv"))
        self.head = incoming.function(head, "A head", "features (n, D) -> logits (n, C), as a fitted probe is")
        self.y = incoming.labels(y, classes=getattr(head, "classes_", None) or None)
        self.modules = (self.encoder, head) if isinstance(head, nn.Module) else (self.encoder,)
        self.name = "logit of the class"

    def take(self, rows: Tensor) -> "logit":
        """The target of these rows alone; a row may come several times."""
        return logit(self.encoder, self.head, self.y.to(rows.device)[rows], branch=self.branch)

    def __call__(self, x: Images) -> PerImage:
        if len(x) != len(self.y):
            raise UserError(f"There are {len(x)} images and {len(self.y)} labels; pass one label an image.")
        logits = logits_of(self.head, self.encoder.features(x, branch=self.branch))
        check_classes(self.y, logits)
        return logits.gather(1, self.y.to(x.device)[:, None])[:, 0]


class own_loss:
    """Contrastive loss of each image with the rest of its batch held fixed.

    In an `ex.contrast` one image changes the loss of all. Here only image i changes, so that its
    map adds up to its own loss: L_i(x_1, .., x'_i, .., x_n) - L_i(x_1, .., baseline, .., x_n).
    """

    def __init__(self, objective: contrast, x: Images):
        self.objective, self.modules, self.name = (
            objective,
            objective.modules,
            "contrastive loss, the others held fixed",
        )
        self.rows = torch.arange(len(x), device=x.device)
        with torch.no_grad(), untouched(*self.modules):
            for net in self.modules:
                net.eval()
            objective(x)  # raises if the sizes do not match
            self.batch = objective.encoder(x, branch=objective.branch)

    def take(self, rows: Tensor) -> "own_loss":
        """The target of these rows alone; a row may come several times."""
        part = copy.copy(self)
        part.rows = self.rows[rows]
        return part

    def __call__(self, x: Images) -> PerImage:
        o = self.objective
        places = torch.arange(len(self.batch), device=x.device)

        def one(z: Tensor, row: Tensor) -> Tensor:
            here = places == row
            losses = o.losses(torch.where(here[:, None], z[None], self.batch))
            return (losses * here).sum()

        return torch.vmap(one, chunk_size=BATCH)(o.encoder(x, branch=o.branch), self.rows)


class Alone:
    """Any target, evaluated one row at a time with the other images of the batch unchanged."""

    def __init__(self, target: Target, x: Tensor, rows: Tensor | None = None):
        self.target, self.x = target, x
        self.rows = torch.arange(len(x), device=x.device) if rows is None else rows

    def take(self, rows: Tensor) -> "Alone":
        return Alone(self.target, self.x, self.rows[rows])

    def __call__(self, many: Tensor) -> Tensor:
        copies = (self.rows[:, None] == self.rows).tril(-1).sum(1)  # how often this row has come before
        turns = [torch.where(copies == turn)[0] for turn in range(int(copies.max()) + 1)]
        found = [self.target(self.x.index_copy(0, self.rows[t], many[t]))[self.rows[t]] for t in turns]
        return torch.cat(found)[torch.cat(turns).argsort()]


def copies_of(target: Any, rows: Tensor) -> Target:
    """The target on rows repeated a whole number of times: captum stacks steps as copies."""
    return lambda many: target.take(rows.repeat(len(many) // len(rows)))(many)
