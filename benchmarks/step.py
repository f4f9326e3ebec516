"""The training step: SimCLR, CLAE with each attack, noise, and the authors' own step, one beside the other.

Networks are the same; only the step differs. 'authors' way' is their step in fp32, NCHW, as their code runs it.
"""

import torch

from explore.config import TrainConfig
from explore.runfolder import build_encoder
from explore.state import seeded
from explore.training import make_optimizer, make_stepper, resolve_device

from .timing import interleaved, machine, ratio, table

PLAIN = {"precision": "fp32", "channels_last": False}
FAST = {"precision": "bf16", "channels_last": True}
CANDIDATES = {
    "SimCLR": {"attack": "none", **PLAIN},
    "CLAE FGSM": {"attack": "fgsm", **PLAIN},
    "authors' step": {**PLAIN, "authors_step": True, "adv_reference": "self", "attack_branch": "adv", "clamp": False},
    "CLAE R-FGSM": {"attack": "rfgsm", **PLAIN},
    "CLAE PGD-3": {"attack": "pgd", "steps": 3, **PLAIN},
    "Gaussian noise": {"attack": "gaussian", **PLAIN},
    "SimCLR, channels_last": {"attack": "none", "precision": "fp32", "channels_last": True},
    "CLAE FGSM, channels_last": {"attack": "fgsm", "precision": "fp32", "channels_last": True},
    "SimCLR, cl + bf16": {"attack": "none", **FAST},
    "CLAE FGSM, cl + bf16": {"attack": "fgsm", **FAST},
}


def run(quick: bool, device: str) -> dict[str, object]:
    """Whole steps (gradients and optimiser) of ResNet-18 at 32x32, batch 64 (CPU) or 512 (GPU)."""
    where = resolve_device(device)
    small = {"arch": "resnet18", "width": 16 if quick else 64, "stem": "cifar"}
    batch = 512 if where.type == "cuda" else 32 if quick else 64
    names = list(CANDIDATES)[:3] if quick else list(CANDIDATES)
    draws = seeded(0)
    v1, v2 = (torch.rand(batch, 3, 32, 32, generator=draws).to(where) for _ in range(2))
    calls = {name: _step(TrainConfig(**{**small, **CANDIDATES[name], "batch_size": batch}), v1, v2) for name in names}
    seconds = interleaved(calls, 3 if quick else 9, where)
    print(f"ResNet-18 width {small['width']}, batch {batch}, 32x32, {where}")
    table(seconds, batch)
    figures = {"clae_over_simclr": ratio(seconds, "CLAE FGSM", "SimCLR")}
    figures["paper_code_over_clae"] = ratio(seconds, "authors' step", "CLAE FGSM")
    if not quick:
        figures["clae_over_simclr_fast"] = ratio(seconds, "CLAE FGSM, cl + bf16", "SimCLR, cl + bf16")
        figures["paper_code_over_clae_fast"] = ratio(seconds, "authors' step", "CLAE FGSM, cl + bf16")
    return {**figures, "batch": batch, "quick": quick, **machine(where)}


def _step(config: TrainConfig, v1: torch.Tensor, v2: torch.Tensor):
    encoder = build_encoder(config).to(v1.device).train()
    if config.channels_last:
        encoder = encoder.to(memory_format=torch.channels_last)
        v1, v2 = (v.contiguous(memory_format=torch.channels_last) for v in (v1, v2))
    stepper, optimizer = make_stepper(config, encoder), make_optimizer(config, encoder)

    def one() -> None:
        optimizer.zero_grad(set_to_none=True)
        stepper(v1, v2, seeded(0))
        optimizer.step()

    return one
