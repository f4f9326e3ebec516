"""SimCLR's views of 32x32 images: ours for a whole batch, against torchvision on PIL images, torchvision v2 and kornia, on one core.

torchvision v2 draws once for a batch, so it is called image by image, on tensors, as its users do to get a draw for each.
"""

import torch
from torchvision import transforms
from torchvision.transforms import v2
from torchvision.transforms.functional import to_pil_image

from explore.random import keep_memory, seeded
from explore.training import resolve_device
from explore.views import Views

from .peers import peer, versions
from .timing import interleaved, machine, ratio, table


def run(quick: bool, device: str) -> dict[str, object]:
    """One view of each of 256 colour images: crop, flip, jitter and gray with the authors' values."""
    where, n = resolve_device(device), 64 if quick else 256
    if where.type == "cpu":
        keep_memory()  # as training from the command line does
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # a core against a core
    try:
        return _measured(quick, where, n)
    finally:
        torch.set_num_threads(threads)


def _measured(quick: bool, where: torch.device, n: int) -> dict[str, object]:
    x = torch.rand(n, 3, 32, 32, generator=seeded(0))
    pictures, on_device, draws, views = [to_pil_image(one) for one in x], x.to(where), seeded(1), Views()
    pil, tensors = on_pictures(), v2.Compose(_chain(v2))
    calls = {
        "torchvision on PIL images": lambda: torch.stack([pil(p) for p in pictures]),
        "torchvision v2 on tensors": lambda: torch.stack([tensors(one) for one in on_device]),
        "ours": lambda: views(on_device, draws),
    }
    if (kornia := peer("kornia.augmentation")) is not None:
        theirs = torch.nn.Sequential(
            kornia.RandomResizedCrop((32, 32), scale=(0.08, 1.0)),
            kornia.RandomHorizontalFlip(),
            kornia.ColorJitter(0.8, 0.8, 0.8, 0.2, p=0.8),
            kornia.RandomGrayscale(p=0.2),
        )
        calls["kornia"] = lambda: theirs(on_device)
    seconds = interleaved(calls, 5 if quick else 21, where)
    print(f"views of {n} images, 32x32, {where}, one core")
    table(seconds, n)
    figures = {"pil_over_views": ratio(seconds, "torchvision on PIL images", "ours")}
    figures["v2_over_views"] = ratio(seconds, "torchvision v2 on tensors", "ours")
    if "kornia" in seconds:
        figures["kornia_over_views"] = ratio(seconds, "kornia", "ours")
    return {**figures, "images": n, "quick": quick, **versions("torchvision", "kornia"), **machine(where)}


def on_pictures() -> transforms.Compose:
    """The authors' views, on PIL images."""
    return transforms.Compose([*_chain(transforms), transforms.ToTensor()])


def _chain(kit) -> list:
    return [
        kit.RandomResizedCrop(32),
        kit.RandomHorizontalFlip(),
        kit.RandomApply([kit.ColorJitter(0.8, 0.8, 0.8, 0.2)], p=0.8),
        kit.RandomGrayscale(p=0.2),
    ]
