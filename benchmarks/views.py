"""SimCLR's views of 32x32 images: ours for a whole batch, against torchvision on PIL images, torchvision v2 and kornia, on one core.

torchvision v2 draws once for a batch, so it is called image by image, on tensors, as its users do to get a draw for each. Beside the speed, how far our crops' distribution is from torchvision's, and what the former crops cost.
"""

import torch
from scipy.stats import ks_2samp
from torch import Tensor
from torchvision import transforms
from torchvision.transforms import v2
from torchvision.transforms.functional import to_pil_image

from explore.random import keep_memory, seeded
from explore.training import resolve_device
from explore.views import Views

from .peers import peer, versions
from .timing import interleaved, machine, ratio, table

SCALES = ((0.08, 1.0), (0.2, 1.0), (0.5, 1.0))
SOURCES = ((32, 32), (96, 64))  # height and width
BATCH = 1024  # images whose parameters are drawn at once, as for a step on a GPU


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
    figures |= _against_former(on_device, quick) | _drawing(quick) | _distribution(2000 if quick else 20000)
    return {**figures, "images": n, "quick": quick, **versions("torchvision", "kornia"), **machine(where)}


def _against_former(x: Tensor, quick: bool) -> dict[str, float]:
    """Our views with the new crops and with the former, each in a steady state."""
    draws, kinds = seeded(1), {"new crops": Views(), "former crops": Views(crop="fitted")}
    calls = {name: lambda v=v: v(x, draws) for name, v in kinds.items()}
    seconds = interleaved(calls, 11 if quick else 41, x.device, steady=2)
    table(seconds, len(x))
    return {"views_over_former_crops": ratio(seconds, "new crops", "former crops")}


def _drawing(quick: bool) -> dict[str, float]:
    """What the draws of parameters alone cost, on the CPU."""
    kinds = {"new crops": Views(), "former crops": Views(crop="fitted"), "new crops, blur": Views(blur_p=0.5)}
    calls = {name: lambda v=v: v.sample(BATCH, seeded(1), (32, 32)) for name, v in kinds.items()}
    seconds = interleaved(calls, 21 if quick else 101, torch.device("cpu"))
    print(f"parameters of {BATCH} views")
    table(seconds, BATCH)
    return {"draws_over_former": ratio(seconds, "new crops", "former crops")}


def _distribution(n: int) -> dict[str, float]:
    """Distance of n crops of ours from n of torchvision's: Kolmogorov and Smirnov's, mean areas, views of the whole image."""
    print(
        f"distance from torchvision in {n:,} draws; two samples of one distribution: {1.36 * (2 / n) ** 0.5:.4f} in 1 of 20"
    )
    print(f"{'':<36}{'area':>8}{'aspect':>8}{'top':>8}{'left':>8}{'mean area':>18}{'whole images':>18}")
    worst = {"torchvision": 0.0, "fitted": 0.0}
    for h, w in SOURCES:
        for scale in SCALES:
            torch.manual_seed(0)
            image, pixels = torch.empty(1, h, w), torch.tensor([h, w, h, w])
            drawn = [transforms.RandomResizedCrop.get_params(image, list(scale), [3 / 4, 4 / 3]) for _ in range(n)]
            theirs = _quantities(torch.tensor(drawn), h, w)
            for crop in worst:
                box = Views(scale=scale, crop=crop).sample(n, seeded(1), (h, w)).box * pixels
                ours = _quantities(box.round(), h, w)
                ks = [float(ks_2samp(ours[i], theirs[i]).statistic) for i in range(4)]
                worst[crop] = max(worst[crop], *ks)
                means = [
                    f"{float(a[i].mean()):.3f} ({float(b[i].mean()):.3f})" for a, b in [(ours, theirs)] for i in (0, 4)
                ]
                figures = "".join(f"{v:>8.4f}" for v in ks) + "".join(f"{m:>18}" for m in means)
                print(f"{f'{h}x{w}, {scale[0]:g} to {scale[1]:g}, crop={crop}':<36}{figures}")
    return {"ks": worst["torchvision"], "ks_former": worst["fitted"]}


def _quantities(box: Tensor, h: int, w: int) -> Tensor:
    """Area (share), aspect, top, left, and whether it is the whole image, of boxes (n, 4) in pixels -> (5, n)."""
    top, left, height, width = box.double().unbind(1)
    whole = ((height == h) & (width == w)).double()
    return torch.stack([height * width / (h * w), width / height, top, left, whole])


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
