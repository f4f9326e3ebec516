"""Training end to end, from stored images to updated weights: ours against lightly's SimCLR with its own transform and loader.

The same small network, batch and images (random colours, 32x32), each project the way it is used: ours as `train` runs, lightly
as its SimCLR example does (SimCLRTransform without blur, LightlyDataset, DataLoader, NTXentLoss, SGD), in fp32 and with torch's
own convolutions, in a process of its own. Six steps of each in turn, the first not counted; rows, learning-rate schedule and loss sums
are part of ours. With a GPU lightly's loader has eight workers. `with our memory`: lightly's step in a process that keeps freed memory as `train` does.
"""

from collections.abc import Callable, Iterator

import torch

from explore.config import TrainConfig
from explore.datasets import Data
from explore.datasets.splits import Split
from explore.random import keep_memory, seeded
from explore.runfolder import build_encoder
from explore.training import resolve_device, train

from .peers import peer, torchs_own, versions
from .timing import Apart, interleaved, machine, ratio, table

OURS = {
    "our SimCLR": {"attack": "none"},
    "our CLAE, FGSM": {"attack": "fgsm"},
}
STEADY = 5
LIGHTLY, KEEPING = "lightly's SimCLR", "lightly's, with our memory"


def run(quick: bool, device: str) -> dict[str, object]:
    """Steps of the default network (ResNet-10, width 16) with batches of 128 images."""
    where, rounds = resolve_device(device), 3 if quick else 10
    if where.type == "cpu":
        keep_memory()
    base = TrainConfig(dataset="cifar10", batch_size=128, knn_every=0, knn_images=128, temperature=0.5)
    count = base.batch_size * (rounds * (1 + STEADY) + 3)
    data = images(count)
    calls = {name: ours(base.with_(**changes), data, device) for name, changes in OURS.items()}
    theirs = {name: Apart(_lightly, base, count, where, name == KEEPING, device=where) for name in (LIGHTLY, KEEPING)}
    calls |= {name: call for name, call in theirs.items() if call.here}
    seconds = interleaved(calls, rounds, where, STEADY)
    print(f"end to end, {base.arch} width {base.width}, batch {base.batch_size}, 32x32, {where}")
    table(seconds, base.batch_size)
    figures = {"clae_over_simclr": ratio(seconds, "our CLAE, FGSM", "our SimCLR")}
    for name in seconds.keys() & theirs.keys():
        key = "lightly" if name == LIGHTLY else "lightly_keeping"
        figures[f"{key}_over_simclr"] = ratio(seconds, name, "our SimCLR")
        figures[f"{key}_over_clae"] = ratio(seconds, name, "our CLAE, FGSM")
    return {**figures, "batch": base.batch_size, "quick": quick, **versions("lightly"), **machine(where)}


def images(n: int) -> Data:
    """n images of random colours, as a data set holds them."""
    stored = torch.randint(256, (n, 3, 32, 32), generator=seeded(0), dtype=torch.uint8)
    split = Split(stored, torch.zeros(n, dtype=torch.int64))
    return Data(name="random", classes=[], gray=False, size=32, train=split, test=split)


def ours(config: TrainConfig, data: Data, device: str) -> Callable[[], object]:
    """A call is one step of `train`."""
    rows = train(config.with_(epochs=1), data, device=device, log_every=1)
    next(rows)  # before the first step
    return lambda: next(rows)


class Pictures(torch.utils.data.Dataset):
    """PIL images as torchvision's datasets hand them out."""

    def __init__(self, images: list):
        self.images, self.transform = images, None

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int):
        return (self.transform(self.images[i]) if self.transform else self.images[i]), 0


def _lightly(config: TrainConfig, count: int, where: torch.device, keep: bool) -> Callable[[], object] | None:
    if keep and where.type == "cpu":
        keep_memory()
    if (transforms := peer("lightly.transforms")) is None:
        return None
    from lightly.data import LightlyDataset
    from lightly.loss import NTXentLoss
    from torchvision.transforms.functional import to_pil_image

    pictures = Pictures([to_pil_image(image) for image in images(count).train.stored])
    transform = transforms.SimCLRTransform(input_size=32, gaussian_blur=0.0)
    dataset = LightlyDataset.from_torch_dataset(pictures, transform=transform)
    workers = 8 if where.type == "cuda" else 0
    loader = torch.utils.data.DataLoader(dataset, config.batch_size, shuffle=True, drop_last=True, num_workers=workers)
    network = torchs_own(build_encoder(config.with_(dual_bn=False)).to(where).train())
    criterion = NTXentLoss(temperature=config.temperature)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.06, momentum=0.9, weight_decay=5e-4)

    def steps() -> Iterator[float]:
        for (x0, x1), *_ in loader:
            loss = criterion(network(x0.to(where)), network(x1.to(where)))
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            yield float(loss.detach())

    taken = steps()
    return lambda: next(taken)
