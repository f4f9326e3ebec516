"""Attacks on a classifier: ours against torchattacks and foolbox where installed; the same network, images and steps, fp32."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

import explore as ex
from explore.objectives import classify
from explore.training import resolve_device

from .peers import peer, versions
from .timing import interleaved, machine, ratio, table

EPS, STEPS = 8 / 255, 10


def run(quick: bool, device: str) -> dict[str, object]:
    """FGSM and PGD-10 without random start on a batch of 32x32 images; also the share of pixels that end equal (to 1e-6)."""
    where, n = resolve_device(device), 32 if quick else 128
    with torch.random.fork_rng():
        torch.manual_seed(0)
        encoder = ex.Encoder("resnet10" if quick else "resnet18", width=16 if quick else 64, stem="small")
        head = nn.Linear(encoder.feature_dim, 10)
    encoder, head = (part.to(where).eval().requires_grad_(False) for part in (encoder, head))
    x = torch.rand(n, 3, 32, 32, generator=ex.seeded(0)).to(where)
    y = torch.randint(10, (n,), generator=ex.seeded(1)).to(where)
    against = classify(encoder, head, y)
    calls: dict[str, Callable[[], Any]] = {
        "FGSM, ours": lambda: ex.Attack.fgsm(EPS, gray=False)(x, against),
        "PGD-10, ours": lambda: ex.Attack.pgd(EPS, steps=STEPS, random_start=False, gray=False)(x, against),
    }
    calls |= _torchattacks(_Classifier(encoder, head), x, y) | _foolbox(_Classifier(encoder, head), x, y)
    seconds = interleaved(calls, 3 if quick else 9, where)
    print(f"attacks on {n} images, 32x32, {where}")
    table(seconds, n)
    figures: dict[str, object] = {}
    for name in seconds:
        attack, project = name.split(", ")
        if project != "ours":
            ours = f"{attack}, ours"
            key = attack.lower().replace("-10", "")
            figures[f"{project}_over_ours_{key}"] = ratio(seconds, name, ours)
            same = (calls[name]() - calls[ours]()).abs() < 1e-6
            figures[f"equal_pixels_{project}_{key}"] = float(same.float().mean())
    return {**figures, "images": n, "quick": quick, **versions("torchattacks", "foolbox"), **machine(where)}


class _Classifier(nn.Module):
    def __init__(self, encoder: ex.Encoder, head: nn.Module):
        super().__init__()
        self.encoder, self.head = encoder, head

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.encoder.features(x))


def _torchattacks(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> dict[str, Callable[[], Any]]:
    if (kit := peer("torchattacks")) is None:
        return {}
    model = model.eval()
    fgsm = kit.FGSM(model, eps=EPS)
    pgd = kit.PGD(model, eps=EPS, alpha=2.5 * EPS / STEPS, steps=STEPS, random_start=False)
    return {"FGSM, torchattacks": lambda: fgsm(x, y), "PGD-10, torchattacks": lambda: pgd(x, y)}


def _foolbox(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> dict[str, Callable[[], Any]]:
    if (kit := peer("foolbox")) is None:
        return {}
    wrapped = kit.PyTorchModel(model.eval(), bounds=(0, 1), device=x.device)
    fgsm = kit.attacks.LinfFastGradientAttack(random_start=False)
    pgd = kit.attacks.LinfPGD(steps=STEPS, abs_stepsize=2.5 * EPS / STEPS, random_start=False)
    return {
        "FGSM, foolbox": lambda: fgsm(wrapped, x, y, epsilons=EPS)[1],
        "PGD-10, foolbox": lambda: pgd(wrapped, x, y, epsilons=EPS)[1],
    }
