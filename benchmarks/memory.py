"""Peak memory of a training step by batch size: plain, and in chunks (gradient caching), each in processes of its own.

On Linux without a GPU each is measured twice: seconds and `resident_mib` as glibc keeps memory, with the gaps between what is
in use, and `mib` in a process that hands every freed block back (MALLOC_MMAP_THRESHOLD_), so that only memory in use counts.
"""

import json
import os
import resource
import subprocess
import sys
import time

import torch

from explore.training import resolve_device

from .timing import machine

BYTES = {"linux": 1024, "darwin": 1}.get(sys.platform)  # the unit of ru_maxrss


def run(quick: bool, device: str) -> dict[str, object]:
    """MiB above the process before its first step: resident on a CPU, allocated on a GPU. ResNet-18 (quick: width 16), CLAE."""
    where = resolve_device(device)
    gpu = where.type == "cuda"
    chunk = 512 if gpu else 32
    sizes = [chunk * k for k in ((1, 2, 4) if quick else (1, 2, 4, 8, 16))]
    plain_most = sizes[-1] if quick else chunk * (4 if gpu else 16)  # what a card holds
    rows: list[dict[str, float]] = []
    print(f"{'batch':<8}{'plain MiB':>11}{f'chunks of {chunk}':>16}{'seconds':>10}{'in chunks':>11}")
    for batch in sizes:
        plain = _measure(batch, None, quick, device) if batch <= plain_most else {}
        parts = _measure(batch, chunk, quick, device)
        rows.append({"batch": batch, **{f"plain_{k}": v for k, v in plain.items()}, **parts})
        shown = f"{plain['mib']:>11.0f}" if plain else f"{'-':>11}"
        seconds = f"{plain['seconds']:>10.1f}" if plain else f"{'-':>10}"
        print(f"{batch:<8}{shown}{parts['mib']:>16.0f}{seconds}{parts['seconds']:>11.1f}", flush=True)
    both = [row for row in rows if "plain_mib" in row]
    return {
        "memory_growth_in_chunks": rows[-1]["mib"] / rows[0]["mib"],
        "memory_growth_plain": both[-1]["plain_mib"] / both[0]["plain_mib"],
        "batch_growth": sizes[-1] / sizes[0],
        "rows": rows,
        "quick": quick,
        **machine(where),
    }


def _measure(batch: int, chunk: int | None, quick: bool, device: str) -> dict[str, float]:
    code = f"from benchmarks.memory import step; step({batch}, {chunk}, {quick}, {device!r})"
    as_is = _run(code, {})
    if not sys.platform.startswith("linux") or resolve_device(device).type == "cuda":
        return as_is
    return {**as_is, "resident_mib": as_is["mib"], "mib": _run(code, {"MALLOC_MMAP_THRESHOLD_": "65536"})["mib"]}


def _run(code: str, changes: dict[str, str]) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | changes, capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def step(batch: int, chunk: int | None, quick: bool, device: str) -> None:
    """One step, run twice (the first compiles kernels), in this process; prints its peak and the second's seconds."""
    from explore.config import TrainConfig
    from explore.random import seeded
    from explore.runfolder import build_encoder
    from explore.training import make_optimizer, make_stepper

    where = resolve_device(device)
    config = TrainConfig(arch="resnet18", width=16 if quick else 64, stem="cifar", batch_size=batch, chunk=chunk)
    encoder = build_encoder(config).to(where, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    stepper, optimizer = make_stepper(config, encoder), make_optimizer(config, encoder)

    def one(n: int) -> float:
        v1, v2 = (torch.rand(n, 3, 32, 32, generator=seeded(i)).to(where) for i in range(2))
        began = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        stepper(v1, v2, seeded(2))
        optimizer.step()
        if where.type == "cuda":
            torch.cuda.synchronize(where)
        return time.perf_counter() - began

    one(4)  # loads the kernels, makes the optimiser's state
    before = _peak(where)
    seconds = one(batch)
    print(json.dumps({"mib": (_peak(where) - before) / 2**20, "seconds": seconds}))


def _peak(where: torch.device) -> float:
    """Bytes: the most that this process ever held on the device."""
    if where.type == "cuda":
        return torch.cuda.max_memory_allocated(where)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (BYTES or 1024)
