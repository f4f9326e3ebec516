"""SimCLR's views: ours for a whole batch, against torchvision's transforms on PIL images, one by one, on one core."""

import torch
from torchvision import transforms
from torchvision.transforms.functional import to_pil_image

from explore.state import seeded
from explore.training import resolve_device
from explore.views import Views

from .timing import interleaved, machine, ratio, table


def run(quick: bool, device: str) -> dict[str, object]:
    """One view of each of 256 images (32x32, colour), crop, flip, jitter and gray as in the authors' code."""
    where, n = resolve_device(device), 64 if quick else 256
    threads = torch.get_num_threads()
    x = torch.rand(n, 3, 32, 32, generator=seeded(0))
    pictures, on_device, draws, views = [to_pil_image(one) for one in x], x.to(where), seeded(1), Views()
    pil = transforms.Compose(
        [
            transforms.RandomResizedCrop(32),
            transforms.RandomHorizontalFlip(),
            transforms.RandomApply([transforms.ColorJitter(0.8, 0.8, 0.8, 0.2)], p=0.8),
            transforms.RandomGrayscale(p=0.2),
            transforms.ToTensor(),
        ]
    )
    calls = {
        "torchvision on PIL images": lambda: torch.stack([pil(p) for p in pictures]),
        "ours": lambda: views(on_device, draws),
    }
    torch.set_num_threads(1)  # a core against a core
    try:
        seconds = interleaved(calls, 5 if quick else 21, where)
    finally:
        torch.set_num_threads(threads)
    print(f"views of {n} images, 32x32, {where}, one core")
    table(seconds, n)
    return {
        "pil_over_views": ratio(seconds, "torchvision on PIL images", "ours"),
        "images": n,
        "quick": quick,
        **machine(where),
    }
