"""What a training shows of itself while it runs, beside its losses and kNN accuracy: alignment and
uniformity of projections, effective rank of features, and pictures of the batch it learns from.

It only looks: weights, batch-norm statistics and draws of the training are what they are without
it.
"""

import contextlib
import time

import torch
from torch import Tensor

from . import datasets
from .losses import alignment, rankme, uniformity
from .nets import Encoder
from .random import seeded, untouched
from .runfolder import Run
from .serialization import load_tensors, save_tensors
from .types import Images
from .views import Views, two_views

MEASURED = ("alignment", "uniformity", "rankme")  # the columns that it adds to the rows of metrics
PAIRS = 256  # test images that they are measured on
SHOWN = 4  # images of the batch
REST, SPARE = 2.0, 100  # seconds between two writings of pictures, and how many times what the last one took
FILE = "batch.safetensors"


class Monitor:
    """Measures an encoder in training on fixed images, and writes pictures of the batch into the
    run folder.

    Both views of the measured images are drawn once, from a seed of their own. `run` None: no
    pictures are written.
    """

    def __init__(self, data: "datasets.Data", views: Views, run: Run | None = None, *, compiled: bool = False):
        self.images = data.test[: min(PAIRS, len(data.test))][0]
        self.views, self.run = two_views(views, self.images, seeded(0)), run
        self._compiled, self._due = compiled, 0.0

    @torch.no_grad()
    def __call__(self, encoder: Encoder) -> dict[str, float]:
        """Alignment and uniformity of the projections z of two views, RankMe of the features h of
        the images.
        """
        eager = torch.compiler.set_stance("force_eager") if self._compiled else contextlib.nullcontext()
        with eager, untouched(encoder):
            encoder.eval()
            z1, z2 = (encoder(view).float() for view in self.views)
            h = encoder.features(self.images).float()
        values = (alignment(z1, z2), uniformity(z1), rankme(h))
        return {name: float(value) for name, value in zip(MEASURED, values, strict=True)}

    def show(self, step: int, v1: Images, v2: Images, x_adv: Images | None) -> None:
        """Write the batch's first images where it is time to: both views, and the adversary where
        there is one.
        """
        began = time.perf_counter()
        if self.run is None or began < self._due:
            return
        parts = {"view1": v1, "view2": v2} | ({} if x_adv is None else {"adversary": x_adv})
        pictures = {name: part[:SHOWN].detach().float() for name, part in parts.items()}
        save_tensors(self.run.path / FILE, pictures, {"step": str(step), "batch": str(len(v1))})
        now = time.perf_counter()
        self._due = now + max(REST, SPARE * (now - began))


def batch_of(run: Run) -> tuple[dict[str, Tensor], int] | None:
    """Pictures of a run's last batch, (n, C, H, W) in [0, 1] by name, and their step; None where
    there are none.
    """
    if not (run.path / FILE).is_file():
        return None
    pictures, about = load_tensors(run.path / FILE)
    return pictures, int(about["step"])
