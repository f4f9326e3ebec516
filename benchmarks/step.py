"""The training step: SimCLR, CLAE with each attack, noise, and the authors' own step, one beside the other.

Networks are the same; only the step differs. `paper_code` is the authors' step their own way: fp32, NCHW, plain Adam, torch's own
convolutions, in a process of its own. All others are as `train` runs them, but for what their name says. `equal signs`: pixels
that FGSM moves the same way in bf16 and fp32.
"""

import torch

from explore.config import TrainConfig
from explore.nets import Encoder
from explore.random import seeded
from explore.runfolder import build_encoder
from explore.system import keep_memory
from explore.training import make_optimizer, make_stepper, prepare, resolve_device, resolve_precision

from .peers import torchs_own
from .timing import Apart, interleaved, machine, ratio, table

PAPER = {"authors_step": True, "adv_reference": "self", "attack_branch": "adv", "clamp": False, "gray": False}
PLAIN = {"precision": "fp32", "channels_last": False}
CANDIDATES = {
    "paper_code": {**PAPER, **PLAIN},
    "SimCLR": {"attack": "none"},
    "CLAE FGSM": {},
    "CLAE R-FGSM": {"attack": "rfgsm"},
    "CLAE PGD-3": {"attack": "pgd", "steps": 3},
    "Gaussian noise": {"attack": "gaussian"},
    "SimCLR, fp32 NCHW": {"attack": "none", **PLAIN},
    "CLAE FGSM, fp32 NCHW": PLAIN,
    "CLAE FGSM, fp32": {"precision": "fp32"},
    "CLAE FGSM, compiled": {"compile": True},
}
QUICK = ("paper_code", "SimCLR", "CLAE FGSM")
# dense bf16 operations a second of the SXM modules: half of the 1,979e12 "with sparsity" of NVIDIA's data sheets. Taken from
# secondary sources that quote them, not from the sheets themselves.
PEAK = {"NVIDIA H100 80GB HBM3": 989e12, "NVIDIA H200": 989e12}


def run(quick: bool, device: str) -> dict[str, object]:
    """Whole steps (gradients and optimiser) of ResNet-18 at 32x32, batch 64 (CPU) or 512 (GPU)."""
    where = resolve_device(device)
    if where.type == "cpu":
        keep_memory()
    small = {"arch": "resnet18", "width": 16 if quick else 64, "stem": "cifar"}
    batch = 512 if where.type == "cuda" else 32 if quick else 64
    names = [
        name for name in CANDIDATES if (name in QUICK if quick else where.type == "cuda" or "compiled" not in name)
    ]
    v1, v2 = _views(batch, where)
    configs = {name: TrainConfig(**{**small, **CANDIDATES[name], "batch_size": batch}) for name in names}
    keeping = "paper_code, our memory"
    calls = {
        name: Apart(_paper_code, configs["paper_code"], where, name == keeping, device=where)
        for name in (("paper_code", keeping) if where.type == "cpu" else ("paper_code",))
    }
    calls |= {
        name: _step(config, _encoder(config, where), v1, v2) for name, config in configs.items() if name != "paper_code"
    }
    seconds = interleaved(calls, 3 if quick else 9, where)
    print(f"ResNet-18 width {small['width']}, batch {batch}, 32x32, {where}")
    table(seconds, batch)
    figures = {"clae_over_simclr": ratio(seconds, "CLAE FGSM", "SimCLR")}
    figures["paper_code_over_clae"] = ratio(seconds, "paper_code", "CLAE FGSM")
    if keeping in seconds:
        figures["paper_code_keeping_over_clae"] = ratio(seconds, keeping, "CLAE FGSM")
    if not quick:
        figures["clae_over_simclr_plain"] = ratio(seconds, "CLAE FGSM, fp32 NCHW", "SimCLR, fp32 NCHW")
        figures["paper_code_over_clae_plain"] = ratio(seconds, "paper_code", "CLAE FGSM, fp32 NCHW")
    rate = 9 * batch * _operations(configs["CLAE FGSM"], v1[:1]) / min(seconds["CLAE FGSM"])
    if where.type == "cpu":
        kind = resolve_precision(configs["CLAE FGSM"].precision, where) or torch.float32
        product = _product_rate(kind, 1024 if quick else 4096, where)
        figures |= {"operations_per_s": rate, "share_of_a_product": rate / product}
        name = str(kind).removeprefix("torch.")
        print(
            f"CLAE (FGSM): {rate / 1e9:.0f} GFLOP/s, share of a {name} matrix product's rate: {100 * rate / product:.0f} %"
        )
    elif (peak := PEAK.get(torch.cuda.get_device_name(where))) is not None:
        figures["share_of_peak"] = rate / peak
    figures["equal_signs"] = _equal_signs(configs["CLAE FGSM"], v1, v2)
    return {**figures, "batch": batch, "quick": quick, **machine(where)}


def _views(batch: int, where: torch.device) -> list[torch.Tensor]:
    draws = seeded(0)
    return [torch.rand(batch, 3, 32, 32, generator=draws).to(where) for _ in range(2)]


def _encoder(config: TrainConfig, where: torch.device) -> Encoder:
    return prepare(config, build_encoder(config).to(where)).train()


def _paper_code(config: TrainConfig, where: torch.device, keep: bool):
    if keep and where.type == "cpu":
        keep_memory()
    return _step(config, torchs_own(_encoder(config, where)), *_views(config.batch_size, where))


def _step(config: TrainConfig, encoder: Encoder, v1: torch.Tensor, v2: torch.Tensor):
    stepper, optimizer = make_stepper(config, encoder), make_optimizer(config, encoder)
    if config.authors_step:
        optimizer = torch.optim.Adam(encoder.parameters(), 3e-4)

    def one() -> None:
        optimizer.zero_grad(set_to_none=True)
        stepper(v1, v2, seeded(0))
        optimizer.step()

    return one


def _equal_signs(config: TrainConfig, v1: torch.Tensor, v2: torch.Tensor) -> float:
    """Share of pixels that FGSM moves the same way in the default precision and in fp32, the same untrained network."""
    moved = []
    for precision in ("fp32", config.precision):
        as_it_is = config.with_(precision=precision, clamp=False, gray=False)
        done = make_stepper(as_it_is, _encoder(as_it_is, v1.device))(v1, v2)
        moved.append((done.x_adv - v2).sign())
    kind = resolve_precision(config.precision, v1.device) or torch.float32
    print(f"FGSM's direction, {str(kind).removeprefix('torch.')} against fp32: {100 * _same(moved):.1f} % equal signs")
    return _same(moved)


def _same(pair: list[torch.Tensor]) -> float:
    return float((pair[0] == pair[1]).float().mean())


def _product_rate(kind: torch.dtype, side: int, where: torch.device) -> float:
    """Operations a second of a matrix product of that size on this CPU, the fastest of five."""
    a, b = (torch.rand(side, side, generator=seeded(i)).to(kind) for i in range(2))
    seconds = interleaved({"product": lambda: a @ b}, 5, where)["product"]
    return 2 * side**3 / min(seconds)


def _operations(config: TrainConfig, x: torch.Tensor) -> float:
    """Multiplications and additions of one forward pass of one image."""
    from torch.utils.flop_counter import FlopCounterMode

    encoder = build_encoder(config).to(x.device).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        encoder(x)
    return counter.get_total_flops()
