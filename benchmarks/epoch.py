"""ResNet-18 on images of CIFAR-10's size and number, from stored images to updated weights: ours beside the authors' way.

Theirs: views on PIL images from a loader (eight workers with a GPU), fp32, NCHW, their step of 15 passes, plain Adam, torch's own
convolutions, in a process of its own. Ours as `train` runs it; the views of one batch also apart, for their share of a step.
"""

import statistics
from collections.abc import Callable, Iterator

import torch

from explore.config import TrainConfig
from explore.random import keep_memory, seeded
from explore.runfolder import build_encoder
from explore.training import make_stepper, make_views, prepare, resolve_device
from explore.views import two_views

from .peers import torchs_own
from .step import PAPER, PLAIN
from .timing import Apart, interleaved, machine, ratio, table
from .train import Pictures, images, ours
from .views import on_pictures

CIFAR = 50_000  # training images
AUTHORS = "the authors' way"
STEADY = 2


def run(quick: bool, device: str) -> dict[str, object]:
    """Steps of batch 64 (CPU) or 512 (GPU), and what they make of 100 epochs. Quick: width 16."""
    where, rounds = resolve_device(device), 2 if quick else 7
    gpu = where.type == "cuda"
    if not gpu:
        keep_memory()
    network = {"arch": "resnet18", "width": 16 if quick else 64, "stem": "cifar", "batch_size": 512 if gpu else 64}
    config = TrainConfig(**network, dataset="cifar10", knn_every=0, knn_images=128)
    count = config.batch_size * (rounds * (1 + STEADY) + 3)
    data = images(count)
    views, x, draws = make_views(config, data), data.to(where).train[: config.batch_size][0], seeded(0)
    calls: dict[str, Callable[[], object]] = {
        "our CLAE, FGSM": ours(config, data, device),
        "our SimCLR": ours(config.with_(attack="none"), data, device),
        "views alone": lambda: two_views(views, x, draws),
        AUTHORS: Apart(_authors, config.with_(**PAPER, **PLAIN), count, where, device=where),
    }
    seconds = interleaved(calls, rounds, where, STEADY)
    print(f"end to end, ResNet-18 width {config.width}, batch {config.batch_size}, 32x32, {where}")
    table(seconds, config.batch_size)
    steps = 100 * (CIFAR // config.batch_size)
    figures = {
        f"{name}_minutes_for_100_epochs": steps * statistics.median(seconds[label]) / 60
        for name, label in (("clae", "our CLAE, FGSM"), ("simclr", "our SimCLR"), ("authors", AUTHORS))
    }
    figures["authors_over_clae"] = ratio(seconds, AUTHORS, "our CLAE, FGSM")
    figures["views_over_clae"] = ratio(seconds, "views alone", "our CLAE, FGSM")
    return {**figures, "batch": config.batch_size, "quick": quick, **machine(where)}


def _authors(config: TrainConfig, count: int, where: torch.device) -> Callable[[], object]:
    from torchvision.transforms.functional import to_pil_image

    view = on_pictures()
    pictures = Pictures([to_pil_image(image) for image in images(count).train.stored])
    pictures.transform = lambda picture: (view(picture), view(picture))
    workers = 8 if where.type == "cuda" else 0
    loader = torch.utils.data.DataLoader(pictures, config.batch_size, shuffle=True, drop_last=True, num_workers=workers)
    encoder = torchs_own(prepare(config, build_encoder(config).to(where)).train())
    stepper, optimizer = make_stepper(config, encoder), torch.optim.Adam(encoder.parameters(), 3e-4)

    def steps() -> Iterator[float]:
        for (v1, v2), _ in loader:
            optimizer.zero_grad()
            done = stepper(v1.to(where), v2.to(where), seeded(0))
            optimizer.step()
            yield float(done.loss)

    taken = steps()
    return lambda: next(taken)
